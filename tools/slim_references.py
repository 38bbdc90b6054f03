"""Keep of full lme4 reference fits what the tests need, and the data they were made from.

    python tools/slim_references.py COLLECTION

COLLECTION holds ``fits/*.json`` (lme4 fits, polished by Newton steps, written by an R script with 15
significant digits) and ``data/``. Gaussian ``lmer`` fits are slimmed into ``tests/references/lmm/<id>.json``;
their data go to ``tests/references/data/`` as CSV with the column types in ``columns.json``, except where the
bundled data set holds all columns a model needs.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

TARGET = Path(__file__).parents[1] / "tests" / "references"
KEPT = ["id", "data", "engine", "call", "formula", "estimation", "n", "objective", "vcov", "sigma", "varcorr"]
KEPT += ["singular", "predictions", "tolerance", "dropped_columns", "notes"]
BUNDLED = {"InstEval"}


def is_lmer(fit: dict) -> bool:
    """Whether the fit is a plain Gaussian ``lmer`` fit."""
    packages = (
        [package["name"] for package in fit["engine"]["packages"]] if "packages" in fit["engine"] else []
    )
    return packages == ["lme4"] and fit["family"] == "gaussian" and fit["call"].startswith("lmer(")


def slim(fit: dict) -> dict:
    """The part of one fit that the tests compare with."""
    out = {key: fit[key] for key in KEPT if key in fit}
    out["beta"] = {name: [row["estimate"], row["se"]] for name, row in fit["beta"].items()}
    out["theta"] = {"names": list(fit["theta"]), "values": list(fit["theta"].values())}
    dropped = ("condvar_sum", "sumsq", "condvar_first_level_matrix")
    out["ranef"] = [
        {key: value for key, value in block.items() if key not in dropped} for block in fit["ranef"]
    ]
    for key in ("fitted", "residual"):
        out[key] = {part: fit[key][part] for part in ("head", "sumsq", "sum", "n")}
    return out


def main(collection: Path) -> None:
    columns = json.loads((collection / "data" / "_columns.json").read_text(encoding="utf-8"))
    used: set[str] = set()
    (TARGET / "lmm").mkdir(parents=True, exist_ok=True)
    (TARGET / "data").mkdir(parents=True, exist_ok=True)
    for path in sorted((collection / "fits").glob("[!_]*.json")):
        fit = json.loads(path.read_text(encoding="utf-8"))
        if not is_lmer(fit):
            continue
        used.add(fit["data"])
        text = "{\n" + ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in slim(fit).items()) + "\n}\n"
        (TARGET / "lmm" / path.name).write_text(text, encoding="utf-8")
    described = {}
    for name in sorted(used - BUNDLED):
        entry = columns[name]
        shutil.copyfile(collection / "data" / entry["file"], TARGET / "data" / entry["file"])
        described[name] = {key: entry[key] for key in ("file", "rows", "source", "note", "columns")}
    text = "{\n" + ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in described.items()) + "\n}\n"
    (TARGET / "data" / "columns.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
