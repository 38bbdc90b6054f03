"""Predictions by simulation, and effects left out on the levels of the mean: against dense algebra."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import mixedmodels as mm
from mixedmodels.design import Precision
from mixedmodels.inference.prediction.draws import joint_draws, row_quantiles
from mixedmodels.inference.prediction.rows import term_variance


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(18)
    n = 150
    frame = pd.DataFrame(
        {
            "x": rng.standard_normal(n) + 1.0,
            "g": rng.integers(0, 8, n).astype(str),
            "h": rng.integers(0, 5, n),
            "w": rng.uniform(0.5, 3.0, n),
        }
    )
    effects = rng.standard_normal((8, 2)) @ np.array([[1.0, 0.6], [0.0, 0.5]])
    g = frame["g"].astype(int).to_numpy()
    noise = rng.standard_normal(n) / np.sqrt(frame["w"])
    frame["y"] = 2.0 + effects[g, 0] + effects[g, 1] * frame["x"] + rng.standard_normal(5)[frame["h"]] + noise
    return frame


MODELS = ["y ~ x + (x | g) + (1 | h)", "y ~ x + (1 | g) + (0 + x | g) + (1 | h)"]


@pytest.fixture(scope="module", params=MODELS)
def fit(request, data):
    return mm.lmm(request.param, data, weights="w")


def joint_covariance(fit, codes, Z):
    """Moments of all effects, of the data and of N rows, by the n x n covariance: Var(y), Cov(eta_b, y), ...

    For each term of the rows its covariance with y and with the other rows' value of the same term; a level
    that is not in the data has a covariance of its own.
    """
    design, s2 = fit.design, fit.sigma**2
    w = np.ones(design.n) if design.weights is None else design.weights
    V = np.diag(s2 / w)
    cross, own = [], []
    for term, factor, level, values in zip(design.terms, fit._factors, codes, Z, strict=True):
        Sigma = s2 * np.array(factor) @ np.array(factor).T
        Zy = np.ones((design.n, 1)) if term.Z is None else term.Z
        V += (term.codes[:, None] == term.codes[None, :]) * (Zy @ Sigma @ Zy.T)
        columns = [np.diag(np.arange(term.k) == j).astype(float) for j in range(term.k)]
        same_y = level[:, None] == term.codes[None, :]
        cross.append([same_y * (values @ D @ Sigma @ Zy.T) for D in columns])
        own.append([[np.sum((values @ D @ Sigma) * (values @ E), axis=1) for E in columns] for D in columns])
    return V, cross, own


def squared_error(fit, X, codes, Z, kept):
    """``E(eta - eta^)^2``: eta with all effects, eta^ with the BLUPs of the columns `kept` only.

    Every prediction is a linear function ``a'y`` of the data with ``X'a = x``, so moments are enough.
    """
    V, cross, own = joint_covariance(fit, codes, Z)
    design = fit.design
    Vi = np.linalg.inv(V)
    Phi = np.linalg.inv(design.X.T @ Vi @ design.X)
    P = Vi - Vi @ design.X @ Phi @ design.X.T @ Vi
    C_all = sum(c for term in cross for c in term)
    C_kept = sum((cross[t][j] for t, j in kept), np.zeros_like(C_all))
    weights = X @ Phi @ design.X.T @ Vi + C_kept @ P  # a', one row for each prediction
    variance = sum(one for term in own for row in term for one in row)
    return np.diagonal(weights @ V @ weights.T) - 2.0 * np.sum(weights * C_all, axis=1) + variance


def columns_of(fit, chosen):
    """(term, column) by grouping factor and name."""
    return [
        (t, j)
        for t, term in enumerate(fit.design.terms)
        for j, name in enumerate(term.names)
        if (term.group, name) in chosen
    ]


INTERCEPT, SLOPE, H = ("g", "(Intercept)"), ("g", "x"), ("h", "(Intercept)")


@pytest.mark.parametrize(
    ("re_form", "chosen"),
    [
        ("~ (1 | g)", [INTERCEPT]),
        ("~ (0 + x | g)", [SLOPE]),
        ("~ (1 | g) + (1 | h)", [INTERCEPT, H]),
        (None, [INTERCEPT, SLOPE, H]),
    ],
)
@pytest.mark.parametrize("method", ["analytic", "simulation"])
def test_columns_left_out_on_known_and_new_levels(fit, data, re_form, chosen, method):
    rows = data.head(5).copy()
    rows["g"] = ["0", "3", "new", "3", "7"]
    X = np.column_stack([np.ones(5), rows["x"]])
    codes, Z = [], []
    for term in fit.design.terms:
        if term.group == "g":
            codes.append(np.array([0, 3, 100, 3, 7]))
            Z.append(
                np.column_stack([np.ones(5) if name == "(Intercept)" else rows["x"] for name in term.names])
            )
        else:
            known = rows["h"].to_numpy() if H in chosen else np.full(5, 200)
            codes.append(known)
            Z.append(np.ones((5, 1)))
    expected = squared_error(fit, X, codes, Z, columns_of(fit, chosen)) + fit.sigma**2 / rows["w"]
    options = {"method": method, "n": 20_000, "seed": 3} if method == "simulation" else {}
    table = fit.predict(rows, re_form, new_levels="population", interval="prediction", weights="w", **options)
    rtol = 1e-7 if method == "analytic" else 0.04
    np.testing.assert_allclose(table["prediction_sd"] ** 2, expected, rtol=rtol)


def test_a_correlation_of_zero_and_two_terms_have_the_same_limits(data):
    two = mm.lmm("y ~ x + (1 | g) + (0 + x | g)", data)
    one = mm.lmm("y ~ x + diag(x | g)", data)
    for re_form in ("~ (1 | g)", "~ (0 + x | g)"):
        a = two.predict(data, re_form, interval="prediction")
        b = one.predict(data, re_form, interval="prediction")
        np.testing.assert_allclose(a["prediction_sd"], b["prediction_sd"], rtol=1e-6)
        assert any("on the levels of the mean" in note for note in a.notes)


def test_the_columns_kept_leave_the_standard_error_of_the_mean(fit, data):
    mean = fit.predict(data, "~ (1 | g)", se=True)
    whole = fit.predict(data, "~ (1 | g)", interval="prediction")
    np.testing.assert_allclose(whole["std_error"], mean["std_error"], rtol=1e-12)


@pytest.mark.parametrize("formula", ["y ~ x + (x | g)", MODELS[0]])
def test_joint_draws_have_hendersons_covariance(data, formula):
    fit = mm.lmm(formula, data, weights="w")
    design, n = fit.design, 40_000
    levels = {t: np.arange(term.m) for t, term in enumerate(design.terms)}
    factors = [np.array(f)[None] for f in fit._factors]
    beta, b, own = joint_draws(fit, factors, np.full(n, fit.sigma), levels, np.random.default_rng(1))
    error = 5.0 / np.sqrt(n)
    sd = np.sqrt(np.diagonal(fit.vcov))
    assert (np.abs(beta.mean(axis=1) - fit.beta) < error * sd).all()
    np.testing.assert_allclose(np.cov(beta), fit.vcov, atol=error * np.outer(sd, sd).max())
    for t, term in enumerate(design.terms):
        blocks = fit.sigma**2 * fit.solver.random_covariance(fit._factors, t)
        spread = np.sqrt(np.einsum("mkk->mk", blocks))
        assert (np.abs(b[t].mean(axis=2) - fit._b[t]) < error * spread).all()
        cross = np.einsum("mkn,pn->mkp", b[t] - fit._b[t][..., None], beta - fit.beta[:, None]) / n
        exact = fit.sigma**2 * fit.solver.fixed_random_covariance(fit._factors)[t]
        np.testing.assert_allclose(cross, exact, atol=error * spread.max() * sd.max() * 1.5)
        for level in range(term.m):
            np.testing.assert_allclose(
                np.cov(b[t][level]).reshape(term.k, term.k), blocks[level], atol=error * blocks[level].max()
            )
        Sigma = fit.sigma**2 * np.array(fit._factors[t]) @ np.array(fit._factors[t]).T
        np.testing.assert_allclose(np.einsum("mkn,mln->kl", own[t], own[t]) / n / term.m, Sigma, rtol=0.03)


def test_one_factor_or_one_for_each_draw_are_the_same(fit, data):
    class Draws:
        theta = np.tile(fit.theta, (30, 1))
        sigma = np.full(30, fit.sigma)

    options = {"interval": "prediction", "method": "simulation", "draws": True, "new_levels": "population"}
    rows = data.head(8).assign(g=["0", "new", "2", "new", "4", "5", "6", "7"])
    for re_form in (None, "~ (1 | g)", "population"):
        plain = fit.predict(rows, re_form, n=30, seed=2, **options)
        each = fit.predict(rows, re_form, parameters=Draws, seed=2, **options)
        np.testing.assert_allclose(each.extra["draws"], plain.extra["draws"], rtol=1e-8, atol=1e-9)


def test_first_draws_do_not_depend_on_their_number(fit, data):
    few, many = (
        fit.predict(data.head(3), method="simulation", draws=True, n=n, seed=5).extra["draws"] for n in (4, 9)
    )
    assert few.shape == (3, 4)
    np.testing.assert_allclose(many[:, :4], few, rtol=1e-10)


def test_rows_on_one_new_level_share_its_effect(fit):
    new = {"x": [1.0, 1.0, 1.0, 1.0], "g": ["a", "b", "a", None], "h": [0, 0, 0, 0]}
    table = fit.predict(new, se=True, new_levels="population", method="simulation", draws=True, n=50, seed=1)
    draws = table.extra["draws"]
    np.testing.assert_array_equal(draws[0], draws[2])
    assert np.abs(draws[0] - draws[1]).min() > 0.0 and np.abs(draws[0] - draws[3]).min() > 0.0
    assert any("new levels (3 in all)" in note for note in table.notes)


def test_draws_are_those_of_the_table(fit, data):
    table = fit.predict(data.head(4), interval="prediction", method="simulation", draws=True, n=200, seed=1)
    draws = table.extra["draws"]
    np.testing.assert_allclose(draws.std(axis=1, ddof=1), table["prediction_sd"], rtol=1e-12)
    np.testing.assert_allclose(np.quantile(draws, 0.025, axis=1), table["conf_low"], rtol=1e-12)
    plain = fit.predict(data.head(4), interval="prediction", method="simulation", n=200, seed=1)
    np.testing.assert_array_equal(plain["conf_low"], table["conf_low"])
    assert "draws" not in plain.extra
    with pytest.raises(mm.OptionError, match="simulation"):
        fit.predict(data, draws=True)


def test_own_rows_with_missing_values_and_weights_of_zero(data):
    odd = data.copy()
    odd.loc[3, "x"] = np.nan
    odd.loc[5, "w"] = 0.0
    fit = mm.lmm(MODELS[0], odd, weights="w", na_action="exclude")
    table = fit.predict(se=True, method="simulation", n=2000, seed=3, draws=True)
    exact = fit.predict(se=True)
    assert np.isnan(table["std_error"]).nonzero()[0].tolist() == [3]
    assert np.isnan(table.extra["draws"]).all(axis=1).nonzero()[0].tolist() == [3]
    np.testing.assert_allclose(table["std_error"], exact["std_error"], rtol=0.09)
    np.testing.assert_array_equal(table["predicted"], exact["predicted"])


def test_known_precision_between_levels():
    m = 6
    A = 0.8 ** np.abs(np.subtract.outer(np.arange(m), np.arange(m))) * np.linspace(1.0, 2.0, m)
    A = np.sqrt(A * A.T)
    rng = np.random.default_rng(0)
    codes = np.repeat(np.arange(m), 5)
    Z = np.column_stack([np.ones(30), rng.standard_normal(30)])
    b = np.linalg.cholesky(A) @ rng.standard_normal((m, 2)) * [2.0, 1.0]
    y = (b[codes] * Z).sum(axis=1) + rng.standard_normal(30)
    precision = Precision(sparse.csc_array(np.linalg.inv(A)), float(np.linalg.slogdet(A)[1]))
    term = mm.RandomTerm("g", ("(Intercept)", "x"), codes, tuple("abcdef"), Z, "diag", precision)
    fit = mm.LinearMixedModel.from_matrices(y, np.ones((30, 1)), [term]).fit()
    # dense: the slope left out, on the level of the mean
    s2 = [(fit.sigma * fit._factors[0][j][j]) ** 2 for j in range(2)]
    Ag = A[np.ix_(codes, codes)]
    parts = [s2[j] * Ag * np.outer(Z[:, j], Z[:, j]) for j in range(2)]
    V = parts[0] + parts[1] + fit.sigma**2 * np.eye(30)
    Vi, X = np.linalg.inv(V), np.ones((30, 1))
    Phi = np.linalg.inv(X.T @ Vi @ X)
    weights = X @ Phi @ X.T @ Vi + parts[0] @ (Vi - Vi @ X @ Phi @ X.T @ Vi)
    eta = parts[0] + parts[1]
    expected = np.diagonal(weights @ V @ weights.T - 2.0 * weights @ eta + eta) + fit.sigma**2
    # names of columns belong to formulas: a selection of columns is made by hand
    from mixedmodels.inference.prediction.analytic import Analytic
    from mixedmodels.inference.prediction.draws import Simulated
    from mixedmodels.inference.prediction.rows import own_rows, parts_of

    parts = parts_of(fit, [(0, [0])], True)
    exact = Analytic(fit, parts, lambda X: 1.96, None)(own_rows(fit), None)
    np.testing.assert_allclose(exact["prediction_sd"] ** 2, expected, rtol=1e-7)
    drawn = Simulated(fit, parts, 0.95, 20_000, 1, None, False)(own_rows(fit), None)
    np.testing.assert_allclose(drawn["prediction_sd"] ** 2, expected, rtol=0.05)
    # the whole term left out: an effect of its own level's variance
    whole = fit.predict(re_form="population", interval="prediction")
    own = np.diagonal(eta) + fit.sigma**2 + Phi[0, 0]
    np.testing.assert_allclose(whole["prediction_sd"] ** 2, own, rtol=1e-7)


def test_quantiles_of_rows():
    rng = np.random.default_rng(0)
    for n in (1, 2, 7, 1000):
        values = rng.standard_normal((5, n))
        for tails in ((0.025, 0.975), (0.5, 0.5), (0.0, 1.0)):
            expected = np.quantile(values, tails, axis=1)
            np.testing.assert_allclose(row_quantiles(values.copy(), tails), expected, rtol=1e-13)


def test_term_variance():
    rng = np.random.default_rng(0)
    Z, factors = rng.standard_normal((4, 2)), rng.standard_normal((3, 2, 2))
    expected = np.einsum("ia,rab,rcb,ic->ir", Z, factors, factors, Z)
    np.testing.assert_allclose(term_variance(Z, factors), expected, rtol=1e-12)


def test_origins_of_the_data_do_not_matter(data):
    moved = data.assign(x=data["x"] + 1e5, y=data["y"] + 1e6)
    options = {"interval": "prediction", "method": "simulation", "n": 50, "seed": 1}
    here = mm.lmm("y ~ x + (1 | g) + (1 | h)", data).predict(data, **options)
    there = mm.lmm("y ~ x + (1 | g) + (1 | h)", moved).predict(moved, **options)
    np.testing.assert_allclose(there["std_error"], here["std_error"], rtol=1e-5)
    np.testing.assert_allclose(there["conf_low"] - 1e6, here["conf_low"], atol=1e-5)


def test_solvers_agree(data):
    options = {"interval": "prediction", "method": "simulation", "n": 50, "seed": 1}
    limits = [
        mm.lmm("y ~ x + (x | g)", data, solver=solver).predict(data.head(9), **options)["conf_low"]
        for solver in ("dense", "grouped", "blocked")
    ]
    np.testing.assert_allclose(limits[1], limits[0], atol=1e-5)
    np.testing.assert_allclose(limits[2], limits[0], atol=1e-5)
