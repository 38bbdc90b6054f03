"""Comparison pages: their tables hold R's stored numbers and what this version computes."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]


def tool(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


comparison = tool("comparison_tables")
notebooks = tool("make_notebooks")


def cells(line):
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def on_page(name, page):
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    head, _, *rows = comparison.pattern(name).search(text)[2].strip().splitlines()
    return cells(head), [cells(row) for row in rows]


def numbers(text):
    return [float(part) for part in text.replace("...", "").replace("<", "").split(",") if part.strip()]


def flat(row):
    """Rows of fits whose parameters have no sharp estimate."""
    tests = comparison.reference_tests("structured")
    return any(comparison.code(tests.MODELS[id_][1]) in row and row[0].lower() in id_ for id_ in tests.FLAT)


@pytest.mark.parametrize("name", comparison.TABLES)
def test_tables(name):
    page, head, make = comparison.TABLES[name]
    shown_head, shown = on_page(name, page)
    made = make()
    assert shown_head == list(head)
    assert len(shown) == len(made) > 0
    for row, new in zip(shown, made, strict=True):
        for title, before, (i, now) in zip(head, row, enumerate(new), strict=True):
            if title == "coefficients differ by (SE)":
                assert numbers(now)[0] <= 1e-3 and numbers(before)[0] <= 1e-3
            elif title != "here":
                assert before == now, f"{page}: {title} of {row}"
            elif not (flat(row) and i > 5):
                np.testing.assert_allclose(numbers(now), numbers(before), rtol=2e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["gls", "lme", "lmer", "glmer", "glmmTMB", "pdmat"])
def test_what_is_shown_agrees_with_r(name):
    """Log-likelihoods to 1e-3, parameters to 1e-3 relative, as printed."""
    page, head, _ = comparison.TABLES[name]
    for row in on_page(name, page)[1]:
        for i, title in enumerate(head):
            if title == "here" and not (flat(row) and i > 5):
                theirs, ours = numbers(row[i - 1]), numbers(row[i])
                np.testing.assert_allclose(ours, theirs, rtol=2e-6 if "logLik" in head[i - 1] else 1.5e-3)


@pytest.mark.parametrize("page", notebooks.PAGES)
def test_notebooks_are_the_pages(page):
    """Made by tools/make_notebooks.py."""
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    path = ROOT / "docs" / "notebooks" / f"{page}.ipynb"
    assert json.loads(path.read_text(encoding="utf-8")) == notebooks.notebook(text)
    assert any(cell["cell_type"] == "code" and cell["outputs"] for cell in notebooks.notebook(text)["cells"])
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
        assert "://" in target or (path.parent / target).exists(), target
