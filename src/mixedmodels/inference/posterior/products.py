"""Cross-products by group: all that a posterior of one grouping factor needs of the data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from mixedmodels.design import Design

__all__ = ["GroupedProducts", "grouped_products"]

# Numbers of (m, k, p) that are treated at once.
_CHUNK = 4_000_000


@dataclass(frozen=True, slots=True, eq=False)
class GroupedProducts:
    r"""``Z'Z``, ``Z'X``, ``Z'y`` by group and ``X'X``, ``X'y``, ``y'y``, for y less its least-squares fit.

    Attributes
    ----------
    A : ndarray, shape (m, k, k)
    C : ndarray, shape (m, k, p)
    c : ndarray, shape (m, k)
    XX : ndarray, shape (p, p)
    Xy : ndarray, shape (p,)
    yy : float
    n : int
    beta : ndarray, shape (p,)
        Least-squares coefficients, to be added to what is found.
    log_weights : float
        Sum of the logarithms of the weights.
    """

    A: np.ndarray
    C: np.ndarray
    c: np.ndarray
    XX: np.ndarray
    Xy: np.ndarray
    yy: float
    n: int
    beta: np.ndarray
    log_weights: float = 0.0

    @property
    def m(self) -> int:
        """Number of groups."""
        return self.A.shape[0]

    @property
    def k(self) -> int:
        """Random effects per group."""
        return self.A.shape[1]

    @property
    def p(self) -> int:
        """Number of fixed effects."""
        return self.XX.shape[0]

    # ------------------------------------------------------------------ the likelihood
    def loglik(self, sigma2: np.ndarray, Psi: np.ndarray) -> np.ndarray:
        r"""Restricted log-likelihood at N values of the variances.

        .. math:: -\tfrac12\Big[(n-p)\log(2\pi\sigma^2) + \sum_l\log|A_l + \omega| - m\log|\omega|
            + \log|X'V^{-1}X|_{\sigma=1} + y'Py/\sigma^2\Big],\qquad \omega = \sigma^2\Psi^{-1}.

        Parameters
        ----------
        sigma2 : ndarray, shape (N,)
        Psi : ndarray, shape (N, k, k)
            Positive definite.

        Returns
        -------
        ndarray, shape (N,)
        """
        N = len(sigma2)
        step = max(1, _CHUNK // max(self.m * self.k * (self.k + self.p + 1), 1))
        parts = [self._loglik(sigma2[i : i + step], Psi[i : i + step]) for i in range(0, N, step)]
        return np.concatenate(parts) if parts else np.zeros(0)

    def _loglik(self, sigma2: np.ndarray, Psi: np.ndarray) -> np.ndarray:
        omega = sigma2[:, None, None] * np.linalg.inv(Psi)
        W = self.A[None] + omega[:, None]
        right = np.concatenate([self.C, self.c[:, :, None]], axis=2)
        solved = np.linalg.solve(W, np.broadcast_to(right, (len(W), *right.shape)))
        flat = right.reshape(self.m * self.k, -1)
        cross = flat.T @ solved.reshape(len(W), *flat.shape)
        p = self.p
        H = self.XX - cross[:, :p, :p]
        g = self.Xy - cross[:, :p, p]
        r2 = self.yy - cross[:, p, p]
        if p:
            r2 = r2 - np.einsum("np,np->n", g, np.linalg.solve(H, g[:, :, None])[:, :, 0])
        logdets = np.linalg.slogdet(W)[1].sum(axis=1) - self.m * np.linalg.slogdet(omega)[1]
        logdets = logdets + (np.linalg.slogdet(H)[1] if p else 0.0) - self.log_weights
        return -0.5 * ((self.n - p) * np.log(2.0 * np.pi * sigma2) + logdets + r2 / sigma2)

    # ------------------------------------------------------------------ draws
    def draw_effects(
        self, rng: np.random.Generator, sigma2: np.ndarray, Psi: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """One draw of (beta, b) given the variances, for every chain: beta first, b integrated out.

        Parameters
        ----------
        rng : Generator
        sigma2 : ndarray, shape (N,)
        Psi : ndarray, shape (N, k, k)

        Returns
        -------
        beta : ndarray, shape (N, p)
            Less the least-squares coefficients.
        b : ndarray, shape (N, m, k)
        squares : ndarray, shape (N,)
            Residual sum of squares at them.
        """
        N, m, k, p = len(sigma2), self.m, self.k, self.p
        sigma = np.sqrt(sigma2)
        W = self.A[None] + (sigma2[:, None, None] * np.linalg.inv(Psi))[:, None]
        inverse = np.linalg.inv(W)
        E = inverse @ self.C
        C = self.C.reshape(m * k, p)
        H = self.XX - C.T @ E.reshape(N, m * k, p)
        g = self.Xy - self.c.reshape(m * k) @ E.reshape(N, m * k, p)
        beta = np.zeros((N, p))
        if p:
            L = np.linalg.cholesky(H)
            noise = sigma[:, None] * rng.standard_normal((N, p))
            half = np.linalg.solve(L, g[:, :, None])[:, :, 0] + noise
            beta = np.linalg.solve(np.swapaxes(L, 1, 2), half[:, :, None])[:, :, 0]
        left = self.c - (beta @ C.T).reshape(N, m, k)
        L = np.linalg.cholesky(inverse)
        noise = sigma[:, None, None] * rng.standard_normal((N, m, k))
        b = (inverse @ left[:, :, :, None] + L @ noise[:, :, :, None])[:, :, :, 0]
        squares = self.yy - 2.0 * beta @ self.Xy + np.einsum("np,pq,nq->n", beta, self.XX, beta)
        squares += np.einsum("nlk,nlk->n", b, (self.A @ b[:, :, :, None])[:, :, :, 0] - 2.0 * left)
        return beta, b, squares


def grouped_products(design: Design) -> GroupedProducts:
    """Cross-products of a design with one random term, by sums over groups.

    Parameters
    ----------
    design : Design
        One random term; weights and offset are taken in.
    """
    from scipy.sparse import csr_array

    term = design.terms[0]
    n, m = design.n, term.m
    scale = np.ones(n) if design.weights is None else np.sqrt(design.weights)
    y = design.y if design.offset is None else design.y - design.offset
    y, X = y * scale, design.X * scale[:, None]
    Z = (np.ones((n, 1)) if term.Z is None else term.Z) * scale[:, None]
    beta = np.linalg.lstsq(X, y, rcond=None)[0] if X.shape[1] else np.zeros(0)
    y = y - X @ beta
    sums: Any = csr_array((np.ones(n), (term.codes, np.arange(n))), shape=(m, n))
    k = Z.shape[1]

    def by_group(right: np.ndarray) -> np.ndarray:
        return np.stack([sums @ (Z[:, j : j + 1] * right) for j in range(k)], axis=1)

    A = by_group(Z)
    return GroupedProducts(
        A=0.5 * (A + np.swapaxes(A, 1, 2)),
        C=by_group(X),
        c=by_group(y[:, None])[:, :, 0],
        XX=X.T @ X,
        Xy=X.T @ y,
        yy=float(y @ y),
        n=n,
        beta=beta,
        log_weights=0.0 if design.weights is None else float(np.sum(np.log(design.weights))),
    )
