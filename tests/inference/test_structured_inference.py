"""Structured residuals: robust covariances, comparisons, variance parts, draws, tidy tables."""

from __future__ import annotations

import numpy as np
import pytest

import mixedmodels as mm
from mixedmodels.errors import OptionError
from mixedmodels.inference.ddf.small_sample import _derivatives
from mixedmodels.inference.likelihood.nesting import nested_residual

GROWTH = "distance ~ age * Sex"


@pytest.fixture(scope="module")
def growth():
    data = mm.load_dataset("Orthodont", backend="pandas")
    known = np.where(data["Sex"] == "Male", 1.0, 0.5)
    return data.assign(occ=(data["age"] / 2 - 3).astype(int), known=known, weight=1.0 / known)


@pytest.fixture(scope="module")
def het(growth):
    return mm.lmm(GROWTH + " + (1 | Subject)", growth, residual="ar1(occ | Subject) * varident(Sex)")


# ---------------------------------------------------------------------- robust covariances


@pytest.mark.parametrize("kind", ["CR0", "CR1", "CR2", "CR3"])
def test_robust_covariances_of_equal_models(growth, kind):
    """Known variances are weights; compound symmetry is a random intercept."""
    pairs = [
        (
            mm.lmm(GROWTH + " + (age | Subject)", growth, weights="weight"),
            mm.lmm(GROWTH + " + (age | Subject)", growth, residual="varfixed(known)"),
        ),
        (mm.lmm(GROWTH + " + (1 | Subject)", growth), mm.gls(GROWTH, growth, residual="cs(1 | Subject)")),
    ]
    for one, other in pairs:
        first, second = one.robust_vcov(kind), other.robust_vcov(kind)
        np.testing.assert_allclose(second.vcov, first.vcov, rtol=1e-5)
        np.testing.assert_allclose(second.table["df"], first.table["df"], rtol=1e-4)


def test_cr2_is_unbiased_if_the_model_is_right(het):
    """sum_j X'V^-1 A V A'V^-1 X = X'V^-1 X less what estimating beta takes, with V written down."""
    design, point = het.design, het._point
    Z = np.zeros((design.n, design.terms[0].m))
    Z[np.arange(design.n), design.terms[0].codes] = 1.0
    W = point.whiten(np.eye(design.n))
    X, G = W @ design.X, W @ Z * het.theta[0]
    V = np.eye(design.n) + G @ G.T
    C = np.linalg.inv(X.T @ np.linalg.solve(V, X))
    meat = np.zeros_like(C)
    for level in range(design.terms[0].m):
        rows = np.flatnonzero(design.terms[0].codes == level)
        Vj, Xj = V[np.ix_(rows, rows)], X[rows]
        values, vectors = np.linalg.eigh(Vj)
        half = vectors * np.sqrt(values) @ vectors.T
        middle = half @ (Vj - Xj @ C @ Xj.T) @ half
        values, vectors = np.linalg.eigh(middle)
        A = half @ (vectors / np.sqrt(values) @ vectors.T) @ half
        np.testing.assert_allclose(A @ (Vj - Xj @ C @ Xj.T) @ A, Vj, atol=1e-10)
        e = (W @ (design.y - design.X @ het.beta))[rows]
        score = Xj.T @ np.linalg.solve(Vj, A @ e)
        meat += np.outer(score, score)
    np.testing.assert_allclose(het.robust_vcov("CR2").vcov, C @ meat @ C, rtol=1e-8)


def test_clusters_must_hold_the_series(het, growth):
    with pytest.raises(OptionError, match="cut through the groups of correlated residuals"):
        mm.gls(GROWTH, growth, residual="ar1(occ | Subject)").robust_vcov(cluster="age")


# ---------------------------------------------------------------------- comparisons


