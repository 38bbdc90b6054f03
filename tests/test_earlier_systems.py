"""Figures published with earlier systems: lme4 slides, Schafer's lmm, statsmodels, the Ruby gem mixed_models.

The data of the gem are in references/earlier. Data that are not in this repository are read
from the folder named by ``MIXEDMODELS_SHARED``; without it those tests are skipped.
Tolerances follow the digits printed and how flat the optimum is.
"""

from __future__ import annotations

import functools
import math
import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import mixedmodels as mm

SHARED = os.environ.get("MIXEDMODELS_SHARED")

needs_shared = pytest.mark.skipif(SHARED is None, reason="needs the folder named by MIXEDMODELS_SHARED")


def case(*parts):
    own = Path(__file__).parent / "references" / "earlier" / parts[-1]
    return pd.read_csv(own if own.exists() else Path(SHARED, "cases", *parts))


@functools.cache
def ruby(formula, file, reml=True):
    return mm.lmm(formula, case("ruby", file), reml=reml)


def fixef(fit):
    return np.array(list(fit.fixef.values()))


def effects(fit, group, term="(Intercept)"):
    """Random effects of one term in the order of the levels."""
    frame = fit.ranef()
    chosen = frame[(frame["group"] == group) & (frame["term"] == term)]
    return chosen["estimate"].to_numpy()


def standard_deviations(fit, group):
    """Standard deviations of one grouping factor's columns in order."""
    rows = fit.varcorr.to_frame().itertuples()
    # Independent terms on one factor are numbered: Pig, Pig.1.
    return [row.sdcor for row in rows if re.sub(r"\.\d+$", "", row.group) == group and pd.isna(row.name2)]


def correlation(fit, group, name1, name2):
    for row in fit.varcorr.to_frame().itertuples():
        if row.group == group and {row.name1, row.name2} == {name1, name2}:
            return row.sdcor
    raise AssertionError(f"no correlation of {name1} and {name2} in {group}")


# --- lme4 and MixedModels.jl -------------------------------------------------


def test_dyestuff_objective_at_a_fixed_theta():
    model = mm.LinearMixedModel("Yield ~ 1 + (1 | Batch)", mm.load_dataset("Dyestuff", "pandas"), reml=False)
    assert model.objective(np.array([0.713])) == pytest.approx(327.34216280954615, rel=1e-12)


INSTEVAL_TRACE = [
    ((1.0, 1.0), 241920.83782176476),
    ((1.75, 1.0), 244850.35312911012),
    ((1.0, 1.75), 242983.2665867725),
    ((0.25, 1.0), 238454.23551272837),
    ((1.0, 0.25), 241716.05373818352),
    ((0.0, 0.4459187720601605), 240026.0596421508),
    ((0.0, 1.2795084971874737), 241378.58264793456),
    ((0.2759148830633722, 0.43199403927991), 237585.55341516965),
]


@functools.cache
def insteval_model(reml):
    data = mm.load_dataset("InstEval", "pandas")
    return mm.LinearMixedModel("y ~ service * dept + (1 | s) + (1 | d)", data, reml=reml)


@pytest.mark.parametrize(("theta", "expected"), INSTEVAL_TRACE)
def test_insteval_objective_along_the_published_trace(theta, expected):
    assert insteval_model(False).objective(np.array(theta)) == pytest.approx(expected, rel=1e-9)


def test_insteval_reml_objective():
    theta = np.array([0.27615825919692, 0.43522795831786])
    assert insteval_model(True).objective(theta) == pytest.approx(237688.733511, rel=1e-9)


def test_insteval_reml_fit():
    fit = insteval_model(True).fit()
    np.testing.assert_allclose(fit.theta, [0.27615825919692, 0.43522795831786], rtol=1e-5)
    assert fit.sigma**2 == pytest.approx(1.38493205506318, rel=1e-6)
    published = {
        "(Intercept)": (3.22953, 0.06439),
        "service1": (0.25205, 0.06869),
        "dept5": (0.12966, 0.10188),
        "dept10": (-0.17659, 0.08862),
        "dept12": (0.05174, 0.08220),
        "dept6": (0.03496, 0.08608),
        "dept7": (0.14599, 0.10031),
        "dept4": (0.15183, 0.08212),
        "dept8": (0.10431, 0.11919),
    }
    for name, (estimate, error) in published.items():
        assert fit.fixef[name] == pytest.approx(estimate, abs=6e-6)
        assert fit.se[name] == pytest.approx(error, abs=6e-6)


# --- Schafer's marijuana data (R package lmm) --------------------------------

# Nine subjects, six occasions, five values missing; subject 1, occasion 4 is 2 (paper) or 20 (package).
MARIJUANA = [
    [16, 20, 16, None, -6, -4],
    [12, 24, 12, -6, 4, -8],
    [8, 8, 26, -4, 4, 8],
    [20, 8, None, None, 20, -4],
    [8, 4, -8, None, 22, -8],
    [10, 20, 28, -20, -4, -4],
    [4, 28, 24, 12, 8, 18],
    [-8, 20, 24, -3, 8, -24],
    [None, 20, 24, 8, 12, None],
]

