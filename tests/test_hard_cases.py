"""Hard cases: inputs on which mixed-model software goes wrong, each by its number in docs/hard_cases.md.

The last column of that table says what is expected here; where another package does otherwise, the
test says so. Cases about generalised models belong to the rooms that fit them.
"""

from __future__ import annotations

import datetime as dt
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import mixedmodels as mm

SLEEP = "Reaction ~ Days + (Days | Subject)"
SLEEP_REML = 1743.62827195849
SLEEP_ML = 1751.93934446


@pytest.fixture(scope="module")
def sleep():
    return mm.load_dataset("sleepstudy", backend="pandas")


def notes(fit) -> str:
    return " | ".join(str(m) for m in fit.messages).lower()


def simulated(seed=0, groups=12, per=8):
    rng = np.random.default_rng(seed)
    g = np.repeat(np.arange(groups), per)
    x = rng.normal(size=g.size)
    y = 1 + 0.5 * x + rng.normal(size=groups)[g] + rng.normal(size=g.size)
    return pd.DataFrame({"y": y, "x": x, "g": g})


# ---------------------------------------------------------------------------------------- boundaries


def test_01_zero_variance_is_exactly_zero():
    fit = mm.lmm("Yield ~ 1 + (1 | Batch)", mm.load_dataset("Dyestuff2"), reml=False)
    assert fit.theta[0] == 0.0
    assert fit.is_singular and fit.converged
    assert "batch" in notes(fit)
    assert fit.loglik == pytest.approx(-81.43652, abs=1e-5)
    reml = mm.lmm("Yield ~ 1 + (1 | Batch)", mm.load_dataset("Dyestuff2"))
    assert reml.theta[0] == 0.0
    assert reml.loglik == pytest.approx(-80.91414, abs=1e-5)
    # without the variance the standard error is that of the plain mean
    y = mm.load_dataset("Dyestuff2", backend="pandas")["Yield"].to_numpy()
    assert reml.se["(Intercept)"] == pytest.approx(y.std(ddof=1) / np.sqrt(y.size), rel=1e-10)


def test_02_correlation_of_one_is_fitted_and_named():
    rng = np.random.default_rng(5)
    g = np.repeat(np.arange(8), 6)
    x = np.tile(np.arange(6.0), 8)
    a = rng.normal(size=8)
    df = pd.DataFrame({"y": 3 + x + a[g] * (1 + 0.5 * x) + rng.normal(size=48), "x": x, "g": g})
    fit = mm.lmm("y ~ x + (x | g)", df)
    assert fit.is_singular and fit.converged
    table = fit.varcorr.to_frame()
    row = table[(table["name1"] == "(Intercept)") & (table["name2"] == "x")]
    assert abs(row["sdcor"].iloc[0]) == pytest.approx(1.0, abs=1e-8)
    assert "g" in notes(fit) and "singular" in notes(fit)


def test_01_02_notes_name_the_component_and_its_direction():
    zero = mm.lmm("Yield ~ 1 + (1 | Batch)", mm.load_dataset("Dyestuff2"))
    assert zero.repca().notes == ("Batch: 1 of 1 components without variance",)
    assert any("in Batch, the variance of (Intercept)" in f.finding for f in zero.diagnose().findings)
    # a covariance matrix of three columns without a variance of zero whose third direction is empty
    rng = np.random.default_rng(21)
    g = np.repeat(np.arange(30), 8)
    x, z = rng.normal(size=(2, g.size))
    b = rng.normal(size=(30, 2)) @ np.array([[1.0, 0.3, 0.8], [0.0, 0.9, -0.7]])
    y = 2 + x + z + b[g, 0] + b[g, 1] * x + b[g, 2] * z + rng.normal(size=g.size)
    fit = mm.lmm("y ~ x + z + (x + z | g)", {"y": y, "x": x, "z": z, "g": g})
    assert fit.is_singular and min(fit.varcorr.to_frame()["sdcor"][:3]) > 0.1
    table = fit.repca()
    assert table["sd"][2] < 1e-4 < table["sd"][1]
    null = table.extra["loadings"]["g"][:, 2]
    np.testing.assert_allclose(np.array(fit._factors[0]).T @ null, 0.0, atol=1e-4)
    (finding,) = [f for f in fit.diagnose().findings if f.status == "warning"]
    assert "the combination (Intercept)" in finding.finding and "has no variance" in finding.finding


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d + 2000,
        lambda d: d + 1e5,
        lambda d: d * 1e6,
        lambda d: d * 1e-6,
        lambda d: d * 86400.0 + 1.7e9,
        lambda d: -3.0 * d + 7,
    ],
    ids=["2000+", "1e5+", "1e6x", "1e-6x", "seconds since 1970", "reflected"],
)
@pytest.mark.parametrize("reml", [True, False])
def test_03_affine_changes_of_x_leave_the_likelihood(sleep, change, reml):
    x = change(sleep["Days"].to_numpy(float))
    slope = (change(np.array([1.0])) - change(np.array([0.0])))[0]
    fit = mm.lmm("Reaction ~ x + (x | Subject)", sleep.assign(x=x), reml=reml)
    base = mm.lmm(SLEEP, sleep, reml=reml)
    # REML also holds log|X'V^-1 X|, which changes by the known factor of the columns of X
    jacobian = 2 * np.log(abs(slope)) if reml else 0.0
    assert fit.criterion - jacobian == pytest.approx(base.criterion, rel=1e-8)
    assert fit.fixef["x"] * slope == pytest.approx(base.fixef["Days"], rel=1e-6)
    assert fit.se["x"] * abs(slope) == pytest.approx(base.se["Days"], rel=1e-5)
    assert fit.sigma == pytest.approx(base.sigma, rel=1e-6)


@pytest.mark.parametrize("factor", [1e3, 1e10, 1e-10])
def test_04_scaling_y_scales_the_estimates(sleep, factor):
    base = mm.lmm(SLEEP, sleep)
    fit = mm.lmm(SLEEP, sleep.assign(Reaction=sleep["Reaction"] * factor))
    expected = base.criterion + 2 * (base.nobs - 2) * np.log(factor)
    assert fit.criterion == pytest.approx(expected, rel=1e-8)
    assert fit.sigma == pytest.approx(base.sigma * factor, rel=1e-7)
    np.testing.assert_allclose(fit.beta, base.beta * factor, rtol=1e-8)
    np.testing.assert_allclose(fit.theta, base.theta, rtol=1e-5)


def test_04_a_huge_mean_costs_nothing(sleep):
    base = mm.lmm(SLEEP, sleep)
    fit = mm.lmm(SLEEP, sleep.assign(Reaction=sleep["Reaction"] + 2.0**33))
    assert fit.criterion == pytest.approx(base.criterion, rel=1e-7)  # limited by the digits left in y itself
    assert fit.sigma == pytest.approx(base.sigma, rel=1e-6)


def test_05_columns_on_different_scales_need_no_warning(sleep):
    df = sleep.assign(big=np.sin(np.arange(180.0)) * 1e9, small=np.cos(np.arange(180.0)) * 1e-9)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit = mm.lmm("Reaction ~ Days + big + small + (Days | Subject)", df)
    unit = mm.lmm(
        "Reaction ~ Days + big + small + (Days | Subject)",
        df.assign(big=df["big"] * 1e-9, small=df["small"] * 1e9),
    )
    assert fit.converged
    assert fit.fixef["big"] * 1e9 == pytest.approx(unit.fixef["big"], rel=1e-6)
    assert fit.fixef["small"] * 1e-9 == pytest.approx(unit.fixef["small"], rel=1e-6)
    assert fit.dropped_columns == ()


# ------------------------------------------------------------------------------------ identifiability


