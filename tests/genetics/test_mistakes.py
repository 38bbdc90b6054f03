"""What goes wrong with pedigrees, relationships and markers: one error or note that names the thing."""

from __future__ import annotations

import numpy as np
import pytest

import mixedmodels as mm
from mixedmodels.errors import DataError, FormulaError, NotImplementedYetError, OptionError, SolverError

genetics = mm.genetics
IDS = list("abcd")
DATA = {
    "y": [1.0, 2.0, 0.5, 3.0, 2.0, 2.5, 0.0, 4.0],
    "z": [0, 1, 1, 0, 1, 0, 1, 1],
    "animal": IDS * 2,
    "dam": list("bbaabbaa"),
    "farm": list("uuvvwwuu"),
}


def family():
    return genetics.Pedigree.from_frame(
        {"id": IDS, "sire": ["", "", "a", "a"], "dam": ["", "", "b", "b"], "sex": list("MFMF")}, sex="sex"
    )


PEDIGREES = [
    ({"id": ["a", "b"], "sire": ["b", "a"], "dam": ["", ""]}, "'a' is its own ancestor: 'a' <- 'b' <- 'a'"),
    ({"id": ["a"], "sire": ["a"], "dam": [""]}, "'a' is its own sire"),
    ({"id": list("abc"), "sire": ["", "", "a"], "dam": ["", "a", "b"]}, "'a' is sire of 'c' and dam of 'b'"),
    ({"id": ["c", "c"], "sire": ["a", "d"], "dam": ["b", "b"]}, "'c' has two rows with different sires"),
]


@pytest.mark.parametrize(("rows", "message"), PEDIGREES)
def test_pedigrees_that_cannot_be(rows, message):
    with pytest.raises(DataError, match=message):
        genetics.Pedigree.from_frame(rows)


def test_sex_against_role():
    rows = {"id": list("abc"), "sire": ["", "", "a"], "dam": ["", "", "b"], "sex": list("FMM")}
    with pytest.raises(DataError, match="'a'"):
        genetics.Pedigree.from_frame(rows, sex="sex")


def test_what_is_repaired_is_said():
    rows = {"id": ["c", "c"], "sire": ["a", "a"], "dam": ["b", "b"]}
    notes = " ".join(genetics.Pedigree.from_frame(rows).notes)
    assert "1 repeated row dropped: 'c'" in notes
    assert "2 parents without a row of their own added as founders: 'a', 'b'" in notes
    lone = genetics.Pedigree.from_frame({"id": ["a", "c"], "sire": ["", "a"], "dam": ["", ""]})
    assert lone.inbreeding.tolist() == [0.0, 0.0]  # one known parent is allowed


def test_records_of_animals_outside_the_pedigree():
    data = dict(DATA, animal=[*IDS, "a", "b", "y", "z"])
    with pytest.raises(
        DataError, match=r"2 levels of 'animal' are not among the ids of known\['animal'\]: y, z"
    ):
        mm.lmm("y ~ 1 + (1 | animal)", data, known={"animal": family()})
    data = dict(DATA, dam=list("bbaabbaz"))
    with pytest.raises(DataError, match=r"1 level of 'animal' is not among the ids .*: z"):
        mm.lmm("y ~ 1 + joint(1 | animal, 1 | dam)", data, known={"animal": family()})


NOT_DEFINITE = np.eye(4)
NOT_DEFINITE[0, 1] = NOT_DEFINITE[1, 0] = 2.0
TWINS = np.eye(4)
TWINS[0, 1] = TWINS[1, 0] = 1.0

MATRICES = [
    (np.ones((4, 3)), IDS, DataError, r"shape \(4, 3\); it must be a square matrix"),
    (np.eye(4) + np.eye(4, k=1), IDS, DataError, "not symmetric"),
    (np.full((4, 4), np.nan), IDS, DataError, "missing or infinite"),
    (-np.eye(4), IDS, DataError, "the variance of a is -1"),
    (np.eye(4), list("abca"), DataError, "occur more than once: a"),
    (np.eye(4), list("abc"), DataError, "3 ids for a matrix of 4 rows"),
    (np.eye(4), ["a", "b", None, "d"], DataError, "the id of row 2 is missing"),
    (np.array([["x"] * 4] * 4), IDS, DataError, "values that are not numbers"),
]


@pytest.mark.parametrize(("matrix", "ids", "error", "message"), MATRICES)
def test_matrices_that_are_no_covariances(matrix, ids, error, message):
    with pytest.raises(error, match=message):
        mm.lmm("y ~ 1 + (1 | animal)", DATA, known={"animal": (matrix, ids)})


@pytest.mark.parametrize(
    "fit",
    [
        lambda known: mm.lmm("y ~ 1 + (1 | animal)", DATA, known=known),
        lambda known: mm.lmm("y ~ 1 + (1 | animal)", DATA, known=known, solver="blocked"),
        lambda known: mm.lmm("y ~ 1 + (1 | animal) + (1 | farm)", DATA, known=known),
        lambda known: mm.lmm("y ~ 1 + joint(1 | animal, 1 | dam)", DATA, known=known),
        lambda known: mm.glmm("z ~ 1 + (1 | animal)", DATA, family="binomial", known=known),
    ],
)
def test_a_negative_eigenvalue_is_not_called_singular(fit):
    with pytest.raises(DataError, match="negative eigenvalue"):
        fit({"animal": (NOT_DEFINITE, IDS)})


