"""Marginal means, contrasts and slopes: laws, options, errors."""

import numpy as np
import pytest

import mixedmodels as mm
from mixedmodels.errors import OptionError
from mixedmodels.inference.means.emmeans import parse_specs


def simulated(n=240, seed=4):
    rng = np.random.default_rng(seed)
    g = rng.integers(0, 12, n)
    A = rng.choice(["a1", "a2", "a3"], n, p=[0.5, 0.3, 0.2])
    B = rng.choice(["b1", "b2"], n)
    x = rng.uniform(1.0, 5.0, n)
    y = (
        3.0
        + 0.5 * x
        + (A == "a2") * 1.0
        + (B == "b2") * x * 0.3
        + rng.normal(size=12)[g]
        + rng.normal(size=n)
    )
    return {
        "y": y,
        "A": A.tolist(),
        "B": B.tolist(),
        "x": x,
        "flag": (x > 3).tolist(),
        "k": rng.integers(0, 4, n).astype(float),
        "g": [f"g{v}" for v in g],
    }


DATA = simulated()


@pytest.fixture(scope="module")
def fit():
    return mm.lmm("y ~ A * B + B * x + (1 | g)", DATA)


# ---------------------------------------------------------------------- laws


def test_means_are_averages_of_predictions(fit):
    levels = [(a, b) for b in ("b1", "b2") for a in ("a1", "a2", "a3")]
    new = {"A": [a for a, _ in levels], "B": [b for _, b in levels], "x": [np.mean(DATA["x"])] * 6}
    predicted = fit.predict(new, re_form="population").reshape(2, 3)
    assert fit.emmeans("A", ddf="z")["estimate"] == pytest.approx(predicted.mean(axis=0), rel=1e-12)
    assert fit.emmeans("B", ddf="z")["estimate"] == pytest.approx(predicted.mean(axis=1), rel=1e-12)
    assert fit.emmeans("A*B", ddf="z")["estimate"] == pytest.approx(predicted.ravel(), rel=1e-12)
    assert fit.emmeans("1", ddf="z")["estimate"] == pytest.approx(predicted.mean(), rel=1e-12)


@pytest.mark.parametrize("contrasts", [{"A": "sum"}, {"A": "helmert", "B": "sum"}])
def test_coding_does_not_matter(fit, contrasts):
    other = mm.lmm("y ~ A * B + B * x + (1 | g)", DATA, contrasts=contrasts)
    for name in ("estimate", "std_error", "df"):
        assert other.emmeans("A")[name] == pytest.approx(fit.emmeans("A")[name], rel=1e-5)
    ours, theirs = other.joint_tests(), fit.joint_tests()
    assert ours["statistic"] == pytest.approx(theirs["statistic"], rel=1e-5)
    assert ours["den_df"] == pytest.approx(theirs["den_df"], rel=1e-4)


def test_units_of_the_covariate_do_not_matter(fit):
    other = mm.lmm("y ~ A * B + B * x + (1 | g)", {**DATA, "x": 1000.0 * DATA["x"] + 5.0})
    assert other.emmeans("A")["estimate"] == pytest.approx(fit.emmeans("A")["estimate"], rel=1e-6)
    assert 1000.0 * other.emtrends("B", "x")["estimate"] == pytest.approx(
        fit.emtrends("B", "x")["estimate"], rel=1e-5
    )


def test_contrasts_are_differences_of_means(fit):
    means = fit.emmeans("A", ddf="kr")
    pairs = means.pairs()
    m = means["estimate"]
    assert pairs["estimate"] == pytest.approx([m[0] - m[1], m[0] - m[2], m[1] - m[2]])
    C = np.array([[1, -1, 0], [1, 0, -1], [0, 1, -1.0]])
    assert pairs.vcov == pytest.approx(C @ means.vcov @ C.T)
    assert pairs.linfct == pytest.approx(C @ means.linfct)
    assert pairs["std_error"] ** 2 == pytest.approx(np.diag(pairs.vcov))
    assert means.linfct @ fit.beta == pytest.approx(m)


def test_slopes_are_differences_of_means(fit):
    low, high = (fit.emmeans("B", at={"x": [v]}, ddf="z")["estimate"] for v in (2.0, 3.0))
    assert fit.emtrends("B", "x", ddf="z")["estimate"] == pytest.approx(high - low)
    assert fit.emtrends("A | B", "x", ddf="z")["estimate"].shape == (6,)


