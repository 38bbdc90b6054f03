r"""Standard errors, confidence and prediction intervals of predictions.

With the error covariance of Henderson's equations, :math:`\sigma^2 C`, the prediction of
:math:`\eta = x'\beta + z'b` has error variance
:math:`\sigma^2 (x', z') C (x', z')'`, as far as its levels are known.
To it come

* for an effect of a new level, predicted by 0: :math:`\sigma^2 z'\Sigma z`,
* in prediction intervals: :math:`\sigma^2 / w`, and :math:`\sigma^2 z'\Sigma z` for effects left out.

Where `re_form` names some columns of a term only, the others count as effects left out: they add the variance
of their own, without the covariance with the columns named.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import DataError, NotImplementedYetError, OptionError
from mixedmodels.fit import values
from mixedmodels.fit.predict import (
    Selection,
    new_rows,
    predict_design,
    select_columns,
)
from mixedmodels.fit.predict import predict as predict_points
from mixedmodels.fit.simulate import check_count, generator, positive_weights, relationship_root
from mixedmodels.inference.table import ResultTable, result_table

if TYPE_CHECKING:
    from mixedmodels.fit.result import LMMFit
    from mixedmodels.frame.newdata import NewDesign

__all__ = ["predict", "quadratic_rows"]

_CHUNK = 4_000_000  # numbers of simulated predictions at a time


def predict(
    fit: LMMFit,
    newdata: Any = None,
    re_form: Any = None,
    new_levels: str = "error",
    offset: Any = None,
    *,
    interval: str | None = None,
    level: float = 0.95,
    se: bool = False,
    type: str = "response",
    weights: Any = None,
    ddf: str | float = "z",
    method: str = "analytic",
    n: int = 1000,
    seed: Any = None,
    parameters: Any = None,
) -> np.ndarray | ResultTable:
    """Predictions; see `LMMFit.predict`."""
    if type not in ("response", "link"):
        raise OptionError(f"type must be 'response' or 'link', got {type!r}")
    if interval not in (None, "confidence", "prediction"):
        raise OptionError(f"interval must be None, 'confidence' or 'prediction', got {interval!r}")
    if method not in ("analytic", "simulation"):
        raise OptionError(f"method must be 'analytic' or 'simulation', got {method!r}")
    if interval is None and not se:
        return predict_points(fit, newdata, re_form, new_levels, offset)
    if method == "analytic" and parameters is not None:
        raise OptionError("parameters (a Bootstrap) is used by method='simulation' only")
    selection = select_columns(fit, re_form)
    whole = interval == "prediction"
    left_out = _left_out(fit, selection) if whole else []
    if getattr(fit.frame, "covariance", None) is not None:
        raise NotImplementedYetError(
            "standard errors of predictions are not in this version for a covariance given as a function"
        )
    quantile = _Quantiles(fit, ddf, level, interval, selection, method)
    answer = _Answer(fit, selection, left_out, whole, quantile)
    if method == "simulation":
        answer = _Simulated(fit, selection, left_out, whole, level, check_count(n), seed, parameters)
    if newdata is None:
        columns, new = _own_rows(fit, answer, weights, new_levels, offset)
    else:
        rows = new_rows(fit, newdata, selection, new_levels, offset, [p for p, _ in left_out])
        columns = answer(rows, positive_weights(weights, newdata, rows.n))
        new = sum(
            int(((rows.terms[p][0] < 0) & rows.rows).sum())  # type: ignore[index]
            for p, _ in selection
        )
    if interval is None:
        del columns["conf_low"], columns["conf_high"]
    notes = _notes(fit, selection, whole, weights, newdata, new, answer.note)
    title = "Predictions with standard errors" if interval is None else f"Predictions with {interval} limits"
    return result_table(
        f"{title}{'' if interval is None else f', {100 * level:g} %'}", columns, notes, fit._native
    )


def _notes(
    fit: LMMFit, selection: Selection, whole: bool, weights: Any, newdata: Any, new: int, how: str
) -> list[str]:
    terms = fit.design.terms
    if not selection:
        effects = "no random effects (population level)"
    else:
        names = [
            terms[p].group
            if columns is None
            else f"{terms[p].group} ({', '.join(terms[p].names[j] for j in columns)})"
            for p, columns in selection
        ]
        effects = "random effects of " + ", ".join(dict.fromkeys(names))
    notes = [f"mean: fixed part and {effects}", how]
    if whole:
        share = "sigma^2" if weights is None and fit.design.weights is None else "sigma^2 / weight"
        if weights is None and newdata is not None and fit.design.weights is not None:
            share += " (weight 1: give weights= for others)"
        notes.append(f"limits are for a new observation: the variance of random effects left out and {share}")
    if new:
        notes.append(f"effects of new levels ({new} in all) are predicted by 0 and add their whole variance")
    return notes


def _left_out(fit: LMMFit, selection: Selection) -> list[tuple[int, Sequence[int]]]:
    """Terms and columns that the mean does not hold."""
    chosen = dict(selection)
    out: list[tuple[int, Sequence[int]]] = []
    for position, term in enumerate(fit.design.terms):
        columns = chosen.get(position, ())
        rest = [] if columns is None else [j for j in range(term.k) if j not in columns]
        if rest:
            out.append((position, rest))
    return out


# ------------------------------------------------------------------ arrays


def quadratic_rows(X: np.ndarray, V: np.ndarray) -> np.ndarray:
    """``x_i' V x_i`` for the rows of X, V symmetric positive semi-definite."""
    out = np.zeros(X.shape[0])
    for j in range(V.shape[0]):
        part = X @ V[:, j]
        part *= X[:, j]
        out += part
    return out