MARIJUANA_FITS = {
    (2, False): (
        (87.884376, 3.0892877, -179.97716),
        (8.8381883, 16.888889, 18.303467, -1.640266, 7.5555556, -3.1618117),
    ),
    (20, False): (
        (97.635932, 1.6218881, -182.15776),
        (8.7895521, 16.888889, 18.277213, 0.96470888, 7.5555556, -3.2104479),
    ),
    (2, True): (
        (100.18504, 3.4766573, -167.0374),
        (8.8371978, 16.888889, 18.302874, -1.6395169, 7.5555556, -3.1628022),
    ),
    (20, True): (
        (111.28026, 1.8259428, -168.95055),
        (8.7890982, 16.888889, 18.276903, 0.96510684, 7.5555556, -3.2109018),
    ),
}

MARIJUANA_EFFECTS = {
    2: "-0.079910344 -0.252242504 0.092421815 0.422993508 -0.899611963 -0.482018716 1.356190985 "
    "-0.855405062 0.697582282",
    20: "0.190238858 -0.168269760 0.010984549 0.215221725 -0.459473867 -0.287772633 0.668250348 "
    "-0.481964800 0.312785581",
}


@functools.cache
def marijuana(first_value, reml):
    rows = [[*row] for row in MARIJUANA]
    rows[0][3] = first_value
    data = pd.DataFrame(
        [
            {"subj": f"s{i + 1}", "occ": f"o{j + 1}", "y": value}
            for i, row in enumerate(rows)
            for j, value in enumerate(row)
            if value is not None
        ]
    )
    return mm.lmm("y ~ 0 + occ + (1 | subj)", data, reml=reml)


@pytest.mark.parametrize(("first_value", "reml"), MARIJUANA_FITS)
def test_marijuana(first_value, reml):
    (sigma2, psi, loglik), means = MARIJUANA_FITS[first_value, reml]
    fit = marijuana(first_value, reml)
    assert fit.nobs == 49
    assert fit.sigma**2 == pytest.approx(sigma2, rel=2e-6)
    assert standard_deviations(fit, "subj")[0] ** 2 == pytest.approx(psi, rel=2e-5)
    assert fit.loglik == pytest.approx(loglik, abs=6e-5)
    np.testing.assert_allclose(fixef(fit), means, rtol=2e-6)


@pytest.mark.parametrize("first_value", [2, 20])
def test_marijuana_random_effects(first_value):
    expected = np.array(MARIJUANA_EFFECTS[first_value].split(), dtype=float)
    np.testing.assert_allclose(effects(marijuana(first_value, True), "subj"), expected, rtol=2e-5)


# --- statsmodels -------------------------------------------------------------

# set, ML or REML, full or independent covariance | coefficients | covariance (row-major) | scale | loglik
STATSMODELS = """
lme00 ml drf|-0.9887517|0.2522485|0.2718486|-240.1254
lme00 reml drf|-0.9887533|0.2524129|0.2733467|-242.5214
lme01 ml drf|-0.9115929|0|4.050921|-538.0763
lme01 reml drf|-0.9115929|0|4.066932|-539.3124
lme02 ml drf|-1.012044 0.9789052|0.1596058|0.2129146|-200.319
lme02 reml drf|-1.012137 0.9790792|0.1595015|0.2154276|-205.275
lme03 ml drf|-1.028053 0.8602685|0.8130996|3.100447|-477.1707
lme03 reml drf|-1.027583 0.8605714|0.8117898|3.13369|-479.5354
lme04 ml drf|-1.005151 -0.003657404 1.054786|0.1703249|0.251763|-231.6389
lme04 reml drf|-1.005067 -0.003496032 1.054666|0.1705659|0.2556394|-238.761
lme05 ml drf|-0.8949725 0.08141558 1.052529|0.3444677|4.103944|-579.4568
lme05 reml drf|-0.8946164 0.08134261 1.052486|0.3420993|4.155737|-582.8377
lme06 ml drf|-0.8885425|0.2595201 0.04591071 0.04591071 2.204612|0.243133|-382.551
lme06 reml drf|-0.8883881|0.2595767 0.04590012 0.04590012 2.204822|0.2453537|-384.6373
lme06 ml irf|-0.8874992|0.2587624 0 0 2.188653|0.2432694|-382.6581
lme06 reml irf|-0.8873394|0.2588157 0 0 2.188876|0.2454935|-384.7441
lme07 ml drf|-0.9645281|0.2051329 0.0734377 0.0734377 3.285381|3.423247|-587.7101
lme07 reml drf|-0.9647862|0.2056226 0.0726139 0.0726139 3.2876|3.440244|-588.7476
lme07 ml irf|-0.9665524|0.2021561 0 0 3.270735|3.423186|-587.7456
lme07 reml irf|-0.9667854|0.2026938 0 0 3.273129|3.440197|-588.782
lme08 ml drf|-1.083882 0.8955623|0.1506188 0.126091 0.126091 2.485462|0.2586519|-363.6234
lme08 reml drf|-1.083938 0.8956893|0.1505098 0.1256311 0.1256311 2.484219|0.2635901|-367.7667
lme08 ml irf|-1.079481 0.898216|0.1498568 0 0 2.403849|0.2605245|-364.4824
lme08 reml irf|-1.07952 0.8983678|0.1497193 0 0 2.403076|0.2655558|-368.6141
lme09 ml drf|-1.272698 0.8617471|0.510175 0.08826114 0.08826114 3.342888|3.722112|-589.8274
lme09 reml drf|-1.272483 0.861814|0.5123204 0.08897376 0.08897376 3.341722|3.764058|-591.7188
lme09 ml irf|-1.277018 0.86395|0.5086816 0 0 3.312757|3.72105|-589.8628
lme09 reml irf|-1.276822 0.8640243|0.5107725 0 0 3.31152|3.762967|-591.7543
lme10 ml drf|-0.9419566 -0.02359824 1.085796|0.2040541 0.09038325 0.09038325 2.218903|0.2558286|-379.6591
lme10 reml drf|-0.9426367 -0.02336203 1.085733|0.2034827 0.09063836 0.09063836 2.219191|0.2630213|-386.0008
lme10 ml irf|-0.9441033 -0.01755913 1.088568|0.2032228 0 0 2.192893|0.2553399|-380.162
lme10 reml irf|-0.9448257 -0.01722993 1.088557|0.2026653 0 0 2.193124|0.2625147|-386.5024
lme11 ml drf|-1.36971 0.1596278 0.8588724|0.3719096 0.332198 0.332198 1.120588|4.849781|-601.6432
lme11 reml drf|-1.370236 0.1597671 0.8585994|0.3680346 0.3324419 0.3324419 1.118623|4.922222|-604.5746
lme11 ml irf|-1.370117 0.1414964 0.8466083|0.4004789 0 0 1.108087|4.78776|-602.308
lme11 reml irf|-1.370663 0.1417561 0.8464232|0.3966454 0 0 1.106551|4.860342|-605.2274
"""

