"""Reading the packed archives: codes and numbers, never pickled objects."""

from __future__ import annotations

from importlib.resources import files

import numpy as np

from mixedmodels.datasets.registry import DatasetInfo
from mixedmodels.frame.values import FactorColumn

__all__ = ["read_columns"]


def read_columns(info: DatasetInfo) -> dict[str, np.ndarray | FactorColumn]:
    """Columns of a bundled data set in order.

    Parameters
    ----------
    info : DatasetInfo

    Returns
    -------
    dict of str to ndarray or FactorColumn
        float64 for ``numeric``, int64 for ``integer``; int32 codes with a tuple of labels for factors.
    """
    columns: dict[str, np.ndarray | FactorColumn] = {}
    resource = files("mixedmodels.datasets").joinpath("data", f"{info.name}.npz")
    with resource.open("rb") as handle, np.load(handle, allow_pickle=False) as archive:
        for column in info.columns:
            values = archive[column.name]
            if column.kind in ("factor", "ordered"):
                levels = tuple(archive[f"{column.name}.levels"].tolist())
                columns[column.name] = FactorColumn(values.astype(np.int32), levels, column.kind == "ordered")
            else:
                columns[column.name] = values.astype(np.int64 if column.kind == "integer" else np.float64)
    return columns
