"""What linear functions of the fixed effects are referred to, and how they are shown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import OptionError
from mixedmodels.frame.rank import estimable
from mixedmodels.inference.means.back_transform import BackTransform

if TYPE_CHECKING:
    from mixedmodels.fit.result import LMMFit
    from mixedmodels.inference.ddf.reference import Reference

__all__ = ["Show", "Source", "label_rows", "response_scale", "side_of", "total_variance"]

_SIDES = {
    "two-sided": 0, "two.sided": 0, "!=": 0, "=": 0, "two": 0, "both": 0,
    "greater": 1, ">": 1, "right": 1, "noninferiority": 1,
    "less": -1, "<": -1, "left": -1, "nonsuperiority": -1,
}  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """The fit that linear functions belong to.

    Attributes
    ----------
    fit : LMMFit
    reference : Reference
        Covariance of the fixed effects and degrees of freedom.
    kept : ndarray or None
        Columns of the full X that are in the design.
    null : ndarray or None
        Basis of what cannot be estimated.
    transform : BackTransform or None
        Inverse of the response's transform.
    unknown : str
        The response if it is transformed and the inverse is not known.
    """

    fit: LMMFit
    reference: Reference
    kept: np.ndarray | None
    null: np.ndarray | None
    transform: BackTransform | None
    unknown: str = ""

    def design_rows(self, L: np.ndarray) -> np.ndarray:
        """Columns of L that belong to the fixed effects of the fit."""
        return L if self.kept is None else L[:, self.kept]

    def estimable(self, L: np.ndarray) -> np.ndarray:
        """Which rows can be estimated."""
        if self.null is None or not self.null.size:
            return np.ones(L.shape[0], dtype=bool)
        return estimable(L, self.null)


@dataclass(frozen=True, slots=True)
class Show:
    """How a set of estimates is shown: level, adjustment, tests, scale."""

    level: float = 0.95
    adjust: str = "none"
    null: float = 0.0
    side: int = 0
    tests: bool = False
    response: bool = False
    ratios: bool = True
    variance: float | None = None


def response_scale(type: str, source: Source) -> bool:
    """Whether `type` asks for the scale of the response, which must be known then."""
    if type in ("response", "mu", "unlink"):
        fit: Any = source.fit
        if source.unknown and not fit._is_linear and fit.family.response == "categories":
            raise OptionError(
                f'type="response": the response {source.unknown} has categories and no single mean; use '
                '"link", the latent scale of the thresholds'
            )
        if source.unknown:
            raise OptionError(
                f'type="response": no inverse of the response {source.unknown} is known; use type="link" and '
                "transform the estimates"
            )
        return True
    if type in ("link", "linear", "lp"):
        return False
    raise OptionError(f"type must be 'link' or 'response', got {type!r}")


def side_of(side: Any) -> int:
    """0 for two-sided tests, 1 for the alternative "greater", -1 for "less"."""
    try:
        return _SIDES[str(side).lower()]
    except KeyError:
        raise OptionError(f"side must be 'two-sided', 'greater' or 'less', got {side!r}") from None


def total_variance(fit: LMMFit, sigma: float | None) -> float:
    """Variance around the fixed part: given, or averaged over the rows of the fit.

    Of one response of a linear model; of the linear predictor (all its random effects) of a generalised one.
    """
    if sigma is not None:
        if not (isinstance(sigma, (int, float)) and math.isfinite(sigma) and sigma >= 0):
            raise OptionError(f"sigma must be a number >= 0, got {sigma!r}")
        return float(sigma) ** 2
    if not fit._is_linear:
        return _random_variance(fit)
    design, total = fit.design, fit.sigma**2
    if design.weights is not None:
        total *= float(np.mean(1.0 / design.weights))
    for term, factor in zip(design.terms, fit._factors, strict=True):
        F = fit.sigma * np.array(factor)
        moments = np.ones((1, 1)) if term.Z is None else term.Z.T @ term.Z / design.n
        total += float(np.sum((F @ F.T) * moments))
    return total


def _random_variance(fit: Any) -> float:
    """Variance of the random effects on the linear predictor, averaged over the rows of the fit."""
    design, position = fit.generalised, getattr(fit, "position", 0)
    total = 0.0
    for term, c, factor in zip(design.terms, design.term_predictor, fit._factors, strict=True):
        if c == position:
            F = np.array(factor)
            moments = np.ones((1, 1)) if term.Z is None else term.Z.T @ term.Z / design.n
            total += float(np.sum((F @ F.T) * moments))
    return total


def label_rows(labels: Mapping[str, np.ndarray], names: Sequence[str], rows: np.ndarray) -> list[str]:
    """One text per row from several label columns; numbers get the name of their variable in front."""
    parts = []
    for name in names:
        column = labels[name]
        texts = [_text(column[row]) for row in rows]
        if all(_is_number(text) for text in texts):
            texts = [name + text for text in texts]
        parts.append(texts)
    return [" ".join(values) for values in zip(*parts, strict=True)] if parts else ["overall"] * len(rows)


def _text(value: Any) -> str:
    return f"{value:.7g}" if isinstance(value, (float, np.floating)) else str(value)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
