"""Reading and writing pedigrees, phenotypes and kinships as the programs of the field do."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import DataError, OptionError
from mixedmodels.genetics.labels import UNKNOWN
from mixedmodels.genetics.text_files import open_text, read_fields, write_lines

if TYPE_CHECKING:
    from mixedmodels.genetics.pedigree import Pedigree
    from mixedmodels.genetics.relationship import Relationship

__all__ = ["read_kinship", "read_ped", "read_phenotypes", "write_pedigree", "write_phenotypes"]

_UNAFFECTED = {"1", "U", "u"}
_AFFECTED = {"2", "A", "a"}


def read_ped(
    path: str | Path,
    delimiter: str | None = None,
    *,
    affected: str | None = "affected",
    names: Sequence[str] = (),
    sex_labels: tuple[str, str] | None = None,
    unknown: Sequence[str] = UNKNOWN,
    missing_parents: str = "add",
    check_sexes: bool = True,
) -> Pedigree:
    """Read a pedigree file of the LINKAGE and PLINK kind: ``family id father mother sex [affected] [...]``.

    Parameters
    ----------
    path : path
        Text, in any order of rows; gz, bz2, xz and lzma are unpacked. Lines that begin with # are passed
        over.
    delimiter : str, optional
        Any white space without it.
    affected : str or None
        Name under which the sixth column is kept in `Pedigree.columns`: 1 or U is 0, 2 or A is 1, all else
        NaN. None keeps it as text among the further columns.
    names : sequence of str
        Names of the further columns (texts); "column7", ... without them.
    sex_labels : (str, str), optional
        What stands for male and for female if it is not 1, M or male and 2, F or female.
    unknown, missing_parents, check_sexes
        As for `Pedigree.from_frame`.

    Returns
    -------
    Pedigree
        With families. Ids that repeat between families become ``"family:id"``.

    Raises
    ------
    DataError
        The file cannot be read, a line is too short, or the pedigree is impossible.
    """
    from mixedmodels.genetics.build import build_pedigree

    rows = [fields for _, fields in read_fields(path, delimiter, least=5, what="family id father mother sex")]
    if not rows:
        raise DataError(f"{str(path)!r} holds no individual")
    width = max(map(len, rows))
    columns = [np.array([row[j] if j < len(row) else "" for row in rows], dtype=object) for j in range(width)]
    further: dict[str, np.ndarray] = {}
    start = 5
    if affected is not None and width > 5:
        further[affected] = np.array([affection_code(v) for v in columns[5].tolist()])
        start = 6
    titles = [*names, *[f"column{j + 1}" for j in range(start + len(names), width)]]
    for title, column in zip(titles, columns[start:], strict=False):
        further[title] = column
    return build_pedigree(
        (columns[1], columns[2], columns[3]),
        sex=columns[4],
        family=columns[0],
        names=("id", "father", "mother", "sex", "family"),
        unknown=unknown,
        missing_parents=missing_parents,
        check_sexes=check_sexes,
        columns=further,
        sex_labels=sex_labels,
    )


def affection_code(text: str) -> float:
    return 0.0 if text in _UNAFFECTED else 1.0 if text in _AFFECTED else np.nan


def read_phenotypes(
    path: str | Path,
    pedigree: Pedigree | None = None,
    delimiter: str = ",",
    missing: Sequence[str] = ("X", "x", "", "NA", "NaN", "None", "."),
    family: str = "famid",
    id: str = "id",
) -> dict[str, Any]:
    """Read a table of phenotypes with a header line; columns of numbers become floats.

    Parameters
    ----------
    path : path
        May be compressed.
    pedigree : Pedigree, optional
        Adds a column ``"individual"`` with the labels of the pedigree, for ``(1 | individual)``.
    delimiter : str
    missing : sequence of str
        Texts that stand for a missing value.
    family, id : str
        Columns of the family (which may be absent) and of the individual.

    Returns
    -------
    dict of str to ndarray
        Data for `mixedmodels.lmm`; `pandas.DataFrame(...)` of it if you like.

    Raises
    ------
    DataError
        No such column, lines of unequal length, or an individual that is not in the pedigree.
    """
    with open_text(path) as stream:
        rows = [row for row in csv.reader(stream, delimiter=delimiter) if row]
    if not rows:
        raise DataError(f"{str(path)!r} is empty")
    header, body = [name.strip() for name in rows[0]], rows[1:]
    for number, row in enumerate(body, start=2):
        if len(row) != len(header):
            raise DataError(
                f"line {number} of {str(path)!r} has {len(row)} cells, the header has {len(header)}"
            )
    gone = set(missing)
    out: dict[str, Any] = {}
    for j, name in enumerate(header):
        cells = [row[j].strip() for row in body]
        out[name] = np.array(cells, dtype=object) if name in (family, id) else _phenotype(cells, gone)
    if pedigree is not None:
        if id not in out:
            raise DataError(f"{str(path)!r} has no column {id!r}; give id=")
        out["individual"] = _individuals(pedigree, out.get(family), out[id])
    return out


def _phenotype(cells: list[str], gone: set[str]) -> np.ndarray:
    try:
        return np.array([np.nan if cell in gone else float(cell) for cell in cells])
    except ValueError:
        out = np.empty(len(cells), dtype=object)
        out[:] = [None if cell in gone else cell for cell in cells]
        return out


def _joined(pedigree: Pedigree) -> bool:
    """Whether the labels are ``"family:id"``."""
    if pedigree.family is None or pedigree.ids.dtype.kind == "i":
        return False
    return all(label.startswith(f"{f}:") for label, f in zip(pedigree.ids, pedigree.family, strict=True))


def _individuals(pedigree: Pedigree, family: np.ndarray | None, id: np.ndarray) -> np.ndarray:
    """Labels of the pedigree for the rows of a table."""
    labels = id
    if _joined(pedigree):
        if family is None:
            raise DataError("ids repeat between families: the table needs a column of families; give family=")
        labels = np.array([f"{f}:{i}" for f, i in zip(family, id, strict=True)], dtype=object)
    return pedigree.ids[pedigree.index(labels)]


def write_pedigree(
    pedigree: Pedigree, path: str | Path, delimiter: str = "\t", affected: str = "affected"
) -> None:
    """Write ``family id father mother sex affected``, as `read_ped` reads it.

    Unknown parents are 0, sexes 1 and 2 (0 unknown), affection 1 and 2 (-9 unknown).

    Parameters
    ----------
    pedigree : Pedigree
    path : path
        Compressed if it ends in .gz, .bz2, .xz or .lzma.
    delimiter : str
    affected : str
        Column of `Pedigree.columns` with 0 and 1, if there is one.
    """
    names = names_in_families(pedigree)
    families = ["1"] * len(pedigree) if pedigree.family is None else list(map(str, pedigree.family))
    status = np.asarray(pedigree.columns.get(affected, np.full(len(pedigree), np.nan)), dtype=float)

    def rows() -> Any:
        for i in range(len(pedigree)):
            s, d = int(pedigree.sire[i]), int(pedigree.dam[i])
            code = "-9" if np.isnan(status[i]) else str(int(status[i]) + 1)
            yield delimiter.join(
                (
                    families[i],
                    names[i],
                    names[s] if s >= 0 else "0",
                    names[d] if d >= 0 else "0",
                    str(int(pedigree.sex[i])),
                    code,
                )
            )

    write_lines(path, rows())


def names_in_families(pedigree: Pedigree) -> list[str]:
    """Ids without their family in front."""
    ids = [str(label) for label in pedigree.ids.tolist()]
    if pedigree.family is None or not _joined(pedigree):
        return ids
    return [label.removeprefix(f"{family}:") for label, family in zip(ids, pedigree.family, strict=True)]


def write_phenotypes(
    data: Any,
    path: str | Path,
    columns: Sequence[str] | None = None,
    delimiter: str = ",",
    missing: str = "X",
) -> None:
    """Write columns of a data frame as a table with a header line.

    Parameters
    ----------
    data : data frame or mapping
    path : path
        Compressed if it ends in .gz, .bz2, .xz or .lzma.
    columns : sequence of str, optional
        All without it.
    delimiter, missing : str
    """
    from mixedmodels.frame.columns import Columns
    from mixedmodels.frame.values import FactorColumn

    frame = Columns(data)
    names = list(columns) if columns is not None else list(frame)
    cells = []
    for name in names:
        raw = frame.raw(name)
        if isinstance(raw, FactorColumn):
            cells.append([missing if c < 0 else str(raw.levels[c]) for c in raw.codes.tolist()])
        else:
            values = raw.tolist()
            cells.append([missing if v is None or v != v else f"{v!r}" for v in values])
    lines = [delimiter.join(names), *[delimiter.join(row) for row in zip(*cells, strict=True)]]
    write_lines(path, iter(lines))


def read_kinship(
    path: str | Path,
    pedigree: Pedigree | None = None,
    delimiter: str | None = None,
    diagonal: str = "inbreeding",
) -> Relationship:
    """Read kinship coefficients of pairs as KinInbCoef writes them: ``family id1 id2 value``.

    Parameters
    ----------
    path : path
        May be compressed. Pairs that are not listed are unrelated.
    pedigree : Pedigree, optional
        Gives the labels and their order; without it ids are kept as read (``"family:id"`` if they repeat).
    delimiter : str, optional
        Any white space without it.
    diagonal : {"inbreeding", "kinship"}
        What lines with twice the same id hold: the inbreeding coefficient (as KinInbCoef) or the kinship with
        itself, ``(1 + F) / 2``.

    Returns
    -------
    Relationship
        ``A = 2 phi``, sparse. Individuals without a line of their own are not inbred.

    Raises
    ------
    DataError
        A value that is no coefficient; two different values of one pair.
    """
    from scipy.sparse import csc_array

    from mixedmodels.genetics.relationship import Relationship

    if diagonal not in ("inbreeding", "kinship"):
        raise OptionError(f'diagonal={diagonal!r}: choose "inbreeding" or "kinship"')
    pairs: dict[tuple[tuple[str, str], tuple[str, str]], float] = {}
    people: dict[tuple[str, str], int] = {}
    for number, fields in read_fields(path, delimiter, least=4, what="family id1 id2 kinship"):
        family, one, other, text = fields[:4]
        try:
            value = float(text)
        except ValueError:
            raise DataError(f"line {number} of {str(path)!r}: {text!r} is no number") from None
        if not 0 <= value <= 1:
            raise DataError(f"line {number} of {str(path)!r}: a kinship of {text} is not between 0 and 1")
        a, b = sorted([(family, one), (family, other)])
        for person in ((family, one), (family, other)):
            people.setdefault(person, len(people))
        if pairs.setdefault((a, b), value) != value:
            raise DataError(
                f"line {number} of {str(path)!r}: the pair {one!r}, {other!r} of family {family!r} has two "
                "different kinships"
            )
    own = [value for (a, b), value in pairs.items() if a == b]
    if diagonal == "inbreeding" and own and min(own) >= 0.5:
        raise DataError(
            f"the values of {str(path)!r} for an individual with itself are all 0.5 or more: they look like "
            "kinships, "
            'not inbreeding coefficients; diagonal="kinship"'
        )
    ids = np.empty(len(people), dtype=object)
    if len({person for _, person in people}) == len(people):
        ids[:] = [person for _, person in people]
    else:
        ids[:] = [f"{family}:{person}" for family, person in people]
    place = np.arange(len(people))
    if pedigree is not None:
        families = np.array([family for family, _ in people], dtype=object)
        single = np.array([person for _, person in people], dtype=object)
        found = pedigree.index(_individuals(pedigree, families, single))
        ids, place = pedigree.ids, found
    n = len(ids)
    rows, columns, values = list(range(n)), list(range(n)), [1.0] * n
    for (a, b), value in pairs.items():
        i, j = int(place[people[a]]), int(place[people[b]])
        if i == j:
            values[i] = 1.0 + value if diagonal == "inbreeding" else 2.0 * value
        elif value:
            rows += [i, j]
            columns += [j, i]
            values += [2.0 * value, 2.0 * value]
    matrix = csc_array((values, (rows, columns)), shape=(n, n))
    return Relationship(ids=ids, matrix=matrix, name="kinship")
