"""Direct and maternal effects in generalised models: one term whose rows touch two animals."""

from __future__ import annotations

import numpy as np
import pytest

import mixedmodels as mm
from mixedmodels.design import Precision
from mixedmodels.errors import NotImplementedYetError, OptionError
from mixedmodels.fit.simulate import relationship_root
from mixedmodels.objective.marginal.dense import DenseLaplace

FORMULA = "b ~ x + joint(1 | animal, 1 | dam)"
SIGMA = np.array([[1.0, -0.3], [-0.3, 0.6]])


def family(seed, founders=20, generations=4, size=40, Sigma=SIGMA, trials=5):
    """A pedigree and records of all but its founders."""
    pedigree = mm.genetics.random_pedigree(founders=founders, generations=generations, size=size, seed=seed)
    rng = np.random.default_rng(seed)
    matrix, logdet = pedigree.additive_precision()
    root = relationship_root(Precision(matrix, logdet))
    u = root(rng.standard_normal((matrix.shape[0], 2))) @ np.linalg.cholesky(Sigma).T
    rows = np.flatnonzero(pedigree.dam >= 0)
    x = rng.normal(size=rows.size)
    eta = 0.5 + x + u[rows, 0] + u[pedigree.dam[rows], 1]
    data = {
        "x": x,
        "animal": pedigree.ids[rows],
        "dam": pedigree.ids[pedigree.dam[rows]],
        "b": rng.binomial(trials, 1.0 / (1.0 + np.exp(-eta))),
        "m": np.full(rows.size, trials),
        "p": rng.poisson(np.exp(0.5 * eta)),
        "y": eta + rng.normal(size=rows.size),
        "c": np.digitize(eta + rng.logistic(size=rows.size), [-1.0, 1.5]),
    }
    return pedigree, data


def check_dense(fit):
    """The criterion of a fit by the dense equations, where its gradient is zero."""
    engine = fit.objective.marginal
    found = DenseLaplace(engine.design, engine.family).evaluate(*fit.objective._at(fit.psi), 1)
    assert found.value == pytest.approx(fit.criterion, rel=1e-11)
    assert np.abs(found.gradient).max() < 1e-3


@pytest.fixture(scope="module")
def maternal():
    pedigree, data = family(4)
    known = {"animal": pedigree}
    return pedigree, data, mm.glmm(FORMULA, data, known=known, family="binomial", trials="m")


@pytest.mark.parametrize(
    "formula", ["y ~ x + joint(1 | animal, 1 | dam)", "y ~ x + joint(1 + x | animal, 1 | dam)"]
)
def test_gaussian_with_identity_link_is_the_linear_model(maternal, formula):
    pedigree, data, _ = maternal
    known = {"animal": pedigree}
    linear = mm.lmm(formula, data, known=known, reml=False)
    fit = mm.glmm(formula, data, known=known, family="gaussian")
    assert fit.loglik == pytest.approx(linear.loglik, abs=1e-8)
    np.testing.assert_allclose(fit.beta, linear.beta, atol=1e-6)
    np.testing.assert_allclose(fit.sigma, linear.sigma, rtol=1e-6)
    found, wanted = fit._factors[0], linear.sigma * np.asarray(linear._factors[0])
    np.testing.assert_allclose(np.asarray(found) @ np.asarray(found).T, wanted @ wanted.T, atol=2e-5)
    for a, b in zip(fit.ranef_arrays(), linear.ranef_arrays(), strict=True):
        np.testing.assert_allclose(a.b, b.b, atol=1e-5)
    np.testing.assert_allclose(
        fit.conditional_covariance()[0], linear.conditional_covariance()[0], rtol=1e-4, atol=1e-6
    )


def test_dense_engine_finds_the_same(maternal):
    _, _, fit = maternal
    dense = fit.update(solver="dense")
    assert "sparse Laplace: terms 180 x 2" in fit.solver.describe()
    assert dense.loglik == pytest.approx(fit.loglik, abs=1e-9)
    np.testing.assert_allclose(dense.psi, fit.psi, atol=1e-5)
    np.testing.assert_allclose(dense.joint_vcov, fit.joint_vcov, rtol=1e-4, atol=1e-7)


