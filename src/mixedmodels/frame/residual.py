"""Columns of a residual structure: read from the data, settled with the other rows, found in new data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from mixedmodels.errors import DataError, OptionError
from mixedmodels.formula import parse_factors, parse_residual, variables
from mixedmodels.formula.ast import Expression, Variable
from mixedmodels.formula.grammar import parse_expression
from mixedmodels.frame.columns import Columns
from mixedmodels.frame.expressions import apply, learn
from mixedmodels.frame.factors import InteractionLevels, code_column, interact, match_levels
from mixedmodels.frame.labels import level_labels
from mixedmodels.frame.missing import check_finite, is_clean, missing_rows, take_rows, without_unused
from mixedmodels.frame.rows import as_value
from mixedmodels.frame.values import FactorColumn, MatrixColumn, Value
from mixedmodels.residual.data import Levels, Need, ResidualData
from mixedmodels.residual.registry import make_structure
from mixedmodels.residual.structure import Structure

__all__ = ["ResidualState", "ResidualValues", "columns_of", "read_new", "read_values", "structure_of"]

Functions = Mapping[str, Callable[..., Any]]


def structure_of(residual: Any) -> Structure:
    """The structure that an argument ``residual=`` says: a text or an object.

    Raises
    ------
    FormulaError
        The text cannot be read.
    OptionError
        It is neither, or names a structure or an option that does not exist.
    """
    if isinstance(residual, Structure):
        return residual
    if not isinstance(residual, str):
        raise OptionError(
            "residual= must be text such as 'ar1(time | subject) * varident(sex)' or an object such as "
            f"mixedmodels.residual.AR1('time', 'subject'), not {type(residual).__name__}"
        )
    return _read_text(residual)


@lru_cache(maxsize=128)
def _read_text(text: str) -> Structure:
    factors = [
        make_structure(term.tag, term.covariates, term.group, dict(term.options))
        for term in parse_residual(text)
    ]
    out = factors[0]
    for factor in factors[1:]:
        out = out * factor
    return out


def columns_of(structure: Structure) -> list[str]:
    """Columns of the data that a structure needs."""
    names = [name for need in structure.needs() for name in _variables(need.text, need.kind == "factor")]
    return list(dict.fromkeys(names))


def _expressions(need: Need) -> tuple[Expression, ...]:
    """The factors of ``a:b``; one expression for numbers."""
    return _parsed(need.text, need.kind == "factor")


@lru_cache(maxsize=128)
def _parsed(text: str, is_factor: bool) -> tuple[Expression, ...]:
    return parse_factors(text) if is_factor else (parse_expression(text),)


@lru_cache(maxsize=128)
def _variables(text: str, is_factor: bool) -> tuple[str, ...]:
    return tuple([name for e in _parsed(text, is_factor) for name in variables(e)])


@dataclass(frozen=True, slots=True, eq=False)
class ResidualState:
    """What is remembered of the columns of a structure, to read new data.

    Attributes
    ----------
    structure : Structure
    needs : tuple of Need
    states : tuple
        For each need the memory of its expressions.
    levels : tuple
        For each need the levels of its factors, one entry per factor of ``a:b``; None for numbers.
    labels : tuple
        For each need the labels of its (combined) levels; None for numbers.
    """

    structure: Structure
    needs: tuple[Need, ...]
    states: tuple[tuple[Any, ...], ...]
    levels: tuple[tuple[Any, ...] | None, ...]
    labels: tuple[tuple[str, ...] | None, ...]


class ResidualValues:
    """Values of a structure's columns in all rows of the data; `settle` cuts them to those that take part."""

    __slots__ = ("_columns", "_n", "_needs", "_parts", "_states", "structure")

    def __init__(self, structure: Structure, columns: Columns, functions: Functions | None) -> None:
        self.structure = structure
        self._n = columns.n_rows
        self._columns = columns
        self._needs = tuple(dict.fromkeys(structure.needs()))
        self._parts: list[list[Value]] = []
        self._states: list[tuple[Any, ...]] = []
        for need in self._needs:
            expressions = _expressions(need)
            found = [_read(e, need, columns, functions) for e in expressions]
            self._parts.append([value for value, _ in found])
            self._states.append(tuple([state for _, state in found]))

    def missing(self) -> dict[str, np.ndarray]:
        """Rows in which each column is missing, for those that have any."""
        masks: dict[str, np.ndarray] = {}
        for need, parts in zip(self._needs, self._parts, strict=True):
            for expression, value in zip(_expressions(need), parts, strict=True):
                mask = None if is_clean(value) else missing_rows(value)
                if mask is not None and mask.any():
                    name = expression.name if isinstance(expression, Variable) else need.text
                    masks[name] = masks[name] | mask if name in masks else mask
        return masks

    def settle(
        self, kept: np.ndarray | None, messages: list[str] | None = None
    ) -> tuple[ResidualData, ResidualState]:
        """Columns of the kept rows (None: all) and what to remember of them; `messages` takes notes."""
        numbers: dict[str, np.ndarray] = {}
        factors: dict[str, Levels] = {}
        levels: list[tuple[Any, ...] | None] = []
        labels: list[tuple[str, ...] | None] = []
        for need, parts in zip(self._needs, self._parts, strict=True):
            cut = parts if kept is None else [take_rows(value, kept) for value in parts]
            if need.kind == "number":
                check_finite(cut[0], f"{need.what}: column {need.text!r}")
                numbers[need.text] = np.array(cut[0], dtype=np.float64)
                levels.append(None)
                labels.append(None)
                continue
            trimmed = [without_unused(value)[0] for value in cut]  # type: ignore[arg-type]
            if messages is not None and len(cut) == 1:
                found = _gaps(self.structure, need.text, cut[0], trimmed[0])
                messages.extend([note for note in found if note not in messages])
            joint = interact(trimmed) if len(trimmed) > 1 else trimmed[0]
            named = level_labels(joint.levels)
            factors[need.text] = Levels(np.asarray(joint.codes, dtype=np.intp), named)
            levels.append(tuple([one.levels for one in trimmed]))
            labels.append(named)
        n = self._n if kept is None else kept.shape[0]
        data = ResidualData(n, numbers, factors, kept)
        state = ResidualState(self.structure, self._needs, tuple(self._states), tuple(levels), tuple(labels))
        return data, state


