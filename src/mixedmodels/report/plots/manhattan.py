"""Plots of association scans: Manhattan and quantile-quantile."""

from __future__ import annotations

from typing import Any

import numpy as np

from mixedmodels.report.plots.style import BAND, LINE, POINT, SMOOTH, clean, dots, new_axes

__all__ = ["genome_positions", "plot_manhattan", "plot_p_quantiles"]

_GAP = 0.02  # between chromosomes, as a share of the genome


def genome_positions(
    chromosomes: Any, positions: Any, count: int
) -> tuple[np.ndarray, np.ndarray, list[tuple[str, float]]]:
    """Place of each marker on one axis, parity of its chromosome, and names with their middles.

    Without chromosomes the place is the number of the column.

    Examples
    --------
    >>> x, odd, names = genome_positions(["1", "1", "2"], [5, 10, 3], 3)
    >>> odd.tolist(), [name for name, _ in names]
    ([0, 0, 1], ['1', '2'])
    """
    if chromosomes is None:
        return np.arange(1.0, count + 1.0), np.zeros(count, dtype=int), []
    labels = np.array([str(c) for c in chromosomes], dtype=object)
    order = list(dict.fromkeys(labels.tolist()))
    order.sort(key=lambda name: (not name.isdigit(), int(name) if name.isdigit() else 0))
    x, odd, names = np.empty(count), np.zeros(count, dtype=int), []
    where = np.arange(count, dtype=float) if positions is None else np.asarray(positions, dtype=float)
    parts = [np.flatnonzero(labels == name) for name in order]
    lengths = [float(np.ptp(where[rows])) for rows in parts]
    gap = _GAP * max(sum(lengths), 1.0)
    at = 0.0
    for number, (name, rows, length) in enumerate(zip(order, parts, lengths, strict=True)):
        x[rows] = at + where[rows] - where[rows].min()
        odd[rows] = number % 2
        names.append((name, at + 0.5 * length))
        at += length + gap
    return x, odd, names


def plot_manhattan(scan: Any, ax: Any = None, threshold: float | None = 5e-8) -> Any:
    """Minus log10 of p along the genome, chromosomes in turn light and dark, with the threshold."""
    ax = new_axes(ax, (7.5, 3.4))
    columns = scan.table.columns
    p = np.asarray(columns["p_value"], dtype=float)
    x, odd, names = genome_positions(columns.get("chromosome"), columns.get("position"), len(p))
    known = np.isfinite(p)
    height = -np.log10(np.clip(p, 1e-300, 1.0))
    for parity, colour in ((0, POINT), (1, LINE)):
        rows = known & (odd == parity)
        if rows.any():
            dots(ax, x[rows], height[rows], color=colour)
    if threshold is not None:
        ax.axhline(-np.log10(threshold), color=SMOOTH, linewidth=1)
    ax.set_ylim(bottom=0.0)
    if names:
        ax.set_xticks([middle for _, middle in names], [name for name, _ in names])
    return clean(ax, "Association scan", "chromosome" if names else "marker", r"$-\log_{10} p$")


def plot_p_quantiles(scan: Any, ax: Any = None) -> Any:
    """Observed against expected minus log10 of p, with pointwise 95 % limits of uniform p values."""
    from scipy.special import betaincinv

    ax = new_axes(ax)
    p = np.asarray(scan.table["p_value"], dtype=float)
    p = np.sort(p[np.isfinite(p)])
    rank = np.arange(1.0, len(p) + 1.0)
    expected = -np.log10((rank - 0.5) / max(len(p), 1))
    low, high = (-np.log10(betaincinv(rank, len(p) - rank + 1.0, q)) for q in (0.975, 0.025))
    ax.fill_between(expected, low, high, color=BAND, linewidth=0)
    ax.plot(expected, expected, color=LINE, linewidth=1)
    dots(ax, expected, -np.log10(np.clip(p, 1e-300, 1.0)))
    title = rf"Quantiles of p, inflation {scan.inflation:.3f}"
    return clean(ax, title, r"expected $-\log_{10} p$", r"observed $-\log_{10} p$")
