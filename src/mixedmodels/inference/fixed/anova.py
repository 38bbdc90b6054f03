"""Joint tests of the terms of the fixed part, of type I, II or III: F, or Wald chi-squared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import OptionError
from mixedmodels.inference.ddf.reference import Reference, reference_for
from mixedmodels.inference.fixed.component import component_view
from mixedmodels.inference.fixed.hypotheses import (
    marginal_hypotheses,
    sequential_hypotheses,
    type_two_hypotheses,
)
from mixedmodels.inference.fixed.wald_table import is_chi_squared, test_names, test_row
from mixedmodels.inference.table import ResultTable, result_table

if TYPE_CHECKING:
    from mixedmodels.fit.result import LMMFit

__all__ = ["anova", "term_hypotheses"]

_TYPES = {
    "1": 1, "i": 1, "sequential": 1, "2": 2, "ii": 2, "3": 3, "iii": 3, "marginal": 3,
}  # fmt: skip
_ROMAN = {1: "I", 2: "II", 3: "III"}


def anova(
    fit: LMMFit, type: int | str = 3, ddf: str | float | None = None, component: str | None = None
) -> ResultTable:
    """Joint tests of the terms of the fixed part; see `LMMFit.anova` and `GLMMFit.anova`.

    Returns
    -------
    ResultTable
        term, sum_sq, mean_sq, num_df, den_df, statistic, p_value; ``extra["L"]`` holds the hypothesis matrix
        of each term. ``mean_sq = F sigma^2`` before any scaling of F. Of a generalised model: term,
        statistic (chi-squared), df, p_value; with a number as `ddf` num_df, den_df, statistic (F), p_value.

    Raises
    ------
    OptionError
        An unknown type or method, a fit without formula.
    """
    kind = check_type(type)
    fit = component_view(fit, component)
    reference = reference_for(fit, ddf)
    hypotheses = term_hypotheses(fit, kind)
    if not fit._is_linear:
        return _generalised(fit, kind, reference, hypotheses, component)
    rows: dict[str, list[Any]] = {
        "term": [], "sum_sq": [], "mean_sq": [], "num_df": [], "den_df": [], "statistic": [], "p_value": [],
    }  # fmt: skip
    notes = list(reference.notes)
    untestable = []
    for label, L in hypotheses.items():
        if not len(L):
            untestable.append(label)
            continue
        test = reference.f_test(L, as_given=True)
        mean_sq = test.statistic / test.scaling * fit.sigma**2
        cells = (
            label, mean_sq * test.num_df, mean_sq, test.num_df, test.den_df, test.statistic, test.p_value,
        )  # fmt: skip
        for column, cell in zip(rows.values(), cells, strict=True):
            column.append(cell)
    notes += _untested(untestable)
    return result_table(
        f"Type {_ROMAN[kind]} analysis of variance, {reference.label}",
        rows,
        notes,
        fit._native,
        {"L": hypotheses, "type": kind},
    )


def _generalised(
    fit: Any, kind: int, reference: Reference, hypotheses: Mapping[str, np.ndarray], component: str | None
) -> ResultTable:
    chi = is_chi_squared(fit, reference)
    columns: dict[str, list[Any]] = {name: [] for name in ("term", *test_names(chi))}
    for label, L in hypotheses.items():
        if len(L):
            cells = {"term": label, **test_row(reference.f_test(L, as_given=True), chi)}
            for name, cell in cells.items():
                columns[name].append(cell)
    notes = [*reference.notes, *_untested([label for label, L in hypotheses.items() if not len(L)])]
    how = "Wald chi-squared tests" if chi else reference.label
    of = "" if component is None else f" of {getattr(fit, 'component', 'conditional')}"
    title = f"Type {_ROMAN[kind]} analysis of variance{of}, {how}"
    return result_table(title, columns, notes, fit._native, {"L": dict(hypotheses), "type": kind})


def _untested(labels: list[str]) -> list[str]:
    if not labels:
        return []
    why = "note: without a test, as none of their columns can be estimated beside the others: "
    return [why + ", ".join(labels)]


def check_type(type: int | str) -> int:
    """1, 2 or 3 from what the caller wrote."""
    kind = None if isinstance(type, bool) else _TYPES.get(str(type).lower())
    if kind is None:
        raise OptionError(f'anova type {type!r} is unknown; available: 1 or "sequential", 2, 3 or "marginal"')
    return kind


def term_hypotheses(fit: LMMFit, type: int | str = 3) -> dict[str, np.ndarray]:
    """The hypothesis matrix of each term, rows in the coefficients of the fit.

    Parameters
    ----------
    fit : LMMFit
    type : {1, 2, 3}
        As in `anova`.

    Raises
    ------
    OptionError
        The fit was made from matrices: there are no terms.
    """
    kind = check_type(type)
    if fit.formula is None:
        raise OptionError(
            "the model was made from matrices, so it has no terms; test hypotheses with fit.test(L)"
        )
    encoding = fit.frame.encoding
    slices = {label: columns for label, columns in encoding.assign.items() if label != "(Intercept)"}
    if kind == 3:
        found = marginal_hypotheses(encoding)
        return {label: found.get(label, np.zeros((0, fit.design.p))) for label in slices}
    X = np.asarray(fit.design.X)
    if kind == 1:
        return sequential_hypotheses(X, slices)
    return type_two_hypotheses(X, slices, encoding)
