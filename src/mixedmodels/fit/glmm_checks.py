"""What `glmm` may be told: every argument is checked before the data are read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Real
from typing import Any

import numpy as np

from mixedmodels.errors import FormulaError, OptionError
from mixedmodels.family import FAMILIES, Family, Link, get_family
from mixedmodels.family.registry import ALIASES

__all__ = ["check_options", "family_of", "part_formula", "refuse_residual", "with_parts"]

_MOST_NODES = 100
_QUASI = {
    "quasi": "choose a family with a dispersion of its own",
    "quasibinomial": 'use family="betabinomial", or a random effect per row',
    "quasipoisson": 'use family="nbinom1" (variance proportional to the mean) or "nbinom2"',
}
_SPELLINGS = {
    "inversegaussian": "inverse_gaussian",
    "negativebinomial": "negative_binomial",
    "negbinomial": "negative_binomial",
    "nb": "negative_binomial",
    "beta_binomial": "betabinomial",
    "student_t": "student",
}


def refuse_residual(residual: Any) -> None:
    """Refuse a residual structure: generalised models have no residuals of their own.

    Raises
    ------
    OptionError
        `residual` is not None.
    """
    if residual is None:
        return
    raise OptionError(
        f"residual={residual!r}: a generalised model has no residual covariance; correlate the linear "
        "predictor instead with a structured random term such as ar1(0 + t | g), or add a random effect per "
        "observation, (1 | row); residual= is for mm.lmm and mm.gls"
    )


def check_options(options: Any) -> dict[str, Any]:
    """Refuse arguments that cannot be meant.

    Parameters
    ----------
    options : GLMMOptions

    Returns
    -------
    dict
        Arguments to replace by what they mean (``control={...}`` by a `Control`).

    Raises
    ------
    OptionError
        Names the argument, its value and the remedy.
    """
    nagq = options.nagq
    if isinstance(nagq, (bool, np.bool_)) or not isinstance(nagq, (int, np.integer)):
        raise OptionError(f"nagq must be a whole number of quadrature points, got {nagq!r}")
    if not 0 <= nagq <= _MOST_NODES:
        raise OptionError(f"nagq must lie between 0 and {_MOST_NODES}, got {nagq}")
    if options.information not in ("observed", "expected"):
        raise OptionError(f"information must be 'observed' or 'expected', got {options.information!r}")
    if options.na_action not in ("omit", "exclude", "fail"):
        raise OptionError(f"na_action must be 'omit', 'exclude' or 'fail', got {options.na_action!r}")
    if options.functions is not None and not isinstance(options.functions, Mapping):
        raise OptionError(
            'functions must be a dict from names to functions, such as {"f": f}, '
            f"got {type(options.functions).__name__}"
        )
    _check_start(options.start)
    _check_fixed(options.fixed)
    _check_equal(options.equal)
    if options.priors is not None and not isinstance(options.priors, (str, Mapping)):
        raise OptionError(
            f'priors must be a dict from parameters to priors, such as {{"x": ("normal", 0, 2.5)}}, '
            f"got {options.priors!r}"
        )
    if options.control is not None:
        from mixedmodels.optimize.control import control_of

        return {"control": control_of(options.control)}
    return {}


def _number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def _check_start(start: Any) -> None:
    if start is None:
        return
    if isinstance(start, Mapping):
        for name, value in start.items():
            if not isinstance(name, str) or not _number(value):
                raise OptionError(f"start must map names of parameters to numbers, got {name!r}: {value!r}")
        return
    try:
        values = np.array(start, dtype=float)
    except (TypeError, ValueError):
        values = np.empty(0)
    if values.ndim != 1 or not values.shape[0]:
        raise OptionError(
            f"start must be a dict from names to numbers, or one number per parameter, got {start!r}"
        )
    if not np.isfinite(values).all():
        raise OptionError("start holds values that are not finite")


def _check_fixed(fixed: Any) -> None:
    if fixed is None:
        return
    if not isinstance(fixed, Mapping):
        raise OptionError(f'fixed must be a dict such as {{"disp_(Intercept)": 0.0}}, got {fixed!r}')
    for name, value in fixed.items():
        if not isinstance(name, str) or not _number(value):
            raise OptionError(f"fixed must map names of parameters to numbers, got {name!r}: {value!r}")


def _check_equal(equal: Any) -> None:
    if equal is None:
        return
    good = isinstance(equal, (list, tuple)) and all(
        isinstance(group, (list, tuple)) and len(group) > 1 and all(isinstance(name, str) for name in group)
        for group in equal
    )
    if not good:
        raise OptionError(f'equal must be a list of lists of names such as [["x", "z"]], got {equal!r}')


def family_of(family: Any, link: Any = None) -> Family:
    """The family that a name (R's spellings too), a class or an object means.

    Raises
    ------
    OptionError
        Unknown family or link; a quasi-likelihood, which has no log-likelihood.

    Examples
    --------
    >>> family_of("Poisson"), family_of("binomial", "probit")
    (poisson(log), binomial(probit))
    """
    if link is not None and not isinstance(link, (str, Link)):
        raise OptionError(f'link must be a name such as "log", got {link!r}')
    if isinstance(family, Family) or (isinstance(family, type) and issubclass(family, Family)):
        return get_family(family, link)
    if not isinstance(family, str):
        raise OptionError(
            f'family must be a name such as "binomial", or a Family, got {type(family).__name__}'
        )
    if family in FAMILIES or family in ALIASES:
        return get_family(family, link)
    name = family.strip().lower().replace(".", "_").replace("-", "_").replace(" ", "_")
    name = name.removesuffix("_family").removesuffix("()")
    if name in _QUASI:
        raise OptionError(f"{family!r} is a quasi-likelihood without a log-likelihood; {_QUASI[name]}")
    name = name if name in FAMILIES else _SPELLINGS.get(name, name)
    if name in FAMILIES or name in ALIASES:
        return get_family(name, link)
    import difflib

    near = difflib.get_close_matches(name, FAMILIES, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise OptionError(f"there is no family {family!r}{hint} (available: {', '.join(sorted(FAMILIES))})")


def part_formula(argument: str, value: Any) -> Any:
    """The one-sided formula given as `dispersion` or `zero_inflation`; None for one constant coefficient.

    Raises
    ------
    FormulaError, OptionError
        Not a one-sided formula.
    """
    from mixedmodels.formula import Formula, parse

    if isinstance(value, str):
        if "~" not in value:
            raise FormulaError(f"{argument}={value!r} is not a formula; write '~ {value.strip() or '1'}'")
        formula = parse(value)
    elif isinstance(value, Formula):
        formula = value
    else:
        raise OptionError(f"{argument} must be a formula such as '~ x', got {value!r}")
    fixed = formula.fixed
    plain = not (fixed.terms or fixed.offsets or fixed.dot or formula.bars or formula.response)
    return None if plain and fixed.intercept else formula


def with_parts(family: Family, dispersion: Any, zero_inflation: Any) -> tuple[Family, dict[str, Any]]:
    """The family with the predictors asked for, and the formulas of these.

    Parameters
    ----------
    family : Family
    dispersion, zero_inflation : str, Formula, bool or None
        As `glmm` takes them.

    Returns
    -------
    family : Family
        With extra zeros if they were asked for.
    parts : dict
        Formula of each predictor that has one, None for one coefficient.

    Raises
    ------
    OptionError
        The family has no dispersion; a formula without any column.
    """
    parts: dict[str, Any] = {}
    if zero_inflation is not None and zero_inflation is not False:
        formula = None if zero_inflation is True else part_formula("zero_inflation", zero_inflation)
        if formula is None or not _empty(formula):
            if "zero_inflation" not in family.predictors:
                family = _with_zeros(family)
            parts["zero_inflation"] = formula
        elif "zero_inflation" in family.predictors:
            raise OptionError(
                f"zero_inflation='~ 0' takes the zeros away from family {family.name!r}: name its base family"
            )
    formula = None if dispersion is None else part_formula("dispersion", dispersion)
    if formula is not None:
        if "dispersion" not in family.predictors:
            other = {"binomial": "betabinomial", "poisson": "nbinom2"}.get(family.name)
            hint = f'; for over-dispersion use family="{other}"' if other else ""
            raise OptionError(
                f"family {family.name!r} has no dispersion that dispersion='{formula}' could model{hint}"
            )
        if _empty(formula):
            raise OptionError(
                "dispersion='~ 0' would be a dispersion predictor of 0; to hold it at a value write "
                'fixed={"disp_(Intercept)": value}'
            )
        parts["dispersion"] = formula
    return family, parts


def _empty(formula: Any) -> bool:
    """Whether a formula has neither columns nor offsets nor random terms."""
    fixed = formula.fixed
    return not (fixed.intercept or fixed.terms or fixed.offsets or fixed.dot or formula.bars)


def _with_zeros(family: Family) -> Family:
    from mixedmodels.family.zero import with_zeros

    if family.response not in ("count", "number", "successes"):
        raise OptionError(f"family {family.name!r} has no zeros that zero_inflation could add to")
    return with_zeros(family)
