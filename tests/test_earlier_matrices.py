"""Figures of the Ruby gem mixed_models for models made from matrices and for its optimiser.

The numbers come from lme4 and lme4pureR, as quoted in the gem's own specification (BSD-3-Clause).
"""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

import mixedmodels as mm
from mixedmodels.optimize.nelder_mead import nelder_mead

SHARED = os.environ.get("MIXEDMODELS_SHARED")

B = """
-1.34291864 0.37214635 -0.42979766 0.03111855 1.98241161 0.71735038 0.40448848 -0.28236437
0.33479745 -0.11086452
"""
EPS_25 = """
1.7049032 -0.7120386 -0.2779849 -0.1196490 -0.1239606 0.2681838 0.7268415 0.2331354 0.3391139
-0.5519147 0.3477014 1.4845918 0.1883255 2.4432598 -1.1534395 -0.8046717 0.4560691 0.4203326
0.5775845 0.4463561 0.9172555 -0.1070615 0.9883354 -1.0722388 -0.7580153
"""
EPS_50 = """
0.496502397340098 -0.577678887521082 -1.21173791274225 0.0446417152929314 0.339674378865471
0.104784564191674 -0.0460565196653141 0.285440902222387 0.843345193001128 1.27994921528088
0.694924670755951 0.577415255292851 0.370159180245536 0.35881413147769 -1.69691116206306
-0.233385719476208 0.480331989945522 -1.09503905124389 -0.610978188869429 0.984812801235286
0.282422385731771 0.763463942012845 -1.03154373185159 -0.374926162762322 -0.650793255606928
0.793247584007507 -1.30007701703736 -2.522510645489 0.0246284050971783 -1.73792367490139
0.0267032433302985 1.09659910679367 0.747140189824456 -0.527345699932755 1.24561748663327
0.20905974976202 0.00753104790432846 -0.0866226204494824 -1.61282076369275 -1.25760486584371
-0.885299440717284 1.07254194203703 0.101861345622785 -1.86859557570558 -0.0660433241114955
0.684044990424631 0.266888559603417 0.763767965816189 0.427908801177724 -0.146381705894295
"""


def simulated(x, group, beta, noise):
    """y = X beta + Z b + e with a random intercept and slope in five groups; returns y, X, Z."""
    X = np.column_stack([np.ones_like(x), x])
    Z = np.zeros((len(x), 10))
    for i, g in enumerate(group):
        Z[i, 2 * g : 2 * g + 2] = X[i]
    return X @ beta + Z @ np.array(B.split(), float) + np.array(noise.split(), float), X, Z


def blocks(theta):
    """Relative factor of five pairs of effects, as the gem's Proc gives it (transposed there)."""
    return sparse.kron(sparse.eye_array(5), np.array([[theta[0], 0.0], [theta[1], theta[2]]]))


def of_function(y, X, Z, reml=True):
    return mm.LinearMixedModel.from_matrices(
        y, X, Z, covariance=blocks, start=[1.0, 0.0, 1.0], lower=[0.0, -np.inf, 0.0], reml=reml
    )


def of_terms(y, X, group, reml=True):
    term = mm.RandomTerm("grp", ("(Intercept)", "x"), group, None, X, "us")
    return mm.LinearMixedModel.from_matrices(y, X, [term], reml=reml, names=["(Intercept)", "x"])


DATA_25 = simulated(np.arange(1.0, 26.0), np.repeat(np.arange(5), 5), [2.0, 3.0], EPS_25)
DATA_50 = simulated(np.arange(1.0, 51.0), np.repeat(np.arange(5), 10), [1.0, 1.0], EPS_50)


@pytest.mark.parametrize(
    ("reml", "theta", "expected"),
    [
        (False, (1, 1, 1), 97.2413512375),
        (False, (1, 2, 3), 106.09376025),
        (False, (1, 0.5, 1), 95.3270000775),
        (False, (2, 2, 2), 104.038774653),
        (True, (1, 1, 1), 94.9085716471),
        (True, (1, 2, 3), 101.938487224),
        (True, (1, 0.5, 1), 93.357039525),
        (True, (2, 2, 2), 99.980568418),
    ],
)
def test_objective_at_given_theta(reml, theta, expected):
    y, X, Z = DATA_25
    for model in (of_function(y, X, Z, reml), of_terms(y, X, np.repeat(np.arange(5), 5), reml)):
        assert model.objective(theta) == pytest.approx(expected, abs=5e-7)  # b and e are printed to 7 digits


