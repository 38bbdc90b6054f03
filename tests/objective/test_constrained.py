"""Second derivatives of what equations bind: natural parameters, their differences, covariances."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mixedmodels.covariance import make_covariance
from mixedmodels.covariance.structured import CurvedCovariance, ScaledCorrelation
from mixedmodels.fit.equations import _names, equations_of
from mixedmodels.fit.solve import Options, make_frame
from mixedmodels.inference.profile.held_restricted import _Sigma
from mixedmodels.objective.constrained import bending
from mixedmodels.objective.lmm import LMMObjective
from mixedmodels.objective.natural import NaturalObjective
from mixedmodels.objective.structured import StructuredObjective
from mixedmodels.objective.unprofiled import UnprofiledCriterion
from mixedmodels.solver.choose import choose_solver

EIGHTH = ((1, 4.0 / 5.0), (2, -1.0 / 5.0), (3, 4.0 / 105.0), (4, -1.0 / 280.0))
STEP = 2e-3


def along(function, x):
    """Derivatives of a vector function by differences of eighth order, one row for each entry of x."""
    out = []
    for j in range(len(x)):
        step = np.eye(len(x))[j] * STEP
        out.append(sum(w * (function(x + m * step) - function(x - m * step)) for m, w in EIGHTH) / STEP)
    return np.array(out)


@pytest.fixture(scope="module")
def columns():
    rng = np.random.default_rng(5)
    g, t = np.repeat(np.arange(15), 4), np.tile(np.arange(4), 15)
    out = {"g": g, "t": t, "f": np.array(list("abcd"))[t], "x": rng.normal(size=60), "s": g % 2}
    return out | {"y": rng.normal(size=60) + rng.normal(size=15)[g]}


MODELS = [
    ("y ~ 1 + (x | g)", "ar1(t | g) * varident(s)"),
    ("y ~ 1 + cs(0 + f | g)", "varconstpower(t, by=s)"),
    ("y ~ 1 + (1 | g) + ar1(0 + f | s)", "us(f | g)"),
    ("y ~ 1 + car1(0 + t | g)", "arma(t | g, p=2, q=1)"),
]


@pytest.mark.parametrize(("formula", "residual"), MODELS)
def test_curvature_of_everything_that_has_a_name(formula, residual, columns):
    columns = columns | {"t": columns["t"] + 1.0}
    design = make_frame(formula, columns, Options(residual=residual)).design
    objective = StructuredObjective(design, True)
    rng = np.random.default_rng(1)
    psi = objective.start + rng.uniform(0.1, 0.3, objective.n_theta)
    y = np.append(psi, 0.2)
    functions = [named.function for named in _names(design, tuple(objective.names)).values()]
    for function in (*functions, _Sigma(len(psi))):
        curvature = function.curvature(psi, 0.2)
        expected = along(lambda z, f=function: f(z[:-1], z[-1])[1], y)
        assert np.abs(curvature - expected).max() < 1e-9 * max(1.0, np.abs(expected).max())


def test_bending_of_equations(columns):
    design = make_frame("y ~ 1 + (x | g)", columns, Options(residual="ar1(t | g, by=s)")).design
    objective = StructuredObjective(design, True)
    equations = equations_of(
        design,
        tuple(objective.names),
        {"cor_x.(Intercept)|g": 0.0, "sd_x|g": 0.4},
        [["rho[0]", "rho[1]"]],
    )
    whole = UnprofiledCriterion(objective, equations.signed)
    y = np.append(objective.start + 0.2, 0.1)
    multipliers = np.array([0.3, -1.2, 0.7])
    expected = along(lambda z: multipliers @ equations.at(whole.psi(z), whole.tau(z))[1], y)
    found = bending(whole, equations, y, multipliers)
    assert np.abs(found).max() > 0.1
    assert np.abs(found - expected).max() < 1e-9


@pytest.mark.parametrize("sigma", [None, 0.8])
@pytest.mark.parametrize("formula", ["y ~ 1 + (x | g)", "y ~ 1 + (1 | s) + toep(0 + f | g)"])
def test_natural_coordinates_bend_exactly(formula, sigma, columns):
    design = make_frame(formula, columns, Options(sigma=sigma)).design
    solver = choose_solver(design)
    objective = LMMObjective(design, solver, True, sigma)
    theta = np.linspace(0.3, 0.7, objective.n_theta)
    terms = [len(design.terms) - 1]
    natural = NaturalObjective(objective, theta, terms)
    phi = natural.start
    at, tau = natural.point(phi)
    _, g, H = natural._second(at, tau, True)
    moves = natural._moves(at, tau)
    exact = moves.T @ H @ moves + natural._bending(at, tau, moves, g)
    expected = along(lambda z: natural.value_and_gradient(z)[1], phi)
    assert np.abs(exact - expected).max() < 1e-7 * np.abs(expected).max()


def test_structures_that_do_not_write_it_take_differences():
    written = make_covariance("hetar1", 3, times=[1, 2, 4])
    theta, weights = np.array([0.7, 1.1, 0.9, 0.4]), np.array([0.3, 0.0, 1.0, -2.0])
    exact = written.natural_curvature(theta, weights, 1.3)
    assert isinstance(written, ScaledCorrelation)
    assert exact[3, 3] == pytest.approx(2.0 * math.sin(0.4), rel=1e-14)
    found = CurvedCovariance.natural_curvature(written, theta, weights, 1.3)
    assert np.abs(found - exact).max() < 1e-10


def test_standard_deviations_of_zero():
    us = make_covariance("us", 2)
    theta = np.array([0.5, 0.0, 0.0])
    assert not us.natural_curvature(theta, np.array([0.0, 1.0, 0.0])).any()
    assert np.isnan(us.natural_curvature(theta, np.array([0.0, 0.0, 1.0]))).all()
