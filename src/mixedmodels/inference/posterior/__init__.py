"""Posterior mode and posterior draws of linear mixed models with one grouping factor (Schafer's lmm)."""
