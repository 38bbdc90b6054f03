"""PLINK's genotype files: ped and map as text, bed, bim and fam as packed bits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import DataError, OptionError
from mixedmodels.genetics.genotypes import Genotypes
from mixedmodels.genetics.pedigree_files import affection_code, names_in_families
from mixedmodels.genetics.text_files import read_fields, write_lines

if TYPE_CHECKING:
    from mixedmodels.genetics.pedigree import Pedigree

__all__ = ["read_plink", "write_plink"]

_MAGIC = b"\x6c\x1b\x01"
_MISSING = {"0", "N", "-9", "."}
# Two bits per genotype, first individual lowest: 00 two copies of allele 1, 01 missing, 10 one copy, 11 none.
_BITS = np.array([2, -1, 1, 0], dtype=np.int8)


def read_plink(prefix: str | Path, *, missing_parents: str = "add") -> tuple[Pedigree, Genotypes]:
    """Read ``prefix.bed`` with .bim and .fam, or else ``prefix.ped`` with .map.

    Parameters
    ----------
    prefix : path
        Common part of the file names, or the name of one of the files (.ped and .map may be compressed).
    missing_parents : {"add", "error"}
        As for `Pedigree.from_frame`.

    Returns
    -------
    pedigree : Pedigree
    genotypes : Genotypes
        Of the individuals in the file, labelled as in the pedigree. Counted is allele 1 of the .bim file,
        or the rarer allele of a .ped file (the first in the alphabet of two equally frequent ones).

    Raises
    ------
    DataError
        Files that are missing, cut short or do not belong together; a marker with more than two alleles.
    """
    base = str(prefix)
    for ending in (".bed", ".bim", ".fam", ".ped", ".map"):
        base = base.removesuffix(ending)
    if Path(f"{base}.bed").exists():
        return _read_packed(base, missing_parents)
    for ending in ("", ".gz", ".bz2", ".xz"):
        if Path(f"{base}.ped{ending}").exists():
            return _read_text(base, f"{base}.ped{ending}", missing_parents)
    raise DataError(
        f"there is neither {base + '.bed'!r} nor {base + '.ped'!r}; give the common part of the names"
    )


def _pedigree(rows: list[list[str]], missing_parents: str) -> tuple[Pedigree, np.ndarray]:
    """Pedigree of rows ``family id father mother sex status``, and the labels of the rows."""
    from mixedmodels.genetics.build import build_pedigree

    columns = [np.array(column, dtype=object) for column in zip(*[row[:6] for row in rows], strict=True)]
    status = np.array([affection_code(v) for v in columns[5].tolist()])
    numbers = np.array([_number(v) for v in columns[5].tolist()])
    pedigree = build_pedigree(
        (columns[1], columns[2], columns[3]),
        sex=columns[4],
        family=columns[0],
        names=("id", "father", "mother", "sex", "family"),
        missing_parents=missing_parents,
        columns={"affected": status, "phenotype": numbers},
    )
    if len(pedigree) < len(rows) or any(note.endswith("dropped") for note in pedigree.notes):
        raise DataError("an individual stands twice in the PLINK file; keep one of its rows")
    return pedigree, pedigree.ids[: len(rows)]


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return float("nan")
    return float("nan") if value == -9 else value


def _first_existing(base: str, ending: str) -> str:
    for more in ("", ".gz", ".bz2", ".xz"):
        if Path(f"{base}{ending}{more}").exists():
            return f"{base}{ending}{more}"
    raise DataError(f"there is no file {base + ending!r}; PLINK files come in sets")


def _map(rows: list[list[str]], columns: int) -> dict[str, Any]:
    """Chromosomes, names and positions of marker rows ``chromosome name [centimorgans] position ...``."""
    place = 3 if columns >= 4 else 2
    try:
        positions = np.array([int(row[place]) for row in rows], dtype=np.int64)
        distances = np.array([float(row[2]) for row in rows]) if columns >= 4 else None
    except (ValueError, IndexError):
        raise DataError(
            "the map file needs: chromosome, marker, [centimorgans,] position in base pairs"
        ) from None
    names = np.empty(len(rows), dtype=object)
    names[:] = [row[1] for row in rows]
    chromosomes = np.empty(len(rows), dtype=object)
    chromosomes[:] = [row[0] for row in rows]
    known = distances is not None and bool(np.any(distances != 0))
    return {
        "markers": names,
        "chromosomes": chromosomes,
        "positions": positions,
        "centimorgans": distances if known else None,
    }


def _read_packed(base: str, missing_parents: str) -> tuple[Pedigree, Genotypes]:
    people = [fields for _, fields in read_fields(_first_existing(base, ".fam"), least=6, what="fam")]
    sites = [fields for _, fields in read_fields(_first_existing(base, ".bim"), least=6, what="bim")]
    data = Path(f"{base}.bed").read_bytes()
    n, m = len(people), len(sites)
    if not data.startswith(_MAGIC):
        raise DataError(
            f"{base + '.bed'!r} is no PLINK 1 bed file with markers in rows (its first bytes differ)"
        )
    width = (n + 3) // 4
    if len(data) != 3 + width * m:
        raise DataError(
            f"{base + '.bed'!r} has {len(data)} bytes, but {n} individuals and {m} markers need "
            f"{3 + width * m}; the three files do not belong together"
        )
    packed = np.frombuffer(data, dtype=np.uint8, offset=3).reshape(m, width)
    table = _BITS[(np.arange(256)[:, None] >> np.array([0, 2, 4, 6])) & 3]
    counts = np.ascontiguousarray(table[packed].reshape(m, 4 * width)[:, :n].T)
    pedigree, ids = _pedigree(people, missing_parents)
    alleles = np.empty((m, 2), dtype=object)
    alleles[:] = [row[4:6] for row in sites] if m else alleles
    return pedigree, Genotypes(ids=ids, counts=counts, alleles=alleles, **_map(sites, 6))


def _read_text(base: str, path: str, missing_parents: str) -> tuple[Pedigree, Genotypes]:
    place = _first_existing(base, ".map")
    sites = [fields for _, fields in read_fields(place, least=3, what="chromosome marker position")]
    rows = []
    m = len(sites)
    for number, fields in read_fields(path, least=6, what="family id father mother sex status alleles"):
        if len(fields) != 6 + 2 * m:
            raise DataError(
                f"line {number} of {path!r} has {len(fields) - 6} alleles, but the map has {m} markers (two "
                "each)"
            )
        rows.append(fields)
    if not rows:
        raise DataError(f"{path!r} holds no individual")
    pedigree, ids = _pedigree(rows, missing_parents)
    letters = np.array([row[6:] for row in rows], dtype=str).reshape(len(rows), m, 2)
    counts, alleles = count_alleles(letters, [row[1] for row in sites])
    width = max((len(row) for row in sites), default=4)
    return pedigree, Genotypes(ids=ids, counts=counts, alleles=alleles, **_map(sites, width))


def count_alleles(letters: np.ndarray, names: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Copies of the rarer allele, (n, m) int8 with -1 for missing, and (rarer, commoner) of each marker, (m,
    2).

    Parameters
    ----------
    letters : ndarray of str, shape (n, m, 2)
        Alleles; 0, N, . and -9 are missing.
    names : list of str
        Markers, for messages.
    """
    m = letters.shape[1]
    kinds, code = np.unique(letters, return_inverse=True)
    code = code.reshape(letters.shape)
    present = np.array([kind not in _MISSING for kind in kinds.tolist()], dtype=bool)
    total = np.zeros((len(kinds), m), dtype=np.int64)
    for k in np.flatnonzero(present):
        total[k] = np.count_nonzero(code == k, axis=(0, 2))
    seen = np.count_nonzero(total, axis=0)
    if np.any(seen > 2):
        j = int(np.flatnonzero(seen > 2)[0])
        found = ", ".join(kinds[total[:, j] > 0].tolist())
        raise DataError(f"marker {names[j]!r} has more than two alleles ({found}); leave it out")
    common = total.argmax(axis=0) if len(kinds) else np.zeros(m, dtype=np.int64)
    rest = total.copy()
    rest[common, np.arange(m)] = 0
    rare = rest.argmax(axis=0)
    alone = rest[rare, np.arange(m)] == 0  # one allele only: none of the rarer
    tie = ~alone & (rest[rare, np.arange(m)] == total[common, np.arange(m)])
    swap = tie & (rare > common)
    rare[swap], common[swap] = common[swap], rare[swap]
    counts = np.where(alone, 0, (code == rare[None, :, None]).sum(axis=2)).astype(np.int8)
    counts[~present[code].all(axis=2)] = -1
    alleles = np.empty((m, 2), dtype=object)
    alleles[:, 0] = np.where(alone, "0", kinds[rare] if len(kinds) else "0")
    alleles[:, 1] = np.where(seen == 0, "0", kinds[common] if len(kinds) else "0")
    return counts, alleles


