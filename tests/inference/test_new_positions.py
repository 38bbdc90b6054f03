"""Predictions at positions that the data do not have: conditional means of structured random effects."""

from __future__ import annotations

import numpy as np
import pytest

import mixedmodels as mm
from mixedmodels.covariance import make_covariance
from mixedmodels.covariance.elsewhere import elsewhere, has_elsewhere
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
    with pytest.raises(NotImplementedYetError, match="method='simulation' at positions"):
        fit.predict(NEW, interval="confidence", method="simulation")
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
