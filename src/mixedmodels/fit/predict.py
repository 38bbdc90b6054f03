"""Point predictions for new rows, and which random effects they hold."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import NotEstimableWarning, OptionError, warn
from mixedmodels.fit import values
from mixedmodels.fit.kriging import at_new_positions, open_terms

if TYPE_CHECKING:
    from mixedmodels.fit.base import Fit
    from mixedmodels.fit.result import LMMFit

__all__ = [
    "Selection",
    "check_new_levels",
    "new_rows",
    "not_estimable",
    "predict",
    "predict_design",
    "select_columns",
]

_NONE_WORDS = {"population", "na", "~0", "~1", "none", "fixed"}
_NEW_LEVELS = ("error", "population", "missing")

# (position of the term, its chosen columns or None for all)
Selection = list[tuple[int, "Sequence[int] | None"]]


def select_columns(fit: Fit, re_form: Any) -> Selection:
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


def _selection_of_formula(fit: Fit, text: str) -> Selection:
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


def _columns_of_term(fit: Fit, position: int, name: str) -> list[int]:
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
    selection = select_columns(fit, re_form)
    if newdata is None:
        check_new_levels(new_levels)
        return fit.fitted(re_form)
    return predict_design(fit, new_rows(fit, newdata, selection, new_levels, offset), selection)


def check_new_levels(new_levels: Any) -> None:
    """Refuse an unknown word."""
    if new_levels not in _NEW_LEVELS:
        raise OptionError(f"new_levels must be one of {', '.join(_NEW_LEVELS)}, got {new_levels!r}")


def new_rows(
    fit: LMMFit,
    newdata: Any,
    selection: Selection,
    new_levels: str,
    offset: Any = None,
    columns_of: Sequence[int] = (),
    tell_apart: bool = False,
) -> Any:
    """Columns of the model for new data (`NewDesign`).

    Parameters
    ----------
    fit : LMMFit
    newdata : data frame or mapping
        For a model made from matrices a dict of matrices; see `MatrixFrame.new_data`.
    selection : Selection
        Terms whose levels are looked up.
    new_levels : {"error", "population", "missing"}
    offset : array or str, optional
    columns_of : sequence of int
        Positions of the terms of which only the columns are wanted; their grouping factors are not needed.
    tell_apart : bool
        With ``new_levels="population"`` number new levels after those of the fit (each missing one is a level
        of its own) instead of -1 for all.
    """
    check_new_levels(new_levels)
    asked = [*[position for position, _ in selection], *columns_of]
    if fit.formula is None:
        return fit.frame.new_data(
            newdata,
            positions=[position for position, _ in selection],
            new_levels="append" if tell_apart and new_levels == "population" else new_levels,
            offset=offset,
            columns_of=columns_of,
        )
    labels = fit.frame.encoding.bar_labels
    rows = fit.frame.new_data(
        newdata,
        re_form=[labels[position] for position, _ in selection],
        need_groups=bool(selection),
        new_levels="append" if tell_apart and new_levels == "population" else new_levels,
        offset=offset,
        columns_of=[labels[position] for position in columns_of],
        new_positions=open_terms(fit.design.terms, asked),
    )
    return at_new_positions(fit, rows, selection)


def predict_design(fit: LMMFit, design: Any, selection: Selection) -> np.ndarray:
    """Predictions for the columns of new rows (`NewDesign`), shape (rows,)."""
    eta = values.fixed_predictor(design.X, fit.beta, design.offset)
    for position, columns in selection:
        codes, Z = design.terms[position]
        part = values.term_contribution(codes, Z, fit._b[position], columns)
        # Codes of -1 took the last level: a new or missing level counts as zero, its mean.
        if codes.ndim == 1:
            part[codes < 0] = 0.0
        eta += part
    eta[~design.rows] = np.nan
    eta[not_estimable(fit, design)] = np.nan
    return eta


def not_estimable(fit: Fit, design: Any) -> np.ndarray:
    """Rows whose mean the data could not determine, after a `NotEstimableWarning` if there are any."""
    if design.estimable is None or design.estimable.all():
        return np.zeros(0, dtype=np.intp)
    rows = np.flatnonzero(~design.estimable)
    shown = ", ".join(map(str, rows[:5].tolist())) + (", ..." if rows.size > 5 else "")
    warn(
        f"{rows.size} predicted value(s) are not estimable and set to NaN (rows {shown}): they need "
        f"coefficients that the data could not determine ({', '.join(fit.frame.dropped_columns)}); "
        "simplify the fixed part or leave these rows out",
        NotEstimableWarning,
    )
    return rows
