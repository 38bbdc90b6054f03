"""Containment degrees of freedom of designs whose answers are in every textbook."""

from __future__ import annotations

import numpy as np
import pytest

import mixedmodels as mm
from mixedmodels.inference.ddf.containment import rank_contributions


def df_of(formula, name):
    fit = mm.lmm(formula, mm.load_dataset(name, backend="pandas"))
    return dict(zip(fit.design.x_names, fit.coefficients("containment")["df"].tolist(), strict=True))


def test_slopes_and_intercepts():
    both = df_of("Reaction ~ Days + (Days | Subject)", "sleepstudy")
    assert both == {"(Intercept)": 17.0, "Days": 17.0}
    intercepts = df_of("Reaction ~ Days + (1 | Subject)", "sleepstudy")
    assert intercepts == {"(Intercept)": 17.0, "Days": 180.0 - 19.0}


def test_whole_plots_and_split_plots():
    """Recipe is tested between the 45 replicates, temperature within."""
    data = mm.load_dataset("cake", backend="pandas")
    table = mm.lmm("angle ~ recipe * temperature + (1 | recipe:replicate)", data).anova(3, "containment")
    assert table["den_df"].tolist() == [42.0, 210.0, 210.0]


def test_a_contrast_takes_the_smallest():
    data = mm.load_dataset("cake", backend="pandas")
    fit = mm.lmm("angle ~ recipe * temperature + (1 | recipe:replicate)", data)
    assert fit.test("recipeB + temperature.L", ddf="containment")["den_df"].tolist() == [42.0]


def test_ranks_are_those_of_the_matrices():
    rng = np.random.default_rng(4)
    n = 60
    g, h = rng.integers(0, 7, n), rng.integers(0, 5, n)
    x = rng.normal(size=n)
    X = np.column_stack([np.ones(n), x, h == 1])
    blocks = [(g, np.ones((n, 1)), 7), (h, np.column_stack([np.ones(n), x]), 5), (g, x[:, None], 7)]
    added, rank = rank_contributions(X.astype(float), [(c.astype(np.int32), Z, m) for c, Z, m in blocks])
    whole, counts = X.astype(float), []
    for codes, Z, m in blocks:
        dummies = np.eye(m)[codes]
        wide = np.hstack([whole, *[dummies * z[:, None] for z in Z.T]])
        counts.append(np.linalg.matrix_rank(wide) - np.linalg.matrix_rank(whole))
        whole = wide
    assert added == counts and rank == np.linalg.matrix_rank(whole)


def test_mistakes_are_named():
    rng = np.random.default_rng(0)
    codes = np.repeat(np.arange(4500, dtype=np.int32), 2)
    with pytest.raises(mm.OptionError, match=r"containment.*satterthwaite"):
        rank_contributions(np.ones((9000, 1)), [(codes, rng.normal(size=(9000, 1)), 4500)])
