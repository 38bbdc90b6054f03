"""Intraclass correlations and Nakagawa's R-squared: ratios of the parts of the variance."""

from __future__ import annotations

from typing import Any

from mixedmodels.inference.checks.variance_parts import parts_of
from mixedmodels.inference.table import ResultTable, result_table

__all__ = ["icc", "r2"]


def icc(fit: Any, scale: str = "latent", method: str | None = None) -> ResultTable:
    r"""Intraclass correlations: the share of the random effects in the variance.

    .. math:: \text{adjusted} = \frac{\sigma_r^2}{\sigma_r^2 + \sigma_e^2}, \qquad
              \text{unadjusted} = \frac{\sigma_r^2}{\sigma_f^2 + \sigma_r^2 + \sigma_e^2}

    with :math:`\sigma_r^2` of all grouping factors (row ``"all"``) or of one of them in the numerator. A
    variance of zero is a number like any other.

    Parameters
    ----------
    fit : LMMFit or GLMMFit
    scale, method
        Of generalised models, as `mixedmodels.inference.checks.variance_parts.variance_parts`.

    Returns
    -------
    ResultTable
        Columns group, variance, adjusted, unadjusted.

    Notes
    -----
    Nakagawa, Johnson & Schielzeth (2017), J. R. Soc. Interface 14:20170213.

    Examples
    --------
    >>> import mixedmodels as mm
    >>> fit = mm.lmm("Reaction ~ Days + (Days | Subject)", mm.load_dataset("sleepstudy", backend="dict"))
    >>> print(fit.icc())
    Intraclass correlations
    group   variance adjusted unadjusted
    all         1698   0.7217     0.5206
    Subject     1698   0.7217     0.5206
    terms with slopes: the mean over the rows of the variance of z'b (Johnson 2014)
    """
    parts = parts_of(fit, scale, method)
    within = parts.random + parts.residual
    values = {"all": parts.random, **parts.groups}
    columns: dict[str, Any] = {
        "group": list(values),
        "variance": list(values.values()),
        "adjusted": [value / within for value in values.values()],
        "unadjusted": [value / (within + parts.fixed) for value in values.values()],
    }
    return result_table("Intraclass correlations", columns, parts.notes, fit._native)


def r2(fit: Any, scale: str = "latent", method: str | None = None) -> ResultTable:
    r"""Marginal and conditional R-squared.

    .. math:: R^2_m = \frac{\sigma_f^2}{\sigma_f^2 + \sigma_r^2 + \sigma_e^2}, \qquad
              R^2_c = \frac{\sigma_f^2 + \sigma_r^2}{\sigma_f^2 + \sigma_r^2 + \sigma_e^2}

    Parameters
    ----------
    fit : LMMFit or GLMMFit
    scale, method
        Of generalised models, as `mixedmodels.inference.checks.variance_parts.variance_parts`.

    Returns
    -------
    ResultTable
        Columns kind and estimate; extra: fixed, random and residual variance.

    Notes
    -----
    Nakagawa & Schielzeth (2013), Methods Ecol. Evol. 4:133-142; random slopes as Johnson (2014), ibid.
    5:944-946; generalised models: Nakagawa, Johnson & Schielzeth (2017), J. R. Soc. Interface 14:20170213.

    Examples
    --------
    >>> import mixedmodels as mm
    >>> fit = mm.lmm("Reaction ~ Days + (Days | Subject)", mm.load_dataset("sleepstudy", backend="dict"))
    >>> fit.r2()["estimate"].round(4).tolist()
    [0.2787, 0.7992]
    """
    parts = parts_of(fit, scale, method)
    total = parts.fixed + parts.random + parts.residual
    columns: dict[str, Any] = {
        "kind": ["marginal", "conditional"],
        "estimate": [parts.fixed / total, (parts.fixed + parts.random) / total],
    }
    extra = {"fixed": parts.fixed, "random": parts.random, "residual": parts.residual}
    return result_table("R-squared (Nakagawa)", columns, parts.notes, fit._native, extra)
