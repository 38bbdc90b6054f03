"""What the data taught: levels, contrasts, transform states and dropped columns, as plain data.

An `Encoding` turns new data into the columns the model was fitted with. Its dictionary form holds only
numbers, texts, lists and arrays, so that it can be written as JSON plus arrays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mixedmodels.errors import DataError, OptionError
from mixedmodels.formula.ast import Expression, Formula
from mixedmodels.frame.factors import InteractionLevels
from mixedmodels.frame.labels import level_labels

__all__ = ["Encoding", "GroupState", "PartState", "VariableState", "find_bars"]


class VariableState(NamedTuple):
    """One expression of the formula (a column or a transform of columns).

    Attributes
    ----------
    label : str
        Text of the expression, as in the coefficient names.
    expression : Expression
    kind : {"numeric", "factor", "matrix"}
    state : Any
        Plain data learnt by stateful transforms; None for a column.
    levels : array or tuple or None
        Levels of a factor.
    ordered : bool
    suffixes : tuple of str
        Suffixes of the columns of a matrix.
    contrast : ndarray of float64, shape (m, c), or None
        Contrast matrix; None stands for treatment contrasts (column c is level c + 1).
    contrast_names : tuple of str, length c
    """

    label: str
    expression: Expression
    kind: str
    state: Any = None
    levels: Any = None
    ordered: bool = False
    suffixes: tuple[str, ...] = ()
    contrast: np.ndarray | None = None
    contrast_names: tuple[str, ...] = ()


class PartState(NamedTuple):
    """Columns of the fixed part or of the left side of one bar, before any column is dropped.

    Attributes
    ----------
    intercept : bool
    terms : tuple of tuple of int
        Variables (indices into ``Encoding.variables``) of each term.
    full : tuple of tuple of bool
        Whether the factor is coded by all its dummies (True) or by contrasts.
    labels : tuple of str
        Labels of the terms, without the intercept.
    names : tuple of str
        Names of the columns.
    stops : tuple of int
        End of the columns of each term.
    pieces : tuple of PartState
        Of ``joint(1 | animal, 1 | dam)`` the left sides of all bars; the other attributes but `names`, which
        are all, are those of the first.
    """

    intercept: bool
    terms: tuple[tuple[int, ...], ...]
    full: tuple[tuple[bool, ...], ...]
    labels: tuple[str, ...]
    names: tuple[str, ...]
    stops: tuple[int, ...]
    pieces: tuple[PartState, ...] = ()

    @property
    def used(self) -> tuple[int, ...]:
        """The variables in it."""
        parts = self.pieces or (self,)
        return tuple(dict.fromkeys(v for part in parts for term in part.terms for v in term))

    @property
    def key(self) -> tuple[Any, ...]:
        """Parts with the same key have the same columns."""
        return self[:3] if not self.pieces else tuple([part[:3] for part in self.pieces])

    @property
    def owners(self) -> np.ndarray:
        """The piece that each column belongs to."""
        return np.repeat(np.arange(len(self.pieces)), [len(part.names) for part in self.pieces])


class GroupState(NamedTuple):
    """One grouping factor: its expressions, their states and the levels seen.

    With `joint` each expression holds the levels of its own columns of a term.
    """

    name: str
    expressions: tuple[Expression, ...]
    states: tuple[Any, ...]
    levels: Any
    joint: bool = False


class Encoding(NamedTuple):
    """Everything needed to turn new data into the columns of the model.

    Attributes
    ----------
    formula : Formula
        With ``.`` already resolved.
    variables : tuple of VariableState
    fixed : PartState
    bars : tuple of PartState
        Left sides of the bars.
    bar_labels : tuple of str
    groups : tuple of GroupState
        Distinct grouping factors.
    bar_groups : tuple of int
        Grouping factor of each bar.
    offsets : tuple of int
        Variables that are offsets.
    offset_column : str or None
        Column given as the argument `offset`; "" if an array was given.
    kept : ndarray of intp or None
        Columns of the fixed part that are in the design; None for all.
    null : ndarray of float64, shape (columns, dropped), or None
        Basis of the null space of the full fixed-effects matrix: a row x is estimable if ``x null = 0``.
    """

    formula: Formula
    variables: tuple[VariableState, ...]
    fixed: PartState
    bars: tuple[PartState, ...]
    bar_labels: tuple[str, ...]
    groups: tuple[GroupState, ...]
    bar_groups: tuple[int, ...]
    offsets: tuple[int, ...] = ()
    offset_column: str | None = None
    kept: np.ndarray | None = None
    null: np.ndarray | None = None

    @property
    def x_names(self) -> tuple[str, ...]:
        """Names of the fixed-effects columns in the design."""
        names = self.fixed.names
        return names if self.kept is None else tuple(names[j] for j in self.kept)

    @property
    def dropped_columns(self) -> tuple[str, ...]:
        """Names of the fixed-effects columns left out because they depend on earlier ones."""
        if self.kept is None:
            return ()
        kept = set(self.kept.tolist())
        return tuple(name for j, name in enumerate(self.fixed.names) if j not in kept)

    @property
    def assign(self) -> dict[str, slice]:
        """Columns of the design's X that belong to each term; the intercept is ``"(Intercept)"``.

        A term whose columns were all dropped has an empty slice.
        """
        bounds = [0] if not self.fixed.intercept else [0, 1]
        labels = list(self.fixed.labels)
        if self.fixed.intercept:
            labels.insert(0, "(Intercept)")
        bounds.extend(self.fixed.stops)
        if self.kept is not None:
            bounds = np.searchsorted(self.kept, bounds).tolist()
        return {label: slice(bounds[i], bounds[i + 1]) for i, label in enumerate(labels)}

    def levels(self, label: str) -> tuple[str, ...]:
        """Labels of the levels of a fixed factor or of a grouping factor."""
        for variable in self.variables:
            if variable.label == label and variable.kind == "factor":
                return level_labels(variable.levels)
        for group in self.groups:
            if group.name == label:
                return level_labels(group.levels)
        raise DataError(f"the model has no factor {label!r}")

    def to_dict(self) -> dict[str, Any]:
        """Plain data: dictionaries, lists, texts, numbers and arrays."""
        return {
            "formula": str(self.formula),
            "variables": [
                {
                    "label": v.label,
                    "kind": v.kind,
                    "state": v.state,
                    "levels": _pack_levels(v.levels),
                    "ordered": v.ordered,
                    "suffixes": list(v.suffixes),
                    "contrast": v.contrast,
                    "contrast_names": list(v.contrast_names),
                }
                for v in self.variables
            ],
            "fixed": _pack_part(self.fixed),
            "bars": [_pack_part(part) for part in self.bars],
            "bar_labels": list(self.bar_labels),
            "groups": [
                {"name": g.name, "states": list(g.states), "levels": _pack_levels(g.levels)}
                for g in self.groups
            ],
            "bar_groups": list(self.bar_groups),
            "offsets": list(self.offsets),
            "offset_column": self.offset_column,
            "kept": self.kept,
            "null": self.null,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Encoding:
        """Inverse of :meth:`to_dict`; lists may stand where arrays were written."""
        from mixedmodels.formula import parse
        from mixedmodels.frame.plan import plan_of

        formula = parse(data["formula"])
        plan = plan_of(formula)
        variables = []
        for label, expression, v in zip(plan.labels, plan.expressions, data["variables"], strict=True):
            if label != v["label"]:
                raise DataError(
                    f"the saved encoding does not fit its formula: {v['label']!r} is not {label!r}"
                )
            variables.append(
                VariableState(
                    label,
                    expression,
                    v["kind"],
                    v["state"],
                    _unpack_levels(v["levels"]),
                    bool(v["ordered"]),
                    tuple(v["suffixes"]),
                    None if v["contrast"] is None else np.asarray(v["contrast"], dtype=np.float64),
                    tuple(v["contrast_names"]),
                )
            )
        groups = tuple(
            GroupState(p.name, p.expressions, tuple(g["states"]), _unpack_levels(g["levels"]), p.joint)
            for p, g in zip(plan.groups, data["groups"], strict=True)
        )
        kept, null = data["kept"], data["null"]
        return cls(
            formula,
            tuple(variables),
            _unpack_part(data["fixed"]),
            tuple(_unpack_part(part) for part in data["bars"]),
            tuple(data["bar_labels"]),
            groups,
            tuple(data["bar_groups"]),
            tuple(data["offsets"]),
            data["offset_column"],
            None if kept is None else np.asarray(kept, dtype=np.intp),
            None if null is None else np.asarray(null, dtype=np.float64),
        )


def _pack_levels(levels: Any) -> Any:
    if levels is None:
        return None
    if isinstance(levels, InteractionLevels):
        return {"levels": [_pack_levels(part) for part in levels.levels], "combinations": levels.combinations}
    if isinstance(levels, np.ndarray) and levels.dtype.kind in "iufb":
        return {"kind": levels.dtype.kind, "values": levels}
    return {"kind": "text", "values": list(level_labels(levels))}


def _unpack_levels(data: Any) -> Any:
    if data is None:
        return None
    if "combinations" in data:
        combinations = np.asarray(data["combinations"], dtype=np.int32)
        return InteractionLevels([_unpack_levels(part) for part in data["levels"]], combinations)
    if data["kind"] == "text":
        return np.array(data["values"], dtype=object)
    return np.asarray(data["values"], dtype={"i": "i8", "u": "u8", "f": "f8", "b": "?"}[data["kind"]])


def _pack_part(part: PartState) -> dict[str, Any]:
    return {
        "intercept": part.intercept,
        "terms": [list(term) for term in part.terms],
        "full": [list(full) for full in part.full],
        "labels": list(part.labels),
        "names": list(part.names),
        "stops": list(part.stops),
        **({"pieces": [_pack_part(piece) for piece in part.pieces]} if part.pieces else {}),
    }


def _unpack_part(data: Mapping[str, Any]) -> PartState:
    return PartState(
        bool(data["intercept"]),
        tuple(tuple(term) for term in data["terms"]),
        tuple(tuple(map(bool, full)) for full in data["full"]),
        tuple(data["labels"]),
        tuple(data["names"]),
        tuple(data["stops"]),
        tuple(_unpack_part(piece) for piece in data.get("pieces", ())),
    )


def find_bars(
    wanted: Sequence[str], labels: Sequence[str], groups: Sequence[str], *, several: bool
) -> tuple[int, ...]:
    """Indices of the bars named by their text (``"(1 | g)"``, ``"1|g"``) or by their grouping factor.

    Parameters
    ----------
    wanted : sequence of str
    labels, groups : sequence of str
        Text and grouping factor of each bar.
    several : bool
        Whether a grouping factor may stand for all its bars.
    """

    def plain(text: str) -> str:
        text = text.replace(" ", "")
        return text[1:-1] if text.startswith("(") and text.endswith(")") else text

    found: list[int] = []
    for name in wanted:
        hits = [i for i, label in enumerate(labels) if plain(label) == plain(name)]
        if not hits:
            hits = [i for i, group in enumerate(groups) if group.replace(" ", "") == name.replace(" ", "")]
            if len(hits) > 1 and not several:
                raise OptionError(f"{name!r} has several random terms: name one of {', '.join(labels)}")
        if not hits:
            raise OptionError(f"the model has no random term {name!r}; it has {', '.join(labels) or 'none'}")
        found.extend(hits)
    return tuple(dict.fromkeys(found))
