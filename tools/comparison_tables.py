"""Write the tables "R | here" of the comparison pages, from the stored fits of R and from our own.

    PYTHONPATH=src python tools/comparison_tables.py

The models are those of ``tests/test_references_*.py``; the tables stand between the comments
``<!-- table NAME: begin -->`` and ``<!-- table NAME: end -->`` of the pages.
``tests/structure/test_comparisons.py`` computes them anew.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).parents[1]
Row = tuple[str, ...]


@cache
def reference_tests(name: str) -> ModuleType:
    """The test module that knows which of our models is which stored fit."""
    path = ROOT / "tests" / f"test_references_{name}.py"
    spec = importlib.util.spec_from_file_location(f"reference_tests_{name}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def code(text: str) -> str:
    """Markdown code that may stand in a table."""
    return "`" + re.sub(r"\s+", " ", text).replace("|", "\\|") + "`"


def numbers(values: Any) -> str:
    """At most four numbers with four digits."""
    values = [float(value) for value in values]
    return ", ".join(f"{value:.4g}" for value in values[:4]) + (", ..." if len(values) > 4 else "")


def difference(fit: Any, beta: dict[str, Any]) -> str:
    """Largest difference of a coefficient, in standard errors."""
    worst = 0.0
    for name, value in beta.items():
        estimate = value["estimate"] if isinstance(value, dict) else value[0]
        worst = max(worst, abs(fit.fixef[name] - estimate) / fit.se[name])
    return next(
        f"< {bound:.0e}" for bound in (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0, float("inf")) if worst < bound
    )


def structured(call: str) -> list[Row]:
    """nlme's `gls` or `lme` with structured residuals."""
    tests = reference_tests("structured")
    out: list[Row] = []
    for id_, (formula, residual) in tests.MODELS.items():
        if not id_.startswith(call):
            continue
        ref, fit = tests.reference(id_), tests.fitted(id_)
        best = ref.get("polished") or {}
        out.append((
            ref["data"],
            code(formula),
            code(residual),
            "REML" if fit.is_reml else "ML",
            f"{best.get('logLik', ref['objective']['logLik']):.4f}",
            f"{fit.loglik:.4f}",
            numbers(tests.natural_of(ref)),
            numbers(fit.residual.values[: len(tests.natural_of(ref))]),
            f"{ref['sigma']:.4g}",
            f"{fit.sigma:.4g}",
        ))  # fmt: skip
    return out


def covariance(engine: str) -> list[Row]:
    """Structured random effects: nlme's pdMat classes or glmmTMB's structures."""
    tests = reference_tests("covariance")
    out: list[Row] = []
    for id_, (data, formula) in tests.MODELS.items():
        if not id_.startswith(engine):
            continue
        ref, fit = tests.FITS[id_], tests.fitted(id_)
        method = "REML" if fit.is_reml else "ML"
        row = (data, code(formula), method, f"{ref['loglik']:.4f}", f"{fit.loglik:.4f}")
        out.append((*row, difference(fit, ref["beta"])))
    return out


def lme4_linear() -> list[Row]:
    """lme4's `lmer`."""
    tests = reference_tests("lmm")
    out: list[Row] = []
    for id_ in tests.IDS:
        ref, fit = tests.reference(id_), tests.fitted(id_)
        row = (ref["data"], code(ref["formula"]), ref["estimation"], f"{ref['objective']['logLik']:.4f}")
        out.append(
            (
                *row,
                f"{fit.loglik:.4f}",
                f"{ref['sigma']:.4g}",
                f"{fit.sigma:.4g}",
                difference(fit, ref["beta"]),
            )
        )
    return out


def lme4_generalised() -> list[Row]:
    """lme4's `glmer`."""
    tests = reference_tests("glmm")
    out: list[Row] = []
    for id_ in tests.CASES:
        ref = tests.reference(id_)
        if not ref["call"].startswith("glmer"):
            continue
        fit = tests.fitted(id_)
        kind = f"{ref['family']}, {ref['link']}"
        options = tests.CASES[id_][1]
        said = ", ".join(f"{name}={options[name]!r}" for name in ("nagq", "information") if name in options)
        row = (ref["data"], code(ref["formula"]), kind, code(said) if said else "")
        out.append(
            (*row, f"{ref['objective']['logLik']:.4f}", f"{fit.loglik:.4f}", difference(fit, ref["beta"]))
        )
    return out


def table(head: Row, rows: list[Row]) -> str:
    """In Markdown."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


NLME = (
    "data",
    "formula",
    "residual=",
    "method",
    "logLik nlme",
    "here",
    "parameters nlme",
    "here",
    "sigma nlme",
    "here",
)
TABLES: dict[str, tuple[str, Row, Callable[[], list[Row]]]] = {
    "gls": ("compare_nlme.md", NLME, lambda: structured("gls")),
    "lme": ("compare_nlme.md", NLME, lambda: structured("lme")),
    "pdmat": (
        "compare_nlme.md",
        ("data", "formula", "method", "logLik nlme", "here", "coefficients differ by (SE)"),
        lambda: covariance("lme"),
    ),
    "glmmTMB": (
        "structures.md",
        ("data", "formula", "method", "logLik glmmTMB", "here", "coefficients differ by (SE)"),
        lambda: covariance("tmb"),
    ),
    "lmer": (
        "compare_lme4.md",
        (
            "data",
            "formula",
            "method",
            "logLik lme4",
            "here",
            "sigma lme4",
            "here",
            "coefficients differ by (SE)",
        ),
        lme4_linear,
    ),
    "glmer": (
        "compare_lme4.md",
        ("data", "formula", "family, link", "options", "logLik lme4", "here", "coefficients differ by (SE)"),
        lme4_generalised,
    ),
}
"""Name -> (page, header, rows)."""


def pattern(name: str) -> re.Pattern[str]:
    """The place of a table in its page."""
    return re.compile(f"(<!-- table {name}: begin -->\n)(.*?)(<!-- table {name}: end -->)", re.DOTALL)


def main() -> None:
    for name, (page, head, rows) in TABLES.items():
        path = ROOT / "docs" / page
        text = path.read_text(encoding="utf-8")
        made = table(head, rows()) + "\n"
        path.write_text(pattern(name).sub(lambda m, made=made: m[1] + made + m[3], text), encoding="utf-8")


if __name__ == "__main__":
    main()
