"""Dominance relationships by both conventions."""

from __future__ import annotations

import numpy as np
import pytest

from mixedmodels.errors import OptionError
from mixedmodels.genetics import Pedigree, drop_founder_genes, nuclear_families


def test_reference_matrices(reference):
    ped, values = reference
    D, rows = ped.dominance().toarray(), ped.index(values["rows"])
    np.testing.assert_allclose(D[np.ix_(rows, rows)], values["D"], atol=1e-14)
    assert np.sum(D**2) == pytest.approx(values["D_sumsq"], rel=1e-12)
    assert np.linalg.eigvalsh(D)[0] == pytest.approx(values["D_min_eigenvalue"], rel=1e-9)


def test_entries_are_fraternities(mixed):
    D = mixed.dominance().toarray()
    rows = np.random.default_rng(1).integers(len(mixed), size=(40, 2))
    for i, j in rows:
        assert D[i, j] == pytest.approx(mixed.fraternity(mixed.ids[i], mixed.ids[j]), abs=1e-14)


def test_without_inbreeding_the_conventions_agree(textbook):
    for name in ("double_first_cousins", "first_cousins", "fullsib"):
        ped = textbook[name]
        np.testing.assert_allclose(
            ped.dominance(convention="identity").toarray(), ped.dominance().toarray(), atol=1e-14
        )


def test_with_inbreeding_identity_is_the_chance_of_sharing_both_genes(textbook):
    ped = textbook["repeated_fullsib_mating"]
    D = ped.dominance(convention="identity").toarray()
    np.testing.assert_allclose(np.diagonal(D), 1 - ped.inbreeding)
    genes = drop_founder_genes(ped, 60_000, seed=9)
    for i, j in [(4, 5), (6, 7), (2, 6), (8, 5)]:
        (a, b), (c, d) = genes[i], genes[j]
        both = (a != b) & (((a == c) & (b == d)) | ((a == d) & (b == c)))
        error = np.sqrt(max(D[i, j] * (1 - D[i, j]), 1e-6) / both.size)
        assert abs(both.mean() - D[i, j]) < 4.5 * error
    assert np.linalg.eigvalsh(D)[0] > -1e-12


def test_some_individuals_in_their_order(inbred):
    ids = inbred.ids[[130, 7, 90]]
    part = inbred.dominance(ids)
    assert part.ids.tolist() == ids.tolist()
    whole = np.asarray(inbred.dominance().toarray())
    np.testing.assert_allclose(part.toarray(), whole[np.ix_([130, 7, 90], [130, 7, 90])], atol=1e-14)


def test_unrelated_families_give_a_sparse_matrix_inverted_family_by_family():
    ped = nuclear_families(60, 3)
    relationship = ped.dominance()
    assert not isinstance(relationship.matrix, np.ndarray)
    precision, logdet = relationship.as_precision()
    np.testing.assert_allclose((precision @ relationship.matrix).toarray(), np.eye(len(ped)), atol=1e-13)
    assert logdet == pytest.approx(np.linalg.slogdet(relationship.toarray())[1])
    assert precision.nnz == relationship.matrix.nnz


def test_computed_in_blocks_it_is_the_same(mixed, inbred, monkeypatch):
    from mixedmodels.genetics import dominance as module

    monkeypatch.setattr(module, "_BLOCK", 7)
    for ped in (mixed, inbred):
        rows = np.random.default_rng(0).permutation(len(ped))[:60]
        blocked = module.dominance_sparse(ped, rows)
        np.testing.assert_allclose(blocked.toarray(), module.dominance_block(ped, rows), atol=1e-15)
        assert blocked.nnz == np.count_nonzero(blocked.toarray())


def test_thousands_of_individuals_in_families_never_make_a_dense_matrix():
    ped = nuclear_families(700, 3, grandparents=True)
    relationship = ped.dominance()
    assert len(ped) == 6300 and relationship.matrix.nnz == 6300 + 700 * 6
    assert relationship.matrix[8, 7] == 0.25


def test_an_unknown_parent_has_no_dominance_relationship():
    ped = Pedigree.from_frame({"id": [1, 2, 3], "sire": [0, 1, 1], "dam": [0, 0, 0]})
    np.testing.assert_array_equal(ped.dominance().toarray(), np.eye(3))


def test_an_unknown_convention_is_an_error(textbook):
    with pytest.raises(OptionError, match="'fraternity', 'identity'"):
        textbook["fullsib"].dominance(convention="mrode")
