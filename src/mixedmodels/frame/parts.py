r"""Frames of generalised models: one formula per linear predictor, all on the same rows.

Each predictor

.. math:: \eta_c = X_c\gamma_c + \sum_b Z_{cb} b_{cb} + o_c

with a formula has a `ModelFrame` with an encoding of its own; a row that misses a value in any of them is
missing in all. Predictors without a formula are one coefficient. Terms of different predictors on one
grouping factor share the array of codes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mixedmodels.design import Design, GeneralisedDesign, Predictor, RandomTerm
from mixedmodels.errors import DataError, FormulaError, OptionError
from mixedmodels.formula.ast import Formula
from mixedmodels.frame import identify
from mixedmodels.frame.assemble import Assembled, assemble, shared_parameters
from mixedmodels.frame.build import ModelFrame, dots, resolve_dots
from mixedmodels.frame.columns import Columns
from mixedmodels.frame.known import Known, check_names, match_known
from mixedmodels.frame.missing import check_weights
from mixedmodels.frame.newdata import NewDesign, encode_new
from mixedmodels.frame.plan import Plan, plan_of, require_bars, require_response
from mixedmodels.frame.responses import observations_of, refuse_constant, rows_without_trials
from mixedmodels.frame.rows import Rows, nothing_left, read_rows, settle_rows
from mixedmodels.frame.values import FactorColumn

__all__ = ["PREFIXES", "build_generalised", "coefficient_names", "new_predictors"]

PREFIXES = {"zero_inflation": "zi_", "dispersion": "disp_"}
"""What stands before the names of coefficients of predictors other than the conditional one."""


def coefficient_names(predictor: str, names: Sequence[str]) -> tuple[str, ...]:
    """Names of a predictor's coefficients among those of all: ``zi_x``, ``disp_x``, ``power``.

    Examples
    --------
    >>> coefficient_names("dispersion", ["(Intercept)", "x"]), coefficient_names("power", ["(Intercept)"])
    (('disp_(Intercept)', 'disp_x'), ('power',))
    """
    if predictor == "conditional":
        return tuple(names)
    prefix = PREFIXES.get(predictor)
    if prefix is not None:
        return tuple([prefix + name for name in names])
    return tuple([predictor if name == "(Intercept)" else f"{predictor}_{name}" for name in names])


def build_generalised(
    formula: Formula,
    data: Any,
    family: Any,
    *,
    parts: Mapping[str, Formula | None] | None = None,
    trials: Any = None,
    weights: Any = None,
    offset: Any = None,
    contrasts: Mapping[str, Any] | None = None,
    na_action: str = "omit",
    functions: Mapping[str, Callable[..., Any]] | None = None,
    share: Sequence[Sequence[str]] | None = None,
    relationships: Mapping[str, Known] | None = None,
    free_dispersion: bool = True,
) -> ModelFrame:
    """Read the columns of all linear predictors of a model from a data frame.

    Parameters
    ----------
    formula : Formula
        Response and conditional predictor.
    data : data frame or mapping
    family : Family
        With the predictors the formulas are for.
    parts : mapping from predictor to Formula or None
        One-sided formulas; None, or a predictor that is not named, is one coefficient.
    trials, weights, offset : str or array of shape (n,), optional
        Numbers of trials, multipliers of the log-likelihood, offset of the conditional predictor. Rows with 0
        trials or weight 0 are left out of the likelihood.
    contrasts, na_action, functions, share
        As in `build`; `contrasts` hold in all formulas.
    relationships : mapping from str to Known, optional
        As in `build`; the terms of all formulas use them.
    free_dispersion : bool
        Whether a dispersion of the family is to be estimated.

    Returns
    -------
    ModelFrame
        Of the conditional predictor, with `generalised`, `family` and `parts`.

    Raises
    ------
    FormulaError, DataError, IdentifiabilityError, OptionError
        As in `build`; and if the response does not belong to the family.

    Examples
    --------
    >>> from mixedmodels.family import get_family
    >>> from mixedmodels.formula import parse
    >>> data = {"y": [1, 2, 4, 3, 5], "m": [5, 5, 6, 4, 9], "g": ["a", "b", "a", "b", "a"]}
    >>> frame = build_generalised(parse("y ~ 1 + (1 | g)"), data, get_family("binomial"), trials="m")
    >>> frame.generalised.gamma_names, frame.generalised.data.trials
    (('(Intercept)',), array([5., 5., 6., 4., 9.]))
    """
    messages: list[str] = []
    require_response(formula)
    formulas = {name: part for name, part in (parts or {}).items() if part is not None}
    if not any(part.bars for part in formulas.values()):
        require_bars(formula)
    if dots(formula):
        formula, data = resolve_dots(formula, data, (weights, offset, trials), messages)
    plan = plan_of(formula)
    if family.response == "categories":
        plan = _with_intercept(plan, messages)
    plans = {name: _part_plan(name, part) for name, part in formulas.items()}
    messages.extend(plan.notes)
    columns = data if type(data) is Columns else Columns(data, _needed(plan, plans, weights, offset, trials))
    if trials is not None and not hasattr(trials, "__len__"):
        trials = _constant_trials(trials, columns.n_rows)

    rows = read_rows(plan, columns, weights, offset, functions, trials)
    sides = [(plan, rows), *[(p, read_rows(p, columns, None, None, functions)) for p in plans.values()]]
    excluded: dict[str, np.ndarray] = {}
    if rows.weights is not None:
        positive = check_weights(rows.weights, "weights")
        if positive is not None:
            excluded["weight 0"] = ~positive
    assert rows.response is not None
    rows.response, empty = rows_without_trials(rows.response, rows.trials)
    if empty is not None:
        excluded["0 trials"] = empty
    kept: np.ndarray | None = None
    zero_rows: np.ndarray | None = None
    na_counts: dict[str, int] = {}
    if excluded or not all([side.clean() for _, side in sides]):
        kept, zero_rows, na_counts = settle_rows(sides, columns, excluded, na_action, messages)
    n = columns.n_rows if kept is None else kept.shape[0]
    if n == 0:
        raise DataError(nothing_left(columns.n_rows, na_counts, tuple(excluded)))
    if plans:
        _share_groups(sides)
    check_names(relationships or {}, [p for p, _ in sides])
    between = [match_known(p, side, relationships or {}) for p, side in sides]

    observations = observations_of(
        rows.response,
        plan.response_label,
        family,
        rows.trials,
        rows.weights,
        trials_label=f"trials column {trials!r}" if isinstance(trials, str) else "trials",
        kept=kept,
        messages=messages,
    )
    refuse_constant(observations, plan.response_label)
    chosen = _contrasts_by_part(contrasts, [p for p, _ in sides])
    found = [
        assemble(p, side, n, own, offset if i == 0 else None, messages, between[i])
        for i, ((p, side), own) in enumerate(zip(sides, chosen, strict=True))
    ]
    if family.response == "categories":
        found[0] = _without_intercept(found[0])
    for (p, side), made, related in zip(sides, found, between, strict=True):
        identify.check(
            n, made.X.shape[1], p, made.terms, side.groups, messages, free_sigma=False, known=related
        )
        messages.extend(identify.confounded_groups(p, [state.kind for state in made.encoding.variables]))
    dispersed = free_dispersion and "dispersion" in family.predictors
    identify.check_rows_per_level(plan.bar_labels, found[0].terms, observations, family, dispersed, messages)

    theta_index = None if share is None else shared_parameters(share, plan, found[0].terms)
    notes = tuple(dict.fromkeys(messages))
    given = rows.offset_given if isinstance(rows.offset_given, np.ndarray) else None
    frames = []
    for i, ((p, _), made) in enumerate(zip(sides, found, strict=True)):
        design = Design(
            observations.y,
            made.X,
            made.x_names,
            made.terms,
            made.offset,
            None,
            theta_index if i == 0 else None,
            notes if i == 0 else (),
        )
        zero_design = None
        if zero_rows is not None:
            zero_design = encode_new(
                made.encoding,
                columns,
                new_levels="population",
                offset=given if i == 0 else None,
                functions=functions,
                rows=zero_rows,
            )
        frames.append(
            ModelFrame(
                p.formula,
                made.encoding,
                design,
                kept,
                columns.n_rows,
                na_counts,
                na_action,
                made.dropped,
                columns.backend,
                notes if i == 0 else (),
                zero_rows,
                zero_design,
                functions,
            )
        )
    named = dict(zip(plans, frames[1:], strict=True))
    generalised = join_predictors(family, frames[0], named, observations)
    return replace(frames[0], generalised=generalised, family=family, parts=named)


def join_predictors(
    family: Any, conditional: ModelFrame, parts: Mapping[str, ModelFrame], observations: Any
) -> GeneralisedDesign:
    """The design of all predictors of a family from the frames of those with formulas."""
    design = conditional.design
    predictors = [Predictor("conditional", design.X, np.arange(design.p), design.offset)]
    names = list(design.x_names)
    terms: list[RandomTerm] = list(design.terms)
    owner = [0] * len(terms)
    learnt = family.response_columns(observations)
    shared: np.ndarray | None = None
    for c, name in enumerate(family.predictors[1:], start=1):
        frame = parts.get(name)
        if learnt is not None and name in learnt[1]:
            if shared is None:
                shared = np.arange(len(names), len(names) + len(learnt[0]))
                names.extend(learnt[0])
            predictors.append(Predictor(name, learnt[1][name], shared))
            continue
        if frame is None:
            predictors.append(Predictor(name, None, np.array([len(names)])))
            names.extend(coefficient_names(name, ("(Intercept)",)))
            continue
        part = frame.design
        columns = np.arange(len(names), len(names) + part.p)
        predictors.append(Predictor(name, part.X, columns, part.offset))
        names.extend(coefficient_names(name, part.x_names))
        terms.extend([replace(term, names=coefficient_names(name, term.names)) for term in part.terms])
        owner.extend([c] * len(part.terms))
    theta_index = design.theta_index
    if theta_index is not None and len(terms) > len(design.terms):
        more = sum(term.covariance.n_theta for term in terms[len(design.terms) :])
        free = int(theta_index.max(initial=-1)) + 1
        theta_index = np.concatenate([theta_index, np.arange(free, free + more, dtype=np.intp)])
    return GeneralisedDesign(
        observations, tuple(predictors), tuple(names), tuple(terms), tuple(owner), theta_index
    )


def new_predictors(
    frame: ModelFrame,
    data: Any,
    *,
    terms: Sequence[int] | None = None,
    new_levels: str = "error",
    offset: Any = None,
    columns_of: Sequence[int] = (),
    new_positions: Sequence[int] = (),
) -> tuple[NewDesign, ...]:
    """Columns of all linear predictors for new data; the response is not needed.

    Parameters
    ----------
    frame : ModelFrame
        Of a generalised model.
    data : data frame or mapping
    terms : sequence of int, optional
        Positions in ``generalised.terms`` of the random terms whose levels are looked up; None for all.
    new_levels, offset
        As in `mixedmodels.frame.newdata.encode_new`; `offset` belongs to the conditional predictor.
    columns_of : sequence of int
        Positions of terms of which only the columns are wanted.
    new_positions : sequence of int
        Those that may be asked for at positions which the fit has not seen.

    Returns
    -------
    tuple of NewDesign
        In the order of the predictors; those without a formula have a column of ones, those whose columns
        depend on the response have zeros. Their `terms`, one after the other, are ``generalised.terms``; all
        have the same `rows`.
    """
    generalised = frame.generalised
    assert generalised is not None
    if type(data) is not Columns:
        data = Columns(data)
    owner = generalised.term_predictor
    wanted = set(range(len(owner))) if terms is None else set(terms)
    found: list[NewDesign | None] = []
    for c, predictor in enumerate(generalised.predictors):
        own = frame if c == 0 else (frame.parts or {}).get(predictor.name)
        if own is None:
            found.append(None)
            continue
        labels = own.encoding.bar_labels
        mine = [position for position, predictor_of in enumerate(owner) if predictor_of == c]
        chosen = [label for position, label in zip(mine, labels, strict=True) if position in wanted]
        only = [label for position, label in zip(mine, labels, strict=True) if position in columns_of]
        found.append(
            encode_new(
                own.encoding,
                data,
                re_form=chosen or "none",
                new_levels=new_levels,
                offset=offset if c == 0 else None,
                functions=own.functions,
                columns_of=only,
                new_positions=[at for at, position in enumerate(mine) if position in new_positions],
            )
        )
    rows = np.logical_and.reduce([design.rows for design in found if design is not None])
    constant = [
        np.ones((rows.shape[0], 1)) if p.X is None else np.zeros((rows.shape[0], len(p.columns)))
        for p in generalised.predictors
    ]
    return tuple(
        [
            NewDesign(X, None, (), None, rows) if design is None else replace(design, rows=rows)
            for design, X in zip(found, constant, strict=True)
        ]
    )


def _with_intercept(plan: Plan, messages: list[str]) -> Plan:
    """The plan with the intercept that thresholds stand for, whether or not the formula has it."""
    if plan.fixed.intercept:
        return plan
    messages.append(
        "a formula without intercept: thresholds stand in its place, so that factors are coded as with one"
    )
    return plan._replace(fixed=plan.fixed._replace(intercept=True))


def _without_intercept(made: Assembled) -> Assembled:
    """The fixed part without its intercept: thresholds stand in its place."""
    encoding = made.encoding
    p = len(encoding.fixed.names)
    kept = np.arange(p) if encoding.kept is None else encoding.kept
    null = np.zeros((p, 0)) if encoding.null is None else encoding.null
    return made._replace(
        X=np.ascontiguousarray(made.X[:, 1:]),
        x_names=made.x_names[1:],
        encoding=encoding._replace(kept=kept[1:], null=null),
    )


def _part_plan(name: str, formula: Formula) -> Plan:
    if formula.response is not None:
        raise FormulaError(
            f"{name}='{formula}' has a response; write the right-hand side alone: '~ {formula.fixed}'"
        )
    if dots(formula):
        raise FormulaError(f"{name}='{formula}' holds '.'; name the columns")
    return plan_of(formula)


def _needed(plan: Plan, plans: Mapping[str, Plan], *arguments: Any) -> tuple[str, ...]:
    """Columns to collect from a lazy source."""
    names = list(plan.needed)
    for part in plans.values():
        names.extend(part.needed)
    names.extend([name for name in arguments if isinstance(name, str)])
    return tuple(dict.fromkeys(names))


def _constant_trials(trials: Any, n: int) -> np.ndarray:
    if isinstance(trials, (bool, np.bool_)) or not isinstance(trials, (int, float, np.number)):
        raise OptionError(
            f"trials must be a column name, one number per row or a number, got {type(trials).__name__}"
        )
    return np.full(n, float(trials))


def _share_groups(sides: Sequence[tuple[Plan, Rows]]) -> None:
    """Give the same grouping factor the same arrays in all formulas."""
    seen: dict[Any, FactorColumn] = {}
    for plan, rows in sides:
        for i, group in enumerate(plan.groups):
            rows.groups[i] = seen.setdefault((group.expressions, group.relation), rows.groups[i])


def _contrasts_by_part(
    contrasts: Mapping[str, Any] | None, plans: Sequence[Plan]
) -> list[Mapping[str, Any] | None]:
    """The contrasts of each formula's factors; those of no formula go to the first, which refuses them."""
    if not isinstance(contrasts, Mapping) or len(plans) == 1:
        return [contrasts] * len(plans)
    known = {label for plan in plans for label in plan.labels}
    out: list[Mapping[str, Any] | None] = []
    for i, plan in enumerate(plans):
        out.append(
            {
                name: value
                for name, value in contrasts.items()
                if name in plan.labels or (i == 0 and name not in known)
            }
        )
    return out
