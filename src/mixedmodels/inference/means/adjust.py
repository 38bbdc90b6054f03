"""Adjustment of p-values and intervals for a family of tests."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from mixedmodels.errors import OptionError
from mixedmodels.inference.means import mvt

__all__ = ["ADJUSTMENTS", "Family", "adjust_p_values", "check_adjust", "critical_values", "raw_p_values"]

ADJUSTMENTS = (
    "none", "tukey", "sidak", "bonferroni", "holm", "hochberg", "hommel", "fdr", "by",
    "scheffe", "dunnett", "dunnettx", "mvt",
)  # fmt: skip
_ALIASES = {"bh": "fdr", "None": "none", "no": "none", "single-step": "mvt"}
_STEPWISE = ("holm", "hochberg", "hommel", "fdr", "by")


@dataclass(frozen=True, slots=True, eq=False)
class Family:
    """The tests that are looked at together.

    Attributes
    ----------
    kind : {"means", "pairwise", "dunnett", "contrasts"}
        "pairwise": all differences of `size` means; "dunnett": each against one of them.
    size : int
        Means compared (pairwise), or number of tests.
    covariance : ndarray, shape (m, m)
        Of the estimates tested.
    rank : int
        Dimension of the space of the contrasts, for Scheffe's method.
    """

    kind: str
    size: int
    covariance: np.ndarray
    rank: int

    @property
    def compared(self) -> int | None:
        """Number of means whose differences are all there; None if the pairs are not complete."""
        m = self.covariance.shape[0]
        for k in (self.size, self.rank + 1):
            if m == k * (k - 1) // 2:
                return k
        return None

    @property
    def correlation(self) -> np.ndarray:
        """Correlation matrix of the estimates."""
        scale = 1.0 / np.sqrt(np.diag(self.covariance))
        return self.covariance * scale * scale[:, None]


def check_adjust(method: Any) -> str:
    """The name of an adjustment in its usual spelling."""
    name = "none" if method is None else str(method).lower()
    name = _ALIASES.get(name, name)
    if name not in ADJUSTMENTS:
        raise OptionError(f"adjust={method!r} is unknown; available: {', '.join(ADJUSTMENTS)}")
    return name


def settle(method: str, family: Family, side: int, interval: bool) -> tuple[str, str]:
    """The method that can be used for this family, and a note if it is another one."""
    m = family.covariance.shape[0]
    if m <= 1 and method not in ("none", "scheffe"):
        return "none", ""
    if interval and method in _STEPWISE:
        return "bonferroni", f'intervals: adjust="bonferroni", because "{method}" has no intervals'
    if method == "tukey" and family.kind == "pairwise" and side == 0 and family.compared is None:
        return "mvt", 'adjust="tukey" is computed as "mvt": some comparisons cannot be estimated'
    if method == "tukey" and (family.kind != "pairwise" or side != 0):
        why = "all pairwise comparisons" if side == 0 else "two-sided pairwise comparisons"
        return "sidak", f'adjust="tukey" was changed to "sidak": it is for one set of {why}'
    if method == "scheffe" and side != 0:
        return "sidak", 'adjust="scheffe" was changed to "sidak": it is for two-sided tests'
    if method == "dunnettx" and family.kind != "dunnett":
        return "mvt", 'adjust="dunnettx" was changed to "mvt": it is for comparisons with one control'
    if method == "dunnett" and mvt.product_structure(family.correlation) is None:
        return "mvt", 'adjust="dunnett" is computed as "mvt": the correlations are not of the form l_i l_j'
    return method, ""


def raw_p_values(t: np.ndarray, df: np.ndarray, side: int = 0) -> np.ndarray:
    """p-values of t statistics; side 0 two-sided, 1 for "greater", -1 for "less"."""
    from scipy.special import ndtr, stdtr

    def below(x: np.ndarray) -> np.ndarray:
        infinite = np.isinf(df)
        return np.where(infinite, ndtr(x), stdtr(np.where(infinite, 1.0, df), x))

    if side == 0:
        return 2.0 * below(-np.abs(t))
    return below(-t) if side > 0 else below(t)


def adjust_p_values(
    method: str, t: np.ndarray, df: np.ndarray, side: int, family: Family
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Adjusted p-values of one family and notes.

    Parameters
    ----------
    method : str
        One of `ADJUSTMENTS`.
    t, df : ndarray, shape (m,)
        Statistics and their degrees of freedom, all finite or df infinite.
    side : {0, 1, -1}
    family : Family
        Its covariance belongs to the same m estimates.
    """
    raw = raw_p_values(t, df, side)
    used, note = settle(method, family, side, False)
    notes = [note] if note else []
    m = t.shape[0]
    if used == "none" or m == 0:
        return raw, tuple(notes)
    if used == "bonferroni":
        p = np.minimum(m * raw, 1.0)
    elif used == "sidak":
        p = -np.expm1(m * np.log1p(-np.minimum(raw, 1.0 - 1e-16)))
    elif used in _STEPWISE:
        p = _stepwise(used, raw)
    elif used == "scheffe":
        from scipy.special import chdtrc, fdtrc

        r = max(family.rank, 1)
        p = np.array(
            [
                chdtrc(r, x * x) if math.isinf(v) else fdtrc(r, v, x * x / r)
                for x, v in zip(t, df, strict=True)
            ]
        )
    else:
        sf, simulated = _tail(used, family, side)
        signed = np.abs(t) if side == 0 else side * t
        errors = [sf(float(x), float(v)) for x, v in zip(signed, df, strict=True)]
        p = np.array([value for value, _ in errors])
        error = max(e for _, e in errors)
        if simulated:
            notes.append(f"mvt: shifted lattices with fixed seeds, standard error of p at most {error:.1g}")
    used_size = family.compared if used == "tukey" else m
    what = "comparing a family of" if used == "tukey" else "a family of"
    if used == "scheffe":
        notes.insert(0, f"p-values adjusted: scheffe method with rank {family.rank}")
    else:
        noun = "estimates" if used == "tukey" else "tests"
        notes.insert(0, f"p-values adjusted: {used} method for {what} {used_size} {noun}")
    return np.clip(p, raw, 1.0), tuple(notes)


