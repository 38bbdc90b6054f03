"""Dominance relationships by both conventions."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

import mixedmodels as mm
from mixedmodels.errors import DataError, OptionError
from mixedmodels.genetics import (
    Pedigree,
    drop_founder_genes,
    nuclear_families,
    random_pedigree,
    simulate_trait,
)
from mixedmodels.genetics.parental_dominance import combinations


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


@pytest.mark.parametrize(
    "options",
    [
        {"founders": 15, "generations": 3, "size": 25, "seed": 1},
        {"founders": 6, "generations": 6, "size": 12, "seed": 2},
        {"founders": 8, "generations": 4, "size": 14, "mating": "full_sib", "seed": 3},
        {"founders": 12, "generations": 4, "size": 20, "overlap": 0.4, "seed": 4},
    ],
)
def test_the_sparse_inverse_with_parents_is_that_of_the_matrix(options, monkeypatch):
    """By combinations of ancestors and by couples, with inbreeding: covariance and log-determinant."""
    from mixedmodels.genetics import parental_dominance as module

    ped = random_pedigree(**options)
    D, k = ped.dominance().toarray(), len(ped)
    for limit in (0, 10**9):
        monkeypatch.setattr(module, "_COUPLES", -1 if limit else 10**9)
        monkeypatch.setattr(module, "combinations", partial(combinations, limit=limit))
        found = ped.dominance(form="precision")
        precision, logdet = found.as_precision()
        dense = precision.toarray()
        covariance = np.linalg.inv(dense)
        np.testing.assert_allclose(covariance[:k, :k], D, atol=1e-13)
        assert logdet == pytest.approx(-np.linalg.slogdet(dense)[1], abs=1e-9)
        assert found.ids[:k].tolist() == [str(v) for v in ped.ids]
        for place in (k, len(found) - 1):  # a combination is as its labels say
            i, j = (int(ped.index(int(v))[0]) for v in found.ids[place].split(" x "))
            A = ped.additive().toarray()
            variance = (A[i, i] * A[j, j] + A[i, j] ** 2) / 4
            assert covariance[place, place] == pytest.approx(variance, rel=1e-11)


def test_combinations_that_tie_nothing_together_are_absorbed():
    """Unrelated families of founders' children need one combination each, single children none."""
    several, single = nuclear_families(30, 3), nuclear_families(30, 1)
    assert len(several.dominance(form="precision")) == len(several) + 30
    assert len(single.dominance(form="precision")) == len(single)
    assert single.dominance(form="precision").as_precision()[0].nnz == len(single)


def test_some_individuals_by_their_inverse(inbred):
    ids = inbred.ids[[130, 7, 90, 131]]
    precision, _ = inbred.dominance(ids, form="precision").as_precision()
    whole = np.asarray(inbred.dominance().toarray())
    at = [130, 7, 90, 131]
    np.testing.assert_allclose(np.linalg.inv(precision.toarray())[:4, :4], whole[np.ix_(at, at)], atol=1e-13)


def test_thousands_of_related_individuals_have_a_sparse_inverse():
    ped = random_pedigree(founders=400, generations=2, size=5000, sires=100, dams=1000, seed=1)
    found = ped.dominance(form="precision")
    assert len(ped) == 10400 and found.precision.nnz < 8 * len(ped)
    rows = np.random.default_rng(2).choice(len(ped), 40, replace=False)
    part = found.subset([str(v) for v in ped.ids[rows]]).toarray()
    np.testing.assert_allclose(part, ped.dominance(ped.ids[rows]).toarray(), atol=1e-12)


def test_what_has_no_sparse_inverse_is_an_error(inbred, textbook, monkeypatch):
    from mixedmodels.genetics import dominance as matrix
    from mixedmodels.genetics import parental_dominance as module

    with pytest.raises(OptionError, match="Jacquard's convention has no sparse inverse"):
        inbred.dominance(convention="identity", form="precision")
    with pytest.raises(OptionError, match="'matrix', 'precision'"):
        inbred.dominance(form="inverse")
    lines = {"id": range(1, 9), "sire": [0, 1, 2, 3, 4, 5, 6, 7], "dam": [0, 1, 2, 3, 4, 5, 6, 7]}
    selfed = Pedigree.from_frame(lines, check_sexes=False)
    with pytest.raises(DataError, match="so inbred that the fraternities are no covariance matrix"):
        selfed.dominance(form="precision")
    monkeypatch.setattr(module, "combinations", lambda *_: None)
    monkeypatch.setattr(module, "_MOST", 3)
    with pytest.raises(DataError, match=r"name the individuals with records \(ids=\)"):
        inbred.dominance(form="precision")
    monkeypatch.setattr(matrix, "_DENSE", 10)
    monkeypatch.setattr(matrix, "_MOST", 10)
    with pytest.raises(DataError, match='form="precision"'):
        inbred.dominance()


def test_a_model_with_the_inverse_is_the_model_with_the_matrix():
    """Additive and dominance effects, likelihood and predictions."""
    ped = random_pedigree(founders=20, generations=3, size=60, mating="monogamous", dams=12, seed=5)
    data = simulate_trait(ped, heritability=0.3, dominance=0.3, seed=6)
    data = {"y": data["y"], "animal": data["individual"]}
    formula = "y ~ 1 + (1 | animal) + known(1 | animal, D)"
    fits = [
        mm.lmm(formula, data, known={"animal": ped, "D": ped.dominance(form=form)})
        for form in ("matrix", "precision")
    ]
    assert fits[1].loglik == pytest.approx(fits[0].loglik, rel=1e-10)
    values = [fit.breeding_values("animal:D")["estimate"] for fit in fits]
    np.testing.assert_allclose(values[1][: len(ped)], values[0], atol=1e-6)


def test_large_traits_are_drawn_from_the_inverse(monkeypatch):
    """Full sibs share a quarter of the dominance variance."""
    from mixedmodels.genetics import traits

    monkeypatch.setattr(traits, "_DENSE", 10)
    ped = nuclear_families(20_000, 2)
    pairs = simulate_trait(ped, heritability=0.0, dominance=0.8, seed=1)["dominance"].reshape(-1, 4)[:, 2:]
    np.testing.assert_allclose(np.cov(pairs.T), [[0.8, 0.2], [0.2, 0.8]], atol=0.03)
