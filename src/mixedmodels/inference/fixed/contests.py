"""Tests of linear hypotheses about the fixed effects, given as numbers, dicts or text."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import OptionError
from mixedmodels.inference.ddf.reference import reference_for
from mixedmodels.inference.ddf.tails import t_tail
from mixedmodels.inference.fixed.component import component_view
from mixedmodels.inference.fixed.wald_table import is_chi_squared, test_name, test_row
from mixedmodels.inference.table import ResultTable, result_table

if TYPE_CHECKING:
    from mixedmodels.fit.result import LMMFit

__all__ = ["contrast_rows", "test_hypothesis"]

_NUMBER = re.compile(r"\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?")
_ESTIMABLE = 1e-7


def test_hypothesis(
    fit: LMMFit,
    L: Any,
    rhs: Any = None,
    ddf: str | float | None = None,
    joint: bool = True,
    component: str | None = None,
) -> ResultTable:
    """Test of ``L beta = rhs``; see `LMMFit.test`.

    Returns
    -------
    ResultTable
        Joint: contrast, num_df, den_df, statistic (F), p_value; of a generalised model contrast, statistic
        (chi-squared), df, p_value. Row by row: contrast, estimate (of the
        difference from the right-hand side), std_error, df, statistic (t), p_value. ``extra["L"]`` and
        ``extra["rhs"]`` hold the numbers.

    Raises
    ------
    OptionError
        A name that is no coefficient, text that cannot be read, a contrast that cannot be estimated,
        hypotheses that contradict each other.
    """
    fit = component_view(fit, component)
    rows, values, labels = contrast_rows(fit, L, rhs)
    reference = reference_for(fit, ddf)
    notes = reference.notes
    extra = {"L": rows, "rhs": values}
    if joint:
        test = reference.f_test(rows, values)
        chi = is_chi_squared(fit, reference)
        columns: dict[str, Any] = {"contrast": ["; ".join(labels)]}
        columns |= {name: [cell] for name, cell in test_row(test, chi).items()}
        extra["scaling"] = np.array(test.scaling)
        title = test_name(chi) + ("" if chi else f", {reference.label}")
        return result_table(title, columns, notes, fit._native, extra)
    estimate = rows @ fit.beta - values
    variances = ((rows @ reference.vcov) * rows).sum(axis=1)
    se = [math.sqrt(v) if v > 0.0 else math.nan for v in variances.tolist()]
    df = reference.df(rows).tolist()
    t = [b / s if s > 0.0 else math.nan for b, s in zip(estimate.tolist(), se, strict=True)]
    columns = {
        "contrast": list(labels),
        "estimate": estimate,
        "std_error": se,
        "df": df,
        "statistic": t,
        "p_value": [t_tail(a, d) for a, d in zip(t, df, strict=True)],
    }
    title = "z tests" if is_chi_squared(fit, reference) else f"t tests, {reference.label}"
    return result_table(title, columns, notes, fit._native, extra)


def contrast_rows(fit: LMMFit, L: Any, rhs: Any = None) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Rows, right-hand sides and labels of hypotheses given in any of the accepted forms.

    Parameters
    ----------
    fit : LMMFit
    L : array, mapping from coefficient names to numbers, text, or a sequence of these
    rhs : number or sequence of numbers, optional
        Adds to what texts have on their right-hand sides.
    """
    names = fit.design.x_names
    full = names if fit.frame.encoding is None else fit.frame.encoding.fixed.names
    if not names:
        raise OptionError("the model has no fixed effects to test")
    rows: list[np.ndarray] = []
    values: list[float] = []
    labels: list[str] = []
    for row, value, label in _parsed(L, tuple(names), tuple(full)):
        rows.append(_estimable(fit, row, label, names, full))
        values.append(value)
        labels.append(label)
    if not rows:
        raise OptionError("no hypothesis given; give rows of contrasts, names or texts")
    numbers = np.array(values)
    if rhs is not None:
        given = _numbers(rhs, "rhs holds a number for each hypothesis, not").reshape(-1)
        if given.size not in (1, len(rows)) or not np.isfinite(given).all():
            raise OptionError(f"rhs has {given.size} values for {len(rows)} hypotheses, all must be finite")
        numbers = numbers + given
    matrix = np.array(rows)
    if not np.isfinite(matrix).all():
        raise OptionError("a contrast holds a value that is not finite")
    if not (matrix != 0.0).any(axis=1).all():
        place = int(np.flatnonzero(~(matrix != 0.0).any(axis=1))[0])
        raise OptionError(f"the contrast {labels[place]!r} is zero in all coefficients: nothing to test")
    return matrix, numbers, tuple(labels)


