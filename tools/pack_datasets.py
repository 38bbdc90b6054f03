"""Pack CSV files into the compact archives of ``mixedmodels.datasets``.

    python tools/pack_datasets.py FOLDER

FOLDER holds one CSV (or CSV.gz) per data set and ``_columns.json``: for each set its file name and, per
column, ``type`` and, for factors, ``levels`` in order. Only the columns named in the registry are packed.
Factors become small integer codes plus ``<column>.levels``; numbers are kept in the smallest integer type
that holds them exactly, else as float64. Nothing is pickled.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from mixedmodels.datasets.registry import REGISTRY

TARGET = Path(__file__).parents[1] / "src" / "mixedmodels" / "datasets" / "data"


def smallest(values: np.ndarray) -> np.ndarray:
    """The same numbers in the smallest integer type that holds them all, else unchanged."""
    if not np.all(np.isfinite(values)) or np.any(values != np.round(values)):
        return values
    for kind in (np.uint8, np.int16, np.uint16, np.int32):
        if np.iinfo(kind).min <= values.min() and values.max() <= np.iinfo(kind).max:
            return values.astype(kind)
    return values


def main(folder: Path) -> None:
    columns = json.loads((folder / "_columns.json").read_text(encoding="utf-8"))
    TARGET.mkdir(exist_ok=True)
    for name, info in REGISTRY.items():
        frame = pd.read_csv(folder / columns[name]["file"], dtype=str, keep_default_na=False)
        arrays: dict[str, np.ndarray] = {}
        for column in info.columns:
            given = columns[name]["columns"][column.name]
            if given["type"] != column.kind:
                raise SystemExit(
                    f"{name}.{column.name}: registry says {column.kind}, file says {given['type']}"
                )
            text = frame[column.name].to_numpy()
            if column.kind in ("factor", "ordered"):
                position = {level: code for code, level in enumerate(given["levels"])}
                arrays[column.name] = smallest(np.array([position[t] for t in text]))
                arrays[f"{column.name}.levels"] = np.array(given["levels"])
            else:
                arrays[column.name] = smallest(text.astype(np.float64))
        if len(frame) != info.rows:
            raise SystemExit(f"{name}: registry says {info.rows} rows, file has {len(frame)}")
        np.savez_compressed(TARGET / f"{name}.npz", allow_pickle=False, **arrays)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
