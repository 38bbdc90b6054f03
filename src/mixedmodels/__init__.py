"""Mixed-effects models for Python.

    >>> import mixedmodels as mm
    >>> data = mm.load_dataset("sleepstudy", backend="dict")
    >>> fit = mm.lmm("Reaction ~ Days + (Days | Subject)", data)
    >>> round(fit.sigma, 3)
    25.592

Names are imported on first use, so that ``import mixedmodels`` costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mixedmodels.api import blup, glmm, gls, lmm
    from mixedmodels.datasets import dataset_names, describe_dataset, load_dataset
    from mixedmodels.design import RandomTerm
    from mixedmodels.errors import (
        ConvergenceWarning,
        DataError,
        FormulaError,
        FormulaWarning,
        IdentifiabilityError,
        MixedModelsError,
        MixedModelsWarning,
        NewLevelError,
        NotEstimableWarning,
        NotImplementedYetError,
        OptionError,
        SolverError,
    )
    from mixedmodels.family.base import Family
    from mixedmodels.fit.classical.whiten import whiten_known
    from mixedmodels.fit.denovo import simulate
    from mixedmodels.fit.glmm_result import GLMMFit
    from mixedmodels.fit.penalised import penalised
    from mixedmodels.fit.result import LMMFit
    from mixedmodels.fit.save import load
    from mixedmodels.formula import formula_from_lists
    from mixedmodels.inference.bootstrap.power import power
    from mixedmodels.inference.classical.components import variance_components
    from mixedmodels.inference.likelihood.compare import compare
    from mixedmodels.inference.posterior.mode import posterior_mode
    from mixedmodels.inference.posterior.prior import VariancePrior
    from mixedmodels.inference.posterior.sample import sample_posterior
    from mixedmodels.model import LinearMixedModel
    from mixedmodels.optimize.control import Control
    from mixedmodels.solver.sparse_cholesky import SparseCholesky

__all__ = [
    "Control",
    "ConvergenceWarning",
    "DataError",
    "Family",
    "FormulaError",
    "FormulaWarning",
    "GLMMFit",
    "IdentifiabilityError",
    "LMMFit",
    "LinearMixedModel",
    "MixedModelsError",
    "MixedModelsWarning",
    "NewLevelError",
    "NotEstimableWarning",
    "NotImplementedYetError",
    "OptionError",
    "RandomTerm",
    "SolverError",
    "SparseCholesky",
    "VariancePrior",
    "__version__",
    "blup",
    "compare",
    "dataset_names",
    "describe_dataset",
    "formula_from_lists",
    "glmm",
    "gls",
    "lmm",
    "load",
    "load_dataset",
    "penalised",
    "posterior_mode",
    "power",
    "sample_posterior",
    "simulate",
    "variance_components",
    "whiten_known",
]

_HOMES = {
    "VariancePrior": "mixedmodels.inference.posterior.prior",
    "posterior_mode": "mixedmodels.inference.posterior.mode",
    "sample_posterior": "mixedmodels.inference.posterior.sample",
    "whiten_known": "mixedmodels.fit.classical.whiten",
    "variance_components": "mixedmodels.inference.classical.components",
    "power": "mixedmodels.inference.bootstrap.power",
    "penalised": "mixedmodels.fit.penalised",
    "compare": "mixedmodels.inference.likelihood.compare",
    "blup": "mixedmodels.api",
    "gls": "mixedmodels.api",
    "lmm": "mixedmodels.api",
    "glmm": "mixedmodels.api",
    "Family": "mixedmodels.family.base",
    "GLMMFit": "mixedmodels.fit.glmm_result",
    "LinearMixedModel": "mixedmodels.model",
    "LMMFit": "mixedmodels.fit.result",
    "load": "mixedmodels.fit.save",
    "formula_from_lists": "mixedmodels.formula",
    "RandomTerm": "mixedmodels.design",
    "SparseCholesky": "mixedmodels.solver.sparse_cholesky",
    "Control": "mixedmodels.optimize.control",
    "load_dataset": "mixedmodels.datasets",
    "dataset_names": "mixedmodels.datasets",
    "simulate": "mixedmodels.fit.denovo",
    "describe_dataset": "mixedmodels.datasets",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            value: Any = version("mixedmodels")
        except PackageNotFoundError:  # a source tree that was not installed
            value = "0+unknown"
    elif name in ("adapters", "genetics", "residual"):
        from importlib import import_module

        value = import_module(f"mixedmodels.{name}")
    elif name in __all__:
        from importlib import import_module

        value = getattr(import_module(_HOMES.get(name, "mixedmodels.errors")), name)
    else:
        raise AttributeError(f"module 'mixedmodels' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
