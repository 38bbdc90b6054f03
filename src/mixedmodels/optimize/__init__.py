"""Minimise any objective; knows no statistics."""

from __future__ import annotations

from mixedmodels.optimize.base import Certificate, Objective
from mixedmodels.optimize.control import Control
from mixedmodels.optimize.minimize import METHODS, minimize, with_conditions
from mixedmodels.optimize.optimum import KKT, Optimum, Status

__all__ = [
    "KKT",
    "METHODS",
    "Certificate",
    "Control",
    "Objective",
    "Optimum",
    "Status",
    "minimize",
    "with_conditions",
]
