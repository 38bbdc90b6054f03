"""Refits of many responses: bootstrap, intervals, power."""
