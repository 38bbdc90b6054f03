"""Whether a fit can be trusted: diagnostics, influence, residual checks, explained variance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mixedmodels.solver.threads import answers_on_one_thread

if TYPE_CHECKING:
    import numpy as np

    from mixedmodels.inference.table import ResultTable

__all__ = ["CheckQuestions"]


@answers_on_one_thread
class CheckQuestions:
    """Diagnostics of the search, of the model and of single observations."""

    __slots__ = ()

    @property
    def history(self) -> ResultTable:
        """The course of the search, one row per step; classical methods show the rejected ones too."""
        from mixedmodels.inference.classical.history import history

        return history(self)

    def diagnose(self) -> Any:
        """Convergence, singularity, scaling, collinearity and identifiability, in words and numbers."""
        from mixedmodels.inference.checks.diagnose import diagnose

        return diagnose(self)

    def influence(self, group: Any = None, refit: bool = False, progress: Any = "auto") -> ResultTable:
        """What leaving out each row, or each level of `group`, does to the estimates.

        DFBETA(S), Cook's distance, MDFFITS, COVRATIO, COVTRACE, sigma; exact at fixed variance ratios.

        Parameters
        ----------
        group : str, array or list of str, optional
            A grouping factor, a column of the data, one label per row, or several of these names; None leaves
            out single rows.
        refit : bool
            Estimate the variances anew without each of them.
        progress : "auto", True, False or callable
            Of the refits.
        """
        from mixedmodels.inference.checks.influence import influence

        return influence(self, group, refit, progress)

    def leverage(self) -> np.ndarray:
        """Diagonal of the hat matrix of the conditional fit; its sum is the effective degrees of freedom."""
        from mixedmodels.inference.checks.leverage import leverage

        return leverage(self)

    def cooks_distance(self, group: Any = None) -> np.ndarray:
        """Cook's distances: of rows on all fitted values, or of levels of `group` on the fixed effects."""
        from mixedmodels.inference.checks.influence import cooks_distance

        return cooks_distance(self, group)

    def _leverage_residuals(self, kind: str) -> np.ndarray:
        from mixedmodels.inference.checks.influence import standardized, studentized

        return standardized(self) if kind == "standardized" else studentized(self)

    def icc(self, scale: str = "latent", method: str | None = None) -> ResultTable:
        """Intraclass correlations: adjusted, unadjusted and per group.

        Parameters
        ----------
        scale : {"latent", "observation"}
            Of generalised models: the linear predictor, or the response itself.
        method : {"theoretical", "lognormal", "delta", "trigamma"}, optional
            Of generalised models: the variance of single observations on the latent scale; see
            `mixedmodels.inference.checks.latent_variance`.
        """
        from mixedmodels.inference.checks.icc import icc

        return icc(self, scale, method)

    def r2(self, scale: str = "latent", method: str | None = None) -> ResultTable:
        """Marginal and conditional R-squared (Nakagawa) with the variances they are made of.

        Parameters
        ----------
        scale, method
            As for `icc`.
        """
        from mixedmodels.inference.checks.icc import r2

        return r2(self, scale, method)

    def variance_parts(self, scale: str = "latent", method: str | None = None) -> ResultTable:
        """The variance of the response in parts: fixed effects, each random term, residual, and shares.

        Parameters
        ----------
        scale, method
            As for `icc`.
        """
        from mixedmodels.inference.checks.variance_parts import variance_parts

        return variance_parts(self, scale, method)

    def repca(self, scale: bool = False) -> ResultTable:
        """Principal components of the random effects of each group.

        Parameters
        ----------
        scale : bool
            Components of the correlations instead of the covariances.
        """
        from mixedmodels.inference.checks.repca import repca

        return repca(self, scale)

    def vif(self) -> ResultTable:
        """Generalised variance inflation factors of the terms of the fixed part."""
        from mixedmodels.inference.checks.diagnose import vif

        return vif(self)

    def simulated_residuals(self, n: int = 250, seed: Any = None, **options: Any) -> Any:
        """Scaled simulation residuals (uniform if the model holds) with tests.

        Parameters
        ----------
        n : int
            Simulated responses.
        seed : int, optional
        **options
            ``new_effects``, ``integer``, ``simulations``; see
            `mixedmodels.inference.checks.simulated_residuals.simulated_residuals`.
        """
        from mixedmodels.inference.checks.simulated_residuals import simulated_residuals

        return simulated_residuals(self, n, seed, **options)

    def check_overdispersion(self, n: int = 250, seed: Any = None) -> ResultTable:
        """Whether the response varies more than the family says, by Pearson residuals and by simulation.

        Parameters
        ----------
        n : int
            Simulated responses.
        seed : int, optional
        """
        from mixedmodels.inference.checks.overdispersion import check_overdispersion

        return check_overdispersion(self, n, seed)

    def check_zero_inflation(self, n: int = 250, seed: Any = None) -> ResultTable:
        """Whether a response of counts has more (or fewer) zeros than the model expects.

        Parameters
        ----------
        n : int
            Simulated responses.
        seed : int, optional
        """
        from mixedmodels.inference.checks.overdispersion import check_zero_inflation

        return check_zero_inflation(self, n, seed)

    def acf(self, lags: int | None = None, **options: Any) -> ResultTable:
        """Autocorrelations of the residuals within groups, to choose or check a residual structure.

        Parameters
        ----------
        lags : int, optional
            Largest lag, in rows.
        **options
            ``kind`` ("pearson", "normalized", ...), ``group``, ``order``, ``level``; see
            `mixedmodels.inference.checks.autocorrelation.acf`.
        """
        from mixedmodels.inference.checks.autocorrelation import acf

        return acf(self, lags, **options)  # type: ignore[arg-type]

    def variogram(self, distance: Any = None, **options: Any) -> ResultTable:
        """Semivariogram of the residuals within groups, to choose or check a residual structure.

        Parameters
        ----------
        distance : str, array or list of str, optional
            Columns of times or coordinates; by default those of the residual structure.
        **options
            ``kind``, ``group``, ``bins``, ``breaks``, ``max_distance``, ``robust``; see
            `mixedmodels.inference.checks.autocorrelation.variogram`.
        """
        from mixedmodels.inference.checks.autocorrelation import variogram

        return variogram(self, distance, **options)  # type: ignore[arg-type]

    def allfit(self, methods: Any = None) -> ResultTable:
        """The model fitted by every optimiser, and how far their answers are apart.

        Parameters
        ----------
        methods : str or sequence of str, optional
            Some of `mixedmodels.optimize.METHODS`; by default all.
        """
        from mixedmodels.inference.checks.allfit import allfit

        return allfit(self, methods)

    def robust_vcov(self, kind: str | None = None, cluster: Any = None, level: float = 0.95) -> Any:
        """Cluster-robust covariance of the fixed effects with t tests: ``.vcov`` and ``.table``.

        Parameters
        ----------
        kind : {"CR2", "CR0", "CR1", "CR1S", "CR3"}, optional
            By default CR2, of generalised models CR1 (from the scores of the clusters).
        cluster : str or array, optional
            A grouping factor, a column of the data, or one label per row; by default the outermost group.
        level : float
            Of the confidence intervals.
        """
        from mixedmodels.inference.checks.robust import robust_vcov

        return robust_vcov(self, kind, cluster, level)
