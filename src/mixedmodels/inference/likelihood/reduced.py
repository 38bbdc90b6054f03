"""Smaller models inside a fitted one, made from its arrays: same rows, same weights, same coding.

A term of the fixed part is left out by its columns, a random term wholly or by columns; what remains of a
model without random effects is weighted least squares in closed form, with the constants of the criterion.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.covariance import make_covariance
from mixedmodels.errors import OptionError
from mixedmodels.fit.matrices import MatrixFrame
from mixedmodels.fit.solve import fit_frame
from mixedmodels.objective.base import gaussian_criterion

if TYPE_CHECKING:
    from mixedmodels.design import Design, RandomTerm
    from mixedmodels.fit.result import LMMFit

__all__ = [
    "FixedPart",
    "LeastSquares",
    "Reduction",
    "find_reductions",
    "fit_design",
    "fixed_part",
    "random_reductions",
    "without_term",
]

_TINY = 1e-9


# ---------------------------------------------------------------------- no random effects at all


@dataclass(frozen=True, eq=False)
class LeastSquares:
    r"""A linear model without random effects, with the criterion that a mixed model has at zero variances.

    .. math:: d = -\sum_i \log w_i + n\,(1 + \log(2\pi r^2/n)) \quad\text{(ML)}, \qquad
              d + \log|X'WX| \text{ with } n - p \text{ for } n \quad\text{(REML)}.

    Attributes
    ----------
    design : Design
        Its `terms` are empty.
    is_reml : bool
    sigma_fixed : float or None
    """

    design: Design
    is_reml: bool
    sigma_fixed: float | None = None

    is_singular = False
    formula_text = ""

    @cached_property
    def _qr(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        w = self.design.weights
        root = np.ones(self.design.n) if w is None else np.sqrt(w)
        Q, R = np.linalg.qr(self.design.X * root[:, None])
        return Q, R, root

    @cached_property
    def _logdets(self) -> float:
        w, R = self.design.weights, self._qr[1]
        logdet = 2.0 * float(np.log(np.abs(np.diagonal(R))).sum()) if self.is_reml else 0.0
        return logdet - (0.0 if w is None else float(np.log(w).sum()))

    @property
    def nobs(self) -> int:
        """Number of observations."""
        return self.design.n

    @property
    def _nu(self) -> int:
        return self.design.n - self.design.p if self.is_reml else self.design.n

    def _projected(self, Y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """``Q'y`` and the residual sum of squares of each column of Y."""
        Q, _, root = self._qr
        offset = self.design.offset
        Y = (Y if offset is None else Y - offset[:, None]) * root[:, None]
        along = Q.T @ Y
        residual = Y - Q @ along
        return along, np.einsum("ij,ij->j", residual, residual)

    def criteria(self, Y: np.ndarray) -> np.ndarray:
        """Criterion for each column of Y (nobs, N), shape (N,)."""
        rss = self._projected(Y)[1]
        return np.array(
            [gaussian_criterion(self._logdets, float(r), self._nu, self.sigma_fixed) for r in rss]
        )

    @cached_property
    def criterion(self) -> float:
        """-2 times the log-likelihood, REML or ML."""
        return float(self.criteria(self.design.y[:, None])[0])

    @property
    def loglik(self) -> float:
        """Log-likelihood, REML or ML."""
        return -0.5 * self.criterion

    @cached_property
    def beta(self) -> np.ndarray:
        """Fixed effects, shape (p,)."""
        along, _ = self._projected(self.design.y[:, None])
        return np.linalg.solve(self._qr[1], along[:, 0])

    @cached_property
    def sigma(self) -> float:
        """Residual standard deviation of an observation with weight 1."""
        if self.sigma_fixed is not None:
            return self.sigma_fixed
        return math.sqrt(float(self._projected(self.design.y[:, None])[1][0]) / self._nu)

    @property
    def df_model(self) -> int:
        """Free parameters."""
        return self.design.p + (self.sigma_fixed is None)

    @property
    def aic(self) -> float:
        """Akaike's criterion."""
        return self.criterion + 2.0 * self.df_model

    def simulate(self, n: int = 1, seed: Any = None) -> np.ndarray:
        """Responses drawn from the model, shape (nobs, n)."""
        rng = np.random.default_rng(seed)
        design = self.design
        mean = design.X @ self.beta + (0.0 if design.offset is None else design.offset)
        noise = self.sigma * rng.standard_normal((n, design.n)).T
        return mean[:, None] + noise / self._qr[2][:, None]


