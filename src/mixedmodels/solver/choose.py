"""Which solver a design gets, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mixedmodels.errors import OptionError
from mixedmodels.solver.eigen import is_low_rank, suits
from mixedmodels.solver.grouped import GroupedSolver
from mixedmodels.solver.low_rank import LowRankSolver, has_low_rank, is_low_rank_term

if TYPE_CHECKING:
    from mixedmodels.design import Design
    from mixedmodels.solver.base import Solver

__all__ = ["SOLVER_NAMES", "choose_solver", "solver_choice"]

SOLVER_NAMES = ("auto", "dense", "grouped", "subsets", "blocked", "sparse", "eigen")

_WIDE = 12  # columns of one grouping factor above which levels are reduced to the columns they use


def solver_choice(design: Design, name: str = "auto") -> tuple[str, str]:
    """Name of the solver for a design and the reason in words.

    Parameters
    ----------
    design : Design
    name : str
        "auto", or one of "dense", "grouped", "subsets", "blocked", "sparse", "eigen".

    Returns
    -------
    name, reason : str

    Raises
    ------
    OptionError
        Unknown name, or a solver that cannot treat this design.

    Examples
    --------
    >>> from mixedmodels.testing import random_design
    >>> solver_choice(random_design(1, "one_slope"))
    ('grouped', 'one grouping factor, independent levels')
    """
    if name not in SOLVER_NAMES:
        raise OptionError(f"unknown solver {name!r}; choose one of {', '.join(SOLVER_NAMES)}")
    # Terms on one grouping factor share the array of codes itself.
    factors = {id(term.codes) for term in design.terms}
    known = [term.group for term in design.terms if term.precision is not None]
    several = [term.group for term in design.terms if term.several_levels]
    low = [term.group for term in design.terms if is_low_rank_term(term)]
    if low and name in ("auto", "sparse") and not (name == "auto" and suits(design)):
        return "sparse", f"a covariance of lower rank between the levels of {', '.join(dict.fromkeys(low))}"
    if low and name in ("blocked", "grouped", "subsets", "dense"):
        raise OptionError(
            f'solver="{name}" needs the inverse of the covariance between the levels of {low[0]!r}, which '
            'has fewer columns in its factor than levels: use solver="sparse"'
        )
    if several and name in ("auto", "sparse"):
        return "sparse", f"rows touch several levels of {', '.join(dict.fromkeys(several))}"
    if several and name != "dense":
        raise OptionError(
            f'solver="{name}" needs rows that touch one level of each term; those of {several[0]!r} touch '
            'several: use solver="sparse"'
        )
    wide = sum(term.k for term in design.terms) > _WIDE
    curved = any(term.covariance.entries is None for term in design.terms)
    if name == "auto" and len(factors) == 1 and not known and wide and curved:
        return "subsets", "one grouping factor with many columns, of which each level uses its own"
    if name == "auto" and len(factors) == 1 and not known:
        return "grouped", "one grouping factor, independent levels"
    groups = ", ".join(dict.fromkeys([term.group for term in design.terms]))
    if name == "auto":
        if known and suits(design):
            return "eigen", f"one dense covariance between the levels of {known[0]}"
        if known:
            return "blocked", f"known precision between the levels of {', '.join(known)}"
        return "blocked", f"{len(factors)} grouping factors: {groups}"
    if name in ("grouped", "subsets") and known:
        raise OptionError(
            f'solver="{name}" cannot treat the known precision of {known[0]!r}; use solver="blocked"'
        )
    if name in ("grouped", "subsets") and len(factors) != 1:
        raise OptionError(
            f'solver="{name}" treats one grouping factor, this model has {len(factors)} ({groups}); '
            'use solver="blocked"'
        )
    return name, "asked for"


def choose_solver(design: Design, name: str = "auto") -> Solver:
    """Build the solver for a design; its attribute ``reason`` says why it was taken.

    Parameters
    ----------
    design : Design
    name : str
        See `solver_choice`.

    Returns
    -------
    Solver

    Raises
    ------
    OptionError
        Unknown name, or a solver that cannot treat this design.
    """
    chosen, reason = solver_choice(design, name)
    solver: Solver
    if chosen == "dense":
        from mixedmodels.solver.dense import DenseSolver

        solver = DenseSolver(design)
    elif chosen == "eigen":
        from mixedmodels.solver.eigen import EigenSolver

        solver = LowRankSolver(design) if is_low_rank(design) else EigenSolver(design)
    elif chosen == "sparse":
        if has_low_rank(design):
            from mixedmodels.solver.low_rank_sparse import LowRankSparseSolver

            solver = LowRankSparseSolver(design)
        else:
            from mixedmodels.solver.sparse import SparseSolver

            solver = SparseSolver(design)
    elif chosen == "grouped":
        solver = GroupedSolver(design)
    elif chosen == "subsets":
        from mixedmodels.solver.subsets import SubsetSolver

        solver = SubsetSolver(design)
    else:
        from mixedmodels.solver.blocked import BlockedSolver

        solver = BlockedSolver(design)
    solver.reason = reason
    return solver
