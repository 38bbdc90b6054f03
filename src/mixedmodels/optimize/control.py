"""Options of an optimisation."""

from __future__ import annotations

from dataclasses import dataclass, fields
from numbers import Real
from typing import Any

from mixedmodels.errors import OptionError

__all__ = ["Control", "control_of"]


@dataclass(frozen=True, slots=True)
class Control:
    """Options of an optimisation.

    Parameters
    ----------
    maxiter : int, optional
        Largest number of iterations; by default 200 for Newton and the scoring methods, 1000 for L-BFGS-B,
        5000 for EM and 10000 evaluations for the derivative-free methods.
    tol : float
        Largest predicted decrease 1/2 g'H^{-1}g that counts as converged, in units of the criterion
        (deviance units): it needs no scaling. Derivative-free methods stop when their simplex or trust
        region is this good.
    max_seconds : float, optional
        Stop after this time with the best point so far.
    cap : float
        Longest step, as a multiple of the largest parameter.
    snap : float
        Parameters at most this far from a bound (relative to the largest parameter) are tried exactly on it.
    escapes : int
        How often a saddle point may be left.
    grid : tuple of float
        Factors of the start that the "grid" method tries.
    trace : bool
        Keep (iteration, theta, value) of every iteration.

    Raises
    ------
    OptionError
        If an option is out of range.

    Examples
    --------
    >>> Control(tol=1e-6).tol
    1e-06
    """

    maxiter: int | None = None
    tol: float = 1e-9
    max_seconds: float | None = None
    cap: float = 10.0
    snap: float = 1e-4
    escapes: int = 8
    grid: tuple[float, ...] = (0.01, 0.1, 0.5, 1.0, 2.0, 10.0)
    trace: bool = True

    def __post_init__(self) -> None:
        for name in ("maxiter", "tol", "max_seconds", "cap", "snap", "escapes"):
            value = getattr(self, name)
            if not isinstance(value, Real) and (value is not None or name not in ("maxiter", "max_seconds")):
                raise OptionError(f"{name} must be a number, not {value!r}")
        if self.maxiter is not None and (self.maxiter != int(self.maxiter) or self.maxiter < 0):
            raise OptionError(f"maxiter must be a whole number >= 0, not {self.maxiter!r}")
        if not self.tol > 0:
            raise OptionError(f"tol must be positive, not {self.tol!r}; the default is 1e-9 deviance units")
        if self.max_seconds is not None and not self.max_seconds > 0:
            raise OptionError(f"max_seconds must be positive, not {self.max_seconds!r}; None means no limit")
        if not self.cap > 0 or not self.snap >= 0 or not self.escapes >= 0:
            raise OptionError("cap must be positive, snap and escapes must not be negative")
        if not self.grid or not all(factor > 0 for factor in self.grid):
            raise OptionError(f"grid must hold positive factors, not {self.grid!r}")

    def limit(self, default: int) -> int:
        """`maxiter`, or the default of a method."""
        return default if self.maxiter is None else int(self.maxiter)


def control_of(options: Any) -> Control:
    """A `Control` from itself or a dict of its options.

    Raises
    ------
    OptionError
        Something else, an unknown option or a value of the wrong type.
    """
    if isinstance(options, Control):
        return options
    if not isinstance(options, dict):
        raise OptionError(f"control must be a Control or a dict of its options, got {options!r}")
    names = [field.name for field in fields(Control)]
    for name in options:
        if name not in names:
            raise OptionError(f"control has no option {name!r}; available: {', '.join(names)}")
    try:
        return Control(**options)
    except TypeError:
        raise OptionError(f"control holds a value of the wrong type: {options!r}") from None
