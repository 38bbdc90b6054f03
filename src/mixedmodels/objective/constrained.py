r"""The criterion of a linear mixed model on the set of parameters that obey equations.

With :math:`y = (\psi, \log\sigma)` and equations :math:`F(y) = x` (a standard deviation that is held, two
correlations that are equal), as many coordinates e as there are equations are functions of the others,
:math:`dy_e = -F_e^{-1}F_k\,dy_k`. With T the derivative of y in the others and
:math:`\lambda = F_e^{-T}D_e`,

.. math:: \text{gradient } T'D_y, \qquad \text{Hessian } T'(D_{yy} - \sum_k \lambda_k F_{k,yy})T, \qquad
    \frac{\partial}{\partial x_k} \min D = \lambda_k .
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from mixedmodels.objective.posterior import positive_definite
from mixedmodels.objective.structured_descent import Work
from mixedmodels.objective.unprofiled import UnprofiledCriterion
from mixedmodels.optimize import Control, minimize
from mixedmodels.optimize.trust_region import trust_region
from mixedmodels.solver.base import Breakdown

__all__ = ["Constrained", "Entry", "Equations", "Function", "bending", "feasible", "tangent_basis"]

_ROOT = 1e-13
_STALLED = 1e-9
_NEWTON = 60  # iterations for the coordinates that equations give
_IDLE = 8  # of these without coming nearer
_LIMIT = 60  # iterations in the trust region
_ROUNDS = 3  # searches, each with coordinates of its own
_DEPENDENT = 1e-9
_FAR = 2.0  # longest step towards the equations


class Function(Protocol):
    """A smooth function of (psi, log sigma), tau = log sigma."""

    def __call__(self, psi: np.ndarray, tau: float) -> tuple[float, np.ndarray]:
        """Value and gradient in (psi, tau), shape (n_theta + 1,)."""
        ...

    def curvature(self, psi: np.ndarray, tau: float) -> np.ndarray:
        """Second derivatives in (psi, tau), shape (n_theta + 1, n_theta + 1)."""
        ...


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of (psi, tau) as a function.

    Attributes
    ----------
    place : int
    n : int
        Length of (psi, tau).
    """

    place: int
    n: int

    def __call__(self, psi: np.ndarray, tau: float) -> tuple[float, np.ndarray]:
        """The entry, and a unit vector."""
        slopes = np.zeros(self.n)
        slopes[self.place] = 1.0
        return float(psi[self.place]) if self.place < len(psi) else tau, slopes

    def curvature(self, psi: np.ndarray, tau: float) -> np.ndarray:
        """Zeros: it is linear."""
        return np.zeros((self.n, self.n))


@dataclass(frozen=True, slots=True, eq=False)
class Equations:
    """Functions of (psi, log sigma) that have values.

    Attributes
    ----------
    functions : tuple of Function
    values : tuple of float
    signed : tuple of int
        Entries of psi that are in an equation themselves, so that their signs matter.
    texts : tuple of str
        What to say about each.
    scaling : tuple of bool
        Whether a function is proportional to sigma and its value is not zero: it gives sigma at psi.
    """

    functions: tuple[Function, ...] = ()
    values: tuple[float, ...] = ()
    signed: tuple[int, ...] = ()
    texts: tuple[str, ...] = ()
    scaling: tuple[bool, ...] = ()

    def __len__(self) -> int:
        return len(self.functions)

    def at(self, psi: np.ndarray, tau: float) -> tuple[np.ndarray, np.ndarray]:
        """Functions less their values, shape (m,), and the derivatives, shape (m, n_theta + 1)."""
        n = len(psi) + 1
        values, slopes = np.empty(len(self.functions)), np.empty((len(self.functions), n))
        with np.errstate(all="ignore"):
            for k, (function, value) in enumerate(zip(self.functions, self.values, strict=True)):
                found, slopes[k] = function(psi, tau)
                values[k] = found - value
        return values, slopes

    def log_sigma(self, psi: np.ndarray, guess: float) -> float | None:
        """Log sigma where psi has the values asked for; None where they say nothing about it."""
        for function, value, scaling in zip(self.functions, self.values, self.scaling, strict=True):
            if not scaling:
                continue
            found, _ = function(psi, guess)
            if found * value > 0.0:
                return guess + math.log(value / found)
        return None

    def and_one(self, function: Function, value: float) -> Equations:
        """One equation more, the last."""
        return replace(
            self,
            functions=(*self.functions, function),
            values=(*self.values, value),
            texts=(*self.texts, ""),
            scaling=(*self.scaling, False),
        )

    def entries_zero(self, psi: np.ndarray, tau: float, places: Sequence[int]) -> Equations:
        """Those that mean something at a point where entries of psi are zero, and these zeros."""
        point = np.array(psi)
        point[list(places)] = 0.0
        values, slopes = self.at(point, tau)
        n = len(psi) + 1
        kept = [
            k
            for k in range(len(self))
            if np.isfinite(values[k])
            and np.isfinite(slopes[k]).all()
            and np.delete(slopes[k], list(places)).any()
        ]
        out = Equations(
            tuple([self.functions[k] for k in kept]),
            tuple([self.values[k] for k in kept]),
            self.signed,
            tuple([self.texts[k] for k in kept]),
            tuple([self.scaling[k] for k in kept]),
        )
        for place in places:
            out = out.and_one(Entry(place, n), 0.0)
        return out


