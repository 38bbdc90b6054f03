"""Profile likelihood: curves, limits, pairs."""
