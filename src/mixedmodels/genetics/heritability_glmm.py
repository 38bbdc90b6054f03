r"""Heritability and ratios of variances of generalised models, on the latent scale and that of the response.

On the latent scale (the liability of threshold models) "Residual" is the variance of single observations
around the linear predictor: that of the link's distribution for successes and categories, :math:`\ln(1 +
1/\lambda)` for Poisson counts with a logarithmic link. With :math:`\mu(\eta)` the mean, v the variance of all
random effects and :math:`\eta \sim N(x'\beta, v)`, the scale of the response has

.. math:: V_{obs} = \Psi^2 V, \qquad \Psi = E\,\mu'(\eta), \qquad
          V_{P,obs} = \mathrm{Var}\,\mu(\eta) + E\,V(y \mid \eta),

means over the rows. For a binary trait with a probit link :math:`h^2_{obs} = h^2 \varphi(t)^2 / \{p (1 -
p)\}` (Dempster and Lerner), for counts :math:`\Psi = \lambda` and :math:`V_{P,obs} = \lambda + \lambda^2 (e^v
- 1)`. Slopes in the parameters are written out; for other links than the probit the expectations are
Gauss-Hermite sums.

References
----------
Dempster & Lerner (1950), Genetics 35:212-236. Nakagawa & Schielzeth (2010), Biological Reviews 85:935-956. De
Villemereuil, Schielzeth, Nakagawa & Morrissey (2016), Genetics 204:1281-1294.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mixedmodels.errors import OptionError
from mixedmodels.fit.glmm_values import base_family

if TYPE_CHECKING:
    from mixedmodels.design import RandomTerm
    from mixedmodels.family import Family
    from mixedmodels.fit.glmm_result import GLMMFit
    from mixedmodels.genetics.ratio import Ratio

__all__ = ["GLMMComponents", "ResponseMoments", "glmm_components", "profile_of_one", "response_moments"]

_LATENT = {"logit": math.pi**2 / 3.0, "probit": 1.0, "cloglog": math.pi**2 / 6.0, "loglog": math.pi**2 / 6.0}
_FAR = 1e50  # stands for a standard deviation without limit
_NODES = 161  # the complementary log-log link needs as many


class GLMMComponents(NamedTuple):
    """Variance components of one scale.

    Attributes
    ----------
    names : dict of str to int
        Places by name; a term with one column has its grouping factor as a second name.
    values : ndarray, shape (r,)
        The last one is "Residual", NaN where there is none.
    covariance : ndarray, shape (r, r)
        Of the estimates, by the delta method.
    notes : tuple of str
    """

    names: dict[str, int]
    values: np.ndarray
    covariance: np.ndarray
    notes: tuple[str, ...]


class ResponseMoments(NamedTuple):
    """Mean, Psi, phenotypic variance and their slopes in each row, arrays of shape (n,).

    Attributes
    ----------
    mean, psi, variance : ndarray
    mean_v, psi_eta, psi_v, variance_eta, variance_v : ndarray
        Derivatives with respect to the linear predictor and the variance v; that of the mean with respect to
        the linear predictor is psi.
    """

    mean: np.ndarray
    psi: np.ndarray
    variance: np.ndarray
    mean_v: np.ndarray
    psi_eta: np.ndarray
    psi_v: np.ndarray
    variance_eta: np.ndarray
    variance_v: np.ndarray


def response_moments(family: Family, eta: np.ndarray, v: np.ndarray) -> ResponseMoments:
    """Moments of single responses whose linear predictor is normal.

    Parameters
    ----------
    family : Family
        Binomial (a single trial), or Poisson.
    eta, v : ndarray, shape (n,)
        Mean and variance of the linear predictor.

    Raises
    ------
    OptionError
        Another family.

    Examples
    --------
    >>> from mixedmodels.family import get_family
    >>> found = response_moments(get_family("poisson"), np.zeros(1), np.ones(1))
    >>> bool(abs(found.psi[0] - np.exp(0.5)) < 1e-12)
    True
    """
    link = family.link.name
    if family.name == "poisson" and link == "log":
        m, spread = np.exp(eta + 0.5 * v), np.exp(v)
        square = m * m
        extra = square * (spread - 1.0)
        return ResponseMoments(
            m, m, m + extra, 0.5 * m, m, 0.5 * m, m + 2.0 * extra, 0.5 * m + extra + square * spread
        )
    if family.name not in ("binomial", "poisson"):
        raise OptionError(
            "ratios on the scale of the response are for binomial and Poisson families, not "
            f'{family.name!r}; take scale="latent", or fit.icc(scale="observation")'
        )
    if link == "probit":
        from scipy.special import ndtr

        s = np.sqrt(1.0 + v)
        u = eta / s
        m, density = ndtr(u), np.exp(-0.5 * u * u) / math.sqrt(2.0 * math.pi)
        psi, mean_v = density / s, -0.5 * density * u / s**2
        psi_eta, psi_v = -u * density / s**2, 0.5 * density * (u * u - 1.0) / s**3
    else:
        m, psi, second, third, square, along, along_v = _expectations(family, eta, v)
        mean_v, psi_eta, psi_v = 0.5 * second, second, 0.5 * third
        if family.name == "poisson":
            return ResponseMoments(
                m,
                psi,
                m + square - m * m,
                mean_v,
                psi_eta,
                psi_v,
                psi + along - 2.0 * m * psi,
                mean_v + 0.5 * along_v - 2.0 * m * mean_v,
            )
    slope = 1.0 - 2.0 * m
    return ResponseMoments(m, psi, m * (1.0 - m), mean_v, psi_eta, psi_v, slope * psi, slope * mean_v)


def _expectations(family: Family, eta: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, ...]:
    """Means of mu, mu', mu'', mu''', mu^2, (mu^2)' and (mu^2)'' by Gauss-Hermite quadrature."""
    from mixedmodels.family.jet import variables

    nodes, weights = np.polynomial.hermite_e.hermegauss(_NODES)
    out = np.zeros((7, len(eta)))
    for z, w in zip(nodes, weights / weights.sum(), strict=True):
        with np.errstate(all="ignore"):
            table = family.link.inverse(variables([eta + np.sqrt(v) * z], (0,), 3)[0]).table(len(eta))
        d0, d1, d2, d3 = (np.asarray(table[k]) for k in range(4))
        rows = (d0, d1, d2, d3, d0 * d0, 2.0 * d0 * d1, 2.0 * (d1 * d1 + d0 * d2))
        out += w * np.stack(rows)
    return tuple(out)


