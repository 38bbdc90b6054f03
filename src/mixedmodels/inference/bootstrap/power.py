"""Power of a test by simulation from a fit, for other effects and other numbers of levels."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import MixedModelsError, OptionError
from mixedmodels.fit.simulate import check_count
from mixedmodels.fit.wald import check_level
from mixedmodels.inference.bootstrap.parallel import (
    Counter,
    chunk_size,
    chunk_stream,
    run_chunks,
    seed_entropy,
)
from mixedmodels.inference.bootstrap.refits import coefficients_of, limited_jobs, refit_rows, refit_state
from mixedmodels.inference.bootstrap.resampling import cluster_design, draw_columns, rows_of_design
from mixedmodels.inference.bootstrap.run import fit_to_design, refit_one
from mixedmodels.inference.table import ResultTable, result_table

if TYPE_CHECKING:
    from mixedmodels.fit.result import LMMFit

__all__ = ["binomial_interval", "power"]

_DDF = {"wald": "z", "z": "z", "satterthwaite": "satterthwaite", "kr": "kr", "kenward-roger": "kr"}
_METHODS = ("satterthwaite", "kr", "residual", "containment", "wald", "lrt")


def power(
    fit: LMMFit,
    test: str | Callable[[Any], float],
    n: int = 1000,
    seed: Any = None,
    *,
    method: str | None = None,
    effect: Mapping[str, Any] | None = None,
    extend: Mapping[str, Any] | None = None,
    level: float = 0.05,
    n_jobs: int | None = None,
    progress: Any = "auto",
    backend: str | None = None,
) -> ResultTable:
    r"""Share of data sets drawn from a fit in which a test is significant.

    Responses are :math:`X\beta + Zb + e` with the fitted variances and :math:`\beta` the estimates, or what
    `effect` says (those of a generalised model are drawn from its family); the model is refitted to each. The
    interval (Clopper and Pearson) is for the simulation error only.

    Parameters
    ----------
    fit : LMMFit
        A fit to pilot data, or of a design with assumed parameters.
    test : str or callable
        A coefficient or a term of the fixed part, or ``test(fit)`` that returns a p-value.
    n : int
        Simulated data sets for each row of the table.
    seed : int, optional
    method : {"satterthwaite", "kr", "residual", "containment", "wald", "lrt"}, optional
        Test of a coefficient or term: F by degrees of freedom, Wald chi-squared, likelihood ratio by ML. By
        default "satterthwaite"; generalised models have "wald" (default) and "lrt".
    effect : dict, optional
        Coefficients by name (of any linear predictor), ``{"Days": 5}``; a sequence of values gives a row for
        each.
    extend : dict, optional
        Number of levels of a grouping factor, ``{"Subject": 40}``: levels beyond those of the data are new
        ones with the rows of the old ones in turn. ``{"rows": 3}`` takes every row three times. Sequences
        of sizes make a power curve.
    level : float
        Significance level.
    n_jobs, progress, backend
        As in `mixedmodels.inference.bootstrap.run.bootstrap`.

    Returns
    -------
    ResultTable
        [sizes, effects,] n, significant, power, conf_low, conf_high, failures.

    Raises
    ------
    OptionError
        An unknown test, coefficient, grouping factor or method.

    Notes
    -----
    Green & MacLeod (2016), Methods in Ecology and Evolution 7:493-498. Data sets to which the model cannot be
    fitted count as not significant and are reported.

    Examples
    --------
    >>> import mixedmodels as mm
    >>> fit = mm.lmm("Reaction ~ Days + (Days | Subject)", mm.load_dataset("sleepstudy", backend="dict"))
    >>> table = mm.power(fit, "Days", n=100, seed=1, effect={"Days": 4}, method="wald")
    >>> bool(0.5 < table["power"][0] < 0.95)
    True
    """
    if not hasattr(fit, "refit"):
        raise OptionError(f"power() takes a fit first, got {type(fit).__name__}")
    n = check_count(n, "data sets")
    level = check_level(level)
    columns = None if callable(test) else tested_columns(fit, test)
    method = _method(fit, method)
    effects, sizes = _grid_of(effect, "effect"), _grid_of(extend, "extend")
    _check_effects(fit, effects)
    _check_sizes(fit, sizes)
    grid = list(itertools.product(*sizes.values(), *effects.values()))
    entropy = seed_entropy(seed)
    counter = Counter(progress, "power", int(n) * len(grid))
    rows = []
    for cell in grid:
        design = extended_design(fit, dict(zip(sizes, cell[: len(sizes)], strict=True)))
        beta = np.array(coefficients_of(fit))
        for name, value in zip(effects, cell[len(sizes) :], strict=True):
            beta[_coefficient_names(fit).index(name)] = value
        job = _job(fit, design, beta, columns, test if callable(test) else None, method, entropy)
        p_values = _simulate(job, int(n), n_jobs, counter, backend)
        significant = int((p_values < level).sum())
        low, high = binomial_interval(significant, int(n))
        rows.append((*cell, int(n), significant, significant / n, low, high, int(np.isnan(p_values).sum())))
    names = (
        *sizes,
        *(f"effect {name}" for name in effects),
        "n",
        "significant",
        "power",
        "conf_low",
        "conf_high",
        "failures",
    )
    table = dict(zip(names, (list(column) for column in zip(*rows, strict=True)), strict=True))
    what = "a test of your own" if callable(test) else f"{test}, {method} test"
    notes = [f"{n} simulated data sets each, seed {entropy}; intervals for the simulation error only"]
    if columns is not None and not any(_coefficient_names(fit)[j] in effects for j in columns):
        notes.append("the effect is the estimate: power at an observed effect says no more than its p-value")
    if any(row[-1] for row in rows):
        notes.append("failures: data sets without an answer, counted as not significant")
    return result_table(f"Power of {what} at level {level:g}", table, notes, fit._native)


# ---------------------------------------------------------------------- what is asked
def tested_columns(fit: LMMFit, test: Any) -> list[int]:
    """Columns of X of a coefficient or term.

    Raises
    ------
    OptionError
        Neither a coefficient nor a term has this name.
    """
    names = _coefficient_names(fit)
    if not names:
        raise OptionError(
            "the model has no fixed effects; test= takes a function of a fit that returns a p-value"
        )
    if test in names:
        return [names.index(test)]
    assign = getattr(getattr(fit.frame, "encoding", None), "assign", None) or {}
    if test in assign:
        columns = list(range(*assign[test].indices(len(names))))
        if columns:
            return columns
    terms = [term for term in assign if term not in names]
    raise OptionError(
        f"test={test!r} is not among the coefficients ({', '.join(names)})"
        + (f" and terms ({', '.join(terms)})" if terms else "")
        + " of the model; a function of a fit that returns a p-value works too"
    )


def _coefficient_names(fit: Any) -> tuple[str, ...]:
    return fit.design.x_names if fit._is_linear else fit.gamma_names


def _method(fit: LMMFit, method: str | None) -> str:
    if method is None:
        return "satterthwaite" if fit._is_linear else "wald"
    name = str(method).lower()
    if not fit._is_linear and name not in ("wald", "z", "lrt"):
        raise OptionError(f"method {method!r} is not for generalised models; available: wald, lrt")
    if name not in _METHODS and name not in _DDF:
        raise OptionError(f"method {method!r} is unknown; available: {', '.join(_METHODS)}")
    return {"z": "wald", "kenward-roger": "kr"}.get(name, name)


def _grid_of(values: Any, word: str) -> dict[str, list[Any]]:
    if values is None:
        return {}
    if not isinstance(values, Mapping):
        raise OptionError(f"{word} must be a dict from names to numbers, got {type(values).__name__}")
    out = {}
    for name, value in values.items():
        many = isinstance(value, (Sequence, np.ndarray)) and not isinstance(value, str)
        out[str(name)] = list(value) if many else [value]
        if not out[str(name)]:
            raise OptionError(f"{word}[{name!r}] is empty")
    return out


def _check_effects(fit: LMMFit, effects: dict[str, list[Any]]) -> None:
    for name, values in effects.items():
        known = _coefficient_names(fit)
        if name not in known:
            raise OptionError(f"effect: no coefficient {name!r}; there are {', '.join(known)}")
        for value in values:
            number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
            if not number or not math.isfinite(value):
                raise OptionError(f"effect[{name!r}] must be a finite number, got {value!r}")


def _check_sizes(fit: LMMFit, sizes: dict[str, list[Any]]) -> None:
    groups = list(dict.fromkeys(term.group for term in fit._terms))
    for name, values in sizes.items():
        if name not in groups and name != "rows":
            raise OptionError(
                f"extend: no grouping factor {name!r}; there are {', '.join(groups)} and 'rows'"
            )
        for value in values:
            if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < 1:
                raise OptionError(f"extend[{name!r}] must be a whole number >= 1, got {value!r}")
    if sizes and any(term.precision is not None for term in fit._terms):
        raise OptionError("extend: levels correlated by a known precision cannot be added to")


def extended_design(fit: LMMFit, sizes: Mapping[str, int]) -> Any:
    """The design with other numbers of levels: those of the data in turn, each time with their rows."""
    design: Any = fit._random
    for name, size in sizes.items():
        if name == "rows":
            copies = np.tile(np.arange(size), design.n)  # series of residuals of their own
            design = rows_of_design(design, np.repeat(np.arange(design.n), size), None, copies)
            continue
        term = next(term for term in design.terms if term.group == name)
        design, _ = cluster_design(design, term, np.arange(size) % term.m)
    return design


def binomial_interval(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Clopper and Pearson's interval of a proportion.

    Examples
    --------
    >>> from mixedmodels.inference.bootstrap.power import binomial_interval
    >>> low, high = binomial_interval(8, 10)
    >>> round(low, 4), round(high, 4)
    (0.4439, 0.9748)
    """
    from scipy.special import betaincinv

    tail = 0.5 * (1.0 - level)
    low = 0.0 if successes == 0 else float(betaincinv(successes, n - successes + 1, tail))
    high = 1.0 if successes == n else float(betaincinv(successes + 1, n - successes, 1.0 - tail))
    return low, high


