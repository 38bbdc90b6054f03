"""The LMM criterion: published values, derivatives against differences, compiled against generic path."""

from __future__ import annotations

import numpy as np
import pytest

from mixedmodels.covariance import make_covariance
from mixedmodels.design import Design, RandomTerm
from mixedmodels.errors import IdentifiabilityError, OptionError
from mixedmodels.objective.lmm import LMMObjective
from mixedmodels.optimize.base import Objective
from mixedmodels.solver.base import Breakdown
from mixedmodels.solver.blocked import BlockedSolver
from mixedmodels.solver.dense import DenseSolver
from mixedmodels.solver.grouped import GroupedSolver
from mixedmodels.testing import (
    DESIGN_KINDS,
    SINGLE_FACTOR_KINDS,
    assert_close,
    check_objective,
    random_design,
    random_theta,
)


def dense(design, reml=True, sigma=None):
    return LMMObjective(design, DenseSolver(design), reml, sigma)


# ---------------------------------------------------------------------- values of lme4
def small_data():
    """A fixed small data set: every number follows from the row number, so that R can rebuild it."""
    i = np.arange(60)
    g, h = (i * 7) % 11, (i // 4) % 5
    x = ((i * 13) % 17) / 4 - 2
    y = 10 + 1.5 * x + np.sin(3 * i) + 2 * np.cos((g + 1) * 1.7) + 0.7 * x * np.sin((g + 1) * 2.3)
    y = y + 1.5 * np.cos((h + 1) * 0.9)
    return {"y": y, "x": x, "g": g, "h": h, "hc": 2 * h + i % 2, "w": 0.5 + ((i * 5) % 7) / 3}


def small_design(groups, weights=False, intercept_and_x=True, offset=None):
    data = small_data()
    n = 60
    X = np.stack([np.ones(n), data["x"]], axis=1)
    terms = []
    for group, k in groups:
        levels, codes = np.unique(data[group], return_inverse=True)
        Z = None if k == 1 else X.copy()
        names = ("(Intercept)", "x")[:k]
        terms.append(RandomTerm(group, names, codes.astype(np.int32), levels, Z, make_covariance("us", k)))
    return Design(
        data["y"],
        X if intercept_and_x else np.zeros((n, 0)),
        ("(Intercept)", "x") if intercept_and_x else (),
        tuple(terms),
        offset=None if offset is None else offset(data["x"]),
        weights=data["w"] if weights else None,
    )


@pytest.mark.parametrize(
    ("groups", "options", "theta", "reml", "ml"),
    [  # lme4 1.1-31, lmer(..., devFunOnly = TRUE)(theta)
        ([("g", 2), ("h", 1)], {}, [0.8, -0.2, 0.5, 1.3], 218.763700056779, 218.528238871732),
        ([("g", 2), ("h", 1)], {}, [0.8, -0.2, 0.0, 0.0], 236.050537535182, 234.338496259671),
        ([("h", 1), ("hc", 1)], {}, [0.4, 0.7], 247.168593969815, 246.072957713278),
        ([("g", 2)], {"weights": True}, [0.8, -0.2, 0.5], 234.364049151571, 233.426523999142),
        ([("g", 1)], {"intercept_and_x": False}, [0.8], 379.567636191988, 379.567636191988),
        ([("g", 1)], {"offset": np.square}, [0.8], 264.161614442561, None),
    ],
)
def test_criterion_is_that_of_lme4(groups, options, theta, reml, ml):
    design = small_design(groups, **options)
    assert np.isclose(dense(design, True).value(theta), reml, rtol=1e-13)
    if ml is not None:
        assert np.isclose(dense(design, False).value(theta), ml, rtol=1e-13)


def test_gradient_vanishes_at_the_optimum_of_lme4():
    """lmer(y ~ x + (x | g) + (1 | h)): REML 207.71473918343."""
    objective = dense(small_design([("g", 2), ("h", 1)]))
    theta = np.array([1.6276583839411, 0.0965434941136, 0.5219269479474, 1.1140609956397])
    value, gradient = objective.value_and_gradient(theta)
    assert np.isclose(value, 207.71473918343, rtol=1e-13)
    assert np.max(np.abs(gradient)) < 1e-5
    certificate = objective.certificate(theta)
    assert min(certificate.min_eigenvalues) > -1e-6 and max(certificate.residuals) < 1e-6
    assert certificate.escape is None and certificate.singular == (False, False)


def test_names_are_those_of_lme4():
    assert dense(small_design([("g", 2), ("h", 1)])).names == (
        "g.(Intercept)",
        "g.x.(Intercept)",
        "g.x",
        "h.(Intercept)",
    )


def test_fixed_sigma_is_the_definition_and_its_minimum_is_the_profile():
    design = random_design(1, "two_crossed")
    theta = random_theta(design, 2)
    free = dense(design)
    sigma = free.sigma(theta)
    assert np.isclose(dense(design, sigma=sigma).value(theta), free.value(theta), rtol=1e-13)
    assert dense(design, sigma=1.1 * sigma).value(theta) > free.value(theta)
    assert dense(design, sigma=0.9 * sigma).value(theta) > free.value(theta)


# ---------------------------------------------------------------------- laws
@pytest.mark.parametrize("kind", DESIGN_KINDS)
@pytest.mark.parametrize(
    ("reml", "fixed", "singular"), [(True, False, False), (False, False, True), (True, True, True)]
)
def test_derivatives(kind, reml, fixed, singular):
    design = random_design(5, kind)
    sigma = (1e6 if kind == "scaled" else 1.3) if fixed else None
    check_objective(dense(design, reml, sigma), random_theta(design, 3, singular))


def test_the_check_catches_a_wrong_gradient():
    class Wrong(LMMObjective):
        def value_and_gradient(self, theta):
            value, gradient = super().value_and_gradient(theta)
            return value, 1.001 * gradient

    design = random_design(1, "two_crossed")
    with pytest.raises(AssertionError, match="gradient"):
        check_objective(Wrong(design, DenseSolver(design)), random_theta(design, 1))


@pytest.mark.parametrize("kind", SINGLE_FACTOR_KINDS)
@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("fixed", [True, False])
def test_compiled_path_gives_the_same_numbers(kind, reml, fixed):
    from mixedmodels.solver.grouped import GroupedSolver

    design = random_design(7, kind)
    sigma = (1e6 if kind == "scaled" else 1.3) if fixed else None
    slow = dense(design, reml, sigma)
    fast = LMMObjective(design, GroupedSolver(design), reml, sigma)
    assert fast.evaluator is not None and slow.evaluator is None
    theta = random_theta(design, 3)
    value, gradient, H = slow.newton(theta)
    unit = np.abs(theta) + 1.0 / np.sqrt(np.diagonal(H))
    scale = unit[:, None] * unit
    assert_close(fast.value(theta), value, 1e-12, "value")
    for got in (fast.value_and_gradient(theta)[1], fast.newton(theta)[1]):
        assert_close(got * unit, gradient * unit, 1e-9, "gradient")
    assert_close(fast.newton(theta)[2] * scale, H * scale, 1e-8, "Newton matrix")
    for kind_of in ("average", "expected", "observed"):
        expected = slow.information(theta, kind_of)
        assert_close(fast.information(theta, kind_of) * scale, expected * scale, 1e-8, kind_of)


def test_compiled_loop_speaks_in_the_coordinates_of_the_user():
    from mixedmodels.solver.grouped import GroupedSolver

    design = random_design(7, "scaled")
    objective = LMMObjective(design, GroupedSolver(design))
    seen = []
    facts = objective.newton_minimize(
        objective.start,
        callback=lambda i, theta, value, decrement: seen.append((theta.copy(), value)) and None,
    )
    assert np.isclose(facts["value"], objective.value(facts["theta"]), rtol=1e-12)
    assert_close(facts["hessian"], objective.newton(facts["theta"])[2], 1e-6, "Hessian")
    for theta, value in seen:
        assert np.isclose(value, objective.value(theta), rtol=1e-10)
    assert dense(design).newton_minimize(objective.start) is None


@pytest.mark.parametrize("kind", ["one_slope", "one_vector", "crossed_slopes"])
def test_newton_step_does_not_depend_on_the_units_of_a_covariate(kind):
    """With Z T for Z (T lower triangular) theta moves linearly: 1/2 g'H^{-1}g must not change."""
    design = random_design(3, kind)
    term = design.terms[0]
    T = np.eye(term.k)
    T[:2, :2] = [[3.0, 0.0], [0.7, 0.01]]
    moved = RandomTerm(term.group, term.names, term.codes, term.levels, term.Z @ T, term.covariance)
    one, two = dense(design), dense(Design(design.y, design.X, design.x_names, (moved, *design.terms[1:])))
    factors = one.factors(random_theta(design, 4))
    decreases = []
    for objective, first in ((one, factors[0]), (two, np.linalg.solve(T, factors[0]))):
        value, gradient, H = objective.newton(objective.theta_of([first, *factors[1:]]))
        unit = 1.0 / np.sqrt(np.diagonal(H))
        step = unit * np.linalg.solve(H * unit * unit[:, None], unit * gradient)
        decreases.append((value, 0.5 * gradient @ step))
    assert np.allclose(decreases[0], decreases[1], rtol=1e-7)


@pytest.mark.parametrize(
    "kind", ["one_slope", "crossed_slopes", "diag", "homdiag", "precision_slope", "shared"]
)
@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("sigma", [None, 1.3])
def test_em_and_ecme_never_go_up(kind, reml, sigma):
    design = random_design(2, kind)
    objective = dense(design, reml, sigma)
    for step in (objective.em_step, objective.ecme_step):
        theta = random_theta(design, 3)
        values = [objective.value(theta)]
        for _ in range(6):
            theta = step(theta)
            values.append(objective.value(theta))
        assert np.all(np.diff(values) <= 1e-9), values
        assert values[-1] < values[0]


@pytest.mark.parametrize("kind", DESIGN_KINDS)
def test_start_is_inside_and_better_than_nothing(kind):
    design = random_design(4, kind)
    objective = dense(design)
    assert isinstance(objective, Objective)
    assert np.all(objective.start >= objective.lower) and np.all(np.isfinite(objective.start))
    assert objective.value(objective.start) < objective.value(np.zeros(objective.n_theta))


def test_zero_is_a_saddle_that_the_certificate_leaves():
    design = random_design(4, "crossed_slopes")
    objective = dense(design)
    zero = np.zeros(objective.n_theta)
    assert np.all(objective.value_and_gradient(zero)[1] == 0.0)
    certificate = objective.certificate(zero)
    assert certificate.singular == (True, True) and min(certificate.min_eigenvalues) < -0.1
    assert objective.value(certificate.escape(zero)) < objective.value(zero) - 1.0


def test_certificate_is_scale_free():
    one = random_design(4, "one_vector")
    two = random_design(4, "scaled")  # the same draws with other units
    a, b = dense(one), dense(two)
    theta = random_theta(one, 2)
    D = np.diag([1.0, 1e-4, 1e3])
    theta2 = b.theta_of([D @ factor for factor in a.factors(theta)])
    first, second = a.certificate(theta), b.certificate(theta2)
    assert_close(second.min_eigenvalues, first.min_eigenvalues, 1e-8, "eigenvalues")
    assert_close(second.residuals, first.residuals, 1e-8, "residuals")


@pytest.mark.parametrize("kind", ["two_crossed", "crossed_slopes", "precision_slope"])
@pytest.mark.parametrize("what", ["observed", "expected"])
def test_information_of_crossed_factors_from_the_blocked_solver(kind, what):
    design = random_design(4, kind)
    theta = random_theta(design, 2)
    for reml in (True, False):
        got = LMMObjective(design, BlockedSolver(design), reml).information(theta, what)
        assert_close(got, dense(design, reml).information(theta, what), 1e-9, what)


@pytest.mark.parametrize("kind", DESIGN_KINDS)
@pytest.mark.parametrize("sigma", [None, 0.8])
def test_information_and_changes_agree_with_the_dense_solver(kind, sigma):
    """The compiled path in internal coordinates, on both solvers, against the plain formulae."""
    design = random_design(1, kind)
    solvers = [BlockedSolver] + [GroupedSolver] * (kind in SINGLE_FACTOR_KINDS)
    for theta in (random_theta(design, 1), random_theta(design, 1, singular=True)):
        for reml in (True, False):
            oracle = dense(design, reml, sigma)
            for what in ("observed", "average", "expected"):
                information, changes = oracle.information_and_changes(theta, what)
                for solver in solvers:
                    objective = LMMObjective(design, solver(design), reml, sigma)
                    got, found = objective.information_and_changes(theta, what)
                    assert_close(got, information, 1e-10, what)
                    assert_close(objective.joint_information(theta, what), information, 1e-10, what)
                    assert_close(found, changes, 1e-11, "changes")


@pytest.mark.parametrize("kind", ["one_slope", "nested", "three_crossed", "crossed_slopes", "shared_slopes"])
def test_information_in_one_go_agrees_with_information_by_parts(kind):
    """Where the evaluator gives everything at once it must not differ from the way of large models."""
    design = random_design(3, kind)
    solvers = [BlockedSolver] + [GroupedSolver] * (kind in SINGLE_FACTOR_KINDS)
    for solver in (make(design) for make in solvers):
        for reml in (True, False):
            evaluator = solver.evaluator_for(reml)
            for theta in (solver.start_internal(), 0.0 * solver.start_internal()):
                for exact in (True, False):
                    once = evaluator.information(theta, exact)
                    parts = solver._by_parts(evaluator, theta, exact)
                    for name, a, b in zip(("inner", "cross", "changes"), once, parts, strict=True):
                        assert_close(a, b, 1e-10, name)


# ---------------------------------------------------------------------- bad input
def test_errors_name_what_is_wrong():
    design = random_design(1, "two_crossed")
    objective = dense(design)
    with pytest.raises(OptionError, match=r"shape \(3,\), the model has 2 parameters: g.\(Intercept\), h"):
        objective.value(np.ones(3))
    with pytest.raises(OptionError, match="average, observed, expected"):
        objective.information(objective.start, "hessian")
    with pytest.raises(OptionError, match="sigma must be positive"):
        dense(design, sigma=0.0)
    with pytest.raises(OptionError, match="without gaps"):
        dense(Design(design.y, design.X, design.x_names, design.terms, theta_index=np.array([0, 2])))
    with pytest.raises(Breakdown, match="not finite"):
        objective.value(np.array([np.inf, 1.0]))
    few = Design(
        design.y[:3],
        design.X[:3],
        design.x_names,
        tuple(RandomTerm(t.group, t.names, t.codes[:3], t.levels, None, t.covariance) for t in design.terms),
    )
    with pytest.raises(IdentifiabilityError, match="3 fixed-effects columns for 3 observations"):
        dense(few)


def test_perfect_fit_is_an_error_not_minus_infinity():
    design = random_design(1, "two_crossed")
    perfect = Design(np.zeros(design.n), design.X, design.x_names, design.terms)
    with pytest.raises(Breakdown, match="fits the response perfectly"):
        dense(perfect).value(np.ones(2))
