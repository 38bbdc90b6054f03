"""One model by every optimiser."""

from __future__ import annotations

import numpy as np
import pytest

import mixedmodels as mm
from mixedmodels.optimize import METHODS


def test_all_methods_agree(fit):
    table = fit.allfit()
    assert table["method"].tolist() == [name for name in METHODS if name != "bobyqa-like"]
    assert table["converged"].all()
    assert table["above_best"].max() < 1e-6 and table["above_best"].min() == 0.0
    assert table["fixef_distance"].max() < 1e-4 and table["sd_distance"].max() < 1e-4
    assert table.extra["fits"]["lbfgsb"].criterion == pytest.approx(fit.criterion, rel=1e-10)
    assert "10 of 10 methods converged" in table.notes[0]


def test_chosen_methods_and_a_singular_fit():
    fit = mm.lmm("Yield ~ 1 + (1 | Batch)", mm.load_dataset("Dyestuff2"))
    table = fit.allfit(["newton", "lbfgsb", "nelder-mead"])
    assert table["method"].tolist() == ["newton", "lbfgsb", "nelder-mead"]
    np.testing.assert_allclose(table["criterion"], fit.criterion, rtol=1e-8)
    assert len(fit.allfit("ecme")) == 1


def test_a_fit_that_stopped_early_is_told(sleepstudy):
    with pytest.warns(mm.ConvergenceWarning):
        early = mm.lmm(
            "Reaction ~ Days + (Days | Subject)",
            sleepstudy,
            method="em",
            control={"maxiter": 1},
            start=[3, 0, 3],
        )
    table = early.allfit("newton")  # its limits are not those of the fit
    assert table["converged"][0]
    assert early.criterion > table["criterion"][0] + 0.1
    assert any("the fit at hand is" in note and "above the best" in note for note in table.notes)


def test_errors(fit):
    with pytest.raises(mm.OptionError, match=r"'magic' is unknown.*newton"):
        fit.allfit(["newton", "magic"])
    with pytest.raises(mm.OptionError, match="no methods"):
        fit.allfit([])
