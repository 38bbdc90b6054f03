"""Engines that integrate the random effects out: Laplace's approximation and quadrature."""
