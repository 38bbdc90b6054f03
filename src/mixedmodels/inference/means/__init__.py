"""Marginal means, slopes, contrasts and what is asked of them."""
