r"""What approximates a marginal likelihood: the contract of the Laplace and quadrature engines.

With gamma the coefficients of all linear predictors and Lambda = diag_b(I kron factor_b), an engine evaluates

.. math:: d(\gamma, \Lambda) = -2 \log \int \prod_i f(y_i \mid \eta_i) \,\phi(u)\, du, \qquad
          \eta_c = X_c\gamma + o_c + Z_c\Lambda u, \quad u \sim N(0, P^{-1}),

and its derivatives with respect to gamma and the free entries of the factors. Everything is in the
coordinates of the design it was given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol, runtime_checkable

import numpy as np

from mixedmodels.design import GeneralisedDesign
from mixedmodels.family.base import Family

__all__ = ["Evaluation", "Marginal", "Modes", "factor_entries"]


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """Minus twice the log-likelihood at a point, and derivatives.

    Attributes
    ----------
    value : float
    gradient : ndarray, shape (P,), or None
        With respect to gamma, then the entries of the factors.
    hessian : ndarray, shape (P, P), or None
        Second derivatives; an approximation where `Marginal.newton` returned it.
    penalised : ndarray, shape (P, P), or None
        Second derivatives of ``-2 sum log f + u'Pu`` at its minimum over u (without the determinant).
    """

    value: float
    gradient: np.ndarray | None = None
    hessian: np.ndarray | None = None
    penalised: np.ndarray | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Modes:
    """Conditional modes at a point.

    Attributes
    ----------
    u, b : tuple of ndarray, one (m, k) per term
        Spherical modes and ``b = u factor'``.
    eta : ndarray, shape (C, n)
        All linear predictors.
    penalised : float
        ``-2 sum log f + u'Pu``.
    logdet : float
        ``log|H| - log|P|``, ``H = Lambda'Z'WZ Lambda + P`` with the observed W.
    """

    u: tuple[np.ndarray, ...]
    b: tuple[np.ndarray, ...]
    eta: np.ndarray
    penalised: float
    logdet: float


@runtime_checkable
class Marginal(Protocol):
    """An engine; `mixedmodels.testing.check_marginal` checks it against `DenseLaplace` or brute force.

    Attributes
    ----------
    name : str
    reason : str
        Why it was taken.
    design : GeneralisedDesign
    family : Family
    entries : tuple of (term, row, column)
        Free entries of the factors, in the order of the derivatives.
    """

    name: str
    reason: str
    design: GeneralisedDesign
    family: Family
    entries: tuple[tuple[int, int, int], ...]

    def describe(self) -> str:
        """One line: which method on which sizes."""
        ...

    def evaluate(self, gamma: np.ndarray, factors: Sequence[np.ndarray], order: int = 0) -> Evaluation:
        """Value (order 0), gradient (1) and exact Hessian (2).

        Raises
        ------
        Breakdown
            The integral cannot be computed there: a mean out of range, a mode not found, overflow.
        """
        ...

    def newton(self, gamma: np.ndarray, factors: Sequence[np.ndarray]) -> Evaluation:
        """Value, gradient and a matrix for Newton's step: the Hessian where it is cheap, else a model."""
        ...

    def modes(self, gamma: np.ndarray, factors: Sequence[np.ndarray]) -> Modes:
        """Conditional modes of the random effects."""
        ...

    def conditional_covariance(
        self, gamma: np.ndarray, factors: Sequence[np.ndarray], term: int
    ) -> np.ndarray:
        """Diagonal blocks of ``Lambda H^{-1} Lambda'`` of one term, shape (m, k, k)."""
        ...

    def predictor_variances(self, gamma: np.ndarray, factors: Sequence[np.ndarray]) -> np.ndarray:
        """``z'Lambda H^{-1} Lambda'z`` of the conditional predictor of each row, shape (n,)."""
        ...


def factor_entries(design: GeneralisedDesign) -> tuple[tuple[int, int, int], ...]:
    """Entries (term, row, column) of the factors that some parameter moves, column by column."""
    moved = [term.covariance.entries for term in design.terms]
    keys = [None if entries is None else tuple([(i, j) for i, j, _ in entries.tolist()]) for entries in moved]
    return _column_by_column(tuple(keys), tuple([term.k for term in design.terms]))


@lru_cache(maxsize=128)
def _column_by_column(
    moved: tuple[tuple[tuple[int, int], ...] | None, ...], sizes: tuple[int, ...]
) -> tuple[tuple[int, int, int], ...]:
    out = []
    for b, (places, k) in enumerate(zip(moved, sizes, strict=True)):
        found = {(i, j) for j in range(k) for i in range(j, k)} if places is None else set(places)
        out += [(b, i, j) for j in range(k) for i in range(j, k) if (i, j) in found]
    return tuple(out)
