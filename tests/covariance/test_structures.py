"""Covariance structures: known parameterisations, the laws of the contract, the registry."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

from mixedmodels.covariance import (
    Covariance,
    Unstructured,
    available_tags,
    make_covariance,
    planned_tags,
)
from mixedmodels.errors import NotImplementedYetError, OptionError
from mixedmodels.testing import check_covariance, example_structure, random_parameters


def test_unstructured_orders_theta_by_columns_as_lme4():
    factor = make_covariance("us", 3).factor(np.arange(1.0, 7.0))
    assert factor.tolist() == [[1, 0, 0], [2, 4, 0], [3, 5, 6]]


def test_unstructured_names_are_those_of_lme4():
    names = make_covariance("us", 2).parameter_names(("(Intercept)", "Days"))
    assert names == ("(Intercept)", "Days.(Intercept)", "Days")


@pytest.mark.parametrize(
    ("tag", "n_theta", "lower"),
    [("us", 6, [0, -np.inf, -np.inf, 0, -np.inf, 0]), ("diag", 3, [0, 0, 0]), ("homdiag", 1, [0])],
)
def test_counts_and_bounds(tag, n_theta, lower):
    structure = make_covariance(tag, 3)
    assert structure.n_theta == n_theta
    assert structure.lower.tolist() == lower
    assert np.all(np.isinf(structure.upper))


@pytest.mark.parametrize("tag", available_tags())
@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_laws(tag, k):
    structure = example_structure(tag, k)
    assert isinstance(structure, Covariance)
    for seed in range(3):
        check_covariance(structure, seed)


def test_check_covariance_catches_a_wrong_derivative():
    class Wrong(Unstructured):
        def factor_derivatives(self, theta):
            return 2.0 * super().factor_derivatives(theta)

    with pytest.raises(AssertionError, match="derivative"):
        check_covariance(Wrong(2))


@pytest.mark.parametrize("tag", available_tags())
def test_instances_cannot_be_changed(tag):
    structure = example_structure(tag, 2)
    arrays = [structure.start, structure.lower, structure.upper, structure.mirrored]
    if structure.entries is not None:
        assert structure is make_covariance(tag, 2)
        arrays.append(structure.factor_derivatives(structure.start))
    for array in arrays:
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 7.0


@pytest.mark.parametrize("tag", available_tags())
def test_survives_copying(tag):
    structure = example_structure(tag, 3)
    for copied in (pickle.loads(pickle.dumps(structure)), copy.deepcopy(structure)):
        assert copied == structure and hash(copied) == hash(structure)
        assert np.array_equal(copied.factor(structure.start), structure.factor(structure.start))
    assert structure != example_structure(tag, 4)


def test_transform_centres_and_scales():
    x = 2000.0 + np.arange(10.0)
    Z = np.stack([np.ones(10), x], axis=1)
    T = make_covariance("us", 2).transform(Z.T @ Z / 10, 0)
    ZT = Z @ T
    assert np.allclose(ZT.T @ ZT / 10, np.eye(2), atol=1e-9)


def test_transform_of_a_pair_agrees_with_the_general_one():
    from mixedmodels.covariance.us import orthogonalising_factor

    structure = make_covariance("us", 2)
    for gram in (
        [[1.0, 4.5], [4.5, 28.5]],
        [[1.0, 2.0], [2.0, 4.0]],
        [[0.0, 0.0], [0.0, 2.0]],
        [[2.0, 0], [0, 0]],
    ):
        gram = np.array(gram)
        assert np.allclose(structure.transform(gram, None), orthogonalising_factor(gram), rtol=1e-12)


def test_transform_with_dependent_columns_orthonormalises_the_others():
    rng = np.random.default_rng(1)
    Z = rng.normal(size=(30, 3))
    Z[:, 1] = 2.0 * Z[:, 2]
    T = make_covariance("us", 3).transform(Z.T @ Z / 30, None)
    gram = T.T @ (Z.T @ Z / 30) @ T
    assert np.allclose(np.diagonal(gram), 1.0)
    assert abs(gram[0, 2]) < 1e-12 and abs(gram[0, 1]) < 1e-12
    assert np.linalg.cond(T) < 1e3


def test_homdiag_scales_by_one_number():
    T = make_covariance("homdiag", 2).transform(np.diag([1.0, 7.0]), None)
    assert np.allclose(T, 0.5 * np.eye(2))


@pytest.mark.parametrize("tag", planned_tags())
def test_planned_structures_say_what_is_available(tag):
    with pytest.raises(NotImplementedYetError, match=rf"'{tag}'.*available: us, diag, homdiag"):
        make_covariance(tag, 2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: make_covariance("unstruct", 2), "unknown covariance structure 'unstruct'.*available"),
        (lambda: make_covariance("us", 0), "at least one column"),
        (lambda: make_covariance("diag", 2, rank=1), "takes no option, got rank"),
    ],
)
def test_bad_requests_get_one_clear_error(call, message):
    with pytest.raises(OptionError, match=message):
        call()


# ---------------------------------------------------------------------- one structure inside another
def _sigma(tag, k, values, **options):
    structure = make_covariance(tag, k, **options)
    return structure.sigma(structure.theta_from_natural(values))


@pytest.mark.parametrize("rho", [-1.0, -0.6, 0.0, 0.3, 1.0])
def test_with_two_columns_all_patterns_are_compound_symmetry(rho):
    expected = np.array([[4.0, 4.0 * rho], [4.0 * rho, 4.0]])
    for tag in ("homcs", "ar1", "homtoep"):
        assert np.allclose(_sigma(tag, 2, [2.0, rho]), expected, atol=1e-12)
    for tag in ("cs", "hetar1", "toep", "ad", "us"):
        assert np.allclose(_sigma(tag, 2, [2.0, 2.0, rho]), expected, atol=1e-12)


@pytest.mark.parametrize("tag", ["cs", "hetar1", "toep", "ad"])
def test_without_correlation_they_are_diagonal(tag):
    structure = make_covariance(tag, 4)
    values = structure.natural(structure.start, tuple("abcd")).values.copy()
    values[:4], values[4:] = [1.0, 2.0, 3.0, 0.5], 0.0
    assert np.allclose(structure.sigma(structure.theta_from_natural(values)), np.diag([1, 4, 9, 0.25]))


def test_autoregressions_in_every_notation():
    rho, times = 0.6, np.array([0.0, 1.0, 2.0, 5.0])
    expected = 1.5**2 * rho ** np.abs(times[:, None] - times)
    assert np.allclose(_sigma("ar1", 4, [1.5, rho], times=[0, 1, 2, 5]), expected)
    assert np.allclose(_sigma("car1", 4, [1.5, rho], times=times), expected)
    assert np.allclose(_sigma("ou", 4, [1.5, -np.log(rho)], times=times), expected)
    assert np.allclose(_sigma("exp", 4, [1.5, -1.0 / np.log(rho)], coordinates=times), expected)
    assert np.allclose(
        _sigma("mat", 4, [1.5, -1.0 / np.log(rho)], coordinates=times, nu=0.5), expected, rtol=1e-10
    )
    lags = rho ** np.array([1.0, 2.0, 3.0])
    equal = 1.5**2 * rho ** np.abs(np.subtract.outer(range(4), range(4)))
    assert np.allclose(_sigma("homtoep", 4, [1.5, *lags]), equal)
    assert np.allclose(_sigma("ad", 4, [1.5] * 4 + [rho] * 3), equal)


def test_matern_with_half_integer_smoothness():
    h = np.array([0.0, 0.4, 1.7])
    d = np.abs(h[:, None] - h)
    assert np.allclose(_sigma("mat", 3, [1.0, 1.0], coordinates=h, nu=1.5), (1.0 + d) * np.exp(-d))
    expected = (1.0 + d + d**2 / 3.0) * np.exp(-d)
    assert np.allclose(_sigma("mat", 3, [1.0, 1.0, 2.5], coordinates=h), expected)


@pytest.mark.parametrize(
    ("tag", "psi", "rho"),
    [("homcs", "upper", 1.0), ("homcs", "lower", -1.0 / 3.0), ("ar1", "upper", 1.0), ("ar1", "lower", -1.0)],
)
def test_the_ends_of_a_correlation_are_ordinary_points(tag, psi, rho):
    structure = make_covariance(tag, 4)
    theta = np.array([2.0, getattr(structure, psi)[1]])
    found = structure.natural(theta, tuple("abcd"))
    assert found.values[1] == pytest.approx(rho, abs=1e-15)
    factor = structure.factor(theta)
    assert np.all(np.isfinite(factor)) and abs(np.linalg.det(factor)) < 1e-12
    step = np.array([0.0, 1e-6])
    slope = (structure.factor(theta + step) - structure.factor(theta - step)) / 2e-6
    assert np.allclose(structure.factor_derivatives(theta)[1], slope, atol=1e-8)
    assert np.allclose(structure.sigma(theta + 1e4 * step), structure.sigma(theta - 1e4 * step), atol=1e-12)


def test_decay_of_zero_is_a_correlation_of_one_with_a_smooth_root():
    structure = make_covariance("car1", 3, times=[0.0, 0.5, 2.0])
    theta = np.array([1.0, 0.0])
    assert np.allclose(structure.sigma(theta), 1.0)
    for tau in (0.0, 1e-5, 0.01, 0.02, 0.03, 0.05):
        at, step = np.array([1.0, tau]), np.array([0.0, 1e-6])
        slope = (structure.factor(at + step) - structure.factor(at - step)) / 2e-6
        bend = (structure.factor_derivatives(at + step) - structure.factor_derivatives(at - step)) / 2e-6
        if tau > 0.0:
            assert np.allclose(structure.factor_derivatives(at)[1], slope, atol=1e-7)
        assert np.allclose(structure.factor_second_derivatives(at)[1, 1], bend[1], atol=1e-6)


@pytest.mark.parametrize("tag", ["cs", "ar1", "toep", "exp", "rr", "fa"])
def test_natural_parameters_at_variance_zero(tag):
    structure = example_structure(tag, 3)
    theta = np.where(structure.lower == 0.0, 0.0, random_parameters(structure))
    found = structure.natural(theta, tuple("abc"))
    sds = np.array([kind == "sd" for kind in found.kinds])
    assert np.all(found.values[sds] == 0.0)
    if tag not in ("rr", "fa"):
        assert np.all(np.isnan(found.values[~sds])) and np.all(np.isnan(found.jacobian[~sds]))


def test_natural_correlation_of_an_effect_without_variance_does_not_exist():
    found = make_covariance("us", 2).natural(np.array([1.0, 0.0, 0.0]), ("a", "b"))
    assert found.values[:2].tolist() == [1.0, 0.0] and np.isnan(found.values[2])


@pytest.mark.parametrize(
    ("tag", "values", "message"),
    [
        ("homcs", [1.0, -0.6], "between -1/2 and 1"),
        ("ar1", [1.0, 1.5], "between -1 and 1"),
        ("ar1", [-1.0, 0.5], "must not be negative"),
        ("homtoep", [1.0, 0.9, -0.9], "not positive semi-definite"),
        ("us", [1.0, 1.0, 1.0, 0.9, 0.9, -0.9], "positive semi-definite"),
    ],
)
def test_impossible_natural_parameters(tag, values, message):
    with pytest.raises(OptionError, match=message):
        make_covariance(tag, 3).theta_from_natural(values)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: make_covariance("exp", 3), "needs coordinates"),
        (lambda: make_covariance("ou", 3), "needs times"),
        (lambda: make_covariance("rr", 3, d=4), "between 1 and the 3 columns"),
        (lambda: make_covariance("ar1", 3, times=[0, 2, 1]), "strictly increasing"),
        (lambda: make_covariance("ar1", 3, times=[0, 1]), "2 rows for 3 columns"),
        (lambda: make_covariance("exp", 2, coordinates=[[0.0, 1.0], [0.0, 1.0]]), "same coordinates"),
        (lambda: make_covariance("propto", 2, matrix=[[1.0, 2.0], [2.0, 1.0]]), "positive semi-definite"),
        (lambda: make_covariance("mat", 2, coordinates=[0.0, 1.0], nu=-1), "smoothness"),
    ],
)
def test_bad_options_get_one_clear_error(call, message):
    with pytest.raises(OptionError, match=message):
        call()


# ---------------------------------------------------------------------- one table
def test_the_parser_knows_the_same_tags():
    from mixedmodels.formula.expansion import STRUCTURES as parsed

    # known() and joint() are about levels, not about a covariance between columns
    assert set(parsed) - {"known", "joint"} == set(available_tags()) | set(planned_tags())


def test_the_documentation_has_the_table():
    from pathlib import Path

    from mixedmodels.covariance.registry import structures_table

    text = (Path(__file__).parents[2] / "docs" / "structures.md").read_text(encoding="utf-8")
    assert structures_table() in text
