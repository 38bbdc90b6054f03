"""The Python blocks of README.md and docs/*.md run in order, and print what a text block below them shows."""

from __future__ import annotations

import contextlib
import doctest
import io
import re
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NEEDED = {"other_packages.md": ("maketables", "marginaleffects")}
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# Blocks that a page shows without running: marked by this comment on the line before.
NOT_RUN = "<!-- not run -->"


class Block(NamedTuple):
    line: int
    code: str
    output: str | None


def blocks(text: str) -> list[Block]:
    """The Python blocks of a page, each with the text block that follows directly."""
    found = list(FENCE.finditer(text))
    out = []
    for i, match in enumerate(found):
        if match[1] != "python" or text[: match.start()].rstrip().endswith(NOT_RUN):
            continue
        follows = found[i + 1] if i + 1 < len(found) else None
        shown = None
        if follows and follows[1] == "text" and not text[match.end() : follows.start()].strip():
            shown = follows[2]
        code = match[2]
        if code.lstrip().startswith(">>>"):
            code = "\n".join(e.source for e in doctest.DocTestParser().get_examples(code))
        out.append(Block(text.count("\n", 0, match.start()) + 2, code, shown))
    return out


def same(printed: str, shown: str) -> bool:
    """Equal up to blanks at the ends of lines."""
    return [line.rstrip() for line in printed.strip().splitlines()] == [
        line.rstrip() for line in shown.strip().splitlines()
    ]


def run(text: str, name: str, names: dict) -> None:
    """Run a page's blocks in one namespace; AssertionError where the output is another one."""
    for block in blocks(text):
        out = io.StringIO()
        code = compile("\n" * (block.line - 1) + block.code, name, "exec")
        with contextlib.redirect_stdout(out):
            exec(code, names)
        if block.output is not None:
            assert same(out.getvalue(), block.output), f"{name}:{block.line} prints\n{out.getvalue()}"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_pages_run(path, tmp_path, monkeypatch):
    for package in NEEDED.get(path.name, ()):
        pytest.importorskip(package)
    text = path.read_text(encoding="utf-8")
    if "load_dataset" in text:
        pytest.importorskip("pandas")  # imported, it is what data sets are loaded into
    if "plot" in text:
        matplotlib = pytest.importorskip("matplotlib")
        matplotlib.use("Agg")
    monkeypatch.chdir(tmp_path)
    try:
        run(text, path.name, {})
    finally:
        if "plot" in text:
            from matplotlib import pyplot

            pyplot.close("all")


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (path.parent / target).exists(), f"{path.name}: {target}"


def test_the_guide_runs_code_and_shows_output():
    found = blocks((ROOT / "docs" / "inference.md").read_text(encoding="utf-8"))
    assert len(found) > 20 and sum(block.output is not None for block in found) >= 6


def test_a_wrong_block_is_noticed():
    page = "```python\nx = 1\nprint(x)\n```\n\n```text\n{}\n```\n"
    run(page.format("1"), "page", {})
    with pytest.raises(AssertionError, match="page:2 prints"):
        run(page.format("2"), "page", {})
    with pytest.raises(ZeroDivisionError):
        run("```python\n1 / 0\n```\n", "page", {})
    run(f"{NOT_RUN}\n```python\n1 / 0\n```\n", "page", {})
