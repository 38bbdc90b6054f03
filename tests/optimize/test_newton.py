"""The default method: known answers, hard points, counts; and its compiled twin."""

from __future__ import annotations

import numpy as np
import pytest
from mixedmodels.solver._kernels.newton import CallbackEvaluator, newton_minimize

from mixedmodels.optimize import Control, Status, minimize
from mixedmodels.optimize.base import blocks_of_entries, columns_of_entries
from mixedmodels.optimize.cone import cone_newton
from mixedmodels.optimize.cone_factors import has_cone, lower_triangular, tables_of_entries
from mixedmodels.optimize.newton import Search, newton
from mixedmodels.optimize.steps import descend, factorise, sigma_step

STATUS = tuple(Status)


@pytest.mark.parametrize("reml", [False, True])
@pytest.mark.parametrize("name", ["sleepstudy", "pastes", "penicillin", "dyestuff2"])
def test_lme4_values(toy, name, reml):
    """Deviance and theta of lme4; few evaluations; a certificate."""
    deviance, theta = toy.lme4_value(name, reml)
    optimum = minimize(toy.lme4(name, reml))
    assert optimum.converged
    assert optimum.value == pytest.approx(deviance, rel=1e-10)
    np.testing.assert_allclose(optimum.theta, theta, atol=2e-6)
    assert optimum.evaluations <= 10
    assert optimum.decrement < 1e-9
    singular = name == "dyestuff2"
    assert (optimum.status is Status.BOUNDARY) == singular
    if singular:
        assert optimum.theta[0] == 0.0
        assert optimum.kkt[0].min_eigenvalue > 0
        assert "true singular fit" in str(optimum)


@pytest.mark.parametrize("scale", [1e-3, 1e3, 0.0])
@pytest.mark.parametrize("name", ["sleepstudy", "pastes", "penicillin", "dyestuff2"])
def test_bad_starts(toy, name, scale):
    """From far away, and from theta = 0, where every gradient is zero, to the same optimum."""
    objective = toy.lme4(name, True)
    optimum = minimize(objective, start=objective.start * scale)
    assert optimum.converged
    assert optimum.value == pytest.approx(toy.lme4_value(name, True)[0], rel=1e-10)
    assert optimum.evaluations <= 25


def problems(toy):
    for seed in range(3):
        y, X, g, Z = toy.simulate(seed, 30, 8, [0, 0, 0])
        yield f"zero{seed}", toy.LMM(y, X, [(g, Z, "us")])
        y, X, g, Z = toy.simulate(seed, 30, 8, [1, 1, 0.5], [[1, 1, 0.3], [1, 1, 0.3], [0.3, 0.3, 1]])
        yield f"one{seed}", toy.LMM(y, X, [(g, Z, "us")])
        y, X, g, Z = toy.simulate(seed, 30, 8, [0, 1.0])
        yield f"intercept{seed}", toy.LMM(y, X, [(g, Z, "us")])
        y, X, g, Z = toy.simulate(seed, 20, 200, [3e-2, 4e-2])
        yield f"small{seed}", toy.LMM(y, X, [(g, Z, "us")])
        y, X, g, Z = toy.simulate(seed, 30, 8, [300, 100.0])
        yield f"large{seed}", toy.LMM(y, X, [(g, Z, "us")])
        y, X, g, Z = toy.simulate(seed, 12, 4, [1, 0.3, 0.0])
        yield f"homdiag{seed}", toy.LMM(y, X, [(g, Z, "homdiag")])
        yield f"diag{seed}", toy.LMM(y, X, [(g, Z, "diag")], True)


def test_hard_points_from_every_start(toy):
    """Singular, tiny and huge optima: one value from every start, first-order conditions at each."""
    for name, objective in problems(toy):
        ends = [minimize(objective, start=objective.start * s) for s in (1.0, 1e-3, 1e3, 0.0)]
        best = min(end.value for end in ends)
        for end in ends:
            assert end.converged, (name, end.message)
            assert end.value <= best + 1e-7, name
            assert end.kkt[0].residual < 2e-2, (name, end.kkt)
            zeros = np.any(end.theta[objective.lower == 0] == 0)
            assert (end.status is Status.BOUNDARY) == zeros == end.kkt[0].singular, name
            if zeros:
                assert end.kkt[0].min_eigenvalue > -1e-2, (name, end.kkt)


