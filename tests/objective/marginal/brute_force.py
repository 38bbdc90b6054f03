"""Integrals over random effects by fine fixed grids in log space, group by group: nothing adaptive, no mode.

The trapezoidal rule converges geometrically for a smooth integrand that vanishes at both ends, so a grid over
(-12, 12) with a step of 1/40 is exact to rounding for posterior standard deviations above 0.1. Also the small
designs that the tests of quadrature share.
"""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
from scipy.special import logsumexp

from mixedmodels.design import GeneralisedDesign, Predictor, RandomTerm
from mixedmodels.family import Observations, get_family

FREE = SimpleNamespace(entries=None)  # a lower triangle of free entries
HALF_LOG_2PI = 0.5 * np.log(2.0 * np.pi)


def _grid(k, step, end=12.0):
    """Points (J, k) and ``log(step^k phi(u))``."""
    line = np.arange(-end, end + step / 2.0, step)
    u = np.array(list(itertools.product(line, repeat=k))) if k > 1 else line[:, None]
    return u, k * np.log(step) - 0.5 * np.sum(u * u, axis=1) - k * HALF_LOG_2PI


def _rows(data, rows, times):
    index = np.tile(rows, times)
    pick = {name: None if v is None else v[index] for name, v in (("t", data.trials), ("w", data.weights))}
    return Observations(data.y[index], trials=pick["t"], weights=pick["w"], levels=data.levels)


def _log_density(design, family, eta, rows, shifts):
    """Log-density of some rows, (J, rows), with shifts (C, J, rows) of their linear predictors."""
    full = (eta[:, None, rows] + shifts).reshape(len(eta), -1)
    table = family.derivatives(_rows(design.data, rows, shifts.shape[1]), list(full), 0, ())
    return np.where(np.isfinite(table[0]), table[0], -np.inf).reshape(shifts.shape[1:])


def _fixed(design, gamma):
    eta = np.zeros((len(design.predictors), design.n))
    for c, predictor in enumerate(design.predictors):
        X = np.ones((design.n, 1)) if predictor.X is None else predictor.X
        eta[c] = X @ gamma[predictor.columns] + (0.0 if predictor.offset is None else predictor.offset)
    return eta


def _shifts(design, factors, terms, rows, u):
    """Shift of the predictors of the rows at points u (J, columns of all these terms)."""
    out, at = np.zeros((len(design.predictors), len(u), len(rows))), 0
    for b in terms:
        term = design.terms[b]
        Z = np.ones((design.n, 1)) if term.Z is None else term.Z
        out[design.term_predictor[b]] += u[:, at : at + term.k] @ factors[b].T @ Z[rows].T
        at += term.k
    return out


def deviance(design, family, gamma, factors, step=0.025, end=12.0):
    """-2 log-likelihood of a model whose terms share one grouping factor."""
    eta, total = _fixed(design, gamma), 0.0
    codes, terms = design.terms[0].codes, range(len(design.terms))
    u, log_phi = _grid(sum(term.k for term in design.terms), step, end)
    for level in np.unique(codes):
        rows = np.flatnonzero(codes == level)
        logs = _log_density(design, family, eta, rows, _shifts(design, factors, terms, rows, u))
        total += logsumexp(logs.sum(axis=1) + log_phi)
    return -2.0 * total


def nested_deviance(design, family, gamma, factors, outer=0, inner=1, step=0.05, end=9.0):
    """-2 log-likelihood with the term `inner` nested in `outer`, one effect each."""
    eta, total = _fixed(design, gamma), 0.0
    v, log_phi = _grid(1, step, end)
    for level in np.unique(design.terms[outer].codes):
        logs = log_phi.copy()
        own = design.terms[outer].codes == level
        for cell in np.unique(design.terms[inner].codes[own]):
            rows = np.flatnonzero(own & (design.terms[inner].codes == cell))
            between = _shifts(design, factors, (outer,), rows, v)
            within = _shifts(design, factors, (inner,), rows, v)
            both = (between[:, :, None] + within[:, None]).reshape(len(eta), -1, len(rows))
            at = _log_density(design, family, eta, rows, both).sum(axis=1).reshape(len(v), len(v))
            logs += logsumexp(at + log_phi, axis=1)
        total += logsumexp(logs)
    return -2.0 * total


