"""The posterior mode of the variances."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import ConvergenceWarning, warn
from mixedmodels.fit.classical.hybrid import hybrid
from mixedmodels.fit.classical.names import Rules
from mixedmodels.fit.classical.search import Search
from mixedmodels.inference.classical.history import history_table
from mixedmodels.inference.posterior.model import PosteriorModel
from mixedmodels.inference.posterior.prior import VariancePrior
from mixedmodels.inference.table import ResultTable, result_table
from mixedmodels.objective.component_space import ComponentSpace
from mixedmodels.optimize.control import control_of
from mixedmodels.optimize.progress import Progress
from mixedmodels.solver.threads import one_blas_thread

if TYPE_CHECKING:
    from mixedmodels.objective.components import ComponentsPoint

__all__ = ["PosteriorMode", "PosteriorPoint", "PosteriorSpace", "find_mode", "posterior_mode"]


class PosteriorPoint:
    r"""Log posterior of :math:`(1/\sigma^2, \psi^{-1})`, beta integrated out, with derivatives in kappa.

    Parameters
    ----------
    point : ComponentsPoint
        The restricted likelihood.
    Psi : ndarray, shape (k, k)
    space : PosteriorSpace

    Attributes
    ----------
    loglik : float
        Log posterior density, without the prior's constant.
    score : ndarray
    """

    def __init__(self, point: ComponentsPoint, Psi: np.ndarray, space: PosteriorSpace) -> None:
        self._point, self._space = point, space
        self.values, self.sigma2, self._parts = point.values, point.sigma2, point._parts
        prior = space.prior
        inverse = np.linalg.inv(Psi)
        weighed = inverse @ prior.Dinv @ inverse
        directions = [row[0] for row in space.directions]
        d = prior.c - prior.k - 1.0
        gradient = [0.5 * float(np.sum((weighed - d * inverse) * E)) for E in directions]
        s2 = self.sigma2
        gradient.append(0.5 * prior.a / s2**2 - (0.5 * prior.b - 1.0) / s2)
        self._prior_information = np.zeros((len(gradient),) * 2)
        inner = np.array(
            [[float(np.sum((weighed @ E) * (inverse @ F).T)) for F in directions] for E in directions]
        )
        self._prior_information[:-1, :-1] = 0.25 * (inner + inner.T)
        self._prior_information[-1, -1] = 0.5 * prior.a / s2**3
        self.score = point.score + np.array(gradient)
        self.loglik = point.loglik + float(prior.log_density(s2, Psi))

    def information(self, kind: str = "expected") -> np.ndarray:
        """Information of the likelihood plus that of the prior (its curvature in logarithms, k = 1)."""
        return self._point.information(kind) + self._prior_information


class PosteriorSpace(ComponentSpace):
    """A `ComponentSpace` whose criterion is the log posterior.

    Parameters
    ----------
    objective : LMMObjective
        One random term.
    prior : VariancePrior
    """

    def __init__(self, objective: Any, prior: VariancePrior) -> None:
        super().__init__(objective, True)
        self.prior = prior

    def point(self, kappa: np.ndarray, kind: str | None = None) -> Any:
        """Log posterior and derivatives at kappa."""
        return PosteriorPoint(super().point(kappa, kind), self.sigmas(kappa)[0], self)

    def em(self, point: Any) -> np.ndarray:
        r"""One step of EM: :math:`\psi^+ = (\sum_l E\,b_lb_l' + D^{-1})/(m + c - k - 1)`,
        :math:`\sigma^{2+} = (E\,e'e + a)/(n + b - 2)`, the prior's mean squares among the data's.
        """
        plain = super().em(point._point)
        prior, m, n = self.prior, self.objective.design.terms[0].m, self.objective.design.n
        Psi = (m * self.sigmas(plain)[0] + prior.Dinv) / (m + prior.c - prior.k - 1.0)
        return self.kappa([Psi], (n * float(plain[-1]) + prior.a) / (n + prior.b - 2.0))


@dataclass(frozen=True, eq=False, repr=False)
class PosteriorMode:
    r"""The mode of the posterior density of :math:`(1/\sigma^2, \psi^{-1})`.

    Attributes
    ----------
    sigma2 : float
    Psi : ndarray, shape (k, k)
    beta : ndarray, shape (p,)
        Posterior mean of the fixed effects at these variances.
    vcov : ndarray, shape (p, p)
        Its covariance there.
    b : ndarray, shape (m, k)
        Predictions of the random effects there.
    logpost : float
        Restricted log-likelihood plus log prior density without its constant.
    converged : bool
    iterations : int
    history : ResultTable
        Steps of the search: Fisher scoring, or EM where it failed; ``loglik`` is the log posterior.
    prior : VariancePrior
    """

    sigma2: float
    Psi: np.ndarray
    beta: np.ndarray
    vcov: np.ndarray
    b: np.ndarray
    logpost: float
    converged: bool
    iterations: int
    history: ResultTable
    prior: VariancePrior
    _names: tuple[tuple[str, ...], tuple[str, ...]]

    def table(self) -> ResultTable:
        """Variances and fixed effects at the mode."""
        names, values = list(self._names[1]), [*self._entries(), self.sigma2]
        names += self._names[0]
        columns = {"parameter": np.array(names, dtype=object), "estimate": np.array([*values, *self.beta])}
        return result_table("Posterior mode of the variances", columns, extra={"logpost": self.logpost})

    def _entries(self) -> list[float]:
        k = self.Psi.shape[0]
        return [float(self.Psi[i, j]) for j in range(k) for i in range(j, k)]

    def __str__(self) -> str:
        return f"{self.table()}\nlog posterior {self.logpost:.6f}"

    __repr__ = __str__


@one_blas_thread()
def posterior_mode(
    model: Any,
    data: Any = None,
    *,
    prior: Any,
    V: Any = None,
    occasions: Any = None,
    start: Any = None,
    convergence: str = "decrement",
    tol: float | None = None,
    control: Any = None,
    progress: Any = "auto",
    **options: Any,
) -> PosteriorMode:
    r"""Posterior mode of the variances of a model with one random term.

    With :math:`\sigma^2 \sim a/\chi^2_b`, :math:`\psi^{-1} \sim \mathrm{Wishart}(c, D)` and beta flat, the
    mode of the density of :math:`(1/\sigma^2, \psi^{-1})` given y, beta integrated out: a compromise between
    REML and the prior that is never singular. Fisher scoring on logarithms, with a step of EM where it fails.

    Parameters
    ----------
    model : str, Formula, LinearMixedModel or LMMFit
        One random term with unstructured covariance; a formula needs `data`.
    data : data frame or dict of arrays, optional
    prior : VariancePrior or dict
        a, b, c and Dinv; see `VariancePrior`.
    V, occasions : array (T, T), and column name or array, optional
        Known residual covariance within groups; see `whiten_known`.
    start : sequence, optional
        Entries of psi (lower triangle by columns) and sigma^2; by default the prior guess.
    convergence, tol, control, progress
        As in `variance_components`.
    **options
        Other keywords of `lmm` where `model` is a formula.

    Returns
    -------
    PosteriorMode

    Raises
    ------
    OptionError
        The model has another random part, or the prior does not fit it.

    References
    ----------
    Schafer (1998), *Some improved procedures for linear mixed models*, section 5 (``fastmode`` of R's lmm).

    Examples
    --------
    >>> import mixedmodels as mm
    >>> data = mm.load_dataset("Dyestuff2", backend="dict")
    >>> mode = mm.posterior_mode("Yield ~ 1 + (1 | Batch)", data, prior=dict(a=10, b=1, c=1, Dinv=1))
    >>> bool(mode.Psi[0, 0] > 0.0)
    True
    """
    posterior = PosteriorModel.of(model, data, prior, V, occasions, options)
    return find_mode(posterior, start, Rules(convergence=convergence, tol=tol), control, progress)


def find_mode(
    posterior: PosteriorModel,
    start: Any = None,
    rules: Rules = Rules(),  # noqa: B008 (frozen)
    control: Any = None,
    progress: Any = None,
) -> PosteriorMode:
    """The mode of a `PosteriorModel`; see `posterior_mode`."""
    space = PosteriorSpace(posterior.objective, posterior.prior)
    if start is None:
        sigma2, Psi = posterior.prior.guess
        kappa = space.kappa([Psi], sigma2)
    else:
        from mixedmodels.fit.classical.starts import starting_values

        kappa = starting_values(ComponentSpace(posterior.objective), start)
    settings = control_of({} if control is None else control)
    shown = Progress(progress)
    search = Search(space, kappa, rules, settings, shown)
    try:
        search.begin(None)
        hybrid(search, settings.limit(200), lambda at: at.space.em(at.point))
    finally:
        shown.close()
    status = search.status
    if not status.converged:
        warn(f"the search for the posterior mode did not converge: {status.value}", ConvergenceWarning)
    kappa = search.kappa
    solution = posterior.objective.solution(space.theta(kappa))
    history = history_table(search.recorder.history(), "posterior mode", status.value)
    return PosteriorMode(
        sigma2=float(kappa[-1]),
        Psi=space.sigmas(kappa)[0],
        beta=np.array(solution.beta),
        vcov=float(kappa[-1]) * np.array(solution.vcov_unscaled),
        b=np.array(solution.b[0]),
        logpost=float(search.point.loglik) - 0.5 * posterior.logdet,
        converged=status.converged,
        iterations=search.iterations,
        history=history,
        prior=posterior.prior,
        _names=(tuple(posterior.design.x_names), space.names),
    )
