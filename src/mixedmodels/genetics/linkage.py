r"""Variance-components linkage: identity by descent at a place of the genome as one more random effect.

With :math:`\Pi_j` the shares of genes identical by descent at place j, the covariance of the null model gains
:math:`\sigma_q^2\Pi_j`, and

.. math:: \mathrm{LOD}_j = \frac{\ell_j - \ell_0}{\ln 10},

the difference of the maximised log-likelihoods in decimal logarithms.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.covariance import make_covariance
from mixedmodels.covariance.correlation import semidefinite_root
from mixedmodels.design import Design, KnownCovariance, RandomTerm
from mixedmodels.errors import DataError, NotImplementedYetError, OptionError, SolverError
from mixedmodels.fit.known import as_known
from mixedmodels.frame.factors import match_levels
from mixedmodels.frame.known import Known
from mixedmodels.frame.rank import find_dependence
from mixedmodels.frame.values import FactorColumn
from mixedmodels.inference.table import ResultTable, result_table

if TYPE_CHECKING:
    from mixedmodels.fit.result import LMMFit

__all__ = ["linkage"]

_NOTHING = 1e-8  # rises of twice the log-likelihood below it are rounding


def linkage(
    fit: LMMFit, ibd: Mapping[Any, Any], group: str | None = None, families: Any = None
) -> ResultTable:
    r"""Test each place of the genome for linkage with the trait.

    Parameters
    ----------
    fit : LMMFit
        The model without linkage, usually with a polygenic effect: ``"y ~ sex + (1 | id)"`` with a pedigree.
    ibd : mapping from place to relationship
        By name or position of the place what ``known=`` takes: ``(matrix, ids)`` with the shares of genes
        that are identical by descent (1 on the diagonal), a `Relationship`, ... They may be singular.
    group : str, optional
        Grouping factor of the individuals; by default that of the one term with a known covariance.
    families : array of shape (n,), optional
        Family of each row of the data. Then each family has fixed effects and variances of its own, and its
        LOD scores are added.

    Returns
    -------
    ResultTable
        place, variance of the linked locus, its share of the total variance, statistic
        :math:`2(\ell_j - \ell_0)`, lod, p_value. With `families` variance and share are NaN.

    Raises
    ------
    OptionError
        No grouping factor of individuals; no place.
    DataError
        Individuals that a matrix does not have.
    NotImplementedYetError
        A generalised model, structured residuals.

    Notes
    -----
    Maximum likelihood, whatever `fit` used. A variance of zero is on the boundary: the statistic is a mixture
    in equal parts of zero and of chi-square with one degree of freedom (Self and Liang 1987); the sum over F
    families is a binomial mixture of chi-squares with 0 to F degrees of freedom.

    References
    ----------
    Amos (1994), American Journal of Human Genetics 54:535-543. Almasy and Blangero (1998), Multipoint
    quantitative-trait linkage analysis in general pedigrees, American Journal of Human Genetics 62:1198-1211.

    Examples
    --------
    >>> import numpy as np
    >>> import mixedmodels as mm
    >>> rng = np.random.default_rng(4)
    >>> pairs = np.arange(120) // 2
    >>> shared = np.repeat(rng.choice([0.0, 0.5, 1.0], 60, p=[0.25, 0.5, 0.25]), 2)
    >>> same = pairs[:, None] == pairs
    >>> ibd = np.where(same, shared, 0.0)
    >>> np.fill_diagonal(ibd, 1.0)
    >>> A = 0.5 * (same + np.eye(120))
    >>> y = rng.multivariate_normal(np.zeros(120), ibd + 0.3 * np.eye(120))
    >>> data = {"y": y, "id": np.arange(120)}
    >>> fit = mm.lmm("y ~ 1 + (1 | id)", data, known={"id": (A, np.arange(120))})
    >>> found = mm.genetics.linkage(fit, {"D1S1": (ibd, np.arange(120))})
    >>> bool(found["lod"][0] > 1.0)
    True
    """
    if not fit._is_linear or fit.design.residual is not None:
        raise NotImplementedYetError("linkage is for linear mixed models with independent residuals")
    if not isinstance(ibd, Mapping) or not ibd:
        raise OptionError('ibd must be a dict from places to relationships, such as {"D1S1": (matrix, ids)}')
    term = fit.design.terms[_position(fit, group)]
    design = fit.design
    parts = [np.arange(design.n)] if families is None else _family_rows(fit, families)
    designs = [_rows_of(design, rows) for rows in parts]
    nulls = [_maximum(fit, part) for part in designs]
    columns: dict[str, list[float]] = {
        name: [] for name in ("variance", "share", "statistic", "lod", "p_value")
    }
    for place, value in ibd.items():
        known = as_known(value, str(place))
        statistic, estimates = 0.0, []
        for rows, part, null in zip(parts, designs, nulls, strict=True):
            extra = _locus(term, rows, known, str(place))
            full = _maximum(fit, replace(part, terms=(*part.terms, extra), theta_index=None))
            gain = 2.0 * (full.loglik - null.loglik)
            statistic += gain if gain > _NOTHING else 0.0
            estimates.append(full)
        variance = share = math.nan
        if families is None:
            sizes = [float(np.trace(np.array(f) @ np.array(f).T)) for f in estimates[0]._factors]
            variance, share = estimates[0].sigma ** 2 * sizes[-1], sizes[-1] / (1.0 + sum(sizes))
        row = (variance, share, statistic, statistic / (2.0 * math.log(10.0)), _tail(statistic, len(parts)))
        for name, number in zip(columns, row, strict=True):
            columns[name].append(number)
    notes = ["maximum likelihood; p values from mixtures of chi-squares (the variance may be zero)"]
    if families is not None:
        notes.append(f"sums over {len(parts)} families, each with its own fixed effects and variances")
    table: dict[str, Any] = {
        "place": list(ibd),
        **{name: np.array(values) for name, values in columns.items()},
    }
    return result_table(f"Linkage of {term.group}", table, notes, fit._native)


def _position(fit: LMMFit, group: str | None) -> int:
    """Place of the term whose levels are the individuals."""
    terms = fit.design.terms
    found = [
        i for i, t in enumerate(terms) if (t.precision is not None if group is None else t.group == group)
    ]
    if not found or (group is None and len({terms[i].group for i in found}) > 1):
        names = ", ".join(dict.fromkeys(t.group for t in terms))
        raise OptionError(
            f"group= must name the grouping factor of the individuals; the terms are on {names}"
        )
    if terms[found[0]].several_levels:
        raise NotImplementedYetError(
            f"linkage: not in this version for {terms[found[0]].group!r}, of which a row touches several "
            "levels; write the individuals as a term of their own"
        )
    return found[0]


def _family_rows(fit: LMMFit, families: Any) -> list[np.ndarray]:
    """Rows of the design of each family."""
    labels = np.asarray(families)
    if labels.shape == (fit.n_rows,):
        labels = labels[fit.frame.row_index]
    if labels.shape != (fit.design.n,):
        raise DataError(f"families has shape {labels.shape}; give one label per row of data ({fit.n_rows})")
    codes = np.unique(labels.astype(str), return_inverse=True)[1]
    groups = [np.flatnonzero(codes == code) for code in range(int(codes.max()) + 1)]
    least = fit.design.p + len(fit.design.terms) + 3
    small = [rows for rows in groups if rows.size < least]
    if small:
        raise DataError(
            f"{len(small)} families have fewer than {least} rows, too few for variances of their own; join "
            "them, or leave families= out"
        )
    return groups


def _rows_of(design: Design, rows: np.ndarray) -> Design:
    """Some rows of a design, columns of X that depend on others left out."""
    if rows.size == design.n:
        return design
    X = np.ascontiguousarray(design.X[rows])
    names = design.x_names
    dependence = find_dependence(X, None, names)
    if dependence is not None:
        X, names = np.ascontiguousarray(X[:, dependence.kept]), tuple(names[j] for j in dependence.kept)
    terms = tuple(
        replace(
            t,
            codes=np.ascontiguousarray(t.codes[rows]),
            Z=None if t.Z is None else np.ascontiguousarray(t.Z[rows]),
            rows=None if t.rows is None else t.rows[rows],
        )
        for t in design.terms
    )
    offset = None if design.offset is None else design.offset[rows]
    weights = None if design.weights is None else design.weights[rows]
    return replace(design, y=design.y[rows], X=X, x_names=names, terms=terms, offset=offset, weights=weights)


def _locus(term: RandomTerm, rows: np.ndarray, known: Known, place: str) -> RandomTerm:
    """The effect of a place: its covariance is written into Z, so that it may be singular."""
    from scipy import sparse

    codes = term.codes[rows]
    used, own = np.unique(codes, return_inverse=True)
    matched, unknown = match_levels(
        FactorColumn(own.astype(np.int32), np.asarray(term.levels)[used]), known.ids
    )
    if unknown:
        shown = ", ".join(unknown[:10]) + (", ..." if len(unknown) > 10 else "")
        raise DataError(f"ibd[{place!r}] does not have {len(unknown)} individuals of the model: {shown}")
    at = np.unique(matched)
    if isinstance(known.between, KnownCovariance):
        Pi = known.between.covariance[np.ix_(at, at)]
    else:
        from mixedmodels.solver.sparse_cholesky import SparseCholesky

        unit = np.zeros((len(known.ids), at.size))
        unit[at, np.arange(at.size)] = 1.0
        Pi = SparseCholesky(known.between.matrix).solve(unit)[at]
    count, blocks = sparse.csgraph.connected_components(sparse.csr_array(Pi != 0.0), directed=False)
    root = sparse.lil_array(Pi.shape)
    for block in range(count):
        members = np.flatnonzero(blocks == block)
        try:
            root[np.ix_(members, members)] = semidefinite_root(0.5 * (Pi + Pi.T)[np.ix_(members, members)])
        except SolverError:
            raise DataError(
                f"ibd[{place!r}] is not a covariance matrix: it has a negative eigenvalue"
            ) from None
    Z = sparse.csr_array(root)[np.searchsorted(at, matched)]
    return RandomTerm(
        f"locus {place}",
        ("(Intercept)",),
        np.zeros((rows.size, 0), np.int32),
        at,
        None,
        make_covariance("us", 1),
        None,
        Z,
    )


def _maximum(fit: LMMFit, design: Design) -> LMMFit:
    """Fit by maximum likelihood."""
    from mixedmodels.fit.solve import fit_frame

    options = replace(fit._options, reml=False, start=None, progress=False, variances=None)
    return fit_frame(replace(fit.frame, design=design), options, None)


def _tail(statistic: float, parts: int) -> float:
    """Tail probability of a sum of independent mixtures in equal parts of zero and chi-square(1)."""
    from scipy.special import chdtrc, gammaln

    if not statistic > 0.0:
        return 1.0
    k = np.arange(1, parts + 1)
    log_weight = gammaln(parts + 1) - gammaln(k + 1) - gammaln(parts - k + 1) - parts * math.log(2.0)
    return float(np.exp(log_weight) @ chdtrc(k.astype(float), statistic))
