"""Distributions and links of generalised linear mixed models, one family per file."""

from mixedmodels.family.base import Family, Observations
from mixedmodels.family.links import LINKS, Link
from mixedmodels.family.registry import FAMILIES, get_family

__all__ = ["FAMILIES", "LINKS", "Family", "Link", "Observations", "get_family"]
