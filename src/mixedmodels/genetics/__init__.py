"""Pedigrees, relationship matrices between individuals, genotypes, and models built on them.

    >>> from mixedmodels import genetics
    >>> ped = genetics.Pedigree.from_frame({"id": [1, 2, 3], "sire": [0, 0, 1], "dam": [0, 0, 2]})
    >>> ped
    <Pedigree: 3 individuals, 2 founders, depth 1>

Names are imported on first use.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

# Home of each public name, a module of this package.
_HOMES = {
    "Genotypes": "genotypes",
    "Pedigree": "pedigree",
    "Relationship": "relationship",
    "as_relationship": "relationship",
    "drop_founder_genes": "simulation",
    "drop_genes": "simulation",
    "genomic": "genomic_matrices",
    "genomic_dominance": "genomic_matrices",
    "nuclear_families": "simulation",
    "random_pedigree": "simulation",
    "linkage": "linkage",
    "marker_factor": "genomic_matrices",
    "read_kinship": "pedigree_files",
    "read_ped": "pedigree_files",
    "read_phenotypes": "pedigree_files",
    "read_plink": "plink_files",
    "read_vcf": "vcf_files",
    "simulate_breeding_values": "traits",
    "simulate_genotypic_trait": "traits",
    "simulate_trait": "traits",
    "single_step": "genomic_matrices",
    "write_pedigree": "pedigree_files",
    "write_phenotypes": "pedigree_files",
    "write_plink": "plink_files",
    "scan": "association",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'mixedmodels.genetics' has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """This package: a module of it does not take the place of a public name that is spelled alike."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
