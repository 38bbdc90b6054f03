"""Influence: what leaving out each row, or each group of rows, does to the estimates."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import MixedModelsError, MixedModelsWarning, OptionError
from mixedmodels.inference.deletion import Deletions, delete_groups, delete_rows
from mixedmodels.inference.grouping import Grouping, grouping_of, refuse_function_fit
from mixedmodels.inference.leverage import leverages, row_pieces
from mixedmodels.inference.table import ResultTable, result_table

if TYPE_CHECKING:
    from mixedmodels.design import Design
    from mixedmodels.fit.result import LMMFit

__all__ = ["cooks_distance", "influence"]

# Groups with more rows are left out by solving the model without them.
_LARGE = 1500


def influence(fit: LMMFit, group: Any = None, refit: bool = False, progress: Any = "auto") -> ResultTable:
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

    Parameters
    ----------
    fit : LMMFit
    group : str, array or list of them, optional
        A grouping factor, a column of the data or one label per row; a list looks at each in turn. None
        leaves out single rows, and adds ``leverage``, ``standardized`` (conditional residual over its
        standard deviation) and ``studentized`` (the same with the sigma without the row).
    refit : bool
        Estimate theta anew each time (columns ``theta[...]``), from the estimates of the fit.
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
    >>> by_subject["level"][0], round(by_subject["cooks_distance"][0], 4)
    ('308', 0.0821)
    """
    refuse_function_fit(fit, "influence")
    if fit.design.p == 0:
        raise OptionError("influence looks at the fixed effects, and this model has none")
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


