"""Rows at positions that the fit has not seen: their effects given those at the positions of the fit.

The effect at a new position is :math:`w'b` of the level, plus what is left over, which is independent of all
effects of the term: w takes the place of the values of the term's columns, and its variance is added to that
of predictions. For a level that is new too, :math:`w'\\Sigma w` and the variance left make up the whole.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mixedmodels.covariance.elsewhere import elsewhere, has_elsewhere, joint_factor
from mixedmodels.errors import DataError, OptionError

__all__ = [
    "at_new_positions",
    "draw_at_positions",
    "draw_terms_at_positions",
    "draws_left_over",
    "fill_positions",
    "open_terms",
]

Selection = Sequence[tuple[int, "Sequence[int] | None"]]


def open_terms(terms: Sequence[Any], positions: Sequence[int]) -> list[int]:
    """Those of the random terms whose structures say what effects at other positions are."""
    return [b for b in positions if not terms[b].several_levels and has_elsewhere(terms[b].covariance)]


def at_new_positions(fit: Any, rows: Any, selection: Selection) -> Any:
    """A `NewDesign` with weights and variances left in its rows at new positions."""
    if not rows.positions:
        return rows
    terms = list(rows.terms)
    leftover, _ = fill_positions(fit, terms, rows.positions, selection)
    return replace(rows, terms=tuple(terms), leftover=leftover)


def fill_positions(
    fit: Any, terms: list[Any], positions: dict[int, tuple[np.ndarray, np.ndarray]], selection: Selection
) -> tuple[dict[int, np.ndarray], dict[int, tuple[np.ndarray, np.ndarray]]]:
    """Put the weights of rows at new positions into `terms`; variances left and derivatives of the weights.

    Parameters
    ----------
    fit : Fit
    terms : list of (codes, Z) or None
        By random term; changed.
    positions : dict
        As in `NewDesign`.
    selection : sequence of (term, columns or None)
        Which effects are asked for.

    Raises
    ------
    DataError
        The structure does not take such positions.
    OptionError
        Only some effects of the term are asked for.
    """
    from mixedmodels.objective.parameters import parameter_map

    random, chosen = fit._random, dict(selection)
    leftover: dict[int, np.ndarray] = {}
    moves: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    index = parameter_map(random).index if positions else ()
    for b, (rows, points) in positions.items():
        if not rows.size:
            continue
        term = random.terms[b]
        _refuse_single_effects(term, chosen.get(b))
        distinct, inverse = _distinct(points)
        found = _asked(elsewhere, term, np.asarray(fit.theta)[index[b]], distinct)
        codes, Z = terms[b]
        terms[b] = (codes, Z := _with_weights(Z, rows, found.weights[inverse]))
        leftover[b] = np.zeros(Z.shape[0])
        leftover[b][rows] = found.leftover[inverse]
        moves[b] = (rows, found.derivatives[:, inverse])
    return leftover, moves


def draw_at_positions(
    term: Any, theta: np.ndarray, Z: np.ndarray, seen: tuple[np.ndarray, np.ndarray], columns: Any = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What simulation needs of a term at new positions: one more column for each of them.

    Parameters
    ----------
    term : RandomTerm
    theta : ndarray
        Parameters of the term.
    Z : ndarray, shape (N, k)
        Columns at the positions of the fit.
    seen : (rows, points)
        As in `NewDesign.positions`.
    columns : None or sequence of int
        Single effects asked for.

    Returns
    -------
    Z : ndarray, shape (N, k + r)
        With indicators of the new positions.
    factor : ndarray, shape (k + r, k + r)
        Relative factor of the effects at all positions.
    weights : ndarray, shape (N, k)
        W in the rows at new positions, Z elsewhere.

    Raises
    ------
    DataError
        The structure does not take such positions.
    OptionError
        Only some effects of the term are asked for.
    """
    rows, points = seen
    _refuse_single_effects(term, columns)
    distinct, inverse = _distinct(points)
    factor = _asked(joint_factor, term, theta, distinct)
    weights = _asked(elsewhere, term, theta, distinct).weights[inverse]
    k, r = term.k, len(distinct)
    wide = np.concatenate(
        [_with_weights(Z, rows, np.zeros((len(rows), k))), np.zeros((Z.shape[0], r))], axis=1
    )
    wide[rows, k + inverse] = 1.0
    return wide, factor, _with_weights(Z, rows, weights)


