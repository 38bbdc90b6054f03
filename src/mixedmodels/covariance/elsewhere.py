r"""Effects at positions that the data do not have, given those at the positions of the fit (kriging).

The structure made again on old and new positions, with the same natural parameters, has the covariance

.. math:: \Sigma = s^2 \begin{pmatrix} R_{oo} & R_{on} \\ R_{no} & R_{nn} \end{pmatrix},

so that the new effects given the old ones have mean :math:`W b_o`, :math:`W = R_{no} R_{oo}^{-1}`, and
variance :math:`s^2 (1 - \mathrm{diag}\,W R_{on})`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from mixedmodels.covariance.structured import ScaledCorrelation

__all__ = ["Elsewhere", "elsewhere", "has_elsewhere"]


class Elsewhere(NamedTuple):
    """Effects at new positions given those of the term.

    Attributes
    ----------
    weights : ndarray, shape (r, k)
        W.
    leftover : ndarray, shape (r,)
        Variances given the effects of the term, in the units of ``factor factor'``.
    derivatives : ndarray, shape (n_theta, r, k)
        Of W.
    """

    weights: np.ndarray
    leftover: np.ndarray
    derivatives: np.ndarray


def has_elsewhere(covariance: Any) -> bool:
    """Whether a structure says what effects at other positions are: one variance, correlation by distance."""
    return (
        isinstance(covariance, ScaledCorrelation)
        and not covariance.separate
        and covariance.correlation.positions is not None
    )


def elsewhere(covariance: ScaledCorrelation, theta: np.ndarray, points: np.ndarray) -> Elsewhere:
    """Effects at new positions given those of the term.

    Parameters
    ----------
    covariance : ScaledCorrelation
        For which `has_elsewhere` holds.
    theta : ndarray, shape (n_theta,)
    points : ndarray, shape (r, dimensions)
        Distinct, none of them a position of the term.

    Raises
    ------
    OptionError
        The structure does not take such positions (AR(1) takes whole numbers).

    Notes
    -----
    Stein (1999), *Interpolation of Spatial Data*, section 1.2 (simple kriging).

    Examples
    --------
    >>> from mixedmodels.covariance import make_covariance
    >>> ar1 = make_covariance("ar1", 2, times=[1, 3])
    >>> theta = ar1.theta_from_natural([2.0, 0.5])
    >>> found = elsewhere(ar1, theta, np.array([[2.0]]))
    >>> found.weights.round(4).tolist(), found.leftover.round(4).tolist()
    ([[0.4, 0.4]], [2.4])
    """
    theta = np.asarray(theta, dtype=np.float64)
    step = max(200, covariance.k)
    parts = [_some(covariance, theta, points[at : at + step]) for at in range(0, len(points), step)]
    return Elsewhere(
        np.concatenate([part.weights for part in parts]),
        np.concatenate([part.leftover for part in parts]),
        np.concatenate([part.derivatives for part in parts], axis=1),
    )


def _some(covariance: ScaledCorrelation, theta: np.ndarray, points: np.ndarray) -> Elsewhere:
    own, psi = covariance.correlation, theta[1:]
    assert own.positions is not None
    together = np.concatenate([own.positions, points])
    order = np.lexsort(together.T[::-1])
    whole = own.at_positions(together[order])
    at = own.natural(psi)
    psi_whole = whole.from_natural(at.values)
    place = np.argsort(order)
    old, new = place[: own.k], place[own.k :]
    jet = whole.matrix(psi_whole, 1)
    assert jet.first is not None
    R, cross = jet.value[np.ix_(old, old)], jet.value[np.ix_(new, old)]
    inverse = np.linalg.pinv(R, rcond=1e-13, hermitian=True)
    W = cross @ inverse
    # one step of refinement: nearby positions make R nearly singular
    W += (cross - W @ R) @ inverse
    leftover = np.maximum(1.0 - np.sum(W * cross, axis=1), 0.0) * theta[0] ** 2
    turn = np.linalg.pinv(whole.natural(psi_whole).jacobian) @ at.jacobian  # d psi_whole / d psi
    by_whole = np.array(
        [(part[np.ix_(new, old)] - W @ part[np.ix_(old, old)]) @ inverse for part in jet.first]
    )
    derivatives = np.zeros((covariance.n_theta, *W.shape))
    derivatives[1:] = np.einsum("pq,prk->qrk", turn, by_whole)
    return Elsewhere(W, leftover, derivatives)
