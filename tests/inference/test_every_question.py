"""Every question asked of every kind of fit: an answer, or one error that says what to do instead.

An answer is finite, or carries a note that says why not; its frame is of the caller's library; nothing but
warnings of this package is heard on the way.
"""

from __future__ import annotations

import functools
import inspect
import re
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from scipy import sparse

import mixedmodels as mm
from mixedmodels.design import Precision
from mixedmodels.inference.table import ResultTable

# ---------------------------------------------------------------------- data


@functools.cache
def rows(seed=11, groups=9, per=8):
    """A small data set with everything the models below need."""
    rng = np.random.default_rng(seed)
    n = groups * per
    g = np.repeat(np.arange(groups), per)
    h = np.tile(np.arange(per) % 4, groups)
    k = rng.permutation(n) % 5
    x = rng.normal(size=n)
    z = np.tile(np.linspace(0.0, 1.0, per), groups)
    f = np.array(["a", "b", "c"])[rng.permutation(n) % 3]
    t = np.array(["low", "mid", "high"])[(g + np.arange(n)) % 3]
    s = np.array(["s1", "s2"])[g % 2]
    effects = rng.multivariate_normal([0, 0], [[1.4, 0.3], [0.3, 0.5]], size=groups)
    y = 3.0 + 0.5 * x + (f == "b") - 0.7 * (t == "high") + effects[g, 0] + effects[g, 1] * z
    y += rng.normal(scale=0.8, size=5)[k] + rng.normal(scale=0.6, size=4)[h] + rng.normal(size=n)
    return pd.DataFrame(
        {
            "y": y,
            "positive": np.exp(0.3 * y),
            "x": x,
            "z": z,
            "f": f,
            "t": pd.Categorical(t, ["low", "mid", "high"], ordered=True),
            "s": s,
            "g": [f"g{i}" for i in g],
            "h": [f"h{i}" for i in h],
            "k": [f"k{i}" for i in k],
            "w": rng.uniform(0.5, 2.0, size=n),
            "w0": np.where(np.arange(n) % 11 == 3, 0.0, 1.0),
            "o": rng.normal(scale=0.2, size=n),
            "xm": np.where(np.arange(n) % 13 == 5, np.nan, x),
            "x2": 2.0 * x - 1.0,
            "flat": rng.normal(size=n),
        }
    )


def fit(formula, data=None, **options):
    return mm.lmm(formula, rows() if data is None else data, progress=False, **options)


def empty_cells():
    data = rows()
    return fit("y ~ f * s + x + (1 | g)", data[~((data.f == "b") & (data.s == "s2"))])


def perfectly_correlated():
    data = rows()
    u = np.random.default_rng(5).normal(size=9)[data.g.str[1:].astype(int)]
    return fit("y ~ z + (z | g)", data.assign(y=2.0 + u * (1.0 + 2.0 * data.z) + 0.5 * data.flat))


def matrices(precision=False):
    data = rows()
    codes = pd.factorize(data.g)[0].astype(np.int32)
    known = None
    if precision:
        A = 0.5 ** np.abs(np.subtract.outer(np.arange(9), np.arange(9)))
        known = Precision(sparse.csc_array(np.linalg.inv(A)), float(np.linalg.slogdet(A)[1]))
    term = mm.RandomTerm("g", ("(Intercept)",), codes, [f"g{i}" for i in range(9)], None, "us", known)
    X = np.column_stack([np.ones(len(data)), data.x])
    return mm.LinearMixedModel.from_matrices(data.y, X, [term], names=["one", "x"]).fit(progress=False)


def scaled_identity(theta):
    return theta[0] * np.eye(9)


def function_fit():
    data = rows()
    Z = (data.g.to_numpy()[:, None] == np.unique(data.g)).astype(float)
    X = np.column_stack([np.ones(len(data)), data.x])
    return mm.LinearMixedModel.from_matrices(
        data.y,
        X,
        Z,
        covariance=scaled_identity,
        start=[1.0],
        lower=[0.0],
        names=["one", "x"],
    ).fit(progress=False)


def round_trip(tmp, original):
    original.save(tmp)
    return mm.load(tmp)


def released():
    """A fit whose workspace was given back, as of a large model."""
    large = fit("y ~ x + f + (1 | g) + (1 | k)")
    large._release()
    return large


