r"""Profile likelihood of a ratio of variances.

For a value c of the ratio h the criterion is minimised over the variance ratios :math:`\gamma_b =
\sigma_b^2/\sigma^2` with :math:`h(\gamma, 1) = c`: one of them, j, follows from the others, with
:math:`\partial\gamma_j/\partial\gamma_i = -h_i/h_j`, and the rest is free. sigma is profiled out. The
interval holds the values whose criterion is at most the chi-square quantile above the minimum.

Its ends solve :math:`\nabla d = \lambda\nabla h`, :math:`d = \hat d + q`: steps on quadratic models of d and
linear ones of h (Venzon & Moolgavkar 1988, Applied Statistics 37:87-94; DiCiccio & Tibshirani 1991), and
where these do not settle, minimisation for each c and a search for the crossing.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from mixedmodels.errors import NotImplementedYetError, OptionError
from mixedmodels.fit.wald import normal_quantile

if TYPE_CHECKING:
    from mixedmodels.fit.result import LMMFit
    from mixedmodels.genetics.heritability import Components
    from mixedmodels.genetics.ratio import Ratio

__all__ = ["RatioProfile", "profile_interval"]

_FAR = 1e8  # a variance ratio that stands for infinity
_TOLERANCE = 1e-8
_ITERATIONS = 60


class RatioProfile:
    """The criterion as a function of one ratio, all else at its best.

    Parameters
    ----------
    fit : LMMFit
    ratio : Ratio
        Of the components in the order of the terms, the residual variance last.
    values : ndarray, shape (terms + 1,)
        Estimated variances.
    """

    def __init__(self, fit: LMMFit, ratio: Ratio, values: np.ndarray) -> None:
        self.objective, self.ratio = fit.objective, ratio
        self.best = float(fit.criterion)
        self.gamma = values[:-1] / values[-1]
        self.estimate, gradient = self._ratio(self.gamma)
        weight = np.abs(gradient) * (self.gamma + 0.1 * (1.0 + self.gamma.sum()))
        self.j = int(np.argmax(weight))
        if not weight[self.j] > 0.0:
            raise OptionError(f"the ratio {ratio.text!r} does not change with any variance of a random term")
        self.rising = bool(gradient[self.j] > 0.0)
        self.others = [b for b in range(len(self.gamma)) if b != self.j]
        # zero is stationary in theta: never start there
        self._start = np.sqrt(np.maximum(self.gamma[self.others], 0.05))

    def _ratio(self, gamma: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = self.ratio.value(np.append(gamma, 1.0))
        out = np.zeros(len(gamma) + 1)
        out[: len(gradient)] = gradient
        return value, out[:-1]

    def range_of(self) -> tuple[float, float]:
        """Values of the ratio with variance j at zero and at infinity, the others as estimated."""
        ends = []
        for at in (0.0, _FAR):
            gamma = self.gamma.copy()
            gamma[self.j] = at
            ends.append(self._ratio(gamma)[0])
        return min(ends), max(ends)

    def _solve(self, c: float, gamma: np.ndarray) -> float | None:
        """Variance ratio j with ``h = c``, the others given; None if there is none."""
        from scipy.optimize import brentq

        def gap(log1p: float) -> float:
            gamma[self.j] = math.expm1(log1p)
            return self._ratio(gamma)[0] - c

        top = math.log1p(_FAR)
        low, high = gap(0.0), gap(top)
        if low == 0.0:
            return 0.0
        if not low * high < 0.0:
            return None
        return math.expm1(brentq(gap, 0.0, top, xtol=1e-15, rtol=8.9e-16))

    def value(self, c: float) -> float:
        """The criterion at h = c, minus its minimum; infinite where no variances give this ratio."""
        theta = np.zeros(len(self.gamma))

        def at(free: np.ndarray) -> tuple[float, np.ndarray]:
            gamma = np.zeros(len(self.gamma))
            gamma[self.others] = free**2
            solved = self._solve(c, gamma)
            if solved is None:
                return 1e10, np.zeros(len(free))
            gamma[self.j] = solved
            theta[:] = np.sqrt(gamma)
            if solved == 0.0:
                value, slope = self.objective.value_and_gradient(theta)
                return float(value), slope[self.others]
            value, slope = self.objective.value_and_gradient(theta)
            _, h = self._ratio(gamma)
            follow = -h[self.others] / h[self.j] * free / theta[self.j]
            return float(value), slope[self.others] + slope[self.j] * follow

        if not self.others:
            value = at(np.zeros(0))[0]
            return math.inf if value >= 1e10 else value - self.best
        from scipy.optimize import minimize

        found = minimize(
            at,
            self._start,
            jac=True,
            method="L-BFGS-B",
            bounds=[(0.0, None)] * len(self.others),
            options={"ftol": 1e-12, "gtol": 1e-6},
        )
        if found.fun >= 1e10:
            return math.inf
        return float(found.fun) - self.best


def profile_interval(
    fit: LMMFit, ratio: Ratio, components: Components, level: float
) -> tuple[float, float, list[str]]:
    """Ends of the interval of a ratio, with notes.

    Raises
    ------
    OptionError
        The ratio has a unit, or sigma is held.
    NotImplementedYetError
        Terms with several columns or shared parameters.
    """
    from mixedmodels.genetics.heritability import is_scale_free

    design = fit.design
    if any(term.k > 1 for term in design.terms) or design.theta_index is not None:
        raise NotImplementedYetError(
            "profile intervals of ratios are for terms of one column; use method='delta'"
        )
    if fit._options.sigma is not None:
        raise OptionError("the variances are held; there is nothing to profile")
    if not is_scale_free(ratio, components.values):
        raise OptionError(
            f"the ratio {ratio.text!r} depends on the unit of the response; a profile needs a pure ratio"
        )
    profile = RatioProfile(fit, ratio, components.values)
    cut = normal_quantile(level) ** 2
    notes: list[str] = []
    ends = []
    for side, end in zip(("low", "high"), profile.range_of(), strict=True):
        found_end = _newton_limit(profile, cut, -1 if side == "low" else 1)
        ends.append(_limit(profile, end, cut, side, notes) if found_end is None else found_end)
    return ends[0], ends[1], notes


def _newton_limit(profile: RatioProfile, cut: float, side: int) -> float | None:
    """The end on one side by quadratic models; None where they do not settle."""
    theta = np.sqrt(profile.gamma)
    target = profile.best + cut
    if not (theta > 0.0).all():
        return None
    last = math.inf
    for _ in range(_ITERATIONS):
        value, g, H = profile.objective.newton(theta)
        h, slope = profile._ratio(theta * theta)
        a = 2.0 * theta * slope
        try:
            inverse = np.linalg.inv(H)
        except np.linalg.LinAlgError:
            return None
        steepness = float(a @ inverse @ a)
        room = 2.0 * (target - value) + float(g @ inverse @ g)
        if not steepness > 0.0 or not room > 0.0:
            return None
        multiplier = side * math.sqrt(room / steepness)
        step = inverse @ (multiplier * a - g)
        gap = abs(value - target) / cut
        rest = float(step @ H @ step)
        if gap < _TOLERANCE and rest < 1e-10 * cut:
            return h
        if not gap + rest < 1e3 * (1.0 + last):
            return None
        last = gap + rest
        share = min(1.0, *(0.5 * theta / np.maximum(np.abs(step), 1e-300)).tolist())
        theta = theta + share * step
        if side * (profile._ratio(theta * theta)[0] - profile.estimate) <= 0.0:
            return None
    return None


def _limit(profile: RatioProfile, end: float, cut: float, side: str, notes: list[str]) -> float:
    """Where the criterion crosses `cut` between the estimate and the end of the ratio's range."""
    from scipy.optimize import brentq

    estimate = profile.estimate
    if abs(end - estimate) <= _TOLERANCE:
        notes.append(f"{side}: at the end of the parameter space")
        return end

    def gap(share: float) -> float:
        """Signed root of the criterion at a share of the way, minus that of the cut."""
        if share == 0.0:
            return -math.sqrt(cut)
        return math.sqrt(max(min(profile.value(estimate + share * (end - estimate)), 1e10), 0.0)) - math.sqrt(
            cut
        )

    if gap(1.0) <= 0.0:
        notes.append(f"{side}: at the end of the parameter space")
        return end
    share = brentq(gap, 0.0, 1.0, xtol=1e-8, rtol=1e-8)
    return estimate + share * (end - estimate)
