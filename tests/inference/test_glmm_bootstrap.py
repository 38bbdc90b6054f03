"""Bootstrap, power, simulated likelihood ratios and comparison of optimisers for generalised fits."""

import numpy as np
import pytest

import mixedmodels as mm
from mixedmodels.errors import OptionError
from mixedmodels.inference.bootstrap.refits import refit_many
from mixedmodels.inference.bootstrap.result import Bootstrap
from mixedmodels.inference.likelihood.lrt_bootstrap import bootstrap_lrt


@pytest.fixture(scope="module")
def cbpp():
    return mm.load_dataset("cbpp", backend="dict")


def cbpp_fit(cbpp, formula="incidence ~ period + (1 | herd)", **options):
    return mm.glmm(formula, cbpp, **{"family": "binomial", "trials": "size", **options})


@pytest.fixture(scope="module")
def fit(cbpp):
    return cbpp_fit(cbpp)


@pytest.fixture(scope="module")
def boot(fit):
    return fit.bootstrap(60, seed=1)


def test_replicates_are_the_fits_of_their_responses(fit, boot):
    """Started from the estimates, they end where fits from scratch end."""
    from mixedmodels.inference.bootstrap.parallel import chunk_stream

    Y = fit.simulate(50, chunk_stream(boot.entropy, 0))
    for j in range(0, 50, 7):
        new = fit.refit(Y[:, j])
        assert boot.criterion[j] == pytest.approx(new.criterion, abs=1e-7)
        assert np.allclose(boot.draws[j, :4], new.beta, atol=1e-5)
        assert boot["sd_(Intercept)|herd"][j] == pytest.approx(new.varcorr["herd"].sds[0], abs=1e-4)
        assert np.allclose(boot.se[j], list(new.se.values()), rtol=1e-3)


def test_refits_of_the_own_response_are_the_fit(fit):
    found = refit_many(fit, np.array(fit.generalised.data.y)[:, None], vcov=True)
    assert np.allclose(found.beta[0], fit.gamma, atol=1e-7)
    assert np.allclose(found.vcov[0], fit.vcov, rtol=1e-5)
    assert found.criterion[0] == pytest.approx(fit.criterion, abs=1e-9)


def test_links_whose_units_follow_the_response():
    rng = np.random.default_rng(5)
    g = np.repeat(np.arange(12), 8)
    mean = np.exp(1.0 + 0.4 * rng.normal(size=12))[g]
    data = {"y": rng.gamma(3.0, mean / 3.0), "g": g.astype(str)}
    fit = mm.glmm("y ~ 1 + (1 | g)", data, family="gamma", link="inverse")
    y = 1000.0 * fit.simulate(1, seed=1)
    found = refit_many(fit, y)
    assert found.criterion[0] == pytest.approx(fit.refit(y[:, 0]).criterion, abs=1e-6)


def test_draws_depend_on_the_seed_alone(fit, boot):
    assert np.array_equal(boot.draws, fit.bootstrap(60, seed=1, n_jobs=2).draws)
    resumed = fit.bootstrap(60, seed=1, resume=fit.bootstrap(23, seed=1))
    assert np.array_equal(boot.draws, resumed.draws)
    assert not np.array_equal(boot.draws, fit.bootstrap(60, seed=2).draws)


def test_all_kinds_of_intervals(fit, boot):
    table = boot.confint("all", parameters=["period2", "sd"])
    kinds = table["kind"].tolist()
    assert kinds == [
        "normal",
        "basic",
        "studentized",
        "percentile",
        "bca",
        "normal",
        "basic",
        "percentile",
        "bca",
    ]
    low, high = np.array(table["conf_low"]), np.array(table["conf_high"])
    assert np.isfinite(low).all() and (low < high).all()
    inside = (low < np.array(table["estimate"])) & (np.array(table["estimate"]) < high)
    assert inside.all()


def test_intervals_through_confint_hdi_and_frames(fit, boot):
    table = fit.confint("bootstrap", n=60, seed=1)
    assert np.array_equal(table["conf_low"], boot.confint()["conf_low"])
    assert len(boot.hdi()["term"]) == 5
    frame = boot.to_frame()
    assert np.array_equal(frame["period2"], boot["period2"])


def test_saved_and_loaded(fit, boot, tmp_path):
    boot.save(tmp_path / "draws.npz")
    again = Bootstrap.load(tmp_path / "draws.npz", fit=fit)
    assert np.array_equal(again.draws, boot.draws)
    assert np.array_equal(again.extend(3).draws, fit.bootstrap(63, seed=1).draws)


