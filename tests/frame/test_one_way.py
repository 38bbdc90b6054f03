"""Shortcuts of one-way layouts: no rank test, texts of categories converted once."""

import numpy as np
import pandas as pd
import pytest

import mixedmodels as mm
from mixedmodels.errors import MixedModelsError
from mixedmodels.formula import parse
from mixedmodels.frame import build


def data(n=24):
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "y": rng.normal(size=n),
            "f": pd.Categorical(np.tile(["a", "b", "c"], n // 3), categories=["a", "b", "c", "unused"]),
            "g": np.repeat(np.arange(n // 4), 4),
        }
    )


def test_a_one_way_layout_has_full_rank_and_keeps_only_levels_with_rows():
    frame = build(parse("y ~ f + (1 | g)"), data())
    assert frame.design.x_names == ("(Intercept)", "fb", "fc")
    assert np.linalg.matrix_rank(frame.design.X) == 3


def test_dependence_beside_the_factor_is_still_found():
    table = data().assign(x=lambda t: (t["f"] == "b") * 2.0)
    frame = build(parse("y ~ f + x + (1 | g)"), table)
    assert frame.dropped_columns == ("x",)


def test_renamed_categories_are_other_categories():
    table = data()
    first = build(parse("y ~ f + (1 | g)"), table).design.x_names
    table["f"] = table["f"].cat.rename_categories({"b": "B"})
    assert build(parse("y ~ f + (1 | g)"), table).design.x_names == ("(Intercept)", "fB", "fc")
    assert first == ("(Intercept)", "fb", "fc")


@pytest.mark.parametrize("bad", [-1.0, 0.5])
def test_cbind_still_refuses_what_no_count_is(bad):
    table = {"s": [1.0, 2.0, bad, 3.0], "m": [1.0, 1.0, 2.0, 4.0], "g": ["a", "a", "b", "b"]}
    with pytest.raises(MixedModelsError, match="cbind"):
        mm.glmm("cbind(s, m) ~ 1 + (1 | g)", table, family="binomial")