def test_06_one_observation_per_level(sleep):
    df = sleep.assign(row=np.arange(180))
    with pytest.raises(mm.IdentifiabilityError, match="row"):
        mm.lmm("Reaction ~ Days + (1 | row)", df)
    fit = mm.lmm("Reaction ~ Days + (1 | row)", df, sigma=20.0, reml=False)  # identified once sigma is known
    assert fit.converged
    total = fit.sigma**2 * (1 + fit.theta[0] ** 2)
    ols = np.polyfit(df["Days"], df["Reaction"], 1)
    residual = df["Reaction"] - np.polyval(ols, df["Days"])
    assert total == pytest.approx(np.mean(residual**2), rel=1e-6)


def test_06_07_one_response_per_level_of_a_generalised_model():
    cbpp = mm.load_dataset("cbpp", backend="pandas").assign(obs=np.arange(56))
    cbpp["x"] = np.log(cbpp["size"]) + 0.1 * np.sin(cbpp["obs"])
    # a dispersion of its own and a variance between the rows are the same thing
    with pytest.raises(mm.IdentifiabilityError, match=r"\(1 \| obs\).*dispersion of family 'gaussian'"):
        mm.glmm("x ~ period + (1 | obs)", cbpp)
    # over-dispersion of successes out of several trials, as glmmTMB (tests/references/glmm/responses.R)
    fit = mm.glmm("incidence ~ period + (1 | herd) + (1 | obs)", cbpp, family="binomial", trials="size")
    assert fit.loglik == pytest.approx(-87.319155541, rel=1e-8)
    assert fit.theta[-1] == pytest.approx(0.891078, rel=1e-4)
    assert "obs" not in notes(fit)
    # nothing is over-dispersed in 0 and 1: glmer reports a standard deviation all the same
    frame = cbpp.assign(any=cbpp["incidence"] > 0)
    fit = mm.glmm("any ~ period + (1 | herd) + (1 | obs)", frame, family="binomial")
    assert "(1 | obs) has one response of 0 or 1 per level" in notes(fit)


def test_08_more_random_effects_than_observations():
    df = pd.DataFrame(
        {"y": np.arange(12.0) ** 1.5, "x": np.tile([0.0, 1.0], 6), "g": np.repeat(np.arange(6), 2)}
    )
    with pytest.raises(mm.IdentifiabilityError, match=r"x \| g"):
        mm.lmm("y ~ x + (x | g)", df)


def test_09_levels_of_a_grouping_factor(sleep):
    with pytest.raises(mm.IdentifiabilityError, match="only"):
        mm.lmm("Reaction ~ Days + (1 | only)", sleep.assign(only="a"))
    few = mm.lmm("Reaction ~ Days + (1 | half)", sleep.assign(half=np.repeat(["a", "b", "c"], 60)))
    assert "half" in notes(few) and "3 levels" in notes(few)


def test_10_rank_deficient_fixed_part(sleep):
    fit = mm.lmm("Reaction ~ Days + Days2 + (1 | Subject)", sleep.assign(Days2=2 * sleep["Days"] + 1))
    base = mm.lmm("Reaction ~ Days + (1 | Subject)", sleep)
    assert fit.dropped_columns == ("Days2",)
    assert "days2" in notes(fit)
    assert fit.criterion == pytest.approx(base.criterion, rel=1e-10)
    assert list(fit.fixef) == ["(Intercept)", "Days"]


def test_11_empty_cell_is_not_estimable():
    rng = np.random.default_rng(2)
    a, b = np.meshgrid(["a1", "a2"], ["b1", "b2", "b3"])
    cells = pd.DataFrame({"A": a.ravel(), "B": b.ravel()})
    df = pd.concat([cells] * 10, ignore_index=True)
    df["g"] = np.arange(60) % 5
    df["y"] = rng.normal(size=60)
    df = df[~((df["A"] == "a2") & (df["B"] == "b3"))].reset_index(drop=True)
    fit = mm.lmm("y ~ A * B + (1 | g)", df)
    assert fit.dropped_columns == ("Aa2:Bb3",)
    with pytest.warns(mm.NotEstimableWarning, match="1"):
        values = np.asarray(fit.predict(cells, re_form="none"))
    empty = ((cells["A"] == "a2") & (cells["B"] == "b3")).to_numpy()
    assert np.isnan(values[empty]).all()
    assert np.isfinite(values[~empty]).all()
    # the same for marginal means, what is averaged over the empty cell, and contrasts with it
    means = fit.emmeans("A * B")
    assert [row["A"] + row["B"] for row in means.rows() if np.isnan(row["estimate"])] == ["a2b3"]
    assert "1 of 6 rows not estimable" in str(means) and "Aa2:Bb3" in str(means)
    assert np.isnan(fit.emmeans("A").estimate).tolist() == [False, True]
    pairs = means.contrast("pairwise")
    for row in pairs.rows():
        assert np.isnan(row["estimate"]) == ("a2 b3" in row["contrast"])
    # five estimable means, not six, make the family of the adjustment
    assert "family of 5 estimates" in str(pairs)


def counts(seed=3, groups=15, per=8):
    """Counts, successes and positive numbers by group and treatment."""
    rng = np.random.default_rng(seed)
    n = groups * per
    g = np.repeat(np.arange(groups), per)
    x = rng.normal(size=n)
    t = np.array(["a", "b", "c", "b"])[np.arange(n) % 4]
    eta = 0.2 + 0.4 * x + 0.6 * rng.normal(size=groups)[g]
    return pd.DataFrame(
        {
            "count": rng.poisson(np.exp(eta)),
            "b": (rng.random(n) < 1 / (1 + np.exp(-eta))).astype(int),
            "rare": (rng.random(n) < 0.2 * np.exp(0.2 * x)).astype(int),
            "time": rng.gamma(4.0, (3.0 + 0.5 * x + 0.5 * rng.normal(size=groups)[g]) / 4.0),
            "x": x,
            "t": t,
            "g": g,
        }
    )


def test_12_separation():
    data = counts()
    data["b"] = np.where(data["t"] == "c", 1, data["b"])
    fit = mm.glmm("b ~ x + t + (1 | g)", data, family="binomial")
    assert fit.converged
    assert "separation" in notes(fit) and "tc" in notes(fit)
    # the other coefficients are those of the rows that carry information
    rest = mm.glmm("b ~ x + t + (1 | g)", data[data["t"] != "c"], family="binomial")
    assert fit.loglik == pytest.approx(rest.loglik, abs=1e-2)
    assert fit.fixef["x"] == pytest.approx(rest.fixef["x"], abs=1e-3)
    assert fit.se["x"] == pytest.approx(rest.se["x"], rel=1e-2)
    assert np.isnan(fit.se["tc"]) or fit.se["tc"] > 50
    # the remedy that the message names
    prior = fit.update(priors={"tc": ("normal", 0, 2.5)})
    assert "separation" not in notes(prior)
    assert 1.0 < prior.fixef["tc"] < 6.0 and prior.se["tc"] < 3.0
    # a cell without events: glmer gives -33.3 with a standard error of 173
    data["count"] = np.where(data["t"] == "c", 0, data["count"])
    fit = mm.glmm("count ~ x + t + (1 | g)", data, family="poisson")
    assert fit.converged and "separation" in notes(fit) and "tc" in notes(fit)
    assert fit.fixef["tc"] < -10 and (np.isnan(fit.se["tc"]) or fit.se["tc"] > 50)


@pytest.mark.parametrize("reml", [True, False])
def test_13_constant_response(sleep, reml):
    with pytest.raises(mm.DataError, match="Reaction"):
        mm.lmm(SLEEP, sleep.assign(Reaction=3.0), reml=reml)


