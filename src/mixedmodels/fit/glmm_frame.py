"""What `glmm` was told, and the model frame that follows from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from mixedmodels.fit.checks import formula_of
from mixedmodels.fit.glmm_checks import check_options, family_of, with_parts
from mixedmodels.fit.glmm_ordinal import with_thresholds
from mixedmodels.fit.known import read_known

__all__ = ["FRAME_OPTIONS", "OPTION_NAMES", "GLMMOptions", "make_glmm_frame"]


@dataclass(frozen=True, slots=True, eq=False)
class GLMMOptions:
    """Everything `glmm` was told beside formula and data."""

    family: Any = "gaussian"
    link: Any = None
    nagq: int = 1
    dispersion: Any = "~1"
    zero_inflation: Any = None
    thresholds: Any = None
    trials: Any = None
    weights: Any = None
    offset: Any = None
    contrasts: Any = None
    na_action: str = "omit"
    start: Any = None
    method: str = "auto"
    fixed: Mapping[str, float] | None = None
    equal: Any = None
    priors: Any = None
    information: str = "observed"
    solver: str = "auto"
    control: Any = None
    progress: Any = "auto"
    functions: Any = None
    share: Any = None
    known: Any = None

    def __post_init__(self) -> None:
        for name, value in check_options(self).items():
            object.__setattr__(self, name, value)
        if self.known is not None:
            object.__setattr__(self, "known", read_known(self.known))


OPTION_NAMES = tuple(field.name for field in fields(GLMMOptions))

FRAME_OPTIONS = frozenset(
    (
        "family",
        "link",
        "dispersion",
        "zero_inflation",
        "thresholds",
        "trials",
        "weights",
        "offset",
        "contrasts",
        "na_action",
        "functions",
        "share",
        "known",
        "fixed",
    )
)
"""Options that change the model frame; the others only change how it is fitted."""


def make_glmm_frame(formula: Any, data: Any, options: GLMMOptions) -> Any:
    """The `ModelFrame` of the conditional part, with ``generalised`` (all predictors) and ``parts``."""
    from mixedmodels.frame.parts import build_generalised

    formula = formula_of(formula, data)
    family = with_thresholds(family_of(options.family, options.link), options.thresholds)
    family, parts = with_parts(family, options.dispersion, options.zero_inflation)
    frame = build_generalised(
        formula,
        data,
        family,
        parts=parts,
        trials=options.trials,
        weights=options.weights,
        offset=options.offset,
        contrasts=options.contrasts,
        na_action=options.na_action,
        functions=options.functions,
        share=options.share,
        relationships=options.known,
        free_dispersion="disp_(Intercept)" not in (options.fixed or {}),
    )
    if parts or options.weights is not None or (family.name, family.link.name) != ("gaussian", "identity"):
        return frame
    return replace(frame, messages=(*frame.messages, _LINEAR))


_LINEAR = (
    "a Gaussian response with the identity link is a linear mixed model: lmm fits it by REML and has degrees "
    "of freedom for its tests"
)
