"""Likelihood-ratio comparison of models fitted to the same data."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import DataError, OptionError

if TYPE_CHECKING:
    from mixedmodels.fit.result import LMMFit

__all__ = ["Comparison", "compare"]


@dataclass(frozen=True, slots=True, repr=False)
class Comparison:
    """A table of models, smallest first, each tested against the one before it.

    Attributes
    ----------
    formulas : tuple of str
    npar : tuple of int
        Free parameters.
    loglik, aic, bic : tuple of float
    chisq, p_value : tuple of float
        Likelihood-ratio statistic and its chi-squared p-value; NaN in the first row and where a model has no
        more parameters than the one before.
    df : tuple of int
    notes : tuple of str
    """

    formulas: tuple[str, ...]
    npar: tuple[int, ...]
    loglik: tuple[float, ...]
    aic: tuple[float, ...]
    bic: tuple[float, ...]
    chisq: tuple[float, ...]
    df: tuple[int, ...]
    p_value: tuple[float, ...]
    notes: tuple[str, ...] = ()
    _native: Callable[[dict[str, Any]], Any] | None = field(default=None, compare=False)

    def columns(self) -> dict[str, np.ndarray]:
        """The table as arrays by column name."""
        return {
            "formula": np.array(self.formulas, dtype=object),
            "npar": np.array(self.npar),
            "aic": np.array(self.aic),
            "bic": np.array(self.bic),
            "loglik": np.array(self.loglik),
            "chisq": np.array(self.chisq),
            "df": np.array(self.df),
            "p_value": np.array(self.p_value),
        }

    def to_frame(self) -> Any:
        """The table in the data-frame library of the first fit's data."""
        columns = self.columns()
        return columns if self._native is None else self._native(columns)

    def __str__(self) -> str:
        from mixedmodels.report.comparison import render_comparison

        return render_comparison(self)

    __repr__ = __str__


def compare(*fits: LMMFit) -> Comparison:
    r"""Compare models of one response by likelihood ratios, AIC and BIC.

    .. math:: \chi^2 = 2(\ell_1 - \ell_0) \sim \chi^2_{p_1 - p_0}

    Restricted likelihoods are comparable only between models with the same fixed part: where the fixed parts
    differ, models fitted by REML are refitted by maximum likelihood, and a note says so.

    Parameters
    ----------
    *fits : LMMFit
        Two or more fits.

    Returns
    -------
    Comparison

    Raises
    ------
    DataError
        The models were fitted to different rows or different responses.
    OptionError
        Fewer than two fits.

    Examples
    --------
    >>> import mixedmodels as mm
    >>> df = mm.load_dataset("sleepstudy", backend="dict")
    >>> one = mm.lmm("Reaction ~ Days + (1 | Subject)", df, reml=False)
    >>> two = mm.lmm("Reaction ~ Days + (Days | Subject)", df, reml=False)
    >>> round(mm.compare(one, two).chisq[1], 3)
    42.139
    """
    if len(fits) < 2:
        raise OptionError("compare() needs two or more fits")
    for fit in fits:
        if not hasattr(fit, "refit_ml"):
            raise OptionError(f"compare() takes fits, got {type(fit).__name__}")
    _check_same_data(fits)
    notes = []
    same_fixed = all(_same_columns(fits[0].design.X, fit.design.X) for fit in fits[1:])
    kinds = {fit.is_reml for fit in fits}
    if True in kinds and (len(kinds) > 1 or not same_fixed):
        why = "their fixed parts differ" if len(kinds) == 1 else "some were fitted by maximum likelihood"
        notes.append(f"note: models fitted by REML were refitted by maximum likelihood because {why}")
        fits = tuple(fit.refit_ml() if fit.is_reml else fit for fit in fits)
    fits = tuple(sorted(fits, key=lambda fit: fit.df_model))
    chisq, df, p_value = [float("nan")], [0], [float("nan")]
    for small, large in itertools.pairwise(fits):
        difference = large.df_model - small.df_model
        df.append(difference)
        if difference == 0:
            chisq.append(float("nan"))
            p_value.append(float("nan"))
            continue
        statistic = 2.0 * (large.loglik - small.loglik)
        if statistic < -1e-6 * (1.0 + abs(small.loglik)):
            notes.append(
                f"note: {large.formula_text} has more parameters than {small.formula_text} but the lower "
                "likelihood: the models are not nested, and the test between them means nothing"
            )
        statistic = max(statistic, 0.0)
        chisq.append(statistic)
        p_value.append(_chi_squared_tail(statistic, difference))
    return Comparison(
        formulas=tuple(fit.formula_text for fit in fits),
        npar=tuple(fit.df_model for fit in fits),
        loglik=tuple(fit.loglik for fit in fits),
        aic=tuple(fit.aic for fit in fits),
        bic=tuple(fit.bic for fit in fits),
        chisq=tuple(chisq),
        df=tuple(df),
        p_value=tuple(p_value),
        notes=tuple(notes),
        _native=fits[0]._native,
    )


def _chi_squared_tail(statistic: float, df: int) -> float:
    from scipy.special import gammaincc

    return float(gammaincc(0.5 * df, 0.5 * statistic))


def _check_same_data(fits: tuple[Any, ...]) -> None:
    sizes = [fit.nobs for fit in fits]
    if len(set(sizes)) > 1:
        counts = ", ".join(map(str, sizes))
        raise DataError(
            f"the models were fitted to different rows ({counts} observations); fit them to the same rows: "
            "drop the rows with missing values in any of their variables first"
        )
    first = fits[0].design
    for fit in fits[1:]:
        if not np.array_equal(first.y, fit.design.y):
            raise DataError(
                "the models have different responses; likelihoods of different data cannot be compared"
            )
        ours, theirs = first.weights, fit.design.weights
        if (ours is None) != (theirs is None) or (ours is not None and not np.array_equal(ours, theirs)):
            raise DataError(
                "the models have different weights; fit them with the same weights= to compare them"
            )


def _same_columns(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two fixed parts are the same matrix: only then are restricted likelihoods comparable."""
    return a.shape == b.shape and np.array_equal(a, b)
