"""Bootstrap of a fit: parametric, from its residuals, or by resampling clusters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import MixedModelsError, OptionError
from mixedmodels.fit.simulate import check_count
from mixedmodels.inference.arguments import name_list
from mixedmodels.inference.bootstrap.parallel import (
    Counter,
    chunk_size,
    chunk_stream,
    run_chunks,
    seed_entropy,
)
from mixedmodels.inference.bootstrap.refits import (
    Refits,
    coefficients_of,
    join_refits,
    limited_jobs,
    refit_rows,
    refit_state,
    singular_rows,
    standard_errors_of,
)
from mixedmodels.inference.bootstrap.resampling import (
    cluster_design,
    default_cluster,
    residual_pool,
    residual_term,
    simulate_columns,
)
from mixedmodels.inference.bootstrap.result import Bootstrap
from mixedmodels.inference.parameters import Parameter, natural_values, parameters_of

if TYPE_CHECKING:
    from mixedmodels.design import RandomTerm
    from mixedmodels.fit.result import LMMFit

__all__ = ["bootstrap", "cluster_term", "fit_to_design", "fit_to_levels", "jackknife_values", "refit_one"]

_KINDS = ("parametric", "residual", "cluster")


def bootstrap(
    fit: LMMFit,
    n: int = 1000,
    seed: Any = None,
    *,
    kind: str = "parametric",
    statistic: Callable[[Any], Any] | None = None,
    simulator: Callable[[Any, np.random.Generator], Any] | None = None,
    new_effects: Any = True,
    groups: str | None = None,
    n_jobs: int | None = None,
    progress: Any = "auto",
    resume: Any = None,
    backend: str | None = None,
) -> Bootstrap:
    r"""Refit the model to n data sets drawn from what the fit says about the data.

    ``"parametric"``: new responses :math:`X\hat\beta + Zb^* + e^*`,
    :math:`b^* \sim N(0, \hat\sigma^2\hat\Sigma)`, :math:`e_i^* \sim N(0, \hat\sigma^2/w_i)`; a singular
    :math:`\hat\Sigma` is simulated from as it is. ``"residual"``: levels and residuals drawn with
    replacement after rescaling to the estimated variances. ``"cluster"``: whole levels of a grouping factor
    drawn with replacement; a level drawn twice becomes two. Refits start from the estimates. For a
    generalised model ``"parametric"`` draws the responses from its family given :math:`X\hat\gamma + Zb^*`.

    Random effects are drawn anew unless ``new_effects=False``, the same default as `LMMFit.simulate`;
    `LMMFit.predict` conditions on them by default.

    Parameters
    ----------
    fit : LMMFit or GLMMFit
    n : int
        Replicates.
    seed : int, optional
        The draws depend on it alone: not on `n_jobs`, not on the backend.
    kind : {"parametric", "residual", "cluster"}
    statistic : callable, optional
        ``statistic(fit)`` of the fit and of every refit: a number, an array or a dict of numbers, always of
        the same shape. Refits are then full fits.
    simulator : callable, optional
        ``simulator(fit, rng)`` returns a response of length nobs; it replaces the parametric simulation.
    new_effects : bool or sequence of str
        Parametric only: False keeps the random effects at their conditional modes, names of grouping factors
        draw those anew and keep the others.
    groups : str, optional
        Cluster bootstrap only: the grouping factor whose levels are drawn; by default the one in which all
        others are nested.
    n_jobs : int, optional
        Workers; None takes all processors.
    progress : "auto", True, False or callable
        A callable receives (done, total).
    resume : Bootstrap or path, optional
        Continue an earlier run up to `n` replicates: the draws are those of one uninterrupted run.
    backend : str, optional
        A joblib backend instead of threads; one that is active is used without being named.

    Returns
    -------
    Bootstrap
        After KeyboardInterrupt the replicates done so far, with ``interrupted`` set and a note.

    Raises
    ------
    OptionError
        An option is wrong; the statistic changed its shape; a run to resume is another one.

    Notes
    -----
    Davison & Hinkley (1997), Bootstrap Methods and their Application; Carpenter, Goldstein & Rasbash (2003),
    Appl. Stat. 52:431-443.

    Examples
    --------
    >>> import mixedmodels as mm
    >>> fit = mm.lmm("Reaction ~ Days + (Days | Subject)", mm.load_dataset("sleepstudy", backend="dict"))
    >>> boot = fit.bootstrap(200, seed=1)
    >>> boot.draws.shape, boot.failures
    ((200, 6), ())
    """
    n = check_count(n, "replicates")
    if kind not in _KINDS:
        raise OptionError(f"bootstrap kind {kind!r} is unknown; available: {', '.join(_KINDS)}")
    if kind == "residual" and not fit._is_linear:
        raise OptionError(
            "the residual bootstrap adds resampled residuals to means, which is no response of a generalised "
            "model (a count, successes, ...); use kind='parametric' or kind='cluster'"
        )
    if groups is not None and kind != "cluster":
        raise OptionError(f"groups={groups!r} belongs to kind='cluster', not to kind={kind!r}")
    if simulator is not None and kind != "parametric":
        raise OptionError("a simulator replaces the parametric simulation; leave out kind")
    for name, function in (("statistic", statistic), ("simulator", simulator)):
        if function is not None and not callable(function):
            raise OptionError(f"{name} must be a function, got {type(function).__name__}")
    if not isinstance(new_effects, (bool, str)):
        new_effects = name_list(new_effects, "new_effects")
    cluster = cluster_term(fit, groups) if kind == "cluster" else None
    counter = Counter(progress, f"{kind} bootstrap", int(n))
    old = _earlier(resume)
    if old is not None and seed is None:
        entropy = old.entropy
    else:
        entropy = seed_entropy(seed)
    own = parameters_of(fit)
    names, estimates = list(own), _values_of(fit, own, _own_estimates(fit))[0]
    labels: list[str] = []
    if statistic is not None:
        first, labels = _as_vector(statistic(fit))
        names = [*names, *[Parameter(label, "statistic", None, label) for label in labels]]
        estimates = np.concatenate([estimates, first])
    settings = {
        "kind": kind,
        "entropy": entropy,
        "model": _signature(fit),
        "new_effects": new_effects,
        "groups": None if cluster is None else cluster.group,
        "simulator": simulator is not None,
        "parameters": [parameter.name for parameter in names],
        "sigma": fit._options.sigma if fit._is_linear else None,
    }
    if old is not None:
        old.check_resumable(settings)
        if len(old) >= n:
            return old.attached(fit, statistic, simulator)
    job = _Job(fit, kind, entropy, simulator, statistic, new_effects, cluster, labels)
    chunks = _chunks(0 if old is None else len(old), int(n), chunk_size(fit.design.n))
    counter.add(0 if old is None else len(old))
    parts, interrupted = run_chunks(
        job, chunks, [hi - lo for _, lo, hi in chunks], limited_jobs(fit, n_jobs), counter, backend
    )
    refits = join_refits([part[0] for part in parts], fit)
    extra = np.concatenate([np.empty((0, job.n_extra)), *(part[1] for part in parts)])
    natural = _values_of(fit, own, refits)
    new = Bootstrap(
        settings=settings,
        parameters=tuple(names),
        estimates=estimates,
        fit_se=standard_errors_of(fit),
        draws=np.concatenate([natural, extra], axis=1),
        se=refits.se,
        theta=refits.theta,
        criterion=refits.criterion,
        converged=refits.converged,
        singular=singular_rows(fit._random, refits.theta),
        failures=refits.failures,
        requested=int(n),
        interrupted=interrupted and refits.sigma.shape[0] < sum(hi - lo for _, lo, hi in chunks),
        _fit=fit,
        _statistic=statistic,
        _simulator=simulator,
    )
    return new if old is None else old.joined(new)


# ---------------------------------------------------------------------- checks and names
def cluster_term(fit: LMMFit, groups: Any) -> RandomTerm:
    """A term on the grouping factor whose levels are drawn.

    Raises
    ------
    OptionError
        No such factor, none in which all others are nested, or levels correlated by a known precision.
    NotImplementedYetError
        A row touches several levels of a term.
    """
    design = fit._random
    known = list(dict.fromkeys(term.group for term in design.terms))
    if isinstance(groups, (list, tuple)) and len(groups) == 1:
        groups = groups[0]
    own = residual_term(design)
    if own is not None and groups in ([own.group] if known else [own.group, None]):
        return own
    if not known:
        raise OptionError("the model has no grouping factor whose levels could be drawn")
    design.need_one_level("drawing levels anew")
    if groups is None:
        groups = default_cluster(design)
        if groups is None:
            raise OptionError(
                f"the grouping factors {', '.join(known)} are crossed: say which one's levels are to be "
                f"drawn, groups={known[0]!r}"
            )
    if groups not in known:
        raise OptionError(f"groups={groups!r} is not a grouping factor of the model ({', '.join(known)})")
    if any(term.precision is not None for term in design.terms):
        raise OptionError("levels correlated by a known precision cannot be drawn; use kind='parametric'")
    return next(term for term in design.terms if term.group == groups)


def _signature(fit: LMMFit) -> list[Any]:
    """What must agree for a run to be continued."""
    theta = [float(f"{value:.8g}") for value in fit.theta.tolist()]
    return [fit.formula_text, fit.nobs, fit.is_reml, float(f"{fit.criterion:.10g}"), theta]


def _earlier(resume: Any) -> Bootstrap | None:
    if resume is None or isinstance(resume, Bootstrap):
        return resume
    return Bootstrap.load(resume)


def _own_estimates(fit: LMMFit) -> Refits:
    none = np.empty((1, 0))
    return Refits(
        coefficients_of(fit)[None],
        none,
        np.array([fit._scale]),
        fit.theta[None],
        np.array([fit.criterion]),
        np.array([fit.converged]),
    )


def _values_of(fit: LMMFit, parameters: Sequence[Parameter], refits: Refits) -> np.ndarray:
    """Values of the parameters of refits of a fit, shape (N, parameters)."""
    return natural_values(fit._random, parameters, refits.beta, refits.sigma, refits.theta)


def _as_vector(value: Any) -> tuple[np.ndarray, list[str]]:
    """What a statistic returned as a vector, and the names of its values."""
    try:
        if isinstance(value, Mapping):
            return np.array([float(v) for v in value.values()]), [str(key) for key in value]
        array = np.asarray(value, dtype=float)
    except (TypeError, ValueError):
        raise OptionError(
            f"statistic must return a number, an array or a dict of numbers, not {type(value).__name__}"
        ) from None
    if array.ndim == 0:
        return array.reshape(1), ["statistic"]
    places = [",".join(map(str, place)) for place in np.ndindex(array.shape)]
    return array.ravel(), [f"statistic[{place}]" for place in places]


def _chunks(start: int, stop: int, size: int) -> list[tuple[int, int, int]]:
    """(chunk, from, to) of the replicates start .. stop - 1."""
    return [
        (c, max(start - c * size, 0), min(stop - c * size, size))
        for c in range(start // size, (stop + size - 1) // size)
    ]


# ---------------------------------------------------------------------- what workers do
@dataclass(frozen=True, slots=True)
class _Job:
    fit: LMMFit
    kind: str
    entropy: int
    simulator: Callable[[Any, np.random.Generator], Any] | None
    statistic: Callable[[Any], Any] | None
    new_effects: Any
    cluster: RandomTerm | None
    labels: list[str]

    @property
    def n_extra(self) -> int:
        """Values of the statistic."""
        return len(self.labels)

    def start(self) -> Any:
        pool = residual_pool(self.fit) if self.kind == "residual" else None
        native = self.cluster is None and self.statistic is None
        return refit_state(self.fit) if native else (None,), pool

    def run(self, state: Any, chunk: tuple[int, int, int]) -> tuple[Refits, np.ndarray]:
        c, lo, hi = chunk
        fitter, pool = state
        fit, size = self.fit, chunk_size(self.fit.design.n)
        rng = chunk_stream(self.entropy, c)
        if self.cluster is not None:
            levels = rng.integers(self.cluster.m, size=(size, self.cluster.m))[lo:hi]
            return self._full(
                lambda j: fit_to_levels(fit, self.cluster, levels[j]),  # type: ignore[arg-type]
                hi - lo,
            )
        if self.simulator is not None:
            Y = np.array([self._simulated(rng) for _ in range(hi)])[lo:]
        elif pool is not None:
            Y = pool.rows(fit.design, rng, size)[lo:hi]
        elif not fit._terms:  # one at a time, so that the first draws do not depend on their number
            Y = np.array([fit.simulate(1, rng, self.new_effects)[:, 0] for _ in range(hi)])[lo:]
        else:
            Y = simulate_columns(fit, rng, hi, self.new_effects)[:, lo:].T
        if self.statistic is not None:
            return self._full(lambda j: refit_one(fit, Y[j]), hi - lo)
        return refit_rows(fit, fitter, np.ascontiguousarray(Y)), np.empty((hi - lo, 0))

    def _simulated(self, rng: np.random.Generator) -> np.ndarray:
        assert self.simulator is not None
        y = np.asarray(self.simulator(self.fit, rng), dtype=float)
        if y.shape != (self.fit.design.n,):
            raise OptionError(
                f"the simulator returned shape {y.shape}; a response has {self.fit.design.n} values"
            )
        return y

    def _full(self, refit: Callable[[int], LMMFit], N: int) -> tuple[Refits, np.ndarray]:
        """Replicates as fits of their own, with the statistic of each."""
        p, r = len(coefficients_of(self.fit)), len(self.fit.theta)
        beta, se, theta = np.full((N, p), np.nan), np.full((N, p), np.nan), np.full((N, r), np.nan)
        sigma, criterion, converged = np.full(N, np.nan), np.full(N, np.nan), np.zeros(N, dtype=bool)
        extra = np.full((N, self.n_extra), np.nan)
        failures = []
        for j in range(N):
            try:
                new = refit(j)
                answer = None if self.statistic is None else self.statistic(new)
            except MixedModelsError as error:
                failures.append((j, str(error)))
                continue
            beta[j], se[j], theta[j] = coefficients_of(new), standard_errors_of(new), new.theta
            sigma[j], criterion[j], converged[j] = new._scale, new.criterion, new.converged
            if self.statistic is not None:
                value, labels = _as_vector(answer)
                if labels != self.labels:
                    raise OptionError(
                        f"statistic returned {len(labels)} value(s) for a replicate and {self.n_extra} for "
                        "the fit, or other names; it must return the same values every time (NaN where one "
                        "does not exist)"
                    )
                extra[j] = value
        return Refits(beta, se, sigma, theta, criterion, converged, tuple(failures)), extra


def fit_to_levels(fit: Any, cluster: RandomTerm, levels: np.ndarray) -> Any:
    """The model of a fit with chosen levels of a grouping factor, started from its estimates."""
    return fit_to_design(fit, cluster_design(fit._random, cluster, levels)[0])


def refit_one(fit: Any, y: np.ndarray) -> Any:
    """The model of a fit with another response, as a fit of its own."""
    if fit._is_linear:
        return fit.refit(y)
    from mixedmodels.inference.bootstrap.glmm_refits import refit_response

    return refit_response(fit, y)


def fit_to_design(fit: Any, design: Any) -> Any:
    """The model of a fit with another design, started from its estimates.

    Rows no longer are those of a data frame: all of them are kept, none has weight zero.

    Parameters
    ----------
    fit : LMMFit or GLMMFit
    design : Design or GeneralisedDesign
    """
    if not fit._is_linear:
        from mixedmodels.inference.bootstrap.glmm_refits import fit_to_generalised

        return fit_to_generalised(fit, design)
    from mixedmodels.fit import checks
    from mixedmodels.fit.solve import fit_frame

    changes: dict[str, Any] = {
        "design": design,
        "kept": None,
        "n_rows": design.n,
        "zero_weight_rows": None,
        "zero_weight_design": None,
    }
    names = {field.name for field in fields(fit.frame)}
    frame = replace(fit.frame, **{key: value for key, value in changes.items() if key in names})
    checks.check_data(design, sigma_fixed=fit._options.sigma is not None)
    return fit_frame(frame, replace(fit._options, start=np.array(fit.theta), progress=None), None)


def jackknife_values(new: LMMFit, boot: Bootstrap) -> np.ndarray:
    """The parameters of a bootstrap at another fit of its model, shape (q,)."""
    own = [parameter for parameter in boot.parameters if parameter.kind != "statistic"]
    values = _values_of(new, own, _own_estimates(new))[0]
    if boot._statistic is None:
        return np.concatenate([values, np.full(len(boot.parameters) - values.shape[0], np.nan)])
    return np.concatenate([values, _as_vector(boot._statistic(new))[0]])
