r"""What a family of distributions provides: the log-density of one observation and everything read off it.

The density of observation i depends on the linear predictors of the family's `predictors`,

.. math:: \log f(y_i \mid \eta_{i1}, \ldots, \eta_{iC}),

the conditional one first (the mean, through the link), then for instance the log-dispersion, the logit of
extra zeros, a threshold or a shape parameter: what other software treats as separate kinds of parameters is
here one more linear predictor, often with a constant as its only column.

The dispersion predictor is the logarithm of one natural parameter per family, chosen so that its coefficients
are those of the dispersion model of glmmTMB (from 1.1.9 on; before, the Gaussian's were those of the log
variance, twice ours):

====================  ====================  =====================================  =======================
family                natural parameter     variance                               R's ``sigma()``
====================  ====================  =====================================  =======================
gaussian              SD sigma              sigma^2                                sigma
gamma                 shape a               mu^2 / a                               1 / sqrt(a)
inverse_gaussian      dispersion phi        phi mu^3                               sqrt(phi)
lognormal             SD s of log y         mu^2 (exp(s^2) - 1)                    s (glmmTMB: the SD of y)
negative_binomial     size theta            mu + mu^2 / theta                      theta
nbinom1               dispersion phi        mu (1 + phi)                           phi
beta                  precision phi         mu (1 - mu) / (1 + phi)                phi
betabinomial          precision phi         m mu (1 - mu) (phi + m) / (phi + 1)    phi
ordered_beta          precision phi         see `OrderedBeta`                      phi
generalised_poisson   dispersion phi        mu phi                                 phi
com_poisson           dispersion phi        see `ComPoisson`                       phi
tweedie               dispersion phi        phi mu^p                               phi
student               scale sigma           sigma^2 df / (df - 2)                  sigma
====================  ====================  =====================================  =======================
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from mixedmodels.errors import OptionError
from mixedmodels.family.jet import Jet, count, variables
from mixedmodels.family.links import LINKS, Link, get_link

__all__ = ["Family", "Observations"]


@dataclass(frozen=True, slots=True, eq=False)
class Observations:
    """Responses of the rows in the likelihood.

    Attributes
    ----------
    y : ndarray of float64, shape (n,)
        Response; for binomial families the number of successes, for ordinal ones the category 1, 2, ...
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
    r"""A family of distributions with a link; subclass it for one of your own.

    A subclass sets the class attributes and writes `log_density` with the functions of
    `mixedmodels.family.functions`; all derivatives follow from it. `start` should give rough linear
    predictors to begin from (default: the link of the response, shrunk to its mean, and zeros).
    `check_response`, `variance`, `draw`, `cdf`, `expected_weight` and `unit_deviance` serve the methods of a
    fit that need them.

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
    dispersion_name : str
        What the exponential of the dispersion predictor is; empty without one.
    kernels : dict
        Codes of compiled densities by name of the link.
    kernel : int
        Code of the compiled density of this link, 0 for none.

    Examples
    --------
    The exponential distribution, :math:`\log f = -\log\mu - y/\mu`:

    >>> import numpy as np
    >>> from mixedmodels.family import Family, Observations
    >>> from mixedmodels.family.functions import exp
    >>> class Exponential(Family):
    ...     name = "exponential"
    ...     links = ("log",)
    ...
    ...     def log_density(self, data, eta):
    ...         return -eta[0] - data.y * exp(-eta[0])
    >>> rows = Observations(np.array([1.0, 3.0]))
    >>> Exponential().derivatives(rows, [np.zeros(2)], 2)
    array([[-1., -3.],
           [ 0.,  2.],
           [-1., -3.]])

    or, from the function alone,

    >>> exponential = Family.from_functions(
    ...     "exponential", lambda data, eta: -eta[0] - data.y * exp(-eta[0]), links=("log",)
    ... )
    >>> exponential.derivatives(rows, [np.zeros(2)], 1)
    array([[-1., -3.],
           [ 0.,  2.]])
    """

    name: ClassVar[str] = ""
    links: ClassVar[tuple[str, ...]] = ("identity",)
    predictors: tuple[str, ...] = ("conditional",)
    response: str = "number"
    dispersion_name: str = ""
    kernels: ClassVar[dict[str, int]] = {}
    kernel: int = 0

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        if "log_density" in cls.__dict__ and "kernels" not in cls.__dict__:
            cls.kernels = {}  # the compiled density is that of the parent

    def __init__(self, link: Any = None) -> None:
        self.link: Link = get_link(self.links[0] if link is None else link, self.links, self.name)
        if self.link is LINKS.get(self.link.name):
            self.kernel = self.kernels.get(self.link.name, 0)

    @staticmethod
    def from_functions(
        name: str,
        log_density: Callable[[Observations, Sequence[Any]], Any],
        links: tuple[str, ...] = ("identity",),
        predictors: tuple[str, ...] = ("conditional",),
        link: Any = None,
        **functions: Callable[..., Any],
    ) -> Family:
        """A family from its log-density, without writing a class.

        Parameters
        ----------
        name : str
        log_density : callable
            ``log_density(data, eta)``, as the method.
        links, predictors : tuple of str
        link : str or Link, optional
        **functions
            Any other method, without ``self``: ``start(data)``, ``variance(data, eta)``,
            ``draw(data, eta, rng)``, ``mean(eta)``, ``cdf(data, eta)``, ...

        Raises
        ------
        OptionError
            A function that is no method of a family.
        """
        body: dict[str, Any] = {"name": name, "links": tuple(links), "predictors": tuple(predictors)}
        for method, function in {"log_density": log_density, **functions}.items():
            if method.startswith("_") or not callable(getattr(Family, method, None)):
                raise OptionError(f"family {name!r}: {method!r} is no method of a family")
            if not callable(function):
                raise OptionError(f"family {name!r}: {method} must be a function")
            body[method] = staticmethod(function)
        return type(name, (Family,), body)(link)

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
        if self.kernel:
            table = self._compiled(data, eta, order, tuple(active))
            if table is not None:
                return table
        return self.jets(data, eta, order, active)

    def jets(
        self, data: Observations, eta: Sequence[np.ndarray], order: int, active: Sequence[int] = (0,)
    ) -> np.ndarray:
        """What `derivatives` returns, always from `log_density` by Taylor arithmetic."""
        with np.errstate(all="ignore"):
            result = self.log_density(data, variables(eta, active, order))
            if not isinstance(result, Jet):
                result = Jet([result, *([None] * (count(len(active), order) - 1))], len(active), order)
            table = result.table(data.n)
            if data.weights is not None:
                table *= data.weights
        return table

    def _compiled(
        self, data: Observations, eta: Sequence[np.ndarray], order: int, active: tuple[int, ...]
    ) -> np.ndarray | None:
        """The table from the compiled density; None for derivatives it does not write."""
        if active not in ((0,), tuple(range(len(self.predictors)))):
            return None
        from mixedmodels.solver._kernels.densities import table

        rows = [_contiguous(part, data.n) for part in eta]
        other = [None if a is None else _contiguous(a, data.n) for a in (data.trials, data.weights)]
        constant = self.kernel_constant(data)
        y = _contiguous(data.y, data.n)
        return table(self.kernel, y, *other, constant, rows, order, active == (0,) and len(rows) > 1)

    def kernel_constant(self, data: Observations) -> np.ndarray | None:
        """What the compiled density adds to the value of each row, shape (n,); None for zero."""
        return None

    # ------------------------------------------------------------------ coefficients beside the predictors
    def response_columns(self, data: Observations) -> tuple[tuple[str, ...], dict[str, np.ndarray]] | None:
        """Columns of predictors that depend on the response: thresholds of ordered categories.

        Returns
        -------
        (names, columns) or None
            Names of the coefficients, and the columns of each predictor that holds all of them.
        """
        return None

    def at(self, design: Any, gamma: np.ndarray) -> Family:
        """The family with what its moments and draws need of the coefficients beside the linear predictors.

        Parameters
        ----------
        design : GeneralisedDesign
        gamma : ndarray
            Coefficients of all predictors.
        """
        return self

    # ------------------------------------------------------------------ dispersion
    def natural(self, delta: np.ndarray) -> np.ndarray:
        """The natural dispersion parameter ``exp(delta)``; the module's table says which it is."""
        return np.exp(delta)

    def sigma(self, delta: np.ndarray) -> np.ndarray:
        """What R's ``sigma()`` returns at a dispersion predictor."""
        return self.natural(delta)

    # ------------------------------------------------------------------ moments, on arrays
    def mean(self, eta: Sequence[np.ndarray]) -> np.ndarray:
        """Expected response (of a proportion for binomial families), shape (n,)."""
        with np.errstate(all="ignore"):
            return np.asarray(self.link.inverse(np.asarray(eta[0])))

    def expected(self, eta: Sequence[Any]) -> Any:
        """What `mean` returns, on arrays and jets: standard errors of means follow from its derivatives."""
        return self.link.inverse(eta[0]) if type(self).mean is Family.mean else self.mean(eta)

    def variance(self, data: Observations, eta: Sequence[np.ndarray]) -> np.ndarray:
        """Variance of the response given the linear predictors (of the count, not the proportion)."""
        raise OptionError(f"family {self.name!r} has no variance function")

    def draw(self, data: Observations, eta: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
        """One response per row."""
        raise OptionError(f"family {self.name!r} cannot draw responses: it has no `draw`")

    def cdf(self, data: Observations, eta: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """``P(Y < y)`` and ``P(Y <= y)`` of each row, for randomised quantile residuals.

        Counts are summed up to y; other families write it.
        """
        if self.response in ("count", "successes"):
            from mixedmodels.family.summation import counted_cdf

            return counted_cdf(self, data, eta)
        raise OptionError(f"family {self.name!r} has no distribution function")

    def expected_weight(
        self, data: Observations, eta: Sequence[np.ndarray], order: int, active: Sequence[int] = (0,)
    ) -> np.ndarray:
        """Expected information ``E[-d2 log f/d eta2]`` of the conditional predictor and its derivatives.

        Times the weight of the row. For families with a variance function it is ``(d mu/d eta)^2 / V``.

        Parameters
        ----------
        data : Observations
        eta : sequence of ndarray, one (n,) per predictor
        order : int
            Total order of the derivatives, up to 3.
        active : sequence of int
            Predictors to differentiate with respect to, 0 among them.

        Returns
        -------
        ndarray, shape (count(len(active), order), n)

        Raises
        ------
        OptionError
            It has no closed form.
        """
        with np.errstate(all="ignore"):
            values = variables(eta, active, order + 1)
            mean = self.link.log_mean(values[0])
            if not isinstance(mean, Jet):
                raise OptionError("the conditional predictor must be among the active ones")
            jets = variables(eta, active, order)
            result = self.information(data, jets, mean.partial(list(active).index(0)))
            table = result.table(data.n)
            if data.weights is not None:
                table *= data.weights
        return table

    def information(self, data: Observations, eta: Sequence[Any], slope: Any) -> Any:
        """Expected information of each row from ``slope``, the derivative of the log mean (jets)."""
        raise OptionError(
            f'information="expected" is not available for family {self.name!r}: it has no closed form; '
            f'use information="observed"'
        )

    def unit_deviance(self, data: Observations, eta: Sequence[np.ndarray]) -> np.ndarray:
        """Contribution of each row to the deviance, as R's families define it (unscaled), shape (n,)."""
        raise OptionError(
            f"deviance residuals are not defined for family {self.name!r}; take 'pearson' or 'quantile' ones"
        )

    # ------------------------------------------------------------------ responses and starts
    def check_response(self, data: Observations) -> None:
        """Refuse responses outside the support.

        Raises
        ------
        DataError
        """

    def start(self, data: Observations) -> tuple[np.ndarray, ...]:
        """Linear predictors to begin from: one per row for the conditional one, a number for the others."""
        with np.errstate(all="ignore"):
            eta = np.asarray(self.link.forward(0.5 * (data.y + data.y.mean())), dtype=float)
        eta = np.where(np.isfinite(eta), eta, 0.0)
        return (eta, *([np.zeros(())] * (len(self.predictors) - 1)))

    def __repr__(self) -> str:
        return f"{self.name}({self.link.name})"


def _contiguous(part: Any, n: int) -> np.ndarray:
    if type(part) is np.ndarray and part.shape == (n,) and part.dtype == np.float64:
        return np.ascontiguousarray(part)
    return np.ascontiguousarray(np.broadcast_to(np.asarray(part, dtype=float), (n,)))
