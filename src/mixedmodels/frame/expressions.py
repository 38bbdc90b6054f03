"""The safe evaluator of formula expressions: a walk over the tree, never ``eval``.

`learn` evaluates an expression on the data of a fit and returns what must be remembered (levels of
factors, knots, means); `apply` evaluates it on new data with that memory, so that ``poly(x, 2)`` of one
new row means what it meant in the fit.
"""

from __future__ import annotations

import datetime
import math
import numbers
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mixedmodels.errors import DataError, FormulaError, MixedModelsError, OptionError
from mixedmodels.formula.ast import Call, Expression, Number, Operation, Text, Variable
from mixedmodels.formula.render import render
from mixedmodels.frame.contrasts import contrast_name, level_text
from mixedmodels.frame.transforms import REGISTRY
from mixedmodels.frame.transforms.arithmetic import operate
from mixedmodels.frame.transforms.base import (
    Arguments,
    Logical,
    Plain,
    State,
    as_factor,
    is_column,
    plain_levels,
)
from mixedmodels.frame.transforms.factors import new_level_error, recode
from mixedmodels.frame.values import FactorColumn, MatrixColumn, Value

__all__ = ["FUNCTION_NAMES", "apply", "learn"]

FUNCTION_NAMES = tuple(sorted([*REGISTRY, "C", "offset"]))
"""Every function a formula may call without passing it by name."""

_CONSTANTS: dict[str, Any] = {
    "TRUE": True,
    "FALSE": False,
    "NULL": None,
    "NA": math.nan,
    "NaN": math.nan,
    "Inf": math.inf,
    "pi": math.pi,
}
_LENIENT = frozenset(
    ("factor", "ordered", "as.factor", "relevel", "interaction", "C", "is.na", "==", "!=", "%in%")
)
"""Functions and operators that check the levels of their argument themselves or have a value for any level."""

_MISSING_OBJECTS = ("NAType", "NaTType", "NoneType")

Functions = Mapping[str, Callable[..., Any]]


def learn(
    expression: Expression, columns: Mapping[str, Any], *, functions: Functions | None = None
) -> tuple[Value, State]:
    """Evaluate an expression on the data of a fit and remember what new data will need.

    Parameters
    ----------
    expression : Expression
        A factor of a term, the response or an offset.
    columns : mapping from name to column
        Float arrays, `FactorColumn`, or arrays of integers, booleans, strings, dates or objects.
    functions : mapping from name to callable, optional
        Functions that the expression may call besides the built-in ones. They get float arrays (factors:
        object arrays of labels, None where missing) and constants, and return one value or row per row.

    Returns
    -------
    value : ndarray of float64, FactorColumn or MatrixColumn
        Missing values are NaN (code -1 in factors), and so are results that are not defined (the logarithm of
        a negative number). Truth values are a factor with the levels FALSE and TRUE; levels without a row
        are dropped.
    state : dict
        Plain data (JSON) and arrays.

    Raises
    ------
    DataError
        A column is missing or has the wrong type.
    FormulaError
        An unknown function or a wrong argument.
    OptionError
        A name in `functions` is a built-in function.

    Examples
    --------
    >>> import numpy as np
    >>> from mixedmodels.formula import Call, Variable
    >>> value, state = learn(Call("center", (Variable("x"),)), {"x": np.array([1.0, 2.0, 6.0])})
    >>> value
    array([-2., -1.,  3.])
    >>> apply(Call("center", (Variable("x"),)), {"x": np.array([10.0])}, state)
    array([7.])
    """
    evaluator = _Evaluator(columns, functions, None)
    value = evaluator.result(expression)
    state: State = {"variables": evaluator.variables, "calls": evaluator.calls}
    if isinstance(value, FactorColumn) and not _is_logical(value):
        value, levels = _drop_unused(value)
        if levels is not None:
            state["levels"] = levels
    return value, state


