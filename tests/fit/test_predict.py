"""Predictions for new rows."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import mixedmodels as mm

FORMULA = "Reaction ~ Days + (Days | Subject)"


def test_predictions_of_the_data_are_the_fitted_values(fit, sleepstudy):
    assert np.allclose(fit.predict(sleepstudy), fit.fitted(), rtol=1e-13)
    assert np.allclose(fit.predict(), fit.fitted())
    assert np.allclose(fit.predict(sleepstudy, re_form="population"), fit.fitted("population"))


def test_known_values(fit):
    # lme4: predict(m, data.frame(Days = 10, Subject = "308")), and with re.form = NA
    new = pd.DataFrame({"Days": [10.0], "Subject": ["308"]})
    assert fit.predict(new) == pytest.approx([450.3256], abs=2e-3)
    assert fit.predict(new[["Days"]], re_form="population") == pytest.approx([356.07796], abs=1e-4)


@pytest.mark.parametrize("none", ["population", "NA", "~0", "~ 0", False, float("nan"), []])
def test_ways_to_say_no_random_effects(fit, none):
    new = {"Days": np.array([0.0, 5.0])}
    expected = fit.beta[0] + fit.beta[1] * new["Days"]
    assert np.allclose(fit.predict(new, re_form=none), expected)


def test_subsets_of_random_effects(fit, sleepstudy):
    whole = fit.fitted()
    population = fit.fitted("population")
    b = fit.ranef_arrays()[0].b
    codes = fit.design.terms[0].codes
    intercepts = fit.predict(sleepstudy, re_form="~ (1 | Subject)")
    assert np.allclose(intercepts, population + b[codes, 0])
    assert np.allclose(fit.fitted("~ (0 + Days | Subject)"), population + b[codes, 1] * sleepstudy["Days"])
    assert np.allclose(fit.fitted("~ (Days | Subject)"), whole)
    assert np.allclose(fit.fitted(["Subject"]), whole)
    assert np.allclose(fit.fitted("Subject"), whole)


def test_subset_of_crossed_terms():
    data = mm.load_dataset("Penicillin", backend="pandas")
    fit = mm.lmm("diameter ~ 1 + (1 | plate) + (1 | sample)", data)
    plate, sample = fit.ranef_arrays()
    codes = fit.design.terms[0].codes
    assert np.allclose(fit.predict(data, re_form=["plate"]), fit.beta[0] + plate.b[codes, 0])
    assert np.allclose(fit.predict(data, re_form=["sample", "plate"]), fit.fitted())
    assert np.allclose(fit.predict(data[["plate"]], re_form="~ (1 | plate)"), fit.fitted(["plate"]))
    assert sample.b.shape == (6, 1)


def test_columns_of_a_factor_slope():
    data = mm.load_dataset("Machines", backend="pandas")
    fit = mm.lmm("score ~ Machine + (Machine | Worker)", data)
    term, codes = fit.design.terms[0], fit.design.terms[0].codes
    b = fit.ranef_arrays()[0].b
    expected = fit.fitted("population") + (term.Z[:, 1:] * b[codes, 1:]).sum(axis=1)
    assert np.allclose(fit.fitted("~ (0 + Machine | Worker)"), expected)


def test_unknown_re_form(fit):
    with pytest.raises(mm.OptionError, match="Subjekt"):
        fit.fitted(["Subjekt"])
    with pytest.raises(mm.OptionError, match="no random effects on 'Item'"):
        fit.fitted("~ (1 | Item)")
    with pytest.raises(mm.OptionError, match="'Weeks' is not among"):
        fit.fitted("~ (Weeks | Subject)")


def test_new_levels(fit):
    new = {"Days": np.array([1.0, 2.0]), "Subject": np.array(["308", "nobody"])}
    with pytest.raises(mm.NewLevelError, match="nobody"):
        fit.predict(new)
    population = fit.predict(new, re_form="population")
    filled = fit.predict(new, new_levels="population")
    assert filled[1] == pytest.approx(population[1])
    assert filled[0] != pytest.approx(population[0])
    missing = fit.predict(new, new_levels="missing")
    assert np.isnan(missing).tolist() == [False, True]
    with pytest.raises(mm.OptionError, match="new_levels"):
        fit.predict(new, new_levels="ignore")


def test_missing_predictors_give_nan(fit):
    new = {"Days": np.array([1.0, np.nan]), "Subject": np.array(["308", "309"])}
    assert np.isnan(fit.predict(new)).tolist() == [False, True]


def test_missing_columns_are_named(fit):
    with pytest.raises(mm.DataError, match="Subject"):
        fit.predict({"Days": np.array([1.0])})
    with pytest.raises(mm.DataError, match="Days"):
        fit.predict({"Subject": np.array(["308"])})


def test_stateful_transforms(sleepstudy):
    fit = mm.lmm("Reaction ~ poly(Days, 2) + (1 | Subject)", sleepstudy)
    for row in (3, 77):
        assert fit.predict(sleepstudy.iloc[[row]]) == pytest.approx(fit.fitted()[[row]], rel=1e-9)


def test_empty_cell_is_not_estimable():
    rng = np.random.default_rng(4)
    a = np.repeat(["p", "q"], 40)
    b = np.tile(["u", "v"], 40)
    keep = ~((a == "q") & (b == "v"))
    g = np.tile(np.arange(8), 10)
    data = pd.DataFrame({"a": a, "b": b, "g": g, "y": rng.standard_normal(80) + g})[keep]
    fit = mm.lmm("y ~ a * b + (1 | g)", data)
    assert any("dropped" in note for note in fit.messages)
    new = {"a": np.array(["q", "q"]), "b": np.array(["u", "v"])}
    with pytest.warns(mm.NotEstimableWarning, match="aq:bv"):
        out = fit.predict(new, re_form="population")
    assert np.isnan(out).tolist() == [False, True]


def test_offset_of_new_rows(sleepstudy):
    data = sleepstudy.assign(o=np.arange(180.0))
    fit = mm.lmm("Reaction ~ Days + offset(o) + (1 | Subject)", data)
    assert np.allclose(fit.predict(data), fit.fitted())
    by_array = mm.lmm("Reaction ~ Days + (1 | Subject)", sleepstudy, offset=np.arange(180.0))
    assert np.allclose(by_array.fitted(), fit.fitted(), rtol=1e-7)
    with pytest.raises(mm.DataError, match="offset"):
        by_array.predict(sleepstudy)
    assert np.allclose(by_array.predict(sleepstudy, offset=np.arange(180.0)), by_array.fitted())


def test_wrong_type(fit, sleepstudy):
    with pytest.raises(mm.OptionError, match="type"):
        fit.predict(sleepstudy, type="terms")
