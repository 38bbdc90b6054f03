"""Penalised coefficients: optimality conditions, limits, groups, more columns than rows."""

from __future__ import annotations

import functools

import numpy as np
import pytest

import mixedmodels as mm
from mixedmodels.errors import DataError, OptionError
from mixedmodels.fit.penalised_path import descend, descend_groups


@functools.cache
def problem():
    rng = np.random.default_rng(1)
    C, g = rng.normal(size=(40, 60)), np.repeat(np.arange(10), 4)
    y = 2.0 * C[:, 3] - 1.5 * C[:, 10] + rng.normal(size=10)[g] + 0.7 * rng.normal(size=40)
    return {"y": y, "g": g}, C


@functools.cache
def path(penalty="l1", **options):
    data, C = problem()
    return mm.penalised("y ~ 1 + (1 | g)", data, C, penalty=penalty, n_lambdas=6, **options)


def gradient(found, i):
    """-d loglik / d (standardised coefficients), times sigma."""
    data, _ = problem()
    inside = found._problem
    same = data["g"][:, None] == data["g"]
    V = np.eye(40) + found.theta[i, 0] ** 2 * same
    b = found.coefficients[i] * inside.scale
    W, X = np.linalg.inv(V), np.ones((40, 1))
    rest = data["y"] - inside.C @ b
    rest = rest - X @ np.linalg.solve(X.T @ W @ X, X.T @ W @ rest)
    return b, inside.C.T @ W @ rest / found.sigma[i]


def test_conditions_of_the_lasso():
    found = path()
    assert not found.coefficients[0].any()
    for i in range(1, 4):
        b, slope = gradient(found, i)
        on = b != 0.0
        assert slope[on] == pytest.approx(found.lambdas[i] * np.sign(b[on]), rel=1e-3)
        assert np.abs(slope[~on]).max() <= found.lambdas[i] * (1.0 + 1e-3)


def test_sigma_minimises_the_criterion():
    """n log sigma + r^2 / (2 sigma^2) + lambda |b| / sigma."""
    found, i = path(), 2
    data, _ = problem()
    b, _ = gradient(found, i)
    V = np.eye(40) + found.theta[i, 0] ** 2 * (data["g"][:, None] == data["g"])
    W, X = np.linalg.inv(V), np.ones((40, 1))
    rest = data["y"] - found._problem.C @ b
    rest = rest - X @ np.linalg.solve(X.T @ W @ X, X.T @ W @ rest)
    s = found.sigma[i]
    derivative = 40 / s - rest @ W @ rest / s**3 - found.lambdas[i] * np.abs(b).sum() / s**2
    assert abs(derivative) < 1e-3 * 40 / s


def test_it_finds_the_columns_and_refits():
    found = path()
    chosen = found.selected("bic")
    assert {"x3", "x10"} <= set(chosen)
    fit = found.refit("bic", reml=False)
    assert fit.fixef["x3"] == pytest.approx(2.0, abs=0.5)
    assert "best lambda" in str(found)


def test_units_of_the_response_do_not_matter():
    data, C = problem()
    lambdas = path().lambdas[1:3]
    one = mm.penalised("y ~ 1 + (1 | g)", data, C, lambdas=lambdas)
    other = mm.penalised("y ~ 1 + (1 | g)", {**data, "y": 100.0 * data["y"]}, C, lambdas=lambdas)
    assert other.coefficients == pytest.approx(100.0 * one.coefficients, rel=5e-3, abs=1e-6)


def test_without_penalty_it_is_maximum_likelihood():
    data, C = problem()
    found = mm.penalised("y ~ 1 + (1 | g)", data, C[:, :3], lambdas=[1e-9])
    whole = {**data, "a": C[:, 0], "b": C[:, 1], "c": C[:, 2]}
    fit = mm.lmm("y ~ a + b + c + (1 | g)", whole, reml=False)
    assert found.coefficients[0] == pytest.approx(fit.beta[1:], rel=1e-4)
    assert found.fixed[0, 0] == pytest.approx(fit.beta[0], rel=1e-4)
    assert found.loglik[0] == pytest.approx(fit.loglik, rel=1e-8)
    names = mm.penalised("y ~ 1 + (1 | g)", whole, ["a", "b", "c"], lambdas=[1e-9])
    assert names.coefficients == pytest.approx(found.coefficients)


