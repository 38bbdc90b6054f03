"""One model fitted to many responses: the compiled loop against fits one by one."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest

import mixedmodels as mm
from mixedmodels.inference.bootstrap.refits import refit_many
from mixedmodels.objective.lmm import LMMObjective
from mixedmodels.optimize import minimize
from mixedmodels.solver.choose import choose_solver
from mixedmodels.solver.responses import response_fitter
from mixedmodels.testing import random_design
from mixedmodels.testing.designs import DESIGN_KINDS

MODELS = {
    "sleepstudy": "Reaction ~ Days + (Days | Subject)",
    "Penicillin": "diameter ~ 1 + (1 | plate) + (1 | sample)",
    "Pastes": "strength ~ 1 + (1 | batch / cask)",
    "Dyestuff2": "Yield ~ 1 + (1 | Batch)",
}


@pytest.fixture(scope="module", params=sorted(MODELS))
def fit(request):
    return mm.lmm(MODELS[request.param], mm.load_dataset(request.param, backend="dict"))


@pytest.fixture(scope="module")
def sleep():
    return mm.lmm(MODELS["sleepstudy"], mm.load_dataset("sleepstudy", backend="dict"))


@pytest.mark.parametrize("reml", [True, False])
def test_many_refits_are_those_of_refit(fit, reml):
    fit = fit if reml else fit.refit_ml()
    Y = fit.simulate(15, seed=3)
    refits = refit_many(fit, Y, n_jobs=1, vcov=True)
    assert refits.failures == () and refits.converged.all()
    for j in range(Y.shape[1]):
        one = fit.refit(Y[:, j])
        assert refits.criterion[j] == pytest.approx(one.criterion, abs=1e-8)
        np.testing.assert_allclose(refits.theta[j], one.theta, atol=1e-5)
        np.testing.assert_allclose(refits.beta[j], one.beta, rtol=1e-7)
        np.testing.assert_allclose(refits.se[j], list(one.se.values()), rtol=1e-4)
        assert refits.sigma[j] == pytest.approx(one.sigma, rel=1e-6)
        np.testing.assert_array_equal(np.sqrt(np.diagonal(refits.vcov[j])), refits.se[j])


@pytest.mark.parametrize("kind", DESIGN_KINDS)
@pytest.mark.parametrize("reml", [True, False])
def test_every_kind_of_design(kind, reml):
    design = random_design(5, kind)
    objective = LMMObjective(design, choose_solver(design), reml)
    optimum = minimize(objective, "newton", None)
    fitter = response_fitter(objective.solver, reml, None)
    if fitter is None:
        pytest.skip("no compiled path for this structure")
    rng = np.random.default_rng(1)
    spread = design.y.std()
    Y = design.y + spread * rng.normal(size=(4, design.n))
    found = fitter.fit(Y, optimum.theta)
    for j, y in enumerate(Y):
        other = replace(design, y=y)
        cold = LMMObjective(other, choose_solver(other), reml)
        best = minimize(cold, "newton", None)
        assert found.criterion[j] <= best.value + 1e-6
        # the criterion, the estimates and their covariance belong to the theta that is returned
        assert found.criterion[j] == pytest.approx(cold.value(found.theta[j]), rel=1e-10, abs=1e-8)
        solution = cold.solution(found.theta[j])
        np.testing.assert_allclose(
            found.beta[j], solution.beta, rtol=1e-7, atol=1e-9 * np.abs(design.y).max()
        )
        assert found.sigma[j] ** 2 * cold.nu == pytest.approx(solution.pwrss, rel=1e-9)
        np.testing.assert_allclose(
            found.vcov[j], found.sigma[j] ** 2 * solution.vcov_unscaled, rtol=1e-7, atol=1e-300
        )


def test_a_fitter_leaves_its_solver_alone(sleep):
    solver = sleep.objective.solver
    before = sleep.objective.value(sleep.theta)
    levels = [factor.ZXy.copy() for factor in solver.pack.factors]
    fitter = response_fitter(solver, True, None)
    fitter.fit(sleep.simulate(3, seed=1).T, sleep.theta)
    assert sleep.objective.value(sleep.theta) == before
    for factor, ZXy in zip(solver.pack.factors, levels, strict=True):
        np.testing.assert_array_equal(factor.ZXy, ZXy)


def test_the_original_response_gives_the_fit_back(fit):
    refits = refit_many(fit, fit.design.y[:, None])
    np.testing.assert_allclose(refits.theta[0], fit.theta, atol=1e-6)
    np.testing.assert_allclose(refits.beta[0], fit.beta, rtol=1e-10)
    assert refits.criterion[0] == pytest.approx(fit.criterion, abs=1e-9)


def test_equivariance_under_shifts_and_scales(sleep):
    y = sleep.simulate(1, seed=2)[:, 0]
    refits = refit_many(sleep, np.column_stack([y, 1000.0 * y, y + 1e6 + 50.0 * sleep.design.X[:, 1]]))
    np.testing.assert_allclose(refits.theta[1:], refits.theta[[0, 0]], atol=1e-5)
    np.testing.assert_allclose(refits.beta[1], 1000.0 * refits.beta[0], rtol=1e-9)
    np.testing.assert_allclose(refits.beta[2], refits.beta[0] + [1e6, 50.0], rtol=1e-9)
    np.testing.assert_allclose(refits.se[2], refits.se[0], rtol=1e-5)


def test_workers_and_backends_do_not_matter(sleep):
    Y = sleep.simulate(120, seed=4)
    one = refit_many(sleep, Y, n_jobs=1)
    for other in (
        refit_many(sleep, Y, n_jobs=2),
        refit_many(sleep, Y, n_jobs=3),
        refit_many(sleep, Y[:, :120], backend="threading", n_jobs=2),
    ):
        for name in ("theta", "beta", "se", "sigma", "criterion", "converged"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_an_active_joblib_backend_is_used(sleep):
    joblib = pytest.importorskip("joblib")
    from joblib.parallel import ThreadingBackend

    calls = []

    class Watched(ThreadingBackend):
        def effective_n_jobs(self, n_jobs):
            calls.append(n_jobs)
            return super().effective_n_jobs(n_jobs)

    joblib.register_parallel_backend("watched", Watched)
    Y = sleep.simulate(60, seed=4)
    with joblib.parallel_config("watched", n_jobs=2):
        found = refit_many(sleep, Y)
    assert calls
    np.testing.assert_array_equal(found.theta, refit_many(sleep, Y).theta)


def test_other_processes(sleep):
    pytest.importorskip("joblib")
    Y = sleep.simulate(60, seed=4)
    found = refit_many(sleep, Y, n_jobs=2, backend="loky")
    np.testing.assert_array_equal(found.theta, refit_many(sleep, Y).theta)


def test_joblib_is_not_needed(sleep, monkeypatch):
    monkeypatch.setitem(sys.modules, "joblib", None)
    monkeypatch.delitem(sys.modules, "joblib.parallel", raising=False)
    assert len(refit_many(sleep, sleep.simulate(3, seed=1))) == 3
    with pytest.raises(mm.OptionError, match="joblib"):
        refit_many(sleep, sleep.simulate(3, seed=1), backend="loky")


def test_failures_keep_their_place(sleep):
    Y = sleep.simulate(5, seed=1)
    Y[3, 1] = np.nan
    Y[:, 3] = sleep.design.X @ [3.0, 2.0]
    refits = refit_many(sleep, Y)
    assert [j for j, _ in refits.failures] == [1, 3]
    assert "perfect" in refits.failures[1][1]
    assert np.isnan(refits.beta[[1, 3]]).all() and np.isfinite(refits.beta[[0, 2, 4]]).all()
    assert refits.converged.tolist() == [True, False, True, False, True]


def test_sigma_held_fixed():
    data = mm.load_dataset("sleepstudy", backend="dict")
    fit = mm.lmm(MODELS["sleepstudy"], data, sigma=20.0)
    Y = fit.simulate(4, seed=1)
    refits = refit_many(fit, Y)
    for j in range(4):
        one = fit.refit(Y[:, j])
        assert refits.sigma[j] == 20.0
        assert refits.criterion[j] == pytest.approx(one.criterion, abs=1e-7)
        np.testing.assert_allclose(refits.se[j], list(one.se.values()), rtol=1e-4)


def test_weights_and_offset():
    rng = np.random.default_rng(0)
    g = np.repeat(np.arange(15), 6)
    data = {
        "y": rng.normal(size=90) + rng.normal(size=15)[g],
        "x": rng.normal(size=90),
        "g": g,
        "w": rng.uniform(0.5, 4.0, 90),
        "o": rng.normal(size=90),
    }
    fit = mm.lmm("y ~ x + (x | g)", data, weights="w", offset="o")
    Y = fit.simulate(5, seed=1)
    refits = refit_many(fit, Y)
    for j in range(5):
        one = fit.refit(Y[:, j])
        assert refits.criterion[j] == pytest.approx(one.criterion, abs=1e-8)
        np.testing.assert_allclose(refits.beta[j], one.beta, atol=1e-6)


@pytest.mark.parametrize("n_jobs", [0, -2, 1.5, "two", True])
def test_a_wrong_number_of_workers(sleep, n_jobs):
    with pytest.raises(mm.OptionError, match="n_jobs"):
        refit_many(sleep, sleep.simulate(2, seed=1), n_jobs=n_jobs)


def test_wrong_shapes_and_progress(sleep):
    with pytest.raises(mm.OptionError, match="180"):
        refit_many(sleep, np.zeros((7, 2)))
    with pytest.raises(mm.OptionError, match="progress"):
        refit_many(sleep, sleep.simulate(2, seed=1), progress="sometimes")
    assert len(refit_many(sleep, np.empty((180, 0)))) == 0


def test_progress_counts_replicates(sleep, capsys):
    seen = []
    refit_many(sleep, sleep.simulate(120, seed=1), progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (120, 120) and [done for done, _ in seen] == sorted(done for done, _ in seen)
    refit_many(sleep, sleep.simulate(10, seed=1), progress=True)
    assert "10/10" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGALRM")
def test_a_signal_ends_a_long_compiled_fit():
    """The loop looks at pending signals ten times a second; Ctrl-C must not become a failed replicate."""
    import signal

    rng = np.random.default_rng(0)
    g = rng.integers(0, 400_000, 1_000_000)
    y = rng.normal(size=400_000)[g] + rng.normal(size=1_000_000)
    fit = mm.lmm("y ~ 1 + (1 | g)", {"y": y, "g": g})
    Y = np.repeat(y[:, None] + rng.normal(size=(1_000_000, 1)), 6, axis=1)

    def stop(number, frame):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, stop)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with pytest.raises(KeyboardInterrupt):
            for _ in range(100):
                refit_many(fit, Y, n_jobs=1)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)
