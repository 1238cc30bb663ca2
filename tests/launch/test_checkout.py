"""`mnist-bench ab --a-commit`, `--b-commit`: other commits, in worktrees of their own.

git is the real program. The project is tiny: its set-up and runs take no time. Only the slow test
runs this project.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import stat
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from bench.cli import main
from bench.launch import checkout
from bench.launch.ab import LOOKS
from bench.launch.supervisor import EndedProcesses, run_each
from bench.machine import repository
from bench.records import sidecars, store
from bench.records.folders import LOCAL_DIR
from bench.records.schema import RunRecord
from mnist_cnn import folder_lock
from tests.factories import make_record
from tests.stand_ins import FEW_IMAGES

command = importlib.import_module("bench.cli.ab")  # the package has the function by that name
ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="no git")

SETUP = f"""#!/bin/sh
set -eu
cd "$(dirname "$0")/.."
[ -x .venv/bin/python ] && exit 0
echo "on the output of the set-up"
echo "setting up" >&2
mkdir -p .venv/bin
printf '#!/bin/sh\\nexec "{sys.executable}" "$@"\\n' >.venv/bin/python
chmod +x .venv/bin/python
"""
RUN = """
import datetime, json, os, pathlib, subprocess, sys, uuid
assert not {"PYTHONPATH", "VIRTUAL_ENV", "GIT_DIR"} & set(os.environ)
root = pathlib.Path(__file__).resolve().parent.parent
options = {word: value for word, value in zip(sys.argv, sys.argv[1:]) if word.startswith("--")}
record = json.loads((root / "record.json").read_text())
record |= {
    "run_id": uuid.uuid4().hex,
    "label": options["--label"],
    "started_at": datetime.datetime.now(datetime.timezone.utc).isoformat(),
}
record["environment"]["commit"] = record["environment"]["commit"] or subprocess.run(
    ["git", "-C", root, "rev-parse", "HEAD"], capture_output=True, text=True, check=True
).stdout.strip()
for lap in record["laps"]:
    lap["seconds"] *= 1 + 0.001 * (record["run_id"].encode()[0] % 7)
