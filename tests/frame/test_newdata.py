"""New data get the columns the model was fitted with."""

from __future__ import annotations

import numpy as np
import pandas as pd
import polars as pl
import pytest

from mixedmodels.errors import DataError, NewLevelError, OptionError
from mixedmodels.frame import build

RNG = np.random.default_rng(4)
N = 90
DATA = pd.DataFrame(
    {
        "y": RNG.normal(size=N),
        "x": RNG.normal(size=N) * 2.0 + 2000.0,
        "f": np.resize(["u", "v", "w"], N),
        "g": RNG.integers(0, 9, N),
        "h": np.resize(["k", "l"], N),
    }
)
FORMULAS = [
    "y ~ x * f + (x | g)",
    "y ~ poly(x, 3) + h + (poly(x, 2) | g) + (1 | g:h)",
    "y ~ scale(x) + C(f, sum) + (scale(x) || g)",
    "y ~ ns(x, 3) + f:h + (0 + h | g)",
    "y ~ log(x) + factor(h) + offset(x) + (f | g)",
]


@pytest.mark.parametrize("formula", FORMULAS)
def test_single_rows_of_the_data_give_back_their_rows(formula):
    frame = build(formula, DATA, sigma_fixed=True)
    design = frame.design
    for i in (0, 17, 89):
        new = frame.new_data(DATA.iloc[[i]].drop(columns="y"))
        np.testing.assert_allclose(new.X[0], design.X[i], rtol=1e-12, atol=1e-12)
        for term, (codes, Z) in zip(design.terms, new.terms, strict=True):
            assert codes.tolist() == [term.codes[i]] and codes.dtype == np.int32
            if term.Z is not None:
                np.testing.assert_allclose(Z[0], term.Z[i], rtol=1e-12, atol=1e-12)
        if design.offset is not None:
            assert new.offset[0] == design.offset[i]


def test_new_groups():
    frame = build("y ~ x + (x | g)", DATA)
    new = pd.DataFrame({"x": [1.0, 2.0, 3.0], "g": pd.array([3, 77, None], dtype="Int64")})
    with pytest.raises(NewLevelError, match="'g' has new levels in the new data: 77; use"):
        frame.new_data(new)
    allowed = frame.new_data(new, new_levels="population")
    assert allowed.terms[0][0].tolist() == [3, -1, -1] and allowed.rows.all()
    masked = frame.new_data(new, new_levels="missing")
    assert masked.rows.tolist() == [True, False, False]
    assert masked.X.shape == (3, 2)
    with pytest.raises(NewLevelError, match=r"missing in 1 rows of the new data \(first in row 1\)"):
        frame.new_data(new.iloc[[0, 2]])
    with pytest.raises(NewLevelError, match=r"12 in all"):
        frame.new_data({"x": np.ones(12), "g": np.arange(100, 112)})
    all_missing = frame.new_data({"x": [1.0], "g": [None]}, new_levels="population")
    assert all_missing.terms[0][0].tolist() == [-1]
    with pytest.raises(OptionError, match="new_levels"):
        frame.new_data(new, new_levels="zero")


def test_new_combinations():
    data = DATA[~((DATA.g == 3) & (DATA.h == "l"))]
    frame = build("y ~ x + (1 | g:h)", data)
    new = {"x": [1.0, 1.0, 1.0], "g": [3, 3, 55], "h": ["k", "l", "k"]}
    with pytest.raises(NewLevelError, match="new levels in the new data: 3:l, 55:k;"):
        frame.new_data(new)
    codes = frame.new_data(new, new_levels="population").terms[0][0]
    assert codes.tolist()[1:] == [-1, -1] and frame.design.terms[0].levels[codes[0]] == "3:k"


def test_new_level_of_a_fixed_factor():
    frame = build("y ~ f + (1 | g)", DATA)
    with pytest.raises(NewLevelError, match=r"factor 'f' has the new level 'z'.*levels of the fit: u, v, w"):
        frame.new_data({"f": ["u", "z"], "g": [1, 1]})
    frame = build("y ~ x + (0 + f | g)", DATA, sigma_fixed=True)
    with pytest.raises(NewLevelError, match="'f'"):
        frame.new_data({"x": [1.0], "f": ["z"], "g": [1]})


