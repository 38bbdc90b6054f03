"""Conformance checks: laws that every covariance structure, solver and objective must obey.

Each function raises AssertionError with what differs and where; they return nothing. Use them on your own
structure or solver.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.solver.dense import DenseSolver
from mixedmodels.testing.designs import DESIGN_KINDS, random_design, random_factors

if TYPE_CHECKING:
    from mixedmodels.covariance.base import Covariance
    from mixedmodels.design import Design
    from mixedmodels.solver.base import Directions, Solver

__all__ = [
    "assert_close",
    "check_covariance",
    "check_objective",
    "check_solver",
    "example_structure",
    "random_directions",
    "random_parameters",
]


def assert_close(actual: Any, expected: Any, rtol: float, what: str, atol: float = 0.0) -> None:
    """Assert that the largest difference is at most ``atol + rtol * largest |expected|``."""
    actual, expected = np.asarray(actual, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    if actual.shape != expected.shape:
        raise AssertionError(f"{what}: shape {actual.shape}, expected {expected.shape}")
    if not expected.size:
        return
    difference = float(np.max(np.abs(actual - expected)))
    allowed = atol + rtol * float(np.max(np.abs(expected)))
    if not difference <= allowed:  # not: catches NaN
        raise AssertionError(
            f"{what}: differs by {difference:.3g}, allowed {allowed:.3g}\n"
            f"actual\n{actual}\nexpected\n{expected}"
        )


def random_directions(design: Design, seed: int, r: int) -> Directions:
    """r random symmetric directions dSigma per term; some are None, as for another term's parameter."""
    rng = np.random.default_rng(seed)
    directions = []
    for i in range(r):
        row: list[np.ndarray | None] = []
        for j, term in enumerate(design.terms):
            E = rng.normal(size=(term.k, term.k))
            skip = len(design.terms) > 1 and j != i % len(design.terms) and rng.random() < 0.5
            row.append(None if skip else E + E.T)
        directions.append(row)
    return directions


def example_structure(tag: str, k: int, seed: int = 0) -> Covariance:
    """A structure with k columns; times, coordinates or a matrix are made up where it needs them."""
    from mixedmodels.covariance import STRUCTURES, make_covariance

    rng = np.random.default_rng(seed)
    options: dict[str, Any] = {}
    needs = STRUCTURES[tag].needs
    if needs == "times" and tag in ("car1", "ou"):
        options["times"] = np.cumsum(rng.uniform(0.2, 2.0, k))
    elif needs == "coordinates":
        options["coordinates"] = rng.normal(size=(k, 2))
    elif needs == "matrix":
        root = rng.normal(size=(k, k + 2))
        options["matrix"] = root @ root.T
    elif "d" in STRUCTURES[tag].options and k == 1:
        options["d"] = 1
    return make_covariance(tag, k, **options)


def random_parameters(structure: Covariance, seed: int = 0) -> np.ndarray:
    """Parameters inside the bounds of a structure, away from them, at about the size of the start."""
    rng = np.random.default_rng(seed)
    if structure.clip != "curved":
        return rng.uniform(0.2, 1.5, structure.n_theta)
    low = np.maximum(structure.lower, structure.start - 1.2)
    high = np.minimum(structure.upper, structure.start + 1.2)
    return low + rng.uniform(0.3, 0.7, structure.n_theta) * (high - low)


