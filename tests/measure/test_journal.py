"""What is kept of an unfinished benchmark: read as it was written, damage found, no links."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import JsonValue

from bench.measure import journal
from bench.measure.journal import JournalFolder, identity_difference
from bench.measure.run_state import BenchmarkState, RunState
from mnist_cnn.errors import UnwrittenCheckpointError, UsageError
from tests.commands import ROOT

MANIFEST = BenchmarkState(
    benchmark_id="b" * 32,
    every=2,
    identity={"recipe.epochs": 3, "commit": None},
    current=RunState(run_index=1, seed=0, epoch=2, digests=("0" * 64,)),
)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
def test_a_pipe_in_place_of_a_manifest_ends(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "benchmark.json")
    folder = JournalFolder(tmp_path)
    with pytest.raises(UsageError, match="not a regular file"):
        folder.manifest()
    folder.release()


@pytest.mark.parametrize("name", ["benchmark.json", ".benchmark.json.tmp", ".lock"])
def test_no_state_is_written_through_a_link(name: str, tmp_path: Path) -> None:
    victim, kept = tmp_path / "victim", tmp_path / "kept"
    victim.write_text("precious")
    kept.mkdir()
    (kept / name).symlink_to(victim)
    with contextlib.suppress(OSError, UnwrittenCheckpointError):
        JournalFolder(kept).write(MANIFEST)
    assert victim.read_text() == "precious"


def test_a_manifest_is_read_as_it_was_written(tmp_path: Path) -> None:
    folder = JournalFolder(tmp_path / "kept")
    assert folder.manifest() is None
    folder.write(MANIFEST)
    assert folder.manifest() == MANIFEST
    folder.release()


@pytest.mark.parametrize("position", [0, 10, 70, 200])
def test_a_changed_byte_of_a_manifest_is_found(position: int, tmp_path: Path) -> None:
    folder = JournalFolder(tmp_path)
    folder.write(MANIFEST)
    path = tmp_path / "benchmark.json"
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)
    with pytest.raises(UsageError, match="is damaged"):
        folder.manifest()
    folder.release()


def test_what_no_checkpoint_needs_is_removed(tmp_path: Path) -> None:
    folder = JournalFolder(tmp_path)
    needed = tmp_path / "seed-0-epoch-2-rank-0.pt"
    for name in (needed.name, "seed-0-epoch-1-rank-0.pt", ".seed-0-epoch-4-rank-0.pt.9.tmp"):
        (tmp_path / name).touch()
    others = [tmp_path / name for name in ("best.pt", "seed-0-epoch-1-rank-0.pt.bak", "x.tmp")]
    for path in others:
        path.touch()
    folder.tidy(MANIFEST)
    kept = {path for path in tmp_path.iterdir() if not path.name.startswith(".lock")}
    assert kept == {needed, *others}
    folder.remove()
    assert set(tmp_path.iterdir()) == set(others)
    folder.release()
    for path in others:
        path.unlink()
    JournalFolder(tmp_path).remove()
    assert not tmp_path.exists()


def test_the_first_difference_is_named() -> None:
    kept: dict[str, JsonValue] = {"recipe.epochs": 3, "commit": "a", "data.x": "\x1b[31m"}
    assert identity_difference(kept, dict(kept)) is None
    assert identity_difference(kept, kept | {"commit": "b"}) == 'its commit is "a", here it is "b"'
    said = identity_difference(kept, {"recipe.epochs": 3, "commit": "a"})
    assert said is not None
    assert "\x1b" not in said


def test_who_keeps_its_checkpoints_there_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(journal, "LOCK_SECONDS", 0.5)
    script = (
        "import sys; from pathlib import Path; from bench.measure.journal import JournalFolder\n"
        "folder = JournalFolder(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, tmp_path],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(UsageError, match=f"another benchmark.*process {holder.pid} .*--checkp"):
            JournalFolder(tmp_path)
        said = capsys.readouterr().err
        assert said.startswith("mnist-bench: waiting for another process that keeps its checkpoint")
        assert f"process {holder.pid}" in said
        holder.communicate(b"")
    JournalFolder(tmp_path).release()
