"""Tests by likelihood: comparisons of models, random terms, exact distributions at the boundary."""
