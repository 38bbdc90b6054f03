"""Reference distributions of contrasts of the fixed effects: which degrees of freedom, which covariance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from mixedmodels.errors import OptionError
from mixedmodels.inference.ddf.tails import f_tail

if TYPE_CHECKING:
    from mixedmodels.fit.result import LMMFit

__all__ = [
    "DDF_METHODS",
    "ConstantDF",
    "FTest",
    "Reference",
    "f_statistic",
    "reference_for",
    "row_basis",
    "rows_of",
    "untested_notes",
]

DDF_METHODS = ("satterthwaite", "kenward-roger", "kr-full", "containment", "residual", "z")
_ALIASES = {
    "kr": "kenward-roger",
    "kenward_roger": "kenward-roger",
    "kr-linear": "kenward-roger",
    "kr_full": "kr-full",
    "kenward-roger-full": "kr-full",
    "asymptotic": "z",
    "wald": "z",
}


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
    notes : tuple of str
        What a reader of the numbers must know.
    vcov : ndarray, shape (p, p)
        Covariance of beta that the method uses; adjusted for small samples with Kenward-Roger.
    """

    name: str
    label: str
    notes: tuple[str, ...]

    @property
    def vcov(self) -> np.ndarray:
        """Covariance of beta that the method uses."""
        ...

    def df(self, L: np.ndarray) -> np.ndarray:
        """Degrees of freedom of each row of L, shape (r,)."""
        ...

    def f_test(self, L: np.ndarray, rhs: np.ndarray | None = None, as_given: bool = False) -> FTest:
        """F test of all rows of L together; rows that depend on others are left out of the rank.

        Satterthwaite's denominator degrees of freedom of several rows depend on their basis; a canonical one
        is taken unless the rows are to be used `as_given`.
        """
        ...


def reference_for(fit: LMMFit, ddf: str | float | None = None) -> Reference:
    """The reference distribution `ddf` names.

    Parameters
    ----------
    fit : LMMFit
    ddf : str or float
        ``"satterthwaite"`` (default of linear models), ``"kr"``, ``"kr-full"`` (with second derivatives of V
        for structured residuals), ``"containment"``, ``"residual"``, ``"z"`` (default of generalised ones), a
        number of degrees of freedom, or ``"auto"``: Satterthwaite, from the
        average information where the exact one would cost more than a moment.

    Raises
    ------
    OptionError
        An unknown method, a number that is not positive, Kenward-Roger for a fit by maximum likelihood.
    """
    if not isinstance(ddf, (str, bool)) and isinstance(ddf, Real):
        if not ddf > 0.0:
            raise OptionError(f"ddf={ddf!r}: degrees of freedom must be positive")
        return ConstantDF(fit, "number", f"{ddf:g} degrees of freedom", float(ddf))
    name = "default" if ddf is None else str(ddf).lower()
    name = _ALIASES.get(name, name)
    if not fit._is_linear:
        if name in ("satterthwaite", "kenward-roger", "kr-full", "containment"):
            raise OptionError(
                f"ddf={ddf!r} belongs to linear mixed models; tests of a generalised one use the normal "
                'distribution (ddf="z", the default) or a number of degrees of freedom'
            )
        name = "z" if name in ("default", "auto") else name
    if name in ("default", "auto") and getattr(fit._options, "variances", None) is not None:
        name = "z"  # known variances: there is nothing to correct for
    if name == "default":
        name = "satterthwaite"
    if name == "auto":
        from mixedmodels.inference.ddf.satterthwaite import automatic

        return automatic(fit)
    if name == "satterthwaite":
        from mixedmodels.inference.ddf.satterthwaite import Satterthwaite

        return Satterthwaite(fit)
    if name in ("kenward-roger", "kr-full"):
        if fit._options.priors is not None:
            raise OptionError(
                'ddf="kr" is for restricted maximum likelihood, and this model has priors; '
                'use "satterthwaite"'
            )
        from mixedmodels.inference.ddf.kenward_roger import KenwardRoger

        if name == "kr-full" and fit.design.residual is not None:
            from mixedmodels.inference.ddf.kenward_roger_full import KenwardRogerFull

            return KenwardRogerFull(fit)
        return KenwardRoger(fit)
    if name == "containment":
        from mixedmodels.inference.ddf.containment import Containment

        return Containment(fit)
    if name == "z":
        return ConstantDF(fit, "z", "normal distribution", math.inf)
    if name == "residual":
        return ConstantDF(fit, "residual", "residual degrees of freedom", float(fit.nobs - fit.design.p))
    raise OptionError(f"ddf={ddf!r} is unknown; available: {', '.join(DDF_METHODS)} or a number")


