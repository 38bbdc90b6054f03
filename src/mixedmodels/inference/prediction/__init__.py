"""Predictions with standard errors, confidence and prediction intervals."""
