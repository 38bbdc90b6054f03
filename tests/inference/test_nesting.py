"""Which random and fixed parts lie inside which."""

from __future__ import annotations

import numpy as np
import pytest

import mixedmodels as mm
from mixedmodels.inference.likelihood.nesting import nested_random, span_of

SLEEP = mm.load_dataset("sleepstudy", backend="pandas").assign(
    shifted=lambda d: 3 * d["Days"] - 7, half=lambda d: (d["Days"] > 4).map({True: "late", False: "early"})
)
MACHINES = mm.load_dataset("Machines", backend="pandas")


def design(random, data=SLEEP, fixed="Reaction ~ Days"):
    return mm.LinearMixedModel(f"{fixed} + {random}", data).design


@pytest.mark.parametrize(
    ("small", "large", "new"),
    [
        ("(1 | Subject)", "(Days | Subject)", 1),
        ("(0 + Days | Subject)", "(Days | Subject)", 1),
        ("(Days || Subject)", "(Days | Subject)", 0),
        ("(1 | Subject) + (0 + Days | Subject)", "(Days | Subject)", 0),
        ("(Days | Subject)", "(shifted | Subject)", 0),
        ("(shifted | Subject)", "(Days + half | Subject)", 1),
        ("(1 | Subject)", "(Days || Subject)", 1),
        ("(1 | Subject)", "(0 + half | Subject)", 1),
        ("(1 | Subject) + (1 | Subject:half)", "(0 + half | Subject)", 0),
        ("(1 | Subject)", "(1 | Subject) + (1 | half)", 1),
        ("(1 | Subject)", "(1 + Days + half | Subject)", 2),
    ],
)
def test_contained(small, large, new):
    found = nested_random(design(small), design(large))
    assert found.missing == () and found.new_dimensions == new


@pytest.mark.parametrize(
    ("small", "large"),
    [
        ("(Days | Subject)", "(Days || Subject)"),  # a correlation is not in a diagonal structure
        ("(0 + shifted | Subject)", "(Days || Subject)"),  # nor an uncorrelated slope of another origin
        ("(1 | half)", "(Days | Subject)"),
        ("(Days | Subject)", "(1 | Subject)"),
        ("(1 | Subject:half)", "(1 | Subject)"),
    ],
)
def test_not_contained(small, large):
    assert nested_random(design(small), design(large)).missing == (0,)


def test_groups_by_another_name_are_the_same_groups():
    data = SLEEP.assign(who=SLEEP["Subject"].astype(str).map(lambda s: "s" + s[::-1]))
    assert nested_random(design("(1 | who)", data), design("(Days | Subject)", data)).missing == ()


def test_a_finer_factor_inside_effects_of_its_levels():
    small = design("(1 | Worker) + (1 | Worker:Machine)", MACHINES, "score ~ Machine")
    large = design("(0 + Machine | Worker)", MACHINES, "score ~ Machine")
    found = nested_random(small, large)
    assert found.missing == () and found.new_dimensions == 0


def test_spans_and_the_determinant_between_two_bases():
    rng = np.random.default_rng(2)
    X = np.column_stack([np.ones(40), 2000 + rng.normal(size=(40, 2))])
    C = rng.normal(size=(3, 3))
    one, two = span_of(X), span_of(X @ C)
    assert one.contains(X @ C) and not one.contains(rng.normal(size=(40, 1)))
    assert one.logdet_from(two) == pytest.approx(np.linalg.slogdet(C)[1], abs=1e-8)
