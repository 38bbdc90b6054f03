"""Compiled kernels (Cython). Each has the dense reference solver as its test oracle."""
