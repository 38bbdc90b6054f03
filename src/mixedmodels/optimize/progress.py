"""One line on stderr for fits that take their time."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

import numpy as np

from mixedmodels.errors import OptionError

__all__ = ["Progress"]

QUIET = 2.0  # seconds before the line appears
EVERY = 0.1  # seconds between two updates


class Progress:
    """Shows iteration, criterion, predicted decrease and elapsed time.

    Parameters
    ----------
    mode : "auto", True, False, None or callable
        "auto" shows a line after two seconds if stderr is a terminal; True shows it at once; a callable
        receives (iteration, theta, value) and stops the search by returning True or raising
        KeyboardInterrupt.
    stream : file, optional
        Instead of stderr.

    Raises
    ------
    OptionError
        For any other mode.
    """

    def __init__(self, mode: Any = None, stream: TextIO | None = None) -> None:
        self.call: Callable[..., Any] | None = mode if callable(mode) else None
        if not callable(mode) and mode not in ("auto", True, False, None):
            raise OptionError(f'progress must be "auto", True, False or a function, not {mode!r}')
        self.stream = sys.stderr if stream is None else stream
        terminal = bool(getattr(self.stream, "isatty", lambda: False)())
        self.line = mode is True or (mode == "auto" and terminal)
        self.quiet = 0.0 if mode is True else QUIET
        self.started = time.perf_counter()
        self.shown = -np.inf

    @property
    def active(self) -> bool:
        """Whether there is anything to do between iterations."""
        return self.line or self.call is not None

    def update(self, iteration: int, theta: np.ndarray, value: float, decrement: float) -> bool:
        """Show the state; True if the search is to end."""
        now = time.perf_counter()
        elapsed = now - self.started
        if self.line and elapsed >= self.quiet and now - self.shown >= EVERY:
            self.shown = now
            change = "" if decrement != decrement else f"  predicted decrease {decrement:.2e}"
            self.stream.write(f"\riteration {iteration:4d}  criterion {value:.6f}{change}  {elapsed:.1f} s ")
            self.stream.flush()
        return bool(self.call(iteration, np.array(theta), value)) if self.call is not None else False

    def close(self) -> None:
        """End the line."""
        if self.shown > -np.inf:
            self.stream.write("\n")
            self.stream.flush()
