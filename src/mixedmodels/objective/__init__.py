"""Criteria as functions of theta: value, gradient, second derivatives, certificate."""