def _term_variance(Z: np.ndarray | None, factor: np.ndarray, columns: Sequence[int], n: int) -> np.ndarray:
    """``z' Sigma z`` over some columns of a term, Sigma = factor factor', shape (n,)."""
    rows = factor[list(columns)]
    if Z is None:
        return np.full(n, float(rows[0] @ rows[0]))
    out = np.zeros(n)
    for c in range(rows.shape[1]):
        part = Z[:, list(columns)] @ rows[:, c]
        out += part * part
    return out


def _chosen(Z: np.ndarray | None, columns: Sequence[int] | None, k: int, n: int) -> np.ndarray:
    """Values of a term's columns with those not chosen at zero, shape (n, k)."""
    if Z is None:
        return np.ones((n, k))
    if columns is None:
        return Z
    out = np.zeros_like(Z)
    out[:, list(columns)] = Z[:, list(columns)]
    return out


class _Quantiles:
    """Multipliers of standard errors."""

    def __init__(
        self,
        fit: LMMFit,
        ddf: str | float,
        level: float,
        interval: str | None,
        selection: Selection,
        method: str,
    ) -> None:
        from mixedmodels.fit.wald import normal_quantile

        self.normal = normal_quantile(level)
        self.level = level
        self.reference = None
        if ddf in ("z", "normal", "asymptotic"):
            return
        if method == "simulation":
            raise OptionError(f"ddf={ddf!r} has no part in method='simulation'; leave it out")
        number = isinstance(ddf, (int, float)) and not isinstance(ddf, bool)
        if not number and (selection or interval == "prediction"):
            raise OptionError(
                f"ddf={ddf!r} is for confidence intervals at the population level (re_form='population'); "
                "use 'z' or a number of degrees of freedom here"
            )
        from mixedmodels.inference.ddf.reference import reference_for

        self.reference = reference_for(fit, ddf)

    def __call__(self, X: np.ndarray) -> np.ndarray | float:
        if self.reference is None:
            return self.normal
        from scipy.special import stdtrit

        df = self.reference.df(X)
        finite = np.isfinite(df)
        out = np.full(X.shape[0], self.normal)
        out[finite] = stdtrit(df[finite], 0.5 + 0.5 * self.level)
        return out


