r"""Linear mixed models with penalised coefficients: lasso, ridge, elastic net, groups; p > n is allowed.

.. math:: \min_{\beta, b, \theta, \sigma}\ -\ell(\beta, b, \theta, \sigma) + \lambda\, J(b/\sigma), \qquad
          y = X\beta + Cb + Zu + e

by turns (`mixedmodels.fit.penalised_problem`): b by coordinate descent at given variances, then (beta, theta,
sigma) for the response :math:`y - Cb`; neither raises the criterion. In units of sigma the penalty makes the
criterion bounded where the columns could reproduce the response, and the answer does not depend on the units
of y. Columns of C are centred and scaled to variance 1 while they are penalised.

References
----------
Schelldorfer, Buehlmann & van de Geer (2011), Estimation for high-dimensional linear mixed-effects models
using l1-penalization, Scand. J. Stat. 38:197-214. Staedler, Buehlmann & van de Geer (2010), l1-penalization
for mixture regression models, Test 19:209-256 (the penalty in units of sigma).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from mixedmodels.errors import DataError, OptionError
from mixedmodels.fit.matrices import MatrixFrame
from mixedmodels.fit.penalised_problem import Problem, State
from mixedmodels.fit.result import LMMFit
from mixedmodels.solver.threads import one_blas_thread

__all__ = ["PenalisedPath", "penalised"]

_RATIOS = {"l1": 1.0, "lasso": 1.0, "l2": 0.0, "ridge": 0.0, "elasticnet": 0.5, "group": 1.0}


@dataclass(frozen=True, slots=True, eq=False)
class PenalisedPath:
    """Fits along a sequence of penalties.

    Attributes
    ----------
    lambdas : ndarray, shape (L,)
        Decreasing.
    names : tuple of str, length p
        Penalised columns.
    coefficients : ndarray, shape (L, p)
        On the scale of the columns as they were given.
    fixed_names : tuple of str
    fixed : ndarray, shape (L, q)
        Coefficients without penalty.
    sigma : ndarray, shape (L,)
    theta : ndarray, shape (L, n_theta)
    loglik, bic : ndarray, shape (L,)
        BIC counts the coefficients that are not zero (ridge: effective degrees of freedom).
    df : ndarray, shape (L,)
    cv_error, cv_se : ndarray, shape (L,)
        Mean squared error of the fixed part in left-out groups and its standard error; NaN without folds.
    penalty : str
    """

    lambdas: np.ndarray
    names: tuple[str, ...]
    coefficients: np.ndarray
    fixed_names: tuple[str, ...]
    fixed: np.ndarray
    sigma: np.ndarray
    theta: np.ndarray
    loglik: np.ndarray
    df: np.ndarray
    bic: np.ndarray
    cv_error: np.ndarray
    cv_se: np.ndarray
    penalty: str
    _problem: Any = field(repr=False, default=None)

    def best(self, by: str | None = None) -> int:
        """Place of the best penalty: ``"cv"``, ``"1se"`` (largest within one SE of it) or ``"bic"``.

        Parameters
        ----------
        by : str, optional
            By default "cv" where there are folds, else "bic".
        """
        by = ("cv" if np.isfinite(self.cv_error).all() else "bic") if by is None else by
        if by == "bic":
            return int(np.argmin(self.bic))
        if by not in ("cv", "1se"):
            raise OptionError(f"by must be 'cv', '1se' or 'bic', got {by!r}")
        if not np.isfinite(self.cv_error).all():
            raise OptionError(f"by={by!r} needs cross-validation; pass folds= to penalised()")
        place = int(np.argmin(self.cv_error))
        if by == "cv":
            return place
        return int(np.flatnonzero(self.cv_error <= self.cv_error[place] + self.cv_se[place])[0])

    def selected(self, by: str | None = None) -> dict[str, float]:
        """Coefficients that are not zero at the best penalty.

        Parameters
        ----------
        by : str, optional
        """
        row = self.coefficients[self.best(by)]
        return {name: float(value) for name, value in zip(self.names, row, strict=True) if value != 0.0}

    def refit(self, by: str | None = None, reml: bool = True) -> LMMFit:
        """The model with the selected columns, fitted without penalty.

        Parameters
        ----------
        by : str, optional
        reml : bool

        Raises
        ------
        OptionError
            Ridge regression selects nothing; or more columns were selected than rows can estimate.
        """
        from mixedmodels.fit.solve import Options, fit_frame

        chosen = np.flatnonzero(self.coefficients[self.best(by)])
        problem = self._problem
        if len(chosen) + problem.design.p >= problem.design.n:
            raise OptionError(
                f"{len(chosen)} columns were selected for {problem.design.n} rows; choose a larger penalty"
            )
        X = np.column_stack([problem.design.X, problem.raw[:, chosen]])
        names = (*problem.design.x_names, *(self.names[j] for j in chosen))
        design = replace(problem.design, X=np.ascontiguousarray(X), x_names=names)
        return fit_frame(MatrixFrame(design, design.n), Options(reml=reml))

    def columns(self) -> dict[str, Any]:
        """One row per penalty: lambda, nonzero, df, sigma, loglik, bic, cv_error, cv_se."""
        return {
            "lambda": self.lambdas,
            "nonzero": (self.coefficients != 0.0).sum(axis=1),
            "df": self.df,
            "sigma": self.sigma,
            "loglik": self.loglik,
            "bic": self.bic,
            "cv_error": self.cv_error,
            "cv_se": self.cv_se,
        }

    def __str__(self) -> str:
        place = self.best()
        chosen = self.selected()
        head = (
            f"Linear mixed model with penalty {self.penalty}: {len(self.lambdas)} values of lambda, "
            f"{len(self.names)} penalised columns"
        )
        lines = [head, f"best lambda {self.lambdas[place]:.4g}: {len(chosen)} coefficients are not zero"]
        shown = sorted(chosen.items(), key=lambda item: -abs(item[1]))[:20]
        lines += [f"  {name:20s} {value: .5g}" for name, value in shown]
        return "\n".join(lines)


@one_blas_thread()
def penalised(
    formula: Any,
    data: Any,
    candidates: Any,
    *,
    penalty: str = "l1",
    l1_ratio: float | None = None,
    groups: Sequence[Any] | None = None,
    lambdas: Any = None,
    n_lambdas: int = 50,
    folds: int = 0,
    cv_groups: str | None = None,
    seed: Any = None,
    names: Sequence[str] | None = None,
    na_action: str = "omit",
) -> PenalisedPath:
    """Fit a linear mixed model with penalised coefficients along a sequence of penalties, by ML.

    Parameters
    ----------
    formula : str or Formula
        The response, the coefficients without penalty and the random terms: ``"y ~ age + (1 | id)"``.
    data : data frame or dict of arrays
    candidates : array of shape (rows, p), or sequence of str
        The penalised columns: numbers, or names of numeric columns of `data`. More than rows are allowed.
    penalty : {"l1", "l2", "elasticnet", "group"}
    l1_ratio : float, optional
        Share of L1 in the elastic net, by default 0.5.
    groups : sequence, optional
        Label of the group of each candidate, for ``penalty="group"``.
    lambdas : array, optional
        Penalties; by default `n_lambdas` from the smallest that leaves nothing, down to a hundredth.
    n_lambdas : int
    folds : int
        Parts for cross-validation, 0 for none; levels of a grouping factor stay together.
    cv_groups : str, optional
        Which grouping factor; by default the first.
    seed : int, Generator or None
        For the folds.
    names : sequence of str, optional
        Names of the columns of an array.
    na_action : str
        As for `lmm`.

    Returns
    -------
    PenalisedPath

    Raises
    ------
    OptionError, DataError
        Options or columns that mean nothing.

    Examples
    --------
    >>> import numpy as np, mixedmodels as mm
    >>> rng = np.random.default_rng(1)
    >>> C, g = rng.normal(size=(60, 100)), np.repeat(np.arange(12), 5)
    >>> y = 2.0 * C[:, 3] + rng.normal(size=12)[g] + rng.normal(size=60)
    >>> path = mm.penalised("y ~ 1 + (1 | g)", {"y": y, "g": g}, C, n_lambdas=10)
    >>> "x3" in path.selected("bic")
    True
    """
    from mixedmodels.fit.solve import Options, make_frame

    ratio = _ratio(penalty, l1_ratio)
    frame = make_frame(formula, data, Options(reml=False, na_action=na_action))
    kept = np.arange(frame.n_rows) if frame.kept is None else np.asarray(frame.kept)
    if frame.kept is not None and np.asarray(frame.kept).dtype == bool:
        kept = np.flatnonzero(frame.kept)
    C, labels = _candidates(candidates, data, frame.n_rows, names)
    C = C[kept]
    if not np.isfinite(C).all():
        raise DataError(
            "candidates hold missing or infinite values in rows of the model; leave these rows out"
        )
    members = _members(groups, C.shape[1]) if penalty == "group" else None
    if groups is not None and members is None:
        raise OptionError('groups= belongs to penalty="group"')
    problem = Problem.of(frame.design, C, ratio, members)
    given = _lambdas(lambdas, n_lambdas, problem)
    states = problem.path(given)
    errors = _cross_validate(problem, given, folds, cv_groups, seed)
    return _result(problem, given, states, errors, labels, penalty)


def _cross_validate(
    problem: Problem, lambdas: np.ndarray, folds: int, group: str | None, seed: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Mean squared errors in left-out groups and their standard errors."""
    nothing = np.full(len(lambdas), np.nan)
    if isinstance(folds, bool) or not isinstance(folds, int) or folds < 0 or folds == 1:
        raise OptionError(f"folds must be 0 or a whole number of at least 2, got {folds!r}")
    design = problem.design
    if not folds:
        return nothing, nothing
    chosen = [term for term in design.terms if group is None or term.group == group]
    if not chosen:
        listed = ", ".join(dict.fromkeys(term.group for term in design.terms))
        raise OptionError(f"cv_groups={group!r} is no grouping factor of the model; available: {listed}")
    if any(term.precision is not None for term in design.terms) or design.residual is not None:
        raise OptionError("cross-validation with known=, or residual=, is not defined here; leave out folds=")
    design.need_one_level("cross-validation")
    term = chosen[0]
    if term.m < folds:
        raise OptionError(f"{term.group!r} has {term.m} levels, fewer than {folds} folds")
    rng = np.random.default_rng(seed)
    fold = np.empty(term.m, dtype=int)
    fold[rng.permutation(term.m)] = np.arange(term.m) % folds
    of_row = fold[term.codes]
    errors = np.empty((folds, len(lambdas)))
    for part in range(folds):
        train = problem.rows(of_row != part)
        out = of_row == part
        offset = 0.0 if design.offset is None else design.offset[out]
        for i, state in enumerate(train.path(lambdas)):
            b, beta = train.natural(state)
            rest = design.y[out] - offset - design.X[out] @ beta - problem.raw[out] @ b
            errors[part, i] = float(np.mean(rest**2))
    return errors.mean(axis=0), errors.std(axis=0, ddof=1) / math.sqrt(folds)


