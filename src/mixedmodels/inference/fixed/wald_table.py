"""Columns of joint Wald tests: F, or chi-squared where the covariance counts as known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mixedmodels.inference.ddf.reference import FTest, Reference

__all__ = ["is_chi_squared", "test_name", "test_names", "test_row"]


def is_chi_squared(fit: Any, reference: Reference) -> bool:
    """Whether joint tests are shown as chi-squared: generalised models with the normal distribution."""
    return not fit._is_linear and reference.name == "z"


def test_name(chi: bool) -> str:
    """What a joint test is called in titles."""
    return "Wald chi-squared test" if chi else "F test"


def test_names(chi: bool) -> Sequence[str]:
    """Names of the columns of `test_row`."""
    return ("statistic", "df", "p_value") if chi else ("num_df", "den_df", "statistic", "p_value")


def test_row(test: FTest, chi: bool) -> dict[str, Any]:
    r"""Cells of one test.

    .. math:: W = (L\hat\beta)'(L V L')^{-1} L\hat\beta = r F \sim \chi^2_r
    """
    if chi:
        return {
            "statistic": test.statistic * test.num_df,
            "df": float(test.num_df),
            "p_value": test.p_value,
        }
    return {
        "num_df": test.num_df,
        "den_df": test.den_df,
        "statistic": test.statistic,
        "p_value": test.p_value,
    }
