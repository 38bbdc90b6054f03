"""Models of every kind for tests: random and residual structures, groupings, weights, offset."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

import mixedmodels as mm
from mixedmodels.covariance import make_covariance
from mixedmodels.design import Design, RandomTerm
from mixedmodels.fit.known import read_known
from mixedmodels.fit.solve import Options, make_objective
from mixedmodels.frame.build import build
from mixedmodels.solver.covariance_oracle import CovarianceOracle
from mixedmodels.testing import dense_residual

__all__ = ["RANDOM", "RESIDUAL", "a_psi", "grid_data", "model", "oracle_of"]


def _spd(m: int, seed: int) -> np.ndarray:
    A = np.random.default_rng(seed).normal(size=(m, m))
    return A @ A.T / m + np.eye(m)


def grid_data(seed: int = 0, groups: int = 12, times: int = 5) -> dict[str, Any]:
    """Rows in random order: groups g with gaps, factors h (crossed), part (within g), times, places."""
    rng = np.random.default_rng(seed)
    g, t = np.repeat(np.arange(groups), times), np.tile(np.arange(times), groups)
    keep = rng.permutation(np.flatnonzero((rng.random(g.size) < 0.9) | (t < 2)))
    g, t = g[keep], t[keep]
    n = g.size
    site = rng.normal(size=(times, 2))
    return {
        "y": rng.normal(size=n) + 0.5 * g % 3,
        "x": rng.normal(size=n),
        "g": g,
        "part": np.array([f"{a}:{b // 2}" for a, b in zip(g, t, strict=True)]),
        "h": rng.permutation(np.arange(n) % 7),
        "t": t,
        "f": np.array(list("abcdefgh"))[t],
        "u": t + 0.3 * np.sin(7.0 * g + t),
        "sx": site[t, 0],
        "sy": site[t, 1],
        "s": rng.permutation(np.where(np.arange(n) % 2, "A", "B")),
        "v": 0.5 + rng.random(n),
        "w": 0.5 + rng.random(n),
        "o": 10.0 * rng.normal(size=n),
        "arm": np.where(g % 2, "new", "old"),
        "everything": np.zeros(n, dtype=int),
    }


_RELATED = {"g": (_spd(14, 3), list(range(14)))}

# Formula part, known=, and how the design is changed afterwards.
RANDOM: dict[str, tuple[str, Any, str]] = {
    "none": ("", None, ""),
    "scalar": ("(1 | g)", None, ""),
    "us": ("(1 + x | g)", None, ""),
    "us of visits": ("(0 + f | g)", None, ""),
    "diag": ("diag(1 + x | g)", None, ""),
    "homdiag": ("homdiag(0 + f | g)", None, ""),
    "cs": ("cs(0 + f | g)", None, ""),
    "homcs": ("homcs(0 + f | g)", None, ""),
    "ar1": ("ar1(t | g)", None, ""),
    "hetar1": ("hetar1(0 + f | g)", None, ""),
    "car1": ("car1(t | g)", None, ""),
    "ou": ("ou(t | g)", None, ""),
    "toep": ("toep(0 + f | g)", None, ""),
    "homtoep": ("homtoep(0 + f | g)", None, ""),
    "ad": ("ad(0 + f | g)", None, ""),
    "exp": ("exp(sx + sy | g)", None, ""),
    "gau": ("gau(sx + sy | g)", None, ""),
    "sph": ("sph(sx + sy | g)", None, ""),
    "ratio": ("ratio(sx + sy | g)", None, ""),
    "mat": ("mat(sx + sy | g)", None, ""),
    "rr": ("rr(0 + f | g, d=2)", None, ""),
    "fa": ("fa(0 + f | g, d=1)", None, ""),
    "nested": ("(1 | g) + (1 | part)", None, ""),
    "crossed": ("(x | g) + (1 | h)", None, ""),
    "crossed ar1": ("ar1(t | g) + (1 | h)", None, ""),
    "crossed structures": ("cs(0 + f | g) + exp(sx + sy | h)", None, ""),
    "known": ("(1 | g)", _RELATED, ""),
    "known slopes": ("(1 + x | g)", _RELATED, ""),
    "known ar1": ("ar1(t | g)", _RELATED, ""),
    "known and crossed": ("(1 | g) + (1 | h)", _RELATED, ""),
    "joint codes": ("(1 | g)", None, "joint"),
    "joint codes and crossed": ("(1 | g) + (1 | h)", None, "joint"),
    "membership": ("(1 | g)", None, "rows"),
}

_V = mm.residual.Known(_spd(5, 8), occasion="t", group="g")

RESIDUAL: dict[str, Any] = {
    "none": None,
    "varident": "varident(s)",
    "ar1": "ar1(t | g)",
    "ar1 by": "ar1(t | g, by=arm)",
    "arma": "arma(t | g, p=1, q=1)",
    "us": "us(f | g)",
    "exp nugget": "exp(sx + sy | g, nugget=True)",
    "known": _V,
    "cs": "cs(1 | g)",
    "corr": "corr(f | g)",
    "toep": "toep(f | g)",
    "ad": "ad(f | g)",
    "car1": "car1(u | g)",
    "car1 across": "car1(u | s:h)",
    "mat": "mat(u | g, smoothness=1.5)",
    "sph": "sph(u | g, nugget=True)",
    "all": "exp(u | everything, nugget=True)",
    "varpower": "varpower(v)",
    "varexp": "varexp(v, by=s)",
    "varconstpower": "varconstpower(v)",
    "varconstprop": "varconstprop(v)",
    "varfixed": "varfixed(v)",
    "loglin": "loglin(v + x)",
    "product": "ar1(t | g) * varident(s) * varpower(v)",
}


def _several_levels(design: Design, how: str, seed: int) -> Design:
    """The first term with two columns of codes, or with weighted memberships of two levels."""
    from scipy import sparse

    rng = np.random.default_rng(seed)
    first = design.terms[0]
    n, m = design.n, first.m
    other = rng.integers(0, m, n).astype(np.int32)
    if how == "joint":
        other[rng.random(n) < 0.2] = -1
        codes = np.column_stack([first.codes, other]).astype(np.int32)
        term = RandomTerm("g", ("a", "b"), codes, first.levels, None, make_covariance("us", 2))
    else:
        share = rng.random(n)
        at = np.repeat(np.arange(n), 2)
        columns = np.column_stack([first.codes, other]).ravel()
        rows = sparse.csr_array((np.column_stack([share, 1 - share]).ravel(), (at, columns)), shape=(n, m))
        none = np.zeros((n, 0), dtype=np.int32)
        term = RandomTerm("g", ("1",), none, first.levels, None, first.covariance, None, rows)
    return replace(design, terms=(term, *design.terms[1:]))


def model(
    random: str,
    residual: str,
    *,
    reml: bool = True,
    sigma: float | None = None,
    weights: str | None = None,
    offset: str | None = None,
    seed: int = 0,
    data: dict[str, Any] | None = None,
    solver: str = "auto",
) -> Any:
    """The objective of one cell of the grid."""
    text, known, how = RANDOM[random]
    given: dict[str, Any] = {"weights": weights, "offset": offset, "relationships": read_known(known)}
    frame = build(
        f"y ~ x{' + ' * bool(text)}{text}",
        grid_data(seed) if data is None else data,
        residual=RESIDUAL[residual],
        checked=False,
        **{name: value for name, value in given.items() if value is not None},
    )
    if how:
        frame = replace(frame, design=_several_levels(frame.design, how, seed))
    return make_objective(frame, Options(reml=reml, sigma=sigma, solver=solver))


def a_psi(objective: Any, seed: int = 0, singular: bool = False) -> np.ndarray:
    """A point inside the bounds, away from the start; or the first parameter of every random term 0."""
    rng = np.random.default_rng(seed)
    psi = np.array(objective.start) + rng.uniform(-0.25, 0.25, objective.n_theta)
    r = getattr(objective, "n_random", objective.n_theta)
    floor = np.isfinite(objective.lower[:r]) & (objective.lower[:r] == 0.0)
    psi[:r] = np.where(floor, 0.3 + rng.random(r), psi[:r])
    psi = np.clip(psi, objective.lower + 1e-3, objective.upper - 1e-3)
    if singular:
        sizes = [term.covariance.n_theta for term in objective.design.terms]
        psi[np.cumsum([0, *sizes[:-1]])[: len(sizes)]] = 0.0
    return psi


def oracle_of(objective: Any, psi: np.ndarray, order: int = 2) -> CovarianceOracle:
    """Criterion and derivatives from dense matrices, for curved structures and rows of several levels too.

    `order` says up to which derivatives of V it can be asked.
    """
    design = objective.design
    n, terms = design.n, design.terms
    r = getattr(objective, "n_random", objective.n_theta)
    theta, phi = psi[:r], psi[r:]
    if design.residual is None:
        R = np.diag(np.ones(n) if design.weights is None else 1.0 / design.weights)
    else:
        R = dense_residual(design.residual, phi)
    Z = [term.matrix(n).toarray() for term in terms]
    A = [
        np.eye(term.m) if term.precision is None else np.linalg.inv(term.precision.matrix.toarray())
        for term in terms
    ]

    def image(b: int, S: np.ndarray) -> np.ndarray:
        return Z[b] @ np.kron(A[b], S) @ Z[b].T

    V, first = R, []
    second: list[list[np.ndarray | None]] = [[None] * psi.size for _ in range(psi.size)]
    at = 0
    for b, term in enumerate(terms):
        own = theta[at : at + term.covariance.n_theta]
        F = term.covariance.factor(own)
        V = V + image(b, F @ F.T)
        D = term.covariance.factor_derivatives(own) if order > 0 else []
        DD = term.covariance.factor_second_derivatives(own) if order > 1 else None
        for i in range(len(D)):
            first.append(image(b, D[i] @ F.T + F @ D[i].T))
            for j in range(own.size if order > 1 else 0):
                S = DD[i, j] @ F.T + D[i] @ D[j].T
                second[at + i][at + j] = image(b, S + S.T)
        at += own.size
    if design.residual is not None and order > 0:
        point = design.residual.at(phi)
        half = point.unwhiten(np.eye(n))
        for i in range(phi.size):
            first.append(half @ point.change(i, np.eye(n)) @ half.T)
            for j in range(phi.size if order > 1 else 0):
                second[r + i][r + j] = half @ point.second_change(i, j, np.eye(n)) @ half.T
    y = design.y if design.offset is None else design.y - design.offset
    return CovarianceOracle(y, design.X, V, first, second, objective.reml, objective.sigma_fixed)