def test_methods_of_degrees_of_freedom(fit):
    assert np.isinf(fit.emmeans("A", ddf="z")["df"]).all()
    assert fit.emmeans("A", ddf=7)["df"].tolist() == [7.0] * 3
    assert (fit.emmeans("A", ddf="residual")["df"] == 240 - 8).all()
    satterthwaite, kr = fit.emmeans("A")["df"], fit.emmeans("A", ddf="kr")["df"]
    assert (satterthwaite < 30).all() and kr == pytest.approx(satterthwaite, rel=0.2)


def test_conclusions_of_one_test_agree(fit):
    """The joint test of two means is the square of their t test, and the pair has no adjustment."""
    pairs = fit.emmeans("B").pairs()
    joint = pairs.test(joint=True)
    assert joint["statistic"] == pytest.approx(pairs["statistic"] ** 2, rel=1e-9)
    assert joint["p_value"] == pytest.approx(pairs["p_value"], rel=1e-6)
    assert pairs["p_value"] == pytest.approx(fit.emmeans("B").pairs(adjust="none")["p_value"], rel=1e-9)


def test_joint_tests_are_type_three(fit):
    """By hand: the interaction A:B is its two coefficients."""
    table = fit.joint_tests(ddf="z")
    assert table["term"].tolist() == ["A", "B", "x", "A:B", "B:x"]
    position = [i for i, name in enumerate(fit.design.x_names) if ":" in name and "A" in name]
    L = np.eye(len(fit.beta))[position]
    expected = L @ fit.beta @ np.linalg.solve(L @ fit.vcov @ L.T, L @ fit.beta) / 2
    assert table.rows()[3]["statistic"] == pytest.approx(expected, rel=1e-9)
    within = fit.joint_tests(by="B", ddf="z")
    assert within["B"].tolist() == ["b1", "b1", "b2", "b2"] and within["term"].tolist() == ["A", "x"] * 2


# ---------------------------------------------------------------------- how means are asked for


def test_spellings_of_specs(fit):
    known = ["A", "B", "x"]
    assert parse_specs("A | B", None, known) == (None, ("A",), ("B",))
    assert parse_specs("~ A*B", None, known) == parse_specs(["A", "B"], None, known) == (None, ("A", "B"), ())
    assert parse_specs("revpairwise ~ A:B", None, known) == ("revpairwise", ("A", "B"), ())
    assert parse_specs("A", "B", known) == parse_specs("A | B", None, known)
    assert parse_specs("1", None, known) == parse_specs([], None, known) == (None, (), ())
    both = fit.emmeans("pairwise ~ A", ddf="z")
    assert both.contrasts["estimate"] == pytest.approx(fit.contrast("A", ddf="z")["estimate"])
    assert "a1 - a2" in str(both) and "Estimated marginal means of A" in str(both)
    assert "a1 - a2" in both.to_html() and both.to_markdown() and both.to_latex()


def test_contrast_of_a_fit_takes_both_kinds_of_options(fit):
    found = fit.contrast("A", "trt.vs.ctrl", ref="a3", ddf="z", adjust="none", at={"B": ["b1"]})
    assert found["contrast"].tolist() == ["a1 - a3", "a2 - a3"]
    cell = fit.emmeans("A", at={"B": ["b1"]}, ddf="z")["estimate"]
    assert found["estimate"] == pytest.approx(cell[:2] - cell[2])


def test_by_simple_and_interaction(fit):
    means = fit.emmeans("A*B", ddf="z")
    by = means.contrast("pairwise", by="B")
    assert list(by.labels) == ["contrast", "B"] and by["B"].tolist() == ["b1"] * 3 + ["b2"] * 3
    assert by["estimate"] == pytest.approx(means.contrast("pairwise", simple="A")["estimate"])
    assert by["estimate"] == pytest.approx(fit.emmeans("A | B", ddf="z").pairs()["estimate"])
    crossed = means.contrast(interaction="consec")
    m = means["estimate"].reshape(2, 3)
    assert crossed["estimate"] == pytest.approx(np.diff(np.diff(m, axis=0), axis=1).ravel())
    assert list(crossed.labels) == ["A_consec", "B_consec"]
    assert means.pairs()["contrast"][0] == "a1 b1 - a2 b1" and len(means.pairs()) == 15
    twice = by.contrast("pairwise", by="contrast")
    assert twice["estimate"] == pytest.approx(by["estimate"][:3] - by["estimate"][3:])


