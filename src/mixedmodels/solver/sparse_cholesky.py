"""Sparse Cholesky factorisation with the inverse on the pattern of the factor."""

from __future__ import annotations

from typing import Any

import numpy as np

from mixedmodels.errors import SolverError
from mixedmodels.solver._kernels.sparse import SparseFactor

__all__ = ["SparseCholesky"]


class SparseCholesky:
    r"""Cholesky factor of a symmetric positive definite sparse matrix, :math:`P S P' = L L'`.

    P is an approximate minimum-degree order (Amestoy, Davis & Duff 1996). L is kept by supernodes, whose
    dense blocks go through BLAS, and its last columns, where fill makes them dense anyway, are one dense
    triangle. Entries of :math:`S^{-1}` on the pattern of L come from the recurrence of Takahashi, Fagan &
    Chin (1973; Erisman & Tinney 1975), without the other entries.

    Parameters
    ----------
    matrix : scipy sparse matrix or array, shape (n, n)
        Symmetric, both triangles given. Explicit zeros count as part of the pattern.

    Attributes
    ----------
    n : int

    Raises
    ------
    SolverError
        The matrix is not square, symmetric, finite or positive definite.

    Examples
    --------
    >>> import numpy as np
    >>> from scipy import sparse
    >>> S = sparse.csc_array([[4.0, 1.0, 0.0], [1.0, 3.0, 0.0], [0.0, 0.0, 2.0]])
    >>> factor = SparseCholesky(S)
    >>> factor.solve(np.array([5.0, 4.0, 2.0])).round(12).tolist()
    [1.0, 1.0, 1.0]
    >>> round(float(np.exp(factor.logdet)), 9)
    22.0
    >>> factor.inverse_diagonal().round(4).tolist()
    [0.2727, 0.3636, 0.5]
    """

    # Pivots kept in the sparse head (-1: by cost) and threads (0: all); here so that tests can change them.
    _cut = -1
    _threads = 0

    def __init__(self, matrix: Any) -> None:
        from scipy import sparse

        if not sparse.issparse(matrix):
            raise SolverError(
                "SparseCholesky takes a scipy sparse matrix; for an array use numpy.linalg.cholesky"
            )
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
            raise SolverError(f"a Cholesky factor needs a square matrix, this one has shape {matrix.shape}")
        matrix = sparse.csc_array(matrix, dtype=np.float64, copy=True)
        matrix.sum_duplicates()
        n = self.n = int(matrix.shape[0])
        self._indptr, self._indices = matrix.indptr, matrix.indices
        columns = np.repeat(np.arange(n, dtype=np.intc), np.diff(matrix.indptr))
        rows = matrix.indices.astype(np.intc)
        self._mirror = _mirror(rows, columns, n)
        off = rows != columns
        edges = np.concatenate([[0], np.cumsum(np.bincount(columns[off], minlength=n))])
        self._factor = SparseFactor(edges, rows[off], cut=self._cut, n_threads=self._threads)
        self._rows, self._columns = rows, columns
        self._places = self._factor.places(rows, columns)
        self._lower = np.flatnonzero(rows >= columns)
        self._lower_places = np.ascontiguousarray(self._places[self._lower])
        self.refactor(matrix.data)

    def refactor(self, data: np.ndarray | Any) -> SparseCholesky:
        """Factor another matrix with the same pattern; order and symbolic analysis are kept.

        Parameters
        ----------
        data : ndarray, shape (nnz,), or sparse matrix
            Values in the order of the first matrix as ``csc`` (columns, rows ascending within each), or a
            matrix with the same pattern.

        Returns
        -------
        SparseCholesky
            This object.

        Raises
        ------
        SolverError
            The pattern differs, the matrix is not symmetric, not finite or not positive definite.
        """
        from scipy import sparse

        if sparse.issparse(data):
            given = sparse.csc_array(data, dtype=np.float64, copy=True)
            given.sum_duplicates()
            same = given.shape == (self.n, self.n) and np.array_equal(given.indptr, self._indptr)
            if not same or not np.array_equal(given.indices, self._indices):
                raise SolverError(
                    "the matrix has another pattern than the one analysed; make a new SparseCholesky"
                )
            data = given.data
        data = np.ascontiguousarray(data, dtype=np.float64)
        if data.shape != self._rows.shape:
            raise SolverError(f"{self._rows.size} values are needed for this pattern, got {data.size}")
        if not np.isfinite(data).all():
            raise SolverError("the matrix holds values that are not finite")
        difference = np.abs(data - data[self._mirror])
        if data.size and difference.max() > 1e-8 * np.abs(data).max():
            q = int(difference.argmax())
            raise SolverError(
                f"the matrix is not symmetric: element ({self._rows[q]}, {self._columns[q]}) differs from "
                "its mirror image; give (S + S')/2"
            )
        if not self._factor.factor(self._lower_places, data[self._lower]):
            diagonal = data[self._rows == self._columns]
            where = np.flatnonzero(self._rows == self._columns)
            detail = "its smallest eigenvalue is not above rounding error"
            if where.size < self.n:
                missing = np.setdiff1d(np.arange(self.n), self._rows[where])
                detail = f"its diagonal element {missing[0]} is 0"
            elif diagonal.min() <= 0.0:
                q = int(diagonal.argmin())
                detail = f"its diagonal element {q} is {diagonal[q]:.6g}"
            raise SolverError(f"the matrix is not positive definite: {detail}")
        return self

    # ------------------------------------------------------------------ what the factor gives
    @property
    def logdet(self) -> float:
        """Log-determinant of the matrix."""
        return float(self._factor.logdet)

    @property
    def nnz(self) -> int:
        """Entries of L, zeros inside its dense blocks included."""
        return int(self._factor.sizes["nnz_L"])

    @property
    def order(self) -> np.ndarray:
        """Column of the matrix at each place of the factor, shape (n,)."""
        return self._factor.order

    def describe(self) -> str:
        """One line: sizes of the factor."""
        sizes = self._factor.sizes
        return (
            f"sparse Cholesky: {sizes['columns']} columns in minimum-degree order, {sizes['supernodes']} "
            f"supernodes, dense tail of {sizes['tail_columns']}, {sizes['nnz_L']} entries"
        )

    def _columnwise(self, B: Any, mode: int) -> np.ndarray:
        self._require()
        B = np.asarray(B, dtype=np.float64)
        if B.ndim not in (1, 2) or B.shape[0] != self.n:
            raise SolverError(f"right-hand sides need {self.n} rows, got an array of shape {B.shape}")
        columns = np.ascontiguousarray(B.reshape(self.n, -1) if B.size else np.zeros((self.n, 0)))
        if not np.isfinite(columns).all():
            raise SolverError("the right-hand side holds values that are not finite")
        return self._factor.solve(columns, mode).reshape(B.shape)

    def _require(self) -> None:
        if not self._factor.ready:
            raise SolverError("the last matrix was not positive definite; call refactor with one that is")

    def solve(self, B: np.ndarray) -> np.ndarray:
        """``S^{-1} B``.

        Parameters
        ----------
        B : ndarray, shape (n,) or (n, r)

        Returns
        -------
        ndarray, the shape of B
        """
        return self._columnwise(B, 0)

    def half_solve(self, B: np.ndarray, transposed: bool = False) -> np.ndarray:
        """``L^{-1} P B``, so that ``half'half = B'S^{-1}B``; or, transposed, ``P'L^{-T} B``.

        Parameters
        ----------
        B : ndarray, shape (n,) or (n, r)
        transposed : bool
            With standard normal columns B the result then has covariance ``S^{-1}``.

        Returns
        -------
        ndarray, the shape of B
        """
        return self._columnwise(B, 2 if transposed else 1)

    def selected_inverse(self) -> Any:
        """Entries of ``S^{-1}`` on the pattern of S.

        Returns
        -------
        scipy.sparse.csc_array, shape (n, n)
            Symmetric; entries outside the pattern are left out, not zero.
        """
        from scipy import sparse

        self._require()
        data = self._factor.inverse_at(self._places)
        return sparse.csc_array((data, self._indices.copy(), self._indptr.copy()), shape=(self.n, self.n))

    def inverse_diagonal(self) -> np.ndarray:
        """Diagonal of ``S^{-1}``, shape (n,)."""
        self._require()
        every = np.arange(self.n, dtype=np.intc)
        return self._factor.inverse_at(self._factor.places(every, every))

    def inverse_entries(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Single entries of ``S^{-1}`` that lie in the pattern of L; NaN for the others.

        Parameters
        ----------
        rows, columns : ndarray of int, the same shape

        Returns
        -------
        ndarray
        """
        self._require()
        rows, columns = np.broadcast_arrays(np.asarray(rows), np.asarray(columns))
        if rows.size and not (
            min(rows.min(), columns.min()) >= 0 and max(rows.max(), columns.max()) < self.n
        ):
            raise SolverError(f"row and column numbers must lie in 0 .. {self.n - 1}")
        flat = [np.ascontiguousarray(v.ravel(), dtype=np.intc) for v in (rows, columns)]
        places = self._factor.places(*flat)
        out = np.full(places.size, np.nan)
        inside = places >= 0
        out[inside] = self._factor.inverse_at(places[inside])
        return out.reshape(rows.shape)


def _mirror(rows: np.ndarray, columns: np.ndarray, n: int) -> np.ndarray:
    """For each entry (sorted by column, then row) the number of the entry (column, row)."""
    key = columns.astype(np.int64) * n + rows
    wanted = rows.astype(np.int64) * n + columns
    at = np.searchsorted(key, wanted)
    lost = at >= key.size
    at[lost] = 0
    lost |= key[at] != wanted if key.size else lost
    if lost.any():
        q = int(np.flatnonzero(lost)[0])
        raise SolverError(
            f"the matrix is not symmetric: element ({columns[q]}, {rows[q]}) is missing; give both triangles"
        )
    return at
