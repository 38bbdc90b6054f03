"""Joint tests of all contrasts of a term of the model, computed on the reference grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import OptionError
from mixedmodels.inference.arguments import name_list
from mixedmodels.inference.fixed.component import component_view
from mixedmodels.inference.fixed.wald_table import is_chi_squared, test_names, test_row
from mixedmodels.inference.means.grid import Grid, make_grid, term_variables
from mixedmodels.inference.means.grid_variables import unknown_variable
from mixedmodels.inference.table import ResultTable, result_table

if TYPE_CHECKING:
    from mixedmodels.fit.result import LMMFit
    from mixedmodels.inference.means.linear_source import Source
    from mixedmodels.inference.means.marginal_means import MarginalMeans

__all__ = ["joint_test", "joint_tests"]


def joint_tests(
    fit: LMMFit,
    by: Any = None,
    ddf: str | float | None = None,
    at: Mapping[str, Any] | None = None,
    cov_keep: Any = 2,
    weights: Any = "equal",
    nesting: Any = None,
    data: Any = None,
    component: str | None = None,
) -> ResultTable:
    """F test (generalised models: Wald chi-squared test) of each term from contrasts of marginal means.

    The term A:B is tested by all products of differences of A and of B, averaged over the other variables;
    covariates take their mean plus and minus one. These are type III tests that do not depend on the coding
    of factors. Contrasts that the data cannot estimate are left out.

    Parameters
    ----------
    fit : LMMFit
    by : str or sequence of str, optional
        Tests within each combination of these variables.
    ddf, at, cov_keep, weights, nesting, data
        As in `mixedmodels.inference.means.emmeans.emmeans`.
    component : str, optional
        Linear predictor of a generalised model.

    Returns
    -------
    ResultTable
        Columns by..., term, num_df, den_df, statistic, p_value; by..., term, statistic, df, p_value.

    Examples
    --------
    >>> import mixedmodels as mm
    >>> cake = mm.load_dataset("cake", backend="dict")
    >>> fit = mm.lmm("angle ~ recipe + temp + (1 | recipe:replicate)", cake)
    >>> fit.joint_tests(ddf="z")["term"].tolist()
    ['recipe', 'temp']
    """
    from mixedmodels.inference.means.emmeans import average, make_source

    fit = component_view(fit, component)
    source = make_source(fit, ddf)
    chi = is_chi_squared(fit, source.reference)
    grid = make_grid(fit, at, _around_mean, cov_keep, 0.0, nesting, data)
    by_names = name_list(by, "by")
    for name in by_names:
        if name not in grid.names:
            raise OptionError(f"by: {unknown_variable(fit, name, grid.names)}")
    rows: list[dict[str, Any]] = []
    notes: dict[str, None] = {}

    def by_key(row: Mapping[str, Any]) -> tuple:
        return tuple(row[name] for name in by_names)

    tested: list[frozenset[str]] = []
    for _, raw in term_variables(fit):
        term = [name for name in raw if name not in by_names]
        sizes = [grid.variables[grid.names.index(name)].size for name in term]
        if not term or frozenset(term) in tested or min(sizes) < 2:
            continue
        tested.append(frozenset(term))
        means = average(fit, grid, term, by_names, weights, source)
        for group in means.groups:
            C = _products(means, group, term, grid)
            test, lost = _estimable_test(source, C @ means.L[group], C @ means.offset[group])
            label = ":".join(term)
            if lost:
                notes[f"{label}: {lost} of its contrasts cannot be estimated and are left out"] = None
            if test.num_df == 0:
                continue
            row = {name: means.labels[name][group[0]] for name in by_names}
            rows.append({**row, "term": label, **test_row(test, chi)})
    places = {key: i for i, key in enumerate(dict.fromkeys(map(by_key, rows)))}
    rows.sort(key=lambda row: places[by_key(row)])
    names = [*by_names, "term", *test_names(chi)]
    columns = {name: [row[name] for row in rows] for name in names}
    facts = [*notes, f"degrees of freedom: {source.reference.label}"]
    title = "Joint tests of terms" + (f" by {', '.join(by_names)}" if by_names else "")
    return result_table(title, columns, facts, fit._native)


def joint_test(means: MarginalMeans, null: float) -> ResultTable:
    """All rows of `means` tested against `null` at once, within each combination of its by variables."""
    source = means.source
    rows: list[dict[str, Any]] = []
    lost_rows = 0
    for group in means.groups:
        test, lost = _estimable_test(source, means.L[group], means.offset[group] - null)
        lost_rows += lost
        row = {name: means.labels[name][group[0]] for name in means.by}
        rows.append({**row, **test_row(test, is_chi_squared(source.fit, source.reference))})
    columns: dict[str, Any] = {name: [row[name] for row in rows] for name in rows[0]}
    notes = [f"degrees of freedom: {source.reference.label}"]
    if null:
        notes.insert(0, f"against {null:g}")
    if lost_rows:
        notes.insert(0, f"{lost_rows} directions cannot be estimated and are left out")
    return result_table(
        f"Joint test: {means.title[0].lower()}{means.title[1:]}", columns, notes, source.fit._native
    )


def _around_mean(values: np.ndarray) -> np.ndarray:
    centre = float(np.mean(values))
    return np.array([centre - 1.0, centre + 1.0])


def _products(means: MarginalMeans, rows: np.ndarray, term: Sequence[str], grid: Grid) -> np.ndarray:
    """Products of differences of neighbouring levels of each variable; nested ones within their parents."""
    nested = {p for name in term for p in grid.nesting.get(name, ()) if p in means.labels}
    within = [name for name in means.labels if name in nested]
    free = [name for name in term if name not in within]
    blocks: dict[tuple, list[int]] = {}
    for position, row in enumerate(rows):
        blocks.setdefault(tuple(means.labels[name][row] for name in within), []).append(position)
    out = []
    for places in blocks.values():
        factors, codes = [], []
        for name in free:
            column = means.labels[name][rows[places]].tolist()
            levels = list(dict.fromkeys(column))
            factors.append(np.diff(np.eye(len(levels)), axis=0))
            codes.append(np.array([levels.index(value) for value in column]))
        C = np.ones((1, len(places)))
        for D, code in zip(factors, codes, strict=True):
            C = (C[:, None, :] * D[:, code][None, :, :]).reshape(-1, len(places))
        full = np.zeros((C.shape[0], rows.size))
        full[:, places] = C
        out.append(full)
    return np.vstack(out)


def _estimable_test(source: Source, L: np.ndarray, offset: np.ndarray) -> tuple[Any, int]:
    """F test of ``L beta + offset = 0`` in the directions that can be estimated, and how many cannot."""
    lost = 0
    if source.null is not None and source.null.size and L.shape[0]:
        scale = np.abs(L) @ np.abs(source.null)
        M = (L @ source.null) / max(float(scale.max()), 1e-300)
        U, d, _ = np.linalg.svd(M)
        lost = int((d > 1e-8).sum())
        L, offset = U[:, lost:].T @ L, U[:, lost:].T @ offset
    return source.reference.f_test(source.design_rows(L), -offset), lost
