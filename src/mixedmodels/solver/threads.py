"""One BLAS thread while a model is fitted and while a fit is asked.

The BLAS calls are many and small, where a second thread costs more than it brings (on a busy machine
orders of magnitude more, because idle threads spin); the large ones are cut into tiles by the package's own
OpenMP loops. With one thread per call, results do not depend on the number of threads either.
"""

from __future__ import annotations

import inspect
import sys
import threading
from collections.abc import Callable
from contextlib import ContextDecorator
from functools import wraps
from typing import Any, TypeVar

__all__ = ["answers_on_one_thread", "is_small", "one_blas_thread"]

_Class = TypeVar("_Class", bound=type)

_lock = threading.Lock()
_holders = 0
_libraries: list[Any] = []
_held: list[tuple[Any, int]] = []  # libraries and their number of threads before
_seen = -1


def _loaded() -> int:
    """Which of the modules with a BLAS library are loaded: NumPy, and SciPy's linear algebra."""
    return ("numpy" in sys.modules) + 2 * ("scipy.linalg" in sys.modules)


def _find() -> list[Any]:
    """Controllers of the BLAS libraries loaded so far."""
    from threadpoolctl import ThreadpoolController

    return [lib for lib in ThreadpoolController().lib_controllers if lib.user_api == "blas"]


def _hold() -> None:
    """Set to one thread the libraries that are not yet."""
    global _libraries, _seen
    loaded = _loaded()
    if loaded != _seen:
        _libraries, _seen = _find(), loaded
    here = {lib.filepath for lib, _ in _held}
    for lib in _libraries:
        if lib.filepath not in here and (count := lib.get_num_threads()) != 1:
            _held.append((lib, count))
            lib.set_num_threads(1)


class _OneThread(ContextDecorator):
    """Holders, counted: entering a second time costs next to nothing."""

    def __enter__(self) -> None:
        global _holders
        with _lock:
            if _holders == 0 or _seen != _loaded():
                _hold()
            _holders += 1

    def __exit__(self, *_: object) -> None:
        global _holders
        with _lock:
            _holders -= 1
            if _holders == 0:
                for lib, count in _held:
                    lib.set_num_threads(count)
                _held.clear()


_ONE = _OneThread()


def one_blas_thread() -> _OneThread:
    """Hold every loaded BLAS library to one thread; the last of nested or concurrent holders restores it.

    Also a decorator. A library loaded meanwhile is held from the next holder on.
    """
    return _ONE


def is_small(design: Any, rows: int = 500) -> bool:
    """Whether BLAS keeps to one thread by itself: few rows, and no matrix of the size of all of them.

    Parameters
    ----------
    design : Design or GeneralisedDesign
    rows : int
        What counts as few.
    """
    residual = getattr(design, "residual", None)
    if design.n > rows or not (residual is None or residual.is_sequential):
        return False
    return not any([term.precision is not None for term in design.terms])


def answers_on_one_thread(cls: _Class) -> _Class:
    """Class decorator: the public methods of a fit with more than a few rows hold BLAS to one thread."""
    for name, method in list(vars(cls).items()):
        if inspect.isfunction(method) and (not name.startswith("_") or name in ("__str__", "_repr_html_")):
            setattr(cls, name, _on_one_thread(method))
    return cls


def _on_one_thread(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def held(self: Any, *args: Any, **options: Any) -> Any:
        if self._is_small:
            return method(self, *args, **options)
        with one_blas_thread():
            return method(self, *args, **options)

    return held
