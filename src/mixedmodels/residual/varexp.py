"""Standard deviations that grow exponentially with a covariate."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from mixedmodels.residual.covariate import CovariateVariance, Curve

__all__ = ["VarExp"]


class VarExp(CovariateVariance):
    r"""An exponential function: ``varexp(x)``, ``varexp(fitted)``.

    .. math:: \mathrm{Var}(e_i) = \sigma^2 e^{2\delta v_i}.

    Parameters
    ----------
    covariate : str, optional
        A column; none (or ``"fitted"``) stands for the fitted values.
    by : str, optional
        A factor whose levels have a rate of their own.
    expon : float, optional
        Holds delta.

    References
    ----------
    Pinheiro and Bates (2000), section 5.2.1.
    """

    tag = "varexp"
    words: ClassVar[str] = "variances an exponential function"

    def __init__(self, covariate: str | None = None, *, by: str | None = None, **fixed: float) -> None:
        super().__init__(covariate, by=by, fixed=fixed)

    def curve(self) -> Curve:
        """``expon * v``."""
        return _Exponential()


class _Exponential(Curve):
    names = ("expon",)
    natural_names = ("expon",)
    kinds = ("expon",)

    def log_sd(self, phi: np.ndarray, v: np.ndarray) -> np.ndarray:
        """``expon * v``."""
        return phi[0] * v

    def first(self, phi: np.ndarray, v: np.ndarray) -> np.ndarray:
        """The covariate."""
        return v[None]
