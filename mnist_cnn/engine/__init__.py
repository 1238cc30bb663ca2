"""How the steps of an epoch are driven: eagerly, or as a recorded graph."""
