"""Work in chunks: in threads by default, in any joblib backend that is active, with the same results.

A chunk is a unit whose result depends on nothing but itself (its random numbers come from its own stream), so
that neither the number of workers nor their kind matters.
"""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any, Protocol

import numpy as np

from mixedmodels.errors import MixedModelsWarning, OptionError
from mixedmodels.solver.threads import one_blas_thread

__all__ = ["Counter", "Job", "chunk_size", "chunk_stream", "run_chunks", "seed_entropy", "worker_count"]

_CHUNK = 50  # most replicates that share a stream of random numbers; a change changes every seeded result
_VALUES = 500_000  # most responses in a chunk
_QUIET = 2.0  # seconds before a line of progress appears by itself
_EVERY = 0.1


class Job(Protocol):
    """What workers do: `start` once each, then `run` for every chunk they take."""

    def start(self) -> Any:
        """What a worker needs for itself."""
        ...

    def run(self, state: Any, chunk: Any) -> Any:
        """The result of one chunk."""
        ...


def seed_entropy(seed: Any) -> int:
    """The number that all streams of a seed come from; a fresh one for None.

    Raises
    ------
    OptionError
        The seed is not None, a whole number >= 0, a SeedSequence or a Generator.
    """
    if isinstance(seed, np.random.Generator):
        return int(seed.integers(2**63))
    if isinstance(seed, np.random.SeedSequence):
        words = seed.generate_state(4)
        return int(sum(int(word) << (32 * i) for i, word in enumerate(words)))
    if seed is None:
        entropy = np.random.SeedSequence().entropy
        assert isinstance(entropy, int)
        return entropy
    if isinstance(seed, (int, np.integer)) and not isinstance(seed, bool) and seed >= 0:
        return int(seed)
    raise OptionError(f"seed must be None, a whole number >= 0 or a numpy Generator, got {seed!r}")


