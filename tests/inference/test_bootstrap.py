"""Bootstrap: draws, seeds, resuming, files, failures, and the distributions drawn from."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import mixedmodels as mm
from mixedmodels.design import Precision
from mixedmodels.inference.bootstrap.hdi import shortest_interval
from mixedmodels.inference.bootstrap.parallel import chunk_size
from mixedmodels.inference.bootstrap.refits import singular_rows
from mixedmodels.inference.bootstrap.resampling import (
    cluster_design,
    default_cluster,
    residual_pool,
    simulate_columns,
)
from mixedmodels.inference.bootstrap.result import Bootstrap
from mixedmodels.inference.parameters import natural_values, parameters_of
from mixedmodels.testing import random_design

SLEEP = "Reaction ~ Days + (Days | Subject)"


@pytest.fixture(scope="module")
def sleep():
    return mm.lmm(SLEEP, mm.load_dataset("sleepstudy", backend="pandas"), reml=False)


@pytest.fixture(scope="module")
def boot(sleep):
    return sleep.bootstrap(400, seed=11)


def weighted(theta_zero=False):
    rng = np.random.default_rng(4)
    g = np.repeat(np.arange(20), 6)
    effect = 0.0 if theta_zero else 1.0
    y = 2.0 + effect * rng.normal(size=20)[g] + rng.normal(size=120)
    return {"y": y, "g": g, "w": rng.uniform(0.2, 5.0, 120), "o": rng.normal(size=120)}


# ---------------------------------------------------------------------- the object
def test_draws_are_those_of_refits_to_simulated_responses(sleep, boot):
    assert len(boot) == 400 and boot.draws.shape == (400, 6)
    assert boot.names == (
        "(Intercept)",
        "Days",
        "sd_(Intercept)|Subject",
        "sd_Days|Subject",
        "cor_Days.(Intercept)|Subject",
        "sigma",
    )
    np.testing.assert_allclose(boot.estimates[:2], sleep.beta)
    part = sleep.varcorr.terms[0]
    np.testing.assert_allclose(boot.estimates[2:5], [*part.sds, part.correlations()[1][0]], rtol=1e-12)
    np.testing.assert_allclose(boot.estimates, [q.estimate for q in boot.parameters], rtol=1e-12)
    np.testing.assert_array_equal(boot.sigma, boot["sigma"])
    mean, sd = boot.beta.mean(axis=0), boot.beta.std(axis=0)
    # the truth is known: beta* ~ N(beta, Var(beta)) to first order
    assert (np.abs(mean - sleep.beta) < 4 * sd / np.sqrt(400)).all()
    np.testing.assert_allclose(sd, list(sleep.se.values()), rtol=0.12)


def test_natural_parameters_are_those_of_the_fits(sleep):
    Y = simulate_columns(sleep, np.random.default_rng(0), 3)
    fits = [sleep.refit(y) for y in Y.T]
    values = natural_values(
        sleep.design,
        parameters_of(sleep),
        np.array([f.beta for f in fits]),
        np.array([f.sigma for f in fits]),
        np.array([f.theta for f in fits]),
    )
    for row, fit in zip(values, fits, strict=True):
        part = fit.varcorr.terms[0]
        np.testing.assert_allclose(row, [*fit.beta, *part.sds, part.correlations()[1][0], fit.sigma])
    theta = np.array([f.theta for f in fits])
    assert singular_rows(sleep.design, theta).tolist() == [f.is_singular for f in fits]
    assert singular_rows(sleep.design, np.array([[1.0, 0.5, 0.0], [0.0, 0.0, 1.0]])).tolist() == [True, True]


def test_the_seed_alone_decides(sleep, boot):
    for options in ({"n_jobs": 1}, {"n_jobs": 3}, {"backend": "threading", "n_jobs": 2}):
        if "backend" in options:
            pytest.importorskip("joblib")
        np.testing.assert_array_equal(sleep.bootstrap(400, seed=11, **options).draws, boot.draws)
    assert not np.array_equal(sleep.bootstrap(400, seed=12).draws, boot.draws)
    again = sleep.bootstrap(20)
    np.testing.assert_array_equal(sleep.bootstrap(20, seed=again.entropy).draws, again.draws)
    one = sleep.bootstrap(20, seed=np.random.default_rng(3)).draws
    np.testing.assert_array_equal(one, sleep.bootstrap(20, seed=np.random.default_rng(3)).draws)
    # fewer replicates are the first of more
    np.testing.assert_array_equal(sleep.bootstrap(73, seed=11).draws, boot.draws[:73])


@pytest.mark.parametrize("kind", ["parametric", "residual", "cluster"])
def test_resumed_runs_are_uninterrupted_runs(sleep, kind, tmp_path):
    whole = sleep.bootstrap(120, seed=5, kind=kind)
    part = sleep.bootstrap(63, seed=5, kind=kind)
    part.save(tmp_path / "draws.npz")
    resumed = sleep.bootstrap(120, kind=kind, resume=tmp_path / "draws.npz")
    np.testing.assert_array_equal(resumed.draws, whole.draws)
    np.testing.assert_array_equal(resumed.se, whole.se)
    np.testing.assert_array_equal(part.extend(57).draws, whole.draws)
    assert len(sleep.bootstrap(50, kind=kind, resume=part)) == 63


def test_a_custom_simulator_is_resumed_too(sleep):
    def simulator(fit, rng):
        return fit.fitted() + fit.sigma * rng.standard_t(5, size=fit.nobs)

    whole = sleep.bootstrap(70, seed=5, simulator=simulator)
    np.testing.assert_array_equal(
        sleep.bootstrap(55, seed=5, simulator=simulator).extend(15).draws, whole.draws
    )
    np.testing.assert_array_equal(
        sleep.bootstrap(70, seed=5, simulator=simulator, n_jobs=1).draws, whole.draws
    )


def test_only_the_same_run_is_resumed(sleep, boot):
    with pytest.raises(mm.OptionError, match="seed"):
        sleep.bootstrap(500, seed=1, resume=boot)
    with pytest.raises(mm.OptionError, match="kind"):
        sleep.bootstrap(500, seed=11, kind="residual", resume=boot)
    with pytest.raises(mm.OptionError, match="new_effects"):
        sleep.bootstrap(500, seed=11, new_effects=False, resume=boot)
    with pytest.raises(mm.OptionError, match="fit"):
        sleep.update(reml=True).bootstrap(500, resume=boot)
    with pytest.raises(mm.OptionError, match="statistic"):
        sleep.bootstrap(500, resume=boot, statistic=lambda fit: fit.sigma)


def test_files(sleep, boot, tmp_path):
    path = tmp_path / "b.npz"
    boot.save(path)
    back = Bootstrap.load(path)
    np.testing.assert_array_equal(back.draws, boot.draws)
    assert back.parameters == boot.parameters and back.notes == boot.notes
    np.testing.assert_array_equal(back.confint("basic")["conf_low"], boot.confint("basic")["conf_low"])
    with pytest.raises(mm.OptionError, match="fit="):
        back.confint("bca")
    with_fit = Bootstrap.load(path, fit=sleep)
    assert isinstance(with_fit.to_frame(), pd.DataFrame)
    (tmp_path / "text.npz").write_text("no draws")
    with pytest.raises(mm.DataError, match="no bootstrap draws"):
        Bootstrap.load(tmp_path / "text.npz")
    with pytest.raises(mm.DataError, match="no file"):
        Bootstrap.load(tmp_path / "absent.npz")
    np.savez(tmp_path / "old.npz", meta=json.dumps({"format": 0}), **dict.fromkeys(_arrays(), 0))
    with pytest.raises(mm.DataError, match="another version"):
        Bootstrap.load(tmp_path / "old.npz")


def _arrays():
    return ("estimates", "fit_se", "draws", "se", "theta", "criterion", "converged", "singular")


def test_frames_and_tables(sleep, boot):
    wide, long = boot.to_frame(), boot.to_frame(long=True)
    assert list(wide.columns) == ["replicate", *boot.names] and len(wide) == 400
    assert len(long) == 2400 and set(long["term"]) == set(boot.names)
    np.testing.assert_array_equal(long.loc[long.term == "Days", "value"], wide["Days"])
    assert set(long.loc[long.group.isna(), "term"]) == {"(Intercept)", "Days"}
    table = boot.summary()
    assert table.row("Days")["bias"] == pytest.approx(wide["Days"].mean() - sleep.fixef["Days"])
    assert table.row("Days")["sd"] == pytest.approx(wide["Days"].std())
    assert "seed 11" in str(boot) and "singular" in str(boot)
    assert "<table" in boot.to_html()
    np.testing.assert_array_equal(boot["Days"], wide["Days"])
    with pytest.raises(mm.OptionError, match="no parameter"):
        boot["Weeks"]
    with pytest.raises(mm.OptionError, match="'sd' means several parameters"):
        boot["sd"]
    with pytest.raises(ValueError, match="read-only"):
        boot.draws[0, 0] = 1.0


def test_arviz(boot, monkeypatch):
    pytest.importorskip("arviz")
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = boot.to_arviz()
    assert data.posterior["Days"].shape == (1, 400)
    monkeypatch.setitem(sys.modules, "arviz", None)
    with pytest.raises(mm.OptionError, match="arviz"):
        boot.to_arviz()


# ---------------------------------------------------------------------- what is drawn from
def test_simulated_moments_with_weights_and_offset():
    fit = mm.lmm("y ~ 1 + (1 | g)", weighted(), weights="w", offset="o")
    design, N = fit.design, 20000
    Y = simulate_columns(fit, np.random.default_rng(1), N)
    mean = fit.beta[0] + design.offset
    var_b = fit.varcorr.terms[0].variances[0]
    variance = var_b + fit.sigma**2 / design.weights
    z = (Y.mean(axis=1) - mean) / np.sqrt(variance / N)
    assert np.abs(z).max() < 4.5
    ratio = Y.var(axis=1) / variance
    assert np.abs(ratio - 1).max() < 5 * np.sqrt(2 / N)
    # rows of one level share its effect, rows of two levels nothing
    covariance = np.cov(Y[[0, 1, 6]])
    assert covariance[0, 1] == pytest.approx(var_b, abs=5 * variance.max() / np.sqrt(N))
    assert covariance[0, 2] == pytest.approx(0.0, abs=5 * variance.max() / np.sqrt(N))


def test_effects_can_be_kept(sleep):
    N = 4000
    Y = simulate_columns(sleep, np.random.default_rng(1), N, new_effects=False)
    z = (Y.mean(axis=1) - sleep.fitted()) / (sleep.sigma / np.sqrt(N))
    assert np.abs(z).max() < 4.5
    np.testing.assert_allclose(Y.std(axis=1), sleep.sigma, rtol=0.06)
    held = sleep.bootstrap(100, seed=1, new_effects=False)
    assert held.beta.std(axis=0)[1] < 0.6 * sleep.se["Days"]
    assert any("conditional modes" in note for note in held.notes)


def test_effects_of_some_groups_can_be_kept():
    fit = mm.lmm("diameter ~ 1 + (1 | plate) + (1 | sample)", mm.load_dataset("Penicillin", backend="dict"))
    boot = fit.bootstrap(60, seed=1, new_effects=["plate"])
    assert any("except those of plate" in note for note in boot.notes)
    # the effects of the six samples, which dominate the mean, stay
    assert boot["(Intercept)"].std() < 0.4 * fit.se["(Intercept)"]
    with pytest.raises(mm.OptionError, match="bottle"):
        fit.bootstrap(5, seed=1, new_effects=["bottle"])


def test_singular_fits_are_simulated_from():
    """An earlier package needed a positive definite covariance matrix here."""
    fit = mm.lmm("Yield ~ 1 + (1 | Batch)", mm.load_dataset("Dyestuff2", backend="dict"))
    assert fit.is_singular
    boot = fit.bootstrap(300, seed=1)
    assert boot.failures == () and boot.converged.all()
    # without variance between batches about half of the estimates are zero
    assert 0.4 < boot.singular.mean() < 0.75
    assert any("singular" in note for note in boot.notes)
    assert 0.0 in boot["sd_(Intercept)|Batch"]


def test_residual_pool_has_the_estimated_variances(sleep):
    pool = residual_pool(sleep)
    b = pool.effects[0]
    np.testing.assert_allclose(b.mean(axis=0), 0.0, atol=1e-10)
    np.testing.assert_allclose(b.T @ b / 18, sleep.varcorr.terms[0].covariance, rtol=1e-8)
    assert np.mean(pool.noise**2) == pytest.approx(sleep.sigma**2)
    assert pool.noise.mean() == pytest.approx(0.0, abs=1e-10)
    Y = pool.rows(sleep.design, np.random.default_rng(1), 3000)
    V = sleep.varcorr.terms[0].covariance
    Z = sleep.design.terms[0].Z[:10]
    expected = Z @ V @ Z.T + sleep.sigma**2 * np.eye(10)
    np.testing.assert_allclose(np.cov(Y[:, :10].T), expected, atol=0.12 * expected.max())


def test_residual_pool_of_weighted_and_singular_fits():
    fit = mm.lmm("y ~ 1 + (1 | g)", weighted(), weights="w", offset="o")
    pool = residual_pool(fit)
    assert np.mean(pool.noise**2) == pytest.approx(fit.sigma**2)
    Y = pool.rows(fit.design, np.random.default_rng(1), 20000)
    variance = fit.varcorr.terms[0].variances[0] + fit.sigma**2 / fit.design.weights
    np.testing.assert_allclose(Y.var(axis=0), variance, rtol=0.1)
    singular = mm.lmm("Yield ~ 1 + (1 | Batch)", mm.load_dataset("Dyestuff2", backend="dict"))
    assert not residual_pool(singular).effects[0].any()


def test_cluster_design_of_all_levels_once_is_the_design(sleep):
    design = sleep.design
    term = design.terms[0]
    new, rows = cluster_design(design, term, np.arange(term.m))
    order = np.argsort(term.codes, kind="stable")
    np.testing.assert_array_equal(rows, order)
    np.testing.assert_array_equal(new.y, design.y[order])
    np.testing.assert_array_equal(new.terms[0].codes, term.codes[order])


def test_a_cluster_drawn_twice_becomes_two(sleep):
    design, term = sleep.design, sleep.design.terms[0]
    new, _ = cluster_design(design, term, np.array([3, 3, 5]))
    assert new.terms[0].m == 3 and new.n == 30
    np.testing.assert_array_equal(new.y[:10], new.y[10:20])
    assert np.unique(new.terms[0].codes[:20]).size == 2


def test_nested_levels_are_doubled_and_crossed_ones_are_not():
    nested = random_design(1, "nested")
    outer = next(t for t in nested.terms if t.group == default_cluster(nested))
    inner = next(t for t in nested.terms if t is not outer)
    new, _ = cluster_design(nested, outer, np.array([0, 0]))
    own = np.unique(inner.codes[outer.codes == 0]).size
    assert {t.group: t.m for t in new.terms} == {outer.group: 2, inner.group: 2 * own}
    crossed = random_design(1, "two_crossed")
    g, h = crossed.terms
    new, _ = cluster_design(crossed, g, np.array([0, 0]))
    assert new.terms[0].m == 2
    assert new.terms[1].m == np.unique(h.codes[g.codes == 0]).size


def test_cluster_bootstrap_of_an_intercept_is_the_bootstrap_of_level_means():
    rng = np.random.default_rng(2)
    g = np.repeat(np.arange(30), 4)
    y = 5.0 + 2.0 * rng.normal(size=30)[g] + rng.normal(size=120)
    fit = mm.lmm("y ~ 1 + (1 | g)", {"y": y, "g": g})
    boot = fit.bootstrap(200, seed=3, kind="cluster")
    levels = []
    from mixedmodels.inference.bootstrap.parallel import chunk_stream

    size = chunk_size(120)
    for c in range((200 + size - 1) // size):
        levels.append(chunk_stream(3, c).integers(30, size=(size, 30)))
    means = y.reshape(30, 4).mean(axis=1)[np.concatenate(levels)[:200]].mean(axis=1)
    np.testing.assert_allclose(boot["(Intercept)"], means, rtol=1e-8)


def test_crossed_clusters_must_be_named():
    fit = mm.lmm("diameter ~ 1 + (1 | plate) + (1 | sample)", mm.load_dataset("Penicillin", backend="dict"))
    with pytest.raises(mm.OptionError, match="crossed"):
        fit.bootstrap(5, seed=1, kind="cluster")
    boot = fit.bootstrap(5, seed=1, kind="cluster", groups="plate")
    assert boot.settings["groups"] == "plate" and np.isfinite(boot.draws).all()
    with pytest.raises(mm.OptionError, match=r"'bottle'.*plate, sample"):
        fit.bootstrap(5, kind="cluster", groups="bottle")


# ---------------------------------------------------------------------- statistics, simulators, failures
def test_statistics_of_every_shape(sleep):
    def both(fit):
        return {"ratio": fit.sigma / fit.varcorr.terms[0].sds[0], "days": fit.fixef["Days"]}

    boot = sleep.bootstrap(12, seed=1, statistic=both)
    assert boot.names[-2:] == ("ratio", "days")
    np.testing.assert_array_equal(boot["days"], boot["Days"])
    np.testing.assert_allclose(boot["ratio"], boot["sigma"] / boot["sd_(Intercept)|Subject"])
    # the native refits agree with full fits
    np.testing.assert_allclose(boot["Days"], sleep.bootstrap(12, seed=1)["Days"], rtol=1e-9)
    assert sleep.bootstrap(2, seed=1, statistic=lambda fit: fit.sigma).names[-1] == "statistic"
    array = sleep.bootstrap(2, seed=1, statistic=lambda fit: np.outer(fit.beta, [1, 2]))
    assert array.names[-4:] == tuple(f"statistic[{i},{j}]" for i in (0, 1) for j in (0, 1))
    assert boot.confint("basic", parameters="ratio").columns["conf_low"].shape == (1,)


def test_a_statistic_must_keep_its_shape(sleep):
    with pytest.raises(mm.OptionError, match="same values every time"):
        sleep.bootstrap(3, seed=1, statistic=lambda fit: fit.beta[: 2 if fit is sleep else 1])
    with pytest.raises(mm.OptionError, match="dict of numbers"):
        sleep.bootstrap(3, seed=1, statistic=lambda fit: "large")
    with pytest.raises(ZeroDivisionError):
        sleep.bootstrap(3, seed=1, statistic=lambda fit: 1 / 0)


def test_failures_are_counted_and_shown(sleep):
    def simulator(fit, rng):
        y = fit.simulate(1, seed=rng)[:, 0]
        if rng.random() < 0.3:
            y[0] = np.nan
        return y

    boot = sleep.bootstrap(40, seed=1, simulator=simulator)
    assert 3 < len(boot.failures) < 25 and len(boot) == 40
    assert np.isnan(boot.draws).all(axis=1).sum() == len(boot.failures)
    assert f"{len(boot.failures)} of 40 failed" in str(boot)
    assert "missing or infinite" in str(boot.confint())
    assert boot.summary().row("Days")["n"] == 40 - len(boot.failures)
    assert np.isfinite(boot.confint("percentile")["conf_low"]).all()

    def fussy(fit):
        if fit is not sleep and fit.sigma > 25.0:
            raise mm.SolverError("too rough")
        return fit.sigma

    boot = sleep.bootstrap(20, seed=1, statistic=fussy)
    assert 0 < len(boot.failures) < 20 and boot.failures[0][1] == "too rough"


def test_an_interrupted_run_keeps_what_is_done(sleep):
    seen = []

    def stop(done, total):
        seen.append(done)
        if len(seen) == 2:
            raise KeyboardInterrupt

    whole = sleep.bootstrap(400, seed=7)
    for n_jobs in (1, 2):
        seen.clear()
        part = sleep.bootstrap(400, seed=7, progress=stop, n_jobs=n_jobs)
        assert 100 <= len(part) <= 400 and part.interrupted == (len(part) < 400)  # threads may have done more
        if n_jobs == 1:
            assert len(part) == 100
        assert any("interrupted after" in note for note in part.notes) == part.interrupted
        np.testing.assert_array_equal(part.draws, whole.draws[: len(part)])
        assert not sleep.bootstrap(400, resume=part).interrupted
        np.testing.assert_array_equal(sleep.bootstrap(400, resume=part).draws, whole.draws)


def test_other_covariance_structures():
    data = mm.load_dataset("sleepstudy", backend="dict")
    fit = mm.lmm("Reaction ~ Days + (Days || Subject)", data)
    boot = fit.bootstrap(30, seed=1)
    assert not any("cor__" in name for name in boot.names)
    assert np.isfinite(boot.draws).all()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"n": 0}, "n must be a positive"),
        ({"n": 2.5}, "n must be a positive"),
        ({"kind": "wild"}, "parametric, residual, cluster"),
        ({"seed": -1}, "seed"),
        ({"seed": "abc"}, "seed"),
        ({"groups": "Subject"}, "kind='cluster'"),
        ({"kind": "cluster", "groups": "Day"}, "Subject"),
        ({"kind": "residual", "simulator": lambda fit, rng: None}, "simulator"),
        ({"statistic": 3}, "statistic"),
        ({"simulator": lambda fit, rng: np.zeros(3)}, "180"),
        ({"n_jobs": 0}, "n_jobs"),
        ({"backend": "no-such-backend"}, "no-such-backend"),
        ({"progress": "often"}, "progress"),
    ],
)
def test_wrong_options(sleep, options, words):
    if "backend" in options:
        pytest.importorskip("joblib")
    with pytest.raises(mm.OptionError, match=words):
        sleep.bootstrap(**{"n": 5, "seed": 1, **options})


def test_known_precisions_cannot_be_exchanged(sleep):
    term = replace(sleep.design.terms[0], precision=Precision(sparse.eye_array(18, format="csc"), 0.0))

    class Related:
        design = replace(sleep.design, terms=(term,))
        sigma = sleep.sigma
        _solution = sleep._solution
        _factors = sleep._factors

    with pytest.raises(mm.OptionError, match="known precision"):
        residual_pool(Related())


# ---------------------------------------------------------------------- published figures
@pytest.mark.slow
def test_published_shortest_intervals_of_sleepstudy(sleep):
    """10 000 replicates in the documentation of MixedModels.jl: shortest 95 % intervals, 311 with rho = 1.

    Both are samples of 10 000: a difference has sqrt(2) times the standard error of either, which comes from
    resampling the draws.
    """
    boot = sleep.bootstrap(10_000, seed=42)
    published = {
        "(Intercept)": (238.58, 263.89),
        "Days": (7.540, 13.368),
        "sigma": (22.657, 28.431),
        "sd_(Intercept)|Subject": (10.508, 33.219),
        "sd_Days|Subject": (3.025, 7.675),
        "cor_Days.(Intercept)|Subject": (-0.404, 1.0),
    }
    rng = np.random.default_rng(0)
    for row, name in zip(boot.hdi(0.95).rows(), boot.names, strict=True):
        draws = boot[name]
        again = [shortest_interval(draws[rng.integers(10_000, size=10_000)], 0.95) for _ in range(100)]
        bound = 4.5 * np.sqrt(2) * np.std(again, axis=0) + 5e-4
        assert (bound < 0.12 * (row["conf_high"] - row["conf_low"])).all(), name
        limits = np.array([row["conf_low"], row["conf_high"]])
        assert (np.abs(limits - published[name]) < bound).all(), (name, limits, bound)
    at_one = int((boot["cor_Days.(Intercept)|Subject"] > 1 - 1e-6).sum())
    assert abs(at_one - 311) < 4 * np.sqrt(2 * 311)
    assert boot.failures == ()


# ---------------------------------------------------------------------- models without a formula
def test_a_covariance_that_is_a_function_of_theta():
    rng = np.random.default_rng(0)
    g = np.repeat(np.arange(12), 6)
    y, X = rng.normal(size=12)[g] + rng.normal(size=72), np.ones((72, 1))
    model = mm.LinearMixedModel.from_matrices(
        y, X, np.eye(12)[g], covariance=lambda theta: theta[0] * np.eye(12), start=[1.0], lower=[0.0]
    )
    own, usual_fit = model.fit(), mm.lmm("y ~ 1 + (1 | g)", {"y": y, "g": g})
    np.testing.assert_array_equal(own.bootstrap(3, seed=1).extend(3).draws, own.bootstrap(6, seed=1).draws)

    def simulator(fit, rng):
        return fit.design.y + rng.normal(size=72)

    boot = own.bootstrap(6, seed=1, simulator=simulator)
    usual = usual_fit.bootstrap(6, seed=1, simulator=simulator)
    assert boot.names == ("(Intercept)", "theta_theta1", "sigma") and boot.failures == ()
    # the responses are the same, and so are the fits
    np.testing.assert_allclose(boot["(Intercept)"], usual["(Intercept)"], rtol=1e-5)
    np.testing.assert_allclose(boot["sigma"], usual["sigma"], rtol=1e-5)
    with pytest.raises(mm.OptionError, match="no grouping factor"):
        model.fit().bootstrap(6, seed=1, kind="cluster")
    with pytest.raises(mm.OptionError, match="kind='parametric'"):
        model.fit().bootstrap(6, seed=1, kind="residual")


def test_models_from_matrices(sleep):
    design = sleep.design
    term = design.terms[0]
    model = mm.LinearMixedModel.from_matrices(
        design.y,
        design.X,
        [mm.RandomTerm("Subject", ("a", "b"), term.codes, term.levels, term.Z, "us")],
        reml=False,
    )
    fit = model.fit()
    for kind in ("parametric", "residual", "cluster"):
        boot, usual = fit.bootstrap(8, seed=1, kind=kind), sleep.bootstrap(8, seed=1, kind=kind)
        np.testing.assert_allclose(boot.beta, usual.beta, rtol=1e-5)
        assert len(boot.confint("bca")) == len(boot.names)


def test_zero_weights_and_missing_rows():
    data = weighted()
    data["w"][[0, 5]] = 0.0
    data["y"][17] = np.nan
    fit = mm.lmm("y ~ 1 + (1 | g)", data, weights="w", na_action="exclude")
    for kind in ("parametric", "residual", "cluster"):
        boot = fit.bootstrap(10, seed=1, kind=kind, statistic=lambda f: f.nobs)
        assert np.isfinite(boot.draws).all() and boot.failures == ()
    assert (fit.bootstrap(10, seed=1, statistic=lambda f: f.nobs)["statistic"] == 117).all()


def test_a_rank_deficient_cluster_sample_is_a_counted_failure():
    """Two levels of f live in few clusters: samples without one of them cannot be fitted."""
    rng = np.random.default_rng(1)
    g = np.repeat(np.arange(6), 5)
    f = np.where(g < 2, "a", "b")
    y = rng.normal(size=6)[g] + rng.normal(size=30)
    fit = mm.lmm("y ~ f + (1 | g)", {"y": y, "g": g, "f": f})
    boot = fit.bootstrap(100, seed=1, kind="cluster")
    expected = 100 * ((4 / 6) ** 6 + (2 / 6) ** 6)
    assert abs(len(boot.failures) - expected) < 4 * np.sqrt(expected)
    assert "combination" in boot.failures[0][1]
    assert f"{len(boot.failures)} of 100 failed" in str(boot)
