"""The repository stands alone: no committed text names a path outside it."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
# Written in two pieces so that this file does not name them itself.
FOREIGN = ("/" + "work/", "../" + "shared", "/" + "home/")
KEPT_OUT = {"build", "dist", "data", "results", "__pycache__"}
TEXT = {
    ".py",
    ".pyx",
    ".pxd",
    ".md",
    ".toml",
    ".yml",
    ".yaml",
    ".cff",
    ".json",
    ".build",
    ".sh",
    ".R",
    ".cfg",
    "",
}


def committed_texts():
    for path in ROOT.rglob("*"):
        parts = path.relative_to(ROOT).parts
        hidden = any(part.startswith(".") and part not in (".ci", ".github") for part in parts[:-1])
        if path.is_file() and not hidden and not KEPT_OUT & set(parts[:-1]) and path.suffix in TEXT:
            yield path


def test_no_file_names_a_path_outside_the_repository():
    texts = list(committed_texts())
    assert len(texts) > 20
    found = []
    for path in texts:
        if path.name == ".git":
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        found += [f"{path.relative_to(ROOT)}: {foreign}" for foreign in FOREIGN if foreign in text]
    assert found == []
