"""Blocked Laplace engine against the dense equations."""

from __future__ import annotations

import numpy as np
import pytest

import mixedmodels as mm
from mixedmodels.design import GeneralisedDesign, Predictor, RandomTerm
from mixedmodels.family.base import Family, Observations
from mixedmodels.family.binomial import Binomial
from mixedmodels.family.functions import exp, log, log1p
from mixedmodels.family.gaussian import Gaussian
from mixedmodels.family.poisson import Poisson
from mixedmodels.objective.marginal.blocked import BlockedLaplace
from mixedmodels.objective.marginal.dense import DenseLaplace
from mixedmodels.objective.marginal.determinant import separate_columns
from mixedmodels.optimize.trust_region import trust_region
from mixedmodels.solver.base import Breakdown
from mixedmodels.testing import random_design

KINDS = (
    "one_scalar",
    "one_slope",
    "same_group_two_terms",
    "two_crossed",
    "nested",
    "three_crossed",
    "three_nested",
    "crossed_slopes",
    "crossed_two_terms",
    "crossed_diag",
    "no_fixed",
    "offset",
    "precision",
    "precision_slope",
    "precision_crossed",
)


class ZeroInflatedPoisson(Family):
    """Extra zeros with logit eta_1: curvature that may be negative, cross derivatives."""

    name = "zip"
    links = ("log",)
    predictors = ("conditional", "zero_inflation")

    def log_density(self, data, eta):
        mean = exp(eta[0])
        constant = data.constant("lf", lambda: _log_factorial(data.y))
        zero = log(exp(eta[1]) + exp(-mean))
        positive = data.y * eta[0] - mean - constant
        at_zero = (data.y == 0).astype(float)
        return at_zero * zero + (1.0 - at_zero) * positive - log1p(exp(eta[1]))


def _log_factorial(y):
    from scipy.special import gammaln

    return gammaln(y + 1.0)


def generalised(seed, kind, family="binomial", weights=False, trials=False):
    """A random design with a response of a family."""
    design = random_design(seed, kind)
    rng = np.random.default_rng(seed)
    n = design.n
    w = rng.uniform(0.5, 2.0, n) if weights else None
    m = rng.integers(1, 6, n).astype(float) if trials else None
    if family == "binomial":
        y = rng.binomial(1 if m is None else m.astype(int), 0.4, n).astype(float)
    else:
        y = rng.poisson(1.5, n).astype(float)
    X = np.asarray(design.X) / np.maximum(1.0, np.abs(np.asarray(design.X)).max(axis=0, initial=1.0))
    offset = None if design.offset is None else 0.1 * design.offset / np.abs(design.offset).max()
    predictors = [Predictor("conditional", X, np.arange(design.p), offset)]
    names = design.x_names
    return GeneralisedDesign(
        Observations(y, m, w), tuple(predictors), names, design.terms, (0,) * len(design.terms)
    )


def two_predictors(design, owner):
    """The design with a second predictor, a column and a constant, and terms dealt out by `owner`."""
    rng = np.random.default_rng(1)
    p = len(design.gamma_names)
    X = np.column_stack([np.ones(design.n), rng.normal(size=design.n)])
    second = Predictor("other", X, np.array([p, p + 1]))
    return GeneralisedDesign(
        design.data, (*design.predictors, second), (*design.gamma_names, "a", "b"), design.terms, owner
    )


def point(design, seed, scale=0.6):
    """gamma and factors at random."""
    rng = np.random.default_rng(seed + 100)
    gamma = 0.2 * rng.normal(size=len(design.gamma_names))
    factors = []
    for term in design.terms:
        mask = np.zeros((term.k, term.k), dtype=bool)
        for i, j, _ in term.covariance.entries.tolist():
            mask[i, j] = True
        factor = np.where(mask, 0.3 * rng.normal(size=(term.k, term.k)), 0.0)
        z = 1.0 if term.Z is None else max(1.0, float(np.abs(term.Z).max()))
        factors.append((factor + scale * np.eye(term.k)) / z)
    return gamma, factors


def close(found, wanted, rel=1e-8):
    scale = np.max(np.abs(wanted), initial=1.0)
    np.testing.assert_allclose(found, wanted, rtol=0.0, atol=rel * scale)


