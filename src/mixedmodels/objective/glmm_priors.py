r"""Priors on coefficients and covariance parameters: maximum a posteriori instead of maximum likelihood.

The criterion becomes :math:`d(\psi) - 2\log p(\psi)`. A prior on the slopes keeps separated coefficients
finite; one on covariance matrices keeps variances off zero. On a coefficient

* ``("normal", mean, sd)``, ``("t", df, mean, scale)``, ``("cauchy", mean, scale)``;

on a standard deviation :math:`s_j = (\sum_c F_{jc}^2)^{1/2}` (F the factor of the term)

* ``("gamma", shape, rate)``: :math:`p \propto s^{shape - 1} e^{-rate\,s}`, by default with shape 2.5, rate 0;
* ``("half-normal", scale)``, ``("half-t", df, scale)``;

on a covariance matrix

* ``("wishart", df, scale)``: :math:`p \propto |\Sigma|^{(df - k - 1)/2} e^{-\mathrm{tr}(\Sigma)/(2\,scale)}`,
  df by default k + 2.5, scale infinite.

The defaults are those of Chung, Rabe-Hesketh, Dorie, Gelman & Liu (2013), Psychometrika 78:685-709, and of
the R package blme; constants are left out where a prior is improper.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mixedmodels.errors import OptionError
from mixedmodels.objective.parameters import ParameterMap
from mixedmodels.objective.prior_texts import general_first, kind_and_rest, numbers_of

__all__ = ["Priors", "read_priors"]

_ON_COEFFICIENTS = {"normal": ("mean", "sd"), "t": ("df", "mean", "scale"), "cauchy": ("mean", "scale")}
_ON_SDS = {"gamma": ("shape", "rate"), "half-normal": ("scale",), "half-t": ("df", "scale")}
_ON_MATRICES = {"wishart": ("df", "scale")}
_DEFAULTS: dict[str, tuple[float, ...]] = {
    "normal": (0.0, 2.5),
    "t": (4.0, 0.0, 2.5),
    "cauchy": (0.0, 2.5),
    "gamma": (2.5, 0.0),
    "half-normal": (2.5,),
    "half-t": (3.0, 2.5),
    "wishart": (math.nan, math.inf),
}


class Priors:
    """``-2 log p(psi)`` up to constants, with derivatives.

    Parameters
    ----------
    size : int
        Length of psi.
    coefficients : list of (place in psi, kind, numbers)
    rows : list of (places in psi, kind, numbers)
        Standard deviations: the norm of these entries.
    matrices : list of (places of the diagonal, places of all entries, k, numbers)
    """

    def __init__(self, size: int, coefficients: list, rows: list, matrices: list) -> None:
        self.size = size
        self.coefficients, self.rows, self.matrices = coefficients, rows, matrices

    def value(self, psi: np.ndarray) -> float:
        """``-2 log p``; FloatingPointError where the density is 0."""
        return self.evaluate(psi)[0]

    def evaluate(self, psi: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """Value, gradient (size,) and Hessian (size, size)."""
        total, g, H = 0.0, np.zeros(self.size), np.zeros((self.size, self.size))
        for place, kind, numbers in self.coefficients:
            value, first, second = _location(kind, numbers, float(psi[place]))
            total += value
            g[place] += first
            H[place, place] += second
        for places, kind, numbers in self.rows:
            r = psi[places]
            s = math.sqrt(float(r @ r))
            value, slope, second = basic_spread(kind, numbers, s)  # slope is h'(s) / s
            total += value
            np.add.at(g, places, slope * r)
            block = slope * np.eye(len(r))
            if s > 0.0:
                block += (second - slope) * np.outer(r, r) / s**2
            np.add.at(H, np.ix_(places, places), block)
        for diagonal, entries, k, (df, scale) in self.matrices:
            power = df - k - 1.0
            d = psi[diagonal]
            if power != 0.0:
                if not (np.abs(d) > 0.0).all():
                    raise FloatingPointError("a covariance matrix on the boundary has prior density zero")
                total -= 2.0 * power * float(np.log(np.abs(d)).sum())
                np.add.at(g, diagonal, -2.0 * power / d)
                np.add.at(H, (diagonal, diagonal), 2.0 * power / d**2)
            if math.isfinite(scale):
                e = psi[entries]
                total += float(e @ e) / scale
                np.add.at(g, entries, 2.0 * e / scale)
                np.add.at(H, (entries, entries), 2.0 / scale)
        return total, g, H


def _location(kind: str, numbers: Sequence[float], x: float) -> tuple[float, float, float]:
    """-2 log density of a coefficient and two derivatives."""
    if kind == "normal":
        mean, sd = numbers
        z = (x - mean) / sd
        return z * z + 2.0 * math.log(sd) + math.log(2.0 * math.pi), 2.0 * z / sd, 2.0 / sd**2
    df, mean, scale = (1.0, *numbers) if kind == "cauchy" else numbers
    z = (x - mean) / scale
    base = df + z * z
    constant = math.lgamma(0.5 * (df + 1.0)) - math.lgamma(0.5 * df) - 0.5 * math.log(df * math.pi)
    value = (df + 1.0) * math.log1p(z * z / df) - 2.0 * constant + 2.0 * math.log(scale)
    first = 2.0 * (df + 1.0) * z / base / scale
    return value, first, 2.0 * (df + 1.0) * (df - z * z) / base**2 / scale**2


def basic_spread(kind: str, numbers: Sequence[float], s: float) -> tuple[float, float, float]:
    """h(s) = -2 log density of a standard deviation, h'(s) / s and h''(s)."""
    if kind == "gamma":
        shape, rate = numbers
        if not s > 0.0:
            raise FloatingPointError("a standard deviation of zero has prior density zero or no derivative")
        power = 2.0 * (shape - 1.0)
        value = 2.0 * rate * s - power * math.log(s)
        return value, (2.0 * rate - power / s) / s, power / s**2
    if kind == "half-normal":
        (scale,) = numbers
        value = (s / scale) ** 2 + 2.0 * math.log(scale) + math.log(0.5 * math.pi)
        return value, 2.0 / scale**2, 2.0 / scale**2
    df, scale = numbers
    value, first, second = _location("t", (df, 0.0, scale), s)
    slope = first / s if s > 0.0 else 2.0 * (df + 1.0) / (df * scale**2)
    return value - 2.0 * math.log(2.0), slope, second


