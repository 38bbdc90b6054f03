"""Likelihood at given variance components: the definition, score and information against differences."""

from __future__ import annotations

import numpy as np
import pytest

from mixedmodels.errors import OptionError
from mixedmodels.objective.lmm import LMMObjective
from mixedmodels.solver.dense import DenseSolver
from mixedmodels.testing import assert_close, random_design, random_factors

KINDS = [
    "one_slope",
    "two_crossed",
    "nested",
    "crossed_slopes",
    "crossed_diag",
    "homdiag",
    "weights",
    "no_fixed",
]


def objective_of(design, reml=True):
    return LMMObjective(design, DenseSolver(design), reml)


def sigmas_of(design, seed, sigma2):
    return [*[sigma2 * f @ f.T for f in random_factors(design, seed)], sigma2]


def explicit(design, sigmas, reml):
    """Log-likelihood from V itself."""
    n = design.n
    V = np.diag(sigmas[-1] / (np.ones(n) if design.weights is None else design.weights))
    for term, Sigma in zip(design.terms, sigmas[:-1], strict=True):
        Z = np.ones((n, 1)) if term.Z is None else term.Z
        V += (Z @ Sigma @ Z.T) * (term.codes[:, None] == term.codes)
    Vi = np.linalg.inv(V)
    XVX = design.X.T @ Vi @ design.X
    y = design.y if design.offset is None else design.y - design.offset
    r = y - (design.X @ np.linalg.solve(XVX, design.X.T @ Vi @ y) if design.p else 0.0)
    out = n * np.log(2 * np.pi) + np.linalg.slogdet(V)[1] + r @ Vi @ r
    if reml and design.p:
        out += np.linalg.slogdet(XVX)[1] - design.p * np.log(2 * np.pi)
    return -0.5 * out


def perturbed(design, point, kappa):
    """Sigmas for a vector of components in the order of the point's names."""
    out, at = [], 0
    for term in design.terms:
        k = term.k
        if term.covariance.clip == "trace":
            out.append(kappa[at] * np.eye(k))
            at += 1
        elif term.covariance.clip == "diagonal":
            out.append(np.diag(kappa[at : at + k]))
            at += k
        else:
            Sigma = np.zeros((k, k))
            for j in range(k):
                for i in range(j, k):
                    Sigma[i, j] = Sigma[j, i] = kappa[at]
                    at += 1
            out.append(Sigma)
    return [*out, kappa[at]]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reml", [True, False])
def test_loglik_score_and_information(kind, reml):
    design = random_design(6, kind)
    objective = objective_of(design, reml)
    sigmas = sigmas_of(design, 2, 1.7)
    point = objective.at_components(sigmas)
    assert np.isclose(point.loglik, explicit(design, sigmas, reml), rtol=1e-10)
    kappa = point.values
    r = kappa.size
    assert len(point.names) == r == point.score.size
    unit = 1.0 / np.sqrt(np.diagonal(point.information("expected")))
    score, hessian = np.empty(r), np.empty((r, r))
    for j in range(r):
        h = 1e-3 * unit[j]
        both = []
        for sign in (1.0, -1.0):
            moved = kappa.copy()
            moved[j] += sign * h
            both.append(objective.at_components(perturbed(design, point, moved)))
        score[j] = (both[0].loglik - both[1].loglik) / (2 * h)
        hessian[j] = (both[0].score - both[1].score) / (2 * h)
    assert_close(point.score * unit, score * unit, 1e-5, "score", atol=1e-6)
    scale = unit[:, None] * unit
    assert_close(point.information("observed") * scale, -hessian * scale, 1e-5, "observed", atol=1e-5)
    average = 0.5 * (point.information("observed") + _expected_for_average(point))
    assert_close(point.information("average"), average, 1e-9, "average is the mean of the other two")
    for kind_of in ("average", "expected"):
        assert np.linalg.eigvalsh(point.information(kind_of) * scale)[0] > -1e-9


def _expected_for_average(point):
    """1/2 tr(PV_iPV_j); observed + this = 2 average, an identity of average information."""
    return point.information("expected")


