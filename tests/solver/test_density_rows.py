"""The vectorised log-densities of the compiled engines, against the jets and in the tails."""

from __future__ import annotations

import numpy as np
import pytest
from mixedmodels.solver._kernels.marginal_grouped import density_table

from mixedmodels.family.base import Observations
from mixedmodels.family.registry import get_family

LOGIT, POISSON = 1, 4


def exact(family, rows, eta, order):
    """By jets: a family of the same name without its compiled density."""
    plain = type("Plain", (type(get_family(family)),), {"kernel": 0})
    return plain().derivatives(rows, [eta], order)


@pytest.mark.parametrize("n", [1, 3, 4, 7, 1001])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("family", "code"), [("binomial", LOGIT), ("poisson", POISSON)])
def test_rows_equal_jets(family, code, weighted, n):
    rng = np.random.default_rng(n)
    eta = rng.uniform(-6.0, 6.0, n)
    trials = rng.integers(1, 20, n).astype(float)
    y = rng.binomial(trials.astype(int), 0.4).astype(float)
    weights = rng.uniform(0.5, 3.0, n) if weighted else None
    rows = Observations(y, trials if family == "binomial" else None, weights)
    want = exact(family, rows, eta, 4)
    constant = exact(family, Observations(y, rows.trials), np.zeros(n), 0)[0]
    constant = constant - (-trials * np.log(2.0) if family == "binomial" else -1.0)
    got = density_table(code, y, rows.trials, constant, weights, eta[None], 4, True, 5)
    scale = np.abs(y[None]) + np.abs(want)
    assert np.max(np.abs(got - want) / (1.0 + scale)) < 1e-13


def test_logit_against_libm_in_the_tails():
    """log(1 + e^eta) and its derivatives to a few units in the last place, whatever the size of eta."""
    eta = np.concatenate([-np.geomspace(1e-300, 700.0, 4001), np.geomspace(1e-300, 700.0, 4001), [0.0]])
    zeros = np.zeros_like(eta)
    got = density_table(LOGIT, zeros, None, None, None, eta[None], 2, True, 3)
    want = -np.logaddexp(0.0, eta.astype(np.longdouble))
    assert float(np.max(np.abs((got[0] - want) / want))) < 1e-15
    e = np.exp(-np.abs(eta.astype(np.longdouble)))
    p = np.where(eta >= 0.0, 1.0 / (1.0 + e), e / (1.0 + e))
    assert float(np.max(np.abs((got[1] + p) / p))) < 2e-15
    assert float(np.max(np.abs((got[2] + e / (1.0 + e) ** 2) / (e / (1.0 + e) ** 2)))) < 2e-15


def test_poisson_against_libm():
    eta = np.linspace(-700.0, 709.0, 20001)
    zeros = np.zeros_like(eta)
    got = density_table(POISSON, zeros, None, None, None, eta[None], 1, True, 2)
    want = np.exp(eta.astype(np.longdouble))
    assert float(np.max(np.abs((got[1] + want) / want))) < 1e-15


@pytest.mark.parametrize("code", [LOGIT, POISSON])
@pytest.mark.parametrize("eta", [np.nan, np.inf, -np.inf, 1e5])
def test_what_is_not_finite_stays_so(code, eta):
    """Infinite predictors are rejected, and so is a Poisson mean that overflows."""
    eta = np.full((1, 5), eta)
    y = np.full(5, 1.0)
    value = density_table(code, y, None, None, None, eta, 2, True, 3)[0]
    assert np.isfinite(value).all() == bool(code == LOGIT and eta[0, 0] == 1e5)
