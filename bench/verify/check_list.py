"""The list of the checks of this room, in the order in which they run."""

from __future__ import annotations

from bench.verify.checks import Check
from bench.verify.command_checks import COMMAND, RECIPE
from bench.verify.commit_checks import COMMIT, PARAMETERS
from bench.verify.file_checks import PRIVATE, RECORDS
from bench.verify.fingerprint_checks import FINGERPRINT
from bench.verify.plan_checks import PLANS
from bench.verify.plausibility_checks import PLAUSIBLE
from bench.verify.record_checks import DATA, DIVISION, LAPS, PROTOCOL
from bench.verify.seed_checks import SEEDS
from bench.verify.status_checks import STATUS

CHECKS: tuple[Check, ...] = (
    RECORDS,
    DATA,
    SEEDS,
    PLANS,
    COMMIT,
    PROTOCOL,
    LAPS,
    STATUS,
    PLAUSIBLE,
    COMMAND,
    RECIPE,
    FINGERPRINT,
    PRIVATE,
    PARAMETERS,
    DIVISION,
)
