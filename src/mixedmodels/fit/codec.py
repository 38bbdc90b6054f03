"""Plain trees and arrays for frozen objects, and back: the storage form of a fit. Reading it can run no code.

Objects become JSON with a few tagged forms (``{"$": kind, ...}``) and arrays become numbered NumPy arrays.
Only classes of the modules listed here are rebuilt, attribute by attribute, without calling them; covariance
structures are made by their classes, and residual structures are bound again to their data.
"""

from __future__ import annotations

import base64
import dataclasses
import datetime
import enum
import importlib
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from mixedmodels.covariance import Covariance
from mixedmodels.covariance.function import FunctionCovariance
from mixedmodels.errors import DataError
from mixedmodels.family import LINKS, Family, Link, Observations
from mixedmodels.frame.factors import CategoryLevels
from mixedmodels.residual.combine import CombinedResidual
from mixedmodels.residual.data import ResidualData
from mixedmodels.residual.structure import Structure

__all__ = ["Decoder", "Encoder"]

# Modules whose classes hold data only. `frame`, `optimize` and `family` are rooms: any of their modules.
_MODULES = (
    "mixedmodels.formula.ast",
    "mixedmodels.design",
    "mixedmodels.fit.glmm_frame",
    "mixedmodels.fit.solve",
    "mixedmodels.fit.matrices",
)
_ROOMS = ("mixedmodels.frame.", "mixedmodels.optimize.", "mixedmodels.family.", "mixedmodels.residual.")
_COVARIANCE = "mixedmodels.covariance."


def _allowed(module: str) -> bool:
    return module in _MODULES or module.startswith(_ROOMS)


def _importable(cls: type) -> bool:
    """Whether a class is one of the package, under its own name."""
    if not _allowed(cls.__module__):
        return False
    return getattr(importlib.import_module(cls.__module__), cls.__qualname__, None) is cls


def _attributes(cls: type) -> list[str]:
    """Names of all stored attributes of a class: dataclass fields or slots."""
    if dataclasses.is_dataclass(cls):
        return [field.name for field in dataclasses.fields(cls)]
    names: list[str] = []
    for base in reversed(cls.__mro__):
        slots = base.__dict__.get("__slots__", ())
        names += [slots] if isinstance(slots, str) else list(slots)
    return [name for name in names if name not in ("__weakref__", "__dict__")]


