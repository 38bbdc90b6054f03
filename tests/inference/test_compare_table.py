"""The table of `compare`: prints itself, becomes a frame, and says when a test means nothing."""

from __future__ import annotations

import numpy as np
import polars as pl

import mixedmodels as mm

SLEEP = mm.load_dataset("sleepstudy", backend="polars")


def test_it_prints_and_becomes_a_frame_of_the_callers_library():
    one = mm.lmm("Reaction ~ Days + (1 | Subject)", SLEEP, reml=False)
    two = mm.lmm("Reaction ~ Days + (Days | Subject)", SLEEP, reml=False)
    table = mm.compare(two, one)
    assert repr(table) == str(table) and "p_value" in repr(table)
    frame = table.to_frame()
    assert isinstance(frame, pl.DataFrame)
    np.testing.assert_allclose(frame["statistic"][1], one.deviance - two.deviance, rtol=1e-12)
    assert len(table.notes) == 1 and "conservative" in table.notes[0]


def test_models_that_are_not_nested_are_noted():
    rng = np.random.default_rng(1)
    data = SLEEP.with_columns(noise=pl.Series(rng.normal(size=180)), more=pl.Series(rng.normal(size=180)))
    good = mm.lmm("Reaction ~ Days + (1 | Subject)", data, reml=False)
    bad = mm.lmm("Reaction ~ noise + more + (1 | Subject)", data, reml=False)
    table = mm.compare(good, bad)
    assert "not nested" in table.notes[0] and np.isnan(table["p_value"][1])
