"""Programs and modules that the tests put in place of something else."""

from pathlib import Path

FEW_IMAGES = {"PYTHONPATH": str(Path(__file__).resolve().parent / "few_images")}
"""Variables for a process that is to find few images in the data set, as its children then do."""
