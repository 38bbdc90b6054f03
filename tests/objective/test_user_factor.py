"""A user's covariance function: against the LMM objective, differences, and published values."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from mixedmodels.covariance.function import FunctionCovariance
from mixedmodels.errors import DataError, IdentifiabilityError, OptionError
from mixedmodels.objective.lmm import LMMObjective
from mixedmodels.objective.user_factor import UserFactorObjective
from mixedmodels.optimize.base import Objective
from mixedmodels.solver.dense import DenseSolver, random_matrix
from mixedmodels.testing import assert_close, check_objective, random_design, random_theta


def as_function(design, objective, dense=False):
    """The Lambda of an ordinary model as a user's function."""

    def Lambda(theta):
        blocks = [
            sparse.kron(sparse.eye_array(term.m), factor)
            for term, factor in zip(design.terms, objective.factors(theta), strict=True)
        ]
        matrix = sparse.block_diag(blocks)
        return matrix.toarray() if dense else matrix

    return FunctionCovariance(Lambda, objective.start, objective.lower)


@pytest.mark.parametrize("kind", ["one_slope", "crossed_slopes", "weights", "offset", "no_fixed"])
@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize("sigma", [None, 1.3])
def test_agrees_with_the_ordinary_objective(kind, reml, dense, sigma):
    design = random_design(2, kind)
    usual = LMMObjective(design, DenseSolver(design), reml, sigma)
    Z = random_matrix(design.terms, design.n, None)
    own = UserFactorObjective(
        design.y,
        design.X,
        Z.toarray() if dense else Z,
        as_function(design, usual, dense),
        weights=design.weights,
        offset=design.offset,
        reml=reml,
        sigma=sigma,
    )
    assert isinstance(own, Objective)
    theta = random_theta(design, 1)
    value, gradient = usual.value_and_gradient(theta)
    assert_close(own.value(theta), value, 1e-12, "value")
    assert_close(own.value_and_gradient(theta)[1], gradient, 1e-8, "gradient")
    for name, tol in (("average", 1e-8), ("expected", 1e-8), ("observed", 1e-6)):
        assert_close(own.information(theta, name), usual.information(theta, name), tol, name)
    one, two = own.solution(theta), usual.solution(theta)
    assert_close(one.beta, two.beta, 1e-10, "beta")
    assert_close(one.vcov_unscaled, two.vcov_unscaled, 1e-10, "vcov")
    assert_close(one.b[0].ravel(), np.concatenate([b.ravel() for b in two.b]), 1e-9, "b")
    assert np.isclose(own.sigma(theta), usual.sigma(theta), rtol=1e-12)
    first = design.terms[0]
    block = own.conditional_covariance(theta)[: first.m * first.k, : first.m * first.k]
    diagonal = np.einsum("aiaj->aij", block.reshape(first.m, first.k, first.m, first.k))
    expected = usual.solver.conditional_covariance(usual.factors(theta), 0)
    assert_close(diagonal, expected, 1e-9, "conditional covariance")
    got = own.fixed_products(theta)
    wanted = usual.solver.fixed_products(usual.factors(theta), usual.directions(theta))
    assert_close(got.XVX, wanted.XVX, 1e-11, "XVX")
    assert_close(got.HDH, wanted.HDH, 1e-7, "HDH")  # the derivatives of Lambda are differences
    assert_close(got.HDKDH, wanted.HDKDH, 1e-7, "HDKDH")
    assert own.fixed_products(theta, second=False).HDKDH is None
    rows = [(t.codes, np.ones((design.n, 1)) if t.Z is None else t.Z) for t in design.terms]
    variance = usual.solver.predictor_variance(usual.factors(theta), design.X, rows)
    assert_close(own.predictor_variance(theta, design.X, Z), variance, 1e-10, "predictor variance")


