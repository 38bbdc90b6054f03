"""Every question asked of every kind of generalised fit: an answer, or one error that says what to do.

An answer is finite, or carries a note that says why not; its frame is of the caller's library; nothing but
warnings of this package is heard on the way. What is refused is listed, with the words it is refused with.
"""

from __future__ import annotations

import re
import warnings

import numpy as np
import pytest

import mixedmodels as mm
from mixedmodels.inference.table import ResultTable

from .glmm_kinds import KINDS, fitted, rows

# ---------------------------------------------------------------------- questions


def variable(m, names, otherwise):
    """A variable of the conditional formula among these, or a name there is not."""
    fixed = str(m.formula).split("~", 1)[1].split("(")[0]
    found = re.findall(rf"\b(?:{names})\b", fixed)
    return next(iter(found), otherwise)


def term(m):
    return variable(m, "x|xm|f", "x")


def factor(m):
    return variable(m, "f|s", "f")


def group(m):
    return next(iter(m.ngroups))


def new_rows(m):
    data = rows()[:4].rename(columns={"x": "a b", "g": "größe 1"} if "größe 1" in m.ngroups else {})
    offset = {"offset": data.o.to_numpy()} if isinstance(m._options.offset, np.ndarray) else {}
    return m.predict(data, interval="confidence", **offset)


def report(m, directory):
    path = directory / "page.html"
    m.report(path)
    assert "Traceback" not in path.read_text(encoding="utf-8")
    return None


def saved(m, directory):
    path = directory / "fit.mm"
    m.save(path)
    again = mm.load(path)
    np.testing.assert_allclose(again.psi, m.psi, rtol=1e-12)
    return np.array([again.loglik - m.loglik])


