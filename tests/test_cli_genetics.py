"""The command line with pedigrees and known covariances."""

from __future__ import annotations

import json

import numpy as np
import pytest

import mixedmodels as mm
from mixedmodels import cli, genetics

COUSINS = """1 a 0 0 1
1 b 0 0 2
1 c a b 1
1 d a b 2
1 e 0 0 2
1 f 0 0 1
1 g c e 1
1 h f d 2
1 i g h 1
2 x 0 0 1
2 y 0 0 2
2 z x y 1
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("genetics")
    (folder / "cousins.ped").write_text(COUSINS)
    ped = genetics.nuclear_families(40, children=3)
    data = genetics.simulate_trait(ped, heritability=0.5, seed=1)
    genetics.write_pedigree(ped, folder / "families.ped")
    again = genetics.read_ped(folder / "families.ped")
    data["individual"] = np.asarray(again.ids)[: len(data["y"])]
    lines = [f"{i},{y!r}" for i, y in zip(data["individual"], data["y"].tolist(), strict=True)]
    (folder / "data.csv").write_text("\n".join(["individual,y", *lines]) + "\n")
    A = again.additive(again.ids).toarray()
    rows = [",".join(map(repr, row)) for row in A.tolist()]
    (folder / "A.csv").write_text("\n".join([",".join(map(str, again.ids)), *rows]) + "\n")
    return folder


def run(capsys, *arguments):
    status = cli.main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_pedigree_in_words(capsys, folder):
    status, out, err = run(capsys, "pedigree", folder / "cousins.ped")
    assert (status, err) == (0, "")
    assert "12 individuals" in out and "1 inbred, largest coefficient 0.0625" in out


def test_kinships(capsys, folder):
    _, out, _ = run(capsys, "pedigree", folder / "cousins.ped", "--kinship")
    lines = out.splitlines()
    assert lines[0] == "id1,id2,kinship"
    pairs = {frozenset(line.split(",")[:2]): float(line.split(",")[2]) for line in lines[1:]}
    assert pairs[frozenset("gh")] == 1 / 16 and pairs[frozenset("cd")] == 1 / 4
    assert pairs[frozenset("i")] == (1 + 1 / 16) / 2 and pairs[frozenset("xz")] == 1 / 4
    assert frozenset("ab") not in pairs and frozenset("ax") not in pairs


def test_inbreeding_and_bit_size(capsys, folder):
    _, out, _ = run(capsys, "pedigree", folder / "cousins.ped", "--inbreeding")
    assert "i,0.0625" in out.splitlines() and "z,0" in out.splitlines()
    _, out, _ = run(capsys, "pedigree", folder / "cousins.ped", "--bit-size")
    assert out.splitlines() == ["family,individuals,bit_size", "1,9,6", "2,3,0"]


def test_an_animal_model(capsys, folder):
    formula = "y ~ 1 + (1 | individual)"
    results = []
    for name in ("families.ped", "A.csv"):
        status, out, err = run(
            capsys, "fit", formula, folder / "data.csv", "--known", f"individual={folder / name}",
            "--heritability", "--json",
        )  # fmt: skip
        assert (status, err) == (0, "")
        results.append(json.loads(out))
    ped = genetics.read_ped(folder / "families.ped")
    fit = mm.lmm(formula, cli.read_data(str(folder / "data.csv")), known={"individual": ped})
    for result in results:
        assert result["criterion"] == pytest.approx(fit.criterion, rel=1e-9)
        share = fit.heritability()["estimate"][0]
        assert result["heritability"][0]["estimate"] == pytest.approx(share, rel=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("pedigree", "nowhere.ped"), "there is no file 'nowhere.ped'"),
        (("fit", "y ~ 1 + (1 | g)", "sleepstudy", "--known", "g"), "--known needs NAME=FILE"),
        (("fit", "y ~ 1 + (1 | g)", "sleepstudy", "--known", "g=nowhere"), "there is no file 'nowhere'"),
        (("fit", "Reaction ~ 1 + (1 | Subject)", "sleepstudy", "--heritability"), "which ratio is meant"),
    ],
)
def test_one_line_for_what_is_wrong(capsys, arguments, message):
    status, _, err = run(capsys, *arguments)
    assert status == 2 and message in err and err.count("\n") == 1
