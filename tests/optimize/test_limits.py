"""Options, time limits, interruption, progress and how an optimum reads."""

from __future__ import annotations

import io
import time

import numpy as np
import pytest

from mixedmodels.errors import OptionError
from mixedmodels.optimize import METHODS, Control, Status, minimize
from mixedmodels.optimize.optimum import KKT
from mixedmodels.optimize.progress import Progress


@pytest.mark.parametrize("method", ["newton", "ai", "lbfgsb", "em", "cobyqa", "nelder-mead", "grid"])
def test_interrupted_by_callback(toy, method):
    """A callback that stops the search gets the best point so far."""
    objective = toy.lme4("sleepstudy", True)
    seen = []

    def callback(iteration, theta, value):
        seen.append(value)
        return len(seen) == 4

    optimum = minimize(objective, method, progress=callback)
    assert optimum.status is Status.INTERRUPTED
    assert not optimum.converged
    assert len(seen) == 4
    assert optimum.value <= min(seen) + 1e-9
    assert optimum.value == pytest.approx(objective.value(optimum.theta), rel=1e-12)
    assert "start=optimum.theta" in optimum.message


@pytest.mark.parametrize("method", ["newton", "lbfgsb", "nelder-mead"])
def test_interrupted_by_the_user(toy, method):
    objective = toy.lme4("sleepstudy", True)

    def callback(iteration, theta, value):
        if iteration >= 2:
            raise KeyboardInterrupt

    optimum = minimize(objective, method, progress=callback)
    assert optimum.status is Status.INTERRUPTED
    assert optimum.value <= objective.value(objective.start)


@pytest.mark.parametrize("method", METHODS)
def test_max_seconds(toy, method):
    objective = toy.lme4("sleepstudy", True)
    inner = objective.components

    def slow(*args):
        time.sleep(0.01)
        return inner(*args)

    objective.components = slow
    objective.evaluator = type(objective.evaluator)(
        objective.k, objective.entries, [(0, 0, 2, 0)], 2, objective.nu, True, 0.0, 0.0, function=slow
    )
    optimum = minimize(objective, method, control=Control(max_seconds=0.015))
    assert optimum.status is Status.MAX_SECONDS
    assert "time limit" in optimum.message
    assert optimum.seconds < 1.0


def test_maxiter(toy):
    optimum = minimize(toy.lme4("sleepstudy", True), control=Control(maxiter=2))
    assert optimum.status is Status.MAXITER
    assert optimum.iterations == 2
    assert len(optimum.trace) == 3
    values = [value for *_, value in optimum.trace]
    assert values == sorted(values, reverse=True)


def test_control_is_checked():
    for bad in (
        {"tol": 0.0},
        {"maxiter": -1},
        {"max_seconds": 0},
        {"cap": 0.0},
        {"grid": ()},
        {"maxiter": 1.5},
    ):
        with pytest.raises(OptionError):
            Control(**bad)
    assert Control(maxiter=0).limit(5) == 0


def test_start_is_checked(toy):
    objective = toy.lme4("pastes", True)
    with pytest.raises(OptionError, match="theta has 2"):
        minimize(objective, start=[1.0])
    with pytest.raises(OptionError, match="not finite"):
        minimize(objective, start=[1.0, np.nan])
    start = np.array([1.0, 2.0])
    minimize(objective, start=start)
    np.testing.assert_array_equal(start, [1.0, 2.0])


def test_nothing_to_optimise():
    class Constant:
        start = lower = upper = np.zeros(0)
        names = ()

        def value(self, theta):
            return 7.0

    optimum = minimize(Constant())
    assert optimum.converged
    assert optimum.value == 7.0


def test_report_reads(toy):
    text = str(minimize(toy.lme4("dyestuff2", True)))
    assert text.startswith("newton: converged on the boundary.")
    assert "criterion 161.8282778" in text
    assert "variance at the boundary" in text
    assert "t0 = 0" in text
    inside = str(minimize(toy.lme4("sleepstudy", True)))
    assert "term0: inside" in inside
    assert "not a minimum" in str(KKT("g", -0.5, 0.1, True))


def test_progress_line():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    quick = Terminal()
    shown = Progress("auto", quick)
    shown.update(1, np.ones(1), 3.0, 0.1)
    shown.close()
    assert quick.getvalue() == ""  # nothing before two seconds
    shown.started -= 3.0
    shown.update(2, np.ones(1), 3.0, 0.1)
    shown.close()
    assert "iteration    2  criterion 3.000000  predicted decrease 1.00e-01" in quick.getvalue()
    plain = io.StringIO()
    assert not Progress("auto", plain).active
    assert Progress(True, plain).active
    assert not Progress(False).active
    with pytest.raises(OptionError):
        Progress("loud")
