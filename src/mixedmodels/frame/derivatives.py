"""Exact derivatives of the fixed-effects columns with respect to one variable of the data."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mixedmodels.errors import DataError
from mixedmodels.formula import variables
from mixedmodels.formula.ast import Call, Expression, Number, Operation, Text, Variable
from mixedmodels.frame.columns import Columns
from mixedmodels.frame.encode import fill_columns
from mixedmodels.frame.expressions import _Evaluator
from mixedmodels.frame.newdata import _match, _new_value
from mixedmodels.frame.state import Encoding
from mixedmodels.frame.transforms.polynomial import evaluate_orthogonal, raw_powers
from mixedmodels.frame.transforms.splines import bspline_derivative, full_knots
from mixedmodels.frame.values import MatrixColumn, Value

__all__ = ["column_derivatives", "expression_derivative"]

Functions = Mapping[str, Callable[..., Any]]


class _NoRule(Exception):
    """The derivative of a function is not known here."""


def column_derivatives(
    encoding: Encoding, data: Mapping[str, Any], name: str, functions: Functions | None = None
) -> tuple[np.ndarray, tuple[str, ...]]:
    r"""Derivatives of all fixed-effects columns with respect to a numeric variable.

    Columns of an interaction follow the product rule.

    Parameters
    ----------
    encoding : Encoding
    data : mapping
        Values of the predictors.
    name : str
        The variable.
    functions : mapping, optional
        The user's own transforms.

    Returns
    -------
    derivatives : ndarray, shape (n, all columns of the formula)
        Dependent columns included.
    differenced : tuple of str
        Expressions whose derivative is a central difference, having no rule.
    """
    columns = Columns(data)
    n = columns.n_rows
    part, states = encoding.fixed, encoding.variables
    used = sorted({v for term in part.terms for v in term})
    values: list[Value | None] = [None] * len(states)
    for v in used:
        values[v] = _match(states[v], _new_value(states[v], columns, functions))
    total = np.zeros((n, len(part.names)))
    starts = [1 if part.intercept else 0, *part.stops[:-1]]
    differenced = []
    for v in used:
        state = states[v]
        if state.kind == "factor" or name not in variables(state.expression):
            continue
        slope, exact = _variable_derivative(state.expression, state.state, columns, name, functions)
        if not exact:
            differenced.append(state.label)
        if isinstance(values[v], MatrixColumn):
            changed: Value = MatrixColumn(np.asarray(slope).reshape(n, -1), state.suffixes)
        else:
            changed = slope
        out = np.empty_like(total)
        fill_columns(part, states, [*values[:v], changed, *values[v + 1 :]], out)  # type: ignore[list-item]
        for term, start, stop in zip(part.terms, starts, part.stops, strict=True):
            if v in term:
                total[:, start:stop] += out[:, start:stop]
    return total, tuple(differenced)


def expression_derivative(expression: Expression, data: Mapping[str, Any], name: str) -> np.ndarray:
    """Derivative of a function of one column that needs no memory (``log(x)``)."""
    evaluator = _Evaluator(Columns(data), None, {"variables": {}, "calls": {}})
    try:
        with np.errstate(all="ignore"):
            found = _derive(expression, "", name, evaluator)
    except (_NoRule, KeyError):
        raise DataError(f"the derivative of {expression} is not known; give the slope of {name}") from None
    return np.zeros(Columns(data).n_rows) if found is None else found


def _variable_derivative(
    expression: Expression, state: Any, columns: Columns, name: str, functions: Functions | None
) -> tuple[np.ndarray, bool]:
    n = columns.n_rows
    if isinstance(expression, Variable):
        return np.ones(n), True
    evaluator = _Evaluator(columns, functions, state)
    try:
        with np.errstate(all="ignore"):
            found = _derive(expression, "", name, evaluator)
            if found is not None:
                return found, True
            shape = getattr(evaluator.result(expression), "values", np.empty(n)).shape
            return np.zeros(shape), True
    except _NoRule:
        pass
    x = np.asarray(columns[name], dtype=float)
    h = 6e-6 * max(float(np.abs(x).max()), 1e-3)
    ends = []
    for step in (h, -h):
        moved = {other: columns[other] for other in columns}
        moved[name] = x + step
        value = _Evaluator(moved, functions, state).result(expression)
        ends.append(value.values if isinstance(value, MatrixColumn) else np.asarray(value))
    return (ends[0] - ends[1]) / (2.0 * h), False


# ---------------------------------------------------------------------- rules


def _derive(node: Expression, path: str, name: str, evaluator: _Evaluator) -> Any:
    """Derivative of a node; None where it does not depend on the variable."""
    if isinstance(node, Variable):
        if node.name != name:
            return None
        return np.ones_like(np.asarray(evaluator.evaluate(node, path), dtype=float))
    if isinstance(node, (Number, Text)) or name not in variables(node):
        return None
    if isinstance(node, Operation):
        return _derive_operation(node, path, name, evaluator)
    return _derive_call(node, path, name, evaluator)


def _derive_operation(node: Operation, path: str, name: str, evaluator: _Evaluator) -> Any:
    operator = node.operator
    parts = [_derive(argument, f"{path}.{i}", name, evaluator) for i, argument in enumerate(node.args)]
    if len(node.args) == 1:
        if operator in ("(", "+"):
            return parts[0]
        if operator == "-":
            return None if parts[0] is None else -parts[0]
        raise _NoRule
    if operator in ("==", "!=", "<", "<=", ">", ">="):
        return None  # constant but for jumps
    if operator not in ("+", "-", "*", "/", "^"):
        raise _NoRule
    a, b = (
        np.asarray(evaluator.evaluate(argument, f"{path}.{i}"), dtype=float)
        for i, argument in enumerate(node.args)
    )
    da, db = (0.0 if part is None else part for part in parts)
    if operator == "+":
        return da + db
    if operator == "-":
        return da - db
    if operator == "*":
        return da * b + a * db
    if operator == "/":
        return (da * b - a * db) / b**2
    out = 0.0 if parts[0] is None else b * a ** (b - 1.0) * da
    return out if parts[1] is None else out + a**b * np.log(a) * db


def _derive_call(node: Call, path: str, name: str, evaluator: _Evaluator) -> Any:
    if not node.args:
        raise _NoRule
    function = node.function
    if function in _CONSTANT:
        return None
    if any(name in variables(argument) for argument in [*node.args[1:], *(v for _, v in node.kwargs)]):
        raise _NoRule
    inner = _derive(node.args[0], f"{path}.0", name, evaluator)
    if inner is None:
        return None
    if function in ("I", "identity", "as.numeric", "numeric"):
        return inner
    x = np.asarray(evaluator.evaluate(node.args[0], f"{path}.0"), dtype=float)
    if function == "log" and len(node.args) + len(node.kwargs) > 1:
        base = node.args[1] if len(node.args) > 1 else node.kwargs[0][1]
        return inner / (x * math.log(float(evaluator.evaluate(base, f"{path}.1"))))
    rule = _RULES.get(function)
    if rule is not None:
        return rule(x) * inner
    state = evaluator.calls.get(path)
    if state is None:
        raise _NoRule
    if function in ("scale", "standardize", "center"):
        return inner / state["scale"]
    if function == "poly":
        if state["raw"]:
            degree = int(state["degree"])
            powers = np.hstack([np.ones((x.size, 1)), raw_powers(x, degree)[:, : degree - 1]])
            basis = powers * np.arange(1, degree + 1)
        else:
            basis = _orthogonal_derivative(x, state)
    elif function == "bs":
        degree = int(state["degree"])
        knots = full_knots(np.asarray(state["knots"]), np.asarray(state["boundary"]), degree)
        basis = bspline_derivative(x, knots, degree, 1)
        basis = basis if state["intercept"] else basis[:, 1:]
    elif function == "ns":
        basis = _natural_derivative(x, state)
    else:
        raise _NoRule
    return basis * inner[:, None]


def _orthogonal_derivative(x: np.ndarray, state: Mapping[str, Any]) -> np.ndarray:
    """The three-term recursion of the orthonormal polynomials, differentiated; shape (n, degree)."""
    alpha, norm2 = np.asarray(state["alpha"]), np.asarray(state["norm2"])
    t = (x - state["center"]) / state["scale"]
    values = np.column_stack(
        [np.full(x.size, 1.0 / math.sqrt(norm2[0])), evaluate_orthogonal(x, dict(state))]
    )
    slopes = np.zeros((x.size, alpha.size + 1))
    below = 0.0
    for j in range(alpha.size):
        step = math.sqrt(norm2[j + 1] / norm2[j])
        slopes[:, j + 1] = values[:, j] + (t - alpha[j]) * slopes[:, j]
        if j:
            slopes[:, j + 1] -= below * slopes[:, j - 1]
        slopes[:, j + 1] /= step
        below = step
    return slopes[:, 1:] / state["scale"]


def _natural_derivative(x: np.ndarray, state: Mapping[str, Any]) -> np.ndarray:
    """Derivative of the natural splines, constant outside the boundary knots."""
    inner, boundary = np.asarray(state["knots"]), np.asarray(state["boundary"])
    knots = full_knots(inner, boundary, 3)
    slope = bspline_derivative(np.clip(x, boundary[0], boundary[1]), knots, 3, 1)
    curvature = bspline_derivative(boundary, knots, 3, 2)
    if not state["intercept"]:
        slope, curvature = slope[:, 1:], curvature[:, 1:]
    rotation, _ = np.linalg.qr(curvature.T, mode="complete")
    return slope @ rotation[:, 2:]


_CONSTANT = frozenset(
    ("mean", "median", "min", "max", "sd", "var", "floor", "ceiling", "round", "trunc", "sign", "is.na")
)
"""Their value does not change with the variable, but for jumps."""

_RULES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "abs": np.sign,
    "acos": lambda x: -1.0 / np.sqrt(1.0 - x * x),
    "asin": lambda x: 1.0 / np.sqrt(1.0 - x * x),
    "atan": lambda x: 1.0 / (1.0 + x * x),
    "cos": lambda x: -np.sin(x),
    "cosh": np.sinh,
    "exp": np.exp,
    "expm1": np.exp,
    "log": lambda x: 1.0 / x,
    "log10": lambda x: 1.0 / (x * math.log(10.0)),
    "log1p": lambda x: 1.0 / (1.0 + x),
    "log2": lambda x: 1.0 / (x * math.log(2.0)),
    "plogis": lambda x: 0.25 * (1.0 - np.tanh(0.5 * x) ** 2),
    "qlogis": lambda x: 1.0 / (x * (1.0 - x)),
    "sin": np.cos,
    "sinh": np.cosh,
    "sqrt": lambda x: 0.5 / np.sqrt(x),
    "tan": lambda x: 1.0 / np.cos(x) ** 2,
    "tanh": lambda x: 1.0 - np.tanh(x) ** 2,
}
"""Derivatives of elementwise functions."""