folder = pathlib.Path(options["--results-dir"])
folder.mkdir(parents=True, exist_ok=True)
(folder / (record["run_id"] + ".json")).write_text(json.dumps(record))
"""


class Project:
    """A git repository for the tests, and the cache folder beside it."""

    def __init__(self, folder: Path, cache: Path) -> None:
        self.folder = folder
        self.cache = cache
        self.git("init", "--quiet")
        self.write("scripts/setup", SETUP)
        self.write("bench/run.py", RUN)
        self.write(".gitignore", ".venv/\n")

    def git(self, *words: str) -> str:
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.invalid"]
        return subprocess.run(
            ["git", "-C", self.folder, *identity, *words],
            env={name: text for name, text in os.environ.items() if not name.startswith("GIT_")},
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()

    def write(self, name: str, content: str) -> None:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(content)
        if content.startswith("#!"):
            path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def commit(self, seconds: float = 6.5, schema: int = 5, says: str | None = None) -> str:
        """Commit everything, with the record that runs of this commit leave.

        Args:
            seconds: training time of an epoch.
            schema: version of its records.
            says: the commit in its records; None for the true one.
        """
        values: dict[str, Any] = make_record(train_seconds=seconds).model_dump(mode="json")
        if schema < 5:
            for name in ("energy", "mistakes", "monitoring"):
                del values[name]
            del values["setup"]["captured"]
        values["schema_version"] = schema
        values["environment"]["commit"] = says
        self.write("record.json", json.dumps(values))
        self.git("add", ".")
        self.git("commit", "--quiet", "--no-verify", "--message", "a state")
        return self.git("rev-parse", "HEAD")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    (tmp_path / "the project").mkdir()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    made = Project(tmp_path / "the project", tmp_path / "my cache")
    monkeypatch.setattr(command, "PROJECT", made.folder)
    monkeypatch.setattr(checkout, "checkouts_folder", lambda: made.cache)
    # Variables that a git hook, an activated environment and the user's own path set.
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("VIRTUAL_ENV", sys.prefix)
    monkeypatch.setenv("GIT_DIR", str(tmp_path))
    return made


def records(side: str) -> list[RunRecord]:
    runs = store.read_records([LOCAL_DIR]).records
    return [record for _, record in runs if str(record.label).startswith(f"ab-{side} ")]


@pytest.mark.slow
def test_each_side_runs_its_own_commit(project: Project, capfd: pytest.CaptureFixture[str]) -> None:
    """One commit writes an older schema; equal options with other commits are not equal sides."""
    old = project.commit(seconds=6.5, schema=4)
    new = project.commit(seconds=8.5)
    assert main(["ab", "--a-commit", "HEAD~1", "--b-commit", new[:9]]) == 0
    streams = capfd.readouterr()
    assert "worse" in streams.out
    assert "interleaved" in streams.out
    assert "output of the set-up" not in streams.out
    assert {r.environment.commit for r in records("a")} == {old}
    assert {r.environment.commit for r in records("b")} == {new}
    assert len(records("a")) == len(records("b")) == LOOKS[0]
    for side, commit in (("a", old), ("b", new)):
        place = project.cache / commit[:12]
        line = f"{side}: commit {commit[:12]}, kept for later use in {place}\n"
        assert streams.err.count(line) == 1
    assert streams.err.count("setting up") == 2
    assert not list(LOCAL_DIR.rglob("*.noise"))

    assert main(["ab", "--a-commit", old, "--b-commit", new, "--rounds", "1", "--name", "x"]) == 0
    assert "setting up" not in capfd.readouterr().err


@pytest.mark.slow
def test_one_commit_on_both_sides_measures_the_noise_floor(
    project: Project, capfd: pytest.CaptureFixture[str]
) -> None:
    commit = project.commit()
    project.git("tag", "v1")
    assert main(["ab", "--a-commit", "v1", "--b-commit", "HEAD"]) == 0
    streams = capfd.readouterr()
    assert streams.err.count(f"a and b: commit {commit[:12]}") == 1
    (floor,) = sidecars.read_noise_floors([LOCAL_DIR])
    assert floor.commit == commit


@pytest.mark.slow
def test_unequal_options_of_one_commit_measure_none(project: Project) -> None:
    project.commit()
    words = ["--a-commit", "HEAD", "--b-commit", "HEAD", "--b", "--threads 1"]
    assert main(["ab", *words]) == 0
    assert not list(LOCAL_DIR.rglob("*.noise"))


@pytest.mark.slow
def test_one_commit_named_is_not_what_is_checked_out(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other side is this checkout, replaced by a run that writes the same records."""
    commit = project.commit()

    def run_here(
        words: list[str], environments: list[dict[str, str]], **options: Any
    ) -> EndedProcesses:
        if words[:2] == [sys.executable, str(ROOT / "bench" / "run.py")]:
            assert environments == [dict(os.environ)]
            words = [sys.executable, str(project.folder / "bench" / "run.py"), *words[2:]]
            environments = [checkout.checkout_environment()]
        return run_each(words, environments, **options)

    monkeypatch.setattr("bench.launch.single_run.run_each", run_here)
    assert main(["ab", "--b-commit", "HEAD"]) == 0
    assert {r.environment.commit for r in (*records("a"), *records("b"))} == {commit}
    assert not list(LOCAL_DIR.rglob("*.noise"))


@pytest.mark.slow
def test_a_worktree_that_was_removed_by_hand_is_made_anew(
    project: Project, capfd: pytest.CaptureFixture[str]
) -> None:
    commit = project.commit()
    words = ["ab", "--a-commit", "HEAD", "--b-commit", "HEAD", "--rounds", "1"]
    assert main(words) == 0
    shutil.rmtree(project.cache / commit[:12])
    assert main([*words, "--name", "again"]) == 0
    assert capfd.readouterr().err.count("setting up") == 2


