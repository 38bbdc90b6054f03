"""X-linked, Y-linked and mitochondrial relationships."""

from __future__ import annotations

import numpy as np
import pytest

import mixedmodels as mm
from mixedmodels.errors import DataError, OptionError, SolverError
from mixedmodels.genetics import Pedigree
from mixedmodels.genetics.sex_linked import x_kinship

FAMILY = {  # parents, brother, sister, their children by outsiders
    "id": ["f", "m", "b", "s", "w", "h", "bs", "bd", "ss", "sd"],
    "sire": ["", "", "f", "f", "", "", "b", "b", "h", "h"],
    "dam": ["", "", "m", "m", "", "", "w", "w", "s", "s"],
    "sex": ["M", "F", "M", "F", "F", "M", "M", "F", "M", "F"],
}


@pytest.fixture
def family():
    return Pedigree.from_frame(FAMILY, sex="sex")


def test_x_kinship_of_a_family(family):
    """By hand: a male's X is his mother's, a daughter has her father's."""
    at = {name: i for i, name in enumerate(FAMILY["id"])}
    phi = x_kinship(family)
    expected = {
        ("f", "f"): 1,
        ("m", "m"): 1 / 2,
        ("f", "b"): 0,
        ("f", "s"): 1 / 2,
        ("m", "b"): 1 / 2,
        ("m", "s"): 1 / 4,
        ("b", "s"): 1 / 4,
        ("b", "bs"): 0,
        ("b", "bd"): 1 / 2,
        ("f", "bd"): 0,
        ("f", "sd"): 1 / 4,
        ("f", "ss"): 1 / 2,
        ("m", "ss"): 1 / 4,
        ("bd", "sd"): 1 / 16,
    }
    for (i, j), value in expected.items():
        assert phi[at[i], at[j]] == value, (i, j)


def drop_x(ped, loci, rng):
    """Genes at X-linked loci: (n, 2, loci), a male's second gene is his first."""
    genes = np.empty((len(ped), 2, loci), dtype=int)
    fresh = iter(range(10**9))
    for i in ped.order:
        s, d = ped.sire[i], ped.dam[i]
        from_dam = next(fresh) if d < 0 else np.where(rng.random(loci) < 0.5, genes[d, 0], genes[d, 1])
        genes[i, 0] = from_dam
        genes[i, 1] = from_dam if ped.sex[i] == 1 else next(fresh) if s < 0 else genes[s, 0]
    return genes


def test_x_kinship_is_the_frequency_of_identity_in_dropped_genes(inbred):
    genes = drop_x(inbred, 4000, np.random.default_rng(3))
    phi = x_kinship(inbred)
    for i, j in [(139, 138), (139, 130), (120, 121), (139, 139), (100, 60)]:
        same = np.mean([genes[i, a] == genes[j, b] for a in (0, 1) for b in (0, 1)], axis=0)
        assert abs(same.mean() - phi[i, j]) < 4.5 * np.sqrt(0.25 / 4000)


@pytest.mark.parametrize(("dosage", "male"), [("equal", 1.0), ("full", 2.0), ("none", 0.5)])
def test_dosage_sets_the_variance_of_males(family, dosage, male):
    X = family.x_linked(dosage=dosage).toarray()
    np.testing.assert_allclose(np.diagonal(X), np.where(family.sex == 1, male, 1.0))
    assert np.linalg.eigvalsh(X)[0] > 0
    part = family.x_linked(["sd", "f"], dosage).toarray()
    np.testing.assert_allclose(part, X[np.ix_([9, 0], [9, 0])])


def test_unknown_sexes_and_dosages_are_errors(family):
    without = Pedigree.from_frame({k: v for k, v in FAMILY.items() if k != "sex"})
    with pytest.raises(DataError, match="need the sex of individual 'bs'"):
        without.x_linked()
    with pytest.raises(DataError, match="need the sex of individual 'bs'"):
        without.y_linked()
    with pytest.raises(OptionError, match="'equal', 'full', 'none'"):
        family.x_linked(dosage="half")


def test_lines(family):
    assert family.maternal_lines().tolist() == ["f", "m", "m", "m", "w", "h", "w", "w", "m", "m"]
    assert family.paternal_lines().tolist() == ["f", None, "f", None, None, "h", "f", None, "h", None]
    M = family.mitochondrial().toarray()
    Y = family.y_linked().toarray()
    line = family.maternal_lines()
    np.testing.assert_array_equal(M, line[:, None] == line[None, :])
    males = np.array(["f", "b", "bs"])
    np.testing.assert_array_equal(family.y_linked(males).toarray(), np.ones((3, 3)))
    assert not Y[family.sex == 2].any()
    with pytest.raises(SolverError, match=r"not positive definite .*: group by \.maternal_lines\(\) instead"):
        family.mitochondrial().as_precision()


def test_a_mitochondrial_effect_is_a_factor(inbred):
    """Grouping by maternal line is the model with the mitochondrial matrix."""
    rng = np.random.default_rng(0)
    line = inbred.maternal_lines()
    effect = dict(zip(np.unique(line), rng.standard_normal(len(np.unique(line))), strict=True))
    y = np.array([effect[v] for v in line]) + rng.standard_normal(len(inbred))
    fit = mm.lmm("y ~ 1 + (1 | line)", {"y": y, "line": line}, reml=False)
    M = inbred.mitochondrial().toarray()
    V = fit.sigma**2 * (np.eye(len(y)) + fit.theta[0] ** 2 * M)
    e = y - next(iter(fit.fixef.values()))
    loglik = -0.5 * (len(y) * np.log(2 * np.pi) + np.linalg.slogdet(V)[1] + e @ np.linalg.solve(V, e))
    assert fit.loglik == pytest.approx(loglik, rel=1e-9)