def test_covariates_in_the_grid(fit):
    assert "at x = " in str(fit.emmeans("A", ddf="z"))
    shown = fit.emmeans("x | B", at={"x": [1, 2.5]}, ddf="z")
    assert shown["x"].tolist() == [1.0, 2.5, 1.0, 2.5]
    median = fit.emmeans("A", cov_reduce=np.median, ddf="z")
    assert median["estimate"] == pytest.approx(
        fit.emmeans("A", at={"x": [np.median(DATA["x"])]}, ddf="z")["estimate"]
    )
    counts = mm.lmm("y ~ A + k + flag + (1 | g)", DATA)
    assert counts.emmeans("k", ddf="z")["k"].tolist() == [pytest.approx(np.mean(DATA["k"]))]
    assert counts.emmeans("k", cov_reduce=False, ddf="z")["k"].tolist() == [0, 1, 2, 3]
    assert counts.emmeans("k", cov_reduce={"k": False}, ddf="z")["k"].tolist() == [0, 1, 2, 3]
    assert counts.emmeans("k", cov_keep=["k"], ddf="z")["k"].tolist() == [0, 1, 2, 3]
    assert counts.emmeans("flag", ddf="z")["flag"].tolist() == ["FALSE", "TRUE"]
    factor = mm.lmm("y ~ factor(k) + (1 | g)", DATA)
    assert factor.emmeans("k", ddf="z")["k"].tolist() == [0, 1, 2, 3]
    assert factor.emmeans("k", ddf="z").pairs()["contrast"][0] == "k0 - k1"


def test_a_covariate_with_two_values_is_averaged_over_both():
    data = {**DATA, "two": np.where(np.arange(240) % 4 == 0, 0.0, 1.0)}
    fit = mm.lmm("y ~ A + two + (1 | g)", data)
    halves = [fit.emmeans("A", at={"two": [v]}, ddf="z")["estimate"] for v in (0.0, 1.0)]
    assert fit.emmeans("A", ddf="z")["estimate"] == pytest.approx(np.mean(halves, axis=0))
    held = fit.emmeans("A", cov_keep=0, ddf="z")["estimate"]
    assert held == pytest.approx(0.25 * halves[0] + 0.75 * halves[1])
    assert fit.emmeans("A", weights="proportional", ddf="z")["estimate"] == pytest.approx(held)


def test_numeric_weights(fit):
    cells = fit.emmeans("A*B", ddf="z")["estimate"].reshape(2, 3)
    means = fit.emmeans("A", weights=[3, 1], ddf="z")
    assert means["estimate"] == pytest.approx(0.75 * cells[0] + 0.25 * cells[1])


def test_offsets():
    data = {**DATA, "o": np.linspace(0.0, 2.0, 240)}
    plain = mm.lmm("y ~ A + (1 | g)", {**data, "y": data["y"] - data["o"]}).emmeans("A", ddf="z")
    for fit in (mm.lmm("y ~ A + offset(o) + (1 | g)", data), mm.lmm("y ~ A + (1 | g)", data, offset="o")):
        means = fit.emmeans("A", ddf="z")
        assert means["estimate"] == pytest.approx(plain["estimate"] + 1.0, rel=1e-6)
        assert fit.emmeans("A", offset=0.0, ddf="z")["estimate"] == pytest.approx(plain["estimate"], rel=1e-6)
        assert means.pairs()["estimate"] == pytest.approx(plain.pairs()["estimate"], rel=1e-6)


def test_intercept_only_model():
    fit = mm.lmm("y ~ 1 + (1 | g)", DATA)
    means = fit.emmeans("1")
    assert means["estimate"] == pytest.approx(fit.beta) and means["term"].tolist() == ["overall"]


def test_redundant_columns_do_not_hide_means():
    fit = mm.lmm("y ~ A + x + w + (1 | g)", {**DATA, "w": 2.0 * DATA["x"] + 1.0})
    assert fit.dropped_columns == ("w",)
    plain = mm.lmm("y ~ A + x + (1 | g)", DATA).emmeans("A", ddf="z")["estimate"]
    assert fit.emmeans("A", ddf="z")["estimate"] == pytest.approx(plain, rel=1e-6)
    assert np.isnan(fit.emmeans("A", at={"x": [1.0]}, ddf="z")["estimate"]).all()