# ---------------------------------------------------------------------- fitting a reduced design


def fit_design(fit: LMMFit, design: Design, reml: bool | None = None) -> Any:
    """The model of `fit` with another design: an `LMMFit`, or `LeastSquares` without random terms.

    Parameters
    ----------
    fit : LMMFit, GLMMFit or ComponentView
        Gives the options.
    design : Design
    reml : bool, optional
        By default as `fit`.
    """
    options = fit._options
    if not fit._is_linear:
        from mixedmodels.inference.likelihood.glmm_reduced import fit_component

        return fit_component(fit, design)
    reml = options.reml if reml is None else reml
    frame = fit.frame
    structure = getattr(frame, "covariance", None)
    if not design.terms and structure is None and design.residual is None:
        return LeastSquares(design, reml, None if options.sigma is None else float(options.sigma))
    options = replace(options, reml=reml, start=None, solver="dense" if options.solver == "dense" else "auto")
    small = MatrixFrame(design, design.n, Z=getattr(frame, "Z", None), covariance=structure)
    return fit_frame(small, options)


# ---------------------------------------------------------------------- the fixed part


@dataclass(frozen=True, slots=True, eq=False)
class FixedPart:
    """Terms of the fixed part and their columns, columns that were dropped as dependent included.

    Attributes
    ----------
    columns : dict of str to list of int
        Columns of each term in the full matrix; the intercept is ``"(Intercept)"``.
    names : tuple of str
        Names of the columns of the full matrix.
    basis : ndarray, shape (p, P)
        The full matrix is ``X basis``.
    variables : dict of str to frozenset of str
        Expressions that make up each term.
    constant_in : frozenset of str
        Terms that hold the constant because the model has no intercept.
    scale : ndarray, shape (p,)
        Lengths of the columns of X.
    """

    columns: dict[str, list[int]]
    names: tuple[str, ...]
    basis: np.ndarray
    variables: dict[str, frozenset[str]]
    constant_in: frozenset[str]
    scale: np.ndarray

    @property
    def labels(self) -> list[str]:
        """Terms without the intercept."""
        return [label for label in self.columns if label != "(Intercept)"]

    def containing(self, label: str) -> list[str]:
        """Terms that contain `label` (interactions of it)."""
        inside = self.variables[label]
        return [other for other in self.labels if inside < self.variables[other]]

    def without(self, columns: Sequence[int], labels: Sequence[str] = ()) -> np.ndarray:
        """Basis C of the column space that is left without some columns: the reduced matrix is ``X C``."""
        gone = set(columns)
        kept = [j for j in range(len(self.names)) if j not in gone]
        C = self.basis[:, kept]
        constant = [label for label in labels if label in self.constant_in]
        others = self.constant_in.difference(labels)
        if constant and not others and any(len(self.variables[x]) == 1 for x in set(self.labels) - {*labels}):
            # without an intercept the next factor takes over the constant
            C = np.column_stack([self.basis[:, self.columns[constant[0]]].sum(axis=1), C])
        return C[:, _independent(C * self.scale[:, None])]

    def hypothesis(self, C: np.ndarray) -> np.ndarray:
        """L, shape (p - columns of C, p): ``L beta = 0`` where ``X beta`` lies in the span of ``X C``."""
        p = self.basis.shape[0]
        unit = (C != 0.0).sum(axis=0) == 1
        if unit.all() and C.shape[1] == (C != 0.0).any(axis=1).sum():
            return np.eye(p)[~(C != 0.0).any(axis=1)]
        U = np.linalg.svd(C * self.scale[:, None])[0]
        return U[:, C.shape[1] :].T * self.scale


