"""How well the variance parameters are known, and how the covariance of the fixed effects depends on them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import NotImplementedYetError

if TYPE_CHECKING:
    from mixedmodels.fit.result import LMMFit

__all__ = ["check_structures", "fixed_products", "parameter_covariance", "vcov_derivatives"]

# Directions whose information is this small, relative to the largest after scaling, are not identified.
_IDENTIFIED = 1e-9


def check_structures(fit: LMMFit, method: str) -> None:
    """Refuse fits whose random part is one function of theta for all random effects."""
    if not hasattr(fit.objective, "joint_information"):
        raise NotImplementedYetError(
            f"ddf={method!r} is not available for a covariance given as a function of theta; use "
            'ddf="residual", "z" or a number'
        )


def parameter_covariance(information: np.ndarray) -> tuple[np.ndarray, int]:
    """Covariance of variance parameters, twice the inverse of the criterion's Hessian.

    Where the Hessian is singular (a parameter that changes nothing, as the rest of a factor whose column is
    zero) it is inverted on the directions that are identified: the others have no influence on V.

    Parameters
    ----------
    information : ndarray, shape (r, r)
        In units of -2 log-likelihood.

    Returns
    -------
    covariance : ndarray, shape (r, r)
    dropped : int
        Directions left out.
    """
    diagonal = information.diagonal()
    if not (diagonal > 0.0).all():
        diagonal = np.where(diagonal > 0.0, diagonal, 1.0)
    scale = 1.0 / np.sqrt(diagonal)
    scaled = information * scale * scale[:, None]
    try:
        pivots = np.linalg.cholesky(scaled).diagonal()
    except np.linalg.LinAlgError:
        pivots = np.zeros(1)
    if pivots.min(initial=1.0) > 1e-2:  # far from singular
        return 2.0 * np.linalg.inv(scaled) * scale * scale[:, None], 0
    values, vectors = np.linalg.eigh(scaled)
    kept = values > _IDENTIFIED * max(values[-1], 1.0) if len(values) else values > 0.0
    half = (vectors[:, kept] * np.sqrt(2.0 / values[kept])) * scale[:, None]
    return half @ half.T, int(len(values) - kept.sum())


def fixed_products(fit: LMMFit, directions: Any, second: bool) -> Any:
    """``X'V^-1X``, ``X'V^-1 V_i V^-1X`` and, if `second`, ``X'V^-1 V_i V^-1 V_j V^-1X`` at sigma = 1."""
    factors = [np.array(factor) for factor in fit._factors]
    return fit.solver.fixed_products(factors, directions, second=second)


def vcov_derivatives(vcov: np.ndarray, HDH: np.ndarray, sigma2: float, estimated: bool = True) -> np.ndarray:
    r"""Derivatives of ``Phi = sigma^2 C`` in the relative variance parameters and in log sigma^2.

    .. math:: \partial\Phi/\partial\theta_i = \sigma^2 C (X'V^{-1} V_i V^{-1}X) C
              = \Phi\, (H' D_i H)\, \Phi / \sigma^2, \qquad
              \partial\Phi/\partial\log\sigma^2 = \Phi .

    Parameters
    ----------
    vcov : ndarray, shape (p, p)
        Phi.
    HDH : ndarray, shape (r, p, p)
    sigma2 : float
        The residual variance.
    estimated : bool
        Whether sigma is a parameter; if it is held fixed the last derivative is left out.

    Returns
    -------
    ndarray, shape (r + 1, p, p)
    """
    out = vcov @ HDH @ vcov / sigma2
    return np.concatenate([out, vcov[None]]) if estimated else out
