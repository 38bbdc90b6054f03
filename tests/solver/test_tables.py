"""Correlations from a table: the compiled pass against products of whitened columns, with derivatives."""

from __future__ import annotations

import numpy as np
import pytest

from mixedmodels.frame.build import build
from mixedmodels.objective.structured import StructuredObjective
from mixedmodels.residual.autoregression import (
    arma_autocorrelations,
    coefficients_of_partial,
    plain_autocorrelations,
)
from mixedmodels.residual.jets import constant, parameters
from mixedmodels.solver.profiled import ProfiledLevels, TableLevels

STRUCTURES = [
    "arma(t | g, p=1, q=1)",
    "arma(t | g, p=2, q=1)",
    "arma(t | g, q=2)",
    "gau(t | g, nugget=True)",
    "exp(u + v | g)",
    "mat(u + v | g)",
    "sph(u + v | g, nugget=True) * varpower(x)",
    "gau(u | g, nugget=True) * varident(s)",
    "gau(u | g, nugget=0.2) * varident(s)",
    "ratio(u + v | g) * varexp(x) * varident(s)",
]


def rows() -> dict[str, np.ndarray]:
    """Groups of 3 to 15 rows with gaps, in no order."""
    rng = np.random.default_rng(1)
    sizes = rng.integers(3, 16, 12)
    g = np.repeat(np.arange(12), sizes)
    t = np.concatenate([np.sort(rng.choice(30, size, replace=False)) for size in sizes])
    order = rng.permutation(len(g))
    g, t, n = g[order], t[order], len(g)
    return {
        "y": rng.standard_normal(n) + rng.standard_normal(12)[g],
        "x": rng.uniform(0.5, 3.0, n),
        "u": rng.uniform(0.0, 10.0, n),
        "v": rng.uniform(0.0, 10.0, n),
        "s": np.array(list("abc"))[rng.integers(0, 3, n)],
        "g": g,
        "t": t,
    }


@pytest.mark.parametrize("random", ["", " + (1 | g)", " + (x | g)"])
@pytest.mark.parametrize("structure", STRUCTURES)
def test_against_whitened_columns(structure, random):
    frame = build(f"y ~ x{random}", rows(), residual=structure)
    objective = StructuredObjective(frame.design)
    engine = objective.compiled
    assert isinstance(engine, TableLevels)
    rng = np.random.default_rng(2)
    psi = objective.start + 0.1 * rng.standard_normal(objective.n_theta)
    theta, phi = objective.split(psi)
    wide = engine.wide(objective._map.factors(theta), objective._map.directions(theta))
    one, other = engine._found(*wide, phi, 2), ProfiledLevels._found(engine, *wide, phi, 2)
    for name in ("logdet", "logdet_XX", "pwrss", "first", "second", "S1", "T", "S", "gamma"):
        expected = np.asarray(getattr(other, name))
        np.testing.assert_allclose(
            getattr(one, name),
            expected,
            rtol=1e-11,
            atol=1e-12 * np.abs(expected).max(initial=0.0),
            err_msg=name,
        )
    value = engine._found(*wide, phi, 0)
    np.testing.assert_allclose(value.logdet, other.logdet, rtol=1e-12)
    np.testing.assert_allclose(value.pwrss, other.pwrss, rtol=1e-12)


@pytest.mark.parametrize(("p", "q"), [(1, 0), (0, 1), (1, 1), (2, 1), (1, 3), (3, 2)])
def test_plain_autocorrelations(p, q):
    phi = np.random.default_rng(10 * p + q).uniform(-1.0, 1.0, p + q)
    t = parameters(phi).tanh()
    a = coefficients_of_partial(t[:p]) if p else constant(np.zeros(0), q)
    b = -coefficients_of_partial(-t[p:]) if q else constant(np.zeros(0), p)
    for largest in (0, 1, 20):
        plain = plain_autocorrelations(t.value[:p].tolist(), t.value[p:].tolist(), largest)
        np.testing.assert_allclose(plain, arma_autocorrelations(a, b, largest).value, rtol=1e-12, atol=1e-14)