# Errors, each one line from this program


def refused(capfd: pytest.CaptureFixture[str], *words: str) -> str:
    """The last line on stderr; only other programs may print before it."""
    assert main(["ab", *words]) == 2
    streams = capfd.readouterr()
    assert streams.out == ""
    assert streams.err.count("mnist-bench: error: ") == 1
    last = streams.err.splitlines()[-1]
    assert last.startswith("mnist-bench: error: ")
    return last


@pytest.mark.parametrize("option", ["--a-commit", "--b-commit"])
@pytest.mark.parametrize("revision", ["no-such", "", "--git-dir", "--all", "HEAD:record.json"])
def test_a_revision_that_is_no_commit(
    project: Project, capfd: pytest.CaptureFixture[str], option: str, revision: str
) -> None:
    project.commit()
    line = refused(capfd, f"{option}={revision}")
    assert f"{option}: {revision!r} is not a commit of {project.folder}" in line
    assert not project.cache.exists()


def test_what_a_revision_would_tell_the_terminal_is_left_out(
    project: Project, capfd: pytest.CaptureFixture[str]
) -> None:
    assert "\x1b" not in refused(capfd, "--a-commit", "\x1b[31mred")


def test_outside_a_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "PROJECT", tmp_path)
    line = refused(capfd, "--b-commit", "HEAD")
    assert f"--b-commit: {tmp_path} is not a git checkout" in line


def test_without_git(
    project: Project, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(project.folder))
    assert "--a-commit: git is not installed" in refused(capfd, "--a-commit", "HEAD")


@pytest.mark.parametrize(
    ("setup", "message"),
    [
        ("#!/bin/sh\necho no such package >&2\nexit 2\n", "failed; see above"),
        ("#!/bin/sh\n", "left no .venv/bin/python"),
        ("not a program", "has no scripts/setup that can be run"),
        (None, "has no scripts/setup that can be run"),
    ],
)
def test_a_set_up_that_fails(
    project: Project, capfd: pytest.CaptureFixture[str], setup: str | None, message: str
) -> None:
    (project.folder / "scripts" / "setup").unlink()
    if setup is not None:
        project.write("scripts/setup", setup)
    project.commit()
    assert message in refused(capfd, "--a-commit", "HEAD")
    # The failed set-up leaves nothing that the next call would accept.
    assert message in refused(capfd, "--a-commit", "HEAD")


