"""Linear functions of the fixed effects - means, contrasts, slopes - and what can be asked of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from mixedmodels.errors import OptionError
from mixedmodels.fit.wald import check_level
from mixedmodels.inference.arguments import one_number
from mixedmodels.inference.means.adjust import check_adjust
from mixedmodels.inference.means.linear_source import Show, Source, response_scale, side_of, total_variance
from mixedmodels.inference.table import Drawn, ResultTable

__all__ = ["MarginalMeans"]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class MarginalMeans(Drawn):
    """Estimated marginal means, contrasts or slopes: rows of ``L beta + offset``.

    Prints as a table; ``to_frame()``, ``columns`` and ``extra`` are those of `ResultTable`.

    Attributes
    ----------
    title : str
    labels : mapping of str to ndarray
        Columns that say what each row is.
    by : tuple of str
        Columns that separate families of tests.
    L : ndarray, shape (r, all fixed-effects columns)
        Linear functions before dependent columns were dropped; `linfct` has the columns of the fit.
    offset : ndarray, shape (r,)
    source : Source
    show : Show
    kind : {"means", "pairwise", "dunnett", "contrasts", "slopes"}
    size : int
        Means compared in each family of pairwise comparisons.
    ratio_labels : ndarray or None
        Labels of contrasts of logarithms when shown as ratios.
    notes : tuple of str
    contrasts : MarginalMeans or None
        Contrasts asked for together with the means (``"pairwise ~ A"``).
    parents : mapping
        Factor to the factors it is nested in.
    """

    title: str
    labels: Mapping[str, np.ndarray]
    by: tuple[str, ...]
    L: np.ndarray
    offset: np.ndarray
    source: Source
    show: Show = field(default_factory=Show)
    kind: str = "means"
    size: int = 0
    ratio_labels: np.ndarray | None = None
    notes: tuple[str, ...] = ()
    contrasts: MarginalMeans | None = None
    parents: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    _cache: dict[str, Any] = field(default_factory=dict)

    # ------------------------------------------------------------------ numbers

    def __len__(self) -> int:
        return self.L.shape[0]

    @property
    def linfct(self) -> np.ndarray:
        """Linear functions of the fixed effects, shape (r, p)."""
        return self.source.design_rows(self.L)

    @property
    def estimable(self) -> np.ndarray:
        """Whether each row can be estimated from the data."""
        return self.source.estimable(self.L)

    @property
    def estimate(self) -> np.ndarray:
        """``L beta + offset`` on the scale of the model; NaN where not estimable."""
        return np.where(self.estimable, self.linfct @ self.source.fit.beta + self.offset, np.nan)

    @property
    def vcov(self) -> np.ndarray:
        """Covariance matrix of the rows on the scale of the model; NaN where not estimable."""
        L, possible = self.linfct, self.estimable
        V = L @ self.source.reference.vcov @ L.T
        V[~possible], V[:, ~possible] = np.nan, np.nan
        return V

    @property
    def groups(self) -> list[np.ndarray]:
        """Rows of each combination of the `by` variables, in order of appearance."""
        seen: dict[tuple, list[int]] = {}
        for row in range(len(self)):
            seen.setdefault(tuple(self.labels[name][row] for name in self.by), []).append(row)
        return [np.array(rows) for rows in seen.values()]

    @property
    def table(self) -> ResultTable:
        """The result table."""
        if "table" not in self._cache:
            from mixedmodels.inference.means.table import means_table

            self._cache["table"] = means_table(self)
        return self._cache["table"]

    # ------------------------------------------------------------------ what can be asked

    def summary(
        self,
        level: float | None = None,
        adjust: Any = None,
        type: str | None = None,
        bias_adjust: bool = False,
        sigma: float | None = None,
        tests: bool | None = None,
        null: float | None = None,
        side: str | None = None,
        ratios: bool | None = None,
    ) -> MarginalMeans:
        """The same rows shown otherwise.

        Parameters
        ----------
        level : float
            Confidence level.
        adjust : str
            Adjustment of intervals and p-values within each family.
        type : {"link", "response"}
            Scale of the model or of the untransformed response.
        bias_adjust : bool
            Adds the second-order term ``sigma^2/2 h''(eta)`` to back-transformed means.
        sigma : float, optional
            SD for it; by default of all random parts together, ``sqrt(mean diag(Z Sigma Z') + sigma^2)``.
        tests : bool
            Show t tests.
        null, side
            See `test`.
        ratios : bool
            Show differences of logarithms as ratios on the scale of the response.
        """
        show = self.show
        changes: dict[str, Any] = {}
        if level is not None:
            changes["level"] = check_level(level)
        if adjust is not None:
            changes["adjust"] = check_adjust(adjust)
        if type is not None:
            changes["response"] = response_scale(type, self.source)
        if bias_adjust or sigma is not None:
            changes["variance"] = total_variance(self.source.fit, sigma) if bias_adjust else None
        if null is not None:
            changes["null"] = one_number(null, "null")
        if side is not None:
            changes["side"] = side_of(side)
        if tests is not None:
            changes["tests"] = bool(tests)
        if ratios is not None:
            changes["ratios"] = bool(ratios)
        return replace(self, show=replace(show, **changes), _cache={})

    def test(
        self,
        null: float = 0.0,
        side: str = "two-sided",
        joint: bool = False,
        adjust: Any = None,
    ) -> Any:
        """Tests of each row against `null` (on the scale of the model), or of all rows at once.

        Parameters
        ----------
        null : float
        side : {"two-sided", "greater", "less"}
            The alternative.
        joint : bool
            One F test for each combination of the `by` variables.
        adjust : str, optional
        """
        if joint:
            from mixedmodels.inference.means.joint_tests import joint_test

            return joint_test(self, one_number(null, "null"))
        return self.summary(null=null, side=side, adjust=adjust, tests=True)

    def contrast(
        self,
        method: Any = "pairwise",
        adjust: Any = None,
        by: Any = None,
        level: float | None = None,
        interaction: Any = None,
        simple: Any = None,
        name: str = "contrast",
        ratios: bool = True,
        **options: Any,
    ) -> MarginalMeans:
        """Contrasts among the rows, separately for each combination of the `by` variables.

        Parameters
        ----------
        method : str, dict, array or callable
            See `mixedmodels.inference.means.contrasts.contrast_set`.
        adjust : str, optional
            By default the adjustment that goes with the method: tukey for pairwise, dunnett for comparisons
            with a control, mvt for consecutive ones, fdr for effects, none otherwise.
        by : str or sequence of str, optional
            Instead of the means' own `by`; ``[]`` for none.
        level : float, optional
        interaction : True, str or sequence of str, optional
            Contrasts of contrasts: a method for all variables, or one for each.
        simple : str or sequence of str, optional
            Contrasts of these variables within all others.
        name : str
            Name of the column of contrasts.
        ratios : bool
            Show differences of logarithms as ratios when ``type="response"``.
        **options
            Options of the method: ``ref``, ``reverse``, ``scores``, ``max_degree``.
        """
        from mixedmodels.inference.means.contrast_means import contrast_means

        return contrast_means(self, method, adjust, by, level, interaction, simple, name, ratios, options)

    def pairs(self, reverse: bool = False, **options: Any) -> MarginalMeans:
        """All pairwise differences: ``contrast("pairwise")``."""
        if reverse:
            options["reverse"] = True
        return self.contrast("pairwise", **options)

    def regrid(self, bias_adjust: bool = False, sigma: float | None = None) -> MarginalMeans:
        """The means on the scale of the response, so that contrasts are differences there (delta method)."""
        if self.kind != "means":
            raise OptionError(
                "regrid() needs means: take them to the scale of the response first, then contrast"
            )
        transform = self.source.transform
        if transform is None:
            return self
        variance = total_variance(self.source.fit, sigma) if bias_adjust else 0.0
        possible = self.estimable
        eta = np.where(possible, self.linfct @ self.source.fit.beta + self.offset, 0.0)
        value, slope = transform.at(eta, variance)
        slope = np.where(possible, slope, 1.0)
        L = slope[:, None] * self.L
        beta_part = self.source.design_rows(L) @ self.source.fit.beta
        note = f"on the scale of the response by the delta method; the model is for {transform.text}"
        return replace(
            self,
            L=L,
            offset=value - beta_part,
            source=replace(self.source, transform=None),
            show=replace(self.show, response=False, variance=None),
            notes=(*self.notes, note),
            _cache={},
        )

    def cld(self, alpha: float = 0.05, adjust: Any = None, reverse: bool = False) -> ResultTable:
        """Compact letter display: means that share a letter do not differ significantly."""
        from mixedmodels.inference.means.cld import cld

        return cld(self, alpha, adjust, reverse)

    def effect_size(
        self, sigma: float | None = None, edf: float | None = None, method: Any = "pairwise"
    ) -> ResultTable:
        """Standardised differences: contrasts over `sigma`, which has `edf` degrees of freedom."""
        from mixedmodels.inference.means.effect_size import effect_size

        return effect_size(self, sigma, edf, method)

    # ------------------------------------------------------------------ as a table

    def to_frame(self) -> Any:
        """The table in the data-frame library of the fit's data."""
        return self.table.to_frame()

    @property
    def columns(self) -> Mapping[str, np.ndarray]:
        """Columns of the table."""
        return self.table.columns

    @property
    def extra(self) -> Mapping[str, Any]:
        """Arrays beside the table: ``linfct``, ``vcov``."""
        return self.table.extra

    def __getitem__(self, name: str) -> np.ndarray:
        return self.table[name]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.table.rows())

    def rows(self) -> list[dict[str, Any]]:
        """The rows as dicts of plain Python values."""
        return self.table.rows()

    def row(self, key: Any) -> dict[str, Any]:
        """The row whose first column is `key`."""
        return self.table.row(key)

    def _tables(self) -> list[ResultTable]:
        return [self.table] if self.contrasts is None else [self.table, self.contrasts.table]

    def __str__(self) -> str:
        return "\n\n".join(str(table) for table in self._tables())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.to_html()

    def to_html(self) -> str:
        """The table as an HTML fragment."""
        return "".join(table.to_html() for table in self._tables())

    def to_latex(self) -> str:
        """The table as LaTeX; needs the package booktabs."""
        return "\n".join(table.to_latex() for table in self._tables())

    def to_markdown(self) -> str:
        """The table as a Markdown pipe table."""
        return "\n\n".join(table.to_markdown() for table in self._tables())
