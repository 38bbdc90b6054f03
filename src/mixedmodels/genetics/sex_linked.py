"""Relationships of what is not autosomal: X-linked genes, the Y chromosome and mitochondria."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import DataError, OptionError
from mixedmodels.genetics.ancestry import lines

if TYPE_CHECKING:
    from mixedmodels.genetics.pedigree import Pedigree
    from mixedmodels.genetics.relationship import Relationship

__all__ = ["DOSAGES", "line_relationship", "maternal_lines", "paternal_lines", "x_kinship", "x_linked"]

DOSAGES = ("equal", "full", "none")
MALE, FEMALE = 1, 2


def x_kinship(pedigree: Pedigree) -> np.ndarray:
    """Kinships at X-linked genes, (n, n): a male has one gene, from his dam.

    ``phi(i, j)`` is ``phi(dam_i, j)`` for a male i younger than j, ``(phi(sire_i, j) + phi(dam_i, j)) / 2``
    for a female; ``phi(i, i)`` is 1 for males and ``(1 + phi(sire, dam)) / 2`` for females.

    Raises
    ------
    DataError
        An individual of unknown sex.
    """
    from mixedmodels.solver._kernels.pedigree import tabular

    order = pedigree.order
    sex = pedigree.sex[order]
    if np.any(sex == 0):
        who = str(pedigree.ids[order[np.flatnonzero(sex == 0)[0]]])
        raise DataError(f"X-linked relationships need the sex of individual {who!r}; give sex= for everybody")
    sire, dam, _ = pedigree.sorted_parents
    male = sex == MALE
    from_sire = np.where(male, 0.0, 0.5)
    from_dam = np.where(male, 1.0, 0.5)
    own = np.where(male, 1.0, 0.5)
    by_mates = np.where(male, 0.0, 0.5)
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    return tabular(sire, dam, from_sire, from_dam, own, by_mates)[np.ix_(place, place)]


def x_linked(pedigree: Pedigree, ids: Any = None, dosage: str = "equal") -> Relationship:
    """Relationships at X-linked genes.

    With X-kinships phi and ``c_i`` for the weight of a gene, the entries are ``2 c_i c_j phi(i, j)``; c is 1
    for females, whose diagonal is 1 without inbreeding.

    Parameters
    ----------
    pedigree : Pedigree
        With everybody's sex.
    ids : sequence of labels, optional
        The individuals wanted, in this order; all without it.
    dosage : {"equal", "full", "none"}
        Weight of a male's gene: ``"equal"``: ``sqrt(1/2)``, males and non-inbred females have the same
        variance; ``"full"`` dosage compensation: 1, a male's gene does as much as the two of a homozygous
        female (males have twice the variance); ``"none"``: 1/2, a male's gene does as much as one of a female
        (half the variance).

    Returns
    -------
    Relationship

    Notes
    -----
    Source: Fernando and Grossman (1990), Theoretical and Applied Genetics 80, 75-80; Kent, Dyer and Blangero
    (2005), Genetic Epidemiology 29, 377-388.
    """
    from mixedmodels.genetics.relationship import Relationship

    if dosage not in DOSAGES:
        raise OptionError(f"dosage={dosage!r}: choose one of {', '.join(map(repr, DOSAGES))}")
    weight = {"equal": np.sqrt(0.5), "full": 1.0, "none": 0.5}[dosage]
    if ids is not None:  # only the individuals asked for and their ancestors
        from mixedmodels.genetics.ancestry import reached

        marked = np.zeros(len(pedigree), dtype=bool)
        marked[pedigree.index(ids)] = True
        pedigree = pedigree.take(np.flatnonzero(reached(pedigree, marked, downwards=False)))
    rows = np.arange(len(pedigree)) if ids is None else pedigree.index(ids)
    c = np.where(pedigree.sex[rows] == MALE, weight, 1.0)
    matrix = 2.0 * x_kinship(pedigree)[np.ix_(rows, rows)] * np.outer(c, c)
    return Relationship(ids=pedigree.ids[rows], matrix=matrix, name="X-linked")


def maternal_lines(pedigree: Pedigree) -> np.ndarray:
    """Label of the earliest known ancestor in the maternal line of each individual, (n,).

    As a grouping factor, ``(1 | line)``, this is the mitochondrial effect: cheaper than its matrix, which is
    singular.
    """
    return pedigree.ids[lines(pedigree.dam.astype(np.int64))]


def paternal_lines(pedigree: Pedigree) -> np.ndarray:
    """Label of the earliest known ancestor in each male's paternal line, (n,) of object; None for females.

    As a grouping factor, ``(1 | line)``, this is the effect of the Y chromosome.
    """
    if np.any(pedigree.sex == 0):
        who = str(pedigree.ids[np.flatnonzero(pedigree.sex == 0)[0]])
        raise DataError(f"paternal lines need the sex of individual {who!r}; give sex= for everybody")
    out = pedigree.ids[lines(pedigree.sire.astype(np.int64))].astype(object)
    out[pedigree.sex != MALE] = None
    return out


def line_relationship(pedigree: Pedigree, ids: Any, parent: str) -> Relationship:
    """One for two individuals of one maternal (``"dam"``) or (males) paternal (``"sire"``) line, else zero.

    Returns
    -------
    Relationship
        Sparse blocks of ones: singular as soon as a line has two members. To fit it, group by the line
        instead.
    """
    from scipy.sparse import csc_array

    from mixedmodels.genetics.relationship import Relationship

    name = "mitochondrial" if parent == "dam" else "Y-linked"
    label = maternal_lines(pedigree) if parent == "dam" else paternal_lines(pedigree)
    rows = np.arange(len(pedigree)) if ids is None else pedigree.index(ids)
    rows_of = np.array([v is not None for v in label[rows].tolist()])
    kept = np.flatnonzero(rows_of)
    codes = np.unique(label[rows][kept].astype(str), return_inverse=True)[1].ravel()
    member = csc_array(
        (np.ones(len(kept)), (kept, codes)), shape=(len(rows), max(codes.max(initial=-1) + 1, 1))
    )
    method = "maternal_lines" if parent == "dam" else "paternal_lines"
    return Relationship(
        ids=pedigree.ids[rows],
        matrix=csc_array(member @ member.T),
        name=name,
        remedy=f"it is blocks of ones: group by .{method}() instead, (1 | line), the same effect",
    )