def check_covariance(structure: Covariance, seed: int = 0) -> None:
    """Check a covariance structure: shapes, bounds, round trips, derivatives, entries, names and transform.

    Parameters
    ----------
    structure : Covariance
    seed : int
        Seed of the random parameters.

    Raises
    ------
    AssertionError
        A law does not hold; the message says which.
    """
    rng = np.random.default_rng(seed)
    k, n_theta = structure.k, structure.n_theta
    for array in (structure.start, structure.lower, structure.upper, structure.mirrored):
        assert array.shape == (n_theta,), f"start, lower, upper and mirrored must have shape ({n_theta},)"
    assert np.all(structure.lower <= structure.start) and np.all(structure.start <= structure.upper)
    assert structure.clip in ("block", "diagonal", "trace", "curved"), f"unknown clip {structure.clip!r}"
    assert (structure.clip == "curved") == (structure.entries is None), "entries and clip do not fit together"
    linear = structure.entries is not None
    if linear:
        assert_close(structure.factor(structure.start), np.eye(k), 1e-15, "factor(start) is not the identity")
    theta = random_parameters(structure, seed)
    kept = theta.copy()
    factor = structure.factor(theta)
    assert np.array_equal(theta, kept), "factor changed its argument"
    assert factor.shape == (k, k)
    assert np.array_equal(factor, np.tril(factor)), "the factor is not lower triangular"
    assert_close(structure.sigma(theta), factor @ factor.T, 1e-13, "sigma is not factor factor'")
    if linear:
        assert_close(structure.theta_of(factor), theta, 1e-14, "theta_of(factor(theta)) is not theta")
    elif structure.name != "fa" or k > 2:  # theta is not unique: Sigma must come back
        back = structure.sigma(structure.theta_of(factor))
        allowed = (
            1e-2 if structure.name in ("fa", "sph") else 1e-9
        )  # the search ends where it is a good start
        assert_close(back, factor @ factor.T, allowed, "theta_of(factor(theta)) gives another Sigma")
    derivatives = structure.factor_derivatives(theta)
    assert derivatives.shape == (n_theta, k, k)
    _check_slopes(structure.factor, theta, derivatives, "the factor")
    second = structure.factor_second_derivatives(theta)
    assert second.shape == (n_theta, n_theta, k, k)
    _check_slopes(structure.factor_derivatives, theta, second, "the factor's derivatives")
    slopes = structure.sigma_derivatives(theta)
    _check_slopes(structure.sigma, theta, slopes, "Sigma")
    M = rng.normal(size=(k, k))
    M = M + M.T
    _check_slopes(
        lambda at: np.einsum("tij,ij->t", structure.sigma_derivatives(at), M),
        theta,
        structure.sigma_curvature(theta, M),
        "tr(M dSigma)",
    )
    if structure.entries is not None:
        built = np.zeros((k, k))
        for row, column, parameter in structure.entries:
            built[row, column] = theta[parameter]
        assert_close(built, factor, 0.0, "entries do not describe the factor")
    columns = tuple(f"c{j}" for j in range(k))
    names = structure.parameter_names(columns)
    assert len(names) == len(set(names)) == n_theta, f"names are not distinct: {names}"
    _check_natural(structure, theta, columns)
    _check_transform(structure, factor, rng)


def _check_slopes(f: Callable[[np.ndarray], np.ndarray], theta: np.ndarray, slopes: Any, what: str) -> None:
    """Derivatives against central differences."""
    for t in range(len(theta)):
        step = np.zeros(len(theta))
        step[t] = 1e-5
        difference = (np.asarray(f(theta + step)) - np.asarray(f(theta - step))) / 2e-5
        assert_close(slopes[t], difference, 1e-7, f"derivative {t} of {what}", atol=1e-8)


def _check_natural(structure: Covariance, theta: np.ndarray, columns: tuple[str, ...]) -> None:
    """Natural parameters: shapes, Jacobian, scale and the way back."""
    found = structure.natural(theta, columns, 1.7)
    r = len(found.names)
    assert len(set(found.names)) == r == len(found.values) == len(found.kinds) == len(found.log_scale)
    assert found.jacobian.shape == (r, structure.n_theta)
    slopes = found.jacobian.T
    _check_slopes(lambda at: structure.natural(at, columns, 1.7).values, theta, slopes, "natural parameters")
    weights = np.random.default_rng(r).normal(size=r)
    _check_slopes(
        lambda at: weights @ structure.natural(at, columns, 1.7).jacobian,
        theta,
        structure.natural_curvature(theta, weights, 1.7),
        "the weighted Jacobian of natural parameters",
    )
    up, down = (structure.natural(theta, columns, 1.7 * np.exp(h)).values for h in (1e-5, -1e-5))
    assert_close(found.log_scale, (up - down) / 2e-5, 1e-7, "derivative in the scale", atol=1e-9)
    back = structure.theta_from_natural(found.values, 1.7)
    assert_close(back, theta, 1e-12, "theta_from_natural(natural(theta)) is not theta")


