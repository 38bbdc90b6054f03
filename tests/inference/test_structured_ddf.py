"""Degrees of freedom of fits with structured residuals: dense formulas, exact cases, equal models."""

from __future__ import annotations

import numpy as np
import pytest

import mixedmodels as mm
from mixedmodels.errors import OptionError
from mixedmodels.inference.ddf.kenward_roger import f_moments
from mixedmodels.inference.ddf.reference import reference_for
from mixedmodels.solver.covariance_oracle import dense_oracle

GROWTH = "distance ~ age * Sex"


@pytest.fixture(scope="module")
def growth():
    data = mm.load_dataset("Orthodont", backend="pandas")
    occ = (data["age"] / 2 - 3).astype(int)
    tester = np.arange(len(data)) * 5 % 7
    return data.assign(
        occ=occ,
        visit="v" + occ.astype(str),
        tester=tester.astype(str),
        tested=data["distance"] + np.array([1.0, -2.0, 0.5, 2.0, -1.0, 0.0, -1.5])[tester],
    )


def dense_kenward_roger(fit):
    """Kenward and Roger (1997), first derivatives only, from V written down as a matrix."""
    objective, psi = fit.objective, np.array(fit.theta)
    theta, phi = objective.split(psi)
    point = objective.residual.at(phi)
    derivatives = objective._map.derivatives(theta)
    oracle = dense_oracle(fit.design, point, objective.n_phi, objective.factors(psi), derivatives)
    X, V = oracle.X, fit.sigma**2 * oracle.V
    first = [fit.sigma**2 * D for D in oracle.first] + [V]  # in psi and log sigma^2
    inverse = np.linalg.inv(V)
    Phi = np.linalg.inv(X.T @ inverse @ X)
    P = inverse - inverse @ X @ Phi @ X.T @ inverse
    r = len(first)
    information = np.array([[0.5 * np.sum((P @ A) * (P @ B).T) for B in first] for A in first])
    W = np.linalg.inv(information)
    Pi = [-X.T @ inverse @ D @ inverse @ X for D in first]
    middle = np.zeros_like(Phi)
    for i in range(r):
        for j in range(r):
            Q = X.T @ inverse @ first[i] @ inverse @ first[j] @ inverse @ X
            middle += W[i, j] * (Q - Pi[i] @ Phi @ Pi[j])
    return Phi + 2.0 * Phi @ middle @ Phi, Phi, np.array([Phi @ one @ Phi for one in Pi]), W


STRUCTURES = [
    ("", "ar1(occ | Subject)"),
    ("", "us(visit | Subject)"),
    ("", "toep(visit | Subject)"),
    ("", "cs(1 | Subject) * varident(Sex)"),
    (" + (1 | Subject)", "ar1(occ | Subject) * varident(Sex)"),
    (" + (age | Subject)", "varident(Sex)"),
    (" + (1 | tester) + (1 | Subject)", "varident(Sex)"),
    (" + (1 | tester)", "ar1(occ | Subject) * varident(Sex)"),
]


@pytest.mark.parametrize(("random", "residual"), STRUCTURES)
def test_kenward_roger_against_dense_formulas(growth, random, residual):
    formula = GROWTH.replace("distance", "tested") if "tester" in random else GROWTH
    fit = mm.gls(formula + random, growth, residual=residual)
    adjusted, Phi, J, W = dense_kenward_roger(fit)
    reference = reference_for(fit, "kr")
    np.testing.assert_allclose(reference.vcov, adjusted, rtol=1e-6, atol=1e-6 * np.abs(adjusted).max())
    L = np.eye(4)[1:]
    m, scaling = f_moments(L, Phi, J, W)
    test = reference.f_test(L)
    assert test.den_df == pytest.approx(m, rel=1e-5)
    assert test.scaling == pytest.approx(scaling, rel=1e-6)
    each = [f_moments(row[None], Phi, J, W)[0] for row in np.eye(4)]
    np.testing.assert_allclose(reference.df(np.eye(4)), each, rtol=1e-5)


def test_compound_symmetry_is_a_random_intercept(growth):
    """One model in two forms; the values of the second are those of pbkrtest (test_ddf)."""
    cs = mm.gls(GROWTH, growth, residual="cs(1 | Subject)")
    intercept = mm.lmm(GROWTH + " + (1 | Subject)", growth)
    for name in ("estimate", "std_error", "df", "p_value"):
        np.testing.assert_allclose(
            cs.coefficients("kr").columns[name], intercept.coefficients("kr").columns[name], rtol=1e-5
        )
    one, other = cs.anova(ddf="kr").columns, intercept.anova(ddf="kr").columns
    np.testing.assert_allclose(one["den_df"], other["den_df"], rtol=1e-5)
    np.testing.assert_allclose(one["statistic"], other["statistic"], rtol=1e-5)


