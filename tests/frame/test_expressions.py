"""The evaluator: types of columns, learnt state, functions of the caller, and what it refuses."""

from __future__ import annotations

import datetime
import decimal
import json
import math

import numpy as np
import pytest

from mixedmodels.errors import DataError, FormulaError, NewLevelError, OptionError
from mixedmodels.formula import Call, Number, Variable, parse
from mixedmodels.frame.expressions import FUNCTION_NAMES, apply, learn
from mixedmodels.frame.values import FactorColumn, MatrixColumn

NAN = math.nan


def expression(text):
    return parse(f"{text} ~ 1").response


def value(text, columns, **options):
    return learn(expression(text), columns, **options)[0]


def labels(column):
    return [None if code < 0 else column.levels[code] for code in column.codes]


# --- columns


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (np.array([1, 2], dtype=np.int8), [1.0, 2.0]),
        (np.array([1, 2], dtype=np.uint64), [1.0, 2.0]),
        (np.array([1.5, 2], dtype=np.float32), [1.5, 2.0]),
        (np.array([1, None, 2.5], dtype=object), [1.0, NAN, 2.5]),
        (np.array([decimal.Decimal("1.5"), None], dtype=object), [1.5, NAN]),
        (np.ma.MaskedArray([1, 2], [False, True]), [1.0, NAN]),
        ([1, 2], [1.0, 2.0]),
        (np.array(["1970-01-02", "NaT", "2024-03-01"], dtype="M8[D]"), [1.0, NAN, 19783.0]),
        (np.array(["1970-01-01T12:00"], dtype="M8[ns]"), [0.5]),
        (np.array([datetime.date(1970, 1, 3), None], dtype=object), [2.0, NAN]),
        (np.array([36], dtype="m8[h]"), [1.5]),
    ],
)
def test_columns_that_become_numbers(raw, expected):
    result = value("x", {"x": raw})
    assert result.dtype == np.float64
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (np.array(["b", "a", "b"]), ["b", "a", "b"]),
        (np.array(["b", None, "a", NAN], dtype=object), ["b", None, "a", None]),
        (np.array([b"b", b"a"]), ["b", "a"]),
        (np.array([True, False]), ["TRUE", "FALSE"]),
        (np.array([True, None], dtype=object), ["TRUE", None]),
        (np.ma.MaskedArray([True, True], [False, True]), ["TRUE", None]),
        (FactorColumn(np.array([0, -1], dtype=np.int32), np.array([True])), ["TRUE", None]),
    ],
)
def test_columns_that_become_factors(raw, expected):
    result = value("x", {"x": raw})
    assert isinstance(result, FactorColumn)
    assert labels(result) == expected
    assert list(result.levels) == sorted(result.levels)


def test_truth_values_always_have_two_levels():
    assert tuple(value("x", {"x": np.array([True, True])}).levels) == ("FALSE", "TRUE")
    assert tuple(value("I(x > 5)", {"x": np.array([1.0, 2.0])}).levels) == ("FALSE", "TRUE")


def test_mixed_objects_and_wrong_shapes_are_refused():
    with pytest.raises(DataError, match="column 'x' mixes values of type int, str"):
        value("x", {"x": np.array([1, "a"], dtype=object)})
    with pytest.raises(DataError, match="3 dimensions"):
        value("x", {"x": np.zeros((2, 2, 2))})
    with pytest.raises(DataError, match="complex"):
        value("x", {"x": np.array([1j])})


def test_input_is_never_changed():
    x = np.array([1.0, NAN, 3.0])
    kept = x.copy()
    for text in ("x", "scale(x)", "poly(x, 1)", "bs(x)", "cut(x, 2)", "I(-x + 1)", "ifelse(x > 1, 0, x)"):
        value(text, {"x": x})
    np.testing.assert_array_equal(x, kept)


def test_a_column_called_pi_wins_over_the_constant():
    assert value("I(x * pi)", {"x": np.array([2.0])}) == pytest.approx(2 * math.pi)
    assert value("I(x * pi)", {"x": np.array([2.0]), "pi": np.array([5.0])}).tolist() == [10.0]


def test_unknown_column():
    with pytest.raises(DataError, match=r"no column 'z' \(columns: x\)"):
        value("log(z)", {"x": np.array([1.0])})


# --- values


