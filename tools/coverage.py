"""Coverage of confidence intervals by simulation; writes the table of docs/coverage.md.

    python tools/coverage.py [--replicates 2000] [--seed 1] [--output docs/coverage.md]

Each design is fitted to responses drawn from a model with known parameters; counted is how often an interval
with nominal level 95 % holds the true value. The Monte Carlo standard error of a coverage of 0.95 from N
replicates is sqrt(0.95 * 0.05 / N).
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import mixedmodels as mm
from mixedmodels.errors import MixedModelsError


@dataclass(frozen=True)
class Design:
    """A model with known parameters.

    Attributes
    ----------
    name, formula : str
    beta : dict
        True fixed effects.
    sd : tuple of float
        Standard deviations of the random effects (independent), in the order of the term's columns.
    sigma : float
    data : callable
        m (groups) -> columns without the response, the group named ``g``.
    """

    name: str
    formula: str
    beta: dict[str, float]
    sd: tuple[float, ...]
    sigma: float
    data: Callable[[int], dict[str, np.ndarray]]


def longitudinal(m: int) -> dict[str, np.ndarray]:
    """Ten occasions for every group."""
    return {"x": np.tile(np.arange(10.0), m), "g": np.repeat(np.arange(m), 10)}


def treatment(m: int) -> dict[str, np.ndarray]:
    """Half the groups treated, five rows each."""
    return {"x": np.repeat(np.arange(m) % 2, 5).astype(float), "g": np.repeat(np.arange(m), 5)}


def unbalanced(m: int) -> dict[str, np.ndarray]:
    """Half the groups treated, two to eleven rows each."""
    sizes = 2 + (7 * np.arange(m)) % 10
    g = np.repeat(np.arange(m), sizes)
    return {"x": (g % 2).astype(float), "g": g}


DESIGNS = [
    Design("slopes", "y ~ x + (x | g)", {"(Intercept)": 250.0, "x": 10.0}, (25.0, 6.0), 25.0, longitudinal),
    Design("treatment", "y ~ x + (1 | g)", {"(Intercept)": 0.0, "x": 1.0}, (1.0,), 1.0, treatment),
    Design("unbalanced", "y ~ x + (1 | g)", {"(Intercept)": 0.0, "x": 1.0}, (1.0,), 1.0, unbalanced),
]
METHODS = ("wald", "satterthwaite", "kr", "profile")


def responses(design: Design, data: dict[str, np.ndarray], n: int, rng: np.random.Generator) -> np.ndarray:
    """n responses of the design's model, shape (rows, n)."""
    g, x = data["g"], data["x"]
    m = int(g.max()) + 1
    y = (design.beta["(Intercept)"] + design.beta["x"] * x)[:, None]
    y = y + (design.sd[0] * rng.standard_normal((m, n)))[g]
    if len(design.sd) > 1:
        y += (design.sd[1] * rng.standard_normal((m, n)))[g] * x[:, None]
    return y + design.sigma * rng.standard_normal(y.shape)


def coverage(
    design: Design,
    groups: int,
    replicates: int,
    seed: int,
    methods: tuple[str, ...] = METHODS,
    progress: bool = False,
) -> dict[str, dict[str, tuple[float, int]]]:
    """Share of intervals that hold the truth, and the number counted, by method and parameter.

    Profile intervals are of the standard deviations too. A missing limit (at a boundary) counts as unbounded
    on that side.
    """
    rng = np.random.default_rng([seed, groups])
    data = design.data(groups)
    Y = responses(design, data, replicates, rng)
    fit = mm.lmm(design.formula, {**data, "y": Y[:, 0]})
    truth: dict[str, float] = dict(design.beta)
    names = ["(Intercept)", "x"]
    truth.update({f"sd_{name}|g": sd for name, sd in zip(names, design.sd, strict=False)})
    truth["sigma"] = design.sigma
    held: dict[str, dict[str, list[bool]]] = {method: {} for method in methods}
    failed = 0
    for j in range(replicates):
        if progress and j % 100 == 0:
            print(f"\r{design.name}, {groups} groups: {j}/{replicates}", end="", file=sys.stderr, flush=True)
        try:
            new = fit.refit(Y[:, j])
            tables = {method: new.confint(method).rows() for method in methods}
        except MixedModelsError as error:
            failed += 1
            print(f"\nreplicate {j}: {error}", file=sys.stderr)
            continue
        for method, rows in tables.items():
            for row in rows:
                if row["term"] in truth:
                    low, high = row["conf_low"], row["conf_high"]
                    value = truth[row["term"]]
                    inside = not (low == low and value < low) and not (high == high and value > high)
                    held[method].setdefault(row["term"], []).append(inside)
    if progress:
        print(f"\r{design.name}, {groups} groups: done, {failed} failed", file=sys.stderr)
    return {
        method: {term: (sum(values) / len(values), len(values)) for term, values in by_term.items()}
        for method, by_term in held.items()
    }


def page(results: list[tuple[Design, int, dict]], replicates: int) -> str:
    """The table as Markdown."""
    error = math.sqrt(0.95 * 0.05 / replicates)
    lines = [
        "# Coverage of 95 % intervals",
        "",
        f"Share of {replicates} simulated data sets whose interval held the true value; the Monte Carlo "
        f"standard error of 0.95 is {error:.4f}. Written by `tools/coverage.py`. REML fits; profile "
        "intervals are those of the maximum-likelihood criterion. `slopes`: `y ~ x + (x | g)`, ten rows each "
        "(sleepstudy); `treatment`: `y ~ x + (1 | g)`, x constant within groups, five rows each; "
        "`unbalanced`: the same with two to eleven rows.",
        "",
        "| design | groups | parameter | " + " | ".join(METHODS) + " |",
        "|---|--:|---|" + "--:|" * len(METHODS),
    ]
    for design, groups, result in results:
        terms = list(dict.fromkeys(term for by_term in result.values() for term in by_term))
        for term in terms:
            cells = [f"{result[m][term][0]:.3f}" if term in result[m] else "" for m in METHODS]
            lines.append(f"| {design.name} | {groups} | `{term}` | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--replicates", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("docs/coverage.md"))
    given = parser.parse_args()
    results: list[tuple[Any, int, dict]] = []
    for design in DESIGNS:
        for groups in (12, 18):
            results.append(
                (design, groups, coverage(design, groups, given.replicates, given.seed, progress=True))
            )
            given.output.write_text(page(results, given.replicates), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
