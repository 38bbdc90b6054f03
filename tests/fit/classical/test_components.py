"""Variance components by the classical algorithms: one optimum, whatever the road."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

import mixedmodels as mm
from mixedmodels.design import Precision, RandomTerm
from mixedmodels.errors import ConvergenceWarning, OptionError
from mixedmodels.fit.classical.names import Rules
from mixedmodels.fit.classical.run import estimate
from mixedmodels.objective.component_space import ComponentSpace
from mixedmodels.objective.lmm import LMMObjective
from mixedmodels.solver.choose import choose_solver
from mixedmodels.testing import random_design

HERE = Path(__file__).parents[2] / "references" / "classical"
NEWTON_LIKE = ("average-information", "fisher", "newton-raphson", "fast", "grid")
ALL = (*NEWTON_LIKE, "em", "ecme")


def h2test(reml):
    """pydigree's h2test: 100 families of two sibships of three, whose parents are sibs."""
    with open(HERE / "h2test.csv") as file:
        y = np.array([float(row["synthetic"]) for row in csv.DictReader(file)])
    A = np.full((6, 6), 0.125)
    A[:3, :3] = A[3:, 3:] = 0.5
    np.fill_diagonal(A, 1.0)
    inverse = sparse.csc_array(sparse.kron(sparse.eye(100), np.linalg.inv(A)))
    known = Precision(inverse, 100 * float(np.linalg.slogdet(A)[1]))
    animals = list(range(600))
    term = RandomTerm("animal", ("(Intercept)",), np.arange(600), animals, None, "us", known)
    return mm.LinearMixedModel.from_matrices(y, np.ones((600, 1)), [term], reml=reml)


def marijuana(name):
    with open(HERE / f"marijuana_{name}.csv") as file:
        rows = [row for row in csv.DictReader(file) if row["y"]]
    return {
        "y": np.array([float(row["y"]) for row in rows]),
        "occ": ["o" + row["occ"] for row in rows],
        "subj": [row["subj"] for row in rows],
    }


# SOLAR's heritability by ML, 0.4592420; by REML 0.46382659 (checked independently)
@pytest.mark.parametrize(("reml", "h2", "loglik"), [(False, 0.4592420, -829.35025994681)])
@pytest.mark.parametrize("method", ALL)
def test_heritability_of_solar(method, reml, h2, loglik):
    found = mm.variance_components(h2test(reml), method=method, starts="ols", tol=1e-12)
    assert found.converged
    assert found.proportions[0] == pytest.approx(h2, abs=1.2e-7)
    assert found.loglik == pytest.approx(loglik, rel=1e-12)


@pytest.mark.parametrize("method", ALL)
def test_heritability_by_reml(method):
    found = mm.variance_components(h2test(True), method=method, tol=1e-12)
    assert found.proportions[0] == pytest.approx(0.46382659419, abs=1.2e-7)
    assert found.values.sum() == pytest.approx(0.97975725036, rel=1e-7)
    assert found.loglik == pytest.approx(-831.39497274495, rel=1e-12)


@pytest.mark.parametrize("kappa", [(0.5, 0.5), (0.2, 0.8), (0.8, 0.2), (0.0, 1.0), (10.0, 20.0)])
@pytest.mark.parametrize("reml", [True, False])
def test_score_of_h2test_is_the_slope(kappa, reml):
    """The values where pydigree compared its scores with differences (there within 1e-3)."""
    model, kappa = h2test(reml), np.array(kappa)
    score, h = model.score_at(kappa), 1e-4
    for i, direction in enumerate(np.eye(2)):
        if kappa[i] == 0.0:  # one-sided, second order
            values = [model.loglik_at(kappa + j * h * direction) for j in range(3)]
            slope = (-3 * values[0] + 4 * values[1] - values[2]) / (2 * h)
        else:
            up, down = model.loglik_at(kappa + h * direction), model.loglik_at(kappa - h * direction)
            slope = (up - down) / (2 * h)
        assert score[i] == pytest.approx(slope, rel=2e-5, abs=1e-5)


@pytest.mark.parametrize(
    "start", ["moments", "ols", "equal", "em", "minque0", "minque1", "minquemean", (2.0, 3.0)]
)
def test_every_start_leads_to_the_optimum(start):
    found = mm.variance_components(h2test(True), starts=start, tol=1e-12)
    assert found.proportions[0] == pytest.approx(0.46382659, abs=5e-8)


# lme4's values of the two variants of the data; the paper's table 1 has four digits of the first
MARIJUANA = [
    ("paper", False, 87.884376, 3.0892877, -179.97716),
    ("paper", True, 100.18504, 3.4766573, -167.0374),
    ("r_data", False, 97.635932, 1.6218881, -182.15776),
    ("r_data", True, 111.28026, 1.8259428, -168.95055),
]


