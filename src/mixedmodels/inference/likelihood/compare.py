"""Likelihood-ratio comparison of models fitted to the same data."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import DataError, OptionError
from mixedmodels.fit.simulate import generator
from mixedmodels.inference.likelihood.glmm_compare import check_generalised, differences, generalised_nesting
from mixedmodels.inference.likelihood.glmm_reduced import refuse_priors
from mixedmodels.inference.likelihood.lrt import (
    LRT_METHODS,
    LikelihoodRatio,
    Resampling,
    check_method,
    likelihood_ratio,
)
from mixedmodels.inference.likelihood.lrt_bootstrap import check_draws
from mixedmodels.inference.likelihood.nesting import Span, nested_random, nested_residual, span_of
from mixedmodels.inference.table import ResultTable, result_table
from mixedmodels.objective.glmm_restrictions import groups_of_names
from mixedmodels.solver.threads import one_blas_thread

if TYPE_CHECKING:
    from mixedmodels.fit.result import LMMFit

__all__ = ["compare"]

_TITLES = {
    "chi2": "chi-squared",
    "mixture": "boundary mixture of chi-squared",
    "bootstrap": "parametric bootstrap",
}


@one_blas_thread()
def compare(
    *fits: LMMFit,
    method: str = "chi2",
    refit: str | bool = "auto",
    n: int = 1000,
    seed: Any = None,
    n_jobs: int | None = None,
    progress: Any = None,
) -> ResultTable:
    r"""Compare models of one response by likelihood ratios, AIC and BIC, each with the one before it.

    .. math:: T = 2(\ell_1 - \ell_0) \sim \chi^2_{p_1 - p_0}

    Restricted likelihoods are comparable only between models whose fixed parts span the same space (then they
    are brought to the coding of the first model). Where the spaces differ, models fitted by REML are refitted
    by maximum likelihood, and a note says so.

    Parameters
    ----------
    *fits : LMMFit
        Two or more fits; they are sorted by their number of parameters.
    method : {"chi2", "mixture", "bootstrap"}
        Where the p-values come from. ``"chi2"`` is conservative for a variance, which lies on the boundary of
        its range if it is zero; ``"mixture"``: half of it has one degree of freedom less, where one variance
        is tested (Stram & Lee 1994); ``"bootstrap"``: simulated from the smaller model,
        ``(#{T* >= T} + 1) / (n + 1)``.
    refit : {"auto", True, False}
        Whether REML fits are refitted by ML: where needed, always, or never (an error where it is needed).
    n, seed, n_jobs, progress
        Draws of the bootstrap, seed, threads, progress; the result does not depend on `n_jobs`.

    Returns
    -------
    ResultTable
        model, npar, aic, bic, loglik, statistic, df, p_value; NaN in the first row, where a model has no more
        parameters than the one before, and for the p-value where the fixed parts are not nested. ``extra``
        holds ``fits`` and, by bootstrap, ``draws``.

    Raises
    ------
    DataError
        The models were fitted to different rows, responses or weights.
    OptionError
        Fewer than two fits, something that is no fit, an unknown method, or n < 1.

    References
    ----------
    Stram & Lee (1994), Biometrics 50:1171-1177; Pinheiro & Bates (2000), Mixed-Effects Models in S and
    S-PLUS, sec. 2.4.

    Examples
    --------
    >>> import mixedmodels as mm
    >>> df = mm.load_dataset("sleepstudy", backend="dict")
    >>> one = mm.lmm("Reaction ~ Days + (1 | Subject)", df, reml=False)
    >>> two = mm.lmm("Reaction ~ Days + (Days | Subject)", df, reml=False)
    >>> mm.compare(one, two)["statistic"].round(3).tolist()
    [nan, 42.139]
    """
    check_method(method, LRT_METHODS)
    if refit not in ("auto", True, False):
        raise OptionError(f"refit must be 'auto', True or False, got {refit!r}")
    if len(fits) < 2:
        listed = "; write compare(*fits) for a list" if fits and isinstance(fits[0], (list, tuple)) else ""
        raise OptionError(f"compare() needs two or more fits{listed}")
    for fit in fits:
        if not hasattr(fit, "refit_ml"):
            raise OptionError(f"compare() takes fits, got {type(fit).__name__}")
    refuse_priors(*fits)
    resampling = Resampling(check_draws(n), generator(seed), n_jobs, progress)
    generalised = any(not fit._is_linear for fit in fits)
    _check_same_rows(fits)
    if generalised:
        told = check_generalised(fits)
    else:
        _check_same_data(fits)
    spans = _spans(fits)
    fits, notes = _comparable(fits, spans, refit)
    if generalised:
        notes = told
    order = sorted(range(len(fits)), key=lambda i: fits[i].df_model)
    fits, spans = tuple(fits[i] for i in order), [spans[i] for i in order]
    # -2 log-likelihoods in the coding of the first model
    shifts = [0.0] * len(fits)
    if fits[0].is_reml and any(span is not spans[0] for span in spans):
        shifts = [-2.0 * spans[0].logdet_from(span) for span in spans]
        notes.append("restricted likelihoods are given in the coding of the first model's fixed part")
    names = _names(fits)
    if generalised and fits[0].formula_text and all(fit.formula_text not in names for fit in fits):
        notes.insert(0, f"all models: {fits[0].formula_text}")
    tests: list[LikelihoodRatio | None] = [None]
    for i in range(1, len(fits)):
        pair, shift = (names[i - 1], names[i]), shifts[i - 1] - shifts[i]
        if generalised:
            test = _generalised_pair(fits[i - 1], fits[i], pair, method, resampling)
        else:
            test = _pair(fits[i - 1], fits[i], spans[i - 1], spans[i], shift, pair, method, resampling)
        tests.append(test)
        if test is None:
            notes.append(
                f"{names[i - 1]} and {names[i]} have equally many parameters, so there is no test between "
                "them; compare AIC or BIC"
            )
        else:
            notes += test.notes
    criteria = [fit.criterion + shift for fit, shift in zip(fits, shifts, strict=True)]
    columns: dict[str, list[Any]] = {
        "model": names,
        "npar": [fit.df_model for fit in fits],
        "aic": [d + 2.0 * fit.df_model for d, fit in zip(criteria, fits, strict=True)],
        "bic": [d + math.log(fit.nobs) * fit.df_model for d, fit in zip(criteria, fits, strict=True)],
        "loglik": [-0.5 * d for d in criteria],
        "statistic": [math.nan if test is None else test.statistic for test in tests],
        "df": [math.nan if test is None else float(test.df) for test in tests],
        "p_value": [math.nan if test is None else test.p_value for test in tests],
    }
    extra: dict[str, Any] = {"fits": fits}
    if method == "bootstrap":
        extra["draws"] = tuple(None if test is None else test.draws for test in tests)
        notes.insert(0, f"p-values from {resampling.n} draws from the smaller model")
    criterion = "REML" if fits[0].is_reml else "ML"
    title = f"Likelihood-ratio tests ({criterion}, {_TITLES[method]})"
    return result_table(title, columns, notes, fits[0]._native, extra)


def _names(fits: tuple[Any, ...]) -> list[str]:
    names = [fit.formula_text or f"model {i + 1}" for i, fit in enumerate(fits)]
    if len({str(getattr(fit.design, "residual", None)) for fit in fits}) > 1:
        names = [_with_residual(name, fit) for name, fit in zip(names, fits, strict=True)]
    if all(fit._is_linear for fit in fits):
        names = [name + _restrictions(fit) for name, fit in zip(names, fits, strict=True)]
    if len(set(names)) == len(names) or any(fit._is_linear for fit in fits):
        return names
    told = differences(fits)
    if len(set(names)) > 1:
        told = ["; ".join(filter(None, pair)) for pair in zip(names, told, strict=True)]
    return [text or f"model {i + 1}" for i, text in enumerate(told)]


def _with_residual(name: str, fit: Any) -> str:
    text = getattr(fit.design.residual, "text", "")
    return f"{name}; residual {text}" if text else name


def _restrictions(fit: Any) -> str:
    """What `fixed` and `equal` hold, as in ``"; rho = 0.3, sd_x|g = sd_z|g"``."""
    held = [f"{name} = {value:g}" for name, value in (fit._options.fixed or {}).items()]
    held += [" = ".join(names) for names in groups_of_names(fit._options.equal)]
    return f"; {', '.join(held)}" if held else ""


def _spans(fits: tuple[Any, ...]) -> list[Span]:
    """Column spaces of the fixed parts; the same object where two fits have the same matrix."""
    spans: list[Span] = []
    for i, fit in enumerate(fits):
        X = fit.design.X
        for j in range(i):
            other = fits[j].design.X
            if X is other or (X.shape == other.shape and np.array_equal(X, other)):
                spans.append(spans[j])
                break
        else:
            spans.append(span_of(X))
    return spans


def _comparable(
    fits: tuple[Any, ...], spans: list[Span], refit: str | bool
) -> tuple[tuple[Any, ...], list[str]]:
    """The fits by one criterion that may be compared, refitted by ML where needed, with a note."""
    why = ""
    if len({bool(fit.is_reml) for fit in fits}) > 1:
        why = "REML and ML fits cannot be compared with each other"
    elif fits[0].is_reml:
        first = spans[0]
        for fit, span in zip(fits, spans, strict=True):
            if span is not first and not (span.R.shape == first.R.shape and first.contains(fit.design.X)):
                why = "their fixed parts differ"
                break
    if why and refit is False:
        raise OptionError(
            f"these REML fits cannot be compared because {why}; use refit='auto' to refit them by maximum "
            "likelihood"
        )
    if not any(fit.is_reml for fit in fits) or not (why or refit is True):
        return fits, []
    reason = why or "refit=True"
    notes = [f"models were refitted by maximum likelihood because {reason}"]
    return tuple(fit.refit_ml() for fit in fits), notes


def _pair(
    small: Any,
    large: Any,
    span_small: Span,
    span_large: Span,
    shift: float,
    names: tuple[str, str],
    method: str,
    resampling: Resampling,
) -> LikelihoodRatio | None:
    df = large.df_model - small.df_model
    if df == 0:
        return None
    what = f"{names[0]} against {names[1]}"
    if not _fixed_nested(small, large, span_small, span_large):
        statistic = small.criterion - large.criterion + shift
        note = (
            f"{what}: the models are not nested (the fixed part of the smaller one is not contained in the "
            "other), so there is no test; compare AIC or BIC"
        )
        return LikelihoodRatio(max(statistic, 0.0), df, math.nan, (note,))
    random = nested_random(small.design, large.design)
    residual = nested_residual(small.design, large.design)
    if _has_function(small) or _has_function(large) or random.missing or not residual:
        terms = ", ".join(_bar(small, i) for i in random.missing)
        terms = terms or ("its covariance" if residual else "the residual structure")
        note = (
            f"{what}: {terms} of the smaller model could not be shown to lie inside the larger one; the "
            "p-value holds only if the models are nested"
        )
        test = likelihood_ratio(small, large, method, df, None, what, shift, resampling)
        return LikelihoodRatio(test.statistic, df, test.p_value, (note, *test.notes), test.draws)
    return likelihood_ratio(small, large, method, df, random.new_dimensions, what, shift, resampling)


def _generalised_pair(
    small: Any, large: Any, names: tuple[str, str], method: str, resampling: Resampling
) -> LikelihoodRatio | None:
    df = large.df_model - small.df_model
    if df == 0:
        return None
    what = f"{names[0]} against {names[1]}"
    nesting = generalised_nesting(small, large)
    if nesting.nested is False:
        statistic = max(small.criterion - large.criterion, 0.0)
        note = f"{what}: the models are not nested ({nesting.why}), so there is no test; compare AIC or BIC"
        return LikelihoodRatio(statistic, df, math.nan, (note,))
    test = likelihood_ratio(small, large, method, df, nesting.boundary, what, 0.0, resampling, nesting.edge)
    if nesting.nested is None:
        note = f"{what}: {nesting.why}; the p-value holds only if the models are nested"
        return LikelihoodRatio(test.statistic, df, test.p_value, (note, *test.notes), test.draws)
    return test


def _has_function(fit: Any) -> bool:
    return getattr(fit.frame, "covariance", None) is not None


def _bar(fit: Any, position: int) -> str:
    from mixedmodels.inference.likelihood.reduced import bar_labels

    return bar_labels(fit)[position]


def _fixed_nested(small: Any, large: Any, span_small: Span, span_large: Span) -> bool:
    a, b = small.design.offset, large.design.offset
    n = small.nobs
    shifted = (np.zeros(n) if a is None else a) - (np.zeros(n) if b is None else b)
    if shifted.any() and not span_large.contains(shifted[:, None]):
        return False
    return span_small is span_large or span_large.contains(small.design.X)


def _check_same_rows(fits: tuple[Any, ...]) -> None:
    sizes = [fit.nobs for fit in fits]
    if len(set(sizes)) > 1:
        counts = ", ".join(map(str, sizes))
        raise DataError(
            f"the models were fitted to different rows ({counts} observations); fit them to the same rows: "
            "drop the rows with missing values in any of their variables first"
        )


def _check_same_data(fits: tuple[Any, ...]) -> None:
    first = fits[0].design
    for fit in fits[1:]:
        if not np.array_equal(first.y, fit.design.y):
            raise DataError(
                "the models have different responses; likelihoods of different data cannot be compared"
            )
        ours, theirs = first.weights, fit.design.weights
        if (ours is None) != (theirs is None) or (ours is not None and not np.array_equal(ours, theirs)):
            raise DataError(
                "the models have different weights; fit them with the same weights= to compare them"
            )