# set and estimation | random effects of group 0 | their conditional covariance (row-major)
STATSMODELS_EFFECTS = """
lme00 ml|0.04977167|0.130841
lme00 reml|0.04964696|0.1312315
lme01 ml|0|0
lme02 ml|0.3197174|0.09122291
lme03 reml|-0.2614875|0.6447625
lme04 ml|-0.2063164|0.0459578
lme05 reml|0.08111449|0.3160797
lme06 ml|-0.0597406 0.6037288|0.2420741 0.2222169 0.2222169 0.4228908
lme07 reml|0.07000628 -0.2916737|0.1828266 0.02229138 0.02229138 1.128947
lme08 ml|0.2852326 -0.5047804|0.05400391 0.002330104 0.002330104 0.122761
lme09 reml|0.03239688 0.2230525|0.401762 0.02521271 0.02521271 1.203536
lme10 ml|0.03876325 -0.725853|0.1988816 0.1872403 0.1872403 0.4052274
lme11 reml|-0.4168539 -0.3879533|0.2965372 0.2010191 0.2010191 0.7503986
"""


def rows_of(text):
    for line in text.strip().splitlines():
        label, *numbers = line.split("|")
        yield pytest.param(*label.split(), *[[float(x) for x in part.split()] for part in numbers], id=label)


@functools.cache
def statsmodels_fit(name, estimation, kind="drf"):
    data = case("statsmodels", f"{name}.csv")
    fixed = [c for c in data.columns if c.startswith("exog_fe")]
    random = [c for c in data.columns if c.startswith("exog_re")]
    bars = [" + ".join(["0", *random])] if kind == "drf" else [f"0 + {column}" for column in random]
    formula = f"endog ~ 0 + {' + '.join(fixed)} + {' + '.join(f'({bar} | groups)' for bar in bars)}"
    return mm.lmm(formula, data, reml=estimation == "reml")


def covariance_matrix(fit, k):
    """The k x k covariance matrix of the random effects on one factor, zero between independent terms."""
    names = [f"exog_re_{i}" for i in range(k)]
    out = np.zeros((k, k))
    for row in fit.varcorr.to_frame().itertuples():
        if row.group != "Residual":
            i = names.index(row.name1)
            j = i if pd.isna(row.name2) else names.index(row.name2)
            out[i, j] = out[j, i] = row.vcov
    return out


@needs_shared
@pytest.mark.parametrize(
    ("name", "estimation", "kind", "coefficients", "covariance", "scale", "loglik"),
    list(rows_of(STATSMODELS)),
)
def test_statsmodels_simulated_sets(name, estimation, kind, coefficients, covariance, scale, loglik):
    fit = statsmodels_fit(name, estimation, kind)
    k = round(math.sqrt(len(covariance)))
    # lme4's default optimiser left variances good to about four digits.
    np.testing.assert_allclose(fixef(fit), coefficients, rtol=1e-3, atol=2e-5)
    np.testing.assert_allclose(covariance_matrix(fit, k).ravel(), covariance, rtol=2e-3, atol=2e-4 * scale[0])
    assert fit.sigma**2 == pytest.approx(scale[0], rel=1e-3)
    assert fit.loglik == pytest.approx(loglik[0], abs=1e-3)


