"""Each term of the fixed part left out in turn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mixedmodels.errors import OptionError
from mixedmodels.inference.ddf.reference import Reference, reference_for
from mixedmodels.inference.fixed.component import component_view
from mixedmodels.inference.fixed.wald_table import is_chi_squared, test_names, test_row
from mixedmodels.inference.likelihood.boundary import chi_squared_tail
from mixedmodels.inference.likelihood.reduced import FixedPart, fit_design, fixed_part, restricted_design
from mixedmodels.inference.table import ResultTable, result_table

if TYPE_CHECKING:
    from mixedmodels.fit.result import LMMFit

__all__ = ["drop1", "match_terms"]

_TESTS = ("f", "lrt", "none")


def drop1(
    fit: LMMFit,
    scope: Any = None,
    test: str | None = None,
    ddf: str | float | None = None,
    component: str | None = None,
) -> ResultTable:
    r"""Each term of the fixed part left out in turn; see `LMMFit.drop1`.

    By F at the fitted variances, ``sum_sq = F num_df sigma^2``; or by refits without the columns of the term,

    .. math:: T = 2(\ell - \ell_{(-t)}) \sim \chi^2_r, \qquad \text{AIC} = -2\ell_{(-t)} + 2 k_{(-t)},

    by maximum likelihood (a REML fit is refitted first, and a note says so). Generalised models are refitted
    unless Wald tests are asked for.

    Parameters
    ----------
    fit : LMMFit
    scope : str or sequence of str, optional
        Terms to try; by default all that no other term contains.
    test : {"f", "wald", "lrt", "none"}
        By default F tests of a linear, likelihood-ratio tests of a generalised model.
    component : str, optional
        Linear predictor of a generalised model.
    ddf : str or float
        For the F tests.

    Returns
    -------
    ResultTable
        By F: term, sum_sq, mean_sq, num_df, den_df, statistic, p_value (Wald tests of a generalised model:
        term, statistic, df, p_value). Else: term, df, aic, statistic and
        p_value, with ``<none>`` for the whole model first.

    Examples
    --------
    >>> import mixedmodels as mm
    >>> fit = mm.lmm("Reaction ~ Days + (Days | Subject)", mm.load_dataset("sleepstudy", "dict"), reml=False)
    >>> round(fit.drop1(test="lrt").row("Days")["statistic"], 4)
    23.5365
    """
    fit = component_view(fit, component)
    kind = ("f" if fit._is_linear else "lrt") if test is None else str(test).lower()
    kind = "f" if kind == "wald" else kind
    if kind not in _TESTS:
        known = "'f', 'lrt' or 'none'" if fit._is_linear else "'lrt', 'wald' or 'none'"
        raise OptionError(f"test must be {known}, got {test!r}")
    part = fixed_part(fit)
    labels = [x for x in part.labels if not part.containing(x)] if scope is None else match_terms(part, scope)
    notes = [
        f"{label} is contained in {', '.join(part.containing(label))}: its own columns are left out, and "
        "what they mean depends on the contrasts"
        for label in labels
        if part.containing(label)
    ]
    if kind == "f":
        return _by_f(fit, part, labels, ddf, notes)
    return _by_refit(fit, part, labels, kind == "lrt", notes)


def match_terms(part: FixedPart, scope: Any) -> list[str]:
    """Labels of the terms that `scope` names; the order of factors in an interaction does not matter."""
    if not isinstance(scope, (str, Sequence)) or not scope:
        raise OptionError(
            f"scope must be a term or a list of terms ({', '.join(part.labels)}), got {scope!r}"
        )
    wanted = [scope] if isinstance(scope, str) else list(scope)
    found = []
    for name in wanted:
        hit = find_term(part, name)
        if hit is None:
            raise OptionError(
                f"the fixed part has no term {name!r}; its terms are {', '.join(part.labels) or 'none'}"
            )
        found.append(hit)
    return found


def find_term(part: FixedPart, name: Any) -> str | None:
    """The label of one term, given as text or as a tuple of its factors; None if there is none."""
    if not isinstance(name, str):
        try:
            name = ":".join(name)
        except TypeError:
            raise OptionError(f"a term is a text such as 'x' or 'x:f', got {name!r}") from None
    plain = "".join(name.split())
    for label in part.columns:
        if "".join(label.split()) == plain:
            return label
    pieces = frozenset(plain.split(":"))
    for label, inside in part.variables.items():
        if frozenset("".join(x.split()) for x in inside) == pieces and len(pieces) > 1:
            return label
    return None


def nothing_left(label: str) -> str:
    """Why a term has no test."""
    return f"{label}: its columns depend on the other terms, so leaving it out changes nothing"


def _by_f(
    fit: LMMFit, part: FixedPart, labels: list[str], ddf: str | float | None, notes: list[str]
) -> ResultTable:
    reference = reference_for(fit, ddf)
    if not fit._is_linear:
        return _by_wald(fit, part, labels, reference, notes)
    columns: dict[str, list[Any]] = {
        name: [] for name in ("term", "sum_sq", "mean_sq", "num_df", "den_df", "statistic", "p_value")
    }
    for label in labels:
        L = part.hypothesis(part.without(part.columns[label], [label]))
        if len(L) == 0:
            notes.append(nothing_left(label))
            row: tuple[Any, ...] = (label, math.nan, math.nan, 0, math.nan, math.nan, math.nan)
        else:
            t = reference.f_test(L)
            mean = t.statistic * fit.sigma**2
            row = (label, mean * t.num_df, mean, t.num_df, t.den_df, t.statistic, t.p_value)
        for column, value in zip(columns.values(), row, strict=True):
            column.append(value)
    title = f"Single term deletions (F tests, {reference.label} degrees of freedom)"
    return result_table(title, columns, notes, fit._native)


def _by_wald(
    fit: Any, part: FixedPart, labels: list[str], reference: Reference, notes: list[str]
) -> ResultTable:
    chi = is_chi_squared(fit, reference)
    columns: dict[str, list[Any]] = {name: [] for name in ("term", *test_names(chi))}
    for label in labels:
        L = part.hypothesis(part.without(part.columns[label], [label]))
        if len(L) == 0:
            notes.append(nothing_left(label))
            continue
        for name, cell in {"term": label, **test_row(reference.f_test(L), chi)}.items():
            columns[name].append(cell)
    how = "Wald chi-squared tests" if chi else f"F tests, {reference.label}"
    return result_table(f"Single term deletions ({how})", columns, notes, fit._native)


def _by_refit(fit: LMMFit, part: FixedPart, labels: list[str], tested: bool, notes: list[str]) -> ResultTable:
    if fit.is_reml:
        notes.insert(0, "the model was refitted by maximum likelihood because fixed parts differ")
    whole = fit.refit_ml()
    rows: list[tuple[Any, ...]] = [("<none>", math.nan, whole.aic, math.nan, math.nan)]
    for label in labels:
        C = part.without(part.columns[label], [label])
        df = fit.design.p - C.shape[1]
        if df == 0:
            notes.append(nothing_left(label))
            rows.append((label, 0.0, whole.aic, math.nan, math.nan))
            continue
        small = fit_design(fit, restricted_design(fit.design, C), reml=False)
        if not fit._is_linear:  # coefficients may be held
            df = whole.df_model - small.df_model
        statistic = max(small.criterion - whole.criterion, 0.0)
        rows.append((label, float(df), small.aic, statistic, chi_squared_tail(statistic, df)))
    names = ("term", "df", "aic", "statistic", "p_value")
    columns = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
    if not tested:
        del columns["statistic"], columns["p_value"]
    title = "Single term deletions (" + ("likelihood-ratio tests, ML)" if tested else "ML)")
    return result_table(title, columns, notes, fit._native)
