"""The exact distribution of the (restricted) likelihood ratio of one variance, against RLRsim and itself."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import mixedmodels as mm
from mixedmodels.inference.likelihood.boundary import mixture_tail
from mixedmodels.inference.likelihood.rlrt import Spectrum, simulate_statistics, spectrum_of
from mixedmodels.testing.reference_data import read_reference_table

REFERENCES = Path(__file__).parents[1] / "references"
TESTS = json.loads((REFERENCES / "inference" / "tests.json").read_text(encoding="utf-8"))


def data_of(name):
    if name != "unbalanced":
        return read_reference_table(REFERENCES / "data", name)
    sleep = mm.load_dataset("sleepstudy", backend="pandas")
    rows = sleep.iloc[[i for i in range(180) if i % 7]]
    return rows[~((rows["Subject"].astype(str) == "308") & (rows["Days"] > 2))]


@pytest.mark.parametrize("case", TESTS["distribution"], ids=lambda case: case["data"] + case["formula"][-14:])
def test_quantiles_of_rlrsim(case):
    design = mm.LinearMixedModel(case["formula"], data_of(case["data"])).design
    spectrum = spectrum_of(design, design.terms[0])
    n = 50_000
    for kind, reml in (("rlrt", True), ("lrt", False)):
        draws = simulate_statistics(spectrum, n, np.random.default_rng(7), reml)
        zero = case[f"{kind}_zero"]
        assert (draws == 0).mean() == pytest.approx(
            zero, abs=4.5 * np.sqrt(zero * (1 - zero) * (1 / n + 1e-6))
        )
        for prob, quantile in zip(case["probs"], case[kind], strict=True):
            error = np.sqrt(prob * (1 - prob) * (1 / n + 1e-6))
            assert (draws <= quantile).mean() == pytest.approx(prob, abs=4.5 * error)


@pytest.mark.parametrize("case", TESTS["exactRLRT"], ids=lambda case: case["data"])
def test_p_values_of_exact_rlrt(case):
    fit = mm.lmm(case["formula"], data_of(case["data"]))
    table = fit.test_random(case["term"], method="rlrt", n=100_000, seed=1)
    row = table.rows()[1]
    assert row["statistic"] == pytest.approx(case["statistic"], rel=1e-6)
    error = np.sqrt(case["p"] * (1 - case["p"]) * (1 / case["draws"] + 1e-5))
    assert row["p_value"] == pytest.approx(case["p"], abs=4.5 * error)
    assert any("Greven" in note for note in table.notes) == (case["data"] == "Pastes")


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("random", ["(1 | g)", "(0 + x | g)", "homdiag(1 + x | g)"])
def test_eigenvalues_are_those_of_the_full_matrices(random, weighted):
    rng = np.random.default_rng(9)
    n = 60
    g = np.repeat(np.arange(14), [2, 2, 2, 2, 2, 4, 4, 4, 4, 6, 6, 7, 7, 8])
    data = {"y": rng.normal(size=n), "x": rng.integers(0, 3, size=n).astype(float), "g": g}
    weights = rng.uniform(0.5, 2, size=n) if weighted else None
    design = mm.LinearMixedModel(f"y ~ x + {random}", data, weights=weights).design
    term = design.terms[0]
    columns = np.ones((n, 1)) if term.Z is None else term.Z
    Z = np.zeros((n, term.m * term.k))
    for j in range(term.k):
        Z[np.arange(n), term.codes * term.k + j] = columns[:, j]
    root = np.ones(n) if weights is None else np.sqrt(weights)
    Z, X = Z * root[:, None], design.X * root[:, None]
    P0 = np.eye(n) - X @ np.linalg.solve(X.T @ X, X.T)
    spectrum = spectrum_of(design, term)
    for values, count, full in (
        (spectrum.mu, spectrum.count, np.linalg.eigvalsh(Z.T @ P0 @ Z)),
        (spectrum.xi, spectrum.xi_count, np.linalg.eigvalsh(Z.T @ Z)),
    ):
        full = full[full > 1e-8]
        np.testing.assert_allclose(np.sort(np.repeat(values, count)), full, rtol=1e-8)


def test_balanced_data_need_a_matrix_of_the_order_of_the_fixed_part():
    n_levels = 30_000  # a matrix of this order would not fit
    codes = np.repeat(np.arange(n_levels), 2)
    rng = np.random.default_rng(1)
    data = {"y": rng.normal(size=2 * n_levels), "x": rng.normal(size=2 * n_levels), "g": codes}
    design = mm.LinearMixedModel("y ~ x + (1 | g)", data).design
    spectrum = spectrum_of(design, design.terms[0])
    assert spectrum.count.sum() == n_levels - 1
    assert spectrum.mu.size <= 3


def test_many_groups_come_to_the_mixture_of_zero_and_one_degree_of_freedom():
    spectrum = Spectrum(np.array([4.0]), np.array([4999]), np.array([4.0]), np.array([5000]), 20_000, 1)
    draws = simulate_statistics(spectrum, 40_000, np.random.default_rng(3))
    for critical in (0.5, 1.642374, 2.705543):
        assert (draws >= critical).mean() == pytest.approx(mixture_tail(critical, {0: 0.5, 1: 0.5}), abs=0.01)


def test_bootstrap_and_exact_distribution_agree():
    fit = mm.lmm("Yield ~ 1 + (1 | Batch)", mm.load_dataset("Dyestuff", "dict"))
    n = 1500
    boot = fit.test_random(method="bootstrap", n=n, seed=2).extra["draws"][1]
    exact = fit.test_random(method="rlrt", n=100_000, seed=2).extra["draws"][1]
    for critical in (0.05, 0.5, 2.0):
        p = (exact >= critical).mean()
        assert (boot >= critical).mean() == pytest.approx(p, abs=4.5 * np.sqrt(p * (1 - p) / n))


def test_the_scale_of_z_does_not_matter():
    sleep = mm.load_dataset("sleepstudy", backend="pandas").assign(hours=lambda d: d["Days"] * 24)
    draws = []
    for name in ("Days", "hours"):
        design = mm.LinearMixedModel(f"Reaction ~ Days + (0 + {name} | Subject)", sleep).design
        spectrum = spectrum_of(design, design.terms[0])
        draws.append(simulate_statistics(spectrum, 500, np.random.default_rng(1)))
    np.testing.assert_allclose(draws[0], draws[1], atol=1e-8)


def test_more_than_one_variance_is_refused(fit):
    with pytest.raises(mm.OptionError, match="one variance"):
        fit.test_random("Days in (Days | Subject)", method="rlrt")
    with pytest.raises(mm.OptionError, match="one variance"):
        fit.test_random(method="rlrt")
    with pytest.raises(mm.OptionError, match="one variance"):
        spectrum_of(fit.design, fit.design.terms[0])
