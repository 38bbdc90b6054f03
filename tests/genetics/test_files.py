"""Files of the field: pedigrees, phenotypes, kinships, PLINK and VCF, compressed and damaged."""

from __future__ import annotations

import bz2
import gzip
import lzma

import numpy as np
import pytest

from mixedmodels.errors import DataError, OptionError
from mixedmodels.genetics import (
    Genotypes,
    read_kinship,
    read_ped,
    read_phenotypes,
    read_plink,
    read_vcf,
    write_pedigree,
    write_phenotypes,
    write_plink,
)

PED = """# family id father mother sex status
A  c  a   b  1 2   x
A\ta\t0\t0\tM\t1\ty

A b 0 0 F U z
B c 0 0 2 A x
B d 0 c 0 -9 y
"""


@pytest.fixture
def ped_file(tmp_path):
    path = tmp_path / "some.ped"
    path.write_text(PED, encoding="utf-8")
    return path


def test_a_linkage_file(ped_file):
    ped = read_ped(ped_file, names=["grade"])
    assert ped.ids.tolist() == ["A:c", "A:a", "A:b", "B:c", "B:d"]
    assert ped.sire.tolist() == [1, -1, -1, -1, -1]
    assert ped.dam.tolist() == [2, -1, -1, -1, 3]
    assert ped.sex.tolist() == [1, 1, 2, 2, 0]
    np.testing.assert_array_equal(ped.columns["affected"], [1, 0, 0, 1, np.nan])
    assert ped.columns["grade"].tolist() == ["x", "y", "z", "x", "y"]
    assert "status" in read_ped(ped_file, affected=None, names=["status"]).columns


@pytest.mark.parametrize("ending", [".gz", ".bz2", ".xz", ".lzma", ".dat"])
def test_compressed_files_are_known_by_their_bytes(tmp_path, ending):
    packed = {
        ".gz": gzip.compress,
        ".bz2": bz2.compress,
        ".xz": lzma.compress,
        ".lzma": lambda b: lzma.compress(b, format=lzma.FORMAT_ALONE),
        ".dat": gzip.compress,
    }[ending]
    path = tmp_path / f"p{ending}"
    path.write_bytes(packed(PED.encode()))
    assert len(read_ped(path)) == 5


def test_a_delimiter_keeps_names_with_blanks(tmp_path):
    path = tmp_path / "p.csv"
    path.write_text("1,Charles II,0,0,1\n1,her child,Charles II,0,2\n", encoding="utf-8")
    ped = read_ped(path, delimiter=",")
    assert ped.ids.tolist() == ["Charles II", "her child"] and ped.sire.tolist() == [-1, 0]


@pytest.mark.parametrize("ending", ["", ".gz", ".bz2", ".xz", ".lzma"])
def test_a_pedigree_comes_back_as_it_was_written(ped_file, tmp_path, ending):
    ped = read_ped(ped_file)
    write_pedigree(ped, tmp_path / f"out.ped{ending}")
    again = read_ped(tmp_path / f"out.ped{ending}")
    for name in ("ids", "sire", "dam", "sex", "family"):
        assert getattr(again, name).tolist() == getattr(ped, name).tolist()
    np.testing.assert_array_equal(again.columns["affected"], ped.columns["affected"])


