"""`python -m tests.faults`: provoke all faults, or random ones, and print what was seen."""

from __future__ import annotations

import argparse
import sys

from tests.faults.campaign import run_campaign
from tests.faults.catalogue import catalogue
from tests.faults.harness import provoke, violations


def main() -> int:
    """Provoke faults.

    Returns:
        The exit status: 1 where a promise was broken.
    """
    parser = argparse.ArgumentParser(prog="scripts/faults", description=__doc__)
    parser.add_argument("words", nargs="*", help="only faults whose name holds one of these words")
    parser.add_argument("--minutes", type=float, help="provoke random faults for so long instead")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first random fault")
    options = parser.parse_args()
    if options.minutes is not None:
        return 1 if run_campaign(options.minutes, options.seed) else 0
    return 1 if provoke_all(options.words) else 0


def provoke_all(words: list[str]) -> int:
    """Print a row for each fault: `fault | expected | seen`.

    Returns:
        The number of faults that broke a promise.
    """
    broken = 0
    for case in catalogue():
        if words and not any(word in case.name for word in words):
            continue
        seen = provoke(case)
        found = violations(case, seen)
        broken += bool(found)
        outcome = "; ".join(found) or f"as expected, {seen.seconds:.1f} s after it"
        print(f"{case.name} | {case.expected} | {outcome}", flush=True)
        if found:
            print(seen.err[-1500:], file=sys.stderr, flush=True)
    return broken


if __name__ == "__main__":
    sys.exit(main())
