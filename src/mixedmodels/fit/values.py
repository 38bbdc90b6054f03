"""Linear predictors, fitted values and residuals: arrays in, arrays out."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

import mixedmodels.solver._kernels.crossproducts as kernels
from mixedmodels.errors import OptionError

if TYPE_CHECKING:
    from mixedmodels.design import Design

__all__ = [
    "RESIDUAL_KINDS",
    "add_random_effects",
    "at_all_rows",
    "check_residual_kind",
    "fixed_predictor",
    "quantiles",
    "readonly",
    "relative_factors",
    "residuals",
    "term_contribution",
]

RESIDUAL_KINDS = (
    "response",
    "conditional",
    "marginal",
    "pearson",
    "scaled",
    "normalized",
    "standardized",
    "studentized",
)


_SPELLINGS = {
    "normalised": "normalized",
    "standardised": "standardized",
    "studentised": "studentized",
}


def readonly(array: np.ndarray) -> np.ndarray:
    """The array itself, no longer writable (a copy if it is a view of something else)."""
    if array.base is not None:
        array = array.copy()
    array.setflags(write=False)
    return array


def relative_factors(design: Design, theta: np.ndarray) -> list[list[list[float]]]:
    """Relative factors of the terms as nested lists."""
    out = []
    position = 0
    for term in design.terms:
        count = term.covariance.n_theta
        own = slice(position, position + count)
        part = theta[own] if design.theta_index is None else theta[design.theta_index[own]]
        out.append(term.covariance.factor(part).tolist())
        position += count
    return out


def fixed_predictor(X: np.ndarray, beta: np.ndarray, offset: np.ndarray | None) -> np.ndarray:
    """``X beta + offset``, shape (n,)."""
    eta = X @ beta
    if offset is not None:
        eta += offset
    return eta


def term_contribution(
    codes: np.ndarray, Z: np.ndarray | None, b: np.ndarray, columns: Sequence[int] | None = None
) -> np.ndarray:
    """Row i: ``Z[i] . b[codes[i]]`` over the chosen columns; Z None stands for a column of ones.

    `codes` of shape (n, k) name a level for each column, -1 for none; a sparse matrix is Z itself.
    """
    if not isinstance(codes, np.ndarray):  # a sparse matrix: rows of several levels
        if columns is not None:
            b = b * np.isin(np.arange(b.shape[1]), list(columns))
        return codes @ b.ravel()
    if codes.ndim == 2:  # every column of the row has a level of its own
        out = np.zeros(codes.shape[0])
        for j in range(codes.shape[1]) if columns is None else columns:
            part = np.where(codes[:, j] < 0, 0.0, b[:, j].take(codes[:, j]))
            out += part if Z is None else part * Z[:, j]
        return out
    if Z is None:
        return b[:, 0].take(codes) if columns is None or 0 in columns else np.zeros(codes.shape[0])
    if columns is None and Z.shape[1] > 3:
        return np.einsum("ij,ij->i", Z, b.take(codes, axis=0))
    total = None
    for j in range(Z.shape[1]) if columns is None else columns:
        part = b[:, j].take(codes)
        part *= Z[:, j]
        if total is None:
            total = part
        else:
            total += part
    return np.zeros(codes.shape[0]) if total is None else total


def add_random_effects(eta: np.ndarray, design: Design, b: Sequence[np.ndarray]) -> np.ndarray:
    """``eta + sum_b Z_b b_b`` in place."""
    for term, values in zip(design.terms, b, strict=True):
        if term.several_levels:
            eta += term.matrix(eta.shape[0]) @ np.asarray(values).ravel()
        else:
            kernels.add_effects(eta, term.codes, term.Z, values)
    return eta


def residuals(
    y: np.ndarray, eta: np.ndarray, weights: np.ndarray | None, sigma: float, kind: str
) -> np.ndarray:
    """``y - eta``; times the square root of the weights and over sigma where the kind asks for it."""
    out = y - eta
    if kind in ("pearson", "scaled", "normalized"):
        if weights is not None:
            out *= np.sqrt(weights)
        if kind != "pearson":
            out /= sigma
    return out


def at_all_rows(
    array: np.ndarray, kept: np.ndarray, n_rows: int, zero: np.ndarray | None, filling: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Values of the rows `kept`, and `filling` in the rows `zero`, among all rows; NaN (None) elsewhere.

    Returns
    -------
    values : ndarray, shape (n_rows,) or (n_rows, K)
    used : ndarray of bool, shape (n_rows,)
        Rows kept, and those of weight zero.
    """
    if array.dtype == object:
        out = np.full((n_rows, *array.shape[1:]), None, dtype=object)
    else:
        out = np.full((n_rows, *array.shape[1:]), np.nan)
    out[kept] = array
    used = np.zeros(n_rows, dtype=bool)
    used[kept] = True
    if zero is not None:
        used[zero] = True
        if filling is not None:
            out[zero] = filling
    return out, used


def check_residual_kind(kind: str) -> str:
    """The canonical name of a kind of residual."""
    name = _SPELLINGS.get(kind, kind)
    if name not in RESIDUAL_KINDS:
        raise OptionError(f"residual kind {kind!r} is unknown; available: {', '.join(RESIDUAL_KINDS)}")
    return name


def quantiles(values: np.ndarray, probabilities: Sequence[float]) -> list[float]:
    """R's default (type 7) quantiles in O(n): partial sorting, linear interpolation between neighbours."""
    n = values.shape[0]
    places, shares = _neighbours(n, tuple(probabilities))
    if n <= 2000:
        part = values.copy()
        part.sort()
    else:
        part = np.partition(values, sorted(set(places.tolist())))
    found = part.take(places).tolist()
    lower, upper = found[: len(shares)], found[len(shares) :]
    return [a + f * (b - a) if f > 0.0 else a for a, b, f in zip(lower, upper, shares, strict=True)]


@lru_cache(maxsize=16)
def _neighbours(n: int, probabilities: tuple[float, ...]) -> tuple[np.ndarray, tuple[float, ...]]:
    """Places of the lower, then upper neighbours among n sorted values, and how far between them."""
    places = [p * (n - 1) for p in probabilities]
    lower = [min(int(place), n - 1) for place in places]
    upper = [min(low + 1, n - 1) for low in lower]
    shares = tuple([place - low for place, low in zip(places, lower, strict=True)])
    return readonly(np.array(lower + upper, dtype=np.intp)), shares
