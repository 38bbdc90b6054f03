"""Residual structures elsewhere: simulation without a fit, models from matrices, bootstraps, power, CLI."""

from __future__ import annotations

import json

import numpy as np
import pytest

import mixedmodels as mm
from mixedmodels import cli
from mixedmodels.errors import DataError, OptionError

STRUCTURE = "ar1(occ | Subject) * varident(Sex)"


@pytest.fixture(scope="module")
def growth():
    data = mm.load_dataset("Orthodont", backend="pandas")
    return data.assign(occ=(data["age"] / 2 - 3).astype(int))


@pytest.fixture(scope="module")
def fit(growth):
    return mm.gls("distance ~ age * Sex", growth, residual=STRUCTURE)


def test_simulation_without_a_fit(growth):
    y = mm.simulate(
        "~ age", growth, beta=[10, 1], sigma=2.0, residual=STRUCTURE,
        phi={"rho": 0.7, "sd_ratio[Female]": 0.5}, seed=1, n=20_000,
    )  # fmt: skip
    C = np.cov(y)
    series = np.mean([C[row, row : row + 4] for row in range(0, 64, 4)], axis=0)  # 16 boys
    np.testing.assert_allclose(series, 4.0 * 0.7 ** np.arange(4), atol=0.04)
    assert C[100, 100] == pytest.approx(1.0, rel=0.05)
    again = mm.simulate(
        "~ age", growth, beta=[10, 1], sigma=2.0, residual=STRUCTURE,
        phi={"rho": 0.7, "sd_ratio[Female]": 0.5}, seed=1,
    )  # fmt: skip
    np.testing.assert_allclose(again, y[:, 0], rtol=1e-12)
    power = mm.simulate(
        "~ age + (1 | Subject)", growth, beta=[10, 1], sd=1e-6, sigma=0.02, residual="varpower()",
        phi={"power": 1.5}, seed=1, n=4000,
    )  # fmt: skip
    np.testing.assert_allclose(power.std(axis=1), 0.02 * (10 + growth["age"]) ** 1.5, rtol=0.06)


def test_simulation_refuses(growth):
    with pytest.raises(OptionError, match="phi lacks rho"):
        mm.simulate("~ age", growth, beta=[10, 1], residual="ar1(occ | Subject)")
    with pytest.raises(OptionError, match="rho"):
        mm.simulate("~ age", growth, beta=[10, 1], residual="ar1(occ | Subject)", phi={"rho": 1.4})
    with pytest.raises(OptionError, match="give residual="):
        mm.simulate("~ age + (1 | Subject)", growth, beta=[10, 1], sd=1, phi={"rho": 0.4})
    with pytest.raises(OptionError, match="leave out family"):
        mm.simulate("~ 1 + (1 | Subject)", growth, beta=[1], sd=1, family="poisson", residual="varident(Sex)")


def test_a_model_from_matrices(growth, fit):
    columns = {name: growth[name].to_numpy() for name in ("occ", "Subject", "Sex")}
    y, X = fit.design.y, fit.design.X
    model = mm.LinearMixedModel.from_matrices(y, X, [], residual=STRUCTURE, columns=columns)
    found = model.fit()
    assert found.loglik == pytest.approx(fit.loglik, abs=1e-8)
    assert found.residual["rho"] == pytest.approx(fit.residual["rho"], abs=1e-5)
    assert model.objective(found.theta) == pytest.approx(fit.criterion, rel=1e-10)
    assert np.abs(model.gradient(found.theta)).max() < 1e-2
    with pytest.raises(OptionError, match="variance components alone"):
        model.at({"Residual": 1.0})
    with pytest.raises(DataError, match="needs the column 'Sex'"):
        mm.LinearMixedModel.from_matrices(
            y, X, [], residual=STRUCTURE, columns={"occ": columns["occ"], "Subject": columns["Subject"]}
        )
    with pytest.raises(DataError, match="has 3 values; y has 108"):
        mm.LinearMixedModel.from_matrices(y, X, [], residual=STRUCTURE, columns={**columns, "occ": [1, 2, 3]})
    with pytest.raises(OptionError, match="give residual= as well"):
        mm.LinearMixedModel.from_matrices(y, X, [], columns=columns)


@pytest.mark.parametrize("kind", ["parametric", "residual", "cluster"])
def test_bootstraps_without_random_effects(fit, kind):
    boot = fit.bootstrap(12, seed=1, kind=kind, progress=False)
    assert boot.theta.shape == (12, 2) and not boot.failures
    assert np.all(boot.theta.std(axis=0) > 0.0)
    np.testing.assert_array_equal(fit.bootstrap(5, seed=1, kind=kind, progress=False).theta, boot.theta[:5])


def test_a_cluster_drawn_twice_is_two_series(fit):
    bound = fit.design.residual
    rows = np.array([0, 1, 2, 3, 0, 1, 2, 3, 100, 101, 102, 103])
    twice = bound.subset(rows, np.repeat([0, 1, 2], 4))
    assert twice.n_groups == 3
    phi = np.array(fit.phi)
    np.testing.assert_allclose(twice.block(phi, 0), twice.block(phi, 1))
    np.testing.assert_allclose(twice.block(phi, 0), bound.block(phi, int(bound.codes[0])))


def test_power(growth):
    mixed = mm.lmm("distance ~ age * Sex + (1 | Subject)", growth, residual=STRUCTURE)
    table = mm.power(mixed, "age:SexFemale", n=4, seed=1, extend={"Subject": 40}, progress=False)
    assert table["failures"][0] == 0


def test_command_line(growth, tmp_path, capsys):
    growth.to_csv(tmp_path / "growth.csv", index=False)
    status = cli.main(["fit", "distance ~ age", str(tmp_path / "growth.csv"), "--residual", STRUCTURE])
    out = capsys.readouterr().out
    assert status == 0 and "AR(1) over occ within Subject" in out
    status = cli.main(
        ["fit", "distance ~ age", str(tmp_path / "growth.csv"), "--residual", STRUCTURE, "--json"]
    )
    assert json.loads(capsys.readouterr().out)["nobs"] == 108
    wrong = ["fit", "occ ~ 1 + (1 | Subject)", str(tmp_path / "growth.csv"), "--family", "poisson"]
    assert cli.main([*wrong, "--residual", STRUCTURE]) == 2
    assert "--residual is for linear models" in capsys.readouterr().err
