"""Genotypes and the relationships computed from them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from mixedmodels.errors import DataError, OptionError, SolverError
from mixedmodels.genetics import (
    Genotypes,
    drop_genes,
    genomic,
    genomic_dominance,
    nuclear_families,
    random_pedigree,
    single_step,
)

M = np.array([[0, 1, 2, -1], [1, 1, 0, 2], [2, 0, 1, 2], [0, 2, 1, 1]])


@pytest.fixture
def small():
    return Genotypes.from_array(M, ids=["a", "b", "c", "d"])


def test_frequencies_and_missingness(small):
    np.testing.assert_allclose(small.frequencies, [3 / 8, 4 / 8, 4 / 8, 5 / 6])
    np.testing.assert_allclose(small.missingness(), [0, 0, 0, 0.25])
    np.testing.assert_allclose(small.missingness("individual"), [0.25, 0, 0, 0])
    assert small.imputed()[0, 3] == pytest.approx(5 / 3)
    with pytest.raises(OptionError, match='"marker" or "individual"'):
        small.missingness("both")


def test_dosages_with_gaps_are_the_same_as_counts(small):
    values = M.astype(float)
    values[values < 0] = np.nan
    other = Genotypes.from_array(values, ids=small.ids)
    np.testing.assert_allclose(other.frequencies, small.frequencies)
    np.testing.assert_array_equal(other.imputed(), small.imputed())
    np.testing.assert_allclose(genomic(other).toarray(), genomic(small).toarray())


def test_markers_in_columns_of_a_frame(small):
    frame = pd.DataFrame(M, columns=["m1", "m2", "m3", "m4"]).replace(-1, np.nan)
    frame.insert(0, "id", ["a", "b", "c", "d"])
    g = Genotypes.from_frame(frame)
    assert g.counts.dtype == np.int8 and g.counts.tolist() == small.counts.tolist()
    assert g.ids.tolist() == small.ids.tolist() and g.markers.tolist() == small.markers.tolist()
    dosages = Genotypes.from_frame({"id": [1, 2], "x": [0.5, 2.0], "y": [1, 1]}, markers=["x"])
    assert dosages.counts.tolist() == [[0.5], [2.0]]
    with pytest.raises(DataError, match="marker column 'x' holds texts"):
        Genotypes.from_frame({"id": [1], "x": ["AA"]})
    with pytest.raises(DataError, match="individual '1' has two rows"):
        Genotypes.from_frame({"id": [1, 1], "x": [0, 1]})


def test_a_marker_without_any_genotype():
    g = Genotypes.from_array(np.array([[0, -1], [1, -1], [2, -1]]))
    assert np.isnan(g.frequencies[1])
    assert genomic(g).notes[0].startswith("1 of 2 markers do not vary")


def test_taking_and_turning(small):
    part = small.take(["d", "a"], ["m3", "m1"])
    assert part.counts.tolist() == [[1, 0], [2, 0]]
    assert small.take(markers=np.array([True, False, False, True])).markers.tolist() == ["m1", "m4"]
    minor = small.minor()
    assert minor.counts[:, 3].tolist() == [-1, 0, 0, 1]
    assert np.all(minor.frequencies <= 0.5)
    with pytest.raises(DataError, match="no genotypes of individual 'z'"):
        small.take(["z"])
    with pytest.raises(DataError, match="no marker 'q'"):
        small.take(markers=["q"])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([[0, 3]], "a genotype is 3; counts of an allele lie between 0 and 2"),
        ([0, 1], "individuals in rows"),
        ([["AA"]], "genotypes are numbers"),
    ],
)
def test_what_is_no_genotype_is_said(values, message):
    with pytest.raises(DataError, match=message):
        Genotypes.from_array(values)


def by_definition(counts, p, method):
    Z = counts - 2 * p
    scale = 2 * p * (1 - p)
    return Z @ Z.T / scale.sum() if method == 1 else (Z / scale) @ Z.T / len(p)


@pytest.mark.parametrize("method", [1, 2])
def test_genomic_relationships_by_their_definition(method):
    rng = np.random.default_rng(1)
    p = rng.uniform(0.1, 0.9, 1500)
    g = Genotypes.from_array(rng.binomial(2, p, (40, 1500)))
    G = genomic(g, method=method)
    np.testing.assert_allclose(G.toarray(), by_definition(g.counts, g.frequencies, method), atol=1e-12)
    np.testing.assert_allclose(G.toarray().sum(axis=0), 0, atol=1e-10)
    known = genomic(g, method=method, frequencies=p)
    np.testing.assert_allclose(known.toarray(), by_definition(g.counts, p, method), atol=1e-12)
    with pytest.raises(SolverError, match=r"bend\(\)"):
        G.as_precision()
    genomic(g, method=method, blend=0.01).as_precision()


def test_the_counted_allele_does_not_matter():
    rng = np.random.default_rng(2)
    g = Genotypes.from_array(rng.integers(-1, 3, (20, 300)))
    turned = Genotypes.from_array(np.where(g.counts < 0, -1, 2 - g.counts))
    for of in (genomic, genomic_dominance, lambda x: genomic(x, method=2)):
        np.testing.assert_allclose(of(g).toarray(), of(turned).toarray(), atol=1e-12)
    assert "missing genotypes" in genomic(g).notes[-1]


def test_genomic_dominance_by_its_definition():
    rng = np.random.default_rng(3)
    g = Genotypes.from_array(rng.integers(0, 3, (15, 80)))
    p = g.frequencies
    q = 1 - p
    W = np.select([g.counts == 0, g.counts == 1, g.counts == 2], [-2 * p**2, 2 * p * q, -2 * q**2])
    np.testing.assert_allclose(genomic_dominance(g).toarray(), W @ W.T / np.sum((2 * p * q) ** 2), atol=1e-12)


def test_many_markers_recover_the_pedigree():
    ped = nuclear_families(20, 4, grandparents=True)
    p = np.full(20_000, 0.5)
    g = drop_genes(ped, frequencies=p, seed=5)
    np.testing.assert_allclose(genomic(g, frequencies=p).toarray(), ped.additive().toarray(), atol=0.04)
    D = np.asarray(ped.dominance().toarray())
    np.testing.assert_allclose(genomic_dominance(g, frequencies=p).toarray(), D, atol=0.04)


def test_options_of_genomic_relationships(small):
    with pytest.raises(OptionError, match=r"give Genotypes, not ndarray: Genotypes\.from_array"):
        genomic(M)
    with pytest.raises(OptionError, match="choose 1 or 2"):
        genomic(small, method=3)
    with pytest.raises(OptionError, match="blend=1"):
        genomic(small, blend=1)
    with pytest.raises(DataError, match="one number between 0 and 1 for each of the 4 markers"):
        genomic(small, frequencies=[0.5])
    with pytest.raises(DataError, match="no marker varies"):
        genomic(Genotypes.from_array([[1, 0], [1, 0]]).take(markers=["m2"]))


@pytest.fixture(scope="module")
def genotyped():
    ped = random_pedigree(20, 3, 30, seed=8)
    g = drop_genes(ped, frequencies=np.full(400, 0.4), seed=2).take(ped.ids[-35:])
    return ped, genomic(g)


def joint(ped, G, rows):
    """H by the conditional distribution of the others given the genotyped (Legarra et al. 2009)."""
    A = ped.additive().toarray()
    rest = np.setdiff1d(np.arange(len(ped)), rows)
    B = np.linalg.solve(A[np.ix_(rows, rows)], A[np.ix_(rows, rest)]).T
    H = np.empty_like(A)
    H[np.ix_(rows, rows)] = G
    H[np.ix_(rest, rows)] = B @ G
    H[np.ix_(rows, rest)] = (B @ G).T
    H[np.ix_(rest, rest)] = A[np.ix_(rest, rest)] + B @ (G - A[np.ix_(rows, rows)]) @ B.T
    return H


@pytest.mark.parametrize("tune", [True, False])
def test_single_step_is_the_joint_covariance(genotyped, tune):
    ped, G = genotyped
    rows = ped.index(G.ids)
    A22 = ped.additive().toarray()[np.ix_(rows, rows)]
    K = G.toarray()
    if tune:
        b = (np.diagonal(A22).mean() - A22.mean()) / (np.diagonal(K).mean() - K.mean())
        K = A22.mean() - b * K.mean() + b * K
        assert K.mean() == pytest.approx(A22.mean())
        assert np.diagonal(K).mean() == pytest.approx(np.diagonal(A22).mean())
    H = joint(ped, 0.9 * K + 0.1 * A22, rows)
    rel = single_step(ped, G, blend=0.1, tune=tune)
    precision, logdet = rel.as_precision()
    np.testing.assert_allclose(precision @ H, np.eye(len(ped)), atol=1e-8)
    assert logdet == pytest.approx(np.linalg.slogdet(H)[1], rel=1e-8)


def test_single_step_with_the_pedigrees_own_relationships_changes_nothing(genotyped):
    ped, G = genotyped
    rel = single_step(ped, ped.additive(G.ids), blend=0.0)
    np.testing.assert_allclose(rel.precision.toarray(), ped.additive_precision()[0].toarray(), atol=1e-9)


def test_scaled_single_step(genotyped):
    ped, G = genotyped
    rel = single_step(ped, G, tau=0.9, omega=0.7)
    assert rel.logdet == pytest.approx(-np.linalg.slogdet(rel.precision.toarray())[1], rel=1e-9)


def test_genotyped_individuals_must_be_in_the_pedigree(genotyped, small):
    with pytest.raises(DataError, match="the pedigree has no individual 'a'"):
        single_step(genotyped[0], genomic(small))
