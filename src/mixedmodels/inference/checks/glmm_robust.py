r"""Cluster-robust covariances of generalised models: the sandwich of the scores of the clusters.

If no random effect reaches from one cluster into another, minus twice the log-likelihood is a sum over the
clusters, :math:`d(\psi) = \sum_j d_j(\psi)`, with scores :math:`s_j = -\frac12\partial d_j/\partial\psi`.
With H the Hessian of d over the free parameters and :math:`A = (H/2)^{-1}`,

.. math:: \mathrm{Cov}(\hat\psi) = A \Big(\sum_j s_j s_j'\Big) A

is consistent in the number of clusters whatever the distribution of the data (White 1982, Econometrica
50:1-25). The scores are derivatives of the likelihood that was maximised, Laplace's or by quadrature.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import OptionError
from mixedmodels.fit.wald import check_level
from mixedmodels.inference.checks.glmm_influence import reduced_design
from mixedmodels.inference.checks.grouping import Grouping, grouping_of
from mixedmodels.inference.table import ResultTable, result_table

if TYPE_CHECKING:
    from mixedmodels.fit.glmm_result import GLMMFit

__all__ = ["GLMM_KINDS", "RobustGLMMCovariance", "cluster_scores", "robust_vcov"]

GLMM_KINDS = ("CR0", "CR1", "CR1S")


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class RobustGLMMCovariance:
    """A cluster-robust covariance matrix of a generalised fit with z tests of all coefficients.

    Attributes
    ----------
    kind : str
    cluster : str
    vcov : ndarray, shape (p, p)
        Of the coefficients of the conditional model.
    joint_vcov : ndarray, shape (P, P)
        Of all parameters psi, as `GLMMFit.joint_vcov`.
    table : ResultTable
        Columns term, estimate, std_error, statistic, p_value, conf_low, conf_high.
    """

    kind: str
    cluster: str
    vcov: np.ndarray
    joint_vcov: np.ndarray
    table: ResultTable

    def to_frame(self) -> Any:
        """The table of the coefficients as a data frame."""
        return self.table.to_frame()

    def __str__(self) -> str:
        return str(self.table)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.table.to_html()

    def to_html(self) -> str:
        """The table of the coefficients as an HTML fragment."""
        return self.table.to_html()


def robust_vcov(
    fit: GLMMFit, kind: str | None = None, cluster: Any = None, level: float = 0.95
) -> RobustGLMMCovariance:
    r"""Sandwich covariance of the parameters of a generalised model from the scores of clusters.

    ``CR0``: the formula of the module; ``CR1``: times J/(J-1) with J clusters, as the package sandwich's
    ``cadjust``; ``CR1S``: times J(n-1)/((J-1)(n-P)) with P free parameters.

    Parameters
    ----------
    fit : GLMMFit
    kind : {"CR1", "CR0", "CR1S"}
    cluster : str or array, optional
        A grouping factor, a column of the data, or one label per row; by default the grouping factor that
        contains all others. Every level of every grouping factor must lie within one cluster.
    level : float
        Of the confidence intervals, by normal quantiles.

    Returns
    -------
    RobustGLMMCovariance

    Raises
    ------
    OptionError
        An unknown kind, clusters that cut through the levels of a grouping factor, or a single cluster.
    NotImplementedYetError
        A row touches several levels of a term.

    Examples
    --------
    >>> import mixedmodels as mm
    >>> data = mm.load_dataset("cbpp", backend="dict")
    >>> fit = mm.glmm("incidence ~ period + (1 | herd)", data, family="binomial", trials="size")
    >>> fit.robust_vcov("CR0").table["std_error"].round(3).tolist()
    [0.286, 0.454, 0.513, 0.362]
    """
    name = "CR1" if kind is None else str(kind).upper()
    if name in ("CR2", "CR3"):
        raise OptionError(
            f"{name} corrects residuals of linear models; generalised models have {', '.join(GLMM_KINDS)}"
        )
    if name not in GLMM_KINDS:
        raise OptionError(f"kind {kind!r} is unknown; available: {', '.join(GLMM_KINDS)}")
    level = check_level(level)
    fit.generalised.need_one_level("robust_vcov")
    grouping = _containing_group(fit) if cluster is None else grouping_of(fit, cluster, "cluster")
    J = len(grouping.levels)
    if J < 2:
        raise OptionError(f"cluster {grouping.name!r} has a single level; the covariance needs several")
    scores = cluster_scores(fit, grouping)
    joint = _sandwich(fit, scores)
    free = fit.df_model
    if name == "CR1":
        joint *= J / (J - 1)
    elif name == "CR1S":
        if fit.nobs <= free:
            raise OptionError(f"CR1S needs more rows than parameters; there are {fit.nobs} and {free}")
        joint *= J * (fit.nobs - 1) / ((J - 1) * (fit.nobs - free))
    p = fit.design.p
    vcov = joint[:p, :p].copy()
    return RobustGLMMCovariance(
        name, grouping.name, vcov, joint, _table(fit, name, grouping, joint, scores, level)
    )


def cluster_scores(fit: GLMMFit, grouping: Grouping) -> np.ndarray:
    """Scores of the clusters: derivatives of their log-likelihoods to (gamma, theta), shape (J, P).

    Each cluster is evaluated by an engine of the kind of the fit on its own rows.

    Parameters
    ----------
    fit : GLMMFit
    grouping : Grouping

    Raises
    ------
    OptionError
        A random effect reaches from one cluster into another.
    """
    from mixedmodels.objective.marginal.choose import choose_marginal

    _check_nested(fit, grouping)
    objective, options = fit.objective, fit._options
    if options.nagq == 0:
        raise OptionError(
            "nagq=0 does not maximise a likelihood, so that there are no scores to make a sandwich of; fit "
            "with nagq=1 or more"
        )
    inner, (gamma, factors) = objective.coordinates.inner, objective._at(fit.psi)
    order = np.argsort(grouping.codes, kind="stable")
    edges = np.concatenate([[0], np.cumsum(np.bincount(grouping.codes, minlength=len(grouping.levels)))])
    out = np.empty((len(grouping.levels), objective.coordinates.B.shape[0]))
    for j in range(len(grouping.levels)):
        own = reduced_design(inner, order[edges[j] : edges[j + 1]])
        engine = choose_marginal(own, fit.family, options.nagq, options.information, options.solver)
        out[j] = engine.evaluate(gamma, factors, 1).gradient
    return -0.5 * out @ objective.coordinates.B


def _sandwich(fit: GLMMFit, scores: np.ndarray) -> np.ndarray:
    """``A S A`` in psi; parameters at a boundary, held or undetermined as in `joint_vcov`.

    ``joint_vcov`` is ``M A M'`` (zero rows for what is held), and M'M restricts the scores to free
    directions: ``M A M' s`` is A of the free scores.
    """
    covariance = np.asarray(fit.joint_vcov)
    unknown = np.isnan(covariance.diagonal())
    known = np.where(np.isnan(covariance), 0.0, covariance)
    half = scores @ known
    out = half.T @ half
    out[unknown] = np.nan
    out[:, unknown] = np.nan
    return out


def _containing_group(fit: GLMMFit) -> Grouping:
    if not fit._terms:
        raise OptionError("the model has no grouping factor; name the clusters with cluster=")
    term = min(fit._terms, key=lambda term: term.m)
    labels = np.asarray(list(term.levels), dtype=object)
    used, codes = np.unique(term.codes, return_inverse=True)
    return Grouping(term.group, codes, tuple(labels[used].tolist()))


def _check_nested(fit: GLMMFit, grouping: Grouping) -> None:
    for term in fit._terms:
        first = np.full(term.m, -1, dtype=np.intp)
        first[term.codes] = grouping.codes
        if (first[term.codes] != grouping.codes).any():
            raise OptionError(
                f"the clusters {grouping.name!r} cut through levels of {term.group!r}, whose random effects "
                "tie clusters together: with crossed factors no clusters are independent; take a factor "
                f"that contains {term.group!r}, or leave that term out of the model"
            )
        if term.precision is not None:
            raise OptionError(
                f"the term on {term.group!r} has a known precision; robust_vcov needs independent levels"
            )


def _table(
    fit: GLMMFit, kind: str, grouping: Grouping, joint: np.ndarray, scores: np.ndarray, level: float
) -> ResultTable:
    from scipy.special import ndtr, ndtri

    from mixedmodels.inference.fixed.glmm_coefficients import component_tests

    q = fit._n_gamma
    estimate, variance = np.asarray(fit.gamma), joint.diagonal()[:q]
    constants = {name for part in component_tests(fit) if part.constant for name in part.names}
    untested = np.array([name in constants for name in fit.gamma_names])
    with np.errstate(divide="ignore", invalid="ignore"):
        se = np.where(variance > 0.0, np.sqrt(variance), np.nan)
        statistic = np.where(untested, np.nan, estimate / se)
    half = ndtri(0.5 + 0.5 * level) * se
    columns = {
        "term": list(fit.gamma_names),
        "estimate": estimate,
        "std_error": se,
        "statistic": statistic,
        "p_value": 2.0 * ndtr(-np.abs(statistic)),
        "conf_low": estimate - half,
        "conf_high": estimate + half,
    }
    J = len(grouping.levels)
    notes = [f"{J} clusters; tests and limits by the normal distribution"]
    if J < 30:
        notes.append(f"with {J} clusters robust standard errors tend to be too small")
    if fit._options.priors:
        notes.append("scores of the likelihood, curvature with the priors")
    title = f"Coefficients with {kind} cluster-robust standard errors, clusters {grouping.name}"
    extra = {"vcov": joint, "kind": kind, "scores": scores}
    return result_table(title, columns, notes, fit._native, extra)
