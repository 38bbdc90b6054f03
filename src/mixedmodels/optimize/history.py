"""The course of a search, step by step, with what was rejected."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

__all__ = ["History", "Recorder"]


@dataclass(frozen=True, slots=True, eq=False)
class History:
    """Every step a search tried.

    Attributes
    ----------
    names : tuple of str
        Names of the parameters.
    iteration : ndarray of int, shape (N,)
    step : tuple of str
        How the point was found: "start", "fisher", "newton", "average", "em", "ecme", "grid", ...
    loglik : ndarray, shape (N,)
        Log-likelihood (restricted, or log posterior) at the point; NaN outside the parameter space.
    values : ndarray, shape (N, parameters)
    length : ndarray, shape (N,)
        Fraction of the full step; NaN where there is none.
    accepted : ndarray of bool, shape (N,)
    gradient : ndarray, shape (N,)
        Norm of the score; NaN where it was not computed.
    decrement : ndarray, shape (N,)
        Predicted decrease of minus twice the log-likelihood by a step from here; NaN where not computed.
    """

    names: tuple[str, ...]
    iteration: np.ndarray
    step: tuple[str, ...]
    loglik: np.ndarray
    values: np.ndarray
    length: np.ndarray
    accepted: np.ndarray
    gradient: np.ndarray
    decrement: np.ndarray

    def __len__(self) -> int:
        return len(self.step)

    def columns(self) -> dict[str, np.ndarray]:
        """The history as columns of a table, one column per parameter."""
        return {
            "iteration": self.iteration,
            "step": np.array(self.step, dtype=object),
            "loglik": self.loglik,
            **{name: self.values[:, j] for j, name in enumerate(self.names)},
            "length": self.length,
            "accepted": self.accepted,
            "gradient": self.gradient,
            "decrement": self.decrement,
        }


@dataclass(slots=True)
class Recorder:
    """Collects the rows of a `History`."""

    names: tuple[str, ...]
    rows: list[list] = field(default_factory=list)

    def add(
        self,
        iteration: int,
        step: str,
        loglik: float,
        values: np.ndarray,
        length: float = np.nan,
        accepted: bool = True,
    ) -> None:
        """One point.

        Parameters
        ----------
        iteration : int
        step : str
        loglik : float
        values : ndarray, shape (parameters,)
        length : float
        accepted : bool
            As in `History`.
        """
        self.rows.append([iteration, step, float(loglik), np.array(values), length, accepted, np.nan, np.nan])

    def slope(self, gradient: float, decrement: float) -> None:
        """Norm of the score and predicted decrease at the last point accepted."""
        for row in reversed(self.rows):
            if row[5]:
                row[6:] = [float(gradient), float(decrement)]
                return

    def history(self) -> History:
        """What was collected."""
        columns = list(zip(*self.rows, strict=True))
        arrays = [np.array(columns[i], dtype=float) for i in (2, 4, 6, 7)]
        return History(
            names=self.names,
            iteration=np.array(columns[0], dtype=int),
            step=tuple(columns[1]),
            loglik=arrays[0],
            values=np.array(columns[3], dtype=float).reshape(len(self.rows), len(self.names)),
            length=arrays[1],
            accepted=np.array(columns[5], dtype=bool),
            gradient=arrays[2],
            decrement=arrays[3],
        )