def _check_transform(structure: Covariance, factor: np.ndarray, rng: np.random.Generator) -> None:
    k = structure.k
    columns = rng.normal(size=(20, k)) * 10.0 ** rng.integers(-3, 4, k)
    columns[:, 0] = 1.0
    T = structure.transform(columns.T @ columns / 20, 0)
    assert T.shape == (k, k) and np.array_equal(T, np.tril(T)), "transform is not lower triangular"
    moved = T @ factor
    if structure.entries is not None:
        back = structure.factor(structure.theta_of(moved))
        assert_close(back, moved, 1e-14, "transform leaves the structure")
    elif structure.name != "fa":
        back = structure.sigma(structure.theta_of(moved))
        assert_close(back, moved @ moved.T, 1e-9, "transform leaves the structure")
    gram = T.T @ (columns.T @ columns / 20) @ T
    if structure.name == "us":
        assert_close(gram, np.eye(k), 1e-9, "transform does not orthonormalise")
    assert np.all(np.isfinite(structure.transform(np.ones((k, k)), 0))), "transform fails on a singular gram"
    assert np.all(np.isfinite(structure.transform(np.zeros((k, k)), None))), (
        "transform fails on columns of zeros"
    )


def check_solver(
    make_solver: Callable[[Design], Solver],
    kinds: Iterable[str] = DESIGN_KINDS,
    seeds: Iterable[int] = (0, 1),
    rtol: float = 1e-9,
    n: int = 90,
) -> None:
    """Check a solver against `DenseSolver` on random designs: ML and REML; regular, singular, zero factors.

    Parameters
    ----------
    make_solver : callable
        Design -> Solver.
    kinds, seeds, n
        Arguments of `random_design`; give `SINGLE_FACTOR_KINDS` for a solver of one grouping factor.
    rtol : float
        Allowed difference relative to the largest entry of each quantity.

    Raises
    ------
    AssertionError
        A quantity differs; the message names kind, seed and quantity.
    """
    for kind in kinds:
        for seed in seeds:
            design = random_design(seed, kind, n)
            check_solver_on(make_solver(design), design, seed, rtol, f"{kind}, seed {seed}")


def check_solver_on(solver: Solver, design: Design, seed: int, rtol: float, where: str) -> None:
    """`check_solver` on one design."""
    oracle = DenseSolver(design)
    assert (solver.n, solver.p) == (design.n, design.p), f"{where}: n or p is wrong"
    assert isinstance(solver.describe(), str)
    directions = random_directions(design, seed, 3)
    cases = [
        ("regular", random_factors(design, seed)),
        ("singular", random_factors(design, seed, singular=True)),
    ]
    cases.append(("zero", [np.zeros((term.k, term.k)) for term in design.terms]))
    for label, factors in cases:
        kept = [factor.copy() for factor in factors]
        for reml in (True, False):
            assert solver.nu(reml) == oracle.nu(reml), f"{where}: nu(reml={reml})"
            spot = f"{where}, {label} factors, {'REML' if reml else 'ML'}"
            expected = oracle.components(factors, 2, directions, reml)
            for order in (0, 1, 2):
                actual = solver.components(factors, order, directions if order == 2 else None, reml)
                for name in ("logdet_L2", "logdet_RX2", "pwrss"):
                    # log-determinants are sums of terms of size 1, so 1 is their natural scale
                    atol = 0.0 if name == "pwrss" else rtol
                    assert_close(
                        getattr(actual, name), getattr(expected, name), rtol, f"{spot}: {name}", atol
                    )
                if order >= 1:
                    for b, term in enumerate(design.terms):
                        assert_close(
                            actual.T[b], expected.T[b], rtol, f"{spot}: T of term {b} ({term.group})"
                        )
                        assert_close(
                            actual.S[b], expected.S[b], rtol, f"{spot}: S of term {b} ({term.group})"
                        )
                if order == 2:
                    assert_close(actual.wpw, expected.wpw, rtol, f"{spot}: wpw")
            _check_solution(solver, oracle, design, factors, reml, rtol, spot)
            expected_traces = oracle.trace_products(factors, directions, reml)
            for got, want, name in zip(
                solver.trace_products(factors, directions, reml), expected_traces, ("KDKD", "KD"), strict=True
            ):
                assert_close(got, want, rtol, f"{spot}: trace products {name}")
        _check_inference(solver, oracle, design, factors, directions, seed, rtol, f"{where}, {label} factors")
        assert all(np.array_equal(a, b) for a, b in zip(kept, factors, strict=True)), (
            f"{where}: factors changed"
        )
    # Same factors, same answer, whatever was asked before.
    factors = cases[0][1]
    first = solver.components(factors, 1)
    solver.components(cases[2][1], 0)
    again = solver.components(factors, 1)
    assert first.pwrss == again.pwrss and all(
        np.array_equal(a, b) for a, b in zip(first.T, again.T, strict=True)
    ), f"{where}: the answer depends on earlier calls"


