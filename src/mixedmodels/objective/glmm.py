r"""The criterion of a generalised linear mixed model as a function of its free parameters.

The parameters of the user are :math:`\psi = (\gamma, \theta)`: the coefficients of every linear predictor,
then the covariance parameters. The search walks in coordinates v that make the columns of X and Z orthonormal
(`mixedmodels.objective.glmm_coordinates`), so that neither units nor origins matter; fixed and equated
parameters are linear restrictions. All maps are linear and constant:

.. math:: \psi = a + M\,\phi, \qquad (\tilde\gamma, \text{entries of } \tilde\Lambda) = B\,\psi,
          \qquad \phi = R v.

Where a structure is not linear in theta the entries are a function :math:`e(\psi)`; B is its Jacobian J
there, and the Hessian gets :math:`\sum_e d_e\,\partial^2 e/\partial\psi\partial\psi'`.

With priors the criterion is :math:`d(\psi) - 2\log p(\psi)`.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np

from mixedmodels.family.base import Family
from mixedmodels.objective.differences import differenced_hessian
from mixedmodels.objective.glmm_coordinates import Coordinates
from mixedmodels.objective.glmm_priors import Priors
from mixedmodels.objective.marginal.base import Evaluation, Marginal, Modes

__all__ = ["GLMMObjective"]

DIMENSIONLESS = ("log", "logit", "probit", "cloglog", "loglog", "cauchit")  # links of pure numbers
_SECOND_WORK = 3e8  # multiplications above which gradients are differenced
_STEP = 0.02  # of differences, in standard errors


class GLMMObjective:
    """Minus twice the approximate log-likelihood, minus twice the log prior density if there are priors.

    Parameters
    ----------
    coordinates : Coordinates
    marginal : Marginal
        Engine on ``coordinates.inner``.
    restrictions : (a, M), optional
        ``psi = a + M phi``; None leaves all parameters free.
    priors : Priors, optional

    Attributes
    ----------
    names : tuple of str
        Names of psi: the coefficients, then theta.
    n_gamma, n_theta : int
    a, M : ndarray
        The restrictions.
    """

    profiled = False

    def __init__(
        self,
        coordinates: Coordinates,
        marginal: Marginal,
        restrictions: tuple[np.ndarray, np.ndarray] | None = None,
        priors: Priors | None = None,
    ) -> None:
        self.coordinates = coordinates
        self.design = coordinates.design
        self.marginal = marginal
        self.family: Family = marginal.family
        self.n_gamma = coordinates.n_gamma
        self.n_theta = coordinates.map.n_theta
        self.names = (*self.design.gamma_names, *coordinates.map.names)
        size = self.n_gamma + self.n_theta
        self.restricted = restrictions is not None
        self.a: np.ndarray = np.zeros(size) if restrictions is None else restrictions[0]
        self.M: np.ndarray = np.eye(size) if restrictions is None else restrictions[1]
        self.priors = priors

    # ------------------------------------------------------------------ in the user's parameters
    def factors(self, psi: np.ndarray) -> list[np.ndarray]:
        """Factors of the terms in the user's coordinates."""
        return self.coordinates.map.factors(np.asarray(psi, dtype=float)[self.n_gamma :])

    def _at(self, psi: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
        return self.coordinates.at(np.asarray(psi, dtype=float))

    def penalty(self, psi: np.ndarray) -> float:
        """``-2 log p(psi)`` of the priors, 0.0 without; ``criterion - penalty`` is -2 log-likelihood."""
        return 0.0 if self.priors is None else self.priors.value(np.asarray(psi, dtype=float))

    def value(self, psi: np.ndarray) -> float:
        """Criterion at (gamma, theta)."""
        return self.evaluate(psi, 0).value

    def value_and_gradient(self, psi: np.ndarray) -> tuple[float, np.ndarray]:
        """Criterion and gradient, shape (n_gamma + n_theta,)."""
        found = self.evaluate(psi, 1)
        assert found.gradient is not None
        return found.value, found.gradient

    def evaluate(self, psi: np.ndarray, order: int = 2) -> Evaluation:
        """Criterion and derivatives in the user's parameters."""
        found = self.likelihood_terms(psi, order)
        return found if self.priors is None else _with_priors(found, self.priors, psi)

    def likelihood_terms(self, psi: np.ndarray, order: int = 2, exact: bool = True) -> Evaluation:
        """-2 log-likelihood and derivatives in psi, without priors.

        Parameters
        ----------
        psi : ndarray
        order : int
        exact : bool
            False: second derivatives as `Marginal.newton` gives them.
        """
        coordinates, psi = self.coordinates, np.asarray(psi, dtype=float)
        if hasattr(self.marginal, "evaluate_jets"):
            gamma, jets, J = coordinates.jets(psi, order)
            return _mapped(self.marginal.evaluate_jets(gamma, jets, order), J)
        at = self._at(psi)
        found = self.marginal.evaluate(*at, order) if exact else self.marginal.newton(*at)
        mapped = _mapped(found, coordinates.jacobian(psi))
        if not coordinates.curved or found.gradient is None or mapped.hessian is None:
            return mapped
        return replace(mapped, hessian=mapped.hessian + coordinates.curvature(psi, found.gradient))

    def modes(self, psi: np.ndarray) -> Modes:
        """Conditional modes; b in the user's coordinates."""
        found = self.marginal.modes(*self._at(psi))
        parts = zip(found.b, self.coordinates.T, self.coordinates.moved, strict=True)
        b = tuple([part @ T.T if moved else part for part, T, moved in parts])
        return Modes(found.u, b, found.eta, found.penalised, found.logdet)

    def conditional_covariance(self, psi: np.ndarray, term: int) -> np.ndarray:
        """Var(b_l | y, psi) of one term, shape (m, k, k), by the curvature at the mode."""
        T = self.coordinates.T[term]
        return T @ self.marginal.conditional_covariance(*self._at(psi), term) @ T.T

    # ------------------------------------------------------------------ in the coordinates of the search
    @property
    def exact_hessian(self) -> bool:
        """Whether `newton` returns the Hessian itself, not a model of it."""
        return bool(getattr(self.marginal, "exact_hessian", True))

    @property
    def differenced(self) -> bool:
        """Whether `free_hessian` takes differences of the gradient: second derivatives cost too much."""
        return float(getattr(self.marginal, "second_work", 0.0)) > _SECOND_WORK

    @cached_property
    def metric(self) -> np.ndarray:
        """B with each row in units that have no dimension, shape (P, n_gamma + n_theta).

        Under links whose linear predictor has the units of the response (identity, inverse, ...) the spread
        of the predictor at the start is the unit; otherwise it is 1.
        """
        B = self._unit_rows()
        if self.family.link.name in DIMENSIONLESS:
            return B
        spread = float(np.std(self.family.start(self.design.data)[0]))
        units = np.ones(len(B))
        units[self.design.predictors[0].columns] = spread
        for at, (b, _, _) in enumerate(self.coordinates.entries, self.n_gamma):
            if self.design.term_predictor[b] == 0:
                units[at] = spread
        for b in self.coordinates.curved:
            structure, own = self.design.terms[b].covariance, self.coordinates.map.index[b]
            if self.design.term_predictor[b] == 0:
                rows = len(self.coordinates.B) + own[structure.lower == 0.0]
                units[rows] = spread
        return B / np.where(units > 0.0, units, 1.0)[:, None]

    def _unit_rows(self) -> np.ndarray:
        """B; with curved structures a row more for each covariance parameter: 1 for theirs, else zeros."""
        coordinates = self.coordinates
        if not coordinates.curved:
            return coordinates.B
        extra = np.zeros((self.n_theta, coordinates.B.shape[1]))
        for b in coordinates.curved:
            own = coordinates.map.index[b]
            extra[own, self.n_gamma + own] = 1.0
        return np.vstack([coordinates.B, extra])

    @cached_property
    def lengths(self) -> np.ndarray:
        """Length of one unit of each entry of psi in the search, shape (n_gamma + n_theta,)."""
        return np.sqrt((self.metric**2).sum(axis=0))

    @cached_property
    def scales(self) -> np.ndarray:
        """Which covariance parameters scale a factor, shape (n_theta,): not ranges and correlations."""
        out = np.ones(self.n_theta, dtype=bool)
        for b in self.coordinates.curved:
            out[self.coordinates.map.index[b]] = self.design.terms[b].covariance.lower == 0.0
        return out

    @cached_property
    def plain(self) -> bool:
        """Whether v is (gamma~, entries~): no restrictions, no units, as many entries as parameters."""
        coordinates = self.coordinates
        if self.restricted or self.profiled:
            return False
        return self.metric is coordinates.B and coordinates.inverse is not None

    @cached_property
    def _R(self) -> np.ndarray:
        """phi = R v such that `metric` phi is an isometric function of v."""
        if self.plain:
            assert self.coordinates.inverse is not None
            return self.coordinates.inverse
        return np.linalg.inv(np.linalg.qr(self.metric @ self.M, mode="r"))

    @cached_property
    def _J(self) -> np.ndarray:
        """psi = a + J v."""
        return self.M @ self._R if self.restricted else self._R

    @cached_property
    def _BJ(self) -> np.ndarray:
        return self.coordinates.B @ self._J

    def psi_of(self, v: np.ndarray) -> np.ndarray:
        """Parameters at a point of the search."""
        return self.a + self._J @ v if self.restricted else self._J @ v

    def v_of(self, psi: np.ndarray) -> np.ndarray:
        """Point of the search with (nearly) these parameters."""
        phi = np.asarray(psi, dtype=float)
        if self.plain:
            return self.coordinates.B @ phi
        if self.restricted:
            phi = np.linalg.lstsq(self.M, phi - self.a, rcond=None)[0]
        return np.linalg.solve(self._R, phi)

    def newton(self, v: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """Criterion, gradient and Newton matrix in v."""
        if self.plain and self.priors is None:
            found = self.marginal.newton(*self.coordinates.split(v))
            assert found.gradient is not None and found.hessian is not None
            return found.value, found.gradient, found.hessian
        psi = self.psi_of(v)
        if self.coordinates.curved:
            found = self.likelihood_terms(psi, 2, False)
            to_v = self._J
        else:
            found = self.marginal.newton(*self._at(psi))
            to_v = self._BJ
        assert found.gradient is not None and found.hessian is not None
        value, gradient, hessian = found.value, found.gradient @ to_v, to_v.T @ found.hessian @ to_v
        if self.priors is not None:
            added, slope, curvature = self.priors.evaluate(psi)
            value, gradient = value + added, gradient + slope @ self._J
            hessian = hessian + self._J.T @ curvature @ self._J
        return value, gradient, hessian

    def point(self, v: np.ndarray) -> np.ndarray:
        """psi at the end of a search (where coefficients are profiled out, they are found here)."""
        return self.psi_of(v)

    def free_hessian(self, psi: np.ndarray, hessian: np.ndarray | None = None) -> np.ndarray:
        """Second derivatives of the criterion in the free parameters phi, ``M'HM``.

        Parameters
        ----------
        psi : ndarray
        hessian : ndarray, optional
            Of the criterion at psi in the coordinates of the search, if it is known (`Optimum.hessian`); it
            is used where it is exact.

        Notes
        -----
        Where `differenced` is true, central differences of the exact gradient stand for second derivatives.
        """
        if hessian is not None and self.exact_hessian:
            inverse = self.coordinates.B if self.plain else np.linalg.inv(self._R)
            return inverse.T @ hessian @ inverse
        if self.differenced:
            model = self.likelihood_terms(psi, 2, False).hessian
            assert model is not None
            curvature = np.einsum("ij,ij->j", self.M, model @ self.M)
            steps = _STEP * np.sqrt(2.0 / np.maximum(curvature, 1e-300))
            steps = np.where(curvature > 0.0, np.minimum(steps, 1.0), _STEP)
            return differenced_hessian(lambda at: self.value_and_gradient(at)[1], steps, self.M, psi)
        if self.plain and self.priors is None:
            found = self.marginal.evaluate(*self._at(psi), 2).hessian
            assert found is not None
            return self.coordinates.B.T @ found @ self.coordinates.B
        found = self.evaluate(psi, 2).hessian
        assert found is not None
        return self.M.T @ found @ self.M

    def joint_covariance(self, psi: np.ndarray, hessian: np.ndarray | None = None) -> np.ndarray:
        """``2 M (M'HM)^{-1} M'``: covariance matrix of psi, zero for what is held; as `free_hessian`."""
        held = self.coordinates.one_sided(psi) if self.coordinates.curved else ()
        if len(held):
            inside = self.at_zero(held)
            return 2.0 * inside.M @ np.linalg.solve(inside.free_hessian(psi), inside.M.T)
        return 2.0 * self.M @ np.linalg.solve(self.free_hessian(psi, hessian), self.M.T)

    def at_zero(self, places: Sequence[int]) -> GLMMObjective:
        """The objective with some free covariance parameters held at zero."""
        new = copy.copy(self)
        for name in ("metric", "lengths", "plain", "_R", "_J", "_BJ", "start"):
            new.__dict__.pop(name, None)
        new.M = self.M[:, ~(self.M[np.array(places)] != 0.0).any(axis=0)]
        new.restricted = True
        return new

    @cached_property
    def start(self) -> np.ndarray:
        """Starting value of psi."""
        from mixedmodels.objective.glmm_start import starting_values

        return starting_values(self)


def _mapped(found: Evaluation, J: np.ndarray) -> Evaluation:
    return Evaluation(
        found.value,
        None if found.gradient is None else found.gradient @ J,
        None if found.hessian is None else J.T @ found.hessian @ J,
        None if found.penalised is None else J.T @ found.penalised @ J,
    )


def _with_priors(found: Evaluation, priors: Priors, psi: np.ndarray) -> Evaluation:
    value, gradient, hessian = priors.evaluate(np.asarray(psi, dtype=float))
    return Evaluation(
        found.value + value,
        None if found.gradient is None else found.gradient + gradient,
        None if found.hessian is None else found.hessian + hessian,
        None if found.penalised is None else found.penalised + hessian,
    )
