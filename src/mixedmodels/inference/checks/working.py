r"""The working linear mixed model of a generalised fit: where leverages and one-step deletions come from.

At the conditional modes the response z with weights w,

.. math:: z_i = \eta_i + \frac{\partial \log f(y_i)/\partial\eta_i}{w_i}, \qquad
          w_i = E\left(-\frac{\partial^2 \log f(y_i)}{\partial\eta_i^2}\right),

follows the linear mixed model :math:`z \sim N(X\beta + Zb + o, W^{-1})`, :math:`b \sim N(0, \Sigma)`, whose
residual variance is one. All other linear predictors (zero inflation, dispersion) are held.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.design import Design
from mixedmodels.errors import OptionError
from mixedmodels.fit.base import Fit
from mixedmodels.fit.glmm_values import working_weights

if TYPE_CHECKING:
    from mixedmodels.family import Family, Observations
    from mixedmodels.fit.glmm_result import GLMMFit

__all__ = ["WorkingFit", "expected_information", "working_fit"]

_SMALL = 1e-10  # weights below this share of the largest are raised to it


class WorkingFit:
    """The working model with the attributes of a linear fit at given variances.

    Parameters
    ----------
    fit : GLMMFit
    """

    _is_linear = True
    is_reml = False
    sigma = 1.0
    note = (
        "one-step approximation by the working linear model at the conditional modes, variances held; "
        "refit=True fits the model anew without the rows"
    )

    def __init__(self, fit: GLMMFit) -> None:
        from mixedmodels.solver.choose import choose_solver

        generalised, conditional = fit.generalised, fit.generalised.predictors[0]
        data, eta = generalised.data, fit._solution.eta
        w = expected_information(fit.family, data, eta)
        w = np.maximum(w, _SMALL * float(w.max()))
        score = fit.family.derivatives(data, list(eta), 1, (0,))[1]
        self.design = Design(
            y=eta[0] + score / w,
            X=np.ones((data.n, 1)) if conditional.X is None else conditional.X,
            x_names=fit.design.x_names,
            terms=fit.design.terms,
            offset=conditional.offset,
            weights=w,
        )
        own = [j for j, c in enumerate(generalised.term_predictor) if c == 0]
        self._factors = [fit._factors[j] for j in own]
        self._b = tuple(fit._b[j] for j in own)
        self._pearson = score / np.sqrt(w)
        self.solver: Any = choose_solver(self.design)
        self._solution = self.solver.solution([np.array(factor) for factor in self._factors], False)
        self.beta = np.asarray(self._solution.beta)
        self.vcov = np.asarray(self._solution.vcov_unscaled)
        self._nu = data.n
        self._frame = self.frame = fit._frame
        self._data, self.n_rows, self._native = fit._data, fit.n_rows, fit._native
        self._options = SimpleNamespace(sigma=1.0, na_action=fit._options.na_action)
        self._cache: dict[str, Any] = {}
        self._is_small = fit._is_small

    _once: Any = Fit._once
    _rows: Any = Fit._rows

    def _residuals(self, kind: str) -> np.ndarray:
        """Pearson residuals at the conditional modes (the residual variance of the working model is one)."""
        return self._pearson


def working_fit(fit: Any) -> Any:
    """The working model of a generalised fit, kept by it; a linear fit itself."""
    return fit if fit._is_linear else fit._once("working_fit", lambda: WorkingFit(fit))


def expected_information(family: Family, data: Observations, eta: np.ndarray) -> np.ndarray:
    r"""Expected information of the conditional linear predictor in each row, times its weight.

    :math:`I = (\mathrm{d}\mu/\mathrm{d}\eta)^2/V` for exponential families. From :math:`f_0`, its score s_0
    and information I_0 follow those of the families made of it: truncated at zero,

    .. math:: I = \frac{I_0 - f_0(0)s_0(0)^2}{1 - f_0(0)} - \left(\frac{f_0(0)s_0(0)}{1 - f_0(0)}\right)^2,

    behind a hurdle with probability :math:`\pi` of zero :math:`(1 - \pi)I`, and zero-inflated

    .. math:: I = (1-\pi)\left\{I_0 - f_0(0)s_0(0)^2\,\frac{\pi}{\pi + (1-\pi)f_0(0)}\right\}.

    Families without either (ordinal ones) give the observed information if it is positive.

    Parameters
    ----------
    family : Family
    data : Observations
    eta : ndarray, shape (C, n)

    Returns
    -------
    ndarray, shape (n,)

    Raises
    ------
    OptionError
        The family has no expected information, and the observed one is not positive.
    """
    w = _information(family, data, eta)
    return w if data.weights is None else w * data.weights


def _information(family: Family, data: Observations, eta: np.ndarray) -> np.ndarray:
    from mixedmodels.family.base import Observations
    from mixedmodels.family.truncated import Truncated
    from mixedmodels.family.zero import Hurdle, ZeroInflated

    own = Observations(data.y, data.trials, None, data.levels)
    if isinstance(family, (ZeroInflated, Hurdle)):
        zero = family.zero_probability(list(eta))
        inner = _information(family.base, own, eta[:-1])
        if isinstance(family, Hurdle):
            return (1.0 - zero) * inner
        chance, score = _at_zero(family.base, own, eta[:-1])
        return (1.0 - zero) * (inner - chance * score**2 * zero / (zero + (1.0 - zero) * chance))
    if isinstance(family, Truncated):
        chance, score = _at_zero(family.base, own, eta)
        inner = _information(family.base, own, eta)
        with np.errstate(all="ignore"):
            above = -np.expm1(np.log(chance))
            found = (inner - chance * score**2) / above - (chance * score / above) ** 2
        return np.maximum(np.nan_to_num(found), 0.0)
    try:
        return working_weights(family, own, eta)
    except OptionError:
        pass
    observed = working_weights(family, own, eta, "observed")
    if not (observed > 0.0).all():
        raise OptionError(
            f"leverages and one-step deletions need positive working weights, and family {family.name!r} has "
            "no expected information; influence(..., refit=True) fits the model anew without the rows"
        )
    return observed


def _at_zero(family: Family, data: Observations, eta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Probability of a zero and the derivative of its logarithm."""
    table = family.derivatives(data.with_y(np.zeros(data.n)), list(eta), 1, (0,))
    return np.exp(table[0]), table[1]