@pytest.mark.parametrize(
    ("method", "name", "reml", "sigma2", "psi", "loglik"),
    [(method, *row) for row in MARIJUANA for method in (ALL if row[0] == "paper" else NEWTON_LIKE)],
)
def test_marijuana(method, name, reml, sigma2, psi, loglik):
    found = mm.variance_components(
        "y ~ 0 + occ + (1 | subj)",
        marijuana(name),
        method=method,
        reml=reml,
        tol=1e-17 if method in ("em", "ecme") else 1e-13,
    )
    assert found.values[0] == pytest.approx(psi, rel=5e-7)
    assert found.values[1] == pytest.approx(sigma2, rel=1e-7)
    assert found.loglik == pytest.approx(loglik, abs=6e-5)


MU = {
    ("paper", False): [8.8381883, 16.888889, 18.303467, -1.640266, 7.5555556, -3.1618117],
    ("r_data", False): [8.7895521, 16.888889, 18.277213, 0.96470888, 7.5555556, -3.2104479],
    ("paper", True): [8.8371978, 16.888889, 18.302874, -1.6395169, 7.5555556, -3.1628022],
    ("r_data", True): [8.7890982, 16.888889, 18.276903, 0.96510684, 7.5555556, -3.2109018],
}
B = {
    "paper": [
        -0.079910344, -0.252242504, 0.092421815, 0.422993508, -0.899611963, -0.482018716, 1.356190985,
        -0.855405062, 0.697582282,
    ],
    "r_data": [
        0.190238858, -0.168269760, 0.010984549, 0.215221725, -0.459473867, -0.287772633, 0.668250348,
        -0.481964800, 0.312785581,
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", ["paper", "r_data"])
@pytest.mark.parametrize("method", ["fastml", "fastrml", "ecmeml", "ecmerml"])
def test_marijuana_by_schafers_methods(name, method):
    """The names of R's lmm say whether it is REML; estimates of mu and b to the digits given."""
    fit = mm.lmm("y ~ 0 + occ + (1 | subj)", marijuana(name), method=method, control={"tol": 1e-17})
    assert fit.is_reml is (method in ("fastrml", "ecmerml"))
    np.testing.assert_allclose(fit.beta, MU[name, fit.is_reml], rtol=1e-7)
    if fit.is_reml:
        np.testing.assert_allclose(fit.ranef_arrays()[0].b.ravel(), B[name], rtol=1e-6)


@pytest.mark.parametrize(
    ("method", "reml", "cycles"),
    [("fast", False, 8), ("fast", True, 10), ("ecme", False, 221), ("ecme", True, 247)],
)
def test_cycles_of_the_paper(method, reml, cycles):
    """Schafer's rule (relative change below 1e-4) from equal variances, p. 15."""
    found = mm.variance_components(
        "y ~ 0 + occ + (1 | subj)", marijuana("paper"), method=method, reml=reml, starts="equal",
        convergence="relative",
    )  # fmt: skip
    assert abs(found.iterations - cycles) <= 3


@pytest.mark.parametrize(
    "kind",
    ["one_slope", "crossed_slopes", "weights", "offset", "precision_slope", "shared", "homdiag", "diag"],
)
@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("method", NEWTON_LIKE)
def test_the_optimum_is_that_of_the_default_method(kind, reml, method):
    try:
        design = random_design(5, kind)
    except (KeyError, ValueError):
        pytest.skip("no such design")
    objective = LMMObjective(design, choose_solver(design), reml)
    from mixedmodels.optimize import minimize

    default = minimize(objective)
    found = estimate(objective, method)
    assert found.optimum.converged, found.optimum.message
    assert found.optimum.value == pytest.approx(default.value, abs=1e-7)


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("method", ["em", "ecme"])
def test_em_never_lowers_the_likelihood(method, reml):
    design = random_design(2, "crossed_slopes")
    objective = LMMObjective(design, choose_solver(design), reml)
    found = estimate(objective, method, "equal", Rules(convergence="proportions", tol=1e-4))
    loglik = found.optimum.history.loglik
    assert len(loglik) > 5 and (np.diff(loglik) > -1e-9).all()


def test_em_is_the_mean_of_the_expected_squares():
    """One step against dense conditional moments."""
    design = random_design(3, "one_slope")
    objective = LMMObjective(design, choose_solver(design), reml=False)
    space = ComponentSpace(objective)
    kappa = np.array([1.5, 0.2, 0.7, 0.9])
    term = design.terms[0]
    n, m, k = design.n, term.m, term.k
    Z = np.zeros((n, m * k))
    for i in range(n):
        Z[i, term.codes[i] * k : (term.codes[i] + 1) * k] = term.Z[i]
    Sigma = space.sigmas(kappa)[0]
    G = np.kron(np.eye(m), Sigma)
    V = Z @ G @ Z.T + kappa[-1] * np.eye(n)
    W = np.linalg.inv(V)
    beta = np.linalg.solve(design.X.T @ W @ design.X, design.X.T @ W @ design.y)
    r = design.y - design.X @ beta
    b, Vb = (G @ Z.T @ W @ r).reshape(m, k), G - G @ Z.T @ W @ Z @ G
    mean = np.mean(
        [np.outer(b[j], b[j]) + Vb[j * k : j * k + k, j * k : j * k + k] for j in range(m)], axis=0
    )
    e, Ve = kappa[-1] * W @ r, kappa[-1] * np.eye(n) - kappa[-1] ** 2 * W
    new = space.em(space.point(kappa))
    np.testing.assert_allclose(space.sigmas(new)[0], mean, rtol=1e-9)
    assert new[-1] == pytest.approx((e @ e + np.trace(Ve)) / n, rel=1e-9)


@pytest.mark.parametrize("reml", [True, False])
def test_average_information_is_the_mean_of_the_others(reml):
    model = h2test(reml)
    for kappa in ([0.2, 0.8], [10.0, 20.0]):
        point = model.at(kappa)
        half = 0.5 * (point.information("observed") + point.information("expected"))
        np.testing.assert_allclose(point.information("average"), half, rtol=1e-10)


def test_minque_solves_its_equations():
    """Dense P for both weights; the estimates do not depend on whether the model is ML or REML."""
    design = random_design(4, "crossed_slopes")
    objective = LMMObjective(design, choose_solver(design), reml=False)
    space = ComponentSpace(objective)
    from mixedmodels.fit.classical.starts import minque

    n = design.n
    V = []
    for row in space.directions:
        Vi = np.zeros((n, n))
        for term, E in zip(design.terms, row, strict=True):
            if E is not None:
                Z = np.ones((n, 1)) if term.Z is None else term.Z
                Vi += (term.codes[:, None] == term.codes[None, :]) * (Z @ E @ Z.T)
        V.append(Vi)
    V.append(np.eye(n))
    both = []
    for weights in ("0", "1"):
        prior = np.where(space.variances, float(weights), 0.0)
        prior[-1] = 1.0
        W = np.linalg.inv(sum(w * Vi for w, Vi in zip(prior, V, strict=True)))
        X, y = design.X, design.y
        P = W - W @ X @ np.linalg.solve(X.T @ W @ X, X.T @ W)
        S = np.array([[np.trace(P @ A @ P @ C) for A in V] for C in V])
        q = np.array([y @ P @ A @ P @ y for A in V])
        both.append(np.linalg.solve(S, q))
        np.testing.assert_allclose(minque(space, weights)[0], both[-1], rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(minque(space, "mean")[0], np.mean(both, axis=0), rtol=1e-7, atol=1e-9)


def test_minque_of_balanced_data_is_anova_and_reml():
    data = mm.load_dataset("Dyestuff", backend="dict")
    y = np.asarray(data["Yield"], dtype=float).reshape(6, 5)
    within = y.var(axis=1, ddof=1).mean()
    between = 5 * y.mean(axis=1).var(ddof=1)
    for weights in ("0", "1", "mean"):
        found = mm.variance_components("Yield ~ 1 + (1 | Batch)", data, method=f"minque({weights})")
        np.testing.assert_allclose(found.values, [(between - within) / 5, within], rtol=1e-9)
    fit = mm.lmm("Yield ~ 1 + (1 | Batch)", data, method="minque(0)")
    assert fit.sigma**2 == pytest.approx(within)
    assert any("minque(0)" in message for message in fit.messages)
    assert fit.refit(2.0 * y.ravel()).sigma == pytest.approx(2.0 * fit.sigma)


def test_negative_minque_is_said():
    data = mm.load_dataset("Dyestuff2", backend="dict")
    found = mm.variance_components("Yield ~ 1 + (1 | Batch)", data, method="minque(1)")
    assert found.unconstrained[0] < 0.0 and found.values[0] == 0.0
    assert "outside the parameter space" in found.optimum.message


@pytest.mark.parametrize("method", NEWTON_LIKE)
@pytest.mark.parametrize("reml", [True, False])
def test_a_variance_of_zero(method, reml):
    data = mm.load_dataset("Dyestuff2", backend="dict")
    found = mm.variance_components("Yield ~ 1 + (1 | Batch)", data, method=method, starts="equal", reml=reml)
    reference = mm.lmm("Yield ~ 1 + (1 | Batch)", data, reml=reml)
    assert found.converged and found.values[0] == 0.0
    assert found.loglik == pytest.approx(reference.loglik, abs=1e-9)
    assert np.isnan(found.covariance()[0, 0]) and found.covariance()[1, 1] > 0.0


def test_history_tells_what_was_rejected():
    found = mm.variance_components(h2test(False), method="newton-raphson", starts=(0.01, 30.0))
    table = found.history
    assert found.converged and found.proportions[0] == pytest.approx(0.459242, abs=1e-6)
    accepted = table["accepted"]
    assert (np.diff(table["loglik"][accepted]) >= -1e-9).all()
    assert not accepted.all() or (table["length"][1:] == 1.0).all()
    assert table["gradient"][accepted][-1] < 1e-3 < table["gradient"][0]


def test_scoring_rounds_before_newton():
    found = mm.variance_components(h2test(False), method="nr", starts="equal", scoring=2)
    steps = [step for step in found.history["step"] if step != "start"]
    assert steps[:2] == ["fisher", "fisher"] and set(steps[2:]) == {"newton"}


def test_a_history_for_every_method():
    data = mm.load_dataset("sleepstudy", backend="dict")
    formula = "Reaction ~ Days + (Days | Subject)"
    fit = mm.lmm(formula, data)
    table = fit.history
    assert table["loglik"][-1] == pytest.approx(fit.loglik, abs=1e-8)
    assert table["Residual"][-1] == pytest.approx(fit.sigma**2, rel=1e-6)
    other = mm.lmm(formula, data, method="average-information")
    assert other.loglik == pytest.approx(fit.loglik, abs=1e-9)
    assert other.history["step"][0] == "start"


def test_a_fit_with_history_is_saved(tmp_path):
    data = mm.load_dataset("Dyestuff", backend="dict")
    fit = mm.lmm("Yield ~ 1 + (1 | Batch)", data, method="fastml")
    fit.save(tmp_path / "fit.mm")
    again = mm.load(tmp_path / "fit.mm")
    assert str(again.history) == str(fit.history) and again.loglik == fit.loglik
    assert fit.update(reml=True).is_reml


def test_standard_errors_are_those_of_the_information():
    found = mm.variance_components(h2test(True), method="ai")
    information = found.at.information("expected")
    np.testing.assert_allclose(found.covariance() @ information, np.eye(2), atol=1e-10)
    table = found.table()
    assert table["std_error"][0] == pytest.approx(np.sqrt(found.covariance()[0, 0]))
    assert table["proportion"].sum() == pytest.approx(1.0)
    assert found.fit.loglik == pytest.approx(found.loglik, abs=1e-9)


def test_early_stop_warns():
    with pytest.warns(ConvergenceWarning, match="stopped after 2 iterations"):
        mm.variance_components(h2test(True), method="em", starts="equal", maxiter=2)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"method": "reml"}, "unknown method 'reml'"),
        ({"starts": "minque7"}, "starts must be one of"),
        ({"starts": (1.0, -1.0)}, "outside the parameter space"),
        ({"starts": (1.0, 1.0, 1.0)}, "3 variances given"),
        ({"scoring": -1}, "scoring must be"),
        ({"convergence": "always"}, "convergence must be"),
        ({"tol": 0.0}, "tol must be"),
    ],
)
def test_wrong_options(keywords, message):
    with pytest.raises(OptionError, match=message):
        mm.variance_components(h2test(True), **keywords)


