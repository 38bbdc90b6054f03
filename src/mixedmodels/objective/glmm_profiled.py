r"""The criterion of ``nagq=0``: coefficients of the mean are found together with the random effects.

At given (theta, other parameters) :math:`\beta^*` minimises the penalised likelihood
:math:`F(\beta) = \min_u\{-2\sum_i \log f_i + u'Pu\}`, and the search has the criterion
:math:`d_0 = d(\beta^*(\theta), \theta)` with d Laplace's approximation. It is cheaper where there are many
coefficients, and cruder: :math:`\beta^*` does not minimise d. With :math:`B = -F_{\beta\beta}^{-1}
F_{\beta\theta}` the gradient and the Hessian along T = (B, I) are

.. math:: \nabla d_0 = d_\theta + B'd_\beta, \qquad
          \nabla^2 d_0 = T'(\nabla^2 d)T + D^3F[T, T, (v, 0)], \quad v = -F_{\beta\beta}^{-1}d_\beta .

Engines that write no third derivatives of F leave out the last, small term.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from mixedmodels.errors import OptionError
from mixedmodels.objective.glmm import GLMMObjective
from mixedmodels.solver.base import Breakdown

__all__ = ["ProfiledObjective"]

SEARCH = 1e-5  # predicted decrease whose square is far below the tolerance of the search
STEPS = 50  # Newton steps for the coefficients
TOLERANCE = 1e-20  # predicted decrease, relative: the last step doubles the digits


class ProfiledObjective(GLMMObjective):
    """As `GLMMObjective`, with the coefficients of the conditional predictor out of the search."""

    profiled = True
    _slope: tuple[np.ndarray, np.ndarray] | None = None  # a point, and the coefficients' derivatives there

    @cached_property
    def _free(self) -> tuple[np.ndarray, np.ndarray]:
        """Columns of M that move coefficients of the mean, and those of the search."""
        mean = np.zeros(len(self.a), dtype=bool)
        mean[self.design.predictors[0].columns] = True
        inside = np.any(self.M[mean] != 0.0, axis=0)
        if np.any(self.M[~mean][:, inside] != 0.0):
            raise OptionError(
                "with nagq=0 a coefficient of the mean cannot be set equal to another kind of parameter; "
                "use nagq=1"
            )
        return np.flatnonzero(inside), np.flatnonzero(~inside)

    @property
    def differenced(self) -> bool:
        """False: the traces are a model where they would cost too much."""
        return False

    @property
    def exact_hessian(self) -> bool:
        """Whether no term of the Hessian is left out."""
        return hasattr(self.marginal, "along") and self.priors is None and super().exact_hessian

    @cached_property
    def _R(self) -> np.ndarray:
        return np.linalg.inv(np.linalg.qr(self.metric @ self.M[:, self._free[1]], mode="r"))

    @cached_property
    def _J(self) -> np.ndarray:
        return self.M[:, self._free[1]] @ self._R

    @cached_property
    def _phi(self) -> np.ndarray:
        """Free parameters where the last coefficients were found."""
        return np.array(self._free_of(self.start - self.a))

    def psi_of(self, v: np.ndarray) -> np.ndarray:
        """Parameters at a point of the search, with the last coefficients moved along their derivative."""
        phi = self._phi.copy()
        phi[self._free[1]] = self._R @ v
        if self._slope is not None:
            at, slope = self._slope
            change = v - at
            if float(np.max(np.abs(change), initial=0.0)) < 1.0:
                phi[self._free[0]] += slope @ change
        return self.a + self.M @ phi

    def v_of(self, psi: np.ndarray) -> np.ndarray:
        """Point of the search with these parameters; its coefficients are where the next search begins."""
        phi = self._free_of(np.asarray(psi, dtype=float) - self.a)
        self._phi[:] = phi
        self._slope = None
        return np.linalg.solve(self._R, phi[self._free[1]])

    def _score(self, psi: np.ndarray) -> tuple[float, np.ndarray]:
        """Penalised criterion and its gradient along the coefficients of the mean."""
        predictor = self.coordinates.inner.predictors[0]
        modes = self.marginal.modes(*self._at(psi))
        score = self.family.derivatives(self.coordinates.inner.data, list(modes.eta), 1, (0,))[1]
        X = np.ones((self.design.n, 1)) if predictor.X is None else predictor.X
        inner = np.zeros(self.n_gamma)
        inner[predictor.columns] = -2.0 * (score @ X)
        inside = self._free[0]
        G = self.coordinates.B[: self.n_gamma, : self.n_gamma]
        gradient = self.M[: self.n_gamma, inside].T @ (G.T @ inner)
        value = modes.penalised
        if self.priors is not None:
            added, slope, _ = self.priors.evaluate(psi)
            value, gradient = value + added, gradient + self.M[:, inside].T @ slope
        return value, gradient

    def coefficients(self, psi: np.ndarray, enough: float = 1e-9) -> np.ndarray:
        """psi with the coefficients of the mean at their values given the rest.

        After a step that promised less than `enough` one more with the same matrix is the last.
        """
        inside = self._free[0]
        psi = np.array(psi, dtype=float)
        if not len(inside):
            return psi
        M = self.M[:, inside]
        value, g = self._score(psi)
        for _ in range(STEPS):
            penalised = self._penalised(psi)
            step = -np.linalg.solve(M.T @ penalised @ M, g)
            decrease = -0.5 * float(g @ step)
            size = 1.0
            while True:
                try:
                    trial = self._score(psi + M @ (size * step))
                except Breakdown:
                    trial = (np.inf, g)
                if trial[0] <= value + 1e-12 * (1.0 + abs(value)):
                    break
                size *= 0.5
                if size < 1e-10:
                    raise Breakdown("the coefficients could not be found there")
            psi = psi + M @ (size * step)
            value, g = trial
            if decrease < TOLERANCE * (1.0 + abs(value)) or decrease < enough * size:
                return psi if decrease < 1e-16 else psi - M @ np.linalg.solve(M.T @ penalised @ M, g)
        raise Breakdown("the coefficients could not be found there")

    def _penalised(self, psi: np.ndarray) -> np.ndarray:
        own = getattr(self.marginal, "penalised_hessian", None)
        if own is not None:
            inner = own(*self._at(psi))
        else:
            inner = self.marginal.newton(*self._at(psi)).penalised
            if inner is None:
                inner = self.marginal.evaluate(*self._at(psi), 2).penalised
        P = self.coordinates.B.T @ inner @ self.coordinates.B
        return P if self.priors is None else P + self.priors.evaluate(psi)[2]

    def newton(self, v: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """Criterion, gradient and Newton matrix in v."""
        inside = self._free[0]
        psi = self._near(self.psi_of(v))
        self._slope = None
        self._phi[inside] = self._free_of(psi - self.a)[inside]
        if hasattr(self.marginal, "along") and self.priors is None and len(v):
            return self._newton_along(v, psi)
        found = self.evaluate(psi, 2)
        assert found.gradient is not None and found.hessian is not None and found.penalised is not None
        J = self._tangent(found.penalised)
        self._slope = (v.copy(), self._free_of(J)[inside])
        return found.value, found.gradient @ J, J.T @ found.hessian @ J

    def _free_of(self, values: np.ndarray) -> np.ndarray:
        """phi with ``M phi`` = values, (P,) or (P, c)."""
        return values if not self.restricted else np.linalg.lstsq(self.M, values, rcond=None)[0]

    def _near(self, psi: np.ndarray, enough: float = SEARCH) -> np.ndarray:
        """`coefficients`, together with the random effects where the engine can."""
        joint = getattr(self.marginal, "joint_mode", None)
        if joint is not None and self.priors is None and len(self._free[0]):
            M = self.M[:, self._free[0]]
            c = joint(*self._at(psi), self.coordinates.B[: self.n_gamma] @ M)
            if c is not None:
                psi = psi + M @ c
                self.marginal.settle(self._at(psi)[0])  # type: ignore[attr-defined]
                return psi
        return self.coefficients(psi, enough)

    def _newton_along(self, v: np.ndarray, psi: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """`newton` by an engine with second derivatives along the search only."""
        inside, B = self._free[0], self.coordinates.B
        M = self.M[:, inside]
        kept = np.zeros((0, 0))

        def tangent(gradient: np.ndarray, penalised: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
            nonlocal kept
            P = B.T @ penalised @ B
            kept = self._tangent(P)
            moved = -M @ np.linalg.solve(M.T @ P @ M, M.T @ (B.T @ gradient)) if len(inside) else None
            return B @ kept, None if moved is None else B @ moved

        found = self.marginal.along(*self._at(psi), tangent)  # type: ignore[attr-defined]
        self._slope = (v.copy(), self._free_of(kept)[inside])
        return found.value, (B.T @ found.gradient) @ kept, found.hessian

    def _tangent(self, penalised: np.ndarray) -> np.ndarray:
        """d psi / d v along which the coefficients follow."""
        inside, move = self._free[0], self._J
        if not len(inside):
            return move
        M = self.M[:, inside]
        return move - M @ np.linalg.solve(M.T @ penalised @ M, M.T @ penalised @ move)

    def point(self, v: np.ndarray) -> np.ndarray:
        """psi at the end of a search."""
        return self._near(self.psi_of(v), 1e-9)

    def free_hessian(self, psi: np.ndarray, hessian: np.ndarray | None = None) -> np.ndarray:
        r"""The matrix whose inverse is the covariance of (beta, theta) here.

        With D the Hessian of d_0: the variance of beta given theta is that of the penalised likelihood, the
        variance of theta that of d_0, :math:`Var(\beta) = 2F_{\beta\beta}^{-1} + 2BD^{-1}B'`; lme4's standard
        errors of ``nAGQ = 0`` are those of the first part.
        """
        inside, outside = self._free
        B = self.coordinates.B
        T = np.zeros((self.M.shape[1], len(outside)))
        T[outside, np.arange(len(outside))] = 1.0

        def follow(penalised: np.ndarray) -> np.ndarray:
            out = self.M.T @ penalised @ self.M
            if len(inside):
                T[inside] = -np.linalg.solve(out[np.ix_(inside, inside)], out[np.ix_(inside, outside)])
            return out

        if self.exact_hessian:
            out = np.zeros((0, 0))

            def tangent(_: np.ndarray, penalised: np.ndarray) -> tuple[np.ndarray, None]:
                nonlocal out
                out = follow(B.T @ penalised @ B)
                return B @ self.M @ T, None

            curvature = self.marginal.along(*self._at(psi), tangent).hessian  # type: ignore[attr-defined]
        else:
            found = self.evaluate(psi, 2)
            assert found.hessian is not None and found.penalised is not None
            out = follow(found.penalised)
            curvature = (self.M @ T).T @ found.hessian @ (self.M @ T)
        out[np.ix_(outside, outside)] = curvature - out[np.ix_(inside, outside)].T @ T[inside]
        return out
