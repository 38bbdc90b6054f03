"""Published figures of earlier systems, with data from the folder named by ``MIXEDMODELS_SHARED``."""

from __future__ import annotations

import csv
import gzip
import os
from pathlib import Path

import numpy as np
import pytest

import mixedmodels as mm

SHARED = os.environ.get("MIXEDMODELS_SHARED")
pytestmark = pytest.mark.skipif(SHARED is None, reason="needs the folder named by MIXEDMODELS_SHARED")


def folder(name):
    return Path(SHARED) / "cases" / name


@pytest.mark.parametrize(
    ("reml", "ratio", "loglik", "total"),
    [
        (False, 0.45924204942, -829.35025994681, 0.97716888408),
        (True, 0.46382659419, -831.39497274495, 0.97975725036),
    ],
)
def test_solar_heritability(reml, ratio, loglik, total):
    """SOLAR's heritability of pydigree's set, 0.4592420, is the estimate by maximum likelihood."""
    rows = [line.split() for line in (folder("pydigree") / "h2test.pedigrees").read_text().splitlines()]
    name = [[None if field == "0" else f"{row[0]}.{field}" for field in row[1:4]] for row in rows]
    pedigree = mm.genetics.Pedigree.from_frame(
        {key: [line[j] for line in name] for j, key in enumerate(("id", "sire", "dam"))}
    )
    with (folder("pydigree") / "h2test.csv").open() as stream:
        records = list(csv.DictReader(stream))
    data = {
        "trait": [float(record["synthetic"]) for record in records],
        "id": [f"{record['famid']}.{record['id']}" for record in records],
    }
    fit = mm.lmm("trait ~ 1 + (1 | id)", data, known={"id": pedigree}, reml=reml)
    assert fit.heritability()["estimate"][0] == pytest.approx(ratio, rel=5e-7)
    assert fit.loglik == pytest.approx(loglik, rel=1e-12)
    assert fit.sigma**2 * (1.0 + fit.theta[0] ** 2) == pytest.approx(total, rel=1e-6)


@pytest.mark.parametrize("solver", ["auto", "blocked"])
def test_kinship_with_many_aliased_markers(solver):
    """1200 subjects, 130 markers of rank 25 with the intercept: theta, sigma and criterion by R's eigen()."""

    def read(name):
        with gzip.open(folder("genetics") / f"{name}.csv.gz", "rt") as stream:
            return np.loadtxt(stream, delimiter=",")

    K, y, X = read("kinship_matrix"), read("phenotype").ravel(), read("design_matrix")
    data = {"y": y, "id": np.arange(1200)} | {f"s{j}": X[:, j] for j in range(130)}
    formula = f"y ~ {' + '.join(f's{j}' for j in range(130))} + (1 | id)"
    fit = mm.lmm(formula, data, known={"id": (K, np.arange(1200))}, solver=solver)
    assert fit.design.p == 25
    assert fit.theta[0] == pytest.approx(2.42329785, rel=1e-7)
    assert fit.sigma**2 == pytest.approx(0.1934106281, rel=1e-7)
    assert fit.criterion == pytest.approx(2819.097303, abs=5e-7)
