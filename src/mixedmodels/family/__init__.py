"""Distributions and links: will hold the families of generalised linear mixed models, one per file."""
