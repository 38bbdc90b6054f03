r"""Effects at positions that the data do not have, given those at the positions of the fit (kriging).

The structure made again on old and new positions, with the same natural parameters, has the covariance

.. math:: \Sigma = s^2 \begin{pmatrix} R_{oo} & R_{on} \\ R_{no} & R_{nn} \end{pmatrix},

so that the new effects given the old ones have mean :math:`W b_o`, :math:`W = R_{no} R_{oo}^{-1}`, and
covariance :math:`s^2 (R_{nn} - W R_{on})`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from mixedmodels.covariance.correlation import Correlation
from mixedmodels.covariance.structured import ScaledCorrelation
from mixedmodels.errors import OptionError

__all__ = ["Elsewhere", "elsewhere", "has_elsewhere", "joint_factor"]


_LARGEST = 5000  # new positions whose joint covariance is written down


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


def elsewhere(covariance: ScaledCorrelation, theta: np.ndarray, positions: np.ndarray) -> Elsewhere:
    """Effects at new positions given those of the term.

    Parameters
    ----------
    covariance : ScaledCorrelation
        For which `has_elsewhere` holds.
    theta : ndarray, shape (n_theta,)
    positions : ndarray, shape (r, dimensions)
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
    parts = [_some(covariance, theta, positions[at : at + step]) for at in range(0, len(positions), step)]
    return Elsewhere(
        np.concatenate([part.weights for part in parts]),
        np.concatenate([part.leftover for part in parts]),
        np.concatenate([part.derivatives for part in parts], axis=1),
    )


def joint_factor(covariance: ScaledCorrelation, theta: np.ndarray, positions: np.ndarray) -> np.ndarray:
    r"""A factor of the covariance of the effects at the positions of the term and at new ones.

    .. math:: \begin{pmatrix} \Lambda & 0 \\ W \Lambda & C \end{pmatrix}, \qquad
              C C' = s^2 (R_{nn} - W R_{on}).

    Parameters
    ----------
    covariance : ScaledCorrelation
        For which `has_elsewhere` holds.
    theta : ndarray, shape (n_theta,)
    positions : ndarray, shape (r, dimensions)
        Distinct, none of them a position of the term.

    Returns
    -------
    ndarray, shape (k + r, k + r)

    Raises
    ------
    OptionError
        The structure does not take such positions, or there are too many.

    Examples
    --------
    >>> from mixedmodels.covariance import make_covariance
    >>> ar1 = make_covariance("ar1", 2, times=[1, 3])
    >>> found = joint_factor(ar1, ar1.theta_from_natural([2.0, 0.5]), np.array([[2.0]]))
    >>> (found @ found.T).round(12).tolist()
    [[4.0, 1.0, 2.0], [1.0, 4.0, 2.0], [2.0, 2.0, 4.0]]
    """
    theta = np.asarray(theta, dtype=np.float64)
    k, r = covariance.k, len(positions)
    if r > _LARGEST:
        raise OptionError(f"joint draws take at most {_LARGEST} new positions, not {r}; round the positions")
    own = covariance.correlation
    whole, old, new = _together(covariance, positions)
    R = whole.matrix(whole.from_natural(own.natural(theta[1:]).values)).value
    W = _some(covariance, theta, positions).weights
    left = R[np.ix_(new, new)] - W @ R[np.ix_(old, new)]
    values, vectors = np.linalg.eigh(0.5 * (left + left.T))
    out = np.zeros((k + r, k + r))
    out[:k, :k] = covariance.factor(theta)
    out[k:, :k] = W @ out[:k, :k]
    out[k:, k:] = vectors * (theta[0] * np.sqrt(np.maximum(values, 0.0)))
    return out


def _together(
    covariance: ScaledCorrelation, positions: np.ndarray
) -> tuple[Correlation, np.ndarray, np.ndarray]:
    """The correlation at old and new positions, and the places of the old and of the new ones."""
    own = covariance.correlation
    assert own.positions is not None
    together = np.concatenate([own.positions, positions])
    order = np.lexsort(together.T[::-1])
    place = np.argsort(order)
    return own.at_positions(together[order]), place[: own.k], place[own.k :]


def _some(covariance: ScaledCorrelation, theta: np.ndarray, positions: np.ndarray) -> Elsewhere:
    own, psi = covariance.correlation, theta[1:]
    whole, old, new = _together(covariance, positions)
    at = own.natural(psi)
    psi_whole = whole.from_natural(at.values)
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
