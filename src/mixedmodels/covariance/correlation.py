"""Correlation matrices as smooth functions of a few parameters: the base of the patterned structures."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mixedmodels.errors import OptionError, SolverError

__all__ = ["Correlation", "Jet", "NaturalBlock", "cholesky_jet", "product_jet", "semidefinite_root"]


class Jet(NamedTuple):
    """A matrix function with derivatives: value (k, k), first (q, k, k), second (q, q, k, k) or None."""

    value: np.ndarray
    first: np.ndarray | None = None
    second: np.ndarray | None = None


class NaturalBlock(NamedTuple):
    """Names, values, Jacobian (r, n_psi) and kinds of the natural parameters of a correlation."""

    names: tuple[str, ...]
    values: np.ndarray
    jacobian: np.ndarray
    kinds: tuple[str, ...]


class Correlation:
    """A k x k correlation matrix R(psi); coordinates psi are smooth up to the ends of the parameter space.

    Instances are immutable and hashable. Subclasses write `matrix` or `root` (or both) and the natural
    parameters.

    Attributes
    ----------
    k, n_psi : int
    start, lower, upper : ndarray, shape (n_psi,)
        psi of the start (R = I where the structure holds it) and bounds.
    mirrored : ndarray of bool, shape (n_psi,)
        Whether R is symmetric about the bounds of a parameter, so that a step across one may be reflected.
    names : tuple of str, length n_psi
        Names of psi.
    """

    k: int
    n_psi: int
    start: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    mirrored: np.ndarray
    names: tuple[str, ...] = ()

    def _bounds(self, start: object, lower: object, upper: object, mirrored: object) -> None:
        """Set start, bounds and mirrors, broadcast to n_psi and read-only."""
        for name, given, kind in (
            ("start", start, np.float64),
            ("lower", lower, np.float64),
            ("upper", upper, np.float64),
            ("mirrored", mirrored, np.bool_),
        ):
            array = np.broadcast_to(np.asarray(given, dtype=kind), (self.n_psi,)).copy()
            array.setflags(write=False)
            setattr(self, name, array)

    def key(self) -> tuple:
        """What tells instances apart, hashable."""
        return (type(self).__name__, self.k)

    def matrix(self, psi: np.ndarray, order: int = 0) -> Jet:
        """R(psi), shape (k, k), with derivatives up to `order` (0, 1 or 2)."""
        return product_jet(self.root(psi, order), order)

    def root(self, psi: np.ndarray, order: int = 0) -> Jet:
        """Lower-triangular C(psi) with ``C C' = R``, shape (k, k), with derivatives up to `order`."""
        jet = self.matrix(psi, order)
        return Jet(semidefinite_root(jet.value)) if order == 0 else cholesky_jet(jet, order)

    @property
    def positions(self) -> np.ndarray | None:
        """Positions of the columns, shape (k, dimensions), where the correlation is a function of them."""
        return None

    def at_positions(self, positions: np.ndarray) -> Correlation:
        """The same correlation function at other positions, (r, dimensions), in one dimension increasing.

        Raises
        ------
        OptionError
            The correlation is not a function of positions, or not of such.
        """
        raise OptionError(f"{type(self).__name__} does not depend on positions")

    def natural(self, psi: np.ndarray) -> NaturalBlock:
        """Natural parameters at psi."""
        raise NotImplementedError

    def natural_curvature(self, psi: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """``sum_r weights_r d2 value_r`` of the natural parameters, shape (n_psi, n_psi)."""
        raise NotImplementedError

    def from_natural(self, values: np.ndarray) -> np.ndarray:
        """psi of natural parameters (inverse of `natural`)."""
        raise NotImplementedError

    def near(self, R: np.ndarray) -> np.ndarray:
        """psi of a correlation matrix of the structure, or of one close to the given one."""
        raise NotImplementedError


def product_jet(C: Jet, order: int) -> Jet:
    """``C C'`` with derivatives."""
    value = C.value @ C.value.T
    if order == 0:
        return Jet(value)
    assert C.first is not None
    half = C.first @ C.value.T
    first = half + half.transpose(0, 2, 1)
    if order == 1:
        return Jet(value, first)
    assert C.second is not None
    cross = C.first[:, None] @ C.first[None].transpose(0, 1, 3, 2)
    half2 = C.second @ C.value.T + cross
    return Jet(value, first, half2 + half2.transpose(0, 1, 3, 2))


def semidefinite_root(R: np.ndarray) -> np.ndarray:
    """Lower-triangular C with ``C C' = R`` for a positive semi-definite matrix, singular ones included."""
    try:
        return np.linalg.cholesky(R)
    except np.linalg.LinAlgError:
        pass
    values, vectors = np.linalg.eigh(R)
    if values[0] < -1e-8 * values[-1]:
        raise SolverError("a covariance matrix of the random effects is not positive semi-definite")
    half = vectors * np.sqrt(np.maximum(values, 0.0))
    L = np.asarray(np.linalg.qr(half.T, mode="r")).T
    return np.tril(L * np.where(np.diagonal(L) < 0.0, -1.0, 1.0))


def cholesky_jet(R: Jet, order: int) -> Jet:
    r"""Cholesky factor C of a positive definite matrix function with derivatives.

    With :math:`\Phi` the lower triangle with halved diagonal: :math:`C_i = C\,\Phi(C^{-1} R_i C^{-T})` and
    :math:`C_{ij} = C\,\Phi(C^{-1}(R_{ij} - C_i C_j' - C_j C_i')C^{-T})`. At a singular matrix the factor has
    no derivative; the limit from ``R + 1e-12 I`` stands for it.
    """
    from scipy.linalg import solve_triangular

    k = R.value.shape[0]
    value = semidefinite_root(R.value)
    safe = value
    if np.min(np.diagonal(value)) <= 1e-6 * np.max(np.diagonal(value)):
        safe = np.linalg.cholesky(R.value + 1e-12 * np.trace(R.value) / k * np.eye(k))
    inverse = solve_triangular(safe, np.eye(k), lower=True)

    def phi(A: np.ndarray) -> np.ndarray:
        out = np.tril(inverse @ A @ inverse.T)
        diagonal = np.arange(k)
        out[..., diagonal, diagonal] *= 0.5
        return safe @ out

    assert R.first is not None
    first = phi(R.first)
    if order == 1:
        return Jet(value, first)
    assert R.second is not None
    cross = first[:, None] @ first[None].transpose(0, 1, 3, 2)
    return Jet(value, first, phi(R.second - cross - cross.transpose(0, 1, 3, 2)))
