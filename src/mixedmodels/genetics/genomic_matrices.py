"""Relationships from markers: additive, dominance, and the single step with a pedigree."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import DataError, OptionError
from mixedmodels.genetics.genotypes import Genotypes
from mixedmodels.genetics.relationship import Relationship

if TYPE_CHECKING:
    from mixedmodels.genetics.pedigree import Pedigree

__all__ = ["genomic", "genomic_dominance", "marker_factor", "single_step"]


def _usable(genotypes: Genotypes, frequencies: Any) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Allele frequencies, which markers vary, and notes on what is imputed or left out."""
    if not isinstance(genotypes, Genotypes):
        raise OptionError(
            f"give Genotypes, not {type(genotypes).__name__}: Genotypes.from_array(counts, ids) makes them "
            "from a matrix, Genotypes.from_frame(data) from columns"
        )
    m = len(genotypes.markers)
    if frequencies is None:
        p = genotypes.frequencies
    else:
        p = np.asarray(frequencies, dtype=float)
        if p.shape != (m,) or not np.all((p >= 0) & (p <= 1)):
            raise DataError(f"frequencies need one number between 0 and 1 for each of the {m} markers")
    varies = np.isfinite(p) & (p > 0) & (p < 1)
    if not varies.any():
        raise DataError("no marker varies: there is nothing to tell individuals apart")
    notes = []
    if not varies.all():
        notes.append(
            f"{int(np.sum(~varies))} of {m} markers do not vary (or are all missing) and were left out"
        )
    gaps = int(sum(np.count_nonzero(np.isnan(block)) for _, block in genotypes.blocks()))
    if gaps:
        share = gaps / (m * len(genotypes))
        notes.append(f"{gaps} missing genotypes ({100 * share:.2g} %) were set to the mean of their marker")
    return p, varies, notes


def genomic(
    genotypes: Genotypes, method: int = 1, frequencies: Any = None, blend: float = 0.0
) -> Relationship:
    """Additive genomic relationships.

    With counts M, frequencies p and ``Z = M - 2p``: method 1 is ``G = Z Z' / sum_j 2 p_j (1 - p_j)``, method
    2 is ``G = (1/m) sum_j z_j z_j' / (2 p_j (1 - p_j))``, which gives every marker the same weight.

    Parameters
    ----------
    genotypes : Genotypes
        Missing ones are set to the mean of their marker; a note says how many.
    method : {1, 2}
    frequencies : array_like, shape (m,), optional
        Of the counted alleles in the base population; those of the sample without it.
    blend : float
        ``G <- (1 - blend) G + blend I``: with frequencies of the sample G is singular (its rows add up to
        zero).

    Returns
    -------
    Relationship
        Named "genomic", dense.

    Notes
    -----
    Source: VanRaden (2008), Journal of Dairy Science 91, 4414-4423; method 2 also Amin et al. (2007).

    Examples
    --------
    >>> g = genomic(Genotypes.from_array([[0, 1], [1, 2], [2, 0]]))
    >>> g.toarray().round(3) + 0.0
    array([[ 1.,  0., -1.],
           [ 0.,  1., -1.],
           [-1., -1.,  2.]])
    """
    if method not in (1, 2):
        raise OptionError(f"method={method!r}: choose 1 or 2 (VanRaden's)")
    if not 0 <= blend < 1:
        raise OptionError(f"blend={blend!r}: give a share from 0 up to 1")
    p, varies, notes = _usable(genotypes, frequencies)
    n = len(genotypes)
    G = np.zeros((n, n))
    scale = 2.0 * p * (1.0 - p)
    for at, block in genotypes.blocks():
        keep = varies[at]
        Z = block[:, keep] - 2.0 * p[at][keep]
        np.nan_to_num(Z, copy=False)
        if method == 2:
            Z /= np.sqrt(scale[at][keep])
        G += Z @ Z.T
    G /= scale[varies].sum() if method == 1 else np.count_nonzero(varies)
    if blend:
        G *= 1.0 - blend
        G[np.diag_indices(n)] += blend
    return Relationship(ids=genotypes.ids, matrix=G, name="genomic", notes=tuple(notes))


def marker_factor(genotypes: Genotypes, method: int = 1, frequencies: Any = None) -> dict[str, Any]:
    """The factor W of a genomic matrix ``G = W W'``, for ``known=`` with fewer markers than individuals.

    Nothing of individuals by individuals is formed: the model is solved in the space of the markers
    (SNP-BLUP), and gives values of the individuals. Effects of the columns are ``numpy.linalg.lstsq(W,
    values)[0]``.

    Parameters
    ----------
    genotypes, method, frequencies
        As for `genomic`.

    Returns
    -------
    dict
        ``"ids"`` and ``"factor"``, (n, markers that vary).

    Examples
    --------
    >>> g = Genotypes.from_array([[0, 1], [1, 2], [2, 0]])
    >>> W = marker_factor(g)["factor"]
    >>> bool(np.allclose(W @ W.T, genomic(g).toarray()))
    True
    """
    if method not in (1, 2):
        raise OptionError(f"method={method!r}: choose 1 or 2 (VanRaden's)")
    p, varies, _ = _usable(genotypes, frequencies)
    scale = 2.0 * p * (1.0 - p)
    parts = []
    for at, block in genotypes.blocks():
        keep = varies[at]
        Z = block[:, keep] - 2.0 * p[at][keep]
        np.nan_to_num(Z, copy=False)
        parts.append(Z if method == 1 else Z / np.sqrt(scale[at][keep]))
    W = np.hstack(parts)
    W /= np.sqrt(scale[varies].sum() if method == 1 else np.count_nonzero(varies))
    return {"ids": genotypes.ids, "factor": W}


