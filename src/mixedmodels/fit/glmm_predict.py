"""Point predictions of generalised models: which random effects, which linear predictors, which scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import OptionError
from mixedmodels.fit import values
from mixedmodels.fit.glmm_ordinal import CATEGORY_TYPES, category_values
from mixedmodels.fit.glmm_values import base_family, natural_dispersion
from mixedmodels.fit.kriging import fill_positions, open_terms
from mixedmodels.fit.predict import Selection, check_new_levels, not_estimable, select_columns

if TYPE_CHECKING:
    from mixedmodels.design import GeneralisedDesign
    from mixedmodels.family import Family
    from mixedmodels.fit.glmm_estimates import GLMMEstimates
    from mixedmodels.fit.glmm_result import GLMMFit

__all__ = [
    "TYPES",
    "NewParts",
    "check_type",
    "new_parts",
    "on_scale",
    "own_parts",
    "predict_glmm",
    "scale_gradient",
    "select_terms",
]

TYPES = ("response", "link", "conditional", "zero_probability", "dispersion", *CATEGORY_TYPES)


def select_terms(fit: GLMMEstimates, re_form: Any) -> Selection:
    """Terms (and columns) of all linear predictors that a `re_form` names.

    A formula text chooses among the terms of the conditional predictor; of the other predictors it takes
    those on the grouping factors it names.
    """
    chosen = select_columns(fit, re_form)
    first = len(fit.design.terms)
    terms = fit.generalised.terms
    if len(terms) == first:
        return chosen
    if re_form is None or re_form is True:
        return [*chosen, *[(position, None) for position in range(first, len(terms))]]
    groups = {terms[position].group for position, _ in chosen}
    return [*chosen, *[(p, None) for p in range(first, len(terms)) if terms[p].group in groups]]


_PARTS = {"zero_probability": "zero_inflation", "dispersion": "dispersion"}


def check_type(type: Any, family: Family, components: Sequence[str]) -> None:
    """Refuse an unknown `type`, or one that the model does not have."""
    if type not in TYPES:
        raise OptionError(f"type must be one of {', '.join(TYPES)}, got {type!r}")
    if type in _PARTS and _PARTS[type] not in components:
        raise OptionError(f"type={type!r}: family {family.name!r} of this model has no {_PARTS[type]} part")


def on_scale(family: Family, eta: np.ndarray, components: Sequence[str], type: str) -> np.ndarray:
    """What `type` asks for, from all linear predictors, shape (n,); probabilities of categories (n, K).

    Raises
    ------
    OptionError
        An unknown type, or one that the model does not have.
    """
    check_type(type, family, components)
    etas = list(eta)
    if type == "link":
        return np.array(etas[0])
    if type == "response":
        return np.array(family.mean(etas))
    if type in CATEGORY_TYPES:
        return category_values(family, etas[0], type)
    if type == "conditional":
        own = getattr(family, "conditional_mean", None)
        return np.array(family.mean(etas) if own is None else own(etas))
    delta = etas[components.index(_PARTS[type])]
    if type == "dispersion":
        return np.array(natural_dispersion(family, delta))
    from scipy.special import expit

    return expit(delta)


def scale_gradient(family: Family, eta: np.ndarray, components: Sequence[str], type: str) -> np.ndarray:
    """Derivatives of `on_scale` with respect to all linear predictors, shape (C, n)."""
    from mixedmodels.family import Family
    from mixedmodels.family.functions import exp, log_expit
    from mixedmodels.family.jet import Jet, variables

    C, n = eta.shape
    out = np.zeros((C, n))
    if type == "link":
        out[0] = 1.0
        return out
    with np.errstate(all="ignore"):
        jets = variables(list(eta), range(C), 1)
        value: Any
        if type in _PARTS:
            c = list(components).index(_PARTS[type])
            if type == "dispersion":
                natural = base_family(family).natural
                value = (
                    exp(jets[c]) if getattr(natural, "__func__", None) is Family.natural else natural(jets[c])
                )
            else:
                value = exp(log_expit(jets[c]))
        elif type == "response":
            value = family.expected(jets)
        elif components[-1] == "zero_inflation" and getattr(family, "base", None) is not None:
            value = family.base.expected(jets[:-1])  # type: ignore[attr-defined]
        else:
            own = getattr(family, "conditional_mean", None)
            value = family.expected(jets) if own is None else family.link.inverse(jets[0])
    return value.table(n)[1:] if isinstance(value, Jet) else out


@dataclass(frozen=True, slots=True, eq=False)
class NewParts:
    """Columns of all linear predictors for new rows.

    Attributes
    ----------
    design : GeneralisedDesign
        Of the fit.
    parts : tuple of (X, offset)
        Per predictor.
    terms : tuple of (codes, Z) or None
        Per random term of the fit; None where it was not asked for.
    rows : ndarray of bool, shape (n,)
        False for rows that cannot be predicted.
    leftover : dict of int to ndarray, shape (n,), optional
        See `NewDesign`.
    moves : dict of int to (rows, derivatives), optional
        By random term the rows at new positions and how their values of the term's columns change with its
        parameters, shape (n_theta of the term, rows, k).
    positions : dict, optional
        As in `NewDesign`, where nothing was filled in.
    """

    design: GeneralisedDesign
    parts: tuple[tuple[np.ndarray, np.ndarray | None], ...]
    terms: tuple[Any, ...]
    rows: np.ndarray
    leftover: dict[int, np.ndarray] | None = None
    moves: dict[int, tuple[np.ndarray, np.ndarray]] | None = None
    positions: dict[int, tuple[np.ndarray, np.ndarray]] | None = None

    def predictors(self, gamma: np.ndarray, b: Sequence[np.ndarray], selection: Selection) -> np.ndarray:
        """All linear predictors with the random terms of `selection`, shape (C, n)."""
        out = np.empty((len(self.parts), self.rows.shape[0]))
        for c, (X, offset) in enumerate(self.parts):
            coefficients = gamma[self.design.predictors[c].columns]
            out[c] = X @ coefficients
            if offset is not None:
                out[c] += offset
        for position, columns in selection:
            codes, Z = self.terms[position]
            part = values.term_contribution(codes, Z, b[position], columns)
            if isinstance(codes, np.ndarray) and codes.ndim == 1:
                part[codes < 0] = 0.0  # a new or missing level counts as zero, its mean
            out[self.design.term_predictor[position]] += part
        out[:, ~self.rows] = np.nan
        return out


def own_parts(design: GeneralisedDesign) -> NewParts:
    """The rows of the fit."""
    return NewParts(
        design,
        tuple([(np.ones((design.n, 1)) if p.X is None else p.X, p.offset) for p in design.predictors]),
        own_rows(design),
        np.ones(design.n, dtype=bool),
    )


def own_rows(design: GeneralisedDesign) -> tuple[Any, ...]:
    """By term (codes, Z) of the rows of the fit; (Z, None) where only a sparse matrix can say it."""
    n = design.n
    return tuple([(term.codes, term.Z) if term.rows is None else term.parts(n) for term in design.terms])


def new_parts(
    fit: GLMMFit,
    newdata: Any,
    selection: Selection,
    new_levels: str,
    offset: Any = None,
    columns_of: Sequence[int] = (),
    fill: bool = True,
) -> NewParts:
    """Columns of all linear predictors for new data; of the terms `columns_of` without their levels.

    Terms of positions may be asked for at positions that the fit has not seen; unless `fill` is False their
    columns are filled with the weights of the effects of the fit.
    """
    from mixedmodels.frame.parts import new_predictors

    if fit.formula is None:
        fit.frame.new_data(newdata)
    chosen = [position for position, _ in selection]
    found = new_predictors(
        fit.frame,
        newdata,
        terms=chosen,
        new_levels=new_levels,
        offset=offset,
        columns_of=columns_of,
        new_positions=open_terms(fit.generalised.terms, [*chosen, *columns_of]),
    )
    rows = np.array(found[0].rows)
    for design in found:
        rows[not_estimable(fit, design)] = False
    terms = [term for design in found for term in design.terms]
    new: dict[int, Any] = {}
    first = 0
    for design in found:
        new |= {first + b: where for b, where in (design.positions or {}).items()}
        first += len(design.terms)
    leftover, moves = fill_positions(fit, terms, new if fill else {}, selection)
    return NewParts(
        fit.generalised,
        tuple([(design.X, design.offset) for design in found]),
        tuple(terms),
        rows,
        leftover,
        moves,
        None if fill else {at: seen for at, seen in new.items() if seen[0].size},
    )


def predict_glmm(
    fit: GLMMFit, newdata: Any, re_form: Any, new_levels: str, type: str, offset: Any = None
) -> np.ndarray:
    """Point predictions; see `GLMMFit.predict`."""
    check_type(type, fit.family, fit.components)
    check_new_levels(new_levels)
    if newdata is None:
        return fit.fitted(re_form, type)
    selection = select_terms(fit, re_form)
    eta = new_parts(fit, newdata, selection, new_levels, offset).predictors(fit.gamma, fit._b, selection)
    return on_scale(fit.family, eta, fit.components, type)