@needs_shared
@pytest.mark.parametrize(("name", "estimation", "effect", "variance"), list(rows_of(STATSMODELS_EFFECTS)))
def test_statsmodels_random_effects_of_the_first_group(name, estimation, effect, variance):
    frame = statsmodels_fit(name, estimation).ranef(condvar=True)
    first = frame[frame["level"].astype(float) == 0.0]
    k = len(effect)
    diagonal = np.array(variance).reshape(k, k).diagonal()
    np.testing.assert_allclose(first["estimate"], effect, rtol=5e-3, atol=2e-4)
    np.testing.assert_allclose(first["sd"] ** 2, diagonal, rtol=5e-3, atol=1e-6)


DIETOX = [
    ("(1 | Pig)", True, (15.723523, 6.942505), (0.78805374, 0.03338727), 11.36692, (40.39395,), -2404.775),
    ("(1 | Pig)", False, (15.723517, 6.942506), (0.7829397, 0.0333661), 11.35251, (39.82097,), -2402.932),
    (
        "(1 + Time | Pig)",
        True,
        (15.738650, 6.939014),
        (0.5501253, 0.0798254),
        6.03745,
        (19.4934552, 0.4160620),
        -2217.047,
    ),
    (
        "(1 + Time | Pig)",
        False,
        (15.73863, 6.93902),
        (0.54629282, 0.07926954),
        6.037441,
        (19.190922, 0.409695),
        -2215.753,
    ),
    (
        "(1 | Pig) + (0 + Time | Pig)",
        True,
        (15.73875, 6.93899),
        (0.55444, 0.08045),
        6.0282,
        (19.8404, 0.4234),
        -4434.7 / 2,
    ),
]


@needs_shared
@pytest.mark.parametrize(("bars", "reml", "beta", "errors", "scale", "variances", "loglik"), DIETOX)
def test_dietox(bars, reml, beta, errors, scale, variances, loglik):
    fit = mm.lmm(f"Weight ~ Time + {bars}", case("statsmodels", "dietox.csv"), reml=reml)
    assert fit.nobs == 861
    np.testing.assert_allclose(fixef(fit), beta, rtol=2e-5)
    np.testing.assert_allclose(list(fit.se.values()), errors, rtol=2e-4)
    assert fit.sigma**2 == pytest.approx(scale, rel=1e-4)
    np.testing.assert_allclose(np.square(standard_deviations(fit, "Pig")), variances, rtol=5e-4)
    assert fit.loglik == pytest.approx(loglik, abs=0.03 if "0 +" in bars else 2e-3)


def test_pastes_as_variance_components():
    data = mm.load_dataset("Pastes", "pandas")
    fit = mm.lmm("strength ~ (1 | batch) + (1 | batch:cask)", data)
    assert fit.fixef["(Intercept)"] == pytest.approx(60.0533, abs=6e-5)
    assert fit.se["(Intercept)"] == pytest.approx(0.6769, abs=6e-5)
    assert standard_deviations(fit, "batch")[0] ** 2 == pytest.approx(1.657, abs=2e-3)
    assert fit.sigma**2 == pytest.approx(0.678, abs=6e-4)
    assert fit.loglik == pytest.approx(-123.49, abs=0.01)
    residuals = [0.17133538, -0.02866462, -1.08662875, 1.11337125, -0.12093607]
    np.testing.assert_allclose(np.asarray(fit.residuals())[:5], residuals, atol=2e-5)
    fitted = [62.62866, 62.62866, 61.18663, 61.18663, 62.82094]
    np.testing.assert_allclose(np.asarray(fit.fitted())[:5], fitted, atol=2e-5)


def test_pastes_by_maximum_likelihood():
    data = mm.load_dataset("Pastes", "pandas")
    fit = mm.lmm("strength ~ (1 | batch) + (1 | batch:cask)", data, reml=False)
    assert fit.se["(Intercept)"] == pytest.approx(0.642, abs=6e-4)
    assert standard_deviations(fit, "batch")[0] ** 2 == pytest.approx(1.199, abs=6e-4)
    assert fit.sigma**2 == pytest.approx(0.67799, abs=2e-5)
    assert fit.loglik == pytest.approx(-123.997, abs=1e-3)
    assert fit.aic == pytest.approx(255.9944, abs=1e-3)
    assert fit.bic == pytest.approx(264.3718, abs=1e-3)


# --- Ruby gem mixed_models ---------------------------------------------------

ALIEN = "Aggression ~ Age + Species + (Age | Location)"
ALIEN_FILE = "alien_species.csv"


def lr_statistic(larger, smaller):
    return smaller.criterion - larger.criterion


