"""One EM step of the relative factors of a linear mixed model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mixedmodels.objective.parameters import lower_factor

__all__ = ["em_factors"]


def em_factors(
    factors: Sequence[np.ndarray],
    M: Sequence[np.ndarray],
    levels: Sequence[int],
    clips: Sequence[str],
    tied: Sequence[Sequence[int]] | None = None,
    total: float | None = None,
) -> list[np.ndarray]:
    r"""New relative factors after one step of EM, or of ECME.

    EM replaces Sigma_b by the mean over the m levels of :math:`E(b b' \mid y)/\sigma^2`. With
    :math:`N_b = \lambda_b' M_b \lambda_b` that is

    .. math:: \Sigma_b^+ = \frac{\lambda_b (I - N_b/m_b) \lambda_b'}{1 + \sum_c \mathrm{tr}(N_c)/n},

    restricted to the structure: the diagonal of the middle matrix for "diagonal", the mean of the diagonal
    for "trace". The divisor is the step of the residual variance; ECME maximises over it and has none. The
    middle matrix is a mean of second moments in the coordinates of u, hence positive semi-definite, and
    lower-triangular factors stay so; a column that is zero stays zero.

    Parameters
    ----------
    factors, M : sequence of ndarray, each (k, k)
        Relative factors, and derivatives of the criterion to Sigma, one per term.
    levels : sequence of int
        Levels of each term.
    clips : sequence of {"block", "diagonal", "trace"}
        Structure of each term (`Covariance.clip`).
    tied : sequence of sequence of int, optional
        For each term the terms that share its parameters, itself included; they share one second moment.
    total : float, optional
        Observations n, for EM; None for ECME.

    Returns
    -------
    list of ndarray, each (k, k)

    References
    ----------
    Laird & Ware (1982), Biometrics 38:963-974; Liu & Rubin (1994), Biometrika 81:633-648.

    Examples
    --------
    >>> em_factors([np.eye(1)], [np.array([[-5.0]])], [10], ["block"])[0].round(6)
    array([[1.224745]])
    """
    inner = [factor.T @ m @ factor for factor, m in zip(factors, M, strict=True)]
    divisor = 1.0 if total is None else 1.0 + sum(float(np.trace(N)) for N in inner) / total
    out = []
    for b, (factor, clip) in enumerate(zip(factors, clips, strict=True)):
        members = [b] if tied is None else tied[b]
        N = np.sum([inner[c] for c in members], axis=0) / sum(levels[c] for c in members)
        moment = np.eye(len(factor)) - N
        if clip == "diagonal":
            moment = np.diag(np.diagonal(moment))
        elif clip == "trace":
            moment = np.eye(len(factor)) * (float(np.trace(moment)) / len(factor))
        out.append(factor @ lower_factor(moment / divisor))
    return out