@pytest.mark.parametrize(
    ("y", "family"), [(1, "binomial"), (0, "binomial"), ("a", "binomial"), (4, "poisson"), (2.5, "gaussian")]
)
def test_13_constant_response_of_generalised_models(sleep, y, family):
    with pytest.raises(mm.DataError, match="'y' is constant"):
        mm.glmm("y ~ Days + (1 | Subject)", sleep.assign(y=y), family=family)


# --------------------------------------------------------------------------------------- missing data


def with_missing(sleep):
    df = sleep.copy()
    df.loc[3, "Reaction"] = np.nan
    df["Days"] = df["Days"].astype(float)
    df.loc[[10, 11], "Days"] = np.nan
    return df


def test_14_missing_values(sleep):
    df = with_missing(sleep)
    omit = mm.lmm(SLEEP, df)
    assert omit.nobs == 177
    assert "reaction" in notes(omit) and "days" in notes(omit)
    assert len(omit.fitted()) == 177
    exclude = mm.lmm(SLEEP, df, na_action="exclude")
    assert exclude.criterion == omit.criterion
    padded = np.asarray(exclude.residuals())
    assert padded.shape == (180,)
    assert np.flatnonzero(np.isnan(padded)).tolist() == [3, 10, 11]
    with pytest.raises(mm.DataError, match=r"Reaction|Days"):
        mm.lmm(SLEEP, df, na_action="fail")
    assert df["Reaction"].isna().sum() == 1  # the input is as it was


@pytest.mark.parametrize("column", ["Reaction", "Days"])
def test_15_infinite_values(sleep, column):
    df = sleep.copy()
    df[column] = df[column].astype(float)
    df.loc[7, column] = np.inf
    with pytest.raises(mm.DataError, match=column):
        mm.lmm(SLEEP, df)


def test_16_no_rows_left(sleep):
    with pytest.raises(mm.DataError, match="0"):
        mm.lmm(SLEEP, sleep.assign(Days=np.nan))


def test_17_unused_levels(sleep):
    wide = sleep.assign(
        Subject=pd.Categorical(
            sleep["Subject"].astype(str), categories=["none", *sleep["Subject"].astype(str).unique()]
        ),
        f=pd.Categorical(np.where(sleep["Days"] > 4, "late", "early"), categories=["early", "never", "late"]),
    )
    fit = mm.lmm("Reaction ~ f + (1 | Subject)", wide)
    assert list(fit.fixef) == ["(Intercept)", "flate"]
    assert fit.ngroups == {"Subject": 18}
    assert "never" in notes(fit)


# ------------------------------------------------------------------------------------------ new data


def test_18_new_group_level(sleep):
    fit = mm.lmm(SLEEP, sleep)
    new = pd.DataFrame({"Days": [0.0, 5.0], "Subject": ["308", "999"]})
    with pytest.raises(mm.NewLevelError, match="999"):
        fit.predict(new)
    values = np.asarray(fit.predict(new, new_levels="population"))
    assert values[1] == pytest.approx(fit.fixef["(Intercept)"] + 5 * fit.fixef["Days"], rel=1e-12)
    assert np.isnan(np.asarray(fit.predict(new, new_levels="missing"))[1])
    # the standard error of the new subject holds all of Sigma: Var(x'beta^) + z'Sigma z
    table = fit.predict(new, new_levels="population", se=True)
    x = np.array([1.0, 5.0])
    Lambda = fit.sigma * np.array(fit._factors[0])
    expected = x @ fit.vcov @ x + x @ Lambda @ Lambda.T @ x
    assert table["std_error"][1] ** 2 == pytest.approx(expected, rel=1e-10)
    limits = fit.predict(new, new_levels="population", interval="prediction")
    assert limits["prediction_sd"][1] ** 2 == pytest.approx(expected + fit.sigma**2, rel=1e-10)


def test_19_missing_group_at_prediction(sleep):
    fit = mm.lmm(SLEEP, sleep)
    new = pd.DataFrame({"Days": [5.0], "Subject": [None]})
    values = np.asarray(fit.predict(new, new_levels="population"))
    assert values[0] == pytest.approx(fit.fixef["(Intercept)"] + 5 * fit.fixef["Days"], rel=1e-12)
    unknown = fit.predict(new.assign(Subject="nobody"), new_levels="population", se=True)
    missing = fit.predict(new, new_levels="population", se=True)
    assert missing["std_error"][0] == unknown["std_error"][0]


def test_20_new_level_of_a_fixed_factor(sleep):
    df = sleep.assign(f=np.where(sleep["Days"] > 4, "late", "early"))
    fit = mm.lmm("Reaction ~ f + (1 | Subject)", df)
    with pytest.raises(mm.NewLevelError, match=r"f.*midnight|midnight.*f"):
        fit.predict(pd.DataFrame({"f": ["midnight"], "Subject": ["308"]}))


def test_21_population_predictions_need_no_groups(sleep):
    fit = mm.lmm(SLEEP, sleep)
    new = pd.DataFrame({"Days": [1.0]})
    assert np.isfinite(np.asarray(fit.predict(new, re_form="none")))[0]
    with pytest.raises(mm.DataError, match="Subject"):
        fit.predict(new)
    assert np.isfinite(fit.predict(new, re_form="none", interval="prediction")["conf_low"][0])
    # another data frame altogether: one error that names the column
    with pytest.raises(mm.DataError, match="'Days'"):
        fit.predict(pd.DataFrame({"a": [1.0]}), re_form="none", interval="confidence")


@pytest.mark.parametrize("call", ["poly(Days, 2)", "ns(Days, df = 3)", "bs(Days, df = 4)", "scale(Days)"])
def test_22_transforms_keep_what_they_learnt(sleep, call):
    fit = mm.lmm(f"Reaction ~ {call} + ({call if 'scale' in call else '1'} | Subject)", sleep)
    whole = np.asarray(fit.predict(sleep))
    np.testing.assert_allclose(whole, np.asarray(fit.fitted()), rtol=1e-10)
    for row in (0, 57, 179):
        single = np.asarray(fit.predict(sleep.iloc[[row]]))
        assert single[0] == pytest.approx(whole[row], rel=1e-12)
    grid = fit.emmeans("Days", at={"Days": [2.0, 8.0]}).estimate
    population = fit.predict({"Days": [2.0, 8.0]}, re_form="population")
    np.testing.assert_allclose(grid, population, rtol=1e-12)


def test_23_transformed_response_says_its_scale(sleep):
    fit = mm.lmm("log(Reaction) ~ Days + (1 | Subject)", sleep)
    assert "log(reaction)" in notes(fit)
    assert np.asarray(fit.predict(sleep)).max() < 10
    at = {"Days": [0.0, 9.0]}
    plain = fit.emmeans("Days", at=at)
    assert "log(Reaction)" in str(plain)
    back = fit.emmeans("Days", at=at, type="response")
    np.testing.assert_allclose(back.columns["estimate"], np.exp(plain.estimate), rtol=1e-12)
    # second-order bias adjustment: exp(m) (1 + s^2 / 2), s^2 the whole variance of log(Reaction)
    total = fit.sigma**2 * (1.0 + fit.theta[0] ** 2)
    adjusted = fit.emmeans("Days", at=at, type="response", bias_adjust=True)
    np.testing.assert_allclose(
        adjusted.columns["estimate"], np.exp(plain.estimate) * (1.0 + 0.5 * total), rtol=1e-10
    )


# ------------------------------------------------------------------------------------ offset, weights


