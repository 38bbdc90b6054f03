"""Laplace's approximation with one grouping factor, against the dense oracle and against laws."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mixedmodels.covariance import make_covariance
from mixedmodels.design import GeneralisedDesign, Precision, Predictor, RandomTerm
from mixedmodels.errors import OptionError
from mixedmodels.family.base import Observations
from mixedmodels.family.binomial import Binomial
from mixedmodels.family.registry import get_family
from mixedmodels.objective.marginal.choose import choose_marginal
from mixedmodels.objective.marginal.dense import DenseLaplace
from mixedmodels.objective.marginal.grouped import GroupedLaplace
from mixedmodels.solver.base import Breakdown
from mixedmodels.testing import check_marginal

SHAPES = {
    "scalar": ((1,), (0,)),
    "slope": ((2,), (0,)),
    "three columns": ((3,), (0,)),
    "four columns": ((4,), (0,)),
    "two terms": ((1, 2), (0, 0)),
}
TWO_PREDICTORS = {
    "second predictor": ((1,), (1,)),
    "both predictors": ((2, 1), (0, 1)),
    "both, interleaved": ((1, 2, 1), (0, 1, 0)),
}


class PlainBinomial(Binomial):
    """Without a compiled density: tables of jets."""

    kernel = 0


def random_generalised(
    family, seed, shape=((1,), (0,)), n=60, m=9, weights=False, trials=False, offset=False
):
    """Unbalanced groups in random order; the last level has no row, the one before has one."""
    ks, of = shape
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, m - 2, n)
    codes[n // 2] = m - 2
    codes = codes.astype(np.int32)
    predictors, names = [], []
    for c, name in enumerate(family.predictors):
        columns = 3 if c == 0 else 2
        X = np.column_stack([np.ones(n), rng.normal(size=(n, columns - 1))])
        if c and seed % 2:
            X, columns = None, 1
        own = np.arange(len(names), len(names) + columns)
        predictors.append(Predictor(name, X, own, 0.3 * rng.normal(size=n) if offset else None))
        names += [f"{name}{j}" for j in range(columns)]
    terms = []
    for k in ks:
        Z = None if k == 1 and seed % 2 else np.column_stack([np.ones(n), rng.normal(size=(n, k - 1))])
        terms.append(RandomTerm("g", tuple("abcd"[:k]), codes, tuple(range(m)), Z, make_covariance("us", k)))
    size = None
    if family.name == "binomial":
        size = rng.integers(1, 9, n).astype(float) if trials else None
        y = rng.binomial(np.ones(n, dtype=int) if size is None else size.astype(int), 0.4).astype(float)
    elif family.name == "poisson":
        y = rng.poisson(2.0, n).astype(float)
    else:
        y = rng.normal(size=n)
    rows = Observations(y, size, rng.integers(1, 4, n).astype(float) if weights else None)
    design = GeneralisedDesign(rows, tuple(predictors), tuple(names), tuple(terms), of)
    gamma = 0.4 * rng.normal(size=len(names))
    factors = [0.6 * np.tril(rng.normal(size=(k, k))) for k in ks]
    return design, gamma, factors


@pytest.mark.parametrize("variant", ["plain", "weights", "trials and offset"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("family", ["binomial", "poisson", "gaussian"])
def test_shapes(family, shape, variant):
    family = get_family(family)
    design, gamma, factors = random_generalised(
        family, len(shape), SHAPES[shape], weights=variant == "weights", trials="trials" in variant,
        offset="offset" in variant,
    )  # fmt: skip
    check_marginal(GroupedLaplace(design, family), DenseLaplace(design, family), gamma, factors)


@pytest.mark.parametrize("link", ["logit", "probit", "cloglog", "loglog", "cauchit"])
def test_binomial_links(link):
    family = get_family("binomial", link)
    design, gamma, factors = random_generalised(family, 3, SHAPES["slope"], trials=True)
    check_marginal(GroupedLaplace(design, family), DenseLaplace(design, family), gamma, factors)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("shape", TWO_PREDICTORS)
def test_terms_of_two_predictors(shape, seed):
    family = get_family("gaussian")
    design, gamma, factors = random_generalised(family, seed, TWO_PREDICTORS[shape], weights=bool(seed))
    check_marginal(GroupedLaplace(design, family), DenseLaplace(design, family), gamma, factors)


@pytest.mark.parametrize("name", ["diag", "homdiag"])
def test_structures(name):
    family = get_family("poisson")
    design, gamma, factors = random_generalised(family, 4, SHAPES["slope"])
    term = replace(design.terms[0], covariance=make_covariance(name, 2))
    design = replace(design, terms=(term,))
    factors = [np.diag(np.diagonal(factors[0]))]
    check_marginal(GroupedLaplace(design, family), DenseLaplace(design, family), gamma, factors)


def test_zero_variance():
    family = get_family("binomial")
    design, gamma, _ = random_generalised(family, 5, SHAPES["slope"])
    check_marginal(GroupedLaplace(design, family), DenseLaplace(design, family), gamma, [np.zeros((2, 2))])


def test_shared_coefficients():
    family = get_family("gaussian")
    design, gamma, factors = random_generalised(family, 2, TWO_PREDICTORS["both predictors"])
    second = replace(design.predictors[1], columns=np.array([0, 3]))
    design = replace(design, predictors=(design.predictors[0], second), gamma_names=design.gamma_names[:4])
    check_marginal(GroupedLaplace(design, family), DenseLaplace(design, family), gamma[:4], factors)


@pytest.mark.parametrize("link", ["logit", "probit"])
def test_large_effects(link):
    family = get_family("binomial", link)
    design, gamma, _ = random_generalised(family, 6, SHAPES["scalar"])
    check_marginal(
        GroupedLaplace(design, family), DenseLaplace(design, family), 5.0 * gamma, [np.array([[6.0]])]
    )


def test_many_groups_are_a_sum_of_parts():
    """Several chunks and threads: the criterion is the sum over the parts."""
    family = get_family("poisson")
    design, gamma, factors = random_generalised(family, 8, SHAPES["slope"], n=30000, m=2500, offset=True)
    whole = GroupedLaplace(design, family).evaluate(gamma, factors, 2)
    value, gradient, hessian = 0.0, 0.0, 0.0
    for part in range(7):
        rows = np.flatnonzero(design.terms[0].codes % 7 == part)
        predictor = design.predictors[0]
        small = replace(
            design,
            data=Observations(design.data.y[rows]),
            predictors=(replace(predictor, X=predictor.X[rows], offset=predictor.offset[rows]),),
            terms=(replace(design.terms[0], codes=design.terms[0].codes[rows], Z=design.terms[0].Z[rows]),),
        )
        found = GroupedLaplace(small, family).evaluate(gamma, factors, 2)
        value, gradient, hessian = value + found.value, gradient + found.gradient, hessian + found.hessian
    assert whole.value == pytest.approx(value, rel=1e-12)
    np.testing.assert_allclose(whole.gradient, gradient, rtol=1e-9)
    np.testing.assert_allclose(whole.hessian, hessian, rtol=1e-9)


def test_compiled_density_and_tables_agree():
    family = get_family("binomial")
    design, gamma, factors = random_generalised(family, 9, SHAPES["slope"], n=5000, m=400, trials=True)
    one = GroupedLaplace(design, family).evaluate(gamma, factors, 2)
    other = GroupedLaplace(design, PlainBinomial()).evaluate(gamma, factors, 2)
    assert one.value == pytest.approx(other.value, rel=1e-13)
    np.testing.assert_allclose(one.gradient, other.gradient, atol=1e-10 * np.abs(other.gradient).max())
    np.testing.assert_allclose(one.hessian, other.hessian, atol=1e-11 * np.abs(other.hessian).max())


def test_result_does_not_depend_on_the_way_there():
    family = get_family("binomial")
    design, gamma, factors = random_generalised(family, 10, SHAPES["slope"], n=400, m=40)
    engine = GroupedLaplace(design, family)
    cold = engine.evaluate(gamma, factors, 2)
    engine.evaluate(-3.0 * gamma, [4.0 * factors[0]], 1)
    warm = engine.evaluate(gamma, factors, 2)
    assert warm.value == pytest.approx(cold.value, rel=1e-13)
    np.testing.assert_allclose(warm.hessian, cold.hessian, rtol=1e-9, atol=1e-9)


def test_breakdown_leaves_the_engine_usable():
    family = get_family("poisson")
    design, gamma, factors = random_generalised(family, 11)
    engine = GroupedLaplace(design, family)
    before = engine.evaluate(gamma, factors, 0).value
    with pytest.raises(Breakdown, match="out of its range"):
        engine.evaluate(gamma + 1e4, factors, 2)
    with pytest.raises(Breakdown):
        engine.evaluate(np.full_like(gamma, np.nan), factors, 2)
    assert engine.evaluate(gamma, factors, 0).value == pytest.approx(before, rel=1e-13)


def test_means_out_of_range_are_rejected_steps():
    """Binomial with identity link: most of the line has no probability; the search stays inside."""
    family = get_family("binomial", "identity")
    design, gamma, _ = random_generalised(family, 12, trials=True)
    gamma = np.array([0.45, 0.01, 0.0])
    check_marginal(GroupedLaplace(design, family), DenseLaplace(design, family), gamma, [np.array([[0.05]])])
    with pytest.raises(Breakdown, match="out of its range"):
        GroupedLaplace(design, family).evaluate(np.array([1.5, 0.0, 0.0]), [np.array([[0.05]])], 1)


def test_refuses_other_designs():
    family = get_family("poisson")
    design, *_ = random_generalised(family, 13, SHAPES["two terms"])
    first, second = design.terms
    crossed = replace(design, terms=(first, replace(second, codes=second.codes[::-1].copy())))
    with pytest.raises(OptionError, match="one grouping factor"):
        GroupedLaplace(crossed, family)
    known = replace(design, terms=(replace(first, precision=Precision(np.eye(9), 0.0)), second))
    with pytest.raises(OptionError, match="one grouping factor"):
        GroupedLaplace(known, family)
    assert choose_marginal(design, family).name == "grouped"
    assert "9 groups of 3 effects" in choose_marginal(design, family).describe()
