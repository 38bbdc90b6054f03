"""Names of the classical methods, and of the options they share."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np

from mixedmodels.errors import OptionError

__all__ = ["METHODS", "SCHAFER", "STARTS", "Rules", "canonical", "settle"]

METHODS = (
    "average-information",
    "fisher",
    "newton-raphson",
    "em",
    "ecme",
    "grid",
    "minque(0)",
    "minque(1)",
    "minque(mean)",
    "fast",
)

_SYNONYMS = {
    "ai": "average-information",
    "aireml": "average-information",
    "ai-reml": "average-information",
    "average information": "average-information",
    "fs": "fisher",
    "fisher scoring": "fisher",
    "fisher-scoring": "fisher",
    "nr": "newton-raphson",
    "newton": "newton-raphson",
    "newton raphson": "newton-raphson",
    "emreml": "em",
    "expectation-maximization": "em",
    "expectation-maximisation": "em",
    "minque": "minque(0)",
    "minque0": "minque(0)",
    "minque1": "minque(1)",
    "minquemean": "minque(mean)",
}

# Schafer's names: the method and whether it is REML
SCHAFER = {
    "fastml": ("fast", False),
    "fastrml": ("fast", True),
    "fastreml": ("fast", True),
    "ecmeml": ("ecme", False),
    "ecmerml": ("ecme", True),
    "ecmereml": ("ecme", True),
}

STARTS = ("moments", "ols", "equal", "em", "minque0", "minque1", "minquemean")

_CONVERGENCE = {"decrement": None, "proportions": 1e-8, "relative": 1e-4}


@dataclass(frozen=True, slots=True)
class Rules:
    """Options of a classical search.

    Attributes
    ----------
    scoring : int
        Rounds of Fisher scoring before the method's own steps.
    convergence : {"decrement", "proportions", "relative"}
        What must be below `tol`: the predicted decrease of minus twice the log-likelihood; the change of the
        shares of the components in the variance; the relative change of every component (Schafer's rule).
    tol : float or None
        By default that of `Control` for "decrement", 1e-8 for "proportions", 1e-4 for "relative".
    halvings : int
        How often a step may be halved.
    points : int
        Grid: number of values of each share.
    """

    scoring: int = 0
    convergence: str = "decrement"
    tol: float | None = None
    halvings: int = 40
    points: int = 10

    def __post_init__(self) -> None:
        for name, least in (("scoring", 0), ("halvings", 0), ("points", 2)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
                raise OptionError(f"{name} must be a whole number >= {least}, got {value!r}")
        if self.convergence not in _CONVERGENCE:
            raise OptionError(
                f"convergence must be one of {', '.join(map(repr, _CONVERGENCE))}, got {self.convergence!r}"
            )
        if self.tol is not None and not (isinstance(self.tol, Real) and self.tol > 0):
            raise OptionError(f"tol must be a positive number, got {self.tol!r}")

    def tolerance(self, decrement: float) -> float:
        """`tol`, or its default, that of the decrement given."""
        if self.tol is not None:
            return float(self.tol)
        default = _CONVERGENCE[self.convergence]
        return decrement if default is None else default


def canonical(method: Any) -> str:
    """The name of a classical method.

    Raises
    ------
    OptionError
        There is no such method.

    Examples
    --------
    >>> canonical("AI")
    'average-information'
    """
    if isinstance(method, str):
        name = method.strip().lower()
        name = _SYNONYMS.get(name, name)
        if name in SCHAFER:
            return SCHAFER[name][0]
        if name in METHODS:
            return name
    raise OptionError(f"unknown method {method!r}; choose one of {', '.join((*METHODS, *SCHAFER))}")


def settle(method: Any, reml: bool) -> tuple[Any, bool]:
    """Method and criterion for `lmm`: Schafer's names say which criterion, other names leave it.

    Examples
    --------
    >>> settle("fastml", True)
    ('fast', False)
    """
    if isinstance(method, str):
        if method in SCHAFER:
            return SCHAFER[method]
        if method.startswith("minque") or method in ("average information", "aireml", "ai-reml"):
            return canonical(method), reml
    return method, reml
