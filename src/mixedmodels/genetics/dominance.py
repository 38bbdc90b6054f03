"""Dominance relationships of a pedigree, with a choice of what inbreeding does to them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import DataError, OptionError

if TYPE_CHECKING:
    from mixedmodels.genetics.pedigree import Pedigree
    from mixedmodels.genetics.relationship import Relationship

__all__ = ["CONVENTIONS", "between_couples", "dominance", "dominance_block", "dominance_sparse"]

CONVENTIONS = ("fraternity", "identity")
FORMS = ("matrix", "precision")
_SPARSE = 0.1  # share of entries up to which the matrix is kept sparse
_DENSE = 2000  # individuals up to which it is computed at once
_BLOCK = 256  # couples worked on at a time otherwise
_MOST = 200_000_000  # entries beyond which the matrix is refused


def _couples(pedigree: Pedigree, rows: np.ndarray) -> tuple[np.ndarray, ...]:
    """Places in `rows` with two known parents, the couple of each, distinct parents, and the couples' places
    there.
    """
    sire, dam = pedigree.sire[rows], pedigree.dam[rows]
    full = np.flatnonzero((sire >= 0) & (dam >= 0))
    couples, couple = np.unique(np.stack([sire[full], dam[full]]), axis=1, return_inverse=True)
    parents, place = np.unique(couples, return_inverse=True)
    s, d = place.reshape(couples.shape)
    return full, couple.ravel(), parents, s, d


def dominance_block(pedigree: Pedigree, rows: np.ndarray) -> np.ndarray:
    """Fraternities between some rows, (k, k), with a diagonal of ones.

    ``(a(s_i, s_j) a(d_i, d_j) + a(s_i, d_j) a(d_i, s_j)) / 4``; zero where a parent is unknown.
    """
    from mixedmodels.genetics.additive import additive_block

    full, couple, parents, s, d = _couples(pedigree, rows)
    out = np.eye(len(rows))
    if not len(full):
        return out
    A = additive_block(pedigree, parents)
    same = A[np.ix_(s, s)]
    same *= A[np.ix_(d, d)]
    cross = A[np.ix_(s, d)]
    same += cross * cross.T
    out[np.ix_(full, full)] = same[np.ix_(couple, couple)] / 4
    np.fill_diagonal(out, 1.0)
    return out


def between_couples(pedigree: Pedigree, parents: np.ndarray, s: np.ndarray, d: np.ndarray) -> Any:
    """Covariances between couples, ``(a_ss' a_dd' + a_sd' a_ds') / 4``, as a sparse array: some couples
    against all at a time, entries that are zero left out.

    Parameters
    ----------
    pedigree : Pedigree
    parents : ndarray of int
        Rows of the pedigree.
    s, d : ndarray of int, shape (c,)
        Places of the couples' sires and dams in `parents`.
    """
    from scipy.sparse import csc_array

    from mixedmodels.genetics.additive import additive_block

    count = len(s)
    i, j, values = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)], [np.zeros(0)]
    for start in range(0, count, _BLOCK):
        at = np.arange(start, min(start + _BLOCK, count))
        own, place = np.unique(np.concatenate([s[at], d[at]]), return_inverse=True)
        A = additive_block(pedigree, parents, parents[own])
        one, other = A[:, place[: len(at)]], A[:, place[len(at) :]]
        same = one[s] * other[d] + one[d] * other[s]
        row, column = np.nonzero(same)
        i.append(row)
        j.append(at[column])
        values.append(same[row, column] / 4)
    return csc_array((np.concatenate(values), (np.concatenate(i), np.concatenate(j))), shape=(count, count))


def dominance_sparse(pedigree: Pedigree, rows: np.ndarray) -> Any:
    """`dominance_block` as a sparse array.

    Raises
    ------
    DataError
        The matrix would have too many entries.
    """
    from scipy.sparse import csc_array, eye_array

    full, couple, parents, s, d = _couples(pedigree, rows)
    count, k = len(s), len(rows)
    between = between_couples(pedigree, parents, s, d)
    size = np.bincount(couple, minlength=count).astype(float)
    entries = float(size @ ((between != 0).astype(float) @ size))
    if entries > _MOST:
        raise DataError(
            f"the dominance matrix of {k} individuals has {entries:.3g} entries; take "
            'dominance(form="precision"), which is made from the couples of parents'
        )
    member = csc_array((np.ones(len(full)), (full, couple)), shape=(k, count))
    D = csc_array(member @ between @ member.T)
    D.setdiag(0.0)
    D.eliminate_zeros()
    return csc_array(D + eye_array(k, format="csc"))


def _identity_block(pedigree: Pedigree, rows: np.ndarray) -> np.ndarray:
    """``Delta_7`` between some rows, (k, k), ``1 - F`` on the diagonal."""
    from mixedmodels.genetics.identity import GeneralisedKinship, share_both

    inbred = pedigree.inbreeding
    nearly = dominance_block(pedigree, rows)
    if not inbred.any():
        return nearly
    phi = GeneralisedKinship(pedigree)
    out = np.diag(1.0 - inbred[rows])
    for i, j in zip(*np.nonzero(np.triu(nearly, 1)), strict=True):  # Delta_7 > 0 only where the fraternity is
        out[i, j] = out[j, i] = max(share_both(phi, int(rows[i]), int(rows[j])), 0.0)
    return out


def dominance(
    pedigree: Pedigree, ids: Any = None, convention: str = "fraternity", form: str = "matrix"
) -> Relationship:
    """Dominance relationships.

    Parameters
    ----------
    pedigree : Pedigree
    ids : sequence of labels, optional
        The individuals wanted, in this order; all without it.
    convention : {"fraternity", "identity"}
        ``"fraternity"``: ``phi(s_i, s_j) phi(d_i, d_j) + phi(s_i, d_j) phi(d_i, s_j)`` off the diagonal and 1
        on it, inbred or not, as in Mrode's textbook, nadiv and pydigree. ``"identity"``: Jacquard's
        ``Delta_7``, the probability that two individuals share both genes while neither is inbred, and ``1 -
        F`` on the diagonal. Without inbreeding the two are equal. The second takes a recursion per pair: for
        thousands of related individuals it is slow.
    form : {"matrix", "precision"}
        ``"precision"`` keeps a sparse inverse, with combinations of parents (labelled ``"sire x dam"``) as
        further levels whose predictions are those of parental combinations; for tens of thousands of
        individuals. It takes fraternities, with or without inbreeding.

    Returns
    -------
    Relationship
        Sparse where fewer than a tenth of the entries differ from zero.

    Notes
    -----
    With inbreeding no single matrix is exact: the covariance has further terms (Harris 1964; de Boer and
    Hoeschele 1993). Source: Mrode (2014), eq. 12.3; Jacquard (1974), The Genetic Structure of Populations.
    """
    from scipy.sparse import csc_array

    from mixedmodels.genetics.relationship import Relationship

    if convention not in CONVENTIONS:
        raise OptionError(f"convention={convention!r}: choose one of {', '.join(map(repr, CONVENTIONS))}")
    if form not in FORMS:
        raise OptionError(f"form={form!r}: choose one of {', '.join(map(repr, FORMS))}")
    rows = np.arange(len(pedigree)) if ids is None else pedigree.index(ids)
    if form == "precision":
        from mixedmodels.genetics.parental_dominance import dominance_precision

        if convention != "fraternity" and pedigree.inbreeding.any():
            raise OptionError(
                "with inbreeding Jacquard's convention has no sparse inverse: take "
                'convention="fraternity", or form="matrix" for some thousand individuals'
            )
        return dominance_precision(pedigree, rows)
    if convention == "fraternity" and len(rows) > _DENSE:
        matrix = dominance_sparse(pedigree, rows)
        if matrix.nnz >= _SPARSE * len(rows) ** 2:
            matrix = matrix.toarray()
        return Relationship(ids=pedigree.ids[rows], matrix=matrix, name="dominance")
    block = dominance_block if convention == "fraternity" else _identity_block
    dense = block(pedigree, rows)
    matrix = csc_array(dense) if np.count_nonzero(dense) < _SPARSE * dense.size else dense
    return Relationship(ids=pedigree.ids[rows], matrix=matrix, name="dominance")