# ---------------------------------------------------------------------- designs and points
def _observations(family, n, eta, rng):
    data = Observations(np.zeros(n))
    if "binomial" in family.name and "negative" not in family.name:
        data = Observations(np.zeros(n), trials=rng.integers(1, 6, n).astype(float))
    return data.with_y(np.asarray(family.draw(data, list(eta), rng), dtype=float))


def one_factor(name, ks=(1,), predictors=(0,), groups=6, per=5, seed=1, link=None):
    """A design with terms of ks columns in the given predictors on one grouping factor; and a family."""
    rng = np.random.default_rng(seed)
    n = groups * per
    family = get_family(name, link) if isinstance(name, str) else name
    codes = rng.permutation(np.repeat(np.arange(groups), per)).astype(np.int32)
    return _design(family, rng, n, [(codes, groups, k, c) for k, c in zip(ks, predictors, strict=True)])


def two_factors(name, ks=((1, 0), (1, 0)), seed=1, crossed=False):
    """A design with terms (k, predictor) on an outer and then on an inner factor; and a family."""
    rng = np.random.default_rng(seed)
    n = 48
    inner = rng.permutation(np.repeat(np.arange(12), 4)).astype(np.int32)
    outer = rng.integers(0, 4, n).astype(np.int32) if crossed else (inner % 4).astype(np.int32)
    codes = ((outer, 4), (inner, 12))
    return _design(get_family(name), rng, n, [(*codes[b], k, c) for b, (k, c) in enumerate(ks)])


def _design(family, rng, n, parts):
    C = len(family.predictors)
    X = np.column_stack([np.ones(n), rng.normal(size=n)])
    predictors = [Predictor("conditional", X, np.arange(2), 0.1 * rng.normal(size=n))]
    names = ["one", "x"]
    for name in family.predictors[1:]:
        own = X if name == "dispersion" else None
        size = 1 if own is None else 2
        predictors.append(Predictor(name, own, np.arange(len(names), len(names) + size)))
        names += [f"{name}{j}" for j in range(size)]
    columns = np.column_stack([np.ones(n), rng.normal(size=(n, 3))])
    terms = []
    for codes, m, k, _ in parts:
        Z = None if k == 1 else np.ascontiguousarray(columns[:, :k])
        terms.append(RandomTerm(f"f{m}", tuple(f"z{j}" for j in range(k)), codes, range(m), Z, FREE))
    eta = np.zeros((C, n))
    eta[0] = 0.3 * X[:, 1] + rng.normal(size=parts[0][1])[parts[0][0]] * 0.5
    data = _observations(family, n, eta, rng)
    where = tuple(part[3] for part in parts)
    return GeneralisedDesign(data, tuple(predictors), tuple(names), tuple(terms), where), family


def point(engine, scale=0.8, seed=3):
    """Parameters to evaluate at, as one vector."""
    rng = np.random.default_rng(seed)
    entries = [scale if i == j else 0.4 * scale for _, i, j in engine.entries]
    return np.concatenate([0.2 * rng.normal(size=len(engine.design.gamma_names)), entries])


def split(engine, x):
    """gamma and the factors of a vector."""
    n_gamma = len(engine.design.gamma_names)
    factors = [np.zeros((term.k, term.k)) for term in engine.design.terms]
    for (b, i, j), value in zip(engine.entries, x[n_gamma:], strict=True):
        factors[b][i, j] = value
    return x[:n_gamma], factors


def difference(f, x, h=1e-3):
    """Derivative by differences of sixth order, one row per parameter."""
    rows = []
    for a in range(len(x)):
        e = np.zeros(len(x))
        e[a] = h
        rows.append(
            sum(c * (f(x + j * e) - f(x - j * e)) for j, c in ((1, 45.0), (2, -9.0), (3, 1.0))) / (60.0 * h)
        )
    return np.array(rows)
