r"""Responses drawn from generalised models: random effects first, then the response given its predictors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import DataError, OptionError
from mixedmodels.family import Observations
from mixedmodels.fit import values
from mixedmodels.fit.simulate import check_count, drawn_terms, fixed_values, generator, relationship_root

if TYPE_CHECKING:
    from mixedmodels.family import Family
    from mixedmodels.fit.glmm_result import GLMMFit

__all__ = ["Drawing", "draw_generalised", "observations_of", "simulate_glmm", "trials_of"]


@dataclass(frozen=True, slots=True, eq=False)
class Drawing:
    """A random term to draw.

    Attributes
    ----------
    predictor : int
        Linear predictor it adds to.
    codes : ndarray, shape (n,) or (n, k), or sparse matrix
        Level of each row (and column); -1: none. Or Z itself.
    Z : ndarray, shape (n, k), or None
    m : int
        Number of levels.
    factor : ndarray, shape (k, k)
        b = factor u with u standard normal.
    root : callable or None
        `relationship_root` of a known precision.
    """

    predictor: int
    codes: Any
    Z: np.ndarray | None
    m: int
    factor: np.ndarray
    root: Any = None


def draw_generalised(
    family: Family,
    data: Observations,
    base: np.ndarray,
    terms: Sequence[Drawing],
    n: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Draws of the response, shape (rows, n).

    Parameters
    ----------
    family : Family
    data : Observations
        Trials of the rows; the response is not looked at.
    base : ndarray, shape (C, rows)
        Linear predictors without what is drawn; rows that are not finite give NaN.
    terms : sequence of Drawing
    n : int
    rng : Generator
        Draw by draw: the effects of the terms one after another, then the responses. Hence the first draws do
        not depend on n.

    Raises
    ------
    DataError
        A mean outside the range of the family.
    """
    valid = np.isfinite(base).all(axis=0)
    everything = bool(valid.all())
    kept = data if everything else observations_of(data, valid)
    out = np.full((base.shape[1], n), np.nan)
    for r in range(n):
        eta = base.copy()
        for term in terms:
            u = rng.standard_normal((term.m, term.factor.shape[0]))
            b = (u if term.root is None else term.root(u)) @ term.factor.T
            part = values.term_contribution(term.codes, term.Z, b)
            if isinstance(term.codes, np.ndarray) and term.codes.ndim == 1 and (term.codes < 0).any():
                part[term.codes < 0] = 0.0
            eta[term.predictor] += part
        try:
            with np.errstate(all="ignore"):
                y = family.draw(kept, list(eta if everything else eta[:, valid]), rng)
        except OptionError:  # the family cannot draw
            raise
        except ValueError:
            raise DataError(
                f"responses cannot be drawn: some means are outside the range of family {family.name!r} "
                f"with link {family.link.name!r}; use another link or other parameters"
            ) from None
        out[valid, r] = y
    return out


def observations_of(data: Observations, rows: np.ndarray) -> Observations:
    """The observations of some rows."""

    def take(array: np.ndarray | None) -> np.ndarray | None:
        return None if array is None else array[rows]

    return Observations(data.y[rows], take(data.trials), take(data.weights), data.levels)


def trials_of(trials: Any, data: Any, n: int) -> np.ndarray | None:
    """Numbers of trials of n rows: a number, a column of `data` or an array."""
    if trials is None:
        return None
    if isinstance(trials, (int, np.integer)) and not isinstance(trials, bool):
        array = np.full(n, float(trials))
    else:
        from mixedmodels.frame.columns import Columns, numeric_column

        names = (trials,) if isinstance(trials, str) else ()
        array = np.asarray(numeric_column(trials, Columns(data, names), "trials"), dtype=float)
    if array.shape != (n,):
        raise DataError(f"trials has shape {array.shape}; the rows are {n}")
    known = array[~np.isnan(array)]
    if (known < 0.0).any() or (known != np.floor(known)).any():
        raise DataError("trials must be whole numbers >= 0, one per row")
    return array