def genomic_dominance(genotypes: Genotypes, frequencies: Any = None, blend: float = 0.0) -> Relationship:
    """Dominance genomic relationships ``D = W W' / sum_j (2 p_j q_j)^2``.

    W holds ``-2 p^2``, ``2 p q`` and ``-2 q^2`` for 0, 1 and 2 copies of the allele of frequency p:
    deviations that are uncorrelated with allele counts under Hardy-Weinberg proportions.

    Parameters
    ----------
    genotypes : Genotypes
        Dosages between whole counts take the value of the parabola through the three.
    frequencies, blend
        As for `genomic`.

    Notes
    -----
    Source: Vitezica, Varona and Legarra (2013), Genetics 195, 1223-1230, eq. 5.
    """
    if not 0 <= blend < 1:
        raise OptionError(f"blend={blend!r}: give a share from 0 up to 1")
    p, varies, notes = _usable(genotypes, frequencies)
    n = len(genotypes)
    D = np.zeros((n, n))
    for at, block in genotypes.blocks():
        keep = varies[at]
        x, f = block[:, keep], p[at][keep]
        W = -2.0 * f**2 + x * (1.0 + 2.0 * f) - x * x  # -2p^2, 2pq, -2q^2 at 0, 1, 2
        np.nan_to_num(W, copy=False)
        D += W @ W.T
    D /= np.sum((2.0 * p[varies] * (1.0 - p[varies])) ** 2)
    if blend:
        D *= 1.0 - blend
        D[np.diag_indices(n)] += blend
    return Relationship(ids=genotypes.ids, matrix=D, name="genomic dominance", notes=tuple(notes))


def single_step(
    pedigree: Pedigree,
    genomic: Relationship,
    blend: float = 0.05,
    tune: bool = True,
    tau: float = 1.0,
    omega: float = 1.0,
) -> Relationship:
    """Relationships of genotyped and other individuals together: the precision ``H^{-1}`` of the single step.

        H^{-1} = A^{-1} + [0 0; 0 tau G^{-1} - omega A22^{-1}]

    with A22 the pedigree relationships of the genotyped.

    Parameters
    ----------
    pedigree : Pedigree
    genomic : Relationship
        Relationships G of the genotyped individuals, all in the pedigree.
    blend : float
        ``G <- (1 - blend) G + blend A22``, for what the markers do not explain and to make G positive
        definite.
    tune : bool
        First ``G <- a + b G`` so that the mean of its diagonal and of all its entries equal those of A22.
    tau, omega : float
        Scaling of the two inverses.

    Returns
    -------
    Relationship
        Precision in the order of the pedigree, sparse but for the block of the genotyped.

    Raises
    ------
    DataError, SolverError
        A genotyped individual outside the pedigree; a G that is not positive definite after blending, or an H
        that is not with these `tau` and `omega`.

    Notes
    -----
    Source: Aguilar et al. (2010), Journal of Dairy Science 93, 743-752; Christensen and Lund (2010), Genetics
    Selection Evolution 42, 2; Christensen et al. (2012), Animal 6, 1565-1571 (tuning).
    """
    from scipy.sparse import coo_array, csc_array

    from mixedmodels.genetics.additive import additive_block
    from mixedmodels.genetics.relationship import as_relationship, invert, logdet_of

    if not 0 <= blend <= 1:
        raise OptionError(f"blend={blend!r}: give a share from 0 to 1")
    genomic = as_relationship(genomic, "genomic")
    rows = pedigree.index(genomic.ids)
    precision, logdet = pedigree.additive_precision()
    A22 = additive_block(pedigree, rows)
    G = genomic.toarray()
    notes = list(genomic.notes)
    if tune and len(rows) > 1:
        spread = np.diagonal(G).mean() - G.mean()
        if not spread > 0:
            raise DataError(
                "the genomic relationships do not vary: they cannot be tuned to the pedigree; tune=False"
            )
        b = (np.diagonal(A22).mean() - A22.mean()) / spread
        a = A22.mean() - b * G.mean()
        G = a + b * G
        notes.append(f"genomic relationships tuned to the pedigree: {a:.4g} + {b:.4g} G")
    G = (1.0 - blend) * G + blend * A22
    G_inverse, G_logdet = invert(G, genomic.name)
    A22_inverse, A22_logdet = invert(A22, "additive")
    change = tau * G_inverse - omega * A22_inverse
    k = len(rows)
    extra = coo_array((change.ravel(), (np.repeat(rows, k), np.tile(rows, k))), shape=precision.shape)
    H = csc_array(precision + extra.tocsc())
    value = logdet + G_logdet - A22_logdet if tau == omega == 1.0 else -logdet_of(H, "single step")
    return Relationship(ids=pedigree.ids, precision=H, logdet=value, name="single step", notes=tuple(notes))
