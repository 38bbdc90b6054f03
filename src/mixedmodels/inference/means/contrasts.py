"""Coefficients of contrasts among k means and their names: pairwise, against a control, polynomial, ..."""

from __future__ import annotations

import difflib
import itertools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mixedmodels.errors import OptionError

__all__ = ["CONTRASTS", "ContrastSet", "contrast_set", "integer_polynomials", "orthonormal_polynomials"]

_SIGNS = re.compile(r"[-+*/]")


class ContrastSet(NamedTuple):
    """Contrasts among k means.

    Attributes
    ----------
    names : tuple of str, length m
    ratio_names : tuple of str, length m
        Names of the same contrasts of logarithms, shown as ratios.
    C : ndarray, shape (m, k)
    adjust : str
        Adjustment that goes with them unless another is asked for.
    kind : {"pairwise", "dunnett", "contrasts"}
    """

    names: tuple[str, ...]
    ratio_names: tuple[str, ...]
    C: np.ndarray
    adjust: str = "none"
    kind: str = "contrasts"


def contrast_set(method: Any, labels: Sequence[str], **options: Any) -> ContrastSet:
    """Contrasts of `method` among means with these labels.

    Parameters
    ----------
    method : str, mapping, array or callable
        One of `CONTRASTS`; a dict from names to k coefficients; an array of shape (m, k) or (k,); or a
        function of the labels that returns a dict or array.
    labels : sequence of str, length k
    **options
        ``ref`` (a label or position from 0) of "trt.vs.ctrl"; ``reverse``; ``max_degree`` and ``scores`` of
        "poly".

    Raises
    ------
    OptionError
        An unknown name, or coefficients of another length than there are means.

    Examples
    --------
    >>> contrast_set("pairwise", ["a", "b", "c"]).names
    ('a - b', 'a - c', 'b - c')
    >>> contrast_set("poly", ["1", "2", "3", "4"]).C.astype(int).tolist()
    [[-3, -1, 1, 3], [1, -1, -1, 1], [-1, 3, -3, 1]]
    """
    if isinstance(method, str):
        maker = CONTRASTS.get(method.lower())
        if maker is None:
            near = difflib.get_close_matches(method.lower(), CONTRASTS, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise OptionError(
                f"contrast method {method!r} is unknown{hint} (available: {', '.join(CONTRASTS)}; or give a "
                "dict of coefficients)"
            )
        shown = [f"({label})" if _SIGNS.search(label) else label for label in labels]
        try:
            return maker(shown, **options)
        except TypeError:
            raise OptionError(
                f"contrast method {method!r} does not take {', '.join(f'{name}=' for name in options)}"
            ) from None
    if callable(method):
        method = method(list(labels))
    return _given(method, labels)


def _given(method: Any, labels: Sequence[str]) -> ContrastSet:
    k = len(labels)
    names: list[str] = []
    rows: list[Any] = []
    if isinstance(method, Mapping):
        names, rows = [str(name) for name in method], list(method.values())
    else:
        try:
            array = np.asarray(method, dtype=float)
        except (TypeError, ValueError):
            array = np.array(np.nan)
        if array.ndim == 0:
            raise OptionError(
                f"a contrast is a method name, a dict of coefficients or an array, got {method!r}"
            )
        rows = list(np.atleast_2d(array))
        names = [f"c{i + 1}" for i in range(len(rows))]
    C = np.zeros((len(rows), k))
    for i, (name, row) in enumerate(zip(names, rows, strict=True)):
        try:
            values = np.asarray(row, dtype=float)
        except (TypeError, ValueError):
            values = np.empty(0)
        if values.shape != (k,) or not np.isfinite(values).all():
            raise OptionError(
                f"contrast {name!r} needs {k} numbers, one for each of {', '.join(labels[:12])}"
                f"{', ...' if k > 12 else ''}; got {row!r}"
            )
        C[i] = values
    return ContrastSet(tuple(names), tuple(names), C)


# ---------------------------------------------------------------------- the named methods


def _differences(
    pairs: Sequence[tuple[int, int]], labels: Sequence[str], adjust: str, kind: str
) -> ContrastSet:
    C = np.zeros((len(pairs), len(labels)))
    for row, (plus, minus) in enumerate(pairs):
        C[row, plus], C[row, minus] = 1.0, -1.0
    names = tuple(f"{labels[plus]} - {labels[minus]}" for plus, minus in pairs)
    ratios = tuple(f"{labels[plus]} / {labels[minus]}" for plus, minus in pairs)
    return ContrastSet(names, ratios, C, adjust, kind)


def _pairwise(labels: Sequence[str], reverse: bool = False) -> ContrastSet:
    if reverse:
        pairs = [(j, i) for j in range(1, len(labels)) for i in range(j)]
    else:
        pairs = list(itertools.combinations(range(len(labels)), 2))
    return _differences(pairs, labels, "tukey", "pairwise")


def _revpairwise(labels: Sequence[str]) -> ContrastSet:
    return _pairwise(labels, reverse=True)


def _treatment(labels: Sequence[str], ref: Any = 0, reverse: bool = False) -> ContrastSet:
    k = len(labels)
    plain = [label[1:-1] if label.startswith("(") and label[1:-1] in label else label for label in labels]
    if isinstance(ref, str):
        if ref not in labels and ref not in plain:
            raise OptionError(f"ref={ref!r} is not one of the means: {', '.join(plain)}")
        position = labels.index(ref) if ref in labels else plain.index(ref)
    elif isinstance(ref, (int, np.integer)) and not isinstance(ref, bool) and -k <= ref < k:
        position = int(ref) % k
    else:
        raise OptionError(f"ref must be a label or a position between 0 and {k - 1}, got {ref!r}")
    others = [i for i in range(k) if i != position]
    pairs = [(position, i) if reverse else (i, position) for i in others]
    return _differences(pairs, labels, "dunnett", "dunnett")


def _treatment_last(labels: Sequence[str]) -> ContrastSet:
    return _treatment(labels, ref=len(labels) - 1)


def _consecutive(labels: Sequence[str], reverse: bool = False) -> ContrastSet:
    pairs = [(i, i + 1) if reverse else (i + 1, i) for i in range(len(labels) - 1)]
    return _differences(pairs, labels, "mvt", "contrasts")


def _mean_change(labels: Sequence[str]) -> ContrastSet:
    k = len(labels)
    C = np.zeros((max(k - 1, 0), k))
    for i in range(k - 1):
        C[i, : i + 1], C[i, i + 1 :] = -1.0 / (i + 1), 1.0 / (k - i - 1)
    names = tuple(f"{labels[i]}|{labels[i + 1]}" for i in range(k - 1))
    return ContrastSet(names, names, C, "mvt")


def _effects(labels: Sequence[str]) -> ContrastSet:
    k = len(labels)
    names = tuple(f"{label} effect" for label in labels)
    return ContrastSet(names, names, np.eye(k) - 1.0 / k, "fdr")


def _deleted_effects(labels: Sequence[str]) -> ContrastSet:
    k = len(labels)
    C = np.eye(k) if k == 1 else np.where(np.eye(k) > 0, 1.0, -1.0 / (k - 1))
    names = tuple(f"{label} effect" for label in labels)
    return ContrastSet(names, names, C, "fdr")


def _helmert(labels: Sequence[str], reverse: bool = False) -> ContrastSet:
    """Each level against the mean of the earlier ones; with `reverse` against the mean of the later ones."""
    k = len(labels)
    C = np.zeros((max(k - 1, 0), k))
    names = []
    for i in range(k - 1):
        if reverse:
            C[i, i], C[i, i + 1 :] = 1.0, -1.0 / (k - 1 - i)
            names.append(f"{labels[i]} vs later")
        else:
            C[i, i + 1], C[i, : i + 1] = 1.0, -1.0 / (i + 1)
            names.append(f"{labels[i + 1]} vs earlier")
    return ContrastSet(tuple(names), tuple(names), C)


def _identity(labels: Sequence[str]) -> ContrastSet:
    return ContrastSet(tuple(labels), tuple(labels), np.eye(len(labels)))


_DEGREES = ("linear", "quadratic", "cubic", "quartic")


def _polynomial(labels: Sequence[str], max_degree: int | None = None, scores: Any = None) -> ContrastSet:
    Q = _polynomial_rows(labels, max_degree, scores)
    return ContrastSet(_degree_names(len(Q)), _degree_names(len(Q)), integer_polynomials(Q))


def _orthonormal(labels: Sequence[str], max_degree: int | None = None, scores: Any = None) -> ContrastSet:
    Q = _polynomial_rows(labels, max_degree, scores)
    return ContrastSet(_degree_names(len(Q)), _degree_names(len(Q)), Q)


def _degree_names(count: int) -> tuple[str, ...]:
    return tuple(_DEGREES[d] if d < 4 else f"degree {d + 1}" for d in range(count))


def _polynomial_rows(labels: Sequence[str], max_degree: int | None, scores: Any) -> np.ndarray:
    k = len(labels)
    x = np.arange(1.0, k + 1.0) if scores is None else np.asarray(scores, dtype=float)
    if x.shape != (k,) or np.unique(x).size != k:
        raise OptionError(f"scores must be {k} different numbers, one per level, got {scores!r}")
    highest = min(k - 1, 6) if max_degree is None else max_degree
    if not isinstance(highest, (int, np.integer)) or not 0 <= highest <= k - 1:
        raise OptionError(f"max_degree must lie between 1 and {k - 1} for {k} levels, got {max_degree!r}")
    return orthonormal_polynomials(x, highest)


def orthonormal_polynomials(x: np.ndarray, degree: int) -> np.ndarray:
    """Polynomials of degree 1 to `degree` at x, orthonormal and orthogonal to 1, shape (degree, k)."""
    centred = x - x.mean()
    spread = float(np.abs(centred).max()) or 1.0
    Q, R = np.linalg.qr(np.vander(centred / spread, degree + 1, increasing=True))
    return (Q * np.sign(np.diag(R)))[:, 1:].T


def integer_polynomials(Q: np.ndarray) -> np.ndarray:
    """Rows scaled to the smallest integers where there are such up to a factor of 20."""
    out = np.empty_like(Q)
    for i, row in enumerate(Q):
        size = np.abs(row)
        scaled = row / size[size > 1e-9 * size.max()].min()
        out[i] = scaled
        for factor in range(1, 21):
            rounded = np.round(factor * scaled)
            if np.abs(factor * scaled - rounded).max() < 1e-6 * factor:
                out[i] = rounded / math.gcd(*[int(value) for value in rounded])
                break
    return out


CONTRASTS: dict[str, Callable[..., ContrastSet]] = {
    "pairwise": _pairwise,
    "revpairwise": _revpairwise,
    "tukey": _revpairwise,
    "trt.vs.ctrl": _treatment,
    "trt.vs.ctrl1": _treatment,
    "trt.vs.ctrlk": _treatment_last,
    "dunnett": _treatment,
    "consec": _consecutive,
    "mean_chg": _mean_change,
    "eff": _effects,
    "del.eff": _deleted_effects,
    "poly": _polynomial,
    "opoly": _orthonormal,
    "helmert": _helmert,
    "identity": _identity,
}
"""Named contrast methods: functions of the labels that return a `ContrastSet`."""
