"""Responses drawn from fits and from models without a fit: moments, choices of effects, seeds, errors."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import mixedmodels as mm
from mixedmodels.design import Precision, RandomTerm
from mixedmodels.fit.simulate import relationship_root


def within(draws, mean, covariance, z=5.0):
    """Whether rows of draws, shape (rows, n), have this mean and covariance within z Monte Carlo errors."""
    n = draws.shape[1]
    error = np.sqrt(np.diagonal(covariance) / n)
    assert np.all(np.abs(draws.mean(axis=1) - mean) < z * error)
    S = np.cov(draws)
    d = np.sqrt(np.diagonal(covariance))
    spread = np.sqrt((np.outer(d, d) ** 2 + covariance**2) / n)
    assert np.all(np.abs(S - covariance) < z * spread)


def marginal(fit, codes, Z):
    Sigma = fit.sigma**2 * np.array(fit._factors[0]) @ np.array(fit._factors[0]).T
    return (codes[:, None] == codes[None, :]) * (Z @ Sigma @ Z.T)


def test_new_rows_have_the_moments_of_the_model(fit):
    new = {"Days": np.array([0.0, 4.0, 9.0, 0.0, 9.0]), "Subject": ["308", "308", "308", "new", "new"]}
    Z = np.column_stack([np.ones(5), new["Days"]])
    codes = np.array([0, 0, 0, 1, 1])
    V = marginal(fit, codes, Z) + fit.sigma**2 * np.eye(5)
    within(fit.simulate(4000, seed=1, newdata=new), fit.predict(new, "population"), V)


def test_kept_effects_and_weights_of_new_rows(fit, sleepstudy):
    rows = sleepstudy.iloc[[0, 5, 100]].assign(w=[1.0, 4.0, 0.25])
    draws = fit.simulate(4000, seed=2, new_effects=False, newdata=rows, weights="w")
    within(draws, fit.predict(rows), np.diag(fit.sigma**2 / rows["w"]))
    with pytest.raises(mm.DataError, match=r"Subject.*draw it anew"):
        fit.simulate(newdata={"Days": [1.0], "Subject": ["new"]}, new_effects=False)


def test_weights_of_the_fit_are_honoured(sleepstudy):
    data = sleepstudy.assign(w=np.linspace(0.2, 3.0, 180))
    fit = mm.lmm("Reaction ~ Days + (1 | Subject)", data, weights="w")
    draws = fit.simulate(3000, seed=5, new_effects=False)
    ratio = draws.var(axis=1) * data["w"] / fit.sigma**2
    assert np.abs(ratio - 1).max() < 5 * np.sqrt(2 / 3000)


def test_some_terms_anew_and_others_kept():
    data = mm.load_dataset("Penicillin", backend="pandas")
    fit = mm.lmm("diameter ~ 1 + (1 | plate) + (1 | sample)", data)
    draws = fit.simulate(4000, seed=3, new_effects=["sample"])[:8]
    codes = fit.design.terms[1].codes[:8]
    tau2 = (fit.sigma * fit._factors[1][0][0]) ** 2
    V = tau2 * (codes[:, None] == codes[None, :]) + fit.sigma**2 * np.eye(8)
    within(draws, fit.predict(data.head(8), ["plate"]), V)
    fixed_only = fit.simulate(4000, seed=3, re_form="population")[:8]
    within(fixed_only, np.full(8, fit.beta[0]), fit.sigma**2 * np.eye(8))
    with pytest.raises(mm.OptionError, match="'plates' is not a grouping factor"):
        fit.simulate(new_effects=["plates"])


def test_some_columns_only(fit):
    new = {"Days": np.array([0.0, 9.0]), "Subject": ["a", "a"]}
    sd = fit.sigma * np.linalg.norm(fit._factors[0][1])
    V = sd**2 * np.outer(new["Days"], new["Days"]) + fit.sigma**2 * np.eye(2)
    draws = fit.simulate(4000, seed=9, newdata=new, re_form="~ (0 + Days | Subject)")
    within(draws, fit.predict(new, "population"), V)


def test_other_parameters(fit):
    zero = fit.simulate(
        2000,
        seed=1,
        beta={"Days": 0.0},
        theta=[0.0, 0.0, 0.0],
        sigma=2.0,
        newdata={"Days": [3.0], "Subject": [1]},
    )
    assert zero.mean() == pytest.approx(fit.beta[0], abs=0.2)
    assert zero.std() == pytest.approx(2.0, rel=0.08)
    with pytest.raises(mm.OptionError, match="no fixed effect 'Day'"):
        fit.simulate(beta={"Day": 1.0})
    with pytest.raises(mm.OptionError, match="2 finite numbers"):
        fit.simulate(beta=[1.0])
    with pytest.raises(mm.OptionError, match="theta needs 3"):
        fit.simulate(theta=[1.0])
    with pytest.raises(mm.OptionError, match="sigma must be"):
        fit.simulate(sigma=-1)


def test_first_draws_do_not_depend_on_how_many(fit, monkeypatch):
    many = fit.simulate(7, seed=11)
    np.testing.assert_array_equal(fit.simulate(3, seed=11), many[:, :3])
    monkeypatch.setattr("mixedmodels.fit.simulate._BLOCK", 500)
    np.testing.assert_array_equal(fit.simulate(7, seed=11), many)


def test_missing_and_not_estimable_rows_are_nan(fit):
    new = {"Days": np.array([1.0, np.nan]), "Subject": ["308", "308"]}
    assert np.isnan(fit.simulate(2, seed=1, newdata=new)).tolist() == [[False] * 2, [True] * 2]


def test_offset_of_new_rows(sleepstudy):
    fit = mm.lmm("Reaction ~ Days + (1 | Subject)", sleepstudy, offset=np.full(180, 100.0))
    new = {"Days": [1.0], "Subject": ["308"]}
    a = fit.simulate(1, seed=1, newdata=new, offset=[0.0])
    b = fit.simulate(1, seed=1, newdata=new, offset=[1000.0])
    assert b[0, 0] - a[0, 0] == pytest.approx(1000.0, rel=1e-12)
    with pytest.raises(mm.DataError, match="offset"):
        fit.simulate(newdata=new)


def ar1_precision(m, rho):
    A = rho ** np.abs(np.subtract.outer(np.arange(m), np.arange(m)))
    P = np.linalg.inv(A)
    P[np.abs(P) < 1e-10] = 0.0
    return A, Precision(sparse.csc_array(P), float(np.linalg.slogdet(A)[1]))


def test_root_of_a_known_precision():
    A, precision = ar1_precision(7, 0.8)
    order = np.random.default_rng(1).permutation(7)
    shuffled = Precision(sparse.csc_array(precision.matrix.toarray()[np.ix_(order, order)]), 0.0)
    root = relationship_root(shuffled)(np.eye(7))
    np.testing.assert_allclose(root @ root.T, A[np.ix_(order, order)], rtol=1e-10, atol=1e-12)


def test_known_precision_is_simulated_with_its_factor():
    A, precision = ar1_precision(6, 0.9)
    rng = np.random.default_rng(0)
    codes = np.repeat(np.arange(6), 5)
    y = (np.linalg.cholesky(A) @ rng.standard_normal(6))[codes] * 2 + rng.standard_normal(30)
    term = RandomTerm("g", ("(Intercept)",), codes, tuple("abcdef"), None, "us", precision)
    fit = mm.LinearMixedModel.from_matrices(y, np.ones((30, 1)), [term]).fit()
    draws = fit.simulate(5000, seed=1)[::5]
    tau2 = (fit.sigma * fit._factors[0][0][0]) ** 2
    assert tau2 > 0
    within(draws, np.full(6, fit.beta[0]), tau2 * A + fit.sigma**2 * np.eye(6))


def test_covariance_function_is_simulated():
    rng = np.random.default_rng(2)
    Z = np.kron(np.eye(8), np.ones((4, 1)))
    y = Z @ rng.standard_normal(8) * 3 + rng.standard_normal(32)
    model = mm.LinearMixedModel.from_matrices(
        y, np.ones((32, 1)), Z, covariance=lambda theta: theta[0] * np.eye(8), start=[1.0], lower=[0.0]
    )
    fit = model.fit()
    V = fit.sigma**2 * (fit.theta[0] ** 2 * Z[::2] @ Z[::2].T + np.eye(16))
    within(fit.simulate(5000, seed=1)[::2], np.full(16, fit.beta[0]), V)
    with pytest.raises(mm.NotImplementedYetError, match="beta"):
        fit.simulate(beta=[1.0])


# ------------------------------------------------------------------ without a fit


@pytest.fixture(scope="module")
def plan():
    return pd.DataFrame(
        {
            "x": np.tile(np.arange(4.0), 30),
            "g": np.repeat(np.arange(30).astype(str), 4),
            "f": np.tile(["u", "v"], 60),
        }
    )


def test_de_novo_moments(plan):
    draws = mm.simulate(
        "~ x + (x | g)",
        plan,
        beta=[10.0, 2.0],
        sd={"g": {"x": 0.5, "(Intercept)": 2.0}},
        corr={"g": -0.4},
        sigma=1.5,
        seed=3,
        n=5000,
    )[:8]
    Z = np.column_stack([np.ones(8), plan["x"][:8]])
    Sigma = np.array([[4.0, -0.4], [-0.4, 0.25]])
    codes = np.repeat([0, 1], 4)
    V = (codes[:, None] == codes[None, :]) * (Z @ Sigma @ Z.T) + 1.5**2 * np.eye(8)
    within(draws, Z @ [10.0, 2.0], V)


def test_theta_and_standard_deviations_agree(plan):
    formula = "y ~ f + (1 | g)"
    beta = {"(Intercept)": 1.0, "fv": -1.0}
    a = mm.simulate(formula, plan, beta=beta, sd=3.0, sigma=2.0, seed=5)
    b = mm.simulate(formula, plan, beta=beta, theta=[1.5], sigma=2.0, seed=5)
    assert a.shape == (120,)
    np.testing.assert_allclose(a, b, rtol=1e-12)
    fit = mm.lmm(formula, plan.assign(y=a))
    np.testing.assert_allclose(
        b, fit.simulate(1, 5, beta=[1.0, -1.0], theta=[1.5], sigma=2.0)[:, 0], rtol=1e-12
    )


def test_a_fit_finds_the_parameters_again(plan):
    big = pd.concat([plan.assign(g=plan["g"] + str(i)) for i in range(30)], ignore_index=True)
    big["y"] = mm.simulate("~ x + (x || g)", big, beta=[1, 2], sd=[1.0, 0.7], sigma=0.5, seed=1)
    fit = mm.lmm("y ~ x + (x || g)", big)
    np.testing.assert_allclose(fit.beta, [1.0, 2.0], atol=0.15)
    assert fit.sigma == pytest.approx(0.5, rel=0.05)


def test_designs_too_small_to_fit_are_simulated():
    assert mm.simulate("~ 1 + (1 | a)", {"a": [7]}, beta=[1], sd=2, seed=1).shape == (1,)
    wide = {"a": [1, 2, 3]}
    assert np.isfinite(mm.simulate("~ factor(a) + (1 | a)", wide, beta=[1, 2, 3], sd=2, seed=1)).all()


def test_nested_terms_are_named_by_their_factors():
    data = {"a": np.repeat([1, 2], 4), "b": np.tile(np.repeat([1, 2], 2), 2)}
    draws = mm.simulate("~ 1 + (1 | a/b)", data, beta=[0], sd={"a": 1.0, "b:a": 3.0}, seed=1, n=4000)
    a, ab = data["a"], data["a"] * 10 + data["b"]
    V = 1.0 * (a[:, None] == a) + 9.0 * (ab[:, None] == ab) + np.eye(8)
    within(draws, np.zeros(8), V)


def test_missing_rows_are_nan(plan):
    data = plan.assign(x=plan["x"].where(plan.index != 3))
    y = mm.simulate("~ x + (1 | g)", data, beta=[1, 2], sd=1, seed=1)
    assert np.isnan(y).nonzero()[0].tolist() == [3]


@pytest.mark.parametrize(
    ("kwargs", "match"),
    [
        ({"beta": {"(Intercept)": 1, "z": 2}, "sd": 1}, "no fixed effect 'z'; the model has .*x"),
        ({"beta": {"x": 2}, "sd": 1}, "lacks .*Intercept"),
        ({"beta": [1], "sd": 1}, "2 finite numbers"),
        ({"beta": None, "sd": 1}, "beta is needed"),
        ({"beta": [1, 2]}, "sd lacks 'g'"),
        ({"beta": [1, 2], "sd": {"h": 1}}, "'h'; the grouping factor of the model is 'g'"),
        ({"beta": [1, 2], "sd": [1, 2]}, "needs 1 numbers"),
        ({"beta": [1, 2], "sd": -1}, ">= 0"),
        ({"beta": [1, 2], "sd": 1, "theta": [1]}, "either theta or sd"),
        ({"beta": [1, 2], "theta": [1, 2]}, "theta needs 1"),
        ({"beta": [1, 2], "sd": 1, "sigma": 0}, "sigma"),
        ({"beta": [1, 2], "sd": 1, "n": 0}, "n must be"),
        ({"beta": [1, 2], "sd": {"g": {"x": 1}}}, "no random effect 'x'"),
    ],
)
def test_wrong_parameters_are_named(plan, kwargs, match):
    with pytest.raises(mm.OptionError, match=match):
        mm.simulate("~ x + (1 | g)", plan, **kwargs)


def test_impossible_correlations(plan):
    with pytest.raises(mm.OptionError, match="not positive semi-definite"):
        mm.simulate("~ x + (x | g)", plan, beta=[1, 2], sd=[1, 1], corr=1.5)
    with pytest.raises(mm.OptionError, match="do not fit its covariance structure 'diag'"):
        mm.simulate("~ x + diag(x | g)", plan, beta=[1, 2], sd=[1, 1], corr=0.5)


def test_a_wrong_column_is_named(plan):
    with pytest.raises(mm.DataError, match="'xx'"):
        mm.simulate("~ xx + (1 | g)", plan, beta=[1, 2], sd=1)
    with pytest.raises(mm.FormulaError, match="'~x' has no random-effects term"):
        mm.simulate("~ x", plan, beta=[1, 2])
    with pytest.raises(mm.OptionError, match="written out"):
        mm.simulate("y ~ . + (1 | g)", plan, beta=[1, 2], sd=1)
