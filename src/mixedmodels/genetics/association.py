r"""Association scans: the effect of each marker in a model with polygenic effects."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.design import KnownCovariance
from mixedmodels.errors import NotImplementedYetError, OptionError
from mixedmodels.genetics.markers import Markers, read_markers
from mixedmodels.genetics.scan_exact import Rotated, null_ratio, scan_batch
from mixedmodels.genetics.scan_refit import refit_scan
from mixedmodels.inference.bootstrap.parallel import Counter
from mixedmodels.inference.table import Drawn, ResultTable, result_table
from mixedmodels.solver.eigen import EigenSolver
from mixedmodels.solver.threads import one_blas_thread

if TYPE_CHECKING:
    from mixedmodels.fit.result import LMMFit

__all__ = ["Scan", "scan"]

_BATCH_BYTES = 2**20  # of one (n, B) array
_LARGEST = 6000  # rows that are decomposed
_SAME = 1e-10  # what is left of a marker after the fixed part, relative to its length


class Scan(Drawn):
    """Result of a scan: a table with plots.

    Attributes
    ----------
    table : ResultTable
        Columns snp, (chromosome, position,) n, maf, beta, std_error, statistic, p_value, lod.
    inflation : float
        Genomic inflation factor: the median of the chi-square statistics over 0.4549.
    """

    __slots__ = ("inflation", "table")

    def __init__(self, table: ResultTable) -> None:
        self.table = table
        p = np.asarray(table["p_value"], dtype=float)
        self.inflation = _inflation(p[np.isfinite(p)])

    def __len__(self) -> int:
        """Number of markers."""
        return len(self.table)

    def __getitem__(self, name: str) -> np.ndarray:
        return self.table[name]

    def __repr__(self) -> str:
        return str(self.table)

    def _repr_html_(self) -> str:
        return self.table.to_html()

    def to_frame(self) -> Any:
        """The table in the data-frame library of the fit's data."""
        return self.table.to_frame()

    def top(self, n: int = 10) -> ResultTable:
        """The markers with the smallest p values.

        Parameters
        ----------
        n : int
        """
        order = np.argsort(np.asarray(self.table["p_value"]), kind="stable")[:n]
        columns = {name: column[order] for name, column in self.table.columns.items()}
        return replace(self.table, title=f"{len(order)} smallest p values of {len(self)}", columns=columns)

    def manhattan(self, ax: Any = None, threshold: float | None = 5e-8) -> Any:
        """Minus the logarithm of p along the genome (or in the order of the columns).

        Parameters
        ----------
        ax : axes, optional
        threshold : float, optional
            p value at which a line is drawn.
        """
        return self.plot(ax, kind="manhattan", threshold=threshold)

    def qq(self, ax: Any = None) -> Any:
        """Observed against expected p values, with pointwise 95 % limits and the inflation factor.

        Parameters
        ----------
        ax : axes, optional
        """
        return self.plot(ax, kind="qq")


def _inflation(p: np.ndarray) -> float:
    from scipy.special import chdtri

    if not p.size:
        return math.nan
    return float(np.median(chdtri(1.0, np.clip(p, 1e-300, 1.0))) / chdtri(1.0, 0.5))


