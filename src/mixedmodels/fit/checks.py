"""Notes about singular or poorly determined parts of a fit, and errors for impossible ones."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import DataError, IdentifiabilityError, OptionError
from mixedmodels.frame.identify import FREE_DIAGONAL, holds_many_effects
from mixedmodels.solver._kernels.columns import spread

if TYPE_CHECKING:
    from mixedmodels.design import Design, RandomTerm

__all__ = [
    "SINGULAR_TOLERANCE",
    "check_data",
    "check_perfect_fit",
    "few_levels_notes",
    "formula_of",
    "is_singular",
    "limit_notes",
    "response_note",
    "scaled_factor",
    "singular_note",
    "smallest_eigenvalue",
    "term_gram",
]

# A scaled Sigma whose smallest eigenvalue is below this (an SD of 1e-4 residual SDs) counts as singular.
SINGULAR_TOLERANCE = 1e-8
_PERFECT = 1e-8
_FEW_LEVELS = 5
# A factor this large, in residual SDs, of a term with an effect for each row: no residual error is left.
_NO_RESIDUAL = 500.0
_RESIDUAL_TAGS = {
    "ar1": "ar1(time | group)",
    "hetar1": "ar1(time | group) * varident(time)",
    "car1": "car1(time | group)",
    "ou": "car1(time | group)",
    "cs": "cs(1 | group) * varident(time)",
    "homcs": "cs(1 | group)",
    "homtoep": "toep(time | group)",
    **{tag: f"{tag}(x + y | group)" for tag in ("exp", "gau", "sph", "ratio", "mat")},
    "toep": "toep(time | group) * varident(time)",
    "ad": "ad(time | group)",
}


def limit_notes(term: RandomTerm, factor: Sequence[Sequence[float]], n: int) -> list[str]:
    """A note on a structured term that has taken the place of the residuals."""
    if not hasattr(term.covariance, "correlation") or term.m * term.k < n:
        return []
    if float(np.abs(np.array(factor)).max(initial=0.0)) < _NO_RESIDUAL:
        return []
    name = getattr(term.covariance, "name", "")
    return [
        f"the residual SD tends to zero beside {name}(... | {term.group}): the estimates are the limit of a "
        "model without residual error; describe the residuals themselves, as in "
        f'residual="{_RESIDUAL_TAGS.get(name, name)}", and leave the term out'
    ]


def formula_of(formula: Any, data: Any) -> Any:
    """The parsed formula of a call with data.

    Raises
    ------
    FormulaError, OptionError, DataError
        It is not a formula, or there are no data.
    """
    if isinstance(formula, str):
        from mixedmodels.formula import parse

        formula = parse(formula)
    elif not hasattr(formula, "bars"):
        remedy = ""
        if hasattr(formula, "columns") or isinstance(formula, Mapping):
            remedy = "; the formula comes first, then the data"
        elif isinstance(formula, (list, tuple)):
            remedy = "; lists of names become one with formula_from_lists(response, fixed, random)"
        raise OptionError(f"formula must be a text or a Formula, got {type(formula).__name__}{remedy}")
    if data is None:
        raise DataError("no data were given; pass a data frame or a dict of arrays")
    return formula


def check_data(design: Design, *, sigma_fixed: bool = False) -> None:
    """Refuse data that no estimate can come from.

    Raises
    ------
    DataError
        Fewer observations than fixed effects need, or a response that is constant.
    IdentifiabilityError
        A term with as many random effects as observations, or with a single level.
    """
    n, p = design.n, design.p
    if n <= p and not sigma_fixed:
        raise DataError(
            f"{n} observations cannot estimate {p} fixed effects and a residual variance; "
            "use more rows or a smaller fixed part"
        )
    response = design.y if design.offset is None else design.y - design.offset
    if response.size and not sigma_fixed and float(response.max()) == float(response.min()):
        minus = "" if design.offset is None else " (minus the offset)"
        raise DataError(
            f"the response{minus} is constant ({float(response[0]):g} in all {n} rows): "
            "there is no variation to explain; check the response column"
        )
    if sigma_fixed:
        return
    constant_weights = design.weights is None or float(design.weights.min()) == float(design.weights.max())
    for term in design.terms:
        if term.precision is not None:
            continue
        where = f"({' + '.join(term.names)} | {term.group})"
        if term.m < 2 and not holds_many_effects(term.covariance):
            raise IdentifiabilityError(
                f"grouping factor {term.group!r} has a single level: a variance between levels cannot be "
                f"estimated; remove the term {where}"
            )
        alone = term.covariance.name in FREE_DIAGONAL or term.k == 1
        if constant_weights and alone and n <= term.m * term.k:
            raise IdentifiabilityError(
                f"the term {where} has {term.m * term.k} random effects for {n} observations: its variance "
                "and the residual variance cannot be told apart; remove columns or the term, or fix sigma="
            )


def check_perfect_fit(sigma: float, y: np.ndarray, offset: np.ndarray | None) -> None:
    """Refuse a fit whose residual standard deviation vanishes against that of the response.

    Raises
    ------
    DataError
        The model reproduces the response exactly; the likelihood is unbounded.
    """
    response = y if offset is None else y - offset
    if not sigma > _PERFECT * spread(response):
        raise DataError(
            "perfect fit: the model reproduces the response exactly, so the residual variance is zero and "
            "the likelihood unbounded; look for a copy of the response among the predictors, or drop terms"
        )


def term_gram(term: RandomTerm) -> np.ndarray:
    """Mean cross-product ``Z'Z / n`` of a term's columns, shape (k, k)."""
    if term.several_levels:
        return term.gram(term.n)
    if term.Z is None:
        return np.ones((1, 1))
    gram = term.Z.T.dot(term.Z)
    gram /= term.Z.shape[0]
    return gram


def scaled_factor(term: RandomTerm, factor: np.ndarray) -> np.ndarray:
    """Relative factor in units that do not depend on the columns': ``R factor`` with ``R'R = Z'Z / n``.

    For structures that do not mix columns R holds the columns' root mean squares only.
    """
    gram = term_gram(term)
    diagonal = np.diagonal(gram)
    if term.covariance.clip != "block" or term.k == 1:
        return np.sqrt(diagonal)[:, None] * factor
    try:
        R = np.linalg.cholesky(gram).T
        accurate = bool((np.diagonal(R) ** 2 > 1e-8 * diagonal).all())
    except np.linalg.LinAlgError:
        accurate = False
    if not accurate:  # columns nearly dependent (a far origin): their cross-product has lost the digits
        if term.Z is None:
            return np.sqrt(diagonal)[:, None] * factor
        R = np.asarray(np.linalg.qr(term.Z, mode="r")) / math.sqrt(term.Z.shape[0])
    return R @ factor


def is_singular(term: RandomTerm, factor: Sequence[Sequence[float]]) -> bool:
    """Whether the scaled covariance matrix of a term has an eigenvalue of (nearly) zero.

    Parameters
    ----------
    term : RandomTerm
    factor : nested lists, k x k
        Relative factor.
    """
    if term.Z is None and not term.several_levels:
        return factor[0][0] ** 2 < SINGULAR_TOLERANCE
    if term.k == 2 and term.covariance.clip == "block":
        # Eigenvalues of R Sigma R' are those of Sigma G: trace and determinant suffice.
        (a, _), (b, c) = factor
        (g00, g01), (_, g11) = term_gram(term).tolist()
        det = g00 * g11 - g01 * g01
        if det > 1e-8 * g00 * g11:
            trace = a * a * g00 + 2.0 * a * b * g01 + (b * b + c * c) * g11
            return _smaller_root(trace, a * a * c * c * det) < SINGULAR_TOLERANCE
    return smallest_eigenvalue(scaled_factor(term, np.array(factor)).tolist()) < SINGULAR_TOLERANCE


def _smaller_root(trace: float, determinant: float) -> float:
    """Smaller eigenvalue of a positive semi-definite 2 x 2 matrix."""
    # 2 det / (trace + root) instead of (trace - root) / 2: no cancellation near zero
    root = math.sqrt(max(0.0, trace * trace - 4.0 * determinant))
    return 2.0 * determinant / (trace + root) if trace > 0.0 else 0.0


def smallest_eigenvalue(factor: Sequence[Sequence[float]]) -> float:
    """Smallest eigenvalue of ``factor factor'``; in closed form up to two columns."""
    k = len(factor)
    if k == 1:
        return factor[0][0] * factor[0][0]
    if k == 2:
        (a, upper), (b, c) = factor
        return _smaller_root(a * a + upper * upper + b * b + c * c, (a * c - b * upper) ** 2)
    values = np.linalg.svd(np.asarray(factor), compute_uv=False)
    return float(values[-1]) ** 2


