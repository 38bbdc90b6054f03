"""Measurements in processes of their own: each prints one line of JSON, which the table's process reads."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
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
