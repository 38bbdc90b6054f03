"""Ordered categories: densities in the tails, derivatives, thresholds, moments."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

import mixedmodels as mm
from mixedmodels.design import GeneralisedDesign, Predictor
from mixedmodels.family import Observations
from mixedmodels.family.cumulative import Cumulative
from mixedmodels.family.jet import count, indices
from mixedmodels.family.thresholds import KINDS, threshold_map

LINKS = Cumulative.links
LEVELS = ("a", "b", "c", "d")
# distribution functions F and upper tails 1 - F
DISTRIBUTIONS = {
    "logit": stats.logistic,
    "probit": stats.norm,
    "cloglog": stats.gumbel_l,
    "loglog": stats.gumbel_r,
    "cauchit": stats.cauchy,
}


def rows(n=300, spread=2.0, seed=3):
    rng = np.random.default_rng(seed)
    data = Observations(rng.integers(1, 5, n).astype(float), None, rng.uniform(0.5, 2.0, n), LEVELS)
    lower = rng.uniform(-spread, spread, n)
    return data, [rng.uniform(-spread, spread, n), lower + rng.uniform(0.1, spread, n), lower]


@pytest.mark.parametrize("link", LINKS)
def test_probabilities_are_differences_of_the_distribution_function(link):
    data, eta = rows(spread=0.8)
    F = DISTRIBUTIONS[link]
    low = np.where(data.y == 1.0, 0.0, F.cdf(eta[2] - eta[0]))
    high = np.where(data.y == 4.0, 1.0, F.cdf(eta[1] - eta[0]))
    family = Cumulative(link)
    np.testing.assert_allclose(
        family.derivatives(data, eta, 0)[0], data.weights * np.log(high - low), atol=1e-14
    )
    np.testing.assert_allclose(np.array(family.cdf(data, eta)), [low, high], rtol=1e-12)
    np.testing.assert_allclose(family.unit_deviance(data, eta), -2.0 * np.log(high - low), atol=1e-14)


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_narrow_categories_far_in_the_tails(link, sign):
    """Where F rounds to 0 or 1 the width times the density is right to the square of the width."""
    width, centre = 1e-4, sign * np.array([3.0, 6.0])
    data = Observations(np.full(2, 2.0), levels=LEVELS)
    eta = [np.zeros(2), centre + 0.5 * width, centre - 0.5 * width]
    with np.errstate(under="ignore"):
        exact = DISTRIBUTIONS[link].logpdf(centre) + np.log(width)
    np.testing.assert_allclose(Cumulative(link).jets(data, eta, 0)[0], exact, rtol=3e-6)


@pytest.mark.parametrize(("link", "places"), [("logit", [-600.0, 600.0]), ("probit", [-35.0, 35.0])])
def test_probabilities_below_the_smallest_number(link, places):
    data = Observations(np.full(2, 2.0), levels=LEVELS)
    centre = np.array(places)
    eta = [np.zeros(2), centre + 1.0, centre - 1.0]
    table = Cumulative(link).derivatives(data, eta, 4, (0, 1, 2))
    assert np.isfinite(table).all()
    # the end nearer to zero carries the probability
    near = np.where(centre < 0.0, centre + 1.0, 1.0 - centre)
    upper = stats.logistic.logcdf(near) if link == "logit" else stats.norm.logcdf(near)
    share = np.log1p(-np.exp(-2.0)) if link == "logit" else 0.0
    np.testing.assert_allclose(table[0], upper + share, rtol=1e-12)


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("active", [(0,), (1,), (0, 1), (0, 1, 2)])
def test_derivatives_equal_differences_of_lower_orders(link, active):
    data, eta = rows(80)
    family = Cumulative(link)
    h, C = 1e-4, len(active)
    table = family.derivatives(data, eta, 4, active)
    where = {index: line for line, index in enumerate(indices(C, 4))}
    for at, which in enumerate(active):
        moved = []
        for k in (1, -1, 2, -2):
            there = [part.copy() for part in eta]
            there[which] = there[which] + k * h
            moved.append(family.derivatives(data, there, 3, active))
        slope = (8.0 * (moved[0] - moved[1]) - (moved[2] - moved[3])) / (12.0 * h)
        for line, index in enumerate(indices(C, 3)):
            raised = tuple(i + (place == at) for place, i in enumerate(index))
            own = table[where[raised]]
            np.testing.assert_allclose(slope[line], own, rtol=1e-6, atol=1e-6 * max(1.0, np.abs(own).max()))


@pytest.mark.parametrize("active", [(0,), (0, 1, 2)])
@pytest.mark.parametrize("order", [0, 2, 4])
def test_compiled_density_equals_the_jets(active, order):
    data, eta = rows(500, 8.0)
    family = Cumulative()
    fast, exact = family.derivatives(data, eta, order, active), family.jets(data, eta, order, active)
    assert fast.shape == (count(len(active), order), data.n)
    np.testing.assert_allclose(fast, exact, rtol=1e-11, atol=1e-13 * np.abs(exact).max())


@pytest.mark.parametrize("link", LINKS)
def test_thresholds_in_the_wrong_order_have_no_density(link):
    data = Observations(np.array([1.0, 2.0, 2.0, 4.0]), levels=LEVELS)
    eta = [np.zeros(4), np.zeros(4), np.array([1.0, 1.0, 0.0, 1.0])]
    finite = np.isfinite(Cumulative(link).derivatives(data, eta, 2))
    np.testing.assert_array_equal(finite.all(axis=0), [True, False, False, True])


@pytest.mark.parametrize("K", [3, 4, 5, 8])
@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_thresholds(kind, K):
    names, J = threshold_map(kind, [str(j) for j in range(1, K + 1)])
    assert J.shape == (K - 1, len(names)) and np.linalg.matrix_rank(J) == len(names) <= K - 1
    tau = np.random.default_rng(K).uniform(0.5, 3.0, len(names))
    alpha = J @ tau
    if kind == "equidistant":
        np.testing.assert_allclose(np.diff(alpha), tau[1])
    elif kind.startswith("symmetric"):
        np.testing.assert_allclose(alpha + alpha[::-1], alpha[0] + alpha[-1])
        assert kind == "symmetric" or alpha[0] == -alpha[-1]
        assert len(names) == (K // 2 if kind == "symmetric" and K % 2 == 0 else len(names))


def test_kinds_that_do_not_exist():
    with pytest.raises(mm.OptionError, match="flexible, symmetric"):
        Cumulative("logit", "ordered")
    with pytest.raises(mm.DataError, match="at least three categories"):
        threshold_map("symmetric", ["no", "yes"])
    with pytest.raises(mm.OptionError, match="has no link 'log'"):
        Cumulative("log")


def bound(link, kind="flexible", tau=(-1.0, 0.2, 1.5)):
    """A family that knows its thresholds."""
    data = Observations(np.array([1.0, 2.0, 3.0, 4.0]), levels=LEVELS)
    family = Cumulative(link, kind)
    names, columns = family.response_columns(data)
    predictors = [Predictor("conditional", np.zeros((4, 0)), np.arange(0))]
    predictors += [Predictor(part, X, np.arange(len(names))) for part, X in columns.items()]
    return family.at(GeneralisedDesign(data, tuple(predictors), names, (), ()), np.array(tau))


@pytest.mark.parametrize("link", LINKS)
def test_moments_and_draws(link):
    family = bound(link)
    eta = np.array([-3.0, 0.0, 0.4, 5.0])
    p = family.probabilities(eta)
    np.testing.assert_allclose(p.sum(axis=1), 1.0, rtol=1e-13)
    np.testing.assert_allclose(p.cumsum(axis=1), family.cumulative(eta), rtol=1e-12)
    np.testing.assert_allclose(
        family.cumulative(eta)[:, 1], DISTRIBUTIONS[link].cdf(family.alpha[1] - eta), rtol=1e-12
    )
    scores = np.arange(1.0, 5.0)
    np.testing.assert_allclose(family.mean([eta]), p @ scores)
    data = Observations(np.zeros(4), levels=LEVELS)
    np.testing.assert_allclose(family.variance(data, [eta]), p @ scores**2 - (p @ scores) ** 2, atol=1e-12)
    N = 20000
    many = np.repeat(eta, N)
    drawn = family.draw(Observations(np.zeros(4 * N), levels=LEVELS), [many], np.random.default_rng(1))
    found = np.array([(drawn.reshape(4, N) == k).mean(axis=1) for k in scores]).T
    assert np.abs(found - p).max() < 5.0 * 0.5 / np.sqrt(N)


def test_no_draws_without_thresholds():
    with pytest.raises(mm.OptionError, match="needs thresholds"):
        Cumulative().mean([np.zeros(2)])


@pytest.mark.parametrize("link", LINKS)
def test_surrogate_residuals_have_the_latent_distribution(link):
    rng = np.random.default_rng(8)
    family = bound(link)
    eta = rng.normal(size=3000)
    y = family.draw(Observations(np.zeros(3000), levels=LEVELS), [eta], rng)
    data = Observations(y, levels=LEVELS)
    columns = family.response_columns(data)[1]
    etas = [eta, columns["thresholds"] @ family.alpha, columns["lower"] @ family.alpha]
    found = family.surrogate(data, etas, rng)
    assert stats.kstest(found, DISTRIBUTIONS[link].cdf).pvalue > 1e-3
    assert (np.digitize(eta + found, family.alpha) + 1 == y).all()
