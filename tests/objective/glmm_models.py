"""Small generalised models for the tests of their objectives."""

from __future__ import annotations

import numpy as np

import mixedmodels as mm
from mixedmodels.fit.glmm import GLMMOptions, glmm_objective, make_glmm_frame

CBPP = "incidence ~ period + (1 | herd)"


def cbpp_data():
    return mm.load_dataset("cbpp", "pandas")


def cbpp_fit(**options):
    return mm.glmm(CBPP, cbpp_data(), **{"family": "binomial", "trials": "size", **options})


def objective_of(formula, data, **options):
    options = GLMMOptions(**options)
    return glmm_objective(make_glmm_frame(formula, data, options), options)


def cbpp_objective(**options):
    return objective_of(CBPP, cbpp_data(), **{"family": "binomial", "trials": "size", **options})


def binary_data(seed=1, groups=20, per_group=10, sd=0.8, slope=0.4):
    rng = np.random.default_rng(seed)
    n = groups * per_group
    g = np.repeat(np.arange(groups), per_group)
    x = rng.normal(size=n)
    b = rng.normal(size=(groups, 2)) * [sd, slope]
    eta = 0.3 + 0.5 * x + b[g, 0] + b[g, 1] * x
    return {
        "y": (rng.random(n) < 1.0 / (1.0 + np.exp(-eta))).astype(float),
        "c": rng.poisson(np.exp(0.5 * eta)).astype(float),
        "x": x,
        "t": np.where(np.arange(n) % 4 == 0, "b", "a"),
        "g": np.array([f"g{i:02d}" for i in g]),
    }


def differences(f, x, h=1e-5):
    """Central differences of fourth order, shape (..., len(x))."""
    out = []
    for e in np.eye(len(x)) * h:
        out.append((8.0 * (f(x + e) - f(x - e)) - f(x + 2 * e) + f(x - 2 * e)) / (12.0 * h))
    return np.array(out)