def test_24_offset_is_the_shifted_response(sleep):
    off = np.cos(np.arange(180.0)) * 40
    df = sleep.assign(off=off, shifted=sleep["Reaction"] - off)
    base = mm.lmm("shifted ~ Days + (Days | Subject)", df)
    for fit in (
        mm.lmm("Reaction ~ Days + offset(off) + (Days | Subject)", df),
        mm.lmm(SLEEP, df, offset="off"),
        mm.lmm(SLEEP, df, offset=off),
    ):
        assert fit.criterion == pytest.approx(base.criterion, rel=1e-12)
        np.testing.assert_allclose(fit.beta, base.beta, rtol=1e-9)
        np.testing.assert_allclose(np.asarray(fit.fitted()), np.asarray(base.fitted()) + off, rtol=1e-9)
    inside = mm.lmm("Reaction ~ Days + offset(off) + (Days | Subject)", df)
    np.testing.assert_allclose(np.asarray(inside.predict(df)), np.asarray(inside.fitted()), rtol=1e-11)
    again = inside.refit(df["Reaction"].to_numpy() * 1.0)
    assert again.criterion == pytest.approx(inside.criterion, rel=1e-12)


def test_25_prior_weights_are_precisions(sleep):
    w = 0.5 + np.arange(180) % 4
    df = sleep.assign(w=w, w10=10 * w)
    one = mm.lmm(SLEEP, df, weights="w")
    ten = mm.lmm(SLEEP, df, weights="w10")
    assert ten.loglik == pytest.approx(one.loglik, rel=1e-10)
    assert ten.sigma == pytest.approx(one.sigma * np.sqrt(10), rel=1e-6)
    a, b = one.varcorr.to_frame(), ten.varcorr.to_frame()
    assert a["sdcor"].iloc[0] == pytest.approx(b["sdcor"].iloc[0], rel=1e-5)


def test_26_zero_and_negative_weights(sleep):
    w = np.ones(180)
    w[[4, 90]] = 0.0
    fit = mm.lmm(SLEEP, sleep.assign(w=w), weights="w")
    dropped = mm.lmm(SLEEP, sleep[w > 0])
    assert fit.criterion == pytest.approx(dropped.criterion, rel=1e-12)
    values = np.asarray(fit.fitted())
    assert values.shape == (180,) and np.isfinite(values).all()
    w[3] = -1
    with pytest.raises(mm.DataError, match="w"):
        mm.lmm(SLEEP, sleep.assign(w=w), weights="w")


def test_25_weights_of_generalised_models_repeat_rows():
    # the log-likelihood of glmmTMB with the same weights (tests/references/glmm/responses.R)
    cbpp = mm.load_dataset("cbpp", backend="pandas").assign(w=np.tile([1, 2, 3, 1], 14))
    fit = mm.glmm("incidence ~ period + (1 | herd)", cbpp, family="binomial", trials="size", weights="w")
    assert fit.loglik == pytest.approx(-143.229120138, rel=1e-8)


# ----------------------------------------------------------------------- responses of generalised models


def test_27_proportions_need_their_trials():
    cbpp = mm.load_dataset("cbpp", backend="pandas")
    cbpp["p"] = cbpp["incidence"] / cbpp["size"]
    # glmer warns of "non-integer #successes" and fits something
    with pytest.raises(mm.DataError, match=r"'p' holds proportions in 34 rows \(first in row 0\).*trials="):
        mm.glmm("p ~ period + (1 | herd)", cbpp, family="binomial")
    # R's habit of giving trials as weights: here weights repeat rows
    with pytest.raises(mm.DataError, match=r"numbers of trials belong in trials="):
        mm.glmm("p ~ period + (1 | herd)", cbpp, family="binomial", weights="size")
    fit = mm.glmm("p ~ period + (1 | herd)", cbpp, family="binomial", trials="size")
    assert fit.loglik == pytest.approx(-92.026281865, rel=1e-8)
    # a row without trials is no error and says nothing
    empty = pd.concat([cbpp, cbpp.iloc[:1].assign(size=0, incidence=0, p=np.nan)], ignore_index=True)
    fit = mm.glmm("p ~ period + (1 | herd)", empty, family="binomial", trials="size")
    assert fit.loglik == pytest.approx(-92.026281865, rel=1e-8)
    assert "1 row with 0 trials" in notes(fit)


def test_28_three_levels_are_not_a_binomial_response():
    data = simulated()
    data["stage"] = np.tile(["early", "mid", "late"], 32)
    with pytest.raises(mm.DataError, match=r"'stage' has 3 levels \(early, late, mid\), not two"):
        mm.glmm("stage ~ x + (1 | g)", data, family="binomial")


def test_29_counts_are_whole_and_not_negative():
    data = simulated()
    for shift, what in ((0.5, "not a whole number"), (-3.0, "negative")):
        data["k"] = np.arange(96) % 5 + np.where(np.arange(96) > 90, shift, 0.0)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(mm.DataError, match=rf"'k' is {what} in \d rows \(first in row 9\d\)"):
                mm.glmm("k ~ x + (1 | g)", data, family="poisson")


@pytest.mark.parametrize("family", ["Gamma", "inverse.gaussian", "lognormal"])
def test_30_positive_families_refuse_zeros(family):
    data = simulated()
    data["t"] = np.exp(data["y"])
    data.loc[[7, 20], "t"] = 0.0
    with pytest.raises(mm.DataError, match=r"the response 't': .*2 "):
        mm.glmm("t ~ x + (1 | g)", data, family=family, link="log" if family != "lognormal" else None)


@pytest.mark.parametrize(
    ("formula", "family", "link"),
    [
        ("rare ~ x + (1 | g)", "binomial", "log"),
        ("time ~ x + (1 | g)", "gamma", "identity"),
        ("time ~ x + (1 | g)", "gamma", "inverse"),
    ],
)
def test_32_means_out_of_range_are_rejected_steps(formula, family, link):
    # glmer: "PIRLS step-halvings failed to reduce deviance"
    fit = mm.glmm(formula, counts(), family=family, link=link)
    assert fit.converged
    mean = fit.fitted()
    assert (mean > 0).all() and (family != "binomial" or (mean < 1).all())
    evaluation = fit.objective.evaluate(fit.psi, 2)
    free = np.flatnonzero(fit.joint_vcov.diagonal() > 0)
    assert np.abs(evaluation.gradient[free] * np.sqrt(fit.joint_vcov.diagonal()[free])).max() < 1e-4


@pytest.mark.parametrize("family", ["nbinom1", "nbinom2"])
def test_31_counts_without_over_dispersion(family):
    # glmer.nb: theta of 1.3e5 and warnings; glmmTMB: 1.1e7 and nothing said
    data = counts()
    data["count"] = np.clip(data["count"], 0, 2)
    fit = mm.glmm("count ~ x + (1 | g)", data, family=family)
    plain = mm.glmm("count ~ x + (1 | g)", data, family="poisson")
    assert fit.converged and "poisson limit" in notes(fit)
    assert fit.loglik == pytest.approx(plain.loglik, abs=1e-4)
    assert fit.se["x"] == pytest.approx(plain.se["x"], rel=1e-4)
    assert np.isfinite(list(fit.se.values())).all()


def test_26_rows_of_weight_zero_of_generalised_models():
    data = counts().assign(w=lambda d: np.where(d.index % 9 == 4, 0.0, 1.0))
    fit = mm.glmm("count ~ x + (1 | g)", data, family="poisson", weights="w")
    rest = mm.glmm("count ~ x + (1 | g)", data[data["w"] > 0], family="poisson")
    assert fit.loglik == pytest.approx(rest.loglik, rel=1e-10)
    assert "weight 0" in notes(fit)
    with pytest.raises(mm.DataError, match="weights has a negative value"):
        mm.glmm("count ~ x + (1 | g)", data.assign(w=-1.0), family="poisson", weights="w")


