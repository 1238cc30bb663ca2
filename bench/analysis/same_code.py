"""What one side of a comparison must be: runs of one state of the code.

Pooled, the runs of two commits would hide the slowdown between them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from bench.analysis.run_sets import COMMIT_MARK, SHORTEST_COMMIT, RunSet
from bench.records.schema import Environment, RunRecord
from bench.text import count_of, printable
from mnist_cnn.errors import UsageError


def require_one_state(side: RunSet, case: str, records: Sequence[RunRecord]) -> None:
    """Refuse runs of several states of the code as one side.

    Two commits with the same source code are one state; a commit with changed files is another than
    the commit itself. What records do not say is no difference.

    Args:
        side: the runs that one name stands for.
        case: the name of the set-up.
        records: its runs of that set-up.

    Raises:
        UsageError: there are several; the message names them and says how to name one.
    """
    states = Counter(_states(records))
    if len(states) > 1:
        listed = ", ".join(f"{state} ({count_of(n, 'run')})" for state, n in states.items())
        raise UsageError(
            f"{printable(side.name)} holds runs of {len(states)} states of the code ({case}): "
            f"{printable(listed)}; {_remedy(side, states)}"
        )


def _states(records: Sequence[RunRecord]) -> list[str]:
    """The state of the code of each run that says: by its sources where all runs know theirs."""
    environments = [record.environment for record in records]
    by_sources = all(environment.source_sha256 for environment in environments)
    names: dict[str, str] = {}
    states = []
    for environment in environments:
        if environment.commit is None and environment.version is None and not by_sources:
            continue
        name = _name(environment)
        sources = environment.source_sha256
        if by_sources and sources:
            # The first commit of the same sources lends its name.
            name = names.setdefault(sources, _unlike(name, sources, names))
        states.append(name)
    return states


def _name(environment: Environment) -> str:
    """The commit, or the version of an installed copy."""
    if environment.commit is None:
        return "no commit" if environment.version is None else f"version {environment.version}"
    commit = environment.commit[:SHORTEST_COMMIT]
    return f"{commit} with changes" if environment.dirty else commit


def _unlike(name: str, sources: str, names: dict[str, str]) -> str:
    """The name, or with the start of the sources' sum where other sources have that name."""
    return f"{name}, sources {sources[:SHORTEST_COMMIT]}" if name in names.values() else name


def _remedy(side: RunSet, states: Counter[str]) -> str:
    if any(" " in state for state in states):  # not commits alone
        return "name the benchmark ids or the files of one"
    most_runs = max(reversed(states), key=lambda state: states[state])  # the newest of them
    return f"name one of them, such as {printable(side.name)}{COMMIT_MARK}{most_runs}"
