"""A report on a fit: convergence, singularity, scaling, collinearity, identifiability, unusual data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.fit import checks
from mixedmodels.inference.checks.collinearity import (
    condition_number,
    fixed_terms,
    generalised_vif,
    inflatable,
    vif,
)
from mixedmodels.inference.checks.repca import principal_components
from mixedmodels.inference.checks.residual_patterns import residual_patterns
from mixedmodels.inference.checks.unusual import Finding, unusual_data
from mixedmodels.inference.table import ResultTable, result_table

if TYPE_CHECKING:
    from mixedmodels.fit.result import LMMFit

__all__ = ["Diagnosis", "Finding", "diagnose", "vif"]

_FEW, _VERY_FEW = 10, 5


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Diagnosis:
    """What `diagnose` found.

    Attributes
    ----------
    table : ResultTable
        Columns check, status ("ok", "note", "warning", "problem"), finding, remedy.
    findings : tuple of Finding
    """

    table: ResultTable
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether there is neither a warning nor a problem."""
        return all(finding.status in ("ok", "note") for finding in self.findings)

    def to_frame(self) -> Any:
        """The findings as a data frame."""
        return self.table.to_frame()

    def __str__(self) -> str:
        lines = [self.table.title]
        for check, status, finding, remedy in self.findings:
            lines.append(f"[{status:^7}] {check}: {finding}")
            if remedy:
                lines.append(f"          {remedy}")
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.to_html()

    def to_html(self) -> str:
        """The findings as an HTML table."""
        return self.table.to_html()


def diagnose(fit: Any) -> Diagnosis:
    """Look for everything that could be wrong with a fit.

    Convergence (predicted decrease of the criterion and the first-order conditions on the cone of covariance
    matrices), singular components (which combination of columns has no variance), scaling of the columns,
    collinearity (GVIF, condition number), identifiability (few levels, one row per level, terms that overlap,
    slopes of a variable that is constant within levels), autocorrelation and uneven spread of residuals
    (against 100 responses simulated from the fit), unusual rows, levels and influential levels.
    Of generalised models also the information about the parameters, separation, limits of the family, few
    binary observations per level, overdispersion and zeros.

    Parameters
    ----------
    fit : LMMFit or GLMMFit

    Returns
    -------
    Diagnosis

    Examples
    --------
    >>> import mixedmodels as mm
    >>> fit = mm.lmm("Reaction ~ Days + (Days | Subject)", mm.load_dataset("sleepstudy", backend="dict"))
    >>> print(fit.diagnose().findings[0].finding)
    converged: a further step would lower the criterion by less than 1e-09
    """
    findings: list[Finding] = []
    first: tuple[Any, ...] = (_convergence,)
    if not fit._is_linear:
        from mixedmodels.inference.checks import glmm_diagnose

        first = glmm_diagnose.LOOKS
    for look in (
        *first,
        _singularity,
        _scaling,
        _collinearity,
        _identifiability,
        residual_patterns,
        unusual_data,
    ):
        findings += look(fit)
    columns = {
        name: [str(getattr(finding, name)) for finding in findings]
        for name in ("check", "status", "finding", "remedy")
    }
    worst = [finding for finding in findings if finding.status in ("warning", "problem")]
    title = "Diagnosis: " + (f"{len(worst)} to look at" if worst else "nothing to worry about")
    return Diagnosis(result_table(title, columns, (), fit._native), tuple(findings))


# ---------------------------------------------------------------------- the optimum


def how_the_search_ended(fit: Any) -> Finding:
    """The finding about the optimiser of any fit."""
    optimum = fit.optimum
    decrement = float(optimum.decrement)
    if not fit.converged:
        number = "" if decrement != decrement else f"; predicted decrease {decrement:.1g}"
        text = f"not converged: {optimum.message}{number}"
        return Finding("convergence", "problem", text, optimum.status.remedy)
    if decrement != decrement:
        return Finding("convergence", "ok", f"converged ({optimum.method}, without derivatives)")
    bound = max(decrement, 1e-9)
    text = f"converged: a further step would lower the criterion by less than {bound:.0e}"
    return Finding("convergence", "ok", text)


