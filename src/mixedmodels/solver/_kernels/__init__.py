"""Compiled kernels (Cython). Each has the dense reference solver as its test oracle.

The OpenMP runtime reads its environment when it is loaded. Threads that spin while they wait for the next
loop slow everything else down, so unless the user has chosen otherwise they are asked to sleep.
"""

import os


def _load_openmp() -> None:
    chosen = any(name in os.environ for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"))
    if not chosen:
        os.environ["OMP_WAIT_POLICY"] = "passive"
    try:
        from mixedmodels.solver._kernels import grouped  # noqa: F401  (linked to the OpenMP runtime)
    finally:
        if not chosen:
            del os.environ["OMP_WAIT_POLICY"]


_load_openmp()
