"""Laws of the answers: what must not change, or must scale, when the data are written in another way."""

from __future__ import annotations

import functools
import warnings

import numpy as np
import pytest

import mixedmodels as mm

from .test_every_question import QUESTIONS, numbers, rows

FORMULAS = {
    "intercept": "y ~ x + f + (1 | g)",
    "slope": "y ~ x + f + (x | g)",
    "crossed": "y ~ x + f + (1 | g) + (1 | k)",
    "nested": "y ~ x + f + (1 | g/h)",
}
OF_TERMS = (
    "anova-1-satterthwaite", "anova-2-satterthwaite", "anova-3-satterthwaite", "anova-3-kr",
    "anova-3-containment", "anova-2-residual", "drop1-f", "drop1-lrt", "test-fixed-wald", "test-fixed-lrt",
    "lod", "joint-tests",
)  # fmt: skip
OF_COEFFICIENTS = (
    "coefficients-satterthwaite", "coefficients-kr", "coefficients-containment", "test-rows", "confint-wald",
    "confint-satterthwaite", "confint-kr", "confint-profile", "robust-CR0", "robust-CR2", "robust-CR3", "vif",
)  # fmt: skip
OF_VARIANCES = ("icc", "r2", "variance-parts", "repca", "test-random-lrt", "test-random-mixture")
OF_MEANS = ("emmeans", "emmeans-response", "contrast", "emtrends")
OF_ROWS = ("leverage", "cooks-distance", "influence-rows", "standardized", "studentized", "predict")
OF_LEVELS = ("influence-group", "small-sample", "tidy")


@functools.cache
def usual(kind):
    return mm.lmm(FORMULAS[kind], rows())


