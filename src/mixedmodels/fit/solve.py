"""From a model frame to a fit: solver, objective, optimiser, checks; and fits derived from other fits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from mixedmodels.errors import ConvergenceWarning, DataError, OptionError, SolverError, warn
from mixedmodels.fit import checks, derived
from mixedmodels.fit.equations import check_method, equations_of
from mixedmodels.fit.given import given_optimum, with_sigma
from mixedmodels.fit.known import read_known
from mixedmodels.fit.result import LMMFit
from mixedmodels.frame import build
from mixedmodels.objective.constrained import Constrained, feasible
from mixedmodels.objective.curved_search import is_curved, other_starts, search_curved
from mixedmodels.objective.lmm import LMMObjective
from mixedmodels.objective.restricted_structured import reflected
from mixedmodels.objective.unprofiled import PlainCriterion
from mixedmodels.optimize import minimize
from mixedmodels.optimize.minimize import METHODS
from mixedmodels.solver.choose import choose_solver
from mixedmodels.solver.threads import is_small, one_blas_thread

__all__ = [
    "Options",
    "fit_frame",
    "fit_model",
    "is_function_frame",
    "make_frame",
    "make_objective",
    "refit",
    "update",
]


# Methods that are no names of the classical algorithms of `mixedmodels.fit.classical`.
_PLAIN = frozenset(("auto", *METHODS))


@dataclass(frozen=True, slots=True, eq=False)
class Options:
    """Everything `lmm` was told beside formula and data."""

    reml: bool = True
    weights: Any = None
    offset: Any = None
    contrasts: Any = None
    na_action: str = "omit"
    start: Any = None
    method: str = "auto"
    solver: str = "auto"
    sigma: float | None = None
    control: Any = None
    progress: Any = "auto"
    functions: Any = None
    share: Any = None
    structures: Any = None
    residual: Any = None
    known: Any = None
    variances: Any = None
    priors: Any = None
    fixed: Any = None
    equal: Any = None

    def __post_init__(self) -> None:
        if isinstance(self.method, str) and self.method not in _PLAIN:
            from mixedmodels.fit.classical.names import settle

            method, reml = settle(self.method, self.reml)
            object.__setattr__(self, "method", method)
            object.__setattr__(self, "reml", reml)
        if not isinstance(self.reml, (bool, np.bool_)):
            raise OptionError(f"reml must be True or False, got {self.reml!r}")
        if self.na_action not in ("omit", "exclude", "fail"):
            raise OptionError(f"na_action must be 'omit', 'exclude' or 'fail', got {self.na_action!r}")
        if self.functions is not None and not isinstance(self.functions, Mapping):
            raise OptionError(
                'functions must be a dict from names to functions, such as {"f": f}, '
                f"got {type(self.functions).__name__}"
            )
        if self.known is not None:
            object.__setattr__(self, "known", read_known(self.known))
        if self.control is not None:
            from mixedmodels.optimize.control import control_of

            object.__setattr__(self, "control", control_of(self.control))
        if self.sigma is not None:
            try:
                valid = 0.0 < float(self.sigma) < float("inf")
            except (TypeError, ValueError):
                valid = False
            if not valid:
                raise OptionError(
                    f"sigma must be a positive number (the residual SD to hold fixed), got {self.sigma!r}"
                )


# |M factor| (scale-free) above which a point is not stationary, whatever the optimiser says
_STATIONARY = 1e-2
# Difference of the criterion from which another minimum is lower.
_LOWER = 1e-7
# Up to so many rows BLAS keeps to one thread by itself.
_SMALL = 2000
# Work space of the solver, in bytes, that a fit may keep alive.
_KEPT = 64 * 2**20

OPTION_NAMES = tuple(field.name for field in fields(Options))
# options that change the model frame; the others only change how it is fitted
_FRAME_OPTIONS = {
    "weights",
    "offset",
    "contrasts",
    "na_action",
    "functions",
    "share",
    "structures",
    "known",
    "residual",
}


def make_frame(formula: Any, data: Any, options: Options) -> Any:
    """`ModelFrame` of a formula (text, `Formula`) and data."""
    return build(
        checks.formula_of(formula, data),
        data,
        weights=options.weights,
        offset=options.offset,
        contrasts=options.contrasts,
        na_action=options.na_action,
        functions=options.functions,
        share=options.share,
        sigma_fixed=options.sigma is not None,
        relationships=options.known,
        checked=options.variances is None,
        residual=options.residual,
        structures=options.structures,
    )


def make_objective(frame: Any, options: Options) -> Any:
    """The objective of a model frame with the solver asked for."""
    design = frame.design
    if design.residual is not None:
        from mixedmodels.fit.structured import structured_objective

        return structured_objective(frame, options)
    if is_function_frame(frame):
        from mixedmodels.objective.user_factor import UserFactorObjective

        return UserFactorObjective(
            design.y,
            design.X,
            frame.Z,
            frame.covariance,
            weights=design.weights,
            offset=design.offset,
            reml=options.reml,
            sigma=options.sigma,
            x_names=design.x_names,
        )
    if options.fixed or options.equal:
        return _restricted(design, options)
    if options.priors is not None:
        from mixedmodels.objective.lmm_priors import read_linear_priors
        from mixedmodels.objective.posterior import PosteriorObjective

        priors = read_linear_priors(options.priors, design.x_names, design.terms)
        if priors is not None:
            return PosteriorObjective(
                design, lambda d: choose_solver(d, options.solver), priors, options.reml, options.sigma
            )
    solver = choose_solver(design, options.solver)
    return LMMObjective(design, solver, options.reml, sigma=options.sigma)


def _restricted(design: Any, options: Options) -> Any:
    """The objective with covariance parameters held or equal."""
    from mixedmodels.fit.lmm_restrictions import read_restrictions
    from mixedmodels.objective.parameters import parameter_map
    from mixedmodels.objective.restricted import RestrictedObjective

    if options.priors is not None:
        raise OptionError("fixed= and equal= cannot be combined with priors= in a linear mixed model")
    names = parameter_map(design).names
    found = read_restrictions(design, names, options.fixed, options.equal)
    solver = choose_solver(design, options.solver)
    return RestrictedObjective(
        design,
        solver,
        options.reml,
        options.sigma,
        found.terms,
        found.held,
        found.groups,
        equations_of(design, names, options.fixed, options.equal),
    )


def is_function_frame(frame: Any) -> bool:
    """Whether the covariance of the model is the user's function of theta."""
    return getattr(frame, "covariance", None) is not None


