"""One peer on one case, in a process of its own; prints one line of JSON.

    python -m benchmarks.worker PEER CASE [--budget SECONDS]

Reported: ``import`` (seconds to import the peer), ``first`` (first fit and print in this process),
``seconds`` (median of the later repeats, each from data frame to printed fit), ``objective``, ``peak_mb`` and
``base_mb`` (resident memory at its highest, and before the first fit with data loaded and peer imported).
"""

from __future__ import annotations

import argparse
import gc
import importlib
import statistics
import warnings

from benchmarks.cases import CASES
from benchmarks.process import answer, memory, timed


def repeated(once, first: float, budget: float) -> list[float]:
    """Seconds of repeats after the first: many of a small problem, none of one that took ten budgets."""
    if first > 10 * budget:
        return [first]
    seconds = [timed(once)[0]]
    repeats = max(1, min(200, int(budget / max(seconds[0], 1e-4))))
    return [timed(once)[0] for _ in range(repeats)] if repeats > 1 else seconds


def measure(peer_name: str, case_name: str, budget: float) -> dict:
    """Everything about one peer on one case."""
    case = CASES[case_name]
    frame = case.frame()
    seconds_import, peer = timed(lambda: importlib.import_module(f"benchmarks.peers.{peer_name}"))
    gc.collect()
    base, _ = memory()

    def once():
        fit = peer.fit(case, frame)
        return fit, peer.text(fit)

    first, (fit, _) = timed(once)
    seconds = repeated(once, first, budget)
    return {
        "peer": peer_name,
        "case": case_name,
        "version": peer.version(),
        "note": peer.NOTE,
        "import": seconds_import,
        "first": first,
        "seconds": statistics.median(seconds),
        "fastest": min(seconds),
        "repeats": len(seconds),
        "objective": peer.objective(fit),
        "base_mb": base,
        "peak_mb": memory()[1],
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("peer")
    parser.add_argument("case", choices=CASES)
    parser.add_argument("--budget", type=float, default=5.0)
    given = parser.parse_args()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            result = measure(given.peer, given.case, given.budget)
        except (ImportError, NotImplementedError) as error:
            result = {"peer": given.peer, "case": given.case, "skipped": str(error) or type(error).__name__}
        except Exception as error:  # a peer that fails is a result, not the end of the run
            result = {
                "peer": given.peer,
                "case": given.case,
                "failed": f"{type(error).__name__}: {error}"[:300],
            }
    answer(result)


if __name__ == "__main__":
    main()
