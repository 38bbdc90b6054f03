"""The hinge between words and numbers: frozen arrays only, no data frame, no formula.

A linear predictor is

    eta = X beta + sum_b Z_b b_b + offset,      b_b ~ N(0, sigma^2 (A_b kron Sigma_b)),

where term *b* has `m` levels and `k` columns, ``Sigma_b = factor factor'`` is k x k and A_b is the
identity unless the term carries a precision P_b = A_b^{-1}. No dense Z is ever formed here: row i of
Z_b holds ``Z[i, :]`` in the k columns of level ``codes[i]``. A term whose rows touch several levels
(direct and maternal effects, multiple membership) has codes of shape (n, k), or Z itself as a sparse matrix.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import DataError, NotImplementedYetError, SolverError

if TYPE_CHECKING:
    from mixedmodels.covariance.base import Covariance
    from mixedmodels.residual.base import BoundResidual

__all__ = [
    "Design",
    "GeneralisedDesign",
    "KnownCovariance",
    "LowRankCovariance",
    "Precision",
    "Predictor",
    "RandomTerm",
]


@dataclass(frozen=True, slots=True, eq=False)
class Precision:
    """A known precision matrix between the levels of a term.

    Attributes
    ----------
    matrix : scipy.sparse.csc_array, shape (m, m)
        ``A^{-1}``, symmetric positive definite, in the order of the term's levels.
    logdet_covariance : float
        ``log|A|``.
    diagonal : ndarray of float64, shape (m,), or None
        Diagonal of A (1 + F, the coefficient of inbreeding, for a pedigree), where it is known.
    """

    matrix: Any
    logdet_covariance: float
    diagonal: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class KnownCovariance:
    """A known dense covariance matrix between the levels of a term; its precision is made when asked for.

    Serves wherever a `Precision` does. A solver that needs no inverse also takes a singular matrix.

    Attributes
    ----------
    covariance : ndarray of float64, shape (m, m)
        A, symmetric positive semi-definite, in the order of the term's levels.
    name : str
        What an error message calls it.
    """

    covariance: np.ndarray
    name: str = "the known covariance"

    @cached_property
    def _inverse(self) -> tuple[np.ndarray, float]:
        A = self.covariance
        size = np.sqrt(np.maximum(np.diagonal(A), np.finfo(float).tiny))
        try:
            L = np.linalg.cholesky(A / size / size[:, None])
            smallest = float(np.min(np.diagonal(L), initial=1.0))
        except np.linalg.LinAlgError:
            smallest = 0.0
        if smallest < 1e-6:
            lowest = float(np.linalg.eigvalsh(A / size / size[:, None])[0])
            if lowest < -1e-8:
                raise DataError(
                    f"{self.name} has a negative eigenvalue ({lowest:.3g} as a correlation matrix): it is "
                    "not a covariance matrix; correct it, or add to its diagonal"
                )
            raise SolverError(
                f"{self.name} is singular (two levels that cannot be told apart, such as identical twins, or "
                "fewer markers than individuals), and this model needs its inverse: give identical "
                "individuals one id, or add a little to its diagonal (such as 1e-5 of it)"
            )
        from scipy.linalg import lapack

        inverse = lapack.dpotri(L, lower=1)[0]
        inverse = np.tril(inverse) + np.tril(inverse, -1).T
        logdet = 2.0 * float(np.sum(np.log(np.diagonal(L) * size)))
        return inverse / size / size[:, None], logdet

    @cached_property
    def matrix(self) -> Any:
        """The inverse as a `scipy.sparse.csc_array`; SolverError if there is none."""
        from scipy import sparse

        return sparse.csc_array(self._inverse[0])

    @property
    def invertible(self) -> bool:
        """Whether the inverse can be formed."""
        try:
            return bool(self._inverse)
        except (DataError, SolverError):
            return False

    @property
    def logdet_covariance(self) -> float:
        """``log|A|``."""
        return self._inverse[1]

    @property
    def diagonal(self) -> np.ndarray:
        """Diagonal of the covariance matrix."""
        return np.diagonal(self.covariance)


class LowRankCovariance(KnownCovariance):
    """A known covariance ``W W'`` between levels, kept by its factor: marker effects seen through genotypes.

    Parameters
    ----------
    factor : ndarray of float64, shape (m, r)
        W, in the order of the term's levels.
    name : str
        What an error message calls it.

    Attributes
    ----------
    factor : ndarray, shape (m, r)
    """

    factor: np.ndarray

    def __init__(self, factor: np.ndarray, name: str = "the known covariance") -> None:
        object.__setattr__(self, "factor", factor)
        object.__setattr__(self, "name", name)

    @cached_property
    def covariance(self) -> np.ndarray:  # type: ignore[override]
        """``W W'``, dense; made when asked for."""
        return self.factor @ self.factor.T

    @property
    def invertible(self) -> bool:
        """False with fewer columns than levels."""
        return self.factor.shape[1] >= self.factor.shape[0] and super().invertible

    @cached_property
    def _inverse(self) -> tuple[np.ndarray, float]:
        m, r = self.factor.shape
        if r < m:
            raise SolverError(
                f"{self.name} has {m} levels and rank {r}: it has no inverse, which structured residuals "
                "need; give the covariance itself with something on its diagonal, "
                "(W @ W.T + 0.01 * np.eye(m), ids)"
            )
        return KnownCovariance(self.covariance, self.name)._inverse

    @cached_property
    def diagonal(self) -> np.ndarray:  # type: ignore[override]
        """Diagonal of ``W W'``."""
        return np.einsum("ij,ij->i", self.factor, self.factor)


