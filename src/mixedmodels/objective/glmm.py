r"""The criterion of a generalised linear mixed model as a function of its free parameters.

The parameters of the user are :math:`\psi = (\gamma, \theta)`: the coefficients of every linear predictor,
then the covariance parameters. The search walks in coordinates v in which the columns of each X_c are
orthonormal in the mean and those of each Z as orthonormal as the structure allows (design note 0004), so
that neither units nor origins matter; fixed and equated parameters are linear restrictions. All maps are
linear and constant:

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
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

import numpy as np

from mixedmodels.design import GeneralisedDesign, Predictor, RandomTerm
from mixedmodels.family.base import Family
from mixedmodels.objective.differences import differenced_hessian
from mixedmodels.objective.glmm_priors import Priors
from mixedmodels.objective.marginal.base import Evaluation, Marginal, Modes, factor_entries
from mixedmodels.objective.parameters import ParameterMap, parameter_map
from mixedmodels.solver._kernels.small import orthonormal
from mixedmodels.solver.base import Breakdown

if TYPE_CHECKING:
    from mixedmodels.covariance.base import Covariance
    from mixedmodels.objective.marginal.directional import TermJet

__all__ = ["Coordinates", "GLMMObjective"]

DIMENSIONLESS = ("log", "logit", "probit", "cloglog", "loglog", "cauchit")  # links of pure numbers
FEW_ROWS = 5000  # up to which a plain loop over them beats LAPACK
_SECOND_WORK = 3e8  # multiplications above which gradients are differenced
_STEP = 0.02  # of differences, in standard errors


class Coordinates:
    """A design in internal coordinates and the linear map of its parameters.

    Parameters
    ----------
    design : GeneralisedDesign

    Attributes
    ----------
    inner : GeneralisedDesign
        With orthonormal columns.
    B : ndarray, shape (P, n_gamma + n_theta)
        From (gamma, theta) of the user to gamma and the entries of the factors of `inner`.
    """

    def __init__(self, design: GeneralisedDesign) -> None:
        self.design = design
        n_gamma = len(design.gamma_names)
        self.map = parameter_map(design)
        G, back, predictors = _orthonormal_predictors(design, n_gamma)  # gamma~ = G gamma
        terms: list[RandomTerm] = []
        self.T: list[np.ndarray] = []
        self.moved: list[bool] = []  # whether T is not the identity
        structures = tuple([term.covariance for term in design.terms])
        alone = _alone(self.map)
        for term, own in zip(design.terms, alone, strict=True):
            T = np.eye(term.k)
            if term.Z is not None and term.covariance.entries is not None and own:
                T = np.array(term.covariance.transform(term.Z.T @ term.Z / design.n, _constant(term.Z)))
                terms.append(replace(term, Z=np.ascontiguousarray(term.Z @ T)))
                self.moved.append(True)
            else:
                terms.append(term)
                self.moved.append(False)
            self.T.append(T)
        self.inner = GeneralisedDesign(
            design.data,
            tuple(predictors),
            design.gamma_names,
            tuple(terms),
            design.term_predictor,
            design.theta_index,
        )
        self.curved = tuple([b for b, structure in enumerate(structures) if structure.entries is None])
        self.entries = factor_entries(self.inner)
        # entries~ = E theta
        E = (
            _plain_factors(self.map, structures, self.entries)
            if not any(self.moved)
            else _factors(self.map, structures, self.entries, self.T)
        )
        P = n_gamma + len(self.entries)
        self.n_gamma = n_gamma
        self.B = np.zeros((P, n_gamma + self.map.n_theta))
        self.B[:n_gamma, :n_gamma] = G
        self.B[n_gamma:, n_gamma:] = E
        self._back = back

    @cached_property
    def inverse(self) -> np.ndarray | None:
        """Inverse of B; None where B is not square or not regular."""
        n_gamma, E = self.n_gamma, self.B[self.n_gamma :, self.n_gamma :]
        if self.curved or E.shape[0] != E.shape[1]:
            return None
        try:
            out = np.zeros(self.B.shape)
            if n_gamma:
                G = self.B[:n_gamma, :n_gamma]
                out[:n_gamma, :n_gamma] = np.linalg.inv(G) if self._back is None else self._back
            if E.shape == (1, 1):
                out[n_gamma, n_gamma] = 1.0 / E[0, 0]
            elif len(E):
                out[n_gamma:, n_gamma:] = np.linalg.inv(E)
        except np.linalg.LinAlgError:
            return None
        return out

    # ------------------------------------------------------------------ structures not linear in theta
    @cached_property
    def _rows(self) -> dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """For each curved term its places among the inner parameters, and their rows and columns."""
        table = np.array(self.entries, dtype=np.intp).reshape(-1, 3)
        out = {}
        for b in self.curved:
            at = np.flatnonzero(table[:, 0] == b)
            out[b] = (self.n_gamma + at, table[at, 1], table[at, 2])
        return out

    def at(self, psi: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
        """gamma~ and the factors~ at parameters of the user.

        Raises
        ------
        Breakdown
            Outside of the bounds of a curved structure.
        """
        gamma, factors = self.split(self.B @ psi)
        theta = psi[self.n_gamma :]
        for b in self.curved:
            structure, own = self.design.terms[b].covariance, theta[self.map.index[b]]
            inside = (own >= structure.lower) & (own <= structure.upper) | structure.mirrored
            inside |= structure.lower == 0.0  # beyond zero lies a covariance matrix, if not of the structure
            if not inside.all():
                raise Breakdown("a covariance parameter is outside of its range there")
            factors[b] = structure.factor(own)
        return gamma, factors

    def jacobian(self, psi: np.ndarray) -> np.ndarray:
        """Derivatives of (gamma~, entries~) with respect to psi, as B."""
        if not self.curved:
            return self.B
        out, theta = self.B.copy(), psi[self.n_gamma :]
        for b, (places, rows, columns) in self._rows.items():
            own = self.map.index[b]
            E = np.asarray(self.design.terms[b].covariance.factor_derivatives(theta[own]))
            np.add.at(out, np.ix_(places, self.n_gamma + own), E[:, rows, columns].T)
        return out

    def curvature(self, psi: np.ndarray, gradient: np.ndarray) -> np.ndarray:
        """``sum_e gradient_e d2 e / d psi d psi'``: zero but for curved structures."""
        size = self.B.shape[1]
        out, theta = np.zeros((size, size)), psi[self.n_gamma :]
        for b, (places, rows, columns) in self._rows.items():
            own = self.map.index[b]
            second = self.design.terms[b].covariance.factor_second_derivatives(theta[own])
            part = second[:, :, rows, columns] @ gradient[places]
            np.add.at(out, np.ix_(self.n_gamma + own, self.n_gamma + own), part)
        return out

    def jets(self, psi: np.ndarray, order: int) -> tuple[np.ndarray, list[TermJet], np.ndarray]:
        """gamma~, the factors~ with derivatives, and the map from psi to gamma~ and the terms' parameters."""
        from mixedmodels.objective.marginal.directional import TermJet

        gamma, factors = self.at(psi)
        theta, jets, places = psi[self.n_gamma :], [], []
        for term, own, factor, T in zip(self.design.terms, self.map.index, factors, self.T, strict=True):
            structure = term.covariance
            if order == 0:
                jets.append(TermJet(factor))
                continue
            E = np.linalg.solve(T, np.asarray(structure.factor_derivatives(theta[own])))
            second = (
                None if structure.entries is not None else structure.factor_second_derivatives(theta[own])
            )
            jets.append(TermJet(factor, E, second))
            places += own.tolist()
        J = np.zeros((self.n_gamma + len(places), self.B.shape[1]))
        J[: self.n_gamma] = self.B[: self.n_gamma]
        J[self.n_gamma + np.arange(len(places)), self.n_gamma + np.array(places, dtype=int)] = 1.0
        return gamma, jets, J

    def one_sided(self, psi: np.ndarray) -> list[int]:
        """Places in psi of standard deviations at or below zero about which Sigma is not symmetric.

        Their zero is a bound where the gradient need not vanish.
        """
        places: list[int] = []
        for b in self.curved:
            structure, own = self.design.terms[b].covariance, self.n_gamma + self.map.index[b]
            at = (structure.lower == 0.0) & ~structure.mirrored & (psi[own] <= 0.0)
            places += own[at].tolist()
        return sorted(set(places))

    def mirrored(self, psi: np.ndarray) -> np.ndarray:
        """The same covariance matrices with the parameters of curved structures inside their bounds."""
        out = np.array(psi, dtype=float)
        for b in self.curved:
            structure, own = self.design.terms[b].covariance, self.n_gamma + self.map.index[b]
            out[own] = reflected(out[own], structure.lower, structure.upper, structure.mirrored)
        return out

    def split(self, inner: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
        """gamma~ and the factors~ of inner parameters."""
        factors = [np.zeros(T.shape) for T in self.T]
        for (b, i, j), value in zip(self.entries, inner[self.n_gamma :].tolist(), strict=True):
            factors[b][i, j] = value
        return inner[: self.n_gamma], factors


def reflected(values: np.ndarray, lower: np.ndarray, upper: np.ndarray, mirrored: np.ndarray) -> np.ndarray:
    """Values reflected at their bounds where `mirrored`."""
    out = np.array(values, dtype=float)
    for j in np.flatnonzero(mirrored).tolist():
        low, high = float(lower[j]), float(upper[j])
        if np.isfinite(low) and np.isfinite(high):
            x = (out[j] - low) % (2.0 * (high - low))
            out[j] = low + min(x, 2.0 * (high - low) - x)
        elif out[j] < low:
            out[j] = 2.0 * low - out[j]
        elif out[j] > high:
            out[j] = 2.0 * high - out[j]
    return out


def _orthonormal_predictors(
    design: GeneralisedDesign, n_gamma: int
) -> tuple[np.ndarray, np.ndarray | None, list[Predictor]]:
    """G with ``gamma~ = G gamma``, its inverse if it is at hand, and predictors with orthonormal columns."""
    predictors: list[Predictor] = []
    if len(design.predictors) == 1:
        predictor = design.predictors[0]
        X = predictor.X
        found = None if X is None or X.shape[0] > FEW_ROWS else orthonormal(X)
        if found is not None and X is not None and X.shape[1] == n_gamma:
            Q, G, back = found
            return G, back, [Predictor(predictor.name, Q, predictor.columns, predictor.offset)]
    uses = np.zeros(n_gamma, dtype=int)
    for predictor in design.predictors:
        uses[predictor.columns] += 1
    G = np.eye(n_gamma)
    scale = np.sqrt(design.n)
    for predictor in design.predictors:
        X = predictor.X
        if X is None or X.shape[1] == 0 or uses[predictor.columns].max() > 1:
            predictors.append(predictor)
            continue
        Q, R = np.linalg.qr(X)
        signs = np.where(np.diagonal(R) < 0.0, -1.0, 1.0)
        predictors.append(replace(predictor, X=np.ascontiguousarray(Q * signs) * scale))
        G[np.ix_(predictor.columns, predictor.columns)] = (R * signs[:, None]) / scale
    return G, None, predictors


@lru_cache(maxsize=128)
def _alone(where: ParameterMap) -> tuple[bool, ...]:
    """For each term whether no other term has its parameters."""
    places = [np.unique(own) for own in where.index]
    shared = np.bincount(np.concatenate([np.zeros(0, dtype=np.intp), *places]), minlength=1)
    return tuple([bool(shared[own].max() == 1) for own in where.index])


@lru_cache(maxsize=128)
def _plain_factors(
    where: ParameterMap, structures: tuple[Covariance, ...], entries: tuple[tuple[int, int, int], ...]
) -> np.ndarray:
    return _factors(where, structures, entries, [np.eye(structure.k) for structure in structures])


def _factors(
    where: ParameterMap,
    structures: tuple[Covariance, ...],
    entries: tuple[tuple[int, int, int], ...],
    T: list[np.ndarray],
) -> np.ndarray:
    """The matrix from theta to the entries of the factors ``T^{-1} Lambda``."""
    E = np.zeros((len(entries), where.n_theta))
    for b, (structure, own) in enumerate(zip(structures, where.index, strict=True)):
        inverse = np.linalg.inv(T[b])
        if structure.entries is None:  # its rows are those of `Coordinates.jacobian`
            continue
        for i, j, t in structure.entries.tolist():
            for at, (b2, i2, j2) in enumerate(entries):
                if b2 == b and j2 == j:
                    E[at, own[t]] += inverse[i2, i]
    return E


def _constant(Z: np.ndarray) -> int | None:
    for j in range(Z.shape[1]):
        if Z[0, j] != 0.0 and not np.any(Z[:, j] != Z[0, j]):
            return j
    return None


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
