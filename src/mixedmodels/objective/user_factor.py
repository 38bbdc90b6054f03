"""The criterion for a covariance factor given by a user's function of theta, from raw matrices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.covariance.function import inner
from mixedmodels.errors import DataError, IdentifiabilityError, OptionError, SolverError
from mixedmodels.objective.base import (
    Certificate,
    average_information,
    check_kind,
    check_sigma,
    gaussian_criterion,
    gaussian_scale,
)
from mixedmodels.objective.curved_certificate import descend_along
from mixedmodels.solver.base import FixedProducts, Solution
from mixedmodels.solver.dense import PenalizedSolution, fixed_part, penalized_solve

if TYPE_CHECKING:
    from mixedmodels.covariance.function import FunctionCovariance

__all__ = ["UserFactorObjective"]

# M = Lambda'Z'Z Lambda + I is dense here: 800 MB at this size.
_LARGEST = 10_000


@dataclass(frozen=True, slots=True, eq=False)
class _Point:
    """Everything at one theta that value and derivatives share."""

    Lam: Any  # (q, q)
    B: Any  # (n, q)  Z Lambda
    fit: PenalizedSolution
    value: float
    scale: float  # nu / pwrss, or 1 / sigma^2


class UserFactorObjective:
    r"""Criterion of ``y = X beta + Z b + offset + e``, ``b ~ N(0, sigma^2 Lambda Lambda')``.

    Lambda is a user's function of theta, any square matrix.

    With :math:`G = K\Lambda - (\nu/r^2)\, c\,(\Lambda'c)'`, K = Z'V^{-1}Z (ML) or Z'PZ (REML), c = Z'Py:

    .. math:: \partial d/\partial\theta_i = 2\langle \partial\Lambda/\partial\theta_i,\, G\rangle,

    exact given the derivatives of Lambda. Z and Lambda stay sparse; M = Lambda'Z'Z Lambda + I is dense.

    Parameters
    ----------
    y : array_like, shape (n,)
    X : array_like, shape (n, p)
        Full column rank; p = 0 is allowed.
    Z : array_like or SciPy sparse array, shape (n, q)
    covariance : FunctionCovariance
    weights, offset : array_like, shape (n,), optional
        Var(e_i) = sigma^2 / weights[i]; known part of the linear predictor.
    reml : bool
    sigma : float or None
        Residual standard deviation held fixed.
    x_names : sequence of str, optional
        Names of the columns of X in messages; default ``x0``, ``x1``, ...

    Attributes
    ----------
    start, lower, upper : ndarray, shape (n_theta,)
    names : tuple of str
    nu : int

    Raises
    ------
    DataError
        Shapes differ or a value is not finite.
    IdentifiabilityError
        X does not have full column rank, or leaves no degrees of freedom.
    SolverError
        q is too large for a dense factorisation.

    Notes
    -----
    Bates, Maechler, Bolker & Walker (2015), J. Stat. Softw. 67(1), section 3, for any square Lambda.

    Examples
    --------
    >>> import numpy as np
    >>> from mixedmodels.covariance.function import FunctionCovariance
    >>> y = np.array([1.0, 2.0, 4.0, 3.0, 5.5, 6.0])
    >>> Z = np.repeat(np.eye(3), 2, axis=0)
    >>> covariance = FunctionCovariance(lambda theta: theta[0] * np.eye(3), start=[1.0], lower=0.0)
    >>> objective = UserFactorObjective(y, np.ones((6, 1)), Z, covariance)
    >>> round(objective.value(np.array([1.0])), 6)
    19.968684
    """

    entries = None

    def __init__(
        self,
        y: Any,
        X: Any,
        Z: Any,
        covariance: FunctionCovariance,
        *,
        weights: Any = None,
        offset: Any = None,
        reml: bool = True,
        sigma: float | None = None,
        x_names: Sequence[str] | None = None,
    ) -> None:
        y = _matrix("y", y, None, 1)
        n = y.shape[0]
        X = _matrix("X", X, n, 2)
        weights = None if weights is None else _matrix("weights", weights, n, 1)
        offset = None if offset is None else _matrix("offset", offset, n, 1)
        if weights is not None and not np.all(weights > 0.0):
            raise DataError(f"weights[{int(np.argmin(weights))}] is not positive; drop such rows")
        names = tuple(x_names) if x_names is not None else tuple(f"x{j}" for j in range(X.shape[1]))
        self.n, self.p = X.shape
        self.reml = bool(reml)
        self.sigma_fixed = check_sigma(sigma)
        self.nu = self.n - self.p if self.reml else self.n
        if self.nu <= 0:
            raise IdentifiabilityError(
                f"{self.p} fixed-effects columns for {self.n} observations leave nothing to estimate "
                "variances from; remove columns of X"
            )
        self._fixed = fixed_part(y, X, names, offset, weights)
        self._Z = _random_part(Z, n, self._fixed.sqrt_w)
        self.q = self._Z.shape[1]
        if self.q > _LARGEST:
            raise SolverError(
                f"a user's factor needs a dense {self.q} x {self.q} matrix, the limit is {_LARGEST}; "
                "give terms with a sparse precision instead"
            )
        self._sum_log_w = 0.0 if weights is None else float(np.sum(np.log(weights)))
        self.covariance = covariance
        self.n_theta = covariance.n_theta
        self.start, self.lower, self.upper = covariance.start, covariance.lower, covariance.upper
        self.names = covariance.names

    # ------------------------------------------------------------------ objective
    def value(self, theta: np.ndarray) -> float:
        """Criterion at theta."""
        return self._point(theta).value

    def value_and_gradient(self, theta: np.ndarray) -> tuple[float, np.ndarray]:
        """Criterion and gradient, shape (n_theta,)."""
        point = self._point(theta)
        G = self._G(point)
        return point.value, np.array([2.0 * inner(E, G) for E in self._derivatives(theta)])

    def newton(self, theta: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """Criterion, gradient and a positive semi-definite Newton matrix.

        Average information plus the positive part of ``2 tr(E_i' M E_j)``, ``M = K - (nu/r^2) c c'``,
        which takes over where the information vanishes (Lambda = 0).
        """
        point, E = self._point(theta), self._derivatives(theta)
        G = self._G(point)
        gradient = np.array([2.0 * inner(part, G) for part in E])
        values, vectors = np.linalg.eigh(self._curvature(point, E)[0])
        H = self._average(point, E)[0] + (vectors * np.maximum(values, 0.0)) @ vectors.T
        return point.value, gradient, H

    def information(self, theta: np.ndarray, kind: str = "average") -> np.ndarray:
        """Information about theta in units of the criterion's Hessian; see `LMMObjective.information`.

        The observed one has the part ``2 <G, d2 Lambda>``, for which Lambda is differenced twice.

        Parameters
        ----------
        theta : ndarray, shape (n_theta,)
        kind : {"average", "observed", "expected"}
        """
        check_kind(kind)
        point, E = self._point(theta), self._derivatives(theta)
        if kind == "average":
            return self._average(point, E)[0]
        products, traces = self._trace_products(point, E)
        if kind == "expected":
            return products if self.sigma_fixed is not None else products - np.outer(traces, traces) / self.nu
        average, wpw = self._average(point, E)
        G = self._G(point)
        second = 2.0 * self.covariance.contracted_hessian(theta, G)
        return average + point.scale * wpw - products + self._curvature(point, E)[0] + second

    def solution(self, theta: np.ndarray) -> Solution:
        """Estimates of beta and predictions of the random effects; u and b have shape (q, 1)."""
        point = self._point(theta)
        R, fit = self._fixed.R, point.fit
        beta, vcov = np.zeros(0), np.zeros((0, 0))
        if self.p:
            beta = self._fixed.beta0 + np.linalg.solve(R, fit.gamma)
            half = np.linalg.inv(fit.RX.T @ R)
            vcov = half @ half.T
        return Solution(
            beta=beta,
            vcov_unscaled=vcov,
            u=(fit.u[:, None],),
            b=((point.Lam @ fit.u)[:, None],),
            logdet_L2=fit.logdet_M,
            logdet_RX2=fit.logdet_RX2 + self._fixed.logdet_R2,
            pwrss=fit.pwrss,
        )

    def conditional_covariance(self, theta: np.ndarray) -> np.ndarray:
        """``Lambda M^{-1} Lambda'``, shape (q, q); times sigma^2 it is Var(b | y, beta)."""
        from scipy.linalg import solve_triangular

        point = self._point(theta)
        half = solve_triangular(point.fit.L, _dense(point.Lam).T, lower=True, check_finite=False)
        return half.T @ half

    def fixed_products(self, theta: np.ndarray, second: bool = True) -> FixedProducts:
        """``X'V^{-1}X`` and its changes with theta; see `FixedProducts`."""
        point, E = self._point(theta), self._derivatives(theta)
        R, r = self._fixed.R, self.n_theta
        root = point.fit.RX.T @ R
        H = np.asarray(self._Z.T @ point.fit.ViQ) @ R
        LH = np.asarray(point.Lam.T @ H)
        images = [np.asarray(e @ LH) + np.asarray(point.Lam @ np.asarray(e.T @ H)) for e in E]
        HDH = np.array([H.T @ image for image in images]).reshape(r, self.p, self.p)
        HDKDH = None
        if second:
            HDKDH = np.zeros((r, r, self.p, self.p))
            for j in range(r):
                KDH = self._K_times(point, images[j], False)
                for i in range(r):
                    HDKDH[i, j] = images[i].T @ KDH
        return FixedProducts(root.T @ root, HDH, HDKDH)

    def predictor_variance(self, theta: np.ndarray, X: np.ndarray, Z: Any) -> np.ndarray:
        """``Var[x'(beta^ - beta) + z'(b^ - b)] / sigma^2`` for rows X (N, p) and Z (N, q), shape (N,)."""
        from scipy.linalg import solve_triangular

        point, R = self._point(theta), self._fixed.R
        half = solve_triangular(point.fit.L, _dense(point.Lam).T, lower=True, check_finite=False)
        F = half.T @ (half @ np.asarray(self._Z.T @ self._fixed.Q)) @ R
        left, rest = np.asarray(Z @ half.T), X - np.asarray(Z @ F)
        rest = rest @ np.linalg.inv(point.fit.RX.T @ R)
        return np.sum(left * left, axis=1) + np.sum(rest * rest, axis=1)

    def sigma(self, theta: np.ndarray) -> float:
        """Residual standard deviation at theta: ``sqrt(pwrss / nu)``, or the fixed one."""
        if self.sigma_fixed is not None:
            return self.sigma_fixed
        return float(np.sqrt(self._point(theta).fit.pwrss / self.nu))

    def certificate(self, theta: np.ndarray) -> Certificate:
        """Second-order conditions: a user's covariances form no cone, so the exact Hessian is judged.

        ``min_eigenvalues`` holds the smallest eigenvalue of the observed information, ``residuals`` the
        largest gradient entry of a parameter that may move, both scaled by ``2 tr(E_i' K E_i)``.
        """
        theta = self._check(theta)
        point, E = self._point(theta), self._derivatives(theta)
        G = self._G(point)
        gradient = np.array([2.0 * inner(part, G) for part in E])
        size = np.sqrt(np.maximum(np.diagonal(self._curvature(point, E)[1]), 0.0))
        scale = np.divide(1.0, size, out=np.zeros(size.shape), where=size > 0.0)
        held = ((theta <= self.lower) & (gradient > 0.0)) | ((theta >= self.upper) & (gradient < 0.0))
        free = ~held
        observed = (self.information(theta, "observed") * scale * scale[:, None])[np.ix_(free, free)]
        values, vectors = np.linalg.eigh(observed) if free.any() else (np.zeros(1), np.zeros((0, 1)))
        direction = np.zeros(self.n_theta)
        direction[free] = scale[free] * vectors[:, 0]

        def escape(at: np.ndarray) -> np.ndarray | None:
            return descend_along(self, np.asarray(at, dtype=np.float64), direction)

        return Certificate(
            min_eigenvalues=(float(values[0]),),
            residuals=(float(np.max(np.abs(gradient * scale)[free], initial=0.0)),),
            escape=escape if values[0] < -1e-6 else None,
            terms=("Lambda",),
            singular=(bool(np.any(theta <= self.lower)),),
        )

    # ------------------------------------------------------------------ parts
    def _check(self, theta: np.ndarray) -> np.ndarray:
        theta = np.asarray(theta, dtype=np.float64)
        if theta.shape != (self.n_theta,):
            raise OptionError(
                f"theta has shape {theta.shape}, the covariance has {self.n_theta} parameters: "
                f"{', '.join(self.names)}"
            )
        return theta

    def _point(self, theta: np.ndarray) -> _Point:
        Lam = self.covariance.factor(self._check(theta))
        self._fits(Lam, "covariance")
        B = self._Z @ Lam
        M = _dense(B.T @ B) + np.eye(self.q)
        fit = penalized_solve(self._fixed, B, M, None)
        logdets = fit.logdet_M - self._sum_log_w
        if self.reml:
            logdets += fit.logdet_RX2 + self._fixed.logdet_R2
        value = gaussian_criterion(logdets, fit.pwrss, self.nu, self.sigma_fixed)
        return _Point(Lam, B, fit, value, gaussian_scale(fit.pwrss, self.nu, self.sigma_fixed))

    def _derivatives(self, theta: np.ndarray) -> list[Any]:
        parts = self.covariance.factor_derivatives(self._check(theta))
        for part in parts:
            self._fits(part, "jacobian")
        return parts

    def _fits(self, matrix: Any, what: str) -> None:
        if matrix.shape != (self.q, self.q):
            raise OptionError(
                f"the {what} function returned a {matrix.shape[0]} x {matrix.shape[1]} matrix, "
                f"Z has {self.q} columns"
            )

    def _Vi(self, point: _Point, W: np.ndarray) -> np.ndarray:
        """``V^{-1} W`` for a dense (n, r) matrix."""
        from scipy.linalg import cho_solve

        return W - point.B @ cho_solve((point.fit.L, True), point.B.T @ W, check_finite=False)

    def _H(self, point: _Point) -> np.ndarray:
        """``Z'V^{-1}Q RX^{-T}``, shape (q, p): Z'PZ = Z'V^{-1}Z - H H'."""
        from scipy.linalg import solve_triangular

        if not self.p:
            return np.zeros((self.q, 0))
        return solve_triangular(
            point.fit.RX, _dense(self._Z.T @ point.fit.ViQ).T, lower=True, check_finite=False
        ).T

    def _K_times(self, point: _Point, matrix: Any, project: bool) -> np.ndarray:
        """``K matrix`` for a (q, r) matrix."""
        out = self._Z.T @ self._Vi(point, _dense(self._Z @ matrix))
        if project and self.p:
            H = self._H(point)
            out = out - H @ _dense((matrix.T @ H).T)
        return np.asarray(out)

    def _c(self, point: _Point) -> np.ndarray:
        return self._Z.T @ point.fit.residual

    def _K_Lambda(self, point: _Point) -> np.ndarray:
        """``K Lambda``, by V^{-1} Z Lambda = Z Lambda M^{-1}."""
        from scipy.linalg import cho_solve

        BMi = cho_solve((point.fit.L, True), _dense(point.B).T, check_finite=False).T
        out = self._Z.T @ BMi
        if self.reml and self.p:
            H = self._H(point)
            out = out - H @ _dense((point.Lam.T @ H).T)
        return np.asarray(out)

    def _G(self, point: _Point) -> np.ndarray:
        c = self._c(point)
        return self._K_Lambda(point) - point.scale * np.outer(c, point.Lam.T @ c)

    def _average(self, point: _Point, E: list[Any]) -> tuple[np.ndarray, np.ndarray]:
        """Average information and ``y'PV_iPV_jPy``."""
        c = self._c(point)
        v = point.Lam.T @ c
        b = np.stack([part @ v + point.Lam @ (part.T @ c) for part in E], axis=1)
        W = np.asarray(self._Z @ b)
        wpw = W.T @ self._Vi(point, W)
        if self.p:
            from scipy.linalg import solve_triangular

            half = solve_triangular(point.fit.RX, point.fit.ViQ.T @ W, lower=True, check_finite=False)
            wpw = wpw - half.T @ half
        wpw = 0.5 * (wpw + wpw.T)
        return average_information(wpw, c @ b, point.fit.pwrss, self.nu, self.sigma_fixed), wpw

    def _curvature(self, point: _Point, E: list[Any]) -> tuple[np.ndarray, np.ndarray]:
        """``2 tr(E_i' M E_j)`` and ``2 tr(E_i' K E_j)``."""
        r = len(E)
        c = self._c(point)
        forms, traces = np.empty((r, r)), np.empty((r, r))
        for j in range(r):
            KE = self._K_times(point, E[j], self.reml)
            for i in range(j, r):
                traces[i, j] = traces[j, i] = 2.0 * inner(E[i], KE)
                forms[i, j] = forms[j, i] = 2.0 * float((E[i].T @ c) @ (E[j].T @ c))
        return traces - point.scale * forms, traces

    def _trace_products(self, point: _Point, E: list[Any]) -> tuple[np.ndarray, np.ndarray]:
        r"""``tr(K dS_i K dS_j)`` and ``tr(K dS_i)`` with dS = E Lambda' + Lambda E'.

        With F_i = Lambda'K E_i and A = Lambda'K Lambda: ``2 tr(F_i F_j) + 2 tr(E_j'K E_i A)``.
        """
        KL = self._K_Lambda(point)
        A = np.asarray(point.Lam.T @ KL)
        KE = [self._K_times(point, part, self.reml) for part in E]
        F = [np.asarray(point.Lam.T @ image) for image in KE]
        r = len(E)
        products = np.empty((r, r))
        for i in range(r):
            image = KE[i] @ A
            for j in range(i, r):
                value = 2.0 * float(np.sum(F[i] * F[j].T)) + 2.0 * inner(E[j], image)
                products[i, j] = products[j, i] = value
        return products, np.array([2.0 * inner(part, KL) for part in E])


def _dense(matrix: Any) -> np.ndarray:
    return matrix if isinstance(matrix, np.ndarray) else matrix.toarray()


def _matrix(what: str, given: Any, n: int | None, ndim: int) -> np.ndarray:
    """A finite float array of the right shape."""
    try:
        array = np.array(given, dtype=np.float64)
    except (TypeError, ValueError):
        raise DataError(f"{what} must hold numbers") from None
    if array.ndim != ndim:
        raise DataError(f"{what} must have {ndim} dimension{'s' * (ndim > 1)}, got shape {array.shape}")
    if n is not None and array.shape[0] != n:
        raise DataError(f"{what} has {array.shape[0]} rows, y has {n}")
    if not np.all(np.isfinite(array)):
        row = int(np.argwhere(~np.isfinite(array))[0][0])
        raise DataError(f"{what} holds a missing or infinite value in row {row}; drop the row")
    return array


def _random_part(Z: Any, n: int, sqrt_w: np.ndarray | None) -> Any:
    """``W^(1/2) Z``, sparse if Z is."""
    if not hasattr(Z, "tocsr"):
        Z = _matrix("Z", Z, n, 2)
        return Z if sqrt_w is None else Z * sqrt_w[:, None]
    from scipy import sparse

    Z = sparse.csr_array(Z, dtype=np.float64)
    if Z.shape[0] != n:
        raise DataError(f"Z has {Z.shape[0]} rows, y has {n}")
    if not np.all(np.isfinite(Z.data)):
        raise DataError("Z holds a missing or infinite value; drop the row")
    return Z if sqrt_w is None else sparse.csr_array(sparse.diags_array(sqrt_w) @ Z)
