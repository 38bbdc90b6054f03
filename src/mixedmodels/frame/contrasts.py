"""Contrast matrices: how the m levels of a factor become m - 1 (or m) columns, with R's column names."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from mixedmodels.errors import DataError, OptionError
from mixedmodels.frame.labels import level_labels

__all__ = ["CONTRASTS", "contrast_matrix", "contrast_name"]

CONTRASTS = ("treatment", "SAS", "sum", "helmert", "poly", "sdif")
"""Contrasts known by name; R's spelling with ``contr.`` in front is understood too."""

_MAX_POLYNOMIAL_LEVELS = 95


def contrast_name(name: str) -> str:
    """Short name of a contrast: ``"contr.sum"`` and ``"sum"`` are both ``"sum"``.

    Raises
    ------
    OptionError
        The name is not among `CONTRASTS`.
    """
    short = name.removeprefix("contr.")
    if short.lower() == "sas":
        return "SAS"
    if short in CONTRASTS:
        return short
    raise OptionError(
        f"unknown contrast {name!r}: choose one of {', '.join(CONTRASTS)}, or give an m x (m-1) matrix"
    )


def contrast_matrix(
    spec: Any, levels: Sequence[Any] | np.ndarray, ordered: bool = False, *, full: bool = False
) -> tuple[np.ndarray, tuple[str, ...]]:
    r"""Coding of a factor: row i holds the columns' values for level i.

    treatment: indicator of each level but the base; SAS: the same with the last level as base;
    sum: indicators, with -1 in the last level; helmert: level j + 1 against the mean of levels 1..j,
    entries (-1, ..., -1, j, 0, ..., 0); poly: orthonormal polynomials in `scores` (1..m);
    sdif: coefficients are differences of successive level means.

    Parameters
    ----------
    spec : None, str, ndarray or mapping
        None: treatment, or poly if `ordered`. A name ("sum" or "contr.sum"). A matrix of shape
        (m, m - 1). A mapping with "name" and "base" (treatment; level or 1-based position) or "scores"
        (poly); or with "matrix" and "names".
    levels : sequence of length m
        The factor's levels.
    ordered : bool
        Whether the factor is ordered.
    full : bool
        One indicator column per level, named by the levels; `spec` plays no role then (R's rule for a factor
        whose margin is absent from the model).

    Returns
    -------
    matrix : ndarray of float64, shape (m, c)
        c = m - 1, or m if `full`.
    names : tuple of str, length c
        What R appends to the factor's name.

    Raises
    ------
    DataError
        A factor with fewer than two levels has no contrasts.
    OptionError
        An unknown name, base or a matrix of the wrong shape or rank.

    Examples
    --------
    >>> contrast_matrix("treatment", ["a", "b", "c"])[1]
    ('b', 'c')
    >>> contrast_matrix("sum", ["a", "b", "c"])[0]
    array([[ 1.,  0.],
           [ 0.,  1.],
           [-1., -1.]])
    """
    m = len(levels)
    labels = level_labels(levels)
    if full:
        return np.eye(m), labels
    if m < 2:
        what = f"only the level {labels[0]!r}" if m else "no level"
        raise DataError(
            f"a factor with {what} has no contrasts: remove it from the formula, or check which rows are used"
        )
    if spec is None:
        spec = "poly" if ordered else "treatment"
    options: Mapping[str, Any] = {}
    if isinstance(spec, Mapping):
        options = spec
        _check_keys(spec)
        if "matrix" in spec:
            return _user_matrix(spec["matrix"], spec.get("names"), labels)
        spec = spec["name"]
    if not isinstance(spec, str):
        return _user_matrix(spec, getattr(spec, "columns", None), labels)
    name = contrast_name(spec)
    if "base" in options and name not in ("treatment",):
        raise OptionError(f"contrast {name!r} has no base: base belongs to treatment contrasts")
    if "scores" in options and name != "poly":
        raise OptionError(f"contrast {name!r} has no scores: scores belong to poly contrasts")
    if name == "treatment":
        return _treatment(labels, _base_index(options.get("base", 1), levels, labels))
    if name == "SAS":
        return _treatment(labels, m - 1)
    numbers = tuple(str(j) for j in range(1, m))
    if name == "sum":
        return np.vstack([np.eye(m - 1), np.full((1, m - 1), -1.0)]), numbers
    if name == "helmert":
        return _helmert(m), numbers
    if name == "poly":
        return _polynomial(m, options.get("scores"))
    return _successive_differences(m), tuple(f"{b}-{a}" for a, b in itertools.pairwise(labels))


