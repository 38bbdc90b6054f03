"""Degrees of freedom: which reference distribution a contrast of the fixed effects has."""
