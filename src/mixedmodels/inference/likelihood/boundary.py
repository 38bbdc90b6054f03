"""Chi-squared tails and their boundary mixtures: p-values of likelihood-ratio statistics."""

from __future__ import annotations

import math

__all__ = ["chi_squared_tail", "mixture_tail", "one_boundary_variance"]


def chi_squared_tail(statistic: float, df: float) -> float:
    r"""``P(chi^2_df >= statistic)``; chi-squared with 0 degrees of freedom is 0.

    Examples
    --------
    >>> round(chi_squared_tail(3.841459, 1), 6)
    0.05
    """
    from scipy.special import gammaincc

    if not statistic >= 0.0:
        return math.nan
    if df == 0:
        return 1.0 if statistic == 0.0 else 0.0
    return float(gammaincc(0.5 * df, 0.5 * statistic))


def mixture_tail(statistic: float, weights: dict[int, float]) -> float:
    r"""Tail of a chi-bar-squared distribution.

    .. math:: P(\bar\chi^2 \ge x) = \sum_j w_j P(\chi^2_j \ge x).

    Parameters
    ----------
    statistic : float
        The value x.
    weights : dict of int to float
        Weight of each number of degrees of freedom; they sum to 1.

    Examples
    --------
    >>> round(mixture_tail(2.705543, {0: 0.5, 1: 0.5}), 6)
    0.05
    """
    return sum(weight * chi_squared_tail(statistic, df) for df, weight in weights.items())


def one_boundary_variance(df: int) -> dict[int, float]:
    r"""Weights where one of `df` tested parameters is a variance on its boundary, the others are free.

    .. math:: \tfrac12 \chi^2_{df-1} + \tfrac12 \chi^2_{df}

    One variance: 0.5 : 0.5 of 0 and 1 degrees of freedom (Self & Liang 1987, J. Am. Stat. Assoc. 82:605-610,
    case 5). A k-th random effect with its k - 1 covariances: 0.5 : 0.5 of k - 1 and k (Stram & Lee 1994,
    Biometrics 50:1171-1177, case 3). With several variances at once the weights depend on the information
    matrix; they are not known in closed form.

    Examples
    --------
    >>> one_boundary_variance(2)
    {1: 0.5, 2: 0.5}
    """
    return {df - 1: 0.5, df: 0.5}
