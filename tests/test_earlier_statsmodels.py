"""Figures published with statsmodels' MixedLM, and its known defects, which are not repeated here.

The simulated data are made by the generators of its own tests (BSD-3-Clause), with numpy's RandomState.
"""

from __future__ import annotations

import math
import os
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import mixedmodels as mm

SHARED = os.environ.get("MIXEDMODELS_SHARED")
needs_shared = pytest.mark.skipif(SHARED is None, reason="needs the folder named by MIXEDMODELS_SHARED")


def dietox():
    return pd.read_csv(Path(SHARED or "", "cases", "statsmodels", "dietox.csv"))


# --- figures ------------------------------------------------------------------


def test_slopes_and_two_nested_variance_components():
    """test_vcomp_2; the numbers are lme4's."""
    r = np.random.RandomState(6241)
    n = 1600
    X = r.normal(size=(n, 2))
    Z = r.normal(size=(n, 2))
    error = (np.kron(r.normal(size=(n // 16, 2)), np.ones((16, 1))) * Z).sum(1)
    error += np.kron(2 * r.normal(size=n // 4), np.ones(4))
    error += np.kron(2 * r.normal(size=n // 2), np.ones(2))
    y = X.sum(1) + error + r.normal(size=n)
    data = {"y": y, "x1": X[:, 0], "x2": X[:, 1], "z1": Z[:, 0], "z2": Z[:, 1]}
    data |= {"g": np.arange(n) // 16, "v1": np.arange(n) // 4, "v2": np.arange(n) // 2}
    fit = mm.lmm("y ~ x1 + x2 + (0 + z1 + z2 | g) + (1 | v1) + (1 | v2)", data)
    np.testing.assert_allclose(fit.beta, [0.16527, 0.99911, 0.96217], rtol=1e-4)
    np.testing.assert_allclose(list(fit.se.values()), [0.12610, 0.03938, 0.03848], rtol=1e-3)
    np.testing.assert_allclose(fit.varcorr["g"].covariance, [[1.244, 0.146], [0.146, 1.371]], rtol=3e-3)
    assert fit.varcorr["v1"].covariance[0, 0] == pytest.approx(4.024, rel=3e-4)
    assert fit.varcorr["v2"].covariance[0, 0] == pytest.approx(3.997, rel=3e-4)


def test_one_slope_as_variance_component():
    """test_vcomp_3."""
    r = np.random.RandomState(4279)
    x1 = r.normal(size=400)
    y = np.kron(r.normal(size=100), np.ones(4)) * x1 + r.normal(size=400)
    fit = mm.lmm("y ~ 1 + (0 + x1 | g)", {"y": y, "x1": x1, "g": np.arange(400) // 4})
    np.testing.assert_allclose(fit.residuals()[:4], [-1.180753, 0.279966, 0.578576, -0.667916], rtol=1e-3)
    np.testing.assert_allclose(fit.fitted()[:4], [-0.101549, 0.028613, -0.224621, -0.126295], rtol=1e-3)


def test_independent_slopes_by_a_mask_are_variance_components():
    """test_vcomp_1: the mask ``free`` with the identity is ``||``, or two components."""
    r = np.random.RandomState(4279)
    X, Z = r.normal(size=(400, 1)), r.normal(size=(400, 2))
    slopes = r.normal(size=(100, 2))
    slopes[:, 1] *= 2
    y = X[:, 0] + (np.kron(slopes, np.ones((4, 1))) * Z).sum(1) + r.normal(size=400)
    data = {"y": y, "x": X[:, 0], "a": Z[:, 0], "b": Z[:, 1], "g": np.arange(400) // 4}
    fits = [
        mm.lmm(f"y ~ 0 + x + {bars}", data)
        for bars in ("(0 + a + b || g)", "diag(0 + a + b | g)", "(0 + a | g) + (0 + b | g)")
    ]
    held = mm.lmm("y ~ 0 + x + (0 + a + b | g)", data, fixed={"cor_b.a|g": 0.0})
    for fit in (*fits[1:], held):
        assert fit.criterion == pytest.approx(fits[0].criterion, rel=1e-11)
        np.testing.assert_allclose(fit.beta, fits[0].beta, rtol=1e-7)


def test_two_small_models_of_a_summary():
    """test_summary_col. Its standard errors (1.6546, 0.1959; 1.8882, 0.2080) are not those of lme4, here."""
    y = [1.727, -1.037, 2.904, 3.569, 4.629, 5.736, 6.747, 7.020, 5.624, 10.155, 10.400, 17.164, 17.276,
         14.988, 14.453]  # fmt: skip
    data = {"Y": np.array(y), "X": np.arange(1.0, 16.0), "g": [1] * 5 + [2] * 4 + [3] * 6}
    for formula, beta, se, ratio in (
        ("Y ~ X + (1 | g)", (-1.2672, 1.1618), (1.48542564, 0.164687018), 0.1955),
        ("X ~ Y + (1 | g)", (3.4842, 0.5529), (1.43975545, 0.131773233), 1.3854),
    ):
        fit = mm.lmm(formula, data)
        np.testing.assert_allclose(fit.beta, beta, atol=2e-4)
        np.testing.assert_allclose(list(fit.se.values()), se, rtol=2e-5)
        # what its table calls "Group Var" is divided by the residual variance
        assert fit.theta[0] ** 2 == pytest.approx(ratio, abs=5e-4)


def test_sitka():
    data = pd.read_csv(Path(__file__).parent / "references" / "data" / "Sitka.csv")
    fit = mm.lmm("size ~ Time + (1 | tree)", data)
    assert fit.criterion == pytest.approx(164.776806367, rel=1e-11)  # lme4; published 164.8
    np.testing.assert_allclose(fit.beta, [2.27324429524, 0.0126854768522], rtol=1e-9)
    np.testing.assert_allclose(list(fit.se.values()), [0.0878954749972, 0.000265408398277], rtol=1e-5)
    assert fit.varcorr["tree"].covariance[0, 0] == pytest.approx(0.374512539410, rel=1e-5)
    assert fit.sigma**2 == pytest.approx(0.0392057476145, rel=1e-6)


def test_mediation_by_two_mixed_models():
    """t_est_mixedlm: the two models, and the effects of X through and beside the mediator.

    Both effects are linear, so that the products of coefficients are exact where statsmodels simulates.
    """
    r = np.random.RandomState(3424)
    n = 200
    x = r.normal(size=n)
    m = np.array([4.0, 4, 1]) / math.sqrt(33)
    med = m[0] * np.outer(x, np.ones(3)) + m[1] * np.outer(r.normal(size=n), np.ones(3))
    med += m[2] * r.normal(size=(n, 3))
    w = np.array([5.0, 2, 2]) / math.sqrt(33)
    e = w[0] * np.outer(r.normal(size=n), np.ones(3)) + w[1] * np.outer(r.normal(size=n), [-1, 0, 1])
    e += w[2] * r.normal(size=(n, 3))
    y = np.outer(x, [0, 0.5, 1]) + med + e
    data = {"y": y.ravel(), "x": np.repeat(x, 3), "med": med.ravel(), "id": np.repeat(np.arange(n), 3)}
    outcome = mm.lmm("y ~ med + x + (1 | id)", data)
    mediator = mm.lmm("med ~ x + (1 | id)", data)
    np.testing.assert_allclose(outcome.beta, [0.08118371, 0.96107436, 0.50801102], rtol=2e-6)
    assert outcome.theta[0] ** 2 == pytest.approx(1.22452252, rel=1e-4)
    np.testing.assert_allclose(mediator.beta, [-0.0547506, 0.67478745], rtol=1e-6)
    # its BFGS stopped 1e-4 before the optimum: the criterion is lower here
    assert mediator.theta[0] ** 2 == pytest.approx(17.03184275, rel=2e-4)
    there = mm.LinearMixedModel("med ~ x + (1 | id)", data).objective([math.sqrt(17.03184275)])
    assert mediator.criterion < there < mediator.criterion + 1e-6
    through = outcome.fixef["med"] * mediator.fixef["x"]
    assert through == pytest.approx(0.64539794, rel=0.02)
    assert outcome.fixef["x"] == pytest.approx(0.508, abs=1e-3)
    assert through / (through + outcome.fixef["x"]) == pytest.approx(0.56, abs=0.01)


@needs_shared
def test_standard_errors_of_variances():
    """Defect: printed 2.149 for Pig; from the REML Hessian 6.938924 and 0.5726541."""
    model = mm.LinearMixedModel("Weight ~ Time + (1 | Pig)", dietox())
    fit = model.fit()
    values = [fit.varcorr["Pig"].covariance[0, 0], fit.sigma**2]
    np.testing.assert_allclose(values, [40.393952, 11.3669185], rtol=1e-6)
    errors = np.sqrt(np.diag(np.linalg.inv(model.information_at(values, "observed"))))
    np.testing.assert_allclose(errors, [6.938924, 0.5726541], rtol=2e-6)
    found = mm.variance_components("Weight ~ Time + (1 | Pig)", dietox(), method="newton-raphson")
    np.testing.assert_allclose(found.values, values, rtol=1e-6)


# --- defects --------------------------------------------------------------------


def test_standard_errors_of_variances_do_not_depend_on_the_scale():
    """Defect: they were multiplied by the root of the residual variance."""
    data = mm.load_dataset("sleepstudy", "pandas")
    small = mm.lmm("I(Reaction / 1000) ~ Days + (Days | Subject)", data).variance_parameters()
    large = mm.lmm("Reaction ~ Days + (Days | Subject)", data).variance_parameters()
    for name in ("estimate", "std_error"):
        ratio = np.asarray(large[name]) / np.asarray(small[name])
        sd = np.array([not str(term).startswith("cor") for term in large["term"]])
        assert sd.sum() == 3 and len(sd) == 4
        np.testing.assert_allclose(ratio[sd], 1000.0, rtol=1e-4)
        np.testing.assert_allclose(ratio[~sd], 1.0, rtol=1e-4)


def test_no_zero_fixed_effects_at_the_boundary():
    """Defect #10239: with Var(b) below 1e-10 the effects between groups came out as exactly 0, converged."""
    data = mm.load_dataset("Dyestuff2", "pandas").assign(x=lambda d: d["Batch"].astype(str).isin(["A", "B"]))
    data["x"] = data["x"].astype(float)
    for unit in (1.0, 1e-6, 1e6):
        fit = mm.lmm("I(Yield * u) ~ x + (1 | Batch)", data.assign(u=unit))
        assert fit.is_singular and fit.theta[0] == 0.0
        A = np.column_stack([np.ones(30), data["x"]])
        beta, rss = np.linalg.lstsq(A, data["Yield"] * unit, rcond=None)[:2]
        np.testing.assert_allclose(fit.beta, beta, rtol=1e-10)
        error = np.sqrt(np.diag(np.linalg.inv(A.T @ A)) * rss[0] / 28)
        np.testing.assert_allclose(list(fit.se.values()), error, rtol=1e-9)
        assert any("Batch" in message for message in fit.messages)


def test_a_boundary_between_flat_and_zero_does_not_change_the_fixed_effects():
    """The same at variances of 1e-10 and less: the fixed effects go to their limit without a jump."""
    data = mm.load_dataset("Dyestuff2", "pandas")
    limits = [
        mm.blup("Yield ~ 1 + (1 | Batch)", data, variances={"Batch": v, "Residual": 13.8}).beta[0]
        for v in (1e-8, 1e-10, 1e-12, 1e-14)
    ]
    np.testing.assert_allclose(limits, data["Yield"].mean(), rtol=1e-9)


def test_singular_covariances_have_predictions():
    """Defect: "Cannot predict random effects from singular covariance structure"."""
    rng = np.random.default_rng(1)
    g, x = np.repeat(np.arange(8), 6), np.tile(np.arange(6.0), 8)
    data = {"g": g, "x": x, "y": rng.normal(size=8)[g] * (1.0 + 0.5 * x) + 0.5 * rng.normal(size=48)}
    fit = mm.lmm("y ~ x + (x | g)", data)
    assert fit.is_singular
    effects = fit.ranef(condvar=True)
    for values in (fit.fitted(), fit.residuals(), effects["estimate"], effects["sd"]):
        assert np.isfinite(np.asarray(values)).all()
    b = fit.ranef_arrays()[0].b
    assert np.linalg.matrix_rank(b, tol=1e-4) == 1


def test_information_criteria_of_reml():
    """Defect: NaN for REML (#6153, #3742)."""
    fit = mm.lmm("Reaction ~ Days + (Days | Subject)", mm.load_dataset("sleepstudy", "pandas"))
    assert fit.is_reml
    assert fit.aic == pytest.approx(fit.criterion + 12.0)
    assert fit.bic == pytest.approx(fit.criterion + 6 * math.log(180))


def test_parameters_are_those_of_the_table():
    """Defect: params held variances divided by the scale, the table did not (#2231, #3532)."""
    fit = mm.lmm("Reaction ~ Days + (Days | Subject)", mm.load_dataset("sleepstudy", "pandas"))
    table = fit.variance_parameters()
    assert table["estimate"][0] ** 2 == pytest.approx(fit.varcorr["Subject"].covariance[0, 0], rel=1e-12)
    assert f"{table['estimate'][0]:.3f}" in str(fit.summary())


def test_several_grouping_factors_nested_or_crossed_as_written():
    """Defects #9279, #8123, #6875: crossed factors nested by mistake; slopes on one of several factors."""
    data = mm.load_dataset("Penicillin", "pandas")
    fit = mm.lmm("diameter ~ 1 + (1 | plate) + (1 | sample)", data)
    assert fit.ngroups == {"plate": 24, "sample": 6}
    assert fit.loglik == pytest.approx(-165.4302945, abs=1e-6)
    sleep = mm.load_dataset("sleepstudy", "pandas").assign(site=lambda d: d["Subject"].astype(str).str[:2])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        two = mm.lmm("Reaction ~ Days + (1 | site) + (1 + Days | Subject)", sleep)
    assert two.converged and set(two.ngroups) == {"site", "Subject"}


def test_missing_values_and_arrays():
    """Defect #7978: missing='drop' with arrays raised an IndexError."""
    data = mm.load_dataset("sleepstudy", "pandas").copy()
    data.loc[[3, 50], "Reaction"] = np.nan
    data.loc[7, "Days"] = np.nan
    fit = mm.lmm("Reaction ~ Days + (Days | Subject)", data)
    direct = mm.lmm("Reaction ~ Days + (Days | Subject)", data.dropna())
    assert fit.nobs == 177 and fit.criterion == direct.criterion
    ragged = mm.lmm("Reaction ~ Days + (Days | Subject)", {k: data[k].to_numpy() for k in data.columns})
    assert ragged.criterion == fit.criterion


def test_hypotheses_as_text_and_predictions_of_new_data():
    """Defects #2900, #4817 (texts do not work), #7065, #9560 (the fixed part only)."""
    data = mm.load_dataset("sleepstudy", "pandas")
    fit = mm.lmm("Reaction ~ Days + (Days | Subject)", data)
    row = fit.test("Days = 10").rows()[0]
    t = (fit.fixef["Days"] - 10.0) / fit.se["Days"]
    assert row["statistic"] in (pytest.approx(t), pytest.approx(t * t))
    new = data.iloc[[0, 10]].drop(columns="Reaction")
    np.testing.assert_allclose(fit.predict(new), fit.fitted()[[0, 10]], rtol=1e-12)


def test_one_optimiser_is_enough_and_the_hessian_is_a_matrix():
    """Defects #9139 (hessian() returned a tuple), do_cg=False (NameError), #4508 (no return values)."""
    model = mm.LinearMixedModel("Reaction ~ Days + (Days | Subject)", mm.load_dataset("sleepstudy", "dict"))
    fits = [model.fit(method=name) for name in ("newton", "lbfgsb", "bobyqa-like", "nelder-mead")]
    for fit in fits:
        assert fit.converged and fit.optimum.message
        assert fit.criterion == pytest.approx(1743.6282719599, abs=1e-6)
    assert model.information(fits[0].theta, "observed").shape == (3, 3)
