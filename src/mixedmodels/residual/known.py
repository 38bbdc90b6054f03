"""A known covariance between occasions, and one given by a function of the user."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mixedmodels.errors import DataError, OptionError
from mixedmodels.residual.data import Levels, ResidualData
from mixedmodels.residual.structure import BoundCorrelation, CorrelationStructure
from mixedmodels.residual.table import TableCorrelation
from mixedmodels.residual.times import check_distinct, row_places

__all__ = ["Function", "Known"]


class _Occasions(CorrelationStructure):
    """Base of structures that take their entries from a matrix over occasions."""

    kind = "factor"

    def __init__(
        self,
        occasion: str | None,
        group: str | None,
        by: str | None,
        labels: Sequence[Any] | None,
    ) -> None:
        self.labels = None if labels is None else tuple(_label(one) for one in labels)
        super().__init__(() if occasion is None else (occasion,), group, by, None)

    def places(
        self, data: ResidualData, codes: np.ndarray, group_labels: tuple[str, ...] | None, size: int | None
    ) -> tuple[np.ndarray, tuple[str, ...]]:
        """Place of each row in the matrix, and the labels of the places."""
        if not self.covariates:
            inside = row_places(codes).astype(np.intp)
            if self.group is None and size is not None:
                if data.rows is not None:  # rows that are left out keep their places
                    inside = np.asarray(data.rows, dtype=np.intp)
                elif size != data.n:
                    raise DataError(
                        f"{self}: the matrix has {size} rows, the data {data.n}; give one row of the matrix "
                        "for each row of the data, or name occasions and groups"
                    )
            m = int(inside.max(initial=0)) + 1 if size is None else size
            if inside.max(initial=0) >= m:
                raise DataError(
                    f"{self}: a group has {int(inside.max()) + 1} rows, but the matrix has only {m} "
                    "occasions; "
                    "give a larger matrix or name the occasions with occasion="
                )
            return inside, tuple(str(one + 1) for one in range(m))
        levels = data.factor(self.covariates[0], f"{self.tag}()")
        check_distinct(codes, levels.codes, group_labels, self, data, levels.labels)
        table, labels = self._table(levels, size)
        return table[levels.codes], labels

    def _table(self, levels: Levels, size: int | None) -> tuple[np.ndarray, tuple[str, ...]]:
        """Place of each level."""
        m = len(levels.labels) if size is None else size
        numbered = tuple(str(one + 1) for one in range(m))
        if self.labels is not None:
            labels = self.labels
        elif set(levels.labels) <= set(numbered):
            labels = numbered
        elif len(levels.labels) == m:
            labels = levels.labels
        else:
            raise DataError(
                f"{self}: {self.covariates[0]} has {len(levels.labels)} levels, but the matrix has {m} "
                "occasions; "
                "say which they are with labels="
            )
        absent = [one for one in levels.labels if one not in labels]
        if absent:
            raise DataError(
                f"{self}: {self.covariates[0]} has the level {absent[0]!r}, which is not among the "
                "labels of the "
                f"matrix ({', '.join(labels[:20])}); add it to labels="
            )
        return np.array([labels.index(one) for one in levels.labels], dtype=np.intp), labels


class Known(_Occasions):
    r"""A known covariance between the rows of a group, up to sigma: ``Known(V, occasion=, group=)``.

    .. math:: \mathrm{Var}(e_g) = \sigma^2 V_{o(g), o(g)}

    with o(g) the occasions at which the group was observed.

    Parameters
    ----------
    V : array, shape (m, m)
        Symmetric, positive definite.
    occasion : str, optional
        A factor with the occasion of each row; by default the rows of a group are the occasions 1, 2, ...
    group : str, optional
    labels : sequence, optional
        Occasions of the rows of V: by default 1 .. m where the occasions are such numbers, otherwise the
        levels of `occasion` in order.

    Raises
    ------
    OptionError
        V is not a positive definite matrix.
    """

    tag = "known"

    def __init__(
        self,
        V: Any,
        occasion: str | None = None,
        group: str | None = None,
        *,
        labels: Sequence[Any] | None = None,
    ) -> None:
        if isinstance(V, str):
            raise OptionError(
                "known() takes a matrix, which text cannot hold: write mixedmodels.residual.Known(V, "
                "occasion=..., group=...) instead of text"
            )
        matrix = np.array(V, dtype=np.float64)
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or matrix.shape[0] < 1:
            raise OptionError(f"Known(): V must be a square matrix, got shape {matrix.shape}")
        if not np.all(np.isfinite(matrix)) or not np.allclose(
            matrix, matrix.T, rtol=1e-10, atol=1e-10 * np.abs(matrix).max()
        ):
            raise OptionError("Known(): V must be symmetric and finite")
        try:
            np.linalg.cholesky(matrix)
        except np.linalg.LinAlgError:
            raise OptionError(
                "Known(): V is not positive definite; add a small multiple of the identity"
            ) from None
        if labels is not None and len(labels) != matrix.shape[0]:
            raise OptionError(f"Known(): {len(labels)} labels for a matrix of {matrix.shape[0]} occasions")
        self.V = (matrix + matrix.T) / 2.0
        super().__init__(occasion, group, None, labels)

    def bind_rows(
        self, data: ResidualData, codes: np.ndarray, labels: tuple[str, ...] | None
    ) -> BoundCorrelation:
        """The covariance of the rows of `data`."""
        places, names = self.places(data, codes, labels, self.V.shape[0])
        return _BoundKnown(self, codes, places, names, self.V)

    def _spelled(self) -> str:
        inner = self.covariates[0] if self.covariates else "1"
        return f"known({inner}{'' if self.group is None else ' | ' + self.group})"


class _BoundOccasions(TableCorrelation):
    """Entries of a matrix over occasions."""

    def __init__(
        self, structure: _Occasions, codes: np.ndarray, places: np.ndarray, labels: tuple[str, ...]
    ) -> None:
        self._structure, self._labels, self._m = structure, labels, len(labels)
        super().__init__(codes, places[:, None].astype(np.float64), sort=True, relative=False, diagonal=True)

    def key(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """The pair of occasions, as one number."""
        a, b = a[..., 0], b[..., 0]
        return np.maximum(a, b) * self._m + np.minimum(a, b)

    def pair(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Occasions of keys."""
        whole = keys.astype(np.intp)
        return whole // self._m, whole % self._m

    def new_features(self, data: ResidualData) -> np.ndarray:
        """Occasions of new rows."""
        structure = self._structure
        if not structure.covariates:
            raise DataError(
                f"{structure} takes the rows in their order, so the occasions of new rows are unknown; "
                "name a "
                "column with occasion="
            )
        levels = data.factor(structure.covariates[0], f"{structure.tag}()")
        table = np.array(
            [self._labels.index(one) if one in self._labels else -1 for one in (*levels.labels, "")]
        )
        out = np.where(levels.codes < 0, -1, table[levels.codes])
        (wrong,) = np.nonzero(out < 0)
        if wrong.size:
            raise DataError(
                f"{structure}: row {data.place(wrong[0])} of the new data has an occasion that the "
                "matrix does not "
                "have; remove the row"
            )
        return out[:, None].astype(np.float64)


