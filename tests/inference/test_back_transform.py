"""Inverses of transformed responses."""

import numpy as np
import pytest

from mixedmodels.formula import parse
from mixedmodels.frame.expressions import learn
from mixedmodels.inference.means.back_transform import back_transform

INVERTIBLE = [
    "log(y)", "log2(y)", "log10(y)", "log(y, base = 3)", "log1p(y)", "log(y + 1)", "log(2 * y)", "sqrt(y)",
    "1/y", "1000/y", "-1/y", "I(y^0.3)", "y^2", "exp(y/10)", "3 - y", "y/100", "I((y + 2)^(1/3))", "-log(y)",
    "qlogis(y/50)", "asin(sqrt(y/50))", "log(log(y + 2))",
]  # fmt: skip


def response(text):
    return parse(f"{text} ~ 1 + (1 | g)").response


@pytest.mark.parametrize("text", INVERTIBLE)
def test_round_trip_and_derivatives(text):
    y = np.array([0.5, 1.7, 3.0, 11.0])
    eta, _ = learn(response(text), {"y": y})
    found = back_transform(response(text))
    assert found.at(eta)[0] == pytest.approx(y, rel=1e-10)
    h = 1e-4 * np.maximum(np.abs(eta), 0.1)
    values = [np.array(found.derivatives(eta + step)) for step in (-h, h)]
    exact = np.array(found.derivatives(eta))
    numeric = (values[1] - values[0]) / (2 * h)
    assert exact[1:] == pytest.approx(numeric[:3], rel=1e-4, abs=1e-5 * np.abs(exact).max())


@pytest.mark.parametrize("text", ["y", "y1 + y2", "round(y)", "scale(y)", "f(y)", "y^y", "cos(y)"])
def test_no_inverse(text):
    assert back_transform(response(text)) is None


def test_ratios_only_for_logarithms_of_multiples():
    for text, base in (("log(y)", np.e), ("log2(y)", 2.0), ("log(y / 3)", np.e), ("log10(1000 * y)", 10.0)):
        found = back_transform(response(text))
        assert found.log_base == pytest.approx(base)
        assert found.ratio(np.array([0.0, 1.0]))[0] == pytest.approx([1.0, base])
    for text in ("log(y + 1)", "log1p(y)", "sqrt(y)", "-log(y)", "log(sqrt(y))"):
        assert back_transform(response(text)).log_base is None


def test_bias_adjustment_of_a_lognormal_and_a_square():
    """Second order: exact for squares, exp(eta) (1 + v/2) for logarithms."""
    eta, v = np.array([1.0, 2.0]), 0.3
    assert back_transform(response("sqrt(y)")).at(eta, v)[0] == pytest.approx(eta**2 + v)
    value, slope = back_transform(response("log(y)")).at(eta, v)
    assert value == pytest.approx(np.exp(eta) * (1 + v / 2))
    assert slope == pytest.approx(value)
