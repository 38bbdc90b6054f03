"""A residual structure with dense matrices: AR(1) times one variance per stratum."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array

from mixedmodels.residual.base import NaturalValues

__all__ = ["DensePoint", "DenseResidual"]


class DensePoint:
    """`ResidualPoint` of dense R, dR_j and d2R_ij."""

    def __init__(self, R, first, second, pattern):
        self.pattern = pattern
        self.R, self.first, self.second = R, first, second
        self._L = np.linalg.cholesky(R)
        self._W = np.linalg.inv(self._L)
        self.logdet = 2.0 * float(np.log(np.diagonal(self._L)).sum())
        self.variances = np.diagonal(R).copy()
        self.D = [self._W @ d @ self._W.T for d in first]
        self.D2 = [[self._W @ d @ self._W.T for d in row] for row in second]
        self.trace = np.array([np.trace(D) for D in self.D])

    def whiten(self, M):
        return self._W @ M

    def unwhiten(self, M):
        return self._L @ M

    def whiten_adjoint(self, M):
        return self._W.T @ M

    def unwhiten_adjoint(self, M):
        return self._L.T @ M

    def change(self, j, M):
        return self.D[j] @ M

    def whitening(self):
        """W and dW_j: with W = L^{-1}, dW = -tril(D, half its diagonal) W."""
        half = [np.tril(D, -1) + np.diag(np.diagonal(D) / 2) for D in self.D]
        pattern = np.tril(self.pattern) > 0
        rows, columns = np.nonzero(pattern)

        def stored(M):
            return csr_array((M[rows, columns], (rows, columns)), shape=M.shape)

        return stored(self._W), tuple(stored(-h @ self._W) for h in half)

    def second_change(self, i, j, M):
        return self.D2[i][j] @ M

    @property
    def trace_products(self):
        return np.array([[np.sum(a * b) for b in self.D] for a in self.D])

    @property
    def trace_seconds(self):
        return np.array([[np.trace(D) for D in row] for row in self.D2])


class DenseResidual:
    """``R_ij = s_i s_j rho^|t_i - t_j|`` within groups, phi = (atanh rho, log s of strata 1, 2, ...)."""

    needs_fitted = False
    is_sequential = is_even = False
    group = "g"

    def __init__(self, codes, times, strata=None):
        self.codes = np.asarray(codes)
        self.n, self.n_groups = self.codes.shape[0], int(self.codes.max()) + 1
        self._lag = np.abs(np.subtract.outer(times, times)).astype(float)
        self._same = np.equal.outer(self.codes, self.codes)
        self._strata = np.zeros(self.n, int) if strata is None else np.asarray(strata)
        self.n_phi = 1 + int(self._strata.max())
        self.names = ("z", *(f"log_sd{j}" for j in range(1, self.n_phi)))
        self.start = np.zeros(self.n_phi)
        self.lower, self.upper = np.full(self.n_phi, -np.inf), np.full(self.n_phi, np.inf)

    def natural(self, phi):
        values = np.concatenate([[np.tanh(phi[0])], np.exp(phi[1:])])
        jacobian = np.diag(np.concatenate([[1 - values[0] ** 2], values[1:]]))
        kinds = ("correlation", *["sd_ratio"] * (self.n_phi - 1))
        return NaturalValues(self.names, values, jacobian, kinds)

    def row_variances(self, phi):
        return np.diagonal(self.at(phi).R)

    def start_from(self, r):
        return self.start

    def at(self, phi):
        rho = np.tanh(phi[0])
        d, d2 = 1 - rho**2, -2 * rho * (1 - rho**2)
        k = self._lag
        C = np.where(self._same, rho**k, 0.0) if rho else np.eye(self.n)
        C1 = np.where(self._same & (k > 0), k * rho ** np.maximum(k - 1, 0), 0.0)
        C2 = np.where(self._same & (k > 1), k * (k - 1) * rho ** np.maximum(k - 2, 0), 0.0)
        s = np.exp(np.concatenate([[0.0], phi[1:]]))[self._strata]
        S = np.outer(s, s)
        E = [(self._strata == j).astype(float) for j in range(1, self.n_phi)]
        count = [np.add.outer(e, e) for e in E]
        first = [S * C1 * d] + [S * C * c for c in count]
        second = [[None] * self.n_phi for _ in range(self.n_phi)]
        second[0][0] = S * (C2 * d * d + C1 * d2)
        for i, a in enumerate(count):
            second[0][i + 1] = second[i + 1][0] = S * C1 * d * a
            for j, b in enumerate(count):
                second[i + 1][j + 1] = S * C * a * b
        return DensePoint(S * C, first, second, self._same)
