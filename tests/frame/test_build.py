"""From formula and data to a design: known answers, refusals and notes."""

from __future__ import annotations

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from mixedmodels.errors import (
    DataError,
    FormulaError,
    IdentifiabilityError,
    NotImplementedYetError,
    OptionError,
)
from mixedmodels.formula import parse
from mixedmodels.frame import Columns, build

RNG = np.random.default_rng(8)


def crossed(n=120):
    return pd.DataFrame(
        {
            "y": RNG.normal(size=n),
            "x": np.arange(n) % 7 + 0.5 * RNG.normal(size=n),
            "f": np.resize(["u", "v", "w"], n),
            "g": RNG.integers(0, 8, n) + 300,
            "h": RNG.integers(0, 6, n),
        }
    )


DATA = crossed()


def test_known_design():
    data = {"y": [1.0, 2.0, 4.0, 3.0, 5.0, 7.0], "x": [0, 1, 2, 3, 4, 5], "g": ["b", "a", "b", "a", "b", "a"]}
    frame = build("y ~ x + (x | g)", data)
    design = frame.design
    assert design.y.tolist() == data["y"]
    assert design.X.tolist() == [[1, 0], [1, 1], [1, 2], [1, 3], [1, 4], [1, 5]]
    assert design.x_names == ("(Intercept)", "x")
    (term,) = design.terms
    assert (term.group, term.names, list(term.levels), term.m, term.k) == (
        "g", ("(Intercept)", "x"), ["a", "b"], 2, 2,
    )  # fmt: skip
    assert term.codes.tolist() == [1, 0, 1, 0, 1, 0] and term.codes.dtype == np.int32
    assert term.Z.tolist() == design.X.tolist()
    assert design.offset is None and design.weights is None and design.theta_index is None
    assert frame.backend == "dict" and frame.n_rows == 6
    assert frame.messages == (
        "grouping factor g has only 2 levels: its variance is poorly determined; consider a fixed effect",
    )


@pytest.mark.parametrize(
    "convert",
    [
        pl.from_pandas,
        lambda d: pl.from_pandas(d).lazy(),
        lambda d: pa.Table.from_pandas(d),
        lambda d: {name: d[name].to_numpy() for name in d},
        lambda d: d.assign(g=d.g.astype(str).astype("category"), f=d.f.astype("category")),
        lambda d: d.assign(g=d.g.astype("Int64"), h=d.h.astype(float), f=d.f.astype(object)),
    ],
)
def test_the_design_does_not_depend_on_the_library(convert):
    formula = "y ~ f * x + (x | g) + (1 | h) + (1 | g:f)"
    a, b = build(formula, DATA).design, build(formula, convert(DATA)).design
    np.testing.assert_array_equal(a.X, b.X)
    np.testing.assert_array_equal(a.y, b.y)
    assert a.x_names == b.x_names
    for s, t in zip(a.terms, b.terms, strict=True):
        np.testing.assert_array_equal(s.codes, t.codes)
        assert list(map(str, s.levels)) == list(map(str, t.levels))
        assert (s.Z is None) == (t.Z is None)
        assert s.names == t.names


def test_terms_on_one_factor_share_codes_and_equal_left_sides_share_values():
    design = build("y ~ x + (1 | g) + (0 + x | g) + (x | h) + (1 | g:h)", DATA).design
    a, b, c, d = design.terms
    assert a.codes is b.codes and a.codes is not c.codes
    assert a.Z is None and d.Z is None
    assert c.Z is design.X
    assert b.names == ("x",) and b.Z.shape == (120, 1)
    assert d.group == "g:h" and d.m == len(set(zip(DATA.g, DATA.h, strict=True)))
    assert d.levels[d.codes[7]] == f"{DATA.g[7]}:{DATA.h[7]}"


def test_nested_shorthand():
    design = build("y ~ x + (1 | h/f)", DATA).design
    assert [term.group for term in design.terms] == ["f:h", "h"]


def test_offsets_add_up_and_weights_are_read():
    w = np.linspace(1, 2, 120)
    frame = build("y ~ f + offset(x) + offset(2 * x) + (1 | g)", DATA, offset=DATA.x, weights=w)
    np.testing.assert_allclose(frame.design.offset, 4.0 * DATA.x)
    np.testing.assert_array_equal(frame.design.weights, w)
    assert frame.design.x_names == ("(Intercept)", "fv", "fw")
    with pytest.raises(DataError, match="offset 'f' must be one number"):
        build("y ~ x + offset(f) + (1 | g)", DATA)


