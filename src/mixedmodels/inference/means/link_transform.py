"""From linear predictors of generalised models to means: inverse links, means made of several predictors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.design import Design
from mixedmodels.errors import OptionError
from mixedmodels.family.jet import place, variables
from mixedmodels.family.links import LINKS, Link
from mixedmodels.family.mean_jets import mean_derivatives
from mixedmodels.fit.values import readonly
from mixedmodels.formula.ast import Variable
from mixedmodels.inference.means.back_transform import BackTransform, Step, back_transform
from mixedmodels.inference.means.grid import Grid, full_rows, make_grid, mean_offset

if TYPE_CHECKING:
    from mixedmodels.inference.means.linear_source import Source

__all__ = ["MeanView", "link_transform", "mean_grid", "response_grid", "slope_grid", "unknown_response"]

_RATIOS = {"log": "ratios", "logit": "odds ratios"}


def link_transform(fit: Any) -> BackTransform | None:
    """The inverse link of the predictor a fit (or a view of one) is about; None for the identity.

    A transform of a continuous response, ``sqrt(y)``, is undone too.
    """
    component = getattr(fit, "component", "conditional")
    if component != "conditional":
        link = LINKS["logit" if component == "zero_inflation" else "log"]
        return BackTransform(
            f"{link.name} of {component}", link.name, (_step(link),), math.e, _RATIOS[link.name]
        )
    link = fit.family.link
    if fit.family.response == "categories":
        return None
    outer = back_transform(fit.formula.response) if fit.family.response == "number" else None
    if link.name == "identity":
        return outer
    steps = (_step(link), *(outer.steps if outer is not None else ()))
    base = math.e if link.name in _RATIOS and outer is None else None
    return BackTransform(f"{link.name} of the mean", link.name, steps, base, _RATIOS.get(link.name, "ratios"))


def unknown_response(fit: Any) -> str:
    """The response if its scale cannot be reached from the linear predictor."""
    response = fit.formula.response
    if getattr(fit, "component", "conditional") != "conditional":
        return ""
    if fit.family.response == "categories":
        return str(response)
    plain = fit.family.response != "number" or isinstance(response, Variable)
    return "" if plain or back_transform(response) is not None else str(response)


def _step(link: Link) -> Step:
    def step(u: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        table = link.inverse(variables([u], (0,), 3)[0]).table(u.shape[0])
        return table[0], table[1], table[2], table[3]

    return step


# ---------------------------------------------------------------------- the scale of the response on the grid


def response_grid(grid: Grid, source: Source) -> Grid:
    r"""The grid on the scale of the response: ``L beta + offset`` is the mean there.

    .. math:: m_r = h(\eta_r), \qquad L_r = h'(\eta_r)\,x_r'

    so that averages over the grid are averages of means, with delta-method errors.
    """
    transform = source.transform
    if transform is None:
        return grid
    possible = source.estimable(grid.L)
    beta = source.fit.beta
    eta = np.where(possible, source.design_rows(grid.L) @ beta + grid.offset, 0.0)
    value, slope, _, _ = transform.derivatives(eta)
    L = np.where(possible, slope, 1.0)[:, None] * grid.L
    return replace(grid, L=L, offset=np.where(possible, value - source.design_rows(L) @ beta, 0.0))


def slope_grid(slopes: Grid, grid: Grid, source: Source) -> Grid:
    r"""Slopes of the mean from slopes of the linear predictor.

    .. math:: \frac{\partial m_r}{\partial x} = h'(\eta_r)\,d_r'\beta, \qquad
              L_r = h'(\eta_r)\,d_r' + h''(\eta_r)\,(d_r'\beta)\,x_r'

    Parameters
    ----------
    slopes, grid : Grid
        Rows d and x.
    source : Source
    """
    transform = source.transform
    if transform is None:
        return slopes
    possible = source.estimable(grid.L) & source.estimable(slopes.L)
    beta = source.fit.beta
    eta = np.where(possible, source.design_rows(grid.L) @ beta + grid.offset, 0.0)
    rate = np.where(possible, source.design_rows(slopes.L) @ beta, 0.0)
    _, first, second, _ = transform.derivatives(eta)
    L = first[:, None] * slopes.L + (second * rate)[:, None] * grid.L
    L = np.where(possible[:, None], L, slopes.L + grid.L)
    offset = np.where(possible, first * rate - source.design_rows(L) @ beta, 0.0)
    return replace(slopes, L=L, offset=offset)


# ---------------------------------------------------------------------- means made of several predictors


class MeanView:
    """A generalised fit seen as all its coefficients: what the mean of the response depends on.

    Parameters
    ----------
    fit : GLMMFit

    Attributes
    ----------
    beta : ndarray, shape (n_gamma,)
    vcov : ndarray, shape (n_gamma, n_gamma)
    encodings : tuple
        Of all predictors with a formula.
    """

    component = "response"

    def __init__(self, fit: Any) -> None:
        generalised = fit.generalised
        order = np.concatenate([predictor.columns for predictor in generalised.predictors])
        if not np.array_equal(order, np.arange(len(generalised.gamma_names))):
            raise OptionError('component="response": predictors of this model share coefficients')
        self._fit = fit
        self.beta = fit.gamma
        G = len(order)
        self.vcov = readonly(np.array(fit.joint_vcov[:G, :G]))
        parts = fit.frame.parts or {}
        others = [parts.get(predictor.name) for predictor in generalised.predictors[1:]]
        self.frames = (fit.frame, *others)
        self.encodings = tuple([frame.encoding for frame in self.frames if frame is not None])
        X = np.zeros((generalised.n, G))
        self.design = Design(generalised.data.y, X, generalised.gamma_names, (), None)
        dropped = [name for frame in self.frames if frame is not None for name in frame.dropped_columns]
        self.dropped_columns = tuple(dict.fromkeys(dropped))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._fit, name)

    def rank(self) -> tuple[np.ndarray, np.ndarray | None]:
        """Columns of the estimated coefficients among all, and what cannot be estimated."""
        kept, nulls, at = [], [], 0
        sizes = [1 if f is None else len(f.encoding.fixed.names) for f in self.frames]
        for frame, size in zip(self.frames, sizes, strict=True):
            own = None if frame is None else frame.encoding.kept
            kept.append(at + (np.arange(size) if own is None else np.asarray(own)))
            null = None if frame is None else frame.encoding.null
            if null is not None and null.size:
                block = np.zeros((sum(sizes), null.shape[1]))
                block[at : at + size] = null
                nulls.append(block)
            at += size
        return np.concatenate(kept), np.hstack(nulls) if nulls else None


def mean_grid(
    view: MeanView,
    source: Source,
    at: Mapping[str, Any] | None,
    cov_reduce: Any,
    cov_keep: Any,
    offset: float | None,
    nesting: Any,
    data: Any,
) -> Grid:
    """The reference grid with the mean of the response made of all linear predictors, by the delta method."""
    fit = view._fit
    offsets: list[np.ndarray] = []
    blocks: list[np.ndarray] = []

    def rows(_: Any, values: Mapping[str, Any]) -> tuple[np.ndarray, None]:
        n = len(next(iter(values.values())))
        for c, frame in enumerate(view.frames):
            if frame is None:
                blocks.append(np.ones((n, 1)))
                offsets.append(np.zeros(n))
                continue
            X, own = full_rows(_Framed(frame), values)  # type: ignore[arg-type]
            if c == 0 and offset is not None:
                own = np.full(n, float(offset))
            elif c == 0:
                own = (0.0 if own is None else own) + np.full(n, mean_offset(fit))
            blocks.append(X)
            offsets.append(np.zeros(n) if own is None else own)
        return np.hstack(blocks), None

    grid = make_grid(view, at, cov_reduce, cov_keep, 0.0, nesting, data, rows=rows)  # type: ignore[arg-type]
    possible = source.estimable(grid.L)
    C, r = len(blocks), len(grid.L)
    eta, first = np.zeros((C, r)), 0
    for c, block in enumerate(blocks):
        full = np.zeros_like(grid.L)
        full[:, first : first + block.shape[1]] = block
        eta[c] = source.design_rows(full) @ view.beta + offsets[c]
        first += block.shape[1]
    eta[:, ~possible] = 0.0
    table = mean_derivatives(fit.family, eta, 1)
    where, unit = place(C, 1), np.eye(C, dtype=int)
    L = np.hstack([table[where[tuple(unit[c])]][:, None] * block for c, block in enumerate(blocks)])
    L = np.where(possible[:, None], L, grid.L)
    value = np.where(possible, table[0] - source.design_rows(L) @ view.beta, 0.0)
    return replace(grid, L=L, offset=value)


class _Framed:
    """What `full_rows` reads of a fit."""

    def __init__(self, frame: Any) -> None:
        self.frame = frame
