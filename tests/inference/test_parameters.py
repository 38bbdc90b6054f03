"""Names, order and selection of parameters: the same in profiles, bootstraps, intervals and tidy tables."""

from __future__ import annotations

import numpy as np
import pytest

import mixedmodels as mm
from mixedmodels.errors import OptionError
from mixedmodels.inference.parameters import chosen, chosen_one, natural_values, parameters_of
from mixedmodels.report.tidy import tidy_columns

MODELS = {
    "slopes": "score ~ Machine + (Machine | Worker)",
    "two terms of one group": "score ~ Machine + (1 | Worker) + (0 + Machine | Worker)",
    "nested": "score ~ Machine + (1 | Worker/Machine)",
    "uncorrelated": "score ~ Machine + (Machine || Worker)",
    "one variance": "score ~ Machine + homdiag(0 + Machine | Worker)",
    "no sigma": "score ~ Machine + (1 | Worker)",
}


@pytest.fixture(scope="module")
def fits():
    data = mm.load_dataset("Machines", backend="pandas")
    known = {"no sigma": {"sigma": 3.0}}
    return {
        name: mm.lmm(formula, data, reml=False, **known.get(name, {})) for name, formula in MODELS.items()
    }


@pytest.mark.parametrize("name", MODELS)
def test_names_order_and_values(fits, name):
    fit = fits[name]
    parameters = parameters_of(fit)
    kinds = [p.kind for p in parameters]
    assert len({p.name for p in parameters}) == len(parameters)
    assert kinds[:3] == ["fixed"] * 3 and kinds.count("sigma") == (name != "no sigma")
    assert kinds[-1] == ("sd" if name == "no sigma" else "sigma")
    # the terms of tidy() are these
    tidy = tidy_columns(fit)
    rows = set(zip(tidy["group"], tidy["term"], strict=True))
    assert {(p.group, p.term) for p in parameters} <= rows
    assert len(rows) == len(parameters) + (name == "no sigma")
    values = natural_values(fit.design, parameters, fit.beta[None], np.array([fit.sigma]), fit.theta[None])
    np.testing.assert_allclose(values[0], [p.estimate for p in parameters], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", ["two terms of one group", "nested", "no sigma"])
def test_profile_and_bootstrap_have_the_same_table(fits, name):
    fit = fits[name]
    boot = fit.bootstrap(3, seed=1)
    if name == "two terms of one group":  # its profile takes long: names only
        assert boot.names == tuple(p.name for p in parameters_of(fit))
        assert any(name.endswith("|Worker.1") for name in boot.names)
        return
    a, b = fit.confint("profile"), boot.confint()
    shared = ["term", "group", "estimate", "conf_low", "conf_high"]
    assert list(a.columns)[:5] == shared == list(b.columns)
    for column in ("term", "group"):
        assert (
            a[column].tolist()
            == b[column].tolist()
            == [getattr(p, {"term": "name", "group": "group"}[column]) for p in parameters_of(fit)]
        )
    np.testing.assert_allclose(a["estimate"], b["estimate"], rtol=1e-12)
    assert a.extra["tidy"] == b.extra["tidy"]
    assert boot.sigma.tolist() == ([3.0] * 3 if name == "no sigma" else boot["sigma"].tolist())
    assert list(boot.to_frame().columns) == ["replicate", *a["term"]]


@pytest.mark.parametrize(
    "asked",
    ["fixed", "sd", "random", "sigma", "sd__(Intercept)", ["sigma", "MachineB"], "sd_(Intercept)|Worker"],
)
def test_selection_is_the_same_everywhere(fits, asked):
    fit = fits["nested"]
    wanted = [p.name for p in chosen(parameters_of(fit), asked)]
    assert wanted and len(wanted) < 6
    assert fit.confint("profile", parameters=asked)["term"].tolist() == wanted
    boot = fit.bootstrap(3, seed=1)
    for table in (boot.confint(parameters=asked), boot.hdi(parameters=asked)):
        assert table["term"].tolist() == wanted
    assert fit.confint("bootstrap", n=3, seed=1, parameters=asked)["term"].tolist() == wanted


def test_what_means_nothing_is_refused(fits):
    fit = fits["nested"]
    boot = fit.bootstrap(3, seed=1)
    for ask in (
        lambda names: fit.confint("profile", parameters=names),
        lambda names: boot.confint(parameters=names),
        lambda names: boot.hdi(parameters=names),
    ):
        with pytest.raises(OptionError, match=r"no parameter 'cor'.*sd_\(Intercept\)\|Worker"):
            ask("cor")
        with pytest.raises(OptionError, match="empty list"):
            ask([])
        with pytest.raises(OptionError, match="must be names, got 3"):
            ask([3])
    with pytest.raises(OptionError, match="'sd' means several parameters"):
        chosen_one(parameters_of(fit), "sd")


def test_names_that_meet_are_kept_apart():
    rng = np.random.default_rng(0)
    g, x = np.repeat(np.arange(8), 4), rng.normal(size=32)
    fit = mm.lmm(
        "y ~ sigma + (1 | g)", {"y": x + rng.normal(size=8)[g] + rng.normal(size=32), "sigma": x, "g": g}
    )
    boot = fit.bootstrap(5, seed=1)
    np.testing.assert_array_equal(boot.sigma, boot.draws[:, -1])
    frame = boot.to_frame()
    assert list(frame) == ["replicate", "(Intercept)", "sigma", "sd_(Intercept)|g", "sigma.1"]
    np.testing.assert_array_equal(frame["sigma.1"], boot.sigma)
    with pytest.raises(OptionError, match="several"):
        boot["sigma"]


def test_tidy_takes_one_kind_of_interval(fits):
    with pytest.raises(OptionError, match="one kind of interval"):
        fits["nested"].tidy(conf_int=True, conf_method="bootstrap", n=50, seed=1, kind="all")
