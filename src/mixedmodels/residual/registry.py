"""The table of residual structures, from which parser, documentation and tests are derived."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from mixedmodels.errors import OptionError
from mixedmodels.residual.ad import Antedependence
from mixedmodels.residual.ar1 import AR1
from mixedmodels.residual.arma import ARMA
from mixedmodels.residual.car1 import CAR1
from mixedmodels.residual.cs import CompoundSymmetry
from mixedmodels.residual.known import Known
from mixedmodels.residual.loglin import LogLinear
from mixedmodels.residual.spatial import Exponential, Gaussian, Linear, Matern, Quadratic, Spherical
from mixedmodels.residual.structure import Structure
from mixedmodels.residual.toep import Toeplitz
from mixedmodels.residual.us import GeneralCorrelation, Unstructured
from mixedmodels.residual.varconst import VarConstPower, VarConstProp
from mixedmodels.residual.varexp import VarExp
from mixedmodels.residual.varfixed import VarFixed
from mixedmodels.residual.varident import VarIdent
from mixedmodels.residual.varpower import VarPower

__all__ = ["REGISTRY", "Row", "make_structure"]


class Row(NamedTuple):
    """One structure.

    Attributes
    ----------
    tag : str
    cls : type
    kind : {"correlation", "variance"}
    usage : str
        How it is written, with placeholders.
    parameters : str
        Natural parameters.
    meaning : str
    nlme : str
        The class of R's nlme with the same model, if there is one.
    """

    tag: str
    cls: type
    kind: str
    usage: str
    parameters: str
    meaning: str
    nlme: str


_ROWS = (
    Row("ar1", AR1, "correlation", "ar1(time | g)", "rho",
        "first-order autoregression, integer times", "corAR1"),
    Row("car1", CAR1, "correlation", "car1(time | g)", "rho",
        "first-order autoregression in continuous time", "corCAR1"),
    Row("arma", ARMA, "correlation", "arma(time | g, p=1, q=1)", "ar1, ..., ma1, ...",
        "autoregressive moving average, integer times", "corARMA"),
    Row("cs", CompoundSymmetry, "correlation", "cs(1 | g)", "rho", "compound symmetry", "corCompSymm"),
    Row("corr", GeneralCorrelation, "correlation", "corr(visit | g)", "cor[a,b]",
        "general correlation between visits", "corSymm"),
    Row("us", Unstructured, "correlation", "us(visit | g)", "cor[a,b], sd_ratio[b]",
        "general covariance between visits", "corSymm with varIdent"),
    Row("toep", Toeplitz, "correlation", "toep(visit | g)", "rho1, rho2, ...",
        "one correlation for each number of visits apart", ""),
    Row("ad", Antedependence, "correlation", "ad(visit | g)", "cor[a,b]",
        "first-order antedependence: one correlation for each step", ""),
    Row("exp", Exponential, "correlation", "exp(x + y | g)", "range, nugget",
        "exponential decay with distance", "corExp"),
    Row("gau", Gaussian, "correlation", "gau(x + y | g)", "range, nugget",
        "Gaussian decay with distance", "corGaus"),
    Row("lin", Linear, "correlation", "lin(x | g)", "range, nugget", "linear decay with distance", "corLin"),
    Row("ratio", Quadratic, "correlation", "ratio(x + y | g)", "range, nugget",
        "rational quadratic decay with distance", "corRatio"),
    Row("sph", Spherical, "correlation", "sph(x + y | g)", "range, nugget",
        "spherical decay with distance, 0 beyond the range", "corSpher"),
    Row("mat", Matern, "correlation", "mat(x + y | g)", "range, smoothness, nugget",
        "Matern correlation", ""),
    Row("known", Known, "correlation", "Known(V, occasion=, group=) as an object", "",
        "known covariance between occasions", ""),
    Row("varident", VarIdent, "variance", "varident(f)", "sd_ratio[level]",
        "a standard deviation for each level", "varIdent"),
    Row("varfixed", VarFixed, "variance", "varfixed(v)", "", "variances proportional to v", "varFixed"),
    Row("varpower", VarPower, "variance", "varpower(x) or varpower(fitted)", "power",
        "sd proportional to |x|^power", "varPower"),
    Row("varexp", VarExp, "variance", "varexp(x) or varexp(fitted)", "expon",
        "sd proportional to exp(expon x)", "varExp"),
    Row("varconstpower", VarConstPower, "variance", "varconstpower(x) or varconstpower(fitted)",
        "const, power", "sd proportional to const + |x|^power", "varConstPower"),
    Row("varconstprop", VarConstProp, "variance", "varconstprop(x) or varconstprop(fitted)", "prop",
        "sd proportional to sqrt(1 + prop^2 x^2)", "varConstProp"),
    Row("loglin", LogLinear, "variance", "loglin(x + z)", "coef[x]",
        "log sd linear in covariates", ""),
)  # fmt: skip

REGISTRY: dict[str, Row] = {row.tag: row for row in _ROWS}
"""Tag -> `Row`."""


@lru_cache(maxsize=64)
def _parameters(cls: type[Structure]) -> Mapping[str, inspect.Parameter]:
    """What a structure is made from; reading a signature takes long."""
    return inspect.signature(cls).parameters


def make_structure(
    tag: str, covariates: tuple[str, ...], group: str | None, options: Mapping[str, Any]
) -> Structure:
    """The structure that a text says.

    Parameters
    ----------
    tag : str
    covariates : tuple of str
        What stands before the bar, without the 1 that stands for none.
    group : str or None
    options : mapping
        Options of the structure, ``by``, and natural parameters to be held.

    Returns
    -------
    Structure

    Raises
    ------
    OptionError
        The tag does not exist, or the structure does not take the arguments.

    Examples
    --------
    >>> from mixedmodels.residual.registry import make_structure
    >>> make_structure("ar1", ("time",), "subject", {"rho": 0.5})
    <residual structure ar1(time | subject, rho=0.5)>
    """
    row = REGISTRY.get(tag)
    if row is None:
        near = difflib.get_close_matches(tag.lower(), list(REGISTRY), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise OptionError(f"unknown residual structure {tag!r}{hint} (available: {', '.join(REGISTRY)})")
    if row.cls is Known:
        raise OptionError(
            "known() takes a matrix, which text cannot hold: write mixedmodels.residual.Known(V, "
            "occasion=..., "
            "group=...) instead of text"
        )
    names = _parameters(row.cls)
    takes_group = "group" in names
    if group is not None and not takes_group:
        raise OptionError(
            f"{tag}() takes no grouping factor, so no '| {group}'; for parameters by level write by="
        )
    given: dict[str, Any] = dict(options)
    if takes_group:
        given["group"] = group
    many = [one for one in names.values() if one.kind is inspect.Parameter.VAR_POSITIONAL]
    places = [
        one.name
        for one in names.values()
        if one.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD and one.name not in ("group", "ratios")
    ]
    needed = [name for name in places if names[name].default is inspect.Parameter.empty]
    if not many and not len(needed) <= len(covariates) <= len(places):
        raise OptionError(
            f"{tag}() is written {row.usage}; got {len(covariates)} covariates "
            f"({', '.join(covariates) or 'none'})"
        )
    for name in ("by",):
        if name in given and name not in names:
            raise OptionError(f"{tag}() takes no {name}=; leave it out")
    try:
        return row.cls(*covariates, **given)
    except TypeError as error:
        raise OptionError(f"{tag}() is written {row.usage}: {error}; leave the argument out") from None
