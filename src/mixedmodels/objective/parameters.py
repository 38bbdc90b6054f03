"""From the free parameters of a design to the factors of its terms, and derivatives along the way."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

import numpy as np

from mixedmodels.errors import OptionError
from mixedmodels.optimize.cone_factors import plain_bounds

if TYPE_CHECKING:
    from mixedmodels.covariance.base import Covariance
    from mixedmodels.design import Design, GeneralisedDesign

__all__ = ["ParameterMap", "gradient_of", "lower_factor", "parameter_map", "positive_part"]


class ParameterMap:
    """Which free parameter each parameter of each term is, and what follows from it.

    It depends on the structures and names of the terms only, not on the data, and never changes.

    Parameters
    ----------
    terms : tuple of (Covariance, str, tuple of str)
        Structure, grouping factor and column names of each term.
    theta_index : tuple of int, or None
        Free parameter of each term parameter; None means all different.

    Attributes
    ----------
    n_theta : int
        Free parameters.
    names : tuple of str
        ``group.column`` or ``group.row.column``; a shared parameter has the name of its first place.
    lower, upper : ndarray, shape (n_theta,), read-only
    mirrored : ndarray of bool, shape (n_theta,), read-only
        Whether the bounds of a parameter are mirrors (`Covariance.mirrored`).
    curved : tuple of bool
        For each term, whether its structure is not linear in theta.
    index : tuple of ndarray of intp
        For each term, the free parameter behind each of its own parameters.
    """

    def __init__(
        self, terms: tuple[tuple[Covariance, str, tuple[str, ...]], ...], theta_index: tuple[int, ...] | None
    ) -> None:
        structures = [structure for structure, _, _ in terms]
        sizes = [structure.n_theta for structure in structures]
        flat = np.arange(sum(sizes)) if theta_index is None else np.array(theta_index, dtype=np.intp)
        if flat.shape != (sum(sizes),) or (
            flat.size and (flat.min() < 0 or len(set(flat.tolist())) <= flat.max())
        ):
            raise OptionError(
                f"theta_index must give one of the numbers 0, 1, ... without gaps for each of the "
                f"{sum(sizes)} parameters, got {flat.tolist()}"
            )
        self._structures = structures
        self._groups = tuple(group for _, group, _ in terms)
        self._columns = tuple(names for _, _, names in terms)
        self.shared = theta_index is not None
        self.curved = tuple([structure.clip == "curved" for structure in structures])
        self.any_curved = any(self.curved)
        self.n_theta = int(flat.max()) + 1 if flat.size else 0
        self.index: tuple[np.ndarray, ...] = tuple(np.split(flat, np.cumsum(sizes)[:-1])) if sizes else ()
        self.lower = np.full(self.n_theta, -np.inf)
        self.upper = np.full(self.n_theta, np.inf)
        for structure, index in zip(structures, self.index, strict=True):
            np.maximum.at(self.lower, index, structure.lower)
            np.minimum.at(self.upper, index, structure.upper)
        self.mirrored = np.zeros(self.n_theta, dtype=bool)
        for structure, index in zip(structures, self.index, strict=True):
            self.mirrored[index] |= structure.mirrored
        for array in (self.lower, self.upper, self.mirrored):
            array.setflags(write=False)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the free parameters."""
        names = [""] * self.n_theta
        places = zip(self._structures, self._groups, self._columns, self.index, strict=True)
        for structure, group, columns, index in places:
            for t, name in zip(index.tolist(), structure.parameter_names(columns), strict=True):
                names[t] = names[t] or f"{group}.{name}"
        return tuple(names)

    @cached_property
    def tied(self) -> tuple[tuple[int, ...], ...]:
        """For each term the terms with the same parameters, itself included."""
        keys = [tuple(own.tolist()) for own in self.index]
        return tuple(tuple(c for c, other in enumerate(keys) if other == key) for key in keys)

    @cached_property
    def entries(self) -> np.ndarray | None:
        """Rows (term, row, column, free parameter), or None if a structure is not linear."""
        rows = []
        for b, (structure, index) in enumerate(zip(self._structures, self.index, strict=True)):
            if structure.entries is None:
                return None
            rows += [(b, i, j, int(index[t])) for i, j, t in structure.entries.tolist()]
        return np.array(rows, dtype=np.intp).reshape(-1, 4)

    @cached_property
    def linear_entries(self) -> np.ndarray:
        """As `entries`, of the terms whose structures are linear."""
        rows = [
            (b, i, j, int(index[t]))
            for b, (structure, index) in enumerate(zip(self._structures, self.index, strict=True))
            if structure.entries is not None
            for i, j, t in structure.entries.tolist()
        ]
        return np.array(rows, dtype=np.intp).reshape(-1, 4)

    @cached_property
    def plain_bounds(self) -> bool:
        """Whether the bounds are those of the cone (see `mixedmodels.optimize.cone_factors.plain_bounds`)."""
        return plain_bounds(self)

    def check(self, theta: np.ndarray) -> np.ndarray:
        """theta as a float array of the right length."""
        theta = np.asarray(theta, dtype=np.float64)
        if theta.shape != (self.n_theta,):
            raise OptionError(
                f"theta has shape {theta.shape}, the model has {self.n_theta} parameters: "
                f"{', '.join(self.names)}"
            )
        return theta

    def factors(self, theta: np.ndarray) -> list[np.ndarray]:
        """Relative factors, one (k, k) per term."""
        return [s.factor(theta[i]) for s, i in zip(self._structures, self.index, strict=True)]

    def theta_of(self, factors: Sequence[np.ndarray]) -> np.ndarray:
        """Free parameters of given factors; a shared parameter is the mean over its places."""
        total, count = np.zeros(self.n_theta), np.zeros(self.n_theta)
        for structure, index, factor in zip(self._structures, self.index, factors, strict=True):
            np.add.at(total, index, structure.theta_of(factor))
            np.add.at(count, index, 1.0)
        return total / np.maximum(count, 1.0)

    def derivatives(self, theta: np.ndarray) -> list[list[tuple[int, np.ndarray]]]:
        """For each free parameter the pairs (term, d factor / d parameter) in which it occurs."""
        out: list[list[tuple[int, np.ndarray]]] = [[] for _ in range(self.n_theta)]
        for b, (structure, index) in enumerate(zip(self._structures, self.index, strict=True)):
            parts = structure.factor_derivatives(theta[index])
            for t in np.unique(index).tolist():
                out[t].append((b, parts[index == t].sum(axis=0)))
        return out

    def directions(self, theta: np.ndarray) -> list[list[np.ndarray | None]]:
        """d Sigma_b / d theta_t: per free parameter a list over terms (None where it does not occur)."""
        terms = len(self._structures)
        out: list[list[np.ndarray | None]] = [[None] * terms for _ in range(self.n_theta)]
        for b, (structure, index) in enumerate(zip(self._structures, self.index, strict=True)):
            for t, D in zip(index.tolist(), structure.sigma_derivatives(theta[index]), strict=True):
                known = out[t][b]
                out[t][b] = D if known is None else known + D
        return out

    def curvature(
        self, matrices: Sequence[np.ndarray], theta: np.ndarray, size: np.ndarray | None = None
    ) -> np.ndarray:
        """``sum_b tr(M_b d2 Sigma_b)``, the part of the Hessian from the second derivatives of Sigma.

        With `size`, squares of the units of theta, the positive part of the blocks of terms that are not
        linear; those of linear terms are positive semi-definite if M_b is.
        """
        out = np.zeros((self.n_theta, self.n_theta))
        places = zip(self._structures, self.index, matrices, self.curved, strict=True)
        for structure, index, M, curved in places:
            part = structure.sigma_curvature(theta[index], M)
            if curved and size is not None:
                unit = np.sqrt(np.maximum(size[index], 0.0) + np.abs(np.diagonal(part)))
                scale = np.divide(1.0, unit, out=np.zeros_like(unit), where=unit > 0.0)
                values, vectors = np.linalg.eigh(part * scale * scale[:, None])
                half = (unit[:, None] * vectors) * np.sqrt(np.maximum(values, 0.0))
                part = half @ half.T
            np.add.at(out, (index[:, None], index), part)
        return out

    def orthonormal(self, design: Design) -> list[np.ndarray]:
        """T_b per term, the change to orthonormal columns that the structure allows (`Covariance.transform`).

        Terms that share parameters keep their columns: what suits one of them would not suit the other.
        """
        out = []
        places = np.bincount(np.concatenate([np.unique(index) for index in self.index]))
        for term, index in zip(design.terms, self.index, strict=True):
            if term.Z is None or places[index].max() > 1:
                out.append(np.eye(term.k))
                continue
            weighted = term.Z if design.weights is None else term.Z * design.weights[:, None]
            out.append(term.covariance.transform(weighted.T @ term.Z / design.n, None))
        return out

    def positive_parts(self, matrices: Sequence[np.ndarray], T: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Positive part of M_b on the feasible cone of each term.

        It is taken in the coordinates of orthonormal columns, ``T^{-T} (T'MT)^+ T^{-1}``, so that
        Newton's steps do not depend on the units or the origin of a covariate.
        """
        out = []
        for M, T_b, structure in zip(matrices, T, self._structures, strict=True):
            if structure.clip == "curved":  # no cone: see `curvature`
                out.append(M)
                continue
            inverse = np.linalg.inv(T_b)
            out.append(inverse.T @ positive_part(T_b.T @ M @ T_b, structure.clip) @ inverse)
        return out


def parameter_map(design: Design | GeneralisedDesign) -> ParameterMap:
    """The parameter map of a design; designs with equal terms share one."""
    index = design.theta_index
    return _parameter_map(
        tuple((term.covariance, term.group, term.names) for term in design.terms),
        None if index is None else tuple(np.asarray(index).tolist()),
    )


@lru_cache(maxsize=128)
def _parameter_map(
    terms: tuple[tuple[Covariance, str, tuple[str, ...]], ...], theta_index: tuple[int, ...] | None
) -> ParameterMap:
    return ParameterMap(terms, theta_index)


def gradient_of(matrices: Sequence[np.ndarray], directions: list[list[np.ndarray | None]]) -> np.ndarray:
    """``sum_b tr(M_b dSigma_b)`` for each parameter."""
    return np.array(
        [
            sum(float(np.sum(M * D)) for M, D in zip(matrices, row, strict=True) if D is not None)
            for row in directions
        ]
    )


def positive_part(M: np.ndarray, clip: str) -> np.ndarray:
    """Positive part of a symmetric matrix on a cone, "block", "diagonal" or "trace" (`Covariance.clip`)."""
    if clip == "diagonal":
        return np.diag(np.maximum(np.diagonal(M), 0.0))
    if clip == "trace":
        k = M.shape[0]
        return np.eye(k) * max(float(np.trace(M)) / k, 0.0)
    values, vectors = np.linalg.eigh(M)
    return (vectors * np.maximum(values, 0.0)) @ vectors.T


def lower_factor(Sigma: np.ndarray) -> np.ndarray:
    """Lower-triangular F with F F' = Sigma for a positive semi-definite matrix, singular ones included."""
    values, vectors = np.linalg.eigh(Sigma)
    half = vectors * np.sqrt(np.maximum(values, 0.0))
    L = np.asarray(np.linalg.qr(half.T, mode="r")).T
    return np.tril(L * np.where(np.diagonal(L) < 0.0, -1.0, 1.0))