class _Answer:
    """The analytic columns for given rows."""

    def __init__(
        self,
        fit: LMMFit,
        selection: Selection,
        left_out: Sequence[tuple[int, Sequence[int]]],
        whole: bool,
        quantile: _Quantiles | None,
    ) -> None:
        self.fit, self.selection, self.left_out, self.whole = fit, selection, left_out, whole
        self.quantile: Any = quantile
        self.factors = [np.array(factor) for factor in fit._factors]
        what = "joint error of fixed and random effects" if selection else "error of the fixed effects"
        self.note = f"standard errors: {what}, variance parameters as estimated"
        reference = None if quantile is None else quantile.reference
        if reference is not None:
            self.note += f"; t quantiles, {reference.label}"

    def __call__(self, rows: NewDesign, weights: np.ndarray | None) -> dict[str, np.ndarray]:
        """Columns predicted, std_error, [prediction_sd,] conf_low, conf_high."""
        mean, ok = self.mean(rows)
        variance, extra = np.full(rows.n, np.nan), np.full(rows.n, np.nan)
        part = _subset(rows, ok)
        variance[ok] = self.variance(part)
        extra[ok] = self.more(part, weights if weights is None else weights[ok])
        spread = np.sqrt(variance + extra)
        columns = {"predicted": mean, "std_error": np.sqrt(variance)}
        if self.whole:
            columns["prediction_sd"] = spread
        half = np.full(rows.n, np.nan)
        half[ok] = self.quantile(part.X) * spread[ok]
        return {**columns, "conf_low": mean - half, "conf_high": mean + half}

    def mean(self, rows: NewDesign) -> tuple[np.ndarray, np.ndarray]:
        mean = predict_design(self.fit, rows, self.selection)
        return mean, ~np.isnan(mean)

    def variance(self, rows: NewDesign) -> np.ndarray:
        """Variance of the error of the mean."""
        fit, n = self.fit, rows.n
        scale = fit.sigma**2
        known = []
        for position, columns in self.selection:
            codes, Z = rows.terms[position]  # type: ignore[misc]
            known.append((position, codes, _chosen(Z, columns, fit.design.terms[position].k, n)))
        if any((codes >= 0).any() for _, codes, _ in known):
            terms: list[Any] = [None] * len(fit.design.terms)
            for position, codes, Z in known:
                terms[position] = (codes, Z)
            out = scale * fit.solver.predictor_variance(self.factors, np.ascontiguousarray(rows.X), terms)
        else:
            reference = self.quantile.reference
            out = quadratic_rows(rows.X, fit.vcov if reference is None else reference.vcov)
        for position, codes, Z in known:
            new = np.flatnonzero(codes < 0)
            if new.size:
                k = fit.design.terms[position].k
                out[new] += scale * _term_variance(Z[new], self.factors[position], range(k), new.size)
        return np.maximum(out, 0.0)

    def more(
        self, rows: NewDesign, weights: np.ndarray | None, factors: Any = None, sigma: float | None = None
    ) -> np.ndarray:
        """What a new observation adds to the variance of the mean."""
        out = np.zeros(rows.n)
        if not self.whole:
            return out
        factors = self.factors if factors is None else factors
        for position, columns in self.left_out:
            codes, Z = rows.terms[position]  # type: ignore[misc]
            part = _term_variance(Z, factors[position], columns, rows.n)
            precision = self.fit.design.terms[position].precision
            if precision is not None and codes is not None:
                part *= _own_variance(precision)[codes]
            out += part
        out += 1.0 if weights is None else 1.0 / weights
        return (self.fit.sigma if sigma is None else sigma) ** 2 * out


def _own_variance(precision: Any) -> np.ndarray:
    """Diagonal of A, the inverse of a known precision, a panel of columns at a time."""
    solve = _solver_of(precision.matrix)
    m = precision.matrix.shape[0]
    out = np.empty(m)
    for first in range(0, m, 256):
        last = min(first + 256, m)
        unit = np.zeros((m, last - first))
        unit[np.arange(first, last), np.arange(last - first)] = 1.0
        out[first:last] = solve(unit)[np.arange(first, last), np.arange(last - first)]
    return out


def _solver_of(matrix: Any) -> Any:
    from scipy import sparse
    from scipy.sparse.linalg import splu

    return splu(sparse.csc_matrix(matrix)).solve


