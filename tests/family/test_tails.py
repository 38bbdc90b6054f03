"""Far tails and limits, against closed forms, asymptotic series and exact identities."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import log_ndtr as scipy_log_ndtr

from mixedmodels.family import LINKS, Observations, special, stirling
from mixedmodels.family import functions as f
from mixedmodels.family.binomial import Binomial
from mixedmodels.family.gamma import Gamma
from mixedmodels.family.jet import variables
from mixedmodels.family.negative_binomial import NegativeBinomial, NegativeBinomial1
from mixedmodels.family.poisson import Poisson


def table(function, v, order=4):
    v = np.asarray(v, dtype=float)
    with np.errstate(all="ignore"):
        return function(variables([v], (0,), order)[0]).table(v.size)


def slopes_agree(function, v, h, tolerance):
    """Each order is the slope of the one below, relative to itself."""
    v = np.asarray(v, dtype=float)
    exact = table(function, v)[1:]
    step = h * np.maximum(1.0, np.abs(v)) if h > 0 else -h
    high, low, far, near = (table(function, v + k * step)[:4] for k in (1.0, -1.0, 2.0, -2.0))
    slope = (8.0 * (high - low) - (far - near)) / (12.0 * step)
    assert np.max(np.abs(slope / exact - 1.0)) < tolerance


def test_probit_far_tail_has_its_asymptotic_series():
    """log Phi(-x) = -x^2/2 - log(x sqrt(2 pi)) + log(1 - w + 3 w^2 - 15 w^3 + ...), w = 1/x^2."""
    x = np.array([38.0, 100.0, 1000.0])
    t = table(f.log_ndtr, -x)
    log_series = [-1.0, 2.5, -37.0 / 3.0, 353.0 / 4.0, -4081.0 / 5.0]  # of w, w^2, ...
    powers = [2.0 * (k + 1) for k in range(5)]
    first = x + 1.0 / x - sum(a * -p * x ** -(p + 1) for a, p in zip(log_series, powers, strict=True))
    second = (
        -1.0 + x**-2.0 + sum(a * p * (p + 1) * x ** -(p + 2) for a, p in zip(log_series, powers, strict=True))
    )
    third = 2.0 * x**-3.0 + sum(
        a * p * (p + 1) * (p + 2) * x ** -(p + 3) for a, p in zip(log_series, powers, strict=True)
    )
    fourth = 6.0 * x**-4.0 + sum(
        a * p * (p + 1) * (p + 2) * (p + 3) * x ** -(p + 4) for a, p in zip(log_series, powers, strict=True)
    )
    for row, expected in zip(t[1:], (first, second, third, fourth), strict=True):
        assert np.max(np.abs(row / expected - 1.0)) < 1e-10
    assert np.array_equal(t[0], scipy_log_ndtr(-x))


def test_probit_derivatives_where_the_formulas_meet():
    slopes_agree(f.log_ndtr, [-15.0, -8.0, -4.0, -2.5, -1.5, -0.5, 0.7, 2.0], 1e-3, 1e-8)
    left, right = table(f.log_ndtr, [-2.0 - 1e-13]), table(f.log_ndtr, [-2.0])
    assert np.max(np.abs(left / right - 1.0)) < 1e-11


@pytest.mark.parametrize("eta", [30.0, 300.0, 700.0])
def test_logit_tails(eta):
    t = table(f.log_expit, [eta, -eta])
    tail = math.exp(-eta)
    assert t[0, 0] == pytest.approx(-math.log1p(tail), rel=1e-15) and t[0, 1] == pytest.approx(
        -eta, rel=1e-15
    )
    assert np.allclose(t[1:, 0] / tail, [1.0, -1.0, 1.0, -1.0], rtol=1e-12)
    assert np.allclose(t[2:, 1] / tail, [-1.0, -1.0, -1.0], rtol=1e-12)


@pytest.mark.parametrize("eta", [-700.0, -300.0, -30.0])
def test_cloglog_lower_tail(eta):
    h = math.exp(eta)  # log(1 - exp(-h)) = eta - h/2 + h^2/24 - ...
    t = table(LINKS["cloglog"].log_mean, [eta])[:, 0]
    assert np.allclose(t, [eta - h / 2.0, 1.0 - h / 2.0, -h / 2.0, -h / 2.0, -h / 2.0], rtol=1e-12, atol=0.0)
    mirrored = table(LINKS["loglog"].log_complement, [-eta])[:, 0]
    assert np.allclose(mirrored, t * [1, -1, 1, -1, 1], rtol=1e-15)


def test_cloglog_derivatives_where_the_formulas_meet():
    slopes_agree(LINKS["cloglog"].log_mean, [-12.0, -7.0, -6.9, -3.0, -1.3, -1.1, 0.0, 1.0, 2.5], -1e-3, 1e-7)


@pytest.mark.parametrize("eta", [1e3, 1e8, 1e15])
def test_cauchit_tails(eta):
    t = table(LINKS["cauchit"].log_mean, [-eta])[:, 0]
    assert t[0] == pytest.approx(math.log(math.atan(1.0 / eta) / math.pi), rel=1e-15)
    assert np.allclose(t[1:] * eta ** np.arange(1, 5), [1.0, 1.0, 2.0, 6.0], rtol=9.0 / eta**2 + 1e-13)


@pytest.mark.parametrize("link", ["logit", "probit", "cloglog", "loglog", "cauchit"])
def test_binomial_tables_are_finite_and_right_far_out(link):
    family, edge = Binomial(link), {"logit": 700.0, "probit": 38.0, "cauchit": 1e6}.get(link, 6.0)
    data = Observations(np.array([0.0, 1.0, 0.0, 1.0]))
    t = family.derivatives(data, [np.array([edge, edge, -edge, -edge])], 4)
    assert np.isfinite(t).all()
    assert np.all(t[0] <= 0.0) and np.all(t[1, ::2] <= 0.0) and np.all(t[1, 1::2] >= 0.0)


@pytest.mark.parametrize("name", [name for name, link in LINKS.items() if link.log_complement is not None])
def test_links_invert_and_agree_with_their_logarithms(name):
    link = LINKS[name]
    mu = np.array([1e-6, 0.01, 0.3, 0.5, 0.9, 0.999])
    eta = link.forward(mu)
    assert np.allclose(link.inverse(eta), mu, rtol=1e-10)
    assert np.allclose(link.log_mean(eta), np.log(mu), rtol=1e-9)
    assert np.allclose(link.log_complement(eta), np.log1p(-mu), rtol=1e-8)


class TestPoissonLimit:
    y = np.array([0.0, 1.0, 3.0, 17.0, 40.0, 41.0, 500.0])
    mu = np.array([0.5, 2.5, 1.2, 20.0, 30.0, 45.0, 480.0])

    @pytest.mark.parametrize("size", [1e8, 1e12, 1e15])
    def test_nb2(self, size):
        """log f = log Poisson + ((y - mu)^2 - y) t/2 + O(t^2), t = 1/theta."""
        data, n = Observations(self.y), len(self.y)
        eta = [np.log(self.mu), np.full(n, math.log(size))]
        t = NegativeBinomial().derivatives(data, eta, 4, (0, 1))
        poisson = Poisson().derivatives(data, eta[:1], 4)
        first = ((self.y - self.mu) ** 2 - self.y) / (2.0 * size)
        assert np.max(np.abs(t[0] - poisson[0] - first)) < 1e-5 / size * 1e8 + 1e-12
        size_rows = [2, 5, 9, 14]  # (0, 1), (0, 2), (0, 3), (0, 4)
        for k, row in enumerate(size_rows, 1):
            assert np.allclose(t[row], (-1.0) ** k * first, rtol=4e5 / size + 1e-12, atol=0.0)
        mixed = (self.mu - self.y) * self.mu / size  # d2/d eta d t, times -t
        assert np.allclose(t[4], -mixed, rtol=4e5 / size + 1e-12, atol=0.0)

    @pytest.mark.parametrize("phi", [1e-8, 1e-12])
    def test_nb1(self, phi):
        """The size is mu/phi: log f = log Poisson + ((y - mu)^2 - y) phi/(2 mu) + O(phi^2)."""
        data, n = Observations(self.y), len(self.y)
        t = NegativeBinomial1().derivatives(data, [np.log(self.mu), np.full(n, math.log(phi))], 4, (0, 1))
        first = ((self.y - self.mu) ** 2 - self.y) * phi / (2.0 * self.mu)
        for row in (2, 5, 9, 14):
            assert np.allclose(t[row], first, rtol=1e5 * phi + 1e-12, atol=0.0)

    def test_the_sum_and_its_tail_agree(self):
        """Counts above 40 against the sum of all terms."""
        y = 137.0
        for delta in (-20.0, -3.0, 0.0, 2.0, 3.0, 5.0, 8.0, 25.0):
            t = table(lambda d: special.log_rising(np.array([y]), d), [delta])[:, 0]
            j = np.arange(1.0, y)
            exact = special._log1p_terms(np.log(j) - delta, 4)
            for value, terms in zip(t, exact, strict=True):
                assert value == pytest.approx(math.fsum(terms), rel=1e-12, abs=1e-14)


def test_gamma_with_a_large_shape():
    """log f tends to the normal density of log y: -a z^2/2 + (delta - log 2 pi)/2 - log y."""
    a, z = 1e12, np.array([-2e-6, 1e-6])
    data = Observations(np.exp(z))
    t = Gamma("log").derivatives(data, [np.zeros(2), np.full(2, math.log(a))], 4, (0, 1))
    exact_z = np.log(data.y)
    expected = -a * (exact_z**2 / 2.0 + exact_z**3 / 6.0) + 0.5 * math.log(a / (2.0 * math.pi)) - exact_z
    assert np.allclose(t[0], expected, rtol=1e-12)
    assert np.allclose(t[2], 0.5 - a * (exact_z**2 / 2.0 + exact_z**3 / 6.0), rtol=1e-10)


def test_pieces_where_their_formulas_meet():
    slopes_agree(stirling.lgamma_remainder, [-1.0, 1.0, 2.4, 2.6, 4.0, 8.0], -2e-3, 1e-7)
    slopes_agree(special.softplus_ratio, [-9.0, -3.0, -1.3, -1.1, 0.0, 2.0], -2e-3, 1e-7)
    slopes_agree(special.expm1mx, [-3.0, -0.6, -0.4, 0.3, 0.6, 2.0], -1e-3, 1e-8)
    for function, edge in (
        (stirling.lgamma_remainder, math.log(12.0)),
        (special.softplus_ratio, math.log(0.3)),
    ):
        left, right = table(function, [edge - 1e-12]), table(function, [edge + 1e-12])
        assert np.max(np.abs(left - right)) < 3e-12