def test_cluster_bootstrap_draws_whole_levels(cbpp, fit):
    boot = fit.bootstrap(20, seed=1, kind="cluster")
    assert not boot.failures and boot.converged.all()
    assert 0.05 < boot["period2"].std() < 1.5
    with pytest.raises(OptionError, match="herd"):
        fit.bootstrap(2, kind="cluster", groups="period")


def test_a_level_drawn_twice_is_two_levels(fit):
    """Resampling every level once gives the fit back; every level twice, twice the log-likelihood."""
    from mixedmodels.inference.bootstrap.run import fit_to_levels

    term = fit.generalised.terms[0]
    once = fit_to_levels(fit, term, np.arange(term.m)[::-1])
    assert once.criterion == pytest.approx(fit.criterion, abs=1e-8)
    twice = fit_to_levels(fit, term, np.repeat(np.arange(term.m), 2))
    assert twice.criterion == pytest.approx(2.0 * fit.criterion, abs=1e-7)
    assert np.allclose(twice.beta, fit.beta, atol=1e-6)


def test_parts_and_dispersions_are_bootstrapped(cbpp):
    fit = cbpp_fit(cbpp, family="betabinomial", zero_inflation="~ 1")
    boot = fit.bootstrap(6, seed=1)
    assert boot.names == (*fit.gamma_names, "sd_(Intercept)|herd", "dispersion")
    good = np.isfinite(boot["dispersion"])
    assert np.allclose(boot["dispersion"][good], np.exp(boot["disp_(Intercept)"][good]))
    assert "disp_(Intercept)" not in boot.confint()["term"].tolist()
    with pytest.raises(OptionError, match="no draws of a residual standard deviation"):
        _ = boot.sigma


def test_a_statistic_of_every_refit(fit):
    boot = fit.bootstrap(4, seed=1, statistic=lambda new: {"variance": new.varcorr["herd"].variances[0]})
    assert np.allclose(boot["variance"], boot["sd_(Intercept)|herd"] ** 2)


def test_responses_of_a_simulator(fit):
    y = np.array(fit.generalised.data.y)
    boot = fit.bootstrap(3, seed=1, simulator=lambda fit, rng: y)
    assert np.allclose(boot.beta, fit.gamma, atol=1e-6)


def test_responses_that_cannot_be_fitted_are_counted(fit):
    y = np.array(fit.generalised.data.y)

    def simulator(fit, rng):
        return np.zeros(len(y)) if rng.random() < 0.5 else y

    boot = fit.bootstrap(12, seed=1, simulator=simulator)
    assert 0 < len(boot.failures) < 12
    assert np.isnan(boot["period2"]).sum() == len(boot.failures)
    assert "failed and are left out" in " ".join(boot.notes)


def test_the_residual_bootstrap_refuses_with_the_reason(fit):
    with pytest.raises(OptionError, match="use kind='parametric'"):
        fit.bootstrap(3, kind="residual")


def test_likelihood_ratio_by_simulation(cbpp, fit):
    small = cbpp_fit(cbpp, "incidence ~ 1 + (1 | herd)")
    found = bootstrap_lrt(small, fit, 40, seed=1)
    assert found.statistic == pytest.approx(small.criterion - fit.criterion)
    assert found.p_value == pytest.approx(1.0 / 41.0)
    assert (found.draws > -1e-6).all() and 1.5 < found.draws.mean() < 4.5  # chi-squared with 3


def test_power_by_wald_and_likelihood_ratio(fit):
    wald = mm.power(fit, "period2", n=60, seed=1, effect={"period2": [0.0, -2.0]})
    assert wald["power"][0] < 0.25 and wald["power"][1] > 0.9
    lrt = mm.power(fit, "period", n=30, seed=1, method="lrt")
    assert lrt["power"][0] > 0.9
    few, many = mm.power(fit, "period2", n=60, seed=1, effect={"period2": -0.6}, extend={"herd": [8, 60]})[
        "power"
    ]
    assert few < many
    with pytest.raises(OptionError, match="wald, lrt"):
        mm.power(fit, "period2", n=2, method="kr")


def test_optimisers_agree(fit):
    table = fit.allfit(["newton", "lbfgsb", "cobyqa"])
    assert table["converged"].all() and table["above_best"].max() < 1e-6
    assert table["fixef_distance"].max() < 1e-3 and table["sd_distance"].max() < 1e-3
    with pytest.raises(OptionError, match="nelder-mead"):
        fit.allfit("em")
