"""Random data for residual structures: unsorted rows, unequal groups, gaps, groups of one row."""

from __future__ import annotations

import numpy as np
import pytest

from mixedmodels.residual import ResidualData, code_values

SIZES = (5, 1, 4, 5, 3, 6, 5, 2, 5, 4)


def random_data(seed):
    """Rows in random order; columns t (0 .. 6, gaps), s (real times), v (visits), x, y, w, g, sex, arm."""
    rng = np.random.default_rng(seed)
    g = np.repeat(np.arange(len(SIZES)), SIZES)
    t = np.concatenate([rng.choice(7, size, replace=False) for size in SIZES]).astype(float)
    v = np.concatenate([rng.choice(6, size, replace=False) for size in SIZES])
    order = rng.permutation(g.size)
    g, t, v = g[order], t[order], v[order]
    n = g.size
    numbers = {
        "t": t,
        "s": t + rng.uniform(-0.3, 0.3, n),
        "x": rng.uniform(0.0, 5.0, n),
        "y": rng.uniform(0.0, 3.0, n),
        "w": rng.uniform(0.5, 2.0, n),
        "z": rng.normal(size=n),
    }
    arm, sex = np.where(g % 2 == 0, "a", "b"), np.where(g % 3 == 0, "F", "M")
    f = np.arange(n) % 3
    factors = {
        "g": code_values(g),
        "v": code_values(v),
        "t": code_values(t.astype(int)),
        "sex": code_values(sex),
        "arm": code_values(arm),
        "f": code_values(f),
        "sex:f": code_values([f"{a}:{b}" for a, b in zip(sex, f, strict=True)]),
        "v:arm": code_values([f"{a}:{b}" for a, b in zip(v, arm, strict=True)]),
    }
    return ResidualData(n, numbers, factors)


@pytest.fixture(scope="package")
def data():
    return random_data(1)