def test_54_huge_exposures_are_a_shift():
    data = counts()
    data["exposure"] = np.exp(np.linspace(-3, 3, len(data)))
    plain = mm.glmm("count ~ x + offset(log(exposure)) + (1 | g)", data, family="poisson")
    data["exposure"] *= 1e60
    far = mm.glmm("count ~ x + offset(log(exposure)) + (1 | g)", data, family="poisson")
    assert far.loglik == pytest.approx(plain.loglik, rel=1e-9)
    assert far.fixef["(Intercept)"] == pytest.approx(plain.fixef["(Intercept)"] - 60 * np.log(10), rel=1e-6)
    # counts of a million
    data["many"] = np.round(1e6 * np.exp(0.1 * data["x"]) * (1 + 0.05 * np.sin(np.arange(len(data)))))
    fit = mm.glmm("many ~ x + (1 | g)", data, family="nbinom2")
    assert fit.converged and np.isfinite(fit.loglik)
    assert fit.fixef["x"] == pytest.approx(0.1, abs=0.02)


def test_49_quadrature_for_vectors_and_nested_factors():
    # glmer: "nAGQ > 1 is only available for models with a single, scalar random-effects term"
    data = counts()
    laplace = mm.glmm("b ~ x + (x | g)", data, family="binomial")
    fit = mm.glmm("b ~ x + (x | g)", data, family="binomial", nagq=9)
    more = fit.update(nagq=15)
    assert fit.converged and abs(more.loglik - fit.loglik) < 1e-3 < abs(fit.loglik - laplace.loglik)
    nested = mm.glmm("b ~ x + (1 | g/t)", data, family="binomial", nagq=7)
    assert nested.converged and np.isfinite(nested.loglik)
    with pytest.raises(mm.OptionError, match=r"'g' and 't' are crossed.*nagq=1"):
        mm.glmm("b ~ x + (1 | g) + (1 | t)", data, family="binomial", nagq=7)


def test_48_hat_values_of_generalised_models():
    # lme4's hatvalues() of this fit add up to 163.5 for 56 rows
    cbpp = mm.load_dataset("cbpp", backend="pandas")
    fit = mm.glmm("incidence ~ period + (1 | herd)", cbpp, family="binomial", trials="size")
    h = np.asarray(fit.leverage())
    assert ((h > 0) & (h < 1)).all()
    # the effective degrees of freedom of the working linear mixed model at its modes
    w = fit.working_weights()
    X = np.column_stack([np.ones(56), *[cbpp["period"].astype(str) == p for p in "234"]])
    Z = (cbpp["herd"].to_numpy()[:, None] == np.unique(cbpp["herd"])).astype(float) * fit.theta[0]
    C = np.column_stack([X, Z])
    penalty = np.diag(np.r_[np.zeros(4), np.ones(Z.shape[1])])
    hat = np.linalg.inv((C * w[:, None]).T @ C + penalty)
    np.testing.assert_allclose(h, w * np.einsum("ij,jk,ik->i", C, hat, C), rtol=1e-6)


def test_58_simulation_and_prediction_of_generalised_models():
    fit = mm.glmm("count ~ x + (1 | g)", counts(), family="poisson")
    kept = fit.simulate(3000, seed=1, new_effects=False)
    fresh = fit.simulate(3000, seed=1)
    spread = np.sqrt(fit.fitted() / 3000)
    assert np.abs((kept.mean(axis=1) - fit.predict()) / spread).max() < 5
    # new effects: the mean of a log-normal, above the prediction for a random effect of zero
    mean = fit.predict(re_form="population") * np.exp(0.5 * fit.theta[0] ** 2)
    assert np.abs(fresh.mean(axis=1) / mean - 1).max() < 0.15
    assert (fresh.var(axis=1) > 1.2 * kept.var(axis=1).mean()).mean() > 0.4


# ------------------------------------------------------------------------------------------- formulas


def test_33_double_bar_is_diagonal_for_factors():
    machines = mm.load_dataset("Machines", backend="pandas")
    fit = mm.lmm("score ~ Machine + (Machine || Worker)", machines)
    assert fit.theta.shape == (3,)
    assert mm.lmm("score ~ Machine + (Machine | Worker)", machines).theta.shape == (6,)


def test_34_overlapping_terms_are_noted():
    machines = mm.load_dataset("Machines", backend="pandas")
    fit = mm.lmm("score ~ Machine + (1 | Worker) + (0 + Machine | Worker)", machines)
    assert "overlap" in notes(fit)


def test_35_duplicate_terms():
    with pytest.raises(mm.MixedModelsError, match=r"1 \| Batch"):
        mm.lmm("Yield ~ 1 + (1 | Batch) + (1 | Batch)", mm.load_dataset("Dyestuff"))


def test_36_nesting_builds_observed_combinations_only():
    pastes = mm.load_dataset("Pastes", backend="pandas")
    fit = mm.lmm("strength ~ 1 + (1 | batch/cask)", pastes)
    assert fit.ngroups == {"cask:batch": 30, "batch": 10}
    other = mm.lmm("strength ~ 1 + (1 | batch) + (1 | batch:cask)", pastes)
    assert other.ngroups == {"batch": 10, "batch:cask": 30}
    assert other.criterion == pytest.approx(fit.criterion, rel=1e-10)


def test_37_reused_labels_are_noted():
    fit = mm.lmm("strength ~ 1 + (1 | batch) + (1 | cask)", mm.load_dataset("Pastes"))
    assert "cask" in notes(fit) and "nested" in notes(fit)


def test_38_bar_without_parentheses(sleep):
    with pytest.raises(mm.FormulaError, match=r"\(Days \+ 1 \| Subject\)|parenthes"):
        mm.lmm("Reaction ~ Days + 1|Subject", sleep)


def test_39_dot_leaves_out_the_groups(sleep):
    fit = mm.lmm("Reaction ~ . + (1 | Subject)", sleep)
    assert list(fit.fixef) == ["(Intercept)", "Days"]
    assert "subject" in notes(fit)


def test_40_no_random_or_no_fixed_part(sleep):
    with pytest.raises(mm.FormulaError, match="random"):
        mm.lmm("Reaction ~ Days", sleep)
    fit = mm.lmm("Reaction ~ 0 + (1 | Subject)", sleep)
    assert fit.beta.shape == (0,)
    assert fit.converged
    assert "Subject" in str(fit)


def test_41_types_of_grouping_columns(sleep):
    base = mm.lmm("Reaction ~ Days + (Days | Subject)", sleep)
    text = sleep["Subject"].astype(str)
    frames = {
        "int": sleep.assign(Subject=text.astype(int)),
        "str": sleep.assign(Subject=text),
        "object": sleep.assign(Subject=text.astype(object)),
        "category": sleep.assign(Subject=text.astype("category")),
        "nullable int": sleep.assign(Subject=text.astype(int).astype("Int64")),
        "string dtype": sleep.assign(Subject=text.astype("string")),
        "polars": pl.DataFrame(
            {c: sleep[c].astype(str).to_list() if c == "Subject" else sleep[c].to_list() for c in sleep}
        ),
        "arrow": pa.table(
            {
                "Reaction": sleep["Reaction"].to_numpy(),
                "Days": sleep["Days"].to_numpy(float),
                "Subject": text.to_list(),
            }
        ),
        "dict": {
            "Reaction": sleep["Reaction"].to_numpy(),
            "Days": sleep["Days"].to_numpy(),
            "Subject": text.to_numpy(object),
        },
    }
    for name, frame in frames.items():
        fit = mm.lmm(SLEEP, frame)
        assert fit.criterion == pytest.approx(base.criterion, rel=1e-12), name
        assert fit.ngroups == {"Subject": 18}, name
    half = mm.lmm("Reaction ~ Days + (1 | late)", sleep.assign(late=sleep["Days"] > 4))
    assert half.ngroups == {"late": 2}
    missing = text.astype("category").where(sleep.index != 0)
    assert mm.lmm(SLEEP, sleep.assign(Subject=missing)).nobs == 179


