r"""What a family of distributions provides: the log-density of one observation and everything read off it.

The density of observation i depends on the linear predictors of the family's `predictors`,

.. math:: \log f(y_i \mid \eta_{i1}, \ldots, \eta_{iC}),

the conditional one first (the mean, through the link), then for instance the log-dispersion, the logit of
extra zeros, a threshold or a shape parameter: what other software treats as separate kinds of parameters is
here one more linear predictor, often with a constant as its only column.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from mixedmodels.family.jet import Jet, count, variables
from mixedmodels.family.links import Link, get_link

__all__ = ["Family", "Observations"]


@dataclass(frozen=True, slots=True, eq=False)
class Observations:
    """Responses of the rows in the likelihood.

    Attributes
    ----------
    y : ndarray of float64, shape (n,)
        Response; for binomial families the number of successes, for ordinal ones the category 0, 1, ...
    trials : ndarray of float64, shape (n,), or None
        Number of trials of binomial families; None stands for one each.
    weights : ndarray of float64, shape (n,), or None
        Multipliers of the log-density (how often a row occurred).
    levels : tuple
        Labels of the categories of a factor response.
    constants : dict
        What a family keeps about the rows (``lgamma(y + 1)`` and the like), filled on first use.
    """

    y: np.ndarray
    trials: np.ndarray | None = None
    weights: np.ndarray | None = None
    levels: tuple = ()
    constants: dict[str, Any] = field(default_factory=dict)

    @property
    def n(self) -> int:
        """Number of rows."""
        return self.y.shape[0]

    def with_y(self, y: np.ndarray) -> Observations:
        """The same rows with another response."""
        return replace(self, y=y, constants={})

    def constant(self, name: str, compute: Any) -> Any:
        """The cached constant `name`."""
        if name not in self.constants:
            self.constants[name] = compute()
        return self.constants[name]


class Family:
    """A family of distributions with a link; subclass it for one of your own.

    A subclass sets the class attributes and writes `log_density` with `mixedmodels.family.functions`;
    derivatives follow from it. Overriding `derivatives` is for speed only.

    Parameters
    ----------
    link : str or Link, optional
        Default: the first of `links`.

    Attributes
    ----------
    name : str
    links : tuple of str
        Names of the links it takes, the default first.
    predictors : tuple of str
        Names of the linear predictors, ``"conditional"`` first; ``"dispersion"`` and ``"zero_inflation"`` may
        have formulas, all others are one parameter each.
    response : {"number", "count", "successes", "categories"}
        What the response is: a number, a count, successes out of trials, or one of several categories.
    kernel : int
        Code of the compiled density, 0 for none.
    """

    name: ClassVar[str] = ""
    links: ClassVar[tuple[str, ...]] = ("identity",)
    predictors: tuple[str, ...] = ("conditional",)
    response: str = "number"
    kernel: int = 0

    def __init__(self, link: Any = None) -> None:
        self.link: Link = get_link(self.links[0] if link is None else link, self.links, self.name)

    # ------------------------------------------------------------------ the density
    def log_density(self, data: Observations, eta: Sequence[Any]) -> Any:
        """Log-density of each row with all constants, weights not applied.

        Parameters
        ----------
        data : Observations
        eta : sequence of ndarray or Jet, one per predictor
        """
        raise NotImplementedError

    def derivatives(
        self, data: Observations, eta: Sequence[np.ndarray], order: int, active: Sequence[int] = (0,)
    ) -> np.ndarray:
        """Log-density of each row, times its weight, and its partial derivatives.

        Parameters
        ----------
        data : Observations
        eta : sequence of ndarray, one (n,) per predictor
        order : int
            Total order, up to 4.
        active : sequence of int
            Predictors to differentiate with respect to.

        Returns
        -------
        ndarray, shape (count(len(active), order), n)
            In the order of `mixedmodels.family.jet.indices`; not finite where a mean is out of its range.
        """
        with np.errstate(all="ignore"):
            result = self.log_density(data, variables(eta, active, order))
        if not isinstance(result, Jet):
            result = Jet([result, *([None] * (count(len(active), order) - 1))], len(active), order)
        table = result.table(data.n)
        if data.weights is not None:
            table *= data.weights
        return table

    # ------------------------------------------------------------------ moments, on arrays
    def mean(self, eta: Sequence[np.ndarray]) -> np.ndarray:
        """Expected response (of a proportion for binomial families), shape (n,)."""
        with np.errstate(all="ignore"):
            return np.asarray(self.link.inverse(np.asarray(eta[0])))

    def variance(self, data: Observations, eta: Sequence[np.ndarray]) -> np.ndarray:
        """Variance of the response given the linear predictors (of the count, not the proportion)."""
        raise NotImplementedError

    def draw(self, data: Observations, eta: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
        """One response per row."""
        raise NotImplementedError

    def cdf(self, data: Observations, eta: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """``P(Y < y)`` and ``P(Y <= y)`` of each row, for randomised quantile residuals."""
        raise NotImplementedError

    def expected_weight(self, data: Observations, eta: Sequence[np.ndarray], order: int) -> np.ndarray:
        """Expected information ``E[-d2 log f/d eta2]`` of each row and its derivatives to `order`."""
        raise NotImplementedError

    def check_response(self, data: Observations) -> None:
        """Raise one `DataError` if responses are impossible under the family."""

    # ------------------------------------------------------------------ starts
    def start(self, data: Observations) -> tuple[np.ndarray, ...]:
        """Linear predictors to begin from: one per row for the conditional one, a number for the others."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"{self.name}({self.link.name})"