def glmm_components(fit: GLMMFit, scale: str = "latent") -> GLMMComponents:
    """Variance components of the conditional model with the covariance of their estimates.

    Parameters
    ----------
    fit : GLMMFit
    scale : {"latent", "observation"}

    Raises
    ------
    OptionError
        A scale that the family does not have.
    """
    family = base_family(fit.family)
    design, V = fit.generalised, fit._covariances[0]
    terms = [b for b, c in enumerate(design.term_predictor) if c == 0]
    names: dict[str, int] = {}
    values: list[float] = []
    slopes: list[np.ndarray] = []
    rows = np.zeros(design.n)  # variance of the linear predictor, of individuals that are not inbred
    along: list[np.ndarray | None] = []
    moves = fit.objective.coordinates.map.derivatives(fit.theta)
    first = len(fit.gamma)
    for b in terms:
        term, F = design.terms[b], np.asarray(fit._factors[b])
        Sigma = F @ F.T
        for i in range(term.k):
            for j in range(i + 1):
                label = f"{term.group}.{term.names[i]}" + (f".{term.names[j]}" if i != j else "")
                if term.k == 1:
                    names.setdefault(term.group, len(values))
                names[label] = len(values)
                values.append(float(Sigma[i, j]))
                gradient = np.zeros(len(V))
                for t, parts in enumerate(moves):
                    for own, E in parts:
                        if own == b:
                            gradient[first + t] += float(E[i] @ F[j] + F[i] @ E[j])
                slopes.append(gradient)
                z = _share_of_rows(term, i, j)
                along.append(z)
                rows += float(Sigma[i, j]) * (1.0 if z is None else z)
    J = np.array(slopes).reshape(len(values), len(V))
    x = np.array(values)
    if scale == "latent":
        x, J, notes = _latent(fit, family, x, J, rows, along)
    else:
        x, J, notes = _observed(fit, family, x, J, rows, along, names)
    names["Residual"] = len(x) - 1
    used = np.flatnonzero((J != 0.0).any(axis=0))
    covariance = J[:, used] @ V[np.ix_(used, used)] @ J[:, used].T
    if family is not fit.family:
        notes = [*notes, "of the conditional model: without the model of the zeros"]
    return GLMMComponents(names, x, covariance, tuple(notes))


