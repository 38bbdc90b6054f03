"""Transforms against R's numbers, on the data of the fit and on new data."""

from __future__ import annotations

import json
import pathlib

import numpy as np
import pytest

from mixedmodels.errors import DataError, FormulaError
from mixedmodels.formula import parse, render
from mixedmodels.frame.contrasts import contrast_matrix
from mixedmodels.frame.expressions import apply, learn
from mixedmodels.frame.transforms.cut import interval_labels
from mixedmodels.frame.transforms.polynomial import evaluate_orthogonal, orthogonal_polynomials
from mixedmodels.frame.transforms.splines import bspline_basis, bspline_derivative, full_knots, natural_basis
from mixedmodels.frame.values import FactorColumn, MatrixColumn

REFERENCES = pathlib.Path(__file__).parents[1] / "references" / "formula"
NUMERIC = json.loads((REFERENCES / "transforms.json").read_text())
FACTORS = json.loads((REFERENCES / "factors.json").read_text())
CUTS = json.loads((REFERENCES / "cut.json").read_text())
X, XNEW = np.array(NUMERIC["x"]), np.array(NUMERIC["xnew"])


def expression(text):
    ((factor,),) = (term.factors for term in parse(f"~{text}").fixed.terms)
    return factor


def columns_and_names(node, value):
    label = render(node)
    if isinstance(value, MatrixColumn):
        return value.values, [label + suffix for suffix in value.suffixes]
    return value[:, None], [label]


@pytest.mark.parametrize("case", NUMERIC["calls"], ids=lambda case: case["call"])
def test_numbers_and_names_as_r(case):
    node = expression(case["call"])
    value, state = learn(node, {"x": X})
    matrix, names = columns_and_names(node, value)
    assert names == case["names"]
    np.testing.assert_allclose(matrix, np.array(case["values"], dtype=float), rtol=1e-10, atol=1e-11)
    new, _ = columns_and_names(node, apply(node, {"x": XNEW}, state))
    np.testing.assert_allclose(new, np.array(case["new"], dtype=float), rtol=1e-10, atol=1e-10)
    for row in range(len(XNEW)):  # the meaning of a row does not depend on its company
        one, _ = columns_and_names(node, apply(node, {"x": XNEW[row : row + 1]}, state))
        np.testing.assert_allclose(one[0], new[row], rtol=1e-13, atol=1e-14)


def data():
    f = np.array(FACTORS["f"])
    levels = ("lo", "mid", "hi")
    codes = np.array([levels.index(label) for label in f], dtype=np.int32)
    return {
        "x": X,
        "f": FactorColumn(codes, levels),
        "g": np.array(FACTORS["g"]),
        "k": np.array(FACTORS["k"]),
    }


@pytest.mark.parametrize("case", FACTORS["calls"], ids=lambda case: case["call"])
def test_factors_and_their_columns_as_r(case):
    node = expression(case["call"])
    value, state = learn(node, data())
    assert isinstance(value, FactorColumn)
    assert list(value.levels) == case["levels"]
    assert value.codes.tolist() == [-1 if code in (None, "NA") else code for code in case["codes"]]
    matrix, names = contrast_matrix(value.contrast, value.levels, value.ordered)
    if "contr.treatment(3" in case["call"]:  # R numbers the levels here; the labels say more
        assert names == ("lo", "hi")
    else:
        assert [render(node) + name for name in names] == case["names"][1:]
    if -1 not in value.codes:
        np.testing.assert_allclose(matrix[value.codes], np.array(case["values"]), atol=1e-12)
    again = apply(node, data(), state)
    assert again.codes.tolist() == value.codes.tolist()
    assert tuple(again.levels) == tuple(value.levels)
    one = apply(node, {name: column_row(column, 3) for name, column in data().items()}, state)
    assert one.codes.tolist() == [value.codes[3]]
    assert (one.ordered, str(one.contrast)) == (value.ordered, str(value.contrast))


def column_row(column, row):
    if isinstance(column, FactorColumn):
        return FactorColumn(column.codes[row : row + 1], column.levels)
    return column[row : row + 1]


@pytest.mark.parametrize("case", CUTS, ids=lambda case: str(case["breaks"]))
def test_cut_labels_as_r(case):
    breaks = np.array(case["breaks"])
    assert list(interval_labels(breaks, 3, True, False)) == case["labels"]
    assert list(interval_labels(breaks, 3, False, True)) == case["left"]
    assert list(interval_labels(breaks, 5, True, False)) == case["five"]