def test_alien_species_reml():
    fit = ruby(ALIEN, ALIEN_FILE)
    assert fit.criterion == pytest.approx(333.71554, abs=2e-5)
    assert fit.aic == pytest.approx(351.71554, abs=2e-5)
    assert fit.bic == pytest.approx(375.16207, abs=2e-5)
    expected = [1016.28672021, -0.06531615, -499.69369521, -899.56932076, -199.58895813]
    np.testing.assert_allclose(fixef(fit), expected, rtol=1e-4)
    errors = [60.152430961, 0.089875268, 0.268257311, 0.281452296, 0.275788688]
    np.testing.assert_allclose(list(fit.se.values()), errors, rtol=1e-3)
    assert standard_deviations(fit, "Location") == pytest.approx([104.186091, 0.155654], rel=1e-3)
    assert correlation(fit, "Location", "(Intercept)", "Age") == pytest.approx(-0.0597, abs=1e-3)
    assert fit.sigma == pytest.approx(0.974535, rel=1e-4)
    np.testing.assert_allclose(effects(fit, "Location"), [-116.68080, 83.86571, 32.81509], rtol=2e-4)
    np.testing.assert_allclose(
        effects(fit, "Location", "Age"), [-0.03353392, -0.13613995, 0.16967387], rtol=1e-3
    )
    vcov_diagonal = [3619.15626823, 8.077694e-03, 7.196159e-02, 7.921496e-02, 7.605899e-02]
    np.testing.assert_allclose(np.diag(fit.vcov), vcov_diagonal, rtol=2e-3)
    assert fit.vcov[0, 1] == pytest.approx(-3.231326e-01, rel=5e-3)
    assert fit.vcov[2, 3] == pytest.approx(3.351678e-02, rel=1e-3)


def test_alien_species_wald_intervals():
    table = ruby(ALIEN, ALIEN_FILE).confint("wald")
    expected = [
        (898.3764163, 1134.1970241),
        (-0.2414699, 0.1108376),
        (-500.2194685, -499.1679220),
        (-900.1209556, -899.0176859),
        (-200.1294926, -199.0484237),
    ]
    for row, (low, high) in zip(table.rows(), expected, strict=True):
        assert row["conf_low"] == pytest.approx(low, abs=2e-4 * (high - low))
        assert row["conf_high"] == pytest.approx(high, abs=2e-4 * (high - low))


def test_alien_species_conditional_variances():
    frame = ruby(ALIEN, ALIEN_FILE).ranef(condvar=True)
    for term, expected in {
        "(Intercept)": [0.1098433621, 0.1872216782, 0.1481118862],
        "Age": [3.465442e-06, 4.845105e-06, 4.748243e-06],
    }.items():
        sd = frame[frame["term"] == term]["sd"]
        np.testing.assert_allclose(sd**2, expected, rtol=2e-3)


def test_alien_species_predictions():
    fit, newdata = ruby(ALIEN, ALIEN_FILE), case("ruby", "alien_species_newdata.csv")
    conditional = """1070.912575 182.452063 -17.064468 384.788159 876.124072 674.711338 1092.698558 871.150884
        687.462998 -4.016258"""
    population = "1002.6356 110.8389 105.4177 506.5997 800.0421 799.9768 1013.8700 807.1616 808.4026 114.0394"
    np.testing.assert_allclose(fit.predict(newdata), np.array(conditional.split(), float), atol=5e-3)
    np.testing.assert_allclose(
        fit.predict(newdata, re_form="population"), np.array(population.split(), float), atol=5e-3
    )


def test_alien_species_intervals_of_predictions():
    fit, newdata = ruby(ALIEN, ALIEN_FILE), case("ruby", "alien_species_newdata.csv")
    low = """906.32839 17.21062 10.21883 411.90672 701.96039 701.85218 920.50198 712.62678 714.24725
        20.67199"""
    high = """1098.9429 204.4673 200.6166 601.2926 898.1239 898.1015 1107.2381 901.6964 902.5580 207.4069"""
    table = fit.predict(newdata, "population", interval="confidence", level=0.88)
    # the gem stopped where its standard errors are 7e-4 larger: widths of 190 differ by 0.07 on each side
    np.testing.assert_allclose(table["conf_low"], np.array(low.split(), float), atol=0.1)
    np.testing.assert_allclose(table["conf_high"], np.array(high.split(), float), atol=0.1)
    published = """809.910050,1195.36123 -76.536158,298.214049 -85.093528,295.928938 317.098899,696.100408
        603.771398,996.312888 603.620377,996.333277 827.012723,1200.72732 617.976730,996.346478
        619.975479,996.829743 -72.816144,300.895018"""
    limits = np.array([pair.split(",") for pair in published.split()], float)
    table = fit.predict(newdata, "population", interval="prediction", level=0.88)
    np.testing.assert_allclose(table["conf_low"], limits[:, 0], atol=0.1)
    np.testing.assert_allclose(table["conf_high"], limits[:, 1], atol=0.1)


def test_offset_enters_predictions_of_own_rows_once():
    # a defect of the gem: predict() on the data added the offset twice, fitted(fixed part) left it out
    data = mm.load_dataset("sleepstudy", backend="pandas").assign(o=np.linspace(-50.0, 900.0, 180))
    plain = mm.lmm("I(Reaction - o) ~ Days + (Days | Subject)", data)
    fit = mm.lmm("Reaction ~ Days + offset(o) + (Days | Subject)", data)
    for re_form in (None, "population"):
        expected = plain.predict(data, re_form) + data["o"]
        np.testing.assert_allclose(fit.predict(data, re_form), expected, rtol=1e-8)
        np.testing.assert_allclose(fit.fitted(re_form), expected, rtol=1e-8)
        table = fit.predict(re_form=re_form, interval="confidence")
        np.testing.assert_allclose(table["predicted"], expected, rtol=1e-8)
        np.testing.assert_allclose((table["conf_low"] + table["conf_high"]) / 2, expected, rtol=1e-8)


