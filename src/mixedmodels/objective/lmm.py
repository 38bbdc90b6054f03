"""The linear mixed model's criterion as a function of theta: information, estimates, other points of view.

Value, gradient and Newton matrix are in `mixedmodels.objective.lmm_criterion`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from mixedmodels.errors import OptionError, SolverError
from mixedmodels.objective.base import Certificate, check_kind, gaussian_scale
from mixedmodels.objective.lmm_criterion import LMMCriterion, forms
from mixedmodels.solver.base import Breakdown, Solution

if TYPE_CHECKING:
    from mixedmodels.objective.components import ComponentsPoint
    from mixedmodels.solver.base import CompiledPath

__all__ = ["LMMObjective"]

# Up to this many random effects a search that does not get on may use the observed information in every step.
_CHEAP_LIMIT = 1000


class LMMObjective(LMMCriterion):
    r"""Minus twice the profiled log-likelihood of a linear mixed model, beta and sigma profiled out.

    .. math::
        d(\theta) = \log|V| - \sum_i \log w_i + n\,(1 + \log(2\pi r^2/n)) \quad\text{(ML)},\qquad
        d(\theta) + \log|X'V^{-1}X| \text{ with } n - p \text{ for } n \quad\text{(REML)},

    :math:`V = I + W^{1/2} Z \Lambda(A) \Lambda' Z' W^{1/2}`, :math:`r^2 = y'Py`. Derivatives are exact:

    .. math::
        M_b = \partial d/\partial\Sigma_b = T_b - (\nu/r^2) S_b, \qquad
        \partial d/\partial\theta_i = 2\,\mathrm{tr}(E_i' M_b \lambda_b).

    Parameters
    ----------
    design : Design
    solver : Solver
    reml : bool
        Restricted likelihood (default) or likelihood.
    sigma : float or None
        Residual standard deviation held fixed; None estimates it.

    Attributes
    ----------
    start, lower, upper : ndarray, shape (n_theta,)
        Moment start and bounds.
    names : tuple of str
    nu : int
        n - p (REML) or n (ML).
    entries : ndarray of intp, shape (e, 4), or None
        Rows (term, row, column, parameter) of factors linear in theta.

    Raises
    ------
    IdentifiabilityError
        REML with as many fixed-effects columns as observations.
    OptionError
        sigma is not positive.

    Notes
    -----
    Bates, Maechler, Bolker & Walker (2015), J. Stat. Softw. 67(1), eq. 34-42; Gilmour, Thompson & Cullis
    (1995), Biometrics 51:1440-1450 (average information).

    Examples
    --------
    >>> from mixedmodels.objective.lmm import LMMObjective
    >>> from mixedmodels.solver.dense import DenseSolver
    >>> from mixedmodels.testing import random_design
    >>> design = random_design(1, "one_slope")
    >>> objective = LMMObjective(design, DenseSolver(design))
    >>> objective.names
    ('g.(Intercept)', 'g.x.(Intercept)', 'g.x')
    >>> value, gradient = objective.value_and_gradient(objective.start)
    >>> gradient.shape
    (3,)
    """

    # ------------------------------------------------------------------ information about theta
    @property
    def observed_is_cheap(self) -> bool:
        """Whether the exact Hessian costs little: from the solver's own K, or q is small."""
        return self.solver.name in ("dense", "grouped", "subsets") or self.design.q <= _CHEAP_LIMIT

    def information(self, theta: np.ndarray, kind: str = "average") -> np.ndarray:
        r"""Information about theta in units of the criterion's Hessian (twice the log-likelihood's).

        ``2 inv(information)`` estimates Var(theta-hat); sigma is profiled out unless fixed.

        .. math::
            \text{average}_{ij} &= \tfrac{\nu}{r^2} w_{ij} - \tfrac{\nu}{r^4} q_i q_j \\
            \text{expected}_{ij} &= \mathrm{tr}(K\dot S_i K\dot S_j)
               - \tfrac1\nu \mathrm{tr}(K\dot S_i)\,\mathrm{tr}(K\dot S_j) \\
            \text{observed}_{ij} &= \mathrm{tr}(M \ddot S_{ij}) - \mathrm{tr}(K\dot S_i K\dot S_j)
               + 2\tfrac{\nu}{r^2} w_{ij} - \tfrac{\nu}{r^4} q_i q_j

        Parameters
        ----------
        theta : ndarray, shape (n_theta,)
        kind : {"average", "observed", "expected"}
            "observed" is the exact Hessian.

        Returns
        -------
        ndarray, shape (n_theta, n_theta)

        Raises
        ------
        OptionError
            Unknown kind.
        """
        joint = self.joint_information(theta, kind)
        if self.sigma_fixed is not None:
            return joint
        return joint[:-1, :-1] - np.outer(joint[-1, :-1], joint[-1, :-1]) / self.nu

    def joint_information(self, theta: np.ndarray, kind: str = "observed") -> np.ndarray:
        r"""Information about :math:`(\theta, \log\sigma^2)` at the estimate of sigma, only beta profiled out.

        The last row and column are :math:`(q_i/\sigma^2, \nu)`, with ``tr(K dS_i)`` for q_i/sigma^2 in the
        expected information; the Schur complement of the last entry is `information`. For a fixed sigma
        they are left out.

        Parameters
        ----------
        theta : ndarray, shape (n_theta,)
        kind : {"observed", "average", "expected"}

        Returns
        -------
        ndarray, shape (n_theta + 1, n_theta + 1)
        """
        check_kind(kind)
        theta = self._map.check(theta)
        if kind != "expected" and self.evaluator is not None:
            return self._compiled_information(theta, kind, False)[0]
        factors = self._map.factors(theta)
        directions = self._map.directions(theta)
        if kind == "expected":
            return self._bordered(*self.trace_products(factors, directions))
        parts = self.solver.components(factors, 2, directions, self.reml)
        scale = gaussian_scale(parts.pwrss, self.nu, self.sigma_fixed)
        inner = scale * parts.wpw
        if kind == "observed":
            products, _ = self.trace_products(factors, directions)
            inner = 2.0 * inner - products + self._map.curvature(self._M(parts), theta)
        return self._bordered(inner, scale * forms(parts, directions))

    def information_and_changes(
        self, theta: np.ndarray, kind: str = "observed", internal: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """`joint_information` and, from the same evaluation, how ``C = (X'V^{-1}X)^{-1}`` changes with theta.

        Parameters
        ----------
        theta : ndarray, shape (n_theta,)
        kind : {"observed", "average", "expected"}
        internal : bool
            In the solver's own parameters, a linear function of theta, if it has them: what does not depend
            on the parameters (a delta-method variance) keeps its digits there when a predictor is far from 0.

        Returns
        -------
        information : ndarray, shape (n_theta + 1, n_theta + 1)
        changes : ndarray, shape (n_theta, p, p)
            ``C X'V^{-1} V_i V^{-1}X C``, the derivatives of C.
        """
        check_kind(kind)
        theta = self._map.check(theta)
        if kind != "expected" and self.evaluator is not None:
            return self._compiled_information(theta, kind, internal)
        fixed = self.solver.fixed_products(self.factors(theta), self.directions(theta), second=False)
        C = np.linalg.inv(fixed.XVX)
        return self.joint_information(theta, kind), C @ fixed.HDH @ C

    def _compiled_information(
        self, theta: np.ndarray, kind: str, internal: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """`information_and_changes` by the compiled evaluator, in internal coordinates until the end."""
        D, solver = self._to_internal, cast("CompiledPath", self.solver)
        try:
            inner, cross, changes = solver.information_and_changes(
                self.evaluator, D.dot(theta), kind == "observed"
            )
        except FloatingPointError as error:
            raise Breakdown(f"{error}; check the values of theta") from None
        if D is not self.theta_map and not internal:  # one array, the identity, where nothing was rescaled
            inner, cross = D.T.dot(inner).dot(D), cross.dot(D)
            changes = D.T.dot(changes.reshape(len(D), -1)).reshape(changes.shape)
        return self._bordered(inner, cross), changes

    def _bordered(self, inner: np.ndarray, cross: np.ndarray) -> np.ndarray:
        """The information of theta with the row and column of log sigma^2, unless sigma is fixed."""
        if self.sigma_fixed is not None:
            return inner
        r = self.n_theta
        out = np.empty((r + 1, r + 1))
        out[:r, :r], out[r, :r], out[:r, r], out[r, r] = inner, cross, cross, self.nu
        return out

    def trace_products(
        self, factors: Sequence[np.ndarray], directions: Sequence[Sequence[np.ndarray | None]]
    ) -> tuple[np.ndarray, np.ndarray]:
        """``tr(K dS_i K dS_j)``, shape (r, r), and ``tr(K dS_i)``, shape (r,)."""
        return self.solver.trace_products(factors, directions, self.reml)

    # ------------------------------------------------------------------ information in the entries of Sigma
    def sigma_model(self, theta: np.ndarray) -> tuple[float, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        r"""Criterion, gradient, average, expected and observed information in the entries of the Sigma_b.

        For factors linear in theta. Coordinate t is the entry of Sigma at the place that parameter t has in
        the factor (with its mirror image :math:`D_t`, in every term that shares it): shapes (n_theta,) and
        (n_theta, n_theta). The expected information is average information plus
        :math:`\sum_b \tfrac1{2 m_b} \mathrm{tr}(T_b D_s M_b D_t + T_b D_t M_b D_s)`, what it is where all
        levels are alike, :math:`K_{ll} = T_b/m_b`. The observed information (the Hessian in Sigma) is average
        information plus
        :math:`\tfrac{\nu}{r^2} w_{st} - \sum_b \tfrac1{m_b} \mathrm{tr}(T_b D_s T_b D_t)` where s and t share
        a term: exact for ML with one grouping factor and levels that are alike.
        """
        theta = self._map.check(theta)
        parts = self.solver.components(self._map.factors(theta), 2, self._unit_directions, self.reml)
        M = self._M(parts)
        gradient = [
            sum(float(np.sum(Mb * D)) for Mb, D in zip(M, row, strict=True) if D is not None)
            for row in self._unit_directions
        ]
        average = self._average(parts, self._unit_directions)
        scale = gaussian_scale(parts.pwrss, self.nu, self.sigma_fixed)
        excess, traces = np.zeros_like(average), np.zeros_like(average)
        together = np.zeros(average.shape, dtype=bool)
        for b, (term, T) in enumerate(zip(self.design.terms, parts.T, strict=True)):
            index = [t for t in range(self.n_theta) if self._unit_directions[t][b] is not None]
            D = np.array([self._unit_directions[t][b] for t in index])
            excess[np.ix_(index, index)] += (
                np.einsum("ab,sbc,cd,tda->st", T, D, M[b], D, optimize=True) / term.m
            )
            traces[np.ix_(index, index)] += np.einsum("ab,sbc,cd,tda->st", T, D, T, D, optimize=True) / term.m
            together[np.ix_(index, index)] = True
        expected = average + 0.5 * (excess + excess.T)
        observed = average + np.where(together, scale * parts.wpw - traces, 0.0)
        return self._criterion(parts), np.array(gradient), average, expected, observed

    @property
    def _places(self) -> list[list[int]]:
        """Rows (term, row, column, parameter); the structures must be linear in theta."""
        if self.entries is None:
            raise SolverError("a covariance structure of this model is not linear in theta")
        return self.entries.tolist()

    @cached_property
    def _unit_directions(self) -> list[list[np.ndarray | None]]:
        out: list[list[np.ndarray | None]] = [[None] * len(self.design.terms) for _ in range(self.n_theta)]
        for b, i, j, t in self._places:
            D = out[t][b]
            if D is None:
                D = out[t][b] = np.zeros((self.design.terms[b].k,) * 2)
            D[i, j] = D[j, i] = 1.0
        return out

    # ------------------------------------------------------------------ estimates
    def solution(self, theta: np.ndarray) -> Solution:
        """Estimates of beta and predictions of the random effects at theta."""
        return self.solver.solution(self.factors(theta), self.reml)

    def sigma(self, theta: np.ndarray) -> float:
        """Residual standard deviation at theta: ``sqrt(pwrss / nu)``, or the fixed one."""
        if self.sigma_fixed is not None:
            return self.sigma_fixed
        pwrss = self.solver.components(self.factors(theta), 0, None, self.reml).pwrss
        return float(np.sqrt(pwrss / self.nu))

    def certificate(self, theta: np.ndarray) -> Certificate:
        """First-order conditions on the cones of feasible Sigmas, scale-free (see `Certificate`)."""
        from mixedmodels.objective.certificate import certify

        theta = self._map.check(theta)
        factors = self._map.factors(theta)
        parts = self.solver.components(factors, 1, None, self.reml)
        return certify(self, theta, factors, parts.T, self._M(parts))

    # ------------------------------------------------------------------ other points of view
    def at_components(self, variances: Mapping[str, Any] | Sequence[Any]) -> ComponentsPoint:
        """Log-likelihood, score and information at given variance components, nothing profiled but beta.

        Parameters
        ----------
        variances : mapping or sequence
            Mapping from grouping factor to Sigma_b ((k, k), or the k variances, or one number) and
            ``"Residual"`` to sigma^2; or a sequence of the Sigma_b in the order of the terms, then
            sigma^2. These are variances, not relative ones.

        Returns
        -------
        ComponentsPoint
            With ``names``, ``values``, ``loglik``, ``score`` and ``information(kind)``.

        Raises
        ------
        OptionError
            A component is missing, has the wrong shape, lies outside the structure or is not positive
            semi-definite.
        """
        from mixedmodels.objective.components import ComponentsPoint

        self._refuse_curved("variance components")
        return ComponentsPoint(self, variances)

    def em_step(self, theta: np.ndarray) -> np.ndarray:
        r"""One step of EM, the residual variance updated too; never increases the criterion.

        .. math:: \Sigma_b^+ = \frac{\Sigma_b - \Sigma_b M_b \Sigma_b / m_b}
            {1 + \sum_c \mathrm{tr}(M_c \Sigma_c)/n}

        (the divisor only where sigma is not fixed), Laird & Ware (1982), Biometrics 38:963-974.
        """
        return self._em(theta, update_sigma=self.sigma_fixed is None)

    def _refuse_curved(self, what: str) -> None:
        """What needs Sigmas that form a cone: us, diag, homdiag."""
        for term, curved in zip(self.design.terms, self._map.curved, strict=True):
            if curved:
                raise OptionError(
                    f"{what} are not available for the structure {term.covariance.name!r} of {term.group!r}: "
                    "they need us, diag or homdiag"
                )

    def ecme_step(self, theta: np.ndarray) -> np.ndarray:
        r"""One step of ECME: sigma maximised, :math:`\Sigma_b^+ = \Sigma_b - \Sigma_b M_b \Sigma_b/m_b`.

        Liu & Rubin (1994), Biometrika 81:633-648.
        """
        return self._em(theta, update_sigma=False)

    def _em(self, theta: np.ndarray, update_sigma: bool) -> np.ndarray:
        from mixedmodels.objective.em import em_factors

        self._refuse_curved("EM and ECME")
        theta = self._map.check(theta)
        factors = self._map.factors(theta)
        M = self._M(self.solver.components(factors, 1, None, self.reml))
        terms = self.design.terms
        levels, clips = [term.m for term in terms], [term.covariance.clip for term in terms]
        total = self.design.n if update_sigma else None
        new = em_factors(factors, M, levels, clips, self._map.tied, total)
        return self._map.theta_of(new)
