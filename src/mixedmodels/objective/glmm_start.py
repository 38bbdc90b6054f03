r"""Starting values of a generalised linear mixed model.

1. Coefficients without random effects, by iteratively reweighted least squares on the family's own
   derivatives, from `Family.start`: :math:`w = -\partial^2 \log f/\partial\eta^2`,
   :math:`z = \eta + w^{-1}\,\partial \log f/\partial\eta`. Other predictors get the family's constants.
2. Variances by the moments of a linear mixed model for z with weights w and residual variance 1: one step of
   penalised quasi-likelihood (Breslow & Clayton 1993, J. Am. Stat. Assoc. 88:9-25) without its iterations.
3. Where a mean would be out of its range (log-binomial, a Gamma with identity link), coefficients move
   towards those of a constant mean until all are inside.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mixedmodels.design import Design, GeneralisedDesign, Predictor, RandomTerm
from mixedmodels.errors import SolverError
from mixedmodels.family.base import Family
from mixedmodels.family.jet import place
from mixedmodels.optimize.control import Control
from mixedmodels.optimize.trust_region import trust_region
from mixedmodels.solver import moments

if TYPE_CHECKING:
    from mixedmodels.objective.glmm import GLMMObjective

__all__ = ["coefficient_start", "feasible_coefficients", "starting_values", "working_response"]

STEPS = 2  # of reweighted least squares
COMPILED = 16  # columns up to which these are compiled loops
LARGEST = 2.0  # standard deviation on the scale of the linear predictor, or relative to the residuals'
SMALLEST = 0.1
SHRINK = 2.0  # inverse of the variance that levels are shrunken with
JOINT = Control(maxiter=8, tol=0.1, trace=False)  # for the coefficients of all predictors
OTHER = 0.5  # standard deviation of effects on other predictors


def starting_values(objective: GLMMObjective) -> np.ndarray:
    """A point of (gamma, theta) to begin from."""
    coordinates, family = objective.coordinates, objective.family
    design = coordinates.inner
    gamma, weights, working = coefficient_start(design, family)
    G = coordinates.B[: objective.n_gamma, : objective.n_gamma]
    E = coordinates.B[objective.n_gamma :, objective.n_gamma :]
    scale = 1.0
    if objective.metric is not coordinates.B:  # the linear predictor has units
        scale = float(np.sqrt(weights @ working**2 / weights.sum())) or 1.0
    factors = factor_start(design, weights, working, scale, family.link.name == "log")
    entries = np.array([factors[b][i, j] for b, i, j in coordinates.entries])
    inverse = coordinates.inverse
    if inverse is not None:
        return inverse @ np.concatenate([gamma, entries])
    theta = np.linalg.lstsq(E, entries, rcond=None)[0] if len(entries) else np.zeros(0)
    for b in coordinates.curved:
        term, own = objective.design.terms[b], coordinates.map.index[b]
        structure = term.covariance
        near = structure.theta_near(factors[b] @ factors[b].T)
        scales = structure.lower == 0.0
        if scales.any():  # moments give standard deviations; correlations begin where the structure does
            near = np.where(scales, near, structure.start)
        theta[own] = np.clip(near, structure.lower, structure.upper)
    return np.concatenate([np.linalg.solve(G, gamma), theta])


def working_response(
    design: GeneralisedDesign, family: Family, etas: list[np.ndarray]
) -> tuple[float, np.ndarray, np.ndarray]:
    """Log-likelihood; weights and working residual ``f' / w`` of the conditional predictor, shapes (n,).

    Rows whose curvature is not positive get a small weight instead.
    """
    value, score, second = family.derivatives(design.data, etas, 2, (0,))
    finite = np.isfinite(second)
    size = float(np.abs(second[finite]).mean()) if finite.any() else 1.0
    w = np.where(finite & (second < -1e-6 * size), -second, max(1e-6 * size, 1e-300))
    return float(value.sum()), w, np.where(np.isfinite(score), score, 0.0) / w


def coefficient_start(design: GeneralisedDesign, family: Family) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Coefficients gamma without random effects; weights and working residual of the rows there."""
    starts = family.start(design.data)
    compiled = _compiled_start(design, family, starts)
    if compiled is not None:
        return compiled
    gamma = np.zeros(len(design.gamma_names))
    for eta, predictor in zip(starts, design.predictors, strict=True):
        gamma[predictor.columns] = _least_squares(design, predictor, eta, None)
    conditional = design.predictors[0]
    value, kept, weights = -np.inf, gamma, (np.ones(design.n), np.zeros(design.n))
    for step in range(STEPS + 1):
        etas = linear_predictors(design, gamma)
        found, w, r = working_response(design, family, etas)
        if not np.isfinite(found):
            gamma = feasible_coefficients(design, family, gamma)
            etas = linear_predictors(design, gamma)
            found, w, r = working_response(design, family, etas)
        if not found >= value:  # the step before went too far
            return kept, *weights
        value, kept, weights = found, gamma, (w, r)
        if step < STEPS:
            gamma = gamma.copy()
            gamma[conditional.columns] = _least_squares(design, conditional, etas[0] + r, w)
    if len(design.predictors) > 1:
        kept = _joint(design, family, kept)
        _, w, r = working_response(design, family, linear_predictors(design, kept))
        weights = (w, r)
    return kept, *weights