def fixed_part(fit: LMMFit) -> FixedPart:
    """Terms, columns and dependences of the fixed part of a fit."""
    design, encoding = fit.design, fit.frame.encoding
    scale = np.sqrt(np.einsum("ij,ij->j", design.X, design.X))
    scale[scale == 0.0] = 1.0
    p = design.p
    if encoding is None:
        names = tuple(design.x_names)
        columns = {name: [j] for j, name in enumerate(names)}
        return FixedPart(columns, names, np.eye(p), {n: frozenset([n]) for n in names}, frozenset(), scale)
    part = encoding.fixed
    columns, at = {}, int(part.intercept)
    if part.intercept:
        columns["(Intercept)"] = [0]
    variables, constant = {"(Intercept)": frozenset[str]()}, []
    for label, stop, term, full in zip(part.labels, part.stops, part.terms, part.full, strict=True):
        columns[label] = list(range(at, stop))
        variables[label] = frozenset(encoding.variables[v].label for v in term)
        if not part.intercept and len(term) == 1 and full[0] and encoding.variables[term[0]].kind == "factor":
            constant.append(label)
        at = stop
    basis = np.eye(p)
    if encoding.kept is not None:
        total = len(part.names)
        kept = np.asarray(encoding.kept)
        gone = np.setdiff1d(np.arange(total), kept)
        if part.intercept and kept.shape[0] + encoding.null.shape[1] < total:
            gone = gone[gone > 0]  # thresholds stand for the intercept
        basis = np.zeros((p, total))
        basis[np.arange(p), kept] = 1.0
        null = encoding.null
        if part.intercept and null.shape[1] < len(gone):
            gone = gone[gone != 0]  # the thresholds of an ordinal model take the place of the intercept
        if len(gone):
            basis[:, gone] = -np.linalg.solve(null[gone].T, null[kept].T).T
        basis[np.abs(basis) * scale[:, None] < _TINY * (np.abs(basis) * scale[:, None]).max(axis=0)] = 0.0
    return FixedPart(columns, part.names, basis, variables, frozenset(constant), scale)


def _independent(C: np.ndarray) -> list[int]:
    """Columns that do not depend on earlier ones (Gram-Schmidt, twice)."""
    kept: list[int] = []
    Q = np.zeros((C.shape[0], 0))
    for j in range(C.shape[1]):
        column = C[:, j]
        size = float(np.linalg.norm(column))
        rest = column - Q @ (Q.T @ column)
        rest -= Q @ (Q.T @ rest)
        left = float(np.linalg.norm(rest))
        if size > 0.0 and left > 1e-7 * size:
            kept.append(j)
            Q = np.column_stack([Q, rest / left])
    return kept


def restricted_design(design: Design, C: np.ndarray) -> Design:
    """The design with the fixed part ``X C``; columns of X that are kept as they are keep their names."""
    unit = (C != 0.0).sum(axis=0) == 1
    rows = np.argmax(C != 0.0, axis=0) if C.size else np.zeros(0, dtype=int)
    if unit.all() and (C[rows, np.arange(C.shape[1])] == 1.0).all():
        X = design.X[:, rows]
    else:
        X = design.X @ C
    names = tuple(
        [
            design.x_names[i] if alone else f"x{j + 1}"
            for j, (i, alone) in enumerate(zip(rows, unit, strict=True))
        ]
    )
    return replace(design, X=np.ascontiguousarray(X), x_names=names)


# ---------------------------------------------------------------------- the random part


@dataclass(frozen=True, slots=True, eq=False)
class Reduction:
    """One way to make the random part smaller.

    Attributes
    ----------
    label : str
        ``"Days in (Days | Subject)"`` or the whole term ``"(Days | Subject)"``.
    position : int
        Term of the design.
    term : RandomTerm or None
        What takes its place; None for nothing.
    usual : bool
        Whether it is tried when no term is named (a correlated intercept is not).
    """

    label: str
    position: int
    term: RandomTerm | None
    usual: bool = True


