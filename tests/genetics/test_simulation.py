"""Simulated pedigrees, dropped genes and traits: seeds, laws of inheritance and moments."""

from __future__ import annotations

import numpy as np
import pytest

from mixedmodels.errors import DataError, OptionError
from mixedmodels.genetics import (
    Genotypes,
    Pedigree,
    drop_founder_genes,
    drop_genes,
    nuclear_families,
    random_pedigree,
    simulate_breeding_values,
    simulate_genotypic_trait,
    simulate_trait,
)


def test_a_seed_gives_the_same_again():
    one, two = (random_pedigree(10, 3, 15, overlap=0.2, seed=4) for _ in range(2))
    assert one.sire.tolist() == two.sire.tolist() and one.dam.tolist() == two.dam.tolist()
    assert random_pedigree(10, 3, 15, overlap=0.2, seed=5).sire.tolist() != one.sire.tolist()
    for simulate in (
        lambda s: drop_genes(one, 0.3, markers=5, seed=s).counts,
        lambda s: simulate_trait(one, 0.4, seed=s)["y"],
        lambda s: simulate_breeding_values(one, np.eye(2), seed=s),
        lambda s: drop_founder_genes(one, 7, seed=s),
    ):
        assert np.array_equal(simulate(1), simulate(1)) and not np.array_equal(simulate(1), simulate(2))


@pytest.mark.parametrize("mating", ["random", "monogamous", "full_sib", "selfing"])
def test_mating_schemes(mating):
    ped = random_pedigree(10, 4, 20, mating=mating, seed=2)
    assert len(ped) == 90 and ped.generation.max() == 4
    children = ped.sire >= 0
    if mating == "selfing":
        assert np.array_equal(ped.sire, ped.dam)
        return
    assert np.all(ped.sex[ped.sire[children]] == 1) and np.all(ped.sex[ped.dam[children]] == 2)
    couples = set(zip(ped.sire[children].tolist(), ped.dam[children].tolist(), strict=True))
    if mating != "random":
        assert len({s for s, _ in couples}) == len(couples)  # one mate each
    if mating == "full_sib":
        sibs = [(s, d) for s, d in couples if ped.generation[s] > 0]
        assert sibs and all(ped.sire[s] == ped.sire[d] and ped.dam[s] == ped.dam[d] for s, d in sibs)


def test_selected_parents():
    ped = random_pedigree(30, 2, 40, sires=2, dams=5, seed=1)
    last = ped.generation == 2
    assert len(set(ped.sire[last].tolist())) <= 2 and len(set(ped.dam[last].tolist())) <= 5


def test_nuclear_families():
    ped = nuclear_families(3, 2, grandparents=True)
    assert len(ped) == 24 and ped.is_founder.sum() == 12
    A = ped.additive().toarray()
    np.testing.assert_array_equal(A[:8, :8], A[8:16, 8:16])
    assert not A[:8, 8:].any() and A[6, 7] == 0.5 and A[0, 6] == 0.25
    assert ped.family_of(2).ids.tolist() == list(range(9, 17))


def test_dropped_founder_genes_give_kinship_and_inbreeding(inbred):
    loci = 4000
    genes = drop_founder_genes(inbred, loci, seed=3)
    A = inbred.additive().toarray()
    same = np.mean([genes[:, a][:, None] == genes[:, b][None] for a in (0, 1) for b in (0, 1)], axis=(0, 3))
    assert np.max(np.abs(same - A / 2)) < 5.5 * np.sqrt(0.25 / loci)
    assert np.max(np.abs((genes[:, 0] == genes[:, 1]).mean(axis=1) - inbred.inbreeding)) < 5 * np.sqrt(
        0.25 / loci
    )


def test_children_have_genes_of_their_parents_only(mixed):
    genes = drop_founder_genes(mixed, 50, seed=1)
    for i in range(len(mixed)):
        for side, parent in enumerate((mixed.sire[i], mixed.dam[i])):
            if parent >= 0:
                assert np.all((genes[i, side] == genes[parent, 0]) | (genes[i, side] == genes[parent, 1]))


def test_recombination_follows_haldane():
    """A double heterozygote's gametes, seen in offspring by a homozygote."""
    n = 20_000
    ped = Pedigree.from_frame({"id": range(1, n + 3), "sire": [0, 0, *[1] * n], "dam": [0, 0, *[2] * n]})
    founders = Genotypes(
        ids=np.array([1, 2]),
        counts=np.array([[1, 1, 1, 1], [0, 0, 0, 0]], dtype=np.int8),
        markers=np.array(list("abcd"), dtype=object),
        centimorgans=np.array([0.0, 10.0, 60.0, 5.0]),
        chromosomes=np.array(["1", "1", "1", "2"], dtype=object),
    )
    g = drop_genes(ped, founders=founders, seed=6).counts[2:]
    phase = drop_genes(ped, founders=founders, seed=6).counts[2:]
    assert np.array_equal(g, phase)
    for j, distance in [(0, 0.1), (1, 0.5), (2, np.inf)]:
        change = np.mean(g[:, j] != g[:, j + 1])
        r = (1 - np.exp(-2 * distance)) / 2
        assert min(abs(change - r), abs(change - (1 - r))) < 5 * np.sqrt(
            0.25 / n
        )  # phase of the parent is drawn


