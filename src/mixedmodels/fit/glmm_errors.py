r"""Errors of linear predictors of generalised models, from the joint precision of parameters and effects.

.. math:: Var(\hat\eta_c - \eta_c, \hat\eta_d - \eta_d) = z_c'\,Var(b \mid y, \hat\psi)\,z_d + J_c V J_d',
          \qquad J_c = \frac{\partial}{\partial\psi}\bigl(x_c'\gamma + z_c'\hat b(\psi)\bigr),

with V the joint covariance of all parameters: the conditional modes follow the parameters. The effect of a
level that the fit has not seen is predicted by 0 and adds :math:`z'\Sigma z`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.fit.glmm_predict import NewParts
from mixedmodels.fit.ranef import coefficient_rows

if TYPE_CHECKING:
    from mixedmodels.fit.glmm_result import GLMMFit
    from mixedmodels.fit.predict import Selection
    from mixedmodels.objective.marginal.mode_errors import ModeErrors

__all__ = ["JointErrors", "coefficient_errors"]

_CHUNK = 4_000_000  # numbers at a time


class JointErrors:
    """Covariances of the errors of linear predictors at the estimates of a fit.

    Parameters
    ----------
    fit : GLMMFit

    Attributes
    ----------
    modes : ModeErrors or None
        The random effects at the estimates; None without any.
    moves : tuple of ndarray, (m, k, n_gamma + n_theta)
        Derivatives of the conditional modes of each term with respect to all parameters.
    """

    def __init__(self, fit: GLMMFit) -> None:
        self.fit, self.design = fit, fit.generalised
        self.factors = [np.array(factor, dtype=float) for factor in fit._factors]
        self.modes: ModeErrors | None = None
        self.moves: tuple[np.ndarray, ...] = ()
        if self.design.terms:
            from mixedmodels.objective.marginal.sparse_errors import mode_errors

            self.modes = mode_errors(self.design, fit.family, fit.gamma, self.factors, fit._solution.u)
            to_entries = self._entries()
            self.moves = tuple([part @ to_entries for part in self.modes.moves()])
        V = np.array(fit.joint_vcov)
        self.unknown = np.isnan(V.diagonal())
        V[self.unknown] = 0.0
        V[:, self.unknown] = 0.0
        self.V = V

    def _entries(self) -> np.ndarray:
        """Derivatives of gamma and the entries of the factors with respect to gamma and theta."""
        from mixedmodels.objective.marginal.base import factor_entries
        from mixedmodels.objective.parameters import parameter_map

        design, index = self.design, parameter_map(self.design).index  # type: ignore[arg-type]
        places = {entry: at for at, entry in enumerate(factor_entries(design))}
        p = len(design.gamma_names)
        out = np.zeros((p + len(places), p + len(self.fit.theta)))
        out[:p, :p] = np.eye(p)
        for b, term in enumerate(design.terms):
            if term.covariance.entries is None:
                slopes = term.covariance.factor_derivatives(np.asarray(self.fit.theta)[index[b]])
                for j in range(term.k):
                    for i in range(j, term.k):
                        out[p + places[b, i, j], p + np.asarray(index[b])] += slopes[:, i, j]
                continue
            for i, j, t in term.covariance.entries.tolist():
                out[p + places[b, i, j], p + index[b][t]] += 1.0
        return out

    def known_rows(self, parts: NewParts, selection: Selection) -> list[Any]:
        """By term (codes, values of its columns) with -1 for new levels; None where it has no part.

        Codes have shape (n,), or (n, k) where every column has a level of its own.
        """
        out: list[Any] = [None] * len(self.design.terms)
        n = parts.rows.shape[0]
        for position, columns in selection:
            term = self.design.terms[position]
            codes, Z = parts.terms[position]
            if not isinstance(codes, np.ndarray):
                self.design.need_one_level("standard errors and intervals of predictions")
            codes = np.where(codes >= term.m, -1, codes)
            out[position] = (codes, _chosen(Z, columns, term.k, n))
        return out

    def jacobian(self, parts: NewParts, rows: Sequence[Any], at: slice) -> np.ndarray:
        """J of some rows, shape (C, rows, n_gamma + n_theta)."""
        P = len(self.V)
        n = parts.rows[at].shape[0]
        out = np.zeros((len(parts.parts), n, P))
        for c, (X, _) in enumerate(parts.parts):
            out[c][:, self.design.predictors[c].columns] += X[at]
        for position, row in enumerate(rows):
            if row is None:
                continue
            codes, Z = row[0][at], row[1][at]
            c = self.design.term_predictor[position]
            if codes.ndim == 2:
                for j in range(codes.shape[1]):
                    seen = np.flatnonzero(codes[:, j] >= 0)
                    out[c, seen] += Z[seen, j, None] * self.moves[position][codes[seen, j], j]
                continue
            seen = np.flatnonzero(codes >= 0)
            out[c, seen] += np.einsum("rk,rkp->rp", Z[seen], self.moves[position][codes[seen]])
            if parts.moves and position in parts.moves:
                self._add_moved_weights(out[c], parts.moves[position], position, codes, at)
        return out

    def _add_moved_weights(
        self, out: np.ndarray, moves: tuple[np.ndarray, np.ndarray], position: int, codes: Any, at: slice
    ) -> None:
        """Add ``(dw/dtheta)'b`` in the rows `at` whose position is new: their weights follow theta too."""
        from mixedmodels.objective.parameters import parameter_map

        rows, slopes = moves
        start = at.start or 0
        here = np.flatnonzero((rows >= start) & (rows < start + out.shape[0]))
        here = here[codes[rows[here] - start] >= 0]
        own = rows[here] - start
        b = np.asarray(self.fit._b[position])[codes[own]]
        places = len(self.design.gamma_names) + parameter_map(self.design).index[position]  # type: ignore[arg-type]
        for t, place in enumerate(places.tolist()):
            out[own, place] += np.einsum("rk,rk->r", slopes[t, here], b)

    def covariance(self, parts: NewParts, selection: Selection, new: bool = True) -> np.ndarray:
        """Error covariance of all predictors with the terms of `selection`, shape (C, C, rows).

        Parameters
        ----------
        parts : NewParts
        selection : Selection
            Terms whose effects are in the predictors.
        new : bool
            Add the variance of the effects of new levels.
        """
        rows = self.known_rows(parts, selection)
        C, n, P = len(parts.parts), parts.rows.shape[0], len(self.V)
        out = np.zeros((C, C, n))
        if self.modes is not None and any(row is not None for row in rows):
            out += self.modes.covariances(rows)
        step = max(1, _CHUNK // (C * max(P, 1)))
        for first in range(0, n, step):
            at = slice(first, min(first + step, n))
            J = self.jacobian(parts, rows, at)
            out[:, :, at] += np.einsum("crp,drp->cdr", J @ self.V, J)
            if self.unknown.any():
                flat = (J[:, :, self.unknown] != 0.0).any(axis=2)  # (C, rows)
                for c in range(C):
                    out[c, :, at][:, flat[c]] = np.nan
                    out[:, c, at][:, flat[c]] = np.nan
        if new:
            for position, row in enumerate(rows):
                if row is not None and (row[0] < 0).any():
                    codes = row[0].reshape(n, -1)
                    self.add_variance(out, position, np.where(codes < 0, row[1], 0.0))
                if row is not None and parts.leftover and position in parts.leftover:
                    self.add_leftover(out, position, parts, row[0])
        out[:, :, ~parts.rows] = np.nan
        return out

    def add_leftover(self, out: np.ndarray, position: int, parts: NewParts, codes: Any = None) -> None:
        """Add the variance that effects at new positions have given those of the fit."""
        c, left = self.design.term_predictor[position], (parts.leftover or {}).get(position)
        if left is None:
            return
        precision = self.design.terms[position].precision
        if precision is not None and codes is not None:
            from mixedmodels.solver.precision import covariance_diagonal

            left = left * np.where(codes >= 0, covariance_diagonal(precision)[codes], 1.0)
        out[c, c] += left

    def add_variance(self, out: np.ndarray, position: int, Z: np.ndarray) -> None:
        """Add ``z'Sigma z`` of a term to its predictor; columns of different levels are independent."""
        c, factor = self.design.term_predictor[position], self.factors[position]
        for own in self._columns_by_level(position):
            out[c, c] += ((Z[:, own] @ factor[own]) ** 2).sum(axis=1)

    def _columns_by_level(self, position: int) -> list[list[int]]:
        """Columns of a term that share the level of a row."""
        term = self.design.terms[position]
        if term.codes.ndim == 1:
            return [list(range(term.k))]
        found: list[list[int]] = []
        for j in range(term.k):
            same = [own for own in found if np.array_equal(term.codes[:, own[0]], term.codes[:, j])]
            if same:
                same[0].append(j)
            else:
                found.append([j])
        return found


def coefficient_errors(fit: GLMMFit, named: Any, component: int) -> np.ndarray:
    """Standard errors of the coefficients per level of one linear predictor, rows as in `coef`.

    Parameters
    ----------
    fit : GLMMFit
    named : Effects
        The terms of the predictor under their names.
    component : int
        Position of the predictor.
    """
    errors, design = JointErrors(fit), fit.generalised
    own = [position for position, c in enumerate(design.term_predictor) if c == component]
    out = []
    for X, found in coefficient_rows(named):
        n = X.shape[0]
        terms: list[Any] = [None] * len(design.terms)
        for position, row in zip(own, found, strict=True):
            terms[position] = row
        parts = tuple(
            [
                (X if c == component else np.zeros((n, len(predictor.columns))), None)
                for c, predictor in enumerate(design.predictors)
            ]
        )
        rows = NewParts(design, parts, tuple(terms), np.ones(n, dtype=bool))
        selection: Selection = [(position, None) for position in own if terms[position] is not None]
        out.append(np.sqrt(np.maximum(errors.covariance(rows, selection)[component, component], 0.0)))
    return np.concatenate(out) if out else np.zeros(0)


def _chosen(Z: np.ndarray | None, columns: Sequence[int] | None, k: int, n: int) -> np.ndarray:
    """Values of a term's columns with those not chosen at zero, shape (n, k)."""
    if Z is None:
        return np.ones((n, k))
    if columns is None:
        return Z
    out = np.zeros_like(Z)
    out[:, list(columns)] = Z[:, list(columns)]
    return out
