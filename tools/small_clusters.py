"""Laplace and quadrature on binary data with few rows per cluster, by simulation; docs/small_clusters.md.

    OPENBLAS_NUM_THREADS=1 python tools/small_clusters.py [--replicates 2000] [--jobs 2]

Each data set has m clusters of n binary rows from logit P(y = 1) = -1 + 0 x + 1 t + u, u ~ N(0, sd^2):
half of the clusters have x = 1, t runs from -1 to 1 within each cluster. It is fitted with nagq = 1 (Laplace)
and with quadrature. Counted are Wald intervals of level 95 % that hold the true coefficients or standard
deviation (the latter on the log scale) and Wald tests of level 5 % that reject x = 0, which is true. The same
data go to all nagq, so that their differences are more precise than each of them.
"""

from __future__ import annotations

import argparse
import math
import sys
import warnings
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import stats

import mixedmodels as mm
from mixedmodels.errors import MixedModelsError

TRUTH = {"(Intercept)": -1.0, "x": 0.0, "t": 1.0}
NAGQ = (1, 7)
LARGE = (1, 7, 15)  # where the standard deviation is large and the clusters are few
CELLS = [(n, 100, sd) for n in (3, 6, 12) for sd in (0.5, 1.0, 2.0)]
CELLS += [(6, m, sd) for m in (50, 200) for sd in (0.5, 1.0, 2.0)]
CELLS += [(n, 1000, 2.0) for n in (3, 6)]  # a quarter of the replicates
MARKS = ("<!-- tables: begin -->", "<!-- tables: end -->")


@dataclass(frozen=True)
class Counts:
    """What the fits of one cell by one method gave.

    Attributes
    ----------
    nagq : int
    fits : int
        That converged.
    sd : ndarray, shape (fits,)
        Estimated standard deviations of the clusters.
    errors : ndarray, shape (fits, 3)
        (estimate - truth) of the coefficients.
    z : ndarray, shape (fits, 3)
        The same over the standard errors.
    z_sd : ndarray, shape (fits,)
        (log sd - log truth) over its standard error by the delta method; NaN where the estimate is 0.
    told : float
        Share of the fits whose messages speak of few binary observations.
    """

    nagq: int
    fits: int
    sd: np.ndarray
    errors: np.ndarray
    z: np.ndarray
    z_sd: np.ndarray
    told: float

    def coverage(self, name: str) -> float:
        """Share of 95 % Wald intervals that hold the truth."""
        held = np.abs(self.z[:, list(TRUTH).index(name)]) < stats.norm.ppf(0.975)
        return float(held.mean())

    @property
    def coverage_sd(self) -> float:
        """Share of 95 % intervals of the standard deviation that hold the truth, of those that exist."""
        z = self.z_sd[np.isfinite(self.z_sd)]
        return float((np.abs(z) < stats.norm.ppf(0.975)).mean())

    @property
    def type_one(self) -> float:
        """Share of Wald tests of x = 0 at 5 % that reject."""
        return 1.0 - self.coverage("x")

    def bias(self, name: str) -> float:
        """Mean error of a coefficient."""
        return float(self.errors[:, list(TRUTH).index(name)].mean())


def columns(n: int, m: int) -> dict[str, np.ndarray]:
    """The predictors of m clusters of n rows."""
    g = np.repeat(np.arange(m), n)
    return {"x": (g % 2).astype(float), "t": np.tile(np.linspace(-1.0, 1.0, n), m), "g": g}


def responses(
    data: dict[str, np.ndarray], sd: float, replicates: int, rng: np.random.Generator
) -> np.ndarray:
    """Responses of the model, shape (rows, replicates)."""
    u = sd * rng.standard_normal((int(data["g"].max()) + 1, replicates))
    eta = (TRUTH["(Intercept)"] + TRUTH["x"] * data["x"] + TRUTH["t"] * data["t"])[:, None] + u[data["g"]]
    return (rng.random(eta.shape) < 1.0 / (1.0 + np.exp(-eta))).astype(float)


def simulate(
    n: int, m: int, sd: float, replicates: int, seed: int, nagq: tuple[int, ...] | None = None
) -> list[Counts]:
    """Fits of one cell by every method."""
    rng = np.random.default_rng([seed, n, m, round(100 * sd)])
    data = columns(n, m)
    Y = responses(data, sd, replicates, rng)
    out = []
    for k in nagq or (LARGE if sd >= 2.0 and m < 1000 else NAGQ):
        fit = mm.glmm("y ~ x + t + (1 | g)", {**data, "y": Y[:, 0]}, family="binomial", nagq=k)
        out.append(_counts(fit, Y, k, sd))
    return out


