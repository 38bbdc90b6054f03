"""The compiled criterion of structured residuals against the one in whitened rows."""

from __future__ import annotations

import numpy as np
import pytest

from mixedmodels.fit.solve import Options, make_frame
from mixedmodels.objective.structured import StructuredObjective
from mixedmodels.solver import profiled
from mixedmodels.solver.profiled import FirstOrderLevels, ProfiledLevels, TableLevels

FIRST_ORDER = [
    "ar1(t | g)",
    "ar1(1 | g)",
    "car1(s | g)",
    "ad(t4 | h)",
    "varident(sex)",
    "varpower(x)",
    "varexp(x, by=sex)",
    "ar1(t | g) * varident(sex)",
    "car1(s | g) * varpower(x) * varfixed(w)",
    "ar1(t | g) * varconstpower(x)",
    "ar1(t | g, rho=0.3) * varident(sex)",
]
BY_TABLE = ["gau(s | g, nugget=True)", "arma(t | g, p=1, q=1)", "gau(s | g) * varpower(x) * varident(sex)"]
OTHERS = ["cs(1 | g)", "ar1(t | g, by=arm) * varexp(x)"]


def random_frame(seed):
    """Rows in random order: series g, h within levels m; integer times with gaps, real times."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 8, 12)
    g = np.repeat(np.arange(12), sizes)
    t = np.concatenate([rng.choice(9, size, replace=False) for size in sizes])
    n = g.size
    order = rng.permutation(n)
    g, t = g[order], t[order]
    data = {
        "g": g,
        "m": g // 2,
        "t": t,
        "t4": t % 4,
        "h": 10 * g + t // 4,  # series of at most four visits
        "s": t + rng.uniform(-0.3, 0.3, n),
        "x": np.round(rng.uniform(0.5, 3.0, n), 1),
        "w": rng.uniform(0.5, 2.0, n),
        "sex": np.where(rng.integers(0, 2, n) == 0, "F", "M"),
        "arm": np.where(g % 2 == 0, "a", "b"),
    }
    data["y"] = rng.normal(size=12)[g] + 0.5 * data["x"] + rng.normal(size=n)
    return data


def both(text, formula, seed=1, **keywords):
    """Two objectives of one model: compiled, and in whitened rows."""
    options = {name: keywords.pop(name) for name in ("weights",) if name in keywords}
    design = make_frame(formula, random_frame(seed), Options(residual=text, **options)).design
    compiled, plain = (StructuredObjective(design, **keywords) for _ in range(2))
    plain.__dict__["compiled"] = None
    assert compiled.compiled is not None
    rng = np.random.default_rng(seed)
    psi = compiled.start + rng.uniform(0.05, 0.4, compiled.n_theta)
    return compiled, plain, psi


def assert_same(compiled, plain, psi):
    for one, other in zip(compiled.exact(psi), plain.exact(psi), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-9)
    pairs = zip(compiled.information_and_changes(psi), plain.information_and_changes(psi), strict=True)
    for one, other in pairs:
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-9)
    assert compiled.value(psi) == pytest.approx(plain.value(psi), rel=1e-12)
    assert compiled.sigma(psi) == pytest.approx(plain.sigma(psi), rel=1e-12)
    mine, theirs = compiled.solution(psi), plain.solution(psi)
    np.testing.assert_allclose(mine.beta, theirs.beta, rtol=1e-10)
    for one, other in zip(mine.b, theirs.b, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-11)
    assert mine.logdet_L2 == pytest.approx(theirs.logdet_L2, rel=1e-12)


@pytest.mark.parametrize("formula", ["y ~ x", "y ~ x + (x | m)", "y ~ 0 + (1 | m)"])
@pytest.mark.parametrize("text", FIRST_ORDER)
def test_first_order(text, formula):
    objectives = both(text, formula)
    assert isinstance(objectives[0].compiled, FirstOrderLevels)
    assert_same(*objectives)


@pytest.mark.parametrize("formula", ["y ~ x", "y ~ x + (x | m)", "y ~ 0 + (1 | m)"])
@pytest.mark.parametrize("text", BY_TABLE)
def test_tables(text, formula):
    objectives = both(text, formula)
    assert type(objectives[0].compiled) is TableLevels
    assert_same(*objectives)


@pytest.mark.parametrize("formula", ["y ~ x", "y ~ x + (x | m)"])
@pytest.mark.parametrize("text", OTHERS)
def test_whitened_columns(text, formula):
    objectives = both(text, formula)
    assert type(objectives[0].compiled) is ProfiledLevels
    assert_same(*objectives)


@pytest.mark.parametrize("keywords", [{"reml": False}, {"sigma": 1.3}, {"weights": "w"}])
@pytest.mark.parametrize("text", ["ar1(t | g) * varident(sex)", "cs(1 | g)", BY_TABLE[2]])
def test_options(text, keywords):
    assert_same(*both(text, "y ~ x + (1 | m) + (0 + x | m)", **keywords))


@pytest.mark.parametrize("text", ["ar1(t | g)", "ar1(t | g) * varident(sex)"])
@pytest.mark.parametrize("formula", ["y ~ x", "y ~ x + (1 | m)", "y ~ x + (x | m)"])
def test_sums_by_class_are_those_of_the_rows(monkeypatch, text, formula):
    """Equal coefficients are met once: the sums of a class, or the rows one by one."""
    compiled, plain, psi = both(text, formula, seed=3)
    engine = compiled.compiled
    counts = []
    for most in (0.0, 100.0):  # numbers that sums may take for each number of the data
        monkeypatch.setattr(profiled, "_SUMS", most)
        own = FirstOrderLevels(engine._of, engine.residual)
        counts.append(own.n_segments)
        compiled.__dict__["compiled"], compiled._profiled = own, None
        assert_same(compiled, plain, psi)
    assert counts[1] < counts[0] == engine.residual.order.shape[0]


def test_large_structures_keep_the_general_way():
    design = make_frame("y ~ x", random_frame(1), Options(residual="us(t4 | h)")).design
    assert StructuredObjective(design).compiled is None