class Encoder:
    """Turns objects into a JSON tree; arrays gather in `arrays`."""

    def __init__(self) -> None:
        self.arrays: list[np.ndarray] = []
        self._seen: dict[int, tuple[int, Any]] = {}

    def encode(self, value: Any) -> Any:
        """JSON tree of a value.

        Raises
        ------
        DataError
            A value of a type that cannot be stored.
        """
        if value is None or isinstance(value, (bool, str)):
            return str(value) if isinstance(value, np.str_) else value
        if isinstance(value, enum.Enum):
            return {"$": "enum", "class": self._class(type(value)), "name": value.name}
        if isinstance(value, int):
            return value
        if isinstance(value, float):
            return value if math.isfinite(value) else {"$": "float", "value": repr(float(value))}
        if isinstance(value, CategoryLevels):
            value = value.values
        if isinstance(value, np.ndarray):
            return self._array(value)
        if isinstance(value, np.generic):
            if value.dtype.kind in "mM":
                return {"$": "scalar", "value": self._array(np.array([value]))}
            return self.encode(value.item())
        if isinstance(value, list):
            return [self.encode(item) for item in value]
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            items = [self.encode(item) for item in value]
            return {"$": "named", "class": self._class(type(value)), "items": items}
        if isinstance(value, tuple):
            return {"$": "tuple", "items": [self.encode(item) for item in value]}
        if isinstance(value, (set, frozenset)):
            items = sorted(value, key=repr)
            return {"$": type(value).__name__, "items": [self.encode(item) for item in items]}
        if isinstance(value, range):
            return {"$": "range", "items": [value.start, value.stop, value.step]}
        if isinstance(value, slice):
            return {
                "$": "slice",
                "items": [self.encode(item) for item in (value.start, value.stop, value.step)],
            }
        if isinstance(value, bytes):
            return {"$": "bytes", "value": base64.b64encode(value).decode()}
        if isinstance(value, (datetime.datetime, datetime.date)):
            return {"$": type(value).__name__, "value": value.isoformat()}
        if isinstance(value, Mapping):
            return {"$": "dict", "items": [[self.encode(k), self.encode(v)] for k, v in value.items()]}
        module = type(value).__module__
        if module.startswith(_COVARIANCE):
            return self._covariance(value)
        if isinstance(value, CombinedResidual):
            parts = [self.encode(part) for part in (*value.origin, value.fitted)]
            return {"$": "residual", "items": parts}
        if isinstance(value, Link):
            if LINKS.get(value.name) is not value:
                raise DataError(f"a fit with a link of your own ({value.name!r}) cannot be saved")
            return {"$": "link", "name": value.name}
        if isinstance(value, Family) and not _importable(type(value)):
            raise DataError(
                f"a fit with a family of your own ({value.name!r}) cannot be saved: its density is code; "
                "keep fit.psi and fit again with start=psi"
            )
        if isinstance(value, Observations) and value.constants:
            return self._object(dataclasses.replace(value, constants={}))
        if module.startswith("scipy.sparse"):
            matrix = value.tocsc()
            parts = [self._array(part) for part in (matrix.data, matrix.indices, matrix.indptr)]
            return {"$": "csc", "shape": list(matrix.shape), "parts": parts}
        if isinstance(value, Structure) and callable(getattr(value, "function", None)):
            raise DataError(
                f"a fit with a residual structure given by a function ({value}) cannot be saved: it is code; "
                "keep fit.theta and fit again with start=theta"
            )
        if _allowed(module):
            return self._object(value)
        raise DataError(f"a fit that holds an object of type {type(value).__name__!r} cannot be saved")

    def _covariance(self, value: Any) -> Any:
        """A structure by its tag; one that has more than a tag by what its class is called with."""
        if isinstance(value, Covariance) and value.entries is not None:
            return {"$": "covariance", "name": value.name, "k": int(value.k)}
        cls, arguments = value.__reduce__()[:2]
        if cls.__module__ != type(value).__module__:
            raise DataError(f"a fit that holds a covariance of type {type(value).__name__!r} cannot be saved")
        items = [self.encode(item) for item in arguments]
        return {"$": "structure", "class": f"{cls.__module__}:{cls.__qualname__}", "items": items}

    def _array(self, array: np.ndarray) -> Any:
        key = id(array)
        if key in self._seen:
            return {"$": "array", "number": self._seen[key][0]}
        if array.dtype.kind == "O":
            return {
                "$": "objects",
                "shape": list(array.shape),
                "items": [self.encode(item) for item in array.reshape(-1).tolist()],
            }
        if array.dtype.kind not in "fiubUSmMc" or isinstance(array, np.ma.MaskedArray):
            raise DataError(f"a fit that holds an array of type {array.dtype} cannot be saved")
        self._seen[key] = (len(self.arrays), array)  # keeps the array alive, so that its id stays its own
        self.arrays.append(array)
        return {"$": "array", "number": self._seen[key][0]}

    def _object(self, value: Any) -> Any:
        attributes = {}
        for name in _attributes(type(value)):
            if hasattr(value, name):
                attributes[name] = self.encode(getattr(value, name))
        for name, item in getattr(value, "__dict__", {}).items():
            if name not in attributes:
                attributes[name] = self.encode(item)
        return {"$": "object", "class": self._class(type(value)), "attributes": attributes}

    @staticmethod
    def _class(cls: type) -> str:
        if not _allowed(cls.__module__):
            raise DataError(f"a fit that holds an object of type {cls.__name__!r} cannot be saved")
        return f"{cls.__module__}:{cls.__qualname__}"


