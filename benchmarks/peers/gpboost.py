"""GPBoost: ML only, intercept and slope uncorrelated, no formula (making the matrix is timed)."""

from __future__ import annotations

import gpboost
import numpy as np
import pandas as pd
from formulaic import model_matrix

_LIKELIHOODS = {"gaussian": "gaussian", "binomial": "bernoulli_logit", "poisson": "poisson"}
NOTE = "random effects uncorrelated: its criterion differs where the model has slopes"


def version() -> str:
    return gpboost.__version__


def fit(case, frame):
    if case.reml or not case.fixed or case.family not in _LIKELIHOODS:
        raise NotImplementedError("maximum likelihood only, and not this model")
    response, rest = case.fixed.split("~")
    x = model_matrix(rest, frame)
    groups = np.column_stack([pd.Categorical(frame[name]).codes for name in case.groups]).astype(float)
    slopes = {}
    if case.slopes:
        slopes = {
            "group_rand_coef_data": frame[list(case.slopes)].to_numpy(float),
            "ind_effect_group_rand_coef": [1] * len(case.slopes),
        }
    model = gpboost.GPModel(group_data=groups, likelihood=_LIKELIHOODS[case.family], **slopes)
    model.fit(y=frame.eval(response.strip()).to_numpy(float), X=x.to_numpy())
    return model


def text(result) -> str:
    return f"{result.get_coef(std_err=True)}\n{result.get_cov_pars(std_err=False)}"


def objective(result) -> float:
    return 2.0 * float(result.get_current_neg_log_likelihood())
