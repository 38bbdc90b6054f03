"""Wrong input to the questions of a fit: each gives one error that names the culprit and what to write."""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import mixedmodels as mm

SLEEP = mm.load_dataset("sleepstudy", backend="pandas")
RNG = np.random.default_rng(1)
DATA = pd.DataFrame(
    {
        "y": RNG.normal(size=72) + np.repeat(RNG.normal(size=9), 8),
        "x": RNG.normal(size=72),
        "f": np.tile(list("abc"), 24),
        "g": np.repeat(list("ABCDEFGHI"), 8),
    }
)
DATA["x2"] = 2.0 * DATA.x


@pytest.fixture(scope="module")
def m():
    """Fits of several kinds and what comes out of them."""
    fit = mm.lmm("y ~ x + f + (x | g)", DATA)
    return SimpleNamespace(
        fit=fit,
        ml=fit.update(reml=False),
        rank=mm.lmm("y ~ x + x2 + f + (1 | g)", DATA),
        sleep=mm.lmm("Reaction ~ Days + (Days | Subject)", SLEEP),
        draws=fit.bootstrap(20, 1),
        means=fit.emmeans("f"),
        profile=fit.profile("sigma"),
    )


MISTAKES = [
    (lambda m: m.fit.anova(4), 'anova type 4 is unknown; available: 1 or "sequential", 2, 3'),
    (lambda m: m.fit.anova(ddf="satterthwait"), "ddf='satterthwait' is unknown; available: satterthwaite,"),
    (lambda m: m.fit.anova(ddf=-1), "ddf=-1: degrees of freedom must be positive"),
    (lambda m: m.fit.anova(ddf=[3]), "ddf=[3] is unknown; available: satterthwaite, kenward-roger,"),
    (lambda m: m.fit.anova(ddf=True), "ddf=True is unknown; available: satterthwaite, kenward-roger,"),
    (lambda m: m.ml.coefficients("kr"), "Kenward-Roger needs a fit by REML, this one is by maximum"),
    (lambda m: m.fit.coefficients(level=95), "level must lie between 0 and 1 (for instance 0.95), got 95"),
    (lambda m: m.fit.coefficients(level=0), "level must lie between 0 and 1 (for instance 0.95), got 0"),
    (lambda m: m.fit.coefficients(level="a"), "level must lie between 0 and 1 (for instance 0.95), got 'a'"),
    (
        lambda m: m.fit.coefficients(level=None),
        "level must lie between 0 and 1 (for instance 0.95), got None",
    ),
    (lambda m: m.fit.coefficients(ddf=0), "ddf=0: degrees of freedom must be positive"),
    (lambda m: m.fit.test("z = 0"), "'z' in the hypothesis 'z = 0' is not a coefficient of the"),
    (lambda m: m.fit.test(""), "the hypothesis '' cannot be read at position 1: a coefficient"),
    (lambda m: m.fit.test([]), "a contrast needs 4 numbers, one per fixed effect"),
    (lambda m: m.fit.test({}), "the contrast '0' is zero in all coefficients: nothing to test"),
    (lambda m: m.fit.test({"q": 1}), "'q' is not a coefficient of the model; these are (Intercept),"),
    (lambda m: m.fit.test({"x": "a"}), "the weight of 'x' must be a number, got 'a'"),
    (lambda m: m.fit.test([[1, 2]]), "a contrast needs 4 numbers, one per fixed effect"),
    (lambda m: m.fit.test([[0, 0, 0, 0]]), "the contrast '0' is zero in all coefficients: nothing to test"),
    (lambda m: m.fit.test(np.eye(4), rhs=[1, 2]), "rhs has 2 values for 4 hypotheses, all must be finite"),
    (lambda m: m.fit.test(np.eye(4), rhs="a"), "rhs holds a number for each hypothesis, not 'a'"),
    (lambda m: m.fit.test(np.zeros((2, 3, 4))), "a contrast needs 4 numbers, one per fixed effect"),
    (lambda m: m.fit.test(None), "a contrast needs 4 numbers, one per fixed effect"),
    (lambda m: m.fit.test("x = = 1"), "the hypothesis 'x = = 1' cannot be read at position 5: a"),
    (lambda m: m.fit.test("x ~ 1"), "the hypothesis 'x ~ 1' cannot be read at position 3:"),
    (
        lambda m: m.fit.test([[1, 0, 0, 0], [1, 0, 0, 0]], rhs=[0, 1]),
        "the hypotheses contradict each other: rows of L that depend",
    ),
    (lambda m: m.rank.test({"x2": 1}), "'x2' cannot be estimated from these data: x2 depends on other"),
    (lambda m: m.rank.test("x2 = 0"), "'x2 = 0' cannot be estimated from these data: x2 depends on"),
    (lambda m: m.fit.drop1("q"), "the fixed part has no term 'q'; its terms are x, f"),
    (lambda m: m.fit.drop1(3), "scope must be a term or a list of terms (x, f), got 3"),
    (lambda m: m.fit.drop1([]), "scope must be a term or a list of terms (x, f), got []"),
    (lambda m: m.fit.drop1(["f", 3]), "a term is a text such as 'x' or 'x:f', got 3"),
    (lambda m: m.fit.drop1(test="chi"), "test must be 'f', 'lrt' or 'none', got 'chi'"),
    (lambda m: m.fit.drop1(ddf="abc"), "ddf='abc' is unknown; available: satterthwaite,"),
    (lambda m: m.fit.test_fixed("q"), "the fixed part has no term 'q'; its terms are x, f, its"),
    (lambda m: m.fit.test_fixed(3), "a term is a text such as 'x' or 'x:f', got 3"),
    (lambda m: m.fit.test_fixed([]), "test_fixed needs the name of a term"),
    (lambda m: m.fit.test_fixed(None), "a term is a text such as 'x' or 'x:f', got None"),
    (lambda m: m.fit.test_fixed("g"), "the fixed part has no term 'g'; its terms are x, f, its"),
    (lambda m: m.fit.test_fixed("f", "anova"), "method 'anova' is unknown; available: wald, lrt, bootstrap"),
    (lambda m: m.fit.test_fixed("f", n=3), "this method has no option 'n'; it takes ddf"),
    (
        lambda m: m.fit.test_fixed("f", "bootstrap", n=0),
        "n must be a whole number of draws, at least 1, got 0",
    ),
    (
        lambda m: m.fit.test_fixed("f", "bootstrap", n=5, seed="a"),
        "seed must be None, a whole number >= 0 or a numpy Generator,",
    ),
    (
        lambda m: m.fit.test_fixed("f", "bootstrap", n=5, n_jobs=0),
        "n_jobs must be a number of workers >= 1, or -1 or None for",
    ),
    (
        lambda m: m.fit.test_fixed("f", "bootstrap", n=5, n_jobs="a"),
        "n_jobs must be a number of workers >= 1, or -1 or None for",
    ),
    (lambda m: m.rank.test_fixed("x2"), "x2: its columns depend on the other terms, so leaving it out"),
    (lambda m: m.fit.test_random("q"), "the model has no random term 'q'; it has (Intercept) in (x |"),
    (lambda m: m.fit.test_random(3), "term must be a text such as '(1 | g)' or the name of a group,"),
    (lambda m: m.fit.test_random("(1 | h)"), "the model has no random term '(1 | h)'; it has (Intercept) in"),
    (lambda m: m.fit.test_random(["g"]), "term must be a text such as '(1 | g)' or the name of a group,"),
    (lambda m: m.fit.test_random("x in (x | h)"), "the model has no random term 'x in (x | h)'; it has"),
    (lambda m: m.fit.test_random("q in (x | g)"), "the model has no random term 'q in (x | g)'; it has"),
    (lambda m: m.fit.test_random(method="f"), "method 'f' is unknown; available: lrt, mixture, rlrt,"),
    (lambda m: m.fit.test_random(method="rlrt"), "x in (x | g), (x | g): more than one parameter goes, and"),
    (
        lambda m: m.fit.test_random("g", method="bootstrap", n=-1),
        "n must be a whole number of draws, at least 1, got -1",
    ),
    (lambda m: m.fit.lod("q"), "the fixed part has no term 'q'; its terms are x, f, its"),
    (lambda m: m.fit.lod(None), "a term is a text such as 'x' or 'x:f', got None"),
    (lambda m: m.fit.confint("bayes"), "confint method 'bayes' is unknown; available: wald,"),
    (lambda m: m.fit.confint(None), "confint method None is unknown; available: wald,"),
    (lambda m: m.fit.confint(level=95), "level must lie between 0 and 1 (for instance 0.95), got 95"),
    (
        lambda m: m.fit.confint(level=[0.9, 0.95]),
        "level must lie between 0 and 1 (for instance 0.95), got [0.9,",
    ),
    (lambda m: m.fit.confint(parameters="q"), "there is no parameter 'q' to ask for here; available:"),
    (lambda m: m.fit.confint(parameters=[]), "parameters is an empty list; leave it out for all parameters"),
    (lambda m: m.fit.confint(parameters=3), "parameters must be a name or a list of names, got 3"),
    (lambda m: m.fit.confint(parameters=["x", 3]), "parameters must be names, got 3"),
    (lambda m: m.fit.confint("wald", n=3), "confint(method='wald') has no option 'n'; it takes none"),
    (
        lambda m: m.fit.confint("wald", parameters="spread"),
        "there is no parameter 'spread' to ask for here; available:",
    ),
    (lambda m: m.fit.confint("profile", n=3), "confint(method='profile') has no option 'n'; it takes"),
    (lambda m: m.fit.confint("profile", criterion="q"), "criterion 'q' is unknown; available: ml, reml"),
    (
        lambda m: m.fit.confint("profile", level=95),
        "level must lie between 0 and 1 (for instance 0.95), got 95",
    ),
    (
        lambda m: m.fit.confint("profile", parameters="sd_x|h"),
        "there is no parameter 'sd_x|h' to ask for here; available:",
    ),
    (
        lambda m: m.fit.confint("bootstrap", n=20, kind="bca2"),
        "interval kind 'bca2' is unknown; available: normal, basic,",
    ),
    (lambda m: m.fit.confint("bootstrap", n=0), "n must be a positive whole number of replicates, got 0"),
    (
        lambda m: m.fit.confint("bootstrap", n=20, kind=None),
        "interval kind None is unknown; available: normal, basic,",
    ),
    (
        lambda m: m.fit.confint("bootstrap", n=20, kind=["basic", "q"]),
        "interval kind ['basic', 'q'] is unknown; available: normal,",
    ),
    (lambda m: m.ml.confint("kr"), "Kenward-Roger needs a fit by REML, this one is by maximum"),
    (lambda m: m.fit.profile("q"), "there is no parameter 'q' to ask for here; available:"),
    (lambda m: m.fit.profile([]), "parameters is an empty list; leave it out for all parameters"),
    (lambda m: m.fit.profile(3), "parameters must be a name or a list of names, got 3"),
    (
        lambda m: m.fit.profile("sigma", level=95),
        "level must lie between 0 and 1 (for instance 0.95), got 95",
    ),
    (lambda m: m.fit.profile("sigma", points=0), "points must be a whole number of at least 2, got 0"),
    (lambda m: m.fit.profile("sigma", threshold=-1), "threshold must be a positive number, got -1"),
    (lambda m: m.fit.profile("sigma", threshold="a"), "threshold must be a positive number, got 'a'"),
    (lambda m: m.fit.bootstrap(0), "n must be a positive whole number of replicates, got 0"),
    (lambda m: m.fit.bootstrap("a"), "n must be a positive whole number of replicates, got 'a'"),
    (lambda m: m.fit.bootstrap(None), "n must be a positive whole number of replicates, got None"),
    (lambda m: m.fit.bootstrap(5, "a"), "seed must be None, a whole number >= 0 or a numpy Generator,"),
    (lambda m: m.fit.bootstrap(5, kind="q"), "bootstrap kind 'q' is unknown; available: parametric,"),
    (lambda m: m.fit.bootstrap(5, kind=None), "bootstrap kind None is unknown; available: parametric,"),
    (lambda m: m.fit.bootstrap(5, statistic=3), "statistic must be a function, got int"),
    (
        lambda m: m.fit.bootstrap(5, statistic=lambda r: "a"),
        "statistic must return a number, an array or a dict of",
    ),
    (lambda m: m.fit.bootstrap(5, simulator=3), "simulator must be a function, got int"),
    (
        lambda m: m.fit.bootstrap(5, simulator=lambda r, g: np.zeros(3)),
        "the simulator returned shape (3,); a response has 72 values",
    ),
    (
        lambda m: m.fit.bootstrap(5, kind="cluster", groups="q"),
        "groups='q' is not a grouping factor of the model (g)",
    ),
    (
        lambda m: m.fit.bootstrap(5, groups="g"),
        "groups='g' belongs to kind='cluster', not to kind='parametric'",
    ),
    (
        lambda m: m.fit.bootstrap(5, kind="cluster", groups=3),
        "groups=3 is not a grouping factor of the model (g)",
    ),
    (lambda m: m.fit.bootstrap(5, n_jobs=0), "n_jobs must be a number of workers >= 1, or -1 or None for"),
    (lambda m: m.fit.bootstrap(5, n_jobs=1.5), "n_jobs must be a number of workers >= 1, or -1 or None for"),
    (lambda m: m.fit.bootstrap(5, resume=3), "path must be a text or a path, got int"),
    (
        lambda m: m.sleep.bootstrap(5, resume=m.draws),
        "the run to resume had another fit; give the same one, or",
    ),
    (lambda m: m.draws.confint(level=95), "level must lie between 0 and 1"),
    (lambda m: m.draws.confint(kind="q"), "interval kind 'q' is unknown; available: normal, basic,"),
    (lambda m: m.draws.confint(parameters="q"), "there is no parameter 'q' to ask for here; available:"),
    (lambda m: m.draws.hdi(level=95), "level must lie between 0 and 1"),
    (lambda m: m.draws.hdi(parameters="q"), "there is no parameter 'q' to ask for here; available:"),
    (lambda m: m.draws.save(None), "path must be a text or a path, got NoneType"),
    (lambda m: m.fit.predict(3), "data of type 'int' cannot be read; give a data frame (pandas,"),
    (lambda m: m.fit.predict("a"), "data of type 'str' cannot be read; give a data frame (pandas,"),
    (lambda m: m.fit.predict([1, 2]), "data of type 'list' cannot be read; give a data frame"),
    (lambda m: m.fit.predict(DATA[["x"]]), "the data have no column 'f' (columns: x)"),
    (lambda m: m.fit.predict(SLEEP), "the data have no column 'x' (columns: Reaction, Days, Subject)"),
    (
        lambda m: m.fit.predict(DATA.assign(f="z")),
        "factor 'f' has the new level 'z' in the new data; its effect",
    ),
    (
        lambda m: m.fit.predict(DATA.assign(g="z")),
        "grouping factor 'g' has new levels in the new data: z; use",
    ),
    (
        lambda m: m.fit.predict(DATA.assign(x="z")),
        "'x' was numeric in the fit but holds labels in the new data",
    ),
    (
        lambda m: m.fit.predict({"x": [1, 2], "f": ["a"], "g": ["A", "B"]}),
        "columns 'x' and 'f' have 2 and 1 rows; all need the same",
    ),
    (lambda m: m.fit.predict({}), "the data have no columns"),
    (lambda m: m.fit.predict(interval="conf"), "interval must be None, 'confidence' or 'prediction', got"),
    (lambda m: m.fit.predict(interval=True), "interval must be None, 'confidence' or 'prediction', got True"),
    (
        lambda m: m.fit.predict(interval="confidence", level=95),
        "level must lie between 0 and 1 (for instance 0.95), got 95",
    ),
    (lambda m: m.fit.predict(type="probs"), "type must be 'response' or 'link', got 'probs'"),
    (
        lambda m: m.fit.predict(re_form="~ (1 | h)"),
        "re_form: the model has no random effects on 'h'; its groups",
    ),
    (lambda m: m.fit.predict(re_form=["h"]), "re_form='h' is not a grouping factor of the model (g); write"),
    (lambda m: m.fit.predict(re_form=3), "re_form must be None (all random effects), 'population'"),
    (lambda m: m.fit.predict(re_form="q"), "re_form='q' is not a grouping factor of the model (g); write"),
    (
        lambda m: m.fit.predict(new_levels="q"),
        "new_levels must be one of error, population, missing, got 'q'",
    ),
    (
        lambda m: m.fit.predict(interval="confidence", ddf="kr"),
        "ddf='kr' is for confidence intervals at the population level",
    ),
    (
        lambda m: m.ml.predict(interval="confidence", ddf="kr", re_form="population"),
        "Kenward-Roger needs a fit by REML, this one is by maximum",
    ),
    (
        lambda m: m.fit.predict(interval="prediction", ddf="satterthwaite"),
        "ddf='satterthwaite' is for confidence intervals at the",
    ),
    (
        lambda m: m.fit.predict(interval="confidence", ddf="q"),
        "ddf='q' is for confidence intervals at the population level",
    ),
    (
        lambda m: m.fit.predict(interval="prediction", weights="q"),
        "weights names a column; give newdata as well",
    ),
    (
        lambda m: m.fit.predict(interval="prediction", weights=-1),
        "weights must be positive and finite: Var(e_i)",
    ),
    (
        lambda m: m.fit.predict(interval="prediction", weights=[1, 2]),
        "weights has shape (2,); the rows are 72",
    ),
    (
        lambda m: m.fit.predict(interval="prediction", method="q"),
        "method must be 'analytic' or 'simulation', got 'q'",
    ),
    (
        lambda m: m.fit.predict(interval="prediction", method="simulation", n=0),
        "n must be a positive whole number, got 0",
    ),
    (
        lambda m: m.fit.predict(interval="prediction", method="simulation", seed="a"),
        "seed must be None, a whole number >= 0 or a numpy Generator,",
    ),
    (
        lambda m: m.fit.predict(interval="prediction", method="simulation", parameters=3),
        "parameters must be a Bootstrap of this fit",
    ),
    (
        lambda m: m.fit.predict(
            interval="prediction", method="simulation", parameters=m.sleep.bootstrap(5, 1)
        ),
        "parameters is a Bootstrap of another fit (Reaction ~ Days +",
    ),
    (
        lambda m: m.fit.predict(interval="prediction", parameters=m.draws),
        "parameters (a Bootstrap) is used by method='simulation' only",
    ),
    (lambda m: m.fit.predict(DATA, offset=[1, 2]), "offset has shape (2,), but the data have 72 rows"),
    (lambda m: m.fit.predict(DATA, offset="q"), "the data have no column 'q' (columns: y, x, f, g, x2)"),
    (lambda m: m.fit.simulate(0), "n must be a positive whole number, got 0"),
    (
        lambda m: m.fit.simulate(2, newdata=SLEEP),
        "the data have no column 'x' (columns: Reaction, Days, Subject)",
    ),
    (
        lambda m: m.fit.simulate(2, re_form="q"),
        "re_form='q' is not a grouping factor of the model (g); write",
    ),
    (lambda m: mm.power(m.fit, "q", n=5), "test='q' is not among the coefficients ((Intercept), x, fb, fc)"),
    (lambda m: mm.power(m.fit, 3, n=5), "test=3 is not among the coefficients ((Intercept), x, fb, fc) and"),
    (
        lambda m: mm.power(m.fit, None, n=5),
        "test=None is not among the coefficients ((Intercept)",
    ),
    (lambda m: mm.power(m.fit, "x", n=0), "n must be a positive whole number of data sets, got 0"),
    (lambda m: mm.power(m.fit, "x", n=5, method="q"), "method 'q' is unknown; available: satterthwaite, kr,"),
    (
        lambda m: mm.power(m.ml, "x", n=5, method="kr"),
        "Kenward-Roger needs a fit by REML, this one is by maximum",
    ),
    (
        lambda m: mm.power(m.fit, "x", n=5, effect={"q": 1}),
        "effect: no coefficient 'q'; there are (Intercept), x, fb, fc",
    ),
    (lambda m: mm.power(m.fit, "x", n=5, effect={"x": "a"}), "effect['x'] must be a finite number, got 'a'"),
    (lambda m: mm.power(m.fit, "x", n=5, effect=3), "effect must be a dict from names to numbers, got int"),
    (
        lambda m: mm.power(m.fit, "x", n=5, extend={"h": 3}),
        "extend: no grouping factor 'h'; there are g and 'rows'",
    ),
    (lambda m: mm.power(m.fit, "x", n=5, extend={"g": 0}), "extend['g'] must be a whole number >= 1, got 0"),
    (
        lambda m: mm.power(m.fit, "x", n=5, extend={"g": 2.5}),
        "extend['g'] must be a whole number >= 1, got 2.5",
    ),
    (lambda m: mm.power(m.fit, "x", n=5, extend={"g": []}), "extend['g'] is empty"),
    (
        lambda m: mm.power(m.fit, "x", n=5, level=95),
        "level must lie between 0 and 1",
    ),
    (
        lambda m: mm.power(m.fit, lambda r: "a", n=5),
        "test must return a p-value, one number; it returned str",
    ),
    (
        lambda m: mm.power(m.fit, lambda r: 2.0, n=5),
        "test must return a p-value between 0 and 1; it returned 2",
    ),
    (lambda m: mm.power(3, "x", n=5), "power() takes a fit first, got int"),
    (lambda m: m.fit.emmeans("q"), "specs: 'q' is not a predictor of the model; the predictors"),
    (lambda m: m.fit.emmeans(3), 'specs must be a text such as "A", "A | B" or "pairwise ~ A",'),
    (lambda m: m.fit.emmeans(None), 'specs must be a text such as "A", "A | B" or "pairwise ~ A",'),
    (lambda m: m.fit.emmeans("g"), "specs: 'g' is a grouping factor of the random effects, not a"),
    (lambda m: m.fit.emmeans("f", by="q"), "specs: 'q' is not a predictor of the model; the predictors"),
    (lambda m: m.fit.emmeans("f", by=3), "by must be the name of a variable or a list of names, got 3"),
    (
        lambda m: m.fit.emmeans("f", at={"q": 1}),
        "at: 'q' is not a predictor of the model; the predictors are",
    ),
    (lambda m: m.fit.emmeans("f", at={"x": "a"}), "at: 'x' is numeric; 'a' is not a list of numbers"),
    (lambda m: m.fit.emmeans("f", at={"f": ["z"]}), "at: 'z' is not a level of 'f'; the levels are a, b, c"),
    (lambda m: m.fit.emmeans("f", at={"x": []}), "at: 'x' needs finite numbers, got []"),
    (lambda m: m.fit.emmeans("f", at=3), "at must be a dict of values by variable, such as {'x': [0,"),
    (lambda m: m.fit.emmeans("f", ddf="q"), "ddf='q' is unknown; available: satterthwaite, kenward-roger,"),
    (lambda m: m.ml.emmeans("f", ddf="kr"), "Kenward-Roger needs a fit by REML, this one is by maximum"),
    (lambda m: m.fit.emmeans("f", level=95), "level must lie between 0 and 1 (for instance 0.95), got 95"),
    (lambda m: m.fit.emmeans("f", adjust="q"), "adjust='q' is unknown; available: none, tukey, sidak,"),
    (lambda m: m.fit.emmeans("f", type="q"), "type must be 'link' or 'response', got 'q'"),
    (lambda m: m.fit.emmeans("f", weights="q"), "weights='q' is unknown; available: equal, proportional,"),
    (
        lambda m: m.fit.emmeans("f", weights=[1, 2]),
        "weights needs 1 numbers >= 0, one for each combination of x;",
    ),
    (lambda m: m.fit.emmeans("f", cov_reduce="q"), "cov_reduce must be a function of the values, False (all"),
    (lambda m: m.fit.emmeans("f", offset="a"), "offset must be a finite number, got 'a'"),
    (
        lambda m: m.fit.emmeans("f", nesting="q"),
        "nesting must be a dict such as {'A': 'B'} or False, got 'q'",
    ),
    (
        lambda m: m.fit.emmeans("f", nesting={"q": "f"}),
        "nesting: 'q' is not a predictor of the model; the predictors",
    ),
    (lambda m: m.fit.emmeans("f", data=3), "data of type 'int' cannot be read; give a data frame (pandas,"),
    (
        lambda m: m.fit.emmeans("f", data=SLEEP),
        "the data have no column 'x' (columns: Reaction, Days, Subject)",
    ),
    (lambda m: m.fit.emmeans("pairwise ~ q"), "specs: 'q' is not a predictor of the model; the predictors"),
    (lambda m: m.fit.emmeans("q ~ f"), "contrast method 'q' is unknown (available: pairwise,"),
    (lambda m: m.fit.emtrends("f", "q"), "var: 'q' is not a predictor of the model; the predictors are"),
    (lambda m: m.fit.emtrends("f", "f"), "var: 'f' is a factor and has no slope; contrast its means"),
    (lambda m: m.fit.emtrends("f", 3), "var must be the name of a numeric variable, got 3"),
    (lambda m: m.fit.emtrends("q", "x"), "specs: 'q' is not a predictor of the model; the predictors"),
    (lambda m: m.fit.contrast("f", "q"), "contrast method 'q' is unknown (available: pairwise,"),
    (lambda m: m.fit.contrast("f", {}), "the contrasts asked for ({}) are none; name one or leave the"),
    (
        lambda m: m.fit.contrast("f", {"a": [1, 2]}),
        "contrast 'a' needs 3 numbers, one for each of a, b, c; got",
    ),
    (
        lambda m: m.fit.contrast("f", {"a": ["a", 0, 1]}),
        "contrast 'a' needs 3 numbers, one for each of a, b, c; got",
    ),
    (lambda m: m.fit.contrast("f", [[1, -1]]), "contrast 'c1' needs 3 numbers, one for each of a, b, c; got"),
    (lambda m: m.fit.contrast("f", adjust="q"), "adjust='q' is unknown; available: none, tukey, sidak,"),
    (lambda m: m.fit.contrast("f", level=95), "level must lie between 0 and 1 (for instance 0.95), got 95"),
    (lambda m: m.fit.contrast("f", by="q"), "by: 'q' is not a column of these means; they have f"),
    (lambda m: m.fit.contrast("f", "dunnett", ref="z"), "ref='z' is not one of the means: a, b, c"),
    (
        lambda m: m.fit.contrast("f", "dunnett", ref=7),
        "ref must be a label or a position between 0 and 2, got 7",
    ),
    (
        lambda m: m.fit.contrast("f", "poly", max_degree=0),
        "the contrasts asked for ('poly') are none; name one or leave",
    ),
    (
        lambda m: m.fit.contrast("f", "poly", scores=[1, 2]),
        "scores must be 3 different numbers, one per level, got [1, 2]",
    ),
    (lambda m: m.fit.contrast("f", simple="q"), "simple: 'q' is not a column of these means; they have f"),
    (lambda m: m.fit.contrast("f", interaction="q"), "contrast method 'q' is unknown (available: pairwise,"),
    (lambda m: m.means.contrast("q"), "contrast method 'q' is unknown (available: pairwise,"),
    (lambda m: m.means.cld(adjust="q"), "adjust='q' is unknown; available: none, tukey, sidak,"),
    (lambda m: m.means.test(null="a"), "null must be a finite number, got 'a'"),
    (lambda m: m.fit.joint_tests("q"), "by: 'q' is not a predictor of the model; the predictors are"),
    (lambda m: m.fit.joint_tests(3), "by must be the name of a variable or a list of names, got 3"),
    (lambda m: m.fit.joint_tests(ddf="q"), "ddf='q' is unknown; available: satterthwaite, kenward-roger,"),
    (lambda m: mm.compare(m.fit), "compare() needs two or more fits"),
    (lambda m: mm.compare(), "compare() needs two or more fits"),
    (lambda m: mm.compare(m.fit, m.sleep), "the models were fitted to different rows (72, 180"),
    (
        lambda m: mm.compare(m.fit, m.ml, method="q"),
        "method 'q' is unknown; available: chi2, mixture, bootstrap",
    ),
    (lambda m: mm.compare(m.fit, m.ml, refit="q"), "refit must be 'auto', True or False, got 'q'"),
    (
        lambda m: mm.compare(m.fit, m.ml, refit=False),
        "these REML fits cannot be compared because REML and ML fits",
    ),
    (lambda m: mm.compare([m.fit, m.ml]), "compare() needs two or more fits; write compare(*fits) for a"),
    (lambda m: mm.compare(m.fit, None), "compare() takes fits, got NoneType"),
    (lambda m: mm.compare(m.fit, "y ~ x"), "compare() takes fits, got str"),
    (
        lambda m: mm.compare(m.fit, m.ml, method="bootstrap", n=0),
        "n must be a whole number of draws, at least 1, got 0",
    ),
    (lambda m: m.fit.influence("q"), "group='q' is neither a grouping factor of the model (g) nor a"),
    (lambda m: m.fit.influence(3), "group must be a grouping factor, a column of the data or an"),
    (lambda m: m.fit.influence([]), "group is an empty list; name grouping factors or columns of"),
    (lambda m: m.fit.influence([1, 2, 3]), "group has 3 values; it needs 72, one per row"),
    (lambda m: m.fit.influence(["g", "q"]), "group='q' is neither a grouping factor of the model (g) nor a"),
    (lambda m: m.fit.cooks_distance("q"), "group='q' is neither a grouping factor of the model (g) nor a"),
    (lambda m: m.fit.simulated_residuals(0), "n must be a whole number of at least 20 simulations, got 0"),
    (
        lambda m: m.fit.simulated_residuals("a"),
        "n must be a whole number of at least 20 simulations, got 'a'",
    ),
    (
        lambda m: m.fit.simulated_residuals(5, "a"),
        "seed must be None, a whole number >= 0 or a numpy Generator,",
    ),
    (
        lambda m: m.fit.simulated_residuals(5, 1, simulations=np.zeros((3, 3))),
        "simulations has shape (3, 3); it needs 72 rows and at least",
    ),
    (lambda m: m.fit.allfit("q"), "method 'q' is unknown; available: newton, ai, fisher,"),
    (lambda m: m.fit.allfit([]), "no methods were given; available: newton, ai, fisher,"),
    (lambda m: m.fit.allfit(3), "methods must be the name of a variable or a list of names,"),
    (lambda m: m.fit.robust_vcov("CR4"), "kind 'CR4' is unknown; available: CR0, CR1, CR1S, CR2, CR3"),
    (
        lambda m: m.fit.robust_vcov(cluster="q"),
        "cluster='q' is neither a grouping factor of the model (g) nor",
    ),
    (lambda m: m.fit.robust_vcov(cluster=[1, 2]), "cluster has 2 values; it needs 72, one per row"),
    (lambda m: m.fit.robust_vcov(cluster=3), "cluster must be a grouping factor, a column of the data or an"),
    (lambda m: m.fit.influence(refit="a"), "refit must be True or False, got 'a'"),
    (lambda m: m.fit.repca(scale="q"), "scale must be True or False, got 'q'"),
    (lambda m: m.fit.emmeans("f", bias_adjust="q"), "bias_adjust must be True or False, got 'q'"),
    (lambda m: m.fit.emmeans("f", sigma=-1), "sigma is the SD of the bias adjustment"),
    (lambda m: m.fit.robust_vcov(level=95), "level must lie between 0 and 1"),
    (
        lambda m: m.fit.robust_vcov(cluster=np.ones(72)),
        "cluster 'cluster' has a single level; the covariance needs",
    ),
    (lambda m: m.fit.residuals("q"), "residual kind 'q' is unknown; available: response,"),
    (lambda m: m.fit.residuals(3), "residual kind 3 is unknown; available: response, conditional,"),
    (lambda m: m.fit.tidy("q"), "effects='q' is unknown; available: fixed, ran_pars, ran_vals,"),
    (lambda m: m.fit.tidy([]), "effects must name some of fixed, ran_pars, ran_vals,"),
    (lambda m: m.fit.tidy(3), "effects must name some of fixed, ran_pars, ran_vals,"),
    (lambda m: m.fit.tidy(["fixed", 3]), "effects=3 is unknown; available: fixed, ran_pars, ran_vals,"),
    (
        lambda m: m.fit.tidy(conf_int=True, level=95),
        "level must lie between 0 and 1 (for instance 0.95), got 95",
    ),
    (
        lambda m: m.fit.tidy(conf_int=True, conf_method="q"),
        "conf_method='q' is unknown; available: wald, profile,",
    ),
    (
        lambda m: m.fit.tidy(conf_int=True, conf_method="bootstrap", n=0),
        "n must be a positive whole number of replicates, got 0",
    ),
    (lambda m: m.fit.tidy(ddf="q"), "ddf='q' is unknown; available: satterthwaite, kenward-roger,"),
    (lambda m: m.fit.tidy(n=5), "tidy() has no option 'n' with conf_method='wald'"),
    (lambda m: m.fit.summary(ddf="q"), "ddf='q' is unknown; available: satterthwaite, kenward-roger,"),
    (lambda m: m.fit.bootstrap(5, new_effects=3), "new_effects must be the name of a variable or a list of"),
    (lambda m: m.profile.zeta("sigma", "a"), "x must be values of sigma, got 'a'"),
    (lambda m: m.profile.zeta("x", 1), "there is no parameter 'x'"),
    (lambda m: m.profile.confint(level=95), "level must lie between 0 and 1"),
    (lambda m: m.fit.test(np.eye(4) + 1j), "a hypothesis is an array of numbers"),
    (lambda m: m.fit.test([[np.nan, 0, 0, 0]]), "a contrast holds a value that is not finite"),
    (
        lambda m: m.fit.contrast("f", {"a": [1, np.nan, -1]}),
        "contrast 'a' needs 3 numbers, one for each of a, b, c",
    ),
    (lambda m: m.fit.emmeans("f", weights=[np.nan, 1]), "weights needs 1 numbers >= 0"),
    (lambda m: m.means.effect_size(sigma=-1), "sigma must be a positive number, got -1"),
    (lambda m: m.fit.plot.caterpillar("q"), "'q' is not a random term of the model"),
    (lambda m: m.fit.plot.residuals(ax=3), "ax must be matplotlib axes, got int"),
    (lambda m: m.fit.plot.profile("q"), "there is no parameter 'q'"),
    (lambda m: m.fit.plot.profile(profile=3), "profile must be what fit.profile() returns, got int"),
    (lambda m: m.fit.plot.bootstrap(3), "bootstrap must be what fit.bootstrap(n, seed) returns, got int"),
    (
        lambda m: m.fit.plot.simulated_residuals(residuals=3),
        "residuals must be what fit.simulated_residuals() returns",
    ),
    (lambda m: m.fit.plot.qq(level=95), "level must lie between 0 and 1"),
    (lambda m: m.fit.plot.influence(named="a"), "named must be a whole number of labels, got 'a'"),
    (lambda m: m.fit.plot.data("q"), "there is no plot 'q'"),
    (lambda m: m.fit.report("/nonexistent/dir/page.html"), "the report cannot be written to"),
    (lambda m: mm.power(3, "x"), "power() takes a fit first, got int"),
]


@pytest.mark.parametrize(("call", "message"), MISTAKES)
def test_one_clear_error(m, call, message):
    if "plot" in call.__code__.co_names:
        pytest.importorskip("matplotlib.pyplot").switch_backend("agg")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(mm.MixedModelsError) as caught:
            call(m)
    text = str(caught.value)
    assert message in " ".join(text.split())
    assert "\n" not in text.strip()
