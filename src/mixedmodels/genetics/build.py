"""From columns of labels to a checked `Pedigree`; every error names the individual and the remedy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mixedmodels.errors import DataError, OptionError
from mixedmodels.genetics.labels import code_labels, coded_labels, label_column
from mixedmodels.genetics.pedigree import FEMALE, MALE, Pedigree

__all__ = ["build_pedigree", "find_generations", "sex_codes"]

_MALE = {"1", "M", "MALE", "XY"}
_FEMALE = {"2", "F", "FEMALE", "XX"}


def sex_codes(raw: Any, what: str, labels: tuple[str, str] | None = None) -> np.ndarray:
    """Sexes of a column, (n,) int8: 1 male, 2 female, 0 unknown; `labels` are the texts for male and
    female.
    """
    male, female = (
        (_MALE, _FEMALE) if labels is None else ({str(labels[0]).upper()}, {str(labels[1]).upper()})
    )
    values = label_column(raw, what)
    if not len(values):
        return np.zeros(0, dtype=np.int8)
    distinct, inverse = np.unique(np.array([str(v) for v in values.tolist()]), return_inverse=True)
    table = [MALE if v.upper() in male else FEMALE if v.upper() in female else 0 for v in distinct.tolist()]
    return np.array(table, dtype=np.int8)[inverse.ravel()]


def build_pedigree(
    raw: tuple[Any, Any, Any],
    *,
    sex: Any = None,
    family: Any = None,
    names: Sequence[str] = ("id", "sire", "dam", "sex", "family"),
    unknown: Sequence[str] = ("0", "", "NA", "."),
    missing_parents: str = "add",
    check_sexes: bool = True,
    columns: dict[str, np.ndarray] | None = None,
    sex_labels: tuple[str, str] | None = None,
) -> Pedigree:
    """Check columns of labels and turn them into a pedigree.

    Parameters
    ----------
    raw : three arrays or FactorColumn
        Individuals, sires and dams.
    sex, family : array or FactorColumn, optional
    names : sequence of str
        Names of the columns (id, sire, dam, sex, family) for messages.
    unknown, missing_parents, check_sexes
        As for `Pedigree.from_frame`.
    columns : dict of str to ndarray, optional
        More values per row, carried along.
    sex_labels : (str, str), optional
        What stands for male and for female.

    Returns
    -------
    Pedigree
    """
    if missing_parents not in ("add", "error"):
        raise OptionError(f'missing_parents={missing_parents!r}: choose "add" or "error"')
    read = [coded_labels(column, name) for column, name in zip(raw, names, strict=False)]
    (own, sire, dam), labels = code_labels(read, unknown)
    _check_ids(own, labels, unknown, names)
    families = None
    if family is not None:
        families, _ = _family_labels(family, names[4])
    sexes = np.zeros(len(own), dtype=np.int8) if sex is None else sex_codes(sex, names[3], sex_labels)
    keys = _Keys(own, sire, dam, labels, families)
    rows, notes = _distinct_rows(keys, sexes)
    keys = keys.take(rows)
    sexes = sexes[rows]
    extra = {name: values[rows] for name, values in (columns or {}).items()}

    for column, role in ((keys.sire, "sire"), (keys.dam, "dam")):
        own_parent = np.flatnonzero((column == keys.own) & (column >= 0))
        if len(own_parent):
            raise DataError(
                f"individual {keys.name(own_parent[0])!r} is its own {role}; correct its row of the pedigree"
            )
    added = keys.parents_without_row()
    if len(added):
        shown = ", ".join(repr(keys.name_of_key(key)) for key in added[:5].tolist())
        shown += ", ..." if len(added) > 5 else ""
        keys.refuse_other_family(added)
        if missing_parents == "error":
            raise DataError(
                f"{len(added)} parent{'s have' if len(added) > 1 else ' has'} no row of "
                f"{'their' if len(added) > 1 else 'its'} own: {shown}; add the rows, or "
                'missing_parents="add" '
                "to take them as founders"
            )
        notes.append(
            f"{len(added)} parent{'s' if len(added) > 1 else ''} without a row of their own added as "
            f"founder{'s' if len(added) > 1 else ''}: {shown}"
        )
    keys, sire_row, dam_row = keys.with_founders(added)
    sexes = np.concatenate([sexes, np.zeros(len(added), dtype=np.int8)])
    extra = {name: _padded(values, len(added)) for name, values in extra.items()}
    sexes = _check_sexes(keys, sire_row, dam_row, sexes, check_sexes)
    ids = keys.ids()
    return Pedigree(
        ids=ids,
        sire=sire_row,
        dam=dam_row,
        sex=sexes,
        generation=find_generations(sire_row, dam_row, ids),
        family=keys.family_labels(),
        columns=extra,
        notes=tuple(notes),
    )


def _padded(values: np.ndarray, more: int) -> np.ndarray:
    if not more:
        return values
    fill: Any = np.nan if values.dtype.kind == "f" else None if values.dtype.kind == "O" else 0
    return np.concatenate([values, np.full(more, fill, dtype=values.dtype)])


def _check_ids(own: np.ndarray, labels: np.ndarray, unknown: Sequence[str], names: Sequence[str]) -> None:
    if np.any(own < 0):
        raise DataError(
            f"row {int(np.flatnonzero(own < 0)[0]) + 1} of the pedigree has no id in column {names[0]!r}; "
            "give every individual an id or drop the row"
        )
    present = np.zeros(len(labels), dtype=bool)
    present[own] = True
    nobody = set(unknown)
    if labels.dtype.kind == "i":
        whole = [int(u) for u in nobody if u.lstrip("-").isdigit()]
        clash = labels[present & np.isin(labels, whole)].tolist()
    else:
        used = set(labels[present].tolist())
        clash = [label for label in nobody if label in used]
    if clash:
        raise DataError(
            f"the id {str(clash[0])!r} in column {names[0]!r} also stands for an unknown parent; rename the "
            "individual, or give unknown= without it"
        )


def _family_labels(family: Any, name: str) -> tuple[np.ndarray, np.ndarray]:
    labels = label_column(family, name)
    if labels.dtype.kind == "O" and any(v is None for v in labels):
        row = next(i for i, v in enumerate(labels) if v is None)
        raise DataError(f"row {row + 1} of the pedigree has no family in column {name!r}; give it one")
    out = np.empty(len(labels), dtype=object)
    out[:] = [str(v) for v in labels.tolist()]
    return out, labels


class _Keys:
    """Codes of individuals and parents; with families, one code per pair of family and label."""

    def __init__(
        self,
        own: np.ndarray,
        sire: np.ndarray,
        dam: np.ndarray,
        labels: np.ndarray,
        families: np.ndarray | None,
    ) -> None:
        self.labels = labels
        self.families: np.ndarray | None = None
        if families is not None:
            self.families, code = np.unique(families, return_inverse=True)
            shift = code.ravel().astype(np.int64) * len(labels)
            own = own + shift
            sire = np.where(sire >= 0, sire + shift, -1)
            dam = np.where(dam >= 0, dam + shift, -1)
        self.own, self.sire, self.dam = own, sire, dam

    def _like(self, own: np.ndarray, sire: np.ndarray, dam: np.ndarray) -> _Keys:
        out = _Keys(own, sire, dam, self.labels, None)
        out.families = self.families
        return out

    def take(self, rows: np.ndarray) -> _Keys:
        return self._like(self.own[rows], self.sire[rows], self.dam[rows])

    def name_of_key(self, key: int) -> str:
        if key < 0:
            return "unknown"
        label = str(self.labels[key % len(self.labels)])
        if self.families is None:
            return label
        return f"{label} of family {self.families[key // len(self.labels)]}"

    def name(self, row: int) -> str:
        return self.name_of_key(int(self.own[row]))

    def parents_without_row(self) -> np.ndarray:
        """Keys of parents that are no individual, in the order in which they appear."""
        parents = np.stack([self.sire, self.dam], axis=1).ravel()
        parents = parents[parents >= 0]
        missing = parents[~np.isin(parents, self.own)]
        distinct, first = np.unique(missing, return_index=True)
        return distinct[np.argsort(first)]

    def refuse_other_family(self, keys: np.ndarray) -> None:
        """A parent without a row whose label is an individual of one other family only is a mistake."""
        if self.families is None:
            return
        m = len(self.labels)
        elsewhere = keys[np.isin(keys % m, self.own % m)]
        for key in elsewhere.tolist():
            homes = self.own[self.own % m == key % m] // m
            if len(homes) == 1 and not self._repeated():
                child = int(np.flatnonzero((self.sire == key) | (self.dam == key))[0])
                raise DataError(
                    f"parent {str(self.labels[key % m])!r} of individual {self.name(child)!r} belongs to "
                    "family "
                    f"{self.families[homes[0]]}; put both into one family, or read the pedigree without "
                    "family="
                )

    def _repeated(self) -> bool:
        """Whether a label is in use in several families."""
        label = self.own % len(self.labels)
        return len(np.unique(label)) < len(label)

    def with_founders(self, added: np.ndarray) -> tuple[_Keys, np.ndarray, np.ndarray]:
        """The keys with the added individuals, and rows of the sires and dams (int32, -1 unknown)."""
        none = np.full(len(added), -1, dtype=np.int64)
        own = np.concatenate([self.own, added])
        out = self._like(own, np.concatenate([self.sire, none]), np.concatenate([self.dam, none]))
        order = np.argsort(own, kind="stable")
        ranked = own[order]
        rows = []
        for parent in (out.sire, out.dam):
            at = (
                order[np.minimum(np.searchsorted(ranked, parent), max(len(own) - 1, 0))]
                if len(own)
                else parent
            )
            rows.append(np.where(parent >= 0, at, -1).astype(np.int32))
        return out, rows[0], rows[1]

    def ids(self) -> np.ndarray:
        m = max(len(self.labels), 1)
        ids = self.labels[self.own % m] if len(self.own) else self.labels[:0]
        if self.families is None or not self._repeated():
            return ids
        out = np.empty(len(ids), dtype=object)
        families = self.families[self.own // m].tolist()
        out[:] = [f"{family}:{label}" for family, label in zip(families, ids.tolist(), strict=True)]
        return out

    def family_labels(self) -> np.ndarray | None:
        if self.families is None:
            return None
        return self.families.astype(object)[self.own // max(len(self.labels), 1)]


def _distinct_rows(keys: _Keys, sexes: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Rows without those that repeat another one; conflicting rows are an error."""
    distinct, first, inverse = np.unique(keys.own, return_index=True, return_inverse=True)
    if len(distinct) == len(keys.own):
        return np.arange(len(keys.own)), []
    first_row = first[inverse.ravel()]
    for what, values in (("sires", keys.sire), ("dams", keys.dam), ("sexes", sexes)):
        conflict = np.flatnonzero(values != values[first_row])
        if len(conflict):
            row = int(conflict[0])
            one, two = int(values[first_row[row]]), int(values[row])
            shown = ("unknown", "male", "female")
            a, b = (
                (shown[one], shown[two])
                if what == "sexes"
                else (keys.name_of_key(one), keys.name_of_key(two))
            )
            raise DataError(
                f"individual {keys.name(row)!r} has two rows with different {what}: {a} and {b}; keep the "
                "right one"
            )
    repeats = np.setdiff1d(np.arange(len(keys.own)), first)
    shown_names = ", ".join(repr(keys.name(int(row))) for row in repeats[:5])
    more = ", ..." if len(repeats) > 5 else ""
    note = f"{len(repeats)} repeated row{'s' if len(repeats) > 1 else ''} dropped: {shown_names}{more}"
    return np.sort(first), [note]


