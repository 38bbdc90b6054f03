"""Whether a fit can be trusted: diagnosis, influence, residuals, variance explained, robust covariances."""
