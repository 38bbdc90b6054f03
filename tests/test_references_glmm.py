"""Every generalised reference fit in ``references/glmm``: likelihood, estimates and standard errors.

Log-likelihoods meet those of the reference within 1e-6 (relative) or are larger; parameters agree to 1e-4,
standard errors to 1e-3 (with lme4 those of its precise Hessian where they were computed).
"""

from __future__ import annotations

import functools
import json
from pathlib import Path

import numpy as np
import pytest

import mixedmodels as mm
from mixedmodels.errors import OptionError
from mixedmodels.family import get_family
from mixedmodels.objective.marginal.expected import has_expected_information
from mixedmodels.testing.reference_data import read_reference_table

HERE = Path(__file__).parent / "references"

CBPP = ("incidence ~ period + (1 | herd)", {"family": "binomial", "trials": "size"})
OWLS = "SiblingNegotiation ~ FoodTreatment * SexParent + offset(logBroodSize) + (1 | Nest)"


def cbpp(**more):
    return CBPP[0], {**CBPP[1], **more}


# formula (None: that of the reference) and keyword arguments
CASES = {
    "bglmer_cbpp_default": cbpp(priors="wishart"),
    "bglmer_cbpp_normal": cbpp(
        priors={"theta": "wishart", "fixed": ("normal", 0, 1), "(Intercept)": ("normal", 0, 3)}
    ),
    "cbpp_cloglog": cbpp(link="cloglog", information="expected"),
    "cbpp_probit": cbpp(link="probit", information="expected"),
    "cbpp_nagq0": cbpp(nagq=0),
    "cbpp_nagq1": cbpp(),
    "cbpp_weights_laplace": cbpp(),
    "contraception_int": (None, {"family": "binomial"}),
    "contraception_slope": (None, {"family": "binomial"}),
    "grouseticks_poisson_brood": (None, {"family": "poisson"}),
    "sim_bern_slope_crossed": (None, {"family": "binomial"}),
    "sim_bern_uncorr": (None, {"family": "binomial"}),
    "tmb_cbpp": cbpp(),
    "tmb_cbpp_cloglog": cbpp(link="cloglog"),
    "tmb_cbpp_probit": cbpp(link="probit"),
    "tmb_contraception_slope": (None, {"family": "binomial"}),
    "tmb_sim_bern_slope_crossed": (None, {"family": "binomial"}),
    "tmb_beta": (None, {"family": "beta"}),
    "tmb_beta_disp": ("y ~ x + trt + (1 | g)", {"family": "beta", "dispersion": "~ trt"}),
    "tmb_betabinomial": (None, {"family": "betabinomial"}),
    "tmb_epil2_nb1": (None, {"family": "nbinom1"}),
    "tmb_epil2_nb2": (None, {"family": "negative_binomial"}),
    "tmb_gamma": (None, {"family": "Gamma", "link": "log"}),
    "tmb_gauss_disp": ("y ~ x + trt + (1 | g)", {"family": "gaussian", "dispersion": "~ x + trt"}),
    "tmb_owls_zinb1_cov": (
        "SiblingNegotiation ~ FoodTreatment + ArrivalTime + offset(logBroodSize) + (1 | Nest)",
        {"family": "nbinom1", "zero_inflation": "~ FoodTreatment + (1 | Nest)"},
    ),
    "tmb_owls_zinb2": (OWLS, {"family": "negative_binomial", "zero_inflation": "~ 1"}),
    "tmb_owls_zip": (OWLS, {"family": "poisson", "zero_inflation": "~ 1"}),
    "tmb_sal_disp": (
        "count ~ spp + mined + (1 | site)",
        {"family": "negative_binomial", "dispersion": "~ DOY"},
    ),
    "tmb_sal_genpois": (None, {"family": "generalised_poisson"}),
    "tmb_sal_hurdle_nb2": (
        "count ~ mined + cover + (1 | site)",
        {"family": "truncated_nbinom2", "zero_inflation": "~ mined + cover"},
    ),
    "tmb_sal_hurdle_pois": (
        "count ~ spp + mined + (1 | site)",
        {"family": "truncated_poisson", "zero_inflation": "~ spp + mined"},
    ),
    "tmb_sal_nb2": (None, {"family": "negative_binomial"}),
    "tmb_sal_zinb2": (
        "count ~ spp * mined + (1 | site)",
        {"family": "negative_binomial", "zero_inflation": "~ mined"},
    ),
    "tmb_sal_zip": (
        "count ~ spp + mined + (1 | site)",
        {"family": "poisson", "zero_inflation": "~ spp + mined"},
    ),
    "tmb_simnb_offset": (None, {"family": "negative_binomial"}),
    "tmb_tdist": (None, {"family": "t"}),
    "tmb_tweedie": (None, {"family": "tweedie"}),
    "tmb_sleepstudy_ml": (None, {"family": "gaussian"}),
    "tmb_epil2_nb2_slope": (None, {"family": "negative_binomial"}),
    "tmb_grouseticks_nb2": (None, {"family": "negative_binomial"}),
    "verbagg_laplace": (None, {"family": "binomial"}),
    "grouseticks_nagq0": (None, {"family": "poisson", "nagq": 0}),
    "grouseticks_poisson3": (None, {"family": "poisson"}),
    "tmb_grouseticks_poisson3": (None, {"family": "poisson"}),
}

