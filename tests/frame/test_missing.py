"""Which rows take part in a fit."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from mixedmodels.errors import DataError, FormulaWarning
from mixedmodels.frame import build


def data(**changes):
    rng = np.random.default_rng(5)
    frame = pd.DataFrame(
        {
            "y": rng.normal(size=40),
            "x": rng.normal(size=40) + 3.0,
            "g": [f"g{i % 8}" for i in range(40)],
            "f": [["u", "v", "w"][i % 3] for i in range(40)],
        }
    )
    for name, (rows, value) in changes.items():
        frame.loc[rows, name] = value
    return frame


FORMULA = "y ~ x + f + (1 | g)"


def test_incomplete_rows_are_left_out_and_counted_by_variable():
    frame = build(FORMULA, data(y=([3], np.nan), x=([3, 4], np.nan), g=([5], None), f=([6, 7], None)))
    assert frame.na_counts == {"y": 1, "x": 2, "f": 2, "g": 1}
    assert frame.design.n == 35
    assert frame.row_index.tolist() == [i for i in range(40) if i not in (3, 4, 5, 6, 7)]
    assert "5 rows with missing values left out (y: 1, x: 2, f: 2, g: 1)" in frame.messages


def test_omitting_rows_equals_fitting_the_rest():
    whole = data(x=([3, 4], np.nan), g=([0], None))
    a, b = build(FORMULA, whole), build(FORMULA, whole.dropna().reset_index(drop=True))
    for name in ("y", "X"):
        np.testing.assert_array_equal(getattr(a.design, name), getattr(b.design, name))
    np.testing.assert_array_equal(a.design.terms[0].codes, b.design.terms[0].codes)
    assert b.kept is None and b.row_index.tolist() == list(range(37))


def test_levels_that_lose_all_rows_disappear():
    frame = build(FORMULA, data(g=([2, 10, 18, 26, 34], None), f=(list(range(2, 40, 3)), None)))
    assert "g2" not in list(frame.design.terms[0].levels)
    assert frame.design.terms[0].codes.max() == 6
    assert frame.design.x_names == ("(Intercept)", "x", "fv")
    nested = build("y ~ x + (1 | f:g)", data(g=([2, 10, 18, 26, 34], None)))
    assert not any("g2" in level for level in nested.design.terms[0].levels)
    assert "g2" not in list(nested.design.terms[0].levels.levels[1])


def test_fail_names_the_columns():
    with pytest.raises(DataError, match=r"missing values \(x: 2\).*na_action"):
        build(FORMULA, data(x=([1, 2], np.nan)), na_action="fail")
    assert build(FORMULA, data(), na_action="fail").design.n == 40


@pytest.mark.parametrize(
    ("name", "match"), [("y", "response y has 1 infinite"), ("x", "column 'x' has 1 infinite")]
)
def test_infinite_values_name_the_column(name, match):
    with pytest.raises(DataError, match=match):
        build(FORMULA, data(**{name: ([2], np.inf)}))


def test_infinite_values_in_rows_left_out_do_not_matter():
    assert build(FORMULA, data(x=([2], -np.inf), y=([2], np.nan))).design.n == 39


def test_infinite_and_undefined_transforms():
    with pytest.raises(DataError, match=r"log\(x\).*infinite"):
        build("y ~ log(x) + (1 | g)", data(x=([2], 0.0)))
    with pytest.warns(FormulaWarning, match=r"log\(x\) is not a number in 1 row .* columns have values"):
        frame = build("y ~ log(x) + (1 | g)", data(x=([2, 3], [-1.0, np.nan])))
    assert frame.na_counts == {"x": 1, "log(x)": 1}


def test_huge_values_are_not_mistaken_for_infinite_ones():
    frame = build(FORMULA, data(x=(list(range(40)), np.linspace(1e200, 3e200, 40))))
    assert frame.design.n == 40 and frame.kept is None and frame.dropped_columns == ()


def test_no_row_left():
    with pytest.raises(DataError, match=r"no row without missing values is left of 40 \(missing: x: 40\)"):
        build(FORMULA, data(x=(slice(None), np.nan)))
    with pytest.raises(DataError, match="no rows"):
        build(FORMULA, data().iloc[:0])
    with pytest.raises(DataError, match="all 40 rows have weight 0"):
        build(FORMULA, data(), weights=np.zeros(40))


def test_weights():
    w = np.ones(40)
    w[[4, 5]] = 0.0
    w[6] = np.nan
    frame = build(FORMULA, data(), weights=w)
    assert frame.design.n == 37
    assert frame.zero_weight_rows.tolist() == [4, 5]
    assert frame.zero_weight_design.X.shape == (2, 4)
    assert frame.na_counts == {"weights": 1}
    assert (frame.design.weights > 0).all()
    assert "2 rows with weight 0 left out of the fit" in frame.messages
    with pytest.raises(DataError, match="negative value \\(-1 in row 3\\)"):
        build(FORMULA, data(), weights=np.where(np.arange(40) == 3, -1.0, 1.0))
    with pytest.raises(DataError, match="weights has 1 infinite"):
        build(FORMULA, data(), weights=np.where(np.arange(40) == 3, np.inf, 1.0))


def test_arrays_of_the_design_do_not_share_memory_with_the_data():
    columns = {
        "y": np.random.default_rng(1).normal(size=20),
        "g": np.arange(20) % 5,
        "w": np.ones(20),
        "o": np.ones(20),
    }
    frame = build("y ~ 1 + (1 | g)", columns, weights="w", offset="o")
    for array in (frame.design.y, frame.design.weights, frame.design.offset, frame.design.terms[0].codes):
        assert not any(np.shares_memory(array, column) for column in columns.values())
