r"""Toeplitz correlations through partial autocorrelations, so that every parameter gives a valid matrix."""

from __future__ import annotations

import numpy as np

from mixedmodels.covariance.correlation import Correlation, Jet, NaturalBlock
from mixedmodels.errors import OptionError

__all__ = ["ToeplitzCorrelation"]


class ToeplitzCorrelation(Correlation):
    r"""One correlation for each lag: :math:`R_{ij} = r_{|i-j|}`.

    psi are the angles of the partial autocorrelations :math:`\sin\omega_1, ..., \sin\omega_{k-1}`: they reach
    every positive semi-definite Toeplitz correlation. The root comes from the normalised lattice filter,
    which is a product of rotations, smooth for all angles.

    Parameters
    ----------
    k : int
        Columns.

    References
    ----------
    Barndorff-Nielsen & Schou (1973), J. Multivariate Anal. 3:408-419; Gray & Markel (1975), IEEE Trans.
    ASSP 23:268-277 (normalised lattice).

    Examples
    --------
    >>> r = ToeplitzCorrelation(3)
    >>> r.matrix(r.from_natural([0.5, 0.1])).value.round(12).tolist()
    [[1.0, 0.5, 0.1], [0.5, 1.0, 0.5], [0.1, 0.5, 1.0]]
    """

    def __init__(self, k: int) -> None:
        self.k, self.n_psi = k, k - 1
        self.names = tuple(f"angle(lag{i})" for i in range(1, k))
        self._bounds(0.0, -0.5 * np.pi, 0.5 * np.pi, True)
        self._lag = np.abs(np.arange(k)[:, None] - np.arange(k))

    def __reduce__(self) -> tuple:
        return type(self), (self.k,)

    def matrix(self, psi: np.ndarray, order: int = 0) -> Jet:
        value, first, second = self._lattice(psi, order, 1)
        lag = self._lag
        return Jet(
            value[:, 0][lag],
            None if first is None else first[:, :, 0][:, lag],
            None if second is None else second[:, :, :, 0][:, :, lag],
        )

    def root(self, psi: np.ndarray, order: int = 0) -> Jet:
        return self._lattice(psi, order, self.k)

    def _lattice(self, psi: np.ndarray, order: int, width: int) -> Jet:
        """The first `width` columns of the root: shapes (k, width), (q, k, width), (q, q, k, width).

        At time t the forward error of order t is a new innovation; going down the orders,
        ``f_{j-1} = c_j f_j + s_j b_{j-1}'`` and ``b_j = c_j b_{j-1}' - s_j f_j`` with ``b'`` of time t-1.
        """
        psi = np.asarray(psi, dtype=np.float64)
        s, c = np.sin(psi).tolist(), np.cos(psi).tolist()
        k, q = self.k, self.n_psi
        # jets are flattened: one value, q first and q^2 second derivatives in front of the width
        size = (1, 1 + q, 1 + q + q * q)[order]
        out = np.zeros((k, size, width))
        before: list[np.ndarray] = []
        for t in range(k):
            f = np.zeros((size, width))
            if t < width:
                f[0, t] = 1.0
            now: list[np.ndarray] = [f] * (t + 1)
            for j in range(t, 0, -1):
                b = before[j - 1]
                now[j] = _rotate(c[j - 1], s[j - 1], b, f, j - 1, q, order, -1.0)
                f = _rotate(c[j - 1], s[j - 1], f, b, j - 1, q, order, 1.0)
            now[0] = f
            before = now
            out[t] = f
        value = out[:, 0]
        if order == 0:
            return Jet(value)
        first = np.ascontiguousarray(out[:, 1 : 1 + q].transpose(1, 0, 2))
        if order == 1:
            return Jet(value, first)
        second = out[:, 1 + q :].reshape(k, q, q, width).transpose(1, 2, 0, 3)
        return Jet(value, first, np.ascontiguousarray(second))

    def natural(self, psi: np.ndarray) -> NaturalBlock:
        value, first, _ = self._lattice(psi, 1, 1)
        assert first is not None
        names = tuple(f"cor(lag{i})" for i in range(1, self.k))
        return NaturalBlock(names, value[1:, 0], first[:, 1:, 0].T, ("cor",) * self.n_psi)

    def natural_curvature(self, psi: np.ndarray, weights: np.ndarray) -> np.ndarray:
        second = self._lattice(psi, 2, 1).second
        assert second is not None
        return second[:, :, 1:, 0] @ weights

    def from_natural(self, values: np.ndarray) -> np.ndarray:
        found, inside = _partial(np.asarray(values, dtype=np.float64))
        if not inside:
            raise OptionError(
                f"the Toeplitz correlations {np.asarray(values).tolist()} are not positive semi-definite"
            )
        return np.arcsin(np.clip(found, -1.0, 1.0))

    def near(self, R: np.ndarray) -> np.ndarray:
        means = np.array([np.mean(np.diagonal(R, lag)) for lag in range(1, self.k)])
        return np.arcsin(np.clip(_partial(means)[0], -1.0, 1.0))


def _rotate(
    c: float, s: float, a: np.ndarray, b: np.ndarray, at: int, q: int, order: int, sign: float
) -> np.ndarray:
    """``c a + sign s b`` of flattened jets, (c, s) the cosine and sine of parameter `at`."""
    out = c * a + sign * s * b
    if order == 0:
        return out
    turned = sign * c * b[: 1 + q] - s * a[: 1 + q]  # its derivative in the angle itself, where a, b stay
    if order == 2:
        square = out[1 + q :].reshape(q, q, -1)
        square[at] += turned[1:]
        square[:, at] += turned[1:]
        square[at, at] -= c * a[0] + sign * s * b[0]
    out[1 + at] += turned[0]
    return out


def _partial(r: np.ndarray) -> tuple[np.ndarray, bool]:
    """Partial autocorrelations of autocorrelations r_1, r_2, ... (Durbin-Levinson); whether all are valid.

    Those after the first that is not inside (-1, 1) are 0.
    """
    q = r.shape[0]
    out, phi, v = np.zeros(q), np.zeros(0), 1.0
    for j in range(q):
        z = float(r[j] - phi @ r[:j][::-1]) / v
        out[j] = z
        if not abs(z) < 1.0 - 1e-14:
            return out, abs(z) <= 1.0 + 1e-8 and bool(np.all(np.isfinite(r)))
        phi = np.append(phi - z * phi[::-1], z)
        v *= 1.0 - z * z
    return out, True
