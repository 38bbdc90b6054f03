"""Correlations that fall with the distance between positions (or times)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from mixedmodels.errors import DataError, OptionError
from mixedmodels.residual.car1 import BoundDecay
from mixedmodels.residual.data import ResidualData
from mixedmodels.residual.matern import MaternValues, matern
from mixedmodels.residual.structure import BoundCorrelation, CorrelationStructure
from mixedmodels.residual.table import TableCorrelation
from mixedmodels.residual.times import check_distinct

__all__ = ["Exponential", "Gaussian", "Linear", "Matern", "Quadratic", "Spatial", "Spherical"]

_METRICS = ("euclidean", "manhattan", "maximum")
_MOST = 20_000  # rows of one group: a matrix of 3.2 GB

Curve = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]


class Spatial(CorrelationStructure):
    r"""Base of correlations by distance: ``exp(x + y | group)`` and its like.

    .. math:: \mathrm{Corr}(e_i, e_j) = (1 - \mathrm{nugget})\, f(d_{ij} / \mathrm{range}), \qquad i \ne j.

    Parameters
    ----------
    *coordinates : str
        Columns of the positions.
    group : str or None
        None puts all rows into one group.
    nugget : bool
        Whether rows at one place are correlated less than 1.
    metric : {"euclidean", "manhattan", "maximum"}
        How distances are measured.
    by : str, optional
        A factor whose levels have parameters of their own.
    range : float, optional
        Holds the range; a number given as ``nugget`` holds the nugget.

    References
    ----------
    Pinheiro and Bates (2000), section 5.3.2; Cressie (1993), Statistics for Spatial Data.
    """

    tag: ClassVar[str] = "spatial"

    def __init__(
        self,
        *coordinates: str,
        group: str | None = None,
        nugget: bool | float = False,
        metric: str = "euclidean",
        by: str | None = None,
        **fixed: float,
    ) -> None:
        if not coordinates:
            raise OptionError(f"{self.tag}() needs coordinates, for instance {self.tag}(x + y | group)")
        if metric not in _METRICS:
            raise OptionError(f"{self.tag}(): metric must be one of {', '.join(_METRICS)}, got {metric!r}")
        self.metric = metric
        if isinstance(nugget, (int, float)) and not isinstance(nugget, bool):
            fixed = {**fixed, "nugget": float(nugget)}
        elif not isinstance(nugget, bool):
            raise OptionError(f"{self.tag}(): nugget must be True, False or a number, got {nugget!r}")
        self.nugget = bool(nugget) or "nugget" in fixed
        super().__init__(tuple(coordinates), group, by, fixed)

    def options_text(self) -> tuple[str, ...]:
        """Nugget and metric, where they are not the default."""
        said = ["nugget=True"] if self.nugget and "nugget" not in self.fixed else []
        if self.metric != "euclidean":
            said.append(f'metric="{self.metric}"')
        return tuple(said)

    @staticmethod
    def curve(u: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """f, f' and f'' at distances in units of the range."""
        raise NotImplementedError

    wide: ClassVar[float] = 1.0  # range at the start, in distances to the nearest neighbour

    def bind_rows(
        self, data: ResidualData, codes: np.ndarray, labels: tuple[str, ...] | None
    ) -> BoundCorrelation:
        """The correlation of the rows of `data`."""
        positions = np.column_stack([data.number(name, f"{self.tag}()") for name in self.covariates])
        if not self.nugget:
            check_distinct(
                codes, positions, labels, self, data,
                remedy="allow a nugget (nugget=True), average these rows or name a finer grouping factor",
            )  # fmt: skip
        largest = int(np.bincount(codes).max(initial=0))
        if largest > _MOST:
            raise DataError(
                f"{self}: a group has {largest} rows, and distances between all of them would take "
                f"{8e-9 * largest**2:.0f} GB for each matrix; name a grouping factor with smaller groups"
            )
        if largest < 2:
            raise DataError(
                f"{self}: no group has more than one row, so a range cannot be estimated; leave the "
                "structure "
                "out or name a coarser grouping factor"
            )
        return self.bound(codes, positions)

    def bound(self, codes: np.ndarray, positions: np.ndarray) -> BoundCorrelation:
        """The bound form for rows at these positions."""
        return _BoundSpatial(self, codes, positions)

    def described(self) -> str:
        """Words for a summary."""
        within = "" if self.group is None else f" within {self.group}"
        nugget = " with nugget" if self.nugget else ""
        return f"{self.words}{nugget} over {' + '.join(self.covariates)}{within}"

    words: ClassVar[str] = "spatial correlation"