def random_reductions(fit: LMMFit) -> list[Reduction]:
    """All ways to leave out a random term, or effects of one, of a fit."""
    design, encoding = fit.design, fit.frame.encoding
    out: list[Reduction] = []
    for position, label in enumerate(bar_labels(fit)):
        term = design.terms[position]
        whole = design.theta_index is not None or term.several_levels
        if not whole and term.covariance.name in ("us", "diag"):
            effects = _effects(term, None if encoding is None else encoding.bars[position])
            for name, columns in effects:
                kept = [j for j in range(term.k) if j not in columns]
                if not kept:
                    if (
                        name != "(Intercept)"
                        and term.k > 1
                        and term.covariance.name == "us"
                        and _sums_to_one(term)
                    ):
                        small = replace(
                            term, names=("(Intercept)",), Z=None, covariance=make_covariance("us", 1)
                        )
                        out.append(Reduction(f"{name} in {label}", position, small))
                    continue
                small = replace(
                    term,
                    names=tuple([term.names[j] for j in kept]),
                    Z=None if term.Z is None else np.ascontiguousarray(term.Z[:, kept]),
                    covariance=make_covariance(term.covariance.name, len(kept)),
                )
                usual = name != "(Intercept)" or term.covariance.name == "diag"
                out.append(Reduction(f"{name} in {label}", position, small, usual))
        out.append(Reduction(label, position, None))
    return out


def bar_labels(fit: LMMFit) -> list[str]:
    """Text of each random term."""
    encoding = fit.frame.encoding
    if encoding is not None:
        return list(encoding.bar_labels)
    return [f"({' + '.join(term.names)} | {term.group})" for term in fit.design.terms]


def _effects(term: RandomTerm, part: Any) -> list[tuple[str, list[int]]]:
    """Effects of a term that no other effect contains, with their columns."""
    if part is None:
        return [(name, [j]) for j, name in enumerate(term.names)]
    at = int(part.intercept)
    found: list[tuple[str, list[int]]] = [("(Intercept)", [0])] if part.intercept else []
    for label, stop, inside in zip(part.labels, part.stops, part.terms, strict=True):
        if not any(set(inside) < set(other) for other in part.terms):
            found.append((label, list(range(at, stop))))
        at = stop
    return found


def _sums_to_one(term: RandomTerm) -> bool:
    return (
        term.Z is not None
        and bool(np.all(term.Z.sum(axis=1) == 1.0))
        and bool(np.isin(term.Z, (0.0, 1.0)).all())
    )


def without_term(design: Design, reduction: Reduction) -> Design:
    """The design with one random term left out or replaced; shared parameters stay shared."""
    terms = list(design.terms)
    if reduction.term is not None:
        terms[reduction.position] = reduction.term
        return replace(design, terms=tuple(terms))
    index = design.theta_index
    if index is not None:
        sizes = [term.covariance.n_theta for term in terms]
        starts = np.concatenate([[0], np.cumsum(sizes)])
        inside = np.ones(starts[-1], dtype=bool)
        inside[starts[reduction.position] : starts[reduction.position + 1]] = False
        index = np.unique(index[inside], return_inverse=True)[1].astype(np.intp)
    del terms[reduction.position]
    return replace(design, terms=tuple(terms), theta_index=index)


def find_reductions(fit: LMMFit, wanted: Any) -> list[Reduction]:
    """The reductions that `wanted` names: None (all usual ones), a label, a random term or a group.

    Raises
    ------
    OptionError
        There is no such random term; the message lists what there is.
    """
    every = random_reductions(fit)
    if not every:
        raise OptionError(
            "this model has no random terms that could be left out: its covariance is a function of theta"
        )
    if wanted is None:
        return [r for r in every if r.usual]
    if not isinstance(wanted, str):
        raise OptionError(f"term must be a text such as '(1 | g)' or the name of a group, got {wanted!r}")

    def plain(text: str) -> str:
        text = "".join(text.split()).replace(",matrix=", ",")
        return text[1:-1] if text.startswith("(") and text.endswith(")") and "in(" not in text else text

    for r in every:
        if "".join(r.label.split()) == "".join(wanted.split()):
            return [r]
    labels = bar_labels(fit)
    hits = [i for i, label in enumerate(labels) if plain(label) == plain(wanted)]
    if hits:
        return [r for r in every if r.position in hits and r.term is None]
    groups = [i for i, term in enumerate(fit.design.terms) if plain(term.group) == plain(wanted)]
    if groups:
        return [r for r in every if r.position in groups and r.usual]
    raise OptionError(
        f"the model has no random term {wanted!r}; it has {', '.join([r.label for r in every])}"
    )