FITTED_50 = """
0.6490963 2.1432563 3.6374162 5.1315761 6.6257360 8.1198959 9.6140558 11.1082158 12.6023757
14.0965356 12.2271343 13.1860403 14.1449462 15.1038521 16.0627581 17.0216640 17.9805700 18.9394759
19.8983818 20.8572878 39.1510627 40.7126464 42.2742300 43.8358137 45.3973974 46.9589811 48.5205648
50.0821485 51.6437321 53.2053158 24.2476076 24.8268817 25.4061558 25.9854299 26.5647040 27.1439781
27.7232522 28.3025263 28.8818004 29.4610745 37.7513966 38.6595585 39.5677203 40.4758822 41.3840441
42.2922059 43.2003678 44.1085296 45.0166915 45.9248534
"""
EFFECTS_50 = [
    [-3.644820, 0.3937428],
    [-1.120587, -0.1415112],
    [3.558049, 0.4611666],
    [3.490354, -0.5211430],
    [-2.282996, -0.1922552],
]


@pytest.fixture(scope="module")
def fits_50():
    y, X, Z = DATA_50
    return of_function(y, X, Z).fit(), of_terms(y, X, np.repeat(np.arange(5), 10)).fit()


def test_fit_from_matrices(fits_50):
    for fit in fits_50:
        assert fit.criterion == pytest.approx(162.9, abs=0.05)
        assert fit.sigma == pytest.approx(0.8247, abs=6e-5)
        np.testing.assert_allclose(fit.beta, [2.7998, 1.1004], atol=2e-4)
        np.testing.assert_allclose(np.sqrt(np.diag(fit.vcov)), [2.0484, 0.1938], rtol=1e-3)
        np.testing.assert_allclose(
            np.concatenate([e.b.ravel() for e in fit.ranef_arrays()]), np.ravel(EFFECTS_50), rtol=1e-4
        )
        np.testing.assert_allclose(fit.fitted(), np.array(FITTED_50.split(), float), atol=2e-4)
    function, terms = fits_50
    Sigma = terms.varcorr["grp"].covariance
    np.testing.assert_allclose(np.sqrt(np.diag(Sigma)), [3.9259, 0.4244], rtol=5e-4)
    assert terms.varcorr["grp"].correlation[1, 0] == pytest.approx(-0.23, abs=5e-3)
    root = blocks(function.theta).toarray()
    np.testing.assert_allclose(function.sigma**2 * root @ root.T, np.kron(np.eye(5), Sigma), rtol=1e-4)


def test_unbalanced_groups_and_a_singular_fit():
    group = np.repeat(np.arange(5), [10, 30, 5, 2, 3])
    y, X, Z = simulated(np.arange(0.5, 25.5, 0.5), group, [1.0, 3.0], EPS_50)
    expected = [[-0.9996009, 0.3727742], [0.6367488, -0.2374583], [-1.8286214, 0.6819349],
                [1.3388462, -0.4992865], [0.8526273, -0.3179643]]  # fmt: skip
    for fit in (of_function(y, X, Z).fit(), of_terms(y, X, group).fit()):
        assert fit.criterion == pytest.approx(158.0308, abs=6e-5)
        np.testing.assert_allclose(fit.beta, [0.1679018, 3.2344651], rtol=1e-3)
        assert fit.sigma == pytest.approx(0.8934167, rel=1e-4)
        effects = np.concatenate([e.b.ravel() for e in fit.ranef_arrays()])
        np.testing.assert_allclose(effects, np.ravel(expected), rtol=2e-3)
        assert fit.is_singular
        assert "Linear mixed model fit by REML" in str(fit.summary())


def smooth(x):
    return x[0] ** 2 + (x[1] - 4) ** 2 + (x[2] + 7) ** 2


def falling(x):
    return (x[0] - 1) ** 2 + (x[1] - 4) / 2 + (x[2] + 7) ** 3


def cubic(x):
    return (x[0] - 1) ** 2 + (4 - x[1]) ** 3 + (x[2] + 7) ** 2


