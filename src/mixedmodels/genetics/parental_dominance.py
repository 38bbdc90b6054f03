r"""Sparse inverse of dominance relationships, with combinations of parents as further levels.

The dominance effect of an individual is that of its couple of parents and a deviation of its own,
``d_i = f(s_i, d_i) + m_i``. With ``cov(f(i, j), f(k, l)) = (a_ik a_jl + a_il a_jk) / 4`` f is a symmetric
array whose differences ``E = (I - P) f (I - P)'``, P having 1/2 at the parents, are independent: each
combination (i, j) depends on at most eight older ones,

    f(i, j) = (f(s_i, j) + f(d_i, j) + f(i, s_j) + f(i, d_j)) / 2
              - (f(s_i, s_j) + f(s_i, d_j) + f(d_i, s_j) + f(d_i, d_j)) / 4 + e_ij.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mixedmodels.errors import DataError

if TYPE_CHECKING:
    from mixedmodels.genetics.pedigree import Pedigree
    from mixedmodels.genetics.relationship import Relationship

__all__ = [
    "Combinations",
    "combinations",
    "dominance_precision",
    "own_variances",
    "with_combinations",
    "with_couples",
]

_EDGES = 10_000_000  # links between combinations up to which they are followed
_TINY = 1e-14  # weights that cancelled
_COUPLES = 5000  # couples up to which their own inverse may replace their ancestors
_MOST = 12_000  # couples beyond which it is refused


class Combinations(NamedTuple):
    """Effects as sums of older ones: ``v = W v + e``, ``Var(e_t) = variance_t`` independent.

    Attributes
    ----------
    first, second : ndarray of int64, shape (c,)
        Rows of the two parents of each combination; the effects are those of the k individuals asked for,
        then the combinations.
    weights : scipy.sparse.csc_array, shape (k + c, k + c)
        W, zero on and above a triangle (older effects on the right).
    variance : ndarray, shape (k + c,)
    """

    first: np.ndarray
    second: np.ndarray
    weights: Any
    variance: np.ndarray


def own_variances(pedigree: Pedigree, rows: np.ndarray) -> np.ndarray:
    """Variance of each individual's dominance effect that its couple of parents leaves, shape (k,).

    ``1 - (a_ss a_dd + a_sd^2) / 4``; 1 where a parent is unknown.

    Raises
    ------
    DataError
        Nothing or less is left: the matrix is not positive definite.
    """
    F = pedigree.inbreeding
    sire, dam = pedigree.sire[rows], pedigree.dam[rows]
    full = (sire >= 0) & (dam >= 0)
    left = np.ones(len(rows))
    left[full] -= ((1.0 + F[sire[full]]) * (1.0 + F[dam[full]]) + 4.0 * F[rows[full]] ** 2) / 4.0
    if (left <= _TINY).any():
        i = int(np.argmax(left <= _TINY))
        raise DataError(
            f"the parents {pedigree.ids[sire[i]]} and {pedigree.ids[dam[i]]} of {pedigree.ids[rows[i]]} are "
            "so inbred that the fraternities are no covariance matrix (their children share more than all); "
            'use dominance(ids, convention="identity") or dominance(...).bend()'
        )
    return left


def combinations(pedigree: Pedigree, rows: np.ndarray, limit: int = _EDGES) -> Combinations | None:
    """The combinations of ancestors that tie the dominance effects of some individuals together.

    From the youngest to the oldest, a combination that only one effect depends on is absorbed into it.

    Parameters
    ----------
    pedigree : Pedigree
    rows : ndarray of int, shape (k,)
        Individuals, distinct.
    limit : int
        Links to be followed at most.

    Returns
    -------
    Combinations or None
        None beyond the limit.

    Notes
    -----
    Source: Hoeschele and VanRaden (1991), Journal of Dairy Science 74, 557-569, whose rules are exact without
    inbreeding; with A and its Mendelian variances inbred they are exact for products of inbred relationships.
    """
    from scipy.sparse import csc_array

    n = len(pedigree)
    sire, dam = pedigree.sire.astype(np.int64), pedigree.dam.astype(np.int64)
    age = pedigree.generation.astype(np.int64)
    mendelian = _mendelian(pedigree)
    variance = [own_variances(pedigree, rows)]
    s, d = sire[rows], dam[rows]
    full = np.flatnonzero((s >= 0) & (d >= 0))
    waiting: dict[int, list[tuple[np.ndarray, ...]]] = {}

    def send(child: np.ndarray, one: np.ndarray, other: np.ndarray, weight: np.ndarray) -> None:
        """Put links to combinations on the pile of their age."""
        old = age[one] + age[other]
        order = np.argsort(old, kind="stable")
        key = np.minimum(one, other) * n + np.maximum(one, other)
        cuts = np.flatnonzero(np.diff(old[order])) + 1
        for part in np.split(order, cuts):
            if part.size:
                waiting.setdefault(int(old[part[0]]), []).append((child[part], key[part], weight[part]))

    send(full, s[full], d[full], np.ones(full.size))
    count, links = len(rows), full.size
    found, tied = [], []
    while waiting:
        child, key, weight = (np.concatenate(v) for v in zip(*waiting.pop(max(waiting)), strict=True))
        child, key, weight = _gather(child, key, weight)
        if not key.size:
            continue
        new = np.concatenate([[True], np.diff(key) != 0])
        which = np.cumsum(new) - 1
        pairs, uses = key[new], np.bincount(which)
        one, other = np.divmod(pairs, n)
        own = np.where(one == other, 0.5, 0.25) * mendelian[one] * mendelian[other]
        kept = uses >= 2
        name = np.full(pairs.size, -1, dtype=np.int64)
        name[kept] = count + np.arange(int(kept.sum()))
        count += int(kept.sum())
        stays = kept[which]
        tied.append((child[stays], name[which[stays]], weight[stays]))
        found.append(pairs[kept])
        variance.append(own[kept])
        gone = ~stays  # one link each
        by = np.where(kept, name, 0)
        by[which[gone]] = child[gone]
        scale = np.ones(pairs.size)
        scale[which[gone]] = weight[gone]
        lone = ~kept
        total = np.concatenate(variance)
        np.add.at(total, by[lone], scale[lone] ** 2 * own[lone])
        variance = [total]
        for a, b, w in _older(one, other, sire, dam):
            ok = (a >= 0) & (b >= 0)
            links += int(ok.sum())
            if links > limit:
                return None
            send(by[ok], a[ok], b[ok], w * scale[ok])
    i, j, w = ([np.concatenate(v) for v in zip(*tied, strict=True)]) if tied else [np.zeros(0)] * 3
    W = csc_array((w, (i.astype(np.int64), j.astype(np.int64))), shape=(count, count))
    first, second = np.divmod(np.concatenate(found) if found else np.zeros(0, dtype=np.int64), n)
    return Combinations(first, second, W, np.concatenate(variance))


def _mendelian(pedigree: Pedigree) -> np.ndarray:
    """Variance of each additive effect given the parents, shape (n,); all positive."""
    F = np.concatenate([pedigree.inbreeding, [-1.0]])  # the last for an unknown parent
    out = 0.5 - 0.25 * (F[pedigree.sire] + F[pedigree.dam])
    if (out <= _TINY).any():
        i = int(np.argmax(out <= _TINY))
        raise DataError(
            f"both parents of {pedigree.ids[i]} are completely inbred: the relationships are singular; drop "
            "generations that only multiply a pure line"
        )
    return out


def _older(one: np.ndarray, other: np.ndarray, sire: np.ndarray, dam: np.ndarray) -> list[tuple[Any, ...]]:
    """The eight combinations that a combination is regressed on, with their weights."""
    steps = []
    for a, b in ((sire[one], other), (dam[one], other), (one, sire[other]), (one, dam[other])):
        steps.append((a, b, 0.5))
    for a in (sire[one], dam[one]):
        for b in (sire[other], dam[other]):
            steps.append((a, b, -0.25))
    return steps


def _gather(child: np.ndarray, key: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, ...]:
    """Links by combination and effect, those between the same two added, those that cancel left out."""
    order = np.lexsort((child, key))
    child, key, weight = child[order], key[order], weight[order]
    start = np.flatnonzero(np.concatenate([[True], (np.diff(key) != 0) | (np.diff(child) != 0)]))
    total = np.add.reduceat(weight, start)
    keep = np.abs(total) > _TINY
    return child[start][keep], key[start][keep], total[keep]


def with_combinations(found: Combinations) -> tuple[Any, float]:
    """``(I - W)' diag(1 / variance) (I - W)`` as `scipy.sparse.csc_array`, and minus its log-determinant."""
    from scipy.sparse import csc_array, diags_array, eye_array

    size = len(found.variance)
    B = eye_array(size, format="csc") - found.weights
    precision = csc_array(B.T @ diags_array(1.0 / found.variance) @ B)
    return precision, float(np.sum(np.log(found.variance)))


