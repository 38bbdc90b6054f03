"""Seeded random designs that cover every shape of model a solver or objective must handle."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mixedmodels.covariance import make_covariance
from mixedmodels.design import Design, Precision, RandomTerm
from mixedmodels.errors import OptionError

__all__ = ["DESIGN_KINDS", "SINGLE_FACTOR_KINDS", "random_design", "random_factors", "random_theta"]

# Kinds with one grouping factor and no precision: what a grouped solver handles.
SINGLE_FACTOR_KINDS = (
    "one_scalar",
    "one_slope",
    "one_vector",
    "one_vector4",
    "one_balanced",
    "one_no_fixed",
    "one_weights",
    "one_offset",
    "same_group_two_terms",
    "three_terms_one_group",
    "diag",
    "homdiag",
    "shared_one_group",
    "scaled",
)

# Every kind `random_design` knows.
DESIGN_KINDS = (
    *SINGLE_FACTOR_KINDS,
    "two_crossed",
    "nested",
    "three_crossed",
    "three_nested",
    "crossed_slopes",
    "crossed_two_terms",
    "crossed_diag",
    "no_fixed",
    "weights",
    "offset",
    "shared",
    "shared_slopes",
    "precision",
    "precision_slope",
    "precision_crossed",
)


class _Builder:
    """Draws the pieces of one design."""

    def __init__(self, seed: int, n: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.n = n
        self.x = self.rng.normal(size=n)
        self.t = self.rng.uniform(0.0, 10.0, size=n).round(1)

    def unbalanced(self, m: int) -> np.ndarray:
        """Codes of m levels with very unequal counts; the last two levels are singletons."""
        counts = self.rng.dirichlet(np.full(m - 2, 0.7))
        codes = self.rng.choice(m - 2, size=self.n, p=counts)
        codes[: m - 2] = np.arange(m - 2)
        codes[-2:] = [m - 2, m - 1]
        return self.rng.permutation(codes).astype(np.int32)

    def columns(self, k: int) -> np.ndarray:
        """Intercept and k - 1 covariates on different scales, one of them far from 0."""
        pool = [np.ones(self.n), self.x, 20.0 + self.t, 0.01 * self.rng.normal(size=self.n)]
        return np.ascontiguousarray(np.stack(pool[:k], axis=1))

    def term(
        self,
        group: str,
        codes: np.ndarray,
        k: int = 1,
        tag: str = "us",
        Z: np.ndarray | None = None,
        precision: Precision | None = None,
    ) -> RandomTerm:
        names = ("(Intercept)", "x", "t", "w")[:k]
        if Z is not None:
            k = Z.shape[1]
            names = tuple(f"z{j}" for j in range(k))
        elif k > 1:
            Z = self.columns(k)
        m = int(codes.max()) + 1
        levels = tuple(f"{group}{i}" for i in range(m))
        return RandomTerm(group, names, codes, levels, Z, make_covariance(tag, k), precision)

    def precision(self, m: int) -> Precision:
        """A^{-1} of an autoregression along the levels plus a little extra structure."""
        from scipy import sparse

        lower = sparse.eye_array(m).tolil()
        for i in range(1, m):
            lower[i, i - 1] = -0.5
            if i > 3:
                lower[i, int(self.rng.integers(0, i - 2))] += -0.3
        lower = sparse.csc_array(lower)
        matrix = sparse.csc_array(lower.T @ sparse.diags_array(self.rng.uniform(0.7, 2.0, m)) @ lower)
        return Precision(matrix, -float(np.linalg.slogdet(matrix.toarray())[1]))

    def finish(
        self,
        terms: Sequence[RandomTerm],
        p: int = 3,
        weights: np.ndarray | None = None,
        offset: np.ndarray | None = None,
        theta_index: Sequence[int] | None = None,
        scale: float = 1.0,
    ) -> Design:
        X = np.stack([np.ones(self.n), self.x, self.t], axis=1)[:, :p]
        y = 3.0 + self.rng.normal(size=self.n)
        for term in terms:
            block = np.ones((self.n, 1)) if term.Z is None else term.Z
            size = np.sqrt(np.mean(block**2, axis=0))
            b = self.rng.normal(size=(term.m, term.k)) * 0.8 / size
            y = y + np.sum(block * b[term.codes], axis=1)
        if offset is not None:
            y = y + offset
        return Design(
            y=scale * y,
            X=X,
            x_names=("(Intercept)", "x", "t")[:p],
            terms=tuple(terms),
            offset=offset,
            weights=weights,
            theta_index=None if theta_index is None else np.array(theta_index, dtype=np.intp),
        )


def random_design(seed: int, kind: str, n: int = 90) -> Design:
    """A seeded random design of one kind, unbalanced and with singleton levels unless said otherwise.

    Parameters
    ----------
    seed : int
    kind : str
        One of `DESIGN_KINDS`: ``one_*`` have one grouping factor; ``weights``, ``offset`` and ``no_fixed``
        (p = 0) are two crossed factors with that addition; ``shared*`` have parameters that several terms
        share (`Design.theta_index`); ``precision*`` a known precision between levels; ``scaled`` badly
        scaled y and Z.
    n : int
        Observations, at least 60.

    Returns
    -------
    Design

    Raises
    ------
    OptionError
        Unknown kind, or n below 60.

    Examples
    --------
    >>> from mixedmodels.testing import random_design
    >>> design = random_design(1, "two_crossed")
    >>> [(term.group, term.m, term.k) for term in design.terms]
    [('g', 12, 1), ('h', 7, 1)]
    """
    if n < 60:
        raise OptionError(f"random_design needs at least 60 observations, got n = {n}")
    make = _Builder(seed, n)
    g, h = make.unbalanced(12), make.unbalanced(7)
    if kind == "one_scalar":
        return make.finish([make.term("g", g)])
    if kind == "one_slope":
        return make.finish([make.term("g", g, 2)])
    if kind == "one_vector":
        return make.finish([make.term("g", g, 3)])
    if kind == "one_vector4":
        return make.finish([make.term("g", g, 4)])
    if kind == "one_balanced":
        return make.finish([make.term("g", (np.arange(n) % 10).astype(np.int32), 2)])
    if kind == "one_no_fixed":
        return make.finish([make.term("g", g, 2)], p=0)
    if kind == "one_weights":
        return make.finish([make.term("g", g, 2)], weights=make.rng.uniform(0.2, 5.0, n))
    if kind == "one_offset":
        return make.finish([make.term("g", g, 2)], offset=100.0 * make.rng.normal(size=n))
    if kind == "same_group_two_terms":
        return make.finish([make.term("g", g), make.term("g", g, Z=make.columns(3)[:, 1:].copy())])
    if kind == "three_terms_one_group":
        Z = make.columns(4)
        return make.finish(
            [
                make.term("g", g),
                make.term("g", g, tag="diag", Z=Z[:, 1:3].copy()),
                make.term("g", g, Z=Z[:, 3:].copy()),
            ]
        )
    if kind == "diag":
        return make.finish([make.term("g", g, 3, "diag")])
    if kind == "homdiag":
        indicator = (make.rng.integers(0, 3, n)[:, None] == np.arange(3)).astype(np.float64)
        return make.finish([make.term("g", g, 3, "homdiag", Z=indicator)])
    if kind == "shared_one_group":
        terms = [make.term("g", g), make.term("g", g, Z=make.x[:, None].copy())]
        return make.finish(terms, theta_index=[0, 0])
    if kind == "scaled":
        Z = make.columns(3) * np.array([1.0, 1e4, 1e-3])
        return make.finish([make.term("g", g, Z=Z)], scale=1e6)
    if kind == "two_crossed":
        return make.finish([make.term("g", g), make.term("h", h)])
    if kind == "nested":
        inner = make.rng.integers(0, 2, n) + 2 * h  # every inner level lies in one level of h
        codes = np.unique(inner, return_inverse=True)[1].astype(np.int32)
        return make.finish([make.term("gh", codes), make.term("h", h)])
    if kind == "three_crossed":
        return make.finish([make.term("g", g), make.term("h", h), make.term("i", make.unbalanced(5))])
    if kind == "three_nested":
        middle = np.unique(h * 2 + make.rng.integers(0, 2, n), return_inverse=True)[1].astype(np.int32)
        inner = np.unique(middle * 2 + make.rng.integers(0, 2, n), return_inverse=True)[1].astype(np.int32)
        return make.finish([make.term("c", inner, 2), make.term("b", middle), make.term("a", h)])
    if kind == "crossed_slopes":
        return make.finish([make.term("g", g, 2), make.term("h", h, 3)])
    if kind == "crossed_two_terms":
        return make.finish(
            [make.term("g", g, 2), make.term("h", h), make.term("h", h, Z=make.columns(3)[:, 1:].copy())]
        )
    if kind == "crossed_diag":
        return make.finish([make.term("g", g, 2, "diag"), make.term("h", h, 2, "homdiag")])
    if kind == "no_fixed":
        return make.finish([make.term("g", g), make.term("h", h, 2)], p=0)
    if kind == "weights":
        return make.finish([make.term("g", g, 2), make.term("h", h)], weights=make.rng.uniform(0.2, 5.0, n))
    if kind == "offset":
        return make.finish([make.term("g", g, 2), make.term("h", h)], offset=100.0 * make.rng.normal(size=n))
    if kind == "shared":
        return make.finish([make.term("g", g), make.term("h", h)], theta_index=[0, 0])
    if kind == "shared_slopes":
        terms = [make.term("g", g, 2), make.term("h", h, 2), make.term("i", make.unbalanced(5))]
        return make.finish(terms, theta_index=[0, 1, 2, 0, 1, 2, 3])
    if kind == "precision":
        return make.finish([make.term("g", g, precision=make.precision(12))])
    if kind == "precision_slope":
        return make.finish([make.term("g", g, 2, precision=make.precision(12))])
    if kind == "precision_crossed":
        return make.finish([make.term("g", g, 2, precision=make.precision(12)), make.term("h", h)])
    raise OptionError(f"unknown kind {kind!r}; available: {', '.join(DESIGN_KINDS)}")


def random_theta(design: Design, seed: int, singular: bool = False) -> np.ndarray:
    """Random free parameters of a design, diagonal entries positive; with `singular` some variances are 0.

    Parameters
    ----------
    design : Design
    seed : int
    singular : bool
        Set about half of the diagonal entries to exactly 0 (at least one), the rest of the factor is kept.

    Returns
    -------
    ndarray, shape (free parameters,)

    Raises
    ------
    OptionError
        A structure is not linear in theta.
    """
    rng = np.random.default_rng(seed)
    lower = np.concatenate([term.covariance.lower for term in design.terms])
    # Sizes relative to the columns, so that badly scaled designs get sensible values too.
    size = []
    for term in design.terms:
        block = np.ones((1, term.k)) if term.Z is None else term.Z
        rms = np.sqrt(np.mean(block**2, axis=0))
        row = np.zeros(term.covariance.n_theta, dtype=np.intp)
        entries = term.covariance.entries
        if entries is None:
            raise OptionError(f"random_theta needs structures linear in theta, not {term.covariance.name!r}")
        row[entries[:, 2]] = entries[:, 0]
        size.append(1.0 / rms[row])
    scale = np.concatenate(size)
    index = np.arange(lower.size) if design.theta_index is None else design.theta_index
    n_free = int(index.max()) + 1
    bound, unit = np.full(n_free, -np.inf), np.ones(n_free)
    bound[index], unit[index] = lower, scale
    theta = np.where(bound == 0.0, rng.uniform(0.3, 1.5, n_free), rng.normal(scale=0.4, size=n_free)) * unit
    if singular:
        zero = (bound == 0.0) & (rng.random(n_free) < 0.5)
        zero[rng.choice(np.flatnonzero(bound == 0.0))] = True
        theta[zero] = 0.0
    return theta


def random_factors(design: Design, seed: int, singular: bool = False) -> list[np.ndarray]:
    """Random relative factors of a design, one (k, k) lower-triangular matrix per term.

    Parameters
    ----------
    design : Design
    seed : int
    singular : bool
        Make at least one factor singular.

    Returns
    -------
    list of ndarray
    """
    theta = random_theta(design, seed, singular)
    sizes = [term.covariance.n_theta for term in design.terms]
    index = np.arange(sum(sizes)) if design.theta_index is None else design.theta_index
    pieces = np.split(theta[index], np.cumsum(sizes)[:-1])
    return [term.covariance.factor(piece) for term, piece in zip(design.terms, pieces, strict=True)]
