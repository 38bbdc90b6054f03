"""Many responses of one design: compiled refits by solvers whose structures are linear in theta."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from mixedmodels.solver.compiled import CompiledSolver

__all__ = ["ColumnFits", "ResponseFitter", "response_fitter"]

_NO_ESTIMATES = 7  # status of the compiled loop where nothing could be computed
_CONVERGED = (0, 1)


@dataclass(frozen=True, slots=True, eq=False)
class ColumnFits:
    """Estimates of N responses in the user's coordinates; NaN where there are none.

    Attributes
    ----------
    theta : ndarray, shape (N, n_theta)
    criterion, sigma : ndarray, shape (N,)
    beta : ndarray, shape (N, p)
    vcov : ndarray, shape (N, p, p)
        Covariance of beta.
    converged, failed : ndarray of bool, shape (N,)
    """

    theta: np.ndarray
    criterion: np.ndarray
    sigma: np.ndarray
    beta: np.ndarray
    vcov: np.ndarray
    converged: np.ndarray
    failed: np.ndarray


class ResponseFitter:
    """Fits the model of a compiled solver to other responses, without Python between them.

    It owns its evaluator and all that a response changes, so that several of them may work at a time.

    Parameters
    ----------
    solver : CompiledSolver
    reml : bool
    sigma : float or None
        Residual standard deviation held fixed.
    """

    def __init__(self, solver: CompiledSolver, reml: bool, sigma: float | None) -> None:
        own = copy.copy(solver)
        own.__dict__.pop("evaluator", None)
        own._working, own._solving = {}, {}
        own._own_responses()
        self.solver = own
        self.evaluator = own.evaluator_for(reml, sigma)
        if hasattr(self.evaluator, "accept_responses"):
            self.evaluator.accept_responses()
        std, design = own.standardised, own.design
        self.nu, self.sigma_fixed = own.nu(reml), sigma
        base = design.X @ std.beta0
        self.base = base if design.offset is None else base + design.offset
        self.sqrt_weights = np.ones(design.n) if std.sqrt_weights is None else std.sqrt_weights
        factors = own.pack.factors
        self.levels = [factor.m for factor in factors]
        self.codes = [np.ascontiguousarray(design.terms[f.terms[0]].codes, dtype=np.intc) for f in factors]
        self.Z = [np.ascontiguousarray(np.hstack([std.Z(t) for t in f.terms])) for f in factors]

    def fit(self, Y: np.ndarray, theta: np.ndarray) -> ColumnFits:
        """Fit each row of Y, shape (N, n), starting from `theta`."""
        from mixedmodels.solver._kernels.refits import refit_columns

        own = self.solver
        std, s = own.standardised, own.standardised.y_scale
        inner = own.theta_map_inverse @ theta
        found = refit_columns(
            self.evaluator, self.levels, inner, Y, self.base, self.sqrt_weights, s, std.X, self.codes, self.Z
        )
        theta_t, criterion, pwrss, beta, vcov, status = found
        failed = status == _NO_ESTIMATES
        if self.sigma_fixed is None:
            sigma = s * np.sqrt(np.maximum(pwrss, 0.0) / self.nu)
        else:
            sigma = np.where(failed, math.nan, self.sigma_fixed)
        vcov = std.T_X @ vcov @ std.T_X.T
        return ColumnFits(
            theta=theta_t @ own.theta_map.T,
            criterion=criterion,
            sigma=sigma,
            beta=std.beta0 + s * beta @ std.T_X.T,
            vcov=sigma[:, None, None] ** 2 * vcov,
            converged=np.isin(status, _CONVERGED),
            failed=failed,
        )


def response_fitter(solver: Any, reml: bool, sigma: float | None) -> ResponseFitter | None:
    """A `ResponseFitter`, or None where the solver has no compiled path from theta."""
    if not isinstance(solver, CompiledSolver) or not solver.linear or solver.n_theta == 0:
        return None
    if solver.standardised.perfect_fit:
        return None
    fitter = ResponseFitter(solver, reml, sigma)
    from mixedmodels.solver._kernels.refits import can_refit

    return fitter if can_refit(fitter.evaluator, fitter.levels) else None
