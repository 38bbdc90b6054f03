"""Kenward and Roger's adjusted covariance of the fixed effects, degrees of freedom and scaled F."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import OptionError
from mixedmodels.inference.ddf.reference import FTest, f_statistic, row_basis, rows_of
from mixedmodels.inference.ddf.tails import f_tail
from mixedmodels.inference.ddf.variances import check_structures, fixed_products, parameter_covariance
from mixedmodels.objective.components import component_directions, with_error

if TYPE_CHECKING:
    from mixedmodels.design import RandomTerm
    from mixedmodels.fit.result import LMMFit

__all__ = ["KenwardRoger", "adjusted_covariance", "f_moments", "row_df"]


class KenwardRoger:
    r"""Kenward & Roger (1997) with V linear in its parameters: the entries of the covariance matrices of the
    random effects and sigma^2.

    With :math:`P_i = -X'V^{-1}V_iV^{-1}X`, :math:`Q_{ij} = X'V^{-1}V_iV^{-1}V_jV^{-1}X` and W twice the
    inverse of :math:`\mathrm{tr}(PV_iPV_j)` (the parameters' covariance from their expected information),

    .. math:: \Phi_A = \Phi + 2\Phi\Bigl\{\sum_{ij} W_{ij}(Q_{ij} - P_i\Phi P_j)\Bigr\}\Phi .

    All of it is formed in the space of the random effects and fixed effects: no n x n matrix. With a residual
    structure V is not linear in its parameters; the same formulae with its first derivatives do not depend
    on the coordinates, and are exact where some coordinates make V linear (compound symmetry, general
    covariances of visits, variances by group).

    Parameters
    ----------
    fit : LMMFit
        Fitted by REML.

    Raises
    ------
    OptionError
        The fit is by maximum likelihood.

    Notes
    -----
    Kenward & Roger (1997), Biometrics 53:983-997; the second derivatives of V are zero, as in SAS
    (DDFM=KENWARDROGER(LINEAR)) and pbkrtest.
    """

    name = "kenward-roger"
    label = "Kenward-Roger"
    notes: tuple[str, ...] = ()

    def __init__(self, fit: LMMFit) -> None:
        if not fit.is_reml:
            raise OptionError(
                "Kenward-Roger needs a fit by REML, this one is by maximum likelihood; fit.update(reml=True) "
                'refits it, or take ddf="satterthwaite"'
            )
        check_structures(fit, self.name)
        self._fit = fit

    @property
    def _parts(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        parts: Any = _parts if self._fit.design.residual is None else structured_parts
        if parts is _parts and hasattr(self._fit.objective, "restricted_covariance"):
            parts = _restricted_parts
        return self._fit._once("kenward_roger", lambda: parts(self._fit))

    @property
    def vcov(self) -> np.ndarray:
        """Covariance of beta, adjusted for small samples."""
        return self._parts[0]

    def df(self, L: np.ndarray) -> np.ndarray:
        """Degrees of freedom of each row of L, shape (r,)."""
        _, J, W = self._parts
        return row_df(rows_of(L, self._fit.design.p), self._fit.vcov, J, W)

    def f_test(self, L: np.ndarray, rhs: np.ndarray | None = None, as_given: bool = False) -> FTest:
        """Scaled F test of all rows of L together."""
        fit = self._fit
        rows, values = row_basis(rows_of(L, fit.design.p), rhs, fit.vcov)
        adjusted, J, W = self._parts
        F, rank = f_statistic(rows, fit.beta, adjusted, values)
        if rank == 0:
            return FTest(math.nan, 0, math.nan, math.nan)
        den_df, scaling = f_moments(rows, fit.vcov, J, W)
        return FTest(scaling * F, rank, den_df, f_tail(scaling * F, rank, den_df), scaling)


def _parts(fit: LMMFit) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Adjusted covariance; ``Phi P_i Phi`` with their sign turned, (r, p, p); W, (r, r). Relative scale."""
    objective = fit.objective
    _, entries = component_directions(objective)
    directions = in_orthonormal_columns(fit.design.terms, entries)
    factors = [np.array(factor) for factor in fit._factors]
    directions = [*directions, [factor @ factor.T for factor in factors]]
    products, traces = objective.trace_products(factors, directions)
    information = with_error(products, traces, float(fit.nobs - fit.design.p))
    fixed = fixed_products(fit, directions, second=True)
    P = fixed.HDH.copy()
    P[-1] = fixed.XVX - P[-1]
    Q = with_error(fixed.HDKDH, fixed.HDH, fixed.XVX)
    if objective.sigma_fixed is not None:
        information, P, Q = information[:-1, :-1], P[:-1], Q[:-1, :-1]
    W, _ = parameter_covariance(information)
    C = np.linalg.inv(fixed.XVX)
    basis = fit.sigma * fixed.basis
    adjusted = basis @ adjusted_covariance(C, P, Q, W) @ basis.T
    adjusted.setflags(write=False)
    return adjusted, basis @ (C @ P @ C) @ basis.T, W


def structured_parts(
    fit: LMMFit, bending: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """As `_parts` for structured residuals, the parameters being psi and log sigma^2.

    First derivatives only, so that the coordinates do not matter: a change of them transforms P_i, Q_ij and
    W as tensors. ``bending(W, P)`` adds ``sum_ij W_ij R_ij`` of the full form, W with all parameters and P
    their ``X'V^{-1}V_iV^{-1}X``.
    """
    objective, psi = fit.objective, np.array(fit.theta)
    information = objective.joint_information(psi, "expected")
    fixed = objective.fixed_products(psi, second=True, orthonormal=True)
    P, Q = fixed.HDH, fixed.HDKDH
    if objective.sigma_fixed is None:  # the derivative in log sigma^2 is V itself
        P = np.concatenate([P, fixed.XVX[None]])
        Q = _bordered(Q, P)
    free = np.append((psi > objective.lower) & (psi < objective.upper), True)[: len(P)]
    if hasattr(objective, "restricted_covariance"):
        W = objective.restricted_covariance(psi, "expected")[np.ix_(free, free)]
    else:
        W, _ = parameter_covariance(information[np.ix_(free, free)])
    every, P, Q = P, P[free], Q[np.ix_(free, free)]
    C = np.linalg.inv(fixed.XVX)
    basis = fit.sigma * fixed.basis
    corrected = adjusted_covariance(C, P, Q, W)
    if bending is not None:
        whole = np.zeros((len(free), len(free)))
        whole[np.ix_(free, free)] = W
        corrected = corrected - 0.5 * C @ bending(whole, every) @ C
    adjusted = basis @ corrected @ basis.T
    adjusted.setflags(write=False)
    return adjusted, basis @ (C @ P @ C) @ basis.T, W


def _restricted_parts(fit: LMMFit) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """As `_parts` in theta and log sigma^2, where some of them are held or equal."""
    objective, theta = fit.objective, np.array(fit.theta)
    fixed = fixed_products(fit, objective.directions(theta), second=True)
    P, Q = fixed.HDH, fixed.HDKDH
    if objective.sigma_fixed is None:
        P = np.concatenate([P, fixed.XVX[None]])
        Q = _bordered(Q, P)
    W = objective.restricted_covariance(theta, "expected")
    C = np.linalg.inv(fixed.XVX)
    basis = fit.sigma * fixed.basis
    adjusted = basis @ adjusted_covariance(C, P, Q, W) @ basis.T
    adjusted.setflags(write=False)
    return adjusted, basis @ (C @ P @ C) @ basis.T, W


def _bordered(Q: np.ndarray, P: np.ndarray) -> np.ndarray:
    """``X'V^{-1}V_iV^{-1}V_jV^{-1}X`` with a last parameter whose derivative is V: there it is P."""
    r = len(P)
    out = np.empty((r, r, *P.shape[1:]))
    out[:-1, :-1], out[-1], out[:, -1] = Q, P, P
    return out


def in_orthonormal_columns(
    terms: Sequence[RandomTerm], directions: Sequence[Sequence[np.ndarray | None]]
) -> list[list[np.ndarray | None]]:
    r"""Directions of unstructured covariances for orthonormal columns: ``T D T'``, Z T orthonormal.

    The adjusted covariance and the degrees of freedom do not depend on the basis of the matrices V_i. Their
    information matrix does: in the entries of Sigma its smallest eigenvalue falls with the fourth power of
    the distance of a predictor from its origin (years, dates), until it is lost in rounding errors.

    Parameters
    ----------
    terms : sequence of RandomTerm
    directions : lists over directions of lists over terms
        (k, k), or None; terms with shared parameters keep a basis in common.
    """
    bases = []
    for term in terms:
        basis = None
        if term.Z is not None and term.k > 1 and term.covariance.clip == "block":
            R = np.linalg.qr(term.Z, mode="r")
            if np.linalg.matrix_rank(R) == term.k:
                basis = np.linalg.inv(R) * math.sqrt(len(term.Z))
        bases.append(basis)
    out: list[list[np.ndarray | None]] = []
    for row in directions:
        T = next(basis for basis, D in zip(bases, row, strict=True) if D is not None)
        out.append([D if D is None or T is None else T @ D @ T.T for D in row])
    return out


def adjusted_covariance(C: np.ndarray, P: np.ndarray, Q: np.ndarray, W: np.ndarray) -> np.ndarray:
    """``C + 2 C {sum_ij W_ij (Q_ij - P_i C P_j)} C``.

    Parameters
    ----------
    C : ndarray, shape (p, p)
    P : ndarray, shape (r, p, p)
    Q : ndarray, shape (r, r, p, p)
    W : ndarray, shape (r, r)
    """
    middle = np.tensordot(W, Q, axes=2) - (P @ C @ np.tensordot(W, P, axes=1)).sum(axis=0)
    inflation = C @ middle @ C
    return C + inflation + inflation.T


def row_df(L: np.ndarray, vcov: np.ndarray, J: np.ndarray, W: np.ndarray) -> np.ndarray:
    """``2 / A_1`` for each row: what `f_moments` comes to for q = 1, where A_1 = A_2 and the scale is 1.

    NaN for a row of zeros, infinite where the variance is known.
    """
    variances = ((L @ vcov) * L).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = ((L @ J) * L).sum(axis=2) / variances
        return 2.0 / (t * (W @ t)).sum(axis=0)


def f_moments(L: np.ndarray, vcov: np.ndarray, J: np.ndarray, W: np.ndarray) -> tuple[float, float]:
    r"""Denominator degrees of freedom m and scale of F, from its first two moments.

    .. math:: A_1 &= \sum W_{ij} \mathrm{tr}(\Theta\Phi P_i\Phi)\,\mathrm{tr}(\Theta\Phi P_j\Phi), \quad
        A_2 = \sum W_{ij} \mathrm{tr}(\Theta\Phi P_i\Phi\,\Theta\Phi P_j\Phi), \quad
        \Theta = L'(L\Phi L')^{-1}L, \\
        B &= (A_1 + 6A_2)/(2q), \qquad g = \frac{(q+1)A_1 - (q+4)A_2}{(q+2)A_2}, \qquad
        c_1, c_2, c_3 = \frac{g,\; q-g,\; q+2-g}{3q + 2(1-g)}, \\
        E &= (1 - A_2/q)^{-1}, \qquad V = \frac2q \frac{1 + c_1B}{(1-c_2B)^2(1-c_3B)}, \qquad
        \rho = \frac{V}{2E^2}, \\
        m &= 4 + \frac{q+2}{q\rho - 1}, \qquad \lambda = \frac{m}{E(m-2)} .

    Parameters
    ----------
    L : ndarray, shape (q, p)
        Independent rows.
    vcov : ndarray, shape (p, p)
        Phi.
    J : ndarray, shape (r, p, p)
        ``Phi P_i Phi``, of either sign, in units of the parameters that W is the covariance of.
    W : ndarray, shape (r, r)

    Returns
    -------
    den_df, scaling : float
    """
    q = len(L)
    if q == 1:
        return float(row_df(L, vcov, J, W)[0]), 1.0
    half = np.linalg.inv(np.linalg.cholesky(L @ vcov @ L.T)) @ L
    B_i = half @ J @ half.T
    traces = np.trace(B_i, axis1=1, axis2=2)
    A1 = float(traces @ W @ traces)
    A2 = float(np.einsum("ij,iab,jba->", W, B_i, B_i, optimize=True))
    if not A2 > 0.0:
        return math.inf, 1.0
    B = (A1 + 6.0 * A2) / (2.0 * q)
    g = ((q + 1) * A1 - (q + 4) * A2) / ((q + 2) * A2)
    divisor = 3.0 * q + 2.0 * (1.0 - g)
    c1, c2, c3 = g / divisor, (q - g) / divisor, (q + 2 - g) / divisor
    # rho = (1 - A2/q)^2 / (1 - c2 B)^2 * (1 + c1 B) / (1 - c3 B) / q; in balanced designs the first ratio is
    # one, and 0/0 where the degrees of freedom are two.
    rho = _ratio(1.0 - A2 / q, 1.0 - c2 * B) ** 2 * _ratio(1.0 + c1 * B, 1.0 - c3 * B) / q
    excess = q * rho - 1.0
    if excess == 0.0:
        return math.inf, 1.0 - A2 / q
    m = 4.0 + (q + 2.0) / excess
    if abs(m - 2.0) < 0.01:
        return m, 1.0
    return m, m * (1.0 - A2 / q) / (m - 2.0)


def _ratio(top: float, bottom: float) -> float:
    """top / bottom, 1 where both are rounding errors."""
    if abs(top) < 1e-10 and abs(bottom) < 1e-10:
        return 1.0
    return top / bottom if bottom else math.inf