def apply(
    expression: Expression, columns: Mapping[str, Any], state: State, *, functions: Functions | None = None
) -> Value:
    """Evaluate an expression on new data with the state that `learn` returned.

    Parameters
    ----------
    expression, columns, functions
        As for `learn`; the columns may come as other types (a factor as strings).
    state : dict
        From `learn`.

    Returns
    -------
    ndarray of float64, FactorColumn or MatrixColumn
        Same type, levels and number of columns as in the fit.

    Raises
    ------
    NewLevelError
        A factor has a level that the fit has not seen.
    DataError
        A column is missing or of another type than in the fit.
    """
    value = _Evaluator(columns, functions, state).result(expression)
    levels = state.get("levels")
    if levels is not None and isinstance(value, FactorColumn):
        codes = recode(value, levels, _what(expression))
        value = FactorColumn(codes, tuple(levels), value.ordered, value.contrast)
    return value


def _what(expression: Expression) -> str:
    """How messages call an expression."""
    if isinstance(expression, Variable):
        return f"column {expression.name!r}"
    return f"'{render(expression)}'"


def _is_logical(column: FactorColumn) -> bool:
    return len(column.levels) == 2 and tuple(column.levels) == ("FALSE", "TRUE")


def _drop_unused(column: FactorColumn) -> tuple[FactorColumn, list[Any] | None]:
    """Without the levels that no row has, and the levels kept (None if all were)."""
    used = np.bincount(column.codes + 1, minlength=len(column.levels) + 1)[1:] > 0
    if used.all():
        return column, None
    kept = np.flatnonzero(used)
    levels = [column.levels[i] for i in kept]
    table = np.full(used.size + 1, -1, dtype=np.int32)
    table[kept] = np.arange(kept.size)
    contrast = column.contrast
    if contrast is not None and not isinstance(contrast, str) and kept.size < used.size:
        raise DataError(
            f"contrasts for {used.size} levels were given, but only {kept.size} levels have rows "
            f"({', '.join(map(level_text, levels[:8]))}): give contrasts for these"
        )
    return FactorColumn(table[column.codes], tuple(levels), column.ordered, contrast), plain_levels(levels)


def _normal(name: str) -> str:
    """Argument names are compared loosely: boundary_knots is Boundary.knots."""
    return name.lower().replace("_", ".")


