"""How the steps of an epoch are driven: one by one, or as a recorded graph."""
