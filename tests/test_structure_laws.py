"""Laws of fits with structures: models that are one model, units, origins, orders of rows and levels."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import mixedmodels as mm


@pytest.fixture(scope="module")
def data():
    """Series of 6 times in 40 groups with gaps, AR(1) errors, two variances, a crossed factor."""
    r = np.random.default_rng(0)
    G, T = 40, 6
    g, t = np.repeat(np.arange(G), T), np.tile(np.arange(T), G)
    n = g.size
    L = np.linalg.cholesky(0.6 ** np.abs(np.subtract.outer(np.arange(T), np.arange(T))))
    s = np.where(g % 2, "A", "B")
    e = (r.normal(size=(G, T)) @ L.T).ravel() * np.where(s == "A", 1.6, 1.0)
    x = r.normal(size=n)
    frame = pd.DataFrame({"y": 1 + 0.5 * x + 0.7 * r.normal(size=G)[g] + e, "x": x, "g": g, "t": t, "s": s})
    frame = frame.assign(
        h=r.integers(0, 9, n),
        v=t.astype(str),
        w=0.5 + r.random(n),
        u=t + 0.2 * r.random(n),
        year=2000 + t,
        a=(s == "A").astype(float),
    )
    return frame[r.random(n) < 0.9].reset_index(drop=True)


def fit(data, formula, residual=None, **options):
    call = mm.lmm if "|" in formula else mm.gls
    found = call(formula, data, residual=residual, **options)
    assert found.converged
    return found


V = 0.5 ** np.abs(np.subtract.outer(np.arange(6), np.arange(6)))
KNOWN = mm.residual.Known(V, occasion="t", group="g")
IDENTITY = mm.residual.Known(np.eye(6), occasion="t", group="g")
INTERCEPT = "y ~ x + (1 | g)"

SAME = {
    "autoregressions": [
        ("y ~ x", r) for r in ("ar1(t | g)", "car1(t | g)", "exp(t | g)", "arma(t | g, p=1)", "ar1(year | g)")
    ],
    "autoregressions and effects": [(INTERCEPT, r) for r in ("ar1(t | g)", "car1(year | g)", "exp(t | g)")],
    "compound symmetry": [("y ~ x", "cs(1 | g)"), (INTERCEPT, None)],
    "variances by visit": [("y ~ x", "corr(v | g) * varident(v)"), ("y ~ x", "us(v | g)")],
    "two variances": [(INTERCEPT, r) for r in ("varident(s)", "varexp(a)", "loglin(a)")],
    "identity": [(INTERCEPT, None), (INTERCEPT, IDENTITY)],
    "known correlation": [("y ~ x + (1 | h)", "ar1(t | g, rho=0.5)"), ("y ~ x + (1 | h)", KNOWN)],
}


@pytest.mark.parametrize("name", SAME)
@pytest.mark.parametrize("reml", [True, False])
def test_one_model_written_in_several_ways(data, name, reml):
    values = [fit(data, formula, residual, reml=reml).loglik for formula, residual in SAME[name]]
    np.testing.assert_allclose(values, values[0], rtol=1e-9)


def test_structures_of_two_visits_are_one(data):
    two = data[data.t < 2]
    texts = ["cs(1 | g)", "ar1(t | g)", *(f"{tag}(v | g)" for tag in ("corr", "toep", "ad"))]
    values = [fit(two, "y ~ x", text).loglik for text in texts]
    np.testing.assert_allclose(values, values[0], rtol=1e-9)


@pytest.mark.parametrize(
    ("term", "residual"),
    [("ar1(t | g)", "ar1(t | g)"), ("(0 + v | g)", "us(v | g)"), ("ad(0 + v | g)", None)],
)
def test_hard_case_52_random_effects_become_residuals_as_sigma_vanishes(data, term, residual):
    """Random effects of visits and a tiny sigma; ``ad`` as a residual has one variance, with varident all."""
    residual = residual or "ad(v | g) * varident(v)"
    effects = fit(data, f"y ~ x + {term}", sigma=1e-4)
    assert effects.loglik == pytest.approx(fit(data, "y ~ x", residual).loglik, rel=1e-6)


CASES = [
    (INTERCEPT, "ar1(t | g) * varident(s)"),
    ("y ~ x + (1 | g) + (1 | h)", "ar1(t | g) * varident(s)"),
    ("y ~ x + (1 | h)", "exp(u | g, nugget=True)"),
    ("y ~ x + (x | g)", "arma(t | g, p=1, q=1)"),
    ("y ~ x + ar1(t | h)", "varexp(w)"),
]


@pytest.mark.parametrize(("formula", "residual"), CASES)
def test_units_origins_and_orders(data, formula, residual):
    """Hard cases 3 and 4: rows and levels in any order, y scaled and shifted, x on calendar years."""
    one = fit(data, formula, residual, reml=False)
    new = dict(enumerate(np.random.default_rng(1).permutation(40)))
    moved = data.sample(frac=1, random_state=3).assign(g=lambda d: d.g.map(new))
    assert fit(moved, formula, residual, reml=False).loglik == pytest.approx(one.loglik, rel=1e-9)
    scaled = fit(data.assign(y=1e5 * data.y + 1e8), formula, residual, reml=False)
    assert scaled.loglik + len(data) * np.log(1e5) == pytest.approx(one.loglik, rel=1e-8)
    years = data.assign(x=2000 + 1e-3 * data.x)
    assert fit(years, formula, residual, reml=False).loglik == pytest.approx(one.loglik, rel=1e-8)


def test_hard_case_03_degrees_of_freedom_do_not_depend_on_the_origin(data):
    formula, residual = "y ~ x + (x | g)", "ar1(t | g)"
    df = [
        fit(data.assign(x=shift + data.x), formula, residual).coefficients().columns["df"][1]
        for shift in (0.0, 2000.0)
    ]
    assert df[1] == pytest.approx(df[0], rel=1e-5)


def test_random_effects_leave_zero_by_a_correlation_the_start_has_not():
    """Positive at the start, negative at the maximum: zero variance is a saddle point, not the end."""
    r = np.random.default_rng(4)
    g, t = np.repeat(np.arange(40), 6), np.tile(np.arange(6), 40)
    wave = 0.8 * r.normal(size=40)[g] * np.where(t % 2, -1.0, 1.0)
    data = {"y": wave + r.normal(size=240), "g": g, "t": t}
    free = fit(data, "y ~ 1 + ar1(t | g)")
    zero = fit(data, "y ~ 1 + ar1(t | g)", start=[0.0, 0.9])
    assert zero.loglik == pytest.approx(free.loglik, rel=1e-8)
    structured = fit(data, "y ~ 1 + ar1(t | g)", "varexp(t)")
    assert structured.loglik >= free.loglik - 1e-6
