"""The parameters of a fit on their natural scales: one set of names, in one order, for every answer.

Fixed effects come first, then the standard deviations and correlations term by term, then sigma. Of a
generalised model the coefficients of all linear predictors come first, and last is the dispersion parameter,
if it is one number, in natural units. Profiles, bootstraps, intervals and plots all name and select
parameters here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mixedmodels.errors import OptionError
from mixedmodels.fit.glmm_values import constant_column
from mixedmodels.fit.natural_residual import residual_natural

__all__ = [
    "KINDS",
    "Parameter",
    "chosen",
    "chosen_one",
    "curved_terms",
    "fixed_effects",
    "held_places",
    "natural_values",
    "parameters_of",
    "relative_factors",
    "values_of",
]

KINDS = (
    "fixed",
    "constant",
    "sd",
    "cor",
    "structure",
    "theta",
    "sigma",
    "residual",
    "dispersion",
    "statistic",
)


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter on its natural scale.

    Attributes
    ----------
    name : str
        ``"Days"``, ``"sd_Days|Subject"``, ``"cor_Days.(Intercept)|Subject"``, ``"sigma"``.
    kind : str
        ``"fixed"``, ``"sd"``, ``"cor"``, ``"sigma"``, ``"theta"`` (a covariance given as a function),
        ``"constant"`` (a constant of the family on the scale of its linear predictor), ``"dispersion"`` (in
        natural units), ``"structure"`` (a natural parameter of a structure that is not linear in theta),
        ``"residual"`` (one of a residual structure) or ``"statistic"`` (of a bootstrap).
    group : str or None
        Grouping factor; ``"Residual"`` for sigma, None for fixed effects.
    term : str
        As in ``tidy()``: ``"Days"``, ``"sd__Days"``, ``"cor__(Intercept).Days"``, ``"sd__Observation"``.
    where : tuple of int
        Place among the coefficients; or term, column and second column of a random term; or entry of theta.
    estimate : float
        NaN for a correlation with a standard deviation of zero.
    natural : NaturalTerm or None
        The natural parameters of the term of a ``"structure"``; ``where`` is (term, place among them). Of the
        residuals (`ResidualNatural`) it is (place,).
    """

    name: str
    kind: str
    group: str | None
    term: str
    where: tuple[int, ...] = ()
    estimate: float = field(default=float("nan"), compare=False)
    natural: Any = field(default=None, compare=False, repr=False)

    @property
    def quantity(self) -> str:
        """The kind; of a ``"structure"`` what it is: ``"sd"``, ``"cor"``, ``"range"``, ..."""
        return self.kind if self.natural is None else self.natural.names[self.where[-1]].kind


def fixed_effects(fit: Any) -> tuple[Parameter, ...]:
    """The fixed effects of a fit: all coefficients of a generalised one."""
    if not fit._is_linear:
        return generalised_coefficients(fit)
    values = enumerate(fit.fixef.items())
    return tuple([Parameter(name, "fixed", None, name, (j,), value) for j, (name, value) in values])


def generalised_coefficients(fit: Any) -> tuple[Parameter, ...]:
    """Coefficients of all linear predictors; those of predictors without a formula are constants."""
    constant = set()
    for c, predictor in enumerate(fit.generalised.predictors):
        if c and predictor.name != "zero_inflation" and constant_column(predictor):
            constant.update(predictor.columns.tolist())
    return tuple(
        [
            Parameter(name, "constant" if j in constant else "fixed", None, name, (j,), value)
            for j, (name, value) in enumerate(zip(fit.gamma_names, fit.gamma.tolist(), strict=True))
        ]
    )


def natural_dispersion_of(fit: Any) -> Parameter | None:
    """The dispersion parameter of a generalised fit if it is one number, on its natural scale."""
    if fit._constant_dispersion is None:
        return None
    predictor = fit.generalised.predictors[fit.components.index("dispersion")]
    if predictor.X is not None and predictor.X[0, 0] != 1.0:
        return None
    group, term = ("Residual", "sd__Observation") if fit.family.name == "gaussian" else (None, "dispersion")
    return Parameter("dispersion", "dispersion", group, term, (int(predictor.columns[0]),), fit.dispersion)


