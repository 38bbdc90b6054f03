"""Condensed identity coefficients: how the four genes of two individuals, inbred or not, are identical."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from mixedmodels.genetics.pedigree import Pedigree

__all__ = ["GeneralisedKinship", "condensed_from_kinships", "identity_coefficients", "share_both"]

Genes = tuple[tuple[int, ...], ...]


class GeneralisedKinship:
    """Probabilities that genes drawn from given individuals are identical by descent, block by block.

    Parameters
    ----------
    pedigree : Pedigree

    Notes
    -----
    ``phi((a, b, c))`` is the probability that random genes of a, b and c are identical; ``phi((a, b), (c,
    d))`` that those of a and b are identical and those of c and d are. The youngest individual named is
    replaced by its parents; values are kept.
    Source: Karigl (1981), Annals of Human Genetics 45, 299-305.
    """

    def __init__(self, pedigree: Pedigree) -> None:
        self._sire, self._dam = pedigree.sire.tolist(), pedigree.dam.tolist()
        age = np.empty(len(pedigree), dtype=np.int64)
        age[pedigree.order] = np.arange(len(pedigree))
        self._age = age.tolist()
        self._known: dict[Genes, float] = {}

    def __call__(self, *blocks: tuple[int, ...]) -> float:
        """Probability that the genes drawn for each block of rows are identical within the block."""
        target = self._sorted(blocks)
        stack = [target]
        known = self._known
        while stack:
            genes = stack[-1]
            if genes in known:
                stack.pop()
                continue
            value, waiting = 0.0, []
            for weight, part in self._step(genes):
                if not part:
                    value += weight
                elif part in known:
                    value += weight * known[part]
                else:
                    waiting.append(part)
            if waiting:
                stack.extend(waiting)
            else:
                known[genes] = value
                stack.pop()
        return known[target]

    def _sorted(self, blocks: tuple[tuple[int, ...], ...]) -> Genes:
        """Youngest first; blocks of one gene say nothing."""
        inner = [tuple(sorted(b, key=self._age.__getitem__, reverse=True)) for b in blocks if len(b) > 1]
        return tuple(sorted(inner, key=lambda b: [self._age[i] for i in b], reverse=True))

    def _step(self, genes: Genes) -> list[tuple[float, Genes]]:
        """A probability as a sum of weights times simpler probabilities; () has probability one."""
        a = genes[0][0]
        for block in genes[1:]:
            if self._age[block[0]] > self._age[a]:
                a = block[0]
        s, d = self._sire[a], self._dam[a]
        counts = tuple([block.count(a) for block in genes])
        # Genes drawn from a in one block: all the same one of its two genes with probability 2^(1 - k) if
        # they need not be both; otherwise both of them, which is then asked of its parents.
        out: list[tuple[float, Genes]] = []
        for choice, weight in _draws(counts):
            blocks = []
            for block, taken in zip(genes, choice, strict=True):
                rest = tuple(i for i in block if i != a)
                blocks.append((*rest, *[s if t == 0 else d for t in taken]))
            shared = {t for taken in choice for t in taken if sum(t in other for other in choice) > 1}
            if shared:  # one gene of a stands in two blocks: they are one block
                merged = _merge(blocks, choice)
            else:
                merged = tuple(blocks)
            if any(-1 in block and len(block) > 1 for block in merged):
                continue  # the gene of an unknown parent is identical to no other gene
            out.append((weight, self._sorted(merged)))
        return out


@lru_cache(maxsize=64)
def _draws(counts: tuple[int, ...]) -> list[tuple[tuple[tuple[int, ...], ...], float]]:
    """Distinct genes among `counts` draws per block from the two of an individual, with probabilities."""
    total = sum(counts)
    tally: dict[tuple[tuple[int, ...], ...], float] = {}
    for code in range(2**total):
        bits, at = [(code >> k) & 1 for k in range(total)], 0
        choice = []
        for count in counts:
            choice.append(tuple(sorted(set(bits[at : at + count]))))
            at += count
        tally[tuple(choice)] = tally.get(tuple(choice), 0.0) + 0.5**total
    return list(tally.items())


def _merge(blocks: list[tuple[int, ...]], choice: tuple[tuple[int, ...], ...]) -> tuple[tuple[int, ...], ...]:
    """Join blocks that hold the same gene of the individual, which is then counted once."""
    (first, other) = blocks  # two blocks at most
    genes = sorted({*choice[0], *choice[1]})
    rest = [*first[: len(first) - len(choice[0])], *other[: len(other) - len(choice[1])]]
    drawn: dict[int, int] = {}
    for block, taken in zip(blocks, choice, strict=True):
        for t, parent in zip(taken, block[len(block) - len(taken) :], strict=True):
            drawn[t] = parent
    return ((*rest, *[drawn[t] for t in genes]),)


def condensed_from_kinships(phi: GeneralisedKinship, a: int, b: int) -> np.ndarray:
    """Jacquard's nine condensed coefficients of two rows, (9,).

    Solves Karigl's linear system between the coefficients and the kinships of two, three and four genes.
    """
    right = np.array(
        [
            1.0,
            2.0 * phi((a, a)),
            2.0 * phi((b, b)),
            4.0 * phi((a, b)),
            8.0 * phi((a, a, b)),
            8.0 * phi((a, b, b)),
            16.0 * phi((a, a, b, b)),
            4.0 * phi((a, a), (b, b)),
            16.0 * phi((a, b), (a, b)),
        ]
    )
    return np.linalg.solve(_KARIGL, right)


# Row by row: what each of the nine states adds to the right-hand sides above. States (genes of a; genes of
# b): 1 all four, 2 a's and b's apart, 3 a's and one of b, 4 a's, 5 b's and one of a, 6 b's, 7 two pairs
# across, 8 one pair, 9 none.
_KARIGL = np.array(
    [
        [1, 1, 1, 1, 1, 1, 1, 1, 1],
        [2, 2, 2, 2, 1, 1, 1, 1, 1],
        [2, 2, 1, 1, 2, 2, 1, 1, 1],
        [4, 0, 2, 0, 2, 0, 2, 1, 0],
        [8, 0, 4, 0, 2, 0, 2, 1, 0],
        [8, 0, 2, 0, 4, 0, 2, 1, 0],
        [16, 0, 4, 0, 4, 0, 2, 1, 0],
        [4, 4, 2, 2, 2, 2, 1, 1, 1],
        [16, 0, 4, 0, 4, 0, 4, 1, 0],
    ],
    dtype=float,
)


def share_both(phi: GeneralisedKinship, a: int, b: int) -> float:
    """``Delta_7 = 8 (phi((a, b), (a, b)) - phi((a, a, b, b)))`` of two rows: Karigl's ninth equation less the
    seventh.
    """
    return 8.0 * (phi((a, b), (a, b)) - phi((a, a, b, b)))


def identity_coefficients(pedigree: Pedigree, one: Any, other: Any) -> np.ndarray:
    """Jacquard's condensed identity coefficients ``Delta_1 ... Delta_9`` of two individuals.

    Kinship is ``Delta_1 + (Delta_3 + Delta_5 + Delta_7) / 2 + Delta_8 / 4``; ``Delta_7`` is the probability
    that the two share both genes, neither being inbred, and ``Delta_1 + ... + Delta_4`` the inbreeding of the
    first.

    Parameters
    ----------
    pedigree : Pedigree
    one, other : label

    Returns
    -------
    ndarray, shape (9,)
        They sum to one.

    Notes
    -----
    Source: Jacquard (1974), The Genetic Structure of Populations; Karigl (1981), Annals of Human Genetics 45,
    299-305.

    Examples
    --------
    >>> from mixedmodels.genetics.pedigree import Pedigree
    >>> ped = Pedigree.from_frame({"id": [1, 2, 3, 4], "sire": [0, 0, 1, 1], "dam": [0, 0, 2, 2]})
    >>> identity_coefficients(ped, 3, 4).round(4)[6:]  # full sibs: 1/4, 1/2, 1/4
    array([0.25, 0.5 , 0.25])
    """
    i, j = int(pedigree.index(one)[0]), int(pedigree.index(other)[0])
    return condensed_from_kinships(GeneralisedKinship(pedigree), i, j)