def test_order_of_the_parts(maternal):
    pedigree, data, fit = maternal
    formula = "b ~ x + joint(1 | dam, 1 | animal)"
    turned = mm.glmm(formula, data, known={"dam": pedigree}, family="binomial", trials="m")
    assert turned.loglik == pytest.approx(fit.loglik, abs=1e-8)
    np.testing.assert_allclose(list(turned.se.values()), list(fit.se.values()), rtol=1e-4)
    own, other = fit.ranef_arrays()[0].b, turned.ranef_arrays()[0].b
    np.testing.assert_allclose(own[:, ::-1], other, atol=1e-4)


def test_report(maternal):
    _, _, fit = maternal
    text = str(fit.summary())
    assert "animal (Intercept)" in text and "dam " in text and "Corr" in text
    effects = fit.ranef(condvar=True)
    assert set(np.unique(effects["term"])) == {"(Intercept)", "dam"}
    assert fit.diagnose() is not None
    assert fit.test_random() is not None


def test_predictions(maternal):
    pedigree, data, fit = maternal
    rows = {name: values[:6] for name, values in data.items()}
    np.testing.assert_allclose(fit.predict(rows), fit.fitted()[:6], rtol=1e-12)
    own, new = fit.predict(se=True), fit.predict(rows, se=True)
    np.testing.assert_allclose(new["std_error"], own["std_error"][:6], rtol=1e-10)
    both = fit.predict(rows, interval="prediction")
    assert (both["conf_high"] >= both["predicted"]).all()
    # a calf that the pedigree does not know: its own effect is 0, that of its dam stays
    other = dict(rows, animal=np.array(["new"] * 6))
    eta = fit.predict(other, new_levels="population", type="link")
    place = {label: i for i, label in enumerate(pedigree.ids.tolist())}
    dams = np.array([place[label] for label in rows["dam"]])
    wanted = fit.beta[0] + fit.beta[1] * rows["x"] + fit.ranef_arrays()[0].b[dams, 1]
    np.testing.assert_allclose(eta, wanted, rtol=1e-12)
    wider = fit.predict(other, new_levels="population", se=True, type="link")["std_error"]
    assert (wider > fit.predict(rows, se=True, type="link")["std_error"]).all()
    least = np.asarray(fit._factors[0])[0, 0]  # the whole direct variance and more
    assert (wider > least).all()
    limits = fit.predict(rows, interval="prediction", re_form="population")
    assert np.isfinite(limits["conf_low"]).all()


def test_standard_errors_by_dense_matrices(maternal):
    # Var(eta^ - eta) = z'Lambda H^{-1} Lambda'z + J V J', with the derivatives of the modes by differences
    _, _, fit = maternal
    found = fit.predict(se=True, type="link")["std_error"]
    dense = fit.update(solver="dense", fixed=None).objective
    psi = np.array(fit.psi)
    V = np.asarray(fit.joint_vcov)

    def eta(at):
        return dense.modes(at).eta[0]

    J = np.empty((fit.nobs, len(psi)))
    for j, step in enumerate(1e-4 * np.eye(len(psi))):
        J[:, j] = (eta(psi + step) - eta(psi - step)) / 2e-4
    gamma, factors = dense._at(psi)
    inner = dense.marginal.predictor_variances(gamma, factors)
    wanted = np.sqrt(inner + np.einsum("ij,jk,ik->i", J, V, J))
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_draws(maternal):
    _, data, fit = maternal
    y = fit.simulate(2, seed=1)
    assert y.shape == (fit.nobs, 2) and (y >= 0).all() and (y <= 5).all()
    rows = {name: values[:6] for name, values in data.items()}
    unseen = fit.simulate(3, seed=1, newdata=dict(rows, animal=np.array(["new"] * 6)))
    assert np.isfinite(unseen).all()
    # kept effects: means are the fitted ones
    kept = fit.simulate(400, seed=2, new_effects=False).mean(axis=1) / 5.0
    assert np.abs(kept - fit.fitted()).max() < 0.12
    again = fit.refit(y[:, 0])
    assert again.converged and again.loglik != fit.loglik
    assert fit.bootstrap(2, seed=1).beta.shape == (2, 2)


