"""Every random-effect structure with every residual structure: engines against dense matrices."""

from __future__ import annotations

import numpy as np
import pytest

from .matrix_models import RANDOM, RESIDUAL, a_psi, model, oracle_of

CELLS = [
    (random, residual) for random in RANDOM for residual in RESIDUAL if (random, residual) != ("none",) * 2
]
FEW = ("ar1", "exp nugget", "us", "known", "arma", "varident", "none")
SINGULAR = ("scalar", "us", "rr", "cs", "crossed", "crossed ar1", "known slopes", "joint codes")
# The normal set: each random part with a residual of its own turn, each residual in three groupings.
TURNS = [(random, FEW[i % len(FEW)]) for i, random in enumerate(RANDOM) if random != "none"]
TURNS += [(random, r) for r in RESIDUAL for random in ("scalar", "crossed ar1", "joint codes and crossed")]


def compare(name, ours, theirs, tolerance=1e-9):
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape, name
    scale = max(float(np.abs(theirs).max(initial=0.0)), 1.0)
    assert np.abs(ours - theirs).max(initial=0.0) <= tolerance * scale, name


def check(random, residual, turn, singular=False):
    """Criterion, derivatives, informations and estimates of one cell; options take turns."""
    objective = model(
        random,
        residual,
        reml=bool(turn // 3 % 2),
        sigma=(None, None, 0.8)[turn % 3],
        weights=(None, "w")[turn // 2 % 2],
        offset=(None, "o")[turn // 5 % 2],
        seed=turn,
    )
    psi = a_psi(objective, turn, singular)
    oracle = oracle_of(objective, psi)
    value, gradient = objective.value_and_gradient(psi)
    compare("value", value, oracle.value, 1e-11)
    compare("gradient", gradient, oracle.gradient)
    for kind in ("average", "expected", "observed"):
        compare(kind, objective.joint_information(psi, kind), oracle.joint_information(kind))
        compare(kind, objective.information(psi, kind), oracle.information(kind))
    solution = objective.solution(psi)
    compare("beta", solution.beta, oracle.beta)
    compare("vcov", solution.vcov_unscaled, oracle.vcov_unscaled)
    compare("pwrss", solution.pwrss, oracle.pwrss)
    if hasattr(objective, "fixed_products"):
        fixed = objective.fixed_products(psi)
    else:
        fixed = objective.solver.fixed_products(objective.factors(psi), objective.directions(psi))
    basis = np.eye(objective.design.p) if fixed.basis is None else fixed.basis
    one, two = oracle.fixed_products()
    compare("XVX", fixed.XVX, basis.T @ oracle.XVX @ basis)
    compare("HDH", fixed.HDH, basis.T @ one @ basis)
    compare("HDKDH", fixed.HDKDH, basis.T @ two @ basis)
    C = oracle.vcov_unscaled
    compare("changes", objective.information_and_changes(psi)[1], C @ one @ C)
    _, again, H = objective.newton(psi)
    compare("gradient of Newton's step", again, oracle.gradient)
    assert np.linalg.eigvalsh(H).min(initial=0.0) > -1e-9 * max(np.abs(H).max(initial=0.0), 1.0)


@pytest.mark.parametrize(("random", "residual"), TURNS)
def test_turns(random, residual):
    check(random, residual, CELLS.index((random, residual)))


@pytest.mark.parametrize("residual", ["ar1", "car1 across", "none"])
@pytest.mark.parametrize(
    "random", ["scalar", "us", "rr", "cs", "crossed", "crossed ar1", "known slopes", "joint codes"]
)
def test_zero_variances(random, residual):
    """At factors of deficient rank nothing depends on what was asked before."""
    for turn in (0, 3):
        check(random, residual, turn, singular=True)


@pytest.mark.slow
@pytest.mark.parametrize("singular", [False, True])
@pytest.mark.parametrize("random", RANDOM)
def test_all(random, singular):
    for turn, cell in enumerate(CELLS):
        if cell[0] == random:
            check(*cell, turn, singular)


@pytest.mark.parametrize(
    ("random", "residual"),
    [("us", "arma"), ("crossed ar1", "product"), ("mat", "us"), ("joint codes", "sph")],
)
def test_dense_formulae_against_differences(random, residual):
    """The derivatives of the dense formulae are those of their criterion."""
    objective = model(random, residual, seed=2)
    psi = a_psi(objective, 2)
    weights, h = np.array([4 / 5, -1 / 5, 4 / 105, -1 / 280]), 1e-3

    def along(function):
        out = []
        for i in range(psi.size):
            e = h * (np.arange(psi.size) == i)
            steps = enumerate(weights, start=1)
            out.append(sum(w * (function(psi + k * e) - function(psi - k * e)) / h for k, w in steps))
        return np.array(out)

    oracle = oracle_of(objective, psi)
    compare("gradient", oracle.gradient, along(lambda x: oracle_of(objective, x, 0).value), 1e-8)
    compare("Hessian", oracle.information(), along(lambda x: oracle_of(objective, x, 1).gradient), 1e-7)