# ---------------------------------------------------------------------- reading them
def read_priors(
    priors: Any, gamma_names: Sequence[str], p: int, terms: Sequence[Any], theta_map: ParameterMap
) -> Priors | None:
    """The priors of a model from their names.

    Parameters
    ----------
    priors : mapping or str, optional
        A mapping from what to which prior. What: a coefficient by name; ``"fixed"``, all coefficients of the
        conditional predictor, ``"slopes"``, all but its intercept; ``"sd_x|g"`` or ``"sd"``, all standard
        deviations; ``"theta"`` or a grouping factor, covariance matrices. Which: a tuple as in the module's
        list, or a name alone for its defaults. A string alone goes to all covariance matrices
        (``"wishart"``) or standard deviations.
    gamma_names : sequence of str
    p : int
        Coefficients of the conditional predictor, the first of `gamma_names`.
    terms : sequence of RandomTerm
    theta_map : ParameterMap

    Raises
    ------
    OptionError
        Names or numbers that mean nothing.
    """
    if priors is None:
        return None
    n = len(gamma_names)
    layout = [_layout(term, own, n) for term, own in zip(terms, theta_map.index, strict=True)]
    sds: dict[str, np.ndarray] = {}
    for term, (rows, _) in zip(terms, layout, strict=True):
        for j, name in enumerate(term.names):
            sds.setdefault(f"sd_{name}|{term.group}", rows[j])
    coefficients: dict[int, tuple] = {}
    spreads: dict[str, tuple] = {}
    matrices: dict[int, tuple] = {}
    for what, which in general_first(priors, _ON_SDS, '{"x": ("normal", 0, 2.5)}'):
        kind, numbers = _which(what, which)
        of_term = [b for b, term in enumerate(terms) if what in ("theta", term.group)]
        if what in ("fixed", "slopes") or what in gamma_names:
            _allow(what, kind, _ON_COEFFICIENTS)
            if what == "fixed":
                chosen = list(range(p))
            elif what == "slopes":
                chosen = [j for j in range(p) if gamma_names[j] != "(Intercept)"]
            else:
                chosen = [list(gamma_names).index(what)]
            coefficients.update({j: (j, kind, numbers) for j in chosen})
        elif what == "sd" or what in sds:
            _allow(what, kind, _ON_SDS)
            for name in sds if what == "sd" else [what]:
                spreads[name] = (sds[name], kind, numbers)
        elif of_term:
            if kind in _ON_SDS:
                for b in of_term:
                    for name in terms[b].names:
                        label = f"sd_{name}|{terms[b].group}"
                        spreads[label] = (sds[label], kind, numbers)
                continue
            _allow(what, kind, _ON_MATRICES)
            for b in of_term:
                rows, diagonal = layout[b]
                k = terms[b].k
                df = k + 2.5 if math.isnan(numbers[0]) else numbers[0]
                if not df > k - 1:
                    raise OptionError(f"priors[{what!r}]: df must be larger than k - 1 = {k - 1}, got {df!r}")
                matrices[b] = (diagonal, np.concatenate(rows), k, (df, numbers[1]))
        else:
            known = ", ".join([*gamma_names, "fixed", "slopes", *sds, "sd", "theta"])
            raise OptionError(f"priors: there is no parameter {what!r}; available: {known}")
    size = n + theta_map.n_theta
    return Priors(size, list(coefficients.values()), list(spreads.values()), list(matrices.values()))


def _layout(term: Any, own: np.ndarray, first: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Places in psi of each row of the factor, and of its diagonal."""
    rows: list[list[int]] = [[] for _ in range(term.k)]
    diagonal = []
    for i, j, t in term.covariance.entries.tolist():
        rows[i].append(first + int(own[t]))
        if i == j:
            diagonal.append(first + int(own[t]))
    return [np.array(row) for row in rows], np.array(diagonal)


def _which(what: str, which: Any) -> tuple[str, tuple[float, ...]]:
    known = {**_ON_COEFFICIENTS, **_ON_SDS, **_ON_MATRICES}
    kind, given = kind_and_rest(what, which, known, "must begin with")
    return kind, numbers_of(what, which, kind, known[kind], given, _DEFAULTS[kind])


def _allow(what: str, kind: str, table: Mapping[str, Any]) -> None:
    if kind not in table:
        raise OptionError(f"priors[{what!r}] cannot be {kind!r}; it takes one of {', '.join(table)}")
