"""The criterion of a linear mixed model with structured residuals, as a function of psi = (theta, phi).

Here are exact second derivatives, information and estimates; parameters, value, gradient and Newton matrix
are in `mixedmodels.objective.structured_criterion`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.objective.base import (
    Certificate,
    check_kind,
)
from mixedmodels.objective.parameters import gradient_of
from mixedmodels.objective.structured_criterion import StructuredCriterion
from mixedmodels.solver._kernels.small import upper_inverse
from mixedmodels.solver.base import Breakdown, FixedProducts, Solution

if TYPE_CHECKING:
    from mixedmodels.objective.structured_coordinates import OrthonormalTwin

__all__ = ["StructuredObjective"]


class StructuredObjective(StructuredCriterion):
    r"""Minus twice the profiled log-likelihood of a model with structured residuals.

    .. math::
        \mathrm{Var}(y) = \sigma^2 V(\psi), \qquad V = R(\phi) + Z \Sigma(\theta) Z', \qquad
        \psi = (\theta, \phi),

        d(\psi) = \log|V| + \nu\,(1 + \log(2\pi r^2/\nu)) \; [+ \log|X'V^{-1}X| \text{ for REML}], \qquad
        r^2 = y'Py .

    beta and sigma are profiled out. With Q = P (REML) or :math:`V^{-1}` (ML) all derivatives are exact:

    .. math::
        \partial d/\partial\psi_i = \mathrm{tr}(Q V_i) - \frac{\nu}{r^2} y'PV_iPy .

    It answers to the same names as `LMMObjective`; theta there is psi here.

    Parameters
    ----------
    design : Design
        With ``residual``.
    reml : bool
        Restricted likelihood (default) or likelihood.
    sigma : float or None
        Residual standard deviation held fixed; None estimates it.
    solver : str
        As in `mixedmodels.solver.choose.choose_solver`.
    fixed : FixedPart, optional
        Of the design, if it is known.

    Attributes
    ----------
    n_random, n_phi : int
        Parameters of the random effects and of the residuals.
    lower, upper : ndarray, shape (n_random + n_phi,)
    names : tuple of str
    nu : int
        n - p (REML) or n (ML).

    Raises
    ------
    IdentifiabilityError
        REML with as many fixed-effects columns as observations.
    OptionError
        sigma is not positive.

    Notes
    -----
    Harville (1977), JASA 72:320-338; Gilmour, Thompson & Cullis (1995), Biometrics 51:1440-1450 (average
    information); Pinheiro & Bates (2000), Mixed-Effects Models in S and S-PLUS, chapter 5.
    """

    @cached_property
    def twin(self) -> OrthonormalTwin | None:
        """The same model in orthonormal columns of the random terms, where there is one."""
        from mixedmodels.objective.structured_coordinates import orthonormal_twin

        return None if self.held else orthonormal_twin(self)

    def exact(self, psi: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """Criterion, gradient and Hessian, which may be indefinite, at any psi (bounds do not matter).

        Raises
        ------
        FloatingPointError
            The criterion does not exist there.
        """
        psi = self.check(psi)
        if self.compiled is not None:
            found = self._profile(psi, 2)
            value = self._compiled_value(found)
            nu = 0.0 if self.sigma_fixed else self.nu
            gradient, H, _, total = self._compiled_derivatives(found, psi, nu)
            if self.held:
                H = self._as_held(H)
        else:
            value, gradient = self.value_and_gradient(psi)
            H = self.information(psi, "observed")
            total = float(gradient.sum()) + float(H.sum())
        if not math.isfinite(value + total):
            raise Breakdown("the criterion or a derivative is not finite; check the values of theta")
        return value, gradient, H

    # ------------------------------------------------------------------ information
    @property
    def trace_work(self) -> float:
        """About how many multiplications the exact traces of the observed information take."""
        work = getattr(self.engine, "trace_work", None)
        return 0.0 if work is None else float(work) * (1.0 + self.n_theta) ** 2

    def information(self, psi: np.ndarray, kind: str = "average") -> np.ndarray:
        """Information about psi in units of the criterion's Hessian; see `LMMObjective.information`.

        Parameters
        ----------
        psi : ndarray, shape (n_theta,)
        kind : {"average", "observed", "expected"}
            "observed" is the exact Hessian.

        Returns
        -------
        ndarray, shape (n_theta, n_theta)
        """
        joint = self.joint_information(psi, kind)
        if self.sigma_fixed is not None:
            return joint
        border = joint[-1, :-1]
        return joint[:-1, :-1] - border[:, None] * border / self.nu

    def joint_information(self, psi: np.ndarray, kind: str = "observed") -> np.ndarray:
        """Information about ``(psi, log sigma^2)``, only beta profiled out; no row of sigma if it is fixed.

        Parameters
        ----------
        psi : ndarray, shape (n_theta,)
        kind : {"observed", "average", "expected"}

        Returns
        -------
        ndarray, shape (n_theta + 1, n_theta + 1)
        """
        check_kind(kind)
        psi = self.check(psi)
        twin = self.twin if kind == "observed" else None
        if twin is not None and twin.objective.compiled is not None:
            # the evaluation that Satterthwaite's method needs as well
            inner = twin.objective.joint_information(twin.inward @ psi)
            inward, out, r = twin.inward, inner.copy(), self.n_theta
            out[:r] = inward.T @ inner[:r]
            out[:, :r] = out[:, :r] @ inward
            return out
        key = (psi.tobytes(), kind)
        if self._information is None or self._information[0] != key:
            compiled = kind == "observed" and self.compiled is not None
            found = self._compiled_information(psi) if compiled else self._joint_information(psi, kind)
            self._information = (key, found)
        return self._as_held(self._information[1].copy())

    def _joint_information(self, psi: np.ndarray, kind: str) -> np.ndarray:
        state = self.at(psi)
        theta, _ = self.split(psi)
        directions = self._map.directions(theta)
        if kind == "expected":
            traces = gradient_of(state.term_parts(self.reml)[0], directions)
            border = np.concatenate([traces, state.residual_parts(self.reml)[0]])
            return self._bordered(state.trace_products(directions, self.reml), border)
        scale = self._scale(state)
        inner = scale * state.products(directions)
        border = scale * self._forms(state, directions)
        if kind == "observed":
            r = self.n_random
            inner = 2.0 * inner - self._rest(state, directions)
            inner[:r, :r] += self._map.curvature(self._M(state), theta)
        return self._bordered(inner, border)

    def information_and_changes(
        self, psi: np.ndarray, kind: str = "observed", internal: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """`joint_information` and how ``C = (X'V^{-1}X)^{-1}`` changes with psi.

        Parameters
        ----------
        psi : ndarray, shape (n_theta,)
        kind : {"observed", "average", "expected"}
        internal : bool
            In the coordinates of `twin`, if there is one, as in `LMMObjective.information_and_changes`.

        Returns
        -------
        information : ndarray, shape (n_theta + 1, n_theta + 1)
        changes : ndarray, shape (n_theta, p, p)
            ``C X'V^{-1} V_i V^{-1}X C``, the derivatives of C.
        """
        if internal and self.twin is not None:
            inner = self.twin.inward @ self.check(psi)
            return self.twin.objective.information_and_changes(inner, kind)
        information = self.joint_information(psi, kind)
        if self.compiled is not None:
            found, p = self._profile(psi, 2), self.design.p
            half = upper_inverse(self.engine.fixed.R) @ found.C
            return information, -half @ found.S1[:, :p, :p] @ half.T
        fixed = self.fixed_products(psi, second=False, orthonormal=True)
        half = fixed.basis @ np.linalg.inv(fixed.XVX)
        return information, half @ fixed.HDH @ half.T

    def fixed_products(
        self, psi: np.ndarray, second: bool = True, orthonormal: bool = False
    ) -> FixedProducts:
        """``X'V^{-1}X``, ``X'V^{-1}V_iV^{-1}X`` and ``X'V^{-1}V_iV^{-1}V_jV^{-1}X`` for all of psi."""
        psi = self.check(psi)
        return self.at(psi).fixed_products(self.directions(psi), second, orthonormal)

    def fixed_seconds(self, psi: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """``X'V^{-1}RV^{-1}X`` and ``X'V^{-1}R_ijV^{-1}X`` in the columns of orthonormal `fixed_products`."""
        return self.at(self.check(psi)).fixed_seconds()

    def directions(self, psi: np.ndarray) -> list[list[np.ndarray | None]]:
        """d Sigma_b / d theta_t for the parameters of the random effects (phi changes R, not Sigma)."""
        return self._map.directions(self.split(psi)[0])

    def trace_products(self, psi: np.ndarray) -> np.ndarray:
        """``tr(Q V_i Q V_j)`` for all of psi, shape (n_theta, n_theta)."""
        psi = self.check(psi)
        return self.at(psi).trace_products(self.directions(psi), self.reml)

    # ------------------------------------------------------------------ estimates
    @property
    def solver(self) -> Any:
        """Solver of the random effects in whitened rows at the last phi of `at_phi`, or at the start."""
        return (self.at_phi(self.start) if self._inner is None else self._inner[1]).solver

    def solution(self, psi: np.ndarray) -> Solution:
        """Estimates and predictions at psi; ``logdet_L2`` is ``log|V|``, R included."""
        psi = self.check(psi)
        twin = self.twin
        if twin is not None and twin.objective.compiled is not None:
            return twin.solution(psi)
        if self.compiled is not None:
            # every summary asks for second derivatives at the estimates: one evaluation for both
            return self.compiled.solution(self._profile(psi, 2), self.factors(psi))
        return self.at(psi).solution()

    def sigma(self, psi: np.ndarray) -> float:
        """Residual standard deviation at psi: ``sqrt(pwrss / nu)``, or the fixed one."""
        if self.sigma_fixed is not None:
            return self.sigma_fixed
        psi = self.check(psi)
        state = self.at(psi) if self.compiled is None else self._profile(psi, 0)
        return float(np.sqrt(state.pwrss / self.nu))

    def certificate(self, psi: np.ndarray) -> Certificate:
        """First-order conditions on the cones of feasible Sigmas, phi held (see `Certificate`)."""
        theta, phi = self.split(psi)
        found = self.at_phi(psi).certificate(theta)
        if found.escape is None:
            return found
        inner: Callable[[np.ndarray], np.ndarray | None] = found.escape

        def escape(point: np.ndarray) -> np.ndarray | None:
            moved = inner(point[: self.n_random])
            return None if moved is None else np.concatenate([moved, phi])

        return replace(found, escape=escape)

    # ------------------------------------------------------------------ parts
    def _compiled_information(self, psi: np.ndarray) -> np.ndarray:
        """Exact second derivatives in ``(psi, log sigma^2)``."""
        return self._bordered(*self._compiled_derivatives(self._profile(psi, 2), psi)[1:3])

    def _bordered(self, inner: np.ndarray, border: np.ndarray) -> np.ndarray:
        """The information of psi with the row and column of log sigma^2, unless sigma is fixed."""
        if self.sigma_fixed is not None:
            return inner
        r = self.n_theta
        out = np.empty((r + 1, r + 1))
        out[:r, :r], out[r, :r], out[:r, r], out[r, r] = inner, border, border, self.nu
        return out
