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

    if solver not in ("auto", "grouped", "blocked", "dense"):
        raise OptionError(f"solver must be 'auto', 'grouped', 'blocked' or 'dense', got {solver!r}")
    if information not in ("observed", "expected"):
        raise OptionError(f"information must be 'observed' or 'expected', got {information!r}")
    if information == "expected" and nagq == 1:
        from mixedmodels.objective.marginal.expected import ExpectedLaplace

        return ExpectedLaplace(design, family)
    if nagq != 1:
        raise NotImplementedYetError("quadrature is not yet available")
    engine: Any = DenseLaplace(design, family)
    return engine
