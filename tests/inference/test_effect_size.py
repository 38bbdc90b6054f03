"""Standardised differences of means."""

import numpy as np
import pytest

import mixedmodels as mm


@pytest.fixture(scope="module")
def means():
    cake = mm.load_dataset("cake", backend="dict")
    return mm.lmm("angle ~ recipe + temp + (1 | recipe:replicate)", cake).emmeans("recipe")


def test_by_hand(means):
    pairs = means.pairs(adjust="none")
    found = means.effect_size(sigma=5.0, edf=40.0)
    d = pairs["estimate"] / 5.0
    assert found["estimate"] == pytest.approx(d)
    assert found["std_error"] ** 2 == pytest.approx((pairs["std_error"] / 5.0) ** 2 + d**2 / 80.0)
    assert found["df"] == pytest.approx(np.minimum(pairs["df"], 40.0))


def test_known_sigma_has_no_uncertainty(means):
    found = means.effect_size(sigma=2.0, edf=np.inf)
    pairs = means.pairs(adjust="none")
    for name in ("estimate", "std_error", "conf_low", "conf_high"):
        assert found[name] == pytest.approx(pairs[name] / 2.0)


def test_default_is_the_total_sd(means):
    fit = means.source.fit
    total = fit.sigma * np.sqrt(1.0 + fit.theta[0] ** 2)
    found = means.effect_size()
    assert found["estimate"] == pytest.approx(means.pairs()["estimate"] / total)
    assert any("all random parts and the residual" in note for note in found.notes)
    assert found["df"] == pytest.approx(means.pairs()["df"])


def test_units_do_not_matter(means):
    cake = mm.load_dataset("cake", backend="dict")
    cake["angle"] = 1000.0 * np.asarray(cake["angle"])
    other = mm.lmm("angle ~ recipe + temp + (1 | recipe:replicate)", cake).emmeans("recipe")
    assert other.effect_size()["conf_low"] == pytest.approx(means.effect_size()["conf_low"], rel=1e-5)


def test_given_contrasts_are_taken_as_they_are(means):
    found = means.contrast("trt.vs.ctrl").effect_size(sigma=3.0)
    assert found["contrast"].tolist() == ["B - A", "C - A"]
    assert means.effect_size(sigma=3.0, method="eff")["contrast"].tolist() == [
        "A effect",
        "B effect",
        "C effect",
    ]