def test_undefined_results_are_nan_without_a_warning():
    x = np.array([-1.0, 0.0, 1.0])
    np.testing.assert_array_equal(value("log(x)", {"x": x}), [NAN, -math.inf, 0.0])
    np.testing.assert_array_equal(value("sqrt(x)", {"x": x}), [NAN, 0.0, 1.0])
    np.testing.assert_array_equal(value("I(1/x)", {"x": x}), [-1.0, math.inf, 1.0])


def test_three_valued_logic():
    x, y = np.array([1.0, 0.0, NAN, NAN, NAN]), np.array([NAN, NAN, 1.0, 0.0, NAN])
    columns = {"x": x, "y": y}
    assert labels(value("I(x == 1 | y == 1)", columns)) == ["TRUE", None, "TRUE", None, None]
    assert labels(value("I(x == 1 & y == 1)", columns)) == [None, "FALSE", None, "FALSE", None]
    assert labels(value("I(!(x == 1))", columns)) == ["FALSE", "TRUE", None, None, None]
    assert labels(value("is.na(x)", columns)) == ["FALSE", "FALSE", "TRUE", "TRUE", "TRUE"]
    np.testing.assert_array_equal(value("I((x > 0) * 2)", columns), [2.0, 0.0, NAN, NAN, NAN])
    assert labels(value("I(x | FALSE)", columns)) == ["TRUE", "FALSE", None, None, None]


def test_factor_comparisons_and_membership():
    columns = {"f": np.array(["a", "b", None, "c"], dtype=object), "h": np.array(["a", "a", "b", "c"])}
    assert labels(value("I(f == 'a')", columns)) == ["TRUE", "FALSE", None, "FALSE"]
    assert labels(value("I('a' != f)", columns)) == ["FALSE", "TRUE", None, "TRUE"]
    assert labels(value("I(f == h)", columns)) == ["TRUE", "FALSE", None, "TRUE"]
    assert labels(value("I(f %in% c('a', 'c'))", columns)) == ["TRUE", "FALSE", "FALSE", "TRUE"]
    assert labels(value("I(as.numeric(f) %in% 1:2)", columns)) == ["TRUE", "TRUE", "FALSE", "FALSE"]


def test_as_numeric_of_factors():
    coded = FactorColumn(np.array([1, 0, -1], dtype=np.int32), ("10", "2.5"))
    np.testing.assert_array_equal(value("as.numeric(f)", {"f": coded}), [2.5, 10.0, NAN])
    np.testing.assert_array_equal(value("numeric(f)", {"f": np.array(["b", "a"])}), [2.0, 1.0])
    np.testing.assert_array_equal(value("as.numeric(ordered(f))", {"f": coded}), [2.0, 1.0, NAN])


def test_cbind_names():
    columns = {"my a": np.array([1.0]), "b": np.array([2.0])}
    result = value("cbind(`my a`, b)", columns)
    assert isinstance(result, MatrixColumn)
    assert result.suffixes == ("my a", "b")
    assert value("cbind(log(b), b)", columns).suffixes == ("", "b")
    assert value("cbind(log(b), b^2)", columns).suffixes == ("1", "2")
    assert value("cbind(b, u = b)", columns).suffixes == ("b", "u")
    assert value("cbind(b)", columns).suffixes == ("",)
    assert value("cbind(poly(b, 1, raw = TRUE), b)", columns).suffixes == ("1", "b")


def test_argument_names_may_be_spelled_with_underscores():
    x = np.linspace(0, 1, 9)
    a = value("bs(x, Boundary.knots = c(0, 2))", {"x": x}).values
    np.testing.assert_array_equal(a, value("bs(x, boundary_knots = c(0, 2))", {"x": x}).values)


# --- state

TEXTS = [
    "x",
    "f",
    "b",
    "log(x + 1)",
    "poly(scale(x), 2)",
    "bs(log(x + 10), df = 4)",
    "ns(x, df = 3)",
    "scale(x)",
    "cut(x, 3)",
    "I((x - mean(x)) / sd(x))",
    "factor(x > 0)",
    "relevel(f, ref = 'b')",
    "C(f, sum)",
    "C(f, contr.treatment(base = 2))",
    "C(f, cbind(c(-1, 0, 1), c(1, -2, 1)))",
    "interaction(f, b)",
    "cbind(x, scale(x))",
    "I(x > 0 | f == 'a')",
    "d",
]


