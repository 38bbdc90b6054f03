"""Cluster-robust covariances: clubSandwich's values, dense algebra, laws, errors."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import mixedmodels as mm
from mixedmodels.inference.checks.robust import KINDS
from mixedmodels.solver.dense import random_matrix

from .diagnostic_references import fit_of, values

SLEEP = "Reaction ~ Days + (Days | Subject)"


REFERENCES = sorted({tuple(key.split(".")[:2]) for key in values() if ".CR" in key})


@pytest.mark.parametrize("name, kind", REFERENCES)
def test_values_of_club_sandwich(name, kind):
    cluster = {"cake": "recipe:replicate", "machines": "Worker"}.get(name)
    robust = fit_of(name).robust_vcov(kind, cluster)
    p = len(robust.vcov)
    np.testing.assert_allclose(
        robust.vcov, values()[f"{name}.{kind}.vcov"].reshape(p, p), rtol=1e-5, atol=1e-8
    )
    np.testing.assert_allclose(robust.table["df"], values()[f"{name}.{kind}.df"], rtol=1e-5)


def symmetric_root(A, power):
    value, vector = np.linalg.eigh(A)
    return vector * np.where(value > 1e-12 * value[-1], np.maximum(value, 1e-300) ** power, 0.0) @ vector.T


def dense(fit, codes, kind):
    """Covariance and df by n x n matrices, rows scaled by the square roots of the weights."""
    design = fit.design
    n, p = design.n, design.p
    root = np.ones(n) if design.weights is None else np.sqrt(design.weights)
    Z = random_matrix(design.terms, n, root).toarray()
    V, first = np.eye(n), 0
    for term, factor in zip(design.terms, fit._factors, strict=True):
        lam = np.array(factor)
        own = Z[:, first : first + term.m * term.k]
        V += own @ np.kron(np.eye(term.m), lam @ lam.T) @ own.T
        first += term.m * term.k
    X = design.X * root[:, None]
    offset = 0.0 if design.offset is None else design.offset
    e = (design.y - offset - design.X @ fit.beta) * root
    W = np.linalg.inv(V)
    C = np.linalg.inv(X.T @ W @ X)
    J = codes.max() + 1
    meat, parts = np.zeros((p, p)), np.zeros((J, n, p))
    for j in range(J):
        own = codes == j
        Xj, Vj = X[own], V[np.ix_(own, own)]
        Wj = np.linalg.inv(Vj)
        A = np.eye(own.sum())
        if kind == "CR2":
            half = symmetric_root(Vj, 0.5)
            A = half @ symmetric_root(half @ (Vj - Xj @ C @ Xj.T) @ half, -0.5) @ half
        elif kind == "CR3":
            A = np.linalg.inv(np.eye(own.sum()) - Xj @ C @ Xj.T @ Wj)
        score = Xj.T @ Wj @ A @ e[own]
        meat += np.outer(score, score)
        parts[j, own] = A.T @ Wj @ Xj @ C
    R = np.eye(n) - X @ C @ X.T @ W
    covariance = R @ V @ R.T
    df = []
    for k in range(p):
        Omega = parts[:, :, k] @ covariance @ parts[:, :, k].T
        df.append(np.trace(Omega) ** 2 / np.sum(Omega**2))
    factor = {"CR1": J / (J - 1), "CR1S": J * (n - 1) / ((J - 1) * (n - p))}.get(kind, 1.0)
    return factor * C @ meat @ C, np.array(df)


@pytest.fixture(scope="module")
def nested():
    rng = np.random.default_rng(4)
    n = 300
    group = rng.integers(0, 40, n)
    school = group % 9
    x, z = rng.normal(size=n), rng.normal(size=40)[group]
    y = x + z + rng.normal(size=40)[group] + rng.normal(size=9)[school] + rng.normal(size=n)
    return pd.DataFrame(
        {"y": y, "x": x, "z": z, "g": group, "s": school, "w": rng.uniform(0.3, 3, n), "o": 0.2 * x}
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("formula, options, cluster", [
    ("y ~ x + z + (x | g)", {}, "g"),
    ("y ~ x + z + (x | g)", {}, "s"),
    ("y ~ x + z + (1 | s) + (x | g)", {"weights": "w", "offset": "o"}, "s"),
])  # fmt: skip
def test_dense_algebra(nested, formula, options, cluster, kind):
    fit = mm.lmm(formula, nested, **options)
    robust = fit.robust_vcov(kind, cluster)
    vcov, df = dense(fit, nested[cluster].to_numpy(), kind)
    np.testing.assert_allclose(robust.vcov, vcov, rtol=1e-7, atol=1e-11)
    np.testing.assert_allclose(robust.table["df"], df, rtol=1e-7)


def test_df_of_contrasts(nested):
    fit = mm.lmm("y ~ x + z + (1 | g)", nested)
    robust = fit.robust_vcov("CR2", "s")
    shifted = mm.lmm("y ~ x + I(z + x) + (1 | g)", nested).robust_vcov("CR2", "s")
    # the coefficient of x beside z + x is the difference of those beside z
    assert robust.df([0.0, 1.0, -1.0])[0] == pytest.approx(shifted.table["df"][1], rel=1e-4)
    np.testing.assert_allclose(robust.df(np.eye(3)), robust.table["df"])


def test_table_and_forms(fit):
    robust = fit.robust_vcov()
    table = robust.table
    assert robust.kind == "CR2" and robust.cluster == "Subject"
    np.testing.assert_allclose(table["std_error"] ** 2, np.diagonal(robust.vcov))
    np.testing.assert_allclose(table["statistic"], table["estimate"] / table["std_error"])
    wide = fit.robust_vcov(level=0.99).table
    assert (wide["conf_low"] < table["conf_low"]).all() and (wide["conf_high"] > table["conf_high"]).all()
    assert "18 clusters" in str(robust) and "<table" in robust.to_html()
    assert len(robust.to_frame()) == 2


def test_data_with_balance_need_no_model_correction(fit):
    """With equal designs CR2 is J / (J - 1) times CR0: the exact factor for a mean of J clusters."""
    np.testing.assert_allclose(fit.robust_vcov("CR2").vcov, fit.robust_vcov("CR1").vcov, rtol=1e-9)


def test_padding_and_batches_do_not_show(nested):
    fit = mm.lmm("y ~ x + z + (1 | g)", nested)
    labels = np.array([f"c{g}" for g in nested["g"]])
    np.testing.assert_allclose(
        fit.robust_vcov("CR2", labels).vcov, fit.robust_vcov("CR2", "g").vcov, rtol=1e-10
    )


def test_errors(nested, fit):
    with pytest.raises(mm.OptionError, match="CR0, CR1, CR1S, CR2, CR3"):
        fit.robust_vcov("HC3")
    with pytest.raises(mm.DataError, match="12 values"):
        fit.robust_vcov(cluster=np.arange(12))
    with pytest.raises(mm.OptionError, match="cut through levels of 'Subject'"):
        fit.robust_vcov(cluster="Days")
    with pytest.raises(mm.OptionError, match="neither a grouping factor"):
        fit.robust_vcov(cluster="Dys")
    with pytest.raises(mm.OptionError, match="single level"):
        fit.robust_vcov(cluster=np.zeros(180))
    with pytest.raises(mm.OptionError, match="level must lie"):
        fit.robust_vcov(level=95)
    crossed = mm.lmm("diameter ~ 1 + (1 | plate) + (1 | sample)", mm.load_dataset("Penicillin"))
    with pytest.raises(mm.OptionError, match="crossed"):
        crossed.robust_vcov()
    # a coefficient that one cluster alone determines
    lonely = nested.assign(one=(nested["g"] == 3) * 1.0)
    with pytest.raises(mm.IdentifiabilityError, match="CR2"):
        mm.lmm("y ~ x + one + (1 | g)", lonely).robust_vcov("CR3", "g")
    assert np.isfinite(mm.lmm("y ~ x + one + (1 | g)", lonely).robust_vcov("CR2", "g").vcov).all()
