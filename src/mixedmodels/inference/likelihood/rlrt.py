"""Exact finite-sample distribution of the likelihood ratio of one variance component, by simulation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mixedmodels.errors import OptionError

if TYPE_CHECKING:
    from mixedmodels.design import Design, RandomTerm

__all__ = ["Spectrum", "simulate_statistics", "spectrum_of"]

# Largest matrix whose eigenvalues are taken
_LARGEST = 5000
_GRID = 200
_LOW, _HIGH = -10.0, 8.0  # logarithms of lambda times the largest eigenvalue
_VALUES = 4_000_000  # numbers held at a time


@dataclass(frozen=True, slots=True, eq=False)
class Spectrum:
    """Eigenvalues that the distribution depends on, with multiplicities.

    Attributes
    ----------
    mu : ndarray, shape (C,)
        Positive eigenvalues of ``Z'P0Z``, ``P0 = W - WX(X'WX)^{-1}X'W``, distinct up to rounding.
    count : ndarray of int, shape (C,)
    xi : ndarray, shape (D,)
        Positive eigenvalues of ``Z'WZ``.
    xi_count : ndarray of int, shape (D,)
    n, p : int
    """

    mu: np.ndarray
    count: np.ndarray
    xi: np.ndarray
    xi_count: np.ndarray
    n: int
    p: int


def spectrum_of(design: Design, term: RandomTerm) -> Spectrum:
    r"""Spectrum of one random term with independent effects of one variance.

    Within a level the columns of Z are rotated so that Z'WZ is diagonal; effects with equal diagonal d are
    rotated once more so that at most p of them see X, and the others are eigenvectors with eigenvalue d. What
    is left is a small matrix ``diag(d) - A (X'WX)^{-1} A'``: its order is at most p times the number of
    different d, for balanced data p.

    Parameters
    ----------
    design : Design
        Its fixed part and weights.
    term : RandomTerm
        One variance: a single column, or several with a common variance.

    Raises
    ------
    OptionError
        The term has several variances or a known precision, or too many different levels.
    """
    if term.precision is not None:
        raise OptionError(
            'method="rlrt" is not in this version for levels with a known covariance; use "mixture" or '
            '"bootstrap"'
        )
    if term.k > 1 and term.covariance.clip != "trace":
        raise OptionError("the restricted likelihood-ratio distribution is known for one variance at a time")
    design.need_one_level("the restricted likelihood-ratio distribution")
    root = np.ones(design.n) if design.weights is None else np.sqrt(design.weights)
    Q = np.linalg.qr(design.X * root[:, None])[0]
    Z = (np.ones((design.n, 1)) if term.Z is None else term.Z) * root[:, None]
    m, k, p = term.m, term.k, design.p
    codes = term.codes
    blocks = np.empty((m, k, k))
    A = np.empty((m, k, p))
    for i in range(k):
        for j in range(i + 1):
            blocks[:, i, j] = blocks[:, j, i] = np.bincount(codes, Z[:, i] * Z[:, j], m)
        for j in range(p):
            A[:, i, j] = np.bincount(codes, Z[:, i] * Q[:, j], m)
    d, vectors = np.linalg.eigh(blocks)
    A = np.einsum("mij,mip->mjp", vectors, A).reshape(m * k, p)
    d = d.reshape(m * k)
    xi, xi_count, which = _classes(d)
    # effects of one class: an orthonormal change of basis leaves min(class, p) rows of A
    order = np.argsort(which, kind="stable")
    stops = np.cumsum(xi_count)
    rest_d, rest_A, sure, sure_count = [], [], [], []
    if sum(min(int(c), p) for c in xi_count) > _LARGEST:
        raise OptionError(
            f"the term has {m * k} effects with {len(xi)} different sizes, too many for the exact "
            'distribution; use method="bootstrap" or "mixture"'
        )
    for value, count, stop in zip(xi.tolist(), xi_count.tolist(), stops.tolist(), strict=True):
        rows = A[order[stop - count : stop]]
        if count > p:
            rows = np.linalg.qr(rows, mode="r")
            sure.append(value)
            sure_count.append(count - p)
        rest_A.append(rows)
        rest_d.append(np.full(len(rows), value))
    small_A = np.concatenate(rest_A)
    small = np.diag(np.concatenate(rest_d)) - small_A @ small_A.T
    values = np.linalg.eigvalsh(small)
    every = np.concatenate([values, sure])
    counts = np.concatenate([np.ones(len(values), dtype=int), np.array(sure_count, dtype=int)])
    positive = every > 1e-9 * max(float(xi.max(initial=0.0)), 0.0)
    mu, count = _merge(every[positive], counts[positive])
    keep = xi > 0.0
    return Spectrum(mu, count, xi[keep], xi_count[keep], design.n, p)


def _classes(d: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values equal up to rounding: representatives, their counts, the class of each value."""
    order = np.argsort(d, kind="stable")
    ordered = d[order]
    scale = max(float(np.abs(ordered[-1])), np.finfo(float).tiny)
    new = np.concatenate([[True], np.diff(ordered) > 1e-11 * scale])
    which = np.empty(len(d), dtype=np.intp)
    which[order] = np.cumsum(new) - 1
    return ordered[new], np.bincount(which), which


def _merge(values: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if values.size == 0:
        return values, counts
    distinct, _, which = _classes(values)
    return distinct, np.bincount(which, counts).astype(int)


def simulate_statistics(
    spectrum: Spectrum, n_draws: int, rng: np.random.Generator, reml: bool = True
) -> np.ndarray:
    r"""Draws of the likelihood-ratio statistic of a zero variance.

    .. math::
        \mathrm{RLRT} \stackrel{d}{=} \sup_{\lambda \ge 0} \Bigl\{(n-p)
            \log\Bigl(1 + \frac{N(\lambda)}{D(\lambda)}\Bigr) - \sum_s \log(1 + \lambda\mu_s)\Bigr\},
        \quad N = \sum_s \frac{\lambda\mu_s}{1+\lambda\mu_s} w_s^2, \quad
        D = \sum_s \frac{w_s^2}{1+\lambda\mu_s} + \sum_{s>K} w_s^2,

    and for the likelihood n for n - p and the eigenvalues xi of Z'Z for mu in the last sum. Equal eigenvalues
    are drawn together as chi-squared. The supremum is taken on a grid of lambda and then by a parabola
    through the best three points.

    Parameters
    ----------
    spectrum : Spectrum
    n_draws : int
    rng : Generator
    reml : bool
        Restricted likelihood ratio, else likelihood ratio.

    Returns
    -------
    ndarray, shape (n_draws,)

    References
    ----------
    Crainiceanu & Ruppert (2004), J. R. Stat. Soc. B 66:165-185, eq. 6 and 9; Scheipl, Greven & Kuechenhoff
    (2008), Comput. Stat. Data Anal. 52:3283-3299 (the grid).

    Examples
    --------
    >>> import numpy as np
    >>> six_batches_of_five = Spectrum(np.array([5.0]), np.array([5]), np.array([5.0]), np.array([6]), 30, 1)
    >>> draws = simulate_statistics(six_batches_of_five, 2000, np.random.default_rng(1))
    >>> bool(0.5 < (draws == 0.0).mean() < 0.65)
    True
    """
    if spectrum.mu.size == 0:
        return np.zeros(n_draws)
    largest = float(spectrum.mu[-1])
    log_grid = np.linspace(_LOW, _HIGH, _GRID)
    lam = np.exp(log_grid) / largest
    shrink = 1.0 / (1.0 + lam[:, None] * spectrum.mu)  # (grid, C)
    nu = spectrum.n - spectrum.p if reml else spectrum.n
    if reml:
        penalty = np.log1p(lam[:, None] * spectrum.mu) @ spectrum.count
    else:
        penalty = np.log1p(lam[:, None] * spectrum.xi) @ spectrum.xi_count
    left = spectrum.n - spectrum.p - int(spectrum.count.sum())
    out = np.empty(n_draws)
    chunk = max(1, min(n_draws, _VALUES // (_GRID + spectrum.mu.size)))
    for start in range(0, n_draws, chunk):
        size = min(chunk, n_draws - start)
        w = rng.chisquare(spectrum.count, (size, spectrum.mu.size))
        noise = rng.chisquare(left, size) if left > 0 else np.zeros(size)
        total = w.sum(axis=1) + noise
        D = w @ shrink.T + noise[:, None]
        f = nu * np.log(total[:, None] / D) - penalty
        out[start : start + size] = _suprema(f)
    return out


def _suprema(f: np.ndarray) -> np.ndarray:
    """Largest value of each row of f on an equidistant grid, at least 0, refined by a parabola."""
    rows = np.arange(len(f))
    best = np.argmax(f, axis=1)
    top = f[rows, best]
    inner = (best > 0) & (best < f.shape[1] - 1)
    i, b = rows[inner], best[inner]
    before, after = f[i, b - 1], f[i, b + 1]
    bend = before - 2.0 * top[inner] + after
    slope = 0.5 * (after - before)
    gain = np.divide(-0.5 * slope**2, bend, out=np.zeros_like(bend), where=bend < 0.0)
    top[inner] += gain
    return np.maximum(top, 0.0)