def fit_model(formula: Any, data: Any, options: Options) -> LMMFit:
    """Fit a formula to data."""
    if options.known is None and _is_small(data):
        return fit_frame(make_frame(formula, data, options), options, data)
    with one_blas_thread():
        return fit_frame(make_frame(formula, data, options), options, data)


def _is_small(data: Any) -> bool:
    """Whether the data have so few rows that BLAS keeps to one thread by itself."""
    try:
        rows = len(next(iter(data.values()))) if isinstance(data, dict) else len(data)
    except (TypeError, StopIteration):
        return False
    return rows <= _SMALL


def fit_frame(frame: Any, options: Options, data: Any = None, objective: Any = None) -> LMMFit:
    """Fit a model frame.

    Raises
    ------
    DataError, IdentifiabilityError
        Data that no estimate can come from.

    Warns
    -----
    ConvergenceWarning
        The optimiser stopped before its criterion was met.
    """
    if not is_small(frame.design, _SMALL):
        with one_blas_thread():
            return _fit_frame(frame, options, data, objective)
    return _fit_frame(frame, options, data, objective)


def _fit_frame(frame: Any, options: Options, data: Any, objective: Any) -> LMMFit:
    design = frame.design
    if design.residual is not None:
        from mixedmodels.fit.structured import fit_structured

        return fit_structured(frame, options, data)
    own = objective is None
    if options.variances is not None:
        options, objective, own = with_sigma(options), None, True
    if own:
        objective = make_objective(frame, options)
    if options.fixed or options.equal:
        return _fit_restricted(frame, options, data, objective)
    optimum, objective, options = _optimise(objective, options)
    kind = LMMFit
    if is_function_frame(frame):
        from mixedmodels.fit.user import FunctionFit

        kind = FunctionFit
    fit = kind(frame, objective, optimum, options, data)
    if options.sigma is None:
        checks.check_perfect_fit(fit.sigma, design.y, design.offset)
        if _steep(optimum) and _is_linear(objective):
            _check_far(fit)
    if not optimum.converged:
        warn(f"the fit did not converge: {optimum.message}", ConvergenceWarning)
    if own and getattr(getattr(objective, "solver", None), "work_bytes", 0) > _KEPT:
        fit._release()
    return fit


def _is_linear(objective: Any) -> bool:
    """Whether theta scales the covariances, as it does for structures linear in it."""
    return getattr(objective, "entries", None) is not None


def _optimise(objective: Any, options: Options) -> tuple[Any, Any, Options]:
    """The optimum by the method asked for; MINQUE fixes sigma too, in objective and options."""
    keywords: dict[str, Any] = {"progress": options.progress}
    if options.control is not None:
        keywords["control"] = options.control
    method = "newton" if options.method == "auto" else options.method
    if options.variances is not None:
        return given_optimum(objective, options.variances), objective, options
    if isinstance(method, str) and method not in _PLAIN:
        from mixedmodels.fit.classical.fits import classical_optimum

        return classical_optimum(objective, options, **keywords)
    # The certificate of the first-order conditions costs an evaluation: `fit.optimum` asks for it if wanted.
    start = start_of(options.start, objective)
    if start is None and method == "newton" and is_curved(objective):
        return search_curved(objective, **keywords), objective, options
    return minimize(objective, method, start, certify=False, **keywords), objective, options


