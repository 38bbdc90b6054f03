"""Two columns: a structure with two standard deviations and a correlation is a general covariance."""

from __future__ import annotations

import numpy as np
import pytest

import mixedmodels as mm

TAGS = ("cs", "toep")


def processes(seed):
    """Effects of occasions that are alike, or alternate: an intercept and a slope hardly describe them."""
    rng = np.random.default_rng(seed)
    m, T = int(rng.integers(8, 30)), 4
    rho = (-0.3, 0.7)[seed % 2]
    root = np.linalg.cholesky(rho + (1.0 - rho) * np.eye(T))
    g, t = np.repeat(np.arange(m), 2 * T), np.tile(np.repeat(np.arange(T), 2), m)
    u = (rng.standard_normal((m, T)) @ root.T)[g, t]
    x = rng.standard_normal(g.size)
    eta = 0.3 + 0.3 * x + 0.5 * u
    return {"x": x, "t": t, "g": g, "count": rng.poisson(np.exp(eta)), "y": eta + rng.standard_normal(g.size)}


@pytest.mark.parametrize("seed", [*range(12), 23, 24, 38])
@pytest.mark.parametrize("tag", TAGS)
def test_poisson(tag, seed):
    general, own = (
        mm.glmm(f"count ~ x + t + {term}", processes(seed), family="poisson")
        for term in ("(1 + t | g)", f"{tag}(1 + t | g)")
    )
    assert own.converged
    assert own.loglik == pytest.approx(general.loglik, abs=1e-6)


@pytest.mark.parametrize("seed", [*range(12), 23, 24, 38])
@pytest.mark.parametrize("tag", TAGS)
def test_gaussian(tag, seed):
    general, own = (
        mm.lmm(f"y ~ x + t + {term}", processes(seed)) for term in ("(1 + t | g)", f"{tag}(1 + t | g)")
    )
    assert own.converged
    assert own.loglik == pytest.approx(general.loglik, abs=1e-6)
