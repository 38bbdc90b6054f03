"""Joint terms: correlated effects of one row, each of its own level."""

from __future__ import annotations

import numpy as np
import pytest

from mixedmodels.errors import DataError, FormulaError, NewLevelError
from mixedmodels.fit.known import read_known
from mixedmodels.formula import parse, render, variables
from mixedmodels.frame import build
from mixedmodels.frame.state import Encoding

DATA = {
    "y": [1.0, 2.0, 4.0, 3.0, 5.0, 2.5, 3.5],
    "x": [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
    "winner": ["a", "b", "a", "c", "b", "d", "a"],
    "loser": ["b", "c", "c", "d", "a", "a", "b"],
}


def frame_of(term, data=DATA, **options):
    return build(f"y ~ x + {term}", data, **options)


@pytest.mark.parametrize(
    "text",
    ["joint(1 | animal, 1 | dam)", "joint(1 + t | a, 0 + t | b, 1 | c)", "joint(1 | a, 1 | b, matrix = D)"],
)
def test_spelling(text):
    formula = parse(f"y ~ {text}")
    assert parse(str(formula)) == formula
    assert len(formula.bars) == 1
    assert formula.bars[0].structure == "joint"
    assert render(formula.bars[0]) == text.replace("1 + t", "t")


def test_columns_of_the_data():
    assert variables(parse("y ~ joint(1 | a, 1 + t | b)")) == ("y", "a", "t", "b")


def test_levels_of_both_columns():
    term = frame_of("joint(1 | winner, 1 | loser)").design.terms[0]
    assert list(term.levels) == ["a", "b", "c", "d"]
    assert term.names == ("(Intercept)", "loser")
    assert term.group == "winner"
    np.testing.assert_array_equal(term.codes[:3], [[0, 1], [1, 2], [0, 2]])
    assert term.Z is None
    Z = term.matrix(7).toarray()
    np.testing.assert_array_equal(Z.sum(axis=1), 2.0)
    assert Z[0, 0] == Z[0, 3] == 1.0  # a wins, b loses: columns by level, then effect


def test_columns_of_each_part():
    term = frame_of("joint(1 + x | winner, 0 + x | loser)").design.terms[0]
    assert term.names == ("(Intercept)", "x", "loser:x")
    x = np.array(DATA["x"])
    np.testing.assert_array_equal(term.Z, np.column_stack([np.ones(7), x, x]))
    np.testing.assert_array_equal(term.codes[0], [0, 0, 1])


def test_levels_of_a_known_matrix():
    known = read_known({"winner": (np.eye(5) + 0.1, ["e", "d", "c", "b", "a"])})
    term = frame_of("joint(1 | winner, 1 | loser)", relationships=known).design.terms[0]
    assert list(term.levels) == ["e", "d", "c", "b", "a"]
    np.testing.assert_array_equal(term.codes[0], [4, 3])
    assert term.precision is not None
    named = read_known({"D": (np.eye(5) + 0.1, ["e", "d", "c", "b", "a"])})
    other = frame_of("joint(1 | winner, 1 | loser, matrix = D)", relationships=named).design.terms[0]
    assert other.group == "winner:D"
    np.testing.assert_array_equal(other.codes, term.codes)


def test_a_level_that_the_matrix_lacks():
    known = read_known({"winner": (np.eye(3) + 0.1, ["a", "b", "c"])})
    with pytest.raises(DataError, match=r"1 level of 'winner' is not among the ids of known.'winner'.: d"):
        frame_of("joint(1 | winner, 1 | loser)", relationships=known)


def test_whole_numbers_and_texts_are_one_level():
    data = dict(DATA, winner=[1, 2, 1, 3, 2, 4, 1], loser=["2", "3", "3", "4", "1", "1", "2"])
    term = frame_of("joint(1 | winner, 1 | loser)", data).design.terms[0]
    assert term.m == 4
    np.testing.assert_array_equal(term.codes, frame_of("joint(1 | winner, 1 | loser)").design.terms[0].codes)


def test_rows_with_a_missing_level_are_left_out():
    data = dict(DATA, loser=["b", None, "c", "d", "a", "a", "b"])
    frame = frame_of("joint(1 | winner, 1 | loser)", data)
    assert frame.na_counts == {"loser": 1}
    np.testing.assert_array_equal(frame.row_index, [0, 2, 3, 4, 5, 6])
    assert frame.design.terms[0].codes.shape == (6, 2)


def test_new_rows():
    encoding = frame_of("joint(1 + x | winner, 1 | loser)").encoding
    again = Encoding.from_dict(encoding.to_dict())
    new = {"x": [1.0, 2.0], "winner": ["d", "z"], "loser": ["z", None]}
    from mixedmodels.frame.newdata import encode_new

    for state in (encoding, again):
        codes, Z = encode_new(state, new, new_levels="population").terms[0]
        np.testing.assert_array_equal(codes, [[3, 3, -1], [-1, -1, -1]])
        np.testing.assert_array_equal(Z, [[1.0, 1.0, 1.0], [1.0, 2.0, 1.0]])
        codes = encode_new(state, new, new_levels="append").terms[0][0]
        assert codes[0, 2] == codes[1, 0]  # the same new level in either column
        assert codes[1, 2] not in (codes[0, 2], -1)
        assert codes.min() >= 0
        assert not encode_new(state, new, new_levels="missing").rows.any()
        with pytest.raises(NewLevelError, match="new levels in the new data: z"):
            encode_new(state, new)


@pytest.mark.parametrize(
    ("term", "message"),
    [
        ("joint(1 | winner)", "two parts or more on different columns"),
        ("joint(1 | winner, 1 | winner)", "two parts or more on different columns"),
        ("joint(1 | winner, loser)", "takes parts such as '1 | animal'"),
        ("joint(1 | winner, 1 || loser)", "takes parts such as '1 | animal'"),
        ("joint(1 | winner:loser, 1 | loser)", "the name of one column"),
        ("joint(1 | winner/loser, 1 | loser)", "the name of one column"),
        ("joint(1 | winner, 0 | loser)", "no effects"),
        ("joint(1 | winner, . | loser)", "name the columns"),
        ("joint(1 | winner, 1 | loser, matrix = 3)", "matrix = D"),
        ("(1 | winner) + joint(1 | winner, 1 | loser)", "write all its effects into the joint term"),
    ],
)
def test_refused_spellings(term, message):
    with pytest.raises(FormulaError, match=message.replace("|", r"\|")):
        frame_of(term)


def test_generalised_models_have_them():
    from mixedmodels.family import get_family
    from mixedmodels.frame.parts import build_generalised

    data = dict(DATA, y=[1, 2, 0, 3, 1, 0, 2])
    frame = build_generalised(parse("y ~ joint(1 | winner, 1 | loser)"), data, get_family("poisson"))
    own = frame_of("joint(1 | winner, 1 | loser)").design.terms[0]
    np.testing.assert_array_equal(frame.generalised.terms[0].codes, own.codes)
    assert frame.generalised.terms[0].names == own.names
