r"""``R = S C S``: variance functions and a correlation together, with their derivatives.

S is diagonal with the product of all variance functions and C the correlation. With W_C the whitening of C,
:math:`W = W_C S^{-1}`. For a parameter of C, :math:`D_j` is that of C. For a parameter of S, with
:math:`E_i = \mathrm{diag}(\partial \log s / \partial\phi_i)` and :math:`A(E) = W_C E W_C^{-1}`,

.. math::
    D_i = A(E_i) + A(E_i)', \qquad
    D_{ij} = A(E_{ij} + E_iE_j) + (\cdot)' + A(E_i)A(E_j)' + A(E_j)A(E_i)',

and :math:`D_{ij} = A(E_i) D_j + D_j A(E_i)'` for i in S and j in C. The traces follow from
:math:`\mathrm{tr}\,A(E)A(F)' = e'(C * C^{-1})f`, entry by entry.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from mixedmodels.errors import OptionError
from mixedmodels.residual.base import NaturalValues
from mixedmodels.residual.data import Need, ResidualData
from mixedmodels.residual.independent import IndependentPoint
from mixedmodels.residual.new_rows import NewRows
from mixedmodels.residual.strata import bind_correlation
from mixedmodels.residual.structure import (
    BoundCorrelation,
    BoundVariance,
    CorrelationStructure,
    Product,
    Structure,
    VarianceFunction,
)

__all__ = ["CombinedPoint", "CombinedResidual", "Origin", "bind_product"]


class Origin(NamedTuple):
    """What was bound, so that it can be bound again: to some of the rows, or after it was stored.

    Attributes
    ----------
    structure : Structure
    data : ResidualData
    weights : ndarray of float64, shape (n,), or None
    """

    structure: Structure
    data: ResidualData
    weights: np.ndarray | None


def bind_product(
    factors: Sequence[Structure], data: ResidualData, weights: np.ndarray | None, text: str
) -> CombinedResidual:
    """Bind every factor of a product to the data.

    Parameters
    ----------
    factors : sequence of Structure
    data : ResidualData
    weights : ndarray of float64, shape (n,), or None
        Variances are divided by them.
    text : str
        The structure as it is written.

    Returns
    -------
    CombinedResidual

    Raises
    ------
    DataError
        A column cannot be used as the structure asks.
    OptionError
        A parameter that is to be held does not exist, or cannot be held alone.
    """
    correlation: BoundCorrelation | None = None
    codes: np.ndarray | None = None
    labels: tuple[str, ...] = ()
    group: str | None = None
    pieces: list[tuple[Structure, BoundCorrelation | BoundVariance]] = []
    for factor in factors:
        if isinstance(factor, CorrelationStructure):
            correlation, codes, labels = bind_correlation(factor, data)
            group = factor.group
            pieces.insert(0, (factor, correlation))
            pieces.extend((one, _variance(one, data)) for one in factor.companions())
        else:
            pieces.append((factor, _variance(factor, data)))
    variances = tuple(bound for _, bound in pieces if isinstance(bound, BoundVariance))
    fixed: dict[int, float] = {}
    parts = tuple(bound for _, bound in pieces)
    offset = 0
    for factor, bound in pieces:
        if factor.fixed:
            fixed.update(_fixed_coordinates(factor, bound, factor.held(bound), offset))
        offset += bound.n_phi
    log_scale = None if weights is None else -0.5 * np.log(weights)
    return CombinedResidual(
        data.n,
        parts,
        correlation,
        variances,
        codes,
        labels,
        group,
        tuple(factor for factor, _ in pieces),
        fixed,
        log_scale,
        text,
        Origin(factors[0] if len(factors) == 1 else Product(tuple(factors)), data, weights),
    )


def _variance(factor: Structure, data: ResidualData) -> BoundVariance:
    assert isinstance(factor, VarianceFunction)
    return factor.bind_rows(data)


def _fixed_coordinates(
    factor: Structure, bound: BoundCorrelation | BoundVariance, held: Mapping[str, float], offset: int
) -> dict[int, float]:
    """Coordinates that are held, given natural values of some parameters of one factor."""
    names = bound.natural_names
    for name in held:
        if name not in names:
            listed = ", ".join(names) or "none"
            raise OptionError(f"{factor}: there is no parameter or option {name!r}; its parameters: {listed}")
    values, jacobian = bound.natural(bound.start)
    places = [names.index(name) for name in held]
    if len(held) == len(names):
        columns = list(range(bound.n_phi))
    else:
        columns = []
        for place in places:
            (used,) = np.nonzero(jacobian[place])
            if used.size != 1 or np.count_nonzero(jacobian[:, used[0]]) != 1:
                raise OptionError(
                    f"{factor}: parameter {names[place]!r} cannot be held alone, because the others of the "
                    "structure depend on it; hold all of them or none"
                )
            columns.append(int(used[0]))
    values = values.copy()
    values[places] = list(held.values())
    try:
        phi = bound.inverse(values)
    except FloatingPointError as error:
        raise OptionError(f"{factor}: {error}") from None
    return {offset + column: float(phi[column]) for column in columns}


class CombinedResidual:
    """A product of structures with its data; a `BoundResidual`.

    Made by `bind_product`. All parts together have coordinates of which some may be held; phi are the others.

    Attributes
    ----------
    origin : Origin
        What was bound: structure, columns and weights.
    fitted : ndarray of float64, shape (n,), or None
        Fitted values that are a variance covariate (`with_fitted`).
    """

    def __init__(
        self,
        n: int,
        parts: tuple[BoundCorrelation | BoundVariance, ...],
        correlation: BoundCorrelation | None,
        variances: tuple[BoundVariance, ...],
        codes: np.ndarray | None,
        labels: tuple[str, ...],
        group: str | None,
        factors: tuple[Structure, ...],
        fixed: Mapping[int, float],
        log_scale: np.ndarray | None,
        text: str,
        origin: Origin,
        fitted: np.ndarray | None = None,
    ) -> None:
        self.n = n
        self.origin, self.fitted = origin, fitted
        self.correlation, self.variances = correlation, variances
        self.codes, self.group_labels, self.group = codes, labels, group
        self.n_groups = len(labels) if codes is not None else n
        self.text = text
        self._parts, self._factors, self._fixed, self._log_scale = parts, factors, dict(fixed), log_scale
        total = sum(part.n_phi for part in parts)
        self._free = np.array([j for j in range(total) if j not in fixed], dtype=np.intp)
        self._template = np.concatenate([np.zeros(0), *(part.start for part in parts)])
        for place, value in fixed.items():
            self._template[place] = value
        all_names = _distinct([part.names for part in parts], factors)
        self._natural_names = _distinct([part.natural_names for part in parts], factors)
        self._kinds = tuple(kind for part in parts for kind in part.kinds)
        stops = np.cumsum([0, *(part.n_phi for part in parts)]).tolist()
        self._pieces = [slice(a, b) for a, b in pairwise(stops)]
        self.names = tuple(all_names[j] for j in self._free)
        self.n_phi = self._free.shape[0]
        self.start = self._template[self._free]
        farthest = np.full(total, np.inf)
        if correlation is not None:
            farthest[: correlation.n_phi] = correlation.farthest
        farthest = farthest[self._free]
        self.lower, self.upper = -farthest, farthest
        self.needs_fitted = any(one.needs_fitted for one in variances)

    @property
    def parts(self) -> tuple[BoundCorrelation | BoundVariance, ...]:
        """The structures of the product with their data, the correlation first."""
        return self._parts

    @property
    def free(self) -> np.ndarray:
        """Places of phi among the coordinates of all parts."""
        return self._free

    @property
    def factors(self) -> tuple[Structure, ...]:
        """The structures of the product."""
        return self._factors

    def _all(self, phi: np.ndarray) -> np.ndarray:
        """Free and held coordinates together."""
        out = self._template.copy()
        out[self._free] = phi
        return out

    def _split(self, phi: np.ndarray) -> list[np.ndarray]:
        """Coordinates of each part."""
        every = self._all(phi)
        return [every[piece] for piece in self._pieces]

    def at(self, phi: np.ndarray) -> CombinedPoint:
        """R at phi; FloatingPointError where it is not positive definite."""
        phi = np.asarray(phi, dtype=np.float64)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore", under="ignore"):
            return self._at(phi)

    def _at(self, phi: np.ndarray) -> CombinedPoint:
        pieces = self._split(phi)
        log_sd = None if self._log_scale is None else self._log_scale.copy()
        point: Any = IndependentPoint(self.n)
        k = 0
        for part, own in zip(self._parts, pieces, strict=True):
            if isinstance(part, BoundVariance):
                log_sd = part.log_sd(own) if log_sd is None else log_sd + part.log_sd(own)
            else:
                point = part.at(own)
                k = part.n_phi
        if log_sd is not None and self.n and not float(np.max(np.abs(log_sd))) < 300.0:
            raise FloatingPointError("a standard deviation of the residuals is zero or infinite")
        owners = [(part, own) for part, own in zip(self._parts, pieces, strict=True) if part.n_phi]
        return CombinedPoint(point, k, self.n, log_sd, owners, self._free)

    def log_sd(self, phi: np.ndarray) -> np.ndarray:
        """Logarithms of the standard deviations relative to sigma, shape (n,)."""
        out = np.zeros(self.n) if self._log_scale is None else self._log_scale.copy()
        for part, own in zip(self._parts, self._split(phi), strict=True):
            if isinstance(part, BoundVariance):
                out += part.log_sd(own)
        return out

    def row_variances(self, phi: np.ndarray) -> np.ndarray:
        """Diagonal of R, shape (n,), without factoring it."""
        out = np.exp(2.0 * self.log_sd(phi))
        if self.correlation is None:
            return out
        own = self._split(np.asarray(phi, dtype=np.float64))[0]
        return out * self.correlation.row_variances(own, self.correlation.features)

    def natural(self, phi: np.ndarray) -> NaturalValues:
        """Correlations, ranges, ratios of standard deviations, powers, with their derivatives in phi.

        Values that are held are among them, with derivatives of zero.
        """
        values, total = [], sum(part.n_phi for part in self._parts)
        jacobian = np.zeros((len(self._natural_names), total))
        row = column = 0
        for part, own in zip(self._parts, self._split(np.asarray(phi, dtype=np.float64)), strict=True):
            value, own_jacobian = part.natural(own)
            values.append(value)
            jacobian[row : row + value.shape[0], column : column + part.n_phi] = own_jacobian
            row += value.shape[0]
            column += part.n_phi
        return NaturalValues(
            self._natural_names,
            np.concatenate([np.zeros(0), *values]),
            jacobian[:, self._free],
            self._kinds,
        )

    def phi_of(self, values: Mapping[str, float]) -> np.ndarray:
        """Coordinates of natural values given by name; the others stay at the start."""
        for name in values:
            if name not in self._natural_names:
                listed = ", ".join(self._natural_names) or "none"
                raise OptionError(f"{self.text} has no parameter {name!r}; its parameters: {listed}")
        out = self._template.copy()
        row = column = 0
        for part in self._parts:
            own = out[column : column + part.n_phi]
            wanted = part.natural(own)[0]
            changed = False
            for place, name in enumerate(self._natural_names[row : row + wanted.shape[0]]):
                if name in values:
                    wanted[place] = float(values[name])
                    changed = True
            if changed:
                try:
                    out[column : column + part.n_phi] = part.inverse(wanted)
                except FloatingPointError as error:
                    raise OptionError(f"{self.text}: {error}") from None
            row += wanted.shape[0]
            column += part.n_phi
        return out[self._free]

    def with_fitted(self, fitted: np.ndarray) -> CombinedResidual:
        """The same structure with these fitted values as variance covariate, shape (n,)."""
        if not self.needs_fitted:
            return self
        parts = tuple(
            part.with_fitted(fitted) if isinstance(part, BoundVariance) else part for part in self._parts
        )
        variances = tuple(part for part in parts if isinstance(part, BoundVariance))
        return CombinedResidual(
            self.n, parts, self.correlation, variances, self.codes, self.group_labels, self.group,
            self._factors, self._fixed, self._log_scale, self.text, self.origin, fitted,
        )  # fmt: skip

    def subset(self, rows: np.ndarray, copies: np.ndarray | None = None) -> CombinedResidual:
        """The structure of some of the rows, bound anew; factors lose the levels that have no row.

        Parameters
        ----------
        rows : ndarray of intp, shape (N,)
        copies : ndarray of intp, shape (N,), optional
            Rows of one group with different numbers are different groups.

        Raises
        ------
        DataError, OptionError
            These rows do not determine the structure (a single level left, no group with two rows, ...).
        """
        structure, data, weights = self.origin
        part = data.subset(rows)
        if copies is not None and self.group is not None:
            part = part.split_groups(self.group, copies)
        bound: CombinedResidual = structure.bind(
            part.without_unused(), None if weights is None else weights[rows]
        )
        return bound if self.fitted is None else bound.with_fitted(self.fitted[rows])

    def columns_needed(self) -> tuple[Need, ...]:
        """Columns that `new_rows` asks for."""
        return tuple(dict.fromkeys(need for factor in self._factors for need in factor.needs()))

    def new_rows(
        self, columns: ResidualData, fitted: np.ndarray | None = None, weights: np.ndarray | None = None
    ) -> NewRows:
        """Rows of new data: their variances, and covariances among themselves and with the rows of the fit.

        Parameters
        ----------
        columns : ResidualData
            Factors carry the codes of the fit, -1 for levels it has not seen. Groups it has not seen are
            independent of its rows; equal unseen groups are told apart by codes of n_groups or more.
        fitted : ndarray of float64, shape (N,), optional
            Fitted values of the new rows, where a variance depends on them.
        weights : ndarray of float64, shape (N,), optional
        """
        return NewRows(self, columns, fitted, weights)

    def describe(self) -> str:
        """One line for a summary, such as ``AR(1) over time within subject; variances by sex``."""
        said = [part.meaning for part in self._parts]
        if self._log_scale is not None:
            said.append("known weights")
        return "; ".join(said) or "independent residuals"

    def block(self, phi: np.ndarray, group: int) -> np.ndarray:
        """R of one group in the order of its rows in the data, dense, for display and tests."""
        if self.codes is None:
            return np.exp(2.0 * self.log_sd(phi)[[group]])[:, None]
        (rows,) = np.nonzero(self.codes == group)
        sd = np.exp(self.log_sd(phi)[rows])
        assert self.correlation is not None
        own = self._split(np.asarray(phi, dtype=np.float64))[0]
        features = self.correlation.features[rows]
        a, b = np.nonzero(~np.eye(rows.shape[0], dtype=bool))
        C = np.diag(self.correlation.row_variances(own, features))
        C[a, b] = self.correlation.correlate(own, features[a], features[b])
        return C * sd[:, None] * sd


def _distinct(names: Sequence[tuple[str, ...]], factors: Sequence[Structure]) -> tuple[str, ...]:
    """Names of all parts; those that occur in several parts get the text of their part in front."""
    flat = [name for part in names for name in part]
    out = []
    for part, factor in zip(names, factors, strict=True):
        out += [f"{factor}.{name}" if flat.count(name) > 1 else name for name in part]
    return tuple(out)


class CombinedPoint:
    """Operations of ``R = S C S`` at one phi; see the module. A `ResidualPoint`."""

    def __init__(
        self,
        point: Any,
        k: int,
        n: int,
        log_sd: np.ndarray | None,
        owners: Sequence[tuple[BoundCorrelation | BoundVariance, np.ndarray]],
        free: np.ndarray,
    ) -> None:
        self._point, self._k, self._free = point, k, free
        self.n = n
        self._log_sd = log_sd
        self._sd = None if log_sd is None else np.exp(log_sd)[:, None]
        self.logdet = point.logdet + (0.0 if log_sd is None else 2.0 * float(log_sd.sum()))
        self.n_phi = free.shape[0]
        self._variance_of: list[tuple[BoundVariance, np.ndarray, int]] = []
        self._owners = [(part, own) for part, own in owners if isinstance(part, BoundVariance)]
        for part, own in self._owners:
            self._variance_of += [(part, own, i) for i in range(part.n_phi)]

    @cached_property
    def _e(self) -> np.ndarray:
        """Derivatives of the logarithms of standard deviations, one row for each parameter."""
        firsts = [part.first(own) for part, own in self._owners]
        return np.concatenate(firsts) if firsts else np.zeros((0, self.n))

    @cached_property
    def trace(self) -> np.ndarray:
        """Traces ``tr(D_j)``, shape (n_phi,)."""
        return np.concatenate([self._point.trace, 2.0 * self._e.sum(axis=1)])[self._free]

    @property
    def variances(self) -> np.ndarray:
        """Diagonal of R, shape (n,)."""
        own = self._point.variances
        return own if self._log_sd is None else np.exp(2.0 * self._log_sd) * own

    def whiten(self, M: np.ndarray) -> np.ndarray:
        """The product ``W M``."""
        return self._point.whiten(M if self._sd is None else M / self._sd)

    def unwhiten(self, M: np.ndarray) -> np.ndarray:
        """The product ``W^{-1} M``."""
        out = self._point.unwhiten(M)
        return out if self._sd is None else out * self._sd

    def whiten_adjoint(self, M: np.ndarray) -> np.ndarray:
        """The product ``W' M``."""
        out = self._point.whiten_adjoint(M)
        return out if self._sd is None else out / self._sd

    def unwhiten_adjoint(self, M: np.ndarray) -> np.ndarray:
        """The product ``W^{-T} M``."""
        return self._point.unwhiten_adjoint(M if self._sd is None else M * self._sd)

    def _scaled(self, e: np.ndarray, M: np.ndarray) -> np.ndarray:
        """``A(E) M = W_C E W_C^{-1} M``."""
        return self._point.whiten(e[:, None] * self._point.unwhiten(M))

    def _scaled_adjoint(self, e: np.ndarray, M: np.ndarray) -> np.ndarray:
        """``A(E)' M = W_C^{-T} E W_C' M``."""
        return self._point.unwhiten_adjoint(e[:, None] * self._point.whiten_adjoint(M))

    def change(self, j: int, M: np.ndarray) -> np.ndarray:
        """``D_j M`` for whitened M."""
        j = int(self._free[j])
        if j < self._k:
            return self._point.change(j, M)
        e = self._e[j - self._k]
        if self._k == 0 and isinstance(self._point, IndependentPoint):
            return (2.0 * e)[:, None] * M
        return self._scaled(e, M) + self._scaled_adjoint(e, M)

    def _bend(self, i: int, j: int) -> np.ndarray | None:
        """Second derivative of the log standard deviations, for two variance parameters."""
        (part, own, a), (other, _, b) = self._variance_of[i], self._variance_of[j]
        return part.second(own, a, b) if part is other else None

    def second_change(self, i: int, j: int, M: np.ndarray) -> np.ndarray:
        """``D_ij M = W d2R_ij W' M`` for whitened M."""
        i, j = sorted((int(self._free[i]), int(self._free[j])))
        k = self._k
        if j < k:
            return self._point.second_change(i, j, M)
        f = self._e[j - k]
        if i < k:
            inner = self._point.change(i, M)
            return self._scaled(f, inner) + self._point.change(i, self._scaled_adjoint(f, M))
        e = self._e[i - k]
        bend = self._bend(i - k, j - k)
        both = e * f if bend is None else e * f + bend
        if isinstance(self._point, IndependentPoint):
            return (2.0 * (both + e * f))[:, None] * M
        out = self._scaled(both, M) + self._scaled_adjoint(both, M)
        out += self._scaled(e, self._scaled_adjoint(f, M))
        out += self._scaled(f, self._scaled_adjoint(e, M))
        return out

    def _own_forms(self, A: np.ndarray, B: np.ndarray) -> np.ndarray:
        """``tr(A'D_jB)`` for the parameters of the correlation."""
        if hasattr(self._point, "forms"):
            return self._point.forms(A, B)
        return np.array([float(np.vdot(A, self._point.change(j, B))) for j in range(self._k)])

    def forms(self, M: np.ndarray) -> np.ndarray:
        """``tr(M'D_jM)``, shape (n_phi,): cheaper than one `change` for each j."""
        out = np.zeros(self._k + self._e.shape[0])
        if self._k:
            out[: self._k] = self._own_forms(M, M)
        if self._e.shape[0]:
            sums = np.einsum("nc,nc->n", self._point.whiten_adjoint(M), self._point.unwhiten(M))
            out[self._k :] = 2.0 * self._e @ sums
        return out[self._free]

    def second_forms(self, M: np.ndarray) -> np.ndarray:
        """``tr(M'D_ijM)``, shape (n_phi, n_phi)."""
        k, r, point = self._k, self._e.shape[0], self._point
        out = np.zeros((k + r, k + r))
        if k and hasattr(point, "second_forms"):
            out[:k, :k] = point.second_forms(M, M)
        else:
            for i in range(k):
                for j in range(i + 1):
                    out[i, j] = out[j, i] = float(np.vdot(M, point.second_change(i, j, M)))
        if r:
            whole = point.whiten_adjoint(M)
            sums = np.einsum("nc,nc->n", whole, point.unwhiten(M))
            images = [point.unwhiten_adjoint(e[:, None] * whole) for e in self._e]
            flat = np.array([image.ravel() for image in images])
            own = (self._e * sums) @ self._e.T + flat @ flat.T
            for i in range(r):
                if k:
                    out[k + i, :k] = out[:k, k + i] = 2.0 * self._own_forms(images[i], M)
                for j in range(i + 1):
                    bend = self._bend(i, j)
                    value = own[i, j] if bend is None else own[i, j] + float(bend @ sums)
                    out[k + i, k + j] = out[k + j, k + i] = 2.0 * value
        return out[np.ix_(self._free, self._free)]

    @property
    def trace_products(self) -> np.ndarray:
        """``tr(D_i D_j)``, shape (n_phi, n_phi)."""
        out = self._square(self._point.trace_products)
        k, e = self._k, self._e
        if e.shape[0]:
            out[k:, k:] = 2.0 * e @ e.T + 2.0 * self._hadamard()
        return out[np.ix_(self._free, self._free)]

    @property
    def trace_seconds(self) -> np.ndarray:
        """``tr(D_ij) = tr(R^{-1} d2R_ij)``, shape (n_phi, n_phi)."""
        out = self._square(self._point.trace_seconds)
        k, e = self._k, self._e
        if e.shape[0]:
            out[k:, k:] = 2.0 * e @ e.T + 2.0 * self._hadamard()
            for i in range(e.shape[0]):
                for j in range(i, e.shape[0]):
                    bend = self._bend(i, j)
                    if bend is not None:
                        out[k + i, k + j] += 2.0 * bend.sum()
                        if i != j:
                            out[k + j, k + i] += 2.0 * bend.sum()
        return out[np.ix_(self._free, self._free)]

    def _hadamard(self) -> np.ndarray:
        return self._e @ self._point.hadamard(self._e.T)

    def _square(self, corner: np.ndarray) -> np.ndarray:
        """Traces with the correlation's corner and the mixed ones, ``2 tr(A(E_i) D_j)``, filled in."""
        k, e = self._k, self._e
        out = np.zeros((k + e.shape[0], k + e.shape[0]))
        out[:k, :k] = corner
        if e.shape[0]:
            for j in range(k):
                out[k:, j] = out[j, k:] = 2.0 * e @ self._point.diagonal(j)
        return out

    def whitening(self) -> tuple[Any, tuple[Any, ...]]:
        """W and dW_j as sparse CSR arrays (n, n)."""
        from scipy.sparse import csr_array, dia_array

        def scale(W: Any, d: np.ndarray) -> Any:
            return csr_array(W @ dia_array((d[None, :], [0]), shape=(d.shape[0], d.shape[0])))

        W_C, changes = self._point.whitening()
        if self._sd is None:
            return W_C, tuple(changes[j] for j in self._free)
        inverse = 1.0 / self._sd[:, 0]
        W = scale(W_C, inverse)
        every = [*(scale(one, inverse) for one in changes), *(scale(W, -e) for e in self._e)]
        return W, tuple(every[j] for j in self._free)