def test_variance_of_the_drawn_effects(maternal):
    # rows of the linear predictor: z'(A kron Sigma)z, an animal and its dam are related
    from mixedmodels.inference.checks.observed_variance import row_variances

    pedigree, _, fit = maternal
    term = fit.generalised.terms[0]
    Z = term.matrix(fit.nobs).toarray()
    F = np.asarray(fit._factors[0])
    S = np.kron(pedigree.additive().toarray(), F @ F.T)
    np.testing.assert_allclose(row_variances(fit, 0), np.einsum("ij,jk,ik->i", Z, S, Z), rtol=1e-9)
    assert fit.icc(scale="observation") is not None


def test_profile_intervals(maternal):
    _, _, fit = maternal
    table = fit.confint(method="profile")
    for j, term in enumerate(table["term"]):
        assert table["conf_low"][j] <= table["estimate"][j] <= table["conf_high"][j], term
    # the limit of the second standard deviation: the likelihood held there has fallen by the quantile
    moved = fit.update(
        formula="b ~ x + joint(1 | dam, 1 | animal)", known={"dam": fit._options.known["animal"]}
    )
    other = moved.confint(method="profile")
    assert table["conf_high"][-1] == pytest.approx(other["conf_high"][-1], abs=1e-3)


def test_other_families_and_terms(maternal):
    pedigree, data, _ = maternal
    known = {"animal": pedigree}
    ordered = mm.glmm("c ~ x + joint(1 | animal, 1 | dam)", data, known=known, family="cumulative")
    assert ordered.converged and len(ordered.thresholds) == 2
    check_dense(ordered)
    counts = mm.glmm(
        "p ~ x + joint(1 | animal, 1 | dam) + (1 | g)",
        {**data, "g": data["dam"]},
        known=known,
        family="poisson",
    )
    assert counts.converged and len(counts._factors) == 2
    slope = mm.glmm("p ~ x + joint(1 + x | animal, 1 | dam)", data, family="poisson")
    assert slope.converged and np.asarray(slope._factors[0]).shape == (3, 3)
    crude = mm.glmm(FORMULA, data, known=known, family="binomial", trials="m", nagq=0)
    assert crude.converged


def test_few_binary_records(maternal):
    pedigree, data, _ = maternal
    binary = {**data, "b": (data["y"] > 0.5).astype(int)}
    fit = mm.glmm(FORMULA, binary, known={"animal": pedigree}, family="binomial")
    assert any("few binary observations per level of animal (median 1)" in note for note in fit.messages)


def test_ratios_of_variances(maternal):
    pedigree, data, fit = maternal
    F = np.asarray(fit._factors[0])
    S = F @ F.T
    parts = "`animal.(Intercept)` + `animal.dam.(Intercept)` + animal.dam"
    row = fit.heritability(f"`animal.(Intercept)` / ({parts} + Residual)").rows()[0]
    wanted = S[0, 0] / (S[0, 0] + S[1, 0] + S[1, 1] + np.pi**2 / 3.0)
    assert row["estimate"] == pytest.approx(wanted, rel=1e-10)
    # counts: the residual variance is ln(1 + 1/lambda) at the mean over animals, not inbred, and their dams
    counts = mm.glmm("p ~ x + joint(1 | animal, 1 | dam)", data, known={"animal": pedigree}, family="poisson")
    F = np.asarray(counts._factors[0])
    S = F @ F.T
    A = pedigree.additive().toarray()
    place = {label: i for i, label in enumerate(pedigree.ids.tolist())}
    own, dam = ([place[label] for label in data[name]] for name in ("animal", "dam"))
    v = S[0, 0] + S[1, 1] + 2.0 * S[1, 0] * A[own, dam]
    mean = np.mean(np.exp(counts._etas("population")[0] + 0.5 * v))
    wanted = S[1, 1] / (S[1, 1] + np.log1p(1.0 / mean))
    row = counts.heritability("animal.dam / (animal.dam + Residual)").rows()[0]
    assert row["estimate"] == pytest.approx(wanted, rel=1e-9)


