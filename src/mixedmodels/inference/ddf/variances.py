"""How well the variance parameters are known, and how X'V^{-1}X depends on them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import NotImplementedYetError
from mixedmodels.solver._kernels.evaluator import regular_inverse

if TYPE_CHECKING:
    from mixedmodels.fit.result import LMMFit

__all__ = ["check_structures", "covariance_of", "fixed_products", "parameter_covariance"]

# Directions whose information is this small, relative to the largest after scaling, are not identified.
_IDENTIFIED = 1e-9
# Pivot of the scaled information's Cholesky factor above which it is far from singular.
_REGULAR = 1e-2


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
    inverse = regular_inverse(information, _REGULAR)
    if inverse is not None:
        return 2.0 * inverse, 0
    diagonal = information.diagonal()
    scale = 1.0 / np.sqrt(np.where(diagonal > 0.0, diagonal, 1.0))
    scaled = information * scale * scale[:, None]
    values, vectors = np.linalg.eigh(scaled)
    kept = values > _IDENTIFIED * max(values[-1], 1.0) if len(values) else values > 0.0
    half = (vectors[:, kept] * np.sqrt(2.0 / values[kept])) * scale[:, None]
    return half @ half.T, int(len(values) - kept.sum())


def covariance_of(fit: LMMFit, information: np.ndarray, kind: str) -> tuple[np.ndarray, int]:
    """`parameter_covariance` of (theta, log sigma^2); that of a fit with equations is zero across them.

    Parameters
    ----------
    fit : LMMFit
    information : ndarray
        `joint_information` of that kind.
    kind : {"observed", "average", "expected"}

    Returns
    -------
    covariance : ndarray, shape of `information`
    dropped : int
    """
    restricted = getattr(fit.objective, "restricted_covariance", None)
    if restricted is None:
        return parameter_covariance(information)
    return restricted(np.array(fit.theta), kind), 0


def fixed_products(fit: LMMFit, directions: Any, second: bool) -> Any:
    """``X'V^-1X``, ``X'V^-1 V_i V^-1X`` and, if `second`, ``X'V^-1 V_i V^-1 V_j V^-1X`` at sigma = 1.

    In orthonormal columns ``X basis``: products of columns far from 0 (years, dates) would lose their digits.
    """
    factors = [np.array(factor) for factor in fit._factors]
    return fit.solver.fixed_products(factors, directions, second=second, orthonormal=True)
