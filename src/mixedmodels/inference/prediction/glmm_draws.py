r"""Draws of parameters and random effects of generalised models given the data.

The Gaussian approximation at the mode: :math:`\psi^* \sim N(\hat\psi, V)` and

.. math:: b^* = \hat b + \frac{\partial\hat b}{\partial\psi}(\psi^* - \hat\psi) + \Lambda e, \qquad
          e \sim N(0, H^{-1}),

with the sparse factor of H for all draws. With a bootstrap, :math:`\psi^*` is a replicate's and modes and H
are those at it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import DataError, NotImplementedYetError, OptionError
from mixedmodels.fit.glmm_errors import JointErrors
from mixedmodels.fit.glmm_predict import NewParts

if TYPE_CHECKING:
    from mixedmodels.design import GeneralisedDesign
    from mixedmodels.fit.glmm_result import GLMMFit
    from mixedmodels.fit.predict import Selection

__all__ = ["EffectDraws", "joint_draws"]

_CHUNK = 8_000_000  # numbers at a time


class EffectDraws:
    """Draws of the coefficients and of the random effects of some levels.

    Attributes
    ----------
    gamma : ndarray, shape (n_gamma, n)
    theta : ndarray, shape (n_theta, n)
    b : dict of int to ndarray, shape (levels, k, n)
        By position of the term.
    levels : dict of int to ndarray
        The levels, ascending.
    """

    def __init__(
        self,
        gamma: np.ndarray,
        theta: np.ndarray,
        b: dict[int, np.ndarray],
        levels: dict[int, np.ndarray],
        factors: list[np.ndarray],
    ) -> None:
        self.gamma, self.theta, self.b, self.levels = gamma, theta, b, levels
        self.factors = factors  # by term, (1 or n, k, k)

    @property
    def n(self) -> int:
        """Number of draws."""
        return self.gamma.shape[1]

    def predictors(
        self, parts: NewParts, rows: list[Any], numbered: list[Any], rng: np.random.Generator
    ) -> np.ndarray:
        """Draws of all linear predictors, shape (C, rows, n).

        Parameters
        ----------
        parts : NewParts
        rows : list of (codes, Z) or None
            As `JointErrors.known_rows`: -1 for new levels.
        numbered : list of ndarray or None
            By term, numbers of the levels that tell new ones apart: rows with equal ones share a draw.
        rng : Generator
        """
        design, n = parts.design, self.n
        out = np.empty((len(parts.parts), parts.rows.shape[0], n))
        for c, (X, offset) in enumerate(parts.parts):
            out[c] = X @ self.gamma[design.predictors[c].columns]
            if offset is not None:
                out[c] += offset[:, None]
        for position, row in enumerate(rows):
            if row is None:
                continue
            codes, Z = row
            c, k = design.term_predictor[position], Z.shape[1]
            known, new = np.flatnonzero(codes >= 0), np.flatnonzero(codes < 0)
            if known.size:
                place = np.searchsorted(self.levels[position], codes[known])
                for j in range(k):
                    out[c, known] += self.b[position][place, j] * Z[known, j, None]
            if new.size:
                distinct, own = np.unique(numbered[position][new], return_inverse=True)
                u = rng.standard_normal((distinct.size, n, k))
                b = np.einsum("rij,lrj->lir", np.broadcast_to(self.factors[position], (n, k, k)), u)
                for j in range(k):
                    out[c, new] += b[own.reshape(-1), j] * Z[new, j, None]
        out[:, ~parts.rows] = np.nan
        return out


def joint_draws(
    fit: GLMMFit,
    errors: JointErrors,
    n: int,
    rng: np.random.Generator,
    levels: dict[int, np.ndarray] | None = None,
    parameters: Any = None,
) -> EffectDraws:
    """Draws of (gamma, theta, b) given the data.

    Parameters
    ----------
    fit : GLMMFit
    errors : JointErrors
    n : int
        Number of draws; with `parameters` the number of its replicates counts.
    rng : Generator
    levels : dict of int to ndarray, optional
        By position of the term the levels wanted; by default all.
    parameters : Bootstrap, optional

    Raises
    ------
    DataError
        The likelihood is flat in the direction of a parameter, or no replicate could be fitted.
    """
    design, p = errors.design, len(fit.gamma)
    _need_plain_terms(design)
    if levels is None:
        levels = {position: np.arange(term.m) for position, term in enumerate(design.terms)}
    if parameters is not None:
        return _at_replicates(fit, errors, replicates(fit, parameters), rng, levels)
    if errors.unknown.any():
        names = [name for name, flat in zip(fit.objective.names, errors.unknown, strict=True) if flat]
        raise DataError(
            f"parameters cannot be drawn: the likelihood is flat in the direction of {', '.join(names)}; "
            "leave them out of the model or hold them (fixed=)"
        )
    values, vectors = np.linalg.eigh(errors.V)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    change = root @ rng.standard_normal((len(root), n))
    b = {position: np.empty((rows.size, design.terms[position].k, n)) for position, rows in levels.items()}
    if errors.modes is not None and b:
        draw, q = _effect_root(errors.modes), sum(term.m * term.k for term in design.terms)
        modes = errors.modes.b
        step = max(1, _CHUNK // max(q, 1))
        for first in range(0, n, step):
            at = slice(first, min(first + step, n))
            found = errors.modes.split(draw(rng.standard_normal((at.stop - at.start, q)).T))
            for position, rows in levels.items():
                b[position][:, :, at] = modes[position][rows][:, :, None] + found[position][rows]
                b[position][:, :, at] += errors.moves[position][rows] @ change[:, at]
    factors = [factor[None] for factor in errors.factors]
    return EffectDraws(fit.gamma[:, None] + change[:p], fit.theta[:, None] + change[p:], b, levels, factors)


def _need_plain_terms(design: GeneralisedDesign) -> None:
    """Refuse terms whose effects are not those of one level in each row.

    Raises
    ------
    NotImplementedYetError
    """
    from mixedmodels.solver.low_rank import is_low_rank_term

    design.need_one_level("predictions by simulation")
    for term in design.terms:
        if is_low_rank_term(term):
            raise NotImplementedYetError(
                f"predictions by simulation: not in this version for {term.group!r}, whose levels have a "
                "covariance of lower rank; use method='analytic'"
            )


def _effect_root(modes: Any) -> Any:
    """Maps standard normal columns to columns with covariance H^{-1}."""
    from mixedmodels.design import Precision
    from mixedmodels.fit.simulate import relationship_root

    return relationship_root(Precision(modes.precision(), 0.0))


def replicates(fit: GLMMFit, parameters: Any) -> np.ndarray:
    """psi of the replicates of a bootstrap that could be fitted, shape (n, n_gamma + n_theta)."""
    gamma: Any = getattr(parameters, "beta", None)
    theta: Any = getattr(parameters, "theta", None)
    sizes = (len(fit.gamma), len(fit.theta))
    if [np.shape(part)[1:] for part in (gamma, theta)] != [(size,) for size in sizes]:
        raise OptionError("parameters must be a Bootstrap of this fit (fit.bootstrap(...))")
    origin = getattr(parameters, "settings", {}).get("model", [fit.formula_text, fit.nobs])[:2]
    if list(origin) != [fit.formula_text, fit.nobs]:
        raise OptionError(
            f"parameters is a Bootstrap of another fit ({origin[0]}, {origin[1]} rows); use this fit's own"
        )
    psi = np.column_stack([np.asarray(gamma, dtype=float), np.asarray(theta, dtype=float)])
    psi = psi[np.isfinite(psi).all(axis=1)]
    if not len(psi):
        raise DataError("parameters holds no replicate that could be fitted")
    return psi


def _at_replicates(
    fit: GLMMFit,
    errors: JointErrors,
    psi: np.ndarray,
    rng: np.random.Generator,
    levels: dict[int, np.ndarray],
) -> EffectDraws:
    from mixedmodels.fit.values import relative_factors

    design, n, p = errors.design, len(psi), len(fit.gamma)
    b = {position: np.empty((rows.size, design.terms[position].k, n)) for position, rows in levels.items()}
    each = [[np.array(f) for f in relative_factors(design, row[p:])] for row in psi]  # type: ignore[arg-type]
    if errors.modes is not None and b:
        q = sum(term.m * term.k for term in design.terms)
        for r, row in enumerate(psi):
            errors.modes.move(row[:p], each[r])
            found = errors.modes.split(_effect_root(errors.modes)(rng.standard_normal((q, 1))))
            modes = errors.modes.b
            for position, rows in levels.items():
                b[position][:, :, r] = modes[position][rows] + found[position][rows][:, :, 0]
        errors.modes.move(fit.gamma, errors.factors)
    factors = [np.array(own) for own in zip(*each, strict=True)]
    return EffectDraws(psi[:, :p].T.copy(), psi[:, p:].T.copy(), b, levels, factors)


def used_levels(selection: Selection, rows: list[Any]) -> dict[int, np.ndarray]:
    """By term the known levels that rows have."""
    return {position: np.unique(rows[position][0][rows[position][0] >= 0]) for position, _ in selection}
