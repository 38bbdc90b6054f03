"""Adaptive quadrature over one grouping factor: brute force, Laplace, differences, laws, references."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

from mixedmodels.design import GeneralisedDesign, Precision, Predictor, RandomTerm
from mixedmodels.errors import OptionError
from mixedmodels.family import Observations, get_family
from mixedmodels.family.registry import FAMILIES
from mixedmodels.objective.marginal.base import Marginal
from mixedmodels.objective.marginal.choose import choose_marginal
from mixedmodels.objective.marginal.dense import DenseLaplace
from mixedmodels.objective.marginal.quadrature import Quadrature
from mixedmodels.solver.base import Breakdown

_SPEC = importlib.util.spec_from_file_location("brute_force", Path(__file__).with_name("brute_force.py"))
assert _SPEC is not None and _SPEC.loader is not None
bf = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(bf)

# (family, columns of the terms, their predictors)
CASES = [
    ("binomial", (1,), (0,)),
    ("poisson", (2,), (0,)),
    ("binomial", (3,), (0,)),
    ("gaussian", (1, 1), (0, 1)),
    ("poisson", (1, 1), (0, 0)),
]


# Ordered categories, whose thresholds need columns of their own, are in tests/family/test_cumulative.py.
NAMES = [name for name, family in sorted(FAMILIES.items()) if family.response != "categories"]

# Families whose usual link has means out of range at the points of these tests.
_ALWAYS_VALID = {"gamma": "log", "inverse_gaussian": "log"}


# ---------------------------------------------------------------------- values
@pytest.mark.parametrize("name", NAMES)
def test_every_family_agrees_with_brute_force(name):
    try:
        design, family = bf.one_factor(name, link=_ALWAYS_VALID.get(name))
    except NotImplementedError:
        pytest.skip(f"{name} cannot draw")
    engine = Quadrature(design, family, 45)
    x = bf.point(engine, 0.5)
    if family.name == "generalised_poisson":
        x[2:4] = [0.6, 0.0]  # underdispersed, its density has a kink where the support ends
    gamma, factors = bf.split(engine, x)
    exact = bf.deviance(design, family, gamma, factors)
    assert_allclose(engine.evaluate(gamma, factors).value, exact, rtol=1e-6)


@pytest.mark.parametrize("link", ["logit", "probit", "cloglog", "loglog", "cauchit"])
def test_binomial_links_agree_with_brute_force(link):
    design, family = bf.one_factor("binomial", link=link)
    engine = Quadrature(design, family, 45)
    gamma, factors = bf.split(engine, bf.point(engine, 0.7))
    exact = bf.deviance(design, family, gamma, factors)
    assert_allclose(engine.evaluate(gamma, factors).value, exact, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "ks", "predictors"),
    [("binomial", (2,), (0,)), ("poisson", (2,), (0,)), ("gaussian", (1, 1), (0, 1))],
)
def test_two_effects_agree_with_brute_force(name, ks, predictors):
    design, family = bf.one_factor(name, ks, predictors, groups=4)
    engine = Quadrature(design, family, 35)
    gamma, factors = bf.split(engine, bf.point(engine, 0.6))
    exact = bf.deviance(design, family, gamma, factors, step=0.08, end=8.0)
    assert_allclose(engine.evaluate(gamma, factors).value, exact, rtol=1e-6)


@pytest.mark.parametrize(("name", "ks", "predictors"), CASES)
def test_one_node_is_laplaces_approximation(name, ks, predictors):
    design, family = bf.one_factor(name, ks, predictors)
    engine, dense = Quadrature(design, family, 1), DenseLaplace(design, family)
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
    for b in range(len(design.terms)):
        assert_allclose(modes.b[b], reference.b[b], atol=1e-10)
        assert_allclose(
            engine.conditional_covariance(gamma, factors, b),
            dense.conditional_covariance(gamma, factors, b),
            atol=1e-10,
        )
    assert_allclose(
        engine.predictor_variances(gamma, factors), dense.predictor_variances(gamma, factors), atol=1e-10
    )


# ---------------------------------------------------------------------- derivatives
@pytest.mark.parametrize("nodes", [2, 5])
@pytest.mark.parametrize(("name", "ks", "predictors"), CASES)
def test_derivatives_are_those_of_the_value(name, ks, predictors, nodes):
    design, family = bf.one_factor(name, ks, predictors)
    engine = Quadrature(design, family, nodes)
    x = bf.point(engine)
    found = engine.evaluate(*bf.split(engine, x), 2)
    gradient = bf.difference(lambda x: engine.evaluate(*bf.split(engine, x)).value, x)
    hessian = bf.difference(lambda x: engine.evaluate(*bf.split(engine, x), 1).gradient, x)
    assert_allclose(found.gradient, gradient, atol=1e-8 * np.abs(gradient).max())
    assert_allclose(found.hessian, hessian, atol=1e-8 * np.abs(hessian).max())
    assert_allclose(found.hessian, found.hessian.T, atol=1e-10 * np.abs(hessian).max())
    once = engine.evaluate(*bf.split(engine, x), 1)
    assert_allclose(once.value, found.value, rtol=1e-14)
    assert_allclose(once.gradient, found.gradient, rtol=1e-13)


@pytest.mark.parametrize("name", NAMES)
def test_derivatives_of_every_family(name):
    try:
        design, family = bf.one_factor(name, groups=4, link=_ALWAYS_VALID.get(name))
    except NotImplementedError:
        pytest.skip(f"{name} cannot draw")
    engine = Quadrature(design, family, 3)
    x = bf.point(engine, 0.5)
    if family.name == "generalised_poisson":
        x[2:4] = [0.6, 0.0]
    found = engine.evaluate(*bf.split(engine, x), 2)
    gradient = bf.difference(lambda x: engine.evaluate(*bf.split(engine, x)).value, x)
    hessian = bf.difference(lambda x: engine.evaluate(*bf.split(engine, x), 1).gradient, x)
    assert_allclose(found.gradient, gradient, atol=1e-7 * np.abs(gradient).max())
    assert_allclose(found.hessian, hessian, atol=1e-7 * np.abs(hessian).max())


def test_derivatives_at_a_variance_of_zero():
    design, family = bf.one_factor("poisson", (2,))
    engine = Quadrature(design, family, 5)
    x = bf.point(engine)
    x[len(design.gamma_names) :] = [0.7, 0.0, 0.0]
    found = engine.evaluate(*bf.split(engine, x), 2)
    gradient = bf.difference(lambda x: engine.evaluate(*bf.split(engine, x)).value, x)
    hessian = bf.difference(lambda x: engine.evaluate(*bf.split(engine, x), 1).gradient, x)
    assert_allclose(found.gradient, gradient, atol=1e-8 * np.abs(gradient).max())
    assert_allclose(found.hessian, hessian, atol=1e-8 * np.abs(hessian).max())


# ---------------------------------------------------------------------- laws
def test_every_number_of_nodes_is_exact_for_normal_responses():
    design, family = bf.one_factor("gaussian", (2,))
    engines = [Quadrature(design, family, nodes) for nodes in (1, 2, 7)]
    at = bf.split(engines[0], bf.point(engines[0]))
    found = [engine.evaluate(*at, 2) for engine in engines]
    for other in found[1:]:
        assert_allclose(other.value, found[0].value, rtol=1e-12)
        assert_allclose(other.gradient, found[0].gradient, atol=1e-9)
        assert_allclose(other.hessian, found[0].hessian, atol=1e-8)


def test_blocks_and_tiles_do_not_change_the_numbers(monkeypatch):
    from mixedmodels.objective.marginal import quadrature_integrals, quadrature_setup

    design, family = bf.one_factor("gaussian", (1, 1), (0, 1))
    whole = Quadrature(design, family, 5)
    monkeypatch.setattr(quadrature_setup, "SIZE", 1)
    monkeypatch.setattr(quadrature_integrals, "LIMIT", 40)
    pieces = Quadrature(design, family, 5)
    assert len(pieces._blocks) == 6
    at = bf.split(whole, bf.point(whole))
    one, two = whole.evaluate(*at, 2), pieces.evaluate(*at, 2)
    assert_allclose(two.value, one.value, rtol=1e-13)
    assert_allclose(two.gradient, one.gradient, rtol=1e-10)
    assert_allclose(two.hessian, one.hessian, rtol=1e-9, atol=1e-9)


def test_order_of_rows_labels_and_units_do_not_matter():
    design, family = bf.one_factor("binomial", (2,))
    engine = Quadrature(design, family, 4)
    gamma, factors = bf.split(engine, bf.point(engine))
    value = engine.evaluate(gamma, factors).value
    order = np.random.default_rng(0).permutation(design.n)
    term, first = design.terms[0], design.predictors[0]
    other = replace(
        design,
        data=Observations(design.data.y[order], trials=design.data.trials[order]),
        predictors=(replace(first, X=first.X[order], offset=first.offset[order]),),
        terms=(replace(term, codes=5 - term.codes[order], Z=term.Z[order] * [1.0, 1000.0]),),
    )
    scaled = np.diag([1.0, 0.001]) @ factors[0]
    assert_allclose(Quadrature(other, family, 4).evaluate(gamma, [scaled]).value, value, rtol=1e-12)


def test_weights_count_rows_and_unseen_levels_count_nothing():
    design, family = bf.one_factor("poisson")
    engine = Quadrature(design, family, 5)
    gamma, factors = bf.split(engine, bf.point(engine))
    twice = np.tile(np.arange(design.n), 2)
    term, first = design.terms[0], design.predictors[0]
    doubled = replace(
        design,
        data=Observations(design.data.y[twice]),
        predictors=(replace(first, X=first.X[twice], offset=first.offset[twice]),),
        terms=(replace(term, codes=term.codes[twice], levels=range(9)),),
    )
    weighted = replace(design, data=replace(design.data, weights=np.full(design.n, 2.0), constants={}))
    a = Quadrature(doubled, family, 5).evaluate(gamma, factors, 2)
    b = Quadrature(weighted, family, 5).evaluate(gamma, factors, 2)
    assert_allclose(a.value, b.value, rtol=1e-13)
    assert_allclose(a.hessian, b.hessian, rtol=1e-9, atol=1e-9)
    spread = Quadrature(doubled, family, 5).conditional_covariance(gamma, factors, 0)
    assert_allclose(spread[6:, 0, 0], factors[0][0, 0] ** 2)


def test_conditional_moments():
    # For normal responses mean and mode agree, and covariance and curvature.
    design, family = bf.one_factor("gaussian", (2,))
    engine = Quadrature(design, family, 3)
    at = bf.split(engine, bf.point(engine))
    mean, covariance = engine.conditional_moments(*at, 0)
    assert_allclose(mean, engine.modes(*at).b[0], atol=1e-10)
    assert_allclose(covariance, engine.conditional_covariance(*at, 0), atol=1e-10)
    # For one Poisson group by the trapezoidal rule.
    design, family = bf.one_factor("poisson", groups=1, per=2)
    engine = Quadrature(design, family, 31)
    gamma, factors = bf.split(engine, bf.point(engine))
    eta = bf._fixed(design, gamma)[0]
    u = np.linspace(-9.0, 9.0, 2001)
    mu = np.exp(eta[:, None] + factors[0][0, 0] * u)
    log = (design.data.y[:, None] * np.log(mu) - mu).sum(axis=0) - u**2 / 2
    w = np.exp(log - log.max())
    exact = factors[0][0, 0] * np.sum(w * u) / np.sum(w)
    mean, covariance = engine.conditional_moments(gamma, factors, 0)
    assert_allclose(mean[0, 0], exact, rtol=1e-8)
    square = factors[0][0, 0] ** 2 * np.sum(w * u**2) / np.sum(w)
    assert_allclose(covariance[0, 0, 0], square - exact**2, rtol=1e-7)


def test_nodes_where_the_mean_is_out_of_range_have_no_weight():
    # The identity link: far nodes have negative means; the density is zero there.
    design, _ = bf.one_factor("poisson")
    family = get_family("poisson", "identity")
    design = replace(design, data=design.data.with_y(design.data.y + 3.0))
    engine = Quadrature(design, family, 25)
    gamma, factors = np.array([4.0, 0.1]), [np.array([[0.9]])]
    found = engine.evaluate(gamma, factors, 2)
    exact = bf.deviance(design, family, gamma, factors)
    assert_allclose(found.value, exact, rtol=1e-3)  # a kink at zero: the rule converges slowly
    x = np.array([4.0, 0.1, 0.9])
    gradient = bf.difference(lambda x: engine.evaluate(*bf.split(engine, x)).value, x, 1e-4)
    assert_allclose(found.gradient, gradient, rtol=1e-6)


def test_a_mean_out_of_range_at_the_start_is_a_breakdown():
    design, _ = bf.one_factor("poisson")
    family = get_family("poisson", "identity")
    with pytest.raises(Breakdown, match="mean is out of its range"):
        Quadrature(design, family, 5).evaluate(np.array([-5.0, 0.0]), [np.array([[0.5]])])


# ---------------------------------------------------------------------- choice and errors
def test_choice_and_contract():
    design, family = bf.one_factor("binomial", (2,))
    engine = choose_marginal(design, family, nagq=7)
    assert isinstance(engine, Quadrature) and isinstance(engine, Marginal)
    assert engine.describe() == (
        "adaptive Gauss-Hermite quadrature: 7 nodes per effect, 49 points for the 2 effects of each of the "
        "6 levels of 'f6'"
    )


def test_too_many_points():
    design, family = bf.one_factor("binomial", (4,))
    with pytest.raises(OptionError, match=r"nagq = 25 with 4 random effects .* 'f6' needs 390625 points"):
        choose_marginal(design, family, nagq=25)
    with pytest.raises(OptionError, match="at most 100"):
        choose_marginal(design, family, nagq=101)


def test_expected_information_is_for_laplace():
    design, family = bf.one_factor("binomial")
    with pytest.raises(OptionError, match="information='expected' is for Laplace"):
        choose_marginal(design, family, nagq=5, information="expected")


def test_known_precision_between_levels():
    import scipy.sparse

    design, family = bf.one_factor("binomial")
    precision = Precision(scipy.sparse.csc_array(np.eye(6)), 0.0)
    design = replace(design, terms=(replace(design.terms[0], precision=precision),))
    with pytest.raises(OptionError, match="known precision between them: use nagq=1"):
        choose_marginal(design, family, nagq=5)


# ---------------------------------------------------------------------- references
FOLDER = Path(__file__).parents[2] / "references"
REFERENCES = json.loads((FOLDER / "glmm" / "quadrature.json").read_text())


def _columns(name):
    lines = (FOLDER / "data" / f"{name}.csv").read_text().splitlines()
    header = lines[0].split(",")
    return dict(zip(header, zip(*(line.split(",") for line in lines[1:]), strict=True), strict=True))


def _reference_design(reference):
    """Design of a reference, treatment contrasts; and its family, or None while it is not there."""
    name = next((own for own in reference["families"] if own in FAMILIES), None)
    if name is None:
        return None, None
    family = get_family(name, reference["link"])
    table = _columns(reference["data"])
    number = {key: np.array(table[key], dtype=float) for key in reference["numeric"]}
    n = len(table[reference["group"]])
    columns, names = [np.ones(n)], ["(Intercept)"]
    for term in reference["columns"]:
        if term.startswith("I("):
            columns.append(number[term[2:].split("^")[0]] ** 2)
            names.append(term)
        elif term in number:
            columns.append(number[term])
            names.append(term)
        else:
            for level in sorted(set(table[term]))[1:]:
                columns.append(np.array([value == level for value in table[term]], dtype=float))
                names.append(f"{term}{level}")
    levels, codes = np.unique(table[reference["group"]], return_inverse=True)
    if reference["response"] in number:
        y = number[reference["response"]]
    else:
        y = np.array([value == reference["success"] for value in table[reference["response"]]], dtype=float)
    trials = number[reference["trials"]] if reference.get("trials") else None
    offset = np.log(number[reference["log_offset"]]) if reference.get("log_offset") else None
    predictors = [Predictor("conditional", np.column_stack(columns), np.arange(len(names)), offset)]
    for extra in family.predictors[1:]:
        predictors.append(Predictor(extra, None, np.array([len(names)])))
        names.append(extra)
    from mixedmodels.covariance import make_covariance

    term = RandomTerm(
        "g", ("(Intercept)",), codes.astype(np.int32), tuple(levels), None, make_covariance("us", 1)
    )
    data = Observations(y, trials=trials)
    return GeneralisedDesign(data, tuple(predictors), tuple(names), (term,), (0,)), family


def _fitted(design, family, nodes):
    """Objective and maximum likelihood estimates."""
    from mixedmodels.objective.glmm import GLMMObjective
    from mixedmodels.objective.glmm_coordinates import Coordinates
    from mixedmodels.optimize.trust_region import trust_region

    coordinates = Coordinates(design)
    objective = GLMMObjective(coordinates, Quadrature(coordinates.inner, family, nodes))
    optimum = trust_region(objective.newton, objective.v_of(objective.start))
    assert optimum.converged
    psi = objective.psi_of(optimum.theta)
    found = objective.evaluate(psi, 2)
    return objective, psi - np.linalg.solve(found.hessian, found.gradient)  # one more step: all digits


def _contraception(columns, nodes):
    """Contraception with levels of district by urban: objective and estimates."""
    from mixedmodels.covariance import make_covariance

    table = {key: np.array(values) for key, values in _columns("Contraception").items()}
    pairs = np.char.add(np.char.add(table["district"], "/"), table["urban"])
    levels, codes = np.unique(pairs, return_inverse=True)
    X = np.column_stack([np.ones(len(pairs)), *columns(table)])
    names = tuple(f"x{j}" for j in range(X.shape[1]))
    structure = make_covariance("us", 1)
    term = RandomTerm("g", ("(Intercept)",), codes.astype(np.int32), tuple(levels), None, structure)
    predictor = Predictor("conditional", X, np.arange(len(names)))
    data = Observations((table["use"] == "Y").astype(float))
    design = GeneralisedDesign(data, (predictor,), names, (term,), (0,))
    objective, psi = _fitted(design, get_family("binomial"), nodes)
    return objective.value(psi), psi


def test_contraception_of_mixedmodels_jl():
    # Its documentation, nAGQ = 7 and nAGQ = 9; 0/1 responses have no constants. Its values are good to about
    # 1e-4 only: the first is 6e-5 above our minimum, the second 4e-5 below the minimum of the exact integral
    # (25 nodes and 9 agree to 5e-7 here), which no parameters can give.
    def main_effects(table):
        age = table["age"].astype(float)
        return [age, age**2, table["urban"] == "Y", *(table["livch"] == v for v in ("1", "2", "3+"))]

    value, psi = _contraception(main_effects, 7)
    assert_allclose(value, 2360.8760880739255, atol=1e-4)

    def interaction(table):
        age, children = table["age"].astype(float), (table["livch"] != "0").astype(float)
        return [table["urban"] == "Y", children, age, age**2, children * age]

    value, psi = _contraception(interaction, 9)
    assert_allclose(value, 2353.8241992962035, atol=1e-4)
    # Its effects coding: -1 and 1 for urban and children.
    intercept, urban, children, age, square, both = psi[:6]
    ours = [intercept + (urban + children) / 2, urban / 2, children / 2, age + both / 2, square, both / 2]
    theirs = [-0.3415494024, 0.3936406387, 0.6064403656, -0.0129073377, -0.0056240260, 0.0332040749]
    assert_allclose(ours, theirs, rtol=3e-4)
    assert_allclose(abs(psi[6]), 0.5761497845973177, rtol=1e-4)


@pytest.mark.parametrize("key", sorted(REFERENCES))
def test_maximum_likelihood_of_references(key):
    reference = REFERENCES[key]
    design, family = _reference_design(reference)
    if design is None:
        pytest.skip(f"family {reference['families'][0]} is not there")
    objective, psi = _fitted(design, family, reference["nodes"])
    assert_allclose(-0.5 * objective.value(psi), reference["logLik"], rtol=1e-8)
    hessian = objective.evaluate(psi, 2).hessian
    se = np.sqrt(np.diag(2.0 * np.linalg.inv(hessian)))
    for name, (estimate, error) in reference["beta"].items():
        at = design.gamma_names.index(name)
        assert_allclose(psi[at], estimate, atol=1e-4 * error)
        # The references differ by up to 5e-5 from the exact Hessian, theirs being differences of values.
        assert_allclose(se[at], error, rtol=1e-4)
    assert_allclose(abs(psi[-1]), reference["sd"], rtol=2e-5)
