"""Every selectable method reaches the optimum of the default; what each does at its limits."""

from __future__ import annotations

import numpy as np
import pytest

from mixedmodels.errors import OptionError
from mixedmodels.optimize import METHODS, Control, Status, minimize
from mixedmodels.optimize.nelder_mead import nelder_mead


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["sleepstudy", "pastes", "penicillin"])
def test_same_optimum(toy, name, method):
    objective = toy.lme4(name, True)
    optimum = minimize(objective, method)
    assert optimum.converged, str(optimum)
    assert optimum.value == pytest.approx(toy.lme4_value(name, True)[0], abs=1e-6)
    assert optimum.method == method
    assert optimum.evaluations >= optimum.gradient_evaluations
    assert optimum.gradient is not None
    assert optimum.decrement < 1e-6


@pytest.mark.parametrize("method", METHODS)
def test_zero_variance(toy, method):
    """Every method reports the exact zero of Dyestuff2."""
    optimum = minimize(toy.lme4("dyestuff2", True), method)
    assert optimum.status is Status.BOUNDARY, str(optimum)
    assert optimum.theta[0] == 0.0
    assert optimum.value == pytest.approx(161.828277812288, rel=1e-10)


@pytest.mark.parametrize("method", ["newton-raphson", "lbfgsb", "cobyqa", "nelder-mead", "grid"])
def test_correlation_one(toy, method):
    """A factor that ends singular with a free correlation."""
    y, X, g, Z = toy.simulate(1, 30, 8, [0, 1.0])
    objective = toy.LMM(y, X, [(g, Z, "us")])
    optimum, best = minimize(objective, method), minimize(objective)
    assert best.theta[2] == 0.0
    assert abs(best.theta[1]) > 0.5
    assert optimum.value == pytest.approx(best.value, abs=1e-6)
    assert optimum.theta[2] == 0.0


def test_em_says_when_it_crawls(toy):
    """EM near a singular optimum stops at maxiter, unconverged, and says so."""
    y, X, g, Z = toy.simulate(1, 30, 8, [0, 0, 0])
    optimum = minimize(toy.LMM(y, X, [(g, Z, "us")]), "em", control=Control(maxiter=60))
    assert not optimum.converged
    assert optimum.status is Status.MAXITER
    assert "60 iterations without convergence" in optimum.message
    assert "maxiter" in optimum.message
    values = [v for *_, v in optimum.trace]
    assert np.all(np.diff(values) < 1e-8)


def test_em_steps_descend(toy):
    objective = toy.lme4("pastes", False)
    for step in (objective.em_step, objective.ecme_step):
        theta, value = np.array([0.3, 4.0]), np.inf
        for _ in range(20):
            new = objective.value(theta)
            assert new < value
            value, theta = new, step(theta)


def test_methods_that_lack_a_step(toy):
    objective = toy.lme4("pastes", True)
    objective.em_step = None
    with pytest.raises(OptionError, match="newton"):
        minimize(objective, "em")


def test_unknown_methods(toy):
    objective = toy.lme4("pastes", True)
    with pytest.raises(OptionError, match="cobyqa"):
        minimize(objective, "bobyqa")
    with pytest.raises(OptionError, match="newton"):
        minimize(objective, "newtn")


def test_own_function(toy):
    """A caller's optimiser is judged by our criterion."""
    from scipy.optimize import minimize as scipy_minimize

    def mine(objective, start, control):
        return scipy_minimize(
            objective.value_and_gradient, start, jac=True, method="BFGS", options={"gtol": 1e-7}
        )

    objective = toy.lme4("penicillin", True)
    optimum = minimize(objective, mine)
    assert optimum.method == "mine"
    assert optimum.converged
    assert optimum.value == pytest.approx(toy.lme4_value("penicillin", True)[0], abs=1e-6)
    lazy = minimize(objective, lambda objective, start, control: start)
    assert not lazy.converged
    assert lazy.status is Status.STALLED
    with pytest.raises(OptionError, match="2 finite numbers"):
        minimize(objective, lambda *_: np.ones(3))
    with pytest.raises(OptionError, match="bounds"):
        minimize(objective, lambda *_: -np.ones(2))


class TestNelderMead:
    """Closed-form minima on boxes."""

    free = np.full(3, np.inf)

    def run(self, fun, start, lower=None, upper=None):
        low = -self.free if lower is None else np.array(lower, dtype=float)
        high = self.free if upper is None else np.array(upper, dtype=float)
        x, value, used, done = nelder_mead(fun, np.array(start, dtype=float), low, high, tol=1e-10)
        assert done
        assert used < 5000
        return x, value

    def test_free(self):
        x, value = self.run(lambda x: x[0] ** 2 + (x[1] - 4) ** 2 + (x[2] + 7) ** 2, [1, 1, 1])
        np.testing.assert_allclose(x, [0, 4, -7], atol=1e-4)
        assert value == pytest.approx(0, abs=1e-8)

    def test_lower(self):
        x, value = self.run(
            lambda x: (x[0] - 1) ** 2 + (x[1] - 4) / 2 + (x[2] + 7) ** 3, [3, 3, 3], lower=[0, 0, -5]
        )
        np.testing.assert_allclose(x, [1, 0, -5], atol=1e-4)
        assert x[1] == 0.0
        assert x[2] == -5.0
        assert value == pytest.approx(6, abs=1e-8)

    def test_upper(self):
        x, value = self.run(
            lambda x: (x[0] - 1) ** 2 + (4 - x[1]) ** 3 + (x[2] + 7) ** 2, [1, 1, 1], upper=[5, 5, 5]
        )
        np.testing.assert_allclose(x, [1, 5, -7], atol=1e-4)
        assert x[1] == 5.0
        assert value == pytest.approx(-1, abs=1e-8)

    def test_both(self):
        x, value = self.run(
            lambda x: (x[0] - 1) ** 2 + (4 - x[1]) ** 3 + (x[2] + 7) ** 2,
            [1, 1, 1],
            lower=[-5, -5, -5],
            upper=[5, 5, 5],
        )
        np.testing.assert_allclose(x, [1, 5, -5], atol=1e-4)
        assert x[2] == -5.0
        assert value == pytest.approx(3, abs=1e-8)

    def test_gives_up(self):
        *_, used, done = nelder_mead(lambda x: -x[0], np.ones(1), -self.free[:1], self.free[:1], maxfev=50)
        assert not done
        assert used <= 55