def parameters_of(fit: Any) -> tuple[Parameter, ...]:
    """Fixed effects, then term by term standard deviations and correlations, then sigma unless it is known.

    Of a generalised fit: the coefficients of all linear predictors, standard deviations and correlations, the
    dispersion.

    Examples
    --------
    >>> import mixedmodels as mm
    >>> from mixedmodels.inference.parameters import parameters_of
    >>> fit = mm.lmm("Reaction ~ Days + (Days | Subject)", mm.load_dataset("sleepstudy", backend="dict"))
    >>> [parameter.name for parameter in parameters_of(fit)][2:]
    ['sd_(Intercept)|Subject', 'sd_Days|Subject', 'cor_Days.(Intercept)|Subject', 'sigma']
    """
    out = list(fixed_effects(fit))
    if (
        fit._is_linear and not fit.design.terms and fit.design.residual is None
    ):  # the covariance is a function of theta
        theta = enumerate(zip(fit.theta_names, fit.theta.tolist(), strict=True))
        out += [Parameter(f"theta_{n}", "theta", "Z", n, (j,), value) for j, (n, value) in theta]
    naturals = curved_terms(fit)
    for t, part in enumerate(fit.varcorr.terms if fit._terms else ()):
        group = part.group
        if t in naturals:
            natural = naturals[t]
            values = natural.at(fit.theta, fit._scale).values.tolist()
            for i, (label, value) in enumerate(zip(natural.names, values, strict=True)):
                out.append(Parameter(label.name, "structure", group, label.term, (t, i), value, natural))
            continue
        for i, (name, sd) in enumerate(zip(part.names, part.sds, strict=True)):
            out.append(Parameter(f"sd_{name}|{group}", "sd", group, f"sd__{name}", (t, i), sd))
        for i, row in enumerate(part.correlations()):
            for j, value in enumerate(row):
                first, second = part.names[j], part.names[i]
                name, term = f"cor_{second}.{first}|{group}", f"cor__{first}.{second}"
                out.append(Parameter(name, "cor", group, term, (t, j, i), value))
    if not fit._is_linear:
        dispersion = natural_dispersion_of(fit)
        return tuple(out) if dispersion is None else (*out, dispersion)
    if fit._options.sigma is None:
        out.append(Parameter("sigma", "sigma", "Residual", "sd__Observation", (), fit.sigma))
    return (*out, *_residual_parameters(fit))


def _residual_parameters(fit: Any) -> list[Parameter]:
    """Natural parameters of the residual structure that are estimated."""
    natural = residual_natural(fit)
    if natural is None:
        return []
    found = natural.at(fit.theta)
    return [
        Parameter(label.name, "residual", "Residual", label.term, (i,), value, natural)
        for i, (label, value) in enumerate(zip(natural.names, found.values.tolist(), strict=True))
        if found.jacobian[i].any()
    ]


def curved_terms(fit: Any) -> dict[int, Any]:
    """Natural parameters of the terms whose structure is not linear in theta, by position."""
    if all(term.covariance.entries is not None for term in fit._terms):
        return {}
    from mixedmodels.fit.natural import natural_terms

    columns = [fit._term_names(j) for j in range(len(fit._terms))]
    found = natural_terms(fit._terms, fit._random.theta_index, columns, not fit._is_linear)
    return {natural.position: natural for natural in found if natural.curved}


def held_places(fit: Any) -> frozenset[int]:
    """Entries of psi of a generalised fit that `fixed` holds at values."""
    moved = (fit.objective.M != 0.0).any(axis=1)
    return frozenset(np.flatnonzero(~moved).tolist())


# ---------------------------------------------------------------------- selection
_RANDOM = ("sd", "cor", "structure", "theta", "sigma", "residual", "dispersion")
_GROUPS = {
    "fixed": ("fixed",),
    "beta": ("fixed",),
    "beta_": ("fixed",),
    "sd": ("sd",),
    "cor": ("cor",),
    "random": _RANDOM,
    "ran_pars": _RANDOM,
    "theta": ("sd", "cor", "structure", "theta"),
    "theta_": _RANDOM,
    "residual": ("residual",),
    "statistic": ("statistic",),
}


def chosen(available: Sequence[Parameter], names: Any) -> tuple[Parameter, ...]:
    """The parameters that `names` means, in the order of `available`.

    Parameters
    ----------
    available : sequence of Parameter
    names : None, str or sequence of str
        Names of parameters, their terms in ``tidy()``, or ``"fixed"``, ``"random"``, ``"sd"``, ``"cor"``,
        ``"statistic"``. None: all, but the dispersion on its natural scale only.

    Raises
    ------
    OptionError
        A name that means nothing here.
    """
    if names is None:
        natural = {p.where for p in available if p.kind == "dispersion"}
        return tuple(p for p in available if p.kind != "constant" or p.where not in natural)
    wanted = [names] if isinstance(names, str) else names
    try:
        wanted = list(wanted)
    except TypeError:
        raise OptionError(f"parameters must be a name or a list of names, got {names!r}") from None
    if not wanted:
        raise OptionError("parameters is an empty list; leave it out for all parameters")
    taken: set[Parameter] = set()
    for name in wanted:
        if not isinstance(name, str):
            raise OptionError(f"parameters must be names, got {name!r}")
        found = [p for p in available if name in (p.name, p.term)]
        if not found and name in _GROUPS:
            found = [p for p in available if p.kind in _GROUPS[name] or p.quantity in _GROUPS[name]]
        if not found:
            raise OptionError(
                f"there is no parameter {name!r} to ask for here; available: "
                f"{', '.join([p.name for p in available])}"
            )
        taken.update(found)
    return tuple(p for p in available if p in taken)


