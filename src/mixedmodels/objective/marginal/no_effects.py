r"""A generalised linear model: no random effects are left to integrate out.

.. math:: d(\gamma) = -2 \sum_i \log f(y_i \mid \eta_i), \qquad \eta_c = X_c\gamma + o_c,

with all constants: its value compares with the approximations for models with random effects.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mixedmodels.design import GeneralisedDesign
from mixedmodels.family.base import Family
from mixedmodels.family.jet import place
from mixedmodels.objective.marginal.base import Evaluation, Modes
from mixedmodels.solver.base import Breakdown

__all__ = ["NoRandomEffects"]


class NoRandomEffects:
    """The exact likelihood of a design without random terms; the contract is `Marginal`.

    Parameters
    ----------
    design : GeneralisedDesign
    family : Family
    """

    name = "no random effects"
    reason = "the model has no random terms"
    entries: tuple[tuple[int, int, int], ...] = ()
    exact_hessian = True

    def __init__(self, design: GeneralisedDesign, family: Family) -> None:
        self.design, self.family = design, family
        ones = np.ones((design.n, 1))
        self._X = [ones if p.X is None else np.asarray(p.X) for p in design.predictors]

    def describe(self) -> str:
        """One line: which method on which sizes."""
        return f"generalised linear model: n = {self.design.n}, no random effects"

    def _eta(self, gamma: np.ndarray) -> np.ndarray:
        out = np.empty((len(self._X), self.design.n))
        for c, (X, predictor) in enumerate(zip(self._X, self.design.predictors, strict=True)):
            out[c] = X @ gamma[predictor.columns]
            if predictor.offset is not None:
                out[c] += predictor.offset
        return out

    def evaluate(self, gamma: np.ndarray, factors: Sequence[np.ndarray], order: int = 0) -> Evaluation:
        """Value (order 0), gradient (1) and exact Hessian (2)."""
        eta = self._eta(np.asarray(gamma, dtype=float))
        C = len(eta)
        everything = tuple(range(C))
        table = self.family.derivatives(self.design.data, list(eta), order, everything)
        if not np.isfinite(table).all():
            raise Breakdown("the likelihood cannot be computed there: a mean is out of its range")
        value = -2.0 * float(table[0].sum())
        if order == 0:
            return Evaluation(value)
        where, unit = place(C, order), np.eye(C, dtype=int)
        P = len(self.design.gamma_names)
        gradient, hessian = np.zeros(P), np.zeros((P, P))
        for c, (X, predictor) in enumerate(zip(self._X, self.design.predictors, strict=True)):
            gradient[predictor.columns] -= 2.0 * (X.T @ table[where[tuple(unit[c])]])
            for d, (other, own) in enumerate(zip(self._X, self.design.predictors, strict=True)):
                if order > 1:
                    second = table[where[tuple(unit[c] + unit[d])]]
                    hessian[np.ix_(predictor.columns, own.columns)] -= 2.0 * (X.T @ (second[:, None] * other))
        if order == 1:
            return Evaluation(value, gradient)
        return Evaluation(value, gradient, hessian, hessian)

    def newton(self, gamma: np.ndarray, factors: Sequence[np.ndarray]) -> Evaluation:
        """Value, gradient and Hessian."""
        return self.evaluate(gamma, factors, 2)

    def modes(self, gamma: np.ndarray, factors: Sequence[np.ndarray]) -> Modes:
        """The linear predictors; there are no modes."""
        gamma = np.asarray(gamma, dtype=float)
        return Modes((), (), self._eta(gamma), self.evaluate(gamma, factors).value, 0.0)

    def conditional_covariance(
        self, gamma: np.ndarray, factors: Sequence[np.ndarray], term: int
    ) -> np.ndarray:
        """There is no term."""
        raise IndexError(f"the model has no random term {term}")

    def predictor_variances(self, gamma: np.ndarray, factors: Sequence[np.ndarray]) -> np.ndarray:
        """Zeros, shape (n,)."""
        return np.zeros(self.design.n)
