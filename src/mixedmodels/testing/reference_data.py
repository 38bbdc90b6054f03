"""Reading the CSV files of a reference collection with the column types that the reference software used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["read_reference_table", "typed_frame"]


def typed_frame(text: pd.DataFrame, columns: dict[str, dict[str, Any]]) -> pd.DataFrame:
    """Give the columns of a frame of strings their types.

    Parameters
    ----------
    text : pandas.DataFrame
        Strings; an empty string is a missing value.
    columns : dict
        Per column ``{"type": "numeric" | "integer" | "factor" | "ordered" | "string", "levels": [...]}``.

    Returns
    -------
    pandas.DataFrame
        Numbers as float64 or int64, factors as categoricals with their levels in order.
    """
    import pandas as pd

    out: dict[str, Any] = {}
    for name, spec in columns.items():
        values = text[name]
        if spec["type"] in ("factor", "ordered"):
            out[name] = pd.Categorical(
                values.where(values != "", None), categories=spec["levels"], ordered=spec["type"] == "ordered"
            )
        elif spec["type"] == "integer" and not (values == "").any():
            out[name] = values.astype("int64")
        elif spec["type"] in ("numeric", "integer"):
            out[name] = pd.to_numeric(values.where(values != "", None)).astype("float64")
        else:
            out[name] = values
    return pd.DataFrame(out)


def read_reference_table(folder: str | Path, name: str) -> pd.DataFrame:
    """Read one table of a reference collection.

    Parameters
    ----------
    folder : path
        Holds the CSV files and ``columns.json``: ``{name: {"file": ..., "columns": {...}}}``.
    name : str
        Name of the table in ``columns.json``.

    Returns
    -------
    pandas.DataFrame
    """
    import pandas as pd

    folder = Path(folder)
    entry = json.loads((folder / "columns.json").read_text(encoding="utf-8"))[name]
    text = pd.read_csv(folder / entry["file"], dtype=str, keep_default_na=False)
    return typed_frame(text, entry["columns"])
