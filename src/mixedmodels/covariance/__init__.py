"""Covariance structures of the random effects, one per file, and the table of their tags."""

from __future__ import annotations

from mixedmodels.covariance.base import Covariance, LinearCovariance
from mixedmodels.covariance.diag import Diagonal
from mixedmodels.covariance.homdiag import ScaledIdentity
from mixedmodels.covariance.registry import available_tags, make_covariance, planned_tags
from mixedmodels.covariance.us import Unstructured

__all__ = [
    "Covariance",
    "Diagonal",
    "LinearCovariance",
    "ScaledIdentity",
    "Unstructured",
    "available_tags",
    "make_covariance",
    "planned_tags",
]
