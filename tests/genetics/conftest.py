"""Pedigrees that many tests look at."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mixedmodels.genetics import Pedigree, random_pedigree

HERE = Path(__file__).parents[1] / "references" / "genetics"


@pytest.fixture(scope="session")
def textbook():
    """Pedigrees by name."""
    rows = json.loads((HERE / "pedigrees.json").read_text(encoding="utf-8"))
    out = {}
    for name, people in rows.items():
        id, sire, dam, sex = map(list, zip(*people, strict=True))
        out[name] = Pedigree.from_frame({"id": id, "sire": sire, "dam": dam, "sex": sex}, sex="sex")
    return out


@pytest.fixture(scope="session", params=["ped_henderson76", "ped_mrode12", "ped_mrode31", "ped500"])
def reference(request):
    """A pedigree and its matrices computed in R."""
    values = json.loads((HERE / f"{request.param}.json").read_text(encoding="utf-8"))
    return Pedigree.from_frame(values["pedigree"]), values


@pytest.fixture(scope="session")
def inbred():
    """140 individuals of four generations after 20 founders, inbred."""
    return random_pedigree(20, 4, 30, seed=1)


@pytest.fixture(scope="session")
def mixed():
    """A pedigree with founders of all generations and single known parents, rows in any order."""
    import numpy as np

    rng = np.random.default_rng(7)
    ped = random_pedigree(10, 5, 14, seed=3)
    sire, dam = ped.sire.astype(int), ped.dam.astype(int)
    sire[rng.random(len(sire)) < 0.15] = -1
    dam[rng.random(len(dam)) < 0.15] = -1
    names = np.array([f"i{k:03d}" for k in range(len(ped))] + [""], dtype=object)
    rows = rng.permutation(len(ped))
    return Pedigree.from_frame(
        {"id": names[rows], "sire": names[sire][rows], "dam": names[dam][rows], "sex": ped.sex[rows]},
        sex="sex",
    )
