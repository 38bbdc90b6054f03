"""Hypothesis matrices of the terms of the fixed part: type I (sequential), II and III (marginal).

They are made from the structure of the model, so that they do not depend on the contrasts of the fit.
A term contains another if it holds all its factors and more, and the same covariates (SAS's rule): a:b
contains a; x:f contains x; x:f does not contain f.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from mixedmodels.frame.state import Encoding, VariableState

__all__ = [
    "contains",
    "echelon_mixing",
    "marginal_hypotheses",
    "sequential_hypotheses",
    "type_two_hypotheses",
]

_ZERO = 1e-8


def contains(encoding: Encoding, big: int, small: int) -> bool:
    """Whether term number `big` contains term number `small`."""
    factors, covariates = _split(encoding, big)
    inner, own = _split(encoding, small)
    return inner < factors and covariates == own


def _split(encoding: Encoding, term: int) -> tuple[frozenset[int], tuple[int, ...]]:
    variables, members = encoding.variables, encoding.fixed.terms[term]
    factors = frozenset(v for v in members if variables[v].kind == "factor")
    return factors, tuple(sorted(v for v in members if v not in factors))


def sequential_hypotheses(X: np.ndarray, slices: Mapping[str, slice]) -> dict[str, np.ndarray]:
    """Type I: each term after those before it, by least squares: its rows of the factor R of X = QR.

    Parameters
    ----------
    X : ndarray, shape (n, p)
        Full column rank.
    slices : mapping of str to slice
        Columns of each term.

    Returns
    -------
    dict of str to ndarray, shape (columns of the term, p)
    """
    R = _triangle(X)
    return {label: R[columns] for label, columns in slices.items()}


def type_two_hypotheses(
    X: np.ndarray, slices: Mapping[str, slice], encoding: Encoding
) -> dict[str, np.ndarray]:
    """Type II: each term after all others but those that contain it.

    Parameters
    ----------
    X : ndarray, shape (n, p)
    slices : mapping of str to slice
        Columns of each term, in the order of ``encoding.fixed.terms``, the intercept left out.
    encoding : Encoding
    """
    p = X.shape[1]
    places = {label: np.arange(p)[columns] for label, columns in slices.items()}
    labels = list(slices)
    out = {}
    for t, label in enumerate(labels):
        last = [places[other] for s, other in enumerate(labels) if s != t and contains(encoding, s, t)]
        later = np.concatenate(last) if last else np.zeros(0, dtype=int)
        own = places[label]
        if not len(later):
            out[label] = np.eye(p)[own]
            continue
        first = np.setdiff1d(np.arange(p), np.concatenate([own, later]))
        order = np.concatenate([first, own, later])
        rows = np.zeros((len(own), p))
        rows[:, order] = _triangle(X[:, order])[len(first) : len(first) + len(own)]
        out[label] = rows
    return out


def _triangle(X: np.ndarray) -> np.ndarray:
    """R of X = QR with its rows divided by their diagonal; the columns are scaled meanwhile."""
    scale = np.sqrt((X * X).sum(axis=0))
    scale[scale == 0.0] = 1.0
    R = np.asarray(np.linalg.qr(X / scale, mode="r"))
    return R / R.diagonal()[:, None] * scale / scale[:, None]


def marginal_hypotheses(encoding: Encoding) -> dict[str, np.ndarray]:
    r"""Type III: what is estimable of a term and of the terms that contain it, orthogonal to the latter.

    Let the model be coded by all dummies of every term, with coefficients gamma. An estimable function
    :math:`l'\gamma` is of type III for a term if l is zero but in the columns of the term and of those that
    contain it, and orthogonal to all estimable functions in the columns of the latter alone. Where every
    cell is filled this compares unweighted means.

    Returns
    -------
    dict of str to ndarray, shape (rank, p)
        Rows in the coefficients of the fit.

    Notes
    -----
    SAS/STAT User's Guide, "The four types of estimable functions".
    """
    encoding = _without_dropped_terms(encoding)
    fixed = encoding.fixed
    full = len(fixed.names)
    cells = _cells(encoding)
    M = np.zeros((sum(len(cell.coding) for cell in cells), full))  # gamma = M beta
    treatment = np.zeros_like(M)  # the same for treatment contrasts
    R = np.zeros((full, len(M)))  # X of all dummies = X R
    start, places = 0, []
    for cell in cells:
        stop = start + len(cell.coding)
        M[start:stop, cell.columns] = cell.coding
        treatment[start:stop, cell.columns] = cell.treatment
        R[:, start:stop] = cell.dummies
        places.append(np.arange(start, stop))
        start = stop
    estimable = np.eye(full) if encoding.null is None else _left_null(encoding.null)
    G = _row_basis(estimable @ R)  # all estimable functions of gamma
    offset = len(places) - len(fixed.terms)
    kept = slice(None) if encoding.kept is None else encoding.kept
    out = {}
    for t, label in enumerate(fixed.labels):
        upper = [places[s + offset] for s in range(len(fixed.terms)) if contains(encoding, s, t)]
        above = np.concatenate(upper) if upper else np.zeros(0, dtype=int)
        own = places[t + offset]
        involved = _zero_outside(G, np.concatenate([own, above]))
        containing = _zero_outside(G, above)
        if len(containing):
            involved = _row_basis(involved - (involved @ containing.T) @ containing)
        out[label] = echelon_mixing(involved @ treatment) @ (involved @ M)[:, kept]
    return out


def _without_dropped_terms(encoding: Encoding) -> Encoding:
    """The model without the terms that have no column of their own left, as if they had not been written."""
    fixed, kept = encoding.fixed, encoding.kept
    if kept is None or encoding.null is None:
        return encoding
    starts = [int(fixed.intercept), *fixed.stops][: len(fixed.stops)]
    inside = np.zeros(len(fixed.names), dtype=bool)
    inside[kept] = True
    alive = [bool(inside[a:b].any()) for a, b in zip(starts, fixed.stops, strict=True)]
    if all(alive):
        return encoding
    columns = [0] if fixed.intercept else []
    stops = []
    for a, b, lives in zip(starts, fixed.stops, alive, strict=True):
        if lives:
            columns += range(a, b)
            stops.append(len(columns))
    gone = np.setdiff1d(np.arange(len(fixed.names)), columns)
    null = encoding.null[:, ~(np.abs(encoding.null[gone]) > _ZERO).any(axis=0)][columns]
    position = np.full(len(fixed.names), -1)
    position[columns] = np.arange(len(columns))
    part = fixed._replace(
        terms=tuple(term for term, lives in zip(fixed.terms, alive, strict=True) if lives),
        full=tuple(codes for codes, lives in zip(fixed.full, alive, strict=True) if lives),
        labels=tuple(label for label, lives in zip(fixed.labels, alive, strict=True) if lives),
        names=tuple(fixed.names[j] for j in columns),
        stops=tuple(stops),
    )
    return encoding._replace(fixed=part, kept=position[kept], null=null if null.shape[1] else None)


def echelon_mixing(rows: np.ndarray, scale: np.ndarray | None = None) -> np.ndarray:
    """T such that ``T rows`` is the reduced row echelon form: the one basis that depends on the space only.

    Parameters
    ----------
    rows : ndarray, shape (r, p)
        Independent.
    scale : ndarray, shape (p,), optional
        Sizes of the coefficients, by which is judged what is zero; ones by default.

    Returns
    -------
    ndarray, shape (r, r)
    """
    work = rows * (1.0 if scale is None else scale)
    lengths = np.sqrt((work * work).sum(axis=1))
    mixing = np.diag(1.0 / lengths)
    work = mixing @ work
    done = 0
    for c in range(work.shape[1]):
        if done == len(work):
            break
        pivot = done + int(np.argmax(np.abs(work[done:, c])))
        if abs(work[pivot, c]) <= _ZERO:
            continue
        head = work[pivot, c]
        unit = 1.0 if scale is None else scale[c]
        for A in (work, mixing):
            A[[done, pivot]] = A[[pivot, done]]
            A[done] *= unit / head
        factors = work[:, c] / unit
        factors[done] = 0.0
        for A in (work, mixing):
            A -= factors[:, None] * A[done]
        done += 1
    return mixing


def _zero_outside(G: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Orthonormal basis of the vectors of the row space of G (orthonormal rows) that vanish elsewhere."""
    if not len(columns):
        return G[:0]
    outside = np.ones(G.shape[1], dtype=bool)
    outside[columns] = False
    if not outside.any():
        return G
    return _left_null(G[:, outside]) @ G


