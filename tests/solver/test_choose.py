"""The choice of a solver and its errors."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from mixedmodels.errors import OptionError
from mixedmodels.solver.choose import choose_solver, solver_choice
from mixedmodels.testing import random_design


@pytest.mark.parametrize(
    ("kind", "name", "reason"),
    [
        ("one_slope", "grouped", "one grouping factor"),
        ("three_terms_one_group", "grouped", "one grouping factor"),
        ("two_crossed", "blocked", "2 grouping factors: g, h"),
        ("crossed_two_terms", "blocked", "2 grouping factors: g, h"),
        ("precision", "blocked", "known precision.*g"),
    ],
)
def test_auto_follows_the_structure(kind, name, reason):
    chosen, why = solver_choice(random_design(1, kind))
    assert chosen == name
    assert re.search(reason, why)


def test_sparse_is_built_on_request_and_for_rows_of_several_levels():
    design = random_design(1, "two_crossed")
    assert choose_solver(design, "sparse").name == "sparse"
    first = design.terms[0]
    wide = replace(first, codes=np.column_stack([first.codes, first.codes[::-1]]), names=("a", "b"))
    several = replace(design, terms=(wide, design.terms[1]))
    assert solver_choice(several) == ("sparse", "rows touch several levels of g")
    assert solver_choice(several, "dense")[0] == "dense"
    with pytest.raises(OptionError, match=r"those of 'g' touch several: use solver=\"sparse\""):
        solver_choice(several, "blocked")


def test_dense_is_built_on_request():
    solver = choose_solver(random_design(1, "two_crossed"), "dense")
    assert (solver.name, solver.reason) == ("dense", "asked for")


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("one_slope", "cholmod", "unknown solver 'cholmod'; choose one of auto, dense"),
        ("two_crossed", "grouped", r"this model has 2 \(g, h\)"),
        ("precision", "grouped", "known precision of 'g'"),
    ],
)
def test_impossible_requests_get_one_clear_error(kind, name, message):
    with pytest.raises(OptionError, match=message):
        solver_choice(random_design(1, kind), name)
