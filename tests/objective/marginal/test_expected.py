"""Laplace's approximation with expected information: lme4's criterion, derivatives against differences."""

from __future__ import annotations

import numpy as np
import pytest

from mixedmodels.covariance import Unstructured
from mixedmodels.design import GeneralisedDesign, Predictor, RandomTerm
from mixedmodels.errors import OptionError
from mixedmodels.family import Observations
from mixedmodels.family.binomial import Binomial
from mixedmodels.family.gaussian import Gaussian
from mixedmodels.family.jet import variables
from mixedmodels.objective.marginal.dense import DenseLaplace
from mixedmodels.objective.marginal.expected import ExpectedLaplace


class WithExpected(Binomial):
    """``E(-d2 log f) = mu'^2 m / (mu (1 - mu)) = -m L' K'`` with L = log mu, K = log(1 - mu)."""

    def expected_weight(self, data, eta, order):
        (x,) = variables(eta, (0,), 4)
        L = self.link.log_mean(x).table(data.n)[1:]
        K = self.link.log_complement(x).table(data.n)[1:]
        m = 1.0 if data.trials is None else data.trials
        out = [
            L[0] * K[0],
            L[1] * K[0] + L[0] * K[1],
            L[2] * K[0] + 2.0 * L[1] * K[1] + L[0] * K[2],
        ]
        return -m * np.array(out[: order + 1])


def design_of(seed=5, n=60, m=7):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    codes = np.sort(rng.integers(0, m, n)).astype(np.int32)
    codes[:m] = np.arange(m)
    trials = rng.integers(1, 6, n).astype(float)
    y = rng.binomial(trials.astype(int), 0.4).astype(float)
    X = np.column_stack([np.ones(n), x])
    term = RandomTerm("g", ("(Intercept)", "x"), codes, tuple(range(m)), X, Unstructured(2))
    predictor = Predictor("conditional", X, np.arange(2))
    return GeneralisedDesign(Observations(y, trials), (predictor,), ("(Intercept)", "x"), (term,), (0,))


GAMMA = np.array([-0.4, 0.3])
ENTRIES = np.array([0.7, 0.2, 0.5])


def evaluate(engine, psi, order=0):
    factor = np.zeros((2, 2))
    for (_, i, j), value in zip(engine.entries, psi[2:], strict=True):
        factor[i, j] = value
    return engine.evaluate(psi[:2], [factor], order)


@pytest.mark.parametrize("link", ["probit", "cloglog"])
def test_derivatives_agree_with_differences(link):
    engine = ExpectedLaplace(design_of(), WithExpected(link))
    psi = np.concatenate([GAMMA, ENTRIES])
    found = evaluate(engine, psi, 2)
    h = 1e-4
    gradient = np.empty(5)
    hessian = np.empty((5, 5))
    for a, e in enumerate(np.eye(5) * h):
        gradient[a] = (
            8.0 * (evaluate(engine, psi + e).value - evaluate(engine, psi - e).value)
            - evaluate(engine, psi + 2 * e).value
            + evaluate(engine, psi - 2 * e).value
        ) / (12.0 * h)
        hessian[a] = (
            8.0 * (evaluate(engine, psi + e, 1).gradient - evaluate(engine, psi - e, 1).gradient)
            - evaluate(engine, psi + 2 * e, 1).gradient
            + evaluate(engine, psi - 2 * e, 1).gradient
        ) / (12.0 * h)
    np.testing.assert_allclose(found.gradient, gradient, atol=1e-7)
    np.testing.assert_allclose(found.hessian, hessian, atol=1e-6)


def test_canonical_links_have_one_information():
    psi = np.concatenate([GAMMA, ENTRIES])
    design = design_of()
    one = evaluate(ExpectedLaplace(design, WithExpected("logit")), psi, 2)
    other = evaluate(DenseLaplace(design, Binomial("logit")), psi, 2)
    assert one.value == pytest.approx(other.value, rel=1e-12)
    np.testing.assert_allclose(one.hessian, other.hessian, rtol=1e-9, atol=1e-9)


def test_other_links_differ():
    psi = np.concatenate([GAMMA, ENTRIES])
    design = design_of()
    one = evaluate(ExpectedLaplace(design, WithExpected("cloglog")), psi).value
    other = evaluate(DenseLaplace(design, Binomial("cloglog")), psi).value
    assert abs(one - other) > 1e-3


def test_families_with_more_predictors_are_refused():
    with pytest.raises(OptionError, match="information='observed'"):
        ExpectedLaplace(design_of(), Gaussian())


def test_dense_matrices_that_would_be_too_large_are_refused(monkeypatch):
    from mixedmodels.objective.marginal import expected

    design = design_of()
    monkeypatch.setattr(expected, "LARGEST", design.n * design.q - 1)
    with pytest.raises(OptionError, match="use information='observed'"):
        ExpectedLaplace(design, WithExpected("cloglog"))