def _left_null(A: np.ndarray) -> np.ndarray:
    """Orthonormal rows c with c A = 0."""
    U, sizes, _ = np.linalg.svd(A, full_matrices=True)
    rank = int((sizes > _ZERO * max(float(sizes[0]) if len(sizes) else 0.0, 1e-300)).sum())
    return U[:, rank:].T


def _row_basis(A: np.ndarray) -> np.ndarray:
    """Orthonormal basis of the row space."""
    if not A.size:
        return A[:0]
    _, sizes, V = np.linalg.svd(A, full_matrices=False)
    return V[: int((sizes > _ZERO * max(float(sizes[0]), 1.0)).sum())]


class _Cells(NamedTuple):
    """One term (or the intercept) coded by all its dummies."""

    columns: slice  # its columns in the fit
    coding: np.ndarray  # (dummies, columns): values of these columns in each cell
    treatment: np.ndarray  # the same with treatment contrasts
    dummies: np.ndarray  # (all columns of the fit, dummies): the dummies as combinations of the fit's columns


def _cells(encoding: Encoding) -> list[_Cells]:
    fixed, variables = encoding.fixed, encoding.variables
    full = len(fixed.names)
    starts = [int(fixed.intercept), *fixed.stops][: len(fixed.stops)]
    slices = [slice(a, b) for a, b in zip(starts, fixed.stops, strict=True)]
    out: list[_Cells] = []
    constant = np.zeros((full, 1))
    if fixed.intercept:
        constant[0] = 1.0
        out.append(_Cells(slice(0, 1), np.ones((1, 1)), np.ones((1, 1)), constant))
    else:  # a factor coded by all its dummies holds the constant
        for term, codes, columns in zip(fixed.terms, fixed.full, slices, strict=True):
            if len(term) == 1 and codes[0]:
                constant[columns] = 1.0
                break
    for t, term in enumerate(fixed.terms):
        factors, covariates = _split(encoding, t)
        parts, where = [], []
        for s, other in enumerate(fixed.terms):
            inner, own = _split(encoding, s)
            if inner <= factors and own == covariates:
                block = _term_coding(term, other, fixed.full[s], variables)
                at = np.zeros((full, block.shape[1]))
                at[slices[s]] = np.eye(block.shape[1])
                parts.append(block)
                where.append(at)
        if not covariates and constant.any():
            parts.append(np.ones((len(parts[0]), 1)))
            where.append(constant)
        basis = np.hstack(parts)
        solution = np.linalg.lstsq(basis, np.eye(len(basis)), rcond=None)[0]
        own_coding = _term_coding(term, term, fixed.full[t], variables)
        plain = _term_coding(term, term, fixed.full[t], variables, treatment=True)
        out.append(_Cells(slices[t], own_coding, plain, np.hstack(where) @ solution))
    return out


