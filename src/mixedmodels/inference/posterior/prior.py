"""The prior of the variances: scaled inverse chi-square and inverse Wishart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mixedmodels.errors import OptionError

__all__ = ["VariancePrior", "prior_of"]


@dataclass(frozen=True, slots=True, eq=False)
class VariancePrior:
    r""":math:`\sigma^2 \sim a/\chi^2_b` and :math:`\psi^{-1} \sim \mathrm{Wishart}(c, D)`, beta flat.

    Parameters
    ----------
    a, b : float
        Prior guess a/b of sigma^2 worth b degrees of freedom.
    c : float
        Degrees of freedom of the guess Dinv/c of psi, at least k for a proper prior.
    Dinv : array, shape (k, k), or float
        Inverse of the scale matrix D.

    Raises
    ------
    OptionError
        A parameter is out of range.

    Notes
    -----
    Schafer (1998), *Some improved procedures for linear mixed models*; the function ``fastmode`` of R's lmm.

    Examples
    --------
    >>> VariancePrior(a=300, b=3, c=3, Dinv=15).guess
    (100.0, array([[5.]]))
    """

    a: float
    b: float
    c: float
    Dinv: Any

    def __post_init__(self) -> None:
        for name in ("a", "b", "c"):
            value = getattr(self, name)
            try:
                number = float(value)
            except (TypeError, ValueError):
                number = np.nan
            if not (np.isfinite(number) and number > 0.0):
                raise OptionError(f"{name} of the prior must be a positive number, got {value!r}")
            object.__setattr__(self, name, number)
        try:
            matrix = np.array(self.Dinv, dtype=float)
        except (TypeError, ValueError):
            raise OptionError("Dinv of the prior must hold numbers") from None
        matrix = matrix.reshape(1, 1) if matrix.size == 1 else matrix
        square = matrix.ndim == 2 and matrix.shape[0] == matrix.shape[1] and bool(np.isfinite(matrix).all())
        if not square or np.abs(matrix - matrix.T).max() > 1e-10 * np.abs(matrix).max():
            raise OptionError(f"Dinv of the prior must be a symmetric matrix, got shape {matrix.shape}")
        if np.linalg.eigvalsh(matrix)[0] <= 0.0:
            raise OptionError("Dinv of the prior must be positive definite")
        matrix.setflags(write=False)
        object.__setattr__(self, "Dinv", matrix)

    @property
    def k(self) -> int:
        """Number of random effects per group."""
        return self.Dinv.shape[0]

    @property
    def guess(self) -> tuple[float, np.ndarray]:
        """Prior guess of sigma^2 and of psi."""
        return self.a / self.b, self.Dinv / self.c

    def log_density(self, sigma2: Any, Psi: np.ndarray) -> Any:
        r"""Log density of :math:`(1/\sigma^2, \psi^{-1})` without its constant.

        Parameters
        ----------
        sigma2 : array, shape (...)
        Psi : ndarray, shape (..., k, k)
        """
        inverse = np.linalg.inv(Psi)
        logdet = np.linalg.slogdet(Psi)[1]
        traces = np.einsum("ij,...ji->...", self.Dinv, inverse)
        error = -(0.5 * self.b - 1.0) * np.log(sigma2) - 0.5 * self.a / sigma2
        return error - 0.5 * (self.c - self.k - 1.0) * logdet - 0.5 * traces


def prior_of(prior: Any, k: int) -> VariancePrior:
    """A `VariancePrior` from itself or a mapping with a, b, c and Dinv, for k random effects.

    Raises
    ------
    OptionError
        Something else, an unknown or missing name, a matrix of another size, or an improper prior.
    """
    if isinstance(prior, Mapping):
        names = ("a", "b", "c", "Dinv")
        wrong = [str(name) for name in prior if name not in names]
        missing = [name for name in names if name not in prior]
        if wrong or missing:
            what = f"unknown: {', '.join(wrong)}" if wrong else f"missing: {', '.join(missing)}"
            raise OptionError(f"prior needs a, b, c and Dinv; {what}")
        prior = VariancePrior(**prior)
    if not isinstance(prior, VariancePrior):
        raise OptionError(
            f"prior must be a VariancePrior or a dict with a, b, c and Dinv, got {type(prior).__name__}"
        )
    if prior.k != k:
        raise OptionError(f"Dinv of the prior is {prior.k} x {prior.k}; the random term has {k} columns")
    if prior.c <= k - 1:
        raise OptionError(
            f"c of the prior must be greater than {k - 1} for {k} random effects, got {prior.c:g}"
        )
    return prior