def test_coordinates_do_not_matter(growth):
    """AR(1) at equal distances is the continuous AR(1) in another parameter."""
    ar1 = mm.gls(GROWTH, growth, residual="ar1(occ | Subject)")
    car1 = mm.gls(GROWTH, growth, residual="car1(age | Subject)")
    for ddf in ("kr", "satterthwaite"):
        np.testing.assert_allclose(
            ar1.coefficients(ddf).columns["df"], car1.coefficients(ddf).columns["df"], rtol=1e-5
        )
        np.testing.assert_allclose(
            ar1.coefficients(ddf).columns["std_error"], car1.coefficients(ddf).columns["std_error"], rtol=1e-5
        )


def hotelling(Y, G):
    """Hotelling's T^2 that the columns of Y have equal means in all groups, as F."""
    C = Y[:, 1:] - Y[:, :1]
    groups = np.unique(G)
    residual = np.concatenate([C[g == G] - C[g == G].mean(axis=0) for g in groups])
    nu, q = len(C) - len(groups), C.shape[1]
    S = residual.T @ residual / nu
    mean = C.mean(axis=0)
    T2 = len(C) * mean @ np.linalg.solve(S, mean)
    return T2 * (nu - q + 1) / (nu * q), q, nu - q + 1


def test_one_sample_of_complete_visits_is_hotelling(growth):
    """Kenward and Roger (1997), section 4: their F is exactly Hotelling's T^2."""
    fit = mm.gls("distance ~ visit", growth, residual="us(visit | Subject)")
    wide = growth.pivot(index="Subject", columns="occ", values="distance").to_numpy()
    F, q, df = hotelling(wide, np.zeros(len(wide)))
    table = fit.anova(ddf="kr").columns
    assert table["num_df"][0] == q
    assert table["den_df"][0] == pytest.approx(df, rel=1e-6)
    assert table["statistic"][0] == pytest.approx(F, rel=1e-6)


def test_two_groups_of_complete_visits(growth):
    """Every cell mean on its own: t tests with children less groups, and Hotelling's for the interaction."""
    fit = mm.gls("distance ~ visit * Sex", growth, residual="us(visit | Subject)")
    np.testing.assert_allclose(fit.coefficients("kr").columns["df"], 25.0, rtol=1e-6)
    np.testing.assert_allclose(fit.coefficients("kr").columns["std_error"], list(fit.se.values()), rtol=1e-6)
    wide = growth.pivot(index="Subject", columns="occ", values="distance")
    sex = growth.groupby("Subject")["Sex"].first().loc[wide.index].to_numpy()
    C = wide.to_numpy()[:, 1:] - wide.to_numpy()[:, :1]
    male, female = C[sex == "Male"], C[sex == "Female"]
    S = ((len(male) - 1) * np.cov(male.T) + (len(female) - 1) * np.cov(female.T)) / 25.0
    gap = male.mean(axis=0) - female.mean(axis=0)
    T2 = gap @ np.linalg.solve(S, gap) / (1 / len(male) + 1 / len(female))
    row = fit.anova(ddf="kr").row("visit:Sex")
    assert row["den_df"] == pytest.approx(25 - 3 + 1, rel=1e-6)
    assert row["statistic"] == pytest.approx(T2 * 23 / (25 * 3), rel=1e-6)


def test_groups_of_their_own_covariances_are_welch(growth):
    """us by sex: the difference of two means of complete groups has Welch's degrees of freedom."""
    last = growth[growth["occ"] == 3]
    fit = mm.gls("distance ~ Sex", last, residual="varident(Sex)")
    groups = [last.loc[last["Sex"] == sex, "distance"].to_numpy() for sex in ("Male", "Female")]
    v = np.array([g.var(ddof=1) / len(g) for g in groups])
    welch = v.sum() ** 2 / sum(v**2 / (np.array([len(g) for g in groups]) - 1))
    for ddf in ("satterthwaite", "kr"):
        assert fit.coefficients(ddf).row("SexFemale")["df"] == pytest.approx(welch, rel=1e-6)
    by_sex = mm.gls("distance ~ visit * Sex", growth, residual="us(visit | Subject, by=Sex)")
    last_visit = by_sex.test([{"SexFemale": 1, "visitv3:SexFemale": 1}], ddf="kr", joint=False).columns
    assert last_visit["df"][0] == pytest.approx(welch, rel=1e-5)


