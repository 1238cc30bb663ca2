"""Exports trained weights: a model file that others can run, and a card with its accuracy."""
