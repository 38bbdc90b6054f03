"""A linear mixed model that is not fitted: its criterion, derivatives and likelihood anywhere."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import OptionError
from mixedmodels.fit.solve import OPTION_NAMES, Options, fit_frame, make_frame, make_objective

if TYPE_CHECKING:
    from mixedmodels.design import Design, RandomTerm
    from mixedmodels.fit.result import LMMFit

__all__ = ["LinearMixedModel"]

_LOG_2PI = math.log(2.0 * math.pi)


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
        self._objective = make_objective(frame.design, options)

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
        weights: Any = None,
        offset: Any = None,
        names: Sequence[str] | None = None,
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
            Random terms; in a `RandomTerm` the covariance may be a tag (``"us"``) and, with ``levels=None``, the codes
            any labels. With `covariance`, the matrix Z of all random effects.
        covariance : callable, optional
            Maps theta to the covariance matrix of the q random effects relative to sigma^2, shape (q, q).
        start, lower, upper : array, shape (n_theta,), optional
            Start and bounds of theta for `covariance`; start is required there.
        weights, offset : array, shape (n,), optional
        names : sequence of str, optional
            Names of the columns of X.
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
        from mixedmodels.fit.user import UserCovariance

        allowed = {"method", "solver", "sigma", "control", "progress"}
        for name in options:
            if name not in allowed:
                raise OptionError(
                    f"from_matrices has no option {name!r}; available: {', '.join(sorted(allowed))}"
                )
        if covariance is not None:
            if start is None:
                raise OptionError("a covariance function needs start=: a value of theta to begin from")
            Z = terms.toarray() if hasattr(terms, "toarray") else np.array(terms, dtype=float)
            if Z.ndim != 2:
                raise OptionError(
                    f"with covariance=, the third argument is the matrix Z; got {Z.ndim} dimension(s)"
                )
            q = Z.shape[1]
            structure = UserCovariance(covariance, q, start, lower, upper)
            columns = tuple(f"z{j + 1}" for j in range(q))
            codes = np.zeros(Z.shape[0], dtype=np.int32)
            terms = [RandomTerm("Z", columns, codes, ("all",), Z, structure)]
        elif lower is not None or upper is not None:
            raise OptionError(
                "lower and upper belong to covariance=; the structures of terms have their own bounds"
            )
        chosen = Options(reml=reml, start=None if covariance is not None else start, **options)
        frame = matrix_frame(y, X, list(terms), weights=weights, offset=offset, names=names)
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
        return self._objective.solver

    @property
    def is_reml(self) -> bool:
        """Whether `objective` is the REML criterion."""
        return self._options.reml

    @property
    def start(self) -> np.ndarray:
        """Default start of theta, shape (n_theta,)."""
        return np.array(self._objective.start)

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

    # ------------------------------------------------------------------ likelihood as a function of the variances

    def _relative(self, variances: Mapping[str, Any]) -> tuple[list[np.ndarray], list[np.ndarray], float]:
        """Covariance matrices, relative factors and residual variance from a dict of variances."""
        from mixedmodels.fit.varcorr import unique_keys

        terms = self.design.terms
        keys = unique_keys([term.group for term in terms])
        wanted = {*keys, "Residual"}
        if not isinstance(variances, Mapping) or set(variances) != wanted:
            raise OptionError(
                f"variances must be a dict with exactly the keys {', '.join([*keys, 'Residual'])}"
            )
        residual = float(variances["Residual"])
        if not residual > 0.0:
            raise OptionError(f"the residual variance must be positive, got {residual:g}")
        matrices, factors = [], []
        for key, term in zip(keys, terms, strict=True):
            matrix = np.array(variances[key], dtype=float)
            if matrix.ndim < 2:
                matrix = np.diag(matrix.reshape(-1))
            if matrix.shape != (term.k, term.k) or not np.array_equal(matrix, matrix.T):
                raise OptionError(
                    f"variances[{key!r}] must be a symmetric matrix of shape ({term.k}, {term.k})"
                )
            values, vectors = np.linalg.eigh(matrix)
            if values[0] < -1e-10 * max(abs(values[-1]), 1e-300):
                raise OptionError(f"variances[{key!r}] is not positive semi-definite")
            # any square root serves: only factor factor' enters; made triangular by QR
            root = vectors * np.sqrt(np.maximum(values, 0.0) / residual)
            matrices.append(matrix)
            factors.append(np.linalg.qr(root.T, mode="r").T.copy())
        return matrices, factors, residual

    def loglik_at(self, variances: Mapping[str, Any]) -> float:
        """Log-likelihood (REML or ML) at given variances, beta profiled out.

        Parameters
        ----------
        variances : dict
            Covariance matrix (or variances) of each term by group as in ``fit.varcorr``, and ``"Residual"``.
        """
        _, factors, residual = self._relative(variances)
        parts = self.solver.components(factors, order=0, reml=self.is_reml)
        design = self.design
        nu = design.n - design.p if self.is_reml else design.n
        out = parts.logdet_L2 + nu * (_LOG_2PI + math.log(residual)) + parts.pwrss / residual
        if self.is_reml:
            out += parts.logdet_RX2
        if design.weights is not None:
            out -= float(np.log(design.weights).sum())
        return -0.5 * out

    def score_at(self, variances: Mapping[str, Any]) -> dict[str, Any]:
        """Derivatives of `loglik_at` with respect to the variances.

        With ``V = sigma^2 I + Z Psi Z'``: ``d loglik / d Psi_b = -(T_b / sigma^2 - S_b / sigma^4) / 2``.

        Parameters
        ----------
        variances : dict
            As for `loglik_at`.

        Returns
        -------
        dict
            By group a matrix, shape (k, k): the derivative to each *variance* on the diagonal and to each *covariance*
            (both its places moving together) beside it; ``"Residual"``: the derivative to the residual variance.
        """
        from mixedmodels.fit.varcorr import unique_keys

        matrices, factors, residual = self._relative(variances)
        parts = self.solver.components(factors, order=1, reml=self.is_reml)
        design = self.design
        nu = design.n - design.p if self.is_reml else design.n
        out: dict[str, Any] = {}
        moved = 0.0
        for key, matrix, T, S in zip(
            unique_keys([term.group for term in design.terms]), matrices, parts.T, parts.S, strict=True
        ):
            M = T / residual - S / residual**2
            moved += float((M * matrix).sum())
            score = -M
            score[np.diag_indices_from(score)] *= 0.5
            out[key] = score
        # scaling all variances together changes -2 loglik at the rate nu - pwrss / residual
        out["Residual"] = -0.5 * (nu - parts.pwrss / residual - moved) / residual
        return out

    # ------------------------------------------------------------------ fitting

    def fit(self, **changes: Any) -> LMMFit:
        """Fit the model.

        Parameters
        ----------
        **changes
            reml, start, method, solver, sigma, control or progress, where they should differ from the model's.

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
        return (
            f"<LinearMixedModel {what}: n = {design.n}, p = {design.p}, q = {design.q}, {method}, not fitted>"
        )