class _BoundKnown(_BoundOccasions):
    """A known covariance with its data; no parameters."""

    n_phi = 0
    names = ()
    natural_names = ()
    kinds = ()
    start = np.zeros(0)

    def __init__(
        self,
        structure: Known,
        codes: np.ndarray,
        places: np.ndarray,
        labels: tuple[str, ...],
        V: np.ndarray,
    ) -> None:
        self._V = V
        super().__init__(structure, codes, places, labels)
        self.meaning = "known covariance between occasions"

    def table(self, phi: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """Entries of V."""
        return self._V[self.pair(keys)]

    def table_first(self, phi: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """There is no parameter."""
        return np.zeros((0, *keys.shape))

    def natural(self, phi: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Nothing to report."""
        return np.zeros(0), np.zeros((0, 0))

    def natural_curvature(self, phi: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Nothing to report."""
        return np.zeros((0, 0))

    def inverse(self, values: np.ndarray) -> np.ndarray:
        """Nothing to turn."""
        return np.zeros(0)


class Function(_Occasions):
    r"""A covariance between occasions given by a function: ``Function(f, start, occasion=, group=)``.

    .. math:: \mathrm{Var}(e_g) = \sigma^2 f(\phi)_{o(g), o(g)}

    Parameters
    ----------
    function : callable
        phi, shape (k,), -> symmetric matrix (m, m) over the occasions. It is smooth, and positive definite
        where the search may go; elsewhere it may raise FloatingPointError.
    start : array, shape (k,)
    occasion : str, optional
        A factor with the occasion of each row; by default the rows of a group are the occasions 1, 2, ...
    group : str, optional
    names : sequence of str, optional
        Names of the parameters.
    first, second : callable, optional
        phi -> derivatives, shapes (k, m, m) and (k, k, m, m). Without them differences of eighth order are
        taken (relative errors of about 1e-11 and 1e-9).
    labels : sequence, optional
        Occasions of the rows of the matrix; see `Known`.
    by : str, optional
        A factor whose levels have parameters of their own.
    """

    tag = "function"

    def __init__(
        self,
        function: Callable[[np.ndarray], np.ndarray],
        start: Any,
        occasion: str | None = None,
        group: str | None = None,
        *,
        names: Sequence[str] | None = None,
        first: Callable[[np.ndarray], np.ndarray] | None = None,
        second: Callable[[np.ndarray], np.ndarray] | None = None,
        labels: Sequence[Any] | None = None,
        by: str | None = None,
    ) -> None:
        if not callable(function):
            raise OptionError(
                "Function(): function must be callable: parameters -> matrix over the occasions"
            )
        self.function, self.first, self.second = function, first, second
        self.start = np.atleast_1d(np.array(start, dtype=np.float64))
        k = self.start.shape[0]
        self.names = tuple(names) if names is not None else tuple(f"phi{j + 1}" for j in range(k))
        if len(self.names) != k or len(set(self.names)) != k:
            raise OptionError(f"Function(): {len(self.names)} names for {k} parameters; give distinct names")
        matrix = np.asarray(function(self.start.copy()), dtype=np.float64)
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not np.allclose(matrix, matrix.T):
            raise OptionError(
                f"Function(): the function must return a symmetric matrix, got shape {matrix.shape} at "
                "the start"
            )
        try:
            np.linalg.cholesky(matrix)
        except np.linalg.LinAlgError:
            raise OptionError(
                "Function(): the matrix is not positive definite at the start; choose other start values"
            ) from None
        self.size = matrix.shape[0]
        super().__init__(occasion, group, by, labels)

    def bind_rows(
        self, data: ResidualData, codes: np.ndarray, labels: tuple[str, ...] | None
    ) -> BoundCorrelation:
        """The covariance of the rows of `data`."""
        places, names = self.places(data, codes, labels, self.size)
        return _BoundFunction(self, codes, places, names)

    def _spelled(self) -> str:
        inner = self.covariates[0] if self.covariates else "1"
        name = getattr(self.function, "__name__", "function")
        return f"{name}({inner}{'' if self.group is None else ' | ' + self.group})"


_STEP = 1e-2
_EIGHTH = ((1, 4.0 / 5.0), (2, -1.0 / 5.0), (3, 4.0 / 105.0), (4, -1.0 / 280.0))


class _BoundFunction(_BoundOccasions):
    """A user's covariance with its data."""

    def __init__(
        self, structure: Function, codes: np.ndarray, places: np.ndarray, labels: tuple[str, ...]
    ) -> None:
        self._user = structure
        self.n_phi = structure.start.shape[0]
        self.names = self.natural_names = structure.names
        self.kinds = ("parameter",) * self.n_phi
        self.start = structure.start
        super().__init__(structure, codes, places, labels)
        within = "" if structure.group is None else f" within {structure.group}"
        derived = "" if structure.first is not None else " (derivatives by differences)"
        self.meaning = (
            f"covariance by {getattr(structure.function, '__name__', 'a function')}{within}{derived}"
        )

    def _matrix(self, phi: np.ndarray) -> np.ndarray:
        matrix = np.asarray(self._user.function(phi.copy()), dtype=np.float64)
        if matrix.shape != (self._m, self._m) or not np.all(np.isfinite(matrix)):
            raise FloatingPointError("the function did not return a finite matrix")
        return matrix

    def _first(self, phi: np.ndarray) -> np.ndarray:
        if self._user.first is not None:
            return np.asarray(self._user.first(phi.copy()), dtype=np.float64)
        return _difference(self._matrix, phi)

    def table(self, phi: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """Entries of the matrix."""
        return self._matrix(phi)[self.pair(keys)]

    def table_first(self, phi: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """Their derivatives."""
        a, b = self.pair(keys)
        return self._first(phi)[:, a, b]

    def table_second(self, phi: np.ndarray, keys: np.ndarray, i: int, j: int) -> np.ndarray:
        """Their second derivatives."""
        if self._user.second is not None:
            found = np.asarray(self._user.second(phi.copy()), dtype=np.float64)[i, j]
        else:
            found = _difference(self._first, phi)[i, j]
            found = (found + found.T) / 2.0
        return found[self.pair(keys)]

    def natural(self, phi: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The parameters of the user."""
        return np.array(phi), np.eye(self.n_phi)

    def natural_curvature(self, phi: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Zeros: they are the coordinates."""
        return np.zeros((self.n_phi, self.n_phi))

    def inverse(self, values: np.ndarray) -> np.ndarray:
        """The same."""
        return np.array(values, dtype=np.float64)


def _difference(function: Callable[[np.ndarray], np.ndarray], phi: np.ndarray) -> np.ndarray:
    """Derivatives along each coordinate by differences of eighth order."""
    out = []
    for j in range(phi.shape[0]):
        total: Any = 0.0
        for multiple, weight in _EIGHTH:
            up, down = phi.copy(), phi.copy()
            up[j] += multiple * _STEP
            down[j] -= multiple * _STEP
            total = total + weight * (function(up) - function(down))
        out.append(total / _STEP)
    return np.stack(out)


def _label(value: Any) -> str:
    """A level as text: whole numbers without a point."""
    return f"{value:g}" if isinstance(value, (int, float, np.integer, np.floating)) else str(value)
