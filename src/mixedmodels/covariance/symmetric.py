r"""Compound symmetry: one correlation between all pairs of columns."""

from __future__ import annotations

from math import asin, cos, sin, sqrt

import numpy as np

from mixedmodels.covariance.correlation import Correlation, Jet, NaturalBlock
from mixedmodels.errors import OptionError

__all__ = ["ExchangeableCorrelation"]


class ExchangeableCorrelation(Correlation):
    r""":math:`R = (1-\rho) I + \rho J` with :math:`-1/(k-1) \le \rho \le 1`.

    The eigenvalues of R are :math:`1 + (k-1)\rho = k \sin^2\omega` and
    :math:`1 - \rho = \tfrac{k}{k-1}\cos^2\omega`; psi is :math:`\omega - \omega_0` with
    :math:`\sin\omega_0 = 1/\sqrt{k}` (rho = 0). So R and its root are smooth up to both ends.

    Parameters
    ----------
    k : int
        Columns, at least 2.

    Examples
    --------
    >>> r = ExchangeableCorrelation(3)
    >>> r.matrix(r.from_natural([0.25])).value.round(12).tolist()
    [[1.0, 0.25, 0.25], [0.25, 1.0, 0.25], [0.25, 0.25, 1.0]]
    """

    names = ("angle(cor)",)

    def __init__(self, k: int) -> None:
        self.k, self.n_psi = k, 1
        self._omega0 = asin(1.0 / sqrt(k))
        self._bounds(0.0, -self._omega0, 0.5 * np.pi - self._omega0, True)

    def __reduce__(self) -> tuple:
        return type(self), (self.k,)

    def _rho(self, psi: np.ndarray) -> tuple[float, float, float, float]:
        """omega, and rho with its first two derivatives."""
        omega = float(psi[0]) + self._omega0
        a = self.k / (self.k - 1.0)
        rho = 1.0 - a * cos(omega) ** 2
        return omega, rho, a * sin(2.0 * omega), 2.0 * a * cos(2.0 * omega)

    def matrix(self, psi: np.ndarray, order: int = 0) -> Jet:
        _, rho, r1, r2 = self._rho(psi)
        off = 1.0 - np.eye(self.k)
        value = np.eye(self.k) + rho * off
        if order == 0:
            return Jet(value)
        if order == 1:
            return Jet(value, (r1 * off)[None])
        return Jet(value, (r1 * off)[None], (r2 * off)[None, None])

    def root(self, psi: np.ndarray, order: int = 0) -> Jet:
        """Column j holds ``w_j`` on the diagonal and ``v_j`` below it."""
        k = self.k
        omega, rho, r1, r2 = self._rho(psi)
        j = np.arange(1, k, dtype=np.float64)
        # sqrt(1-rho) = p, sqrt(1+(k-1)rho) = t; 1 + j rho > 0 for j < k-1 and 1 + (j-1) rho > 0
        a = sqrt(k / (k - 1.0))
        p = np.array([a * cos(omega), -a * sin(omega), -a * cos(omega)])
        t = np.array([sqrt(k) * sin(omega), sqrt(k) * cos(omega), -sqrt(k) * sin(omega)])
        one = np.array([np.ones(k - 1), np.zeros(k - 1), np.zeros(k - 1)])
        r = np.array([rho, r1, r2])[:, None] * one[0]
        before = _power3(one + (j - 1.0) * r, -0.5)
        ahead = one + j * r
        root_ahead = _power3(np.where(j < k - 1, ahead, one), 0.5)
        root_ahead[:, -1] = t
        p3 = p[:, None] * one[0]
        w = _times3(p3, _times3(root_ahead, before))
        v = np.zeros((3, k - 1))
        inner = slice(0, k - 2)
        v[:, inner] = _times3(
            _times3(r, p3)[:, inner], _times3(_power3(ahead[:, inner], -0.5), before[:, inner])
        )
        jets = np.zeros((3, k, k))
        jets[0, 0, 0] = 1.0
        jets[:, 1:, 0] = r[:, :1]
        for column in range(1, k):
            jets[:, column, column] = w[:, column - 1]
            jets[:, column + 1 :, column] = v[:, column - 1, None]
        if order == 0:
            return Jet(jets[0])
        return Jet(jets[0], jets[1:2], jets[2:3, None] if order > 1 else None)

    def natural(self, psi: np.ndarray) -> NaturalBlock:
        _, rho, slope, _ = self._rho(psi)
        return NaturalBlock(("cor",), np.array([rho]), np.array([[slope]]), ("cor",))

    def natural_curvature(self, psi: np.ndarray, weights: np.ndarray) -> np.ndarray:
        return np.array([[weights[0] * self._rho(psi)[3]]])

    def from_natural(self, values: np.ndarray) -> np.ndarray:
        rho, k = float(values[0]), self.k
        if not -1.0 / (k - 1.0) <= rho <= 1.0:
            raise OptionError(
                f"the correlation of {k} exchangeable columns must lie between -1/{k - 1} and 1, got {rho:g}"
            )
        omega = asin(sqrt(min(max((1.0 + (k - 1.0) * rho) / k, 0.0), 1.0)))
        return np.array([omega - self._omega0])

    def near(self, R: np.ndarray) -> np.ndarray:
        k = self.k
        rho = (float(np.sum(R)) - float(np.trace(R))) / (k * (k - 1.0))
        return self.from_natural(np.array([min(max(rho, -1.0 / (k - 1.0)), 1.0)]))


def _times3(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Product of functions given with two derivatives, shape (3, ...)."""
    return np.array([a[0] * b[0], a[1] * b[0] + a[0] * b[1], a[2] * b[0] + 2.0 * a[1] * b[1] + a[0] * b[2]])


def _power3(a: np.ndarray, e: float) -> np.ndarray:
    """Power of a positive function given with two derivatives, shape (3, ...)."""
    first = e * a[0] ** (e - 1.0)
    return np.array([a[0] ** e, first * a[1], first * a[2] + e * (e - 1.0) * a[0] ** (e - 2.0) * a[1] ** 2])
