"""Influence: what leaving out each row, or each group of rows, does to the estimates."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import MixedModelsError, MixedModelsWarning, OptionError
from mixedmodels.inference.arguments import yes_or_no
from mixedmodels.inference.bootstrap.resampling import residual_of_rows
from mixedmodels.inference.checks.deletion import Deletions, compare_fits, delete_groups, delete_rows, root_of
from mixedmodels.inference.checks.grouping import Grouping, grouping_of, refuse_function_fit
from mixedmodels.inference.checks.leverage import (
    inverse_rows,
    leverages,
    limited_threads,
    row_pieces,
    scaled_columns,
)
from mixedmodels.inference.checks.working import working_fit
from mixedmodels.inference.structured_rows import inverse_of_rows, inverse_times_X, row_numbers
from mixedmodels.inference.table import ResultTable, result_table

if TYPE_CHECKING:
    from mixedmodels.design import Design
    from mixedmodels.fit.result import LMMFit

__all__ = ["cooks_distance", "influence", "standardized", "studentized"]

# Groups with more rows are left out by solving the model without them.
_LARGE = 1500
# Most rows of a group with structured residuals.
_MOST = 8000
_FIELDS = ("beta", "variances", "cook", "mdffits", "determinant", "trace", "rss", "removed")


def influence(fit: Any, group: Any = None, refit: bool = False, progress: Any = "auto") -> ResultTable:
    r"""What leaving out each row, or each level of a factor, does to the estimates.

    By default exact at fixed variance ratios theta (mean-shift identities: no refit, sigma profiled): with
    rows U left out and :math:`P, V^{-1}` as in `leverage`,

    .. math:: d_U = \hat\beta - \hat\beta_{(U)}
        = (X'V^{-1}X - B_U'A^{-1}B_U)^{-1} B_U'A^{-1}(Py)_U, \quad A = (V^{-1})_{UU},\ B = V^{-1}X.

    With C the covariance matrix of beta, in the fit and (U) without the rows,

    * ``cooks_distance`` :math:`d'C^{-1}d/p`, ``mdffits`` :math:`d'C_{(U)}^{-1}d/p`;
    * ``covratio`` :math:`|C_{(U)}|/|C|`, ``covtrace`` :math:`|\mathrm{tr}(C^{-1}C_{(U)}) - p|`;
    * ``sigma``: residual SD without them;
    * ``dfbeta[x]`` :math:`d`, ``dfbetas[x]``: d over the standard error without them.

    Generalised models: the same for the working linear model at the conditional modes
    (`mixedmodels.inference.checks.working`), whose sigma is one: one Newton step from the estimates at fixed
    variances. With ``refit=True`` C is the covariance matrix of beta of each fit.

    Parameters
    ----------
    fit : LMMFit or GLMMFit
    group : str, array or list of them, optional
        A grouping factor, a column of the data or one label per row; a list looks at each in turn. None
        leaves out single rows, and adds ``leverage``, ``standardized`` (conditional residual over its
        standard deviation) and ``studentized`` (the same with the sigma without the row).
    refit : bool
        Estimate theta anew each time (columns ``theta[...]``), from the estimates of the fit. Of generalised
        models also the coefficients of the other predictors (``gamma[...]``).
    progress : "auto", True, False or callable
        Of the refits; a callable gets (done, total).

    Returns
    -------
    ResultTable
        One row per row of ``fit.fitted()``, or per level. NaN where coefficients cannot be estimated
        without the rows (a note says which).

    Raises
    ------
    OptionError
        An unknown group, or a model without fixed effects.

    Notes
    -----
    Christensen, Pearson & Johnson (1992), Technometrics 34:38-45; Demidenko & Stukel (2005), Statist. Med.
    24:893-909. `LMMFit.cooks_distance` without group is another quantity: the move of all conditional fitted
    values.

    Examples
    --------
    >>> import mixedmodels as mm
    >>> fit = mm.lmm("Reaction ~ Days + (Days | Subject)", mm.load_dataset("sleepstudy", backend="dict"))
    >>> by_subject = fit.influence("Subject", refit=True)
    >>> by_subject["level"][0], round(float(by_subject["cooks_distance"][0]), 4)
    ('308', 0.0924)
    """
    refuse_function_fit(fit, "influence")
    if fit.design.p == 0:
        raise OptionError("influence looks at the fixed effects, and this model has none")
    refit = yes_or_no(refit, "refit")
    with limited_threads(fit):
        if fit._is_linear:
            return _influence(fit, group, _refits if refit else None, progress)
        from mixedmodels.inference.checks.glmm_influence import refits

        again = partial(refits, fit) if refit else None
        return _without(_influence(working_fit(fit), group, again, progress), ("sigma", "studentized"))


def _without(table: ResultTable, names: Sequence[str]) -> ResultTable:
    columns = {name: values for name, values in table.columns.items() if name not in names}
    return result_table(table.title, columns, table.notes, table._native, table.extra)


def _influence(fit: Any, group: Any, refit: Any, progress: Any) -> ResultTable:
    """The table of one fit; `refit` are the refits of its kind, or None for deletions at fixed variances."""
    if group is None:
        return _by_row(fit, refit, progress)
    several = isinstance(group, (list, tuple)) and all(isinstance(name, str) for name in group)
    if several and not group:
        raise OptionError("group is an empty list; name grouping factors or columns of the data")
    several = several and len(group) not in (fit.design.n, fit.n_rows)
    groupings = [grouping_of(fit, name) for name in (group if several else [group])]
    parts = [_by_group(fit, grouping, refit, progress) for grouping in groupings]
    columns = {
        name: [value for part, _ in parts for value in part[name]]
        if name in ("group", "level")
        else np.concatenate([part[name] for part, _ in parts])
        for name in parts[0][0]
    }
    notes = dict.fromkeys(note for _, own in parts for note in own)
    title = "Influence of the levels of " + ", ".join(grouping.name for grouping in groupings)
    return result_table(title, columns, tuple(notes), fit._native)


def cooks_distance(fit: Any, group: Any = None) -> np.ndarray:
    r"""Cook's distances: of rows on the conditional fitted values, or of levels of `group` on beta.

    .. math:: D_i = \frac{r_i^2}{p\,\hat\sigma^2}\,\frac{h_i}{(1 - h_i)^2}

    with Pearson residuals r and the leverages h of `leverage`; with structured residuals
    :math:`\delta_i^2 (R^{-1}H)_{ii} / (p \hat\sigma^2)`, :math:`\delta_i = (Py)_i / P_{ii}`; with a group
    ``fit.influence(group)["cooks_distance"]``.

    Parameters
    ----------
    fit : LMMFit
    group : str or array, optional

    Returns
    -------
    ndarray
        The rows of ``fit.fitted()``, or one value per level.
    """
    if group is not None:
        return influence(fit, group)["cooks_distance"]
    fit = working_fit(fit)
    if fit.design.p == 0:
        raise OptionError("Cook's distance is relative to the fixed effects, and this model has none")
    if fit.design.residual is not None:
        numbers = row_numbers(fit)
        P = np.where(numbers.P > 0.0, numbers.P, np.nan)
        return fit._rows((numbers.e / (P * fit.sigma)) ** 2 * numbers.moved / fit.design.p)
    h = leverages(fit)
    with np.errstate(divide="ignore", invalid="ignore"):
        distance = fit._residuals("scaled") ** 2 * h / (fit.design.p * (1.0 - h) ** 2)
    return fit._rows(distance)


def _by_row(fit: Any, refit: Any, progress: Any) -> ResultTable:
    design = fit.design
    n, p = design.n, design.p
    notes: list[str] = []
    if refit is not None:
        measures, notes = refit(fit, Grouping("row", np.arange(n), tuple(range(n))), progress)
    else:
        diagonal, B, e = row_pieces(fit)
        solution = fit._solution
        deletions = delete_rows(
            diagonal, B, e, fit.beta, np.asarray(solution.vcov_unscaled), float(solution.pwrss)
        )
        measures = deletion_measures(fit, deletions)
        notes.append(getattr(fit, "note", _FIXED))
    own = {
        "leverage": np.array(leverages(fit)),
        "standardized": standardized(fit),
        "studentized": studentized(fit),
    }
    lost = int(np.isnan(measures["cooks_distance"]).sum())
    if lost:
        notes.append(_lost(lost, "rows"))
    columns: dict[str, Any] = {"row": _row_numbers(fit)}
    for name, values in {**own, **measures}.items():
        columns[name] = fit._rows(np.asarray(values, dtype=float))
    return result_table("Influence of the rows", columns, notes, fit._native, {"p": p})


def standardized(fit: Any) -> np.ndarray:
    """Conditional residuals over their standard deviations: ``sqrt(w_i) e_i / (sigma sqrt(1 - h_i))``.

    NaN where the row alone determines its fitted value.
    """
    fit = working_fit(fit)
    if fit.design.residual is not None:
        r = fit._point.variances
        kept = r - row_numbers(fit).fitted
        kept = np.where(kept > 1e-10 * r, kept, np.nan)
        return fit._residuals("response") / (fit.sigma * np.sqrt(kept))
    kept = 1.0 - leverages(fit)
    kept = np.where(kept > 1e-10, kept, np.nan)
    return fit._residuals("scaled") / np.sqrt(kept)


def studentized(fit: Any) -> np.ndarray:
    """`standardized` with the sigma without the row; t with nu - 1 degrees of freedom if theta is known.

    At fixed theta ``sigma_(i)^2 = (y'Py - w_i e_i^2 / (1 - h_i)) / (nu - 1)``.
    """
    r = standardized(fit)
    fit = working_fit(fit)
    if fit._options.sigma is not None:
        return r
    nu = fit._nu
    square = r * r
    if fit.design.residual is not None:  # the fall of y'Py without the row is not the residual itself
        numbers = row_numbers(fit)
        square = numbers.e**2 / np.where(numbers.P > 0.0, numbers.P, np.nan) / fit.sigma**2
    rest = np.maximum(nu - square, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return r * np.sqrt(max(nu - 1, 1) / rest)


def _by_group(fit: Any, grouping: Grouping, refit: Any, progress: Any) -> tuple[dict[str, Any], list[str]]:
    count = len(grouping.levels)
    if count < 2:
        raise OptionError(f"group {grouping.name!r} has a single level; nothing is left without it")
    if refit is not None:
        measures, notes = refit(fit, grouping, progress)
    else:
        measures = deletion_measures(fit, _group_deletions(fit, grouping))
        notes = [getattr(fit, "note", _FIXED)]
    lost = np.flatnonzero(np.isnan(measures["cooks_distance"]))
    if lost.size:
        notes.append(_lost(lost.size, f"levels of {grouping.name}", [grouping.levels[j] for j in lost[:3]]))
    perfect = int((measures["sigma"] == 0.0).sum())
    if perfect:
        notes.append(
            f"not finite: {perfect} levels of {grouping.name} without which the model fits the rest "
            "perfectly (residual SD 0)"
        )
    columns = {
        "group": [grouping.name] * count,
        "level": list(grouping.levels),
        "n": np.bincount(grouping.codes, minlength=count),
        **measures,
    }
    return columns, notes


_FIXED = "exact at the fitted variance ratios; refit=True estimates them anew without the rows"


def _lost(count: int, what: str, shown: Sequence[Any] = ()) -> str:
    names = f" ({', '.join(map(str, shown))}{', ...' if count > len(shown) else ''})" if shown else ""
    return f"NaN: {count} {what}{names} without which the fixed effects cannot all be estimated"


def _row_numbers(fit: LMMFit) -> np.ndarray:
    """Position in the data of each row that `fitted` returns."""
    frame = fit._frame
    if frame.kept is None:
        return np.arange(fit.design.n)
    if fit._options.na_action == "exclude":
        return np.arange(fit.n_rows)
    if frame.zero_weight_rows is None:
        return np.asarray(frame.kept)
    return np.sort(np.concatenate([frame.kept, frame.zero_weight_rows]))


def deletion_measures(
    fit: Any, deletions: Deletions, sigma: np.ndarray | None = None, theta: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Columns from the estimates without each set of rows; `sigma` (J,) where it was estimated anew."""
    p = fit.design.p
    if sigma is None:
        if fit._options.sigma is not None:
            sigma = np.full(len(deletions.rss), float(fit._options.sigma))
        else:
            nu = (fit._nu - deletions.removed).astype(float)
            nu[nu <= 0.0] = np.nan
            sigma = np.sqrt(np.maximum(deletions.rss, 0.0) / nu)
    ratio = (sigma / fit.sigma) ** 2
    d = fit.beta - deletions.beta
    se = np.sqrt(deletions.variances) * sigma[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):  # sigma is 0 where the rest fits perfectly
        mdffits, dfbetas = deletions.mdffits / sigma**2, d / se
    columns = {
        "cooks_distance": deletions.cook / fit.sigma**2,
        "mdffits": mdffits,
        "covratio": deletions.determinant * ratio**p,
        "covtrace": np.abs(deletions.trace * ratio - p),
        "sigma": sigma,
    }
    for j, name in enumerate(fit.design.x_names):
        columns[f"dfbeta[{name}]"] = d[:, j]
    for j, name in enumerate(fit.design.x_names):
        columns[f"dfbetas[{name}]"] = dfbetas[:, j]
    if theta is not None:
        for j, name in enumerate(fit.theta_names):
            columns[f"theta[{name}]"] = theta[:, j]
    return columns


def _group_deletions(fit: LMMFit, grouping: Grouping) -> Deletions:
    """Each level left out at fixed theta; very large levels by solving the model without their rows."""
    if fit.design.residual is not None:
        return _structured_deletions(fit, grouping)
    inverse, solution = inverse_rows(fit), fit._solution
    B, e = inverse.times(scaled_columns(fit)), fit._residuals("pearson")
    codes, count = np.asarray(grouping.codes), len(grouping.levels)
    sizes = np.bincount(codes, minlength=count)
    large = np.flatnonzero(sizes > _LARGE)
    vcov, rss = np.asarray(solution.vcov_unscaled), float(solution.pwrss)
    if not large.size:
        return delete_groups(inverse, codes, count, B, e, fit.beta, vcov, rss)
    small = np.flatnonzero(sizes <= _LARGE)
    parts = []
    if small.size:
        rows = np.flatnonzero(sizes[codes] <= _LARGE)
        parts.append(
            delete_groups(
                inverse.take(rows), np.searchsorted(small, codes[rows]), small.size, B[rows], e[rows],
                fit.beta, vcov, rss,
            )
        )  # fmt: skip
    without = [_solve_without(fit, codes == j) for j in large.tolist()]
    beta, matrices, sums = (np.array(piece) for piece in zip(*without, strict=True))
    parts.append(compare_fits((fit.beta, vcov), beta, matrices, sums, sizes[large]))
    order = np.argsort(np.concatenate([small, large]))
    merged = [np.concatenate([getattr(part, field) for part in parts])[order] for field in _FIELDS]
    return Deletions(*merged)


def _structured_deletions(fit: Any, grouping: Grouping) -> Deletions:
    """Each level left out at fixed parameters of random effects and residuals."""
    codes, count = np.asarray(grouping.codes), len(grouping.levels)
    largest = int(np.bincount(codes, minlength=count).max())
    if largest > _MOST:
        raise OptionError(
            f"group {grouping.name!r} has a level with {largest} rows, too many for their covariances with "
            "structured residuals; take refit=True"
        )
    solution = fit._solution
    return delete_groups(
        inverse_of_rows(fit), codes, count, inverse_times_X(fit), row_numbers(fit).e, fit.beta,
        np.asarray(solution.vcov_unscaled), float(solution.pwrss),
    )  # fmt: skip


def _solve_without(fit: LMMFit, without: np.ndarray) -> tuple[Any, Any, float]:
    from mixedmodels.solver.choose import choose_solver

    try:
        design = reduced_rows(fit.design, ~without)
        check_rank(design, fit.vcov)
        solution = choose_solver(design).solution([np.array(factor) for factor in fit._factors], fit.is_reml)
    except MixedModelsError:
        p = fit.design.p
        return np.full(p, np.nan), np.full((p, p), np.nan), np.nan
    return solution.beta, solution.vcov_unscaled, float(solution.pwrss)


def reduced_rows(design: Design, keep: np.ndarray) -> Design:
    """The rows `keep` of a design; levels without rows go, unless a precision ties them to others."""
    shared: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    terms = []
    for term in design.terms:
        if term.several_levels:
            terms.append(term.of_rows(keep))
            continue
        codes, levels = term.codes[keep], term.levels
        if term.precision is None:
            if id(term.codes) not in shared:
                used, new = np.unique(codes, return_inverse=True)
                shared[id(term.codes)] = used, new.astype(np.int32)
            used, codes = shared[id(term.codes)]
            if len(used) < len(levels):
                levels = [levels[j] for j in used.tolist()]
        Z = None if term.Z is None else np.ascontiguousarray(term.Z[keep])
        terms.append(replace(term, codes=codes, levels=levels, Z=Z))
    return replace(
        design,
        y=design.y[keep],
        X=design.X[keep],
        terms=tuple(terms),
        offset=None if design.offset is None else design.offset[keep],
        weights=None if design.weights is None else design.weights[keep],
        residual=residual_of_rows(design, np.flatnonzero(keep)),
    )


def _refits(fit: Any, grouping: Grouping, progress: Any) -> tuple[dict[str, np.ndarray], list[str]]:
    """Full fits without each level, started at the estimates; those that fail are NaN and told."""
    from mixedmodels.fit.solve import fit_frame

    count, p = len(grouping.levels), fit.design.p
    sizes = np.bincount(grouping.codes, minlength=count)
    beta, vcov = np.full((count, p), np.nan), np.full((count, p, p), np.nan)
    sigma, theta = np.full(count, np.nan), np.full((count, len(fit.theta)), np.nan)
    options = replace(fit._options, start=fit.theta if fit.theta.size else None, progress=False)
    told = RefitCount(progress, count)
    failed: list[str] = []
    for j in range(count):
        try:
            design = reduced_rows(fit.design, grouping.codes != j)
            check_rank(design, fit.vcov)
            with warnings.catch_warnings():
                warnings.simplefilter("error", MixedModelsWarning)
                new = fit_frame(replace(fit._frame, design=design), options)
                beta[j], sigma[j], theta[j] = new.beta, new.sigma, new.theta
                vcov[j] = new._solution.vcov_unscaled
        except (MixedModelsError, MixedModelsWarning) as error:
            failed.append(f"without {grouping.levels[j]}: {error}")
        told.update(j + 1)
    told.close()
    notes = ["the model was fitted anew without each of them"]
    if failed:
        notes.append(f"{len(failed)} of {count} fits failed, the first {failed[0]}")
    full = (fit.beta, np.asarray(fit._solution.vcov_unscaled))
    deletions = compare_fits(full, beta, vcov, np.full(count, np.nan), sizes)
    return deletion_measures(fit, deletions, sigma, theta), notes


def check_rank(design: Design, vcov: np.ndarray) -> None:
    """Refuse rows that leave the fixed effects undetermined."""
    root = root_of(vcov)
    singular = np.linalg.svd(design.X @ root, compute_uv=False)
    if design.n < design.p or singular[-1] < 1e-9 * singular[0]:
        raise OptionError("the fixed effects cannot all be estimated")


class RefitCount:
    """Tells how many refits are done: to a callable, or on one line of a terminal after two seconds."""

    def __init__(self, mode: Any, count: int) -> None:
        self.call = mode if callable(mode) else None
        if self.call is None and mode not in ("auto", True, False, None):
            raise OptionError(f'progress must be "auto", True, False or a function, not {mode!r}')
        terminal = bool(getattr(sys.stderr, "isatty", lambda: False)())
        self.line = mode is True or (mode == "auto" and terminal)
        self.count, self.shown = count, False
        self.next = time.perf_counter() + (0.0 if mode is True else 2.0)

    def update(self, done: int) -> None:
        if self.call is not None:
            self.call(done, self.count)
        elif self.line and time.perf_counter() >= self.next:
            self.next = time.perf_counter() + 0.5
            self.shown = True
            sys.stderr.write(f"\rrefit {done} of {self.count} ")
            sys.stderr.flush()

    def close(self) -> None:
        if self.shown:
            sys.stderr.write("\n")
