"""Fits: frozen results, their values, predictions, checks and storage."""
