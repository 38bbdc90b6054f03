r"""Parameters held at values or set equal, by name: ``psi = a + M phi``.

Names are those of psi (coefficients and entries of the factors) and, where they mean a linear restriction,
those of the natural parameters: ``sd_x|g`` where the factor has only its diagonal entry in that row, and
``cor_x.(Intercept)|g`` held at 0 for the first column of a term.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np

from mixedmodels.errors import OptionError
from mixedmodels.objective.parameters import ParameterMap

__all__ = ["linear_names", "parameter_restrictions"]


def linear_names(
    gamma_names: Sequence[str], terms: Sequence[Any], theta_map: ParameterMap
) -> tuple[dict[str, int], dict[str, int], dict[str, str]]:
    """What names of parameters mean.

    Parameters
    ----------
    gamma_names : sequence of str
    terms : sequence of RandomTerm
    theta_map : ParameterMap
        Of these terms.

    Returns
    -------
    places : dict
        Place in psi of each name that is one entry of psi.
    zeros : dict
        Place in psi that must be 0 for a correlation to be 0.
    others : dict
        Why a name of a natural parameter cannot be restricted.
    """
    places = {name: j for j, name in enumerate(gamma_names)}
    first = len(places)
    places.update({name: first + j for j, name in enumerate(theta_map.names)})
    zeros: dict[str, int] = {}
    others: dict[str, str] = {}
    for term, own in zip(terms, theta_map.index, strict=True):
        entries = term.covariance.entries
        if entries is None:
            continue
        at = {(int(i), int(j)): first + int(own[t]) for i, j, t in entries.tolist()}
        for i, name in enumerate(term.names):
            row = [place for (r, _), place in at.items() if r == i]
            label = f"sd_{name}|{term.group}"
            if len(row) == 1:
                places.setdefault(label, row[0])
            else:
                earlier = ", ".join(term.names[:i])
                others[label] = (
                    f"its square is a sum over the factor's row (the columns before it: {earlier}); "
                    f"name the entries of the factor, or write the term with ||"
                )
            for j in range(i):
                cor = f"cor_{name}.{term.names[j]}|{term.group}"
                if (i, j) in at and j == 0:
                    zeros[cor] = at[i, j]
                elif (i, j) in at:
                    others[cor] = "it is not one entry of the factor; put its columns first in the term"
    return places, zeros, others


def parameter_restrictions(
    size: int,
    names: tuple[dict[str, int], dict[str, int], dict[str, str]],
    fixed: Mapping[str, float] | None,
    equal: Any = None,
) -> tuple[np.ndarray, np.ndarray] | None:
    """``psi = a + M phi`` for parameters held at values and groups of parameters that are equal.

    Parameters
    ----------
    size : int
        Length of psi.
    names : tuple
        Of `linear_names`.
    fixed : mapping from name to value, optional
    equal : sequence of sequences of names, optional

    Returns
    -------
    (a, M) or None
        a of shape (size,), M of shape (size, free); None without restrictions.

    Raises
    ------
    OptionError
        Unknown name, a value that is not a number or a negative standard deviation, contradictions.
    """
    if not fixed and not equal:
        return None
    if fixed is not None and not isinstance(fixed, Mapping):
        raise OptionError(f"fixed must map names to values, got {fixed!r}")
    values: dict[int, float] = {}
    for name, value in (fixed or {}).items():
        if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
            raise OptionError(f"fixed[{name!r}] must be a finite number, got {value!r}")
        if str(name).startswith("sd_") and value < 0.0:
            raise OptionError(f"fixed[{name!r}] is a standard deviation and cannot be {value!r}")
        if name in names[1]:
            if value != 0.0:
                raise OptionError(
                    f"fixed[{name!r}] = {value!r} is not a linear restriction; only 0 can be asked for"
                )
            place = names[1][name]
        else:
            place = _place(names, name, "fixed")
        if values.setdefault(place, float(value)) != float(value):
            raise OptionError(f"fixed holds one parameter ({name!r}) at two values")
    group = np.arange(size)
    for set_ in groups_of_names(equal):
        places = [_place(names, name, "equal") for name in set_]
        for place in places[1:]:
            group[group == group[place]] = group[places[0]]
    held: dict[int, float] = {}
    for place, value in values.items():
        if held.setdefault(int(group[place]), value) != value:
            raise OptionError("fixed holds parameters that equal= sets equal at different values")
    a = np.array([held.get(int(g), 0.0) for g in group])
    free = [g for g in dict.fromkeys(group.tolist()) if g not in held]
    M = (group[:, None] == np.array(free, dtype=int)[None, :]).astype(float)
    return a, M


def groups_of_names(equal: Any) -> list[list[str]]:
    if equal is None:
        return []
    if isinstance(equal, (str, Mapping)) or not isinstance(equal, Sequence):
        raise OptionError(f'equal must be a list of lists of names, like [["a", "b"]], got {equal!r}')
    out = []
    for set_ in equal:
        if isinstance(set_, str) or not isinstance(set_, Sequence) or len(set_) < 2:
            raise OptionError(f'equal must be lists of two or more names, like [["a", "b"]], got {set_!r}')
        out.append([str(name) for name in set_])
    return out


def _place(names: tuple[dict[str, int], dict[str, int], dict[str, str]], name: Any, option: str) -> int:
    places, zeros, others = names
    if name in places:
        return places[name]
    if name in others or name in zeros:
        reason = others.get(name, "only fixed at 0")
        raise OptionError(f"{option}: {name!r} is not linear in the parameters: {reason}")
    known = ", ".join([*places, *zeros])
    raise OptionError(f"{option}: there is no parameter {name!r}; available: {known}")
