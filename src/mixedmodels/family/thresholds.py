r"""Thresholds between ordered categories as linear functions of free parameters.

With K categories the thresholds :math:`\alpha_1 < \ldots < \alpha_{K-1}` are :math:`\alpha = J\tau`:

``"flexible"``
    :math:`\tau = \alpha`.
``"symmetric"``
    Mirrored around their middle: with an odd number of thresholds around the ``central`` one, with an even
    number outwards from ``central.1`` and ``central.2``; ``spacing.i`` are the distances from there.
``"symmetric2"``
    Symmetric around zero: ``spacing.i`` are the distances from it.
``"equidistant"``
    ``threshold.1`` and one ``spacing``.

The names are those of R's ordinal package (Christensen 2019, Cumulative link models for ordinal regression).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from mixedmodels.errors import DataError, OptionError

__all__ = ["KINDS", "check_kind", "threshold_map"]

KINDS = ("flexible", "symmetric", "symmetric2", "equidistant")


def check_kind(kind: object) -> str:
    """The name of a kind of thresholds.

    Raises
    ------
    OptionError
        Unknown kind.
    """
    if kind not in KINDS:
        raise OptionError(f"thresholds must be one of {', '.join(KINDS)}, got {kind!r}")
    return str(kind)


def threshold_map(kind: str, levels: Sequence[str]) -> tuple[tuple[str, ...], np.ndarray]:
    """Names of the free parameters tau and the matrix J of the thresholds ``alpha = J tau``.

    Parameters
    ----------
    kind : {"flexible", "symmetric", "symmetric2", "equidistant"}
    levels : sequence of str, length K
        Labels of the categories in order.

    Returns
    -------
    names : tuple of str, length T
    J : ndarray, shape (K - 1, T)

    Raises
    ------
    DataError
        Structured thresholds between two categories.

    Examples
    --------
    >>> threshold_map("flexible", ["low", "mid", "high"])[0]
    ('low|mid', 'mid|high')
    >>> names, J = threshold_map("symmetric", ["1", "2", "3", "4", "5"])
    >>> names, (J @ [-1.0, 1.0, 2.0]).tolist()
    (('central.1', 'central.2', 'spacing.1'), [-3.0, -1.0, 1.0, 3.0])
    """
    count = len(levels) - 1
    if kind == "flexible":
        return tuple([f"{a}|{b}" for a, b in pairwise(levels)]), np.eye(count)
    if count < 2:
        raise DataError(
            f"thresholds={kind!r} needs at least three categories, the response has {count + 1}; leave "
            "thresholds= out"
        )
    places = np.arange(count)
    if kind == "equidistant":
        return ("threshold.1", "spacing"), np.column_stack([np.ones(count), places]).astype(float)
    odd = count % 2
    outward = count // 2 - 1 if kind == "symmetric" and not odd else count // 2
    spacings = np.zeros((count, outward))
    for i in range(outward):
        at = outward - 1 - i
        spacings[at, i], spacings[count - 1 - at, i] = -1.0, 1.0
    names = tuple([f"spacing.{i + 1}" for i in range(outward)])
    if kind == "symmetric2":
        return names, spacings
    if odd:
        return ("central", *names), np.column_stack([np.ones(count), spacings])
    left = (places < count // 2).astype(float)
    return ("central.1", "central.2", *names), np.column_stack([left, 1.0 - left, spacings])
