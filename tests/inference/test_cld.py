"""Compact letter displays."""

import numpy as np
import pytest

import mixedmodels as mm
from mixedmodels.inference.means.cld import letters


def matrix(k, pairs):
    out = np.zeros((k, k), dtype=bool)
    for i, j in pairs:
        out[i, j] = True
    return out


def test_simple_patterns():
    assert letters(matrix(3, [])) == ["a", "a", "a"]
    assert letters(matrix(3, [(0, 1), (0, 2), (1, 2)])) == ["a", "b", "c"]
    assert letters(matrix(4, [(0, 3)])) == ["a", "ab", "ab", "b"]
    assert letters(matrix(4, [(0, 2), (0, 3), (1, 3)])) == ["a", "ab", "bc", "c"]


@pytest.mark.parametrize("seed", range(25))
def test_letters_say_exactly_which_pairs_differ(seed):
    """Any pattern, also one that no order of means explains."""
    rng = np.random.default_rng(seed)
    k = int(rng.integers(2, 9))
    significant = np.triu(rng.random((k, k)) < rng.uniform(0.1, 0.9), 1)
    shown = letters(significant)
    for i in range(k):
        for j in range(i + 1, k):
            assert bool(set(shown[i]) & set(shown[j])) != significant[i, j]
    used = sorted(set("".join(shown)))
    columns = [{i for i in range(k) if letter in shown[i]} for letter in used]
    assert not any(a < b for a in columns for b in columns)


def test_letters_of_means():
    fit = mm.lmm("yield ~ nitro + Variety + (1 | Block/Variety)", oats())
    means = fit.emmeans("nitro", cov_reduce=False)
    table = means.cld()
    p = means.pairs()["p_value"]
    assert (p < 0.05).all() and table["group"].tolist() == ["a", "b", "c", "d"]
    assert means.cld(reverse=True)["nitro"].tolist() == [0.6, 0.4, 0.2, 0.0]
    varieties = fit.emmeans("Variety").cld()
    assert varieties["group"].tolist() == ["a"] * 3
    assert np.diff(varieties["estimate"]).min() > 0
    assert any("does not show that they are equal" in note for note in varieties.notes)
    strict = fit.emmeans("Variety").cld(alpha=0.3, adjust="none")
    assert strict["group"].tolist() == ["a", "ab", "b"]


def test_letters_within_groups_and_empty_cells():
    data = {"A": list("xyz") * 20, "B": ["u"] * 30 + ["v"] * 30, "g": [f"g{i % 7}" for i in range(60)]}
    rng = np.random.default_rng(0)
    keep = [i for i in range(60) if not (data["A"][i] == "z" and data["B"][i] == "v")]
    data = {name: [values[i] for i in keep] for name, values in data.items()}
    data["y"] = rng.normal(size=len(keep)) + np.array([4.0 * (a == "y") for a in data["A"]])
    table = mm.lmm("y ~ A * B + (1 | g)", data).emmeans("A | B").cld()
    assert table["B"].tolist() == ["u"] * 3 + ["v"] * 3
    assert table["group"].tolist() == ["a", "a", "b", "a", "b", ""]
    assert np.isnan(table["estimate"][-1]) and table["A"][-1] == "z"


def oats():
    import json
    from pathlib import Path

    from mixedmodels.testing.reference_data import read_reference_table

    folder = Path(__file__).parents[1] / "references" / "data"
    assert "Oats" in json.loads((folder / "columns.json").read_text(encoding="utf-8"))
    return read_reference_table(folder, "Oats")
