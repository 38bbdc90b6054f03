"""Every exception and warning of the package, each with a remedy in its text.

All exceptions derive from :class:`MixedModelsError`, which is a ``ValueError``: bad input is
reported in one line that names the column, term or level and says what to do.
Warnings derive from :class:`MixedModelsWarning`; facts worth knowing that need no action are
*notes*, kept in ``fit.messages`` and never raised.
"""

from __future__ import annotations

import sys
import warnings

__all__ = [
    "ConvergenceWarning",
    "DataError",
    "FormulaError",
    "FormulaWarning",
    "IdentifiabilityError",
    "MixedModelsError",
    "MixedModelsWarning",
    "NewLevelError",
    "NotEstimableWarning",
    "NotImplementedYetError",
    "OptionError",
    "SolverError",
    "warn",
]


class MixedModelsError(ValueError):
    """Base of every error raised on purpose by this package."""


class FormulaError(MixedModelsError):
    """The formula text cannot be read; the message points at the place and says what to write."""


class DataError(MixedModelsError):
    """A column is missing, has the wrong type, or holds values a model cannot use."""


class NewLevelError(DataError):
    """New data hold a level of a factor that the fit has not seen."""


class IdentifiabilityError(MixedModelsError):
    """The data cannot tell the parameters of the model apart; the message names the term."""


class OptionError(MixedModelsError):
    """An argument has a value that is not among the allowed ones."""


class SolverError(MixedModelsError):
    """The numerical problem cannot be solved as posed (for instance a matrix is not positive definite)."""


class NotImplementedYetError(MixedModelsError, NotImplementedError):
    """The formula or option is understood, but this version cannot fit it."""


class MixedModelsWarning(UserWarning):
    """Base of every warning of this package; each names a remedy."""


class FormulaWarning(MixedModelsWarning):
    """The formula is valid but probably does not say what was meant."""


class ConvergenceWarning(MixedModelsWarning):
    """The optimiser stopped before its convergence criterion was met."""


class NotEstimableWarning(MixedModelsWarning):
    """A requested value cannot be estimated from the data and is returned as NaN."""


def warn(message: str, category: type[MixedModelsWarning]) -> None:
    """Warn at the line outside this package that led here, however deep inside the package that was."""
    level = 2  # 1 is this function itself
    frame = sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "mixedmodels":
        level += 1
        frame = frame.f_back  # type: ignore[assignment]
    warnings.warn(message, category, stacklevel=level)