class _Evaluator:
    """One walk over one expression. `state` is None while learning."""

    __slots__ = ("calls", "columns", "functions", "learning", "variables")

    def __init__(self, columns: Mapping[str, Any], functions: Functions | None, state: State | None) -> None:
        self.columns = columns
        self.functions = functions or {}
        if self.functions:
            self._check_functions()
        self.learning = state is None
        self.variables: dict[str, State] = {} if state is None else state["variables"]
        self.calls: dict[str, State] = {} if state is None else state["calls"]

    def _check_functions(self) -> None:
        for name, function in self.functions.items():
            if name in REGISTRY or name in ("C", "offset"):
                raise OptionError(
                    f"functions: {name!r} is a built-in function of formulas; pass yours under another name"
                )
            if not callable(function):
                raise OptionError(
                    f"functions: {name!r} is not callable; add constants and vectors as columns of the data"
                )

    def result(self, expression: Expression) -> Value:
        if isinstance(expression, Variable):
            value = self.variable(expression.name)
        else:
            value = self.evaluate(expression, "")
        if isinstance(value, Logical):
            return value.factor()
        if isinstance(value, MatrixColumn) and value.values.shape[1] == 1:
            return MatrixColumn(value.values, ("",))  # R appends a suffix only if there are several columns
        if not is_column(value):
            raise FormulaError(
                f"'{render(expression)}' is a constant: a term needs at least one column of the data"
            )
        return value

    def evaluate(self, node: Expression, path: str, lenient: bool = False) -> Any:
        """Value of a node; `path` finds its state, `lenient` lets new levels of a column pass."""
        if isinstance(node, Variable):
            if node.name in _CONSTANTS and not (node.name == "pi" and "pi" in self.columns):
                return _CONSTANTS[node.name]
            return self.variable(node.name, lenient)
        if isinstance(node, (Number, Text)):
            return node.value
        if isinstance(node, Operation):
            lenient = node.operator in _LENIENT
            operands = tuple(self.evaluate(arg, f"{path}.{i}", lenient) for i, arg in enumerate(node.args))
            if node.operator == "(":
                return operands[0]
            return operate(node.operator, operands, tuple(map(render, node.args)), render(node))
        return self.call(node, path)

    # --- columns -----------------------------------------------------------------------------------------

    def variable(self, name: str, lenient: bool = False) -> Any:
        try:
            raw = self.columns[name]
        except KeyError:
            known = ", ".join(map(str, list(self.columns)[:20]))
            raise DataError(f"the data have no column {name!r} (columns: {known})") from None
        value = _coerce(raw, f"column {name!r}")
        if self.learning:
            self.variables[name] = _describe(value)
            return value
        state = self.variables.get(name)
        return value if state is None else _match(value, state, name, lenient)

    # --- calls -------------------------------------------------------------------------------------------

    def call(self, node: Call, path: str) -> Any:
        name = node.function
        entry = REGISTRY.get(name)
        if entry is None:
            if name == "C":
                return self.contrast(node, path)
            if name == "offset":
                raise FormulaError(f"'{render(node)}': an offset is a term of its own, written + offset(...)")
            if name in self.functions:
                return self.user_function(node, path)
            raise self.unknown_function(node)
        arguments = self.arguments(node, entry.parameters, path)
        if isinstance(entry, Plain):
            return entry.call(arguments)
        if self.learning:
            value, state = entry.learn(arguments)
            self.calls[path] = state
            return value
        return entry.apply(arguments, self.calls[path])

    def unknown_function(self, node: Call) -> FormulaError:
        import difflib

        from mixedmodels.formula.expansion import STRUCTURES

        name = node.function
        bars = [arg for arg in node.args if isinstance(arg, Operation) and arg.operator in ("|", "||")]
        if bars:
            return FormulaError(
                f"'{render(node)}': {name!r} is not a covariance structure; those are {', '.join(STRUCTURES)}"
            )
        close = difflib.get_close_matches(name, FUNCTION_NAMES, n=1)
        hint = f"did you mean {close[0]}()? Otherwise pass" if close else "pass"
        return FormulaError(
            f"'{render(node)}': unknown function {name!r}; {hint} it as "
            f"functions={{{name!r}: ...}}, or add its result as a column"
        )

    def arguments(self, node: Call, parameters: tuple[str, ...], path: str) -> Arguments:
        """Evaluate the arguments and match them with the parameters."""
        label = render(node)
        lenient = node.function in _LENIENT
        evaluated = [(None, arg) for arg in node.args] + list(node.kwargs)
        if parameters == ("...",):
            rest = tuple(
                (name, self.evaluate(arg, f"{path}.{i}", lenient), render(arg))
                for i, (name, arg) in enumerate(evaluated)
            )
            return Arguments(label, node.function, {}, {}, rest)
        values: dict[str, Any] = {}
        texts: dict[str, str] = {}
        for i, (name, arg) in enumerate(evaluated):
            if name is None:
                if i >= len(parameters):
                    raise FormulaError(
                        f"'{label}': {node.function}() takes at most "
                        f"{len(parameters)}: {', '.join(parameters)}"
                    )
                parameter = parameters[i]
            else:
                matching = [p for p in parameters if _normal(p) == _normal(name)]
                if not matching:
                    raise FormulaError(
                        f"'{label}': {node.function}() has no argument {name!r}; its "
                        f"arguments are {', '.join(parameters)}"
                    )
                parameter = matching[0]
                if parameter in values:
                    raise FormulaError(f"'{label}': argument {parameter!r} is given twice")
            values[parameter] = self.evaluate(arg, f"{path}.{i}", lenient)
            texts[parameter] = render(arg)
        required = parameters if parameters[0] == "test" else parameters[:1]
        for parameter in required:
            if parameter not in values:
                raise FormulaError(f"'{label}': argument {parameter!r} is missing")
        for parameter, value in values.items():
            if parameter not in required and is_column(value):
                raise FormulaError(
                    f"'{label}': {parameter} must be a constant, but "
                    f"{texts[parameter]} is a column of the data"
                )
        return Arguments(label, node.function, values, texts)

    def user_function(self, node: Call, path: str) -> Any:
        label = render(node)
        args = [_for_user(self.evaluate(arg, f"{path}.{i}")) for i, arg in enumerate(node.args)]
        shift = len(args)
        kwargs = {
            name: _for_user(self.evaluate(arg, f"{path}.{shift + i}"))
            for i, (name, arg) in enumerate(node.kwargs)
        }
        try:
            with np.errstate(all="ignore"):
                result = self.functions[node.function](*args, **kwargs)
        except MixedModelsError:
            raise
        except Exception as error:
            raise DataError(f"'{label}': the function failed with {type(error).__name__}: {error}") from error
        if isinstance(result, (bool, int, float, np.number, np.bool_)):
            return bool(result) if isinstance(result, (bool, np.bool_)) else float(result)
        value = _coerce(
            result if isinstance(result, FactorColumn) else np.asarray(result), f"the result of '{label}'"
        )
        lengths = {arg.shape[0] for arg in [*args, *kwargs.values()] if isinstance(arg, np.ndarray)}
        if lengths and _length(value) not in lengths:
            raise DataError(
                f"'{label}' returned {_length(value)} values for {lengths.pop()} rows: return one per row"
            )
        if isinstance(value, FactorColumn):
            if self.learning:
                self.calls[path] = {"levels": plain_levels(value.levels)}
            else:
                levels = self.calls[path]["levels"]
                value = FactorColumn(recode(value, levels, f"'{label}'"), tuple(levels), value.ordered)
        return value

    def contrast(self, node: Call, path: str) -> FactorColumn:
        """``C(f, contrast)``: the factor with the contrasts asked for."""
        label = render(node)
        if not node.args or len(node.args) + len(node.kwargs) > 2:
            raise FormulaError(f"'{label}': write C(factor, contrast), as in C(f, sum)")
        value = self.evaluate(node.args[0], f"{path}.0", True)
        text = render(node.args[0])
        if isinstance(value, (np.ndarray, Logical)):
            value = as_factor(value, text, "C")
        if not isinstance(value, FactorColumn):
            raise FormulaError(f"'{label}': C() needs a factor, not {text}")
        if self.learning:
            value, _ = _drop_unused(value)
            spec: Any = None
            if len(node.args) == 2:
                spec = self.contrast_spec(node.args[1], label)
            elif node.kwargs:
                if node.kwargs[0][0] not in ("contr", "contrast"):
                    raise FormulaError(
                        f"'{label}': C() has no argument {node.kwargs[0][0]!r}; write C(factor, contrast)"
                    )
                spec = self.contrast_spec(node.kwargs[0][1], label)
            self.calls[path] = {
                "levels": plain_levels(value.levels),
                "contrast": spec,
                "ordered": value.ordered,
            }
        state = self.calls[path]
        codes = recode(value, state["levels"], f"'{label}'")
        return FactorColumn(codes, tuple(state["levels"]), state["ordered"], state["contrast"])

    def contrast_spec(self, node: Expression, label: str) -> Any:
        """A contrast's name, a mapping with base or scores, or a matrix."""
        if isinstance(node, (Variable, Text)):
            name = node.name if isinstance(node, Variable) else node.value
            try:
                return contrast_name(name)
            except OptionError as error:
                raise FormulaError(f"'{label}': {error}") from None
        if isinstance(node, Call) and node.function == "cbind":
            vectors = [self.evaluate(arg, "") for arg in [*node.args, *(value for _, value in node.kwargs)]]
            if not all(isinstance(vector, list) for vector in vectors) or len({len(v) for v in vectors}) != 1:
                raise FormulaError(
                    f"'{label}': a contrast matrix is cbind() of vectors of equal length, one entry per level"
                )
            matrix = np.column_stack([np.asarray(vector, dtype=float) for vector in vectors])
            if node.kwargs and not node.args:
                return {"matrix": matrix, "names": [name for name, _ in node.kwargs]}
            return matrix
        if isinstance(node, Call) and node.function == "c":
            return np.asarray(self.evaluate(node, ""), dtype=float)[:, None]
        if isinstance(node, Call):
            try:
                spec: dict[str, Any] = {"name": contrast_name(node.function)}
            except OptionError as error:
                raise FormulaError(f"'{label}': {error}") from None
            for name, argument in node.kwargs:
                spec[name] = self.evaluate(argument, "")
            return spec if len(spec) > 1 else spec["name"]
        raise FormulaError(
            f"'{label}': the contrast must be a name, as in C(f, sum), or a matrix made with cbind()"
        )


