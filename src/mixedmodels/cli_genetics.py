"""The command line's pedigrees: ``mixedmodels pedigree FILE`` and ``--known NAME=FILE``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from mixedmodels.errors import DataError, OptionError

__all__ = ["add_pedigree", "read_known"]


def add_pedigree(commands: Any) -> None:
    """Add the command ``pedigree`` to the parsers of the commands."""
    parser = commands.add_parser(
        "pedigree",
        help="describe a pedigree: inbreeding, kinships, bit sizes",
        description="Read a pedigree (family id father mother sex ...) and print what follows from it.",
    )
    parser.add_argument("file", metavar="FILE", help="LINKAGE or PLINK pedigree, compressed or not")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--kinship", action="store_true", help="kinships of all related pairs, as CSV")
    what.add_argument("--inbreeding", action="store_true", help="inbreeding coefficients, as CSV")
    what.add_argument("--bit-size", action="store_true", help="bit size of each family, as CSV")
    parser.add_argument(
        "--any-sex", action="store_true", help="do not check that sires are male and dams female"
    )
    parser.set_defaults(run=_pedigree)


def _pedigree(arguments: argparse.Namespace) -> int:
    from mixedmodels.genetics import read_ped

    _exists(arguments.file)
    ped = read_ped(arguments.file, check_sexes=not arguments.any_sex)
    if arguments.kinship:
        print("id1,id2,kinship")
        for line in _kinships(ped):
            print(line)
    elif arguments.inbreeding:
        print("id,inbreeding")
        for label, F in zip(ped.ids, ped.inbreeding.tolist(), strict=True):
            print(f"{label},{F:.10g}")
    elif arguments.bit_size:
        families = [None] if ped.family is None else list(dict.fromkeys(ped.family))
        print("family,individuals,bit_size")
        for family in families:
            part = ped if family is None else ped.family_of(family)
            print(f"{'' if family is None else family},{len(part)},{part.bit_size()}")
    else:
        print(ped)
        F = ped.inbreeding
        print(f"bit size {ped.bit_size()}; {int((F > 0).sum())} inbred, largest coefficient {F.max():.6g}")
        for note in ped.notes:
            print(f"note: {note}")
    return 0


def _kinships(ped: Any) -> Any:
    """Lines of the pairs with a kinship above zero, family by family (families are unrelated)."""
    families = [None] if ped.family is None else list(dict.fromkeys(ped.family))
    for family in families:
        part = ped if family is None else ped.family_of(family)
        phi = part.additive(part.ids).toarray() / 2.0
        for i, j in zip(*np.nonzero(np.triu(phi)), strict=True):
            yield f"{part.ids[i]},{part.ids[j]},{phi[i, j]:.10g}"


def read_known(options: Any) -> dict[str, Any] | None:
    """What ``known=`` of `mixedmodels.lmm` takes, from texts ``NAME=FILE``.

    A file .csv or .tsv is a square matrix with the labels in its first line; .kin lists kinships of pairs;
    any other is a pedigree.
    """
    if not options:
        return None
    found: dict[str, Any] = {}
    for option in options:
        name, equals, path = option.partition("=")
        if not (equals and name and path):
            raise OptionError(f"--known needs NAME=FILE, such as animal=animals.ped; got {option!r}")
        _exists(path)
        found[name] = _read_one(path)
    return found


def _read_one(path: str) -> Any:
    from mixedmodels import genetics
    from mixedmodels.genetics.text_files import open_text

    suffix = Path(path.removesuffix(".gz")).suffix
    if suffix == ".kin":
        return genetics.read_kinship(path)
    if suffix not in (".csv", ".tsv"):
        return genetics.read_ped(path)
    delimiter = "," if suffix == ".csv" else "\t"
    with open_text(path) as file:
        labels: list[Any] = [cell.strip().strip('"') for cell in file.readline().split(delimiter)]
        lines = [line.split(delimiter) for line in file if line.strip()]
    try:
        matrix = np.array(lines, dtype=float)
    except ValueError:
        raise DataError(f"{path!r}: a matrix needs numbers below its line of labels") from None
    if all(label.isdecimal() for label in labels):
        labels = [int(label) for label in labels]
    if matrix.shape != (len(labels), len(labels)):
        raise DataError(f"{path!r}: below {len(labels)} labels the matrix has shape {matrix.shape}")
    return matrix, labels


def _exists(path: str) -> None:
    if not Path(path).is_file():
        raise DataError(f"there is no file {path!r}")
