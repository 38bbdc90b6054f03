"""Small data and one fit of every kind of generalised model, shared by the tests of this directory."""

from __future__ import annotations

import functools
import warnings

import numpy as np
import pandas as pd
import polars as pl
from scipy import stats

import mixedmodels as mm


@functools.cache
def rows(seed=11, groups=12, per=8):
    """A small data set with a response for every family."""
    rng = np.random.default_rng(seed)
    n = groups * per
    g = np.repeat(np.arange(groups), per)
    h = np.tile(np.arange(per) % 4, groups)
    k = rng.permutation(n) % 6
    x = rng.normal(size=n)
    z = np.tile(np.linspace(0.0, 1.0, per), groups)
    f = np.array(["a", "b", "c"])[rng.permutation(n) % 3]
    s = np.array(["s1", "s2"])[g % 2]
    effects = rng.multivariate_normal([0, 0], [[0.8, 0.1], [0.1, 0.4]], size=groups)
    own = 0.4 * x + 0.5 * (f == "b") - 0.3 * (s == "s2")
    eta = own + effects[g, 0] + effects[g, 1] * z + rng.normal(scale=0.5, size=6)[k]
    p = 1.0 / (1.0 + np.exp(-eta))
    size = rng.integers(4, 15, size=n)
    mean = np.exp(0.8 + 0.6 * eta)
    count = rng.poisson(mean)
    wide = rng.negative_binomial(1.5, 1.5 / (1.5 + mean))
    zero = rng.random(n) < 0.3
    beta = rng.beta(6 * p, 6 * (1 - p))
    tweedie = np.array([rng.gamma(2.0, m / 2.0, size=rng.poisson(1.2)).sum() for m in mean])
    return pd.DataFrame(
        {
            "y": 2.0 + eta + rng.normal(size=n),
            "b": (rng.random(n) < p).astype(int),
            "size": size,
            "s_": rng.binomial(size, p),
            "wide_s": rng.binomial(size, np.clip(rng.beta(3 * p, 3 * (1 - p)), 1e-9, 1 - 1e-9)),
            "count": count,
            "wide": wide,
            "zip": np.where(zero, 0, count),
            "hurdle": np.where(zero, 0, count + 1),
            "positive": count + 1,
            "widepos": wide + 1,
            "gamma": rng.gamma(4.0, mean / 4.0) + 1e-3,
            "wald": rng.wald(mean, 4.0 * mean) + 1e-3,
            "beta": np.clip(beta, 1e-4, 1 - 1e-4),
            "ordbeta": np.where(beta < 0.15, 0.0, np.where(beta > 0.9, 1.0, beta)),
            "tweedie": tweedie,
            "heavy": 2.0 + eta + stats.t(4).rvs(n, random_state=rng),
            "flat": rng.poisson(2.0, size=n),
            "apart": np.where(f == "c", 1, (rng.random(n) < p).astype(int)),
            "x": x,
            "z": z,
            "f": f,
            "s": s,
            "g": [f"g{i:02d}" for i in g],
            "h": [f"h{i}" for i in h],
            "k": [f"k{i}" for i in k],
            "row": [f"r{i:03d}" for i in range(n)],
            "w": rng.integers(1, 4, size=n),
            "w0": np.where(np.arange(n) % 11 == 3, 0.0, 1.0),
            "o": rng.normal(scale=0.2, size=n),
            "xm": np.where(np.arange(n) % 13 == 5, np.nan, x),
            "x2": 2.0 * x - 1.0,
        }
    )


def glmm(formula, family, data=None, **options):
    """A fit to the rows, without a progress line."""
    return mm.glmm(formula, rows() if data is None else data, family=family, progress=False, **options)


def plain(data):
    return {name: np.asarray(values) for name, values in data.items()}


