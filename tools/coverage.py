"""Coverage of confidence intervals by simulation; writes the tables of docs/coverage.md.

    OPENBLAS_NUM_THREADS=1 python tools/coverage.py [--replicates 2000] [--bootstraps 1000] [--jobs 2]

Each design is fitted to responses drawn from a model with known parameters; counted is how often an interval
with nominal level 95 % holds the true value. The Monte Carlo standard error of a coverage c from N replicates
is sqrt(c (1 - c) / N). For balanced designs `theory` gives the coverage that exact distributions imply.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import stats

import mixedmodels as mm


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
    rows : int
        Rows of every group, 0 if they differ.
    between : bool
        Whether x is constant within groups.
    """

    name: str
    formula: str
    beta: dict[str, float]
    sd: tuple[float, ...]
    sigma: float
    data: Callable[[int], dict[str, np.ndarray]]
    rows: int = 0
    between: bool = True


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
    Design(
        "slopes",
        "y ~ x + (x | g)",
        {"(Intercept)": 250.0, "x": 10.0},
        (25.0, 6.0),
        25.0,
        longitudinal,
        10,
        False,
    ),
    Design("treatment", "y ~ x + (1 | g)", {"(Intercept)": 0.0, "x": 1.0}, (1.0,), 1.0, treatment, 5),
    Design("unbalanced", "y ~ x + (1 | g)", {"(Intercept)": 0.0, "x": 1.0}, (1.0,), 1.0, unbalanced),
]
ANALYTIC = ("wald", "satterthwaite", "kr", "profile", "profile REML")
BOOTSTRAP = ("normal", "percentile", "basic", "studentized", "bca")
MARKS = ("<!-- tables: begin -->", "<!-- tables: end -->")

Counts = dict[str, dict[str, tuple[float, int]]]


def responses(design: Design, data: dict[str, np.ndarray], n: int, rng: np.random.Generator) -> np.ndarray:
    """n responses of the design's model, shape (rows, n)."""
    g, x = data["g"], data["x"]
    m = int(g.max()) + 1
    y = (design.beta["(Intercept)"] + design.beta["x"] * x)[:, None]
    y = y + (design.sd[0] * rng.standard_normal((m, n)))[g]
    if len(design.sd) > 1:
        y += (design.sd[1] * rng.standard_normal((m, n)))[g] * x[:, None]
    return y + design.sigma * rng.standard_normal(y.shape)


def truths(design: Design) -> dict[str, float]:
    """The true parameters by the names that profile intervals use."""
    names = ("(Intercept)", "x")
    sds = {f"sd_{name}|g": sd for name, sd in zip(names, design.sd, strict=False)}
    return {**design.beta, **sds, "sigma": design.sigma}


def intervals_of(fit, methods: tuple[str, ...], draws: int, seed: int):
    """(method, parameter, low, high) for every interval of a fit."""
    for method in methods:
        if method == "bootstrap":
            rows = fit.confint("bootstrap", n=draws, seed=seed, kind="all", n_jobs=1, progress=False).rows()
        elif method == "profile REML":
            rows = fit.confint("profile", parameters=["sd", "sigma"], criterion="reml").rows()
        else:
            rows = fit.confint(method).rows()
        for row in rows:
            term, group = row["term"], row.get("group", "")
            if group == "Residual":
                term = "sigma"
            elif term.startswith("sd__"):
                term = f"sd_{term[4:]}|{group}"
            yield row.get("kind", method), term, row["conf_low"], row["conf_high"]


def coverage(
    design: Design,
    groups: int,
    replicates: int,
    seed: int,
    methods: tuple[str, ...] = ANALYTIC,
    bootstraps: int = 0,
    draws: int = 999,
) -> Counts:
    """Share of intervals that hold the truth, and the number of intervals, by method and parameter.

    The first `bootstraps` replicates are bootstrapped too, with `draws` draws each.
    A missing limit counts as unbounded on that side; an interval without limits is not counted.
    """
    rng = np.random.default_rng([seed, groups])
    data = design.data(groups)
    Y = responses(design, data, replicates, rng)
    fit = mm.lmm(design.formula, {**data, "y": Y[:, 0]})
    truth = truths(design)
    held: dict[str, dict[str, list[bool]]] = {}
    for j in range(replicates):
        asked = (*methods, "bootstrap") if j < bootstraps else methods
        for method, term, low, high in intervals_of(fit.refit(Y[:, j]), asked, draws, j):
            if term not in truth or (math.isnan(low) and math.isnan(high)):
                continue
            inside = not (truth[term] < low or truth[term] > high)
            held.setdefault(method, {}).setdefault(term, []).append(inside)
    return {
        method: {term: (sum(values) / len(values), len(values)) for term, values in by_term.items()}
        for method, by_term in held.items()
    }