@dataclass(frozen=True, slots=True, eq=False)
class RandomTerm:
    """One random-effects term.

    Attributes
    ----------
    group : str
        Name of the grouping factor, for instance ``"Subject"`` or ``"cask:batch"``.
    names : tuple of str, length k
        Names of the columns, for instance ``("(Intercept)", "Days")``.
    codes : ndarray of int32, shape (n,) or (n, k)
        Level of each row, 0 .. m-1. Terms on one grouping factor share one array (the same object). With
        shape (n, k), column j of row i belongs to level ``codes[i, j]``, -1 for none (direct and maternal
        effects: animal and dam). Shape (n, 0) with `rows`.
    levels : sequence of length m
        Labels of the levels.
    Z : ndarray of float64, shape (n, k), or None
        Values of the columns, C-ordered; None stands for a single column of ones.
    covariance : Covariance
        The structure: maps the term's parameters to its k x k relative factor.
    precision : Precision, KnownCovariance or None
        Known precision between levels; None for independent levels.
    rows : scipy.sparse.csr_array, shape (n, m k), or None
        Z_b itself where a row touches several levels in one column (multiple membership): columns by level,
        then column of the term. `codes` and `Z` are not used then.
    """

    group: str
    names: tuple[str, ...]
    codes: np.ndarray
    levels: Any
    Z: np.ndarray | None
    covariance: Covariance
    precision: Precision | KnownCovariance | None = None
    rows: Any = None

    @property
    def k(self) -> int:
        """Number of columns."""
        if self.rows is not None:
            return len(self.names)
        if self.codes.ndim == 2:
            return self.codes.shape[1]
        return 1 if self.Z is None else self.Z.shape[1]

    @property
    def n(self) -> int:
        """Number of observations."""
        return int((self.codes if self.rows is None else self.rows).shape[0])

    @property
    def several_levels(self) -> bool:
        """Whether a row may touch several levels of the term."""
        return self.rows is not None or self.codes.ndim == 2

    def parts(self, n: int) -> tuple[Any, np.ndarray | None]:
        """``(codes, Z)``, or the sparse matrix and None where rows touch several levels.

        Parameters
        ----------
        n : int
            Observations.
        """
        return (self.matrix(n), None) if self.several_levels else (self.codes, self.Z)

    def of_rows(self, rows: np.ndarray) -> RandomTerm:
        """The term in some rows, with the same levels.

        Parameters
        ----------
        rows : ndarray of bool or int
            Which rows, or their places (repeated ones too).
        """
        return replace(
            self,
            codes=np.ascontiguousarray(self.codes[rows]),
            Z=None if self.Z is None else np.ascontiguousarray(self.Z[rows]),
            rows=None if self.rows is None else self.rows[rows],
        )

    def gram(self, n: int, weights: np.ndarray | None = None) -> np.ndarray:
        """Cross-products of the columns within levels, summed over rows and divided by n, shape (k, k).

        Parameters
        ----------
        n : int
            Observations.
        weights : ndarray, shape (n,), optional
        """
        w = np.ones(n) if weights is None else weights
        if not self.several_levels:
            Z = np.ones((n, 1)) if self.Z is None else self.Z
            return (Z * w[:, None]).T @ Z / n
        whole, k = self.matrix(n), self.k
        columns = [whole[:, j::k] for j in range(k)]
        return np.array([[float(w @ (a * b).sum(axis=1)) / n for b in columns] for a in columns])

    def matrix(self, n: int) -> Any:
        """Z_b as a sparse matrix, compressed rows.

        Parameters
        ----------
        n : int
            Observations.

        Returns
        -------
        scipy.sparse.csr_array, shape (n, m k)
            Columns by level, then column of the term.

        Raises
        ------
        DataError
            The shapes do not fit, or a level does not exist.
        """
        from scipy import sparse

        k, m = self.k, self.m
        if self.rows is not None:
            if self.rows.shape != (n, m * k):
                raise DataError(
                    f"the sparse Z of {self.group!r} has shape {self.rows.shape}; {n} rows, {m} levels and "
                    f"{k} columns need {(n, m * k)}"
                )
            return sparse.csr_array(self.rows, dtype=np.float64)
        codes = self.codes[:, None] if self.codes.ndim == 1 else self.codes
        wide = np.broadcast_to(codes, (n, k)).astype(np.int64)
        if wide.size and not -1 <= wide.min() <= wide.max() < m:
            raise DataError(f"the codes of {self.group!r} must lie in -1 .. {m - 1}")
        values = np.ones((n, k)) if self.Z is None else np.asarray(self.Z, dtype=np.float64)
        if values.shape != (n, k):
            raise DataError(f"Z of {self.group!r} has shape {values.shape}, expected {(n, k)}")
        used = wide >= 0
        i, j = np.nonzero(used)
        place = (i, wide[used] * k + j)
        return sparse.csr_array((values[used], place), shape=(n, m * k))

    @property
    def m(self) -> int:
        """Number of levels."""
        return len(self.levels)


