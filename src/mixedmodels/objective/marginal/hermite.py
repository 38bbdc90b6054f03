r"""Gauss-Hermite rules for the standard normal density, with weights that keep their digits in the tails.

Nodes are the eigenvalues of the Jacobi matrix (Golub & Welsch 1969, Mathematics of Computation 23:221-230),
polished by Newton's method. With the orthonormal polynomials p_k of N(0, 1) the weights are
:math:`w_j = 1/(n\,p_{n-1}(z_j)^2)`; adaptive quadrature needs :math:`\log w_j + z_j^2/2`, which

.. math:: \sqrt{k+1}\,h_{k+1}(z) = z h_k(z) - \sqrt{k}\,h_{k-1}(z), \qquad h_k(z) = p_k(z)e^{-z^2/4}

gives without overflow or cancellation.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

__all__ = ["hermite", "hermite_grid"]


@lru_cache(maxsize=128)
def hermite(nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes z and ``log w + z^2/2`` of the rule for N(0, 1), ascending; ``sum w = 1``.

    Parameters
    ----------
    nodes : int

    Returns
    -------
    z, log_weight : ndarray, shape (nodes,)

    Examples
    --------
    >>> z, log_weight = hermite(3)
    >>> np.round(z, 6)
    array([-1.732051,  0.      ,  1.732051])
    >>> np.round(np.exp(log_weight - z**2 / 2), 6)
    array([0.166667, 0.666667, 0.166667])
    """
    off = np.sqrt(np.arange(1.0, nodes))
    x: Any = np.linalg.eigvalsh(np.diag(off, 1) + np.diag(off, -1)).astype(np.longdouble)
    for _ in range(3):
        below, last = _functions(x, nodes)
        x = x - last / (np.sqrt(np.longdouble(nodes)) * below)
    x = (x - x[::-1]) / 2
    below, _ = _functions(x, nodes)
    log_weight = (-np.log(np.longdouble(nodes)) - 2 * np.log(np.abs(below))).astype(float)
    log_weight = 0.5 * (log_weight + log_weight[::-1])
    z = x.astype(float)
    z.setflags(write=False)
    log_weight.setflags(write=False)
    return z, log_weight


def _functions(z: np.ndarray, nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """``h_{nodes-1}`` and ``h_nodes``."""
    before, now = np.zeros_like(z), np.exp(-z * z / 4)
    for k in range(nodes):
        root = np.sqrt(np.array([k, k + 1], dtype=z.dtype))
        before, now = now, (z * now - root[0] * before) / root[1]
    return before, now


def hermite_grid(nodes: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The product rule in k dimensions: points (nodes^k, k) and ``log w + |z|^2/2``.

    Examples
    --------
    >>> hermite_grid(2, 2)[0]
    array([[-1., -1.],
           [-1.,  1.],
           [ 1., -1.],
           [ 1.,  1.]])
    """
    z, log_weight = hermite(nodes)
    points = np.stack(np.meshgrid(*([z] * k), indexing="ij"), axis=-1).reshape(-1, k)
    weights = np.stack(np.meshgrid(*([log_weight] * k), indexing="ij"), axis=-1).reshape(-1, k).sum(axis=1)
    return points, weights