def test_a_set_up_that_takes_too_long_is_ended(
    project: Project, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(checkout, "SETUP_SECONDS", 1.0)
    project.write("scripts/setup", "#!/bin/sh\nsleep 3600\n")
    commit = project.commit()
    assert main(["ab", "--a-commit", commit, "--b-commit", commit]) == 2
    assert "was not done after 0.0167 minutes and was ended" in capfd.readouterr().err


def test_git_that_takes_too_long_is_ended_and_leaves_nothing(
    project: Project, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(repository, "WORKTREE_SECONDS", 1.0)
    commit = project.commit()
    hook = project.folder / ".git" / "hooks" / "post-checkout"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\nsleep 3600\n")
    hook.chmod(0o755)
    assert main(["ab", "--a-commit", commit, "--b-commit", commit]) == 2
    assert "git was not done after 0.0167 minutes" in capfd.readouterr().err
    assert not (project.cache / commit[:12]).exists()


def test_who_creates_the_worktree_is_named(
    project: Project, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    commit = project.commit()
    wait = folder_lock.locked
    monkeypatch.setattr(folder_lock, "locked", partial(wait, longest_seconds=0.5))
    with wait(project.cache / f".{commit[:12]}", print, purpose="waits"):
        assert main(["ab", "--a-commit", commit, "--b-commit", commit]) == 2
    said = capfd.readouterr().err
    assert f"waiting for another process that creates the worktree of commit {commit[:12]}" in said
    assert f"process {os.getpid()} has held" in said


def test_a_worktree_that_was_changed(project: Project, capfd: pytest.CaptureFixture[str]) -> None:
    place = project.cache / project.commit()[:12]
    words = ["--a-commit", "HEAD", "--b-commit", "HEAD", "--rounds", "1"]
    assert main(["ab", *words]) == 0
    capfd.readouterr()
    (place / "bench" / "run.py").write_text("")
    assert f"{place} is not an unchanged checkout" in refused(capfd, *words)


def test_a_cache_that_cannot_be_written_to(
    project: Project, capfd: pytest.CaptureFixture[str]
) -> None:
    commit = project.commit()
    project.cache.write_text("a file")
    line = refused(capfd, "--a-commit", "HEAD")
    assert f"cannot keep commit {commit[:12]} in {project.cache}" in line


def test_a_run_of_another_commit_is_noticed(
    project: Project, capfd: pytest.CaptureFixture[str]
) -> None:
    commit = project.commit(says="f" * 40)
    line = refused(capfd, "--a-commit", "HEAD", "--b-commit", "HEAD")
    assert f"a run of commit {commit[:12]} recorded {'f' * 40}" in line


def test_records_of_a_schema_to_come_are_named(
    project: Project, capfd: pytest.CaptureFixture[str]
) -> None:
    project.commit(schema=99)
    LOCAL_DIR.mkdir(parents=True)
    (LOCAL_DIR / "another.json").write_text("{}")  # an older problem, which is not reported
    line = refused(capfd, "--a-commit", "HEAD", "--b-commit", "HEAD")
    assert "left no record that can be read here" in line
    assert "its schema_version is 99" in line


# With this project


@pytest.mark.thorough
def test_a_real_run_of_the_last_commit(
    tmp_path: Path,
    mnist_data_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """The commit's own set-up finds this environment complete, so it builds none."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    clone, cache = tmp_path / "clone", tmp_path / "cache"
    subprocess.run(["git", "clone", "--quiet", "--no-checkout", ROOT, clone], check=True)
    git = ["git", "-C", str(clone)]
    commit = subprocess.run(
        [*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True
    ).stdout.strip()
    place = cache / commit[:12]
    subprocess.run([*git, "worktree", "add", "--quiet", "--detach", place, commit], check=True)
    log, python = tmp_path / "log", place / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    few_images = "".join(f"export {name}='{text}'\n" for name, text in FEW_IMAGES.items())
    python.write_text(f'#!/bin/sh\n{few_images}echo "$*" >>"{log}"\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    lines = (place / "scripts" / "setup").read_text().splitlines()
    stamp = [line for line in lines if re.match(r"python=|compilers\(\)|made_of\(\)", line)]
    script = "\n".join([*stamp, "made_of >.venv/made-of"])
    subprocess.run(["sh", "-euc", script], cwd=place, check=True)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "PROJECT", clone)
    monkeypatch.setattr(checkout, "checkouts_folder", lambda: cache)
    for name, text in FEW_IMAGES.items():
        monkeypatch.setenv(name, text)
    options = ["--recipe", "fast", "--epochs", "2", "--kernels", "torch", "--rounds", "1"]
    data = ["--threads", "1", "--data-dir", str(mnist_data_dir)]
    assert main(["ab", "--a-commit", "HEAD", *options, *data]) == 0
    streams = capfd.readouterr()
    assert "time an image" in streams.out
    assert "set-up:" not in streams.err
    runs = [line for line in log.read_text().splitlines() if "bench/run.py" in line]
    assert len(runs) == 1
    assert runs[0].startswith(str(place / "bench" / "run.py"))
    (a,), (b,) = records("a"), records("b")
    assert (a.environment.commit, a.environment.dirty) == (commit, False)
    assert a.recipe == b.recipe
