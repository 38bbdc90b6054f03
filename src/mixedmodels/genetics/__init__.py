"""Pedigrees and relationship matrices: will hold the animal model's known precisions."""