def _numbers(values: Any, what: str) -> np.ndarray:
    try:
        if np.iscomplexobj(values):
            raise TypeError
        return np.asarray(values, dtype=float)
    except (TypeError, ValueError):
        shown = " ".join(repr(values).split())
        raise OptionError(f"{what} {shown if len(shown) < 80 else shown[:76] + ' ...'}") from None


def _parsed(L: Any, names: tuple[str, ...], full: tuple[str, ...]) -> list[tuple[np.ndarray, float, str]]:
    if isinstance(L, str):
        return _Reader(L, full).hypotheses()
    if isinstance(L, Mapping):
        row = np.zeros(len(full))
        for name, weight in L.items():
            row[_position(name, full)] += _number(weight, name)
        return [(row, 0.0, _label(row, full))]
    if isinstance(L, Sequence) and any(isinstance(item, (str, Mapping)) for item in L):
        return [found for item in L for found in _parsed(item, names, full)]
    array = np.atleast_2d(
        _numbers(L, "a hypothesis is an array of numbers, a dict from coefficients to numbers or a text, not")
    )
    if array.ndim != 2 or array.shape[1] not in (len(names), len(full)):
        raise OptionError(
            f"a contrast needs {len(names)} numbers, one per fixed effect ({', '.join(names)}); "
            f"got shape {np.shape(L)}"
        )
    labelled = names if array.shape[1] == len(names) else full
    return [(row, 0.0, _label(row, labelled)) for row in array]


def _estimable(
    fit: LMMFit, row: np.ndarray, label: str, names: Sequence[str], full: Sequence[str]
) -> np.ndarray:
    """The row in the coefficients of the fit; columns left out for dependence must not be asked about."""
    if len(row) == len(names):
        return row
    encoding = fit.frame.encoding
    null, kept = encoding.null, encoding.kept
    lengths = np.sqrt((null * null).sum(axis=0)) * math.sqrt(float(row @ row))
    if (np.abs(row @ null) > _ESTIMABLE * lengths).any():
        asked = [full[j] for j in np.flatnonzero(row).tolist() if full[j] not in names]
        reason = (
            f"{', '.join(asked)} depends on other columns" if asked else "columns of the model are dependent"
        )
        raise OptionError(
            f"{label!r} cannot be estimated from these data: {reason}; the coefficients that can be "
            f"estimated are {', '.join(names)}"
        )
    return row[kept]


def _position(name: Any, names: Sequence[str]) -> int:
    for spelling in (name, f"`{name}`"):
        if spelling in names:
            return list(names).index(spelling)
    raise OptionError(f"{name!r} is not a coefficient of the model; these are {', '.join(names)}")


