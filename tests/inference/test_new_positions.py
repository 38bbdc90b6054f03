"""Predictions at positions that the data do not have: conditional means of structured random effects."""

from __future__ import annotations

import numpy as np
import pytest

import mixedmodels as mm
from mixedmodels.covariance import make_covariance
from mixedmodels.covariance.elsewhere import elsewhere, has_elsewhere, joint_factor
from mixedmodels.errors import DataError, NewLevelError, NotImplementedYetError, OptionError

TIMES = np.array([1.0, 2.0, 3.0, 5.0, 6.0, 8.0])
STRUCTURES = ["ar1", "car1", "ou", "exp", "gau", "sph", "ratio", "mat"]


class _Levels:
    """A column of labels with unused levels (what a categorical column of a data frame is)."""

    def __new__(cls, labels, levels):
        pd = pytest.importorskip("pandas")
        return pd.Categorical(labels, categories=levels, ordered=True)


def _data(groups=25, seed=3):
    rng = np.random.default_rng(seed)
    k = TIMES.size
    g, t = np.repeat(np.arange(groups), k), np.tile(TIMES, groups)
    x = rng.normal(size=groups * k)
    root = np.linalg.cholesky(0.7 ** np.abs(np.subtract.outer(TIMES, TIMES)))
    b = (root @ rng.normal(size=(k, groups))).T.ravel()
    y = 1.0 + 0.5 * x + b + 0.5 * rng.normal(size=g.size)
    c = rng.poisson(np.exp(0.8 + 0.3 * x + 0.8 * b)).astype(float)
    return {"y": y, "c": c, "x": x, "t": t, "g": [f"g{i}" for i in g]}


NEW = {"x": [0.0, 0.5, -1.0, 0.0], "t": [4.0, 7.0, 5.0, 4.0], "g": ["g1", "g2", "g3", "g7"]}


def _term(tag):
    return "mat(t | g, nu = 1.5)" if tag == "mat" else f"{tag}(t | g)"


def _closed(data, tag):
    """The same model with the positions 4 and 7 among its levels, on which there are no data."""
    levels = [str(i) for i in range(1, 9)]
    return {**data, "f": _Levels([f"{t:g}" for t in data["t"]], levels)}, _term(tag).replace("t |", "0 + f |")


@pytest.mark.parametrize("tag", STRUCTURES)
def test_weights_are_those_of_the_joint_gaussian(tag):
    old, new = np.array([[1.0], [2.0], [3.5], [7.0]]), np.array([[0.5], [3.0], [20.0]])
    if tag == "ar1":
        old, new = np.array([[1.0], [2.0], [4.0], [7.0]]), np.array([[-1.0], [3.0], [20.0]])
    name = "coordinates" if tag in ("exp", "gau", "sph", "ratio", "mat") else "times"
    points = np.concatenate([old, new])
    order = np.argsort(points[:, 0])

    def make(p):
        return make_covariance(
            tag, len(p), **{name: p[:, 0].astype(int if tag == "ar1" else float) if name == "times" else p}
        )

    part, whole = make(old), make(points[order])
    values = {"mat": [1.3, 2.5, 0.8], "ar1": [1.3, -0.6], "car1": [1.3, 0.6]}.get(tag, [1.3, 2.6])
    Sigma = np.empty((7, 7))
    Sigma[np.ix_(order, order)] = whole.sigma(whole.theta_from_natural(values))
    theta = part.theta_from_natural(values)
    found = elsewhere(part, theta, new)
    W = np.linalg.solve(Sigma[:4, :4], Sigma[:4, 4:]).T
    assert found.weights == pytest.approx(W, rel=1e-9, abs=1e-12)
    assert found.leftover == pytest.approx(
        np.diagonal(Sigma[4:, 4:] - W @ Sigma[:4, 4:]), rel=1e-9, abs=1e-12
    )
    for j in range(part.n_theta):
        h = 1e-6 * np.eye(part.n_theta)[j]
        ends = [elsewhere(part, theta + sign * h, new).weights for sign in (1.0, -1.0)]
        assert found.derivatives[j] == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-6, abs=1e-7)


