"""`./scripts/faults`: provoke all faults, or random ones, and print what was seen."""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.commands import ROOT
from tests.faults.campaign import run_campaign
from tests.faults.catalogue import catalogue
from tests.faults.harness import NotPossibleError, provoke, violations

PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- faults -->\n", "<!-- /faults -->\n"
_AT_ONCE = 4
"""Faults that are provoked at the same time: some mostly wait."""
HEAD = "| fault | injected | expected | seen |\n|---|---|---|---|\n"


def main() -> int:
    """Provoke faults.

    Returns:
        The exit status: 1 where a promise was broken.
    """
    parser = argparse.ArgumentParser(prog="scripts/faults", description=__doc__)
    parser.add_argument("words", nargs="*", help="only faults whose name holds one of these words")
    parser.add_argument("--minutes", type=float, help="provoke random faults for so long instead")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first random fault")
    parser.add_argument(
        "--page", action="store_true", help="write the table of docs/reliability.md"
    )
    options = parser.parse_args()
    if options.minutes is not None:
        return 1 if run_campaign(options.minutes, options.seed) else 0
    broken, rows = provoke_all(options.words)
    if options.page:
        write_page(PAGE, rows)
    return 1 if broken else 0


def provoke_all(words: list[str]) -> tuple[int, list[str]]:
    """Provoke faults and print a row for each.

    Returns:
        The number of faults that broke a promise, and the rows.
    """
    cases = [case for case in catalogue() if not words or any(word in case.name for word in words)]
    broken, rows = 0, []
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        # Those that wait for two minutes first: the others pass them by.
        waiting = {
            case.name: pool.submit(provoke, case)
            for case in sorted(cases, key=lambda case: "is stopped" not in case.name)
        }
        for case in cases:
            try:
                seen = waiting[case.name].result()
            except NotPossibleError:
                print(f"not possible here: {case.name}", file=sys.stderr)
                continue
            found = violations(case, seen)
            broken += bool(found)
            outcome = "; ".join(found) or f"as expected, {seen.seconds:.1f} s"
            rows.append(f"| {case.name} | {case.how} | {case.expected} | {outcome} |\n")
            print(rows[-1], end="", flush=True)
            if found:
                print(seen.err[-1500:], file=sys.stderr, flush=True)
    return broken, rows


def write_page(page: Path, rows: list[str]) -> None:
    """Put the rows in the place of those that the page has of the same faults."""
    text = page.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    old, _, after = rest.partition(END)
    by_name = {row.split(" | ")[0]: row for row in old.removeprefix(HEAD).splitlines(True)}
    by_name |= {row.split(" | ")[0]: row for row in rows}
    kept = [by_name[f"| {case.name}"] for case in catalogue() if f"| {case.name}" in by_name]
    page.write_text(before + BEGIN + HEAD + "".join(kept) + END + after, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
