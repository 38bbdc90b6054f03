"""Every family and link: derivatives, moments, distribution functions, ranges."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import integrate

from mixedmodels.errors import DataError, OptionError
from mixedmodels.family import LINKS, Family, Link, Observations, get_family
from mixedmodels.family.beta import Beta
from mixedmodels.family.binomial import Binomial
from mixedmodels.family.functions import exp
from mixedmodels.family.gamma import Gamma
from mixedmodels.family.gaussian import Gaussian
from mixedmodels.family.inverse_gaussian import InverseGaussian
from mixedmodels.family.jet import indices, place
from mixedmodels.family.lognormal import Lognormal
from mixedmodels.family.negative_binomial import NegativeBinomial, NegativeBinomial1
from mixedmodels.family.poisson import Poisson

CONTINUOUS = (Gaussian, Gamma, InverseGaussian, Lognormal, Beta)
COUNTS = (Poisson, NegativeBinomial, NegativeBinomial1)
PAIRS = [(c, link) for c in (*CONTINUOUS, *COUNTS, Binomial) for link in c.links]
IDS = [f"{c.name}-{link}" for c, link in PAIRS]


def example(family, link, n=7, seed=0):
    """A family, rows and linear predictors inside the range."""
    rng = np.random.default_rng(seed)
    f = family(link)
    trials = None
    if family is Binomial:
        trials = rng.integers(1, 9, n).astype(float)
        y = np.floor(rng.uniform(0, 1, n) * (trials + 1))
    elif family in COUNTS:
        y = rng.poisson(4, n).astype(float)
        y[0], y[-1] = 0.0, 90.0
    elif family is Beta:
        y = rng.uniform(0.05, 0.95, n)
    else:
        y = rng.gamma(3.0, 1.0, n)
    low, high = (0.1, 0.9) if link in ("identity", "inverse", "1/mu^2", "sqrt") else (-0.9, -0.1)
    eta = [rng.uniform(low, high, n)] + [
        rng.uniform(*((1.8, 2.4) if family is Beta else (-0.3, 0.9)), n) for _ in f.predictors[1:]
    ]
    return f, Observations(y, trials), eta


@pytest.mark.parametrize(("family", "link"), PAIRS, ids=IDS)
def test_each_order_is_the_slope_of_the_one_below(family, link):
    f, data, eta = example(family, link)
    C = len(eta)
    table = f.derivatives(data, eta, 4, range(C))
    where, h = place(C, 4), 1e-5
    for c in range(C):
        up, down = [e.copy() for e in eta], [e.copy() for e in eta]
        up[c] += h
        down[c] -= h
        slope = (f.derivatives(data, up, 3, range(C)) - f.derivatives(data, down, 3, range(C))) / (2.0 * h)
        for row, index in zip(slope, indices(C, 3), strict=True):
            raised = tuple(k + (i == c) for i, k in enumerate(index))
            exact = table[where[raised]]
            scale = np.abs(exact) + 1e-3 * np.abs(table).max()
            assert np.max(np.abs(row - exact) / scale) < 1e-6


@pytest.mark.parametrize(("family", "link"), PAIRS, ids=IDS)
def test_active_predictors_only_select(family, link):
    f, data, eta = example(family, link)
    C = len(eta)
    full, where = f.derivatives(data, eta, 3, range(C)), place(C, 3)
    for c in range(C):
        part = f.derivatives(data, eta, 3, (c,))
        for k in range(4):
            assert np.allclose(part[k], full[where[tuple(k * (i == c) for i in range(C))]], rtol=1e-12)
        assert np.allclose(f.derivatives(data, eta, 0, (c,)), full[0], rtol=1e-12)


@pytest.mark.parametrize(("family", "link"), PAIRS, ids=IDS)
def test_density_sums_to_one_and_has_the_mean_and_the_variance(family, link):
    f, data, eta = example(family, link, n=1)
    if family in CONTINUOUS:
        low, high = {Gaussian: (-np.inf, np.inf), Beta: (0.0, 1.0)}.get(family, (0.0, np.inf))

        def moment(k):
            def integrand(y):
                row = Observations(np.array([y]))
                return y**k * np.exp(f.derivatives(row, eta, 0)[0, 0])

            return integrate.quad(integrand, low, high, epsabs=1e-11, epsrel=1e-11, limit=400)[0]

        moments = [moment(k) for k in range(3)]
    else:
        top = 1200 if family in COUNTS else int(data.trials[0]) + 1
        y = np.arange(top, dtype=float)
        rows = Observations(y, None if data.trials is None else np.full(top, data.trials[0]))
        p = np.exp(f.derivatives(rows, [np.full(top, e[0]) for e in eta], 0)[0])
        moments = [float(p @ y**k) for k in range(3)]
    mean = float(f.mean(eta)[0]) * (1.0 if data.trials is None else float(data.trials[0]))
    assert moments[0] == pytest.approx(1.0, abs=1e-9)
    assert moments[1] == pytest.approx(mean, rel=1e-7)
    assert moments[2] - moments[1] ** 2 == pytest.approx(float(f.variance(data, eta)[0]), rel=1e-6)


@pytest.mark.parametrize(("family", "link"), PAIRS, ids=IDS)
def test_distribution_function_is_the_sum_of_the_density(family, link):
    f, data, eta = example(family, link, n=3)
    below, upto = f.cdf(data, eta)
    if family in CONTINUOUS:
        h = 1e-5
        rise = f.cdf(data.with_y(data.y + h), eta)[1] - f.cdf(data.with_y(data.y - h), eta)[0]
        assert np.allclose(rise / (2.0 * h), np.exp(f.derivatives(data, eta, 0)[0]), rtol=1e-6)
        assert np.array_equal(below, upto)
    else:
        assert np.allclose(upto - below, np.exp(f.derivatives(data, eta, 0)[0]), rtol=1e-9, atol=1e-14)
        assert np.all(below[data.y == 0] == 0.0)


@pytest.mark.parametrize("family", [*CONTINUOUS, *COUNTS, Binomial])
def test_draws_have_the_mean_and_the_variance(family):
    f, data, eta = example(family, family.links[0], n=3)
    rng = np.random.default_rng(3)
    N = 20000
    trials = None if data.trials is None else np.repeat(data.trials, N)
    rows, many = Observations(np.repeat(data.y, N), trials), [np.repeat(e, N) for e in eta]
    y = f.draw(rows, many, rng).reshape(3, N)
    mean = f.mean(eta) * (1.0 if data.trials is None else data.trials)
    variance = f.variance(data, eta)
    assert np.all(np.abs(y.mean(axis=1) - mean) < 5.0 * np.sqrt(variance / N))
    fourth = np.mean((y - y.mean(axis=1, keepdims=True)) ** 4, axis=1)
    assert np.all(np.abs(y.var(axis=1) - variance) < 6.0 * np.sqrt(fourth / N))


@pytest.mark.parametrize(("family", "link"), [p for p in PAIRS if p[0] is not NegativeBinomial1])
def test_expected_weight_is_the_expectation(family, link):
    f, data, eta = example(family, link, n=1)
    C = len(eta)
    table = f.expected_weight(data, eta, 2, range(C))
    if family in CONTINUOUS:
        low, high = {Gaussian: (-np.inf, np.inf), Beta: (0.0, 1.0)}.get(family, (0.0, np.inf))

        def integrand(y):
            t = f.derivatives(Observations(np.array([y])), eta, 2)
            return -np.exp(t[0, 0]) * t[2, 0]

        expected = integrate.quad(integrand, low, high, epsabs=1e-11, epsrel=1e-11, limit=400)[0]
    else:
        top = 1200 if family in COUNTS else int(data.trials[0]) + 1
        rows = Observations(
            np.arange(top, dtype=float), None if data.trials is None else np.full(top, data.trials[0])
        )
        t = f.derivatives(rows, [np.full(top, e[0]) for e in eta], 2)
        expected = -float(np.exp(t[0]) @ t[2])
    assert table[0, 0] == pytest.approx(expected, rel=1e-6)
    where, h = place(C, 2), 1e-5
    for c in range(C):
        up, down = [e.copy() for e in eta], [e.copy() for e in eta]
        up[c] += h
        down[c] -= h
        slope = f.expected_weight(data, up, 1, range(C)) - f.expected_weight(data, down, 1, range(C))
        for row, index in zip(slope / (2.0 * h), indices(C, 1), strict=True):
            exact = table[where[tuple(k + (i == c) for i, k in enumerate(index))]]
            assert np.allclose(row, exact, rtol=1e-6, atol=1e-7 * (1.0 + abs(expected)))


def test_nbinom1_has_no_expected_information_in_closed_form():
    f, data, eta = example(NegativeBinomial1, "log")
    with pytest.raises(OptionError, match='information="observed"'):
        f.expected_weight(data, eta, 0)


@pytest.mark.parametrize(
    ("family", "scale"),
    [
        (Binomial, lambda f, eta: 1.0),
        (Poisson, lambda f, eta: 1.0),
        (NegativeBinomial, lambda f, eta: 1.0),
        (Gaussian, lambda f, eta: np.exp(2.0 * eta[1])),
        (Gamma, lambda f, eta: np.exp(-eta[1])),
        (InverseGaussian, lambda f, eta: np.exp(eta[1])),
    ],
)
def test_unit_deviance_is_twice_the_distance_to_the_saturated_density(family, scale):
    f, data, eta = example(family, family.links[0])
    inside = (data.y > 0.0) & (data.y < (np.inf if data.trials is None else data.trials))
    rate = data.y / (1.0 if data.trials is None else data.trials)
    with np.errstate(all="ignore"):
        perfect = f.link.forward(rate)
    distance = f.derivatives(data, [perfect, *eta[1:]], 0)[0] - f.derivatives(data, eta, 0)[0]
    assert inside.sum() >= 3
    assert np.allclose((2.0 * scale(f, eta) * distance)[inside], f.unit_deviance(data, eta)[inside])
    assert np.all(f.unit_deviance(data, eta) >= 0.0) and np.isfinite(f.unit_deviance(data, eta)).all()


@pytest.mark.parametrize(
    ("family", "link", "eta"),
    [
        (Binomial, "log", 0.2),
        (Binomial, "identity", 1.1),
        (Binomial, "identity", -0.1),
        (Poisson, "identity", -0.5),
        (Gamma, "inverse", -0.5),
        (Gamma, "identity", -2.0),
        (InverseGaussian, "1/mu^2", -0.5),
        (Poisson, "log", 800.0),
        (Lognormal, "identity", -1.0),
    ],
)
def test_means_out_of_range_are_not_finite_and_say_nothing(family, link, eta):
    f = family(link)
    data = Observations(np.array([1.0, 1.0]))
    t = f.derivatives(data, [np.full(2, eta), *[np.zeros(2)] * (len(f.predictors) - 1)], 2)
    assert not np.isfinite(t[0]).any()


@pytest.mark.parametrize(("family", "link"), PAIRS, ids=IDS)
def test_start_is_inside_the_range(family, link):
    f, data, _ = example(family, link)
    eta = [np.broadcast_to(np.asarray(e, dtype=float), data.y.shape) for e in f.start(data)]
    assert len(eta) == len(f.predictors)
    assert np.isfinite(f.derivatives(data, eta, 2, range(len(eta)))).all()


@pytest.mark.parametrize(
    ("family", "y", "trials", "words"),
    [
        ("poisson", [1, 2.5, -1], None, ["poisson", "2 rows", "row 2", "2.5", "offset"]),
        ("nbinom2", [1, 2, -1], None, ["1 row ", "row 3", "-1"]),
        ("nbinom1", [0.5, 2, 1], None, ["1 row ", "row 1"]),
        ("gamma", [1, 0, -2], None, ["positive", "2 rows", "row 2", "hurdle"]),
        ("inverse.gaussian", [1, 0.1, -2], None, ["positive", "row 3"]),
        ("lognormal", [0.0, 1, 2], None, ["positive", "row 1"]),
        ("beta", [0.1, 0.0, 1.0], None, ["between 0 and 1", "2 rows", "ordered_beta"]),
        ("binomial", [0.3, 0.5, 1.0], None, ["trials", "proportions"]),
        ("binomial", [3, 0, 1.0], None, ["trials", "cbind"]),
        ("binomial", [3, 0, 1.0], [2, 2, 2], ["at most", "row 1"]),
        ("binomial", [1, 0.5, 1.0], [2, 2, 2], ["whole numbers", "row 2"]),
        ("binomial", [1, 1, 1.0], [2, 2.5, 2], ["trials", "row 2"]),
        ("gaussian", [1, np.inf, 1.0], None, ["finite", "row 2"]),
    ],
)
def test_responses_outside_the_support_are_one_error(family, y, trials, words):
    data = Observations(np.array(y, dtype=float), None if trials is None else np.array(trials, dtype=float))
    with pytest.raises(DataError) as error:
        get_family(family).check_response(data)
    assert all(word in str(error.value) for word in words), str(error.value)


def test_good_responses_pass():
    for family, link in PAIRS:
        f, data, _ = example(family, link)
        f.check_response(data)


def test_weights_multiply():
    f, data, eta = example(NegativeBinomial, "log")
    w = np.arange(1.0, 8.0)
    weighted = Observations(data.y, weights=w)
    assert np.allclose(f.derivatives(weighted, eta, 2, (0, 1)), w * f.derivatives(data, eta, 2, (0, 1)))
    assert np.allclose(f.expected_weight(weighted, eta, 1), w * f.expected_weight(data, eta, 1))


def test_aliases_and_unknown_names():
    assert get_family("Gamma").name == get_family("gamma").name == "gamma"
    assert get_family("nbinom2", "sqrt").link.name == "sqrt"
    assert get_family(get_family("poisson"), "identity").link.name == "identity"
    with pytest.raises(OptionError, match="no family 'gama'"):
        get_family("gama")
    with pytest.raises(OptionError, match="no link 'probit'"):
        get_family("poisson", "probit")
    with pytest.raises(OptionError, match="no family"):
        get_family(3)


class TestOwnFamily:
    def test_a_subclass_does_not_inherit_the_compiled_density(self):
        class Doubled(Poisson):
            def log_density(self, data, eta):
                return 2.0 * super().log_density(data, eta)

        data, eta = Observations(np.array([2.0, 3.0])), [np.zeros(2)]
        assert Doubled().kernel == 0 and Poisson().kernel > 0
        assert np.allclose(Doubled().derivatives(data, eta, 2), 2.0 * Poisson().derivatives(data, eta, 2))

    def test_an_own_link_does_not_take_the_compiled_density(self):
        own = Link("log", np.log, exp, lambda eta: eta)
        assert Poisson(own).kernel == 0 and Poisson(LINKS["log"]).kernel > 0

    def test_from_functions(self):
        def log_density(data, eta):
            return -eta[0] - data.y * exp(-eta[0])

        f = Family.from_functions(
            "exponential", log_density, links=("log",), variance=lambda data, eta: np.exp(2.0 * eta[0])
        )
        data, eta = Observations(np.array([1.0, 4.0])), [np.array([0.3, -0.2])]
        twin = Gamma("log").derivatives(data, [eta[0], np.zeros(2)], 4)
        assert np.allclose(f.derivatives(data, eta, 4), twin, rtol=1e-12)
        assert np.allclose(f.variance(data, eta), Gamma("log").variance(data, [eta[0], np.zeros(2)]))
        assert np.isfinite(f.start(data)[0]).all() and repr(f) == "exponential(log)"
        with pytest.raises(OptionError, match="draw"):
            f.draw(data, eta, np.random.default_rng(0))

    def test_from_functions_refuses_what_is_no_method(self):
        with pytest.raises(OptionError, match="'densty' is no method"):
            Family.from_functions("x", lambda data, eta: eta[0], densty=abs)
        with pytest.raises(OptionError, match="must be a function"):
            Family.from_functions("x", lambda data, eta: eta[0], draw=3)
