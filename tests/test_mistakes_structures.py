"""Mistakes with structures, known matrices, held parameters and priors: one clear error each."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import mixedmodels as mm

GROUPS, TIMES = 12, 5
N = GROUPS * TIMES
_RNG = np.random.default_rng(0)
DATA = pd.DataFrame(
    {"g": np.repeat(np.arange(GROUPS), TIMES), "t": np.tile(np.arange(TIMES), GROUPS)}
).assign(
    y=lambda d: _RNG.normal(size=N) + _RNG.normal(size=GROUPS)[d.g],
    x=_RNG.normal(size=N),
    u=lambda d: d.t + 0.1 * _RNG.random(N),
    v=lambda d: d.t.astype(str),
    f=lambda d: pd.Categorical(d.v),
    s=lambda d: np.where(d.g % 2, "A", "B"),
    w=0.5 + _RNG.random(N),
    h=_RNG.integers(0, 5, N),
    row=np.arange(N),
)
K = np.eye(GROUPS)
IDS = list(range(GROUPS))


def known(matrix, **options):
    return mm.residual.Known(matrix, **options)


@pytest.mark.parametrize(
    ("residual", "message"),
    [
        ("ar3(t | g)", "unknown residual structure 'ar3'; did you mean 'ar1'"),
        ("AR1(t | g)", "did you mean 'ar1'"),
        ("ar1", "write ar1"),
        ("ar1(t | g) + varident(s)", r"write '\*' instead of '\+'"),
        ("ar1(time | g)", "no column 'time'"),
        ("ar1(t | subject)", "no column 'subject'"),
        ("ar1(f | g)", r"ar1\(\) needs numbers, but 'f' holds categories"),
        ("ar1(v | g)", r"ar1\(\) needs numbers, but 'v' holds categories"),
        ("ar1(u | g)", "needs whole numbers as times.*car1"),
        ("ar1(t | h)", "have the same t"),
        ("ar1(t | row)", "no group has more than one row"),
        ("car1(u | row)", "no group has more than one row"),
        ("arma(t | row, p=1, q=1)", "no group has more than one row"),
        ("cs(1 | row)", "no group has more than one row"),
        ("ar1(t | g) * cs(1 | g)", "at most one correlation"),
        ("varident(s) * varident(s)", r"varident\(s\) occurs twice"),
        ("arma(t | g)", "needs p= or q="),
        ("arma(t | g, p=-1)", "whole number of at least 0"),
        ("arma(t | g, p=1.5)", "whole number of at least 0"),
        ("arma(t | g, p=40)", "spans 4 steps of time.*lower p= and q="),
        ("us(x | g)", "no group has both.*fewer parameters"),
        ("us(t | h)", "have the same t"),
        ("varident(x)", r"has one row \(60 such levels\).*merge levels"),
        ("varident(g | s)", "for parameters by level write by="),
        ("varident(s, C=2)", "not a level of s"),
        ("varpower(s)", "needs numbers"),
        ("varpower(ww)", "did you mean 'w'|no column 'ww'"),
        ("varfixed(x)", "variances must be positive"),
        ("loglin(1)", "needs covariates"),
        ("varconstpower(w, const=-1)", "const must be positive"),
        ("exp(s | g)", "needs numbers"),
        ("exp(t | h)", "nugget=True"),
        ("exp(u | g, metric='cosine')", "euclidean, manhattan, maximum"),
        ("exp(u | g, nugget=2)", "between 0 and 1"),
        ("exp(u | g, range=-1)", "must be positive"),
        ("mat(u | g, smoothness=-1)", "must be positive"),
        ("ar1(t | g, rho=1)", "between -1 and 1"),
        ("ar1(t | g, by=v)", "constant within the groups"),
        ("", "empty"),
        (3, "residual= must be text"),
        (["ar1(t | g)"], "residual= must be text"),
        (mm.residual.AR1, "residual= must be text.*an object such as"),
        (known(np.eye(4), occasion="t", group="g"), "5 levels, but the matrix has 4 occasions"),
        (known(np.eye(N + 1)), f"the matrix has {N + 1} rows, the data {N}"),
        (known(np.eye(5), occasion="t"), "have the same t"),
        (known(np.eye(5), occasion="q", group="g"), "no column 'q'"),
        (known(np.eye(5), occasion="t", group="g", labels="abcde"), "not among the labels"),
    ],
    ids=str,
)
def test_residuals(residual, message):
    with pytest.raises(mm.MixedModelsError, match=message):
        mm.gls("y ~ x", DATA, residual=residual)


@pytest.mark.parametrize(
    ("columns", "residual", "message"),
    [
        ({"t": np.inf}, "ar1(t | g)", "infinite values"),
        ({"t": np.nan}, "ar1(t | g)", "no row without missing values"),
        ({"t": 1}, "car1(t | g)", "have the same t"),
        ({"s": "A"}, "varident(s)", "only the level 'A'"),
        ({"w": 0.0}, "varpower(w)", "varconstpower"),
        ({"w": 1.0}, "loglin(w)", "is constant"),
    ],
)
def test_columns_of_residuals(columns, residual, message):
    with pytest.raises(mm.DataError, match=message):
        mm.gls("y ~ x", DATA.assign(**columns), residual=residual)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (K, "must be a dict.*got ndarray"),
        ({}, "got an empty dict"),
        ({"g": K}, r"must be a pedigree, \(matrix, ids\)"),
        ({"g": "file.ped"}, "must be a pedigree"),
        ({"g": (K[:3, :3], IDS)}, "12 ids for a matrix of 3 rows"),
        ({"g": (K[:3, :3], IDS[:3])}, "9 levels of 'g' are not among the ids"),
        ({"q": (K, IDS)}, "'q' is not a grouping factor"),
        ({"g": (np.ones((2, 3)), [0, 1])}, "must be a square matrix"),
        ({"g": (-K, IDS)}, "not a covariance matrix"),
        ({"g": (K * np.nan, IDS)}, "missing or infinite"),
        ({"g": (K, [0] * GROUPS)}, "more than once: 0"),
        ({"g": (np.triu(np.ones((GROUPS, GROUPS))), IDS)}, "not symmetric"),
    ],
    ids=str,
)
def test_known(given, message):
    with pytest.raises(mm.MixedModelsError, match=message):
        mm.lmm("y ~ x + (1 | g)", DATA, known=given)


@pytest.mark.parametrize(
    ("term", "message"),
    [
        ("ar2(t | g)", "not a covariance structure"),
        ("ar1(t + u | g)", "takes one time"),
        ("ar1(1 | g)", "takes positions"),
        ("exp(1 | g)", "takes positions"),
        ("exp(s | g)", "not a position"),
        ("rr(0 + v | g, d=9)", "between 1 and the 5 columns"),
        ("rr(0 + v | g, d=0)", "between 1 and the 5 columns"),
        ("fa(0 + v | g, d=1.5)", "between 1 and the 5 columns"),
        ("rr(0 + v | g, rank=2)", "takes d, got rank"),
        ("ar1(t | g, rho=0.5)", "held by fixed="),
        ("cs(0 + v || g)", r"write cs\(... \| ...\)"),
        ("known(1 | g, B)", r"give known=\{'B': matrix\}"),
        ("us(t | )", "name the grouping factor"),
        ("equalto(0 + v | g)", "use propto"),
    ],
)
def test_terms(term, message):
    with pytest.raises(mm.MixedModelsError, match=message):
        mm.lmm(f"y ~ x + {term}", DATA)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fixed": {"sd": 1.0}}, r"no parameter 'sd'; available: sd_\(Intercept\)\|g"),
        ({"fixed": {"sd_(Intercept)|g": -1.0}}, "out of its range"),
        ({"fixed": {"sd_(Intercept)|g": "a"}}, "must be a finite number"),
        ({"fixed": 3}, "must map names to values"),
        ({"equal": ["sd_(Intercept)|g"]}, "lists of two or more names"),
        ({"equal": [["sd_(Intercept)|g", "sigma"]]}, "no parameter 'sigma'"),
        ({"start": [1.0, 2.0]}, "start has 2 values; theta has 1"),
        ({"start": [np.nan]}, "not finite"),
        ({"start": "minque9"}, "start must be one number for each entry of theta, or one of"),
        ({"residual": "ar1(t | g)", "start": [1.0]}, r"start has 1 values; theta has 2: .*atanh\(rho\)"),
        ({"residual": "ar1(t | g)", "method": "minque(0)"}, "is for independent residuals"),
        ({"residual": "ar1(t | g)", "method": "em"}, "has no em_step"),
        ({"residual": "ar1(t | g)", "sigma": -1}, "sigma must be a positive number"),
        ({"residual": "ar1(t | g)", "weights": "x"}, "negative value"),
        ({"residual": "ar1(t | g)", "solver": "fast"}, "unknown solver"),
        ({"priors": "wishrat"}, "takes one of wishart"),
        ({"priors": {"thet": "wishart"}}, "no parameter 'thet'"),
        ({"priors": {"sd_(Intercept)|g": ("gamma", -1, 0)}}, "shape = -1.0 is out of its range"),
        ({"priors": {"sd_(Intercept)|g": ("cauchyy", 1)}}, "takes one of gamma"),
        ({"priors": {"fixed": ("normal", 0, -1)}}, "sd = -1.0 is out of its range"),
    ],
    ids=str,
)
def test_options(options, message):
    with pytest.raises(mm.MixedModelsError, match=message):
        mm.lmm("y ~ x + (1 | g)", DATA, **options)


@pytest.mark.parametrize("matrix", ["V", np.ones((3, 2)), -np.eye(5), np.full((5, 5), np.nan)], ids=str)
def test_matrices_of_residuals(matrix):
    with pytest.raises(mm.OptionError, match=r"square|positive definite|finite|text cannot hold"):
        mm.residual.Known(matrix, occasion="t", group="g")


def test_a_known_matrix_of_all_rows_keeps_its_places_when_rows_are_left_out():
    """Row i of the matrix belongs to row i of the data, whichever rows are missing."""
    A = np.random.default_rng(3).normal(size=(N, N))
    V = A @ A.T / N + np.eye(N)
    data = DATA.assign(y=DATA.y.where(DATA.row % 7 != 2))
    keep = np.flatnonzero(data.y.notna())
    cut = mm.gls("y ~ x", data.iloc[keep], residual=known(V[np.ix_(keep, keep)]))
    assert mm.gls("y ~ x", data, residual=known(V)).loglik == pytest.approx(cut.loglik, rel=1e-12)
