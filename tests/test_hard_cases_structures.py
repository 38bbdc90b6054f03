"""The hard cases of mixed models, by number, for structured residuals and random effects."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import mixedmodels as mm

FORMULA, AR1 = "y ~ x + (1 | g)", "ar1(t | g)"


@pytest.fixture(scope="module")
def data():
    r = np.random.default_rng(2)
    g, t = np.repeat(np.arange(20), 5), np.tile(np.arange(5), 20)
    return pd.DataFrame(
        {
            "y": r.normal(size=100) + r.normal(size=20)[g],
            "x": r.normal(size=100),
            "g": g,
            "t": t,
            "v": t.astype(str),
            "s": np.where(g % 2, "A", "B"),
            "w": 0.5 + r.random(100),
            "o": r.normal(size=100),
            "row": np.arange(100),
        }
    )


def fit(data, formula=FORMULA, residual=AR1, **options):
    return mm.lmm(formula, data, residual=residual, **options)


def test_06_one_effect_per_row_is_a_nugget_of_correlated_residuals(data):
    nugget = mm.gls("y ~ x", data, residual="exp(t | g, nugget=True)")
    effects = fit(data, "y ~ x + (1 | row)", "exp(t | g)")
    assert effects.loglik == pytest.approx(nugget.loglik, rel=1e-8)
    with pytest.raises(mm.IdentifiabilityError, match="one observation per level"):
        fit(data, "y ~ x + (1 | row)", "varident(s)")


def test_08_53_as_many_effects_as_rows(data):
    for residual in (None, AR1):
        with pytest.raises(mm.IdentifiabilityError, match=r"cannot be told apart.*residual="):
            fit(data, "y ~ x + (0 + v | g)", residual)


def test_10_dependent_columns_are_dropped(data):
    found = fit(data.assign(z=2 * data.x), "y ~ x + z + (1 | g)")
    assert found.loglik == pytest.approx(fit(data).loglik, rel=1e-12)
    assert any("dropped 1 column: z" in message for message in found.messages)


def test_13_63_constant_and_perfect_responses(data):
    with pytest.raises(mm.DataError, match="constant"):
        fit(data.assign(y=1.0))
    for residual in (AR1, "varident(s)", "us(v | g)"):
        with pytest.raises(mm.DataError, match="perfect fit"):
            mm.gls("y ~ x", data.assign(y=2 * data.x), residual=residual)


def test_14_missing_values(data):
    missing = data.assign(y=data.y.where(data.index % 9 != 0), t=data.t.where(data.index % 11 != 0))
    keep = missing.y.notna() & missing.t.notna()
    found = fit(missing, na_action="exclude")
    assert found.loglik == pytest.approx(fit(data[keep]).loglik, rel=1e-10)
    assert np.isnan(found.fitted()).sum() == 100 - keep.sum()
    with pytest.raises(mm.DataError, match="missing values"):
        fit(missing, na_action="fail")


def test_17_levels_that_do_not_occur(data):
    other = data.assign(s=pd.Categorical(data.s, ["A", "B", "C"]))
    assert fit(other, residual="varident(s)").residual.names == ("sd_ratio[B]",)
    gap = data[data.t != 2]
    kept = gap.assign(v=pd.Categorical(gap.v, list("01234")))
    by_name = mm.lmm("y ~ x + ar1(0 + v | g)", kept)
    assert by_name.loglik == pytest.approx(mm.lmm("y ~ x + ar1(t | g)", gap).loglik, rel=1e-9)


def test_18_new_levels_at_prediction(data):
    found, new = fit(data), pd.DataFrame({"x": [0.0], "g": [99], "t": [1]})
    with pytest.raises(mm.NewLevelError, match="99"):
        found.predict(new)
    assert found.predict(new, new_levels="population")[0] == pytest.approx(found.fixef["(Intercept)"])


def test_24_25_26_offset_and_weights(data):
    assert fit(data, offset="o").loglik == pytest.approx(
        fit(data.assign(y=data.y - data.o)).loglik, rel=1e-12
    )
    heavy = fit(data.assign(w=10 * data.w), weights="w")
    assert heavy.loglik == pytest.approx(fit(data, weights="w").loglik, rel=1e-10)
    zero = data.assign(w=np.where(data.index % 9 == 0, 0.0, data.w))
    assert fit(zero, weights="w").loglik == pytest.approx(
        fit(zero[zero.w > 0], weights="w").loglik, rel=1e-10
    )


@pytest.mark.parametrize("kind", [float, str, "category", "Int64"])
def test_41_types_of_the_groups(data, kind):
    assert fit(data.assign(g=data.g.astype(kind))).loglik == pytest.approx(fit(data).loglik, rel=1e-10)


def test_43_44_45_comparisons(data):
    fixed = str(mm.compare(fit(data), fit(data, "y ~ 1 + (1 | g)")))
    assert "refitted by maximum likelihood" in fixed
    assert "boundary" in str(mm.compare(fit(data), mm.gls("y ~ x", data, residual=AR1)))
    with pytest.raises(mm.DataError, match="different rows"):
        mm.compare(fit(data), fit(data[:-3]))


def test_50_times_of_random_effects(data):
    late = data.assign(u=data.t + 0.5 * (data.t > 2))
    found = mm.lmm("y ~ x + ar1(1 + t | g)", data)
    assert any("the intercept is left out" in message for message in found.messages)
    other = mm.lmm("y ~ x + ar1(u | g)", late)
    assert any("fitted as car1" in message for message in other.messages)
    assert other.loglik == pytest.approx(mm.lmm("y ~ x + car1(u | g)", late).loglik, rel=1e-10)


def test_51_without_variance_there_is_no_correlation():
    r = np.random.default_rng(1)
    found = None
    for _ in range(20):
        data = {"y": r.normal(size=60), "g": np.repeat(np.arange(6), 10), "v": np.tile(list("ab"), 30)}
        found = mm.lmm("y ~ 1 + homcs(0 + v | g)", data)
        if found.theta[0] == 0.0:
            break
    assert found is not None
    assert found.theta[0] == 0.0
    assert found.converged
    assert any("singular" in message for message in found.messages)


def test_53_the_remedy_of_saturated_effects(data):
    """us over time with sigma held near zero is the us residual."""
    held = fit(data, "y ~ x + (0 + v | g)", None, sigma=1e-3)
    assert held.loglik == pytest.approx(mm.gls("y ~ x", data, residual="us(v | g)").loglik, rel=1e-6)


def test_62_parameters_are_counted_once(data):
    found = fit(data)
    assert found.df_model == 2 + 1 + 1 + 1
    assert found.aic == pytest.approx(-2 * found.loglik + 2 * 5, rel=1e-12)


@pytest.mark.parametrize(
    "residual", [AR1, "us(v | g)", "arma(t | g, p=1, q=1)", "ar1(t | g) * varident(v)", "varpower(w)"]
)
def test_what_nlme_gives_up_converges(data, residual):
    """Random slopes beside residual correlations: "false convergence" and "not invertible" elsewhere."""
    assert fit(data, "y ~ x + (t | g)", residual).converged
