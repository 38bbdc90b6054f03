"""Parameters of a residual structure held at values, by their natural names."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Real
from typing import Any

import numpy as np

from mixedmodels.errors import NotImplementedYetError, OptionError
from mixedmodels.fit.natural import NaturalName
from mixedmodels.fit.natural_residual import ResidualNatural

__all__ = ["held_residuals"]


def held_residuals(design: Any, fixed: Any) -> dict[int, float]:
    """Places among the parameters phi of the residuals, and their values.

    Parameters
    ----------
    design : Design
        With ``residual``.
    fixed : mapping from name to value
        Names as ``fit.residual`` gives them: ``"rho"``, ``"sd_ratio[m]"``, ``"range"``, ``"power"``, ...

    Raises
    ------
    OptionError
        Unknown names, values that are no numbers or out of range.
    NotImplementedYetError
        A parameter that is a function of several coordinates, or one of a random term.
    """
    if not isinstance(fixed, Mapping):
        raise OptionError(f"fixed must map names to values, got {fixed!r}")
    bound = design.residual
    found = bound.natural(np.asarray(bound.start, dtype=float))
    labels = [NaturalName(name, name, kind) for name, kind in zip(found.names, found.kinds, strict=True)]
    natural = ResidualNatural(bound, np.arange(bound.n_phi), tuple(labels))
    out: dict[int, float] = {}
    for name, value in fixed.items():
        if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
            raise OptionError(f"fixed[{name!r}] must be a finite number, got {value!r}")
        if name not in found.names:
            if str(name).partition("|")[0].partition("_")[0] in ("sd", "cor") and design.terms:
                raise NotImplementedYetError(
                    f"fixed[{name!r}]: with residual= only parameters of the residuals can be held in this "
                    f"version: {', '.join(found.names)}"
                )
            raise OptionError(
                f"fixed: the residuals have no parameter {name!r}; available: "
                f"{', '.join(found.names) or 'none'}"
            )
        place = list(found.names).index(name)
        j = natural.coordinate(place)
        if j is None:
            raise NotImplementedYetError(
                f"fixed[{name!r}]: this parameter depends on several coordinates of {bound.describe()} and "
                "cannot be held in this version; hold it in the structure, as in ar1(time | g, rho=0.5)"
            )
        with np.errstate(all="ignore"):
            x = float(value)
            phi = natural.place_of(place, x)
            reached = natural.moved(place, phi)
        if not abs(reached - x) <= 1e-8 * max(1.0, abs(x)):
            raise OptionError(f"fixed[{name!r}] = {value!r} is out of the range of this parameter")
        out[j] = phi
    return out
