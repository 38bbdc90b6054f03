r"""Responses drawn from a generalised model that was never fitted: formulas, a design and parameters."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from mixedmodels.errors import OptionError
from mixedmodels.family import Observations
from mixedmodels.family.cumulative import Cumulative
from mixedmodels.family.gaussian import Gaussian
from mixedmodels.fit.denovo import factors_of_sds, factors_of_theta, with_stand_in
from mixedmodels.fit.glmm_checks import family_of, with_parts
from mixedmodels.fit.glmm_simulate import Drawing, draw_generalised, trials_of
from mixedmodels.fit.glmm_values import linear_predictor
from mixedmodels.fit.simulate import fixed_values
from mixedmodels.frame.parts import build_generalised

__all__ = ["draw_new"]


def draw_new(
    formula: Any,
    data: Any,
    family: Any,
    link: Any,
    *,
    beta: Any,
    gamma: Any,
    theta: Any,
    sd: Any,
    corr: Any,
    dispersion: Any,
    zero_inflation: Any,
    trials: Any,
    offset: Any,
    contrasts: Any,
    functions: Any,
    n: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Draws, shape (rows, n), NaN in rows with missing values; see `mixedmodels.simulate`."""
    made, parts = with_parts(
        family_of(family, link),
        dispersion if isinstance(dispersion, str) else None,
        zero_inflation if isinstance(zero_inflation, (str, bool)) else zero_inflation is not None,
    )
    formula, columns = with_stand_in(formula, data)
    stand_in = Gaussian()  # takes any response; only the design is looked at
    given = _given(gamma, made, dispersion, zero_inflation)
    if isinstance(made, Cumulative):
        if "thresholds" not in given:
            raise OptionError('ordered categories need thresholds: gamma={"thresholds": [-1.0, 0.0, 1.0]}')
        made = made.with_alpha(given.pop("thresholds"))
        stand_in.predictors = ("conditional",)  # type: ignore[assignment]
    else:
        stand_in.predictors = made.predictors  # type: ignore[assignment]
    frame = build_generalised(
        formula,
        columns,
        stand_in,
        parts=parts,
        offset=offset,
        contrasts=contrasts,
        functions=functions,
        free_dispersion=False,
    )
    design, rows = frame.generalised, frame.n_rows
    assert design is not None
    p = frame.design.p
    names = design.gamma_names[p:]
    for name in given:
        if name not in names:
            raise OptionError(
                f"gamma: there is no parameter {name!r}; beside the fixed effects (beta) the model has "
                f"{', '.join(names) or 'none'}"
            )
    x_names = frame.design.x_names
    intercept = np.zeros(0)
    if isinstance(made, Cumulative) and x_names[:1] == ("(Intercept)",):  # thresholds stand in its place
        x_names, intercept = x_names[1:], np.zeros(1)
    coefficients = np.concatenate(
        [intercept, fixed_values(beta, x_names), fixed_values(given, names, None, "gamma")]
    )
    base = np.array(
        [
            _spread(linear_predictor(design, c, coefficients, (), ()), frame, np.nan)
            for c in range(len(design.predictors))
        ]
    )
    factors = factors_of_theta(design, theta) if theta is not None else factors_of_sds(design, sd, corr, 1.0)
    drawings = [
        Drawing(
            c,
            _spread(term.codes, frame, -1),
            None if term.Z is None else _spread(term.Z, frame, 0.0),
            term.m,
            np.asarray(factor),
        )
        for term, factor, c in zip(design.terms, factors, design.term_predictor, strict=True)
    ]
    observed = Observations(np.zeros(rows), trials=trials_of(trials, data, rows))
    if observed.trials is not None:
        base[0, np.isnan(observed.trials)] = np.nan
    return draw_generalised(made, observed, base, drawings, n, rng)


def _given(gamma: Any, family: Any, dispersion: Any, zero_inflation: Any) -> dict[str, Any]:
    """Parameters by name, with those given in natural units."""
    if gamma is not None and not isinstance(gamma, Mapping):
        raise OptionError(
            "gamma must be a dict by name of the parameters that are not fixed effects, such as "
            '{"zi_(Intercept)": -1.0}'
        )
    out = dict(gamma or {})
    for what, value, label in (
        ("dispersion", dispersion, "disp_(Intercept)"),
        ("zero_inflation", zero_inflation, "zi_(Intercept)"),
    ):
        if value is None or isinstance(value, (str, bool)):
            continue
        if what not in family.predictors:
            raise OptionError(f"{what}={value!r}: family {family.name!r} has no {what}")
        if label in out:
            raise OptionError(f"give either {what} or gamma[{label!r}], not both")
        out[label] = _predictor_value(what, value)
    return out


def _predictor_value(what: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if what == "dispersion":
        if not 0.0 < number < math.inf:
            raise OptionError(f"dispersion must be a positive number or a formula text, got {value!r}")
        return math.log(number)
    if not 0.0 < number < 1.0:
        raise OptionError(f"zero_inflation must be a probability or a formula text, got {value!r}")
    return math.log(number) - math.log1p(-number)


def _spread(array: np.ndarray, frame: Any, filling: float) -> np.ndarray:
    """Values of the rows of a frame at their places among all rows."""
    if frame.kept is None:
        return array
    out = np.full((frame.n_rows, *array.shape[1:]), filling, dtype=array.dtype)
    out[frame.kept] = array
    return out
