"""Covariance structures and matrices that the user gives: ``structures={"g": MyStructure, "K": matrix}``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mixedmodels.covariance import Covariance
from mixedmodels.errors import OptionError

__all__ = ["check_names", "given_matrix", "own_structure"]

_MEMBERS = ("factor", "factor_derivatives", "theta_near", "sigma_derivatives", "natural")


def check_names(structures: Mapping[str, Any], names: Sequence[str]) -> None:
    """Refuse entries that no term uses.

    Raises
    ------
    OptionError
        `structures` is not a dict, or has an unknown name.
    """
    if not isinstance(structures, Mapping):
        raise OptionError(
            "structures must be a dict from a random term, its grouping factor or the name of a matrix, such "
            f'as {{"g": MyStructure}}, got {type(structures).__name__}'
        )
    unknown = [str(name) for name in structures if name not in names]
    if unknown:
        raise OptionError(
            f"structures names {unknown[0]!r}, which no random term uses; available: "
            f"{', '.join(names) or 'none'}"
        )


def own_structure(given: Any, k: int, label: str) -> Covariance:
    """The structure a user gave for a term with k columns: an instance, or what makes one from k.

    Raises
    ------
    OptionError
        It is not a covariance structure or has another number of columns.
    """
    made = given(k) if callable(given) else given
    missing = [name for name in _MEMBERS if not hasattr(made, name)]
    if missing:
        raise OptionError(
            f"the structure given for {label} has no {missing[0]}(); derive it from "
            "mixedmodels.covariance.CurvedCovariance or LinearCovariance"
        )
    if made.k != k:
        raise OptionError(f"the structure given for {label} has {made.k} columns, the term has {k}")
    return made


def given_matrix(structures: Mapping[str, Any], name: Any, k: int, label: str) -> np.ndarray:
    """The matrix of ``propto(0 + f | g, name)``, in the order of the term's columns.

    Raises
    ------
    OptionError
        There is no such matrix, or it is not k x k.
    """
    if name not in structures:
        raise OptionError(
            f'{label}: no matrix {name!r}; give it as structures={{"{name}": matrix}}, {k} x {k}, in the '
            "order of the columns"
        )
    try:
        matrix = np.array(structures[name], dtype=np.float64)
    except (TypeError, ValueError):
        raise OptionError(f"the matrix {name!r} of {label} must hold numbers") from None
    if matrix.shape != (k, k):
        raise OptionError(f"the matrix {name!r} of {label} has shape {matrix.shape}, the term {k} columns")
    return matrix
