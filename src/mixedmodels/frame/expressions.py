"""The safe evaluator of formula expressions: a walk over the tree, never ``eval``.

`learn` evaluates an expression on the data of a fit and returns what must be remembered (levels of
factors, knots, means); `apply` evaluates it on new data with that memory, so that ``poly(x, 2)`` of one
new row means what it meant in the fit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from mixedmodels.errors import DataError, FormulaError, MixedModelsError, OptionError
from mixedmodels.formula.ast import Call, Expression, Number, Operation, Text, Variable
from mixedmodels.formula.render import render as render_anew
from mixedmodels.frame.contrasts import contrast_name
from mixedmodels.frame.labels import level_label
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
from mixedmodels.frame.transforms.coerce import coerce, describe, match_type
from mixedmodels.frame.transforms.factors import recode
from mixedmodels.frame.values import FactorColumn, MatrixColumn, Value

__all__ = ["FUNCTION_NAMES", "apply", "learn"]

render = lru_cache(maxsize=1024)(render_anew)  # the texts of one formula are asked for at every fit

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
"""They check the levels of their argument themselves, or have a value for any level."""

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
    with np.errstate(all="ignore"):  # what is not defined is NaN, and the frame reports it
        value = evaluator.result(expression)
    state: State = {"variables": evaluator.variables, "calls": evaluator.calls}
    positions = isinstance(expression, Call) and expression.function == "numFactor"  # a gap is a distance
    if isinstance(value, FactorColumn) and not _is_logical(value) and not positions:
        value, levels = _drop_unused(value)
        if levels is not None:
            state["levels"] = levels
    return value, state


def apply(
    expression: Expression,
    columns: Mapping[str, Any],
    state: State,
    *,
    functions: Functions | None = None,
    allow_new_levels: bool = False,
) -> Value:
    """Evaluate an expression on new data with the state that `learn` returned.

    Parameters
    ----------
    expression, columns, functions
        As for `learn`; the columns may come as other types (a factor as strings).
    state : dict
        From `learn`.
    allow_new_levels : bool
        Levels that the fit has not seen become missing (code -1) instead of an error; for grouping factors.

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
    with np.errstate(all="ignore"):
        value = _Evaluator(columns, functions, state, not allow_new_levels).result(expression)
    levels = state.get("levels")
    if levels is not None and isinstance(value, FactorColumn):
        codes = recode(value, levels, _what(expression), strict=not allow_new_levels)
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
    levels = [column.levels[i] for i in kept.tolist()]
    table = np.full(used.size + 1, -1, dtype=np.int32)
    table[kept] = np.arange(kept.size)
    contrast = column.contrast
    if contrast is not None and not isinstance(contrast, str) and kept.size < used.size:
        raise DataError(
            f"contrasts for {used.size} levels were given, but only {kept.size} levels have rows "
            f"({', '.join(map(level_label, levels[:8]))}): give contrasts for these"
        )
    return FactorColumn(table[column.codes], tuple(levels), column.ordered, contrast), plain_levels(levels)


def _normal(name: str) -> str:
    """Argument names are compared loosely: boundary_knots is Boundary.knots."""
    return name.lower().replace("_", ".")


class _Evaluator:
    """One walk over one expression. `state` is None while learning."""

    __slots__ = ("calls", "columns", "functions", "learning", "strict", "variables")

    def __init__(
        self,
        columns: Mapping[str, Any],
        functions: Functions | None,
        state: State | None,
        strict: bool = True,
    ) -> None:
        self.strict = strict
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
        value = coerce(raw, f"column {name!r}")
        if self.learning:
            self.variables[name] = describe(value)
            return value
        state = self.variables.get(name)
        return value if state is None else match_type(value, state, name, lenient, self.strict)

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
            return Arguments(label, node.function, {}, {}, rest, self.strict)
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
        return Arguments(label, node.function, values, texts, (), self.strict)

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
        value = coerce(
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
                value = FactorColumn(
                    recode(value, levels, f"'{label}'", strict=self.strict), tuple(levels), value.ordered
                )
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
        codes = recode(value, state["levels"], f"'{label}'", strict=self.strict)
        return FactorColumn(codes, tuple(state["levels"]), state["ordered"], state["contrast"])

    def contrast_vector(self, node: Expression, label: str) -> np.ndarray:
        value = self.evaluate(node, "")
        if not isinstance(value, list) or not all(isinstance(entry, float) for entry in value):
            raise FormulaError(f"'{label}': {render(node)} is not a vector of numbers, as in c(-1, 0, 1)")
        return np.array(value)

    def contrast_spec(self, node: Expression, label: str) -> Any:
        """A contrast's name, a mapping with base or scores, or a matrix."""
        if isinstance(node, (Variable, Text)):
            name = node.name if isinstance(node, Variable) else node.value
            try:
                return contrast_name(name)
            except OptionError as error:
                raise FormulaError(f"'{label}': {error}") from None
        if isinstance(node, Call) and node.function == "cbind":
            parts = [*node.args, *(value for _, value in node.kwargs)]
            vectors = [self.contrast_vector(part, label) for part in parts]
            if len({len(vector) for vector in vectors}) != 1:
                raise FormulaError(f"'{label}': the columns of a contrast matrix need one entry per level")
            matrix = np.column_stack(vectors)
            if node.kwargs and not node.args:
                return {"matrix": matrix, "names": [name for name, _ in node.kwargs]}
            return matrix
        if isinstance(node, Call) and node.function == "c":
            return self.contrast_vector(node, label)[:, None]
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
        labels[:-1] = [level_label(level) for level in value.levels]
        return labels[value.codes]
    return value


def _length(value: Any) -> int:
    if isinstance(value, FactorColumn):
        return value.codes.shape[0]
    return (value if isinstance(value, np.ndarray) else value.values).shape[0]
