"""Saving and loading: the loaded fit answers everything, and a bad file gives one clear error."""

from __future__ import annotations

import io
import json
import zipfile

import numpy as np
import pandas as pd
import pytest

import mixedmodels as mm
from mixedmodels.fit.codec import Decoder, Encoder

FORMULA = "Reaction ~ Days + (Days | Subject)"


def saved(fit, tmp_path, **options):
    path = tmp_path / "fit.mm"
    fit.save(path)
    return mm.load(path, **options)


def assert_same(one, two, data):
    assert str(one) == str(two)
    assert one.criterion == two.criterion
    for name in ("theta", "beta", "vcov"):
        assert np.array_equal(getattr(one, name), getattr(two, name))
    assert one.fixef == two.fixef and one.se == two.se and one.messages == two.messages
    assert one.deviance == two.deviance
    assert np.array_equal(one.fitted(), two.fitted(), equal_nan=True)
    assert np.array_equal(one.residuals("scaled"), two.residuals("scaled"), equal_nan=True)
    assert np.array_equal(one.predict(data), two.predict(data), equal_nan=True)
    assert one.ranef(condvar=True).equals(two.ranef(condvar=True))
    assert one.coef().equals(two.coef())
    assert one.tidy().equals(two.tidy())
    assert one.ngroups == two.ngroups
    assert one.optimum.status == two.optimum.status


def test_round_trip(fit, sleepstudy, tmp_path):
    loaded = saved(fit, tmp_path)
    assert_same(fit, loaded, sleepstudy)
    assert loaded.refit_ml().criterion == pytest.approx(fit.refit_ml().criterion, abs=1e-9)
    y = sleepstudy["Reaction"].to_numpy()
    assert loaded.refit(2.0 * y).criterion == fit.refit(2.0 * y).criterion
    with pytest.raises(mm.DataError, match="data="):
        loaded.update(". ~ . - Days")
    assert list(loaded.update(". ~ . - Days", data=sleepstudy).fixef) == ["(Intercept)"]
    assert loaded.solver.describe() == fit.solver.describe()


def test_equal_fits_give_equal_files(fit, tmp_path):
    fit.save(tmp_path / "a")
    fit.save(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    saved(fit, tmp_path).save(tmp_path / "c")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "c").read_bytes()


def test_stateful_transforms_and_contrasts_survive(sleepstudy, tmp_path):
    data = sleepstudy.assign(half=np.where(sleepstudy["Days"] < 5, "early", "late"))
    fit = mm.lmm(
        "Reaction ~ poly(Days, 2) + scale(Days):half + (scale(Days) | Subject)",
        data,
        contrasts={"half": "sum"},
    )
    loaded = saved(fit, tmp_path)
    assert_same(fit, loaded, data.iloc[[5]])


def test_interactions_weights_missing_values_survive(sleepstudy, tmp_path):
    data = sleepstudy.assign(w=1.0 + np.arange(180) % 3, half=(sleepstudy["Days"] < 5).astype(int))
    data.loc[4, "Reaction"] = np.nan
    data.loc[9, "w"] = 0.0
    fit = mm.lmm("Reaction ~ Days + (1 | Subject:half)", data, weights="w", na_action="exclude")
    loaded = saved(fit, tmp_path)
    assert_same(fit, loaded, data.iloc[10:40])
    by_array = mm.lmm(FORMULA, sleepstudy, weights=np.linspace(1, 2, 180), offset=np.ones(180))
    again = saved(by_array, tmp_path)
    assert again.criterion == by_array.criterion
    assert np.array_equal(again.fitted(), by_array.fitted())


def test_models_from_matrices_survive(tmp_path):
    data = mm.load_dataset("Dyestuff", backend="pandas")
    batch = mm.RandomTerm("Batch", (), data["Batch"].to_numpy().astype(str), None, None, "us")
    fit = mm.LinearMixedModel.from_matrices(data["Yield"], np.ones((30, 1)), [batch]).fit()
    loaded = saved(fit, tmp_path)
    assert str(loaded) == str(fit)
    assert np.array_equal(loaded.fitted(), fit.fitted())


def test_functions_must_be_passed_again(sleepstudy, tmp_path):
    def double(x):
        return 2.0 * x

    fit = mm.lmm("Reaction ~ double(Days) + (1 | Subject)", sleepstudy, functions={"double": double})
    path = tmp_path / "fit.mm"
    fit.save(path)
    with pytest.raises(mm.DataError, match=r"functions=.*'double'"):
        mm.load(path)
    loaded = mm.load(path, functions={"double": double})
    assert np.array_equal(loaded.predict(sleepstudy), fit.predict(sleepstudy))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a zip",
        b"PK\x03\x04 broken",
        pd.DataFrame({"a": [1]}).to_csv().encode(),
    ],
)
def test_foreign_files(tmp_path, content):
    path = tmp_path / "other.mm"
    path.write_bytes(content)
    with pytest.raises(mm.DataError, match=r"other\.mm' is damaged or is not a fit saved by mixedmodels"):
        mm.load(path)


