"""From a formula and a data frame to the arrays of a model.

`build` reads the columns, settles missing values, codes factors, fills X and Z column by column, drops
dependent columns and checks that the data can tell the parameters apart.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mixedmodels.design import Design, GeneralisedDesign
from mixedmodels.errors import DataError, OptionError
from mixedmodels.formula.ast import Formula
from mixedmodels.frame import identify
from mixedmodels.frame.assemble import assemble, shared_parameters
from mixedmodels.frame.columns import Columns
from mixedmodels.frame.known import Known, check_names, match_known
from mixedmodels.frame.labels import level_labels
from mixedmodels.frame.missing import check_weights
from mixedmodels.frame.newdata import NewDesign, encode_new
from mixedmodels.frame.plan import PartPlan, plan_of, require_bars, require_response
from mixedmodels.frame.residual import ResidualState, columns_of, read_values, structure_of
from mixedmodels.frame.rows import nothing_left, read_rows, settle_rows
from mixedmodels.frame.state import Encoding, PartState
from mixedmodels.frame.values import FactorColumn, MatrixColumn, Value
from mixedmodels.residual.structure import CorrelationStructure

__all__ = ["ModelFrame", "build", "dots", "resolve_dots"]


@dataclass(frozen=True, slots=True, eq=False)
class ModelFrame:
    """The arrays of a model and how they came from the data.

    Attributes
    ----------
    formula : Formula
        With ``.`` resolved.
    encoding : Encoding
        What predictions need.
    design : Design
    kept : ndarray of intp or None
        Rows of the data in the design; None for all of them (see `row_index`).
    n_rows : int
        Rows of the data.
    na_counts : dict
        Rows in which each variable is missing, for those that have any.
    na_action : {"omit", "exclude", "fail"}
    dropped_columns : tuple of str
        Fixed-effects columns left out because they depend on earlier ones.
    backend : str
        Library of the data frame.
    messages : tuple of str
        Notes for the user.
    zero_weight_rows : ndarray of intp or None
        Rows left out because their weight is 0; `zero_weight_design` holds their columns for prediction.
    zero_weight_design : NewDesign or None
    functions : mapping or None
        The user's own transforms.
    generalised : GeneralisedDesign or None
        All linear predictors of a generalised model; `design` is its conditional one.
    family : Family or None
    parts : mapping from predictor to ModelFrame, or None
        Frames of the predictors with a formula of their own (zero inflation, dispersion).
    residual : ResidualState or None
        What the structure of the residuals needs to read new data; the bound structure is
        ``design.residual``.
    """

    formula: Formula
    encoding: Encoding
    design: Design
    kept: np.ndarray | None
    n_rows: int
    na_counts: dict[str, int]
    na_action: str
    dropped_columns: tuple[str, ...]
    backend: str
    messages: tuple[str, ...]
    zero_weight_rows: np.ndarray | None = None
    zero_weight_design: NewDesign | None = None
    functions: Mapping[str, Callable[..., Any]] | None = None
    generalised: GeneralisedDesign | None = None
    family: Any = None
    parts: Mapping[str, ModelFrame] | None = None
    residual: ResidualState | None = None

    @property
    def row_index(self) -> np.ndarray:
        """Rows of the data that are in the design, counting from 0."""
        return np.arange(self.n_rows) if self.kept is None else self.kept

    def new_data(
        self,
        data: Any,
        *,
        re_form: str | Sequence[str] = "all",
        need_groups: bool = True,
        new_levels: str = "error",
        offset: Any = None,
        columns_of: Sequence[str] = (),
        new_positions: Sequence[int] = (),
    ) -> NewDesign:
        """The columns of the model for new data; see `mixedmodels.frame.newdata.encode_new`."""
        return encode_new(
            self.encoding,
            data,
            re_form=re_form if need_groups else "none",
            new_levels=new_levels,
            offset=offset,
            functions=self.functions,
            columns_of=columns_of,
            new_positions=new_positions,
        )


def build(
    formula: Formula | str,
    data: Any,
    *,
    weights: Any = None,
    offset: Any = None,
    contrasts: Mapping[str, Any] | None = None,
    na_action: str = "omit",
    functions: Mapping[str, Callable[..., Any]] | None = None,
    share: Sequence[Sequence[str]] | None = None,
    sigma_fixed: bool = False,
    known: Collection[str] = (),
    relationships: Mapping[str, Known] | None = None,
    residual: Any = None,
    checked: bool = True,
    structures: Mapping[str, Any] | None = None,
) -> ModelFrame:
    r"""Read a model's columns from a data frame.

    The result describes :math:`\eta = X\beta + \sum_b Z_b b_b + \text{offset}` by arrays.

    Parameters
    ----------
    formula : Formula or str
    data : data frame or mapping
        See `Columns`. Never changed.
    weights, offset : str or array of shape (n,), optional
        A column name or values. A weight 0 leaves the row out; a missing weight is a missing value.
    contrasts : mapping, optional
        Contrasts by factor: a name ("sum", "helmert", "poly", ...) or a matrix.
    na_action : {"omit", "exclude", "fail"}
        What to do with rows that have missing values; "exclude" leaves them out too but keeps their places in
        fitted values and residuals.
    functions : mapping, optional
        Functions that the formula may call besides the known ones.
    share : sequence of sequences of str, optional
        Random terms whose covariance parameters are the same, each named by its text or grouping factor.
    sigma_fixed : bool
        Whether the residual standard deviation is given; lifts the checks that it can be estimated.
    known : collection of str
        Grouping factors with a known covariance between their levels (pedigree, ...): the checks of their
        number of levels do not apply.
    relationships : mapping from str to Known, optional
        Known covariances between the levels of grouping factors; see `mixedmodels.frame.known`.
    residual : str or Structure, optional
        Structure of the residuals, such as ``"ar1(time | subject) * varident(sex)"``; without random terms
        the formula then needs none. Rows in which one of its columns is missing are left out.
    checked : bool
        False leaves out the checks that the data can tell the parameters apart: nothing is to be estimated.
    structures : mapping, optional
        Covariance structures of your own by random term or grouping factor, and matrices by name.

    Returns
    -------
    ModelFrame

    Raises
    ------
    FormulaError
        The formula has no random term, no response or a random term twice.
    DataError
        A column is missing or unusable, or no row is left.
    IdentifiabilityError
        The data cannot tell the parameters apart.

    Examples
    --------
    >>> data = {"y": [1.0, 2.0, 4.0, 3.0, 5.0], "x": [0, 1, 2, 3, 4], "g": ["a", "b", "a", "b", "a"]}
    >>> frame = build("y ~ x + (1 | g)", data)
    >>> frame.design.x_names, frame.design.terms[0].codes
    (('(Intercept)', 'x'), array([0, 1, 0, 1, 0], dtype=int32))
    """
    messages: list[str] = []
    if isinstance(formula, str):
        from mixedmodels.formula import parse

        formula = parse(formula)
    if dots(formula):
        formula, data = resolve_dots(formula, data, (weights, offset), messages)
    require_response(formula)
    structure = None if residual is None else structure_of(residual)
    if structure is None:
        require_bars(formula)
    plan = plan_of(formula)
    messages.extend(plan.notes)
    extra = [name for name in (weights, offset) if isinstance(name, str)]
    if structure is not None:
        extra += columns_of(structure)
    columns = (
        data if type(data) is Columns else Columns(data, (*plan.needed, *extra) if extra else plan.needed)
    )
    if na_action not in ("omit", "exclude", "fail"):
        raise OptionError(f"na_action must be 'omit', 'exclude' or 'fail', not {na_action!r}")

    rows = read_rows(plan, columns, weights, offset, functions)
    values = None if structure is None else read_values(structure, columns, functions)
    kept: np.ndarray | None = None
    na_counts: dict[str, int] = {}
    zero_rows: np.ndarray | None = None
    positive = None if rows.weights is None else check_weights(rows.weights, "weights")
    absent = {} if values is None else values.missing()
    if positive is not None or absent or not rows.clean():
        excluded = {} if positive is None else {"weight 0": ~positive}
        kept, zero_rows, na_counts = settle_rows(
            [(plan, rows)], columns, excluded, na_action, messages, absent
        )
    n = columns.n_rows if kept is None else kept.shape[0]
    if n == 0:
        raise DataError(nothing_left(columns.n_rows, na_counts))

    assert rows.response is not None
    y = _response(rows.response, plan.response_label)
    check_names(relationships or {}, [plan])
    between = match_known(plan, rows, relationships) if relationships else {}
    found = assemble(plan, rows, n, contrasts, offset, messages, between, structures)
    X, terms = found.X, found.terms
    varying = rows.weights is not None and not identify.is_constant(rows.weights)
    if checked:
        identify.refuse_constant(y, plan.response_label)
        identify.check(
            n,
            X.shape[1],
            plan,
            terms,
            rows.groups,
            messages,
            free_sigma=not (sigma_fixed or varying),
            widest=_widest(plan.fixed, found.encoding.fixed) if X.shape[1] >= n else ("", 0),
            known={*known, *between},
            correlated=structure is not None
            and any(isinstance(part, CorrelationStructure) for part in structure.parts()),
        )
    messages.extend(identify.confounded_groups(plan, [state.kind for state in found.encoding.variables]))
    theta_index = None if share is None else shared_parameters(share, plan, terms)
    bound = residual_state = None
    if values is not None:
        data_of, residual_state = values.settle(kept, messages)
        bound = values.structure.bind(data_of, rows.weights)
    notes = tuple(messages)
    design = Design(y, X, found.x_names, terms, found.offset, rows.weights, theta_index, notes, bound)
    zero_design = None
    if zero_rows is not None:
        zero_design = encode_new(
            found.encoding,
            columns,
            new_levels="population",
            offset=rows.offset_given if isinstance(rows.offset_given, np.ndarray) else None,
            functions=functions,
            rows=zero_rows,
        )
    return ModelFrame(
        formula,
        found.encoding,
        design,
        kept,
        columns.n_rows,
        na_counts,
        na_action,
        found.dropped,
        columns.backend,
        notes,
        zero_rows,
        zero_design,
        functions,
        residual=residual_state,
    )


def dots(formula: Formula) -> bool:
    """Whether the formula holds an unresolved ``.``."""
    return formula.fixed.dot or any(bar.effects.dot for bar in formula.bars)


def resolve_dots(
    formula: Formula, data: Any, arguments: Sequence[Any], messages: list[str]
) -> tuple[Formula, Columns]:
    """The formula with ``.`` replaced by the columns of the data that are not used otherwise."""
    from mixedmodels.formula import resolve_dot

    columns = data if type(data) is Columns else Columns(data)
    used = tuple(name for name in arguments if isinstance(name, str))
    formula, notes = resolve_dot(formula, list(columns), used)
    messages.extend(notes)
    return formula, columns


def _response(value: Value, label: str) -> np.ndarray:
    """The response as a new float array."""
    if isinstance(value, FactorColumn):
        labels = level_labels(value.levels[:5])
        remedy = "convert it, or name another column"
        if _are_numbers(labels):
            remedy = "these are numbers kept as text or categories: convert the column to numbers"
        elif len(labels) == 2:
            remedy = "code a yes/no response as 0 and 1 for a linear probability model"
        raise DataError(
            f"the response {label!r} holds categories ({', '.join(labels[:4])}"
            f"{', ...' if len(labels) > 4 else ''}), but a linear model needs numbers; {remedy}"
        )
    if isinstance(value, MatrixColumn):
        raise DataError(f"the response {label!r} has several columns; a linear mixed model needs one")
    return np.array(value)


def _are_numbers(labels: Sequence[str]) -> bool:
    """Whether all labels read as numbers."""
    try:
        return bool([float(label) for label in labels])
    except ValueError:
        return False


def _widest(plan: PartPlan, part: PartState) -> tuple[str, int]:
    """The term of the fixed part with the most columns, and their number."""
    first = int(part.intercept)
    widths = [stop - start for start, stop in zip((first, *part.stops), part.stops, strict=False)]
    if not widths:
        return "", 0
    place = max(range(len(widths)), key=widths.__getitem__)
    return plan.labels[place], widths[place]
