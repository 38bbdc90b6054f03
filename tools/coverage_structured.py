"""Coverage of confidence intervals of models with structured residuals; writes a table of docs/coverage.md.

    OPENBLAS_NUM_THREADS=1 python tools/coverage_structured.py [--replicates 1000]

As tools/coverage.py. In ``mmrm`` without missing visits the effect of the arm at the last visit is a
difference of two means of independent subjects and its variance the sample one, so that its t statistic has
Student's distribution with m - 2 degrees of freedom, m the number of subjects.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import stats

import mixedmodels as mm

MARKS = ("<!-- structured: begin -->", "<!-- structured: end -->")
METHODS = ("wald", "satterthwaite", "kr")
VISITS = ("v4", "v1", "v2", "v3")  # the last one is the reference


@dataclass(frozen=True)
class Design:
    """A model with structured residuals and known parameters.

    Attributes
    ----------
    name, formula, residual : str
    truth : dict
        True parameters by term.
    data : callable
        m (subjects) -> columns without the response.
    covariance : ndarray, shape (k, k)
        Of the k rows of a subject, all of them.
    exact : bool
        Whether the t statistic of the fixed effects has m - 2 degrees of freedom exactly.
    """

    name: str
    formula: str
    residual: str
    truth: dict[str, float]
    data: Callable[[int], dict[str, np.ndarray]]
    covariance: np.ndarray
    exact: bool = False


def trial(m: int, dropout: bool = False) -> dict[str, np.ndarray]:
    """Two arms, four visits; with `dropout` every third subject leaves after the second or third visit."""
    g, v = np.repeat(np.arange(m), 4), np.tile(np.arange(4), m)
    kept = np.ones(4 * m, dtype=bool)
    if dropout:
        stop = np.where(np.arange(m) % 3 == 0, 2 + (np.arange(m) // 3) % 2, 4)
        kept = v < stop[g]
    visit = np.array(["v1", "v2", "v3", "v4"])[v]
    return {
        "g": g[kept],
        "row": np.flatnonzero(kept),
        "visit": visit[kept],
        "arm": (g % 2)[kept].astype(float),
    }


def series(m: int) -> dict[str, np.ndarray]:
    """Half the groups treated, ten equidistant occasions."""
    g = np.repeat(np.arange(m), 10)
    return {"g": g, "row": np.arange(10 * m), "t": np.tile(np.arange(10.0), m), "arm": (g % 2).astype(float)}


_US = (
    np.diag([1.0, 1.2, 1.4, 1.6])
    @ (0.6 ** np.abs(np.subtract.outer(range(4), range(4))))
    @ np.diag([1.0, 1.2, 1.4, 1.6])
)
_AR1 = 0.6 ** np.abs(np.subtract.outer(range(10), range(10)))
DESIGNS = [
    Design("mmrm", "y ~ arm * visit", "us(visit | g)", {"arm": 0.5}, trial, _US, True),
    Design(
        "mmrm, dropout",
        "y ~ arm * visit",
        "us(visit | g)",
        {"arm": 0.5},
        lambda m: trial(m, dropout=True),
        _US,
    ),
    Design(
        "ar1",
        "y ~ arm + t",
        "ar1(t | g)",
        {"arm": 0.5, "t": 0.1, "sigma": 1.0, "rho": 0.6},
        series,
        _AR1,
    ),
    Design(
        "intercept + ar1",
        "y ~ arm + t + (1 | g)",
        "ar1(t | g)",
        {"arm": 0.5, "t": 0.1},
        series,
        1.0 + _AR1,
    ),
]


def responses(
    design: Design, data: dict[str, np.ndarray], m: int, n: int, rng: np.random.Generator
) -> np.ndarray:
    """n responses of the design's model, shape (rows, n)."""
    k = design.covariance.shape[0]
    noise = np.linalg.cholesky(design.covariance) @ rng.standard_normal((n, m, k, 1))
    y = noise.reshape(n, m * k)[:, data["row"]].T
    mean = design.truth["arm"] * data["arm"]
    if "t" in design.truth:
        mean = mean + design.truth["t"] * data["t"]
    return mean[:, None] + y


def coverage(design: Design, m: int, replicates: int, seed: int) -> dict[tuple[str, str], tuple[float, int]]:
    """Share of intervals that hold the truth, and their number, by parameter and method."""
    data = dict(design.data(m))
    if "visit" in data:
        import pandas as pd

        data["visit"] = pd.Categorical(data["visit"], categories=VISITS)
    Y = responses(design, data, m, replicates, np.random.default_rng([seed, m]))
    columns = {name: column for name, column in data.items() if name != "row"}
    make = mm.lmm if "|" in design.formula else mm.gls
    fit = make(design.formula, {**columns, "y": Y[:, 0]}, residual=design.residual)
    held: dict[tuple[str, str], list[bool]] = {}
    for j in range(replicates):
        now = fit.refit(Y[:, j])
        rows = [(method, row) for method in METHODS for row in now.confint(method).rows()]
        rows += [("wald", row) for row in now.variance_parameters().rows()]
        seen = set()
        for method, row in rows:
            term = row["term"]
            if (term, method) in seen or term not in design.truth or math.isnan(row["conf_low"]):
                continue
            seen.add((term, method))
            inside = row["conf_low"] <= design.truth[term] <= row["conf_high"]
            held.setdefault((term, method), []).append(inside)
    return {key: (sum(values) / len(values), len(values)) for key, values in held.items()}


def theory(design: Design, m: int) -> dict[str, float]:
    """Coverage that exact distributions imply, by method; nothing where there is none."""
    if not design.exact:
        return {}
    return {"wald": 1.0 - 2.0 * stats.t.sf(stats.norm.ppf(0.975), m - 2), "satterthwaite": 0.95, "kr": 0.95}


def table(replicates: int, seed: int) -> str:
    """The table as Markdown."""
    lines = [
        f"{replicates} data sets per row, Monte Carlo standard error "
        f"{math.sqrt(0.95 * 0.05 / replicates):.4f}; in parentheses what exact distributions imply.",
        "",
        "| design | subjects | parameter | wald | satterthwaite | kr |",
        "|---|--:|---|--:|--:|--:|",
    ]
    for design in DESIGNS:
        for m in (12, 18):
            found, exact = coverage(design, m, replicates, seed), theory(design, m)
            for term in design.truth:
                cells = []
                for method in METHODS:
                    value = found.get((term, method))
                    known = f" ({exact[method]:.3f})" if method in exact else ""
                    cells.append("" if value is None else f"{value[0]:.3f}{known}")
                lines.append(f"| {design.name} | {m} | {term} | " + " | ".join(cells) + " |")
            print(lines[-1], flush=True)
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--replicates", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("docs/coverage.md"))
    given = parser.parse_args()
    text = table(given.replicates, given.seed)
    page = given.output.read_text(encoding="utf-8")
    before, rest = page.split(MARKS[0])
    page = before + MARKS[0] + "\n" + text + "\n" + MARKS[1] + rest.split(MARKS[1])[1]
    given.output.write_text(page, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