def test_rank_deficient_fixed_part():
    data = DATA.assign(Days2=2.0 * DATA.x + 1.0)
    frame = build("y ~ x + Days2 + (Days2 | g)", data)
    assert frame.dropped_columns == ("Days2",) == frame.encoding.dropped_columns
    assert frame.design.x_names == ("(Intercept)", "x") and frame.design.X.shape == (120, 2)
    assert "fixed-effect model matrix is rank deficient: dropped 1 column: Days2" in frame.messages
    assert frame.design.terms[0].names == ("(Intercept)", "Days2")
    for scale, origin in ((1e-12, 0.0), (1.0, 2000.0), (1.0, 1.7e9)):
        assert build("y ~ x + (x | g)", DATA.assign(x=(DATA.x + origin) * scale)).dropped_columns == ()


def test_product_that_overflows_is_named():
    data = DATA.assign(x=DATA.x * 1e200, z=DATA.y * 1e200)
    with pytest.raises(DataError, match="'x:z' is too large"):
        build("y ~ x * z + (1 | g)", data)


def test_no_fixed_part():
    design = build("y ~ 0 + (1 | g)", DATA).design
    assert design.p == 0 and design.X.shape == (120, 0)


def test_dot_leaves_grouping_columns_out():
    frame = build("y ~ . + (1 | g) + (1 | h)", DATA)
    assert frame.design.x_names == ("(Intercept)", "x", "fv", "fw")
    assert any("." in note and "g" in note for note in frame.messages)
    weighted = build("y ~ . + (1 | g) + (1 | h)", DATA.assign(w=1.0, o=2.0), weights="w", offset="o")
    assert weighted.design.x_names == frame.design.x_names
    assert (
        build("y ~ . + (1 | g) + (1 | h)", pl.from_pandas(DATA).lazy()).design.x_names == frame.design.x_names
    )


def test_shared_parameters():
    formula = "y ~ x + (x | g) + (1 | h) + (1 | g:h) + (1 | f)"
    index = build(formula, DATA, share=[["(1 | h)", "1|f"]]).design.theta_index
    assert index.tolist() == [0, 1, 2, 3, 4, 3]
    with pytest.raises(IdentifiabilityError, match=r"\(x \| g\) and \(1 \| h\) cannot share"):
        build(formula, DATA, share=[["g", "h"]])
    with pytest.raises(OptionError, match="no random term 'k'"):
        build(formula, DATA, share=[["k", "h"]])
    with pytest.raises(OptionError, match="list of lists"):
        build(formula, DATA, share=["h", "f"])


