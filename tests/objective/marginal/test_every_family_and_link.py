"""Every family with every link: engines, derivatives and quadrature against independent computations."""

from __future__ import annotations

import numpy as np
import pytest
from tests.objective.marginal.brute_force import FREE, deviance

from mixedmodels.design import GeneralisedDesign, Predictor, RandomTerm
from mixedmodels.family import FAMILIES, Observations
from mixedmodels.family.thresholds import KINDS
from mixedmodels.objective.marginal.blocked import BlockedLaplace
from mixedmodels.objective.marginal.dense import DenseLaplace
from mixedmodels.objective.marginal.grouped import GroupedLaplace
from mixedmodels.objective.marginal.quadrature import Quadrature
from mixedmodels.testing.marginal import check_marginal

# Intercept and size of the effects: means stay where the link allows them.
PLACES = {
    "identity": (4.0, 0.25),
    "log": (0.6, 0.35),
    "inverse": (0.8, 0.08),
    "1/mu^2": (0.8, 0.08),
    "sqrt": (1.8, 0.25),
    "logit": (0.2, 0.5),
    "probit": (0.2, 0.4),
    "cloglog": (-0.4, 0.4),
    "loglog": (0.3, 0.4),
    "cauchit": (0.2, 0.4),
}
PROBABILITIES = {"log": (-1.2, 0.12), "identity": (0.5, 0.06)}
OTHERS = {"dispersion": 0.3, "power": 0.2, "df": 2.0, "cutpoint": -1.0, "log_gap": 0.7}
PAIRS = [(name, link) for name in sorted(FAMILIES) for link in FAMILIES[name].links]


def model(name, link, groups=5, rows=7):
    """A small model with one scalar term, parameters, and the family."""
    rng = np.random.default_rng([ord(c) for c in name + link])
    family = FAMILIES[name](link)
    if name == "cumulative":
        return ordinal(family, rng, groups, rows)
    n = groups * rows
    codes = np.repeat(np.arange(groups), rows).astype(np.int32)
    X = np.column_stack([np.ones(n), rng.uniform(-1.0, 1.0, n)])
    bounded = family.link.log_complement is not None and family.response in ("successes",)
    bounded = bounded or name in ("beta", "ordered_beta")
    middle, size = PROBABILITIES.get(link, PLACES[link]) if bounded else PLACES[link]
    predictors, gamma = [Predictor("conditional", X, np.arange(2))], [middle, 0.5 * size]
    for extra in family.predictors[1:]:
        predictors.append(Predictor(extra, None, np.array([len(gamma)])))
        gamma.append(OTHERS[extra])
    gamma = np.array(gamma)
    eta = [X @ gamma[:2] + size * rng.normal(size=groups).clip(-1.5, 1.5)[codes]]
    eta += [np.full(n, value) for value in gamma[2:]]
    trials = rng.integers(1, 6, n).astype(float) if family.response == "successes" else None
    rows_ = Observations(np.ones(n), trials=trials)
    data = Observations(np.asarray(family.draw(rows_, eta, rng), dtype=float), trials=trials)
    term = RandomTerm("g", ("(Intercept)",), codes, list(range(groups)), None, FREE)
    names = tuple(f"c{j}" for j in range(len(gamma)))
    design = GeneralisedDesign(data, tuple(predictors), names, (term,), (0,))
    return design, family, gamma, [np.array([[0.8 * size]])]


def ordinal(family, rng, groups, rows):
    """Categories with thresholds of the kind of the family; every category occurs."""
    n, K = groups * rows, 4
    codes = np.repeat(np.arange(groups), rows).astype(np.int32)
    X = rng.uniform(-1.0, 1.0, (n, 1))
    levels = tuple("abcd"[:K])
    y = np.append(np.arange(1.0, K + 1.0), rng.integers(1, K + 1, n - K))
    data = Observations(rng.permutation(y), levels=levels)
    names, columns = family.response_columns(data)
    tau = {"flexible": [-0.9, 0.3, 1.1], "symmetric": [0.2, 1.0], "symmetric2": [0.9]}
    tau = tau.get(family.thresholds, [-0.8, 1.1])
    shared = np.arange(1, 1 + len(names))
    predictors = (
        Predictor("conditional", X, np.arange(1)),
        Predictor("thresholds", columns["thresholds"], shared),
        Predictor("lower", columns["lower"], shared),
    )
    term = RandomTerm("g", ("(Intercept)",), codes, list(range(groups)), None, FREE)
    design = GeneralisedDesign(data, predictors, ("x", *names), (term,), (0,))
    return design, family, np.array([0.4, *tau]), [np.array([[0.6]])]


@pytest.mark.parametrize(("name", "link"), PAIRS)
def test_engines_equal_the_dense_algebra(name, link):
    design, family, gamma, factors = model(name, link)
    dense = DenseLaplace(design, family)
    check_marginal(GroupedLaplace(design, family), dense, gamma, factors)
    check_marginal(BlockedLaplace(design, family), dense, gamma, factors)


@pytest.mark.parametrize(("name", "link"), PAIRS)
def test_derivatives_equal_differences_of_the_criterion(name, link):
    check_differences(*model(name, link))


def check_differences(design, family, gamma, factors):
    engine = GroupedLaplace(design, family)
    psi = np.append(gamma, factors[0][0, 0])

    def at(v, order):
        return engine.evaluate(v[:-1], [v[-1:].reshape(1, 1)], order)

    found = at(psi, 2)
    lengths = (
        2e-3 * np.maximum(1.0, np.abs(psi)) * (0.2 if family.link.name in ("inverse", "1/mu^2") else 1.0)
    )
    for j, h in enumerate(lengths):
        e = np.zeros(len(psi))
        e[j] = h
        # eighth-order central differences: their own error is far below the tolerance
        weights = (4 / 5, -1 / 5, 4 / 105, -1 / 280)
        points = [(at(psi + k * e, 1), at(psi - k * e, 1)) for k in (1, 2, 3, 4)]
        slope = sum(w * (p.value - m.value) for w, (p, m) in zip(weights, points, strict=True)) / h
        column = sum(w * (p.gradient - m.gradient) for w, (p, m) in zip(weights, points, strict=True)) / h
        size = max(1.0, abs(found.value), np.abs(found.hessian).max())
        assert abs(slope - found.gradient[j]) < 1e-6 * size
        assert np.abs(column - found.hessian[j]).max() < 1e-6 * size


@pytest.mark.parametrize(("name", "link"), PAIRS)
def test_quadrature_equals_integration_on_a_grid(name, link):
    design, family, gamma, factors = model(name, link)
    value = Quadrature(design, family, 31).evaluate(gamma, factors, 0).value
    assert value == pytest.approx(deviance(design, family, gamma, factors), abs=2e-6)


@pytest.mark.parametrize("link", FAMILIES["cumulative"].links)
@pytest.mark.parametrize("kind", KINDS[1:])
def test_every_kind_of_thresholds(kind, link):
    model = ordinal(FAMILIES["cumulative"](link, kind), np.random.default_rng(12), 5, 7)
    design, family, gamma, factors = model
    dense = DenseLaplace(design, family)
    check_marginal(GroupedLaplace(design, family), dense, gamma, factors)
    check_marginal(BlockedLaplace(design, family), dense, gamma, factors)
    check_differences(*model)