def test_frequencies_and_missing_genotypes():
    ped = random_pedigree(2000, 0, seed=1)
    p = np.array([0.1, 0.5, 0.9])
    g = drop_genes(ped, frequencies=p, missing=0.1, seed=2)
    assert np.all(np.abs(g.frequencies - p) < 0.035)
    assert np.all(np.abs(g.missingness() - 0.1) < 0.035)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"frequencies": 1.2}, DataError, "lie between 0 and 1"),
        ({"frequencies": [0.1, 0.2], "centimorgans": [1, 2, 3]}, DataError, "give one per marker"),
        ({"centimorgans": [3, 1]}, DataError, "ascending within each chromosome"),
        ({"missing": 1.0}, OptionError, "missing=1.0"),
    ],
)
def test_bad_options_of_gene_dropping(options, error, message, inbred):
    with pytest.raises(error, match=message):
        drop_genes(inbred, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mating": "assortative"}, "'random', 'monogamous', 'full_sib', 'selfing'"),
        ({"founders": 1}, "founders=1: give a whole number of 2 or more"),
        ({"generations": -1}, "generations=-1"),
        ({"overlap": 1.0}, "overlap=1.0"),
        ({"sires": 0}, "sires=0"),
    ],
)
def test_bad_options_of_pedigrees(options, message):
    with pytest.raises(OptionError, match=message):
        random_pedigree(**options)


def test_breeding_values_have_covariance_A_kron_G(textbook):
    ped = textbook["repeated_fullsib_mating"]
    G = np.array([[1.0, 0.5], [0.5, 2.0]])
    rng = np.random.default_rng(1)
    draws = np.stack([simulate_breeding_values(ped, G, rng).ravel() for _ in range(5000)])
    expected = np.kron(ped.additive().toarray(), G)
    error = np.sqrt((np.outer(np.diagonal(expected), np.diagonal(expected)) + expected**2) / len(draws))
    assert np.max(np.abs(np.cov(draws.T) - expected) / error) < 5
    with pytest.raises(DataError, match="not positive semi-definite"):
        simulate_breeding_values(ped, [[1, 2], [2, 1]])


def test_shares_of_the_variance_of_a_trait():
    ped = nuclear_families(4000, 3)
    data = simulate_trait(ped, 0.4, family=0.2, variance=4.0, mean=10, prevalence=0.1, seed=1)
    np.testing.assert_allclose(data["y"], 10 + data["additive"] + data["family"] + data["residual"])
    assert data["y"].var() == pytest.approx(4.0, rel=0.05)
    assert data["additive"].var() == pytest.approx(1.6, rel=0.05)
    assert data["affected"].mean() == pytest.approx(0.1, abs=0.01)
    y = data["y"].reshape(4000, 5)
    sibs = np.corrcoef(y[:, 2], y[:, 3])[0, 1]
    assert sibs == pytest.approx(0.4 / 2 + 0.2, abs=0.05)
    assert np.corrcoef(y[:, 0], y[:, 2])[0, 1] == pytest.approx(0.2, abs=0.05)


def test_dominance_deviations_are_shared_by_full_sibs():
    ped = nuclear_families(150, 2)
    rng = np.random.default_rng(3)
    draws = [
        simulate_trait(ped, 0.0, dominance=0.8, seed=rng)["dominance"].reshape(150, 4) for _ in range(10)
    ]
    sibs = np.concatenate([d[:, 2] * d[:, 3] for d in draws]).mean()
    assert sibs == pytest.approx(0.8 / 4, abs=0.08)


def test_a_trait_of_genotypes():
    g = Genotypes.from_array([[0, 0], [1, 0], [2, 0], [1, 2]])
    data = simulate_genotypic_trait(g, [1.0, 0.5], dominance=[0.25, 0.0], residual=0.0, seed=1)
    value = np.array([-1.5, -0.25, 0.5, 0.75])
    np.testing.assert_allclose(data["y"], value - value.mean())
    big = drop_genes(random_pedigree(3000, 0, seed=1), np.full(50, 0.4), seed=2)
    data = simulate_genotypic_trait(big, 0.3, heritability=0.3, prevalence=0.2, seed=3)
    assert data["genetic"].var() / data["y"].var() == pytest.approx(0.3, abs=0.03)
    assert data["affected"].mean() == pytest.approx(0.2, abs=0.03)
    with pytest.raises(DataError, match=r"one number per marker \(50\)"):
        simulate_genotypic_trait(big, [1.0, 2.0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heritability": 1.2}, "heritability=1.2"),
        ({"heritability": 0.7, "family": 0.4}, "add up to 1.1"),
        ({"variance": 0}, "variance=0"),
        ({"prevalence": 1}, "prevalence=1"),
    ],
)
def test_bad_options_of_traits(options, message, inbred):
    with pytest.raises(OptionError, match=message):
        simulate_trait(inbred, **options)
