"""Contrasts of a set of estimates, within the combinations of its by variables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mixedmodels.errors import OptionError
from mixedmodels.fit.wald import check_level
from mixedmodels.inference.arguments import name_list
from mixedmodels.inference.means.adjust import check_adjust
from mixedmodels.inference.means.contrasts import ContrastSet, contrast_set
from mixedmodels.inference.means.linear_source import label_rows
from mixedmodels.inference.means.marginal_means import MarginalMeans

__all__ = ["contrast_means"]


def contrast_means(
    means: MarginalMeans,
    method: Any,
    adjust: Any,
    by: Any,
    level: float | None,
    interaction: Any,
    simple: Any,
    name: str,
    ratios: bool,
    options: dict[str, Any],
) -> MarginalMeans:
    """Contrasts among the rows of `means`; see `MarginalMeans.contrast`."""
    names = list(means.labels)
    if simple is not None:
        if by is not None:
            raise OptionError("give by= or simple=, not both")
        chosen = _names(simple, names, "simple")
        by = [other for other in names if other not in chosen]
    by_names = tuple(means.by) if by is None else _names(by, names, "by")
    notes = list(means.notes)
    if by is None and means.kind == "means":
        added = [
            parent
            for child, parents in means.parents.items()
            if child in names and child not in by_names
            for parent in parents
            if parent in names and parent not in by_names
        ]
        if added and len(set(added) | set(by_names)) < len(names):
            by_names = (*by_names, *dict.fromkeys(added))
            notes.append(f"within {', '.join(dict.fromkeys(added))}: the factor compared is nested there")
    inner = [other for other in names if other not in by_names]
    if not inner:
        raise OptionError(f"nothing is left to compare within {', '.join(by_names)}")
    regrouped = replace(means, by=by_names, _cache={})
    parts: list[tuple[np.ndarray, ContrastSet]] = []
    columns: list[dict[str, np.ndarray]] = []
    for rows in regrouped.groups:
        if interaction is None or interaction is False:
            found = contrast_set(method, label_rows(means.labels, inner, rows), **options)
            shown: dict[str, Sequence[str]] = {name: found.names}
        else:
            found, shown = _interaction(means, rows, inner, method, interaction, options)
        block = {key: np.array(values, dtype=object) for key, values in shown.items()}
        for other in by_names:
            value = means.labels[other][rows[:1]]
            block[other] = np.repeat(value, len(found.names))
        columns.append(block)
        parts.append((rows, found))
    if not any(len(found.names) for _, found in parts):
        if any(len(rows) > 1 for rows, _ in parts):
            raise OptionError(
                f"the contrasts asked for ({method!r}) are none; name one or leave the method out"
            )
        raise OptionError(f"there is only one mean to compare ({', '.join(inner)}); no contrast can be made")
    L = np.vstack([found.C @ means.L[rows] for rows, found in parts])
    # differences of equal offsets are zero up to rounding
    offset = np.concatenate([found.C @ means.offset[rows] for rows, found in parts])
    size = np.concatenate([np.abs(found.C) @ np.abs(means.offset[rows]) for rows, found in parts])
    offset = np.where(np.abs(offset) <= 1e-12 * size, 0.0, offset)
    kinds = {found.kind for _, found in parts}
    kind = kinds.pop() if len(kinds) == 1 else "contrasts"
    sums = np.concatenate([np.abs(found.C.sum(axis=1)) for _, found in parts])
    ratio = np.concatenate([np.array(found.ratio_names, dtype=object) for _, found in parts])
    if means.kind != "means" or interaction:
        ratio = None  # type: ignore[assignment]
    default = parts[0][1].adjust
    show = replace(
        means.show,
        adjust=default if adjust is None else check_adjust(adjust),
        level=means.show.level if level is None else check_level(level),
        tests=True,
        null=0.0,
        variance=None,
        ratios=ratios and bool((sums < 1e-9).all()),
    )
    what = {"slopes": "slopes", "means": "marginal means"}.get(means.kind, "contrasts")
    return MarginalMeans(
        title=f"Contrasts of {what}" + (f" by {', '.join(by_names)}" if by_names else ""),
        labels={key: np.concatenate([block[key] for block in columns]) for key in columns[0]},
        by=by_names,
        L=L,
        offset=offset,
        source=means.source,
        show=show,
        kind=kind,
        size=max(len(rows) for rows, _ in parts),
        ratio_labels=ratio,
        notes=tuple(notes),
    )


def _names(given: Any, known: Sequence[str], what: str) -> tuple[str, ...]:
    listed = name_list(given, what)
    for one in listed:
        if one not in known:
            raise OptionError(f"{what}: {one!r} is not a column of these means; they have {', '.join(known)}")
    return tuple(listed)


def _interaction(
    means: MarginalMeans,
    rows: np.ndarray,
    inner: Sequence[str],
    method: Any,
    interaction: Any,
    options: dict[str, Any],
) -> tuple[ContrastSet, dict[str, Sequence[str]]]:
    """Products of contrasts of each variable, the first varying fastest."""
    if interaction is True:
        methods = [method] * len(inner)
    elif isinstance(interaction, (list, tuple)):
        methods = list(interaction)
    else:
        methods = [interaction] * len(inner)
    if len(methods) != len(inner):
        raise OptionError(
            f"interaction: {len(methods)} methods for {len(inner)} variables ({', '.join(inner)}); "
            "give one, or one for each"
        )
    sets, places = [], []
    for one, variable in zip(methods, inner, strict=True):
        column = means.labels[variable][rows]
        levels = list(dict.fromkeys(column.tolist()))
        texts = [f"{v:.7g}" if isinstance(v, float) else str(v) for v in levels]
        sets.append(contrast_set(one, texts, **options))
        places.append(np.array([levels.index(value) for value in column.tolist()]))
    expected = int(np.prod([found.C.shape[1] for found in sets]))
    if expected != rows.size:
        raise OptionError(
            f"interaction contrasts need all combinations of {', '.join(inner)}; {rows.size} of {expected} "
            "are there"
        )
    shape = [found.C.shape[0] for found in sets]
    total = int(np.prod(shape))
    index = np.unravel_index(np.arange(total), shape, order="F")
    C = np.ones((total, rows.size))
    for found, place, which in zip(sets, places, index, strict=True):
        C *= found.C[which][:, place]
    shown: dict[str, Sequence[str]] = {}
    for found, variable, which, one in zip(sets, inner, index, methods, strict=True):
        label = one if isinstance(one, str) else "custom"
        shown[f"{variable}_{label}"] = [found.names[i] for i in which]
    joined = tuple(" ".join(values) for values in zip(*shown.values(), strict=True))
    return ContrastSet(joined, joined, C, "none", "contrasts"), shown
