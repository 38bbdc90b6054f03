"""A linear mixed model that is not fitted: its criterion, derivatives and likelihood anywhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import OptionError
from mixedmodels.fit.solve import (
    OPTION_NAMES,
    Options,
    fit_frame,
    is_function_frame,
    make_frame,
    make_objective,
    start_of,
)

if TYPE_CHECKING:
    from mixedmodels.design import Design, RandomTerm
    from mixedmodels.fit.result import LMMFit

__all__ = ["LinearMixedModel"]


class LinearMixedModel:
    """A linear mixed model with its data, before any fitting.

    Parameters
    ----------
    formula, data
        As for `mixedmodels.lmm`.
    reml : bool
        Whether `objective` is the REML criterion (default) or the deviance.
    **options
        The other keywords of `mixedmodels.lmm`.

    Attributes
    ----------
    start, lower, upper : ndarray, shape (n_theta,)
        Default start and bounds of theta.
    theta_names : tuple of str

    Examples
    --------
    >>> import mixedmodels as mm
    >>> data = mm.load_dataset("sleepstudy", backend="dict")
    >>> model = mm.LinearMixedModel("Reaction ~ Days + (Days | Subject)", data, reml=False)
    >>> round(model.objective([1.0, 0.0, 1.0]), 4)
    1784.6423
    >>> round(model.fit().deviance, 4)
    1751.9393
    """

    def __init__(self, formula: Any, data: Any, reml: bool = True, **options: Any) -> None:
        from mixedmodels.api import make_options

        unknown = [name for name in options if name not in (*OPTION_NAMES, "residual", "known")]
        if unknown:
            raise OptionError(f"there is no option {unknown[0]!r}; available: {', '.join(OPTION_NAMES)}")
        chosen = make_options(reml=reml, **options)
        self._setup(make_frame(formula, data, chosen), chosen, data)

    def _setup(self, frame: Any, options: Options, data: Any) -> None:
        self._frame = frame
        self._options = options
        self._data = data
        self._objective = make_objective(frame, options)

    @classmethod
    def from_matrices(
        cls,
        y: Any,
        X: Any,
        terms: Sequence[RandomTerm] | Any,
        *,
        covariance: Callable[[np.ndarray], np.ndarray] | None = None,
        start: Any = None,
        lower: Any = None,
        upper: Any = None,
        jacobian: Callable[[np.ndarray], Sequence[Any]] | None = None,
        weights: Any = None,
        offset: Any = None,
        names: Sequence[str] | None = None,
        residual: Any = None,
        columns: Mapping[str, Any] | None = None,
        reml: bool = True,
        **options: Any,
    ) -> LinearMixedModel:
        """A model from arrays, without a formula.

        Parameters
        ----------
        y : array, shape (n,)
        X : array, shape (n, p), or None
            Fixed-effects columns, of full column rank.
        terms : sequence of RandomTerm, or array, shape (n, q)
            Random terms; in a `RandomTerm` the covariance may be a tag (``"us"``) and, with ``levels=None``,
            the codes any labels. With `covariance`, the matrix Z of all random effects.
        covariance : callable, optional
            Maps theta to the relative factor Lambda, shape (q, q), dense or sparse, of the covariance
            ``sigma^2 Lambda Lambda'`` of all q random effects.
        start, lower, upper : array, shape (n_theta,), optional
            Start and bounds of theta for `covariance`; start is required there.
        jacobian : callable, optional
            Maps theta to the n_theta derivatives of Lambda; without it Lambda is differenced.
        weights, offset : array, shape (n,), optional
        names : sequence of str, optional
            Names of the columns of X.
        residual : str or residual structure, optional
            Structure of the residuals, as for `mixedmodels.lmm`; `terms` may then be empty.
        columns : dict of str to array, optional
            The columns that `residual` names (times, groups, ...), one value per row.
        reml : bool
        **options
            method, solver, sigma, control and progress as for `mixedmodels.lmm`.

        Returns
        -------
        LinearMixedModel

        Examples
        --------
        >>> import mixedmodels as mm
        >>> data = mm.load_dataset("Dyestuff", backend="dict")
        >>> batch = mm.RandomTerm("Batch", ("(Intercept)",), data["Batch"].codes, None, None, "us")
        >>> y = data["Yield"]
        >>> model = mm.LinearMixedModel.from_matrices(y, [[1.0]] * len(y), [batch])
        >>> round(model.fit().sigma, 2)
        49.51
        """
        from mixedmodels.design import RandomTerm
        from mixedmodels.fit.matrices import matrix_frame

        allowed = {"method", "solver", "sigma", "control", "progress"}
        for name in options:
            if name not in allowed:
                raise OptionError(
                    f"from_matrices has no option {name!r}; available: {', '.join(sorted(allowed))}"
                )
        Z = structure = None
        if covariance is not None:
            from mixedmodels.covariance.function import FunctionCovariance

            if start is None:
                raise OptionError("a covariance function needs start=: a value of theta to begin from")
            if options.get("solver", "auto") not in ("auto", "dense"):
                raise OptionError(
                    f"solver {options['solver']!r} cannot treat a covariance function; use 'auto'"
                )
            Z, terms = terms, ()
            structure = FunctionCovariance(covariance, start, lower, upper, jacobian)
        elif lower is not None or upper is not None or jacobian is not None:
            raise OptionError("lower, upper and jacobian belong to covariance=; terms have their own bounds")
        if isinstance(terms, RandomTerm):
            terms = [terms]
        try:
            terms = list(terms)
        except TypeError:
            raise OptionError(
                f"terms must be a sequence of RandomTerm objects, got {type(terms).__name__}"
            ) from None
        chosen = Options(reml=reml, start=start, **options)
        frame = matrix_frame(
            y,
            X,
            terms,
            weights=weights,
            offset=offset,
            names=names,
            sigma_fixed=chosen.sigma is not None,
            Z=Z,
            covariance=structure,
            residual=residual,
            columns=columns,
        )
        model = cls.__new__(cls)
        model._setup(frame, chosen, None)
        return model

    # ------------------------------------------------------------------ what it is

    @property
    def design(self) -> Design:
        """Arrays of the model."""
        return self._frame.design

    @property
    def formula(self) -> Any:
        """The parsed `Formula`; None for a model made from matrices."""
        return self._frame.formula

    @property
    def solver(self) -> Any:
        """The penalised least-squares solver; ``describe()`` says which one and why."""
        if is_function_frame(self._frame):
            from mixedmodels.fit.user import FunctionSolver

            return FunctionSolver(self._frame.Z.shape[1])
        return self._objective.solver

    @property
    def is_reml(self) -> bool:
        """Whether `objective` is the REML criterion."""
        return self._options.reml

    @property
    def start(self) -> np.ndarray:
        """Start of theta, shape (n_theta,): the one given, else from moments of the data."""
        start = start_of(self._options.start, self._objective)
        return np.array(self._objective.start if start is None else start, dtype=float)

    @property
    def lower(self) -> np.ndarray:
        """Lower bounds of theta."""
        return np.array(self._objective.lower)

    @property
    def upper(self) -> np.ndarray:
        """Upper bounds of theta."""
        return np.array(self._objective.upper)

    @property
    def bounds(self) -> list[tuple[float, float]]:
        """Bounds of theta as pairs, as scipy takes them."""
        return list(zip(self.lower.tolist(), self.upper.tolist(), strict=True))

    @property
    def theta_names(self) -> tuple[str, ...]:
        """Names of the entries of theta."""
        return tuple(self._objective.names)

    # ------------------------------------------------------------------ criterion as a function of theta

    def _theta(self, theta: Any) -> np.ndarray:
        try:
            array = np.array(theta, dtype=float).reshape(-1)
        except (TypeError, ValueError):
            raise OptionError("theta must hold numbers") from None
        names = self.theta_names
        if array.shape[0] != len(names):
            raise OptionError(
                f"theta has {array.shape[0]} values; the model has {len(names)}: {', '.join(names)}"
            )
        return array

    def objective(self, theta: Any) -> float:
        """-2 times the profiled (restricted) log-likelihood at theta; beta and sigma at their best."""
        return float(self._objective.value(self._theta(theta)))

    def gradient(self, theta: Any) -> np.ndarray:
        """Gradient of `objective`, shape (n_theta,)."""
        return np.array(self._objective.value_and_gradient(self._theta(theta))[1])

    def information(self, theta: Any, kind: str = "average") -> np.ndarray:
        """Information matrix of theta in units of the Hessian of `objective`, shape (n_theta, n_theta).

        Parameters
        ----------
        kind : {"average", "observed", "expected"}
            Average of the two others; second derivatives; their expectation.
        """
        if kind not in ("average", "observed", "expected"):
            raise OptionError(f"kind must be 'average', 'observed' or 'expected', got {kind!r}")
        return np.array(self._objective.information(self._theta(theta), kind=kind))

    def solution(self, theta: Any) -> Any:
        """Estimates and predictions at theta: ``beta, vcov_unscaled, u, b, logdet_L2, logdet_RX2, pwrss``."""
        return self._objective.solution(self._theta(theta))

    # ------------------------------------------------------------------ as a function of the variances

    def at(self, variances: Any) -> Any:
        """The model at given variances: an object with ``loglik``, ``score`` and ``information(kind)``.

        Parameters
        ----------
        variances : dict or sequence
            By grouping factor the covariance matrix (or the variances, or one number) of its term, and
            ``"Residual"``; or a sequence in the order of the terms, the residual variance last.
        """
        if is_function_frame(self._frame):
            raise OptionError(
                "a covariance given as a function of theta has no variance components; use objective()"
            )
        if self.design.residual is not None:
            raise OptionError(
                "a model with structured residuals has no likelihood in variance components alone; use "
                "objective(theta), gradient(theta) and information(theta)"
            )
        return self._objective.at_components(variances)

    def loglik_at(self, variances: Any) -> float:
        """Log-likelihood (REML or ML) at given variances, only beta profiled out; see `at`."""
        return float(self.at(variances).loglik)

    def score_at(self, variances: Any) -> np.ndarray:
        """Derivatives of `loglik_at` with respect to the variances and covariances; see `at`."""
        return np.array(self.at(variances).score)

    def information_at(self, variances: Any, kind: str = "average") -> np.ndarray:
        """Information of `loglik_at` about the variances and covariances; see `at`.

        Parameters
        ----------
        variances : dict or sequence
        kind : {"average", "observed", "expected"}
        """
        return np.array(self.at(variances).information(kind))

    # ------------------------------------------------------------------ fitting

    def fit(self, **changes: Any) -> LMMFit:
        """Fit the model.

        Parameters
        ----------
        **changes
            reml, start, method, solver, sigma, control or progress where they differ from the model's.

        Returns
        -------
        LMMFit
        """
        allowed = {"reml", "start", "method", "solver", "sigma", "control", "progress"}
        for name in changes:
            if name not in allowed:
                raise OptionError(f"fit() has no option {name!r}; available: {', '.join(sorted(allowed))}")
        options = replace(self._options, **changes)
        same = not ({"reml", "solver", "sigma"} & changes.keys())
        return fit_frame(self._frame, options, self._data, self._objective if same else None)

    def __repr__(self) -> str:
        design = self.design
        what = str(self.formula) if self.formula is not None else "from matrices"
        method = "REML" if self.is_reml else "ML"
        q = self._frame.Z.shape[1] if is_function_frame(self._frame) else design.q
        return f"<LinearMixedModel {what}: n = {design.n}, p = {design.p}, q = {q}, {method}, not fitted>"
