"""The fixed effects in sentences: what each term of a model says, for readers who are not statisticians."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.fit.wald import percent
from mixedmodels.formula import variables
from mixedmodels.formula.ast import Call, Variable
from mixedmodels.inference.means.back_transform import back_transform
from mixedmodels.report.words import evidence, joined, number

if TYPE_CHECKING:
    from mixedmodels.frame.state import VariableState

__all__ = ["effect_words", "interval_words"]

_MOST_TERMS = 25
_MOST_LEVELS = 6
_LOGARITHMS = {
    "log": (math.log(2.0), "doubling"),
    "log2": (1.0, "doubling"),
    "log10": (1.0, "increase by a factor of 10"),
}


def interval_words(level: float, tested: bool = True) -> str:
    """What the ranges and p-values in the sentences are."""
    ranges = (
        f"The range in brackets is the {percent(level)} confidence interval: the values that go well "
        "together with the data."
    )
    if not tested:
        return ranges
    return (
        f"{ranges} The p-value says how often chance alone would give an estimate at least this far from "
        "zero if there were no effect; a small one speaks for an effect. Each sentence compares observations "
        "that are alike in everything else."
    )


def effect_words(rows: Sequence[Mapping[str, Any]], tests: Mapping[str, float], fit: Any) -> tuple[str, ...]:
    """A sentence or two for each term of the fixed part.

    Parameters
    ----------
    rows : sequence of mapping
        The coefficients: term, estimate, conf_low, conf_high, p_value.
    tests : mapping
        p-values of whole terms (each averaged over the levels of the others).
    """
    if fit.formula is None or not rows:
        return tuple(_coefficient(row) for row in rows) if len(rows) <= _MOST_TERMS else ()
    kind: type[_Terms] = _Terms
    if not fit._is_linear:
        from mixedmodels.report.glmm_words import GLMMTerms

        kind = GLMMTerms
    terms = kind(fit, rows, tests)
    if len(terms.labels) > _MOST_TERMS:
        return ("There are too many terms for sentences; the tables below have all of them.",)
    return tuple(sentence for label in terms.labels for sentence in terms.words(label))


def _coefficient(row: Mapping[str, Any]) -> str:
    return f"The coefficient of {row['term']} is {number(row['estimate'])} {_range(row)}. " + evidence(
        row["p_value"]
    )


def _range(row: Mapping[str, Any], unit: str = "") -> str:
    low, high = row["conf_low"], row["conf_high"]
    if not (math.isfinite(low) and math.isfinite(high)):
        return "(no interval)"
    return f"({number(low)}{unit} to {number(high)}{unit})"


class _Terms:
    """The terms of the fixed part with what is needed to speak of them."""

    def __init__(self, fit: Any, rows: Sequence[Mapping[str, Any]], tests: Mapping[str, float]) -> None:
        encoding = fit.frame.encoding
        assert fit.formula is not None
        self.rows, self.tests, self.assign = rows, tests, encoding.assign
        self.labels = [label for label, part in self.assign.items() if part.stop > part.start]
        self.variables: dict[str, list[VariableState]] = {
            label: [encoding.variables[v] for v in term]
            for label, term in zip(encoding.fixed.labels, encoding.fixed.terms, strict=True)
        }
        response = fit.formula.response
        back = back_transform(response)
        self.log = math.log(back.log_base) if back is not None and back.log_base is not None else 0.0
        raw = variables(response) if response is not None else ()
        self.response = str(raw[0]) if self.log and len(raw) == 1 else str(response)
        self.scale = str(response)

    def words(self, label: str) -> list[str]:
        """What one term says."""
        rows = list(self.rows[self.assign[label]])
        if label not in self.variables:
            return [self._intercept(rows[0])]
        parts = self.variables[label]
        if len(parts) > 1:
            return self._interaction(label, parts, rows)
        if parts[0].kind == "numeric" and len(rows) == 1:
            return [self._slope(parts[0], rows[0])]
        if parts[0].kind == "factor":
            return self._factor(label, parts[0], rows)
        inside = joined(list(variables(parts[0].expression))) or label
        return [f"Along {inside}, {self.response} is described by a curve. {self._together(label, rows)}"]

    # ------------------------------------------------------------------ one kind of term each

    def _intercept(self, row: Mapping[str, Any]) -> str:
        value = f"is {number(row['estimate'])} {_range(row)}"
        seen = {part.label: part for parts in self.variables.values() for part in parts}
        if not seen:
            return f"The average {self.scale} {value}."
        return f"The expected {self.scale} {value} {self._start(list(seen.values()))}."

    def _slope(self, variable: VariableState, row: Mapping[str, Any]) -> str:
        expression, unit, factor = variable.expression, f"additional unit of {variable.label}", 1.0
        if isinstance(expression, Call) and expression.function in _LOGARITHMS:
            match expression.args, expression.kwargs:
                case (Variable() as inner,), ():
                    factor, step = _LOGARITHMS[expression.function]
                    unit = f"{step} of {inner}"
        raw = set(variables(expression))
        if any(raw & set(variables(part.expression)) for part in self._mains() if part is not variable):
            return (
                f"{variable.label} is one part of a curve in {joined(sorted(raw))}, which the plot below "
                f"shows. {_coefficient(row)}"
            )
        partners = self._partners(variable)
        where = f" {self._start(partners)}" if partners else ""
        return f"Each {unit} goes with a {self._change(row, factor)}{where}. {evidence(row['p_value'])}"

    def _factor(self, label: str, variable: VariableState, rows: list[Mapping[str, Any]]) -> list[str]:
        levels = [str(level) for level in variable.levels]
        partners = self._partners(variable)
        if len(rows) == len(levels):
            return [f"Each coefficient of {label} is the expected {self.scale} for one of its levels."]
        plain = _is_treatment(variable) and len(rows) == len(levels) - 1
        if not plain or partners or len(rows) > _MOST_LEVELS:
            at = [f"{part.label} is 0" for part in partners if part.kind != "factor"]
            averaged = [part.label for part in partners if part.kind == "factor"]
            over = f" where {joined(at)}" if at else ""
            over += f", on average over {joined(averaged)}" if averaged else ""
            return [
                f"Do the levels of {label} differ{over}? {self._together(label, rows)} The plots and means "
                "below show by how much."
            ]
        out = [
            f"Compared with {label} = {levels[0]}, {label} = {level} goes with a {self._change(row)}. "
            + evidence(row["p_value"], "difference")
            for level, row in zip(levels[1:], rows, strict=True)
        ]
        if len(rows) > 1:
            out.append(f"All levels of {label} together: {self._together(label, rows)}")
        return out

    def _interaction(
        self, label: str, parts: list[VariableState], rows: list[Mapping[str, Any]]
    ) -> list[str]:
        names = [part.label for part in parts]
        ask = f"Does the effect of {names[0]} depend on {joined(names[1:])}? {self._together(label, rows)}"
        numeric = [part for part in parts if part.kind == "numeric"]
        factors = [part for part in parts if part.kind == "factor"]
        out = [ask]
        higher = any(set(names) < {v.label for v in other} for other in self.variables.values())
        if len(parts) != 2 or higher or not numeric or len(rows) > _MOST_LEVELS or self.log:
            return out
        if len(numeric) == 2 and len(rows) == 1:
            more = "larger" if rows[0]["estimate"] > 0 else "smaller"
            out.append(
                f"With each additional unit of {names[1]}, the effect of one unit of {names[0]} becomes "
                f"{number(abs(rows[0]['estimate']))} {more}; the estimate of this change is "
                f"{number(rows[0]['estimate'])} {_range(rows[0])}."
            )
        elif len(factors) == 1 and _is_treatment(factors[0]) and len(rows) == len(factors[0].levels) - 1:
            levels = [str(level) for level in factors[0].levels]
            name, slope = factors[0].label, numeric[0].label
            out += [
                f"For {name} = {level} instead of {levels[0]}, the change in {self.response} with each "
                f"additional unit of {slope} differs by {number(row['estimate'])} {_range(row)}."
                for level, row in zip(levels[1:], rows, strict=True)
            ]
        return out

    # ------------------------------------------------------------------ parts of sentences

    def _change(self, row: Mapping[str, Any], factor: float = 1.0) -> str:
        """``Reaction that is 10.5 higher on average (7.2 to 13.7)``, in per cent for a log response."""
        ends = {key: row[key] * factor for key in ("estimate", "conf_low", "conf_high")}
        unit = ""
        if self.log:
            unit = "%"
            with np.errstate(over="ignore"):
                ends = {key: float(100.0 * np.expm1(self.log * value)) for key, value in ends.items()}
        direction = "higher" if ends["estimate"] > 0 else "lower"
        about = "about " if self.log else ""
        return (
            f"{self.response} that is {about}{number(abs(ends['estimate']))}{unit} {direction} on average "
            f"{_range(ends, unit) if direction == 'higher' else _lower_range(ends, unit)}"
        )

    def _together(self, label: str, rows: list[Mapping[str, Any]]) -> str:
        p = rows[0]["p_value"] if len(rows) == 1 else self.tests.get(label, math.nan)
        factors = any(part.kind == "factor" for part in self.variables[label])
        return evidence(p, "difference" if factors or len(self.variables[label]) > 1 else "effect")

    def _mains(self) -> list[VariableState]:
        """Variables that are a term of their own."""
        return [parts[0] for label, parts in self.variables.items() if len(parts) == 1]

    def _partners(self, variable: VariableState) -> list[VariableState]:
        """Variables that share an interaction with this one."""
        found = {
            part.label: part
            for parts in self.variables.values()
            if len(parts) > 1 and any(part.label == variable.label for part in parts)
            for part in parts
        }
        return [part for name, part in found.items() if name != variable.label]

    def _start(self, parts: Sequence[VariableState]) -> str:
        """Where the other columns are zero: ``where Days is 0 and recipe is A``."""
        at, over = [], []
        for part in parts:
            if part.kind == "factor":
                if _is_treatment(part):
                    at.append(f"{part.label} is {part.levels[0]}")
                elif part.contrast is not None and np.allclose(part.contrast.sum(axis=0), 0.0):
                    over.append(part.label)
                else:
                    at.append(f"the contrasts of {part.label} are 0")
            else:
                at.append(f"{part.label} is 0")
        texts = [f"where {joined(at)}"] if at else []
        texts += [f"averaged over the levels of {joined(over)}"] if over else []
        return ", ".join(texts)


def _lower_range(ends: Mapping[str, float], unit: str) -> str:
    """The interval of a decrease: how much higher (negative: lower)."""
    if not (math.isfinite(ends["conf_low"]) and math.isfinite(ends["conf_high"])):
        return "(no interval)"
    return f"(a change of {number(ends['conf_low'])}{unit} to {number(ends['conf_high'])}{unit})"


def _is_treatment(variable: VariableState) -> bool:
    """Whether each coefficient of the factor compares a level with the first one."""
    return variable.kind == "factor" and variable.contrast is None