@pytest.mark.parametrize(
    ("function", "start", "lower", "upper", "expected", "value"),
    [
        (smooth, (1, 1, 1), None, None, (0, 4, -7), 0),
        (falling, (1, 2, 3), (0, 0, -5), None, (1, 0, -5), 6),
        (cubic, (1, 2, 3), None, (5, 5, 5), (1, 5, -7), -1),
        (cubic, (1, 2, 3), (-5, -5, -5), (5, 5, 5), (1, 5, -5), 3),
    ],
    ids=["free", "lower", "upper", "both"],
)
def test_nelder_mead_with_bounds(function, start, lower, upper, expected, value):
    lower = np.full(3, -np.inf) if lower is None else np.array(lower, float)
    upper = np.full(3, np.inf) if upper is None else np.array(upper, float)
    x, least, _, converged = nelder_mead(function, np.array(start, float), lower, upper)
    assert converged
    np.testing.assert_allclose(x, expected, atol=1e-3)
    assert least == pytest.approx(value, abs=1e-5)
    at_bound = (np.array(expected) == lower) | (np.array(expected) == upper)
    assert (x[at_bound] == np.array(expected)[at_bound]).all()  # exactly on it


@pytest.mark.skipif(SHARED is None, reason="needs the folder named by MIXEDMODELS_SHARED")
def test_kinship_with_rank_deficient_markers():
    """1200 individuals, 130 markers of which with the intercept 25 columns are independent.

    (The published count of significant markers rests on a scrambled matrix.)
    """

    def read(name):
        with gzip.open(Path(SHARED or "", "cases", "genetics", f"{name}.csv.gz")) as file:
            return np.loadtxt(file, delimiter=",")

    K, y, snps = read("kinship_matrix"), read("phenotype").ravel(), read("design_matrix")
    ids = np.arange(1200)
    data = {"y": y, "id": ids} | {f"s{j + 1}": column for j, column in enumerate(snps.T)}
    formula = f"y ~ {' + '.join(f's{j + 1}' for j in range(130))} + (1 | id)"
    fit = mm.lmm(formula, data, known={"id": (2.0 * K, ids)})
    assert fit.design.p == 25 and len(fit.dropped_columns) == 106
    # theta and sigma do not depend on which independent columns are kept; 2 K doubles the variance ratio
    assert np.sqrt(2.0) * fit.theta[0] == pytest.approx(2.42329785, rel=1e-6)
    assert fit.sigma**2 == pytest.approx(0.1934106281, rel=1e-7)
    assert fit.sigma**2 * fit.theta[0] ** 2 == pytest.approx(0.567889624, rel=1e-6)


# lme4's predictions at x of five new rows, one in each group; limits of new observations in new groups
NEW_X = np.column_stack([np.ones(5), [3.13, 55.12, -0.98, -99.34, 12.12]])
LOWER_95 = """
-4.754873 -3.5758 -2.493847 -1.508396 -0.6157143 0.1904709 0.9181226 1.575996 2.172884 2.717093
3.216141 3.676635 4.104267 4.503878 4.879549 5.234712 5.572243 5.894558 6.203684 6.501333 6.78895
7.067761 7.338811 7.602995 7.861079 8.113725 8.361506 8.604919 8.844399 9.080326 9.313033 9.542814
9.769931 9.994614 10.21707 10.43748 10.65601 10.87281 11.088 11.30172 11.51406 11.72513 11.93502
12.1438 12.35155 12.55833 12.76422 12.96926 13.17351 13.37701
"""
UPPER_95 = """
12.55522 13.57698 14.69586 15.91125 17.2194 18.61405 20.08723 21.63019 23.23414 24.89076 26.59255
28.33289 30.10609 31.90731 33.73248 35.57815 37.44145 39.31997 41.21168 43.11486 45.02808 46.9501
48.87989 50.81654 52.75929 54.70748 56.66053 58.61795 60.57931 62.54421 64.51234 66.48339 68.45711
70.43326 72.41164 74.39206 76.37437 78.35841 80.34404 82.33116 84.31965 86.30942 88.30037 90.29242
92.28551 94.27955 96.2745 98.27029 100.2669 102.2642
"""


def new_rows(fits):
    function, terms = fits
    Z = np.zeros((5, 10))
    for i in range(5):
        Z[i, 2 * i : 2 * i + 2] = NEW_X[i]
    return (function, {"X": NEW_X, "Z": Z}), (terms, {"X": NEW_X, "terms": [(np.arange(5), NEW_X)]})


def test_predictions_of_new_matrices(fits_50):
    with_effects = [3.831657, 54.534064, 4.827453, -51.254978, 11.523682]
    without = [6.244062, 63.454747, 1.721348, -106.515678, 16.136812]
    for fit, rows in new_rows(fits_50):
        np.testing.assert_allclose(fit.predict(rows), with_effects, atol=1e-3)
        np.testing.assert_allclose(fit.predict({"X": NEW_X}, "population"), without, atol=1e-3)


