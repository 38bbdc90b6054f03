"""Variance components by the classical algorithms."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import ConvergenceWarning, OptionError, warn
from mixedmodels.fit.classical.fits import check_objective, held
from mixedmodels.fit.classical.names import SCHAFER, Rules, canonical
from mixedmodels.fit.classical.run import Estimate, estimate
from mixedmodels.fit.result import LMMFit
from mixedmodels.fit.solve import Options, make_frame, make_objective
from mixedmodels.inference.classical.history import history_table
from mixedmodels.inference.table import ResultTable, result_table
from mixedmodels.objective.component_space import ComponentSpace
from mixedmodels.optimize.control import control_of
from mixedmodels.solver.threads import one_blas_thread

if TYPE_CHECKING:
    from mixedmodels.objective.components import ComponentsPoint

__all__ = ["ClassicalFit", "variance_components"]


@dataclass(frozen=True, eq=False, repr=False)
class ClassicalFit:
    """Variance components estimated by a classical method.

    Attributes
    ----------
    method : str
    is_reml : bool
    names : tuple of str
        Entries of the covariance matrices, the residual variance last.
    values : ndarray
        The estimates.
    unconstrained : ndarray
        MINQUE: what the equations gave, which may have negative variances; else `values`.
    """

    method: str
    is_reml: bool
    names: tuple[str, ...]
    values: np.ndarray
    unconstrained: np.ndarray
    _frame: Any
    _objective: Any
    _options: Options
    _data: Any
    _found: Estimate

    # ------------------------------------------------------------------ how it went
    @property
    def optimum(self) -> Any:
        """The search (`Optimum`): status, iterations, evaluations, message."""
        return self._found.optimum

    @property
    def converged(self) -> bool:
        """Whether the search met its rule."""
        return bool(self.optimum.converged)

    @property
    def iterations(self) -> int:
        """Iterations of the search."""
        return int(self.optimum.iterations)

    @property
    def history(self) -> ResultTable:
        """Every step tried: iteration, step, loglik, components, length, accepted, gradient, decrement.

        The last row is the point reached; ``gradient`` is the norm of the score, ``decrement`` the predicted
        decrease of minus twice the log-likelihood.
        """
        return history_table(self.optimum.history, self.method, self.optimum.message)

    # ------------------------------------------------------------------ what came out
    @cached_property
    def at(self) -> ComponentsPoint:
        """The likelihood at the estimates: ``loglik``, ``score`` and ``information(kind)``."""
        return ComponentSpace(self._objective).point(self.values)

    @property
    def loglik(self) -> float:
        """Log-likelihood, restricted under REML."""
        return float(self.at.loglik)

    @property
    def proportions(self) -> np.ndarray:
        """Share of each component in the mean variance of an observation; their sum is 1."""
        return ComponentSpace(self._objective).proportions(self.values)

    def covariance(self, kind: str = "expected") -> np.ndarray:
        """Covariance matrix of the estimates: the inverse information of the components that are not zero.

        Parameters
        ----------
        kind : {"expected", "observed", "average"}

        Returns
        -------
        ndarray
            NaN in the rows of variances estimated at zero.

        Raises
        ------
        OptionError
            The information matrix is singular or the kind unknown.
        """
        information = self.at.information(kind)
        space = ComponentSpace(self._objective)
        free = np.flatnonzero(~(space.single & (self.values <= 0.0)))
        out = np.full(information.shape, np.nan)
        try:
            out[np.ix_(free, free)] = np.linalg.inv(information[np.ix_(free, free)])
        except np.linalg.LinAlgError:
            raise OptionError(f"the {kind} information is singular at the estimates") from None
        return out

    def table(self, kind: str = "expected") -> ResultTable:
        """Estimates, standard errors and shares in the variance.

        Parameters
        ----------
        kind : {"expected", "observed", "average"}
            Information behind the standard errors.
        """
        variances = np.diagonal(self.covariance(kind))
        with np.errstate(invalid="ignore"):
            errors = np.sqrt(variances)
        notes = [self.optimum.message, f"standard errors from the {kind} information"]
        columns = {
            "component": np.array(self.names, dtype=object),
            "estimate": self.values,
            "std_error": errors,
            "proportion": self.proportions,
        }
        title = f"Variance components by {self.method} ({'REML' if self.is_reml else 'ML'})"
        return result_table(title, columns, notes=tuple(notes), extra={"loglik": self.loglik})

    @cached_property
    def fit(self) -> LMMFit:
        """The linear mixed model at these components: BLUE, BLUP and all other questions.

        After MINQUE, which maximises no likelihood, sigma is held at its estimate.
        """
        optimum, objective, options = held(self._found, self._objective, self._options, self.method)
        return LMMFit(self._frame, objective, optimum, options, self._data)

    def __str__(self) -> str:
        return f"{self.table()}\nlog-likelihood {self.loglik:.6f}"

    __repr__ = __str__


@one_blas_thread()
def variance_components(
    model: Any,
    data: Any = None,
    *,
    method: str = "average-information",
    reml: bool | None = None,
    starts: Any = "moments",
    scoring: int = 0,
    convergence: str = "decrement",
    tol: float | None = None,
    maxiter: int | None = None,
    points: int = 10,
    halvings: int = 40,
    control: Any = None,
    progress: Any = "auto",
    **options: Any,
) -> ClassicalFit:
    r"""Estimate variance components by a classical algorithm.

    The parameters :math:`\kappa` are the entries of the covariance matrices and the residual variance;
    :math:`V = \sum_i \kappa_i V_i` is linear in them and beta is profiled out of the (restricted)
    log-likelihood. With the score :math:`s_i = -\tfrac12[\mathrm{tr}(PV_i) - y'PV_iPy]` the steps are
    :math:`\kappa + t\, I^{-1}s`, halved until they stay in the parameter space and do not lower the
    likelihood.

    Parameters
    ----------
    model : str, Formula, LinearMixedModel or LMMFit
        A formula needs `data`.
    data : data frame or dict of arrays, optional
    method : str
        ====================================  =====================================================
        "average-information" ("ai")          ``1/2 y'P V_i P V_j P y``
        "fisher"                              expected information, ``1/2 tr(P V_i P V_j)``
        "newton-raphson"                      observed information
        "em", "ecme"                          expectation-maximisation
        "grid"                                a grid of shares, then average information
        "minque(0)", "minque(1)",             quadratic estimates, no iterations: weights V = I or the
        "minque(mean)"                        sum of all V_i, or the mean of both
        "fast" ("fastml", "fastrml")          Schafer's hybrid of Fisher scoring on logarithms and ECME
        ====================================  =====================================================
    reml : bool, optional
        By default that of the model; REML for a formula. "fastml", "ecmeml", "fastrml" and "ecmerml" say it.
    starts : str, dict or sequence
        "moments", "ols", "equal", "em", "minque0", "minque1", "minquemean", or values.
    scoring : int
        Rounds of Fisher scoring before the method's own steps.
    convergence : {"decrement", "proportions", "relative"}
        Rule of convergence: predicted decrease of the deviance (free of scale and honest about slow
        convergence), change of the shares in the variance, relative change of each component.
    tol : float, optional
        For the rule; by default 1e-9, 1e-8 and 1e-4.
    maxiter, points, halvings : int
        Iterations; values of each share on the grid (at most; fewer with many terms); how often a step may be
        halved.
    control : Control or dict, optional
    progress : "auto", bool or callable
    **options
        Other keywords of `lmm` where `model` is a formula.

    Returns
    -------
    ClassicalFit

    Raises
    ------
    OptionError
        Unknown method or option, or a model without variance components of this kind.

    Warns
    -----
    ConvergenceWarning
        The search stopped early.

    References
    ----------
    Searle, Casella & McCulloch (1992), *Variance Components*; Lynch & Walsh (1998), chapter 27; Gilmour,
    Thompson & Cullis (1995), Biometrics 51:1440-1450; Rao (1971), J. Multivariate Anal. 1:257-275; Schafer
    (1998), *Some improved procedures for linear mixed models*.

    Examples
    --------
    >>> import mixedmodels as mm
    >>> data = mm.load_dataset("Dyestuff", backend="dict")
    >>> found = mm.variance_components("Yield ~ 1 + (1 | Batch)", data, method="ai")
    >>> found.values.round().tolist()
    [1764.0, 2451.0]
    >>> mm.variance_components(found.fit, method="minque(0)").values.round().tolist()
    [1764.0, 2451.0]
    """
    name = canonical(method)
    if isinstance(method, str) and method in SCHAFER:
        reml = SCHAFER[method][1]
    frame, objective, chosen, source = _model(model, data, reml, name, options)
    check_objective(objective, name)
    settings = control_of({} if control is None else control)
    if maxiter is not None:
        settings = replace(settings, maxiter=maxiter)
    rules = Rules(scoring, convergence, tol, halvings, points)
    found = estimate(objective, name, starts, rules, settings, progress)
    if not found.optimum.converged:
        warn(f"the search did not converge: {found.optimum.message}", ConvergenceWarning)
    for array in (found.kappa, found.unconstrained):
        array.setflags(write=False)
    return ClassicalFit(
        name,
        objective.reml,
        ComponentSpace(objective).names,
        found.kappa,
        found.unconstrained,
        frame,
        objective,
        chosen,
        source,
        found,
    )


def _model(
    model: Any, data: Any, reml: bool | None, method: str, options: dict[str, Any]
) -> tuple[Any, Any, Options, Any]:
    """Frame, objective, options and data of a formula, a model or a fit."""
    if hasattr(model, "_frame") and hasattr(model, "_options"):
        if data is not None or options:
            raise OptionError(
                "a model or fit brings its own data and options; give a formula to change them, or update it"
            )
        if not getattr(model, "_is_linear", True):
            raise OptionError("variance_components is for linear mixed models; this is a generalised one")
        old = model._options
        chosen = replace(old, method=method, start=None, reml=old.reml if reml is None else reml)
        if old.method.startswith("minque"):
            chosen = replace(chosen, sigma=None)
        objective = getattr(model, "objective", None)
        if not hasattr(objective, "reml") or (chosen.reml, chosen.sigma) != (old.reml, old.sigma):
            objective = make_objective(model._frame, chosen)
        return model._frame, objective, chosen, model._data
    if data is None:
        raise OptionError(
            "give data with a formula, or a LinearMixedModel or a fitted linear model in its place"
        )
    chosen = Options(reml=True if reml is None else reml, method=method, **options)
    frame = make_frame(model, data, chosen)
    return frame, make_objective(frame, chosen), chosen, data
