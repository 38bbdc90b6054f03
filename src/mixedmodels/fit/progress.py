"""A line of progress on the terminal for fits that take long."""

from __future__ import annotations

import sys
import time
from typing import Any

__all__ = ["Progress"]


class Progress:
    """Callback of the optimiser: writes iteration, value and elapsed time to standard error.

    Parameters
    ----------
    delay : float
        Seconds before the first line.
    force : bool
        Write even where standard error is not a terminal.
    """

    __slots__ = ("delay", "force", "started")

    def __init__(self, delay: float, force: bool) -> None:
        self.delay = delay
        self.force = force
        self.started = time.monotonic()

    def __call__(self, iteration: int, theta: Any, value: float, *rest: Any) -> None:
        elapsed = time.monotonic() - self.started
        if elapsed < self.delay:
            return
        stream = sys.stderr
        if stream is not None and (self.force or stream.isatty()):
            print(f"iteration {iteration}: criterion {value:.6f} ({elapsed:.1f} s)", file=stream, flush=True)
