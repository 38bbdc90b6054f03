"""A compiled solver with one linear combination of the fixed effects held: from its cross-products alone."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np

from mixedmodels.solver.compiled import CompiledSolver

__all__ = ["hold_coefficient"]


def hold_coefficient(solver: CompiledSolver, column: int, value: float) -> CompiledSolver:
    r"""The solver of the model in which coefficient `column` has a given value.

    With internal coordinates :math:`\beta = \beta_0 + s T_X \tilde\beta` the condition is
    :math:`a'\tilde\beta = h`, a the row of :math:`T_X`, :math:`h = (\text{value} - \beta_{0})/s`. With an
    orthonormal basis N of the complement of a, the model has the fixed part :math:`\tilde X N` and the
    response :math:`\tilde y - \tilde X a\, h/|a|^2`, whose cross-products are linear in those of
    :math:`[\tilde X\ \tilde y]`. Rows of data are not needed.

    It gives the likelihood (not the restricted one) as a function of theta; its estimates of the other
    coefficients are those of another coordinate system and are not meant to be used.

    Parameters
    ----------
    solver : CompiledSolver
    column : int
    value : float
    """
    std, p = solver.standardised, solver.p
    a = std.T_X[column]
    length = float(np.linalg.norm(a))
    h = (value - float(std.beta0[column])) / std.y_scale
    change = np.zeros((p + 1, p))
    # the last p - 1 columns of the Householder reflection that takes a to the first axis
    v = a / length
    v = v + np.where(np.arange(p) == 0, 1.0 if v[0] >= 0.0 else -1.0, 0.0)
    change[:p, :-1] = (np.eye(p) - 2.0 * np.outer(v, v) / float(v @ v))[:, 1:]
    change[:p, -1] = -a * (h / length**2)
    change[p, -1] = 1.0
    out = copy.copy(solver)
    for name in ("evaluator", "_reference"):
        out.__dict__.pop(name, None)
    factors = tuple([replace(f, ZXy=np.ascontiguousarray(f.ZXy @ change)) for f in solver.pack.factors])
    G = change.T @ solver.pack.G @ change
    out.pack = replace(solver.pack, factors=factors, G=0.5 * (G + G.T))
    out.p = p - 1
    out._working, out._solving = {}, {}
    out._prepare()
    return out