def test_score_has_mean_zero_and_the_information_as_variance():
    """E score = 0 and Var score = expected information under the model (REML, 250 draws)."""
    design = random_design(1, "two_crossed", n=60)
    sigmas = [np.array([[0.8]]), np.array([[1.5]]), 1.2]
    V = 1.2 * np.eye(60)
    for term, Sigma in zip(design.terms, sigmas[:-1], strict=True):
        V += Sigma[0, 0] * (term.codes[:, None] == term.codes)
    root, rng = np.linalg.cholesky(V), np.random.default_rng(5)
    solver = DenseSolver(design)
    scores = []
    from mixedmodels.design import Design

    for _ in range(250):
        y = design.X @ np.ones(3) + root @ rng.normal(size=60)
        drawn = Design(y, design.X, design.x_names, design.terms)
        scores.append(objective_of(drawn).at_components(sigmas).score)
    expected = LMMObjective(design, solver).at_components(sigmas).information("expected")
    scores = np.array(scores)
    z = scores.mean(axis=0) / np.sqrt(np.diagonal(expected) / len(scores))
    assert np.max(np.abs(z)) < 4.0
    ratio = scores.var(axis=0) / np.diagonal(expected)
    assert np.all((ratio > 0.7) & (ratio < 1.4))


def test_agrees_with_the_profiled_criterion_at_its_sigma():
    design = random_design(1, "crossed_slopes")
    objective = objective_of(design)
    theta = objective.start
    sigma2 = objective.sigma(theta) ** 2
    point = objective.at_components([*[sigma2 * f @ f.T for f in objective.factors(theta)], sigma2])
    assert np.isclose(-2.0 * point.loglik, objective.value(theta), rtol=1e-12)


def test_zero_and_singular_components_are_ordinary_points():
    design = random_design(1, "one_slope")
    for Sigma in (np.zeros((2, 2)), np.array([[1.0, 2.0], [2.0, 4.0]])):
        point = objective_of(design).at_components([Sigma, 1.0])
        assert np.isclose(point.loglik, explicit(design, [Sigma, 1.0], True), rtol=1e-10)
        assert np.all(np.isfinite(point.score)) and np.all(np.isfinite(point.information("observed")))


def test_names_and_mapping_by_group():
    design = random_design(1, "crossed_slopes")
    objective = objective_of(design)
    point = objective.at_components({"Residual": 2.0, "h": np.eye(3), "g": np.diag([1.0, 0.5])})
    assert point.names[:3] == ("g.(Intercept)", "g.x.(Intercept)", "g.x") and point.names[-1] == "Residual"
    assert point.values.tolist() == [1.0, 0.0, 0.5, 1, 0, 0, 1, 0, 1, 2.0]
    same = objective.at_components([np.diag([1.0, 0.5]), np.eye(3), 2.0])
    assert same.loglik == point.loglik
    assert "log-likelihood" in repr(point)


def test_shared_terms_have_one_component():
    design = random_design(1, "shared")
    point = objective_of(design).at_components([0.5, 0.5, 1.0])
    assert point.names == ("g.(Intercept)", "Residual")
    up, down = (objective_of(design).at_components([0.5 + h, 0.5 + h, 1.0]).loglik for h in (1e-5, -1e-5))
    assert np.isclose(point.score[0], (up - down) / 2e-5, rtol=1e-6)
    with pytest.raises(OptionError, match="give both the same"):
        objective_of(design).at_components([0.5, 0.6, 1.0])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([np.eye(2), 1.0], "2 variances given; give one per term"),
        ({"g": np.eye(2), "Residual": 1.0}, "missing: h"),
        ({"g": np.eye(2), "h": np.eye(3), "i": 1.0, "Residual": 1.0}, "unknown: i"),
        ([np.eye(2), np.eye(3), 0.0], "residual variance must be positive"),
        ([np.eye(3), np.eye(3), 1.0], r"'g' has shape \(3, 3\), expected \(2, 2\)"),
        ([np.array([[1.0, 2.0], [2.0, 1.0]]), np.eye(3), 1.0], "'g' is not positive semi-definite"),
        ([np.array([[1.0, 0.5], [0.2, 1.0]]), np.eye(3), 1.0], "'g' must be finite and symmetric"),
    ],
)
def test_bad_components_get_one_clear_error(given, message):
    with pytest.raises(OptionError, match=message):
        objective_of(random_design(1, "crossed_slopes")).at_components(given)


def test_structures_refuse_what_lies_outside():
    objective = objective_of(random_design(1, "crossed_diag"))
    with pytest.raises(OptionError, match="diagonal for structure 'diag'"):
        objective.at_components([np.array([[1.0, 0.1], [0.1, 1.0]]), 1.0, 1.0])
    with pytest.raises(OptionError, match="equal variances for structure 'homdiag'"):
        objective.at_components([[1.0, 2.0], [1.0, 2.0], 1.0])
    two = objective_of(random_design(1, "same_group_two_terms"))
    with pytest.raises(OptionError, match="same grouping factor"):
        two.at_components({"g": 1.0, "Residual": 1.0})
