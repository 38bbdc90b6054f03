"""Write what the Python blocks of documentation pages print into the text blocks below them.

    PYTHONPATH=src python tools/fill_outputs.py docs/nlme.md ...

Read the difference before it is committed: `tests/structure/test_docs.py` holds the pages to it from then on.
"""

from __future__ import annotations

import contextlib
import io
import re
import sys
from pathlib import Path
from typing import Any

PAIR = re.compile(r"^```python\n(.*?)^```$(\n\n^```text\n)?(?(2)(.*?)^```$)", re.MULTILINE | re.DOTALL)
NOT_RUN = "<!-- not run -->"


def fill(text: str) -> str:
    """The page with the output of its blocks."""
    names: dict[str, Any] = {}
    parts, at = [], 0
    for match in PAIR.finditer(text):
        parts.append(text[at : match.start()])
        at = match.end()
        if "".join(parts).rstrip().endswith(NOT_RUN):
            parts.append(match[0])
            continue
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(match[1], names)
        shown = "\n".join(line.rstrip() for line in out.getvalue().strip("\n").splitlines())
        parts.append(f"```python\n{match[1]}```" + (f"\n\n```text\n{shown}\n```" if match[2] else ""))
    return "".join([*parts, text[at:]])


if __name__ == "__main__":
    for name in sys.argv[1:]:
        page = Path(name)
        page.write_text(fill(page.read_text(encoding="utf-8")), encoding="utf-8")