def _convergence(fit: LMMFit) -> Iterator[Finding]:
    optimum = fit.optimum
    if not fit.theta.size:
        yield Finding("convergence", "ok", "nothing to optimise: the model has no covariance parameters")
        return
    yield how_the_search_ended(fit)
    for condition in optimum.kkt:
        if condition.min_eigenvalue < -1e-4:
            yield Finding(
                "first-order conditions",
                "problem",
                f"{condition.term}: the criterion still falls along a new direction of its covariance "
                f"(eigenvalue {condition.min_eigenvalue:.2g}): a saddle point",
                'refit with method="newton" or compare optimisers with allfit()',
            )
    if optimum.kkt:
        smallest = min(condition.min_eigenvalue for condition in optimum.kkt)
        largest = max(condition.residual for condition in optimum.kkt)
        if smallest >= -1e-4:
            yield Finding(
                "first-order conditions",
                "ok",
                f"smallest eigenvalue {smallest:.1g}, residual {largest:.1g}: a minimum to first order",
            )


def _singularity(fit: LMMFit) -> Iterator[Finding]:
    if not fit._terms:
        return
    for position in fit._singular:
        term, factor = fit._whitened_terms[position], np.array(fit._factors[position])
        note = checks.singular_note(term, factor).removeprefix("singular fit: ")
        finding, _, remedy = note.partition("; ")
        yield Finding("singularity", "warning", finding, remedy)
    for position, term in enumerate(fit._whitened_terms):
        if term.k < 2 or position in fit._singular:
            continue
        # in units of the data: neither the scale nor the origin of the columns matters
        sd, _ = principal_components(checks.scaled_factor(term, np.array(fit._factors[position])))
        weak = int((sd**2 < 0.01 * float((sd**2).sum())).sum())
        if weak:
            yield Finding(
                "singularity",
                "note",
                f"{term.group}: {weak} of {term.k} principal components carry less than 1 % of the variance "
                "of the random effects",
                "a simpler random part may do as well: see repca()",
            )
    if not fit._singular:
        yield Finding("singularity", "ok", "no variance is zero and no correlation is 1 or -1")


# ---------------------------------------------------------------------- the columns


def _scaling(fit: LMMFit) -> Iterator[Finding]:
    X, names = fit.design.X, fit.design.x_names
    columns = [j for j, name in enumerate(names) if name != "(Intercept)"]
    found = False
    if columns:
        mean = X[:, columns].mean(axis=0)
        sd = X[:, columns].std(axis=0)
        sd = np.where(sd > 0.0, sd, np.abs(mean))
        ratio = float(sd.max() / sd.min()) if (sd > 0.0).all() else 1.0
        if ratio > 1e4:
            small, large = names[columns[int(sd.argmin())]], names[columns[int(sd.argmax())]]
            found = True
            yield Finding(
                "scaling",
                "note",
                f"the SDs of {small} and {large} differ by a factor of {ratio:.1g}",
                "the estimates do not suffer (columns are standardised inside), but other units make the "
                "coefficients easier to read",
            )
    for term in fit.design.terms:
        if term.Z is None or term.k < 2 or term.names[0] != "(Intercept)":
            continue
        for j in range(1, term.k):
            column = term.Z[:, j]
            spread = float(column.std())
            if spread > 0.0 and abs(float(column.mean())) > 20.0 * spread:
                found = True
                yield Finding(
                    "scaling",
                    "note",
                    f"{term.names[j]} lies far from zero ({term.group}): the random intercept is an "
                    "extrapolation and almost collinear with the slope",
                    "centre it: variance and correlation of the intercept then mean something",
                )
    if not found:
        yield Finding("scaling", "ok", "the columns have comparable sizes")


def _collinearity(fit: LMMFit) -> Iterator[Finding]:
    if fit.dropped_columns:
        yield Finding(
            "rank",
            "warning",
            f"columns left out because they depend on others: {', '.join(fit.dropped_columns)}",
            "leave out the terms or cells that are empty, or read the other coefficients accordingly",
        )
    terms = inflatable(fit, fixed_terms(fit))
    if len(terms) < 2 or not np.isfinite(fit.vcov).all():
        return
    values = generalised_vif(fit.vcov, list(terms.values()))
    if not np.isfinite(values).all():
        return
    sizes = np.array([columns.stop - columns.start for columns in terms.values()])
    adjusted = values ** (1.0 / sizes)  # comparable with a VIF
    worst = int(adjusted.argmax())
    name, kappa = list(terms)[worst], condition_number(np.asarray(fit.design.X))
    finding = f"largest GVIF^(1/df) is {adjusted[worst]:.3g} ({name}); condition number {kappa:.3g}"
    if adjusted[worst] >= 10.0:
        yield Finding(
            "collinearity",
            "warning" if not _is_product(name) else "note",
            finding,
            "the terms cannot be told apart well: their standard errors are inflated; centre products and "
            "powers, or leave terms out",
        )
    elif adjusted[worst] >= 5.0:
        yield Finding("collinearity", "note", finding, "standard errors are inflated by related terms")
    else:
        yield Finding("collinearity", "ok", finding)


