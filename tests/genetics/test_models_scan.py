"""Association scans against one model per marker, in R and here."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

import mixedmodels as mm
from mixedmodels.design import KnownCovariance
from mixedmodels.errors import DataError, OptionError
from mixedmodels.genetics import scan

_spec = importlib.util.spec_from_file_location(
    "relationship_cases", Path(__file__).with_name("relationship_cases.py")
)
cases = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(cases)


SNPS = [f"snp{j:02d}" for j in range(1, 21)]


@pytest.fixture(scope="module")
def fit():
    return mm.lmm("y ~ x + sex + (1 | id)", cases.table("kin300"), known={"id": cases.kinship()})


@pytest.fixture(scope="module")
def snps():
    columns = cases.table("kin300")
    return {name: columns[name] for name in SNPS}


@pytest.fixture(scope="module")
def reference():
    rows = cases.references()["kin300_snp_scan"]["scan"]
    return {name: np.array([row[name] for row in rows]) for name in rows[0] if name != "snp"}


def test_likelihood_ratios(fit, snps, reference):
    result = scan(fit, snps)
    assert result["snp"].tolist() == SNPS
    np.testing.assert_allclose(result["statistic"], reference["lrt_chisq"], atol=2e-9)
    np.testing.assert_allclose(result["p_value"], reference["p_lrt"], rtol=1e-7)
    np.testing.assert_allclose(result["lod"], reference["lrt_chisq"] / (2 * np.log(10)), atol=1e-9)


def test_wald(fit, snps, reference):
    result = scan(fit, snps, test="wald")
    np.testing.assert_allclose(result["beta"], reference["reml_estimate"], rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(result["std_error"], reference["reml_se"], rtol=1e-7)
    np.testing.assert_allclose(result["p_value"], reference["p_wald_t"], rtol=1e-6)


def test_given_variances(fit, snps, reference):
    result = scan(fit, snps, method="p3d")
    np.testing.assert_allclose(result["beta"], reference["fixed_ratio_estimate"], rtol=2e-6)
    np.testing.assert_allclose(result["std_error"], reference["fixed_components_se"], rtol=1e-7)
    np.testing.assert_allclose(
        result["p_value"], 2 * stats.norm.sf(np.abs(result["beta"] / result["std_error"])), rtol=1e-9
    )


def test_weights_and_offset():
    """Against fits of the model with the marker, weights and an offset in it."""
    columns = dict(cases.table("kin300"))
    columns["w"] = np.linspace(0.5, 2.0, 300)
    known, options = {"id": cases.kinship()}, {"weights": "w", "offset": "x"}
    null = mm.lmm("y ~ sex + (1 | id)", columns, known=known, reml=False, **options)
    result = scan(null, {"snp03": columns["snp03"]})
    full = mm.lmm("y ~ sex + snp03 + (1 | id)", columns, known=known, reml=False, **options)
    assert result["statistic"][0] == pytest.approx(null.deviance - full.deviance, rel=1e-7)
    assert result["beta"][0] == pytest.approx(full.fixef["snp03"], rel=1e-6)
    assert result["std_error"][0] == pytest.approx(full.se["snp03"], rel=1e-6)


def test_pedigree_models(snps):
    """Exact and given variances where A is known by its inverse, and with further random terms."""
    data = dict(cases.table("dat_ped500"))
    data["g"] = np.random.default_rng(2).binomial(2, 0.3, len(data["y"]))
    known = {"animal": cases.pedigree("ped500")}
    null = mm.lmm("y ~ sex + (1 | animal)", data, known=known, reml=False)
    full = mm.lmm("y ~ sex + g + (1 | animal)", data, known=known, reml=False)
    result = scan(null, {"g": data["g"]})
    assert result["statistic"][0] == pytest.approx(null.deviance - full.deviance, abs=1e-8)
    herds = mm.lmm("y ~ sex + (1 | animal) + (1 | herd)", data, known=known)
    variances = {
        term.group: s.sds[0] ** 2 for term, s in zip(herds.design.terms, herds.varcorr.terms, strict=True)
    }
    given = mm.blup(
        "y ~ sex + g + (1 | animal) + (1 | herd)",
        data,
        known=known,
        variances=variances | {"Residual": herds.sigma**2},
    )
    fast = scan(herds, {"g": data["g"]}, method="p3d")
    assert fast["beta"][0] == pytest.approx(given.fixef["g"], rel=1e-8)
    assert fast["std_error"][0] == pytest.approx(given.se["g"], rel=1e-8)


def test_several_random_terms_are_fitted_once_a_marker():
    """Likelihood ratios and t tests of the exact scan against models with the marker in them."""
    data = dict(cases.table("dat_ped500"))
    rng = np.random.default_rng(3)
    markers = {f"g{j}": rng.binomial(2, 0.3, len(data["y"])).astype(float) for j in range(2)}
    markers["flat"] = np.ones(len(data["y"]))
    known = {"animal": cases.pedigree("ped500")}
    formula = "y ~ sex + (1 | animal) + (1 | herd)"
    null = mm.lmm(formula, data, known=known, reml=False)
    seen = []
    result = scan(null, markers, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (3, 3) and np.isnan(result["beta"][2])
    assert "one fit per marker" in " ".join(result.table.notes)
    wald = scan(null, markers, test="wald")
    for j in range(2):
        full = mm.lmm(formula.replace("sex", f"sex + g{j}"), data | markers, known=known, reml=False)
        assert result["statistic"][j] == pytest.approx(null.deviance - full.deviance, abs=1e-6)
        assert result["beta"][j] == pytest.approx(full.fixef[f"g{j}"], rel=1e-5)
        assert result["std_error"][j] == pytest.approx(full.se[f"g{j}"], rel=1e-5)
        assert result["p_value"][j] == pytest.approx(stats.chi2.sf(result["statistic"][j], 1), rel=1e-10)
        full = full.update(reml=True)
        t = full.fixef[f"g{j}"] / full.se[f"g{j}"]
        assert wald["statistic"][j] == pytest.approx(t, rel=1e-5)
        assert wald["p_value"][j] == pytest.approx(
            2 * stats.t.sf(abs(t), full.design.n - full.design.p), rel=1e-5
        )


def test_zero_variance():
    """Without polygenic variance the scan is a regression of each marker."""
    rng = np.random.default_rng(5)
    K, ids = cases.kinship()
    _, U = np.linalg.eigh(K)
    y = U[:, :40] @ rng.normal(size=40) * 4 + 0.01 * rng.normal(size=300)  # only where K has little variance
    null = mm.lmm("y ~ 1 + (1 | id)", {"y": y, "id": list(ids)}, known={"id": (K, ids)}, reml=False)
    assert null.theta[0] == 0.0
    g = rng.binomial(2, 0.4, (300, 3)).astype(float)
    result = scan(null, g)
    for j in range(3):
        X = np.column_stack([np.ones(300), g[:, j]])
        rss = np.linalg.lstsq(X, y, rcond=None)[1][0]
        expected = 300 * np.log(((y - y.mean()) ** 2).sum() / rss)
        assert result["statistic"][j] == pytest.approx(expected, rel=1e-8, abs=1e-9)


def test_missing_flat_and_aliased_markers(fit, snps):
    matrix = np.column_stack([snps["snp03"], np.ones(300), cases.table("kin300")["x"], snps["snp03"]])
    matrix[:10, 3] = np.nan
    for method in ("exact", "p3d"):
        result = scan(fit, matrix, method=method)
        assert np.isnan(result["p_value"]).tolist() == [False, True, True, False]
        assert result["n"].tolist() == [300, 300, 300, 290]
        text = " ".join(result.table.notes)
        assert "missing values of 1 marker took the mean" in text
        assert "2 markers without variation beyond the fixed effects" in text
    filled = matrix[:, 3].copy()
    filled[:10] = np.nanmean(filled)
    np.testing.assert_allclose(scan(fit, filled)["beta"], scan(fit, matrix)["beta"][3:], rtol=1e-9)


def test_laws(fit, snps):
    """Coding the other allele turns the sign; batches and their order do not matter."""
    matrix = np.column_stack(list(snps.values()))
    one = scan(fit, matrix)
    other = scan(fit, 2.0 - matrix[:, ::-1])
    np.testing.assert_allclose(other["beta"][::-1], -one["beta"], rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(other["maf"][::-1], one["maf"], rtol=1e-12)
    alone = [scan(fit, matrix[:, [j]])["statistic"][0] for j in range(4)]
    np.testing.assert_allclose(alone, one["statistic"][:4], atol=1e-9)


def test_individuals_by_id(fit, snps):
    ids = np.array(cases.kinship()[1])
    order = np.random.default_rng(0).permutation(300)
    matrix = np.column_stack(list(snps.values()))
    by_row = scan(fit, matrix)
    by_id = scan(fit, matrix[order], ids=ids[order])
    np.testing.assert_allclose(by_id["statistic"], by_row["statistic"], atol=1e-9)
    with pytest.raises(DataError, match="have no row of snps: id001"):
        scan(fit, matrix[1:], ids=ids[1:])


def test_refusals(fit, snps):
    with pytest.raises(OptionError, match="'exact' or 'p3d'"):
        scan(fit, snps, method="fast")
    with pytest.raises(OptionError, match="'lrt' or 'wald'"):
        scan(fit, snps, test="score")
    with pytest.raises(DataError, match="snps has 299 rows for 300 rows of data"):
        scan(fit, np.ones((299, 2)))
    with pytest.raises(DataError, match="'a' holds no numbers"):
        scan(fit, {"a": ["x"] * 300})
    with pytest.raises(DataError, match="infinite"):
        scan(fit, np.full((300, 1), np.inf))


def test_low_rank_kinship():
    """Fewer markers than individuals: K has no inverse, the model and its scan need none."""
    rng = np.random.default_rng(8)
    W = rng.binomial(2, 0.4, (80, 30)) - 0.8
    K = W @ W.T / 30
    data = {"y": rng.normal(size=80) + W @ rng.normal(size=30) * 0.3, "id": np.arange(80)}
    null = mm.lmm("y ~ 1 + (1 | id)", data, known={"id": (K, np.arange(80))}, reml=False)
    assert null.solver.name == "eigen" and isinstance(null.design.terms[0].precision, KnownCovariance)
    g = rng.binomial(2, 0.3, 80).astype(float)
    full = mm.lmm("y ~ g + (1 | id)", data | {"g": g}, known={"id": (K, np.arange(80))}, reml=False)
    assert scan(null, g)["statistic"][0] == pytest.approx(null.deviance - full.deviance, abs=1e-8)


def test_plots_and_tables(fit, snps):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    seen = []
    result = scan(fit, snps, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (20, 20)
    assert result.manhattan().get_ylabel() and result.qq().get_title(loc="left").startswith("Quantiles")
    plt.close("all")
    assert result.top(2)["snp"].tolist() == ["snp03", "snp12"]
    p = result["p_value"]
    assert result.inflation == pytest.approx(np.median(stats.chi2.isf(p, 1)) / stats.chi2.median(1))
    assert "snp03" in str(result)
