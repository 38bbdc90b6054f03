"""Unusual data: rows and levels that do not fit the model, and levels that decide the estimates."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mixedmodels.errors import MixedModelsError

if TYPE_CHECKING:
    from mixedmodels.fit.result import LMMFit

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


def unusual_data(fit: LMMFit) -> Iterator[Finding]:
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


def _outlying_rows(fit: LMMFit) -> Finding | None:
    from scipy.special import stdtr

    from mixedmodels.inference.checks.influence import studentized

    values = studentized(fit)
    df = max(fit._nu - 1, 1)
    p = 2.0 * stdtr(df, -np.abs(np.nan_to_num(values))) * fit.design.n
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
        f"{_count(rows.size, 'outlying row')} (studentized residual): {shown}",
        "look at them; a transformed response or heavier tails may describe the data better",
    )


def _outlying_levels(fit: LMMFit, position: int) -> Finding | None:
    """Levels whose predicted effects are too large: Var(b_hat) = Var(b) - Var(b_hat - b)."""
    from scipy.special import gammaincc

    term = fit.design.terms[position]
    if term.precision is not None or term.m > 20_000:
        return None
    factors = [np.array(factor) for factor in fit._factors]
    Sigma = factors[position] @ factors[position].T
    spread = fit.sigma**2 * (Sigma - fit.solver.random_covariance(factors, position))
    b = fit._b[position]
    values, vectors = np.linalg.eigh(0.5 * (spread + spread.transpose(0, 2, 1)))
    keep = values > 1e-6 * max(fit.sigma**2 * float(np.trace(Sigma)), 1e-300)
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
