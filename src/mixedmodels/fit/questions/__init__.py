"""Everything a fit answers beyond its estimates: each method hands the fit to one function of `inference`,
`genetics` or `report`, imported when it is asked.

The one place where a lower room reaches upwards, always inside a method.
"""

from __future__ import annotations

from mixedmodels.fit.questions.checks import CheckQuestions
from mixedmodels.fit.questions.genetics import GeneticQuestions
from mixedmodels.fit.questions.hypotheses import HypothesisQuestions
from mixedmodels.fit.questions.intervals import IntervalQuestions
from mixedmodels.fit.questions.predictions import PredictionQuestions
from mixedmodels.fit.questions.presentation import PresentationQuestions

__all__ = ["Questions"]


class Questions(
    HypothesisQuestions,
    IntervalQuestions,
    PredictionQuestions,
    CheckQuestions,
    GeneticQuestions,
    PresentationQuestions,
):
    """The methods of a fit that lead to `inference`, `genetics` and `report`."""

    __slots__ = ()
