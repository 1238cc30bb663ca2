"""Programs and modules that the tests put in place of something else."""

from pathlib import Path

FEW_IMAGES = {"PYTHONPATH": str(Path(__file__).resolve().parent / "few_images")}
"""Variables for a process that is to find few images in the data set, as its children then do."""
FEWER_IMAGES = FEW_IMAGES | {"FEW_IMAGES": "1280", "FEW_EVALUATION_IMAGES": "200"}
"""The same with even fewer: an epoch may end before a signal comes."""


def fault(*faults: str) -> dict[str, str]:
    """Variables for a process that also does something at an exact moment.

    Args:
        faults: see `tests/stand_ins/fault/sitecustomize.py`.
    """
    folder = Path(__file__).resolve().parent / "fault"
    return {"PYTHONPATH": str(folder), "FAULT": ";".join(faults)}