def _result(
    problem: Problem,
    lambdas: np.ndarray,
    states: list[State],
    errors: tuple[np.ndarray, np.ndarray],
    labels: tuple[str, ...],
    penalty: str,
) -> PenalisedPath:
    natural = [problem.natural(state) for state in states]
    deviance = np.array([state.deviance for state in states])
    theta = np.array([state.theta for state in states])
    df = np.array([state.df for state in states]) + problem.design.p + theta.shape[1] + 1
    return PenalisedPath(
        lambdas,
        labels,
        np.array([b for b, _ in natural]),
        problem.design.x_names,
        np.array([beta for _, beta in natural]),
        np.array([state.sigma for state in states]),
        theta,
        -0.5 * deviance,
        df,
        deviance + math.log(problem.design.n) * df,
        *errors,
        penalty,
        problem,
    )


# ---------------------------------------------------------------------- reading the arguments
def _ratio(penalty: Any, l1_ratio: Any) -> float:
    if not isinstance(penalty, str) or penalty not in _RATIOS:
        raise OptionError(f"penalty must be one of {', '.join(_RATIOS)}; got {penalty!r}")
    if l1_ratio is None:
        return _RATIOS[penalty]
    if penalty != "elasticnet":
        raise OptionError('l1_ratio= belongs to penalty="elasticnet"')
    try:
        ratio = float(l1_ratio)
    except (TypeError, ValueError):
        ratio = math.nan
    if not 0.0 < ratio <= 1.0:
        raise OptionError(f"l1_ratio must lie in (0, 1], got {l1_ratio!r}")
    return ratio


