"""Predictions, forecasts and simulation with structured residuals, against the dense formulae."""

from __future__ import annotations

import numpy as np
import pytest

import mixedmodels as mm
from mixedmodels.errors import OptionError
from mixedmodels.fit.residual_rows import block_root, new_columns, new_residual_rows

GROWTH = "distance ~ age * Sex"
NEW = {
    "age": [15.0, 16.0, 9.1, 15.0],
    "occ": [4, 5, 4, 4],
    "Sex": ["Male", "Male", "Female", "Male"],
    "Subject": ["M01", "M01", "F02", "M03"],
}


@pytest.fixture(scope="module")
def growth():
    data = mm.load_dataset("Orthodont", backend="pandas")
    return data.assign(occ=(data["age"] / 2 - 3).astype(int), pair=np.arange(len(data)) % 6)


@pytest.fixture(scope="module")
def het(growth):
    return mm.lmm(GROWTH + " + (1 | Subject)", growth, residual="ar1(occ | Subject) * varident(Sex)")


def residual_matrix(fit):
    """R at the estimates, dense."""
    point = fit._point
    return point.unwhiten(point.unwhiten_adjoint(np.eye(fit.nobs)))


def marginal(fit):
    """Z, Sigma (relative) and V = R + Z Sigma Z' at the estimates, dense."""
    design = fit.design
    Z = np.hstack([np.zeros((design.n, 0)), *[term.matrix(design.n).toarray() for term in design.terms]])
    Sigma, at = np.zeros((Z.shape[1],) * 2), 0
    for term, factor in zip(design.terms, fit._factors, strict=True):
        size = term.m * term.k
        F = np.array(factor)
        Sigma[at : at + size, at : at + size] = np.kron(np.eye(term.m), F @ F.T)
        at += size
    return Z, Sigma, residual_matrix(fit) + Z @ Sigma @ Z.T


def goldberger(fit, new):
    """Best linear unbiased forecasts of new rows and their root mean squared errors, from V itself."""
    design, phi = fit.design, np.array(fit.phi)
    Z, Sigma, V = marginal(fit)
    rows = new_residual_rows(fit, new_columns(fit, new), fit.predict(new))
    found = fit.frame.new_data(new, re_form=fit.frame.encoding.bar_labels, need_groups=bool(design.terms))
    N = found.X.shape[0]
    own, at = np.zeros((N, Z.shape[1])), 0
    for term, (codes, values) in zip(design.terms, found.terms, strict=True):
        values = np.ones((N, term.k)) if values is None else values
        for i in range(N):
            own[i, at + codes[i] * term.k : at + (codes[i] + 1) * term.k] = values[i]
        at += term.m * term.k
    C = rows.cross(phi).toarray() + own @ Sigma @ Z.T
    inverse, X = np.linalg.inv(V), design.X
    Phi = np.linalg.inv(X.T @ inverse @ X)
    mean = found.X @ fit.beta + C @ inverse @ (design.y - X @ fit.beta)
    A = found.X - C @ inverse @ X
    mse = rows.covariance(phi).toarray() + own @ Sigma @ own.T - C @ inverse @ C.T + A @ Phi @ A.T
    return mean, fit.sigma * np.sqrt(np.diag(mse))


@pytest.mark.parametrize(
    ("formula", "residual"),
    [
        ("(age | Subject)", "ar1(occ | Subject) * varident(Sex)"),
        ("(1 | Subject)", "varpower()"),
        ("(1 | Subject)", "exp(age | Subject, range=4, nugget=0.1)"),
        ("(1 | Subject)", "car1(age | Sex, rho=0.5)"),  # runs over the levels: whitened rows stay sparse
        ("", "ar1(occ | Subject) * varident(Sex)"),
        ("", "varpower()"),
    ],
)
def test_forecasts_are_best_linear_unbiased(growth, formula, residual):
    data = growth.assign(age=growth["age"] + 1e-3 * np.arange(len(growth)))
    fit = (
        mm.lmm(f"{GROWTH} + {formula}", data, residual=residual)
        if formula
        else mm.gls(GROWTH, data, residual=residual)
    )
    mean, sd = goldberger(fit, NEW)
    table = fit.predict(NEW, forecast=True, interval="prediction")
    np.testing.assert_allclose(table["predicted"], mean, rtol=1e-9)
    np.testing.assert_allclose(table["prediction_sd"], sd, rtol=1e-9)
    np.testing.assert_allclose(fit.predict(NEW, forecast=True), mean, rtol=1e-9)