KINDS = {
    "binary": lambda: glmm("b ~ x + f + (1 | g)", "binomial"),
    "counts-of-trials": lambda: glmm("cbind(s_, size - s_) ~ x + f + (1 | g)", "binomial"),
    "trials": lambda: glmm("s_ ~ x + f + (z | g)", "binomial", trials="size"),
    "probit": lambda: glmm("b ~ x + f + (1 | g)", "binomial", link="probit"),
    "cloglog": lambda: glmm("s_ ~ x + f + (1 | g)", "binomial", link="cloglog", trials="size"),
    "poisson": lambda: glmm("count ~ x + f + (1 | g)", "poisson"),
    "poisson-offset": lambda: glmm("count ~ x + f + offset(o) + (1 | g)", "poisson"),
    "offset-array": lambda: glmm("count ~ x + f + (1 | g)", "poisson", offset=rows().o.to_numpy()),
    "row-effects": lambda: glmm("wide ~ x + f + (1 | g) + (1 | row)", "poisson"),
    "nbinom1": lambda: glmm("wide ~ x + f + (1 | g)", "nbinom1"),
    "nbinom2": lambda: glmm("wide ~ x + f + (z || g)", "nbinom2"),
    "poisson-limit": lambda: glmm("flat ~ x + f + (1 | g)", "nbinom2"),
    "genpois": lambda: glmm("wide ~ x + f + (1 | g)", "genpois"),
    "compois": lambda: glmm("count ~ x + f + (1 | g)", "compois"),
    "gamma": lambda: glmm("gamma ~ x + f + (1 | g)", "gamma", link="log"),
    "inverse-gaussian": lambda: glmm("wald ~ x + f + (1 | g)", "inverse_gaussian", link="log"),
    "lognormal": lambda: glmm("gamma ~ x + f + (1 | g)", "lognormal"),
    "beta": lambda: glmm("beta ~ x + f + (1 | g)", "beta"),
    "ordered-beta": lambda: glmm("ordbeta ~ x + f + (1 | g)", "ordbeta"),
    "betabinomial": lambda: glmm("wide_s ~ x + f + (1 | g)", "betabinomial", trials="size"),
    "tweedie": lambda: glmm("tweedie ~ x + f + (1 | g)", "tweedie"),
    "student": lambda: glmm("heavy ~ x + f + (1 | g)", "student"),
    "truncated": lambda: glmm("positive ~ x + f + (1 | g)", "truncated_poisson"),
    "zero-inflated": lambda: glmm("zip ~ x + f + (1 | g)", "poisson", zero_inflation="~ 1"),
    "zero-inflated-effects": lambda: glmm(
        "zip ~ x + (1 | g)", "poisson", zero_inflation="~ x + (1 | k)"
    ),
    "hurdle": lambda: glmm("hurdle ~ x + f + (1 | g)", "truncated_poisson", zero_inflation="~ x"),
    "hurdle-nbinom2": lambda: glmm("hurdle ~ x + (1 | g)", "truncated_nbinom2", zero_inflation=True),
    "dispersion": lambda: glmm("wide ~ x + f + (1 | g)", "nbinom2", dispersion="~ x"),
    "dispersion-gaussian": lambda: glmm("y ~ x + f + (1 | g)", "gaussian", dispersion="~ s"),
    "gaussian": lambda: glmm("y ~ x + f + (1 | g)", "gaussian"),
    "gaussian-log": lambda: glmm("gamma ~ x + f + (1 | g)", "gaussian", link="log"),
    "slope": lambda: glmm("count ~ x + f + (z | g)", "poisson"),
    "crossed": lambda: glmm("count ~ x * f + (1 | g) + (1 | k)", "poisson"),
    "nested": lambda: glmm("count ~ x + f + (1 | s/g)", "poisson"),
    "singular": lambda: glmm("flat ~ x + f + (1 | h) + (1 | k)", "poisson"),
    "separated": lambda: glmm("apart ~ f + (1 | g)", "binomial"),
    "weights": lambda: glmm("b ~ x + f + (1 | g)", "binomial", weights="w"),
    "zero-weights": lambda: glmm("count ~ x + f + (1 | g)", "poisson", weights="w0"),
    "missing-omit": lambda: glmm("count ~ xm + f + (1 | g)", "poisson"),
    "missing-exclude": lambda: glmm("count ~ xm + f + (1 | g)", "poisson", na_action="exclude"),
    "polars": lambda: glmm("count ~ x + f + (1 | g)", "poisson", pl.from_pandas(rows())),
    "dict": lambda: glmm("count ~ x + f + (1 | g)", "poisson", plain(rows())),
    "quadrature": lambda: glmm("b ~ x + f + (1 | g)", "binomial", nagq=7),
    "fast": lambda: glmm("b ~ x + f + (1 | g)", "binomial", nagq=0),
    "priors": lambda: glmm("apart ~ f + (1 | g)", "binomial", priors={"fc": ("normal", 0, 2.5)}),
    "fixed": lambda: glmm("count ~ x + f + (1 | g)", "poisson", fixed={"x": 0.2}),
    "equal": lambda: glmm("count ~ x + f + (1 | g)", "poisson", equal=[["fb", "fc"]]),
    "expected": lambda: glmm("b ~ x + f + (1 | g)", "binomial", link="probit", information="expected"),
    "null": lambda: glmm("count ~ 1 + (1 | g)", "poisson"),
    "no-fixed": lambda: glmm("count ~ 0 + (1 | g)", "poisson"),
    "rank-deficient": lambda: glmm("count ~ x + x2 + f + (1 | g)", "poisson"),
    "odd-names": lambda: glmm(
        "`my y` ~ `a b` + f + (`a b` | `größe 1`)",
        "poisson",
        rows().rename(columns={"count": "my y", "x": "a b", "g": "größe 1"}),
    ),
}  # fmt: skip


@functools.cache
def fitted(kind):
    """The fit of a kind; its warnings are seen elsewhere."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mm.MixedModelsWarning)
        return KINDS[kind]()
