"""The objective of a generalised model with other responses: what does not depend on them is kept."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from mixedmodels.objective.glmm import DIMENSIONLESS
from mixedmodels.objective.marginal.choose import choose_marginal

if TYPE_CHECKING:
    from mixedmodels.family.base import Observations
    from mixedmodels.objective.glmm import GLMMObjective

__all__ = ["with_observations"]

_OF_RESPONSE = ("start", "_phi")  # cached values that follow from the responses
_OF_UNITS = ("metric", "lengths", "_R", "_J", "_BJ")  # ... and these too where the predictor has units


def with_observations(objective: GLMMObjective, data: Observations, options: Any) -> GLMMObjective:
    """The same objective for other responses; `objective` itself is not changed.

    Parameters
    ----------
    objective : GLMMObjective
    data : Observations
        Of the same rows.
    options : GLMMOptions
        ``nagq``, ``information`` and ``solver`` choose the engine.
    """
    coordinates = copy.copy(objective.coordinates)
    coordinates.design = coordinates.design.with_response(objective.family, data)
    coordinates.inner = coordinates.inner.with_response(objective.family, data)
    new = copy.copy(objective)
    new.coordinates, new.design = coordinates, coordinates.design
    new.marginal = choose_marginal(
        coordinates.inner, objective.family, max(options.nagq, 1), options.information, options.solver
    )
    gone = _OF_RESPONSE if objective.family.link.name in DIMENSIONLESS else (*_OF_RESPONSE, *_OF_UNITS)
    for name in gone:
        new.__dict__.pop(name, None)
    return new
