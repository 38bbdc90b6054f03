"""Wrong input to the questions of a generalised fit: one error that names the culprit and what to write."""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import numpy as np
import pytest

import mixedmodels as mm

from .glmm_kinds import fitted, rows

R = rows()


@pytest.fixture(scope="module")
def m():
    """Fits of several kinds."""
    return SimpleNamespace(
        fit=fitted("poisson"),
        trials=fitted("trials"),
        zi=fitted("zero-inflated"),
        crossed=fitted("crossed"),
        array=fitted("offset-array"),
        none=fitted("no-fixed"),
        rank=fitted("rank-deficient"),
        missing=fitted("missing-omit"),
    )


MISTAKES = [
    (lambda m: m.fit.anova(4), 'anova type 4 is unknown; available: 1 or "sequential", 2, 3 or "margin'),
    (lambda m: m.fit.anova(ddf=-1), "ddf=-1: degrees of freedom must be positive"),
    (lambda m: m.fit.coefficients(level=95), "level must lie between 0 and 1 (for instance 0.95), got 95"),
    (lambda m: m.fit.test("q = 0"), "'q' in the hypothesis 'q = 0' is not a coefficient of the model; these"),
    (lambda m: m.fit.test([]), "a contrast needs 4 numbers, one per fixed effect ((Intercept), x, fb, "),
    (
        lambda m: m.fit.test({"q": 1}),
        "'q' is not a coefficient of the model; these are (Intercept), x, fb, f",
    ),
    (
        lambda m: m.fit.test([[1, 2]]),
        "a contrast needs 4 numbers, one per fixed effect ((Intercept), x, fb, ",
    ),
    (lambda m: m.none.test([1.0]), "the model has no fixed effects to test"),
    (
        lambda m: m.rank.test({"x2": 1}),
        "'x2' cannot be estimated from these data: x2 depends on other columns;",
    ),
    (lambda m: m.fit.drop1("q"), "the fixed part has no term 'q'; its terms are x, f"),
    (lambda m: m.fit.drop1(3), "scope must be a term or a list of terms (x, f), got 3"),
    (
        lambda m: m.fit.test_fixed("q"),
        "the fixed part has no term 'q'; its terms are x, f, its coefficients (",
    ),
    (lambda m: m.fit.test_fixed("f", "score"), "method 'score' is unknown; available: wald, lrt, bootstrap"),
    (lambda m: m.fit.test_fixed(None), "a term is a text such as 'x' or 'x:f', got None"),
    (lambda m: m.fit.test_fixed("f", n=3), "this method has no option 'n'; it takes ddf"),
    (lambda m: m.fit.test_random("q"), "the model has no random term 'q'; it has (1 | g)"),
    (lambda m: m.fit.test_random(3), "term must be a text such as '(1 | g)' or the name of a group, got 3"),
    (
        lambda m: m.fit.test_random("g", method="bootstrap", n=-1),
        "n must be a whole number of draws, at least 1, got -1",
    ),
    (lambda m: m.fit.lod("q"), "the fixed part has no term 'q'; its terms are x, f, its coefficients ("),
    (lambda m: m.fit.lod(None), "a term is a text such as 'x' or 'x:f', got None"),
    (
        lambda m: m.fit.confint("bayes"),
        "confint method 'bayes' is unknown; available: wald, satterthwaite, kr,",
    ),
    (lambda m: m.fit.confint(level=0), "level must lie between 0 and 1 (for instance 0.95), got 0"),
    (
        lambda m: m.fit.confint(parameters="q"),
        "there is no parameter 'q' to ask for here; available: (Intercept), x, ",
    ),
    (lambda m: m.fit.confint(parameters=[]), "parameters is an empty list; leave it out for all parameters"),
    (lambda m: m.fit.confint("wald", n=3), "confint(method='wald') has no option 'n'; it takes none"),
    (lambda m: m.fit.confint("bootstrap", n=0), "n must be a positive whole number of replicates, got 0"),
    (
        lambda m: m.fit.confint("bootstrap", n=10, kind="x"),
        "interval kind 'x' is unknown; available: normal, basic, studentized, p",
    ),
    (lambda m: m.fit.bootstrap(0), "n must be a positive whole number of replicates, got 0"),
    (
        lambda m: m.fit.bootstrap(5, "a"),
        "seed must be None, a whole number >= 0 or a numpy Generator, got 'a'",
    ),
    (lambda m: m.fit.predict(3), "data of type 'int' cannot be read; give a data frame (pandas, polars, "),
    (lambda m: m.fit.predict({"x": [1.0]}), "the data have no column 'f' (columns: x)"),
    (
        lambda m: m.fit.predict(R.drop(columns="g")),
        "the new data have no column 'g', which the random terms on 'g' need; a",
    ),
    (
        lambda m: m.fit.predict(R.assign(g="new")),
        "grouping factor 'g' has new levels in the new data: new; use new_level",
    ),
    (
        lambda m: m.fit.predict(R.assign(f="q")),
        "factor 'f' has the new level 'q' in the new data; its effect was not e",
    ),
    (
        lambda m: m.fit.predict(R, type="logit"),
        "type must be one of response, link, conditional, zero_probability, dis",
    ),
    (
        lambda m: m.fit.predict(R, type="zero_probability"),
        "type='zero_probability': family 'poisson' of this model has no zero_in",
    ),
    (
        lambda m: m.fit.predict(R, type="dispersion"),
        "type='dispersion': family 'poisson' of this model has no dispersion pa",
    ),
    (
        lambda m: m.fit.predict(R, re_form="~ (1 | q)"),
        "re_form: the model has no random effects on 'q'; its groups are g",
    ),
    (
        lambda m: m.fit.predict(R, re_form=3),
        "re_form must be None (all random effects), 'population' (none), names ",
    ),
    (
        lambda m: m.fit.predict(R, new_levels="ignore"),
        "new_levels must be one of error, population, missing, got 'ignore'",
    ),
    (lambda m: m.array.predict(R), "the model was fitted with an array as offset; give the offset of the n"),
    (lambda m: m.array.predict(R, offset=[1.0]), "offset has shape (1,), but the data have 96 rows"),
    (lambda m: m.fit.predict(R.assign(x="a")), "'x' was numeric in the fit but holds labels in the new data"),
    (
        lambda m: m.fit.predict(R.assign(x=np.inf)),
        "column 'x' of the new data has 96 infinite values; replace them by mis",
    ),
    (
        lambda m: m.fit.predict(R, offset="nope"),
        "the data have no column 'nope' (columns: y, b, size, s_, wide_s, count",
    ),
    (
        lambda m: m.fit.fitted(type="q"),
        "type must be one of response, link, conditional, zero_probability, dis",
    ),
    (lambda m: m.fit.fitted("q"), "re_form='q' is not a grouping factor of the model (g); write None for "),
    (
        lambda m: m.fit.fitted(type=3),
        "type must be one of response, link, conditional, zero_probability, dis",
    ),
    (
        lambda m: m.fit.residuals("q"),
        "residual kind 'q' is unknown; available: response, pearson, scaled, de",
    ),
    (lambda m: m.fit.residuals(3), "residual kind 3 is unknown; available: response, pearson, scaled, devi"),
    (
        lambda m: m.fit.residuals("standardized"),
        "residual kind 'standardized' is unknown; available: response, pearson,",
    ),
    (
        lambda m: m.fit.residuals("studentized"),
        "residual kind 'studentized' is unknown; available: response, pearson, ",
    ),
    (
        lambda m: m.zi.residuals("deviance"),
        "deviance residuals are not defined for family 'zero_inflated_poisson'",
    ),
    (
        lambda m: m.fit.residuals("quantile", seed="a"),
        "seed must be None, a whole number >= 0 or a numpy Generator, got 'a'",
    ),
    (
        lambda m: m.zi.residuals("working"),
        "the mean of family 'zero_inflated_poisson' is not the inverse link of ",
    ),
    (
        lambda m: m.fit.residuals(None),
        "residual kind None is unknown; available: response, pearson, scaled, d",
    ),
    (lambda m: m.fit.working_weights("q"), "kind must be 'expected' or 'observed', got 'q'"),
    (lambda m: m.fit.working_response("q"), "kind must be 'expected' or 'observed', got 'q'"),
    (
        lambda m: m.zi.working_weights(),
        "the mean of family 'zero_inflated_poisson' is not the inverse link of ",
    ),
    (lambda m: m.fit.conditional_covariance(3), "term must be a position between 0 and 0, got 3"),
    (lambda m: m.fit.conditional_covariance("g"), "term must be a position between 0 and 0, got 'g'"),
    (lambda m: m.fit.conditional_covariance(-1), "term must be a position between 0 and 0, got -1"),
    (lambda m: m.fit.simulate(0), "n must be a positive whole number, got 0"),
    (lambda m: m.fit.simulate("a"), "n must be a positive whole number, got 'a'"),
    (
        lambda m: m.fit.simulate(2, seed="a"),
        "seed must be None, a whole number >= 0 or a numpy Generator, got 'a'",
    ),
    (lambda m: m.fit.simulate(new_effects="q"), "new_effects: 'q' is not a grouping factor of the model (g)"),
    (
        lambda m: m.fit.simulate(newdata=3),
        "data of type 'int' cannot be read; give a data frame (pandas, polars, ",
    ),
    (
        lambda m: m.fit.simulate(newdata=R.drop(columns="x")),
        "the data have no column 'x'; did you mean 'xm'? (columns: y, b, size, ",
    ),
    (
        lambda m: m.fit.simulate(gamma={"q": 1.0}),
        "gamma: there is no parameter 'q'; the model has (Intercept), x, fb, fc",
    ),
    (
        lambda m: m.fit.simulate(beta=[1.0]),
        "beta needs 4 finite numbers ((Intercept), x, fb, fc), got 1 values",
    ),
    (lambda m: m.fit.simulate(theta=[1.0, 2.0]), "theta needs 1 finite numbers (g.(Intercept))"),
    (lambda m: m.fit.simulate(theta=["a"]), "theta must hold numbers"),
    (lambda m: m.fit.simulate(trials=3), "offset and trials are for new rows; give newdata as well"),
    (
        lambda m: m.trials.simulate(newdata=R.drop(columns="size")),
        "the data have no column 'size' (columns: y, b, s_, wide_s, count, wide",
    ),
    (
        lambda m: m.array.simulate(newdata=R),
        "the model was fitted with an array as offset; give the offset of the n",
    ),
    (lambda m: m.fit.simulate(beta={"x": "a"}), "beta must hold numbers"),
    (
        lambda m: m.fit.simulate(gamma=[np.nan] * 4),
        "gamma needs 4 finite numbers ((Intercept), x, fb, fc), got 4 values",
    ),
    (
        lambda m: m.fit.simulate(re_form="q"),
        "re_form='q' is not a grouping factor of the model (g); write None for ",
    ),
    (lambda m: m.fit.simulate(2.5), "n must be a positive whole number, got 2.5"),
    (lambda m: m.fit.refit([1, 2]), "the new response has shape (2,); it needs 96 values"),
    (
        lambda m: m.fit.refit(np.full(96, -1)),
        "the response 'count' is negative in 96 rows (first in row 0); family '",
    ),
    (lambda m: m.fit.refit(np.full(96, 3)), "the response 'count' is constant (3): there is nothing to fit"),
    (lambda m: m.fit.refit("a"), "refit needs a numeric response, or a data frame for the whole model"),
    (lambda m: m.fit.refit(None), "the new response has shape (); it needs 96 values"),
    (
        lambda m: m.trials.refit(np.full(96, 99)),
        "the response 's_' has more successes than trials in 96 rows (first in ",
    ),
    (
        lambda m: m.fit.refit(np.full(96, np.nan)),
        "the new response holds missing or infinite values; refit to data witho",
    ),
    (
        lambda m: m.fit.refit(R.drop(columns="x")),
        "the data have no column 'x'; did you mean 'xm'? (columns: y, b, size, ",
    ),
    (
        lambda m: m.fit.refit(np.zeros((96, 3))),
        "the new response has shape (96, 3); it needs one value per row",
    ),
    (
        lambda m: m.fit.refit(m.fit.simulate(2)),
        "the new response has shape (96, 2); it needs one value per row",
    ),
    (
        lambda m: m.fit.update(family="q"),
        "there is no family 'q' (available: beta, betabinomial, binomial, com_p",
    ),
    (
        lambda m: m.fit.update(". ~ . + q"),
        "the data have no column 'q' (columns: y, b, size, s_, wide_s, count, w",
    ),
    (lambda m: m.fit.update(3), "formula must be a text or a Formula, got int"),
    (
        lambda m: m.fit.update(reml=True),
        "update() has no argument 'reml'; available: family, link, nagq, disper",
    ),
    (
        lambda m: m.fit.update(family="binomial"),
        "the response 'count' is neither 0 nor 1 in 71 rows (first in row 1); c",
    ),
    (lambda m: m.fit.update(nagq=-1), "nagq must lie between 0 and 100, got -1"),
    (
        lambda m: m.fit.update(". ~ . - (1 | g)"),
        "the formula 'count ~ x + f' has no random-effects term such as (1 | gr",
    ),
    (
        lambda m: m.crossed.update(nagq=5),
        "nagq = 5 cannot be used because the grouping factors 'g' and 'k' are c",
    ),
    (
        lambda m: m.fit.update(fixed={"q": 1.0}),
        "fixed: there is no parameter 'q'; available: (Intercept), x, fb, fc, g",
    ),
    (
        lambda m: m.fit.update(weights="nope"),
        "the data have no column 'nope' (columns: y, b, size, s_, wide_s, count",
    ),
    (
        lambda m: m.fit.update(data=3),
        "data of type 'int' cannot be read; give a data frame (pandas, polars, ",
    ),
    (
        lambda m: m.fit.update(sigma=1.0),
        "update() has no argument 'sigma'; available: family, link, nagq, dispe",
    ),
    (lambda m: m.fit.emmeans("q"), "specs: 'q' is not a predictor of the model; the predictors are x, f"),
    (lambda m: m.fit.emtrends("f", "q"), "var: 'q' is not a predictor of the model; the predictors are x, f"),
    (lambda m: m.fit.emtrends("f", "f"), "var: 'f' is a factor and has no slope; contrast its means instead"),
    (
        lambda m: m.fit.contrast("f", "q"),
        "contrast method 'q' is unknown (available: pairwise, revpairwise, tuke",
    ),
    (
        lambda m: m.fit.contrast("f", adjust="q"),
        "adjust='q' is unknown; available: none, tukey, sidak, bonferroni, holm",
    ),
    (lambda m: m.fit.joint_tests(by="q"), "by: 'q' is not a predictor of the model; the predictors are x, f"),
    (
        lambda m: mm.compare(m.fit, m.trials),
        "the models have different responses; likelihoods of different data can",
    ),
    (lambda m: mm.compare(m.fit), "compare() needs two or more fits"),
    (lambda m: mm.compare(m.fit, 3), "compare() takes fits, got int"),
    (
        lambda m: mm.compare(m.fit, m.missing),
        "the models were fitted to different rows (96, 89 observations); fit th",
    ),
    (lambda m: m.fit.simulated_residuals(0), "n must be a whole number of at least 20 simulations, got 0"),
    (
        lambda m: m.fit.simulated_residuals(5, "a"),
        "seed must be None, a whole number >= 0 or a numpy Generator, got 'a'",
    ),
    (lambda m: m.fit.robust_vcov("HC9"), "kind 'HC9' is unknown; available: CR0, CR1"),
    (lambda m: m.fit.repca("a"), "scale must be True or False, got 'a'"),
    (lambda m: m.fit.save(3), "path must be a text or a path, got int"),
]


