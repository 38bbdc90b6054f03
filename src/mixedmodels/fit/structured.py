"""Fits of linear mixed models with structured residuals, and generalised least squares."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import ConvergenceWarning, OptionError, warn
from mixedmodels.fit import checks, values
from mixedmodels.fit.equations import check_method, equations_of
from mixedmodels.fit.residual_restrictions import held_residuals
from mixedmodels.fit.result import LMMFit
from mixedmodels.objective.restricted_structured import RestrictedStructured, restricted_search
from mixedmodels.objective.structured import StructuredObjective
from mixedmodels.objective.structured_search import search
from mixedmodels.optimize.minimize import METHODS
from mixedmodels.solver._kernels.evaluator import regular_inverse
from mixedmodels.solver.choose import SOLVER_NAMES

if TYPE_CHECKING:
    from mixedmodels.design import RandomTerm
    from mixedmodels.fit.solve import Options
    from mixedmodels.residual.base import BoundResidual, NaturalValues

__all__ = ["ResidualEstimates", "StructuredFit", "fit_structured", "structured_objective"]

# Multiplications up to which errors of the residual parameters come from the observed information.
_EXACT_WORK = 1e9
# Smallest eigenvalue of the information with unit diagonal of a model that the data identify.
_FLAT = 1e-6
# Information about a parameter beside the largest that is practically none; smallest pivot far from singular.
_LITTLE, _REGULAR = 1e-8, 1e-2
# A ratio of standard deviations that is practically zero.
_NO_SD = 1e-3
# Rounds of updating a variance covariate that is the fitted values, and their relative tolerance.
_ROUNDS = 100
_SETTLED = 1e-8


@dataclass(frozen=True, slots=True, eq=False)
class ResidualEstimates:
    """Estimated structure of the residuals on the scale on which people report it.

    Attributes
    ----------
    description : str
        The structure in words.
    names : tuple of str
        For instance ``("rho", "sd_ratio[Female]")``.
    kinds : tuple of str
        ``"correlation"``, ``"sd_ratio"``, ``"range"``, ``"power"``, ...
    values, std_error : ndarray, shape (r,)
        Estimates and their standard errors by the delta method.
    rounds : int
        How often a variance covariate of fitted values was updated; 0 where there is none.
    """

    description: str
    names: tuple[str, ...]
    kinds: tuple[str, ...]
    values: np.ndarray
    std_error: np.ndarray
    rounds: int = 0

    def __getitem__(self, name: str) -> float:
        """The estimate of one parameter by name; OptionError if there is none of that name."""
        if name not in self.names:
            raise OptionError(
                f"the residual structure has no parameter {name!r}; it has {', '.join(self.names) or 'none'}"
            )
        return float(self.values[self.names.index(name)])

    def columns(self) -> dict[str, Any]:
        """The estimates as columns: term, kind, estimate, std_error."""
        return {
            "term": list(self.names),
            "kind": list(self.kinds),
            "estimate": self.values.tolist(),
            "std_error": self.std_error.tolist(),
        }

    def __str__(self) -> str:
        rows = [
            f"  {name} {value:.6g} (SE {error:.3g})"
            for name, value, error in zip(self.names, self.values, self.std_error, strict=True)
        ]
        return "\n".join([self.description, *rows])


def _solver_note(name: str, used: str) -> str:
    """What became of a solver asked for by name."""
    return (
        f"solver={name!r}: with residual= the search has an engine of its own, and the name holds for the "
        f"solver of the random effects only where residual groups lie within levels; it was: {used}"
    )


class StructuredFit(LMMFit):
    """A fitted linear mixed model with ``Var(e) = sigma^2 R(phi)``.

    `theta` holds the parameters of the random effects, then those of the residuals (`phi`). Everything else
    is as for `LMMFit`; without random effects it is a fit by generalised least squares.
    """

    __slots__ = ()

    @property
    def phi(self) -> np.ndarray:
        """Parameters of the residual structure in the coordinates of the search, shape (n_phi,)."""
        return self._once("phi", lambda: self.theta[len(self.theta) - self.residual_structure.n_phi :])

    @property
    def residual_structure(self) -> BoundResidual:
        """The structure bound to the data (`BoundResidual`)."""
        bound = self.design.residual
        assert bound is not None
        return bound

    def _count_parameters(self) -> int:
        free = self.design.p + len(self.theta) + (self._options.sigma is None)
        return free - len(self.objective.held) - len(self._equations)

    @property
    def _restricted(self) -> bool:
        """False: what is held has closed bounds in the objective."""
        return False

    @property
    def _equations(self) -> Any:
        """What binds covariance parameters: `Equations`, or () where at most entries of phi are held."""
        return getattr(self.objective, "equations", ())

    def _compute_sigma(self) -> float:
        return self.objective.sigma(np.array(self.theta)) if self._equations else super()._compute_sigma()

    @property
    def rounds(self) -> int:
        """How often a variance covariate of fitted values was updated; 0 where there is none."""
        return self._cache.get("residual_rounds", 0)

    @property
    def _point(self) -> Any:
        """R at the estimates."""
        return self._once("residual_point", lambda: self.residual_structure.at(np.array(self.phi)))

    @property
    def residual(self) -> ResidualEstimates:
        """Correlations, ranges, powers and ratios of standard deviations of the residuals, with errors."""
        return self._once("residual", self._compute_residual)

    @property
    def _natural(self) -> NaturalValues:
        """Correlations, ranges, ratios of standard deviations, ... with their derivatives in phi."""
        return self._once("natural", lambda: self.residual_structure.natural(np.array(self.phi)))

    def _compute_residual(self) -> ResidualEstimates:
        natural = self._natural
        jacobian = natural.jacobian
        variances = ((jacobian @ self._phi_covariance()) * jacobian).sum(axis=1)
        errors = [math.sqrt(v) if v >= 0.0 else math.nan for v in variances.tolist()]
        return ResidualEstimates(
            self.residual_structure.describe(),
            tuple(natural.names),
            tuple(natural.kinds),
            values.readonly(np.array(natural.values, dtype=float)),
            values.readonly(np.array(errors)),
            self.rounds,
        )

    def _residual_rows(self) -> tuple[tuple[str, float], ...]:
        natural = self._natural
        return tuple(zip(natural.names, natural.values.tolist(), strict=True))

    def _phi_covariance(self) -> np.ndarray:
        """Covariance of phi from the observed information; parameters on a bound count as known.

        From average information where the exact one takes long: crossed effects and many rows. NaN for
        parameters that the data cannot tell apart.
        """
        n_phi = self.residual_structure.n_phi
        if not n_phi:
            return np.zeros((0, 0))
        if self._equations:
            n = len(self.theta)
            return self.objective.restricted_covariance(np.array(self.theta))[n - n_phi : n, n - n_phi : n]
        return self._once("psi_covariance", self._psi_covariance)[0][-n_phi:, -n_phi:]

    def _psi_covariance(self) -> tuple[np.ndarray, np.ndarray]:
        """Covariance of psi, zero for what is on a bound, and which parameters the data cannot tell apart."""
        theta, objective = np.array(self.theta), self.objective
        exact = objective.trace_work <= _EXACT_WORK
        units = objective.units  # what is little is so in any unit of the columns of Z and of y
        information = objective.information(theta, "observed" if exact else "average")
        information = information / units / units[:, None]
        free = (theta > objective.lower) & (theta < objective.upper)
        confounded = np.zeros(len(theta), dtype=bool)
        sizes = information.diagonal().tolist()
        if sizes and free.all() and min(sizes) > _LITTLE * max(sizes):
            inverse = regular_inverse(information, _REGULAR)
            if inverse is not None:
                return 2.0 * inverse / units / units[:, None], confounded
        out = np.full(information.shape, np.nan)
        own = information[np.ix_(free, free)]
        diagonal, scale = np.diagonal(own), _unit_scale(own)
        loose = diagonal <= _LITTLE * max(float(np.abs(diagonal).max(initial=0.0)), 1e-300)
        if np.isfinite(own).all():
            values, vectors = np.linalg.eigh(own / scale / scale[:, None])
            for value, vector in zip(values, vectors.T, strict=True) if not loose.all() else ():
                if value < _FLAT:
                    loose = loose | (np.abs(vector) > 0.1)
            known = np.divide(2.0, values, out=np.zeros_like(values), where=values >= _FLAT)
            out[np.ix_(free, free)] = (vectors * known) @ vectors.T / scale / scale[:, None]
        confounded[np.flatnonzero(free)[loose]] = True
        out[confounded] = np.nan
        out[:, confounded] = np.nan
        out[~free] = 0.0
        out[:, ~free] = 0.0
        return out / units / units[:, None], confounded

    @property
    def _whitened_terms(self) -> tuple[RandomTerm, ...]:
        """The terms with rows divided by their standard deviations: levels may have units of their own."""
        return self._terms if self.residual_structure.is_even else self._once("whitened", self._divided_terms)

    def _divided_terms(self) -> tuple[RandomTerm, ...]:
        scale = self.residual_structure.row_variances(np.array(self.phi)) ** -0.5
        return tuple([_divided(term, scale[:, None]) for term in self._terms])

    def _vanishing(self) -> str:
        """Names of ratios of standard deviations that are practically zero, the reference's (1) included.

        Beside those of residuals of least squares: levels may have units of their own.
        """
        bound, natural = self.residual_structure, self._natural
        usual = bound.natural(bound.start_from(self.objective.fixed.r))
        found = zip(natural.names, natural.kinds, natural.values, usual.values, strict=True)
        ratios = [(name, float(value / size)) for name, kind, value, size in found if kind == "sd_ratio"]
        largest = max([1.0] + [value for _, value in ratios])
        names = [name for name, value in ratios if value < _NO_SD * largest]
        return ", ".join(
            (["that of the reference level"] if ratios and largest * _NO_SD > 1.0 else []) + names
        )

    @property
    def solver(self) -> Any:
        """Solver of the random effects in whitened rows, phi at its estimate."""
        return self._once("solver", lambda: self.objective.at_phi(np.array(self.theta)).solver)

    def _release(self) -> None:
        """Keep the objective: it holds little beside the data."""

    def _residuals(self, kind: str) -> np.ndarray:
        if kind in ("standardized", "studentized"):
            return self._leverage_residuals(kind)
        eta = self._linear_predictor("population" if kind == "marginal" else None)
        out = self.design.y - eta
        if kind in ("pearson", "scaled") and not self.residual_structure.is_even:
            out = out / np.sqrt(self.residual_structure.row_variances(np.array(self.phi)))
        elif kind == "normalized":
            out = self._point.whiten(out[:, None])[:, 0]
        return out / self.sigma if kind in ("scaled", "normalized") else out

    def _compute_deviance(self) -> float:
        if not self.is_reml:
            return self.criterion
        from mixedmodels.objective.base import gaussian_criterion

        solution, sigma = self._solution, self.sigma if self._equations else self._options.sigma
        fixed = None if sigma is None else float(sigma)
        return gaussian_criterion(float(solution.logdet_L2), float(solution.pwrss), self.nobs, fixed)

    def _compute_messages(self) -> tuple[str, ...]:
        rounds = self.residual.rounds
        out = super()._compute_messages()
        objective = self.objective
        if objective.solver_name != "auto":
            out += (_solver_note(objective.solver_name, self.solver.describe()),)
        if self._equations:
            out += tuple([text for text in self._equations.texts if text])
            confounded = np.zeros(len(self.theta), dtype=bool)
        else:
            if fixed := self._options.fixed:
                out += tuple([f"{name} is held at {float(value):g}" for name, value in fixed.items()])
            _, confounded = self._once("psi_covariance", self._psi_covariance)
        if confounded.any():
            names = ", ".join([name for name, one in zip(self.theta_names, confounded, strict=True) if one])
            out += (
                f"the data cannot tell these parameters apart or say nothing about them: {names}; their "
                "errors are NaN; leave a random term or a part of the residual structure out",
            )
        rival = objective.rival if objective.twin is None else objective.twin.objective.rival
        if rival is not None:
            out += (
                f"the likelihood has another maximum at quite different parameters, whose criterion is only "
                f"{rival:.2g} higher: the data hardly tell them apart; a simpler structure is safer",
            )
        if "sd_ratio" in self.residual.kinds and (vanishing := self._vanishing()):
            out += (
                f"residual standard deviations that are practically zero beside the others: {vanishing}; "
                "these rows are fitted almost exactly, and the likelihood hardly changes on the way to zero: "
                "let levels share a variance, or leave a random term out",
            )
        for j in objective.ranges:
            if self.theta[j] >= objective.upper[j]:
                out += (
                    "the range of the residual correlation is at its upper bound: the likelihood rises as it "
                    "goes to infinity, and sigma with it; a random effect or a trend describes such data",
                )
        if rounds:
            out += (
                f"the variance covariate of fitted values was updated {rounds} times, held fixed within each "
                "search: not the full likelihood in the mean",
            )
        return out


def _divided(term: RandomTerm, scale: np.ndarray) -> RandomTerm:
    """A term whose rows are multiplied by numbers, shape (n, 1)."""
    return term if term.several_levels else replace(term, Z=scale * (1.0 if term.Z is None else term.Z))


def _unit_scale(information: np.ndarray) -> np.ndarray:
    """Square roots of the diagonal; the largest of them where it is nothing beside the others."""
    diagonal = np.diagonal(information)
    largest = float(np.abs(diagonal).max(initial=0.0)) or 1.0
    return np.sqrt(np.where(diagonal > _LITTLE * largest, diagonal, largest))


def _not_yet(what: str, remedy: str) -> Exception:
    from mixedmodels.errors import NotImplementedYetError

    return NotImplementedYetError(
        f"{what} of a model with structured residuals is not in this version; {remedy}"
    )


def structured_objective(frame: Any, options: Options) -> StructuredObjective:
    """The objective of a model frame whose design has a residual structure."""
    if options.solver not in SOLVER_NAMES:
        raise OptionError(f"unknown solver {options.solver!r}; choose one of {', '.join(SOLVER_NAMES)}")
    objective = StructuredObjective(frame.design, options.reml, options.sigma, options.solver)
    if not (options.fixed or options.equal):
        return objective
    equations = equations_of(frame.design, objective.names, options.fixed, options.equal)
    held = None if options.equal else held_residuals(frame.design, options.fixed)
    if held is None:
        return RestrictedStructured(frame.design, options.reml, options.sigma, options.solver, equations)
    objective.hold(held)
    return objective


def _minimised(objective: Any, method: Any, start: Any, keywords: dict[str, Any]) -> Any:
    """The optimum of an objective, whatever restricts it."""
    if not isinstance(objective, RestrictedStructured):
        return search(objective, method, start, **keywords)
    check_method(method)
    return restricted_search(objective, method, start, **keywords)


def fit_structured(frame: Any, options: Options, data: Any = None) -> StructuredFit:
    """Fit a model frame whose design has a residual structure.

    Parameters
    ----------
    frame : ModelFrame
    options : Options
    data : data frame or None

    Raises
    ------
    NotImplementedYetError
        Priors or given variances.

    Warns
    -----
    ConvergenceWarning
        The search stopped early.
    """
    from mixedmodels.fit.solve import start_of

    for name in ("priors", "variances"):
        if getattr(options, name, None) is not None:
            raise _not_yet(f"{name}=", "leave one of them out")
    keywords: dict[str, Any] = {"progress": options.progress}
    if options.control is not None:
        keywords["control"] = options.control
    method = "newton" if options.method == "auto" else options.method
    if isinstance(method, str) and method not in METHODS:
        raise OptionError(
            f"method {options.method!r} is for independent residuals and random effects; here use "
            f'method="auto" or one of {", ".join(METHODS)}'
        )
    rounds = 0
    if frame.design.residual.needs_fitted:
        frame, objective, optimum, rounds = _alternate(frame, options, method, keywords)
    else:
        objective = structured_objective(frame, options)
        _check_fixed_part(objective)
        if options.solver != "auto" and objective.n_random:
            objective.at_phi(objective.start)  # refuses a solver that does not exist or cannot do it
        optimum = _minimised(objective, method, start_of(options.start, objective), keywords)
    if objective.held:
        optimum = _without_held(objective, optimum)
    fit = StructuredFit(frame, objective, optimum, options, data)
    fit._cache["residual_rounds"] = rounds
    if options.sigma is None:
        checks.check_perfect_fit(fit.sigma, frame.design.y, frame.design.offset)
    if not optimum.converged:
        warn(f"the fit did not converge: {optimum.message}", ConvergenceWarning)
    return fit


def _without_held(objective: StructuredObjective, optimum: Any) -> Any:
    """The optimum, whose message takes a parameter that is held for one on its bound."""
    free = np.delete(np.arange(objective.n_theta), objective.held)
    theta = np.asarray(optimum.theta)[free]
    inside = np.all(theta > objective.lower[free]) and np.all(theta < objective.upper[free])
    return replace(optimum, message="converged") if optimum.converged and inside else optimum


def _check_fixed_part(objective: StructuredObjective) -> None:
    """Refuse a response that the fixed effects alone reproduce, before the search divides by zero."""
    if objective.sigma_fixed is None:
        rest, design = objective.fixed.r, objective.design
        checks.check_perfect_fit(math.sqrt(float(rest @ rest) / design.n), design.y, design.offset)


def _alternate(
    frame: Any, options: Options, method: Any, keywords: dict[str, Any]
) -> tuple[Any, StructuredObjective, Any, int]:
    """Fits with the fitted values as variance covariate, until they no longer change."""
    from mixedmodels.fit.solve import start_of
    from mixedmodels.solver.dense import fixed_part

    design = frame.design
    fixed = fixed_part(design.y, design.X, design.x_names, design.offset, None)
    fitted = design.y - fixed.r
    bound = design.residual
    objective, optimum, start = None, None, None
    rounds, change = 0, np.inf
    while rounds < _ROUNDS and change >= _SETTLED:
        rounds += 1
        moved = replace(design, residual=bound.with_fitted(fitted))
        objective = structured_objective(replace(frame, design=moved), options)
        _check_fixed_part(objective)
        given = start_of(options.start, objective) if start is None else start
        optimum = _minimised(objective, method, given, keywords)
        start = np.array(optimum.theta)
        new = _fitted(objective, start)
        change = float(np.abs(new - fitted).max()) / max(float(np.abs(new).max()), 1e-300)
        fitted = new
    assert objective is not None and optimum is not None
    return replace(frame, design=objective.design), objective, optimum, rounds


def _fitted(objective: StructuredObjective, psi: np.ndarray) -> np.ndarray:
    """Conditional fitted values at psi; without random effects the marginal ones."""
    design, solution = objective.design, objective.solution(psi)
    out = values.fixed_predictor(design.X, solution.beta, design.offset)
    for term, b in zip(design.terms, solution.b, strict=True):
        out = out + values.term_contribution(term.codes, term.Z, b)
    return out
