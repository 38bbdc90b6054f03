"""The simulated data of dirmeier/mixed-models (docs/mixed-models.ipynb), drawn as its notebook says.

    PYTHONPATH=src python tests/references/notebook/make.py > tests/references/notebook/simulated.csv

Design of the sleepstudy data; seed 23, beta = (2, 1), Q = 0.1 [[1, 0.25], [0.25, 1]], sigma^2 = 0.1; y is
drawn right after the random effects. (The notebook's cells were run in another order, so that some of its
printed figures belong to other data.)
"""

import numpy as np
from scipy.stats import multivariate_normal

import mixedmodels as mm

sleep = mm.load_dataset("sleepstudy", backend="pandas")
X = np.column_stack([np.ones(180), sleep["Days"]])
U = np.zeros((180, 36))
for i in range(180):
    U[i, 2 * (i // 10) : 2 * (i // 10) + 2] = X[i]
Q = 0.1 * np.array([[1.0, 0.25], [0.25, 1.0]])
np.random.seed(23)  # noqa: NPY002 - as in the notebook
gamma = multivariate_normal.rvs(np.zeros(36), np.kron(np.eye(18), Q))
y = multivariate_normal.rvs(X @ [2.0, 1.0] + U @ gamma, 0.1 * np.eye(180))
print("y,Days,Subject")
for value, days, subject in zip(y.tolist(), sleep["Days"], sleep["Subject"], strict=True):
    print(f"{value!r},{days:g},{subject}")
