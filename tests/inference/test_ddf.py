"""Satterthwaite and Kenward-Roger against lmerTest and pbkrtest, against dense algebra, and at boundaries.

The references were computed by lmerTest 3.1.3 and pbkrtest 0.5.2, whose derivatives are numerical
(`tools/slim_inference_references.py` keeps them in ``references/inference/ddf.json``). With prior weights
pbkrtest forms V without them, so that its Kenward-Roger numbers of ``sleepstudy_weights_reml`` belong to
another model; the dense algebra below has the weights in it.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import mixedmodels as mm
from mixedmodels.inference.ddf.reference import reference_for
from mixedmodels.testing.reference_data import read_reference_table

HERE = Path(__file__).parents[1] / "references"
REFERENCES = json.loads((HERE / "inference" / "ddf.json").read_text(encoding="utf-8"))
UNWEIGHTED = [name for name in REFERENCES if "weights" not in name]

each_reference = pytest.mark.parametrize("name", REFERENCES)
each_unweighted = pytest.mark.parametrize("name", UNWEIGHTED)


@functools.cache
def fitted(name):
    ref = json.loads((HERE / "lmm" / f"{name}.json").read_text(encoding="utf-8"))
    described = json.loads((HERE / "data" / "columns.json").read_text(encoding="utf-8"))
    known = ref["data"] in described
    data = (
        read_reference_table(HERE / "data", ref["data"]) if known else mm.load_dataset(ref["data"], "pandas")
    )
    weights = {"weights": "w"} if "weights = w" in ref["call"] else {}
    return mm.lmm(ref["formula"], data, **weights)


def check_coefficients(name, method, key):
    expected = REFERENCES[name]["lmerTest"][key]
    table = fitted(name).coefficients(ddf=method)
    assert list(table["term"]) == list(expected)
    for column, entry, rel in (("df", "df", 1e-4), ("statistic", "t", 1e-5), ("std_error", "se", 1e-5)):
        np.testing.assert_allclose(table[column], [row[entry] for row in expected.values()], rtol=rel)
    # p-values move by t^2 relative errors
    np.testing.assert_allclose(table["p_value"], [row["p"] for row in expected.values()], rtol=2e-3)


@each_reference
def test_satterthwaite_is_lmertests(name):
    check_coefficients(name, "satterthwaite", "satterthwaite_coef")


@pytest.mark.parametrize("name", [n for n in UNWEIGHTED if "kenward_roger_coef" in REFERENCES[n]["lmerTest"]])
def test_kenward_roger_is_lmertests(name):
    check_coefficients(name, "kr", "kenward_roger_coef")
    expected = np.array(REFERENCES[name]["lmerTest"]["kenward_roger_vcov"]["values"])
    vcov = reference_for(fitted(name), "kr").vcov
    np.testing.assert_allclose(vcov, expected, atol=1e-5 * np.abs(expected).max())


def columns_of(fit, variable):
    """Rows of the identity for the columns of a term."""
    return np.eye(fit.design.p)[fit.frame.encoding.assign[variable]]


MODCOMP = [(name, key) for name in REFERENCES for key in REFERENCES[name] if key.startswith("KRmodcomp_")]


@pytest.mark.parametrize(("name", "key"), MODCOMP)
def test_kenward_roger_f_is_krmodcomps(name, key):
    expected = REFERENCES[name][key]
    fit = fitted(name)
    test = reference_for(fit, "kr").f_test(columns_of(fit, key.removeprefix("KRmodcomp_")))
    one = {k: (v[0] if isinstance(v, list) else v) for k, v in expected.items()}
    assert test.num_df == one["ndf"]
    assert test.den_df == pytest.approx(one["ddf"], rel=1e-4)
    assert test.statistic == pytest.approx(one["Fstat"], rel=1e-5)
    assert test.scaling == pytest.approx(one["F.scaling"], rel=1e-5)
    assert test.p_value == pytest.approx(one["p.value"], rel=1e-3)


# ------------------------------------------------------------------ dense algebra


def dense_model(fit):
    """X, the Vs of V = sum_i kappa_i V_i (the last the error's), V, all with rows as in the data."""
    design = fit.design
    n, w = design.n, np.ones(fit.design.n) if fit.design.weights is None else fit.design.weights
    parts, kappa = [], []
    for term, factor in zip(design.terms, fit._factors, strict=True):
        Sigma = fit.sigma**2 * np.array(factor) @ np.array(factor).T
        Z = np.ones((n, 1)) if term.Z is None else term.Z
        same = term.codes[:, None] == term.codes[None, :]
        for j in range(term.k):
            for i in range(j, term.k if term.covariance.clip == "block" else j + 1):
                E = np.zeros((term.k, term.k))
                E[i, j] = E[j, i] = 1.0
                parts.append(np.where(same, Z @ E @ Z.T, 0.0))
                kappa.append(Sigma[i, j])
    parts.append(np.diag(1.0 / w))
    kappa.append(fit.sigma**2)
    return design.X, parts, np.array(kappa)


def dense_kenward_roger(fit):
    """Adjusted covariance and degrees of freedom of the coefficients, straight from the paper."""
    X, parts, kappa = dense_model(fit)
    Vi = np.linalg.inv(sum(k * part for k, part in zip(kappa, parts, strict=True)))
    Phi = np.linalg.inv(X.T @ Vi @ X)
    Proj = Vi - Vi @ X @ Phi @ X.T @ Vi
    P = [-X.T @ Vi @ part @ Vi @ X for part in parts]
    W = 2.0 * np.linalg.inv([[np.trace(Proj @ a @ Proj @ b) for b in parts] for a in parts])
    middle = 0.0
    for i, a in enumerate(parts):
        for j, b in enumerate(parts):
            middle = middle + W[i, j] * (X.T @ Vi @ a @ Vi @ b @ Vi @ X - P[i] @ Phi @ P[j])
    g = np.array([np.diagonal(Phi @ p @ Phi) for p in P])
    return Phi + 2.0 * Phi @ middle @ Phi, 2.0 * np.diagonal(Phi) ** 2 / np.einsum("ia,ij,ja->a", g, W, g)


@pytest.fixture(scope="module")
def crossed():
    rng = np.random.default_rng(5)
    n = 90
    g, h, x = rng.integers(0, 9, n), rng.integers(0, 6, n), rng.normal(size=n)
    y = 1 + x + rng.normal(size=9)[g] + 0.7 * rng.normal(size=9)[g] * x + rng.normal(size=6)[h]
    return pd.DataFrame(
        {"y": y + rng.normal(size=n), "x": x, "g": g, "h": h, "w": rng.uniform(0.3, 3.0, n), "f": g % 3}
    ).astype({"f": "category"})


DENSE = [
    ("y ~ x + (x | g) + (1 | h)", {}),
    ("y ~ x + (x || g)", {}),
    ("y ~ x * f + (1 | g) + (1 | h)", {"weights": "w"}),
    ("y ~ x + (x | g)", {"weights": "w"}),
]


@pytest.mark.parametrize(("formula", "options"), DENSE)
def test_kenward_roger_is_the_papers(crossed, formula, options):
    fit = mm.lmm(formula, crossed, **options)
    reference = reference_for(fit, "kr")
    vcov, df = dense_kenward_roger(fit)
    np.testing.assert_allclose(reference.vcov, vcov, rtol=1e-7, atol=1e-9 * np.abs(vcov).max())
    np.testing.assert_allclose(reference.df(np.eye(fit.design.p)), df, rtol=1e-7)
    # one row: the general formulae of the F test come to the same
    L = np.arange(1.0, fit.design.p + 1)
    assert reference.f_test(L).den_df == pytest.approx(float(reference.df(L)[0]), rel=1e-10)
    assert reference.f_test(L).scaling == pytest.approx(1.0)


def test_kenward_roger_with_weights_is_not_pbkrtests():
    fit = fitted("sleepstudy_weights_reml")
    vcov, df = dense_kenward_roger(fit)
    np.testing.assert_allclose(reference_for(fit, "kr").vcov, vcov, rtol=1e-7)
    theirs = REFERENCES["sleepstudy_weights_reml"]["lmerTest"]["kenward_roger_coef"]
    assert np.abs(df / [row["df"] for row in theirs.values()] - 1.0).max() > 0.01


@pytest.mark.parametrize(("formula", "options"), DENSE)
@pytest.mark.parametrize("reml", [True, False])
def test_satterthwaite_is_its_definition(crossed, formula, options, reml):
    """Phi and the criterion differenced in (theta, log sigma^2); the gradient is zero there."""
    fit = mm.lmm(formula, crossed, reml=reml, **options)
    assert not fit.is_singular
    objective, theta, p, nu = fit.objective, fit.theta, fit.design.p, fit.objective.nu

    def criterion(v):  # sigma not profiled
        parts = objective.solver.components(objective.factors(v[:-1]), 0, None, reml)
        logdet = parts.logdet_L2 + (parts.logdet_RX2 if reml else 0.0)
        return logdet + nu * v[-1] + parts.pwrss * np.exp(-v[-1])

    def variances(v):
        return np.diagonal(np.exp(v[-1]) * objective.solution(v[:-1]).vcov_unscaled)

    at = np.array([*theta, 2.0 * np.log(fit.sigma)])
    r, step = len(at), 2e-4
    E = np.eye(r) * step
    H = np.array(
        [
            [
                criterion(at + a + b) - criterion(at + a - b) - criterion(at - a + b) + criterion(at - a - b)
                for b in E
            ]
            for a in E
        ]
    ) / (4 * step**2)
    g = np.array([variances(at + e) - variances(at - e) for e in E]) / (2 * step)
    expected = 2.0 * variances(at) ** 2 / np.einsum("ia,ij,ja->a", g, 2.0 * np.linalg.inv(H), g)
    np.testing.assert_allclose(reference_for(fit, "satterthwaite").df(np.eye(p)), expected, rtol=2e-4)


# ------------------------------------------------------------------ boundaries and laws


def test_a_zero_variance_leaves_the_residual_degrees_of_freedom():
    """Dyestuff2: Satterthwaite is conditional on the zero (29), Kenward-Roger is not (5), as in lmerTest."""
    fit = mm.lmm("Yield ~ 1 + (1 | Batch)", mm.load_dataset("Dyestuff2", backend="pandas"))
    assert fit.theta[0] == 0.0
    assert fit.coefficients("satterthwaite")["df"] == pytest.approx([29.0], rel=1e-9)
    assert fit.coefficients("kr")["df"] == pytest.approx([5.0], rel=1e-9)
    assert fit.coefficients("kr")["std_error"] == pytest.approx(fit.coefficients("z")["std_error"], rel=0.2)


def test_a_singular_slope_has_finite_degrees_of_freedom():
    fit = mm.lmm("y ~ x + (x | g)", singular_data())
    assert fit.is_singular
    for method in ("satterthwaite", "kr", "auto"):
        df = fit.coefficients(method)["df"]
        assert np.isfinite(df).all() and (df > 0).all() and (df < 200).all()


def singular_data():
    rng = np.random.default_rng(1)
    g = np.repeat(np.arange(8), 10)
    x = np.tile(np.arange(10.0), 8)
    return {"y": x + rng.normal(size=8)[g] + rng.normal(size=80), "x": x, "g": g}


def test_units_and_origins_do_not_matter(crossed):
    """Degrees of freedom of the slope and F are the same in other units and with another origin of x."""
    fit = mm.lmm("y ~ x + (x | g) + (1 | h)", crossed)
    other = mm.lmm("y ~ x + (x | g) + (1 | h)", crossed.assign(x=1e4 * crossed.x + 3e4, y=1e-3 * crossed.y))
    for method in ("satterthwaite", "kr", "containment"):
        np.testing.assert_allclose(
            other.coefficients(method)["df"][1], fit.coefficients(method)["df"][1], rtol=1e-4
        )
        assert other.anova(3, method)["statistic"] == pytest.approx(
            fit.anova(3, method)["statistic"], rel=1e-5
        )


@pytest.mark.parametrize("method", ["satterthwaite", "kr", "residual", "z"])
def test_f_does_not_depend_on_the_basis_of_the_rows(method):
    fit = fitted("emptycells_reml")
    rng = np.random.default_rng(1)
    L = rng.normal(size=(3, fit.design.p))
    reference = reference_for(fit, method)
    test = reference.f_test(L)
    mixed = reference.f_test(rng.normal(size=(3, 3)) @ L)
    doubled = reference.f_test(np.vstack([L, L[0] + L[1]]))
    for other in (mixed, doubled):
        assert other.num_df == 3
        assert other.statistic == pytest.approx(test.statistic, rel=1e-8)
        assert other.den_df == pytest.approx(test.den_df, rel=1e-6) or np.isinf(test.den_df)
    one = reference.f_test(L[:1])
    assert one.statistic == pytest.approx(float(L[0] @ fit.beta) ** 2 / float(L[0] @ reference.vcov @ L[0]))


def test_average_information_is_close_in_a_large_sample():
    fit = fitted("penicillin_reml")
    from mixedmodels.inference.ddf.satterthwaite import Satterthwaite

    average = Satterthwaite(fit, "average")
    assert average.df(np.eye(1)) == pytest.approx(reference_for(fit, "satterthwaite").df(np.eye(1)), rel=0.05)
    assert "average information" in average.notes[0]


def test_numbers_residual_and_z():
    fit = fitted("sleepstudy_int_reml")
    assert fit.coefficients(12)["df"].tolist() == [12.0, 12.0]
    assert fit.coefficients("residual")["df"].tolist() == [178.0, 178.0]
    assert np.isinf(fit.coefficients("z")["df"]).all()
    assert fit.coefficients(12.0)["p_value"][1] == pytest.approx(1.95e-8, rel=1e-2)


def test_fixed_sigma_is_no_parameter():
    data = mm.load_dataset("sleepstudy", backend="pandas")
    free = mm.lmm("Reaction ~ Days + (1 | Subject)", data)
    fit = mm.lmm("Reaction ~ Days + (1 | Subject)", data, sigma=free.sigma)
    # the slope of a balanced random intercept has variance sigma^2 / sum: nothing to estimate
    assert fit.coefficients()["df"][1] == np.inf or fit.coefficients()["df"][1] > 1e12
    assert fit.coefficients()["df"][0] < 30
    assert fit.coefficients("kr")["df"][0] < 30


def test_mistakes_are_named():
    data = mm.load_dataset("sleepstudy", backend="pandas")
    ml = mm.lmm("Reaction ~ Days + (1 | Subject)", data, reml=False)
    with pytest.raises(mm.OptionError, match=r"REML.*maximum likelihood.*satterthwaite"):
        ml.coefficients("kr")
    assert ml.coefficients("satterthwaite")["df"][1] == pytest.approx(162.0, rel=1e-3)
    for wrong in ("satterthwait", 0, -3, "", [1]):
        with pytest.raises(mm.OptionError, match="ddf="):
            ml.coefficients(wrong)
    with pytest.raises(mm.OptionError, match="level"):
        ml.coefficients(level=2)
    with pytest.raises(mm.OptionError, match="one per fixed effect"):
        reference_for(ml, "satterthwaite").df(np.ones((1, 3)))


def test_published_figures_of_sas():
    """SAS PROC MIXED (MixedModelsSmallSample.jl keeps its output, MIT licence).

    For independent slopes SAS gives 18.1562 both for Satterthwaite and for Kenward-Roger, because it takes
    the covariance of the variances from the observed Hessian in both; pbkrtest takes the expected
    information, as Kenward & Roger (1997) do and as we do.
    """
    data = mm.load_dataset("sleepstudy", backend="pandas")
    both = mm.lmm("Reaction ~ Days + (Days | Subject)", data)
    for method in ("satterthwaite", "kr"):
        table = both.coefficients(method)
        assert table["std_error"] == pytest.approx([6.82455653206923, 1.54578889629476], rel=1e-6)
        assert table["df"] == pytest.approx([17.0, 17.0], rel=1e-6)
        assert table["statistic"] == pytest.approx([36.8383064404417, 6.77148476398423], rel=1e-6)
    apart = mm.lmm("Reaction ~ Days + (Days || Subject)", data)
    assert apart.coefficients()["df"] == pytest.approx([18.1562, 18.1562], rel=1e-5)
    assert apart.coefficients()["std_error"] == pytest.approx([6.88538113552491, 1.55956592087407], rel=1e-6)
    assert apart.coefficients("kr")["df"] == pytest.approx([18.18747, 18.18747], rel=1e-6)


def test_the_covariance_as_a_function_has_the_normal_distribution_only():
    data = mm.load_dataset("Dyestuff", backend="pandas")
    fit = mm.lmm("Yield ~ 1 + (1 | Batch)", data)
    from types import SimpleNamespace

    from mixedmodels.inference.ddf.satterthwaite import Satterthwaite, automatic

    other = SimpleNamespace(
        objective=SimpleNamespace(), vcov=fit.vcov, beta=fit.beta, design=fit.design, _is_linear=True
    )
    assert automatic(other).name == "z" and "normal" in automatic(other).notes[0]
    with pytest.raises(mm.MixedModelsError, match=r"function of theta.*residual"):
        Satterthwaite(other)


def test_automatic_choice_follows_the_work_not_the_number_of_random_effects():
    """Nested and single factors are exact at any size; many crossed levels take the average information."""
    rng = np.random.default_rng(3)
    n = 4000
    outer = rng.integers(0, 300, n)
    data = {"a": outer, "b": outer * 4 + rng.integers(0, 4, n), "c": rng.integers(0, 400, n)}
    y = rng.normal(size=n) + rng.normal(size=300)[outer] + rng.normal(size=1200)[data["b"]]
    data["y"] = y + rng.normal(size=400)[data["c"]]
    nested = mm.lmm("y ~ 1 + (1 | a) + (1 | b)", data)
    crossed = mm.lmm("y ~ 1 + (1 | a) + (1 | c)", data)
    assert nested.design.q > 2 * crossed.design.q
    assert reference_for(nested, "auto").notes == ()
    assert "average information" in reference_for(crossed, "auto").notes[0]
    assert nested.solver.trace_work < 1e6 < 2e7 < crossed.solver.trace_work