def scan(
    fit: LMMFit,
    snps: Any,
    *,
    method: str = "exact",
    test: str | None = None,
    ids: Any = None,
    progress: Any = "auto",
) -> Scan:
    r"""Test each marker of many as a fixed effect: :math:`y = X\beta + g_j\gamma_j + Zb + e`.

    Parameters
    ----------
    fit : LMMFit
        The model without markers.
    snps : data frame, dict, array of shape (rows, s) or genotypes
        Counts or dosages, one column per marker, one row per row of the data; missing values take the mean.
    method : {"exact", "p3d"}
        "exact" estimates the variances anew for each marker: many markers at once with one random term (a
        kinship, a pedigree), by one fit per marker with several. "p3d" keeps those of `fit` (EMMAX,
        "population parameters previously determined"), for any model.
    test : {"lrt", "wald"}, optional
        Of the exact method: the likelihood ratio by maximum likelihood (default), or a t test by restricted
        maximum likelihood with n - p - 1 degrees of freedom. With "p3d" both are the same chi-square test.
    ids : sequence, optional
        Individuals in the rows of `snps`, where these are not the rows of the data.
    progress : "auto", True, False or callable
        A callable receives (done, total).

    Returns
    -------
    Scan

    Raises
    ------
    OptionError
        An unknown method or test; more rows than the exact method decomposes.
    DataError
        Markers whose rows do not fit the model.

    Notes
    -----
    The rows are rotated once so that their covariance is diagonal (FaST-LMM); the variance ratios of a batch
    of markers are found together by Newton's method. A marker without variation, or one that depends on the
    fixed effects, has NaN.

    References
    ----------
    Lippert et al. (2011), Nature Methods 8:833-835. Kang et al. (2010), Variance component model to account
    for sample structure in genome-wide association studies, Nature Genetics 42:348-354. Zhang et al. (2010),
    Nature Genetics 42:355-360.

    Examples
    --------
    >>> import numpy as np
    >>> import mixedmodels as mm
    >>> rng = np.random.default_rng(1)
    >>> W = rng.binomial(2, 0.4, (60, 200)) - 0.8
    >>> K = W @ W.T / 96
    >>> y = rng.multivariate_normal(np.zeros(60), K) + rng.normal(size=60)
    >>> data = {"y": y + W[:, 0], "id": np.arange(60)}
    >>> fit = mm.lmm("y ~ 1 + (1 | id)", data, known={"id": (K, np.arange(60))})
    >>> result = mm.genetics.scan(fit, W[:, :5] + 0.8)
    >>> int(np.argmin(result["p_value"])), len(result)
    (0, 5)
    """
    if method not in ("exact", "p3d"):
        raise OptionError(f"method must be 'exact' or 'p3d', got {method!r}")
    chosen = ("lrt" if method == "exact" else "wald") if test is None else test
    if chosen not in ("lrt", "wald"):
        raise OptionError(f"test must be 'lrt' or 'wald', got {test!r}")
    if not hasattr(fit, "_is_linear"):
        raise OptionError(
            f"scan needs a fitted model of mm.lmm as its first argument, got {type(fit).__name__}"
        )
    if not fit._is_linear:
        raise NotImplementedYetError("scans are for linear mixed models so far")
    markers = read_markers(fit, snps, ids)
    counter = Counter(progress, "markers", len(markers.names))
    if method == "exact":
        columns, title, notes = _exact(fit, markers, chosen, counter)
    else:
        with one_blas_thread():
            columns, title, notes = _given_variances(fit, markers, counter)
    place = {}
    if markers.chromosomes is not None:
        place["chromosome"] = markers.chromosomes
    if markers.positions is not None:
        place["position"] = markers.positions
    head = {"snp": markers.names, **place}
    n = fit.design.n
    incomplete = int(np.count_nonzero(columns["n"] < n))
    if incomplete:
        notes.append(f"missing values of {incomplete} marker{'s' if incomplete > 1 else ''} took the mean")
    outside = int(np.count_nonzero(np.isnan(columns["maf"]) & (columns["n"] > 0)))
    if outside:
        notes.append(
            f"{outside} marker{'s have' if outside > 1 else ' has'} values outside 0 to 2, which no count of "
            "an allele has: no allele frequency, effects per unit"
        )
    flat = int(np.count_nonzero(np.isnan(columns["beta"])))
    if flat:
        notes.append(
            f"{flat} marker{'s' if flat > 1 else ''} without variation beyond the fixed effects: NaN"
        )
    result = Scan(result_table(title, {**head, **columns}, notes, fit._native))
    return result