def test_maximum_likelihood_is_refused(growth):
    fit = mm.gls(GROWTH, growth, residual="ar1(occ | Subject)", reml=False)
    with pytest.raises(OptionError, match="needs a fit by REML"):
        fit.coefficients("kr")


def test_known_structure_without_parameters(growth):
    """Known correlations: sigma alone is estimated, and the t tests are exact with n - p."""
    fit = mm.gls(GROWTH, growth, residual="ar1(occ | Subject, rho=0.5)")
    np.testing.assert_allclose(fit.coefficients("kr").columns["df"], len(growth) - 4, rtol=1e-10)
    assert fit.anova(ddf="kr").columns["den_df"][0] == pytest.approx(len(growth) - 4, rel=1e-8)


def crossed_series(rng, groups=24, length=10, crossed=12, rho=0.6, ratio=1.8):
    """AR(1) residuals of two variances, a random intercept, a crossed factor; x between the series."""
    g, t = np.repeat(np.arange(groups), length), np.tile(np.arange(length), groups)
    h, s = rng.integers(0, crossed, g.size), rng.integers(0, 2, g.size)
    lag = np.abs(np.subtract.outer(np.arange(length), np.arange(length)))
    e = (rng.normal(size=(groups, length)) @ np.linalg.cholesky(rho**lag).T).ravel()
    x = (np.arange(groups) % 2)[g].astype(float)
    y = 1.0 + 0.5 * x + 0.7 * rng.normal(size=groups)[g] + 0.5 * rng.normal(size=crossed)[h]
    return {"y": y + e * np.where(s, ratio, 1.0), "x": x, "g": g, "h": h, "t": t, "s": s.astype(str)}


CROSSED = "y ~ x + (1 | g) + (1 | h)"
RESIDUAL = "ar1(t | g) * varident(s)"


def test_crossed_autocorrelated_and_two_variances():
    """AR(1), crossed factors and two variances: the sparse engine against dense formulas."""
    fit = mm.lmm(CROSSED, crossed_series(np.random.default_rng(3), 10, 6, 5), residual=RESIDUAL)
    assert "sparse" in fit.objective.engine.describe()
    adjusted, Phi, J, W = dense_kenward_roger(fit)
    reference = reference_for(fit, "kr")
    np.testing.assert_allclose(reference.vcov, adjusted, rtol=1e-6)
    each = [f_moments(row[None], Phi, J, W)[0] for row in np.eye(2)]
    np.testing.assert_allclose(reference.df(np.eye(2)), each, rtol=1e-5)
    assert np.isfinite(fit.coefficients("satterthwaite").columns["df"]).all()


@pytest.mark.slow
def test_simulation_of_the_crossed_model():
    """Means of the estimates are the truth, and t tests by Kenward-Roger keep their level."""
    found, reject, df = [], [], []
    for seed in range(120):
        fit = mm.lmm(CROSSED, crossed_series(np.random.default_rng(seed)), residual=RESIDUAL)
        sds = [term.sds[0] for term in fit.varcorr.terms]
        found.append([fit.residual["rho"], np.log(fit.residual["sd_ratio[1]"]), fit.sigma, *sds, *fit.beta])
        tests = {ddf: fit.test("x = 0.5", ddf=ddf).columns for ddf in ("kr", "satterthwaite")}
        reject.append([float(tests[ddf]["p_value"][0]) < 0.1 for ddf in tests])
        df.append(tests["kr"]["den_df"][0])
    found = np.array(found)
    truth = [0.6, np.log(1.8), 1.0, 0.7, 0.5, 1.0, 0.5]
    error = found.std(axis=0, ddof=1) / np.sqrt(len(found))
    slack = np.array([0.02, 0.0, 0.0, 0.05, 0.02, 0.0, 0.0])  # REML estimates of SDs are a little small
    assert (np.abs(found.mean(axis=0) - truth) < 3.3 * error + slack).all()
    assert 18 < np.median(df) < 26  # 24 series in two groups
    for rate in np.mean(reject, axis=0):
        assert abs(rate - 0.1) < 3.3 * np.sqrt(0.09 / len(reject))
