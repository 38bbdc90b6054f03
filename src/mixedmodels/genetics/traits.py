"""Simulated traits: breeding values, dominance deviations, effects of genotypes, thresholds."""

from __future__ import annotations

from typing import Any

import numpy as np

from mixedmodels.errors import DataError, OptionError
from mixedmodels.genetics.additive import mendelian_variances
from mixedmodels.genetics.genotypes import Genotypes
from mixedmodels.genetics.pedigree import Pedigree

__all__ = ["simulate_breeding_values", "simulate_genotypic_trait", "simulate_trait"]

_DENSE = 2000  # individuals up to which a dominance matrix is factored whole


def simulate_breeding_values(pedigree: Pedigree, covariance: Any = 1.0, seed: Any = None) -> np.ndarray:
    """Breeding values with covariance ``A kron G``, from parents to offspring.

    ``a_i = (a_sire + a_dam) / 2 + sqrt(d_i) z_i``: exact and linear in the number of individuals.

    Parameters
    ----------
    pedigree : Pedigree
    covariance : float or array_like, shape (t, t)
        Additive variance G, or covariance matrix of t traits.
    seed : int, numpy.random.Generator or None

    Returns
    -------
    ndarray, shape (n,) or (n, t)

    Raises
    ------
    DataError
        A covariance that is not positive semi-definite.
    """
    from mixedmodels.solver._kernels.pedigree import multiply_down

    G = np.atleast_2d(np.asarray(covariance, dtype=float))
    if G.ndim != 2 or G.shape[0] != G.shape[1]:
        raise DataError("the additive covariance must be a number or a square matrix")
    root = _root(G, "additive covariance")
    rng = np.random.default_rng(seed)
    sire, dam, _ = pedigree.sorted_parents
    d = mendelian_variances(sire, dam, pedigree.inbreeding[pedigree.order])
    work = np.ascontiguousarray(np.sqrt(d)[:, None] * (rng.standard_normal((len(pedigree), len(G))) @ root.T))
    multiply_down(sire, dam, work)
    out = np.empty_like(work)
    out[pedigree.order] = work
    return out[:, 0] if np.ndim(covariance) == 0 else out


def _root(matrix: np.ndarray, what: str) -> np.ndarray:
    """A square root of a positive semi-definite matrix."""
    from scipy.linalg import eigh

    if not np.allclose(matrix, matrix.T):
        raise DataError(f"the {what} is not symmetric")
    values, vectors = eigh(matrix)
    if values[0] < -1e-8 * max(abs(values[-1]), 1e-300):
        raise DataError(f"the {what} is not positive semi-definite (least eigenvalue {values[0]:.3g})")
    return vectors * np.sqrt(np.maximum(values, 0.0))


def simulate_trait(
    pedigree: Pedigree,
    heritability: float = 0.5,
    dominance: float = 0.0,
    family: float = 0.0,
    variance: float = 1.0,
    mean: float = 0.0,
    prevalence: float | None = None,
    seed: Any = None,
) -> dict[str, np.ndarray]:
    """A polygenic trait: additive, dominance, full-sib-family and residual effects.

    Parameters
    ----------
    pedigree : Pedigree
    heritability, dominance, family : float
        Shares of the variance (of a non-inbred individual) that are additive, dominance, and common to full
        sibs.
    variance, mean : float
        Total variance and mean.
    prevalence : float, optional
        Adds ``"affected"``: 1 for those beyond the liability threshold that this share of the population
        exceeds.
    seed : int, numpy.random.Generator or None

    Returns
    -------
    dict of str to ndarray, shape (n,)
        ``individual``, ``y``, and the parts ``additive``, ``dominance``, ``family``, ``residual`` that are
        not zero.

    Raises
    ------
    OptionError
        Shares that are negative or add up to more than one.
    """
    shares = {"heritability": heritability, "dominance": dominance, "family": family}
    for name, share in shares.items():
        if not 0 <= share <= 1:
            raise OptionError(f"{name}={share!r}: give a share of the variance between 0 and 1")
    rest = 1.0 - sum(shares.values())
    if rest < -1e-12:
        raise OptionError(f"the shares of the variance add up to {1 - rest:g}, more than 1")
    if not variance > 0:
        raise OptionError(f"variance={variance!r}: give a positive number")
    rng = np.random.default_rng(seed)
    n = len(pedigree)
    parts: dict[str, np.ndarray] = {}
    if heritability:
        parts["additive"] = simulate_breeding_values(pedigree, heritability * variance, rng)
    if dominance:
        parts["dominance"] = np.sqrt(dominance * variance) * _dominance_values(pedigree, rng)
    if family:
        couple = pedigree.sire.astype(np.int64) * n + pedigree.dam
        own = (pedigree.sire < 0) | (pedigree.dam < 0)
        couple[own] = -1 - np.arange(n)[own]
        code = np.unique(couple, return_inverse=True)[1].ravel()
        parts["family"] = np.sqrt(family * variance) * rng.standard_normal(code.max(initial=0) + 1)[code]
    parts["residual"] = np.sqrt(max(rest, 0.0) * variance) * rng.standard_normal(n)
    y = mean + np.sum(list(parts.values()), axis=0)
    out = {"individual": pedigree.ids, "y": y, **parts}
    if prevalence is not None:
        out["affected"] = _affected(y, mean, variance, prevalence)
    return out


