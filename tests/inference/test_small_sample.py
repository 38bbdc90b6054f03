"""Corrected covariances: Schafer's marijuana example, and the derivatives they are made of."""

from __future__ import annotations

import numpy as np
import pytest

import mixedmodels as mm
from mixedmodels.inference.ddf.small_sample import _derivatives
from mixedmodels.inference.ddf.variances import parameter_covariance
from mixedmodels.objective.lmm import LMMObjective
from mixedmodels.testing import random_design

# Schafer (1998), p. 15: nine subjects, six occasions (the figures of the paper belong to the value 2 of
# subject 1 at occasion 4)
_ = None
Y = [
    [16, 20, 16, 2, -6, -4],
    [12, 24, 12, -6, 4, -8],
    [8, 8, 26, -4, 4, 8],
    [20, 8, _, _, 20, -4],
    [8, 4, -8, _, 22, -8],
    [10, 20, 28, -20, -4, -4],
    [4, 28, 24, 12, 8, 18],
    [-8, 20, 24, -3, 8, -24],
    [_, 20, 24, 8, 12, _],
]


@pytest.fixture(scope="module")
def marijuana():
    rows = [(i, j, v) for i, line in enumerate(Y) for j, v in enumerate(line) if v is not None]
    subject, occasion, y = zip(*rows, strict=True)
    data = {"y": np.array(y, dtype=float), "occ": [f"o{j}" for j in occasion], "subject": list(subject)}
    return mm.lmm("y ~ 0 + occ + (1 | subject)", data)


def test_table_two_of_schafer(marijuana):
    """Interval half-widths of the paper. It takes the information of the likelihood, not of the restricted
    one, at the REML estimate; with it in place of ours the percentages are those printed."""
    fit = marijuana
    assert fit.sigma**2 == pytest.approx(100.185, abs=1e-3)
    table = fit.small_sample()
    b, plain, new = (table[name][6:] for name in ("estimate", "conditional", "std_error"))
    low = [-3.47, -3.64, -3.30, -3.07, -4.34, -3.87, -2.04, -4.25, -2.80]
    np.testing.assert_allclose(b - 2 * plain, low, atol=0.006)
    objective, factors = fit.objective, [np.array(factor) for factor in fit._factors]
    ml = LMMObjective(fit.design, objective.solver, reml=False)
    theirs = parameter_covariance(ml.joint_information(fit.theta, "observed"))[0][0, 0]
    ours = parameter_covariance(objective.joint_information(fit.theta, "observed"))[0][0, 0]
    _, (db,) = _derivatives(fit, factors)
    paper = np.sqrt(new**2 + db[0, :, 0] ** 2 * (theirs - ours))
    np.testing.assert_allclose(100 * (paper / plain - 1), [2, 9, 2, 22, 80, 28, 141, 72, 54], atol=0.6)
    np.testing.assert_allclose((b + 2 * paper)[[0, 4, 6, 8]], [3.39, 5.29, 9.52, 6.07], atol=0.015)
    assert (new > paper).all()


@pytest.mark.parametrize(
    "kind", ["one_slope", "crossed_slopes", "weights", "offset", "precision_slope", "shared"]
)
def test_derivatives_are_those_of_the_estimates(kind):
    """Central differences of beta and b in theta."""
    design = random_design(3, kind)
    from mixedmodels.solver.choose import choose_solver

    objective = LMMObjective(design, choose_solver(design))
    theta = objective.start + 0.1

    class Fit:
        pass

    fit = Fit()
    solution = objective.solution(theta)
    fit.design, fit.objective, fit.theta = design, objective, theta
    fit.solver = objective.solver
    fit.beta, fit._b = solution.beta, solution.b
    d_beta, d_b = _derivatives(fit, objective.factors(theta))
    for t in range(len(theta)):
        step = np.zeros(len(theta))
        step[t] = 1e-5
        up, down = objective.solution(theta + step), objective.solution(theta - step)
        np.testing.assert_allclose(d_beta[t], (up.beta - down.beta) / 2e-5, rtol=1e-5, atol=1e-6)
        for j, db in enumerate(d_b):
            np.testing.assert_allclose(db[t], (up.b[j] - down.b[j]) / 2e-5, rtol=1e-4, atol=1e-6)


def test_shapes_and_notes(marijuana):
    table = marijuana.small_sample()
    assert table.extra["vcov"].shape == (6, 6)
    assert table.extra["random"][0].shape == (9, 1, 1) and table.extra["random_fixed"][0].shape == (9, 1, 6)
    singular = mm.lmm(
        "Yield ~ 1 + (1 | Batch)", mm.load_dataset("Dyestuff2", backend="pandas")
    ).small_sample()
    assert "boundary" in singular.notes[-1]
    np.testing.assert_allclose(singular["std_error"][1:], 0.0, atol=1e-9)