def check(design, family, seed=0, exact=None, scale=0.6):
    gamma, factors = point(design, seed, scale)
    dense = DenseLaplace(design, family)
    blocked = BlockedLaplace(design, family)
    if exact is not None:
        blocked.exact_hessian = exact
    wanted = dense.evaluate(gamma, factors, 2)
    found = blocked.evaluate(gamma, factors, 2)
    assert found.value == pytest.approx(wanted.value, rel=1e-11)
    close(found.gradient, wanted.gradient)
    close(found.hessian, wanted.hessian)
    close(found.penalised, wanted.penalised)
    assert blocked.evaluate(gamma, factors, 0).value == found.value
    np.testing.assert_array_equal(blocked.evaluate(gamma, factors, 1).gradient, found.gradient)
    a, b = blocked.modes(gamma, factors), dense.modes(gamma, factors)
    assert a.logdet == pytest.approx(b.logdet, rel=1e-9, abs=1e-9)
    assert a.penalised == pytest.approx(b.penalised, rel=1e-11)
    close(a.eta, b.eta)
    for t in range(len(design.terms)):
        close(a.b[t], b.b[t])
        close(a.u[t], b.u[t])
        close(
            blocked.conditional_covariance(gamma, factors, t), dense.conditional_covariance(gamma, factors, t)
        )
    if 0 in design.active:
        close(blocked.predictor_variances(gamma, factors), dense.predictor_variances(gamma, factors))
    return blocked


@pytest.mark.parametrize("kind", KINDS)
def test_derivatives(kind):
    check(generalised(3, kind), Binomial())


@pytest.mark.parametrize("kind", ("two_crossed", "crossed_slopes", "three_nested"))
def test_weights_and_trials(kind):
    check(generalised(4, kind, weights=True, trials=True), Binomial("probit"))
    check(generalised(5, kind, "poisson", weights=True), Poisson())


@pytest.mark.parametrize(
    ("kind", "owner"),
    [
        ("two_crossed", (0, 1)),  # each predictor its own factor
        ("same_group_two_terms", (0, 1)),  # one factor, columns of two predictors
        ("three_crossed", (1, 0, 1)),
        ("crossed_slopes", (1, 1)),  # no random effect in the mean
    ],
)
def test_terms_in_two_predictors(kind, owner):
    base = generalised(6, kind, "poisson")
    check(two_predictors(base, owner), ZeroInflatedPoisson(), scale=0.3)
    check(two_predictors(generalised(6, kind), owner), Gaussian("identity"), scale=0.3)


def test_second_predictor_without_effects():
    base = generalised(7, "two_crossed", "poisson")
    check(two_predictors(base, (0, 0)), ZeroInflatedPoisson(), scale=0.3)


def test_shared_factor_is_one_block():
    # a zero-inflation term on the grouping factor of the mean makes one factor of two columns
    base = generalised(8, "two_crossed", "poisson")
    first = base.terms[0]
    again = RandomTerm(first.group, first.names, first.codes, first.levels, None, first.covariance)
    design = GeneralisedDesign(base.data, base.predictors, base.gamma_names, (*base.terms, again), (0, 0, 0))
    design = two_predictors(design, (0, 0, 1))
    engine = check(design, ZeroInflatedPoisson(), scale=0.3)
    assert sorted(engine.layout.k) == [1, 2]


@pytest.mark.parametrize("kind", ("two_crossed", "crossed_slopes", "precision_crossed", "three_crossed"))
def test_singular_factors(kind):
    # variances of zero and correlations of one: nothing may divide by a factor
    design = generalised(9, kind)
    gamma, factors = point(design, 9)
    factors[0] = np.zeros_like(factors[0])
    factors[-1][:, -1] = 0.0 if factors[-1].shape[0] > 1 else factors[-1][:, -1]
    wanted = DenseLaplace(design, Binomial()).evaluate(gamma, factors, 2)
    found = BlockedLaplace(design, Binomial()).evaluate(gamma, factors, 2)
    assert found.value == pytest.approx(wanted.value, rel=1e-11)
    close(found.gradient, wanted.gradient)
    close(found.hessian, wanted.hessian)


@pytest.mark.parametrize(
    "kind", ("three_crossed", "precision_crossed", "two_crossed", "three_nested", "nested", "precision_slope")
)
def test_hessian_in_batches(kind, monkeypatch):
    # as for a Schur complement too large to invert, with parts that share no rows in common columns
    from mixedmodels.objective.marginal import determinant

    monkeypatch.setattr(determinant, "_DENSE", 0.0)
    monkeypatch.setattr(determinant, "_BATCH", 5)
    check(generalised(10, kind), Binomial())


