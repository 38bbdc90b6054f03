r"""One variance ratio for each marker: Newton's method on many markers at once, in rotated rows.

With the rotated rows of `EigenSolver`, marker g added to the fixed part, W = [Q, g] and
:math:`H = \mathrm{diag}(1/(1 + s d_i))`, the criterion of one marker is

.. math:: f(s) = \sum_i \log(1 + s d_i) + \log|A|\,[\text{REML}] + \nu \log(|S|/|A|), \qquad
    A = W'HW, \quad S = [W, r]'H[W, r],

since :math:`|S|/|A| = r'Pr`. Its derivatives follow from those of H: with S' and S'' the sums with H' and
H'', :math:`(\log|S|)' = \mathrm{tr}\,S^{-1}S'` and :math:`(\log|S|)'' = \mathrm{tr}\,S^{-1}S'' -
\mathrm{tr}\,(S^{-1}S')^2`. The sums without g are one matrix product for all markers of a batch.

Source: Lippert et al. (2011), Nature Methods 8:833-835; Zhou & Stephens (2012), Genome-wide efficient
mixed-model analysis for association studies, Nature Genetics 44:821-824.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

__all__ = ["Rotated", "Scanned", "null_ratio", "scan_batch"]

_ITERATIONS = 60
_LONGEST = 2.0  # longest step in log s
_TOLERANCE = 1e-9  # of the predicted decrease of the criterion
_EDGE = 1e-7  # s times the mean of d: below it s is zero for all purposes
_FAR = 1e7


class Rotated(NamedTuple):
    """A model without markers, rotated: see `EigenSolver`.

    Attributes
    ----------
    d : ndarray, shape (n,)
    Q : ndarray, shape (n, p)
        Orthonormal columns.
    r : ndarray, shape (n,)
        Response, orthogonal to Q.
    reml : bool
    """

    d: np.ndarray
    Q: np.ndarray
    r: np.ndarray
    reml: bool


class Scanned(NamedTuple):
    """Estimates of a batch of markers; arrays of shape (B,).

    Attributes
    ----------
    ratio : ndarray
        s, variance of the random effects over the residual variance.
    criterion : ndarray
        f, up to constants common to all markers.
    beta, unscaled : ndarray
        Effect, and its variance over sigma^2.
    pwrss : ndarray
        r'Pr.
    converged : ndarray of bool
    """

    ratio: np.ndarray
    criterion: np.ndarray
    beta: np.ndarray
    unscaled: np.ndarray
    pwrss: np.ndarray
    converged: np.ndarray


class _Sums:
    """S(s) with its derivatives for the markers of a batch."""

    def __init__(self, model: Rotated, G: np.ndarray | None) -> None:
        self.model = model
        base = np.column_stack([model.Q, model.r])
        self.base, self.G = base, G
        k = base.shape[1]
        rows, columns = np.tril_indices(k)
        self.rows, self.columns = rows, columns
        self.products = base[:, rows] * base[:, columns]
        # order in S: Q, g, r
        self.place = np.r_[np.arange(k - 1), k if G is not None else k - 1]
        self.size = k + (G is not None)

    def at(self, s: np.ndarray, which: np.ndarray, orders: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """``[S, S', S''][:orders]``, each (B, k, k), and ``sum log(1 + s d)`` with its derivatives."""
        d = self.model.d[:, None]
        h = d * s
        h += 1.0
        logs = [np.log(h).sum(axis=0)]
        np.reciprocal(h, out=h)
        weights = [h]
        if orders > 1:
            k = d * h
            weights += [k * h]
            weights[1] *= -1.0
            logs += [k.sum(axis=0)]
            if orders > 2:
                weights += [-2.0 * k * weights[1]]
                logs += [-np.einsum("ij,ij->j", k, k)]
        out = []
        a, b = self.place[self.rows], self.place[self.columns]
        g = None if self.G is None else self.G[:, which]
        at_g = self.size - 2
        for weight in weights:
            S = np.empty((len(s), self.size, self.size))
            inner = weight.T @ self.products
            S[:, a, b] = inner
            S[:, b, a] = inner
            if g is not None:
                weight *= g
                cross = weight.T @ self.base
                S[:, at_g, self.place] = cross
                S[:, self.place, at_g] = cross
                S[:, at_g, at_g] = np.einsum("ij,ij->j", weight, g)
            out.append(S)
        return out, logs


def _logdet(S: np.ndarray, derivatives: list[np.ndarray]) -> tuple[np.ndarray, ...]:
    """log|S| of a batch and its first two derivatives."""
    L = np.linalg.cholesky(S)
    value = 2.0 * np.log(np.einsum("bii->bi", L)).sum(axis=1)
    if not derivatives:
        return (value,)
    inverse = np.linalg.inv(S)
    first = inverse @ derivatives[0]
    slope = np.einsum("bii->b", first)
    curvature = np.einsum("bij,bji->b", inverse, derivatives[1]) - np.einsum("bij,bji->b", first, first)
    return value, slope, curvature


def _criterion(
    sums: _Sums, s: np.ndarray, which: np.ndarray, derivatives: bool = True
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """f and its first two derivatives in log s."""
    model = sums.model
    n, inner = len(model.d), sums.size - 1
    matrices, logs = sums.at(s, which, 3 if derivatives else 1)
    whole = _logdet(matrices[0], matrices[1:])
    part = _logdet(matrices[0][:, :inner, :inner], [M[:, :inner, :inner] for M in matrices[1:]])
    nu = n - inner if model.reml else n
    on_part = (1.0 if model.reml else 0.0) - nu
    f = [log + nu * S + on_part * A for log, S, A in zip(logs, whole, part, strict=True)]
    if not derivatives:
        return f[0], np.zeros_like(s), np.zeros_like(s)
    return f[0], s * f[1], s * f[1] + s * s * f[2]


def _minimise(sums: _Sums, start: float, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """s, f and whether each search ended, for all markers of a batch."""
    scale = max(float(np.mean(sums.model.d)), 1e-300)
    low, high = np.log(_EDGE / scale), np.log(_FAR / scale)
    t = np.full(count, np.clip(np.log(max(start, 1e-300)), np.log(1e-3 / scale), np.log(1e3 / scale)))
    best_t, best_f = t.copy(), np.full(count, np.inf)
    done = np.zeros(count, dtype=bool)
    step = np.zeros(count)
    active = np.arange(count)
    for _ in range(_ITERATIONS):
        f, g, H = _criterion(sums, np.exp(t[active]), active)
        worse = f > best_f[active] + 1e-10 * np.abs(f)
        better = ~worse
        chosen = active[better]
        best_t[chosen], best_f[chosen] = t[chosen], np.minimum(f[better], best_f[chosen])
        curvature = np.maximum(np.abs(H), 1e-3 * np.abs(g))
        with np.errstate(divide="ignore", invalid="ignore"):
            newton = np.where(curvature > 0.0, -g / curvature, 0.0)
        newton = np.clip(newton, -_LONGEST, _LONGEST)
        at_edge = ((t[active] <= low) & (g > 0.0)) | ((t[active] >= high) & (g < 0.0))
        settled = better & ((np.abs(newton * g) < _TOLERANCE) | at_edge)
        step[active] = np.where(worse, 0.25 * step[active], newton)
        done[active[settled]] = True
        # the last step lowers the criterion by less than can be seen, and is exact to second order
        last = settled & ~at_edge & (np.abs(newton) < 0.01)
        best_t[active[last]] = np.clip(best_t[active[last]] + newton[last], low, high)
        stuck = worse & (np.abs(step[active]) < 1e-9)
        done[active[stuck]] = True
        moving = active[~(settled | stuck)]
        if not moving.size:
            break
        t[moving] = np.clip(best_t[moving] + step[moving], low, high)
        active = moving
    s = np.exp(best_t)
    zero = best_t <= low + 1e-12
    # the criterion at exactly zero, and where the search ended close to it
    near = np.flatnonzero(s * scale < 1e-2)
    if near.size:
        f0 = _criterion(sums, np.zeros(near.size), near, False)[0]
        lower = f0 <= best_f[near]
        best_f[near] = np.minimum(f0, best_f[near])
        s[near[lower]] = 0.0
    s[zero & (s > 0.0)] = 0.0
    return s, best_f, done


def null_ratio(model: Rotated, start: float) -> tuple[float, float]:
    """s and f of the model without markers, to compare those of markers with.

    Parameters
    ----------
    model : Rotated
    start : float
        A first value of s.
    """
    s, f, _ = _minimise(_Sums(model, None), start, 1)
    return float(s[0]), float(f[0])


def scan_batch(model: Rotated, G: np.ndarray, start: float) -> Scanned:
    """Estimates for markers one by one, each with a variance ratio of its own.

    Parameters
    ----------
    model : Rotated
    G : ndarray, shape (n, B)
        Rotated markers, orthogonal to Q and of length 1 (effects are for these).
    start : float
        A first value of s.
    """
    sums = _Sums(model, G)
    count = G.shape[1]
    s, f, done = _minimise(sums, start, count)
    (S,), _ = sums.at(s, np.arange(count), 1)
    inner = sums.size - 1
    inverse = np.linalg.inv(S[:, :inner, :inner])
    coefficients = np.einsum("bij,bj->bi", inverse, S[:, :inner, inner])
    pwrss = S[:, inner, inner] - np.einsum("bi,bi->b", coefficients, S[:, :inner, inner])
    return Scanned(s, f, coefficients[:, inner - 1], inverse[:, inner - 1, inner - 1], pwrss, done)
