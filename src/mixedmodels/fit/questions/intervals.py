"""Confidence intervals, profiles and the bootstrap."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mixedmodels.solver.threads import answers_on_one_thread

if TYPE_CHECKING:
    from mixedmodels.inference.table import ResultTable

__all__ = ["IntervalQuestions"]


@answers_on_one_thread
class IntervalQuestions:
    """How exactly the parameters are known."""

    __slots__ = ()

    def confint(
        self, method: str = "wald", level: float = 0.95, parameters: Any = None, **options: Any
    ) -> ResultTable:
        """Confidence intervals.

        Parameters
        ----------
        method : {"wald", "satterthwaite", "kr", "profile", "bootstrap"}
            Normal quantiles; t quantiles; profile likelihood (fixed effects, residual SD, standard deviations
            and correlations; ``criterion="reml"`` for the restricted likelihood of the latter three);
            parametric bootstrap (``n=``, ``seed=``, ``kind=`` one of "percentile", "basic", "normal",
            "studentized", "bca", "all").
        level : float
            Confidence level.
        parameters : str or sequence of str, optional
            Only these; by default all the method can do. ``"Days"``, ``"sd_Days|Subject"``,
            ``"cor_Days.(Intercept)|Subject"``, ``"sigma"``; or ``"fixed"``, ``"random"``, ``"sd"``,
            ``"cor"``.
        """
        from mixedmodels.inference.confint import confint

        return confint(self, method, level, parameters, **options)

    def variance_parameters(self, level: float = 0.95) -> ResultTable:
        """Standard deviations, correlations, ranges, ... with standard errors and Wald intervals.

        The errors come by the delta method from the joint (observed) information of the covariance
        parameters and sigma; intervals are computed for logarithms, of correlations for the inverse
        hyperbolic tangent. On the boundary of the parameter space they are NaN.

        Parameters
        ----------
        level : float
        """
        from mixedmodels.inference.variance_wald import variance_parameters

        return variance_parameters(self, level)

    def profile(self, parameters: Any = None, **options: Any) -> Any:
        """Profile likelihood of every parameter: a `Profile` (``confint``, ``zeta``, ``density``, ``pairs``).

        Parameters
        ----------
        parameters : str or sequence of str, optional
            As in `confint`; by default all.
        **options
            ``level``, ``threshold``, ``criterion``, ``points``, ``progress``; see
            `mixedmodels.inference.profile.run.profile`.
        """
        from mixedmodels.inference.profile.run import profile

        return profile(self, parameters, **options)

    def bootstrap(self, n: int = 1000, seed: Any = None, **options: Any) -> Any:
        """Bootstrap of the fit: a `Bootstrap` of draws with ``confint``, ``hdi``, ``to_frame``, ``to_arviz``.

        Parameters
        ----------
        n : int
            Replicates.
        seed : int, optional
            The draws depend on it alone, not on `n_jobs`.
        **options
            ``kind`` ("parametric", "residual", "cluster"), ``statistic``, ``simulator``, ``new_effects``,
            ``groups``, ``n_jobs``, ``progress``, ``resume``, ``backend``; see
            `mixedmodels.inference.bootstrap.run.bootstrap`.
        """
        from mixedmodels.inference.bootstrap.run import bootstrap

        return bootstrap(self, n, seed, **options)
