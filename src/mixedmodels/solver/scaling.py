"""Internal coordinates: what makes results independent of the units and origins of the data.

Rows are scaled by sqrt(weight). With beta0 the least-squares fit and s the root mean square of its residual,

    y~ = (y - offset - X beta0) / s,     X~ = X T_X  with (1/n) X~'X~ = I,     Z~_b = Z_b T_b,

and everything maps back exactly: ``factor = T_b factor~``, ``beta = beta0 + s T_X beta~``,
``sigma = s sigma~``, ``logdet_RX2 = logdet_RX2~ - 2 log|T_X|``.
A response of 1e10 + noise, years written 2000 + t or dates in seconds therefore cost no digits: the columns
are shifted by the constant column before anything is squared, and badly conditioned Gram matrices are
factored a second time (Cholesky QR, twice).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

import mixedmodels.solver._kernels.crossproducts as kernels
from mixedmodels.errors import IdentifiabilityError

if TYPE_CHECKING:
    from mixedmodels.covariance.base import Covariance
    from mixedmodels.design import Design, RandomTerm

__all__ = ["Standardised", "standardise"]

_EPS = np.finfo(np.float64).eps
_SMALL_P = 12  # above this many columns the passes over the rows go through BLAS
_BLOCK = 2048
_OWN_SHARE = 1e-26  # squared share of a column not explained by the others, below which it is rounding


@dataclass(frozen=True, slots=True, eq=False)
class Standardised:
    """A design in internal coordinates.

    Attributes
    ----------
    y : ndarray, shape (n,)
        ``sqrt(w) (y - offset - X beta0) / y_scale``; all zero if the fixed effects fit the response exactly.
    X : ndarray, shape (n, p)
        ``sqrt(w) X T_X``, C-ordered, orthonormal in the mean.
    sqrt_weights : ndarray, shape (n,), or None
    T_X : ndarray, shape (p, p)
    logdet_T_X : float
        ``log|det T_X|``.
    beta0 : ndarray, shape (p,)
    y_scale : float
    T : tuple of ndarray (k, k) or None
        Per term; None stands for the identity.
    columns : tuple of (Z, mu, D)
        Per term, how a row of Z~ is read: ``sqrt(w) (Z - mu) D``; None stands for ones, zero and identity.
    sum_log_w : float
    notes : tuple of str
    """

    y: np.ndarray
    X: np.ndarray
    sqrt_weights: np.ndarray | None
    T_X: np.ndarray
    logdet_T_X: float
    beta0: np.ndarray
    y_scale: float
    T: tuple[np.ndarray | None, ...]
    columns: tuple[tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None], ...]
    sum_log_w: float
    notes: tuple[str, ...] = ()

    @property
    def perfect_fit(self) -> bool:
        """Whether the fixed effects alone reproduce the response to rounding."""
        return not self.y.any()

    def constant(self, nu: float, reml: bool) -> float:
        """What the criterion in internal coordinates lacks: ``2 nu log s - sum log w [- 2 log|T_X|]``."""
        value = 2.0 * nu * math.log(self.y_scale) - self.sum_log_w
        return value - 2.0 * self.logdet_T_X if reml else value

    def Z(self, term: int) -> np.ndarray:
        """Columns of one term in internal coordinates, shape (n, k) (for tests and small problems)."""
        Z, mu, D = self.columns[term]
        Z = np.ones((self.y.shape[0], 1)) if Z is None else Z
        out = (Z if mu is None else Z - mu) @ (np.eye(Z.shape[1]) if D is None else D)
        return out if self.sqrt_weights is None else out * self.sqrt_weights[:, None]


def standardise(design: Design) -> Standardised:
    """Internal coordinates of a design.

    Parameters
    ----------
    design : Design

    Returns
    -------
    Standardised

    Raises
    ------
    IdentifiabilityError
        A fixed-effects column is a combination of others.

    Examples
    --------
    >>> from mixedmodels.testing import random_design
    >>> std = standardise(random_design(0, "one_slope"))
    >>> bool(abs(std.X.T @ std.X / len(std.y) - np.eye(std.X.shape[1])).max() < 1e-12)
    True
    """
    y = _float64(design.y)
    X = _float64(design.X)
    offset = None if design.offset is None else _float64(design.offset)
    sw, sum_log_w = None, 0.0
    if design.weights is not None:
        weights = _float64(design.weights)
        sw = np.sqrt(weights)
        sum_log_w = float(np.log(weights).sum())
    n, p = X.shape
    rows = kernels.FixedPart(y, X, offset, sw)
    Xt, yt, T, own = np.empty((n, p)), np.empty(n), np.empty((p, p)), np.empty(p)
    if p == 0:
        rows.pack(0, Xt, yt)
        logdet = 0.0
    elif p <= _SMALL_P:
        logdet = rows.orthonormalise(Xt, yt, T, own)
    else:
        logdet = _orthonormalise_blocks(rows, Xt, yt, T, own)
    if p and min(own.tolist()) < _OWN_SHARE:
        name = design.x_names[int(own.argmin())]
        raise IdentifiabilityError(
            f"fixed-effects column {name!r} is a combination of the other columns; drop it from the formula"
        )
    floor = 16.0 * _EPS * rows.rms * math.sqrt(p + 1.0)
    beta0 = np.empty(p)
    s = rows.project(Xt, yt, T, beta0, floor)
    notes = ()
    maps = _term_maps(design, sw)
    result = Standardised(
        yt,
        Xt,
        sw,
        T,
        logdet,
        beta0,
        s,
        tuple(m[0] for m in maps),
        tuple(m[1] for m in maps),
        sum_log_w,
        notes,
    )
    if s == 1.0 and result.perfect_fit:
        object.__setattr__(result, "notes", ("the fixed effects reproduce the response exactly",))
    return result


def _float64(a: np.ndarray) -> np.ndarray:
    """`a` itself when its values are float64 in native order, else a converted copy."""
    if a.dtype == np.float64 and a.dtype.isnative and a.flags.aligned:
        return a
    return np.ascontiguousarray(a, dtype=np.float64)


def _orthonormalise_blocks(rows, Xt: np.ndarray, yt: np.ndarray, T: np.ndarray, own: np.ndarray) -> float:
    """`FixedPart.orthonormalise` for many columns: the same steps with BLAS on blocks of rows."""
    n, p = Xt.shape
    buffer = np.empty((min(n, _BLOCK), p))
    gram, D = np.zeros((p, p)), np.empty((p, p))
    blocks = [(lo, min(lo + _BLOCK, n)) for lo in range(0, n, _BLOCK)]
    for lo, hi in blocks:
        rows.pack(lo, Xt[lo:hi], yt[lo:hi])
        gram += Xt[lo:hi].T @ Xt[lo:hi]
    own[:] = 1.0
    worst = kernels.upper_inverse_factor(gram, float(n), D, own, False)
    T[:] = D
    logdet = float(np.log(np.abs(np.diag(D))).sum())
    for repeat in range(6):
        gram[:] = 0.0
        for lo, hi in blocks:
            block = buffer[: hi - lo]
            block[:] = Xt[lo:hi]
            np.matmul(block, D, out=Xt[lo:hi])
            if worst < 1e-6:
                gram += Xt[lo:hi].T @ Xt[lo:hi]
        if worst >= 1e-6 or repeat == 5:
            return logdet
        worst = kernels.upper_inverse_factor(gram, float(n), D, own, True)
        T[:] = T @ D
        logdet += float(np.log(np.abs(np.diag(D))).sum())
    raise AssertionError("unreachable")


def _is_unstructured(covariance: Covariance) -> bool:
    """Whether every lower-triangular factor is allowed, one parameter an entry."""
    k = covariance.k
    entries = covariance.entries
    size = k * (k + 1) // 2
    return (
        covariance.clip == "block"
        and covariance.n_theta == size
        and entries is not None
        and len(entries) == size
    )


def _term_maps(design: Design, sw: np.ndarray | None) -> list[tuple]:
    """Per term ``(T or None, (Z, mu, D))``; terms that share a parameter share their transformation."""
    terms = design.terms
    if design.theta_index is None:
        return [_map_of(term, sw) for term in terms]
    index = np.asarray(design.theta_index)
    at, params = 0, []
    for term in terms:
        params.append(tuple(int(v) for v in index[at : at + term.covariance.n_theta]))
        at += term.covariance.n_theta
    maps: list[tuple] = []
    for i, term in enumerate(terms):
        linked = [j for j in range(len(terms)) if set(params[i]) & set(params[j])]
        if linked == [i] and len(set(params[i])) == len(params[i]):
            maps.append(_map_of(term, sw))
            continue
        # one scale for all that share (identity if they share in different ways) keeps every structure
        alike = all(
            params[j] == params[i] and terms[j].covariance.name == term.covariance.name for j in linked
        )
        scale = 1.0
        if alike:
            squares = [np.trace(_gram(terms[j], sw)[0]) / terms[j].k for j in linked]
            scale = math.sqrt(sum(squares) / len(squares)) or 1.0
        Z = None if term.Z is None else _float64(term.Z)
        if scale == 1.0:
            maps.append((None, (Z, None, None)))
        else:
            D = np.eye(term.k) / scale
            maps.append((D, (Z, None, D)))
    return maps


def _gram(term: RandomTerm, sw: np.ndarray | None) -> tuple[np.ndarray, int | None]:
    """Mean cross-product of a term's columns and the index of its constant column."""
    if term.Z is None:
        return np.array([[1.0 if sw is None else float(sw @ sw) / sw.shape[0]]]), 0
    return kernels.mean_cross_products(_float64(term.Z), sw)


def _map_of(term: RandomTerm, sw: np.ndarray | None) -> tuple:
    """``(T or None, (Z, mu, D))`` of one term."""
    if term.Z is None and sw is None:
        return None, (None, None, None)
    Z = None if term.Z is None else _float64(term.Z)
    k = term.k
    if Z is not None and _is_unstructured(term.covariance):
        mu, D, T = np.empty(k), np.empty((k, k)), np.empty((k, k))
        own = kernels.lower_transform(Z, sw, mu, D, T)
        if own > 1e-12:
            return T, (Z, mu, D)
        # columns that depend on each other (or are constant zero) keep their shape, only the scale changes
        gram, _ = kernels.mean_cross_products(Z, sw)
        scale = np.sqrt(np.diag(gram))
        D = np.diag(1.0 / np.where(scale > 0.0, scale, 1.0))
        return D, (Z, None, D)
    gram, constant = _gram(term, sw)
    T = np.ascontiguousarray(term.covariance.transform(gram, constant), dtype=np.float64)
    return T, (Z, None, T)
