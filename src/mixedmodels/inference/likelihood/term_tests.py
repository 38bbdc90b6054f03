"""Tests of single terms: fixed ones by Wald, likelihood ratio or bootstrap; random ones left out in turn."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import OptionError
from mixedmodels.fit.simulate import generator
from mixedmodels.inference.ddf.reference import reference_for
from mixedmodels.inference.fixed.component import component_view, views_with_terms
from mixedmodels.inference.fixed.drop1 import find_term, nothing_left
from mixedmodels.inference.fixed.wald_table import is_chi_squared, test_name, test_row
from mixedmodels.inference.likelihood.lod import lod_of
from mixedmodels.inference.likelihood.lrt import LikelihoodRatio, Resampling, check_method, likelihood_ratio
from mixedmodels.inference.likelihood.lrt_bootstrap import check_draws
from mixedmodels.inference.likelihood.nesting import nested_random
from mixedmodels.inference.likelihood.reduced import (
    FixedPart,
    Reduction,
    find_reductions,
    fit_design,
    fixed_part,
    restricted_design,
    without_term,
)
from mixedmodels.inference.likelihood.rlrt import simulate_statistics, spectrum_of
from mixedmodels.inference.table import ResultTable, result_table

if TYPE_CHECKING:
    from mixedmodels.fit.result import LMMFit

__all__ = ["test_fixed", "test_random"]

_FIXED = ("wald", "lrt", "bootstrap")
_RANDOM = ("lrt", "mixture", "rlrt", "bootstrap")
_DRAWS = ("n", "seed", "n_jobs", "progress")


# ---------------------------------------------------------------------- fixed effects


def test_fixed(
    fit: LMMFit, variable: Any, method: str = "wald", component: str | None = None, **options: Any
) -> ResultTable:
    r"""Test of a fixed effect: a term, a coefficient, or all terms of a variable; see `LMMFit.test_fixed`.

    Parameters
    ----------
    fit : LMMFit
    variable : str, tuple of str or list
        ``"f"``, ``"x:f"`` or ``("x", "f")``, a coefficient such as ``"fB"``, or a list of these for a joint
        test. A variable that is no term by itself stands for all terms that use it.
    method : {"wald", "lrt", "bootstrap"}
        F test with ``ddf=``; or refits by maximum likelihood without the columns, with chi-squared or
        bootstrap p-value (``n=``, ``seed=``, ``n_jobs=``, ``progress=``).
    component : str, optional
        Linear predictor of a generalised model.

    Returns
    -------
    ResultTable
        Wald: term, statistic, num_df, den_df, p_value; of a generalised model term, statistic (chi-squared),
        df, p_value. Else term, statistic, df, lod, p_value, where ``lod``
        is the statistic over ``2 ln 10``.

    Raises
    ------
    OptionError
        There is no such term (the message lists those there are), or an unknown method or option.

    Examples
    --------
    >>> import mixedmodels as mm
    >>> fit = mm.lmm("Reaction ~ Days + (Days | Subject)", mm.load_dataset("sleepstudy", "dict"), reml=False)
    >>> fit.test_fixed("Days", "lrt")["statistic"].round(4).tolist()
    [23.5365]
    """
    check_method(method, _FIXED)
    fit = component_view(fit, component)
    _check_options(options, ("ddf",) if method == "wald" else _DRAWS if method == "bootstrap" else ())
    part = fixed_part(fit)
    label, columns, labels = _chosen(part, fit, variable)
    C = part.without(columns, labels)
    df = fit.design.p - C.shape[1]
    if df == 0:
        raise OptionError(nothing_left(label))
    notes = [
        f"{name} is contained in {', '.join(outer)}: tested are its own columns, and what they mean depends "
        "on the contrasts"
        for name in labels
        if (outer := [x for x in part.containing(name) if x not in labels])
    ]
    if method == "wald":
        reference = reference_for(fit, options.get("ddf"))
        t = reference.f_test(part.hypothesis(C))
        chi = is_chi_squared(fit, reference)
        row = test_row(t, chi)
        order = ("statistic", "df", "p_value") if chi else ("statistic", "num_df", "den_df", "p_value")
        cells: dict[str, list[Any]] = {"term": [label], **{name: [row[name]] for name in order}}
        title = f"{test_name(chi)} of {label}" + ("" if chi else f" ({reference.label} degrees of freedom)")
        untested = () if fit._is_linear else reference.notes
        return result_table(title, cells, [*notes, *untested], fit._native)
    if fit.is_reml:
        notes.insert(0, "the model was refitted by maximum likelihood because fixed parts differ")
    large = fit.refit_ml()
    small = fit_design(fit, restricted_design(fit.design, C), reml=False)
    if not fit._is_linear:  # coefficients may be held
        df = large.df_model - small.df_model
    resampling = _resampling(options)
    test = likelihood_ratio(
        small, large, "bootstrap" if method == "bootstrap" else "chi2", df, 0, label, resampling=resampling
    )
    cells = {
        "term": [label],
        "statistic": [test.statistic],
        "df": [float(df)],
        "lod": [lod_of(test.statistic)],
        "p_value": [test.p_value],
    }
    how = f"parametric bootstrap, {resampling.n} draws" if method == "bootstrap" else "chi-squared"
    title = f"Likelihood-ratio test of {label} (ML, {how})"
    extra = {"draws": test.draws} if method == "bootstrap" else {}
    return result_table(title, cells, [*notes, *test.notes], fit._native, extra)


def _chosen(part: FixedPart, fit: LMMFit, variable: Any) -> tuple[str, list[int], list[str]]:
    """Label, columns of the full matrix, and whole terms that a request names."""
    if not part.names:
        raise OptionError("the model has no fixed effects to test")
    wanted = variable if isinstance(variable, list) else [variable]
    columns: list[int] = []
    labels: list[str] = []
    shown: list[str] = []
    for name in wanted:
        label = find_term(part, name)
        if label is not None:
            labels.append(label)
            columns += part.columns[label]
            shown.append(label)
            continue
        text = str(name)
        if text in part.names:
            columns.append(part.names.index(text))
            shown.append(text)
            continue
        using = [x for x in part.labels if text in _variables_of(fit, x)]
        if not using:
            raise OptionError(
                f"the fixed part has no term {name!r}; its terms are {', '.join(part.labels) or 'none'}, its "
                f"coefficients {', '.join(part.names)}"
            )
        labels += using
        shown += using
        for x in using:
            columns += part.columns[x]
    if not columns:
        raise OptionError("test_fixed needs the name of a term")
    return ", ".join(dict.fromkeys(shown)), sorted(set(columns)), list(dict.fromkeys(labels))


def _variables_of(fit: LMMFit, label: str) -> set[str]:
    """Columns of the data that a term uses."""
    encoding = fit.frame.encoding
    if encoding is None:
        return set()
    from mixedmodels.formula import variables

    part = encoding.fixed
    return {
        name
        for v in part.terms[part.labels.index(label)]
        for name in variables(encoding.variables[v].expression)
    }


# ---------------------------------------------------------------------- random effects


def test_random(fit: LMMFit, term: Any = None, method: str = "lrt", **options: Any) -> ResultTable:
    r"""Random terms left out in turn; see `LMMFit.test_random`.

    A correlated term is also reduced by one effect: ``Days in (Days | Subject)`` compares with
    ``(1 | Subject)``. A model whose last random term goes is compared with weighted least squares, by the
    same criterion (REML stays REML: the fixed part is the same).

    Parameters
    ----------
    fit : LMMFit
    term : str, optional
        A random term, ``"Days in (Days | Subject)"``, or a group; None for all.
    method : {"lrt", "mixture", "rlrt", "bootstrap"}
        Chi-squared (conservative: a variance of zero is on the boundary); its mixture; the exact distribution
        for one variance by simulation (Crainiceanu & Ruppert 2004), approximate where other random terms
        remain (Greven et al. 2008); parametric bootstrap.
    **options
        ``n`` and ``seed`` for "rlrt" and "bootstrap" (10 000 and 1000 draws), ``n_jobs`` and ``progress`` for
        "bootstrap".

    Returns
    -------
    ResultTable
        term, npar, loglik, aic, statistic, df, p_value; the whole model first.

    Raises
    ------
    OptionError
        There is no such term, the method is unknown, or "rlrt" for more than one variance.

    References
    ----------
    Crainiceanu & Ruppert (2004), J. R. Stat. Soc. B 66:165-185; Greven, Crainiceanu, Kuechenhoff & Peters
    (2008), J. Comput. Graph. Stat. 17:870-891; Stram & Lee (1994), Biometrics 50:1171-1177.

    Examples
    --------
    >>> import mixedmodels as mm
    >>> fit = mm.lmm("Reaction ~ Days + (Days | Subject)", mm.load_dataset("sleepstudy", "dict"))
    >>> table = fit.test_random()
    >>> [(row["term"], round(row["statistic"], 4), row["df"]) for row in table.rows()[1:]]
    [('Days in (Days | Subject)', 42.8368, 2.0), ('(Days | Subject)', 150.0354, 3.0)]
    """
    check_method(method, _RANDOM)
    if method == "rlrt" and not fit._is_linear:
        raise OptionError(
            'method="rlrt" is exact for linear mixed models only; a generalised one has method="mixture" or '
            '"bootstrap"'
        )
    draws = {"bootstrap": _DRAWS, "rlrt": ("n", "seed")}.get(method, ())
    if method == "rlrt" and fit._is_linear and fit.design.residual is not None:
        raise OptionError(
            'method="rlrt" is exact for independent residuals of equal variance; with residual= use '
            'method="mixture" or "bootstrap"'
        )
    _check_options(options, draws)
    resampling = _resampling(options, 10_000 if method == "rlrt" else 1000)
    found = _reductions(fit, term)
    reductions = [reduction for _, reduction in found]
    notes: list[str] = []
    rows: list[tuple[Any, ...]] = [
        ("<none>", fit.df_model, fit.loglik, fit.aic, math.nan, math.nan, math.nan)
    ]
    kept: list[Any] = [None]
    skipped: list[str] = []
    for view, reduction in found:
        small = fit_design(view, without_term(view.design, reduction))
        df = fit.df_model - small.df_model
        if method == "rlrt" and term is None and not _one_variance(fit, reduction, df):
            skipped.append(reduction.label)
            test = LikelihoodRatio(max(small.criterion - fit.criterion, 0.0), df, math.nan)
        elif method == "rlrt":
            test = _exact(fit, small, reduction, df, resampling)
        else:
            boundary = _boundary(view, reduction, small)
            kind = "chi2" if method == "lrt" else method
            test = likelihood_ratio(small, fit, kind, df, boundary, reduction.label, resampling=resampling)
        notes += test.notes
        kept.append(test.draws)
        rows.append(
            (
                reduction.label,
                small.df_model,
                small.loglik,
                small.aic,
                test.statistic,
                float(test.df),
                test.p_value,
            )
        )
    if skipped:
        several = f"{', '.join(skipped)}: more than one parameter goes, and method 'rlrt' tests one variance"
        if len(skipped) == len(reductions):
            raise OptionError(f'{several}; use method="bootstrap" or "mixture"')
        notes.append(f'{several}; method="bootstrap" simulates the test')
    names = ("term", "npar", "loglik", "aic", "statistic", "df", "p_value")
    columns = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
    criterion = "REML" if fit.is_reml else "ML"
    how = {
        "lrt": "chi-squared",
        "mixture": "boundary mixture of chi-squared",
        "rlrt": f"exact distribution, {resampling.n} draws",
        "bootstrap": f"parametric bootstrap, {resampling.n} draws",
    }[method]
    extra = {"draws": tuple(kept)} if draws else {}
    return result_table(
        f"Random terms left out ({criterion}, {how})", columns, _joined(notes), fit._native, extra
    )


def _joined(notes: list[str]) -> list[str]:
    """Notes that say the same of several terms, said once."""
    by_text: dict[str, list[str]] = {}
    for note in notes:
        head, colon, text = note.partition(": ")
        by_text.setdefault(text if colon else note, []).append(head if colon else "")
    return [f"{', '.join(heads)}: {text}" if heads[0] else text for text, heads in by_text.items()]


def _reductions(fit: Any, term: Any) -> list[tuple[Any, Reduction]]:
    """Reductions of all linear predictors, with the view of the fit that each is about."""
    views = views_with_terms(fit)
    out: list[tuple[Any, Reduction]] = []
    problem: OptionError | None = None
    for view in views:
        component = getattr(view, "component", "")
        try:
            reductions = find_reductions(view, term)
        except OptionError as error:
            problem = problem or error
            continue
        out += [(view, replace(r, label=f"{component}: {r.label}") if component else r) for r in reductions]
    if not out and problem is not None:
        raise problem
    return out


def _boundary(view: Any, reduction: Reduction, small: Any) -> int:
    """Variances that are zero where the smaller model is true."""
    if view._is_linear:
        return nested_random(small.design, view.design).new_dimensions
    return nested_random(without_term(view.design, reduction), view.design).new_dimensions


def _one_variance(fit: LMMFit, reduction: Reduction, df: int) -> bool:
    """Whether exactly one variance goes and nothing else."""
    term = fit.design.terms[reduction.position]
    return df == 1 and (reduction.term is None or term.covariance.clip == "diagonal")


def _exact(fit: LMMFit, small: Any, reduction: Reduction, df: int, resampling: Resampling) -> LikelihoodRatio:
    term = fit.design.terms[reduction.position]
    label = reduction.label
    if not _one_variance(fit, reduction, df):
        raise OptionError(
            f'method="rlrt" tests one variance; leaving out {label} removes {df} parameters; use '
            'method="bootstrap" or "mixture", or name another term'
        )
    if reduction.term is not None:
        term = _left_out(term, reduction.term)
    if fit._options.sigma is not None:
        raise OptionError('method="rlrt" needs an estimated residual SD; this fit holds it fixed')
    statistic = max(small.criterion - fit.criterion, 0.0)
    spectrum = spectrum_of(fit.design, term)
    draws = simulate_statistics(spectrum, resampling.n, resampling.seed, fit.is_reml)
    # the statistic is known to the accuracy of the two criteria
    above = int((draws >= statistic - 1e-9 * (1.0 + abs(fit.criterion))).sum())
    notes = []
    if small.design.terms:
        notes.append(
            f"{label}: the other random terms are treated as known (approximation of Greven et al. 2008)"
        )
    draws.setflags(write=False)
    return LikelihoodRatio(statistic, 1, (above + 1) / (resampling.n + 1), tuple(notes), draws)


def _left_out(term: Any, small: Any) -> Any:
    """The one column of an independent-columns term that the smaller term does not have."""
    from mixedmodels.covariance import make_covariance

    columns = [j for j, name in enumerate(term.names) if name not in small.names]
    Z = np.ascontiguousarray(term.Z[:, columns])
    return replace(term, names=(term.names[columns[0]],), Z=Z, covariance=make_covariance("us", 1))


# ---------------------------------------------------------------------- options


def _check_options(options: Mapping[str, Any], allowed: tuple[str, ...]) -> None:
    for name in options:
        if name not in allowed:
            has = f"it takes {', '.join(allowed)}" if allowed else "it takes none"
            raise OptionError(f"this method has no option {name!r}; {has}")


def _resampling(options: Mapping[str, Any], n: int = 1000) -> Resampling:
    return Resampling(
        check_draws(options.get("n", n)),
        generator(options.get("seed")),
        options.get("n_jobs"),
        options.get("progress"),
    )
