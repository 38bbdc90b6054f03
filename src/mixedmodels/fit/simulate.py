r"""Responses drawn from a model: from a fit, for its own rows or new ones.

y = X beta + offset + sum_b Z_b b_b + e,  b_b ~ N(0, sigma^2 (A_b kron Sigma_b)), e_i ~ N(0, sigma^2/w_i).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.design import KnownCovariance, LowRankCovariance
from mixedmodels.errors import DataError, OptionError, SolverError
from mixedmodels.fit import values

if TYPE_CHECKING:
    from mixedmodels.design import Precision
    from mixedmodels.fit.base import Fit
    from mixedmodels.fit.residual_rows import Noise
    from mixedmodels.fit.result import LMMFit

__all__ = [
    "check_count",
    "draw_responses",
    "drawn_terms",
    "fixed_values",
    "generator",
    "positive_sigma",
    "positive_weights",
    "relationship_root",
    "simulate_responses",
]

_BLOCK = 4_000_000  # numbers drawn at a time


def generator(seed: Any) -> np.random.Generator:
    """The random generator that a seed names."""
    try:
        return np.random.default_rng(seed)
    except (TypeError, ValueError):
        raise OptionError(
            f"seed must be None, a whole number >= 0 or a numpy Generator, got {seed!r}"
        ) from None


def check_count(n: Any, of: str = "") -> int:
    """A number of draws, replicates, ... : a whole number of at least 1."""
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 1:
        raise OptionError(f"n must be a positive whole number{of and ' of '}{of}, got {n!r}")
    return int(n)


def fixed_values(
    beta: Any, names: Sequence[str], default: np.ndarray | None = None, what: str = "beta"
) -> np.ndarray:
    """Coefficients given as numbers in order or by name; by name, those of `default` may be left out.

    Raises
    ------
    OptionError
        A wrong name, a missing one, or a wrong number of values.
    """
    listed = ", ".join(names) or "none"
    kind = "fixed effect" if what == "beta" else "parameter"
    if beta is None:
        if default is None:
            raise OptionError(f"{what} is needed: a number for each {kind} ({listed})")
        return np.array(default)
    if isinstance(beta, Mapping):
        for name in beta:
            if name not in names:
                raise OptionError(f"{what}: there is no {kind} {name!r}; the model has {listed}")
        missing = [name for name in names if name not in beta]
        if missing and default is None:
            raise OptionError(f"{what} lacks {', '.join(missing)}; the model has {listed}")
        filling = dict(zip(names, np.zeros(len(names)) if default is None else default, strict=True))
        beta = [beta.get(name, filling[name]) for name in names]
    try:
        array = np.array(beta, dtype=float).reshape(-1)
    except (TypeError, ValueError):
        raise OptionError(f"{what} must hold numbers") from None
    if array.shape[0] != len(names) or not np.isfinite(array).all():
        raise OptionError(f"{what} needs {len(names)} finite numbers ({listed}), got {array.shape[0]} values")
    return array


def positive_weights(weights: Any, data: Any, n: int) -> np.ndarray | None:
    """Precision weights of n rows given as a number, a column of `data` or an array."""
    if weights is None:
        return None
    if isinstance(weights, (int, float)) and not isinstance(weights, bool):
        array = np.full(n, float(weights))
    elif data is None:
        try:
            array = np.array(weights, dtype=float)
        except (TypeError, ValueError):
            raise DataError("weights must be numbers, one per row") from None
    else:
        from mixedmodels.frame.columns import Columns, numeric_column

        names = (weights,) if isinstance(weights, str) else ()
        array = np.asarray(numeric_column(weights, Columns(data, names), "weights"), dtype=float)
    if array.shape != (n,):
        raise DataError(f"weights has shape {array.shape}; the rows are {n}")
    if not (array[~np.isnan(array)] > 0.0).all() or np.isinf(array).any():
        raise DataError("weights must be positive and finite: Var(e_i) = sigma^2 / w_i")
    return array


def relationship_root(precision: Precision | KnownCovariance) -> Any:
    r"""A function that maps standard normal u, shape (m, c), to columns with covariance :math:`A = P^{-1}`.

    With a permuted :math:`P = L L'`, :math:`L^{-T} u` has covariance A. A dense A, singular ones included,
    has the root :math:`U D^{1/2}` of its eigen-decomposition, one of low rank its factor. Rows of u beyond m
    are levels that the fit has not seen: they are independent and stay.
    """
    m, root = _known_root(precision)

    def draw(u: np.ndarray) -> np.ndarray:
        return root(u) if len(u) == m else np.concatenate([root(u[:m]), u[m:]])

    return draw


def _known_root(precision: Precision | KnownCovariance) -> tuple[int, Any]:
    """The number of levels, and the root of their covariance."""
    if isinstance(precision, LowRankCovariance) and precision.factor.shape[1] <= precision.factor.shape[0]:
        W = precision.factor
        return len(W), lambda u: W @ u[: W.shape[1]]
    if isinstance(precision, KnownCovariance):
        values, vectors = np.linalg.eigh(precision.covariance)
        half = vectors * np.sqrt(np.maximum(values, 0.0))
        return len(half), lambda u: half @ u
    from mixedmodels.solver.sparse_cholesky import SparseCholesky

    try:
        factor = SparseCholesky(precision.matrix)
    except SolverError:
        raise DataError("the known precision between levels is not positive definite") from None
    return factor.n, lambda u: factor.half_solve(u, transposed=True)


def draw_responses(
    base: np.ndarray,
    terms: Sequence[tuple[np.ndarray, np.ndarray | None, int, np.ndarray, Any]],
    sigma: float,
    weights: np.ndarray | None,
    n: int,
    rng: np.random.Generator,
    noise: Noise | None = None,
) -> np.ndarray:
    """Draws of a response, shape (rows, n).

    Parameters
    ----------
    base : ndarray, shape (rows,)
        What is not drawn.
    terms : sequence of (codes, Z, m, factor, root)
        Random terms to draw: level of each row (-1: none), columns (None: ones), number of levels, relative
        factor and, for a known precision, its `relationship_root`. Codes may be the term's sparse matrix.
    sigma : float
    weights : ndarray, shape (rows,), or None
    n : int
    rng : Generator
        Draw by draw: the effects of the terms one after another, then the residuals. Hence the first draws
        do not depend on n.
    noise : callable, optional
        Residuals over sigma from standard normal numbers and means, for structured residuals; the weights are
        part of it.
    """
    rows = base.shape[0]
    sizes = [m * factor.shape[0] for _, _, m, factor, _ in terms]
    width = sum(sizes) + rows
    scale = sigma if weights is None else sigma / np.sqrt(weights)
    out = np.empty((rows, n))
    step = max(1, _BLOCK // max(width, 1))
    for first in range(0, n, step):
        count = min(step, n - first)
        normal = rng.standard_normal((count, width))
        own = normal[:, width - rows :]
        y = base + (own * scale if noise is None else np.zeros(own.shape))
        start = 0
        for (codes, Z, m, factor, root), size in zip(terms, sizes, strict=True):
            k = factor.shape[0]
            u = normal[:, start : start + size].reshape(count, m, k)
            start += size
            if root is not None:
                u = root(u.transpose(1, 0, 2).reshape(m, -1)).reshape(m, count, k).transpose(1, 0, 2)
            b = sigma * (u @ factor.T)
            if not isinstance(codes, np.ndarray):
                y += (codes @ b.reshape(count, m * k).T).T
                continue
            for j in range(k):
                part = b[:, :, j].take(codes, axis=1)
                if (codes < 0).any():
                    part[:, codes < 0] = 0.0
                y += part if Z is None else part * Z[:, j]
        if noise is not None:
            y += sigma * noise(own, y)
        out[:, first : first + count] = y.T
    return out


def drawn_terms(fit: Fit, new_effects: Any) -> list[int]:
    """Positions of the terms whose effects are drawn anew."""
    terms = fit._terms
    if new_effects is True or new_effects is False:
        return list(range(len(terms))) if new_effects else []
    names = [new_effects] if isinstance(new_effects, str) else new_effects
    groups = list(dict.fromkeys(term.group for term in terms))
    if not isinstance(names, Iterable):
        raise OptionError(
            f"new_effects must be True, False or names of grouping factors ({', '.join(groups)}), "
            f"got {new_effects!r}"
        )
    names = list(names)
    for name in names:
        if name not in groups:
            raise OptionError(
                f"new_effects: {name!r} is not a grouping factor of the model ({', '.join(groups)})"
            )
    return [position for position, term in enumerate(terms) if term.group in names]


def simulate_responses(
    fit: LMMFit,
    n: Any = 1,
    seed: Any = None,
    new_effects: Any = True,
    *,
    newdata: Any = None,
    re_form: Any = None,
    beta: Any = None,
    theta: Any = None,
    sigma: float | None = None,
    weights: Any = None,
    offset: Any = None,
) -> np.ndarray:
    """Draws of the response, shape (rows, n); see `LMMFit.simulate`."""
    from mixedmodels.fit.kriging import draw_terms_at_positions, open_terms
    from mixedmodels.fit.predict import select_columns

    n, rng = check_count(n), generator(seed)
    design = fit.design
    drawn = drawn_terms(fit, new_effects)
    shown = dict(select_columns(fit, re_form))
    drawn = [position for position in drawn if position in shown]
    kept = [(position, columns) for position, columns in shown.items() if position not in drawn]
    coefficients = fixed_values(beta, design.x_names, fit.beta)
    psi = None if theta is None else _theta_of(fit, theta)
    factors = fit._factors if psi is None else values.relative_factors(design, psi)
    scale = fit.sigma if sigma is None else positive_sigma(sigma)
    positions: Any = None
    if newdata is None:
        if offset is not None:
            raise OptionError("offset is for new rows; give newdata as well")
        X, shift = design.X, design.offset
        rows: list[Any] = [term.parts(design.n) for term in design.terms]
        valid = None
        w = design.weights if weights is None else positive_weights(weights, None, design.n)
    else:
        if fit.formula is None:
            fit.frame.new_data(newdata)
        labels = fit.frame.encoding.bar_labels
        new = fit.frame.new_data(
            newdata,
            re_form=[labels[position] for position in shown],
            need_groups=bool(shown),
            new_levels="append",
            offset=offset,
            new_positions=open_terms(design.terms, list(shown)),
        )
        X, shift, rows, valid, positions = new.X, new.offset, list(new.terms), new.rows, new.positions
        if new.estimable is not None:
            valid = valid & new.estimable
        w = positive_weights(weights, newdata, X.shape[0])
    base = values.fixed_predictor(X, coefficients, shift)
    wide = draw_terms_at_positions(design, fit.theta if psi is None else psi, rows, positions, shown, drawn)
    for position, columns in kept:
        codes, Z = rows[position]
        known = not isinstance(codes, np.ndarray) or not codes.size
        if not known and int(codes.max()) >= design.terms[position].m:
            raise DataError(
                f"grouping factor {design.terms[position].group!r} has levels that the fit has not seen: "
                "they have no estimated effect to keep; draw it anew (new_effects) or leave it out (re_form)"
            )
        base += values.term_contribution(codes, Z, fit._b[position], columns)
    terms = []
    for position in [*drawn, *(position for position in wide if position not in drawn)]:
        codes, Z = rows[position]
        term, m = design.terms[position], design.terms[position].m
        factor = np.array(factors[position])
        columns = shown[position]
        if position in wide:
            Z, factor = wide[position]
        if columns is not None:  # the columns left out are not drawn
            factor = _rows_only(factor, columns)
        root = None if term.precision is None else relationship_root(term.precision)
        if isinstance(codes, np.ndarray) and codes.size:
            m = max(m, int(codes.max()) + 1)
            if codes.ndim == 2:
                whole = replace(term, codes=codes, Z=Z, levels=range(m))
                codes, Z = whole.matrix(codes.shape[0]), None
        terms.append((codes, Z, m, factor, root))
    noise = None
    if design.residual is not None:
        noise = _structured_noise(fit, psi, newdata, None if weights is None else w)
    out = draw_responses(base, terms, scale, w, n, rng, noise)
    if valid is not None:
        out[~valid] = np.nan
    return out


def _rows_only(factor: np.ndarray, columns: Sequence[int]) -> np.ndarray:
    out = np.zeros_like(factor)
    out[list(columns)] = factor[list(columns)]
    return out


def positive_sigma(sigma: Any) -> float:
    """A residual standard deviation given by the user."""
    try:
        value = float(sigma)
    except (TypeError, ValueError):
        value = 0.0
    if not 0.0 < value < float("inf"):
        raise OptionError(f"sigma must be a positive number, got {sigma!r}")
    return value


def _theta_of(fit: LMMFit, theta: Any) -> np.ndarray:
    try:
        array = np.array(theta, dtype=float).reshape(-1)
    except (TypeError, ValueError):
        raise OptionError("theta must hold numbers") from None
    names = fit.theta_names
    if array.shape[0] != len(names) or not np.isfinite(array).all():
        raise OptionError(f"theta needs {len(names)} finite numbers ({', '.join(names)})")
    return array


def _structured_noise(fit: Any, psi: np.ndarray | None, newdata: Any, weights: np.ndarray | None) -> Noise:
    """Draws of residuals from the structure of a fit; `weights` other than those of the fit, or None."""
    from mixedmodels.fit.residual_rows import new_columns, new_residual_rows, noise_of_rows, own_noise

    bound = fit.design.residual
    phi = np.array(fit.phi if psi is None else psi[len(psi) - bound.n_phi :])
    try:
        if newdata is None:
            draw = own_noise(bound, phi)
            if weights is None:
                return draw
            own = fit.design.weights
            ratio = np.sqrt((1.0 if own is None else own) / weights)
            return lambda normal, means: draw(normal, means) * ratio
        columns = new_columns(fit, newdata)
        if not bound.needs_fitted:
            return noise_of_rows(new_residual_rows(fit, columns, None, weights), phi)
    except FloatingPointError as error:
        raise OptionError(f"theta: the residuals have no covariance there: {error}") from None

    def each(normal: np.ndarray, means: np.ndarray) -> np.ndarray:
        out = np.empty_like(normal)
        for j, mean in enumerate(means):
            rows = new_residual_rows(fit, columns, mean, weights)
            out[j] = noise_of_rows(rows, phi)(normal[j : j + 1], mean[None])[0]
        return out

    return each
