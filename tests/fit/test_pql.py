"""Penalised quasi-likelihood: MASS's glmmPQL, and what holds at convergence."""

import numpy as np
import pytest

import mixedmodels as mm
from mixedmodels.errors import ConvergenceWarning, OptionError
from mixedmodels.fit.glmm_values import working_response, working_weights
from mixedmodels.objective.henderson import henderson, random_effects_matrix


@pytest.fixture(scope="module")
def cbpp():
    return mm.glmm(
        "incidence ~ period + (1 | herd)",
        mm.load_dataset("cbpp", "pandas"),
        family="binomial",
        trials="size",
    )


@pytest.fixture(scope="module")
def ticks():
    data = mm.load_dataset("grouseticks", "pandas")
    data["HEIGHT"] = (data["HEIGHT"] - data["HEIGHT"].mean()) / 100
    return mm.glmm("TICKS ~ YEAR + HEIGHT + (1 | BROOD)", data, family="poisson")


# references/glmm/pql.R; R stops once eta moves by 0.001 of its size, which leaves errors of about 1e-5
@pytest.mark.parametrize(
    ("sigma", "residual", "sd", "beta", "se"),
    [
        (
            1.0,
            1.0,
            0.6245503,
            [-1.357508353, -0.979368039, -1.114174113, -1.563320294],
            [0.224091578, 0.302970023, 0.323224575, 0.424173429],
        ),
        (
            None,
            1.1845275,
            0.5563535,
            [-1.32736388, -1.01612643, -1.14998423, -1.60521703],
            [0.230324897, 0.355006694, 0.379381608, 0.499001963],
        ),
    ],
)
def test_proportions_as_in_r(cbpp, sigma, residual, sd, beta, se):
    found = cbpp.pql(sigma=sigma)
    assert found.converged
    np.testing.assert_allclose(list(found.fixef.values()), beta, rtol=2e-5)
    np.testing.assert_allclose(list(found.se.values()), se, rtol=1e-4)
    assert found.varcorr["herd"].sds[0] == pytest.approx(sd, rel=1e-4)
    assert found.working.sigma == pytest.approx(residual, rel=1e-4)


def test_counts_as_in_r(ticks):
    found = ticks.pql()
    beta = [0.627862043, 1.066427150, -0.957832311, -2.259300773]
    np.testing.assert_allclose(list(found.fixef.values()), beta, rtol=1e-5)
    np.testing.assert_allclose(
        list(found.se.values()), [0.174509418, 0.229758601, 0.257377970, 0.285960239], rtol=1e-4
    )
    assert found.varcorr["BROOD"].sds[0] == pytest.approx(0.9034992, rel=1e-4)


@pytest.mark.parametrize("reml", [False, True])
def test_it_is_the_linear_mixed_model_of_its_working_response(ticks, reml):
    found = ticks.pql(reml=reml)
    columns = {
        "z": found.response,
        "YEAR": ticks._data["YEAR"],
        "HEIGHT": ticks._data["HEIGHT"],
        "BROOD": ticks._data["BROOD"],
    }
    linear = mm.lmm("z ~ YEAR + HEIGHT + (1 | BROOD)", columns, weights=found.weights, sigma=1.0, reml=reml)
    np.testing.assert_allclose(list(linear.fixef.values()), list(found.fixef.values()), rtol=1e-6)
    assert linear.varcorr["BROOD"].sds[0] == pytest.approx(found.varcorr["BROOD"].sds[0], rel=1e-6)
    # ... and the working response is the one at its own estimates
    data, eta = ticks.generalised.data, found.eta[None, :]
    np.testing.assert_allclose(working_response(ticks.family, data, eta), found.response, atol=1e-6)
    np.testing.assert_allclose(working_weights(ticks.family, data, eta), found.weights, rtol=1e-6)


def test_its_effects_solve_the_mixed_model_equations(cbpp):
    found = cbpp.pql()
    term = cbpp.generalised.terms[0]
    Z = random_effects_matrix(term.codes, term.Z, term.m)
    G = found.varcorr["herd"].sds[0] ** 2 * np.eye(term.m)
    step = henderson(cbpp.design.X, Z, G, found.weights, found.response)
    np.testing.assert_allclose(step.beta, list(found.fixef.values()), rtol=1e-6)
    np.testing.assert_allclose(step.b, found.working.ranef()["estimate"], atol=1e-6)


def test_it_underestimates_variances(cbpp):
    """Breslow & Lin (1995): towards zero, more than Laplace's approximation, which is below quadrature."""
    exact = cbpp.update(nagq=15)
    sds = [f.varcorr["herd"].sds[0] for f in (cbpp.pql(), cbpp, exact)]
    assert sds[0] < sds[1] < sds[2]


def test_offsets_slopes_and_crossed_factors():
    rng = np.random.default_rng(5)
    n = 400
    data = {
        "x": rng.standard_normal(n),
        "a": np.arange(n) % 20,
        "b": rng.integers(0, 15, n),
        "time": rng.uniform(1.0, 3.0, n),
    }
    effects = 0.5 * rng.standard_normal((20, 2))
    eta = np.log(data["time"]) + 0.3 + 0.5 * data["x"]
    eta = eta + effects[data["a"], 0] + effects[data["a"], 1] * data["x"]
    data["y"] = rng.poisson(np.exp(eta))
    fit = mm.glmm("y ~ x + offset(log(time)) + (x | a) + (1 | b)", data, family="poisson")
    found = fit.pql()
    assert found.converged
    np.testing.assert_allclose(list(found.fixef.values()), list(fit.fixef.values()), atol=0.05)
    np.testing.assert_allclose(found.varcorr["a"].sds, fit.varcorr["a"].sds, rtol=0.1)
    assert "Penalised quasi-likelihood" in repr(found)


def test_what_it_cannot_do(cbpp, ticks):
    overdispersed = ticks.update(family="negative_binomial")
    with pytest.raises(OptionError, match="dispersion"):
        overdispersed.pql()
    with pytest.raises(OptionError, match="maxiter"):
        cbpp.pql(maxiter=0)
    with pytest.warns(ConvergenceWarning, match="pql did not converge"):
        assert not cbpp.pql(maxiter=2).converged
