r"""What leaving out sets of rows does to a generalised least-squares fit: exact at fixed variance ratios.

All rows are scaled by the square roots of their weights, sigma is 1 and

.. math:: V = I + U U' + R P^{-1} R'

with U the columns of one grouping factor times its relative factor (the *leaf*: independent levels), R those
of all others and P their known precision (the identity by default). Eliminating the leaf level by level,

.. math:: T = V_L^{-1} R = R - U D^{-1} U'R, \quad D_l = I + U_l'U_l, \qquad S = P + R'T, \qquad
          V^{-1} = I - U D^{-1} U' - T S^{-1} T',

so that entries of :math:`V^{-1}` between the rows of one group need no n x n matrix.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import SolverError

if TYPE_CHECKING:
    from mixedmodels.design import Design

__all__ = [
    "Deletions",
    "RowInverse",
    "compare_fits",
    "delete_groups",
    "delete_rows",
    "root_of",
    "row_inverse",
]

# Columns of the rest up to which S is inverted as a dense matrix.
_DENSE_REST = 3000
# Rows of groups taken together.
_PANEL = 128
# Smallest share of its information that a combination of coefficients must keep to count as estimable.
_ESTIMABLE = 1e-10


@dataclass(frozen=True, slots=True, eq=False)
class RowInverse:
    """Rows of V^{-1}, by the pieces of the formula above.

    Attributes
    ----------
    codes : ndarray, shape (n,)
        Level of the leaf of each row.
    U : ndarray, shape (n, k)
        Columns of the leaf; k = 0 without one.
    DU : ndarray, shape (n, k)
        Row i: ``D_l^{-1} U_i``.
    T : sparse array, shape (n, q), or None
        None without other factors.
    over_S : callable
        ``A S^{-1}`` for an (r, q) matrix, sparse or dense.
    """

    codes: np.ndarray
    U: np.ndarray
    DU: np.ndarray
    T: Any
    over_S: Callable[[Any], np.ndarray]

    def take(self, rows: np.ndarray) -> RowInverse:
        """These rows only; V^{-1} itself stays that of all rows."""
        T = None if self.T is None else self.T[rows]
        return RowInverse(self.codes[rows], self.U[rows], self.DU[rows], T, self.over_S)

    def times(self, A: np.ndarray) -> np.ndarray:
        """``V^{-1} A`` for A of shape (n, r)."""
        out = np.array(A, dtype=float)
        if self.U.shape[1]:
            m = int(self.codes.max()) + 1 if self.codes.size else 0
            inner = np.empty((m, self.U.shape[1], A.shape[1]))
            for j in range(self.U.shape[1]):
                for c in range(A.shape[1]):
                    inner[:, j, c] = np.bincount(self.codes, self.DU[:, j] * A[:, c], minlength=m)
            out -= np.einsum("nk,nkr->nr", self.U, inner[self.codes])
        if self.T is not None:
            out -= self.T @ self.over_S((self.T.T @ A).T).T
        return out

    def diagonal(self) -> np.ndarray:
        """Diagonal of V^{-1}, shape (n,)."""
        out = 1.0 - np.einsum("nk,nk->n", self.U, self.DU)
        if self.T is not None:
            for start in range(0, out.shape[0], 2048):
                part = self.T[start : start + 2048]
                out[start : start + 2048] -= part.multiply(self.over_S(part)).sum(axis=1)
        return out

    def blocks(self, rows: np.ndarray, groups: np.ndarray) -> np.ndarray:
        """``V^{-1}[rows, rows]`` with zeros between rows of different groups."""
        U, DU, codes = self.U[rows], self.DU[rows], self.codes[rows]
        out = (U @ DU.T) * (codes[:, None] == codes)
        if self.T is not None:
            part = self.T[rows]
            out += part @ self.over_S(part).T
        out *= -1.0
        np.fill_diagonal(out, np.diagonal(out) + 1.0)
        out *= groups[:, None] == groups
        return out


def row_inverse(design: Design, factors: Sequence[np.ndarray]) -> RowInverse:
    """`RowInverse` of a design at given relative factors."""
    design.need_one_level("entries of V^{-1} between rows")
    n = design.n
    sqrt_w = None if design.weights is None else np.sqrt(design.weights)
    blocks: dict[tuple[int, int], list[Any]] = {}
    for position, (term, factor) in enumerate(zip(design.terms, factors, strict=True)):
        columns = (np.ones((n, 1)) if term.Z is None else term.Z) @ np.asarray(factor)
        if sqrt_w is not None:
            columns = columns * sqrt_w[:, None]
        key = (id(term.codes), -1 if term.precision is None else position)
        blocks.setdefault(key, [term.codes, term.m, [], term.precision])[2].append(columns)
    found = [(codes, m, np.hstack(parts), known) for codes, m, parts, known in blocks.values()]
    free = [block for block in found if block[3] is None]
    leaf = max(free, key=lambda block: block[1] * block[2].shape[1], default=None)
    rest = [block for block in found if block is not leaf]
    if leaf is None:
        codes, U, DU, Dinv = np.zeros(n, dtype=np.intp), np.zeros((n, 0)), np.zeros((n, 0)), None
    else:
        codes, m, U, _ = leaf
        k = U.shape[1]
        D = np.empty((m, k, k))
        for i in range(k):
            for j in range(i + 1):
                D[:, i, j] = D[:, j, i] = np.bincount(codes, U[:, i] * U[:, j], minlength=m)
        Dinv = np.linalg.inv(D + np.eye(k))
        DU = np.einsum("nkj,nj->nk", Dinv[codes], U)
    if not rest:
        return RowInverse(codes, U, DU, None, lambda A: A)
    return RowInverse(codes, U, DU, *_eliminate(rest, codes, U, Dinv))


def _eliminate(
    rest: list[tuple[Any, ...]], codes: np.ndarray, U: np.ndarray, Dinv: np.ndarray | None
) -> tuple[Any, Callable[[Any], np.ndarray]]:
    """T and the function that multiplies by S^{-1} from the right."""
    from scipy import sparse

    from mixedmodels.solver.sparse_cholesky import SparseCholesky

    R = sparse.csr_array(sparse.hstack([_spread(c, columns, m) for c, m, columns, _ in rest]))
    P = sparse.block_diag(
        [
            sparse.eye_array(m * columns.shape[1])
            if known is None
            else sparse.kron(known.matrix, sparse.eye_array(columns.shape[1]))
            for _, m, columns, known in rest
        ]
    )
    T = R
    if Dinv is not None:
        m, k = Dinv.shape[:2]
        Us = _spread(codes, U, m)
        inner = sparse.bsr_array((Dinv, np.arange(m), np.arange(m + 1)), shape=(m * k, m * k))
        T = sparse.csr_array(R - Us @ (inner @ (Us.T @ R)))
    S = sparse.csc_array(P + R.T @ T)
    if S.shape[0] <= _DENSE_REST:
        inverse = np.linalg.inv(S.toarray())
        inverse = 0.5 * (inverse + inverse.T)
        return T, lambda A: A @ inverse
    factor = SparseCholesky(0.5 * (S + S.T))
    return T, lambda A: factor.solve(np.asarray(A.toarray() if sparse.issparse(A) else A).T.copy()).T


def _spread(codes: np.ndarray, columns: np.ndarray, m: int) -> Any:
    """Sparse (n, m k) matrix with row i's k columns at level codes[i]."""
    from scipy import sparse

    n, k = columns.shape
    indices = codes.astype(np.int64)[:, None] * k + np.arange(k)
    return sparse.csr_array((columns.ravel(), indices.ravel(), np.arange(n + 1) * k), shape=(n, m * k))


