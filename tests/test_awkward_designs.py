"""Unbalanced, crossed, nested, weighted and badly scaled models against lme4 (``references/awkward/make.R``).

lme4 evaluated its criterion, estimates and conditional modes at the theta that is stored with them, so that
everything but the optimum itself can be compared to the last digits; the criterion that lme4's own optimiser
reached is an upper bound for ours.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import mixedmodels as mm

HERE = Path(__file__).parent / "references" / "awkward"
MODELS = json.loads((HERE / "models.json").read_text(encoding="utf-8"))
each_model = pytest.mark.parametrize(
    "number", range(len(MODELS)), ids=[f"{m['data']}-{m['formula']}-{m['reml']}" for m in MODELS]
)


@functools.cache
def table(name, subset):
    data = pd.read_csv(HERE / f"{name}.csv")
    if "ord" in data:
        data["ord"] = pd.Categorical(data["ord"], ordered=True)
    return data if subset is None else data[data[subset] == "keep"]


@functools.cache
def model(number):
    m = MODELS[number]
    return mm.LinearMixedModel(
        m["formula"],
        table(m["data"], m.get("subset")),
        reml=m["reml"],
        weights=m.get("weights"),
        offset=m.get("offset"),
    )


@functools.cache
def fitted(number):
    return model(number).fit()


def given_theta(number):
    """The theta of the reference; lme4 splits independent columns into terms of their own."""
    parts = [np.array(part["factor"]) for part in MODELS[number]["factors"]]
    return np.concatenate([part.T[np.triu_indices(len(part))] for part in parts])


def plain(group):
    return ":".join(sorted(group.split(":")))


@each_model
def test_criterion_at_the_given_theta(number):
    expected = MODELS[number]["lme4"]["criterion"]
    assert model(number).objective(given_theta(number)) == pytest.approx(expected, rel=1e-10, abs=1e-7)


@each_model
def test_nothing_better_is_known(number):
    fit, known = fitted(number), MODELS[number]["lme4"]
    assert fit.converged
    assert fit.criterion <= known["criterion"] + 1e-7
    assert fit.criterion <= known["reached"] + 1e-7
    assert fit.criterion == pytest.approx(known["criterion"], rel=1e-8)


@each_model
def test_estimates(number):
    fit, known = fitted(number), MODELS[number]["lme4"]
    assert list(fit.fixef) == list(known["beta"])
    errors = np.array(list(known["se"].values()))
    np.testing.assert_allclose(list(fit.se.values()), errors, rtol=2e-5)
    difference = np.array(list(fit.fixef.values())) - np.array(list(known["beta"].values()))
    assert np.max(np.abs(difference) / errors, initial=0.0) < 2e-5
    assert fit.sigma == pytest.approx(known["sigma"], rel=1e-5)
    values = fit.fitted()[np.array([0, 6, 49, 99, 199])[: len(known["fitted"])]]
    present = np.array([value is not None for value in known["fitted"]])
    expected = np.array([np.nan if value is None else value for value in known["fitted"]], dtype=float)
    np.testing.assert_allclose(values[present], expected[present], atol=1e-4 * fit.sigma)


@each_model
def test_conditional_modes(number):
    fit, known = fitted(number), MODELS[number]["lme4"]["modes"]
    curvature = np.linalg.eigvalsh(fit.optimum.hessian)
    if curvature[0] < 1e-8 * curvature[-1]:
        pytest.skip("terms with the same levels: only the sum of their variances is determined")
    modes = {}
    for position, effects in enumerate(fit.ranef_arrays()):
        variances = np.diagonal(fit.conditional_covariance(position), axis1=1, axis2=2)
        entry = modes.setdefault(plain(effects.group), ([], []))
        entry[0].append(fit._b[position].ravel())
        entry[1].append(variances.ravel())
    assert modes.keys() == known.keys()
    for group, (estimates, variances) in modes.items():
        square, variance = (np.concatenate(parts) for parts in (estimates, variances))
        size = known[group]["mean_square"] + known[group].get("mean_variance", 0.0)
        assert np.mean(square**2) == pytest.approx(known[group]["mean_square"], rel=1e-4, abs=1e-4 * size)
        if "mean_variance" in known[group]:
            assert variance.mean() == pytest.approx(known[group]["mean_variance"], rel=1e-4, abs=1e-5 * size)


@each_model
def test_predicting_the_rows_of_the_fit_gives_the_fitted_values(number):
    fit, m = fitted(number), MODELS[number]
    data = table(m["data"], m.get("subset"))
    np.testing.assert_allclose(fit.predict(data), fit.fitted(), rtol=1e-10, atol=1e-9 * fit.sigma)
