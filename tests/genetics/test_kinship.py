"""Kinship, fraternity, identity coefficients and bit sizes of textbook pedigrees, and three roads to a
kinship."""

from __future__ import annotations

import numpy as np
import pytest

from mixedmodels.errors import OptionError
from mixedmodels.genetics import Pedigree, drop_founder_genes
from mixedmodels.genetics.identity import GeneralisedKinship, identity_coefficients

METHODS = ("sweep", "recursion", "paths")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("name", "one", "other", "value"),
    [
        ("fullsib", 1, 1, 1 / 2),
        ("fullsib", 1, 2, 0),
        ("fullsib", 3, 4, 1 / 4),
        ("fullsib", 1, 3, 1 / 4),
        ("first_cousins", 7, 8, 1 / 16),
        ("first_cousins", 7, 5, 1 / 8),
        ("first_cousins", 7, 6, 0),
        ("first_cousins", 7, 1, 1 / 8),
        ("half_sibs", 4, 5, 1 / 8),
        ("double_first_cousins", 9, 10, 0.125),
        ("simultaneous_cousin_sib", "CousinSiblingA", "CousinSiblingB", 0.1875),
        ("first_cousin_child", 9, 9, (1 + 1 / 16) / 2),
    ],
)
def test_kinship_of_textbook_pedigrees(textbook, method, name, one, other, value):
    assert textbook[name].kinship(one, other, method) == value


def test_the_three_roads_agree(mixed):
    ids = mixed.ids[np.random.default_rng(2).permutation(len(mixed))[:14]]
    for i in ids:
        for j in ids:
            values = [mixed.kinship(i, j, method) for method in METHODS]
            assert np.ptp(values) < 1e-14


def test_recursion_is_as_deep_as_the_pedigree():
    n = 3000
    ped = Pedigree.from_frame({"id": range(1, n + 1), "sire": range(n), "dam": [0] * n})
    assert ped.kinship(1, n, "recursion") == 0.5**n
    assert ped.kinship(n - 9, n, "recursion") == 0.5**10


def test_an_unknown_method_is_an_error(textbook):
    with pytest.raises(OptionError, match="'sweep', 'recursion', 'paths'"):
        textbook["fullsib"].kinship(1, 2, "guess")


@pytest.mark.parametrize("method", METHODS)
def test_fraternity(textbook, method):
    assert textbook["fullsib"].fraternity(3, 4, method) == 1 / 4
    assert textbook["fullsib"].fraternity(1, 3, method) == 0
    assert textbook["first_cousins"].fraternity(7, 8, method) == 0
    assert textbook["half_sibs"].fraternity(4, 5, method) == 0
    assert textbook["double_first_cousins"].fraternity(9, 10, method) == 1 / 16


@pytest.mark.parametrize(("name", "bits"), [("fullsib", 2), ("first_cousins", 4), ("charlesii", 2 * 21 - 8)])
def test_bit_size(textbook, name, bits):
    assert textbook[name].bit_size() == bits


def test_one_known_parent_is_like_a_founder_added():
    lone = Pedigree.from_frame({"id": [1, 2, 3, 4], "sire": [0, 0, 1, 1], "dam": [0, 0, 2, 0]})
    full = Pedigree.from_frame({"id": [1, 2, 3, 4, 5], "sire": [0, 0, 1, 1, 0], "dam": [0, 0, 2, 5, 0]})
    assert lone.bit_size() == full.bit_size() == 1


def test_identity_coefficients_of_full_sibs_of_full_sibs():
    """Jacquard's example: offspring of a brother and a sister."""
    ped = Pedigree.from_frame(
        {"id": [1, 2, 3, 4, 5, 6], "sire": [0, 0, 1, 1, 3, 3], "dam": [0, 0, 2, 2, 4, 4]}
    )
    np.testing.assert_allclose(ped.identity_coefficients(5, 6) * 32, [2, 1, 4, 1, 4, 1, 7, 10, 2], atol=1e-12)


def test_identity_coefficients_hold_kinship_and_inbreeding(inbred):
    phi = GeneralisedKinship(inbred)
    rows = np.random.default_rng(5).permutation(len(inbred))[:8]
    from mixedmodels.genetics.identity import condensed_from_kinships

    for i in rows:
        for j in rows:
            D = condensed_from_kinships(phi, int(i), int(j))
            assert D.sum() == pytest.approx(1.0, abs=1e-12)
            assert D.min() > -1e-12
            kinship = inbred.kinship(inbred.ids[i], inbred.ids[j])
            assert D[0] + D[[2, 4, 6]].sum() / 2 + D[7] / 4 == pytest.approx(kinship, abs=1e-12)
            assert D[:4].sum() == pytest.approx(inbred.inbreeding[i], abs=1e-12)
            assert D[[0, 1, 4, 5]].sum() == pytest.approx(inbred.inbreeding[j], abs=1e-12)


def test_identity_coefficients_are_frequencies_in_dropped_genes(inbred):
    one, other = 138, 139
    genes = drop_founder_genes(inbred, 40_000, seed=4)
    (a, b), (c, d) = genes[one], genes[other]
    shared = (a == c).astype(int) + (a == d) + (b == c) + (b == d)
    states = np.select(
        [
            (a == b) & (c == d) & (a == c),
            (a == b) & (c == d),
            (a == b) & (shared > 0),
            a == b,
            (c == d) & (shared > 0),
            c == d,
            shared == 2,
            shared == 1,
        ],
        range(8),
        default=8,
    )
    seen = np.bincount(states, minlength=9) / len(states)
    expected = identity_coefficients(inbred, inbred.ids[one], inbred.ids[other])
    error = np.sqrt(expected * (1 - expected) / len(states))
    assert np.all(np.abs(seen - expected) < 4.5 * error + 1e-12)