class ConstantDF:
    """The same degrees of freedom for every contrast."""

    def __init__(self, fit: LMMFit, name: str, label: str, df: float) -> None:
        self.name, self.label, self._df, self._fit = name, label, df, fit
        self.notes: tuple[str, ...] = ()
        if not fit._is_linear:
            self.notes = untested_notes(fit.design.x_names, fit.vcov)
            if fit._options.equal:  # type: ignore[attr-defined]
                self.notes += ("coefficients restricted to be equal count as one in joint tests",)

    @property
    def vcov(self) -> np.ndarray:
        """Covariance of beta, as of the fit."""
        return self._fit.vcov

    def df(self, L: np.ndarray) -> np.ndarray:
        """The same number for each row of L."""
        return np.full(len(rows_of(L, self._fit.design.p)), self._df)

    def f_test(self, L: np.ndarray, rhs: np.ndarray | None = None, as_given: bool = False) -> FTest:
        """F test of all rows of L together."""
        rows, beta, vcov = rows_of(L, self._fit.design.p), self._fit.beta, self.vcov
        if not self._fit._is_linear:
            rows, rhs, beta, vcov = _unrestricted(self._fit, rows, rhs)
        rows, values = row_basis(rows, rhs, vcov)
        F, rank = f_statistic(rows, beta, vcov, values)
        if rank == 0:
            return FTest(math.nan, 0, math.nan, math.nan)
        return FTest(F, rank, self._df, f_tail(F, rank, self._df))


def _unrestricted(
    fit: Any, L: np.ndarray, rhs: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray, np.ndarray]:
    """Hypotheses about coefficients that are held or equal, as hypotheses about the free ones.

    With ``beta = a + M phi``, ``L beta = r`` is ``L M phi = r - L a``; rows about held ones alone are left
    out.
    """
    options = fit._options
    if not (options.fixed or options.equal):
        return L, rhs, fit.beta, fit.vcov
    columns = fit.generalised.predictors[getattr(fit, "position", 0)].columns
    a, M = fit.objective.a[columns], fit.objective.M[columns]
    M = M[:, (M != 0.0).any(axis=0)]
    back = np.linalg.pinv(M)
    rows = L @ M
    free = (rows != 0.0).any(axis=1)
    values = np.zeros(len(L)) if rhs is None else np.broadcast_to(np.asarray(rhs, dtype=float), (len(L),))
    return rows[free], (values - L @ a)[free], back @ (fit.beta - a), back @ fit.vcov @ back.T


def rows_of(L: np.ndarray, p: int) -> np.ndarray:
    """A contrast matrix as float rows of length p."""
    rows = np.atleast_2d(np.asarray(L, dtype=float))
    if rows.ndim != 2 or rows.shape[1] != p:
        raise OptionError(f"a contrast needs {p} numbers, one per fixed effect; got shape {np.shape(L)}")
    return rows


def row_basis(L: np.ndarray, rhs: np.ndarray | None, vcov: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Linearly independent rows that say the same as ``L beta = rhs``, and their right-hand sides.

    L itself where its rows are independent. Dependence is judged with the coefficients in units of their
    standard errors, so that it does not depend on the units of the covariates.

    Parameters
    ----------
    L : ndarray, shape (r, p)
    rhs : ndarray, shape (r,), or None
        Zero by default.
    vcov : ndarray, shape (p, p)

    Raises
    ------
    OptionError
        Rows that depend on others contradict them.
    """
    values = np.zeros(len(L)) if rhs is None else np.broadcast_to(np.asarray(rhs, dtype=float), (len(L),))
    if L.shape[0] == 0 or L.shape[1] == 0:
        return L[:0], values[:0]
    scaled = L * np.sqrt(np.maximum(vcov.diagonal(), 0.0))
    lengths = np.sqrt((scaled * scaled).sum(axis=1))
    if (lengths > 0.0).all() and len(L) == 1:
        return L, values
    lengths[lengths == 0.0] = 1.0
    left, sizes, _ = np.linalg.svd(scaled / lengths[:, None], full_matrices=False)
    rank = int((sizes > 1e-9 * max(sizes[0], 1e-300)).sum()) if sizes[0] > 0.0 else 0
    if rank == len(L):
        return L, values
    mixing = left[:, :rank].T / lengths
    residual = values / lengths - left[:, :rank] @ (left[:, :rank].T @ (values / lengths))
    if (np.abs(residual) > 1e-8 * max(float(np.abs(values / lengths).max()), 1e-300)).any():
        raise OptionError(
            "the hypotheses contradict each other: rows of L that depend on others have other right-hand "
            "sides; remove them"
        )
    return mixing @ L, mixing @ values


def f_statistic(
    L: np.ndarray, beta: np.ndarray, vcov: np.ndarray, rhs: np.ndarray | None = None
) -> tuple[float, int]:
    """Wald quadratic form of ``L beta - rhs`` over the number of rows, and that number.

    The rows must be independent; see `row_basis`.
    """
    rank = len(L)
    if rank == 0:
        return math.nan, 0
    d = L @ beta - (0.0 if rhs is None else np.asarray(rhs, dtype=float))
    middle = L @ vcov @ L.T
    scale = np.sqrt(middle.diagonal())
    if not (scale > 0.0).all():
        return math.nan, rank
    d = d / scale
    return float(d @ np.linalg.solve(middle / scale / scale[:, None], d)) / rank, rank


def untested_notes(names: Sequence[str], vcov: np.ndarray) -> tuple[str, ...]:
    """Which coefficients have no standard error, and why, from their covariance (0 or NaN there)."""
    variances = vcov.diagonal()
    if (variances > 0.0).all():
        return ()
    notes = []
    held = [name for name, v in zip(names, variances, strict=True) if v == 0.0]
    flat = [name for name, v in zip(names, variances, strict=True) if v != v]
    if held:
        notes.append(f"held at a value, without standard error or test: {', '.join(held)}")
    if flat:
        notes.append(f"no standard error, the likelihood is flat in their direction: {', '.join(flat)}")
    return tuple(notes)
