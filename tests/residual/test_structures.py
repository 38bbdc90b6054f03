"""Every structure against its dense matrix: operations, derivatives, traces, natural values."""

from __future__ import annotations

import numpy as np
import pytest

from mixedmodels.residual import (
    AR1,
    ARMA,
    CAR1,
    REGISTRY,
    Antedependence,
    CompoundSymmetry,
    Exponential,
    Function,
    Gaussian,
    GeneralCorrelation,
    Known,
    Linear,
    LogLinear,
    Matern,
    Quadratic,
    ResidualData,
    Spherical,
    Toeplitz,
    Unstructured,
    VarConstPower,
    VarConstProp,
    VarExp,
    VarFixed,
    VarIdent,
    VarPower,
    code_values,
)
from mixedmodels.testing import check_residual


def spd(m, seed=5):
    A = np.random.default_rng(seed).normal(size=(m, m))
    return A @ A.T + m * np.eye(m)


def nearly(phi):
    """A covariance over six occasions: AR(1) with growing variances."""
    rho = np.tanh(phi[0])
    sd = np.exp(phi[1] * np.arange(6) / 5)
    gap = np.abs(np.subtract.outer(np.arange(6), np.arange(6)))
    return rho**gap * sd * sd[:, None] + 0.1 * np.eye(6)


STRUCTURES = [
    AR1("t", "g"),
    AR1(None, "g"),
    AR1("t", "g", by="arm"),
    CAR1("s", "g"),
    CAR1("s", "g", by="arm"),
    ARMA("t", "g", p=1),
    ARMA("t", "g", q=1),
    ARMA("t", "g", p=2, q=1),
    ARMA(None, "g", p=1, q=2),
    ARMA("t", "g", p=3),
    CompoundSymmetry("g"),
    CompoundSymmetry("g", by="arm"),
    GeneralCorrelation("v", "g"),
    Unstructured("v", "g"),
    Toeplitz("v", "g"),
    Antedependence("v", "g"),
    Antedependence("v", "g", by="arm"),
    Exponential("x", "y", group="g"),
    Exponential("x", "y", group="g", nugget=True),
    Exponential("s", group="g"),
    Exponential("x", "y"),
    Gaussian("x", "y", group="g"),
    Gaussian("x", "y", group="g", nugget=True, metric="manhattan"),
    Linear("s", group="g"),
    Quadratic("x", "y", group="g", metric="maximum"),
    Quadratic("x", "y", group="g", nugget=0.2),
    Spherical("x", "y", group="g", nugget=True),
    Matern("x", "y", group="g"),
    Matern("x", "y", group="g", nugget=True, smoothness=1.5),
    Known(spd(7), "t", "g"),
    Known(spd(6), None, "g"),
    Function(nearly, [0.3, 0.2], "v", "g"),
    VarIdent("sex"),
    VarIdent("sex", by="f"),
    VarIdent("f", reference="1"),
    VarFixed("w"),
    VarPower("x"),
    VarPower("x", by="sex"),
    VarPower(),
    VarExp("x"),
    VarConstPower("x"),
    VarConstProp("x"),
    VarConstProp("x", by="f", const=0.5),
    LogLinear("x", "z"),
    AR1("t", "g") * VarIdent("sex"),
    AR1("t", "g") * VarIdent("sex") * VarPower("x"),
    CAR1("s", "g") * VarConstPower("x") * VarFixed("w"),
    CompoundSymmetry("g") * VarIdent("v"),
    ARMA("t", "g", p=1, q=1) * VarExp("z"),
    Exponential("x", "y", group="g", nugget=True) * VarConstProp("x"),
    Function(nearly, [0.3, 0.2], "v", "g") * VarIdent("sex"),
    VarPower("x") * VarPower("y"),
    AR1("t", "g", rho=0.4) * VarIdent("f", {"1": 2.0}),
]


@pytest.mark.parametrize("structure", STRUCTURES, ids=str)
def test_laws(structure, data):
    bound = structure.bind(data)
    # curves with corners or bends (lin, sph) are smooth between the distances only
    corner = "lin(" in str(structure) or "sph(" in str(structure)
    differences = "nearly" in str(structure)
    check_residual(bound, tol=1e-6 if corner or differences else 1e-8, step=1e-4 if corner else 1e-2)


@pytest.mark.parametrize("structure", STRUCTURES[::5], ids=str)
def test_laws_with_weights(structure, data):
    check_residual(structure.bind(data, weights=data.numbers["w"]), seed=3)


def test_every_structure_is_tested():
    tested = {part.tag for structure in STRUCTURES for part in structure.parts()}
    assert tested >= set(REGISTRY)


