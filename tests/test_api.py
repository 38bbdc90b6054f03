"""The public names."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

import mixedmodels as mm

FORMULA = "Reaction ~ Days + (Days | Subject)"


@pytest.fixture(scope="module")
def sleepstudy():
    return mm.load_dataset("sleepstudy", backend="pandas")


def python(code):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()


def test_import_is_light():
    code = (
        "import sys, mixedmodels\n"
        "print([name for name in ('scipy', 'numpy', 'narwhals', 'pandas', 'polars') if name in sys.modules])"
    )
    assert python(code) == "[]"


def test_a_fit_needs_no_data_frame_library():
    code = (
        "import sys\n"
        "for name in ('pandas', 'polars', 'pyarrow'): sys.modules[name] = None\n"
        "import mixedmodels as mm, numpy as np\n"
        "rng = np.random.default_rng(1); g = np.repeat(np.arange(8), 5)\n"
        "fit = mm.lmm('y ~ 1 + (1 | g)', {'y': rng.standard_normal(40) + g, 'g': g})\n"
        "str(fit); fit.tidy(); fit.ranef(); print(fit.nobs)"
    )
    assert python(code) == "40"


def test_every_public_name_exists():
    for name in mm.__all__:
        assert getattr(mm, name) is not None
        assert name in dir(mm)
    assert isinstance(mm.__version__, str)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = mm.nothing


def test_star_import():
    names = {}
    exec("from mixedmodels import *", names)
    assert set(mm.__all__) <= names.keys()


def test_formula_may_be_text_or_formula_or_lists(sleepstudy):
    from mixedmodels.formula import parse

    text = mm.lmm(FORMULA, sleepstudy)
    parsed = mm.lmm(parse(FORMULA), sleepstudy)
    lists = mm.lmm(
        mm.formula_from_lists("Reaction", ["intercept", "Days"], [["intercept", "Days"]], ["Subject"]),
        sleepstudy,
    )
    assert text.criterion == parsed.criterion == lists.criterion
    with pytest.raises(mm.OptionError, match="formula"):
        mm.lmm(3, sleepstudy)
    with pytest.raises(mm.DataError, match="no data"):
        mm.lmm(FORMULA, None)


def test_all_libraries_give_the_same_fit(sleepstudy):
    expected = mm.lmm(FORMULA, sleepstudy).criterion
    for backend in ("polars", "pyarrow"):
        assert mm.lmm(FORMULA, mm.load_dataset("sleepstudy", backend=backend)).criterion == pytest.approx(
            expected, abs=1e-9
        )


# ---------------------------------------------------------------- the unfitted model


@pytest.mark.parametrize("reml", [True, False])
def test_unfitted_model(sleepstudy, reml):
    model = mm.LinearMixedModel(FORMULA, sleepstudy, reml=reml)
    fit = model.fit()
    assert fit.criterion == pytest.approx(mm.lmm(FORMULA, sleepstudy, reml=reml).criterion, abs=1e-9)
    assert model.objective(fit.theta) == pytest.approx(fit.criterion, abs=1e-9)
    assert np.abs(model.gradient(fit.theta)).max() < 1e-3
    assert len(model.theta_names) == len(model.start) == len(model.bounds) == 3
    assert (model.lower == [0, -np.inf, 0]).all() and (model.upper == np.inf).all()
    observed = model.information(fit.theta, kind="observed")
    assert (np.linalg.eigvalsh(observed) > 0).all()
    step = 1e-5
    for j in range(3):
        moved = [model.objective(fit.theta + s * step * np.eye(3)[j] + 0.1) for s in (1, -1)]
        assert model.gradient(fit.theta + 0.1)[j] == pytest.approx(
            (moved[0] - moved[1]) / (2 * step), rel=1e-5
        )
    assert "not fitted" in repr(model)
    assert model.fit(reml=not reml).is_reml is not reml


def test_score_and_loglik_at_variances(sleepstudy):
    model = mm.LinearMixedModel("Reaction ~ Days + (1 | Subject)", sleepstudy, reml=False)
    fit = model.fit()
    best = {"Subject": fit.varcorr["Subject"].variances[0], "Residual": fit.sigma**2}
    assert model.loglik_at(best) == pytest.approx(fit.loglik, abs=1e-8)
    assert np.abs(model.score_at(best)).max() < 1e-6
    other = {"Subject": 900.0, "Residual": 1200.0}
    score = model.score_at(other)
    for j, name in enumerate(("Subject", "Residual")):
        up, down = dict(other), dict(other)
        up[name] += 0.1
        down[name] -= 0.1
        assert score[j] == pytest.approx((model.loglik_at(up) - model.loglik_at(down)) / 0.2, rel=1e-5)


def test_model_refuses_unknown_options(sleepstudy):
    with pytest.raises(mm.OptionError, match="famliy"):
        mm.LinearMixedModel(FORMULA, sleepstudy, famliy="gaussian")
    model = mm.LinearMixedModel(FORMULA, sleepstudy)
    with pytest.raises(mm.OptionError, match="weights"):
        model.fit(weights="w")
    with pytest.raises(mm.OptionError, match="theta has 2 values"):
        model.objective([1.0, 2.0])
    with pytest.raises(mm.OptionError, match="kind"):
        model.information(model.start, kind="fisher")


# ---------------------------------------------------------------- from matrices


def matrices(data):
    X = np.column_stack([np.ones(180), data["Days"]])
    codes = data["Subject"].to_numpy().astype(str)
    return data["Reaction"].to_numpy(), X, codes


def test_from_matrices_equals_the_formula(sleepstudy):
    y, X, subject = matrices(sleepstudy)
    term = mm.RandomTerm("Subject", ("(Intercept)", "Days"), subject, None, X, "us")
    model = mm.LinearMixedModel.from_matrices(y, X, [term], names=["(Intercept)", "Days"])
    fit, expected = model.fit(), mm.lmm(FORMULA, sleepstudy)
    assert fit.criterion == pytest.approx(expected.criterion, abs=1e-9)
    assert fit.fixef == pytest.approx(expected.fixef)
    assert fit.ranef()["estimate"] == pytest.approx(expected.ranef()["estimate"].to_numpy(), rel=1e-6)
    assert fit.formula is None and "Formula" not in str(fit)
    with pytest.raises(mm.OptionError, match="matrices"):
        fit.predict({"Days": [1.0]})
    with pytest.raises(mm.OptionError, match="no formula"):
        fit.update(". ~ . + x")
    assert fit.refit(2 * y).sigma == pytest.approx(2 * fit.sigma, rel=1e-6)
    assert fit.refit_ml().deviance == pytest.approx(1751.93934446, abs=1e-6)


def test_from_matrices_does_not_keep_the_callers_arrays(sleepstudy):
    y, X, subject = matrices(sleepstudy)
    y = y.copy()
    term = mm.RandomTerm("Subject", (), subject, None, None, "us")
    fit = mm.LinearMixedModel.from_matrices(y, X, [term]).fit()
    before = fit.fitted()
    y[:] = 0.0
    X[:] = 0.0
    assert np.array_equal(fit.fitted(), before)
    assert fit.residuals().std() > 1.0
    assert fit.design.x_names == ("(Intercept)", "x2")


@pytest.mark.parametrize("sparse", [False, True])
def test_covariance_as_a_function(sleepstudy, sparse, tmp_path):
    # one variance for the intercepts of all subjects: the same model as (1 | Subject)
    y, X, subject = matrices(sleepstudy)
    Z = (subject[:, None] == np.unique(subject)).astype(float)
    if sparse:
        from scipy.sparse import csr_array

        Z = csr_array(Z)
    model = mm.LinearMixedModel.from_matrices(
        y, X, Z, covariance=lambda theta: theta[0] * np.eye(18), start=[1.0], lower=[0.0]
    )
    assert "q = 18" in repr(model) and model.start.tolist() == [1.0] and model.theta_names == ("theta1",)
    fit, expected = model.fit(), mm.lmm("Reaction ~ Days + (1 | Subject)", sleepstudy)
    assert model.objective(expected.theta) == pytest.approx(expected.criterion, abs=1e-9)
    assert fit.criterion == pytest.approx(expected.criterion, abs=1e-7)
    assert fit.beta == pytest.approx(expected.beta, rel=1e-6)
    assert fit.sigma == pytest.approx(expected.sigma, rel=1e-5)
    assert fit.deviance == pytest.approx(expected.deviance, abs=1e-4)
    assert fit.df_model == expected.df_model
    assert np.allclose(fit.fitted(), expected.fitted(), atol=1e-2)
    assert np.allclose(fit.fitted("population"), expected.fitted("population"), atol=1e-6)
    mine, other = fit.ranef(condvar=True), expected.ranef(condvar=True)
    assert mine["estimate"] == pytest.approx(other["estimate"].to_numpy(), abs=1e-2)
    assert mine["sd"] == pytest.approx(other["sd"].to_numpy(), rel=1e-4)
    assert any("theta1 = " in note for note in fit.messages)
    assert fit.solver.describe() == model.solver.describe()
    assert fit.refit_ml().criterion == pytest.approx(expected.refit_ml().criterion, abs=1e-7)
    with pytest.raises(mm.NotImplementedYetError, match="function"):
        fit.save(tmp_path / "fit.mm")
    with pytest.raises(mm.OptionError, match="no variance components"):
        model.loglik_at({"Residual": 1.0})
    with pytest.raises(mm.OptionError, match="per level"):
        fit.coef()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"y": [1.0, np.nan]}, "y holds missing"),
        ({"y": "text"}, "y must hold numbers"),
        ({"X": np.ones((3, 1))}, "X has shape"),
        ({"weights": np.zeros(180)}, "weights must be positive"),
        ({"offset": np.zeros(3)}, "offset has 3 values"),
        ({"names": ["a"]}, "names has 1 entries"),
        ({"names": ["a", "a"]}, "all different"),
        ({"terms": ["Subject"]}, "RandomTerm"),
        ({"lower": [0.0]}, "lower, upper and jacobian"),
        ({"family": "gaussian"}, "family"),
        ({"terms": np.ones((180, 2)), "covariance": np.eye}, "start"),
    ],
)
def test_wrong_matrices(sleepstudy, change, text):
    y, X, subject = matrices(sleepstudy)
    arguments = {"y": y, "X": X, "terms": [mm.RandomTerm("Subject", (), subject, None, None, "us")]} | change
    with pytest.raises(mm.MixedModelsError, match=text):
        mm.LinearMixedModel.from_matrices(**arguments)


def test_wrong_terms(sleepstudy):
    y, X, subject = matrices(sleepstudy)

    def build(term):
        return mm.LinearMixedModel.from_matrices(y, X, [term])

    with pytest.raises(mm.DataError, match="whole numbers"):
        build(mm.RandomTerm("g", (), subject, ("a", "b"), None, "us"))
    with pytest.raises(mm.DataError, match="shape"):
        build(mm.RandomTerm("g", (), subject[:3], None, None, "us"))
    with pytest.raises(mm.DataError, match="2 names for 1 column"):
        build(mm.RandomTerm("g", ("a", "b"), subject, None, None, "us"))
    with pytest.raises(mm.OptionError, match="structure"):
        build(mm.RandomTerm("g", (), subject, None, None, "magic"))
