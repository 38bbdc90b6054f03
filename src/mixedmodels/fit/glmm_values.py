"""Numbers of a fitted generalised model, arrays in and out: components, covariances, working quantities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import OptionError
from mixedmodels.fit import values

if TYPE_CHECKING:
    from mixedmodels.design import GeneralisedDesign, Predictor
    from mixedmodels.family import Family, Observations

__all__ = [
    "base_family",
    "boundary_parameters",
    "clear_covariance",
    "coefficient_names",
    "component_of",
    "component_prefix",
    "constant_column",
    "joint_covariance",
    "linear_predictor",
    "mean_derivative",
    "natural_dispersion",
    "own_predictors",
    "prefixed",
    "sigma_of",
    "working_response",
    "working_weights",
]

_PREFIXES = {"conditional": "", "zero_inflation": "zi_", "dispersion": "disp_"}
_COMPONENTS = {
    "cond": "conditional",
    "mean": "conditional",
    "zi": "zero_inflation",
    "disp": "dispersion",
}
_FLAT = 1e-12  # eigenvalues of the Hessian in unit-diagonal scale below this are zero


def component_of(name: Any, predictors: Sequence[str]) -> str:
    """The linear predictor that a word names; ``"zi"`` and ``"disp"`` are short forms.

    Raises
    ------
    OptionError
        The model has no such component.
    """
    full = _COMPONENTS.get(name, name) if isinstance(name, str) else name
    if full not in predictors:
        raise OptionError(f"component={name!r} is not part of this model; it has {', '.join(predictors)}")
    return full


def component_prefix(name: str) -> str:
    """What names of coefficients of a predictor begin with."""
    return _PREFIXES.get(name, f"{name}_")


def prefixed(names: Sequence[str], component: str) -> tuple[str, ...]:
    """Names of random effects of a component: ``zi_(Intercept)``."""
    prefix = component_prefix(component)
    return tuple([name if name.startswith(prefix) else prefix + name for name in names])


def coefficient_names(design: GeneralisedDesign, predictor: Predictor) -> tuple[str, ...]:
    """Names of the coefficients of a predictor."""
    return tuple([design.gamma_names[j] for j in predictor.columns.tolist()])


def own_predictors(design: GeneralisedDesign) -> list[Predictor]:
    """Predictors with a coefficient that no earlier one has (thresholds are in two of them)."""
    seen: set[int] = set()
    out = []
    for predictor in design.predictors:
        places = set(predictor.columns.tolist())
        if not places or places - seen:
            out.append(predictor)
        seen |= places
    return out


def constant_column(predictor: Predictor) -> bool:
    """Whether the predictor is one number: a column of ones and no offset."""
    if predictor.offset is not None:
        return False
    X = predictor.X
    return X is None or (X.shape[1] == 1 and X.shape[0] > 0 and bool((X[0, 0] == X).all()))


def base_family(family: Family) -> Any:
    """The family under zero inflation, a hurdle or a truncation."""
    inner: Any = family
    while getattr(inner, "base", None) is not None:
        inner = inner.base
    return inner


def natural_dispersion(family: Family, delta: Any) -> np.ndarray:
    """The dispersion parameter in its natural units from its linear predictor (a logarithm)."""
    natural = getattr(base_family(family), "natural", np.exp)
    return np.asarray(natural(np.asarray(delta, dtype=float)))


def sigma_of(family: Family, delta: float) -> float:
    """R's ``sigma()`` from the linear predictor of the dispersion."""
    own = getattr(base_family(family), "sigma", None)
    return float(natural_dispersion(family, delta) if own is None else own(np.asarray(delta, dtype=float)))


# ---------------------------------------------------------------------- covariance of the estimates
def boundary_parameters(
    design: GeneralisedDesign, factors: Sequence[Any], singular: Sequence[int], index: Sequence[Any]
) -> tuple[int, ...]:
    """Entries of theta that sit on the boundary of the parameter space: pivots of singular factors.

    Parameters
    ----------
    design : GeneralisedDesign
    factors : sequence of (k, k)
    singular : sequence of int
        Positions of the singular terms.
    index : sequence of arrays
        For each term the places of its parameters in theta.
    """
    held: set[int] = set()
    for position in singular:
        term, factor = design.terms[position], np.asarray(factors[position])
        if term.covariance.entries is None:
            continue
        sizes = np.sqrt((factor * factor).sum(axis=1))
        low = np.abs(factor.diagonal()) <= 1e-4 * sizes
        for i, j, t in term.covariance.entries.tolist():
            if (i == j and (low[j] or term.k == 1)) or (low[j] and factor[i, j] == 0.0):
                held.add(int(index[position][t]))
    return tuple(sorted(held))


def clear_covariance(hessian: np.ndarray) -> np.ndarray | None:
    """What `joint_covariance` returns where nothing is held and nothing is flat for sure; else None."""
    from mixedmodels.solver._kernels.small import inverse

    found = inverse(hessian)
    # the trace in unit-diagonal scale is at least the inverse of the smallest eigenvalue
    if found is None or not float(hessian.diagonal() @ found.diagonal()) < 1e-2 / _FLAT:
        return None
    return 2.0 * found


