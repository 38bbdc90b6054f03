"""Covariance structures of the random effects, one per file, and the table of their tags."""

from __future__ import annotations

from mixedmodels.covariance.base import Covariance, LinearCovariance
from mixedmodels.covariance.diag import Diagonal
from mixedmodels.covariance.factor_analytic import FactorAnalytic, ReducedRank
from mixedmodels.covariance.homdiag import ScaledIdentity
from mixedmodels.covariance.known import Proportional
from mixedmodels.covariance.natural import NaturalParameters
from mixedmodels.covariance.registry import STRUCTURES, available_tags, make_covariance, planned_tags
from mixedmodels.covariance.structured import CurvedCovariance, ScaledCorrelation
from mixedmodels.covariance.us import Unstructured

__all__ = [
    "STRUCTURES",
    "Covariance",
    "CurvedCovariance",
    "Diagonal",
    "FactorAnalytic",
    "LinearCovariance",
    "NaturalParameters",
    "Proportional",
    "ReducedRank",
    "ScaledCorrelation",
    "ScaledIdentity",
    "Unstructured",
    "available_tags",
    "make_covariance",
    "planned_tags",
]
