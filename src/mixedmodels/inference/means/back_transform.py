"""Inverse of a transformed response: ``log(y)``, ``sqrt(y)``, ``1/y``, ``(y + 1)^0.5``, compositions."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from mixedmodels.formula import render
from mixedmodels.formula.ast import Call, Expression, Number, Operation, Variable

__all__ = ["BackTransform", "back_transform"]

# u -> the value and the first three derivatives of one step of the inverse
Step = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]


@dataclass(frozen=True, slots=True, eq=False)
class BackTransform:
    """From the scale of the model to the scale of the response.

    Attributes
    ----------
    text : str
        The response as written in the formula.
    scale : str
        How the scale of the model is called: "log", "sqrt", or the text.
    steps : tuple of callable
    log_base : float or None
        Base if the response is the logarithm of a multiple of a variable: differences become ratios.
    ratio_name : str
        What these are called: "ratios", "odds ratios".
    """

    text: str
    scale: str
    steps: tuple[Step, ...]
    log_base: float | None
    ratio_name: str = "ratios"

    def derivatives(self, eta: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """h(eta), h', h'' and h''' by the chain rule."""
        u = np.array(eta, dtype=float)
        u1, u2, u3 = np.ones_like(u), np.zeros_like(u), np.zeros_like(u)
        with np.errstate(all="ignore"):
            for step in self.steps:
                g, g1, g2, g3 = step(u)
                u, u1, u2, u3 = (
                    g,
                    g1 * u1,
                    g2 * u1**2 + g1 * u2,
                    g3 * u1**3 + 3.0 * g2 * u1 * u2 + g1 * u3,
                )
        return u, u1, u2, u3

    def at(self, eta: np.ndarray, variance: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
        r"""Mean response and its derivative, ``h(eta) + variance/2 h''(eta)`` (second order)."""
        h, h1, h2, h3 = self.derivatives(eta)
        return h + 0.5 * variance * h2, h1 + 0.5 * variance * h3

    def ratio(self, difference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The ratio that a difference of logarithms stands for, and its derivative."""
        assert self.log_base is not None
        scale = math.log(self.log_base)
        with np.errstate(over="ignore"):
            value = np.exp(scale * np.asarray(difference))
        return value, scale * value


def back_transform(response: Expression | None) -> BackTransform | None:
    """The inverse of a response's transform; None for a plain column or one without a known inverse.

    Examples
    --------
    >>> from mixedmodels.formula import parse
    >>> found = back_transform(parse("log(y) ~ 1 + (1 | g)").response)
    >>> found.at(np.zeros(1), 0.5)[0]
    array([1.25])
    """
    if response is None or isinstance(response, Variable):
        return None
    steps: list[Step] = []
    node: Expression = response
    log_base: float | None = None
    proportional = True
    while not isinstance(node, Variable):
        found = _inverse(node)
        if found is None:
            return None
        step, node_inside, kind = found
        if kind != "same":
            assert step is not None
            base = _log_base(node)
            if base is not None and not steps:
                log_base = base
            elif kind != "scale":
                proportional = False
            steps.append(step)
        node = node_inside
    if not steps:
        return None
    name = response.function if isinstance(response, Call) and response.function != "I" else render(response)
    return BackTransform(render(response), name, tuple(steps), log_base if proportional else None)


def _constant(node: Expression) -> float | None:
    if isinstance(node, Number):
        return float(node.value)
    if isinstance(node, Operation) and node.operator in ("-", "+", "(") and len(node.args) == 1:
        value = _constant(node.args[0])
        return None if value is None else (-value if node.operator == "-" else value)
    if isinstance(node, Operation) and node.operator in ("/", "*") and len(node.args) == 2:
        a, b = (_constant(argument) for argument in node.args)
        if a is None or b is None or (node.operator == "/" and b == 0.0):
            return None
        return a / b if node.operator == "/" else a * b
    return None


def _log_base(node: Expression) -> float | None:
    if not isinstance(node, Call):
        return None
    if node.function in ("log2", "log10"):
        return 2.0 if node.function == "log2" else 10.0
    if node.function != "log":
        return None
    extra = [*node.args[1:], *(value for _, value in node.kwargs)]
    return math.e if not extra else _constant(extra[0])


def _inverse(node: Expression) -> tuple[Step | None, Expression, str] | None:
    """Inverse of the outermost operation, what is inside, and whether it only scales ("scale")."""
    if isinstance(node, Call):
        if not node.args:
            return None
        inside = node.args[0]
        if node.function in ("I", "identity"):
            return None, inside, "same"
        base = _log_base(node)
        if base is not None:
            return _exponential(math.log(base)), inside, "other"
        step = _STEPS.get(node.function)
        return None if step is None else (step, inside, "other")
    if not isinstance(node, Operation):
        return None
    if len(node.args) == 1:
        if node.operator in ("(", "+"):
            return None, node.args[0], "same"
        return (_linear(-1.0, 0.0), node.args[0], "scale") if node.operator == "-" else None
    left, right = node.args
    a, b = _constant(left), _constant(right)
    if b is not None and a is None:
        inverse: dict[str, Any] = {
            "+": lambda: (_linear(1.0, -b), left, "shift"),
            "-": lambda: (_linear(1.0, b), left, "shift"),
            "*": lambda: (_linear(1.0 / b, 0.0), left, "scale") if b else None,
            "/": lambda: (_linear(b, 0.0), left, "scale") if b else None,
            "^": lambda: (_power(1.0 / b), left, "other") if b else None,
        }
        return inverse.get(node.operator, lambda: None)()
    if a is not None and b is None:
        inverse = {
            "+": lambda: (_linear(1.0, -a), right, "shift"),
            "-": lambda: (_linear(-1.0, a), right, "shift"),
            "*": lambda: (_linear(1.0 / a, 0.0), right, "scale") if a else None,
            "/": lambda: (_reciprocal(a), right, "other") if a else None,
        }
        return inverse.get(node.operator, lambda: None)()
    return None


def _linear(slope: float, shift: float) -> Step:
    def step(u: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        zero = np.zeros_like(u)
        return slope * u + shift, zero + slope, zero, zero

    return step


def _exponential(k: float) -> Step:
    def step(u: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        value = np.exp(k * u)
        return value, k * value, k**2 * value, k**3 * value

    return step


def _power(c: float) -> Step:
    def step(u: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        # c (c - 1) (c - 2) vanishes for c = 2 before the power does
        third = c * (c - 1.0) * (c - 2.0)
        last = np.zeros_like(u) if third == 0.0 else third * u ** (c - 3.0)
        return u**c, c * u ** (c - 1.0), c * (c - 1.0) * u ** (c - 2.0), last

    return step


def _reciprocal(a: float) -> Step:
    def step(u: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        return a / u, -a / u**2, 2.0 * a / u**3, -6.0 * a / u**4

    return step


def _expm1(u: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    e = np.exp(u)
    return np.expm1(u), e, e, e


def _logarithm(u: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    return np.log(u), 1.0 / u, -1.0 / u**2, 2.0 / u**3


def _logistic(u: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    p = 0.5 * (1.0 + np.tanh(0.5 * u))
    d = p * (1.0 - p)
    return p, d, d * (1.0 - 2.0 * p), d * (1.0 - 6.0 * d)


def _sine(u: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    return np.sin(u), np.cos(u), -np.sin(u), -np.cos(u)


_STEPS: dict[str, Step] = {
    "asin": _sine,
    "exp": _logarithm,
    "log1p": _expm1,
    "qlogis": _logistic,
    "sqrt": _power(2.0),
}
