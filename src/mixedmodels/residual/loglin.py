"""Log-linear regression of the standard deviation."""

from __future__ import annotations

import numpy as np

from mixedmodels.errors import DataError, OptionError
from mixedmodels.residual.data import ResidualData
from mixedmodels.residual.structure import BoundVariance, VarianceFunction

__all__ = ["LogLinear"]


class LogLinear(VarianceFunction):
    r"""A linear predictor of the logarithm of the standard deviation: ``loglin(x + z)``.

    .. math:: \log \mathrm{sd}(e_i) = \log\sigma + \sum_k c_k t_{ik}.

    Parameters
    ----------
    *covariates : str
        Numeric columns or expressions; a factor is said by `VarIdent`, multiplied.
    **fixed : float
        ``**{"coef[x]": 0.5}`` holds a coefficient; in text ``loglin(x + z, x=0.5)``.
    """

    tag = "loglin"

    def __init__(self, *covariates: str, **fixed: float) -> None:
        if not covariates:
            raise OptionError("loglin() needs covariates, for instance loglin(x + z)")
        if len(set(covariates)) < len(covariates):
            raise OptionError(f"loglin({' + '.join(covariates)}): a covariate is named twice; name it once")
        super().__init__(tuple(covariates), None, fixed)

    def held(self, bound: object) -> dict[str, float]:
        """Coefficients that are held; a bare covariate names its coefficient."""
        return {
            (f"coef[{name}]" if name in self.covariates else name): value
            for name, value in self.fixed.items()
        }

    def bind_rows(self, data: ResidualData) -> BoundVariance:
        """The standard deviations of the rows of `data`."""
        T = np.stack([data.number(name, "loglin()") for name in self.covariates])
        centred = T - T.mean(axis=1, keepdims=True)
        size = np.sqrt((centred**2).sum(axis=1))
        constant = np.flatnonzero(size <= 1e-12 * np.sqrt((T**2).sum(axis=1)))
        if constant.size:
            raise DataError(
                f"{self}: {self.covariates[constant[0]]!r} is constant, so its coefficient cannot be "
                "told from "
                "sigma; leave it out"
            )
        if np.linalg.matrix_rank(centred / size[:, None], tol=1e-8) < T.shape[0]:
            raise DataError(
                f"{self}: the covariates depend on each other linearly, so their coefficients cannot be told "
                "apart; leave one out"
            )
        return _BoundLogLinear(self, T)


class _BoundLogLinear(BoundVariance):
    """Log-linear standard deviations with their data; phi are the coefficients."""

    def __init__(self, structure: LogLinear, T: np.ndarray) -> None:
        self._structure, self._T = structure, T
        self.n_phi = T.shape[0]
        self.names = self.natural_names = tuple(f"coef[{name}]" for name in structure.covariates)
        self.kinds = ("coefficient",) * self.n_phi
        self.start = np.zeros(self.n_phi)
        self.meaning = f"log-linear standard deviations in {' + '.join(structure.covariates)}"

    def log_sd(self, phi: np.ndarray) -> np.ndarray:
        """``sum_k c_k t_k``."""
        return phi @ self._T

    def first(self, phi: np.ndarray) -> np.ndarray:
        """The covariates."""
        return self._T

    def on(self, data: ResidualData, fitted: np.ndarray | None) -> BoundVariance:
        """The same coefficients for rows of new data."""
        names = self._structure.covariates
        return _BoundLogLinear(self._structure, np.stack([data.number(name, "loglin()") for name in names]))
