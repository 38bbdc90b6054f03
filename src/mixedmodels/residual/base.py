r"""The contract of a residual structure: ``Var(e) = sigma^2 R(phi)``, in three steps.

1. A `Structure` is what the user writes (``"ar1(time | subject) * varident(sex)"`` or objects): no data.
2. `Structure.bind` meets the data and becomes a `BoundResidual`: parameters phi with names, start, bounds.
3. `BoundResidual.at` gives a `ResidualPoint`: R at one phi, as operations on arrays of n rows.

Everything an engine needs is expressed through a *whitening* W = W(phi) with ``W R W' = I``, that is
``R^{-1} = W'W``, and the symmetric operators

.. math:: D_j = W\, \dot R_j\, W', \qquad D_{ij} = W\, \ddot R_{ij}\, W',

in which the derivatives of the likelihood take the same form for every structure: whitened rows
:math:`\tilde y = Wy, \tilde X = WX, \tilde Z = WZ` have :math:`\tilde V = I + \tilde Z\Sigma\tilde Z'` and
:math:`W \dot V_j W' = D_j`. R is block diagonal over the groups of the structure (rows of different groups
are independent), and W mixes rows of one group only. Rows keep the order of the data: a structure that needs
its rows sorted by group and time keeps the permutation to itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

__all__ = ["BoundResidual", "NaturalValues", "ResidualPoint"]


@dataclass(frozen=True, slots=True, eq=False)
class NaturalValues:
    """Parameters as people report them.

    Attributes
    ----------
    names : tuple of str
        For instance ``("rho", "sd_ratio[Female]")``.
    values : ndarray, shape (r,)
    jacobian : ndarray, shape (r, n_phi)
        Derivatives of the values in phi.
    kinds : tuple of str
        ``"correlation"``, ``"sd_ratio"``, ``"range"``, ``"power"``, ``"nugget"``, ... one per value.
    """

    names: tuple[str, ...]
    values: np.ndarray
    jacobian: np.ndarray
    kinds: tuple[str, ...]


@runtime_checkable
class ResidualPoint(Protocol):
    """R at one value of phi. Arrays M have shape (n, c), C- or F-ordered, and are never changed.

    A point may also have ``forms(M)``, the traces ``tr(M'D_jM)`` of all parameters at once, and
    ``second_forms(M)``, ``tr(M'D_ijM)``, where that is cheaper than `change` and `second_change`.

    Attributes
    ----------
    logdet : float
        ``log|R|``.
    trace : ndarray, shape (n_phi,)
        ``tr(D_j) = tr(R^{-1} dR_j)``, the gradient of `logdet`.
    variances : ndarray, shape (n,)
        Diagonal of R.
    """

    logdet: float
    trace: np.ndarray
    variances: np.ndarray

    def whiten(self, M: np.ndarray) -> np.ndarray:
        """The product ``W M``."""
        ...

    def unwhiten(self, M: np.ndarray) -> np.ndarray:
        """``W^{-1} M``; ``unwhiten(standard normal)`` has covariance R."""
        ...

    def whiten_adjoint(self, M: np.ndarray) -> np.ndarray:
        """``W' M``; ``whiten_adjoint(whiten(M)) = R^{-1} M``."""
        ...

    def unwhiten_adjoint(self, M: np.ndarray) -> np.ndarray:
        """``W^{-T} M``; ``unwhiten(unwhiten_adjoint(M)) = R M``."""
        ...

    def change(self, j: int, M: np.ndarray) -> np.ndarray:
        """``D_j M`` for whitened M."""
        ...

    def second_change(self, i: int, j: int, M: np.ndarray) -> np.ndarray:
        """``D_ij M = W d2R_ij W' M`` for whitened M."""
        ...

    @property
    def trace_products(self) -> np.ndarray:
        """``tr(D_i D_j)``, shape (n_phi, n_phi)."""
        ...

    @property
    def trace_seconds(self) -> np.ndarray:
        """``tr(D_ij) = tr(R^{-1} d2R_ij)``, shape (n_phi, n_phi)."""
        ...

    def whitening(self) -> tuple[Any, tuple[Any, ...]]:
        """W and dW_j as sparse CSR arrays (n, n), for engines that keep Z sparse.

        It is the W of `whiten`, and ``d(R^{-1})_j = dW_j'W + W'dW_j``.
        """
        ...


@runtime_checkable
class BoundResidual(Protocol):
    """A structure that knows its data.

    Attributes
    ----------
    n, n_phi : int
        Rows, parameters.
    names : tuple of str
        Names of phi, the coordinates of the search.
    start, lower, upper : ndarray, shape (n_phi,)
        Coordinates are smooth, and unbounded wherever the structure allows (logarithms of positive numbers,
        Fisher's z of correlations).
    codes : ndarray of intp, shape (n,), or None
        Group of each row, 0 .. n_groups - 1; None where all rows are independent (variance functions only).
    n_groups : int
    group : str or None
        Name of the grouping factor.
    needs_fitted : bool
        Whether a variance depends on the fitted values (then `with_fitted` is called between searches).
    is_sequential : bool
        Whether no matrix of R is larger than a row: correlations of first order, or none.
    is_even : bool
        Whether all rows are known to have the variance sigma^2.
    """

    n: int
    n_phi: int
    names: tuple[str, ...]
    start: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    codes: np.ndarray | None
    n_groups: int
    group: str | None
    needs_fitted: bool
    is_sequential: bool
    is_even: bool

    def at(self, phi: np.ndarray) -> ResidualPoint:
        """R at phi; FloatingPointError where it is not positive definite."""
        ...

    def start_from(self, r: np.ndarray) -> np.ndarray:
        """Coordinates at which a search may begin, from residuals of least squares, (n,)."""
        ...

    def natural(self, phi: np.ndarray) -> NaturalValues:
        """Correlations, ranges, ratios of standard deviations, powers, with their derivatives in phi."""
        ...

    def natural_curvature(self, phi: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """``sum_r weights_r d2 value_r / d phi_i d phi_j`` of `natural`, shape (n_phi, n_phi)."""
        ...

    def row_variances(self, phi: np.ndarray) -> np.ndarray:
        """Diagonal of R, shape (n,), without factoring it."""
        ...

    def phi_of(self, values: dict[str, float]) -> np.ndarray:
        """Coordinates of natural values given by name; the others stay at the start."""
        ...

    def with_fitted(self, fitted: np.ndarray) -> BoundResidual:
        """The same structure with these fitted values as variance covariate, shape (n,)."""
        ...

    def new_rows(self, columns: dict[str, Any], fitted: np.ndarray | None = None) -> Any:
        """Rows of new data, given the columns that `columns_needed` names.

        An object with ``variances(phi)``, (N,), ``covariance(phi)``, (N, N) sparse among the new rows, and
        ``cross(phi)``, (N, n) sparse with the rows of the data: what prediction (kriging) and simulation
        need.
        """
        ...

    def describe(self) -> str:
        """One line for a summary, such as ``AR(1) over time within subject; variances by sex``."""
        ...

    def block(self, phi: np.ndarray, group: int) -> np.ndarray:
        """R of one group in the order of its rows in the data, dense, for display and tests."""
        ...