def test_42_dates_are_days(sleep):
    days = [dt.datetime(2024, 5, 1) + dt.timedelta(days=int(d)) for d in sleep["Days"]]
    fit = mm.lmm("Reaction ~ day + (day | Subject)", sleep.assign(day=pd.to_datetime(days)))
    base = mm.lmm(SLEEP, sleep)
    assert fit.criterion == pytest.approx(base.criterion, rel=1e-8)
    assert fit.fixef["day"] == pytest.approx(base.fixef["Days"], rel=1e-6)
    # nor do degrees of freedom and the test of the slope depend on the origin
    for ddf, tolerance in (("satterthwaite", 1e-7), ("kr", 1e-5)):
        mine, theirs = fit.coefficients(ddf).row("day"), base.coefficients(ddf).row("Days")
        assert mine["df"] == pytest.approx(theirs["df"], rel=1e-5)
        assert mine["statistic"] == pytest.approx(theirs["statistic"], rel=tolerance)


@pytest.mark.parametrize("ddf", ["satterthwaite", "kr"])
@pytest.mark.parametrize("shift", [100.0, 2000.0, 19844.0, 1e6])
def test_03_degrees_of_freedom_do_not_depend_on_the_origin(sleep, shift, ddf):
    """Unbalanced rows. On the whole data lmer stops early from a shift of 100 on: lmerTest 66.6 for 17, and
    pbkrtest 1e9 with a shift of 1000."""
    rows = sleep[np.arange(180) % 7 != 0]
    base = mm.lmm(SLEEP, rows)
    fit = mm.lmm(SLEEP, rows.assign(Days=rows["Days"] + shift))
    mine, theirs = fit.coefficients(ddf).row("Days"), base.coefficients(ddf).row("Days")
    assert mine["df"] == pytest.approx(theirs["df"], rel=1e-6)
    assert mine["std_error"] == pytest.approx(theirs["std_error"], rel=1e-6)
    if shift > 1e5:  # the contrasts below would cancel in twelve digits
        return
    # the whole hypothesis: the line at both ends of its data
    ends = np.array([[1.0, 0.0], [1.0, 9.0]])
    moved = fit.test(ends + np.array([0.0, shift]), ddf=ddf, rhs=[250.0, 350.0])
    joint = base.test(ends, ddf=ddf, rhs=[250.0, 350.0])
    tolerance = max(1e-6, 1e-10 * shift**2)
    # the rule of Fai and Cornelius for several rows depends on the coding; Kenward and Roger's does not
    drift = {"satterthwaite": 0.01, "kr": tolerance}[ddf]
    assert moved["den_df"][0] == pytest.approx(joint["den_df"][0], rel=drift)
    assert moved["statistic"][0] == pytest.approx(joint["statistic"][0], rel=tolerance)


# ----------------------------------------------------------------------------------------------- other


def test_43_restricted_likelihoods_only_where_the_fixed_parts_span_the_same_space(sleep):
    # lme4's anova always refits, nlme only warns; here the column spaces decide
    small, large = mm.lmm("Reaction ~ 1 + (Days | Subject)", sleep), mm.lmm(SLEEP, sleep)
    table = mm.compare(small, large)
    assert any("refitted by maximum likelihood because their fixed parts differ" in n for n in table.notes)
    assert table["statistic"][1] == pytest.approx(23.5365374978819, rel=1e-7)
    with pytest.raises(mm.OptionError, match="fixed parts differ"):
        mm.compare(small, large, refit=False)
    weeks = sleep.assign(weeks=sleep["Days"] / 7 - 1)
    other_coding = mm.lmm("Reaction ~ weeks + (1 | Subject)", weeks)
    kept = mm.compare(other_coding, mm.lmm(SLEEP, weeks))
    assert not any("refitted" in note for note in kept.notes)
    assert kept["statistic"][1] == pytest.approx(42.83681343643, rel=1e-8)


def test_44_a_variance_of_zero_is_on_the_boundary(sleep):
    fit = mm.lmm("Reaction ~ Days + (1 | Subject)", sleep.iloc[:50])
    plain = fit.test_random()
    assert any("conservative" in note for note in plain.notes)
    mixture = fit.test_random(method="mixture")["p_value"][1]
    assert mixture == pytest.approx(0.5 * plain["p_value"][1], rel=1e-12)
    zero = mm.lmm("Yield ~ 1 + (1 | Batch)", mm.load_dataset("Dyestuff", backend="pandas"))
    p = {
        method: zero.test_random(method=method, **options)["p_value"][1]
        for method, options in {
            "lrt": {},
            "rlrt": {"n": 20_000, "seed": 1},
            "bootstrap": {"n": 2000, "seed": 1},
        }.items()
    }
    # exactRLRT of RLRsim: 0.0039; chi-squared with one degree of freedom: 0.0116
    assert p["rlrt"] == pytest.approx(0.0039, abs=0.002)
    assert p["bootstrap"] == pytest.approx(0.0039, abs=0.006)
    assert p["lrt"] == pytest.approx(0.0116, abs=1e-4)


def test_45_models_on_different_rows(sleep):
    a = mm.lmm("Reaction ~ Days + (Days | Subject)", sleep, reml=False)
    b = mm.lmm("Reaction ~ Days + (1 | Subject)", sleep.iloc[:-1], reml=False)
    with pytest.raises(mm.DataError, match=r"180.*179|179.*180"):
        mm.compare(a, b)
    c = mm.lmm("Reaction ~ Days + (1 | Subject)", sleep.assign(Reaction=sleep["Reaction"] + 1), reml=False)
    with pytest.raises(mm.DataError, match="response"):
        mm.compare(a, c)
    d = mm.lmm("Reaction ~ Days + (1 | Subject)", sleep, reml=False, weights=np.linspace(1, 2, 180))
    with pytest.raises(mm.DataError, match="weights"):
        mm.compare(a, d)


@pytest.mark.slow
def test_55_one_huge_group_and_many_small_ones():
    rng = np.random.default_rng(8)
    g = np.concatenate([np.zeros(1_000_000, dtype=np.int64), 1 + np.arange(200_000) % 50_000])
    b = rng.normal(size=50_001) * 0.7
    y = 2 + b[g] + rng.normal(size=g.size)
    fit = mm.lmm("y ~ 1 + (1 | g)", {"y": y, "g": g})
    assert fit.converged
    assert fit.ngroups == {"g": 50_001}
    sd = fit.varcorr.to_frame()["sdcor"]
    assert float(np.asarray(sd)[0]) == pytest.approx(0.7, abs=0.02)
    assert fit.sigma == pytest.approx(1.0, abs=0.005)


def test_46_degrees_of_freedom_with_a_variance_of_zero():
    dyestuff2 = mm.load_dataset("Dyestuff2")
    fit = mm.lmm("Yield ~ 1 + (1 | Batch)", dyestuff2)
    # Satterthwaite: those of the model without the variance, 30 - 1; Kenward-Roger keeps the design, 6 - 1
    assert fit.coefficients()["df"][0] == pytest.approx(29.0, rel=1e-10)
    assert fit.coefficients("kr")["df"][0] == pytest.approx(5.0, rel=1e-6)
    assert fit.coefficients("containment")["df"][0] == 5.0
    for ddf in ("satterthwaite", "kr"):  # the standard error is that of the plain mean in both
        assert fit.coefficients(ddf)["std_error"][0] == pytest.approx(fit.se["(Intercept)"], rel=1e-6)
    # one variance of two at zero: the degrees of freedom of the model without it
    df = simulated(4)
    df["h"] = np.arange(len(df)) % 5
    both = mm.lmm("y ~ x + (1 | g) + (1 | h)", df)
    one = mm.lmm("y ~ x + (1 | g)", df)
    assert both.is_singular
    np.testing.assert_allclose(both.coefficients()["df"], one.coefficients()["df"], rtol=1e-6)


