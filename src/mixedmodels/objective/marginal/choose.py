"""Which engine integrates the random effects out of a model."""

from __future__ import annotations

from typing import Any

from mixedmodels.design import GeneralisedDesign
from mixedmodels.errors import OptionError
from mixedmodels.family.base import Family
from mixedmodels.objective.marginal.base import Marginal

__all__ = ["choose_marginal"]

SOLVERS = ("auto", "grouped", "blocked", "sparse", "dense")
ENTRIES = 500  # of factors that are not linear in theta


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
    solver : {"auto", "grouped", "blocked", "sparse", "dense"}

    Raises
    ------
    OptionError
        The engine that is asked for cannot have this design.
    """
    from mixedmodels.objective.marginal.dense import DenseLaplace
    from mixedmodels.objective.marginal.grouped import GroupedLaplace, one_factor
    from mixedmodels.objective.marginal.no_effects import NoRandomEffects
    from mixedmodels.objective.marginal.sparse import SparseLaplace, needs_sparse

    if solver not in SOLVERS:
        raise OptionError(f"solver must be {_listed(SOLVERS)}, got {solver!r}")
    if information not in ("observed", "expected"):
        raise OptionError(f"information must be 'observed' or 'expected', got {information!r}")
    if not design.terms:
        return NoRandomEffects(design, family)
    if needs_sparse(design):
        return _sparse(design, family, nagq, information, solver)
    if nagq > 1:
        return _quadrature(design, family, nagq, information)
    if information == "expected" and nagq == 1:
        from mixedmodels.objective.marginal.expected import ExpectedLaplace

        return ExpectedLaplace(design, family)
    engine: Any
    if solver == "auto" and _many_entries(design):
        from mixedmodels.objective.marginal.directional import DirectionalLaplace

        return DirectionalLaplace(design, family)
    if solver == "dense":
        engine = DenseLaplace(design, family)
    elif solver == "sparse":
        engine = SparseLaplace(design, family)
    elif solver == "grouped" or (solver == "auto" and one_factor(design)):
        engine = GroupedLaplace(design, family)
    else:
        from mixedmodels.objective.marginal.blocked import BlockedLaplace

        engine = BlockedLaplace(design, family)
    return engine


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(map(repr, names[:-1])) + f" or {names[-1]!r}"


def _sparse(design: GeneralisedDesign, family: Family, nagq: int, information: str, solver: str) -> Marginal:
    """The engine where rows touch several levels of a term.

    Raises
    ------
    OptionError
        Another method was asked for.
    """
    from mixedmodels.objective.marginal.dense import DenseLaplace
    from mixedmodels.objective.marginal.sparse import SparseLaplace
    from mixedmodels.solver.low_rank import is_low_rank_term

    term = next(term for term in design.terms if term.several_levels or is_low_rank_term(term))
    why = f"a row touches several levels of {term.group!r}"
    if not term.several_levels:
        why = f"the levels of {term.group!r} have a covariance of lower rank, given by its factor"
    if nagq > 1:
        raise OptionError(
            f"nagq={nagq} needs random effects that fall into small groups, but {why}: use nagq=1 (Laplace)"
        )
    if information != "observed":
        raise OptionError(f"information={information!r}: not where {why}; use information='observed'")
    low = any(is_low_rank_term(term) for term in design.terms)
    if solver in ("grouped", "blocked") or (solver == "dense" and low):
        raise OptionError(f"solver={solver!r} needs other models: here {why}; use solver='auto'")
    if _many_entries(design):
        raise OptionError(
            f"a structure of so many columns cannot be combined with a model where {why}; use fewer distinct "
            "times or positions"
        )
    return (DenseLaplace if solver == "dense" else SparseLaplace)(design, family)


def _many_entries(design: GeneralisedDesign) -> bool:
    """Whether second derivatives in all entries of the factors would cost more than dense algebra."""
    sizes = [term.k * (term.k + 1) // 2 for term in design.terms if term.covariance.entries is None]
    return sum(sizes) > ENTRIES


def _quadrature(design: GeneralisedDesign, family: Family, nagq: int, information: str) -> Marginal:
    from mixedmodels.objective.marginal.quadrature import Quadrature
    from mixedmodels.objective.marginal.quadrature_nested import NestedQuadrature
    from mixedmodels.objective.marginal.quadrature_setup import levels_of

    if nagq > 100:
        raise OptionError(f"nagq can be at most 100, got {nagq}")
    if information != "observed":
        raise OptionError(
            "information='expected' is for Laplace's approximation: use nagq=1 or information='observed'"
        )
    nested = len(levels_of(design, nagq)) == 2
    return (NestedQuadrature if nested else Quadrature)(design, family, nagq)
