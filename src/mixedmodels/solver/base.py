"""The contract of a penalised-least-squares solver, in the user's coordinates and one factor per term.

For relative factors ``factor_b`` (k x k, any values, singular ones included) a solver works on

    minimise  |W^(1/2) (y - offset - X beta - Z Lambda u)|^2 + u' P u,        M = Lambda' Z'WZ Lambda + P,

with Lambda = diag_b(I_m kron factor_b) and P = diag_b(A_b^{-1} kron I_k) (P = I without known precision):
generalised least squares with V = I + W^(1/2) Z Lambda P^{-1} Lambda' Z' W^(1/2).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np

from mixedmodels.errors import SolverError

__all__ = [
    "Breakdown",
    "CompiledPath",
    "Components",
    "Directions",
    "FixedProducts",
    "PredictorRows",
    "Solution",
    "Solver",
]

# One direction is one symmetric k x k matrix (or None) for each term; a solver takes a list of them.
Directions = Sequence[Sequence["np.ndarray | None"]]

# Rows of Z, per term: None (the term adds nothing) or levels (N,), -1 for none, and values (N, k).
PredictorRows = Sequence["tuple[np.ndarray, np.ndarray] | None"]


class Breakdown(SolverError, FloatingPointError):
    """The numbers cannot be computed at this theta (overflow, a matrix not positive definite, a perfect fit).

    It is a FloatingPointError too, which an optimiser takes as "step too long".
    """


@dataclass(frozen=True, slots=True, eq=False)
class Components:
    r"""What the criterion and its derivatives are made of, at given relative factors.

    Attributes
    ----------
    logdet_L2 : float
        ``log|V| = log|M| - log|P|``; 0 when every factor is 0. (The weights' ``-sum log w`` is not in it.)
    logdet_RX2 : float
        ``log|X'V^{-1}X|``, X and V with rows scaled by the square roots of the weights; 0 when p = 0.
    pwrss : float
        Penalised weighted residual sum of squares, ``y'Py``.
    T : tuple of ndarray, one (k, k) per term; empty at order 0
        ``tr``-like part of d criterion / d Sigma_b: ``T_b = sum_{l,l'} A_{ll'} K_{ll'}`` with
        ``K = Z'V^{-1}Z`` (ML) or ``Z'PZ`` (REML), P the projection
        ``V^{-1} - V^{-1}X(X'V^{-1}X)^{-1}X'V^{-1}``. Independent levels: the sum of the diagonal blocks of K.
    S : tuple of ndarray, one (k, k) per term; empty at order 0
        ``S_b = sum_{l,l'} A_{ll'} c_l c_{l'}'``, ``c = Z'Py``, the same for ML and REML.
    wpw : ndarray, shape (r, r); (0, 0) below order 2
        ``y'P V_i P V_j P y`` for the directions, ``V_i = sum_b Z_b (A_b kron dSigma_bi) Z_b'``.
    """

    logdet_L2: float
    logdet_RX2: float
    pwrss: float
    T: tuple[np.ndarray, ...] = ()
    S: tuple[np.ndarray, ...] = ()
    wpw: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))


@dataclass(frozen=True, slots=True, eq=False)
class Solution:
    """Estimates and predictions at given relative factors.

    Attributes
    ----------
    beta : ndarray, shape (p,)
        Fixed effects.
    vcov_unscaled : ndarray, shape (p, p)
        ``(X'V^{-1}X)^{-1}``; times sigma^2 it is Var(beta).
    u, b : tuple of ndarray, one (m, k) per term
        Spherical random effects and conditional modes ``b = u factor'``.
    logdet_L2, logdet_RX2, pwrss : float
        As in `Components`.
    """

    beta: np.ndarray
    vcov_unscaled: np.ndarray
    u: tuple[np.ndarray, ...]
    b: tuple[np.ndarray, ...]
    logdet_L2: float
    logdet_RX2: float
    pwrss: float


@dataclass(frozen=True, slots=True, eq=False)
class FixedProducts:
    """How the information about beta changes with the covariance, at given relative factors and sigma = 1.

    With ``H = Z'V^{-1}X``, ``K = Z'V^{-1}Z`` and ``D_i = diag_b(A_b kron dSigma_bi)``, so that
    ``V_i = dV/d i = Z D_i Z'``:

    Attributes
    ----------
    XVX : ndarray, shape (p, p)
        ``X'V^{-1}X``.
    HDH : ndarray, shape (r, p, p)
        ``X'V^{-1} V_i V^{-1}X = H'D_iH``, minus the derivative of XVX in direction i.
    HDKDH : ndarray, shape (r, r, p, p), or None
        ``X'V^{-1} V_i V^{-1} V_j V^{-1}X = H'D_i K D_jH``; None if it was not asked for.
    basis : ndarray, shape (p, p), or None
        All of these are for ``X basis`` in place of X: columns in which they keep their digits.
    """

    XVX: np.ndarray
    HDH: np.ndarray
    HDKDH: np.ndarray | None = None
    basis: np.ndarray | None = None


@runtime_checkable
class Solver(Protocol):
    """What every solver provides; `mixedmodels.testing.check_solver` checks it against `DenseSolver`.

    Optional: the members of `CompiledPath`.

    Attributes
    ----------
    name : str
        ``"dense"``, ``"grouped"`` or ``"blocked"``.
    n, p : int
        Observations and fixed-effects columns.
    reason : str
        Why this solver was taken, in words; set by `choose_solver`.
    evaluator : object or None
        The compiled evaluator, if any.
    """

    name: str
    n: int
    p: int
    reason: str

    @property
    def evaluator(self) -> Any:
        """The compiled evaluator of the restricted likelihood, or None."""
        ...

    def describe(self) -> str:
        """One line: which algorithm, on which sizes."""
        ...

    def nu(self, reml: bool) -> int:
        """Divisor of pwrss: n - p (REML) or n (ML)."""
        ...

    def components(
        self,
        factors: Sequence[np.ndarray],
        order: int = 0,
        directions: Directions | None = None,
        reml: bool = True,
    ) -> Components:
        """Parts of the criterion (order 0), of its gradient (1) and of the average information (2)."""
        ...

    def solution(self, factors: Sequence[np.ndarray], reml: bool = True) -> Solution:
        """Estimates of beta and predictions of the random effects."""
        ...

    def conditional_covariance(self, factors: Sequence[np.ndarray], term: int) -> np.ndarray:
        """Diagonal blocks of ``Lambda M^{-1} Lambda'`` for one term, shape (m, k, k).

        Times sigma^2 they are Var(b_l | y, beta).
        """
        ...

    def trace_products(
        self, factors: Sequence[np.ndarray], directions: Directions, reml: bool = True
    ) -> tuple[np.ndarray, np.ndarray]:
        """``tr(K D_i K D_j)``, shape (r, r), and ``tr(K D_i)``, shape (r,), exact: for second derivatives.

        K is ``Z'V^{-1}Z`` (ML) or ``Z'PZ`` (REML), ``D_i = diag_b(A_b kron dSigma_bi)``.
        """
        ...

    def fixed_products(
        self,
        factors: Sequence[np.ndarray],
        directions: Directions,
        second: bool = True,
        orthonormal: bool = False,
    ) -> FixedProducts:
        """What the small-sample distributions of beta need; without `second` only XVX and HDH.

        With `orthonormal` for orthonormal columns ``X basis`` in place of X.
        """
        ...

    def predictor_variance(
        self, factors: Sequence[np.ndarray], X: np.ndarray, rows: PredictorRows
    ) -> np.ndarray:
        """``Var[x'(beta^ - beta) + sum_b z_b'(b^_b - b_b)] / sigma^2`` for N rows, shape (N,).

        Parameters
        ----------
        factors : sequence of ndarray
        X : ndarray, shape (N, p)
            In the user's coordinates, weights not applied.
        rows : sequence over the terms
            None, or ``(codes, Z)``: levels, shape (N,), -1 where the term adds nothing, and values (N, k).
        """
        ...

    def responses_at(
        self, factors: Sequence[np.ndarray]
    ) -> Callable[[np.ndarray], tuple[np.ndarray, tuple[np.ndarray, ...]]]:
        """A function of responses R, shape (n, N), without offset: their estimates at these factors.

        It returns beta^, shape (p, N), and b^ per term, shape (m, k, N). Valid until the solver's next use.
        """
        ...

    def fixed_random_covariance(self, factors: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
        """``Cov(b^ - b, beta^) / sigma^2`` per term, shape (m, k, p)."""
        ...

    def random_covariance(self, factors: Sequence[np.ndarray], term: int) -> np.ndarray:
        """Diagonal blocks of ``Var(b^ - b) / sigma^2``, shape (m, k, k), the uncertainty of beta included."""
        ...


class CompiledPath(Protocol):
    """What a solver with compiled kernels adds, for structures linear in theta."""

    @property
    def trace_work(self) -> float:
        """About how many multiplications the traces of the observed information take."""
        ...

    @property
    def theta_map(self) -> np.ndarray:
        """The constant matrix C of ``theta = C theta~``, shape (n_theta, n_theta)."""
        ...

    @property
    def theta_map_inverse(self) -> np.ndarray:
        """The inverse of C, which takes theta to theta~."""
        ...

    def evaluator_for(self, reml: bool, sigma: float | None = None) -> Any:
        """Compiled evaluator of the criterion as a function of theta~, or None."""
        ...

    def start_internal(self, sigma: float | None = None) -> np.ndarray:
        """Starting values for theta~."""
        ...

    def information_and_changes(
        self, evaluator: Any, theta: np.ndarray, exact: bool
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Information about theta~ without its border, ``(nu/pwrss) y'P V_i P y``, and the derivatives of
        ``(X'V^{-1}X)^{-1}`` (X in the user's coordinates) in theta~.
        """
        ...
