"""Answers of the classical algorithms: variance components, their information, the course of a search."""
