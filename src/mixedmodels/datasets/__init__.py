"""Data sets to try things on, in whichever data-frame library is at hand.

Sources and licence notes are in :mod:`mixedmodels.datasets.registry` and in ``describe_dataset(name)``.
Left out on purpose: *Contraception* (Bangladesh fertility survey), whose distributor, the Centre for
Multilevel Modelling in Bristol, states no terms that clearly allow redistribution.
"""

from __future__ import annotations

import difflib
from typing import Any

from mixedmodels.datasets.backends import choose_backend, to_backend
from mixedmodels.datasets.registry import REGISTRY, ColumnInfo, DatasetInfo
from mixedmodels.datasets.storage import read_columns
from mixedmodels.errors import OptionError

__all__ = ["ColumnInfo", "DatasetInfo", "dataset_names", "describe_dataset", "load_dataset"]

_LEFT_OUT = {
    "contraception": (
        "its distributor states no terms that clearly allow redistribution; it is in the R package mlmRev"
    )
}


def dataset_names() -> tuple[str, ...]:
    """Names of the bundled data sets.

    Returns
    -------
    tuple of str

    Examples
    --------
    >>> from mixedmodels.datasets import dataset_names
    >>> "sleepstudy" in dataset_names()
    True
    """
    return tuple(REGISTRY)


def describe_dataset(name: str) -> DatasetInfo:
    """Columns with their units, source, licence note and a model to try, for one bundled data set.

    Parameters
    ----------
    name : str
        One of :func:`dataset_names`, upper and lower case alike.

    Returns
    -------
    DatasetInfo
        Prints as a short page.

    Raises
    ------
    OptionError
        If there is no such data set; the message suggests the nearest name.

    Examples
    --------
    >>> from mixedmodels.datasets import describe_dataset
    >>> info = describe_dataset("Dyestuff")
    >>> info.rows, info.formula
    (30, 'Yield ~ 1 + (1 | Batch)')
    """
    if not isinstance(name, str):
        raise OptionError(
            f"the name of a data set is a string, not {type(name).__name__}; see dataset_names()"
        )
    info = REGISTRY.get(name)
    if info is not None:
        return info
    by_folded = {known.casefold(): known for known in REGISTRY}
    folded = name.casefold()
    if folded in by_folded:
        return REGISTRY[by_folded[folded]]
    if folded in _LEFT_OUT:
        raise OptionError(f"the data set {name!r} is not bundled: {_LEFT_OUT[folded]}")
    near = difflib.get_close_matches(folded, by_folded, n=1)
    hint = f"did you mean {by_folded[near[0]]!r}?" if near else f"there are: {', '.join(REGISTRY)}"
    raise OptionError(f"there is no data set {name!r}; {hint}")


def load_dataset(name: str, backend: str | None = None) -> Any:
    """Load a bundled data set as a data frame.

    Parameters
    ----------
    name : str
        One of :func:`dataset_names`, upper and lower case alike.
    backend : {"pandas", "polars", "pyarrow", "dict"}, optional
        The library of the frame. By default the one already imported (pandas before polars before pyarrow),
        else the first that is installed, else ``"dict"``.

    Returns
    -------
    pandas.DataFrame, polars.DataFrame, pyarrow.Table or dict
        A new object at each call. Factors are ``pandas.Categorical``, ``polars.Enum`` or Arrow dictionary
        columns with their levels in order; polars has no mark for an *ordered* factor, the others carry it.
        In a dict, numbers are arrays and factors are
        :class:`~mixedmodels.frame.values.FactorColumn` (codes, levels, ordered).

    Raises
    ------
    OptionError
        For an unknown name (with the nearest one) or backend, or a backend that is not installed.

    Examples
    --------
    >>> from mixedmodels.datasets import load_dataset
    >>> sleep = load_dataset("sleepstudy", backend="dict")
    >>> float(sleep["Reaction"][0]), sleep["Subject"].levels[0]
    (249.56, '308')
    """
    info = describe_dataset(name)
    library = choose_backend(backend)
    return to_backend(read_columns(info), library)