def _is_product(name: str) -> bool:
    return ":" in name or "**" in name or "^" in name


# ---------------------------------------------------------------------- what the data can tell


def _identifiability(fit: LMMFit) -> Iterator[Finding]:
    found = False
    terms = fit.design.terms
    for group in dict.fromkeys(term.group for term in terms):
        term = next(term for term in terms if term.group == group)
        if term.precision is not None:  # levels of one row are told from the error by their relatives
            continue
        if term.several_levels:
            own = term.matrix(term.n)
            counts = np.bincount(own.indices // term.k, minlength=term.m)
        else:
            counts = np.bincount(term.codes, minlength=term.m)
        if term.m < _FEW:
            found = True
            yield Finding(
                "identifiability",
                "warning" if term.m < _VERY_FEW else "note",
                f"{group} has only {term.m} levels: its variance is poorly determined",
                f"use profile intervals{' and Kenward-Roger tests' if fit._is_linear else ''}, "
                "or a fixed effect"
                if term.m >= _VERY_FEW
                else "a fixed effect may serve better",
            )
        single = int((counts == 1).sum())
        if 2 * single >= term.m and not (single == term.m and _explains_overdispersion(fit)):
            found = True
            yield Finding(
                "identifiability",
                "note" if single < term.m else "warning",
                f"{single} of the {term.m} levels of {group} have one row only",
                "its variance and the residual variance are told apart by the other rows only"
                if fit._is_linear
                else "its variance is determined by the other rows, or by the form of the distribution alone",
            )
    for finding in [*_overlaps(fit), *_between_only(fit)]:
        found = True
        yield finding
    if terms and not found:
        yield Finding("identifiability", "ok", "levels and rows suffice for every random term")


def _explains_overdispersion(fit: Any) -> bool:
    """Whether an effect of each row is a model of overdispersion: the family has no dispersion of its own."""
    if fit._is_linear or "dispersion" in fit.components:
        return False
    trials = fit.generalised.data.trials
    return fit.family.response == "count" or (trials is not None and bool((trials > 1.0).any()))


def _overlaps(fit: LMMFit) -> Iterator[Finding]:
    """Columns that two terms of a group share, and grouping factors that are the same partition."""
    terms = fit.design.terms
    for b, term in enumerate(terms):
        for other in terms[:b]:
            shared = [name for name in term.names if name in other.names]
            if other.group == term.group and shared and term.precision is None and other.precision is None:
                yield Finding(
                    "identifiability",
                    "warning",
                    f"two terms on {term.group} hold {', '.join(shared)}: only the sum of their variances is "
                    "determined",
                    "write 0 + in one of them",
                )
    seen: dict[str, Any] = {}
    for term in terms:
        seen.setdefault(term.group, term)
    groups = list(seen.values())
    for b, term in enumerate(groups):
        for other in groups[:b]:
            if term.precision is None and other.precision is None and _same_partition(term, other):
                yield Finding(
                    "identifiability",
                    "warning",
                    f"{term.group} and {other.group} group the rows in the same way",
                    "leave one of them out",
                )


def _same_partition(a: Any, b: Any) -> bool:
    if a.m != b.m or a.several_levels or b.several_levels:
        return False
    partner = np.full(a.m, -1, dtype=np.intp)
    partner[a.codes] = b.codes
    return bool((partner[a.codes] == b.codes).all())


def _between_only(fit: LMMFit) -> Iterator[Finding]:
    """Random slopes of columns that do not vary within any level."""
    for term in fit.design.terms:
        if term.Z is None or term.precision is not None or "(Intercept)" not in term.names:
            continue
        if term.several_levels:
            continue
        counts = np.maximum(np.bincount(term.codes, minlength=term.m), 1)
        for j, name in enumerate(term.names):
            column = np.ascontiguousarray(term.Z[:, j])
            centred = column - (np.bincount(term.codes, column, term.m) / counts)[term.codes]
            constant = name == "(Intercept)"
            if not constant and float(np.abs(centred).max()) <= 1e-10 * float(np.abs(column).max() or 1.0):
                yield Finding(
                    "identifiability",
                    "warning",
                    f"{name} does not vary within any level of {term.group}: its random slope cannot be told "
                    "from unequal variances of the intercept",
                    "leave the slope out",
                )
