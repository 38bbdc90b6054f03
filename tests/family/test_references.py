"""glmmTMB's fits: the Laplace value at its parameters, and the maximum found from our own starts.

Designs are put together by hand here, so that families are tested without the formulas of `glmm`.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path

import numpy as np
import pytest

from mixedmodels.design import GeneralisedDesign, Predictor
from mixedmodels.family import Observations, get_family
from mixedmodels.family.zero import with_zeros
from mixedmodels.frame import build
from mixedmodels.objective.glmm import GLMMObjective
from mixedmodels.objective.glmm_coordinates import Coordinates
from mixedmodels.objective.marginal.dense import DenseLaplace
from mixedmodels.optimize.trust_region import trust_region
from mixedmodels.testing.reference_data import read_reference_table

HERE = Path(__file__).parents[1] / "references"
SALAMANDERS = "count ~ spp + mined + (1 | site)"
OWLS = "SiblingNegotiation ~ FoodTreatment * SexParent + offset(logBroodSize) + (1 | Nest)"

# id: family, formula, those of zero_inflation and dispersion
FITS = {
    "tmb_betabinomial": ("betabinomial", "succ ~ x + (1 | g)", None, None),
    "tmb_tweedie": ("tweedie", "y ~ x + (1 | g)", None, None),
    "tmb_tdist": ("t", "y ~ x + trt + (1 | g)", None, None),
    "tmb_sal_zip": ("poisson", SALAMANDERS, "count ~ spp + mined + (1 | site)", None),
    "tmb_sal_zinb2": ("nbinom2", "count ~ spp * mined + (1 | site)", "count ~ mined + (1 | site)", None),
    "tmb_sal_hurdle_pois": ("truncated_poisson", SALAMANDERS, SALAMANDERS, None),
    "tmb_sal_hurdle_nb2": (
        "truncated_nbinom2",
        "count ~ mined + cover + (1 | site)",
        "count ~ mined + cover + (1 | site)",
        None,
    ),
    "tmb_sal_genpois": ("genpois", "count ~ mined + cover + (1 | site)", None, None),
    "tmb_sal_nb2": ("nbinom2", SALAMANDERS, None, None),
    "tmb_sal_disp": ("nbinom2", SALAMANDERS, None, "count ~ DOY + (1 | site)"),
    "tmb_owls_zip": ("poisson", OWLS, "SiblingNegotiation ~ 1 + (1 | Nest)", None),
    "tmb_owls_zinb2": ("nbinom2", OWLS, "SiblingNegotiation ~ 1 + (1 | Nest)", None),
    "tmb_owls_zinb1_cov": (
        "nbinom1",
        "SiblingNegotiation ~ FoodTreatment + ArrivalTime + offset(logBroodSize) + (1 | Nest)",
        "SiblingNegotiation ~ FoodTreatment + (1 | Nest)",
        None,
    ),
    "own_ordbeta_agq1": ("ordbeta", "y01 ~ x + trt + (1 | g)", None, None),
}
IDS = list(FITS)


@functools.cache
def reference(id_):
    return json.loads((HERE / "glmm" / f"{id_}.json").read_text(encoding="utf-8"))


def internal(ref, stem):
    """Values of one kind among glmmTMB's parameters."""
    return [value for name, value in ref["internal"].items() if name.split(".")[0] == stem]


@functools.cache
def problem(id_):
    """Objective and the reference's parameters."""
    ref = reference(id_)
    name, formula, zero, dispersion = FITS[id_]
    table = read_reference_table(HERE / "data", ref["data"])
    family = get_family(name) if zero is None else with_zeros(get_family(name))
    own = id_.startswith("own")
    design = build(formula, table, sigma_fixed=True).design
    gamma = [ref["beta"][column][0] for column in design.x_names]
    predictors = [Predictor("conditional", design.X, np.arange(design.p), design.offset)]
    terms, where = [*design.terms], [0] * len(design.terms)
    theta = [*ref["theta"].values()] if own else [*np.exp(internal(ref, "theta"))]
    psi = [ref["dispersion"][key] for key in ("psi1", "log_psi2_minus_psi1")] if own else internal(ref, "psi")
    scalars = [*psi]
    for c, kind in enumerate(family.predictors[1:], 1):
        X = None
        if kind == "zero_inflation":
            part = build(zero, table, sigma_fixed=True).design
            X, found = part.X, internal(ref, "betazi")
            if "varcorr_zi" in ref:
                terms += part.terms
                where += [c] * len(part.terms)
                theta += [*np.exp(internal(ref, "thetazi"))]
        elif kind == "dispersion":
            if dispersion is not None:
                X = build(dispersion, table, sigma_fixed=True).design.X
            found = [ref["dispersion"]["log_precision"]] if own else internal(ref, "betad")
        else:
            found = [scalars.pop(0)]
        predictors.append(Predictor(kind, X, np.arange(len(gamma), len(gamma) + len(found))))
        gamma += found
    trials = table["total"].to_numpy(float) if name == "betabinomial" else None
    names = tuple(f"gamma{i}" for i in range(len(gamma)))
    data = Observations(design.y, trials)
    whole = GeneralisedDesign(data, tuple(predictors), names, tuple(terms), tuple(where))
    coordinates = Coordinates(whole)
    objective = GLMMObjective(coordinates, DenseLaplace(coordinates.inner, family))
    return objective, np.array([*gamma, *theta])


@pytest.mark.parametrize("id_", IDS)
def test_value_at_the_reference(id_):
    objective, psi = problem(id_)
    # the ordered beta reference stops its inner search at 1e-10
    rel = 1e-10 if id_.startswith("own") else 1e-12
    assert objective.value(psi) == pytest.approx(-2.0 * reference(id_)["objective"]["logLik"], rel=rel)


@pytest.mark.parametrize("id_", IDS)
def test_the_reference_is_stationary(id_):
    """The gradient in the search's coordinates is what the reference's own polishing left."""
    if reference(id_)["tolerance"]["note"].startswith("variance parameter on"):
        pytest.skip("the reference stopped on the way to a variance of zero")
    objective, psi = problem(id_)
    _, gradient, hessian = objective.newton(objective.v_of(psi))
    step = np.linalg.solve(hessian, gradient)
    assert float(gradient @ step) < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("id_", IDS)
def test_maximum_from_our_start(id_):
    objective, psi = problem(id_)
    found = trust_region(objective.newton, objective.v_of(objective.start))
    expected = -2.0 * reference(id_)["objective"]["logLik"]
    assert found.value < expected + 1e-7 * abs(expected)
    if not reference(id_)["tolerance"]["note"].startswith("variance parameter on"):
        n = objective.n_gamma
        np.testing.assert_allclose(objective.psi_of(found.theta)[:n], psi[:n], rtol=1e-4, atol=1e-4)