def test_new_data_with_one_level_of_each_factor():
    # a defect of the gem: columns were made from the new data's own levels
    data = mm.load_dataset("Machines", backend="pandas")
    fit = mm.lmm("score ~ Machine + (Machine | Worker)", data)
    whole, errors = fit.predict(data), fit.predict(data, se=True)["std_error"]
    for row in (0, 20, 53):
        one = data.iloc[[row]].astype({"Machine": str, "Worker": str})
        assert fit.predict(one)[0] == pytest.approx(whole[row], rel=1e-12)
        assert fit.predict(one, se=True)["std_error"][0] == pytest.approx(errors[row], rel=1e-10)


def test_singular_fits_are_simulated_from():
    # a defect of the gem: simulation needed a positive definite covariance matrix
    fit = mm.lmm("Yield ~ 1 + (1 | Batch)", mm.load_dataset("Dyestuff2", backend="pandas"))
    assert fit.is_singular
    draws = fit.simulate(2000, seed=3)
    assert draws.std() == pytest.approx(fit.sigma, rel=0.02)


def test_alien_species_ml_and_likelihood_ratios():
    full = ruby(ALIEN, ALIEN_FILE, reml=False)
    assert full.criterion == pytest.approx(337.5662, abs=6e-5)
    expected = [1016.28645465, -0.06531612, -499.69371063, -899.56876058, -199.58889858]
    np.testing.assert_allclose(fixef(full), expected, rtol=1e-4)
    assert full.sigma == pytest.approx(0.9588506, rel=1e-4)
    without_age = ruby("Aggression ~ Species + (Age | Location)", ALIEN_FILE, reml=False)
    assert lr_statistic(full, without_age) == pytest.approx(0.703, abs=6e-4)
    assert (without_age.aic, without_age.bic) == pytest.approx((354.27, 375.11), abs=6e-3)
    intercept_only = ruby("Aggression ~ Age + Species + (1 | Location)", ALIEN_FILE, reml=False)
    assert lr_statistic(full, intercept_only) == pytest.approx(426.29, abs=6e-3)
    assert full.df_model - intercept_only.df_model == 2
    without_both = ruby("Aggression ~ Species + (1 | Location)", ALIEN_FILE, reml=False)
    assert lr_statistic(full, without_both) == pytest.approx(454.3606637, abs=2e-5)
    slope_only = ruby("Aggression ~ Age + Species + (0 + Age | Location)", ALIEN_FILE, reml=False)
    assert lr_statistic(full, slope_only) == pytest.approx(694.7297958, abs=2e-5)


def test_alien_species_reduced_models():
    no_species = ruby("Aggression ~ Age + (Age | Location)", ALIEN_FILE)
    assert no_species.criterion <= 1440.306 + 1e-3
    no_slope = ruby("Aggression ~ Age + Species + (1 | Location)", ALIEN_FILE)
    assert no_slope.criterion == pytest.approx(749.8919, abs=6e-5)
    expected = [1014.71798758, -0.06950405, -500.17069872, -894.46821460, -198.45767000]
    np.testing.assert_allclose(fixef(no_slope), expected, rtol=1e-5)
    np.testing.assert_allclose(effects(no_slope, "Location"), [-121.20140, 60.49505, 60.70635], rtol=1e-4)
    assert no_slope.sigma == pytest.approx(10.01297, rel=1e-5)
    crossed = ruby("Aggression ~ Age + (1 | Species) + (0 + Age | Location)", ALIEN_FILE)
    assert standard_deviations(crossed, "Species") == pytest.approx([384.92835], rel=1e-3)
    assert standard_deviations(crossed, "Location") == pytest.approx([0.52388], rel=1e-3)
    assert crossed.sigma == pytest.approx(40.05492, rel=1e-4)


def test_alien_species_other_data():
    fit = ruby(ALIEN, "alien_species_refit.csv")
    assert fit.criterion == pytest.approx(363.913, abs=6e-4)
    np.testing.assert_allclose(
        fixef(fit), [833.686766, 2.329822, -400.714091, -838.990305, -99.530996], rtol=1e-3
    )
    np.testing.assert_allclose(effects(fit, "Location"), [-132.75250, 166.43088, -33.67838], rtol=1e-2)
    np.testing.assert_allclose(effects(fit, "Location", "Age"), [0.1874363, -1.3432293, 1.1557931], rtol=1e-2)
    assert fit.sigma == pytest.approx(7.535235, rel=1e-3)


@pytest.mark.parametrize(
    ("formula", "expected"),
    [
        ("y ~ x + (x | g)", [2.441537, 1.207339, -1.805640]),
        ("y ~ x + (0 + x | g)", [2.441537, 1.207339, -1.805640]),
        ("y ~ 0 + x + (x | g)", [2.4415370, 3.6488761, 0.6358974]),
    ],
)
def test_categorical_slopes_in_two_groups(formula, expected):
    fit = ruby(formula, "categorical_data.csv")
    assert fit.criterion == pytest.approx(285.3409, abs=6e-5)
    assert fit.is_singular
    np.testing.assert_allclose(fixef(fit), expected, rtol=1e-3)
    assert fit.sigma == pytest.approx(0.9814615, rel=1e-4)