@pytest.mark.parametrize("rank", [1, 2, 4])
def test_twenty_parameters_singular(toy, rank):
    """Two crossed 4 x 4 terms of deficient rank: exact zeros, few evaluations, a true minimum."""
    y, X, terms = toy.kb07(rank, rank)
    objective = toy.LMM(y, X, terms, True)
    optimum = minimize(objective)
    assert optimum.status is Status.BOUNDARY
    assert optimum.evaluations <= 20
    assert optimum.decrement < 1e-9
    for facts in optimum.kkt:
        assert facts.min_eigenvalue > -1e-2
        assert facts.residual < 1e-2
    # no feasible direction lowers the criterion: random small changes of both Sigmas
    rng = np.random.default_rng(1)
    for _ in range(10):
        theta = optimum.theta + 1e-3 * rng.normal(size=20)
        assert objective.value(theta) > optimum.value - 1e-9


def test_all_variances_zero(toy):
    """Residuals that alternate within each group: less variation between groups than chance, hence zero."""
    g = np.repeat(np.arange(10), 6)
    y = np.tile([1.0, -1.0, 2.0, -2.0, 0.5, -0.5], 10)
    x = np.tile([1.0, 1.0, -1.0, -1.0, 0.0, 0.0], 10)
    Z = np.c_[np.ones(60), x]
    optimum = minimize(toy.LMM(y, np.ones((60, 1)), [(g, Z, "us")]))
    assert optimum.status is Status.BOUNDARY
    np.testing.assert_array_equal(optimum.theta, np.zeros(3))
    assert optimum.value == pytest.approx(60 * (1 + np.log(2 * np.pi * np.mean(y**2))), rel=1e-13)


def test_twin_takes_the_same_steps(toy):
    """The compiled loop: same iterates, counts of iterations, status and escapes from saddles."""
    kb = [(f"kb{r}", toy.LMM(*toy.kb07(r, r)[:2], toy.kb07(r, r)[2], True)) for r in (1,)]
    rng = np.random.default_rng(0)
    g, x = np.repeat(np.arange(30), 10), np.tile(np.arange(10.0), 30)
    Z = np.c_[np.ones(300), x]
    y = 100.0 + 10.0 * x + 5.0 * rng.normal(size=30)[g] + rng.normal(size=30)[g] * x + rng.normal(size=300)
    # no fixed slope, no fixed intercept
    means = [(f"mean {j}", toy.LMM(y, Z[:, [j]], [(g, Z, "us")])) for j in (0, 1)]
    for name, objective in [*problems(toy), *kb, *means]:
        for scale in (1.0, 1e-3, 0.0):
            start = objective.start * scale
            run = cone_newton(objective, start, Control())
            twin = newton_minimize(objective.evaluator, start, objective.m, trace=True)
            assert STATUS[twin["status"]] is run.status, (name, scale)
            assert (twin["iterations"], twin["escapes"]) == (run.iterations, run.escapes), (name, scale)
            ours = np.array([theta for _, theta, _ in run.trace])
            size = max(1.0, np.abs(ours).max())
            np.testing.assert_allclose(twin["trace"][:, 2:], ours, atol=1e-7 * size, err_msg=name)
            assert twin["value"] == pytest.approx(run.value, abs=1e-8)
            np.testing.assert_allclose(twin["gradient"], run.gradient, atol=1e-5 * np.abs(run.hessian).max())


def test_twin_limits_and_callback(toy):
    objective = toy.lme4("sleepstudy", False)
    ev, start, m = objective.evaluator, objective.start, objective.m
    assert STATUS[newton_minimize(ev, start, m, maxiter=2)["status"]] is Status.MAXITER
    seen = []
    ended = newton_minimize(ev, start, m, callback=lambda *state: seen.append(state) or len(seen) == 3)
    assert STATUS[ended["status"]] is Status.INTERRUPTED
    assert [s[0] for s in seen] == [0, 1, 2]

    def stop(*_):
        raise KeyboardInterrupt

    assert STATUS[newton_minimize(ev, start, m, callback=stop)["status"]] is Status.INTERRUPTED

    def fail(*_):
        raise RuntimeError("from the callback")

    with pytest.raises(RuntimeError, match="from the callback"):
        newton_minimize(ev, start, m, callback=fail)
    with pytest.raises(ValueError, match="3 parameters"):
        newton_minimize(ev, np.ones(2), m)
    with pytest.raises(ValueError, match="1 factors"):
        newton_minimize(ev, start, [1, 2])