@dataclass(frozen=True, slots=True, eq=False)
class Deletions:
    """A fit without each of J sets of rows, compared with the whole fit; NaN where it cannot be estimated.

    Attributes
    ----------
    beta : ndarray, shape (J, p)
    variances : ndarray, shape (J, p)
        Diagonal of C_U, the inverse of ``X'V^{-1}X`` without the rows; C is the inverse with them.
    cook, mdffits : ndarray, shape (J,)
        ``d'C^{-1}d / p`` and ``d'C_U^{-1}d / p``, d the change of beta.
    determinant, trace : ndarray, shape (J,)
        ``|C_U| / |C|`` and ``tr(C^{-1} C_U)``.
    rss : ndarray, shape (J,)
        ``y'Py`` without the rows.
    removed : ndarray of int, shape (J,)
        Rows left out.
    """

    beta: np.ndarray
    variances: np.ndarray
    cook: np.ndarray
    mdffits: np.ndarray
    determinant: np.ndarray
    trace: np.ndarray
    rss: np.ndarray
    removed: np.ndarray


def root_of(C: np.ndarray) -> np.ndarray:
    """Lower-triangular root of a covariance matrix.

    Raises
    ------
    SolverError
        It is not positive definite to working precision.
    """
    try:
        return np.linalg.cholesky(C)
    except np.linalg.LinAlgError:
        raise SolverError(
            "the fixed effects are so nearly collinear that their covariance matrix has lost all digits; "
            "centre the predictors or leave columns out"
        ) from None


def compare_fits(
    full: tuple[np.ndarray, np.ndarray],
    beta: np.ndarray,
    vcov: np.ndarray,
    rss: np.ndarray,
    removed: np.ndarray,
) -> Deletions:
    """`Deletions` from estimates without the rows: beta (J, p) and the matrices C_U (J, p, p).

    Parameters
    ----------
    full : tuple of ndarray
        beta (p,) and C (p, p) of the whole fit.
    """
    J, p = beta.shape
    root = root_of(full[1])
    relative = np.linalg.solve(root, np.linalg.solve(root, vcov).transpose(0, 2, 1))
    ok = np.isfinite(relative).all(axis=(1, 2)) & np.isfinite(beta).all(axis=1)
    values, vectors = np.full((J, p), np.nan), np.full((J, p, p), np.nan)
    values[ok], vectors[ok] = np.linalg.eigh(0.5 * (relative[ok] + relative[ok].transpose(0, 2, 1)))
    along = np.einsum("jab,ja->jb", vectors, np.linalg.solve(root, (full[0] - beta).T).T)
    return Deletions(
        beta,
        np.einsum("jaa->ja", vcov),
        (along**2).sum(axis=1) / p,
        (along**2 / values).sum(axis=1) / p,
        values.prod(axis=1),
        values.sum(axis=1),
        rss,
        removed,
    )


