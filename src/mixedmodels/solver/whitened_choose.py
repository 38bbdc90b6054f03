"""Which engine a design with structured residuals gets, and its solver once phi is given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import SolverError
from mixedmodels.solver.choose import choose_solver
from mixedmodels.solver.whitened import WhitenedLevels, is_within_levels, one_factor

if TYPE_CHECKING:
    from mixedmodels.design import Design
    from mixedmodels.residual.base import BoundResidual, ResidualPoint
    from mixedmodels.solver.dense import FixedPart

__all__ = [
    "WhitenedSolver",
    "choose_engine",
    "keeps_rows",
    "sparse_whitened_solver",
    "whitened_design",
    "whitened_solver",
]


def keeps_rows(design: Design) -> bool:
    """Whether whitened rows still belong to one level of every grouping factor."""
    residual = _residual(design)
    return all(is_within_levels(residual.codes, residual.n_groups, term.codes) for term in design.terms)


def _residual(design: Design) -> BoundResidual:
    if design.residual is None:
        raise SolverError("the design has no residual structure")
    return design.residual


def choose_engine(design: Design, name: str = "auto", fixed: FixedPart | None = None) -> Any:
    """The engine for a design with ``residual``.

    Parameters
    ----------
    design : Design
    name : str
        The solver asked for.
    fixed : FixedPart, optional
        Of the design, if it is known.

    Returns
    -------
    object
        With ``at(factors, point, n_phi)`` and ``describe()``.
    """
    if one_factor(design) and keeps_rows(design):
        return WhitenedLevels(design, fixed)
    from mixedmodels.solver.whitened_sparse import WhitenedSparse

    return WhitenedSparse(design, fixed)


def whitened_design(design: Design, point: ResidualPoint) -> Design:
    """The design in whitened rows: an ordinary one, for groups of residuals within levels.

    Parameters
    ----------
    design : Design
    point : ResidualPoint
    """
    response = design.y if design.offset is None else design.y - design.offset
    columns = [response[:, None], design.X]
    columns += [np.ones((design.n, 1)) if term.Z is None else term.Z for term in design.terms]
    white = point.whiten(np.hstack(columns))
    terms, at = [], 1 + design.p
    for term in design.terms:
        terms.append(replace(term, Z=np.ascontiguousarray(white[:, at : at + term.k])))
        at += term.k
    return replace(
        design,
        y=np.ascontiguousarray(white[:, 0]),
        X=np.ascontiguousarray(white[:, 1 : 1 + design.p]),
        terms=tuple(terms),
        offset=None,
        weights=None,
        residual=None,
    )


def whitened_solver(
    design: Design, point: ResidualPoint, name: str = "auto"
) -> tuple[Design, WhitenedSolver]:
    """The design and a `Solver` of the random effects at one phi.

    Where whitened rows belong to several levels of a factor, the terms of the design that is returned are
    those of the original rows; the solver has the whitened ones.

    Parameters
    ----------
    design : Design
        With ``residual``.
    point : ResidualPoint
    name : str
        The solver asked for.

    Returns
    -------
    Design
    WhitenedSolver
    """
    if keeps_rows(design):
        white = whitened_design(design, point)
        inner = choose_solver(white, name if design.terms else "dense")
        return white, WhitenedSolver(inner, point)
    return sparse_whitened_solver(design, point)


def sparse_whitened_solver(design: Design, point: ResidualPoint) -> tuple[Design, WhitenedSolver]:
    """`whitened_solver` with whitened rows kept sparse, whatever levels they touch."""
    from mixedmodels.solver.dense import random_matrix
    from mixedmodels.solver.sparse import SparseSolver

    terms = design.terms
    W = point.whitening()[0]
    white = whitened_design(replace(design, terms=()), point)
    sparse = SparseSolver.from_parts(
        white.y,
        white.X,
        [(W @ random_matrix((term,), design.n, None)).tocsr() for term in terms],
        [term.k for term in terms],
        [term.m for term in terms],
        [term.precision for term in terms],
        names=[term.group for term in terms],
        x_names=design.x_names,
    )
    sparse.reason = "the residual structure runs across levels"
    return replace(white, terms=terms), WhitenedSolver(sparse, point)


class WhitenedSolver:
    """A solver in whitened rows that takes responses as they are; everything else is the inner solver's.

    Parameters
    ----------
    inner : Solver
        Of the whitened design.
    point : ResidualPoint
    """

    def __init__(self, inner: Any, point: ResidualPoint) -> None:
        self._inner, self._point = inner, point

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._inner, name)

    @property
    def takes_sparse_rows(self) -> bool:
        """Whether `predictor_variance` takes rows that touch several levels, as sparse matrices."""
        from mixedmodels.solver.dense import DenseSolver
        from mixedmodels.solver.sparse import SparseSolver

        return isinstance(self._inner, (DenseSolver, SparseSolver))

    def describe(self) -> str:
        """One line: which algorithm, on which sizes."""
        return f"{self._inner.describe()}; in rows whitened by the residual structure"

    def responses_at(
        self, factors: Sequence[np.ndarray]
    ) -> Callable[[np.ndarray], tuple[np.ndarray, tuple[np.ndarray, ...]]]:
        """A function of responses R, shape (n, N), without offset: their estimates at these factors."""
        estimates = self._inner.responses_at(factors)
        return lambda R: estimates(self._point.whiten(R))
