"""One model by every optimiser: do they agree?"""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import ConvergenceWarning, MixedModelsError, OptionError
from mixedmodels.inference.arguments import name_list
from mixedmodels.inference.table import ResultTable, result_table
from mixedmodels.objective.glmm_search import METHODS as _OF_GENERALISED
from mixedmodels.optimize import METHODS

if TYPE_CHECKING:
    from mixedmodels.fit.result import LMMFit

__all__ = ["allfit"]

_SAME = ("bobyqa-like", "auto")  # other names of methods in the list


def allfit(fit: LMMFit, methods: Any = None) -> ResultTable:
    """The model fitted by every optimiser, default start and limits, and how far their answers are apart.

    Parameters
    ----------
    fit : LMMFit or GLMMFit
    methods : str or sequence of str, optional
        Some of `mixedmodels.optimize.METHODS` (of a generalised model those of
        `mixedmodels.objective.glmm_search.METHODS`); by default all.

    Returns
    -------
    ResultTable
        One row per method: criterion, ``above_best`` (criterion minus the smallest found), ``fixef_distance``
        (largest difference of a fixed effect from the best fit, in standard errors), ``sd_distance`` (largest
        difference of a standard deviation, relative to the total SD of the random effects and residual, if
        there is one),
        iterations, evaluations, seconds, converged, message. extra["fits"] holds the fits by method.

    Raises
    ------
    OptionError
        An unknown method.

    Examples
    --------
    >>> import mixedmodels as mm
    >>> fit = mm.lmm("Reaction ~ Days + (Days | Subject)", mm.load_dataset("sleepstudy", backend="dict"))
    >>> table = fit.allfit(["newton", "lbfgsb", "nelder-mead"])
    >>> bool(table["above_best"].max() < 1e-6)
    True
    """
    available = METHODS if fit._is_linear else _OF_GENERALISED
    chosen = [name for name in available if name not in _SAME] if methods is None else methods
    chosen = name_list(chosen, "methods")
    unknown = [name for name in chosen if name not in available]
    if unknown or not chosen:
        what = f"method {unknown[0]!r} is unknown" if unknown else "no methods were given"
        raise OptionError(f"{what}; available: {', '.join(available)}")
    fits: dict[str, Any] = {}
    failed: dict[str, str] = {}
    for name in chosen:
        try:
            fits[name] = _fit_by(fit, name)
        except MixedModelsError as error:
            failed[name] = str(error)
    best = min(fits.values(), key=lambda other: other.criterion, default=None)
    rows = [_row(name, fits.get(name), best, failed.get(name, "")) for name in chosen]
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    notes = _verdict(columns, fit, best, failed)
    return result_table("The fit by every optimiser", columns, notes, fit._native, {"fits": fits})


def _fit_by(fit: LMMFit, method: str) -> Any:
    from mixedmodels.fit.glmm import fit_glmm_frame
    from mixedmodels.fit.solve import fit_frame

    options: Any = replace(fit._options, method=method, start=None, control=None, progress=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # told in the table
        if fit._is_linear:
            return fit_frame(fit._frame, options, fit._data)
        return fit_glmm_frame(fit._frame, options, fit._data)


def _row(name: str, fit: Any, best: Any, failure: str) -> dict[str, Any]:
    nan = float("nan")
    if fit is None:
        return {
            "method": name, "criterion": nan, "above_best": nan, "fixef_distance": nan, "sd_distance": nan,
            "iterations": 0, "evaluations": 0, "seconds": nan, "converged": False, "message": failure,
        }  # fmt: skip
    optimum = fit._optimum
    return {
        "method": name,
        "criterion": fit.criterion,
        "above_best": fit.criterion - best.criterion,
        "fixef_distance": _fixef_distance(fit, best),
        "sd_distance": _sd_distance(fit, best),
        "iterations": optimum.iterations,
        "evaluations": optimum.evaluations,
        "seconds": optimum.seconds,
        "converged": fit.converged,
        "message": optimum.message,
    }


def _fixef_distance(fit: Any, best: Any) -> float:
    if not fit.design.p:
        return 0.0
    variances = np.diagonal(best.vcov)
    known = variances > 0.0  # others are held or undetermined
    away = np.abs(fit.beta - best.beta)[known] / np.sqrt(variances[known])
    return float(away.max(initial=0.0))


def _sd_distance(fit: Any, best: Any) -> float:
    """Largest difference of a component's SD (columns in root mean squares), relative to the total SD."""

    def sizes(one: Any) -> np.ndarray:
        out = [1.0] if one._is_linear else []
        for term, factor in zip(one._terms, one._factors, strict=True):
            length = np.sqrt((np.array(factor) ** 2).sum(axis=1))
            rms = 1.0 if term.Z is None else np.sqrt(np.mean(term.Z**2, axis=0))
            out += (length * rms).tolist()
        return one._scale * np.array(out)

    reference = sizes(best)
    away = np.abs(sizes(fit) - reference)
    return float(away.max(initial=0.0) / max(np.sqrt((reference**2).sum()), 1e-6))


def _verdict(columns: dict[str, list[Any]], fit: LMMFit, best: Any, failed: dict[str, str]) -> list[str]:
    if best is None:
        return ["no method could fit the model"]
    notes = []
    above = [a for a, ok in zip(columns["above_best"], columns["converged"], strict=True) if ok]
    if above:
        agree = max(above) < 1e-3
        notes.append(
            f"{len(above)} of {len(columns['method'])} methods converged; their criteria are within "
            + f"{max(above):.2g}"
            + ("" if agree else ": they do not agree, trust the smallest and simplify the random part")
        )
    if fit.criterion - best.criterion > 1e-4:
        notes.append(
            f"the fit at hand is {fit.criterion - best.criterion:.4g} above the best; use that method instead"
        )
    notes += [f"{name} failed" for name in failed]
    return notes