def delete_rows(
    diagonal: np.ndarray,
    B: np.ndarray,
    e: np.ndarray,
    beta: np.ndarray,
    vcov_unscaled: np.ndarray,
    rss: float,
) -> Deletions:
    r"""Each row left out, in O(n p^2): with :math:`b = B_i`, :math:`a = (V^{-1})_{ii}` and
    :math:`P_{ii} = a - b'Cb`,

    .. math:: d = C b\, e_i / P_{ii}, \qquad C_{(i)} = C + C b b' C / P_{ii}.

    Parameters
    ----------
    diagonal, B, e : ndarray, shapes (n,), (n, p) and (n,)
        Diagonal of V^{-1}, rows of ``V^{-1}X`` and of ``Py``.
    """
    p = B.shape[1]
    v = B @ vcov_unscaled
    fixed = np.einsum("np,np->n", B, v)
    P = diagonal - fixed
    P = np.where(P / diagonal > _ESTIMABLE, P, np.nan)
    gamma = e / P
    cook = gamma**2 * fixed
    return Deletions(
        beta - v * gamma[:, None],
        np.diagonal(vcov_unscaled) + v**2 / P[:, None],
        cook / p,
        (cook - (gamma * fixed) ** 2 / diagonal) / p,
        1.0 + fixed / P,
        p + fixed / P,
        rss - gamma * e,
        np.ones(len(e), dtype=np.intp),
    )


def _delete_sets(
    full: tuple[np.ndarray, np.ndarray],
    rss: float,
    G: np.ndarray,
    g: np.ndarray,
    s: np.ndarray,
    removed: np.ndarray,
) -> Deletions:
    r"""Estimates from what the rows U of each set contribute.

    With :math:`B = V^{-1}X`, :math:`e = Py` and :math:`A = (V^{-1})_{UU}`: :math:`G = B_U'A^{-1}B_U`,
    :math:`g = B_U'A^{-1}e_U`, :math:`s = e_U'A^{-1}e_U`, and

    .. math:: \hat\beta - \hat\beta_{(U)} = (X'V^{-1}X - G)^{-1} g, \qquad
              y'P_{(U)}y = y'Py - s - g'(X'V^{-1}X - G)^{-1}g.

    Parameters
    ----------
    G, g, s : ndarray, shapes (J, p, p), (J, p) and (J,)
    """
    beta, vcov = full
    p = beta.shape[0]
    # in coordinates where X'V^{-1}X is the identity: the eigenvalues are the shares of information kept
    root = root_of(vcov)
    values, vectors = np.linalg.eigh(np.eye(p) - root.T @ G @ root)
    values = np.where(values[:, :1] < _ESTIMABLE, np.nan, values)
    half = root @ vectors  # (J, p, p)
    along = np.einsum("jab,ja->jb", half, g)
    step = along / values
    return Deletions(
        beta - np.einsum("jab,jb->ja", half, step),
        np.einsum("jab,jb,jab->ja", half, 1.0 / values, half),
        (step**2).sum(axis=1) / p,
        (step * along).sum(axis=1) / p,
        1.0 / values.prod(axis=1),
        (1.0 / values).sum(axis=1),
        rss - s - (along * step).sum(axis=1),
        removed,
    )


def delete_groups(
    inverse: Any,
    codes: np.ndarray,
    count: int,
    B: np.ndarray,
    e: np.ndarray,
    beta: np.ndarray,
    vcov_unscaled: np.ndarray,
    rss: float,
) -> Deletions:
    """Each group of rows left out; groups are taken together in panels of a hundred rows or more.

    Parameters
    ----------
    inverse : RowInverse or InverseRows
    codes : ndarray of int, shape (n,)
        Group of each row, 0 .. count - 1, each with a row at least.
    """
    from scipy.linalg import cho_factor, cho_solve

    p = B.shape[1]
    sizes = np.bincount(codes, minlength=count)
    order = np.argsort(codes, kind="stable")
    edges = np.concatenate([[0], np.cumsum(sizes)])
    sums = np.zeros((count, p + 1, p + 1))
    BE = np.column_stack([B, e])
    first = 0
    while first < count:
        last = int(np.searchsorted(edges, edges[first] + _PANEL, side="right")) - 1
        last = max(last, first + 1)
        rows = order[edges[first] : edges[last]]
        groups = codes[rows]
        root = cho_factor(inverse.blocks(rows, groups), lower=True, check_finite=False, overwrite_a=True)
        part = BE[rows]
        product = part[:, :, None] * cho_solve(root, part, check_finite=False)[:, None, :]
        sums[first:last] = np.add.reduceat(product, edges[first:last] - edges[first], axis=0)
        first = last
    return _delete_sets(
        (beta, vcov_unscaled), rss, sums[:, :p, :p], sums[:, :p, p], sums[:, p, p], sizes.astype(np.intp)
    )