# ---------------------------------------------------------------------- simulation
@dataclass(frozen=True, slots=True)
class _Job:
    """P-values of simulated data sets; the model and, for likelihood ratios, the one without the columns."""

    model: LMMFit
    null: LMMFit | None
    drawing: Callable[[np.random.Generator, int], np.ndarray]
    columns: list[int] | None
    function: Callable[[Any], float] | None
    method: str
    entropy: int

    def start(self) -> Any:
        if self.function is not None or self.method not in ("wald", "lrt"):
            return None
        return refit_state(self.model), None if self.null is None else refit_state(self.null)

    def run(self, state: Any, chunk: tuple[int, int]) -> np.ndarray:
        c, count = chunk
        Y = self.drawing(chunk_stream(self.entropy, c), count).T
        if state is None:
            return np.array([self._p_value(y) for y in Y])
        from scipy.special import chdtrc

        assert self.columns is not None
        Y = np.ascontiguousarray(Y)
        full = refit_rows(self.model, state[0], Y, vcov=True)
        if self.null is not None:
            small = refit_rows(self.null, state[1], Y)
            return chdtrc(len(self.columns), np.maximum(small.criterion - full.criterion, 0.0))
        assert full.vcov is not None
        b = full.beta[:, self.columns]
        V = full.vcov[:, self.columns][:, :, self.columns]
        good = np.isfinite(b).all(axis=1) & (np.linalg.det(np.where(np.isfinite(V), V, 0.0)) > 0.0)
        out = np.full(b.shape[0], np.nan)
        wald = np.einsum("ni,ni->n", b[good], np.linalg.solve(V[good], b[good][:, :, None])[:, :, 0])
        out[good] = chdtrc(len(self.columns), wald)
        return out

    def _p_value(self, y: np.ndarray) -> float:
        from mixedmodels.inference.ddf.reference import reference_for

        try:
            new = refit_one(self.model, y)
            if self.function is not None:
                answer = self.function(new)
            else:
                assert self.columns is not None
                L = np.eye(self.model.design.p)[self.columns]
                answer = reference_for(new, _DDF.get(self.method, self.method)).f_test(L).p_value
        except MixedModelsError:
            return math.nan
        try:
            p_value = float(answer)
        except (TypeError, ValueError):
            raise OptionError(
                f"test must return a p-value, one number; it returned {type(answer).__name__}"
            ) from None
        if not 0.0 <= p_value <= 1.0 and not math.isnan(p_value):
            raise OptionError(f"test must return a p-value between 0 and 1; it returned {p_value:g}")
        return p_value