def columns(n=24):
    rng = np.random.default_rng(3)
    return {
        "x": rng.normal(size=n),
        "f": np.array(list("abc" * n))[:n],
        "b": np.arange(n) % 2 == 0,
        "d": np.datetime64("2024-01-01") + np.arange(n),
    }


def plain(state):
    """What is saved: JSON for everything but arrays."""
    if isinstance(state, dict):
        return {key: plain(entry) for key, entry in state.items()}
    return state.tolist() if isinstance(state, np.ndarray) else state


def numbers(result):
    if isinstance(result, FactorColumn):
        return result.codes
    return result.values if isinstance(result, MatrixColumn) else result


@pytest.mark.parametrize("text", TEXTS)
def test_state_survives_saving_and_serves_single_rows(text):
    node, data = expression(text), columns()
    learnt, state = learn(node, data)
    saved = json.loads(json.dumps(plain(state), allow_nan=False))
    again = apply(node, data, saved)
    np.testing.assert_allclose(numbers(again), numbers(learnt), rtol=1e-10, atol=1e-12)
    for row in (0, 13):
        one = apply(node, {name: column[row : row + 1] for name, column in data.items()}, saved)
        assert type(one) is type(learnt)
        np.testing.assert_allclose(numbers(one)[0], numbers(learnt)[row], rtol=1e-10, atol=1e-12)
        if isinstance(learnt, FactorColumn):
            assert tuple(one.levels) == tuple(learnt.levels)


@pytest.mark.parametrize(
    "text", ["f", "factor(f)", "as.factor(f)", "relevel(f, ref = 'b')", "C(f, sum)", "interaction(f, b)"]
)
def test_new_levels_are_named(text):
    node, data = expression(text), columns()
    _, state = learn(node, data)
    with pytest.raises(NewLevelError, match=r"new level.*zebra.*known levels: "):
        apply(node, {**data, "f": np.array(["a", "zebra"] * 12)}, state)


@pytest.mark.parametrize(
    "text", ["f", "factor(f)", "as.factor(f)", "relevel(f, ref = 'b')", "interaction(f, b)"]
)
def test_new_levels_may_be_allowed(text):
    node, data = expression(text), columns()
    _, state = learn(node, data)
    new = {"f": np.array(["a", "zebra", "b"]), "b": data["b"][:3]}
    codes = apply(node, new, state, allow_new_levels=True).codes
    assert (codes < 0).tolist() == [False, True, False]


def test_infinite_new_values_do_not_warn():
    node = expression("bs(x, df = 4)")
    _, state = learn(node, columns())
    assert not np.isfinite(apply(node, {"x": np.array([math.inf])}, state).values).any()


def test_new_level_message():
    _, state = learn(Variable("f"), {"f": np.array(["a", "b"])})
    with pytest.raises(NewLevelError) as error:
        apply(Variable("f"), {"f": np.array(["c"])}, state)
    assert str(error.value) == (
        "column 'f' has the new level 'c', for which the fit has no coefficient; known levels: a, b. "
        "Drop these rows or refit with them"
    )


def test_levels_without_rows_are_dropped_and_refused_later():
    unused = FactorColumn(np.array([0, 2, -1], dtype=np.int32), ("a", "b", "c"))
    learnt, state = learn(Variable("f"), {"f": unused})
    assert learnt.levels == ("a", "c")
    assert learnt.codes.tolist() == [0, 1, -1]
    assert apply(Variable("f"), {"f": unused}, state).codes.tolist() == [0, 1, -1]
    with pytest.raises(NewLevelError, match="'b'"):
        apply(Variable("f"), {"f": FactorColumn(np.array([1], dtype=np.int32), ("a", "b", "c"))}, state)


def test_chosen_levels_make_others_missing_as_in_r():
    node = expression("factor(f, levels = c('b', 'a'))")
    learnt, state = learn(node, {"f": np.array(["a", "b", "c"])})
    assert labels(learnt) == ["a", "b", None]
    assert labels(apply(node, {"f": np.array(["z", "a"])}, state)) == [None, "a"]


def test_levels_are_matched_whatever_their_type():
    numeric = FactorColumn(np.array([0, 1], dtype=np.int32), np.array([308, 309]))
    _, state = learn(Variable("g"), {"g": numeric})
    for new in (np.array([309]), np.array([309.0]), np.array(["309"]), np.array([309], dtype=object)):
        assert apply(Variable("g"), {"g": new}, state).codes.tolist() == [1]
    _, state = learn(Variable("b"), {"b": np.array([True, False])})
    for new in (np.array([1]), np.array(["TRUE"]), np.array(["True"]), np.array([True])):
        assert labels(apply(Variable("b"), {"b": new}, state)) == ["TRUE"]
    _, state = learn(Variable("x"), {"x": np.array([0.0, 1.0])})
    assert apply(Variable("x"), {"x": np.array([True])}, state).tolist() == [1.0]


