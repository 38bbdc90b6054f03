"""Hessian by differences of the exact gradient, for models whose second derivatives would take minutes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

__all__ = ["differenced_hessian"]


def differenced_hessian(
    gradient: Callable[[np.ndarray], np.ndarray], steps: np.ndarray, directions: np.ndarray, at: np.ndarray
) -> np.ndarray:
    r"""Second derivatives along some directions, from central differences of a gradient of fourth order.

    .. math:: D_i = M'\,\frac{8\,(g_{+1} - g_{-1}) - (g_{+2} - g_{-2})}{12 h_i}, \qquad
              g_{j} = g(x + j h_i m_i)

    Parameters
    ----------
    gradient : callable
        From a point, shape (P,), to the gradient there, (P,).
    steps : ndarray, shape (q,)
        Lengths :math:`h_i`; a small share of a standard error loses few digits to rounding and truncation.
    directions : ndarray, shape (P, q)
        M with columns :math:`m_i`.
    at : ndarray, shape (P,)

    Returns
    -------
    ndarray, shape (q, q)
        :math:`M'HM`, symmetric.

    Examples
    --------
    >>> H = np.array([[2.0, 1.0], [1.0, 3.0]])
    >>> differenced_hessian(lambda x: H @ x, np.array([0.1, 0.1]), np.eye(2), np.ones(2)).round(9).tolist()
    [[2.0, 1.0], [1.0, 3.0]]
    """
    out = np.empty((len(steps), len(steps)))
    for i, (h, m) in enumerate(zip(steps, directions.T, strict=True)):
        near = gradient(at + h * m) - gradient(at - h * m)
        far = gradient(at + 2.0 * h * m) - gradient(at - 2.0 * h * m)
        out[:, i] = directions.T @ (8.0 * near - far) / (12.0 * h)
    return 0.5 * (out + out.T)
