"""One BLAS thread while a model is fitted.

The BLAS calls of a fit are many and small, where a second thread costs more than it brings (on a busy machine
orders of magnitude more, because idle threads spin); the large ones are cut into tiles by the package's own
OpenMP loops. With one thread per call, results do not depend on the number of threads either.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["one_blas_thread"]

_lock = threading.Lock()
_holders = 0
_libraries: list[Any] = []
_held: list[tuple[Any, int]] = []  # libraries and their number of threads before
_seen = -1


def _find() -> list[Any]:
    """Controllers of the BLAS libraries loaded so far (NumPy's, and SciPy's once it is imported)."""
    global _libraries, _seen
    loaded = ("numpy" in sys.modules) + 2 * ("scipy.linalg" in sys.modules)
    if loaded != _seen:
        from threadpoolctl import ThreadpoolController

        _libraries = [lib for lib in ThreadpoolController().lib_controllers if lib.user_api == "blas"]
        _seen = loaded
    return _libraries


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Hold every loaded BLAS library to one thread; the last of nested or concurrent holders restores it."""
    global _holders, _held
    with _lock:
        _holders += 1
        if _holders == 1:
            _held = [(lib, count) for lib in _find() if (count := lib.get_num_threads()) != 1]
            for lib, _ in _held:
                lib.set_num_threads(1)
    try:
        yield
    finally:
        with _lock:
            _holders -= 1
            if _holders == 0:
                for lib, count in _held:
                    lib.set_num_threads(count)
