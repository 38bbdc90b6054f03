"""The simplex method of Nelder and Mead with bounds: a point outside is moved exactly onto the bound."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mixedmodels.optimize.derivative_free import ValueSearch

__all__ = ["NelderMead", "nelder_mead"]


def nelder_mead(
    fun: Callable[[np.ndarray], float],
    start: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
    tol: float = 1e-9,
    maxfev: int = 10000,
) -> tuple[np.ndarray, float, int, bool]:
    """Minimise a function on a box by a simplex search with restarts.

    The coefficients depend on the dimension (Gao, Han 2012). A converged simplex is rebuilt around its best
    point until a restart no longer improves the value, which mends collapsed simplices.

    Parameters
    ----------
    fun : callable
        Function of x, shape (n,); may be infinite.
    start, lower, upper : ndarray, shape (n,)
    tol : float
        Largest spread of the values over a final simplex.
    maxfev : int
        Largest number of evaluations.

    Returns
    -------
    x : ndarray, shape (n,)
    value : float
    evaluations : int
    converged : bool

    References
    ----------
    Nelder, Mead (1965); Gao, Han (2012), Comput. Optim. Appl. 51:259.

    Examples
    --------
    >>> low = np.array([0.0, -np.inf])
    >>> x, *_ = nelder_mead(lambda x: (x[0] + 1) ** 2 + (x[1] - 2) ** 2, np.ones(2), low, np.full(2, np.inf))
    >>> x.round(4) + 0.0
    array([0., 2.])
    """
    n = len(start)
    used = 0

    def value(x: np.ndarray) -> float:
        nonlocal used
        used += 1
        v = float(fun(x))
        return v if v == v else np.inf

    def onto(x: np.ndarray) -> np.ndarray:
        return np.minimum(np.maximum(x, lower), upper)

    grow, shrink = 1.0 + 2.0 / max(n, 2), 1.0 - 1.0 / max(n, 2)
    contract = 0.75 - 1.0 / (2.0 * max(n, 2))
    best = onto(np.array(start, dtype=float))
    best_value = value(best)
    edge, last = 0.5, np.inf
    while True:
        points, values = [best], [best_value]
        for i in range(n):
            x = best.copy()
            h = edge * max(abs(x[i]), 0.2)
            x[i] = x[i] + h if x[i] + h <= upper[i] else x[i] - h
            points.append(onto(x))
            values.append(value(points[-1]))
        S, f = np.array(points), np.array(values)
        while used < maxfev:
            order = np.argsort(f, kind="stable")
            S, f = S[order], f[order]
            spread = np.abs(S[1:] - S[0]).max()
            if f[-1] - f[0] <= tol and spread <= np.sqrt(tol) * max(1.0, np.abs(S[0]).max()):
                break
            if spread <= 1e-14 * max(1.0, np.abs(S[0]).max()):
                break
            centre = S[:-1].mean(axis=0)
            x = onto(centre + (centre - S[-1]))
            v = value(x)
            if v < f[0]:
                far = onto(centre + grow * (centre - S[-1]))
                w = value(far)
                S[-1], f[-1] = (far, w) if w < v else (x, v)
            elif v < f[-2]:
                S[-1], f[-1] = x, v
            else:
                near = onto(centre + contract * (centre - S[-1])) if v < f[-1] else None
                inner = near if near is not None else centre - contract * (centre - S[-1])
                w = value(inner)
                if w < min(v, f[-1]):
                    S[-1], f[-1] = inner, w
                else:
                    S[1:] = S[0] + shrink * (S[1:] - S[0])
                    f[1:] = [value(x) for x in S[1:]]
        i = int(np.argmin(f))
        best, best_value = S[i].copy(), float(f[i])
        if used >= maxfev:
            return best, best_value, used, False
        if not best_value < last - tol:
            return best, best_value, used, True
        last = best_value
        edge = max(0.5 * edge, 0.02)


class NelderMead(ValueSearch):
    """`nelder_mead` as a method of minimize."""

    def search(self, active: np.ndarray, limit: int) -> bool:
        """Nelder-Mead on the active parameters; whether the simplex became small enough."""
        fun = self.objective_at(active)
        left = max(limit - self.run.iterations, 1)
        *_, done = nelder_mead(
            fun, self.run.theta[active], self.lower[active], self.upper[active], self.control.tol, left
        )
        return done
