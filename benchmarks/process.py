"""Measurements in processes of their own: each prints one line of JSON, which the table's process reads."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
MARK = "@@benchmark "  # also in the R scripts


def answer(result: dict[str, Any]) -> None:
    """Print the result of a measurement for the process that asked for it."""
    print(MARK + json.dumps(result), flush=True)


def ask(command: list[str], timeout: float | None = None) -> dict[str, Any]:
    """The answer of a process; a failure, a timeout or a missing program is one too."""
    if shutil.which(command[0]) is None:
        return {"skipped": f"{command[0]} not found"}
    try:
        run = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout, cwd=HERE.parent, check=False
        )
    except subprocess.TimeoutExpired:
        return {"failed": f"more than {timeout:g} s"}
    lines = [line for line in run.stdout.splitlines() if line.startswith(MARK)]
    if not lines:
        last = run.stderr.strip().splitlines()[-1:] or [f"exit status {run.returncode}"]
        return {"failed": last[0][:300]}
    return json.loads(lines[-1].removeprefix(MARK))


def ask_module(module: str, *arguments: str, timeout: float | None = None) -> dict[str, Any]:
    """The answer of a module of this folder, run by this interpreter."""
    return ask([sys.executable, "-m", f"benchmarks.{module}", *arguments], timeout)


def memory() -> tuple[float, float]:
    """Resident memory now and at its highest, in MB."""
    try:
        with open("/proc/self/status", encoding="ascii") as status:
            rows = dict(line.split(":", 1) for line in status)
        return tuple(float(rows[key].split()[0]) / 1024 for key in ("VmRSS", "VmHWM"))
    except OSError:
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        peak = peak / (1 << 20) if sys.platform == "darwin" else peak / 1024
        return peak, peak


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of one call, and its value."""
    start = time.perf_counter()
    value = call()
    return time.perf_counter() - start, value


def duration(seconds: float) -> str:
    """Seconds in a unit that leaves few digits."""
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f} us"
    return f"{seconds * 1e3:.2f} ms" if seconds < 1 else f"{seconds:.2f} s"


def machine() -> dict[str, Any]:
    """What the run was made on."""
    return {
        "platform": platform.platform(),
        "processor": platform.processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "OPENBLAS_NUM_THREADS": os.environ.get("OPENBLAS_NUM_THREADS"),
        "time": time.strftime("%Y-%m-%dT%H:%M:%S"),
    }


def write(results: list[dict[str, Any]], prefix: str = "", output: Path | None = None) -> Path:
    """Write the results of a run with its machine, by default to ``results/<prefix><time>.json``."""
    path = output or HERE / "results" / f"{prefix}{time.strftime('%Y%m%d-%H%M%S')}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"machine": machine(), "results": results}, indent=1), encoding="utf-8")
    return path


def compare(
    module: str,
    about: str,
    choices: Collection[str],
    work: Callable[[str, float], dict[str, Any]],
    in_r: Callable[[str, argparse.Namespace], dict[str, Any]],
    head: str,
    row: Callable[[str, dict[str, Any], dict[str, Any]], str],
    budget: float,
    timeout: float,
) -> int:
    """The command of a benchmark that runs cases here and in R, one after another, and prints a table.

    Parameters
    ----------
    module : str
        Its name in this folder: each case runs in a process of its own, ``--work case``.
    about : str
    choices : collection of str
        Names of the cases.
    work : callable
        Case and budget in seconds -> result; without ``"seconds"`` it failed.
    in_r : callable
        Case and options -> result of R.
    head : str
        First line of the table.
    row : callable
        Case, own result and that of R -> a line.
    budget, timeout : float
        Defaults of the options.
    """
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{module}", description=about)
    parser.add_argument("--cases", nargs="+", choices=choices, default=list(choices))
    parser.add_argument("--budget", type=float, default=budget, help="seconds of repeats per case")
    parser.add_argument("--timeout", type=float, default=timeout, help="seconds until a case is given up")
    parser.add_argument("--no-r", action="store_true", help="only this package")
    parser.add_argument("--work", choices=choices, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work:
        answer(work(given.work, given.budget))
        return 0
    results = []
    print(head)
    for case in given.cases:
        ours = ask_module(module, "--work", case, "--budget", str(given.budget), timeout=given.timeout)
        theirs = {"skipped": ""} if given.no_r else in_r(case, given)
        results.append({"case": case, "ours": ours, "R": theirs})
        failed = f"{case:<24} failed: {ours.get('failed')}"
        print(row(case, ours, theirs) if "seconds" in ours else failed, flush=True)
    write(results, f"{module}-")
    return 0