def _for_user(value: Any) -> Any:
    """What a caller's function is given for a value."""
    if isinstance(value, Logical):
        return value.values
    if isinstance(value, MatrixColumn):
        return value.values
    if isinstance(value, FactorColumn):
        labels = np.empty(len(value.levels) + 1, dtype=object)
        labels[:-1] = [level_text(level) for level in value.levels]
        return labels[value.codes]
    return value


def _length(value: Any) -> int:
    if isinstance(value, FactorColumn):
        return value.codes.shape[0]
    return (value if isinstance(value, np.ndarray) else value.values).shape[0]


# --- types of columns ------------------------------------------------------------------------------------


def _coerce(raw: Any, what: str) -> Any:
    """A column of any accepted type as float array, `Logical`, `FactorColumn` or `MatrixColumn`."""
    if isinstance(raw, FactorColumn):
        levels = raw.levels
        if 0 < len(levels) <= 2 and all(isinstance(level, (bool, np.bool_)) for level in levels):
            return Logical(np.append(np.asarray(levels, dtype=float), np.nan)[raw.codes])
        return raw
    if isinstance(raw, (MatrixColumn, Logical)):
        return raw
    array = raw if isinstance(raw, np.ndarray) else np.asarray(raw)
    if isinstance(array, np.ma.MaskedArray):
        if array.dtype.kind not in "iufb":
            raise DataError(
                f"{what} is a masked array of {array.dtype}; fill its gaps with None in an object array"
            )
        logical = array.dtype.kind == "b"
        values = array.astype(float).filled(np.nan)
        return Logical(values) if logical else values
    kind = array.dtype.kind
    if array.ndim == 2 and kind in "iufb":
        return MatrixColumn(array.astype(float), tuple(str(j + 1) for j in range(array.shape[1])))
    if array.ndim != 1:
        raise DataError(f"{what} has {array.ndim} dimensions; it must have one value per row")
    if kind == "f":
        return array if array.dtype == np.float64 else array.astype(float)
    if kind in "iu":
        return array.astype(float)
    if kind == "b":
        return Logical(array.astype(float))
    if kind in "mM":
        return _days(array)
    if kind in "UST":
        return _text_factor(array.astype(object), np.zeros(array.shape[0], dtype=bool))
    if kind == "O":
        return _coerce_objects(array, what)
    raise DataError(f"{what} holds {array.dtype}, which a model cannot use: make it numeric or text")


