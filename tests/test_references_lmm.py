"""Every Gaussian lme4 reference fit in ``references/lmm``: likelihood, estimates, values, predictions.

The references were optimised with several optimisers and polished by Newton steps, so they are good to the
tolerances written in them: 1e-7 relative in the criterion, 1e-5 in fixed effects, 1e-4 in variances.
"""

from __future__ import annotations

import functools
import json
import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import mixedmodels as mm
from mixedmodels.testing.reference_data import read_reference_table

HERE = Path(__file__).parent / "references"
IDS = sorted(path.stem for path in (HERE / "lmm").glob("*.json"))

each_reference = pytest.mark.parametrize("id_", IDS)


@functools.cache
def reference(id_):
    return json.loads((HERE / "lmm" / f"{id_}.json").read_text(encoding="utf-8"))


@functools.cache
def table(name):
    described = json.loads((HERE / "data" / "columns.json").read_text(encoding="utf-8"))
    return read_reference_table(HERE / "data", name) if name in described else mm.load_dataset(name, "pandas")


def arguments(ref):
    """Keyword arguments that say what the R call says (the offset is in the formula)."""
    weights = {"weights": "w"} if "weights = w" in ref["call"] else {}
    return {"reml": ref["estimation"] == "REML", **weights}


@functools.cache
def fitted(id_):
    ref = reference(id_)
    return mm.lmm(ref["formula"], table(ref["data"]), **arguments(ref))


def reordered_theta(ref, terms):
    """lme4 orders terms by number of levels; ours keep the formula's order. Map by name.

    `terms` are our random terms in theta's order; the entries of a covariance structure say which element of
    the factor each parameter is.
    """
    by_name = dict(zip(ref["theta"]["names"], ref["theta"]["values"], strict=True))
    theta = []
    for term in terms:
        part = np.full(term.covariance.n_theta, np.nan)
        for row, column, parameter in term.covariance.entries:
            names = [term.names[row]] if row == column else [term.names[row], term.names[column]]
            part[parameter] = by_name.pop(".".join([term.group, *names]))
        theta.append(part)
    assert not by_name, f"parameters of the reference not found in the model: {by_name}"
    return np.concatenate(theta)


def covariances(fit):
    """{(group, name1, name2): covariance} from the variance table, residual left out."""
    out = {}
    for row in fit.varcorr.to_frame().itertuples():
        if row.group != "Residual":
            group = re.sub(r"\.\d+$", "", row.group)  # independent terms on one factor are numbered
            second = row.name1 if pd.isna(row.name2) else row.name2
            out[group, row.name1, second] = out[group, second, row.name1] = row.vcov
    return out


def test_the_collection_is_complete():
    assert len(IDS) == 46
    assert {reference(id_)["estimation"] for id_ in IDS} == {"ML", "REML"}


@each_reference
def test_objective_at_the_reference_theta(id_):
    ref = reference(id_)
    model = mm.LinearMixedModel(ref["formula"], table(ref["data"]), **arguments(ref))
    theta = reordered_theta(ref, model.design.terms)
    assert model.objective(theta) == pytest.approx(ref["objective"]["deviance"], rel=1e-9)


@each_reference
def test_criterion_is_at_least_as_good(id_):
    ref, fit = reference(id_), fitted(id_)
    expected = ref["objective"]["deviance"]
    assert fit.criterion <= expected + 1e-7 * abs(expected)
    assert fit.criterion == pytest.approx(expected, rel=1e-6), (
        "far better than the reference: not the same model"
    )
    assert fit.converged


@each_reference
def test_likelihood_summaries(id_):
    ref, fit = reference(id_), fitted(id_)
    expected = ref["objective"]
    assert fit.nobs == ref["n"]
    assert fit.df_model == expected["n_parameters"]
    assert fit.is_reml == (ref["estimation"] == "REML")
    assert fit.loglik == pytest.approx(expected["logLik"], rel=1e-7)
    assert fit.aic == pytest.approx(expected["AIC"], rel=1e-7)
    assert fit.bic == pytest.approx(expected["BIC"], rel=1e-7)


