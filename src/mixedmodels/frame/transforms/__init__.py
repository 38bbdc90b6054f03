"""The registry of functions that formulas may call."""

from __future__ import annotations

from mixedmodels.frame.transforms import arithmetic, cut, factors, polynomial, positions, scaling, splines
from mixedmodels.frame.transforms.base import Plain, Stateful

__all__ = ["REGISTRY", "Plain", "Stateful"]

REGISTRY: dict[str, Plain | Stateful] = {
    **arithmetic.FUNCTIONS,
    **scaling.TRANSFORMS,
    **polynomial.TRANSFORMS,
    **splines.TRANSFORMS,
    **factors.TRANSFORMS,
    **cut.TRANSFORMS,
    **positions.TRANSFORMS,
}
"""Function name -> what it does. ``C(f, contrast)`` and ``offset()`` are read by the evaluator itself."""
