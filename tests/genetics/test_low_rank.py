"""A known covariance by its factor: the same model as with the matrix, never individuals by individuals."""

from __future__ import annotations

import numpy as np
import pytest

import mixedmodels as mm
from mixedmodels.errors import DataError, OptionError
from mixedmodels.solver.low_rank import LowRankSolver


def sample(seed=1, m=60, r=15, records=2):
    rng = np.random.default_rng(seed)
    W = (rng.binomial(2, 0.4, (m, r)) - 0.8) / np.sqrt(0.48 * r)
    rows = np.repeat(np.arange(m), records)[: m * records - 3]
    x = rng.normal(size=rows.size)
    y = 1.0 + 0.5 * x + (1.2 * W @ rng.normal(size=r))[rows] + 0.5 * rng.normal(size=rows.size)
    data = {
        "y": y,
        "x": x,
        "id": rows,
        "w": rng.uniform(0.5, 2.0, rows.size),
        "z": rng.normal(size=rows.size),
    }
    return W, np.arange(m), data


@pytest.mark.parametrize("formula", ["y ~ x + (1 | id)", "y ~ x + (0 + z | id)"])
@pytest.mark.parametrize("options", [{}, {"reml": False}, {"weights": "w"}])
def test_the_factor_gives_the_model_of_the_matrix(formula, options):
    W, ids, data = sample()
    low = mm.lmm(formula, data, known={"id": {"ids": ids, "factor": W}}, **options)
    full = mm.lmm(formula, data, known={"id": (W @ W.T, ids)}, **options)
    assert isinstance(low.solver, LowRankSolver) and "rank 15" in low.solver.describe()
    assert low.loglik == pytest.approx(full.loglik, rel=1e-11)
    np.testing.assert_allclose(low.beta, full.beta, rtol=1e-7)
    np.testing.assert_allclose(low.vcov, full.vcov, rtol=1e-6)
    mine, theirs = low.breeding_values(), full.breeding_values()
    np.testing.assert_allclose(mine["estimate"], theirs["estimate"], atol=1e-6)
    np.testing.assert_allclose(mine["pev"], theirs["pev"], rtol=1e-5)


def test_its_further_answers_are_those_of_the_matrix():
    W, ids, data = sample(2)
    low = mm.lmm("y ~ x + (1 | id)", data, known={"id": {"ids": ids, "factor": W}})
    full = mm.lmm("y ~ x + (1 | id)", data, known={"id": (W @ W.T, ids)})
    for method in ("kr", "satterthwaite"):
        for name in ("std_error", "df"):
            np.testing.assert_allclose(
                low.coefficients(method)[name], full.coefficients(method)[name], rtol=1e-5
            )
    for method in ("delta", "profile"):
        a, b = (fit.heritability(method=method).rows()[0] for fit in (low, full))
        assert a["conf_low"] == pytest.approx(b["conf_low"], rel=1e-5)
    np.testing.assert_allclose(
        low.predict({"x": [0.0], "id": [3]}), full.predict({"x": [0.0], "id": [3]}), rtol=1e-6
    )
    markers = np.random.default_rng(1).binomial(2, 0.3, (len(data["y"]), 4)).astype(float)
    for method in ("exact", "p3d"):
        a, b = (mm.genetics.scan(fit, markers, method=method)["p_value"] for fit in (low, full))
        np.testing.assert_allclose(a, b, rtol=1e-4)
    draws = low.simulate(4000, seed=1)[[0, 2]]
    expected = low.theta[0] ** 2 * low.sigma**2 * (W @ W.T)[:2, :2] + low.sigma**2 * np.eye(2)
    np.testing.assert_allclose(np.cov(draws), expected, rtol=0.2, atol=0.1)


def test_it_is_the_model_of_independent_marker_effects():
    """SNP-BLUP: y = X beta + Z W a + e by the mixed-model equations of the markers."""
    W, ids, data = sample(3)
    fit = mm.lmm("y ~ x + (1 | id)", data, known={"id": {"ids": ids, "factor": W}})
    X, M = np.column_stack([np.ones(len(data["y"])), data["x"]]), W[data["id"]]
    left = np.block([[X.T @ X, X.T @ M], [M.T @ X, M.T @ M + np.eye(15) / fit.theta[0] ** 2]])
    solved = np.linalg.solve(left, np.concatenate([X.T @ data["y"], M.T @ data["y"]]))
    np.testing.assert_allclose(fit.beta, solved[:2], rtol=1e-8)
    values = fit.breeding_values()["estimate"]
    np.testing.assert_allclose(values, W @ solved[2:], atol=1e-9)
    np.testing.assert_allclose(np.linalg.lstsq(W, values, rcond=None)[0], solved[2:], atol=1e-8)


def test_dependent_columns_and_as_many_columns_as_rows():
    W, ids, data = sample(4)
    full = mm.lmm("y ~ x + (1 | id)", data, known={"id": (W @ W.T, ids)})
    twice = mm.lmm("y ~ x + (1 | id)", data, known={"id": {"ids": ids, "factor": np.hstack([W, W]) / 2**0.5}})
    assert twice.loglik == pytest.approx(full.loglik, rel=1e-10) and len(twice.solver.d) == 15
    wide = np.hstack([W, np.zeros((60, 200))])
    square = mm.lmm("y ~ x + (1 | id)", data, known={"id": {"ids": ids, "factor": wide}})
    assert square.loglik == pytest.approx(full.loglik, rel=1e-10)


def test_markers_to_factor():
    ped = mm.genetics.random_pedigree(founders=20, generations=1, size=30, seed=2)
    g = mm.genetics.drop_genes(ped, frequencies=np.full(40, 0.3), missing=0.02, seed=3)
    for method in (1, 2):
        known = mm.genetics.marker_factor(g, method)
        np.testing.assert_allclose(
            known["factor"] @ known["factor"].T, mm.genetics.genomic(g, method).toarray(), atol=1e-12
        )
    with pytest.raises(OptionError, match="choose 1 or 2"):
        mm.genetics.marker_factor(g, 3)


def test_refusals():
    W, ids, data = sample(5)
    known = {"ids": ids, "factor": W}
    for change, error, text in (
        ({"factor": W[0]}, DataError, "a row per id and a column per marker"),
        ({"factor": W * np.nan}, DataError, "missing or infinite"),
        ({"factor": W[1:]}, DataError, "60 ids for a matrix of 59 rows"),
        ({"factor": W * (ids > 0)[:, None]}, DataError, "the row of 0 is zero"),
        ({"factor": [["a", "b"]]}, DataError, "not numbers"),
        ({"covariance": W @ W.T}, OptionError, "one of 'precision' and 'covariance'"),
    ):
        with pytest.raises(error, match=text):
            mm.lmm("y ~ x + (1 | id)", data, known={"id": known | change})


def test_saved_and_updated(tmp_path):
    W, ids, data = sample(6)
    fit = mm.lmm("y ~ x + (1 | id)", data, known={"id": {"ids": ids, "factor": W}})
    fit.save(tmp_path / "fit.mm")
    np.testing.assert_array_equal(
        mm.load(tmp_path / "fit.mm").breeding_values()["pev"], fit.breeding_values()["pev"]
    )
    assert fit.update(formula=". ~ . - x").solver.describe().endswith("1 fixed-effects columns")
