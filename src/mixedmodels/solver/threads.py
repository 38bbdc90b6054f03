"""One BLAS thread while a model is fitted and while a fit is asked.

The BLAS calls are many and small, where a second thread costs more than it brings (on a busy machine
orders of magnitude more, because idle threads spin); the large ones are cut into tiles by the package's own
OpenMP loops. With one thread per call, results do not depend on the number of threads either.
"""

from __future__ import annotations

import inspect
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, TypeVar

__all__ = ["answers_on_one_thread", "is_small", "one_blas_thread"]

_Class = TypeVar("_Class", bound=type)

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
    """Hold every loaded BLAS library to one thread; the last of nested or concurrent holders restores it.

    A library loaded meanwhile is held from the next holder on.
    """
    global _holders
    with _lock:
        before = _seen
        libraries = _find()
        if _holders == 0 or _seen != before:
            here = {lib.filepath for lib, _ in _held}
            for lib in libraries:
                if lib.filepath not in here and (count := lib.get_num_threads()) != 1:
                    _held.append((lib, count))
                    lib.set_num_threads(1)
        _holders += 1
    try:
        yield
    finally:
        with _lock:
            _holders -= 1
            if _holders == 0:
                for lib, count in _held:
                    lib.set_num_threads(count)
                _held.clear()


def is_small(design: Any, rows: int = 500) -> bool:
    """Whether BLAS keeps to one thread by itself: few rows, and no matrix of the size of all of them.

    Parameters
    ----------
    design : Design or GeneralisedDesign
    rows : int
        What counts as few.
    """
    return (
        design.n <= rows
        and getattr(design, "residual", None) is None
        and all(term.precision is None for term in design.terms)
    )


def answers_on_one_thread(cls: _Class) -> _Class:
    """Class decorator: the public methods of a fit with more than a few rows hold BLAS to one thread."""
    for name, method in list(vars(cls).items()):
        if inspect.isfunction(method) and (not name.startswith("_") or name in ("__str__", "_repr_html_")):
            setattr(cls, name, _on_one_thread(method))
    return cls


def _on_one_thread(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def held(self: Any, *args: Any, **options: Any) -> Any:
        if is_small(self.design):
            return method(self, *args, **options)
        with one_blas_thread():
            return method(self, *args, **options)

    return held