@pytest.mark.parametrize(
    "ask",
    [
        lambda fit: fit.coefficients("kr"),
        lambda fit: fit.confint("kr"),
        lambda fit: fit.anova(ddf="kr"),
        lambda fit: fit.test({"Days": 1}, ddf="kr"),
        lambda fit: fit.test_fixed("Days", ddf="kr"),
        lambda fit: fit.drop1(ddf="kr"),
        lambda fit: fit.emmeans("Days", ddf="kr"),
        lambda fit: fit.joint_tests(ddf="kr"),
        lambda fit: fit.summary(ddf="kr"),
        lambda fit: fit.tidy(ddf="kr"),
        lambda fit: fit.predict({"Days": [1]}, re_form="population", interval="confidence", ddf="kr"),
    ],
)
def test_47_kenward_roger_needs_reml(sleep, ask):
    # pbkrtest computes its adjusted covariance for ML fits too
    with pytest.raises(mm.OptionError, match=r"by REML.*fit\.update\(reml=True\)"):
        ask(mm.lmm(SLEEP, sleep, reml=False))


def test_48_hat_values_add_up_to_the_effective_degrees_of_freedom(sleep):
    for formula, options in ((SLEEP, {}), (SLEEP, {"weights": np.linspace(0.5, 3.0, 180)})):
        fit = mm.lmm(formula, sleep, **options)
        h = fit.leverage()
        assert ((h > 0) & (h < 1)).all()
        # p plus what the random effects keep of their own: tr(I - M^{-1}), less what beta takes of it
        assert fit.design.p < h.sum() < fit.design.p + fit.design.q
    assert mm.lmm(SLEEP, sleep).leverage().sum() == pytest.approx(29.022068, rel=1e-6)  # lme4
    zero = mm.lmm("Yield ~ 1 + (1 | Batch)", mm.load_dataset("Dyestuff2"))
    assert zero.leverage().sum() == pytest.approx(1.0, rel=1e-12)


def test_59_contrasts_are_kept_in_the_model():
    machines = mm.load_dataset("Machines", backend="pandas")
    default = mm.lmm("score ~ Machine + (1 | Worker)", machines)
    fit = mm.lmm("score ~ Machine + (1 | Worker)", machines, contrasts={"Machine": "sum"})
    assert list(fit.fixef) == ["(Intercept)", "Machine1", "Machine2"]
    new = machines.iloc[[0, 20, 40]]
    np.testing.assert_allclose(np.asarray(fit.predict(new)), np.asarray(default.predict(new)), rtol=1e-6)


def test_58_simulation_draws_new_random_effects_and_prediction_conditions(sleep):
    fit = mm.lmm(SLEEP, sleep)
    draws = fit.simulate(1500, seed=1)
    kept = fit.simulate(1500, seed=1, new_effects=False)
    # new effects: centred at the population mean; kept ones: at predict()'s conditional mean
    spread = draws.std(axis=1, ddof=1) / np.sqrt(1500)
    assert np.abs((draws.mean(axis=1) - fit.predict(re_form="population")) / spread).max() < 5
    assert np.abs((kept.mean(axis=1) - fit.predict()) / (fit.sigma / np.sqrt(1500))).max() < 5
    # the same words mean the same choice in both
    fixed = fit.simulate(1500, seed=1, re_form="population")
    assert fixed.std(axis=1).mean() == pytest.approx(fit.sigma, rel=0.02)


def test_61_variances_of_zero_have_an_icc_and_r2():
    fit = mm.lmm("Yield ~ 1 + (1 | Batch)", mm.load_dataset("Dyestuff2"))
    assert fit.icc().row("Batch")["adjusted"] == 0.0
    assert fit.r2()["estimate"].tolist() == [0.0, 0.0]
    # one zero beside one that is not: lmer's packages give NA here
    df = simulated(4)
    df["h"] = np.arange(len(df)) % 5
    both = mm.lmm("y ~ x + (1 | g) + (1 | h)", df)
    icc = both.icc()
    assert both.is_singular and icc.row("h")["adjusted"] == 0.0
    assert 0 < icc.row("g")["adjusted"] == pytest.approx(icc.row("all")["adjusted"])
    assert any("variance estimated as zero: (Intercept) | h" in note for note in icc.notes)


def test_62_parameters_are_counted_once(sleep):
    fit = mm.lmm(SLEEP, sleep, reml=False)
    assert fit.df_model == 6
    assert fit.aic == pytest.approx(-2 * fit.loglik + 12, rel=1e-12)
    assert fit.bic == pytest.approx(-2 * fit.loglik + 6 * np.log(180), rel=1e-12)
    assert mm.lmm("Reaction ~ Days + (Days || Subject)", sleep).df_model == 5
    assert mm.lmm(SLEEP, sleep, sigma=25.0).df_model == 5


def test_57_failed_replicates_are_counted_not_swallowed(sleep):
    fit = mm.lmm(SLEEP, sleep)

    def simulator(fit, rng):
        y = fit.simulate(1, seed=rng)[:, 0]
        return np.where(rng.random() < 0.25, np.nan, y)

    boot = fit.bootstrap(60, seed=2, simulator=simulator)
    failed = len(boot.failures)
    assert 0 < failed < 60 and len(boot) == 60
    assert np.isnan(boot["Days"]).sum() == failed
    for table in (boot.summary(), boot.confint(), boot.hdi()):
        assert f"{failed} of 60 failed" in str(table)


def test_58_simulation_draws_new_effects_by_default(sleep):
    """The same default and the same word in simulate and bootstrap; predict conditions on the effects."""
    fit = mm.lmm(SLEEP, sleep)
    np.testing.assert_array_equal(fit.predict(), fit.fitted())
    spread = fit.simulate(400, seed=1).std(axis=1).mean()
    held = fit.simulate(400, seed=1, new_effects=False).std(axis=1).mean()
    assert held == pytest.approx(fit.sigma, rel=0.05) and spread > 1.5 * held
    assert fit.bootstrap(60, seed=1)["Days"].std() > 1.5 * (
        fit.bootstrap(60, seed=1, new_effects=False)["Days"].std()
    )


def test_63_perfect_fit():
    df = pd.DataFrame({"g": np.repeat(np.arange(5), 4), "x": np.tile(np.arange(4.0), 5)})
    df["y"] = 2 + 3 * df["x"]
    with pytest.raises(mm.MixedModelsError, match="perfect"):
        mm.lmm("y ~ x + (1 | g)", df)
    df["y"] = 2 + 3 * df["x"] + np.array([0.0, 4, -2, 1, 3])[df["g"]]
    with pytest.raises(mm.MixedModelsError, match="perfect"):
        mm.lmm("y ~ x + (1 | g)", df)


def test_64_the_same_twice(sleep):
    insteval = mm.load_dataset("InstEval", backend="pandas").iloc[:20000]
    for formula, data in ((SLEEP, sleep), ("y ~ service + (1 | s) + (1 | d)", insteval)):
        a, b = mm.lmm(formula, data), mm.lmm(formula, data)
        assert a.criterion == b.criterion
        assert np.array_equal(a.theta, b.theta)
        assert np.array_equal(a.beta, b.beta)