def _dominance_values(pedigree: Pedigree, rng: np.random.Generator) -> np.ndarray:
    """Dominance deviations with the fraternities as their covariance, (n,)."""
    n = len(pedigree)
    if n <= _DENSE:
        root = _root(np.asarray(pedigree.dominance().toarray()), "dominance relationship matrix")
        return root @ rng.standard_normal(n)
    from mixedmodels.solver.sparse_cholesky import SparseCholesky

    precision = pedigree.dominance(form="precision").precision
    factor = SparseCholesky(precision)
    return factor.half_solve(rng.standard_normal(factor.n), transposed=True)[:n]


def _affected(y: np.ndarray, mean: float, variance: float, prevalence: float) -> np.ndarray:
    if not 0 < prevalence < 1:
        raise OptionError(f"prevalence={prevalence!r}: give a share between 0 and 1")
    from scipy.special import ndtri

    return (y > mean + np.sqrt(variance) * ndtri(1.0 - prevalence)).astype(np.int64)


def simulate_genotypic_trait(
    genotypes: Genotypes,
    effects: Any,
    dominance: Any = 0.0,
    heritability: float | None = None,
    mean: float = 0.0,
    residual: float = 1.0,
    prevalence: float | None = None,
    seed: Any = None,
) -> dict[str, np.ndarray]:
    """A trait caused by markers: -a, d and +a for 0, 1 and 2 copies of the counted allele (Falconer's scale).

    Parameters
    ----------
    genotypes : Genotypes
        Missing ones are set to the mean of their marker.
    effects : array_like, shape (m,), or float
        a of each marker, half the difference between the homozygotes.
    dominance : array_like, shape (m,), or float
        d of each marker, the heterozygote's deviation from their middle.
    heritability : float, optional
        Sets the residual variance so that genotypic values make up this share of the variance in the sample.
    mean : float
    residual : float
        Residual standard deviation, without `heritability`.
    prevalence : float, optional
        Adds ``"affected"``, as `simulate_trait` does.
    seed : int, numpy.random.Generator or None

    Returns
    -------
    dict of str to ndarray, shape (n,)
        ``individual``, ``y``, ``genetic``, ``residual``.
    """
    m = len(genotypes.markers)
    try:
        a = np.broadcast_to(np.asarray(effects, dtype=float), (m,))
        d = np.broadcast_to(np.asarray(dominance, dtype=float), (m,))
    except ValueError:
        raise DataError(f"effects and dominance need one number per marker ({m}), or one for all") from None
    x = genotypes.imputed()
    value = (x - 1.0) @ a
    if d.any():
        value = value + (1.0 - np.abs(x - 1.0)) @ d
    if heritability is not None:
        if not 0 < heritability <= 1:
            raise OptionError(f"heritability={heritability!r}: give a share above 0, up to 1")
        residual = float(np.sqrt(value.var() * (1.0 - heritability) / heritability))
    rng = np.random.default_rng(seed)
    e = residual * rng.standard_normal(len(genotypes))
    value = value - value.mean()
    y = mean + value + e
    out = {"individual": genotypes.ids, "y": y, "genetic": value, "residual": e}
    if prevalence is not None:
        out["affected"] = _affected(y, mean, float(value.var() + residual**2), prevalence)
    return out
