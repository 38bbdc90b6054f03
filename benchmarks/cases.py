"""The problems: data, formula, criterion."""

from __future__ import annotations

from dataclasses import dataclass, field

import pandas as pd

from benchmarks.simulate import FROM_R, GENERATORS, exported, parquet


@dataclass(frozen=True)
class Case:
    """One problem.

    Attributes
    ----------
    name, formula : str
    data : str
        A bundled data set or a simulated problem.
    reml : bool
    family : str
        Distribution of the response; "gaussian" is a linear mixed model.
    groups : tuple of str
        Grouping columns, which peers without a formula language need by name.
    fixed, slopes : str or tuple of str
        Fixed part as a formula and the random slopes, for the same peers.
    nested : str
        Inner factor of a nested model, for statsmodels.
    quick : bool
        Part of a quick run.
    """

    name: str
    data: str
    formula: str
    reml: bool = True
    groups: tuple[str, ...] = ()
    fixed: str = ""
    slopes: tuple[str, ...] = ()
    nested: str = ""
    quick: bool = False
    family: str = "gaussian"
    extra: dict[str, str] = field(default_factory=dict)

    @property
    def linear(self) -> bool:
        """Whether this is a linear mixed model."""
        return self.family == "gaussian"

    def frame(self) -> pd.DataFrame:
        """The data as a pandas frame; grouping columns of simulated data stay integers or strings."""
        if self.data in FROM_R:
            return pd.read_csv(exported(self.data))
        if self.data in GENERATORS:
            return pd.read_parquet(parquet(self.data))
        from mixedmodels.datasets import load_dataset

        return load_dataset(self.data, "pandas")


def _both(name: str, data: str, formula: str, *, quick: bool = False, **more) -> list[Case]:
    return [
        Case(f"{name}_{kind}", data, formula, reml=kind == "REML", quick=quick, **more)
        for kind in ("REML", "ML")
    ]


def _general(name: str, data: str, formula: str, family: str = "binomial", **more) -> Case:
    return Case(name, data, formula, reml=False, family=family, **more)


_OWLS = "SiblingNegotiation ~ FoodTreatment * SexParent + offset(logBroodSize) + (1 | Nest)"
_FULL = "rt ~ S + P + L + (1 + S + P + L | subj) + (1 + S + P + L | item)"
_SLOPES = "y ~ x1 + x2 + x3 + (1 + x1 + x2 + x3 | g)"
_CROSSED = "y ~ x + (1 | user) + (1 | item)"
_THREE = ("s", "d", "dept")

ALL: list[Case] = [
    *_both(
        "sleepstudy",
        "sleepstudy",
        "Reaction ~ Days + (Days | Subject)",
        quick=True,
        groups=("Subject",),
        fixed="Reaction ~ Days",
        slopes=("Days",),
    ),
    *_both(
        "penicillin",
        "Penicillin",
        "diameter ~ 1 + (1 | plate) + (1 | sample)",
        quick=True,
        groups=("plate", "sample"),
        fixed="diameter ~ 1",
    ),
    *_both("pastes", "Pastes", "strength ~ 1 + (1 | batch/cask)", quick=True, groups=("batch", "sample")),
    *_both("kb07sim", "kb07sim", _FULL, quick=True, groups=("subj", "item")),
    *_both(
        "re4_500",
        "re4_500",
        _SLOPES,
        quick=True,
        groups=("g",),
        fixed="y ~ x1 + x2 + x3",
        slopes=("x1", "x2", "x3"),
    ),
    *_both(
        "slope_1e4", "slope_1e4", "y ~ x + (x | g)", quick=True, groups=("g",), fixed="y ~ x", slopes=("x",)
    ),
    *_both("slope_1e5", "slope_1e5", "y ~ x + (x | g)", groups=("g",), fixed="y ~ x", slopes=("x",)),
    *_both(
        "insteval_3re",
        "InstEval",
        "y ~ 1 + service + (1 | s) + (1 | d) + (1 | dept)",
        quick=True,
        groups=_THREE,
        fixed="y ~ service",
    ),
    *_both(
        "insteval_full",
        "InstEval",
        "y ~ service * dept + (1 | s) + (1 | d)",
        groups=("s", "d"),
        fixed="y ~ service * dept",
    ),
    *_both("crossed_1e5", "crossed_1e5", _CROSSED, groups=("user", "item"), fixed="y ~ x"),
    *_both(
        "nested_1e6",
        "nested_1e6",
        "y ~ x + (1 | outer) + (1 | inner)",
        groups=("outer", "inner"),
        fixed="y ~ x",
        nested="inner",
    ),
    *_both("ml_1e6", "ml_1e6", _CROSSED, groups=("user", "item"), fixed="y ~ x"),
    _general("cbpp", "cbpp", "cbind(incidence, size - incidence) ~ period + (1 | herd)", quick=True),
    _general(
        "verbagg",
        "VerbAgg",
        "r2 ~ Anger + Gender + btype + situ + (1 | id) + (1 | item)",
        quick=True,
        groups=("id", "item"),
        fixed="1 * (r2 == 'Y') ~ Anger + Gender + btype + situ",
    ),
    _general(
        "contraception_int",
        "Contraception",
        "use ~ age + I(age^2) + urban + livch + (1 | district)",
        quick=True,
        groups=("district",),
        fixed="1 * (use == 'Y') ~ age + I(age**2) + urban + livch",
    ),
    _general(
        "contraception_slope",
        "Contraception",
        "use ~ age + I(age^2) + urban + livch + (urban | district)",
        quick=True,
    ),
    _general(
        "grouseticks",
        "grouseticks",
        "TICKS ~ YEAR + HEIGHT + (1 | BROOD) + (1 | INDEX) + (1 | LOCATION)",
        family="poisson",
        quick=True,
    ),
    _general("owls_nb2", "Owls", _OWLS, family="nbinom2", quick=True),
    _general("bern_1e5", "bern_1e5", "y ~ x + z + (1 | g)", groups=("g",), fixed="y ~ x + z", quick=True),
    _general("bern_1e6", "bern_1e6", "y ~ x + z + (1 | g)", groups=("g",), fixed="y ~ x + z"),
    _general(
        "pois_crossed",
        "pois_crossed",
        "y ~ x + (1 | a) + (1 | b)",
        family="poisson",
        groups=("a", "b"),
        fixed="y ~ x",
    ),
    _general(
        "insteval_logit",
        "insteval_logit",
        "high ~ service + (1 | s) + (1 | d)",
        groups=("s", "d"),
        fixed="high ~ service",
    ),
]

CASES: dict[str, Case] = {case.name: case for case in ALL}