@dataclass(frozen=True, slots=True, eq=False)
class Design:
    """Response, fixed-effects matrix and random terms of one model, rows with missing values already dropped.

    Attributes
    ----------
    y : ndarray of float64, shape (n,)
        Response, offset *not* subtracted.
    X : ndarray of float64, shape (n, p)
        Fixed-effects columns, full column rank. Fortran- or C-ordered.
    x_names : tuple of str, length p
        R's coefficient names.
    terms : tuple of RandomTerm
        Random terms in formula order.
    offset : ndarray of float64, shape (n,), or None
        Known part of the linear predictor.
    weights : ndarray of float64, shape (n,), or None
        Precision weights, all positive: Var(e_i) = sigma^2 / weights[i].
    theta_index : ndarray of intp, shape (sum of n_theta over terms,), or None
        Which free parameter each term parameter is; None means all different. Terms that share a
        variance point at the same free parameter.
    residual : BoundResidual or None
        Structure of the residuals, ``Var(e) = sigma^2 R(phi)``; None for ``R = diag(1 / weights)``. Weights,
        if any, are part of it.
    """

    y: np.ndarray
    X: np.ndarray
    x_names: tuple[str, ...]
    terms: tuple[RandomTerm, ...]
    offset: np.ndarray | None = None
    weights: np.ndarray | None = None
    theta_index: np.ndarray | None = None
    notes: tuple[str, ...] = field(default=())
    residual: BoundResidual | None = None

    @property
    def n(self) -> int:
        """Number of observations."""
        return self.y.shape[0]

    @property
    def p(self) -> int:
        """Number of fixed-effects columns."""
        return self.X.shape[1]

    @property
    def q(self) -> int:
        """Number of random effects."""
        return sum(term.m * term.k for term in self.terms)

    def need_one_level(self, what: str) -> None:
        """Refuse terms whose rows touch several levels.

        Parameters
        ----------
        what : str
            What was asked for, as it begins the message.

        Raises
        ------
        NotImplementedYetError
        """
        _need_one_level(self.terms, what)


