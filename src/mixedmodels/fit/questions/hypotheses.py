"""Tests of fixed effects and random terms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mixedmodels.solver.threads import answers_on_one_thread

if TYPE_CHECKING:
    from mixedmodels.inference.table import ResultTable

__all__ = ["HypothesisQuestions"]


@answers_on_one_thread
class HypothesisQuestions:
    """Coefficients and tests."""

    __slots__ = ()

    def anova(self, type: int | str = 3, ddf: str | float | None = None) -> ResultTable:
        """F tests of the terms of the fixed part.

        Parameters
        ----------
        type : {3, 2, 1, "marginal", "sequential"}
            1 or ``"sequential"``: each term after those before it; 2: each term after all others that do not
            contain it; 3 or ``"marginal"``: each term after all others, in balanced (sum-to-zero) coding.
        ddf : str or float
            ``"satterthwaite"`` (default of linear models), ``"kr"``, ``"containment"``, ``"residual"``,
            ``"z"`` (default of generalised ones) or a number.
        """
        from mixedmodels.inference.fixed.anova import anova

        return anova(self, type, ddf)

    def coefficients(self, ddf: str | float | None = None, level: float = 0.95) -> ResultTable:
        """The fixed effects with standard errors, degrees of freedom, t tests and confidence intervals.

        Parameters
        ----------
        ddf : str or float
            As in `anova`, or ``"auto"``.
        level : float
            Confidence level.
        """
        from mixedmodels.inference.fixed.coefficients import coefficients

        return coefficients(self, ddf, level)

    def test(
        self,
        L: Any,
        rhs: Any = None,
        ddf: str | float | None = None,
        joint: bool = True,
    ) -> ResultTable:
        """Test of linear hypotheses ``L beta = rhs``: jointly by F, or row by row by t (``joint=False``).

        Parameters
        ----------
        L : array, dict from coefficient names to numbers, sequence of them, or text
            Rows of contrasts, ``{"Days": 1}``, or texts such as ``"fB - fC = 0"``.
        """
        from mixedmodels.inference.fixed.contests import test_hypothesis

        return test_hypothesis(self, L, rhs, ddf, joint)

    def small_sample(self) -> ResultTable:
        """Standard errors of fixed and random effects corrected for having estimated the variances."""
        from mixedmodels.inference.ddf.small_sample import small_sample

        return small_sample(self)

    def drop1(
        self, scope: Any = None, test: str | None = None, ddf: str | float | None = None
    ) -> ResultTable:
        """Each droppable term of the fixed part left out in turn.

        Parameters
        ----------
        scope : str or sequence of str, optional
            Terms to try; by default all that are not contained in another one.
        test : {"f", "lrt", "none"}
            F test at the fitted variances (default), likelihood ratio of refits by ML, or AIC only.
        """
        from mixedmodels.inference.fixed.drop1 import drop1

        return drop1(self, scope, test, ddf)

    def test_fixed(self, variable: Any, method: str = "wald", **options: Any) -> ResultTable:
        """Test of a fixed effect: a variable, a whole factor or an interaction.

        Parameters
        ----------
        variable : str, tuple of str or list
            A term of the formula (``"x"``, ``"f"``, ``"x:f"``), a coefficient, a variable whose terms are all
            meant, or a list of these for a joint test.
        method : {"wald", "lrt", "bootstrap"}
            F test (``ddf=``), likelihood-ratio test, or its parametric bootstrap (``n=``, ``seed=``,
            ``n_jobs=``, ``progress=``).
        """
        from mixedmodels.inference.likelihood.term_tests import test_fixed

        return test_fixed(self, variable, method, **options)

    def test_random(self, term: Any = None, method: str = "lrt", **options: Any) -> ResultTable:
        """Tests of the random terms, each left out in turn, the last one included.

        Parameters
        ----------
        term : str, optional
            ``"(Days | Subject)"``, ``"Days in (Days | Subject)"`` or a group; None tests every term that can
            go, and every effect of a correlated one but its intercept.
        method : {"lrt", "mixture", "rlrt", "bootstrap"}
            Chi-squared (conservative at the boundary), its boundary mixture, the exact restricted
            likelihood-ratio distribution by simulation (one variance), or parametric bootstrap.
        """
        from mixedmodels.inference.likelihood.term_tests import test_random

        return test_random(self, term, method, **options)

    def lod(self, variable: Any) -> ResultTable:
        """LOD score of a fixed effect or a random term: its likelihood-ratio statistic over ``2 ln 10``.

        Parameters
        ----------
        variable : str
            As in `test_fixed` (by ML), or a random term as in `test_random`: ``"(1 | g)"``.
        """
        from mixedmodels.inference.likelihood.lod import lod

        return lod(self, variable)