def theory(design: Design, groups: int) -> dict[str, dict[str, float]]:
    r"""Coverage that exact distributions imply in a balanced design, estimates inside the boundary.

    Generalised least squares is then the mean over groups of each group's own coefficients, and its REML
    standard error the sample one, so that :math:`t = (\hat\beta_j - \beta_j) / se_j` has Student's
    distribution with :math:`\nu = m - 1` (m - 2 with two treatments) degrees of freedom. Wald intervals hold
    the truth if :math:`|t| < z`. The likelihood ratio is :math:`m \log(1 + t^2 / \nu)`. For sigma it is
    :math:`\nu_w (s - 1 - \log s)`, :math:`s \sim \chi^2_{\nu_w} / \nu_w`, with :math:`\nu_w` the degrees of
    freedom within groups.
    """
    if not design.rows:
        return {}
    z, c = stats.norm.ppf(0.975), stats.chi2.ppf(0.95, 1)
    nu = groups - 2 if design.between else groups - 1
    wald = 1.0 - 2.0 * stats.t.sf(z, nu)
    profile = 1.0 - 2.0 * stats.t.sf(math.sqrt(nu * math.expm1(c / groups)), nu)
    within = groups * (design.rows - len(design.sd))
    sigma = chi_squared_ratio(within, c)
    result = {
        method: dict.fromkeys(design.beta, value)
        for method, value in {
            "wald": wald,
            "satterthwaite": 0.95,
            "kr": 0.95,
            "profile": profile,
            "normal": wald,
            "percentile": wald,
            "basic": wald,
            "studentized": 0.95,
        }.items()
    }
    result["profile"]["sigma"] = sigma
    result["profile REML"] = {"sigma": sigma}
    return result


def chi_squared_ratio(df: int, bound: float) -> float:
    """P(df (s - 1 - log s) < bound) for s a chi-squared variable over its df degrees of freedom."""
    from scipy.optimize import brentq

    def excess(s: float) -> float:
        return df * (s - 1.0 - math.log(s)) - bound

    low, high = brentq(excess, 1e-6, 1.0), brentq(excess, 1.0, 50.0)
    return float(stats.chi2.cdf(df * high, df) - stats.chi2.cdf(df * low, df))


def tables(results: list[tuple[Design, int, Counts]], replicates: int, bootstraps: int, draws: int) -> str:
    """Both tables as Markdown: simulated coverage, and the same minus theory in Monte Carlo errors."""
    methods = [m for m in (*ANALYTIC, *BOOTSTRAP) if any(m in result for _, _, result in results)]
    head = [
        "| design | groups | parameter | " + " | ".join(methods) + " |",
        "|---|--:|---|" + "--:|" * len(methods),
    ]
    simulated, compared = list(head), list(head)
    for design, groups, result in results:
        exact = theory(design, groups)
        for term in truths(design):
            start = f"| {design.name} | {groups} | {term.replace('|', chr(92) + '|')} | "
            found = [result.get(m, {}).get(term) for m in methods]
            simulated.append(start + " | ".join("" if v is None else f"{v[0]:.3f}" for v in found) + " |")
            cells = []
            for method, value in zip(methods, found, strict=True):
                p = exact.get(method, {}).get(term)
                known = value is not None and p is not None
                cells.append(f"{p:.3f} ({errors(value, p):+.1f})" if known else "")
            if any(cells):
                compared.append(start + " | ".join(cells) + " |")
    error, wide = (math.sqrt(0.95 * 0.05 / n) for n in (replicates, max(bootstraps, 1)))
    lines = [
        f"{replicates} data sets per row, of which {bootstraps} were bootstrapped with {draws} draws each "
        f"(columns {', '.join(BOOTSTRAP)}). The Monte Carlo standard error of 0.95 is {error:.4f}, "
        f"that of the bootstrap {wide:.4f}.",
        "",
        *simulated,
        "",
        "What exact distributions imply in the balanced designs, and in parentheses how far the simulation "
        "is from it, in Monte Carlo standard errors:",
        "",
        *compared,
    ]
    return "\n".join(lines)


def errors(found: tuple[float, int], p: float) -> float:
    """How far a share of a number of intervals is from p, in Monte Carlo standard errors."""
    return (found[0] - p) / math.sqrt(p * (1.0 - p) / found[1])


def put(page: str, text: str) -> str:
    """The page with the part between the marks replaced."""
    before, rest = page.split(MARKS[0])
    return before + MARKS[0] + "\n" + text + "\n" + MARKS[1] + rest.split(MARKS[1])[1]


def one(task: tuple[int, int, int, int, int, int]) -> Counts:
    """A task of the pool: (design, groups, replicates, seed, bootstraps, draws)."""
    which, groups, replicates, seed, bootstraps, draws = task
    counts = coverage(DESIGNS[which], groups, replicates, seed, ANALYTIC, bootstraps, draws)
    print(f"{DESIGNS[which].name}, {groups} groups: done", file=sys.stderr, flush=True)
    return counts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--replicates", type=int, default=2000)
    parser.add_argument("--bootstraps", type=int, default=1000, help="replicates that are bootstrapped too")
    parser.add_argument("--draws", type=int, default=999)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("docs/coverage.md"))
    given = parser.parse_args()
    how = (given.replicates, given.seed, given.bootstraps, given.draws)
    tasks = [(d, m, *how) for d in range(len(DESIGNS)) for m in (12, 18)]
    with ProcessPoolExecutor(given.jobs) as pool:
        counts = list(pool.map(one, tasks))
    results = [(DESIGNS[task[0]], task[1], result) for task, result in zip(tasks, counts, strict=True)]
    text = tables(results, given.replicates, given.bootstraps, given.draws)
    given.output.write_text(put(given.output.read_text(encoding="utf-8"), text), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