# --- laws


@pytest.mark.parametrize("degree", [1, 2, 3, 5])
def test_bsplines_are_a_partition_of_unity_with_exact_derivatives(degree):
    knots = full_knots(np.array([2.0, 3.0, 7.5]), np.array([0.0, 10.0]), degree)
    x = np.linspace(-1.0, 11.0, 53)
    basis = bspline_basis(x, knots, degree)
    assert basis.shape == (53, 4 + degree)
    np.testing.assert_allclose(basis.sum(axis=1), 1.0, atol=1e-9)
    inside = (x >= 0) & (x <= 10)
    assert (basis[inside] >= 0).all()
    np.testing.assert_allclose(bspline_derivative(x, knots, degree, 1).sum(axis=1), 0.0, atol=1e-8)
    step = 1e-6
    t = np.array([0.5, 2.5, 4.0, 9.0, 10.5])
    numeric = (bspline_basis(t + step, knots, degree) - bspline_basis(t - step, knots, degree)) / (2 * step)
    np.testing.assert_allclose(bspline_derivative(t, knots, degree, 1), numeric, atol=1e-6)


def test_natural_splines_are_linear_outside_and_smooth_at_the_boundary():
    inner, boundary = np.array([3.0, 5.0]), np.array([0.0, 8.0])
    left = natural_basis(np.array([-3.0, -2.0, -1.0, 0.0]), inner, boundary, True)
    np.testing.assert_allclose(np.diff(left, n=2, axis=0), 0.0, atol=1e-12)
    step = 1e-5
    around = natural_basis(np.array([8 - 2 * step, 8 - step, 8.0, 8 + step]), inner, boundary, True)
    np.testing.assert_allclose(
        np.diff(around, axis=0)[0] / step, np.diff(around, axis=0)[-1] / step, atol=1e-6
    )
    # a natural spline space holds every straight line
    x = np.linspace(-2, 10, 30)
    basis = natural_basis(x, inner, boundary, True)
    line = 2.0 - 3.0 * x
    fitted = basis @ np.linalg.lstsq(basis, line, rcond=None)[0]
    np.testing.assert_allclose(fitted, line, atol=1e-9)


@pytest.mark.parametrize("shift", [0.0, 1e6])
def test_orthogonal_polynomials(shift):
    x = np.random.default_rng(5).normal(size=200) + shift
    coefficients, values = orthogonal_polynomials(x, 8)
    np.testing.assert_allclose(values.T @ values, np.eye(8), atol=1e-10)
    np.testing.assert_allclose(values.sum(axis=0), 0.0, atol=1e-10)
    np.testing.assert_allclose(evaluate_orthogonal(x, coefficients), values, atol=1e-10)
    assert (np.corrcoef(x, values[:, 0])[0, 1]) == pytest.approx(1.0)


@pytest.mark.parametrize(
    "text",
    ["scale(x)", "center(x)", "poly(x, 2)", "bs(x, df = 5)", "ns(x, df = 3)", "cut(x, 3)", "I(x - mean(x))"],
)
def test_missing_values_are_skipped_when_learning(text):
    node = expression(text)
    gaps = np.insert(X, [3, 10], np.nan)
    full, _ = learn(node, {"x": X})
    holed, holed_state = learn(node, {"x": gaps})
    if isinstance(full, FactorColumn):
        assert np.flatnonzero(holed.codes < 0).tolist() == [3, 11]
        np.testing.assert_array_equal(np.delete(holed.codes, [3, 11]), full.codes)
        return
    full, holed = columns_and_names(node, full)[0], columns_and_names(node, holed)[0]
    assert np.isnan(holed[[3, 11]]).all()
    np.testing.assert_allclose(np.delete(holed, [3, 11], axis=0), full, rtol=1e-12, atol=1e-13)
    again = columns_and_names(node, apply(node, {"x": gaps}, holed_state))[0]
    np.testing.assert_allclose(again, holed, rtol=1e-9, atol=1e-12)


def test_learnt_numbers_do_not_change_with_new_data():
    node = expression("I((x - mean(x)) / sd(x))")
    value, state = learn(node, {"x": X})
    np.testing.assert_allclose(value, learn(expression("scale(x)"), {"x": X})[0], rtol=1e-12)
    np.testing.assert_allclose(apply(node, {"x": X[:1]}, state), value[:1])


