"""The table of covariance structures: tag in a formula -> class, meaning, parameters."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from mixedmodels.covariance.base import Covariance
from mixedmodels.covariance.chain import (
    AntedependenceCorrelation,
    AutoregressiveCorrelation,
    ContinuousCorrelation,
)
from mixedmodels.covariance.diag import Diagonal
from mixedmodels.covariance.factor_analytic import FactorAnalytic, ReducedRank
from mixedmodels.covariance.homdiag import ScaledIdentity
from mixedmodels.covariance.known import Proportional
from mixedmodels.covariance.spatial import MaternCorrelation, SpatialCorrelation
from mixedmodels.covariance.structured import ScaledCorrelation
from mixedmodels.covariance.symmetric import ExchangeableCorrelation
from mixedmodels.covariance.toeplitz import ToeplitzCorrelation
from mixedmodels.covariance.us import Unstructured
from mixedmodels.errors import NotImplementedYetError, OptionError

__all__ = [
    "STRUCTURES",
    "StructureRow",
    "available_tags",
    "make_covariance",
    "planned_tags",
    "structures_table",
]


class StructureRow(NamedTuple):
    """One covariance structure.

    Attributes
    ----------
    tag : str
    make : callable
        ``make(k, **options) -> Covariance``.
    meaning : str
    parameters : str
        What is estimated, with the number of parameters for k columns.
    options : tuple of str
        Options that a formula may give.
    needs : {"", "times", "coordinates", "matrix"}
        What the structure is made of besides the number of columns; passed as an option of that name.
    """

    tag: str
    make: Callable[..., Any]
    meaning: str
    parameters: str
    options: tuple[str, ...] = ()
    needs: str = ""


def _scaled(tag: str, separate: bool, make: Callable[..., Any]) -> Callable[..., Any]:
    """A structure of standard deviations and a correlation; with one column a single variance."""

    def build(k: int, **options: Any) -> Covariance:
        return ScaledIdentity(1) if k == 1 else ScaledCorrelation(tag, make(k, **options), separate)

    return build


def _autoregressive(k: int, times: Any = None) -> AutoregressiveCorrelation:
    return AutoregressiveCorrelation(range(k) if times is None else times)


def _spatial(function: str) -> Callable[..., Any]:
    return lambda k, coordinates: SpatialCorrelation(function, coordinates)


def _matern(k: int, coordinates: Any, nu: Any = None) -> MaternCorrelation:
    return MaternCorrelation(coordinates, nu)


STRUCTURES: dict[str, StructureRow] = {
    row.tag: row
    for row in (
        StructureRow("us", Unstructured, "unstructured: every variance and correlation", "k(k+1)/2"),
        StructureRow("diag", Diagonal, "independent columns, separate variances", "k standard deviations"),
        StructureRow(
            "homdiag", ScaledIdentity, "independent columns, one variance", "one standard deviation"
        ),
        StructureRow("id", ScaledIdentity, "the same as homdiag", "one standard deviation"),
        StructureRow(
            "cs",
            _scaled("cs", True, ExchangeableCorrelation),
            "compound symmetry, separate variances",
            "k standard deviations, one correlation >= -1/(k-1)",
        ),
        StructureRow(
            "homcs",
            _scaled("homcs", False, ExchangeableCorrelation),
            "compound symmetry, one variance",
            "one standard deviation, one correlation >= -1/(k-1)",
        ),
        StructureRow(
            "ar1",
            _scaled("ar1", False, _autoregressive),
            "first-order autoregression in integer time, one variance",
            "one standard deviation, one correlation",
            needs="times",
        ),
        StructureRow(
            "hetar1",
            _scaled("hetar1", True, _autoregressive),
            "first-order autoregression in integer time, separate variances",
            "k standard deviations, one correlation",
            needs="times",
        ),
        StructureRow(
            "car1",
            _scaled("car1", False, lambda k, times: ContinuousCorrelation(times, "cor")),
            "continuous first-order autoregression in real time",
            "one standard deviation, the correlation at distance one",
            needs="times",
        ),
        StructureRow(
            "ou",
            _scaled("ou", False, lambda k, times: ContinuousCorrelation(times, "rate")),
            "Ornstein-Uhlenbeck process: car1 in terms of the rate of decay",
            "one standard deviation, the rate",
            needs="times",
        ),
        StructureRow(
            "toep",
            _scaled("toep", True, ToeplitzCorrelation),
            "Toeplitz: one correlation for each lag, separate variances",
            "k standard deviations, k-1 correlations",
        ),
        StructureRow(
            "homtoep",
            _scaled("homtoep", False, ToeplitzCorrelation),
            "Toeplitz: one correlation for each lag, one variance",
            "one standard deviation, k-1 correlations",
        ),
        StructureRow(
            "ad",
            _scaled("ad", True, AntedependenceCorrelation),
            "antedependence of order one, separate variances",
            "k standard deviations, k-1 correlations of neighbours",
        ),
        StructureRow(
            "exp",
            _scaled("exp", False, _spatial("exp")),
            "exponential decay with distance, exp(-d/r)",
            "one standard deviation, the range r",
            needs="coordinates",
        ),
        StructureRow(
            "gau",
            _scaled("gau", False, _spatial("gau")),
            "Gaussian decay with distance, exp(-(d/r)^2)",
            "one standard deviation, the range r",
            needs="coordinates",
        ),
        StructureRow(
            "sph",
            _scaled("sph", False, _spatial("sph")),
            "spherical: 1 - 1.5 d/r + 0.5 (d/r)^3 within the range",
            "one standard deviation, the range r",
            needs="coordinates",
        ),
        StructureRow(
            "ratio",
            _scaled("ratio", False, _spatial("ratio")),
            "rational quadratic, 1/(1 + (d/r)^2)",
            "one standard deviation, the range r",
            needs="coordinates",
        ),
        StructureRow(
            "mat",
            _scaled("mat", False, _matern),
            "Matern, K_nu(d/r) (d/r)^nu 2^(1-nu)/Gamma(nu)",
            "one standard deviation, the range r, the smoothness nu unless given",
            ("nu",),
            needs="coordinates",
        ),
        StructureRow(
            "rr", ReducedRank, "reduced rank d (default 2): loadings only", "d(2k-d+1)/2 loadings", ("d",)
        ),
        StructureRow(
            "fa",
            FactorAnalytic,
            "factor analytic: d factors (default 1) and specific variances",
            "d(2k-d+1)/2 loadings, k standard deviations",
            ("d",),
        ),
        StructureRow(
            "propto",
            lambda k, matrix: Proportional(matrix),
            "proportional to a known matrix between the columns",
            "one standard deviation",
            ("matrix",),
            needs="matrix",
        ),
    )
}

_PLANNED: dict[str, str] = {
    "equalto": "equal to a known matrix; use propto, whose one variance is estimated",
}


def structures_table() -> str:
    """The table of structures in Markdown, as in ``docs/structures.md``."""
    lines = ["| tag | meaning | parameters | options |", "|---|---|---|---|"]
    for row in STRUCTURES.values():
        options = ", ".join(f"`{name}`" for name in row.options)
        lines.append(f"| `{row.tag}` | {row.meaning} | {row.parameters} | {options} |")
    return "\n".join(lines)


def available_tags() -> tuple[str, ...]:
    """Tags of the structures this version fits."""
    return tuple(STRUCTURES)


def planned_tags() -> tuple[str, ...]:
    """Tags that are understood in a formula but not fitted by this version."""
    return tuple(_PLANNED)


def make_covariance(tag: str, k: int, **options: Any) -> Covariance:
    """Covariance structure for a tag and a number of columns.

    Instances are immutable and shared: the same tag, k and options give the same object.

    Parameters
    ----------
    tag : str
        A tag of `available_tags`.
    k : int
        Columns of the term, at least 1.
    **options
        What the structure takes: ``d`` (rr, fa), ``nu`` (mat), ``times`` (ar1, hetar1, car1, ou),
        ``coordinates`` (exp, gau, sph, ratio, mat), ``matrix`` (propto).

    Returns
    -------
    Covariance

    Raises
    ------
    NotImplementedYetError
        The tag is known but this version does not fit it.
    OptionError
        The tag is unknown, k is not a positive integer, or an option is not taken or missing.

    Examples
    --------
    >>> from mixedmodels.covariance import make_covariance
    >>> make_covariance("us", 3).n_theta
    6
    >>> make_covariance("ar1", 4).factor([1.0, 0.0]).round(1).tolist()[1]
    [0.0, 1.0, 0.0, 0.0]
    """
    if tag in _PLANNED:
        raise NotImplementedYetError(
            f"covariance structure {tag!r} ({_PLANNED[tag]}) cannot be fitted by this version; "
            f"available: {', '.join(STRUCTURES)}"
        )
    row = STRUCTURES.get(tag)
    if row is None:
        raise OptionError(f"unknown covariance structure {tag!r}; available: {', '.join(STRUCTURES)}")
    if int(k) != k or k < 1:
        raise OptionError(f"a random-effects term needs at least one column, got k = {k!r}")
    if not options:
        if row.needs in ("coordinates", "matrix") or tag in ("car1", "ou"):
            raise OptionError(f"covariance structure {tag!r} needs {row.needs}")
        return _cached(tag, int(k))
    taken = {*row.options, row.needs} - {""}
    wrong = sorted(set(options) - taken)
    if wrong:
        names = f"takes {' and '.join(sorted(taken))}" if taken else "takes no option"
        raise OptionError(
            f"covariance structure {tag!r} {names}, got {', '.join(wrong)}; leave it out "
            "(parameters are held by fixed=)"
        )
    for name in ("times", "coordinates", "matrix"):
        if name in options and np.shape(options[name])[0] != k:
            raise OptionError(
                f"the {name} of {tag!r} have {np.shape(options[name])[0]} rows for {k} columns of the term"
            )
    return row.make(int(k), **options)


@lru_cache(maxsize=256)
def _cached(tag: str, k: int) -> Covariance:
    return STRUCTURES[tag].make(k)
