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
from mixedmodels.testing import check_covariance


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
    structure = make_covariance(tag, k)
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
def test_shared_instances_cannot_be_changed(tag):
    structure = make_covariance(tag, 2)
    assert structure is make_covariance(tag, 2)
    for array in (structure.start, structure.lower, structure.factor_derivatives(structure.start)):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 7.0


@pytest.mark.parametrize("tag", available_tags())
def test_survives_copying(tag):
    structure = make_covariance(tag, 3)
    for copied in (pickle.loads(pickle.dumps(structure)), copy.deepcopy(structure)):
        assert copied == structure and hash(copied) == hash(structure)
        assert np.array_equal(copied.factor(structure.start), structure.factor(structure.start))
    assert structure != make_covariance(tag, 4)


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
