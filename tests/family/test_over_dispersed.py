"""Laws of the over-dispersed, truncated, zero-inflated families: derivatives, totals, moments, tails."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import numpy as np
import pytest

from mixedmodels.errors import DataError, OptionError
from mixedmodels.family import FAMILIES, Observations, get_family
from mixedmodels.family.jet import indices, place
from mixedmodels.family.student import Student
from mixedmodels.family.truncated import Truncated
from mixedmodels.family.zero import Hurdle, ZeroInflated, with_zeros

N = 40
VALUES = Path(__file__).parents[1] / "references" / "families" / "values.json"


@functools.cache
def cases():
    """Name: family, responses, linear predictors."""
    rng = np.random.default_rng(3)
    y = rng.poisson(3, N).astype(float)
    y[:3] = 30.0, 60.0, 0.0
    trials = y + rng.poisson(3, N)
    x = rng.normal(size=N)
    zeros = np.where(rng.random(N) < 0.4, 0.0, y)
    interior = rng.beta(2, 2, N)
    edges = np.concatenate([np.zeros(8), np.ones(8), interior[16:]])
    continuous = np.where(zeros > 0.0, rng.gamma(2.0, 1.0, N), 0.0)
    phi, logit = rng.normal(0.6, 0.3, N).clip(0.05), rng.normal(size=N)
    real = 2.0 * rng.normal(size=N)
    bb, gp, po = get_family("betabinomial"), get_family("genpois"), get_family("poisson")
    nb = get_family("nbinom2")
    return {
        "betabinomial": (bb, Observations(y, trials), [x, rng.normal(1, 1, N)]),
        "betabinomial probit": (get_family("betabinomial", "probit"), Observations(y, trials), [x, logit]),
        "student": (get_family("t"), Observations(real), [x, 0.5 * logit, 1.0 + rng.normal(size=N)]),
        "student df=3": (Student(df=3), Observations(real), [x, 0.5 * logit]),
        "tweedie": (get_family("tweedie"), Observations(continuous), [x, logit, 0.7 + 0.5 * x]),
        "tweedie sqrt": (
            get_family("tweedie", "sqrt"),
            Observations(continuous),
            [1.0 + x**2, logit, 0.7 + 0.5 * x],
        ),
        "ordered_beta": (
            get_family("ordbeta"),
            Observations(edges),
            [x, 1 + logit, -1 + 0.5 * x, 0.5 * logit],
        ),
        "generalised_poisson": (gp, Observations(y), [x, phi]),
        "com_poisson": (get_family("compois"), Observations(np.minimum(y, 20.0)), [x, phi - 0.6]),
        "truncated_poisson": (get_family("truncated_poisson"), Observations(y + 1), [x]),
        "truncated_genpois": (get_family("truncated_genpois"), Observations(y + 1), [x, phi]),
        "truncated_nbinom1": (get_family("truncated_nbinom1"), Observations(y + 1), [x, logit]),
        "truncated_nbinom2": (get_family("truncated_nbinom2"), Observations(y + 1), [x, 1.0 + logit]),
        "zero_inflated_nbinom2": (ZeroInflated(nb), Observations(zeros), [x, 1.0 + phi, logit]),
        "hurdle_gamma": (Hurdle(get_family("gamma", "log")), Observations(continuous), [x, phi, logit]),
        "hurdle_lognormal": (
            Hurdle(get_family("lognormal")),
            Observations(continuous),
            [0.1 * x, -phi, logit],
        ),
        "zero_inflated_poisson": (ZeroInflated(po), Observations(zeros), [x, logit]),
        "zero_inflated_genpois": (ZeroInflated(gp), Observations(zeros), [x, phi, logit]),
        "zero_inflated_betabinomial": (ZeroInflated(bb), Observations(zeros, trials), [x, phi, logit]),
        "hurdle_poisson": (Hurdle(po), Observations(zeros), [x, logit]),
        "hurdle_genpois": (Hurdle(gp), Observations(zeros), [x, phi, logit]),
    }


each_case = pytest.mark.parametrize("name", list(cases()))


@each_case
def test_derivatives_are_those_of_the_orders_below(name):
    family, data, eta = cases()[name]
    C = len(eta)
    everything, at, h = tuple(range(C)), place(C, 4), 2e-4
    table = family.derivatives(data, eta, 4, everything)

    def moved(c, size):
        parts = [part + size * (i == c) for i, part in enumerate(eta)]
        return family.derivatives(data, parts, 3, everything)

    for c in everything:
        slopes = (8 * (moved(c, h) - moved(c, -h)) - (moved(c, 2 * h) - moved(c, -2 * h))) / (12 * h)
        for row, index in enumerate(indices(C, 3)):
            exact = table[at[tuple(a + (i == c) for i, a in enumerate(index))]]
            np.testing.assert_allclose(slopes[row], exact, rtol=3e-8, atol=3e-8)


@each_case
def test_fewer_active_predictors_give_the_same_derivatives(name):
    family, data, eta = cases()[name]
    C = len(eta)
    table = family.derivatives(data, eta, 2, tuple(range(C)))
    for c in range(C):
        some = family.derivatives(data, eta, 2, (c,))
        unit = tuple(int(i == c) for i in range(C))
        expected = table[[0, place(C, 2)[unit], place(C, 2)[tuple(2 * a for a in unit)]]]
        np.testing.assert_allclose(some, expected, rtol=1e-12, atol=1e-13)


@each_case
def test_weights_multiply(name):
    family, data, eta = cases()[name]
    weighted = Observations(data.y, data.trials, np.arange(1.0, N + 1.0))
    once = family.derivatives(data, eta, 2, (0,))
    np.testing.assert_allclose(family.derivatives(weighted, eta, 2, (0,)), once * np.arange(1.0, N + 1.0))


@each_case
def test_draws_have_the_mean_the_variance_and_the_distribution(name):
    family, data, eta = cases()[name]
    rng, size = np.random.default_rng(11), 40_000
    for row in (17, 30):
        one = [np.full(size, part[row]) for part in eta]
        trials = None if data.trials is None else np.full(size, data.trials[row])
        many = Observations(np.zeros(size), trials)
        found = family.draw(many, one, rng)
        mean = family.mean(one)[0] * (1.0 if trials is None else trials[0])
        variance = family.variance(many, one)[0]
        assert abs(found.mean() - mean) < 5.0 * found.std() / np.sqrt(size)
        heavy = np.mean((found - found.mean()) ** 4)
        if np.isfinite(variance) and name not in ("student", "student df=3"):  # no fourth moment there
            spread = np.sqrt(heavy / size)
            assert abs(found.var() - variance) < 5.0 * spread
        for q in (0.3, 0.8):
            at = np.quantile(found, q)
            point = Observations(np.full(1, at), None if trials is None else trials[:1])
            below, upto = (float(part[0]) for part in family.cdf(point, [part[:1] for part in one]))
            assert abs(np.mean(found < at) - below) < 0.013
            assert abs(np.mean(found <= at) - upto) < 0.013
            assert 0.0 <= below <= upto <= 1.0


@pytest.mark.parametrize("name", [name for name, case in cases().items() if case[0].response != "number"])
def test_probabilities_add_to_one_and_give_the_moments(name):
    family, data, eta = cases()[name]
    for row in (5, 17, 30):
        last = 600 if data.trials is None else int(data.trials[row])
        least = 1 if isinstance(family, Truncated) else 0
        values = np.arange(least, last + 1.0)
        trials = None if data.trials is None else np.full(values.size, data.trials[row])
        point = Observations(values, trials)
        one = [np.full(values.size, part[row]) for part in eta]
        p = np.exp(family.derivatives(point, one, 0, ())[0])
        mean = family.mean(one)[0] * (1.0 if trials is None else trials[0])
        assert p.sum() == pytest.approx(1.0, abs=1e-11)
        assert p @ values == pytest.approx(mean, rel=1e-10)
        assert p @ (values - mean) ** 2 == pytest.approx(family.variance(point, one)[0], rel=1e-8)
        below, upto = family.cdf(point, one)
        np.testing.assert_allclose(upto, np.cumsum(p), atol=1e-11)
        np.testing.assert_allclose(below, np.cumsum(p) - p, atol=1e-11)


@pytest.mark.parametrize("name", ["student", "student df=3", "tweedie", "ordered_beta"])
def test_densities_integrate_to_the_distribution_function(name):
    from scipy.integrate import quad

    family, _, eta = cases()[name]
    low, high = {"tweedie": (0.4, 6.0), "ordered_beta": (0.05, 0.9)}.get(name, (-3.0, 4.0))
    for row in (17, 30):
        one = [np.atleast_1d(part[row]) for part in eta]

        def density(y, one=one):
            return float(np.exp(family.derivatives(Observations(np.array([y])), one, 0, ())[0, 0]))

        mass = quad(density, low, high, epsabs=1e-12, epsrel=1e-11)[0]
        upper, lower = (family.cdf(Observations(np.array([y])), one)[1][0] for y in (high, low))
        assert mass == pytest.approx(upper - lower, abs=1e-9)
        if name in ("tweedie", "ordered_beta"):
            zero = Observations(np.zeros(1))
            assert density(0.0) == pytest.approx(family.cdf(zero, one)[1][0], rel=1e-12)
            assert family.cdf(zero, one)[0][0] == 0.0
        if name == "ordered_beta":
            last = Observations(np.ones(1))
            assert density(1.0) == pytest.approx(1.0 - family.cdf(last, one)[0][0], rel=1e-10)


@each_case
@pytest.mark.parametrize("extreme", [-50.0, -20.0, 20.0, 50.0])
def test_no_predictor_overflows(name, extreme):
    family, data, eta = cases()[name]
    if name == "com_poisson":  # a point mass at one end; its documented range
        extreme /= 10.0
    for c, predictor in enumerate(family.predictors):
        if ("genpois" in name or "generalised" in name) and predictor == "dispersion" and extreme < 0.0:
            continue  # no count beyond the end of an under-dispersed distribution
        if c == 0 and family.link.name == "sqrt" and extreme < 0.0:
            continue
        parts = [np.full(N, extreme) if i == c else part for i, part in enumerate(eta)]
        assert np.isfinite(family.derivatives(data, parts, 4, tuple(range(len(eta))))).all(), predictor


@each_case
def test_starts_are_finite_and_possible(name):
    family, data, _ = cases()[name]
    start = family.start(data)
    assert len(start) == len(family.predictors)
    spread = [np.broadcast_to(np.asarray(part, dtype=float), (N,)) for part in start]
    middle = [np.full(N, part.mean()) for part in spread]
    assert np.isfinite(family.derivatives(data, middle, 2, (0,))).all()
    family.check_response(data)


@pytest.mark.parametrize(
    ("family", "bad", "words"),
    [
        ("genpois", 1.5, "whole numbers of at least 0"),
        ("genpois", -1.0, "whole numbers"),
        ("truncated_poisson", 0.0, "at least 1"),
        ("ordbeta", 1.2, "between 0 and 1"),
        ("tweedie", -0.1, "not negative"),
        ("betabinomial", 2.0, "between 0 and the number of trials"),
        ("student", np.inf, "finite"),
    ],
)
def test_impossible_responses_are_named(family, bad, words):
    y = np.array([1.0, bad, 1.0, bad])
    with pytest.raises(DataError, match=f"{words}.*2 rows.*row 2"):
        get_family(family).check_response(Observations(y))


def test_a_hurdle_refuses_what_its_base_refuses():
    with pytest.raises(DataError, match="row 2"):
        Hurdle(get_family("poisson")).check_response(Observations(np.array([0.0, 1.5])))
    with pytest.raises(DataError, match="row 1"):
        Hurdle(get_family("poisson")).check_response(Observations(np.array([-1.0, 1.0])))


def test_degrees_of_freedom_must_be_positive():
    with pytest.raises(OptionError, match="df"):
        Student(df=-2)


def test_with_zeros_takes_a_hurdle_for_truncated_families():
    assert isinstance(with_zeros(get_family("truncated_poisson")), Hurdle)
    assert isinstance(with_zeros(get_family("poisson")), ZeroInflated)
    assert with_zeros(get_family("genpois")).predictors == ("conditional", "dispersion", "zero_inflation")


# ---------------------------------------------------------------------- limits


def density(family, data, *eta):
    spread = [np.broadcast_to(np.asarray(part, dtype=float), (data.n,)) for part in eta]
    return family.derivatives(data, spread, 4, (0,))


def test_large_precision_is_the_binomial():
    data = Observations(np.array([0.0, 3.0, 30.0, 7.0]), np.array([4.0, 9.0, 80.0, 7.0]))
    x = np.array([-2.0, 0.1, 0.4, 3.0])
    for delta in (28.0, 34.0, 50.0):
        found = density(get_family("betabinomial"), data, x, delta)
        np.testing.assert_allclose(found, density(get_family("binomial"), data, x), rtol=1e-8, atol=1e-8)


def test_large_degrees_of_freedom_are_the_gaussian():
    data, x = Observations(np.array([-2.0, 0.1, 5.0])), np.array([0.3, 0.0, 1.0])
    found = density(get_family("student"), data, x, 0.4, 40.0)
    np.testing.assert_allclose(found, density(get_family("gaussian"), data, x, 0.4), rtol=1e-10, atol=1e-12)


def test_unit_dispersion_is_the_poisson():
    data, x = Observations(np.array([0.0, 3.0, 30.0])), np.array([-1.0, 0.1, 3.0])
    for name in ("genpois", "compois"):
        found = density(get_family(name), data, x, 0.0)
        np.testing.assert_allclose(found, density(get_family("poisson"), data, x), rtol=1e-11, atol=1e-11)


def test_no_extra_zeros_is_the_family_itself():
    data, x = Observations(np.array([0.0, 3.0, 30.0])), np.array([-1.0, 0.1, 3.0])
    found = density(ZeroInflated(get_family("poisson")), data, x, -45.0)
    np.testing.assert_allclose(found, density(get_family("poisson"), data, x), rtol=1e-12, atol=1e-12)


def test_tiny_means_of_truncated_counts_are_ones():
    data = Observations(np.array([1.0, 2.0]))
    found = density(get_family("truncated_poisson"), data, -45.0)
    np.testing.assert_allclose(found[0], [0.0, -45.0 - np.log(2.0)], atol=1e-14)
    np.testing.assert_allclose(found[1], [0.0, 1.0], atol=1e-12)


def test_tweedie_sums_do_not_depend_on_the_window():
    """A strided sum and the sum over all indices are the same (Poisson's summation formula)."""
    from scipy.special import gammaln, logsumexp

    y, delta, p = 3.0, -9.0, 1.6
    alpha, phi = (2.0 - p) / (p - 1.0), np.exp(delta)
    c = alpha * np.log(y / (p - 1.0)) - (1.0 + alpha) * delta - np.log(2.0 - p)
    j = np.arange(1.0, 200_000.0)
    terms = j * c - gammaln(j + 1.0) - gammaln(j * alpha)
    kernel = (y * 2.0 ** (1.0 - p) / (1.0 - p) - 2.0 ** (2.0 - p) / (2.0 - p)) / phi
    exact = kernel + logsumexp(terms) - np.log(y)
    one = [np.log([2.0]), np.array([delta]), np.log([(p - 1.0) / (2.0 - p)])]
    found = get_family("tweedie").derivatives(Observations(np.array([y])), one, 0, ())[0, 0]
    assert found == pytest.approx(exact, rel=1e-9)


def test_the_last_series_is_kept_while_only_the_mean_moves():
    family, data, eta = cases()["tweedie"]
    fresh = Observations(data.y)
    before = family.derivatives(fresh, eta, 2, (0,))
    for shift in (0.3, -0.2):
        moved = [eta[0] + shift, eta[1], eta[2]]
        again = family.derivatives(fresh, moved, 2, (0,))
        np.testing.assert_array_equal(again, family.derivatives(Observations(data.y), moved, 2, (0,)))
    other = [eta[0], eta[1] + 0.1, eta[2]]
    assert not np.allclose(before[0], family.derivatives(fresh, other, 2, (0,))[0])
    np.testing.assert_array_equal(
        family.derivatives(fresh, other, 3, (1, 2)),
        family.derivatives(Observations(data.y), other, 3, (1, 2)),
    )


# ---------------------------------------------------------------------- R


@functools.cache
def values():
    return json.loads(VALUES.read_text(encoding="utf-8"))


def check_values(name, family, data, *eta):
    found = family.derivatives(data, [np.asarray(part, dtype=float) for part in eta], 0, ())[0]
    np.testing.assert_allclose(found, values()[name], rtol=1e-11, atol=1e-12)


def test_values_of_r():
    """``families.R`` beside the values."""
    mu, phi = np.array([0.02, 0.4, 0.5, 0.93, 0.2]), np.array([0.3, 2, 15, 400, 1e4])
    successes = Observations(np.array([0.0, 1, 3, 7, 12]), np.array([4.0, 5, 9, 7, 30]))
    check_values("betabinomial", get_family("betabinomial"), successes, np.log(mu / (1 - mu)), np.log(phi))
    real = Observations(np.array([-3.0, 0.1, 2, 40, -1e3]))
    scale, df = np.log([0.5, 1, 2, 10, 100]), np.log([0.7, 2, 4.5, 30, 1e3])
    check_values("student", get_family("student"), real, np.full(5, 0.3), scale, df)
    positive = Observations(np.array([1.0, 2, 3, 8, 20]))
    log_rate = np.log([1e-8, 0.5, 3, 8, 15])
    check_values("truncated_poisson", get_family("truncated_poisson"), positive, log_rate)
    size, phi = np.log([0.2, 1, 3, 10, 100]), np.log([0.1, 0.5, 1, 3, 10])
    check_values("truncated_nbinom2", get_family("truncated_nbinom2"), positive, log_rate, size)
    check_values("truncated_nbinom1", get_family("truncated_nbinom1"), positive, log_rate, phi)
    p, zeros = np.array([0.01, 0.3, 0.5, 0.8, 0.99]), Observations(np.array([0.0, 0, 3, 0, 8]))
    inflated = ZeroInflated(get_family("poisson"))
    check_values("zero_inflated_poisson", inflated, zeros, np.log([1e-3, 0.5, 3, 8, 15]), np.log(p / (1 - p)))
    amounts, x = Observations(np.array([0.0, 0.02, 1, 5, 60])), [0.2, -1, 0.5, 1, 3]
    check_values("tweedie", get_family("tweedie"), amounts, x, [0.1, 1, -1, 0.7, 0.5], [0, 1, -1.5, 0.3, 2])
    counts, x, delta = np.array([0.0, 1, 3, 7, 20]), [-2, 0.3, 1, 2, 2.5], [0.3, 1, -0.3, 2, 0.1]
    check_values("generalised_poisson", get_family("genpois"), Observations(counts), x, delta)
    check_values("com_poisson", get_family("compois"), Observations(counts), x, delta)
    truncated = get_family("truncated_genpois")
    check_values("truncated_generalised_poisson", truncated, Observations(counts + 1), x, delta)


def test_families_of_counts_say_so():
    """What residuals, intervals and checks of discrete responses look at."""
    counts = {name for name, family in FAMILIES.items() if family().response == "count"}
    assert counts == {
        "poisson",
        "negative_binomial",
        "nbinom1",
        "com_poisson",
        "generalised_poisson",
        "truncated_poisson",
        "truncated_negative_binomial",
        "truncated_nbinom1",
        "truncated_generalised_poisson",
    }


@pytest.mark.parametrize("eta", [-1.5, 1.0, 2.5, 3.6])
@pytest.mark.parametrize("delta", [0.0, 2.4, 3.82, 4.6])
def test_com_poisson_sums_to_one_up_to_the_geometric_limit(eta, delta):
    y = np.arange(4000.0)
    family = get_family("com_poisson")
    log_p = family.derivatives(Observations(y), [np.full(len(y), eta), np.full(len(y), delta)], 0)[0]
    p = np.exp(log_p)
    assert p.sum() == pytest.approx(1.0, abs=1e-12)
    assert (p * y).sum() == pytest.approx(np.exp(eta), rel=1e-10)