def test_nested_factors():
    rng = np.random.default_rng(1)
    plot = np.repeat(np.arange(5), 24)
    data = {"site": np.array(list("SSTTT"))[plot].tolist(), "plot": [f"p{v}" for v in plot],
            "y": plot + rng.normal(size=120), "g": [f"g{v % 8}" for v in range(120)]}  # fmt: skip
    fit = mm.lmm("y ~ site / plot + (1 | g)", data)
    sites = fit.emmeans("site", ddf="z")
    observed = np.array([np.mean(data["y"][plot == v]) for v in range(5)])
    assert sites["estimate"] == pytest.approx([observed[:2].mean(), observed[2:].mean()], abs=1e-6)
    plots = fit.emmeans("plot", ddf="z")
    assert plots["plot"].tolist() == ["p0", "p1", "p2", "p3", "p4"]
    assert plots["site"].tolist() == list("SSTTT")
    pairs = plots.pairs()
    assert pairs["contrast"].tolist() == ["p0 - p1", "p2 - p3", "p2 - p4", "p3 - p4"]
    assert "the factor compared is nested there" in str(pairs)
    assert np.isnan(fit.emmeans("site", nesting=False, ddf="z")["estimate"]).all()
    named = fit.emmeans("site", nesting={"plot": "site"}, ddf="z")
    assert named["estimate"] == pytest.approx(sites["estimate"])
    joint = fit.joint_tests(ddf="z")
    assert joint["term"].tolist() == ["site", "site:plot"] and joint["num_df"].tolist() == [1, 3]


def test_a_loaded_fit_reads_its_columns(fit, tmp_path):
    fit.save(tmp_path / "fit.mm")
    loaded = mm.load(tmp_path / "fit.mm")
    for weights in ("equal", "proportional"):
        ours = loaded.emmeans("A", weights=weights, ddf="z")["estimate"]
        assert ours == pytest.approx(fit.emmeans("A", weights=weights, ddf="z")["estimate"])
    curve = mm.lmm("y ~ A + log(x) + (1 | g)", DATA)
    curve.save(tmp_path / "curve.mm")
    loaded = mm.load(tmp_path / "curve.mm")
    with pytest.raises(OptionError, match=r"the mean of 'x' cannot be read .* pass data= or at="):
        loaded.emmeans("A")
    expected = curve.emmeans("A", ddf="z")["estimate"]
    assert loaded.emmeans("A", data=DATA, ddf="z")["estimate"] == pytest.approx(expected)
    at = loaded.emmeans("A", at={"x": [np.mean(DATA["x"])]}, ddf="z")["estimate"]
    assert at == pytest.approx(expected)


def test_missing_rows_take_no_part():
    holes = {**DATA, "x": np.where(np.arange(240) < 30, np.nan, DATA["x"])}
    fit = mm.lmm("y ~ A + x + (1 | g)", holes)
    assert f"at x = {np.nanmean(holes['x']):.7g}" in str(fit.emmeans("A", ddf="z"))


# ---------------------------------------------------------------------- scale of the response


def test_ratios_are_consistent():
    """Hard case 23: exp of differences, the same for every base of the logarithm."""
    positive = {**DATA, "y": np.exp(0.2 * DATA["y"])}
    tables = []
    for response in ("log(y)", "log2(y)", "log10(7 * y)"):
        fit = mm.lmm(f"{response} ~ A + (1 | g)", positive)
        means = fit.emmeans("A", type="response", ddf="kr")
        pairs = means.pairs()
        assert pairs["contrast"].tolist() == ["a1 / a2", "a1 / a3", "a2 / a3"]
        assert pairs["estimate"][0] == pytest.approx(means["estimate"][0] / means["estimate"][1])
        assert means.contrast("pairwise", ratios=False)["contrast"][0] == "a1 - a2"
        tables.append(pairs)
    for name in ("estimate", "std_error", "conf_low", "conf_high", "p_value"):
        for other in tables[1:]:
            assert other[name] == pytest.approx(tables[0][name], rel=1e-5)


def test_bias_adjustment_takes_all_random_parts():
    """E exp(eta + b + e): the second-order factor 1 + (total variance)/2."""
    fit = mm.lmm("log(y) ~ 1 + (1 | g)", {**DATA, "y": np.exp(0.1 * DATA["y"])})
    total = fit.sigma**2 * (1 + fit.theta[0] ** 2)
    plain = fit.emmeans("1", type="response", ddf="z")
    adjusted = fit.emmeans("1", type="response", bias_adjust=True, ddf="z")
    assert adjusted["estimate"] == pytest.approx(plain["estimate"] * (1 + total / 2))
    assert adjusted["std_error"] == pytest.approx(plain["std_error"] * (1 + total / 2))