def plain(data):
    return {name: np.asarray(values) for name, values in data.astype({"t": str}).items()}


FITS = {
    "intercept": lambda: fit("y ~ x + f + (1 | g)"),
    "slope": lambda: fit("y ~ x + f + (z | g)"),
    "slope-ml": lambda: fit("y ~ x + f + (z | g)", reml=False),
    "independent": lambda: fit("y ~ z + (z || g)"),
    "homdiag": lambda: fit("y ~ f + homdiag(0 + f | g)"),
    "terms-on-one-factor": lambda: fit("y ~ z + (1 | g) + (0 + z | g)"),
    "nested": lambda: fit("y ~ x + (1 | g/h)"),
    "crossed": lambda: fit("y ~ x * f + (1 | g) + (1 | k)"),
    "three-crossed": lambda: fit("y ~ f + (1 | g) + (1 | h) + (1 | k)"),
    "interaction-group": lambda: fit("y ~ x + (1 | s:h) + (1 | g)"),
    "no-fixed": lambda: fit("y ~ 0 + (1 | g)"),
    "null": lambda: fit("y ~ 1 + (1 | g)"),
    "rank-deficient": lambda: fit("y ~ x + x2 + f + (1 | g)"),
    "empty-cells": empty_cells,
    "weights": lambda: fit("y ~ x + f + (z | g)", weights="w"),
    "zero-weights": lambda: fit("y ~ x + f + (1 | g)", weights="w0"),
    "offset": lambda: fit("y ~ x + offset(o) + f + (1 | g)"),
    "offset-array": lambda: fit("y ~ x + f + (1 | g)", offset=rows().o.to_numpy()),
    "missing-omit": lambda: fit("y ~ xm + f + (1 | g)"),
    "missing-exclude": lambda: fit("y ~ xm + f + (1 | g)", na_action="exclude"),
    "variance-0": lambda: fit("flat ~ x + f + (1 | g)"),
    "correlation-1": perfectly_correlated,
    "fixed-sigma": lambda: fit("y ~ x + f + (1 | g)", sigma=1.0),
    "share": lambda: fit("y ~ x + f + (1 | g) + (1 | k)", share=[["g", "k"]]),
    "log-response": lambda: fit("log(positive) ~ x + f + (1 | g)"),
    "poly": lambda: fit("y ~ poly(x, 2) + ns(z, 3) + (1 | g)"),
    "ordered": lambda: fit("y ~ t + x + (1 | g)"),
    "sum": lambda: fit("y ~ f * s + (1 | g)", contrasts={"f": "sum", "s": "sum"}),
    "slopes-by-factor": lambda: fit("y ~ f * x + s + (1 | g)", reml=False),
    "matrices": matrices,
    "precision": lambda: matrices(precision=True),
    "function": function_fit,
    "refitted": lambda: fit("y ~ x + f + (1 | g)").refit(rows().y + 0.3 * rows().flat),
    "released": released,
    "polars": lambda: fit("y ~ x + f + (1 | g)", pl.from_pandas(rows())),
    "pyarrow": lambda: fit("y ~ x + f + (1 | g)", pa.Table.from_pandas(rows())),
    "dict": lambda: fit("y ~ x + f + (1 | g)", plain(rows())),
    "dense": lambda: fit("y ~ x + f + (1 | g)", solver="dense"),
}  # fmt: skip
KINDS = [*FITS, "loaded"]


@functools.cache
def fitted(kind, directory=None):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mm.MixedModelsWarning)
        return round_trip(directory / "loaded.mm", FITS["slope"]()) if kind == "loaded" else FITS[kind]()


# ---------------------------------------------------------------------- questions


def first(names, otherwise):
    return next(iter(names), otherwise)


def term(m):
    """A term of the fixed part, a coefficient of a model without a formula, or a name there is not."""
    encoding = getattr(m.frame, "encoding", None)
    terms = (
        [] if encoding is None else [label for label in encoding.assign if label not in ("1", "(Intercept)")]
    )
    return first(terms, first([name for name in m.fixef if name not in ("(Intercept)", "one")], "x"))


def covariate(m):
    names = [] if m.formula is None else re.findall(r"\b(?:x|z|xm)\b", str(m.formula))
    return first(names, "x")


def factor(m):
    names = [] if m.formula is None else re.findall(r"\b(?:f|t|s)\b", str(m.formula))
    return first(names, "f")


