"""Conformance check of residual structures: every operation against the dense matrix R."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from mixedmodels.testing.checks import assert_close

if TYPE_CHECKING:
    from mixedmodels.residual.base import BoundResidual

__all__ = ["check_residual", "dense_residual"]

_EIGHTH = ((1, 4.0 / 5.0), (2, -1.0 / 5.0), (3, 4.0 / 105.0), (4, -1.0 / 280.0))


def dense_residual(bound: BoundResidual, phi: np.ndarray) -> np.ndarray:
    """R as a dense matrix (n, n), from `BoundResidual.block` alone."""
    R = np.zeros((bound.n, bound.n))
    codes = np.arange(bound.n) if bound.codes is None else bound.codes
    for group in np.unique(codes).tolist():
        (rows,) = np.nonzero(codes == group)
        R[np.ix_(rows, rows)] = bound.block(phi, group)
    return R


def check_residual(
    bound: BoundResidual,
    phi: np.ndarray | None = None,
    *,
    seed: int = 0,
    tol: float = 1e-8,
    step: float = 1e-2,
) -> None:
    """Check a bound structure: whitening, adjoints, derivatives, traces, natural values, sparse forms.

    Derivatives are compared with differences of eighth order of the dense R.

    Parameters
    ----------
    bound : BoundResidual
    phi : ndarray, shape (n_phi,), optional
        Random near the start by default.
    seed : int
    tol : float
        Allowed difference of derivatives, relative to the largest entry.
    step : float
        Of the differences.

    Raises
    ------
    AssertionError
        A law does not hold; the message says which.
    """
    rng = np.random.default_rng(seed)
    n, k = bound.n, bound.n_phi
    for array in (bound.start, bound.lower, bound.upper):
        assert array.shape == (k,), "start, lower and upper must have shape (n_phi,)"
    assert len(bound.names) == len(set(bound.names)) == k, f"names are not distinct: {bound.names}"
    if phi is None:
        phi = bound.start + rng.uniform(-0.5, 0.5, k)
    phi = np.asarray(phi, dtype=np.float64)
    kept = phi.copy()
    point = bound.at(phi)
    R = dense_residual(bound, phi)
    I = np.eye(n)
    W = point.whiten(I)
    exact = 1e-9
    assert_close(np.linalg.inv(R), W.T @ W, exact, "W'W is not the inverse of R")
    assert_close(W @ R @ W.T, I, exact, "W R W' is not the identity", exact)
    assert_close(point.unwhiten(W), I, exact, "unwhiten does not undo whiten", exact)
    assert_close(point.whiten_adjoint(I), W.T, exact, "whiten_adjoint")
    assert_close(
        point.unwhiten_adjoint(W.T), I, exact, "unwhiten_adjoint does not undo whiten_adjoint", exact
    )
    determinant, logdet = np.linalg.slogdet(R)
    assert determinant > 0
    assert_close(point.logdet, logdet, exact, "logdet", exact * n)
    assert_close(point.variances, np.diagonal(R), exact, "variances")
    M = np.asfortranarray(rng.normal(size=(n, 3)))
    copy = M.copy()
    assert_close(point.whiten(M), W @ M, exact, "whiten of another array")
    assert_close(point.whiten_adjoint(M), W.T @ M, exact, "whiten_adjoint of another array")

    def points(i: int) -> list[tuple[np.ndarray, float]]:
        """Points and weights of a difference along coordinate i."""
        out = []
        for multiple, weight in _EIGHTH:
            for sign in (1.0, -1.0):
                moved = kept.copy()
                moved[i] += sign * multiple * step
                out.append((moved, sign * weight / step))
        return out

    def along(i: int, function: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        return np.asarray(sum(weight * function(moved) for moved, weight in points(i)))

    D = []
    for j in range(k):
        expected = W @ along(j, lambda p: dense_residual(bound, p)) @ W.T
        D.append(point.change(j, I))
        assert_close(D[j], expected, tol, f"change {j} ({bound.names[j]})", tol)
        assert_close(D[j], D[j].T, exact, f"change {j} is not symmetric", exact)
        assert_close(point.change(j, M), D[j] @ M, exact, f"change {j} of another array", exact)
        assert_close(point.trace[j], np.trace(D[j]), exact, f"trace {j}", exact * n)
    products, seconds = point.trace_products, point.trace_seconds
    assert products.shape == seconds.shape == (k, k)
    for i in range(k):
        # d(dR_j)/dphi_i by differences of dR_j = W^{-1} D_j W^{-T}
        expected_seconds = [np.zeros((n, n)) for _ in range(k)]
        for moved, weight in points(i):
            at = bound.at(moved)
            root = at.unwhiten(I)
            for j in range(i, k):
                expected_seconds[j] += weight * (root @ at.change(j, root.T))
        for j in range(k):
            assert_close(products[i, j], np.sum(D[i] * D[j]), exact, f"trace_products[{i}, {j}]", exact * n)
            if j < i:
                assert_close(seconds[i, j], seconds[j, i], exact, "trace_seconds is not symmetric", exact)
                continue
            actual = point.second_change(i, j, I)
            where = f"second_change({i}, {j}) ({bound.names[i]}, {bound.names[j]})"
            assert_close(actual, W @ expected_seconds[j] @ W.T, tol, where, tol)
            assert_close(point.second_change(j, i, M), actual @ M, exact, f"{where} of another array", exact)
            assert_close(seconds[i, j], np.trace(actual), exact, f"trace_seconds[{i}, {j}]", exact * n)
    forms, second_forms = getattr(point, "forms", None), getattr(point, "second_forms", None)
    if forms is not None and second_forms is not None and k:
        wanted = np.array([float(np.vdot(M, one @ M)) for one in D])
        assert_close(forms(M), wanted, exact, "forms", exact * n)
        wanted = np.array(
            [[float(np.vdot(M, point.second_change(i, j, M))) for j in range(k)] for i in range(k)]
        )
        assert_close(second_forms(M), wanted, exact, "second_forms", exact * n)
    natural = bound.natural(phi)
    assert natural.jacobian.shape == (natural.values.shape[0], k)
    assert len(natural.names) == len(set(natural.names)) == natural.values.shape[0] == len(natural.kinds)
    for j in range(k):
        expected = along(j, lambda p: bound.natural(p).values)
        assert_close(natural.jacobian[:, j], expected, tol, f"natural jacobian {j}", tol)
    shares = np.asarray(rng.normal(size=natural.values.shape[0]))
    curvature = bound.natural_curvature(phi, shares)
    assert curvature.shape == (k, k)
    for j in range(k):
        expected = along(j, lambda p: shares @ bound.natural(p).jacobian)
        assert_close(curvature[j], expected, tol, f"natural curvature {j}", tol)
    free = dict(zip(natural.names, natural.values.tolist(), strict=True))
    assert_close(bound.phi_of(free), phi, 1e-7, "phi_of(natural values) is not phi", 1e-9)
    sparse, changes = point.whitening()
    assert_close(sparse.toarray(), W, exact, "sparse whitening")
    for j in range(k):
        dW = changes[j].toarray()
        expected = -W.T @ D[j] @ W
        assert_close(dW.T @ W + W.T @ dW, expected, exact, f"sparse change of the whitening {j}", exact)
    assert isinstance(bound.describe(), str) and bound.describe()
    assert np.array_equal(phi, kept), "phi was changed"
    assert np.array_equal(M, copy), "the array was changed"
