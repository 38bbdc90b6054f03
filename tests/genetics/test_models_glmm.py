"""Animal models for counts, successes and ordered categories against a dense Laplace approximation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit, gammaln
from scipy.stats import norm

import mixedmodels as mm


def animals(seed, records=3):
    """A pedigree, repeated records of all animals and their linear predictor."""
    pedigree = mm.genetics.random_pedigree(founders=15, generations=3, size=25, seed=seed)
    rng = np.random.default_rng(seed)
    A = pedigree.additive().toarray()
    m = len(A)
    animal = np.repeat(np.arange(m), records)
    x = rng.normal(size=animal.size)
    own = 0.5 * rng.normal(size=m)
    eta = 0.3 + 0.5 * x + (0.9 * np.linalg.cholesky(A) @ rng.normal(size=m) + own)[animal]
    return pedigree, A, {"x": x, "animal": pedigree.ids[animal]}, eta, np.eye(m)[animal], rng


def laplace(score, eta0, Z, G, size):
    """Laplace's log-likelihood and the mode; `score` gives log f, its slope and its curvature."""
    b, step, inverse = np.zeros(Z.shape[1]), np.zeros(Z.shape[1]), np.linalg.inv(G)
    value = -np.inf
    for _ in range(200):
        f, g, h = score(eta0 + Z @ b)
        now = f.sum() - 0.5 * b @ inverse @ b
        if now < value:  # halve the last step
            step *= 0.5
            b -= step
            continue
        value = now
        H = (Z.T * -h) @ Z + inverse
        step = np.linalg.solve(H, Z.T @ g - inverse @ b)
        if np.abs(step).max() < 1e-12:
            break
        b = b + step
    logdet = np.linalg.slogdet(H)[1] + np.linalg.slogdet(G)[1]
    assert size == len(f)
    return value - 0.5 * logdet, b


def poisson_terms(y):
    return lambda eta: (y * eta - np.exp(eta) - gammaln(y + 1.0), y - np.exp(eta), -np.exp(eta))


def logit_terms(y):
    return lambda eta: (
        y * eta - np.logaddexp(0.0, eta),
        y - expit(eta),
        -expit(eta) * expit(-eta),
    )


def threshold_terms(low, high):
    """log of Phi(high - eta) - Phi(low - eta) with derivatives in eta."""

    def score(eta):
        a, b = low - eta, high - eta
        p = norm.cdf(b) - norm.cdf(a)
        slope = (norm.pdf(a) - norm.pdf(b)) / p
        edge = [np.where(np.isfinite(t), t, 0.0) * norm.pdf(t) for t in (a, b)]
        return np.log(p), slope, (edge[0] - edge[1]) / p - slope**2

    return score


@pytest.mark.parametrize("family", ["poisson", "binomial"])
def test_additive_and_permanent_environment(family):
    pedigree, A, data, eta, Z, rng = animals(3)
    draw = rng.poisson(np.exp(eta)) if family == "poisson" else rng.binomial(1, expit(eta))
    data = {**data, "y": draw}
    formula = "y ~ x + (1 | animal) + id(1 | animal)"
    fit = mm.glmm(formula, data, family=family, known={"animal": pedigree})
    y = draw.astype(float)
    eta0 = fit.beta[0] + fit.beta[1] * data["x"]
    G = fit.theta[0] ** 2 * A + fit.theta[1] ** 2 * np.eye(len(A))
    terms = poisson_terms(y) if family == "poisson" else logit_terms(y)
    value, both = laplace(terms, eta0, Z, G, len(y))
    assert fit.loglik == pytest.approx(value, rel=1e-9)
    # the mode splits as the prior variances of the two effects do
    np.testing.assert_allclose(fit._b[0][:, 0] + fit._b[1][:, 0], both, atol=1e-6)
    np.testing.assert_allclose(fit._b[0][:, 0], fit.theta[0] ** 2 * A @ np.linalg.solve(G, both), atol=1e-6)
    near = []
    for change in (-1e-2, 1e-2):  # the estimates are a maximum
        G = (fit.theta[0] + change) ** 2 * A + fit.theta[1] ** 2 * np.eye(len(A))
        near.append(laplace(terms, eta0, Z, G, len(y))[0])
    assert max(near) < fit.loglik


def test_threshold_trait():
    """An ordered trait of three classes with a normal liability (Gianola and Foulley 1983)."""
    pedigree, A, data, eta, Z, rng = animals(5)
    liability = eta + rng.normal(size=eta.size)
    classes = np.searchsorted([0.0, 1.0], liability)
    data = {**data, "y": classes}
    fit = mm.glmm(
        "y ~ x + (1 | animal)", data, family="cumulative", link="probit", known={"animal": pedigree}
    )
    cuts = np.concatenate([[-np.inf], list(fit.thresholds.values()), [np.inf]])
    eta0 = fit.fixef["x"] * data["x"]
    score = threshold_terms(cuts[classes], cuts[classes + 1])
    value, mode = laplace(score, eta0, Z, fit.theta[-1] ** 2 * A, len(eta))
    assert fit.loglik == pytest.approx(value, rel=1e-9)
    np.testing.assert_allclose(fit._b[0][:, 0], mode, atol=1e-6)


def test_random_regression_of_counts():
    """Slopes related as the animals are: the covariance is that of the columns times A."""
    pedigree, A, data, _, Z, rng = animals(8, records=6)
    m = len(A)
    S = np.array([[0.5, 0.1], [0.1, 0.2]])
    u = np.linalg.cholesky(A) @ rng.normal(size=(m, 2)) @ np.linalg.cholesky(S).T
    x, animal = data["x"], Z.argmax(axis=1)
    y = rng.poisson(np.exp(0.4 + u[animal, 0] + u[animal, 1] * x)).astype(float)
    fit = mm.glmm("y ~ x + (1 + x | animal)", {**data, "y": y}, family="poisson", known={"animal": pedigree})
    F = np.array(fit._factors[0])
    both = np.hstack([Z, Z * x[:, None]])
    eta0 = fit.beta[0] + fit.beta[1] * x
    value, _ = laplace(poisson_terms(y), eta0, both, np.kron(F @ F.T, A), len(y))
    assert fit.loglik == pytest.approx(value, rel=1e-9)


def test_sire_model_is_a_quarter_of_the_animal_model():
    """Unrelated sires of half sibs: an animal model and a sire model have the same likelihood."""
    rng = np.random.default_rng(11)
    sires, size = 40, 8
    sire = np.repeat(np.arange(sires), size)
    pedigree = mm.genetics.Pedigree.from_frame(
        {
            "id": [f"s{j}" for j in range(sires)] + [f"c{i}" for i in range(sires * size)],
            "sire": [""] * sires + [f"s{j}" for j in sire],
            "dam": [""] * (sires * (size + 1)),
        }
    )
    y = 0.5 * rng.normal(size=sires)[sire] + rng.normal(size=sire.size)
    data = {"y": y, "animal": [f"c{i}" for i in range(sire.size)], "sire": [f"s{j}" for j in sire]}
    by_sire = mm.lmm("y ~ 1 + (1 | sire)", data)
    by_animal = mm.lmm("y ~ 1 + (1 | animal)", data, known={"animal": pedigree})
    assert by_animal.loglik == pytest.approx(by_sire.loglik, rel=1e-10)
    share = by_sire.theta[0] ** 2 / (1.0 + by_sire.theta[0] ** 2)
    assert by_animal.heritability()["estimate"][0] == pytest.approx(4.0 * share, rel=1e-5)