def group(m):
    return first(m.ngroups, "g")


def submodel(m):
    if m.formula is None:
        return mm.compare(m, m.refit_ml())
    return mm.compare(m, m.update(f". ~ . - {term(m)}"))


def new_rows(m):
    data = rows()[:4]
    offset = {"offset": data.o} if m.formula is not None and m._options.offset is not None else {}
    return m.predict(data, interval="prediction", **offset)


def report(m, directory):
    path = directory / "page.html"
    m.report(path)
    text = path.read_text(encoding="utf-8")
    assert "Traceback" not in text
    return None


QUESTIONS = {
    **{
        f"anova-{kind}-{ddf}": lambda m, kind=kind, ddf=ddf: m.anova(kind, ddf)
        for kind, ddf in [
            (1, "satterthwaite"), (2, "satterthwaite"), (3, "satterthwaite"), (3, "kr"), (1, "kr"),
            (3, "containment"), (2, "residual"), (3, "z"), (3, 7.5),
        ]
    },
    **{f"coefficients-{ddf}": lambda m, ddf=ddf: m.coefficients(ddf)
       for ddf in ("satterthwaite", "kr", "containment", "residual", "z", 7, "auto")},
    **{f"summary-{ddf}": lambda m, ddf=ddf: m.summary(ddf=ddf)
       for ddf in ("auto", "satterthwaite", "kr", "containment", "residual", "z", 7)},
    "test": lambda m: m.test(np.eye(max(len(m.fixef), 1))),
    "test-rows": lambda m: m.test({first(reversed(list(m.fixef)), "x"): 1.0}, joint=False),
    "small-sample": lambda m: m.small_sample(),
    "drop1-f": lambda m: m.drop1(),
    "drop1-lrt": lambda m: m.drop1(test="lrt"),
    "drop1-none": lambda m: m.drop1(test="none"),
    "test-fixed-wald": lambda m: m.test_fixed(term(m)),
    "test-fixed-lrt": lambda m: m.test_fixed(term(m), "lrt"),
    "test-fixed-bootstrap": lambda m: m.test_fixed(term(m), "bootstrap", n=9, seed=1),
    "test-random-lrt": lambda m: m.test_random(),
    "test-random-mixture": lambda m: m.test_random(method="mixture"),
    "test-random-rlrt": lambda m: m.test_random(method="rlrt", n=100, seed=1),
    "test-random-bootstrap": lambda m: m.test_random(group(m), method="bootstrap", n=9, seed=1),
    "lod": lambda m: m.lod(term(m)),
    "confint-wald": lambda m: m.confint(),
    "confint-satterthwaite": lambda m: m.confint("satterthwaite"),
    "confint-kr": lambda m: m.confint("kr"),
    "confint-profile": lambda m: m.confint("profile"),
    "confint-profile-sd": lambda m: m.confint("profile", parameters="sd"),
    "confint-bootstrap": lambda m: m.confint("bootstrap", n=25, seed=1),
    "confint-bootstrap-all": lambda m: m.confint("bootstrap", n=25, seed=1, kind="all"),
    "profile": lambda m: m.profile(parameters="sigma"),
    "bootstrap-parametric": lambda m: m.bootstrap(7, 1),
    "bootstrap-residual": lambda m: m.bootstrap(7, 1, kind="residual"),
    "bootstrap-cluster": lambda m: m.bootstrap(7, 1, kind="cluster"),
    "predict": lambda m: m.predict(se=True),
    "predict-population": lambda m: m.predict(re_form="population", interval="confidence"),
    "predict-kr": lambda m: m.predict(re_form="population", interval="confidence", ddf="kr"),
    "predict-new": new_rows,
    "predict-simulated": lambda m: m.predict(interval="prediction", method="simulation", n=20, seed=1),
    "simulate": lambda m: m.simulate(2, seed=1),
    "power": lambda m: mm.power(m, first(reversed(list(m.fixef)), "x"), n=6, seed=1, progress=False),
    "emmeans": lambda m: m.emmeans(factor(m)),
    "emmeans-response": lambda m: m.emmeans(factor(m), type="response", ddf="kr"),
    "emtrends": lambda m: m.emtrends("1", covariate(m)),
    "contrast": lambda m: m.contrast(factor(m), adjust="tukey"),
    "joint-tests": lambda m: m.joint_tests(),
    "compare": submodel,
    "icc": lambda m: m.icc(),
    "r2": lambda m: m.r2(),
    "variance-parts": lambda m: m.variance_parts(),
    "repca": lambda m: m.repca(),
    "vif": lambda m: m.vif(),
    "diagnose": lambda m: m.diagnose(),
    "influence-rows": lambda m: m.influence(),
    "influence-group": lambda m: m.influence(group(m)),
    "influence-refit": lambda m: m.influence(group(m), refit=True, progress=False),
    "leverage": lambda m: m.leverage(),
    "cooks-distance": lambda m: m.cooks_distance(),
    "standardized": lambda m: m.residuals("standardized"),
    "studentized": lambda m: m.residuals("studentized"),
    "simulated-residuals": lambda m: m.simulated_residuals(20, 1),
    "allfit": lambda m: m.allfit(["newton", "lbfgsb"]),
    **{f"robust-{kind}": lambda m, kind=kind: m.robust_vcov(kind).table
       for kind in ("CR0", "CR1", "CR1S", "CR2", "CR3")},
    "tidy": lambda m: m.tidy(("fixed", "ran_pars", "ran_vals", "ran_coefs"), conf_int=True),
    "tidy-fixed": lambda m: m.tidy(conf_int=True),
    "tidy-ran-vals": lambda m: m.tidy("ran_vals", conf_int=True),
    "tidy-profile": lambda m: m.tidy(conf_int=True, conf_method="profile"),
    "glance": lambda m: m.glance(),
    "augment": lambda m: m.augment(),
    "coef": lambda m: m.coef(condvar=True),
    "ranef": lambda m: m.ranef(condvar=True),
    "wald": lambda m: m.wald(),
    "update": lambda m: m.update(reml=False).criterion,
    "refit": lambda m: m.refit(m.simulate(1, seed=2)).criterion,
    "vcov": lambda m: m.vcov,
    "report": report,
}  # fmt: skip
PLOTS = {
    "residuals": lambda m: m.plot.residuals(),
    "qq": lambda m: m.plot.qq(),
    "scale-location": lambda m: m.plot.scale_location(),
    "caterpillar": lambda m: m.plot.caterpillar(),
    "ranef-qq": lambda m: m.plot.ranef_qq(),
    "shrinkage": lambda m: m.plot.shrinkage(),
    "influence": lambda m: m.plot.influence(),
    "profile": lambda m: m.plot.profile(parameters="sigma"),
    "profile-density": lambda m: m.plot.profile_density(parameters="sigma"),
    "profile-pairs": lambda m: m.plot.profile_pairs(parameters="sd"),
    "bootstrap": lambda m: m.plot.bootstrap(m.bootstrap(9, 1)),
    "means": lambda m: m.plot.means(m.emmeans(factor(m))),
    "simulated-residuals": lambda m: m.plot.simulated_residuals(n=20, seed=1),
}
LIBRARIES = {"polars": "polars", "pyarrow": "pyarrow", "dict": "builtins"}
WITHOUT_FRAME = ("matrices", "precision", "function")
# the first row of these tables is the model the others are compared with
COMPARISONS = ("Random terms left out", "Likelihood-ratio tests", "Single term deletions")


