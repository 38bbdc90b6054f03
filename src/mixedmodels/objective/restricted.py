"""A linear mixed model whose covariance parameters are restricted: held at values or equal."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.objective.constrained import Equations
from mixedmodels.objective.lmm import LMMObjective
from mixedmodels.objective.natural import NaturalObjective
from mixedmodels.objective.restricted_covariance import restricted_covariance
from mixedmodels.objective.unprofiled import PlainCriterion

if TYPE_CHECKING:
    from mixedmodels.design import Design

__all__ = ["RestrictedObjective"]


class RestrictedObjective(LMMObjective):
    """`LMMObjective` that knows restrictions in natural parameters; its minimum is that of `search`.

    Parameters
    ----------
    design : Design
    solver : Solver
    reml : bool
    sigma : float or None
    terms, held, groups
        As for `NaturalObjective`.
    equations : Equations
        The same restrictions.
    """

    certificate = None  # type: ignore[assignment]  # first-order conditions are those of free parameters

    def __init__(
        self,
        design: Design,
        solver: Any,
        reml: bool,
        sigma: float | None,
        terms: Sequence[int],
        held: dict[int, float],
        groups: Sequence[Sequence[int]],
        equations: Equations,
    ) -> None:
        super().__init__(design, solver, reml, sigma)
        self.equations = equations
        self.restrictions = (tuple(terms), dict(held), tuple(groups))

    @property
    def entries(self) -> np.ndarray | None:
        """None: theta is restricted."""
        return None

    @cached_property
    def evaluator(self) -> Any:
        """None: compiled evaluators know no restrictions."""
        return None

    def search(self, theta: np.ndarray | None = None) -> NaturalObjective:
        """The criterion in the free coordinates, begun at theta or at the moment start."""
        if theta is None:
            theta = LMMObjective(self.design, self.solver, self.reml, self.sigma_fixed).start
            lower = np.asarray(self.lower)
            theta = np.where((lower == 0.0) & (theta < 0.1), 0.1, theta)
        return NaturalObjective(self, theta, *self.restrictions, scaled=bool(self.restrictions[0]))

    def sigma(self, theta: np.ndarray) -> float:
        """Residual standard deviation at theta: that of a standard deviation held, or the likeliest."""
        terms, held, _ = self.restrictions
        for b in terms if self.sigma_fixed is None else ():
            own, term = self._map.index[b], self.design.terms[b]
            found = term.covariance.natural(np.asarray(theta)[own], term.names, 1.0)
            for place, value, kind in zip(own.tolist(), found.values.tolist(), found.kinds, strict=True):
                if place in held and kind in ("sd", "loading") and abs(value) > 1e-8 and held[place] != 0.0:
                    return held[place] / value
        return super().sigma(theta)

    # ------------------------------------------------------------------ information
    def joint_information(self, theta: np.ndarray, kind: str = "observed") -> np.ndarray:
        """Information about (theta, log sigma^2), nearly infinite along what is held."""
        V = 0.5 * self.restricted_covariance(theta, kind)
        top = max(float(np.diagonal(V).max(initial=0.0)), 1e-300)
        return np.linalg.inv(V + 1e-10 * top * np.eye(len(V)))

    def restricted_covariance(self, theta: np.ndarray, kind: str = "observed") -> np.ndarray:
        """Covariance matrix of (theta, log sigma^2), zero along what is held."""
        theta = self._map.check(theta)
        expected = super().joint_information(theta, "expected") if kind == "expected" else None
        exact = kind == "observed" and self.observed_is_cheap
        return restricted_covariance(PlainCriterion(self), self.equations, theta, exact, expected)
