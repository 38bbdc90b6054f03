"""What every bundled data set is: columns with units, source, licence note and a model to try.

The values themselves are in ``data/<name>.npz``, written by ``tools/pack_datasets.py``.
"""

# Bibliographic entries stand on one line each.
# ruff: noqa: E501

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["REGISTRY", "ColumnInfo", "DatasetInfo"]

Kind = Literal["numeric", "integer", "factor", "ordered"]

_LICENCE = (
    "The values are measurements published in the source given; they were read from the copy distributed with {package} "
    "(a package under GPL >= 2, of which no text or code is used here)."
)


@dataclass(frozen=True, slots=True)
class ColumnInfo:
    """One column: its name, its type and what it holds.

    Attributes
    ----------
    name : str
    kind : {"numeric", "integer", "factor", "ordered"}
        Factors come as the data-frame library's categorical type, levels in order.
    meaning : str
        What the column holds, with its unit.
    """

    name: str
    kind: Kind
    meaning: str


@dataclass(frozen=True, slots=True)
class DatasetInfo:
    """Description of a bundled data set; prints as a short page.

    Attributes
    ----------
    name, title : str
    rows : int
    columns : tuple of ColumnInfo
    source, licence : str
    formula : str
        A model to try.
    family : str
        Response distribution of that model.
    """

    name: str
    title: str
    rows: int
    columns: tuple[ColumnInfo, ...]
    source: str
    licence: str
    formula: str
    family: str = "gaussian"

    def __str__(self) -> str:
        width = max(len(c.name) for c in self.columns)
        kinds = max(len(c.kind) for c in self.columns)
        lines = [f"{self.name}: {self.title} ({self.rows} rows)", ""]
        lines += [f"  {c.name:<{width}}  {c.kind:<{kinds}}  {c.meaning}" for c in self.columns]
        family = "" if self.family == "gaussian" else f"  (family {self.family})"
        lines += ["", f"Try: {self.formula}{family}", f"Source: {self.source}", f"Licence: {self.licence}"]
        return "\n".join(lines)


def _dataset(
    name: str,
    title: str,
    rows: int,
    columns: list[tuple[str, Kind, str]],
    *,
    source: str,
    package: str,
    formula: str,
    family: str = "gaussian",
) -> DatasetInfo:
    """One entry of the registry; `columns` holds (name, kind, meaning)."""
    return DatasetInfo(
        name=name,
        title=title,
        rows=rows,
        columns=tuple(ColumnInfo(*column) for column in columns),
        source=source,
        licence=_LICENCE.format(package=f"the R package {package}"),
        formula=formula,
        family=family,
    )


_DAVIES = (
    "Davies, O. L. and Goldsmith, P. L. (eds) (1972), Statistical Methods in Research and Production, 4th ed."
)
_PINHEIRO = "Pinheiro, J. C. and Bates, D. M. (2000), Mixed-Effects Models in S and S-PLUS"