def test_units_of_a_slope_do_not_matter(maternal):
    _, data, _ = maternal
    formula = "p ~ x + joint(1 + x | animal, 1 | dam)"
    one = mm.glmm(formula, data, family="poisson")
    other = mm.glmm(formula, {**data, "x": 1e4 * data["x"]}, family="poisson")
    assert other.loglik == pytest.approx(one.loglik, abs=1e-7)
    assert other.beta[1] == pytest.approx(1e-4 * one.beta[1], rel=1e-5)


def test_zero_correlation_is_two_crossed_terms(maternal):
    pedigree, data, _ = maternal
    known, held = {"animal": pedigree, "dam": pedigree}, {"cor_dam.(Intercept)|animal": 0.0}
    formula = "p ~ x + joint(1 | animal, 1 | dam)"
    one = mm.glmm(formula, data, family="poisson", known={"animal": pedigree}, fixed=held)
    two = mm.glmm("p ~ x + (1 | animal) + (1 | dam)", data, family="poisson", known=known)
    assert one.loglik == pytest.approx(two.loglik, abs=1e-9)
    np.testing.assert_allclose(one.beta, two.beta, atol=1e-6)


def test_terms_of_other_predictors(maternal):
    _, data, _ = maternal
    data = {**data, "litter": data["dam"]}
    joint = "~ joint(1 | animal, 1 | dam)"
    fit = mm.glmm("y ~ x + (1 | litter)", data, family="gaussian", dispersion=joint)
    assert [term.k for term in fit.generalised.terms] == [1, 2]
    assert fit.generalised.term_predictor == (0, 1)
    check_dense(fit)


def test_influence_of_rows(maternal):
    # the fit without a row is the fit to the other rows
    from mixedmodels.inference.checks.glmm_influence import reduced_design, reduced_frame

    pedigree, data, fit = maternal
    keep = np.arange(fit.nobs) != 3
    frame = reduced_frame(fit._frame, keep)
    np.testing.assert_array_equal(frame.design.terms[0].codes, fit.design.terms[0].codes[keep])
    rest = {name: values[keep] for name, values in data.items()}
    wanted = mm.glmm(FORMULA, rest, known={"animal": pedigree}, family="binomial", trials="m")
    own, reduced = wanted.generalised.terms[0], reduced_design(fit.generalised, keep).terms[0]
    np.testing.assert_array_equal(own.codes, reduced.codes)
    assert reduced.levels is fit.generalised.terms[0].levels


def test_unseen_levels_of_a_pedigree_are_drawn(maternal):
    # levels beyond the pedigree are independent of it, in linear models too
    pedigree, data, _ = maternal
    fit = mm.lmm("y ~ x + (1 | animal)", data, known={"animal": pedigree})
    rows = {"x": np.zeros(2), "animal": np.array(["new", "newer"])}
    drawn = fit.simulate(4000, seed=1, newdata=rows)
    total = float(np.asarray(fit._factors[0])[0, 0] ** 2 + 1.0) * fit.sigma**2
    np.testing.assert_allclose(np.cov(drawn), total * np.eye(2), atol=0.12 * total)


def test_save_and_load(maternal, tmp_path):
    _, data, fit = maternal
    fit.save(tmp_path / "fit.mm")
    again = mm.load(tmp_path / "fit.mm")
    rows = {name: values[:6] for name, values in data.items()}
    np.testing.assert_allclose(again.predict(rows), fit.predict(rows), rtol=1e-12)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda fit: fit.update(nagq=5),
            OptionError,
            "nagq=5 needs random effects that fall into small groups",
        ),
        (lambda fit: fit.update(information="expected"), OptionError, "several levels of 'animal'"),
        (lambda fit: fit.update(solver="blocked"), OptionError, "use solver='auto'"),
        (
            lambda fit: fit.predict(interval="confidence", method="simulation"),
            NotImplementedYetError,
            "predictions by simulation: not in this version for 'animal'",
        ),
        (lambda fit: fit.bootstrap(2, kind="cluster"), NotImplementedYetError, "drawing levels anew"),
        (lambda fit: fit.robust_vcov(), NotImplementedYetError, "robust_vcov: not in this version"),
        (lambda fit: fit.heritability(), OptionError, "which ratio is meant is not plain here"),
        (lambda fit: fit.predict_marginal(), NotImplementedYetError, "known covariance between levels"),
    ],
)
def test_what_is_refused(maternal, call, error, message):
    with pytest.raises(error, match=message):
        call(maternal[2])


