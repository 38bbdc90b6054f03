"""Predictions of generalised models: points, and standard errors at the population level."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import NotImplementedYetError, OptionError
from mixedmodels.fit.glmm_predict import TYPES, new_parts, on_scale, predict_glmm, select_terms
from mixedmodels.fit.glmm_values import mean_derivative
from mixedmodels.fit.predict import check_new_levels
from mixedmodels.inference.table import ResultTable, result_table

if TYPE_CHECKING:
    from mixedmodels.fit.glmm_result import GLMMFit

__all__ = ["predict"]


def predict(
    fit: GLMMFit,
    newdata: Any = None,
    re_form: Any = None,
    new_levels: str = "error",
    type: str = "response",
    offset: Any = None,
    *,
    se: bool = False,
    interval: str | None = None,
    options: dict[str, Any] | None = None,
) -> np.ndarray | ResultTable:
    """Predictions; see `GLMMFit.predict`."""
    if options:
        raise OptionError(f"predict of a generalised model has no option {', '.join(map(repr, options))}")
    if interval is not None:
        raise NotImplementedYetError(
            "intervals of predictions are not in this version for generalised models; se=True gives standard "
            "errors"
        )
    if not se:
        return predict_glmm(fit, newdata, re_form, new_levels, type, offset)
    if type not in TYPES:
        raise OptionError(f"type must be one of {', '.join(TYPES)}, got {type!r}")
    if select_terms(fit, re_form):
        raise NotImplementedYetError(
            "standard errors of predictions with random effects are not in this version for generalised "
            "models; re_form='population' has them"
        )
    if type not in ("link", "response") or (
        type == "response" and fit.components[1:] not in ((), ("dispersion",))
    ):
        raise NotImplementedYetError(
            f"standard errors of type={type!r} are not in this version for this model; type='link' has them"
        )
    check_new_levels(new_levels)
    predictor = fit.generalised.predictors[0]
    if newdata is None:
        eta, X = fit._etas("population"), predictor.X
        assert X is not None
    else:
        parts = new_parts(fit, newdata, [], new_levels, offset)
        eta, X = parts.predictors(fit.gamma, fit._b, []), parts.parts[0][0]
        assert X is not None
    with np.errstate(invalid="ignore"):
        error = np.sqrt(np.einsum("ij,jk,ik->i", X, fit.vcov, X))
    if type == "response":
        error = error * np.abs(mean_derivative(fit.family, eta[0]))
    columns = {"predicted": on_scale(fit.family, eta, fit.components, type), "std_error": error}
    if newdata is None:
        columns = {name: fit._rows(column) for name, column in columns.items()}
    notes = ("random effects are 0: the prediction for a typical level, not the average over levels",)
    return result_table(f"Predictions with standard errors, type {type}", columns, notes, fit._native)
