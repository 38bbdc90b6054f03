"""Posterior mode and posterior draws against integrals, dense formulae and Schafer's figures."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

import mixedmodels as mm
from mixedmodels.errors import DataError, OptionError
from mixedmodels.inference.posterior.diagnostics import effective_size, rhat, tail_size
from mixedmodels.inference.posterior.mode import PosteriorSpace
from mixedmodels.inference.posterior.model import PosteriorModel
from mixedmodels.inference.posterior.proposal import LogCoordinates, PlainCoordinates
from mixedmodels.inference.posterior.sample import draw_variances

HERE = Path(__file__).parents[2] / "references" / "classical"
PRIOR = {"a": 300, "b": 3, "c": 3, "Dinv": 15}  # of the example of R's lmm


def marijuana():
    with open(HERE / "marijuana_paper.csv") as file:
        rows = [row for row in csv.DictReader(file) if row["y"]]
    return {
        "y": np.array([float(row["y"]) for row in rows]),
        "occ": ["o" + row["occ"] for row in rows],
        "subj": [row["subj"] for row in rows],
        "occasion": np.array([int(row["occ"]) for row in rows]),
    }


@pytest.fixture(scope="module")
def model():
    return mm.LinearMixedModel("y ~ 0 + occ + (1 | subj)", marijuana())


@pytest.fixture(scope="module")
def slopes():
    """A model with two random effects per group, weights and an offset."""
    rng = np.random.default_rng(8)
    n, m = 120, 15
    g = np.arange(n) % m
    x = rng.normal(size=n)
    b = rng.normal(size=(m, 2)) @ np.array([[1.5, 0.4], [0.0, 0.8]])
    y = 2.0 + x + b[g, 0] + b[g, 1] * x + rng.normal(size=n)
    data = {"y": y, "x": x, "g": g, "w": rng.uniform(0.5, 2.0, n), "o": rng.normal(size=n)}
    return mm.LinearMixedModel("y ~ x + (x | g)", data, weights="w", offset="o")


def posterior_of(model, prior=PRIOR):
    return PosteriorModel.of(model, None, prior, None, None, {})


SLOPES_PRIOR = {"a": 2.0, "b": 3.0, "c": 4.0, "Dinv": [[3.0, 0.5], [0.5, 1.0]]}


@pytest.fixture(scope="module")
def exact(model):
    """Posterior of (log psi, log sigma^2) on a grid."""
    posterior = posterior_of(model)
    u, v = np.meshgrid(np.linspace(-3, 8, 300), np.linspace(3, 7, 200), indexing="ij")
    u, v = u.ravel(), v.ravel()
    psi = np.exp(u)[:, None, None]
    log = posterior.products.loglik(np.exp(v), psi) + posterior.prior.log_density(np.exp(v), psi) - u - v
    weight = np.exp(log - log.max())
    return u, v, weight / weight.sum()


# ---------------------------------------------------------------------- likelihood and mode
def test_products_give_the_restricted_likelihood(model, slopes):
    for one, values in ((model, [[[7.0]], 50.0]), (slopes, [[[2.0, 0.3], [0.3, 0.5]], 1.3])):
        products = posterior_of(one, PRIOR if one is model else SLOPES_PRIOR).products
        Psi, sigma2 = np.array(values[0])[None], np.array([values[1]])
        expected = one._objective.at_components([np.array(values[0]), values[1]]).loglik
        assert products.loglik(sigma2, Psi)[0] == pytest.approx(expected, rel=1e-12)


def test_mode_is_a_stationary_point_of_the_density(model):
    """The density of (1/sigma^2, 1/psi), by differences at the mode."""
    mode = mm.posterior_mode(model, prior=PRIOR, tol=1e-14)
    posterior = posterior_of(model)

    def log(tau, omega):
        sigma2, psi = np.array([1 / tau]), np.array([[[1 / omega]]])
        value = posterior.products.loglik(sigma2, psi) + posterior.prior.log_density(sigma2, psi)
        return float(value[0])

    tau, omega = 1 / mode.sigma2, 1 / mode.Psi[0, 0]
    assert mode.logpost == pytest.approx(log(tau, omega), rel=1e-12)
    assert abs(log(tau * 1.0001, omega) - log(tau * 0.9999, omega)) / 2e-4 < 1e-5
    assert abs(log(tau, omega * 1.0001) - log(tau, omega * 0.9999)) / 2e-4 < 1e-5
    assert log(tau, omega) > max(log(tau * 1.1, omega), log(tau * 0.9, omega), log(tau, omega * 1.1))


def test_score_of_the_posterior_is_its_slope(slopes):
    space = PosteriorSpace(
        posterior_of(slopes, SLOPES_PRIOR).objective, posterior_of(slopes, SLOPES_PRIOR).prior
    )
    kappa = np.array([2.0, 0.3, 0.5, 1.3])
    for i, e in enumerate(np.eye(4) * 1e-5):
        slope = (space.point(kappa + e).loglik - space.point(kappa - e).loglik) / 2e-5
        assert space.point(kappa).score[i] == pytest.approx(slope, rel=1e-6, abs=1e-7)


def test_em_raises_the_posterior(slopes):
    posterior = posterior_of(slopes, SLOPES_PRIOR)
    space = PosteriorSpace(posterior.objective, posterior.prior)
    kappa = np.array([20.0, 3.0, 0.9, 13.0])
    values = [space.point(kappa).loglik]
    for _ in range(300):
        kappa = space.em(space.point(kappa))
        values.append(space.point(kappa).loglik)
    assert (np.diff(values) > -1e-10).all()
    mode = mm.posterior_mode(slopes, prior=SLOPES_PRIOR)
    assert mode.converged and values[-1] == pytest.approx(mode.logpost, abs=1e-6)
    np.testing.assert_allclose(space.sigmas(kappa)[0], mode.Psi, rtol=1e-3)


def test_mode_where_reml_is_singular():
    data = mm.load_dataset("Dyestuff2", backend="dict")
    mode = mm.posterior_mode("Yield ~ 1 + (1 | Batch)", data, prior={"a": 10, "b": 1, "c": 1, "Dinv": 1})
    assert mode.converged and mode.Psi[0, 0] > 0.0
    assert "Residual" in str(mode)


# ---------------------------------------------------------------------- proposals
@pytest.mark.parametrize("make", [LogCoordinates, PlainCoordinates])
def test_coordinates_and_their_derivatives(slopes, make):
    posterior = posterior_of(slopes, SLOPES_PRIOR)
    space = PosteriorSpace(posterior.objective, posterior.prior)
    coordinates = make(2)
    Psi, sigma2 = np.array([[2.0, 0.3], [0.3, 0.5]]), 1.3
    zeta = coordinates.of(Psi[None], np.array([sigma2]))
    back = coordinates.variances(zeta)
    np.testing.assert_allclose(back[1][0], Psi, rtol=1e-12)
    assert back[0][0] == pytest.approx(sigma2) and back[2].all()

    def kappa(z):
        s, P, _ = coordinates.variances(z[None])
        return space.kappa([P[0]], float(s[0]))

    J = coordinates.jacobian(zeta[0], space)
    for i, e in enumerate(np.eye(4) * 1e-6):
        np.testing.assert_allclose(
            J[:, i], (kappa(zeta[0] + e) - kappa(zeta[0] - e)) / 2e-6, rtol=1e-6, atol=1e-8
        )
    # |d (Omega, tau) / d zeta| = |d kappa / d zeta| |psi|^{-(k+1)} sigma^{-4}, to a constant
    logs = []
    for z in (zeta[0], zeta[0] + 0.1):
        s, P, _ = coordinates.variances(z[None])
        jacobian = coordinates.jacobian(z, space)
        plain = np.linalg.slogdet(jacobian)[1] - 3.0 * np.linalg.slogdet(P[0])[1] - 2.0 * np.log(s[0])
        logs.append(plain - coordinates.log_jacobian(z[None])[0])
    assert logs[0] == pytest.approx(logs[1], abs=1e-10)


def test_impossible_proposals_are_never_taken():
    zeta = np.array([[1.0, 2.0, 1.0, 1.0], [1.0, 0.0, 1.0, -1.0], [1.0, 0.5, 1.0, 2.0]])
    assert PlainCoordinates(2).variances(zeta)[2].tolist() == [False, False, True]


# ---------------------------------------------------------------------- draws
@pytest.mark.parametrize(
    "options",
    [
        {"method": "gibbs"},
        {"method": "metropolis"},
        {"method": "metropolis", "proposal": "mode"},
        {"method": "metropolis", "fallback": "none"},
    ],
    ids=["gibbs", "log", "mode", "alone"],
)
def test_draws_have_the_moments_of_the_posterior(model, exact, options):
    u, v, weight = exact
    sample = mm.sample_posterior(model, prior=PRIOR, draws=3000, seed=3, **options)
    for draws, values in ((np.log(sample.Psi[:, :, 0, 0]), u), (np.log(sample.sigma2), v)):
        mean = float(weight @ values)
        sd = float(np.sqrt(weight @ (values - mean) ** 2))
        error = sd / np.sqrt(effective_size(draws))
        assert abs(draws.mean() - mean) < 4.0 * error
        assert draws.std() == pytest.approx(sd, rel=0.06)


def test_gibbs_after_rejections_only_misses_the_posterior(model, exact):
    """What Schafer (1998) describes is not a chain of the posterior: log psi comes out too large by 0.1."""
    u, _, weight = exact
    sample = mm.sample_posterior(
        model, prior=PRIOR, draws=4000, seed=4, proposal="mode", fallback="rejection"
    )
    log = np.log(sample.Psi[:, :, 0, 0])
    error = log.std() / np.sqrt(effective_size(log))
    assert log.mean() - float(weight @ u) > 5.0 * error


def test_schafers_figures(model):
    """Acceptance about 49 %, autocorrelations of log psi gone after 2-3 cycles, after 8-10 with Gibbs."""

    def autocorrelation(sample, lag):
        x = np.log(sample.Psi[:, :, 0, 0])
        x = x - x.mean(axis=1, keepdims=True)
        return float((x[:, lag:] * x[:, :-lag]).mean() / (x * x).mean())

    slow = mm.sample_posterior(model, prior=PRIOR, method="gibbs", draws=3000, seed=5)
    theirs = mm.sample_posterior(model, prior=PRIOR, proposal="mode", draws=3000, seed=5)
    ours = mm.sample_posterior(model, prior=PRIOR, draws=3000, seed=5)
    assert theirs.acceptance == pytest.approx(0.49, abs=0.04)
    assert ours.acceptance > 0.75
    assert theirs.ratios.mean() == pytest.approx(theirs.acceptance, abs=0.01)
    assert autocorrelation(slow, 4) > 0.1 and abs(autocorrelation(slow, 10)) < 0.08
    assert abs(autocorrelation(theirs, 4)) < 0.1 and abs(autocorrelation(ours, 3)) < 0.06


def test_effects_given_the_variances_are_henderson(slopes):
    """Mean and covariance of many draws of (beta, b) at one value of the variances."""
    posterior = posterior_of(slopes, SLOPES_PRIOR)
    Psi, sigma2 = np.array([[2.0, 0.3], [0.3, 0.5]]), 1.3
    N = 20_000
    rng = np.random.default_rng(1)
    beta, b, squares = posterior.products.draw_effects(
        rng, np.full(N, sigma2), np.broadcast_to(Psi, (N, 2, 2))
    )
    objective = posterior.objective
    space = PosteriorSpace(objective, posterior.prior)
    theta = space.theta(space.kappa([Psi], sigma2))
    solution = objective.solution(theta)
    vcov = sigma2 * solution.vcov_unscaled
    beta = beta + posterior.products.beta
    scale = np.sqrt(np.diagonal(vcov) / N)
    assert (np.abs(beta.mean(axis=0) - solution.beta) < 4.5 * scale).all()
    np.testing.assert_allclose(np.cov(beta.T), vcov, rtol=0.08, atol=0.02 * vcov.max())
    V = sigma2 * objective.solver.random_covariance(objective.factors(theta), 0)
    np.testing.assert_allclose(b.var(axis=0), np.einsum("lii->li", V), rtol=0.06)
    np.testing.assert_allclose(b.mean(axis=0), solution.b[0], atol=5 * np.sqrt(V.max() / N))
    design = objective.design
    e = (
        design.y - design.offset - design.X @ beta[0]
        - np.einsum("ij,ij->i", design.terms[0].Z, b[0][design.terms[0].codes])
    )  # fmt: skip
    assert squares[0] == pytest.approx(float(design.weights @ e**2), rel=1e-9)


def test_variances_given_the_effects_are_wishart(slopes):
    posterior = posterior_of(slopes, SLOPES_PRIOR)
    products, prior = posterior.products, posterior.prior
    rng = np.random.default_rng(2)
    b = np.broadcast_to(rng.normal(size=(products.m, 2)), (20_000, products.m, 2))
    sigma2, Psi = draw_variances(rng, products, prior, b, np.full(20_000, 100.0))
    scale = prior.Dinv + b[0].T @ b[0]
    degrees = prior.c + products.m
    np.testing.assert_allclose(
        np.linalg.inv(Psi).mean(axis=0), degrees * np.linalg.inv(scale), rtol=0.03, atol=0.02
    )
    np.testing.assert_allclose(Psi.mean(axis=0), scale / (degrees - 3.0), rtol=0.03, atol=0.02)
    assert (1 / sigma2).mean() == pytest.approx((prior.b + products.n) / (prior.a + 100.0), rel=0.01)


def test_two_random_effects_by_both_samplers(slopes):
    one = mm.sample_posterior(slopes, prior=SLOPES_PRIOR, method="gibbs", draws=2000, seed=1)
    two = mm.sample_posterior(slopes, prior=SLOPES_PRIOR, draws=2000, seed=2)
    assert two.acceptance > 0.3
    for name, draws in one.parameters().items():
        other = two[name]
        error = np.hypot(
            draws.std() / np.sqrt(effective_size(draws)), other.std() / np.sqrt(effective_size(other))
        )
        assert abs(draws.mean() - other.mean()) < 4.5 * error, name


def test_what_draws_can_do(model):
    sample = mm.sample_posterior(model, prior=PRIOR, draws=300, chains=3, seed=1)
    again = mm.sample_posterior(model, prior=PRIOR, draws=300, chains=3, seed=1)
    np.testing.assert_array_equal(sample.b, again.b)
    assert sample.chains == 3 and sample.draws == 300 and not sample.interrupted
    assert sample.b.shape == (3, 300, 9, 1)
    frame = sample.to_frame()
    assert len(frame["chain"]) == 900 and frame["sigma"][0] == sample.sigma[0, 0]
    table = sample.summary()
    assert table.row("sigma")["rhat"] < 1.05
    assert "accepted" in str(sample)
    with pytest.raises(ValueError, match="read-only"):
        sample.beta[0] = 0.0
    with pytest.raises(OptionError, match="no parameter 'tau'"):
        sample["tau"]
    assert mm.sample_posterior(model, prior=PRIOR, draws=5, seed=1, keep_effects=False).b is None


def test_arviz(model):
    pytest.importorskip("arviz")
    sample = mm.sample_posterior(model, prior=PRIOR, draws=50, seed=1)
    found = sample.to_arviz().posterior
    assert found["b"].shape == (4, 50, 9, 1)
    np.testing.assert_array_equal(found["beta"].sel(coefficient="occo2"), sample.beta[:, :, 1])


def test_interrupted_keeps_what_is_done(model):
    def stop(cycle, values, _):
        if cycle == 60:
            raise KeyboardInterrupt

    sample = mm.sample_posterior(model, prior=PRIOR, draws=100, warmup=20, seed=1, progress=stop)
    assert sample.interrupted and sample.draws == 41
    assert "interrupted" in str(sample.summary())


def test_diagnostics_of_known_chains():
    """Independent draws; an autoregression, whose size is N (1 - rho)/(1 + rho); chains apart."""
    rng = np.random.default_rng(1)
    white = rng.normal(size=(4, 2000))
    assert rhat(white) == pytest.approx(1.0, abs=0.01)
    assert effective_size(white) == pytest.approx(8000, rel=0.15)
    assert 4000 < tail_size(white) < 10_000
    slow = np.zeros((4, 5000))
    for t in range(1, 5000):
        slow[:, t] = 0.8 * slow[:, t - 1] + rng.normal(size=4)
    assert effective_size(slow) == pytest.approx(20_000 / 9, rel=0.25)
    assert rhat(white + np.arange(4)[:, None]) > 1.4
    assert np.isnan(rhat(white[:, :3])) and np.isnan(rhat(np.ones((2, 10))))


def test_diagnostics_are_those_of_arviz():
    arviz = pytest.importorskip("arviz")
    rng = np.random.default_rng(2)
    chains = np.cumsum(rng.normal(size=(4, 400)), axis=1) * 0.02 + rng.normal(size=(4, 400))
    assert rhat(chains) == pytest.approx(float(arviz.rhat(chains)), rel=1e-6)
    assert effective_size(chains) == pytest.approx(float(arviz.ess(chains)), rel=0.02)
    assert tail_size(chains) == pytest.approx(float(arviz.ess(chains, method="tail")), rel=0.05)


# ---------------------------------------------------------------------- known residual covariance
def test_whitening_against_dense_algebra():
    """The likelihood of whitened rows, less half the log determinant, is that of the known covariance."""
    data = marijuana()
    T = 6
    V = 0.6 ** np.abs(np.subtract.outer(np.arange(T), np.arange(T))) * np.linspace(0.8, 1.5, T)
    V = 0.5 * (V + V.T)
    posterior = PosteriorModel.of("y ~ 0 + occ + (1 | subj)", data, PRIOR, V, "occasion", {})
    occasions, y = data["occasion"] - 1, data["y"]
    same = np.equal.outer(data["subj"], data["subj"])
    X = np.eye(T)[occasions]
    W = same * (100.0 * V[np.ix_(occasions, occasions)] + 7.0)
    inverse = np.linalg.inv(W)
    XWX = X.T @ inverse @ X
    r = y - X @ np.linalg.solve(XWX, X.T @ inverse @ y)
    logdets = np.linalg.slogdet(W)[1] + np.linalg.slogdet(XWX)[1]
    dense = -0.5 * (logdets + r @ inverse @ r + (len(y) - T) * np.log(2 * np.pi))
    found = posterior.objective.at_components([7.0, 100.0]).loglik - 0.5 * posterior.logdet
    assert found == pytest.approx(dense, rel=1e-11)
    products = posterior.products.loglik(np.array([100.0]), np.array([[[7.0]]]))[0]
    assert products - 0.5 * posterior.logdet == pytest.approx(dense, rel=1e-11)


def test_whitening_does_not_mind_the_order_of_rows():
    rng = np.random.default_rng(3)
    groups, occasions = np.repeat(np.arange(8), 3), np.tile([1, 2, 4], 8)
    y, X = rng.normal(size=24), rng.normal(size=(24, 2))
    L = rng.normal(size=(4, 4))
    V = L @ L.T + np.eye(4)
    order = rng.permutation(24)
    (a, A), logdet = mm.whiten_known(V, occasions, groups, y, X)
    (b, B), other = mm.whiten_known(V, occasions[order], groups[order], y[order], X[order])
    np.testing.assert_allclose(a[order], b)
    np.testing.assert_allclose(A[order], B)
    assert logdet == pytest.approx(other)
    assert logdet == pytest.approx(8 * np.linalg.slogdet(V[np.ix_([0, 1, 3], [0, 1, 3])])[1])


def test_identity_changes_nothing(model):
    plain = mm.posterior_mode(model, prior=PRIOR)
    whitened = mm.posterior_mode(
        "y ~ 0 + occ + (1 | subj)", marijuana(), prior=PRIOR, V=np.eye(6), occasions="occasion"
    )
    assert whitened.logpost == pytest.approx(plain.logpost, rel=1e-12)
    np.testing.assert_allclose(whitened.beta, plain.beta, rtol=1e-9)


# ---------------------------------------------------------------------- wrong input
@pytest.mark.parametrize(
    ("prior", "message"),
    [
        ({"a": 1, "b": 1, "c": 1}, "missing: Dinv"),
        ({"a": 1, "b": 1, "c": 1, "Dinv": 1, "d": 2}, "unknown: d"),
        ({"a": -1, "b": 1, "c": 1, "Dinv": 1}, "a of the prior must be a positive number"),
        ({"a": 1, "b": 1, "c": 1, "Dinv": -1}, "positive definite"),
        ({"a": 1, "b": 1, "c": 3, "Dinv": np.eye(2)}, "2 x 2"),
        (7, "prior must be a VariancePrior"),
    ],
)
def test_wrong_priors(model, prior, message):
    with pytest.raises(OptionError, match=message):
        mm.posterior_mode(model, prior=prior)


def test_wrong_models_and_options(model):
    data = mm.load_dataset("Penicillin", backend="dict")
    with pytest.raises(OptionError, match="exactly one random term"):
        mm.posterior_mode("diameter ~ 1 + (1 | plate) + (1 | sample)", data, prior=PRIOR)
    with pytest.raises(OptionError, match="unstructured"):
        sleep = mm.load_dataset("sleepstudy", backend="dict")
        mm.posterior_mode("Reaction ~ 1 + diag(Days | Subject)", sleep, prior=PRIOR)
    with pytest.raises(OptionError, match="give data with a formula"):
        mm.posterior_mode("y ~ 0 + occ + (1 | subj)", prior=PRIOR)
    with pytest.raises(OptionError, match="draws must be"):
        mm.sample_posterior(model, prior=PRIOR, draws=0)
    with pytest.raises(OptionError, match="method must be one of"):
        mm.sample_posterior(model, prior=PRIOR, method="hmc")
    with pytest.raises(OptionError, match="V needs occasions"):
        mm.posterior_mode(model, prior=PRIOR, V=np.eye(6))
    with pytest.raises(OptionError, match="give V too"):
        mm.posterior_mode(model, prior=PRIOR, occasions="occ")
    with pytest.raises(OptionError, match="df must be"):
        mm.sample_posterior(model, prior=PRIOR, df=0)
    with pytest.raises(OptionError, match="seed must be"):
        mm.sample_posterior(model, prior=PRIOR, seed="x")


@pytest.mark.parametrize(
    ("V", "occasions", "message"),
    [
        (np.ones((2, 3)), [1, 2, 1], "symmetric"),
        (np.eye(2), [1, 3, 1], "from 1 to 2"),
        (np.eye(2), [1, 1, 1], "twice in a group"),
        (np.ones((2, 2)), [1, 2, 1], "not positive definite"),
        (np.eye(2), ["a", "b", "a"], "from 1 to 2"),
    ],
)
def test_wrong_known_covariances(V, occasions, message):
    with pytest.raises(DataError, match=message):
        mm.whiten_known(V, occasions, ["a", "a", "b"], [1.0, 2.0, 3.0])


@pytest.mark.slow
def test_coverage_of_random_effects():
    """Schafer's simulation: 9 groups of 6, psi = 10, sigma^2 = 90, one value in ten missing.

    He reports 245 boundary fits in 1000 and coverages of 87.2 % (conventional) and 94.1 % (corrected); here
    150 samples.
    """
    rng = np.random.default_rng(17)
    boundary, plain, new, count = 0, 0, 0, 0
    for _ in range(150):
        g, occ = np.repeat(np.arange(9), 6), np.tile(np.arange(6), 9)
        b = np.sqrt(10.0) * rng.normal(size=9)
        y = b[g] + np.sqrt(90.0) * rng.normal(size=54)
        keep = rng.random(54) > 0.1
        data = {"y": y[keep], "occ": [f"o{j}" for j in occ[keep]], "g": g[keep]}
        fit = mm.lmm("y ~ 0 + occ + (1 | g)", data)
        if fit.is_singular:
            boundary += 1
            continue
        table = fit.small_sample()
        error = np.abs(np.asarray(table["estimate"][6:]) - b)
        plain += int((error < 2.0 * table["conditional"][6:]).sum())
        new += int((error < 2.0 * table["std_error"][6:]).sum())
        count += 9
    assert boundary / 150 == pytest.approx(0.245, abs=0.1)
    assert plain / count == pytest.approx(0.872, abs=0.05)
    assert new / count == pytest.approx(0.941, abs=0.035)
