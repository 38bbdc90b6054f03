"""A fit for the package marginaleffects: predictions, comparisons, slopes and hypotheses of fixed effects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import DataError, OptionError

if TYPE_CHECKING:
    from mixedmodels.fit.base import Fit

__all__ = ["marginaleffects"]


def marginaleffects(
    fit: Fit, re_form: Any = "population", data: Any = None, vcov: Any = None, type: str = "response"
) -> Any:
    r"""A fit as a model that the functions of the package marginaleffects take.

    The prediction is :math:`x'\beta + o`, plus the conditional modes of the random effects that `re_form`
    names, which count as constants: standard errors are those of the fixed effects, by the delta method of
    marginaleffects. For errors that hold the uncertainty of the random effects see ``fit.predict(se=True)``.
    Of a generalised model the coefficients are those of all linear predictors and the prediction is what
    `type` says, at the random effects that `re_form` names.

    Parameters
    ----------
    fit : LMMFit or GLMMFit
        Fitted from a formula.
    re_form : "population", None, formula text or sequence of group names
        As in `predict` of the fit; a level that the fit has not seen counts as 0.
    data : data frame, optional
        The data of the fit, for one that does not hold them (loaded from a file).
    vcov : ndarray of shape (p, p) or str, optional
        Covariance of the fixed effects: an array, ``"kr"`` (Kenward-Roger), ...; by default ``fit.vcov``. The
        argument ``vcov=`` of marginaleffects' functions takes the same.
    type : {"response", "link", "conditional", "zero_probability", "dispersion"}
        Of generalised models, as in `GLMMFit.predict`.

    Returns
    -------
    marginaleffects.classes.ModelAbstract

    Raises
    ------
    OptionError
        A model made from matrices.
    DataError
        The fit does not hold its data and none were given.

    Examples
    --------
    >>> import mixedmodels as mm
    >>> fit = mm.lmm("Reaction ~ Days + (Days | Subject)", mm.load_dataset("sleepstudy", backend="polars"))
    >>> model = mm.adapters.marginaleffects(fit)  # doctest: +SKIP
    >>> import marginaleffects as me  # doctest: +SKIP
    >>> me.avg_slopes(model, variables="Days")["estimate"]  # doctest: +SKIP
    >>> me.predictions(model, newdata=me.datagrid(model, Days=[0, 9]))  # doctest: +SKIP
    >>> me.avg_predictions(model, by="Days", vcov="kr")  # doctest: +SKIP
    """
    if fit.formula is None:
        raise OptionError("a model made from matrices has no formula from which marginaleffects can predict")
    data = fit._data if data is None else data
    if data is None:
        raise DataError("this fit does not hold its data (it was loaded or refitted); pass data=")
    try:
        from marginaleffects.classes import ModelAbstract, ModelVault
    except ImportError:
        raise OptionError(
            "this adapter needs the package marginaleffects: pip install marginaleffects"
        ) from None
    from mixedmodels.inference.ddf.reference import reference_for

    rows_of: Any = (_LinearRows if fit._is_linear else _GeneralisedRows)(fit, re_form, type)

    class FittedModel(ModelAbstract):  # type: ignore[misc]
        """The fit behind marginaleffects' interface."""

        def __init__(self) -> None:
            frame, response, predictors = _model_data(fit, data)
            self._response, self._predictors = response, predictors
            vault = ModelVault(modeldata=frame, formula=_no_formula, package="mixedmodels")
            super().__init__(fit, vault)

        def validation(self) -> None:
            """Types of the variables; formula and missing values were the fit's matter."""
            self.coef, self.response_name = self.get_coef(), self._response
            self.vault.variables_type = _variable_types(self.vault.modeldata)

        def get_coef(self) -> np.ndarray:
            return np.array(rows_of.coefficients)

        def get_coefnames(self) -> np.ndarray:
            return np.array(rows_of.names)

        def get_vcov(self, vcov: Any = True) -> np.ndarray | None:
            chosen = default if vcov is True or vcov is None else vcov
            if chosen is False:
                return None
            if isinstance(chosen, str):
                return np.array(reference_for(fit, chosen).vcov)  # type: ignore[arg-type]
            return np.array(chosen, dtype=float)

        def find_response(self) -> str | None:
            return self._response

        def find_predictors(self) -> list[str]:
            return list(self._predictors)

        def find_variables(self) -> list[str]:
            return [*([self._response] if self._response else []), *self._predictors]

        def get_exog(self, newdata: Any) -> np.ndarray:
            return rows_of(newdata)

        def get_predict(self, params: np.ndarray, newdata: Any) -> Any:
            import polars as pl

            rows = newdata if isinstance(newdata, np.ndarray) else rows_of(newdata)
            estimate = rows_of.values(rows, np.asarray(params, dtype=float))
            return pl.DataFrame({"rowid": np.arange(estimate.size, dtype=np.int32), "estimate": estimate})

    default = rows_of.vcov if vcov is None else vcov
    return FittedModel()


