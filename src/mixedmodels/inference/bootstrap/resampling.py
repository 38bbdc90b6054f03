r"""Responses and designs drawn from a fit: parametric, from its residuals, and by resampling clusters.

All draws are independent of what the data frame looked like: they need the design, the estimates and a stream
of random numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import DataError, OptionError

if TYPE_CHECKING:
    from mixedmodels.design import Design, RandomTerm
    from mixedmodels.fit.result import LMMFit

__all__ = [
    "ResidualPool",
    "cluster_design",
    "default_cluster",
    "draw_columns",
    "residual_pool",
    "rows_of_design",
    "simulate_columns",
]


def simulate_columns(
    fit: LMMFit, rng: np.random.Generator, N: int, new_effects: Any = True, *, beta: Any = None
) -> np.ndarray:
    """N responses drawn from the fitted model, shape (nobs, N); a fixed number of draws is the first of more.

    ``X beta + offset + Z b + e`` with ``e_i ~ N(0, sigma^2 / w_i)`` and, with `new_effects`,
    ``b ~ N(0, sigma^2 A kron Sigma)``, else b at its conditional modes. Sigma may be singular.

    Parameters
    ----------
    fit : LMMFit
    rng : Generator
    N : int
    new_effects : bool or sequence of str
        Draw the random effects anew; names: those of these groups.
    beta : array or dict, optional
        Fixed effects instead of the estimates.

    Examples
    --------
    >>> import numpy as np
    >>> import mixedmodels as mm
    >>> from mixedmodels.inference.bootstrap.resampling import simulate_columns
    >>> fit = mm.lmm("Yield ~ 1 + (1 | Batch)", mm.load_dataset("Dyestuff", backend="dict"))
    >>> simulate_columns(fit, np.random.default_rng(1), 4).shape
    (30, 4)
    """
    options = {} if beta is None else {"beta": beta}
    return fit.simulate(N, rng, new_effects, **options)


def draw_columns(
    design: Design,
    base: np.ndarray,
    sigma: float,
    factors: Sequence[np.ndarray],
    rng: np.random.Generator,
    N: int,
    phi: np.ndarray | None = None,
) -> np.ndarray:
    """N responses of any design around `base` with given relative factors, shape (n, N).

    With structured residuals `phi` are the parameters of their structure.
    """
    from mixedmodels.fit.residual_rows import own_noise
    from mixedmodels.fit.simulate import draw_responses, relationship_root

    terms = [
        (*term.parts(design.n), term.m, factor, term.precision and relationship_root(term.precision))
        for term, factor in zip(design.terms, factors, strict=True)
    ]
    noise = None if design.residual is None or phi is None else own_noise(design.residual, phi)
    return draw_responses(base, terms, sigma, design.weights, N, rng, noise)


def add_effects(Y: np.ndarray, term: RandomTerm, b: np.ndarray) -> None:
    """``Y[j] += Z b[j]`` in place, Y (N, n) and b (N, m, k)."""
    if term.several_levels:
        Y += (term.matrix(Y.shape[1]) @ b.reshape(b.shape[0], -1).T).T
        return
    for j in range(term.k):
        part = b[:, :, j].take(term.codes, axis=1)
        if term.Z is not None:
            part *= term.Z[:, j]
        Y += part


# ---------------------------------------------------------------------- residual bootstrap
@dataclass(frozen=True, slots=True, eq=False)
class ResidualPool:
    r"""What the residual bootstrap draws from: effects and residuals rescaled to the estimated variances.

    Attributes
    ----------
    base : ndarray, shape (n,)
        ``X beta + offset``.
    effects : tuple of ndarray, one (m, k) per term
        Random effects whose mean is 0 and whose covariance is the estimate.
    noise : ndarray, shape (n,)
        ``sqrt(w) e``, mean 0 and standard deviation sigma; of structured residuals ``W e``.
    root_weights : ndarray, shape (n,), or None
    point : ResidualPoint or None
        Structured residuals at the estimates.
    """

    base: np.ndarray
    effects: tuple[np.ndarray, ...]
    noise: np.ndarray
    root_weights: np.ndarray | None
    point: Any = None

    def rows(self, design: Design, rng: np.random.Generator, N: int) -> np.ndarray:
        """N responses, shape (N, n): levels of each grouping factor and residuals drawn with replacement."""
        drawn: dict[str, np.ndarray] = {}
        parts = []
        for term, pool in zip(design.terms, self.effects, strict=True):
            if term.group not in drawn or drawn[term.group].shape[1] != term.m:
                drawn[term.group] = rng.integers(term.m, size=(N, term.m))
            parts.append(pool[drawn[term.group]])
        Y = self.noise[rng.integers(self.noise.shape[0], size=(N, self.noise.shape[0]))]
        if self.point is not None:
            Y = np.ascontiguousarray(self.point.unwhiten(np.ascontiguousarray(Y.T)).T)
        elif self.root_weights is not None:
            Y /= self.root_weights
        Y += self.base
        for term, b in zip(design.terms, parts, strict=True):
            add_effects(Y, term, b)
        return Y


def residual_pool(fit: LMMFit) -> ResidualPool:
    r"""Random effects and residuals of a fit, rescaled to its estimated variances.

    Conditional modes are shrunken, so that they vary less than the estimate says. The spherical effects u of
    a term are centred and multiplied by :math:`\hat\sigma S^{-1/2}`, S their empirical covariance; what the
    estimate holds at zero stays zero. Residuals are centred and scaled likewise (Carpenter, Goldstein &
    Rasbash 2003, Appl. Stat. 52:431-443).

    Raises
    ------
    OptionError
        Levels of a term are correlated (a known precision): they cannot be exchanged for one another.
    """
    design, sigma = fit.design, fit.sigma
    if not design.terms and len(fit.theta) and design.residual is None:
        raise OptionError(
            "the residual bootstrap exchanges levels, but this covariance is a function of theta; use "
            "kind='parametric'"
        )
    effects = []
    for term, u, factor in zip(design.terms, fit._solution.u, fit._factors, strict=True):
        if term.precision is not None:
            raise OptionError(
                f"the residual bootstrap exchanges levels, but those of {term.group!r} are correlated by a "
                "known precision; use kind='parametric'"
            )
        effects.append(rescaled(np.asarray(u), sigma) @ np.array(factor).T)
    root = None if design.weights is None else np.sqrt(design.weights)
    structured = design.residual is not None
    noise = np.array(fit._residuals("normalized" if structured else "pearson"))
    noise -= noise.mean()
    noise *= sigma / np.sqrt(np.mean(noise**2))
    point = fit._point if structured else None  # type: ignore[attr-defined]
    return ResidualPool(np.array(fit._linear_predictor("population")), tuple(effects), noise, root, point)


def rescaled(u: np.ndarray, sigma: float) -> np.ndarray:
    """u (m, k) centred, its covariance made ``sigma^2 I`` on the directions in which it varies."""
    u = u - u.mean(axis=0)
    values, vectors = np.linalg.eigh(u.T @ u / u.shape[0])
    varies = values > 1e-10 * max(values[-1], 1e-300)
    scale = np.where(varies, sigma / np.sqrt(np.where(varies, values, 1.0)), 0.0)
    return (u @ vectors) * scale @ vectors.T


# ---------------------------------------------------------------------- clusters
def residual_term(design: Any) -> RandomTerm | None:
    """The groups of structured residuals as those of a random term; None where there are none."""
    from mixedmodels.covariance import make_covariance
    from mixedmodels.design import RandomTerm

    bound = getattr(design, "residual", None)
    if bound is None or bound.codes is None or bound.group is None:
        return None
    codes = np.asarray(bound.codes, dtype=np.int32)
    return RandomTerm(
        bound.group, ("(Intercept)",), codes, bound.group_labels, None, make_covariance("us", 1)
    )


def default_cluster(design: Any) -> str | None:
    """The grouping factor in whose levels all other factors are nested; None if there is none."""
    if any(term.several_levels for term in design.terms):
        return None
    for term in sorted(design.terms, key=lambda term: term.m):
        if all(_is_nested(other.codes, other.m, term.codes) for other in design.terms):
            return term.group
    return None


def _is_nested(inner: np.ndarray, m: int, outer: np.ndarray) -> bool:
    """Whether each level of `inner` (0 .. m-1) lies in one level of `outer`."""
    first = np.zeros(m, dtype=np.intp)
    first[inner] = outer  # any row's value per level
    return bool(np.array_equal(first[inner], outer))


def cluster_design(design: Any, cluster: RandomTerm, chosen: np.ndarray) -> tuple[Any, np.ndarray]:
    """The design of chosen levels of a grouping factor, and its rows in the old one.

    A level chosen twice becomes two levels, and so do the levels of factors nested in it; levels of crossed
    factors keep their identity, and those that no chosen row has are dropped.

    Parameters
    ----------
    design : Design or GeneralisedDesign
    cluster : RandomTerm
        A term on the grouping factor.
    chosen : ndarray of int, shape (levels,)
        Levels, with repetitions.
    """
    design.need_one_level("drawing levels anew")
    rows, terms, copies = _chosen_rows(design.terms, cluster, chosen)
    return rows_of_design(design, rows, terms, copies), rows


def residual_of_rows(design: Any, rows: np.ndarray, copies: np.ndarray | None = None) -> Any:
    """The residual structure of some of the rows; None without one.

    Parameters
    ----------
    design : Design
    rows : ndarray of intp
    copies : ndarray of int, optional
        Rows of one group of residuals with different numbers are different groups.

    Raises
    ------
    DataError
        These rows lack a level or more, so that the structure has other parameters.
    """
    bound = getattr(design, "residual", None)
    if bound is None:
        return None
    found = bound.subset(rows, copies)
    if found.names != bound.names:
        raise DataError(
            f"with these rows alone the residual structure has other parameters ({', '.join(found.names)}) "
            f"than with all ({', '.join(bound.names)})"
        )
    return found


def rows_of_design(
    design: Any,
    rows: np.ndarray,
    terms: Sequence[RandomTerm] | None = None,
    copies: np.ndarray | None = None,
) -> Any:
    """A design with some of its rows (repeated ones too).

    Parameters
    ----------
    design : Design or GeneralisedDesign
    rows : ndarray of int
    terms : sequence of RandomTerm, optional
        Terms of these rows; by default those of the design with the same levels.
    copies : ndarray of int, optional
        Of structured residuals: rows of one group with different numbers are different groups.
    """
    if terms is None:
        terms = [term.of_rows(rows) for term in design.terms]
    if not hasattr(design, "predictors"):
        return replace(
            design,
            y=design.y[rows],
            X=np.ascontiguousarray(design.X[rows]),
            terms=tuple(terms),
            offset=_taken(design.offset, rows),
            weights=_taken(design.weights, rows),
            residual=residual_of_rows(design, rows, copies),
        )
    data = design.data
    predictors = [
        replace(part, X=_taken(part.X, rows), offset=_taken(part.offset, rows)) for part in design.predictors
    ]
    return replace(
        design,
        data=replace(
            data,
            y=data.y[rows],
            trials=_taken(data.trials, rows),
            weights=_taken(data.weights, rows),
            constants={},
        ),
        predictors=tuple(predictors),
        terms=tuple(terms),
    )


def _taken(array: np.ndarray | None, rows: np.ndarray) -> np.ndarray | None:
    return None if array is None else np.ascontiguousarray(array[rows])


def _chosen_rows(
    own: Sequence[RandomTerm], cluster: RandomTerm, chosen: np.ndarray
) -> tuple[np.ndarray, list[RandomTerm], np.ndarray]:
    """Rows of chosen levels, the terms there, and the number of the choice that each row comes from."""
    order = np.argsort(cluster.codes, kind="stable")
    ends = np.searchsorted(cluster.codes[order], np.arange(cluster.m + 1))
    counts = np.diff(ends)[chosen]
    # rows of the chosen levels, one level after another
    start = np.repeat(ends[:-1][chosen] - np.concatenate([[0], np.cumsum(counts)[:-1]]), counts)
    rows = order[start + np.arange(counts.sum())]
    copy = np.repeat(np.arange(chosen.shape[0]), counts)
    terms: list[RandomTerm] = []
    made: dict[int, tuple[np.ndarray, range]] = {}  # terms on one factor share their codes
    for term in own:
        key = id(term.codes)
        if key not in made:
            old = term.codes[rows].astype(np.int64)
            if _is_nested(term.codes, term.m, cluster.codes):
                old += copy * term.m
            seen, codes = np.unique(old, return_inverse=True)
            made[key] = codes.astype(np.int32), range(seen.shape[0])
        codes, levels = made[key]
        Z = None if term.Z is None else np.ascontiguousarray(term.Z[rows])
        terms.append(replace(term, codes=codes, levels=levels, Z=Z))
    return rows, terms, copy