def test_models_without_variance_components():
    data = mm.load_dataset("sleepstudy", backend="dict")
    formula = "Reaction ~ Days + (Days | Subject)"
    with pytest.raises(OptionError, match="free variance components"):
        mm.variance_components(formula, data, residual="ar1(Days | Subject)")
    with pytest.raises(OptionError, match="unstructured, diagonal"):
        mm.variance_components("Reaction ~ Days + cs(Days | Subject)", data)
    binary = {"y": [0, 1, 1, 0, 1, 1, 0, 0, 1, 1, 1, 0], "g": list("aaabbbcccddd")}
    fit = mm.glmm("y ~ 1 + (1 | g)", binary, family="binomial")
    assert len(fit.history) > 1
    with pytest.raises(OptionError, match="generalised"):
        mm.variance_components(fit)


def test_wrong_models():
    data = mm.load_dataset("Dyestuff", backend="dict")
    with pytest.raises(OptionError, match="give data with a formula"):
        mm.variance_components("Yield ~ 1 + (1 | Batch)")
    with pytest.raises(OptionError, match="leave sigma= out"):
        mm.lmm("Yield ~ 1 + (1 | Batch)", data, method="minque(0)", sigma=1.0)
    with pytest.raises(OptionError, match="unknown method 'fastest'"):
        mm.lmm("Yield ~ 1 + (1 | Batch)", data, method="fastest")
    with pytest.raises(OptionError, match="start must be one number"):
        mm.lmm("Yield ~ 1 + (1 | Batch)", data, start="somewhere")
