"""Residuals, autocorrelation functions and variograms against nlme (references/structured/residuals.R)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import mixedmodels as mm
from mixedmodels.errors import OptionError

HERE = Path(__file__).parents[1] / "references"


@pytest.fixture(scope="module")
def reference():
    return json.loads((HERE / "structured" / "residuals.json").read_text())


@pytest.fixture(scope="module")
def growth():
    data = mm.load_dataset("Orthodont", backend="pandas")
    data = data.assign(occ=(data["age"] / 2 - 3).astype(int))
    return mm.lmm("distance ~ age * Sex + (1 | Subject)", data, residual="ar1(occ | Subject) * varident(Sex)")


@pytest.fixture(scope="module")
def rats():
    data = pd.read_csv(HERE / "data" / "BodyWeight.csv", dtype={"Rat": str, "Diet": str})
    return mm.lmm("weight ~ Time * Diet + (Time | Rat)", data, residual="varpower()")


@pytest.fixture(scope="module")
def wheat():
    return mm.gls("yield ~ 0 + variety", pd.read_csv(HERE / "data" / "Wheat2.csv"))


def test_residuals_of_nlme(growth, rats, reference):
    # nlme's "pearson" is over sigma and over the standard deviation of the row: "scaled" here
    for name, kind in (("response", "response"), ("pearson", "scaled"), ("normalized", "normalized")):
        np.testing.assert_allclose(growth.residuals(kind), reference["growth"][name], atol=2e-6)
    np.testing.assert_allclose(growth.fitted(), reference["growth"]["fitted"], rtol=1e-6)
    np.testing.assert_allclose(rats.residuals("scaled"), reference["rats"]["pearson"], atol=2e-5)
    new = {"age": [15.0, 9.0], "occ": [4, 1], "Sex": ["Male", "Female"], "Subject": ["M01", "F02"]}
    np.testing.assert_allclose(growth.predict(new), reference["growth"]["predict"], rtol=1e-6)
    np.testing.assert_allclose(
        growth.predict(new, re_form="population"), reference["growth"]["predict_population"], rtol=1e-6
    )


def test_autocorrelations_of_nlme(growth, rats, reference):
    own = reference["growth"]
    np.testing.assert_allclose(growth.acf(3)["acf"], own["acf_pearson"]["acf"], atol=1e-6)
    np.testing.assert_allclose(
        growth.acf(3, kind="normalized")["acf"], own["acf_normalized"]["acf"], atol=1e-6
    )
    table = rats.acf(6)
    np.testing.assert_allclose(table["acf"], reference["rats"]["acf"]["acf"], atol=2e-6)
    assert table["pairs"].tolist() == [176 - 16 * lag for lag in range(7)]


@pytest.mark.parametrize("name", ["variogram", "variogram_robust"])
def test_variograms_of_nlme(rats, reference, name):
    own, table = reference["rats"][name], rats.variogram("Time", robust=name.endswith("robust"))
    np.testing.assert_array_equal(table["pairs"], own["pairs"])
    np.testing.assert_array_equal(table["distance"], own["dist"])
    np.testing.assert_allclose(table["semivariance"], own["variog"], rtol=1e-5)


def test_classes_of_distances(rats, wheat, reference):
    """nlme's classes (a, b] lose the pairs at the smallest distance; here they are in the first class."""
    cases = [
        (rats, "Time", {"breaks": "equal", "bins": 8}, reference["rats"]["variogram_fixed"]),
        (wheat, ["latitude", "longitude"], {}, reference["wheat"]["plain"]),
        (wheat, ["latitude", "longitude"], {"max_distance": 20, "bins": 10}, reference["wheat"]["far"]),
    ]
    for fit, distance, options, own in cases:
        table = fit.variogram(distance, **options)
        np.testing.assert_array_equal(table["pairs"][1:], own["pairs"][1:])
        np.testing.assert_allclose(table["semivariance"][1:], own["variog"][1:], rtol=1e-5)
        np.testing.assert_allclose(table["distance"], own["dist"], rtol=1e-9)
        nearest = fit.variogram(distance, max_distance=1.0 if fit is rats else 4.3000001)
        n, few = table["pairs"][0], nearest["pairs"][0]
        assert n - few == own["pairs"][0]
        rest = (table["semivariance"][0] * n - nearest["semivariance"][0] * few) / (n - few)
        assert rest == pytest.approx(own["variog"][0], rel=1e-5)


