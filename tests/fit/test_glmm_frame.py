"""Frames of all linear predictors of a generalised model, and new data for them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import mixedmodels as mm
from mixedmodels.family import get_family
from mixedmodels.family.poisson import Poisson
from mixedmodels.fit.glmm_checks import family_of, part_formula, with_parts
from mixedmodels.formula import parse
from mixedmodels.frame.parts import build_generalised, coefficient_names, new_predictors

SLEEP_DISPERSION = -891.911879303  # tests/references/glmm/responses.R
SLEEP_CONDITIONAL = (252.833763, 10.092993)


class TwoParts(Poisson):
    """Stands for a family with three predictors, the last a parameter of its own."""

    name = "two_parts"
    predictors = ("conditional", "zero_inflation", "power")


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(7)
    n = 48
    return pd.DataFrame(
        {
            "y": rng.poisson(3.0, n).astype(float),
            "x": rng.normal(size=n),
            "z": rng.normal(size=n),
            "e": rng.uniform(1.0, 2.0, n),
            "f": np.tile(["a", "b", "c"], 16),
            "g": np.repeat([f"g{i}" for i in range(8)], 6),
            "h": np.tile([f"h{i}" for i in range(6)], 8),
        }
    )


def build(data, formula="y ~ x + (1 | g)", zero="~ f + offset(e) + (z | g) + (1 | h)", **keywords):
    return build_generalised(
        parse(formula), data, TwoParts(), parts={"zero_inflation": parse(zero)}, **keywords
    )


def test_names_of_all_coefficients(data):
    design = build(data).generalised
    assert design.gamma_names == ("(Intercept)", "x", "zi_(Intercept)", "zi_fb", "zi_fc", "power")
    assert [p.name for p in design.predictors] == ["conditional", "zero_inflation", "power"]
    assert [p.columns.tolist() for p in design.predictors] == [[0, 1], [2, 3, 4], [5]]
    assert design.predictors[2].X is None
    assert design.term_predictor == (0, 1, 1)
    assert [t.names for t in design.terms] == [
        ("(Intercept)",),
        ("zi_(Intercept)", "zi_z"),
        ("zi_(Intercept)",),
    ]
    assert coefficient_names("df", ("(Intercept)", "x")) == ("df", "df_x")


def test_columns_and_offset_of_a_part_are_those_of_its_formula(data):
    predictor = build(data).generalised.predictors[1]
    f = data["f"].to_numpy()
    np.testing.assert_array_equal(predictor.X, np.column_stack([np.ones(48), f == "b", f == "c"]))
    np.testing.assert_array_equal(predictor.offset, data["e"])


def test_parts_share_the_codes_of_a_grouping_factor(data):
    for change in (data, data.assign(g=data["g"].astype("category")), data.iloc[3:].assign(x=lambda d: d.x)):
        terms = build(change).generalised.terms
        assert terms[0].codes is terms[1].codes and terms[0].levels is terms[1].levels
    missing = data.copy()
    missing.loc[[1, 5], "z"] = np.nan
    terms = build(missing).generalised.terms
    assert terms[0].codes is terms[1].codes


def test_a_row_missing_in_one_part_is_missing_in_all_and_counted_once(data):
    missing = data.copy()
    missing.loc[[1, 5], "z"] = np.nan
    missing.loc[[5, 9], "x"] = np.nan
    frame = build(missing)
    assert frame.na_counts == {"x": 2, "z": 2}
    assert frame.messages[0] == "3 rows with missing values left out (x: 2, z: 2)"
    part = frame.parts["zero_inflation"]
    assert frame.design.n == part.design.n == 45
    np.testing.assert_array_equal(frame.kept, part.kept)
    whole = build(missing.drop(index=[1, 5, 9]))
    for a, b in zip(frame.generalised.predictors[:2], whole.generalised.predictors[:2], strict=True):
        np.testing.assert_array_equal(a.X, b.X)
    with pytest.raises(mm.DataError, match=r"x: 2, z: 2"):
        build(missing, na_action="fail")


def test_levels_lost_with_missing_rows_are_lost_in_all_parts(data):
    missing = data.copy()
    missing.loc[missing["g"] == "g3", "z"] = np.nan
    missing.loc[missing["f"] == "c", "x"] = np.nan
    frame = build(missing)
    assert all(term.m == 7 for term in frame.generalised.terms[:2])
    assert frame.generalised.gamma_names == ("(Intercept)", "x", "zi_(Intercept)", "zi_fb", "power")
    assert any("factor f: dropped 1 level" in note for note in frame.messages)


def test_contrasts_hold_in_all_formulas(data):
    frame = build(data, "y ~ f + (1 | g)", contrasts={"f": "sum"})
    assert frame.generalised.gamma_names[3:5] == ("zi_(Intercept)", "zi_f1")
    frame = build(data, contrasts={"f": "sum"})  # f is in the part only
    assert "zi_f1" in frame.generalised.gamma_names
    with pytest.raises(mm.DataError, match="'q', which is not a factor"):
        build(data, contrasts={"q": "sum"})


def test_shared_parameters_keep_those_of_parts_apart(data):
    frame = build(data, "y ~ x + (1 | g) + (1 | h)", share=[["g", "h"]])
    np.testing.assert_array_equal(frame.generalised.theta_index, [0, 0, 1, 2, 3, 4])
    assert build(data).generalised.theta_index is None


def test_dependent_columns_of_a_part_are_dropped_and_named(data):
    frame = build(data.assign(x2=2 * data["x"]), zero="~ x + x2")
    assert frame.generalised.gamma_names == ("(Intercept)", "x", "zi_(Intercept)", "zi_x", "power")
    assert any("dropped 1 column: x2" in note for note in frame.messages)


def test_new_data_for_all_predictors_need_no_response(data):
    frame = build(data)
    new = data.drop(columns="y").iloc[[40, 3, 17]]
    found = new_predictors(frame, new)
    design = frame.generalised
    assert len(found) == 3
    for made, predictor in zip(found[:2], design.predictors[:2], strict=True):
        np.testing.assert_allclose(made.X, predictor.X[[40, 3, 17]])
    np.testing.assert_allclose(found[1].offset, data["e"].to_numpy()[[40, 3, 17]])
    np.testing.assert_array_equal(found[2].X, np.ones((3, 1)))
    terms = [term for made in found for term in made.terms]
    for (codes, Z), term in zip(terms, design.terms, strict=True):
        np.testing.assert_array_equal(codes, term.codes[[40, 3, 17]])
        if term.Z is None:
            assert Z is None
        else:
            np.testing.assert_allclose(Z, term.Z[[40, 3, 17]])


def test_new_data_with_chosen_terms_new_levels_and_missing_values(data):
    frame = build(data)
    new = data.iloc[:3].drop(columns=["y", "h"]).assign(g=["g0", "new", "g1"], z=[0.0, 1.0, np.nan])
    conditional, zero, _ = new_predictors(frame, new, terms=[0, 1], new_levels="population")
    assert zero.terms[1] is None
    np.testing.assert_array_equal(conditional.terms[0][0], [0, -1, 1])
    np.testing.assert_array_equal(conditional.rows, [True, True, False])  # z is in the other formula only
    np.testing.assert_array_equal(zero.rows, conditional.rows)
    with pytest.raises(mm.NewLevelError, match="new"):
        new_predictors(frame, new, terms=[0])
    none = new_predictors(frame, new.drop(columns="g"), terms=[])
    assert none[0].terms == (None,) and none[1].terms == (None, None)


def test_rows_of_weight_zero_have_columns_in_every_part(data):
    w = np.ones(48)
    w[[2, 30]] = 0.0
    frame = build(data.assign(w=w), weights="w")
    assert frame.zero_weight_design.n == frame.parts["zero_inflation"].zero_weight_design.n == 2
    np.testing.assert_allclose(
        frame.parts["zero_inflation"].zero_weight_design.offset, data["e"].to_numpy()[[2, 30]]
    )
    assert frame.generalised.data.weights.shape == (46,)


def test_random_terms_may_be_in_a_part_alone(data):
    frame = build(data, "y ~ x", "~ (1 | g)")
    assert frame.generalised.term_predictor == (1,)
    with pytest.raises(mm.FormulaError, match="no random-effects term"):
        build(data, "y ~ x", "~ z")


def test_dispersion_formula_against_glmmtmb():
    sleep = mm.load_dataset("sleepstudy", backend="dict")
    fit = mm.glmm("Reaction ~ Days + (1 | Subject)", sleep, dispersion="~ Days")
    assert fit.loglik == pytest.approx(SLEEP_DISPERSION, rel=1e-8)
    np.testing.assert_allclose(fit.beta, SLEEP_CONDITIONAL, rtol=1e-5)
    assert fit.generalised.gamma_names[2:] == ("disp_(Intercept)", "disp_Days")


# Values of tests/references/glmm/responses.R (glmmTMB).
PARTS = [
    (
        "incidence ~ period + (1 | herd)",
        {"family": "poisson", "zero_inflation": "~ offset(size / 100) + scale(size)"},
        -89.883285712,  # a second maximum, -91.162, is where glmmTMB ends from its own start
        {"zi_(Intercept)": -8.2524483, "zi_scale(size)": -6.9842238},
    ),
    (
        "incidence ~ offset(log(size))",
        {"family": "poisson", "zero_inflation": "~ (1 | period)"},
        -103.772066103,
        {"period.zi_(Intercept)": 0.682859},
    ),
    (
        "cbind(incidence, size - incidence) ~ period + (1 | herd)",
        {"family": "betabinomial", "dispersion": "~ scale(size)"},
        -87.909807675,
        {"disp_(Intercept)": 2.495099, "disp_scale(size)": -0.255085},
    ),
]


@pytest.mark.parametrize(("formula", "options", "loglik", "estimates"), PARTS)
def test_formulas_of_parts_against_glmmtmb(formula, options, loglik, estimates):
    fit = mm.glmm(formula, mm.load_dataset("cbpp", backend="dict"), **options)
    assert fit.loglik == pytest.approx(loglik, rel=1e-8)
    found = dict(zip((*fit.generalised.gamma_names, *fit.theta_names), fit.psi.tolist(), strict=True))
    for name, value in estimates.items():
        assert found[name] == pytest.approx(value, rel=1e-4)


def test_zero_inflation_may_be_true(data):
    a = mm.glmm("y ~ x + (1 | g)", data, family="poisson", zero_inflation=True)
    b = mm.glmm("y ~ x + (1 | g)", data, family="poisson", zero_inflation="~ 1")
    assert a.loglik == b.loglik and a.generalised.gamma_names[-1] == "zi_(Intercept)"
    assert a.generalised.predictors[1].X is None


def test_zeros_of_positive_families_become_a_hurdle():
    rng = np.random.default_rng(3)
    t, g = np.exp(rng.normal(size=80)), np.repeat(np.arange(16), 5)
    t[rng.uniform(size=80) < 0.2] = 0.0
    whole = mm.glmm("t ~ 1 + (1 | g)", {"t": t, "g": g}, family="lognormal", zero_inflation="~ 1")
    above = mm.glmm("t ~ 1 + (1 | g)", {"t": t[t > 0], "g": g[t > 0]}, family="lognormal")
    share = np.mean(t == 0.0)
    zeros = 80 * (share * np.log(share) + (1 - share) * np.log(1 - share))
    assert whole.loglik == pytest.approx(above.loglik + zeros, rel=1e-9)


def test_gaussian_with_identity_link_is_the_linear_model():
    sleep = mm.load_dataset("sleepstudy", backend="dict")
    formula = "Reaction ~ Days + (Days | Subject)"
    fit = mm.glmm(formula, sleep)
    assert fit.loglik == pytest.approx(mm.lmm(formula, sleep, reml=False).loglik, rel=1e-9)
    assert any("lmm fits it by REML" in note for note in fit.messages)
    assert not any("lmm" in note for note in mm.glmm(formula, sleep, dispersion="~ Days").messages)


# -------------------------------------------------------------------------------------------- families


@pytest.mark.parametrize(
    ("spelling", "name"),
    [("Poisson", "poisson"), ("BINOMIAL", "binomial"), ("normal", "gaussian"), (Poisson, "poisson")],
)
def test_spellings_of_families(spelling, name):
    assert family_of(spelling).name == name
    assert family_of(Poisson("sqrt")).link.name == "sqrt"


def test_formulas_of_parts():
    assert part_formula("dispersion", "~1") is None
    assert str(part_formula("dispersion", "~ x + (1 | g)")) == "~x + (1 | g)"
    gaussian = get_family("gaussian")
    family, parts = with_parts(gaussian, "~1", None)
    assert family is gaussian and not parts
    family, parts = with_parts(gaussian, None, "~ 0")
    assert family is gaussian and not parts
    assert set(with_parts(gaussian, "~ x", False)[1]) == {"dispersion"}
    with pytest.raises(mm.OptionError, match="takes the zeros away"):
        with_parts(TwoParts(), "~1", "~0")
