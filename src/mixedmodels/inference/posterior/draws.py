"""Draws from a posterior: a frozen object that is summarised, tabulated and handed to arviz."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import OptionError
from mixedmodels.inference.posterior.diagnostics import effective_size, rhat, tail_size
from mixedmodels.inference.posterior.prior import VariancePrior
from mixedmodels.inference.table import ResultTable, result_table

if TYPE_CHECKING:
    from mixedmodels.inference.posterior.mode import PosteriorMode

__all__ = ["PosteriorDraws"]


@dataclass(frozen=True, eq=False, repr=False)
class PosteriorDraws:
    """Draws of chains; see `sample_posterior`.

    Attributes
    ----------
    method : str
        "metropolis" or "gibbs".
    beta : ndarray, shape (chains, draws, p)
    sigma2 : ndarray, shape (chains, draws)
    Psi : ndarray, shape (chains, draws, k, k)
        Covariance matrices of the random effects.
    b : ndarray, shape (chains, draws, m, k), or None
        Random effects, if they were kept.
    accepted : ndarray of bool, shape (chains, draws)
        Whether the proposal after the draw was accepted ("metropolis").
    ratios : ndarray, shape (chains, draws)
        Its probability of acceptance; NaN for "gibbs".
    mode : PosteriorMode
        Where the search for the mode ended.
    prior : VariancePrior
    warmup : int
        Cycles before the first draw.
    interrupted : bool
        Whether the run was stopped early.
    x_names, names : tuple of str
        Fixed effects, and columns of the random term.
    group : str
    levels : sequence of length m
    """

    method: str
    beta: np.ndarray
    sigma2: np.ndarray
    Psi: np.ndarray
    b: np.ndarray | None
    accepted: np.ndarray
    ratios: np.ndarray
    mode: PosteriorMode
    prior: VariancePrior
    warmup: int
    interrupted: bool
    x_names: tuple[str, ...]
    group: str
    names: tuple[str, ...]
    levels: Any

    def __post_init__(self) -> None:
        for array in (self.beta, self.sigma2, self.Psi, self.b, self.accepted, self.ratios):
            if array is not None:
                array.setflags(write=False)

    @property
    def chains(self) -> int:
        """Number of chains."""
        return self.sigma2.shape[0]

    @property
    def draws(self) -> int:
        """Number of draws of each chain."""
        return self.sigma2.shape[1]

    @property
    def sigma(self) -> np.ndarray:
        """Residual standard deviations, shape (chains, draws)."""
        return np.sqrt(self.sigma2)

    @property
    def acceptance(self) -> float:
        """Share of accepted proposals; NaN for "gibbs"."""
        return float(self.accepted.mean()) if self.method == "metropolis" else np.nan

    def parameters(self) -> dict[str, np.ndarray]:
        """Fixed effects, standard deviations, correlations and sigma by name, each (chains, draws)."""
        out = {name: self.beta[:, :, j] for j, name in enumerate(self.x_names)}
        sd = np.sqrt(np.einsum("cdii->cdi", self.Psi))
        for j, name in enumerate(self.names):
            out[f"sd({self.group}.{name})"] = sd[:, :, j]
        for j in range(len(self.names)):
            for i in range(j + 1, len(self.names)):
                label = f"cor({self.group}.{self.names[j]}.{self.names[i]})"
                out[label] = self.Psi[:, :, i, j] / (sd[:, :, i] * sd[:, :, j])
        out["sigma"] = self.sigma
        return out

    def __getitem__(self, name: str) -> np.ndarray:
        """The draws of one parameter, shape (chains, draws)."""
        found = self.parameters()
        if name not in found:
            raise OptionError(f"there is no parameter {name!r}; available: {', '.join(found)}")
        return found[name]

    def to_frame(self) -> dict[str, np.ndarray]:
        """A table with one row per draw: chain, draw and a column per parameter."""
        chain, draw = np.divmod(np.arange(self.chains * self.draws), self.draws)
        columns = {name: values.reshape(-1) for name, values in self.parameters().items()}
        return {"chain": chain, "draw": draw, **columns}

    def summary(self, level: float = 0.95) -> ResultTable:
        """Mean, standard deviation, interval, R-hat and effective sample sizes of each parameter.

        Parameters
        ----------
        level : float
            Of the equal-tailed interval.
        """
        if not 0.0 < level < 1.0:
            raise OptionError(f"level must lie between 0 and 1, got {level!r}")
        found = self.parameters()
        tail = 0.5 * (1.0 - level)
        columns: dict[str, Any] = {
            "parameter": list(found),
            "mean": [values.mean() for values in found.values()],
            "sd": [values.std(ddof=1) if values.size > 1 else np.nan for values in found.values()],
            "lower": [np.quantile(values, tail) for values in found.values()],
            "upper": [np.quantile(values, 1.0 - tail) for values in found.values()],
            "rhat": [rhat(values) for values in found.values()],
            "ess_bulk": [effective_size(values) for values in found.values()],
            "ess_tail": [tail_size(values) for values in found.values()],
        }
        notes = [f"{self.chains} chains of {self.draws} draws after {self.warmup} cycles"]
        if self.method == "metropolis":
            notes.append(f"{100.0 * self.acceptance:.0f} % of the proposals accepted")
        worst = np.nanmax(columns["rhat"]) if np.isfinite(columns["rhat"]).any() else np.nan
        if worst > 1.01:
            notes.append(f"R-hat up to {worst:.3f}: the chains have not mixed; draw more")
        if self.interrupted:
            notes.append("the run was interrupted; these are the draws made until then")
        return result_table(f"Posterior ({self.method})", columns, notes=tuple(notes))

    def to_arviz(self) -> Any:
        """The draws as an arviz ``InferenceData``: beta, sigma, Sigma and b, with coordinates."""
        try:
            import arviz
        except ImportError:
            raise OptionError("to_arviz needs the package arviz; install it, or use to_frame()") from None
        posterior: dict[str, Any] = {"beta": self.beta, "sigma": self.sigma, "Sigma": self.Psi}
        coords = {"coefficient": list(self.x_names), "effect": list(self.names), "effect_": list(self.names)}
        dims = {"beta": ["coefficient"], "Sigma": ["effect", "effect_"]}
        if self.b is not None:
            posterior["b"] = self.b
            coords["level"] = [str(level) for level in self.levels]
            dims["b"] = ["level", "effect"]
        return arviz.from_dict(posterior=posterior, coords=coords, dims=dims)

    def __str__(self) -> str:
        return str(self.summary())

    __repr__ = __str__