def critical_values(
    method: str, df: np.ndarray, level: float, side: int, family: Family
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Factors of the standard errors in simultaneous intervals, and notes."""
    from scipy.special import ndtri, stdtrit

    used, note = settle(method, family, side, True)
    notes = [note] if note else []
    m = df.shape[0]
    alpha = 1.0 - level

    def t_quantile(upper: float) -> np.ndarray:
        infinite = np.isinf(df)
        return np.where(infinite, -ndtri(upper), -stdtrit(np.where(infinite, 1.0, df), upper))

    sides = 2.0 if side == 0 else 1.0
    if used == "none" or m == 0:
        return t_quantile(alpha / sides), tuple(notes)
    if used == "bonferroni":
        values = t_quantile(alpha / sides / m)
    elif used == "sidak":
        values = t_quantile(-math.expm1(math.log1p(-alpha) / m) / sides)
    elif used == "scheffe":
        from scipy.special import chdtri, fdtri

        r = max(family.rank, 1)
        values = np.array(
            [math.sqrt(chdtri(r, alpha) if math.isinf(v) else r * fdtri(r, v, 1.0 - alpha)) for v in df]
        )
    else:
        sf, _ = _tail(used, family, side)
        keys = [float(f"{v:.10g}") for v in df.tolist()]  # equal but for rounding: one quantile
        quantile = {v: mvt.quantile_of(partial(_first, sf, v), alpha) for v in dict.fromkeys(keys)}
        values = np.array([quantile[v] for v in keys])
    name = f"{used} method for {family.compared if used == 'tukey' else m} estimates"
    if used == "scheffe":
        name = f"scheffe method with rank {family.rank}"
    notes.insert(0, f"intervals adjusted: {name}")
    return values, tuple(notes)


def _tail(used: str, family: Family, side: int) -> Any:
    """Function (t, df) -> (P(max > t), standard error), and whether it is simulated."""
    if used == "tukey":
        return (
            lambda t, v: (mvt.range_sf(t * math.sqrt(2.0), family.compared or family.size, v), 0.0)
        ), False
    if used in ("dunnett", "dunnettx"):
        m = family.covariance.shape[0]
        loadings = np.full(m, math.sqrt(0.5))
        if used == "dunnett":
            found = mvt.product_structure(family.correlation)
            assert found is not None
            loadings = found
        return (lambda t, v: (mvt.dunnett_sf(t, loadings, v, side == 0), 0.0)), False
    heights, rank = mvt.sphere_heights(family.correlation, side == 0)

    def sf(t: float, v: float) -> tuple[float, float]:
        return mvt.max_t_sf(t, v, heights, rank)

    return sf, rank > 2


def _first(sf: Any, df: float, t: float) -> float:
    return sf(t, df)[0]


def _stepwise(method: str, p: np.ndarray) -> np.ndarray:
    """Holm, Hochberg, Hommel, Benjamini-Hochberg ("fdr") and Benjamini-Yekutieli ("by")."""
    m = p.shape[0]
    order = np.argsort(p, kind="stable")
    ordered = p[order]
    i = np.arange(1, m + 1)
    if method == "holm":
        out = np.maximum.accumulate((m - i + 1) * ordered)
    elif method == "hochberg":
        out = np.minimum.accumulate(((m - i + 1) * ordered)[::-1])[::-1]
    elif method in ("fdr", "by"):
        factor = float((1.0 / i).sum()) if method == "by" else 1.0
        out = np.minimum.accumulate((factor * m / i * ordered)[::-1])[::-1]
    else:
        out = _hommel(ordered)
    result = np.empty(m)
    result[order] = np.minimum(out, 1.0)
    return result


def _hommel(ordered: np.ndarray) -> np.ndarray:
    """Hommel's closure of the Simes tests, p ordered; Wright (1992), Biometrics 48, 1005-1013."""
    m = ordered.shape[0]
    out = ordered.copy()
    for size in range(m, 1, -1):
        tail = ordered[m - size + 1 :]
        simes = float((size * tail / np.arange(2, size + 1)).min())
        head = m - size + 1
        bound = np.minimum(size * ordered[:head], simes)
        out[:head] = np.maximum(out[:head], bound)
        out[head:] = np.maximum(out[head:], bound[-1])
    return out
