"""Laws of generalised fits: what must not change, or in a known way, when a model is written otherwise."""

from __future__ import annotations

import functools
import warnings

import numpy as np
import pandas as pd
import pytest
from scipy.special import gammaln

import mixedmodels as mm

from .glmm_kinds import KINDS, fitted, glmm, rows

FORMULAS = {
    "binary": ("b ~ x + f + (1 | g)", {"family": "binomial"}),
    "slope": ("s_ ~ x + f + (z | g)", {"family": "binomial", "trials": "size"}),
    "counts": ("count ~ x + f + (1 | g)", {"family": "poisson"}),
    "crossed": ("count ~ x + f + (1 | g) + (1 | k)", {"family": "poisson"}),
    "nbinom2": ("wide ~ x + f + (1 | h)", {"family": "nbinom2"}),
    "zero-inflated": ("zip ~ x + f + (1 | g)", {"family": "poisson", "zero_inflation": "~ x"}),
    "dispersion": ("beta ~ x + f + (1 | g)", {"family": "beta", "dispersion": "~ s"}),
    "gamma": ("gamma ~ x + f + (x | g)", {"family": "gamma", "link": "log"}),
    "quadrature": ("b ~ x + f + (1 | g)", {"family": "binomial", "nagq": 5}),
}


def fit(kind, data=None, formula=None, **options):
    text, own = FORMULAS[kind]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mm.MixedModelsWarning)
        return mm.glmm(
            formula or text, rows() if data is None else data, progress=False, **{**own, **options}
        )


@functools.cache
def usual(kind):
    return fit(kind)


def close(found, expected, rtol=1e-6, what=""):
    found, expected = np.asarray(found, dtype=float), np.asarray(expected, dtype=float)
    scale = np.max(np.abs(expected), initial=1e-3)
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=rtol * scale, err_msg=what)


def same(m, other, rtol=1e-6):
    """The same likelihood, coefficients, standard errors and variances."""
    assert m.loglik == pytest.approx(other.loglik, rel=1e-9, abs=1e-9)
    close(m.gamma, other.gamma, rtol, "gamma")
    close(list(m.se_all.values()), list(other.se_all.values()), 10 * rtol, "standard errors")
    close(variances(m), variances(other), 10 * rtol, "variances")


def effects(m):
    """Conditional modes by group, effect and level."""
    columns = m.ranef_columns()
    order = np.lexsort([np.asarray(columns[name]).astype(str) for name in ("level", "term", "group")])
    return np.asarray(columns["estimate"])[order]


def variances(m):
    return np.concatenate([np.asarray(m.varcorr[name].covariance).ravel() for name in m.ngroups])


# ---------------------------------------------------------------------- the same data in another form


@pytest.mark.parametrize("kind", FORMULAS)
def test_the_order_of_the_rows_does_not_matter(kind):
    order = np.random.default_rng(3).permutation(len(rows()))
    m, base = fit(kind, rows().iloc[order].reset_index(drop=True)), usual(kind)
    same(m, base)
    close(m.fitted(), base.fitted()[order], what="fitted")
    close(m.residuals("pearson"), base.residuals("pearson")[order], what="residuals")
    close(effects(m), effects(base), 1e-5, "random effects")