def draw_terms_at_positions(
    random: Any,
    theta: np.ndarray,
    rows: list[Any],
    positions: dict[int, tuple[np.ndarray, np.ndarray]] | None,
    columns: Mapping[int, Any],
    drawn: Collection[int],
) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Columns and factors of all terms with rows at new positions, for simulation.

    Of terms that are not drawn the effects of the fit are given: their weights go into `rows`, and only
    what they leave over is drawn.

    Parameters
    ----------
    random : Design
    theta : ndarray
        Of all terms.
    rows : list of (codes, Z)
        By term; changed.
    positions : dict or None
        As in `NewDesign`.
    columns : mapping from term to None or a sequence of int
        Single effects asked for.
    drawn : collection of int
        Terms whose effects are drawn anew.

    Returns
    -------
    dict of (Z, factor)
        By term, as from `draw_at_positions`; of what is left over where a term is not drawn.
    """
    from mixedmodels.objective.parameters import parameter_map

    out: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    for b, seen in (positions or {}).items():
        if not seen[0].size:
            continue
        term, own = random.terms[b], np.asarray(theta)[parameter_map(random).index[b]]
        codes, Z = rows[b]
        wide, factor, weights = draw_at_positions(term, own, Z, seen, columns[b])
        if b in drawn:
            out[b] = wide, factor
        else:
            rows[b] = codes, weights
            out[b] = wide[:, term.k :], factor[term.k :, term.k :]
    return out


def draws_left_over(
    fit: Any, b: int, codes: np.ndarray, seen: tuple[np.ndarray, np.ndarray], n: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draws of what the effects at the positions of the fit leave of those at new ones, over sigma.

    Parameters
    ----------
    fit : Fit
    b : int
        The term.
    codes : ndarray, shape (N,)
        Levels of the rows; rows with equal ones share the draws of a position, -1 shares with none.
    seen : (rows, points)
        As in `NewDesign.positions`.
    n : int
    rng : Generator

    Returns
    -------
    which : ndarray of intp, shape (N,)
        Row of `draws`; -1 for rows at positions of the fit.
    draws : ndarray, shape (pairs, n)
    """
    from mixedmodels.objective.parameters import parameter_map

    term, (rows, points) = fit._random.terms[b], seen
    distinct, place = _distinct(points)
    theta = np.asarray(fit.theta)[parameter_map(fit._random).index[b]]
    root = _asked(joint_factor, term, theta, distinct)[term.k :, term.k :]
    levels = np.where(codes[rows] < 0, -1 - np.arange(rows.size), codes[rows])
    levels = np.unique(levels, return_inverse=True)[1].reshape(-1)
    pairs, inverse = np.unique(levels * len(distinct) + place, return_inverse=True)
    if pairs.size * n > _LARGEST:
        raise OptionError(
            f"{n} draws for {pairs.size} pairs of level and new position are too many to hold at once; "
            "predict fewer rows at a time, or take method='analytic'"
        )
    draws = np.empty((pairs.size, n))
    level, column = pairs // len(distinct), pairs % len(distinct)
    for first in np.flatnonzero(np.diff(level, prepend=-1)).tolist():
        own = slice(first, first + int(np.count_nonzero(level == level[first])))
        draws[own] = root[column[own]] @ rng.standard_normal((len(distinct), n))
    which = np.full(codes.shape[0], -1, dtype=np.intp)
    which[rows] = inverse.reshape(-1)
    return which, draws


_LARGEST = 100_000_000  # numbers in the draws of one term


def _refuse_single_effects(term: Any, columns: Any) -> None:
    if columns is not None:
        raise OptionError(
            f"re_form names single effects of {term.group!r}, but the new data have positions that the "
            "fit has not seen, whose effects depend on all of them; name the whole term"
        )


def _distinct(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Different positions, and which of them each row has."""
    distinct, inverse = np.unique(points, axis=0, return_inverse=True)
    return distinct, inverse.reshape(-1)


def _asked(question: Callable[..., Any], term: Any, theta: np.ndarray, positions: np.ndarray) -> Any:
    """`elsewhere` or `joint_factor` of a term; a DataError that names it where there is no answer."""
    try:
        return question(term.covariance, theta, positions)
    except OptionError as error:
        raise DataError(
            f"the effects of {term.group!r} ({term.covariance.name}) cannot be predicted at the "
            f"positions of the new data: {error}"
        ) from None


def _with_weights(Z: np.ndarray, rows: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Z with other values in some rows; what is missing there stays so."""
    out = np.array(Z)
    out[rows] = np.where(np.isnan(out[rows]), np.nan, weights)
    return out