def _subset(rows: NewDesign, ok: np.ndarray) -> NewDesign:
    if ok.all():
        return rows
    terms = tuple(
        None
        if term is None
        else (
            None if term[0] is None else term[0][ok],
            None if term[1] is None else term[1][ok],
        )
        for term in rows.terms
    )
    return replace(
        rows,
        X=rows.X[ok],
        offset=None if rows.offset is None else rows.offset[ok],
        terms=terms,
        estimable=None,
        rows=np.ones(int(ok.sum()), dtype=bool),
    )


def _own_rows(
    fit: LMMFit, answer: Any, weights: Any, new_levels: str, offset: Any
) -> tuple[dict[str, np.ndarray], int]:
    """The columns for the rows of the fit, placed as `fitted` places them."""
    from mixedmodels.frame.newdata import NewDesign

    if offset is not None:
        raise OptionError("offset is for new rows; give newdata as well")
    if isinstance(weights, str):
        raise OptionError("weights names a column; give newdata as well")
    design = fit.design
    rows = NewDesign(
        np.asarray(design.X),
        design.offset,
        tuple((term.codes, term.Z) for term in design.terms),
        None,
        np.ones(design.n, dtype=bool),
    )
    own = design.weights if weights is None else positive_weights(weights, None, design.n)
    columns = answer(rows, own)
    zero = getattr(fit.frame, "zero_weight_design", None)
    if zero is None:
        return {name: fit._rows(column) for name, column in columns.items()}, 0
    # rows of weight zero have a mean; a new observation with that weight has no finite variance
    others = answer(zero, np.full(zero.n, np.nan if answer.whole else 1.0))
    return {
        name: fit._rows(column, lambda other=others[name]: other)  # type: ignore[misc]
        for name, column in columns.items()
    }, 0


# ------------------------------------------------------------------ by simulation