def singular_note(term: RandomTerm, factor: np.ndarray) -> str:
    """Says in words which variance is zero or which combination of columns does not vary.

    Parameters
    ----------
    term : RandomTerm
    factor : ndarray, shape (k, k)
        Relative factor whose product with its transpose is singular.
    """
    dependent = _dependent_columns(term)
    if dependent:
        return (
            f"singular fit: in {term.group}, the columns {_listed(dependent)} are linearly dependent, so "
            "their variances cannot be told apart; leave one of them out"
        )
    Sigma = factor @ factor.T
    sds = np.sqrt(np.diagonal(Sigma))
    sizes = sds * np.sqrt(np.diagonal(term_gram(term)))
    zero = [term.names[j] for j, size in enumerate(sizes.tolist()) if size**2 < SINGULAR_TOLERANCE]
    head = f"singular fit: in {term.group}, "
    remedy = "; the model may be too rich for these data, consider a simpler random part"
    if zero:
        verb = "variance of {} is" if len(zero) == 1 else "variances of {} are"
        return f"{head}the {verb.format(_listed(zero))} estimated as zero{remedy}"
    correlation = Sigma / sds / sds[:, None]
    if term.k == 2 and abs(abs(correlation[0, 1]) - 1.0) < 1e-4:
        sign = "+1" if correlation[0, 1] > 0 else "-1"
        return f"{head}the correlation of {_listed(term.names)} is estimated as {sign}{remedy}"
    # A null vector v of Sigma: v'b has no variance. It is found in units of the SDs, then told in the user's.
    values, vectors = np.linalg.eigh(correlation)
    null = max(1, int((values < 1e-6).sum()))
    v = vectors[:, 0]
    shown = np.flatnonzero(np.abs(v) > 1e-3 * np.abs(v).max())
    direction = v / sds
    direction = direction / direction[shown[0]]
    combination = " ".join([_signed(float(direction[j]), term.names[j]) for j in shown]).removeprefix("+ ")
    more = f" ({null} such combinations in all)" if null > 1 else ""
    return f"{head}the combination {combination} has no variance{more}{remedy}"


