r"""The oracle of models with structured residuals: the covariance of the data as dense n x n matrices.

For ``Var(y) = sigma^2 V(psi)``, :math:`V = R(\phi) + \sum_b Z_b (A_b \otimes \Sigma_b(\theta)) Z_b'`, given V
and its derivatives :math:`V_i` and :math:`V_{ij}`, everything below is a formula of one line:

.. math::
    P &= V^{-1} - V^{-1}X (X'V^{-1}X)^{-1} X'V^{-1}, \qquad r^2 = y'Py, \\
    d &= \log|V| + \nu(1 + \log(2\pi r^2/\nu)) \; [+ \log|X'V^{-1}X|], \\
    d_i &= \mathrm{tr}(Q V_i) - \tfrac{\nu}{r^2} y'PV_iPy, \\
    d_{ij} &= \mathrm{tr}(Q V_{ij}) - \mathrm{tr}(Q V_i Q V_j)
      + \tfrac{\nu}{r^2}(2 y'PV_iPV_jPy - y'PV_{ij}Py) - \tfrac{\nu}{r^4} q_i q_j,

Q = P (REML) or :math:`V^{-1}` (ML), :math:`q_i = y'PV_iPy`. Memory is n^2 for each matrix: for tests only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from mixedmodels.errors import SolverError

if TYPE_CHECKING:
    from mixedmodels.design import Design
    from mixedmodels.residual.base import ResidualPoint

__all__ = ["CovarianceOracle", "dense_oracle"]


@dataclass(frozen=True, eq=False)
class CovarianceOracle:
    """Criterion, derivatives and estimates of a Gaussian model with a given covariance.

    Attributes
    ----------
    y : ndarray, shape (n,)
        Response, offset taken off.
    X : ndarray, shape (n, p)
    V : ndarray, shape (n, n)
    first : sequence of r ndarray, shape (n, n)
        Derivatives of V.
    second : sequence of r sequences of r ndarray or None
        Second derivatives; None stands for zero.
    reml : bool
    sigma : float or None
        Residual standard deviation held fixed.
    """

    y: np.ndarray
    X: np.ndarray
    V: np.ndarray
    first: Sequence[np.ndarray] = ()
    second: Sequence[Sequence[np.ndarray | None]] = field(default=())
    reml: bool = True
    sigma: float | None = None

    @cached_property
    def _inverse(self) -> np.ndarray:
        return np.linalg.inv(self.V)

    @cached_property
    def XVX(self) -> np.ndarray:
        """``X'V^{-1}X``, shape (p, p)."""
        return self.X.T @ self._inverse @ self.X

    @cached_property
    def vcov_unscaled(self) -> np.ndarray:
        """``(X'V^{-1}X)^{-1}``, shape (p, p)."""
        return np.linalg.inv(self.XVX)

    @cached_property
    def projection(self) -> np.ndarray:
        """P, shape (n, n)."""
        VX = self._inverse @ self.X
        return self._inverse - VX @ self.vcov_unscaled @ VX.T

    @cached_property
    def _Q(self) -> np.ndarray:
        return self.projection if self.reml else self._inverse

    @cached_property
    def beta(self) -> np.ndarray:
        """Generalised least squares, shape (p,)."""
        return self.vcov_unscaled @ (self.X.T @ (self._inverse @ self.y))

    @cached_property
    def Py(self) -> np.ndarray:
        """``P y = V^{-1}(y - X beta)``, shape (n,)."""
        return self._inverse @ (self.y - self.X @ self.beta)

    @cached_property
    def pwrss(self) -> float:
        """``y'Py``."""
        return float(self.Py @ self.V @ self.Py)

    @property
    def nu(self) -> int:
        """n - p (REML) or n (ML)."""
        n, p = self.X.shape
        return n - p if self.reml else n

    @property
    def _scale(self) -> float:
        return self.nu / self.pwrss if self.sigma is None else 1.0 / self.sigma**2

    @cached_property
    def value(self) -> float:
        """Minus twice the log-likelihood, sigma profiled out unless it is fixed."""
        logdets = float(np.linalg.slogdet(self.V)[1])
        if self.reml:
            logdets += float(np.linalg.slogdet(self.XVX)[1])
        if self.sigma is None:
            return logdets + self.nu * (1.0 + np.log(2.0 * np.pi * self.pwrss / self.nu))
        return logdets + self.nu * np.log(2.0 * np.pi * self.sigma**2) + self.pwrss / self.sigma**2

    @cached_property
    def forms(self) -> np.ndarray:
        """``q_i = y'P V_i P y``, shape (r,)."""
        return np.array([self.Py @ V @ self.Py for V in self.first])

    @cached_property
    def traces(self) -> np.ndarray:
        """``tr(Q V_i)``, shape (r,)."""
        return np.array([np.sum(self._Q * V) for V in self.first])

    @cached_property
    def trace_products(self) -> np.ndarray:
        """``tr(Q V_i Q V_j)``, shape (r, r)."""
        images = [self._Q @ V for V in self.first]
        return np.array([[np.sum(A * B.T) for B in images] for A in images]).reshape((len(images),) * 2)

    @cached_property
    def products(self) -> np.ndarray:
        """``y'P V_i P V_j P y``, shape (r, r)."""
        W = np.array([V @ self.Py for V in self.first]).reshape(len(self.first), self.y.shape[0])
        return W @ self.projection @ W.T

    @property
    def gradient(self) -> np.ndarray:
        """Derivatives of `value`, shape (r,)."""
        return self.traces - self._scale * self.forms

    def joint_information(self, kind: str = "observed") -> np.ndarray:
        """Information about (psi, log sigma^2), or about psi for a fixed sigma; only beta is profiled out.

        Parameters
        ----------
        kind : {"observed", "average", "expected"}

        Returns
        -------
        ndarray, shape (r + 1, r + 1) or (r, r)
        """
        r, scale = len(self.first), self._scale
        border = scale * self.forms
        if kind == "average":
            inner = scale * self.products
        elif kind == "expected":
            inner, border = self.trace_products, self.traces
        elif kind == "observed":
            inner = 2.0 * scale * self.products - self.trace_products
            for i in range(r):
                for j in range(r):
                    V = self.second[i][j]
                    if V is not None:
                        inner[i, j] += np.sum(self._Q * V) - scale * float(self.Py @ V @ self.Py)
        else:
            raise SolverError(f"unknown information kind {kind!r}; choose observed, average or expected")
        if self.sigma is not None:
            return inner
        return np.block([[inner, border[:, None]], [border[None, :], np.full((1, 1), float(self.nu))]])

    def information(self, kind: str = "observed") -> np.ndarray:
        """Information about psi, sigma profiled out, shape (r, r); "observed" is the Hessian of `value`."""
        joint = self.joint_information(kind)
        if self.sigma is not None:
            return joint
        return joint[:-1, :-1] - np.outer(joint[-1, :-1], joint[-1, :-1]) / self.nu

    def fixed_products(self) -> tuple[np.ndarray, np.ndarray]:
        """``X'V^{-1}V_iV^{-1}X``, (r, p, p), and ``X'V^{-1}V_iV^{-1}V_jV^{-1}X``, (r, r, p, p)."""
        H = self._inverse @ self.X
        images = [V @ H for V in self.first]
        r, p = len(images), H.shape[1]
        one = np.array([H.T @ image for image in images]).reshape(r, p, p)
        two = np.array([[A.T @ self._inverse @ B for B in images] for A in images]).reshape(r, r, p, p)
        return one, two


