"""Starting values of variance components, and the quadratic estimates MINQUE."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import OptionError, SolverError
from mixedmodels.fit.classical.names import STARTS
from mixedmodels.fit.classical.search import solve_information

if TYPE_CHECKING:
    from mixedmodels.objective.component_space import ComponentSpace

__all__ = ["minque", "shares_of", "starting_values"]

_EM_ROUNDS = 100


def starting_values(space: ComponentSpace, starts: Any) -> np.ndarray:
    """Start of a search in the components, inside the space.

    Parameters
    ----------
    space : ComponentSpace
    starts : str, mapping or sequence
        "moments": moments of the least-squares residuals (the start of the default method); "ols": 95 % of
        the residual variance of ordinary least squares to the error, the rest in equal parts; "equal": equal
        parts; "em": 100 rounds of EM from equal parts; "minque0", "minque1", "minquemean": these estimates,
        with negative variances put to a small share; or values, as `LinearMixedModel.at` takes them.

    Raises
    ------
    OptionError
        Another name, or values outside the space.
    """
    if isinstance(starts, str):
        name = starts.lower()
        if name not in STARTS:
            raise OptionError(
                f"starts must be one of {', '.join(map(repr, STARTS))} or values, got {starts!r}"
            )
        if name == "moments":
            return space.kappa_of(space.objective.start)
        if name in ("ols", "equal"):
            count = int(space.variances.sum())
            error = 1.0 / count if name == "equal" or count == 1 else 0.95
            return shares_of(space, error)
        if name == "em":
            kappa = shares_of(space, 1.0 / int(space.variances.sum()))
            for _ in range(_EM_ROUNDS):
                kappa = space.em(space.point(kappa))
            return kappa
        estimate, _ = minque(space, name[6:])
        return _interior(space, estimate)
    if isinstance(starts, Mapping):
        return np.array(space.objective.at_components(starts).values)
    try:
        values = np.array(starts, dtype=float)
    except (TypeError, ValueError):
        values = np.zeros((0,))
    if values.ndim != 1 or values.shape != (space.size,):
        try:
            return np.array(space.objective.at_components(starts).values)
        except (TypeError, ValueError) as error:
            raise OptionError(
                f"starts must be a name ({', '.join(STARTS)}) or one value for each of "
                f"{', '.join(space.names)}: {error}"
            ) from None
    if not space.inside(values):
        raise OptionError(
            "starts lie outside the parameter space: covariance matrices must be positive semi-definite and "
            "the residual variance positive"
        )
    return values


def shares_of(space: ComponentSpace, error: float) -> np.ndarray:
    """The residual variance of least squares: a share to the error, the rest in equal parts to the others."""
    objective = space.objective
    zeros = [np.zeros((term.k, term.k)) for term in objective.design.terms]
    total = float(objective.solver.components(zeros, 0, None, True).pwrss) / objective.solver.nu(True)
    kappa = np.zeros(space.size)
    variances = np.flatnonzero(space.variances)[:-1]
    if len(variances):
        kappa[variances] = (1.0 - error) * total / len(variances)
        kappa[variances] /= np.maximum(space.loads[variances], 1e-300)
    kappa[-1] = error * total if objective.sigma_fixed is None else objective.sigma_fixed**2
    return kappa


def minque(space: ComponentSpace, weights: str = "0") -> tuple[np.ndarray, bool]:
    r"""Minimum norm quadratic unbiased estimates of the variance components.

    With P for the weights given, they solve

    .. math:: \sum_j \mathrm{tr}(P V_i P V_j)\, \kappa_j = y'PV_iPy,

    which is one round of Fisher scoring for REML from the weights; iterated it is REML.

    Parameters
    ----------
    space : ComponentSpace
    weights : {"0", "1", "mean"}
        V = I; the sum of all V_i of variances; the mean of the two estimates.

    Returns
    -------
    kappa : ndarray
        As they come out: variances may be negative.
    inside : bool
        Whether they lie in the parameter space.

    Raises
    ------
    SolverError
        The equations are singular: the components are not identified.

    Notes
    -----
    Rao (1971), J. Multivariate Anal. 1:257-275 and 445-456; Searle, Casella & McCulloch (1992), section 11.3.
    """
    if weights == "mean":
        kappa = 0.5 * (minque(space, "0")[0] + minque(space, "1")[0])
        return kappa, space.inside(kappa)
    from mixedmodels.objective.component_space import ComponentSpace

    restricted = space if space.reml else ComponentSpace(space.objective, True)
    prior = np.where(space.variances, 1.0 if weights == "1" else 0.0, 0.0)
    prior[-1] = 1.0
    point = restricted.point(prior)
    step = solve_information(point.information("expected"), point.score)
    if step is None:
        raise SolverError(
            "the equations of MINQUE are singular: the data cannot tell the variance components apart; "
            "remove a random term"
        )
    kappa = prior + step
    return kappa, space.inside(kappa)


def _interior(space: ComponentSpace, kappa: np.ndarray) -> np.ndarray:
    """An estimate moved into the space: small variances in the place of those that are not positive."""
    small = 0.01 * shares_of(space, 1.0 / int(space.variances.sum()))
    kappa = np.array(kappa)
    if space.objective.sigma_fixed is not None:
        kappa[-1] = small[-1] = space.objective.sigma_fixed**2
    kappa[-1] = max(kappa[-1], small[-1])
    kappa = space.project(kappa)
    low = space.variances & (kappa < small)
    return np.where(low, small, kappa) if space.inside(np.where(low, small, kappa)) else kappa
