"""Animal models of 10^5 animals and other large structured models: python -m benchmarks.animal [case ...].

Each case runs in a process of its own. `fit` is from data in memory to the fitted model, `summary` the text
of the summary with Satterthwaite's degrees of freedom, `values` breeding values with their reliability for
all animals. `s` is wall-clock time, `cpu` that of all threads; `MB` is the highest memory of the process.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.process import answer, ask_module, memory

# 10 generations of equal size after the founders (2 %), one record an animal
PEDIGREES: dict[str, dict[str, Any]] = {
    "sires_75": {"sires": 75},
    "sires_75_dams_1000": {"sires": 75, "dams": 1000},
    "sires_500": {"sires": 500},
    "monogamous_1000": {"mating": "monogamous", "sires": 1000, "dams": 1000},
    "sires_1000": {"sires": 1000},
}


def pedigree(name: str, animals: int = 100_000, generations: int = 10) -> Any:
    """A pedigree of discrete generations with few or many parents."""
    from mixedmodels import genetics

    founders = animals // 50
    size = (animals - founders) // generations
    return genetics.random_pedigree(
        founders=founders, generations=generations, size=size, seed=1, **PEDIGREES[name]
    )


def animal(name: str, animals: int = 100_000) -> tuple[Callable[[], Any], bool]:
    """y ~ 1 + (1 | individual) by REML."""
    import mixedmodels as mm
    from mixedmodels import genetics

    ped = pedigree(name, animals)
    data = genetics.simulate_trait(ped, heritability=0.4, seed=2)
    return lambda: mm.lmm("y ~ 1 + (1 | individual)", data, known={"individual": ped}), True


def repeated() -> tuple[Callable[[], Any], bool]:
    """Two records an animal, with a permanent environment."""
    import mixedmodels as mm
    from mixedmodels import genetics

    ped = pedigree("sires_75", 50_000)
    data = genetics.simulate_trait(ped, heritability=0.4, seed=2)
    rng = np.random.default_rng(3)
    rows = np.repeat(np.arange(50_000), 2)
    y = (data["y"] + 0.5 * rng.normal(size=50_000))[rows] + 0.5 * rng.normal(size=100_000)
    ids = np.asarray(data["individual"])[rows]
    frame = {"y": y, "animal": ids, "pe": ids}
    return lambda: mm.lmm("y ~ 1 + (1 | animal) + (1 | pe)", frame, known={"animal": ped}), False


def binary() -> tuple[Callable[[], Any], bool]:
    """A threshold trait of 10^4 animals, Laplace."""
    import mixedmodels as mm
    from mixedmodels import genetics

    ped = pedigree("sires_75", 10_000)
    trait = genetics.simulate_trait(ped, heritability=0.4, seed=2)
    frame = {"y": (trait["y"] > 0.3).astype(int), "animal": trait["individual"]}
    return lambda: mm.glmm("y ~ 1 + (1 | animal)", frame, family="binomial", known={"animal": ped}), False


def series() -> tuple[Callable[[], Any], bool]:
    """10^5 rows, AR(1) in series of 100 and two crossed factors of 2000 and 500 levels."""
    import mixedmodels as mm

    rng = np.random.default_rng(4)
    e = rng.normal(size=(1000, 100))
    for j in range(1, 100):
        e[:, j] = 0.6 * e[:, j - 1] + 0.8 * e[:, j]
    a, b = rng.integers(0, 2000, 100_000), rng.integers(0, 500, 100_000)
    y = e.ravel() + 0.5 * rng.normal(size=2000)[a] + 0.5 * rng.normal(size=500)[b]
    frame = {"y": y, "x": rng.normal(size=100_000), "a": a, "b": b}
    frame["s"], frame["t"] = np.repeat(np.arange(1000), 100), np.tile(np.arange(100), 1000)
    return lambda: mm.lmm("y ~ x + (1 | a) + (1 | b)", frame, residual="ar1(t | s)"), False


def dominance() -> tuple[Callable[[], Any], bool]:
    """Additive and dominance effects, 2 * 10^4 children of 200 sires and 2000 dams."""
    import mixedmodels as mm
    from mixedmodels import genetics

    ped = genetics.random_pedigree(
        founders=4000, generations=1, size=20_000, sires=200, dams=2000, mating="monogamous", seed=1
    )
    data = genetics.simulate_trait(ped, heritability=0.3, dominance=0.2, seed=2)
    formula = "y ~ 1 + (1 | individual) + known(1 | individual, D)"

    def fit() -> Any:
        known = {"individual": ped, "D": ped.dominance(form="precision")}
        return mm.lmm(formula, data, known=known)

    return fit, False


CASES: dict[str, Callable[[], tuple[Callable[[], Any], bool]]] = {
    **{name: (lambda name=name: animal(name)) for name in PEDIGREES},
    "repeated": repeated,
    "binary_1e4": binary,
    "ar1_crossed": series,
    "dominance_2e4": dominance,
}


def run(name: str) -> dict[str, Any]:
    """Timings of one case in this process."""
    make, breeding = CASES[name]()
    out: dict[str, Any] = {"case": name}

    def timed(what: str, call: Callable[[], Any]) -> Any:
        wall, cpu = time.perf_counter(), time.process_time()
        result = call()
        out[what], out[f"{what}_cpu"] = time.perf_counter() - wall, time.process_time() - cpu
        return result

    fit = timed("fit", make)
    timed("summary", lambda: str(fit.summary()))
    if breeding:
        timed("values", fit.breeding_values)
    out["evaluations"] = fit.optimum.evaluations
    out["megabytes"] = memory()[1]
    out["solver"] = fit.solver.describe() if hasattr(fit, "solver") else ""
    return out


def main() -> None:
    """Run the cases one after another and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", choices=[*CASES, []], help="all without it")
    parser.add_argument("--worker", choices=CASES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        answer(run(options.worker))
        return
    head = (
        f"{'case':20} {'fit s':>8} {'cpu':>8} {'evals':>5} {'summary s':>9} {'values s':>8} {'MB':>6}  solver"
    )
    print(head)
    for name in options.cases or CASES:
        r = ask_module("animal", "--worker", name)
        if "fit" not in r:
            print(f"{name:20} failed: {r['failed']}", flush=True)
            continue
        values = f"{r['values']:8.2f}" if "values" in r else f"{'':8}"
        print(
            f"{name:20} {r['fit']:8.2f} {r['fit_cpu']:8.2f} {r['evaluations']:5} {r['summary']:9.2f} "
            f"{values} {r['megabytes']:6.0f}  {r['solver']}",
            flush=True,
        )


if __name__ == "__main__":
    main()
