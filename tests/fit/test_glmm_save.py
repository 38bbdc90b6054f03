"""Saved, loaded and pickled generalised fits answer as before."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

import mixedmodels as mm
from mixedmodels.errors import DataError
from mixedmodels.family import FAMILIES, Family, get_family
from mixedmodels.family.functions import exp

NATURAL = {"dispersion": 1.0, "df": 1.5, "power": 0.0, "cutpoint": -1.5, "log_gap": 1.2}
DRAWN = [name for name in FAMILIES if get_family(name).response != "categories"]


def fitted(family, zeros=False):
    own = get_family(family)
    rng = np.random.default_rng(5)
    data = {"x": rng.normal(size=80), "g": np.repeat(np.arange(8), 10).astype(str)}
    options = {"family": family}
    if own.response == "successes":
        options["trials"] = 12
    if family in ("gamma", "inverse_gaussian"):
        options["link"] = "log"
    gamma = {
        "disp_(Intercept)" if name == "dispersion" else name: value
        for name, value in NATURAL.items()
        if name in own.predictors
    }
    if family == "lognormal":
        gamma["disp_(Intercept)"] = -0.7
    data["y"] = mm.simulate(
        "y ~ x + (1 | g)", data, gamma=gamma or None, beta=[0.3, 0.2], sd={"g": 0.4}, seed=1, **options
    ).ravel()
    if zeros:
        data["y"] = data["y"] * (rng.random(80) < 0.7)
        options["zero_inflation"] = "~ 1"
    return mm.glmm("y ~ x + (1 | g)", data, **options)


@pytest.mark.parametrize(
    ("family", "zeros"),
    [
        *[(name, False) for name in DRAWN],
        *[(name, True) for name in DRAWN if get_family(name).response == "count"],
    ],
)
def test_every_family_comes_back(family, zeros, tmp_path):
    fit = fitted(family, zeros)
    path = tmp_path / "fit.mm"
    fit.save(path)
    rows = {"x": [0.0, 1.0], "g": ["0", "3"]}
    for other in (mm.load(path), pickle.loads(pickle.dumps(fit))):
        assert other.loglik == fit.loglik
        assert str(other.summary()) == str(fit.summary())
        assert repr(other.family) == repr(fit.family)
        np.testing.assert_allclose(other.joint_vcov, fit.joint_vcov, rtol=1e-6, atol=1e-12)
        np.testing.assert_array_equal(other.simulate(2, seed=1), fit.simulate(2, seed=1))
        np.testing.assert_allclose(
            other.predict(rows, se=True)["std_error"], fit.predict(rows, se=True)["std_error"], rtol=1e-6
        )
    again = mm.load(path).refit(fit.response())
    np.testing.assert_allclose(again.loglik, fit.loglik, rtol=1e-8)


class Exponential(Family):
    name = "exponential"
    links = ("log",)

    def log_density(self, data, eta):
        return -eta[0] - data.y * exp(-eta[0])


@pytest.mark.parametrize(
    "family",
    [
        Exponential(),
        Family.from_functions(
            "exponential", lambda data, eta: -eta[0] - data.y * exp(-eta[0]), links=("log",)
        ),
    ],
)
def test_a_family_of_ones_own_is_refused_with_the_remedy(family, tmp_path):
    rng = np.random.default_rng(1)
    data = {"y": rng.exponential(2.0, 60), "g": np.repeat(np.arange(6), 10).astype(str)}
    fit = mm.glmm("y ~ 1 + (1 | g)", data, family=family)
    for store in (lambda: fit.save(tmp_path / "fit.mm"), lambda: pickle.dumps(fit)):
        with pytest.raises(DataError, match=r"family of your own \('exponential'\).*start=psi"):
            store()
    assert not (tmp_path / "fit.mm").exists()
    again = mm.glmm("y ~ 1 + (1 | g)", data, family=family, start=fit.psi)
    np.testing.assert_allclose(again.loglik, fit.loglik, rtol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("family", DRAWN)
def test_parameters_of_simulated_models_are_recovered(family):
    own = get_family(family)
    rng = np.random.default_rng(8)
    g = np.repeat(np.arange(150), 20)
    data = {"x": rng.normal(size=3000), "g": g.astype(str)}
    options = {"family": family}
    if own.response == "successes":
        options["trials"] = 12
    if family in ("gamma", "inverse_gaussian"):
        options["link"] = "log"
    gamma = {
        "disp_(Intercept)" if name == "dispersion" else name: value
        for name, value in NATURAL.items()
        if name in own.predictors
    }
    if family in ("lognormal", "generalised_poisson", "truncated_generalised_poisson", "com_poisson"):
        gamma["disp_(Intercept)"] = 0.3
    truth = np.array([0.6, 0.3, *gamma.values(), 0.5])
    data["y"] = mm.simulate(
        "y ~ x + (1 | g)", data, gamma=gamma or None, beta=truth[:2], sd={"g": 0.5}, seed=2, **options
    ).ravel()
    fit = mm.glmm("y ~ x + (1 | g)", data, **options)
    places = [*fit.gamma_names, *fit.theta_names]
    order = [0, 1, *[places.index(name) for name in gamma], len(places) - 1]
    error = (fit.psi[order] - truth) / np.sqrt(fit.joint_vcov.diagonal()[order])
    assert np.abs(error).max() < 3.7, dict(zip(places, error.round(1).tolist(), strict=True))
