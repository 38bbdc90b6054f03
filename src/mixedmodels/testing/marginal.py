"""Conformance check of engines that integrate random effects out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mixedmodels.objective.marginal.base import Marginal
from mixedmodels.testing.checks import assert_close

__all__ = ["check_marginal"]


def check_marginal(
    engine: Marginal,
    oracle: Marginal,
    gamma: np.ndarray,
    factors: Sequence[np.ndarray],
    hessian: bool = True,
) -> None:
    """Compare an engine with a reference one, at one point.

    Parameters
    ----------
    engine, oracle : Marginal
        On the same design and family.
    gamma : ndarray, shape (n_gamma,)
    factors : sequence of ndarray
    hessian : bool
        Whether second derivatives are compared.

    Raises
    ------
    AssertionError
        The value differs by more than 1e-9 of its size, the gradient or the Hessian by more than 1e-7 of
        theirs, a lower order differs from a higher one, or modes, conditional covariances or predictor
        variances differ.
    """
    assert engine.entries == oracle.entries, "the entries of the factors differ"
    order = 2 if hessian else 1
    got, want = engine.evaluate(gamma, factors, order), oracle.evaluate(gamma, factors, order)
    _close(got.value, want.value, 1e-9, "value")
    _close(got.gradient, want.gradient, 1e-7, "gradient")
    if hessian:
        _close(got.hessian, want.hessian, 1e-7, "hessian")
        _close(got.penalised, want.penalised, 1e-7, "penalised")
    _close(engine.evaluate(gamma, factors, 0).value, got.value, 1e-11, "value of order 0")
    first = engine.evaluate(gamma, factors, 1)
    _close(first.value, got.value, 1e-11, "value of order 1")
    _close(first.gradient, got.gradient, 1e-9, "gradient of order 1")
    step = engine.newton(gamma, factors)
    _close(step.value, want.value, 1e-9, "value of newton")
    _close(step.gradient, want.gradient, 1e-7, "gradient of newton")
    modes, expected = engine.modes(gamma, factors), oracle.modes(gamma, factors)
    for name in ("u", "b"):
        for one, other in zip(getattr(modes, name), getattr(expected, name), strict=True):
            _close(one, other, 1e-7, f"modes.{name}")
    _close(modes.eta, expected.eta, 1e-7, "modes.eta")
    _close(modes.penalised, expected.penalised, 1e-9, "modes.penalised")
    _close(modes.logdet, expected.logdet, 1e-7, "modes.logdet")
    for term in range(len(engine.design.terms)):
        _close(
            engine.conditional_covariance(gamma, factors, term),
            oracle.conditional_covariance(gamma, factors, term),
            1e-7,
            f"conditional_covariance of term {term}",
        )
    _close(
        engine.predictor_variances(gamma, factors),
        oracle.predictor_variances(gamma, factors),
        1e-7,
        "predictor_variances",
    )


def _close(got: object, want: object, tolerance: float, what: str) -> None:
    size = float(np.abs(np.asarray(want, dtype=float)).max(initial=0.0))
    assert_close(got, want, rtol=0.0, what=what, atol=tolerance * max(1.0, size))