@pytest.mark.parametrize(
    ("formula", "error", "match"),
    [
        ("y ~ x", FormulaError, "ordinary regression"),
        ("~ x + (1 | g)", FormulaError, "no response"),
        ("y ~ x + (1 | g) + (1 | g)", FormulaError, r"\(1 \| g\) occurs twice"),
        ("y ~ x + (x | g) + (1 + x | g)", FormulaError, "occurs twice"),
        ("y ~ x + (0 | g)", FormulaError, "no effects"),
        ("y ~ nope + (1 | g)", DataError, "no column 'nope'"),
        ("y ~ x + (1 | k)", DataError, "no column 'k'"),
        ("f ~ x + (1 | g)", DataError, r"'f' holds categories \(u, v, w\).*convert"),
        ("cbind(y, x) ~ f + (1 | g)", DataError, "several columns"),
        ("y ~ x + (1 | one)", IdentifiabilityError, r"'one' has a single level \(k\)"),
        ("y ~ x + (1 | row)", IdentifiabilityError, r"\(1 \| row\).*one observation per level \(120\)"),
        (
            "y ~ x + (0 + row5 | pair)",
            IdentifiabilityError,
            r"\(0 \+ row5 \| pair\) has 125 effects \(25 levels x 5",
        ),
        ("flat ~ x + (1 | g)", DataError, r"response 'flat' is constant \(2\)"),
        ("y ~ x + equalto(0 + f | g)", NotImplementedYetError, "equalto"),
        ("y ~ x + (1 | poly(x, 2))", DataError, "several columns"),
    ],
)
def test_refusals(formula, error, match):
    data = DATA.assign(
        one="k",
        row=np.arange(120),
        flat=2.0,
        pair=np.arange(120) % 25,
        row5=(np.arange(120) // 25).astype(str),
    )
    with pytest.raises(error, match=match):
        build(formula, data)


def test_one_observation_per_level_is_fine_if_sigma_is_known_or_weights_vary():
    data = DATA.assign(row=np.arange(120))
    build("y ~ x + (1 | row)", data, sigma_fixed=True)
    build("y ~ x + (1 | row)", data, weights=np.linspace(1, 3, 120))
    build("y ~ x + (1 | row)", data, known=["row"])
    with pytest.raises(IdentifiabilityError):
        build("y ~ x + (1 | row)", data, weights=np.full(120, 2.0))


def test_more_columns_than_observations():
    data = {"y": [1.0, 2.0, 4.0, 3.0], "f": ["a", "b", "c", "d"], "g": [1, 1, 2, 2]}
    with pytest.raises(IdentifiabilityError, match="4 columns for 4 observations"):
        build("y ~ f + (1 | g)", data)


@pytest.mark.parametrize(
    ("formula", "note"),
    [
        ("y ~ x + (1 | g) + (0 + f | g)", "overlap in the intercept"),
        ("y ~ x + (1 | g) + (x | g)", "overlap in the intercept"),
        ("y ~ x + (0 + x | g) + (x || g)", "overlap in x"),
        ("y ~ x + (1 | g) + (0 + x | g)", None),
        ("y ~ x + (x | g) + (x | h)", None),
    ],
)
def test_overlapping_terms_are_noted(formula, note):
    messages = [m for m in build(formula, DATA).messages if "overlap" in m]
    assert len(messages) == (note is not None)
    if note:
        assert note in messages[0]


def nested_looking():
    rows = [(b, c, r) for b in "ABCDEFGHIJ" for c in "abc" for r in range(2)]
    data = pd.DataFrame(rows, columns=["batch", "cask", "r"])
    return data.assign(y=RNG.normal(size=len(data)), sample=data.batch + data.cask)


@pytest.mark.parametrize(
    ("formula", "noted"),
    [
        ("y ~ 1 + (1 | batch) + (1 | cask)", True),
        ("y ~ 1 + (1 | cask) + (1 | batch)", True),
        ("y ~ 1 + (1 | batch/cask)", False),
        ("y ~ 1 + (1 | batch) + (1 | sample)", False),
        ("y ~ 1 + (1 | batch) + (1 | cask) + (1 | batch:cask)", False),
    ],
)
def test_labels_that_start_anew_are_noted(formula, noted):
    messages = build(formula, nested_looking()).messages
    assert any("write (1 | batch/cask)" in m for m in messages) == noted


def test_crossed_factors_are_not_taken_for_nested():
    plates = pd.DataFrame([(p, s) for p in range(24) for s in "ABCDEF"], columns=["plate", "sample"])
    plates["y"] = RNG.normal(size=144)
    assert build("y ~ 1 + (1 | plate) + (1 | sample)", plates).messages == ()
    assert not any("nested" in m for m in build("y ~ x + (1 | g) + (1 | h)", DATA).messages)


def test_group_columns_of_any_type():
    g = DATA.g.to_numpy()
    expected = build("y ~ x + (1 | g)", DATA).design.terms[0].codes
    for column in (
        g.astype(np.int8 if g.max() < 127 else np.int16),
        g.astype(np.uint64),
        g.astype(float),
        g.astype(str),
        g.astype(str).astype(object),
        pd.Categorical(g, [*range(290, 320)]),
        pd.array(g, dtype="Int32"),
        g.astype("M8[D]"),
        g + 0.5,
        [f"{v}" for v in g],
    ):
        term = build("y ~ x + (1 | g)", {"y": DATA.y, "x": DATA.x, "g": column}).design.terms[0]
        np.testing.assert_array_equal(term.codes, expected)
        assert term.m == 8
    flags = build("y ~ x + (1 | g)", {"y": DATA.y, "x": DATA.x, "g": g > 304}).design.terms[0]
    assert list(flags.levels) == ["FALSE", "TRUE"]


def test_options_are_checked():
    with pytest.raises(OptionError, match="na_action"):
        build("y ~ x + (1 | g)", DATA, na_action="pass")
    with pytest.raises(DataError, match="weights must be a column name or an array"):
        build("y ~ x + (1 | g)", DATA, weights=lambda d: d)


def test_a_formula_object_and_columns_may_be_given():
    formula = parse("y ~ x + (1 | g)")
    frame = build(formula, Columns(DATA))
    assert frame.formula is formula and frame.backend == "pandas"


def test_users_functions():
    frame = build("y ~ shift(x) + (1 | g)", DATA, functions={"shift": lambda x: x + 10.0})
    np.testing.assert_array_equal(frame.design.X[:, 1], DATA.x + 10.0)
    new = frame.new_data({"x": [1.0], "g": [301]})
    assert new.X.tolist() == [[1.0, 11.0]]
