"""Codes of grouping factors: known answers, then the law that decoding gives back the column."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mixedmodels.frame.factors import (
    InteractionLevels,
    code_column,
    code_integers,
    code_texts,
    drop_unused,
    interact,
    match_interaction,
    match_levels,
    sort_levels,
)
from mixedmodels.frame.labels import level_label
from mixedmodels.frame.values import FactorColumn


def test_labels_are_what_r_prints():
    values = [
        308,
        np.int8(3),
        2.0,
        0.1,
        1e20,
        1e5,
        100000,
        0.1 + 0.2,
        np.float64(2.5),
        np.str_("u"),
        True,
        np.bool_(False),
        "x",
        np.datetime64("2024-03-01T00:00:00"),
    ]
    assert [level_label(v) for v in values] == [
        "308", "3", "2", "0.1", "1e+20", "1e+05", "100000", "0.3", "2.5", "u", "TRUE", "FALSE", "x",
        "2024-03-01",
    ]  # fmt: skip
    assert level_label(np.datetime64("2024-03-01T12:30:00.500")) == "2024-03-01T12:30:00.5"
    assert level_label(np.datetime64("2024-03-01T12:30:00.000")) == "2024-03-01T12:30"


@given(
    hnp.arrays(
        st.sampled_from([np.int8, np.uint8, np.int16, np.int32, np.int64, np.uint64]),
        st.integers(0, 60),
        elements=st.one_of(st.integers(0, 100), st.integers(0, 127)),
    )
)
def test_integers_decode_to_themselves_and_levels_are_sorted(values):
    codes, levels = code_integers(values)
    assert codes.dtype == np.int32
    np.testing.assert_array_equal(levels, np.unique(values))
    np.testing.assert_array_equal(np.asarray(levels)[codes], values)


@pytest.mark.parametrize(
    "values", [[-128, 127, 0], [2**62, -(2**62), 5], [2**63 - 1, -(2**63), 0], [-5, 10**12, -5]]
)
def test_extreme_integers(values):
    column = np.array(values, dtype=np.int64)
    codes, levels = code_integers(column)
    np.testing.assert_array_equal(levels[codes], column)
    if max(map(abs, values)) <= 128:
        codes, levels = code_integers(column.astype(np.int8))
        np.testing.assert_array_equal(levels[codes], column)


@pytest.mark.parametrize("step", [1, 3])
def test_long_columns_are_coded_in_chunks(step):
    values = np.random.default_rng(1).integers(0, 5000, 200_001) * step - 7
    codes, levels = code_integers(values)
    np.testing.assert_array_equal(levels, np.unique(values))
    np.testing.assert_array_equal(levels[codes], values)


@pytest.mark.parametrize("span", [60_000, 10**6, 2**32, 2**40])
@pytest.mark.parametrize("low", [-(10**12), 0, 10**15])
def test_wide_ranges_are_sorted(span, low):
    rng = np.random.default_rng(3)
    values = low + rng.choice(rng.integers(0, span, 3000), 5000)
    values[:2] = low, low + span - 1
    codes, levels = code_integers(values)
    np.testing.assert_array_equal(levels, np.unique(values))
    np.testing.assert_array_equal(levels[codes], values)
    assert codes.dtype == np.int32


def test_floats_with_missing_values_and_whole_numbers():
    factor = code_column(np.array([2.0, np.nan, 1.0, 2.0]))
    assert factor.codes.tolist() == [1, -1, 0, 1]
    assert factor.levels.tolist() == [1, 2]
    factor = code_column(np.array([0.5, np.inf, -0.5]))
    assert factor.codes.tolist() == [1, 2, 0]


def test_texts_sort_by_code_point_and_mixed_objects_by_their_text():
    codes, levels = code_texts(["b", "B", "a", "b"])
    codes, levels = sort_levels(codes, levels)
    assert levels.tolist() == ["B", "a", "b"]
    assert codes.tolist() == [2, 0, 1, 2]
    codes, levels = sort_levels(*code_texts(["10", 9, "a"]))
    assert list(levels) == ["10", "9", "a"]


def test_unused_levels_go_and_order_stays():
    codes, levels, dropped = drop_unused(np.array([2, -1, 0], dtype=np.int32), ("z", "y", "x"))
    assert (codes.tolist(), levels, dropped) == ([1, -1, 0], ("z", "x"), (1,))
    kept = np.array([0, 1], dtype=np.int32)
    assert drop_unused(kept, ("a", "b"))[0] is kept


def test_interaction_has_the_observed_combinations_only():
    a = FactorColumn(np.array([0, 1, 1, 0, -1], dtype=np.int32), ["A", "B"])
    b = FactorColumn(np.array([2, 0, 0, 0, 1], dtype=np.int32), ["x", "y", "z"])
    factor = interact([a, b])
    assert list(factor.levels) == ["A:x", "A:z", "B:x"]
    assert factor.codes.tolist() == [1, 2, 2, 0, -1]
    assert factor.levels[-1] == "B:x"
    assert factor.levels[:2] == ["A:x", "A:z"]


@given(st.lists(st.tuples(*[st.integers(0, 4)] * 3), min_size=1, max_size=40))
def test_interaction_of_three_factors_matches_itself(rows):
    parts = [code_column(np.array(column)) for column in zip(*rows, strict=True)]
    factor = interact(parts)
    labels = [":".join(map(str, row)) for row in rows]
    assert [factor.levels[code] for code in factor.codes] == labels
    assert list(factor.levels) == sorted(set(labels), key=lambda text: tuple(map(int, text.split(":"))))
    again = match_interaction([part.codes for part in parts], factor.levels)
    np.testing.assert_array_equal(again, factor.codes)


def test_large_products_of_levels_do_not_overflow():
    rng = np.random.default_rng(2)
    parts = [FactorColumn(rng.integers(0, 10**6, 500).astype(np.int32), np.arange(10**6)) for _ in range(5)]
    factor = interact(parts)
    np.testing.assert_array_equal(match_interaction([p.codes for p in parts], factor.levels), factor.codes)


def test_new_combinations_and_missing_parts_get_no_code():
    levels = InteractionLevels([["A", "B"], ["x", "y"]], np.array([[0, 0], [1, 1]], dtype=np.int32))
    codes = match_interaction([np.array([0, 0, 1, -1, 1]), np.array([0, 1, 1, 0, -1])], levels)
    assert codes.tolist() == [0, -1, 1, -1, -1]


@pytest.mark.parametrize("new", [[308, 1, 310], [308.0, 1.0, 310.0], ["308", "1", "310"]])
@pytest.mark.parametrize(
    "known", [np.array([308, 310]), np.array(["308", "310"], dtype=object), ("308", "310")]
)
def test_levels_match_by_their_text(new, known):
    column = code_column(np.array(new))
    codes, unknown = match_levels(column, known)
    assert codes.tolist() == [0, -1, 1]
    assert unknown == ("1",)
