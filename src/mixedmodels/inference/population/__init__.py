"""Population-averaged quantities: random effects integrated out of means."""
