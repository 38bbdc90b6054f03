"""Natural parameters of structures that are not linear in theta, held in generalised models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mixedmodels.errors import OptionError
from mixedmodels.fit.natural import natural_terms

__all__ = ["in_theta"]


def in_theta(
    terms: Sequence[Any], index: np.ndarray | None, theta_names: Sequence[str], fixed: Any
) -> dict[str, float] | Any:
    """`fixed` with names such as ``"cor|g"`` or ``"range|g"`` replaced by those of theta, and their values.

    Only parameters that are a function of one entry of theta; other names stay as they are.

    Parameters
    ----------
    terms : sequence of RandomTerm
    index : ndarray or None
        As ``GeneralisedDesign.theta_index``.
    theta_names : sequence of str
    fixed : mapping from name to value

    Raises
    ------
    OptionError
        A value is out of the range of its parameter, or given twice.
    """
    if not isinstance(fixed, Mapping):
        return fixed
    places: dict[str, tuple[Any, int]] = {}
    for natural in natural_terms(terms, index):
        if natural.covariance.entries is None:
            for place, label in enumerate(natural.names):
                places.setdefault(label.name, (natural, place))
    out: dict[str, float] = {}
    for name, value in fixed.items():
        if name in places and name not in theta_names:
            natural, place = places[name]
            name, value = _one(natural, place, name, float(value), theta_names)
        if name in out:
            raise OptionError(f"fixed holds one parameter ({name!r}) twice")
        out[name] = value
    return out


def _one(natural: Any, place: int, name: str, value: float, theta_names: Sequence[str]) -> tuple[str, float]:
    """Name and value of the entry of theta."""
    covariance = natural.covariance
    middle = covariance.start + 0.05
    found = covariance.natural(middle, natural.columns, 1.0)
    (used,) = np.nonzero(found.jacobian[place])
    if used.size != 1:
        raise OptionError(
            f"fixed[{name!r}]: this parameter depends on several entries of theta; hold those: "
            f"{', '.join(theta_names[j] for j in natural.index.tolist())}"
        )
    values = np.array(found.values)
    values[place] = value
    j = int(used[0])
    try:
        with np.errstate(all="ignore"):
            theta = covariance.theta_from_natural(values, 1.0)
            reached = covariance.natural(theta, natural.columns, 1.0).values[place]
    except OptionError as error:
        raise OptionError(f"fixed[{name!r}] = {value!r} is out of its range: {error}") from None
    if not abs(reached - value) <= 1e-8 * max(1.0, abs(value)):
        raise OptionError(f"fixed[{name!r}] = {value!r} is out of its range")
    return theta_names[int(natural.index[j])], float(theta[j])
