"""The package's public names are reached through it, and importing it is light."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from mixedmodels import genetics


@pytest.mark.parametrize("name", genetics.__all__)
def test_every_public_name_is_a_class_or_function(name):
    thing = getattr(genetics, name)
    assert callable(thing) and thing.__name__ == name
    assert name in dir(genetics)


def test_a_module_does_not_hide_a_function_of_its_name():
    homes = [name for name in genetics.__all__ if getattr(genetics, name).__module__.endswith(f".{name}")]
    program = "import importlib\nfrom mixedmodels import genetics\n"
    for name in homes:
        importlib.import_module(f"mixedmodels.genetics.{name}")
        assert callable(getattr(genetics, name))
        program += (
            f"importlib.import_module('mixedmodels.genetics.{name}'); assert callable(genetics.{name})\n"
        )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_name"):
        genetics.no_such_name  # noqa: B018


def test_importing_the_package_is_light():
    program = (
        "import sys, mixedmodels.genetics; print(sorted({'numpy', 'scipy', 'narwhals'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"
