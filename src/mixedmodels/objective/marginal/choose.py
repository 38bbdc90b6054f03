"""Which engine integrates the random effects out of a model."""

from __future__ import annotations

from typing import Any

from mixedmodels.design import GeneralisedDesign
from mixedmodels.errors import NotImplementedYetError, OptionError
from mixedmodels.family.base import Family
from mixedmodels.objective.marginal.base import Marginal

__all__ = ["choose_marginal"]


def choose_marginal(
    design: GeneralisedDesign,
    family: Family,
    nagq: int = 1,
    information: str = "observed",
    solver: str = "auto",
) -> Marginal:
    """The engine for a design.

    Parameters
    ----------
    nagq : int
        Quadrature points per random effect; 1 is Laplace's approximation.
    information : {"observed", "expected"}
        Weights in the determinant of Laplace's approximation.
    solver : {"auto", "grouped", "blocked", "dense"}
    """
    from mixedmodels.objective.marginal.dense import DenseLaplace
    from mixedmodels.objective.marginal.grouped import GroupedLaplace, one_factor

    if solver not in ("auto", "grouped", "blocked", "dense"):
        raise OptionError(f"solver must be 'auto', 'grouped', 'blocked' or 'dense', got {solver!r}")
    if nagq != 1 or information != "observed":
        raise NotImplementedYetError("quadrature and expected information are not yet available")
    engine: Any
    if solver == "grouped" or (solver == "auto" and one_factor(design)):
        engine = GroupedLaplace(design, family)
    else:
        engine = DenseLaplace(design, family)
    return engine