def test_structures_without_a_function_of_position_have_no_elsewhere():
    for tag in ("us", "cs", "diag", "toep", "homtoep", "ad", "hetar1"):
        assert not has_elsewhere(make_covariance(tag, 3))


def test_lmm_is_the_conditional_mean_and_variance_of_the_joint_gaussian():
    data = _data()
    fit = mm.lmm("y ~ x + ar1(t | g)", data)
    sd, rho, sigma = np.array(fit.variance_parameters()["estimate"], dtype=float)
    g = np.array(data["g"])
    X = np.column_stack([np.ones(g.size), data["x"]])

    def K(t, a, u, b):
        return sd**2 * rho ** np.abs(np.subtract.outer(t, u)) * np.equal.outer(a, b)

    V = K(data["t"], g, data["t"], g) + sigma**2 * np.eye(g.size)
    C = K(np.array(NEW["t"]), np.array(NEW["g"]), data["t"], g)
    Xn = np.column_stack([np.ones(4), NEW["x"]])
    inv = np.linalg.inv(V)
    A = np.linalg.inv(X.T @ inv @ X)
    beta = A @ X.T @ inv @ data["y"]
    mean = Xn @ beta + C @ inv @ (data["y"] - X @ beta)
    D = Xn - C @ inv @ X
    variance = sd**2 - np.einsum("ij,ij->i", C @ inv, C) + np.einsum("ij,jk,ik->i", D, A, D)
    assert fit.predict(NEW) == pytest.approx(mean, rel=1e-8)
    table = fit.predict(NEW, interval="prediction")
    assert np.array(table["std_error"]) == pytest.approx(np.sqrt(variance), rel=1e-8)
    assert np.array(table["prediction_sd"]) == pytest.approx(np.sqrt(variance + sigma**2), rel=1e-8)
    # left out of the mean, the effect adds its whole variance
    out = fit.predict(NEW, re_form="population", interval="prediction")
    whole = sd**2 + sigma**2 + np.einsum("ij,jk,ik->i", Xn, A, Xn)
    assert np.array(out["prediction_sd"]) == pytest.approx(np.sqrt(whole), rel=1e-8)
    # and so it does on a new level
    strange = {**NEW, "g": ["new"] * 4}
    table = fit.predict(strange, new_levels="population", se=True)
    assert np.array(table["predicted"]) == pytest.approx(Xn @ beta, rel=1e-8)
    assert np.array(table["std_error"]) == pytest.approx(np.sqrt(whole - sigma**2), rel=1e-8)


@pytest.mark.parametrize("tag", ["ar1", "car1", "exp", "sph", "mat"])
def test_lmm_agrees_with_the_fit_that_has_the_positions_without_data(tag):
    data = _data()
    closed, term = _closed(data, tag)
    a, b = mm.lmm(f"y ~ x + {_term(tag)}", data), mm.lmm(f"y ~ x + {term}", closed)
    new = {**NEW, "f": _Levels([f"{t:g}" for t in NEW["t"]], [str(i) for i in range(1, 9)])}
    assert a.loglik == pytest.approx(b.loglik, rel=1e-9)
    mine, theirs = (fit.predict(new, interval="prediction") for fit in (a, b))
    for column in ("predicted", "std_error", "prediction_sd"):
        assert np.array(mine[column]) == pytest.approx(np.array(theirs[column]), rel=1e-4)


