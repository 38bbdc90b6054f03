r"""Structured residuals with at most one grouping factor: everything level by level, in whitened rows.

With ``W R W' = I`` and whitened rows :math:`\tilde y, \tilde X, \tilde Z` the covariance is
:math:`V = I + \tilde Z\Sigma\tilde Z'`, block diagonal over the levels. Both kinds of parameters act through
symmetric operators that stay inside a level, :math:`V_i = \tilde Z\dot\Sigma_i\tilde Z'` for random
effects and :math:`V_j = D_j` for residuals. With

.. math::
    N_l = \Lambda(\Lambda'A_l\Lambda + I)^{-1}\Lambda', \quad A_l = \tilde Z_l'\tilde Z_l, \qquad
    V^{-1} = I - \tilde Z N \tilde Z', \qquad P = V^{-1} - hh',\; h = V^{-1}\tilde X R_X^{-1},

the traces are sums over rows and levels,

.. math::
    \mathrm{tr}(P D_j) &= \mathrm{tr} D_j - \mathrm{tr}(N\tilde Z'D_j\tilde Z) - \mathrm{tr}(h'D_jh), \\
    \mathrm{tr}(V^{-1}D_iV^{-1}D_j) &= \mathrm{tr}(D_iD_j) - 2\,\mathrm{tr}(N\tilde Z'D_iD_j\tilde Z)
        + \textstyle\sum_l \mathrm{tr}(N_l B_{il} N_l B_{jl}), \quad B_{il} = \tilde Z_l'D_i\tilde Z_l,

and no matrix has more than n rows and a few columns. Differences of large numbers are avoided by writing
inverse forms as sums of squares, as `mixedmodels.solver.dense` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.solver.base import Breakdown, Directions, FixedProducts, Solution
from mixedmodels.solver.dense import FixedPart, fixed_part
from mixedmodels.solver.levels import Levels

if TYPE_CHECKING:
    from mixedmodels.design import Design
    from mixedmodels.residual.base import ResidualPoint

__all__ = [
    "WhitenedLevels",
    "WhitenedPoint",
    "is_within_levels",
    "one_factor",
    "products_of_images",
    "second_products",
]


def one_factor(design: Design) -> bool:
    """Whether all terms are on one grouping factor (or there are none), without known precision."""
    terms = design.terms
    if not terms:
        return True
    first = terms[0]
    return all(
        term.precision is None
        and term.codes.ndim == 1
        and (term.codes is first.codes or (term.m == first.m and np.array_equal(term.codes, first.codes)))
        for term in terms
    )


def is_within_levels(groups: np.ndarray | None, n_groups: int, codes: np.ndarray) -> bool:
    """Whether each group of the residuals lies within one level of a grouping factor.

    Parameters
    ----------
    groups : ndarray of int, shape (n,), or None
        Group of each row; None where all rows are independent.
    n_groups : int
    codes : ndarray of int, shape (n,)
    """
    if groups is None:
        return True
    level = np.full(n_groups, -1, dtype=np.intp)
    level[groups] = codes
    return bool(np.array_equal(level[groups], codes))


class WhitenedLevels:
    """What does not depend on the parameters: rows by level, X orthonormal, its least-squares fit off y.

    Parameters
    ----------
    design : Design
        With ``residual``; terms on one grouping factor that holds the groups of the residuals, or none.
    fixed : FixedPart, optional
        Of the design, if it is known.
    """

    name = "levels"

    def __init__(self, design: Design, fixed: FixedPart | None = None) -> None:
        self.design = design
        self.n, self.p = design.n, design.p
        if fixed is None:
            fixed = fixed_part(design.y, design.X, design.x_names, design.offset, None)
        self.fixed = fixed
        self.ks = [term.k for term in design.terms]
        self.k = sum(self.ks)
        edges = np.cumsum([0, *self.ks]).tolist()
        self.slices = [slice(a, b) for a, b in pairwise(edges)]
        self.levels: Levels | None = None
        columns = [self.fixed.Q, self.fixed.r[:, None]]
        if self.k:
            first = design.terms[0]
            self.levels = Levels(first.codes, first.m)
            columns += [np.ones((self.n, 1)) if t.Z is None else t.Z for t in design.terms]
        self.columns = np.hstack(columns)

    def describe(self) -> str:
        """One line: which algorithm, on which sizes."""
        if self.levels is None:
            return f"generalised least squares: {self.n} whitened rows"
        return f"whitened rows by level: {self.levels.m} levels x {self.k} columns, {self.n} rows"

    def at(self, factors: Sequence[np.ndarray], point: ResidualPoint, n_phi: int) -> WhitenedPoint:
        """The state at given factors and residual matrix."""
        return WhitenedPoint(self, factors, point, n_phi)


class WhitenedPoint:
    """All that the criterion and its derivatives are made of at one parameter value, computed when asked for.

    Parameters
    ----------
    rows : WhitenedLevels
    factors : sequence of ndarray, one (k, k) per term
    point : ResidualPoint
    n_phi : int

    Attributes
    ----------
    logdet_V : float
        ``log|R + Z Sigma Z'|``.
    logdet_RX2 : float
        ``log|X'V^{-1}X|``.
    pwrss : float
        ``y'Py``.
    residual : ndarray, shape (n,)
        ``P y`` in whitened rows.
    factors : list of ndarray
    """

    exact_is_cheap = True

    def __init__(
        self, rows: WhitenedLevels, factors: Sequence[np.ndarray], point: ResidualPoint, n_phi: int
    ) -> None:
        self._rows, self._residual_point, self._n_phi = rows, point, n_phi
        p, levels = rows.p, rows.levels
        white = point.whiten(rows.columns)
        Xy, self._Z = white[:, : p + 1], white[:, p + 1 :]
        self.factors = [np.asarray(factor, dtype=np.float64) for factor in factors]
        self.logdet_V = float(point.logdet)
        if levels is not None:
            self._B = levels.cross(self._Z, Xy)
            self._eliminate(levels)
            t = self._half.transpose(0, 2, 1) @ self._B
            VXy = Xy - levels.rows(self._Z, self._half @ t)
            U = self._root_inverse.transpose(0, 2, 1) @ t  # u-hat of the columns of [X y]
            flat = U.reshape(-1, p + 1)
            S = VXy.T @ VXy + flat.T @ flat
        else:
            VXy, S = Xy, Xy.T @ Xy
        self._RX: np.ndarray = np.zeros((0, 0))
        self._gamma: np.ndarray = np.zeros(0)
        if p:
            try:
                self._RX = np.linalg.cholesky(S[:p, :p])
            except np.linalg.LinAlgError:
                raise Breakdown("X'V^{-1}X is not positive definite; check the values of theta") from None
            self._gamma = np.linalg.solve(self._RX.T, np.linalg.solve(self._RX, S[:p, p]))
        self.logdet_RX2 = 2.0 * float(np.log(np.diagonal(self._RX)).sum()) + rows.fixed.logdet_R2
        self._VX = VXy[:, :p]
        self.residual = VXy[:, p] - self._VX @ self._gamma
        self.pwrss = float(self.residual @ self.residual)
        if levels is not None:
            self._u = U[:, :, p] - U[:, :, :p] @ self._gamma
            self.pwrss += float(np.vdot(self._u, self._u))
        if not np.isfinite(self.pwrss + self.logdet_V + self.logdet_RX2):
            raise Breakdown("the criterion is not finite; check the values of the covariance parameters")

    def _eliminate(self, levels: Levels) -> None:
        """A, the Cholesky factors of M, and ``half`` with ``N = half half'``, of every level."""
        k = self._rows.k
        L = np.zeros((k, k))
        for at, factor in zip(self._rows.slices, self.factors, strict=True):
            L[at, at] = factor
        if not np.all(np.isfinite(L)):
            raise Breakdown("a relative covariance factor is not finite; check the values of theta")
        self._A = levels.cross(self._Z, self._Z)
        M = L.T @ self._A @ L
        diagonal = np.arange(k)
        M[:, diagonal, diagonal] += 1.0
        try:
            root = np.linalg.cholesky(M)
        except np.linalg.LinAlgError:
            raise Breakdown(
                "the penalised cross-product matrix is not positive definite; check the values of theta"
            ) from None
        self.logdet_V += 2.0 * float(np.log(root[:, diagonal, diagonal]).sum())
        self._root_inverse = np.linalg.inv(root)
        self._half = L @ self._root_inverse.transpose(0, 2, 1)

    # ------------------------------------------------------------------ pieces
    @cached_property
    def _h(self) -> np.ndarray:
        """h with ``P = V^{-1} - h h'``, shape (n, p)."""
        return np.linalg.solve(self._RX, self._VX.T).T if self._rows.p else self._VX

    @cached_property
    def _E(self) -> np.ndarray:
        """``I - N A`` of every level: ``V^{-1}Z = Z E``."""
        return np.eye(self._rows.k) - self._half @ (self._half.transpose(0, 2, 1) @ self._A)

    @cached_property
    def _K(self) -> np.ndarray:
        """``Z'V^{-1}Z`` of every level, shape (m, k, k), as a sum of squares."""
        J = self._root_inverse.transpose(0, 2, 1) @ (self._half.transpose(0, 2, 1) @ self._A)
        E = self._E
        return E.transpose(0, 2, 1) @ self._A @ E + J.transpose(0, 2, 1) @ J

    @cached_property
    def _ZPy(self) -> np.ndarray:
        """``Z'Py`` of every level, shape (m, k)."""
        p = self._rows.p
        b = self._B[:, :, p] - self._B[:, :, :p] @ self._gamma
        return (b[:, None, :] @ self._E)[:, 0]

    @cached_property
    def _Zh(self) -> np.ndarray:
        """``Z'h`` of every level, shape (m, k, p)."""
        p = self._rows.p
        if not p:
            return np.zeros((self._A.shape[0], self._rows.k, 0))
        H = self._E.transpose(0, 2, 1) @ self._B[:, :, :p]
        return np.linalg.solve(self._RX, H.reshape(-1, p).T).T.reshape(H.shape)

    def _inverse_times(self, M: np.ndarray) -> np.ndarray:
        """``V^{-1}M`` for whitened rows, (n, c)."""
        levels = self._rows.levels
        if levels is None:
            return M
        t = self._half.transpose(0, 2, 1) @ levels.cross(self._Z, M)
        return M - levels.rows(self._Z, self._half @ t)

    def _wide(self, directions: Directions) -> np.ndarray:
        """Directions of the terms as one (r, k, k) array over all columns of a level."""
        out = np.zeros((len(directions), self._rows.k, self._rows.k))
        for i, direction in enumerate(directions):
            for at, dS in zip(self._rows.slices, direction, strict=True):
                if dS is not None:
                    out[i, at, at] = dS
        return out

    @cached_property
    def _changes(self) -> list[np.ndarray]:
        """``D_j[Z, h]`` for each j, (n, k + p)."""
        stack = np.hstack([self._Z, self._h])
        return [self._residual_point.change(j, stack) for j in range(self._n_phi)]

    @cached_property
    def _moved(self) -> np.ndarray:
        """``D_j P y``, shape (n_phi, n)."""
        e = np.ascontiguousarray(self.residual[:, None])
        images = [self._residual_point.change(j, e)[:, 0] for j in range(self._n_phi)]
        return np.array(images).reshape(self._n_phi, self._rows.n)

    def _taken(self, reml: bool) -> np.ndarray:
        """G with ``Q = I - G G'``: ``Z half``, and h under REML; shape (n, k) or (n, k + p)."""
        levels = self._rows.levels
        parts = [] if levels is None else [levels.rows(self._Z, self._half)]
        if reml:
            parts.append(self._h)
        if not parts:
            return np.zeros((self._rows.n, 0))
        return np.hstack(parts) if len(parts) > 1 else np.ascontiguousarray(parts[0])

    # ------------------------------------------------------------------ first derivatives
    def term_parts(self, reml: bool) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """T_b and S_b of every term, as in `Components`."""
        if self._rows.levels is None:
            return [], []
        T = self._K.sum(axis=0)
        if reml:
            H = self._Zh.transpose(1, 0, 2).reshape(self._rows.k, -1)
            T = T - H @ H.T
        S = self._ZPy.T @ self._ZPy
        return [T[at, at] for at in self._rows.slices], [S[at, at] for at in self._rows.slices]

    def residual_parts(self, reml: bool) -> tuple[np.ndarray, np.ndarray]:
        """``tr(Q D_j)``, Q = P or V^{-1}, and ``y'P D_j P y``, both of shape (n_phi,)."""
        traces = np.array(self._residual_point.trace, dtype=float)
        return traces - _forms(
            self._residual_point, self._n_phi, self._taken(reml)
        ), self._moved @ self.residual

    # ------------------------------------------------------------------ information
    def products(self, directions: Directions) -> np.ndarray:
        """``y'P V_a P V_b P y`` for the directions, then the residual parameters: shape (r, r)."""
        W = self._moved.T
        levels = self._rows.levels
        if levels is not None and len(directions):
            v = np.einsum("mk,rkj->mjr", self._ZPy, self._wide(directions))
            W = np.hstack([levels.rows(self._Z, v), W])
        hW = self._h.T @ W
        if levels is None:
            return W.T @ W - hW.T @ hW
        t = self._half.transpose(0, 2, 1) @ levels.cross(self._Z, W)
        VW = W - levels.rows(self._Z, self._half @ t)
        u = (self._root_inverse.transpose(0, 2, 1) @ t).reshape(-1, W.shape[1])
        return VW.T @ VW + u.T @ u - hW.T @ hW

    def trace_products(self, directions: Directions, reml: bool) -> np.ndarray:
        """``tr(Q V_a Q V_b)`` for the directions, then the residual parameters: shape (r, r)."""
        rows, levels, point = self._rows, self._rows.levels, self._residual_point
        k, n_theta, n_phi = rows.k, len(directions), self._n_phi
        out = np.zeros((n_theta + n_phi,) * 2)
        images = self._changes
        if n_phi:
            out[n_theta:, n_theta:] = point.trace_products
        if levels is not None:
            dS = self._wide(directions)
            KdS = self._K[:, None] @ dS  # (m, r, k, k)
            flat = KdS.transpose(1, 0, 2, 3).reshape(n_theta, -1)
            mirror = KdS.transpose(1, 0, 3, 2).reshape(n_theta, -1)
            out[:n_theta, :n_theta] = flat @ mirror.T
            VZ = levels.rows(self._Z, self._E)
            N = self._half @ self._half.transpose(0, 2, 1)
            NB = [N @ levels.cross(self._Z, image[:, :k]) for image in images]
            NDZ = [levels.rows(image[:, :k], N) for image in images]
            for j in range(n_phi):
                J = VZ.T @ point.change(j, VZ)
                out[n_theta + j, :n_theta] = out[:n_theta, n_theta + j] = np.einsum("rab,ab->r", dS, J)
                for i in range(j + 1):
                    value = float(np.einsum("mab,mba->", NB[i], NB[j]))
                    value -= 2.0 * float(np.vdot(NDZ[i], images[j][:, :k]))
                    out[n_theta + i, n_theta + j] += value
                    if i != j:
                        out[n_theta + j, n_theta + i] += value
        if reml and rows.p:
            Vh = self._images_of_h(directions)
            if not Vh:
                return out
            E = np.array([self._h.T @ image for image in Vh])
            flat = np.array([image.ravel() for image in Vh])
            inverse = flat
            if levels is not None:
                inverse = np.array([self._inverse_times(image).ravel() for image in Vh])
            both = flat @ inverse.T
            out += E.reshape(len(Vh), -1) @ E.transpose(0, 2, 1).reshape(len(Vh), -1).T - both - both.T
        return out

    def _images_of_h(self, directions: Directions) -> list[np.ndarray]:
        """``V_a h`` for the directions, then the residual parameters, each of shape (n, p)."""
        out = []
        if self._rows.levels is not None:
            out = [self._rows.levels.rows(self._Z, dS @ self._Zh) for dS in self._wide(directions)]
        return out + [image[:, self._rows.k :] for image in self._changes]

    def residual_seconds(self, reml: bool) -> tuple[np.ndarray, np.ndarray]:
        """``tr(Q D_ij)`` and ``y'P D_ij P y``, both of shape (n_phi, n_phi)."""
        point, n_phi = self._residual_point, self._n_phi
        traces = np.array(point.trace_seconds, dtype=float)
        e = np.ascontiguousarray(self.residual[:, None])
        return traces - _second_forms(point, n_phi, self._taken(reml)), _second_forms(point, n_phi, e)

    # ------------------------------------------------------------------ estimates
    def fixed_products(
        self, directions: Directions, second: bool = True, orthonormal: bool = False
    ) -> FixedProducts:
        """``X'V^{-1}X`` and its changes with all parameters; see `FixedProducts`."""
        images = self._images_of_h(directions)
        inverse = [self._inverse_times(image) for image in images] if second else None
        return products_of_images(self._h, images, inverse, self._RX, self._rows.fixed.R, orthonormal)

    def fixed_seconds(self) -> tuple[np.ndarray, np.ndarray]:
        """``X'V^{-1}RV^{-1}X``, (p, p), and ``X'V^{-1}R_ijV^{-1}X``, (n_phi, n_phi, p, p).

        In the orthonormal columns of `fixed_products`.
        """
        root, h = self._RX.T, self._h
        seconds = second_products(self._residual_point, self._n_phi, h)
        return root.T @ (h.T @ h) @ root, root.T @ seconds @ root

    def solution(self) -> Solution:
        """Estimates of beta and predictions of the random effects; `logdet_L2` is ``log|R + Z Sigma Z'|``."""
        rows = self._rows
        beta, vcov = np.zeros(0), np.zeros((0, 0))
        if rows.p:
            beta = rows.fixed.beta0 + np.linalg.solve(rows.fixed.R, self._gamma)
            half = np.linalg.inv(self._RX.T @ rows.fixed.R)
            vcov = half @ half.T
        u: list[np.ndarray] = []
        if rows.levels is not None:
            u = [
                rows.levels.expand(self._u[:, at], term.m)
                for at, term in zip(rows.slices, rows.design.terms, strict=True)
            ]
        b = [ub @ factor.T for ub, factor in zip(u, self.factors, strict=True)]
        return Solution(beta, vcov, tuple(u), tuple(b), self.logdet_V, self.logdet_RX2, self.pwrss)


