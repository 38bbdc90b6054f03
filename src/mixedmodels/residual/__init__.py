"""Structures of the residual errors: will hold autocorrelation and variance functions, one per file."""