def _fit_restricted(frame: Any, options: Options, data: Any, objective: Any) -> LMMFit:
    """A fit with covariance parameters held or equated by name."""
    keywords: dict[str, Any] = {"progress": options.progress}
    if options.control is not None:
        keywords["control"] = options.control
    method = "newton" if options.method == "auto" else options.method
    check_method(method)
    start = start_of(options.start, objective)
    found, theta = _restricted_minimum(objective, method, start, keywords)
    limited = options.control is not None and (options.control.maxiter or options.control.max_seconds)
    if start is None and method == "newton" and is_curved(objective) and not limited:
        for other in other_starts(objective, theta):
            try:
                one, point = _restricted_minimum(objective, method, other, {**keywords, "progress": None})
            except (SolverError, np.linalg.LinAlgError):
                continue  # nothing near that start has the values that are held
            if one.value < found.value - _LOWER or (one.converged and not found.converged):
                found, theta = one, point
    optimum = replace(found, theta=theta, gradient=None, hessian=None, names=tuple(objective.names))
    if not optimum.converged:
        warn(f"the fit did not converge: {optimum.message}", ConvergenceWarning)
    return LMMFit(frame, objective, optimum, options, data)


def _restricted_minimum(
    objective: Any, method: Any, start: np.ndarray | None, keywords: dict[str, Any]
) -> tuple[Any, np.ndarray]:
    """A minimum in the free coordinates, and its theta."""
    search = objective.search(start)
    found = minimize(search, method, None, certify=False, **keywords)
    theta, tau = search.point(found.theta)
    if found.converged or method != "newton":
        return found, theta
    # near correlations of 1 natural parameters are no coordinates: entries of factors are
    whole = PlainCriterion(objective, objective.equations.signed)
    try:
        y = feasible(whole, objective.equations, np.append(theta, tau)[: whole.size])
        other = Constrained(whole, objective.equations, y).search(**keywords)
    except FloatingPointError:
        return found, theta
    if other.value > found.value and not other.converged:
        return found, theta
    return other, np.clip(reflected(objective, other.theta[: len(theta)]), objective.lower, objective.upper)


def _steep(optimum: Any) -> bool:
    """Whether the criterion still falls where the optimiser stopped; theta is relative, so without units."""
    if optimum.gradient is None:
        return False
    pairs = zip(optimum.gradient.tolist(), optimum.theta.tolist(), strict=True)
    return any(abs(g * t) > _STATIONARY for g, t in pairs)


def _check_far(fit: LMMFit) -> None:
    """Refuse a model that reproduces the response once its random effects are free.

    There the criterion falls without bound as theta grows and is flat to second order, which an optimiser may
    take for convergence; the first-order conditions are violated.
    """
    from mixedmodels.errors import SolverError

    far = np.maximum(np.abs(fit.theta), 1.0) * 1e6
    try:
        pwrss = float(fit.objective.solution(np.clip(far, fit.objective.lower, fit.objective.upper)).pwrss)
    except SolverError:
        return
    sigma = float(np.sqrt(max(pwrss, 0.0) / fit._nu))
    checks.check_perfect_fit(1e-3 * sigma, fit.design.y, fit.design.offset)


def start_of(start: Any, objective: Any) -> np.ndarray | None:
    """The user's start as an array of the right length, or None."""
    if start is None:
        return None
    if isinstance(start, str):
        from mixedmodels.fit.classical.fits import start_by_name

        return start_by_name(objective, start)
    try:
        theta = np.array(start, dtype=float).reshape(-1)
    except (TypeError, ValueError):
        raise OptionError("start must be numbers: one for each entry of theta") from None
    names = tuple(objective.names)
    if theta.shape[0] != len(names):
        raise OptionError(f"start has {theta.shape[0]} values; theta has {len(names)}: {', '.join(names)}")
    if not np.isfinite(theta).all():
        raise OptionError("start holds values that are not finite")
    return theta


def refit(fit: LMMFit, new: Any) -> LMMFit:
    """The same model fitted to a new response or to new data; see `LMMFit.refit`."""
    if derived.is_data(new):
        if fit.formula is None:
            raise OptionError(
                "a model made from matrices can be refitted to a response only, not to a data frame"
            )
        return fit_model(fit.formula, new, replace(fit._options, start=None))
    y = derived.numeric_response(new)
    if y.ndim > 1:
        raise DataError(f"the new response has shape {y.shape}; it needs one value per row")
    frame = frame_with_response(fit._frame, derived.rows_of_design(fit._frame, y))
    checks.check_data(frame.design, sigma_fixed=fit._options.sigma is not None)
    return fit_frame(frame, replace(fit._options, start=None), None)


def frame_with_response(frame: Any, y: np.ndarray) -> Any:
    """The model frame with another response."""
    return replace(frame, design=replace(frame.design, y=y))


def update(fit: LMMFit, formula: Any, data: Any, changes: dict[str, Any]) -> LMMFit:
    """The model with changes; see `LMMFit.update`."""
    derived.check_changes(changes, OPTION_NAMES)
    if "variances" in changes:
        changes = {"sigma": None, **changes}
    options = replace(fit._options, **{"start": None, **changes})
    if formula is None and data is None and not (_FRAME_OPTIONS & changes.keys()):
        return fit_frame(fit._frame, options, fit._data)
    data = derived.data_for(fit, data, changes, ("weights", "offset"))
    return fit_model(derived.updated_formula(fit.formula, formula), data, options)
