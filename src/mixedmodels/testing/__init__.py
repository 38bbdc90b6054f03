"""Random designs and conformance checks for structures, solvers and objectives, public for extensions."""

from __future__ import annotations

from mixedmodels.testing.checks import (
    assert_close,
    check_covariance,
    check_objective,
    check_solver,
    example_structure,
    random_directions,
    random_parameters,
)
from mixedmodels.testing.designs import (
    DESIGN_KINDS,
    SINGLE_FACTOR_KINDS,
    random_design,
    random_factors,
    random_theta,
)
from mixedmodels.testing.marginal import check_marginal
from mixedmodels.testing.residual import check_residual, dense_residual

__all__ = [
    "DESIGN_KINDS",
    "SINGLE_FACTOR_KINDS",
    "assert_close",
    "check_covariance",
    "check_marginal",
    "check_objective",
    "check_residual",
    "check_solver",
    "dense_residual",
    "example_structure",
    "random_design",
    "random_directions",
    "random_factors",
    "random_parameters",
    "random_theta",
]