def remark(kind, m, answer):
    """What is wrong with an answer, or None."""
    if answer is None or isinstance(answer, (float, str)):
        return None if answer is None or answer == answer else "NaN"
    if isinstance(answer, np.ndarray):
        if answer.dtype.kind == "O":  # axes
            return None
        bad = ~np.isfinite(answer)
        allowed = kind in ("missing-exclude", "zero-weights") or m.dropped_columns
        return None if allowed or not bad.any() else f"{bad.sum()} values are not finite"
    for text in (str(answer), answer._repr_html_() if hasattr(answer, "_repr_html_") else ""):
        if "Traceback" in text or "object at 0x" in text:
            return f"rendered as {text[:80]}"
    if isinstance(answer, ResultTable):
        assert answer.to_html() and answer.to_latex() and answer.to_markdown()
    if hasattr(answer, "to_frame"):
        frame = answer.to_frame()
        library = LIBRARIES.get(kind, "pandas")
        if kind not in WITHOUT_FRAME and type(frame).__module__.split(".")[0] != library:
            return f"a frame of {type(frame).__module__}"
    if isinstance(answer, ResultTable) and not answer.notes:
        start = int(answer.title.startswith(COMPARISONS))
        for name, column in answer.columns.items():
            if column.dtype.kind == "f" and np.isnan(column[start:]).any():
                return f"NaN in {name} without a note: {column.tolist()[:6]}"
    return None


