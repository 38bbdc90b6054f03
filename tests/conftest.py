"""Fits that many tests look at; fits are frozen, so they may be shared."""

from __future__ import annotations

import pytest

import mixedmodels as mm

FORMULA = "Reaction ~ Days + (Days | Subject)"


@pytest.fixture(scope="session")
def sleepstudy():
    return mm.load_dataset("sleepstudy", backend="pandas")


@pytest.fixture(scope="session")
def fit(sleepstudy):
    return mm.lmm(FORMULA, sleepstudy)


@pytest.fixture(scope="session")
def fit_ml(sleepstudy):
    return mm.lmm(FORMULA, sleepstudy, reml=False)
