"""The draws of a bootstrap: a frozen object that is saved, resumed, summarised and turned into intervals."""

from __future__ import annotations

import json
from collections import Counter as Tally
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import DataError, OptionError
from mixedmodels.fit.simulate import check_count
from mixedmodels.fit.varcorr import unique_keys
from mixedmodels.inference.parameters import Parameter, chosen, chosen_one
from mixedmodels.inference.table import Drawn, ResultTable, result_table

if TYPE_CHECKING:
    from mixedmodels.fit.result import LMMFit

__all__ = ["Bootstrap"]

_FORMAT = 2
_ARRAYS = ("estimates", "fit_se", "draws", "se", "theta", "criterion", "converged", "singular")


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Bootstrap(Drawn):
    """Draws of a bootstrap; see `mixedmodels.inference.bootstrap.run.bootstrap`.

    Attributes
    ----------
    settings : dict
        What the draws depend on: kind, entropy (the seed), the model and how responses were made.
    parameters : tuple of Parameter
        Fixed effects, standard deviations and correlations term by term, sigma, then the statistic; see
        `mixedmodels.inference.parameters.parameters_of`.
    estimates : ndarray, shape (q,)
        Of the fit.
    fit_se : ndarray, shape (p,)
        Standard errors of the fit's fixed effects.
    draws : ndarray, shape (N, q)
        One row per replicate; NaN where it failed or a correlation is not defined.
    se : ndarray, shape (N, p)
        Each replicate's own standard errors of the fixed effects.
    theta : ndarray, shape (N, n_theta)
    criterion : ndarray, shape (N,)
    converged, singular : ndarray of bool, shape (N,)
    failures : tuple of (int, str)
        Replicates that could not be fitted, and why.
    requested : int
        Replicates asked for.
    interrupted : bool
        Whether the user stopped the run; ``resume=`` continues it.
    """

    settings: dict[str, Any]
    parameters: tuple[Parameter, ...]
    estimates: np.ndarray
    fit_se: np.ndarray
    draws: np.ndarray
    se: np.ndarray
    theta: np.ndarray
    criterion: np.ndarray
    converged: np.ndarray
    singular: np.ndarray
    failures: tuple[tuple[int, str], ...]
    requested: int
    interrupted: bool
    _fit: LMMFit | None = None
    _statistic: Callable[[Any], Any] | None = None
    _simulator: Callable[..., Any] | None = None

    def __post_init__(self) -> None:
        for name in _ARRAYS:
            array = np.array(getattr(self, name))
            array.setflags(write=False)
            object.__setattr__(self, name, array)

    def __len__(self) -> int:
        return self.draws.shape[0]

    # ------------------------------------------------------------------ parts
    @property
    def kind(self) -> str:
        """``"parametric"``, ``"residual"`` or ``"cluster"``."""
        return self.settings["kind"]

    @property
    def entropy(self) -> int:
        """The seed all draws come from; with it the run can be repeated."""
        return int(self.settings["entropy"])

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns of `draws`."""
        return tuple(parameter.name for parameter in self.parameters)

    @property
    def beta(self) -> np.ndarray:
        """Draws of the fixed effects (of all coefficients of a generalised model), shape (N, p)."""
        return self.draws[:, : self.se.shape[1]]

    @property
    def sigma(self) -> np.ndarray:
        """Draws of the residual standard deviation, shape (N,)."""
        for i, parameter in enumerate(self.parameters):
            if parameter.kind == "sigma" or (
                parameter.kind == "dispersion" and parameter.group == "Residual"
            ):
                return self.draws[:, i]
        if self.settings["sigma"] is None:
            raise OptionError(
                f"there are no draws of a residual standard deviation; available: {', '.join(self.names)}"
            )
        return np.where(np.isfinite(self.criterion), self.settings["sigma"], np.nan)

    def __getitem__(self, name: str) -> np.ndarray:
        """The draws of one parameter."""
        return self.draws[:, self.parameters.index(chosen_one(self.parameters, name))]

    def positions(self, parameters: Any = None) -> list[int]:
        """Columns of parameters given by name, by term (``"sd__Days"``) or by kind (``"fixed"``), in order.

        Raises
        ------
        OptionError
            There is no such parameter.
        """
        wanted = chosen(self.parameters, parameters)
        return [i for i, parameter in enumerate(self.parameters) if parameter in wanted]

    @property
    def notes(self) -> tuple[str, ...]:
        """Replicates, failures, singular fits and whether the run was interrupted, in words."""
        N = len(self)
        what = "refits to simulated responses"
        if self.settings["groups"] is not None:
            what = f"refits to resampled levels of {self.settings['groups']}"
        elif self.kind == "residual":
            what = "refits to resampled effects and residuals"
        out = [f"{N} {what}, seed {self.entropy}"]
        drawn = self.settings["new_effects"]
        if self.kind == "parametric" and not self.settings["simulator"] and drawn is not True:
            names = [drawn] if isinstance(drawn, str) else drawn or []
            others = f" except those of {', '.join(names)}" if names else ""
            out.append(f"random effects held at their conditional modes{others}")
        if self.failures:
            tally = Tally(reason for _, reason in self.failures)
            reasons = "; ".join(f"{count} x {reason}" for reason, count in tally.most_common(3))
            out.append(f"{len(self.failures)} of {N} failed and are left out: {reasons}")
        stuck = int((~self.converged).sum()) - len(self.failures)
        if stuck > 0:
            out.append(f"{stuck} of {N} did not meet the convergence criterion and are kept")
        if self.singular.any():
            out.append(f"{int(self.singular.sum())} of {N} fits are singular")
        if self.interrupted:
            out.append(
                f"interrupted after {N} of {self.requested}: bootstrap(..., resume=this) continues the run"
            )
        return tuple(out)

    # ------------------------------------------------------------------ answers
    @property
    def _native(self) -> Any:
        return None if self._fit is None else self._fit._native

    def to_frame(self, long: bool = False) -> Any:
        """The draws as a data frame: ``replicate`` and one column per parameter.

        Parameters
        ----------
        long : bool
            Columns replicate, group, term, value instead.
        """
        N, q = self.draws.shape
        columns: dict[str, Any]
        if long:
            columns = {
                "replicate": np.repeat(np.arange(N), q),
                "group": [parameter.group for parameter in self.parameters] * N,
                "term": [parameter.name for parameter in self.parameters] * N,
                "value": self.draws.ravel().copy(),
            }
        else:
            columns = {"replicate": np.arange(N)}
            for i, name in enumerate(unique_keys(["replicate", *self.names])[1:]):
                columns[name] = self.draws[:, i].copy()
        return columns if self._native is None else self._native(columns)

    def summary(self) -> ResultTable:
        """Estimate, bias (mean of the draws minus estimate) and standard deviation of each parameter."""
        rows = []
        for i in range(len(self.parameters)):
            x = self.draws[np.isfinite(self.draws[:, i]), i]
            mean = x.mean() if x.size else np.nan
            rows.append((mean - self.estimates[i], x.std(ddof=1) if x.size > 1 else np.nan, x.size))
        columns: dict[str, Any] = {
            "term": [parameter.name for parameter in self.parameters],
            "group": [parameter.group for parameter in self.parameters],
            "estimate": self.estimates,
            "bias": [row[0] for row in rows],
            "sd": [row[1] for row in rows],
            "n": [row[2] for row in rows],
        }
        return result_table(f"{self.kind.capitalize()} bootstrap", columns, self.notes, self._native)

    def confint(
        self, kind: str = "percentile", level: float = 0.95, parameters: Any = None, groups: str | None = None
    ) -> ResultTable:
        """Confidence intervals from the draws; see `mixedmodels.inference.bootstrap.intervals.intervals`.

        Parameters
        ----------
        kind : {"percentile", "basic", "normal", "studentized", "bca", "all"}
        level : float
        parameters : str or sequence of str, optional
            Names, terms of ``tidy()`` or kinds ("fixed", "sd", "cor", "random", "statistic").
        groups : str, optional
            BCa: the grouping factor whose levels the jackknife leaves out.
        """
        from mixedmodels.inference.bootstrap.intervals import intervals

        return intervals(self, kind, level, parameters, groups)

    def hdi(self, level: float = 0.95, parameters: Any = None) -> ResultTable:
        """Shortest intervals that hold a share `level` of the draws."""
        from mixedmodels.inference.bootstrap.hdi import hdi_table

        return hdi_table(self, level, parameters)

    def to_arviz(self) -> Any:
        """The draws as an arviz ``InferenceData`` of one chain, failed replicates left out."""
        try:
            import arviz
        except ImportError:
            raise OptionError("to_arviz needs the package arviz; install it, or use to_frame()") from None
        good = np.isfinite(self.criterion)
        names = unique_keys(list(self.names))
        posterior = {name: self.draws[good, i][None] for i, name in enumerate(names)}
        return arviz.from_dict(posterior=posterior)

    # ------------------------------------------------------------------ more draws
    def extend(self, n: int, **options: Any) -> Bootstrap:
        """`n` more replicates; the draws are those of one longer run.

        Parameters
        ----------
        n : int
        **options
            ``n_jobs``, ``progress``, ``backend``; ``statistic`` and ``simulator`` if this was loaded.
        """
        from mixedmodels.inference.bootstrap.run import bootstrap

        n = check_count(n, "replicates")
        options.setdefault("statistic", self._statistic)
        options.setdefault("simulator", self._simulator)
        return bootstrap(
            self.fit,
            len(self) + int(n),
            kind=self.kind,
            new_effects=self.settings["new_effects"],
            groups=self.settings["groups"],
            resume=self,
            **options,
        )

    @property
    def fit(self) -> LMMFit:
        """The fit that was bootstrapped.

        Raises
        ------
        OptionError
            The draws were loaded from a file without their fit.
        """
        if self._fit is None:
            raise OptionError("these draws were loaded without their fit; use Bootstrap.load(path, fit=fit)")
        return self._fit

    def attached(self, fit: LMMFit, statistic: Any = None, simulator: Any = None) -> Bootstrap:
        """The same draws with their fit."""
        return replace(self, _fit=fit, _statistic=statistic, _simulator=simulator)

    def check_resumable(self, settings: dict[str, Any]) -> None:
        """Raise OptionError unless a run with `settings` would give these draws first."""
        words = {
            "kind": "kind",
            "entropy": "seed",
            "model": "fit",
            "new_effects": "new_effects",
            "groups": "groups",
            "simulator": "simulator",
            "parameters": "statistic",
        }
        for key, word in words.items():
            if settings[key] != self.settings[key]:
                raise OptionError(
                    f"the run to resume had another {word}; give the same one, or start anew without resume="
                )

    def joined(self, more: Bootstrap) -> Bootstrap:
        """These replicates followed by those of `more`."""
        both = {
            name: np.concatenate([getattr(self, name), getattr(more, name)])
            for name in ("draws", "se", "theta", "criterion", "converged", "singular")
        }
        failures = (*self.failures, *((len(self) + j, reason) for j, reason in more.failures))
        return replace(more, failures=failures, **both)  # type: ignore[arg-type]

    # ------------------------------------------------------------------ files
    def save(self, path: Any) -> None:
        """Write the draws to a file that `Bootstrap.load` reads: numbers and text only, without the fit.

        Parameters
        ----------
        path : str or path-like
            An existing file is replaced.
        """
        meta = {
            "format": _FORMAT,
            "settings": self.settings,
            "parameters": [[q.name, q.kind, q.group, q.term, q.where] for q in self.parameters],
            "failures": [list(failure) for failure in self.failures],
            "requested": self.requested,
            "interrupted": self.interrupted,
        }
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        with _path(path).open("wb") as file:
            np.savez_compressed(file, meta=np.array(json.dumps(meta)), **arrays)

    @classmethod
    def load(cls, path: Any, fit: LMMFit | None = None) -> Bootstrap:
        """Read draws that `save` wrote.

        Parameters
        ----------
        path : str or path-like
        fit : LMMFit, optional
            The fit they came from, needed for BCa intervals, `extend` and frames of the data's library.
        """
        where = _path(path)
        try:
            with np.load(where, allow_pickle=False) as file:
                meta = json.loads(str(file["meta"]))
                arrays = {name: file[name] for name in _ARRAYS}
        except FileNotFoundError:
            raise DataError(f"there is no file {str(path)!r}") from None
        except (ValueError, KeyError, OSError, EOFError) as error:
            raise DataError(f"{str(path)!r} holds no bootstrap draws: {error}") from None
        if meta.get("format") != _FORMAT:
            raise DataError(f"{str(path)!r} was written by another version of this package")
        return cls(
            settings=meta["settings"],
            parameters=tuple(
                Parameter(name, kind, group, term, tuple(where), float(estimate))
                for (name, kind, group, term, where), estimate in zip(
                    meta["parameters"], arrays["estimates"], strict=True
                )
            ),
            failures=tuple((int(j), str(reason)) for j, reason in meta["failures"]),
            requested=int(meta["requested"]),
            interrupted=bool(meta["interrupted"]),
            _fit=fit,
            **arrays,
        )

    # ------------------------------------------------------------------ presentation
    def __str__(self) -> str:
        return str(self.summary())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.summary().to_html()

    def to_html(self) -> str:
        """The summary as an HTML fragment."""
        return self.summary().to_html()


def _path(path: Any) -> Path:
    try:
        return Path(path)
    except TypeError:
        raise OptionError(f"path must be a text or a path, got {type(path).__name__}") from None
