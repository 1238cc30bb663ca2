"""Trained weights as a model file for others, with a card that states its measured accuracy."""
