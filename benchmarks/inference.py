"""Answers from a fitted model against lme4, lmerTest and pbkrtest: python -m benchmarks.inference.

Each task runs in a process of its own, first here and then in R. Timed is the question alone: the fit, the
data and the imports are there before. `value` is a number both sides must agree on; `MB` is how much the
highest resident memory of the process grew over what it was before the question.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.process import HERE, ask, compare, memory, timed
from benchmarks.simulate import DATA

SLEEP = "Reaction ~ Days + (Days | Subject)"


def crossed(n: int, g: int, h: int) -> dict[str, Any]:
    """Crossed slopes: y ~ x + (x | g) + (1 | h)."""
    rng = np.random.default_rng(20 + n)
    a, b, x = rng.integers(0, g, n), rng.integers(0, h, n), rng.standard_normal(n)
    y = 1 + 0.5 * x + rng.normal(0, 0.7, g)[a] + rng.normal(0, 0.4, g)[a] * x + rng.normal(0, 0.6, h)[b]
    y += rng.standard_normal(n)
    return {"y": y, "x": x, "g": a, "h": b}


CROSSED = {"kr_2000": (2000, 200, 50), "kr_50000": (50_000, 5000, 500)}


def crossed_csv(name: str) -> Path:
    """The data of a crossed problem as a file for R."""
    path = DATA / f"{name}.csv"
    if not path.exists():
        DATA.mkdir(parents=True, exist_ok=True)
        columns = crossed(*CROSSED[name])
        lines = [",".join(columns)]
        lines += [
            ",".join(map(repr, row)) for row in zip(*[c.tolist() for c in columns.values()], strict=True)
        ]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _sleepstudy(reml: bool = True) -> Any:
    import mixedmodels as mm

    return mm.lmm(SLEEP, mm.load_dataset("sleepstudy", "pandas"), reml=reml)


def _insteval() -> Any:
    import mixedmodels as mm

    return mm.lmm(
        "y ~ service + (1 | s) + (1 | d) + (1 | dept:service)", mm.load_dataset("InstEval", "pandas")
    )


def _crossed(name: str) -> Any:
    import mixedmodels as mm

    return mm.lmm("y ~ x + (x | g) + (1 | h)", crossed(*CROSSED[name]))


def _bootstrap(fit: Any) -> float:
    return float(np.std(fit.bootstrap(1000, seed=1, progress=False).beta[:, 1], ddof=1))


def _profile(fit: Any) -> float:
    return float(fit.profile().confint(0.95).row("Days")["conf_low"])


def _df(ddf: str, row: int) -> Callable[[Any], float]:
    return lambda fit: float(fit.coefficients(ddf=ddf)["df"][row])


# task: (build the fit, ask the question, what the value is)
TASKS: dict[str, tuple[Callable[[], Any], Callable[[Any], float], str]] = {
    "bootstrap_1000": (lambda: _sleepstudy(False), _bootstrap, "bootstrap SD of Days"),
    "profile": (lambda: _sleepstudy(False), _profile, "lower 95 % limit of Days"),
    "satterthwaite_insteval": (_insteval, _df("satterthwaite", 1), "df of service"),
    "kr_2000": (lambda: _crossed("kr_2000"), _df("kr", 1), "df of x"),
    "kr_50000": (lambda: _crossed("kr_50000"), _df("kr", 1), "df of x"),
}


def fresh(fit: Any) -> Any:
    """The same fit without anything it has already computed."""
    return type(fit)(fit._frame, fit._objective, fit._optimum, fit._options, fit._data)


def work(task: str, budget: float) -> dict[str, Any]:
    """One task in this process."""
    build, ask, _ = TASKS[task]
    fit = build()
    base, _ = memory()
    first, value = timed(lambda: ask(fresh(fit)))
    _, peak = memory()
    seconds = [first]
    if first < budget:
        repeats = max(1, min(50, int(budget / max(first, 1e-4))))
        seconds = [timed(lambda: ask(fresh(fit)))[0] for _ in range(repeats)]
    return {"seconds": statistics.median(seconds), "value": value, "mb": max(0.0, peak - base)}


def in_r(task: str, given: argparse.Namespace) -> dict[str, Any]:
    """The same task in R."""
    if task == "kr_50000":
        return {"skipped": "pbkrtest needs several 50 000 x 50 000 matrices of 20 GB"}
    data = str(crossed_csv(task)) if task in CROSSED else ""
    return ask(["Rscript", str(HERE / "inference.R"), task, data], given.timeout)


def row(task: str, ours: dict[str, Any], theirs: dict[str, Any]) -> str:
    """A line of the table."""
    line = f"{task:<24}{ours['seconds'] * 1e3:>8.2f} ms"
    if "seconds" in theirs:
        ratio = theirs["seconds"] / ours["seconds"]
        line += f"{theirs['seconds']:>9.3f} s{ratio:>8.0f}x{ours['mb']:>7.0f}{theirs['mb']:>7.0f}"
        return line + f"  {ours['value']:.8g}, {theirs['value']:.8g} ({TASKS[task][2]})"
    why = theirs.get("failed", theirs.get("skipped", ""))
    return line + f"  {why}  {ours['mb']:.0f} MB  {ours['value']:.8g}"


HEAD = f"{'task':<24}{'ours':>11}{'R':>11}{'ratio':>9}{'MB':>7}{'R MB':>7}  value, R's value"


def main() -> int:
    return compare("inference", __doc__.splitlines()[0], TASKS, work, in_r, HEAD, row, 3.0, 900.0)


if __name__ == "__main__":
    raise SystemExit(main())
