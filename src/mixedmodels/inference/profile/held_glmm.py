"""The criterion of a generalised fit with one parameter held."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import OptionError
from mixedmodels.inference.parameters import Parameter
from mixedmodels.objective.held_glmm import HeldGLMM
from mixedmodels.objective.parameters import lower_factor

if TYPE_CHECKING:
    from mixedmodels.fit.glmm_result import GLMMFit

__all__ = ["held_glmm"]


def held_glmm(fit: GLMMFit, parameter: Parameter) -> HeldGLMM:
    """The criterion of the fit with one parameter held.

    A standard deviation or correlation that is not an entry of the factor becomes one when the columns of its
    term are taken in another order: the model is set up once more with that order.

    Raises
    ------
    OptionError
        A standard deviation of a term whose parameters are restricted or partly shared.
    """
    objective, where = fit.objective, parameter.where
    if parameter.kind in ("fixed", "constant", "dispersion"):
        return HeldGLMM(objective, fit.psi, where[0])
    term = where[0]
    if parameter.kind == "structure":
        natural, i = parameter.natural, where[1]
        if not natural.separable(i):
            raise OptionError(
                f"{parameter.name} is no coordinate of its structure and cannot be profiled; "
                "use confint(method='bootstrap') or 'wald'"
            )
        place = objective.n_gamma + int(natural.index[i])
        _check_free(objective, [place], parameter)
        held = HeldGLMM(objective, fit.psi, place)
        held.lower, held.upper = float(natural.covariance.lower[i]), float(natural.covariance.upper[i])
        return held
    lead = [where[1]] if parameter.kind == "sd" else list(where[1:])
    mapping, n_gamma = objective.coordinates.map, objective.n_gamma
    structure = fit._terms[term].covariance
    if structure.clip != "block" or fit._terms[term].k == 1 or lead == [0]:
        place = n_gamma + int(mapping.index[term][_entry(structure, lead[0], lead[0])])
        _check_free(objective, [place], parameter)
        return HeldGLMM(objective, fit.psi, place, lower=0.0)
    tied = mapping.tied[term]
    own = set(mapping.index[term].tolist())
    for b, index in enumerate(mapping.index):
        if b not in tied and own & set(index.tolist()):
            raise OptionError(
                f"{parameter.name} cannot be profiled: its term shares single parameters with another one"
            )
    _check_free(objective, [n_gamma + t for t in sorted(own)], parameter)
    k = fit._terms[term].k
    order = lead + [i for i in range(k) if i not in lead]
    orders = dict.fromkeys(tied, order)
    if order == list(range(k)):
        moved, psi = objective, np.array(fit.psi)
    else:
        moved = _reordered(fit, orders)
        psi = np.array(fit.psi)
        F = np.asarray(fit._factors[term])[order]
        index = moved.coordinates.map.index[term]
        psi[n_gamma + index] = structure.theta_of(lower_factor(F @ F.T))
    places = {
        (i, j): n_gamma + int(moved.coordinates.map.index[term][_entry(structure, i, j)])
        for i, j in ((0, 0), (1, 0), (1, 1))
    }
    if parameter.kind == "sd":
        return HeldGLMM(moved, psi, places[0, 0], lower=0.0, orders=orders)
    return HeldGLMM(moved, psi, places[0, 0], (places[1, 0], places[1, 1]), orders=orders)


def _entry(structure: Any, i: int, j: int) -> int:
    """The parameter of a structure that is entry (i, j) of its factor."""
    return next(int(t) for r, c, t in structure.entries.tolist() if (r, c) == (i, j))


def _check_free(objective: Any, places: Sequence[int], parameter: Parameter) -> None:
    """Refuse what `fixed` and `equal` have a say in."""
    M = objective.M
    rows = M[list(places)] != 0.0
    single = (M[:, rows.any(axis=0)] != 0.0).sum(axis=0) == 1
    if not rows.any(axis=1).all() or not (single.all() or len(places) == 1):
        raise OptionError(
            f"{parameter.name} cannot be profiled: fixed= or equal= restrict the parameters of its term"
        )


def _reordered(fit: GLMMFit, orders: dict[int, list[int]]) -> Any:
    """The objective of the fit's model with the columns of some terms in another order."""
    from mixedmodels.fit.glmm import glmm_objective

    design = fit.generalised
    terms = list(design.terms)
    for b, order in orders.items():
        term = terms[b]
        Z = None if term.Z is None else np.ascontiguousarray(term.Z[:, order])
        codes, rows = term.codes, term.rows
        if codes.ndim == 2 and rows is None:
            codes = np.ascontiguousarray(codes[:, order])
        elif rows is not None:
            columns = np.arange(term.m)[:, None] * term.k + np.array(order)
            rows = rows[:, columns.reshape(-1)]
        names = tuple([term.names[i] for i in order])
        terms[b] = replace(term, Z=Z, codes=codes, rows=rows, names=names)
    frame = replace(fit.frame, generalised=replace(design, terms=tuple(terms)))
    return glmm_objective(frame, replace(fit._options, start=None))