def test_parameters_shared_between_parts_of_matrices(toy):
    """Not whole covariance matrices: the compiled loop declines."""
    k, clips = [2], [(0, 0, 2, 0)]
    shared = [(0, 0, 0, 0), (0, 1, 0, 1), (0, 1, 1, 0)]
    ev = CallbackEvaluator(k, shared, clips, 1, 10.0, False, 0.0, 0.0, function=None)
    assert tables_of_entries(np.array(shared)) is None
    assert newton_minimize(ev, np.ones(2), [5]) is None


def test_genuine_bounds_are_kept(toy):
    """A bound that is not a sign: active set, with the gradient holding the parameter there."""
    objective = toy.lme4("sleepstudy", False)
    objective.upper = np.array([0.5, np.inf, np.inf])
    optimum = minimize(objective)
    assert optimum.converged
    assert optimum.theta[0] == 0.5
    assert optimum.gradient[0] < 0
    np.testing.assert_allclose(optimum.gradient[1:], 0, atol=1e-3)
    for t in (0.4, 0.49):
        objective.upper = np.array([t, np.inf, np.inf])
        assert minimize(objective).value > optimum.value


@pytest.mark.parametrize("member", ["newton", "sigma_model"])
def test_breakdown_is_a_rejected_step(toy, member):
    """A function that does not exist beyond a wall: shorter steps, the same optimum; both searches."""
    objective = toy.lme4("penicillin", False)
    inner, failures = getattr(objective, member), []

    def with_wall(theta):
        if np.any(theta > 3.6):
            failures.append(theta)
            if len(failures) % 2:
                raise FloatingPointError("not positive definite")
            return np.nan, *inner(theta)[1:]
        return inner(theta)

    setattr(objective, member, with_wall)
    start = np.array([0.3, 0.3])
    control = Control(cap=1e4)

    def search():
        if member == "newton":
            return newton(objective, start * 0.03, control, search=Search)
        assert has_cone(objective)
        return newton(objective, start, control)

    run = search()
    assert failures
    assert run.status.converged
    assert run.value == pytest.approx(332.188348668501, rel=1e-10)
    setattr(objective, member, lambda theta: (_ for _ in ()).throw(FloatingPointError("never")))
    assert search().status is Status.NOT_POSITIVE_DEFINITE


class Slide:
    """A straight slope with a wall at the end, and a Newton matrix that knows neither."""

    start, names = np.array([1.0, 1.0]), ("a", "b")
    lower, upper = np.full(2, -np.inf), np.full(2, np.inf)

    def value(self, t):
        return float(-3.0 * t[0] + t[1] ** 2) if t[0] < 1e6 else np.nan

    def newton(self, t):
        return self.value(t), np.array([-3.0, 2 * t[1]]), np.diag([0.0, 2.0])


def test_gradient_without_curvature_is_not_convergence():
    """A null direction of the Newton matrix with a gradient in it is walked, and never called a minimum."""
    optimum = minimize(Slide())
    assert not optimum.converged
    assert optimum.theta[0] > 1e5
    assert optimum.decrement > 1.0
    zero = Slide()
    zero.newton = lambda t: (zero.value(t), np.array([-3.0, 2 * t[1]]), np.zeros((2, 2)))
    assert not minimize(zero).converged


def test_perfect_fit_is_not_convergence(toy):
    """y is reproduced by the random effects: at the start no average information, but a gradient."""
    g = np.repeat(np.arange(5), 4)
    x = np.tile(np.arange(4.0), 5)
    y = 2 + 3 * x + np.array([0.0, 4, -2, 1, 3])[g]
    for reml in (True, False):
        objective = toy.LMM(y, np.c_[np.ones(20), x], [(g, np.ones((20, 1)), "us")], reml)
        for optimum in (minimize(objective), cone_newton(objective, objective.start, Control())):
            assert not optimum.status.converged
            assert optimum.theta[0] > 1e4
        twin = newton_minimize(objective.evaluator, objective.start, objective.m)
        assert not STATUS[twin["status"]].converged
        assert twin["theta"][0] > 1e4


