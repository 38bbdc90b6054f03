"""Reference distributions of contrasts of the fixed effects: which degrees of freedom, which covariance."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from mixedmodels.errors import OptionError

if TYPE_CHECKING:
    from mixedmodels.fit.result import LMMFit

__all__ = ["DDF_METHODS", "FTest", "Reference", "f_statistic", "reference_for", "rows_of"]

DDF_METHODS = ("satterthwaite", "kenward-roger", "containment", "residual", "z")
_ALIASES = {"kr": "kenward-roger", "kenward_roger": "kenward-roger", "asymptotic": "z", "wald": "z"}


@dataclass(frozen=True, slots=True)
class FTest:
    """One test of ``L beta = rhs``.

    Attributes
    ----------
    statistic : float
        F, scaled where the method scales it (Kenward-Roger).
    num_df, den_df : float
        Numerator (the rank of L) and denominator degrees of freedom; infinite with ``"z"``.
    p_value : float
    scaling : float
        Factor between the Wald quadratic form over its rank and `statistic`.
    """

    statistic: float
    num_df: int
    den_df: float
    p_value: float
    scaling: float = 1.0


class Reference(Protocol):
    """How contrasts of the fixed effects are referred to t and F distributions.

    Attributes
    ----------
    name : str
        One of `DDF_METHODS`.
    label : str
        For titles and notes: ``"Satterthwaite"``, ``"Kenward-Roger"``, ...
    vcov : ndarray, shape (p, p)
        Covariance of beta that the method uses; adjusted for small samples with Kenward-Roger.
    """

    name: str
    label: str

    @property
    def vcov(self) -> np.ndarray:
        """Covariance of beta that the method uses."""
        ...

    def df(self, L: np.ndarray) -> np.ndarray:
        """Degrees of freedom of each row of L, shape (r,)."""
        ...

    def f_test(self, L: np.ndarray, rhs: np.ndarray | None = None) -> FTest:
        """F test of all rows of L together; rows that depend on others are left out of the rank."""
        ...


def reference_for(fit: LMMFit, ddf: str | float | None = None) -> Reference:
    """The reference distribution `ddf` names.

    Parameters
    ----------
    fit : LMMFit
    ddf : str or float
        ``"satterthwaite"`` (default), ``"kr"``, ``"containment"``, ``"residual"``, ``"z"``, or a number of
        degrees of freedom.
    """
    if isinstance(ddf, (int, float)) and not isinstance(ddf, bool):
        return _Constant(fit, "number", f"{ddf:g} degrees of freedom", float(ddf))
    name = "satterthwaite" if ddf is None else str(ddf).lower()
    name = _ALIASES.get(name, name)
    if name == "z":
        return _Constant(fit, "z", "normal", math.inf)
    if name == "residual":
        return _Constant(fit, "residual", "residual", float(fit.nobs - fit.design.p))
    raise OptionError(f"ddf={ddf!r} is unknown; available: {', '.join(DDF_METHODS)} or a number")


class _Constant:
    """The same degrees of freedom for every contrast."""

    def __init__(self, fit: LMMFit, name: str, label: str, df: float) -> None:
        self.name, self.label, self._df, self._fit = name, label, df, fit

    @property
    def vcov(self) -> np.ndarray:
        return self._fit.vcov

    def df(self, L: np.ndarray) -> np.ndarray:
        return np.full(len(rows_of(L, self._fit.design.p)), self._df)

    def f_test(self, L: np.ndarray, rhs: np.ndarray | None = None) -> FTest:
        from scipy.special import chdtrc, fdtrc

        F, rank = f_statistic(rows_of(L, self._fit.design.p), self._fit.beta, self.vcov, rhs)
        if rank == 0:
            return FTest(math.nan, 0, math.nan, math.nan)
        p = chdtrc(rank, rank * F) if math.isinf(self._df) else fdtrc(rank, self._df, F)
        return FTest(F, rank, self._df, float(p))


def rows_of(L: np.ndarray, p: int) -> np.ndarray:
    """A contrast matrix as float rows of length p."""
    rows = np.atleast_2d(np.asarray(L, dtype=float))
    if rows.ndim != 2 or rows.shape[1] != p:
        raise OptionError(f"a contrast needs {p} numbers, one per fixed effect; got shape {np.shape(L)}")
    return rows


def f_statistic(
    L: np.ndarray, beta: np.ndarray, vcov: np.ndarray, rhs: np.ndarray | None = None
) -> tuple[float, int]:
    """Wald quadratic form of ``L beta - rhs`` over its rank, and the rank (directions with variance)."""
    d = L @ beta - (0.0 if rhs is None else np.asarray(rhs, dtype=float))
    values, vectors = np.linalg.eigh(L @ vcov @ L.T)
    kept = values > math.sqrt(np.finfo(float).eps) * max(values[-1], 0.0) if values.size else values > 0
    rank = int(kept.sum())
    if rank == 0:
        return math.nan, 0
    along = vectors[:, kept].T @ d
    return float((along**2 / values[kept]).sum()) / rank, rank