def test_differences_without_a_back_transform_stay_and_say_so():
    fit = mm.lmm("sqrt(y) ~ A + (1 | g)", {**DATA, "y": np.exp(DATA["y"] / 10)})
    pairs = fit.emmeans("A", type="response", ddf="z").pairs()
    assert pairs["estimate"] == pytest.approx(fit.emmeans("A", ddf="z").pairs()["estimate"])
    assert "whose differences have no back-transform" in str(pairs)
    on_response = fit.emmeans("A", ddf="z").regrid()
    m = fit.emmeans("A", type="response", ddf="z")["estimate"]
    assert on_response["estimate"] == pytest.approx(m)
    assert on_response.pairs()["estimate"][0] == pytest.approx(m[0] - m[1])


def test_a_decreasing_transform_keeps_the_order_of_limits():
    fit = mm.lmm("1/y ~ A + (1 | g)", {**DATA, "y": 2.0 + np.exp(DATA["y"] / 10)})
    means = fit.emmeans("A", type="response", ddf="z")
    assert (means["conf_low"] < means["estimate"]).all() and (means["estimate"] < means["conf_high"]).all()
    assert (means["std_error"] > 0).all()


# ---------------------------------------------------------------------- tests, letters, presentation


def test_tests_and_sides(fit):
    means = fit.emmeans("A")
    assert "p_value" not in means.columns
    two, greater, less = (means.test(null=4.0, side=side) for side in ("two-sided", ">", "less"))
    assert greater["p_value"] + less["p_value"] == pytest.approx(1.0)
    assert two["p_value"] == pytest.approx(2 * np.minimum(greater["p_value"], less["p_value"]))
    assert np.isinf(greater["conf_high"]).all() and np.isneginf(less["conf_low"]).all()
    assert two["statistic"] == pytest.approx((means["estimate"] - 4.0) / means["std_error"])
    assert (means.summary(level=0.9)["conf_low"] > means["conf_low"]).all()
    assert (means.summary(adjust="bonferroni")["conf_low"] < means["conf_low"]).all()


def test_table_in_every_form(fit):
    pytest.importorskip("pandas")
    means = fit.emmeans("A | B")
    assert isinstance(means.to_frame(), dict)
    assert means.row("a1")["B"] == "b1" and len(means) == 6 and len(means.rows()) == 6
    assert "<table" in means._repr_html_() and "Satterthwaite" in str(means)
    assert means.extra["linfct"].shape == (6, 8)
    with pytest.raises(AttributeError):
        means.by = ()
    frame = mm.lmm("y ~ A + (1 | g)", __import__("pandas").DataFrame(DATA)).emmeans("A").to_frame()
    assert list(frame.columns) == ["A", "estimate", "std_error", "df", "conf_low", "conf_high"]


# ---------------------------------------------------------------------- errors