def test_averages_over_independent_levels_are_refused(maternal):
    fit = mm.glmm(FORMULA, maternal[1], family="binomial", trials="m")
    with pytest.raises(NotImplementedYetError, match="averages over random effects: not in this version"):
        fit.predict_marginal()


# ---------------------------------------------------------------------- a covariance by its factor
@pytest.fixture(scope="module")
def markers():
    rng = np.random.default_rng(3)
    m, r, n = 60, 15, 400
    W = rng.normal(size=(m, r)) / np.sqrt(r)
    ids = np.array([f"i{j}" for j in range(m)])
    g, h = rng.integers(0, m, n), rng.integers(0, 8, n)
    x = rng.normal(size=n)
    eta = 0.3 + 0.5 * x + (W @ rng.normal(size=r))[g] + 0.6 * rng.normal(size=8)[h]
    data = {
        "x": x,
        "g": ids[g],
        "h": h.astype(str),
        "b": rng.binomial(1, 1.0 / (1.0 + np.exp(-eta))),
        "y": eta + 0.5 * rng.normal(size=n),
    }
    return W, ids, data


def test_factor_of_the_covariance_like_the_linear_model(markers):
    W, ids, data = markers
    known = {"g": {"factor": W, "ids": ids}}
    linear = mm.lmm("y ~ x + (1 | g) + (1 | h)", data, known=known, reml=False)
    fit = mm.glmm("y ~ x + (1 | g) + (1 | h)", data, known=known, family="gaussian")
    assert fit.loglik == pytest.approx(linear.loglik, abs=1e-9)
    np.testing.assert_allclose(fit.beta, linear.beta, atol=1e-7)
    for t in range(2):
        np.testing.assert_allclose(fit.ranef_arrays()[t].b, linear.ranef_arrays()[t].b, atol=1e-7)
        np.testing.assert_allclose(
            fit.conditional_covariance()[t], linear.conditional_covariance()[t], atol=1e-8
        )


def test_factor_of_the_covariance_like_the_covariance(markers):
    W, ids, data = markers
    formula = "b ~ x + (1 | g) + (1 | h)"
    fit = mm.glmm(formula, data, known={"g": {"factor": W, "ids": ids}}, family="binomial")
    whole = mm.glmm(formula, data, known={"g": (W @ W.T + 1e-5 * np.eye(60), ids)}, family="binomial")
    assert fit.loglik == pytest.approx(whole.loglik, abs=1e-3)
    np.testing.assert_allclose(list(fit.se.values()), list(whole.se.values()), rtol=1e-3)
    rows = {name: values[:5] for name, values in data.items()}
    np.testing.assert_allclose(fit.predict(rows), fit.fitted()[:5], rtol=1e-12)
    a, b = fit.predict(rows, se=True)["std_error"], whole.predict(rows, se=True)["std_error"]
    np.testing.assert_allclose(a, b, rtol=1e-3)
    assert np.isfinite(fit.simulate(2, seed=1)).all()
    with pytest.raises(NotImplementedYetError, match="covariance of lower rank"):
        fit.predict(rows, interval="confidence", method="simulation")


def test_parameters_are_recovered():
    # a threshold trait of 600 animals; Laplace's approximation is a little biased with few trials
    truth = np.array([SIGMA[0, 0], SIGMA[1, 0], SIGMA[1, 1]])
    found = []
    for seed in range(12):
        pedigree, data = family(100 + seed, 100, 5, 100, trials=8)
        fit = mm.glmm(FORMULA, data, known={"animal": pedigree}, family="binomial", trials="m")
        assert fit.converged
        F = np.asarray(fit._factors[0])
        S = F @ F.T
        found.append([*fit.beta, S[0, 0], S[1, 0], S[1, 1]])
    found = np.array(found)
    error = found.mean(axis=0) - [0.5, 1.0, *truth]
    spread = found.std(axis=0, ddof=1) / np.sqrt(len(found))
    assert (np.abs(error) < 3.5 * spread + 0.03).all(), (error, spread)
    assert (spread[2:] < 0.15).all()
