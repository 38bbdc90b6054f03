"""What a posterior is of: a model with one random term, its prior and its cross-products."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from mixedmodels.errors import DataError, OptionError
from mixedmodels.fit.classical.whiten import whiten_known
from mixedmodels.fit.solve import Options, make_frame
from mixedmodels.inference.posterior.prior import VariancePrior, prior_of
from mixedmodels.inference.posterior.products import GroupedProducts, grouped_products
from mixedmodels.objective.lmm import LMMObjective
from mixedmodels.solver.choose import choose_solver

__all__ = ["PosteriorModel"]


@dataclass(frozen=True, eq=False)
class PosteriorModel:
    """A linear mixed model with one unstructured random term, and a prior.

    Attributes
    ----------
    objective : LMMObjective
        Restricted likelihood, of whitened rows if V is given.
    prior : VariancePrior
    logdet : float
        Sum of log|V_i|.
    """

    objective: LMMObjective
    prior: VariancePrior
    logdet: float = 0.0

    @property
    def design(self) -> Any:
        """Arrays of the model."""
        return self.objective.design

    @cached_property
    def products(self) -> GroupedProducts:
        """Cross-products by group."""
        return grouped_products(self.design)

    @classmethod
    def of(
        cls, model: Any, data: Any, prior: Any, V: Any, occasions: Any, options: dict[str, Any]
    ) -> PosteriorModel:
        """From what a user gives; see `posterior_mode` for the parameters and errors."""
        if hasattr(model, "_frame") and hasattr(model, "_options"):
            if data is not None or options:
                raise OptionError("a model or fit brings its own data and options; give a formula instead")
            if not getattr(model, "_is_linear", True):
                raise OptionError("this posterior is that of a linear mixed model; this is a generalised one")
            frame, source = model._frame, model._data
            chosen = replace(model._options, method="auto", start=None, sigma=None, reml=True)
        else:
            if data is None:
                raise OptionError("give data with a formula, or a LinearMixedModel or fit in its place")
            chosen = Options(reml=True, **options)
            frame, source = make_frame(model, data, chosen), data
        design = frame.design
        _check(frame, design, chosen)
        logdet = 0.0
        if V is None and occasions is not None:
            raise OptionError("occasions belong to a known residual covariance: give V too")
        if V is not None:
            design, logdet = _whitened(frame, design, source, V, occasions)
        objective = LMMObjective(design, choose_solver(design, chosen.solver), True)
        return cls(objective, prior_of(prior, design.terms[0].k), logdet)


def _check(frame: Any, design: Any, options: Options) -> None:
    what = "a posterior of this kind needs a linear model with exactly one random term"
    if getattr(frame, "covariance", None) is not None or len(design.terms) != 1:
        raise OptionError(f"{what}, as (x | g); this model has {len(design.terms)}")
    if options.priors is not None or options.fixed or options.equal:
        raise OptionError("the posterior has its own prior=: leave priors=, fixed= and equal= out")
    if getattr(options, "residual", None) is not None:
        raise OptionError(f"{what} and independent residuals (or V= and occasions=); leave residual= out")
    term = design.terms[0]
    if term.precision is not None:
        raise OptionError(f"{what} and independent levels; {term.group!r} has a known precision")
    if term.k > 1 and (term.covariance.clip != "block" or term.covariance.name != "us"):
        raise OptionError(
            f"{what} and unstructured covariance, for which the Wishart prior is made; "
            f"{term.group!r} has {term.covariance.name!r}"
        )


def _whitened(frame: Any, design: Any, data: Any, V: Any, occasions: Any) -> tuple[Any, float]:
    """The design with whitened rows."""
    if design.weights is not None:
        raise OptionError("give either weights or V, not both")
    if occasions is None:
        raise OptionError("V needs occasions=: the column (or array) with the occasion 1, 2, ... of each row")
    values = occasions
    if isinstance(occasions, str):
        try:
            values = data[occasions]
        except (KeyError, TypeError, IndexError):
            raise DataError(f"there is no column {occasions!r} for the occasions") from None
    values = np.asarray(values)
    if frame.kept is not None and len(values) != design.n:
        values = values[frame.kept]
    term = design.terms[0]
    y = design.y if design.offset is None else design.y - design.offset
    Z = np.ones((design.n, 1)) if term.Z is None else term.Z
    (y, X, Z), logdet = whiten_known(V, values, term.codes, y, design.X, Z)
    changed = replace(design, y=y, X=X, offset=None, terms=(replace(term, Z=np.ascontiguousarray(Z)),))
    return changed, logdet
