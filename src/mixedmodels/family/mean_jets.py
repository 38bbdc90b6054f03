"""The mean of a response with its derivatives by all linear predictors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mixedmodels.errors import OptionError
from mixedmodels.family.base import Family, Observations
from mixedmodels.family.functions import exp, log_expit
from mixedmodels.family.jet import Jet, variables
from mixedmodels.family.ordered_beta import OrderedBeta
from mixedmodels.family.truncated import Truncated, zero_log_density
from mixedmodels.family.zero import Hurdle, ZeroInflated

__all__ = ["has_plain_mean", "mean_derivatives"]


def has_plain_mean(family: Family) -> bool:
    """Whether the mean is the inverse link of the conditional predictor alone."""
    special = (ZeroInflated, Hurdle, Truncated, OrderedBeta)
    return family.response != "categories" and not isinstance(family, special)


def mean_derivatives(family: Family, eta: np.ndarray, order: int) -> np.ndarray:
    r"""Mean response and its partial derivatives by the linear predictors.

    .. math:: (1 - \pi)\,\mu \quad\text{(mixtures with zeros and hurdles)}, \qquad
              \mu / (1 - f(0)) \quad\text{(truncated)}, \qquad g^{-1}(\eta) \quad\text{(others)}

    Parameters
    ----------
    family : Family
    eta : ndarray, shape (C, n)
        All linear predictors.
    order : int
        Total order, up to 3.

    Returns
    -------
    ndarray, shape (count(C, order), n)
        In the order of `mixedmodels.family.jet.indices`.

    Raises
    ------
    OptionError
        The response is a category.
    """
    C, n = eta.shape
    with np.errstate(all="ignore"):
        mean = _mean(family, variables(list(eta), tuple(range(C)), order), n)
        if not isinstance(mean, Jet):
            raise OptionError(f"the mean of family {family.name!r} cannot be differentiated")
        return mean.table(n)


def _mean(family: Any, eta: Sequence[Any], n: int) -> Any:
    if family.response == "categories":
        raise OptionError("the response is a category and has no mean")
    if isinstance(family, (ZeroInflated, Hurdle)):
        return exp(log_expit(-eta[-1])) * _mean(family.base, eta[:-1], n)
    if isinstance(family, Truncated):
        zero = exp(zero_log_density(family.base, Observations(np.zeros(n)), eta))
        return _mean(family.base, eta, n) / (1.0 - zero)
    if isinstance(family, OrderedBeta):
        x, _, low, gap = eta
        high = low + exp(gap)
        one, zero = exp(log_expit(x - high)), exp(log_expit(low - x))
        return one + (1.0 - zero - one) * exp(log_expit(x))
    return family.link.inverse(eta[0])
