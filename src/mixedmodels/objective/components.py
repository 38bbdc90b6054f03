"""The likelihood as a function of the variance components themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from math import log, pi
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import OptionError
from mixedmodels.objective.base import check_kind
from mixedmodels.objective.parameters import lower_factor

if TYPE_CHECKING:
    from mixedmodels.design import RandomTerm
    from mixedmodels.objective.component_space import ComponentSpace
    from mixedmodels.objective.lmm import LMMObjective

__all__ = ["ComponentsPoint", "component_directions", "with_error"]

_RESIDUAL = "Residual"


class ComponentsPoint:
    r"""Log-likelihood and its derivatives at given variance components, beta profiled out.

    The parameters kappa are the free entries of each Sigma_b = Var(b_level), lower triangle column by column
    (the variances for "diag", the one variance for "homdiag"), then sigma^2. With
    :math:`V = \sum_i \kappa_i V_i` (linear, the last V_i the error's), P the projection for V:

    .. math::
        \text{score}_i &= -\tfrac12 [\mathrm{tr}(K V_i) - y'PV_iPy], \\
        \text{average}_{ij} &= \tfrac12 y'PV_iPV_jPy, \qquad
        \text{expected}_{ij} = \tfrac12 \mathrm{tr}(PV_iPV_j), \\
        \text{observed}_{ij} &= y'PV_iPV_jPy - \tfrac12 \mathrm{tr}(PV_iPV_j),

    with V^{-1} for P in the traces of ML.

    Parameters
    ----------
    objective : LMMObjective
    variances : mapping or sequence
        See `LMMObjective.at_components`.

    Attributes
    ----------
    names : tuple of str
    values : ndarray
        kappa.
    loglik : float
        Log-likelihood, restricted if the objective is.
    score : ndarray
    """

    def __init__(self, objective: LMMObjective, variances: Mapping[str, Any] | Sequence[Any]) -> None:
        self._objective = objective
        terms = objective.design.terms
        given = _in_order(terms, variances)
        sigma2 = _number(given[-1])
        if not 0.0 < sigma2 < np.inf:
            raise OptionError(f"the residual variance must be positive and finite, got {given[-1]!r}")
        Sigmas = [_as_sigma(term, value) for term, value in zip(terms, given[:-1], strict=True)]
        groups = _tied(objective._map.index, objective._map.shared)
        self._factors = [lower_factor(Sigma / sigma2) for Sigma in Sigmas]
        self.sigma2 = sigma2
        names: list[str] = []
        values: list[float] = []
        self._directions: list[list[np.ndarray | None]] = []
        for group in groups:
            first = terms[group[0]]
            for b in group[1:]:
                if not np.allclose(Sigmas[b], Sigmas[group[0]], rtol=1e-10, atol=0.0):
                    raise OptionError(
                        f"terms {first.group!r} and {terms[b].group!r} share their parameters; "
                        "give both the same"
                    )
            for name, E, value in _basis(first, Sigmas[group[0]]):
                names.append(f"{first.group}.{name}")
                values.append(value)
                self._directions.append([E if b in group else None for b in range(len(terms))])
        self.names = (*names, _RESIDUAL)
        self.values = np.array([*values, sigma2])
        self._compute(objective.reml, False)

    @classmethod
    def _at(cls, space: ComponentSpace, kappa: np.ndarray, forms: bool) -> ComponentsPoint:
        """The point kappa of a space, known to be possible; with `forms` those of the average information."""
        out = cls.__new__(cls)
        out._objective = space.objective
        out.sigma2 = float(kappa[-1])
        out._factors = [lower_factor(Sigma / out.sigma2) for Sigma in space.sigmas(kappa)]
        out._directions = space.directions
        out.names, out.values = space.names, kappa
        out._compute(space.reml, forms)
        return out

    def _compute(self, reml: bool, forms: bool) -> None:
        self._reml = reml
        self._nu = self._objective.solver.nu(reml)
        # The error's matrix is V - V_G with G the relative Sigmas: one more direction gives its products.
        self._relative: list[np.ndarray | None] = [factor @ factor.T for factor in self._factors]
        directions = [*self._directions, self._relative] if forms else None
        self._parts = self._objective.solver.components(self._factors, 2 if forms else 1, directions, reml)
        self._T_G = self._pair(self._parts.T, self._relative)
        self._q_G = self._pair(self._parts.S, self._relative)

    @property
    def theta(self) -> np.ndarray:
        """The relative parameters of these variances, shape (n_theta,)."""
        return self._objective.theta_of(self._factors)

    @staticmethod
    def _pair(matrices: Any, direction: list[np.ndarray | None]) -> float:
        return sum(float(np.sum(A * D)) for A, D in zip(matrices, direction, strict=True) if D is not None)

    @property
    def loglik(self) -> float:
        """(Restricted) log-likelihood."""
        objective, parts = self._objective, self._parts
        logdets = parts.logdet_L2 - objective._sum_log_w + (parts.logdet_RX2 if self._reml else 0.0)
        return -0.5 * (logdets + self._nu * log(2.0 * pi * self.sigma2) + parts.pwrss / self.sigma2)

    @property
    def score(self) -> np.ndarray:
        """Derivatives of the log-likelihood, one per component."""
        parts, s2 = self._parts, self.sigma2
        traces = [self._pair(parts.T, D) for D in self._directions]
        forms = [self._pair(parts.S, D) for D in self._directions]
        traces.append(self._nu - self._T_G)
        forms.append(parts.pwrss - self._q_G)
        return -0.5 * (np.array(traces) / s2 - np.array(forms) / s2**2)

    @cached_property
    def _forms(self) -> np.ndarray:
        """``y'PV_iPV_jPy``, relative scale."""
        directions = [*self._directions, self._relative]
        parts = self._parts
        if parts.wpw.shape != (len(directions),) * 2:
            parts = self._objective.solver.components(self._factors, 2, directions, self._reml)
        q = np.array([self._pair(parts.S, D) for D in directions])
        return with_error(np.asarray(parts.wpw), q, parts.pwrss)

    @cached_property
    def _traces(self) -> np.ndarray:
        """``tr(PV_iPV_j)``, relative scale."""
        directions = [*self._directions, self._relative]
        products, traces = self._objective.solver.trace_products(self._factors, directions, self._reml)
        return with_error(products, traces, self._nu)

    def information(self, kind: str = "average") -> np.ndarray:
        """Information of the log-likelihood; its inverse estimates Var(kappa-hat).

        Parameters
        ----------
        kind : {"average", "observed", "expected"}

        Raises
        ------
        OptionError
            Unknown kind.
        SolverError
            "observed" or "expected" need all of K and the model is too large for it.
        """
        check_kind(kind)
        s2 = self.sigma2
        if kind == "average":
            return 0.5 * self._forms / s2**3
        if kind == "expected":
            return 0.5 * self._traces / s2**2
        return self._forms / s2**3 - 0.5 * self._traces / s2**2

    def __repr__(self) -> str:
        rows = "\n".join(
            f"  {name}: {value:.6g}" for name, value in zip(self.names, self.values, strict=True)
        )
        return f"log-likelihood {self.loglik:.6f} at\n{rows}"


def with_error(products: np.ndarray, single: np.ndarray, total: Any) -> np.ndarray:
    """Replace the last direction G by the error, V - G, given the products with V: `single` and `total`.

    The products may be numbers, shape (r, r), or matrices, shape (r, r, p, p) with [j, i] the transpose of
    [i, j].
    """
    out = products.copy()
    out[-1, :-1] = single[:-1] - products[-1, :-1]
    out[:-1, -1] = single[:-1] - products[:-1, -1]
    out[-1, -1] = total - 2.0 * single[-1] + products[-1, -1]
    return out


def component_directions(
    objective: LMMObjective,
) -> tuple[tuple[str, ...], list[list[np.ndarray | None]]]:
    """Names of the free entries of the Sigma_b and the derivatives of V's random part in them.

    Returns
    -------
    names : tuple of str, length r
    directions : list over r of lists over terms
        ``d Sigma_b / d entry``, (k, k), or None where the entry does not occur.

    Raises
    ------
    OptionError
        Terms share some of their parameters but not all.
    """
    terms = objective.design.terms
    names: list[str] = []
    directions: list[list[np.ndarray | None]] = []
    for group in _tied(objective._map.index, objective._map.shared):
        first = terms[group[0]]
        for name, E, _ in _basis(first, np.zeros((first.k, first.k))):
            names.append(f"{first.group}.{name}")
            directions.append([E if b in group else None for b in range(len(terms))])
    return tuple(names), directions


def _in_order(terms: Sequence[RandomTerm], variances: Mapping[str, Any] | Sequence[Any]) -> list[Any]:
    """Values in the order of the terms, the residual variance last."""
    groups = [term.group for term in terms]
    if not isinstance(variances, Mapping):
        given = list(variances)
        if len(given) != len(terms) + 1:
            raise OptionError(
                f"{len(given)} variances given; give one per term ({', '.join(groups)}) and sigma^2"
            )
        return given
    if len(set(groups)) < len(groups):
        raise OptionError(
            "two terms have the same grouping factor, so names do not tell them apart; "
            "give a list of Sigmas in the order of the terms, then sigma^2"
        )
    wanted = [*groups, _RESIDUAL]
    missing = [name for name in wanted if name not in variances]
    extra = [str(name) for name in variances if name not in wanted]
    if missing or extra:
        problem = f"missing: {', '.join(missing)}" if missing else f"unknown: {', '.join(extra)}"
        raise OptionError(f"variance components {problem}; give {', '.join(wanted)}")
    return [variances[name] for name in wanted]


def _number(value: Any) -> float:
    array = np.asarray(value, dtype=np.float64)
    return float(array.reshape(-1)[0]) if array.size == 1 else float("nan")


def _as_sigma(term: RandomTerm, value: Any) -> np.ndarray:
    """Sigma of a term as a (k, k) matrix that lies in the structure."""
    k, what = term.k, f"the covariance of {term.group!r}"
    array = np.asarray(value, dtype=np.float64)
    if array.size == 1 and (k == 1 or term.covariance.clip == "trace"):
        array = np.eye(k) * float(array.reshape(-1)[0])
    elif array.shape == (k,) and term.covariance.clip != "block":
        array = np.diag(array)
    if array.shape != (k, k):
        raise OptionError(
            f"{what} has shape {array.shape}, expected {(k, k)} for columns {', '.join(term.names)}"
        )
    scale = float(np.max(np.abs(array), initial=0.0))
    if not np.all(np.isfinite(array)) or np.max(np.abs(array - array.T)) > 1e-10 * scale:
        raise OptionError(f"{what} must be finite and symmetric")
    off = array - np.diag(np.diagonal(array))
    if term.covariance.clip != "block" and np.any(off != 0.0):
        raise OptionError(f"{what} must be diagonal for structure {term.covariance.name!r}")
    if term.covariance.clip == "trace" and np.ptp(np.diagonal(array)) > 1e-10 * scale:
        raise OptionError(f"{what} must have equal variances for structure {term.covariance.name!r}")
    if np.linalg.eigvalsh(array)[0] < -1e-10 * scale:
        raise OptionError(f"{what} is not positive semi-definite; give a covariance matrix")
    return 0.5 * (array + array.T)


def _basis(term: RandomTerm, Sigma: np.ndarray) -> list[tuple[str, np.ndarray, float]]:
    """Free entries of Sigma: name, d Sigma / d entry, value."""
    k, names = term.k, term.names
    if term.covariance.clip == "trace":
        return [(names[0] if k == 1 else "common", np.eye(k), float(Sigma[0, 0]))]
    out = []
    for j in range(k):
        for i in range(j, k if term.covariance.clip == "block" else j + 1):
            E = np.zeros((k, k))
            E[i, j] = E[j, i] = 1.0
            out.append((names[j] if i == j else f"{names[i]}.{names[j]}", E, float(Sigma[i, j])))
    return out


def _tied(index: Sequence[np.ndarray], shared: bool) -> list[list[int]]:
    """Terms grouped by identical parameters; parameters shared in part only are refused."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for b, own in enumerate(index):
        groups.setdefault(tuple(own.tolist()), []).append(b)
    if shared:
        counts = [set(key) for key in groups]
        if sum(map(len, counts)) > len(set().union(*counts)):
            raise OptionError("variance components exist only where terms share all their parameters or none")
    return list(groups.values())