def write_plink(
    genotypes: Genotypes, prefix: str | Path, pedigree: Pedigree | None = None, form: str = "bed"
) -> None:
    """Write genotypes as PLINK files.

    Parameters
    ----------
    genotypes : Genotypes
        Whole counts.
    prefix : path
        Common part of the file names.
    pedigree : Pedigree, optional
        Gives families, parents, sexes and affection; without it everybody is a founder in a family of their
        own.
    form : {"bed", "ped"}
        Packed bits with .bim and .fam, or text with .map.

    Raises
    ------
    DataError
        Dosages that are not whole; an individual that is not in the pedigree.
    """
    if form not in ("bed", "ped"):
        raise OptionError(f'form={form!r}: choose "bed" or "ped"')
    counts = genotypes.counts
    if counts.dtype.kind == "f":
        known = ~np.isnan(counts)
        if np.any(counts[known] != np.round(counts[known])):
            raise DataError("PLINK files hold whole counts; these genotypes are dosages: round them first")
        counts = np.where(known, counts, -1).astype(np.int8)
    n, m = counts.shape
    people = _people(genotypes, pedigree)
    zeros = np.zeros(m, dtype=np.int64)
    chromosomes = genotypes.chromosomes if genotypes.chromosomes is not None else zeros
    positions = genotypes.positions if genotypes.positions is not None else zeros
    distances = genotypes.centimorgans if genotypes.centimorgans is not None else zeros
    alleles = genotypes.alleles if genotypes.alleles is not None else np.array([["A", "B"]] * m, dtype=object)
    places = [f"{chromosomes[j]}\t{genotypes.markers[j]}\t{distances[j]:g}\t{positions[j]}" for j in range(m)]
    if form == "bed":
        write_lines(f"{prefix}.fam", iter(people))
        sites = [f"{place}\t{a}\t{b}" for place, (a, b) in zip(places, alleles.tolist(), strict=True)]
        write_lines(f"{prefix}.bim", iter(sites))
        padded = np.zeros((m, 4 * ((n + 3) // 4)), dtype=np.uint8)
        padded[:, :n] = np.array([3, 2, 0, 1], dtype=np.uint8)[counts.T]  # -1 is the last entry
        quads = padded.reshape(m, -1, 4)
        packed = quads[..., 0] | quads[..., 1] << 2 | quads[..., 2] << 4 | quads[..., 3] << 6
        Path(f"{prefix}.bed").write_bytes(_MAGIC + packed.astype(np.uint8).tobytes())
        return
    write_lines(f"{prefix}.map", iter(places))

    def rows() -> Iterator[str]:
        pair = np.array(
            [[f"{b} {b}", f"{a} {b}", f"{a} {a}", "0 0"] for a, b in alleles.tolist()], dtype=object
        )
        for person, row in zip(people, counts, strict=True):
            yield "\t".join([person, *pair[np.arange(m), row].tolist()])

    write_lines(f"{prefix}.ped", rows())


def _people(genotypes: Genotypes, pedigree: Pedigree | None) -> list[str]:
    """Lines ``family id father mother sex status``."""
    if pedigree is None:
        return [f"{label}\t{label}\t0\t0\t0\t-9" for label in genotypes.ids.tolist()]
    names = names_in_families(pedigree)
    out = []
    status = np.asarray(pedigree.columns.get("affected", np.full(len(pedigree), np.nan)), dtype=float)
    for i in pedigree.index(genotypes.ids).tolist():
        s, d = int(pedigree.sire[i]), int(pedigree.dam[i])
        family = "1" if pedigree.family is None else str(pedigree.family[i])
        parents = f"{names[s] if s >= 0 else '0'}\t{names[d] if d >= 0 else '0'}"
        code = "-9" if np.isnan(status[i]) else str(int(status[i]) + 1)
        out.append(f"{family}\t{names[i]}\t{parents}\t{int(pedigree.sex[i])}\t{code}")
    return out
