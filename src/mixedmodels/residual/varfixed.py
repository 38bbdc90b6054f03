"""Known variances, up to sigma."""

from __future__ import annotations

import numpy as np

from mixedmodels.errors import DataError
from mixedmodels.residual.data import ResidualData
from mixedmodels.residual.structure import BoundVariance, VarianceFunction

__all__ = ["VarFixed"]


class VarFixed(VarianceFunction):
    r"""Variances proportional to a column: ``varfixed(v)``.

    .. math:: \mathrm{Var}(e_i) = \sigma^2 v_i, \qquad v_i > 0.

    ``weights=w`` of a fit is ``varfixed(1/w)``.

    Parameters
    ----------
    variance : str
        A column or an expression, such as ``"I(1/w)"``.
    """

    tag = "varfixed"

    def __init__(self, variance: str) -> None:
        super().__init__((variance,), None, None)

    def bind_rows(self, data: ResidualData) -> BoundVariance:
        """The standard deviations of the rows of `data`."""
        return _BoundFixed(self, data)


class _BoundFixed(BoundVariance):
    """Known variances of the rows."""

    n_phi = 0
    names = ()
    natural_names = ()
    kinds = ()
    start = np.zeros(0)

    def __init__(self, structure: VarFixed, data: ResidualData) -> None:
        self._structure = structure
        name = structure.covariates[0]
        values = data.number(name, "varfixed()")
        (wrong,) = np.nonzero(~(values > 0.0))
        if wrong.size:
            raise DataError(
                f"{structure}: variances must be positive, but row {data.place(wrong[0])} has "
                f"{values[wrong[0]]:g}"
                f"{f' ({wrong.size} such rows)' if wrong.size > 1 else ''}; remove these rows or "
                f"correct {name!r}"
            )
        self._log_sd = 0.5 * np.log(values)
        self.meaning = f"variances proportional to {name}"

    def log_sd(self, phi: np.ndarray) -> np.ndarray:
        """Half the logarithm of the variances."""
        return self._log_sd

    def first(self, phi: np.ndarray) -> np.ndarray:
        """There is no parameter."""
        return np.zeros((0, self._log_sd.shape[0]))

    def on(self, data: ResidualData, fitted: np.ndarray | None) -> BoundVariance:
        """Variances of new rows."""
        return _BoundFixed(self._structure, data)
