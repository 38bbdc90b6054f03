"""Predictions for new rows and responses drawn from the model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import NotEstimableWarning, NotImplementedYetError, OptionError, warn
from mixedmodels.fit import values

if TYPE_CHECKING:
    from mixedmodels.fit.result import LMMFit

__all__ = ["predict", "predict_design", "select_columns", "simulate"]

_NONE_WORDS = {"population", "na", "~0", "~1", "none", "fixed"}
_NEW_LEVELS = ("error", "population", "missing")

# (position of the term, its chosen columns or None for all)
Selection = list[tuple[int, "Sequence[int] | None"]]


def select_columns(fit: LMMFit, re_form: Any) -> Selection:
    """Which columns of which terms a `re_form` names.

    None names all; ``"population"``, ``"NA"``, ``"~0"``, False and NaN none; a sequence of group names the
    terms on these groups; a formula text ``"~ (1 | g)"`` the columns of its bars.

    Raises
    ------
    OptionError
        A group or column that the model does not have.
    """
    terms = fit.design.terms
    if re_form is None or re_form is True:
        return [(position, None) for position in range(len(terms))]
    if re_form is False or (isinstance(re_form, float) and re_form != re_form):
        return []
    if isinstance(re_form, str):
        word = re_form.replace(" ", "").lower()
        if word in _NONE_WORDS:
            return []
        if "|" in re_form:
            return _selection_of_formula(fit, re_form)
        re_form = [re_form]
    elif not isinstance(re_form, Iterable):
        raise OptionError(
            f"re_form must be None (all random effects), 'population' (none), names of grouping factors or a "
            f"formula such as '~ (1 | g)', got {re_form!r}"
        )
    groups = {term.group for term in terms}
    out: Selection = []
    for name in re_form:
        if name not in groups:
            raise OptionError(
                f"re_form={name!r} is not a grouping factor of the model "
                f"({', '.join(sorted(groups)) or 'it has none'}); write None for all random effects, "
                "'population' for none, or a formula such as '~ (1 | g)'"
            )
        out += [(position, None) for position, term in enumerate(terms) if term.group == name]
    return sorted(set(out), key=lambda pair: pair[0])


def _selection_of_formula(fit: LMMFit, text: str) -> Selection:
    from mixedmodels.formula import parse

    formula = parse(text if "~" in text else "~ " + text)
    terms = fit.design.terms
    chosen: dict[int, set[int]] = {}
    for bar in formula.bars:
        group = ":".join([str(expression) for expression in bar.group])
        alike = ":".join([str(expression) for expression in reversed(bar.group)])
        wanted = ["(Intercept)"] if bar.effects.intercept else []
        wanted += [str(term) for term in bar.effects.terms]
        positions = [p for p, term in enumerate(terms) if term.group in (group, alike)]
        if not positions:
            raise OptionError(
                f"re_form: the model has no random effects on {group!r}; "
                f"its groups are {', '.join(dict.fromkeys(term.group for term in terms)) or 'none'}"
            )
        for name in wanted:
            found = [(p, j) for p in positions for j, column in enumerate(terms[p].names) if column == name]
            if not found:
                found = [(p, j) for p in positions for j in _columns_of_term(fit, p, name)]
            if not found:
                columns = ", ".join(column for p in positions for column in terms[p].names)
                raise OptionError(
                    f"re_form: {name!r} is not among the random effects of {group!r} ({columns})"
                )
            for position, column in found:
                chosen.setdefault(position, set()).add(column)
    return [
        (position, None if len(columns) == terms[position].k else sorted(columns))
        for position, columns in sorted(chosen.items())
    ]


def _columns_of_term(fit: LMMFit, position: int, name: str) -> list[int]:
    """Columns that a categorical effect of the term's bar made: all columns that no other effect explains."""
    formula = fit.formula
    if formula is None or len(formula.bars) != len(fit.design.terms):
        return []
    bar = formula.bars[position]
    effects = [str(term) for term in bar.effects.terms]
    if name not in effects:
        return []
    others = {"(Intercept)", *effects} - {name}
    numeric = [column for column in fit.design.terms[position].names if column in others]
    if len(numeric) != len(others & {*effects, *(["(Intercept)"] if bar.effects.intercept else [])}):
        return []
    return [j for j, column in enumerate(fit.design.terms[position].names) if column not in others]


def predict(fit: LMMFit, newdata: Any, re_form: Any, new_levels: str, offset: Any = None) -> np.ndarray:
    """Point predictions; see `LMMFit.predict`."""
    if new_levels not in _NEW_LEVELS:
        raise OptionError(f"new_levels must be one of {', '.join(_NEW_LEVELS)}, got {new_levels!r}")
    if newdata is None:
        return fit.fitted(re_form)
    selection = select_columns(fit, re_form)
    if fit.formula is None:
        fit.frame.new_data(newdata)
    labels = fit.frame.encoding.bar_labels
    design = fit.frame.new_data(
        newdata,
        re_form=[labels[position] for position, _ in selection],
        need_groups=bool(selection),
        new_levels=new_levels,
        offset=offset,
    )
    return predict_design(fit, design, selection, new_levels)


def predict_design(fit: LMMFit, design: Any, selection: Selection, new_levels: str) -> np.ndarray:
    """Predictions for the columns of new rows (`NewDesign`), shape (rows,)."""
    eta = values.fixed_predictor(design.X, fit.beta, design.offset)
    for position, columns in selection:
        codes, Z = design.terms[position]
        part = values.term_contribution(codes, Z, fit._b[position], columns)
        # Codes of -1 took the last level: a new or missing level counts as zero, its mean.
        part[codes < 0] = 0.0
        eta += part
    eta[~design.rows] = np.nan
    if design.estimable is not None and not design.estimable.all():
        rows = np.flatnonzero(~design.estimable)
        shown = ", ".join(map(str, rows[:5].tolist())) + (", ..." if rows.size > 5 else "")
        warn(
            f"{rows.size} predicted value(s) are not estimable and set to NaN (rows {shown}): they need "
            f"coefficients that the data could not determine ({', '.join(fit.frame.dropped_columns)}); "
            "simplify the fixed part or leave these rows out",
            NotEstimableWarning,
        )
        eta[rows] = np.nan
    return eta


def simulate(fit: LMMFit, n: int, seed: Any, new_effects: bool) -> np.ndarray:
    """Draws of the response, shape (nobs, n); see `LMMFit.simulate`."""
    if not isinstance(n, (int, np.integer)) or n < 1:
        raise OptionError(f"n must be a positive whole number, got {n!r}")
    n = int(n)
    design = fit.design
    try:
        rng = np.random.default_rng(seed)
    except (TypeError, ValueError):
        raise OptionError(
            f"seed must be None, a whole number >= 0 or a numpy Generator, got {seed!r}"
        ) from None
    sigma = fit.sigma
    out = np.empty((design.n, n))
    base = np.array(fit._linear_predictor("population" if new_effects else None))
    if new_effects and any(term.precision is not None for term in design.terms):
        raise NotImplementedYetError(
            "simulate() with a known precision between levels is not in this version"
        )
    root = None if design.weights is None else 1.0 / np.sqrt(design.weights)
    factors = [np.array(factor) for factor in fit._factors]
    for draw in range(n):
        y = base.copy()
        if new_effects:
            effects = [
                sigma * rng.standard_normal((term.m, term.k)) @ factor.T
                for term, factor in zip(design.terms, factors, strict=True)
            ]
            values.add_random_effects(y, design, effects)
        noise = sigma * rng.standard_normal(design.n)
        y += noise if root is None else noise * root
        out[:, draw] = y
    return out
