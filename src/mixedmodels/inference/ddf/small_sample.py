"""Covariances of the fixed and random effects corrected for having estimated the variances."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import OptionError
from mixedmodels.inference.ddf.variances import check_structures, covariance_of
from mixedmodels.inference.table import ResultTable, result_table

if TYPE_CHECKING:
    from mixedmodels.design import RandomTerm
    from mixedmodels.fit.result import LMMFit

__all__ = ["small_sample"]


def small_sample(fit: LMMFit) -> ResultTable:
    r"""Standard errors of the fixed effects and of the random effects that allow for estimated variances.

    With :math:`\gamma = (\beta, b)`, C its covariance matrix at known variances (Henderson's) and A the
    covariance matrix of theta, twice the inverse Hessian of the criterion,

    .. math:: \mathrm{Var}(\hat\gamma - \gamma) \approx \sigma^2 C
        + \frac{\partial\hat\gamma}{\partial\theta} A \frac{\partial\hat\gamma}{\partial\theta}', \qquad
        \frac{\partial\hat\beta}{\partial\theta_i} = -(X'V^{-1}X)^{-1}X'V^{-1}V_iPy, \qquad
        \frac{\partial\hat b}{\partial\theta_i} = (\dot\Sigma_i - \Sigma Z'PZ\,\dot\Sigma_i) Z'Py .

    Parameters
    ----------
    fit : LMMFit

    Returns
    -------
    ResultTable
        group (None for fixed effects), level, term, estimate, std_error (corrected), conditional (the usual
        one: at known variances, and for random effects at known beta), increase (their ratio minus one, in
        percent). ``extra``: ``vcov`` (p, p); ``random``, per term (m, k, k); ``random_fixed``, per term
        (m, k, p): corrected covariances of beta, of each level's b, and between them.

    Notes
    -----
    Schafer (1998), *Some improved procedures for linear mixed models*, section 4; Kass & Steffey (1989),
    J. Amer. Statist. Assoc. 84:717-726; for balanced designs Prasad & Rao (1990), 85:163-171.

    Examples
    --------
    >>> import mixedmodels as mm
    >>> fit = mm.lmm("Yield ~ 1 + (1 | Batch)", mm.load_dataset("Dyestuff", backend="dict"))
    >>> table = fit.small_sample()
    >>> bool((table["std_error"][1:] > table["conditional"][1:]).all())
    True
    """
    if not fit._is_linear:
        raise OptionError(
            "small_sample corrects linear models; the standard errors of a generalised fit allow for the "
            "estimated variances, and bootstrap() for small samples too"
        )
    check_structures(fit, "satterthwaite")
    objective, sigma2 = fit.objective, fit.sigma**2
    factors = [np.array(factor) for factor in fit._factors]
    information = objective.joint_information(fit.theta, "observed")
    A, dropped = covariance_of(fit, information, "observed")
    A = A[: len(fit.theta), : len(fit.theta)]
    d_beta, d_b = _derivatives(fit, factors)
    vcov = np.asarray(fit.vcov) + d_beta.T @ A @ d_beta
    solver = fit.solver
    crosses = solver.fixed_random_covariance(factors)
    random, random_fixed = [], []
    for j, db in enumerate(d_b):
        base = solver.random_covariance(factors, j)
        random.append(sigma2 * np.asarray(base) + np.einsum("tmk,tu,uml->mkl", db, A, db, optimize=True))
        random_fixed.append(
            sigma2 * np.asarray(crosses[j]) + np.einsum("tmk,tu,up->mkp", db, A, d_beta, optimize=True)
        )
    columns = _columns(fit, vcov, random)
    notes = []
    if dropped:
        notes.append(
            f"{dropped} direction(s) of the variance parameters are not identified at this estimate and "
            "taken as known"
        )
    if fit.is_singular:
        notes.append(
            "singular fit: parameters on the boundary are taken as known, so their uncertainty is missing"
        )
    extra = {"vcov": vcov, "random": tuple(random), "random_fixed": tuple(random_fixed)}
    title = "Standard errors corrected for estimated variances"
    return result_table(title, columns, notes, fit._native, extra)


def _derivatives(fit: LMMFit, factors: list[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
    """d beta / d theta, (r, p), and per term d b / d theta, (r, m, k).

    The solution for the response ``V_i P y`` holds both projections of it.
    """
    design, objective = fit.design, fit.objective
    offset = 0.0 if design.offset is None else design.offset
    residual = design.y - offset - design.X @ fit.beta
    for term, b in zip(design.terms, fit._b, strict=True):
        residual = residual - _contribution(term, b)
    Py, of_residuals = _projected(fit, residual)
    c = [_transposed(term, Py) for term in design.terms]
    responses, parts = [], []
    for direction in objective.directions(fit.theta):
        images = [
            np.zeros_like(own) if dS is None else _related(term, own) @ dS
            for term, own, dS in zip(design.terms, c, direction, strict=True)
        ]
        response = np.zeros(design.n)
        for term, image in zip(design.terms, images, strict=True):
            response += _contribution(term, image)
        responses.append(response)
        parts.append(images)
    for response in of_residuals:
        responses.append(response)
        parts.append([np.zeros_like(own) for own in c])
    d_beta = np.zeros((len(responses), design.p))
    d_b = [np.zeros((len(responses), term.m, term.k)) for term in design.terms]
    if not responses:
        return d_beta, d_b
    beta, b = fit.solver.responses_at(factors)(np.array(responses).T)
    d_beta -= np.asarray(beta).T
    for i, images in enumerate(parts):
        for j, image in enumerate(images):
            d_b[j][i] = image - np.asarray(b[j])[..., i]
    return d_beta, d_b


def _projected(fit: LMMFit, residual: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """``P y`` from the conditional residuals, and ``R_j P y`` for the parameters of a residual structure."""
    design = fit.design
    if design.residual is None:
        return (residual if design.weights is None else design.weights * residual), []
    point = fit._point  # type: ignore[attr-defined]
    white = np.ascontiguousarray(point.whiten(residual[:, None]))
    changes = [point.unwhiten(point.change(j, white))[:, 0] for j in range(design.residual.n_phi)]
    return point.whiten_adjoint(white)[:, 0], changes


def _contribution(term: RandomTerm, b: np.ndarray) -> np.ndarray:
    """``Z b``, shape (n,)."""
    if term.several_levels:
        return np.asarray(term.matrix(term.n) @ b.ravel())
    return b[term.codes, 0] if term.Z is None else np.einsum("nk,nk->n", term.Z, b[term.codes])


def _transposed(term: RandomTerm, v: np.ndarray) -> np.ndarray:
    """``Z'v`` by level, shape (m, k)."""
    if term.several_levels:
        return np.asarray(term.matrix(term.n).T @ v).reshape(term.m, term.k)
    columns = v[:, None] if term.Z is None else term.Z * v[:, None]
    return np.column_stack([np.bincount(term.codes, column, term.m) for column in columns.T])


def _related(term: RandomTerm, c: np.ndarray) -> np.ndarray:
    """``A c`` for the known covariance A between levels."""
    if term.precision is None:
        return c
    from mixedmodels.solver.precision import covariance_times

    return covariance_times(term.precision)(np.ascontiguousarray(c))


def _columns(fit: LMMFit, vcov: np.ndarray, random: list[np.ndarray]) -> dict[str, Any]:
    p = fit.design.p
    group: list[Any] = [None] * p
    level: list[Any] = [None] * p
    name = list(fit.design.x_names)
    estimate = [np.asarray(fit.beta)]
    corrected = [np.sqrt(vcov.diagonal())]
    conditional = [np.sqrt(np.asarray(fit.vcov).diagonal())]
    for j, (term, b) in enumerate(zip(fit.design.terms, fit._b, strict=True)):
        group += [term.group] * b.size
        level += [str(label) for label in term.levels for _ in range(term.k)]
        name += list(term.names) * term.m
        estimate.append(np.asarray(b).ravel())
        corrected.append(np.sqrt(np.maximum(np.diagonal(random[j], axis1=1, axis2=2), 0.0)).ravel())
        known = np.diagonal(fit.conditional_covariance(j), axis1=1, axis2=2)
        conditional.append(np.sqrt(np.maximum(known, 0.0)).ravel())
    se, plain = np.concatenate(corrected), np.concatenate(conditional)
    with np.errstate(divide="ignore", invalid="ignore"):
        increase = np.where(plain > 0.0, 100.0 * (se / plain - 1.0), np.nan)
    return {
        "group": group,
        "level": level,
        "term": name,
        "estimate": np.concatenate(estimate),
        "std_error": se,
        "conditional": plain,
        "increase": increase,
    }