def _gaps(structure: Structure, text: str, given: Any, trimmed: FactorColumn) -> list[str]:
    """Notes where visits of a structure that counts visits apart have gaps between them."""
    out = []
    for part in structure.parts():
        if part.tag not in _COUNTING or getattr(part, "covariates", ("",))[0] != text:
            continue
        used = set(trimmed.levels)
        absent = level_labels([level for level in given.levels if level not in used])
        try:
            steps = np.diff([float(label) for label in level_labels(trimmed.levels)])
        except ValueError:
            steps = np.zeros(0)
        if absent:
            gap = f"no rows at {', '.join(absent[:5])}{', ...' if len(absent) > 5 else ''}"
        elif steps.size and np.ptp(steps) > 1e-8 * np.abs(steps).max():
            gap = f"{text} is not equally spaced"
        else:
            continue
        out.append(
            f"{part}: {gap}; the visits that have rows count as equally spaced, one step from each to the "
            "next (ar1 and car1 of numeric times take distances as they are)"
        )
    return out


_COUNTING = ("toep",)


def read_values(structure: Structure, columns: Columns, functions: Functions | None) -> ResidualValues:
    """Read everything a structure needs, all rows of the data.

    Raises
    ------
    DataError
        A column is missing, or holds categories where numbers are needed.
    """
    return ResidualValues(structure, columns, functions)


