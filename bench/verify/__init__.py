"""May this folder of records stand beside the others? One check per promise."""
