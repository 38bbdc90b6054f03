"""Parameters of a residual structure that are held at values and are one coordinate of the search each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mixedmodels.fit.natural import NaturalName
from mixedmodels.fit.natural_residual import ResidualNatural

__all__ = ["held_residuals"]


def held_residuals(design: Any, fixed: Mapping[str, float]) -> dict[int, float] | None:
    """Places among the parameters phi of the residuals, and their values; None if they are not all of these.

    Parameters
    ----------
    design : Design
        With ``residual``.
    fixed : mapping from name to value
        Names as ``fit.residual`` gives them, and values that the parameters can have.
    """
    bound = design.residual
    found = bound.natural(np.asarray(bound.start, dtype=float))
    labels = [NaturalName(name, name, kind) for name, kind in zip(found.names, found.kinds, strict=True)]
    natural = ResidualNatural(bound, np.arange(bound.n_phi), tuple(labels))
    out: dict[int, float] = {}
    for name, value in fixed.items():
        name = name.removesuffix("|Residual")
        place = list(found.names).index(name) if name in found.names else None
        j = None if place is None else natural.coordinate(place)
        if place is None or j is None or j in out:
            return None
        with np.errstate(all="ignore"):
            out[j] = natural.place_of(place, float(value))
    return out