def _share_of_rows(term: RandomTerm, i: int, j: int) -> np.ndarray | None:
    """What one entry of Sigma adds to the variance of the linear predictor in each row; None: 1 everywhere.

    Individuals are not inbred. Where a row touches several levels, covariances count as these are related.
    """
    if not term.several_levels:
        return None if term.Z is None else term.Z[:, i] * term.Z[:, j] * (1.0 if i == j else 2.0)
    if i == j:
        return np.asarray((term.matrix(term.n)[:, i :: term.k] ** 2).sum(axis=1))
    from mixedmodels.inference.checks.variance_parts import several_levels_variances

    unit = np.zeros((term.k, term.k))
    unit[i, j] = unit[j, i] = 1.0
    return several_levels_variances(term, unit)


def profile_of_one(
    fit: GLMMFit, ratio: Ratio, found: GLMMComponents, level: float
) -> tuple[float, float, str]:
    """Profile limits of a ratio that changes with one estimated variance: those of its standard deviation.

    Where the ratio is monotone in the variance the two have one profile.

    Parameters
    ----------
    fit : GLMMFit
    ratio : Ratio
    found : GLMMComponents
    level : float

    Returns
    -------
    low, high : float
    note : str

    Raises
    ------
    OptionError
        It changes with several variances, or with a Residual that is estimated, or is not monotone.
    """
    last = len(found.values) - 1
    design = fit.generalised
    single = {found.names[f"{t.group}.{t.names[0]}"]: t for t in _conditional(design) if t.k == 1}
    free = [i for i in ratio.places if i != last]
    fixed = last not in ratio.places or float(found.covariance[last, last]) == 0.0
    if len(free) != 1 or free[0] not in single or not fixed:
        raise OptionError(
            "a profile of a generalised model's ratio is for one random intercept over it and a Residual "
            "that is known (successes, categories; latent scale); take method='delta' or 'bootstrap' here"
        )
    place, term = free[0], single[free[0]]
    row = fit.confint("profile", level, f"sd_{term.names[0]}|{term.group}").rows()[0]
    low, high = (min(row[name], _FAR) for name in ("conf_low", "conf_high"))
    along = np.repeat(found.values[None], 201, axis=0)
    along[:, place] = np.linspace(low, high, 201) ** 2
    slopes = [ratio.value(values)[1][place] for values in along]
    if min(slopes) < 0.0 < max(slopes):
        raise OptionError(
            f"the ratio {ratio.text!r} rises and falls with the variance of {term.group!r}, which a profile "
            "cannot follow; take method='delta' or 'bootstrap' here"
        )
    ends = [ratio.value(values)[0] for values in along[[0, -1]]]
    note = f"limits from the profile of the standard deviation of {term.group}" + (
        f" ({row['note']})" if row.get("note") else ""
    )
    return min(ends), max(ends), note