def test_a_forecast_of_an_observed_row_is_the_observation(growth, het):
    table = het.predict(growth, forecast=True, se=True)
    np.testing.assert_allclose(table["predicted"], growth["distance"], rtol=1e-10)
    np.testing.assert_allclose(table["prediction_sd"], 0.0, atol=1e-6)


def test_forecasts_return_to_the_mean(het):
    """A series forgets what it was; new groups have no past."""
    far = {**NEW, "occ": [400, 401, 402, 403]}
    np.testing.assert_allclose(het.predict(far, forecast=True), het.predict(far), rtol=1e-10)
    stranger = {**NEW, "Subject": ["X", "X", "Y", "Z"]}
    plain = het.predict(stranger, new_levels="population", interval="prediction")
    ahead = het.predict(stranger, new_levels="population", interval="prediction", forecast=True)
    for name in ("predicted", "std_error", "prediction_sd", "conf_low"):
        np.testing.assert_allclose(ahead[name], plain[name], rtol=1e-8)


def test_default_predictions_hold_no_residual(growth, het):
    """As in nlme: X beta + Z b."""
    np.testing.assert_allclose(het.predict(growth), het.fitted(), rtol=1e-12)


def test_prediction_intervals_have_the_variance_of_the_row(growth, het):
    table = het.predict(NEW, interval="prediction")
    ratio = het.residual["sd_ratio[Female]"]
    own = het.sigma**2 * np.array([1.0, 1.0, ratio**2, 1.0])
    np.testing.assert_allclose(table["prediction_sd"] ** 2, table["std_error"] ** 2 + own, rtol=1e-10)
    again, fitted = het.predict(growth, interval="prediction"), het.predict(interval="prediction")
    np.testing.assert_allclose(again["prediction_sd"], fitted["prediction_sd"], rtol=1e-10)
    assert "forecast=True" in " ".join(table.notes)


def test_prediction_intervals_with_variances_of_fitted_values(growth):
    fit = mm.lmm(GROWTH + " + (1 | Subject)", growth, residual="varpower()")
    table = fit.predict(NEW, interval="prediction")
    sd = fit.sigma * np.abs(fit.predict(NEW)) ** fit.residual["power"]
    np.testing.assert_allclose(table["prediction_sd"] ** 2, table["std_error"] ** 2 + sd**2, rtol=1e-10)
    own = fit.predict(interval="prediction")
    np.testing.assert_allclose(
        own["prediction_sd"], fit.predict(growth, interval="prediction")["prediction_sd"], rtol=1e-6
    )


def test_simulated_limits_agree_with_the_formulae(growth, het):
    exact = het.predict(NEW, interval="prediction")
    drawn = het.predict(NEW, interval="prediction", method="simulation", n=4000, seed=1)
    for name in ("std_error", "prediction_sd"):
        np.testing.assert_allclose(drawn[name], exact[name], rtol=0.04)


def test_limits_with_parameters_from_a_bootstrap(het):
    boot = het.bootstrap(30, seed=1, progress=False)
    table = het.predict(NEW, interval="prediction", method="simulation", parameters=boot, seed=1)
    assert np.all(np.asarray(table["prediction_sd"]) > 0.0)
    own = het.predict(interval="prediction", method="simulation", parameters=boot, seed=1)
    assert np.all(np.asarray(own["conf_low"]) < np.asarray(own["conf_high"]))


def test_simulated_responses_have_the_covariance_of_the_model(het):
    Y = het.simulate(20_000, seed=1)
    V = het.sigma**2 * marginal(het)[2]
    assert np.abs(np.cov(Y) - V).max() < 0.05 * V.max()
    kept = het.simulate(20_000, seed=1, new_effects=False)
    assert np.abs(np.cov(kept) - het.sigma**2 * residual_matrix(het)).max() < 0.05 * V.max()
    np.testing.assert_allclose(kept.mean(axis=1), het.fitted(), atol=0.1)


def test_rows_of_the_data_as_new_rows_simulate_alike(growth, het):
    """Cholesky factors of the groups: the same numbers for a structure whose whitening is triangular."""
    np.testing.assert_allclose(het.simulate(3, 1, newdata=growth), het.simulate(3, 1), rtol=1e-9)
    power = het.update(residual="varpower()")
    np.testing.assert_allclose(power.simulate(3, 1, newdata=growth), power.simulate(3, 1), rtol=1e-9)