def chosen_one(available: Sequence[Parameter], name: Any) -> Parameter:
    """The one parameter that `name` means.

    Raises
    ------
    OptionError
        It means none or several.
    """
    found = chosen(available, name)
    if len(found) > 1:
        names = ", ".join([p.name for p in found])
        raise OptionError(f"{name!r} means several parameters; name one: {names}")
    return found[0]


# ---------------------------------------------------------------------- values
def natural_values(
    design: Any, parameters: Sequence[Parameter], beta: np.ndarray, sigma: np.ndarray, theta: np.ndarray
) -> np.ndarray:
    """The parameters of N fits of one model, shape (N, parameters).

    A correlation with a standard deviation of zero is not defined and NaN.

    Parameters
    ----------
    design : Design or GeneralisedDesign
    parameters : sequence of Parameter
        Of `parameters_of`.
    beta : ndarray, shape (N, p)
        All coefficients gamma of a generalised model.
    sigma : ndarray, shape (N,)
        What factors are relative to: ones for a generalised model.
    theta : ndarray, shape (N, n_theta)
    """
    return values_of(parameters, beta, sigma, relative_factors(design, theta), theta)


def values_of(
    parameters: Sequence[Parameter],
    beta: np.ndarray,
    sigma: np.ndarray,
    factors: Sequence[np.ndarray],
    theta: np.ndarray | None,
) -> np.ndarray:
    """`natural_values` from relative factors, one (N, k, k) array per term."""
    lengths = [np.sqrt(np.einsum("nij,nij->ni", factor, factor)) for factor in factors]
    out = np.empty((len(sigma), len(parameters)))
    for column, parameter in zip(out.T, parameters, strict=True):
        where = parameter.where
        if parameter.kind in ("fixed", "constant"):
            column[:] = beta[:, where[0]]
        elif parameter.kind == "dispersion":
            column[:] = np.exp(beta[:, where[0]])
        elif parameter.kind == "sigma":
            column[:] = sigma
        elif parameter.kind == "theta":
            column[:] = np.nan if theta is None else theta[:, where[0]]
        elif parameter.kind == "residual":
            column[:] = _residual_values(parameter, theta, len(sigma))
        elif parameter.kind == "structure":
            column[:] = _structure_values(parameter, sigma, factors[where[0]], theta)
        elif parameter.kind == "sd":
            column[:] = sigma * lengths[where[0]][:, where[1]]
        else:
            t, j, i = where
            product = lengths[t][:, i] * lengths[t][:, j]
            inner = np.einsum("nc,nc->n", factors[t][:, i], factors[t][:, j])
            with np.errstate(invalid="ignore", divide="ignore"):
                value = np.where(product > 0.0, inner / np.where(product > 0.0, product, 1.0), np.nan)
            column[:] = np.clip(value, -1.0, 1.0)
    return out


def _residual_values(parameter: Parameter, theta: np.ndarray | None, n: int) -> list[float]:
    """A natural parameter of the residuals of N fits, NaN where one failed."""
    if theta is None:
        return [np.nan] * n
    place = parameter.where[0]
    return [
        float(parameter.natural.at(own).values[place]) if np.isfinite(own).all() else np.nan for own in theta
    ]


def _structure_values(
    parameter: Parameter, sigma: np.ndarray, factors: np.ndarray, theta: np.ndarray | None
) -> list[float]:
    """A natural parameter of N fits, NaN where one failed."""
    natural, place, out = parameter.natural, parameter.where[1], []
    for n, scale in enumerate(sigma.tolist()):
        own = natural.covariance.theta_of(factors[n]) if theta is None else theta[n][natural.index]
        if not (np.isfinite(own).all() and np.isfinite(scale)):
            out.append(np.nan)
            continue
        out.append(float(natural.covariance.natural(own, natural.columns, scale).values[place]))
    return out


def relative_factors(design: Any, theta: np.ndarray) -> list[np.ndarray]:
    """Relative factors of N parameter vectors, one (N, k, k) array per term."""
    out, position = [], 0
    for term in design.terms:
        count = term.covariance.n_theta
        own: slice | np.ndarray = slice(position, position + count)
        if design.theta_index is not None:
            own = np.asarray(design.theta_index)[own]
        position += count
        part, entries = theta[:, own], term.covariance.entries
        if entries is None:
            factors = np.array(
                [
                    term.covariance.factor(row) if np.isfinite(row).all() else np.full((term.k,) * 2, np.nan)
                    for row in part
                ]
            )
            out.append(factors.reshape(theta.shape[0], term.k, term.k))
            continue
        factors = np.zeros((theta.shape[0], term.k, term.k))
        rows, cols, index = np.asarray(entries).T
        factors[:, rows, cols] = part[:, index]
        out.append(factors)
    return out