class _LinearRows:
    """The fixed-effects columns of new rows, and last what does not depend on beta.

    One matrix, because marginaleffects takes slices of it.
    """

    def __init__(self, fit: Any, re_form: Any, type: str) -> None:
        from mixedmodels.fit.predict import select_columns

        if type not in ("response", "link"):
            raise OptionError(f"type must be 'response' or 'link', got {type!r}")
        self.fit, self.selection = fit, select_columns(fit, re_form)
        self.coefficients, self.names, self.vcov = fit.beta, fit.design.x_names, np.array(fit.vcov)

    def __call__(self, newdata: Any) -> np.ndarray:
        from mixedmodels.fit.predict import new_rows, predict_design

        fit = self.fit
        rows = new_rows(fit, newdata, self.selection, "population", _offset(fit))
        whole = predict_design(fit, rows, self.selection)
        return np.column_stack([rows.X, whole - rows.X @ fit.beta])

    def values(self, rows: np.ndarray, beta: np.ndarray) -> np.ndarray:
        return rows[:, :-1] @ beta + rows[:, -1]


class _GeneralisedRows:
    """For each linear predictor its columns and what does not depend on gamma, one after another."""

    def __init__(self, fit: Any, re_form: Any, type: str) -> None:
        from mixedmodels.fit.glmm_predict import check_type, select_terms

        check_type(type, fit.family, fit.components)
        self.fit, self.type, self.selection = fit, type, select_terms(fit, re_form)
        self.coefficients, self.names = fit.gamma, fit.gamma_names
        self.vcov = np.array(fit.joint_vcov[: len(fit.gamma), : len(fit.gamma)])

    def __call__(self, newdata: Any) -> np.ndarray:
        from mixedmodels.fit.glmm_predict import new_parts

        fit = self.fit
        parts = new_parts(fit, newdata, self.selection, "population", _offset(fit))
        eta = parts.predictors(fit.gamma, fit._b, self.selection)
        columns: list[np.ndarray] = []
        for (X, _), predictor, whole in zip(parts.parts, fit.generalised.predictors, eta, strict=True):
            columns += [X, (whole - X @ fit.gamma[predictor.columns])[:, None]]
        return np.hstack(columns)

    def values(self, rows: np.ndarray, gamma: np.ndarray) -> np.ndarray:
        from mixedmodels.fit.glmm_predict import on_scale

        fit, at = self.fit, 0
        eta = np.empty((len(fit.components), rows.shape[0]))
        for c, predictor in enumerate(fit.generalised.predictors):
            stop = at + len(predictor.columns)
            eta[c] = rows[:, at:stop] @ gamma[predictor.columns] + rows[:, stop]
            at = stop + 1
        return on_scale(fit.family, eta, fit.components, self.type)


def _no_formula(newdata: Any) -> tuple[None, Any]:
    """Stands for the formula: the adapter makes the design itself."""
    return None, newdata


def _variable_types(frame: Any) -> dict[str, str]:
    """What marginaleffects calls the type of each column."""
    out = {}
    for name in frame.columns:
        column = frame[name]
        if column.dtype.is_numeric():
            values = set(column.unique().drop_nulls().to_list()) if column.n_unique() <= 3 else {2}
            kind = "integer" if column.dtype.is_integer() else "numeric"
            out[name] = "binary" if values <= {0, 1} else kind
        else:
            out[name] = "character"
    return out


def _offset(fit: Fit) -> Any:
    if fit.frame.encoding.offset_column == "":
        raise OptionError(
            "the fit has an array as offset; name a column instead (offset='column'), which new rows can have"
        )
    return None


def _model_data(fit: Fit, data: Any) -> tuple[Any, str | None, list[str]]:
    """The rows of the fit as a polars frame of the model's columns, labels as Enum; response; predictors."""
    import polars as pl

    from mixedmodels.formula import variables
    from mixedmodels.formula.ast import Variable
    from mixedmodels.frame.columns import Columns
    from mixedmodels.frame.values import FactorColumn

    formula = fit.formula
    parts = getattr(fit.frame, "parts", None) or {}
    encodings = [fit.frame.encoding, *[part.encoding for part in parts.values()]]
    columns = Columns(data)
    fixed: list[str] = []
    others: list[str] = []
    grouping: list[str] = []
    for encoding in encodings:
        for i in sorted({i for term in encoding.fixed.terms for i in term}):
            fixed += variables(encoding.variables[i].expression)
        for state in encoding.variables:
            others += variables(state.expression)
        grouping += [name for group in encoding.groups for e in group.expressions for name in variables(e)]
    names = list(dict.fromkeys([*fixed, *others, *grouping]))
    response = formula.response.name if isinstance(formula.response, Variable) else None
    extra = [encoding.offset_column for encoding in encodings if encoding.offset_column]
    wanted = dict.fromkeys([*([response] if response else []), *names, *extra])
    rows = fit.frame.row_index
    series: dict[str, Any] = {}
    for name in wanted:
        value = columns.factor(name) if name in grouping and name not in fixed else columns[name]
        if not isinstance(value, FactorColumn):
            series[name] = pl.Series(name, np.asarray(value)[rows])
            continue
        levels = [str(level) for level in value.levels]
        codes = np.asarray(value.codes)[rows].tolist()
        labels = [levels[code] if code >= 0 else None for code in codes]
        series[name] = pl.Series(name, labels, dtype=pl.Enum(list(dict.fromkeys(levels))))
    return pl.DataFrame(series), response, names
