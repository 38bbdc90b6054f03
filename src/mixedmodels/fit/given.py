"""Fits at given variances: best linear unbiased predictions without estimating anything else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from mixedmodels.errors import OptionError
from mixedmodels.optimize.optimum import Optimum, Status

__all__ = ["NOTE", "given_optimum", "with_sigma"]

NOTE = "the variances are given, not estimated"


def with_sigma(options: Any) -> Any:
    """Options in which the residual standard deviation of `variances` is held.

    Raises
    ------
    OptionError
        `variances` is no dict or sequence, or has no residual variance.
    """
    variances = options.variances
    if isinstance(variances, Mapping):
        if "Residual" not in variances:
            raise OptionError('variances has no "Residual": give the residual variance as well')
        residual = variances["Residual"]
    else:
        try:
            residual = list(variances)[-1]
        except (TypeError, IndexError):
            raise OptionError(
                'variances must be a dict from grouping factors to variances, such as {"animal": 20.0, '
                f'"Residual": 40.0}}, got {variances!r}'
            ) from None
    try:
        value = float(residual)
    except (TypeError, ValueError):
        value = float("nan")
    if not 0.0 < value < np.inf:
        raise OptionError(f"the residual variance must be positive and finite, got {residual!r}")
    return replace(options, sigma=float(np.sqrt(value)))


def given_optimum(objective: Any, variances: Any) -> Optimum:
    """What an optimiser would return that had nothing to do."""
    point = objective.at_components(variances)
    theta = point.theta
    return Optimum(
        theta=theta,
        value=-2.0 * point.loglik,
        gradient=None,
        hessian=None,
        status=Status.CONVERGED,
        iterations=0,
        evaluations=1,
        gradient_evaluations=0,
        trace=(),
        decrement=float("nan"),
        kkt=(),
        method="given",
        message=NOTE,
        names=tuple(objective.names),
    )