def test_more_columns_than_levels(toy):
    """Three columns, two levels: a face of the cone whose rotations hardly matter; a singular end."""
    rng = np.random.default_rng(11)
    level = np.tile(np.arange(3), 34)[:100]
    g = np.repeat([0, 1], 50)
    Z = np.eye(3)[level]
    y = 1.0 + rng.normal(size=100) + (rng.normal(size=(2, 3)) * 1.5)[g, level]
    for reml in (True, False):
        objective = toy.LMM(y, np.ones((100, 1)), [(g, Z, "us")], reml)
        ends = [minimize(objective, start=objective.start * s) for s in (1.0, 0.1, 10.0)]
        for end in ends:
            assert end.status is Status.BOUNDARY
            assert end.evaluations <= 80
            assert end.value == pytest.approx(ends[0].value, rel=1e-10)
            assert end.kkt[0].residual < 1e-3
            assert end.kkt[0].min_eigenvalue > -1e-3


def test_deterministic(toy):
    objective = toy.lme4("sleepstudy", True)
    a, b = minimize(objective), minimize(objective)
    assert a.value == b.value
    np.testing.assert_array_equal(a.theta, b.theta)


def test_last_step_changes_nothing(toy):
    """One more full Newton step from the optimum gains less than 1e-8."""
    for name in ("sleepstudy", "pastes", "penicillin"):
        objective = toy.lme4(name, True)
        optimum = minimize(objective)
        step = -np.linalg.solve(optimum.hessian, optimum.gradient)
        assert abs(objective.value(optimum.theta + step) - optimum.value) < 1e-8


def test_linear_algebra():
    """Generalised solve of a semi-definite system and the step in Sigma."""
    rng = np.random.default_rng(3)
    A = rng.normal(size=(5, 3))
    B, g = A @ A.T, A @ rng.normal(size=3)
    s = descend(*factorise(B, np.ones(5, bool)), g)
    np.testing.assert_allclose(B @ s, -g, atol=1e-10)
    free = np.array([True, False, True, False, True])
    s = descend(*factorise(B, free, 0.1), g)
    assert not s[~free].any()
    np.testing.assert_allclose((B + 0.1 * np.eye(5))[np.ix_(free, free)] @ s[free], -g[free], atol=1e-12)
    lam = np.array([[1.0, 0, 0], [0.3, 2, 0], [-0.5, 0.1, 0.7]])
    ds = 0.1 * np.tril(rng.normal(size=(3, 3)))
    new = sigma_step(lam, ds)
    np.testing.assert_allclose(new @ new.T, lam @ lam.T + lam @ ds.T + ds @ lam.T, atol=1e-13)
    back = sigma_step(lam, -5 * lam)  # far out of the cone: shortened
    assert np.all(np.diag(back) > 0)


def test_triangular_factor_of_any_rank():
    """L L' = A A', exact zeros where rows depend on those above."""
    rng = np.random.default_rng(4)
    A = rng.normal(size=(4, 2)) @ rng.normal(size=(2, 6))
    L = lower_triangular(A)
    np.testing.assert_allclose(L @ L.T, A @ A.T, atol=1e-13)
    np.testing.assert_array_equal(np.diag(L) > 0, [True, True, False, False])
    np.testing.assert_array_equal(L, np.tril(L))
    np.testing.assert_array_equal(
        lower_triangular(np.array([[0.0, 0.0], [3.0, 4.0]])), [[0.0, 0.0], [0.0, 5.0]]
    )


def test_structure_of_entries():
    """Columns that may change sign together, and unstructured blocks."""
    us = [(0, 0, 0, 0), (0, 1, 0, 1), (0, 1, 1, 2)]
    assert [c.tolist() for c in columns_of_entries(np.array(us))] == [[0, 1], [2]]
    two = [*us, (0, 2, 2, 3), (1, 0, 0, 4), (1, 1, 1, 4)]
    assert [c.tolist() for c in columns_of_entries(np.array(two))] == [[0, 1], [2], [3], [4]]
    assert [b.tolist() for b in blocks_of_entries(np.array(two))] == [[[0, -1], [1, 2]]]
    shared = [*us, (1, 0, 0, 0), (1, 1, 0, 1), (1, 1, 1, 2)]
    assert [c.tolist() for c in columns_of_entries(np.array(shared))] == [[0, 1], [2]]
    assert blocks_of_entries(np.array(shared)) == ()
