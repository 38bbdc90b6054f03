"""Hessians of large generalised models by differences of the exact gradient."""

from __future__ import annotations

import numpy as np
import pytest

import mixedmodels as mm
from mixedmodels.genetics import random_pedigree, simulate_trait
from mixedmodels.objective import glmm
from mixedmodels.objective.differences import differenced_hessian


def test_differences_of_a_quartic_are_exact():
    """Fourth-order differences of the gradient of a polynomial of degree five."""
    at = np.array([0.3, -0.7])
    M = np.array([[1.0, 0.5], [0.0, 2.0]])
    hessian = np.diag(20.0 * at**3) + np.array([[0.0, 1.0], [1.0, 0.0]])
    found = differenced_hessian(lambda x: 5.0 * x**4 + x[::-1], np.array([0.1, 0.2]), M, at)
    assert np.allclose(found, M.T @ hessian @ M, rtol=1e-12)


@pytest.mark.parametrize("family", ["binomial", "poisson"])
def test_covariances_of_a_large_animal_model(family, monkeypatch):
    pedigree = random_pedigree(founders=60, generations=4, size=120, sires=10, seed=1)
    trait = simulate_trait(pedigree, heritability=0.5, seed=2)
    rng = np.random.default_rng(3)
    y = (trait["y"] > 0.2).astype(int) if family == "binomial" else rng.poisson(np.exp(0.5 * trait["y"]))
    data = {"animal": trait["individual"], "y": y, "x": rng.normal(size=y.size)}

    def fit():
        return mm.glmm("y ~ x + (1 | animal)", data, family=family, known={"animal": pedigree})

    exact = fit()
    expected = exact.joint_vcov
    assert not exact.objective.differenced
    assert not any("nagq=7" in note for note in exact.messages)
    monkeypatch.setattr(glmm, "_SECOND_WORK", 0.0)
    differenced = fit()
    assert differenced.objective.differenced
    assert np.allclose(differenced.joint_vcov, expected, rtol=1e-8, atol=1e-12)
    assert any("differences of the exact gradient" in note for note in differenced.messages)
