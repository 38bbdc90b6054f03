"""A model made from matrices: what stands in for the model frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from mixedmodels.design import Design, RandomTerm
from mixedmodels.errors import DataError, NewLevelError, NotImplementedYetError, OptionError
from mixedmodels.fit.checks import check_data, few_levels_notes
from mixedmodels.frame.newdata import NewDesign

__all__ = ["MatrixFrame", "matrix_frame"]


@dataclass(frozen=True, slots=True, eq=False)
class MatrixFrame:
    """The part of a `ModelFrame` that a model without formula has.

    `Z` and `covariance` (`FunctionCovariance`) are there if the covariance is the user's function.
    """

    design: Design
    n_rows: int
    formula: None = None
    encoding: None = None
    kept: None = None
    zero_weight_rows: None = None
    na_counts: dict[str, int] = field(default_factory=dict)
    dropped_columns: tuple[str, ...] = ()
    backend: str = "dict"
    messages: tuple[str, ...] = ()
    Z: Any = None
    covariance: Any = None
    residual: Any = None
    functions: None = None

    def new_data(
        self,
        data: Any,
        *,
        positions: Sequence[int] = (),
        new_levels: str = "error",
        offset: Any = None,
        columns_of: Sequence[int] = (),
        effects: bool = True,
    ) -> NewDesign:
        """Columns for new rows, given as matrices.

        Parameters
        ----------
        data : dict
            ``"X"``, shape (rows, p); for a covariance function ``"Z"``, shape (rows, q), else ``"terms"``:
            for each random term the labels of the levels, or (labels, Z).
        positions, columns_of : sequence of int
            Terms whose levels (or only columns) are wanted.
        new_levels : str
            As for `encode_new`.
        offset : array, shape (rows,), optional
        effects : bool
            Whether ``"Z"`` is wanted.
        """
        if not isinstance(data, Mapping) or "X" not in data:
            raise OptionError(
                "a model made from matrices takes new rows as a dict of matrices: {'X': X, "
                + ("'Z': Z}" if self.Z is not None else "'terms': [(labels, Z), ...]}")
            )
        design = self.design
        p, q = design.X.shape[1], 0 if self.Z is None else self.Z.shape[1]
        X = np.asarray(data["X"], dtype=float) if p else np.asarray(data["X"])
        n = X.shape[0]
        X = _matrix(X, "X of the new rows", n)
        if X.shape[1] != p:
            raise DataError(f"X of the new rows has {X.shape[1]} columns; the model has {p}")
        if offset is None and design.offset is not None:
            raise OptionError("the model has an offset: give offset= for the new rows")
        add = None if offset is None else _vector(offset, "offset", n)
        terms: list[Any] = [None] * len(design.terms)
        if self.Z is not None:
            terms = [_new_Z(data, n, q) if effects else None]
        elif positions or columns_of:
            given = data.get("terms")
            if given is None or len(given) != len(design.terms):
                raise OptionError(
                    "new rows need 'terms', one entry (labels or (labels, Z)) for each of the "
                    f"{len(design.terms)} random terms; or predict with re_form='population'"
                )
            for j in sorted({*positions, *columns_of}):
                codes, columns = _new_term(
                    design.terms[j], given[j], j, n, new_levels if j in positions else ""
                )
                terms[j] = (codes if j in positions else None, columns)
        rows = np.ones(n, dtype=bool)
        if new_levels == "missing":
            for j in positions:
                rows &= terms[j][0] >= 0
        return NewDesign(X, add, tuple(terms), None, rows)


def _new_Z(data: Any, n: int, q: int) -> Any:
    """Columns of all random effects for new rows."""
    if "Z" not in data:
        raise OptionError("the new rows need 'Z'; or predict with re_form='population'")
    Z = data["Z"]
    Z = Z if hasattr(Z, "tocsc") else _matrix(Z, "Z of the new rows", n)
    if Z.shape != (n, q):
        raise DataError(f"Z of the new rows has shape {Z.shape}; it needs {(n, q)}")
    return Z


def _new_term(term: RandomTerm, given: Any, position: int, n: int, new_levels: str) -> tuple[Any, Any]:
    """Codes and columns of one random term for new rows."""
    if term.rows is not None or np.ndim(term.codes) == 2:
        raise NotImplementedYetError(
            f"new rows of terms[{position}], several levels per row, are not in this version"
        )
    labels, Z = given if isinstance(given, tuple) else (given, None)
    labels = np.asarray(labels)
    if labels.shape != (n,):
        raise DataError(f"labels of terms[{position}] have shape {labels.shape}; X has {n} rows")
    if Z is None and term.Z is not None:
        raise DataError(f"terms[{position}] of the new rows needs (labels, Z): Z has {term.k} columns")
    Z = None if Z is None else _matrix(Z, f"Z of terms[{position}]", n)
    if Z is not None and Z.shape[1] != term.k:
        raise DataError(f"Z of terms[{position}] has {Z.shape[1]} columns; the model has {term.k}")
    place = {level: code for code, level in enumerate(np.asarray(term.levels).tolist())}
    codes = np.array([place.get(label, -1) for label in labels.tolist()], dtype=np.int32)
    new = np.flatnonzero(codes < 0)
    if new.size and new_levels == "error":
        raise NewLevelError(
            f"{labels.tolist()[new[0]]!r} is a new level of {term.group!r}; give new_levels='population' to "
            "predict it with an effect of zero, or leave its rows out"
        )
    if new.size and new_levels == "append":
        codes[new] = term.m + np.unique(labels[new], return_inverse=True)[1]
    return codes, Z


def _vector(values: Any, name: str, n: int | None = None) -> np.ndarray:
    try:
        array = np.array(values, dtype=float)
    except (TypeError, ValueError):
        raise DataError(f"{name} must hold numbers") from None
    if array.ndim != 1:
        raise DataError(f"{name} must have one dimension, got shape {array.shape}")
    if n is not None and array.shape[0] != n:
        raise DataError(f"{name} has {array.shape[0]} values; y has {n}")
    if not np.isfinite(array).all():
        raise DataError(f"{name} holds missing or infinite values; leave these rows out")
    array.setflags(write=False)
    return array


def _matrix(values: Any, name: str, n: int) -> np.ndarray:
    if hasattr(values, "toarray"):
        values = values.toarray()
    try:
        array = np.array(values, dtype=float)
    except (TypeError, ValueError):
        raise DataError(f"{name} must hold numbers") from None
    if array.ndim == 1:
        array = array.reshape(-1, 1)
    if array.ndim != 2 or array.shape[0] != n:
        raise DataError(f"{name} has shape {array.shape}; it needs {n} rows, one for each value of y")
    if not np.isfinite(array).all():
        raise DataError(f"{name} holds missing or infinite values; leave these rows out")
    array.setflags(write=False)
    return array


def _term(term: Any, position: int, n: int) -> RandomTerm:
    from mixedmodels.covariance import make_covariance

    if not isinstance(term, RandomTerm):
        raise OptionError(
            f"terms[{position}] is a {type(term).__name__}; give mixedmodels.RandomTerm objects"
        )
    if term.rows is not None:
        return _membership(term, position, n)
    Z = None if term.Z is None else _matrix(term.Z, f"Z of terms[{position}]", n)
    k = 1 if Z is None else Z.shape[1]
    codes, levels = np.asarray(term.codes), term.levels
    several = codes.ndim == 2
    if several:
        k = codes.shape[1]
        if codes.shape[0] != n or k == 0:
            raise DataError(f"codes of terms[{position}] has shape {codes.shape}; y has {n} values")
        if Z is not None and Z.shape[1] != k:
            raise DataError(f"Z of terms[{position}] has {Z.shape[1]} columns; codes has {k}")
    elif codes.shape != (n,):
        raise DataError(f"codes of terms[{position}] has shape {codes.shape}; y has {n} values")
    if levels is None:
        if several:
            raise DataError(f"terms[{position}] has codes of several levels per row: name the levels")
        levels, codes = np.unique(codes, return_inverse=True)
    least = -1 if several else 0
    if codes.dtype.kind not in "iu" or (n and (int(codes.min()) < least or int(codes.max()) >= len(levels))):
        raise DataError(
            f"codes of terms[{position}] must be whole numbers {least} .. {len(levels) - 1}; "
            "or give any labels and levels=None"
        )
    codes = np.array(codes, dtype=np.int32)
    codes.setflags(write=False)
    names = (
        tuple(term.names)
        if term.names
        else (("(Intercept)",) if Z is None and k == 1 else tuple(f"z{j + 1}" for j in range(k)))
    )
    if len(names) != k:
        raise DataError(f"terms[{position}] has {len(names)} names for {k} columns")
    covariance = make_covariance(term.covariance, k) if isinstance(term.covariance, str) else term.covariance
    if covariance.k != k:
        raise DataError(f"the covariance of terms[{position}] is for {covariance.k} columns; Z has {k}")
    return replace(term, codes=codes, levels=levels, Z=Z, names=names, covariance=covariance)


def _membership(term: RandomTerm, position: int, n: int) -> RandomTerm:
    """A term given by its sparse matrix: names and levels must be there."""
    from scipy import sparse

    from mixedmodels.covariance import make_covariance

    if not sparse.issparse(term.rows) or term.levels is None or not term.names:
        raise DataError(f"terms[{position}] with rows= needs a sparse matrix, names and levels")
    k, m = len(term.names), len(term.levels)
    if term.rows.shape != (n, m * k):
        raise DataError(
            f"rows of terms[{position}] has shape {term.rows.shape}; {n} values of y, {m} levels and {k} "
            f"columns need {(n, m * k)}"
        )
    rows = sparse.csr_array(term.rows, dtype=float, copy=True)
    if not np.isfinite(rows.data).all():
        raise DataError(f"rows of terms[{position}] holds missing or infinite values")
    covariance = make_covariance(term.covariance, k) if isinstance(term.covariance, str) else term.covariance
    if covariance.k != k:
        raise DataError(f"the covariance of terms[{position}] is for {covariance.k} columns, not {k}")
    none = np.zeros((n, 0), dtype=np.int32)
    return replace(term, codes=none, Z=None, rows=rows, names=tuple(term.names), covariance=covariance)


def _check_rank(X: np.ndarray, names: tuple[str, ...]) -> None:
    from mixedmodels.frame.rank import find_dependence

    ones = np.flatnonzero((X == 1.0).all(axis=0)).tolist()
    dependence = find_dependence(X, ones[0] if ones else None, names) if X.shape[1] else None
    if dependence is not None:
        kept = set(dependence.kept.tolist())
        dropped = [name for j, name in enumerate(names) if j not in kept]
        raise DataError(
            f"X is not of full column rank: {', '.join(dropped)} depend{'s' if len(dropped) == 1 else ''} "
            "linearly on the columns before; leave out"
        )


def matrix_frame(
    y: Any,
    X: Any,
    terms: Sequence[RandomTerm],
    *,
    weights: Any = None,
    offset: Any = None,
    names: Sequence[str] | None = None,
    sigma_fixed: bool = False,
    Z: Any = None,
    covariance: Any = None,
    residual: Any = None,
    columns: Any = None,
) -> MatrixFrame:
    """Check and freeze (copies of) the arrays of a model.

    Parameters
    ----------
    y : array, shape (n,)
    X : array, shape (n, p), or None
    terms : sequence of RandomTerm
        `covariance` may be a tag ("us"); with ``levels=None`` the codes may be any labels.
    weights, offset : array, shape (n,), optional
    names : sequence of str, length p, optional
        Names of the columns of X; by default x1, x2, ..., and ``(Intercept)`` for a column of ones.
    sigma_fixed : bool
        Whether the residual standard deviation is given.
    Z : array or sparse array, shape (n, q), optional
        Columns of all random effects, for `covariance`.
    covariance : FunctionCovariance, optional
    residual : str or Structure, optional
    columns : mapping of str to array, optional
        What the residual structure names.
    """
    y = _vector(y, "y")
    n = y.shape[0]
    if n == 0:
        raise DataError("y is empty")
    if names is None and X is not None and all(isinstance(name, str) for name in getattr(X, "columns", [0])):
        names = list(X.columns)
    X = _matrix(np.zeros((n, 0)) if X is None else X, "X", n)
    if names is None:
        names = [f"x{j + 1}" for j in range(X.shape[1])]
        ones = np.flatnonzero((X == 1.0).all(axis=0)).tolist()
        if ones:
            names[ones[0]] = "(Intercept)"
    names = tuple(map(str, names))
    if len(names) != X.shape[1]:
        raise DataError(f"names has {len(names)} entries; X has {X.shape[1]} columns")
    if len(set(names)) != len(names):
        raise DataError("names must be all different")
    _check_rank(X, names)
    if weights is not None:
        weights = _vector(weights, "weights", n)
        if not (weights > 0.0).all():
            raise DataError("weights must be positive; leave rows with weight zero out")
    if offset is not None:
        offset = _vector(offset, "offset", n)
    checked = tuple([_term(term, position, n) for position, term in enumerate(terms)])
    bound = state = None
    if residual is not None:
        if covariance is not None:
            raise OptionError("residual= cannot be combined with a covariance given as a function")
        bound, state = _residual(residual, columns, n, weights)
    elif columns is not None:
        raise OptionError("columns= are those of a residual structure: give residual= as well")
    design = Design(y, X, names, checked, offset, weights, residual=bound)
    check_data(design, sigma_fixed=sigma_fixed)
    if covariance is not None:
        Z = Z.copy() if hasattr(Z, "tocsc") else _matrix(Z, "Z", n)
    return MatrixFrame(
        design, n, messages=tuple(few_levels_notes(design)), Z=Z, covariance=covariance, residual=state
    )


def _residual(residual: Any, columns: Any, n: int, weights: np.ndarray | None) -> tuple[Any, Any]:
    """A residual structure bound to columns given as arrays, and what is remembered of them."""
    from mixedmodels.frame.columns import Columns
    from mixedmodels.frame.residual import columns_of, read_values, structure_of

    structure = structure_of(residual)
    needed = columns_of(structure)
    given = dict(columns or {})
    for name in needed:
        if name not in given:
            raise DataError(
                f"residual={str(structure)!r} needs the column {name!r}: give columns={{{name!r}: ...}}"
            )
        if np.shape(given[name])[:1] != (n,):
            raise DataError(f"columns[{name!r}] has {np.size(given[name])} values; y has {n}")
    rows = {name: given[name] for name in needed} or {"(row)": np.arange(n)}
    values = read_values(structure, Columns(rows), None)
    absent = values.missing()
    if absent:
        raise DataError(f"columns[{next(iter(absent))!r}] has missing values; leave these rows out")
    data, state = values.settle(None)
    return structure.bind(data, weights), state
