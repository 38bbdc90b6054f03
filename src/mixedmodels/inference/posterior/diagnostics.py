"""Convergence of Markov chains: split R-hat and effective sample sizes."""

from __future__ import annotations

import numpy as np

__all__ = ["effective_size", "rhat", "tail_size"]


def _split(draws: np.ndarray) -> np.ndarray:
    """Each chain in two halves, shape (2 chains, draws // 2)."""
    half = draws.shape[1] // 2
    return np.concatenate([draws[:, :half], draws[:, draws.shape[1] - half :]], axis=0)


def _normal_scores(draws: np.ndarray) -> np.ndarray:
    """Normal scores of the ranks over all chains."""
    from scipy.special import ndtri

    ranks = np.empty(draws.size)
    ranks[np.argsort(draws, axis=None, kind="stable")] = np.arange(1, draws.size + 1)
    return ndtri((ranks.reshape(draws.shape) - 0.375) / (draws.size + 0.25))


def _plain_rhat(draws: np.ndarray) -> float:
    n = draws.shape[1]
    within = float(draws.var(axis=1, ddof=1).mean())
    if not within > 0.0:
        return np.nan
    between = n * float(draws.mean(axis=1).var(ddof=1))
    return float(np.sqrt(((n - 1) / n * within + between / n) / within))


def rhat(draws: np.ndarray) -> float:
    """Rank-normalised split R-hat, the larger of that of location and that of spread.

    Parameters
    ----------
    draws : ndarray, shape (chains, draws)

    Returns
    -------
    float
        Near 1 where the chains agree; NaN for fewer than 4 draws or a constant.

    Notes
    -----
    Vehtari, Gelman, Simpson, Carpenter & Buerkner (2021), Bayesian Analysis 16:667-718.
    """
    if draws.shape[1] < 4 or not np.ptp(draws) > 0.0:
        return np.nan
    split = _split(draws)
    folded = np.abs(split - np.median(split))
    return max(_plain_rhat(_normal_scores(split)), _plain_rhat(_normal_scores(folded)))


def effective_size(draws: np.ndarray) -> float:
    """Bulk effective sample size: of the rank-normalised split chains.

    Parameters
    ----------
    draws : ndarray, shape (chains, draws)

    Notes
    -----
    Geyer's initial monotone sequence of autocorrelations; Vehtari et al. (2021).
    """
    if draws.shape[1] < 4 or not np.ptp(draws) > 0.0:
        return np.nan
    return _size(_normal_scores(_split(draws)))


def tail_size(draws: np.ndarray) -> float:
    """Tail effective sample size: the smaller of those of the 5 % and the 95 % quantile.

    Parameters
    ----------
    draws : ndarray, shape (chains, draws)
    """
    if draws.shape[1] < 4 or not np.ptp(draws) > 0.0:
        return np.nan
    split = _split(draws)
    return min(_size((split <= np.quantile(split, q)).astype(float)) for q in (0.05, 0.95))


def _size(chains: np.ndarray) -> float:
    m, n = chains.shape
    centred = chains - chains.mean(axis=1, keepdims=True)
    length = 1 << (2 * n - 1).bit_length()
    spectrum = np.fft.rfft(centred, length, axis=1)
    covariance = np.fft.irfft(spectrum * np.conj(spectrum), length, axis=1)[:, :n] / n
    within = float(covariance[:, 0].mean()) * n / (n - 1)
    total = within * (n - 1) / n + float(chains.mean(axis=1).var(ddof=1))
    if not total > 0.0:
        return np.nan
    rho = 1.0 - (within - covariance.mean(axis=0)) / total
    rho[0] = 1.0
    pairs = rho[: 2 * (n // 2)].reshape(-1, 2).sum(axis=1)
    negative = np.flatnonzero(pairs < 0.0)
    pairs = pairs[: negative[0] if len(negative) else len(pairs)]
    tau = 2.0 * float(np.minimum.accumulate(pairs).sum()) - 1.0
    return m * n / max(tau, 1.0 / np.log10(m * n))
