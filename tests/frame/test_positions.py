"""Positions on the left of a bar: times with gaps, factors with unused levels, coordinates."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import mixedmodels as mm
from mixedmodels.errors import DataError, FormulaError, IdentifiabilityError, NewLevelError
from mixedmodels.frame import build


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(5)
    g = np.repeat([f"g{i:02d}" for i in range(20)], 8)
    t = np.tile([0, 1, 2, 4, 0, 1, 2, 4], 20)
    effect = np.zeros((20, 5))
    for j in range(5):
        effect[:, j] = 0.7 * effect[:, max(j - 1, 0)] + rng.normal(size=20)
    y = effect[np.repeat(np.arange(20), 8), t] + 0.5 * rng.normal(size=160)
    f = pd.Categorical(t.astype(str), categories=["0", "1", "2", "3", "4"])
    return pd.DataFrame({"y": y, "g": g, "t": t, "f": f, "real": t / 2.0 + 0.25, "x": rng.normal(size=160)})


def test_unused_levels_of_a_factor_keep_their_distance(data):
    by_factor = mm.lmm("y ~ 1 + ar1(0 + f | g)", data)
    by_number = mm.lmm("y ~ 1 + ar1(0 + t | g)", data)
    assert by_factor.design.terms[0].names == ("f0", "f1", "f2", "f3", "f4")
    assert by_number.design.terms[0].names == ("t0", "t1", "t2", "t4")
    assert by_number.loglik == pytest.approx(by_factor.loglik, rel=1e-10)
    squeezed = mm.lmm("y ~ 1 + ar1(0 + factor(f) | g)", data)  # factor() drops the level, as in R
    assert abs(squeezed.loglik - by_factor.loglik) > 1e-3


def test_an_intercept_is_left_out_with_a_note(data):
    frame = build("y ~ 1 + ar1(t | g)", data)
    assert frame.design.terms[0].names == ("t0", "t1", "t2", "t4")
    assert any("intercept is left out" in note for note in frame.messages)


def test_times_that_are_not_whole_are_fitted_in_continuous_time(data):
    frame = build("y ~ 1 + ar1(0 + real | g)", data)
    assert frame.design.terms[0].covariance.name == "car1"
    assert any("not whole numbers" in note for note in frame.messages)
    a, b = (mm.lmm(f"y ~ 1 + {tag}(0 + real | g)", data) for tag in ("car1", "ou"))
    assert a.loglik == pytest.approx(b.loglik, rel=1e-10)
    whole = mm.lmm("y ~ 1 + ar1(0 + t | g)", data)  # the same model as long as rho > 0
    assert a.loglik == pytest.approx(whole.loglik, rel=1e-9)


def test_exponential_decay_in_one_dimension_is_the_same_process(data):
    a = mm.lmm("y ~ 1 + exp(real | g)", data)
    b = mm.lmm("y ~ 1 + car1(real | g)", data)
    assert a.loglik == pytest.approx(b.loglik, rel=1e-9)
    assert a.sigma == pytest.approx(b.sigma, rel=1e-4)


def test_coordinates_may_be_written_in_two_ways(data):
    one = build("y ~ 1 + gau(real + t | g)", data).design.terms[0]
    two = build("y ~ 1 + gau(numFactor(real, t) + 0 | g)", data).design.terms[0]
    assert one.covariance == two.covariance
    assert np.array_equal(one.Z, two.Z)
    assert one.names[0].endswith("(0.25,0)")


def test_labels_of_a_factor_may_be_coordinates(data):
    labels = "(" + data["real"].astype(str) + "," + data["t"].astype(str) + ")"
    frame = build("y ~ 1 + exp(0 + pos | g)", data.assign(pos=labels))
    assert frame.design.terms[0].covariance.correlation.coordinates.shape == (4, 2)


def test_predictions_find_their_position(data):
    fit = mm.lmm("y ~ x + ar1(0 + t | g)", data)
    assert np.allclose(fit.predict(data.iloc[[5, 2]]), np.asarray(fit.fitted())[[5, 2]])


@pytest.mark.parametrize(
    ("formula", "error", "message"),
    [
        ("y ~ 1 + ar1(t:x | g)", FormulaError, "takes positions"),
        ("y ~ 1 + ar1(1 | g)", FormulaError, "takes positions"),
        ("y ~ 1 + hetar1(0 + real | g)", DataError, "not whole numbers; use car1"),
        ("y ~ 1 + car1(t + x | g)", DataError, "one time, not 2 coordinates"),
        ("y ~ 1 + exp(0 + g | g)", DataError, "is not a position"),
        ("y ~ 1 + ar1(numFactor(t, f) | g)", FormulaError, "is not a numeric column"),
    ],
)
def test_bad_positions_get_one_clear_error(data, formula, error, message):
    with pytest.raises(error, match=message):
        build(formula, data)


@pytest.mark.parametrize("tag", ["us", "homtoep"])
def test_one_row_a_cell_does_not_tell_the_residual_from_free_variances(data, tag):
    cells = data.drop_duplicates(["g", "t"])
    with pytest.raises(IdentifiabilityError, match="cannot be told apart"):
        build(f"y ~ 1 + {tag}(0 + factor(t) | g)", cells)
    assert mm.lmm("y ~ 1 + ar1(0 + t | g)", cells).optimum.converged


def test_a_correlation_without_variance_is_nan():
    rng = np.random.default_rng(1)
    y = np.tile([-1.0, 1.0], 120) + 0.0 * rng.normal(size=240)
    frame = pd.DataFrame(
        {"y": y, "g": np.repeat(np.arange(30), 8), "t": np.tile(np.repeat([0, 1, 2, 3], 2), 30)}
    )
    fit = mm.lmm("y ~ 1 + ar1(0 + t | g)", frame, reml=False)
    assert np.all(np.array(fit.varcorr["g"].sds) == 0.0)
    assert np.isnan(fit.varcorr["g"].correlation[1, 0])


@pytest.mark.parametrize(
    "term", ["cs(0 + t | g)", "us(0+t|g)", "us(t + 0 | g)", "toep(t - 1 | g)", "ad(0 + t | g)"]
)
def test_a_structure_of_several_effects_over_one_number_is_noted(data, term):
    tag = term.split("(")[0]
    (note,) = [note for note in build(f"y ~ x + {term}", data).messages if "one numeric column" in note]
    assert note.endswith(f"write {tag}(0 + factor(t) | g)")
    build(f"y ~ x + {tag}(0 + factor(t) | g)", data)


@pytest.mark.parametrize(
    "term", ["(0 + t | g)", "us(1 | g)", "us(t | g)", "cs(0 + f | g)", "diag(0 + t | g)"]
)
def test_ordinary_slopes_are_not_noted(data, term):
    assert not [note for note in build(f"y ~ x + {term}", data).messages if "one numeric column" in note]


def test_new_levels_of_structured_terms_are_refused_with_a_remedy(data):
    fit = mm.lmm("y ~ x + cs(0 + f | g)", data)
    new = data.iloc[:1].assign(f="elsewhere")
    with pytest.raises(
        NewLevelError, match=r"It is an effect of cs\(0 \+ f \| g\).*or the term out \(re_form\)"
    ):
        fit.predict(new)
    assert np.isfinite(fit.predict(new, re_form="population")).all()
    fixed = mm.lmm("y ~ f + (1 | g)", data)
    with pytest.raises(NewLevelError) as caught:
        fixed.predict(new)
    assert "re_form" not in str(caught.value)


def test_gaps_between_the_visits_of_toeplitz_residuals_are_noted(data):
    cells = data.drop_duplicates(["g", "t"])
    levels = sorted(cells["t"].unique())
    declared = cells.assign(v=pd.Categorical(cells["t"], categories=[-1, *levels, 99], ordered=True))
    (note,) = build("y ~ x", declared, residual="toep(v | g) * varident(v)").messages
    assert note.startswith(
        "toep(v | g): no rows at -1, 99; the visits that have rows count as equally spaced"
    )
    (note,) = build("y ~ x", cells, residual="toep(t | g)").messages  # 0, 1, 2, 4
    assert "t is not equally spaced" in note
    even = cells.assign(v=np.searchsorted(levels, cells["t"]))
    for structure in ("toep(v | g)", "us(t | g)", "ad(t | g)"):
        assert build("y ~ x", even, residual=structure).messages == ()


# ---------------------------------------------------------------------- the user's own structures
def test_a_known_matrix_between_columns(data):
    d = np.abs(np.subtract.outer([0, 1, 2, 4], [0, 1, 2, 4]))
    by_number = mm.lmm("y ~ 1 + ar1(0 + t | g)", data)
    rho = np.array(by_number.varcorr["g"].correlation)[1, 0]
    fit = mm.lmm("y ~ 1 + propto(0 + factor(t) | g, K)", data, structures={"K": rho**d})
    assert fit.loglik == pytest.approx(by_number.loglik, rel=1e-10)
    assert fit.sigma == pytest.approx(by_number.sigma, rel=1e-4)


def test_a_structure_of_ones_own(data):
    from mixedmodels.covariance import CurvedCovariance, make_covariance

    class Walk(CurvedCovariance):
        """A random walk from zero: Sigma = theta^2 min(i, j)."""

        name = "walk"

        def __init__(self, k):
            self.k, self.n_theta = k, 1
            self.start, self.lower, self.upper = np.ones(1), np.zeros(1), np.full(1, np.inf)
            self.mirrored = np.ones(1, dtype=bool)

        def factor(self, theta):
            return theta[0] * np.tril(np.ones((self.k, self.k)))

        def factor_derivatives(self, theta):
            return np.tril(np.ones((self.k, self.k)))[None]

        def factor_second_derivatives(self, theta):
            return np.zeros((1, 1, self.k, self.k))

        def theta_near(self, Sigma):
            return np.array([np.sqrt(max(np.trace(Sigma), 0.0) / (self.k * (self.k + 1) / 2))])

        def parameter_names(self, columns):
            return ("sd",)

        def natural(self, theta, columns, scale=1.0):
            return make_covariance("homdiag", self.k).natural(theta, columns, scale)

    walk = np.minimum.outer(np.arange(1, 5), np.arange(1, 5))
    expected = mm.lmm("y ~ 1 + propto(0 + factor(t) | g, K)", data, structures={"K": walk})
    for key in ("g", "(0 + factor(t) | g)"):
        fit = mm.lmm("y ~ 1 + (0 + factor(t) | g)", data, structures={key: Walk})
        assert fit.loglik == pytest.approx(expected.loglik, rel=1e-10)


@pytest.mark.parametrize(
    ("formula", "structures", "message"),
    [
        ("y ~ 1 + propto(0 + factor(t) | g, K)", None, "no matrix 'K'"),
        ("y ~ 1 + propto(0 + factor(t) | g, K)", {"K": np.eye(3)}, r"shape \(3, 3\), the term 4 columns"),
        ("y ~ 1 + (1 | g)", {"h": np.eye(3)}, "names 'h', which no random term uses"),
        ("y ~ 1 + (1 | g)", {"g": np.eye(1)}, "has no factor"),
        ("y ~ 1 + (1 | g)", "cs", "must be a dict"),
    ],
)
def test_bad_structures_get_one_clear_error(data, formula, structures, message):
    with pytest.raises(mm.OptionError, match=message):
        mm.lmm(formula, data, structures=structures)