def _read(
    expression: Expression, need: Need, columns: Columns, functions: Functions | None
) -> tuple[Value, Any]:
    state = None
    if isinstance(expression, Variable):
        if need.kind == "factor":
            return columns.factor(expression.name), None
        value = columns[expression.name]
    else:
        found, state = learn(expression, columns, functions=functions)
        value = as_value(found, need.text, columns.n_rows)
    return _as_kind(value, need), state


def _as_kind(value: Value, need: Need) -> Value:
    if isinstance(value, MatrixColumn):
        raise DataError(f"{need.what}: {need.text!r} has several columns; name one")
    if need.kind == "factor":
        return value if isinstance(value, FactorColumn) else code_column(value)
    if isinstance(value, FactorColumn):
        shown = ", ".join(level_labels(value.levels[:4]))
        raise DataError(
            f"{need.what} needs numbers, but {need.text!r} holds categories ({shown}"
            f"{', ...' if len(value.levels) > 4 else ''}); make a column of numbers from it"
        )
    return value


def read_new(
    state: ResidualState,
    data: Any,
    *,
    functions: Functions | None = None,
    group: str | None = None,
) -> tuple[ResidualData, int]:
    """Columns of a structure for new data, with the codes of the fit; rows that miss a value are left out.

    Parameters
    ----------
    state : ResidualState
    data : data frame or mapping
    functions : mapping, optional
        The user's own transforms.
    group : str, optional
        The grouping factor: its new levels get codes of their own after those of the fit, and a missing one
        is a group of its own, coded -1. New levels of other factors are coded -1.

    Returns
    -------
    data : ResidualData
        Its `rows` are the places of the rows, None if none is left out.
    N : int
        Rows of the new data.

    Raises
    ------
    DataError
        There is no such column, or it has infinite values.
    """
    columns = data if type(data) is Columns else Columns(data, columns_of(state.structure))
    n = columns.n_rows
    every: list[list[Value]] = []
    missing = np.zeros(n, dtype=bool)
    for need, states in zip(state.needs, state.states, strict=True):
        found: list[Value] = []
        for expression, memory in zip(_expressions(need), states, strict=True):
            if memory is None and isinstance(expression, Variable):
                value = columns.factor(expression.name) if need.kind == "factor" else columns[expression.name]
            else:
                value = as_value(apply(expression, columns, memory, functions=functions), need.text, n)
            value = _as_kind(value, need)
            if need.kind == "number":
                check_finite(value, f"{need.what}: column {need.text!r} of the new data")
            if need.text != group:
                missing |= missing_rows(value)
            found.append(value)
        every.append(found)
    kept = np.flatnonzero(~missing) if missing.any() else None
    numbers: dict[str, np.ndarray] = {}
    factors: dict[str, Levels] = {}
    for need, found, levels, labels in zip(state.needs, every, state.levels, state.labels, strict=True):
        cut = found if kept is None else [take_rows(value, kept) for value in found]
        if need.kind == "number":
            numbers[need.text] = np.array(cut[0], dtype=np.float64)
            continue
        assert levels is not None and labels is not None
        factors[need.text] = _match(cut, levels, labels, need.text == group)  # type: ignore[arg-type]
    return ResidualData(n if kept is None else kept.shape[0], numbers, factors, kept), n


def _match(
    found: list[FactorColumn], levels: tuple[Any, ...], labels: tuple[str, ...], append: bool
) -> Levels:
    """Codes of new values among the labels of the fit."""
    if len(found) == 1 and not append:
        return Levels(match_levels(found[0], levels[0])[0].astype(np.intp), labels)
    joint = interact(found) if len(found) > 1 else found[0]
    own = tuple(joint.levels) if isinstance(joint.levels, InteractionLevels) else level_labels(joint.levels)
    known = {label: code for code, label in enumerate(labels)}
    further: dict[str, int] = {}
    table = np.full(len(own) + 1, -1, dtype=np.intp)
    for place, label in enumerate(own):
        code = known.get(label, -1)
        if code < 0 and append:
            code = further.setdefault(label, len(labels) + len(further))
        table[place] = code
    return Levels(table[joint.codes], (*labels, *further))
