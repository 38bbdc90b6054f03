"""A raw result of a search, before it becomes an Optimum."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from mixedmodels.optimize.optimum import Status

__all__ = ["Run"]


@dataclass
class Run:
    """What a search found and what it cost; gradient and Hessian are empty until they are known."""

    theta: np.ndarray
    value: float = math.inf
    gradient: np.ndarray = field(default_factory=lambda: np.zeros(0))
    hessian: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    status: Status = Status.MAXITER
    iterations: int = 0
    evaluations: int = 0
    gradient_evaluations: int = 0
    decrement: float = math.nan
    escapes: int = 0
    trace: list[tuple[int, np.ndarray, float]] = field(default_factory=list)
    table: np.ndarray | None = None  # the trace of a compiled search: rows (iteration, value, theta...)
    note: str = ""
