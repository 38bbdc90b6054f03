r"""Starting values from moments, straight from a design (compiled solvers have the sums at hand)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mixedmodels.solver.moments import LARGEST, SMALLEST, column_sd, conditional_sd, scalar_components

if TYPE_CHECKING:
    from mixedmodels.design import Design, RandomTerm

__all__ = ["crossed_moments", "moment_start", "ols_residual"]


def ols_residual(y: np.ndarray, X: np.ndarray, offset: np.ndarray | None, w: np.ndarray) -> np.ndarray:
    """Residuals of weighted least squares, shape (n,), to the precision a start needs (normal equations)."""
    r = y if offset is None else y - offset
    if X.shape[1]:
        XW = X * w[:, None]
        gram = XW.T @ X
        length = np.sqrt(np.diagonal(gram))
        length = np.where(length > 0.0, length, 1.0)
        gram = gram / length / length[:, None] + 1e-12 * np.eye(X.shape[1])
        for _ in range(2):  # the second pass repairs what the normal equations lost
            r = r - X @ (np.linalg.solve(gram, (XW.T @ r) / length) / length)
    return r


def crossed_moments(
    codes: list[np.ndarray], sizes: list[int], r: np.ndarray, w: np.ndarray
) -> np.ndarray | None:
    """Variance components of scalar terms and of the error; see `scalar_components`.

    Parameters
    ----------
    codes : list of ndarray of int, shape (n,)
    sizes : list of int
        Levels of each term.
    r, w : ndarray, shape (n,)
        Residuals and weights.
    """
    B = len(codes)
    weights = [np.bincount(c, w, m) for c, m in zip(codes, sizes, strict=True)]
    sums = [np.bincount(c, w * r, m) for c, m in zip(codes, sizes, strict=True)]
    shares = [[0.0] * B for _ in range(B)]
    for b in range(B):
        for c in range(B):
            if c != b:
                shares[b][c] = _cell_share(codes[b], sizes[b], codes[c], sizes[c], w, weights[b])
    terms = [(m, float(np.sum(S**2 / W)), float(W @ W)) for m, S, W in zip(sizes, sums, weights, strict=True)]
    found = scalar_components(r.shape[0], float(w @ r**2), float(w @ r), float(w.sum()), terms, shares)
    return None if found is None else np.array(found)


def _cell_share(
    a: np.ndarray, m_a: int, b: np.ndarray, m_b: int, w: np.ndarray, weight_a: np.ndarray
) -> float:
    """Sum over cells of ``W_cell^2 / W_level of a``; of many possible cells only those that occur count."""
    cell = a.astype(np.int64) * m_b + b
    if m_a * m_b <= 4 * a.shape[0] + 1024:
        weight = np.bincount(cell, w, m_a * m_b).reshape(m_a, m_b)
        return float(np.sum((weight**2).sum(axis=1) / weight_a))
    cells, index = np.unique(cell, return_inverse=True)
    weight = np.bincount(index, w, cells.shape[0])
    return float(np.sum(weight**2 / weight_a[cells // m_b]))


def moment_start(
    design: Design, sigma: float | None = None, residual: np.ndarray | None = None
) -> list[np.ndarray]:
    """Starting relative factors, one (k, k) lower-triangular matrix per term, inside each structure.

    Parameters
    ----------
    design : Design
    sigma : float or None
        Residual standard deviation held fixed, if any.
    residual : ndarray, shape (n,), optional
        Residuals of weighted least squares, where they are known.

    Returns
    -------
    list of ndarray
    """
    n, p = design.n, design.p
    w = np.ones(n) if design.weights is None else design.weights
    r = ols_residual(design.y, design.X, design.offset, w) if residual is None else residual
    terms = design.terms
    rss = float(w @ r**2)
    scalar = all(term.Z is None and term.precision is None and not term.several_levels for term in terms)
    ratios = None
    if scalar and len(terms) > 1 and rss > 0.0:
        components = crossed_moments([t.codes for t in terms], [t.m for t in terms], r, w)
        if components is not None and components[-1] > 0.0:
            error = components[-1] if sigma is None else sigma**2
            ratios = np.maximum(components[:-1] / error, 0.0)
    factors = []
    for b, term in enumerate(terms):
        T, sd = _columnwise(term, r, w, rss, n - p, sigma)
        if ratios is not None:
            base = 1.5 / np.sqrt(max(float(w.sum()) / term.m, 1e-300))
            sd = np.array([np.clip(np.sqrt(ratios[b]), SMALLEST * base, LARGEST * base)])
            T = np.eye(1)
        factors.append(_inside(term, T, sd))
    return factors


def _columnwise(
    term: RandomTerm, r: np.ndarray, w: np.ndarray, rss: float, df: int, sigma: float | None
) -> tuple[np.ndarray, np.ndarray]:
    """Transform T and the relative standard deviation of each transformed column (`column_sd`)."""
    m, k, codes = term.m, term.k, term.codes
    n = r.shape[0]
    if term.several_levels:  # as if the levels of a row were independent parts of it
        whole = term.matrix(n)
        parts = [whole[:, j::k] for j in range(k)]
        c = np.column_stack([part.T @ (w * r) for part in parts])
        squares = [[(a * b).T @ w for b in parts] for a in parts]
        return np.eye(k), column_sd(np.moveaxis(np.array(squares), 2, 0), c, rss, df, sigma)[0]
    if term.Z is None and term.precision is None:  # a plain intercept
        sums, weights = np.bincount(codes, w * r, m), np.bincount(codes, w, m)
        return np.eye(1), column_sd(weights[:, None, None], sums[:, None], rss, df, sigma)[0]
    if term.Z is None:
        T, columns = np.eye(1), [np.ones(n)]
    else:
        T = term.covariance.transform((term.Z * w[:, None]).T @ term.Z / n, None)
        columns = list((term.Z @ T).T)
    A, c = np.empty((m, k, k)), np.empty((m, k))
    for j in range(k):
        c[:, j] = np.bincount(codes, w * columns[j] * r, m)
        for i in range(j + 1):
            A[:, i, j] = A[:, j, i] = np.bincount(codes, w * columns[i] * columns[j], m)
    sd = conditional_sd(term.precision, A, c, sigma)
    if sd is not None:
        return T, sd
    return T, column_sd(A, c, rss, df, sigma)[0]


def _inside(term: RandomTerm, T: np.ndarray, sd: np.ndarray) -> np.ndarray:
    """``T diag(sd)`` brought into the structure: one common value where the structure has only one."""
    if term.covariance.clip == "trace":
        sd = np.full(sd.shape, np.sqrt(np.mean(sd**2)))
    factor = T * sd
    return term.covariance.factor(term.covariance.theta_of(factor))
