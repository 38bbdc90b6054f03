"""Groups of rows named by a factor of the model, a column, or an array."""

from __future__ import annotations

import numpy as np
import pytest

import mixedmodels as mm
from mixedmodels.inference.checks.grouping import grouping_of


def function_fit():
    rng = np.random.default_rng(1)
    Z = np.kron(np.eye(8), np.ones((6, 1)))
    x = rng.normal(size=48)
    y = 1 + x + Z @ rng.normal(size=8) + rng.normal(size=48)
    model = mm.LinearMixedModel.from_matrices(
        y,
        np.column_stack([np.ones(48), x]),
        Z,
        covariance=lambda theta: theta[0] * np.eye(8),
        start=[1.0],
        lower=[0.0],
    )
    return model.fit()


def test_a_factor_of_the_model_a_column_and_an_array(fit, sleepstudy):
    factor = grouping_of(fit, "Subject")
    assert factor.name == "Subject" and len(factor.levels) == 18
    column = grouping_of(fit, "Days")
    assert [float(v) for v in column.levels] == list(range(10))
    array = grouping_of(fit, sleepstudy["Subject"].to_numpy(), "cluster")
    assert array.name == "cluster" and np.array_equal(array.codes, factor.codes)


def test_levels_without_rows_are_left_out(sleepstudy):
    data = sleepstudy.copy()
    data["half"] = data["Subject"]
    data.loc[data.index[:10], "Reaction"] = np.nan
    fit = mm.lmm("Reaction ~ Days + (1 | Subject)", data)
    assert len(grouping_of(fit, "half").levels) == 17
    # one label per row of the data serves as well as one per row of the fit
    both = [grouping_of(fit, labels).codes for labels in (data["half"], data["half"][10:])]
    assert np.array_equal(*both)


def test_nested_factors_in_either_order():
    fit = mm.lmm("strength ~ 1 + (1 | batch/cask)", mm.load_dataset("Pastes"))
    a, b = grouping_of(fit, "cask:batch"), grouping_of(fit, "batch:cask")
    assert np.array_equal(a.codes, b.codes)


def test_errors(fit, sleepstudy, tmp_path):
    with pytest.raises(mm.OptionError, match="array, got 3"):
        grouping_of(fit, 3)
    labels = sleepstudy["Subject"].astype(object).copy()
    labels[4] = None
    with pytest.raises(mm.DataError, match="1 missing values"):
        grouping_of(fit, labels)
    fit.save(tmp_path / "fit.mm")
    loaded = mm.load(tmp_path / "fit.mm")
    assert len(grouping_of(loaded, "Subject").levels) == 18
    with pytest.raises(mm.OptionError, match="does not hold its data"):
        grouping_of(loaded, "Days")


@pytest.mark.parametrize(
    "ask",
    [
        lambda fit: fit.leverage(),
        lambda fit: fit.influence(),
        lambda fit: fit.icc(),
        lambda fit: fit.repca(),
        lambda fit: fit.robust_vcov(),
        lambda fit: fit.residuals("standardized"),
    ],
    ids=["leverage", "influence", "icc", "repca", "robust_vcov", "residuals"],
)
def test_a_covariance_without_terms_is_refused_in_one_line(ask):
    fit = function_fit()
    with pytest.raises(mm.NotImplementedYetError, match="covariance given as a function of theta"):
        ask(fit)


def test_what_needs_no_terms_works_for_a_covariance_function():
    fit = function_fit()
    assert fit.diagnose().findings
    assert len(fit.simulated_residuals(30, seed=1, new_effects=False).tests()) == 4
    assert fit.allfit(["lbfgsb"])["converged"].all()