def _number(value: Any, name: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise OptionError(f"the weight of {name!r} must be a number, got {value!r}") from None


def _label(row: np.ndarray, names: Sequence[str]) -> str:
    text = ""
    for weight, name in zip(row.tolist(), names, strict=True):
        if weight:
            size = "" if abs(weight) == 1.0 else f"{abs(weight):g} "
            sign = ("-" if weight < 0.0 else "") if not text else (" - " if weight < 0.0 else " + ")
            text += sign + size + name
    return text or "0"


class _Reader:
    """Reads ``fB - fC = 0``: sums of coefficients with numbers, brackets and one or more equality signs.

    Coefficient names may hold spaces, brackets and operators: at each place the longest name that fits wins.
    """

    def __init__(self, text: str, names: Sequence[str]) -> None:
        self.text, self.names, self.at = text, names, 0
        self.by_length = sorted(names, key=len, reverse=True)

    def hypotheses(self) -> list[tuple[np.ndarray, float, str]]:
        """All hypotheses of the text, separated by commas or semicolons."""
        out = []
        while True:
            out += self._equation()
            if self._peek() not in (",", ";"):
                break
            self.at += 1
        if self._peek():
            raise self._error("unexpected text")
        return out

    def _equation(self) -> list[tuple[np.ndarray, float, str]]:
        start = self.at
        sides = [self._sum()]
        while self._peek() == "=":
            self.at += 2 if self.text[self.at : self.at + 2] == "==" else 1
            sides.append(self._sum())
        if len(sides) == 1:
            sides.append(np.zeros(len(self.names) + 1))
        text = " ".join(self.text[start : self.at].split())
        out = []
        for left, right in itertools.pairwise(sides):
            row = left - right
            label = text if len(sides) == 2 else _label(row[:-1], self.names)
            out.append((row[:-1], -float(row[-1]), label))
        return out

    def _sum(self) -> np.ndarray:
        total = np.zeros(len(self.names) + 1)
        sign, first = 1.0, True
        while True:
            head = self._peek()
            if head in ("+", "-") and head:
                self.at += 1
                sign = -sign if head == "-" else sign
                continue
            if not first and sign == 0.0:
                return total
            total += sign * self._product()
            first = False
            head = self._peek()
            if not head or head not in "+-":
                return total
            self.at += 1
            sign = -1.0 if head == "-" else 1.0

    def _product(self) -> np.ndarray:
        value = self._atom()
        while True:
            head = self._peek()
            if head == "*":
                self.at += 1
                value = self._times(value, self._atom())
            elif head == "/":
                self.at += 1
                divisor = self._atom()
                if divisor[:-1].any() or not divisor[-1]:
                    raise self._error("only numbers other than zero can divide")
                value = value / divisor[-1]
            elif head and (head == "(" or head == "`" or self._name()) and not value[:-1].any():
                value = self._times(value, self._atom())  # 2 fB
            else:
                return value

    def _times(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        if not a[:-1].any():
            return a[-1] * b
        if not b[:-1].any():
            return b[-1] * a
        raise self._error("the hypothesis is not linear: a product of two coefficients")

    def _atom(self) -> np.ndarray:
        out = np.zeros(len(self.names) + 1)
        head = self._peek()
        if head == "-":
            self.at += 1
            return -self._atom()
        found = self._name()
        if found:
            out[self.names.index(found)] = 1.0
            self.at += len(found)
            return out
        if head == "`":
            end = self.text.find("`", self.at + 1)
            if end < 0:
                raise self._error("a quoted name is not closed")
            name = self.text[self.at + 1 : end]
            out[_position(name, self.names)] = 1.0
            self.at = end + 1
            return out
        number = _NUMBER.match(self.text, self.at)
        if number and not self._word_goes_on(number.end(), self.text[number.end() - 1]):
            out[-1] = float(number.group())
            self.at = number.end()
            return out
        if head == "(":
            self.at += 1
            out = self._sum()
            if self._peek() != ")":
                raise self._error("a bracket is not closed")
            self.at += 1
            return out
        word = re.match(r"[\w.:()^]+", self.text[self.at :])
        if word:
            raise OptionError(
                f"{word.group()!r} in the hypothesis {self.text!r} is not a coefficient of the model; "
                f"these are {', '.join(self.names)}"
            )
        raise self._error("a coefficient or a number is missing")

    def _name(self) -> str:
        for name in self.by_length:
            if self.text.startswith(name, self.at) and not self._word_goes_on(self.at + len(name), name[-1]):
                return name
        return ""

    def _word_goes_on(self, end: int, last: str) -> bool:
        """Whether a name that ends here would cut a longer word."""
        following = self.text[end : end + 1]
        return (
            bool(following)
            and (last.isalnum() or last in "_.")
            and (following.isalnum() or following in "_.:(")
        )

    def _peek(self) -> str:
        while self.at < len(self.text) and self.text[self.at].isspace():
            self.at += 1
        return self.text[self.at : self.at + 1]

    def _error(self, what: str) -> OptionError:
        return OptionError(
            f"the hypothesis {self.text!r} cannot be read at position {self.at + 1}: {what}; write for "
            "instance 'fB - fC = 0'"
        )