def _days(array: np.ndarray) -> np.ndarray:
    """Dates as days since 1970-01-01 and durations as days, with fractions; NaT is NaN."""
    days = array.astype(f"{array.dtype.kind}8[us]").astype(np.int64) / 86_400_000_000
    days[np.isnat(array)] = np.nan
    return days


def _text_factor(array: np.ndarray, missing: np.ndarray) -> FactorColumn:
    texts = np.array(
        [entry.decode() if isinstance(entry, bytes) else str(entry) for entry in array[~missing]],
        dtype=object,
    )
    levels, inverse = np.unique(texts, return_inverse=True) if texts.size else (texts, np.empty(0, dtype=int))
    codes = np.full(array.shape[0], -1, dtype=np.int32)
    codes[~missing] = inverse
    return FactorColumn(codes, tuple(levels.tolist()))


def _coerce_objects(array: np.ndarray, what: str) -> Any:
    missing = np.array(
        [type(e).__name__ in _MISSING_OBJECTS or (isinstance(e, float) and e != e) for e in array], dtype=bool
    )
    present = array[~missing]
    values = np.full(array.shape[0], np.nan)
    if all(isinstance(entry, (bool, np.bool_)) for entry in present) and present.size:
        values[~missing] = present.astype(float)
        return Logical(values)
    if all(isinstance(entry, (numbers.Number, np.bool_)) or hasattr(entry, "as_tuple") for entry in present):
        values[~missing] = [float(entry) for entry in present]
        return values
    if all(isinstance(entry, (str, bytes)) for entry in present):
        return _text_factor(array, missing)
    if all(isinstance(entry, (datetime.date, np.datetime64)) for entry in present):
        values[~missing] = _days(present.astype("datetime64[us]"))
        return values
    kinds = sorted({type(entry).__name__ for entry in present})
    raise DataError(f"{what} mixes values of type {', '.join(kinds)}: make them all numbers or all text")


