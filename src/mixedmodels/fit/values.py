"""Linear predictors, fitted values and residuals: arrays in, arrays out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

import mixedmodels.solver._kernels.crossproducts as kernels
from mixedmodels.errors import OptionError

if TYPE_CHECKING:
    from mixedmodels.design import Design

__all__ = [
    "RESIDUAL_KINDS",
    "add_random_effects",
    "check_residual_kind",
    "fixed_predictor",
    "quantiles",
    "readonly",
    "term_contribution",
]

RESIDUAL_KINDS = ("response", "conditional", "marginal", "pearson", "scaled", "normalized")


def readonly(array: np.ndarray) -> np.ndarray:
    """The array itself, no longer writable (a copy if it is a view of something else)."""
    if array.base is not None:
        array = array.copy()
    array.setflags(write=False)
    return array


def fixed_predictor(X: np.ndarray, beta: np.ndarray, offset: np.ndarray | None) -> np.ndarray:
    """``X beta + offset``, shape (n,)."""
    eta = X @ beta
    if offset is not None:
        eta += offset
    return eta


def term_contribution(
    codes: np.ndarray, Z: np.ndarray | None, b: np.ndarray, columns: Sequence[int] | None = None
) -> np.ndarray:
    """Row i: ``Z[i] . b[codes[i]]`` over the chosen columns; Z None stands for a column of ones."""
    if Z is None:
        return b[:, 0].take(codes) if columns is None or 0 in columns else np.zeros(codes.shape[0])
    if columns is None and Z.shape[1] > 3:
        return np.einsum("ij,ij->i", Z, b.take(codes, axis=0))
    out = None
    for j in range(Z.shape[1]) if columns is None else columns:
        part = b[:, j].take(codes)
        part *= Z[:, j]
        if out is None:
            out = part
        else:
            out += part
    return np.zeros(codes.shape[0]) if out is None else out


def add_random_effects(eta: np.ndarray, design: Design, b: Sequence[np.ndarray]) -> np.ndarray:
    """``eta + sum_b Z_b b_b`` in place."""
    for term, values in zip(design.terms, b, strict=True):
        kernels.add_effects(eta, term.codes, term.Z, values)
    return eta


def check_residual_kind(kind: str) -> str:
    """The canonical name of a kind of residual."""
    name = "normalized" if kind == "normalised" else kind
    if name not in RESIDUAL_KINDS:
        raise OptionError(f"residual kind {kind!r} is unknown; available: {', '.join(RESIDUAL_KINDS)}")
    return name


def quantiles(values: np.ndarray, probabilities: Sequence[float]) -> list[float]:
    """R's default (type 7) quantiles in O(n): partial sorting, linear interpolation between neighbours."""
    n = values.shape[0]
    places = [p * (n - 1) for p in probabilities]
    lower = [min(int(place), n - 1) for place in places]
    upper = [min(low + 1, n - 1) for low in lower]
    if n <= 2000:
        part = values.copy()
        part.sort()
    else:
        part = np.partition(values, sorted({*lower, *upper}))
    out = []
    for place, low, high in zip(places, lower, upper, strict=True):
        a = part.item(low)
        out.append(a + (place - low) * (part.item(high) - a) if place > low else a)
    return out
