"""The command line: results, files it reads and writes, and one line for wrong input."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys

import numpy as np
import pytest

import mixedmodels as mm
from mixedmodels import cli, files

FORMULA = "Reaction ~ Days + (Days | Subject)"


@pytest.fixture(scope="module")
def sleepstudy():
    return mm.load_dataset("sleepstudy", backend="pandas")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, sleepstudy):
    folder = tmp_path_factory.mktemp("data")
    sleepstudy.to_csv(folder / "sleep.csv", index=False)
    sleepstudy.to_csv(folder / "sleep.tsv", index=False, sep="\t")
    (folder / "sleep.csv.gz").write_bytes(gzip.compress((folder / "sleep.csv").read_bytes()))
    sleepstudy.to_parquet(folder / "sleep.parquet")
    sleepstudy.to_feather(folder / "sleep.feather")
    return folder


def run(capsys, *arguments):
    status = cli.main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_fit_prints_the_summary(capsys, sleepstudy):
    status, out, err = run(capsys, "fit", FORMULA, "sleepstudy")
    assert (status, err) == (0, "")
    assert out == str(mm.lmm(FORMULA, sleepstudy)) + "\n"


@pytest.mark.parametrize("name", ["sleep.csv", "sleep.tsv", "sleep.csv.gz", "sleep.parquet", "sleep.feather"])
def test_kinds_of_files(capsys, folder, name):
    status, out, err = run(capsys, "fit", FORMULA, folder / name, "--json")
    assert (status, err) == (0, "")
    result = json.loads(out)
    assert result["criterion"] == pytest.approx(1743.62827195849, abs=1e-6)
    assert result["ngroups"] == {"Subject": 18}


def test_json(capsys):
    status, out, _ = run(
        capsys, "fit", FORMULA, "sleepstudy", "--ml", "--json", "--ci", "wald", "--level", "0.9"
    )
    result = json.loads(out)
    assert status == 0
    assert result["deviance"] == pytest.approx(1751.93934446, abs=1e-6)
    assert result["is_reml"] is False and result["converged"] is True
    days = result["fixed"][1]
    assert days["term"] == "Days"
    assert days["df"] == pytest.approx(18.0, abs=0.01) and 0.0 < days["p_value"] < 1e-5
    limits = result["intervals"][1]
    assert limits["conf_high"] - limits["estimate"] == pytest.approx(1.6448536269514722 * days["std_error"])
    assert [row["group"] for row in result["random"]] == ["Subject", "Subject", "Subject", "Residual"]
    assert len(result["theta"]) == 3


def test_intervals_in_text(capsys):
    _, out, _ = run(capsys, "fit", FORMULA, "sleepstudy", "--ci", "wald")
    assert "95% Wald intervals" in out
    line = next(line for line in out.splitlines() if line.startswith("Days") and "7.438" in line)
    assert line.split() == ["Days", "10.467", "7.438", "13.497"]


@pytest.mark.parametrize("method", ["satterthwaite", "kr", "profile", "bootstrap"])
def test_every_kind_of_interval(capsys, method):
    status, out, err = run(
        capsys, "fit", FORMULA, "sleepstudy", "--json", "--ci", method, "--seed", "1", "--level", "0.9"
    )
    assert (status, err) == (0, "")
    limits = {row["term"]: row for row in json.loads(out)["intervals"]}
    assert 6.9 < limits["Days"]["conf_low"] < 8.5 < 12.5 < limits["Days"]["conf_high"] < 14.0


def test_tests_of_terms_and_degrees_of_freedom(capsys):
    status, out, _ = run(capsys, "fit", FORMULA, "sleepstudy", "--anova", "--ddf", "kr", "--json")
    result = json.loads(out)
    assert status == 0
    assert result["anova"][0]["statistic"] == pytest.approx(45.853, abs=1e-3)
    assert result["anova"][0]["den_df"] == pytest.approx(17.0, abs=1e-4)
    _, out, _ = run(capsys, "fit", FORMULA, "sleepstudy", "--anova")
    assert "45.85" in out


def test_compare(capsys):
    small, large = "Reaction ~ Days + (1 | Subject)", FORMULA
    status, out, err = run(capsys, "compare", small, large, "sleepstudy", "--ml")
    assert (status, err) == (0, "")
    assert "42.14" in out
    _, out, _ = run(capsys, "compare", small, large, "sleepstudy", "--ml", "--json")
    assert json.loads(out)["models"][1]["statistic"] == pytest.approx(42.1393, abs=1e-3)


def test_report(capsys, tmp_path):
    path = tmp_path / "report.html"
    status, _, err = run(capsys, "fit", FORMULA, "sleepstudy", "--report", path, "--quiet")
    assert (status, err) == (0, "")
    assert "Fixed effects" in path.read_text(encoding="utf-8")


def test_weights_and_offset(capsys, sleepstudy, tmp_path):
    data = sleepstudy.assign(w=np.linspace(1, 2, 180), o=np.ones(180))
    data.to_csv(tmp_path / "d.csv", index=False)
    options = ("--weights", "w", "--offset", "o", "--json", "--solver", "dense")
    _, out, _ = run(capsys, "fit", FORMULA, tmp_path / "d.csv", *options)
    expected = mm.lmm(FORMULA, data, weights="w", offset="o")
    assert json.loads(out)["criterion"] == pytest.approx(expected.criterion, abs=1e-7)


def test_a_generalised_model(capsys, tmp_path):
    formula = "incidence ~ period + (1 | herd)"
    data = mm.load_dataset("cbpp", backend="dict")
    fit = mm.glmm(formula, data, family="binomial", link="probit", trials="size")
    options = ("--family", "binomial", "--link", "probit", "--trials", "size")
    status, out, err = run(capsys, "fit", formula, "cbpp", *options, "--save", tmp_path / "fit.mm")
    assert (status, err, out) == (0, "", f"{fit}\n")
    assert str(mm.load(tmp_path / "fit.mm")) == str(fit)
    status, out, _ = run(capsys, "fit", formula, "cbpp", *options, "--json")
    result = json.loads(out)
    assert (result["family"], result["link"], result["nagq"]) == ("binomial", "probit", 1)
    assert [row["estimate"] for row in result["fixed"]] == pytest.approx(fit.beta.tolist(), rel=1e-8)
    status, _, err = run(capsys, "fit", formula, "cbpp", "--zero-inflation", "~ 1")
    assert status == 2 and err.strip() == (
        "mixedmodels: --zero-inflation is for generalised models: give --family as well"
    )


def test_everything_about_a_generalised_model(capsys, tmp_path):
    formula, page = "incidence ~ period + (1 | herd)", tmp_path / "page.html"
    options = ("--family", "binomial", "--trials", "size")
    status, out, _ = run(
        capsys, "fit", formula, "cbpp", *options, "--ci", "profile", "--anova", "--json", "--report", page
    )
    result = json.loads(out)
    fit = mm.glmm(formula, mm.load_dataset("cbpp", backend="dict"), family="binomial", trials="size")
    assert status == 0 and "<html" in page.read_text()
    limits = fit.confint("profile")
    assert [row["conf_low"] for row in result["intervals"]] == pytest.approx(limits["conf_low"].tolist())
    assert result["anova"][0]["p_value"] == pytest.approx(fit.anova()["p_value"][0])
    status, _, err = run(capsys, "fit", formula, "cbpp", *options, "--ci", "satterthwaite")
    assert status == 2 and err.startswith("mixedmodels: ") and err.count("\n") == 1
    options = (*options, "--json")
    status, out, _ = run(capsys, "compare", "incidence ~ 1 + (1 | herd)", formula, "cbpp", *options)
    # lme4::anova of the two fits by glmer
    assert json.loads(out)["models"][1]["statistic"] == pytest.approx(25.610, abs=1e-3)


def test_written_files(capsys, tmp_path, sleepstudy):
    page, saved = tmp_path / "out.html", tmp_path / "fit.mm"
    status, out, err = run(capsys, "fit", FORMULA, "sleepstudy", "--html", page, "--save", saved, "--quiet")
    assert (status, out, err) == (0, "", "")
    assert page.read_text().startswith("<!DOCTYPE html>")
    assert "251.405" in page.read_text()
    assert mm.load(saved).criterion == pytest.approx(1743.62827195849, abs=1e-7)


def test_datasets(capsys):
    status, out, _ = run(capsys, "datasets")
    assert status == 0
    assert any(line.startswith("sleepstudy") and "180 rows" in line for line in out.splitlines())
    status, out, _ = run(capsys, "datasets", "Dyestuff")
    assert status == 0 and "Yield" in out


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("fit", FORMULA, "nowhere.csv"), "no file 'nowhere.csv'"),
        (("fit", FORMULA, "sleepstudi"), "neither a file nor a bundled data set"),
        (("fit", "Reaction ~ (Days", "sleepstudy"), "in: Reaction"),
        (("fit", "Reaction ~ Days", "sleepstudy"), "no random-effects term"),
        (("fit", "Reaction ~ Weeks + (1 | Subject)", "sleepstudy"), "Weeks"),
        (("fit", FORMULA, "sleepstudy", "--weights", "w"), "'w'"),
        (("fit", FORMULA, "sleepstudy", "--method", "magic"), "magic"),
        (("fit", FORMULA, "sleepstudy", "--solver", "magic"), "magic"),
        (("fit", FORMULA, "sleepstudy", "--ci", "magic"), "available: wald"),
        (("fit", FORMULA, "sleepstudy", "--ddf", "magic"), "magic"),
        (("fit", FORMULA, "sleepstudy", "--ml", "--ddf", "kr"), "REML"),
        (("compare", FORMULA, "sleepstudy"), "two or more formulas"),
        (("fit", FORMULA, "sleepstudy", "--ci", "wald", "--level", "95"), "level"),
        (("fit", FORMULA, "sleepstudy", "--quiet", "--report", "/no/where/x.html"), "cannot be written"),
        (("fit", FORMULA, "sleepstudy", "--save", "/no/where/fit.mm"), "cannot write"),
        (("fit", FORMULA, "sleepstudy", "--html", "/no/where/fit.html"), "cannot write"),
        (("datasets", "nothing"), "nothing"),
    ],
)
def test_wrong_input_is_one_line_and_status_2(capsys, arguments, text):
    status, out, err = run(capsys, *arguments)
    assert status == 2
    assert err.count("\n") == 1 and err.startswith("mixedmodels: ")
    assert text in err
    assert out == ""


@pytest.mark.parametrize(
    "arguments", [(), ("fit",), ("fit", FORMULA), ("nothing",), ("fit", "a", "b", "--nothing")]
)
def test_wrong_usage_is_one_line_and_status_2(capsys, arguments):
    with pytest.raises(SystemExit) as stopped:
        cli.main(list(arguments))
    captured = capsys.readouterr()
    assert stopped.value.code == 2
    assert captured.err.count("\n") == 1 and captured.err.startswith("mixedmodels: ")


def test_unreadable_files(capsys, tmp_path):
    for name in ("a.csv", "a.parquet", "a.feather", "a.csv.gz"):
        (tmp_path / name).write_bytes(b"")
        status, _, err = run(capsys, "fit", FORMULA, tmp_path / name)
        assert status == 2 and err.count("\n") == 1 and "cannot read" in err
    (tmp_path / "a.xyz").write_text("x")
    status, _, err = run(capsys, "fit", FORMULA, tmp_path / "a.xyz")
    assert status == 2 and "unknown kind of file" in err
    status, _, err = run(capsys, "fit", FORMULA, tmp_path)
    assert status == 2 and "directory" in err


def test_interruption(capsys, monkeypatch):
    def stop(*arguments, **keywords):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "read_data", stop)
    status, _, err = run(capsys, "fit", FORMULA, "sleepstudy")
    assert status == 130 and err.count("\n") == 1


def test_warnings_are_lines_on_standard_error(capsys, monkeypatch):
    import warnings

    real = mm.lmm

    def warned(*arguments, **keywords):
        warnings.warn("something\nto know", mm.ConvergenceWarning)
        return real(*arguments, **keywords)

    monkeypatch.setattr(mm, "lmm", warned)
    status, _, err = run(capsys, "fit", FORMULA, "sleepstudy")
    assert status == 0 and err.startswith("mixedmodels: warning: something")
    assert run(capsys, "fit", FORMULA, "sleepstudy", "--quiet")[2] == ""


def test_module_and_version():
    def call(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "mixedmodels", *arguments], capture_output=True, text=True
        )

    done = call("--version")
    assert done.returncode == 0 and done.stdout == f"mixedmodels {mm.__version__}\n"
    done = call("datasets", "nothing")
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and done.stdout == ""


# ---------------------------------------------------------------- reading CSV without a library


def test_plain_csv_reader_agrees_with_the_others(folder, tmp_path):
    data = files.read_csv_plain(folder / "sleep.csv.gz")
    assert mm.lmm(FORMULA, data).criterion == pytest.approx(1743.62827195849, abs=1e-6)
    path = tmp_path / "types.csv"
    path.write_text(
        'i,f,t,b,m\n1,1.5,a,TRUE,1\n2,NA,"x, ""y""",FALSE,\n3,2e3,NA,TRUE,3\n', encoding="utf-8-sig"
    )
    data = files.read_csv_plain(path)
    assert data["i"].tolist() == [1, 2, 3] and data["i"].dtype.kind == "i"
    assert np.array_equal(data["f"], [1.5, np.nan, 2000.0], equal_nan=True)
    assert data["t"] == ["a", 'x, "y"', None]
    assert data["b"].tolist() == [True, False, True]
    assert np.array_equal(data["m"], [1.0, np.nan, 3.0], equal_nan=True)


