r"""The minimisation behind penalised mixed models, by turns.

At given variances the coefficients b go by coordinate descent (`mixedmodels.fit.penalised_path`); then (beta,
theta, sigma) are estimated for the response :math:`y - Cb`, the penalty's share in sigma included. Neither
raises :math:`-\ell + \lambda J(b/\sigma)`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mixedmodels.design import Design
from mixedmodels.fit.penalised_path import descend, descend_groups, largest_lambda
from mixedmodels.objective.lmm import LMMObjective
from mixedmodels.objective.lmm_priors import LinearPriors, RowPrior
from mixedmodels.objective.posterior import PosteriorObjective
from mixedmodels.optimize import minimize
from mixedmodels.solver.choose import choose_solver

__all__ = ["Problem", "State"]

_TURNS = 50
_SETTLED = 1e-9  # change of the criterion, per row, at which the turns end


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """A minimum: standardised coefficients b, those without penalty, theta, sigma, deviance and df of b."""

    b: np.ndarray
    beta: np.ndarray
    theta: np.ndarray
    sigma: float
    deviance: float
    df: float


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """A design, penalised columns as given and standardised, and the penalty."""

    design: Design
    raw: np.ndarray
    C: np.ndarray
    center: np.ndarray
    scale: np.ndarray
    ratio: float
    groups: tuple[np.ndarray, ...] | None

    @classmethod
    def of(
        cls, design: Design, raw: np.ndarray, ratio: float, groups: tuple[np.ndarray, ...] | None
    ) -> Problem:
        """The problem of columns as given."""
        intercept = "(Intercept)" in design.x_names
        center = raw.mean(axis=0) if intercept else np.zeros(raw.shape[1])
        scale = np.sqrt(np.mean((raw - center) ** 2, axis=0))
        C = (raw - center) / np.where(scale > 0.0, scale, 1.0)
        return cls(design, raw, C, center, scale, ratio, groups)

    def variances(
        self, b: np.ndarray, theta: np.ndarray | None, lam: float
    ) -> tuple[np.ndarray, float, np.ndarray, float]:
        """theta, sigma, beta and deviance for the response y - C b, the penalty's share in sigma included."""
        design = replace(self.design, y=self.design.y - self.C @ b)
        objective: Any
        if lam * float(np.abs(b).max(initial=0.0)) > 0.0:
            first, second = self.sizes(b)
            # -2 log p = 2 lam (first / sigma + second / sigma^2): inverse gamma priors without their power
            penalties = [
                RowPrior(None, 0, kind, (-1.0, lam * size), True)
                for kind, size in (("invgamma", first), ("invgamma-variance", second))
                if size > 0.0
            ]
            objective = PosteriorObjective(design, choose_solver, LinearPriors(penalties, [], []), False)
        else:
            objective = LMMObjective(design, choose_solver(design), False)
        optimum = minimize(objective, "newton", theta, certify=False)
        theta = np.asarray(optimum.theta)
        likelihood = getattr(objective, "likelihood", objective.value)
        beta = np.asarray(objective.solution(theta).beta)
        return theta, objective.sigma(theta), beta, float(likelihood(theta))

    def whitener(self, theta: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        """A function R -> ``V^{-1} R`` less its projection on X (V relative to sigma^2), any offset aside."""
        design = self.design
        objective = LMMObjective(design, choose_solver(design), False)
        at = objective.solver.responses_at(objective.factors(theta))
        weights = np.ones(design.n) if design.weights is None else design.weights

        def apply(R: np.ndarray) -> np.ndarray:
            beta, effects = at(np.ascontiguousarray(R))
            rest = R - design.X @ beta
            for term, b in zip(design.terms, effects, strict=True):
                if term.several_levels:
                    rest = rest - term.matrix(design.n) @ b.reshape(term.m * term.k, -1)
                    continue
                for j in range(term.k):
                    part = b[term.codes, j, :]
                    rest = rest - (part if term.Z is None else term.Z[:, [j]] * part)
            return weights[:, None] * rest

        return apply

    def at(self, lam: float, start: State) -> State:
        """The minimum at one penalty."""
        y = self.design.y if self.design.offset is None else self.design.y - self.design.offset
        state, last = start, math.inf
        for _ in range(_TURNS):
            PC = self.whitener(state.theta)(self.C)
            G, c = self.C.T @ PC, PC.T @ y
            l1, l2 = lam * self.ratio * state.sigma, lam * (1.0 - self.ratio)
            if self.groups is None:
                b = descend(G, c, l1, l2, state.b)
            else:
                b = descend_groups(G, c, l1, self.groups, state.b)
            theta, sigma, beta, deviance = self.variances(b, state.theta, lam)
            df = float(np.count_nonzero(b))
            if self.ratio == 0.0:
                df = float(np.trace(np.linalg.lstsq(G + l2 * np.eye(len(b)), G, rcond=None)[0]))
            state = State(b, beta, theta, sigma, deviance, df)
            first, second = self.sizes(b)
            criterion = 0.5 * deviance + lam * (first / sigma + second / sigma**2)
            if abs(last - criterion) < _SETTLED * self.design.n:
                break
            last = criterion
        return state

    def sizes(self, b: np.ndarray) -> tuple[float, float]:
        """The parts of J(b) of degree one and two."""
        if self.groups is not None:
            return float(sum(math.sqrt(len(g)) * np.linalg.norm(b[g]) for g in self.groups)), 0.0
        return self.ratio * float(np.abs(b).sum()), 0.5 * (1.0 - self.ratio) * float(b @ b)

    def null(self) -> State:
        """The model without penalised columns."""
        b = np.zeros(self.C.shape[1])
        theta, sigma, beta, deviance = self.variances(b, None, 0.0)
        return State(b, beta, theta, sigma, deviance, 0.0)

    def path(self, lambdas: np.ndarray) -> list[State]:
        """Minima at decreasing penalties, each begun at the one before."""
        state, out = self.null(), []
        for lam in lambdas.tolist():
            state = self.at(lam, state)
            out.append(state)
        return out

    def largest(self) -> float:
        """The smallest penalty at which nothing is left."""
        state = self.null()
        y = self.design.y if self.design.offset is None else self.design.y - self.design.offset
        c = self.whitener(state.theta)(self.C).T @ y / state.sigma
        return largest_lambda(c, self.ratio, self.groups)

    def rows(self, inside: np.ndarray) -> Problem:
        """The problem of some rows; levels that they do not see are left out."""
        design = self.design
        known: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        terms = []
        for term in design.terms:
            if id(term.codes) not in known:
                seen, codes = np.unique(term.codes[inside], return_inverse=True)
                known[id(term.codes)] = (seen, codes.reshape(-1).astype(np.int32))
            seen, codes = known[id(term.codes)]
            levels = [term.levels[i] for i in seen.tolist()]
            Z = None if term.Z is None else np.ascontiguousarray(term.Z[inside])
            terms.append(replace(term, codes=codes, levels=levels, Z=Z))
        part = replace(
            design,
            y=design.y[inside],
            X=np.ascontiguousarray(design.X[inside]),
            terms=tuple(terms),
            offset=None if design.offset is None else design.offset[inside],
            weights=None if design.weights is None else design.weights[inside],
        )
        return Problem.of(part, self.raw[inside], self.ratio, self.groups)

    def natural(self, state: State) -> tuple[np.ndarray, np.ndarray]:
        """Coefficients of the columns as given, and those without penalty."""
        b = np.where(self.scale > 0.0, state.b / np.where(self.scale > 0.0, self.scale, 1.0), 0.0)
        beta = np.array(state.beta)
        if "(Intercept)" in self.design.x_names:
            beta[self.design.x_names.index("(Intercept)")] -= float(self.center @ b)
        return b, beta