class Constrained:
    """D as a function of all coordinates but those that the equations give, for `minimize`.

    Parameters
    ----------
    whole : UnprofiledCriterion
    equations : Equations
    y : ndarray, shape (size,)
        Where the search begins.
    places : sequence of int, optional
        Coordinates that the equations give; by default those in which they are steepest at y.

    Raises
    ------
    Breakdown
        The equations depend on each other there, or do not move with any coordinate.
    """

    def __init__(
        self,
        whole: UnprofiledCriterion,
        equations: Equations,
        y: np.ndarray,
        places: Sequence[int] | None = None,
    ) -> None:
        self.whole, self.equations = whole, equations
        y = np.clip(np.asarray(y, dtype=float), whole.lower, whole.upper)
        self.places = np.array(self._chosen(y) if places is None else places, dtype=np.intp)
        self.lower, self.upper = np.delete(whole.lower, self.places), np.delete(whole.upper, self.places)
        self.start = np.delete(y, self.places)
        # the best point so far: z, the coordinates that the equations give there, and their derivatives
        self._base = (self.start, y[self.places], np.zeros((len(self.places), len(self.start))))
        self._lowest = math.inf
        self.names = tuple([f"y{i}" for i in range(whole.size) if i not in self.places])

    def _f(self, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        values, slopes = self.equations.at(self.whole.psi(y), self.whole.tau(y))
        return values, slopes[:, : self.whole.size]

    def _chosen(self, y: np.ndarray) -> list[int]:
        """Coordinates in which the equations are steep and independent; the only one of psi, or sigma."""
        m = len(self.equations)
        if not m:
            return []
        _, slopes = self._f(y)
        slopes = np.where(np.isfinite(slopes), slopes, 0.0)
        scaled = slopes / self.whole.units
        n = self.whole.objective.n_theta
        for k in range(m):
            scaled[k, n:] *= 1e3 if np.count_nonzero(slopes[k, :n]) > 1 else 1e-3
        sizes = np.sqrt(np.sum(scaled**2, axis=1))
        if not np.all(sizes > 0.0):
            raise Breakdown("the parameter does not move with any coordinate there")
        scaled /= sizes[:, None]
        from scipy.linalg import qr

        R, order = qr(scaled, mode="r", pivoting=True, check_finite=False)
        if m > self.whole.size or abs(R[m - 1, m - 1]) < _DEPENDENT * abs(R[0, 0]):
            raise Breakdown("what is held or equal says the same thing twice")
        return sorted(order[:m].tolist())

    def point(self, z: np.ndarray) -> np.ndarray:
        """All coordinates: Newton's method for those that are functions of the others.

        Raises
        ------
        Breakdown
            There are no such values.
        """
        z = np.asarray(z, dtype=float)
        near, given, slopes = self._base
        if not len(self.places) or np.array_equal(z, near):
            return self._solved(z, given)
        try:
            return self._solved(z, given + slopes @ (z - near))
        except Breakdown:
            return self._solved(z, given)

    def _solved(self, z: np.ndarray, guess: np.ndarray) -> np.ndarray:
        """Newton's method for the coordinates that the equations give, from a guess of them.

        One equation alone: once the root lies between two points, steps stay there, halving where Newton's do
        not (a correlation near one is flat in the entries of its factor).
        """
        y = np.empty(self.whole.size)
        e = self.places
        y[np.delete(np.arange(self.whole.size), e)] = z
        if not len(e):
            return y
        low, high = self.whole.lower[e], self.whole.upper[e]
        y[e] = np.clip(guess, low, high)
        last, nearest, idle = math.inf, math.inf, 0
        below, above = math.nan, math.nan  # where one equation alone is less than its value, and more
        for _ in range(_NEWTON):
            values, slopes = self._f(y)
            if len(e) == 1 and values[0] < 0.0:
                below = float(y[e[0]])
            elif len(e) == 1 and values[0] > 0.0:
                above = float(y[e[0]])
            try:
                with np.errstate(all="ignore"):
                    step = -np.linalg.solve(slopes[:, e], values)
            except np.linalg.LinAlgError:
                break
            if not np.isfinite(step).all():
                break
            bound = _FAR + np.abs(y[e])
            new = np.clip(y[e] + np.clip(step, -bound, bound), low, high)
            size = float(np.max(np.abs(step) / (1.0 + np.abs(new))))
            between = not math.isnan(below + above)
            if between and size > _STALLED and not min(below, above) < new[0] < max(below, above):
                new = np.array([0.5 * (below + above)])
            distance = float(np.max(np.abs(values)))
            idle = 0 if between or distance < 0.99 * nearest else idle + 1
            nearest = min(nearest, distance)
            if size > 1e-8 and (idle == _IDLE or np.array_equal(new, y[e])):
                break
            y[e] = new
            if size <= _ROOT or (size <= _STALLED and size >= 0.5 * last):
                return y
            last = size
        raise Breakdown("no parameters have this value there")

    def value(self, z: np.ndarray) -> float:
        """Criterion D at free coordinates, a float."""
        return self.whole.value(self.point(z))

    def value_and_gradient(self, z: np.ndarray) -> tuple[float, np.ndarray]:
        """D and its gradient."""
        value, gradient, _ = self.newton(z)
        return value, gradient

    def exact(self, z: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """D, gradient and Hessian, which may be indefinite."""
        if np.any(z < self.lower) or np.any(z > self.upper):
            raise Breakdown("outside of the bounds")
        y = self.point(z)
        value, g, H, T, _ = self.parts(y)
        if value < self._lowest:
            self._lowest, self._base = value, (np.array(z, dtype=float), y[self.places], T[self.places])
        return value, T.T @ g, T.T @ H @ T

    def newton(self, z: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """D, gradient and a positive definite model of the Hessian."""
        value, g, H = self.exact(z)
        return value, g, positive_definite(H)

    def minimum(self, tol: float = 1e-10) -> tuple[np.ndarray, bool]:
        """All coordinates at the minimum, and whether it was reached."""
        found = self.search(Control(tol=tol))
        return found.theta, bool(found.converged)

    def glance(self, control: Control) -> Any:
        """`Optimum` of one search in the trust region, whose theta is all of y.

        Raises
        ------
        Breakdown
            The coordinates that the equations give cannot be followed.
        """
        found = trust_region(self.exact, self.start, control, self.names, exact=self.whole.exact)
        return replace(found, theta=self.point(found.theta), gradient=None, hessian=None)

    def search(self, control: Control | None = None, progress: Any = None, method: Any = "newton") -> Any:
        """`Optimum` whose theta is all of y."""
        control, rest, work = Control() if control is None else control, self, Work()
        for turn in range(_ROUNDS):
            found: Any = None
            if len(rest.start) and method == "newton":
                rest, found = rest._in_trust_region(control, progress, work)
            if found is None or not found.converged:
                z = rest.start if found is None else found.theta
                found = minimize(rest, method, z, control, certify=False, progress=progress)
                work.add(found)
            y = rest.point(found.theta)
            if found.converged or turn == _ROUNDS - 1:
                break
            try:
                rest = Constrained(rest.whole, rest.equations, y)
            except FloatingPointError:
                break
        return replace(work.of(found), theta=y, gradient=None, hessian=None, trace=[])

    def _in_trust_region(self, control: Control, progress: Any, work: Work) -> tuple[Constrained, Any]:
        """A search in the trust region; the criterion it ended with, and its `Optimum`.

        Near a variance of zero average information says nothing of the way: a search that does not arrive
        with it goes on with exact second derivatives, unless they cost very much.
        """
        limited = replace(control, maxiter=min(control.limit(_LIMIT), _LIMIT))

        def go(rest: Constrained) -> Any:
            found = trust_region(
                rest.exact, rest.start, limited, rest.names, progress=progress, exact=rest.whole.exact
            )
            work.add(found)
            return found

        found = go(self)
        if found.converged or self.whole.exact:
            return self, found
        rest = Constrained(
            self.whole.exactly(), self.equations, self.point(found.theta), self.places.tolist()
        )
        return (rest, go(rest)) if rest.whole.exact else (self, found)

    def parts(self, y: np.ndarray) -> tuple[float, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """D, its gradient, the Hessian of the Lagrangian, T and F_e."""
        value, g, H = self.whole.second(y)
        _, slopes = self._f(y)
        e = self.places
        T = np.delete(np.eye(self.whole.size), e, axis=1)
        F_e = slopes[:, e]
        if not len(e):
            return value, g, H, T, F_e
        try:
            multipliers = np.linalg.solve(F_e.T, g[e])
            T[e] = -np.linalg.solve(F_e, np.delete(slopes, e, axis=1))
        except np.linalg.LinAlgError:
            raise Breakdown("the parameter does not move with its coordinate there") from None
        if not (np.isfinite(multipliers).all() and np.isfinite(T).all()):
            raise Breakdown("the parameter does not move with its coordinate there")
        return value, g, H - bending(self.whole, self.equations, y, multipliers), T, F_e


def bending(
    whole: UnprofiledCriterion, equations: Equations, y: np.ndarray, multipliers: np.ndarray
) -> np.ndarray:
    """Second derivatives of the functions times multipliers, shape (size, size)."""
    psi, tau = whole.psi(y), whole.tau(y)
    out = np.zeros((whole.size,) * 2)
    with np.errstate(all="ignore"):
        for function, multiplier in zip(equations.functions, multipliers.tolist(), strict=True):
            out += multiplier * function.curvature(psi, tau)[: whole.size, : whole.size]
    return np.where(np.isfinite(out), out, 0.0)


def feasible(whole: UnprofiledCriterion, equations: Equations, y: np.ndarray) -> np.ndarray:
    """A point near y that obeys the equations: Gauss-Newton steps of least length in units of y.

    Raises
    ------
    Breakdown
        None is found.
    """
    y = np.clip(np.asarray(y, dtype=float), whole.lower, whole.upper)
    units = whole.units
    for _ in range(200):
        values, slopes = equations.at(whole.psi(y), whole.tau(y))
        slopes = slopes[:, : whole.size] / units
        if not (np.isfinite(values).all() and np.isfinite(slopes).all()):
            break
        step = -np.linalg.lstsq(slopes, values, rcond=1e-12)[0]
        longest = float(np.max(np.abs(step), initial=0.0))
        if longest <= 1e-10:
            if np.all(np.abs(values) <= 1e-8 * (1.0 + np.abs(np.array(equations.values)))):
                return y
            break
        y = np.clip(y + step / units * min(1.0, 0.7 / longest), whole.lower, whole.upper)
    raise Breakdown("no parameters of the model have these values")


def tangent_basis(slopes: np.ndarray) -> np.ndarray:
    """Orthonormal columns that span the null space of the rows of slopes."""
    size = slopes.shape[1]
    rows = slopes[np.any(slopes != 0.0, axis=1)]
    if not len(rows):
        return np.eye(size)
    rows = rows / np.sqrt(np.sum(rows**2, axis=1))[:, None]
    _, values, vectors = np.linalg.svd(rows)
    rank = int(np.sum(values > _DEPENDENT * values[0]))
    return vectors[rank:].T
