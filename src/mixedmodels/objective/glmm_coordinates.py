r"""Coordinates of generalised models: orthonormal columns inside, the parameters of the user outside.

The columns of each X_c are orthonormal in the mean and those of each Z as orthonormal as the structure
allows (design note 0004). The map from the user's :math:`\psi = (\gamma, \theta)` to
:math:`(\tilde\gamma, \text{entries of } \tilde\Lambda)` is the constant matrix B; where a structure is not
linear in theta the entries are a function :math:`e(\psi)` with Jacobian J.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

import numpy as np

from mixedmodels.design import GeneralisedDesign, Predictor, RandomTerm
from mixedmodels.objective.marginal.base import factor_entries
from mixedmodels.objective.parameters import ParameterMap, parameter_map
from mixedmodels.solver._kernels.small import orthonormal
from mixedmodels.solver.base import Breakdown

if TYPE_CHECKING:
    from mixedmodels.covariance.base import Covariance
    from mixedmodels.objective.marginal.directional import TermJet

__all__ = ["Coordinates", "reflected"]

FEW_ROWS = 5000  # up to which a plain loop over them beats LAPACK


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
                if term.several_levels:  # columns of different levels do not mix
                    T = np.array(term.covariance.transform(np.diag((term.Z**2).mean(axis=0)), None))
                else:
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
