"""Covariance parameters held at values or set equal, by name, as equations of (psi, log sigma)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np

from mixedmodels.covariance.natural import curvature_with_scale
from mixedmodels.errors import OptionError
from mixedmodels.fit.natural import NaturalName, natural_terms
from mixedmodels.fit.natural_residual import ResidualNatural
from mixedmodels.objective.constrained import Entry, Equations, Function
from mixedmodels.objective.glmm_restrictions import groups_of_names

__all__ = ["NaturalFunction", "ResidualFunction", "check_method", "equations_of", "limit_in_theta"]

_POSITIVE = ("sd", "range", "rate", "smoothness", "sd_ratio", "const", "prop")
_CORRELATIONS = ("cor", "correlation")
_METHODS = ("newton", "lbfgsb", "cobyqa", "nelder-mead")
_STILL = 1e6  # d theta / d parameter at the end of a range


@dataclass(frozen=True, slots=True, eq=False)
class _Named:
    """What a name means.

    Attributes
    ----------
    key : tuple
        The same for all names of one parameter.
    kind : str
    function : Function
    scales : bool
        Whether it is proportional to sigma.
    natural, place
        The natural parameters it belongs to and its place there; None for entries of psi.
    """

    key: tuple[Any, ...]
    kind: str
    function: Function
    scales: bool = False
    natural: Any = None
    place: int = 0


def equations_of(design: Any, names: tuple[str, ...], fixed: Any, equal: Any) -> Equations:
    """The equations that `fixed` and `equal` mean.

    Parameters
    ----------
    design : Design
    names : tuple of str
        Those of psi.
    fixed : mapping from name to value, optional
        Names as in ``fit.variance_parameters()`` and ``fit.residual``, or entries of psi.
    equal : sequence of sequences of names, optional

    Raises
    ------
    OptionError
        Unknown names, values out of range, contradictions.
    """
    if fixed is not None and not isinstance(fixed, Mapping):
        raise OptionError(f"fixed must map names to values, got {fixed!r}")
    known, sets = _names(design, names), groups_of_names(equal)
    asked = [*(fixed or {}), *[name for set_ in sets for name in set_]]
    out = Equations(
        signed=tuple([known[name].key[1] for name in asked if name in known and known[name].kind == "theta"])
    )
    held: dict[tuple[Any, ...], float] = {}
    for name, value in (fixed or {}).items():
        if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
            raise OptionError(f"fixed[{name!r}] must be a finite number, got {value!r}")
        named, x = _named(known, design, name, "fixed"), float(value)
        _check_range(named, name, x)
        if held.setdefault(named.key, x) != x:
            raise OptionError(f"fixed holds one parameter ({name!r}) at two values")
        if named.key in list(held)[:-1]:
            continue
        function = named.function
        limit = limit_in_theta(named.natural, named.place, x) if named.scales is False else None
        if limit is not None:
            function, x = Entry(named.key[1][named.place], len(names) + 1), limit
        elif x == 0.0 and named.kind == "cor" and _is_linear(named):
            function = _Covariance.behind(named, len(names))
        scaling = named.scales and x != 0.0
        out = _with(out, function, x, f"{name} is held at {float(value):g}", scaling)
    group: dict[tuple[Any, ...], tuple[Any, ...]] = {}
    for set_ in sets:
        members = [_named(known, design, name, "equal") for name in set_]
        if len({"cor" if m.kind in _CORRELATIONS else m.kind for m in members}) > 1:
            raise OptionError(f"equal: {', '.join(set_)} are different kinds of parameters")
        text = " = ".join(set_)
        for other in members[1:]:
            first, second = _root(group, members[0].key), _root(group, other.key)
            if first == second:
                continue
            group[second] = first
            out = _with(out, _Difference(members[0].function, other.function), 0.0, text, False)
            text = ""
    values: dict[tuple[Any, ...], float] = {}
    for key, x in held.items():
        if values.setdefault(_root(group, key), x) != x:
            raise OptionError("fixed holds parameters that equal= sets equal at different values")
    if len(values) < len(held):
        raise OptionError("fixed holds parameters that equal= sets equal; hold one of them")
    return out


def check_method(method: Any) -> None:
    """Refuse algorithms that work with information about all parameters, or with random effects.

    Parameters
    ----------
    method : str or callable
    """
    if isinstance(method, str) and method not in _METHODS:
        raise OptionError(
            f"method {method!r} knows no parameters that are held or equal; use {', '.join(_METHODS)}, or "
            "leave fixed= and equal= out"
        )


def _with(equations: Equations, function: Function, value: float, text: str, scaling: bool) -> Equations:
    return Equations(
        (*equations.functions, function),
        (*equations.values, value),
        equations.signed,
        (*equations.texts, text),
        (*equations.scaling, scaling),
    )


def _root(group: dict[tuple[Any, ...], tuple[Any, ...]], key: tuple[Any, ...]) -> tuple[Any, ...]:
    while key in group:
        key = group[key]
    return key


def _names(design: Any, psi_names: tuple[str, ...]) -> dict[str, _Named]:
    """Everything that can be named: residuals, random terms, entries of psi; the first meaning counts."""
    out: dict[str, _Named] = {}
    n = len(psi_names)
    bound = design.residual
    if bound is not None and bound.n_phi:
        found = bound.natural(np.asarray(bound.start, dtype=float))
        labels = [NaturalName(name, name, kind) for name, kind in zip(found.names, found.kinds, strict=True)]
        natural = ResidualNatural(bound, np.arange(n - bound.n_phi, n), tuple(labels))
        for i, label in enumerate(labels):
            if not found.jacobian[i].any() and not natural.at(np.full(n, 0.1)).jacobian[i].any():
                continue  # known, not estimated
            named = _Named(
                ("residual", i), label.kind, ResidualFunction(natural, i, n), natural=natural, place=i
            )
            for name in (label.name, f"{label.name}|Residual"):
                out.setdefault(name, named)
    for term in natural_terms(design.terms, design.theta_index):
        short = term.covariance.natural(term.covariance.start, term.columns, 1.0).names
        for i, (label, own) in enumerate(zip(term.names, short, strict=True)):
            scales = label.kind in ("sd", "loading")
            named = _Named(
                ("term", tuple(term.index.tolist()), i),
                label.kind,
                NaturalFunction(term, i, n),
                scales,
                term,
                i,
            )
            tag = f"{term.key}.{term.covariance.name}."
            for name in (label.name, tag + own, tag + own.replace("cor", "rho")):
                out.setdefault(name, named)
    for j, name in enumerate(psi_names):
        out.setdefault(name, _Named(("psi", j), "theta", Entry(j, n + 1)))
    return out


def _named(known: dict[str, _Named], design: Any, name: Any, option: str) -> _Named:
    if name in known:
        return known[name]
    if name in design.x_names:
        remedy = f"offset(c * {name})" if option == "fixed" else "I(x + z)"
        raise OptionError(
            f"{option}: {name!r} is a coefficient; hold or equate coefficients of a linear model in the "
            f"formula, with {remedy} in its place"
        )
    shown = dict.fromkeys([next(n for n, m in known.items() if m is one) for one in known.values()])
    raise OptionError(f"{option}: there is no parameter {name!r}; available: {', '.join(shown) or 'none'}")


def _check_range(named: _Named, name: str, value: float) -> None:
    """Refuse values that the parameter cannot have, and those at which it is no coordinate."""
    low = -1.0 if named.kind in _CORRELATIONS else 0.0 if named.kind in _POSITIVE else -math.inf
    high = 1.0 if named.kind in _CORRELATIONS else math.inf
    if not low <= value <= high or (value == 0.0 and named.kind in _POSITIVE and named.kind != "sd"):
        raise OptionError(
            f"fixed[{name!r}] = {value!r} is out of the range of this parameter, [{low:g}, {high:g}]"
        )
    natural = named.natural
    if isinstance(natural, ResidualNatural):
        if natural.separable(named.place):
            with np.errstate(all="ignore"):
                reached = natural.moved(named.place, natural.place_of(named.place, value))
            if not abs(reached - value) <= 1e-8 * max(1.0, abs(value)):
                raise OptionError(f"fixed[{name!r}] = {value!r} is out of the range of this parameter")
        elif abs(value) == 1.0 and named.kind in _CORRELATIONS:
            raise OptionError(f"fixed[{name!r}] = {value!r} is out of the range of this parameter")
    elif natural is not None:
        if value == 0.0 and named.kind == "sd" and natural.covariance.k > 1:
            raise OptionError(
                f"fixed[{name!r}] = 0: a standard deviation of zero leaves its correlations without "
                "meaning; leave the column out of the term"
            )
        at_limit = limit_in_theta(natural, named.place, value) is not None
        if abs(value) == 1.0 and named.kind == "cor" and not at_limit:
            raise OptionError(
                f"fixed[{name!r}] = {value:g} is on the boundary of its range; hold it inside, or write the "
                "term with one effect"
            )


def _is_linear(named: _Named) -> bool:
    return named.natural is not None and named.natural.covariance.entries is not None


def limit_in_theta(natural: Any, place: int, value: float) -> float | None:
    """The entry of theta where a parameter is at an end of its range at which it does not move; or None.

    Only parameters of structures that are not linear in theta, and functions of the entry in their place.

    Parameters
    ----------
    natural : NaturalTerm, ResidualNatural or None
    place : int
    value : float
    """
    if natural is None or not getattr(natural, "curved", False) or not natural.separable(place):
        return None
    try:
        with np.errstate(all="ignore"):
            theta, rate = natural.place_of(place, value), natural.rate(place, value)
    except OptionError:
        return None
    return theta if abs(rate) > _STILL else None


def _unit(n: int, place: int) -> np.ndarray:
    out = np.zeros(n)
    out[place] = 1.0
    return out


@dataclass(frozen=True, slots=True, eq=False)
class NaturalFunction:
    """A natural parameter of a random term as a function of (psi, log sigma).

    Attributes
    ----------
    term : NaturalTerm
    place : int
    n : int
        Length of psi.
    """

    term: Any
    place: int
    n: int

    def __call__(self, psi: np.ndarray, tau: float) -> tuple[float, np.ndarray]:
        """Value and gradient."""
        found = self.term.at(psi, math.exp(tau))
        slopes = np.zeros(self.n + 1)
        np.add.at(slopes, self.term.index, found.jacobian[self.place])
        slopes[self.n] = found.log_scale[self.place]
        return float(found.values[self.place]), slopes

    def curvature(self, psi: np.ndarray, tau: float) -> np.ndarray:
        """Second derivatives."""
        scale, own = math.exp(tau), np.asarray(psi)[self.term.index]
        found = self.term.at(psi, scale)
        weights = _unit(len(found.values), self.place)
        out, at = np.zeros((self.n + 1, self.n + 1)), np.append(self.term.index, self.n)
        bend = curvature_with_scale(self.term.covariance, own, found, weights, scale)
        np.add.at(out, (at[:, None], at), bend)
        return out


@dataclass(frozen=True, slots=True, eq=False)
class ResidualFunction:
    """A natural parameter of a residual structure as a function of (psi, log sigma).

    Attributes
    ----------
    natural : ResidualNatural
    place : int
    n : int
        Length of psi.
    """

    natural: Any
    place: int
    n: int

    def __call__(self, psi: np.ndarray, tau: float) -> tuple[float, np.ndarray]:
        """Value and gradient."""
        found = self.natural.at(psi)
        slopes = np.zeros(self.n + 1)
        slopes[self.natural.index] = found.jacobian[self.place]
        return float(found.values[self.place]), slopes

    def curvature(self, psi: np.ndarray, tau: float) -> np.ndarray:
        """Second derivatives."""
        bound, at = self.natural.bound, self.natural.index
        out = np.zeros((self.n + 1, self.n + 1))
        weights = _unit(len(self.natural.names), self.place)
        out[np.ix_(at, at)] = bound.natural_curvature(np.asarray(psi, dtype=float)[at], weights)
        return out


@dataclass(frozen=True, slots=True, eq=False)
class _Covariance:
    """The relative covariance of two effects, which is smooth where a standard deviation is zero.

    Attributes
    ----------
    term : NaturalTerm
    i, j : int
    n : int
        Length of psi.
    """

    term: Any
    i: int
    j: int
    n: int

    @classmethod
    def behind(cls, named: _Named, n: int) -> _Covariance:
        """That of a correlation."""
        term = named.natural
        k = term.covariance.k
        rows, columns = np.triu_indices(k, 1)
        return cls(term, int(rows[named.place - k]), int(columns[named.place - k]), n)

    def __call__(self, psi: np.ndarray, tau: float) -> tuple[float, np.ndarray]:
        """Value and gradient."""
        structure, own = self.term.covariance, np.asarray(psi)[self.term.index]
        slopes = np.zeros(self.n + 1)
        np.add.at(slopes, self.term.index, structure.sigma_derivatives(own)[:, self.i, self.j])
        return float(structure.sigma(own)[self.i, self.j]), slopes

    def curvature(self, psi: np.ndarray, tau: float) -> np.ndarray:
        """Second derivatives."""
        structure, at = self.term.covariance, self.term.index
        M = np.zeros((structure.k, structure.k))
        M[self.i, self.j] = M[self.j, self.i] = 0.5
        out = np.zeros((self.n + 1, self.n + 1))
        np.add.at(out, (at[:, None], at), structure.sigma_curvature(np.asarray(psi)[at], M))
        return out


@dataclass(frozen=True, slots=True, eq=False)
class _Difference:
    """One function less another."""

    first: Function
    second: Function

    def __call__(self, psi: np.ndarray, tau: float) -> tuple[float, np.ndarray]:
        """Value and gradient."""
        a, da = self.first(psi, tau)
        b, db = self.second(psi, tau)
        return a - b, da - db

    def curvature(self, psi: np.ndarray, tau: float) -> np.ndarray:
        """Second derivatives."""
        return self.first.curvature(psi, tau) - self.second.curvature(psi, tau)
