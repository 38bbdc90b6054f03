"""Saving and loading fits: a zip of one JSON file and NumPy arrays, with a format version; never pickle."""

from __future__ import annotations

import io
import json
import os
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import DataError, NotImplementedYetError, OptionError
from mixedmodels.fit.codec import Decoder, Encoder

if TYPE_CHECKING:
    from mixedmodels.fit.base import Fit

__all__ = ["FORMAT_VERSION", "from_bytes", "load", "save", "to_bytes"]

FORMAT_VERSION = 1
_KIND = "mixedmodels-fit"
_TREE = "fit.json"


def to_bytes(fit: Fit) -> bytes:
    """The file's content for a fit."""
    from mixedmodels.fit.solve import is_function_frame
    from mixedmodels.fit.structured import StructuredFit

    if is_function_frame(fit._frame):
        raise NotImplementedYetError("a fit with a covariance given as a function cannot be saved")
    encoder = Encoder()
    functions = sorted(set(fit._options.functions or ()) & called_functions(fit.formula))
    options = replace(fit._options, functions=None, progress="auto", start=None, control=None)
    for name in ("weights", "offset", "trials"):
        given = getattr(options, name, None)
        if not (given is None or isinstance(given, (str, int, float))):
            options = replace(options, **{name: np.asarray(given)})
    if not fit._is_linear:
        options = replace(options, family=fit._frame.family, link=None)
    tree = {
        "kind": _KIND,
        "format": FORMAT_VERSION,
        "functions": functions,
        "frame": encoder.encode(_with_functions(fit._frame, None)),
        "optimum": encoder.encode(fit._optimum),
        "options": encoder.encode(options),
    }
    if isinstance(fit, StructuredFit):
        tree["rounds"] = fit.rounds
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        _write(archive, _TREE, json.dumps(tree, allow_nan=False).encode())
        for number, array in enumerate(encoder.arrays):
            content = io.BytesIO()
            np.lib.format.write_array(content, np.asarray(array), allow_pickle=False)
            _write(archive, f"{number}.npy", content.getvalue())
    return buffer.getvalue()


def _write(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    # ZipInfo's fixed date makes equal fits equal files
    info = zipfile.ZipInfo(name)
    info.compress_type = zipfile.ZIP_DEFLATED
    archive.writestr(info, content)


def from_bytes(
    content: bytes, functions: Mapping[str, Callable] | None = None, name: str = "the content"
) -> Any:
    """The fit in a file's content."""
    from mixedmodels.fit.glmm import GLMMOptions
    from mixedmodels.fit.glmm_result import GLMMFit
    from mixedmodels.fit.result import LMMFit
    from mixedmodels.fit.solve import Options
    from mixedmodels.fit.structured import StructuredFit

    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            tree = json.loads(archive.read(_TREE))
            if tree["kind"] != _KIND:
                raise ValueError("another kind of file")
            version = int(tree["format"])
            arrays = []
            if version == FORMAT_VERSION:
                count = sum(entry.endswith(".npy") for entry in archive.namelist())
                arrays = [_read_array(archive, f"{number}.npy") for number in range(count)]
    except (
        zipfile.BadZipFile,
        zlib.error,
        KeyError,
        ValueError,
        TypeError,
        EOFError,
        OSError,
        NotImplementedError,
    ):
        raise DataError(
            f"{name} is damaged or is not a fit saved by mixedmodels; save the fit again"
        ) from None
    if version != FORMAT_VERSION:
        raise DataError(
            f"{name} has format {version}; this version of mixedmodels reads format {FORMAT_VERSION}: "
            "use the version that wrote it, or fit again"
        )
    missing = [function for function in tree.get("functions", ()) if function not in (functions or {})]
    if missing:
        raise DataError(
            f"the formula of {name} uses functions of your own, which are not stored: "
            f"pass functions={{{', '.join(f'{function!r}: ...' for function in missing)}}} to load()"
        )
    try:
        decoder = Decoder(arrays)
        frame = decoder.decode(tree["frame"])
        optimum = decoder.decode(tree["optimum"])
        options = decoder.decode(tree["options"])
        kinds: dict[type, Any] = {Options: LMMFit, GLMMOptions: GLMMFit}
        if type(options) not in kinds:
            raise ValueError("no options")
        frame = _with_functions(frame, functions)
        kind = kinds[type(options)]
        if kind is LMMFit and frame.design.residual is not None:
            kind = StructuredFit
        fit = kind(frame, None, optimum, replace(options, functions=functions), None)
        if kind is StructuredFit:
            fit._cache["residual_rounds"] = int(tree["rounds"])
        # one look at the pieces, so that a broken file fails here and not at first use
        _ = (fit.design.n, fit.criterion, fit._factors, fit.n_rows, str(fit.formula))
    except (KeyError, ValueError, TypeError, AttributeError, IndexError, ImportError):
        raise DataError(
            f"{name} is damaged or is not a fit saved by mixedmodels; save the fit again"
        ) from None
    return fit


def _read_array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    array = np.lib.format.read_array(io.BytesIO(archive.read(name)), allow_pickle=False)
    array.setflags(write=False)
    return array


def _with_functions(frame: Any, functions: Mapping[str, Callable] | None) -> Any:
    """The frame with the user's own functions put back (or taken out, where None)."""
    return replace(frame, functions=functions) if hasattr(frame, "functions") else frame


def called_functions(node: Any) -> set[str]:
    """Names of all functions that a formula calls."""
    from dataclasses import fields, is_dataclass

    from mixedmodels.formula.ast import Call

    out: set[str] = {node.function} if isinstance(node, Call) else set()
    if isinstance(node, tuple):
        for item in node:
            out |= called_functions(item)
    elif is_dataclass(node):
        for field in fields(node):
            out |= called_functions(getattr(node, field.name))
    return out


def _path(path: Any) -> Path:
    try:
        return Path(path)
    except TypeError:
        raise OptionError(f"path must be a text or a path, got {type(path).__name__}") from None


def save(fit: Fit, path: Any) -> None:
    """Write a fit to a file; the file appears whole or not at all."""
    target = _path(path)
    content = to_bytes(fit)
    try:
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=target.name, suffix=".part")
    except OSError as error:
        raise DataError(f"cannot write {str(target)!r}: {error.strerror or error}") from None
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
        os.chmod(temporary, 0o644)
        os.replace(temporary, target)
    except OSError as error:
        Path(temporary).unlink(missing_ok=True)
        raise DataError(f"cannot write {str(target)!r}: {error.strerror or error}") from None
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def load(path: Any, *, functions: Mapping[str, Callable] | None = None) -> Any:
    """Read a fit that `LMMFit.save` wrote; the file holds numbers and text only and can run no code.

    Parameters
    ----------
    path : str or path-like
    functions : dict of str to callable, optional
        The functions of your own that the formula uses; they are not in the file.

    Returns
    -------
    LMMFit or GLMMFit
        Answers everything the saved fit did, but `update` with a formula needs ``data=``.

    Raises
    ------
    DataError
        No such file, a damaged file, a file of something else, or functions that were not passed.

    Examples
    --------
    >>> import mixedmodels as mm, os, tempfile
    >>> fit = mm.lmm("Yield ~ 1 + (1 | Batch)", mm.load_dataset("Dyestuff", backend="dict"))
    >>> path = os.path.join(tempfile.mkdtemp(), "dyestuff.mm")
    >>> fit.save(path)
    >>> mm.load(path).criterion == fit.criterion
    True
    """
    source = _path(path)
    try:
        content = source.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {str(source)!r}: {error.strerror or error}") from None
    return from_bytes(content, functions, repr(str(source)))