def _dependent_columns(term: RandomTerm) -> list[str]:
    """Names of columns of a correlated term that are linearly dependent, if there are any."""
    if term.k == 1 or term.covariance.clip != "block":
        return []
    gram = term_gram(term)
    scale = np.sqrt(np.diagonal(gram))
    if not scale.all():
        return [term.names[j] for j in np.flatnonzero(scale == 0.0)]
    values, vectors = np.linalg.eigh(gram / scale / scale[:, None])
    if values[0] > 1e-13:
        return []
    v = np.abs(vectors[:, 0])
    return [term.names[j] for j in np.flatnonzero(v > 1e-3 * v.max())]


def _signed(value: float, name: str) -> str:
    sign = "-" if value < 0 else "+"
    number = f"{abs(value):.3g}"
    return f"{sign} {name}" if number == "1" else f"{sign} {number} {name}"


def few_levels_notes(design: Design) -> list[str]:
    """Notes about grouping factors with two to four levels."""
    out = []
    for group, m in {term.group: term.m for term in design.terms}.items():
        if 1 < m < _FEW_LEVELS:
            out.append(
                f"grouping factor {group} has only {m} levels: its variance is poorly determined; "
                "a fixed effect may serve better"
            )
    return out


def response_note(formula: Any) -> str | None:
    """Note that everything is on the scale of a transformed response."""
    if formula is None or type(formula.response).__name__ == "Variable":
        return None
    return f"the response is {formula.response}: estimates, fitted values and predictions are on that scale"


def _listed(names: Sequence[str]) -> str:
    names = list(names)
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]
