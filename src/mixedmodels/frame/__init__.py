"""From a data frame and a formula to arrays: the only room that touches data frames."""

from __future__ import annotations

from mixedmodels.frame.build import ModelFrame, build
from mixedmodels.frame.columns import Columns
from mixedmodels.frame.newdata import NewDesign
from mixedmodels.frame.state import Encoding

__all__ = ["Columns", "Encoding", "ModelFrame", "NewDesign", "build"]