def cooks_distance(fit: LMMFit, group: Any = None) -> np.ndarray:
    r"""Cook's distances: of rows on the conditional fitted values, or of levels of `group` on beta.

    .. math:: D_i = \frac{r_i^2}{p\,\hat\sigma^2}\,\frac{h_i}{(1 - h_i)^2}

    with Pearson residuals r and the leverages h of `leverage`; with a group
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
    h = leverages(fit)
    if fit.design.p == 0:
        raise OptionError("Cook's distance is relative to the fixed effects, and this model has none")
    with np.errstate(divide="ignore", invalid="ignore"):
        distance = fit._residuals("scaled") ** 2 * h / (fit.design.p * (1.0 - h) ** 2)
    return fit._rows(distance)


def _by_row(fit: LMMFit, refit: bool, progress: Any) -> ResultTable:
    design = fit.design
    n, p = design.n, design.p
    notes = []
    if refit:
        measures, notes = _refits(fit, Grouping("row", np.arange(n), tuple(range(n))), progress)
    else:
        _, diagonal, B, e = row_pieces(fit)
        solution = fit._solution
        deletions = delete_rows(
            diagonal, B, e, fit.beta, np.asarray(solution.vcov_unscaled), float(solution.pwrss)
        )
        measures = _measures(fit, deletions)
        notes.append(_FIXED)
    h = leverages(fit)
    own = {"leverage": np.array(h)}
    with np.errstate(divide="ignore", invalid="ignore"):
        own["standardized"] = np.where(h < 1.0, fit._residuals("scaled") / np.sqrt(1.0 - h), np.nan)
        own["studentized"] = own["standardized"] * fit.sigma / deleted_sigma(fit, h)
    lost = int(np.isnan(measures["cooks_distance"]).sum())
    if lost:
        notes.append(_lost(lost, "rows"))
    columns: dict[str, Any] = {"row": _row_numbers(fit)}
    for name, values in {**own, **measures}.items():
        columns[name] = fit._rows(np.asarray(values, dtype=float))
    return result_table("Influence of the rows", columns, notes, fit._native, {"p": p})


def deleted_sigma(fit: LMMFit, h: np.ndarray) -> np.ndarray:
    """Residual SD without each row at fixed theta: ``sqrt((y'Py - e_i^2/(1 - h_i)) / (nu - 1))``."""
    if fit._options.sigma is not None:
        return np.full(h.shape, float(fit._options.sigma))
    e = fit._residuals("pearson")
    rss = float(fit._solution.pwrss) - e * e / (1.0 - h)
    return np.sqrt(np.maximum(rss, 0.0) / max(fit._nu - 1, 1))


def _by_group(
    fit: LMMFit, grouping: Grouping, refit: bool, progress: Any
) -> tuple[dict[str, Any], list[str]]:
    count = len(grouping.levels)
    if count < 2:
        raise OptionError(f"group {grouping.name!r} has a single level; nothing is left without it")
    if refit:
        measures, notes = _refits(fit, grouping, progress)
    else:
        measures, notes = _measures(fit, _group_deletions(fit, grouping)), [_FIXED]
    lost = np.flatnonzero(np.isnan(measures["cooks_distance"]))
    if lost.size:
        notes.append(_lost(lost.size, f"levels of {grouping.name}", [grouping.levels[j] for j in lost[:3]]))
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


def _measures(
    fit: LMMFit, deletions: Deletions, sigma: np.ndarray | None = None, theta: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Columns from the estimates without each set of rows; `sigma` (J,) where it was estimated anew."""
    p = fit.design.p
    if sigma is None:
        if fit._options.sigma is not None:
            sigma = np.full(len(deletions.rss), float(fit._options.sigma))
        else:
            nu = fit._nu - deletions.removed
            with np.errstate(divide="ignore", invalid="ignore"):
                sigma = np.where(nu > 0, np.sqrt(np.maximum(deletions.rss, 0.0) / nu), np.nan)
    d = fit.beta - deletions.beta
    root = np.linalg.cholesky(fit.vcov)
    whitened = np.linalg.solve(root, d.T)
    vcov = deletions.vcov_unscaled * (sigma**2)[:, None, None]
    se = np.sqrt(np.einsum("jaa->ja", vcov))
    relative = np.linalg.solve(root, np.linalg.solve(root, vcov).transpose(0, 2, 1))  # root^-1 C root^-T
    ok = np.isfinite(relative).all(axis=(1, 2))
    mdffits, covratio = np.full((2, len(d)), np.nan)
    if ok.any():
        solved = np.linalg.solve(relative[ok], whitened.T[ok][:, :, None])[:, :, 0]
        mdffits[ok] = (solved * whitened.T[ok]).sum(axis=1) / p
        covratio[ok] = np.linalg.det(relative[ok])
    columns = {
        "cooks_distance": (whitened**2).sum(axis=0) / p,
        "mdffits": mdffits,
        "covratio": covratio,
        "covtrace": np.abs(np.einsum("jaa->j", relative) - p),
        "sigma": sigma,
    }
    for j, name in enumerate(fit.design.x_names):
        columns[f"dfbeta[{name}]"] = d[:, j]
    for j, name in enumerate(fit.design.x_names):
        columns[f"dfbetas[{name}]"] = d[:, j] / se[:, j]
    if theta is not None:
        for j, name in enumerate(fit.theta_names):
            columns[f"theta[{name}]"] = theta[:, j]
    return columns


def _group_deletions(fit: LMMFit, grouping: Grouping) -> Deletions:
    """Each level left out at fixed theta; very large levels by solving the model without their rows."""
    inverse, _, B, e = row_pieces(fit)
    solution = fit._solution
    codes, count = np.asarray(grouping.codes), len(grouping.levels)
    sizes = np.bincount(codes, minlength=count)
    large = np.flatnonzero(sizes > _LARGE)
    vcov, rss = np.asarray(solution.vcov_unscaled), float(solution.pwrss)
    if not large.size:
        return delete_groups(inverse, codes, count, B, e, fit.beta, vcov, rss)
    p = fit.design.p
    out = Deletions(np.empty((count, p)), np.empty((count, p, p)), np.empty(count), sizes)
    small = np.flatnonzero(sizes <= _LARGE)
    if small.size:
        rows = np.flatnonzero(sizes[codes] <= _LARGE)
        part = delete_groups(
            inverse.take(rows), np.searchsorted(small, codes[rows]), small.size, B[rows], e[rows],
            fit.beta, vcov, rss,
        )  # fmt: skip
        out.beta[small], out.vcov_unscaled[small], out.rss[small] = part.beta, part.vcov_unscaled, part.rss
    for j in large.tolist():
        out.beta[j], out.vcov_unscaled[j], out.rss[j] = _solve_without(fit, codes == j)
    return out


def _solve_without(fit: LMMFit, without: np.ndarray) -> tuple[Any, Any, float]:
    from mixedmodels.solver.choose import choose_solver

    p = fit.design.p
    try:
        solver = choose_solver(_reduced(fit.design, ~without))
        solution = solver.solution([np.array(factor) for factor in fit._factors], fit.is_reml)
    except MixedModelsError:
        return np.nan, np.nan, np.nan
    assert solution.beta.shape == (p,)
    return solution.beta, solution.vcov_unscaled, float(solution.pwrss)


def _reduced(design: Design, keep: np.ndarray) -> Design:
    """The rows `keep` of a design; levels without rows go, unless a precision ties them to others."""
    shared: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    terms = []
    for term in design.terms:
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
    )


def _refits(fit: LMMFit, grouping: Grouping, progress: Any) -> tuple[dict[str, np.ndarray], list[str]]:
    """Full fits without each level, started at the estimates; those that fail are NaN and told."""
    from mixedmodels.fit.solve import fit_frame
    from mixedmodels.optimize.progress import Progress

    count, p = len(grouping.levels), fit.design.p
    sizes = np.bincount(grouping.codes, minlength=count)
    out = Deletions(
        np.full((count, p), np.nan), np.full((count, p, p), np.nan), np.full(count, np.nan), sizes
    )
    sigma, theta = np.full(count, np.nan), np.full((count, len(fit.theta)), np.nan)
    options = replace(fit._options, start=fit.theta if fit.theta.size else None, progress=False)
    call = progress if callable(progress) else None
    monitor = Progress(None if call is not None else progress)
    failed: list[str] = []
    for j in range(count):
        try:
            design = _reduced(fit.design, grouping.codes != j)
            _check_rank(design, fit.vcov)
            with warnings.catch_warnings():
                warnings.simplefilter("error", MixedModelsWarning)
                new = fit_frame(replace(fit._frame, design=design), options)
                out.beta[j], sigma[j], theta[j] = new.beta, new.sigma, new.theta
                out.vcov_unscaled[j] = new._solution.vcov_unscaled
        except (MixedModelsError, MixedModelsWarning) as error:
            failed.append(f"without {grouping.levels[j]}: {error}")
        if call is not None:
            call(j + 1, count)
        elif monitor.active:
            monitor.update(j + 1, fit.theta, float(count), np.nan)
    monitor.close()
    notes = ["the model was fitted anew without each of them"]
    if failed:
        notes.append(f"{len(failed)} of {count} fits failed, the first {failed[0]}")
    return _measures(fit, out, sigma, theta), notes


def _check_rank(design: Design, vcov: np.ndarray) -> None:
    """Refuse rows that leave the fixed effects undetermined."""
    root = np.linalg.cholesky(vcov)
    singular = np.linalg.svd(design.X @ root, compute_uv=False)
    if design.n < design.p or singular[-1] < 1e-9 * singular[0]:
        raise OptionError("the fixed effects cannot all be estimated")
