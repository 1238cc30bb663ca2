"""The list of the checks of this room, in the order in which they run."""

from __future__ import annotations

from bench.verify.checks import Check
from bench.verify.commit_checks import COMMIT, PARAMETERS
from bench.verify.file_checks import PRIVATE, RECORDS
from bench.verify.record_checks import DATA, DIVISION, LAPS, PROTOCOL
from bench.verify.seed_checks import SEEDS

CHECKS: tuple[Check, ...] = (
    RECORDS,
    DATA,
    SEEDS,
    COMMIT,
    PROTOCOL,
    LAPS,
    PRIVATE,
    PARAMETERS,
    DIVISION,
)
