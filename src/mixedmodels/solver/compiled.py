"""From the compiled evaluators, which work in internal coordinates, to the solver contract in the user's.

With ``factor = T factor~`` per term, ``dSigma = T dSigma~ T'``, the response scaled by s and X by T_X:

    T_b = T^{-T} T~_b T^{-1},   S_b = s^2 T^{-T} S~_b T^{-1},   pwrss = s^2 pwrss~,   wpw = s^2 wpw~,
    logdet_RX2 = logdet_RX2~ - 2 log|T_X|,   beta = beta0 + s T_X beta~,   u = s u~,   theta = C theta~.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

import mixedmodels.solver._kernels.crossproducts as kernels
from mixedmodels.errors import SolverError
from mixedmodels.solver.base import Components, Directions, Solution
from mixedmodels.solver.crossproducts import CrossProducts, cross_products
from mixedmodels.solver.inference import InferenceProducts, not_definite
from mixedmodels.solver.moments import LARGEST, SMALLEST, column_sd, conditional_sd, scalar_components
from mixedmodels.solver.scaling import Standardised, standardise

if TYPE_CHECKING:
    from mixedmodels.covariance.base import Covariance
    from mixedmodels.design import Design

__all__ = ["CompiledSolver"]

_CLIP = {"block": 0, "diagonal": 1, "trace": 2}


class CompiledSolver(InferenceProducts):
    """Base of the solvers whose work is done by a compiled `Evaluator`.

    A subclass sets `name`, writes `describe`, and gives three hooks: `_prepare` (once), `_new_evaluator` and
    the two that read results by factor, `_solve` and `_conditional`.

    Parameters
    ----------
    design : Design

    Attributes
    ----------
    n, p : int
    standardised : Standardised
    pack : CrossProducts
    """

    name = "compiled"
    reason = ""

    def __init__(self, design: Design) -> None:
        self.design = design
        self.n = design.n
        self.p = design.p
        self.standardised: Standardised = standardise(design)
        self.pack: CrossProducts = cross_products(design, self.standardised)
        # place[t] = (factor, first column, last column + 1) of term t
        place: list[Any] = [None] * len(design.terms)
        for f, factor in enumerate(self.pack.factors):
            for t, columns in zip(factor.terms, factor.slices, strict=True):
                place[t] = (f, columns.start, columns.stop)
        self._place: tuple[tuple[int, int, int], ...] = tuple(place)
        self._structures = tuple([term.covariance for term in design.terms])
        self._index = self._free_parameters()
        self.n_theta = max(self._index, default=-1) + 1  # free parameters
        self._k = [factor.k for factor in self.pack.factors]
        self._working: dict[bool, Any] = {}
        self._solving: dict[bool, Any] = {}  # evaluators that solve for given factors: any will do
        self._prepare()

    # ------------------------------------------------------------------ hooks
    def _prepare(self) -> None:
        """Everything that does not depend on theta."""

    def _new_evaluator(
        self, entries: Any, clips: Any, nu: float, reml: bool, constant: float, sigma: float
    ) -> Any:
        """A compiled Evaluator for these entries and clips (see `Evaluator`)."""
        raise NotImplementedError

    def _solve(self, evaluator: Any, lam: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
        """``beta~``, ``(X~'V^{-1}X~)^{-1}`` and ``u~`` per factor (m, k); fills the log determinants."""
        raise NotImplementedError

    def _conditional(self, evaluator: Any, lam: np.ndarray, factor: int) -> np.ndarray:
        """Diagonal blocks of ``Lambda~ M^{-1} Lambda~'`` for one factor, shape (m, k, k)."""
        raise NotImplementedError

    def _own_responses(self) -> None:
        """Replace, in a copy of the solver, all that an evaluator's `respond` writes to; one thread."""
        raise NotImplementedError

    def describe(self) -> str:
        """One line: which algorithm, on which sizes."""
        raise NotImplementedError

    # ------------------------------------------------------------------ parameters
    def nu(self, reml: bool) -> int:
        """Divisor of pwrss: n - p (REML) or n (ML)."""
        return self.n - self.p if reml else self.n

    def _free_parameters(self) -> tuple[int, ...]:
        """Free parameter of each term parameter."""
        index = self.design.theta_index
        if index is None:
            return tuple(range(sum([structure.n_theta for structure in self._structures])))
        return tuple([int(i) for i in index])

    @cached_property
    def linear(self) -> bool:
        """Whether every structure is linear in theta, so that the compiled path from theta exists."""
        return all(structure.entries is not None for structure in self._structures)

    @cached_property
    def theta_map(self) -> np.ndarray:
        """Constant matrix C with ``theta = C theta~``, shape (n_theta, n_theta)."""
        return self._linear_map(self.standardised.T)

    @cached_property
    def theta_map_inverse(self) -> np.ndarray:
        """C^{-1}, which takes theta to theta~."""
        return self._linear_map(self._T_inverse)

    def _linear_map(self, T: Sequence[np.ndarray | None]) -> np.ndarray:
        """Matrix of ``factor -> T factor`` acting on the parameters."""
        if not any(T_b is not None for T_b in T):
            return _identity(self.n_theta)
        out = np.zeros(self.n_theta * self.n_theta)
        places = _map_places(self._structures, self._index, self.n_theta)
        for T_b, (own, target, source) in zip(T, places, strict=True):
            if T_b is None:
                out[own] = 1.0
            else:
                out[target] = T_b.ravel()[source]
        return out.reshape(self.n_theta, self.n_theta)

    def evaluator_for(self, reml: bool, sigma: float | None = None) -> Any:
        """Compiled evaluator of the criterion as a function of theta~, or None if a structure is not linear.

        Its value is the criterion in the user's coordinates; `theta_map` takes theta~ to theta.

        Parameters
        ----------
        reml : bool
        sigma : float or None
            Residual standard deviation held fixed.
        """
        if not self.linear:
            return None
        entries, clips = _layout(self._structures, self._place, self._index)
        nu = self.nu(reml)
        fixed = 0.0 if sigma is None else sigma / self.standardised.y_scale
        evaluator = self._new_evaluator(
            entries, clips, float(nu), reml, self.standardised.constant(nu, reml), fixed
        )
        self._solving.setdefault(reml, evaluator)
        return evaluator

    @cached_property
    def evaluator(self) -> Any:
        """Compiled evaluator for REML, or None."""
        return self.evaluator_for(True)

    def start_internal(self, sigma: float | None = None) -> np.ndarray:
        """Starting values for theta~ from moments of the cross-products, shape (n_theta,).

        Parameters
        ----------
        sigma : float or None
            Residual standard deviation held fixed.
        """
        sd: list[list[float]] | None = None
        if sigma is not None:
            sigma /= self.standardised.y_scale
        if len(self.pack.factors) > 1:
            sd = self._crossed_start(sigma)
        elif sigma is None and self.pack.factors[0].precision is None:
            sd = self._quick_start()
        if sd is None:
            sd = self._columnwise_start(sigma)
        theta = [0.0] * self.n_theta
        at = 0
        for term, values in zip(self.design.terms, sd, strict=True):
            covariance = term.covariance
            if covariance.clip == "trace":
                values = [math.sqrt(sum([v * v for v in values]) / len(values))] * len(values)
            for parameter, row in _diagonal(covariance):
                theta[self._index[at + parameter]] = values[row]
            at += covariance.n_theta
        return np.array(theta)

    def _quick_start(self) -> list[list[float]]:
        """One grouping factor: standard deviations from the mean square within its levels.

        y~ and the columns of Z~ have mean square 1, so the mean square within the levels estimates
        1 - (variance of the factor), which is shared equally by its columns. Values are kept away from 0,
        where the criterion is stationary.
        """
        factor, n = self.pack.factors[0], self.n
        explained = kernels.level_sums(factor.A, factor.ZXy)[3]
        df = n - factor.m * factor.k
        within = (n - explained) / df if df > 0.1 * n and explained < n else 0.5
        variance = min(max(1.0 - within, 0.0), 0.9)
        least = 0.3 * math.sqrt(factor.m / max(n, 1))
        value = max(math.sqrt(variance / factor.k / (1.0 - variance)), least)
        return [[value] * term.k for term in self.design.terms]

    def _crossed_start(self, sigma: float | None) -> list[list[float]] | None:
        """Several factors with one scalar term each: variance components from the exact cell counts."""
        factors = self.pack.factors
        if any(factor.k > 1 or factor.precision is not None for factor in factors):
            return None
        if any(term.Z is not None for term in self.design.terms):
            return None
        shares = [[0.0] * len(factors) for _ in factors]
        for (f, g), pair in self.pack.pairs.items():
            shares[f][g], shares[g][f] = kernels.cell_shares(
                pair.indptr, pair.indices, pair.data, factors[f].A, factors[g].A
            )
        total = total_sum = 0.0
        sums = []
        for factor in factors:
            total, weights, total_sum, explained = kernels.level_sums(factor.A, factor.ZXy)
            sums.append((factor.m, explained, weights))
        rss = self.pack.yy
        components = scalar_components(self.n, rss, total_sum, total, sums, shares)
        if components is None or not components[-1] > 0.0:
            return None
        error = components[-1] if sigma is None else sigma**2
        out = []
        for f, _, _ in self._place:
            base = 1.5 / math.sqrt(max(total / factors[f].m, 1e-300))
            value = math.sqrt(max(components[f], 0.0) / error)
            out.append([min(max(value, SMALLEST * base), LARGEST * base)])
        return out

    def _columnwise_start(self, sigma: float | None) -> list[list[float]]:
        """Each term as if it were alone."""
        rss, df = float(self.pack.G[-1, -1]), self.n - self.p
        out = []
        for f, lo, hi in self._place:
            factor = self.pack.factors[f]
            A, c = factor.A[:, lo:hi, lo:hi], factor.Zy[:, lo:hi]
            sd = conditional_sd(factor.precision, A, c, sigma)
            if sd is None and len(self.pack.factors) == 1 and sigma is None:
                return self._quick_start()
            out.append((column_sd(A, c, rss, df, sigma)[0] if sd is None else sd).tolist())
        return out

    # ------------------------------------------------------------------ between the coordinates
    @cached_property
    def _T_inverse(self) -> list[np.ndarray | None]:
        """T^{-1} per term."""
        return [None if T is None else _lower_inverse(T) for T in self.standardised.T]

    def _lam(self, factors: Sequence[np.ndarray]) -> np.ndarray:
        """Relative factors of the compiled evaluator, shape (kk,), from the user's, one per term."""
        if len(factors) != len(self._place):
            raise SolverError(f"{len(factors)} relative factors for {len(self._place)} random-effects terms")
        if len(factors) == len(self._k):  # one term a factor
            parts: list[Any] = [None] * len(factors)
            for (f, _, _), factor, Ti in zip(self._place, factors, self._T_inverse, strict=True):
                parts[f] = (np.asarray(factor) if Ti is None else Ti.dot(factor)).ravel()
            return parts[0] if len(parts) == 1 else np.concatenate(parts)
        blocks = [np.zeros((k, k)) for k in self._k]
        for (f, lo, hi), factor, Ti in zip(self._place, factors, self._T_inverse, strict=True):
            blocks[f][lo:hi, lo:hi] = factor if Ti is None else Ti @ factor
        return np.concatenate([block.ravel() for block in blocks])

    def _dS(self, directions: Directions) -> np.ndarray:
        """Directions d Sigma~ of the compiled evaluator, shape (r, kk)."""
        out = []
        for direction in directions:
            blocks = [np.zeros((k, k)) for k in self._k]
            for (f, lo, hi), dS, Ti in zip(self._place, direction, self._T_inverse, strict=True):
                if dS is not None:
                    blocks[f][lo:hi, lo:hi] = dS if Ti is None else Ti @ dS @ Ti.T
            out.append(np.concatenate([block.ravel() for block in blocks]))
        return np.array(out).reshape(len(out), sum(k * k for k in self._k))

    def _by_term(self, values: np.ndarray, scale: float) -> tuple[np.ndarray, ...]:
        """Per term ``scale T^{-T} values T^{-1}`` for factor-wise k x k matrices `values`, shape (kk,)."""
        offsets = np.concatenate([[0], np.cumsum([k * k for k in self._k])])
        out = []
        for (f, lo, hi), Ti in zip(self._place, self._T_inverse, strict=True):
            k = self._k[f]
            block = values[offsets[f] : offsets[f + 1]].reshape(k, k)[lo:hi, lo:hi]
            out.append(scale * (block if Ti is None else Ti.T @ block @ Ti))
        return tuple(out)

    def _working_evaluator(self, reml: bool) -> Any:
        """An evaluator for given factors: unstructured, so that it takes any directions."""
        if reml not in self._working:
            entries, clips, t = [], [], 0
            for f, k in enumerate(self._k):
                for column in range(k):
                    for row in range(column, k):
                        entries.append((f, row, column, t))
                        t += 1
                clips.append((f, 0, k, 0))
            self._working[reml] = self._new_evaluator(entries, clips, float(self.nu(reml)), reml, 0.0, 0.0)
        return self._working[reml]

    # ------------------------------------------------------------------ the contract
    def components(
        self,
        factors: Sequence[np.ndarray],
        order: int = 0,
        directions: Directions | None = None,
        reml: bool = True,
    ) -> Components:
        """Parts of the criterion (order 0), of its gradient (1) and of the average information (2).

        Raises
        ------
        SolverError
            The penalised cross-products are not positive definite (a factor holds NaN or infinity).
        """
        s2 = self.standardised.y_scale**2
        evaluator = self._working_evaluator(reml)
        dS = self._dS(directions) if order >= 2 and directions else None
        try:
            out = evaluator.components_at(self._lam(factors), dS, min(order, 1) if dS is None else 2)
        except FloatingPointError as error:
            raise not_definite() from error
        return Components(
            out["logdet_L2"],
            out["logdet_RX2"] - 2.0 * self.standardised.logdet_T_X,
            s2 * out["pwrss"],
            self._by_term(out["T"], 1.0) if order >= 1 else (),
            self._by_term(out["S"], s2) if order >= 1 else (),
            np.zeros((0, 0)) if dS is None else s2 * out["wpw"],
        )

    def solution(self, factors: Sequence[np.ndarray], reml: bool = True) -> Solution:
        """Estimates of beta and predictions of the random effects."""
        std = self.standardised
        factors = [np.asarray(factor, dtype=np.float64) for factor in factors]
        evaluator = self._solving.get(reml) or self._working_evaluator(reml)
        try:
            beta, vcov, modes = self._solve(evaluator, self._lam(factors))
        except FloatingPointError as error:
            raise not_definite() from error
        s = std.y_scale
        u, b = [], []
        for (f, lo, hi), factor in zip(self._place, factors, strict=True):
            u_t = s * (modes[f] if hi - lo == self._k[f] else modes[f][:, lo:hi])
            u.append(u_t)
            b.append(u_t.dot(factor.T))
        return Solution(
            beta=std.beta0 + s * std.T_X.dot(beta),
            vcov_unscaled=std.T_X.dot(vcov).dot(std.T_X.T),
            u=tuple(u),
            b=tuple(b),
            logdet_L2=evaluator.logdet_L2,
            logdet_RX2=evaluator.logdet_RX2 - 2.0 * std.logdet_T_X,
            pwrss=s * s * evaluator.pwrss,
        )

    def conditional_covariance(self, factors: Sequence[np.ndarray], term: int) -> np.ndarray:
        """Diagonal blocks of ``Lambda M^{-1} Lambda'`` for one term, shape (m, k, k)."""
        f, lo, hi = self._place[term]
        try:
            blocks = self._conditional(self._working_evaluator(False), self._lam(factors), f)
        except FloatingPointError as error:
            raise not_definite() from error
        blocks = blocks[:, lo:hi, lo:hi]
        T = self.standardised.T[term]
        return blocks if T is None else T @ blocks @ T.T


def _entries(covariance: Covariance) -> list[list[int]]:
    """(row, column, parameter) of a structure, which must be linear in theta."""
    if covariance.entries is None:
        raise SolverError(f"the covariance structure {covariance.name!r} is not linear in theta")
    return covariance.entries.tolist()


@lru_cache(maxsize=64)
def _identity(size: int) -> np.ndarray:
    """Identity matrix, read-only: the map of the parameters where no term was rescaled."""
    out = np.eye(size)
    out.setflags(write=False)
    return out


@lru_cache(maxsize=128)
def _map_places(
    structures: tuple[Covariance, ...], index: tuple[int, ...], n_theta: int
) -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray], ...]:
    """Where ``factor -> T factor`` writes the elements of T: per structure (own, target, source).

    The parameter at (row, column) of the factor receives ``T[row, row_j]`` times the parameter j at
    (row_j, column). `target` are such places in the map of the free parameters and `source` in T, both as
    flat positions; `own` are the places on the diagonal of the map.
    """
    out = []
    at = 0
    for covariance in structures:
        entries = _entries(covariance)
        first: dict[int, tuple[int, int]] = {}  # first place of each parameter
        for row, column, parameter in entries:
            first.setdefault(parameter, (row, column))
        moves: dict[int, int] = {}
        own = []
        for parameter, (row, column) in first.items():
            free = index[at + parameter]
            own.append(free * n_theta + free)
            for row_j, column_j, j in entries:
                if column_j == column:
                    moves[free * n_theta + index[at + j]] = row * covariance.k + row_j
        at += covariance.n_theta
        places = np.array(own, dtype=np.intp)
        target, source = np.array([*moves.items()], dtype=np.intp).reshape(-1, 2).T
        out.append((places, target, source))
    return tuple(out)


