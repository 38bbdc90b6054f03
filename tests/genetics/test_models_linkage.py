"""Linkage by variance components against dense likelihoods."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import chi2

import mixedmodels as mm
from mixedmodels.errors import NotImplementedYetError


def sibships(seed, families=30, sibs=4, locus=0.8):
    """Nuclear families with the shares of genes identical by descent among sibs at a linked place."""
    rng = np.random.default_rng(seed)
    pedigree = mm.genetics.nuclear_families(families, children=sibs)
    pairs = mm.genetics.drop_founder_genes(pedigree, loci=1, seed=seed)[:, :, 0]
    share = (pairs[:, None, :, None] == pairs[None, :, None, :]).sum(axis=(2, 3)) / 2.0
    child = np.flatnonzero(pedigree.sire >= 0)
    A = pedigree.additive().toarray()[np.ix_(child, child)]
    ibd = share[np.ix_(child, child)]
    V = 0.4 * A + locus * ibd + 0.6 * np.eye(len(child))
    y = 1.0 + np.linalg.cholesky(V) @ rng.normal(size=len(child))
    data = {"y": y, "id": pedigree.ids[child], "x": rng.normal(size=len(child))}
    return pedigree, data, A, ibd, np.repeat(np.arange(families), sibs)


def loglik(data, parts):
    """Maximum of the log-likelihood over the variances of the parts, the last one the residual's."""
    X = np.column_stack([np.ones(len(data["y"])), data["x"]])
    y = np.asarray(data["y"])

    def criterion(log_sd):
        V = sum(np.exp(2.0 * s) * part for s, part in zip(log_sd, parts, strict=True))
        C = np.linalg.cholesky(V)
        WX, Wy = np.linalg.solve(C, X), np.linalg.solve(C, y)
        r = Wy - WX @ np.linalg.lstsq(WX, Wy, rcond=None)[0]
        return np.log(np.diag(C)).sum() + 0.5 * r @ r + 0.5 * len(y) * np.log(2.0 * np.pi)

    starts = [np.full(len(parts), -0.5), np.linspace(-1.0, 0.0, len(parts))]
    return -min(
        minimize(criterion, s, method="L-BFGS-B", bounds=[(-12.0, 5.0)] * len(parts)).fun for s in starts
    )


@pytest.fixture(scope="module")
def linked():
    pedigree, data, A, ibd, family = sibships(3)
    fit = mm.lmm("y ~ x + (1 | id)", data, known={"id": pedigree})
    return fit, data, A, ibd, family


def test_against_dense_likelihoods(linked):
    fit, data, A, ibd, _ = linked
    rng = np.random.default_rng(1)
    order = rng.permutation(len(ibd))
    places = {
        "here": (ibd[np.ix_(order, order)], data["id"][order]),
        "nowhere": (np.eye(len(ibd)), data["id"]),
    }
    found = mm.genetics.linkage(fit, places)
    unit = np.eye(len(ibd))
    expected = 2.0 * (loglik(data, [A, ibd, unit]) - loglik(data, [A, unit]))
    assert found["place"].tolist() == ["here", "nowhere"]
    assert found["statistic"][0] == pytest.approx(expected, abs=2e-5)
    assert found["lod"][0] == pytest.approx(expected / (2.0 * np.log(10.0)), abs=1e-5)
    assert found["p_value"][0] == pytest.approx(0.5 * chi2.sf(found["statistic"][0], 1), rel=1e-10)
    assert found["lod"][0] > 1.0
    assert found["statistic"][1] == pytest.approx(0.0, abs=1e-6)  # the residual once more: nothing gained
    assert 0.0 < found["share"][0] < 1.0


def test_scores_of_families_add_up(linked):
    fit, data, A, ibd, _ = linked
    halves = np.repeat(["north", "south"], len(ibd) // 2)
    found = mm.genetics.linkage(fit, {"here": (ibd, data["id"])}, families=halves)
    total = 0.0
    for half in ("north", "south"):
        rows = np.flatnonzero(halves == half)
        own = {name: np.asarray(column)[rows] for name, column in data.items()}
        unit, at = np.eye(rows.size), np.ix_(rows, rows)
        total += 2.0 * (loglik(own, [A[at], ibd[at], unit]) - loglik(own, [A[at], unit]))
    assert found["statistic"][0] == pytest.approx(total, abs=5e-5)
    s = found["statistic"][0]
    assert found["p_value"][0] == pytest.approx(0.5 * chi2.sf(s, 1) + 0.25 * chi2.sf(s, 2), rel=1e-10)


def test_refusals(linked):
    fit, data, _, ibd, family = linked
    with pytest.raises(mm.errors.DataError, match="does not have 1 individuals"):
        mm.genetics.linkage(fit, {"p": (ibd[1:, 1:], data["id"][1:])})
    with pytest.raises(mm.errors.DataError, match="negative eigenvalue"):
        bad = ibd.copy()
        bad[0, 1] = bad[1, 0] = 3.0
        mm.genetics.linkage(fit, {"p": (bad, data["id"])})
    with pytest.raises(mm.errors.DataError, match="fewer than 6 rows"):
        mm.genetics.linkage(fit, {"p": (ibd, data["id"])}, families=family)
    with pytest.raises(mm.errors.DataError, match="one label per row"):
        mm.genetics.linkage(fit, {"p": (ibd, data["id"])}, families=family[:5])
    with pytest.raises(mm.errors.OptionError, match="dict from places"):
        mm.genetics.linkage(fit, ibd)
    with pytest.raises(mm.errors.OptionError, match="the terms are on id"):
        mm.genetics.linkage(fit, {"p": (ibd, data["id"])}, group="x")


def test_linkage_refuses_rows_of_several_individuals():
    rng = np.random.default_rng(1)
    first = rng.integers(0, 12, 120)
    second = (first + rng.integers(1, 12, 120)) % 12
    u = rng.normal(size=(12, 2))
    data = {"y": u[first, 0] + u[second, 1] + rng.normal(size=120), "a": first.astype(str)}
    fit = mm.lmm("y ~ 1 + joint(1 | a, 1 | b)", {**data, "b": second.astype(str)})
    ids = [str(i) for i in range(12)]
    with pytest.raises(NotImplementedYetError, match=r"linkage: .*'a', of which a row .* term of their own"):
        mm.genetics.linkage(fit, {"place": (np.eye(12), ids)}, group="a")
