"""Rows whitened by a known residual covariance within groups."""

from __future__ import annotations

from typing import Any

import numpy as np

from mixedmodels.errors import DataError

__all__ = ["whiten_known"]


def whiten_known(V: Any, occasions: Any, groups: Any, *arrays: Any) -> tuple[list[np.ndarray], float]:
    r"""Transform rows so that a known covariance within groups becomes the identity.

    The residuals of group i have covariance :math:`\sigma^2 V_i`, with V_i the rows and columns of V at the
    group's occasions. With :math:`V_i = L_iL_i'` the rows of each array become :math:`L_i^{-1}` times them,
    and an ordinary model of the results is the model with V_i.

    Parameters
    ----------
    V : array, shape (T, T)
        Positive definite.
    occasions : array of int, shape (n,)
        Labels 1 .. T of the rows, different within a group.
    groups : array, shape (n,)
        Group of each row, in any order.
    *arrays : arrays, shape (n,) or (n, columns)
        Response, fixed-effects columns, columns of the random effects.

    Returns
    -------
    arrays : list of ndarray
        In the order of the rows given.
    logdet : float
        Sum over groups of log|V_i|: half of it is to be subtracted from the log-likelihood.

    Raises
    ------
    DataError
        V is not symmetric and positive definite, an occasion is not one of 1 .. T or comes twice in a group.

    Notes
    -----
    `vmax` and `occ` of R's lmm (Schafer 1998). Groups with the same occasions share one factor.

    Examples
    --------
    >>> V = np.array([[1.0, 0.5], [0.5, 1.0]])
    >>> (y,), logdet = whiten_known(V, [1, 2, 1], ["a", "a", "b"], [1.0, 0.5, 2.0])
    >>> y.tolist(), round(logdet, 4)
    ([1.0, 0.0, 2.0], -0.2877)
    """
    V = np.array(V, dtype=float)
    if V.ndim != 2 or V.shape[0] != V.shape[1] or not np.allclose(V, V.T, rtol=1e-10, atol=0.0):
        raise DataError(f"V must be a symmetric matrix, got shape {V.shape}")
    labels = np.asarray(occasions)
    with np.errstate(invalid="ignore"):
        codes = labels.astype(float) if labels.dtype.kind in "iufb" else np.full(labels.shape, np.nan)
    T = V.shape[0]
    if not ((codes >= 1) & (codes <= T) & (codes == np.floor(codes))).all():
        raise DataError(f"occasions must be whole numbers from 1 to {T}, the size of V")
    codes = codes.astype(int) - 1
    _, group = np.unique(np.asarray(groups), return_inverse=True)
    if group.shape != codes.shape:
        raise DataError(f"occasions has {codes.size} values and groups {group.size}; they need the same")
    m = int(group.max()) + 1 if group.size else 0
    present = np.zeros((m, T), dtype=int)
    np.add.at(present, (group, codes), 1)
    if (present > 1).any():
        raise DataError("an occasion comes twice in a group; give each row of a group an occasion of its own")
    out = [np.array(array, dtype=float) for array in arrays]
    for array in out:
        if array.shape[:1] != codes.shape:
            raise DataError(f"an array has {array.shape[0]} rows; occasions has {codes.size}")
    patterns, which = np.unique(present, axis=0, return_inverse=True)
    order = np.lexsort((codes, group))
    starts = np.concatenate([[0], np.cumsum(present.sum(axis=1))])
    logdet = 0.0
    for number, pattern in enumerate(patterns):
        at = np.flatnonzero(pattern)
        members = np.flatnonzero(which.reshape(-1) == number)
        try:
            L = np.linalg.cholesky(V[np.ix_(at, at)])
        except np.linalg.LinAlgError:
            raise DataError("V is not positive definite; give a covariance matrix of full rank") from None
        logdet += 2.0 * len(members) * float(np.log(np.diagonal(L)).sum())
        rows = order[starts[members][:, None] + np.arange(len(at))[None, :]]
        for array in out:
            block = array[rows].reshape(len(members), len(at), -1)
            solved = np.linalg.solve(L, np.moveaxis(block, 1, 0).reshape(len(at), -1))
            array[rows] = np.moveaxis(solved.reshape(len(at), len(members), -1), 0, 1).reshape(
                array[rows].shape
            )
    return out, logdet