def chunk_size(nobs: int) -> int:
    """Replicates in a chunk: a function of the data alone, or seeded results would depend on the workers."""
    return max(1, min(_CHUNK, _VALUES // max(nobs, 1)))


def chunk_stream(entropy: int, chunk: int) -> np.random.Generator:
    """Random numbers of one chunk."""
    return np.random.default_rng(np.random.SeedSequence(entropy, spawn_key=(chunk,)))


def worker_count(n_jobs: int | None) -> int:
    """Number of workers: None and -1 take all processors of this process.

    Raises
    ------
    OptionError
        `n_jobs` is 0 or not a whole number.
    """
    if n_jobs is None or n_jobs == -1:
        if hasattr(os, "sched_getaffinity"):
            return max(1, len(os.sched_getaffinity(0)))
        return os.cpu_count() or 1
    if isinstance(n_jobs, bool) or not isinstance(n_jobs, (int, np.integer)) or n_jobs < 1:
        raise OptionError(
            f"n_jobs must be a number of workers >= 1, or -1 or None for all processors, got {n_jobs!r}"
        )
    return int(n_jobs)


class Counter:
    """Progress of replicates.

    Parameters
    ----------
    mode : "auto", True, False, None or callable
        "auto" shows a line on stderr after two seconds if that is a terminal, True at once; a callable
        receives (done, total).
    what : str
    total : int
    """

    def __init__(self, mode: Any, what: str, total: int) -> None:
        self.call: Callable[[int, int], Any] | None = mode if callable(mode) else None
        if self.call is None and not any(mode is value for value in (True, False, None)) and mode != "auto":
            raise OptionError(f'progress must be "auto", True, False or a function, not {mode!r}')
        terminal = bool(getattr(sys.stderr, "isatty", lambda: False)())
        self.line = mode is True or (mode == "auto" and terminal)
        self.quiet = 0.0 if mode is True else _QUIET
        self.what, self.total = what, total
        self.done = 0
        self.started = time.perf_counter()
        self.shown = -np.inf

    def add(self, count: int) -> None:
        """`count` more are done."""
        self.done += count
        if self.call is not None and count:
            self.call(self.done, self.total)
        now = time.perf_counter()
        elapsed = now - self.started
        if (
            self.line
            and count
            and elapsed >= self.quiet
            and (now - self.shown >= _EVERY or self.done == self.total)
        ):
            self.shown = now
            left = elapsed / self.done * (self.total - self.done)
            sys.stderr.write(f"\r{self.what} {self.done}/{self.total}  {elapsed:.1f} s, {left:.1f} s left ")
            sys.stderr.flush()

    def close(self) -> None:
        """End the line."""
        if self.shown > -np.inf:
            sys.stderr.write("\n")
            sys.stderr.flush()


def run_chunks(
    job: Job,
    chunks: Sequence[Any],
    sizes: Sequence[int],
    n_jobs: int | None,
    counter: Counter,
    backend: str | None = None,
) -> tuple[list[Any], bool]:
    """Results of the chunks in order, and whether the user interrupted the work.

    After KeyboardInterrupt the results are those of the first chunks without a gap.

    Parameters
    ----------
    job : Job
    chunks : sequence
        What `job.run` is given.
    sizes : sequence of int
        Replicates in each chunk, for the progress.
    n_jobs : int, optional
    counter : Counter
    backend : str, optional
        A joblib backend by name: ``"loky"``, ``"threading"``, ``"dask"``, ...; by default threads, or
        the backend of the ``joblib.parallel_config`` context that the call is in.
    """
    workers = min(worker_count(n_jobs), max(len(chunks), 1))
    if not chunks:
        return [], False
    try:
        with one_blas_thread(), warnings.catch_warnings():
            warnings.simplefilter("ignore", MixedModelsWarning)  # replicates are counted, not warned about
            if backend is not None or _joblib_is_active():
                return _with_joblib(job, chunks, sizes, n_jobs, counter, backend)
            if workers == 1:
                return _alone(job, chunks, sizes, counter)
            return _in_threads(job, chunks, sizes, workers, counter)
    finally:
        counter.close()


def _alone(job: Job, chunks: Sequence[Any], sizes: Sequence[int], counter: Counter) -> tuple[list[Any], bool]:
    results: list[Any] = []
    try:
        state = job.start()
        for chunk, size in zip(chunks, sizes, strict=True):
            results.append(job.run(state, chunk))
            counter.add(size)
    except KeyboardInterrupt:
        return results, True
    return results, False


def _in_threads(
    job: Job, chunks: Sequence[Any], sizes: Sequence[int], workers: int, counter: Counter
) -> tuple[list[Any], bool]:
    from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait

    states: SimpleQueue[Any] = SimpleQueue()
    for _ in range(workers):
        states.put(None)

    def one(chunk: Any) -> Any:
        state = states.get()
        try:
            if state is None:
                state = job.start()
            return job.run(state, chunk)
        finally:
            states.put(state)

    pool = ThreadPoolExecutor(workers)
    interrupted = False
    futures = [pool.submit(one, chunk) for chunk in chunks]
    place = {future: index for index, future in enumerate(futures)}
    waiting = set(futures)
    try:
        while waiting:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                if future.exception() is not None:
                    raise future.exception()  # type: ignore[misc]
                counter.add(sizes[place[future]])
    except KeyboardInterrupt:
        interrupted = True
    finally:
        for future in futures:
            future.cancel()
        pool.shutdown(wait=True)
    results = []
    for future in futures:
        if future.cancelled() or future.exception() is not None:
            break
        results.append(future.result())
    return results, interrupted


def _joblib_is_active() -> bool:
    """Whether the call is inside ``joblib.parallel_config`` or ``parallel_backend``."""
    joblib = sys.modules.get("joblib.parallel")
    config = getattr(getattr(joblib, "_backend", None), "config", None)
    return isinstance(config, dict) and not repr(config.get("backend")).startswith("default(")


def _with_joblib(
    job: Job,
    chunks: Sequence[Any],
    sizes: Sequence[int],
    n_jobs: int | None,
    counter: Counter,
    backend: str | None,
) -> tuple[list[Any], bool]:
    try:
        import joblib
    except ImportError:
        raise OptionError(
            f"backend={backend!r} needs the package joblib; install it or leave backend out"
        ) from None
    options: dict[str, Any] = {}
    if n_jobs is not None:
        worker_count(n_jobs)
        options["n_jobs"] = n_jobs
    elif backend is not None:
        options["n_jobs"] = -1
    if backend is not None:
        options["backend"] = backend
    try:
        parallel = joblib.Parallel(return_as="generator", **options)
    except (ValueError, KeyError, TypeError) as error:
        raise OptionError(f"joblib backend {backend!r} cannot be used: {error}") from None
    workers = max(1, parallel._effective_n_jobs())
    parts = np.array_split(np.arange(len(chunks)), min(len(chunks), 4 * workers))
    results: list[Any] = []
    try:
        found = parallel(joblib.delayed(_batch)(job, [chunks[i] for i in part]) for part in parts)
        for part, batch in zip(parts, found, strict=True):
            results += batch
            counter.add(sum(sizes[i] for i in part))
    except KeyboardInterrupt:
        return results, True
    return results, False


def _batch(job: Job, chunks: Sequence[Any]) -> list[Any]:
    with one_blas_thread(), warnings.catch_warnings():
        warnings.simplefilter("ignore", MixedModelsWarning)
        state = job.start()
        return [job.run(state, chunk) for chunk in chunks]
