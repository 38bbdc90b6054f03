r"""One term with a known dense covariance between levels: diagonal after one eigen-decomposition.

With :math:`V = I + s G`, :math:`G = W^{1/2} Z A Z' W^{1/2} = U\,\mathrm{diag}(d)\,U'`, everything is a sum
over the rotated rows :math:`U'y, U'X` with weights :math:`h_i = 1/(1 + s d_i)`: after O(n^3) once, an
evaluation with all derivatives costs O(n p^2). No inverse of A is formed, so A may be singular.

Source: Lippert et al. (2011), FaST linear mixed models for genome-wide association studies, Nature Methods
8:833-835; Kang et al. (2008), Genetics 178:1709-1723.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mixedmodels.design import KnownCovariance, LowRankCovariance
from mixedmodels.errors import DataError, SolverError
from mixedmodels.solver.base import (
    Breakdown,
    Components,
    Directions,
    FixedProducts,
    PredictorRows,
    Solution,
)
from mixedmodels.solver.dense import fixed_part
from mixedmodels.solver.threads import one_blas_thread

if TYPE_CHECKING:
    from mixedmodels.design import Design, RandomTerm

__all__ = ["EigenSolver", "is_low_rank", "suits"]

_LARGEST = 6000  # rows up to which "auto" decomposes
_NEGATIVE = 1e-8  # eigenvalues down to minus this, relative to the largest, are rounding


def suits(design: Design) -> bool:
    """Whether this solver is the cheap one for a design: one scalar term, about one row per level."""
    if len(design.terms) != 1:
        return False
    term = design.terms[0]
    if term.k == 1 and isinstance(term.precision, LowRankCovariance) and not term.several_levels:
        return min(term.precision.factor.shape[1], design.n) <= _LARGEST
    if term.k != 1 or not isinstance(term.precision, KnownCovariance) or design.n > _LARGEST:
        return False
    return 2 * design.n <= 3 * term.m or not term.precision.invertible


def is_low_rank(design: Design) -> bool:
    """Whether the one term has a covariance with a factor of fewer columns than the design has rows."""
    between = design.terms[0].precision if len(design.terms) == 1 else None
    return isinstance(between, LowRankCovariance) and between.factor.shape[1] < design.n


class _State(NamedTuple):
    """What one value of s gives: weights, factorised Q'V^{-1}Q, and P y in the rotated rows."""

    s: float
    h: np.ndarray  # (n,)
    hQ: np.ndarray  # (n, p)  H Q
    inverse: np.ndarray  # (p, p)  (Q'HQ)^{-1}
    gamma: np.ndarray  # (p,)
    e: np.ndarray  # (n,)  U'P r
    pwrss: float
    logdet_Q: float