def _check_solution(
    solver: Solver,
    oracle: DenseSolver,
    design: Design,
    factors: list[np.ndarray],
    reml: bool,
    rtol: float,
    spot: str,
) -> None:
    actual, expected = solver.solution(factors, reml), oracle.solution(factors, reml)
    for name in ("beta", "vcov_unscaled", "pwrss"):
        assert_close(getattr(actual, name), getattr(expected, name), rtol, f"{spot}: solution.{name}")
    for name in ("logdet_L2", "logdet_RX2"):
        assert_close(getattr(actual, name), getattr(expected, name), rtol, f"{spot}: solution.{name}", rtol)
    for b, term in enumerate(design.terms):
        # With singular factors u and b have exact zeros: compare on the scale of the residual, too.
        size = np.sqrt(expected.pwrss / design.n)
        assert_close(actual.u[b], expected.u[b], rtol, f"{spot}: u of term {b} ({term.group})", rtol * size)
        assert_close(actual.b[b], expected.b[b], rtol, f"{spot}: b of term {b} ({term.group})", rtol * size)
        assert_close(
            solver.conditional_covariance(factors, b),
            oracle.conditional_covariance(factors, b),
            rtol,
            f"{spot}: conditional covariance of term {b} ({term.group})",
        )


def _check_inference(
    solver: Solver,
    oracle: DenseSolver,
    design: Design,
    factors: list[np.ndarray],
    directions: Directions,
    seed: int,
    rtol: float,
    spot: str,
) -> None:
    got, want = (one.fixed_products(factors, directions) for one in (solver, oracle))
    for name in ("XVX", "HDH", "HDKDH"):
        assert_close(getattr(got, name), getattr(want, name), rtol, f"{spot}: fixed_products.{name}")
    inner = solver.fixed_products(factors, directions, orthonormal=True)
    T = inner.basis
    assert T is not None, f"{spot}: orthonormal columns without their basis"
    for name in ("XVX", "HDH", "HDKDH"):
        changed = T.T @ getattr(want, name) @ T
        assert_close(getattr(inner, name), changed, rtol, f"{spot}: fixed_products.{name}, orthonormal")
    short = solver.fixed_products(factors, directions, second=False)
    assert short.HDKDH is None, f"{spot}: second=False"
    assert_close(short.HDH, want.HDH, rtol, f"{spot}: HDH without HDKDH")
    # the data's own rows, rows with pairs of levels never seen together, rows without some of the terms
    rng = np.random.default_rng(seed)
    own: list[Any] = []
    mixed: list[Any] = []
    for t, term in enumerate(design.terms):
        Z = np.ones((design.n, term.k)) if term.Z is None else term.Z
        own.append(term.matrix(design.n) if term.several_levels else (term.codes, Z))
        mixed.append((rng.integers(-1, term.m, design.n), Z) if t != 1 or seed % 2 else None)
    for name, rows in (("own rows", own), ("other rows", mixed)):
        assert_close(
            solver.predictor_variance(factors, design.X, rows),
            oracle.predictor_variance(factors, design.X, rows),
            rtol,
            f"{spot}: predictor_variance of {name}",
        )
    crosses = zip(
        solver.fixed_random_covariance(factors), oracle.fixed_random_covariance(factors), strict=True
    )
    for b, (cross, wanted) in enumerate(crosses):
        assert_close(cross, wanted, rtol, f"{spot}: fixed_random_covariance of term {b}", rtol)
        assert_close(
            solver.random_covariance(factors, b),
            oracle.random_covariance(factors, b),
            rtol,
            f"{spot}: random_covariance of term {b}",
        )
    R = rng.normal(size=(design.n, 3))
    got_beta, got_b = solver.responses_at(factors)(R)
    want_beta, want_b = oracle.responses_at(factors)(R)
    assert_close(got_beta, want_beta, rtol, f"{spot}: beta of responses_at")
    for b, (one, wanted) in enumerate(zip(got_b, want_b, strict=True)):
        assert_close(one, wanted, rtol, f"{spot}: responses_at of term {b}")


