"""Whether one model lies inside another: spans of fixed parts, random terms within random terms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.solver.precision import same_covariance

if TYPE_CHECKING:
    from mixedmodels.design import Design, RandomTerm

__all__ = ["RandomNesting", "Span", "nested_random", "nested_residual", "span_of"]

_TOLERANCE = 1e-8


@dataclass(frozen=True, slots=True, eq=False)
class Span:
    """Column space of a fixed-effects matrix X = QR."""

    Q: np.ndarray
    R: np.ndarray

    def contains(self, columns: np.ndarray) -> bool:
        """Whether all columns (n, r) lie in the space, to rounding of their lengths."""
        rest = columns - self.Q @ (self.Q.T @ columns)
        rest -= self.Q @ (self.Q.T @ rest)
        sizes = np.sqrt(np.einsum("ij,ij->j", columns, columns))
        return bool((np.sqrt(np.einsum("ij,ij->j", rest, rest)) <= _TOLERANCE * sizes).all())

    def logdet_from(self, other: Span) -> float:
        """``log|det C|`` where the other matrix is ``X C``; both span the same space."""
        return float(np.linalg.slogdet(self.Q.T @ other.Q)[1]) + float(
            np.log(np.abs(np.diagonal(other.R))).sum() - np.log(np.abs(np.diagonal(self.R))).sum()
        )


def span_of(X: np.ndarray) -> Span:
    """The column space of X, shape (n, p), of full column rank."""
    Q, R = np.linalg.qr(X)
    return Span(Q, R)


@dataclass(frozen=True, slots=True)
class RandomNesting:
    """How the random part of a small model lies in that of a large one.

    Attributes
    ----------
    missing : tuple of int
        Terms of the small model that no term of the large one could be shown to contain.
    new_dimensions : int
        Random-effect directions (variances) of the large model that the small one does not have: so many
        variances lie on the boundary where the small model is true.
    """

    missing: tuple[int, ...]
    new_dimensions: int


def nested_random(small: Design, large: Design) -> RandomNesting:
    r"""Match each random term of the small model with one of the large model that contains it.

    Term s is inside term l if both have the same groups and :math:`Z_s = Z_l C`, with a structure of l that
    allows :math:`C \Sigma_s C'`. An intercept of finer groups, ``(1 | g:f)``, is inside ``(0 + f | g)``.
    """
    directions: list[list[np.ndarray]] = [[] for _ in large.terms]
    missing = []
    for i, term in enumerate(small.terms):
        for j, other in enumerate(large.terms):
            C = _inside(term, other)
            if C is not None:
                directions[j].append(C)
                break
        else:
            missing.append(i)
    if large.theta_index is not None and small.theta_index is None and len(small.terms) > 1:
        missing = list(range(len(small.terms)))  # shared variances need not allow separate ones
    new = 0
    for term, found in zip(large.terms, directions, strict=True):
        dimensions = 1 if term.covariance.clip == "trace" else term.k
        rank = int(np.linalg.matrix_rank(np.column_stack(found))) if found else 0
        new += max(dimensions - rank, 0)
    return RandomNesting(tuple(missing), new)


# Correlations of visits or times that other ones contain, at the same columns.
_CONTAINED = {
    "cs": {"toep", "corr", "us"},
    "ar1": {"arma", "toep", "ad", "corr", "us"},
    "toep": {"corr", "us"},
    "ad": {"corr", "us"},
    "corr": {"us"},
}


def nested_residual(small: Design, large: Design) -> bool | None:
    """Whether the residual structure of the small model is a case of that of the large one.

    True where it has some of the same factors, or a correlation that one of the large model contains:
    independence is a correlation of 0, equal variances are ratios of 1, inside the ranges and not on their
    boundary. None where nothing is known.
    """
    mine, other = _factors(small), _factors(large)
    for text, factor in mine.items():
        if text in other:
            continue
        if not any(_factor_inside(factor, one) for one in other.values()):
            return None
    new = [factor for text, factor in other.items() if text not in mine]
    return None if any(factor.fixed or factor.tag in ("varfixed", "known") for factor in new) else True


def _factor_inside(factor: Any, one: Any) -> bool:
    """Whether a factor of a residual structure is a case of `one`: a larger correlation, finer strata."""
    by, other = getattr(factor, "by", None), getattr(one, "by", None)
    if by is None and other is not None and str(one).replace(f", by={other}", "") == str(factor):
        return True
    if factor.tag == one.tag == "varident":
        mine, theirs = (set(":".join(item.covariates).split(":")) for item in (factor, one))
        return mine < theirs
    columns = ("group",) if factor.tag == "cs" else ("group", "covariates")
    return (
        one.tag in _CONTAINED.get(factor.tag, set())
        and by in (None, other)
        and all(getattr(one, name) == getattr(factor, name) for name in columns)
    )


def _factors(design: Design) -> dict[str, Any]:
    """The factors of the residual structure by their text."""
    return {str(factor): factor for factor in getattr(design.residual, "factors", ())}


def _inside(term: RandomTerm, other: RandomTerm) -> np.ndarray | None:
    """C, shape (k_other, r), with the effects of `term` being ``C`` times those of `other`; else None."""
    if term.several_levels or other.several_levels:
        return None
    if not same_covariance(term.precision, other.precision):
        return None
    same = _same_partition(term.codes, other.codes, term.m, other.m)
    if not same:
        return _finer_inside(term, other)
    Z, W = _columns(term), _columns(other)
    C, *_ = np.linalg.lstsq(W, Z, rcond=None)
    sizes = np.sqrt(np.einsum("ij,ij->j", Z, Z))
    rest = Z - W @ C
    if (np.sqrt(np.einsum("ij,ij->j", rest, rest)) > _TOLERANCE * sizes).any():
        return None
    C[np.abs(C) < _TOLERANCE * np.abs(C).max(initial=0.0)] = 0.0
    clip = other.covariance.clip
    if clip == "block":
        return C
    single = (C != 0.0).sum(axis=0) == 1
    if not single.all() or len(set(np.argmax(C != 0.0, axis=0).tolist())) < C.shape[1]:
        return None
    if clip == "diagonal":
        return C if term.covariance.clip in ("diagonal", "trace") or term.k == 1 else None
    square = term.k == other.k and np.allclose(np.abs(C[C != 0.0]), np.abs(C[C != 0.0])[0])
    return np.ones((1, 1)) if square and (term.covariance.clip == "trace" or term.k == 1) else None


def _finer_inside(term: RandomTerm, other: RandomTerm) -> np.ndarray | None:
    """``(1 | g:f)`` inside ``(0 + f | g)``: indicators of the finer levels are combinations of Z rows."""
    if term.Z is not None or other.Z is None or other.covariance.clip == "trace" or term.m <= other.m:
        return None
    patterns, which = np.unique(other.Z, axis=0, return_inverse=True)
    if patterns.shape[0] > other.k or np.linalg.matrix_rank(patterns) < patterns.shape[0]:
        return None
    which = np.asarray(which).reshape(-1)
    cells = other.codes.astype(np.int64) * patterns.shape[0] + which
    used, cells = np.unique(cells, return_inverse=True)
    if not _same_partition(term.codes, np.asarray(cells).reshape(-1), term.m, used.shape[0]):
        return None
    C = np.linalg.pinv(patterns)
    if other.covariance.clip == "diagonal" and ((np.abs(C) > _TOLERANCE).sum(axis=0) > 1).any():
        return None
    return C


def _columns(term: RandomTerm) -> np.ndarray:
    return np.ones((term.codes.shape[0], 1)) if term.Z is None else term.Z


def _same_partition(a: np.ndarray, b: np.ndarray, m: int, m_b: int) -> bool:
    """Whether two codings divide the rows in the same way, whatever their levels are called."""
    if a is b:
        return True
    if m != m_b:
        return False
    first = np.full(m, -1, dtype=np.int64)
    first[a] = b
    return bool((first[a] == b).all()) and np.unique(first[first >= 0]).size == np.unique(a).size
