"""Natural parameters of the random terms of a fit by name: standard deviations, correlations, ranges."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mixedmodels.fit.varcorr import unique_keys

__all__ = ["NaturalName", "NaturalTerm", "natural_terms"]

_CALL = re.compile(r"^([^()]*)\((.*)\)$")


@dataclass(frozen=True, slots=True)
class NaturalName:
    """One natural parameter.

    Attributes
    ----------
    name : str
        ``"sd_x|g"``, ``"cor_y.x|g"``, ``"cor|g"``, ``"range|g"``.
    term : str
        As in ``tidy()``: ``"sd__x"``, ``"cor__x.y"``, ``"cor"``, ``"range"``.
    kind : str
        That of the structure: ``"sd"``, ``"cor"``, ``"range"``, ``"rate"``, ``"smoothness"``, ``"loading"``.
    """

    name: str
    term: str
    kind: str


@dataclass(frozen=True, slots=True, eq=False)
class NaturalTerm:
    """The natural parameters of one term.

    Attributes
    ----------
    position : int
    key : str
        Its grouping factor, made unique.
    covariance : Covariance
    columns : tuple of str
    index : ndarray of intp
        Free parameters behind the parameters of the structure.
    names : tuple of NaturalName
        In the order of ``covariance.natural``.
    absolute : bool
        Whether factors are absolute (generalised models) and not relative to sigma.
    """

    position: int
    key: str
    covariance: Any
    columns: tuple[str, ...]
    index: np.ndarray
    names: tuple[NaturalName, ...]
    absolute: bool = False

    def at(self, theta: np.ndarray, scale: float) -> Any:
        """`NaturalParameters` at all covariance parameters theta of the model."""
        return self.covariance.natural(np.asarray(theta)[self.index], self.columns, scale)

    def separable(self, place: int) -> bool:
        """Whether a natural parameter is a function of the structure's parameter in the same place alone."""
        start = self.covariance.start
        middle = np.where(start == 0.0, 0.3, 0.9 * start)
        slope = self.covariance.natural(middle, self.columns, 1.0).jacobian[place]
        return bool(np.flatnonzero(slope).tolist() == [place])

    def moved(self, place: int, value: float) -> float:
        """A separable natural parameter where the structure's parameter in its place is `value`."""
        own = np.array(self.covariance.start, dtype=float)
        own[place] = value
        return float(self.covariance.natural(own, self.columns, 1.0).values[place])

    def place_of(self, place: int, value: float) -> float:
        """The structure's parameter where its separable natural parameter is `value`."""
        found = np.array(self.covariance.natural(self.covariance.start, self.columns, 1.0).values)
        found[place] = value
        return float(self.covariance.theta_from_natural(found, 1.0)[place])

    def rate(self, place: int, value: float) -> float:
        """d (structure's parameter) / d (separable natural parameter)."""
        own = np.array(self.covariance.start, dtype=float)
        own[place] = self.place_of(place, value)
        slope = float(self.covariance.natural(own, self.columns, 1.0).jacobian[place, place])
        return 1.0 / slope if slope else np.inf

    @property
    def curved(self) -> bool:
        """Whether the structure is not linear in theta."""
        return self.covariance.entries is None


def natural_terms(
    terms: Sequence[Any],
    theta_index: Any,
    columns: Sequence[tuple[str, ...]] | None = None,
    absolute: bool = False,
) -> tuple[NaturalTerm, ...]:
    """The natural parameters of random terms, term by term.

    Parameters
    ----------
    terms : sequence of RandomTerm
    theta_index : ndarray or None
        As in `mixedmodels.design.Design`.
    columns : sequence of tuple of str, optional
        Other names of the columns.
    absolute : bool
    """
    keys = unique_keys([term.group for term in terms])
    out, position = [], 0
    for b, (key, term) in enumerate(zip(keys, terms, strict=True)):
        structure = term.covariance
        own = np.arange(position, position + structure.n_theta)
        position += structure.n_theta
        index = own if theta_index is None else np.asarray(theta_index)[own]
        names = term.names if columns is None else columns[b]
        found = structure.natural(structure.start, names, 1.0)
        labels = [_label(name, kind, key) for name, kind in zip(found.names, found.kinds, strict=True)]
        out.append(NaturalTerm(b, key, structure, names, index, tuple(labels), absolute))
    return tuple(out)


def _label(name: str, kind: str, key: str) -> NaturalName:
    call = _CALL.match(name)
    if call is None:
        return NaturalName(f"{name}|{key}", name, kind)
    head, inside = call.group(1).replace(" ", "_"), call.group(2)
    if head == "cor" and inside.count(",") == 1:  # columns i and j, j < i
        second, first = inside.split(",")
        return NaturalName(f"cor_{second}.{first}|{key}", f"cor__{first}.{second}", kind)
    return NaturalName(f"{head}_{inside}|{key}", f"{head}__{inside}", kind)
