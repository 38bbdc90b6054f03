"""The argument `known=`: pedigrees, relationship matrices, covariances and precisions between levels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from mixedmodels.design import KnownCovariance, LowRankCovariance, Precision
from mixedmodels.errors import DataError, OptionError, SolverError
from mixedmodels.frame.columns import Columns
from mixedmodels.frame.known import Known
from mixedmodels.frame.labels import level_labels

__all__ = ["Related", "Relatives", "as_known", "read_known"]

_SYMMETRY = 1e-8  # relative to the largest entry


class Relatives(Protocol):
    """A pedigree, as `known=` takes it: individuals with the sparse inverse of their relationships."""

    @property
    def ids(self) -> Any:
        """Labels of the individuals, in the order of the matrix."""
        ...

    @property
    def inbreeding(self) -> Any:
        """Coefficients of inbreeding: the diagonal of A is one more."""
        ...

    def additive_precision(self) -> tuple[Any, float]:
        """``A^{-1}``, sparse, and ``log|A|``."""
        ...


class Related(Protocol):
    """A relationship matrix, as `known=` takes it: dense in `matrix`, or by its precision."""

    @property
    def ids(self) -> Any:
        """Labels of the rows."""
        ...

    @property
    def matrix(self) -> Any:
        """The covariance matrix, if it is kept."""
        ...

    def as_precision(self) -> tuple[Any, float]:
        """``A^{-1}``, sparse, and ``log|A|``."""
        ...


def read_known(known: Any) -> dict[str, Known] | None:
    """The argument `known=`: a dict from grouping factors (or names used in ``known(... | g, name)``).

    Raises
    ------
    OptionError
        Not a dict, or a value that is not a known covariance.
    DataError
        A matrix that is not a covariance matrix, or ids that do not belong to it.

    Examples
    --------
    >>> found = read_known({"g": ([[1.0, 0.5], [0.5, 1.0]], ["a", "b"])})
    >>> found["g"].ids.tolist(), found["g"].between.matrix.toarray().round(3).tolist()
    (['a', 'b'], [[1.333, -0.667], [-0.667, 1.333]])
    """
    if known is None:
        return None
    if not isinstance(known, Mapping) or not known:
        raise OptionError(
            'known must be a dict from grouping factors to relationships, such as {"animal": pedigree}, '
            f"got {'an empty dict' if isinstance(known, Mapping) else type(known).__name__}"
        )
    return {str(name): as_known(value, str(name)) for name, value in known.items()}


def as_known(value: Any, name: str) -> Known:
    """One known covariance.

    Parameters
    ----------
    value : object
        A `Known`; a pedigree (`Relatives`) or relationship (`Related`); a tuple (covariance matrix, ids); a
        square data frame whose columns are named by the ids; or a dict with ``"ids"`` and ``"covariance"`` or
        ``"precision"`` (and, if it is known, ``"logdet"``, the log-determinant of the covariance) or
        ``"factor"``, W with fewer columns than rows of a covariance ``W W'`` that is not formed.
    name : str
        Its name in `known=`.
    """
    if isinstance(value, Known):
        return value
    where = f"known[{name!r}]"
    if hasattr(value, "ids") and callable(getattr(value, "additive_precision", None)):
        matrix, logdet = value.additive_precision()
        between = Precision(matrix, float(logdet), 1.0 + np.asarray(value.inbreeding))
        return Known(_ids(value.ids, matrix.shape[0], where), between)
    if hasattr(value, "ids") and callable(getattr(value, "as_precision", None)):
        if isinstance(value.matrix, np.ndarray):
            return _from_covariance(value.matrix, value.ids, where)
        matrix, logdet = value.as_precision()
        return Known(_ids(value.ids, matrix.shape[0], where), Precision(matrix, float(logdet)))
    if isinstance(value, tuple) and len(value) == 2:
        return _from_covariance(value[0], value[1], where)
    if isinstance(value, Mapping):
        if "ids" not in value or sum(name in value for name in ("precision", "covariance", "factor")) != 1:
            raise OptionError(
                f"{where} must have 'ids' and one of 'precision' and 'covariance' (or 'factor')"
            )
        if "factor" in value:
            return _from_factor(value["factor"], value["ids"], where)
        if "covariance" in value:
            return _from_covariance(value["covariance"], value["ids"], where)
        return _from_precision(value["precision"], value["ids"], value.get("logdet"), where)
    if hasattr(value, "columns") or hasattr(value, "__dataframe__"):
        return _from_table(value, where)
    raise OptionError(
        f"{where} must be a pedigree, (matrix, ids), a data frame with named rows and columns, or a dict "
        f"with 'ids' and 'precision'; got {type(value).__name__}"
    )


def _ids(ids: Any, m: int, where: str) -> np.ndarray:
    """Ids as an array of integers or texts, all different."""
    items = np.asarray(ids)
    if items.dtype.kind not in "iuUS" and any(v is None or v != v for v in items.ravel()):
        at = next(i for i, v in enumerate(items.ravel()) if v is None or v != v)
        raise DataError(f"{where}: the id of row {at} is missing; every row of the matrix needs one")
    if items.ndim != 1 or items.shape[0] != m:
        raise DataError(f"{where} has {items.size} ids for a matrix of {m} rows; give one id per row")
    if items.dtype.kind not in "iu":
        texts = np.empty(m, dtype=object)
        texts[:] = level_labels(list(ids))
        items = texts
    unique, counts = np.unique(items, return_counts=True)
    if unique.shape[0] < m:
        twice = ", ".join(map(str, unique[counts > 1][:5]))
        raise DataError(f"{where} has ids that occur more than once: {twice}; every id needs one row")
    return items


def _square(matrix: Any, where: str) -> Any:
    """A symmetric matrix with finite entries, as float64: dense, or sparse as it was given."""
    from scipy import sparse

    out = matrix if sparse.issparse(matrix) else np.asarray(matrix)
    if out.ndim != 2 or out.shape[0] != out.shape[1]:
        raise DataError(f"{where} has shape {out.shape}; it must be a square matrix")
    try:
        out = out.astype(np.float64)
    except (TypeError, ValueError):
        raise DataError(f"{where} holds values that are not numbers") from None
    values = out.data if sparse.issparse(out) else out
    if not np.isfinite(values).all():
        raise DataError(f"{where} holds values that are missing or infinite; complete the matrix")
    if not out.shape[0]:
        raise DataError(f"{where} is empty")
    if abs(out - out.T).max() > _SYMMETRY * abs(out).max():
        raise DataError(f"{where} is not symmetric; give a covariance matrix")
    return 0.5 * (out + out.T)


def _from_covariance(matrix: Any, ids: Any, where: str) -> Known:
    from scipy import sparse

    A = _square(matrix, where)
    if sparse.issparse(A):
        A = A.toarray()
    labels = _ids(ids, A.shape[0], where)
    variances = np.diagonal(A)
    if (variances <= 0.0).any():
        first = int(np.argmax(variances <= 0.0))
        raise DataError(
            f"{where} is not a covariance matrix: the variance of {labels[first]} is {variances[first]:g}; "
            "leave such ids out"
        )
    return Known(labels, KnownCovariance(A, where))


def _from_factor(factor: Any, ids: Any, where: str) -> Known:
    """A covariance by its factor W, (m, r)."""
    try:
        W = np.array(factor, dtype=np.float64)
    except (TypeError, ValueError):
        raise DataError(f"{where}: the factor holds values that are not numbers") from None
    if W.ndim != 2 or not W.size:
        raise DataError(
            f"{where}: the factor has shape {W.shape}; it needs a row per id and a column per marker"
        )
    if not np.isfinite(W).all():
        raise DataError(f"{where}: the factor holds values that are missing or infinite; complete it")
    labels = _ids(ids, W.shape[0], where)
    still = ~W.any(axis=1)
    if still.any():
        raise DataError(
            f"{where}: the row of {labels[int(np.argmax(still))]} is zero, its variance is 0; leave such ids "
            "out"
        )
    return Known(labels, LowRankCovariance(W, where))


def _from_table(data: Any, where: str) -> Known:
    """A square table: ids name its columns and, where they have names, its rows."""
    columns = Columns(data)
    names = list(columns)
    rows: list[Any] | None = None
    if len(names) == columns.n_rows + 1:
        factor = columns.factor(names[0])
        rows = [factor.levels[code] for code in factor.codes]
        names = names[1:]
    elif hasattr(data, "index") and not callable(data.index):
        rows = list(data.index)
        rows = None if rows == list(range(len(rows))) else rows
    if rows is not None and level_labels(rows) != level_labels(names):
        raise DataError(f"{where}: the rows and columns of the table have different ids or another order")
    values = [columns[name] for name in names]
    if not all(isinstance(value, np.ndarray) for value in values):
        raise DataError(f"{where} holds values that are not numbers")
    return _from_covariance(np.column_stack(values), names, where)  # type: ignore[arg-type]


def _from_precision(matrix: Any, ids: Any, logdet: Any, where: str) -> Known:
    from scipy import sparse

    P = sparse.csc_array(_square(matrix, where))
    labels = _ids(ids, P.shape[0], where)
    if logdet is None:
        from mixedmodels.solver.sparse_cholesky import SparseCholesky

        try:
            logdet = -SparseCholesky(P).logdet
        except SolverError as error:
            raise DataError(f"{where}: the precision matrix is not usable: {error}") from None
    return Known(labels, Precision(P, float(logdet)))
