"""Unusual data: rows and levels that do not fit the model, and levels that decide the estimates."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from mixedmodels.errors import MixedModelsError
from mixedmodels.inference.checks.working import working_fit

__all__ = ["Finding", "unusual_data"]

_LARGE = 200_000  # rows up to which the leverages are computed
_MANY = 20_000  # rows up to which each level is left out
_SIGNIFICANT = 0.01  # after Bonferroni's correction


class Finding(NamedTuple):
    """One line of a diagnosis: what was looked at, "ok", "note", "warning" or "problem", words, remedy."""

    check: str
    status: str
    finding: str
    remedy: str = ""


def unusual_data(fit: Any) -> Iterator[Finding]:
    """Findings about outlying rows and levels, and levels that decide the estimates."""
    from mixedmodels.inference.checks.influence import influence

    if getattr(fit.frame, "covariance", None) is not None or not fit.design.terms or not fit.design.p:
        return
    if fit.design.n > _LARGE:
        yield Finding(
            "unusual data",
            "note",
            f"not looked for in {fit.design.n} rows",
            "see influence() and residuals()",
        )
        return
    found = False
    rows = _outlying_rows(fit)
    if rows:
        found = True
        yield rows
    for position in range(len(fit.design.terms)):
        levels = _outlying_levels(fit, position)
        if levels:
            found = True
            yield levels
    for group, m in fit.ngroups.items():
        if m < 2:
            continue
        if fit.design.n > _MANY:
            yield Finding("influence", "note", f"not computed for {group}", f'see influence("{group}")')
            continue
        try:
            table = influence(fit, group)
        except MixedModelsError:
            continue
        far = np.flatnonzero(table["cooks_distance"] > 1.0)
        if far.size:
            found = True
            order = far[np.argsort(-table["cooks_distance"][far])][:3]
            shown = ", ".join([f"{table['level'][j]} ({table['cooks_distance'][j]:.2g})" for j in order])
            yield Finding(
                "influence",
                "note",
                f"{_count(far.size, 'level')} of {group} with a Cook's distance above 1, far into the joint "
                f"confidence region of the fixed effects: {shown}",
                f'compare with the fit without them: influence("{group}", refit=True)',
            )
    if not found:
        yield Finding("unusual data", "ok", "no outlying rows or levels, none that decide the estimates")


def _outlying_rows(fit: Any) -> Finding | None:
    from scipy.special import ndtr, stdtr

    from mixedmodels.inference.checks.influence import studentized

    if fit._is_linear:
        values = studentized(fit)
        p = 2.0 * stdtr(max(fit._nu - 1, 1), -np.abs(np.nan_to_num(values))) * fit.design.n
    else:
        from mixedmodels.fit.glmm_residuals import glmm_residuals

        try:
            values = glmm_residuals(fit.family, fit.generalised.data, fit._solution.eta, "quantile", 0)
        except MixedModelsError:  # no distribution function
            return None
        p = 2.0 * ndtr(-np.abs(np.nan_to_num(values))) * fit.design.n
    rows = np.flatnonzero(p < _SIGNIFICANT)
    if not rows.size:
        return None
    worst = rows[np.argsort(-np.abs(values[rows]))][:3]
    kept = fit.frame.kept
    shown = ", ".join([f"row {j if kept is None else kept[j]} ({values[j]:+.1f})" for j in worst.tolist()])
    shown += ", ..." if rows.size > 3 else ""
    return Finding(
        "unusual data",
        "note",
        f"{_count(rows.size, 'outlying row')} ({'studentized' if fit._is_linear else 'quantile'} residual): "
        f"{shown}",
        "look at them; "
        + (
            "a transformed response or heavier tails may describe the data better"
            if fit._is_linear
            else "another family, or one with overdispersion, may describe the data better"
        ),
    )


def _outlying_levels(fit: Any, position: int) -> Finding | None:
    """Levels whose predicted effects are too large: Var(b_hat) = Var(b) - Var(b_hat - b)."""
    from scipy.special import gammaincc

    term = fit.design.terms[position]
    if term.precision is not None or term.m > 20_000:
        return None
    factors = [np.array(factor) for factor in fit._factors[: len(fit.design.terms)]]
    Sigma = factors[position] @ factors[position].T
    try:
        solver = working_fit(fit).solver
    except MixedModelsError:  # no working model
        return None
    spread = fit._scale**2 * (Sigma - solver.random_covariance(factors, position))
    b = fit._b[position]
    values, vectors = np.linalg.eigh(0.5 * (spread + spread.transpose(0, 2, 1)))
    keep = values > 1e-6 * max(fit._scale**2 * float(np.trace(Sigma)), 1e-300)
    along = np.einsum("mab,ma->mb", vectors, b)
    distance = np.where(keep, along**2 / np.where(keep, values, 1.0), 0.0).sum(axis=1)
    rank = keep.sum(axis=1)
    p = np.where(rank > 0, gammaincc(0.5 * np.maximum(rank, 1), 0.5 * distance), 1.0) * term.m
    far = np.flatnonzero(p < _SIGNIFICANT)
    if not far.size:
        return None
    worst = far[np.argsort(p[far])][:3]
    shown = ", ".join([str(term.levels[j]) for j in worst.tolist()]) + (", ..." if far.size > 3 else "")
    return Finding(
        "unusual data",
        "note",
        f"{_count(far.size, 'outlying level')} of {term.group}: {shown}",
        "look at their rows; with heavy tails of the random effects standard errors stay approximately valid",
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