def test_poly_is_invariant_to_units_of_x():
    for factor, shift in [(1e-8, 0.0), (1e8, 3e9), (1.0, 2000.0)]:
        a = learn(expression("poly(x, 3)"), {"x": X})[0].values
        b = learn(expression("poly(x, 3)"), {"x": X * factor + shift})[0].values
        np.testing.assert_allclose(a, b, atol=1e-8)


# --- errors


@pytest.mark.parametrize(
    ("text", "error", "fragment"),
    [
        ("poly(x, 40)", DataError, "more than 40 different values"),
        ("poly(x, 0)", FormulaError, "degree must be a whole number of at least 1"),
        ("poly(x, 1.5)", FormulaError, "whole number"),
        ("poly(f, 2)", DataError, "f is categorical"),
        ("poly(x, degre = 2)", FormulaError, "its arguments are x, degree, raw"),
        ("poly(x, 2, TRUE, 4)", FormulaError, "at most 3"),
        ("poly(x, 2, degree = 3)", FormulaError, "given twice"),
        ("poly(degree = 2)", FormulaError, "'x' is missing"),
        ("poly(x, x)", FormulaError, "must be a constant"),
        ("poly(2, 2)", FormulaError, "needs a column"),
        ("poly(x, raw = 2)", FormulaError, "TRUE or FALSE"),
        ("poly(log(x - 100), 2)", DataError, "all values of log(x - 100) are missing"),
        ("poly(log(x - x), 2)", DataError, "infinite"),
        ("bs(x, df = 2)", FormulaError, "df must be at least 3"),
        ("bs(x, knots = c(2, 40))", DataError, "strictly inside"),
        ("ns(one, df = 3)", DataError, "constant"),
        ("bs(x, Boundary.knots = 3)", DataError, "two different numbers"),
        ("bs(x, knots = 'a')", FormulaError, "knots must be numbers"),
        ("scale(one)", DataError, "constant"),
        ("scale(x, scale = 'a')", FormulaError, "TRUE, FALSE or one number"),
        ("log(f)", DataError, "f is categorical"),
        ("log(x, -2)", FormulaError, "positive"),
        ("I(f + 1)", DataError, "f is categorical"),
        ("I(x + c(1, 2))", FormulaError, "vector of 2 constants"),
        ("I(poly(x, 2) + 1)", DataError, "several columns"),
        ("I(x:k)", FormulaError, "write interactions outside"),
        ("I(x %in% 1:1e9)", FormulaError, "at most 100000"),
        ("I(x || k)", FormulaError, "write '|'"),
        ("I(f < 'a')", FormulaError, "only == and !="),
        ("I('a' + x)", FormulaError, "needs numbers"),
        ("c(x, 1)", FormulaError, "cbind() joins columns"),
        ("cbind(x, 1)", FormulaError, "joins columns"),
        ("cut(x)", FormulaError, "give breaks"),
        ("cut(x, c(1, 1, 2))", FormulaError, "different numbers"),
        ("cut(x, c(0, 5, 10), labels = 'a')", FormulaError, "2 intervals"),
        ("cut(x, c(100, 200))", DataError, "between the breaks"),
        ("relevel(f, ref = 'zzz')", FormulaError, "one of the levels (lo, mid, hi)"),
        ("relevel(f)", FormulaError, "not nothing"),
        ("relevel(factor(k), ref = 2)", FormulaError, "position of level 10"),
        ("relevel(ordered(f), ref = 'lo')", FormulaError, "is ordered"),
        ("factor(f, levels = c('lo', 'lo'))", FormulaError, "twice"),
        ("factor(f, labels = c('u', 'v'))", FormulaError, "3 levels need as many labels"),
        ("C(f, c('u', 'v', 'w'))", FormulaError, "not a vector of numbers"),
        ("C(f, cbind(c(1, 2), c(1, 2, 3)))", FormulaError, "one entry per level"),
        ("round(x, Inf)", FormulaError, "whole number"),
        ("relevel(f, NA)", FormulaError, "one of the levels"),
        ("I(x * (c(1, 2) + c(1, 2, 3)))", FormulaError, "different lengths"),
        ("C(f, foo)", FormulaError, "unknown contrast 'foo'"),
        ("C(poly(x, 2), sum)", FormulaError, "needs a factor"),
        ("I(1)", FormulaError, "is a constant"),
        ("log(TRUE)", FormulaError, "is a constant"),
    ],
)
def test_errors_name_the_call_and_the_remedy(text, error, fragment):
    columns = {**data(), "one": np.ones(X.size)}
    with pytest.raises(error) as caught:
        learn(expression(text), columns)
    assert fragment in str(caught.value)
