"""Random pedigrees, genes dropped through them, and traits, all from a seed."""

from __future__ import annotations

from typing import Any

import numpy as np

from mixedmodels.errors import DataError, OptionError
from mixedmodels.genetics.genotypes import Genotypes
from mixedmodels.genetics.labels import label_column
from mixedmodels.genetics.pedigree import FEMALE, MALE, Pedigree

__all__ = [
    "drop_founder_genes",
    "drop_genes",
    "nuclear_families",
    "random_pedigree",
]

MATINGS = ("random", "monogamous", "full_sib", "selfing")
_CELLS = 1 << 22  # genes handled at a time


def _whole(name: str, value: Any, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise OptionError(f"{name}={value!r}: give a whole number of {least} or more")
    return int(value)


def random_pedigree(
    founders: int = 20,
    generations: int = 3,
    size: int | None = None,
    mating: str = "random",
    sires: int | None = None,
    dams: int | None = None,
    overlap: float = 0.0,
    seed: Any = None,
) -> Pedigree:
    """A pedigree of discrete or overlapping generations.

    Parameters
    ----------
    founders : int
        Individuals of the first generation; every second one is female.
    generations : int
        Generations after the founders.
    size : int, optional
        Individuals of each later generation; as many as founders without it.
    mating : {"random", "monogamous", "full_sib", "selfing"}
        ``"random"``: each offspring draws a sire and a dam; ``"monogamous"``: couples are formed once per
        generation and each offspring draws a couple; ``"full_sib"``: as monogamous, with couples of full sibs
        wherever a family has both sexes; ``"selfing"``: one parent.
    sires, dams : int, optional
        How many males and females of a generation become parents, drawn at random; all without it.
    overlap : float
        Probability that a parent is drawn from two generations back instead of one.
    seed : int, numpy.random.Generator or None

    Returns
    -------
    Pedigree
        Ids 1, 2, ... in the order of birth.

    Examples
    --------
    >>> random_pedigree(founders=10, generations=3, size=20, seed=1)
    <Pedigree: 70 individuals, 10 founders, depth 3>
    """
    if mating not in MATINGS:
        raise OptionError(f"mating={mating!r}: choose one of {', '.join(map(repr, MATINGS))}")
    founders = _whole("founders", founders, 1 if mating == "selfing" else 2)
    generations = _whole("generations", generations, 0)
    size = founders if size is None else _whole("size", size, 1 if mating == "selfing" else 2)
    if not 0 <= overlap < 1:
        raise OptionError(f"overlap={overlap!r}: give a probability from 0 up to 1")
    rng = np.random.default_rng(seed)
    n = founders + generations * size
    sire, dam = np.full(n, -1, dtype=np.int32), np.full(n, -1, dtype=np.int32)
    start = np.concatenate([[0], founders + size * np.arange(generations + 1)])
    sex = np.where(
        (np.arange(n) - start[np.searchsorted(start, np.arange(n), "right") - 1]) % 2, FEMALE, MALE
    )
    sex = sex.astype(np.int8)
    for g in range(generations):
        here = np.arange(start[g + 1], start[g + 2])
        previous = np.arange(start[g], start[g + 1])
        fathers, mothers = _mates(rng, previous, sex, sire, dam, mating, sires, dams, len(here))
        if overlap and g > 0 and mating != "selfing":
            older = np.arange(start[g - 1], start[g])
            old_fathers, old_mothers = _mates(rng, older, sex, sire, dam, mating, sires, dams, len(here))
            fathers = np.where(rng.random(len(here)) < overlap, old_fathers, fathers)
            mothers = np.where(rng.random(len(here)) < overlap, old_mothers, mothers)
        sire[here], dam[here] = fathers, mothers
    if mating == "selfing":
        sex = np.zeros(n, dtype=np.int8)
    from mixedmodels.genetics.build import find_generations

    ids = np.arange(1, n + 1)
    return Pedigree(ids=ids, sire=sire, dam=dam, sex=sex, generation=find_generations(sire, dam, ids))


def _mates(
    rng: np.random.Generator,
    rows: np.ndarray,
    sex: np.ndarray,
    sire: np.ndarray,
    dam: np.ndarray,
    mating: str,
    sires: int | None,
    dams: int | None,
    count: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Parents of `count` offspring from one generation."""
    if mating == "selfing":
        chosen = rng.choice(rows, count)
        return chosen, chosen
    males, females = rows[sex[rows] == MALE], rows[sex[rows] == FEMALE]
    males = males if sires is None else rng.permutation(males)[: _whole("sires", sires, 1)]
    females = females if dams is None else rng.permutation(females)[: _whole("dams", dams, 1)]
    if mating == "random":
        return rng.choice(males, count), rng.choice(females, count)
    males, females = rng.permutation(males), rng.permutation(females)
    if mating == "full_sib":
        family = np.where(sire >= 0, sire.astype(np.int64) * len(sire) + dam, -1)
        males = males[np.argsort(family[males], kind="stable")]
        females = females[np.argsort(family[females], kind="stable")]
        common = np.intersect1d(family[males], family[females])
        common = common[common >= 0]
        if len(common):
            first_male = np.searchsorted(family[males], common)
            first_female = np.searchsorted(family[females], common)
            males, females = males[first_male], females[first_female]
    couples = min(len(males), len(females))
    drawn = rng.integers(couples, size=count)
    return males[drawn], females[drawn]


def nuclear_families(families: int, children: int = 2, grandparents: bool = False) -> Pedigree:
    """Unrelated families of two parents and their children.

    Parameters
    ----------
    families, children : int
    grandparents : bool
        Give both parents two parents each.

    Returns
    -------
    Pedigree
        Families "1", "2", ...; ids count through.
    """
    families, children = _whole("families", families, 1), _whole("children", children, 1)
    head = 6 if grandparents else 2
    one_sire = np.full(head + children, -1)
    one_dam = one_sire.copy()
    if grandparents:
        one_sire[4:6], one_dam[4:6] = [0, 2], [1, 3]
    one_sire[head:], one_dam[head:] = head - 2, head - 1
    shift = np.repeat(np.arange(families) * (head + children), head + children)
    sire, dam = (
        np.where(np.tile(one, families) >= 0, np.tile(one, families) + shift, -1).astype(np.int32)
        for one in (one_sire, one_dam)
    )
    sex = np.tile(np.where(np.arange(head + children) % 2, FEMALE, MALE), families).astype(np.int8)
    labels = np.repeat(np.arange(1, families + 1), head + children)
    family = np.empty(len(labels), dtype=object)
    family[:] = list(map(str, labels.tolist()))
    from mixedmodels.genetics.build import find_generations

    ids = np.arange(1, len(sire) + 1)
    return Pedigree(ids, sire, dam, sex, find_generations(sire, dam, ids), family=family)


def _drop(
    pedigree: Pedigree, founder_genes: np.ndarray, flip: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Genes of everybody, (n, 2, m): paternal, maternal.

    ``founder_genes`` (slots, m) are handed to unknown parents' places in the order of rows, paternal first;
    `flip` (m,) is the probability that a gamete changes strand before each marker.
    """
    n, m = len(pedigree), founder_genes.shape[1]
    genes = np.empty((n, 2, m), dtype=founder_genes.dtype)
    unknown = np.stack([pedigree.sire, pedigree.dam], axis=1) < 0
    genes[unknown] = founder_genes
    chunk = max(_CELLS // max(m, 1), 1)
    order, generation = pedigree.order, pedigree.generation[pedigree.order]
    edges = np.flatnonzero(np.diff(generation)) + 1
    for rows in np.split(order, edges):
        for side, parents in enumerate((pedigree.sire, pedigree.dam)):
            known = rows[parents[rows] >= 0]
            for at in range(0, len(known), chunk):
                part = known[at : at + chunk]
                strand = (rng.random((len(part), m)) < flip).cumsum(axis=1) & 1
                source = genes[parents[part]]
                genes[part, side] = np.where(strand == 0, source[:, 0], source[:, 1])
    return genes


def _slots(pedigree: Pedigree) -> int:
    return int(np.count_nonzero(pedigree.sire < 0) + np.count_nonzero(pedigree.dam < 0))


def drop_founder_genes(pedigree: Pedigree, loci: int = 1000, seed: Any = None) -> np.ndarray:
    """Which founder gene each individual carries at unlinked loci, (n, 2, loci) int32: paternal, maternal.

    Equal numbers are identical by descent, so averages over loci estimate kinships and identity coefficients.

    Parameters
    ----------
    pedigree : Pedigree
    loci : int
    seed : int, numpy.random.Generator or None
    """
    loci = _whole("loci", loci, 1)
    labels = np.repeat(np.arange(_slots(pedigree), dtype=np.int32)[:, None], loci, axis=1)
    return _drop(pedigree, labels, np.full(loci, 0.5), np.random.default_rng(seed))


def drop_genes(
    pedigree: Pedigree,
    frequencies: Any = 0.5,
    centimorgans: Any = None,
    chromosomes: Any = None,
    markers: Any = None,
    founders: Genotypes | None = None,
    missing: float = 0.0,
    seed: Any = None,
) -> Genotypes:
    """Drop genes of the founders through a pedigree, with recombination.

    Between neighbouring markers of a chromosome a gamete changes strand with Haldane's probability
    ``(1 - exp(-2 d)) / 2`` (d in Morgans); chromosomes, and markers without a map, are independent.

    Parameters
    ----------
    pedigree : Pedigree
        Unknown parents of individuals with one known parent give a founder gene as well.
    frequencies : float or array_like, shape (m,)
        Of the counted allele among the founders, whose genes are drawn independently.
    centimorgans : array_like, shape (m,), optional
        Positions, ascending within each chromosome.
    chromosomes : array_like, shape (m,), optional
        Labels, markers of a chromosome together; one chromosome without it.
    markers : sequence of str or int, optional
        Names, or how many if frequencies are one number without a map.
    founders : Genotypes, optional
        Whole counts of all founders instead of `frequencies`; which strand holds the allele of a heterozygote
        is drawn.
    missing : float
        Share of genotypes set to missing.
    seed : int, numpy.random.Generator or None

    Returns
    -------
    Genotypes
        Of everybody, in the order of the pedigree.

    Raises
    ------
    DataError
        Lengths that differ, positions that descend, founders without genotypes.
    """
    rng = np.random.default_rng(seed)
    if not 0 <= missing < 1:
        raise OptionError(f"missing={missing!r}: give a share from 0 up to 1")
    if founders is not None:
        chromosomes = founders.chromosomes if chromosomes is None else chromosomes
        centimorgans = founders.centimorgans if centimorgans is None else centimorgans
        names = founders.markers
        m = len(names)
    else:
        p = np.atleast_1d(np.asarray(frequencies, dtype=float))
        sizes = [len(np.atleast_1d(v)) for v in (centimorgans, chromosomes) if v is not None]
        sizes += [markers if isinstance(markers, int) else len(markers)] if markers is not None else []
        sizes += [len(p)] if len(p) > 1 else []
        m = sizes[0] if sizes else 1
        if any(s != m for s in sizes):
            raise DataError(
                f"frequencies, positions, chromosomes and names have lengths {sizes}; give one per marker"
            )
        if not np.all((p >= 0) & (p <= 1)):
            raise DataError("allele frequencies lie between 0 and 1")
        names = np.empty(m, dtype=object)
        given = markers if markers is not None and not isinstance(markers, int) else None
        names[:] = [f"m{j + 1}" for j in range(m)] if given is None else list(given)
    flip = _recombination(m, centimorgans, chromosomes)
    slots = _slots(pedigree)
    if founders is None:
        genes = (rng.random((slots, m)) < p).astype(np.int8)
    else:
        genes = _founder_genes(pedigree, founders, rng)
    counts = _drop(pedigree, genes, flip, rng).sum(axis=1, dtype=np.int8)
    if missing:
        counts[rng.random(counts.shape) < missing] = -1
    return Genotypes(
        ids=pedigree.ids,
        counts=counts,
        markers=names,
        chromosomes=None
        if chromosomes is None
        else label_column(np.asarray(chromosomes), "chromosomes").astype(object),
        centimorgans=None if centimorgans is None else np.asarray(centimorgans, dtype=float),
    )


def _recombination(m: int, centimorgans: Any, chromosomes: Any) -> np.ndarray:
    flip = np.full(m, 0.5)
    if centimorgans is None:
        return flip
    place = np.asarray(centimorgans, dtype=float)
    gap = np.diff(place) / 100.0
    same = np.ones(max(m - 1, 0), dtype=bool)
    if chromosomes is not None:
        label = np.asarray(chromosomes)
        same = label[1:] == label[:-1]
    if np.any(gap[same] < 0) or not np.all(np.isfinite(place)):
        raise DataError(
            "positions in centimorgans must be ascending within each chromosome; sort the markers"
        )
    flip[1:] = np.where(same, (1.0 - np.exp(-2.0 * np.where(same, gap, 0.0))) / 2.0, 0.5)
    return flip


def _founder_genes(pedigree: Pedigree, founders: Genotypes, rng: np.random.Generator) -> np.ndarray:
    """Genes of the founders' places from their counts."""
    if np.any((pedigree.sire < 0) != (pedigree.dam < 0)):
        who = pedigree.ids[np.flatnonzero((pedigree.sire < 0) != (pedigree.dam < 0))[0]]
        raise DataError(f"individual {str(who)!r} has one known parent: the genes of the other are not given")
    counts = founders.take(pedigree.ids[pedigree.is_founder]).counts
    if np.any(founders.missing) or np.any(counts != np.round(counts)):
        raise DataError("genes can be dropped from whole, known counts of the founders only")
    first = rng.random(counts.shape) < 0.5
    paternal = np.where(counts == 1, first, counts == 2)
    maternal = np.where(counts == 1, ~first, counts == 2)
    return np.stack([paternal, maternal], axis=1).reshape(-1, counts.shape[1]).astype(np.int8)
