"""The variance of the response in parts: fixed effects, each random term, residual."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import NotImplementedYetError, OptionError
from mixedmodels.inference.checks.grouping import refuse_function_fit
from mixedmodels.inference.table import ResultTable, result_table
from mixedmodels.solver.precision import covariance_diagonal

if TYPE_CHECKING:
    from mixedmodels.design import RandomTerm
    from mixedmodels.fit.result import LMMFit

__all__ = ["SCALES", "Parts", "mean_variance", "parts_of", "variance_parts"]

SCALES = ("latent", "observation")


@dataclass(frozen=True, slots=True)
class Parts:
    """Variances on the scale of the response.

    Attributes
    ----------
    fixed : float
        Variance of ``X beta`` over the rows.
    terms : tuple of (str, str, float)
        Grouping factor, columns, and mean over the rows of the variance of ``z'b``, per term.
    residual : float
        Mean over the rows of the residual variance.
    notes : tuple of str
    together : float, optional
        Variance of all random effects where it is not the sum over the terms.
    """

    fixed: float
    terms: tuple[tuple[str, str, float], ...]
    residual: float
    notes: tuple[str, ...] = ()
    together: float | None = None

    @property
    def random(self) -> float:
        """Of all random effects: the sum over the terms, or `together`."""
        if self.together is not None:
            return self.together
        return sum(value for *_, value in self.terms)

    @property
    def groups(self) -> dict[str, float]:
        """Sum over the terms of each grouping factor."""
        out: dict[str, float] = {}
        for group, _, value in self.terms:
            out[group] = out.get(group, 0.0) + value
        return out


def parts_of(fit: Any, scale: str = "latent", method: str | None = None) -> Parts:
    """`Parts` of a fit, kept by it.

    Parameters
    ----------
    fit : LMMFit or GLMMFit
    scale : {"latent", "observation"}
        Of generalised models; the same thing for linear ones.
    method : str, optional
        As `mixedmodels.inference.checks.latent_variance`.

    Raises
    ------
    OptionError
        An unknown scale or method.
    """
    if scale not in SCALES:
        raise OptionError(f"scale must be 'latent' or 'observation', got {scale!r}")
    if fit._is_linear:
        if method is not None:
            raise OptionError("method is about the latent scale of generalised models; leave it out")
        return fit._once("variance_parts", lambda: _parts(fit))
    from mixedmodels.inference.checks.latent_variance import latent_parts
    from mixedmodels.inference.checks.observed_variance import observed_parts

    if scale == "latent":
        return fit._once(f"variance_parts_{method}", lambda: latent_parts(fit, method))
    if method is not None:
        raise OptionError("method is for scale='latent'; the scale of the response needs no approximation")
    return fit._once("variance_parts_observation", lambda: observed_parts(fit))


def _parts(fit: LMMFit) -> Parts:
    refuse_function_fit(fit, "a decomposition of the variance")
    design = fit.design
    eta = design.X @ fit.beta
    fixed = float(np.var(eta - eta[0], ddof=1)) if design.p and design.n > 1 else 0.0
    terms = []
    notes = []
    for term, factor in zip(design.terms, fit._factors, strict=True):
        relative = np.array(factor)
        value = fit.sigma**2 * mean_variance(term, relative @ relative.T)
        terms.append((term.group, " + ".join(term.names), value))
    if any(term.Z is not None for term in design.terms):
        notes.append("terms with slopes: the mean over the rows of the variance of z'b (Johnson 2014)")
    residual = fit.sigma**2
    if design.residual is not None:  # known weights are part of it
        variances = fit._point.variances  # type: ignore[attr-defined]
        residual *= float(np.mean(variances))
        if np.ptp(variances) > 0.0:
            notes.append("residual: the mean over the rows of the residual variance")
    elif design.weights is not None:
        residual *= float(np.mean(1.0 / design.weights))
        notes.append("residual: the mean over the rows of sigma^2 / weight")
    if fit.is_singular:
        zero = [f"{columns} | {group}" for group, columns, value in terms if value == 0.0]
        if zero:
            notes.append(f"variance estimated as zero: {', '.join(zero)}")
    return Parts(fixed, tuple(terms), residual, tuple(notes))


def mean_variance(term: RandomTerm, Sigma: np.ndarray) -> float:
    """Mean over the rows of ``A_ll z'Sigma z``, the variance of a row's random effect.

    Examples
    --------
    >>> import numpy as np
    >>> from mixedmodels.testing import random_design
    >>> mean_variance(random_design(0, "one_scalar").terms[0], np.array([[4.0]]))
    4.0
    """
    if term.several_levels:
        return float(np.mean(several_levels_variances(term, Sigma)))
    if term.precision is None:
        if term.Z is None:
            return float(Sigma[0, 0])
        return float(np.sum(Sigma * (term.Z.T @ term.Z))) / term.Z.shape[0]
    rows = np.full(len(term.codes), float(Sigma[0, 0])) if term.Z is None else _forms(term.Z, Sigma)
    return float(np.mean(rows * covariance_diagonal(term.precision)[term.codes]))


def _forms(Z: np.ndarray, Sigma: np.ndarray) -> np.ndarray:
    return np.einsum("ni,ij,nj->n", Z, Sigma, Z)


def several_levels_variances(term: RandomTerm, Sigma: np.ndarray) -> np.ndarray:
    """``z'(A kron Sigma)z`` by row where a row touches several levels, shape (n,).

    Parameters
    ----------
    term : RandomTerm
    Sigma : ndarray, shape (k, k)

    Raises
    ------
    NotImplementedYetError
        Levels of one row are not neighbours in a sparse precision.
    """
    Z, k = term.matrix(term.n), term.k
    if term.precision is None:
        out = np.zeros(term.n)
        for a in range(k):
            for c in range(k):
                out += float(Sigma[a, c]) * np.asarray((Z[:, a::k] * Z[:, c::k]).sum(axis=1))
        return out
    from mixedmodels.design import KnownCovariance
    from mixedmodels.solver.sparse_cholesky import SparseCholesky

    # All pairs of entries of a row; their covariances lie in the pattern where the levels are neighbours.
    counts = np.diff(Z.indptr)
    first = np.repeat(np.arange(Z.nnz), np.repeat(counts, counts))
    start = np.repeat(Z.indptr[:-1], counts**2)
    offset = np.arange(len(first)) - np.repeat(np.cumsum(counts**2) - counts**2, counts**2)
    second = start + offset % np.repeat(counts, counts**2)
    one, other = Z.indices[first], Z.indices[second]
    if isinstance(term.precision, KnownCovariance):
        A = term.precision.covariance[one // k, other // k]
    else:
        A = SparseCholesky(term.precision.matrix).inverse_entries(one // k, other // k)
    if np.isnan(A).any():
        raise NotImplementedYetError(
            f"the variance of the effects of {term.group!r}: not in this version for rows that touch levels "
            "which are not neighbours in the precision"
        )
    values = Z.data[first] * Z.data[second] * A * Sigma[one % k, other % k]
    return np.bincount(np.repeat(np.arange(term.n), counts**2), values, term.n)


def variance_parts(fit: Any, scale: str = "latent", method: str | None = None) -> ResultTable:
    r"""Variance of the response in parts, with their shares.

    .. math:: \mathrm{var}(X\hat\beta) + \sum_b \frac1n\sum_i z_{ib}'\hat\Sigma_b z_{ib} + \hat\sigma^2

    Parameters
    ----------
    fit : LMMFit or GLMMFit
    scale : {"latent", "observation"}
        Of generalised models: the scale of the linear predictor
        (`mixedmodels.inference.checks.latent_variance`) or of the response
        (`mixedmodels.inference.checks.observed_variance`).
    method : {"theoretical", "lognormal", "delta", "trigamma"}, optional
        How the residual variance on the latent scale is found.

    Returns
    -------
    ResultTable
        Columns component, group, variance, share, sd; extra["total"].

    Notes
    -----
    Nakagawa & Schielzeth (2013), Methods Ecol. Evol. 4:133-142; Johnson (2014), ibid. 5:944-946.

    Examples
    --------
    >>> import mixedmodels as mm
    >>> fit = mm.lmm("Reaction ~ Days + (Days | Subject)", mm.load_dataset("sleepstudy", backend="dict"))
    >>> variance_parts(fit)["share"].round(3).tolist()
    [0.279, 0.521, 0.201]
    """
    parts = parts_of(fit, scale, method)
    rows = [("fixed effects", "", parts.fixed)]
    rows += [(columns, group, value) for group, columns, value in parts.terms]
    rest = parts.random - sum([value for *_, value in parts.terms])
    if parts.together is not None and len(parts.terms) > 1:
        rows.append(("jointly", ", ".join(parts.groups), max(rest, 0.0)))
    rows.append(("residual", "", parts.residual))
    variance = np.array([value for *_, value in rows])
    total = float(variance.sum())
    columns = {
        "component": [row[0] for row in rows],
        "group": [row[1] for row in rows],
        "variance": variance,
        "share": variance / total,
        "sd": np.sqrt(variance),
    }
    latent = scale == "latent" and not fit._is_linear
    title = "Variance on the latent scale" if latent else "Variance of the response"
    return result_table(title, columns, parts.notes, fit._native, {"total": total})
