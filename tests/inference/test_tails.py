"""Own tail probabilities against SciPy's."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import special

from mixedmodels.inference.ddf.tails import beta_tail, chi2_tail, f_tail, t_quantile, t_tail

DF = (0.3, 1.0, 2.0, 3.7, 17.0, 99.5, 1234.0, 7e4, 1e7)


@pytest.mark.parametrize("df", DF)
def test_t_tail(df):
    t = np.array([0.0, 1e-8, 0.1, 1.0, 1.96, 5.0, 20.0, -3.0])
    expected = [2.0 * special.stdtr(df, -abs(x)) for x in t]
    assert [t_tail(x, df) for x in t] == pytest.approx(expected, rel=1e-8)


# mpmath 1.3 with 40 digits: betainc(df/2, 1/2, 0, df/(df + t^2), regularized=True), above 200 df by
# quadrature of the density from t on
EXACT = (
    (0.25, 0.5, 0.86911976968485092),
    (1e6, 0.5, 0.0006414019508283977),
    (2.5, 1.5, 0.16980650261469606),
    (1.75, 25.3, 0.092239271241882748),
    (40.0, 99.7, 3.2753650197013728e-63),
    (1e-3, 50.0, 0.99920609477550166),
    (1.5, 1e4, 0.13364597182361961),
    (8.0, 1e4, 1.3821208729065382e-15),
    (1.96, 1e6, 0.049996067585269791),
    (30.0, 1e6, 1.2020094233660244e-197),
    (1.7, 1e10, 0.089130925548183415),
    (12.0, 1e10, 3.5529660915096807e-33),
)


@pytest.mark.parametrize(("t", "df", "p"), EXACT)
def test_t_tail_to_twelve_digits(t, df, p):
    assert t_tail(t, df) == pytest.approx(p, rel=1e-12)


@pytest.mark.parametrize("df", [1e7, 1e12, 9e16, 2e17])
def test_t_tail_runs_into_the_normal_one(df):
    # P(|T| > t) / P(|Z| > t) - 1 is about (t^3 + t) phi(t) / (2 df P(|Z| > t)), below (1 + t)^4 / (4 df)
    for t in (0.3, 2.0, 9.0):
        assert t_tail(t, df) == pytest.approx(
            math.erfc(t / math.sqrt(2.0)), rel=1e-12 + (1.0 + t) ** 4 / (4.0 * df)
        )


@pytest.mark.parametrize("a", [0.3, 1.0, 19.0, 21.0, 400.0, 1e4])
@pytest.mark.parametrize("b", [0.5, 2.0, 19.0, 21.0, 400.0, 1e4])
def test_incomplete_beta(a, b):
    x = np.array([special.betaincinv(a, b, q) for q in (1e-200, 1e-30, 0.01, 0.3, 0.8)])
    x = x[x > 1e-300]
    found = [beta_tail(a, b, v, 1.0 - v) for v in x]
    assert found == pytest.approx(special.betainc(a, b, x).tolist(), rel=5e-13)


def test_t_tail_far_out():
    # R: 2 * pt(-40, 50) and 2 * pt(-100, 10)
    assert t_tail(40.0, 50.0) == pytest.approx(2.0 * special.stdtr(50.0, -40.0), rel=1e-10)
    assert t_tail(100.0, 10.0) == pytest.approx(2.0 * special.stdtr(10.0, -100.0), rel=1e-10)
    assert t_tail(1e200, 3.0) >= 0.0 and t_tail(math.inf, 3.0) == 0.0


@pytest.mark.parametrize("den", DF[1:])
@pytest.mark.parametrize("num", [1, 2, 5, 40])
def test_f_tail(num, den):
    F = [1e-6, 0.3, 1.0, 2.5, 10.0, 50.0]
    assert [f_tail(x, num, den) for x in F] == pytest.approx(
        [special.fdtrc(num, den, x) for x in F], rel=1e-7
    )


def test_limits_and_missing_values():
    assert t_tail(1.3, math.inf) == pytest.approx(2.0 * special.ndtr(-1.3), rel=1e-14)
    assert f_tail(1.3, 3, math.inf) == pytest.approx(special.chdtrc(3, 3.9), rel=1e-13)
    assert f_tail(0.0, 2, 5.0) == 1.0 and f_tail(math.inf, 2, 5.0) == 0.0
    for value in (t_tail(math.nan, 3.0), t_tail(1.0, math.nan), f_tail(1.0, 2, math.nan), t_tail(1.0, -1.0)):
        assert math.isnan(value)
    assert beta_tail(2.0, 3.0, 0.0, 1.0) == 0.0 and beta_tail(2.0, 3.0, 1.0, 0.0) == 1.0


@pytest.mark.parametrize("df", [1, 2, 3, 8, 31, 100, 501])
def test_chi_squared_tail(df):
    x = [0.0, 0.2, 1.0, df * 0.5, df * 1.0, df * 2.0, df * 5.0]
    assert [chi2_tail(v, df) for v in x] == pytest.approx([special.chdtrc(df, v) for v in x], rel=1e-9)
    assert math.isnan(chi2_tail(math.nan, df))
    assert chi2_tail(3.0, 2.5) == pytest.approx(special.gammaincc(1.25, 1.5), rel=1e-12)


@pytest.mark.parametrize("df", [0.7, 1.0, 2.5, 4.0, 17.0, 1e3, 1e6, math.inf])
@pytest.mark.parametrize("level", [0.01, 0.5, 0.95, 0.99, 0.999999])
def test_t_quantile(df, level):
    expected = special.ndtri(0.5 + 0.5 * level) if math.isinf(df) else special.stdtrit(df, 0.5 + 0.5 * level)
    assert t_quantile(level, df) == pytest.approx(expected, rel=1e-7)


def test_t_quantile_of_missing_df():
    assert math.isnan(t_quantile(0.95, math.nan)) and math.isnan(t_quantile(0.95, 0.0))