@pytest.mark.parametrize("tag", ["ar1", "exp"])
def test_glmm_agrees_with_the_fit_that_has_the_positions_without_data(tag):
    data = _data()
    closed, term = _closed(data, tag)
    a = mm.glmm(f"c ~ x + {_term(tag)}", data, family="poisson")
    b = mm.glmm(f"c ~ x + {term}", closed, family="poisson")
    new = {**NEW, "f": _Levels([f"{t:g}" for t in NEW["t"]], [str(i) for i in range(1, 9)])}
    assert a.loglik == pytest.approx(b.loglik, rel=1e-9)
    for kind in ("link", "response"):
        mine, theirs = (fit.predict(new, type=kind, se=True) for fit in (a, b))
        for column in ("predicted", "std_error"):
            assert np.array(mine[column]) == pytest.approx(np.array(theirs[column]), rel=2e-4)
    mine, theirs = (fit.predict(new, re_form="population", interval="prediction") for fit in (a, b))
    assert np.array(mine["prediction_sd"]) == pytest.approx(np.array(theirs["prediction_sd"]), rel=2e-4)


def test_two_coordinates_and_rows_with_missing_positions():
    rng = np.random.default_rng(5)
    n = 150
    data = {"u": rng.integers(0, 5, n).astype(float), "v": rng.integers(0, 5, n).astype(float)}
    data |= {"g": ["a"] * 75 + ["b"] * 75}
    data["y"] = np.sin(data["u"]) + np.cos(data["v"]) + 0.2 * rng.normal(size=n)
    fit = mm.lmm("y ~ 1 + exp(u + v | g)", data)
    new = {"u": [1.5, np.nan, 2.0], "v": [2.5, 1.0, 2.0], "g": ["a", "a", "b"]}
    found = fit.predict(new)
    assert np.isnan(found[1]) and np.isfinite(found[[0, 2]]).all()
    near = fit.predict({"u": [2.0 + 1e-7], "v": [2.0], "g": ["b"]}, se=True)
    at = fit.predict({"u": [2.0], "v": [2.0], "g": ["b"]}, se=True)
    assert float(near["predicted"][0]) == pytest.approx(float(at["predicted"][0]), abs=1e-5)
    assert float(near["std_error"][0]) == pytest.approx(float(at["std_error"][0]), rel=1e-4)


def test_what_cannot_be_predicted_is_refused_by_name():
    data = _data()
    fit = mm.lmm("y ~ x + ar1(t | g)", data)
    with pytest.raises(DataError, match=r"whole numbers only, not at time 4\.5"):
        fit.predict({"x": [0.0], "t": [4.5], "g": ["g1"]})
    with pytest.raises(OptionError, match="single effects"):
        fit.predict(NEW, re_form="~ (0 + t3 | g)")
    boot = fit.bootstrap(5, seed=1)
    with pytest.raises(NotImplementedYetError, match="draws at new positions of 'g' with parameters="):
        fit.predict(NEW, interval="confidence", method="simulation", parameters=boot)
    data["f"] = [f"v{t:g}" for t in data["t"]]
    for tag in ("homcs", "ar1"):
        fit = mm.lmm(f"y ~ x + {tag}(0 + f | g)", data)
        with pytest.raises(NewLevelError, match="new level 'v4'"):
            fit.predict({"x": [0.0], "f": ["v4"], "g": ["g1"]})


def test_with_structured_residuals():
    data = _data()
    data["s"] = np.where(np.arange(len(data["y"])) % 12 < 6, "a", "b").tolist()
    closed, term = _closed(data, "exp")
    a = mm.lmm("y ~ x + exp(t | g)", data, residual="varident(s)")
    b = mm.lmm(f"y ~ x + {term}", closed, residual="varident(s)")
    new = {**NEW, "s": ["a", "b", "a", "a"]}
    new["f"] = _Levels([f"{t:g}" for t in NEW["t"]], [str(i) for i in range(1, 9)])
    mine, theirs = (fit.predict(new, interval="prediction") for fit in (a, b))
    for column in ("predicted", "std_error", "prediction_sd"):
        assert np.array(mine[column]) == pytest.approx(np.array(theirs[column]), rel=1e-3)


