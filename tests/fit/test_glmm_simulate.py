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


# ---------------------------------------------------------------------- without a fit
@pytest.fixture(scope="module")
def design():
    rng = np.random.default_rng(1)
    return {"x": rng.standard_normal(4000), "g": np.repeat(np.arange(400), 10).astype(str)}


def test_de_novo_moments(design):
    given = {"beta": [1.0, 0.3], "sd": 0.5, "seed": 1}
    x = design["x"]
    y = mm.simulate("~ x + (1 | g)", design, family="poisson", **given)
    mean = np.mean(np.exp(1.0 + 0.3 * x + 0.125))
    assert y.mean() == pytest.approx(mean, rel=0.06)
    inflated = mm.simulate("y ~ x + (1 | g)", design, family="poisson", zero_inflation=0.3, **given)
    assert inflated.mean() == pytest.approx(0.7 * mean, rel=0.06)
    gaussian = mm.simulate("~ x + (1 | g)", design, family="gaussian", dispersion=2.0, **given)
    assert np.var(gaussian - 0.3 * x) == pytest.approx(4.25, rel=0.07)
    binomial = mm.simulate("~ x + (1 | g)", design, family="binomial", trials=7, n=3, **given)
    assert binomial.shape == (4000, 3) and set(np.unique(binomial)) == set(range(8))


def test_de_novo_formulas_of_other_parts(design):
    draws = mm.simulate(
        "~ 1 + (1 | g)",
        design,
        family="poisson",
        beta=[2.0],
        theta=[0.0],
        zero_inflation="~ x",
        gamma={"zi_(Intercept)": 0.0, "zi_x": 2.0},
        seed=3,
    )
    zero = 1.0 / (1.0 + np.exp(-2.0 * design["x"]))
    expected = zero + (1.0 - zero) * np.exp(-np.exp(2.0))
    error = (draws == 0) - expected
    assert abs(error.mean()) < 0.03 and abs((error * design["x"]).mean()) < 0.03


def test_de_novo_is_recovered_by_the_fit():
    data = {"x": np.tile([0.0, 1.0], 150), "g": np.repeat(np.arange(30), 10).astype(str)}
    data["y"] = mm.simulate("~ x + (1 | g)", data, family="poisson", beta=[1.0, 0.5], sd=0.4, seed=9)
    fit = mm.glmm("y ~ x + (1 | g)", data, family="poisson")
    z = (fit.beta - [1.0, 0.5]) / np.array(list(fit.se.values()))
    assert np.abs(z).max() < 3.0
    assert fit.varcorr["g"].sds[0] == pytest.approx(0.4, abs=0.2)


def test_de_novo_rows_with_missing_values_are_missing(design):
    data = {"x": [0.0, np.nan, 1.0], "g": ["a", "a", "b"]}
    y = mm.simulate("~ x + (1 | g)", data, family="poisson", beta=[1.0, 0.5], sd=1.0, seed=9)
    assert np.isnan(y).tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"family": "poisson", "dispersion": 2.0}, "has no dispersion"),
        ({"family": "gaussian"}, "gamma lacks disp_"),
        ({"family": "gaussian", "dispersion": -1}, "positive number"),
        ({"family": "poisson", "gamma": {"zi_x": 1.0}}, "no parameter 'zi_x'"),
        ({"family": "poisson", "gamma": 3}, "must be a dict"),
        ({"dispersion": 1.0}, "give family as well"),
        ({"family": "poisson", "zero_inflation": 2}, "probability"),
        ({"family": "poisson", "sigma": 1.0}, "linear models"),
        ({"family": "poisson", "beta": [1.0]}, "beta needs 2"),
        ({"family": "poisson", "sd": None}, "sd lacks"),
    ],
)
def test_de_novo_wrong_input(design, options, message):
    with pytest.raises(OptionError, match=message):
        mm.simulate("~ x + (1 | g)", design, **{"beta": [1.0, 0.3], "sd": 0.5, **options})
