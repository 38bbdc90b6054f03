"""The report page: valid HTML that stands alone, escaped, for every kind of fit."""

from __future__ import annotations

import sys
from html.parser import HTMLParser

import numpy as np
import pytest

import mixedmodels as mm
from mixedmodels.report.page import report_html

VOID = {"meta", "img", "br", "hr", "link", "input"}


class Checker(HTMLParser):
    """Collects what is wrong with a page, its text, ids and pictures."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.open, self.wrong, self.ids, self.text, self.pictures, self.links = [], [], [], [], [], []

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        if tag not in VOID:
            self.open.append(tag)
        if "id" in values:
            self.ids.append(values["id"])
        if tag == "img":
            self.pictures.append(values)
        if tag == "a":
            self.links.append(values.get("href", ""))
        if tag in ("script", "link", "iframe", "object"):
            self.wrong.append(f"<{tag}>")
        for name in ("src", "href"):
            if values.get(name, "").split(":")[0] in ("http", "https", "file", ""):
                self.wrong.append(f"{name}={values[name][:40]}" if name in values else "")
        self.wrong = [text for text in self.wrong if text]

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(f"</{tag}>")

    def handle_data(self, data):
        self.text.append(data)


def checked(html):
    """The parsed page, which must be sound."""
    page = Checker()
    page.feed(html)
    page.close()
    assert page.wrong == []
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    assert all(picture["alt"] for picture in page.pictures)
    assert all(picture["src"].startswith("data:image/svg+xml;base64,") for picture in page.pictures)
    assert {link.removeprefix("#") for link in page.links} <= set(page.ids)
    assert "@import" not in html and "url(" not in html
    return page


def words_of(page):
    return " ".join(" ".join(page.text).split())


def simulated(n=120, seed=4):
    rng = np.random.default_rng(seed)
    data = {f"x{j}": rng.standard_normal(n) for j in range(20)}
    g = np.repeat(np.arange(12), n // 12)
    data |= {"g": g, "f": np.array(list("abc"))[rng.integers(0, 3, n)], "z": np.exp(rng.standard_normal(n))}
    effect = 0.3 * rng.standard_normal(12)[g] + np.where(data["f"] == "b", 0.5, 0.0)
    return data | {"y": 1.0 + 0.2 * data["x0"] + effect + 0.3 * rng.standard_normal(n)}


@pytest.fixture(scope="module")
def data():
    return simulated()


@pytest.fixture(scope="module")
def page(fit):
    return checked(report_html(fit))


def test_a_page_has_its_sections(page):
    assert page.ids == ["model", "effects", "groups", "means", "explained", "checks", "plots", "details"]
    assert len(page.pictures) == 6


def test_the_words_say_the_numbers(page):
    text = words_of(page)
    assert "180 observations" in text and "Subject (18 groups)" in text
    assert (
        "Each additional unit of Days goes with a Reaction that is 10.5 higher on average (7.21 to 13.7)."
        in text
    )
    assert "in the effect of Days: their spread (standard deviation) is 5.92" in text
    assert "The search for the best estimates ended properly" in text
    assert "the two are practically unrelated" in text


def test_options(fit):
    text = words_of(checked(report_html(fit, title="A <b> & c", level=0.8, ddf="kr")))
    assert "A <b> & c" in text and "80% confidence interval" in text
    with pytest.raises(mm.OptionError, match="level"):
        report_html(fit, level=80)
    with pytest.raises(mm.OptionError, match="ddf='t'"):
        report_html(fit, ddf="t")


def test_names_are_escaped():
    data = simulated()
    data = {"<i>y": data["y"], "x&y": data["x0"], "f<b>": np.char.add("<b>", data["f"]), "g'\"": data["g"]}
    fit = mm.lmm("`<i>y` ~ `x&y` + `f<b>` + (1 | `g'\"`)", data)
    html = report_html(fit)
    assert "<i>" not in html and "<b>a" not in html
    text = words_of(checked(html))
    assert "<b>a" in text and "<i>y" in text and "x&y" in text


@pytest.mark.parametrize(
    "formula",
    [
        "y ~ 0 + (1 | g)",
        "y ~ 1 + (1 | g)",
        "y ~ 0 + f + (1 | g)",
        "y ~ x0 * f + (x0 || g)",
        "log(z) ~ x0 * x1 + log(z + 1) + (1 | g)",
        "y ~ poly(x0, 2) + f:x1 + (1 | g)",
        "y ~ " + " + ".join(f"x{j}" for j in range(20)) + " + (1 | g)",
        "y ~ " + " + ".join(f"x{j}:x{k}" for j in range(7) for k in range(j)) + " + x0 + (1 | f)",
    ],
)
def test_pages_of_many_formulas(data, formula):
    text = words_of(checked(report_html(mm.lmm(formula, data))))
    assert "Not available" not in text and "Not drawn" not in text and "nan" not in text.lower().split()


def test_percent_changes_of_a_log_response(data):
    fit = mm.lmm("log(z) ~ x0 + f + log(x1 + 9) + (1 | g)", data)
    change = 100.0 * np.expm1(fit.fixef["x0"])
    text = words_of(checked(report_html(fit)))
    how = "higher" if change > 0 else "lower"
    assert f"goes with a z that is about {abs(change):.3g}% {how} on average" in text
    assert "Compared with f = a, f = b goes with a z" in text
    assert "on the scale of log(z)" in text


def test_levels_are_compared_under_treatment_contrasts_only(data):
    plain = words_of(checked(report_html(mm.lmm("y ~ f + (1 | g)", data))))
    assert "Compared with f = a, f = b goes with a y" in plain
    summed = words_of(checked(report_html(mm.lmm("y ~ C(f, sum) + (1 | g)", data))))
    assert "Compared with" not in summed
    assert "Do the levels of C(f, sum) differ?" in summed


def test_what_an_interaction_says(data):
    text = words_of(checked(report_html(mm.lmm("y ~ x0 * f + (1 | g)", data))))
    assert "Does the effect of x0 depend on f?" in text
    assert "on average" in text and "where f is a" in text
    assert "Do the levels of f differ where x0 is 0?" in text
    assert "For f = b instead of a, the change in y with each additional unit of x0 differs by" in text


def test_parts_of_a_curve_are_not_told_apart(data):
    text = words_of(checked(report_html(mm.lmm("y ~ x0 + I(x0^2) + (1 | g)", data))))
    assert "x0 is one part of a curve in x0" in text
    assert "Each additional unit of x0" not in text


def test_models_from_matrices(data):
    X = np.column_stack([np.ones(120), data["x0"]])
    term = mm.RandomTerm("g", ("(Intercept)",), data["g"], None, None, "us")
    fit = mm.LinearMixedModel.from_matrices(data["y"], X, [term]).fit()
    text = words_of(checked(report_html(fit)))
    assert "model made from matrices" in text and "a linear mixed model of the response" in text
    Z = np.kron(np.eye(12), np.ones((10, 1)))
    fit = mm.LinearMixedModel.from_matrices(
        data["y"], X, Z, covariance=lambda theta: theta[0] * np.eye(12), start=[1.0], lower=[0.0]
    ).fit()
    checked(report_html(fit))


def test_a_singular_fit_is_told():
    fit = mm.lmm("Yield ~ 1 + (1 | Batch)", mm.load_dataset("Dyestuff2", backend="dict"))
    text = words_of(checked(report_html(fit)))
    assert "could be told from chance" in text
    assert "Singularity." in text
    assert "The average Yield is 5.67" in text


def test_a_search_that_did_not_end_is_told(sleepstudy):
    with pytest.warns(mm.ConvergenceWarning):
        fit = mm.lmm("Reaction ~ Days + (Days | Subject)", sleepstudy, control=mm.Control(maxiter=1))
    text = words_of(checked(report_html(fit)))
    assert "stopped before it was finished" in text and "not reliable" in text


def test_missing_rows_are_told(data):
    part = dict(data, y=data["y"].copy())
    part["y"][:7] = np.nan
    text = words_of(checked(report_html(mm.lmm("y ~ x0 + (1 | g)", part))))
    assert "7 of the 120 rows of the data were left out" in text


def test_data_of_polars(data):
    polars = pytest.importorskip("polars")
    frame = polars.DataFrame({name: data[name] for name in ("y", "x0", "f", "g")})
    checked(report_html(mm.lmm("y ~ x0 + f + (1 | g)", frame)))


def test_files(fit, tmp_path):
    path = tmp_path / "page.html"
    fit.report(path, title="Sleep")
    assert "<title>Sleep</title>" in path.read_text(encoding="utf-8")
    for wrong in (tmp_path / "no" / "page.html", tmp_path, 3):
        with pytest.raises(mm.OptionError, match="cannot be written"):
            fit.report(wrong)


def test_without_matplotlib_the_page_says_so(fit, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    page = checked(report_html(fit))
    assert page.pictures == []
    assert "no plots because matplotlib is not installed" in words_of(page)


def test_no_figure_is_left_behind(fit):
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    report_html(fit)
    assert plt.get_fignums() == before


@pytest.mark.slow
def test_a_page_about_many_rows_is_small():
    data = mm.load_dataset("InstEval", backend="dict")
    fit = mm.lmm("y ~ service + (1 | s) + (1 | d)", data)
    html = report_html(fit)
    checked(html)
    assert len(html) < 1_000_000


def test_levels_are_not_rounded(fit):
    assert "97.5% confidence interval" in report_html(fit, level=0.975)
