"""Cluster-robust covariances of the fixed effects with small-sample corrections and degrees of freedom."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import IdentifiabilityError, NotImplementedYetError, OptionError
from mixedmodels.fit.wald import check_level
from mixedmodels.inference.checks.grouping import Grouping, grouping_of, refuse_function_fit
from mixedmodels.inference.checks.leverage import limited_threads
from mixedmodels.inference.table import ResultTable, result_table
from mixedmodels.solver.whitened_choose import keeps_rows

if TYPE_CHECKING:
    from mixedmodels.design import Design
    from mixedmodels.fit.result import LMMFit

__all__ = ["KINDS", "RobustCovariance", "robust_vcov"]

KINDS = ("CR0", "CR1", "CR1S", "CR2", "CR3")
_ZERO = 1e-12  # eigenvalues of the adjustment below this share of the largest count as zero


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class RobustCovariance:
    """A cluster-robust covariance matrix with t tests of the coefficients.

    Attributes
    ----------
    kind : str
    cluster : str
    vcov : ndarray, shape (p, p)
    table : ResultTable
        Columns term, estimate, std_error, statistic, df, p_value, conf_low, conf_high.
    """

    kind: str
    cluster: str
    vcov: np.ndarray
    table: ResultTable
    _pieces: Any = None

    def df(self, L: Any) -> np.ndarray:
        """Satterthwaite degrees of freedom of each row of contrasts L, shape (r,)."""
        from mixedmodels.inference.ddf.reference import rows_of

        return _degrees(self._pieces, rows_of(L, self.vcov.shape[0]))

    def to_frame(self) -> Any:
        """The table of the coefficients as a data frame."""
        return self.table.to_frame()

    def __str__(self) -> str:
        return str(self.table)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.table.to_html()

    def to_html(self) -> str:
        """The table of the coefficients as an HTML fragment."""
        return self.table.to_html()


def robust_vcov(fit: LMMFit, kind: str | None = None, cluster: Any = None, level: float = 0.95) -> Any:
    r"""Cluster-robust ("sandwich") covariance of the fixed effects, valid if the random part is wrong.

    With C the inverse of :math:`X'V^{-1}X`, residuals :math:`e = y - X\hat\beta` and clusters j,

    .. math:: C \Big(\sum_j X_j'V_j^{-1}A_j e_j e_j'A_j'V_j^{-1}X_j\Big) C

    ``CR0``: A = I; ``CR1``: times J/(J-1); ``CR1S``: times J(n-1)/((J-1)(n-p)); ``CR2``: A the symmetric
    matrix with :math:`A_j(V_j - X_jCX_j')A_j = V_j`, unbiased if V is right; ``CR3``:
    :math:`A_j = (I - X_jCX_j'V_j^{-1})^{-1}`, the jackknife. Degrees of freedom by Satterthwaite's
    approximation under the working model: a contrast c has variance :math:`\sum_j (p_j'e)^2` and
    :math:`\nu = (\sum_j\Omega_{jj})^2/\sum_{jk}\Omega_{jk}^2` with :math:`\Omega_{jk}` the covariance of
    :math:`p_j'e` and :math:`p_k'e`. Rows are scaled by the square roots of their weights, or whitened by the
    residual structure, whose groups must lie within the clusters.

    Parameters
    ----------
    fit : LMMFit
    kind : {"CR2", "CR0", "CR1", "CR1S", "CR3"}, optional
        By default "CR2". Generalised models, by `mixedmodels.inference.checks.glmm_robust`: "CR1" (default),
        "CR0" or "CR1S".
    cluster : str or array, optional
        A grouping factor, a column of the data, or one label per row; by default the grouping factor that
        contains all others. Every level of every grouping factor must lie within one cluster.
    level : float
        Of the confidence intervals.

    Returns
    -------
    RobustCovariance

    Raises
    ------
    OptionError
        An unknown kind, or clusters that cut through the levels of a grouping factor.

    Notes
    -----
    Bell & McCaffrey (2002), Survey Methodology 28:169-181; Pustejovsky & Tipton (2018), J. Bus. Econ. Stat.
    36:672-683.

    Examples
    --------
    >>> import mixedmodels as mm
    >>> fit = mm.lmm("Reaction ~ Days + (Days | Subject)", mm.load_dataset("sleepstudy", backend="dict"))
    >>> robust = fit.robust_vcov("CR2")
    >>> robust.table["std_error"].round(4).tolist(), robust.table["df"].round(2).tolist()
    ([6.8246, 1.5458], [17.0, 17.0])
    """
    if not fit._is_linear:
        from mixedmodels.inference.checks import glmm_robust

        return glmm_robust.robust_vcov(fit, kind, cluster, level)  # type: ignore[arg-type]
    refuse_function_fit(fit, "a cluster-robust covariance")
    name = "CR2" if kind is None else str(kind).upper()
    if name not in KINDS:
        raise OptionError(f"kind {kind!r} is unknown; available: {', '.join(KINDS)}")
    level = check_level(level)
    design = fit.design
    if design.p == 0:
        raise OptionError("the model has no fixed effects; there is nothing to be robust about")
    grouping = _containing_group(fit) if cluster is None else grouping_of(fit, cluster, "cluster")
    _check_nested(design, grouping)
    J = len(grouping.levels)
    if J < 2:
        raise OptionError(f"cluster {grouping.name!r} has a single level; the covariance needs several")
    with limited_threads(fit):
        vcov, pieces = _sandwich(fit, grouping, name)
    return RobustCovariance(
        name, grouping.name, vcov, _table(fit, name, grouping, vcov, pieces, level), pieces
    )


def _containing_group(fit: LMMFit) -> Grouping:
    """The grouping factor with the fewest levels if all others are nested in it."""
    terms, residual = fit.design.terms, fit.design.residual
    if not terms and residual is not None and residual.codes is not None and residual.group is not None:
        return grouping_of(fit, residual.group, "cluster")
    if not terms:
        raise OptionError("the model has no grouping factor; name the clusters with cluster=")
    fewest = min(terms, key=lambda term: term.m)
    return grouping_of(fit, fewest.group, "cluster")


def _check_nested(design: Design, grouping: Grouping) -> None:
    design.need_one_level("robust_vcov")
    residual = design.residual
    if residual is not None and residual.codes is not None:
        first = np.full(residual.n_groups, -1, dtype=np.intp)
        first[residual.codes] = grouping.codes
        if (first[residual.codes] != grouping.codes).any():
            raise OptionError(
                f"the clusters {grouping.name!r} cut through the groups of correlated residuals "
                f"({residual.group or 'all rows are one group'}); take a factor that contains them"
            )
        if not keeps_rows(design):
            raise NotImplementedYetError(
                "robust_vcov: not in this version where correlated residuals run across the levels of a "
                "grouping factor; leave that random term out of the working model"
            )
    for term in design.terms:
        first = np.full(term.m, -1, dtype=np.intp)
        first[term.codes] = grouping.codes
        if (first[term.codes] != grouping.codes).any():
            raise OptionError(
                f"the clusters {grouping.name!r} cut through levels of {term.group!r}, whose random effects "
                "tie clusters together: with crossed factors no clusters are independent; take a factor "
                f"that contains {term.group!r}, or leave that term out of the working model"
            )
        if term.precision is not None:
            matrix = term.precision.matrix.tocoo()
            if (first[matrix.row] != first[matrix.col]).any():
                raise OptionError(
                    f"the known precision of {term.group!r} ties levels of different clusters "
                    f"{grouping.name!r} together; there are no independent clusters"
                )


@dataclass(frozen=True, slots=True, eq=False)
class _Pieces:
    """What the degrees of freedom are made of."""

    C: np.ndarray  # (p, p)
    E: np.ndarray  # (J, p, p)  X_j'V_j^{-1} A_j V_j A_j' V_j^{-1} X_j
    F: np.ndarray  # (J, p, p)  X_j' A_j' V_j^{-1} X_j


def _sandwich(fit: LMMFit, grouping: Grouping, kind: str) -> tuple[np.ndarray, _Pieces]:
    design = fit.design
    n, p, J = design.n, design.p, len(grouping.levels)
    C = np.asarray(fit._solution.vcov_unscaled)
    X = np.asarray(design.X)
    e = design.y - X @ fit.beta
    if design.offset is not None:
        e = e - design.offset
    scale = _scaling(fit)
    X, e = scale(X), scale(e[:, None])[:, 0]
    scores, E, F = np.empty((J, p)), np.empty((J, p, p)), np.empty((J, p, p))
    sizes = np.bincount(grouping.codes, minlength=J)
    order = np.argsort(grouping.codes, kind="stable")
    starts = np.concatenate([[0], np.cumsum(sizes)])
    blocks = _cluster_columns(design, [np.array(factor) for factor in fit._factors], grouping, scale)
    for members, rows, valid in _batches(sizes, starts, order):
        Xj, ej = X[rows] * valid[:, :, None], e[rows] * valid
        Vj = _batch_covariance(blocks, members, rows, valid)
        Xj, ej, Vj = _compressed(Xj, ej, Vj)
        scores[members], E[members], F[members] = _adjusted(Xj, ej, Vj, C, kind)
    meat = scores.T @ scores
    if kind == "CR1":
        meat *= J / (J - 1)
    elif kind == "CR1S":
        meat *= J * (n - 1) / ((J - 1) * (n - p))
    return C @ meat @ C, _Pieces(C, E, F)


def _scaling(fit: LMMFit) -> Callable[[np.ndarray], np.ndarray]:
    """What makes the rows of a matrix independent with equal variances at known random effects."""
    if fit.design.residual is not None:
        return fit._point.whiten  # type: ignore[attr-defined]
    if fit.design.weights is None:
        return lambda M: M
    root = np.sqrt(fit.design.weights)[:, None]
    return lambda M: M * root


def _cluster_columns(
    design: Design, factors: list[np.ndarray], grouping: Grouping, scale: Callable[[np.ndarray], np.ndarray]
) -> list[tuple]:
    """Per term: scaled columns ``Z factor`` (n, k), codes, and the place of each level in its cluster."""
    out = []
    for term, factor in zip(design.terms, factors, strict=True):
        if term.precision is not None:
            raise OptionError(
                f"the term on {term.group!r} has a known precision; robust_vcov needs independent levels"
            )
        columns = scale((np.ones((design.n, 1)) if term.Z is None else term.Z) @ factor)
        owner = np.zeros(term.m, dtype=np.intp)
        owner[term.codes] = grouping.codes
        order = np.argsort(owner, kind="stable")
        counts = np.bincount(owner, minlength=len(grouping.levels))
        place = np.empty(term.m, dtype=np.intp)
        place[order] = np.arange(term.m) - np.repeat(np.cumsum(counts) - counts, counts)
        out.append((columns, place[term.codes], counts))
    return out


def _batches(sizes: np.ndarray, starts: np.ndarray, order: np.ndarray) -> Any:
    """Clusters of similar size together: (members, rows (c, s), valid (c, s)), padded by repeated rows."""
    limit = 1 << 21  # numbers in one batch of (c, s, s) matrices
    by_size = np.argsort(sizes, kind="stable")
    at = 0
    while at < len(by_size):
        smallest = int(sizes[by_size[at]])
        stop = int(np.searchsorted(sizes[by_size], smallest + smallest // 8, side="right"))
        stop = max(at + 1, min(stop, at + limit // max(smallest * smallest, 1)))
        members = by_size[at:stop]
        width = int(sizes[members].max())
        inside = np.arange(width)[None, :]
        valid = inside < sizes[members][:, None]
        rows = order[np.minimum(starts[members][:, None] + inside, starts[members + 1][:, None] - 1)]
        yield members, rows, valid
        at = stop


def _batch_covariance(
    blocks: list[tuple], members: np.ndarray, rows: np.ndarray, valid: np.ndarray
) -> np.ndarray:
    """Columns G with ``V_j = I + G_j G_j'``, shape (c, s, columns)."""
    c, s = rows.shape
    parts = [np.zeros((c, s, 0))]
    for columns, place, counts in blocks:
        k, width = columns.shape[1], int(counts[members].max())
        part = np.zeros((c, s, width, k))
        clusters, inside = np.nonzero(valid)
        own = rows[clusters, inside]
        part[clusters, inside, place[own]] = columns[own]
        parts.append(part.reshape(c, s, width * k))
    return np.concatenate(parts, axis=2)


def _compressed(X: np.ndarray, e: np.ndarray, G: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """X, e and V in an orthonormal basis of the columns of X and G, where V and A differ from the identity.

    V_j, V_j - X_j C X_j' and therefore A_j map that space to itself and are the identity across it.
    """
    s = X.shape[1]
    if X.shape[2] + G.shape[2] < s:
        length = np.sqrt((X**2).sum(axis=1, keepdims=True))
        Q = np.linalg.qr(np.concatenate([X / np.where(length > 0.0, length, 1.0), G], axis=2))[0]
        Qt = Q.transpose(0, 2, 1)
        X, e, G = Qt @ X, (Qt @ e[:, :, None])[:, :, 0], Qt @ G
    return X, e, np.eye(X.shape[1]) + G @ G.transpose(0, 2, 1)


def _adjusted(
    X: np.ndarray, e: np.ndarray, V: np.ndarray, C: np.ndarray, kind: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores ``X'V^{-1}A e`` (c, p), E and F of `_Pieces` for a batch of clusters."""
    WX = np.linalg.solve(V, X)
    if kind == "CR2":
        values, vectors = np.linalg.eigh(V)
        half = vectors * np.sqrt(values)[:, None, :] @ vectors.transpose(0, 2, 1)
        middle = half @ (V - X @ C @ X.transpose(0, 2, 1)) @ half
        values, vectors = np.linalg.eigh(0.5 * (middle + middle.transpose(0, 2, 1)))
        keep = values > _ZERO * values[:, -1:]
        power = np.where(keep, 1.0 / np.sqrt(np.where(keep, values, 1.0)), 0.0)
        A = half @ (vectors * power[:, None, :] @ vectors.transpose(0, 2, 1)) @ half
        AWX = A.transpose(0, 2, 1) @ WX
    elif kind == "CR3":
        # A = (I - X C X'W)^{-1}; A'WX = W (V - X C X')^{-1} V W X = WX (I - C X'WX)^{-1}
        kept = np.eye(X.shape[2]) - C @ (X.transpose(0, 2, 1) @ WX)
        if (np.linalg.cond(kept) > 1e10).any():
            raise IdentifiabilityError(
                "CR3 leaves out each cluster in turn, and without one of them the fixed effects cannot all "
                'be estimated; use kind="CR2"'
            )
        AWX = WX @ np.linalg.inv(kept)
    else:
        AWX = WX
    scores = np.einsum("csp,cs->cp", AWX, e)
    E = AWX.transpose(0, 2, 1) @ V @ AWX
    return scores, E, X.transpose(0, 2, 1) @ AWX


def _degrees(pieces: _Pieces, L: np.ndarray) -> np.ndarray:
    """Satterthwaite df per contrast: Omega_jk = delta_jk a_j - u_j'C u_k, no J x J matrix."""
    out = np.empty(len(L))
    for i, c in enumerate(L @ pieces.C):
        a = np.einsum("p,jpq,q->j", c, pieces.E, c)
        u = pieces.F @ c  # X_j' A_j' W_j X_j C l
        own = np.einsum("jp,pq,jq->j", u, pieces.C, u)
        inner = pieces.C @ (u.T @ u)
        total = float((a - own).sum())
        squares = float((a * a - 2.0 * a * own).sum() + np.sum(inner * inner.T))
        out[i] = total * total / squares if squares > 0.0 else np.nan
    return out


def _table(
    fit: LMMFit, kind: str, grouping: Grouping, vcov: np.ndarray, pieces: _Pieces, level: float
) -> ResultTable:
    from scipy.special import stdtr, stdtrit

    se = np.sqrt(np.diagonal(vcov))
    df = _degrees(pieces, np.eye(fit.design.p))
    with np.errstate(divide="ignore", invalid="ignore"):
        statistic = fit.beta / se
    half = stdtrit(df, 0.5 + 0.5 * level) * se
    columns = {
        "term": list(fit.design.x_names),
        "estimate": fit.beta,
        "std_error": se,
        "statistic": statistic,
        "df": df,
        "p_value": 2.0 * stdtr(df, -np.abs(statistic)),
        "conf_low": fit.beta - half,
        "conf_high": fit.beta + half,
    }
    notes = [f"{len(grouping.levels)} clusters; degrees of freedom by Satterthwaite under the fitted model"]
    if (df < 4.0).any():
        notes.append("degrees of freedom below 4: these tests and limits are not reliable")
    title = f"Fixed effects with {kind} cluster-robust standard errors, clusters {grouping.name}"
    return result_table(title, columns, notes, fit._native, {"vcov": vcov, "kind": kind})
