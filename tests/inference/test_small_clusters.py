"""Binary data with few rows per cluster: what Laplace's approximation does and quadrature repairs.

The whole simulation is tools/small_clusters.py, its figures are in docs/small_clusters.md.
"""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path

import numpy as np
import pytest

import mixedmodels as mm

PATH = Path(__file__).parents[2] / "tools" / "small_clusters.py"


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("small_clusters_tool", PATH)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
        yield module
    finally:
        del sys.modules[spec.name]


@pytest.mark.parametrize(("n", "nagq", "told"), [(3, 1, True), (6, 1, True), (12, 1, False), (6, 7, False)])
def test_the_message_appears_where_laplace_is_biased(tool, n, nagq, told):
    data = tool.columns(n, 40)
    y = tool.responses(data, 1.0, 1, np.random.default_rng(2))[:, 0]
    fit = mm.glmm("y ~ x + t + (1 | g)", {**data, "y": y}, family="binomial", nagq=nagq)
    found = [text for text in fit.messages if "few binary observations" in text]
    assert len(found) == told
    if told:
        assert f"median {n}" in found[0] and "use nagq=7 or more" in found[0]


@pytest.mark.slow
@pytest.mark.parametrize(("n", "bias"), [(3, -0.22), (6, -0.09)])
def test_quadrature_repairs_the_bias(tool, n, bias):
    """1000 clusters, sd 2: maximum likelihood is all but unbiased, Laplace's approximation is not."""
    laplace, quadrature = tool.simulate(n, 1000, 2.0, 60, seed=7, nagq=(1, 7))
    assert laplace.fits == quadrature.fits == 60
    error = quadrature.sd.std() / math.sqrt(60)
    assert abs(quadrature.sd.mean() - 2.0) < 3.0 * error
    assert laplace.sd.mean() - 2.0 < -5.0 * error
    assert laplace.sd.mean() - 2.0 == pytest.approx(bias, abs=4.0 * error)  # as on the page
    # intervals of the standard deviation: nominal by quadrature, not by Laplace; 0.95 - 3 errors = 0.866
    assert quadrature.coverage_sd > 0.866
    assert laplace.coverage_sd < quadrature.coverage_sd
    if n == 3:
        assert laplace.coverage_sd < 0.8
    assert laplace.told == 1.0 and quadrature.told == 0.0
    for found in (laplace, quadrature):  # tests of coefficients keep their level
        assert found.type_one < 0.05 + 3.0 * tool.error_of(0.05, 60)


@pytest.mark.slow
def test_seven_nodes_are_enough(tool):
    seven, many = tool.simulate(6, 50, 1.0, 20, seed=3, nagq=(7, 25))
    np.testing.assert_allclose(seven.sd, many.sd, rtol=5e-3, atol=1e-4)
    np.testing.assert_allclose(seven.errors, many.errors, atol=5e-3)
