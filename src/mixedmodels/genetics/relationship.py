"""Known covariances between individuals, in whatever form they come: what ``known={"animal": ...}`` takes."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import DataError, OptionError, SolverError
from mixedmodels.genetics.labels import Finder, label_column
from mixedmodels.genetics.pedigree import Pedigree

if TYPE_CHECKING:
    from mixedmodels.solver.sparse_cholesky import SparseCholesky

__all__ = ["Relationship", "as_relationship", "invert", "logdet_of"]


@dataclass(frozen=True, eq=False, repr=False)
class Relationship:
    """A covariance matrix A (up to a variance) between labelled individuals, or its inverse.

    Attributes
    ----------
    ids : ndarray, shape (n,)
        Distinct labels of the rows.
    matrix : ndarray or scipy sparse array, shape (n, n), or None
        A.
    precision : ndarray or scipy sparse array, shape (n, n), or None
        ``A^{-1}``; one of `matrix` and `precision` is given.
    logdet : float or None
        ``log|A|``, if known.
    name : str
        For instance "additive".
    block : callable or None
        ``block(rows) -> A[rows, rows]``, where that is cheaper than the inverse of `precision`.
    notes : tuple of str
        What was done to the data (imputed genotypes, ...).
    remedy : str
        What to do if A turns out to be singular.

    Examples
    --------
    >>> r = Relationship(ids=np.array(["a", "b"]), matrix=np.array([[1.0, 0.5], [0.5, 1.0]]))
    >>> r.as_precision()[0].toarray().round(3)
    array([[ 1.333, -0.667],
           [-0.667,  1.333]])
    """

    ids: np.ndarray
    matrix: Any = None
    precision: Any = None
    logdet: float | None = None
    name: str = "known"
    block: Callable[[np.ndarray], np.ndarray] | None = None
    notes: tuple[str, ...] = ()
    remedy: str = "remove duplicated individuals (clones, monozygotic twins) or use its .bend()"

    def __post_init__(self) -> None:
        given = self.matrix if self.matrix is not None else self.precision
        if given is None:
            raise OptionError(f"relationship {self.name!r} needs a matrix or a precision")
        if getattr(given, "ndim", 0) != 2 or given.shape[0] != given.shape[1]:
            shape = " x ".join(map(str, getattr(given, "shape", ())))
            raise DataError(f"the matrix of relationship {self.name!r} is {shape}; it must be square")
        if given.shape[0] != len(self.ids):
            raise DataError(
                f"relationship {self.name!r} has {len(self.ids)} ids and a matrix of {given.shape[0]} rows; "
                "give one id per row"
            )
        if len(set(self.ids.tolist())) != len(self.ids):
            listed = sorted(self.ids.tolist(), key=str)
            twice = next(a for a, b in itertools.pairwise(listed) if a == b)
            raise DataError(
                f"the id {str(twice)!r} stands twice in relationship {self.name!r}; ids must be distinct"
            )
        values = given if isinstance(given, np.ndarray) else given.data
        if not np.all(np.isfinite(values)):
            raise DataError(f"the matrix of relationship {self.name!r} holds NaN or infinite values")
        gap = abs(given - given.T)
        scale = float(np.max(np.abs(values))) if np.size(values) else 0.0
        if np.size(values) and float(gap.max()) > 1e-8 * scale:
            raise DataError(
                f"the matrix of relationship {self.name!r} is not symmetric (gap {float(gap.max()):.2g})"
            )

    def __len__(self) -> int:
        """Number of individuals."""
        return len(self.ids)

    def __repr__(self) -> str:
        form = "matrix" if self.matrix is not None else "precision"
        given = self.matrix if self.matrix is not None else self.precision
        kind = "dense" if isinstance(given, np.ndarray) else "sparse"
        return f"<Relationship {self.name!r}: {len(self)} individuals, {kind} {form}>"

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.toarray(), dtype=dtype)

    @cached_property
    def _finder(self) -> Finder:
        return Finder(self.ids)

    def index(self, labels: Any) -> np.ndarray:
        """Position of each label, (k,) int64; -1 for labels that are not among the ids.

        Whole numbers and their texts are the same label.
        """
        return self._finder.positions(labels)

    def toarray(self) -> np.ndarray:
        """The covariance matrix A, dense, (n, n)."""
        if self.matrix is not None:
            return self.matrix if isinstance(self.matrix, np.ndarray) else self.matrix.toarray()
        if self.block is not None:
            return self.block(np.arange(len(self)))
        precision = self.precision if isinstance(self.precision, np.ndarray) else self.precision.toarray()
        return invert(precision, self.name)[0]

    def subset(self, labels: Any) -> Relationship:
        """The relationships of some individuals, in the given order (the marginal covariance).

        Raises
        ------
        DataError
            A label that is not among the ids.
        """
        at = self.index(labels)
        if np.any(at < 0):
            wanted = np.atleast_1d(np.asarray(labels, dtype=object))
            raise DataError(f"relationship {self.name!r} has no individual {str(wanted[at < 0][0])!r}")
        if self.matrix is not None:
            matrix = self.matrix if isinstance(self.matrix, np.ndarray) else self.matrix.tocsr()
            part = matrix[at][:, at]
            part = part if isinstance(part, np.ndarray) else part.tocsc()
        elif self.block is not None:
            part = self.block(at)
        else:
            part = _columns_of_inverse(self.precision, at, self.name)
        return Relationship(
            ids=self.ids[at], matrix=part, name=self.name, notes=self.notes, remedy=self.remedy
        )

    def as_precision(self) -> tuple[Any, float]:
        """``A^{-1}`` as `scipy.sparse.csc_array` (n, n), and ``log|A|``.

        Raises
        ------
        SolverError
            A is not positive definite; `bend` makes it so.
        """
        from scipy.sparse import csc_array

        if self.precision is not None:
            precision = self.precision
            logdet = self.logdet
            if logdet is None:
                logdet = -logdet_of(precision, self.name)
            return csc_array(precision), logdet
        if not isinstance(self.matrix, np.ndarray):
            found = _inverse_by_blocks(self.matrix, self.name, self.remedy)
            if found is not None:
                return found
        inverse, logdet = invert(self.toarray(), self.name, self.remedy)
        return csc_array(inverse), logdet

    def hadamard(self, other: Relationship | None = None) -> Relationship:
        """Products entry by entry: epistatic relationships (additive by additive without `other`).

        Parameters
        ----------
        other : Relationship, optional
            Of the same individuals, in any order.

        Returns
        -------
        Relationship
            In the order of this one.

        Notes
        -----
        Source: Cockerham (1954), Genetics 39, 859-882.
        """
        other = self if other is None else other
        matrix: Any = self.matrix if self.matrix is not None else self.toarray()
        name = f"{self.name} x {other.name}"
        if other is self:
            second: Any = matrix
        else:
            at = other.index(self.ids)
            if np.any(at < 0) or len(other) != len(self):
                raise DataError(
                    f"relationships {self.name!r} and {other.name!r} are not of the same individuals"
                )
            second = other.subset(self.ids).matrix
        if isinstance(matrix, np.ndarray) and isinstance(second, np.ndarray):
            product: Any = matrix * second
        elif isinstance(matrix, np.ndarray):
            product = second.multiply(matrix).tocsc()
        else:
            product = matrix.multiply(second).tocsc()
        return Relationship(ids=self.ids, matrix=product, name=name, notes=(*self.notes, *other.notes))

    def bend(self, smallest: float = 1e-3) -> Relationship:
        """A with its eigenvalues raised to at least ``smallest`` times the largest: positive definite.

        Parameters
        ----------
        smallest : float
            Least ratio to the largest eigenvalue, positive.
        """
        if not smallest > 0:
            raise OptionError(f"smallest={smallest!r}: give a positive ratio")
        from scipy.linalg import eigh

        values, vectors = eigh(self.toarray())
        low = values < smallest * values[-1]
        if not low.any():
            return self
        raised = np.maximum(values, smallest * values[-1])
        note = (
            f"relationship {self.name!r}: {int(low.sum())} of {len(values)} eigenvalues (least "
            f"{values[0]:.3g}) raised to {smallest * values[-1]:.3g}"
        )
        matrix = (vectors * raised) @ vectors.T
        return Relationship(
            ids=self.ids, matrix=(matrix + matrix.T) / 2, name=self.name, notes=(*self.notes, note)
        )


def _not_definite(name: str, matrix: np.ndarray, remedy: str) -> SolverError:
    from scipy.linalg import eigvalsh

    least = float(eigvalsh(matrix, subset_by_index=[0, 0])[0]) if len(matrix) else 0.0
    return SolverError(
        f"the matrix of relationship {name!r} is not positive definite (least eigenvalue {least:.3g}); "
        f"{remedy}"
    )


_BEND = "use its .bend()"
_SINGULAR = 1e-6  # pivot over the square root of the largest diagonal entry


def invert(matrix: np.ndarray, name: str, remedy: str = _BEND) -> tuple[np.ndarray, float]:
    """Inverse and log-determinant of a symmetric positive definite matrix; SolverError with `remedy` if it is
    not.
    """
    from scipy.linalg.lapack import dpotrf, dpotri

    if not len(matrix):
        return matrix.copy(), 0.0
    factor, info = dpotrf(matrix, lower=1)
    diagonal = np.diagonal(factor)
    if info or diagonal.min() <= _SINGULAR * np.sqrt(np.diagonal(matrix).max()):
        raise _not_definite(name, matrix, remedy)
    inverse, info = dpotri(factor, lower=1)
    inverse = np.tril(inverse) + np.tril(inverse, -1).T
    return inverse, 2.0 * float(np.sum(np.log(diagonal)))


def _invert_stack(stack: np.ndarray, name: str, remedy: str) -> tuple[np.ndarray, float]:
    """Inverses and the sum of log-determinants of many small matrices, (g, k, k)."""
    try:
        factor = np.linalg.cholesky(stack)
    except np.linalg.LinAlgError:
        factor = None
    if factor is not None:
        diagonal = np.diagonal(factor, axis1=1, axis2=2)
        largest = np.sqrt(np.diagonal(stack, axis1=1, axis2=2).max(axis=1))
        if np.all(diagonal.min(axis=1) > _SINGULAR * largest):
            inverse = np.linalg.inv(stack)
            return (inverse + inverse.transpose(0, 2, 1)) / 2, 2.0 * float(np.sum(np.log(diagonal)))
    for block in stack:
        invert(block, name, remedy)  # raises for the first one that is singular
    raise _not_definite(name, stack[0], remedy)


def _factor(matrix: Any, name: str) -> SparseCholesky:
    from mixedmodels.solver.sparse_cholesky import SparseCholesky

    try:
        return SparseCholesky(matrix)
    except SolverError as error:
        raise SolverError(f"the precision of relationship {name!r}: {error}") from None


def logdet_of(matrix: Any, name: str) -> float:
    """``log|matrix|`` of a symmetric positive definite matrix, dense or sparse; SolverError if it is not."""
    if isinstance(matrix, np.ndarray):
        return invert(matrix, name)[1]
    return _factor(matrix, name).logdet


def _columns_of_inverse(precision: Any, at: np.ndarray, name: str) -> np.ndarray:
    """A[at, at] from its inverse, by solves."""
    unit = np.zeros((precision.shape[0], len(at)))
    unit[at, np.arange(len(at))] = 1.0
    if isinstance(precision, np.ndarray):
        part = np.linalg.solve(precision, unit)[at]
    else:
        part = _factor(precision, name).solve(unit)[at]
    return (part + part.T) / 2


def _inverse_by_blocks(matrix: Any, name: str, remedy: str) -> tuple[Any, float] | None:
    """Inverse of a sparse matrix of unconnected families, all families of one size at once; None for one
    family.
    """
    from scipy.sparse import csc_array
    from scipy.sparse.csgraph import connected_components

    count, label = connected_components(matrix, directed=False)
    if count <= 1:
        return None
    sizes = np.bincount(label, minlength=count)
    order = np.argsort(label, kind="stable")
    start = np.concatenate([[0], np.cumsum(sizes)])
    place = np.empty(len(label), dtype=np.int64)
    place[order] = np.arange(len(label)) - start[label[order]]  # within the family
    entries = matrix.tocoo()
    size_of_entry = sizes[label[entries.row]]
    rows, columns, values, logdet = [], [], [], 0.0
    for k in np.unique(sizes).tolist():
        families = np.flatnonzero(sizes == k)
        number = np.full(count, -1, dtype=np.int64)
        number[families] = np.arange(len(families))
        stack = np.zeros((len(families), k, k))
        here = size_of_entry == k
        i, j = entries.row[here], entries.col[here]
        stack[number[label[i]], place[i], place[j]] = entries.data[here]
        inverse, log = _invert_stack(stack, name, remedy)
        logdet += log
        members = order[start[families][:, None] + np.arange(k)]
        rows.append(np.repeat(members, k, axis=1).ravel())
        columns.append(np.tile(members, (1, k)).ravel())
        values.append(inverse.ravel())
    whole = (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns)))
    return csc_array(whole, shape=matrix.shape), logdet


def as_relationship(known: Any, name: str = "known") -> Relationship:
    """A `Relationship` from anything that ``known={"animal": ...}`` takes.

    Parameters
    ----------
    known : Pedigree, Relationship, (matrix, ids) or data frame
        A pedigree means its additive relationships. A square data frame has one column per individual with
        the id as its name; a further first column (or the frame's index) may repeat the ids in the same
        order.
    name : str
        Name for messages.

    Returns
    -------
    Relationship

    Raises
    ------
    OptionError, DataError
        It is something else, or not a symmetric matrix with one distinct id per row.
    """
    if isinstance(known, Relationship):
        return known
    if isinstance(known, Pedigree):
        return known.additive()
    if isinstance(known, tuple) and len(known) == 2 and hasattr(known[0], "shape"):
        matrix, ids = known
        if hasattr(matrix, "toarray"):
            from scipy.sparse import csc_array

            matrix = csc_array(matrix)
        else:
            matrix = np.asarray(matrix, dtype=float)
        return Relationship(ids=label_column(np.asarray(ids), "ids"), matrix=matrix, name=name)
    if not isinstance(known, (str, bytes, np.ndarray, list, tuple, int, float)) and known is not None:
        try:
            return _from_frame(known, name)
        except DataError:
            if hasattr(known, "columns") or hasattr(known, "keys"):
                raise
    raise OptionError(
        f"{name}: a known covariance is a Pedigree, a Relationship, a pair (matrix, ids) or a square data "
        f"frame with ids as column names, not {type(known).__name__}"
    )


def _is_fraction(raw: Any) -> bool:
    """Whether a column holds numbers that are not whole: no ids."""
    values = np.asarray(raw) if not hasattr(raw, "levels") else np.zeros(0)
    return values.dtype.kind == "f" and bool(np.any(values != np.floor(values)))


def _from_frame(data: Any, name: str) -> Relationship:
    from mixedmodels.frame.columns import Columns

    columns = Columns(data)
    names = list(columns.names)
    if len(names) == columns.n_rows + 1 and not _is_fraction(columns.raw(names[0])):
        ids = [str(v) for v in label_column(columns.raw(names[0]), str(names[0])).tolist()]
        names = names[1:]
        if ids != [str(label) for label in names]:
            raise DataError(
                f"{name}: the first column of the matrix and its column names differ; give the same ids in "
                "the same order"
            )
    if len(names) != columns.n_rows:
        raise DataError(
            f"{name}: the matrix has {columns.n_rows} rows and {len(names)} columns; it must be square"
        )
    index = getattr(data, "index", None)
    rows = list(range(len(names))) if index is None or callable(index) else list(index)
    if rows != list(range(len(names))) and list(map(str, rows)) != list(map(str, names)):
        raise DataError(
            f"{name}: rows and columns of the matrix have different ids; give them in the same order"
        )
    matrix = np.empty((len(names), len(names)))
    for j, label in enumerate(names):
        values = columns[label]
        if not isinstance(values, np.ndarray):
            raise DataError(f"{name}: column {str(label)!r} of the matrix holds texts")
        matrix[:, j] = values
    ids_array = np.empty(len(names), dtype=object)
    ids_array[:] = [v if isinstance(v, int) else str(v) for v in names]
    return Relationship(ids=label_column(ids_array, "ids"), matrix=matrix, name=name)