class Exponential(Spatial):
    r"""Exponential correlation: ``exp(x + y | group)``, :math:`f(u) = e^{-u}`.

    With one coordinate and no nugget this is `CAR1`, and all operations are linear in the number of rows.
    The parameters are those of `Spatial`.
    """

    tag = "exp"
    words = "exponential correlation"

    @staticmethod
    def curve(u: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """``e^{-u}`` and its derivatives."""
        f = np.exp(-u)
        return f, -f, f

    def bound(self, codes: np.ndarray, positions: np.ndarray) -> BoundCorrelation:
        """The bound form; a Markov process in one dimension."""
        if positions.shape[1] == 1 and not self.nugget:
            return BoundDecay(self, codes, positions[:, 0], "range", self.described())
        return _BoundSpatial(self, codes, positions)


class Gaussian(Spatial):
    r"""Gaussian correlation: ``gau(x + y | group)``, :math:`f(u) = e^{-u^2}`; parameters as in `Spatial`."""

    tag = "gau"
    words = "Gaussian correlation"

    @staticmethod
    def curve(u: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """``e^{-u^2}`` and its derivatives."""
        f = np.exp(-u * u)
        return f, -2.0 * u * f, (4.0 * u * u - 2.0) * f


class Linear(Spatial):
    r"""Linear correlation: ``lin(x | group)``, :math:`f(u) = \max(1 - u, 0)`; parameters as in `Spatial`.

    Positive definite on a line; in the plane not for every range.
    """

    tag = "lin"
    words = "linear correlation"
    wide = 2.0

    @staticmethod
    def curve(u: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """``max(1 - u, 0)`` and its derivatives."""
        inside = u < 1.0
        return np.where(inside, 1.0 - u, 0.0), np.where(inside, -1.0, 0.0), np.zeros_like(u)


class Quadratic(Spatial):
    r"""Rational quadratic correlation: ``ratio(x + y | group)``, :math:`f(u) = 1 / (1 + u^2)`.

    The parameters are those of `Spatial`.
    """

    tag = "ratio"
    words = "rational quadratic correlation"

    @staticmethod
    def curve(u: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """``1 / (1 + u^2)`` and its derivatives."""
        f = 1.0 / (1.0 + u * u)
        return f, -2.0 * u * f**2, (6.0 * u * u - 2.0) * f**3


class Spherical(Spatial):
    r"""Spherical correlation: ``sph(x + y | group)``, :math:`f(u) = 1 - 1.5 u + 0.5 u^3` for u < 1, else 0.

    The parameters are those of `Spatial`. Positive definite in up to three dimensions.
    """

    tag = "sph"
    words = "spherical correlation"
    wide = 2.0

    @staticmethod
    def curve(u: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The curve and its derivatives."""
        v = np.minimum(u, 1.0)
        return (1.0 - v) ** 2 * (1.0 + 0.5 * v), 1.5 * (v * v - 1.0), np.where(u < 1.0, 3.0 * u, 0.0)


class Matern(Spatial):
    r"""Matern correlation: ``mat(x + y | group)``.

    .. math:: f(u) = \frac{2^{1-\nu}}{\Gamma(\nu)} u^\nu K_\nu(u),

    with the smoothness nu estimated too, or held: ``mat(x + y | group, smoothness=1.5)``. nu = 1/2 is the
    exponential correlation. The other parameters are those of `Spatial`.

    References
    ----------
    Stein (1999), Interpolation of Spatial Data.
    """

    tag = "mat"
    words = "Matern correlation"

    def bound(self, codes: np.ndarray, positions: np.ndarray) -> BoundCorrelation:
        """The bound form."""
        return _BoundMatern(self, codes, positions)


class _BoundSpatial(TableCorrelation):
    """A correlation by distance with its data; phi = log(range) and, with a nugget, its logit."""

    shapes: ClassVar[tuple[str, ...]] = ()

    def __init__(self, structure: Spatial, codes: np.ndarray, positions: np.ndarray) -> None:
        self._structure, self._nugget = structure, structure.nugget
        super().__init__(codes, positions, sort=False, relative=False)
        nugget = ("nugget",) if self._nugget else ()
        self.names = (
            "log(range)",
            *(f"log({one})" for one in self.shapes),
            *(f"logit({one})" for one in nugget),
        )
        self.natural_names = ("range", *self.shapes, *nugget)
        self.kinds = self.natural_names
        self.n_phi = len(self.names)
        self.start = np.zeros(self.n_phi)
        self.start[0] = np.log(structure.wide * self._nearest())
        if self._nugget:
            self.start[-1] = np.log(0.1 / 0.9)
        self.meaning = structure.described()

    def _nearest(self) -> float:
        """Median over rows of the distance to the nearest other place in the group."""
        keys = np.concatenate([[np.inf], self._order.keys])
        keys[keys <= 0.0] = np.inf
        found = [
            np.repeat(keys[bucket.places].min(axis=2), bucket.counts, axis=0).ravel()
            for bucket in self._order.buckets
            if bucket.rows.shape[0] > 1
        ]
        near = np.concatenate(found)
        near = near[np.isfinite(near)]
        return float(np.median(near)) if near.size else 1.0

    def key(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Distance."""
        if self._structure.metric == "euclidean":
            return np.sqrt(((a - b) ** 2).sum(axis=-1)) if a.shape[-1] > 1 else np.abs(a - b)[..., 0]
        if self._structure.metric == "manhattan":
            return np.abs(a - b).sum(axis=-1)
        return np.abs(a - b).max(axis=-1)

    def _share(self, phi: np.ndarray) -> tuple[float, float, float]:
        """1 - nugget and its derivatives in the logit."""
        if not self._nugget:
            return 1.0, 0.0, 0.0
        p = 0.5 * (1.0 + float(np.tanh(0.5 * phi[-1])))
        slope = p * (1.0 - p)
        return 1.0 - p, -slope, -slope * (1.0 - 2.0 * p)

    def _curve(self, phi: np.ndarray, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """f and its derivatives in the coordinates of the curve: (m,), (c, m), (c, c, m)."""
        u = keys * np.exp(-phi[0])
        f, f1, f2 = self._structure.curve(u)
        return f, (-u * f1)[None], (u * f1 + u * u * f2)[None, None]

    def table(self, phi: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """Correlations by distance."""
        return self._share(phi)[0] * self._curve(phi, keys)[0]

    def table_first(self, phi: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """Their derivatives."""
        share, slope, _ = self._share(phi)
        f, first, _ = self._curve(phi, keys)
        return np.concatenate([share * first, slope * f[None]]) if self._nugget else first

    def table_second(self, phi: np.ndarray, keys: np.ndarray, i: int, j: int) -> np.ndarray:
        """Their second derivatives."""
        share, slope, bend = self._share(phi)
        f, first, second = self._curve(phi, keys)
        last = self.n_phi - 1 if self._nugget else self.n_phi
        if i < last and j < last:
            return share * second[i, j]
        if i < last or j < last:
            return slope * first[min(i, j)]
        return bend * f

    def tables(self, phi: np.ndarray, keys: np.ndarray, derivatives: bool) -> tuple[np.ndarray, Any, Any]:
        """Correlations by distance and derivatives, from one evaluation of the curve."""
        share, slope, bend = self._share(phi)
        f, first, second = self._curve(phi, keys)
        if not derivatives or not self._nugget:
            return share * f, share * first, lambda i, j: share * second[i, j]
        last = self.n_phi - 1

        def seconds(i: int, j: int) -> np.ndarray:
            i, j = min(i, j), max(i, j)
            if j < last:
                return share * second[i, j]
            return slope * first[i] if i < last else bend * f

        return share * f, np.concatenate([share * first, slope * f[None]]), seconds

    def natural(self, phi: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Range, shape and nugget."""
        values = np.exp(phi)
        slopes = values.copy()
        if self._nugget:
            share, slope, _ = self._share(phi)
            values[-1], slopes[-1] = 1.0 - share, -slope
        return values, np.diag(slopes)

    def natural_curvature(self, phi: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Weighted second derivatives of range, shape and nugget."""
        bends = np.exp(phi)
        if self._nugget:
            bends[-1] = -self._share(phi)[2]
        return np.diag(weights * bends)

    def inverse(self, values: np.ndarray) -> np.ndarray:
        """Logarithms, and the logit of the nugget."""
        positive = values[: values.shape[0] - int(self._nugget)]
        if not np.all(positive > 0.0):
            raise FloatingPointError(f"{' and '.join(('range', *self.shapes))} must be positive")
        out = np.array(values, dtype=np.float64)
        out[: positive.shape[0]] = np.log(positive)
        if self._nugget:
            if not 0.0 < values[-1] < 1.0:
                raise FloatingPointError(f"the nugget must lie between 0 and 1, got {values[-1]:g}")
            out[-1] = np.log(values[-1] / (1.0 - values[-1]))
        return out

    def new_features(self, data: ResidualData) -> np.ndarray:
        """Places of new rows."""
        tag = f"{self._structure.tag}()"
        return np.column_stack([data.number(name, tag) for name in self._structure.covariates])


class _BoundMatern(_BoundSpatial):
    """The Matern correlation with its data; phi = log(range), log(smoothness), and the logit of a nugget."""

    shapes = ("smoothness",)

    def __init__(self, structure: Spatial, codes: np.ndarray, positions: np.ndarray) -> None:
        super().__init__(structure, codes, positions)
        self.start[1] = 0.0
        self._kept: tuple[bytes, MaternValues] | None = None

    def _curve(self, phi: np.ndarray, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        nu = float(np.exp(phi[1]))
        if not 1e-3 < nu < 50.0:
            raise FloatingPointError("the smoothness is outside 0.001 to 50")
        u = keys * np.exp(-phi[0])
        stamp = phi[:2].tobytes() + keys.tobytes()
        if self._kept is None or self._kept[0] != stamp:
            self._kept = (stamp, matern(u, nu))
        f = self._kept[1]
        first = np.stack([-u * f.f_u, nu * f.f_n])
        mixed = -u * nu * f.f_un
        second = np.stack(
            [
                np.stack([u * f.f_u + u * u * f.f_uu, mixed]),
                np.stack([mixed, nu * f.f_n + nu * nu * f.f_nn]),
            ]
        )
        near = u < 1e-8  # one place twice (with a nugget): f = 1 whatever the parameters
        value = np.where(near, 1.0, f.f)
        first[:, near], second[:, :, near] = 0.0, 0.0
        return value, first, second
