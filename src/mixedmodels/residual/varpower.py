"""Standard deviations that are a power of a covariate."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from mixedmodels.residual.covariate import CovariateVariance, Curve

__all__ = ["VarPower"]


class VarPower(CovariateVariance):
    r"""A power of the absolute value: ``varpower(x)``, ``varpower(fitted)``.

    .. math:: \mathrm{Var}(e_i) = \sigma^2 |v_i|^{2\delta}.

    Parameters
    ----------
    covariate : str, optional
        A column without zeros; none (or ``"fitted"``) stands for the fitted values.
    by : str, optional
        A factor whose levels have a power of their own.
    power : float, optional
        Holds the power.

    References
    ----------
    Pinheiro and Bates (2000), section 5.2.1.
    """

    tag = "varpower"
    words: ClassVar[str] = "variances a power"
    refuses_zero = True

    def __init__(self, covariate: str | None = None, *, by: str | None = None, **fixed: float) -> None:
        super().__init__(covariate, by=by, fixed=fixed)

    def curve(self) -> Curve:
        """``power * log|v|``."""
        return _Power()


class _Power(Curve):
    names = ("power",)
    natural_names = ("power",)
    kinds = ("power",)

    def log_sd(self, phi: np.ndarray, v: np.ndarray) -> np.ndarray:
        """``power * log|v|``."""
        return phi[0] * np.log(np.abs(v))

    def first(self, phi: np.ndarray, v: np.ndarray) -> np.ndarray:
        """``log|v|``."""
        return np.log(np.abs(v))[None]
