"""Trained weights to hand on: a model file others can run, and a card that says how it does."""
