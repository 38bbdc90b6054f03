"""Variance functions of one covariate (or of the fitted values), with parameters by stratum."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from mixedmodels.errors import DataError
from mixedmodels.residual.data import Need, ResidualData
from mixedmodels.residual.structure import BoundVariance, VarianceFunction

__all__ = ["CovariateVariance", "Curve"]

FITTED = "fitted"


class Curve:
    """A logarithm of standard deviations as a function of one covariate and a few parameters.

    Attributes
    ----------
    names, natural_names, kinds : tuple of str
    """

    names: ClassVar[tuple[str, ...]]
    natural_names: ClassVar[tuple[str, ...]]
    kinds: ClassVar[tuple[str, ...]]

    def start(self, v: np.ndarray) -> np.ndarray:
        """Coordinates at the start."""
        return np.zeros(len(self.names))

    def log_sd(self, phi: np.ndarray, v: np.ndarray) -> np.ndarray:
        """Values, shape (n,)."""
        raise NotImplementedError

    def first(self, phi: np.ndarray, v: np.ndarray) -> np.ndarray:
        """Derivatives, shape (q, n)."""
        raise NotImplementedError

    def second(self, phi: np.ndarray, v: np.ndarray, i: int, j: int) -> np.ndarray | None:
        """A second derivative, shape (n,); None for zero."""
        return None

    def natural(self, phi: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Natural values and their Jacobian."""
        return phi.copy(), np.eye(phi.shape[0])

    def natural_curvature(self, phi: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Weighted second derivatives of natural values, shape (q, q)."""
        return np.zeros((phi.shape[0],) * 2)

    def inverse(self, values: np.ndarray) -> np.ndarray:
        """Coordinates of natural values."""
        return np.array(values, dtype=np.float64)


class CovariateVariance(VarianceFunction):
    """Base of variance functions of one covariate.

    Parameters
    ----------
    covariate : str, optional
        A column; none (or ``"fitted"``) stands for the fitted values.
    by : str, optional
        A factor whose levels have parameters of their own.
    fixed : mapping from natural name to number, optional
    """

    def __init__(
        self, covariate: str | None = None, *, by: str | None = None, fixed: Mapping[str, float] | None = None
    ) -> None:
        self.uses_fitted = covariate is None or covariate == FITTED
        super().__init__(() if covariate is None or self.uses_fitted else (covariate,), by, fixed)

    refuses_zero: ClassVar[bool] = False

    def curve(self) -> Curve:
        """The function."""
        raise NotImplementedError

    def needs(self) -> tuple[Need, ...]:
        """Covariate and strata."""
        return super().needs()

    def bind_rows(self, data: ResidualData) -> BoundVariance:
        """The standard deviations of the rows of `data`."""
        v = np.ones(data.n) if self.uses_fitted else data.number(self.covariates[0], f"{self.tag}()")
        if not self.uses_fitted:
            self.check(v, data)
        codes, labels = None, None
        if self.by is not None:
            strata = data.factor(self.by, f"the strata of {self.tag}()")
            codes, labels = strata.codes, strata.labels
        return _BoundCovariate(self, self.curve(), v, codes, labels)

    def check(self, v: np.ndarray, data: ResidualData | None) -> None:
        """Refuse covariates of zero where the function has no finite value there."""
        if not self.refuses_zero:
            return
        (wrong,) = np.nonzero(v == 0.0)
        if wrong.size:
            name = "the fitted value" if self.uses_fitted else self.covariates[0]
            row = int(wrong[0]) if data is None else data.place(wrong[0])
            more = f" ({wrong.size} such rows)" if wrong.size > 1 else ""
            raise DataError(
                f"{self}: {name} is 0 in row {row}{more}, where a power of it is 0 or infinite; shift "
                "the covariate, "
                "remove these rows or use varconstpower() or varexp()"
            )

    def _spelled(self) -> str:
        text = super()._spelled()
        if self.uses_fitted:
            inner = text[len(self.tag) + 1 : -1]
            return f"{self.tag}({FITTED}{', ' + inner if inner else ''})"
        return text


class _BoundCovariate(BoundVariance):
    """A variance function of one covariate with its data."""

    def __init__(
        self,
        structure: CovariateVariance,
        curve: Curve,
        v: np.ndarray,
        codes: np.ndarray | None,
        labels: tuple[str, ...] | None,
        start: np.ndarray | None = None,
    ) -> None:
        self._structure, self._curve, self._v, self._codes, self._labels = structure, curve, v, codes, labels
        self._q = len(curve.names)
        self.row_key = v if codes is None else None
        self.needs_fitted = structure.uses_fitted
        strata = ("",) if labels is None else tuple(f"[{label}]" for label in labels)
        self.n_phi = self._q * len(strata)
        self.names = tuple(f"{name}{s}" for s in strata for name in curve.names)
        self.natural_names = tuple(f"{name}{s}" for s in strata for name in curve.natural_names)
        self.kinds = curve.kinds * len(strata)
        if start is None:
            start = np.concatenate([curve.start(v[rows]) for rows in self._rows()])
        self.start = start
        of = "the fitted values" if structure.uses_fitted else structure.covariates[0]
        by = "" if structure.by is None else f", by {structure.by}"
        self.meaning = f"{structure.words} of {of}{by}"  # type: ignore[attr-defined]

    def _rows(self) -> list[np.ndarray]:
        if self._codes is None or self._labels is None:
            return [np.arange(self._v.shape[0])]
        return [np.flatnonzero(self._codes == code) for code in range(len(self._labels))]

    def log_sd(self, phi: np.ndarray) -> np.ndarray:
        """Logarithms of the standard deviations."""
        out = np.empty(self._v.shape[0])
        for s, rows in enumerate(self._rows()):
            out[rows] = self._curve.log_sd(phi[s * self._q : (s + 1) * self._q], self._v[rows])
        return out

    def first(self, phi: np.ndarray) -> np.ndarray:
        """Their derivatives."""
        out = np.zeros((self.n_phi, self._v.shape[0]))
        for s, rows in enumerate(self._rows()):
            mine = slice(s * self._q, (s + 1) * self._q)
            out[mine, rows] = self._curve.first(phi[mine], self._v[rows])
        return out

    def second(self, phi: np.ndarray, i: int, j: int) -> np.ndarray | None:
        """A second derivative; None for zero."""
        s, other = i // self._q, j // self._q
        if s != other:
            return None
        rows = self._rows()[s]
        found = self._curve.second(
            phi[s * self._q : (s + 1) * self._q], self._v[rows], i % self._q, j % self._q
        )
        if found is None:
            return None
        out = np.zeros(self._v.shape[0])
        out[rows] = found
        return out

    def natural(self, phi: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Natural values of all strata."""
        values, jacobian = np.empty(self.n_phi), np.zeros((self.n_phi, self.n_phi))
        for start in range(0, self.n_phi, self._q):
            mine = slice(start, start + self._q)
            values[mine], jacobian[mine, mine] = self._curve.natural(phi[mine])
        return values, jacobian

    def natural_curvature(self, phi: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Weighted second derivatives of all strata."""
        out = np.zeros((self.n_phi, self.n_phi))
        for start in range(0, self.n_phi, self._q):
            mine = slice(start, start + self._q)
            out[mine, mine] = self._curve.natural_curvature(phi[mine], weights[mine])
        return out

    def inverse(self, values: np.ndarray) -> np.ndarray:
        """Coordinates of natural values."""
        out = np.empty(self.n_phi)
        for start in range(0, self.n_phi, self._q):
            mine = slice(start, start + self._q)
            out[mine] = self._curve.inverse(values[mine])
        return out

    def with_fitted(self, fitted: np.ndarray) -> BoundVariance:
        """The same with these fitted values as covariate."""
        if not self.needs_fitted:
            return self
        self._structure.check(fitted, None)
        return _BoundCovariate(self._structure, self._curve, fitted, self._codes, self._labels, self.start)

    def on(self, data: ResidualData, fitted: np.ndarray | None) -> BoundVariance:
        """The same function for rows of new data."""
        structure = self._structure
        if structure.uses_fitted:
            if fitted is None:
                raise DataError(f"{structure}: variances of new rows need their fitted values")
            v = fitted
        else:
            v = data.number(structure.covariates[0], f"{structure.tag}()")
            structure.check(v, data)
        codes = None
        if structure.by is not None:
            codes = data.factor(structure.by, f"the strata of {structure.tag}()").codes
            (wrong,) = np.nonzero(codes < 0)
            if wrong.size:
                raise DataError(
                    f"{structure}: row {data.place(wrong[0])} of the new data has a level of "
                    f"{structure.by} that "
                    "the fit has not seen, so its variance is unknown; remove the row"
                )
        return _BoundCovariate(structure, self._curve, v, codes, self._labels, self.start)
