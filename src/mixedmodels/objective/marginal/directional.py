r"""Laplace's approximation with derivatives along the parameters, for factors with very many entries.

A spatial term with 200 sites has one covariance matrix of 20 100 entries and two parameters; a term over
irregular times has one column per distinct time, of which each level sees a few. Here the effects
are those that some row sees: with S the columns that level l sees, :math:`b_{lS} = C_l u_l`,
:math:`C_l C_l' = \Sigma_{SS}`, and the derivatives of the Cholesky factor come from those of Sigma. The
others are known given these, :math:`E(b_l \mid b_{lS}) = \Sigma_{\cdot S}\Sigma_{SS}^{-1} b_{lS}`.

In the notation of `mixedmodels.objective.marginal.dense`, with :math:`G = EH^{-1}`,
:math:`\tau_c = -\tfrac12\sum_{de} (E H^{-1} E')_{de} f^{(3)}_{cde}`, :math:`w = H^{-1}E'\tau` and
:math:`\rho = -f' + \tau + f''(Ew)`, the gradient along any change of E is
:math:`\langle \dot E, R\rangle` with

.. math:: R = \rho u' + f'w' - f''G,

so that the second derivatives of the factors enter the Hessian as :math:`\langle \ddot\Lambda, Z'R\rangle`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mixedmodels.covariance.correlation import Jet, cholesky_jet
from mixedmodels.design import GeneralisedDesign, RandomTerm
from mixedmodels.errors import OptionError
from mixedmodels.family.base import Family
from mixedmodels.objective.marginal.base import Evaluation, Modes
from mixedmodels.objective.marginal.dense import DenseLaplace

__all__ = ["DirectionalLaplace", "TermJet"]

LARGEST = 2**31  # bytes of the largest array
EFFECTS = 3000  # random effects in rows: dense algebra of this order


@dataclass(frozen=True, slots=True, eq=False)
class TermJet:
    """The factor of a term, (k, k), with first (r, k, k) and second (r, r, k, k) derivatives.

    `second` is None where they vanish; both are None where only values are wanted.
    """

    value: np.ndarray
    first: np.ndarray | None = None
    second: np.ndarray | None = None


class _Seen:
    """The random effects of one term that some row sees."""

    def __init__(self, term: RandomTerm, first: int) -> None:
        Z = np.ones((len(term.codes), 1)) if term.Z is None else term.Z
        rows, columns = np.nonzero(Z)
        pairs = np.unique(term.codes[rows].astype(np.int64) * term.k + columns)
        self.k, self.m = term.k, term.m
        self.levels = [pairs[pairs // term.k == level] % term.k for level in range(term.m)]
        self.size = len(pairs)
        self.slice = slice(first, first + self.size)
        stops = np.cumsum([len(columns) for columns in self.levels])
        self.blocks = [slice(stop - len(c), stop) for stop, c in zip(stops, self.levels, strict=True)]
        self.Z = np.zeros((len(Z), self.size))
        place = np.searchsorted(pairs, term.codes[rows].astype(np.int64) * term.k + columns)
        self.Z[rows, place] = Z[rows, columns]
        # levels that see the same columns share a factor
        self.kinds: dict[tuple[int, ...], list[int]] = {}
        for level, seen in enumerate(self.levels):
            if len(seen):
                self.kinds.setdefault(tuple(seen.tolist()), []).append(level)

    def jet(self, term: TermJet) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
        """Lambda of the effects in rows, (size, size), with derivatives."""
        order = 0 if term.first is None else 2
        r = 0 if term.first is None else len(term.first)
        L = np.zeros((self.size, self.size))
        first = np.zeros((r, self.size, self.size)) if order else None
        second = np.zeros((r, r, self.size, self.size)) if order else None
        Sigma: Jet | None = None
        for seen, levels in self.kinds.items():
            if len(seen) == self.k:
                part = Jet(term.value, term.first, term.second)
            else:
                Sigma = _sigma(term) if Sigma is None else Sigma
                part = _sub(Sigma, np.array(seen), order)
            for level in levels:
                at = self.blocks[level]
                L[at, at] = part.value
                if first is not None and second is not None:
                    assert part.first is not None
                    first[:, at, at] = part.first
                    if part.second is not None:
                        second[:, :, at, at] = part.second
        return L, first, second


def _sigma(term: TermJet) -> Jet:
    """``Sigma = F F'`` with derivatives."""
    F, E = term.value, term.first
    if E is None:
        return Jet(F @ F.T)
    half = E @ F.T
    second = E[:, None] @ E[None].transpose(0, 1, 3, 2)
    if term.second is not None:
        second = second + term.second @ F.T
    return Jet(F @ F.T, half + half.transpose(0, 2, 1), second + second.transpose(0, 1, 3, 2))


