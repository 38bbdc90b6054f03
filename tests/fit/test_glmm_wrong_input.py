"""Wrong input to glmm: each call gives one error that names the culprit and the remedy."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

import mixedmodels as mm

N = 60
RNG = np.random.default_rng(3)
DATA = pd.DataFrame(
    {
        "b": RNG.integers(0, 2, N),
        "k": RNG.poisson(2.0, N),
        "p": RNG.uniform(0, 1, N).round(3),
        "x": RNG.normal(size=N),
        "y": RNG.normal(size=N),
        "m": np.full(N, 9),
        "g": np.repeat(list("ABCDEFGHIJ"), 6),
        "row": np.arange(N),
        "three": np.tile(["lo", "mid", "hi"], N // 3),
        "yes": np.tile(["no", "yes"], N // 2),
        "one": np.ones(N),
        "nolev": "a",
    }
)
DATA["s"] = RNG.binomial(9, 0.4, N)
DATA["neg"] = DATA.k - 1
DATA["half"] = DATA.k + 0.5
DATA["over"] = DATA.m + np.where(DATA.row == 7, 1, 0)
DATA["mneg"] = np.where(DATA.row == 4, -1, DATA.m)
DATA["mhalf"] = np.where(DATA.row > 50, 8.5, DATA.m)
DATA["inf"] = np.where(DATA.row == 2, np.inf, DATA.x)
DATA["w"] = np.where(DATA.row == 5, -1.0, 1.0)


def glmm(formula="b ~ x + (1 | g)", data=DATA, family="binomial", **keywords):
    return lambda: mm.glmm(formula, data, family=family, **keywords)


MISTAKES = [
    (
        glmm("three ~ x + (1 | g)"),
        "the response 'three' has 3 levels (hi, lo, mid), not two; for ordered categories use fam",
    ),
    (
        glmm("t3 ~ x + (1|g)", DATA.assign(t3=np.tile(["1", "2", "3"], 20))),
        "the response 't3' has 3 levels (1, 2, 3), not two; these are numbers kept as text or cat",
    ),
    (
        glmm("p ~ x + (1 | g)"),
        "the response 'p' holds proportions in 60 rows (first in row 0); give the numbers of tria",
    ),
    (
        glmm("p ~ x + (1 | g)", weights="m"),
        "the response 'p' holds proportions in 60 rows (first in row 0); weights= repeat rows; nu",
    ),
    (
        glmm("s ~ x + (1 | g)"),
        "the response 's' is neither 0 nor 1 in 53 rows (first in row 0); counts of successes nee",
    ),
    (
        glmm("I(b + 1) ~ x + (1 | g)"),
        "the response 'I(b + 1)' holds 1 and 2; code failure as 0 and success as 1",
    ),
    (
        glmm("over ~ x + (1 | g)", trials="m"),
        "the response 'over' has more successes than trials in row 7; check both columns",
    ),
    (
        glmm("neg ~ x + (1 | g)", trials="m"),
        "the response 'neg' is negative in 4 rows (first in row 22); successes are counts or prop",
    ),
    (
        glmm("s ~ x + (1 | g)", trials="mneg"),
        "trials column 'mneg' is negative in row 4; a number of trials is a whole number of at le",
    ),
    (
        glmm("s ~ x + (1 | g)", trials="mhalf"),
        "trials column 'mhalf' is not a whole number in 9 rows (first in row 51); a number of tri",
    ),
    (
        glmm("half ~ x + (1 | g)", trials="m"),
        "the response 'half' is above 1 but not a whole number in 56 rows (first in row 0); give ",
    ),
    (
        glmm("p ~ x + (1 | g)", trials="m"),
        "proportion 'p' times trials column 'm' is not a whole number in 60 rows (first in row 0)",
    ),
    (
        glmm("s ~ x + (1 | g)", trials="size"),
        "the data have no column 'size'",
    ),
    (glmm("s ~ x + (1 | g)", trials=[1, 2]), "trials has shape (2,), but the data have 60 rows"),
    (glmm("s ~ x + (1 | g)", trials="g"), "trials column 'g' does not hold numbers"),
    (
        glmm("s ~ x + (1 | g)", trials=object()),
        "trials must be a column name, one number per row or a number, got object",
    ),
    (
        glmm("yes ~ x + (1 | g)", trials="m"),
        "trials= needs numbers of successes or proportions, but 'yes' holds categories",
    ),
    (
        glmm("k ~ x + (1 | g)", family="poisson", trials="m"),
        "trials= belongs to binomial families, not to poisson; for a rate of counts write offset(",
    ),
    (
        glmm("cbind(s, m - s) ~ x + (1 | g)", trials="m"),
        "cbind(s, m - s) already says the number of trials: leave out trials=",
    ),
    (
        glmm("cbind(s, m, k) ~ x + (1 | g)"),
        "the response 'cbind(s, m, k)' has 3 columns; write cbind(successes, failures)",
    ),
    (
        glmm("cbind(s, s - m) ~ x + (1 | g)"),
        "cbind(s, s - m) holds negative numbers in 60 rows (first in row 0); cbind(successes, fai",
    ),
    (
        glmm("cbind(s, half) ~ x + (1 | g)"),
        "cbind(s, half) holds numbers that are not whole in 60 rows (first in row 0); cbind(succe",
    ),
    (
        glmm("cbind(s, m) ~ x + (1 | g)", family="poisson"),
        "the response 'cbind(s, m)' has several columns, but family 'poisson' needs one; cbind(su",
    ),
    (glmm("one ~ x + (1 | g)"), "the response 'one' is constant (1): there is nothing to fit"),
    (glmm("m ~ x + (1 | g)", family="poisson"), "the response 'm' is constant (9): there is nothing to fit"),
    (
        glmm("m ~ x + (1 | g)", trials="m"),
        "the response 'm' is constant (all trials of all rows are successes): there is nothing to",
    ),
    (
        glmm("nolev ~ x + (1 | g)"),
        "the response 'nolev' is constant (a in every row): there is nothing to fit",
    ),
    (
        glmm("half ~ x + (1 | g)", family="poisson"),
        "the response 'half' is not a whole number in 60 rows (first in row 0); family 'poisson' ",
    ),
    (
        glmm("neg ~ x + (1 | g)", family="poisson"),
        "the response 'neg' is negative in 4 rows (first in row 22); family 'poisson' is for coun",
    ),
    (
        glmm("three ~ x + (1 | g)", family="poisson"),
        "the response 'three' holds categories (hi, lo, mid), but family 'poisson' needs numbers;",
    ),
    (
        glmm("yes ~ x + (1 | g)", family="gaussian"),
        "the response 'yes' holds categories (no, yes), but family 'gaussian' needs numbers; for ",
    ),
    (
        glmm("b ~ inf + (1 | g)"),
        "column 'inf' has 1 infinite value; replace them by missing values or remove the rows",
    ),
    (glmm(weights="w"), "weights has a negative value (-1 in row 5); weights must be at least 0"),
    (glmm(weights=[1, 2]), "weights has shape (2,), but the data have 60 rows"),
    (glmm(weights="g"), "weights column 'g' does not hold numbers"),
    (
        glmm(offset="q"),
        "the data have no column 'q'",
    ),
    (glmm(family="binomal"), "there is no family 'binomal'; did you mean 'binomial'?"),
    (glmm(family=3), 'family must be a name such as "binomial", or a Family, got int'),
    (
        glmm(family="quasipoisson"),
        "'quasipoisson' is a quasi-likelihood without a log-likelihood; use family=\"nbinom1\" (var",
    ),
    (
        glmm(family="quasibinomial"),
        "'quasibinomial' is a quasi-likelihood without a log-likelihood; use family=\"betabinomial",
    ),
    (glmm(family=["binomial"]), 'family must be a name such as "binomial", or a Family, got list'),
    (glmm(link="log10"), "family 'binomial' has no link 'log10'"),
    (glmm(link=2), 'link must be a name such as "log", got 2'),
    (glmm("k ~ x + (1 | g)", family="poisson", link="logit"), "family 'poisson' has no link 'logit'"),
    (glmm(nagq=-1), "nagq must lie between 0 and 100, got -1"),
    (glmm(nagq=2.5), "nagq must be a whole number of quadrature points, got 2.5"),
    (glmm(nagq=True), "nagq must be a whole number of quadrature points, got True"),
    (glmm(nagq=1000), "nagq must lie between 0 and 100, got 1000"),
    (glmm(information="fisher"), "information must be 'observed' or 'expected', got 'fisher'"),
    (glmm(na_action="drop"), "na_action must be 'omit', 'exclude' or 'fail', got 'drop'"),
    (glmm(solver="fast"), "solver must be 'auto', 'grouped', 'blocked', 'sparse' or 'dense', got 'fast'"),
    (glmm(start="a"), "start must be a dict from names to numbers, or one number per parameter, got 'a'"),
    (glmm(start={"x": "a"}), "start must map names of parameters to numbers, got 'x': 'a'"),
    (glmm(start=[np.nan]), "start holds values that are not finite"),
    (glmm(fixed=[1]), 'fixed must be a dict such as {"disp_(Intercept)": 0.0}, got [1]'),
    (glmm(fixed={"x": None}), "fixed must map names of parameters to numbers, got 'x': None"),
    (glmm(equal="x"), 'equal must be a list of lists of names such as [["x", "z"]], got \'x\''),
    (glmm(equal=[["x"]]), 'equal must be a list of lists of names such as [["x", "z"]], got [[\'x\']]'),
    (
        glmm(priors=3),
        'priors must be a dict from parameters to priors, such as {"x": ("normal", 0, 2.5)}, got ',
    ),
    (glmm(control={"maxit": 3}), "control has no option 'maxit'"),
    (glmm(control=5), "control must be a Control or a dict of its options, got 5"),
    (
        glmm(functions=[np.log]),
        'functions must be a dict from names to functions, such as {"f": f}, got list',
    ),
    (
        glmm(contrasts={"q": "sum"}),
        "contrasts were given for 'q', which is not a factor of the formula (factors: none)",
    ),
    (
        glmm(contrasts="sum"),
        'contrasts must be a dict from factors to contrasts, such as {"x": "sum"}, got \'sum\'',
    ),
    (
        glmm(dispersion="~ x"),
        "family 'binomial' has no dispersion that dispersion='~x' could model; for over-dispersio",
    ),
    (
        glmm("k ~ x + (1 | g)", family="poisson", dispersion="~ x"),
        "family 'poisson' has no dispersion that dispersion='~x' could model; for over-dispersion",
    ),
    (
        glmm("y ~ x + (1 | g)", family="gaussian", dispersion="~ 0"),
        "dispersion='~ 0' would be a dispersion predictor of 0; to hold it at a value write fixed",
    ),
    (
        glmm("y ~ x + (1 | g)", family="gaussian", dispersion="x"),
        "dispersion='x' is not a formula; write '~ x'",
    ),
    (
        glmm("y ~ x + (1 | g)", family="gaussian", dispersion="y ~ x"),
        "dispersion='y ~ x' has a response; write the right-hand side alone: '~ x'",
    ),
    (
        glmm("y ~ x + (1 | g)", family="gaussian", dispersion="~ ."),
        "dispersion='~.' holds '.'; name the columns",
    ),
    (
        glmm("y ~ x + (1 | g)", family="gaussian", dispersion="~ q"),
        "the data have no column 'q'",
    ),
    (
        glmm("y ~ x + (1 | g)", family="gaussian", dispersion=3),
        "dispersion must be a formula such as '~ x', got 3",
    ),
    (
        glmm("y ~ x + (1 | g)", family="gaussian", dispersion="~ (1 | nolev)"),
        "grouping factor 'nolev' has a single level (a): its variance cannot be estimated; leave ",
    ),
    (
        glmm("k ~ x + (1 | g)", family="poisson", zero_inflation="x"),
        "zero_inflation='x' is not a formula; write '~ x'",
    ),
    (
        glmm("k ~ x + (1 | g)", family="poisson", zero_inflation=1.5),
        "zero_inflation must be a formula such as '~ x', got 1.5",
    ),
    (
        glmm("y ~ x + (1 | row)", family="gaussian"),
        "random term (1 | row): grouping factor 'row' has one observation per level (60), so its ",
    ),
    (
        glmm("b ~ x"),
        "the formula 'b ~ x' has no random-effects term such as (1 | group); without one it is an",
    ),
    (glmm("~ x + (1 | g)"), "the formula has no response; write 'response ~ ...'"),
    (glmm(3), "formula must be a text or a Formula, got int"),
    (glmm(data=None), "no data were given; pass a data frame or a dict of arrays"),
    (glmm(data=DATA[:0]), "the data have no rows"),
    (
        glmm("b ~ q + (1 | g)"),
        "the data have no column 'q'",
    ),
    (glmm(share=[["g", "h"]]), "the model has no random term 'h'; it has (1 | g)"),
    (
        glmm("b ~ x + (1 | nolev)"),
        "grouping factor 'nolev' has a single level (a): its variance cannot be estimated; leave ",
    ),
    (glmm(data=DATA.assign(x=np.nan)), "no row without missing values is left of 60 (missing: x: 60)"),
    (glmm(trials=0), "all 60 rows have 0 trials"),
    (
        glmm(data=DATA.assign(x=np.where(DATA.row == 1, np.nan, DATA.x)), na_action="fail"),
        'the data have missing values (x: 1); remove them or use na_action="omit"',
    ),
    (lambda: mm.glmm(DATA, "b ~ x + (1 | g)"), "got DataFrame; the formula comes first, then the data"),
]


@pytest.mark.parametrize(("call", "message"), MISTAKES)
def test_one_clear_error(call, message):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(mm.MixedModelsError) as caught:
            call()
    text = str(caught.value)
    assert message in text
    assert "\n" not in text.strip()
