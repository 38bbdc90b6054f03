"""Keep of full reference fits the tests of fixed effects: lmerTest's tables and pbkrtest's F tests.

    python tools/slim_inference_references.py COLLECTION

COLLECTION holds ``fits/*.json`` (see ``slim_references.py``); what lmerTest and pbkrtest say about each fit
goes to ``tests/references/inference/ddf.json``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

TARGET = Path(__file__).parents[1] / "tests" / "references" / "inference" / "ddf.json"


def main(collection: Path) -> None:
    """Write the slimmed tests of all fits that have any."""
    out = {}
    for path in sorted((collection / "fits").glob("[!_]*.json")):
        extra = json.loads(path.read_text(encoding="utf-8")).get("extra") or {}
        kept = {key: extra[key] for key in extra if key == "lmerTest" or key.startswith("KRmodcomp_")}
        if kept:
            out[path.stem] = kept
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in out.items()]
    TARGET.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