def _job(
    fit: LMMFit,
    design: Any,
    beta: np.ndarray,
    columns: list[int] | None,
    function: Callable[[Any], float] | None,
    method: str,
    entropy: int,
) -> _Job:
    rng = np.random.default_rng(np.random.SeedSequence(entropy, spawn_key=(2**31,)))
    drawing = _Drawing(fit, design, beta)
    y = drawing(rng, 1)[:, 0]
    if not fit._is_linear:
        model, null = _generalised_models(fit, design, y, columns if method == "lrt" else None)
        return _Job(model, null, drawing, columns, function, method, entropy)
    source = fit.refit_ml() if method == "lrt" and function is None else fit
    model = fit_to_design(source, replace(design, y=y))
    null = None
    if method == "lrt" and function is None:
        assert columns is not None
        kept = [j for j in range(design.p) if j not in columns]
        null = fit_to_design(
            source,
            replace(
                design,
                y=y,
                X=np.ascontiguousarray(design.X[:, kept]),
                x_names=tuple(design.x_names[j] for j in kept),
            ),
        )
    if function is None and method not in ("wald", "lrt"):
        from mixedmodels.inference.ddf.reference import reference_for

        reference_for(model, _DDF.get(method, method))  # one clear error before the work
    return _Job(model, null, drawing, columns, function, method, entropy)