def answer(m, name):
    """Numbers of the answer by column, or the text of the refusal."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mm.MixedModelsWarning)
        try:
            return numbers(QUESTIONS[name](m))
        except mm.MixedModelsError as error:
            return str(error)


def agree(found, expected, name, order=slice(None), skip=(), tolerance=2e-6):
    """The same numbers, rows of `expected` in `order`."""
    if isinstance(expected, str):
        assert found == expected, name
        return
    assert found.keys() == expected.keys(), name
    assert expected, name
    for column in expected.keys() - set(skip):
        values = expected[column][order]
        scale = np.max(np.abs(values[np.isfinite(values)]), initial=1e-6)
        np.testing.assert_allclose(
            found[column], values, rtol=10 * tolerance, atol=tolerance * scale, err_msg=f"{name}, {column}"
        )


def agree_in_another_coding(found, expected, name):
    """As `agree`, but for the denominators of Satterthwaite's F tests of several degrees of freedom.

    Fai and Cornelius (1996) take the eigenvectors of L V L', which depend on the rows that span the
    hypothesis: another coding of a factor moves the denominator a little. F itself, and Kenward and Roger's
    denominator, depend on the hypothesis alone.
    """
    if (
        isinstance(expected, str)
        or "den_df" not in expected
        or name.endswith(("kr", "containment", "residual"))
    ):
        agree(found, expected, name)
        return
    agree(found, expected, name, skip=("den_df", "p_value"))
    single = expected["num_df"] == 1
    np.testing.assert_allclose(found["den_df"], expected["den_df"], rtol=0.03, err_msg=name)
    np.testing.assert_allclose(found["den_df"][single], expected["den_df"][single], rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("kind", FORMULAS)
def test_the_order_of_the_rows_does_not_matter(kind):
    order = np.random.default_rng(3).permutation(len(rows()))
    m = mm.lmm(FORMULAS[kind], rows().iloc[order].reset_index(drop=True))
    for name in (*OF_TERMS, *OF_COEFFICIENTS, *OF_VARIANCES, *OF_MEANS, *OF_LEVELS):
        agree(answer(m, name), answer(usual(kind), name), name)
    for name in OF_ROWS:
        agree(answer(m, name), answer(usual(kind), name), name, order, skip=("row",))


@pytest.mark.parametrize("kind", FORMULAS)
def test_names_and_order_of_levels_do_not_matter(kind):
    data = rows()
    other = data.assign(
        g="z" + (9 - data.g.str[1:].astype(int)).astype(str),
        k="z" + (9 - data.k.str[1:].astype(int)).astype(str),
        f=data.f.map({"a": "r", "b": "q", "c": "p"}),
    )
    m = mm.lmm(FORMULAS[kind], other)
    for name in (*OF_TERMS, *OF_VARIANCES, *OF_ROWS):
        ours, theirs = answer(m, name), answer(usual(kind), name)
        if name == "influence-rows":  # of coefficients with other names
            ours, theirs = (
                {c: v for c, v in x.items() if not c.startswith("dfbeta")} for x in (ours, theirs)
            )
        agree_in_another_coding(ours, theirs, name)
    for name in ("emmeans", "emmeans-response"):
        agree(answer(m, name), answer(usual(kind), name), name, slice(None, None, -1))
    agree(answer(m, "emtrends"), answer(usual(kind), "emtrends"), "emtrends")
    # fixed effects of other levels: what is left out of a group is not comparable by coefficient
    ours, theirs = answer(m, "influence-group"), answer(usual(kind), "influence-group")
    for column in ("cooks_distance", "covratio", "sigma"):
        np.testing.assert_allclose(np.sort(ours[column]), np.sort(theirs[column]), rtol=1e-5)


@pytest.mark.parametrize("kind", FORMULAS)
def test_affine_changes_of_a_covariate(kind):
    m = mm.lmm(FORMULAS[kind], rows().assign(x=lambda d: 40.0 - 5.0 * d.x))
    for name in (*OF_TERMS, *OF_MEANS[:3], "r2", "icc", *OF_ROWS):
        # sums of squares of single coefficients and what a deletion does to them are those of other columns
        skip = [column for column in answer(m, name) if str(column).startswith("dfbeta")]
        agree(answer(m, name), answer(usual(kind), name), name, skip=skip)
    ours, theirs = answer(m, "emtrends"), answer(usual(kind), "emtrends")
    np.testing.assert_allclose(ours["estimate"], theirs["estimate"] / -5.0, rtol=1e-6)
    np.testing.assert_allclose(ours["df"], theirs["df"], rtol=1e-5)


@pytest.mark.parametrize("formula", ["y ~ x * f + (1 | g)", "y ~ x * f + (x | g)"])
def test_hypotheses_that_do_not_depend_on_the_origin_of_a_covariate(formula):
    """Tests of f beside x:f are at x = 0 and move with it (x:f does not contain f: its covariate is not among
    the variables of f); those of the interaction, of x (an average over the levels) and the sequential ones
    do not."""
    one = mm.lmm(formula, rows())
    other = mm.lmm(formula, rows().assign(x=lambda d: 40.0 - 5.0 * d.x))
    for ddf in ("satterthwaite", "kr"):
        for kind, terms in ((3, ("x", "x:f")), (2, ("x", "x:f")), (1, ("x", "f", "x:f"))):
            for term in terms:
                ours, theirs = other.anova(kind, ddf).row(term), one.anova(kind, ddf).row(term)
                for column in ("num_df", "den_df", "statistic"):
                    # see agree_in_another_coding
                    loose = column == "den_df" and ddf == "satterthwaite" and theirs["num_df"] > 1
                    assert ours[column] == pytest.approx(theirs[column], rel=0.03 if loose else 1e-5), term
    for name in ("emmeans", "contrast", "leverage", "cooks-distance", "r2"):
        agree(answer(other, name), answer(one, name), name)


SCALED = ("estimate", "std_error", "conf_low", "conf_high", "sd", "sigma", "rhs")


@pytest.mark.parametrize("kind", FORMULAS)
def test_a_response_in_other_units(kind):
    a, b = -1000.0, 5e4
    m = mm.lmm(FORMULAS[kind], rows().assign(y=lambda d: a * d.y + b))
    free = ("sum_sq", "mean_sq", "aic", "loglik", "variance", "value")
    for name in OF_TERMS:
        ours, theirs = answer(m, name), answer(usual(kind), name)
        agree(ours, theirs, name, skip=free)
        for column in ("sum_sq", "mean_sq"):
            if column in theirs:
                np.testing.assert_allclose(ours[column], a**2 * theirs[column], rtol=1e-5, err_msg=name)
    for name in ("icc", "leverage", "cooks-distance", "test-random-lrt", "repca"):
        agree(answer(m, name), answer(usual(kind), name), name, skip=(*free, "sd"))
    for name in ("coefficients-satterthwaite", "coefficients-kr", "coefficients-containment"):
        ours, theirs = answer(m, name), answer(usual(kind), name)
        np.testing.assert_allclose(ours["df"], theirs["df"], rtol=1e-5)
        np.testing.assert_allclose(ours["std_error"], -a * theirs["std_error"], rtol=1e-5)
        np.testing.assert_allclose(ours["estimate"][1:], a * theirs["estimate"][1:], rtol=1e-5)
        np.testing.assert_allclose(ours["estimate"][0], a * theirs["estimate"][0] + b, rtol=1e-6)
    ours, theirs = answer(m, "confint-profile"), answer(usual(kind), "confint-profile")
    np.testing.assert_allclose(ours["conf_low"][1:4], a * theirs["conf_high"][1:4], rtol=2e-4)


def test_rows_written_twice_are_a_weight_of_two():
    """With the residual SD held, rows written twice carry the information of rows with weight 2: estimates,
    tests and degrees of freedom agree. With an estimated one they do not, as its degrees of freedom count
    the rows: at the same theta F differs by the ratio of the two residual variances."""
    data = rows()
    twice = data.loc[data.index.repeat(2)].reset_index(drop=True)
    for formula in FORMULAS.values():
        weighted = mm.lmm(formula, data.assign(two=2.0), weights="two", sigma=1.0)
        doubled = mm.lmm(formula, twice, sigma=1.0)
        np.testing.assert_allclose(doubled.theta, weighted.theta, rtol=1e-5, atol=1e-6)
        for name in (
            "anova-3-satterthwaite", "anova-3-kr", "coefficients-satterthwaite", "coefficients-kr", "drop1-f",
            "test-fixed-wald", "emmeans", "contrast",
        ):  # fmt: skip
            agree(answer(doubled, name), answer(weighted, name), name)
        ours, theirs = answer(doubled, "test-random-lrt"), answer(weighted, "test-random-lrt")
        for column in ("statistic", "df", "p_value"):
            np.testing.assert_allclose(ours[column], theirs[column], rtol=1e-5, atol=1e-7)
    # the residual SD estimated: the same theta by hand
    weighted = mm.LinearMixedModel(FORMULAS["intercept"], data.assign(two=2.0), weights="two")
    doubled = mm.LinearMixedModel(FORMULAS["intercept"], twice)
    theta = np.array([0.6])
    one, two = weighted.solution(theta), doubled.solution(theta)
    np.testing.assert_allclose(two.beta, one.beta, rtol=1e-9)
    np.testing.assert_allclose(two.vcov_unscaled, one.vcov_unscaled, rtol=1e-9)
    assert two.pwrss == pytest.approx(one.pwrss, rel=1e-9)


def test_nested_factors_written_as_crossed_ones():
    data = rows().assign(gh=lambda d: d.g + "/" + d.h)
    nested = mm.lmm("y ~ x + f + (1 | g/h)", data)
    for formula in ("y ~ x + f + (1 | gh) + (1 | g)", "y ~ x + f + (1 | h:g) + (1 | g)"):
        crossed = mm.lmm(formula, data)
        assert crossed.criterion == pytest.approx(nested.criterion, abs=1e-8)
        for name in (*OF_TERMS, *OF_COEFFICIENTS, *OF_VARIANCES, *OF_MEANS, *OF_ROWS):
            agree(answer(crossed, name), answer(nested, name), name)


@pytest.mark.parametrize("reml", [True, False])
def test_one_model_in_several_codings(reml):
    """Other contrasts span the same space: whatever does not name a coefficient stays the same."""
    data = rows()
    one = mm.lmm("y ~ f * s + x + (1 | g)", data, reml=reml)
    for contrasts in ({"f": "sum", "s": "helmert"}, {"f": "poly"}):
        other = mm.lmm("y ~ f * s + x + (1 | g)", data, reml=reml, contrasts=contrasts)
        for name in (
            "anova-1-satterthwaite", "anova-2-satterthwaite", "anova-3-satterthwaite", "anova-3-kr",
            "anova-3-containment", "joint-tests", "emmeans", "contrast", "leverage", "cooks-distance", "r2",
            "icc", "predict",
        ):  # fmt: skip
            agree_in_another_coding(answer(other, name), answer(one, name), name)


def test_a_known_shift_of_the_response_is_an_offset():
    data = rows()
    shifted = mm.lmm("y ~ x + f + offset(o) + (x | g)", data)
    plain = mm.lmm("y ~ x + f + (x | g)", data.assign(y=data.y - data.o))
    for name in (*OF_TERMS, *OF_COEFFICIENTS, "icc", "leverage", "cooks-distance", "small-sample"):
        agree(answer(shifted, name), answer(plain, name), name, skip=("r2",))


def test_a_group_without_effects_changes_no_test():
    """A random intercept whose variance is estimated as zero: tests are those without it."""
    data = rows()
    with_group = mm.lmm("flat ~ x + f + (1 | g) + (1 | k)", data)
    assert with_group.is_singular
    kept = [g for g, sd in zip(("g", "k"), with_group.theta, strict=True) if sd > 0.0]
    rest = "".join(f" + (1 | {g})" for g in kept)
    if not rest:
        pytest.skip("no group has a variance")
    without = mm.lmm("flat ~ x + f" + rest, data)
    for name in ("anova-3-satterthwaite", "coefficients-satterthwaite", "leverage", "emmeans"):
        agree(answer(with_group, name), answer(without, name), name)
