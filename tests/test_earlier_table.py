"""docs/earlier_systems.md: every call in a column "here" runs, or its names and keywords exist."""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import re
import warnings
from pathlib import Path

import pytest

import mixedmodels as mm
from mixedmodels.formula import parse

PAGE = Path(__file__).parents[1] / "docs" / "earlier_systems.md"
CELL = re.compile(r"(?<!\\)\|")


def rows(text):
    """(line number, cells) of all table rows under a heading "there | here"."""
    inside = False
    for number, line in enumerate(text.splitlines(), 1):
        if not line.startswith("|"):
            inside = False
            continue
        cells = [cell.strip().replace("\\|", "|") for cell in CELL.split(line)[1:-1]]
        if cells[:2] == ["there", "here"]:
            inside = True
        elif inside and not cells[0].startswith("---"):
            yield number, cells


def spans(cell):
    return re.findall(r"`([^`]+)`", cell)


ROWS = list(rows(PAGE.read_text(encoding="utf-8")))
CALLS = [(number, call) for number, cells in ROWS for call in spans(cells[1])]


@functools.cache
def names():
    """What the first block of the page defines."""
    block = re.search(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)[1]
    out = {}
    exec(block, out)
    return out


def resolve(node):
    """The object that a dotted name means; submodules of the package are imported."""
    if isinstance(node, ast.Name):
        return mm if node.id == "mixedmodels" else names()[node.id]
    assert isinstance(node, ast.Attribute), ast.dump(node)
    path = ast.unparse(node)
    if path.startswith("mixedmodels."):
        try:
            return importlib.import_module(path)
        except ImportError:
            pass
    return getattr(resolve(node.value), node.attr)


def is_open(node):
    return any(isinstance(part, ast.Constant) and part.value is ... for part in ast.walk(node))


def check(call):
    """Evaluate a call; one with `...` only has its function and keywords looked up."""
    node = ast.parse(call, mode="eval").body
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        assert "~" in node.value
        parse(node.value)
    elif is_open(node):
        assert isinstance(node, ast.Call)
        parameters = inspect.signature(resolve(node.func)).parameters
        named = {keyword.arg for keyword in node.keywords}
        assert named <= set(parameters), f"{named - set(parameters)} are no keywords"
        assert len(node.args) <= 1  # only the ellipsis: what else is there must be run
    else:
        for part in ast.walk(node):
            if isinstance(part, ast.Attribute) and ast.unparse(part).startswith("mixedmodels."):
                resolve(part)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", mm.ConvergenceWarning)
            eval(compile(ast.Expression(node), "page", "eval"), names() | {"mixedmodels": mm})


@pytest.mark.parametrize(("line", "call"), CALLS, ids=[f"{line}-{call[:40]}" for line, call in CALLS])
def test_calls_exist(line, call):
    check(call)


def test_every_row_says_where_or_why_not():
    assert len(ROWS) > 170
    for number, cells in ROWS:
        assert len(cells) == 3, f"line {number}: {len(cells)} cells"
        assert spans(cells[1]) or len(cells[2]) > 10, f"line {number} says neither where nor why not"


def test_the_tests_of_the_figures_exist():
    text = PAGE.read_text(encoding="utf-8")
    table = text[text.index("## Published figures") : text.index("Not reproduced")]
    root, file, count = PAGE.parents[1], None, 0
    for span in spans(table):
        name = span
        if span.startswith("tests/"):
            path, _, name = span.partition("::")
            file = (root / path).read_text(encoding="utf-8")
        assert not name or f"def {name}(" in file, span
        count += 1
    assert count > 45


WRONG = ["fit.no_such_name", "mm.lmm(..., no_such_keyword=...)", "mixedmodels.nowhere.f(...)", "fit.lod('q')"]


@pytest.mark.parametrize("call", WRONG)
def test_a_wrong_call_is_noticed(call):
    with pytest.raises((AttributeError, AssertionError, ImportError, mm.MixedModelsError)):
        check(call)