def _describe(value: Any) -> State:
    """What new data must match."""
    if isinstance(value, FactorColumn):
        return {"type": "factor", "levels": plain_levels(value.levels), "ordered": value.ordered}
    if isinstance(value, Logical):
        return {"type": "logical"}
    if isinstance(value, MatrixColumn):
        return {"type": "matrix", "columns": value.values.shape[1]}
    return {"type": "numeric"}


def _match(value: Any, state: State, name: str, lenient: bool) -> Any:
    """A column of new data as the type that it had in the fit; if `lenient`, new levels come after the old."""
    kind = state["type"]
    if kind == "factor":
        levels = state["levels"]
        column = value if isinstance(value, FactorColumn) else as_factor(value, f"column {name!r}", "factor")
        if lenient:
            known = set(map(level_text, levels))
            levels = levels + [text for text in map(level_text, column.levels) if text not in known]
        codes = recode(column, levels, f"column {name!r}")
        return FactorColumn(codes, tuple(levels), ordered=state["ordered"])
    if kind == "numeric" and isinstance(value, Logical):
        return value.values
    if kind == "numeric" and isinstance(value, np.ndarray):
        return value
    if kind == "logical":
        return _match_logical(value, name)
    if kind == "matrix" and isinstance(value, MatrixColumn) and value.values.shape[1] == state["columns"]:
        return value
    found = (
        "categorical"
        if isinstance(value, FactorColumn)
        else "a matrix"
        if isinstance(value, MatrixColumn)
        else "numeric"
    )
    raise DataError(
        f"column {name!r} was {kind} in the fit and is {found} in the new data: give it the same type"
    )


def _match_logical(value: Any, name: str) -> Logical:
    if isinstance(value, Logical):
        return value
    if isinstance(value, FactorColumn):
        truth = {"TRUE": 1.0, "True": 1.0, "1": 1.0, "FALSE": 0.0, "False": 0.0, "0": 0.0}
        table = [truth.get(level_text(level), -1.0) for level in value.levels]
        if -1.0 in table:
            unknown = [level_text(level) for level, code in zip(value.levels, table, strict=True) if code < 0]
            raise new_level_error(f"column {name!r}", unknown, ("FALSE", "TRUE"))
        return Logical(np.array([*table, np.nan])[value.codes])
    if isinstance(value, np.ndarray) and np.isin(value[~np.isnan(value)], (0.0, 1.0)).all():
        return Logical(value)
    raise DataError(
        f"column {name!r} was logical in the fit: give TRUE and FALSE, or 1 and 0, in the new data"
    )