def with_couples(own: np.ndarray, couple: np.ndarray, between: Any, logdet: float) -> tuple[Any, float]:
    """The inverse of individuals and couples together from that of the couples.

    Parameters
    ----------
    own : ndarray, shape (k,)
        Variance of each individual given its couple.
    couple : ndarray of int, shape (k,)
        Its couple, -1 for none.
    between : scipy sparse array, shape (c, c)
        Inverse of the covariance between couples.
    logdet : float
        Log-determinant of that covariance.
    """
    from scipy.sparse import block_array, csc_array, diags_array

    full = np.flatnonzero(couple >= 0)
    shape = (len(own), between.shape[0])
    member = csc_array((np.ones(full.size), (full, couple[full])), shape=shape)
    weight = diags_array(1.0 / own)
    tie = weight @ member
    precision = block_array([[weight, -tie], [-tie.T, between + member.T @ tie]], format="csc")
    return csc_array(precision), logdet + float(np.sum(np.log(own)))


def dominance_precision(pedigree: Pedigree, rows: np.ndarray) -> Relationship:
    """Dominance relationships by fraternities as a sparse inverse, with pairs of parents as further levels.

    The further levels are combinations of ancestors, or the couples themselves with the inverse of their
    covariance matrix where that is the smaller way (few couples, many generations). Both are exact.

    Parameters
    ----------
    pedigree : Pedigree
    rows : ndarray of int, shape (k,)

    Returns
    -------
    Relationship
        Of the k individuals and then the pairs, labelled ``"sire x dam"``; the names are texts.

    Raises
    ------
    DataError
        Neither way is small: thousands of couples whose ancestors are all tied together.
    """
    from mixedmodels.frame.labels import level_labels
    from mixedmodels.genetics.relationship import Relationship

    sire, dam = pedigree.sire[rows], pedigree.dam[rows]
    full = np.flatnonzero((sire >= 0) & (dam >= 0))
    couples, at = np.unique(np.stack([sire[full], dam[full]]), axis=1, return_inverse=True)
    count = couples.shape[1]
    found = combinations(pedigree, rows)
    if found is None and count > _MOST:
        raise DataError(
            f"the dominance effects of {len(rows)} individuals from {count} couples are tied together by "
            "more combinations of ancestors than can be followed: name the individuals with records (ids=), "
            "drop the oldest generations (pedigree.take), or give each couple an independent effect, such as "
            "(1 | sire:dam)"
        )
    if found is not None and (count > _COUPLES or len(found.first) <= 2 * count):
        precision, logdet = with_combinations(found)
        first, second = found.first, found.second
    else:
        couple = np.full(len(rows), -1, dtype=np.int64)
        couple[full] = at.ravel()
        first, second = couples
        precision, logdet = with_couples(
            own_variances(pedigree, rows), couple, *_inverse_between(pedigree, first, second)
        )
    ids = np.array(level_labels(pedigree.ids), dtype=object)
    pairs = [f"{ids[i]} x {ids[j]}" for i, j in zip(first.tolist(), second.tolist(), strict=True)]
    labels = np.empty(len(rows) + len(pairs), dtype=object)
    labels[:] = [*ids[rows], *pairs]
    return Relationship(ids=labels, precision=precision, logdet=logdet, name="dominance")


def _inverse_between(pedigree: Pedigree, sires: np.ndarray, dams: np.ndarray) -> tuple[Any, float]:
    """Inverse and log-determinant of the covariance between distinct couples."""
    from scipy.sparse import csc_array

    from mixedmodels.genetics.dominance import between_couples
    from mixedmodels.genetics.relationship import Relationship

    parents, place = np.unique(np.concatenate([sires, dams]), return_inverse=True)
    s, d = place.reshape(2, -1)
    between = between_couples(pedigree, parents, s, d)
    if not len(sires):
        return csc_array((0, 0)), 0.0
    known = Relationship(ids=np.arange(len(sires)), matrix=between, name="dominance of couples")
    return known.as_precision()
