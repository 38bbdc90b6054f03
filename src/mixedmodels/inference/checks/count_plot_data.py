"""Numbers behind plots of discrete responses: binned residuals and rootograms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import OptionError

if TYPE_CHECKING:
    from mixedmodels.fit.glmm_result import GLMMFit

__all__ = ["binned_data", "rootogram_data"]


def binned_data(fit: GLMMFit, bins: int | None = None) -> dict[str, np.ndarray]:
    r"""Columns fitted, residual, low, high, n: means over rows with similar fitted values.

    Limits are :math:`\pm 2 (\sum_i V_i)^{1/2}/n` with the variances V of the n responses of a bin at the
    conditional modes.

    Parameters
    ----------
    fit : GLMMFit
    bins : int, optional
        By default the square root of the number of rows, between 5 and 60.

    Raises
    ------
    OptionError
        A linear model, or a response of several categories.

    Notes
    -----
    Gelman & Hill (2007), Data Analysis Using Regression and Multilevel/Hierarchical Models, sec. 5.6.
    """
    if fit._is_linear or fit.family.response == "categories":
        raise OptionError(
            "binned residuals are for generalised models of numbers; for others see plot.residuals() and "
            "plot.simulated_residuals()"
        )
    data = fit.generalised.data
    if bins is None:
        bins = int(np.clip(round(np.sqrt(data.n)), 5, 60))
    if isinstance(bins, bool) or not isinstance(bins, (int, np.integer)) or bins < 1:
        raise OptionError(f"bins must be a whole number of at least 1, got {bins!r}")
    etas = list(fit._solution.eta)
    mean = fit.family.mean(etas)
    trials = 1.0 if data.trials is None else data.trials
    variance = fit.family.variance(data, etas) / trials**2
    residual = data.y / trials - mean
    known = np.isfinite(residual) & np.isfinite(variance)
    order = np.flatnonzero(known)[np.argsort(mean[known], kind="stable")]
    edges = np.unique(np.linspace(0, order.size, min(int(bins), order.size) + 1).astype(int))
    n = np.diff(edges).astype(float)
    limit = 2.0 * np.sqrt(np.add.reduceat(variance[order], edges[:-1])) / n
    return {
        "fitted": np.add.reduceat(mean[order], edges[:-1]) / n,
        "residual": np.add.reduceat(residual[order], edges[:-1]) / n,
        "low": -limit,
        "high": limit,
        "n": n.astype(int),
    }


def rootogram_data(fit: GLMMFit, most: int = 60) -> dict[str, Any]:
    """Columns count, observed, expected: frequencies of counts, expected at the conditional modes.

    ``expected`` sums the probabilities of a count over the rows; counts of `most` and more are one row.

    Parameters
    ----------
    fit : GLMMFit
    most : int

    Raises
    ------
    OptionError
        The response is not a count.

    Notes
    -----
    Kleiber & Zeileis (2016), Visualizing count data regressions using rootograms, Am. Stat. 70:296-303.
    """
    if fit._is_linear or fit.family.response != "count":
        raise OptionError("a rootogram is for counts; see plot.qq() and plot.binned() for other responses")
    if isinstance(most, bool) or not isinstance(most, (int, np.integer)) or most < 1:
        raise OptionError(f"most must be a whole number of at least 1, got {most!r}")
    data = fit.generalised.data
    first = int(fit.family.name.startswith("truncated"))
    last = max(min(int(data.y.max()), int(most) - 1), first)
    counts = np.arange(first, last + 1)
    etas = list(fit._solution.eta)
    plain = type(data)(data.y, data.trials, None, data.levels)
    expected = [
        float(np.exp(fit.family.derivatives(plain.with_y(np.full(data.n, float(k))), etas, 0)[0]).sum())
        for k in counts.tolist()
    ]
    observed = np.bincount(np.minimum(data.y, last + 1).astype(np.intp), minlength=last + 2)[first:]
    return {
        "count": [str(k) for k in counts.tolist()] + [f">{last}"],
        "observed": observed,
        "expected": np.array([*expected, max(data.n - sum(expected), 0.0)]),
    }