def test_random_effects_of_categorical_slopes():
    """Two groups: the second has the negatives. The likelihood hardly knows the three effects of each."""
    for formula, expected in (
        ("y ~ x + (x | g)", [0.3285087, -1.026759, -0.4829453]),
        ("y ~ x + (0 + x | g)", [0.3285088, -0.69825, -0.1544366]),
    ):
        b = ruby(formula, "categorical_data.csv").ranef_arrays()[0].b
        np.testing.assert_allclose(b[0], expected, rtol=2e-3)
        np.testing.assert_allclose(b[1], -b[0], rtol=1e-6)


def test_categorical_slopes_likelihood_ratios():
    file = "categorical_data.csv"
    full = ruby("y ~ x + (x | g)", file, reml=False)
    intercept = ruby("y ~ x + (1 | g)", file, reml=False)
    assert full.criterion == pytest.approx(283.05, abs=6e-3)
    assert intercept.criterion == pytest.approx(298.03, abs=6e-3)
    assert full.df_model - intercept.df_model == 5
    no_x = ruby("y ~ 1 + (0 + x | g)", file, reml=False)
    assert lr_statistic(ruby("y ~ x + (0 + x | g)", file, reml=False), no_x) == pytest.approx(10.27, abs=6e-3)


def test_crossed_effects_with_correlation_one():
    file = "crossed_effects_data.csv"
    fit = ruby("y ~ x + (x | g) + (x | h)", file, reml=False)
    assert fit.criterion == pytest.approx(150.56993, abs=2e-5)
    assert fit.is_singular
    assert fit.aic == pytest.approx(168.6, abs=0.06)
    assert fit.bic == pytest.approx(192.0, abs=0.06)
    np.testing.assert_allclose(fixef(fit), [1.2562, 1.2742], rtol=1e-3)
    np.testing.assert_allclose(list(fit.se.values()), [0.5453, 0.4889], rtol=2e-3)
    assert standard_deviations(fit, "g") == pytest.approx([0.7537, 0.7488], rel=2e-3)
    assert standard_deviations(fit, "h") == pytest.approx([0.5638, 0.3854], rel=2e-3)
    for group in ("g", "h"):
        assert correlation(fit, group, "(Intercept)", "x") == pytest.approx(1.0, abs=1e-6)
    assert fit.sigma == pytest.approx(0.4525, rel=1e-3)
    no_x = ruby("y ~ 1 + (x | g) + (x | h)", file, reml=False)
    assert lr_statistic(fit, no_x) == pytest.approx(3.8852, abs=1e-3)
    no_slope = ruby("y ~ x + (1 | g) + (x | h)", file, reml=False)
    assert lr_statistic(fit, no_slope) == pytest.approx(113.37, abs=6e-3)


def test_nested_effects():
    fit = ruby("y ~ 1 + (1 | a:b)", "nested_effects_data.csv")
    assert fit.criterion == pytest.approx(43.480313, abs=2e-6)
    assert standard_deviations(fit, "a:b") == pytest.approx([0.9679], abs=6e-5)
    assert fit.sigma == pytest.approx(0.2567, abs=6e-5)
    assert fit.fixef["(Intercept)"] == pytest.approx(1.045, abs=6e-4)
    assert fit.se["(Intercept)"] == pytest.approx(0.396, abs=6e-4)
    expected = [-0.3767391, 1.0009895, 0.2707781, -1.7495081, 0.3284493, 0.5260302]
    np.testing.assert_allclose(np.sort(effects(fit, "a:b")), np.sort(expected), rtol=1e-4)


def test_crossed_and_nested_effects():
    fit = ruby("y ~ 1 + (1 | a) + (1 | a:b)", "crossed_and_nested_effects_data.csv")
    assert fit.criterion == pytest.approx(47.435447, abs=2e-6)
    assert standard_deviations(fit, "a:b")[0] ** 2 == pytest.approx(1.0090, abs=2e-4)
    assert standard_deviations(fit, "a")[0] ** 2 == pytest.approx(2.5398, abs=1e-3)
    assert fit.sigma**2 == pytest.approx(0.0659, abs=6e-5)
    np.testing.assert_allclose(effects(fit, "a"), [-0.3577111, -1.2429141, 1.6006252], rtol=1e-3)
    expected = [-0.7607407, 0.6186263, 0.7639397, -1.2577348, 0.2192124, 0.4166969]
    np.testing.assert_allclose(np.sort(effects(fit, "a:b")), np.sort(expected), rtol=1e-3)


