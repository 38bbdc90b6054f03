r"""Priors of a linear mixed model: -2 log density in (factors, log sigma), with derivatives.

With :math:`\tau = \log\sigma` and F the relative factor of a term, a prior is about the *relative*
covariance matrix :math:`\Sigma = FF'` (as by default in the R package blme) or, if it says ``"absolute"``,
about :math:`\sigma^2\Sigma`. On a standard deviation :math:`s_j = e^{a\tau}\|F_{j\cdot}\|`, a = 1 if absolute
and else 0:

* ``("gamma", shape, rate)``: :math:`p \propto s^{shape-1} e^{-rate\,s}`;
* ``("gamma-variance", shape, rate)``: the same in :math:`s^2`;
* ``("invgamma", shape, scale)``: :math:`p \propto s^{-shape-1} e^{-scale/s}`;
  ``("invgamma-variance", shape, scale)``: the same in :math:`s^2`;
* ``("half-normal", scale)``, ``("half-t", df, scale)``;

on a covariance matrix

* ``("wishart", df, scale)``: :math:`p \propto |\Sigma|^{(df-k-1)/2} e^{-\mathrm{tr}(\Sigma)/(2\,scale)}`;
* ``("invwishart", df, scale)``:
  :math:`p \propto |\Sigma|^{-(df+k+1)/2} e^{-scale\,\mathrm{tr}(\Sigma^{-1})/2}`;
* ``("logdet", weight)``: :math:`\ell + weight \log|\Sigma|`, the covariance penalty of statsmodels;

on a coefficient ``("normal", mean, sd)``, always relative to sigma. On sigma itself (``"sigma"``) any of the
priors on standard deviations.

The defaults are those of blme; constants are left out where a prior is improper.

References
----------
Chung, Rabe-Hesketh, Dorie, Gelman & Liu (2013), Psychometrika 78:685-709.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mixedmodels.errors import OptionError
from mixedmodels.objective.glmm_priors import basic_spread
from mixedmodels.objective.prior_texts import general_first, kind_and_rest, numbers_of

__all__ = ["LinearPriors", "MatrixPrior", "NormalPrior", "RowPrior", "read_linear_priors"]

_ON_COEFFICIENTS = {"normal": ("mean", "sd")}
_ON_SDS = {
    "gamma": ("shape", "rate"),
    "gamma-variance": ("shape", "rate"),
    "invgamma": ("shape", "scale"),
    "invgamma-variance": ("shape", "scale"),
    "half-normal": ("scale",),
    "half-t": ("df", "scale"),
}
_ON_MATRICES = {"wishart": ("df", "scale"), "invwishart": ("df", "scale"), "logdet": ("weight",)}
_ABSOLUTE = "absolute"


def _defaults(kind: str, k: int) -> tuple[float, ...]:
    """Numbers of a prior that is given by its name alone; k is the size of the matrix."""
    return {
        "normal": (0.0, 2.5),
        "gamma": (2.5, 0.0),
        "gamma-variance": (2.5, 0.0),
        "invgamma": (0.5, 100.0),
        "invgamma-variance": (0.5, 100.0),
        "half-normal": (2.5,),
        "half-t": (3.0, 2.5),
        "wishart": (k + 2.5, math.inf),
        "invwishart": (k + 0.5, 100.0 / (2.0 * k + 1.5)),
        "logdet": (1.0,),
    }[kind]


@dataclass(frozen=True, slots=True)
class RowPrior:
    """A prior on the standard deviation of one column of a term; ``term`` None stands for sigma itself."""

    term: int | None
    row: int
    kind: str
    numbers: tuple[float, ...]
    absolute: bool

    def evaluate(
        self, F: np.ndarray, E: np.ndarray, E2: np.ndarray | None, tau: float
    ) -> tuple[float, np.ndarray, np.ndarray]:
        """Value, gradient and Hessian in (the term's parameters, tau).

        Parameters
        ----------
        F : ndarray, shape (k, k)
        E : ndarray, shape (r, k, k)
            Derivatives of F.
        E2 : ndarray, shape (r, r, k, k), or None
            Second derivatives; None where they vanish.
        tau : float
        """
        a = 1.0 if self.absolute else 0.0
        scale = math.exp(a * tau)
        row, steps = F[self.row], E[:, self.row, :]
        size = math.sqrt(float(row @ row))
        s = scale * size
        value, slope, second = spread(self.kind, self.numbers, s)
        r = len(E)
        g, H = np.zeros(r + 1), np.zeros((r + 1, r + 1))
        inner = steps @ row
        g[:r] = slope * scale**2 * inner
        g[r] = a * slope * s * s
        H[:r, :r] = slope * scale**2 * (steps @ steps.T)
        if E2 is not None:
            H[:r, :r] += slope * scale**2 * (E2[:, :, self.row, :] @ row)
        if size > 0.0:
            ds = scale * inner / size
            H[:r, :r] += (second - slope) * np.outer(ds, ds)
            H[:r, r] = H[r, :r] = a * s * (second + slope) * ds
        H[r, r] = a * s * s * (second + slope)
        return value, g, H


@dataclass(frozen=True, slots=True)
class MatrixPrior:
    """A prior on the covariance matrix of one term."""

    term: int
    kind: str
    numbers: tuple[float, ...]
    absolute: bool

    def evaluate(
        self, F: np.ndarray, E: np.ndarray, E2: np.ndarray | None, tau: float
    ) -> tuple[float, np.ndarray, np.ndarray]:
        """As `RowPrior.evaluate`."""
        k, r = len(F), len(E)
        a = 1.0 if self.absolute else 0.0
        power = self._power(k)
        g, H = np.zeros(r + 1), np.zeros((r + 1, r + 1))
        value = 0.0
        Q = None
        if power != 0.0 or self.kind == "invwishart":
            Q = _inverse(F)
        if power != 0.0 and Q is not None:  # - power log|Sigma|, log|Sigma| = 2 log|det F| + 2 a k tau
            value -= power * (2.0 * float(np.linalg.slogdet(F)[1]) + 2.0 * a * k * tau)
            QE = Q @ E
            g[:r] -= 2.0 * power * np.einsum("tii->t", QE)
            g[r] -= 2.0 * a * k * power
            H[:r, :r] += 2.0 * power * np.einsum("sij,tji->st", QE, QE)
            if E2 is not None:
                H[:r, :r] -= 2.0 * power * np.einsum("ij,stji->st", Q, E2)
        if self.kind == "wishart" and math.isfinite(self.numbers[1]):
            weight = math.exp(2.0 * a * tau) / self.numbers[1]
            value += _quadratic(g, H, weight, 2.0 * a, F, E, E2)
        if self.kind == "invwishart":
            assert Q is not None
            weight = self.numbers[1] * math.exp(-2.0 * a * tau)
            QE = Q @ E
            dQ = -QE @ Q
            d2 = np.einsum("sij,tjk,kl->stil", QE, QE, Q, optimize=True)
            d2 = d2 + d2.transpose(1, 0, 2, 3)
            if E2 is not None:
                d2 = d2 - Q @ E2 @ Q
            value += _quadratic(g, H, weight, -2.0 * a, Q, dQ, d2)
        return value, g, H

    def _power(self, k: int) -> float:
        """``-2 log p`` holds ``-power log|Sigma|``."""
        if self.kind == "wishart":
            return self.numbers[0] - k - 1.0
        return -(self.numbers[0] + k + 1.0) if self.kind == "invwishart" else 2.0 * self.numbers[0]


def _quadratic(
    g: np.ndarray,
    H: np.ndarray,
    weight: float,
    rate: float,
    A: np.ndarray,
    dA: np.ndarray,
    d2A: np.ndarray | None,
) -> float:
    """Adds the derivatives of ``weight tr(A'A)``, weight proportional to ``e^{rate tau}``; its value."""
    r = len(dA)
    value = weight * float(np.sum(A * A))
    slope = 2.0 * weight * np.einsum("tij,ij->t", dA, A)
    g[:r] += slope
    g[r] += rate * value
    H[:r, :r] += 2.0 * weight * np.einsum("sij,tij->st", dA, dA)
    if d2A is not None:
        H[:r, :r] += 2.0 * weight * np.einsum("stij,ij->st", d2A, A)
    H[:r, r] += rate * slope
    H[r, :r] += rate * slope
    H[r, r] += rate * rate * value
    return value


def _inverse(F: np.ndarray) -> np.ndarray:
    if not (np.abs(np.diagonal(F)) > 0.0).all():
        raise FloatingPointError("a covariance matrix on the boundary has prior density zero")
    return np.linalg.inv(F)


def spread(kind: str, numbers: Sequence[float], s: float) -> tuple[float, float, float]:
    """h(s) = -2 log density of a standard deviation s, h'(s) / s and h''(s)."""
    if kind in ("gamma", "half-normal", "half-t"):
        return basic_spread(kind, numbers, s)
    if not s > 0.0:
        raise FloatingPointError("a standard deviation of zero has prior density zero or no derivative")
    shape, number = numbers
    v = s * s
    if kind == "gamma-variance":
        power = 4.0 * (shape - 1.0)
        return 2.0 * number * v - power * math.log(s), 4.0 * number - power / v, 4.0 * number + power / v
    if kind == "invgamma":
        power = 2.0 * (shape + 1.0)
        value = power * math.log(s) + 2.0 * number / s
        return value, power / v - 2.0 * number / (v * s), -power / v + 4.0 * number / (v * s)
    power = 4.0 * (shape + 1.0)
    value = power * math.log(s) + 2.0 * number / v
    return value, power / v - 4.0 * number / (v * v), -power / v + 12.0 * number / (v * v)


@dataclass(frozen=True, slots=True)
class NormalPrior:
    """``beta_j ~ N(mean, (sd sigma)^2)`` (relative to sigma)."""

    column: int
    mean: float
    sd: float


class LinearPriors:
    """All priors of one linear mixed model.

    Parameters
    ----------
    spreads : sequence of RowPrior
    matrices : sequence of MatrixPrior
    normals : sequence of NormalPrior
        At most one for each column of X.
    """

    def __init__(
        self,
        spreads: Sequence[RowPrior],
        matrices: Sequence[MatrixPrior],
        normals: Sequence[NormalPrior],
    ) -> None:
        self.spreads, self.matrices, self.normals = tuple(spreads), tuple(matrices), tuple(normals)

    def evaluate(
        self, terms: Sequence[Any], index: Sequence[np.ndarray], theta: np.ndarray, tau: float
    ) -> tuple[float, np.ndarray, np.ndarray]:
        """Value, gradient and Hessian in (theta, tau) of the priors on covariance parameters and sigma.

        Parameters
        ----------
        terms : sequence of RandomTerm
        index : sequence of ndarray
            Free parameter behind each parameter of each term.
        theta : ndarray, shape (r,)
        tau : float
            log sigma.

        Returns
        -------
        float, ndarray of shape (r + 1,), ndarray of shape (r + 1, r + 1)

        Raises
        ------
        FloatingPointError
            The density is 0 there.
        """
        r = len(theta)
        total, g, H = 0.0, np.zeros(r + 1), np.zeros((r + 1, r + 1))
        none = np.zeros((0, 1, 1))
        both: list[RowPrior | MatrixPrior] = [*self.spreads, *self.matrices]
        for prior in both:
            if prior.term is None:
                part = prior.evaluate(np.ones((1, 1)), none, None, tau)
                places = np.array([r])
            else:
                structure, own = terms[prior.term].covariance, index[prior.term]
                values = theta[own]
                second = (
                    None if structure.entries is not None else structure.factor_second_derivatives(values)
                )
                E = np.asarray(structure.factor_derivatives(values))
                part = prior.evaluate(structure.factor(values), E, second, tau)
                places = np.append(own, r)
            total += part[0]
            np.add.at(g, places, part[1])
            np.add.at(H, np.ix_(places, places), part[2])
        return total, g, H


# ---------------------------------------------------------------------- reading them
def read_linear_priors(priors: Any, x_names: Sequence[str], terms: Sequence[Any]) -> LinearPriors | None:
    """The priors of a linear mixed model from their names.

    Parameters
    ----------
    priors : mapping or str, optional
        As for `mixedmodels.objective.glmm_priors.read_priors`, and ``"sigma"``.
    x_names : sequence of str
    terms : sequence of RandomTerm

    Raises
    ------
    OptionError
        Names or numbers that mean nothing.
    """
    if priors is None:
        return None
    sds = {f"sd_{name}|{t.group}": (b, j) for b, t in enumerate(terms) for j, name in enumerate(t.names)}
    spreads: dict[Any, RowPrior] = {}
    matrices: dict[int, MatrixPrior] = {}
    normals: dict[int, NormalPrior] = {}
    for what, which in general_first(priors, _ON_SDS, '{"theta": "wishart"}'):
        of_term = [b for b, term in enumerate(terms) if what in ("theta", term.group)]
        if what in ("fixed", "slopes") or what in x_names:
            _, numbers, absolute = _which(what, which, _ON_COEFFICIENTS, 1)
            if absolute:
                raise OptionError(
                    f"priors[{what!r}]: normal priors on the coefficients of a linear model are relative to "
                    "sigma (standard deviation sd * sigma); leave out 'absolute'"
                )
            for j, name in enumerate(x_names):
                if what in ("fixed", name) or (what == "slopes" and name != "(Intercept)"):
                    normals[j] = NormalPrior(j, *numbers)
        elif what == "sigma":
            kind, numbers, _ = _which(what, which, _ON_SDS, 1)
            spreads["sigma"] = RowPrior(None, 0, kind, numbers, True)
        elif what == "sd" or what in sds:
            kind, numbers, absolute = _which(what, which, _ON_SDS, 1)
            for name in sds if what == "sd" else [what]:
                spreads[name] = RowPrior(*sds[name], kind, numbers, absolute)
        elif of_term:
            for b in of_term:
                k = terms[b].k
                kind, numbers, absolute = _which(what, which, {**_ON_MATRICES, **_ON_SDS}, k)
                if kind in _ON_SDS:
                    for j, name in enumerate(terms[b].names):
                        spreads[f"sd_{name}|{terms[b].group}"] = RowPrior(b, j, kind, numbers, absolute)
                    continue
                if kind in ("wishart", "invwishart") and not numbers[0] > k - 1:
                    raise OptionError(
                        f"priors[{what!r}]: df must be larger than k - 1 = {k - 1}, got {numbers[0]!r}"
                    )
                matrices[b] = MatrixPrior(b, kind, numbers, absolute)
        else:
            known = ", ".join([*x_names, "fixed", "slopes", *sds, "sd", "theta", "sigma"])
            raise OptionError(f"priors: there is no parameter {what!r}; available: {known}")
    return LinearPriors(list(spreads.values()), list(matrices.values()), list(normals.values()))


def _which(
    what: str, which: Any, table: Mapping[str, tuple[str, ...]], k: int
) -> tuple[str, tuple[float, ...], bool]:
    """Name, numbers and whether it is absolute."""
    kind, given = kind_and_rest(what, which, table)
    absolute = bool(given) and given[-1] == _ABSOLUTE
    if absolute:
        given = given[:-1]
    return kind, numbers_of(what, which, kind, table[kind], given, _defaults(kind, k)), absolute