_ALL = [
    _dataset(
        "Dyestuff",
        "yield of dyestuff from six batches of an intermediate product, five preparations each",
        30,
        [
            ("Batch", "factor", "batch of the intermediate product, A to F"),
            ("Yield", "numeric", "yield, grams of standard colour"),
        ],
        source=f"{_DAVIES}, section 6.4",
        package="lme4",
        formula="Yield ~ 1 + (1 | Batch)",
    ),
    _dataset(
        "Dyestuff2",
        "constructed twin of Dyestuff whose between-batch variance is estimated as zero",
        30,
        [
            ("Batch", "factor", "batch, A to F"),
            ("Yield", "numeric", "simulated response, no unit"),
        ],
        source="Box, G. E. P. and Tiao, G. C. (1973), Bayesian Inference in Statistical Analysis, section 5.1.2",
        package="lme4",
        formula="Yield ~ 1 + (1 | Batch)",
    ),
    _dataset(
        "Penicillin",
        "potency of six penicillin samples, each tested on all 24 plates (completely crossed)",
        144,
        [
            ("diameter", "numeric", "diameter of the zone of growth inhibition, mm"),
            ("plate", "factor", "assay plate, a to x"),
            ("sample", "factor", "penicillin sample, A to F"),
        ],
        source=f"{_DAVIES}, section 6.6",
        package="lme4",
        formula="diameter ~ 1 + (1 | plate) + (1 | sample)",
    ),
    _dataset(
        "Pastes",
        "strength of a chemical paste: ten batches, three casks of each, two tests per cask (nested)",
        60,
        [
            ("strength", "numeric", "paste strength, per cent"),
            ("batch", "factor", "delivery batch, A to J"),
            ("cask", "factor", "cask within the batch, a to c (the same letters in every batch)"),
            ("sample", "factor", "batch and cask together, A:a to J:c"),
        ],
        source=f"{_DAVIES}, section 6.5",
        package="lme4",
        formula="strength ~ 1 + (1 | batch/cask)",
    ),
    _dataset(
        "sleepstudy",
        "reaction times of 18 subjects over ten days of restricted sleep",
        180,
        [
            ("Reaction", "numeric", "mean reaction time, milliseconds"),
            ("Days", "numeric", "day of the study, 0 to 9 (restriction began after day 1)"),
            ("Subject", "factor", "subject number"),
        ],
        source=(
            "Belenky, G. et al. (2003), Patterns of performance degradation and restoration during sleep restriction "
            "and subsequent recovery, Journal of Sleep Research 12, 1-12"
        ),
        package="lme4",
        formula="Reaction ~ Days + (Days | Subject)",
    ),
    _dataset(
        "cake",
        "breakage angle of chocolate cakes: three recipes, 15 replicates, six baking temperatures (split plot)",
        270,
        [
            ("replicate", "factor", "replicate of the recipe, 1 to 15 (numbered alike in every recipe)"),
            ("recipe", "factor", "recipe, A to C"),
            ("temperature", "ordered", "baking temperature, degrees Fahrenheit, as an ordered factor"),
            ("angle", "integer", "angle at which the cake broke, degrees"),
            ("temp", "numeric", "baking temperature, degrees Fahrenheit"),
        ],
        source=(
            "Cook, F. E. (1938), Chocolate cake: I. Optimum baking temperature, Master's thesis, Iowa State College; "
            "reported in Cochran, W. G. and Cox, G. M. (1957), Experimental Designs, 2nd ed., p. 300"
        ),
        package="lme4",
        formula="angle ~ recipe * temperature + (1 | recipe:replicate)",
    ),
    _dataset(
        "InstEval",
        "ratings of lectures by students at ETH Zurich, anonymised (partially crossed)",
        73421,
        [
            ("s", "factor", "student, 2972 levels"),
            ("d", "factor", "lecturer, 1128 levels"),
            ("studage", "ordered", "semesters the student had been enrolled"),
            ("lectage", "ordered", "semesters back the lecture was given"),
            ("service", "factor", "1 if the lecture was given for another department, else 0"),
            ("dept", "factor", "department, 14 levels in random order, the first being 15"),
            ("y", "integer", "rating, 1 (poor) to 5 (very good)"),
        ],
        source="lecture evaluations of ETH Zurich over several semesters, anonymised",
        package="lme4",
        formula="y ~ service * dept + (1 | s) + (1 | d)",
    ),
    _dataset(
        "Machines",
        "productivity of six workers, each on three brands of machine, three times",
        54,
        [
            ("Worker", "factor", "worker; levels in order of the best score"),
            ("Machine", "factor", "brand of machine, A to C"),
            ("score", "numeric", "productivity score: number and quality of components produced"),
        ],
        source=(
            f"{_PINHEIRO}, appendix A.14; from Milliken, G. A. and Johnson, D. E. (1992), Analysis of Messy Data, Volume I"
        ),
        package="nlme",
        formula="score ~ Machine + (1 | Worker/Machine)",
    ),
    _dataset(
        "Oats",
        "split-plot experiment on three varieties of oats and four amounts of nitrogen in six blocks",
        72,
        [
            ("Block", "factor", "block, I to VI; levels in order of the mean yield"),
            ("Variety", "factor", "variety of oats"),
            ("nitro", "numeric", "nitrogen, hundredweight per acre"),
            ("yield", "numeric", "yield, bushels per acre"),
        ],
        source=f"{_PINHEIRO}, appendix A.15; from Yates, F. (1935), Complex experiments, JRSS Supplement 2, 181-247",
        package="nlme",
        formula="yield ~ nitro + Variety + (1 | Block/Variety)",
    ),
    _dataset(
        "Orthodont",
        "growth of an orthodontic distance in 27 children, measured at four ages",
        108,
        [
            ("distance", "numeric", "distance from the pituitary to the pterygomaxillary fissure, mm"),
            ("age", "numeric", "age, years (8, 10, 12, 14)"),
            ("Subject", "factor", "child: M01 to M16, F01 to F11"),
            ("Sex", "factor", "Male or Female"),
        ],
        source=(
            f"{_PINHEIRO}, appendix A.17; from Potthoff, R. F. and Roy, S. N. (1964), A generalized multivariate analysis "
            "of variance model useful especially for growth curve problems, Biometrika 51, 313-326"
        ),
        package="nlme",
        formula="distance ~ age * Sex + (age | Subject)",
    ),
    _dataset(
        "BodyWeight",
        "weights of 16 rats on three diets, eleven times in nine weeks",
        176,
        [
            ("weight", "numeric", "body weight, g"),
            ("Time", "numeric", "days since the start, 1 to 64 (day 44 added to a weekly scheme)"),
            ("Rat", "factor", "rat, 1 to 16"),
            ("Diet", "factor", "diet, 1 to 3"),
        ],
        source=(
            f"{_PINHEIRO}, appendix A.3; from Crowder, M. J. and Hand, D. J. (1990), Analysis of Repeated Measures, "
            "Chapman and Hall"
        ),
        package="nlme",
        formula="weight ~ Time * Diet + (Time | Rat)",
    ),
    _dataset(
        "Ovary",
        "follicles above 10 mm in the ovaries of 11 mares, daily over one to two cycles",
        308,
        [
            ("Mare", "factor", "mare, 1 to 11"),
            ("Time", "numeric", "time in the cycle: 0 and 1 are the ovulations"),
            ("follicles", "numeric", "follicles of more than 10 mm diameter"),
        ],
        source=(
            f"{_PINHEIRO}, appendix A.18; from Pierson, R. A. and Ginther, O. J. (1987), Follicular population dynamics "
            "during the estrus cycle of the mare, Animal Reproduction Science 14, 219-231"
        ),
        package="nlme",
        formula="follicles ~ sin(2 * pi * Time) + cos(2 * pi * Time) + (1 | Mare)",
    ),
    _dataset(
        "Wheat2",
        "yields of 56 varieties of wheat in a field trial of four blocks, with places of the plots",
        224,
        [
            ("Block", "factor", "block, 1 to 4"),
            ("variety", "factor", "variety of wheat"),
            ("yield", "numeric", "yield of the plot"),
            ("latitude", "numeric", "place of the plot, north to south"),
            ("longitude", "numeric", "place of the plot, west to east"),
        ],
        source=(
            f"{_PINHEIRO}, section 5.3; from Stroup, W. W. and Baenziger, P. S. (1994), Removing spatial variation from "
            "wheat yield trials, Crop Science 34, 62-66"
        ),
        package="nlme",
        formula="yield ~ variety + (1 | Block)",
    ),
    _dataset(
        "Dialyzer",
        "ultrafiltration rates of 20 dialysers at seven pressures and two blood flows",
        140,
        [
            ("Subject", "factor", "dialyser, 1 to 20"),
            ("QB", "factor", "blood flow, dl/min (200 or 300)"),
            ("pressure", "numeric", "transmembrane pressure, dmHg"),
            ("rate", "numeric", "ultrafiltration rate, ml/hr"),
            ("index", "numeric", "number of the measurement, 1 to 7"),
        ],
        source=(
            f"{_PINHEIRO}, appendix A.6; from Vonesh, E. F. and Carter, R. L. (1992), Mixed-effects nonlinear regression "
            "for unbalanced repeated measures, Biometrics 48, 1-18"
        ),
        package="nlme",
        formula="rate ~ (pressure + I(pressure^2)) * QB + (pressure | Subject)",
    ),
    _dataset(
        "cbpp",
        "new cases of contagious bovine pleuropneumonia in 15 herds over four periods",
        56,
        [
            ("herd", "factor", "herd, 1 to 15"),
            ("incidence", "numeric", "new serological cases in the period"),
            ("size", "numeric", "animals in the herd at the start of the period"),
            ("period", "factor", "period, 1 to 4"),
        ],
        source=(
            "Lesnoff, M. et al. (2004), Within-herd spread of contagious bovine pleuropneumonia in Ethiopian highlands, "
            "Preventive Veterinary Medicine 64, 27-40"
        ),
        package="lme4",
        formula="cbind(incidence, size - incidence) ~ period + (1 | herd)",
        family="binomial",
    ),
    _dataset(
        "VerbAgg",
        "answers of 316 people to 24 items on verbal aggression",
        7584,
        [
            ("Anger", "integer", "trait anger score of the person"),
            ("Gender", "factor", "F or M"),
            ("item", "factor", "item, 24 levels"),
            ("resp", "ordered", "answer: no, perhaps, yes"),
            ("id", "factor", "person, 316 levels"),
            ("btype", "factor", "behaviour: curse, scold or shout"),
            ("situ", "factor", "who is to blame in the situation: other or self"),
            ("mode", "factor", "want or do"),
            ("r2", "factor", "answer in two classes: N (no), Y (perhaps or yes)"),
        ],
        source=(
            "Vansteelandt, K. (2000), dissertation, K. U. Leuven; in De Boeck, P. and Wilson, M. (eds) (2004), "
            "Explanatory Item Response Models"
        ),
        package="lme4",
        formula="r2 ~ Anger + Gender + btype + situ + (1 | id) + (1 | item)",
        family="binomial",
    ),
    _dataset(
        "grouseticks",
        "ticks on the heads of red grouse chicks",
        403,
        [
            ("INDEX", "factor", "chick, one level per row"),
            ("TICKS", "numeric", "number of ticks"),
            ("BROOD", "factor", "brood, 118 levels"),
            ("HEIGHT", "numeric", "height above sea level, metres"),
            ("YEAR", "factor", "year: 95, 96 or 97"),
            ("LOCATION", "factor", "place, 63 levels"),
            ("cHEIGHT", "numeric", "HEIGHT minus its mean, metres"),
        ],
        source=(
            "Elston, D. A. et al. (2001), Analysis of aggregation, a worked example: numbers of ticks on red grouse chicks, "
            "Parasitology 122, 563-569"
        ),
        package="lme4",
        formula="TICKS ~ YEAR + cHEIGHT + (1 | BROOD) + (1 | INDEX) + (1 | LOCATION)",
        family="poisson",
    ),
    _dataset(
        "ergoStool",
        "effort needed to rise from four types of stool, nine subjects",
        36,
        [
            ("effort", "numeric", "effort to arise, Borg scale"),
            ("Type", "factor", "type of stool, T1 to T4"),
            ("Subject", "factor", "subject, 1 to 9; levels in order of the mean effort"),
        ],
        source=f"{_PINHEIRO}, appendix A.9; from Devore, J. L. (2000), Probability and Statistics for Engineering",
        package="nlme",
        formula="effort ~ Type + (1 | Subject)",
    ),
]

REGISTRY: dict[str, DatasetInfo] = {info.name: info for info in _ALL}
