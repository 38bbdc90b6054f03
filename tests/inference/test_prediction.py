"""Standard errors and intervals of predictions: against dense algebra, laws, and simulation."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import mixedmodels as mm

Z975 = 1.959963984540054


def dense_variance(fit, X, rows):
    """``Var(x'(beta^ - beta) + z'(b^ - b))`` by the n x n covariance; rows: per term None or (codes, Z, m).

    Codes beyond the fit's levels are new levels, independent of the data: no formula of the package is used.
    """
    design, sigma = fit.design, fit.sigma
    n, N = design.n, X.shape[0]
    w = np.ones(n) if design.weights is None else design.weights
    V = np.diag(sigma**2 / w)
    cross, own = np.zeros((N, n)), np.zeros((N, N))
    for term, factor, given in zip(design.terms, fit._factors, rows, strict=True):
        Sigma = sigma**2 * np.array(factor) @ np.array(factor).T
        Z = np.ones((n, 1)) if term.Z is None else term.Z
        same = term.codes[:, None] == term.codes[None, :]
        V += same * (Z @ Sigma @ Z.T)
        if given is not None:
            codes, Zn = given
            cross += (codes[:, None] == term.codes[None, :]) * (Zn @ Sigma @ Z.T)
            own += (codes[:, None] == codes[None, :]) * (Zn @ Sigma @ Zn.T)
    Vi = np.linalg.inv(V)
    K = cross @ Vi
    rest = X - K @ design.X
    Phi = np.linalg.inv(design.X.T @ Vi @ design.X)
    return np.diagonal(own - K @ cross.T + rest @ Phi @ rest.T)


def own_rows(fit):
    return [(term.codes, np.ones((fit.nobs, 1)) if term.Z is None else term.Z) for term in fit.design.terms]


@pytest.fixture(scope="module")
def crossed():
    rng = np.random.default_rng(8)
    n = 160
    data = pd.DataFrame(
        {
            "x": rng.standard_normal(n),
            "g": rng.integers(0, 9, n).astype(str),
            "h": rng.integers(0, 5, n),
            "w": rng.uniform(0.5, 3.0, n),
        }
    )
    effects = rng.standard_normal((9, 2)) @ np.array([[1.0, 0.3], [0.0, 0.5]])
    g = data["g"].astype(int).to_numpy()
    data["y"] = (
        2.0
        + 0.7 * data["x"]
        + effects[g, 0]
        + effects[g, 1] * data["x"]
        + rng.standard_normal(5)[data["h"]]
        + rng.standard_normal(n) / np.sqrt(data["w"])
    )
    return data, mm.lmm("y ~ x + (x | g) + (1 | h)", data, weights="w")


def test_conditional_standard_errors_against_dense_algebra(crossed):
    data, fit = crossed
    table = fit.predict(data, se=True)
    assert list(table.columns) == ["predicted", "std_error"]
    expected = np.sqrt(dense_variance(fit, fit.design.X, own_rows(fit)))
    np.testing.assert_allclose(table["std_error"], expected, rtol=1e-8)
    np.testing.assert_allclose(table["predicted"], fit.fitted(), rtol=1e-10)
    np.testing.assert_allclose(fit.predict(se=True)["std_error"], expected, rtol=1e-8)


@pytest.mark.parametrize("re_form", ["population", ["g"], ["h"], "~ (0 + x | g)"])
def test_subsets_against_dense_algebra(crossed, re_form):
    data, fit = crossed
    rows = own_rows(fit)
    if re_form == "population":
        rows = [None, None]
    elif re_form == ["g"]:
        rows[1] = None
    elif re_form == ["h"]:
        rows[0] = None
    else:
        rows = [(rows[0][0], rows[0][1] * [0.0, 1.0]), None]
    expected = dense_variance(fit, fit.design.X, rows)
    np.testing.assert_allclose(fit.predict(data, re_form, se=True)["std_error"] ** 2, expected, rtol=1e-7)


def test_prediction_intervals_add_the_variances_left_out(crossed):
    data, fit = crossed
    Sigma = fit.sigma**2 * np.array(fit._factors[0]) @ np.array(fit._factors[0]).T
    tau2 = fit.sigma**2 * fit._factors[1][0][0] ** 2
    z = np.column_stack([np.ones(len(data)), data["x"]])
    slopes = (z @ Sigma * z).sum(axis=1)
    mean = fit.predict(data, "population", se=True)["std_error"] ** 2
    table = fit.predict(data, "population", interval="prediction", weights="w")
    total = mean + slopes + tau2 + fit.sigma**2 / data["w"]
    np.testing.assert_allclose(table["prediction_sd"] ** 2, total, rtol=1e-8)
    np.testing.assert_allclose(table["conf_high"] - table["predicted"], Z975 * np.sqrt(total), rtol=1e-8)
    assert np.allclose(table["std_error"] ** 2, mean)
    # conditional on g: only h and the residual are left
    table = fit.predict(data, ["g"], interval="prediction", level=0.5)
    mean = fit.predict(data, ["g"], se=True)["std_error"] ** 2
    np.testing.assert_allclose(table["prediction_sd"] ** 2, mean + tau2 + fit.sigma**2, rtol=1e-8)
    half = 0.6744897501960817 * table["prediction_sd"]
    np.testing.assert_allclose(table["predicted"] - table["conf_low"], half, rtol=1e-8)


def test_prediction_intervals_at_the_population_level_need_no_grouping_columns(crossed):
    data, fit = crossed
    whole = fit.predict(data, "population", interval="prediction")
    slim = fit.predict({"x": data["x"].to_numpy()}, "population", interval="prediction")
    np.testing.assert_array_equal(whole["conf_low"], slim["conf_low"])


def test_own_rows_use_the_weights_of_the_fit(crossed):
    data, fit = crossed
    own = fit.predict(interval="prediction")
    given = fit.predict(data, interval="prediction", weights="w")
    np.testing.assert_allclose(own["conf_low"], given["conf_low"], rtol=1e-12)
    unit = fit.predict(data, interval="prediction")
    assert any("weight 1" in note for note in unit.notes)
    gap = unit["prediction_sd"] ** 2 - given["prediction_sd"] ** 2
    np.testing.assert_allclose(gap, fit.sigma**2 * (1.0 - 1.0 / data["w"]), rtol=1e-7, atol=1e-12)


def test_new_levels_add_their_whole_variance(crossed):
    # hard case 18: mean 0, and the standard error holds all of Sigma
    _, fit = crossed
    new = {"x": np.array([0.5, 0.5, -1.0]), "g": ["3", "new", "other"], "h": [0, 1, 99]}
    with pytest.raises(mm.NewLevelError, match="other"):
        fit.predict(new, se=True)
    table = fit.predict(new, se=True, new_levels="population")
    X = np.column_stack([np.ones(3), new["x"]])
    rows = [
        (np.array([list(fit.design.terms[0].levels).index("3"), 100, 101]), X),
        (np.array([0, 1, 99]), np.ones((3, 1))),
    ]
    np.testing.assert_allclose(table["std_error"] ** 2, dense_variance(fit, X, rows), rtol=1e-8)
    assert any("new levels (3 in all)" in note for note in table.notes)
    population = fit.predict(new, "population", interval="prediction")
    whole = fit.predict(new, interval="prediction", new_levels="population")
    assert whole["prediction_sd"][2] == pytest.approx(population["prediction_sd"][2], rel=1e-12)
    missing = fit.predict(new, se=True, new_levels="missing")
    assert np.isnan(missing["std_error"]).tolist() == [False, True, True]


def test_singular_fit_has_the_standard_error_of_the_smaller_model():
    data = mm.load_dataset("Dyestuff2", backend="pandas")
    fit = mm.lmm("Yield ~ 1 + (1 | Batch)", data)
    y = data["Yield"].to_numpy()
    table = fit.predict(data, interval="confidence")
    np.testing.assert_allclose(table["std_error"], y.std(ddof=1) / np.sqrt(y.size), rtol=1e-8)
    whole = fit.predict({"Batch": ["new"]}, interval="prediction", new_levels="population")
    assert whole["prediction_sd"][0] == pytest.approx(y.std(ddof=1) * np.sqrt(1 + 1 / y.size), rel=1e-8)


def test_simulation_agrees_with_the_formulae(crossed):
    data, fit = crossed
    rows = data.head(6)
    for kwargs in [{"interval": "confidence"}, {"interval": "prediction", "re_form": ["g"]}]:
        exact = fit.predict(rows, **kwargs)
        drawn = fit.predict(rows, method="simulation", n=3000, seed=4, **kwargs)
        spread = exact.columns.get("prediction_sd", exact["std_error"])
        np.testing.assert_allclose(drawn["std_error"], exact["std_error"], rtol=0.06)
        assert np.abs(drawn["conf_low"] - exact["conf_low"]).max() < 0.17 * spread.max()
        assert np.abs(drawn["conf_high"] - exact["conf_high"]).max() < 0.17 * spread.max()
        again = fit.predict(rows, method="simulation", n=3000, seed=4, **kwargs)
        np.testing.assert_array_equal(again["conf_low"], drawn["conf_low"])


def test_simulation_with_other_variance_parameters(fit, sleepstudy):
    class Draws:
        theta = np.tile(fit.theta, (400, 1))
        sigma = np.full(400, fit.sigma)

    rows = sleepstudy.head(3)
    plain = fit.predict(rows, method="simulation", n=400, seed=2, interval="confidence")
    same = fit.predict(rows, method="simulation", parameters=Draws, seed=2, interval="confidence")
    np.testing.assert_allclose(same["conf_low"], plain["conf_low"], rtol=1e-10)
    Draws.sigma = np.full(400, 3.0 * fit.sigma)
    wide = fit.predict(rows, method="simulation", parameters=Draws, seed=2, interval="confidence")
    np.testing.assert_allclose(wide["std_error"], 3.0 * same["std_error"], rtol=1e-8)
    with pytest.raises(mm.OptionError, match="Bootstrap"):
        fit.predict(rows, method="simulation", parameters=3, se=True)
    with pytest.raises(mm.OptionError, match="simulation"):
        fit.predict(rows, parameters=Draws, se=True)


def test_a_bootstrap_widens_the_limits_by_the_variances(fit, sleepstudy):
    rows = sleepstudy.head(10)
    draws = fit.bootstrap(600, seed=1, progress=False)
    wide = fit.predict(rows, method="simulation", parameters=draws, seed=2, interval="confidence")
    known = fit.predict(rows, interval="confidence")
    assert any("from the bootstrap" in note for note in wide.notes)
    assert np.mean(wide["std_error"] / known["std_error"]) > 1.02


def test_standard_errors_do_not_depend_on_coding_or_units(sleepstudy, fit):
    shifted = sleepstudy.assign(Days=(sleepstudy["Days"] + 2000.0) * 7.0)
    other = mm.lmm("Reaction ~ Days + (Days | Subject)", shifted)
    a = fit.predict(sleepstudy, interval="prediction")
    b = other.predict(shifted, interval="prediction")
    np.testing.assert_allclose(a["std_error"], b["std_error"], rtol=1e-5)
    np.testing.assert_allclose(a["conf_low"], b["conf_low"], rtol=1e-6)


def test_t_quantiles_at_the_population_level(fit):
    new = {"Days": np.array([0.0, 9.0])}
    z = fit.predict(new, "population", interval="confidence")
    t = fit.predict(new, "population", interval="confidence", ddf=17)
    ratio = (t["conf_high"] - t["predicted"]) / (z["conf_high"] - z["predicted"])
    np.testing.assert_allclose(ratio, 2.1098155778331806 / Z975, rtol=1e-10)
    s = fit.predict(new, "population", interval="confidence", ddf="satterthwaite")
    df = fit.test([[1.0, 0.0], [1.0, 9.0]], joint=False)["df"]
    from scipy.special import stdtrit

    expected = stdtrit(df, 0.975) * s["std_error"]
    np.testing.assert_allclose(s["conf_high"] - s["predicted"], expected, rtol=1e-8)
    assert any("Satterthwaite" in note for note in s.notes)
    kr = fit.predict(new, "population", interval="confidence", ddf="kr")
    assert np.all(kr["conf_high"] >= s["conf_high"] - 1e-6 * s["std_error"])
    with pytest.raises(mm.OptionError, match="population"):
        fit.predict(new, "population", interval="prediction", ddf="residual")


def test_missing_values_offsets_and_rows_of_weight_zero(sleepstudy):
    data = sleepstudy.assign(o=np.arange(180.0), w=1.0)
    data.loc[4, "Days"] = np.nan
    data.loc[7, "w"] = 0.0
    fit = mm.lmm("Reaction ~ Days + offset(o) + (1 | Subject)", data, weights="w", na_action="exclude")
    own = fit.predict(interval="prediction")
    assert len(own) == 180
    assert np.isnan(own["predicted"]).nonzero()[0].tolist() == [4]
    assert np.isnan(own["std_error"]).nonzero()[0].tolist() == [4]
    assert np.isnan(own["conf_low"]).nonzero()[0].tolist() == [4, 7]  # weight 0: no finite variance
    new = fit.predict(data.drop(columns=["Reaction"]), se=True)
    np.testing.assert_allclose(new["predicted"], own["predicted"], rtol=1e-12)
    np.testing.assert_allclose(new["std_error"], own["std_error"], rtol=1e-9)


def test_empty_cell_has_no_standard_error():
    rng = np.random.default_rng(4)
    a, b = np.repeat(["p", "q"], 40), np.tile(["u", "v"], 40)
    g = np.tile(np.arange(8), 10)
    data = pd.DataFrame({"a": a, "b": b, "g": g, "y": rng.standard_normal(80) + g})
    fit = mm.lmm("y ~ a * b + (1 | g)", data[~((a == "q") & (b == "v"))])
    with pytest.warns(mm.NotEstimableWarning, match="aq:bv"):
        table = fit.predict({"a": ["q", "q"], "b": ["u", "v"]}, "population", interval="prediction")
    assert np.isnan(table["std_error"]).tolist() == [False, True]
    assert np.isnan(table["conf_low"]).tolist() == [False, True]


def test_coefficients_per_level_have_standard_errors(crossed):
    _, fit = crossed
    table = fit.coef(condvar=True)
    g = table[(table["group"] == "g") & (table["term"] == "x")]
    m = len(g)
    rows = [(np.arange(m), np.tile([0.0, 1.0], (m, 1))), None]
    expected = dense_variance(fit, np.tile([0.0, 1.0], (m, 1)), rows)
    np.testing.assert_allclose(g["std_error"] ** 2, expected, rtol=1e-8)
    h = table[(table["group"] == "h") & (table["term"] == "x")]  # no random slope on h: that of beta
    np.testing.assert_allclose(h["std_error"], fit.se["x"], rtol=1e-8)


@pytest.mark.parametrize(
    ("kwargs", "match"),
    [
        ({"interval": "tolerance"}, "tolerance"),
        ({"method": "magic", "se": True}, "magic"),
        ({"level": 1.5, "se": True}, "level"),
        ({"se": True, "ddf": "kr"}, "population"),
        ({"se": True, "method": "simulation", "n": 0}, "n must be"),
        ({"se": True, "method": "simulation", "ddf": 12}, "ddf"),
    ],
)
def test_wrong_options(fit, sleepstudy, kwargs, match):
    with pytest.raises(mm.OptionError, match=match):
        fit.predict(sleepstudy, **kwargs)


def test_wrong_weights(fit, sleepstudy):
    with pytest.raises(mm.DataError, match="wt"):
        fit.predict(sleepstudy, interval="prediction", weights="wt")
    with pytest.raises(mm.DataError, match="positive"):
        fit.predict(sleepstudy, interval="prediction", weights=-1.0)


def test_models_from_matrices():
    data = mm.load_dataset("sleepstudy", backend="pandas")
    fit = mm.lmm("Reaction ~ Days + (1 | Subject)", data)
    term = mm.RandomTerm("Subject", (), data["Subject"].to_numpy(), None, None, "us")
    X = np.column_stack([np.ones(180), data["Days"]])
    other = mm.LinearMixedModel.from_matrices(data["Reaction"].to_numpy(), X, [term]).fit()
    own, expected = other.predict(interval="prediction"), fit.predict(interval="prediction")
    np.testing.assert_allclose(own["conf_low"], expected["conf_low"], rtol=1e-7)
    with pytest.raises(mm.OptionError, match="matrices"):
        other.predict(data, se=True)