def test_general_correlation_by_stratum_needs_no_new_rows_of_pairs():
    """us by arm: separate correlations and standard deviations in each arm."""
    rng = np.random.default_rng(2)

    g, v = np.repeat(np.arange(12), 4), np.tile(np.arange(4), 12)
    keep = rng.random(48) < 0.85
    g, v = g[keep], v[keep]
    arm = np.where(g % 2 == 0, "a", "b")
    factors = {
        "g": code_values(g),
        "v": code_values(v),
        "arm": code_values(arm),
        "v:arm": code_values([f"{a}:{b}" for a, b in zip(v, arm, strict=True)]),
    }
    bound = Unstructured("v", "g", by="arm").bind(ResidualData(g.size, {}, factors))
    assert bound.n_phi == 2 * 6 + 7
    check_residual(bound)


@pytest.mark.parametrize(("p", "q"), [(1, 0), (0, 1), (2, 1), (1, 2), (0, 2), (3, 0), (2, 2)])
@pytest.mark.parametrize("further", [None, VarExp("x")], ids=["", "varexp"])
def test_bands_of_series_without_gaps(p, q, further, monkeypatch):
    """Long ARMA series take a form of their own; here short ones are made to."""
    monkeypatch.setattr("mixedmodels.residual.arma._LONG", 3)
    rng = np.random.default_rng(0)
    sizes = [9, 4, 1, 9, 17]
    g, t = np.repeat(np.arange(5), sizes), np.concatenate([np.arange(size) for size in sizes]).astype(float)
    order = rng.permutation(g.size)
    data = ResidualData(g.size, {"t": t[order], "x": rng.uniform(1, 2, g.size)}, {"g": code_values(g[order])})
    structure = ARMA("t", "g", p=p, q=q)
    bound = (structure if further is None else structure * further).bind(data)
    assert type(bound.correlation.at(bound.correlation.start)).__name__ == "SeriesPoint"
    check_residual(bound)


def test_bands_and_patterns_agree_on_long_series(monkeypatch):
    """Series of 400 rows, near the bounds of stationarity; a series with a gap goes by pattern."""
    g, t = np.repeat([0, 1], [400, 250]), np.concatenate([np.arange(400.0), np.arange(250.0)])
    data = ResidualData(650, {"t": t}, {"g": code_values(g)})
    structure = ARMA("t", "g", p=2, q=1)
    phi = np.array([1.8, -0.9, 0.7])
    M = np.random.default_rng(1).normal(size=(650, 2))
    bands = structure.bind(data).at(phi)
    monkeypatch.setattr("mixedmodels.residual.arma._LONG", 1000)
    patterns = structure.bind(data).at(phi)
    np.testing.assert_allclose(bands.logdet, patterns.logdet, rtol=1e-11)
    np.testing.assert_allclose(bands.whiten(M), patterns.whiten(M), rtol=1e-9, atol=1e-10)
    for name in ("trace", "trace_products", "trace_seconds"):
        one, other = getattr(bands, name), getattr(patterns, name)
        np.testing.assert_allclose(one, other, rtol=1e-8, atol=1e-8 * np.abs(other).max())
    for j in range(3):
        one, other = bands.change(j, M), patterns.change(j, M)
        np.testing.assert_allclose(one, other, rtol=1e-8, atol=1e-9 * np.abs(other).max())
    gap = ResidualData(649, {"t": np.delete(t, 5)}, {"g": code_values(np.delete(g, 5))})
    monkeypatch.setattr("mixedmodels.residual.arma._LONG", 150)
    assert type(structure.bind(gap).correlation.at(phi)).__name__ == "PatternPoint"


@pytest.mark.parametrize(
    "structure",
    [
        AR1("t", "g"),
        CAR1("t", "g"),
        CompoundSymmetry("g"),
        ARMA("t", "g", p=1, q=1),
        AR1("t", "g") * VarExp("x"),
    ],
    ids=str,
)
def test_long_series_form_no_matrix(structure):
    """1e5 rows in series of 50 000: a matrix of one series would take 20 GB."""
    n = 100_000
    g, t = np.repeat([0, 1], n // 2), np.tile(np.arange(n / 2), 2)
    data = ResidualData(n, {"t": t, "x": t / n}, {"g": code_values(g)})
    bound = structure.bind(data)
    phi = bound.start + 0.2
    point = bound.at(phi)
    M = np.random.default_rng(0).normal(size=(n, 1))
    np.testing.assert_allclose(point.unwhiten(point.whiten(M)), M, rtol=1e-9, atol=1e-9)
    # the gradient of log|R| is the trace; D is symmetric
    step = 1e-4
    for j in range(bound.n_phi):
        up, down = phi.copy(), phi.copy()
        up[j] += step
        down[j] -= step
        slope = (bound.at(up).logdet - bound.at(down).logdet) / (2 * step)
        assert point.trace[j] == pytest.approx(slope, rel=1e-6, abs=1e-4)
        other = np.roll(M, 1)
        assert np.vdot(other, point.change(j, M)) == pytest.approx(
            np.vdot(point.change(j, other), M), rel=1e-8, abs=1e-6
        )