def test_residual_structures_inside_others(growth):
    fits = {
        text: mm.gls(GROWTH, growth, residual=text)
        for text in (
            "varident(Sex)",
            "ar1(occ | Subject)",
            "ar1(occ | Subject) * varident(Sex)",
            "ar1(occ | Subject, rho=0.5)",
            "toep(occ | Subject)",
            "us(occ | Subject)",
            "cs(1 | Subject)",
            "exp(age | Subject)",
            "us(occ | Subject, by=Sex)",
            "varpower(age)",
            "varpower(age, by=Sex)",
        )
    }
    fits["none"] = mm.gls(GROWTH, growth)
    inside = [
        ("none", "varident(Sex)"),
        ("none", "us(occ | Subject)"),
        ("ar1(occ | Subject)", "ar1(occ | Subject) * varident(Sex)"),
        ("ar1(occ | Subject)", "toep(occ | Subject)"),
        ("toep(occ | Subject)", "us(occ | Subject)"),
        ("cs(1 | Subject)", "us(occ | Subject)"),
        ("us(occ | Subject)", "us(occ | Subject, by=Sex)"),
        ("varident(Sex)", "us(occ | Subject, by=Sex)"),
        ("ar1(occ | Subject) * varident(Sex)", "us(occ | Subject, by=Sex)"),
        ("cs(1 | Subject)", "us(occ | Subject, by=Sex)"),
        ("us(occ | Subject)", "us(occ | Subject, by=Sex)"),
        ("varpower(age)", "varpower(age, by=Sex)"),
    ]
    for small, large in inside:
        assert nested_residual(fits[small].design, fits[large].design) is True
    unknown = [
        ("none", "ar1(occ | Subject, rho=0.5)"),
        ("varident(Sex)", "us(occ | Subject)"),
        ("ar1(occ | Subject)", "exp(age | Subject)"),
        ("us(occ | Subject, by=Sex)", "us(occ | Subject)"),
        ("varpower(age, by=Sex)", "varpower(age)"),
    ]
    for small, large in unknown:
        assert nested_residual(fits[small].design, fits[large].design) is None
    table = mm.compare(fits["varident(Sex)"], fits["us(occ | Subject)"])
    assert any(
        "the residual structure of the smaller model could not be shown" in note for note in table.notes
    )


def test_likelihood_ratio_of_a_structure_is_not_on_the_boundary(growth):
    """nlme 3.1 (tests/references/structured/nlme_anova.R); a ratio of 1 is inside its range."""
    none, different = mm.gls(GROWTH, growth), mm.gls(GROWTH, growth, residual="varident(Sex)")
    table = mm.compare(none, different)
    assert table["statistic"][1] == pytest.approx(0.233385753195, abs=1e-8)
    assert table["p_value"][1] == pytest.approx(0.629024628844, abs=1e-8)
    assert not table.notes
    assert str(table["model"][1]).endswith("; residual varident(Sex)")


def test_different_fixed_parts_are_refitted(growth):
    """Hard case 43, with a residual structure."""
    one = mm.gls("distance ~ age + Sex", growth, residual="ar1(occ | Subject)")
    two = mm.gls(GROWTH, growth, residual="ar1(occ | Subject)")
    table = mm.compare(one, two)
    assert "refitted by maximum likelihood" in table.notes[0]
    assert all(not fit.is_reml for fit in table.extra["fits"])


def test_variance_beside_a_structure_is_on_the_boundary(growth, het):
    """Hard case 44: the random intercept beside AR(1); its chi-squared p-value is halved by the mixture."""
    plain, mixture = het.test_random(), het.test_random(method="mixture")
    without = mm.gls(GROWTH, growth, residual="ar1(occ | Subject) * varident(Sex)")
    assert plain["statistic"][1] == pytest.approx(2 * (het.loglik - without.loglik), abs=1e-6)
    assert mixture["p_value"][1] == pytest.approx(0.5 * plain["p_value"][1], rel=1e-8)
    assert any("boundary" in note for note in plain.notes)
    with pytest.raises(OptionError, match="independent residuals of equal variance"):
        het.test_random(method="rlrt")


def test_terms_left_out(growth, het):
    """drop1 by likelihood ratio and by F, and test_fixed, against refits."""
    small = mm.lmm(
        "distance ~ age + Sex + (1 | Subject)",
        growth,
        residual="ar1(occ | Subject) * varident(Sex)",
        reml=False,
    )
    statistic = 2 * (het.refit_ml().loglik - small.loglik)
    assert het.drop1(test="lrt").row("age:Sex")["statistic"] == pytest.approx(statistic, abs=1e-6)
    assert het.test_fixed("age:Sex", method="lrt")["statistic"][0] == pytest.approx(statistic, abs=1e-6)
    by_kr = het.drop1(ddf="kr").row("age:Sex")
    assert by_kr["den_df"] == pytest.approx(het.anova(ddf="kr").row("age:Sex")["den_df"], rel=1e-8)


# ---------------------------------------------------------------------- variance parts, small samples


def test_variance_parts(growth, het):
    parts = het.variance_parts()
    sds = het.sigma * np.where(growth["Sex"] == "Male", 1.0, het.residual["sd_ratio[Female]"])
    assert parts["variance"][2] == pytest.approx(np.mean(sds**2), rel=1e-10)
    random, residual = parts["variance"][1], parts["variance"][2]
    assert het.icc()["adjusted"][0] == pytest.approx(random / (random + residual), rel=1e-12)
    weighted = mm.lmm(GROWTH + " + (1 | Subject)", growth, weights="weight")
    known = mm.lmm(GROWTH + " + (1 | Subject)", growth, residual="varfixed(known)")
    np.testing.assert_allclose(known.r2()["estimate"], weighted.r2()["estimate"], rtol=1e-5)