class _Simulated(_Answer):
    r"""Standard errors and limits from joint draws of beta and b given the data.

    A draw comes from the equations themselves: with :math:`b^* \sim N(0, \sigma^2 A \otimes \Sigma)`,
    :math:`e^* \sim N(0, \sigma^2/w)` and :math:`(\tilde\beta, \tilde b)` the solution for the response
    :math:`y - Zb^* - e^*`, the pair :math:`(\tilde\beta, b^* + \tilde b)` has mean
    :math:`(\hat\beta, \hat b)` and Henderson's error covariance (Matheron's rule).
    """

    def __init__(
        self,
        fit: LMMFit,
        selection: Selection,
        left_out: Sequence[tuple[int, Sequence[int]]],
        whole: bool,
        level: float,
        n: int,
        seed: Any,
        parameters: Any,
    ) -> None:
        super().__init__(fit, selection, left_out, whole, None)
        if not 0.0 < level < 1.0:
            raise OptionError(f"level must lie between 0 and 1, got {level!r}")
        self.level = level
        self.rng = generator(seed)
        thetas, sigmas = _parameter_draws(fit, parameters, n)
        self.n = len(sigmas)
        self.sigmas = sigmas
        own = [np.array(factor) for factor in fit._factors]
        self.draw_factors = (
            [own] * self.n
            if thetas is None
            else [[np.array(f) for f in values.relative_factors(fit.design, theta)] for theta in thetas]
        )
        self.beta, self.b = _joint_draws(fit, self.draw_factors, sigmas, self.rng)
        source = "as estimated" if thetas is None else "from the bootstrap"
        self.note = (
            f"limits: quantiles of {self.n} joint draws of fixed and random effects; "
            f"variance parameters {source}"
        )

    def __call__(self, rows: NewDesign, weights: np.ndarray | None) -> dict[str, np.ndarray]:
        mean, ok = self.mean(rows)
        places = np.flatnonzero(ok)
        sd, spread = np.full(rows.n, np.nan), np.full(rows.n, np.nan)
        low, high = np.full(rows.n, np.nan), np.full(rows.n, np.nan)
        tails = (0.5 - 0.5 * self.level, 0.5 + 0.5 * self.level)
        step = max(1, _CHUNK // self.n)
        for first in range(0, places.size, step):
            chunk = places[first : first + step]
            mask = np.zeros(rows.n, dtype=bool)
            mask[chunk] = True
            part = _subset(rows, mask)
            draws = self.draws(part)
            sd[chunk] = draws.std(axis=0, ddof=1) if self.n > 1 else np.nan
            if self.whole:
                w = None if weights is None else weights[chunk]
                for r, (factors, sigma) in enumerate(zip(self.draw_factors, self.sigmas, strict=True)):
                    more = self.more(part, w, factors, float(sigma))
                    draws[r] += np.sqrt(more) * self.rng.standard_normal(part.n)
                spread[chunk] = draws.std(axis=0, ddof=1) if self.n > 1 else np.nan
            low[chunk], high[chunk] = np.quantile(draws, tails, axis=0)
        columns = {"predicted": mean, "std_error": sd}
        if self.whole:
            columns["prediction_sd"] = spread
        return {**columns, "conf_low": low, "conf_high": high}

    def draws(self, rows: NewDesign) -> np.ndarray:
        """Draws of the means, shape (n, rows)."""
        out = self.beta @ rows.X.T
        if rows.offset is not None:
            out += rows.offset
        for position, columns in self.selection:
            codes, Z = rows.terms[position]  # type: ignore[misc]
            k = self.fit.design.terms[position].k
            Z = _chosen(Z, columns, k, rows.n)
            b = self.b[position]
            new = np.flatnonzero(codes < 0)
            for j in range(k):
                out += b[:, :, j].take(codes, axis=1) * np.where(codes < 0, 0.0, Z[:, j])
            if new.size:
                for r, (factors, sigma) in enumerate(zip(self.draw_factors, self.sigmas, strict=True)):
                    effects = sigma * self.rng.standard_normal((new.size, k)) @ factors[position].T
                    out[r, new] += (effects * Z[new]).sum(axis=1)
        return out


def _parameter_draws(fit: LMMFit, parameters: Any, n: int) -> tuple[np.ndarray | None, np.ndarray]:
    """theta (None: that of the fit) and sigma of each draw."""
    if parameters is None:
        return None, np.full(n, fit.sigma)
    theta, sigma = getattr(parameters, "theta", None), getattr(parameters, "sigma", None)
    if theta is None or sigma is None or np.ndim(theta) != 2 or np.shape(theta)[1] != len(fit.theta):
        raise OptionError("parameters must be a Bootstrap of this fit (fit.bootstrap(...))")
    origin = getattr(parameters, "settings", {}).get("model", [fit.formula_text, fit.nobs])[:2]
    if origin != [fit.formula_text, fit.nobs]:
        raise OptionError(
            f"parameters is a Bootstrap of another fit ({origin[0]}, {origin[1]} rows); use this fit's own"
        )
    theta, sigma = np.asarray(theta, dtype=float), np.asarray(sigma, dtype=float).reshape(-1)
    good = np.isfinite(theta).all(axis=1) & np.isfinite(sigma) & (sigma > 0.0)
    if not good.any():
        raise DataError("parameters holds no replicate that could be fitted")
    return theta[good], sigma[good]


def _joint_draws(
    fit: LMMFit, factors: Sequence[list[np.ndarray]], sigmas: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Draws of beta, shape (n, p), and of the effects of each term, shape (n, m, k)."""
    from mixedmodels.solver.choose import choose_solver
    from mixedmodels.solver.threads import one_blas_thread

    design, n = fit.design, len(sigmas)
    roots = [None if t.precision is None else relationship_root(t.precision) for t in design.terms]
    noise = 1.0 if design.weights is None else 1.0 / np.sqrt(design.weights)
    beta = np.empty((n, design.p))
    b = [np.empty((n, term.m, term.k)) for term in design.terms]
    with one_blas_thread():
        for r in range(n):
            effects = []
            y = design.y - sigmas[r] * noise * rng.standard_normal(design.n)
            for term, factor, root in zip(design.terms, factors[r], roots, strict=True):
                u = rng.standard_normal((term.m, term.k))
                effects.append(sigmas[r] * (u if root is None else root(u)) @ factor.T)
                y -= values.term_contribution(term.codes, term.Z, effects[-1])
            solver = choose_solver(replace(design, y=y), fit._options.solver)
            solution = solver.solution(factors[r])
            beta[r] = solution.beta
            for store, effect, predicted in zip(b, effects, solution.b, strict=True):
                store[r] = effect + predicted
    return beta, b