def products_of_images(
    h: np.ndarray,
    images: Sequence[np.ndarray],
    inverse: Sequence[np.ndarray] | None,
    RX: np.ndarray,
    R: np.ndarray,
    orthonormal: bool,
) -> FixedProducts:
    r"""`FixedProducts` from the images :math:`\dot V_i h` of :math:`h = V^{-1} \tilde X R^{-1} R_X^{-T}`.

    Parameters
    ----------
    h : ndarray, shape (n, p)
    images : sequence of ndarray, shape (n, p)
        One a direction.
    inverse : sequence of ndarray, shape (n, p), or None
        ``V^{-1}`` times the images; None to leave the second products out.
    RX : ndarray, shape (p, p)
        Cholesky factor of ``R^{-T} X'V^{-1}X R^{-1}``, lower.
    R : ndarray, shape (p, p)
        Of ``X = QR``.
    orthonormal : bool
        Products of Q in place of X.
    """
    r, p = len(images), R.shape[0]
    basis = np.linalg.inv(R) if orthonormal else None
    root = RX.T if orthonormal else RX.T @ R
    one = np.array([h.T @ image for image in images]).reshape(r, p, p)
    two = None
    if inverse is not None:
        two = np.array([[A.T @ B for B in inverse] for A in images]).reshape(r, r, p, p)
        two = root.T @ two @ root
    return FixedProducts(root.T @ root, root.T @ one @ root, two, basis)