def _conditional(design: Any) -> list[Any]:
    """Random terms of the conditional predictor."""
    return [term for term, c in zip(design.terms, design.term_predictor, strict=True) if c == 0]


def _predictor(fit: GLMMFit) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Linear predictor without random effects, its columns and their places in gamma."""
    predictor = fit.generalised.predictors[0]
    X = np.ones((fit.generalised.n, 1)) if predictor.X is None else np.asarray(predictor.X)
    return np.asarray(fit._etas("population")[0]), X, np.asarray(predictor.columns)


def _row_gradient(
    fit: GLMMFit, eta_slope: np.ndarray, v_slope: np.ndarray, J: np.ndarray, along: list[np.ndarray | None]
) -> np.ndarray:
    """Gradient, with respect to all parameters, of the mean over rows of a function of eta and v."""
    _, X, columns = _predictor(fit)
    gradient = np.zeros(J.shape[1])
    np.add.at(gradient, columns, X.T @ eta_slope / len(eta_slope))
    for z, own in zip(along, J, strict=True):
        gradient += float(np.mean(v_slope if z is None else v_slope * z)) * own
    return gradient


def _latent(
    fit: GLMMFit,
    family: Family,
    x: np.ndarray,
    J: np.ndarray,
    rows: np.ndarray,
    along: list[np.ndarray | None],
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """The components and the variance of observations around the linear predictor."""
    link, own = family.link.name, np.zeros(J.shape[1])
    if family.name == "binomial" or family.response == "categories":
        residual = _LATENT.get(link, math.nan)
        note = f"latent scale; Residual: variance {residual:.4g} of the {link} link's distribution"
    elif family.name == "poisson" and link == "log":
        found = response_moments(family, _predictor(fit)[0], rows)
        level = float(np.mean(found.mean))
        residual = math.log1p(1.0 / level)
        own = _row_gradient(fit, found.psi, found.mean_v, J, along) / (-level * (1.0 + level))
        note = f"latent scale; Residual: ln(1 + 1 / lambda) at the mean response {level:.4g}"
    else:
        residual = math.nan
    if not math.isfinite(residual):
        note = f"latent scale; family {family.name!r} with link {link!r} has no Residual here"
    return np.append(x, residual), np.vstack([J, own]), [note]


def _observed(
    fit: GLMMFit,
    family: Family,
    x: np.ndarray,
    J: np.ndarray,
    rows: np.ndarray,
    along: list[np.ndarray | None],
    names: dict[str, int],
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """The components on the scale of the response; Residual makes up the phenotypic variance."""
    if family is not fit.family:
        raise OptionError(
            "with a model of the zeros or truncation there is no ratio on the scale of the response; take "
            'scale="latent"'
        )
    found = response_moments(family, _predictor(fit)[0], rows)
    psi, total = float(np.mean(found.psi)), float(np.mean(found.variance))
    d_psi = _row_gradient(fit, found.psi_eta, found.psi_v, J, along)
    d_total = _row_gradient(fit, found.variance_eta, found.variance_v, J, along)
    out = psi**2 * x
    slopes = psi**2 * J + 2.0 * psi * x[:, None] * d_psi
    variances = [z is None for z in along]
    if not all(variances):
        raise OptionError(
            "on the scale of the response ratios are for random intercepts; with slopes they change from row "
            'to row: take scale="latent"'
        )
    residual = total - float(out.sum())
    gradient = d_total - slopes.sum(axis=0)
    one = " of a single trial" if family.name == "binomial" else ""
    notes = [
        f"scale of the response{one}: mean {float(np.mean(found.mean)):.4g}, Psi {psi:.4g}, phenotypic "
        f"variance {total:.4g} (means over the rows, fixed effects held)"
    ]
    return np.append(out, residual), np.vstack([slopes, gradient]), notes