def simulate_glmm(
    fit: GLMMFit,
    n: Any = 1,
    seed: Any = None,
    new_effects: Any = True,
    *,
    newdata: Any = None,
    re_form: Any = None,
    gamma: Any = None,
    beta: Any = None,
    theta: Any = None,
    trials: Any = None,
    offset: Any = None,
) -> np.ndarray:
    """Draws of the response, shape (rows, n); see `GLMMFit.simulate`."""
    from mixedmodels.fit.glmm_predict import new_parts, own_rows, select_terms
    from mixedmodels.fit.glmm_values import linear_predictor
    from mixedmodels.fit.kriging import draw_terms_at_positions

    n, rng = check_count(n), generator(seed)
    design, components = fit.generalised, range(len(fit.components))
    selection = select_terms(fit, re_form)
    redrawn = set(drawn_terms(fit, new_effects))
    drawn = [(position, columns) for position, columns in selection if position in redrawn]
    kept = [(position, columns) for position, columns in selection if position not in redrawn]
    coefficients = _coefficients(fit, gamma, beta)
    factors = fit._factors if theta is None else _factors_at(fit, theta)
    rows: list[Any]
    wide: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    if newdata is None:
        if offset is not None or trials is not None:
            raise OptionError("offset and trials are for new rows; give newdata as well")
        base = np.array([linear_predictor(design, c, coefficients, fit._b, kept) for c in components])
        rows = list(own_rows(design))
        data = design.data
    else:
        new = new_parts(fit, newdata, selection, "append", offset, fill=False)
        rows = list(new.terms)
        wide = draw_terms_at_positions(
            fit._random, _theta_at(fit, theta), rows, new.positions, dict(selection), redrawn
        )
        new = replace(new, terms=tuple(rows))
        for position, _ in kept:
            codes = rows[position][0]
            known = not isinstance(codes, np.ndarray) or not codes.size
            if not known and int(codes.max()) >= design.terms[position].m:
                raise DataError(
                    f"grouping factor {design.terms[position].group!r} has levels that the fit has not seen: "
                    "they have no estimated effect to keep; draw it anew (new_effects) or leave it out "
                    "(re_form)"
                )
        base = new.predictors(coefficients, fit._b, kept)
        data = unseen_observations(fit, newdata, base.shape[1], trials)
        if data.trials is not None:
            base[0, np.isnan(data.trials)] = np.nan
    terms = []
    for position, columns in [*drawn, *((at, None) for at in wide if at not in redrawn)]:
        codes, Z = rows[position]
        term, m = design.terms[position], design.terms[position].m
        factor = np.array(factors[position])
        if position in wide:
            Z, factor = wide[position]
        if columns is not None:  # the columns left out are not drawn
            chosen = np.zeros_like(factor)
            chosen[list(columns)] = factor[list(columns)]
            factor = chosen
        root = None if term.precision is None else relationship_root(term.precision)
        if isinstance(codes, np.ndarray) and codes.size:
            m = max(m, int(codes.max()) + 1)
        terms.append(Drawing(design.term_predictor[position], codes, Z, m, factor, root))
    family = fit.family.at(design, coefficients)
    return draw_generalised(family, data, base, terms, n, rng)


def _coefficients(fit: GLMMFit, gamma: Any, beta: Any) -> np.ndarray:
    if gamma is not None and beta is not None:
        raise OptionError("give either gamma or beta, not both: beta is the first part of gamma")
    if gamma is not None:
        return fixed_values(gamma, fit.gamma_names, fit.gamma, "gamma")
    out = np.array(fit.gamma)
    if beta is not None:
        out[: fit.design.p] = fixed_values(beta, fit.design.x_names, fit.beta)
    return out


def _factors_at(fit: GLMMFit, theta: Any) -> list[list[list[float]]]:
    return values.relative_factors(fit._random, _theta_at(fit, theta))


def _theta_at(fit: GLMMFit, theta: Any) -> np.ndarray:
    """theta of the fit, or as given."""
    if theta is None:
        return np.array(fit.theta)
    names = fit.theta_names
    if isinstance(theta, Mapping):
        theta = fixed_values(theta, names, fit.theta, "theta")
    try:
        array = np.array(theta, dtype=float).reshape(-1)
    except (TypeError, ValueError):
        raise OptionError("theta must hold numbers") from None
    if array.shape[0] != len(names) or not np.isfinite(array).all():
        raise OptionError(f"theta needs {len(names)} finite numbers ({', '.join(names)})")
    return array


def unseen_observations(fit: GLMMFit, newdata: Any, n: int, trials: Any) -> Observations:
    own = fit.generalised.data
    if own.trials is None:
        if trials is not None:
            raise OptionError(f"trials: family {fit.family.name!r} of this fit has one trial per row")
        return Observations(np.zeros(n), levels=own.levels)
    if trials is None and isinstance(fit._options.trials, str):
        trials = fit._options.trials
    if trials is None:
        raise OptionError("trials is needed for new rows: a number, a column of newdata or an array")
    return Observations(np.zeros(n), trials_of(trials, newdata, n), levels=own.levels)
