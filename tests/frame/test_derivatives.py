"""Derivatives of fixed-effects columns with respect to a variable."""

import numpy as np
import pytest

from mixedmodels.errors import DataError
from mixedmodels.formula import parse
from mixedmodels.frame.build import build
from mixedmodels.frame.derivatives import column_derivatives, expression_derivative
from mixedmodels.frame.newdata import encode_new

RNG = np.random.default_rng(3)
N = 60
DATA = {
    "y": RNG.normal(size=N),
    "x": RNG.uniform(0.5, 4.0, N),
    "z": RNG.uniform(0.1, 0.9, N),
    "f": RNG.choice(["a", "b", "c"], N),
    "g": RNG.choice(list("pqrstuvw"), N),
}
FIXED = [
    "x", "x + z", "x * z", "f * x", "log(x)", "f:log(x)", "poly(x, 3)", "poly(x, 2, raw = TRUE) * z",
    "bs(x, df = 5)", "bs(x, degree = 2)", "ns(x, df = 4)", "f * ns(x, df = 3)", "scale(x)", "I(x^2) + x",
    "I((x - mean(x))^2)", "sqrt(x) + exp(-x)", "I(x * z)", "I(z / x)", "sin(x) + cos(2 * x)", "log(x, 2)",
    "log(scale(x, center = FALSE))", "I(2^x)", "I(z^x)", "poly(log(x), 2)", "log1p(x):z",
    "plogis(x) + abs(x)", "tanh(x) + atan(x)", "I(-x + 3)", "x:log(x)",
]  # fmt: skip


@pytest.mark.parametrize("fixed", FIXED)
def test_derivatives_agree_with_differences(fixed):
    encoding = build(f"y ~ {fixed} + (1 | g)", DATA).encoding._replace(kept=None, null=None)
    points = {"x": np.array([0.7, 1.3, 2.9, 3.6]), "z": np.array([0.2, 0.5, 0.3, 0.8]), "f": list("abca")}
    exact, differenced = column_derivatives(encoding, points, "x")
    assert differenced == ()
    h = 1e-5
    rows = [encode_new(encoding, {**points, "x": points["x"] + step}, re_form="none").X for step in (h, -h)]
    numeric = (rows[0] - rows[1]) / (2 * h)
    assert exact == pytest.approx(numeric, rel=1e-6, abs=1e-8 * max(np.abs(numeric).max(), 1.0))


def test_splines_continue_outside_their_boundary():
    for fixed in ("ns(x, df = 3)", "bs(x, df = 4)"):
        encoding = build(f"y ~ {fixed} + (1 | g)", DATA).encoding
        points = {"x": np.array([-1.0, 6.0])}
        exact, _ = column_derivatives(encoding, points, "x")
        rows = [encode_new(encoding, {"x": points["x"] + s}, re_form="none").X for s in (1e-5, -1e-5)]
        assert exact == pytest.approx((rows[0] - rows[1]) / 2e-5, rel=1e-6, abs=1e-7)


def test_a_function_without_a_rule_is_differenced_and_named():
    functions = {"cube": lambda x: x**3}
    encoding = build("y ~ cube(x) + log(x) + (1 | g)", DATA, functions=functions).encoding
    found, differenced = column_derivatives(encoding, {"x": np.array([2.0])}, "x", functions)
    assert differenced == ("cube(x)",)
    assert found[0] == pytest.approx([0.0, 12.0, 0.5], rel=1e-8)


def test_other_variables_and_factors_have_no_slope():
    encoding = build("y ~ f + z + I(x > 2) + x + (1 | g)", DATA).encoding
    found, _ = column_derivatives(encoding, {"x": np.array([1.0]), "z": np.array([0.5]), "f": ["b"]}, "x")
    names = build("y ~ f + z + I(x > 2) + x + (1 | g)", DATA).design.x_names
    assert dict(zip(names, found[0].tolist(), strict=True)) == {name: float(name == "x") for name in names}


def test_expression_derivative():
    expression = parse("y ~ log(x)").fixed.terms[0].factors[0]
    assert expression_derivative(expression, {"x": np.array([2.0, 4.0])}, "x").tolist() == [0.5, 0.25]
    unknown = parse("y ~ scale(x)").fixed.terms[0].factors[0]
    with pytest.raises(DataError, match="derivative of scale"):
        expression_derivative(unknown, {"x": np.array([2.0])}, "x")
