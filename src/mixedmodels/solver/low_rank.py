r"""One term whose levels have a covariance ``W W'`` with fewer columns than rows: never n x n.

With B the rows of the factor, scaled by the term's column and the square roots of the weights, of rank r,
:math:`G = B B' = U\,\mathrm{diag}(d)\,U'` has U with r columns, and what is orthogonal to them keeps weight
one. It takes :math:`O(n r^2)` once and :math:`O(n p + r p^2)` an evaluation. Estimates are those of the model
with r independent effects of the columns of W (SNP-BLUP) and of the levels' model (GBLUP) alike.

Source: Lippert et al. (2011), Nature Methods 8:833-835, supplement 1.2 (low rank); Habier, Fernando & Dekkers
(2007), Genetics 177:2389-2397 (the two models are one).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from mixedmodels.design import LowRankCovariance
from mixedmodels.errors import SolverError
from mixedmodels.solver.base import Breakdown, Directions, FixedProducts
from mixedmodels.solver.dense import fixed_part
from mixedmodels.solver.eigen import EigenSolver, _State
from mixedmodels.solver.threads import one_blas_thread

if TYPE_CHECKING:
    from mixedmodels.design import Design, RandomTerm

__all__ = ["LowRankSolver", "has_low_rank", "is_low_rank_term"]

_PLAIN = 1e-5  # smallest eigenvalue, relative to the largest, that the cross-products give to full accuracy
_RANK = 1e-13  # below which it is zero


def is_low_rank_term(term: RandomTerm) -> bool:
    """Whether the levels of a term have a covariance ``W W'`` with fewer columns than levels."""
    between = term.precision
    return isinstance(between, LowRankCovariance) and between.factor.shape[1] < between.factor.shape[0]


def has_low_rank(design: Design) -> bool:
    """Whether a term of a design has a covariance between levels of lower rank."""
    return any(is_low_rank_term(term) for term in design.terms)


class LowRankSolver(EigenSolver):
    """Solver for one scalar term with a `LowRankCovariance` between its levels.

    Parameters
    ----------
    design : Design

    Raises
    ------
    SolverError
        Another kind of design.

    Examples
    --------
    >>> import numpy as np
    >>> from mixedmodels.covariance import make_covariance
    >>> from mixedmodels.design import Design, LowRankCovariance, RandomTerm
    >>> W = np.array([[1.0], [2.0], [0.0]])
    >>> levels = ("g", ("(Intercept)",), np.arange(3), "abc", None, make_covariance("us", 1))
    >>> term = RandomTerm(*levels, LowRankCovariance(W))
    >>> design = Design(np.array([1.0, 2.0, 4.0]), np.ones((3, 1)), ("(Intercept)",), (term,))
    >>> round(float(LowRankSolver(design).components([np.array([[1.0]])], 0).logdet_L2 / np.log(6.0)), 12)
    1.0
    """

    def __init__(self, design: Design) -> None:
        term = design.terms[0] if len(design.terms) == 1 else None
        if term is None or term.k != 1 or not isinstance(term.precision, LowRankCovariance):
            raise SolverError("give one random term of one column with a factor of its levels' covariance")
        self.n, self.p = design.n, design.p
        self._term, self._W = term, term.precision.factor
        self._fixed = fixed_part(design.y, design.X, design.x_names, design.offset, design.weights)
        a = np.ones(self.n) if term.Z is None else np.asarray(term.Z[:, 0], dtype=np.float64)
        self._a = a if self._fixed.sqrt_w is None else a * self._fixed.sqrt_w
        B = self._W[term.codes] * self._a[:, None]
        self.d, self.U, self._V = _thin(B)
        self.Q, self.r = self.U.T @ self._fixed.Q, self.U.T @ self._fixed.r
        self._rest_Q = self._fixed.Q - self.U @ self.Q
        self._rest_r = self._fixed.r - self.U @ self.r
        self._QQ, self._Qr = self._rest_Q.T @ self._rest_Q, self._rest_Q.T @ self._rest_r

    def describe(self) -> str:
        """One line: which algorithm, on which sizes."""
        return (
            f"eigen-decomposition of a covariance of {self.n} rows with rank {len(self.d)}, "
            f"{self.p} fixed-effects columns"
        )

    def _state(self, factors: Sequence[np.ndarray]) -> _State:
        s = self._factor(factors) ** 2
        h = 1.0 / (1.0 + s * self.d)
        hQ = h[:, None] * self.Q
        try:
            L = np.linalg.cholesky(self.Q.T @ hQ + self._QQ)
        except np.linalg.LinAlgError:
            raise Breakdown("X'V^{-1}X is not positive definite; check the values of theta") from None
        root = np.linalg.inv(L)
        inverse = root.T @ root
        gamma = inverse @ (hQ.T @ self.r + self._Qr)
        rest, other = self.r - self.Q @ gamma, self._rest_r - self._rest_Q @ gamma
        e = h * rest
        logdet = 2.0 * float(np.sum(np.log(np.diagonal(L))))
        return _State(s, h, hQ, inverse, gamma, e, float(rest @ e + other @ other), logdet)

    def fixed_products(
        self,
        factors: Sequence[np.ndarray],
        directions: Directions,
        second: bool = True,
        orthonormal: bool = False,
    ) -> FixedProducts:
        """What the small-sample distributions of beta need; without `second` only XVX and HDH."""
        found = super().fixed_products(factors, directions, second, orthonormal)
        R = np.eye(self.p) if orthonormal else self._fixed.R
        return replace(found, XVX=found.XVX + R.T @ self._QQ @ R)

    @cached_property
    def _C(self) -> np.ndarray:  # type: ignore[override]
        """``W B'U``, shape (m, r): the rows' covariances with the levels, rotated."""
        return self._W @ (self._V * np.sqrt(self.d))

    @property
    def _diagonal(self) -> np.ndarray:
        """Diagonal of ``W W'``."""
        return np.einsum("ij,ij->i", self._W, self._W)

    def _related(self, image: np.ndarray) -> np.ndarray:
        return self._W @ (self._W.T @ image)

    def _fixed_forms(self, state: _State, rotated: np.ndarray, scaled: np.ndarray) -> np.ndarray:
        return super()._fixed_forms(state, rotated, scaled) + self._rest_Q.T @ scaled


def _thin(B: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """d, U and V of ``B = U diag(sqrt(d)) V'``, zeros left out."""
    from scipy.linalg import eigh, svd

    with one_blas_thread():
        d, V = eigh(B.T @ B, driver="evd", overwrite_a=True, check_finite=False)
        if d.size and d[0] > _PLAIN * d[-1]:
            return d, (B @ V) / np.sqrt(d), V
        U, size, Vt = svd(B, full_matrices=False, check_finite=False)
    keep = size > np.sqrt(_RANK) * max(float(np.max(size, initial=0.0)), 1e-300)
    return size[keep] ** 2, U[:, keep], Vt[keep].T
