"""Estimation in the variance components themselves: the textbook algorithms, each with its history."""
