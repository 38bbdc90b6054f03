"""Reading pedigrees from frames: what is understood, and one clear error for everything impossible."""

from __future__ import annotations

import numpy as np
import pandas as pd
import polars as pl
import pytest

from mixedmodels.errors import DataError, OptionError
from mixedmodels.genetics import Pedigree

TRIO = {"id": ["c", "a", "b"], "sire": ["a", "0", None], "dam": ["b", "", "NA"]}


def rows(ped):
    """Parents by label."""
    names = [*map(str, ped.ids), "-"]
    return {str(i): (names[s], names[d]) for i, s, d in zip(ped.ids, ped.sire, ped.dam, strict=True)}


def test_rows_may_come_in_any_order_and_keep_it():
    ped = Pedigree.from_frame(TRIO)
    assert ped.ids.tolist() == ["c", "a", "b"]
    assert rows(ped) == {"c": ("a", "b"), "a": ("-", "-"), "b": ("-", "-")}
    assert ped.generation.tolist() == [1, 0, 0]
    assert ped.sex.tolist() == [0, 1, 2]  # from the roles
    assert ped.order.tolist() == [1, 2, 0]


@pytest.mark.parametrize("make", [pd.DataFrame, pl.DataFrame, dict], ids=["pandas", "polars", "dict"])
@pytest.mark.parametrize("unknown", [None, 0], ids=["missing", "zero"])
def test_integer_ids_stay_integers_whatever_the_frame(make, unknown):
    ped = Pedigree.from_frame(
        make({"id": [11, 12, 13], "sire": [unknown, unknown, 11], "dam": [unknown, unknown, 12]})
    )
    assert ped.ids.dtype.kind == "i"
    assert rows(ped) == {"11": ("-", "-"), "12": ("-", "-"), "13": ("11", "12")}
    assert ped.index(["13", 11]).tolist() == [2, 0]  # texts of numbers are the same labels


@pytest.mark.parametrize("kind", ["Int64", "int64[pyarrow]", "string", "string[pyarrow]", "category"])
def test_pandas_column_types(kind):
    texts = kind.startswith("string") or kind == "category"
    known, gap = (["11", "12", "13"], None) if texts else ([11, 12, 13], pd.NA)
    frame = pd.DataFrame(
        {
            "id": pd.Series(known, dtype=kind),
            "sire": pd.Series([gap, gap, known[0]], dtype=kind),
            "dam": pd.Series([gap, gap, known[1]], dtype=kind),
        }
    )
    ped = Pedigree.from_frame(frame)
    assert rows(ped) == {"11": ("-", "-"), "12": ("-", "-"), "13": ("11", "12")}
    assert ped.ids.dtype.kind == ("O" if texts else "i")


def test_a_lazy_frame_and_an_arrow_table():
    frame = pl.DataFrame(TRIO)
    assert (
        rows(Pedigree.from_frame(frame.lazy()))
        == rows(Pedigree.from_frame(frame.to_arrow()))
        == rows(Pedigree.from_frame(TRIO))
    )


def test_ids_of_texts_with_parents_that_were_read_as_numbers():
    ped = Pedigree.from_frame({"id": ["1", "2", "x"], "sire": [0, 0, 1], "dam": [0.0, np.nan, 2.0]})
    assert rows(ped)["x"] == ("1", "2")


def test_a_categorical_column():
    frame = pd.DataFrame({k: pd.Categorical(v) for k, v in TRIO.items()})
    assert rows(Pedigree.from_frame(frame)) == rows(Pedigree.from_frame(TRIO))


def test_parents_without_a_row_become_founders_with_a_note_or_are_refused():
    data = {"id": ["c", "d"], "sire": ["a", "a"], "dam": ["b", "e"]}
    ped = Pedigree.from_frame(data)
    assert ped.ids.tolist() == ["c", "d", "a", "b", "e"]
    assert ped.notes == ("3 parents without a row of their own added as founders: 'a', 'b', 'e'",)
    with pytest.raises(DataError, match="3 parents have no row of their own: 'a', 'b', 'e'; add the rows"):
        Pedigree.from_frame(data, missing_parents="error")


def test_one_known_parent_is_allowed():
    ped = Pedigree.from_frame({"id": ["a", "b"], "sire": ["", "a"], "dam": ["", ""]})
    assert ped.is_founder.tolist() == [True, False]
    np.testing.assert_allclose(ped.additive().toarray(), [[1, 0.5], [0.5, 1]])