def _blocks(markers: Markers, n: int) -> Iterator[slice]:
    width = max(16, _BATCH_BYTES // (8 * n))
    total = len(markers.names)
    for start in range(0, total, width):
        yield slice(start, min(start + width, total))


def _empty(count: int) -> dict[str, np.ndarray]:
    out = {
        name: np.full(count, np.nan) for name in ("maf", "beta", "std_error", "statistic", "p_value", "lod")
    }
    return {"n": np.zeros(count, dtype=np.int64), **out}


def _estimated(test: str) -> str:
    how = "maximum likelihood; likelihood-ratio tests" if test == "lrt" else "REML; t tests"
    return f"variances estimated for each marker by {how}"


def _needs_refits(fit: LMMFit) -> bool:
    """Whether no rotation makes the covariance of the rows diagonal for all variances."""
    design = fit.design
    one = len(design.terms) == 1 and design.terms[0].k == 1 and not design.terms[0].several_levels
    return not one or design.residual is not None or getattr(fit.frame, "covariance", None) is not None


def _eigen_solver(fit: LMMFit) -> EigenSolver:
    """The solver of the fit, or one for the same model with its covariance written out."""
    if type(fit.solver) is EigenSolver:  # not one of low rank, which has no full rotation
        return fit.solver
    design = fit.design
    remedy = "use method='p3d', which keeps the variances of the fit"
    term = design.terms[0]
    if design.n > _LARGEST or term.m > 2 * _LARGEST:
        raise OptionError(f"the exact scan decomposes up to {_LARGEST} rows, here {design.n}; {remedy}")
    if isinstance(term.precision, KnownCovariance):
        A = term.precision.covariance
    elif term.precision is None:
        A = np.eye(term.m)
    else:
        from mixedmodels.solver.sparse_cholesky import SparseCholesky

        A = SparseCholesky(term.precision.matrix).solve(np.eye(term.m))
        A = 0.5 * (A + A.T)
    return EigenSolver(replace(design, terms=(replace(term, precision=KnownCovariance(A)),)))


def _projected(model: Rotated, G: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rotated markers without their part in Q, of length 1; their lengths; which of them are left."""
    before = np.sqrt(np.einsum("ij,ij->j", G, G))
    for _ in range(2):
        G = G - model.Q @ (model.Q.T @ G)
    length = np.sqrt(np.einsum("ij,ij->j", G, G))
    usable = length > _SAME**0.5 * np.maximum(before, 1e-300)
    return G[:, usable] / length[usable], length, usable


def _exact(fit: LMMFit, markers: Markers, test: str, counter: Counter) -> tuple[dict, str, list[str]]:
    from scipy.special import chdtrc, stdtr

    if _needs_refits(fit):
        out = _empty(len(markers.names))
        notes = refit_scan(fit, markers, test, counter, out, _has_constant(fit.design.X))
        if test == "wald":
            del out["lod"]
        counter.close()
        return out, "Association scan (exact)", [_estimated(test), *notes]
    solver = _eigen_solver(fit)
    design, fixed = fit.design, solver._fixed
    n, p = design.n, design.p
    if n <= p + 1:
        raise OptionError(f"{n} rows are too few for a marker beside {p} fixed effects")
    model = Rotated(solver.d, solver.Q, solver.r, test == "wald")
    out = _empty(len(markers.names))
    s0 = float(fit.theta[0]) ** 2
    start, null = null_ratio(model, max(s0, 1e-3 / max(float(np.mean(solver.d)), 1e-300)))
    nu = n - p - 1 if test == "wald" else n
    ended = 0
    with one_blas_thread():
        for at in _blocks(markers, n):
            values, mean, known, maf = markers.block(at)
            values -= np.where(np.isnan(mean), 0.0, mean) if _has_constant(design.X) else 0.0
            if fixed.sqrt_w is not None:
                values *= fixed.sqrt_w[:, None]
            G, length, usable = _projected(model, solver.U.T @ values)
            where = np.arange(at.start, at.stop)[usable]
            out["n"][at], out["maf"][at] = known, maf
            counter.add(at.stop - at.start)
            if not where.size:
                continue
            found = scan_batch(model, G, max(start, 1e-3 / float(np.mean(solver.d))))
            ended += int(np.count_nonzero(~found.converged))
            scale = length[usable]
            beta = found.beta / scale
            se = np.sqrt(found.unscaled * found.pwrss / nu) / scale
            out["beta"][where], out["std_error"][where] = beta, se
            if test == "lrt":
                statistic = np.maximum(null - found.criterion, 0.0)
                out["p_value"][where] = chdtrc(1.0, statistic)
                out["lod"][where] = statistic / (2.0 * math.log(10.0))
            else:
                statistic = beta / se
                out["p_value"][where] = 2.0 * stdtr(float(nu), -np.abs(statistic))
            out["statistic"][where] = statistic
    if test == "wald":
        del out["lod"]
    notes = [_estimated(test)]
    if ended:
        notes.append(f"{ended} searches for variances ended at their limit of iterations")
    counter.close()
    return out, "Association scan (exact)", notes


def _given_variances(fit: LMMFit, markers: Markers, counter: Counter) -> tuple[dict, str, list[str]]:
    """P3D: ``gamma = g'Py / g'Pg`` with the variances of the fit."""
    from scipy.special import chdtrc

    design = fit.design
    out = _empty(len(markers.names))
    factors = [np.array(factor) for factor in fit._factors]
    project = _projector(fit, factors)
    response = design.y if design.offset is None else design.y - design.offset
    Py = project(response[:, None])[:, 0]
    sigma2 = fit.sigma**2
    for at in _blocks(markers, design.n):
        values, mean, known, maf = markers.block(at)
        values -= np.where(np.isnan(mean), 0.0, mean) if _has_constant(design.X) else 0.0
        PG = project(values)
        own = np.einsum("ij,ij->j", values, PG)
        # what is left of a marker after the fixed effects, in the metric of V
        size = np.einsum("ij,ij->j", values, values)
        usable = own > _SAME * np.maximum(size, 1e-300)
        where = np.arange(at.start, at.stop)[usable]
        out["n"][at], out["maf"][at] = known, maf
        counter.add(at.stop - at.start)
        beta = (values[:, usable].T @ Py) / own[usable]
        se = np.sqrt(sigma2 / own[usable])
        statistic = (beta / se) ** 2
        out["beta"][where], out["std_error"][where], out["statistic"][where] = beta, se, statistic
        out["p_value"][where] = chdtrc(1.0, statistic)
        out["lod"][where] = statistic / (2.0 * math.log(10.0))
    counter.close()
    notes = ["variances of the fit without markers (P3D/EMMAX); chi-square tests with 1 degree of freedom"]
    return out, "Association scan (variances of the null model)", notes


def _projector(fit: LMMFit, factors: list[np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    """``R -> W (R - X beta^(R) - Z b^(R))``, which is P R."""
    design = fit.design
    estimates = fit.solver.responses_at(factors)

    def project(R: np.ndarray) -> np.ndarray:
        beta, effects = estimates(R)
        rest = R - design.X @ beta
        for term, b in zip(design.terms, effects, strict=True):
            if term.several_levels:
                rest -= term.matrix(design.n) @ b.reshape(term.m * term.k, -1)
            elif term.Z is None:
                rest -= b[term.codes, 0]
            else:
                rest -= np.einsum("ik,ikc->ic", term.Z, b[term.codes])
        return rest if design.weights is None else rest * design.weights[:, None]

    return project


def _has_constant(X: np.ndarray) -> bool:
    """Whether one column of X is constant, so that markers may be centred."""
    return bool(X.shape[1]) and bool(((X[:1] == X).all(axis=0) & (X[0] != 0.0)).any())
