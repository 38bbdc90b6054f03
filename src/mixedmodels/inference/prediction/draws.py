r"""Standard errors and limits of predictions from joint draws of fixed and random effects given the data.

With :math:`b^* \sim N(0, \sigma^2 A \otimes \Sigma)`, :math:`e^* \sim N(0, \sigma^2/w)` and
:math:`(\tilde\beta, \tilde b)` the solution for the response :math:`y - Zb^* - e^*`, the pair
:math:`(\tilde\beta, b^* + \tilde b)` has mean :math:`(\hat\beta, \hat b)` and Henderson's error covariance
(Matheron's rule). All draws with the same variance parameters share one factorisation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import DataError, NotImplementedYetError, OptionError
from mixedmodels.fit import values
from mixedmodels.fit.kriging import draws_left_over
from mixedmodels.fit.predict import predict_design
from mixedmodels.fit.simulate import generator, relationship_root
from mixedmodels.inference.prediction.analytic import left_out_variance
from mixedmodels.inference.prediction.rows import Parts, chosen, subset
from mixedmodels.solver.threads import one_blas_thread

if TYPE_CHECKING:
    from mixedmodels.fit.result import LMMFit
    from mixedmodels.frame.newdata import NewDesign

__all__ = ["Simulated", "joint_draws", "row_quantiles"]

_CHUNK = 4_000_000  # numbers at a time


class Simulated:
    """The columns of a table of predictions from `n` draws, for given rows.

    Parameters
    ----------
    fit : LMMFit
    parts : Parts
    level : float
    n : int
        Number of draws, unless `parameters` says it.
    seed : int, Generator or None
    parameters : Bootstrap or None
        Variance parameters, draw by draw.
    keep : bool
        Keep the draws of the last call in `draws`, shape (rows, n).
    """

    def __init__(
        self, fit: LMMFit, parts: Parts, level: float, n: int, seed: Any, parameters: Any, keep: bool
    ) -> None:
        if not 0.0 < level < 1.0:
            raise OptionError(f"level must lie between 0 and 1, got {level!r}")
        self.fit, self.parts, self.level, self.keep = fit, parts, level, keep
        self.rng = generator(seed)
        thetas, self.sigmas = _parameter_draws(fit, parameters, n)
        self.n = len(self.sigmas)
        if thetas is None:
            self.factors = [np.array(factor)[None] for factor in fit._factors]
        else:
            each = [values.relative_factors(fit.design, theta) for theta in thetas]
            self.factors = [np.array(factors) for factors in zip(*each, strict=True)]
        self.psis = thetas if fit.design.residual is not None else None
        self.draws: np.ndarray | None = None
        source = "as estimated" if thetas is None else "from the bootstrap"
        self.note = (
            f"limits: quantiles of {self.n} joint draws of fixed and random effects; "
            f"variance parameters {source}"
        )

    @property
    def phis(self) -> np.ndarray | None:
        """Parameters of structured residuals, draw by draw; None where they are those of the fit."""
        n_phi = 0 if self.fit.design.residual is None else self.fit.design.residual.n_phi
        return None if self.psis is None else self.psis[:, self.psis.shape[1] - n_phi :]

    @one_blas_thread()
    def __call__(
        self, rows: NewDesign, weights: np.ndarray | None, numbered: dict[int, np.ndarray] | None = None
    ) -> dict[str, Any]:
        """Columns predicted, std_error, [prediction_sd,] conf_low, conf_high.

        Parameters
        ----------
        rows : NewDesign
        weights : ndarray or None
        numbered : dict of int to ndarray, optional
            By term, numbers of the levels of the rows that tell new levels apart; rows with equal ones share
            a draw.
        """
        mean = predict_design(self.fit, rows, self.parts.kept)
        ok = np.flatnonzero(~np.isnan(mean))
        names = ["std_error", *(["prediction_sd"] if self.parts.whole else []), "conf_low", "conf_high"]
        columns = {"predicted": mean, **{name: np.full(rows.n, np.nan) for name in names}}
        if self.keep:
            self.draws = np.full((rows.n, self.n), np.nan)
        levels = {}
        for position in self.parts.with_levels:
            codes = rows.terms[position][0][ok]  # type: ignore[index]
            levels[position] = np.unique(codes[codes >= 0])
        beta, b, own = joint_draws(self.fit, self.factors, self.sigmas, levels, self.rng, self.psis)
        fresh = self._left_over(rows, numbered or {})
        step = max(1, ok.size if self.keep else _CHUNK // self.n)
        for first in range(0, ok.size, step):
            at = ok[first : first + step]
            part = subset(rows, at)
            number = {position: codes[at] for position, codes in (numbered or {}).items()}
            draws, rest = self._means(part, levels, beta, b, own, number)
            for which, more, in_mean in fresh:
                hit = np.flatnonzero(which[at] >= 0)
                (draws if in_mean else rest)[hit] += self.sigmas * more[which[at][hit]]  # type: ignore[index]
            columns["std_error"][at] = _sd(draws)
            if self.parts.whole:
                draws += rest
                more = left_out_variance(self.fit, self.parts, part, self.factors)
                if weights is not None:
                    share = 1.0 / weights[at]
                    more = more + (share if share.ndim == 2 else share[:, None])
                else:
                    more += 1.0
                more = np.sqrt(more, out=more) * self.sigmas
                more *= self.rng.standard_normal(draws.shape)
                draws += more
                columns["prediction_sd"][at] = _sd(draws)
            if self.draws is not None:
                self.draws[at] = draws
            low, high = row_quantiles(draws, (0.5 - 0.5 * self.level, 0.5 + 0.5 * self.level))
            columns["conf_low"][at], columns["conf_high"][at] = low, high
        return columns

    def _left_over(
        self, rows: NewDesign, numbered: dict[int, np.ndarray]
    ) -> list[tuple[np.ndarray, np.ndarray, bool]]:
        """Of terms at new positions: see `draws_left_over`, and whether the term is in the mean."""
        out = []
        for position, seen in (rows.positions or {}).items():
            if not seen[0].size or position not in self.parts.with_levels:
                continue
            term = self.fit.design.terms[position]
            if self.psis is not None or len(self.factors[position]) > 1 or term.precision is not None:
                raise NotImplementedYetError(
                    f"draws at new positions of {term.group!r} with parameters=, or with a known "
                    "relationship between its levels, are not in this version; use method='analytic'"
                )
            codes: Any = numbered.get(position, rows.terms[position][0])  # type: ignore[index]
            which, draws = draws_left_over(self.fit, position, codes, seen, self.n, self.rng)
            out.append((which, draws, position in dict(self.parts.kept)))
        return out

    def _means(
        self,
        rows: NewDesign,
        levels: dict[int, np.ndarray],
        beta: np.ndarray,
        b: dict[int, np.ndarray],
        own: dict[int, np.ndarray],
        numbered: dict[int, np.ndarray],
    ) -> tuple[np.ndarray, np.ndarray | float]:
        """Draws of the means, shape (rows, n), and of the effects left out on the same levels."""
        out = rows.X @ beta
        if rows.offset is not None:
            out += rows.offset[:, None]
        rest: np.ndarray | float = np.zeros_like(out) if self.parts.same else 0.0
        left = dict(self.parts.same)
        kept = dict(self.parts.kept)
        for position in self.parts.with_levels:
            codes, Z = rows.terms[position]  # type: ignore[misc]
            k = self.fit.design.terms[position].k
            known, new = np.flatnonzero(codes >= 0), np.flatnonzero(codes < 0)
            place = np.searchsorted(levels[position], codes[known])
            drawn = self._new_effects(position, numbered.get(position), new)
            for part, columns, effects in (
                (out, kept.get(position, ()), b.get(position)),
                (rest, left.get(position, ()), own.get(position)),
            ):
                values_ = chosen(Z, columns, k, rows.n)
                for j in range(k) if columns is None else columns:
                    if effects is not None and known.size == rows.n:
                        part += effects[place, j] * values_[:, j, None]
                    elif effects is not None and known.size:
                        part[known] += effects[place, j] * values_[known, j, None]  # type: ignore[index]
                    if new.size:
                        part[new] += drawn[:, j] * values_[new, j, None]  # type: ignore[index]
        return out, rest

    def _new_effects(self, position: int, number: np.ndarray | None, new: np.ndarray) -> np.ndarray:
        """Effects of the rows `new` with new levels, shape (new, k, n); rows of one level share theirs."""
        factor = self.factors[position]
        k = factor.shape[1]
        if not new.size:
            return np.empty((0, k, self.n))
        own = np.arange(new.size) if number is None else number[new]
        distinct, place = np.unique(own, return_inverse=True)
        u = self.rng.standard_normal((distinct.size, k, self.n))
        return (self.sigmas * _times(factor, u))[place.reshape(-1)]


def _times(factors: np.ndarray, u: np.ndarray) -> np.ndarray:
    """``F_r u_lr`` for effects u, shape (levels, k, n), and one factor or one for each draw."""
    if factors.shape[0] == 1:
        return factors[0] @ u
    return np.einsum("rij,ljr->lir", factors, u)


def _sd(draws: np.ndarray) -> np.ndarray | float:
    return draws.std(axis=1, ddof=1) if draws.shape[1] > 1 else np.nan


def row_quantiles(draws: np.ndarray, tails: tuple[float, ...]) -> list[np.ndarray]:
    """Quantiles of each row, interpolated linearly (Hyndman & Fan 1996, type 7); reorders the rows.

    Examples
    --------
    >>> [q.tolist() for q in row_quantiles(np.array([[3.0, 1.0, 2.0, 4.0, 5.0]]), (0.0, 0.6))]
    [[1.0], [3.4]]
    """
    last = draws.shape[1] - 1
    places = [tail * last for tail in tails]
    wanted = sorted({min(int(place) + more, last) for place in places for more in (0, 1)})
    draws.partition(wanted, axis=1)
    out = []
    for place in places:
        j = int(place)
        low, high = draws[:, j], draws[:, min(j + 1, last)]
        out.append(low + (place - j) * (high - low))
    return out


def _parameter_draws(fit: LMMFit, parameters: Any, n: int) -> tuple[np.ndarray | None, np.ndarray]:
    """theta (None: that of the fit) and sigma of each draw."""
    if parameters is None:
        return None, np.full(n, fit.sigma)
    theta, sigma = getattr(parameters, "theta", None), getattr(parameters, "sigma", None)
    if theta is None or sigma is None or np.ndim(theta) != 2 or np.shape(theta)[1] != len(fit.theta):
        raise OptionError("parameters must be a Bootstrap of this fit (fit.bootstrap(...))")
    origin = getattr(parameters, "settings", {}).get("model", [fit.formula_text, fit.nobs])[:2]
    if origin != [fit.formula_text, fit.nobs]:
        raise OptionError(
            f"parameters is a Bootstrap of another fit ({origin[0]}, {origin[1]} rows); use this fit's own"
        )
    theta, sigma = np.asarray(theta, dtype=float), np.asarray(sigma, dtype=float).reshape(-1)
    good = np.isfinite(theta).all(axis=1) & np.isfinite(sigma) & (sigma > 0.0)
    if not good.any():
        raise DataError("parameters holds no replicate that could be fitted")
    return theta[good], sigma[good]


def joint_draws(
    fit: LMMFit,
    factors: list[np.ndarray],
    sigmas: np.ndarray,
    levels: dict[int, np.ndarray],
    rng: np.random.Generator,
    psis: np.ndarray | None = None,
) -> tuple[np.ndarray, dict[int, np.ndarray], dict[int, np.ndarray]]:
    r"""Draws of :math:`\tilde\beta`, shape (p, n), and by term of :math:`b^* + \tilde b` and :math:`b^*`.

    Those of a term have shape (levels, k, n). Draw by draw, so that the first do not depend on n.

    Parameters
    ----------
    fit : LMMFit
    factors : list of ndarray, shape (1 or n, k, k)
        Relative factors by term: one, or one for each draw.
    sigmas : ndarray, shape (n,)
    levels : dict of int to ndarray
        By position of the term, the levels whose effects are wanted.
    rng : Generator
    psis : ndarray, shape (n, n_theta), optional
        Of structured residuals: all parameters, draw by draw.
    """
    design, n = fit.design, len(sigmas)
    roots = [None if t.precision is None else relationship_root(t.precision) for t in design.terms]
    noise = 1.0 if design.weights is None else 1.0 / np.sqrt(design.weights)
    residuals = None if design.residual is None else _structured_residuals(fit, psis)
    # y - offset - X beta^: beta^ comes back at the end, so that a large mean costs no digits
    centred = design.y - values.fixed_predictor(design.X, fit.beta, design.offset)
    beta = np.empty((design.p, n))
    b = {t: np.empty((rows.size, design.terms[t].k, n)) for t, rows in levels.items()}
    own = {t: np.empty_like(store) for t, store in b.items()}
    width = design.n + sum(term.m * term.k for term in design.terms)
    alike = psis is None and all(factor.shape[0] == 1 for factor in factors)
    step = max(1, _CHUNK // width) if alike else 1
    solve = fit.solver.responses_at([factor[0] for factor in factors]) if alike else None
    for first in range(0, n, step):
        at = slice(first, min(first + step, n))
        sigma = sigmas[at]
        normal = rng.standard_normal((sigma.size, width))
        own_rows = normal[:, : design.n] * noise if residuals is None else residuals(normal, first)
        R = np.ascontiguousarray((centred - sigma[:, None] * own_rows).T)
        effects, start = [], design.n
        for term, factor, root in zip(design.terms, factors, roots, strict=True):
            u = np.ascontiguousarray(normal[:, start : start + term.m * term.k].T)
            start += term.m * term.k
            if root is not None:
                u = root(u.reshape(term.m, -1))
            u = u.reshape(term.m, term.k, sigma.size)
            effects.append(sigma * _times(factor if factor.shape[0] == 1 else factor[at], u))
            if term.several_levels:
                R -= term.matrix(design.n) @ effects[-1].reshape(term.m * term.k, -1)
                continue
            for j in range(term.k):
                part = effects[-1][term.codes, j]
                if term.Z is not None:
                    part *= term.Z[:, j, None]
                R -= part
        if not alike:
            solver = fit.solver if psis is None else fit.objective.at_phi(psis[first]).solver
            solve = solver.responses_at([f[0] if f.shape[0] == 1 else f[first] for f in factors])
        assert solve is not None
        fixed, predicted = solve(R)
        beta[:, at] = fit.beta[:, None] + fixed
        for t, rows in levels.items():
            own[t][:, :, at] = effects[t][rows]
            b[t][:, :, at] = own[t][:, :, at] + predicted[t][rows]
    return beta, b, own


def _structured_residuals(fit: Any, psis: np.ndarray | None) -> Any:
    """Residuals over sigma from normal numbers (draws, >= rows) of the draws from a place on."""
    bound, n = fit.design.residual, fit.design.n

    def draw(normal: np.ndarray, first: int) -> np.ndarray:
        point = fit._point if psis is None else bound.at(psis[first, psis.shape[1] - bound.n_phi :])
        return point.unwhiten(np.ascontiguousarray(normal[:, :n].T)).T

    return draw
