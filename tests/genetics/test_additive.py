"""Inbreeding, A and its inverse: reference values, and laws that hold for every pedigree."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixedmodels.errors import DataError
from mixedmodels.genetics import Pedigree, random_pedigree
from mixedmodels.genetics.additive import additive_block, additive_times

CHARLES = {
    "CharlesIISpain": 0.2275390625, "MarianaAustria": 0.12890625, "PhilipIVSpain": 0.08203125,
    "MariaAnnaSpain": 0.08203125, "PhilipIIISpain": 0.15625, "FerdinandIIIHRE": 0.09375,
    "MargaretAustria": 0.125, "FerdinandIIHRE": 0.125, "AnnaAustriaQueen": 0.0625,
}  # fmt: skip


def tabular(ped):
    """A by the definition, row by row."""
    n = len(ped)
    A = np.zeros((n, n))
    for i in ped.order:
        s, d = ped.sire[i], ped.dam[i]
        seen = list(ped.order[: list(ped.order).index(i)])
        for j in seen:
            A[i, j] = A[j, i] = sum(A[j, p] for p in (s, d) if p >= 0) / 2
        A[i, i] = 1 + (A[s, d] / 2 if s >= 0 and d >= 0 else 0)
    return A


def test_reference_matrices(reference):
    ped, values = reference
    np.testing.assert_allclose(ped.inbreeding, values["inbreeding"], atol=1e-14)
    precision, logdet = ped.additive_precision()
    assert logdet == pytest.approx(values["logdet"], rel=1e-12)
    A, rows = ped.additive().toarray(), ped.index(values["rows"])
    np.testing.assert_allclose(A[np.ix_(rows, rows)], values["A"], atol=1e-13)
    np.testing.assert_allclose(precision.toarray()[np.ix_(rows, rows)], values["Ainv"], atol=1e-12)
    assert np.sum(A**2) == pytest.approx(values["A_sumsq"], rel=1e-12)
    assert precision.power(2).sum() == pytest.approx(values["Ainv_sumsq"], rel=1e-12)


def test_charles_the_second(textbook):
    ped = textbook["charlesii"]
    for name, value in CHARLES.items():
        assert ped.inbreeding[ped.index(name)[0]] == value  # dyadic: exact


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("repeated_fullsib_mating", [0, 0, 0, 0, 0.25, 0.25, 0.375, 0.375, 0.5]),
        ("first_cousin_child", [0] * 8 + [1 / 16]),
        ("double_first_cousins", [0] * 10),
    ],
)
def test_inbreeding_of_textbook_pedigrees(textbook, name, values):
    assert textbook[name].inbreeding.tolist() == values


def test_parent_offspring_mating():
    ped = Pedigree.from_frame({"id": [1, 2, 3, 4], "sire": [0, 0, 1, 1], "dam": [0, 0, 2, 3]})
    assert ped.inbreeding.tolist() == [0, 0, 0, 0.25]


def test_selfing_lines():
    ids = list(range(1, 9))
    up = [0, *ids[:-1]]
    ped = Pedigree.from_frame({"id": ids, "sire": up, "dam": up}, check_sexes=False)
    np.testing.assert_allclose(ped.inbreeding, 1 - 0.5 ** np.arange(8))
    precision, logdet = ped.additive_precision()
    A = ped.additive().toarray()
    np.testing.assert_allclose(precision.toarray() @ A, np.eye(8), atol=1e-11)
    assert logdet == pytest.approx(np.linalg.slogdet(A)[1], rel=1e-10)


def test_offspring_of_completely_inbred_parents_are_copies():
    n = 62  # F reaches 1 in double precision
    up = [0, *range(1, n)]
    ped = Pedigree.from_frame({"id": list(range(1, n + 1)), "sire": up, "dam": up}, check_sexes=False)
    with pytest.raises(DataError, match=r"the parents of individual '5[0-9]' are completely inbred"):
        ped.additive_precision()


def test_all_roads_to_A_agree(mixed):
    expected = tabular(mixed)
    A = mixed.additive().toarray()
    np.testing.assert_allclose(A, expected, atol=1e-14)
    np.testing.assert_allclose(np.diagonal(A), 1 + mixed.inbreeding, atol=1e-14)
    precision, logdet = mixed.additive_precision()
    np.testing.assert_allclose(precision @ expected, np.eye(len(mixed)), atol=1e-12)
    assert logdet == pytest.approx(np.linalg.slogdet(expected)[1], rel=1e-12)
    X = np.random.default_rng(0).standard_normal((len(mixed), 3))
    np.testing.assert_allclose(additive_times(mixed, X), expected @ X, atol=1e-12)
    np.testing.assert_allclose(additive_times(mixed, X[:, 0]), expected @ X[:, 0], atol=1e-12)


def test_a_block_needs_no_more_than_its_ancestors(mixed):
    A = tabular(mixed)
    rows = np.array([5, 60, 3, 17])
    np.testing.assert_allclose(additive_block(mixed, rows), A[np.ix_(rows, rows)], atol=1e-14)
    np.testing.assert_allclose(additive_block(mixed, rows, rows[:2]), A[np.ix_(rows, rows[:2])], atol=1e-14)
    part = mixed.additive(mixed.ids[rows])
    assert part.ids.tolist() == mixed.ids[rows].tolist()
    np.testing.assert_allclose(part.toarray(), A[np.ix_(rows, rows)], atol=1e-14)


def test_more_columns_than_one_sweep_takes(inbred):
    np.testing.assert_allclose(inbred.additive().toarray(), tabular(inbred), atol=1e-14)


def frame_of(ped, rows, names):
    """The same pedigree with other labels and rows in another order."""
    label = np.append(names, "0").astype(object)
    return {"id": label[rows], "sire": label[ped.sire[rows]], "dam": label[ped.dam[rows]]}


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    founders=st.integers(2, 8),
    generations=st.integers(1, 5),
    size=st.integers(2, 9),
)
def test_labels_and_order_of_rows_do_not_matter(seed, founders, generations, size):
    ped = random_pedigree(founders, generations, size, overlap=0.3, seed=seed)
    rng = np.random.default_rng(seed)
    rows = rng.permutation(len(ped))
    names = np.array([f"x{k}" for k in rng.permutation(len(ped))], dtype=object)
    other = Pedigree.from_frame(frame_of(ped, rows, names))
    np.testing.assert_allclose(other.inbreeding, ped.inbreeding[rows], atol=1e-14)
    np.testing.assert_allclose(
        other.additive_precision()[0].toarray(),
        ped.additive_precision()[0].toarray()[np.ix_(rows, rows)],
        atol=1e-11,
    )
    A = tabular(ped)
    np.testing.assert_allclose(ped.inbreeding, np.diagonal(A) - 1, atol=1e-14)


@pytest.mark.parametrize("mating", ["random", "monogamous", "full_sib", "selfing"])
def test_inbreeding_under_every_mating_scheme(mating):
    ped = random_pedigree(8, 6, 12, mating=mating, sires=3 if mating == "random" else None, seed=11)
    np.testing.assert_allclose(ped.inbreeding, np.diagonal(tabular(ped)) - 1, atol=1e-14)


@pytest.mark.parametrize("generations", [2, 8])
def test_both_kinds_of_sweep(generations):
    """Few generations: ancestors of one sire at a time; many: eight sires through everybody."""
    ped = random_pedigree(60, generations, 60, seed=9)
    np.testing.assert_allclose(ped.inbreeding, np.diagonal(tabular(ped)) - 1, atol=1e-14)


def test_few_dams_and_many_sires_are_swept_by_dam():
    ped = random_pedigree(30, 4, 30, dams=2, seed=5)
    np.testing.assert_allclose(ped.inbreeding, np.diagonal(tabular(ped)) - 1, atol=1e-14)


@pytest.mark.slow
def test_a_hundred_thousand_animals():
    ped = random_pedigree(10_000, 9, 10_000, sires=500, seed=1)
    precision, logdet = ped.additive_precision()
    rows = np.random.default_rng(0).integers(len(ped), size=20)
    unit = np.zeros((len(ped), 20))
    unit[rows, np.arange(20)] = 1.0
    np.testing.assert_allclose(precision @ additive_times(ped, unit), unit, atol=1e-10)
    blocks = additive_block(ped, rows)
    np.testing.assert_allclose(np.diagonal(blocks), 1 + ped.inbreeding[rows], atol=1e-12)
    assert logdet < 0
