"""Criteria with one parameter held: derivatives, and minima against a search on a dense likelihood."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize as scipy_minimize

from mixedmodels.errors import OptionError
from mixedmodels.objective.held import HeldCoefficient, HeldSigma
from mixedmodels.objective.held_variance import HeldVariance
from mixedmodels.objective.lmm import LMMObjective
from mixedmodels.optimize import minimize
from mixedmodels.solver.choose import choose_solver
from mixedmodels.solver.held import hold_coefficient
from mixedmodels.testing import DESIGN_KINDS, random_design


def minimised(design, reml=False, sigma=None, solver="auto"):
    objective = LMMObjective(design, choose_solver(design, solver), reml, sigma=sigma)
    return objective, minimize(objective).theta


def dense_criterion(design, Sigmas, sigma, reml=False):
    """Minus twice the (restricted) log-likelihood from V itself; Sigmas are not relative."""
    n = design.n
    w = np.ones(n) if design.weights is None else design.weights
    V = np.diag(sigma**2 / w)
    for term, Sigma in zip(design.terms, Sigmas, strict=True):
        Z = np.ones((n, 1)) if term.Z is None else term.Z
        V += (Z @ Sigma @ Z.T) * (term.codes[:, None] == term.codes)
    y = design.y if design.offset is None else design.y - design.offset
    _, logdet = np.linalg.slogdet(V)
    Vi = np.linalg.inv(V)
    A = design.X.T @ Vi @ design.X
    beta = np.linalg.solve(A, design.X.T @ Vi @ y)
    r = y - design.X @ beta
    d = logdet + r @ Vi @ r + (n - design.p * reml) * math.log(2.0 * math.pi)
    return d + (np.linalg.slogdet(A)[1] if reml else 0.0)


@pytest.mark.parametrize("reml", [False, True])
@pytest.mark.parametrize("sigma", [None, 0.9])
@pytest.mark.parametrize("where", [(0, 0), (0, 1), (0, 0, 1), (0, 1, 0)])
def test_derivatives_are_those_of_the_criterion(where, sigma, reml):
    objective, theta = minimised(random_design(3, "one_slope"), reml, sigma)
    held = HeldVariance(objective, theta, *where)
    point = held.estimate()
    rng = np.random.default_rng(0)
    z = np.append(point.state.x, point.u) * 1.1 + 0.05 * rng.random(held.r + 1)
    here = held._evaluate(z[:-1], z[-1])
    h = 1e-6
    ahead = [held._evaluate(*split(z + h * e)) for e in np.eye(len(z))]
    behind = [held._evaluate(*split(z - h * e)) for e in np.eye(len(z))]
    slopes = np.array([(a.d - b.d) / (2 * h) for a, b in zip(ahead, behind, strict=True)])
    curvatures = np.array([(a.g - b.g) / (2 * h) for a, b in zip(ahead, behind, strict=True)])
    assert slopes == pytest.approx(here.g, rel=1e-6, abs=1e-6 * np.abs(here.g).max())
    assert curvatures == pytest.approx(here.H, rel=1e-6, abs=1e-6 * np.abs(here.H).max())


def split(z):
    return z[:-1], z[-1]


@pytest.mark.parametrize("reml", [False, True])
def test_the_estimate_is_the_minimum_of_the_objective(reml):
    objective, theta = minimised(random_design(3, "one_slope"), reml)
    value = objective.value(theta)
    for held in (
        HeldVariance(objective, theta, 0, 0),
        HeldVariance(objective, theta, 0, 1),
        HeldVariance(objective, theta, 0, 0, 1),
        HeldSigma(objective, theta, None),
    ):
        point = held.estimate()
        assert point.criterion == pytest.approx(value, abs=1e-9)
        assert point.slope == pytest.approx(0.0, abs=1e-3)
        assert point.sigma == pytest.approx(objective.sigma(theta), rel=1e-6)


def natural_minimum(design, held, value, start, reml=False):
    """Smallest dense criterion with one of (sd0, sd1, rho, sigma) held, over the other three."""
    free = [i for i in range(4) if i != held]
    lower = np.array([0.0, 0.0, -1.0, 1e-3])
    upper = np.array([np.inf, np.inf, 1.0, np.inf])

    def criterion(x):
        sd0, sd1, rho, sigma = np.insert(x, held, value)
        c = rho * sd0 * sd1
        return dense_criterion(design, [np.array([[sd0**2, c], [c, sd1**2]])], sigma, reml)

    best = math.inf
    for scale in (1.0, 0.3):
        x = np.array(start)[free] * scale
        x = np.clip(x, lower[free] + 1e-3, np.minimum(upper[free] - 1e-3, 1e6))
        for method in ("Nelder-Mead", "L-BFGS-B"):
            options = {"maxiter": 4000, "maxfev": 4000, "xatol": 1e-10, "fatol": 1e-12}
            found = scipy_minimize(
                criterion,
                x,
                method=method,
                bounds=list(zip(lower[free], upper[free], strict=True)),
                options=options if method == "Nelder-Mead" else {"ftol": 1e-15},
            )
            x = found.x
        best = min(best, float(found.fun))
    return best


@pytest.mark.parametrize("held", [0, 1, 2])
def test_constrained_minima_are_those_of_the_dense_likelihood(held):
    design = random_design(1, "one_slope", n=60)
    objective, theta = minimised(design)
    sigma = objective.sigma(theta)
    Sigma = sigma**2 * (lambda L: L @ L.T)(objective.factors(theta)[0])
    sds = np.sqrt(np.diag(Sigma))
    start = [sds[0] + 0.1, sds[1] + 0.1, 0.1, sigma]
    which = HeldVariance(objective, theta, 0, *[(0,), (1,), (0, 1)][held])
    point = which.estimate()
    values = [0.6, -0.5] if held == 2 else [0.0, 0.4 * sds[held] + 0.05, 2.0 * sds[held] + 0.3]
    for value in values:
        found = which.at(math.asin(value) if held == 2 else value, point)
        assert found.converged
        assert found.criterion == pytest.approx(natural_minimum(design, held, value, start), abs=2e-6)
        # what it holds is held, and the criterion is that of the estimates it reports
        L = found.factors[0] * found.sigma
        S = L @ L.T
        now = S[0, 1] / math.sqrt(S[0, 0] * S[1, 1]) if held == 2 else math.sqrt(S[held, held])
        assert now == pytest.approx(value, abs=1e-9)
        assert dense_criterion(design, [S], found.sigma) == pytest.approx(found.criterion, abs=1e-6)


@pytest.mark.parametrize("kind", DESIGN_KINDS)
def test_every_kind_of_model_has_its_profiles(kind):
    design = random_design(2, kind)
    objective, theta = minimised(design)
    for t, term in enumerate(design.terms):
        wheres = [(t, i) for i in range(term.k)]
        if term.covariance.clip == "block":
            wheres += [(t, j, i) for i in range(term.k) for j in range(i)]
        for where in wheres:
            held = HeldVariance(objective, theta, *where)
            start = held.estimate()
            if len(where) == 3 and not math.isfinite(start.u):
                continue
            u = min(start.u + 0.3, held.upper)
            found = held.at(u, start)
            assert found.converged
            assert found.criterion >= start.criterion - 1e-6
            again = held._evaluate(found.state.x, u)
            free = held._active(found.state.x, again.g)
            scale = np.sqrt(np.maximum(np.abs(np.diag(again.H))[:-1], 1e-8))
            assert np.abs(again.g[:-1][free] / scale[free]).max(initial=0.0) < 1e-2
            Sigmas = [found.sigma**2 * F @ F.T for F in found.factors]
            S = Sigmas[t]
            i = where[1]
            if len(where) == 2:
                assert math.sqrt(S[i, i]) == pytest.approx(u, rel=1e-8)
            elif S[i, i] * S[where[2], where[2]] > 0.0:
                ratio = S[i, where[2]] / math.sqrt(S[i, i] * S[where[2], where[2]])
                assert ratio == pytest.approx(math.sin(u), abs=1e-8)
            if "precision" not in kind and "no_fixed" not in kind:
                assert dense_criterion(design, Sigmas, found.sigma) == pytest.approx(
                    found.criterion, abs=1e-5
                )


def test_slopes_are_derivatives_of_the_constrained_minimum():
    design = random_design(3, "one_slope")
    objective, theta = minimised(design)
    fixed = lambda s: LMMObjective(design, objective.solver, False, sigma=s)  # noqa: E731
    reduced = lambda j, u: LMMObjective(design, hold_coefficient(objective.solver, j, u), False)  # noqa: E731
    for held in (
        HeldVariance(objective, theta, 0, 1),
        HeldVariance(objective, theta, 0, 0, 1),
        HeldSigma(objective, theta, fixed),
        HeldCoefficient(objective, theta, 1, reduced),
    ):
        start = held.estimate()
        u = start.u + 0.2
        here, up, down = (held.at(v, start) for v in (u, u + 1e-4, u - 1e-4))
        assert here.slope == pytest.approx((up.criterion - down.criterion) / 2e-4, rel=1e-5)


@pytest.mark.parametrize("kind", [kind for kind in DESIGN_KINDS if "no_fixed" not in kind])
def test_holding_a_coefficient_is_leaving_its_column_out(kind):
    column = len(kind) % 2
    design = random_design(5, kind)
    solver = choose_solver(design)
    value = 0.7
    other = [j for j in range(design.p) if j != column]
    smaller = replace(
        design,
        y=design.y - value * design.X[:, column],
        X=np.ascontiguousarray(design.X[:, other]),
        x_names=tuple(design.x_names[j] for j in other),
    )
    expected = LMMObjective(smaller, choose_solver(smaller), False)
    held = LMMObjective(design, hold_coefficient(solver, column, value), False)
    for theta in (expected.start, 0.5 * expected.start, 0.0 * expected.start):
        assert held.value(theta) == pytest.approx(expected.value(theta), rel=1e-11)
        assert held.value_and_gradient(theta)[1] == pytest.approx(
            expected.value_and_gradient(theta)[1], rel=1e-8, abs=1e-8
        )
    # the solver it came from is as it was
    assert solver.p == design.p
    assert LMMObjective(design, solver, False).value(expected.start) == pytest.approx(
        LMMObjective(design, choose_solver(design), False).value(expected.start), rel=1e-13
    )


def test_average_information_with_secants_finds_the_same_minima():
    design = random_design(3, "one_slope")
    objective, theta = minimised(design)
    exact = HeldVariance(objective, theta, 0, 1)
    secant = HeldVariance(objective, theta, 0, 1)
    secant._exact = False
    start = exact.estimate()
    for u in (0.0, 0.3 * start.u, 1.7 * start.u):
        a, b = exact.at(u, start), secant.at(u, secant.estimate())
        assert b.criterion == pytest.approx(a.criterion, abs=1e-7)
        if u > 0.0:  # at an SD of 0 the slope depends on the side from which it is left
            assert b.slope == pytest.approx(a.slope, rel=1e-4)


def test_parameters_shared_one_by_one_are_refused():
    design = random_design(3, "one_slope")
    shared = replace(design, theta_index=np.array([0, 1, 0]))
    objective = LMMObjective(shared, choose_solver(shared, "dense"), False)
    with pytest.raises(OptionError, match="share single parameters"):
        HeldVariance(objective, objective.start, 0, 0)
