"""Profiles of generalised fits: references, refits with parameters held, laws, hard designs."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

import mixedmodels as mm
from mixedmodels.errors import OptionError
from mixedmodels.inference.parameters import parameters_of
from mixedmodels.inference.profile.held import held_for
from mixedmodels.testing.reference_data import read_reference_table

REFERENCES = Path(__file__).parents[1] / "references"
Z2 = 1.959963984540054**2  # quantile of chi-squared with one degree of freedom


@pytest.fixture(scope="module")
def cbpp():
    return mm.load_dataset("cbpp", backend="dict")


def cbpp_fit(cbpp, **options):
    return mm.glmm(
        "incidence ~ period + (1 | herd)", cbpp, **{"family": "binomial", "trials": "size", **options}
    )


@pytest.fixture(scope="module")
def fit(cbpp):
    return cbpp_fit(cbpp)


@pytest.fixture(scope="module")
def counts():
    """Poisson counts with three correlated effects per level."""
    rng = np.random.default_rng(3)
    g = np.repeat(np.arange(40), 12)
    x, w = rng.normal(size=480), rng.normal(size=480)
    b = rng.normal(size=(40, 3)) @ np.array([[0.6, 0.0, 0.0], [0.3, 0.4, 0.0], [-0.2, 0.2, 0.3]]).T
    eta = 0.5 + 0.2 * x + b[g, 0] + b[g, 1] * x + b[g, 2] * w
    return {"y": rng.poisson(np.exp(eta)).astype(float), "x": x, "w": w, "g": g.astype(str)}


def limits(table):
    return {
        name: (low, high)
        for name, low, high in zip(table["term"], table["conf_low"], table["conf_high"], strict=True)
    }


def test_intervals_of_lme4(fit):
    reference = json.loads((REFERENCES / "glmm" / "profile.json").read_text())
    ours = limits(fit.confint("profile"))
    names = {".sig01": "sd_(Intercept)|herd"}
    for name, (low, high) in reference.items():
        mine = ours[names.get(name, name)]
        assert np.allclose(mine, (low, high), atol=1e-3 * (high - low), rtol=0.0), name


@pytest.mark.parametrize(
    "options", [{}, {"nagq": 9}, {"link": "cloglog"}, {"priors": {"period2": ("normal", 0.0, 1.0)}}]
)
def test_fits_with_a_parameter_held_at_its_limits_lie_on_the_contour(cbpp, options):
    fit = cbpp_fit(cbpp, **options)
    for name, ends in limits(fit.confint("profile", parameters=["period2", "sd"])).items():
        for end in ends:
            held = cbpp_fit(cbpp, **options, fixed={name: end})
            assert held.criterion - fit.criterion == pytest.approx(Z2, abs=1e-9)


def test_a_gaussian_model_has_the_profiles_of_the_linear_one():
    """The same likelihood by another algorithm: sds, correlation and residual SD included."""
    data = mm.load_dataset("sleepstudy", backend="dict")
    formula = "Reaction ~ Days + (Days | Subject)"
    ours = mm.glmm(formula, data, family="gaussian").confint("profile")
    linear = mm.lmm(formula, data, reml=False).confint("profile")
    assert ours["term"].tolist()[:-1] == linear["term"].tolist()[:-1]
    for column in ("conf_low", "conf_high"):
        assert np.allclose(ours[column], linear[column], rtol=1e-8)


@pytest.fixture(scope="module")
def salamanders():
    return read_reference_table(REFERENCES / "data", "Salamanders")


def test_coefficients_of_zero_inflation_are_profiled(salamanders):
    fit = mm.glmm("count ~ mined + (1 | site)", salamanders, family="poisson", zero_inflation="~ mined")
    for end in limits(fit.confint("profile", parameters="zi_minedno"))["zi_minedno"]:
        held = fit.update(fixed={"zi_minedno": end})
        assert held.criterion - fit.criterion == pytest.approx(Z2, abs=1e-7)


def test_the_dispersion_is_profiled_in_natural_units(salamanders):
    fit = mm.glmm("count ~ mined + (1 | site)", salamanders, family="nbinom2")
    table = fit.confint("profile", parameters=["dispersion", "disp_(Intercept)"])
    natural, log = limits(table)["dispersion"], limits(table)["disp_(Intercept)"]
    assert np.allclose(np.log(natural), log, rtol=1e-8)
    assert natural[0] < fit.dispersion < natural[1]
    for end in log:
        held = fit.update(fixed={"disp_(Intercept)": end})
        assert held.criterion - fit.criterion == pytest.approx(Z2, abs=1e-7)


def test_a_profile_that_levels_off_has_no_limit_and_says_so(salamanders):
    """Without extra zeros at the unmined sites the likelihood falls by 1.02^2 / 2 only."""
    fit = mm.glmm("count ~ mined + (1 | site)", salamanders, family="nbinom2", zero_inflation="~ mined")
    table = fit.confint("profile", parameters="zi_minedno")
    assert math.isnan(table["conf_low"][0]) and math.isfinite(table["conf_high"][0])
    assert table["note"][0] == "no low limit" and "levels off" in " ".join(table.notes)
    profile = fit.profile("zi_minedno")
    assert profile.curves[0].value[0] > -1e4 and "levels off" in profile.curves[0].notes[0]


def test_the_order_of_the_columns_of_a_term_does_not_matter(counts):
    first = mm.glmm("y ~ x + (x + w | g)", counts, family="poisson")
    second = mm.glmm("y ~ x + (0 + w + x + 1 | g)", counts, family="poisson")
    one = limits(first.confint("profile", parameters="random"))
    two = limits(second.confint("profile", parameters="random"))
    assert len(one) == 6
    for name, ends in one.items():
        left, _, right = name.removeprefix("cor_").removesuffix("|g").partition(".")
        other = two[name] if name in two else two[f"cor_{right}.{left}|g"]
        assert np.allclose(ends, other, rtol=1e-7)


def test_units_of_a_covariate_do_not_matter(counts):
    plain = limits(mm.glmm("y ~ x + (x | g)", counts, family="poisson").confint("profile"))
    scaled = dict(counts, x=1e4 * counts["x"])
    other = limits(mm.glmm("y ~ x + (x | g)", scaled, family="poisson").confint("profile"))
    assert np.allclose(np.array(plain["x"]), 1e4 * np.array(other["x"]), rtol=1e-6)
    assert np.allclose(np.array(plain["sd_x|g"]), 1e4 * np.array(other["sd_x|g"]), rtol=1e-6)
    cor = "cor_x.(Intercept)|g"
    assert np.allclose(plain[cor], other[cor], rtol=1e-6)


@pytest.mark.parametrize("name", ["x", "sd_(Intercept)|g", "sd_w|g", "cor_w.x|g"])
def test_slope_and_curvature_are_the_derivatives_of_the_profile(counts, name):
    fit = mm.glmm("y ~ x + (x + w | g)", counts, family="poisson")
    held = held_for(fit, next(p for p in parameters_of(fit) if p.name == name))
    start = held.estimate()
    assert start.criterion == pytest.approx(fit.criterion, abs=1e-8)
    assert abs(start.slope) < 1e-3 * math.sqrt(start.curvature)
    u, h = start.u + 1.5 / math.sqrt(0.5 * start.curvature), 1e-4
    there = held.at(u, start)
    up, down = held.at(u + h, there), held.at(u - h, there)
    assert there.slope == pytest.approx((up.criterion - down.criterion) / (2.0 * h), rel=1e-6)
    assert there.curvature == pytest.approx((up.slope - down.slope) / (2.0 * h), rel=1e-4)


def test_curves_hold_all_parameters_along_the_way(fit):
    profile = fit.profile(["period2", "sd"])
    frame = profile.to_frame()
    rows = np.array(frame["parameter"]) == "period2"
    assert np.array_equal(np.array(frame["period2"])[rows], np.array(frame["value"])[rows])
    middle = np.flatnonzero(rows & (np.array(frame["zeta"]) == 0.0))
    assert np.allclose([np.array(frame[p.name])[middle[0]] for p in parameters_of(fit)],
                       [p.estimate for p in parameters_of(fit)], rtol=1e-6)  # fmt: skip
    zeta = profile.zeta("period2", np.array(limits(profile.confint())["period2"]))
    assert np.allclose(zeta, [-1.959964, 1.959964], atol=1e-3)


def test_a_variance_of_zero_has_its_bound_as_limit(cbpp):
    fit = cbpp_fit(cbpp, family="betabinomial")
    assert fit.is_singular
    table = fit.confint("profile", parameters="sd")
    assert table["conf_low"][0] == 0.0 and 0.3 < table["conf_high"][0] < 2.0
    assert table["note"][0] == "low at bound"
    held = cbpp_fit(cbpp, family="betabinomial", fixed={"sd_(Intercept)|herd": table["conf_high"][0]})
    assert held.criterion - fit.criterion == pytest.approx(Z2, abs=1e-7)


def test_nagq_0_is_profiled_by_laplace_and_says_so(cbpp, fit):
    table = cbpp_fit(cbpp, nagq=0).confint("profile", parameters="period2")
    assert limits(table)["period2"] == pytest.approx(limits(fit.confint("profile"))["period2"], rel=1e-8)
    assert "nagq=1" in " ".join(table.notes)


def test_held_parameters_are_left_out(cbpp):
    fit = cbpp_fit(cbpp, fixed={"period2": -1.0})
    table = fit.confint("profile")
    assert "period2" not in table["term"].tolist()
    assert any(note.startswith("period2: held") for note in table.notes)
    with pytest.raises(OptionError, match="period2"):
        fit.profile("period2")


def test_restricted_terms_are_refused_by_name(counts):
    fit = mm.glmm("y ~ x + (x | g)", counts, family="poisson", fixed={"g.x.(Intercept)": 0.0})
    assert limits(fit.confint("profile", parameters="x"))
    with pytest.raises(OptionError, match=r"sd_x\|g cannot be profiled: fixed="):
        fit.profile("sd_x|g")


def test_there_is_no_restricted_likelihood(fit):
    with pytest.raises(OptionError, match="no restricted likelihood"):
        fit.profile(criterion="reml")


def test_crossed_factors(cbpp):
    data = read_reference_table(REFERENCES / "data", "Contraception")
    formula = "use ~ urban + (1 | district) + (1 | livch)"
    fit = mm.glmm(formula, data, family="binomial")
    for name, ends in limits(fit.confint("profile", parameters=["urbanY", "sd_(Intercept)|livch"])).items():
        for end in ends:
            held = mm.glmm(formula, data, family="binomial", fixed={name: end})
            assert held.criterion - fit.criterion == pytest.approx(Z2, abs=1e-6)