@pytest.mark.parametrize("tag", STRUCTURES)
def test_the_factor_at_old_and_new_positions_is_that_of_the_structure_there(tag):
    old, new = np.array([[1.0], [2.0], [4.0]]), np.array([[0.0], [3.0], [20.0]])
    points = np.concatenate([old, new])
    order = np.argsort(points[:, 0])
    name = "coordinates" if tag in ("exp", "gau", "sph", "ratio", "mat") else "times"

    def make(p):
        given = p if name == "coordinates" else p[:, 0].astype(int if tag == "ar1" else float)
        return make_covariance(tag, len(p), **{name: given})

    values = {"mat": [1.3, 2.5, 0.8], "ar1": [1.3, -0.6], "car1": [1.3, 0.6]}.get(tag, [1.3, 2.6])
    part, whole = make(old), make(points[order])
    Sigma = np.empty((6, 6))
    Sigma[np.ix_(order, order)] = whole.sigma(whole.theta_from_natural(values))
    theta = part.theta_from_natural(values)
    F = joint_factor(part, theta, new)
    assert pytest.approx(Sigma, rel=1e-9, abs=1e-9) == F @ F.T
    assert np.array_equal(F[:3, :3], part.factor(theta)) and not F[:3, 3:].any()


# two rows at a new position on one level, one at another new position on it, an old position, a new level
DRAWN = {
    "x": [0.0, 0.5, -1.0, 0.0, 0.0],
    "t": [4.0, 4.0, 7.0, 5.0, 4.0],
    "g": ["g1", "g1", "g1", "g1", "new"],
}


def _moments_of_draws(fit, sd, rho, noise, n=60_000, **options):
    draws = fit.simulate(n, seed=8, newdata=DRAWN, **options)
    t, g = np.array(DRAWN["t"]), np.array(DRAWN["g"])
    K = sd**2 * rho ** np.abs(np.subtract.outer(t, t)) * np.equal.outer(g, g)
    return draws, K + noise**2 * np.eye(5)


def test_lmm_draws_effects_at_new_positions_with_their_joint_covariance():
    data = _data()
    fit = mm.lmm("y ~ x + ar1(t | g)", data)
    sd, rho, sigma = np.array(fit.variance_parameters()["estimate"], dtype=float)
    draws, V = _moments_of_draws(fit, sd, rho, sigma)
    mean = fit.beta[0] + fit.beta[1] * np.array(DRAWN["x"])
    error = 5.0 * np.sqrt((np.outer(np.diagonal(V), np.diagonal(V)) + V**2) / 60_000)
    assert (np.abs(np.cov(draws) - V) < error).all()
    assert (np.abs(draws.mean(axis=1) - mean) < 5.0 * np.sqrt(np.diagonal(V) / 60_000)).all()
    assert np.array_equal(
        fit.simulate(2, seed=8, newdata=DRAWN), fit.simulate(3, seed=8, newdata=DRAWN)[:, :2]
    )


def test_draws_that_keep_the_effects_add_what_these_leave_over_at_new_positions():
    data = _data()
    fit = mm.lmm("y ~ x + ar1(t | g)", data)
    sd, rho, sigma = np.array(fit.variance_parameters()["estimate"], dtype=float)
    new = {name: column[:4] for name, column in DRAWN.items()}
    draws = fit.simulate(60_000, seed=8, newdata=new, new_effects=False)
    together = np.concatenate([TIMES, [4.0, 7.0]])
    K = sd**2 * rho ** np.abs(np.subtract.outer(together, together))
    left = K[6:, 6:] - K[6:, :6] @ np.linalg.solve(K[:6, :6], K[:6, 6:])
    at = np.array([0, 0, 1])
    V = sigma**2 * np.eye(4)
    V[:3, :3] += left[np.ix_(at, at)]
    mean = fit.predict(new)
    error = 5.0 * np.sqrt((np.outer(np.diagonal(V), np.diagonal(V)) + V**2) / 60_000)
    assert (np.abs(np.cov(draws) - V) < error).all()
    assert (np.abs(draws.mean(axis=1) - mean) < 5.0 * np.sqrt(np.diagonal(V) / 60_000)).all()