def _candidates(
    candidates: Any, data: Any, rows: int, names: Sequence[str] | None
) -> tuple[np.ndarray, tuple[str, ...]]:
    named = isinstance(candidates, (list, tuple)) and all(isinstance(c, str) for c in candidates)
    if named and len(candidates):
        try:
            array = np.column_stack([np.asarray(data[name], dtype=float) for name in candidates])
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"candidates must be numeric columns of the data: {error}") from None
        labels = tuple(candidates)
    else:
        try:
            array = np.array(candidates, dtype=float)
        except (TypeError, ValueError):
            raise DataError("candidates must be numbers, or names of numeric columns") from None
        labels = tuple(names) if names is not None else tuple(f"x{j}" for j in range(array.shape[-1]))
    if array.ndim != 2 or array.shape[0] != rows or not array.shape[1]:
        raise DataError(
            f"candidates have shape {array.shape}; they need {rows} rows, one for each of the data"
        )
    if len(labels) != array.shape[1]:
        raise OptionError(f"{len(labels)} names were given for {array.shape[1]} candidates")
    return array, labels


def _members(groups: Any, p: int) -> tuple[np.ndarray, ...]:
    if groups is None or isinstance(groups, (str, Mapping)) or len(groups) != p:
        raise OptionError(f'penalty="group" needs groups=, a label for each of the {p} candidates')
    labels = [str(label) for label in groups]
    return tuple(
        np.array([j for j, label in enumerate(labels) if label == one]) for one in dict.fromkeys(labels)
    )


def _lambdas(given: Any, n: int, problem: Problem) -> np.ndarray:
    if given is None:
        if isinstance(n, bool) or not isinstance(n, int) or n < 1:
            raise OptionError(f"n_lambdas must be a positive whole number, got {n!r}")
        top = problem.largest()
        low = 0.05 if problem.raw.shape[1] >= problem.design.n else 0.01
        return top * np.geomspace(1.0, low, n)
    try:
        array = np.sort(np.array(given, dtype=float).reshape(-1))[::-1]
    except (TypeError, ValueError):
        array = np.array([math.nan])
    if not len(array) or not (np.isfinite(array) & (array >= 0.0)).all():
        raise OptionError("lambdas must be finite numbers that are not negative")
    return array
