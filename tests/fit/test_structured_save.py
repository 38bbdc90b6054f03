"""Saving, loading and pickling of fits with structured residuals and structured random effects."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

import mixedmodels as mm
from mixedmodels.errors import DataError


@pytest.fixture(scope="module")
def growth():
    data = mm.load_dataset("Orthodont", backend="pandas")
    return data.assign(occ=(data["age"] / 2 - 3).astype(int))


def again(fit, growth, tmp_path):
    path = tmp_path / "fit.mm"
    fit.save(path)
    loaded = mm.load(path)
    assert type(loaded) is type(fit)
    assert str(loaded) == str(fit)
    for name in ("theta", "beta", "vcov"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(fit, name))
    np.testing.assert_array_equal(loaded.fitted(), fit.fitted())
    np.testing.assert_array_equal(loaded.predict(growth), fit.predict(growth))
    np.testing.assert_array_equal(loaded.simulate(2, 1), fit.simulate(2, 1))
    loaded.save(tmp_path / "again.mm")
    assert path.read_bytes() == (tmp_path / "again.mm").read_bytes()
    return loaded


@pytest.mark.parametrize(
    "residual",
    [
        "ar1(occ | Subject) * varident(Sex)",
        "us(occ | Subject, by=Sex)",
        "varpower()",
        "exp(age | Subject, nugget=True)",
        "varident(Sex, Female=0.5)",
        "toep(occ | Subject)",
        "arma(occ | Subject, p=1, q=1)",
        "varexp(age, by=Sex)",
    ],
)
def test_residual_structures(growth, residual, tmp_path):
    fit = mm.gls("distance ~ age * Sex", growth, residual=residual)
    loaded = again(fit, growth, tmp_path)
    new = {"age": [9.5], "occ": [2], "Sex": ["Male"], "Subject": ["M01"]}
    ahead = fit.predict(new, forecast=True, interval="prediction")
    assert loaded.predict(new, forecast=True, interval="prediction").columns == ahead.columns
    assert loaded.residual.rounds == fit.residual.rounds


def test_objects_and_random_effects(growth, tmp_path):
    known = mm.residual.Known(0.5 + 0.5 * np.eye(4), group="Subject")
    again(mm.gls("distance ~ age", growth, residual=known), growth, tmp_path)
    fit = mm.lmm("distance ~ age + (1 | Subject)", growth, residual="ar1(occ | Subject)", reml=False)
    loaded = pickle.loads(pickle.dumps(fit))
    assert loaded.residual["rho"] == fit.residual["rho"]
    assert loaded.refit(fit.design.y).loglik == pytest.approx(fit.loglik, abs=1e-8)
    assert loaded.update(residual="varident(Sex)", data=growth).residual.names == ("sd_ratio[Female]",)


def test_structures_given_by_functions_are_code(growth):
    def decay(phi):
        rho = np.tanh(phi[0])
        return rho ** np.abs(np.subtract.outer(range(4), range(4)))

    fit = mm.gls("distance ~ age", growth, residual=mm.residual.Function(decay, [0.3], group="Subject"))
    with pytest.raises(DataError, match="given by a function"):
        pickle.dumps(fit)


@pytest.mark.parametrize(
    "formula",
    [
        "distance ~ age * Sex + ar1(age | Subject)",
        "distance ~ Sex + cs(0 + factor(age) | Subject)",
        "distance ~ age * Sex + exp(age | Subject)",
        "distance ~ Sex + rr(0 + factor(age) | Subject, d=1)",
    ],
)
def test_structured_random_effects(growth, formula, tmp_path):
    again(mm.lmm(formula, growth), growth, tmp_path)