def test_glmm_draws_effects_at_new_positions():
    data = _data()
    fit = mm.glmm("y ~ x + ar1(t | g)", data, family="gaussian")
    sd, rho = np.array(fit.variance_parameters()["estimate"], dtype=float)[:2]
    draws, V = _moments_of_draws(fit, sd, rho, fit.sigma, n=20_000)
    error = 5.0 * np.sqrt((np.outer(np.diagonal(V), np.diagonal(V)) + V**2) / 20_000)
    assert (np.abs(np.cov(draws) - V) < error).all()
    new = {name: column[:4] for name, column in DRAWN.items()}
    kept = fit.simulate(20_000, seed=8, newdata=new, new_effects=False)
    assert kept.mean(axis=1) == pytest.approx(fit.predict(new), abs=0.05)
    assert (kept.std(axis=1) < draws.std(axis=1)[:4]).all()
    theta = {
        name: 0.0 if i == 0 else v for i, (name, v) in enumerate(zip(fit.theta_names, fit.theta, strict=True))
    }
    without = fit.simulate(20_000, seed=8, newdata=DRAWN, theta=theta)
    assert np.cov(without) == pytest.approx(fit.sigma**2 * np.eye(5), abs=0.03)


def test_draws_at_other_parameters_and_refusals():
    fit = mm.lmm("y ~ x + exp(t | g)", _data())
    theta = np.array(fit.theta)
    theta[0] = 0.0
    draws = fit.simulate(20_000, seed=1, newdata=DRAWN, theta=theta)
    assert np.cov(draws) == pytest.approx(fit.sigma**2 * np.eye(5), abs=0.03)
    missing = {**DRAWN, "t": [4.0, np.nan, 7.0, 5.0, 4.0]}
    draws = fit.simulate(1, seed=1, newdata=missing)
    assert np.isnan(draws[1]).all() and np.isfinite(draws[[0, 2, 3, 4]]).all()
    with pytest.raises(OptionError, match="single effects"):
        fit.simulate(newdata=NEW, re_form="~ (0 + t3 | g)")
    ar1 = mm.lmm("y ~ x + ar1(t | g)", _data())
    with pytest.raises(DataError, match=r"whole numbers only, not at time 4\.5"):
        ar1.simulate(newdata={"x": [0.0], "t": [4.5], "g": ["g1"]})
    with pytest.raises(OptionError, match="at most 5000 new positions"):
        joint_factor(make_covariance("ou", 2, times=[0.0, 1.0]), theta, 2.0 + np.arange(5001.0)[:, None])


def test_forecasts_at_new_positions_of_effects_and_residuals():
    data = _data(12)
    rng = np.random.default_rng(2)
    h = np.repeat(np.arange(9), 8)
    data["h"], data["s"] = [f"h{i}" for i in h], np.tile(np.arange(8.0), 9)
    noise = np.linalg.cholesky(0.8 ** np.abs(np.subtract.outer(np.arange(8), np.arange(8))))
    data["y"] = data["y"] + (noise @ rng.normal(size=(8, 9))).T.ravel()
    fit = mm.lmm("y ~ x + ar1(t | g)", data, residual="car1(s | h)")
    sd, rho, sigma, decay = np.array(fit.variance_parameters()["estimate"], dtype=float)
    assert decay > 0.2
    g, h = np.array(data["g"]), np.array(data["h"])
    new = {**NEW, "g": ["g1", "g2", "g3", "new"], "h": ["h0", "h3", "h3", "h8"], "s": [8.0, 2.5, 9.0, 7.5]}

    def cov(a, b):
        Kg = sd**2 * rho ** np.abs(np.subtract.outer(a["t"], b["t"])) * np.equal.outer(a["g"], b["g"])
        Kh = decay ** np.abs(np.subtract.outer(a["s"], b["s"])) * np.equal.outer(a["h"], b["h"])
        return Kg + sigma**2 * Kh

    a = {k: np.array(data[k]) for k in ("t", "g", "s", "h")}
    b = {k: np.array(new[k]) for k in a}
    V, C = cov(a, a), cov(b, a)
    X = np.column_stack([np.ones(len(g)), data["x"]])
    Xn = np.column_stack([np.ones(4), new["x"]])
    inverse = np.linalg.inv(V)
    A = np.linalg.inv(X.T @ inverse @ X)
    beta = A @ X.T @ inverse @ np.array(data["y"])
    mean = Xn @ beta + C @ inverse @ (data["y"] - X @ beta)
    D = Xn - C @ inverse @ X
    variance = sd**2 + sigma**2 - np.einsum("ij,ij->i", C @ inverse, C) + np.einsum("ij,jk,ik->i", D, A, D)
    found = fit.predict(new, forecast=True, interval="prediction", new_levels="population")
    assert np.array(found["predicted"]) == pytest.approx(mean, rel=1e-7)
    assert np.array(found["prediction_sd"]) == pytest.approx(np.sqrt(variance), rel=1e-7)


