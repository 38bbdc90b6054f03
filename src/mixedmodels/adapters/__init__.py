"""Bridges to other packages: a fit in the form that they take.

`maketables` needs none: ``maketables.ETable([fit1, fit2])`` takes fits as they are.
"""

from mixedmodels.adapters.effects import marginaleffects

__all__ = ["marginaleffects"]
