"""One model fitted to many responses: what bootstrap, simulation tests and power are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import MixedModelsError, OptionError
from mixedmodels.fit import checks
from mixedmodels.inference.bootstrap.parallel import Counter, chunk_size, run_chunks
from mixedmodels.inference.parameters import relative_factors

if TYPE_CHECKING:
    from mixedmodels.fit.result import LMMFit

__all__ = [
    "Refits",
    "coefficients_of",
    "join_refits",
    "limited_jobs",
    "refit_many",
    "refit_rows",
    "refit_state",
    "singular_rows",
    "standard_errors_of",
]

_PERFECT = 1e-10  # residual over response standard deviation below which a fit is perfect
_SMALL = 20_000  # rows of a generalised model below which workers would wait for one another
_WORK = 2**30  # bytes of work space that all workers together may take


@dataclass(frozen=True, slots=True, eq=False)
class Refits:
    """Estimates from N responses of one model.

    Attributes
    ----------
    beta : ndarray, shape (N, p)
        All coefficients gamma of a generalised model.
    se : ndarray, shape (N, p)
        Standard errors of each replicate.
    sigma : ndarray, shape (N,)
        What factors are relative to: ones for a generalised model.
    theta : ndarray, shape (N, n_theta)
    criterion : ndarray, shape (N,)
        What was minimised (-2 log-likelihood, REML or ML as the fit).
    converged : ndarray of bool, shape (N,)
    failures : tuple of (int, str)
        Replicates that could not be fitted, with the reason; their rows are NaN.
    vcov : ndarray, shape (N, p, p), or None
        Covariance of beta of each replicate, if it was asked for.
    """

    beta: np.ndarray
    se: np.ndarray
    sigma: np.ndarray
    theta: np.ndarray
    criterion: np.ndarray
    converged: np.ndarray
    failures: tuple[tuple[int, str], ...] = ()
    vcov: np.ndarray | None = None

    def __len__(self) -> int:
        return self.sigma.shape[0]


def refit_many(
    fit: LMMFit,
    Y: np.ndarray,
    n_jobs: int | None = None,
    progress: Any = None,
    *,
    vcov: bool = False,
    backend: str | None = None,
) -> Refits:
    r"""Fit the model of `fit` to each column of Y, starting from the estimates of `fit`.

    For a covariance structure linear in theta only :math:`Z'y, X'y` and :math:`y'y` are new in each column;
    they and the Newton loop are compiled and run in threads. Replicates that end badly there, and all
    replicates of other linear models, go through `fit.refit`; those of generalised models through
    `mixedmodels.inference.bootstrap.glmm_refits.refit_response`.

    Parameters
    ----------
    fit : LMMFit or GLMMFit
    Y : ndarray, shape (nobs, N)
        Rows of the fit's design.
    n_jobs : int, optional
        Threads; None takes all processors. The result does not depend on it.
    progress : "auto", True, False, None or callable
    vcov : bool
        Keep the covariance matrix of beta of each replicate.
    backend : str, optional
        A joblib backend instead of threads.

    Returns
    -------
    Refits

    Examples
    --------
    >>> import mixedmodels as mm
    >>> from mixedmodels.inference.bootstrap.refits import refit_many
    >>> fit = mm.lmm("Reaction ~ Days + (Days | Subject)", mm.load_dataset("sleepstudy", backend="dict"))
    >>> refits = refit_many(fit, fit.simulate(100, seed=1))
    >>> refits.beta.shape, bool(refits.converged.all())
    ((100, 2), True)
    """
    Y = np.asarray(Y, dtype=float)
    if Y.ndim != 2 or Y.shape[0] != fit.design.n:
        raise OptionError(f"Y has shape {Y.shape}; it needs one row for each of {fit.design.n} observations")
    N = Y.shape[1]
    size = chunk_size(Y.shape[0])
    chunks = [Y[:, start : start + size] for start in range(0, N, size)]
    sizes = [chunk.shape[1] for chunk in chunks]
    job = _RefitJob(fit, vcov)
    results, _ = run_chunks(
        job, chunks, sizes, limited_jobs(fit, n_jobs), Counter(progress, "refits", N), backend
    )
    if len(results) < len(chunks):
        raise KeyboardInterrupt
    return join_refits(results, fit, vcov)


@dataclass(frozen=True, slots=True)
class _RefitJob:
    fit: LMMFit
    vcov: bool

    def start(self) -> Any:
        return refit_state(self.fit)

    def run(self, state: Any, chunk: np.ndarray) -> Refits:
        return refit_rows(self.fit, state, np.ascontiguousarray(chunk.T), self.vcov)


def limited_jobs(fit: LMMFit, n_jobs: int | None) -> int | None:
    """Workers that the work space of the solver leaves room for, one for small generalised models."""
    if not fit._is_linear:  # little of their work is outside of the interpreter's lock
        return 1 if n_jobs is None and fit.design.n < _SMALL else n_jobs
    size = getattr(fit.solver, "work_bytes", 0) if hasattr(fit.objective, "solver") else 0
    if size <= _WORK // 4:
        return n_jobs
    from mixedmodels.inference.bootstrap.parallel import worker_count

    return min(worker_count(n_jobs), max(1, _WORK // size))


def refit_state(fit: LMMFit) -> tuple[Any, ...]:
    """What a worker needs for itself: a compiled fitter, or None inside the tuple."""
    if not fit._is_linear:
        return (None,)
    from mixedmodels.solver.responses import response_fitter

    solver = getattr(fit.objective, "solver", None)
    return (response_fitter(solver, fit.is_reml, fit._options.sigma),)


def refit_rows(fit: LMMFit, state: tuple[Any, ...], Y: np.ndarray, vcov: bool = False) -> Refits:
    """Refits to each row of Y, shape (N, n)."""
    if not fit._is_linear:
        from mixedmodels.inference.bootstrap.glmm_refits import refit_generalised_rows

        return refit_generalised_rows(fit, Y, vcov)  # type: ignore[arg-type]
    N, p, r = Y.shape[0], fit.design.p, len(fit.theta)
    (fitter,) = state
    redo: Sequence[int] = range(N)
    if fitter is None:
        beta, sigma, criterion = np.full((N, p), np.nan), np.full(N, np.nan), np.full(N, np.nan)
        V, theta = np.full((N, p, p), np.nan), np.full((N, r), np.nan)
        converged = np.zeros(N, dtype=bool)
    else:
        found = fitter.fit(Y, fit.theta)
        beta, sigma, criterion, theta = found.beta, found.sigma, found.criterion, found.theta
        V, converged = found.vcov, found.converged.copy()
        good = converged & ~found.failed & np.isfinite(criterion)
        if fit._options.sigma is None:
            good &= ~_perfect(sigma, Y, fit.design.offset)
        redo = np.flatnonzero(~good).tolist()
    failures = []
    for j in redo:
        had = criterion[j] if fitter is not None and converged[j] else np.inf
        try:
            new = _refit_from_estimates(fit, Y[j]) if fit.design.residual is not None else fit.refit(Y[j])
        except MixedModelsError as error:
            failures.append((j, str(error)))
            beta[j] = sigma[j] = criterion[j] = theta[j] = V[j] = np.nan
            converged[j] = False
            continue
        if new.criterion <= had:
            beta[j], sigma[j], V[j] = new.beta, new.sigma, new.vcov
            theta[j], criterion[j], converged[j] = new.theta, new.criterion, new.converged
    se = np.sqrt(np.maximum(np.diagonal(V, axis1=1, axis2=2), 0.0))
    return Refits(beta, se, sigma, theta, criterion, converged, tuple(failures), V if vcov else None)


def _refit_from_estimates(fit: LMMFit, y: np.ndarray) -> LMMFit:
    """The model of a fit with structured residuals for another response of its rows, from its estimates."""
    from mixedmodels.fit.solve import fit_frame, frame_with_response

    frame = frame_with_response(fit.frame, y)
    checks.check_data(frame.design, sigma_fixed=fit._options.sigma is not None)
    return fit_frame(frame, replace(fit._options, start=np.array(fit.theta), progress=None), None)


def _perfect(sigma: np.ndarray, Y: np.ndarray, offset: np.ndarray | None) -> np.ndarray:
    """Rows of Y that the model reproduces exactly."""
    with np.errstate(invalid="ignore", over="ignore"):
        spread = (Y if offset is None else Y - offset).std(axis=1)
        return ~(sigma > _PERFECT * spread)


def join_refits(parts: Sequence[Refits], fit: LMMFit, vcov: bool = False) -> Refits:
    """Refits of chunks, one after another."""
    p, r = len(coefficients_of(fit)), len(fit.theta)

    def joined(name: str, *shape: int) -> np.ndarray:
        return np.concatenate([np.empty((0, *shape)), *(getattr(part, name) for part in parts)])

    converged = np.concatenate([np.empty(0, dtype=bool), *(part.converged for part in parts)])
    failures, at = [], 0
    for part in parts:
        failures += [(at + j, reason) for j, reason in part.failures]
        at += len(part)
    return Refits(
        beta=joined("beta", p),
        se=joined("se", p),
        sigma=joined("sigma"),
        theta=joined("theta", r),
        criterion=joined("criterion"),
        converged=converged,
        failures=tuple(failures),
        vcov=joined("vcov", p, p) if vcov else None,
    )


def coefficients_of(fit: Any) -> np.ndarray:
    """Fixed effects of a linear fit, all coefficients of a generalised one."""
    return fit.beta if fit._is_linear else fit.gamma


def standard_errors_of(fit: Any) -> np.ndarray:
    """Standard errors of `coefficients_of`."""
    return np.array(list((fit.se if fit._is_linear else fit.se_all).values()))


def singular_rows(design: Any, theta: np.ndarray) -> np.ndarray:
    """Which of N fits are singular, by the same rule as ``fit.is_singular``; shape (N,)."""
    out = np.zeros(theta.shape[0], dtype=bool)
    for term, factors in zip(design.terms, relative_factors(design, theta), strict=True):
        scaled = checks.scaled_factor(term, np.eye(term.k)) @ factors
        finite = np.isfinite(scaled).all(axis=(1, 2))
        values = np.linalg.svd(np.where(finite[:, None, None], scaled, 1.0), compute_uv=False)
        out |= finite & (values[:, -1] ** 2 < checks.SINGULAR_TOLERANCE)
    return out
