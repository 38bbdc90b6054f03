"""Making and changing factors: ``factor``, ``ordered``, ``relevel``, ``interaction``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mixedmodels.errors import FormulaError, NewLevelError
from mixedmodels.frame.labels import level_label
from mixedmodels.frame.transforms.base import Arguments, State, Stateful, as_factor, plain_levels
from mixedmodels.frame.values import FactorColumn

__all__ = ["TRANSFORMS", "new_level_error", "recode"]


def new_level_error(what: str, unknown: Sequence[str], known: Sequence[Any]) -> NewLevelError:
    """The error for levels that the fit has not seen."""
    shown = ", ".join(repr(level) for level in unknown[:5]) + (", ..." if len(unknown) > 5 else "")
    listed = ", ".join(map(level_label, list(known)[:8]))
    if len(known) > 8:
        listed += f", ... ({len(known)})"
    return NewLevelError(
        f"{what} has the new level{'s' if len(unknown) > 1 else ''} {shown}, "
        "for which the fit has no coefficient; "
        f"known levels: {listed}. Drop these rows or refit with them"
    )


def recode(column: FactorColumn, levels: Sequence[Any], what: str, *, strict: bool = True) -> np.ndarray:
    """Codes of `column` among `levels`, matched by the levels' text.

    With `strict`, a level that occurs in the column but not among `levels` raises `NewLevelError`;
    otherwise it becomes missing, as R's ``factor(x, levels = )`` does.
    """
    index = {level_label(level): code for code, level in enumerate(levels)}
    texts = [level_label(level) for level in column.levels]
    table = np.array([index.get(text, -1) for text in texts] + [-1], dtype=np.int32)
    if strict and (table[:-1] < 0).any():
        used = np.bincount(column.codes[column.codes >= 0], minlength=len(texts)) > 0
        unknown = [
            text for text, code, there in zip(texts, table[:-1], used, strict=True) if code < 0 and there
        ]
        if unknown:
            raise new_level_error(what, unknown, levels)
    return table[column.codes]


def _learn_factor(arguments: Arguments) -> tuple[FactorColumn, State]:
    column = as_factor(arguments.values["x"], arguments.texts["x"], arguments.function)
    chosen = arguments.labels("levels")
    ordered = arguments.flag("ordered", arguments.function == "ordered" or column.ordered)
    if chosen is None:  # R drops levels without a row here
        used = np.bincount(column.codes[column.codes >= 0], minlength=len(column.levels)) > 0
        levels = plain_levels([level for level, there in zip(column.levels, used, strict=True) if there])
    else:
        levels = chosen
        if len(set(levels)) != len(levels):
            raise FormulaError(f"'{arguments.label}': levels holds a level twice")
    labels = arguments.labels("labels")
    if labels is not None and len(labels) != len(levels):
        raise FormulaError(
            f"'{arguments.label}': {len(levels)} levels need as many labels, not {len(labels)}"
        )
    state = {"levels": levels, "labels": labels, "ordered": ordered, "strict": chosen is None}
    return _apply_factor(arguments, state), state


def _apply_factor(arguments: Arguments, state: State) -> FactorColumn:
    column = as_factor(arguments.values["x"], arguments.texts["x"], arguments.function)
    codes = recode(
        column, state["levels"], f"'{arguments.label}'", strict=state["strict"] and arguments.strict
    )
    labels = state["labels"]
    if labels is None:
        return FactorColumn(codes, tuple(state["levels"]), ordered=state["ordered"])
    merged = list(dict.fromkeys(labels))  # equal labels merge levels, as in R
    table = np.array([merged.index(label) for label in labels] + [-1], dtype=np.int32)
    return FactorColumn(table[codes], tuple(merged), ordered=state["ordered"])


def _learn_as_factor(arguments: Arguments) -> tuple[FactorColumn, State]:
    column = as_factor(arguments.values["x"], arguments.texts["x"], arguments.function)
    state = {"levels": plain_levels(column.levels), "labels": None, "ordered": column.ordered, "strict": True}
    return _apply_factor(arguments, state), state


def _learn_relevel(arguments: Arguments) -> tuple[FactorColumn, State]:
    column = as_factor(arguments.values["x"], arguments.texts["x"], "relevel")
    if column.ordered:
        raise FormulaError(
            f"'{arguments.label}': {arguments.texts['x']} is ordered; relevel() is for unordered factors"
        )
    ref = arguments.values.get("ref")
    texts = [level_label(level) for level in column.levels]
    if isinstance(ref, (str, bool)) and level_label(ref) in texts:
        first = texts.index(level_label(ref))
    elif isinstance(ref, float) and ref in range(1, len(texts) + 1):
        first = int(ref) - 1  # a position, as in R
        if level_label(ref) in texts and texts[first] != level_label(ref):
            raise FormulaError(
                f"'{arguments.label}': ref = {level_label(ref)} is a level and also "
                f"the position of level {texts[first]}: "
                f'write the level in quotes, ref = "{level_label(ref)}" or ref = "{texts[first]}"'
            )
    else:
        shown = ", ".join(texts[:10])
        given = arguments.texts.get("ref", "nothing")
        raise FormulaError(f"'{arguments.label}': ref must be one of the levels ({shown}), not {given}")
    levels = plain_levels(column.levels)
    state = {
        "levels": [levels[first], *levels[:first], *levels[first + 1 :]],
        "labels": None,
        "ordered": False,
        "strict": True,
    }
    return _apply_factor(arguments, state), state


def _combinations(arguments: Arguments) -> tuple[list[FactorColumn], np.ndarray]:
    """The factors and the row-wise codes, the first factor varying fastest; -1 rows are missing."""
    factors = [as_factor(value, text, "interaction") for _, value, text in arguments.rest]
    if not factors:
        raise FormulaError("interaction() needs factors")
    return factors, np.column_stack([factor.codes for factor in factors])


def _learn_interaction(arguments: Arguments) -> tuple[FactorColumn, State]:
    factors, codes = _combinations(arguments)
    present = (codes >= 0).all(axis=1)
    observed = np.unique(codes[present][:, ::-1], axis=0)[:, ::-1]
    levels = [
        ".".join(level_label(factor.levels[code]) for factor, code in zip(factors, row, strict=True))
        for row in observed
    ]
    state = {"levels": levels}
    return _apply_interaction(arguments, state), state


def _apply_interaction(arguments: Arguments, state: State) -> FactorColumn:
    factors, codes = _combinations(arguments)
    present = (codes >= 0).all(axis=1)
    observed, inverse = np.unique(codes[present], axis=0, return_inverse=True)
    labels = tuple(
        ".".join(level_label(factor.levels[code]) for factor, code in zip(factors, row, strict=True))
        for row in observed
    )
    rows = np.full(codes.shape[0], -1, dtype=np.int32)
    rows[present] = inverse.ravel()
    matched = recode(
        FactorColumn(rows, labels), state["levels"], f"'{arguments.label}'", strict=arguments.strict
    )
    return FactorColumn(matched, tuple(state["levels"]))


TRANSFORMS: dict[str, Stateful] = {
    "factor": Stateful(("x", "levels", "labels", "ordered"), _learn_factor, _apply_factor),
    "ordered": Stateful(("x", "levels", "labels"), _learn_factor, _apply_factor),
    "as.factor": Stateful(("x",), _learn_as_factor, _apply_factor),
    "relevel": Stateful(("x", "ref"), _learn_relevel, _apply_factor),
    "interaction": Stateful(("...",), _learn_interaction, _apply_interaction),
}
