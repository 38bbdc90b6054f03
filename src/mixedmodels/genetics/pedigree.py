"""Pedigrees: who are the parents of whom, checked, and the additive relationships that follow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import DataError, OptionError
from mixedmodels.genetics.labels import UNKNOWN, Finder

if TYPE_CHECKING:
    from mixedmodels.genetics.relationship import Relationship

__all__ = ["FEMALE", "MALE", "Pedigree"]

MALE, FEMALE = 1, 2


@dataclass(frozen=True, eq=False, repr=False)
class Pedigree:
    """Individuals and their parents.

    Use `Pedigree.from_frame` or `read_ped`: they check what this class takes as given. Rows keep the order of
    the data; founders that were added (parents without a row) follow at the end.

    Attributes
    ----------
    ids : ndarray of int64 or object (texts), shape (n,)
        Distinct labels. If ids repeat between families they are ``"family:id"``.
    sire, dam : ndarray of int32, shape (n,)
        Row of the father and of the mother; -1 if unknown.
    sex : ndarray of int8, shape (n,)
        1 male, 2 female, 0 unknown. Parents have the sex of their role.
    generation : ndarray of int32, shape (n,)
        Length of the longest line of known ancestors: 0 for founders.
    family : ndarray of object, shape (n,), or None
        Family of each individual.
    columns : dict of str to ndarray
        Other columns of the file or frame, one value per individual.
    notes : tuple of str
        What was added or dropped while reading.

    Examples
    --------
    >>> ped = Pedigree.from_frame({"id": ["a", "b", "c", "d", "e"],
    ...                            "sire": [None, None, "a", "a", "c"], "dam": [None, None, "b", "b", "d"]})
    >>> ped.inbreeding
    array([0.  , 0.  , 0.  , 0.  , 0.25])
    >>> ped.additive(["c", "e"]).toarray()
    array([[1.  , 0.75],
           [0.75, 1.25]])
    """

    ids: np.ndarray
    sire: np.ndarray
    dam: np.ndarray
    sex: np.ndarray
    generation: np.ndarray
    family: np.ndarray | None = None
    columns: dict[str, np.ndarray] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @classmethod
    def from_frame(
        cls,
        data: Any,
        id: str = "id",
        sire: str = "sire",
        dam: str = "dam",
        sex: str | None = None,
        family: str | None = None,
        *,
        unknown: Sequence[str] = UNKNOWN,
        missing_parents: str = "add",
        check_sexes: bool = True,
        sex_labels: tuple[str, str] | None = None,
    ) -> Pedigree:
        """Read and check a pedigree from columns of a data frame.

        Parameters
        ----------
        data : data frame or mapping
            One row per individual, in any order; anything `mixedmodels.lmm` reads.
        id, sire, dam : str
            Columns of labels: texts or whole numbers.
        sex : str, optional
            Column of sexes: 1, M, male or 2, F, female (any case); missing, 0, -9 or another text is unknown.
        family : str, optional
            Column of families: ids are looked up within their family.
        unknown : sequence of str
            Texts of the parents' columns that stand for an unknown parent, beside missing values.
        missing_parents : {"add", "error"}
            What to do with parents without a row of their own: add them as founders and say so in `notes`,
            or refuse.
        check_sexes : bool
            With False an individual may be a sire here and a dam there, or both at once (hermaphrodites,
            selfing), and sexes are not compared with roles.
        sex_labels : (str, str), optional
            What stands for male and for female in the column of sexes, if it is none of the above.

        Returns
        -------
        Pedigree

        Raises
        ------
        DataError
            Missing or conflicting ids, an individual that is its own parent or ancestor, a sex that
            contradicts the role as a parent, parents without a row (with ``"error"``).
        """
        from mixedmodels.frame.columns import Columns
        from mixedmodels.genetics.build import build_pedigree

        columns = Columns(data)
        raw = {name: columns.raw(name) for name in (id, sire, dam)}
        return build_pedigree(
            (raw[id], raw[sire], raw[dam]),
            sex=None if sex is None else columns.raw(sex),
            family=None if family is None else columns.raw(family),
            names=(id, sire, dam, sex or "sex", family or "family"),
            unknown=unknown,
            missing_parents=missing_parents,
            check_sexes=check_sexes,
            sex_labels=sex_labels,
        )

    def __len__(self) -> int:
        """Number of individuals."""
        return len(self.ids)

    def __repr__(self) -> str:
        founders = int(np.count_nonzero(self.is_founder))
        depth = int(self.generation.max()) if len(self) else 0
        count = 0 if self.family is None else len(set(self.family.tolist()))
        families = f", {count} {'families' if count > 1 else 'family'}" if count else ""
        people = f"{len(self)} individual{'s' * (len(self) != 1)}, {founders} founder{'s' * (founders != 1)}"
        return f"<Pedigree: {people}, depth {depth}{families}>"

    @property
    def is_founder(self) -> np.ndarray:
        """Whether both parents are unknown, (n,) bool."""
        return (self.sire < 0) & (self.dam < 0)

    @cached_property
    def order(self) -> np.ndarray:
        """Rows in an order with parents before their offspring, (n,) int64: by generation."""
        return np.argsort(self.generation, kind="stable")

    @cached_property
    def _finder(self) -> Finder:
        return Finder(self.ids)

    def index(self, ids: Any) -> np.ndarray:
        """Rows of individuals, (k,) int64.

        Parameters
        ----------
        ids : label or sequence of labels

        Raises
        ------
        DataError
            An id that is not in the pedigree.
        """
        rows = self._finder.positions(ids)
        if np.any(rows < 0):
            wanted = np.atleast_1d(np.asarray(ids, dtype=object))
            absent = [str(label) for label in wanted[rows < 0][:5]]
            raise DataError(
                f"the pedigree has no individual {', '.join(map(repr, absent))}; check the ids "
                f"(the first ones are {', '.join(repr(str(label)) for label in self.ids[:3])})"
            )
        return rows

    @cached_property
    def inbreeding(self) -> np.ndarray:
        """Inbreeding coefficients ``F_i = a(sire_i, dam_i) / 2``, (n,).

        Source: Meuwissen and Luo (1992), Genetics Selection Evolution 24, 305-313, with the sweeps by parent
        of Colleau (2002), Genetics Selection Evolution 34, 409-421.
        """
        from mixedmodels.genetics.additive import inbreeding

        out = np.empty(len(self))
        out[self.order] = inbreeding(*self.sorted_parents)
        return out

    @cached_property
    def sorted_parents(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Sires and dams as places in `order`, and generations, each (n,) int32 in that order."""
        order = self.order
        place = np.empty(len(self) + 1, dtype=np.int32)
        place[order] = np.arange(len(self), dtype=np.int32)
        place[-1] = -1
        generation = np.ascontiguousarray(self.generation[order], dtype=np.int32)
        return place[self.sire[order]], place[self.dam[order]], generation

    def additive_precision(self) -> tuple[Any, float]:
        """Inverse of the additive relationship matrix and ``log|A|``.

        ``A^{-1} = (I - P)' D^{-1} (I - P)`` with 1/2 at the parents in the rows of P and
        ``d_i = 1/2 - (F_sire + F_dam) / 4``, F of an unknown parent being -1.

        Returns
        -------
        precision : scipy.sparse.csc_array, shape (n, n)
            In the order of `ids`.
        logdet : float
            ``log|A| = sum_i log d_i``.

        Raises
        ------
        DataError
            If A is singular: offspring of two completely inbred parents are copies.

        Notes
        -----
        Source: Henderson (1976), Biometrics 32, 69-83; Quaas (1976), Biometrics 32, 949-953.
        """
        from mixedmodels.genetics.additive import additive_precision

        return additive_precision(self)

    def additive(self, ids: Any = None) -> Relationship:
        """Additive relationships, twice the kinships: diagonal ``1 + F``.

        Parameters
        ----------
        ids : sequence of labels, optional
            The individuals wanted, in this order. Without it all, as a sparse precision.

        Returns
        -------
        Relationship
            Of a few individuals: their dense matrix, computed without the whole (Colleau 2002).
        """
        from mixedmodels.genetics.additive import additive

        return additive(self, ids)

    def dominance(
        self, ids: Any = None, convention: str = "fraternity", form: str = "matrix"
    ) -> Relationship:
        """Dominance relationships; `mixedmodels.genetics.dominance.dominance` has conventions and forms."""
        from mixedmodels.genetics.dominance import dominance

        return dominance(self, ids, convention, form)

    def x_linked(self, ids: Any = None, dosage: str = "equal") -> Relationship:
        """Relationships at X-linked genes; see `mixedmodels.genetics.sex_linked.x_linked`."""
        from mixedmodels.genetics.sex_linked import x_linked

        return x_linked(self, ids, dosage)

    def y_linked(self, ids: Any = None) -> Relationship:
        """One for two males of one paternal line, else zero; females have zeros."""
        from mixedmodels.genetics.sex_linked import line_relationship

        return line_relationship(self, ids, "sire")

    def mitochondrial(self, ids: Any = None) -> Relationship:
        """One for two individuals of one maternal line, else zero."""
        from mixedmodels.genetics.sex_linked import line_relationship

        return line_relationship(self, ids, "dam")

    def maternal_lines(self) -> np.ndarray:
        """Earliest known ancestor in each maternal line, (n,): a factor for mitochondrial effects."""
        from mixedmodels.genetics.sex_linked import maternal_lines

        return maternal_lines(self)

    def paternal_lines(self) -> np.ndarray:
        """Earliest known ancestor in each male's paternal line, (n,); None for females."""
        from mixedmodels.genetics.sex_linked import paternal_lines

        return paternal_lines(self)

    def kinship(self, one: Any, other: Any, method: str = "sweep") -> float:
        """Kinship coefficient of two individuals; `method` "sweep", "recursion" or "paths"."""
        from mixedmodels.genetics.kinship import kinship

        return kinship(self, one, other, method)

    def fraternity(self, one: Any, other: Any, method: str = "sweep") -> float:
        """Probability that two individuals share both genes by descent, inbreeding left aside."""
        from mixedmodels.genetics.kinship import fraternity

        return fraternity(self, one, other, method)

    def identity_coefficients(self, one: Any, other: Any) -> np.ndarray:
        """Jacquard's nine condensed identity coefficients of two individuals, (9,)."""
        from mixedmodels.genetics.identity import identity_coefficients

        return identity_coefficients(self, one, other)

    def bit_size(self) -> int:
        """Twice the number of non-founders less the number of founders."""
        from mixedmodels.genetics.kinship import bit_size

        return bit_size(self)

    def ancestors(self, ids: Any) -> np.ndarray:
        """Ids of all ancestors of one or several individuals."""
        from mixedmodels.genetics.ancestry import ancestors

        return ancestors(self, ids)

    def descendants(self, ids: Any) -> np.ndarray:
        """Ids of all descendants of one or several individuals."""
        from mixedmodels.genetics.ancestry import descendants

        return descendants(self, ids)

    def common_ancestors(self, one: Any, other: Any) -> np.ndarray:
        """Ids of the ancestors that two individuals share."""
        from mixedmodels.genetics.ancestry import common_ancestors

        return common_ancestors(self, one, other)

    def group_shares(self, groups: Any) -> tuple[np.ndarray, np.ndarray]:
        """Shares of genes from groups of unknown parents, (n, groups), and the groups: genetic groups."""
        from mixedmodels.genetics.ancestry import group_shares

        return group_shares(self, groups)

    def siblings(self, id: Any, half: bool = False) -> np.ndarray:
        """Ids of the full siblings of an individual, with `half` also of its half siblings."""
        from mixedmodels.genetics.ancestry import siblings

        return siblings(self, id, half)

    def matriline(self, id: Any) -> np.ndarray:
        """Ids of an individual, its dam, her dam and so on."""
        from mixedmodels.genetics.ancestry import line

        return line(self, id, "dam")

    def patriline(self, id: Any) -> np.ndarray:
        """Ids of an individual, its sire, his sire and so on."""
        from mixedmodels.genetics.ancestry import line

        return line(self, id, "sire")

    def family_of(self, family: Any) -> Pedigree:
        """The pedigree of one family.

        Raises
        ------
        OptionError, DataError
            The pedigree has no families, or not this one.
        """
        if self.family is None:
            raise OptionError("the pedigree has no families; give family= when it is read")
        rows = np.flatnonzero(self.family == str(family))
        if not len(rows):
            raise DataError(f"the pedigree has no family {str(family)!r}")
        return self.take(rows)

    def take(self, rows: np.ndarray) -> Pedigree:
        """The pedigree of some rows, (k,) int: parents outside become unknown."""
        from mixedmodels.genetics.build import find_generations

        rows = np.asarray(rows, dtype=np.int64)
        place = np.full(len(self) + 1, -1, dtype=np.int32)
        place[rows] = np.arange(len(rows), dtype=np.int32)
        sire, dam = place[self.sire[rows]], place[self.dam[rows]]
        return Pedigree(
            ids=self.ids[rows],
            sire=sire,
            dam=dam,
            sex=self.sex[rows],
            generation=find_generations(sire, dam, self.ids[rows]),
            family=None if self.family is None else self.family[rows],
            columns={name: values[rows] for name, values in self.columns.items()},
        )