def autoregressive(reml=True, sigma=None, jacobian=False):
    """theta = (sd, correlation): nonlinear in the second parameter."""
    rng = np.random.default_rng(0)
    q, n = 8, 60
    gap = np.abs(np.subtract.outer(np.arange(q), np.arange(q)))

    def Lambda(theta):
        return theta[0] * np.linalg.cholesky(theta[1] ** gap)

    def derivative(theta):
        L = np.linalg.cholesky(theta[1] ** gap)
        dR = gap * theta[1] ** np.maximum(gap - 1, 0)
        inner = np.linalg.solve(L, np.linalg.solve(L, dR).T)
        half = np.tril(inner)
        half[np.diag_indices(q)] *= 0.5
        return [L, theta[0] * L @ half]

    covariance = FunctionCovariance(
        Lambda, [1.0, 0.3], [0.0, -0.99], [np.inf, 0.99], derivative if jacobian else None, ("sd", "rho")
    )
    Z = rng.normal(size=(n, q))
    y = Z @ rng.normal(size=q) + rng.normal(size=n)
    X = np.stack([np.ones(n), rng.normal(size=n)], axis=1)
    return UserFactorObjective(
        y,
        X,
        Z,
        covariance,
        reml=reml,
        sigma=sigma,
        weights=rng.uniform(0.5, 2.0, n),
        offset=rng.normal(size=n),
    )


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("sigma", [None, 1.2])
@pytest.mark.parametrize("jacobian", [True, False])
def test_derivatives_of_a_nonlinear_factor(reml, sigma, jacobian):
    check_objective(
        autoregressive(reml, sigma, jacobian), np.array([0.7, 0.5]), tol=1e-6 if jacobian else 1e-5
    )


def test_jacobian_and_differences_agree():
    exact, rough = autoregressive(jacobian=True), autoregressive(jacobian=False)
    for theta in ([0.7, 0.5], [1.0, 0.99]):  # the second next to its bound: one-sided differences
        a, b = exact.value_and_gradient(np.array(theta))[1], rough.value_and_gradient(np.array(theta))[1]
        assert_close(b, a, 1e-5, f"gradient at {theta}")


def test_the_function_is_only_called_inside_its_bounds():
    asked = []

    def Lambda(theta):
        asked.append(theta.copy())
        return theta[0] * np.eye(3)

    covariance = FunctionCovariance(Lambda, [1.0], 0.0, 2.0)
    for point in ([0.0], [2.0], [1.0]):
        covariance.factor_derivatives(np.array(point))
        covariance.contracted_hessian(np.array(point), np.eye(3))
    assert np.min(asked) >= 0.0 and np.max(asked) <= 2.0


def test_zero_is_a_saddle_that_the_certificate_leaves():
    objective = autoregressive()
    zero = np.array([0.0, 0.5])
    certificate = objective.certificate(zero)
    assert certificate.min_eigenvalues[0] < 0.0 and certificate.singular == (True,)
    assert objective.value(certificate.escape(zero)) < objective.value(zero)
    assert objective.certificate(np.array([0.7, 0.5])).escape is None


def test_any_square_factor_gives_the_criterion_of_its_covariance():
    """Lambda and Lambda Q (Q orthogonal) mean the same covariance."""
    rng = np.random.default_rng(3)
    q, n = 6, 40
    root = rng.normal(size=(q, q))
    Q = np.linalg.qr(rng.normal(size=(q, q)))[0]
    Z, y, X = rng.normal(size=(n, q)), rng.normal(size=n), np.ones((n, 1))
    theta = np.array([0.8])
    one, two = (
        UserFactorObjective(y, X, Z, FunctionCovariance(lambda t, F=F: t[0] * F, [1.0], 0.0))
        for F in (np.linalg.cholesky(root @ root.T), root @ Q)
    )
    assert np.isclose(one.value(theta), two.value(theta), rtol=1e-12)
    assert_close(one.newton(theta)[2], two.newton(theta)[2], 1e-9, "Newton matrix")
    V = np.eye(n) + 0.64 * Z @ root @ root.T @ Z.T
    Vi = np.linalg.inv(V)
    XVX = X.T @ Vi @ X
    r2 = y @ Vi @ y - (X.T @ Vi @ y)[0] ** 2 / XVX[0, 0]
    direct = np.linalg.slogdet(V)[1] + np.log(XVX[0, 0]) + (n - 1) * (1 + np.log(2 * np.pi * r2 / (n - 1)))
    assert np.isclose(one.value(theta), direct, rtol=1e-12)


def test_inputs_are_left_alone():
    design = random_design(2, "weights")
    usual = LMMObjective(design, DenseSolver(design))
    y, X = design.y.copy(), design.X.copy()
    Z = random_matrix(design.terms, design.n, None).toarray()
    kept = Z.copy()
    objective = UserFactorObjective(y, X, Z, as_function(design, usual), weights=design.weights)
    objective.newton(usual.start)
    assert np.array_equal(y, design.y) and np.array_equal(X, design.X) and np.array_equal(Z, kept)


