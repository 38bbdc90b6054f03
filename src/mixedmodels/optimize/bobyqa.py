"""Derivative-free trust-region search with quadratic models on a box: COBYQA of SciPy.

COBYQA (Ragonneau 2022) succeeds Powell's BOBYQA: underdetermined quadratic interpolation, bounds respected
at every point. It is not BOBYQA itself, hence the names "cobyqa" and "bobyqa-like".
"""

from __future__ import annotations

import numpy as np

from mixedmodels.optimize.derivative_free import ValueSearch

__all__ = ["COBYQA"]


class COBYQA(ValueSearch):
    """COBYQA from the start, restarted once from its end with a smaller trust region."""

    def search(self, active: np.ndarray, limit: int) -> bool:
        """COBYQA on the active parameters; whether the trust region became small enough."""
        from scipy.optimize import Bounds, minimize

        fun = self.objective_at(active)
        done = False
        for radius in (0.5, 0.01):
            left = limit - self.run.iterations
            if left <= 0:
                return False
            x = self.run.theta[active]
            found = minimize(
                lambda x: min(fun(x), 1e30),
                x,
                method="COBYQA",
                bounds=Bounds(self.lower[active], self.upper[active]),
                options={
                    "maxfev": left,
                    "initial_tr_radius": radius * max(1.0, float(np.abs(x).max(initial=0.0)) * 0.5),
                    "final_tr_radius": 1e-7 * max(1.0, float(np.abs(x).max(initial=0.0))),
                },
            )
            done = found.status in (0, 1)
        return done