def test_errors_name_the_variable_and_the_remedy(fit):
    for call, message in (
        (lambda: fit.emmeans("C"), r"specs: 'C' is not a predictor of the model.*the predictors are A, B, x"),
        (lambda: fit.emmeans("g"), r"'g' is a grouping factor of the random effects, not a predictor"),
        (lambda: fit.emmeans(3), r"specs must be a text such as"),
        (lambda: fit.emmeans("A", at={"q": [1]}), r"at: 'q' is not a predictor"),
        (lambda: fit.emmeans("A", at={"A": ["a9"]}), r"at: 'a9' is not a level of 'A'.*a1, a2, a3"),
        (lambda: fit.emmeans("A", at={"x": ["low"]}), r"at: 'x' is numeric"),
        (lambda: fit.emmeans("A", at={"x": [np.nan]}), r"at: 'x' needs finite numbers"),
        (lambda: fit.emmeans("A", weights="equall"), r"weights='equall' is unknown; available: equal"),
        (lambda: fit.emmeans("A", weights=[1, 2, 3]), r"weights needs 2 numbers >= 0, one for each .* B"),
        (lambda: fit.emmeans("A", level=95), r"level must lie between 0 and 1"),
        (lambda: fit.emmeans("A", adjust="x"), r"adjust='x' is unknown"),
        (lambda: fit.emmeans("A", type="x"), r"type must be 'link' or 'response'"),
        (lambda: fit.emmeans("A", ddf="x"), r"ddf='x' is unknown"),
        (lambda: fit.emmeans("A", cov_reduce="x"), r"cov_reduce must be a function"),
        (lambda: fit.emmeans("A", nesting={"Q": "B"}), r"nesting: 'Q' is not a predictor"),
        (lambda: fit.emmeans("A").contrast("pairz"), r"contrast method 'pairz' is unknown"),
        (lambda: fit.emmeans("A").contrast({"d": [1, -1]}), r"contrast 'd' needs 3 numbers"),
        (lambda: fit.emmeans("A").contrast(by="A"), r"nothing is left to compare within A"),
        (lambda: fit.emmeans("A").contrast(by="B"), r"by: 'B' is not a column of these means; they have A"),
        (lambda: fit.emmeans("A*B").contrast(by="A", simple="A"), r"give by= or simple=, not both"),
        (lambda: fit.emmeans("A*B").contrast(interaction=("poly",)), r"1 methods for 2 variables"),
        (lambda: fit.emmeans("1").pairs(), r"only one mean to compare"),
        (lambda: fit.emmeans("A").test(side="up"), r"side must be 'two-sided'"),
        (lambda: fit.emmeans("A").pairs().cld(), r"cld\(\) needs means"),
        (lambda: fit.emmeans("A").cld(alpha=5), r"alpha must lie between 0 and 1"),
        (lambda: fit.emmeans("A").effect_size(sigma=-1), r"sigma must be a positive number"),
        (lambda: fit.emmeans("A").effect_size(edf=0), r"edf must be a positive number"),
        (lambda: fit.emtrends("A", "B"), r"var: 'B' is a factor and has no slope"),
        (lambda: fit.emtrends("A", "w"), r"var: 'w' is not a predictor"),
        (lambda: fit.emtrends("A", ""), r"var must be the name of a numeric variable"),
        (lambda: fit.emmeans("A").pairs().regrid(), r"regrid\(\) needs means"),
        (lambda: fit.emtrends("A", "x").regrid(), r"regrid\(\) needs means"),
        (lambda: fit.emmeans("A", offset="o"), r"offset must be a finite number, got 'o'"),
        (lambda: fit.emmeans("A", by=5), r"by must be the name of a variable or a list of names, got 5"),
        (lambda: fit.emmeans("A", at=5), r"at must be a dict of values by variable"),
        (lambda: fit.emmeans("A", nesting=5), r"nesting must be a dict"),
        (lambda: fit.emmeans("A", nesting={"A": 3}), r"nesting of 'A' must be the name of a variable"),
        (lambda: fit.emmeans("A", cov_reduce=lambda x: "q"), r"cov_reduce did not return finite numbers for"),
        (lambda: fit.emmeans("A").test(null="a"), r"null must be a finite number"),
        (lambda: fit.emmeans("A").contrast(None), r"a contrast is a method name"),
        (lambda: fit.emmeans("A").contrast("poly", max_degree="a"), r"max_degree must lie between 1 and 2"),
        (lambda: fit.joint_tests(by=3), r"by must be the name of a variable"),
        (lambda: fit.joint_tests(by="Q"), r"by: 'Q' is not a predictor"),
    ):
        with pytest.raises(OptionError, match=message):
            call()


def test_unknown_inverse_of_the_response():
    fit = mm.lmm("scale(y) ~ A + (1 | g)", DATA)
    with pytest.raises(OptionError, match=r"no inverse of the response scale\(y\) is known"):
        fit.emmeans("A", type="response")
    assert np.isfinite(fit.emmeans("A")["estimate"]).all()


def test_a_value_outside_the_domain_is_named():
    fit = mm.lmm("y ~ A + log(x) + (1 | g)", DATA)
    with pytest.raises(mm.errors.DataError, match=r"the fixed part has no value at .*x = -1"):
        fit.emmeans("A", at={"x": [-1]})


def test_matrices_have_no_grid():
    X = np.column_stack([np.ones(240), DATA["x"]])
    fit = mm.LinearMixedModel.from_matrices(
        DATA["y"], X, [mm.RandomTerm("g", (), np.array(DATA["g"]), None, None, "us")]
    ).fit()
    for call in (lambda: fit.emmeans("x"), lambda: fit.emtrends("1", "x"), fit.joint_tests):
        with pytest.raises(OptionError, match="marginal means need a formula"):
            call()
