"""One refit per marker: exact scans of models that no rotation makes diagonal (several random terms, ...)."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import ConvergenceWarning

if TYPE_CHECKING:
    from mixedmodels.fit.result import LMMFit
    from mixedmodels.genetics.markers import Markers
    from mixedmodels.inference.bootstrap.parallel import Counter

__all__ = ["refit_scan"]

_SAME = 1e-5  # what is left of a marker after the fixed part, relative to its length
_BATCH = 64  # markers that are decoded at once


def refit_scan(
    fit: LMMFit, markers: Markers, test: str, counter: Counter, columns: dict[str, np.ndarray], centre: bool
) -> list[str]:
    """Fill `columns` with one fit per marker, each started from the variances without markers.

    Parameters
    ----------
    fit : LMMFit
        The model without markers.
    markers : Markers
    test : {"lrt", "wald"}
    counter : Counter
        Told of each marker.
    columns : dict of str to ndarray, shape (markers,)
        NaN to begin with; n, maf, beta, std_error, statistic, p_value, lod are set.
    centre : bool
        Whether the fixed part has a constant, so that markers may be centred.

    Returns
    -------
    list of str
        Notes.
    """
    from scipy.special import chdtrc, stdtr

    design, total = fit.design, len(markers.names)
    null = _refitted(fit, design, test)
    nu = design.n - design.p - 1
    Q = np.linalg.qr(np.asarray(design.X))[0]
    ended = 0
    for start in range(0, total, _BATCH):
        at = slice(start, min(start + _BATCH, total))
        values, mean, known, maf = markers.block(at)
        columns["n"][at], columns["maf"][at] = known, maf
        values = values - (np.where(np.isnan(mean), 0.0, mean) if centre else 0.0)
        for j in range(at.start, at.stop):
            g = values[:, j - at.start]
            rest = g - Q @ (Q.T @ g)
            rest -= Q @ (Q.T @ rest)
            length = float(np.linalg.norm(rest))
            counter.add(1)
            if not length > _SAME * max(float(np.linalg.norm(g)), 1e-300):
                continue
            # orthogonal to the fixed part and of length root n: the coefficient is that of the marker
            size = length / math.sqrt(design.n)
            X = np.column_stack([design.X, rest / size])
            with_marker = replace(design, X=np.asfortranarray(X), x_names=(*design.x_names, markers.names[j]))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # counted in a note
                full = _refitted(fit, with_marker, test, null.theta)
            ended += not full.converged
            beta, error = float(full.beta[-1]) / size, math.sqrt(float(full.vcov[-1, -1])) / size
            columns["beta"][j], columns["std_error"][j] = beta, error
            if test == "wald":
                statistic = beta / error
                columns["p_value"][j] = 2.0 * float(stdtr(float(nu), -abs(statistic)))
            else:
                statistic = max(2.0 * (full.loglik - null.loglik), 0.0)
                columns["p_value"][j] = float(chdtrc(1.0, statistic))
                columns["lod"][j] = statistic / (2.0 * math.log(10.0))
            columns["statistic"][j] = statistic
    notes = ["one fit per marker, by the solver of the model; method='p3d' is faster"]
    if ended:
        notes.append(f"{ended} of the fits did not converge")
    return notes


def _refitted(fit: LMMFit, design: Any, test: str, start: Any = None) -> LMMFit:
    """The model with another design, by REML for t tests, else by maximum likelihood."""
    from mixedmodels.fit.solve import fit_frame

    options = replace(fit._options, reml=test == "wald", start=start, progress=False, variances=None)
    return fit_frame(replace(fit.frame, design=design), options, None)