def test_separate_parts_share_columns():
    design = generalised(10, "nested")
    engine = BlockedLaplace(design, Binomial())
    slot, part = separate_columns(engine.layout, engine.layout.leaf)
    assert len(slot) > 1 and slot.max() == 0  # each outer level is a part of its own
    assert sorted(part.tolist()) == list(range(len(slot)))


def simulated(seed, formula, m=30, n=1500):
    """Counts with two crossed effects, the second with a slope, and their objective."""
    rng = np.random.default_rng(seed)
    a, b, x = rng.integers(0, m, n), rng.integers(0, m // 2, n), rng.normal(size=n)
    eta = (
        0.3
        + 0.4 * x
        + rng.normal(0.0, 0.5, m)[a]
        + rng.normal(0.0, 0.6, m)[b]
        + rng.normal(0.0, 0.3, m)[b] * x
    )
    return mm.glmm(
        formula, {"y": rng.poisson(np.exp(eta)), "x": x, "a": a, "b": b}, family="poisson"
    ).objective


@pytest.mark.parametrize("formula", ("y ~ x + (1 | a) + (1 | b)", "y ~ x + (1 | a) + (1 + x | b)"))
def test_search_with_the_model_of_the_hessian(formula):
    # exact gradients correct the model along the way: as few evaluations as with the exact Hessian
    objective = simulated(1, formula)
    start = objective.v_of(objective.start)
    found = []
    for exact in (True, False):
        engine = BlockedLaplace(objective.marginal.design, objective.family)
        assert engine.exact_hessian
        engine.exact_hessian = exact
        objective.marginal = engine
        found.append(trust_region(objective.newton, start, exact=exact))
        assert found[-1].converged
    assert found[1].value == pytest.approx(found[0].value, abs=1e-7)
    np.testing.assert_allclose(found[1].theta, found[0].theta, atol=1e-4)
    assert found[1].evaluations <= found[0].evaluations + 4


def test_model_keeps_value_and_gradient():
    design = generalised(11, "two_crossed")
    gamma, factors = point(design, 11)
    engine = BlockedLaplace(design, Binomial())
    exact = engine.newton(gamma, factors)
    engine.exact_hessian = False
    model = engine.newton(gamma, factors)
    assert model.value == exact.value
    np.testing.assert_array_equal(model.gradient, exact.gradient)
    np.testing.assert_array_equal(model.penalised, exact.penalised)


def test_start_does_not_matter():
    design = generalised(12, "two_crossed", "poisson")
    gamma, factors = point(design, 12)
    engine = BlockedLaplace(design, Poisson())
    fresh = engine.evaluate(gamma, factors, 1)
    for shift in (1.5, -0.8, 0.01):
        engine.newton(gamma + shift, [factor * (1.0 + shift) for factor in factors])
        again = engine.evaluate(gamma, factors, 1)
        assert again.value == pytest.approx(fresh.value, abs=1e-10)
        close(again.gradient, fresh.gradient, 1e-9)


def test_order_of_terms_and_levels_does_not_matter():
    design = generalised(13, "three_crossed")
    gamma, factors = point(design, 13)
    value = BlockedLaplace(design, Binomial()).evaluate(gamma, factors, 1)
    turned = GeneralisedDesign(
        design.data, design.predictors, design.gamma_names, design.terms[::-1], design.term_predictor
    )
    other = BlockedLaplace(turned, Binomial()).evaluate(gamma, factors[::-1], 1)
    assert other.value == pytest.approx(value.value, rel=1e-12)
    p = len(gamma)
    close(other.gradient[:p], value.gradient[:p])
    close(other.gradient[p:][::-1], value.gradient[p:])


def test_a_mean_out_of_range_is_a_breakdown():
    design = generalised(14, "two_crossed")
    gamma, factors = point(design, 14)
    gamma[0] = 30.0  # log link: the probability is above one
    with pytest.raises(Breakdown):
        BlockedLaplace(design, Binomial("log")).evaluate(gamma, factors, 1)


def test_description_names_the_sizes():
    engine = BlockedLaplace(generalised(15, "two_crossed"), Binomial())
    assert "blocked Laplace" in engine.describe() and str(engine.layout.m[0]) in engine.describe()


def test_exact_hessian_where_parts_are_small(monkeypatch):
    from mixedmodels.objective.marginal import blocked

    monkeypatch.setattr(blocked, "_EXACT_COLUMNS", 0)
    monkeypatch.setattr(blocked, "_EXACT_PART", 2)
    assert BlockedLaplace(generalised(10, "nested"), Binomial()).exact_hessian
    assert not BlockedLaplace(generalised(10, "two_crossed"), Binomial()).exact_hessian