def test_type_changes_are_refused():
    _, state = learn(Variable("x"), {"x": np.array([0.0, 1.0])})
    with pytest.raises(DataError, match="column 'x' was numeric in the fit and is categorical"):
        apply(Variable("x"), {"x": np.array(["a"])}, state)
    _, state = learn(Variable("b"), {"b": np.array([True])})
    with pytest.raises(DataError, match="was logical"):
        apply(Variable("b"), {"b": np.array([2.0])}, state)
    with pytest.raises(NewLevelError, match="'maybe'"):
        apply(Variable("b"), {"b": np.array(["maybe"])}, state)


def test_contrast_matrix_for_levels_without_rows():
    unused = FactorColumn(np.array([0, 2], dtype=np.int32), ("a", "b", "c"), contrast=np.eye(3)[:, :2])
    with pytest.raises(DataError, match="only 2 levels have rows"):
        learn(Variable("f"), {"f": unused})


# --- functions of the caller


def test_callers_functions():
    x = np.array([1.0, NAN, 4.0])
    data = {"x": x, "f": np.array(["a", "b", "a"]), "b": np.array([True, False, True])}
    functions = {
        "half": lambda v, by=2.0: v / by,
        "upper": lambda v: np.array([label.upper() for label in v]),
        "both": lambda v: np.column_stack([v, v**2]),
        "two": lambda: 2,
    }
    np.testing.assert_array_equal(value("half(x)", data, functions=functions), x / 2)
    np.testing.assert_array_equal(value("half(x, by = 4)", data, functions=functions), x / 4)
    np.testing.assert_array_equal(value("half(b)", data, functions=functions), [0.5, 0.0, 0.5])
    np.testing.assert_array_equal(value("I(x * two())", data, functions=functions), 2 * x)
    assert value("both(x)", data, functions=functions).suffixes == ("1", "2")
    node = expression("upper(f)")
    learnt, state = learn(node, data, functions=functions)
    assert learnt.levels == ("A", "B")
    assert apply(node, {"f": np.array(["b"])}, state, functions=functions).codes.tolist() == [1]


def test_callers_functions_errors():
    data = {"x": np.array([1.0, 2.0])}
    with pytest.raises(OptionError, match="'log' is a built-in function"):
        value("log(x)", data, functions={"log": np.log})
    with pytest.raises(OptionError, match="'k' is not callable"):
        value("I(x)", data, functions={"k": 3})
    with pytest.raises(DataError, match=r"'bad\(x\)': the function failed with ZeroDivisionError"):
        value("bad(x)", data, functions={"bad": lambda v: 1 / 0})
    with pytest.raises(DataError, match="returned 1 values for 2 rows"):
        value("short(x)", data, functions={"short": lambda v: v[:1]})


# --- what is refused


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        ("lgo(x)", "did you mean log()?"),
        ("__import__('os')", "unknown function '__import__'"),
        ("frobnicate(x)", "functions={'frobnicate': ...}"),
        ("foo(x | x)", "not a covariance structure"),
        ("I(offset(x))", "a term of its own"),
        ("log()", "'x' is missing"),
        ("ifelse(x > 1, 2)", "'no' is missing"),
        ("cbind()", "needs columns"),
        ("pmin()", "needs arguments"),
    ],
)
def test_refused(text, fragment):
    with pytest.raises(FormulaError) as error:
        value(text, {"x": np.array([1.0])})
    assert fragment in str(error.value)


def test_no_python_is_evaluated():
    # Names that Python would resolve are columns or unknown functions here.
    for text in ("eval(x)", "x.real(x)", "open('f')", "getattr(x, 'y')"):
        with pytest.raises(FormulaError, match="unknown function"):
            value(text, {"x": np.array([1.0])})


def test_function_names_are_public():
    assert {"poly", "ns", "bs", "scale", "C", "offset", "log"} <= set(FUNCTION_NAMES)
    with pytest.raises(OptionError):
        learn(Call("I", (Number(1.0),)), {}, functions={"C": print})
