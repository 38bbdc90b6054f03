"""Responses drawn from generalised fits."""

import numpy as np
import pytest

import mixedmodels as mm
from mixedmodels.errors import DataError, OptionError


@pytest.fixture(scope="module")
def fit():
    data = mm.load_dataset("cbpp", backend="dict")
    return mm.glmm("incidence ~ period + (1 | herd)", data, family="binomial", trials="size")


def test_the_form_of_the_response_and_the_seed(fit):
    draws = fit.simulate(5, seed=1)
    assert draws.shape == (56, 5)
    np.testing.assert_array_equal(draws, np.floor(draws))
    assert (draws >= 0).all() and (draws <= fit.generalised.data.trials[:, None]).all()
    np.testing.assert_array_equal(fit.simulate(2, seed=1), draws[:, :2])
    assert (fit.simulate(1, seed=2)[:, 0] != draws[:, 0]).any()


def test_moments_at_the_modes(fit):
    draws = fit.simulate(4000, seed=3, new_effects=False)
    m, mu = fit.generalised.data.trials, fit.fitted()
    error = (draws.mean(axis=1) - m * mu) / np.sqrt(m * mu * (1.0 - mu) / 4000)
    assert np.abs(error).max() < 4.5
    assert np.mean(error**2) == pytest.approx(1.0, abs=0.7)


def test_new_effects_add_the_variance_between_levels(fit):
    z = np.log
    rows = {"period": ["1"] * 2, "herd": ["X", "X"]}
    draws = fit.simulate(3000, seed=5, newdata=rows, trials=10_000) / 10_000
    logit = z(draws) - z(1.0 - draws)
    sd = fit.varcorr["herd"].sds[0]
    assert logit.std() == pytest.approx(sd, rel=0.05)
    assert np.corrcoef(logit)[0, 1] > 0.99  # one new level, one effect
    population = fit.simulate(3000, seed=5, newdata=rows, trials=10_000, re_form="population") / 10_000
    assert population.mean() == pytest.approx(fit.predict(rows, re_form="population")[0], rel=0.01)


def test_other_parameters(fit):
    certain = fit.simulate(20, seed=1, gamma={"(Intercept)": 50.0}, theta=[0.0])
    np.testing.assert_array_equal(certain, np.broadcast_to(fit.generalised.data.trials[:, None], (56, 20)))
    same = fit.simulate(3, seed=1, beta=fit.fixef)
    np.testing.assert_array_equal(same, fit.simulate(3, seed=1))


def test_rows_that_cannot_be_drawn_are_missing(fit):
    rows = {"period": ["1", None, "2"], "herd": ["1", "1", "1"], "size": [5, 5, 7]}
    draws = fit.simulate(2, seed=1, newdata=rows)
    assert np.isnan(draws).tolist() == [[False, False], [True, True], [False, False]]


def test_wrong_input(fit):
    new = {"period": ["1"], "herd": ["unseen"]}
    with pytest.raises(OptionError, match="no parameter 'zi_x'"):
        fit.simulate(gamma={"zi_x": 1.0})
    with pytest.raises(mm.MixedModelsError, match="size"):
        fit.simulate(newdata={"period": ["1"], "herd": ["1"]})
    with pytest.raises(DataError, match="has levels that the fit has not seen"):
        fit.simulate(newdata=new, trials=3, new_effects=False)
    with pytest.raises(DataError, match="whole numbers"):
        fit.simulate(newdata=new, trials=[2.5])
    with pytest.raises(OptionError, match="newdata"):
        fit.simulate(trials=3)
    with pytest.raises(OptionError, match="not both"):
        fit.simulate(gamma=fit.gamma, beta=fit.beta)
    with pytest.raises(OptionError, match="theta needs 1"):
        fit.simulate(theta=[1.0, 2.0])