def test_defaults(growth, wheat):
    """Times and groups of the structure; without them rows of the data, or all of them."""
    assert growth.variogram()["distance"].tolist() == [1.0, 2.0, 3.0]
    assert "distances in occ" in growth.variogram().notes[0]
    plain = growth.update(residual=None)
    assert plain.variogram()["distance"].tolist() == [1.0, 2.0, 3.0]
    assert "distances in rows" in plain.variogram().notes[0]
    assert wheat.variogram(["latitude", "longitude"], bins=1)["pairs"].sum() == 224 * 223 // 2
    order = growth.acf(2, order=-growth._data["occ"].to_numpy())
    np.testing.assert_allclose(order["acf"], growth.acf(2)["acf"], rtol=1e-12)  # read backwards


def test_refusals(growth, wheat):
    with pytest.raises(OptionError, match="lags must be"):
        growth.acf(4)
    with pytest.raises(OptionError, match="kind must be one of"):
        growth.acf(kind="studentized")
    with pytest.raises(OptionError, match="no grouping factor"):
        wheat.acf()
    with pytest.raises(OptionError, match="bins must be"):
        growth.variogram(bins=0)
    crossed = mm.lmm(
        "diameter ~ 1 + (1 | plate) + (1 | sample)", mm.load_dataset("Penicillin", backend="dict")
    )
    with pytest.raises(OptionError, match="crossed: say which"):
        crossed.acf()
    assert crossed.acf(2, group="plate")["pairs"].tolist() == [144, 120, 96]


def test_plots(growth):
    pytest.importorskip("matplotlib")
    assert growth.plot.acf(kind="normalized").get_ylabel() == "autocorrelation of normalized residuals"
    assert growth.plot.variogram().get_xlabel() == "distance"
    assert list(growth.plot.data("acf").columns)[:2] == ["lag", "acf"]
    assert "normalized" in growth.plot.qq().get_ylabel()


def series(rho, power, seed):
    rng = np.random.default_rng(seed)
    groups, length = 20, 20
    g, t = np.repeat(np.arange(groups), length), np.tile(np.arange(length), groups)
    lag = np.abs(np.subtract.outer(np.arange(length), np.arange(length)))
    e = (rng.normal(size=(groups, length)) @ np.linalg.cholesky(rho**lag).T).ravel()
    mean = 5.0 + 0.4 * t
    return {"y": mean + rng.normal(size=groups)[g] + e * (0.2 * mean) ** power, "t": t, "g": g.astype(str)}


def findings(fit):
    return [one for one in fit.diagnose().findings if one.check == "residuals"]


def test_diagnosis_of_the_residuals():
    correlated = mm.lmm("y ~ t + (1 | g)", series(0.6, 0.0, 1))
    (found,) = findings(correlated)
    assert found.status == "note" and "neighbouring rows within g" in found.finding
    assert "ar1(time | g)" in found.remedy
    cured = correlated.update(residual="ar1(t | g)")
    assert [one.status for one in findings(cured)] == ["ok"]
    uneven = mm.lmm("y ~ t + (1 | g)", series(0.0, 2.0, 2))
    (found,) = findings(uneven)
    assert "spread grows" in found.finding and "varpower()" in found.remedy
    assert [one.status for one in findings(uneven.update(residual="varpower()"))] == ["ok"]
    assert findings(mm.lmm("y ~ t + (1 | g)", series(0.0, 0.0, 3))) == []