QUESTIONS = {
    **{f"anova-{kind}": lambda m, kind=kind: m.anova(kind) for kind in (1, 2, 3)},
    **{f"coefficients-{part}": lambda m, part=part: m.coefficients(component=part)
       for part in (None, "all", "conditional")},
    "coefficients-t": lambda m: m.coefficients(12.0),
    "summary": lambda m: m.summary(),
    "summary-t": lambda m: m.summary(ddf=7),
    "test": lambda m: m.test(np.eye(max(len(m.fixef), 1))),
    "test-rows": lambda m: m.test({next(reversed(list(m.fixef)), "x"): 1.0}, joint=False),
    "drop1-wald": lambda m: m.drop1(test="f"),
    "drop1-lrt": lambda m: m.drop1(test="lrt"),
    "drop1-none": lambda m: m.drop1(test="none"),
    "test-fixed-wald": lambda m: m.test_fixed(term(m)),
    "test-fixed-lrt": lambda m: m.test_fixed(term(m), "lrt"),
    "test-fixed-bootstrap": lambda m: m.test_fixed(term(m), "bootstrap", n=4, seed=1),
    "test-random-lrt": lambda m: m.test_random(),
    "test-random-mixture": lambda m: m.test_random(method="mixture"),
    "test-random-bootstrap": lambda m: m.test_random(group(m), method="bootstrap", n=4, seed=1),
    "lod": lambda m: m.lod(term(m)),
    "confint-wald": lambda m: m.confint(),
    "confint-profile": lambda m: m.confint("profile", parameters=next(iter(m.fixef), "x")),
    "confint-profile-sd": lambda m: m.confint("profile", parameters="sd"),
    "confint-bootstrap": lambda m: m.confint("bootstrap", n=12, seed=1),
    "profile": lambda m: m.profile(parameters=next(iter(m.fixef), "x")),
    "bootstrap": lambda m: m.bootstrap(4, 1),
    "predict": lambda m: m.predict(),
    "predict-se": lambda m: m.predict(se=True),
    "predict-link": lambda m: m.predict(type="link", se=True),
    "predict-conditional": lambda m: m.predict(type="conditional"),
    "predict-population": lambda m: m.predict(re_form="population", interval="confidence"),
    "predict-new": new_rows,
    "predict-prediction": lambda m: m.predict(interval="prediction", n=30, seed=1),
    "predict-simulated": lambda m: m.predict(interval="confidence", method="simulation", n=30, seed=1),
    "fitted": lambda m: m.fitted(),
    "fitted-population": lambda m: m.fitted("population", type="link"),
    "response": lambda m: m.response(),
    "simulate": lambda m: m.simulate(2, seed=1),
    "simulate-given": lambda m: m.simulate(2, seed=1, new_effects=False),
    **{f"residuals-{kind}": lambda m, kind=kind: m.residuals(kind, seed=1)
       if kind == "quantile" else m.residuals(kind)
       for kind in ("response", "pearson", "deviance", "working", "quantile")},
    "working-weights": lambda m: m.working_weights(),
    "working-weights-observed": lambda m: m.working_weights("observed"),
    "working-response": lambda m: m.working_response(),
    "scaled-quantiles": lambda m: np.array(m.scaled_quantiles()),
    "residual-deviance": lambda m: m.residual_deviance,
    "dispersion": lambda m: np.asarray(m.dispersion, dtype=float),
    "power": lambda m: mm.power(m, next(reversed(list(m.fixef)), "x"), n=4, seed=1, progress=False),
    "emmeans": lambda m: m.emmeans(factor(m)),
    "emmeans-response": lambda m: m.emmeans(factor(m), type="response"),
    "emtrends": lambda m: m.emtrends("1", variable(m, "x|xm", "x")),
    "contrast": lambda m: m.contrast(factor(m), adjust="tukey"),
    "joint-tests": lambda m: m.joint_tests(),
    "compare": lambda m: mm.compare(m, m.update(f". ~ . - {term(m)}")),
    "icc": lambda m: m.icc(),
    "r2": lambda m: m.r2(),
    "variance-parts": lambda m: m.variance_parts(),
    "repca": lambda m: m.repca(),
    "vif": lambda m: m.vif(),
    "diagnose": lambda m: m.diagnose(),
    "influence-rows": lambda m: m.influence(),
    "influence-group": lambda m: m.influence(group(m)),
    "leverage": lambda m: m.leverage(),
    "cooks-distance": lambda m: m.cooks_distance(),
    "simulated-residuals": lambda m: m.simulated_residuals(20, 1),
    "allfit": lambda m: m.allfit(["newton", "lbfgsb"]),
    **{f"robust-{kind}": lambda m, kind=kind: m.robust_vcov(kind).table for kind in ("CR0", "CR1", "CR2")},
    "tidy": lambda m: m.tidy(("fixed", "ran_pars", "ran_vals", "ran_coefs"), conf_int=True),
    "tidy-fixed": lambda m: m.tidy(conf_int=True),
    "glance": lambda m: m.glance(),
    "augment": lambda m: m.augment(),
    "coef": lambda m: m.coef(),
    "ranef": lambda m: m.ranef(condvar=True),
    "wald": lambda m: m.wald(),
    "update": lambda m: m.update(nagq=m.nagq).criterion,
    "refit": lambda m: m.refit(m.simulate(1, seed=2)).criterion,
    "vcov": lambda m: m.vcov,
    "joint-vcov": lambda m: m.joint_vcov,
    "conditional-covariance": lambda m: m.conditional_covariance(0),
    "numbers": lambda m: np.array([m.loglik, m.aic, m.bic, m.deviance, m.criterion, m.df_model, m.nobs]),
    "save": saved,
    "report": report,
}  # fmt: skip
WITH_DIRECTORY = ("report", "save")
LIBRARIES = {"polars": "polars", "dict": "builtins"}
PADDED = ("missing-exclude", "zero-weights")
# the first row of these tables is the model the others are compared with
COMPARISONS = ("Random terms left out", "Likelihood-ratio tests", "Single term deletions")


def remark(kind, m, answer):
    """What is wrong with an answer, or None."""
    if answer is None or isinstance(answer, (float, str)):
        return None if answer is None or answer == answer else "NaN"
    if isinstance(answer, np.ndarray):
        bad = ~np.isfinite(answer)
        return None if kind in PADDED or not bad.any() else f"{bad.sum()} values are not finite"
    for text in (str(answer), answer._repr_html_() if hasattr(answer, "_repr_html_") else ""):
        if "Traceback" in text or "object at 0x" in text:
            return f"rendered as {text[:80]}"
    if isinstance(answer, ResultTable):
        assert answer.to_html() and answer.to_latex() and answer.to_markdown()
    if hasattr(answer, "to_frame"):
        frame = answer.to_frame()
        if type(frame).__module__.split(".")[0] != LIBRARIES.get(kind, "pandas"):
            return f"a frame of {type(frame).__module__}"
    if isinstance(answer, ResultTable) and not answer.notes:
        start = int(answer.title.startswith(COMPARISONS))
        for name, column in answer.columns.items():
            if column.dtype.kind == "f" and np.isnan(column[start:]).any():
                return f"NaN in {name} without a note: {column.tolist()[:6]}"
    return None


