"""Reading priors as users write them: ``{"x": ("normal", 0, 2.5), "theta": "wishart"}``.

Shared by the priors of linear (`lmm_priors`) and of generalised models (`glmm_priors`), which know the names.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Real
from typing import Any

from mixedmodels.errors import OptionError

__all__ = ["general_first", "kind_and_rest", "numbers_of"]

_POSITIVE = ("sd", "scale", "df", "shape", "weight")
_ORDER = {"fixed": 0, "theta": 0, "sd": 0, "slopes": 1}


def general_first(priors: Any, on_sds: Mapping[str, Any], example: str) -> list[tuple[str, Any]]:
    """Pairs (what, which prior), the more general first, so that the more particular replaces it.

    Parameters
    ----------
    priors : mapping or str
        A string alone goes to all standard deviations if it is among `on_sds`, else to all matrices.
    on_sds : mapping
    example : str
        Shown to who gives something else.

    Raises
    ------
    OptionError
    """
    if isinstance(priors, str):
        priors = {"sd" if priors in on_sds else "theta": priors}
    if not isinstance(priors, Mapping):
        raise OptionError(f"priors must map parameters to priors, like {example}, got {priors!r}")
    return sorted(priors.items(), key=lambda item: _ORDER.get(item[0], 2))


def kind_and_rest(
    what: str, which: Any, table: Mapping[str, Any], rule: str = "takes"
) -> tuple[str, tuple[Any, ...]]:
    """The name of a prior, one of `table`, and what follows it.

    Raises
    ------
    OptionError
    """
    parts = (which,) if isinstance(which, str) else tuple(which) if isinstance(which, (tuple, list)) else ()
    if not parts or parts[0] not in table:
        raise OptionError(f"priors[{what!r}] {rule} one of {', '.join(table)}; got {which!r}")
    return str(parts[0]), parts[1:]


def numbers_of(
    what: str, which: Any, kind: str, names: tuple[str, ...], given: tuple, defaults: tuple[float, ...]
) -> tuple[float, ...]:
    """The numbers of a prior, those not given by default.

    Raises
    ------
    OptionError
        Too many, no numbers, or out of range.
    """
    if len(given) > len(names) or any(isinstance(x, bool) or not isinstance(x, Real) for x in given):
        raise OptionError(f"priors[{what!r}] must be ({kind!r}, {', '.join(names)}), got {which!r}")
    own = tuple(float(x) for x in given)
    for name, value in zip(names, own, strict=False):
        low = value <= 0.0 if name in _POSITIVE else name == "rate" and value < 0.0
        infinite_ok = name == "scale" and kind == "wishart"
        if low or math.isnan(value) or (math.isinf(value) and not infinite_ok):
            raise OptionError(f"priors[{what!r}]: {name} = {value!r} is out of its range")
    return own + defaults[len(own) :]
