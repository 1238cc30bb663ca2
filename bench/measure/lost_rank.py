"""Why a run ended that has lost another rank: its own error is only a lost connection."""

from __future__ import annotations

from bench.measure.rank_ends import EndKind, RankEnd, first_end, is_lost_connection
from bench.records.schema import RunRecord, Status


def explained(record: RunRecord, error: BaseException | None) -> RunRecord:
    """The record with the rank that ended first, and how, if that is why the run has ended.

    Args:
        record: of a run that is over.
        error: what ended it; None where nothing did.
    """
    if record.status == Status.INTERRUPTED:
        # A launcher asks the other ranks to end when one has died: nobody has interrupted them.
        end = first_end(0.0)
        if end is None or end.kind > EndKind.CAUSE:
            return record
    elif record.status == Status.FAILED and is_lost_connection(error):
        end = first_end()
    else:
        return record
    status = Status.FAILED
    if end is not None and end.kind == EndKind.INTERRUPTED:
        status = Status.INTERRUPTED
    reason = _reason(end, record.setup.machines)
    return record.model_copy(update={"status": status, "reason": reason})


def _reason(end: RankEnd | None, machines: int) -> str:
    if end is not None:
        return str(end)
    if machines > 1:
        return (
            "no process of this machine died first, so another machine or the network did; the "
            "connection is lost"
        )
    return "the connection to another rank was lost, and none of them says why"