@pytest.mark.parametrize(
    ("random", "structure"),
    [
        (" + (1 | Subject)", "ar1(occ | Subject) * varident(Sex)"),
        (" + (age | Subject)", "varident(Sex)"),
        (" + (1 | occ)", "ar1(occ | Subject)"),
    ],
)
def test_derivatives_of_the_estimates(growth, random, structure):
    """beta and b against differences in psi."""
    fit = mm.lmm(GROWTH.replace("age *", "known *") + random, growth, residual=structure)
    objective, theta = fit.objective, np.array(fit.theta)
    d_beta, d_b = _derivatives(fit, [np.array(factor) for factor in fit._factors])
    h = 1e-5
    for i in range(len(theta)):
        step = np.zeros(len(theta))
        step[i] = h
        up, down = objective.solution(theta + step), objective.solution(theta - step)
        np.testing.assert_allclose(
            d_beta[i], (up.beta - down.beta) / (2 * h), atol=1e-5 * np.abs(fit.beta).max()
        )
        expected = (up.b[0] - down.b[0]) / (2 * h)
        np.testing.assert_allclose(d_b[0][i], expected, atol=1e-6 + 1e-5 * np.abs(expected).max())


def test_small_samples(het):
    table = het.small_sample()
    assert (np.asarray(table["std_error"]) > np.asarray(table["conditional"])).all()


# ---------------------------------------------------------------------- draws and tables


def test_bootstrap_has_the_parameters_of_the_structure(growth):
    fit = mm.gls(GROWTH, growth, residual="ar1(occ | Subject)")
    draws = fit.bootstrap(40, seed=3, n_jobs=1, progress=False)
    for kind in ("percentile", "basic", "normal"):
        row = fit.confint("bootstrap", n=40, seed=3, n_jobs=1, progress=False, kind=kind).row("rho")
        assert row["conf_low"] < fit.residual["rho"] < row["conf_high"]
    refitted = fit.refit(fit.simulate(1, seed=11)[:, 0])
    assert -1.0 < refitted.residual["rho"] < 1.0
    assert "rho" in draws.names


def test_tidy_rows(het):
    tidy = het.tidy(conf_int=True)
    rows = tidy[tidy["group"] == "Residual"]
    assert rows["term"].tolist() == ["sd__Observation", "rho", "sd_ratio[Female]"]
    np.testing.assert_allclose(rows["estimate"].to_numpy()[1:], het.residual.values)
    np.testing.assert_allclose(rows["std_error"].to_numpy()[1:], het.residual.std_error)
    assert (rows["conf_low"].to_numpy()[1:] < rows["estimate"].to_numpy()[1:]).all()
    alone = het.tidy(effects="residual")
    assert alone["term"].tolist() == ["rho", "sd_ratio[Female]"]
    frame = het.varcorr.to_frame()
    assert frame["name1"].tolist()[-2:] == ["rho", "sd_ratio[Female]"]
    np.testing.assert_allclose(frame["sdcor"].to_numpy()[-2:], het.residual.values)


def test_parameters_that_are_held_have_no_rows(growth):
    fit = mm.gls(GROWTH, growth, residual="ar1(occ | Subject, rho=0.5) * varident(Sex)")
    assert list(fit.variance_parameters()["term"]) == ["sigma", "sd_ratio[Female]"]
    with pytest.raises(OptionError, match="there is no parameter 'rho'"):
        fit.confint("profile", parameters="rho")


def test_bca_needs_levels_to_leave_out():
    rng = np.random.default_rng(4)
    data = {"y": rng.normal(size=40), "x": rng.normal(size=40), "s": ["a", "b"] * 20}
    boot = mm.gls("y ~ x", data, residual="varident(s)").bootstrap(20, seed=1)
    with pytest.raises(mm.OptionError, match="this model has none; take kind='percentile'"):
        boot.confint("bca")
    table = boot.confint("all")
    assert "bca" not in set(table["kind"]) and any("no BCa intervals" in note for note in table.notes)


def test_a_solver_named_beside_structured_residuals_is_spoken_of(growth):
    model = GROWTH + " + (1 | Subject)"
    named = mm.lmm(model, growth, residual="ar1(occ | Subject)", solver="dense")
    plain = mm.lmm(model, growth, residual="ar1(occ | Subject)")
    assert any("solver='dense'" in note and "dense" in note.split("it was:")[1] for note in named.messages)
    assert not any("solver=" in note for note in plain.messages)
    assert named.loglik == pytest.approx(plain.loglik, rel=1e-10)
