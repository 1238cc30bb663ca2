"""Faults that are provoked for real: who dies, of what, when, and what is left."""
