r"""Standard errors and limits of predictions by formulae.

With the error covariance of Henderson's equations, :math:`\sigma^2 C`, the prediction
:math:`\hat\eta = x'\hat\beta + z'\hat b` of known levels has the error variance
:math:`\sigma^2 (x', z') C (x', z')'`; an effect of a new level, predicted by 0, adds its own.

An observation has, besides, effects that the mean leaves out. Those on another level add
:math:`\sigma^2 z'\Sigma z`. For those on a level of the mean, :math:`z_R'b_R`, the error of the mean with all
effects of the level is uncorrelated with :math:`\hat b_R`, hence

.. math:: E(y - \hat\eta)^2 = \mathrm{Var}(y - \hat\eta - z_R'\hat b_R) + \mathrm{Var}(z_R'\hat b_R), \qquad
          \mathrm{Var}(\hat b_R) = \sigma^2 (\Sigma_R - C_{RR}).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.fit.predict import predict_design
from mixedmodels.inference.prediction.rows import Parts, chosen, quadratic_rows, subset, term_variance

if TYPE_CHECKING:
    from mixedmodels.fit.result import LMMFit
    from mixedmodels.frame.newdata import NewDesign

__all__ = ["Analytic", "left_out_variance", "scale_of_levels"]

Known = list[tuple[int, np.ndarray, np.ndarray]]  # term, levels (-1: new), values of its columns


class Analytic:
    """The columns of a table of predictions, for given rows.

    Parameters
    ----------
    fit : LMMFit
    parts : Parts
    quantile : callable
        From fixed-effects rows to the multipliers of standard errors.
    reference : Reference or None
        Of the fixed effects, where it is not the normal distribution.
    """

    def __init__(self, fit: LMMFit, parts: Parts, quantile: Any, reference: Any) -> None:
        self.fit, self.parts, self.quantile, self.reference = fit, parts, quantile, reference
        self.factors = [np.array(factor) for factor in fit._factors]
        what = "joint error of fixed and random effects" if parts.kept else "error of the fixed effects"
        self.note = f"standard errors: {what}, variance parameters as estimated"
        if reference is not None:
            self.note += f"; t quantiles, {reference.label}"

    def __call__(self, rows: NewDesign, weights: np.ndarray | None, numbered: Any = None) -> dict[str, Any]:
        """Columns predicted, std_error, [prediction_sd,] conf_low, conf_high."""
        mean = predict_design(self.fit, rows, self.parts.kept)
        ok = np.flatnonzero(~np.isnan(mean))
        part = subset(rows, ok)
        columns = {"predicted": mean, "std_error": np.full(rows.n, np.nan)}
        columns["std_error"][ok] = spread = np.sqrt(self.variance(part))
        if self.parts.whole:
            spread = np.sqrt(self.observation_variance(part, None if weights is None else weights[ok]))
            columns["prediction_sd"] = np.full(rows.n, np.nan)
            columns["prediction_sd"][ok] = spread
        half = np.full(rows.n, np.nan)
        half[ok] = self.quantile(part.X) * spread
        return {**columns, "conf_low": mean - half, "conf_high": mean + half}

    def variance(self, rows: NewDesign) -> np.ndarray:
        """Variance of the error of the mean."""
        return self._error_variance(rows, self._effects(rows, self.parts.kept))

    def observation_variance(self, rows: NewDesign, weights: np.ndarray | None) -> np.ndarray:
        """Mean squared error of the mean as a prediction of a new observation."""
        fit, parts = self.fit, self.parts
        out = left_out_variance(fit, parts, rows, [factor[None] for factor in self.factors])[:, 0]
        out += 1.0 if weights is None else 1.0 / weights
        out *= fit.sigma**2
        if not parts.same:
            return out + self.variance(rows)
        rest = self._effects(rows, parts.same)
        left = {position: Z for position, _, Z in rest}
        whole = [
            (position, codes, Z + left.pop(position, 0.0))
            for position, codes, Z in self._effects(rows, parts.kept)
        ]
        whole += [effect for effect in rest if effect[0] in left]
        out += self._error_variance(rows, whole)
        # Var(z'b^) = z'Sigma z - Var z'(b^ - b), on known levels; on new ones b^ = 0
        predicted = -self._solved(np.zeros_like(rows.X), rest)
        for position, codes, Z in rest:
            own = term_variance(Z, self.factors[position][None])[:, 0]
            predicted += np.where(codes < 0, 0.0, own * scale_of_levels(fit, position, codes))
        return out + fit.sigma**2 * np.maximum(predicted, 0.0)

    def _effects(self, rows: NewDesign, terms: Sequence[tuple[int, Sequence[int] | None]]) -> Known:
        out = []
        for position, columns in terms:
            codes, Z = rows.terms[position]  # type: ignore[misc]
            out.append((position, codes, chosen(Z, columns, self.fit.design.terms[position].k, rows.n)))
        return out

    def _solved(self, X: np.ndarray, effects: Known) -> np.ndarray:
        """``Var[x'(beta^ - beta) + z'(b^ - b)] / sigma^2`` over known levels."""
        terms: list[Any] = [None] * len(self.fit.design.terms)
        for position, codes, Z in effects:
            terms[position] = (codes, Z)
        return self.fit.solver.predictor_variance(self.factors, np.ascontiguousarray(X), terms)

    def _error_variance(self, rows: NewDesign, effects: Known) -> np.ndarray:
        """Variance of the error of ``x'beta^ + z'b^``, new levels included."""
        scale = self.fit.sigma**2
        if any((codes >= 0).any() for _, codes, _ in effects):
            out = scale * self._solved(rows.X, effects)
        else:
            reference = self.reference
            out = quadratic_rows(rows.X, self.fit.vcov if reference is None else reference.vcov)
        for position, codes, Z in effects:
            new = np.flatnonzero(codes < 0)
            if new.size:
                out[new] += scale * term_variance(Z[new], self.factors[position][None])[:, 0]
            if rows.leftover and position in rows.leftover:
                out += scale * rows.leftover[position] * scale_of_levels(self.fit, position, codes)
        return np.maximum(out, 0.0)


def left_out_variance(
    fit: LMMFit, parts: Parts, rows: NewDesign, factors: Sequence[np.ndarray]
) -> np.ndarray:
    """``z' Sigma z`` of the effects on other levels than those of the mean, by row and draw of the factors.

    Parameters
    ----------
    factors : sequence of ndarray, shape (r, k, k)
        Relative factors by term.
    """
    out = np.zeros((rows.n, factors[0].shape[0] if factors else 1))
    for position, columns in parts.apart:
        codes, Z = rows.terms[position]  # type: ignore[misc]
        Z = np.ones((rows.n, 1)) if Z is None else Z
        part = term_variance(Z[:, list(columns)], factors[position][:, list(columns)])
        if rows.leftover and position in rows.leftover:
            part += rows.leftover[position][:, None]
        if codes is not None:
            part *= np.reshape(scale_of_levels(fit, position, codes), (-1, 1))
        out += part
    return out


def scale_of_levels(fit: LMMFit, position: int, codes: np.ndarray) -> np.ndarray | float:
    """Diagonal of A, the inverse of a known precision, for the level of each row; 1 without and if new."""
    precision = fit.design.terms[position].precision
    if precision is None:
        return 1.0
    from mixedmodels.solver.precision import covariance_diagonal

    return np.where(codes >= 0, covariance_diagonal(precision)[codes], 1.0)
