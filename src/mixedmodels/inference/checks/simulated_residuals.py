"""Scaled simulation residuals: where each observation stands among responses drawn from the fitted model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import DataError, OptionError
from mixedmodels.fit.simulate import generator
from mixedmodels.inference.checks.grouping import grouping_of
from mixedmodels.inference.table import Drawn, ResultTable, result_table

if TYPE_CHECKING:
    pass

__all__ = ["SimulatedResiduals", "has_zeros", "simulated_residuals"]

_QUANTILES = (0.25, 0.5, 0.75)
_CHUNK = 1 << 21  # numbers ranked at a time


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class SimulatedResiduals(Drawn):
    """Scaled residuals, uniform on (0, 1) if the model holds, and tests of it.

    Every test compares a statistic of the data with the same statistic of each simulated response, ranked
    among all the others: p = (number at least as extreme + 1) / (n + 1). Correlation between the residuals of
    one group is therefore allowed for; that the parameters were estimated is not, which makes the tests
    somewhat conservative.

    Attributes
    ----------
    residuals : ndarray, shape (nobs,)
        (Responses below the observed one + u (ties + 1)) / (n + 1), u uniform.
    fitted : ndarray, shape (nobs,)
        Predictor of the plots and of the test of quantiles: fitted values of the simulated model.
    n : int
        Simulated responses.
    new_effects : bool
        Whether they were drawn with new random effects.
    """

    residuals: np.ndarray
    fitted: np.ndarray
    n: int
    new_effects: bool
    _ranks: np.ndarray
    _spread: np.ndarray
    _zeros: np.ndarray
    _fit: Any

    # ------------------------------------------------------------------ tests
    def uniformity(self) -> ResultTable:
        """Kolmogorov-Smirnov distance of the residuals from the uniform distribution."""
        statistic = np.array([_ks_distance(column) for column in self._columns()])
        return self._result("uniformity", statistic, "greater")

    def dispersion(self) -> ResultTable:
        """Variance of the deviations from the mean of the simulations, relative to theirs."""
        statistic = self._spread / self._spread[1:].mean()
        return self._result("dispersion", statistic, "two-sided")

    def outliers(self) -> ResultTable:
        """Number of observations beyond all simulations; 2 nobs / (n + 1) are expected."""
        extreme = (self._ranks == 0) | (self._ranks == self.n)
        return self._result("outliers", extreme.sum(axis=0).astype(float), "two-sided")

    def zeros(self) -> ResultTable:
        """Number of zeros in the response against that in the simulations.

        Raises
        ------
        OptionError
            The distribution of the response has no zeros.
        """
        if not has_zeros(self._fit):
            raise OptionError(
                "zeros can be counted for counts and successes out of several trials; the distribution of "
                "this response has none (or nothing else)"
            )
        return self._result("zeros", self._zeros.astype(float), "two-sided")

    def quantiles(self, x: Any = None) -> ResultTable:
        """Trend of the quartiles of the residuals along a predictor, linear and quadratic in its ranks.

        Parameters
        ----------
        x : str or array, optional
            A numeric column of the data or one value per row; by default the fitted values.
        """
        name, values = self._predictor(x)
        basis = _rank_basis(values)
        statistic = np.zeros(self.n + 1)
        for j, column in enumerate(self._columns()):
            for tau in _QUANTILES:
                score = basis.T @ ((column < tau) - tau)
                statistic[j] += float(score @ score) / (tau * (1.0 - tau))
        return self._result(f"quantiles along {name}", statistic, "greater")

    def by_group(self, group: Any) -> ResultTable:
        """Whether the residuals of the levels of a group differ in mean and in spread.

        Parameters
        ----------
        group : str or array
            A grouping factor, a column of the data, or one label per row.
        """
        grouping = grouping_of(self._fit, group)
        counts = np.bincount(grouping.codes).astype(float)
        centre, spread = np.zeros(self.n + 1), np.zeros(self.n + 1)
        for j, column in enumerate(self._columns()):
            mean = np.bincount(grouping.codes, column) / counts
            centre[j] = 12.0 * float(counts @ (mean - 0.5) ** 2)
            away = np.abs(column - mean[grouping.codes])
            level = np.bincount(grouping.codes, away) / counts
            spread[j] = float(counts @ (level - away.mean()) ** 2)
        first = self._result(f"means of {grouping.name}", centre, "greater")
        second = self._result(f"spread within {grouping.name}", spread, "greater")
        return _stacked([first, second], self._fit)

    def tests(self) -> ResultTable:
        """Uniformity, dispersion, outliers and quantiles together, and zeros where counts have them."""
        parts = [self.uniformity(), self.dispersion(), self.outliers(), self.quantiles()]
        if has_zeros(self._fit):
            parts.append(self.zeros())
        return _stacked(parts, self._fit)

    # ------------------------------------------------------------------ data
    def columns(self) -> dict[str, Any]:
        """Columns row, residual, fitted, expected (its uniform quantile), outlier: what plots show."""
        order = np.argsort(np.argsort(self.residuals, kind="stable"), kind="stable")
        nobs = self.residuals.shape[0]
        return {
            "row": np.arange(nobs) if self._fit.frame.kept is None else np.asarray(self._fit.frame.kept),
            "residual": np.array(self.residuals),
            "fitted": np.array(self.fitted),
            "expected": (order + 0.5) / nobs,
            "outlier": (self._ranks[:, 0] == 0) | (self._ranks[:, 0] == self.n),
        }

    def to_frame(self) -> Any:
        """Row by row, in the library of the data; rows of the likelihood only."""
        return self._fit._native(self.columns())

    def __str__(self) -> str:
        return str(self.tests())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.to_html()

    def to_html(self) -> str:
        """The tests as an HTML fragment."""
        return self.tests().to_html()

    # ------------------------------------------------------------------ helpers
    def _columns(self) -> Any:
        """Residuals of the data, then of each simulated response (ranks at the middle of their cell)."""
        yield self.residuals
        for j in range(1, self.n + 1):
            yield (self._ranks[:, j] + 0.5) / (self.n + 1)

    def _predictor(self, x: Any) -> tuple[str, np.ndarray]:
        if x is None:
            return "fitted", self.fitted
        from mixedmodels.frame.columns import Columns, numeric_column

        fit, n = self._fit, self.residuals.shape[0]
        if isinstance(x, str):
            if fit._data is None:
                raise OptionError(
                    f"this fit does not hold its data to look for {x!r}; pass the column itself"
                )
            values = np.asarray(numeric_column(x, Columns(fit._data), "x"))
        else:
            values = np.asarray(x, dtype=float)
        if values.shape == (fit.n_rows,) and fit.frame.kept is not None:
            values = values[fit.frame.kept]
        if values.shape != (n,):
            raise DataError(f"x has shape {values.shape}; it needs {n} values, one per row of the fit")
        if not np.isfinite(values).all():
            raise DataError("x holds missing or infinite values in the rows of the fit")
        return (x if isinstance(x, str) else "x"), values

    def _result(self, name: str, statistic: np.ndarray, side: str) -> ResultTable:
        observed, simulated = statistic[0], statistic[1:]
        slack = 1e-9 * (abs(observed) + 1e-300)
        above = (np.count_nonzero(simulated >= observed - slack) + 1) / (self.n + 1)
        p = float(above)
        if side == "two-sided":
            below = (np.count_nonzero(simulated <= observed + slack) + 1) / (self.n + 1)
            p = min(1.0, 2.0 * min(above, below))
        columns: dict[str, Any] = {
            "test": [name],
            "statistic": np.array([observed]),
            "expected": np.array([simulated.mean()]),
            "p_value": np.array([p]),
        }
        effects = "new random effects" if self.new_effects else "the fitted random effects"
        notes = [f"p-values from {self.n} responses simulated with {effects}"]
        return result_table("Simulation residuals", columns, notes, self._fit._native)


def simulated_residuals(
    fit: Any,
    n: int = 250,
    seed: Any = None,
    new_effects: bool = True,
    integer: bool | None = None,
    simulations: Any = None,
) -> SimulatedResiduals:
    """Scaled residuals by simulation, with tests.

    Parameters
    ----------
    fit : LMMFit or GLMMFit
    n : int
        Simulated responses, at least 20.
    seed : int, Generator or None
    new_effects : bool
        True simulates the whole model, random effects anew; False keeps them at their conditional modes,
        which looks at the residuals only (and makes them too small, the more so the fewer rows per level).
    integer : bool, optional
        Whether ties are spread at random; by default where the response or simulations have ties.
    simulations : array, shape (nobs, n), optional
        Responses simulated elsewhere.

    Returns
    -------
    SimulatedResiduals

    Raises
    ------
    OptionError
        Too few simulations.

    Notes
    -----
    Dunn & Smyth (1996), J. Comput. Graph. Stat. 5:236-244; Gelman & Hill (2007), ch. 8; the idea of the R
    package DHARMa.

    Examples
    --------
    >>> import mixedmodels as mm
    >>> fit = mm.lmm("Reaction ~ Days + (Days | Subject)", mm.load_dataset("sleepstudy", backend="dict"))
    >>> checked = fit.simulated_residuals(100, seed=1)
    >>> checked.tests()["test"].tolist()
    ['uniformity', 'dispersion', 'outliers', 'quantiles along fitted']
    """
    rng = generator(seed)
    y = np.asarray(fit.design.y if fit._is_linear else fit.generalised.data.y)
    if simulations is None:
        if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 20:
            raise OptionError(f"n must be a whole number of at least 20 simulations, got {n!r}")
        drawn = np.asarray(fit.simulate(int(n), rng, new_effects))
    else:
        drawn = np.asarray(simulations, dtype=float)
        if drawn.ndim != 2 or drawn.shape[0] != y.shape[0] or drawn.shape[1] < 20:
            raise DataError(
                f"simulations has shape {drawn.shape}; it needs {y.shape[0]} rows and at least 20 columns"
            )
    count = drawn.shape[1]
    ranks = np.empty((y.shape[0], count + 1), dtype=np.uint16 if count < 65_000 else np.uint32)
    sums, zeros = np.zeros(count + 1), np.zeros(count + 1, dtype=np.int64)
    rows = max(1, _CHUNK // (count + 1))
    for start in range(0, y.shape[0], rows):
        part = slice(start, start + rows)
        pool = np.column_stack([y[part], drawn[part]])
        ranks[part] = _random_ranks(pool, rng, integer)
        sums += _leave_one_out_squares(pool)
        zeros += np.count_nonzero(pool == 0.0, axis=0)
    scaled = (ranks[:, 0] + rng.random(y.shape[0])) / (count + 1)
    fitted = _fitted(fit, "population" if new_effects else None)
    scaled.setflags(write=False)
    return SimulatedResiduals(scaled, fitted, count, bool(new_effects), ranks, sums, zeros, fit)


def has_zeros(fit: Any) -> bool:
    """Whether the response is a count that may be zero (and not just 0 or 1)."""
    if fit._is_linear or fit.family.response not in ("count", "successes"):
        return False
    trials = fit.generalised.data.trials
    if fit.family.response == "successes":
        return trials is not None and bool((trials > 1.0).any())
    return not fit.family.name.startswith("truncated")


def _fitted(fit: Any, re_form: Any) -> np.ndarray:
    """Means of the rows in the likelihood; linear predictors of categories."""
    if fit._is_linear or fit.family.response == "categories":
        return np.array(fit._linear_predictor(re_form))
    return np.array(fit.family.mean(list(fit._etas(re_form))))


def _random_ranks(pool: np.ndarray, rng: np.random.Generator, integer: bool | None) -> np.ndarray:
    """Rank 0 .. N of each value within its row; ties in random order."""
    order = np.argsort(pool, axis=1, kind="stable")
    ranks = np.empty_like(order)
    places = np.broadcast_to(np.arange(pool.shape[1]), pool.shape)
    np.put_along_axis(ranks, order, places, axis=1)
    if integer is False:
        return ranks
    ordered = np.take_along_axis(pool, order, axis=1)
    tied = np.flatnonzero((ordered[:, 1:] == ordered[:, :-1]).any(axis=1))
    if tied.size:
        order = np.lexsort((rng.random((tied.size, pool.shape[1])), pool[tied]), axis=1)
        shuffled = np.empty_like(order)
        np.put_along_axis(shuffled, order, np.broadcast_to(places[0], order.shape), axis=1)
        ranks[tied] = shuffled
    return ranks


def _leave_one_out_squares(pool: np.ndarray) -> np.ndarray:
    """Per column, the sum over rows of the squared deviation from the mean of the row's other values."""
    N = pool.shape[1]
    deviation = (pool - pool.mean(axis=1, keepdims=True)) * (N / (N - 1))
    return np.einsum("ij,ij->j", deviation, deviation)


def _ks_distance(values: np.ndarray) -> float:
    ordered = np.sort(values)
    n = ordered.shape[0]
    steps = np.arange(1, n + 1) / n
    return float(max((steps - ordered).max(), (ordered - steps + 1.0 / n).max()))


def _rank_basis(values: np.ndarray) -> np.ndarray:
    """Orthonormal linear and quadratic polynomials in the ranks, shape (n, 2 or less)."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - 0.5 * (counts + 1)
    x = middle[inverse.ravel()] / values.shape[0] - 0.5
    powers = np.column_stack([np.ones_like(x), x, x * x])
    Q, R = np.linalg.qr(powers)
    return Q[:, 1:][:, np.abs(np.diagonal(R))[1:] > 1e-8 * np.sqrt(values.shape[0])]


def _stacked(parts: list[ResultTable], fit: Any) -> ResultTable:
    columns = {name: [value for part in parts for value in part[name].tolist()] for name in parts[0].columns}
    notes = dict.fromkeys(note for part in parts for note in part.notes)
    return result_table("Simulation residuals", columns, tuple(notes), fit._native)
