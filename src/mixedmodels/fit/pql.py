r"""Penalised quasi-likelihood, for comparison with systems that stop there.

Linear mixed models are fitted to the working response until it no longer changes,

.. math:: z = \eta + (y - \mu)\,/\,\mu'(\eta), \qquad z = X\beta + Zb + o + e, \quad
          e_i \sim N(0, \sigma^2 / w_i), \quad w_i = \mu'(\eta_i)^2 / V(\mu_i).

The estimates are those of a linear mixed model for z, not of the generalised one for y: variances of binary
data and small counts come out too small, and there is no likelihood of y to compare models with.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import ConvergenceWarning, DataError, OptionError, warn
from mixedmodels.fit.glmm_values import working_response, working_weights
from mixedmodels.fit.solve import Options, fit_frame
from mixedmodels.fit.values import term_contribution

if TYPE_CHECKING:
    from mixedmodels.fit.glmm_result import GLMMFit
    from mixedmodels.fit.result import LMMFit

__all__ = ["PQL", "penalised_quasi_likelihood"]

_SMALLEST = 1e-10  # weights of rows whose mean has reached a limit, relative to the mean weight


@dataclass(frozen=True, slots=True, eq=False)
class PQL:
    """Estimates by penalised quasi-likelihood.

    Attributes
    ----------
    working : LMMFit
        The last working linear mixed model: `fixef`, `se`, `varcorr`, `ranef` are its. Its likelihood is that
        of the working response, not of the data.
    response, weights : ndarray, shape (n,)
        Working response and weights it was fitted to.
    eta : ndarray, shape (n,)
        Linear predictor at its estimates.
    iterations : int
        Working models that were fitted.
    converged : bool
    """

    working: LMMFit
    response: np.ndarray
    weights: np.ndarray
    eta: np.ndarray
    iterations: int
    converged: bool

    @property
    def fixef(self) -> dict[str, float]:
        """Coefficients by name."""
        return self.working.fixef

    @property
    def se(self) -> dict[str, float]:
        """Standard errors by name, the variances taken as known."""
        return self.working.se

    @property
    def varcorr(self) -> Any:
        """Standard deviations and correlations of the random effects."""
        return self.working.varcorr

    def __repr__(self) -> str:
        how = f"{self.iterations} working models" + ("" if self.converged else ", not converged")
        lines = [f"Penalised quasi-likelihood ({how})", "", str(self.varcorr), ""]
        width = max(map(len, self.fixef), default=0)
        lines += [
            f"{name:<{width}}  {value: .5g}  (se {self.se[name]:.4g})" for name, value in self.fixef.items()
        ]
        return "\n".join(lines)


def penalised_quasi_likelihood(
    fit: GLMMFit, reml: bool = False, sigma: float | None = 1.0, maxiter: int = 100, tol: float = 1e-8
) -> PQL:
    r"""The model of a generalised fit by penalised quasi-likelihood; see `GLMMFit.pql`.

    Parameters
    ----------
    fit : GLMMFit
        Its data, formula and family are taken, not its estimates.
    reml : bool
        REML or maximum likelihood in the working models.
    sigma : float or None
        Residual standard deviation of the working models; 1 is the model's, None estimates it (a quasi-model
        with :math:`Var(y) = \sigma^2 V(\mu)`).
    maxiter : int
        Working models at most.
    tol : float
        Relative change of :math:`\eta` at which they end.

    Raises
    ------
    OptionError
        A family with other parameters than a mean, or options that are no numbers.
    DataError
        A working response that does not exist.

    Warns
    -----
    ConvergenceWarning
        The working response still changed after `maxiter` models.

    References
    ----------
    Breslow & Clayton (1993), Approximate inference in generalized linear mixed models, JASA 88:9-25.
    """
    design, family, frame = fit.generalised, fit.family, fit._frame
    if len(design.predictors) > 1:
        others = ", ".join(predictor.name for predictor in design.predictors[1:])
        raise OptionError(
            f"pql knows a mean and its variance only, and family {family.name!r} also has {others}; use "
            "glmm, which estimates them all by maximum likelihood"
        )
    if not isinstance(maxiter, (int, np.integer)) or maxiter < 1 or not tol > 0.0:
        raise OptionError(f"pql: maxiter must be 1 or more and tol positive, got {maxiter!r} and {tol!r}")
    options = Options(reml=reml, sigma=sigma, progress=False)
    eta = np.array(family.start(design.data)[0], dtype=float)
    working, change = None, np.inf
    steps, converged = 0, False
    while steps < maxiter and not converged:
        z, w = _working(family, design.data, eta)
        model = replace(frame, design=replace(frame.design, y=z, weights=w), messages=())
        start = None if working is None else working.theta
        working = fit_frame(replace(model, generalised=None), replace(options, start=start))
        steps += 1
        moved = _linear_predictor(working)
        change = float(np.linalg.norm(moved - eta))
        converged = change <= tol * max(float(np.linalg.norm(moved)), 1.0)
        eta = moved
    assert working is not None
    if not converged:
        warn(
            f"pql did not converge: the linear predictor still moves by {change:.2g} after {steps} working "
            "models; raise maxiter or tol",
            ConvergenceWarning,
        )
    return PQL(working, z, w, eta, steps, converged)


def _working(family: Any, data: Any, eta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Working response and positive weights."""
    point = eta[None, :]
    z, w = working_response(family, data, point), working_weights(family, data, point)
    if not (np.isfinite(z).all() and np.isfinite(w).all()):
        row = int(np.flatnonzero(~(np.isfinite(z) & np.isfinite(w)))[0])
        raise DataError(
            f"pql has no working response in row {row} of the fit: its mean is at a limit of family "
            f"{family.name!r}; glmm does not need one"
        )
    return z, np.maximum(w, _SMALLEST * w.mean())


def _linear_predictor(fit: LMMFit) -> np.ndarray:
    """Fixed and random parts of the rows in the likelihood, with the offset."""
    design = fit.design
    eta = design.X @ fit.beta
    if design.offset is not None:
        eta = eta + design.offset
    for term, b in zip(design.terms, fit._b, strict=True):
        eta = eta + term_contribution(term.codes, term.Z, b)
    return eta