def ask(kind, name, question, directory):
    """None for a good answer or a clear refusal, otherwise what happened."""
    m = fitted(kind, directory) if kind == "loaded" else fitted(kind)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", mm.MixedModelsWarning)
        try:
            wants = len(inspect.signature(question).parameters) > 1 and name == "report"
            return remark(kind, m, question(m, directory) if wants else question(m))
        except mm.MixedModelsError as error:
            return None if len(str(error)) > 15 else f"the error says only {str(error)!r}"
        except Exception as error:  # any other error is the finding
            return f"{type(error).__name__}: {error}"


# ---------------------------------------------------------------------- tests

LIGHT = ("intercept", "no-fixed", "function", "variance-0", "missing-exclude", "loaded", "polars")


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("fits")


@pytest.mark.parametrize(
    "kind", [kind if kind in LIGHT else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS]
)
def test_every_question(kind, directory):
    pages = kind in LIGHT  # a page asks the other questions once more
    findings = {
        name: ask(kind, name, question, directory)
        for name, question in QUESTIONS.items()
        if pages or name != "report"
    }
    assert {name: finding for name, finding in findings.items() if finding} == {}


def numbers(answer):
    """The numbers of an answer by column; nothing where it has none."""
    if isinstance(answer, ResultTable):
        columns = dict(answer.columns)
    elif answer is None or isinstance(answer, np.ndarray):
        columns = {} if answer is None else {"": answer}
    elif isinstance(answer, float):
        columns = {"": np.array([answer])}
    else:
        frame = answer.to_frame() if hasattr(answer, "to_frame") else answer
        if not isinstance(frame, (dict, pd.DataFrame, pl.DataFrame, pa.Table)):
            return {}
        names = (
            frame.column_names
            if isinstance(frame, pa.Table)
            else list(frame if isinstance(frame, dict) else frame.columns)
        )
        columns = {str(name): np.asarray(frame[name]) for name in names}
    return {name: np.asarray(v, dtype=float) for name, v in columns.items() if v.dtype.kind in "fiu"}


def answers(m, names):
    """Numbers of the answers and texts of the refusals."""
    found = {}
    for name in names:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", mm.MixedModelsWarning)
            try:
                found[name] = numbers(QUESTIONS[name](m))
            except mm.MixedModelsError as error:
                found[name] = str(error)
    return found


NEED_DATA = ("report", "compare", "allfit", "glance", "update")
SAME = [name for name in QUESTIONS if name not in NEED_DATA]


@functools.cache
def usual_answers(kind):
    return answers(fitted(kind), SAME)


@pytest.mark.parametrize(
    ("kind", "usual"),
    [
        ("loaded", "slope"),
        *(
            pytest.param(kind, usual, marks=pytest.mark.slow)
            for kind, usual in [
                ("polars", "intercept"),
                ("pyarrow", "intercept"),
                ("dict", "intercept"),
                ("offset-array", "offset"),
                ("dense", "intercept"),
            ]
        ),
    ],
)
def test_the_same_model_gives_the_same_answers(kind, usual, directory):
    m = fitted(kind, directory) if kind == "loaded" else fitted(kind)
    found, expected = answers(m, SAME), usual_answers(usual)
    for name in SAME:
        if isinstance(expected[name], str):
            assert found[name] == expected[name], name
            continue
        assert found[name].keys() == expected[name].keys(), name
        for column, values in expected[name].items():
            # the optimum is found to about 1e-8, which small p-values and quantiles of draws multiply
            scale = np.max(np.abs(values[np.isfinite(values)]), initial=1e-6)
            np.testing.assert_allclose(
                found[name][column], values, rtol=1e-5, atol=1e-6 * scale, err_msg=f"{name}, {column}"
            )


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_plot(kind, directory):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.switch_backend("agg")
    try:
        findings = {name: ask(kind, name, plot, directory) for name, plot in PLOTS.items()}
    finally:
        pyplot.close("all")
    assert {name: finding for name, finding in findings.items() if finding} == {}
