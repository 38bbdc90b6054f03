"""Fits of models whose relative covariance factor is the user's own function of theta."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from mixedmodels.errors import NotImplementedYetError, OptionError
from mixedmodels.fit import values
from mixedmodels.fit.predict import select_columns
from mixedmodels.fit.ranef import TermEffects
from mixedmodels.fit.result import LMMFit

__all__ = ["FunctionFit", "FunctionSolver"]


@dataclass(frozen=True, slots=True)
class FunctionSolver:
    """Describes how a covariance given as a function is solved."""

    q: int
    name: str = "dense"

    def describe(self) -> str:
        """One line: which algorithm, on which sizes."""
        return f"dense: a function of theta gives the factor of all {self.q} random effects"


class FunctionFit(LMMFit):
    """A fit with ``b ~ N(0, sigma^2 Lambda(theta) Lambda(theta)')``, Lambda a function the user gave.

    It answers what `LMMFit` answers, except that there are no grouping factors, hence no variances per
    group and no coefficients per level.
    """

    __slots__ = ()

    @property
    def solver(self) -> FunctionSolver:
        """How the model is solved."""
        return FunctionSolver(self.frame.Z.shape[1])

    def _effects(self) -> np.ndarray:
        return self._b[0]

    def _at_bound(self) -> list[str]:
        """Names of the parameters on a bound."""
        covariance, theta = self.frame.covariance, self.theta
        slack = 1e-6 * np.maximum(1.0, np.abs(theta))
        at = (theta <= covariance.lower + slack) | (theta >= covariance.upper - slack)
        return [name for name, there in zip(self.theta_names, at.tolist(), strict=True) if there]

    @property
    def is_singular(self) -> bool:
        """Whether an entry of theta lies on its bound, as where a variance is zero."""
        return bool(self._at_bound())

    def ranef_arrays(self) -> tuple[TermEffects, ...]:
        """Conditional modes as one `TermEffects` with a level per column of Z."""
        levels = tuple(f"z{j + 1}" for j in range(self.frame.Z.shape[1]))
        return (TermEffects("Z", ("effect",), levels, self._effects()),)

    def conditional_covariance(self, term: int = 0) -> np.ndarray:
        """Var(b | y, beta) of all random effects, shape (q, q)."""
        if term != 0:
            raise OptionError(f"term must be 0, got {term!r}")
        return values.readonly(self.sigma**2 * np.asarray(self.objective.conditional_covariance(self.theta)))

    def ranef_columns(self, condvar: bool = False) -> dict[str, Any]:
        """The columns of `ranef` as lists and arrays."""
        (effects,) = self.ranef_arrays()
        q = len(effects.levels)
        columns = {
            "group": [effects.group] * q,
            "level": list(effects.levels),
            "term": list(effects.names) * q,
            "estimate": effects.b[:, 0].copy(),
        }
        if condvar:
            columns["sd"] = np.sqrt(np.maximum(np.diagonal(self.conditional_covariance()), 0.0))
        return columns

    def coef_columns(self, condvar: bool = False) -> NoReturn:
        """Not available: there are no levels with coefficients of their own."""
        raise OptionError("a model with one matrix Z has no coefficients per level; see ranef()")

    def _compute_eta(self, re_form: Any) -> np.ndarray:
        design = self.design
        eta = values.fixed_predictor(design.X, self.beta, design.offset)
        if re_form is None or select_columns(self, re_form):
            eta += self.frame.Z @ self._effects()[:, 0]
        return eta

    def _compute_messages(self) -> tuple[str, ...]:
        theta = ", ".join(
            f"{name} = {value:.5g}" for name, value in zip(self.theta_names, self.theta.tolist(), strict=True)
        )
        bound = self._at_bound()
        more = (
            [f"on {'its bound' if len(bound) == 1 else 'their bounds'}: {', '.join(bound)}"] if bound else []
        )
        return (*super()._compute_messages(), f"the covariance is a function of theta: {theta}", *more)

    def simulate(self, n: int = 1, seed: Any = None, new_effects: Any = True, **options: Any) -> np.ndarray:
        """Responses drawn from the fitted model; `LMMFit.simulate` for its own rows.

        Parameters
        ----------
        n : int
        seed : int, Generator or None
        new_effects : bool
            True draws the random effects anew, False keeps them at their conditional modes.
        **options
            None: other rows and parameters are not in this version.
        """
        from mixedmodels.fit.simulate import check_count, draw_responses, generator

        if any(value is not None for value in options.values()):
            raise NotImplementedYetError(
                "simulate() with other rows or parameters is not in this version for a covariance function; "
                "leave out " + ", ".join(name for name, value in options.items() if value is not None)
            )
        if not isinstance(new_effects, bool):
            raise OptionError(f"new_effects must be True or False for this model, got {new_effects!r}")
        n, rng = check_count(n), generator(seed)
        base = np.array(self._linear_predictor("population" if new_effects else None))
        out = draw_responses(base, (), self.sigma, self.design.weights, n, rng)
        if new_effects:
            factor = self.frame.covariance.factor(self.theta)
            out += self.sigma * (self.frame.Z @ (factor @ rng.standard_normal((factor.shape[1], n))))
        return out