each_reference = pytest.mark.parametrize("id_", list(CASES))


@functools.cache
def reference(id_):
    return json.loads((HERE / "glmm" / f"{id_}.json").read_text(encoding="utf-8"))


@functools.cache
def table(name):
    described = json.loads((HERE / "data" / "columns.json").read_text(encoding="utf-8"))
    out = read_reference_table(HERE / "data", name) if name in described else mm.load_dataset(name, "pandas")
    return out.assign(use=(out["use"] == "Y").astype(float)) if name == "Contraception" else out


@functools.cache
def fitted(id_):
    formula, options = CASES[id_]
    ref = reference(id_)
    try:
        family = get_family(options["family"], options.get("link"))
    except OptionError:
        pytest.skip(f"the family {options['family']} is not available")
    if options.get("information") == "expected" and not has_expected_information(family):
        pytest.skip("the family does not give its expected information")
    return mm.glmm(ref["formula"] if formula is None else formula, table(ref["data"]), **options)


def sds_of(fit):
    return {
        (part.group, name): sd
        for part in fit.varcorr.terms
        for name, sd in zip(part.names, part.sds, strict=True)
    }


@each_reference
def test_log_likelihood(id_):
    fit, ref = fitted(id_), reference(id_)
    assert fit.converged
    target = ref["objective"]["logLik"]
    if id_.startswith("bglmer"):  # not what was maximised
        assert fit.loglik == pytest.approx(target, rel=1e-6)
    else:
        assert fit.loglik > target - 1e-6 * abs(target)
        assert fit.loglik == pytest.approx(target, rel=1e-5)


@each_reference
def test_parameters(id_):
    fit, ref = fitted(id_), reference(id_)
    assert fit.df_model == ref["objective"]["n_parameters"]
    beta = {name: value for name, (value, _) in ref["beta"].items()}
    assert list(fit.fixef) == list(beta)
    np.testing.assert_allclose(list(fit.fixef.values()), list(beta.values()), rtol=1e-4, atol=1e-6)
    sds = sds_of(fit)
    # at a correlation of 1 the reference stops short of the boundary, with a lower likelihood
    tolerance = 1e-3 if fit.is_singular else 1e-4
    for term in ref["varcorr"]:
        for name, sd in zip(term["terms"], term["sd"], strict=True):
            # glmmTMB, which searches log SDs, leaves a variance of zero at about 1e-6
            assert sds[term["group"], name] == pytest.approx(sd, rel=tolerance, abs=1e-6)