def _counts(fit: mm.GLMMFit, Y: np.ndarray, nagq: int, true_sd: float) -> Counts:
    truth = np.array(list(TRUTH.values()))
    sd, errors, z, z_sd, told = [], [], [], [], []
    for y in Y.T:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                own = fit.refit(y)
                se = np.sqrt(own.vcov.diagonal())
        except (MixedModelsError, Warning):
            continue
        sd.append(own.varcorr["g"].sds[0])
        z_sd.append(_z_of_log(sd[-1], math.sqrt(own.joint_vcov[-1, -1]), true_sd))
        errors.append(own.beta - truth)
        z.append((own.beta - truth) / se)
        told.append(any("few binary observations" in text for text in own.messages))
    arrays = [np.array(values) for values in (sd, errors, z, z_sd)]
    return Counts(nagq, len(sd), *arrays, told=float(np.mean(told)))


def _z_of_log(estimate: float, se: float, truth: float) -> float:
    """(log estimate - log truth) / se(log estimate)."""
    return math.log(estimate / truth) * estimate / se if estimate > 0.0 and se > 0.0 else math.nan


def error_of(share: float, n: int) -> float:
    """Monte Carlo standard error of a share of n."""
    return math.sqrt(share * (1.0 - share) / n)


def row(n: int, m: int, sd: float, found: Counts) -> str:
    """A row of the table."""
    mean, spread = float(found.sd.mean()), float(found.sd.std() / math.sqrt(found.fits))
    cells = [
        str(n),
        str(m),
        f"{sd:g}",
        str(found.nagq),
        f"{mean:.3f} ± {spread:.3f}",
        f"{np.median(found.sd):.3f}",
        f"{found.coverage_sd:.3f}",
        f"{found.bias('t'):+.3f}",
        f"{found.coverage('t'):.3f}",
        f"{found.bias('(Intercept)'):+.3f}",
        f"{found.coverage('(Intercept)'):.3f}",
        f"{found.type_one:.3f}",
        f"{found.told:.0%}",
        str(found.fits),
    ]
    return "| " + " | ".join(cells) + " |"


def table(results: list[tuple[tuple[int, int, float], list[Counts]]], replicates: int) -> str:
    """The table of the page as Markdown."""
    lines = [
        f"{replicates} data sets per cell ({replicates // 4} with 1000 clusters). Monte Carlo standard "
        f"error of a coverage of 0.95 and of a test of level 0.05: {error_of(0.95, replicates):.4f} "
        f"({error_of(0.95, replicates // 4):.4f}); that of the mean of sd is given.",
        "",
        "| rows | clusters | sd | nagq | mean of sd | median of sd | coverage of sd | bias of t "
        "| coverage of t | bias of intercept | coverage of intercept | type I error of x | message | fits |",
        "|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    lines += [row(*cell, counts) for cell, found in results for counts in found]
    return "\n".join(lines)


def put(page: str, text: str) -> str:
    """The page with the part between the marks replaced."""
    before, rest = page.split(MARKS[0])
    return before + MARKS[0] + "\n" + text + "\n" + MARKS[1] + rest.split(MARKS[1])[1]


def one(task: tuple[int, int, float, int, int]) -> list[Counts]:
    """A task of the pool: (rows, clusters, sd, replicates, seed)."""
    n, m, sd, replicates, seed = task
    found = simulate(n, m, sd, replicates // (4 if m == 1000 else 1), seed)
    for counts in found:
        print(row(n, m, sd, counts), file=sys.stderr, flush=True)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--replicates", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("docs/small_clusters.md"))
    given = parser.parse_args()
    order = sorted(CELLS, key=lambda cell: -cell[0] * cell[1])  # the longest first
    with ProcessPoolExecutor(given.jobs) as pool:
        found = list(pool.map(one, [(*cell, given.replicates, given.seed) for cell in order]))
    by_cell = dict(zip(order, found, strict=True))
    text = table([(cell, by_cell[cell]) for cell in CELLS], given.replicates)
    given.output.write_text(put(given.output.read_text(encoding="utf-8"), text), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