@pytest.mark.parametrize("kind", FORMULAS)
def test_names_and_order_of_levels_do_not_matter(kind):
    data = rows()
    turned = {name: "z" + (99 - data[name].str[1:].astype(int)).astype(str) for name in ("g", "h", "k")}
    m, base = fit(kind, data.assign(**turned, f=data.f.map({"a": "r", "b": "q", "c": "p"}))), usual(kind)
    assert m.loglik == pytest.approx(base.loglik, rel=1e-9)
    close(m.fitted(), base.fitted(), what="fitted")
    close(variances(m), variances(base), 1e-5, "variances")
    assert m.fixef["fr"] == pytest.approx(-base.fixef["fc"], rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("kind", FORMULAS)
@pytest.mark.parametrize(("scale", "shift"), [(1.0, 2000.0), (86400.0, 1.6e9), (-1e-6, 0.0)])
def test_units_and_origin_of_a_covariate_do_not_matter(kind, scale, shift):
    data, base = rows(), usual(kind)
    m = fit(kind, data.assign(x=scale * data.x + shift))
    # beside 1.6e9 a covariate keeps about 8 digits of its own
    rtol = 1e-6 if shift < 1e6 else 1e-5
    assert m.converged
    assert m.loglik == pytest.approx(base.loglik, rel=1e-8 if shift < 1e6 else 1e-6)
    close(m.fitted(), base.fitted(), rtol, "fitted")
    assert m.fixef["x"] * scale == pytest.approx(base.fixef["x"], rel=10 * rtol)
    assert m.se["x"] * abs(scale) == pytest.approx(base.se["x"], rel=10 * rtol)
    if kind == "gamma":  # the variance of a random slope carries the unit squared
        V, W = (np.asarray(fit_.varcorr["g"].covariance) for fit_ in (m, base))
        assert V[1, 1] * scale**2 == pytest.approx(W[1, 1], rel=1e-4)


@pytest.mark.parametrize("kind", FORMULAS)
def test_rows_twice_are_rows_of_weight_two(kind):
    data = rows()
    m = fit(kind, data.assign(two=2.0), weights="two")
    other = fit(kind, pd.concat([data, data], ignore_index=True))
    same(m, other)
    close(m.fitted(), other.fitted()[: len(data)], what="fitted")


@pytest.mark.parametrize("kind", FORMULAS)
def test_rows_of_weight_0_are_left_out(kind):
    data = rows()
    keep = np.arange(len(data)) % 7 != 2
    same(fit(kind, data.assign(v=keep.astype(float)), weights="v"), fit(kind, data[keep]))


@pytest.mark.parametrize("kind", ["binary", "counts", "crossed", "nbinom2", "gamma", "zero-inflated"])
def test_an_offset_shifts_the_coefficients(kind):
    data, base = rows(), usual(kind)
    m = fit(kind, data.assign(off=1.5 + 0.7 * data.x), offset="off")
    assert m.loglik == pytest.approx(base.loglik, rel=1e-9)
    close(m.fitted(), base.fitted(), what="fitted")
    assert m.fixef["(Intercept)"] + 1.5 == pytest.approx(base.fixef["(Intercept)"], rel=1e-5, abs=1e-6)
    assert m.fixef["x"] + 0.7 == pytest.approx(base.fixef["x"], rel=1e-5, abs=1e-6)


def test_exposures_of_any_size():
    # 54: huge offsets and counts
    rng = np.random.default_rng(2)
    data = rows()
    exposure = np.exp(rng.uniform(10, 20, len(data)))
    g = data.g.str[1:].astype(int).to_numpy()
    y = rng.poisson(exposure * np.exp(-8 + 0.3 * data.x + 0.5 * rng.normal(size=12)[g]))
    m = mm.glmm("y ~ x + offset(log(e)) + (1 | g)", data.assign(y=y, e=exposure), family="poisson")
    far = mm.glmm("y ~ x + offset(log(e)) + (1 | g)", data.assign(y=y, e=exposure * 1e80), family="poisson")
    assert m.converged and far.converged
    assert far.loglik == pytest.approx(m.loglik, rel=1e-9)
    assert far.fixef["(Intercept)"] + 80 * np.log(10) == pytest.approx(m.fixef["(Intercept)"], rel=1e-7)
    assert m.fixef["x"] == pytest.approx(0.3, abs=0.02)


def test_an_added_constant_in_the_coding_of_a_factor():
    base = usual("counts")
    m = fit("counts", contrasts={"f": "sum"})
    assert m.loglik == pytest.approx(base.loglik, rel=1e-10)
    close(m.fitted(), base.fitted())


# ---------------------------------------------------------------------- the same response in another form


def test_successes_out_of_trials_are_the_trials_one_by_one():
    data = rows()
    whole = glmm("s_ ~ x + f + (z | g)", "binomial", trials="size")
    again = data.loc[data.index.repeat(data["size"])].reset_index(drop=True)
    place = again.groupby("row").cumcount()
    single = glmm("one ~ x + f + (z | g)", "binomial", again.assign(one=(place < again.s_).astype(int)))
    # which of the trials succeed is not in the counts
    n, s = data["size"].to_numpy(), data.s_.to_numpy()
    constant = np.sum(gammaln(n + 1) - gammaln(s + 1) - gammaln(n - s + 1))
    assert whole.loglik == pytest.approx(single.loglik + constant, rel=1e-10)
    close(whole.gamma, single.gamma)
    close(whole.joint_vcov, single.joint_vcov, 1e-5)


def test_spellings_of_a_binomial_response():
    data = rows()
    base = glmm("s_ ~ x + f + (1 | g)", "binomial", trials="size")
    for m in (
        glmm("cbind(s_, size - s_) ~ x + f + (1 | g)", "binomial"),
        glmm("p ~ x + f + (1 | g)", "binomial", data.assign(p=data.s_ / data["size"]), trials="size"),
        glmm("s_ ~ x + f + (1 | g)", "binomial", trials=data["size"].to_numpy()),
    ):
        same(m, base)
    base = usual("binary")
    for b in (data.b == 1, data.b.map({0: "no", 1: "yes"}), data.b.astype(float)):
        same(fit("binary", data.assign(b=b)), base)


@pytest.mark.parametrize(
    ("link", "other"),
    [("logit", "logit"), ("probit", "probit"), ("cauchit", "cauchit"), ("cloglog", "loglog")],
)
def test_failures_instead_of_successes_turn_the_signs(link, other):
    data = rows().copy()
    m = glmm("s_ ~ x + f + (1 | g)", "binomial", link=link, trials="size")
    turned = glmm(
        "fail ~ x + f + (1 | g)",
        "binomial",
        data.assign(fail=data["size"] - data.s_),
        link=other,
        trials="size",
    )
    assert turned.loglik == pytest.approx(m.loglik, rel=1e-10)
    close(turned.gamma, -m.gamma)
    close(turned.joint_vcov[:4, :4], m.joint_vcov[:4, :4], 1e-5)
    close(turned.fitted(), 1 - m.fitted())


def test_the_unit_of_a_positive_response():
    data = rows()
    for family in ("gamma", "lognormal", "inverse_gaussian"):
        link = None if family == "lognormal" else "log"
        y = "wald" if family == "inverse_gaussian" else "gamma"
        m = glmm(f"{y} ~ x + f + (1 | g)", family, link=link)
        scaled = glmm(f"{y} ~ x + f + (1 | g)", family, data.assign(**{y: 1000.0 * data[y]}), link=link)
        assert scaled.loglik == pytest.approx(m.loglik - len(data) * np.log(1000.0), rel=1e-9)
        assert scaled.fixef["(Intercept)"] == pytest.approx(m.fixef["(Intercept)"] + np.log(1000.0), rel=1e-6)
        assert scaled.fixef["x"] == pytest.approx(m.fixef["x"], rel=1e-5)
        close(variances(scaled), variances(m), 1e-5)


# ---------------------------------------------------------------------- one model within another


@pytest.mark.parametrize("terms", ["f + (1 | g)", "f + (z | g)", "(1 | g) + (1 | k)"])
def test_a_gaussian_response_is_the_linear_mixed_model(terms):
    formula = f"y ~ x + {terms}"
    m, linear = glmm(formula, "gaussian"), mm.lmm(formula, rows(), reml=False)
    assert m.loglik == pytest.approx(linear.loglik, rel=1e-10)
    assert m.aic == pytest.approx(linear.aic, rel=1e-10)
    close(m.beta, linear.beta)
    assert m.sigma == pytest.approx(linear.sigma, rel=1e-6)
    for name in linear.ngroups:
        close(m.varcorr[name].covariance, linear.varcorr[name].covariance, 1e-5)
    close(effects(m), effects(linear), 1e-5, "random effects")
    close(m.fitted(), linear.fitted())
    # the linear model's covariance of the coefficients is that given the variances, without what they add
    known = np.flatnonzero(m.joint_vcov.diagonal() > 0.0)
    given = np.linalg.inv(np.linalg.inv(m.joint_vcov[np.ix_(known, known)])[: len(m.beta), : len(m.beta)])
    close(given, linear.vcov, 1e-5)


def test_the_log_of_a_lognormal_response_is_gaussian():
    m = glmm("gamma ~ x + f + (1 | g)", "lognormal")
    linear = glmm("log(gamma) ~ x + f + (1 | g)", "gaussian")
    assert m.loglik == pytest.approx(linear.loglik - np.log(rows().gamma).sum(), rel=1e-9)
    close(variances(m), variances(linear), 1e-5)
    assert m.fixef["x"] == pytest.approx(linear.fixef["x"], rel=1e-5)


def limit(family, dispersion, y, base, **options):
    """A family at a dispersion near its limit, and the simpler family."""
    free = glmm(f"{y} ~ x + f + (1 | g)", family, fixed={"disp_(Intercept)": dispersion}, **options)
    return free, glmm(f"{y} ~ x + f + (1 | g)", base, **options)


@pytest.mark.parametrize(
    ("family", "dispersion", "y", "base", "trials"),
    [
        ("nbinom2", 22.0, "count", "poisson", None),
        ("nbinom1", -22.0, "count", "poisson", None),
        ("genpois", 0.0, "count", "poisson", None),
        ("compois", 0.0, "count", "poisson", None),
        ("betabinomial", 22.0, "s_", "binomial", "size"),
    ],
)
def test_families_at_their_limits(family, dispersion, y, base, trials):
    m, simple = limit(family, dispersion, y, base, **({"trials": trials} if trials else {}))
    assert m.loglik == pytest.approx(simple.loglik, abs=2e-6)
    close(m.beta, simple.beta, 1e-5)
    close(variances(m), variances(simple), 1e-5)
    close(m.vcov, simple.vcov, 1e-4)
    assert m.df_model == simple.df_model


def test_a_student_response_of_many_degrees_of_freedom_is_gaussian():
    base = glmm("heavy ~ x + f + (1 | g)", "gaussian")
    m = glmm("heavy ~ x + f + (1 | g)", "student", fixed={"df": 20.0})
    assert m.loglik == pytest.approx(base.loglik, abs=1e-6)
    close(m.beta, base.beta, 1e-5)


def test_no_extra_zeros_is_the_base_family():
    base = glmm("count ~ x + f + (1 | g)", "poisson")
    m = glmm("count ~ x + f + (1 | g)", "poisson", zero_inflation="~ 1", fixed={"zi_(Intercept)": -40.0})
    assert m.loglik == pytest.approx(base.loglik, abs=1e-9)
    close(m.beta, base.beta)
    close(m.vcov, base.vcov, 1e-5)
    close(m.fitted(), base.fitted())


@pytest.mark.parametrize("family", ["poisson", "nbinom2"])
def test_a_hurdle_model_is_two_models(family):
    data = rows()
    m = glmm("hurdle ~ x + f + (1 | g)", f"truncated_{family}", zero_inflation="~ x + (1 | k)")
    positive = glmm("hurdle ~ x + f + (1 | g)", f"truncated_{family}", data[data.hurdle > 0])
    zero = glmm("none ~ x + (1 | k)", "binomial", data.assign(none=(data.hurdle == 0).astype(int)))
    assert m.loglik == pytest.approx(positive.loglik + zero.loglik, rel=1e-9)
    assert m.df_model == positive.df_model + zero.df_model
    close(list(m.fixef_all["zero_inflation"].values()), zero.beta, 1e-5)
    close(m.beta, positive.beta, 1e-5)
    close([m.se_all["zi_x"], m.se_all["x"]], [zero.se["x"], positive.se["x"]], 1e-5)


def test_a_dispersion_model_of_two_groups_is_two_dispersions():
    data = rows()
    m = glmm("y ~ s * x + (1 | k)", "gaussian", dispersion="~ s")
    other = glmm("y ~ s * x + (1 | k)", "gaussian", dispersion="~ 0 + s")
    assert m.loglik == pytest.approx(other.loglik, rel=1e-10)
    close(m.dispersion, other.dispersion)
    assert len(np.unique(np.round(m.dispersion, 9))) == 2
    no_effects = fixed_sd_fits(data)
    assert m.update("y ~ s * x + (1 | g)", fixed={"sd_(Intercept)|g": 0.0}).loglik == pytest.approx(
        no_effects, rel=1e-9
    )


def fixed_sd_fits(data):
    """The log-likelihood of two least-squares fits, one in each group."""
    total = 0.0
    for _, part in data.groupby("s"):
        X = np.column_stack([np.ones(len(part)), part.x])
        r = part.y.to_numpy() - X @ np.linalg.lstsq(X, part.y.to_numpy(), rcond=None)[0]
        total -= 0.5 * len(part) * (np.log(2 * np.pi * np.mean(r**2)) + 1)
    return total


# ---------------------------------------------------------------------- the same model in another form


def test_nested_is_crossed_with_labels_of_the_pair():
    data = rows()
    nested = glmm("count ~ x + f + (1 | g/h)", "poisson")
    pair = glmm("count ~ x + f + (1 | g) + (1 | gh)", "poisson", data.assign(gh=data.g + data.h))
    assert nested.loglik == pytest.approx(pair.loglik, rel=1e-10)
    close(nested.gamma, pair.gamma)
    close(sorted(nested.theta), sorted(pair.theta), 1e-5)


@pytest.mark.parametrize("kind", [kind for kind in FORMULAS if kind not in ("quadrature", "crossed")])
def test_engines_agree(kind):
    dense = fit(kind, solver="dense")
    for solver in ("grouped", "blocked"):
        same(fit(kind, solver=solver), dense)


def test_engines_agree_for_crossed_factors():
    same(fit("crossed", solver="blocked"), fit("crossed", solver="dense"))


def test_one_quadrature_point_is_laplace():
    from mixedmodels.objective.marginal.quadrature import Quadrature

    m = usual("binary")
    inner = m.objective.coordinates.inner
    at = m.objective._at(m.psi)
    one = Quadrature(inner, m.family, 1).evaluate(*at, order=0).value
    assert one == pytest.approx(m.criterion, rel=1e-10)


@pytest.mark.parametrize("kind", ["binary", "counts", "crossed", "nbinom2", "zero-inflated"])
def test_the_criterion_is_at_its_minimum(kind):
    m = usual(kind)
    evaluation = m.objective.evaluate(m.psi, 2)
    se = np.sqrt(np.maximum(np.diag(m.joint_vcov), 0.0))
    assert np.max(np.abs(evaluation.gradient) * se) < 1e-4


# ---------------------------------------------------------------------- round trips


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_fit_by_update_refit_and_from_a_file(kind, tmp_path):
    m = fitted(kind)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mm.MixedModelsWarning)
        again = m.update(nagq=m.nagq)
    assert again.loglik == pytest.approx(m.loglik, rel=1e-9)
    m.save(tmp_path / "fit.mm")
    loaded = mm.load(tmp_path / "fit.mm")
    assert loaded.loglik == pytest.approx(m.loglik, rel=1e-12)
    np.testing.assert_allclose(loaded.fitted(), m.fitted(), rtol=1e-10)
    if kind != "separated":  # standard errors along a flat direction have few digits
        assert str(loaded) == str(m)


@pytest.mark.parametrize("kind", KINDS)
def test_a_drawn_response_is_fitted(kind):
    m = fitted(kind)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mm.MixedModelsWarning)
        y = m.simulate(1, seed=3)
        again = m.refit(y)
    assert np.isfinite(again.loglik)
    assert again.nobs == m.nobs
    assert list(again.fixef) == list(m.fixef)
    if kind != "fast":  # its criterion has the coefficients profiled out
        assert again.criterion <= again.objective.value(m.psi) + 1e-6
