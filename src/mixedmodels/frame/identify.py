"""Whether the data can tell the parameters of a model apart, and designs that are probably not meant."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from mixedmodels.design import RandomTerm
from mixedmodels.errors import DataError, IdentifiabilityError
from mixedmodels.frame.values import FactorColumn

__all__ = [
    "FREE_DIAGONAL",
    "check",
    "check_rows_per_level",
    "confounded_groups",
    "holds_many_effects",
    "is_constant",
    "looks_nested",
    "overlapping_terms",
    "refuse_constant",
]

FREE_DIAGONAL = (
    "us",
    "diag",
    "homdiag",
    "homtoep",
)  # structures whose Sigma may be any multiple of a diagonal direction


def confounded_groups(plan: Any, kinds: Sequence[str]) -> tuple[str, ...]:
    """Notes on random intercepts of a factor whose levels all have fixed effects, such as ``g + (1 | g)``.

    The fixed effects take up all differences between levels: REML does not depend on the variance at all, and
    maximum likelihood puts it at zero.
    """
    notes = []
    for bar, label, group in zip(plan.bars, plan.bar_labels, plan.bar_groups, strict=True):
        if bar.intercept and _is_fixed(plan, kinds, plan.groups[group].expressions):
            name = plan.groups[group].name
            notes.append(
                f"the fixed effects of {name} take up all differences between its levels: the data say "
                f"nothing about the variance of the intercept in {label}; leave out one of the two"
            )
    return tuple(notes)


def _is_fixed(plan: Any, kinds: Sequence[str], factors: Sequence[Any]) -> bool:
    """Whether a term of the fixed part is the interaction of these factors."""
    for term in plan.fixed.terms:
        if all([kinds[i] == "factor" for i in term]) and {plan.expressions[i] for i in term} == set(factors):
            return True
    return False


def is_constant(values: np.ndarray) -> bool:
    """Whether all values are equal."""
    middle = values.shape[0] // 2
    if values[0] != values[middle] or values[0] != values[-1]:
        return False
    return bool((values == values[0]).all())


def overlapping_terms(bars: Sequence[Any], labels: Sequence[str], groups: Sequence[int]) -> tuple[str, ...]:
    """Notes on bars on one grouping factor that hold the same effect, such as ``(1|g) + (0 + f|g)``.

    Whether an effect without intercept contains the constant depends on its being a factor, which only the
    data tell; here only effects named twice are found, the rest in `check`.
    """
    notes = []
    for i in range(len(bars)):
        for j in range(i):
            if groups[i] != groups[j]:
                continue
            common = sorted(
                set(map(frozenset, bars[i].terms)) & set(map(frozenset, bars[j].terms)), key=sorted
            )
            names = [bars[i].labels[list(map(frozenset, bars[i].terms)).index(term)] for term in common]
            if bars[i].intercept and bars[j].intercept:
                names.insert(0, "the intercept")
            if names:
                notes.append(_overlap(labels[j], labels[i], ", ".join(names)))
    return tuple(notes)


def _overlap(first: str, second: str, what: str) -> str:
    return f"random terms {first} and {second} overlap in {what}: their variances cannot be told apart there"


def check(
    n: int,
    p: int,
    plan: Any,
    terms: Sequence[RandomTerm],
    groups: Sequence[FactorColumn],
    messages: list[str],
    *,
    free_sigma: bool,
    widest: tuple[str, int] = ("", 0),
    known: Collection[str] = (),
    correlated: bool = False,
) -> None:
    """Raise or note what the data cannot tell.

    With `correlated` residuals independent effects of the rows are a nugget, which the data can tell.

    Raises
    ------
    IdentifiabilityError
        A grouping factor has one level, or a term as many effects as there are observations.
    """
    if p >= n and free_sigma:
        name, width = widest
        cause = f" (the term {name} alone {width}; is it meant as a factor?)" if 2 * width > p > 2 else ""
        raise IdentifiabilityError(
            f"the fixed part has {p} columns for {n} observations{cause}: leave terms out or fix sigma"
        )
    for number, (group, factor) in enumerate(zip(plan.groups, groups, strict=True)):
        m = len(factor.levels)
        if m >= 5 or group.name in known:
            continue
        if all(holds_many_effects(terms[b].covariance) for b in _bars_of(plan, number)):
            continue
        if m == 1:
            raise IdentifiabilityError(
                f"grouping factor {group.name!r} has a single level ({factor.levels[0]}): its variance "
                "cannot be estimated; leave the term out"
            )
        messages.append(
            f"grouping factor {group.name} has only {m} levels: its variance is poorly determined; "
            "consider a fixed effect"
        )
    if free_sigma:
        for label, term in zip(plan.bar_labels, terms, strict=True):
            effects = term.m * term.k
            if effects < n or term.group in known or term.several_levels:
                continue
            if correlated and (term.k == 1 or term.covariance.name == "homdiag"):
                continue
            if term.k == 1 and term.m >= n:
                raise IdentifiabilityError(
                    f"random term {label}: grouping factor {term.group!r} has one observation per level "
                    f"({n}), so its variance and the residual variance cannot be told apart; leave the "
                    "term out, fix sigma or give weights"
                )
            if term.covariance.name in FREE_DIAGONAL:
                raise IdentifiabilityError(
                    f"random term {label} has {effects} effects ({term.m} levels x {term.k} columns) for {n} "
                    "observations: its variances and the residual variance cannot be told apart; simplify "
                    "the term, fix sigma, or describe the residuals themselves with residual="
                )
    if len(terms) > 1:
        _note_constant_spans(plan, terms, messages)
        if len(groups) > 1:
            _note_nested(plan, groups, messages, known)
            _note_same_groups(plan, groups, messages, known)


def _bars_of(plan: Any, group: int) -> list[int]:
    """The bars on a grouping factor."""
    return [b for b, own in enumerate(plan.bar_groups) if own == group]


def holds_many_effects(covariance: Any) -> bool:
    """Whether one level holds many effects with few parameters, as a field of places does."""
    return covariance.clip == "curved" and covariance.k >= 10 * covariance.n_theta


def refuse_constant(y: np.ndarray, label: str) -> None:
    """Refuse a response without variation."""
    if is_constant(y):
        raise DataError(f"the response {label!r} is constant ({y[0]:g}): there is nothing to fit")


def check_rows_per_level(
    labels: Sequence[str],
    terms: Sequence[RandomTerm],
    data: Any,
    family: Any,
    free: bool,
    messages: list[str],
) -> None:
    """Raise or note what random terms with one row per level mean for the response of a generalised model.

    They are over-dispersion of counts and of successes out of several trials; a response of 0 and 1 has none,
    and one with a dispersion of its own has it already.

    Parameters
    ----------
    labels : sequence of str
        Text of each term.
    terms : sequence of RandomTerm
        Of the conditional predictor.
    data : Observations
    family : Family
    free : bool
        Whether the family has a dispersion that is to be estimated.
    messages : list of str
        Takes notes.
    """
    for label, term in zip(labels, terms, strict=True):
        if term.k > 1 or term.m < data.n or term.precision is not None:
            continue
        if family.response == "number" and free:
            raise IdentifiabilityError(
                f"random term {label}: grouping factor {term.group!r} has one observation per level "
                f"({data.n}), so its variance and the dispersion of family {family.name!r} cannot be told "
                'apart; leave the term out, or fix the dispersion: fixed={"disp_(Intercept)": 0.0}'
            )
        binary = data.trials is None or bool((data.trials <= 1.0).all())
        if family.response == "successes" and binary:
            messages.append(
                f"random term {label} has one response of 0 or 1 per level: the data say nothing about its "
                "variance; leave the term out"
            )


def _note_constant_spans(plan: Any, terms: Sequence[RandomTerm], messages: list[str]) -> None:
    """Notes on pairs ``(1 | g) + (0 + f | g)`` with a factor f: the dummies of f sum to the constant."""
    for i, term in enumerate(terms):
        bar = plan.bars[i]
        if bar.intercept or term.Z is None:
            continue
        others = [
            j
            for j in range(len(terms))
            if plan.bar_groups[j] == plan.bar_groups[i] and plan.bars[j].intercept
        ]
        if others and bool((term.Z.sum(axis=1) == 1.0).all()):
            messages.append(_overlap(plan.bar_labels[others[0]], plan.bar_labels[i], "the intercept"))


def _note_same_groups(
    plan: Any, groups: Sequence[FactorColumn], messages: list[str], known: Collection[str]
) -> None:
    """Notes on two factors that group the rows alike, such as s and cls:s where every s has one cls."""
    with_intercept = {
        group: label
        for bar, label, group in zip(plan.bars, plan.bar_labels, plan.bar_groups, strict=True)
        if bar.intercept and plan.groups[group].name not in known and not plan.groups[group].joint
    }
    for second in with_intercept:
        for first in with_intercept:
            a, b = groups[first], groups[second]
            if first >= second or len(a.levels) != len(b.levels):
                continue
            partner = np.zeros(len(a.levels), dtype=b.codes.dtype)
            partner[a.codes] = b.codes  # equally many levels, all used: alike if a's level decides b's
            if np.array_equal(partner[a.codes], b.codes):
                messages.append(
                    f"{plan.groups[first].name} and {plan.groups[second].name} group the rows alike: the "
                    f"variances of the intercepts in {with_intercept[first]} and {with_intercept[second]} "
                    "cannot be told apart; leave one out"
                )


def _note_nested(
    plan: Any, groups: Sequence[FactorColumn], messages: list[str], known: Collection[str]
) -> None:
    """Notes on factors whose labels start anew in each level of another one."""
    singles = [
        i for i, group in enumerate(plan.groups) if len(group.expressions) == 1 and group.name not in known
    ]
    crossed = {frozenset(group.expressions) for group in plan.groups if len(group.expressions) > 1}
    for inner in singles:
        for outer in singles:
            a, b = groups[outer], groups[inner]
            pair = frozenset((plan.groups[outer].expressions[0], plan.groups[inner].expressions[0]))
            if inner == outer or pair in crossed or len(b.levels) > len(a.levels):
                continue
            if len(b.levels) == len(a.levels) and inner < outer:
                continue  # of two factors of one size, ask once
            if looks_nested(a, b):
                x, g = plan.groups[inner].name, plan.groups[outer].name
                messages.append(
                    f"every level of {g} has the first levels of {x}: if {x} {b.levels[0]} of one {g} is "
                    f"not {x} {b.levels[0]} of another, the factors are nested: write (1 | {g}/{x})"
                )


def looks_nested(outer: FactorColumn, inner: FactorColumn) -> bool:
    """Whether labels of `inner` look like counters that start anew in each level of `outer`.

    True if the labels found in each level of `outer` are a first part of inner's levels and the combinations
    have at least two rows on average. A factor crossed with one row per combination cannot be meant as nested
    (the nested variance could not be told from the residual), so it does not count.
    """
    n = outer.codes.shape[0]
    m_outer, m_inner = len(outer.levels), len(inner.levels)
    if m_inner < 2 or m_outer * m_inner > 8 * n:
        return False
    present = np.zeros((m_outer, m_inner), dtype=bool)
    key = outer.codes.astype(np.int64)
    key *= m_inner
    key += inner.codes
    present.ravel()[key] = True
    if 2 * np.count_nonzero(present) > n:
        return False
    sizes = np.count_nonzero(present, axis=1)
    first_missing = np.where(present.all(axis=1), m_inner, np.argmin(present, axis=1))
    return bool((first_missing == sizes).all()) and int(sizes.min()) > 1