@each_reference
def test_standard_errors(id_):
    fit, ref = fitted(id_), reference(id_)
    if fit._options.nagq == 0:
        # lme4's are given theta: the first part of ours
        found = fit.objective.evaluate(fit.psi, 2).penalised
        p = len(fit.fixef)
        given = np.sqrt(np.diagonal(2.0 * np.linalg.inv(found[:p, :p])))
        expected = ref.get("se_given_theta", {n: s for n, (_, s) in ref["beta"].items()})
        np.testing.assert_allclose(given, list(expected.values()), rtol=1e-3)
        assert (np.array(list(fit.se.values())) >= given).all()
        return
    expected = ref.get("se") or {name: se for name, (_, se) in ref["beta"].items()}
    np.testing.assert_allclose(list(fit.se.values()), list(expected.values()), rtol=1e-3)


@each_reference
def test_the_criterion_is_stationary(id_):
    """In standard-error units: half of g'H^{-1}g is the decrease that is left."""
    fit = fitted(id_)
    if fit._options.nagq == 0:
        pytest.skip("another criterion decided about the coefficients")
    found = fit.objective.evaluate(fit.psi, 2)
    left = 0.5 * found.gradient @ np.linalg.solve(found.hessian, found.gradient)
    assert abs(left) < 1e-8


# ---------------------------------------------------------------------- values at fixed parameters
@pytest.mark.parametrize("id_", ["cbpp_nagq1", "tmb_cbpp_probit", "tmb_contraception_slope"])
def test_value_at_the_reference_parameters(id_):
    """The criterion at the reference's own estimates, where it says what its log-likelihood is."""
    fit, ref = fitted(id_), reference(id_)
    beta = [value for value, _ in ref["beta"].values()]
    factors = []
    for term in ref["varcorr"]:
        Sigma = np.array(term["corr"]) * np.outer(term["sd"], term["sd"])
        factors.append(np.linalg.cholesky(Sigma))
    theta = fit.objective.coordinates.map.theta_of(factors)
    value = fit.objective.value(np.concatenate([beta, theta]))
    assert value == pytest.approx(-2.0 * ref["objective"]["logLik"], rel=1e-8)


# ---------------------------------------------------------------------- values of MixedModels.jl's test suite
def test_verbagg_at_given_variances():
    """Criterion with coefficients and random effects at their joint mode, theta = (1, 1): no optimiser."""
    fit = mm.glmm(
        "r2 ~ Anger + Gender + btype + situ + (1 | id) + (1 | item)",
        mm.load_dataset("VerbAgg", backend="dict"),
        family="binomial",
        nagq=0,
        fixed={"id.(Intercept)": 1.0, "item.(Intercept)": 1.0},
    )
    assert fit.criterion == pytest.approx(8201.848559060705, rel=1e-12)
    beta = [
        0.21853493716468653,
        0.051438542580796845,
        0.2902245416629646,
        -0.9791237061900664,
        -1.954016762811715,
        -0.9794925718020747,
    ]
    np.testing.assert_allclose(fit.beta, beta, rtol=1e-9)


def test_parts_of_the_cbpp_criterion():
    fit = mm.glmm(
        "cbind(incidence, size - incidence) ~ period + (1 | herd)",
        mm.load_dataset("cbpp", backend="dict"),
        family="binomial",
    )
    modes = fit.objective.modes(fit.psi)
    # MixedModels.jl stops at a log-likelihood of -92.02628187247377, 8e-9 below
    assert fit.loglik == pytest.approx(-92.02628187247377, rel=1e-9)
    assert modes.logdet == pytest.approx(16.901127982275217, rel=2e-5)
    assert float((modes.u[0] ** 2).sum()) == pytest.approx(9.72301224524056, rel=2e-5)
    assert fit.residual_deviance == pytest.approx(73.47171597956056, rel=1e-6)
