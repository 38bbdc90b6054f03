"""`gls` takes the options of `lmm`, and `glmm` says that it has no residual structure."""

from __future__ import annotations

import functools
import inspect

import numpy as np
import pytest

import mixedmodels as mm
from mixedmodels.errors import DataError, NotImplementedYetError, OptionError

RESIDUAL = "ar1(t | g) * varident(w)"


@functools.cache
def data():
    rng = np.random.default_rng(8)
    g, t = np.repeat(np.arange(30), 6), np.tile(np.arange(1.0, 7.0), 30)
    root = np.linalg.cholesky(0.5 ** np.abs(np.subtract.outer(np.arange(6), np.arange(6))))
    w = np.array(["a", "b", "c"])[g % 3]
    e = (root @ rng.normal(size=(6, 30))).T.ravel() * np.where(w == "a", 1.0, 1.5)
    x = rng.normal(size=180)
    out = {"y": 1.0 + 0.5 * x + e, "x": x, "t": t, "w": w, "v": np.where(w == "a", "a", "bc")}
    return out | {"g": [f"g{i}" for i in g], "o": rng.normal(size=180), "p": rng.uniform(0.5, 2.0, 180)}


@functools.cache
def free():
    return mm.gls("y ~ x", data(), residual=RESIDUAL)


def test_it_has_every_option_of_lmm():
    ours, theirs = (inspect.signature(f).parameters for f in (mm.gls, mm.lmm))
    assert set(ours) == set(theirs)
    assert {n: p.default for n, p in ours.items()} == {n: p.default for n, p in theirs.items()}


def test_it_is_lmm_with_that_residual_structure():
    options = {"weights": "p", "offset": "o", "sigma": 1.1, "na_action": "exclude", "reml": False}
    mine = mm.gls("y ~ x", data(), residual=RESIDUAL, **options)
    theirs = mm.lmm("y ~ x", data(), residual=RESIDUAL, **options)
    assert mine.loglik == theirs.loglik and mine.sigma == 1.1


def test_a_correlation_held_at_its_estimate():
    held = mm.gls("y ~ x", data(), residual=RESIDUAL, fixed={"rho": free().residual["rho"]})
    assert held.loglik == pytest.approx(free().loglik, rel=1e-10)
    assert held.df_model == free().df_model - 1
    np.testing.assert_allclose(held.beta, free().beta, rtol=1e-5)
    own = mm.gls("y ~ x", data(), residual="ar1(t | g, rho=0.2) * varident(w)")
    assert free().update(fixed={"rho": 0.2}).loglik == pytest.approx(own.loglik, rel=1e-10)


@pytest.mark.parametrize("reml", [True, False])
def test_equal_ratios_are_merged_strata(reml, tmp_path):
    equal = [["sd_ratio[b]", "sd_ratio[c]"]]
    fit = mm.gls("y ~ x", data(), residual=RESIDUAL, equal=equal, reml=reml)
    own = mm.gls("y ~ x", data(), residual="ar1(t | g) * varident(v)", reml=reml)
    assert fit.loglik == pytest.approx(own.loglik, abs=1e-8)
    assert fit.df_model == own.df_model
    assert fit.residual["sd_ratio[b]"] == pytest.approx(own.residual["sd_ratio[bc]"], rel=1e-4)
    for name in ("std_error", "df"):
        np.testing.assert_allclose(fit.coefficients()[name], own.coefficients()[name], rtol=2e-3)
    fit.save(tmp_path / "fit.mm")
    again = mm.load(tmp_path / "fit.mm")
    assert again.df_model == fit.df_model and again.residual["rho"] == fit.residual["rho"]
    assert again.update(data=data()).loglik == pytest.approx(fit.loglik, rel=1e-10)


def test_start_method_and_control():
    far = mm.gls("y ~ x", data(), residual=RESIDUAL, start=[-0.5, 0.5, 0.5])
    assert far.loglik == pytest.approx(free().loglik, rel=1e-9)
    other = mm.gls("y ~ x", data(), residual=RESIDUAL, method="lbfgsb", control={"maxiter": 500})
    assert other.loglik == pytest.approx(free().loglik, rel=1e-7)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"fixed": {"rh": 0.5}}, OptionError, "no parameter 'rh'; available: rho"),
        ({"fixed": {"rho": 2.0}}, OptionError, "out of the range"),
        ({"equal": [["rho", "sd_ratio[b]"]]}, OptionError, "different kinds"),
        ({"residual": None, "fixed": {"rho": 0.5}}, OptionError, "available: none"),
        ({"solver": "foo"}, OptionError, "unknown solver 'foo'"),
        ({"share": [["g", "h"]]}, OptionError, "no random term 'g'; it has none"),
        ({"structures": {"g": 3}}, OptionError, "no random term uses; available: none"),
        ({"known": {"g": (np.eye(2), ["a", "b"])}}, OptionError, "these are none"),
        ({"start": "ols"}, OptionError, "does not go with residual structures"),
        ({"start": [0.1]}, OptionError, "theta has 3"),
        ({"method": "minque(0)"}, OptionError, "is for independent residuals"),
        ({"priors": "wishart"}, NotImplementedYetError, "priors="),
        ({"residual": "ar1(t)"}, DataError, r"name a grouping factor after \|"),
    ],
)
def test_wrong_options(options, error, text):
    with pytest.raises(error, match=text):
        mm.gls("y ~ x", data(), **{"residual": RESIDUAL, **options})


def test_a_parameter_that_is_not_there():
    with pytest.raises(OptionError, match=r"no parameter 'range'; it has rho, sd_ratio\[b\]"):
        free().residual["range"]


def test_generalised_models_have_no_residual_structure():
    binary = data() | {"z": (data()["y"] > 1.0).astype(int)}
    for call in (
        lambda: mm.glmm("z ~ x + (1 | g)", binary, family="binomial", residual="ar1(t | g)"),
        lambda: mm.glmm("z ~ x + (1 | g)", binary, family="binomial").update(residual="ar1(t | g)"),
    ):
        with pytest.raises(OptionError, match=r"random term such as ar1\(0 \+ t \| g\), or add a random"):
            call()
    plain = mm.glmm("z ~ x + (1 | g)", binary, family="binomial", residual=None)
    assert plain.update(residual=None).loglik == pytest.approx(plain.loglik, rel=1e-10)
