"""One linear predictor of a generalised fit, seen as the fixed part that tests and means are about."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.design import Design
from mixedmodels.errors import OptionError
from mixedmodels.fit.glmm_values import component_of
from mixedmodels.fit.values import readonly

if TYPE_CHECKING:
    from mixedmodels.fit.base import Fit

__all__ = ["ComponentView", "component_view", "views_with_terms"]


class ComponentView:
    """A generalised fit whose fixed part is that of another linear predictor; all else is that of the fit.

    Parameters
    ----------
    fit : GLMMFit
    position : int
        Of the predictor.

    Attributes
    ----------
    component : str
    design : Design
        Columns, names and random terms of the predictor.
    frame : ModelFrame
        Of the predictor's formula.
    beta : ndarray, shape (p,)
    vcov : ndarray, shape (p, p)
        The uncertainty about all other parameters included.
    """

    def __init__(self, fit: Any, position: int) -> None:
        generalised = fit.generalised
        predictor = generalised.predictors[position]
        self._fit, self.position, self.component = fit, position, predictor.name
        self.frame = fit.frame.parts[predictor.name]
        own = self.frame.design
        terms = tuple(
            [t for t, c in zip(generalised.terms, generalised.term_predictor, strict=True) if c == position]
        )
        self.design = Design(generalised.data.y, predictor.X, own.x_names, terms, predictor.offset)
        columns = predictor.columns
        self.beta = readonly(np.array(fit.gamma[columns]))
        self.vcov = readonly(np.array(fit.joint_vcov[np.ix_(columns, columns)]))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._fit, name)

    @property
    def dropped_columns(self) -> tuple[str, ...]:
        """Columns of the predictor left out because they depend on earlier ones."""
        return self.frame.dropped_columns


def component_view(fit: Fit, component: Any = None) -> Any:
    """The fit for its conditional predictor (None), or a view of another predictor with a formula.

    Parameters
    ----------
    fit : Fit or ComponentView
    component : {None, "conditional", "zero_inflation", "dispersion"}
        ``"zi"`` and ``"disp"`` are short forms.

    Raises
    ------
    OptionError
        The model has no such predictor, or it is a constant without a formula.
    """
    if component is None:
        return fit
    if fit._is_linear:
        raise OptionError(f"component={component!r} is for generalised models; linear ones have one")
    name = component_of(component, fit.components)  # type: ignore[attr-defined]
    if name == "conditional":
        return fit
    if name not in (fit.frame.parts or {}):
        raise OptionError(
            f"component={component!r} has no formula in this model: it is a constant; "
            'fit.coefficients(component="all") shows it'
        )
    return ComponentView(fit, fit.components.index(name))  # type: ignore[attr-defined]


def views_with_terms(fit: Any) -> list[Any]:
    """The fit, and views of its other predictors that have random terms."""
    if fit._is_linear:
        return [fit]
    generalised = fit.generalised
    others = sorted(set(generalised.term_predictor) - {0})
    first = [fit] if 0 in generalised.term_predictor else []
    return [*first, *[ComponentView(fit, position) for position in others]]
