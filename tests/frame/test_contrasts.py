"""Contrast matrices against R and their defining laws."""

from __future__ import annotations

import json
import pathlib

import numpy as np
import pytest

from mixedmodels.errors import DataError, OptionError
from mixedmodels.frame.contrasts import CONTRASTS, contrast_matrix

REFERENCES = pathlib.Path(__file__).parents[1] / "references" / "formula"
CASES = json.loads((REFERENCES / "contrasts.json").read_text())


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['name']}-{case['m']}")
def test_as_r(case):
    levels = [chr(ord("a") + i) for i in range(case["m"])]
    spec = {key: case[key] for key in ("name", "base", "scores") if key in case}
    for given in (spec, case["name"], "contr." + case["name"]) if len(spec) == 1 else (spec,):
        matrix, names = contrast_matrix(given, levels)
        assert list(names) == case["names"]
        np.testing.assert_allclose(matrix, np.array(case["matrix"]), atol=1e-12)


@pytest.mark.parametrize("name", CONTRASTS)
@pytest.mark.parametrize("m", [2, 3, 5, 12])
def test_every_contrast_spans_the_levels(name, m):
    matrix, names = contrast_matrix(name, list(range(m)))
    assert matrix.shape == (m, m - 1)
    assert len(set(names)) == m - 1
    assert np.linalg.matrix_rank(np.column_stack([np.ones(m), matrix])) == m
    if name in ("sum", "helmert", "poly", "sdif"):
        np.testing.assert_allclose(matrix.sum(axis=0), 0.0, atol=1e-9)


def test_coefficients_mean_what_the_names_say():
    means = np.array([3.0, 5.0, 11.0, 4.0])
    coefficients = {}
    for name in ("sdif", "treatment", "sum"):
        matrix, _ = contrast_matrix(name, "abcd")
        coefficients[name] = np.linalg.solve(np.column_stack([np.ones(4), matrix]), means)
    np.testing.assert_allclose(coefficients["sdif"], [means.mean(), *np.diff(means)])
    np.testing.assert_allclose(coefficients["treatment"], [3.0, *(means[1:] - 3.0)])
    np.testing.assert_allclose(coefficients["sum"], [means.mean(), *(means[:3] - means.mean())])


def test_defaults_and_full_coding():
    assert contrast_matrix(None, ["a", "b"])[1] == ("b",)
    assert contrast_matrix(None, ["a", "b", "c"], True)[1] == (".L", ".Q")
    for spec in (None, "sum", "poly", np.array([[1.0], [2.0]])):
        matrix, names = contrast_matrix(spec, [1.0, 2.5], full=True)
        np.testing.assert_array_equal(matrix, np.eye(2))
        assert names == ("1", "2.5")
    assert contrast_matrix("sum", ["only"], full=True)[0].shape == (1, 1)


def test_treatment_base_by_label_or_position():
    for base in ("b", 2, 2.0, np.int64(2)):
        matrix, names = contrast_matrix({"name": "treatment", "base": base}, ["a", "b", "c"])
        assert names == ("a", "c")
        np.testing.assert_array_equal(matrix[1], 0.0)


def test_user_matrix():
    given = np.array([[-1, 1], [0, -2], [1, 1]])
    matrix, names = contrast_matrix(given, ["a", "b", "c"])
    np.testing.assert_array_equal(matrix, given)
    assert names == ("1", "2")
    assert contrast_matrix({"matrix": given, "names": [".lin", ".quad"]}, ["a", "b", "c"])[1] == (
        ".lin",
        ".quad",
    )
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(given, columns=["u", "v"])
    assert contrast_matrix(frame, ["a", "b", "c"])[1] == ("u", "v")
    matrix[0, 0] = 99.0
    assert given[0, 0] == -1


@pytest.mark.parametrize(
    ("spec", "fragment"),
    [
        ("effects", "choose one of treatment"),
        ({"name": "treatment", "base": "zz"}, "the levels are a, b, c"),
        ({"name": "treatment", "base": 0}, "position from 1 to 3"),
        ({"name": "sum", "base": 1}, "has no base"),
        ({"name": "sum", "scores": [1, 2, 3]}, "has no scores"),
        ({"name": "poly", "scores": [1, 1, 2]}, "3 different"),
        ({"nme": "poly"}, "a mapping holds"),
        (np.eye(3), "shape (3, 2)"),
        (np.array([[1, 1], [1, 2], [1, 3]]), "linearly dependent"),
        (np.array([[1, np.nan], [1, 2], [1, 3]]), "finite"),
        ({"matrix": np.array([[1, 0], [0, 1], [0, 0]]), "names": ["u"]}, "2 names"),
        (object(), "neither a name nor a matrix"),
    ],
)
def test_errors(spec, fragment):
    with pytest.raises(OptionError) as error:
        contrast_matrix(spec, ["a", "b", "c"])
    assert fragment in str(error.value)


@pytest.mark.parametrize("levels", [["a"], []])
def test_too_few_levels(levels):
    with pytest.raises(DataError, match="has no contrasts"):
        contrast_matrix("sum", levels)


def test_too_many_levels_for_polynomials():
    with pytest.raises(OptionError, match="not numerically meaningful"):
        contrast_matrix("poly", list(range(96)))
