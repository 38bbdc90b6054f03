r"""``R = S C S``: variance functions and a correlation bound together, and everything they answer to.

S is diagonal with the product of all variance functions and C the correlation. Products, traces and
derivatives of R at one phi are in `mixedmodels.residual.combine_point`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mixedmodels.errors import OptionError
from mixedmodels.residual.base import NaturalValues
from mixedmodels.residual.combine_point import CombinedPoint
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

__all__ = ["CombinedResidual", "Origin", "bind_product"]

# Kinds of parameters of variance functions that multiply a covariate or its logarithm.
_SLOPES = frozenset({"coefficient", "expon", "power"})


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
    variances = tuple([bound for _, bound in pieces if isinstance(bound, BoundVariance)])
    fixed: dict[int, float] = {}
    parts = tuple([bound for _, bound in pieces])
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
        tuple([factor for factor, _ in pieces]),
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
    is_sequential : bool
        Whether no matrix of R is larger than a row.
    is_even : bool
        Whether all rows are known to have the variance sigma^2.
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
        start: list[float] = []
        farthest: list[float] = []
        self._pieces: list[slice] = []
        for part in parts:
            self._pieces.append(slice(len(start), len(start) + part.n_phi))
            start += part.start.tolist()
            farthest += [part.farthest if isinstance(part, BoundCorrelation) else np.inf] * part.n_phi
        for place, value in fixed.items():
            start[place] = value
        free = [j for j in range(len(start)) if j not in fixed]
        self._free, self._template = np.array(free, dtype=np.intp), np.array(start, dtype=np.float64)
        all_names = _distinct([part.names for part in parts], factors)
        self._natural_names = _distinct([part.natural_names for part in parts], factors)
        self._kinds = tuple([kind for part in parts for kind in part.kinds])
        self.names = tuple([all_names[j] for j in free])
        self.n_phi = len(free)
        self.start = self._template[self._free]
        self.upper = np.array([farthest[j] for j in free], dtype=np.float64)
        self.lower = -self.upper
        self.needs_fitted = any([one.needs_fitted for one in variances])
        self.is_sequential = correlation is None or correlation.markov is not None
        self.is_even = self.is_sequential and not variances and log_scale is None

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

    def start_from(self, r: np.ndarray) -> np.ndarray:
        """Coordinates at which a search may begin, from residuals of least squares, (n,)."""
        starts = [one.start_from(r) if isinstance(one, BoundVariance) else one.start for one in self._parts]
        return np.concatenate([*starts, np.zeros(0)])[self._free]

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
        point: Any = IndependentPoint(self.n)
        k = 0
        if self.correlation is not None:
            point, k = self.correlation.at(pieces[0]), self.correlation.n_phi
        log_sd = self.log_sd_of(pieces)
        owners = [(part, own) for part, own in zip(self._parts, pieces, strict=True) if part.n_phi]
        return CombinedPoint(point, k, self.n, log_sd, owners, self._free)

    def log_sd_of(self, pieces: list[np.ndarray]) -> np.ndarray | None:
        """Logarithms of the standard deviations at coordinates of the parts; None where all are zero.

        Raises
        ------
        FloatingPointError
            A standard deviation is zero or infinite.
        """
        out = self._log_scale
        for part, own in zip(self._parts, pieces, strict=True):
            if isinstance(part, BoundVariance):
                out = part.log_sd(own) if out is None else out + part.log_sd(own)
        if out is not None and self.n and not float(np.abs(out).max()) < 300.0:
            raise FloatingPointError("a standard deviation of the residuals is zero or infinite")
        return out

    def log_sd_seconds(self, pieces: list[np.ndarray]) -> dict[tuple[int, int], np.ndarray]:
        """Second derivatives of `log_sd_of` that are not zero, by coordinates i <= j of the variances."""
        out, start = {}, 0
        for part, own in zip(self._parts, pieces, strict=True):
            if not isinstance(part, BoundVariance):
                continue
            for j in range(part.n_phi):
                for i in range(j + 1):
                    one = part.second(own, i, j)
                    if one is not None:
                        out[start + i, start + j] = one
            start += part.n_phi
        return out

    def log_sd(self, phi: np.ndarray) -> np.ndarray:
        """Logarithms of the standard deviations relative to sigma, shape (n,)."""
        out = np.zeros(self.n) if self._log_scale is None else self._log_scale.copy()
        for part, own in zip(self._parts, self._split(phi), strict=True):
            if isinstance(part, BoundVariance):
                out += part.log_sd(own)
        return out

    def slopes(self) -> list[tuple[int, float]]:
        """Coordinates that multiply a covariate in the logarithms of the standard deviations.

        With the change of each that moves the logarithms by one in the root mean square about their mean.
        """
        out, start = [], 0
        for part in self._parts:
            if isinstance(part, BoundVariance) and not _SLOPES.isdisjoint(part.kinds):
                spread = part.first(part.start).std(axis=1).tolist()
                found = zip(part.kinds, spread, strict=True)
                out += [
                    (start + j, 1.0 / s) for j, (kind, s) in enumerate(found) if kind in _SLOPES and s > 0.0
                ]
            start += part.n_phi
        places = {place: j for j, place in enumerate(self._free.tolist())}
        return [(places[place], unit) for place, unit in out if place in places]

    def row_variances(self, phi: np.ndarray) -> np.ndarray:
        """Diagonal of R, shape (n,), without factoring it."""
        if self.is_even:
            return np.ones(self.n)
        out = np.exp(2.0 * self.log_sd(phi))
        if self.correlation is None:
            return out
        own = self._split(np.asarray(phi, dtype=np.float64))[0]
        return out * self.correlation.row_variances(own, self.correlation.features)

    def natural(self, phi: np.ndarray) -> NaturalValues:
        """Correlations, ranges, ratios of standard deviations, powers, with their derivatives in phi.

        Values that are held are among them, with derivatives of zero.
        """
        if len(self._parts) == 1 and not self._fixed:
            value, jacobian = self._parts[0].natural(np.asarray(phi, dtype=np.float64))
            return NaturalValues(self._natural_names, value, jacobian, self._kinds)
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

    def natural_curvature(self, phi: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """``sum_r weights_r d2 value_r / d phi_i d phi_j`` of `natural`, shape (n_phi, n_phi)."""
        from scipy.linalg import block_diag

        out, row = [], 0
        for part, own in zip(self._parts, self._split(np.asarray(phi, dtype=np.float64)), strict=True):
            stop = row + len(part.natural_names)
            out.append(part.natural_curvature(own, weights[row:stop]))
            row = stop
        return np.asarray(block_diag(*out))[np.ix_(self._free, self._free)]

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
    if len(set(flat)) == len(flat):
        return tuple(flat)
    out = []
    for part, factor in zip(names, factors, strict=True):
        out += [f"{factor}.{name}" if flat.count(name) > 1 else name for name in part]
    return tuple(out)
