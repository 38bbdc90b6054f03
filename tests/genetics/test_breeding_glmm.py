"""Breeding values of generalised models: predictions on the scale of the linear predictor."""

from __future__ import annotations

import numpy as np
import pytest

import mixedmodels as mm


@pytest.fixture(scope="module")
def herd():
    pedigree = mm.genetics.random_pedigree(founders=20, generations=3, size=40, seed=2)
    rng = np.random.default_rng(2)
    u = mm.genetics.simulate_breeding_values(pedigree, 1.0, seed=2).ravel()
    animal = np.repeat(np.arange(20, len(pedigree.ids)), 2)
    x = rng.normal(size=animal.size)
    eta = 0.4 + 0.5 * x + u[animal]
    dam = pedigree.dam[animal]
    return pedigree, {
        "x": x,
        "animal": pedigree.ids[animal],
        "dam": pedigree.ids[dam],
        "y": eta + rng.normal(size=x.size),
        "b": rng.binomial(4, 1.0 / (1.0 + np.exp(-eta))),
        "m": np.full(x.size, 4),
    }


def test_gaussian_with_identity_link_is_the_linear_model(herd):
    pedigree, data = herd
    formula, known = "y ~ x + (1 | animal)", {"animal": pedigree}
    linear = mm.lmm(formula, data, known=known, reml=False).breeding_values()
    general = mm.glmm(formula, data, known=known, family="gaussian").breeding_values()
    assert list(general["id"]) == list(linear["id"]) and len(general["id"]) == len(pedigree.ids)
    np.testing.assert_array_equal(general["records"], linear["records"])
    for name in ("estimate", "pev", "std_error", "reliability", "accuracy"):
        np.testing.assert_allclose(general[name], linear[name], rtol=2e-4, atol=1e-5)


def test_binary_records_say_less_than_the_liability(herd):
    """Errors are those of the penalised equations, coefficients included, up to third derivatives."""
    pedigree, data = herd
    fit = mm.glmm("b ~ x + (1 | animal)", data, known={"animal": pedigree}, family="binomial", trials="m")
    table = fit.breeding_values("animal")
    variance = float(fit.theta[0]) ** 2
    place = {label: row for row, label in enumerate(pedigree.ids)}
    rows = np.array([place[label] for label in data["animal"]])
    Z = np.zeros((rows.size, len(pedigree.ids)))
    Z[np.arange(rows.size), rows] = 1.0
    X = np.column_stack([np.ones(rows.size), data["x"]])
    levels = [place[label] for label in table["id"]]
    effects = np.zeros(len(pedigree.ids))
    effects[levels] = table["estimate"]
    p = 1.0 / (1.0 + np.exp(-(X @ np.array([fit.fixef["(Intercept)"], fit.fixef["x"]]) + effects[rows])))
    W = data["m"] * p * (1.0 - p)
    precision = pedigree.additive_precision()[0].toarray()
    whole = np.block(
        [[X.T @ (W[:, None] * X), X.T @ (W[:, None] * Z)],
         [Z.T @ (W[:, None] * X), Z.T @ (W[:, None] * Z) + precision / variance]]
    )  # fmt: skip
    pev = np.diagonal(np.linalg.inv(whole))[2:][levels]
    np.testing.assert_allclose(table["pev"], pev, rtol=0.03)
    own = 1.0 + np.asarray(pedigree.inbreeding)[levels]
    np.testing.assert_allclose(table["reliability"], np.clip(1.0 - table["pev"] / (own * variance), 0.0, 1.0))


def test_direct_and_maternal_effects(herd):
    pedigree, data = herd
    fit = mm.glmm(
        "b ~ x + joint(1 | animal, 1 | dam)", data, known={"animal": pedigree}, family="binomial", trials="m"
    )
    direct, maternal = (fit.breeding_values("animal", name) for name in fit.generalised.terms[0].names)
    for table in (direct, maternal):
        reliability = np.asarray(table["reliability"])
        assert ((reliability >= 0.0) & (reliability <= 1.0)).all() and reliability.max() > 0.05
    assert not np.allclose(direct["estimate"], maternal["estimate"])
