"""The default method on the package's own objective: compiled and Python roads, every shape of model."""

from __future__ import annotations

import numpy as np
import pytest

from mixedmodels.objective.lmm import LMMObjective
from mixedmodels.optimize import Control, Status, minimize
from mixedmodels.optimize.newton import newton
from mixedmodels.solver.dense import DenseSolver
from mixedmodels.solver.grouped import GroupedSolver
from mixedmodels.testing import random_design
from mixedmodels.testing.designs import DESIGN_KINDS, SINGLE_FACTOR_KINDS


@pytest.mark.parametrize("kind", SINGLE_FACTOR_KINDS)
def test_compiled_and_python_roads_meet(kind):
    """The same optimum through the compiled loop, the Python loop and the dense solver."""
    design = random_design(3, kind)
    objective = LMMObjective(design, GroupedSolver(design))
    fast = minimize(objective)
    slow = newton(objective, objective.start, Control())
    dense = minimize(LMMObjective(design, DenseSolver(design)))
    assert fast.converged
    assert slow.status.converged
    assert dense.converged
    assert fast.value == pytest.approx(slow.value, abs=1e-8)
    assert fast.value == pytest.approx(dense.value, abs=1e-7)
    scale = max(1.0, np.abs(fast.theta).max())
    np.testing.assert_allclose(fast.theta, slow.theta, atol=2e-4 * scale)
    assert fast.evaluations <= 25


@pytest.mark.parametrize("kind", DESIGN_KINDS)
def test_no_method_finds_less(kind):
    """L-BFGS-B from the same start never ends below the default, ML."""
    design = random_design(7, kind)
    objective = LMMObjective(design, DenseSolver(design), reml=False)
    optimum = minimize(objective)
    assert optimum.converged, str(optimum)
    assert optimum.decrement < 1e-8
    other = minimize(objective, "lbfgsb")
    assert optimum.value <= other.value + 1e-6
    if optimum.status is Status.BOUNDARY:
        assert any(item.singular for item in optimum.kkt)
    for item in optimum.kkt:
        assert item.min_eigenvalue > -1e-4
