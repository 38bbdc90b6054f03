"""Columns of the fixed part and of the left sides of bars, with R's coding rules, order and names.

A factor in a term is coded by contrasts if what is left of the term without it is contained in an earlier
term (the empty rest is contained in the intercept), and by a full set of dummies otherwise. Without an
intercept the first factor of the first term that has one gets dummies. This is the rule of R's
``terms``, except that the containing term may add only factors to the rest: in ``~ a:x + a:b`` with
numeric x, R takes the margin a to be present in a:x, although it is not, and loses columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from mixedmodels.errors import DataError
from mixedmodels.frame.labels import level_labels
from mixedmodels.frame.state import PartState, VariableState
from mixedmodels.frame.values import FactorColumn, MatrixColumn, Value
from mixedmodels.solver._kernels.columns import dummies, product

__all__ = ["encode_part", "encode_variable", "fill_columns", "full_codings"]


def encode_variable(
    label: str, expression: Any, value: Value, state: Any, contrasts: Mapping[str, Any] | None
) -> VariableState:
    """State of one variable; contrasts are chosen here.

    Parameters
    ----------
    label : str
    expression : Expression
    value : Value
        Its values, unused levels already dropped.
    state : Any
        What its transforms learnt.
    contrasts : mapping or None
        Contrasts asked for by variable; a contrast in the formula (``C(f, sum)``) goes first.

    Raises
    ------
    DataError
        If a factor has a single level.
    """
    if type(value) is np.ndarray:
        return VariableState(label, expression, "numeric", state)
    if isinstance(value, MatrixColumn):
        return VariableState(label, expression, "matrix", state, suffixes=tuple(value.suffixes))
    assert isinstance(value, FactorColumn)
    levels = value.levels
    labels = level_labels(levels)
    spec = value.contrast
    if spec is None and contrasts:
        spec = contrasts.get(label)
    matrix: np.ndarray | None = None
    names = labels[1:]
    if len(labels) > 1 and (spec is not None or value.ordered):
        from mixedmodels.frame.contrasts import contrast_matrix

        matrix, names = contrast_matrix(spec, labels, value.ordered)
        matrix, names = np.asarray(matrix, dtype=np.float64), tuple(names)
    return VariableState(
        label,
        expression,
        "factor",
        state,
        levels,
        value.ordered,
        contrast=matrix,
        contrast_names=names,
    )


@lru_cache(maxsize=256)
def full_codings(
    intercept: bool, terms: tuple[tuple[int, ...], ...], is_factor: tuple[bool, ...]
) -> tuple[tuple[bool, ...], ...]:
    """Which factors are coded by all their dummies, for each term.

    Examples
    --------
    >>> full_codings(True, ((0,), (0, 1)), (True, True))  # a + a:b
    ((False,), (True, False))
    """
    sets = [frozenset(term) for term in terms]
    first = intercept
    codings = []
    for t, term in enumerate(terms):
        coding = []
        for v in term:
            if not is_factor[v]:
                coding.append(False)
                continue
            rest = sets[t] - {v}
            full = bool(rest) and not any(
                rest <= other and all(is_factor[w] for w in other - rest) for other in sets[:t]
            )
            if not first:
                first = full = True
            coding.append(full)
        codings.append(tuple(coding))
    return tuple(codings)


def _variable_names(variable: VariableState, full: bool) -> Sequence[str]:
    """Names of the columns of one variable."""
    if variable.kind == "numeric":
        return (variable.label,)
    if variable.kind == "matrix":
        return [variable.label + suffix for suffix in variable.suffixes]
    suffixes = level_labels(variable.levels) if full else variable.contrast_names
    return [variable.label + suffix for suffix in suffixes]


def encode_part(
    intercept: bool,
    terms: tuple[tuple[int, ...], ...],
    labels: tuple[str, ...],
    variables: Sequence[VariableState],
) -> PartState:
    """Coding and column names of the fixed part or of the left side of a bar.

    Raises
    ------
    DataError
        If a factor with a single level would have to be coded by contrasts.
    """
    kinds = {variable.kind for variable in variables}
    if kinds <= {"numeric"}:
        return _numeric_part(intercept, terms, labels, tuple([variable.label for variable in variables]))
    is_factor = tuple([variable.kind == "factor" for variable in variables])
    full = full_codings(intercept, terms, is_factor)
    names = ["(Intercept)"] if intercept else []
    stops = []
    for term, coding in zip(terms, full, strict=True):
        parts = []
        for v, whole in zip(term, coding, strict=True):
            variable = variables[v]
            if is_factor[v] and not whole and len(variable.levels) < 2:
                raise DataError(
                    f"factor {variable.label!r} has a single level "
                    f"({', '.join(level_labels(variable.levels))}) in the rows used; "
                    "leave it out of the formula"
                )
            parts.append(_variable_names(variable, whole))
        combined = list(parts[0])
        for part in parts[1:]:
            combined = [f"{a}:{b}" for b in part for a in combined]
        names.extend(combined)
        stops.append(len(names))
    return PartState(intercept, terms, full, labels, tuple(names), tuple(stops))


@lru_cache(maxsize=256)
def _numeric_part(
    intercept: bool, terms: tuple[tuple[int, ...], ...], labels: tuple[str, ...], variables: tuple[str, ...]
) -> PartState:
    """`encode_part` where every variable is one column: a term is one column too."""
    names = ["(Intercept)"] if intercept else []
    names += [":".join([variables[v] for v in term]) for term in terms]
    full = tuple([(False,) * len(term) for term in terms])
    stops = range(len(names) - len(terms) + 1, len(names) + 1)
    return PartState(intercept, terms, full, labels, tuple(names), tuple(stops))


def _columns(value: Value, variable: VariableState, full: bool) -> list[np.ndarray]:
    """Columns of one variable as separate arrays."""
    if variable.kind == "numeric":
        return [value]  # type: ignore[list-item]
    if variable.kind == "matrix":
        return list(value.values.T)  # type: ignore[union-attr]
    codes = value.codes  # type: ignore[union-attr]
    if full or variable.contrast is None:
        first = 0 if full else 1
        return [(codes == level).astype(np.float64) for level in range(first, len(variable.levels))]
    return [column.take(codes, mode="wrap") for column in np.ascontiguousarray(variable.contrast.T)]


def _write(value: Value, variable: VariableState, full: bool, out: np.ndarray, start: int) -> int:
    """Write the columns of a main effect; returns the column after the last."""
    if variable.kind == "numeric":
        out[:, start] = value
        return start + 1
    if variable.kind == "matrix":
        width = len(variable.suffixes)
        out[:, start : start + width] = value.values  # type: ignore[union-attr]
        return start + width
    codes = value.codes  # type: ignore[union-attr]
    if full or variable.contrast is None:
        stop = start + len(variable.levels) - (not full)
        dummies(np.asarray(codes, dtype=np.int32), int(not full), out[:, start:stop])
        return stop
    for column in np.ascontiguousarray(variable.contrast.T):
        out[:, start] = column.take(codes, mode="wrap")
        start += 1
    return start


def fill_columns(
    part: PartState, variables: Sequence[VariableState], values: Sequence[Value], out: np.ndarray
) -> None:
    """Write the columns of a part, one after the other; no dummy matrix of a factor is formed in between.

    Parameters
    ----------
    part : PartState
    variables : sequence of VariableState
    values : sequence of Value
        Values of each variable, in the codes of its `levels`. Code -1 gives arbitrary numbers.
    out : ndarray of float64, shape (n, number of columns)
    """
    at = 0
    for piece in part.pieces:
        fill_columns(piece, variables, values, out[:, at : at + len(piece.names)])
        at += len(piece.names)
    if part.pieces:
        return
    j = 0
    if part.intercept:
        out[:, 0] = 1.0
        j = 1
    ready: dict[tuple[int, bool], list[np.ndarray]] = {}
    several = len(max(part.terms, key=len, default=())) > 1
    for term, full in zip(part.terms, part.full, strict=True):
        if len(term) == 1:
            v = term[0]
            stop = _write(values[v], variables[v], full[0], out, j)
            if several:  # interactions read the main effects where they stand
                ready[v, full[0]] = [out[:, i] for i in range(j, stop)]
            j = stop
            continue
        factors = []
        for key in zip(term, full, strict=True):
            if key not in ready:
                ready[key] = _columns(values[key[0]], variables[key[0]], key[1])
            factors.append(ready[key])
        j = _write_products(factors, out, j)


def _write_products(factors: list[list[np.ndarray]], out: np.ndarray, start: int) -> int:
    """All products of one column of each factor, the first factor varying fastest.

    What overflows is found and named by the rank check.
    """
    if len(factors) == 2:
        first, last = factors
        for b in last:
            for a in first:
                product(a, b, out[:, start])
                start += 1
        return start
    width = 1
    for factor in factors[:-1]:
        width *= len(factor)
    for b in factors[-1]:
        stop = _write_products(factors[:-1], out, start)
        for i in range(start, stop):
            product(out[:, i], b, out[:, i])
        start = stop
    return start