@pytest.mark.parametrize(
    ("mistake", "words"), MISTAKES, ids=[f"{i}-{words[:40]}" for i, (_, words) in enumerate(MISTAKES)]
)
def test_one_error_that_names_the_culprit(m, mistake, words):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(mm.MixedModelsError) as caught:
            mistake(m)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("ddf", ["kr", "satterthwaite", "containment"])
@pytest.mark.parametrize(
    "name", ["anova", "coefficients", "summary", "tidy", "drop1-wald", "emmeans", "confint"]
)
def test_degrees_of_freedom_of_linear_models_are_refused(m, ddf, name):
    questions = {
        "anova": lambda: m.fit.anova(ddf=ddf),
        "coefficients": lambda: m.fit.coefficients(ddf),
        "summary": lambda: m.fit.summary(ddf=ddf),
        "tidy": lambda: m.fit.tidy(ddf=ddf),
        "drop1-wald": lambda: m.fit.drop1(test="f", ddf=ddf),
        "emmeans": lambda: m.fit.emmeans("f", ddf=ddf),
        "confint": lambda: m.fit.confint("kr"),
    }
    with pytest.raises(mm.OptionError, match=r"linear"):
        questions[name]()


def test_small_sample_corrections_are_of_linear_models(m):
    with pytest.raises(mm.OptionError, match=r"small_sample corrects linear models"):
        m.fit.small_sample()