def test_ridge_conditions():
    found = path("l2")
    b, slope = gradient(found, 2)
    assert slope * found.sigma[2] == pytest.approx(found.lambdas[2] * b, rel=1e-2, abs=1e-4)


def test_groups_enter_together():
    data, C = problem()
    groups = [j // 5 for j in range(60)]
    found = mm.penalised("y ~ 1 + (1 | g)", data, C, penalty="group", groups=groups, n_lambdas=3)
    on = (found.coefficients != 0.0).reshape(3, 12, 5)
    assert (on.all(axis=2) == on.any(axis=2)).all()
    assert on[2].any()


def test_cross_validation_by_group():
    found = path(folds=3, seed=1)
    assert np.isfinite(found.cv_error).all()
    assert found.best("1se") <= found.best("cv")
    assert found.cv_error[found.best("cv")] < found.cv_error[0]


@pytest.mark.parametrize("share", [0.5, 0.01, 1e-5])
def test_more_columns_than_rows_down_to_a_perfect_fit(share):
    """At the smallest penalty as many columns are active as there are rows, and the next ones exchange."""
    rng = np.random.default_rng(0)
    C = rng.normal(size=(30, 100))
    y = C[:, :5].sum(axis=1) + rng.normal(size=30)
    G, c = C.T @ C, C.T @ y
    l1 = share * float(np.abs(c).max())
    for start in (np.zeros(100), rng.normal(size=100) * (rng.random(100) < 0.2)):
        b = descend(G, c, l1, 0.0, start)
        slope = c - G @ b
        assert np.count_nonzero(b) <= 30
        assert np.abs(slope).max() <= l1 * (1.0 + 1e-6)
        np.testing.assert_allclose(slope[b != 0.0], l1 * np.sign(b[b != 0.0]), atol=1e-8 * np.abs(c).max())


def test_descents_reach_the_conditions():
    rng = np.random.default_rng(4)
    A = rng.normal(size=(30, 12))
    G, c = A.T @ A, A.T @ rng.normal(size=30)
    b = descend(G, c, 3.0, 0.5, np.zeros(12))
    slope = c - G @ b - 0.5 * b
    assert slope[b != 0.0] == pytest.approx(3.0 * np.sign(b[b != 0.0]), rel=1e-8)
    assert np.abs(slope[b == 0.0]).max() <= 3.0 + 1e-9
    groups = [np.arange(4 * i, 4 * i + 4) for i in range(3)]
    b = descend_groups(G, c, 1.0, groups, np.zeros(12))
    for g in groups:
        size = np.linalg.norm(b[g])
        if size > 0.0:
            assert (c - G @ b)[g] == pytest.approx(2.0 * b[g] / size, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"penalty": "l3"}, OptionError, "penalty must be"),
        ({"folds": 1}, OptionError, "folds"),
        ({"folds": 3, "cv_groups": "h"}, OptionError, "no grouping factor"),
        ({"penalty": "group"}, OptionError, "groups="),
        ({"lambdas": [-1.0]}, OptionError, "lambdas"),
        ({"l1_ratio": 0.5}, OptionError, "elasticnet"),
        ({"candidates": np.ones((3, 2))}, DataError, "40 rows"),
        ({"candidates": ["nothing"]}, DataError, "numeric columns"),
    ],
)
def test_wrong_input(options, error, match):
    data, C = problem()
    options = dict(options)
    with pytest.raises(error, match=match):
        mm.penalised("y ~ 1 + (1 | g)", data, options.pop("candidates", C), n_lambdas=2, **options)
