"""Allele counts and dosages from VCF files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mixedmodels.errors import DataError, OptionError
from mixedmodels.genetics.genotypes import Genotypes
from mixedmodels.genetics.text_files import open_text

__all__ = ["read_vcf"]


def read_vcf(path: str | Path, field: str = "GT", passed: bool = False) -> Genotypes:
    """Read the copies of the alternative allele of every marker with two alleles.

    Parameters
    ----------
    path : path
        VCF 4 text, plain or compressed (also by bgzip).
    field : {"GT", "DS"}
        Called genotypes (counts, phased or not), or dosages.
    passed : bool
        Keep only markers whose FILTER is PASS or a dot.

    Returns
    -------
    Genotypes
        Counted is the alternative allele. Half-called and haploid genotypes of non-missing alleles count
        what is there times their ploidy: ``1`` (a male's X) is 2, ``0/.`` is missing. Markers with several
        alternative alleles, or without `field`, are left out; a note says how many.

    Raises
    ------
    DataError
        The file cannot be read, or has no header line or samples.
    """
    if field not in ("GT", "DS"):
        raise OptionError(f'field={field!r}: choose "GT" or "DS"')
    rows: list[np.ndarray] = []
    names: list[str] = []
    chromosomes: list[str] = []
    positions: list[int] = []
    alleles: list[tuple[str, str]] = []
    samples: list[str] | None = None
    several = without = 0
    with open_text(path) as stream:
        try:
            for number, line in enumerate(stream, start=1):
                if line.startswith("##"):
                    continue
                cells = line.rstrip("\r\n").split("\t")
                if line.startswith("#CHROM"):
                    samples = cells[9:]
                    continue
                if not cells[0]:
                    continue
                if samples is None:
                    raise DataError(f"{str(path)!r} has no header line (#CHROM ...): is it a VCF file?")
                if len(cells) != 9 + len(samples):
                    raise DataError(
                        f"line {number} of {str(path)!r} has {len(cells) - 9} samples, the header "
                        f"{len(samples)}"
                    )
                chromosome, position, name, ref, alt, _, status = cells[:7]
                if passed and status not in ("PASS", "."):
                    continue
                if "," in alt:
                    several += 1
                    continue
                keys = cells[8].split(":")
                if field not in keys:
                    without += 1
                    continue
                at = keys.index(field)
                values = [_cut(cell, at) for cell in cells[9:]]
                rows.append(_counts(values) if field == "GT" else _dosages(values, number, path))
                names.append(name if name not in (".", "") else f"{chromosome}:{position}")
                chromosomes.append(chromosome)
                positions.append(int(position))
                alleles.append((alt, ref))
        except (OSError, EOFError, UnicodeDecodeError) as error:
            raise DataError(f"cannot read {str(path)!r}: {error}") from None
    if not samples:
        raise DataError(f"{str(path)!r} holds no samples")
    notes = []
    if several:
        notes.append(f"{several} markers with several alternative alleles were left out")
    if without:
        notes.append(f"{without} markers without {field} were left out")
    m = len(rows)
    kind = np.int8 if field == "GT" else float
    counts = np.stack(rows, axis=1) if m else np.zeros((len(samples), 0), dtype=kind)
    pairs = np.empty((m, 2), dtype=object)
    if m:
        pairs[:] = alleles
    return Genotypes(
        ids=np.array(samples, dtype=object),
        counts=counts,
        markers=np.array(names, dtype=object),
        chromosomes=np.array(chromosomes, dtype=object),
        positions=np.array(positions, dtype=np.int64),
        alleles=pairs,
        notes=tuple(notes),
    )


def _cut(cell: str, at: int) -> str:
    """Field number `at` of a sample; trailing fields may be dropped."""
    if at == 0:
        return cell.partition(":")[0]
    parts = cell.split(":")
    return parts[at] if at < len(parts) else "."


def _counts(values: list[str]) -> np.ndarray:
    """Copies of allele 1, (n,) int8: each spelling is read once."""
    known: dict[str, int] = {}
    for value in set(values):
        genes = value.replace("|", "/").split("/")
        if any(not gene.isdigit() for gene in genes):
            known[value] = -1
        else:
            copies = sum(gene == "1" for gene in genes)
            known[value] = 2 * copies if len(genes) == 1 else copies if len(genes) == 2 else -1
    return np.array([known[value] for value in values], dtype=np.int8)


def _dosages(values: list[str], number: int, path: str | Path) -> np.ndarray:
    try:
        return np.array([np.nan if value in (".", "") else float(value) for value in values])
    except ValueError:
        raise DataError(f"line {number} of {str(path)!r} holds a dosage that is no number") from None