def test_repeated_rows_are_dropped_with_a_note():
    ped = Pedigree.from_frame({"id": [1, 2, 3, 3], "sire": [0, 0, 1, 1], "dam": [0, 0, 2, 2]})
    assert len(ped) == 3
    assert ped.notes == ("1 repeated row dropped: '3'",)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            {"id": ["a", "b", "c"], "sire": ["c", "a", "b"], "dam": ["", "", ""]},
            r"individual 'a' is its own ancestor: 'a' <- 'c' <- 'b' <- 'a' \(parent on the right\)",
        ),
        ({"id": ["a"], "sire": ["a"], "dam": [""]}, "individual 'a' is its own sire"),
        ({"id": ["a"], "sire": [""], "dam": ["a"]}, "individual 'a' is its own dam"),
        (
            {"id": ["a", "b", "c", "d"], "sire": ["", "", "a", "b"], "dam": ["", "", "b", "c"]},
            "individual 'b' is sire of 'd' and dam of 'c'; correct the pedigree, or check_sexes=False",
        ),
        (
            {"id": ["a", "c"], "sire": ["", "a"], "dam": ["", ""], "sex": ["F", "M"]},
            "individual 'a' is female but the sire of 'c'; correct the sex or the parents",
        ),
        (
            {"id": ["a", "c"], "sire": ["", ""], "dam": ["", "a"], "sex": [1, 2]},
            "individual 'a' is male but the dam of 'c'",
        ),
        (
            {"id": ["a", "b", "c", "c"], "sire": ["", "", "a", "b"], "dam": ["", "", "", ""]},
            "individual 'c' has two rows with different sires: a and b; keep the right one",
        ),
        (
            {"id": ["a", "a"], "sire": ["", ""], "dam": ["", ""], "sex": [1, 2]},
            "individual 'a' has two rows with different sexes: male and female",
        ),
        ({"id": ["a", None], "sire": ["", ""], "dam": ["", ""]}, "row 2 of the pedigree has no id"),
        (
            {"id": [0, 1], "sire": [0, 0], "dam": [0, 0]},
            "the id '0' in column 'id' also stands for an unknown",
        ),
        ({"id": [1.5, 2], "sire": [0, 0], "dam": [0, 0]}, "column 'id' holds 1.5, which is no id"),
    ],
)
def test_what_is_impossible_is_said_with_the_individual(data, message):
    with pytest.raises(DataError, match=message):
        Pedigree.from_frame(data, sex="sex" if "sex" in data else None)


def test_a_long_loop_is_shown_in_part():
    n = 30
    ids = [f"i{k}" for k in range(n)]
    with pytest.raises(DataError, match=r"'i0' is its own ancestor: .* <- \.\.\. <- .* <- 'i0'"):
        Pedigree.from_frame({"id": ids, "sire": [ids[(k + 1) % n] for k in range(n)], "dam": [""] * n})


def test_a_loop_with_innocent_descendants_names_the_loop():
    data = {"id": ["x", "y", "a", "b"], "sire": ["a", "x", "b", "a"], "dam": ["", "", "", ""]}
    with pytest.raises(DataError, match="'a' <- 'b' <- 'a'"):
        Pedigree.from_frame(data)


def test_an_id_zero_is_allowed_when_it_is_not_the_unknown_one():
    ped = Pedigree.from_frame({"id": [0, 1], "sire": [-1, 0], "dam": [-1, -1]}, unknown=["-1"])
    assert rows(ped) == {"0": ("-", "-"), "1": ("0", "-")}


def test_selfing_and_hermaphrodites_on_request():
    data = {"id": ["a", "b", "c"], "sire": ["", "a", "b"], "dam": ["", "a", "a"]}
    with pytest.raises(DataError, match="individual 'a' is sire and dam of 'b'"):
        Pedigree.from_frame(data)
    ped = Pedigree.from_frame(data, check_sexes=False)
    np.testing.assert_allclose(ped.inbreeding, [0, 0.5, 0.5])


def test_sexes_coded_in_another_way():
    data = {"id": ["a", "b", "c"], "sire": ["", "", "a"], "dam": ["", "", "b"], "sex": ["0", "1", "1"]}
    with pytest.raises(DataError, match="sex_labels="):
        Pedigree.from_frame(data, sex="sex")
    assert Pedigree.from_frame(data, sex="sex", sex_labels=("0", "1")).sex.tolist() == [1, 2, 2]


def test_families_are_separate():
    data = {
        "fam": ["A", "A", "A", "B", "B", "B"],
        "id": [1, 2, 3, 1, 2, 3],
        "sire": [0, 0, 1, 0, 0, 1],
        "dam": [0, 0, 2, 0, 0, 2],
    }
    ped = Pedigree.from_frame(data, family="fam")
    assert ped.ids.tolist() == ["A:1", "A:2", "A:3", "B:1", "B:2", "B:3"]
    A = ped.additive().toarray()
    assert not A[:3, 3:].any()
    np.testing.assert_allclose(A[:3, :3], [[1, 0, 0.5], [0, 1, 0.5], [0.5, 0.5, 1]])
    one = ped.family_of("B")
    assert one.ids.tolist() == ["B:1", "B:2", "B:3"] and one.sire.tolist() == [-1, -1, 0]


