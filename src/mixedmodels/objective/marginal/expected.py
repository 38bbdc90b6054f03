r"""Laplace's approximation with the expected information in the determinant, as lme4's ``glmer`` has it.

.. math:: d = 2F(\hat u) + \log|H_E| - \log|P|, \qquad H_E = \Lambda'Z'W_E Z\Lambda + P, \quad
          W_E = E(-\partial^2 \log f/\partial\eta^2).

The mode is the same, and its derivatives come from the observed information. With canonical links the two
are equal. With other links the observed information belongs to Laplace's approximation proper; this one is
for agreement with programs that use Fisher scoring (Bates, Maechler, Bolker & Walker 2015, J. Stat. Softw.
67(1)).
"""

from __future__ import annotations

import numpy as np

from mixedmodels.design import GeneralisedDesign
from mixedmodels.errors import OptionError
from mixedmodels.family.base import Family
from mixedmodels.objective.marginal.dense import DenseLaplace

__all__ = ["ExpectedLaplace", "has_expected_information"]

LARGEST = 2e7  # rows times random effects


def has_expected_information(family: Family) -> bool:
    """Whether a family has one linear predictor and gives its expected information."""
    own = type(family)
    given = own.information is not Family.information or own.expected_weight is not Family.expected_weight
    return len(family.predictors) == 1 and given


class ExpectedLaplace(DenseLaplace):
    """`DenseLaplace` with expected weights in the determinant; matrices are dense.

    Parameters
    ----------
    design : GeneralisedDesign
    family : Family
        With one linear predictor.

    Raises
    ------
    OptionError
        The family has no expected information here, or the matrices would be too large.
    """

    name = "expected"
    reason = "information='expected'"

    def __init__(self, design: GeneralisedDesign, family: Family) -> None:
        if not has_expected_information(family):
            raise OptionError(
                f"information='expected' is not available for the family {family.name!r}; "
                "use information='observed', the default"
            )
        if design.n * design.q > LARGEST:
            raise OptionError(
                f"information='expected' works with dense matrices, too large for {design.n} rows and "
                f"{design.q} random effects; use information='observed', the default (with a canonical link, "
                "such as logit, or log for Poisson counts, the two are the same)"
            )
        super().__init__(design, family)

    def describe(self) -> str:
        """One line: which method on which sizes."""
        n, q = self.design.n, self.design.q
        return f"dense Laplace with expected information: n = {n}, q = {q}"

    def _weights(self, eta: np.ndarray, order: int) -> np.ndarray:
        data = self.design.data
        table = np.array(self.family.expected_weight(data, list(eta), order), dtype=float)
        return table.reshape(order + 1, self.design.n)

    def _determinant(self, E: np.ndarray, eta: np.ndarray, H: np.ndarray) -> np.ndarray:
        w = self._weights(eta, 0)[0]
        return self._P + E[0].T @ (w[:, None] * E[0])

    def _curvature(self, eta: np.ndarray, f2: np.ndarray, f3: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        w = self._weights(eta, 1)
        return -w[0][None, None], -w[1][None, None, None]

    def _fourth(self, eta: np.ndarray, f4: np.ndarray) -> np.ndarray:
        return -self._weights(eta, 2)[2][None, None, None, None]
