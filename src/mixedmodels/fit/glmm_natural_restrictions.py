"""Natural parameters of structures that are not linear in theta, held or equal in generalised models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mixedmodels.errors import OptionError
from mixedmodels.fit.natural import natural_terms
from mixedmodels.objective.glmm_restrictions import groups_of_names

__all__ = ["equal_in_theta", "in_theta"]

_LOOKS = (0.1, 0.35, 0.6)  # where functions of one entry of theta are compared, as shares of a step


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
    places = _curved_places(terms, index)
    out: dict[str, float] = {}
    for name, value in fixed.items():
        if name in places and name not in theta_names:
            natural, place = places[name]
            name, value = _one(natural, place, name, float(value), theta_names)
        if name in out:
            raise OptionError(f"fixed holds one parameter ({name!r}) twice")
        out[name] = value
    return out


def equal_in_theta(
    terms: Sequence[Any], index: np.ndarray | None, theta_names: Sequence[str], equal: Any
) -> Any:
    """`equal` with names such as ``"cor|g"`` or ``"range|g"`` replaced by those of theta.

    Parameters of two terms are equal where their entries of theta are, if both are the same function of one
    entry. Other names stay as they are.

    Parameters
    ----------
    terms, index, theta_names
        As for `in_theta`.
    equal : sequence of sequences of names

    Raises
    ------
    OptionError
        Parameters of different kinds, or that are not the same function of one entry of theta.
    """
    if equal is None:
        return None
    places = _curved_places(terms, index)
    out = []
    for names in groups_of_names(equal):
        found = {name: places[name] for name in names if name in places and name not in theta_names}
        kinds = {natural.names[place].kind for natural, place in found.values()}
        if len(kinds) > 1:
            raise OptionError(f"equal: {', '.join(names)} are different kinds of parameters")
        entries = {
            name: _entry(natural, place, name, theta_names, "equal")
            for name, (natural, place) in found.items()
        }
        shapes = [
            [_value(natural, place, j, look) for look in _LOOKS]
            for (natural, place), j in zip(found.values(), entries.values(), strict=True)
        ]
        if any(not np.allclose(shape, shapes[0], rtol=1e-10) for shape in shapes):
            raise OptionError(
                f"equal: {', '.join(found)} are different functions of theta; give their terms one structure"
            )
        out.append(
            [
                theta_names[int(found[name][0].index[entries[name]])] if name in found else name
                for name in names
            ]
        )
    return out


def _curved_places(terms: Sequence[Any], index: np.ndarray | None) -> dict[str, tuple[Any, int]]:
    """Terms and places of the natural parameters of structures that are not linear in theta."""
    places: dict[str, tuple[Any, int]] = {}
    for natural in natural_terms(terms, index):
        if natural.covariance.entries is None:
            for place, label in enumerate(natural.names):
                places.setdefault(label.name, (natural, place))
    return places


def _value(natural: Any, place: int, j: int, look: float) -> float:
    """A natural parameter at a point of its entry of theta."""
    theta = np.array(natural.covariance.start + 0.05)
    theta[j] = natural.covariance.start[j] + look
    return float(natural.covariance.natural(theta, natural.columns, 1.0).values[place])


def _entry(natural: Any, place: int, name: str, theta_names: Sequence[str], option: str) -> int:
    """The entry of the structure's theta of which alone a natural parameter is a function."""
    found = natural.covariance.natural(natural.covariance.start + 0.05, natural.columns, 1.0)
    (used,) = np.nonzero(found.jacobian[place])
    if used.size != 1:
        what = f"fixed[{name!r}]" if option == "fixed" else f"equal: {name!r}"
        raise OptionError(
            f"{what}: this parameter depends on several entries of theta; restrict those: "
            f"{', '.join(theta_names[j] for j in natural.index.tolist())}"
        )
    return int(used[0])


def _one(natural: Any, place: int, name: str, value: float, theta_names: Sequence[str]) -> tuple[str, float]:
    """Name and value of the entry of theta."""
    covariance = natural.covariance
    j = _entry(natural, place, name, theta_names, "fixed")
    found = covariance.natural(covariance.start + 0.05, natural.columns, 1.0)
    values = np.array(found.values)
    values[place] = value
    try:
        with np.errstate(all="ignore"):
            theta = covariance.theta_from_natural(values, 1.0)
            reached = covariance.natural(theta, natural.columns, 1.0).values[place]
    except OptionError as error:
        raise OptionError(f"fixed[{name!r}] = {value!r} is out of its range: {error}") from None
    if not abs(reached - value) <= 1e-8 * max(1.0, abs(value)):
        raise OptionError(f"fixed[{name!r}] = {value!r} is out of its range")
    return theta_names[int(natural.index[j])], float(theta[j])