IDENTITY = FunctionCovariance(lambda t: t[0] * np.eye(3), [1.0], 0.0)
Y, ONES, LEVELS = np.arange(6.0) ** 2, np.ones((6, 1)), np.repeat(np.eye(3), 2, axis=0)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: FunctionCovariance("us", [1.0]), OptionError, "must be functions"),
        (lambda: FunctionCovariance(np.diag, [1.0], 2.0), OptionError, "'theta1' is 1, outside its bounds"),
        (
            lambda: FunctionCovariance(np.diag, [1.0], [0.0, 0.0]),
            OptionError,
            "lower must be one number or 1",
        ),
        (lambda: FunctionCovariance(np.diag, [1.0], names=("a", "b")), OptionError, "2 names given for 1"),
        (lambda: UserFactorObjective(Y, ONES[:5], LEVELS, IDENTITY), DataError, "X has 5 rows, y has 6"),
        (lambda: UserFactorObjective(Y, ONES, LEVELS[:5], IDENTITY), DataError, "Z has 5 rows, y has 6"),
        (lambda: UserFactorObjective(["a"] * 6, ONES, LEVELS, IDENTITY), DataError, "y must hold numbers"),
        (
            lambda: UserFactorObjective(Y * np.nan, ONES, LEVELS, IDENTITY),
            DataError,
            "y holds a missing.*row 0",
        ),
        (lambda: UserFactorObjective(Y, ONES, LEVELS, IDENTITY, weights=Y), DataError, r"weights\[0\]"),
        (
            lambda: UserFactorObjective(Y, np.ones((6, 2)), LEVELS, IDENTITY, x_names=("a", "b")),
            IdentifiabilityError,
            "'b' depends linearly",
        ),
        (
            lambda: UserFactorObjective(Y, ONES, LEVELS[:, :2], IDENTITY).value([1.0]),
            OptionError,
            "3 x 3 matrix, Z has 2 columns",
        ),
        (lambda: UserFactorObjective(Y, ONES, LEVELS, IDENTITY).value([1.0, 2.0]), OptionError, "theta1"),
        (
            lambda: UserFactorObjective(Y, ONES, LEVELS, IDENTITY).value([np.nan]),
            OptionError,
            "not finite",
        ),
    ],
)
def test_bad_input_gets_one_clear_error(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.skipif("MIXEDMODELS_SHARED" not in os.environ, reason="needs acceptance data")
def test_kinship_of_1200_individuals():
    """b ~ N(0, sigma^2 theta^2 K), 25 independent columns of [1, X]: theta, sigma^2 from R."""
    folder = Path(os.environ["MIXEDMODELS_SHARED"]) / "cases" / "genetics"

    def read(name):
        with gzip.open(folder / name, "rt") as stream:
            lines = stream.read().split("\n")
        skip = 0
        try:
            float(lines[0].split(",")[0])
        except ValueError:
            skip = 1
        return np.array([[float(v) for v in line.split(",")] for line in lines[skip:] if line])

    K, y, snps = read("kinship_matrix.csv.gz"), read("phenotype.csv.gz"), read("design_matrix.csv.gz")
    columns = [
        1,
        2,
        3,
        4,
        6,
        7,
        16,
        27,
        31,
        41,
        42,
        43,
        47,
        64,
        65,
        70,
        72,
        75,
        84,
        91,
        100,
        101,
        114,
        119,
        127,
    ]
    X = np.column_stack([np.ones(1200), snps])[:, np.array(columns) - 1]
    root = np.linalg.cholesky(K)
    covariance = FunctionCovariance(lambda t: t[0] * root, [1.0], 0.0, jacobian=lambda t: [root])
    objective = UserFactorObjective(y.ravel(), X, sparse.eye_array(1200), covariance)
    theta = np.array([2.42329785])
    value, gradient, H = objective.newton(theta)
    assert np.isclose(value, 2819.097303, rtol=1e-9)
    assert abs(gradient[0] / H[0, 0]) < 1e-6
    assert np.isclose(objective.sigma(theta) ** 2, 0.1934106281, rtol=1e-6)
