"""Benchmarks against lme4 and Python packages: the same problems for every peer, timed in the same run."""
