"""What the versions of the protocol mean for a record: how it is judged, what it compares with.

Version 2 changed two rules (docs/protocol.md). In the open division a run is judged at its last
evaluation, not at its first crossing of the target. Several processes take batch norm over the
same images as one, where the recipe has no groups.
"""

from __future__ import annotations

from bench.records.protocol import KNOWN_PROTOCOLS
from bench.records.schema import RunRecord


def judged_at_the_end(record: RunRecord) -> bool:
    """Whether the last evaluation decides if the run reached its target, rather than any."""
    return record.protocol.version >= 2 and record.division == "open"


def comparable_protocol(record: RunRecord) -> frozenset[int]:
    """The versions of the protocol by which the run would have been measured as it was.

    Runs are comparable where all have one of these versions in common.
    """
    version = record.protocol.version
    if version in KNOWN_PROTOCOLS and _same_norm(record) and _same_judgement(record):
        return frozenset(KNOWN_PROTOCOLS)
    return frozenset({version})


def table_protocol(record: RunRecord) -> int:
    """The newest of these versions; the runs of each are comparable with one another."""
    return max(comparable_protocol(record))


def _same_norm(record: RunRecord) -> bool:
    """Whether batch norm takes the same images under all known versions."""
    group, batch = (record.recipe.get(name) for name in ("norm_batch_size", "batch_size"))
    has_groups = isinstance(group, int) and isinstance(batch, int) and 0 < group < batch
    return record.setup.processes == 1 or has_groups


def _same_judgement(record: RunRecord) -> bool:
    """Whether the same evaluation decides under all known versions: there is no more than one."""
    if record.division == "closed":
        return True
    first, last = (record.recipe.get(name) for name in ("evaluate_from_epoch", "epochs"))
    return isinstance(first, int) and first == last and len(record.evaluations) <= 1
