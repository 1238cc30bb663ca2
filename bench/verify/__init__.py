"""May this folder of records stand beside the others? One function per check."""
