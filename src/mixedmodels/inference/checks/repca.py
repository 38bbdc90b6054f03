"""Principal components of the random effects."""

from __future__ import annotations

from typing import Any

import numpy as np

from mixedmodels.inference.arguments import yes_or_no
from mixedmodels.inference.checks.grouping import refuse_function_fit
from mixedmodels.inference.table import ResultTable, result_table

__all__ = ["group_factor", "principal_components", "repca"]


def principal_components(factor: np.ndarray, scale: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Standard deviations and loadings (columns) of ``Sigma = factor factor'``, largest first.

    Parameters
    ----------
    factor : ndarray, shape (k, k)
    scale : bool
        Components of the correlation matrix instead; columns without variance stay zero.

    Examples
    --------
    >>> sd, loadings = principal_components(np.array([[2.0, 0.0], [0.0, 1.0]]))
    >>> sd.tolist()
    [2.0, 1.0]
    """
    if scale:
        length = np.sqrt((factor**2).sum(axis=1))
        factor = np.divide(factor, length[:, None], out=np.zeros_like(factor), where=length[:, None] > 0)
    U, s, _ = np.linalg.svd(factor)
    signs = np.sign(U[np.abs(U).argmax(axis=0), np.arange(U.shape[1])])
    return s, U * signs


def group_factor(fit: Any, group: str, predictor: int = 0) -> tuple[np.ndarray, list[str]]:
    """Relative factor of all terms of a grouping factor together, and the names of its rows.

    Of generalised models those of one linear predictor.
    """
    blocks, names = [], []
    for j, (term, factor) in enumerate(zip(fit._terms, fit._factors, strict=True)):
        if (term.group, _predictor(fit, j)) == (group, predictor):
            blocks.append(np.array(factor))
            names += list(fit._term_names(j))
    k = len(names)
    out = np.zeros((k, k))
    at = 0
    for block in blocks:
        size = len(block)
        out[at : at + size, at : at + size] = block
        at += size
    return out, names


def _predictor(fit: Any, position: int) -> int:
    """The linear predictor of a term."""
    return 0 if fit._is_linear else fit.generalised.term_predictor[position]


def repca(fit: Any, scale: bool = False) -> ResultTable:
    r"""Principal components of the covariance of the random effects relative to the residual variance.

    Per grouping factor (all its terms together) the singular value decomposition of the relative factor,
    :math:`\lambda = U\,\mathrm{diag}(s)\,V'`, so that :math:`\lambda\lambda' = U\,\mathrm{diag}(s^2)\,U'`. A
    component with a proportion of zero is a direction in which the levels do not differ: the model has more
    random effects than the data support.

    Parameters
    ----------
    fit : LMMFit or GLMMFit
        Of generalised models each linear predictor by itself, and standard deviations are absolute.
    scale : bool
        Components of the correlation matrix, which do not depend on the units of the columns.

    Returns
    -------
    ResultTable
        Columns group, component, sd (relative to the residual SD), proportion, cumulative, loadings (in
        words); extra["loadings"] and extra["names"] per group.

    Notes
    -----
    Bates, Kliegl, Vasishth & Baayen (2015), arXiv:1506.04967.

    Examples
    --------
    >>> import mixedmodels as mm
    >>> fit = mm.lmm("Reaction ~ Days + (Days | Subject)", mm.load_dataset("sleepstudy", backend="dict"))
    >>> fit.repca()["sd"].round(4).tolist()
    [0.9669, 0.2309]
    """
    refuse_function_fit(fit, "repca")
    scale = yes_or_no(scale, "scale")
    columns: dict[str, list[Any]] = {
        name: [] for name in ("group", "component", "sd", "proportion", "cumulative", "loadings")
    }
    loadings, names = {}, {}
    notes = []
    pairs = [(term.group, _predictor(fit, j)) for j, term in enumerate(fit._terms)]
    for factor_name, c in dict.fromkeys(pairs):
        group = factor_name if c == 0 else f"{factor_name} ({fit.components[c]})"
        factor, names[group] = group_factor(fit, factor_name, c)
        sd, loadings[group] = principal_components(factor, scale)
        total = float((sd**2).sum())
        share = sd**2 / total if total > 0.0 else np.zeros_like(sd)
        k = len(sd)
        columns["group"] += [group] * k
        columns["component"] += [f"PC{j + 1}" for j in range(k)]
        columns["sd"] += sd.tolist()
        columns["proportion"] += share.tolist()
        columns["cumulative"] += np.cumsum(share).tolist()
        columns["loadings"] += [_in_words(loadings[group][:, j], names[group]) for j in range(k)]
        none = int((sd <= 1e-4 * max(1.0, float(sd.max(initial=0.0)))).sum())
        if none:
            notes.append(f"{group}: {none} of {k} components without variance")
    title = "Principal components of the random effects" + (" (correlations)" if scale else "")
    return result_table(title, columns, notes, fit._native, {"loadings": loadings, "names": names})


def _in_words(loading: np.ndarray, names: list[str]) -> str:
    parts = []
    for value, name in zip(loading.tolist(), names, strict=True):
        if abs(value) >= 0.005:
            parts.append(f"{'-' if value < 0 else '+'} {abs(value):.2f} {name}")
    return " ".join(parts).removeprefix("+ ")
