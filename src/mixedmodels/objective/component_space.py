"""The space of variance components of one model: what estimation in the components themselves works on."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from mixedmodels.errors import OptionError
from mixedmodels.objective.components import ComponentsPoint, component_directions
from mixedmodels.objective.parameters import lower_factor

if TYPE_CHECKING:
    from mixedmodels.objective.lmm import LMMObjective

__all__ = ["ComponentSpace"]


class ComponentSpace:
    r"""Variance components kappa, the entries of each Sigma_b and sigma^2 last, as one vector.

    The space is the set of kappa with every :math:`\Sigma_b` positive semi-definite and
    :math:`\sigma^2 > 0`; the variance of the response is linear in kappa.

    Parameters
    ----------
    objective : LMMObjective
        Its structures must be linear in their parameters.
    reml : bool, optional
        Restricted likelihood or not; by default that of the objective.

    Attributes
    ----------
    names : tuple of str
    directions : list over the components but the last of lists over terms
        d Sigma_b / d kappa_i, or None.

    Raises
    ------
    OptionError
        A structure has no free entries of Sigma as parameters, or terms share parameters in part.

    Examples
    --------
    >>> from mixedmodels.testing import random_design
    >>> from mixedmodels.objective.lmm import LMMObjective
    >>> from mixedmodels.solver.dense import DenseSolver
    >>> design = random_design(1, "one_slope")
    >>> space = ComponentSpace(LMMObjective(design, DenseSolver(design)))
    >>> space.names
    ('g.(Intercept)', 'g.x.(Intercept)', 'g.x', 'Residual')
    >>> space.inside(np.array([1.0, 2.0, 1.0, 1.0]))
    False
    """

    def __init__(self, objective: LMMObjective, reml: bool | None = None) -> None:
        self.objective = objective
        self.reml = objective.reml if reml is None else reml
        terms = objective.design.terms
        if objective.entries is None:
            raise OptionError(
                "variance components as parameters need random terms that are unstructured, diagonal or "
                'multiples of the identity (us, diag, homdiag); use method="auto" for other structures'
            )
        names, self.directions = component_directions(objective)
        self.names = (*names, "Residual")
        if len(names) != objective.n_theta:
            raise OptionError(
                "a structure of this model restricts its covariance matrices in a way that the variance "
                'components do not tell; use method="auto"'
            )
        # one (first) term of each component, and of each term the places and the cone
        self._terms = terms
        self._clips = [term.covariance.clip for term in terms]
        places = enumerate(self.directions)
        self._of_term: list[list[int]] = [[] for _ in terms]
        for i, row in places:
            for b, E in enumerate(row):
                if E is not None:
                    self._of_term[b].append(i)

    @property
    def size(self) -> int:
        """Number of components, sigma^2 included."""
        return len(self.names)

    # ------------------------------------------------------------------ coordinates
    def sigmas(self, kappa: np.ndarray) -> list[np.ndarray]:
        """Sigma_b of every term, (k, k)."""
        out = []
        for b, term in enumerate(self._terms):
            Sigma = np.zeros((term.k, term.k))
            for i in self._of_term[b]:
                Sigma += kappa[i] * self.directions[i][b]
            out.append(Sigma)
        return out

    def kappa(self, Sigmas: list[np.ndarray], sigma2: float) -> np.ndarray:
        """Components of given covariance matrices (of terms that share parameters, the first counts)."""
        out = np.empty(self.size)
        for i, row in enumerate(self.directions):
            b, E = next((b, E) for b, E in enumerate(row) if E is not None)
            out[i] = float(np.sum(E * Sigmas[b])) / float(np.sum(E * E))
        out[-1] = sigma2
        return out

    def theta(self, kappa: np.ndarray) -> np.ndarray:
        """Entries of the relative factors at kappa."""
        factors = [lower_factor(Sigma / kappa[-1]) for Sigma in self.sigmas(kappa)]
        return self.objective.theta_of(factors)

    def kappa_of(self, theta: np.ndarray, sigma2: float | None = None) -> np.ndarray:
        """Components at theta, sigma^2 profiled unless given."""
        objective = self.objective
        factors = objective.factors(theta)
        if sigma2 is None and objective.sigma_fixed is not None:
            sigma2 = objective.sigma_fixed**2
        if sigma2 is None:
            parts = objective.solver.components(factors, 0, None, self.reml)
            sigma2 = float(parts.pwrss) / objective.solver.nu(self.reml)
        return self.kappa([sigma2 * (factor @ factor.T) for factor in factors], sigma2)

    @cached_property
    def variances(self) -> np.ndarray:
        """Which components are variances, not covariances, shape (size,)."""
        diagonal = [
            all(E is None or np.count_nonzero(E - np.diag(np.diagonal(E))) == 0 for E in row)
            for row in self.directions
        ]
        return np.array([*diagonal, True])

    @cached_property
    def single(self) -> np.ndarray:
        """Which components may be zero by themselves: variances of scalar or diagonal terms."""
        alone = np.zeros(self.size, dtype=bool)
        for b, term in enumerate(self._terms):
            if term.k == 1 or self._clips[b] != "block":
                alone[self._of_term[b]] = True
        return alone

    @cached_property
    def loads(self) -> np.ndarray:
        """Mean contribution of each component, where it is 1, to the variance of an observation."""
        n = self.objective.design.n
        out = np.zeros(self.size)
        for i, row in enumerate(self.directions):
            for term, E in zip(self._terms, row, strict=True):
                if E is not None:
                    Z = term.Z
                    out[i] += float(E[0, 0]) if Z is None else float(np.einsum("ij,jk,ik->", Z, E, Z)) / n
        out[-1] = 1.0
        return out

    def proportions(self, kappa: np.ndarray) -> np.ndarray:
        """Share of each component in the mean variance of an observation."""
        parts = kappa * self.loads
        return parts / parts.sum()

    # ------------------------------------------------------------------ the set
    def inside(self, kappa: np.ndarray) -> bool:
        """Whether kappa is a possible value (boundary included, to rounding)."""
        if not (kappa[-1] > 0.0 and np.isfinite(kappa).all()):
            return False
        return all(_least(Sigma) >= -1e-12 * float(np.abs(Sigma).max()) for Sigma in self.sigmas(kappa))

    def project(self, kappa: np.ndarray) -> np.ndarray:
        """The nearest possible Sigmas; sigma^2 is left as it is."""
        if self.inside(kappa):
            return kappa
        Sigmas = []
        for b, Sigma in enumerate(self.sigmas(kappa)):
            if self._clips[b] == "block" and self._terms[b].k > 1:
                values, vectors = np.linalg.eigh(Sigma)
                Sigmas.append((vectors * np.maximum(values, 0.0)) @ vectors.T)
            else:
                Sigmas.append(np.diag(np.maximum(np.diagonal(Sigma), 0.0)))
        return self.kappa(Sigmas, float(kappa[-1]))

    # ------------------------------------------------------------------ the likelihood
    def point(self, kappa: np.ndarray, kind: str | None = None) -> ComponentsPoint:
        """Likelihood and derivatives at kappa; `kind` names the information that will be asked for."""
        return ComponentsPoint._at(self, kappa, kind not in (None, "expected"))

    def em(self, point: ComponentsPoint) -> np.ndarray:
        r"""One step of EM from a point, all components at once.

        .. math:: \Sigma_b^+ = \Sigma_b + \Sigma_b G_b \Sigma_b / m_b, \qquad
            \sigma^{2+} = \sigma^2 + 2\sigma^4 \dot\ell_{\sigma^2} / n,

        with :math:`G_b = S_b - T_b`, twice the derivative of the log-likelihood to Sigma_b: the expected mean
        of squares :math:`E(b b' \mid y)` and :math:`E(e'e \mid y)/n`, beta unknown too under REML. Laird &
        Ware (1982), Biometrics 38:963-974.
        """
        s2, parts = point.sigma2, point._parts
        Sigmas = self.sigmas(point.values)
        moments = []
        for b, Sigma in enumerate(Sigmas):
            G = parts.S[b] / s2**2 - parts.T[b] / s2
            moments.append(self._terms[b].m * Sigma + Sigma @ G @ Sigma)
        tied = self.objective._map.tied
        new = []
        for b, clip in enumerate(self._clips):
            members = tied[b]
            moment = np.sum([moments[c] for c in members], axis=0)
            moment /= sum(self._terms[c].m for c in members)
            if clip == "diagonal":
                moment = np.diag(np.diagonal(moment))
            elif clip == "trace":
                moment = np.eye(len(moment)) * float(np.trace(moment)) / len(moment)
            new.append(moment)
        sigma2 = s2
        if self.objective.sigma_fixed is None:
            sigma2 = s2 + 2.0 * s2**2 * float(point.score[-1]) / self.objective.design.n
        return self.kappa(new, sigma2)


def _least(Sigma: np.ndarray) -> float:
    return float(Sigma[0, 0]) if len(Sigma) == 1 else float(np.linalg.eigvalsh(Sigma)[0])
