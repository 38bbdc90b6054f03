"""Fits of terms whose rows touch several levels: direct and maternal effects, multiple membership."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse

import mixedmodels as mm
from mixedmodels.design import Precision
from mixedmodels.errors import DataError, NotImplementedYetError, OptionError


def maternal(seed=1, n=400, m=40):
    """Records with an animal and (mostly) a dam among the same m individuals."""
    rng = np.random.default_rng(seed)
    codes = np.column_stack([rng.integers(0, m, n), rng.integers(0, m, n)]).astype(np.int32)
    codes[:20, 1] = -1
    b = rng.normal(size=(m, 2)) @ np.linalg.cholesky([[1.0, 0.3], [0.3, 0.5]]).T
    y = 2.0 + b[codes[:, 0], 0] + np.where(codes[:, 1] >= 0, b[codes[:, 1], 1], 0.0) + rng.normal(size=n)
    X = np.column_stack([np.ones(n), rng.normal(size=n)])
    return y, X, mm.RandomTerm("animal", ("direct", "maternal"), codes, range(m), None, "us")


def membership(seed=2, n=300, m=30):
    """Pupils of one to three schools, weights that add up to 1."""
    rng = np.random.default_rng(seed)
    share = rng.dirichlet(np.ones(3), n)
    where = np.argsort(rng.random((n, m)), axis=1)[:, :3]
    rows = sparse.csr_array((share.ravel(), (np.repeat(np.arange(n), 3), where.ravel())), shape=(n, m))
    y = 5.0 + rows @ rng.normal(size=m) * 1.5 + rng.normal(size=n)
    none = np.zeros((n, 0), dtype=np.int32)
    term = mm.RandomTerm("school", ("1",), none, range(m), None, "us", None, rows)
    return y, np.ones((n, 1)), term


def marginal(fit):
    """Mean and covariance matrix of y, written out."""
    Z = fit.design.terms[0].matrix(fit.design.n).toarray()
    m = fit.design.terms[0].m
    Sigma = np.array(fit._factors[0]) @ np.array(fit._factors[0]).T
    return fit.sigma**2 * (Z @ np.kron(np.eye(m), Sigma) @ Z.T + np.eye(fit.design.n)), Z, Sigma


@pytest.mark.parametrize("make", [maternal, membership])
@pytest.mark.parametrize("reml", [True, False])
def test_likelihood_and_effects_by_the_formulae(make, reml):
    y, X, term = make()
    fit = mm.LinearMixedModel.from_matrices(y, X, [term], reml=reml).fit()
    assert fit.converged
    V, Z, Sigma = marginal(fit)
    n, p = X.shape
    Vi = np.linalg.inv(V)
    beta = np.linalg.solve(X.T @ Vi @ X, X.T @ Vi @ y)
    rest = y - X @ beta
    value = np.linalg.slogdet(V)[1] + rest @ Vi @ rest + (n - p * reml) * np.log(2 * np.pi)
    if reml:
        value += np.linalg.slogdet(X.T @ Vi @ X)[1]
    assert fit.loglik == pytest.approx(-0.5 * value, rel=1e-10)
    assert np.abs(fit.beta - beta).max() < 1e-9
    m = fit.design.terms[0].m
    b = fit.sigma**2 * np.kron(np.eye(m), Sigma) @ Z.T @ Vi @ rest
    assert np.abs(fit.fitted() - X @ beta - Z @ b).max() < 1e-8
    dense = mm.LinearMixedModel.from_matrices(y, X, [term], reml=reml, solver="dense").fit()
    assert fit.loglik == pytest.approx(dense.loglik, rel=1e-11)
    assert np.abs(fit.theta - dense.theta).max() < 1e-5


def test_small_sample_tests_and_intervals_work():
    y, X, term = maternal()
    fit = mm.LinearMixedModel.from_matrices(y, X, [term]).fit()
    dense = mm.LinearMixedModel.from_matrices(y, X, [term], solver="dense").fit()
    for ddf in ("satterthwaite", "kenward-roger"):
        ours, theirs = fit.coefficients(ddf=ddf), dense.coefficients(ddf=ddf)
        for column in ("std_error", "df", "p_value"):
            assert np.asarray(ours[column]) == pytest.approx(np.asarray(theirs[column]), rel=1e-4)


def test_simulated_responses_have_the_covariance_of_the_model():
    y, X, term = maternal(n=60, m=12)
    fit = mm.LinearMixedModel.from_matrices(y, X, [term]).fit()
    V, _, _ = marginal(fit)
    draws = fit.simulate(20000, seed=4)
    found = np.cov(draws)
    assert np.abs(draws.mean(axis=1) - X @ fit.beta).max() < 6.0 * np.sqrt(V.diagonal().max() / 20000)
    assert np.abs(found - V).max() < 6.0 * V.diagonal().max() * np.sqrt(2.0 / 20000)


def test_two_columns_on_one_level_are_their_sum():
    """Two memberships of weight 1/2 in one school are one membership of weight 1."""
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 15, 120)
    y = rng.normal(size=120) + rng.normal(size=15)[codes]
    plain = mm.RandomTerm("school", ("1",), codes, None, None, "us")
    rows = sparse.csr_array(
        (np.full(240, 0.5), (np.tile(np.arange(120), 2), np.tile(codes, 2))), shape=(120, 15)
    )
    none = np.zeros((120, 0), dtype=int)
    split = mm.RandomTerm("school", ("1",), none, range(15), None, "us", None, rows)
    X = np.ones((120, 1))
    one, two = (mm.LinearMixedModel.from_matrices(y, X, [term]).fit() for term in (plain, split))
    assert (one.solver.name, two.solver.name) == ("grouped", "sparse")
    assert two.loglik == pytest.approx(one.loglik, rel=1e-10)
    assert two.theta == pytest.approx(one.theta, rel=1e-5)


@pytest.mark.parametrize("known", [False, True])
def test_variance_parts_are_those_of_the_rows(known):
    y, X, term = maternal(n=80, m=10)
    m = term.m
    A = 0.3 + 0.7 * np.eye(m) if known else np.eye(m)
    precision = (
        Precision(sparse.csc_array(np.linalg.inv(A)), float(np.linalg.slogdet(A)[1])) if known else None
    )
    fit = mm.LinearMixedModel.from_matrices(y, X, [replace(term, precision=precision)]).fit()
    factor = np.array(fit._factors[0])
    Z = fit.design.terms[0].matrix(80).toarray()
    variances = np.diag(Z @ np.kron(A, factor @ factor.T) @ Z.T) * fit.sigma**2
    assert fit.icc()["variance"][0] == pytest.approx(variances.mean(), rel=1e-9)


def test_leverages_are_those_of_the_projection():
    y, X, term = maternal(n=80, m=10)
    fit = mm.LinearMixedModel.from_matrices(y, X, [term]).fit()
    V = marginal(fit)[0]
    Vi = np.linalg.inv(V)
    XVX = np.linalg.inv(X.T @ Vi @ X)
    P = Vi - Vi @ X @ XVX @ X.T @ Vi
    hat = np.eye(80) - fit.sigma**2 * P
    assert np.abs(fit.leverage() - np.diag(hat)).max() < 1e-9


def test_what_needs_one_level_a_row_is_refused_by_name():
    y, X, term = maternal(n=80, m=10)
    fit = mm.LinearMixedModel.from_matrices(y, X, [term]).fit()
    with pytest.raises(NotImplementedYetError, match="'animal', of which a row touches several levels"):
        fit.predict(interval="confidence")
    with pytest.raises(NotImplementedYetError, match="cluster='animal': rows touch several levels"):
        fit.robust_vcov()
    with pytest.raises(NotImplementedYetError, match="they do not fall into groups"):
        fit.influence("animal")
    assert "nothing to worry about" in str(fit.diagnose())


def test_errors_name_the_term():
    y, X, term = maternal(n=50, m=10)
    make = mm.LinearMixedModel.from_matrices

    def changed(**values):
        fields = {
            name: getattr(term, name) for name in ("group", "names", "codes", "levels", "Z", "covariance")
        }
        return mm.RandomTerm(**{**fields, **values})

    with pytest.raises(DataError, match=r"must be whole numbers -1 \.\. 9"):
        make(y, X, [changed(codes=term.codes + 1)])
    with pytest.raises(DataError, match="name the levels"):
        make(y, X, [changed(levels=None)])
    with pytest.raises(DataError, match=r"Z of terms.0. has 3 columns; codes has 2"):
        make(y, X, [changed(Z=np.ones((50, 3)))])
    with pytest.raises(DataError, match=r"codes of terms.0. has shape"):
        make(y, X, [changed(codes=term.codes[:10])])
    with pytest.raises(DataError, match=r"rows of terms.0. has shape"):
        make(y, X, [changed(rows=sparse.csr_array((50, 7)))])
    with pytest.raises(DataError, match="rows= needs a sparse matrix, names and levels"):
        make(y, X, [changed(rows=np.ones((50, 20)))])
    with pytest.raises(OptionError, match=r'those of .animal. touch several: use solver="sparse"'):
        make(y, X, [term], solver="blocked").fit()