def test_simulation_of_new_groups_and_parameters(het):
    stranger = {**NEW, "Subject": ["X", "X", "X", "Z"], "occ": [1, 2, 1_000_000, 1], "Sex": ["Male"] * 4}
    Y = het.simulate(20_000, 1, newdata=stranger)
    shared = het.sigma**2 * het._factors[0][0][0] ** 2
    C = np.cov(Y)
    assert C[0, 1] == pytest.approx(shared + het.residual["rho"] * het.sigma**2, rel=0.05)
    assert C[0, 2] == pytest.approx(shared, rel=0.06)
    assert abs(C[0, 3]) < 0.1
    theta = np.array(het.theta)
    theta[0], theta[1] = 0.0, np.arctanh(0.9)
    wild = np.cov(het.simulate(20_000, 1, theta=theta)[:2])
    assert wild[0, 1] / wild[0, 0] == pytest.approx(
        het.objective.residual.natural(theta[1:]).values[0], abs=0.03
    )


def test_weights_of_simulated_rows(growth, het):
    Y = het.simulate(5000, 1, False, weights=np.full(het.nobs, 4.0))
    plain = het.simulate(5000, 1, False)
    np.testing.assert_allclose(Y.std(axis=1), 0.5 * plain.std(axis=1), rtol=1e-9)


def test_blocks_of_a_covariance():
    from scipy.sparse import csr_array

    rng = np.random.default_rng(1)
    A = np.zeros((7, 7))
    for rows in ([0, 3], [1], [2, 5], [4, 6]):
        B = rng.normal(size=(len(rows),) * 2)
        A[np.ix_(rows, rows)] = B @ B.T
    A[np.ix_([4, 6], [4, 6])] = 1.0  # singular
    G = block_root(csr_array(A)).toarray()
    np.testing.assert_allclose(G @ G.T, A, atol=1e-12)


def test_refusals(growth, het):
    with pytest.raises(OptionError, match="give newdata"):
        het.predict(forecast=True)
    with pytest.raises(OptionError, match="leave out method"):
        het.predict(NEW, forecast=True, interval="confidence")
    with pytest.raises(OptionError, match="are independent"):
        het.update(residual=None).predict(NEW, forecast=True)
    with pytest.raises(mm.DataError, match="occ"):
        het.predict({key: NEW[key] for key in ("age", "Sex", "Subject")}, interval="prediction")
    with pytest.raises(OptionError, match="theta needs 3"):
        het.simulate(theta=[1.0])


@pytest.mark.parametrize(
    ("residual", "column", "missing"),
    [
        ("ar1(occ | Subject)", "occ", np.nan),
        ("ar1(occ | Subject) * varident(Sex)", "occ", np.nan),
        ("exp(occ | Subject, nugget=True)", "occ", np.nan),
        ("us(occ | Subject)", "occ", np.nan),
        ("ar1(occ | Subject) * varident(arm)", "arm", None),
    ],
)
def test_rows_that_miss_a_value_of_the_structure_are_nan(growth, residual, column, missing):
    """In forecasts, limits and simulation; the other rows are as without them."""
    data = growth.assign(arm=np.where(growth["Subject"].str.endswith("1"), "u", "v"))
    fit = mm.lmm("distance ~ age + (1 | Subject)", data, residual=residual)
    new = {"age": [15.0, 16.0, 9.1, 15.0], "occ": [3.0, 4.0, 2.0, 4.0], "arm": ["u", "u", "v", "v"]}
    new |= {"Sex": NEW["Sex"], "Subject": NEW["Subject"]}
    if residual.startswith("us"):
        new["occ"] = [3, 3, 2, 3]
        new["Subject"] = ["M01", "M02", "F02", "M03"]
    gone, left = [1, 3], [0, 2]
    holes = new | {column: [missing if i in gone else v for i, v in enumerate(new[column])]}
    some = {name: [values[i] for i in left] for name, values in new.items()}
    found = fit.predict(holes, forecast=True)
    assert np.isnan(found[gone]).all()
    np.testing.assert_array_equal(found[left], fit.predict(some, forecast=True))
    wide, narrow = (fit.predict(d, forecast=True, interval="prediction") for d in (holes, some))
    for name in ("predicted", "std_error", "prediction_sd", "conf_low", "conf_high"):
        assert np.isnan(wide[name][gone]).all()
        np.testing.assert_allclose(wide[name][left], narrow[name], rtol=1e-12)
    limits = fit.predict(holes, interval="prediction")
    assert np.isnan(limits["conf_low"][gone]).all() and np.isfinite(limits["predicted"]).all()
    np.testing.assert_allclose(
        limits["conf_low"][left], fit.predict(some, interval="prediction")["conf_low"], rtol=1e-12
    )
    drawn = fit.simulate(50, seed=1, newdata=holes)
    assert np.isnan(drawn[gone]).all() and np.isfinite(drawn[left]).all()
    every = fit.predict(new | {column: [missing] * 4}, forecast=True)
    assert np.isnan(every).all()
