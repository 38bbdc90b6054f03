"""The grouped solver against known answers, laws, and the dense reference solver."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from mixedmodels.solver._kernels.grouped import GroupedEvaluator, GroupedLevels

from mixedmodels.covariance import make_covariance
from mixedmodels.design import Design, RandomTerm
from mixedmodels.errors import SolverError
from mixedmodels.solver.dense import DenseSolver
from mixedmodels.solver.grouped import GroupedSolver
from mixedmodels.testing.checks import assert_close, check_solver, check_solver_on, random_directions
from mixedmodels.testing.designs import SINGLE_FACTOR_KINDS, random_design, random_factors, random_theta


def make_design(n, m, k=1, p=2, tag="us", seed=0, balanced=False, weights=False):
    """y ~ x1 + ... + x_{p-1} + (1 + x1 + ... + x_{k-1} | g)."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, max(p, k)))
    codes = rng.integers(0, m, n)
    if balanced:
        codes = np.repeat(np.arange(m), n // m)
        x = np.tile(x[: n // m], (m, 1))
    ones = np.ones((n, 1))
    X = np.hstack([ones, x[:, : max(p - 1, 0)]])[:, :p]
    Z = np.hstack([ones, x[:, : k - 1]]) if k > 1 else None
    b = rng.normal(size=(m, k))
    y = X.sum(axis=1) + rng.normal(size=n) + ((ones if Z is None else Z) * b[codes]).sum(axis=1)
    term = RandomTerm(
        "g", tuple(f"z{j}" for j in range(k)), codes.astype(np.int32), range(m), Z, make_covariance(tag, k)
    )
    w = rng.uniform(0.2, 3.0, n) if weights else None
    return Design(y, X, tuple(f"x{j}" for j in range(p)), (term,), None, w)


def factors_at(design, theta):
    """Relative factors of all terms at the free parameters theta."""
    index = design.theta_index
    index = np.arange(sum(t.covariance.n_theta for t in design.terms)) if index is None else np.asarray(index)
    out, at = [], 0
    for term in design.terms:
        out.append(term.covariance.factor(np.asarray(theta)[index[at : at + term.covariance.n_theta]]))
        at += term.covariance.n_theta
    return out


def criterion(design, theta, reml, sigma=None):
    """The criterion from the dense reference solver."""
    c = DenseSolver(design).components(factors_at(design, theta), 0, None, reml)
    nu = design.n - design.p if reml else design.n
    value = c.logdet_L2 + (c.logdet_RX2 if reml else 0.0)
    if design.weights is not None:
        value -= np.log(design.weights).sum()
    if sigma is not None:
        return value + nu * math.log(2.0 * math.pi * sigma**2) + c.pwrss / sigma**2
    return value + nu * (1.0 + math.log(2.0 * math.pi * c.pwrss / nu))


# ---------------------------------------------------------------------------------------- known answers
def test_balanced_one_way_layout_has_the_anova_solution():
    rng = np.random.default_rng(1)
    m, size = 8, 5
    design = replace(make_design(m * size, m, p=1, balanced=True), y=0.0 + rng.normal(size=m * size))
    y = design.y.reshape(m, size) + rng.normal(size=(m, 1))
    design = replace(design, y=y.ravel())
    ms_between = size * y.mean(axis=1).var(ddof=1)
    ms_within = y.var(axis=1, ddof=1).mean()
    theta = math.sqrt((ms_between - ms_within) / (size * ms_within))
    solver = GroupedSolver(design)
    assert "1 class of identical blocks" in solver.describe()
    inside = np.linalg.solve(solver.theta_map, [theta])
    _, gradient, _ = solver.evaluator_for(True).value_gradient_hessian(inside)
    assert abs(gradient[0]) < 1e-9
    solution = solver.solution([np.array([[theta]])])
    assert solution.pwrss / (m * size - 1) == pytest.approx(ms_within, rel=1e-12)
    assert solution.beta[0] == pytest.approx(y.mean(), rel=1e-12)
    shrink = 1.0 - ms_within / ms_between
    np.testing.assert_allclose(solution.b[0][:, 0], shrink * (y.mean(axis=1) - y.mean()), rtol=1e-11)
    np.testing.assert_allclose(
        solver.conditional_covariance([np.array([[theta]])], 0).ravel(), theta**2 / (1.0 + size * theta**2)
    )


def test_zero_factor_is_least_squares():
    design = make_design(60, 6, k=2)
    beta, rss, _, _ = np.linalg.lstsq(design.X, design.y, rcond=None)
    solver = GroupedSolver(design)
    solution = solver.solution([np.zeros((2, 2))])
    np.testing.assert_allclose(solution.beta, beta, rtol=1e-12)
    assert solution.pwrss == pytest.approx(rss[0], rel=1e-12)
    assert solution.logdet_L2 == 0.0


# ---------------------------------------------------------------------------------------- dense reference
@pytest.mark.parametrize("kind", SINGLE_FACTOR_KINDS)
def test_agrees_with_the_dense_solver(kind):
    check_solver(GroupedSolver, [kind], seeds=(0, 1, 2))


@pytest.mark.parametrize("kind", SINGLE_FACTOR_KINDS)
@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("sigma", [None, 0.7])
def test_evaluator_follows_from_theta(kind, reml, sigma):
    """Value, gradient and Newton matrix in internal coordinates, mapped by C, as the dense solver."""
    design = random_design(5, kind)
    solver = GroupedSolver(design)
    evaluator = solver.evaluator_for(reml, sigma)
    C = solver.theta_map
    for singular in (False, True):
        theta = random_theta(design, 5, singular)
        value, gradient, hessian = evaluator.value_gradient_hessian(np.linalg.solve(C, theta))
        assert value == pytest.approx(criterion(design, theta, reml, sigma), rel=1e-10)
        assert np.linalg.eigvalsh(hessian)[0] >= -1e-9 * np.abs(hessian).max()
        # gradient from the dense components: 2 sum (M factor) over the entries of each parameter
        factors = factors_at(design, theta)
        nu = solver.nu(reml)
        expected = np.zeros(len(theta))
        index = np.arange(len(theta)) if design.theta_index is None else np.asarray(design.theta_index)
        c = DenseSolver(design).components(factors, 1, None, reml)
        scale = nu / c.pwrss if sigma is None else 1.0 / sigma**2
        at = 0
        for term, factor, T, S in zip(design.terms, factors, c.T, c.S, strict=True):
            D = 2.0 * (T - scale * S) @ factor
            for row, column, parameter in term.covariance.entries:
                expected[index[at + parameter]] += D[row, column]
            at += term.covariance.n_theta
        assert_close(gradient, C.T @ expected, 1e-8, f"gradient {kind}", atol=1e-8)


@pytest.mark.parametrize(
    "k,tag", [(1, "us"), (2, "us"), (3, "diag"), (5, "homdiag"), (6, "us"), (18, "diag")]
)
@pytest.mark.parametrize("p", [0, 1, 12, 17])
def test_all_widths(k, tag, p):
    design = make_design(150, 11, k, p, tag, seed=k + p, weights=p == 1)
    check_solver_on(GroupedSolver(design), design, 0, 1e-8, f"k={k} {tag} p={p}")


@pytest.mark.parametrize("k,p", [(1, 0), (1, 3), (2, 2), (3, 1), (5, 3)])
def test_pooled_streamed_and_mixed_agree(k, p):
    """Identical blocks form classes, levels of another size stay on their own: the sums are the same."""
    base = make_design(40 * 12, 40, k, p, seed=3, balanced=True)
    keep = np.ones(base.n, dtype=bool)
    keep[:7] = False  # the first levels lose rows: blocks of their own
    keep[12:15] = False
    term = base.terms[0]
    terms = (replace(term, codes=term.codes[keep], Z=None if term.Z is None else term.Z[keep]),)
    design = replace(base, y=base.y[keep], X=base.X[keep], terms=terms)
    solver = GroupedSolver(design)
    assert solver.levels.n_classes == 1
    assert solver.levels.n_streamed == 2
    check_solver_on(solver, design, 1, 1e-9, "mixed")
    streamed = GroupedLevels(solver.pack.factors[0].A, solver.pack.factors[0].ZXy, solver.pack.G, pool=False)
    assert streamed.n_streamed == 40
    working = solver._working_evaluator(True)
    entries = [(0, i, j, t) for t, (j, i) in enumerate((j, i) for j in range(k) for i in range(j, k))]
    other = GroupedEvaluator([k], entries, [(0, 0, k, 0)], p, float(solver.nu(True)), True, levels=streamed)
    factors = random_factors(design, 2)
    lam = solver._lam(factors)
    dS = solver._dS(random_directions(design, 2, 3))
    if k == 1:
        dS = dS[:1]
    a, b = working.components_at(lam, dS, 2), other.components_at(lam, dS, 2)
    for key in a:
        assert_close(a[key], b[key], 1e-11, key)


def test_pooling_survives_the_order_of_rows():
    """The rows of each level in another order: last bits of sums differ, the classes are found."""
    base = make_design(30 * 8, 30, 2, 2, seed=4, balanced=True)
    order = np.concatenate([8 * l + np.random.default_rng(l).permutation(8) for l in range(30)])
    term = base.terms[0]
    design = replace(
        base,
        y=base.y[order],
        X=base.X[order],
        terms=(replace(term, codes=term.codes[order], Z=term.Z[order]),),
    )
    solver = GroupedSolver(design)
    assert solver.levels.n_classes >= 1
    assert solver.levels.pooled_levels >= 20
    factors = random_factors(design, 0)
    expected = DenseSolver(base).components(factors, 1)
    actual = solver.components(factors, 1)
    assert actual.pwrss == pytest.approx(expected.pwrss, rel=1e-11)
    assert_close(actual.T[0], expected.T[0], 1e-11, "T")


@pytest.mark.parametrize("kind", SINGLE_FACTOR_KINDS)
@pytest.mark.parametrize("reml", [True, False])
def test_trace_products(kind, reml):
    design = random_design(2, kind)
    directions = random_directions(design, 1, 4)
    for singular in (False, True):
        factors = random_factors(design, 3, singular)
        actual = GroupedSolver(design).trace_products(factors, directions, reml)
        expected = DenseSolver(design).trace_products(factors, directions, reml)
        assert_close(actual[0], expected[0], 1e-9, "tr(K dS K dS)")
        assert_close(actual[1], expected[1], 1e-9, "tr(K dS)")


def test_more_directions_than_parameters():
    design = make_design(60, 6, 1, 2)
    factors = random_factors(design, 0)
    directions = random_directions(design, 0, 3)
    actual = GroupedSolver(design).components(factors, 2, directions)
    assert_close(actual.wpw, DenseSolver(design).components(factors, 2, directions).wpw, 1e-10, "wpw")


# ---------------------------------------------------------------------------------------- laws
def components_of(design, factors, reml=True):
    return GroupedSolver(design).components(factors, 1, None, reml)


@pytest.mark.parametrize("reml", [True, False])
def test_rows_and_levels_in_any_order(reml):
    design = make_design(200, 15, 2, 3)
    factors = random_factors(design, 1)
    base = components_of(design, factors, reml)
    rng = np.random.default_rng(0)
    order, relabel = rng.permutation(200), rng.permutation(15).astype(np.int32)
    term = design.terms[0]
    other = replace(
        design,
        y=design.y[order],
        X=design.X[order],
        terms=(replace(term, codes=relabel[term.codes[order]], Z=term.Z[order]),),
    )
    actual = components_of(other, factors, reml)
    for name in ("logdet_L2", "logdet_RX2", "pwrss"):
        assert getattr(actual, name) == pytest.approx(getattr(base, name), rel=1e-12)
    assert_close(actual.S[0], base.S[0], 1e-11, "S")


def test_repeated_rows_are_weight_two():
    design = make_design(90, 9, 2, 2)
    weighted = replace(design, weights=np.full(90, 2.0))
    twice = np.repeat(np.arange(90), 2)
    term = design.terms[0]
    doubled = replace(
        design,
        y=design.y[twice],
        X=design.X[twice],
        terms=(replace(term, codes=term.codes[twice], Z=term.Z[twice]),),
    )
    factors = random_factors(design, 2)
    a, b = components_of(weighted, factors), components_of(doubled, factors)
    for name in ("logdet_L2", "logdet_RX2", "pwrss"):
        assert getattr(a, name) == pytest.approx(getattr(b, name), rel=1e-12)
    assert_close(a.T[0], b.T[0], 1e-12, "T")


def test_offset_is_a_shifted_response():
    design = make_design(90, 9, 2, 2)
    offset = np.linspace(-1.0, 5.0, 90) * 1e3
    a = components_of(replace(design, offset=offset), random_factors(design, 2))
    b = components_of(replace(design, y=design.y - offset), random_factors(design, 2))
    assert a.pwrss == pytest.approx(b.pwrss, rel=1e-12)


def minimum(design, reml, steps=60):
    """Minimum of the criterion by damped Newton steps in internal coordinates."""
    solver = GroupedSolver(design)
    evaluator = solver.evaluator_for(reml)
    theta = solver.start_internal()
    value, g, H = evaluator.value_gradient_hessian(theta)
    for _ in range(steps):
        step = np.linalg.lstsq(H, g, rcond=1e-12)[0]
        scale = 1.0
        while True:
            trial = evaluator.value_gradient_hessian(theta - scale * step)
            if trial[0] <= value + 1e-12 * abs(value) or scale < 1e-6:
                break
            scale /= 2.0
        theta, (value, g, H) = theta - scale * step, trial
        if abs(g @ step) < 1e-13:
            break
    return value, solver, theta


@pytest.mark.parametrize(
    "change",
    [lambda x: 2000.0 + x, lambda x: 1.7e9 + x, lambda x: 1e6 * x, lambda x: 1e-12 * x],
    ids=["year", "seconds", "large", "small"],
)
@pytest.mark.parametrize("reml", [True, False])
def test_the_optimum_does_not_depend_on_the_coordinates_of_x(change, reml):
    rng = np.random.default_rng(11)
    m, size = 18, 10
    days = np.tile(np.arange(10.0), m)
    codes = np.repeat(np.arange(m), size).astype(np.int32)
    y = (
        250.0
        + 10.0 * days
        + (25.0 + 6.0 * days) * rng.normal(size=m)[codes]
        + 5.0 * days * rng.normal(size=m)[codes]
    )
    y += 25.0 * rng.normal(size=m * size)

    def at(x):
        X = np.column_stack([np.ones(m * size), x])
        term = RandomTerm("g", ("a", "b"), codes, range(m), X, make_covariance("us", 2))
        return Design(y, X, ("a", "b"), (term,))

    base, _, _ = minimum(at(days), reml)
    value, solver, theta = minimum(at(change(days)), reml)
    if reml:  # log|X'X| depends on the unit of x, not on its origin
        base += 2.0 * math.log(change(days)[1] - change(days)[0])
    assert value == pytest.approx(base, rel=1e-11)
    assert np.isfinite(solver.theta_map @ theta).all()


def test_the_optimum_does_not_depend_on_the_coordinates_of_y():
    design = make_design(150, 12, 2, 2, seed=8)
    design = replace(design, y=np.round(design.y * 64.0) / 64.0)
    base, _, theta = minimum(design, True)
    shifted, _, theta1 = minimum(replace(design, y=design.y + 2.0**33), True)
    scaled, _, theta2 = minimum(replace(design, y=design.y * 2.0**33), True)
    assert shifted == pytest.approx(base, rel=1e-12)
    assert scaled == pytest.approx(base + 2.0 * (150 - 2) * 33.0 * math.log(2.0), rel=1e-12)
    np.testing.assert_allclose(theta1, theta, atol=1e-7)
    np.testing.assert_allclose(theta2, theta, atol=1e-7)


# ---------------------------------------------------------------------------------------- hard cases
def test_one_level_holds_nearly_all_rows():  # hard case 55
    n, m = 20000, 40
    design = make_design(n, m, 2, 2, seed=12)
    codes = np.zeros(n, dtype=np.int32)
    codes[-200:] = np.arange(200) % m
    design = replace(design, terms=(replace(design.terms[0], codes=codes),))
    factor = np.array([[300.0, 0.0], [-299.0, 0.5]])
    # the same numbers from the rows of each level: Woodbury in extended precision is not needed at this size
    solver = GroupedSolver(design)
    c = solver.components([factor], 1)
    T = np.zeros((2, 2))
    logdet = 0.0
    XVX, XVZ = np.zeros((2, 2)), []
    for level in range(m):
        rows = codes == level
        Q, R = np.linalg.qr(design.terms[0].Z[rows])
        E = np.eye(len(R)) + R @ factor @ factor.T @ R.T
        logdet += np.linalg.slogdet(E)[1]
        K = R.T @ np.linalg.solve(E, R)
        X = design.X[rows]
        QX = Q.T @ X
        XVX += (X - Q @ QX).T @ (X - Q @ QX) + QX.T @ np.linalg.solve(E, QX)
        XVZ.append(R.T @ np.linalg.solve(E, QX))
        T += K
    T -= sum(W @ np.linalg.solve(XVX, W.T) for W in XVZ)
    assert c.logdet_L2 == pytest.approx(logdet, rel=1e-11)
    assert c.logdet_RX2 == pytest.approx(np.linalg.slogdet(XVX)[1], rel=1e-9)
    assert_close(c.T[0], T, 1e-7, "T")


def test_levels_with_fewer_rows_than_columns():
    design = make_design(60, 40, 3, 2, seed=13)
    check_solver_on(GroupedSolver(design), design, 0, 1e-9, "few rows")


def test_levels_without_rows():
    design = make_design(60, 5, 2, 2, seed=14)
    term = replace(design.terms[0], levels=range(8))
    design = replace(design, terms=(term,))
    check_solver_on(GroupedSolver(design), design, 0, 1e-9, "empty levels")


@pytest.mark.parametrize("size", [1e5, 1e7, 1e10, 1e100])
def test_enormous_factors(size):
    """log|V| of a random intercept is sum log(1 + theta^2 n_l) for any theta; nothing overflows."""
    design = make_design(120, 9, 1, 2, seed=15)
    counts = np.bincount(design.terms[0].codes, minlength=9)
    c = GroupedSolver(design).components([np.array([[size]])], 1)
    assert c.logdet_L2 == pytest.approx(np.log1p(size**2 * counts).sum(), rel=1e-13)
    assert np.isfinite(c.pwrss) and np.isfinite(c.T[0]).all()
    if size < 1e8:  # a singular factor: the second pivot is 1, not the rounding of size^2
        counts = np.bincount(make_design(120, 9, 2, 2, seed=15).terms[0].codes, minlength=9)
        c = GroupedSolver(make_design(120, 9, 2, 2, seed=15)).components([np.diag([size, 0.0])], 1)
        assert c.logdet_L2 == pytest.approx(np.log1p(size**2 * counts).sum(), rel=1e-11)


def test_many_levels_and_threads_agree_with_pooling():
    """2e5 levels and more are streamed by threads in fixed chunks; pooling the same blocks gives the same."""
    rng = np.random.default_rng(16)
    m = 210_000
    kinds = rng.normal(size=(4, 2, 2))
    A = (kinds @ kinds.transpose(0, 2, 1))[rng.integers(0, 4, m)]
    ZXy = rng.normal(size=(m, 2, 3))
    t = np.linalg.solve(A, ZXy)
    G = np.eye(3) * m + np.einsum("maj,mak->jk", ZXy, t)
    entries, clips = [(0, 0, 0, 0), (0, 1, 0, 1), (0, 1, 1, 2)], [(0, 0, 2, 0)]
    results = []
    for pool in (True, False, False):
        levels = GroupedLevels(A, ZXy, G, pool=pool)
        assert levels.n_streamed == (0 if pool else m)
        evaluator = GroupedEvaluator([2], entries, clips, 2, 1e6, True, levels=levels)
        results.append(evaluator.value_gradient_hessian(np.array([0.7, -0.2, 0.4])))
    for a, b in zip(results[0], results[1], strict=True):
        assert_close(a, b, 1e-9, "pooled and streamed")
    for a, b in zip(results[1], results[2], strict=True):
        np.testing.assert_array_equal(a, b)


def test_perfect_fit_does_not_crash():  # hard cases 13 and 63
    design = make_design(60, 6, 2, 2)
    design = replace(design, y=design.X @ np.array([1.0, 2.0]))
    solver = GroupedSolver(design)
    solution = solver.solution([np.eye(2)])
    assert solution.pwrss == 0.0
    np.testing.assert_allclose(solution.beta, [1.0, 2.0], rtol=1e-13)
    with pytest.raises(FloatingPointError):
        solver.evaluator_for(True).value_gradient_hessian(solver.start_internal())


# ---------------------------------------------------------------------------------------- errors
def test_errors_name_the_remedy():
    with pytest.raises(SolverError, match="one grouping factor, this design has 2; use solver='blocked'"):
        GroupedSolver(random_design(0, "two_crossed"))
    with pytest.raises(SolverError, match="independent levels"):
        GroupedSolver(random_design(0, "precision"))
    solver = GroupedSolver(make_design(60, 6, 2, 2))
    with pytest.raises(SolverError, match="not positive definite"):
        solver.components([np.full((2, 2), np.nan)])
    with pytest.raises(SolverError, match="2 relative factors for 1"):
        solver.components([np.eye(2), np.eye(2)])


def test_describe():
    assert GroupedSolver(make_design(180, 18, 2, 2, balanced=True)).describe() == (
        "grouped: 18 levels x 2 columns, 180 rows in 1 class of identical blocks"
    )
    assert GroupedSolver(make_design(90, 9, 2, 2)).describe() == "grouped: 9 levels x 2 columns, 90 rows"


@pytest.mark.parametrize("kind", SINGLE_FACTOR_KINDS)
def test_start_is_feasible(kind):
    design = random_design(0, kind)
    solver = GroupedSolver(design)
    theta = solver.theta_map @ solver.start_internal()
    assert np.isfinite(criterion(design, theta, True))
    start = solver.start_internal()
    assert start.shape == (solver.n_theta,)
    assert start.max() > 0.0
    assert start.max() < 10.0
