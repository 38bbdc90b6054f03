r"""What a generalised fit should tell its reader: separation, limits of a family, few binary observations.

A direction d of the coefficients is not determined by the data if the weights
:math:`w_i = -\partial^2 \log f_i/\partial\eta_i^2` vanish on the rows it moves: with
:math:`\max_i |x_i'd| = 1` the sum :math:`\sum_i w_i (x_i'd)^2` counts the events it rests on. One event or
more stands behind every estimate that exists; where the sum is below 0.01 the likelihood still grows far out
and the estimate is infinite (Albert & Anderson 1984, Biometrika 71:1-10).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.fit import checks

if TYPE_CHECKING:
    from mixedmodels.design import Predictor
    from mixedmodels.fit.glmm_result import GLMMFit

__all__ = ["glmm_messages", "undetermined_coefficients"]

EVENTS = 0.01
FEW = 6  # binary observations per level
_COUNTS = ("binom", "poisson", "cumulative")
_LIMITS = {
    "negative_binomial": "Poisson",
    "nbinom": "Poisson",
    "generalised_poisson": "Poisson",
    "betabinomial": "binomial",
    "student": "normal",
}


def glmm_messages(fit: GLMMFit) -> tuple[str, ...]:
    """Facts worth knowing about a generalised fit, one sentence each."""
    frame, optimum = fit._frame, fit._optimum
    out = [] if fit.converged else [f"not converged: {optimum.message}"]
    factors = fit._factors
    for position in fit._singular:
        out.append(checks.singular_note(fit._terms[position], np.array(factors[position])))
    out += _separation(fit)
    out += _limits(fit)
    out += _few_binary(fit)
    out += frame.messages
    if fit.objective.differenced:
        out.append("standard errors from differences of the exact gradient; second derivatives cost too much")
    if fit._options.priors:
        out.append("estimates maximise the posterior density; loglik, AIC and BIC leave the priors out")
    return tuple(out)


def undetermined_coefficients(X: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Which columns take part in directions without information.

    Parameters
    ----------
    X : ndarray, shape (n, p)
        Of full column rank.
    w : ndarray, shape (n,)
        Weights of the rows at the estimates.

    Returns
    -------
    ndarray of bool, shape (p,)

    Examples
    --------
    >>> X = np.column_stack([np.ones(4), [0.0, 0.0, 1.0, 1.0]])
    >>> undetermined_coefficients(X, np.array([0.2, 0.2, 1e-9, 1e-9]))
    array([False,  True])
    """
    p = X.shape[1]
    involved = np.zeros(p, dtype=bool)
    if p == 0:
        return involved
    Q, R = np.linalg.qr(X)
    w = np.maximum(w, 0.0)
    values, vectors = np.linalg.eigh((Q * w[:, None]).T @ Q)
    size = np.sqrt((X**2).mean(axis=0))
    for value, vector in zip(values, vectors.T, strict=True):
        moved = np.abs(Q @ vector).max()
        if value >= EVENTS * moved**2:
            break
        d = np.abs(np.linalg.solve(R, vector)) * size
        involved |= d > 0.1 * d.max()
    if involved.any():
        constant = np.ptp(X, axis=0) == 0.0  # the intercept only follows the others
        if (involved & ~constant).any():
            involved &= ~constant
    return involved


def _weights(fit: GLMMFit, c: int) -> np.ndarray:
    eta = fit._solution.eta
    return -fit.family.derivatives(fit.generalised.data, list(eta), 2, (c,))[2]


def _columns(fit: GLMMFit, predictor: Predictor) -> np.ndarray:
    return np.ones((fit.generalised.n, 1)) if predictor.X is None else predictor.X


def _free(fit: GLMMFit) -> np.ndarray:
    return (fit.objective.M != 0.0).any(axis=1)


