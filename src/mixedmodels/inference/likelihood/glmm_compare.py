"""What generalised models must share to be compared, and whether one lies inside another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import DataError, OptionError
from mixedmodels.fit.glmm_values import base_family, constant_column
from mixedmodels.inference.likelihood.nesting import nested_random, span_of

if TYPE_CHECKING:
    from mixedmodels.design import GeneralisedDesign

__all__ = ["Nesting", "check_generalised", "differences", "generalised_nesting"]

# families that are another one at an inner value or, True, at the edge of the range of their extra parameter
_COUNTS = ("poisson", "negative_binomial", "nbinom1", "generalised_poisson", "com_poisson")
_CONTINUOUS = ("gaussian", "gamma", "inverse_gaussian", "lognormal", "beta", "student")
_VARIANCE = "a variance of zero"
_INSIDE = {
    ("poisson", "negative_binomial"): True,
    ("poisson", "nbinom1"): True,
    ("binomial", "betabinomial"): True,
    ("poisson", "generalised_poisson"): False,
    ("poisson", "com_poisson"): False,
    ("gaussian", "student"): True,
}


@dataclass(frozen=True, slots=True)
class Nesting:
    """How a smaller generalised model lies in a larger one.

    Attributes
    ----------
    nested : bool or None
        False: it does not; None: that could not be shown.
    boundary : int or None
        Parameters on the boundary of their range where the smaller model is true.
    why : str
        Where `nested` is not True.
    edge : str
        What is on the boundary.
    """

    nested: bool | None
    boundary: int | None = 0
    why: str = ""
    edge: str = _VARIANCE


def check_generalised(fits: Sequence[Any]) -> list[str]:
    """Refuse what cannot be compared; notes on what differs in the approximation.

    Raises
    ------
    DataError
        Other responses, trials or weights.
    OptionError
        Linear and generalised models together, or priors.
    """
    from mixedmodels.inference.likelihood.glmm_reduced import refuse_priors

    if any(fit._is_linear for fit in fits):
        raise OptionError(
            "compare() takes linear or generalised models: their likelihoods are computed differently; "
            'fit the linear ones by glmm(..., family="gaussian")'
        )
    refuse_priors(*fits)
    first = fits[0].generalised.data
    for fit in fits[1:]:
        data = fit.generalised.data
        for what, ours, theirs in (
            ("responses", first.y, data.y),
            ("trials", first.trials, data.trials),
            ("weights", first.weights, data.weights),
        ):
            ones = np.ones(1)
            ours, theirs = ones if ours is None else ours, ones if theirs is None else theirs
            same = np.array_equal(ours, theirs) or (ours.size != theirs.size and _equal(ours, theirs))
            if not same:
                raise DataError(
                    f"the models have different {what}; likelihoods of different data cannot be compared"
                )
    kinds = {_kind(fit.family) for fit in fits} - {""}
    if len(kinds) > 1:
        raise DataError(
            "the models have families of counts and families of continuous responses: probabilities and "
            "densities cannot be compared"
        )
    notes = []
    for name, what in (("nagq", "quadrature points"), ("information", "kinds of information")):
        # without random effects the likelihood is exact
        seen = list(dict.fromkeys(getattr(fit._options, name) for fit in fits if fit._terms))
        if len(seen) > 1:
            notes.append(
                f"the models were fitted with different {what} ({name} = {', '.join(map(str, seen))}): their "
                "log-likelihoods hold all constants and approximate the same quantity, but differences also "
                f"hold the difference between the approximations; use one {name} for a test"
            )
    return notes


def differences(fits: Sequence[Any]) -> list[str]:
    """What tells models with the same formula apart: family, parts, approximation."""
    features = []
    for fit in fits:
        options, base = fit._options, base_family(fit.family)
        zero = "no" if options.zero_inflation is None else str(options.zero_inflation)
        features.append(
            {
                "family": f"{base.name}({base.link.name})",
                "zero_inflation": zero,
                "dispersion": str(options.dispersion),
                "nagq": str(fit.nagq),
                "information": options.information,
            }
        )
    differing = [key for key in features[0] if len({f[key] for f in features}) > 1]
    return [
        "; ".join([f[key] if key == "family" else f"{key} {f[key]}" for key in differing]) for f in features
    ]


def _kind(family: Any) -> str:
    """Whether responses have probabilities or densities; nothing where that is not known."""
    if getattr(family, "response", "number") in ("count", "successes", "categories"):
        return "discrete"
    name = base_family(family).name
    return "discrete" if name in _COUNTS else "continuous" if name in _CONTINUOUS else ""


def _equal(a: np.ndarray, b: np.ndarray) -> bool:
    """None stands for ones."""
    return bool((a == 1.0).all() and (b == 1.0).all())


def generalised_nesting(small: Any, large: Any) -> Nesting:
    """Whether a generalised model lies inside another: families, columns and random terms of all predictors.

    Parameters
    ----------
    small, large : GLMMFit
    """
    family = _families(small.family, large.family)
    if family.nested is not True:
        return family
    boundary = family.boundary
    a, b = small.generalised, large.generalised
    own = dict(zip(large.components, range(len(b.predictors)), strict=True))
    for c, name in enumerate(small.components):
        if name not in own:
            return Nesting(False, why=f"the larger one has no {name} part")
        d = own[name]
        if not _columns_inside(a, c, b, d):
            part = "fixed part" if name == "conditional" else f"{name} part"
            return Nesting(False, why=f"the {part} of the smaller one is not contained in the other")
        found = nested_random(_Terms(a, c), _Terms(b, d))  # type: ignore[arg-type]
        if found.missing:
            return Nesting(None, None, "its random terms could not be shown to lie inside the larger one")
        boundary = None if boundary is None else boundary + found.new_dimensions
    extra = [name for name in large.components if name not in small.components]
    for name in extra:
        c = own[name]
        if name == "zero_inflation" and (
            not constant_column(b.predictors[c]) or c in b.active  # more than one number goes
        ):
            boundary = None
    edge = _VARIANCE if not family.boundary else "the smaller model's family"
    return Nesting(True, boundary, edge=edge)


def _families(small: Any, large: Any) -> Nesting:
    """Nesting of two families with their links."""
    if small.link.name != large.link.name:
        return Nesting(False, why=f"their links differ ({small.link.name}, {large.link.name})")
    a, b = small.name, large.name
    if a == b:
        return Nesting(True)
    edge = 0
    if b == f"zero_inflated_{a}":
        return Nesting(True, 1)
    prefix = "zero_inflated_"
    if b.startswith(prefix):
        edge = 0 if a.startswith(prefix) else 1
        a, b = a.removeprefix(prefix), b.removeprefix(prefix)
    inside = True if a == b else _INSIDE.get((a, b))
    if inside is None:
        return Nesting(False, why=f"their families differ ({small.name}, {large.name})")
    return Nesting(True, edge + (0 if a == b else int(inside)))


class _Terms:
    """The random terms of one predictor."""

    def __init__(self, design: GeneralisedDesign, position: int) -> None:
        pairs = zip(design.terms, design.term_predictor, strict=True)
        self.terms = tuple([term for term, c in pairs if c == position])
        self.theta_index = design.theta_index


def _columns_inside(a: GeneralisedDesign, c: int, b: GeneralisedDesign, d: int) -> bool:
    ones = np.ones((a.n, 1))
    small, large = a.predictors[c], b.predictors[d]
    X = ones if small.X is None else np.asarray(small.X)
    W = ones if large.X is None else np.asarray(large.X)
    shift = np.zeros(a.n)
    for predictor, sign in ((small, 1.0), (large, -1.0)):
        if predictor.offset is not None:
            shift = shift + sign * predictor.offset
    if X is W and not shift.any():
        return True
    span = span_of(W)
    return span.contains(X) and (not shift.any() or span.contains(shift[:, None]))