class EigenSolver:
    """Solver for one scalar term whose levels have a known dense covariance.

    Parameters
    ----------
    design : Design
        With one term of one column and a `KnownCovariance`.

    Raises
    ------
    SolverError
        Another kind of design.
    DataError
        The known matrix is not positive semi-definite.

    Examples
    --------
    >>> import numpy as np
    >>> from mixedmodels.covariance import make_covariance
    >>> from mixedmodels.design import Design, KnownCovariance, RandomTerm
    >>> A = KnownCovariance(np.array([[1.0, 0.5, 0.0], [0.5, 1.0, 0.0], [0.0, 0.0, 1.0]]))
    >>> term = RandomTerm("g", ("(Intercept)",), np.arange(3), "abc", None, make_covariance("us", 1), A)
    >>> design = Design(np.array([1.0, 2.0, 4.0]), np.ones((3, 1)), ("(Intercept)",), (term,))
    >>> parts = EigenSolver(design).components([np.array([[1.0]])], 0)
    >>> bool(abs(parts.logdet_L2 - np.linalg.slogdet(np.eye(3) + A.covariance)[1]) < 1e-12)
    True
    """

    name = "eigen"
    evaluator = None
    reason = ""

    def __init__(self, design: Design) -> None:
        if (
            len(design.terms) != 1
            or design.terms[0].k != 1
            or not isinstance(design.terms[0].precision, KnownCovariance)
        ):
            raise SolverError(
                'solver="eigen" treats one random intercept or slope with a known dense covariance between '
                'its levels; use solver="auto"'
            )
        self.n, self.p = design.n, design.p
        self._term: RandomTerm = design.terms[0]
        self._A = self._term.precision.covariance  # type: ignore[union-attr]
        self._fixed = fixed_part(design.y, design.X, design.x_names, design.offset, design.weights)
        a = np.ones(self.n) if self._term.Z is None else np.asarray(self._term.Z[:, 0], dtype=np.float64)
        self._a = a if self._fixed.sqrt_w is None else a * self._fixed.sqrt_w
        codes = self._term.codes
        G = self._A[np.ix_(codes, codes)]
        if self._term.Z is not None or self._fixed.sqrt_w is not None:
            G *= self._a
            G *= self._a[:, None]
        self.d, self.U = _decompose(G, self._term)
        self.Q = self.U.T @ self._fixed.Q
        self.r = self.U.T @ self._fixed.r

    def describe(self) -> str:
        """One line: which algorithm, on which sizes."""
        return (
            f"eigen-decomposition of the {self.n} x {self.n} covariance of the rows, "
            f"{self.p} fixed-effects columns"
        )

    def nu(self, reml: bool) -> int:
        """Divisor of pwrss: n - p (REML) or n (ML)."""
        return self.n - self.p if reml else self.n

    def _factor(self, factors: Sequence[np.ndarray]) -> float:
        if len(factors) != 1 or np.shape(factors[0]) != (1, 1):
            raise SolverError("give one 1 x 1 factor for the one random term")
        f = float(factors[0][0, 0])
        if not np.isfinite(f * f):
            raise Breakdown(
                f"the factor of term {self._term.group!r} is not finite; check the values of theta"
            )
        return f

    def _state(self, factors: Sequence[np.ndarray]) -> _State:
        s = self._factor(factors) ** 2
        h = 1.0 / (1.0 + s * self.d)
        hQ = h[:, None] * self.Q
        A = self.Q.T @ hQ
        try:
            L = np.linalg.cholesky(A)
        except np.linalg.LinAlgError:
            raise Breakdown("X'V^{-1}X is not positive definite; check the values of theta") from None
        root = np.linalg.inv(L)
        inverse = root.T @ root
        gamma = inverse @ (hQ.T @ self.r)
        rest = self.r - self.Q @ gamma
        e = h * rest
        logdet = 2.0 * float(np.sum(np.log(np.diagonal(L))))
        return _State(s, h, hQ, inverse, gamma, e, float(rest @ e), logdet)

    # ------------------------------------------------------------------ criterion and derivatives

    def components(
        self,
        factors: Sequence[np.ndarray],
        order: int = 0,
        directions: Directions | None = None,
        reml: bool = True,
    ) -> Components:
        """Parts of the criterion (order 0), of its gradient (1) and of the average information (2)."""
        state = self._state(factors)
        logdet = float(np.sum(np.log1p(state.s * self.d)))
        logdet_RX2 = state.logdet_Q + self._fixed.logdet_R2
        if order == 0:
            return Components(logdet, logdet_RX2, state.pwrss)
        T, S = self._trace(state, reml), float(self.d @ state.e**2)
        wpw = np.zeros((0, 0))
        if order > 1:
            w = self.d * state.e
            back = state.hQ.T @ w
            form = float(w @ (state.h * w) - back @ state.inverse @ back)
            steps = _steps(directions or ())
            wpw = form * np.outer(steps, steps)
        return Components(logdet, logdet_RX2, state.pwrss, (np.array([[T]]),), (np.array([[S]]),), wpw)

    def _trace(self, state: _State, reml: bool) -> float:
        """``tr(V^{-1}G)`` or ``tr(P G)``."""
        out = float(self.d @ state.h)
        if reml:
            out -= float(np.sum(state.inverse * (state.hQ.T @ (self.d[:, None] * state.hQ))))
        return out

    def trace_products(
        self, factors: Sequence[np.ndarray], directions: Directions, reml: bool = True
    ) -> tuple[np.ndarray, np.ndarray]:
        """``tr(K D_i K D_j)``, shape (r, r), and ``tr(K D_i)``, shape (r,)."""
        state = self._state(factors)
        dh = self.d * state.h
        second = float(dh @ dh)
        if reml:
            B = state.inverse @ (state.hQ.T @ (self.d[:, None] * state.hQ))
            C = state.hQ.T @ ((self.d * dh)[:, None] * state.hQ)
            second += float(np.sum(B * B.T)) - 2.0 * float(np.sum(state.inverse * C))
        steps = _steps(directions)
        return second * np.outer(steps, steps), self._trace(state, reml) * steps

    def fixed_products(
        self,
        factors: Sequence[np.ndarray],
        directions: Directions,
        second: bool = True,
        orthonormal: bool = False,
    ) -> FixedProducts:
        """What the small-sample distributions of beta need; without `second` only XVX and HDH."""
        state, steps = self._state(factors), _steps(directions)
        R = np.eye(self.p) if orthonormal else self._fixed.R
        hX = state.hQ @ R
        XVX = R.T @ (self.Q.T @ hX)
        first = hX.T @ (self.d[:, None] * hX)
        HDH = steps[:, None, None] * first
        basis = np.linalg.inv(self._fixed.R) if orthonormal else None
        if not second:
            return FixedProducts(XVX, HDH, None, basis)
        twice = hX.T @ ((self.d**2 * state.h)[:, None] * hX)
        return FixedProducts(XVX, HDH, np.multiply.outer(np.outer(steps, steps), twice), basis)

    # ------------------------------------------------------------------ estimates and their uncertainty

    @cached_property
    def _C(self) -> np.ndarray:
        """``A Z'W^{1/2}U``, shape (m, n): the rows' covariances with the levels, rotated."""
        return (self._A[:, self._term.codes] * self._a) @ self.U

    def solution(self, factors: Sequence[np.ndarray], reml: bool = True) -> Solution:
        """Estimates of beta and predictions of the random effects."""
        f, state, fixed = self._factor(factors), self._state(factors), self._fixed
        inverse = np.linalg.inv(fixed.R)
        image = np.bincount(self._term.codes, self._a * (self.U @ state.e), self._term.m)
        b = self._related(image)
        return Solution(
            beta=fixed.beta0 + inverse @ state.gamma,
            vcov_unscaled=inverse @ state.inverse @ inverse.T,
            u=((f * b)[:, None],),
            b=((state.s * b)[:, None],),
            logdet_L2=float(np.sum(np.log1p(state.s * self.d))),
            logdet_RX2=state.logdet_Q + fixed.logdet_R2,
            pwrss=state.pwrss,
        )

    def _related(self, image: np.ndarray) -> np.ndarray:
        """A times a vector over the levels."""
        return self._A @ image

    @property
    def _diagonal(self) -> np.ndarray:
        """Diagonal of A."""
        return np.diagonal(self._A)

    def _pieces(self, factors: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Var(b | y) / sigma^2, shape (m,), ``F = s A Z'V^{-1}X``, shape (m, p), and ``(X'V^{-1}X)^{-1}``."""
        state, R = self._state(factors), self._fixed.R
        explained = np.einsum("mn,mn->m", self._C * state.h, self._C)
        own = state.s * self._diagonal - state.s**2 * explained
        inverse = np.linalg.inv(R)
        return np.maximum(own, 0.0), state.s * (self._C @ (state.hQ @ R)), inverse @ state.inverse @ inverse.T

    def conditional_covariance(self, factors: Sequence[np.ndarray], term: int) -> np.ndarray:
        """Diagonal blocks of ``Lambda M^{-1} Lambda'``, shape (m, 1, 1)."""
        return self._pieces(factors)[0][:, None, None]

    def random_covariance(self, factors: Sequence[np.ndarray], term: int) -> np.ndarray:
        """Diagonal blocks of ``Var(b^ - b) / sigma^2``, shape (m, 1, 1)."""
        own, F, Phi = self._pieces(factors)
        return (own + np.sum((F @ Phi) * F, axis=1))[:, None, None]

    def fixed_random_covariance(self, factors: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
        """``Cov(b^ - b, beta^) / sigma^2``, shape (m, 1, p)."""
        _, F, Phi = self._pieces(factors)
        return (-(F @ Phi)[:, None, :],)

    def predictor_variance(
        self, factors: Sequence[np.ndarray], X: np.ndarray, rows: PredictorRows
    ) -> np.ndarray:
        """``Var[x'(beta^ - beta) + z(b^ - b)] / sigma^2`` for N rows, shape (N,)."""
        own, F, Phi = self._pieces(factors)
        rest, variance = np.asarray(X, dtype=np.float64), np.zeros(X.shape[0])
        if len(rows) != 1:
            raise SolverError(f"{len(rows)} entries in rows for 1 random term; give one per term")
        if rows[0] is not None:
            codes = np.asarray(rows[0][0])
            z = np.where(codes >= 0, np.asarray(rows[0][1], dtype=np.float64)[:, 0], 0.0)
            variance = z * z * own[codes]
            rest = rest - z[:, None] * F[codes]
        return variance + np.sum((rest @ Phi) * rest, axis=1)

    def _fixed_forms(self, state: _State, rotated: np.ndarray, scaled: np.ndarray) -> np.ndarray:
        """``Q'V^{-1}`` times responses, given rotated and as rows scaled by the weights, shape (p, N)."""
        return state.hQ.T @ rotated

    def responses_at(
        self, factors: Sequence[np.ndarray]
    ) -> Callable[[np.ndarray], tuple[np.ndarray, tuple[np.ndarray, ...]]]:
        """A function of responses, shape (n, N), without offset: their estimates at these factors."""
        state, fixed = self._state(factors), self._fixed
        inverse = np.linalg.inv(fixed.R)

        def estimates(R: np.ndarray) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
            scaled = R if fixed.sqrt_w is None else R * fixed.sqrt_w[:, None]
            rotated = self.U.T @ scaled
            gamma = state.inverse @ self._fixed_forms(state, rotated, scaled)
            e = state.h[:, None] * (rotated - self.Q @ gamma)
            return inverse @ gamma, ((state.s * (self._C @ e))[:, None, :],)

        return estimates


def _decompose(G: np.ndarray, term: RandomTerm) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues, rounding below zero removed, and eigenvectors."""
    from scipy.linalg import eigh

    with one_blas_thread():  # a second thread gains little here, and loses much on a busy machine
        d, U = eigh(G, driver="evd", overwrite_a=True, check_finite=False)
    if d[0] < -_NEGATIVE * max(d[-1], 1.0):
        raise DataError(
            f"the known covariance of {term.group!r} has a negative eigenvalue between the levels of "
            "the rows: it is not a covariance matrix; correct it, or add to its diagonal"
        )
    return np.maximum(d, 0.0), U


def _steps(directions: Directions) -> np.ndarray:
    """The 1 x 1 directions as numbers."""
    return np.array([0.0 if row[0] is None else float(row[0][0, 0]) for row in directions])
