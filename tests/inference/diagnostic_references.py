"""The values of tests/references/diagnostics and the fits they belong to."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import numpy as np

import mixedmodels as mm

FILE = Path(__file__).parent.parent / "references" / "diagnostics" / "values.json"


@functools.cache
def values():
    return {key: np.array(value) for key, value in json.loads(FILE.read_text(encoding="utf-8")).items()}


@functools.cache
def fit_of(name):
    """The fits of make.R: rows left out so that nothing is balanced."""
    if name == "sleep":
        data = mm.load_dataset("sleepstudy", backend="pandas")
        number = np.arange(1, 181)
        return mm.lmm("Reaction ~ Days + (Days | Subject)", data[(number % 5 != 0) & (number % 7 != 0)])
    if name == "pastes":
        data = mm.load_dataset("Pastes", backend="pandas")
        return mm.lmm("strength ~ 1 + (1 | batch/cask)", data.drop(index=[0, 7, 8, 29, 30, 31]))
    if name == "machines":
        data = mm.load_dataset("Machines", backend="pandas").drop(index=[1, 10, 32])
        return mm.lmm("score ~ Machine + (1 | Worker) + (1 | Worker:Machine)", data)
    if name == "cake":
        data = mm.load_dataset("cake", backend="pandas").iloc[25:]
        return mm.lmm("angle ~ recipe * temp + (1 | recipe:replicate)", data)
    data = mm.load_dataset("Penicillin", backend="pandas").iloc[9:]
    return mm.lmm("diameter ~ 1 + (1 | plate) + (1 | sample)", data)
