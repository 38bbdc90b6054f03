"""Known covariances in models: how they are given, matched, refused; what follows from them."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

import mixedmodels as mm
from mixedmodels.errors import (
    DataError,
    FormulaError,
    IdentifiabilityError,
    NewLevelError,
    OptionError,
    SolverError,
)

_spec = importlib.util.spec_from_file_location(
    "relationship_cases", Path(__file__).with_name("relationship_cases.py")
)
cases = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(cases)


@pytest.fixture(scope="module")
def fit():
    return mm.lmm("y ~ x + (1 | g)", cases.table("knowncov"), known={"g": cases.known_matrix()})


def test_forms_of_one_covariance(fit):
    import pandas as pd
    import polars as pl

    K, ids = cases.known_matrix()
    frame = pd.DataFrame(K, index=ids, columns=ids)
    forms = [
        frame,
        pl.DataFrame({name: K[:, j] for j, name in enumerate(ids)}),
        pl.DataFrame({"id": list(ids)} | {name: K[:, j] for j, name in enumerate(ids)}),
        {"ids": ids, "covariance": K},
        {"ids": ids, "precision": np.linalg.inv(K)},
        {"ids": ids, "precision": sparse.csr_array(np.linalg.inv(K)), "logdet": np.linalg.slogdet(K)[1]},
        (sparse.csc_array(K), list(ids)),
        mm.genetics.Relationship(ids=np.array(ids), matrix=K),
    ]
    for form in forms:
        other = mm.lmm("y ~ x + (1 | g)", cases.table("knowncov"), known={"g": form})
        assert other.loglik == pytest.approx(fit.loglik, rel=1e-10)
        np.testing.assert_allclose(other.theta, fit.theta, rtol=1e-5)


@pytest.mark.parametrize("solver", ["dense", "blocked"])
def test_solvers(fit, solver):
    other = fit.update(solver=solver)
    assert other.loglik == pytest.approx(fit.loglik, rel=1e-11)


def test_order_of_ids_does_not_matter(fit):
    K, ids = cases.known_matrix()
    order = np.random.default_rng(1).permutation(40)
    other = mm.lmm(
        "y ~ x + (1 | g)",
        cases.table("knowncov"),
        known={"g": (K[np.ix_(order, order)], np.array(ids)[order])},
    )
    assert other.loglik == pytest.approx(fit.loglik, rel=1e-12)
    mine = dict(zip(fit.breeding_values()["id"], fit.breeding_values()["estimate"], strict=True))
    theirs = dict(zip(other.breeding_values()["id"], other.breeding_values()["estimate"], strict=True))
    np.testing.assert_allclose([theirs[i] for i in mine], list(mine.values()), rtol=1e-5)


def test_numbers_and_texts_are_the_same_ids():
    A = np.array([[1.0, 0.5, 0.0], [0.5, 1.0, 0.0], [0.0, 0.0, 1.0]])
    rng = np.random.default_rng(3)
    y, codes = rng.normal(size=30), rng.integers(1, 4, 30)
    given = [codes, codes.astype(float), codes.astype(str)]
    values = [mm.lmm("y ~ 1 + (1 | a)", {"y": y, "a": a}, known={"a": (A, [1, 2, 3])}).loglik for a in given]
    values += [mm.lmm("y ~ 1 + (1 | a)", {"y": y, "a": codes}, known={"a": (A, ["1", "2", "3"])}).loglik]
    np.testing.assert_allclose(values, values[0], rtol=1e-12)


def test_identity_is_an_ordinary_term():
    data = cases.table("knowncov")
    ids = cases.known_matrix()[1]
    plain = mm.lmm("y ~ x + (x | g)", data)
    known = mm.lmm("y ~ x + (x | g)", data, known={"g": (np.eye(40), ids)})
    assert known.loglik == pytest.approx(plain.loglik, rel=1e-11)
    np.testing.assert_allclose(known.theta, plain.theta, atol=1e-5)


def test_slopes_with_known_covariance():
    """A kron Sigma against the dense normal density."""
    data = cases.table("knowncov")
    K, ids = cases.known_matrix()
    fit = mm.lmm("y ~ x + (x | g)", data, known={"g": (K, ids)}, reml=False)
    place = {label: i for i, label in enumerate(ids)}
    code = np.array([place[label] for label in data["g"]])
    Z = np.column_stack([np.ones(len(code)), data["x"]])
    factor = np.array(fit._factors[0])
    V = fit.sigma**2 * ((Z @ factor @ factor.T @ Z.T) * K[np.ix_(code, code)] + np.eye(len(code)))
    rest = data["y"] - Z @ fit.beta
    expected = -0.5 * (np.linalg.slogdet(2 * np.pi * V)[1] + rest @ np.linalg.solve(V, rest))
    assert fit.loglik == pytest.approx(expected, rel=1e-10)


def test_generalised_model():
    """The identity gives the ordinary model; a correlated A another, the same by both engines."""
    rng = np.random.default_rng(4)
    K, ids = cases.known_matrix()
    b = np.linalg.cholesky(K) @ rng.normal(size=40)
    g = rng.integers(0, 40, 300)
    data = {"y": rng.poisson(np.exp(0.5 + 0.6 * b[g])), "g": np.array(ids)[g]}
    plain = mm.glmm("y ~ 1 + (1 | g)", data, family="poisson")
    same = mm.glmm("y ~ 1 + (1 | g)", data, family="poisson", known={"g": (np.eye(40), ids)})
    assert same.loglik == pytest.approx(plain.loglik, rel=1e-9)
    blocked = mm.glmm("y ~ 1 + (1 | g)", data, family="poisson", known={"g": (K, ids)})
    dense = mm.glmm("y ~ 1 + (1 | g)", data, family="poisson", known={"g": (K, ids)}, solver="dense")
    assert blocked.loglik == pytest.approx(dense.loglik, rel=1e-9)
    assert blocked.loglik > plain.loglik + 1.0


def test_predictions_for_relatives_without_records():
    """A level without rows is predicted from its relatives: b = K_new,old K^-1 b for the noiseless part."""
    data = cases.table("knowncov")
    K, ids = cases.known_matrix()
    keep = data["g"] != "L20"
    fit = mm.lmm("y ~ x + (1 | g)", {k: v[keep] for k, v in data.items()}, known={"g": (K, ids)})
    assert fit.ngroups["g"] == 40
    b = np.asarray(fit.breeding_values()["estimate"])
    old = np.array([i for i in range(40) if ids[i] != "L20"])
    at = ids.index("L20")
    expected = K[at, old] @ np.linalg.solve(K[np.ix_(old, old)], b[old])
    assert b[at] == pytest.approx(expected, rel=1e-8)
    values = fit.predict({"x": [0.0], "g": ["L20"]})
    assert np.asarray(values)[0] == pytest.approx(fit.fixef["(Intercept)"] + expected, rel=1e-9)
    with pytest.raises(NewLevelError):
        fit.predict({"x": [0.0], "g": ["L99"]})


def test_save_load_update_refit(fit, tmp_path):
    fit.save(tmp_path / "fit.mm")
    loaded = mm.load(tmp_path / "fit.mm")
    assert loaded.criterion == fit.criterion
    np.testing.assert_array_equal(loaded.breeding_values()["pev"], fit.breeding_values()["pev"])
    assert fit.update(formula=". ~ . - x").design.terms[0].precision is not None
    assert fit.refit(cases.table("knowncov")["y"]).loglik == pytest.approx(fit.loglik, rel=1e-12)
    assert fit.update(known=None).loglik < fit.loglik


def test_simulation_has_the_known_covariance(fit):
    draws = fit.simulate(4000, seed=1)
    codes = fit.design.terms[0].codes
    K, s = cases.known_matrix()[0], fit.varcorr.terms[0].sds[0] ** 2
    first = [int(np.flatnonzero(codes == level)[0]) for level in (0, 1, 20)]
    found = np.cov(draws[first])
    expected = s * K[np.ix_([0, 1, 20], [0, 1, 20])] + fit.sigma**2 * np.eye(3)
    np.testing.assert_allclose(found, expected, atol=0.12)


def test_missing_ids():
    K, ids = cases.known_matrix()
    with pytest.raises(DataError, match=r"2 levels of 'g' are not among the ids of known\['g'\]: L01, L02;"):
        mm.lmm("y ~ x + (1 | g)", cases.table("knowncov"), known={"g": (K[2:, 2:], ids[2:])})


@pytest.mark.parametrize(
    ("known", "error", "text"),
    [
        ({"h": (np.eye(2), ["a", "b"])}, OptionError, "'h' is not a grouping factor"),
        ([1], OptionError, "known must be a dict"),
        ({"g": 3}, OptionError, r"known\['g'\] must be a pedigree"),
        ({"g": (np.eye(3), ["a", "b"])}, DataError, "2 ids for a matrix of 3 rows"),
        ({"g": (np.eye(2), ["a", "a"])}, DataError, "more than once: a"),
        ({"g": (np.array([[1.0, 0.3], [0.2, 1.0]]), ["a", "b"])}, DataError, "not symmetric"),
        ({"g": (np.array([[1.0, np.nan], [np.nan, 1.0]]), ["a", "b"])}, DataError, "missing or infinite"),
        ({"g": (np.zeros((2, 3)), ["a", "b"])}, DataError, "must be a square matrix"),
        ({"g": (np.diag([1.0, 0.0]), ["a", "b"])}, DataError, "variance of b is 0"),
        ({"g": {"ids": ["a", "b"]}}, OptionError, "one of 'precision' and 'covariance'"),
        ({"g": {"ids": ["a", "b"], "precision": np.diag([1.0, -1.0])}}, DataError, "not positive definite"),
    ],
)
def test_refusals(known, error, text):
    with pytest.raises(error, match=text):
        mm.lmm("y ~ x + (1 | g)", cases.table("knowncov"), known=known)


def test_refused_formulas():
    data, known = cases.table("knowncov"), {"g": cases.known_matrix()}
    with pytest.raises(OptionError, match="uses the known matrix 'D'"):
        mm.lmm("y ~ x + (1 | g) + known(1 | g, D)", data, known=known)
    with pytest.raises(FormulaError, match=r"write known\(1 \| animal, D\)"):
        mm.lmm("y ~ x + known(1 | g)", data, known=known)
    animals = cases.table("dat_ped500")
    with pytest.raises(IdentifiabilityError, match="one observation per level"):
        mm.lmm("y ~ (1 | animal) + id(1 | animal)", animals, known={"animal": cases.pedigree("ped500")})


def test_twins():
    """Two individuals with the same relationships: no inverse, which other terms would need."""
    K = np.eye(4) + 0.0
    K[0, 1] = K[1, 0] = 1.0
    rng = np.random.default_rng(6)
    data = {"y": rng.normal(size=40), "g": np.tile(list("abcd"), 10), "h": np.repeat(list("uvwxyz12"), 5)}
    alone = mm.lmm("y ~ 1 + (1 | g)", data, known={"g": (K, list("abcd"))}, reml=False)
    merged = data | {"g": np.where(data["g"] == "b", "a", data["g"])}
    assert alone.loglik == pytest.approx(mm.lmm("y ~ 1 + (1 | g)", merged, reml=False).loglik, rel=1e-10)
    with pytest.raises(SolverError, match="identical twins"):
        mm.lmm("y ~ 1 + (1 | g) + (1 | h)", data, known={"g": (K, list("abcd"))})


def test_given_variances_follow_the_fit(fit):
    """At the estimates BLUP gives back the fit; its tests take the variances as known."""
    variances = {"g": fit.varcorr.terms[0].sds[0] ** 2, "Residual": fit.sigma**2}
    given = mm.blup(
        "y ~ x + (1 | g)", cases.table("knowncov"), variances=variances, known={"g": cases.known_matrix()}
    )
    np.testing.assert_allclose(given.beta, fit.beta, rtol=1e-10)
    np.testing.assert_allclose(given.vcov, fit.vcov, rtol=1e-10)
    assert given.loglik == pytest.approx(fit.loglik, rel=1e-12)
    assert np.isinf(given.coefficients()["df"]).all()
    assert given.df_model == 2 and "the variances are given" in str(given)
    assert given.heritability()["std_error"][0] == 0.0
    assert given.update(variances=None).loglik == pytest.approx(fit.loglik, rel=1e-10)
    for wrong, text in (
        ({"g": 1.0}, 'no "Residual"'),
        ({"g": 1.0, "Residual": -1.0}, "must be positive"),
        ({"h": 1.0, "Residual": 1.0}, "missing: g"),
        (3, "must be a dict"),
    ):
        with pytest.raises(OptionError, match=text):
            given.update(variances=wrong)


def test_breeding_values_refusals(fit):
    with pytest.raises(OptionError, match="no random term"):
        fit.breeding_values("h")
    plain = mm.lmm("y ~ x + (1 | g)", cases.table("knowncov"))
    with pytest.raises(OptionError, match="name the term"):
        plain.breeding_values()
    assert len(plain.breeding_values("g")) == 40


def test_questions_of_related_models():
    """Models made from one pedigree twice are nested; relatives tell levels of one row from the error."""
    from mixedmodels.genetics import Pedigree

    data, columns = cases.table("dat_ped500"), cases.table("ped500")
    parents = {key: np.nan_to_num(columns[key]).astype(int) for key in ("sire", "dam")}
    pedigrees = [Pedigree.from_frame({"id": columns["id"].astype(int), **parents}) for _ in range(2)]
    small = mm.lmm("y ~ sex + (1 | animal)", data, known={"animal": pedigrees[0]}, reml=False)
    large = mm.lmm("y ~ sex + (1 | animal) + (1 | herd)", data, known={"animal": pedigrees[1]}, reml=False)
    statistic = mm.compare(small, large)["statistic"][1]
    assert statistic == pytest.approx(small.deviance - large.deviance, rel=1e-10)
    assert "one row only" not in str(small.diagnose())
    table = small.update(reml=True).coefficients("kr")
    assert (np.asarray(table["df"]) > 10).all() and (np.asarray(table["df"]) < 440).all()


def test_small_sample_answers_of_the_eigen_solver():
    """Kenward-Roger and Satterthwaite tables are those of the dense solver."""
    data, known = cases.table("kin300"), {"id": cases.kinship()}
    fit = mm.lmm("y ~ x + sex + (1 | id)", data, known=known)
    assert fit.solver.name == "eigen"
    other = fit.update(solver="dense")
    for method in ("kr", "satterthwaite"):
        mine, theirs = fit.coefficients(method), other.coefficients(method)
        for name in ("estimate", "std_error", "df"):
            np.testing.assert_allclose(mine[name], theirs[name], rtol=2e-5)