def test_nested_effects_with_a_slope():
    file = "nested_effects_with_slope_data.csv"
    fit = ruby("y ~ x + (1 | a) + (x | a:b)", file)
    assert fit.criterion == pytest.approx(78.41391, abs=2e-5)
    assert np.square(standard_deviations(fit, "a:b")) == pytest.approx([1.97633, 3.52719], rel=1e-3)
    assert np.square(standard_deviations(fit, "a")) == pytest.approx([1.14709], rel=2e-3)
    assert fit.sigma**2 == pytest.approx(0.06246, abs=2e-5)
    np.testing.assert_allclose(fixef(fit), [0.9517, 4.4746], rtol=1e-3)
    np.testing.assert_allclose(list(fit.se.values()), [0.8441, 0.7673], rtol=1e-3)
    full = ruby("y ~ x + (1 | a) + (x | a:b)", file, reml=False)
    intercepts = ruby("y ~ x + (1 | a) + (1 | a:b)", file, reml=False)
    assert lr_statistic(full, intercepts) == pytest.approx(317.05, abs=6e-3)
    assert standard_deviations(intercepts, "a") == pytest.approx([1.340759], rel=1e-4)
    assert standard_deviations(intercepts, "a:b") == pytest.approx([0.976885], rel=1e-4)
    assert intercepts.sigma == pytest.approx(1.633409, rel=1e-5)
    no_x = ruby("y ~ 1 + (1 | a) + (x | a:b)", file, reml=False)
    assert lr_statistic(full, no_x) == pytest.approx(12.327, abs=6e-4)


NUM_NUM, NUM_CAT, CAT_CAT = (
    "numeric_x_numeric_interaction.csv",
    "numeric_x_categorical_interaction.csv",
    "categorical_x_categorical_interaction.csv",
)


def test_interaction_of_two_numbers():
    fit = ruby("y ~ a + b + a:b + (0 + a:b | gr)", NUM_NUM)
    assert fit.criterion == pytest.approx(312.3, abs=0.06)
    assert np.square(standard_deviations(fit, "gr")) == pytest.approx([0.5451], rel=1e-3)
    assert fit.sigma**2 == pytest.approx(1.1298, abs=6e-5)
    np.testing.assert_allclose(fixef(fit), [0.02967, 1.08225, 0.96928, 1.25433], atol=2e-5)
    full = ruby("y ~ a + b + a:b + (0 + a:b | gr)", NUM_NUM, reml=False)
    less = ruby("y ~ a + b + (0 + a:b | gr)", NUM_NUM, reml=False)
    assert lr_statistic(full, less) == pytest.approx(7.2984, abs=6e-5)


def test_interaction_of_a_number_and_a_factor():
    fit = ruby("y ~ num * cat + (0 + num:cat | gr)", NUM_CAT)
    assert fit.criterion == pytest.approx(286.3773, abs=6e-5)
    assert fit.sigma == pytest.approx(0.9814441, rel=1e-4)
    expected = [2.1121836, 2.5502758, 0.8093798, 2.0581310, -0.8488252, -0.7940961]
    np.testing.assert_allclose(fixef(fit), expected, rtol=1e-3)
    full = ruby("y ~ num * cat + (0 + num:cat | gr)", NUM_CAT, reml=False)
    less = ruby("y ~ num + cat + (0 + num:cat | gr)", NUM_CAT, reml=False)
    assert lr_statistic(full, less) == pytest.approx(2.6608, abs=6e-4)


def test_interaction_of_two_factors_stress():
    fit = ruby("y ~ f1 + f2 + f1:f2 + (0 + f1:f2 | gr)", CAT_CAT)
    assert fit.criterion <= 273.3275 + 1e-3
    assert fit.is_singular
    assert fit.sigma**2 == pytest.approx(0.8630, abs=6e-5)
    expected = [7.7788, -1.2910, 1.0533, -2.3771, -4.1637, -0.4784]
    np.testing.assert_allclose(fixef(fit), expected, atol=5e-3)


def test_rank_deficient_fixed_part():
    fit = ruby("y ~ f1:f2 + (0 + f1 + f1:f2 | gr)", CAT_CAT)
    assert fit.criterion == pytest.approx(273.3, abs=0.06)
    estimates = [value for value in fit.fixef.values() if not math.isnan(value)]
    np.testing.assert_allclose(estimates, [3.6323, 4.1465, 2.8555, 5.1997, -0.2549, 1.7693], atol=5e-3)


def test_zero_variance():
    fit = ruby("y ~ f2 + f1:f2 + (1 | gr)", CAT_CAT)
    assert fit.criterion == pytest.approx(300.6, abs=0.06)
    assert standard_deviations(fit, "gr") == [0.0]
    assert fit.sigma**2 == pytest.approx(1.199, abs=6e-4)
    np.testing.assert_allclose(fixef(fit), [7.7302, 1.2335, -2.3396, -1.1198, -5.5480, -1.7754], atol=6e-5)


def test_two_crossed_terms_with_a_categorical_slope():
    fit = ruby("y ~ x + a + (x | grp_for_x) + (a | grp_for_a)", "categorical_and_crossed_ran_ef.csv")
    assert fit.criterion == pytest.approx(342.76562, abs=2e-5)
    assert fit.sigma == pytest.approx(0.94599539, rel=1e-5)
    expected = [10.14572568, 0.65662203, -4.45631995, -0.62967066, -2.93076379, -1.34239025]
    np.testing.assert_allclose(fixef(fit), expected, rtol=1e-4)