def test_bad_pedigree_files(tmp_path, ped_file):
    with pytest.raises(DataError, match=r"cannot read .*nowhere.ped"):
        read_ped(tmp_path / "nowhere.ped")
    path = tmp_path / "short.ped"
    path.write_text("1 a 0\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"line 1 of .* has 3 fields, at least 5"):
        read_ped(path)
    path.write_text("\n", encoding="utf-8")
    with pytest.raises(DataError, match="holds no individual"):
        read_ped(path)
    path.write_bytes(gzip.compress(PED.encode())[:40])
    with pytest.raises(DataError, match="cannot read"):
        read_ped(path)
    path.write_bytes(b"1 \xff\xfe 0 0 1\n")
    with pytest.raises(DataError, match="cannot read"):
        read_ped(path)
    with pytest.raises(DataError, match="cannot write"):
        write_pedigree(read_ped(ped_file), tmp_path / "no" / "such" / "folder.ped")


def test_phenotypes_by_family_and_id(ped_file, tmp_path):
    path = tmp_path / "phen.csv"
    path.write_text("famid,id,weight,group\nB,c,1.5,g1\nA,c,X,X\n", encoding="utf-8")
    data = read_phenotypes(path, read_ped(ped_file))
    assert data["individual"].tolist() == ["B:c", "A:c"]
    np.testing.assert_array_equal(data["weight"], [1.5, np.nan])
    assert data["group"].tolist() == ["g1", None]
    write_phenotypes(data, tmp_path / "again.csv", columns=["famid", "id", "weight", "group"])
    again = read_phenotypes(tmp_path / "again.csv")
    assert again["group"].tolist() == ["g1", None]
    np.testing.assert_array_equal(again["weight"], data["weight"])
    path.write_text("id,weight\nc,1\n", encoding="utf-8")
    with pytest.raises(DataError, match="ids repeat between families"):
        read_phenotypes(path, read_ped(ped_file))
    path.write_text("famid,id,weight\nC,c,1\n", encoding="utf-8")
    with pytest.raises(DataError, match="no individual 'C:c'"):
        read_phenotypes(path, read_ped(ped_file))
    path.write_text("famid,id\nC\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"line 2 of .* has 1 cells, the header has 2"):
        read_phenotypes(path)
    path.write_text("", encoding="utf-8")
    with pytest.raises(DataError, match="is empty"):
        read_phenotypes(path)


def test_kinship_files(tmp_path, ped_file):
    path = tmp_path / "kin.txt"
    path.write_text("A a a 0\nA a c 0.25\nA c b 0.25\nA c c 0.0625\nB c d 0.25\n", encoding="utf-8")
    kin = read_kinship(path)
    assert kin.ids.tolist() == ["A:a", "A:c", "A:b", "B:c", "B:d"]
    expected = np.eye(5)
    expected[1, 1] = 1.0625
    for i, j in [(0, 1), (1, 2), (3, 4)]:
        expected[i, j] = expected[j, i] = 0.5
    np.testing.assert_array_equal(kin.toarray(), expected)
    by_pedigree = read_kinship(path, read_ped(ped_file))
    assert by_pedigree.ids.tolist() == ["A:c", "A:a", "A:b", "B:c", "B:d"]
    order = [1, 0, 2, 3, 4]
    np.testing.assert_array_equal(by_pedigree.toarray(), expected[np.ix_(order, order)])
    path.write_text("A a a 0.5\nA a c 0.25\nA c c 0.53125\n", encoding="utf-8")
    with pytest.raises(DataError, match=r'look like kinships, .*diagonal="kinship"'):
        read_kinship(path)
    np.testing.assert_array_equal(read_kinship(path, diagonal="kinship").toarray(), [[1, 0.5], [0.5, 1.0625]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("A a b x\n", "line 1 .* 'x' is no number"),
        ("A a b 1.5\n", "a kinship of 1.5 is not between 0 and 1"),
        ("A a b 0.5\nA b a 0.25\n", "line 2 .* the pair 'b', 'a' of family 'A' has two different kinships"),
        ("A a b\n", "has 3 fields, at least 4"),
    ],
)
def test_bad_kinship_files(tmp_path, text, message):
    path = tmp_path / "kin.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        read_kinship(path)
    with pytest.raises(OptionError, match='"inbreeding" or "kinship"'):
        read_kinship(path, diagonal="phi")


def test_a_plink_bed_by_hand(tmp_path):
    """The example of the format's description: six individuals, three markers."""
    (tmp_path / "e.bed").write_bytes(bytes([0x6C, 0x1B, 0x01, 0xDC, 0x0F, 0xE7, 0x0F, 0x6B, 0x01]))
    people = [f"{i} 1 0 0 1 -9" for i in range(1, 7)]
    (tmp_path / "e.fam").write_text("\n".join(people), encoding="utf-8")
    (tmp_path / "e.bim").write_text(
        "1\tsnp1\t0\t1\tG\tA\n1\tsnp2\t0\t2\t1\t2\n1\tsnp3\t0\t3\tA\tC\n", encoding="utf-8"
    )
    ped, g = read_plink(tmp_path / "e.bed")
    assert g.counts.T.tolist() == [[2, 0, -1, 0, 0, 0], [0, -1, 1, 0, 0, 0], [0, 1, 1, -1, -1, 2]]
    assert g.markers.tolist() == ["snp1", "snp2", "snp3"] and g.positions.tolist() == [1, 2, 3]
    assert g.alleles.tolist() == [["G", "A"], ["1", "2"], ["A", "C"]]
    assert g.ids.tolist() == ped.ids.tolist() == [f"{i}:1" for i in range(1, 7)]


def test_a_plink_ped_by_hand(tmp_path):
    (tmp_path / "e.ped").write_text(
        "F c a b 1 2  A G  C C  0 0\nF a 0 0 1 1  A A  C T  T T\nF b 0 0 2 1  G G  C C  T T\n",
        encoding="utf-8",
    )
    (tmp_path / "e.map").write_text("1 s1 0 100\n1 s2 0.5 200\n2 s3 0 50\n", encoding="utf-8")
    ped, g = read_plink(tmp_path / "e")
    assert ped.sire.tolist() == [1, -1, -1]
    assert g.counts.tolist() == [[1, 0, -1], [2, 1, 0], [0, 0, 0]]
    assert g.alleles.tolist() == [["A", "G"], ["T", "C"], ["0", "T"]]
    assert g.centimorgans.tolist() == [0, 0.5, 0] and g.chromosomes.tolist() == ["1", "1", "2"]
    np.testing.assert_array_equal(ped.columns["affected"], [1, 0, 0])


@pytest.mark.parametrize("form", ["bed", "ped"])
def test_plink_files_come_back_as_they_were_written(tmp_path, form, inbred):
    rng = np.random.default_rng(1)
    counts = rng.choice([-1, 0, 0, 0, 1, 1, 2], (len(inbred), 9)).astype(np.int8)
    g = Genotypes.from_array(counts, ids=inbred.ids)
    write_plink(g, tmp_path / "x", inbred, form=form)
    ped, again = read_plink(tmp_path / "x")
    assert again.counts.tolist() == g.counts.tolist()
    assert [str(i) for i in inbred.ids] == ped.ids.tolist()
    np.testing.assert_array_equal(ped.sire, inbred.sire)
    np.testing.assert_array_equal(ped.sex, inbred.sex)
    write_plink(g, tmp_path / "y", form=form)
    assert read_plink(tmp_path / "y")[0].is_founder.all()


def test_bad_plink_files(tmp_path):
    with pytest.raises(DataError, match=r"there is neither .*bed' nor .*ped'"):
        read_plink(tmp_path / "nothing")
    (tmp_path / "e.bed").write_bytes(b"\x6c\x1b\x01\xdc")
    with pytest.raises(DataError, match=r"there is no file .*fam'; PLINK files come in sets"):
        read_plink(tmp_path / "e")
    (tmp_path / "e.fam").write_text("1 1 0 0 1 -9\n" * 1 + "2 1 0 0 1 -9\n", encoding="utf-8")
    (tmp_path / "e.bim").write_text("1 s 0 1 A G\n1 t 0 1 A G\n", encoding="utf-8")
    with pytest.raises(DataError, match="has 4 bytes, but 2 individuals and 2 markers need 5"):
        read_plink(tmp_path / "e")
    (tmp_path / "e.bed").write_bytes(b"\x6c\x1b\x00\xdc\x00")
    with pytest.raises(DataError, match="no PLINK 1 bed file with markers in rows"):
        read_plink(tmp_path / "e")
    (tmp_path / "e.bed").unlink()
    (tmp_path / "e.map").write_text("1 s 0 1\n", encoding="utf-8")
    (tmp_path / "e.ped").write_text("1 1 0 0 1 -9 A G C T\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"line 1 of .* has 4 alleles, but the map has 1 markers"):
        read_plink(tmp_path / "e")
    (tmp_path / "e.ped").write_text("1 1 0 0 1 -9 A G\n1 2 0 0 1 -9 C C\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"marker 's' has more than two alleles \(A, C, G\)"):
        read_plink(tmp_path / "e")
    (tmp_path / "e.ped").write_text("1 1 0 0 1 -9 A G\n1 1 0 0 1 -9 A A\n", encoding="utf-8")
    with pytest.raises(DataError, match="stands twice in the PLINK file"):
        read_plink(tmp_path / "e")
    with pytest.raises(DataError, match="these genotypes are dosages"):
        write_plink(Genotypes.from_array([[0.5]]), tmp_path / "z")
    with pytest.raises(OptionError, match='"bed" or "ped"'):
        write_plink(Genotypes.from_array([[1]]), tmp_path / "z", form="vcf")


VCF = """##fileformat=VCFv4.2
#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\ts1\ts2\ts3
1\t100\trs1\tA\tG\t.\tPASS\t.\tGT:DS\t0/0:0.1\t0|1:1.2\t./.:.
1\t200\t.\tC\tT\t.\tlow\t.\tGT:DS\t1|1:2\t1/0:0.9\t0/0:0
1\t300\trs3\tC\tT,G\t.\tPASS\t.\tGT:DS\t1|2:2\t1/0:0.9\t0/0:0
X\t50\trs4\tG\tA\t.\tPASS\t.\tGT\t1\t0/.\t0
2\t10\trs5\tG\tA\t.\t.\t.\tDS\t1.5\t0\t.
"""


@pytest.mark.parametrize("packed", [False, True])
def test_a_vcf_file(tmp_path, packed):
    path = tmp_path / "x.vcf.gz"
    path.write_bytes(gzip.compress(VCF.encode()) if packed else VCF.encode())
    g = read_vcf(path)
    assert g.ids.tolist() == ["s1", "s2", "s3"]
    assert g.markers.tolist() == ["rs1", "1:200", "rs4"]
    assert g.counts.T.tolist() == [[0, 1, -1], [2, 1, 0], [2, -1, 0]]
    assert g.alleles.tolist() == [["G", "A"], ["T", "C"], ["A", "G"]]
    assert g.notes == (
        "1 markers with several alternative alleles were left out",
        "1 markers without GT were left out",
    )
    d = read_vcf(path, field="DS", passed=True)
    assert d.markers.tolist() == ["rs1", "rs5"]
    np.testing.assert_array_equal(d.counts.T, [[0.1, 1.2, np.nan], [1.5, 0, np.nan]])
    with pytest.raises(OptionError, match='"GT" or "DS"'):
        read_vcf(path, field="GP")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1\t100\trs1\tA\tG\t.\tPASS\t.\tGT\t0/0\n", "has no header line"),
        (
            VCF.split("1\t100")[0] + "1\t1\ta\tA\tG\t.\t.\t.\tGT\t0/0\n",
            "line 3 of .* has 1 samples, the header 3",
        ),
        ("##x\n", "holds no samples"),
        (
            VCF.split("1\t100")[0] + "1\t1\ta\tA\tG\t.\t.\t.\tDS\t0\tx\t1\n",
            "line 3 .* a dosage that is no number",
        ),
    ],
)
def test_bad_vcf_files(tmp_path, text, message):
    path = tmp_path / "x.vcf"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        read_vcf(path, field="DS")