def rewritten(source, target, change):
    """A copy of a file with its tree changed."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "fit.json":
                tree = json.loads(content)
                change(tree)
                content = json.dumps(tree).encode()
            new.writestr(name, content)


def test_damaged_files(fit, tmp_path):
    path, bad = tmp_path / "fit.mm", tmp_path / "bad.mm"
    fit.save(path)
    content = path.read_bytes()
    bad.write_bytes(content[: len(content) // 2])
    with pytest.raises(mm.DataError, match="damaged"):
        mm.load(bad)
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 0xFF
    bad.write_bytes(bytes(flipped))
    with pytest.raises(mm.DataError, match="damaged"):
        mm.load(bad)
    rewritten(path, bad, lambda tree: tree.pop("optimum"))
    with pytest.raises(mm.DataError, match="damaged"):
        mm.load(bad)
    rewritten(path, bad, lambda tree: tree.update(frame={"$": "array", "number": 10**6}))
    with pytest.raises(mm.DataError, match="damaged"):
        mm.load(bad)
    rewritten(path, bad, lambda tree: tree.update(kind="something else"))
    with pytest.raises(mm.DataError, match="not a fit"):
        mm.load(bad)
    rewritten(path, bad, lambda tree: tree.update(format=99))
    with pytest.raises(mm.DataError, match="format 99"):
        mm.load(bad)


def test_missing_file_and_unwritable_place(fit, tmp_path):
    with pytest.raises(mm.DataError, match="No such file"):
        mm.load(tmp_path / "nothing.mm")
    with pytest.raises(mm.DataError, match="No such file"):
        fit.save(tmp_path / "no" / "where.mm")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "path",
    ["os:system", "builtins:eval", "mixedmodels.cli:main", "mixedmodels.design:np", "subprocess:Popen"],
)
def test_a_file_cannot_name_other_classes(fit, tmp_path, path):
    good, bad = tmp_path / "fit.mm", tmp_path / "bad.mm"
    fit.save(good)
    tree = {"$": "object", "class": path, "attributes": {}}
    rewritten(good, bad, lambda whole: whole.update(options=tree))
    with pytest.raises(mm.DataError, match="damaged"):
        mm.load(bad)
    with pytest.raises((ValueError, AttributeError)):
        Decoder([]).decode(tree)


def test_pickled_arrays_are_refused(fit, tmp_path):
    good, bad = tmp_path / "fit.mm", tmp_path / "bad.mm"
    fit.save(good)
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.array([{}], dtype=object), allow_pickle=True)
    with zipfile.ZipFile(good) as old, zipfile.ZipFile(bad, "w") as new:
        for name in old.namelist():
            new.writestr(name, stream.getvalue() if name == "0.npy" else old.read(name))
    with pytest.raises(mm.DataError, match="damaged"):
        mm.load(bad)


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        3,
        -1.5,
        "text",
        (1, ("a", None)),
        [1.0, [2.0]],
        {"a": 1, 2: "b"},
        {1, 2},
        frozenset({"x"}),
        range(3, 9, 2),
        slice(1, None),
        b"\x00\xff",
    ],
)
def test_codec_keeps_plain_values(value):
    tree = json.loads(json.dumps(Encoder().encode(value)))
    back = Decoder([]).decode(tree)
    assert back == value and type(back) is type(value)


def test_codec_keeps_floats_and_arrays():
    encoder = Encoder()
    shared = np.arange(3)
    value = [
        np.inf,
        -np.inf,
        shared,
        shared,
        np.array(["a", None], dtype=object),
        np.datetime64("2024-01-02"),
    ]
    tree = json.loads(json.dumps(encoder.encode(value), allow_nan=False))
    back = Decoder(encoder.arrays).decode(tree)
    assert back[:2] == [np.inf, -np.inf]
    assert back[2] is back[3] and len(encoder.arrays) == 2
    assert back[4].tolist() == ["a", None]
    assert back[5] == value[5]
    assert np.isnan(Decoder([]).decode(Encoder().encode(float("nan"))))
    with pytest.raises(mm.DataError, match="function"):
        Encoder().encode(lambda: None)
