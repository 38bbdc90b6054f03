"""Column names, order and values of the fixed part as R's model.matrix gives them.

The expected names were printed by R 4.2.2 for factors a (p, q, r), b (u, v), c (k, l), o (ordered
lo < mid < hi), a logical t and numeric x, z.
"""

from __future__ import annotations

import itertools
import json

import numpy as np
import pandas as pd
import pytest

from mixedmodels.errors import DataError
from mixedmodels.frame import Encoding, build
from mixedmodels.frame.encode import full_codings

RNG = np.random.default_rng(3)
ROWS = list(itertools.product("pqr", "uv", "kl", range(4)))
DATA = pd.DataFrame(ROWS, columns=["a", "b", "c", "rep"])
DATA["x"] = RNG.normal(size=48)
DATA["z"] = RNG.normal(size=48)
DATA["t"] = DATA.x > 0
DATA["o"] = pd.Categorical([["lo", "mid", "hi"][i % 3] for i in range(48)], ["lo", "mid", "hi"], ordered=True)
DATA["g"] = [f"g{i % 7}" for i in range(48)]
DATA["y"] = RNG.normal(size=48)


def fixed(right, **options):
    return build(f"y ~ {right} + (1 | g)", DATA, **options).encoding.fixed


R_NAMES = {
    "a:b + b:c": "(Intercept) ap:bu aq:bu ar:bu ap:bv aq:bv ar:bv bu:cl bv:cl",
    "0+a:b+b:c": "ap:bu aq:bu ar:bu ap:bv aq:bv ar:bv bu:cl bv:cl",
    "a*b": "(Intercept) aq ar bv aq:bv ar:bv",
    "a+a:b": "(Intercept) aq ar ap:bv aq:bv ar:bv",
    "b+a:b": "(Intercept) bv bu:aq bv:aq bu:ar bv:ar",
    "0+a*b": "ap aq ar bv aq:bv ar:bv",
    "x:a": "(Intercept) x:ap x:aq x:ar",
    "0+x:a": "x:ap x:aq x:ar",
    "x+x:a": "(Intercept) x x:aq x:ar",
    "0+x+a+a:b": "x ap aq ar ap:bv aq:bv ar:bv",
    "x:a+z:a": "(Intercept) x:ap x:aq x:ar ap:z aq:z ar:z",
    "0+x:a+b": "bu bv x:ap x:aq x:ar",
    "a+a:b:c": "(Intercept) aq ar ap:bu:ck aq:bu:ck ar:bu:ck ap:bv:ck aq:bv:ck ar:bv:ck "
    "ap:bu:cl aq:bu:cl ar:bu:cl ap:bv:cl aq:bv:cl ar:bv:cl",
    "a:x:b+a:b": "(Intercept) ap:bu aq:bu ar:bu ap:bv aq:bv ar:bv "
    "ap:x:bu aq:x:bu ar:x:bu ap:x:bv aq:x:bv ar:x:bv",
    "t+t:x": "(Intercept) tTRUE tFALSE:x tTRUE:x",
    "a:x+b:x+x:a:b": "(Intercept) ap:x aq:x ar:x x:bv aq:x:bv ar:x:bv",
    "0+x+x:a": "x x:ap x:aq x:ar",
    "a:b+b:c+a:b:c": "(Intercept) ap:bu aq:bu ar:bu ap:bv aq:bv ar:bv bu:cl bv:cl "
    "aq:bu:cl ar:bu:cl aq:bv:cl ar:bv:cl",
    "poly(x, 2)*b": "(Intercept) poly(x, 2)1 poly(x, 2)2 bv poly(x, 2)1:bv poly(x, 2)2:bv",
    "o": "(Intercept) o.L o.Q",
    "0+o": "olo omid ohi",
}


@pytest.mark.parametrize("right", list(R_NAMES))
def test_names_are_rs(right):
    assert " ".join(fixed(right).names) == R_NAMES[right]


def test_values_of_an_interaction():
    frame = build("y ~ a*b*x + (1 | g)", DATA)
    X = dict(zip(frame.encoding.x_names, frame.design.X.T, strict=True))
    q, v, x = (DATA.a == "q").to_numpy(), (DATA.b == "v").to_numpy(), DATA.x.to_numpy()
    np.testing.assert_array_equal(X["(Intercept)"], 1.0)
    np.testing.assert_array_equal(X["aq"], q)
    np.testing.assert_array_equal(X["bv:x"], v * x)
    np.testing.assert_allclose(X["aq:bv:x"], q * v * x, rtol=1e-15)
    assert len(X) == 12


