"""Penalised least squares at given relative factors: dense reference, grouped, blocked."""