def ask(kind, name, directory):
    """The remark on an answer (None for a good one), and the text of a refusal."""
    m, question = fitted(kind), QUESTIONS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", mm.MixedModelsWarning)
        try:
            return remark(kind, m, question(m, directory) if name in WITH_DIRECTORY else question(m)), None
        except mm.MixedModelsError as error:
            return None, str(error)
        except Exception as error:  # any other error is the finding
            return f"{type(error).__name__}: {error}", None


# ---------------------------------------------------------------------- what is refused, and why

NO_FIXED = ("no-fixed",)
WITHOUT_F = ("zero-inflated-effects", "hurdle-nbinom2", "null", "no-fixed")
WITHOUT_X = ("separated", "priors", "null", "no-fixed", "odd-names")
# the expectation of the response is not the inverse link of its predictor
MIXTURES = (
    "ordered-beta", "truncated", "zero-inflated", "zero-inflated-effects", "hurdle", "hurdle-nbinom2"
)  # fmt: skip
# a saturated density that depends on the dispersion gives no deviance
NO_DEVIANCE = (*MIXTURES, "nbinom1", "genpois", "compois", "betabinomial", "tweedie", "student")
RANDOM_COMPONENTS = ("zero-inflated-effects", "crossed", "row-effects", "singular")
EVERY = tuple(KINDS)
# questions (by the beginnings of their names), kinds, words of the error
REFUSED = (
    (("emmeans", "contrast"), WITHOUT_F, "'f' is not a predictor of the model"),
    (("emtrends",), WITHOUT_X, "'x' is not a predictor of the model"),
    (("emtrends", "joint-tests"), NO_FIXED, "no predictors|no fixed effects|no terms"),
    (("residuals-deviance", "residual-deviance"), NO_DEVIANCE, "take 'pearson' or 'quantile'"),
    (("residuals-working", "working-"), MIXTURES, "take kind='observed'"),
    (("robust-CR2",), EVERY, "generalised models have CR0, CR1"),
    (("robust",), RANDOM_COMPONENTS, "with crossed factors no clusters are independent"),
    (("robust", "influence", "cooks", "vif", "test", "power", "lod"), NO_FIXED, "no fixed effects|has none"),
    (("cooks-distance", "influence"), NO_FIXED, "this model has none"),
    (("compare", "drop1", "update"), (*NO_FIXED, "null"), "no term|not part|no terms"),
    (("confint-profile", "profile"), NO_FIXED, "there is no parameter 'x'"),
    (("vif",), ("null",), "nothing to inflate"),
    (("test-fixed", "lod", "compare"), ("null",), "has no term 'x'"),
    (("test-fixed", "lod"), ("rank-deficient",), "leaving it out changes nothing"),
    (("compare",), ("missing-omit", "missing-exclude"), "fit them to the same rows"),
    (("compare",), ("priors",), "priors: there is no parameter 'fc'; available"),
    (("compare",), ("fixed",), "fixed: there is no parameter 'x'; available"),
    (("drop1", "test-fixed", "test-random", "lod"), ("equal",), "fit the smaller one and use compare"),
    # no likelihood is maximised
    (("drop1", "test-fixed", "test-random", "lod"), ("priors",), "fit it without priors=, or use Wald tests"),
    (("robust",), ("fast",), "fit with nagq=1 or more"),
    (("icc", "r2", "variance-parts"), ("ordered-beta",), "use scale='observation'"),
)


def refused(kind, name, text):
    """Whether this error is one of those listed."""
    return any(
        kind in kinds and name.startswith(questions) and re.search(words, text)
        for questions, kinds, words in REFUSED
    )


LIGHT = ("poisson", "zero-inflated-effects", "no-fixed")
SLOW = ("tweedie", "predict-prediction")  # a sum of a series at each step of each quantile
HEAVY = ("report", "power", "allfit", "confint-bootstrap")  # asked of the light kinds only


@pytest.mark.parametrize(
    "kind", [kind if kind in LIGHT else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS]
)
def test_every_question(kind, tmp_path):
    findings = {}
    for name in QUESTIONS:
        if (kind, name) == SLOW or (name in HEAVY and kind not in LIGHT):
            continue
        finding, error = ask(kind, name, tmp_path)
        if error is not None and not refused(kind, name, error):
            finding = f"refused: {error}"
        if finding:
            findings[name] = finding
    assert findings == {}