@dataclass(frozen=True, slots=True)
class _Drawing:
    """Responses of a design with given coefficients: ``drawing(rng, N)``, shape (n, N)."""

    fit: Any
    design: Any
    beta: np.ndarray

    def __call__(self, rng: np.random.Generator, N: int) -> np.ndarray:
        fit, design = self.fit, self.design
        factors = [np.array(factor) for factor in fit._factors]
        if fit._is_linear:
            base = design.X @ self.beta
            if design.offset is not None:
                base = base + design.offset
            phi = None if design.residual is None else np.array(fit.phi)
            return draw_columns(design, base, fit.sigma, factors, rng, N, phi)
        from mixedmodels.fit.glmm_simulate import Drawing, draw_generalised
        from mixedmodels.fit.glmm_values import linear_predictor
        from mixedmodels.fit.simulate import relationship_root

        base = np.array([linear_predictor(design, c, self.beta, (), ()) for c in range(len(fit.components))])
        terms = [
            Drawing(
                c, term.codes, term.Z, term.m, factor, term.precision and relationship_root(term.precision)
            )
            for c, term, factor in zip(design.term_predictor, design.terms, factors, strict=True)
        ]
        return draw_generalised(fit.family.at(design, self.beta), design.data, base, terms, N, rng)


def _generalised_models(fit: Any, design: Any, y: np.ndarray, columns: list[int] | None) -> tuple[Any, Any]:
    """The model of a generalised fit for a design, and with `columns` that with these at zero."""
    model = fit_to_design(fit, design.with_response(fit.family, design.data.with_y(y)))
    if columns is None:
        return model, None
    from mixedmodels.fit.glmm import fit_glmm_frame

    zero = {fit.gamma_names[j]: 0.0 for j in columns}
    start = np.array(fit.psi)
    start[columns] = 0.0
    fixed = {**(fit._options.fixed or {}), **zero}
    return model, fit_glmm_frame(model.frame, replace(fit._options, fixed=fixed, start=start, progress=None))


def _simulate(job: _Job, n: int, n_jobs: int | None, counter: Counter, backend: str | None) -> np.ndarray:
    size = chunk_size(job.model.design.n)
    chunks = [(c, min(size, n - c * size)) for c in range((n + size - 1) // size)]
    results, interrupted = run_chunks(
        job, chunks, [count for _, count in chunks], limited_jobs(job.model, n_jobs), counter, backend
    )
    if interrupted:
        raise KeyboardInterrupt
    return np.concatenate(results)