def _compiled_start(
    design: GeneralisedDesign, family: Family, starts: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """What `coefficient_start` returns, for a compiled density with one predictor of few columns."""
    conditional, data = design.predictors[0], design.data
    X = conditional.X
    if not family.kernel or len(design.predictors) > 1 or X is None or not 0 < X.shape[1] <= COMPILED:
        return None
    from mixedmodels.solver._kernels.densities import reweighted

    rows = [
        None if a is None else np.ascontiguousarray(a, dtype=float)
        for a in (data.y, data.trials, data.weights, family.kernel_constant(data), conditional.offset)
    ]
    start = np.ascontiguousarray(starts[0], dtype=float)
    if start.shape != (design.n,):
        start = np.full(design.n, start)
    found = reweighted(family.kernel, *rows[:4], X, rows[4], start, STEPS)
    if found is None:
        return None
    gamma = np.zeros(len(design.gamma_names))
    gamma[conditional.columns] = found[0]
    return gamma, found[1], found[2]


def _joint(design: GeneralisedDesign, family: Family, gamma: np.ndarray) -> np.ndarray:
    """Coefficients without random effects, by a few steps of Newton's method.

    Shapes (a power, degrees of freedom) stay: without random effects they may run away.
    """
    C, size = len(design.predictors), len(gamma)
    where = place(C, 2)
    unit = np.eye(C, dtype=int)
    X = [np.ones((design.n, 1)) if p.X is None else p.X for p in design.predictors]
    columns = [p.columns for p in design.predictors]
    free = np.zeros(size, dtype=bool)
    for predictor in design.predictors:
        if predictor.name in ("conditional", "dispersion", "zero_inflation", "thresholds"):
            free[predictor.columns] = True
    start = gamma

    def newton(part: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        at = start.copy()
        at[free] = part
        table = family.derivatives(design.data, linear_predictors(design, at), 2, range(C))
        if not np.isfinite(table).all():
            raise FloatingPointError("a mean is out of its range")
        g, H = np.zeros(size), np.zeros((size, size))
        for c in range(C):
            np.add.at(g, columns[c], -2.0 * (table[where[tuple(unit[c])]] @ X[c]))
            for d in range(C):
                w = table[where[tuple(unit[c] + unit[d])]]
                np.add.at(H, np.ix_(columns[c], columns[d]), -2.0 * ((X[c] * w[:, None]).T @ X[d]))
        return -2.0 * float(table[0].sum()), g[free], H[np.ix_(free, free)]

    try:
        out = start.copy()
        out[free] = trust_region(newton, start[free], JOINT).theta
        return out
    except FloatingPointError:
        return gamma


def _total(design: GeneralisedDesign, family: Family, etas: list[np.ndarray]) -> float:
    return float(family.derivatives(design.data, etas, 0, (0,))[0].sum())


def linear_predictors(design: GeneralisedDesign, gamma: np.ndarray) -> list[np.ndarray]:
    """All linear predictors without random effects, one (n,) array each."""
    out = []
    for predictor in design.predictors:
        own = gamma[predictor.columns]
        eta = np.full(design.n, own[0]) if predictor.X is None else predictor.X @ own
        out.append(eta if predictor.offset is None else eta + predictor.offset)
    return out


def _least_squares(
    design: GeneralisedDesign, predictor: Predictor, target: np.ndarray, w: np.ndarray | None
) -> np.ndarray:
    target = np.broadcast_to(np.asarray(target, dtype=float), (design.n,))
    if predictor.offset is not None:
        target = target - predictor.offset
    if predictor.X is None:
        return np.array([target.mean() if w is None else float(w @ target) / float(w.sum())])
    X = predictor.X
    if X.shape[1] == 0:
        return np.zeros(0)
    XW = X if w is None else X * w[:, None]
    gram = XW.T @ X
    ridge = 1e-10 * float(np.trace(gram)) / len(gram)
    return np.linalg.solve(gram + ridge * np.eye(len(gram)), XW.T @ target)


def feasible_coefficients(design: GeneralisedDesign, family: Family, gamma: np.ndarray) -> np.ndarray:
    """gamma, or the first point on the way to a constant mean where every row has a likelihood.

    Raises
    ------
    SolverError
        Not even a constant mean is possible.
    """
    if np.isfinite(_total(design, family, linear_predictors(design, gamma))):
        return gamma
    conditional = design.predictors[0]
    starts = np.asarray(family.start(design.data)[0], dtype=float)
    centre = gamma.copy()
    for summary in (np.mean, np.median, np.max, np.min):
        level = float(summary(starts))
        centre[conditional.columns] = _least_squares(design, conditional, np.full(design.n, level), None)
        if np.isfinite(_total(design, family, linear_predictors(design, centre))):
            break
    else:
        raise SolverError(
            f"no starting values were found where every mean of {family!r} is possible; give start= with "
            "coefficients whose means are all inside, or choose another link"
        )
    share = 1.0
    for _ in range(40):
        share *= 0.8
        trial = centre + share * (gamma - centre)
        if np.isfinite(_total(design, family, linear_predictors(design, trial))):
            inside = centre + 0.9 * share * (gamma - centre)  # a little off the edge
            return inside
    return centre


def factor_start(
    design: GeneralisedDesign, weights: np.ndarray, working: np.ndarray, scale: float = 1.0, log: bool = False
) -> list[np.ndarray]:
    r"""Factors of all terms: moments of the working residual on the conditional predictor.

    Under a log link the working residual is that of the mean relative to the mean: effects of variance
    :math:`\sigma^2` give it the variance :math:`e^{\sigma^2} - 1`, which is solved for the sum of several
    terms where that is large. Standard deviations are kept between `SMALLEST` and `LARGEST` times `scale`.
    """
    if len(design.terms) == 1 and design.term_predictor == (0,) and _intercept(design.terms[0]):
        term = design.terms[0]
        found = intercept_moment(term.codes, term.m, working / scale, weights * scale**2)
        return [np.array([[scale * min(max(found, SMALLEST), LARGEST)]])]
    from mixedmodels.objective.start import moment_start

    factors = [OTHER * np.eye(term.k) for term in design.terms]
    working, weights = working / scale, weights * scale**2
    own = [b for b, c in enumerate(design.term_predictor) if c == 0]
    if not own:
        return factors
    terms = tuple(design.terms[b] for b in own)
    model = Design(working, np.empty((design.n, 0)), (), terms, weights=weights)
    moments = moment_start(model, 1.0)
    if log and len(own) > 1 and all(term.k == 1 for term in terms):
        total = sum(float(factor[0, 0]) ** 2 for factor in moments)
        if total > LARGEST**2:
            moments = [factor * np.sqrt(np.log1p(total) / total) for factor in moments]
    for b, factor in zip(own, moments, strict=True):
        term = design.terms[b]
        if term.k > 1 and term.covariance.clip == "block" and not term.several_levels:
            factors[b] = scale * np.linalg.cholesky(moment_matrix(term, weights, working))
            continue
        length = np.sqrt((factor**2).sum(axis=1))
        bounded = np.clip(length, SMALLEST, LARGEST)
        factors[b] = scale * factor * (bounded / np.where(length > 0.0, length, 1.0))[:, None]
    return factors


def _intercept(term: RandomTerm) -> bool:
    """Whether the factor of a term is its standard deviation."""
    structure = term.covariance
    plain = structure.entries is not None and structure.entries.tolist() == [[0, 0, 0]]
    alone = term.precision is None and not term.several_levels
    return plain and term.Z is None and term.k == 1 and alone


def intercept_moment(codes: np.ndarray, m: int, r: np.ndarray, w: np.ndarray) -> float:
    """What `mixedmodels.solver.moments.column_sd` says of one column of ones where sigma is 1."""
    a, c = np.bincount(codes, w, m), np.bincount(codes, w * r, m)
    total, squares = float(w.sum()), float(a @ a)
    default = 1.5 / math.sqrt((total if total > 0.0 else m) / m)
    variance = (float(c @ c) - total) / (squares * (1.0 + 1e-10) if squares > 0.0 else 1e-300)
    return min(max(math.sqrt(max(variance, 0.0)), moments.SMALLEST * default), moments.LARGEST * default)


def moment_matrix(term: RandomTerm, w: np.ndarray, r: np.ndarray) -> np.ndarray:
    r"""Covariance matrix of a term from moments of shrunken level estimates, shape (k, k).

    With :math:`S_l = Z_l'WZ_l`, :math:`a_l = (S_l + \kappa I)^{-1} Z_l'Wr` has
    :math:`E(a_l a_l') = A_l(S_l + S_l\Sigma S_l)A_l`, linear in Sigma. Eigenvalues are kept between the
    squares of `SMALLEST` and `LARGEST`. A rotation of the columns rotates the answer.
    """
    assert term.Z is not None
    Z, codes, m, k = term.Z, term.codes, term.m, term.k
    S, g = np.empty((m, k, k)), np.empty((m, k))
    for i in range(k):
        g[:, i] = np.bincount(codes, w * r * Z[:, i], m)
        for j in range(i + 1):
            S[:, i, j] = S[:, j, i] = np.bincount(codes, w * Z[:, i] * Z[:, j], m)
    A = np.linalg.inv(S + SHRINK * np.eye(k))
    a, B = np.einsum("lij,lj->li", A, g), A @ S
    known = np.einsum("lij,lkj->ik", B, A)
    left = np.einsum("lij,lmn->imjn", B, B).reshape(k * k, k * k)
    right = (a.T @ a - known).reshape(-1)
    Sigma = np.linalg.lstsq(left, right, rcond=None)[0].reshape(k, k)
    values, vectors = np.linalg.eigh(0.5 * (Sigma + Sigma.T))
    return np.asarray((vectors * np.clip(values, SMALLEST**2, LARGEST**2)) @ vectors.T)
