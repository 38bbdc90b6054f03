"""Every public function, class and method says what it does, and the examples in docstrings run."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil

import pytest

import mixedmodels

SKIPPED = ("mixedmodels.solver._kernels",)


def module_names():
    names = [info.name for info in pkgutil.walk_packages(mixedmodels.__path__, "mixedmodels.")]
    return sorted(n for n in names if not n.startswith(SKIPPED) and not n.endswith("__main__"))


def is_documented(thing, name):
    """Whether the docstring is a sentence of its own, not the signature that `dataclass` writes."""
    text = (inspect.getdoc(thing) or "").strip()  # a method may take the docstring of the one it overrides
    return len(text) > 10 and not text.startswith(f"{name}(")


def public_things(module):
    """(qualified name, name, object) for what `__all__` offers, with the methods of its classes."""
    for name in getattr(module, "__all__", ()):
        thing = getattr(module, name)
        if getattr(thing, "__module__", None) != module.__name__:
            continue
        if inspect.isfunction(thing) or inspect.isclass(thing):
            yield name, name, thing
        if inspect.isclass(thing):
            for key, member in vars(thing).items():
                inner = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
                if not key.startswith("_") and inspect.isfunction(inner):
                    yield f"{name}.{key}", key, inner


@pytest.mark.parametrize("name", module_names())
def test_modules_say_what_they_hold(name):
    assert is_documented(importlib.import_module(name), name)


@pytest.mark.parametrize("name", module_names())
def test_public_names_are_documented(name):
    module = importlib.import_module(name)
    assert [label for label, short, thing in public_things(module) if not is_documented(thing, short)] == []


@pytest.mark.parametrize("name", module_names())
def test_doctests(name):
    module = importlib.import_module(name)
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    result = doctest.testmod(module, optionflags=flags)
    assert result.failed == 0, f"{result.failed} of {result.attempted} examples failed; output above"