def test_ids_that_are_unique_over_families_stay_short():
    data = {"fam": [1, 1, 2], "id": ["a", "b", "c"], "sire": ["", "a", ""], "dam": ["", "", ""]}
    assert Pedigree.from_frame(data, family="fam").ids.tolist() == ["a", "b", "c"]


def test_a_parent_in_another_family_is_an_error():
    data = {"fam": ["A", "B"], "id": ["a", "b"], "sire": ["", "a"], "dam": ["", ""]}
    with pytest.raises(DataError, match="parent 'a' of individual 'b of family B' belongs to family A"):
        Pedigree.from_frame(data, family="fam")


def test_options_and_unknown_individuals():
    ped = Pedigree.from_frame(TRIO)
    with pytest.raises(OptionError, match='choose "add" or "error"'):
        Pedigree.from_frame(TRIO, missing_parents="drop")
    with pytest.raises(DataError, match="the pedigree has no individual 'zz'"):
        ped.index(["a", "zz"])
    with pytest.raises(OptionError, match="has no families"):
        ped.family_of("A")
    with pytest.raises(DataError, match="no column 'father'"):
        Pedigree.from_frame(TRIO, sire="father")


def test_an_empty_pedigree():
    ped = Pedigree.from_frame({"id": [], "sire": [], "dam": []})
    assert len(ped) == 0 and ped.inbreeding.shape == (0,)


def test_lines_and_relatives(textbook):
    ped = textbook["charlesii"]
    assert ped.matriline("CharlesIISpain").tolist() == [
        "CharlesIISpain", "MarianaAustria", "MariaAnnaSpain", "MargaretAustria", "MariaAnnaBavariaI",
        "AnnaAustriaArch", "AnnaBohemia",
    ]  # fmt: skip
    assert ped.patriline("CharlesIISpain").tolist() == [
        "CharlesIISpain", "PhilipIVSpain", "PhilipIIISpain", "PhilipIISpain", "CharlesVHRE",
        "PhilipICastille",
    ]  # fmt: skip
    assert set(ped.ids) - set(ped.ancestors("CharlesIISpain")) == {
        "CharlesIISpain", "IsabellaAustria", "ChristianIIDenmark", "ChristinaDenmark", "FrancisILorraine",
    }  # fmt: skip
    assert set(ped.descendants("PhilipIIISpain")) == {
        "PhilipIVSpain", "MariaAnnaSpain", "MarianaAustria", "CharlesIISpain",
    }  # fmt: skip
    assert ped.siblings("PhilipIISpain").tolist() == ["MariaSpain"]
    common = ped.common_ancestors("PhilipIVSpain", "MarianaAustria")
    assert "MargaretAustria" in common and "RenataLorraine" not in common
    assert ped.common_ancestors("PhilipIIISpain", "MariaAnnaSpain").tolist().count("PhilipIIISpain") == 1


def test_half_siblings(textbook):
    ped = textbook["half_sibs"]
    assert ped.siblings(4).tolist() == []
    assert [str(i) for i in ped.siblings(4, half=True)] == ["5"]


def test_taking_rows_makes_absent_parents_unknown(inbred):
    part = inbred.take(np.array([139, 0, 5]))
    assert part.ids.tolist() == [140, 1, 6]
    assert part.is_founder.all()


def test_genetic_groups():
    """By hand: c is half of each line, d a quarter by its dam and all of a new animal of line B by its
    sire.
    """
    ped = Pedigree.from_frame(
        {"id": ["a", "b", "c", "d"], "sire": ["", "", "a", ""], "dam": ["", "", "b", "c"]}
    )
    shares, labels = ped.group_shares(["A", "B", None, "B"])
    assert labels.tolist() == ["A", "B"]
    np.testing.assert_array_equal(shares, [[1, 0], [0, 1], [0.5, 0.5], [0.25, 0.75]])
    with pytest.raises(DataError, match="individual 'b' has an unknown parent and no group"):
        ped.group_shares(["A", None, None, "B"])
    with pytest.raises(DataError, match="one label for each of the 4 individuals"):
        ped.group_shares(["A"])


def test_shares_of_groups_add_up_to_one(mixed):
    groups = np.random.default_rng(0).choice(["x", "y", "z"], len(mixed))
    shares, _ = mixed.group_shares(groups)
    np.testing.assert_allclose(shares.sum(axis=1), 1.0)
    A = mixed.additive().toarray()
    by_founder, labels = mixed.group_shares(mixed.ids)
    both = {str(i): k for k, i in enumerate(mixed.ids) if mixed.is_founder[k]}
    for column, label in enumerate(labels):
        if label in both:  # the relationship with a founder is its share
            np.testing.assert_allclose(by_founder[:, column], A[:, both[label]], atol=1e-14)