class Decoder:
    """Rebuilds what `Encoder` stored."""

    def __init__(self, arrays: list[np.ndarray]) -> None:
        self.arrays = arrays

    def decode(self, tree: Any) -> Any:
        """Value of a JSON tree; ValueError, KeyError, TypeError or AttributeError where it is not one."""
        if isinstance(tree, list):
            return [self.decode(item) for item in tree]
        if not isinstance(tree, dict):
            return tree
        kind = tree["$"]
        if kind == "array":
            return self.arrays[tree["number"]]
        if kind == "object":
            return self._object(tree)
        if kind == "enum":
            return _resolve(tree["class"], enum.Enum)[tree["name"]]
        if kind == "dict":
            return {self.decode(k): self.decode(v) for k, v in tree["items"]}
        if kind == "float":
            return float(tree["value"])
        if kind == "bytes":
            return base64.b64decode(tree["value"])
        if kind == "datetime":
            return datetime.datetime.fromisoformat(tree["value"])
        if kind == "date":
            return datetime.date.fromisoformat(tree["value"])
        if kind == "scalar":
            return self.decode(tree["value"])[0]
        if kind == "covariance":
            from mixedmodels.covariance import make_covariance

            return make_covariance(tree["name"], tree["k"])
        if kind == "link":
            return LINKS[tree["name"]]
        if kind == "csc":
            from scipy.sparse import csc_array

            return csc_array(tuple(self.decode(part) for part in tree["parts"]), shape=tuple(tree["shape"]))
        items = [self.decode(item) for item in tree["items"]]
        if kind == "residual":
            return _bound(*items)
        if kind == "structure":
            return _structure_class(tree["class"])(*items)
        if kind == "named":
            return _resolve(tree["class"], tuple)._make(items)
        if kind == "objects":
            array = np.empty(len(items), dtype=object)
            array[:] = items
            array = array.reshape(tree["shape"])
            array.setflags(write=False)
            return array
        makers: dict[str, Any] = {
            "tuple": tuple,
            "set": set,
            "frozenset": frozenset,
            "range": lambda values: range(*values),
            "slice": lambda values: slice(*values),
        }
        return makers[kind](items)

    def _object(self, tree: dict[str, Any]) -> Any:
        cls = _resolve(tree["class"], object)
        value = object.__new__(cls)
        for name, item in tree["attributes"].items():
            object.__setattr__(value, name, self.decode(item))
        return value


def _bound(structure: Any, data: Any, weights: Any, fitted: Any) -> CombinedResidual:
    """A residual structure bound to its data again."""
    if not isinstance(structure, Structure) or not isinstance(data, ResidualData):
        raise ValueError("no residual structure")
    bound: CombinedResidual = structure.bind(data, weights)
    return bound if fitted is None else bound.with_fitted(fitted)


def _structure_class(path: str) -> Any:
    """The class of a covariance structure named by ``module:Class``."""
    module, _, name = path.partition(":")
    if not module.startswith(_COVARIANCE) or not name.isidentifier():
        raise ValueError(f"{path!r} is not a class of a stored fit")
    cls = getattr(importlib.import_module(module), name)
    if not isinstance(cls, type) or cls.__module__ != module or issubclass(cls, FunctionCovariance):
        raise ValueError(f"{path!r} is not a class of a stored fit")
    return cls


def _resolve(path: str, base: type) -> Any:
    """The class named by ``module:Class``, if it is one of ours."""
    module, _, name = path.partition(":")
    if not _allowed(module) or not name.isidentifier():
        raise ValueError(f"{path!r} is not a class of a stored fit")
    cls = getattr(importlib.import_module(module), name)
    if not isinstance(cls, type) or not issubclass(cls, base) or cls.__module__ != module:
        raise ValueError(f"{path!r} is not a class of a stored fit")
    return cls
