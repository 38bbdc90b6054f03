"""Confidence intervals of a fit by any method, as one table: term, estimate, conf_low, conf_high."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import OptionError
from mixedmodels.fit import wald
from mixedmodels.inference.parameters import chosen, fixed_effects, parameters_of
from mixedmodels.inference.table import ResultTable, result_table

if TYPE_CHECKING:
    from mixedmodels.fit.result import LMMFit

__all__ = ["METHODS", "confint"]

METHODS = ("wald", "satterthwaite", "kr", "profile", "bootstrap")
_OF_LINEAR = ("satterthwaite", "kr")
_ALIASES = {
    "z": "wald",
    "kenward-roger": "kr",
    "kenward_roger": "kr",
    "boot": "bootstrap",
}
_OPTIONS = {
    "wald": (),
    "satterthwaite": (),
    "kr": (),
    "profile": ("criterion",),
    "bootstrap": None,  # those of LMMFit.bootstrap, and kind=
}


def confint(
    fit: LMMFit, method: str = "wald", level: float = 0.95, parameters: Any = None, **options: Any
) -> ResultTable:
    r"""Confidence intervals; see `LMMFit.confint`.

    * ``"wald"``: :math:`\hat\beta_j \pm z\,\mathrm{se}_j`; of a generalised fit also standard deviations,
      correlations and the dispersion (`mixedmodels.inference.glmm_wald`);
    * ``"satterthwaite"``, ``"kr"``: :math:`\hat\beta_j \pm t_{\nu_j} \mathrm{se}_j` with the degrees of
      freedom and the covariance of the method;
    * ``"profile"``: where the profile likelihood ratio is the quantile of chi-squared (``criterion="reml"``
      for the restricted likelihood of variances);
    * ``"bootstrap"``: ``n=``, ``seed=``, ``kind=`` and what else `LMMFit.bootstrap` takes.

    Raises
    ------
    OptionError
        An unknown method, option or parameter, or a level outside (0, 1).

    Examples
    --------
    >>> import mixedmodels as mm
    >>> fit = mm.lmm("Reaction ~ Days + (Days | Subject)", mm.load_dataset("sleepstudy", backend="dict"))
    >>> low, high = (fit.confint().row("Days")[name] for name in ("conf_low", "conf_high"))
    >>> round(low, 3), round(high, 3)
    (7.438, 13.497)
    """
    name = _ALIASES.get(str(method).lower(), str(method).lower()) if isinstance(method, str) else method
    if not isinstance(name, str) or name not in METHODS:
        raise OptionError(f"confint method {method!r} is unknown; available: {', '.join(METHODS)}")
    level = wald.check_level(level)
    allowed = _OPTIONS[name]
    if allowed is not None:
        for option in options:
            if option not in allowed:
                known = f"it takes {', '.join(allowed)}" if allowed else "it takes none"
                raise OptionError(f"confint(method={name!r}) has no option {option!r}; {known}")
    if name == "profile":
        from mixedmodels.inference.profile.run import profile_intervals

        return profile_intervals(fit, level, parameters, **options)
    if name == "bootstrap":
        from mixedmodels.inference.bootstrap.intervals import bootstrap_confint

        return bootstrap_confint(fit, level, parameters, **options)
    if not fit._is_linear:
        if name in _OF_LINEAR:
            raise OptionError(
                f"confint(method={name!r}): degrees of freedom are defined for linear models only; use "
                "'wald', 'profile' or 'bootstrap'"
            )
        from mixedmodels.inference.glmm_wald import wald_intervals

        return wald_intervals(fit, level, parameters)  # type: ignore[arg-type]
    return _of_fixed_effects(fit, name, level, parameters)


def _of_fixed_effects(fit: LMMFit, method: str, level: float, parameters: Any) -> ResultTable:
    """``estimate -/+ quantile * standard error``."""
    if method == "wald" and parameters is not None and fit._terms:
        wanted = chosen(parameters_of(fit), parameters)
        random = tuple(p for p in wanted if p.kind != "fixed")
        if random and len(random) == len(wanted):
            from mixedmodels.inference.variance_wald import variance_parameters

            return variance_parameters(fit, level, random)
    where = np.array([p.where[0] for p in chosen(fixed_effects(fit), parameters)], dtype=int)
    columns: dict[str, Any] = {"term": [fit.design.x_names[j] for j in where], "estimate": fit.beta[where]}
    if method == "wald":
        se = np.array(list(fit.se.values()))
        quantile: Any = wald.normal_quantile(level)
        title = "Wald"
    else:
        from scipy.special import stdtrit

        from mixedmodels.inference.ddf.reference import reference_for

        reference = reference_for(fit, method)
        with np.errstate(invalid="ignore"):
            se = np.sqrt(np.diagonal(reference.vcov))
        df = np.asarray(reference.df(np.eye(fit.design.p)), dtype=float)
        columns["df"] = df[where]
        finite = np.where(np.isfinite(df), df, 1.0)
        quantile = np.where(np.isfinite(df), stdtrit(finite, 0.5 + 0.5 * level), wald.normal_quantile(level))
        quantile = np.where(np.isnan(df), np.nan, quantile)[where]
        title = reference.label
    half = quantile * se[where]
    columns["conf_low"] = columns["estimate"] - half
    columns["conf_high"] = columns["estimate"] + half
    return result_table(
        f"{wald.percent(level)} {title} intervals", columns, (), fit._native, {"level": level}
    )