@pytest.mark.parametrize("library", ["pyarrow", "polars", "pandas", None])
def test_every_library_reads_the_same(folder, monkeypatch, library):
    monkeypatch.setattr(files, "_LIBRARIES", () if library is None else (library,))
    assert mm.lmm(FORMULA, files.read_csv(folder / "sleep.csv")).criterion == pytest.approx(
        1743.62827195849, abs=1e-6
    )
    if library is None:
        with pytest.raises(mm.DataError, match="needs pyarrow or polars"):
            files.read_parquet(folder / "sleep.parquet")
        with pytest.raises(mm.DataError, match="needs pyarrow or polars"):
            files.read_arrow(folder / "sleep.feather")
    else:
        for frame in (
            files.read_parquet(folder / "sleep.parquet"),
            files.read_arrow(folder / "sleep.feather"),
        ):
            assert mm.lmm(FORMULA, frame).criterion == pytest.approx(1743.62827195849, abs=1e-6)


def test_plain_csv_reader_refuses(tmp_path):
    (tmp_path / "a.csv").write_text("")
    with pytest.raises(mm.DataError, match="Empty"):
        files.read_csv_plain(tmp_path / "a.csv")
    (tmp_path / "b.csv").write_text("a,b\n1,2\n3\n")
    with pytest.raises(mm.DataError, match="line 3 has 1 cells"):
        files.read_csv_plain(tmp_path / "b.csv")
