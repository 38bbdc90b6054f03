"""Opening text files, compressed or not, and cutting them into fields."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from mixedmodels.errors import DataError

__all__ = ["open_text", "read_fields", "write_lines"]


def _opener(path: Path, start: bytes) -> Any:
    """The module that opens this file, known by its first bytes."""
    if start.startswith(b"\x1f\x8b"):
        import gzip

        return gzip
    if start.startswith(b"BZh"):
        import bz2

        return bz2
    if start.startswith(b"\xfd7zXZ\x00") or path.suffix.lower() == ".lzma":
        import lzma

        return lzma
    return None


def open_text(path: str | Path) -> IO[str]:
    """Open a text file that may be compressed by gzip, bzip2, xz or lzma (seen from its first bytes).

    Raises
    ------
    DataError
        The file cannot be read.
    """
    place = Path(path)
    try:
        with place.open("rb") as stream:
            module = _opener(place, stream.read(6))
        if module is None:
            return place.open(encoding="utf-8-sig", newline=None)
        return io.TextIOWrapper(module.open(place, "rb"), encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"cannot read {str(path)!r}: {error.strerror or error}") from None


def read_fields(
    path: str | Path, delimiter: str | None = None, *, least: int = 1, what: str = "line"
) -> Iterator[tuple[int, list[str]]]:
    """Line numbers and fields of a file; blank lines and lines that begin with # are passed over.

    Parameters
    ----------
    path : path
    delimiter : str, optional
        Any white space without it.
    least : int
        Fewest fields of a line.
    what : str
        What the fields are, for messages.

    Raises
    ------
    DataError
        The file cannot be read, or a line has too few fields.
    """
    with open_text(path) as stream:
        try:
            for number, line in enumerate(stream, start=1):
                text = line.strip() if delimiter is None else line.rstrip("\r\n")
                if not text.strip() or text.startswith("#"):
                    continue
                fields = text.split(delimiter)
                if delimiter is not None:
                    fields = [field.strip() for field in fields]
                if len(fields) < least:
                    raise DataError(
                        f"line {number} of {str(path)!r} has {len(fields)} fields, at least {least} "
                        f"are needed ({what}); "
                        "if fields are not separated by white space, give delimiter="
                    )
                yield number, fields
        except (OSError, EOFError, UnicodeDecodeError) as error:
            raise DataError(f"cannot read {str(path)!r}: {error}") from None


def write_lines(path: str | Path, lines: Iterator[str]) -> None:
    """Write lines of text, compressed if the name ends in .gz, .bz2, .xz or .lzma."""
    place = Path(path)
    suffix = place.suffix.lower()
    kinds = {".gz": b"\x1f\x8b", ".bz2": b"BZh", ".xz": b"\xfd7zXZ\x00", ".lzma": b""}
    module = _opener(place, kinds[suffix]) if suffix in kinds else None
    try:
        if module is None:
            stream: Any = place.open("w", encoding="utf-8", newline="\n")
        elif suffix == ".lzma":
            stream = module.open(place, "wt", encoding="utf-8", format=module.FORMAT_ALONE)
        else:
            stream = module.open(place, "wt", encoding="utf-8")
        with stream:
            stream.writelines(f"{line}\n" for line in lines)
    except OSError as error:
        raise DataError(f"cannot write {str(path)!r}: {error.strerror or error}") from None
