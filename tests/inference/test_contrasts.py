"""Coefficients and names of contrasts."""

import numpy as np
import pytest

from mixedmodels.errors import OptionError
from mixedmodels.inference.means.contrasts import (
    CONTRASTS,
    contrast_set,
    integer_polynomials,
    orthonormal_polynomials,
)

LABELS = ["a", "b", "c", "d"]


@pytest.mark.parametrize("method", sorted(set(CONTRASTS) - {"identity"}))
@pytest.mark.parametrize("k", [2, 3, 5, 7])
def test_contrasts_sum_to_zero(method, k):
    found = contrast_set(method, [f"l{i}" for i in range(k)])
    assert found.C.shape == (len(found.names), k)
    assert np.abs(found.C.sum(axis=1)).max() < 1e-12
    assert len(set(found.names)) == len(found.names) == len(found.ratio_names)


def test_pairwise_and_reverse():
    found = contrast_set("pairwise", LABELS[:3])
    assert found.names == ("a - b", "a - c", "b - c") and found.ratio_names[0] == "a / b"
    assert found.C.tolist() == [[1, -1, 0], [1, 0, -1], [0, 1, -1]]
    assert contrast_set("revpairwise", LABELS[:3]).names == ("b - a", "c - a", "c - b")
    assert contrast_set("tukey", LABELS[:3]).names == ("b - a", "c - a", "c - b")


def test_controls():
    assert contrast_set("trt.vs.ctrl", LABELS[:3], ref="b").names == ("a - b", "c - b")
    assert contrast_set("trt.vs.ctrl", LABELS[:3], ref=-1).names == ("a - c", "b - c")
    assert contrast_set("dunnett", LABELS[:3]).names == ("b - a", "c - a")
    assert contrast_set("trt.vs.ctrlk", LABELS[:3]).names == ("a - c", "b - c")
    assert contrast_set("trt.vs.ctrl", ["x-1", "y"], ref="x-1").names == ("y - (x-1)",)


def test_other_names():
    assert contrast_set("consec", LABELS[:3]).names == ("b - a", "c - b")
    assert contrast_set("mean_chg", LABELS[:3]).C.tolist() == [[-1, 0.5, 0.5], [-0.5, -0.5, 1]]
    assert contrast_set("del.eff", LABELS[:3]).C[0].tolist() == [1, -0.5, -0.5]
    assert contrast_set("helmert", LABELS[:3]).C.tolist() == [[-1, 1, 0], [-0.5, -0.5, 1]]
    assert contrast_set("identity", LABELS).C.tolist() == np.eye(4).tolist()


def test_published_polynomials():
    """Fisher & Yates (1963), table XXIII: orthogonal polynomials for 5, 6 and 7 equidistant points."""
    assert contrast_set("poly", ["1"] * 5).C.tolist() == [
        [-2, -1, 0, 1, 2], [2, -1, -2, -1, 2], [-1, 2, 0, -2, 1], [1, -4, 6, -4, 1],
    ]  # fmt: skip
    assert contrast_set("poly", ["1"] * 6).C[:3].tolist() == [
        [-5, -3, -1, 1, 3, 5], [5, -1, -4, -4, -1, 5], [-5, 7, 4, -4, -7, 5],
    ]  # fmt: skip
    assert contrast_set("poly", ["1"] * 7, max_degree=2).C.tolist() == [
        [-3, -2, -1, 0, 1, 2, 3], [5, 0, -3, -4, -3, 0, 5],
    ]  # fmt: skip
    assert contrast_set("poly", ["1"] * 6).names[:5] == (
        "linear",
        "quadratic",
        "cubic",
        "quartic",
        "degree 5",
    )


def test_polynomials_of_unequal_scores_are_orthonormal():
    Q = orthonormal_polynomials(np.array([0.0, 1.0, 10.0, 11.0]), 3)
    assert pytest.approx(np.eye(3), abs=1e-12) == Q @ Q.T
    assert pytest.approx(Q) == contrast_set("opoly", LABELS, scores=[0, 1, 10, 11]).C
    irrational = np.array([[1.0, np.sqrt(2.0), -1.0 - np.sqrt(2.0)]])
    assert integer_polynomials(irrational) == pytest.approx(irrational)


def test_given_contrasts():
    named = contrast_set({"late": [-1, -1, 1, 1], "ends": [-1, 0, 0, 1]}, LABELS)
    assert named.names == ("late", "ends") and named.C[1].tolist() == [-1, 0, 0, 1]
    assert contrast_set([[1, -1, 0, 0]], LABELS).names == ("c1",)
    made = contrast_set(lambda labels: {f"{labels[0]} only": [1, 0, 0, 0]}, LABELS)
    assert made.names == ("a only",)


def test_errors_name_the_remedy():
    with pytest.raises(OptionError, match=r"'pairwse' is unknown; did you mean 'pairwise'\?"):
        contrast_set("pairwse", LABELS)
    with pytest.raises(OptionError, match=r"contrast 'x' needs 4 numbers, one for each of a, b, c, d"):
        contrast_set({"x": [1, -1]}, LABELS)
    with pytest.raises(OptionError, match="a contrast is a method name"):
        contrast_set(object(), LABELS)
    with pytest.raises(OptionError, match=r"ref='z' is not one of the means: a, b, c, d"):
        contrast_set("trt.vs.ctrl", LABELS, ref="z")
    with pytest.raises(OptionError, match="ref must be a label or a position between 0 and 3"):
        contrast_set("trt.vs.ctrl", LABELS, ref=4)
    with pytest.raises(OptionError, match="does not take ref="):
        contrast_set("poly", LABELS, ref="a")
    with pytest.raises(OptionError, match="max_degree must lie between 1 and 3"):
        contrast_set("poly", LABELS, max_degree=9)
    with pytest.raises(OptionError, match="scores must be 4 different numbers"):
        contrast_set("poly", LABELS, scores=[1, 1, 2, 3])
