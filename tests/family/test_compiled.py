"""Compiled densities are the Taylor arithmetic of the families, number for number."""

from __future__ import annotations

import numpy as np
import pytest

from mixedmodels.family import Observations
from mixedmodels.family.binomial import Binomial
from mixedmodels.family.gamma import Gamma
from mixedmodels.family.gaussian import Gaussian
from mixedmodels.family.jet import count
from mixedmodels.family.negative_binomial import NegativeBinomial
from mixedmodels.family.poisson import Poisson
from mixedmodels.solver._kernels import densities

PAIRS = [
    (Binomial, "logit"),
    (Binomial, "probit"),
    (Binomial, "cloglog"),
    (Poisson, "log"),
    (NegativeBinomial, "log"),
    (Gaussian, "identity"),
    (Gamma, "log"),
]


def rows(family, spread, n=400, trials=True):
    rng = np.random.default_rng(5)
    m = None
    if family is Binomial:
        m = rng.integers(1, 30, n).astype(float) if trials else None
        y = np.floor(rng.uniform(0, 1, n) * ((m if trials else 1.0) + 1))
    elif family is Gaussian:
        y = rng.normal(0, 3, n)
    elif family is Gamma:
        y = rng.gamma(2.0, 1.0, n)
    else:
        y = np.floor(np.exp(rng.uniform(0, 8, n))) * rng.integers(0, 2, n)
    eta = [rng.uniform(-spread, spread, n)]
    if len(family().predictors) > 1:
        eta.append(rng.uniform(-3 * spread if spread < 5 else -6, 4 * spread, n))
    return Observations(y, m, rng.uniform(0.5, 2.0, n)), eta


@pytest.mark.parametrize(("family", "link"), PAIRS)
@pytest.mark.parametrize("spread", [2.0, 6.5])
@pytest.mark.parametrize("order", [0, 2, 4])
def test_tables_equal_the_jets(family, link, spread, order):
    f = family(link)
    assert f.kernel
    for trials in (True, False):
        data, eta = rows(family, spread, trials=trials)
        for active in {(0,), tuple(range(len(eta)))}:
            fast, exact = f.derivatives(data, eta, order, active), f.jets(data, eta, order, active)
            assert fast.shape == exact.shape == (count(len(active), order), data.n)
            # a cell is a sum whose terms are as large as the mean; its rounding is relative to them
            mean = np.abs(f.mean(eta)) * (1.0 if data.trials is None else data.trials)
            size = np.exp(eta[1]) if family is Gamma else 1.0
            scale = np.abs(exact) + data.weights * (1.0 + np.abs(data.y) + mean) * np.maximum(size, 1.0)
            assert np.max(np.abs(fast - exact) / scale) < 1e-12


@pytest.mark.parametrize(
    ("link", "eta"), [("logit", [700.0, -700.0]), ("probit", [37.0, -200.0]), ("cloglog", [6.0, -700.0])]
)
def test_far_tails_relative_to_themselves(link, eta):
    f, data = Binomial(link), Observations(np.array([0.0, 1.0]))
    fast, exact = f.derivatives(data, [np.array(eta)], 4), f.jets(data, [np.array(eta)], 4)
    assert np.allclose(fast, exact, rtol=1e-11, atol=0.0) and np.isfinite(fast).all()
    fast, exact = f.derivatives(data, [-np.array(eta)], 4), f.jets(data, [-np.array(eta)], 4)
    assert np.allclose(fast[1:], exact[1:], rtol=1e-9, atol=1e-300)


def test_the_size_derivatives_of_nb2_at_the_poisson_limit():
    y = np.array([0.0, 3.0, 39.0, 41.0, 700.0])
    data, eta = Observations(y), [np.log(y + 0.7), np.full(5, np.log(1e12))]
    f = NegativeBinomial()
    fast, exact = f.derivatives(data, eta, 4, (0, 1)), f.jets(data, eta, 4, (0, 1))
    for row in (2, 5, 9, 14, 4):
        assert np.allclose(fast[row], exact[row], rtol=1e-9, atol=0.0)


def test_other_active_predictors_fall_to_the_jets():
    data, eta = rows(NegativeBinomial, 2.0)
    f = NegativeBinomial()
    assert np.array_equal(f.derivatives(data, eta, 2, (1,)), f.jets(data, eta, 2, (1,)))


def test_a_number_stands_for_a_column():
    data, eta = rows(NegativeBinomial, 2.0)
    f = NegativeBinomial()
    one, column = f.derivatives(data, [eta[0], np.array(0.3)], 2), [eta[0], np.full(data.n, 0.3)]
    assert np.array_equal(one, f.derivatives(data, column, 2))


def test_overflow_is_not_finite_and_silent():
    data = Observations(np.array([1.0, 1.0]))
    for f in (Poisson(), NegativeBinomial(), Binomial("cloglog"), Gamma("log")):
        eta = [np.full(2, -800.0 if f.name == "gamma" else 800.0), np.zeros(2)][: len(f.predictors)]
        y = Observations(np.zeros(2)) if f.name == "binomial" else data
        assert not np.isfinite(f.derivatives(y, eta, 2)[0]).any()


def test_arrays_of_other_lengths_are_refused():
    y = np.ones(3)
    with pytest.raises(ValueError, match="do not fit"):
        densities.table(4, y, None, None, None, [np.ones(2)], 2, False)
    with pytest.raises(ValueError, match="do not fit"):
        densities.table(5, y, None, None, None, [y], 2, False)