def joint_covariance(
    hessian: np.ndarray, M: np.ndarray, held: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    r"""Covariance of all parameters, :math:`2 M H^{-1} M'`, from the Hessian of the criterion.

    Parameters
    ----------
    hessian : ndarray, shape (F, F)
        With respect to the free parameters phi, ``psi = a + M phi``.
    M : ndarray, shape (P, F)
    held : sequence of int
        Parameters psi to condition on (those at a boundary): their covariances are zero.

    Returns
    -------
    covariance : ndarray, shape (P, P)
        NaN in rows and columns of undetermined parameters; the others are conditional on these.
    undetermined : ndarray of bool, shape (P,)
        Parameters along whose direction the criterion is flat or falls.
    """
    free = np.ones(M.shape[1], dtype=bool) if not len(held) else ~(M[list(held)] != 0.0).any(axis=0)
    everything = bool(free.all())
    H = hessian if everything else hessian[np.ix_(free, free)]
    A = M if everything else M[:, free]
    if H.shape[0] == 0:
        return np.zeros((M.shape[0],) * 2), np.zeros(M.shape[0], dtype=bool)
    diagonal = H.diagonal()
    scale = 1.0 / np.sqrt(np.where(diagonal > 0.0, diagonal, 1.0))
    sizes, vectors = np.linalg.eigh(H * scale * scale[:, None])
    flat = sizes <= _FLAT * sizes[-1]
    undetermined = np.zeros(M.shape[0], dtype=bool)
    if flat.any():
        loadings = (vectors[:, flat] ** 2).sum(axis=1) > 1e-6
        undetermined = (A[:, loadings] != 0.0).any(axis=1)
        sizes, vectors = sizes[~flat], vectors[:, ~flat]
    root = A @ ((scale[:, None] * vectors) * np.sqrt(2.0 / sizes))
    covariance = root @ root.T
    if flat.any():
        covariance[undetermined] = np.nan
        covariance[:, undetermined] = np.nan
    return covariance, undetermined


# ---------------------------------------------------------------------- working quantities
def mean_derivative(family: Family, eta: np.ndarray) -> np.ndarray:
    """``d mu / d eta`` of the inverse link, shape (n,)."""
    from mixedmodels.family.jet import variables

    with np.errstate(all="ignore"):
        return np.asarray(family.link.inverse(variables([eta], (0,), 1)[0]).table(eta.shape[0])[1])


def working_weights(
    family: Family, data: Observations, eta: np.ndarray, kind: str = "expected"
) -> np.ndarray:
    r"""Weights of the working model :math:`z \sim N(\eta, W^{-1})`, shape (n,).

    .. math::
        w_i = \frac{(\mathrm{d}\mu_i/\mathrm{d}\eta_i)^2}{Var(y_i)} \quad\text{(expected)}, \qquad
        w_i = -\frac{\partial^2 \log f(y_i \mid \eta_i)}{\partial\eta_i^2} \quad\text{(observed)}

    (means and variances of proportions for binomial families, whose variances are over the trials).

    Parameters
    ----------
    family : Family
    data : Observations
    eta : ndarray, shape (C, n)
    kind : {"expected", "observed"}
        Equal for canonical links.

    Raises
    ------
    OptionError
        An unknown kind, or "expected" for a family whose mean is not the inverse link of its predictor.
    """
    if kind == "observed":
        return -family.derivatives(data, list(eta), 2, (0,))[2]
    if kind != "expected":
        raise OptionError(f"kind must be 'expected' or 'observed', got {kind!r}")
    _needs_plain_mean(family)
    derivative = mean_derivative(family, eta[0])
    trials = 1.0 if data.trials is None else data.trials
    with np.errstate(all="ignore"):
        w = (trials * derivative) ** 2 / family.variance(data, list(eta))
    return w if data.weights is None else w * data.weights


def working_response(
    family: Family, data: Observations, eta: np.ndarray, kind: str = "expected"
) -> np.ndarray:
    r"""Response of the working model, shape (n,): one Newton or scoring step is least squares on it.

    .. math::
        z_i = \eta_i + \frac{\partial \log f(y_i \mid \eta_i) / \partial \eta_i}{w_i},

    which for exponential families and expected weights is
    :math:`z_i = \eta_i + (y_i - \mu_i)\,/\,(\mathrm{d}\mu_i/\mathrm{d}\eta_i)`.

    Parameters
    ----------
    family, data, eta, kind
        As for `working_weights`.
    """
    if kind == "observed":
        table = family.derivatives(data, list(eta), 2, (0,))
        with np.errstate(all="ignore"):
            return eta[0] - table[1] / table[2]
    if kind != "expected":
        raise OptionError(f"kind must be 'expected' or 'observed', got {kind!r}")
    _needs_plain_mean(family)
    y = data.y if data.trials is None else data.y / data.trials
    with np.errstate(all="ignore"):
        return eta[0] + (y - family.mean(list(eta))) / mean_derivative(family, eta[0])


def _needs_plain_mean(family: Family) -> None:
    from mixedmodels.family import Family as Base

    if type(family).mean is not Base.mean:
        raise OptionError(
            f"the mean of family {family.name!r} is not the inverse link of its linear predictor, so that "
            "expected working weights are not defined: take kind='observed', or Pearson residuals"
        )


def linear_predictor(
    design: GeneralisedDesign,
    c: int,
    gamma: np.ndarray,
    b: Sequence[np.ndarray],
    selection: Sequence[tuple[int, Any]],
) -> np.ndarray:
    """Predictor c of the rows of a design with the random terms (and columns) of `selection`."""
    predictor = design.predictors[c]
    coefficients = gamma[predictor.columns]
    if predictor.X is None:
        eta = np.full(design.n, coefficients[0])
        if predictor.offset is not None:
            eta += predictor.offset
    else:
        eta = values.fixed_predictor(predictor.X, coefficients, predictor.offset)
    for position, columns in selection:
        if design.term_predictor[position] == c:
            term = design.terms[position]
            eta += values.term_contribution(term.codes, term.Z, b[position], columns)
    return eta
