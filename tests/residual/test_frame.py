"""Columns of a residual structure: missing values, levels, new data, and data that do not fit it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import mixedmodels as mm
from mixedmodels.frame.build import build
from mixedmodels.frame.residual import read_new
from mixedmodels.testing import check_residual, dense_residual


@pytest.fixture
def data():
    rng = np.random.default_rng(3)
    g, t = np.repeat(np.arange(8), 5), np.tile(np.arange(5), 8)
    keep = rng.random(40) < 0.85
    frame = pd.DataFrame({"g": g, "t": t, "y": rng.normal(size=40), "x": rng.uniform(1, 2, 40)})[keep]
    frame["sex"] = np.where(frame.g % 2, "F", "M")
    frame["s"] = frame.t + rng.uniform(-0.2, 0.2, len(frame))
    frame["w"] = rng.uniform(0.5, 2, len(frame))
    return frame.sample(frac=1, random_state=1).reset_index(drop=True)


def test_design_holds_the_bound_structure(data):
    frame = build("y ~ x", data, residual="ar1(t | g) * varident(sex)")
    bound = frame.design.residual
    assert (bound.n, bound.n_phi, bound.group, bound.n_groups) == (len(data), 2, "g", data.g.nunique())
    assert bound.describe() == "AR(1) over t within g; variances by sex"
    check_residual(bound)


def test_weights_are_part_of_the_structure(data):
    bound = build("y ~ x", data, residual="ar1(t | g)", weights="w").design.residual
    R = dense_residual(bound, np.zeros(1))
    np.testing.assert_allclose(np.diagonal(R), 1 / data.w, rtol=1e-14)
    plain = build("y ~ x", data, residual="varfixed(1/w)").design.residual
    np.testing.assert_allclose(plain.at(np.zeros(0)).variances, 1 / data.w, rtol=1e-14)


def test_random_terms_are_not_needed_with_a_structure(data):
    assert build("y ~ x", data, residual="cs(1 | g)").design.terms == ()
    with pytest.raises(mm.FormulaError, match="no random-effects term"):
        build("y ~ x", data)


def test_rows_with_missing_columns_are_left_out(data):
    spoiled = data.astype({"t": float, "g": float})
    spoiled.loc[2, "t"] = np.nan
    spoiled.loc[5, "g"] = np.nan
    spoiled.loc[7, "sex"] = None
    frame = build("y ~ x", spoiled, residual="ar1(t | g) * varident(sex)")
    assert frame.design.n == frame.design.residual.n == len(data) - 3
    assert frame.na_counts == {"t": 1, "g": 1, "sex": 1}
    assert set(range(len(data))) - set(frame.row_index.tolist()) == {2, 5, 7}
    cut = build("y ~ x", data.drop(index=[2, 5, 7]), residual="ar1(t | g) * varident(sex)").design.residual
    phi = np.array([0.4, -0.2])
    np.testing.assert_array_equal(dense_residual(frame.design.residual, phi), dense_residual(cut, phi))
    with pytest.raises(mm.DataError, match=r"missing values \(.*t: 1"):
        build("y ~ x", spoiled, residual="ar1(t | g)", na_action="fail")


def test_levels_without_rows_are_no_parameters(data):
    data["f"] = pd.Categorical(data.sex, ["other", "M", "F"])
    bound = build("y ~ x", data, residual="varident(f)").design.residual
    assert bound.natural(bound.start).names == ("sd_ratio[F]",)


@pytest.mark.parametrize(
    "residual",
    [
        "ar1(t | g) * varident(sex)",
        "car1(s | g) * varpower(x)",
        "us(t | g)",
        "toep(t | g)",
        "ad(t | g)",
        "arma(t | g, p=1, q=1)",
        "exp(s + x | g, nugget=True)",
        "cs(1 | g) * varident(t)",
        "ar1(t | g, by=sex)",
        "varexp(x, by=sex)",
    ],
)
def test_new_rows_continue_the_matrix_of_the_fit(data, residual):
    """Fit on some rows, the others are new: variances and covariances are those of one fit on all rows."""
    held = np.arange(len(data)) % 4 == 0
    whole = build("y ~ x", data, residual=residual).design.residual
    rng = np.random.default_rng(1)
    old, new = data[~held], data[held]
    frame = build("y ~ x", old, residual=residual)
    bound = frame.design.residual
    phi = bound.start + rng.uniform(-0.3, 0.3, bound.n_phi)
    assert bound.names == whole.names
    R = dense_residual(whole, phi)
    rows = bound.new_rows(read_new(frame.residual, new, group=bound.group)[0])
    np.testing.assert_allclose(rows.variances(phi), np.diagonal(R)[held], rtol=1e-12)
    np.testing.assert_allclose(rows.covariance(phi).toarray(), R[np.ix_(held, held)], atol=1e-12)
    np.testing.assert_allclose(rows.cross(phi).toarray(), R[np.ix_(held, ~held)], atol=1e-12)


def test_new_groups_are_independent_of_the_fit_but_not_within(data):
    frame = build("y ~ x", data, residual="ar1(t | g)")
    new = pd.DataFrame({"g": [99, 99, 100], "t": [0, 2, 2]})
    rows = frame.design.residual.new_rows(read_new(frame.residual, new, group="g")[0])
    phi = np.array([np.arctanh(0.5)])
    assert rows.cross(phi).nnz == 0
    np.testing.assert_allclose(rows.covariance(phi).toarray(), [[1, 0.25, 0], [0.25, 1, 0], [0, 0, 1]])


def test_new_levels_that_have_no_variance(data):
    frame = build("y ~ x", data, residual="varident(sex)")
    with pytest.raises(mm.DataError, match=r"row 1 .* level of sex"):
        frame.design.residual.new_rows(read_new(frame.residual, pd.DataFrame({"sex": ["M", "X"]}))[0])


def refused(data, residual, **options):
    with pytest.raises(mm.MixedModelsError) as caught:
        build("y ~ x", data, residual=residual, **options)
    return f"{type(caught.value).__name__}: {caught.value}"


def test_hard_case_50_times_of_ar1(data):
    """Non-integer times, duplicates, gaps, and the intercept in ``ar1(1 + time | g)``."""
    said = refused(data, "ar1(s | g)")
    assert "whole numbers" in said and "car1(s | g)" in said
    twice = pd.concat([data, data.iloc[[0]]], ignore_index=True)
    said = refused(twice, "ar1(t | g)")
    assert f"rows 0 and {len(data)} of g '{data.g[0]}'" in said and f"t = {data.t[0]}" in said
    said = refused(twice, "exp(s | g)")
    assert "nugget=True" in said
    assert build("y ~ x", twice, residual="exp(s | g, nugget=True)").design.residual.n == len(twice)
    assert "'sex' holds categories (F, M)" in refused(data, "ar1(sex | g)")
    gap = build("y ~ x", data, residual="ar1(1 + t | g)").design.residual
    group = gap.block(np.array([np.arctanh(0.5)]), 0)
    times = data.t[data.g == data.g.min()].to_numpy(float)
    np.testing.assert_allclose(group, 0.5 ** np.abs(times[:, None] - times), rtol=1e-12)


def test_times_of_numbers_in_any_storage(data):
    """Dates are days; nullable integers and text levels of the group are fine."""
    data["day"] = pd.Timestamp("2024-01-01") + pd.to_timedelta(data.t, unit="D")
    data["i"] = data.t.astype("Int64")
    data["h"] = "g" + data.g.astype(str)
    phi = np.array([0.5])
    R = dense_residual(build("y ~ x", data, residual="ar1(t | g)").design.residual, phi)
    for text in ("ar1(day | h)", "ar1(i | h)", "ar1(t + 0 | h)"):
        np.testing.assert_allclose(
            dense_residual(build("y ~ x", data, residual=text).design.residual, phi), R, rtol=1e-12
        )


def test_data_that_do_not_fit_the_structure(data):
    assert "did you mean 'g'" not in refused(data, "ar1(time | g)")
    assert "no column 'time'" in refused(data, "ar1(time | g)")
    assert "has only the level 'A'" in refused(data.assign(f="A"), "varident(f)")
    data["zero"] = np.where(np.arange(len(data)) == 4, 0.0, data.x)
    said = refused(data, "varpower(zero)")
    assert "zero is 0 in row 4" in said and "varconstpower" in said
    build("y ~ x", data.assign(neg=-data.x), residual="varpower(neg)")  # |v|, as nlme
    build("y ~ x", data, residual="varconstpower(zero)")
    said = refused(data.assign(v=np.where(np.arange(len(data)) == 3, -1.0, 1.0)), "varfixed(v)")
    assert "must be positive" in said and "row 3 has -1" in said
    assert "constant within the groups" in refused(data, "ar1(t | g, by=t)")
    alone = data.assign(h=np.arange(len(data)))
    assert "no group has more than one row" in refused(alone, "cs(1 | h)")
    assert "no group has more than one row" in refused(alone, "exp(s + x | h)")
    assert "no group has both" in refused(
        data[(data.t < 2) | (data.g > 3)].assign(t=lambda d: d.t + 10 * (d.g > 3)), "us(t | g)"
    )
    assert "infinite" in refused(data.assign(x=np.where(np.arange(len(data)) == 1, np.inf, 1.0)), "varexp(x)")
    assert "is constant" in refused(data.assign(one=1.0), "loglin(one)")
    assert "linearly" in refused(data.assign(x2=2 * data.x + 1), "loglin(x + x2)")
    assert "not a level of sex" in refused(data, "varident(sex, Male=2)")
    assert "compared with" in refused(data, "varident(sex, F=2)")
    assert "between -1 and 1" in refused(data, "ar1(t | g, rho=1.5)")
    assert "cannot be held alone" in refused(data, "arma(t | g, p=2, ar1=0.5)")
    assert "no parameter or option 'phi'" in refused(data, "ar1(t | g, phi=0.5)")


def test_groups_of_one_row_are_fine(data):
    single = data.drop_duplicates("g")
    bound = build("y ~ x", single, residual="ar1(t | g, rho=0.5) * varident(sex)").design.residual
    np.testing.assert_allclose(dense_residual(bound, np.zeros(1)), np.eye(len(single)))
