"""Starting values: the compiled least squares are those of NumPy, for every density that has them."""

from __future__ import annotations

import numpy as np
import pytest

from mixedmodels.design import GeneralisedDesign, Predictor
from mixedmodels.family import Observations, get_family
from mixedmodels.objective import glmm_start


def design_of(kind, n=60):
    """Rows with two covariates, weights and an offset, and no random effects."""
    rng = np.random.default_rng(4)
    X = np.column_stack([np.ones(n), rng.normal(size=(n, 2))])
    offset, weights = 0.1 * rng.normal(size=n), rng.uniform(0.5, 2.0, n)
    eta = X @ [0.2, 0.5, -0.4] + offset
    trials = None
    if kind == "binomial":
        trials = rng.integers(1, 9, n).astype(float)
        y = rng.binomial(trials.astype(int), 1.0 / (1.0 + np.exp(-eta))).astype(float)
    else:
        y = rng.poisson(np.exp(eta)).astype(float)
    predictor = Predictor("conditional", X, np.arange(3), offset)
    data = Observations(y, trials=trials, weights=weights)
    return GeneralisedDesign(data, (predictor,), ("a", "b", "c"), (), ())


@pytest.mark.parametrize("family, link", [("binomial", "logit"), ("binomial", "probit"), ("poisson", "log")])
def test_compiled_steps(family, link, monkeypatch):
    design, distribution = design_of(family), get_family(family, link)
    assert distribution.kernel
    compiled = glmm_start.coefficient_start(design, distribution)
    monkeypatch.setattr(glmm_start, "COMPILED", 0)
    plain = glmm_start.coefficient_start(design, distribution)
    for one, other in zip(compiled, plain, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)
    assert np.array_equal(np.sign(plain[0]), [1.0, 1.0, -1.0])


def test_dependent_columns_leave_it_to_numpy():
    design = design_of("poisson")
    predictor = design.predictors[0]
    X = np.column_stack([predictor.X[:, :2], np.zeros(design.n)])
    from dataclasses import replace

    flat = replace(design, predictors=(replace(predictor, X=X),))
    gamma, weights, _ = glmm_start.coefficient_start(flat, get_family("poisson"))
    assert np.isfinite(gamma).all() and (weights > 0.0).all()