def _need_one_level(terms: tuple[RandomTerm, ...], what: str) -> None:
    for term in terms:
        if term.several_levels:
            raise NotImplementedYetError(
                f"{what}: not in this version for {term.group!r}, of which a row touches several levels"
            )


@dataclass(frozen=True, slots=True, eq=False)
class Predictor:
    """One linear predictor of a generalised model: ``eta_c = X gamma[columns] + offset`` and random terms.

    Attributes
    ----------
    name : str
        ``"conditional"``, ``"zero_inflation"``, ``"dispersion"`` or a parameter of the family.
    X : ndarray of float64, shape (n, p_c), or None
        None stands for one column of ones.
    columns : ndarray of intp, shape (p_c,)
        Places of its coefficients in gamma; predictors may share coefficients.
    offset : ndarray of float64, shape (n,), or None
    """

    name: str
    X: np.ndarray | None
    columns: np.ndarray
    offset: np.ndarray | None = None


@dataclass(frozen=True, slots=True, eq=False)
class GeneralisedDesign:
    """Arrays of a generalised linear mixed model.

    Attributes
    ----------
    data : Observations
        Responses (`mixedmodels.family.Observations`).
    predictors : tuple of Predictor
        In the order of the family's `predictors`.
    gamma_names : tuple of str
        Names of all coefficients: those of the conditional predictor first, then the others.
    terms : tuple of RandomTerm
        Random terms of all predictors, with b ~ N(0, A kron Sigma): Sigma = factor factor' is absolute.
    term_predictor : tuple of int
        The predictor that each term adds to.
    theta_index : ndarray of intp or None
        As in `Design`.
    """

    data: Any
    predictors: tuple[Predictor, ...]
    gamma_names: tuple[str, ...]
    terms: tuple[RandomTerm, ...]
    term_predictor: tuple[int, ...]
    theta_index: np.ndarray | None = None

    @property
    def n(self) -> int:
        """Number of observations."""
        return self.data.n

    @property
    def q(self) -> int:
        """Number of random effects."""
        return sum(term.m * term.k for term in self.terms)

    def need_one_level(self, what: str) -> None:
        """Refuse terms whose rows touch several levels, as `Design.need_one_level`.

        Parameters
        ----------
        what : str

        Raises
        ------
        NotImplementedYetError
        """
        _need_one_level(self.terms, what)

    def with_response(self, family: Any, data: Any) -> GeneralisedDesign:
        """The design with another response, and with the columns that depend on it (thresholds)."""
        learnt = family.response_columns(data)
        predictors = self.predictors
        if learnt is not None:
            predictors = tuple(
                [replace(p, X=learnt[1][p.name]) if p.name in learnt[1] else p for p in self.predictors]
            )
        return replace(self, data=data, predictors=predictors)

    @property
    def active(self) -> tuple[int, ...]:
        """Predictors with random effects, ascending."""
        return tuple(sorted(set(self.term_predictor)))