def test_margin_inside_a_term_with_another_number_does_not_count():
    """In ``a:x + a:b`` the margin a is absent; R codes b by contrasts all the same and loses a's columns."""
    assert full_codings(True, ((0, 1), (0, 2)), (True, False, True)) == ((True, False), (True, True))
    assert fixed("a:x + a:b").names[4:] == ("ap:bu", "aq:bu", "ar:bu", "ap:bv", "aq:bv", "ar:bv")


def test_contrasts():
    part = fixed("a + b", contrasts={"a": "sum"})
    assert part.names == ("(Intercept)", "a1", "a2", "bv")
    frame = build("y ~ a + (1 | g)", DATA, contrasts={"a": "sum"})
    np.testing.assert_array_equal(frame.design.X[(DATA.a == "r").to_numpy()][0], [1, -1, -1])
    helmert = build("y ~ C(a, helmert) + (1 | g)", DATA).design.X
    np.testing.assert_array_equal(helmert[(DATA.a == "r").to_numpy()][0], [1, 0, 2])
    assert build("y ~ 0 + a + (1 | g)", DATA, contrasts={"a": "sum"}).encoding.x_names == ("ap", "aq", "ar")
    with pytest.raises(DataError, match=r"contrasts were given for 'h'.*factors: a, b"):
        fixed("a + b", contrasts={"h": "sum"})


def test_terms_keep_their_columns():
    encoding = build("y ~ a*x + (1 | g)", DATA).encoding
    assert encoding.assign == {
        "(Intercept)": slice(0, 1),
        "a": slice(1, 3),
        "x": slice(3, 4),
        "a:x": slice(4, 6),
    }
    data = DATA.assign(x2=2.0 * DATA.x)
    encoding = build("y ~ x + x2 + b + (1 | g)", data).encoding
    assert encoding.assign["x2"] == slice(2, 2) and encoding.assign["b"] == slice(2, 3)
    assert encoding.dropped_columns == ("x2",)


def test_left_sides_of_bars():
    frame = build("y ~ x + (0 + b | g) + (a + x || rep) + (poly(x, 2) | c)", DATA, sigma_fixed=True)
    names = [term.names for term in frame.design.terms]
    assert names == [
        ("bu", "bv"),
        ("(Intercept)", "aq", "ar", "x"),
        ("(Intercept)", "poly(x, 2)1", "poly(x, 2)2"),
    ]
    assert [term.covariance.name for term in frame.design.terms] == ["us", "diag", "us"]
    Z = frame.design.terms[0].Z
    np.testing.assert_array_equal(Z, np.column_stack([DATA.b == "u", DATA.b == "v"]).astype(float))
    assert all(term.Z.flags.c_contiguous for term in frame.design.terms)


def test_factor_with_one_level_is_refused_by_name():
    with pytest.raises(DataError, match=r"factor 'a' has a single level \(p\)"):
        build("y ~ a + (1 | g)", DATA[DATA.a == "p"])


def test_unused_levels_leave_with_a_note():
    data = DATA.assign(a=pd.Categorical(DATA.a, ["p", "never", "q", "r"]))
    frame = build("y ~ a + (1 | g)", data)
    assert frame.encoding.x_names == ("(Intercept)", "aq", "ar")
    assert "factor a: dropped 1 level without rows: never" in frame.messages


def plain(value):
    """What JSON makes of it, arrays turned to lists."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


@pytest.mark.parametrize(
    "formula",
    [
        "y ~ a*b + poly(x, 2) + t + o + offset(z) + (x | g) + (0 + b | a:c)",
        "y ~ scale(x) + C(a, sum):z + (1 | rep) + (scale(x) || g/c)",
        "y ~ x + I(2 * x) + factor(rep) + (1 | factor(rep):b)",
    ],
)
def test_encoding_survives_json(formula):
    frame = build(formula, DATA, sigma_fixed=True)
    text = json.dumps(plain(frame.encoding.to_dict()))
    back = Encoding.from_dict(json.loads(text))
    assert back.x_names == frame.encoding.x_names
    assert back.assign == frame.encoding.assign
    from mixedmodels.frame.newdata import encode_new

    new = DATA.iloc[[3, 17, 40]].drop(columns="y")
    a, b = frame.new_data(new), encode_new(back, new)
    np.testing.assert_array_equal(a.X, b.X)
    for (codes, Z), (codes2, Z2) in zip(a.terms, b.terms, strict=True):
        np.testing.assert_array_equal(codes, codes2)
        if Z is not None:
            np.testing.assert_array_equal(Z, Z2)