def _separation(fit: GLMMFit) -> list[str]:
    """Coefficients whose estimates are infinite."""
    if not any(part in fit.family.name for part in _COUNTS):
        return []
    predictor = fit.generalised.predictors[0]
    if len(predictor.columns) == 0:
        return []
    w = _weights(fit, 0)
    if not w.min() < EVENTS:
        return []
    free = _free(fit)[predictor.columns]
    involved = np.zeros(len(free), dtype=bool)
    involved[free] = undetermined_coefficients(_columns(fit, predictor)[:, free], w)
    if not involved.any():
        return []
    names = [fit.generalised.gamma_names[j] for j in predictor.columns[involved].tolist()]
    # a prior that is there bounds the estimates: nothing to say
    if fit._options.priors and fit.objective.priors.coefficients:
        bounded = {place for place, _, _ in fit.objective.priors.coefficients}
        names = [
            fit.generalised.gamma_names[j] for j in predictor.columns[involved].tolist() if j not in bounded
        ]
        if not names:
            return []
    what = "0 or 1" if fit.family.name in ("binomial", "betabinomial") else "0"
    which = _listed(names)
    verb = "is" if len(names) == 1 else "are"
    example = next((name for name in names if name != "(Intercept)"), names[0])
    return [
        f"separation: the fitted response is exactly {what} in the rows that {which} tells apart, so the "
        f"maximum likelihood estimate of {which} {verb} infinite and the values shown are where the search "
        f'stopped; add a prior, for instance priors={{"{example}": ("normal", 0, 2.5)}}, or leave it out'
    ]


def _limits(fit: GLMMFit) -> list[str]:
    """Parameters of the family that ran to their limit."""
    out: list[str] = []
    if len(fit.generalised.predictors) == 1:
        return out
    free = _free(fit)
    for c, predictor in enumerate(fit.generalised.predictors[1:], 1):
        moved = free[predictor.columns]
        if not moved.any():
            continue
        w = _weights(fit, c)
        if not np.isfinite(w).all():
            continue
        X = _columns(fit, predictor)[:, moved]
        if not undetermined_total(X, w):
            continue
        names = [fit.generalised.gamma_names[j] for j in predictor.columns[moved].tolist()]
        limit = next((word for key, word in _LIMITS.items() if key in fit.family.name), None)
        if predictor.name == "zero_inflation":
            out.append(
                f"no zero inflation: {_listed(names)} ran to its limit, where no extra zeros are left; "
                "leave zero_inflation out"
            )
        elif limit and predictor.name == "dispersion":
            out.append(
                f"{limit} limit: {_listed(names)} ran to its limit, where {fit.family.name} is the {limit} "
                f"distribution (no overdispersion left); fit that one"
            )
        else:
            out.append(
                f"{_listed(names)} ran to a limit of the family {fit.family.name}: the likelihood does not "
                "change any more"
            )
    return out


def undetermined_total(X: np.ndarray, w: np.ndarray) -> bool:
    """Whether all columns together have no information."""
    information = (X * w[:, None]).T @ X
    return bool(np.abs(information).max() < EVENTS * max(1.0, float(np.abs(X).max()) ** 2))


def _few_binary(fit: GLMMFit) -> list[str]:
    """Laplace's approximation with few binary observations per level."""
    if fit._options.nagq > 1 or fit.family.name != "binomial" or not fit._terms:
        return []
    trials = fit.generalised.data.trials
    if trials is not None:
        several = 2 * int(np.count_nonzero(trials > 1.0))
        if several > len(trials) or (several == len(trials) and float(np.median(trials)) > 1.0):
            return []
    for term in fit._terms:
        per_level = _rows_per_level(term, len(fit.generalised.data.y))
        if per_level <= FEW:
            single = len({t.group for t in fit._terms}) == 1 and term.precision is None
            single = single and not term.several_levels
            remedy = "use nagq=7 or more" if single else "take its standard deviation as too small"
            return [
                f"few binary observations per level of {term.group} (median {per_level:g}): Laplace's "
                f"approximation underestimates the variance there; {remedy}"
            ]
    return []


def _rows_per_level(term: Any, n: int) -> float:
    """Median number of rows of a level; where rows touch several, of the levels that any column touches."""
    if not term.several_levels:
        return float(np.median(np.bincount(term.codes, minlength=term.m)))
    counts = np.diff(term.matrix(n).tocsc().indptr).reshape(term.m, term.k)
    return min([float(np.median(column[column > 0])) for column in counts.T if column.any()], default=0.0)


def _listed(names: Any) -> str:
    names = list(names)
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]
