"""Sample pedigrees of the Python package pydigree, read from its own files.

Their folder is found under the one named by ``MIXEDMODELS_SHARED``; without it these tests are skipped.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from mixedmodels.errors import DataError
from mixedmodels.genetics import read_ped, read_phenotypes

SHARED = os.environ.get("MIXEDMODELS_SHARED")
pytestmark = pytest.mark.skipif(SHARED is None, reason="needs the folder named by MIXEDMODELS_SHARED")


def case(name):
    return Path(SHARED or "", "cases", "pydigree", name)


def test_bit_sizes():
    assert read_ped(case("fullsib.ped")).bit_size() == 2
    assert read_ped(case("first_cousins.ped")).bit_size() == 4
    huntington = read_ped(case("vz_huntington_autosomal_dominant.ped"))
    assert huntington.bit_size() == 2 * 47 - 18
    assert np.nansum(huntington.columns["affected"]) > 0


def test_charles_the_second():
    ped = read_ped(case("charlesii.ped"))
    assert ped.inbreeding[ped.index("CharlesIISpain")[0]] == 0.2275390625


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "tunisia_autosomal_recessive_ataxia.ped",
            "'7 of family 1' is female but the sire of '10 of family 1'",
        ),
        ("half_sibs.ped", "'3 of family 1' is female but the sire of '5 of family 1'"),
    ],
)
def test_files_that_contradict_themselves(name, message):
    """pydigree reads them without a word; the relationships do not depend on the sexes."""
    with pytest.raises(DataError, match=message):
        read_ped(case(name))
    ped = read_ped(case(name), check_sexes=False)
    if name.startswith("half"):
        assert ped.kinship(4, 5) == 1 / 8


def test_families_and_phenotypes_of_h2test():
    with pytest.raises(DataError, match=r"is male but the dam of .* sex_labels="):
        read_ped(case("h2test.pedigrees"))
    ped = read_ped(case("h2test.pedigrees"), sex_labels=("0", "1"))
    assert len(ped) == 1200 and ped.is_founder.sum() == 400 and len(set(ped.family)) == 100
    data = read_phenotypes(case("h2test.csv"), ped)
    A = ped.additive(data["individual"]).toarray()
    block = np.full((6, 6), 1 / 8)
    block[:3, :3] = block[3:, 3:] = 0.5
    np.fill_diagonal(block, 1.0)
    np.testing.assert_allclose(A, np.kron(np.eye(100), block), atol=1e-15)
