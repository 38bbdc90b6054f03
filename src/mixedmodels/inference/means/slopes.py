"""Rows of the reference grid for slopes: derivatives of the fixed-effects columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import DataError, FormulaError, OptionError
from mixedmodels.formula import parse, variables
from mixedmodels.formula.ast import Expression, Variable
from mixedmodels.frame.derivatives import column_derivatives, expression_derivative
from mixedmodels.frame.values import FactorColumn
from mixedmodels.inference.means.grid_variables import unknown_variable

if TYPE_CHECKING:
    from mixedmodels.fit.result import LMMFit

__all__ = ["slope_rows"]

Rows = Callable[["LMMFit", Mapping[str, Any]], tuple[np.ndarray, np.ndarray | None]]


def slope_rows(var: str, notes: list[str]) -> Rows:
    """The function that turns predictor values into derivatives of X with respect to `var`.

    Parameters
    ----------
    var : str
        A numeric variable, or a function of one: ``dX/df(x) = (dX/dx) / f'(x)``.
    notes : list of str
        Receives what is approximated.
    """
    expression = _read(var)
    inside = variables(expression)
    if len(inside) != 1:
        raise OptionError(f"var={var!r} must be a numeric variable or a function of one")
    name = next(iter(inside))

    def rows(fit: LMMFit, values: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray | None]:
        if name not in values:
            raise OptionError(f"var: {unknown_variable(fit, name, [n for n in values if n])}")
        if isinstance(values[name], FactorColumn):
            raise OptionError(f"var: {name!r} is a factor and has no slope; contrast its means instead")
        frame = fit.frame
        D, differenced = column_derivatives(frame.encoding, values, name, frame.functions)
        for label in differenced:
            notes.append(f"the derivative of {label} is a central difference")
        if not isinstance(expression, Variable):
            D = D / expression_derivative(expression, values, name)[:, None]
        if not np.isfinite(D).all():
            raise DataError(f"the slope of {var} has no finite value in the grid; choose other values by at=")
        return D, None

    return rows


def _read(var: str) -> Expression:
    if not isinstance(var, str) or not var.strip():
        raise OptionError(f"var must be the name of a numeric variable, got {var!r}")
    try:
        terms = parse(f"y ~ 0 + {var}").fixed.terms
    except FormulaError:
        return Variable(var)
    if len(terms) != 1 or len(terms[0].factors) != 1:
        return Variable(var)
    return terms[0].factors[0]
