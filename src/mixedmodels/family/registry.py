"""The table of families by name."""

from __future__ import annotations

from typing import Any

from mixedmodels.errors import OptionError
from mixedmodels.family.base import Family
from mixedmodels.family.beta import Beta
from mixedmodels.family.betabinomial import BetaBinomial
from mixedmodels.family.binomial import Binomial
from mixedmodels.family.com_poisson import ComPoisson
from mixedmodels.family.cumulative import Cumulative
from mixedmodels.family.gamma import Gamma
from mixedmodels.family.gaussian import Gaussian
from mixedmodels.family.generalised_poisson import GeneralisedPoisson
from mixedmodels.family.inverse_gaussian import InverseGaussian
from mixedmodels.family.lognormal import Lognormal
from mixedmodels.family.negative_binomial import NegativeBinomial, NegativeBinomial1
from mixedmodels.family.ordered_beta import OrderedBeta
from mixedmodels.family.poisson import Poisson
from mixedmodels.family.student import Student
from mixedmodels.family.truncated import (
    TruncatedGeneralisedPoisson,
    TruncatedNegativeBinomial,
    TruncatedNegativeBinomial1,
    TruncatedPoisson,
)
from mixedmodels.family.tweedie import Tweedie

__all__ = ["ALIASES", "FAMILIES", "get_family"]

FAMILIES: dict[str, type[Family]] = {
    family.name: family
    for family in (
        Gaussian,
        Cumulative,
        Binomial,
        Poisson,
        Gamma,
        InverseGaussian,
        Lognormal,
        NegativeBinomial,
        NegativeBinomial1,
        Beta,
        BetaBinomial,
        ComPoisson,
        GeneralisedPoisson,
        OrderedBeta,
        Student,
        TruncatedGeneralisedPoisson,
        TruncatedNegativeBinomial,
        TruncatedNegativeBinomial1,
        TruncatedPoisson,
        Tweedie,
    )
}

# Names that other software uses.
ALIASES = {
    "ordinal": "cumulative",
    "normal": "gaussian",
    "bernoulli": "binomial",
    "Gamma": "gamma",
    "inverse.gaussian": "inverse_gaussian",
    "nbinom2": "negative_binomial",
    "nb2": "negative_binomial",
    "nbinom": "negative_binomial",
    "nb1": "nbinom1",
    "negative_binomial1": "nbinom1",
    "beta_family": "beta",
    "beta_binomial": "betabinomial",
    "compois": "com_poisson",
    "generalized_poisson": "generalised_poisson",
    "genpois": "generalised_poisson",
    "ordbeta": "ordered_beta",
    "t": "student",
    "t_family": "student",
    "truncated_nbinom2": "truncated_negative_binomial",
    "truncated_genpois": "truncated_generalised_poisson",
}


def get_family(family: Any, link: Any = None) -> Family:
    """The family of a name, class or object.

    Raises
    ------
    OptionError
        Unknown family or link.
    """
    if isinstance(family, Family):
        return family if link is None else type(family)(link)
    if isinstance(family, type) and issubclass(family, Family):
        return family(link)
    name = ALIASES.get(family, family) if isinstance(family, str) else None
    if name not in FAMILIES:
        raise OptionError(f"there is no family {family!r}; available: {', '.join(sorted(FAMILIES))}")
    return FAMILIES[name](link)
