"""Result tables as text and HTML: long ones by their ends, families under headings."""

from __future__ import annotations

import numpy as np
import pytest

import mixedmodels as mm
from mixedmodels.inference.table import result_table


@pytest.fixture(scope="module")
def long_table():
    return result_table("Long", {"row": np.arange(5000), "estimate": np.linspace(0.5, 9.5, 5000)}, ["a note"])


def test_long_tables_show_both_ends(long_table):
    lines = str(long_table).split("\n")
    assert len(lines) == 1 + 1 + 30 + 1 + 10 + 1
    assert lines[2].split()[0] == "0" and lines[31].split()[0] == "29"
    assert lines[32] == "... 5,000 rows in all, the first 30 and the last 10 shown; to_frame() has them all"
    assert lines[33].split()[0] == "4990" and lines[-1] == "a note"


def test_long_tables_in_html(long_table):
    html = long_table.to_html()
    assert html.count("<tr>") == 1 + 30 + 1 + 10
    assert "5,000 rows in all" in html and html.count("<li>a note</li>") == 1


def test_files_hold_every_row(long_table):
    assert long_table.to_markdown().count("\n|") == 5000 + 2  # and two lines of head
    assert long_table.to_latex().count(r" \\") == 5000 + 1


def test_tables_of_two_hundred_rows_are_whole():
    assert "rows in all" not in str(result_table("T", {"row": np.arange(200)}))
    assert "rows in all" in str(result_table("T", {"row": np.arange(201)}))


def test_families_stand_under_headings():
    fit = mm.lmm("angle ~ recipe * temp + (1 | recipe:replicate)", mm.load_dataset("cake", backend="dict"))
    means = fit.emmeans("temp | recipe", at={"temp": [175, 200]}, ddf="z")
    text = str(means)
    assert [line for line in text.split("\n") if line.endswith(":")] == [
        "recipe = A:", "recipe = B:", "recipe = C:",
    ]  # fmt: skip
    assert text.count("temp estimate std_error") == 3
    assert "recipe" in means.to_markdown().split("\n")[2]
    assert "recipe = A" not in str(fit.emmeans("recipe", ddf="z"))
