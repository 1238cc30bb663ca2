"""The check `status`: how a run ended, against what the record holds of it."""

from __future__ import annotations

from collections.abc import Iterator

from bench.records.schema import RunRecord, Status
from bench.verify.checks import Check, for_each_record


def _find_status_problems(record: RunRecord) -> Iterator[str]:
    completed = record.status is Status.COMPLETED
    if completed and record.reason is not None:
        yield "it says completed, and why it is not"
    if not completed and not record.reason:
        yield f"it says {record.status}, and not why"
    losses = [epoch.loss for epoch in record.epochs]
    if None in losses and record.status is Status.COMPLETED:
        yield "it says completed, but a training loss is not a number"
    if record.status is Status.DIVERGED and (not losses or losses[-1] is not None):
        yield "it says diverged, but its last training loss is a number"
    if record.status in (Status.FAILED, Status.INTERRUPTED) and _has_everything(record):
        yield f"it says {record.status}, but it trained and evaluated everything"


def _has_everything(record: RunRecord) -> bool:
    """Whether all epochs are trained and the last one is evaluated."""
    planned = record.recipe.get("epochs")
    if not isinstance(planned, int) or len(record.epochs) < planned or not record.evaluations:
        return False
    return record.evaluations[-1].epoch == planned


STATUS = Check(
    "status",
    "completed, failed, interrupted or diverged is what the record's epochs and losses show",
    "Records must not be edited, whatever came out: restore the file as the run wrote it.",
    for_each_record(_find_status_problems),
)
