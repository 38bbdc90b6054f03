"""What a fit with a pedigree or a relationship matrix is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mixedmodels.solver.threads import answers_on_one_thread

if TYPE_CHECKING:
    from mixedmodels.inference.table import ResultTable

__all__ = ["GeneticQuestions"]


@answers_on_one_thread
class GeneticQuestions:
    """Breeding values and heritability."""

    __slots__ = ()

    def breeding_values(self, group: str | None = None, column: str | None = None) -> ResultTable:
        """Predictions for all levels of a term, with prediction error variance, reliability and accuracy.

        Parameters
        ----------
        group : str, optional
            Grouping factor; by default the only one with a known covariance between its levels.
        column : str, optional
            Column of a term with several; by default its intercept.
        """
        from mixedmodels.genetics.breeding import breeding_values

        return breeding_values(self, group, column)

    def heritability(
        self, ratio: str | None = None, level: float = 0.95, method: str = "delta", **options: Any
    ) -> ResultTable:
        """A ratio of variances with its standard error and confidence interval.

        Parameters
        ----------
        ratio : str, optional
            An expression of variance components, such as ``"animal / (animal + herd + Residual)"``; by
            default the heritability: the term with a known covariance over all variances.
        level : float
            Confidence level.
        method : {"delta", "profile", "bootstrap"}
            Normal quantiles and the delta method, the profile likelihood of the ratio, or percentiles of
            refits.
        **options
            ``n`` and ``seed`` of the bootstrap; of generalised models ``scale``, "latent" (the liability) or
            "observation" (the response).
        """
        from mixedmodels.genetics.heritability import heritability

        return heritability(self, ratio, level, method, **options)
