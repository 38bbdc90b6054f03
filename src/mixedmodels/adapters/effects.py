"""A fit for the package marginaleffects: predictions, comparisons, slopes and hypotheses of fixed effects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import DataError, OptionError

if TYPE_CHECKING:
    from mixedmodels.fit.result import LMMFit

__all__ = ["marginaleffects"]


def marginaleffects(fit: LMMFit, re_form: Any = "population", data: Any = None, vcov: Any = None) -> Any:
    r"""A fit as a model that the functions of the package marginaleffects take.

    The prediction is :math:`x'\beta + o`, plus the conditional modes of the random effects that `re_form`
    names, which count as constants: standard errors are those of the fixed effects, by the delta method of
    marginaleffects. For errors that hold the uncertainty of the random effects see ``fit.predict(se=True)``.

    Parameters
    ----------
    fit : LMMFit
        Fitted from a formula.
    re_form : "population", None, formula text or sequence of group names
        As in `LMMFit.predict`; a level that the fit has not seen counts as 0.
    data : data frame, optional
        The data of the fit, for one that does not hold them (loaded from a file).
    vcov : ndarray of shape (p, p) or str, optional
        Covariance of the fixed effects: an array, ``"kr"`` (Kenward-Roger), ...; by default ``fit.vcov``. The
        argument ``vcov=`` of marginaleffects' functions takes the same.

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
    from mixedmodels.fit.predict import new_rows, predict_design, select_columns
    from mixedmodels.inference.ddf.reference import reference_for

    selection = select_columns(fit, re_form)

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
            return np.array(fit.beta)

        def get_coefnames(self) -> np.ndarray:
            return np.array(fit.design.x_names)

        def get_vcov(self, vcov: Any = True) -> np.ndarray | None:
            chosen = default if vcov is True or vcov is None else vcov
            if chosen is False:
                return None
            if isinstance(chosen, str):
                return np.array(reference_for(fit, chosen).vcov)
            return np.array(chosen, dtype=float)

        def find_response(self) -> str | None:
            return self._response

        def find_predictors(self) -> list[str]:
            return list(self._predictors)

        def find_variables(self) -> list[str]:
            return [*([self._response] if self._response else []), *self._predictors]

        def get_exog(self, newdata: Any) -> np.ndarray:
            # the fixed-effects columns, and last what does not depend on beta (marginaleffects takes slices)
            rows = new_rows(fit, newdata, selection, "population", _offset(fit, newdata))
            whole = predict_design(fit, rows, selection)
            return np.column_stack([rows.X, whole - rows.X @ fit.beta])

        def get_predict(self, params: np.ndarray, newdata: Any) -> Any:
            import polars as pl

            rows = newdata if isinstance(newdata, np.ndarray) else self.get_exog(newdata)
            estimate = rows[:, :-1] @ np.asarray(params, dtype=float) + rows[:, -1]
            return pl.DataFrame({"rowid": np.arange(estimate.size, dtype=np.int32), "estimate": estimate})

    default = np.array(fit.vcov) if vcov is None else vcov
    return FittedModel()


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


def _offset(fit: LMMFit, newdata: Any) -> Any:
    if fit.frame.encoding.offset_column == "":
        raise OptionError(
            "the fit has an array as offset; name a column instead (offset='column'), which new rows can have"
        )
    return None


def _model_data(fit: LMMFit, data: Any) -> tuple[Any, str | None, list[str]]:
    """The rows of the fit as a polars frame of the model's columns, labels as Enum; response; predictors."""
    import polars as pl

    from mixedmodels.formula import variables
    from mixedmodels.formula.ast import Variable
    from mixedmodels.frame.columns import Columns
    from mixedmodels.frame.values import FactorColumn

    formula, encoding = fit.formula, fit.frame.encoding
    columns = Columns(data)
    fixed: list[str] = []
    used = {i for term in encoding.fixed.terms for i in term}
    for i in sorted(used):
        fixed += variables(encoding.variables[i].expression)
    others: list[str] = []
    for state in encoding.variables:
        others += variables(state.expression)
    grouping = [name for group in encoding.groups for e in group.expressions for name in variables(e)]
    names = list(dict.fromkeys([*fixed, *others, *grouping]))
    response = formula.response.name if isinstance(formula.response, Variable) else None
    extra = [encoding.offset_column] if encoding.offset_column else []
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
