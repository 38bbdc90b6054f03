"""Gaussian reference fits with structured random effects: glmmTMB 1.1.5, nlme, dense R code (own_*).

`references/covariance/fits.json` holds log-likelihood, fixed effects and natural parameters. nlme's
pdBlocked is written as one term for each block.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import mixedmodels as mm
from mixedmodels.testing.reference_data import read_reference_table

HERE = Path(__file__).parent / "references"
FITS = json.loads((HERE / "covariance" / "fits.json").read_text(encoding="utf-8"))

MODELS = {
    "lme_machines_pdcompsymm": ("Machines", "score ~ Machine + homcs(0 + Machine | Worker)"),
    "lme_machines_pdblocked": ("Machines", "score ~ Machine + (1 | Worker) + homdiag(0 + Machine | Worker)"),
    "lme_oats_pdblocked": (
        "Oats",
        "yield ~ nitro + Variety + (1 | Block) + homdiag(0 + Variety | Block) + homdiag(0 + nitroF | Block)",
    ),
    "lme_orthodont_pdident": ("Orthodont", "distance ~ age * Sex + homdiag(1 + I(age - 11) | Subject)"),
    "lme_orthodont_pddiag": ("Orthodont", "distance ~ age * Sex + diag(age | Subject)"),
    "tmb_cov_ar1": ("sim_cov", "y ~ trt + x + ar1(tf + 0 | g)"),
    "tmb_cov_ar1_reml": ("sim_cov", "y ~ trt + x + ar1(tf + 0 | g)"),
    "tmb_cov_cs": ("sim_cov", "yh ~ trt + x + cs(tf + 0 | g)"),
    "tmb_cov_diag": ("sim_cov", "y ~ trt + x + t + diag(1 + t | g)"),
    "tmb_cov_ou": ("sim_cov", "y ~ trt + x + ou(numFactor(tirr) + 0 | g)"),
    # dispformula = ~0 fixes glmmTMB's residual standard deviation at 2^-13
    "tmb_cov_toep": ("sim_cov", "yh ~ trt + x + toep(tf + 0 | g)"),
    "tmb_cov_us": ("sim_cov", "y ~ trt + x + us(tf + 0 | g)"),
    "tmb_cov_us_slope": ("sim_cov", "y ~ trt + x + t + (t | g)"),
    "tmb_rr": ("sim_cov", "y ~ trt + x + rr(tf + 0 | g, d = 2)"),
    "tmb_space_exp": ("sim_space", "y ~ x + exp(numFactor(px, py) + 0 | grp)"),
    "tmb_space_gau": ("sim_space", "y ~ x + gau(numFactor(px, py) + 0 | grp)"),
    "own_space_exp_ml": ("sim_space", "y ~ x + exp(px + py | grp)"),
    "own_space_exp_reml": ("sim_space", "y ~ x + exp(px + py | grp)"),
    "own_space_matern15_ml": ("sim_space", "y ~ x + mat(px + py | grp, nu = 1.5)"),
    "own_space_matern15_reml": ("sim_space", "y ~ x + mat(px + py | grp, nu = 1.5)"),
}
FIXED_SIGMA = {"tmb_cov_toep": 2.0**-13, "tmb_cov_us": 2.0**-13}
# nlme's own optimum (a variance of 1e-7 where ours is 0), and standard errors that divide by n - p
PENALTY = {"lme_oats_pdblocked": 1e-7}


@functools.cache
def table(name):
    if not name.startswith("sim_"):
        return read_reference_table(HERE / "data", name)
    data = pd.read_csv(HERE / "covariance" / f"{name}.csv")
    if "tf" in data:
        data["tf"] = pd.Categorical(data["tf"].astype(str))
    return data


@functools.cache
def fitted(id_):
    name, formula = MODELS[id_]
    reml = FITS[id_]["estimation"].startswith("REML")
    return mm.lmm(formula, table(name), reml=reml, sigma=FIXED_SIGMA.get(id_))


each = pytest.mark.parametrize("id_", list(MODELS))


def test_every_reference_has_a_model():
    assert set(MODELS) == set(FITS)


@each
def test_likelihood(id_):
    fit, ref = fitted(id_), FITS[id_]
    assert fit.optimum.converged
    assert fit.loglik == pytest.approx(ref["loglik"], rel=PENALTY.get(id_, 1e-8))
    assert fit.loglik >= ref["loglik"] - 1e-6


@each
def test_fixed_effects(id_):
    fit, ref = fitted(id_), FITS[id_]
    assert set(fit.fixef) == set(ref["beta"])
    for name, (estimate, se) in ref["beta"].items():
        assert fit.fixef[name] == pytest.approx(estimate, abs=1e-4 * se)


@each
def test_variances_and_correlations(id_):
    fit, ref = fitted(id_), FITS[id_]
    if id_ not in FIXED_SIGMA:
        assert fit.sigma == pytest.approx(ref["sigma"], rel=1e-4)
    found = [np.array(term.sds) for term in fit.varcorr.terms]
    if id_.startswith("lme_"):
        sds = np.concatenate(found)
        wanted = np.concatenate([term["sd"] for term in ref["varcorr"]])
        assert np.allclose(sds[: len(wanted)], wanted[: len(sds)], rtol=1e-4, atol=2e-3)
        if "pdcompsymm" in id_:
            assert np.allclose(fit.varcorr.terms[0].correlation, ref["varcorr"][0]["corr"], atol=1e-4)
        return
    for term, wanted in zip(fit.varcorr.terms, ref["varcorr"], strict=False):
        k = len(wanted["sd"])
        assert np.allclose(term.sds[:k], wanted["sd"], rtol=2e-4)
        if len(term.names) == k:
            assert np.allclose(term.correlation, wanted["corr"], atol=2e-4)


def natural(id_):
    fit = fitted(id_)
    term = fit.design.terms[0]
    found = term.covariance.natural(fit.theta, term.names, fit.sigma)
    return dict(zip(found.names, found.values.tolist(), strict=True))


def test_natural_parameters():
    assert natural("tmb_cov_ar1")["cor"] == pytest.approx(FITS["tmb_cov_ar1"]["natural"]["ar1_rho"], rel=1e-5)
    assert natural("tmb_cov_ou")["rate"] == pytest.approx(
        FITS["tmb_cov_ou"]["natural"]["ou_decay_rate"], rel=1e-5
    )
    rate = FITS["tmb_space_exp"]["natural"]["exp_decay_rate"]
    assert natural("tmb_space_exp")["range"] == pytest.approx(1.0 / rate, rel=1e-5)
    decay = FITS["tmb_space_gau"]["natural"]["gau_decay"]
    assert natural("tmb_space_gau")["range"] == pytest.approx(decay**-0.5, rel=1e-5)


@pytest.mark.parametrize("id_", [i for i in MODELS if i.startswith("own_")])
def test_spatial_parameters(id_):
    wanted = FITS[id_]["parameters"]
    found = natural(id_)
    assert found["sd"] == pytest.approx(wanted["sd_space"], rel=1e-4)
    assert found["range"] == pytest.approx(wanted["range"], rel=1e-4)
