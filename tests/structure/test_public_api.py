"""The public surface: names resolve, and importing the package pulls in nothing heavy."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import mixedmodels as mm

HEAVY = ("scipy", "narwhals", "pandas", "polars", "pyarrow", "matplotlib", "threadpoolctl")


def loaded_after(code):
    """Top-level packages in `sys.modules` of a fresh process after running `code`."""
    program = f"import sys, json\n{code}\nprint(json.dumps(sorted({{m.split('.')[0] for m in sys.modules}})))"
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    return set(json.loads(out))


def test_importing_the_package_is_light():
    assert loaded_after("import mixedmodels").isdisjoint(HEAVY)


def test_naming_data_sets_is_light():
    assert loaded_after("import mixedmodels as mm; mm.dataset_names()").isdisjoint(HEAVY)


def test_every_public_name_resolves():
    assert sorted(mm.__all__) == sorted(set(mm.__all__))
    for name in mm.__all__:
        assert getattr(mm, name) is not None
    assert set(mm.__all__) <= set(dir(mm))


@pytest.mark.parametrize(
    "name", ["lmm", "LinearMixedModel", "load_dataset", "dataset_names", "describe_dataset"]
)
def test_the_main_names_are_public(name):
    assert name in mm.__all__


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_name"):
        mm.no_such_name  # noqa: B018


def test_the_version_is_the_installed_one():
    from importlib.metadata import PackageNotFoundError, version

    try:
        installed = version("mixedmodels")
    except PackageNotFoundError:
        pytest.skip("the package is not installed; this process runs the checkout")
    assert mm.__version__ == installed