def _term_coding(
    term: Sequence[int],
    inner: Sequence[int],
    full: Sequence[bool],
    variables: Sequence[VariableState],
    treatment: bool = False,
) -> np.ndarray:
    """Values of the columns of the term `inner` in the cells of `term`, which holds all its variables.

    Cells and columns run with their first variable fastest, each in its own term's order.
    """
    whole = dict(zip(inner, full, strict=True))
    matrices: list[np.ndarray] = []
    for v in term:
        size = _size(variables[v])
        if v not in whole:
            matrices.append(np.ones((size, 1)))
        elif whole[v] or variables[v].kind != "factor":
            matrices.append(np.eye(size))
        else:
            contrast: Any = None if treatment else variables[v].contrast
            matrices.append(np.eye(size)[:, 1:] if contrast is None else np.asarray(contrast))
    cells = reduce(lambda left, right: np.kron(right, left), matrices)
    # columns are in the order of `term`; put them in that of `inner`
    widths = [matrix.shape[1] for matrix in matrices]
    cube = cells.reshape(len(cells), *widths[::-1])
    position = {v: len(term) - i for i, v in enumerate(term)}
    kept = [position[v] for v in reversed(inner)]
    others = [position[v] for v in term if v not in whole]
    return np.transpose(cube, (0, *others, *kept)).reshape(len(cells), -1)


def _size(variable: VariableState) -> int:
    if variable.kind == "factor":
        return len(variable.levels)
    return len(variable.suffixes) if variable.kind == "matrix" else 1