def check_objective(objective: Any, theta: np.ndarray, tol: float = 1e-6, observed: bool = True) -> None:
    """Check an objective against differences, and its matrices for definiteness, at any theta.

    Parameters
    ----------
    objective : Objective
    theta : ndarray
        Differences step to both sides, also across a bound of 0: criteria of this package are smooth there.
    tol : float
        Allowed difference relative to the largest entry.
    observed : bool
        Also check ``information(theta, "observed")`` against differences of the gradient.

    Raises
    ------
    AssertionError
        The gradient or Hessian differs, or a matrix is not positive semi-definite.
    """
    theta = np.asarray(theta, dtype=np.float64)
    kept = theta.copy()
    r = theta.size
    assert len(objective.names) == objective.start.size == objective.lower.size == objective.upper.size == r
    assert np.all(objective.lower <= objective.start) and np.all(objective.start <= objective.upper)
    value, gradient = objective.value_and_gradient(theta)
    assert_close(objective.value(theta), value, 1e-12, "value and value_and_gradient disagree")
    value2, gradient2, H = objective.newton(theta)
    assert_close(value2, value, 1e-12, "newton and value disagree")
    unit = np.maximum(np.abs(theta), _natural_scale(objective.newton(objective.start)[2]))
    # Everything is compared after scaling parameter j by its natural size, so that units do not matter.
    assert_close(
        gradient2 * unit, gradient * unit, 1e-9, "gradients of newton and value_and_gradient", atol=1e-9
    )
    difference = np.array([_difference(lambda t: objective.value(t), theta, j, unit[j]) for j in range(r)])
    assert_close(gradient * unit, difference * unit, tol, "gradient against differences", atol=tol)
    scale = unit[:, None] * unit
    for kind, matrix in (
        ("newton", H),
        ("average", objective.information(theta, "average")),
        ("expected", objective.information(theta, "expected") if observed else None),
    ):
        if matrix is None:
            continue
        assert matrix.shape == (r, r)
        assert_close(matrix, matrix.T, 1e-12, f"{kind} is not symmetric")
        eigenvalues = np.linalg.eigvalsh(matrix * scale)
        assert eigenvalues[0] >= -1e-9 * max(eigenvalues[-1], 1.0), f"{kind} is not positive semi-definite"
    if observed:
        columns = [
            _difference(lambda t: objective.value_and_gradient(t)[1], theta, j, unit[j]) for j in range(r)
        ]
        actual = objective.information(theta, "observed")
        assert_close(actual * scale, np.array(columns) * scale, tol, "observed information", atol=tol)
    assert np.array_equal(theta, kept), "theta was changed"
    assert objective.value(theta) == objective.value(theta), "the same theta gives two values"


def _natural_scale(H: np.ndarray) -> np.ndarray:
    """A step of each parameter that moves the criterion by about 1, judged at the start (theta may be 0)."""
    curvature = np.diagonal(H)
    return np.divide(1.0, np.sqrt(np.abs(curvature)), out=np.ones(curvature.shape), where=curvature != 0.0)


def _difference(function: Callable[[np.ndarray], Any], theta: np.ndarray, j: int, unit: float) -> Any:
    """Central difference with one Richardson step (error of order h^4)."""

    def slope(h: float) -> Any:
        up, down = theta.copy(), theta.copy()
        up[j] += h
        down[j] -= h
        return (function(up) - function(down)) / (up[j] - down[j])

    h = 2e-3 * unit
    return (4.0 * slope(h / 2.0) - slope(h)) / 3.0
