"""Imports go one way: the order of the rooms in docs/design/0001, read from the source with `ast`."""

from __future__ import annotations

import ast
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import mixedmodels

PACKAGE = Path(mixedmodels.__file__).parent

# A room may import rooms of lower steps and itself; rooms on one step do not know each other. Leaves import
# anything.
STEPS = [
    {"errors"},
    {"formula", "covariance", "residual", "family", "optimize"},
    {"design"},
    {"frame", "solver"},
    {"objective"},
    {"fit"},
    {"inference"},
    {"genetics"},
    {"report"},
]
LEAVES = {
    "adapters",
    "datasets",
    "testing",
    "cli",
    "cli_genetics",
    "api",
    "model",
    "files",
    "__init__",
    "__main__",
}
STEP = {room: step for step, rooms in enumerate(STEPS) for room in rooms}

# A fit answers questions, and it and its tables print themselves: these may reach upwards (inside functions).
# Families call the compiled form of their densities, which lies with the other kernels.
UPWARDS = {
    "family/base.py": {"solver"},
    "fit/questions": {"inference", "report", "genetics"},
    "fit/base.py": {"report"},
    "inference/table.py": {"report"},
}

# Compiled passes over columns: arrays in, arrays out, they know no room and may be called from all.
COLUMNS = "mixedmodels.solver._kernels.columns"

RUN_TIME = {"numpy", "scipy", "narwhals", "threadpoolctl"}
OPTIONAL = {
    "marginaleffects",
    "pandas",
    "polars",
    "pyarrow",
    "matplotlib",
    "joblib",
    "tqdm",
    "great_tables",
    "arviz",
}


@dataclass(frozen=True)
class Import:
    """One import statement: the full module name, the line, and whether it runs at import time."""

    module: str
    line: int
    late: bool


def is_type_checking(node):
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def imports_of(source, parts, *, package=False):
    """Run-time imports of the module with dotted name `parts`; those for type checkers only are left out."""
    found = []

    def visit(node, late):
        if is_type_checking(node):
            for child in node.orelse:
                visit(child, late)
            return
        if isinstance(node, ast.Import):
            found.extend(Import(alias.name, node.lineno, late) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = parts if package else parts[:-1]
            prefix = list(base[: len(base) - node.level + 1]) if node.level else []
            module = ".".join(prefix + ([node.module] if node.module else []))
            # `from mixedmodels import x` imports the room x.
            names = (
                [f"{module}.{alias.name}" for alias in node.names] if module == "mixedmodels" else [module]
            )
            found.extend(Import(name, node.lineno, late) for name in names)
        inside = late or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            visit(child, inside)

    visit(ast.parse(source), False)
    return found


def modules():
    return sorted(PACKAGE.rglob("*.py"))


def relative(path):
    return path.relative_to(PACKAGE).as_posix()


def room_of(path):
    return relative(path).removesuffix(".py").split("/")[0]


def violations(path, source):
    """Imports of `source`, standing at `path`, that go against the order."""
    parts = ["mixedmodels", *relative(path).removesuffix(".py").removesuffix("/__init__").split("/")]
    if parts[-1] == "__init__":
        parts.pop()
    own = room_of(path)
    if own in LEAVES:
        return []
    allowed = UPWARDS.get(relative(path), UPWARDS.get(relative(path.parent), set()))
    wrong = []
    for item in imports_of(source, parts, package=path.name == "__init__.py"):
        if not item.module.startswith("mixedmodels") or item.module == COLUMNS:
            continue
        pieces = item.module.split(".")
        room = pieces[1] if len(pieces) > 1 else "__init__"
        upwards = item.late and room in allowed
        if room != own and STEP.get(room, len(STEPS)) >= STEP[own] and not upwards:
            wrong.append(f"{relative(path)}:{item.line}: {own} imports {room}")
    return wrong


def test_every_module_stands_in_a_known_room():
    assert {room_of(path) for path in modules()} <= set(STEP) | LEAVES


@pytest.mark.parametrize("path", modules(), ids=relative)
def test_imports_follow_the_order_of_the_rooms(path):
    assert violations(path, path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("path", modules(), ids=relative)
def test_only_the_declared_dependencies(path):
    for item in imports_of(path.read_text(encoding="utf-8"), ["mixedmodels", "x", "y"]):
        top = item.module.split(".")[0]
        allowed = RUN_TIME | (OPTIONAL if item.late else set()) | {"mixedmodels"}
        assert top in allowed or top in sys.stdlib_module_names, f"{relative(path)}:{item.line}: {top}"


@pytest.mark.parametrize(
    ("where", "source", "count"),
    [
        ("solver/x.py", "from mixedmodels.fit.result import LMMFit", 1),
        ("solver/x.py", "from mixedmodels.frame import build", 1),
        ("solver/x.py", "from ..frame import build", 1),
        ("solver/x.py", "from . import dense", 0),
        ("solver/__init__.py", "from .dense import solve", 0),
        ("solver/x.py", "from mixedmodels import inference", 1),
        ("solver/x.py", "from mixedmodels.design import Design", 0),
        (
            "solver/x.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from mixedmodels.fit import LMMFit",
            0,
        ),
        ("solver/x.py", "def f():\n    import mixedmodels.fit", 1),
        ("fit/questions/checks.py", "def f():\n    from mixedmodels.inference import wald", 0),
        ("fit/questions/checks.py", "from mixedmodels.inference import wald", 1),
        ("fit/predict.py", "def f():\n    from mixedmodels.inference import wald", 1),
        ("frame/x.py", "from mixedmodels.solver._kernels.columns import every_level", 0),
        ("frame/x.py", "from mixedmodels.solver._kernels.grouped import GroupedLevels", 1),
        ("testing/x.py", "from mixedmodels.fit import LMMFit", 0),
    ],
)
def test_the_check_itself(where, source, count):
    assert len(violations(PACKAGE / where, source)) == count
