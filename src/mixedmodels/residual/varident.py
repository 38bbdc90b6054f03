"""A standard deviation of its own for each level of a factor."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mixedmodels.errors import DataError, OptionError
from mixedmodels.residual.data import ResidualData
from mixedmodels.residual.structure import BoundCorrelation, BoundVariance, VarianceFunction

__all__ = ["VarIdent"]

# Residuals of least squares so small beside the largest are none.
_LEAST = 1e-9


class VarIdent(VarianceFunction):
    r"""Different variances by level: ``varident(f)``, ``varident(f:g)`` for combinations.

    .. math:: \mathrm{Var}(e_i) = \sigma^2 \delta_{f(i)}^2, \qquad \delta_1 = 1.

    Parameters
    ----------
    factor : str
    ratios : mapping from level to number, optional
        Ratios of standard deviations to that of the reference level that are held, by level.
    by : str, optional
        ``varident(f, by=g)`` is ``varident(f:g)``.
    reference : str, optional
        The level with ratio 1; the first level by default. (nlme takes the level of the first row.)
    **fixed : float
        The same by natural name, or in text: ``varident(sex, Female=0.8)``.

    Examples
    --------
    >>> from mixedmodels.residual import VarIdent
    >>> str(VarIdent("sex", Female=0.8))
    'varident(sex, Female=0.8)'
    """

    tag = "varident"
    kind = "factor"

    def __init__(
        self,
        factor: str,
        ratios: Mapping[str, float] | None = None,
        *,
        by: str | None = None,
        reference: str | float | None = None,
        **fixed: float,
    ) -> None:
        self.reference = None if reference is None else _text(reference)
        super().__init__((factor if by is None else f"{factor}:{by}",), None, {**dict(ratios or {}), **fixed})

    def options_text(self) -> tuple[str, ...]:
        """The reference level, if it is not the first."""
        return () if self.reference is None else (f'reference="{self.reference}"',)

    def bind_rows(self, data: ResidualData) -> BoundVariance:
        """The standard deviations of the rows of `data`."""
        name = self.covariates[0]
        levels = data.factor(name, "varident()")
        m = len(levels.labels)
        if m < 2:
            raise DataError(
                f"{self}: {name!r} has only the level {levels.labels[0]!r}, so there is no ratio to "
                "estimate; "
                "leave it out"
            )
        counts = np.bincount(levels.codes, minlength=m)
        alone = np.flatnonzero(counts == 1)
        if alone.size and not self.fixed:
            raise DataError(
                f"{self}: level {levels.labels[alone[0]]!r} of {name} has one row"
                f"{f' ({alone.size} such levels)' if alone.size > 1 else ''}, so its variance cannot be "
                "estimated; merge levels or leave the row out"
            )
        reference = levels.labels[0] if self.reference is None else self.reference
        if reference not in levels.labels:
            raise OptionError(
                f"{self}: {reference!r} is not a level of {name}; levels: {', '.join(levels.labels[:20])}"
            )
        for key in self.fixed:
            label = _level(key)
            if label not in levels.labels:
                raise OptionError(
                    f"{self}: {label!r} is not a level of {name}; levels: {', '.join(levels.labels[:20])}"
                )
            if label == reference:
                raise OptionError(
                    f"{self}: {label!r} is the level that the others are compared with, so its ratio is 1; "
                    "hold the ratios of other levels"
                )
        return _BoundIdent(name, levels.codes, levels.labels, levels.labels.index(reference))

    def held(self, bound: BoundCorrelation | BoundVariance) -> dict[str, float]:
        """Ratios that are held."""
        return {f"sd_ratio[{_level(key)}]": value for key, value in self.fixed.items()}


def _text(level: str | float) -> str:
    """A level as its label."""
    return level if isinstance(level, str) else f"{level:g}"


def _level(key: str) -> str:
    """The level that an option names: ``Female`` or ``sd_ratio[Female]``."""
    return key[len("sd_ratio[") : -1] if key.startswith("sd_ratio[") else key


class _BoundIdent(BoundVariance):
    """Standard deviations by level; phi are logarithms of ratios to the reference level."""

    def __init__(self, name: str, codes: np.ndarray, labels: tuple[str, ...], reference: int) -> None:
        self._name, self._codes, self._labels, self._reference = name, codes, labels, reference
        self.row_key = codes
        others = [place for place in range(len(labels)) if place != reference]
        self._indicators = (codes == np.array(others)[:, None]).astype(np.float64)
        self.n_phi = len(labels) - 1
        self._others = others
        self.names = tuple(f"log(sd_ratio[{labels[place]}])" for place in others)
        self.natural_names = tuple(f"sd_ratio[{labels[place]}]" for place in others)
        self.kinds = ("sd_ratio",) * self.n_phi
        self.start = np.zeros(self.n_phi)
        self.meaning = f"variances by {name}"

    def start_from(self, r: np.ndarray) -> np.ndarray:
        """Ratios of root mean squares: levels may have units of their own."""
        size = np.sqrt(np.bincount(self._codes, r * r) / np.bincount(self._codes))
        size = np.log(np.maximum(size, max(_LEAST * float(size.max()), 1e-300)))
        return np.asarray(size[self._others] - size[self._reference])

    def log_sd(self, phi: np.ndarray) -> np.ndarray:
        """Logarithm of the ratio of each row's level."""
        ratios = np.zeros(self.n_phi + 1)
        ratios[self._others] = phi
        return ratios[self._codes]

    def first(self, phi: np.ndarray) -> np.ndarray:
        """Indicators of the levels."""
        return self._indicators

    def natural(self, phi: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Ratios."""
        ratios = np.exp(phi)
        return ratios, np.diag(ratios)

    def natural_curvature(self, phi: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Weighted second derivatives of the ratios."""
        return np.diag(weights * np.exp(phi))

    def inverse(self, values: np.ndarray) -> np.ndarray:
        """Logarithms."""
        if not np.all(values > 0.0):
            raise FloatingPointError("a ratio of standard deviations must be positive")
        return np.log(values)

    def on(self, data: ResidualData, fitted: np.ndarray | None) -> BoundVariance:
        """The same ratios for new rows."""
        levels = data.factor(self._name, "varident()")
        (wrong,) = np.nonzero(levels.codes < 0)
        if wrong.size:
            raise DataError(
                f"row {data.place(wrong[0])} of the new data has a level of {self._name} that the fit "
                "has not "
                f"seen (known: {', '.join(self._labels[:20])}), so its variance is unknown; remove the row"
            )
        return _BoundIdent(self._name, levels.codes, self._labels, self._reference)