def test_simulated_limits_are_the_analytic_ones_and_draws_share_effects():
    fit = mm.lmm("y ~ x + ar1(t | g)", _data())
    options = {"method": "simulation", "n": 20_000, "seed": 3, "new_levels": "population"}
    for interval, column in (("confidence", "std_error"), ("prediction", "prediction_sd")):
        exact = fit.predict(DRAWN, interval=interval, new_levels="population")
        drawn = fit.predict(DRAWN, interval=interval, **options)
        assert np.array(drawn[column]) == pytest.approx(np.array(exact[column]), rel=0.03)
        for limit in ("conf_low", "conf_high"):
            assert np.array(drawn[limit]) == pytest.approx(np.array(exact[limit]), abs=0.06)
    out = fit.predict(
        DRAWN, re_form="population", interval="prediction", method="simulation", n=20_000, seed=3
    )
    exact = fit.predict(DRAWN, re_form="population", interval="prediction")
    assert np.array(out["prediction_sd"]) == pytest.approx(np.array(exact["prediction_sd"]), rel=0.03)
    # rows on one level at one position have one effect: their means differ by the fixed part alone
    draws = fit.predict(DRAWN, interval="confidence", draws=True, **options).extra["draws"]
    assert np.std(draws[0] - draws[1]) == pytest.approx(0.5 * fit.se["x"], rel=0.03)
    # the covariance between new positions of a level is that of the joint Gaussian (fixed part apart)
    sd, rho, sigma = np.array(fit.variance_parameters()["estimate"], dtype=float)
    at = np.concatenate([TIMES, [4.0, 7.0]])
    K = sd**2 * rho ** np.abs(np.subtract.outer(at, at))
    given = K[6:, 6:] - K[6:, :6] @ np.linalg.solve(K[:6, :6] + sigma**2 * np.eye(6), K[:6, 6:])
    assert np.cov(draws[0], draws[2])[0, 1] == pytest.approx(given[0, 1], abs=0.02)


@pytest.mark.parametrize("tag", ["ar1", "exp", "hetar1"])
def test_one_row_for_each_effect_may_be_refitted_and_bootstrapped(tag):
    fit = mm.lmm(f"y ~ x + {tag}(t | g)", _data())
    again = fit.refit(np.asarray(fit.response()))
    assert again.loglik == pytest.approx(fit.loglik, rel=1e-10)
    boot = fit.bootstrap(3, seed=1, progress=False)
    assert not boot.failures


def test_a_field_of_places_on_one_level_may_be_refitted():
    rng = np.random.default_rng(4)
    u, v = np.repeat(np.arange(6.0), 6), np.tile(np.arange(6.0), 6)
    K = np.exp(-np.hypot(u[:, None] - u, v[:, None] - v) / 3.0)
    y = np.repeat(np.linalg.cholesky(K) @ rng.normal(size=36), 2) + 0.3 * rng.normal(size=72)
    data = {"y": y, "u": np.repeat(u, 2), "v": np.repeat(v, 2), "field": ["one"] * 72}
    fit = mm.lmm("y ~ 1 + exp(u + v | field)", data)
    assert fit.refit(y).loglik == pytest.approx(fit.loglik, rel=1e-10)
    assert not fit.bootstrap(3, seed=1, progress=False).failures