def _sub(Sigma: Jet, seen: np.ndarray, order: int) -> Jet:
    """The Cholesky factor of a principal submatrix of Sigma with derivatives."""
    inside = np.ix_(seen, seen)
    value = Sigma.value[inside]
    if order == 0:
        from mixedmodels.covariance.correlation import semidefinite_root

        return Jet(semidefinite_root(value))
    assert Sigma.first is not None and Sigma.second is not None
    first = Sigma.first[:, seen][:, :, seen]
    return cholesky_jet(Jet(value, first, Sigma.second[:, :, seen][:, :, :, seen]), 2)


class DirectionalLaplace(DenseLaplace):
    """Dense Laplace approximation that differentiates along the parameters of the structures.

    Parameters
    ----------
    design : GeneralisedDesign
    family : Family

    Raises
    ------
    OptionError
        The arrays would be too large.
    """

    name = "directional"
    reason = "covariance matrices with many entries and few parameters"

    def __init__(self, design: GeneralisedDesign, family: Family) -> None:
        self.design, self.family = design, family
        self.entries = ()
        C, n = len(design.predictors), design.n
        known = [term for term in design.terms if term.precision is not None]
        if known:
            raise OptionError(
                f"a known precision between the levels of {known[0].group!r} cannot be combined with a "
                "structure of so many columns; use fewer distinct times or positions"
            )
        self.n_gamma = len(design.gamma_names)
        self._X = np.zeros((C, n, self.n_gamma))
        self._offset = np.zeros((C, n))
        for c, predictor in enumerate(design.predictors):
            X = np.ones((n, 1)) if predictor.X is None else predictor.X
            self._X[c][:, predictor.columns] = X
            if predictor.offset is not None:
                self._offset[c] = predictor.offset
        effects = sum(_count(term) for term in design.terms)
        parameters = self.n_gamma + sum(term.covariance.n_theta for term in design.terms)
        size = 8 * parameters * C * n * effects
        if size > LARGEST or effects > EFFECTS:
            term = max(design.terms, key=lambda one: one.k)
            raise OptionError(
                f"the term ({term.covariance.name} | {term.group}) has {term.k} distinct times or positions "
                f"and the model {effects} random effects in {n} rows; the limits of the dense algebra they "
                f"need are {EFFECTS} effects and {LARGEST / 2**30:.0f} GB (here {size / 2**30:.1f}): use a "
                "coarser grid, or fewer levels"
            )
        self._seen: list[_Seen] = []
        at = 0
        self._Z = np.zeros((C, n, effects))
        for term, c in zip(design.terms, design.term_predictor, strict=True):
            seen = _Seen(term, at)
            self._seen.append(seen)
            self._Z[c][:, seen.slice] = seen.Z
            at += seen.size
        self._slices = [seen.slice for seen in self._seen]
        self._P, self._logdet_P = np.eye(effects), 0.0
        self._u = np.zeros(effects)
        self._now: tuple[np.ndarray, np.ndarray | None] = (np.zeros((0, 0)), None)

    def describe(self) -> str:
        """One line: which method on which sizes."""
        return f"dense Laplace along the parameters: n = {self.design.n}, {len(self._u)} effects in rows"

    def _Lambda(self, factors: Sequence[Any]) -> np.ndarray:
        """Of the effects in rows; `factors` are matrices (k, k) or jets."""
        out = np.zeros((len(self._u),) * 2)
        for seen, factor in zip(self._seen, factors, strict=True):
            jet = factor if isinstance(factor, TermJet) else TermJet(np.asarray(factor))
            out[seen.slice, seen.slice] = seen.jet(TermJet(jet.value))[0]
        return out

    def evaluate_jets(self, gamma: np.ndarray, jets: Sequence[TermJet], order: int) -> Evaluation:
        """Value, gradient and exact Hessian in gamma and the parameters of the terms, one after the other.

        Parameters
        ----------
        gamma : ndarray
        jets : sequence of TermJet
        order : int
        """
        gamma = np.asarray(gamma, dtype=float)
        values = [jet.value for jet in jets]
        if order == 0:
            return super().evaluate(gamma, values, 0)
        parts = [seen.jet(jet) for seen, jet in zip(self._seen, jets, strict=True)]
        sizes = [0 if first is None else len(first) for _, first, _ in parts]
        q, r = len(self._u), sum(sizes)
        dL = np.zeros((r, q, q))
        at = 0
        for seen, (_, first, _), size in zip(self._seen, parts, sizes, strict=True):
            dL[at : at + size, seen.slice, seen.slice] = first
            at += size
        self._moves = dL
        found = super().evaluate(gamma, values, order)
        if order < 2:
            return found
        assert found.hessian is not None
        G = self._gradient_of_factor(gamma, values)
        at = self.n_gamma
        hessian = found.hessian.copy()
        for seen, (_, _, second), size in zip(self._seen, parts, sizes, strict=True):
            own = slice(at, at + size)
            assert second is not None
            hessian[own, own] += np.einsum("stij,ij->st", second, G[seen.slice, seen.slice])
            at += size
        return Evaluation(found.value, found.gradient, hessian, found.penalised)

    def _directions(self, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Derivatives of eta with u held and of E along gamma and the parameters."""
        C, n, q = self._Z.shape
        p = self.n_gamma
        N, dE = np.zeros((p + len(self._moves), C, n)), np.zeros((p + len(self._moves), C, n, q))
        N[:p] = np.moveaxis(self._X, 2, 0)
        for a, L in enumerate(self._moves, p):
            dE[a] = self._Z @ L
            N[a] = dE[a] @ u
        return N, dE

    def _gradient_of_factor(self, gamma: np.ndarray, factors: Sequence[np.ndarray]) -> np.ndarray:
        """Gradient of the criterion in all entries of Lambda, (q, q)."""
        u, eta, E, H, _ = self._mode(gamma, factors)
        C = len(eta)
        f1, f2, f3 = _dense_tables(self._tables(eta, 3, tuple(range(C))), C)
        inverse = np.linalg.inv(H)
        G = E @ inverse  # (C, n, q)
        h = np.einsum("cij,dij->cdi", G, E)
        tau = -0.5 * np.einsum("dei,cdei->ci", h, f3)
        w = inverse @ np.einsum("cij,ci->j", E, tau)
        rho = -f1 + tau + np.einsum("cdi,di->ci", f2, E @ w)
        R = rho[:, :, None] * u + f1[:, :, None] * w - np.einsum("cdi,dij->cij", f2, G)
        return 2.0 * np.einsum("cni,cnj->ij", self._Z, R, optimize=True)

    # ------------------------------------------------------------------ effects of all columns
    def modes(self, gamma: np.ndarray, factors: Sequence[np.ndarray]) -> Modes:
        """Conditional modes of the random effects, those that no row sees included."""
        u, eta, _, H, F = self._mode(np.asarray(gamma, dtype=float), factors)
        effects = self._Lambda(factors) @ u
        b, spherical = [], []
        for seen, factor in zip(self._seen, factors, strict=True):
            full = np.zeros((seen.m, seen.k))
            for columns, levels in seen.kinds.items():
                A = _regression(np.asarray(factor), np.array(columns))
                for level in levels:
                    full[level] = A @ effects[seen.slice][seen.blocks[level]]
            b.append(full)
            spherical.append(_spherical(np.asarray(factor), full))
        return Modes(tuple(spherical), tuple(b), eta, 2.0 * F, float(np.linalg.slogdet(H)[1]))

    def conditional_covariance(
        self, gamma: np.ndarray, factors: Sequence[np.ndarray], term: int
    ) -> np.ndarray:
        """Var(b_l | y) of one term, shape (m, k, k), of effects that no row sees too."""
        _, _, _, H, _ = self._mode(np.asarray(gamma, dtype=float), factors)
        Lambda = self._Lambda(factors)
        V = Lambda @ np.linalg.inv(H) @ Lambda.T
        seen, factor = self._seen[term], np.asarray(factors[term])
        Sigma = factor @ factor.T
        own = V[seen.slice, seen.slice]
        out = np.broadcast_to(Sigma, (seen.m, seen.k, seen.k)).copy()
        for columns, levels in seen.kinds.items():
            index = np.array(columns)
            A = _regression(factor, index)
            rest = Sigma - A @ Sigma[index]
            for level in levels:
                at = seen.blocks[level]
                out[level] = rest + A @ own[at, at] @ A.T
        return out


def _count(term: RandomTerm) -> int:
    """Random effects of a term that some row sees."""
    if term.Z is None:
        return len(np.unique(term.codes))
    rows, columns = np.nonzero(term.Z)
    return len(np.unique(term.codes[rows].astype(np.int64) * term.k + columns))


def _regression(factor: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """``Sigma[:, S] Sigma[S, S]^{-1}``; the identity on S itself."""
    k = len(factor)
    if len(columns) == k:
        return np.eye(k)
    Sigma = factor @ factor.T
    out = np.linalg.lstsq(Sigma[np.ix_(columns, columns)], Sigma[columns], rcond=None)[0].T
    out[columns] = np.eye(len(columns))
    return out


def _spherical(factor: np.ndarray, b: np.ndarray) -> np.ndarray:
    """u with ``b = u factor'``, the shortest one."""
    return np.linalg.lstsq(factor, b.T, rcond=None)[0].T


def _dense_tables(table: np.ndarray, C: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First to third derivatives of the log-density as (C, n), (C, C, n) and (C, C, C, n)."""
    from mixedmodels.family.jet import place

    where = place(C, 3)
    unit = np.eye(C, dtype=int)

    def f(*which: int) -> np.ndarray:
        return table[where[tuple(sum((unit[c] for c in which), np.zeros(C, dtype=int)))]]

    every = range(C)
    f1 = np.array([f(c) for c in every])
    f2 = np.array([[f(c, d) for d in every] for c in every])
    return f1, f2, np.array([[[f(c, d, e) for e in every] for d in every] for c in every])
