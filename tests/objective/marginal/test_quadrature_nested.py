"""Adaptive quadrature over two nested grouping factors: brute force, Laplace, differences, laws."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

from mixedmodels.errors import OptionError
from mixedmodels.objective.marginal.base import Marginal
from mixedmodels.objective.marginal.choose import choose_marginal
from mixedmodels.objective.marginal.dense import DenseLaplace
from mixedmodels.objective.marginal.quadrature import Quadrature
from mixedmodels.objective.marginal.quadrature_nested import NestedQuadrature

_SPEC = importlib.util.spec_from_file_location("brute_force", Path(__file__).with_name("brute_force.py"))
assert _SPEC is not None and _SPEC.loader is not None
bf = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(bf)

# (family, (columns, predictor) of the term on the outer factor, of that on the inner one)
CASES = [
    ("binomial", ((1, 0), (1, 0))),
    ("poisson", ((2, 0), (1, 0))),
    ("binomial", ((1, 0), (2, 0))),
    ("gaussian", ((1, 0), (1, 1))),
]


@pytest.mark.parametrize("name", ["binomial", "poisson", "gaussian"])
def test_values_agree_with_brute_force(name):
    design, family = bf.two_factors(name)
    engine = NestedQuadrature(design, family, 21)
    gamma, factors = bf.split(engine, bf.point(engine, 0.6))
    exact = bf.nested_deviance(design, family, gamma, factors)
    assert_allclose(engine.evaluate(gamma, factors).value, exact, rtol=1e-8)


@pytest.mark.parametrize(("name", "ks"), CASES)
def test_one_node_is_laplaces_approximation(name, ks):
    design, family = bf.two_factors(name, ks)
    engine, dense = NestedQuadrature(design, family, 1), DenseLaplace(design, family)
    gamma, factors = bf.split(engine, bf.point(engine))
    found, expected = engine.evaluate(gamma, factors, 2), dense.evaluate(gamma, factors, 2)
    assert_allclose(found.value, expected.value, rtol=1e-12)
    assert_allclose(found.gradient, expected.gradient, atol=1e-10)
    assert_allclose(found.hessian, expected.hessian, atol=1e-9)
    assert_allclose(found.penalised, expected.penalised, atol=1e-9)
    modes, reference = engine.modes(gamma, factors), dense.modes(gamma, factors)
    assert_allclose(modes.eta, reference.eta, atol=1e-10)
    assert_allclose(modes.penalised, reference.penalised, rtol=1e-12)
    assert_allclose(modes.logdet, reference.logdet, atol=1e-10)
    for b in range(2):
        assert_allclose(modes.b[b], reference.b[b], atol=1e-10)
        assert_allclose(
            engine.conditional_covariance(gamma, factors, b),
            dense.conditional_covariance(gamma, factors, b),
            atol=1e-10,
        )
    assert_allclose(
        engine.predictor_variances(gamma, factors), dense.predictor_variances(gamma, factors), atol=1e-10
    )


@pytest.mark.parametrize("nodes", [2, 4])
@pytest.mark.parametrize(("name", "ks"), CASES)
def test_derivatives_are_those_of_the_value(name, ks, nodes):
    design, family = bf.two_factors(name, ks)
    engine = NestedQuadrature(design, family, nodes)
    x = bf.point(engine)
    found = engine.evaluate(*bf.split(engine, x), 2)
    gradient = bf.difference(lambda x: engine.evaluate(*bf.split(engine, x)).value, x)
    hessian = bf.difference(lambda x: engine.evaluate(*bf.split(engine, x), 1).gradient, x)
    assert_allclose(found.gradient, gradient, atol=1e-8 * np.abs(gradient).max())
    assert_allclose(found.hessian, hessian, atol=1e-8 * np.abs(hessian).max())
    assert_allclose(found.hessian, found.hessian.T, atol=1e-10 * np.abs(hessian).max())


def test_no_variance_between_or_within_leaves_one_factor():
    design, family = bf.two_factors("binomial")
    engine = NestedQuadrature(design, family, 7)
    gamma = np.array([0.1, -0.2])
    for kept, other in ((0, 1), (1, 0)):
        factors = [np.array([[0.9]]), np.array([[0.9]])]
        factors[other] = np.zeros((1, 1))
        alone = replace(design, terms=(design.terms[kept],), term_predictor=(0,))
        expected = Quadrature(alone, family, 7).evaluate(gamma, [factors[kept]])
        assert_allclose(engine.evaluate(gamma, factors).value, expected.value, rtol=1e-12)


def test_every_number_of_nodes_is_exact_for_normal_responses():
    design, family = bf.two_factors("gaussian")
    engines = [NestedQuadrature(design, family, nodes) for nodes in (1, 5)]
    at = bf.split(engines[0], bf.point(engines[0]))
    one, five = (engine.evaluate(*at, 2) for engine in engines)
    assert_allclose(five.value, one.value, rtol=1e-12)
    assert_allclose(five.gradient, one.gradient, atol=1e-9)
    assert_allclose(five.hessian, one.hessian, atol=1e-8)
    for b in range(2):
        mean, covariance = engines[1].conditional_moments(*at, b)
        assert_allclose(mean, engines[1].modes(*at).b[b], atol=1e-10)
        assert_allclose(covariance, engines[1].conditional_covariance(*at, b), atol=1e-10)


def test_blocks_and_tiles_do_not_change_the_numbers(monkeypatch):
    from mixedmodels.objective.marginal import quadrature_setup, quadrature_two_levels

    design, family = bf.two_factors("poisson", ((2, 0), (1, 0)))
    whole = NestedQuadrature(design, family, 3)
    monkeypatch.setattr(quadrature_setup, "SIZE", 1)
    monkeypatch.setattr(quadrature_two_levels, "LIMIT", 100)
    pieces = NestedQuadrature(design, family, 3)
    assert len(pieces._blocks) == 4
    at = bf.split(whole, bf.point(whole))
    one, two = whole.evaluate(*at, 2), pieces.evaluate(*at, 2)
    assert_allclose(two.value, one.value, rtol=1e-13)
    assert_allclose(two.gradient, one.gradient, rtol=1e-10)
    assert_allclose(two.hessian, one.hessian, rtol=1e-9, atol=1e-9)


def test_choice_and_order_of_the_terms():
    design, family = bf.two_factors("binomial")
    engine = choose_marginal(design, family, nagq=5)
    assert isinstance(engine, NestedQuadrature) and isinstance(engine, Marginal)
    assert "12 levels of 'f12' within them" in engine.describe()
    swapped = replace(design, terms=design.terms[::-1])
    gamma, factors = bf.split(engine, bf.point(engine))
    factors[1] = factors[1] * 0.5
    value = choose_marginal(swapped, family, nagq=5).evaluate(gamma, factors[::-1]).value
    assert_allclose(value, engine.evaluate(gamma, factors).value, rtol=1e-13)


def test_crossed_and_three_factors_are_named():
    design, family = bf.two_factors("binomial", crossed=True)
    with pytest.raises(OptionError, match=r"factors 'f4' and 'f12' are crossed: .* use nagq=1"):
        choose_marginal(design, family, nagq=5)
    rows = replace(design.terms[1], group="row", codes=np.arange(48, dtype=np.int32), levels=range(48))
    three = replace(design, terms=(*design.terms, rows), term_predictor=(0, 0, 0))
    with pytest.raises(OptionError, match="not for 'f4' and 'f12' and 'row': use nagq=1"):
        choose_marginal(three, family, nagq=5)
