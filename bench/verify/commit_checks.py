"""Checks of the code that made the records: its commit, and the size of its network."""

from __future__ import annotations

from collections.abc import Iterator

from bench.text import printable
from bench.verify.checks import Check, CheckFinding, ResultsFolder

PARAMETER_LIMIT = 20_000
"""The limit of `mnist_cnn.model`, which needs torch to import."""


def _commit(folder: ResultsFolder) -> Iterator[CheckFinding]:
    for name, record in folder.records:
        commit, dirty = record.environment.commit, record.environment.dirty
        if commit is None:
            why = record.environment.commit_unknown_reason
            known = "" if why is None else f" ({printable(why)})"
            yield CheckFinding(f"{name}: no commit{known}")
        elif dirty is not False:
            yield CheckFinding(f"{name}: files differed from commit {printable(commit)[:12]}")
        elif commit not in folder.history.commits:
            reason = folder.history.unknown
            yield CheckFinding(
                f"{name}: commit {printable(commit)[:12]} is not in this checkout's history"
                + ("" if reason is None else f" ({reason})"),
                unknown=reason is not None,
            )


def _code(folder: ResultsFolder) -> Iterator[CheckFinding]:
    """The digest of the code that ran, against that of its commit: untracked files are code too."""
    digests: dict[str, str | None] = {}
    for name, record in folder.records:
        commit, source = record.environment.commit, record.environment.source_sha256
        if commit is None or source is None or commit not in folder.history.commits:
            continue  # an unknown commit is reported already, and older records have no digest
        if commit not in digests:
            digests[commit] = folder.history.source_digest(commit)
        expected = digests[commit]
        if expected is None:
            yield CheckFinding(f"{name}: git gives no code of {commit[:12]}", unknown=True)
        elif source != expected and record.environment.dirty is False:
            yield CheckFinding(f"{name}: the code that ran is not that of commit {commit[:12]}")


def _commit_and_code(folder: ResultsFolder) -> Iterator[CheckFinding]:
    yield from _commit(folder)
    yield from _code(folder)


def _parameters(folder: ResultsFolder) -> Iterator[CheckFinding]:
    names_by_commit: dict[str, list[str]] = {}
    for name, record in folder.records:
        names_by_commit.setdefault(record.environment.commit or "", []).append(name)
    for commit, names in names_by_commit.items():
        count = folder.history.parameters(commit)
        subject = names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
        if commit not in folder.history.commits:
            # The check of commits reports the unknown commit itself.
            yield CheckFinding(
                f"{subject}: the code of its commit is not in this checkout", unknown=True
            )
        elif count is None:
            yield CheckFinding(
                f"{subject}: the code at {commit[:12]} asserts no number of parameters"
            )
        elif count >= PARAMETER_LIMIT:
            yield CheckFinding(f"{subject}: the network at {commit[:12]} has {count:,} parameters")


COMMIT = Check(
    "commit",
    "every run used a commit of this project, and no file differed from it",
    "Commit, or check out a commit of this project, then run again.",
    _commit_and_code,
)
PARAMETERS = Check(
    "parameters",
    f"the network has fewer than {PARAMETER_LIMIT:,} parameters, according to its commit's code",
    "Results are for networks below the limit: docs/protocol.md.",
    _parameters,
)