def second_products(point: Any, n_phi: int, M: np.ndarray) -> np.ndarray:
    """``M'D_ijM`` for all pairs of residual parameters, shape (n_phi, n_phi, c, c)."""
    M = np.ascontiguousarray(M)
    out = np.zeros((n_phi, n_phi, M.shape[1], M.shape[1]))
    for i in range(n_phi):
        for j in range(i + 1):
            out[i, j] = out[j, i] = M.T @ point.second_change(i, j, M)
    return out


def _forms(point: Any, n_phi: int, M: np.ndarray) -> np.ndarray:
    """``tr(M'D_jM)`` for each j; some structures have a shorter way than `change`."""
    if not M.shape[1]:
        return np.zeros(n_phi)
    if hasattr(point, "forms"):
        return point.forms(M)
    return np.array([float(np.vdot(M, point.change(j, M))) for j in range(n_phi)])


def _second_forms(point: Any, n_phi: int, M: np.ndarray) -> np.ndarray:
    """``tr(M'D_ijM)``, shape (n_phi, n_phi)."""
    out = np.zeros((n_phi, n_phi))
    if not M.shape[1]:
        return out
    if hasattr(point, "second_forms"):
        return point.second_forms(M)
    for i in range(n_phi):
        for j in range(i + 1):
            out[i, j] = out[j, i] = float(np.vdot(M, point.second_change(i, j, M)))
    return out
