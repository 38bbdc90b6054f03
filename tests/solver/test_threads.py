"""BLAS keeps to one thread while models are fitted and asked, and gets its threads back."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import mixedmodels as mm
from mixedmodels.solver import threads
from mixedmodels.solver.threads import one_blas_thread


class _Library:
    user_api = "blas"

    def __init__(self, filepath, count):
        self.filepath, self.count, self.calls = filepath, count, 0

    def get_num_threads(self):
        return self.count

    def set_num_threads(self, count):
        self.count, self.calls = count, self.calls + 1


@pytest.fixture
def libraries(monkeypatch):
    """Two libraries; the second is loaded when ``append`` is called."""
    first, second = _Library("one.so", 4), _Library("two.so", 3)
    found = [first]
    monkeypatch.setattr(threads, "_loaded", lambda: len(found))
    monkeypatch.setattr(threads, "_find", lambda: list(found))
    monkeypatch.setattr(threads, "_held", [])
    monkeypatch.setattr(threads, "_holders", 0)
    monkeypatch.setattr(threads, "_seen", -1)
    monkeypatch.setattr(threads, "_libraries", [])
    return first, second, lambda: found.append(second)


def test_nested_holders_set_and_restore_once(libraries):
    first, _, _ = libraries
    with one_blas_thread():
        with one_blas_thread():
            assert first.count == 1
        assert first.count == 1
    assert (first.count, first.calls) == (4, 2)


def test_a_library_loaded_meanwhile_is_held_by_the_next_holder_and_restored(libraries):
    first, second, load = libraries
    with one_blas_thread():
        load()
        assert second.count == 3
        with one_blas_thread():
            assert (first.count, second.count) == (1, 1)
    assert (first.count, second.count) == (4, 3)


def test_an_error_restores_the_threads(libraries):
    with pytest.raises(ValueError), one_blas_thread():
        raise ValueError
    assert libraries[0].count == 4


def test_concurrent_holders_share_one_state(libraries):
    first, started, go = libraries[0], threading.Event(), threading.Event()

    def other():
        with one_blas_thread():
            started.set()
            go.wait(10)

    worker = threading.Thread(target=other)
    with one_blas_thread():
        worker.start()
        assert started.wait(10)
    assert first.count == 1
    go.set()
    worker.join()
    assert first.count == 4


@pytest.mark.parametrize("rows", [2000, 60])
def test_questions_hold_the_threads_unless_the_data_are_small(libraries, monkeypatch, rows):
    rng = np.random.default_rng(1)
    data = {"y": rng.normal(size=rows), "x": rng.normal(size=rows), "g": np.repeat(np.arange(20), rows // 20)}
    fit = mm.lmm("y ~ x + (1 | g)", data)
    seen = []

    def anova(*arguments):
        seen.append(libraries[0].count)

    monkeypatch.setattr("mixedmodels.inference.fixed.anova.anova", anova)
    fit.anova()
    assert seen == [1 if rows > 500 else 4]
    assert fit.anova.__doc__ and fit.anova.__name__ == "anova"
    assert libraries[0].count == 4
