"""Every printed format of a fit."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import numpy as np
import pytest

import mixedmodels as mm
from mixedmodels.report import table, text
from mixedmodels.report.summary import abbreviate, coefficient_table, correlation_table

EXPECTED = """\
Linear mixed model fit by REML
Formula: Reaction ~ Days + (Days | Subject)

 REML criterion      AIC      BIC   logLik df.resid
         1743.6   1755.6   1774.8   -871.8      174

Scaled residuals:
    Min      1Q  Median      3Q     Max
-3.9536 -0.4634  0.0231  0.4634  5.1793

Random effects:
 Groups   Name        Variance Std.Dev. Corr
 Subject  (Intercept) 612.09   24.740
          Days         35.07    5.922    0.07
 Residual             654.94   25.592
Number of obs: 180, groups: Subject, 18

Fixed effects, t tests by Satterthwaite:
            Estimate Std. Error    df t value  Pr(>|t|)
(Intercept)  251.405      6.825 17.00  36.838    <2e-16
Days          10.467      1.546 17.00   6.771 3.264e-06

Correlation of Fixed Effects:
     (Intr)
Days -0.138"""


def test_text_has_the_layout_of_lmertest(fit):
    assert str(fit) == EXPECTED
    assert repr(fit) == EXPECTED
    assert str(fit.summary()) == EXPECTED


def test_ml_summary_has_the_deviance(fit_ml):
    printed = str(fit_ml)
    assert printed.startswith("Linear mixed model fit by maximum likelihood\n")
    assert re.search(r"deviance +AIC +BIC +logLik", printed)
    assert "1751.9   1763.9   1783.1   -876.0" in printed


def test_varcorr_prints(fit):
    assert str(fit.varcorr).splitlines() == [
        " Groups   Name        Std.Dev. Corr",
        " Subject  (Intercept) 24.740",
        "          Days         5.922    0.07",
        " Residual             25.592",
    ]
    assert "<table" in fit.varcorr._repr_html_()


class Balance(HTMLParser):
    """Checks that tags are closed in order."""

    def __init__(self):
        super().__init__()
        self.open = []
        self.seen = []

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_html(fit):
    fragment = fit._repr_html_()
    parser = Balance()
    parser.feed(fragment)
    assert parser.open == []
    assert parser.seen.count("table") == 5
    for cell in ("251.405", "24.740", "654.94", "1743.6", "Reaction ~ Days + (Days | Subject)"):
        assert cell in fragment
    assert fragment == fit.summary().to_html()


def test_html_page(fit):
    from mixedmodels.report.html import render_page

    parser = Balance()
    parser.feed(render_page(fit.summary()))
    assert parser.open == [] and parser.seen[0] == "html"


def test_names_are_escaped(sleepstudy):
    data = sleepstudy.rename(columns={"Days": "a<b>&c_d|e"})
    fit = mm.lmm("Reaction ~ `a<b>&c_d|e` + (1 | Subject)", data)
    assert "<b>&c" not in fit._repr_html_()
    assert "a&lt;b&gt;&amp;c_d|e" in fit._repr_html_()
    latex = fit.summary().to_latex()
    assert r"a\textless{}b\textgreater{}\&c\_d\textbar{}e" in latex
    markdown = fit.summary().to_markdown()
    assert r"a&lt;b&gt;&c\_d\|e" in markdown


def test_latex(fit):
    latex = fit.summary().to_latex()
    for name in ("table", "tabular"):
        begun = latex.count(rf"\begin{{{name}}}")
        assert begun == latex.count(rf"\end{{{name}}}") > 0
    assert latex.count(r"\toprule") == latex.count(r"\midrule") == latex.count(r"\bottomrule") == 5
    assert r"Days & 10.467 & 1.546 & 17.00 & 6.771 & 3.264e-06 \\" in latex
    assert "$-$0.138" in latex


def test_markdown(fit):
    markdown = fit.summary().to_markdown()
    assert "| Days | 10.467 | 1.546 | 17.00 | 6.771 | 3.264e-06 |" in markdown
    for block in markdown.split("\n\n"):
        rows = [line for line in block.splitlines() if line.startswith("|")]
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in rows}) <= 1


def test_to_frame_holds_numbers(fit):
    frame = fit.summary().to_frame()
    assert list(frame.columns) == ["term", "estimate", "std_error", "df", "statistic", "p_value"]
    assert frame["estimate"].tolist() == list(fit.fixef.values())


def test_correlation_is_shown_on_request(fit):
    assert "Correlation of Fixed" not in str(fit.summary(correlation=False))
    data = mm.load_dataset("cake", backend="pandas")
    cake = mm.lmm("angle ~ recipe * temperature + (1 | recipe:replicate)", data)
    assert len(cake.fixef) == 18
    assert "Correlation of Fixed" not in str(cake)
    assert "summary(correlation=True)" in str(cake)
    assert "Correlation of Fixed" in str(cake.summary(correlation=True))
    assert "Number of obs: 270, groups: recipe:replicate, 45" in str(cake)
    # lmerTest: the lines of summary(m), 42 and 210 degrees of freedom
    assert re.search(
        r"^\(Intercept\) +33\.12222 +1\.73683 +42\.00 +19\.070 +<2e-16$", str(cake), re.MULTILINE
    )
    assert re.search(
        r"^temperature\.L +6\.43033 +1\.16822 +210\.00 +5\.504 +1\.074e-07$", str(cake), re.MULTILINE
    )


def test_notes_are_printed_and_wrapped():
    data = mm.load_dataset("Dyestuff2", backend="pandas")
    printed = str(mm.lmm("Yield ~ 1 + (1 | Batch)", data))
    assert "Note: singular fit: in Batch" in printed
    assert max(map(len, printed.splitlines())) <= 104


def test_rows_left_out_are_shown(sleepstudy):
    data = sleepstudy.copy()
    data.loc[0, "Days"] = np.nan
    assert "Data: 179 of 180 rows (1 left out)" in str(mm.lmm("Reaction ~ Days + (1 | Subject)", data))


def test_a_model_without_fixed_effects(sleepstudy):
    fit = mm.lmm("Reaction ~ 0 + (1 | Subject)", sleepstudy)
    assert fit.fixef == {} and "Fixed effects" not in str(fit)
    assert len(fit.wald()) == 0


# ---------------------------------------------------------------- pieces


@pytest.mark.parametrize(
    ("values", "digits", "expected"),
    [
        ([612.1002, 35.0717, 654.9400], 4, ["612.10", "35.07", "654.94"]),
        ([24.7407, 5.9221, 25.5918], 4, ["24.741", "5.922", "25.592"]),
        ([0.0, 13.81], 4, ["0.00", "13.81"]),
        ([0.0], 4, ["0"]),
        ([1e-12, 1.0, 0.0], 4, ["1.000e-12", "1.000e+00", "0.000e+00"]),
        ([1e16, 1.0], 4, ["1.000e+16", "1.000e+00"]),
        ([123456789.0], 4, ["123456789"]),
        ([1234567890.0], 4, ["1.235e+09"]),
        ([float("nan"), 1.5], 4, ["NaN", "1.500"]),
        ([float("inf"), 1.5], 2, ["inf", "1.5"]),
        ([123456.0, 54321.0], 4, ["123456", "54321"]),
        ([], 4, []),
    ],
)
def test_columns_show_significant_digits(values, digits, expected):
    assert table.format_column(values, digits) == expected


def test_abbreviations():
    assert [
        abbreviate(name) for name in ("(Intercept)", "Days", "temperature", "xxxxxxxxxx", "ABCDEFGHI")
    ] == [
        "(Intr)",
        "Days",
        "tmprtr",
        "xxxxxx",
        "ABCDEF",
    ]


def test_coefficients_of_very_different_size():
    made = coefficient_table(
        ("a", "b"), [1.5e8, 2.5e-7], [1e7, 1e-8], [15.0, 25.0], [10.0, 3.5], [1e-8, 1e-5]
    )
    assert [row[1] for row in made.rows] == ["1.500e+08", "2.500e-07"]
    nothing = coefficient_table(("a",), [1.0], [0.0], [float("nan")], [float("nan")], [float("nan")])
    assert nothing.rows[0][3] == "NaN"


def test_correlation_without_variance():
    made = correlation_table(("a", "b"), [[0.0, 0.0], [0.0, 1.0]], [0.0, 1.0])
    assert made.rows == (("b", "NaN"),)


def test_text_columns_line_up():
    made = table.Table("T", ("name", "x", "n"), (("a", "1.5", "10"), ("long name", "-12.5", "5")), "lrn")
    assert text.render_table(made).splitlines() == [
        "T:",
        "name          x n",
        "a           1.5 10",
        "long name -12.5  5",
    ]


def test_long_formulas_are_folded_between_terms():
    import mixedmodels as mm

    rng = np.random.default_rng(4)
    name = "a column + with a long name (and a bar |) in it"
    data = {f"x{i}": rng.normal(size=90) for i in range(9)} | {name: rng.normal(size=90)}
    data |= {"y": rng.normal(size=90), "g": np.repeat(np.arange(15), 6)}
    text = f"y ~ {'+'.join(f'x{i}' for i in range(9))} + `{name}` + I(x1^2) + I(x2^2) + (1 | g)"
    lines = str(mm.lmm(text, data)).splitlines()[1:4]
    assert lines[0].startswith("Formula: y ~ x0 + x1") and lines[1].startswith("         + ")
    assert max(map(len, lines)) <= 104
    folded = " ".join(line.strip() for line in lines if line.strip()).removeprefix("Formula: ")
    assert f"`{name}`" in folded
    assert mm.lmm(folded, data).criterion == mm.lmm(text, data).criterion


def test_backticks_survive_in_markdown_and_latex():
    import mixedmodels as mm

    sleep = mm.load_dataset("sleepstudy", backend="dict")
    fit = mm.lmm("Reaction ~ `the days` + (1 | Subject)", {**sleep, "the days": sleep["Days"]})
    assert "Formula: `` Reaction ~ `the days` + (1 | Subject) ``" in fit.summary().to_markdown()
    latex = fit.summary().to_latex()
    assert r"\textasciigrave{}the days\textasciigrave{}" in latex and "`" not in latex


def test_latex_writes_minus_signs_in_correlations():
    import mixedmodels as mm

    data = mm.load_dataset("Oats", backend="dict")
    data = {**data, "x": -np.asarray(data["nitro"])}
    fit = mm.lmm("yield ~ x + (x | Block)", data)
    correlation = fit.varcorr.terms[0].correlations()[1][0]
    assert correlation < 0
    assert f"$-${abs(correlation):.2f}" in fit.summary().to_latex()


def test_numbers_of_any_size_are_readable():
    import mixedmodels as mm

    sleep = mm.load_dataset("sleepstudy", backend="dict")
    huge = str(mm.lmm("y ~ Days + (Days | Subject)", {**sleep, "y": sleep["Reaction"] * 1e11}))
    assert "2.474e+12" in huge and "2.514e+13" in huge
    assert max(map(len, huge.splitlines())) < 70
