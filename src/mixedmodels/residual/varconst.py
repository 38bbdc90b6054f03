"""Standard deviations with a constant part: a constant plus a power, and a constant plus a proportion."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from mixedmodels.errors import OptionError
from mixedmodels.residual.covariate import CovariateVariance, Curve

__all__ = ["VarConstPower", "VarConstProp"]


class VarConstPower(CovariateVariance):
    r"""A constant plus a power: ``varconstpower(x)``.

    .. math:: \mathrm{Var}(e_i) = \sigma^2 (\delta_1 + |v_i|^{\delta_2})^2, \qquad \delta_1 > 0.

    Parameters
    ----------
    covariate : str, optional
        A column; none (or ``"fitted"``) stands for the fitted values.
    by : str, optional
        A factor whose levels have parameters of their own.
    const, power : float, optional
        Hold the constant or the power.

    References
    ----------
    Pinheiro and Bates (2000), section 5.2.1.
    """

    tag = "varconstpower"
    words: ClassVar[str] = "variances a constant plus a power"

    def __init__(self, covariate: str | None = None, *, by: str | None = None, **fixed: float) -> None:
        super().__init__(covariate, by=by, fixed=fixed)

    def curve(self) -> Curve:
        """``log(const + |v|^power)``."""
        return _ConstPower()


class _ConstPower(Curve):
    names = ("log(const)", "power")
    natural_names = ("const", "power")
    kinds = ("const", "power")

    def start(self, v: np.ndarray) -> np.ndarray:
        """A tenth of the typical size of the root, and the power 1/2."""
        typical = float(np.median(np.sqrt(np.abs(v)))) if v.size else 1.0
        return np.array([np.log(0.1 * typical if typical > 0.0 else 0.1), 0.5])

    @staticmethod
    def _parts(phi: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """|v|^power, its slope over itself (log|v|), and the constant's share."""
        size = np.abs(v)
        zero = size == 0.0
        if zero.any() and phi[1] <= 0.0:
            raise FloatingPointError("a covariate is zero and the power is not positive")
        logs = np.log(np.where(zero, 1.0, size))
        power = np.where(zero, 0.0, np.exp(phi[1] * logs))
        const = np.exp(phi[0])
        return power, logs, const / (const + power)

    def log_sd(self, phi: np.ndarray, v: np.ndarray) -> np.ndarray:
        """``log(const + |v|^power)``."""
        return np.log(np.exp(phi[0]) + self._parts(phi, v)[0])

    def first(self, phi: np.ndarray, v: np.ndarray) -> np.ndarray:
        """Share of the constant, and that of the power times log|v|."""
        _, logs, share = self._parts(phi, v)
        return np.stack([share, (1.0 - share) * logs])

    def second(self, phi: np.ndarray, v: np.ndarray, i: int, j: int) -> np.ndarray:
        """``share (1 - share)`` times 1, -log|v| or log^2|v|."""
        _, logs, share = self._parts(phi, v)
        return share * (1.0 - share) * (-logs) ** (i + j)

    def natural(self, phi: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Constant and power."""
        const = np.exp(phi[0])
        return np.array([const, phi[1]]), np.diag([const, 1.0])

    def natural_curvature(self, phi: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """That of the constant."""
        return np.diag([weights[0] * np.exp(phi[0]), 0.0])

    def inverse(self, values: np.ndarray) -> np.ndarray:
        """Logarithm of the constant, and the power."""
        if not values[0] > 0.0:
            raise FloatingPointError(f"const must be positive, got {values[0]:g}")
        return np.array([np.log(values[0]), values[1]])


class VarConstProp(CovariateVariance):
    r"""A constant and a proportional part, independent of each other: ``varconstprop(x)``.

    .. math:: \mathrm{Var}(e_i) = \sigma^2 (a^2 + b^2 v_i^2), \qquad b > 0.

    a is held (at 1 unless ``const`` says otherwise), because sigma takes its part: sigma a is the constant
    standard deviation and sigma b the coefficient of variation.

    Parameters
    ----------
    covariate : str, optional
        A column; none (or ``"fitted"``) stands for the fitted values.
    by : str, optional
        A factor whose levels have a b of their own.
    const : float
        The constant a.
    prop : float, optional
        Holds b.
    """

    tag = "varconstprop"
    words: ClassVar[str] = "variances a constant plus a proportion"

    def __init__(
        self,
        covariate: str | None = None,
        *,
        by: str | None = None,
        const: float = 1.0,
        **fixed: float,
    ) -> None:
        if isinstance(const, (str, bool)) or not const > 0.0:
            raise OptionError(f"varconstprop(): const must be a positive number, got {const!r}")
        self.const = float(const)
        super().__init__(covariate, by=by, fixed=fixed)

    def options_text(self) -> tuple[str, ...]:
        """The constant, unless it is 1."""
        return () if self.const == 1.0 else (f"const={self.const:g}",)

    def curve(self) -> Curve:
        """``log(a^2 + b^2 v^2) / 2``."""
        return _ConstProp(self.const)


class _ConstProp(Curve):
    names = ("log(prop)",)
    natural_names = ("prop",)
    kinds = ("prop",)

    def __init__(self, const: float) -> None:
        self._const = const

    def start(self, v: np.ndarray) -> np.ndarray:
        """Both parts alike at the typical covariate."""
        size = float(np.sqrt(np.mean(v * v))) if v.size else 1.0
        return np.array([np.log(self._const / size if size > 0.0 else self._const)])

    def log_sd(self, phi: np.ndarray, v: np.ndarray) -> np.ndarray:
        """``log(a^2 + b^2 v^2) / 2``."""
        return np.log(np.hypot(self._const, np.exp(phi[0]) * v))

    def _share(self, phi: np.ndarray, v: np.ndarray) -> np.ndarray:
        part = (np.exp(phi[0]) * v) ** 2
        return part / (self._const**2 + part)

    def first(self, phi: np.ndarray, v: np.ndarray) -> np.ndarray:
        """Share of the proportional part."""
        return self._share(phi, v)[None]

    def second(self, phi: np.ndarray, v: np.ndarray, i: int, j: int) -> np.ndarray:
        """``2 share (1 - share)``."""
        share = self._share(phi, v)
        return 2.0 * share * (1.0 - share)

    def natural(self, phi: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The proportion b."""
        prop = np.exp(phi)
        return prop, prop[:, None]

    def natural_curvature(self, phi: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Weighted second derivative of b."""
        return np.diag(weights * np.exp(phi))

    def inverse(self, values: np.ndarray) -> np.ndarray:
        """Logarithm of b."""
        if not values[0] > 0.0:
            raise FloatingPointError(f"prop must be positive, got {values[0]:g}")
        return np.log(values)
