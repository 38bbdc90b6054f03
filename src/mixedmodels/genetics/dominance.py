"""Dominance relationships of a pedigree, with a choice of what inbreeding does to them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import OptionError

if TYPE_CHECKING:
    from mixedmodels.genetics.pedigree import Pedigree
    from mixedmodels.genetics.relationship import Relationship

__all__ = ["CONVENTIONS", "dominance", "dominance_block"]

CONVENTIONS = ("fraternity", "identity")
_SPARSE = 0.1  # share of entries up to which the matrix is kept sparse


def dominance_block(pedigree: Pedigree, rows: np.ndarray) -> np.ndarray:
    """Fraternities between some rows, (k, k), with a diagonal of ones.

    ``(a(s_i, s_j) a(d_i, d_j) + a(s_i, d_j) a(d_i, s_j)) / 4``; zero where a parent is unknown.
    """
    from mixedmodels.genetics.additive import additive_block

    sire, dam = pedigree.sire[rows], pedigree.dam[rows]
    full = np.flatnonzero((sire >= 0) & (dam >= 0))
    out = np.eye(len(rows))
    if not len(full):
        return out
    couples, couple = np.unique(np.stack([sire[full], dam[full]]), axis=1, return_inverse=True)
    parents, place = np.unique(couples, return_inverse=True)
    s, d = place.reshape(couples.shape)
    A = additive_block(pedigree, parents)
    same = A[np.ix_(s, s)]
    same *= A[np.ix_(d, d)]
    cross = A[np.ix_(s, d)]
    same += cross * cross.T
    couple = couple.ravel()
    out[np.ix_(full, full)] = same[np.ix_(couple, couple)] / 4
    np.fill_diagonal(out, 1.0)
    return out


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


def dominance(pedigree: Pedigree, ids: Any = None, convention: str = "fraternity") -> Relationship:
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
    rows = np.arange(len(pedigree)) if ids is None else pedigree.index(ids)
    block = dominance_block if convention == "fraternity" else _identity_block
    matrix: Any = block(pedigree, rows)
    if np.count_nonzero(matrix) < _SPARSE * matrix.size:
        matrix = csc_array(matrix)
    return Relationship(ids=pedigree.ids[rows], matrix=matrix, name="dominance")