def _check_keys(spec: Mapping[str, Any]) -> None:
    allowed = {"matrix", "names"} if "matrix" in spec else {"name", "base", "scores"}
    unknown = sorted(set(spec) - allowed)
    if unknown or not ({"name", "matrix"} & set(spec)):
        raise OptionError(
            f"contrast given as {dict(spec)!r}: a mapping holds 'name' with "
            "'base' or 'scores', or 'matrix' with 'names'"
        )


def _treatment(labels: tuple[str, ...], base: int) -> tuple[np.ndarray, tuple[str, ...]]:
    kept = [i for i in range(len(labels)) if i != base]
    return np.eye(len(labels))[:, kept], tuple(labels[i] for i in kept)


def _base_index(base: Any, levels: Sequence[Any] | np.ndarray, labels: tuple[str, ...]) -> int:
    """Position of the base: a level's label, or a position counted from 1 as in R."""
    if isinstance(base, str):
        if base in labels:
            return labels.index(base)
    elif isinstance(base, (int, float, np.integer, np.floating)) and base in range(1, len(levels) + 1):
        return int(base) - 1
    raise OptionError(
        f"base {base!r} is neither a level nor a position from 1 to "
        f"{len(labels)}; the levels are {_shown(labels)}"
    )


def _shown(labels: Sequence[str], limit: int = 8) -> str:
    text = ", ".join(labels[:limit])
    return text + (f", ... ({len(labels)} in all)" if len(labels) > limit else "")


def _helmert(m: int) -> np.ndarray:
    matrix = np.zeros((m, m - 1))
    for j in range(m - 1):
        matrix[: j + 1, j] = -1.0
        matrix[j + 1, j] = j + 1.0
    return matrix


def _successive_differences(m: int) -> np.ndarray:
    """Inverse of the map from (mean, successive differences) to level means, without the constant column."""
    j = np.arange(1.0, m)
    below = np.arange(m)[:, None] >= j[None, :]
    return np.where(below, j / m, j / m - 1.0)


@lru_cache(maxsize=64)
def _equidistant(m: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """Polynomial contrasts for the scores 1, ..., m, read-only."""
    matrix, names = _polynomial(m, np.arange(1.0, m + 1.0))
    matrix.setflags(write=False)
    return matrix, names


def _polynomial(m: int, scores: Any) -> tuple[np.ndarray, tuple[str, ...]]:
    if scores is None:
        return _equidistant(m)
    scores = np.asarray(scores, dtype=float)
    if scores.shape != (m,) or not np.isfinite(scores).all() or np.unique(scores).size != m:
        raise OptionError(f"scores of poly contrasts must be {m} different finite numbers, one per level")
    if m > _MAX_POLYNOMIAL_LEVELS:
        raise OptionError(
            f"orthogonal polynomials for {m} levels are not numerically meaningful "
            f"(at most {_MAX_POLYNOMIAL_LEVELS}): "
            f"use another contrast, or the numeric scores as a predictor"
        )
    # Late: the transforms need this module.
    from mixedmodels.frame.transforms.polynomial import orthogonal_polynomials

    _, values = orthogonal_polynomials(scores, m - 1)
    names = (".L", ".Q", ".C", *(f"^{j}" for j in range(4, m)))
    return values, names[: m - 1]


def _user_matrix(matrix: Any, names: Any, labels: tuple[str, ...]) -> tuple[np.ndarray, tuple[str, ...]]:
    m = len(labels)
    try:
        matrix = np.array(matrix, dtype=float)
    except (TypeError, ValueError):
        raise OptionError(
            f"contrast {matrix!r} is neither a name nor a matrix of numbers; names are {', '.join(CONTRASTS)}"
        ) from None
    if matrix.ndim == 1:
        matrix = matrix[:, None]
    if matrix.shape != (m, m - 1):
        raise OptionError(
            f"a contrast matrix for the {m} levels {_shown(labels)} has "
            f"shape ({m}, {m - 1}), not {matrix.shape}"
        )
    if not np.isfinite(matrix).all():
        raise OptionError("a contrast matrix must hold finite numbers only")
    if np.linalg.matrix_rank(np.column_stack([np.ones(m), matrix])) < m:
        raise OptionError(
            "the columns of the contrast matrix and the intercept are linearly dependent: "
            "the columns must be independent of each other and of a column of ones"
        )
    if names is None:
        names = tuple(str(j) for j in range(1, m))
    names = tuple(map(str, names))
    if len(names) != m - 1:
        raise OptionError(f"a contrast matrix with {m - 1} columns needs {m - 1} names, not {len(names)}")
    return matrix, names
