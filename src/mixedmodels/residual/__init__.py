"""Structures of the residual errors: correlations and variance functions, one per file.

``Var(e) = sigma^2 R(phi)`` with ``R = S C S``: a correlation C and variance functions in the diagonal S.
"""

from __future__ import annotations

from mixedmodels.residual.ad import Antedependence
from mixedmodels.residual.ar1 import AR1
from mixedmodels.residual.arma import ARMA
from mixedmodels.residual.base import BoundResidual, NaturalValues, ResidualPoint
from mixedmodels.residual.car1 import CAR1
from mixedmodels.residual.cs import CompoundSymmetry
from mixedmodels.residual.data import Levels, Need, ResidualData, code_values
from mixedmodels.residual.known import Function, Known
from mixedmodels.residual.loglin import LogLinear
from mixedmodels.residual.registry import REGISTRY, make_structure
from mixedmodels.residual.spatial import Exponential, Gaussian, Linear, Matern, Quadratic, Spherical
from mixedmodels.residual.structure import Product, Structure
from mixedmodels.residual.toep import Toeplitz
from mixedmodels.residual.us import GeneralCorrelation, Unstructured
from mixedmodels.residual.varconst import VarConstPower, VarConstProp
from mixedmodels.residual.varexp import VarExp
from mixedmodels.residual.varfixed import VarFixed
from mixedmodels.residual.varident import VarIdent
from mixedmodels.residual.varpower import VarPower

__all__ = [
    "AR1",
    "ARMA",
    "CAR1",
    "REGISTRY",
    "Antedependence",
    "BoundResidual",
    "CompoundSymmetry",
    "Exponential",
    "Function",
    "Gaussian",
    "GeneralCorrelation",
    "Known",
    "Levels",
    "Linear",
    "LogLinear",
    "Matern",
    "NaturalValues",
    "Need",
    "Product",
    "Quadratic",
    "ResidualData",
    "ResidualPoint",
    "Spherical",
    "Structure",
    "Toeplitz",
    "Unstructured",
    "VarConstPower",
    "VarConstProp",
    "VarExp",
    "VarFixed",
    "VarIdent",
    "VarPower",
    "code_values",
    "make_structure",
]