def _random_effects_matrix(design: Design) -> list[np.ndarray]:
    """Z of each term, dense, shape (n, m k), level-major."""
    out = []
    for term in design.terms:
        Z = np.ones((design.n, 1)) if term.Z is None else term.Z
        full = np.zeros((design.n, term.m, term.k))
        full[np.arange(design.n), term.codes] = Z
        out.append(full.reshape(design.n, -1))
    return out


def dense_oracle(
    design: Design,
    point: ResidualPoint,
    n_phi: int,
    factors: Sequence[np.ndarray],
    derivatives: Sequence[Sequence[tuple[int, np.ndarray]]],
    reml: bool = True,
    sigma: float | None = None,
) -> CovarianceOracle:
    """The oracle of a design with a residual structure at (theta, phi), for factors linear in theta.

    Parameters
    ----------
    design : Design
    point : ResidualPoint
        R at phi; its dense form comes from its operators applied to the identity.
    n_phi : int
    factors : sequence of ndarray, one (k, k) per term
        Relative factors at theta.
    derivatives : sequence over theta of sequences of (term, ndarray (k, k))
        Derivatives of the factors.
    reml : bool
    sigma : float or None

    Returns
    -------
    CovarianceOracle
    """
    n, n_theta = design.n, len(derivatives)
    identity = np.eye(n)
    half = point.unwhiten(identity)  # W^{-1}
    Z = _random_effects_matrix(design)
    A = [
        np.eye(term.m) if term.precision is None else np.linalg.inv(term.precision.matrix.toarray())
        for term in design.terms
    ]

    def image(term: int, Sigma: np.ndarray) -> np.ndarray:
        return Z[term] @ np.kron(A[term], Sigma) @ Z[term].T

    V = half @ half.T
    for b, factor in enumerate(factors):
        V = V + image(b, factor @ factor.T)
    first: list[np.ndarray] = []
    for parts in derivatives:
        first.append(sum((image(b, E @ factors[b].T + factors[b] @ E.T) for b, E in parts), np.zeros((n, n))))
    first += [half @ point.change(j, identity) @ half.T for j in range(n_phi)]
    second: list[list[np.ndarray | None]] = [[None] * (n_theta + n_phi) for _ in range(n_theta + n_phi)]
    for i, left in enumerate(derivatives):
        for j, right in enumerate(derivatives):
            pairs = [(b, E, F) for b, E in left for c, F in right if b == c]
            second[i][j] = sum((image(b, E @ F.T + F @ E.T) for b, E, F in pairs), np.zeros((n, n)))
    for i in range(n_phi):
        for j in range(n_phi):
            second[n_theta + i][n_theta + j] = half @ point.second_change(i, j, identity) @ half.T
    y = design.y if design.offset is None else design.y - design.offset
    return CovarianceOracle(y, design.X, V, first, second, reml, sigma)