def _check_sexes(
    keys: _Keys, sire: np.ndarray, dam: np.ndarray, sexes: np.ndarray, check_sexes: bool
) -> np.ndarray:
    """Sexes with those that follow from being a parent; contradictions are an error."""
    is_sire = np.zeros(len(sexes), dtype=bool)
    is_dam = np.zeros(len(sexes), dtype=bool)
    is_sire[sire[sire >= 0]] = True
    is_dam[dam[dam >= 0]] = True
    if not check_sexes:
        return np.where(is_sire & is_dam, 0, sexes).astype(np.int8)
    both = np.flatnonzero(is_sire & is_dam)
    if len(both):
        row = int(both[0])
        a, b = int(np.flatnonzero(sire == row)[0]), int(np.flatnonzero(dam == row)[0])
        of = (
            f"sire and dam of {keys.name(a)!r}"
            if a == b
            else f"sire of {keys.name(a)!r} and dam of {keys.name(b)!r}"
        )
        raise DataError(
            f"individual {keys.name(row)!r} is {of}; correct the pedigree, or check_sexes=False for a "
            "species of hermaphrodites"
        )
    for role, marked, wrong, name, parent in (
        ("sire", is_sire, FEMALE, "female", sire),
        ("dam", is_dam, MALE, "male", dam),
    ):
        conflict = np.flatnonzero(marked & (sexes == wrong))
        if len(conflict):
            row = int(conflict[0])
            child = int(np.flatnonzero(parent == row)[0])
            raise DataError(
                f"individual {keys.name(row)!r} is {name} but the {role} of {keys.name(child)!r}; correct "
                "the sex or the parents, give sex_labels= if sexes are coded otherwise, or check_sexes=False"
            )
    return np.where(is_sire, MALE, np.where(is_dam, FEMALE, sexes)).astype(np.int8)


def find_generations(sire: np.ndarray, dam: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Generation of each individual, (n,) int32: 0 for founders, else one more than its latest parent.

    Raises
    ------
    DataError
        An individual is its own ancestor; the message shows the loop.
    """
    from mixedmodels.solver._kernels.pedigree import generations

    sire, dam = np.ascontiguousarray(sire, dtype=np.int32), np.ascontiguousarray(dam, dtype=np.int32)
    out = generations(sire, dam)
    stuck = np.flatnonzero(out < 0)
    if len(stuck):
        row, path, seen = int(stuck[0]), list[int](), dict[int, int]()
        while row not in seen:
            seen[row] = len(path)
            path.append(row)
            up = int(sire[row])
            row = up if up >= 0 and out[up] < 0 else int(dam[row])
        loop = path[seen[row] :]
        shown = loop if len(loop) <= 8 else [*loop[:7], loop[-1]]
        names = [repr(str(ids[i])) for i in shown]
        if len(loop) > 8:
            names.insert(7, "...")
        raise DataError(
            f"individual {str(ids[loop[0]])!r} is its own ancestor: {' <- '.join([*names, names[0]])} "
            "(parent on the right); correct one of these rows"
        )
    return out
