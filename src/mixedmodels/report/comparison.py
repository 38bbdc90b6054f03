"""Plain text of a comparison of models."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mixedmodels.report.table import Table
from mixedmodels.report.text import render_table

if TYPE_CHECKING:
    from mixedmodels.inference.compare import Comparison

__all__ = ["render_comparison"]


def render_comparison(comparison: Comparison) -> str:
    """Formulas, then one row per model with its test against the model before it, then the notes."""
    labels = [f"m{i + 1}" for i in range(len(comparison.npar))]
    rows = []
    for i, label in enumerate(labels):
        tested = comparison.chisq[i] == comparison.chisq[i]
        rows.append(
            (
                label,
                str(comparison.npar[i]),
                f"{comparison.aic[i]:.2f}",
                f"{comparison.bic[i]:.2f}",
                f"{comparison.loglik[i]:.3f}",
                f"{comparison.chisq[i]:.4f}" if tested else "",
                str(comparison.df[i]) if tested else "",
                f"{comparison.p_value[i]:.4g}" if tested else "",
            )
        )
    header = ("", "npar", "AIC", "BIC", "logLik", "Chisq", "Df", "Pr(>Chisq)")
    lines = [f"{label}: {formula}" for label, formula in zip(labels, comparison.formulas, strict=True)]
    lines.append(render_table(Table("", header, tuple(rows), "lrrrrrrr")))
    return "\n".join([*lines, *comparison.notes])
