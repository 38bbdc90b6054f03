r"""Responses drawn from a model that was never fitted: a formula, a design and parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import FormulaError, OptionError
from mixedmodels.fit import values
from mixedmodels.fit.simulate import check_count, draw_responses, fixed_values, generator, positive_sigma
from mixedmodels.fit.varcorr import unique_keys

if TYPE_CHECKING:
    from mixedmodels.design import RandomTerm

__all__ = ["design_frame", "factors_of_sds", "factors_of_theta", "simulate", "with_stand_in"]

_RESPONSE = "(response)"


def simulate(
    formula: Any,
    data: Any,
    *,
    beta: Any,
    theta: Any = None,
    sd: Any = None,
    corr: Any = None,
    sigma: float | None = None,
    family: Any = None,
    link: Any = None,
    gamma: Mapping[str, Any] | None = None,
    dispersion: Any = None,
    zero_inflation: Any = None,
    trials: Any = None,
    weights: Any = None,
    offset: Any = None,
    contrasts: Mapping[str, Any] | None = None,
    functions: Mapping[str, Callable[..., Any]] | None = None,
    residual: Any = None,
    phi: Mapping[str, float] | None = None,
    seed: Any = None,
    n: int | None = None,
) -> np.ndarray:
    r"""Draw responses of a linear or generalised mixed model without fitting it.

    .. math::
        y = X\beta + Zb + o + e, \qquad
        b \sim N(0, \sigma^2 \Lambda_\theta\Lambda_\theta'), \quad e_i \sim N(0, \sigma^2 / w_i)

    and with `family` :math:`y_i \sim f(\cdot \mid \eta_i)`, :math:`\eta = X\beta + Zb + o`,
    :math:`b \sim N(0, \Lambda_\theta\Lambda_\theta')`.

    Parameters
    ----------
    formula : str or Formula
        As for `lmm`; the response may be left out (``"~ x + (x | g)"``) and need not be in the data.
    data : data frame or dict of arrays
        The design: predictors and grouping factors.
    beta : array, shape (p,), or dict
        Fixed effects in the order of the columns, or by name: all of them.
    theta : array, shape (n_theta,), optional
        Covariance parameters in lme4's order, relative to sigma unless there is a `family`. Otherwise `sd`
        and `corr`:
    sd : float, sequence or dict, optional
        Standard deviations of the random effects in units of the response: by grouping factor a number, a
        sequence or a dict by column. With a single random term its value alone.
    corr : float, matrix or dict, optional
        Correlations by grouping factor: a number for two columns, else a matrix; 0 where not given.
    sigma : float
        Residual standard deviation (of an observation with weight 1); 1 by default. Of linear models.
    family, link : str or Family, str
        As for `glmm`; by default a linear model.
    gamma : dict, optional
        With `family`: parameters by name that are not fixed effects, on the scale of their linear predictors:
        ``{"zi_(Intercept)": -1, "zi_x": 0.5, "disp_(Intercept)": 0.1, "power": ...}``. Ordered
        categories need ``{"thresholds": [-1, 0, 1]}`` and have no intercept in `beta`.
    dispersion, zero_inflation : float or str, optional
        With `family`: the dispersion in natural units and the probability of an extra zero, or one-sided
        formulas whose coefficients are in `gamma`.
    trials : int, str or array, optional
        Numbers of trials of binomial families; 1 by default.
    weights, offset : str or array, optional
        Precision weights and a known part of the mean.
    contrasts, functions : dict, optional
        As for `lmm`.
    residual : str or residual structure, optional
        Structure of the residuals of a linear model, :math:`Var(e) = \sigma^2 R(\phi)`, as for `lmm`; random
        terms are then not needed.
    phi : dict, optional
        Parameters of the residual structure by their natural names: ``{"rho": 0.5, "sd_ratio[F]": 0.8}``.
    seed : int, Generator or None
        Seed of `numpy.random.default_rng`.
    n : int, optional
        Number of draws.

    Returns
    -------
    ndarray, shape (rows,), or (rows, n) if `n` is given
        NaN in rows with missing values.

    Raises
    ------
    OptionError
        A name that the model does not have, a missing value, or an impossible correlation.

    Examples
    --------
    >>> import mixedmodels as mm
    >>> data = {"x": [0.0, 1.0, 2.0] * 4, "g": ["a"] * 3 + ["b"] * 3 + ["c"] * 3 + ["d"] * 3}
    >>> y = mm.simulate("~ x + (x | g)", data, beta={"(Intercept)": 10, "x": 2},
    ...                 sd={"g": [1.0, 0.5]}, corr={"g": 0.3}, sigma=0.7, seed=1)
    >>> y.shape
    (12,)
    >>> mm.simulate("~ x + (1 | g)", data, beta=[10, 2], sd=1, sigma=0.7, seed=1, n=5).shape
    (12, 5)
    >>> mm.simulate("~ x + (1 | g)", data, family="poisson", beta=[0, 1], sd=1, seed=1).shape
    (12,)
    """
    rng = generator(seed)
    count = 1 if n is None else check_count(n)
    if theta is not None and (sd is not None or corr is not None):
        raise OptionError("give either theta or sd (and corr), not both")
    if family is not None:
        if sigma is not None or weights is not None:
            raise OptionError("sigma and weights are for linear models; with family= write dispersion=")
        if residual is not None or phi is not None:
            raise OptionError("residual and phi are for linear models; leave out family")
        from mixedmodels.fit.glmm_denovo import draw_new

        draws = draw_new(
            formula,
            data,
            family,
            link,
            beta=beta,
            gamma=gamma,
            theta=theta,
            sd=sd,
            corr=corr,
            dispersion=dispersion,
            zero_inflation=zero_inflation,
            trials=trials,
            offset=offset,
            contrasts=contrasts,
            functions=functions,
            n=count,
            rng=rng,
        )
        return draws[:, 0] if n is None else draws
    for name, value in (
        ("link", link),
        ("gamma", gamma),
        ("dispersion", dispersion),
        ("zero_inflation", zero_inflation),
        ("trials", trials),
    ):
        if value is not None:
            raise OptionError(f"{name} is for generalised models: give family as well")
    frame = design_frame(formula, data, weights, offset, contrasts, functions, residual)
    design = frame.design
    sigma = 1.0 if sigma is None else positive_sigma(sigma)
    coefficients = fixed_values(beta, design.x_names)
    factors = (
        factors_of_theta(design, theta) if theta is not None else factors_of_sds(design, sd, corr, sigma)
    )
    terms = [
        (*term.parts(design.n), term.m, factor, None)
        for term, factor in zip(design.terms, factors, strict=True)
    ]
    base = values.fixed_predictor(design.X, coefficients, design.offset)
    noise = None
    if design.residual is not None:
        noise = _noise(design.residual, phi)
    elif phi is not None:
        raise OptionError("phi are the parameters of a residual structure: give residual= as well")
    draws = draw_responses(base, terms, sigma, design.weights, count, rng, noise)
    if frame.kept is not None:
        out = np.full((frame.n_rows, count), np.nan)
        out[frame.kept] = draws
        draws = out
    return draws[:, 0] if n is None else draws


def _noise(bound: Any, phi: Mapping[str, float] | None) -> Any:
    """Draws of residuals of a structure at parameters given by name."""
    from mixedmodels.fit.residual_rows import own_noise

    names = bound.natural(np.array(bound.start)).names
    held = bound.natural(np.array(bound.start)).jacobian
    free = [name for name, row in zip(names, held, strict=True) if np.any(row)]
    given = {} if phi is None else dict(phi)
    missing = [name for name in free if name not in given]
    if missing:
        raise OptionError(f"phi lacks {', '.join(missing)}; the residual structure has {', '.join(free)}")
    try:
        return own_noise(bound, bound.phi_of(given))
    except FloatingPointError as error:
        raise OptionError(f"phi: {error}") from None


def design_frame(
    formula: Any,
    data: Any,
    weights: Any,
    offset: Any,
    contrasts: Any,
    functions: Any,
    residual: Any = None,
) -> Any:
    """The model frame with a stand-in for the response."""
    from mixedmodels.frame.build import build

    formula, columns = with_stand_in(formula, data, need_bars=residual is None)
    return build(
        formula,
        columns,
        weights=weights,
        offset=offset,
        contrasts=contrasts,
        functions=functions,
        checked=False,
        residual=residual,
    )


def with_stand_in(formula: Any, data: Any, need_bars: bool = True) -> tuple[Any, Any]:
    """The formula with another response, and the data with a column for it."""
    from mixedmodels.formula import parse
    from mixedmodels.formula.ast import Variable
    from mixedmodels.frame.columns import Columns

    if isinstance(formula, str):
        formula = parse(formula if "~" in formula else "~ " + formula)
    elif not hasattr(formula, "bars"):
        raise OptionError(f"formula must be a text or a Formula, got {type(formula).__name__}")
    if need_bars and not formula.bars:
        raise FormulaError(f"'{formula}' has no random-effects term such as (1 | group)")
    if formula.fixed.dot or any(bar.effects.dot for bar in formula.bars):
        raise OptionError("simulate needs the terms written out: '.' could hold the response itself")
    columns = Columns(data)
    columns.put(_RESPONSE, np.arange(columns.n_rows, dtype=float))
    return replace(formula, response=Variable(_RESPONSE)), columns


def factors_of_theta(design: Any, theta: Any) -> list[np.ndarray]:
    """Factors of the terms from theta."""
    from mixedmodels.objective.parameters import parameter_map

    names = parameter_map(design).names
    try:
        array = np.array(theta, dtype=float).reshape(-1)
    except (TypeError, ValueError):
        raise OptionError("theta must hold numbers") from None
    if array.shape[0] != len(names) or not np.isfinite(array).all():
        raise OptionError(f"theta needs {len(names)} finite numbers ({', '.join(names)})")
    return [np.array(factor) for factor in values.relative_factors(design, array)]


def factors_of_sds(design: Any, sd: Any, corr: Any, sigma: float) -> list[np.ndarray]:
    """Relative factors from standard deviations and correlations by grouping factor."""
    keys = unique_keys([term.group for term in design.terms])
    sds = _by_group(sd, keys, "sd")
    missing = [key for key in keys if key not in sds]
    if missing:
        raise OptionError(
            f"sd lacks {', '.join(map(repr, missing))}: give the standard deviations of the random effects "
            f"by grouping factor ({', '.join(keys)}), or theta"
        )
    correlations = _by_group(corr, keys, "corr")
    return [
        _relative_factor(term, key, sds[key], correlations.get(key), sigma)
        for key, term in zip(keys, design.terms, strict=True)
    ]


def _by_group(given: Any, keys: Sequence[str], what: str) -> dict[str, Any]:
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        if len(keys) > 1:
            raise OptionError(f"{what} must be a dict by grouping factor: {', '.join(keys)}")
        return {keys[0]: given}
    if len(keys) == 1 and what == "sd" and keys[0] not in given and given and not set(given) & set(keys):
        shown = ", ".join(map(repr, given))
        raise OptionError(f"sd has {shown}; the grouping factor of the model is {keys[0]!r}")
    for key in given:
        if key not in keys:
            raise OptionError(f"{what}: {key!r} is not a grouping factor of the model ({', '.join(keys)})")
    return dict(given)


def _relative_factor(term: RandomTerm, key: str, sd: Any, corr: Any, sigma: float) -> np.ndarray:
    k, names = term.k, ", ".join(term.names)
    if isinstance(sd, Mapping):
        for name in sd:
            if name not in term.names:
                raise OptionError(f"sd of {key!r}: there is no random effect {name!r}; there are {names}")
        lacking = [name for name in term.names if name not in sd]
        if lacking:
            raise OptionError(f"sd of {key!r} lacks {', '.join(lacking)}")
        sd = [sd[name] for name in term.names]
    try:
        s = np.array(sd, dtype=float).reshape(-1)
        R = np.eye(k) if corr is None else np.array(corr, dtype=float)
    except (TypeError, ValueError):
        raise OptionError(f"sd and corr of {key!r} must be numbers") from None
    if s.shape[0] != k or not (np.isfinite(s).all() and (s >= 0.0).all()):
        raise OptionError(f"sd of {key!r} needs {k} numbers >= 0 ({names})")
    if R.ndim == 0 and k == 2:
        R = np.array([[1.0, float(R)], [float(R), 1.0]])
    if R.shape != (k, k) or not np.array_equal(R, R.T) or not (np.diagonal(R) == 1.0).all():
        form = "a number or a 2 x 2 correlation matrix" if k == 2 else f"a {k} x {k} correlation matrix"
        raise OptionError(f"corr of {key!r} must be {form} ({names})")
    eigenvalues, vectors = np.linalg.eigh(R)
    if eigenvalues[0] < -1e-12:
        raise OptionError(f"corr of {key!r} is not positive semi-definite: no such correlations exist")
    half = (s / sigma)[:, None] * vectors * np.sqrt(np.maximum(eigenvalues, 0.0))
    factor = np.linalg.qr(half.T)[1].T  # lower triangular, half half' = factor factor'
    factor = factor * np.where(np.diagonal(factor) < 0.0, -1.0, 1.0)
    theta = term.covariance.theta_of(factor)
    gap = np.abs(term.covariance.factor(theta) - factor).max()
    if gap > 1e-10 * max(1.0, float(s.max()) / sigma):
        raise OptionError(
            f"sd and corr of {key!r} do not fit its covariance structure {term.covariance.name!r} ({names})"
        )
    return factor
