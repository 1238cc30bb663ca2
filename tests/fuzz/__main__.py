"""`./scripts/fuzz`: give mutated files to every reader, and print which promises were broken."""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from pathlib import Path

from tests.fuzz.campaign import Broken, fuzz, watch_writes
from tests.fuzz.promises import Target
from tests.fuzz.targets import targets

_MOST_SHOWN = 3
"""Most broken promises of a reader that are shown: they are often alike."""


def main() -> int:
    """Fuzz.

    Returns:
        The exit status: 1 where a promise was broken.
    """
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description=__doc__)
    parser.add_argument("words", nargs="*", help="only readers whose name holds one of these words")
    parser.add_argument("--minutes", type=float, default=10, help="CPU time of all together")
    parser.add_argument("--seed", type=int, default=0, help="seed of the inputs")
    parser.add_argument("--keep", type=Path, help="folder for the inputs that broke a promise")
    options = parser.parse_args()
    chosen = [t for t in targets() if not options.words or any(w in t.name for w in options.words)]
    watch_writes()
    print("| reader | inputs | CPU seconds | broken |\n|---|---|---|---|", flush=True)
    found = [
        _fuzz(target, options.seed, 60 * options.minutes / len(chosen), options.keep)
        for target in chosen
    ]
    return 1 if sum(found) else 0


def _fuzz(target: Target, seed: int, seconds: float, keep: Path | None) -> int:
    """Fuzz one reader for so many CPU seconds, and print a row; returns the number of broken."""
    begin, inputs = time.process_time(), 0
    all_broken: list[Broken] = []
    for broken in fuzz(target, seed, itertools.count()):
        inputs += 1
        if broken is not None:
            all_broken.append(broken)
        if time.process_time() - begin > seconds:
            break
    took = time.process_time() - begin
    print(f"| {target.name} | {inputs:,} | {took:.0f} | {len(all_broken)} |", flush=True)
    for broken in all_broken[:_MOST_SHOWN]:
        shown = f"{len(broken.content):,} bytes, {broken.content[:60]!r}"
        print(f"input {broken.number} ({shown}):\n{broken.what}", file=sys.stderr, flush=True)
        if keep is not None:
            keep.mkdir(parents=True, exist_ok=True)
            (keep / f"{target.name} {broken.number}".replace(" ", "-")).write_bytes(broken.content)
    return len(all_broken)


if __name__ == "__main__":
    sys.exit(main())