@each_reference
def test_fixed_effects(id_):
    ref, fit = reference(id_), fitted(id_)
    estimable = [name for name, value in fit.fixef.items() if not math.isnan(value)]
    assert estimable == list(ref["beta"])
    estimates = np.array([fit.fixef[name] for name in estimable])
    errors = np.array([fit.se[name] for name in estimable])
    expected, expected_errors = np.array(list(ref["beta"].values())).T
    # An estimate near zero is known to a fraction of its standard error only.
    assert np.all(np.abs(estimates - expected) <= 1e-5 * np.maximum(np.abs(expected), expected_errors))
    np.testing.assert_allclose(errors, expected_errors, rtol=1e-5)


@each_reference
def test_covariance_of_the_fixed_effects(id_):
    ref, fit = reference(id_), fitted(id_)
    expected = np.array(ref["vcov"]["values"])
    kept = [i for i, value in enumerate(fit.beta) if not math.isnan(value)]
    errors = np.sqrt(np.diag(expected))
    difference = np.asarray(fit.vcov)[np.ix_(kept, kept)] - expected
    assert np.max(np.abs(difference) / np.outer(errors, errors)) < 5e-5


@each_reference
def test_variance_parameters(id_):
    ref, fit = reference(id_), fitted(id_)
    assert fit.sigma == pytest.approx(ref["sigma"], rel=1e-5)
    np.testing.assert_allclose(fit.theta, reordered_theta(ref, fit.design.terms), rtol=1e-4, atol=1e-6)
    ours = covariances(fit)
    for block in ref["varcorr"]:
        for i, row in enumerate(block["terms"]):
            for j, column in enumerate(block["terms"]):
                scale = block["sd"][i] * block["sd"][j] + 1e-6 * ref["sigma"] ** 2
                assert abs(ours[block["group"], row, column] - block["cov"][i][j]) <= 2e-4 * scale


@each_reference
def test_boundary(id_):
    ref, fit = reference(id_), fitted(id_)
    assert fit.is_singular == ref["singular"]
    at_zero = reordered_theta(ref, fit.design.terms) == 0.0
    assert np.all(fit.theta[at_zero] == 0.0), "on the boundary exactly, not nearly"


@each_reference
def test_random_effects(id_):
    ref, fit = reference(id_), fitted(id_)
    ours = {
        (group, str(level), term): (estimate, sd)
        for group, level, term, estimate, sd in fit.ranef(condvar=True).itertuples(index=False)
    }
    assert len(ours) == sum(block["n_levels"] * len(block["terms"]) for block in ref["ranef"])
    for block in ref["ranef"]:
        expected = np.array(block["values"])
        condvar = np.array(block["condvar"])
        keys = [[(block["group"], level, term) for term in block["terms"]] for level in block["levels"]]
        estimates = np.array([[ours[key][0] for key in row] for row in keys])
        variances = np.array([[ours[key][1] ** 2 for key in row] for row in keys])
        tiny = 1e-6 * ref["sigma"]
        size = np.maximum(np.abs(expected), np.sqrt(condvar)) + tiny
        assert np.max(np.abs(estimates - expected) / size) < 1e-4
        np.testing.assert_allclose(variances, condvar, rtol=1e-4, atol=tiny**2)


@each_reference
@pytest.mark.parametrize("which", ["fitted", "residual"])
def test_fitted_values_and_residuals(id_, which):
    ref, fit = reference(id_)[which], fitted(id_)
    values = np.asarray(fit.fitted() if which == "fitted" else fit.residuals(), dtype=float)
    sigma = reference(id_)["sigma"]
    assert values.shape == (ref["n"],)
    np.testing.assert_allclose(values[:10], ref["head"], rtol=1e-5, atol=1e-4 * sigma)
    assert values @ values == pytest.approx(ref["sumsq"], rel=1e-5)
    assert values.sum() == pytest.approx(ref["sum"], rel=1e-7, abs=1e-5 * sigma * ref["n"])


@each_reference
@pytest.mark.parametrize("which", ["population", "conditional"])
def test_predictions(id_, which):
    ref, fit = reference(id_), fitted(id_)
    newdata = pd.DataFrame(ref["predictions"]["newdata"])
    before = newdata.copy()
    if which == "population":
        values = fit.predict(newdata, re_form="population")
    else:
        values = fit.predict(newdata, new_levels="population")
    expected = np.array(ref["predictions"][which], dtype=float)
    np.testing.assert_allclose(np.asarray(values, dtype=float), expected, rtol=1e-5, atol=1e-4 * ref["sigma"])
    pd.testing.assert_frame_equal(newdata, before)
