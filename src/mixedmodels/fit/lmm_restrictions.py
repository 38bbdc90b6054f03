"""Covariance parameters of a linear mixed model held at values or set equal, by name."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np

from mixedmodels.errors import OptionError
from mixedmodels.fit.equations import limit_in_theta
from mixedmodels.fit.natural import natural_terms
from mixedmodels.objective.glmm_restrictions import groups_of_names

__all__ = ["Restrictions", "read_restrictions"]


@dataclass(frozen=True, slots=True, eq=False)
class Restrictions:
    """What `fixed` and `equal` mean for the covariance parameters.

    Attributes
    ----------
    terms : tuple of int
        Terms whose coordinates are natural parameters.
    held : dict of int to float
        Place among the coordinates, and value.
    groups : tuple of tuple of int
        Coordinates that are equal.
    removed : int
        By how much the number of free parameters falls.
    texts : tuple of str
        What to say about it.
    """

    terms: tuple[int, ...]
    held: dict[int, float]
    groups: tuple[tuple[int, ...], ...]
    removed: int
    texts: tuple[str, ...]


def read_restrictions(design: Any, theta_names: Sequence[str], fixed: Any, equal: Any) -> Restrictions:
    """The restrictions of a design.

    Parameters
    ----------
    design : Design
    theta_names : sequence of str
    fixed : mapping from name to value, optional
        Names as in ``fit.variance_parameters()``: ``"sd_x|g"``, ``"cor_y.x|g"``, ``"cor|g"``, ``"range|g"``,
        or ``"g.ar1.rho"``; or entries of theta (relative factors).
    equal : sequence of sequences of names, optional

    Raises
    ------
    OptionError
        Unknown names, values out of range, contradictions.
    """
    if fixed is not None and not isinstance(fixed, Mapping):
        raise OptionError(f"fixed must map names to values, got {fixed!r}")
    places, kinds, owners = _places(design, theta_names)
    held: dict[int, float] = {}
    terms: set[int] = set()
    raw: set[int] = set()
    texts = []

    def place_of(name: Any, option: str) -> int:
        if name in design.x_names:
            remedy = f"offset(c * {name})" if option == "fixed" else "I(x + z)"
            raise OptionError(
                f"{option}: {name!r} is a coefficient; hold or equate coefficients of a linear model in the "
                f"formula, with {remedy} in its place"
            )
        if name not in places:
            raise OptionError(
                f"{option}: there is no parameter {name!r}; available: {', '.join(places) or 'none'}"
            )
        place = places[name]
        (raw if name in theta_names else terms).add(owners[name])
        return place

    limits = _limits(design, theta_names, fixed)
    for name, value in (fixed or {}).items():
        if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
            raise OptionError(f"fixed[{name!r}] must be a finite number, got {value!r}")
        if name in limits:
            place, theta = limits[name]
            raw.add(owners[name])
            held[place] = theta
            texts.append(f"{name} is held at {float(value):g}")
            continue
        place, value = place_of(name, "fixed"), float(value)
        kind = kinds[name]
        low = -1.0 if kind == "cor" else 0.0 if kind in ("sd", "range", "rate", "smoothness") else -math.inf
        high = 1.0 if kind == "cor" else math.inf
        if not low <= value <= high or (value == 0.0 and kind in ("range", "rate", "smoothness")):
            raise OptionError(f"fixed[{name!r}] = {value!r} is out of its range [{low:g}, {high:g}]")
        if held.setdefault(place, value) != value:
            raise OptionError(f"fixed holds one parameter ({name!r}) at two values")
        texts.append(f"{name} is held at {value:g}")
    groups = []
    for names in groups_of_names(equal):
        members = tuple(dict.fromkeys(place_of(name, "equal") for name in names))
        if len({kinds[name] for name in names}) > 1:
            raise OptionError(f"equal: {', '.join(names)} are different kinds of parameters")
        values = {held[place] for place in members if place in held}
        if len(values) > 1:
            raise OptionError("fixed holds parameters that equal= sets equal at different values")
        groups.append(members)
        texts.append(f"{' = '.join(names)}")
    if raw & terms:
        raise OptionError("restrict entries of theta or natural parameters of one term, not both")
    size = len(theta_names) + 1
    group = np.arange(size)
    for members in groups:
        for place in members[1:]:
            group[group == group[place]] = group[members[0]]
    fixed_groups = {int(group[place]) for place in held}
    free = len(set(group.tolist()) - fixed_groups)
    return Restrictions(tuple(sorted(terms)), held, tuple(groups), size - free, tuple(texts))


def _limits(design: Any, theta_names: Sequence[str], fixed: Any) -> dict[str, tuple[int, float]]:
    """Parameters held at an end of their range at which they do not move: entries of theta, and values."""
    out = {}
    for natural in natural_terms(design.terms, design.theta_index):
        for i, label in enumerate(natural.names):
            value = (fixed or {}).get(label.name)
            if isinstance(value, Real) and label.kind not in ("sd", "loading"):
                theta = limit_in_theta(natural, i, float(value))
                if theta is not None:
                    out[label.name] = (int(natural.index[i]), theta)
    return out


def _places(design: Any, theta_names: Sequence[str]) -> tuple[dict[str, int], dict[str, str], dict[str, int]]:
    """Place, kind and term of every name."""
    places: dict[str, int] = {}
    kinds: dict[str, str] = {}
    owners: dict[str, int] = {}
    for natural in natural_terms(design.terms, design.theta_index):
        found = natural.covariance.natural(natural.covariance.start, natural.columns, 1.0).names
        for label, short, place in zip(natural.names, found, natural.index.tolist(), strict=True):
            tag = f"{natural.key}.{natural.covariance.name}."
            for name in (label.name, tag + short, tag + short.replace("cor", "rho")):
                if name not in places:
                    places[name], kinds[name], owners[name] = place, label.kind, natural.position
        for place in natural.index.tolist():
            name = theta_names[place]
            if name not in places:
                places[name], kinds[name], owners[name] = place, "theta", natural.position
    return places, kinds, owners
