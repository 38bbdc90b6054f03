"""Definitions against R's nlme: at nlme's parameters the likelihood is nlme's, to rounding.

Nothing is fitted here: the variance matrix is built from the values that nlme 3.1-162 (R 4.2.2) printed,
and the profiled likelihood must be the one that it printed. The R call of each fit stands in
``references/residual/nlme.json``.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mixedmodels.frame.build import build
from mixedmodels.testing import dense_residual

REFERENCES = Path(__file__).parent.parent / "references"
FITS = json.loads((REFERENCES / "residual" / "nlme.json").read_text(encoding="utf-8"))
FACTORS = ("Subject", "Sex", "Rat", "Diet", "Mare", "QB", "variety", "Block")


def table(name):
    data = pd.read_csv(REFERENCES / "data" / f"{name}.csv", dtype=dict.fromkeys(FACTORS, str))
    if name == "Orthodont":
        data["occ"] = (data["age"] / 2 - 3).astype(int)
        data["Sex"] = pd.Categorical(data["Sex"], ["Male", "Female"])
    return data


def formula(fit):
    """The formula of the R call, with its random part as bars."""
    fixed = re.search(r"\((\w+ ~ .*?), data", fit["call"])[1]
    bars = []
    for part in fit["random"]:
        terms = " + ".join(t for t in part["terms"] if t != "(Intercept)")
        intercept = "1" if "(Intercept)" in part["terms"] else "0"
        bars.append(f" + ({intercept}{' + ' + terms if terms else ''} | {part['group']})")
    return fixed + "".join(bars)


def log_likelihood(fit):
    """Log-likelihood at nlme's variance parameters with the coefficients profiled out; R there; residuals."""
    frame = build(formula(fit), table(fit["data"]), residual=fit["residual"])
    design = frame.design
    bound = design.residual
    phi = bound.phi_of(fit["natural"])
    back = bound.natural(phi)
    for name, value in zip(back.names, back.values, strict=True):
        assert value == pytest.approx(fit["natural"][name], rel=1e-9)
    V = fit["sigma"] ** 2 * dense_residual(bound, phi)
    for term, part in zip(design.terms, fit["random"], strict=True):
        Z = np.ones((design.n, 1)) if term.Z is None else term.Z
        V += np.where(term.codes[:, None] == term.codes, Z @ np.array(part["cov"]) @ Z.T, 0.0)
    X, y, n, p = design.X, design.y, design.n, design.p
    L = np.linalg.cholesky(V)
    WX, Wy = np.linalg.solve(L, X), np.linalg.solve(L, y)
    beta = np.linalg.lstsq(WX, Wy, rcond=None)[0]
    rest = Wy - WX @ beta
    criterion = 2 * np.log(np.diagonal(L)).sum() + rest @ rest
    free = n
    if fit["reml"]:
        # nlme leaves log|X'X| out of its restricted likelihood
        criterion += np.linalg.slogdet(WX.T @ WX)[1]
        free = n - p
    return -0.5 * (criterion + free * math.log(2 * math.pi)), bound.at(phi), y - X @ beta


@pytest.mark.parametrize("name", FITS)
def test_likelihood_at_the_parameters_of_nlme(name):
    fit = FITS[name]
    value, _, _ = log_likelihood(fit)
    assert value == pytest.approx(fit["logLik"], rel=2e-9)


@pytest.mark.parametrize("name", [n for n in FITS if re.match("gls_(?!wheat2_exp_nugget|orthodont_cs)", n)])
def test_whitened_residuals_are_those_of_nlme(name):
    """residuals(fit, type = "normalized"): the whitening is nlme's, row by row.

    Not for the flat optimum gls_wheat2_exp_nugget, whose coefficients nlme does not have to enough digits,
    nor for compound symmetry: ours is the symmetric root, which does not depend on the order of the rows;
    nlme's is another one.
    """
    fit = FITS[name]
    _, point, residuals = log_likelihood(fit)
    found = point.whiten(residuals[:, None])[:, 0] / fit["sigma"]
    head = fit["normalized"]
    np.testing.assert_allclose(found[: len(head)], head, rtol=1e-5, atol=1e-6)
