"""Models without random effects: the exact likelihood and its derivatives."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mixedmodels.design import GeneralisedDesign, Predictor
from mixedmodels.family import Observations, get_family
from mixedmodels.family.zero import with_zeros
from mixedmodels.objective.marginal.base import Marginal
from mixedmodels.objective.marginal.choose import choose_marginal
from mixedmodels.solver.base import Breakdown


def design(family, y, X, offset=None):
    predictors = [Predictor("conditional", X, np.arange(X.shape[1]), offset)]
    names = [f"x{j}" for j in range(X.shape[1])]
    for name in family.predictors[1:]:
        predictors.append(Predictor(name, None, np.array([len(names)])))
        names.append(name)
    return GeneralisedDesign(Observations(y), tuple(predictors), tuple(names), (), ())


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)
    X = np.column_stack([np.ones(40), rng.normal(size=40)])
    return rng.poisson(1.5, size=40).astype(float), X


@pytest.mark.parametrize("nagq", [1, 9])
def test_the_constant_mean_of_a_poisson_model(rows, nagq):
    y, X = rows
    family = get_family("poisson")
    engine = choose_marginal(design(family, y, X[:, :1]), family, nagq)
    assert isinstance(engine, Marginal)
    found = engine.evaluate(np.array([math.log(y.mean())]), [], 2)
    expected = sum(v * math.log(y.mean()) - y.mean() - math.lgamma(v + 1) for v in y)
    assert found.value == pytest.approx(-2 * expected, rel=1e-13)
    assert found.gradient[0] == pytest.approx(0.0, abs=1e-9)
    assert found.hessian[0, 0] == pytest.approx(2 * y.sum(), rel=1e-12)


@pytest.mark.parametrize(
    "family", [get_family("negative_binomial"), with_zeros(get_family("nbinom1"))], ids=repr
)
def test_derivatives_by_all_predictors(family, rows):
    y, X = rows
    engine = choose_marginal(design(family, y, X, np.linspace(0.0, 0.3, 40)), family)
    gamma = np.array([0.3, 0.2, 0.5, -1.0])[: 1 + len(family.predictors)]
    found = engine.newton(gamma, [])
    step = 1e-5
    for j in range(len(gamma)):
        shift = step * np.eye(len(gamma))[j]
        up, down = engine.evaluate(gamma + shift, [], 1), engine.evaluate(gamma - shift, [], 1)
        assert found.gradient[j] == pytest.approx((up.value - down.value) / (2 * step), rel=1e-6, abs=1e-6)
        assert found.hessian[j] == pytest.approx(
            (up.gradient - down.gradient) / (2 * step), rel=1e-6, abs=1e-6
        )
    assert engine.modes(gamma, []).penalised == pytest.approx(found.value, rel=1e-14)
    assert engine.predictor_variances(gamma, []).tolist() == [0.0] * 40
    assert "n = 40" in engine.describe()


def test_means_out_of_range_are_refused(rows):
    y, X = rows
    family = get_family("gamma", "identity")
    engine = choose_marginal(design(family, y + 1.0, X), family)
    with pytest.raises(Breakdown, match="out of its range"):
        engine.evaluate(np.array([-1.0, 0.0, 0.0]), [])
