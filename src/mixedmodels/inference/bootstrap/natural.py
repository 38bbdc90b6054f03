"""Covariance parameters of many fits of one model as standard deviations and correlations, without a loop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mixedmodels.fit import checks
from mixedmodels.fit.varcorr import unique_keys

if TYPE_CHECKING:
    from mixedmodels.design import Design, RandomTerm

__all__ = ["Parameter", "natural_names", "natural_values", "relative_factors", "singular_rows"]


@dataclass(frozen=True, slots=True)
class Parameter:
    """Name of one estimate.

    Attributes
    ----------
    name : str
        Unique: ``"Days"``, ``"Subject.sd__Days"``, ``"Subject.cor__(Intercept).Days"``, ``"sigma"``.
    term : str
        As in `tidy`: ``"Days"``, ``"sd__Days"``, ``"cor__(Intercept).Days"``, ``"sd__Observation"``.
    group : str
        Grouping factor, ``"Residual"``, or empty for a fixed effect.
    kind : str
        ``"fixed"``, ``"sigma"``, ``"sd"``, ``"cor"`` or ``"statistic"``.
    """

    name: str
    term: str
    group: str
    kind: str


def natural_names(design: Design) -> list[Parameter]:
    """Fixed effects, sigma, then standard deviations and correlations of each term."""
    out = [Parameter(name, name, "", "fixed") for name in design.x_names]
    out.append(Parameter("sigma", "sd__Observation", "Residual", "sigma"))
    for key, term in zip(unique_keys([term.group for term in design.terms]), design.terms, strict=True):
        for i, name in enumerate(term.names):
            out.append(Parameter(f"{key}.sd__{name}", f"sd__{name}", key, "sd"))
            for other in term.names[:i] if _correlated(term) else ():
                text = f"cor__{other}.{name}"
                out.append(Parameter(f"{key}.{text}", text, key, "cor"))
    return out


def natural_values(design: Design, beta: np.ndarray, sigma: np.ndarray, theta: np.ndarray) -> np.ndarray:
    """The parameters of `natural_names` for N fits, shape (N, parameters).

    A correlation with a standard deviation of zero is not defined and NaN.

    Parameters
    ----------
    design : Design
    beta : ndarray, shape (N, p)
    sigma : ndarray, shape (N,)
    theta : ndarray, shape (N, n_theta)
    """
    columns = [*beta.T, sigma]
    for term, factors in zip(design.terms, relative_factors(design, theta), strict=True):
        length = np.sqrt(np.einsum("nij,nij->ni", factors, factors))
        for i in range(term.k):
            columns.append(sigma * length[:, i])
            for j in range(i) if _correlated(term) else ():
                product = length[:, i] * length[:, j]
                inner = np.einsum("nc,nc->n", factors[:, i], factors[:, j])
                with np.errstate(invalid="ignore", divide="ignore"):
                    value = np.where(product > 0.0, inner / np.where(product > 0.0, product, 1.0), np.nan)
                columns.append(np.clip(value, -1.0, 1.0))
    return np.stack(columns, axis=1)


def _correlated(term: RandomTerm) -> bool:
    return term.covariance.clip == "block" and term.k > 1


def relative_factors(design: Design, theta: np.ndarray) -> list[np.ndarray]:
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
            factors = np.array([term.covariance.factor(row) for row in part])
            out.append(factors.reshape(theta.shape[0], term.k, term.k))
            continue
        factors = np.zeros((theta.shape[0], term.k, term.k))
        rows, cols, index = np.asarray(entries).T
        factors[:, rows, cols] = part[:, index]
        out.append(factors)
    return out


def singular_rows(design: Design, theta: np.ndarray) -> np.ndarray:
    """Which of N fits are singular, by the same rule as ``fit.is_singular``; shape (N,)."""
    out = np.zeros(theta.shape[0], dtype=bool)
    for term, factors in zip(design.terms, relative_factors(design, theta), strict=True):
        scaled = checks.scaled_factor(term, np.eye(term.k)) @ factors
        finite = np.isfinite(scaled).all(axis=(1, 2))
        values = np.linalg.svd(np.where(finite[:, None, None], scaled, 1.0), compute_uv=False)
        out |= finite & (values[:, -1] ** 2 < checks.SINGULAR_TOLERANCE)
    return out
