"""List the Python sources and the data of the package, one path a line, relative to src/mixedmodels.

Meson asks for the list when it configures: a checkout may hold kernels compiled in place and byte code, which
no wheel may carry.
"""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "src" / "mixedmodels"


def package_files() -> list[str]:
    """Sorted paths of ``*.py``, ``py.typed`` and the packed data sets."""
    found = [*PACKAGE.rglob("*.py"), PACKAGE / "py.typed", *(PACKAGE / "datasets" / "data").glob("*.npz")]
    return sorted(path.relative_to(PACKAGE).as_posix() for path in found)


if __name__ == "__main__":
    print("\n".join(package_files()))
