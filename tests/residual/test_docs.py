"""docs/residuals.md holds the table of structures."""

from __future__ import annotations

from pathlib import Path

from mixedmodels.residual import REGISTRY

PAGE = Path(__file__).parents[2] / "docs" / "residuals.md"


def test_the_page_lists_every_structure():
    text = PAGE.read_text(encoding="utf-8")
    for row in REGISTRY.values():
        usage = row.usage.replace("|", "\\|")
        assert f"| `{usage}` | {row.parameters} | {row.meaning} | {row.nlme} |" in text
