"""Run the benchmarks: python -m benchmarks [--quick] [--cases ...] [--peers ...].

Each peer runs each case in a process of its own, one after another, from a data frame in memory to the
printed fit. The table shows median seconds, the ratio to this package, the criterion reached, and peak memory
of the process; ``fresh`` is the time of importing the package plus the first fit in a fresh process (starting
the interpreter, importing pandas and reading data excluded). Everything is written to ``benchmarks/results``
as JSON. Ratios within one run are what counts.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.cases import CASES
from benchmarks.process import HERE, ask, duration, write
from benchmarks.simulate import DATA, FROM_R, GENERATORS, exported, parquet

OURS = "mixedmodels"
PEERS = ("lme4", "glmmTMB", "glmm", "mixedlm", "gpboost", "statsmodels")
R_PEERS = ("lme4", "glmmTMB")
R_PACKAGE = {"Machines": "nlme", "Oats": "nlme", "Orthodont": "nlme", "ergoStool": "nlme"}


def command(peer: str, case_name: str, budget: float, python: str) -> list[str]:
    """The command line of one measurement."""
    if peer not in R_PEERS:
        return [python, "-m", "benchmarks.worker", peer, case_name, "--budget", str(budget)]
    case = CASES[case_name]
    if case.data in FROM_R:
        source = str(exported(case.data))
    elif case.data in GENERATORS:
        parquet(case.data)
        source = str(DATA / f"{case.data}.csv.gz")
    else:
        source = f"{R_PACKAGE.get(case.data, 'lme4')}:{case.data}"
    if not case.linear:
        rscript = str(HERE / "glmm.R")
        return ["Rscript", rscript, peer, case_name, case.formula, case.family, source, str(budget)]
    rscript = str(HERE / "lme4.R")
    return ["Rscript", rscript, case_name, case.formula, str(case.reml).upper(), source, str(budget)]


def measure(peer: str, case_name: str, budget: float, timeout: float, python: str) -> dict:
    """One measurement in its own process; a failure or a timeout is a result too."""
    label = {"peer": peer, "case": case_name}
    if peer == "glmmTMB" and CASES[case_name].linear:
        return label | {"skipped": "linear models are compared with lme4"}
    result = ask(command(peer, case_name, budget, python), timeout)
    return result if "seconds" in result else label | result


def row(result: dict, ours: dict | None) -> str:
    """One line of the table."""
    start = f"{result['case']:<20}{result['peer']:<13}"
    if "seconds" not in result:
        return (
            start
            + ("skipped: " if "skipped" in result else "failed: ")
            + result.get("skipped", result.get("failed"))
        )
    ratio, difference = "", ""
    if ours is not None and "seconds" in ours and result is not ours:
        ratio = f"{result['seconds'] / ours['seconds']:.3g}x"
        difference = f"{result['objective'] - ours['objective']:+.2e}"
    fresh = result["import"] + result["first"]
    return (
        f"{start}{duration(result['seconds']):>10}{ratio:>9}{duration(fresh):>10}"
        f"{result['objective']:>20.8f}{difference:>11}{result['peak_mb']:>8.0f}{result['repeats']:>6}"
    )


HEADER = (
    f"{'case':<20}{'package':<13}{'median':>10}{'ratio':>9}{'fresh':>10}{'criterion':>20}{'- ours':>11}"
    f"{'MB':>8}{'runs':>6}"
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", metavar="CASE", help=f"of: {', '.join(CASES)}")
    parser.add_argument(
        "--peers", nargs="*", default=list(PEERS), metavar="PEER", help=f"of: {', '.join(PEERS)}"
    )
    parser.add_argument("--quick", action="store_true", help="small problems, few repeats")
    parser.add_argument("--budget", type=float, help="seconds of repeats per measurement (5, quick: 1)")
    parser.add_argument(
        "--timeout", type=float, default=600.0, help="seconds until a measurement is given up"
    )
    parser.add_argument("--python", default=sys.executable, help="interpreter that has the peers installed")
    parser.add_argument("--output", type=Path, help="JSON file (default: benchmarks/results/<time>.json)")
    given = parser.parse_args()

    names = given.cases or [name for name, case in CASES.items() if case.quick or not given.quick]
    unknown = [name for name in names if name not in CASES] + [p for p in given.peers if p not in PEERS]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}")
    budget = given.budget or (1.0 if given.quick else 5.0)

    results = []
    print(HEADER)
    for name in names:
        ours = measure(OURS, name, budget, given.timeout, given.python)
        results.append(ours)
        print(row(ours, ours), flush=True)
        for peer in given.peers:
            results.append(measure(peer, name, budget, given.timeout, given.python))
            print(row(results[-1], ours), flush=True)

    notes = {r["peer"]: r["note"] for r in results if r.get("note")}
    for peer, note in notes.items():
        print(f"{peer}: {note}")
    print(f"written to {write(results, output=given.output)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