def test_a_singular_matrix_beside_other_terms_names_the_remedy():
    with pytest.raises(
        SolverError, match="give identical individuals one id, or add a little to its diagonal"
    ):
        mm.lmm("y ~ 1 + (1 | animal) + (1 | farm)", DATA, known={"animal": (TWINS, IDS)})


def test_names_of_known():
    for name in ("anmal", "dam"):
        with pytest.raises(OptionError, match=f"{name!r} is not a grouping factor"):
            mm.lmm("y ~ 1 + joint(1 | animal, 1 | dam)", DATA, known={name: family()})
    with pytest.raises(OptionError, match="got Pedigree"):
        mm.lmm("y ~ 1 + (1 | animal)", DATA, known=family())
    with pytest.raises(OptionError, match="uses the known matrix 'D'"):
        mm.lmm("y ~ 1 + (1 | animal) + known(1 | animal, D)", DATA, known={"animal": family()})
    with pytest.raises(FormulaError, match="write all its effects into the joint term"):
        mm.lmm("y ~ (1 | animal) + joint(1 | animal, 1 | dam)", DATA, known={"animal": family()})


@pytest.mark.parametrize(
    ("term", "variances", "message"),
    [
        ("(1 | animal)", {"animal": -1.0, "Residual": 1.0}, "not positive semi-definite"),
        ("(1 | animal)", {"animal": 1.0}, 'no "Residual"'),
        ("joint(1 | animal, 1 | dam)", {"animal": 1.0, "Residual": 1.0}, r"expected \(2, 2\)"),
        ("joint(1 | animal, 1 | dam)", {"animal": [[1, 2], [2, 1]], "Residual": 1.0}, "semi-definite"),
    ],
)
def test_given_variances(term, variances, message):
    with pytest.raises(OptionError, match=message):
        mm.blup(f"y ~ 1 + {term}", DATA, known={"animal": family()}, variances=variances)


@pytest.fixture(scope="module")
def polygenic():
    rng = np.random.default_rng(5)
    W = rng.binomial(2, 0.4, (60, 200)) - 0.8
    K = W @ W.T / 96 + 0.01 * np.eye(60)
    data = {"y": rng.multivariate_normal(np.zeros(60), K) + rng.normal(size=60), "id": np.arange(60)}
    return mm.lmm("y ~ 1 + (1 | id)", data, known={"id": (K, np.arange(60))}), W[:, :3] + 0.8


@pytest.mark.parametrize("method", ["exact", "p3d"])
def test_markers_that_say_nothing_or_are_no_counts(polygenic, method):
    fit, snps = polygenic
    columns = np.column_stack([snps, np.ones(60), snps[:, 0] + 3.0, np.full(60, np.nan)])
    result = genetics.scan(fit, columns, method=method)
    assert np.isnan(result["beta"]).tolist() == [False] * 3 + [True, False, True]
    assert np.isnan(result["maf"]).tolist() == [False] * 4 + [True, True]
    assert result["beta"][4] == pytest.approx(result["beta"][0], rel=1e-6)  # an origin changes nothing
    text = str(result)
    assert "2 markers without variation beyond the fixed effects" in text
    assert "1 marker has values outside 0 to 2" in text
    assert "missing values of 1 marker took the mean" in text


@pytest.mark.parametrize(
    ("snps", "message"),
    [
        (np.ones((50, 2)), "50 rows for 60 rows of data"),
        (np.full((60, 1), np.inf), "infinite"),
        ({"a": ["x"] * 60}, "'a' holds no numbers"),
        (np.zeros((60, 0)), "no column"),
    ],
)
def test_markers_that_do_not_fit(polygenic, snps, message):
    with pytest.raises(DataError, match=message):
        genetics.scan(polygenic[0], snps)


def test_genotypes():
    with pytest.raises(DataError, match="a genotype is 3"):
        genetics.Genotypes.from_array([[0, 3], [1, 1]])
    with pytest.raises(DataError, match="from_array"):
        genetics.Genotypes([[0, 1]], ["a"], ["m", "n"])
    with pytest.raises(DataError, match="a matrix"):
        genetics.Genotypes.from_array([0, 1])


def test_questions_about_generalised_models_are_refused_plainly():
    rng = np.random.default_rng(8)
    data = {"z": rng.poisson(2.0, 40), "g": np.repeat(np.arange(8), 5)}
    fit = mm.glmm("z ~ 1 + (1 | g)", data, family="poisson")
    with pytest.raises(OptionError, match="which ratio is meant"):
        fit.heritability()
    with pytest.raises(OptionError, match="name the term"):
        fit.breeding_values()
    with pytest.raises(NotImplementedYetError, match="linear mixed models"):
        genetics.scan(fit, np.ones((40, 1)))
