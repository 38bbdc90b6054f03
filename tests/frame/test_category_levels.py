"""Categories of data frames as levels: converted when looked at, the same values as before."""

from __future__ import annotations

import numpy as np
import pytest

from mixedmodels.frame.columns import Columns
from mixedmodels.frame.factors import CategoryLevels, drop_unused


def test_categories_of_pandas_are_converted_when_asked_for():
    pandas = pytest.importorskip("pandas")
    column = pandas.Categorical(["b", "a", None, "b"], categories=["b", "a", "c"])
    factor = Columns(pandas.DataFrame({"g": column}))["g"]
    assert isinstance(factor.levels, CategoryLevels)
    assert factor.levels._array is None
    assert len(factor.levels) == 3
    assert factor.codes.tolist() == [0, 1, -1, 0]
    assert list(factor.levels) == ["b", "a", "c"]
    assert factor.levels[1] == "a"
    assert factor.levels[1:].tolist() == ["a", "c"]
    assert np.asarray(factor.levels).dtype == object
    _, kept, dropped = drop_unused(factor.codes, factor.levels)
    assert kept.tolist() == ["b", "a"] and dropped == (2,)


@pytest.mark.parametrize("rows", [4, 4000])
def test_few_and_many_rows_of_polars_are_coded_alike(rows):
    polars = pytest.importorskip("polars")
    texts = (["b", "a", None, "b"] * rows)[:rows]
    frame = polars.DataFrame(
        {"e": polars.Series(texts, dtype=polars.Enum(["b", "a"])), "s": polars.Series(texts)}
    )
    columns = Columns(frame)
    assert columns["e"].codes[:4].tolist() == [0, 1, -1, 0]
    assert list(columns["e"].levels) == ["b", "a"]
    assert columns["s"].codes[:4].tolist() == [1, 0, -1, 1]
    assert list(columns["s"].levels) == ["a", "b"]
    full = frame.drop_nulls()
    assert Columns(full)["s"].codes[:3].tolist() == [1, 0, 1]