def test_64_the_same_seed_the_same_draws(sleep):
    fit = mm.lmm(SLEEP, sleep)
    one = fit.bootstrap(130, seed=9, n_jobs=1)
    for n_jobs in (2, 4):
        np.testing.assert_array_equal(fit.bootstrap(130, seed=9, n_jobs=n_jobs).draws, one.draws)


def test_permuting_rows_changes_nothing(sleep):
    shuffled = sleep.sample(frac=1, random_state=3)
    assert mm.lmm(SLEEP, shuffled).criterion == pytest.approx(mm.lmm(SLEEP, sleep).criterion, rel=1e-12)


def test_duplicated_rows_are_weight_two_up_to_the_known_constant():
    df = simulated()
    twice = mm.lmm("y ~ x + (1 | g)", pd.concat([df, df], ignore_index=True), reml=False)
    weighted = mm.LinearMixedModel("y ~ x + (1 | g)", df.assign(w=2.0), weights="w", reml=False)
    # at given parameters the estimates of beta agree, because the cross-products are the same
    other = mm.LinearMixedModel("y ~ x + (1 | g)", pd.concat([df, df], ignore_index=True), reml=False)
    np.testing.assert_allclose(
        weighted.solution(twice.theta).beta, other.solution(twice.theta).beta, rtol=1e-10
    )


def test_01_the_profile_of_a_zero_variance_starts_at_exactly_zero():
    fit = mm.lmm("Yield ~ 1 + (1 | Batch)", mm.load_dataset("Dyestuff2"), reml=False)
    table = fit.confint("profile")
    row = table.row("sd_(Intercept)|Batch")
    assert row["conf_low"] == 0.0
    assert row["conf_high"] == pytest.approx(2.0840435, abs=1e-4)  # lme4; nlme gives [0, Inf]
    assert row["note"] == "low at bound" and "on which the estimate lies" in table.notes[0]


def visits(noise):
    """Twenty groups at four times, two rows each: `noise` and its opposite."""
    g, t = np.repeat(np.arange(20), 8), np.tile(np.repeat(np.arange(4), 2), 20)
    return pd.DataFrame(
        {"y": np.column_stack([noise, -noise]).ravel(), "g": g, "t": t, "f": [f"t{i}" for i in t]}
    )


def test_17_levels_without_rows_are_distances_in_time(sleep):
    """ar1 over a factor: a level between two others is a step of time, used or not."""
    some = sleep[~sleep["Days"].isin([3, 4])]
    days = some["Days"].astype(int).astype(str)
    day = pd.Categorical(days, categories=[str(i) for i in range(10)])
    fit = mm.lmm("Reaction ~ Days + ar1(0 + day | Subject)", some.assign(day=day))
    assert fit.loglik == pytest.approx(
        mm.lmm("Reaction ~ Days + ar1(Days | Subject)", some).loglik, rel=1e-10
    )
    renamed = pd.Categorical(some["Days"].astype(str))
    closed = mm.lmm("Reaction ~ Days + ar1(0 + day | Subject)", some.assign(day=renamed))
    assert abs(closed.loglik - fit.loglik) > 0.1


@pytest.mark.parametrize(
    "term", ["ar1(t | g)", "ou(t | g)", "cs(0 + f | g)", "homcs(0 + f | g)", "ad(0 + f | g)"]
)
def test_51_no_variance_no_correlation(term):
    """All standard deviations 0: the correlation is NaN, and a note says why."""
    fit = mm.lmm(f"y ~ 1 + {term}", visits(np.random.default_rng(4).normal(size=80)))
    assert list(fit.varcorr["g"].sds) == [0.0] * 4
    off = ~np.eye(4, dtype=bool)
    assert np.isnan(fit.varcorr["g"].correlation[off]).all()
    assert "estimated as zero" in notes(fit)
    by_name = {row["term"]: row for row in fit.variance_parameters().rows()}
    assert all(np.isnan(row["estimate"]) for name, row in by_name.items() if name.startswith(("cor", "rate")))
    assert by_name["sigma"]["estimate"] == pytest.approx(np.sqrt(np.sum(fit.response() ** 2) / 159))


def test_52_an_autoregression_of_effects_and_one_of_residuals_are_two_models():
    """The random term comes on top of independent errors: one parameter more; without them they are one."""
    rng = np.random.default_rng(3)
    e = rng.normal(size=(20, 9))
    for j in range(1, 9):
        e[:, j] += 0.7 * e[:, j - 1]
    g, t = np.repeat(np.arange(20), 6), np.tile(np.arange(6), 20)
    data = {"y": e[:, 3:].ravel() + rng.normal(size=120), "g": g, "t": t}
    effects = mm.lmm("y ~ 1 + ar1(t | g)", data)
    residuals = mm.gls("y ~ 1", data, residual="ar1(t | g)")
    nugget = mm.gls("y ~ 1", data, residual="exp(t | g, nugget=True)")
    assert effects.df_model == residuals.df_model + 1 == nugget.df_model
    assert effects.loglik == pytest.approx(nugget.loglik, abs=1e-6)
    assert effects.loglik >= residuals.loglik - 1e-6


def test_53_a_variance_for_every_row_beside_sigma():
    """us over the visits, one row at each: an error; as a structure of the residuals it is fine."""
    data = visits(np.random.default_rng(2).normal(size=80)).iloc[::2]
    for term in ("us(0 + f | g)", "diag(0 + f | g)"):
        with pytest.raises(mm.IdentifiabilityError, match=r"80 effects .* for 80 observations.*residual="):
            mm.lmm(f"y ~ f + {term}", data)
    free = mm.gls("y ~ f", data, residual="us(f | g)")
    held = mm.lmm("y ~ f + us(0 + f | g)", data, sigma=1e-3)
    assert held.loglik == pytest.approx(free.loglik, abs=1e-4)


def test_60_profiles_at_a_boundary_are_one_sided_with_the_reason():
    rng = np.random.default_rng(1)
    g = np.repeat(np.arange(10), 5)
    x = rng.normal(size=50)
    b = rng.normal(size=10)
    y = 1 + x + b[g] * (1 + x) + rng.normal(size=50)
    fit = mm.lmm("y ~ x + (x | g)", {"y": y, "x": x, "g": g}, reml=False)
    row = fit.confint("profile").row("cor_x.(Intercept)|g")
    assert row["conf_high"] == 1.0 and row["conf_low"] == pytest.approx(0.5207, abs=1e-3)
    assert "bound" in row["note"]
    # without variances a correlation is not a parameter at all
    rng = np.random.default_rng(2)
    y = 1 + rng.normal(size=50)
    y -= np.array([y[g == level].mean() for level in range(10)])[g]  # equal means: no variance between groups
    flat = mm.lmm("y ~ 1 + (0 + x | g)", {"y": y, "x": np.ones(50), "g": g}, reml=False)
    assert flat.theta.tolist() == [0.0]
    flat = mm.lmm(
        "y ~ z + (z | g)", {"y": y, "z": np.tile([-1.0, -0.5, 0.0, 0.5, 1.0], 10), "g": g}, reml=False
    )
    assert flat.theta.tolist() == [0.0, 0.0, 0.0]
    (row,) = flat.confint("profile", parameters="cor").rows()
    assert np.isnan(row["conf_low"]) and np.isnan(row["conf_high"]) and "not identified" in row["note"]


def test_60_the_restricted_likelihood_can_be_profiled(sleep):
    fit = mm.lmm(SLEEP, sleep)
    table = fit.confint("profile", criterion="reml", parameters="sd")
    ml = fit.confint("profile", parameters="sd")
    assert np.all(table["conf_high"] > ml["conf_high"]) and np.all(table["conf_low"] > ml["conf_low"])
    assert any("refitted by maximum likelihood" in note for note in ml.notes)