def test_missing_columns():
    frame = build("y ~ x + (1 | g) + (1 | h)", DATA)
    with pytest.raises(DataError, match=r"no column 'g'.*re_form=.none"):
        frame.new_data({"x": [1.0], "h": ["k"]})
    population = frame.new_data({"x": [1.0]}, need_groups=False)
    assert population.terms == (None, None)
    assert frame.new_data({"x": [1.0]}, re_form="none").X.tolist() == [[1.0, 1.0]]
    for name in ("h", "(1 | h)", "1|h"):
        codes, Z = frame.new_data({"x": [1.0], "h": ["l"]}, re_form=[name]).terms[1]
        assert codes.tolist() == [1] and Z is None
    with pytest.raises(OptionError, match="no random term 'k'"):
        frame.new_data({"x": [1.0]}, re_form=["k"])
    with pytest.raises(DataError, match="no column 'x'"):
        frame.new_data({"z": [1.0]}, re_form="none")


def test_missing_values_mask_their_rows():
    frame = build("y ~ x + f + (x | g)", DATA)
    new = frame.new_data({"x": [1.0, np.nan, 2.0], "f": ["u", "v", None], "g": [1, 1, 1]})
    assert new.rows.tolist() == [True, False, False]
    assert np.isnan(new.X[1:]).all() and np.isfinite(new.X[0]).all()
    assert np.isnan(new.terms[0][1][1:]).all()


def test_kind_of_a_column_may_not_change():
    frame = build("y ~ x + (1 | g)", DATA)
    with pytest.raises(DataError, match="'x' was numeric in the fit but holds labels"):
        frame.new_data({"x": ["a"], "g": [1]})


def test_groups_match_whatever_their_type():
    frame = build("y ~ x + (1 | g)", DATA)
    for g in ([4], [4.0], ["4"], pd.Categorical([4]), np.array([4], dtype=np.uint8)):
        assert frame.new_data({"x": [1.0], "g": g}).terms[0][0].tolist() == [4]
    assert frame.new_data(pl.DataFrame({"x": [1.0], "g": ["4"]})).terms[0][0].tolist() == [4]


def test_empty_cells_are_not_estimable():
    data = DATA[~((DATA.f == "w") & (DATA.h == "l"))]
    frame = build("y ~ f * h + (1 | g)", data)
    assert frame.dropped_columns == ("fw:hl",)
    grid = pd.DataFrame([(f, h, 1) for f in "uvw" for h in "kl"], columns=["f", "h", "g"])
    new = frame.new_data(grid)
    assert new.estimable.tolist() == [True, True, True, True, True, False]
    assert new.X.shape == (6, 5)


def test_dependent_columns_can_be_predicted_where_the_dependence_holds():
    data = DATA.assign(x2=3.0 * DATA.x - 7.0)
    frame = build("y ~ x + x2 + (1 | g)", data)
    new = frame.new_data({"x": [2001.0, 2001.0], "x2": [5996.0, 5997.0], "g": [1, 1]})
    assert new.estimable.tolist() == [True, False]
    assert build("y ~ x + (1 | g)", data).new_data({"x": [1.0], "g": [1]}).estimable is None


def test_offsets_of_new_data():
    frame = build("y ~ f + (1 | g)", DATA, offset="x")
    assert frame.new_data({"f": ["u"], "g": [1], "x": [5.0]}).offset.tolist() == [5.0]
    frame = build("y ~ f + offset(x) + (1 | g)", DATA, offset=np.ones(N))
    with pytest.raises(DataError, match="fitted with an array as offset"):
        frame.new_data({"f": ["u"], "g": [1], "x": [5.0]})
    assert frame.new_data({"f": ["u"], "g": [1], "x": [5.0]}, offset=[2.0]).offset.tolist() == [7.0]


def test_rows_with_weight_zero_can_be_predicted():
    w = np.ones(N)
    w[[4, 50]] = 0.0
    whole = build("y ~ x + f + (x | g)", DATA)
    frame = build("y ~ x + f + (x | g)", DATA, weights=w, offset=np.arange(N))
    left = frame.zero_weight_design
    np.testing.assert_array_equal(left.X, whole.design.X[[4, 50]])
    assert left.offset.tolist() == [4.0, 50.0]
    levels = frame.design.terms[0].levels
    assert [levels[c] for c in left.terms[0][0]] == DATA.g[[4, 50]].tolist()


def test_no_rows():
    frame = build("y ~ x + f + (x | g)", DATA)
    new = frame.new_data(DATA.iloc[:0])
    assert new.X.shape == (0, 4) and new.n == 0 and new.terms[0][0].shape == (0,)


def test_lazy_new_data():
    frame = build("y ~ x + f + (x | g)", DATA)
    lazy = pl.from_pandas(DATA).lazy().drop("y")
    np.testing.assert_array_equal(frame.new_data(lazy).X, frame.design.X)
