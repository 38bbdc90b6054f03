"""Simulated problems with fixed seeds, written once to ``benchmarks/data`` (not committed).

Every problem has its own generator and seed, so one can be made without the others and always is the same.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

DATA = Path(__file__).parent / "data"


def slope(groups: int, seed: int) -> pd.DataFrame:
    """Correlated random intercept and slope, ten rows a group, rows shuffled."""
    rng = np.random.default_rng(seed)
    n = 10 * groups
    g = np.repeat(np.arange(groups), 10)
    x = rng.normal(size=n)
    factor = np.linalg.cholesky(np.array([[1.0, 0.15], [0.15, 0.25]]))
    b = rng.normal(size=(groups, 2)) @ factor.T
    y = 2.0 + 0.5 * x + b[g, 0] + b[g, 1] * x + rng.normal(size=n)
    p = rng.permutation(n)
    return pd.DataFrame({"y": y[p], "x": x[p], "g": g[p]})


def nested() -> pd.DataFrame:
    """Two nested factors with 10^3 and 10^5 levels, 10^6 rows."""
    rng = np.random.default_rng(5)
    n, inner_levels = 1_000_000, 100_000
    inner = np.repeat(np.arange(inner_levels), 10)
    outer = inner // 100
    x = rng.normal(size=n)
    y = 1.0 + 0.25 * x + rng.normal(scale=0.7, size=inner_levels)[inner]
    y = y + rng.normal(scale=0.5, size=1000)[outer] + rng.normal(size=n)
    p = rng.permutation(n)
    return pd.DataFrame({"y": y[p], "x": x[p], "inner": inner[p], "outer": outer[p]})


def crossed(n: int, users: int, items: int, a: float, b: float, seed: int) -> pd.DataFrame:
    """Partially crossed, as ratings are: power-law activity of users and items, no pair twice."""
    rng = np.random.default_rng(seed)
    w1 = (np.arange(users) + 20.0) ** -a
    w2 = (np.arange(items) + 20.0) ** -b
    w1 /= w1.sum()
    w2 /= w2.sum()
    k = max(users, items)
    keys = np.unique(np.int64(rng.permutation(k) % users) * items + rng.permutation(k) % items)
    while len(keys) < n:
        draws = int((n - len(keys)) * 1.5) + 1000
        u = rng.choice(users, size=draws, p=w1).astype(np.int64)
        i = rng.choice(items, size=draws, p=w2)
        new = np.setdiff1d(np.unique(u * items + i), keys)
        if len(keys) + len(new) > n:
            new = rng.choice(new, n - len(keys), replace=False)
        keys = np.r_[keys, new]
    keys = rng.permutation(keys)
    u, i = keys // items, keys % items
    user_order, item_order = rng.permutation(users), rng.permutation(items)
    u, i = user_order[u], item_order[i]
    x = rng.normal(size=n)
    y = 3.5 + 0.1 * x + rng.normal(scale=0.4, size=users)[u]
    y = y + rng.normal(scale=0.7, size=items)[i] + rng.normal(scale=0.9, size=n)
    return pd.DataFrame({"y": y, "x": x, "user": u, "item": i})


def four_slopes() -> pd.DataFrame:
    """Four correlated random effects, 500 groups of 40."""
    rng = np.random.default_rng(7)
    groups, n = 500, 20_000
    g = np.repeat(np.arange(groups), 40)
    x = rng.normal(size=(n, 3))
    sd = np.array([1.0, 0.5, 0.4, 0.3])
    r = np.array([[1, 0.3, 0.2, -0.2], [0.3, 1, 0.1, 0.2], [0.2, 0.1, 1, 0.3], [-0.2, 0.2, 0.3, 1]])
    b = rng.normal(size=(groups, 4)) @ np.linalg.cholesky(r * np.outer(sd, sd)).T
    y = 1 + x @ [0.5, -0.3, 0.2] + b[g, 0] + (b[g, 1:] * x).sum(1) + rng.normal(size=n)
    p = rng.permutation(n)
    return pd.DataFrame({"y": y[p], "x1": x[p, 0], "x2": x[p, 1], "x3": x[p, 2], "g": g[p]})


def reading_times() -> pd.DataFrame:
    """Maximal model of a psycholinguistic experiment: 56 subjects by 32 items, Latin square, 1789 rows."""
    rng = np.random.default_rng(8)
    subjects, items = 56, 32
    n = subjects * items
    s, i = np.divmod(np.arange(n), items)
    c = (s + i) % 8
    z = np.c_[np.ones(n), ((c >> 2) & 1) - 0.5, ((c >> 1) & 1) - 0.5, (c & 1) - 0.5]

    def effects(levels: int, sd: list[float], r: list[list[float]]) -> np.ndarray:
        return rng.normal(size=(levels, 4)) @ np.linalg.cholesky(np.array(r) * np.outer(sd, sd)).T

    r_subject = [[1, -0.5, -0.4, 0.6], [-0.5, 1, 0.1, -0.1], [-0.4, 0.1, 1, -0.3], [0.6, -0.1, -0.3, 1]]
    r_item = [[1, -0.3, -0.7, 0.3], [-0.3, 1, 0.2, -0.1], [-0.7, 0.2, 1, -0.4], [0.3, -0.1, -0.4, 1]]
    by_subject = effects(subjects, [300, 60, 120, 80], r_subject)
    by_item = effects(items, [360, 40, 250, 50], r_item)
    y = z @ [2180, -67, 334, 78.0] + (z * by_subject[s]).sum(1) + (z * by_item[i]).sum(1)
    y = y + rng.normal(scale=640, size=n)
    kept = np.sort(rng.choice(n, 1789, replace=False))
    frame = pd.DataFrame({"rt": y, "S": z[:, 1], "P": z[:, 2], "L": z[:, 3]})
    frame["subj"] = [f"S{k:02d}" for k in s]
    frame["item"] = [f"I{k:02d}" for k in i]
    return frame.iloc[kept].reset_index(drop=True)


def bernoulli(n: int, groups: int, seed: int) -> pd.DataFrame:
    """Logistic random intercepts."""
    rng = np.random.default_rng(seed)
    g, x, z = rng.integers(0, groups, n), rng.normal(size=n), rng.integers(0, 2, n)
    eta = -0.5 + 0.8 * x + 0.4 * z + rng.normal(scale=1.0, size=groups)[g]
    return pd.DataFrame({"y": (rng.random(n) < 1 / (1 + np.exp(-eta))).astype(int), "x": x, "z": z, "g": g})


def crossed_counts() -> pd.DataFrame:
    """Poisson with two crossed factors."""
    rng = np.random.default_rng(14)
    n, first, second = 100_000, 2000, 500
    a, b, x = rng.integers(0, first, n), rng.integers(0, second, n), rng.normal(size=n)
    effects = rng.normal(scale=0.5, size=first)[a] + rng.normal(scale=0.3, size=second)[b]
    return pd.DataFrame({"y": rng.poisson(np.exp(0.5 + 0.3 * x + effects)), "x": x, "a": a, "b": b})


def high_marks() -> pd.DataFrame:
    """InstEval with the answer in two classes: 4 or more."""
    from mixedmodels.datasets import load_dataset

    frame = load_dataset("InstEval", "pandas")
    frame["high"] = (frame["y"].astype(float) >= 4).astype(int)
    return frame[["high", "service", "s", "d"]]


GENERATORS: dict[str, Callable[[], pd.DataFrame]] = {
    "bern_1e5": lambda: bernoulli(100_000, 1_000, 131),
    "bern_1e6": lambda: bernoulli(1_000_000, 10_000, 132),
    "pois_crossed": crossed_counts,
    "insteval_logit": high_marks,
    "slope_1e4": lambda: slope(10_000, 41),
    "slope_1e5": lambda: slope(100_000, 42),
    "nested_1e6": nested,
    "ml_1e6": lambda: crossed(1_000_000, 6000, 3700, 0.8, 0.9, 61),
    "crossed_1e5": lambda: crossed(100_000, 10_000, 5_000, 0.7, 0.7, 62),
    "re4_500": four_slopes,
    "kb07sim": reading_times,
}


# Data sets that are read from an R package, which must be installed.
FROM_R = {"Contraception": "mlmRev", "Owls": "glmmTMB"}


def exported(name: str) -> Path:
    """Path of a data set of an R package as CSV, written by R at the first call."""
    path = DATA / f"{name}.csv"
    if not path.exists():
        if shutil.which("Rscript") is None:
            raise NotImplementedError(f"{name} is read from the R package {FROM_R[name]}")
        DATA.mkdir(exist_ok=True)
        code = (
            f'data({name}, package = "{FROM_R[name]}"); '
            f'write.csv({name}, "{path.as_posix()}", row.names = FALSE)'
        )
        subprocess.run(["Rscript", "-e", code], check=True, capture_output=True)
    return path


def parquet(name: str) -> Path:
    """Path of a simulated problem, made at the first call."""
    path = DATA / f"{name}.parquet"
    if not path.exists():
        DATA.mkdir(exist_ok=True)
        frame = GENERATORS[name]()
        frame.to_csv(DATA / f"{name}.csv.gz", index=False, compression={"method": "gzip", "compresslevel": 1})
        frame.to_parquet(path, index=False)
    return path
