"""Satterthwaite's degrees of freedom of contrasts of the fixed effects, from closed-form derivatives."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.inference.ddf.reference import ConstantDF, FTest, f_statistic, row_basis, rows_of
from mixedmodels.inference.ddf.tails import f_tail
from mixedmodels.inference.ddf.variances import check_structures, covariance_of
from mixedmodels.inference.fixed.hypotheses import echelon_mixing
from mixedmodels.solver._kernels.small import moment_df

if TYPE_CHECKING:
    from mixedmodels.fit.result import LMMFit

__all__ = ["Satterthwaite", "automatic", "f_denominator", "row_df"]

# Multiplications for the traces of the exact Hessian that take about 10 ms (0.4-0.6 ns each).
_MOMENT = 2e7


class Satterthwaite:
    r"""Degrees of freedom from the first two moments of the estimated variance of a contrast.

    With :math:`\Phi = \mathrm{Var}(\hat\beta)` and A the covariance matrix of the variance parameters
    :math:`v = (\theta, \log\sigma^2)`, twice the inverse Hessian of the criterion that was optimised,

    .. math:: \nu = \frac{2 (l'\Phi l)^2}{g'Ag}, \qquad g_i = l' \frac{\partial\Phi}{\partial v_i} l .

    The number does not depend on the parametrisation inside the parameter space, as the gradient is zero
    there. On its boundary (a zero variance, a correlation of one) it is that of the model without the
    direction that vanished: :math:`\partial\Sigma/\partial\theta` is zero along it.

    Parameters
    ----------
    fit : LMMFit
        By REML or ML.
    kind : {"observed", "average"}
        Which Hessian: the exact one, or the average information, which costs nothing extra in large models.

    Notes
    -----
    Satterthwaite (1946), Biometrics Bulletin 2:110-114; Giesbrecht & Burns (1985), Biometrics 41:477-486;
    several rows: Fai & Cornelius (1996), J. Stat. Comput. Simul. 54:363-378.
    """

    name = "satterthwaite"

    def __init__(self, fit: LMMFit, kind: str = "observed") -> None:
        check_structures(fit, self.name)
        self._fit = fit
        self.kind = kind
        self.label = "Satterthwaite"
        self.notes: tuple[str, ...] = ()
        if kind == "average":
            self.notes = (
                "degrees of freedom by Satterthwaite from the average information; "
                'ddf="satterthwaite" takes the exact Hessian, which costs more for this model',
            )

    @property
    def vcov(self) -> np.ndarray:
        """Covariance of beta, as of the fit."""
        return self._fit.vcov

    @property
    def _parts(self) -> tuple[np.ndarray, np.ndarray]:
        return self._fit._once(f"satterthwaite_{self.kind}", lambda: _parts(self._fit, self.kind))

    def df(self, L: np.ndarray) -> np.ndarray:
        """Degrees of freedom of each row of L, shape (r,)."""
        return row_df(rows_of(L, self._fit.design.p), self.vcov, *self._parts)

    def coefficient_df(self) -> np.ndarray:
        """Degrees of freedom of each coefficient, shape (p,)."""
        J, A = self._parts
        return moment_df(self.vcov.diagonal(), J.diagonal(0, 1, 2), A)

    def f_test(self, L: np.ndarray, rhs: np.ndarray | None = None, as_given: bool = False) -> FTest:
        """F test of all rows of L together.

        The denominator degrees of freedom of Fai and Cornelius depend on the basis of the rows: on their
        reduced row echelon form, so that equal hypotheses get equal answers, or on the rows `as_given`.
        """
        rows, values = row_basis(rows_of(L, self._fit.design.p), rhs, self.vcov)
        F, rank = f_statistic(rows, self._fit.beta, self.vcov, values)
        if rank == 0:
            return FTest(math.nan, 0, math.nan, math.nan)
        if not as_given and rank > 1:
            rows = echelon_mixing(rows, np.sqrt(self.vcov.diagonal())) @ rows
        _, vectors = np.linalg.eigh(rows @ self.vcov @ rows.T)
        den_df = f_denominator(row_df(vectors.T @ rows, self.vcov, *self._parts))
        return FTest(F, rank, den_df, f_tail(F, rank, den_df))


def automatic(fit: LMMFit) -> Any:
    """Satterthwaite, from the average information where the exact Hessian would take more than a moment.

    The solver tells the work from its structure (`trace_work`): the columns that have to be solved for times
    the size of the sparse factor and of the coupling, not the number of random effects. Nested models and
    single factors are exact at any size, crossed ones up to some 200 x 200 levels.

    For a covariance given as a function of theta there is only the normal distribution, which a note says.
    """
    released = getattr(fit, "_objective", fit) is None  # a large fit has let go of its solver
    objective = fit.objective
    if not hasattr(objective, "joint_information"):
        normal = ConstantDF(fit, "z", "normal distribution", math.inf)
        normal.notes = (
            "normal reference distribution: degrees of freedom are not available for a covariance given as a "
            "function of theta",
        )
        return normal
    work = getattr(objective, "trace_work", None)  # of structured residuals; else it is the solver's
    cheap = (getattr(objective.solver, "trace_work", 0.0) if work is None else work) <= _MOMENT
    reference = Satterthwaite(fit, "observed" if cheap else "average")
    if released:
        _ = reference._parts
        fit._release()
    return reference


def _parts(fit: LMMFit, kind: str) -> tuple[np.ndarray, np.ndarray]:
    r"""Derivatives of Phi, (r + 1, p, p), and the covariance of their parameters.

    The last derivative, in log sigma^2, is Phi itself; it is left out where sigma is held fixed.
    """
    objective = fit.objective
    information, changes = objective.information_and_changes(fit.theta, kind, internal=True)
    J = np.empty((len(information), *changes.shape[1:]))
    np.multiply(changes, fit.sigma**2, out=J[: len(changes)])
    J[len(changes) :] = fit.vcov
    return J, covariance_of(fit, information, kind)[0]


def row_df(L: np.ndarray, vcov: np.ndarray, J: np.ndarray, A: np.ndarray) -> np.ndarray:
    """``2 (l'Phi l)^2 / (g'Ag)`` for each row l of L; infinite where the variance is known.

    Parameters
    ----------
    L : ndarray, shape (r, p)
    vcov : ndarray, shape (p, p)
    J : ndarray, shape (s, p, p)
        Derivatives of vcov in the variance parameters.
    A : ndarray, shape (s, s)
        Covariance of the variance parameters.
    """
    g = ((L @ J) * L).sum(axis=2)  # (s, r)
    return moment_df(((L @ vcov) * L).sum(axis=1), g, A)


def f_denominator(df: Any) -> float:
    r"""Denominator degrees of freedom of an F made of independent squared t's with `df` each.

    :math:`E = \sum \nu_m/(\nu_m - 2)` is the mean of the sum of the t's squares; that of q F(q, d) is
    q d/(d - 2), so d = 2E/(E - q). Equal df give their mean, and 2 if any df is not above 2.
    """
    df = np.asarray(df, dtype=float)
    q = len(df)
    if q == 1 or np.all(df == df[0]) or np.ptp(df) <= 1e-8 * df.max():
        return float(df.mean())
    if (df <= 2.0).any():
        return 2.0
    excess = float((2.0 / (df - 2.0)).sum())  # E - q
    return 2.0 * (excess + q) / excess
