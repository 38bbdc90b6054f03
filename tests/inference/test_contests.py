"""Linear hypotheses as arrays, dicts and text."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import mixedmodels as mm
from mixedmodels.inference.fixed.contests import contrast_rows


@pytest.fixture(scope="module")
def fit():
    rng = np.random.default_rng(3)
    n = 120
    data = pd.DataFrame(
        {
            "f": pd.Categorical(rng.choice(["A", "B", "C", "B2"], n)),
            "x": rng.normal(size=n),
            "x y": rng.normal(size=n),
            "g": rng.integers(0, 12, n),
        }
    )
    data["y"] = data.x + rng.normal(size=12)[data.g] + rng.normal(size=n)
    return mm.lmm("y ~ f * x + `x y` + I(x^2) + (1 | g)", data)


def row_of(fit, **weights):
    out = np.zeros(fit.design.p)
    for name, weight in weights.items():
        out[fit.design.x_names.index(name)] = weight
    return out


def test_text_dict_and_array_say_the_same(fit):
    expected = row_of(fit, fB=1, fC=-1)
    for given in (
        "fB - fC = 0",
        "fB = fC",
        "fB-fC",
        "-fC+fB",
        "2*(fB - fC)/2",
        {"fB": 1, "fC": -1},
        expected,
    ):
        rows, values, _ = contrast_rows(fit, given)
        np.testing.assert_allclose(rows, [expected])
        assert values.tolist() == [0.0]
    table = fit.test("fB - fC = 0")
    assert table["contrast"].tolist() == ["fB - fC = 0"]
    one = fit.test("fB - fC", joint=False).rows()[0]
    assert table["statistic"][0] == pytest.approx(one["statistic"] ** 2, rel=1e-10)
    assert table["p_value"][0] == pytest.approx(one["p_value"], rel=1e-10)
    assert table["den_df"][0] == pytest.approx(one["df"], rel=1e-10)


@pytest.mark.parametrize(
    ("text", "weights", "value"),
    [
        ("fB2 = 1", {"fB2": 1}, 1.0),
        ("fB2:x = 2 fB:x", {"fB2:x": 1, "fB:x": -2}, 0.0),
        ("I(x^2) + 0.5 x = 1e-1", {"I(x^2)": 1, "x": 0.5}, 0.1),
        ("(Intercept) = 3 - x", {"(Intercept)": 1, "x": 1}, 3.0),
        ("(fB + fC) / 2 - fB2", {"fB": 0.5, "fC": 0.5, "fB2": -1}, 0.0),
        ("3 == x", {"x": -1}, -3.0),
        ("- - x = 2 * -1", {"x": 1}, -2.0),
    ],
)
def test_text_is_read(fit, text, weights, value):
    rows, values, labels = contrast_rows(fit, text)
    np.testing.assert_allclose(rows, [row_of(fit, **weights)])
    assert values.tolist() == pytest.approx([value])
    assert labels == (text,)


def test_names_with_spaces_and_several_hypotheses(fit):
    spaced = next(name for name in fit.design.x_names if "x y" in name)
    rows, _, _ = contrast_rows(fit, f"{spaced} = 0")
    np.testing.assert_allclose(rows, [row_of(fit, **{spaced: 1})])
    np.testing.assert_allclose(contrast_rows(fit, {"x y": 1})[0], rows)
    rows, values, labels = contrast_rows(fit, "fB = 1, fC = 2; fB2 = 3")
    assert rows.shape == (3, fit.design.p) and values.tolist() == [1.0, 2.0, 3.0] and len(labels) == 3
    rows, values, _ = contrast_rows(fit, "fB = fC = fB2")
    np.testing.assert_allclose(rows, [row_of(fit, fB=1, fC=-1), row_of(fit, fC=1, fB2=-1)])
    rows, values, _ = contrast_rows(fit, ["fB = 1", {"fC": 1}], rhs=[0.5, 2.0])
    assert values.tolist() == [1.5, 2.0]


def test_joint_test_is_the_wald_f(fit):
    L = np.array([row_of(fit, fB=1), row_of(fit, fC=1)])
    rhs = np.array([0.3, -0.2])
    d = L @ fit.beta - rhs
    F = d @ np.linalg.solve(L @ fit.vcov @ L.T, d) / 2.0
    table = fit.test(L, rhs, ddf="residual")
    assert table["statistic"][0] == pytest.approx(F, rel=1e-10)
    assert table["den_df"][0] == 120 - fit.design.p
    np.testing.assert_array_equal(table.extra["L"], L)


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ("fD = 0", r"'fD'.*\(Intercept\), fB"),
        ("fBB", "'fBB'"),
        ({"fD": 1}, "'fD' is not a coefficient"),
        ("fB * fC", "not linear"),
        ("fB +", "missing"),
        ("(fB", "bracket"),
        ("fB / 0", "divide"),
        ("fB = 0 ]", "unexpected"),
        ("`fB", "not closed"),
        ("1 = 2", "zero in all coefficients"),
        ([1.0, 2.0], "one per fixed effect"),
        ("fB = 1, fB = 2", "contradict"),
        ({"fB": "two"}, "weight of 'fB'"),
        ([], "no hypothesis|one per fixed effect"),
        (None, "array of numbers|one per fixed effect"),
        (np.full(9, np.nan), "not finite|one per"),
    ],
)
def test_mistakes_are_named(fit, wrong, match):
    with pytest.raises(mm.OptionError, match=match):
        fit.test(wrong)


def test_rhs_of_wrong_length(fit):
    with pytest.raises(mm.OptionError, match="rhs"):
        fit.test(["fB", "fC"], rhs=[1, 2, 3])


def test_what_cannot_be_estimated_is_refused():
    data = mm.load_dataset("sleepstudy", backend="pandas").assign(twice=lambda d: 2 * d.Days)
    fit = mm.lmm("Reaction ~ Days + twice + (1 | Subject)", data)
    with pytest.raises(mm.OptionError, match=r"'twice'.*cannot be estimated"):
        fit.test("twice")
    both = fit.test("Days + 2 twice", joint=False)
    plain = mm.lmm("Reaction ~ Days + (1 | Subject)", data).test("Days", joint=False)
    assert both["estimate"][0] == pytest.approx(plain["estimate"][0], rel=1e-9)
