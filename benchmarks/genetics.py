"""Animal models and association scans of realistic size: seconds and peak memory.

PYTHONPATH=src python -m benchmarks.genetics animals 100000
PYTHONPATH=src python -m benchmarks.genetics scan 1200 10000
PYTHONPATH=src python -m benchmarks.genetics joint 1200 130
PYTHONPATH=src python -m benchmarks.genetics maternal 5000
"""

from __future__ import annotations

import sys
import time

import numpy as np

import mixedmodels as mm
from benchmarks.process import memory


def report(what: str, started: float) -> None:
    """Print the seconds since `started` and the peak memory so far."""
    seconds, peak = time.perf_counter() - started, memory()[1] / 1024
    print(f"{what:34s} {seconds:8.2f} s   peak {peak:.2f} GB", flush=True)


def breeding_scheme(count: int, depth: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sires and dams (0: unknown) of discrete generations with selected parents, and breeding values."""
    rng = np.random.default_rng(seed)
    size = count // depth
    sire, dam, value = np.zeros(count, int), np.zeros(count, int), np.zeros(count)
    for generation in range(depth):
        rows = np.arange(generation * size, (generation + 1) * size if generation < depth - 1 else count)
        if generation == 0:
            value[rows] = rng.normal(size=rows.size)
            continue
        parents = rng.permutation(np.arange((generation - 1) * size, generation * size))
        sires, dams = parents[: size // 40], parents[size // 40 : size // 40 + size // 3]
        s, d = rng.choice(sires, rows.size), rng.choice(dams, rows.size)
        sire[rows], dam[rows] = s + 1, d + 1
        value[rows] = 0.5 * (value[s] + value[d]) + np.sqrt(0.5) * rng.normal(size=rows.size)
    return sire, dam, value


def animals(count: int) -> None:
    """REML of one additive variance, one record per animal, ten generations."""
    sire, dam, value = breeding_scheme(count, 10, 3)
    rng = np.random.default_rng(4)
    ids = np.arange(1, count + 1)
    data = {
        "animal": ids,
        "sex": rng.choice(["f", "m"], count),
        "y": 10.0 + value + rng.normal(size=count) * 1.2,
    }
    started = time.perf_counter()
    pedigree = mm.genetics.Pedigree.from_frame({"id": ids, "sire": sire, "dam": dam})
    pedigree.additive_precision()
    report("pedigree, inbreeding, inverse", started)
    started = time.perf_counter()
    fit = mm.lmm("y ~ sex + (1 | animal)", data, known={"animal": pedigree})
    report("REML", started)
    print(fit.solver.describe(), fit.theta, fit.sigma)
    started = time.perf_counter()
    str(fit)
    report("summary", started)
    started = time.perf_counter()
    print(fit.heritability())
    report("heritability", started)
    started = time.perf_counter()
    fit.breeding_values()
    report("breeding values, reliabilities", started)
    started = time.perf_counter()
    mm.genetics.scan(fit, rng.binomial(2, 0.3, (count, 100)), method="p3d")
    report("100 markers, variances kept", started)


def markers(subjects: int, count: int) -> None:
    """A dense kinship from markers, and a scan."""
    rng = np.random.default_rng(1)
    W = rng.binomial(2, rng.uniform(0.1, 0.5, 3000), (subjects, 3000)) * 1.0
    W -= W.mean(axis=0)
    K = W @ W.T / W.var(axis=0).sum()
    d, U = np.linalg.eigh(K)
    y = U @ (np.sqrt(np.maximum(d, 0.0)) * rng.normal(size=subjects)) + rng.normal(size=subjects)
    ids = np.arange(subjects)
    data = {"y": y, "id": ids, "x": rng.normal(size=subjects), "sex": rng.choice(["f", "m"], subjects)}
    snps = rng.binomial(2, rng.uniform(0.05, 0.5, count), (subjects, count)).astype(np.int8)
    mm.lmm("y ~ 1 + (1 | sex)", data, sigma=1.0)  # imports
    started = time.perf_counter()
    fit = mm.lmm("y ~ x + sex + (1 | id)", data, known={"id": (K, ids)})
    report("REML with a dense kinship", started)
    for options in ({}, {"test": "wald"}, {"method": "p3d"}):
        started = time.perf_counter()
        mm.genetics.scan(fit, snps, **options)
        report(f"scan of {count} markers {options or ''}", started)


def joint(subjects: int, count: int) -> None:
    """A dense kinship with many markers as fixed effects of one model."""
    rng = np.random.default_rng(1)
    W = rng.binomial(2, rng.uniform(0.1, 0.5, 3000), (subjects, 3000)) * 1.0
    W -= W.mean(axis=0)
    K = W @ W.T / W.var(axis=0).sum()
    ids = np.arange(subjects)
    snps = rng.binomial(2, rng.uniform(0.05, 0.5, count), (subjects, count))
    polygenic = W @ rng.normal(size=3000) / np.sqrt(W.var(axis=0).sum())
    data = {"y": polygenic + rng.normal(size=subjects), "id": ids} | {
        f"s{j}": snps[:, j] for j in range(count)
    }
    formula = f"y ~ {' + '.join(f's{j}' for j in range(count))} + (1 | id)"
    for what in ("first fit", "again"):
        started = time.perf_counter()
        fit = mm.lmm(formula, data, known={"id": (K, ids)})
        report(f"kinship and {count} markers, {what}", started)
    print(fit.theta, fit.sigma)


def maternal(count: int) -> None:
    """REML of direct and maternal effects with their covariance, one record per animal with a known dam."""
    sire, dam, value = breeding_scheme(count, 10, 3)
    rng = np.random.default_rng(4)
    ids = np.arange(1, count + 1)
    pedigree = mm.genetics.Pedigree.from_frame({"id": ids, "sire": sire, "dam": dam})
    second = mm.genetics.simulate_breeding_values(pedigree, 0.5, seed=5)
    rows = np.flatnonzero(dam > 0)
    y = value[rows] + np.asarray(second).reshape(count)[dam[rows] - 1] + rng.normal(size=rows.size)
    data = {"y": y, "animal": ids[rows], "dam": dam[rows]}
    started = time.perf_counter()
    fit = mm.lmm("y ~ 1 + joint(1 | animal, 1 | dam)", data, known={"animal": pedigree})
    report("REML, direct and maternal", started)
    print(fit.theta, fit.sigma)


CASES = {  # with the sizes they have unless others are given
    "animals": (animals, (100_000,)),
    "scan": (markers, (1200, 10_000)),
    "joint": (joint, (1200, 130)),
    "maternal": (maternal, (5000,)),
}

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in CASES:
        sys.exit(__doc__)
    case, sizes = CASES[sys.argv[1]]
    case(*([int(text) for text in sys.argv[2:]] or sizes))
