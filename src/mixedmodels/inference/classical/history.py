"""The course of the search behind a fit, as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.inference.table import ResultTable, result_table
from mixedmodels.objective.component_space import ComponentSpace
from mixedmodels.objective.lmm import LMMObjective

if TYPE_CHECKING:
    from mixedmodels.optimize.history import History

__all__ = ["history", "history_table"]


def history(fit: Any) -> ResultTable:
    """Table of the steps of the optimiser.

    Parameters
    ----------
    fit : LMMFit or GLMMFit

    Returns
    -------
    ResultTable
        For a method that works on variance components the columns of `history_table`. Otherwise iteration,
        loglik and the parameters: variance components if the model has them (sigma^2 profiled), else theta.
    """
    optimum = fit._optimum
    found = getattr(optimum, "history", None)
    if found is not None:
        return history_table(found, optimum.method, optimum.message)
    trace = list(optimum.trace)
    if not trace:
        trace = [(optimum.iterations, optimum.theta, optimum.value)]
    names, rows = tuple(optimum.names), np.array([np.asarray(theta) for _, theta, _ in trace], dtype=float)
    objective = fit.objective
    if isinstance(objective, LMMObjective) and objective.entries is not None and objective.n_theta:
        space = ComponentSpace(objective)
        names, rows = space.names, np.array([space.kappa_of(theta) for theta in rows])
    columns = {
        "iteration": np.array([i for i, _, _ in trace]),
        "loglik": -0.5 * np.array([value for _, _, value in trace], dtype=float),
        **{name: rows[:, j] for j, name in enumerate(names) if j < rows.shape[1]},
    }
    return result_table(f"Search by {optimum.method}", columns, notes=(optimum.message,))


def history_table(found: History, method: str, message: str = "") -> ResultTable:
    """A `History` as a table."""
    return result_table(f"Search by {method}", found.columns(), notes=(message,) if message else ())