@lru_cache(maxsize=128)
def _diagonal(covariance: Covariance) -> tuple[tuple[int, int], ...]:
    """The parameters on the diagonal of a factor, as (parameter, row)."""
    assert covariance.entries is not None
    return tuple((t, row) for row, column, t in covariance.entries.tolist() if row == column)


@lru_cache(maxsize=128)
def _layout(
    structures: tuple[Covariance, ...], place: tuple[tuple[int, int, int], ...], index: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """The evaluator's rows (factor, row, column, theta) and (factor, from, to, kind): no data in them."""
    entries, clips = [], []
    at = 0
    for covariance, (f, lo, hi) in zip(structures, place, strict=True):
        for row, column, parameter in _entries(covariance):
            entries.append((f, lo + row, lo + column, index[at + parameter]))
        clips.append((f, lo, hi, _CLIP[covariance.clip]))
        at += covariance.n_theta
    return np.array(entries, dtype=np.intc).reshape(-1, 4), np.array(clips, dtype=np.intc).reshape(-1, 4)


def _lower_inverse(T: np.ndarray) -> np.ndarray:
    """Inverse of a small lower-triangular matrix by forward substitution."""
    k = T.shape[0]
    rows = T.tolist()
    out = [[0.0] * k for _ in range(k)]
    for j in range(k):
        out[j][j] = 1.0 / rows[j][j]
        for i in range(j + 1, k):
            out[i][j] = -sum([rows[i][r] * out[r][j] for r in range(j, i)]) / rows[i][i]
    return np.array(out)
