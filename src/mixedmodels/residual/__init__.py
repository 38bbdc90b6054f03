"""Structures of the residual errors: correlations and variance functions, one per file.

``Var(e) = sigma^2 R(phi)`` with ``R = S C S``: a correlation C and variance functions in the diagonal S.
"""

from __future__ import annotations

from mixedmodels.residual.ar1 import AR1
from mixedmodels.residual.base import BoundResidual, NaturalValues, ResidualPoint
from mixedmodels.residual.cs import CompoundSymmetry
from mixedmodels.residual.data import Levels, Need, ResidualData, code_values
from mixedmodels.residual.structure import Product, Structure
from mixedmodels.residual.us import GeneralCorrelation, Unstructured
from mixedmodels.residual.varfixed import VarFixed
from mixedmodels.residual.varident import VarIdent

__all__ = [
    "AR1",
    "BoundResidual",
    "CompoundSymmetry",
    "GeneralCorrelation",
    "Levels",
    "NaturalValues",
    "Need",
    "Product",
    "ResidualData",
    "ResidualPoint",
    "Structure",
    "Unstructured",
    "VarFixed",
    "VarIdent",
    "code_values",
]