def test_prediction_limits_of_own_rows(fits_50):
    for fit in fits_50:
        table = fit.predict(re_form="population", interval="prediction")
        np.testing.assert_allclose(table["conf_low"], np.array(LOWER_95.split(), float), atol=2e-3)
        np.testing.assert_allclose(table["conf_high"], np.array(UPPER_95.split(), float), atol=2e-3)


@pytest.mark.parametrize("re_form", [None, "population"])
@pytest.mark.parametrize("interval", ["confidence", "prediction"])
def test_limits_are_the_same_on_both_roads(fits_50, interval, re_form):
    """The covariance as a function of theta, and the same one by the tag "us"."""
    (function, matrices), (terms, labels) = new_rows(fits_50)
    for one, two in ((None, None), (matrices, labels)):
        a = function.predict(one, re_form, interval=interval, level=0.9)
        b = terms.predict(two, re_form, interval=interval, level=0.9)
        for name in ("predicted", "std_error", "conf_low", "conf_high"):
            np.testing.assert_allclose(a[name], b[name], rtol=2e-4, atol=2e-4)


def test_limits_with_weights_and_offset():
    y, X, Z = DATA_50
    weights, offset = np.linspace(0.5, 2.0, 50), np.linspace(-3.0, 3.0, 50)
    term = mm.RandomTerm("grp", ("(Intercept)", "x"), np.repeat(np.arange(5), 10), None, X, "us")
    options = {"weights": weights, "offset": offset}
    start = {"start": [1.0, 0.0, 1.0], "lower": [0.0, -np.inf, 0.0]}
    one = mm.LinearMixedModel.from_matrices(y, X, Z, covariance=blocks, **start, **options).fit()
    two = mm.LinearMixedModel.from_matrices(y, X, [term], **options).fit()
    rows = {"X": X[:4], "Z": Z[:4]}, {"X": X[:4], "terms": [(np.zeros(4, int), X[:4])]}
    more = {"offset": offset[:4], "weights": weights[:4], "interval": "prediction"}
    for new, extra in (((None, None), {"interval": "prediction"}), (rows, more)):
        a, b = one.predict(new[0], **extra), two.predict(new[1], **extra)
        for name in ("predicted", "prediction_sd", "conf_low"):
            np.testing.assert_allclose(a[name], b[name], rtol=2e-4, atol=2e-4)
            if new[0] is not None:
                np.testing.assert_allclose(a[name], one.predict(interval="prediction")[name][:4], rtol=1e-9)


def test_a_new_level_of_matrices(fits_50):
    fit = fits_50[1]
    rows = {"X": NEW_X, "terms": [(np.array([0, 1, 2, 3, 99]), NEW_X)]}
    with pytest.raises(mm.NewLevelError, match="99 is a new level of 'grp'"):
        fit.predict(rows)
    mean = fit.predict(rows, new_levels="population")
    assert mean[4] == pytest.approx(NEW_X[4] @ fit.beta)
    assert np.isnan(fit.predict(rows, new_levels="missing")).tolist() == [False] * 4 + [True]
    wide = fit.predict(rows, new_levels="population", interval="prediction")["prediction_sd"][4]
    assert wide == pytest.approx(fit.predict(rows, "population", interval="prediction")["prediction_sd"][4])


@pytest.mark.parametrize(
    ("which", "rows", "message"),
    [
        (0, {"Z": np.ones((5, 10))}, "takes new rows as a dict of matrices"),
        (0, {"X": NEW_X}, "the new rows need 'Z'"),
        (0, {"X": NEW_X, "Z": np.ones((5, 3))}, r"Z of the new rows has shape \(5, 3\)"),
        (
            0,
            {"X": np.ones((5, 3)), "Z": np.ones((5, 10))},
            "X of the new rows has 3 columns",
        ),
        (1, {"X": NEW_X}, "new rows need 'terms'"),
        (1, {"X": NEW_X, "terms": [np.arange(5)]}, r"needs \(labels, Z\)"),
        (1, {"X": NEW_X, "terms": [(np.arange(4), NEW_X)]}, "labels of"),
        (1, [1.0, 2.0], "takes new rows as a dict of matrices"),
    ],
)
def test_wrong_new_matrices(fits_50, which, rows, message):
    with pytest.raises(mm.MixedModelsError, match=message):
        fits_50[which].predict(rows)
