"""Residual and random-effect structures against nlme and glmmTMB: python -m benchmarks.structured.

CPU time (one thread: set OPENBLAS_NUM_THREADS=1) from data frame to printed summary, first here and then in
R, in the same run. R's calls are in structured.R; `steps` are evaluations in the search. `- ours` is R's
criterion less ours: REML criteria of `gls` and `lme` are on the scale of ours.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import time
from collections.abc import Callable

import numpy as np
import pandas as pd

from benchmarks.process import HERE, ask, compare, duration, timed
from benchmarks.simulate import DATA

GROWTH, RATS, FOLLICLES = "distance ~ age * Sex", "weight ~ Time * Diet", "follicles ~ s1 + c1"
QUARTIC = "rate ~ (pressure + I(pressure^2) + I(pressure^3) + I(pressure^4)) * QB"
FIELD, PLANE = "yield ~ variety - 1", "latitude + longitude"

# case: (data, formula, residual or None, reml)
CASES: dict[str, tuple[str, str, str | None, bool]] = {
    "gls_orthodont_ar1": ("Orthodont", GROWTH, "ar1(occ | Subject)", True),
    "gls_orthodont_ar1_het": ("Orthodont", GROWTH, "ar1(occ | Subject) * varident(Sex)", False),
    "gls_orthodont_cs": ("Orthodont", GROWTH, "cs(1 | Subject)", True),
    "gls_orthodont_us": ("Orthodont", GROWTH, "us(occ | Subject)", True),
    "gls_bodyweight_car1": ("BodyWeight", RATS, "car1(Time | Rat)", True),
    "gls_ovary_ar1": ("Ovary", FOLLICLES, "ar1(1 | Mare)", True),
    "gls_ovary_arma21": ("Ovary", FOLLICLES, "arma(1 | Mare, p=2, q=1)", False),
    "gls_dialyzer_varpower": ("Dialyzer", QUARTIC, "varpower(pressure)", True),
    "gls_wheat2_exp": ("Wheat2", "yield ~ variety", f"exp({PLANE})", False),
    "gls_wheat2_ratio_nugget": ("Wheat2", FIELD, f"ratio({PLANE}, nugget=True)", True),
    "gls_wheat2_spher_nugget": ("Wheat2", FIELD, f"sph({PLANE}, nugget=True)", True),
    "lme_orthodont_ar1": ("Orthodont", f"{GROWTH} + (1 | Subject)", "ar1(occ | Subject)", False),
    "lme_orthodont_varident": ("Orthodont", f"{GROWTH} + (age | Subject)", "varident(Sex)", True),
    "lme_bodyweight_car1": ("BodyWeight", f"{RATS} + (Time | Rat)", "car1(Time | Rat)", True),
    "lme_bodyweight_exp_power": (
        "BodyWeight",
        f"{RATS} + (Time | Rat)",
        "exp(Time | Rat) * varpower(Time)",
        True,
    ),
    "lme_bodyweight_gaus": ("BodyWeight", f"{RATS} + (1 | Rat)", "gau(Time | Rat, nugget=True)", True),
    "lme_bodyweight_varpower": ("BodyWeight", f"{RATS} + (Time | Rat)", "varpower(Time)", True),
    "lme_ovary_ar1": ("Ovary", f"{FOLLICLES} + (s1 || Mare)", "ar1(1 | Mare)", True),
    "lme_ovary_arma11": ("Ovary", f"{FOLLICLES} + (1 | Mare)", "arma(1 | Mare, p=1, q=1)", False),
    "mmrm_500x8": ("mmrm", "y ~ arm * visit_f", "us(visit | id)", True),
    "lme_ar1_500x20": ("series", "y ~ x + (1 | id)", "ar1(t | id)", True),
    "gls_ar1_1e5": ("long", "y ~ x", "ar1(t | id)", True),
    "crossed_ar1_varident": (
        "crossed_ar1",
        "y ~ x + (1 | id) + (1 | item)",
        "ar1(t | id) * varident(sex)",
        True,
    ),
    "re_ar1": ("process", "y ~ x + ar1(0 + t | id)", None, True),
    "re_ou": ("process", "y ~ x + ou(0 + t | id)", None, True),
}
ALONE = {"crossed_ar1_varident"}  # no peer fits it


def ar1(rng: np.random.Generator, series: int, length: int, rho: float) -> np.ndarray:
    """Stationary AR(1) series with unit variance, shape (series, length)."""
    out = rng.standard_normal((series, length))
    for t in range(1, length):
        out[:, t] = rho * out[:, t - 1] + np.sqrt(1.0 - rho * rho) * out[:, t]
    return out


def mmrm() -> pd.DataFrame:
    """500 subjects, 8 visits, two arms, dropout."""
    rng = np.random.default_rng(71)
    V = 8
    C = 0.8 ** np.abs(np.subtract.outer(np.arange(V), np.arange(V)))
    sd = np.linspace(1.0, 2.0, V)
    errors = rng.standard_normal((500, V)) @ np.linalg.cholesky(C * sd * sd[:, None]).T
    arm = rng.integers(0, 2, 500)
    stay = np.arange(V) < np.where(rng.random(500) < 0.3, rng.integers(3, V, 500), V)[:, None]
    i, v = np.nonzero(stay)
    y = 10 + 0.2 * v + 0.3 * arm[i] * v + errors[i, v]
    return pd.DataFrame({"y": y, "id": i, "arm": np.where(arm[i] == 1, "b", "a"), "visit": v + 1})


def series(groups: int, length: int, seed: int, sd: float, noise: float = 0.0) -> pd.DataFrame:
    """AR(1) within groups, a random intercept, and a nugget."""
    rng = np.random.default_rng(seed)
    n = groups * length
    id_, t = np.repeat(np.arange(groups), length), np.tile(np.arange(length), groups)
    x = rng.standard_normal(n)
    y = 1 + 0.5 * x + sd * rng.standard_normal(groups)[id_] + ar1(rng, groups, length, 0.6).ravel()
    return pd.DataFrame({"y": y + noise * rng.standard_normal(n), "x": x, "id": id_, "t": t})


def crossed_ar1() -> pd.DataFrame:
    """AR(1) within subjects, crossed items, two variances."""
    rng = np.random.default_rng(75)
    out = series(500, 20, 75, 0.7)
    out["item"] = rng.integers(0, 100, len(out))
    out["sex"] = np.where(out["id"] % 2 == 0, "F", "M")
    out["y"] += 0.5 * rng.standard_normal(100)[out["item"]]
    return out


GENERATORS: dict[str, Callable[[], pd.DataFrame]] = {
    "mmrm": mmrm,
    "series": lambda: series(500, 20, 72, 0.8),
    "long": lambda: series(100, 1000, 73, 0.0),
    "process": lambda: series(100, 10, 74, 0.0, 0.5),
    "crossed_ar1": crossed_ar1,
}
FOLDER = DATA / "structured"


def frame(name: str) -> pd.DataFrame:
    """The data of a case, made at the first call."""
    path = FOLDER / f"{name}.csv"
    if not path.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        if name in GENERATORS:
            GENERATORS[name]().to_csv(path, index=False)
        else:
            subprocess.run(["Rscript", str(HERE / "structured.R"), str(FOLDER), "0", "data"], check=True)
    out = pd.read_csv(path)
    if "visit" in out:
        out["visit_f"] = out["visit"].astype(str)
    for factor in {"Diet", "QB", "variety"} & set(out):
        out[factor] = out[factor].astype(str)
    return out


def work(case: str, budget: float) -> dict:
    """One case in this process."""
    import mixedmodels as mm

    name, formula, residual, reml = CASES[case]
    data = frame(name)

    def once():
        call = mm.lmm if "|" in formula else mm.gls
        fit = call(formula, data, reml=reml, **({} if residual is None else {"residual": residual}))
        return fit, str(fit.summary())

    first, (fit, _) = timed(once)
    seconds, began = [], time.perf_counter()
    while not seconds or (time.perf_counter() - began < budget and first < 10 * budget):
        start = time.process_time()
        once()
        seconds.append(time.process_time() - start)
    return {
        "case": case,
        "seconds": statistics.median(seconds),
        "criterion": float(fit.criterion),
        "evaluations": int(fit.optimum.evaluations),
    }


def in_r(case: str, given: argparse.Namespace) -> dict:
    """The same case in R."""
    if case in ALONE:
        return {"skipped": "no peer"}
    command = ["Rscript", str(HERE / "structured.R"), str(FOLDER), str(given.budget), case]
    return ask(command, given.timeout)


def row(case: str, ours: dict, theirs: dict) -> str:
    """A line of the table."""
    line = f"{case:<26}{duration(ours['seconds']):>10}"
    if "seconds" in theirs:
        line += f"{duration(theirs['seconds']):>10}{theirs['seconds'] / ours['seconds']:>7.1f}x"
    else:
        line += f"{'-':>10}{'':>8}"
    line += f"{ours['evaluations']:>7}{ours['criterion']:>18.7f}"
    if "criterion" in theirs:
        return line + f"{theirs['criterion'] - ours['criterion']:>+11.1e}"
    return line + f"  {theirs.get('failed', theirs.get('skipped'))}"


HEAD = f"{'case':<26}{'ours':>10}{'R':>10}{'ratio':>8}{'steps':>7}{'criterion':>18}{'- ours':>11}"


def main() -> int:
    return compare("structured", __doc__.splitlines()[0], CASES, work, in_r, HEAD, row, 2.0, 600.0)


if __name__ == "__main__":
    raise SystemExit(main())
