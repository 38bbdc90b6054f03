"""Models with known relationships against dense references in R and published solutions."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

import mixedmodels as mm

_spec = importlib.util.spec_from_file_location(
    "relationship_cases", Path(__file__).with_name("relationship_cases.py")
)
cases = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(cases)
dominance, kinship, known_matrix = cases.dominance, cases.kinship, cases.known_matrix
pedigree, references, table = cases.pedigree, cases.references, cases.table

SNPS = [f"snp{j:02d}" for j in range(1, 21)]
MODELS = {
    "ped500_additive": ("y ~ sex + (1 | animal)", "dat_ped500", {"animal": "animal"}),
    "ped500_add_dom": (
        "y ~ sex + (1 | animal) + known(1 | animal, D)",
        "dat_ped500",
        {"animal": "animal", "dominance": "animal:D"},
    ),
    "ped500_add_dom_herd": (
        "y ~ sex + (1 | animal) + known(1 | animal, D) + (1 | herd)",
        "dat_ped500",
        {"animal": "animal", "dominance": "animal:D", "herd": "herd"},
    ),
    "kin300_null": ("y ~ x + sex + (1 | id)", "kin300", {"id": "id"}),
    "kin300_joint20": (f"y ~ x + sex + {' + '.join(SNPS)} + (1 | id)", "kin300", {"id": "id"}),
    "knowncov": ("y ~ x + (1 | g)", "knowncov", {"g": "g"}),
    "knowncov_plus_iid": ("y ~ x + (1 | g) + id(1 | g)", "knowncov", {"g_K": "g", "g": "g:id"}),
}


def relationships(name):
    if name.startswith("ped500"):
        found = {"animal": pedigree("ped500")}
        return found | ({"D": dominance("ped500")} if "dom" in name else {})
    return {"id": kinship()} if name.startswith("kin300") else {"g": known_matrix()}


@pytest.mark.parametrize("criterion", ["ml", "reml"])
@pytest.mark.parametrize("name", MODELS)
def test_fits(name, criterion):
    formula, data, groups = MODELS[name]
    reference = references()[f"{name}_{criterion}"]
    fit = mm.lmm(formula, table(data), known=relationships(name), reml=criterion == "reml")
    assert fit.loglik == pytest.approx(reference["loglik"], rel=1e-10)
    np.testing.assert_allclose(fit.beta, [b for b, _ in reference["beta"].values()], rtol=1e-6, atol=1e-7)
    se = [s for _, s in reference["beta"].values()]
    np.testing.assert_allclose(np.sqrt(np.diag(fit.vcov)), se, rtol=1e-6)
    assert fit.sigma == pytest.approx(reference["sigma"], rel=1e-6)
    order = {term.group: i for i, term in enumerate(fit.design.terms)}
    for theirs, ours in groups.items():
        assert fit.theta[order[ours]] == pytest.approx(reference["theta"][theirs], rel=2e-6, abs=1e-6)
    for block in reference["ranef"]:
        found = fit.breeding_values(groups[block["group"]])
        assert len(found) == block["n_levels"]
        place = {str(label): i for i, label in enumerate(found["id"].tolist())}
        rows = [place[label.removesuffix(".0")] for label in block["levels"]]
        scale = np.sqrt(block["sumsq"][0] / block["n_levels"]) + 1e-12
        np.testing.assert_allclose(found["estimate"][rows], block["values"], rtol=1e-5, atol=2e-6 * scale)
        if block["sumsq"][0] > 0.0 and block["pev"] is not None:
            np.testing.assert_allclose(found["pev"][rows], block["pev"][: len(rows)], rtol=1e-5)


def test_mrode_animal_model():
    """Mrode (2014), example 3.1: with heritability 1/3, solutions to three decimals."""
    reference = references()["mrode31_blup"]
    data = table("dat_mrode31")
    fit = mm.blup(
        "wwg ~ 0 + sex + (1 | animal)",
        data,
        variances={"animal": 20.0, "Residual": 40.0},
        known={"animal": pedigree("ped_mrode31")},
    )
    published = reference["extra"]["published"]
    by_sex = [fit.fixef["sexMale"], fit.fixef["sexFemale"]]
    # the book cuts 4.3585 to 4.358
    np.testing.assert_allclose(by_sex, published[0]["value"], atol=1.001e-3)
    values = fit.breeding_values()
    np.testing.assert_allclose(values["estimate"], published[1]["value"], atol=5.01e-4)
    block = reference["ranef"][0]
    np.testing.assert_allclose(values["estimate"], np.ravel(block["values"]), rtol=1e-11)
    np.testing.assert_allclose(values["pev"], block["pev"], rtol=1e-11)
    np.testing.assert_allclose(values["reliability"], 1.0 - np.array(block["pev"]) / 20.0, rtol=1e-9)
    assert fit.loglik == pytest.approx(reference["objective"]["logLik_REML"], rel=1e-12)
    ml = fit.update(reml=False)
    assert ml.loglik == pytest.approx(reference["objective"]["logLik"], rel=1e-12)
    np.testing.assert_allclose(
        by_sex, [reference["beta"][sex]["estimate"] for sex in ("Male", "Female")], rtol=1e-12
    )
    assert values["records"].tolist() == [0, 0, 0, 1, 1, 1, 1, 1]


def test_mrode_dominance():
    """Mrode (2014), example 12.1: additive and dominance effects on the same animals."""
    reference = references()["mrode12_dominance_blup"]
    fit = mm.blup(
        "weight ~ 0 + sex + (1 | animal) + known(1 | animal, D)",
        table("dat_mrode12"),
        variances={"animal": 90.0, "animal:D": 80.0, "Residual": 120.0},
        known={"animal": pedigree("ped_mrode12"), "D": dominance("ped_mrode12")},
    )
    np.testing.assert_allclose(fit.beta, [b["estimate"] for b in reference["beta"].values()], rtol=1e-11)
    np.testing.assert_allclose(fit.beta, [16.980, 20.030], atol=5.01e-4)
    for group, block in zip(("animal", "animal:D"), reference["ranef"], strict=True):
        found = fit.breeding_values(group)
        np.testing.assert_allclose(found["estimate"], np.ravel(block["values"]), rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(found["pev"], block["pev"], rtol=1e-11)
    assert fit.loglik == pytest.approx(reference["objective"]["logLik_REML"], rel=1e-12)
