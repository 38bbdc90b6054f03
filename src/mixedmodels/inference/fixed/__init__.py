"""Tests of the fixed effects: coefficients, linear hypotheses, analysis of variance, dropping terms."""
