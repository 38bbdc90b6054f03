"""Searches of a structured term from many random starts: how often does a fit end above the lowest minimum?

python tools/many_starts.py "cs(0 + v | g)" [data sets] [starts]    # columns: v (text) or t (0, 1, ...)
"""

from __future__ import annotations

import sys
import warnings

import numpy as np

import mixedmodels as mm
from mixedmodels.optimize import minimize


def data_of(seed: int) -> dict[str, np.ndarray]:
    """Groups with exchangeable (even seeds) or autoregressive effects of three or four columns."""
    rng = np.random.default_rng(seed)
    m, k, replicates = (8, 12, 20, 30)[seed % 4], (3, 4)[seed % 2], (2, 3)[seed // 2 % 2]
    rho = (-0.2, 0.1, 0.5, 0.8)[seed // 3 % 4]
    sd = rng.uniform(0.1, 1.5, k) * (rng.random(k) < 0.85)
    lag = np.abs(np.subtract.outer(np.arange(k), np.arange(k)))
    R = np.where(lag == 0, 1.0, rho) if seed // 12 % 2 == 0 else rho ** lag.astype(float)
    values, vectors = np.linalg.eigh(np.outer(sd, sd) * R)
    b = (rng.standard_normal((m, k)) * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    g, t = np.repeat(np.arange(m), k * replicates), np.tile(np.repeat(np.arange(k), replicates), m)
    return {"y": b[g, t] + rng.standard_normal(len(g)), "g": g, "t": t, "v": np.array(list("abcd"))[t]}


def gap(term: str, seed: int, starts: int) -> tuple[float, bool]:
    """How far the fit ends above the lowest end of all searches, and whether it converged."""
    fit = mm.lmm(f"y ~ 1 + {term}", data_of(seed))
    objective, rng, least = fit.objective, np.random.default_rng(1), fit.optimum.value
    low = np.where(np.isfinite(objective.lower), objective.lower, -1.0)
    high = np.where(np.isfinite(objective.upper), objective.upper, 2.0)
    for _ in range(starts):
        start = low + (high - low) * rng.uniform(0.02, 0.98, len(low))
        least = min(least, minimize(objective, "newton", start, certify=False).value)
    return fit.optimum.value - least, fit.converged


def main() -> None:
    """Print the data sets in which a fit is not the best or did not converge."""
    term = sys.argv[1]
    sets, starts = ([int(a) for a in sys.argv[2:]] + [30, 10][len(sys.argv) - 2 :])[:2]
    warnings.simplefilter("ignore")
    bad = 0
    for seed in range(sets):
        above, converged = gap(term, seed, starts)
        if above > 1e-6 or not converged:
            bad += 1
            print(f"data set {seed}: {above:.3g} above the lowest, converged: {converged}")
    print(f"{term}: {bad} of {sets}")


if __name__ == "__main__":
    main()
