"""Make docs/notebooks/*.ipynb from the comparison pages docs/compare_*.md, with the outputs shown there.

    python tools/make_notebooks.py

Nothing is run: `tests/structure/test_docs.py` checks the outputs of the pages, and
`tests/structure/test_comparisons.py` the notebooks against the pages.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[1] / "docs"
PAGES = ("compare_lme4", "compare_nlme", "compare_lmm")
CODE = re.compile(r"^```python\n(.*?)^```$(?:\n\n^```text\n(.*?)^```$)?", re.MULTILINE | re.DOTALL)


def lines(text: str) -> list[str]:
    """Text as a notebook holds it."""
    return text.strip("\n").splitlines(keepends=True)


def markdown(text: str) -> str:
    """The words of a page as a notebook has them: links one folder up, nothing about itself."""
    text = re.sub(r"\s*As a notebook:\s+\[[^\]]*\]\([^)]*\)\.", "", text)
    text = re.sub(r"<!-- table \w+: (?:begin|end) -->\n?", "", text)
    return re.sub(r"\]\((?!https?:|#)([^)]+)\)", r"](../\1)", text)


def notebook(text: str) -> dict[str, Any]:
    """The notebook of a page."""
    cells: list[dict[str, Any]] = []

    def add(kind: str, source: str, **more: Any) -> None:
        if source.strip():
            cells.append(
                {
                    "cell_type": kind,
                    "id": f"cell-{len(cells)}",
                    "metadata": {},
                    "source": lines(source),
                    **more,
                }
            )

    at = 0
    for count, match in enumerate(CODE.finditer(text), start=1):
        add("markdown", markdown(text[at : match.start()]))
        outputs = [{"name": "stdout", "output_type": "stream", "text": lines(match[2])}] if match[2] else []
        add("code", match[1], execution_count=count, outputs=outputs)
        at = match.end()
    add("markdown", markdown(text[at:]))
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {
        "cells": cells,
        "metadata": {"kernelspec": kernel, "language_info": {"name": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def main() -> None:
    (DOCS / "notebooks").mkdir(exist_ok=True)
    for page in PAGES:
        made = notebook((DOCS / f"{page}.md").read_text(encoding="utf-8"))
        path = DOCS / "notebooks" / f"{page}.ipynb"
        path.write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
