"""What is recorded about a machine, and what is not."""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from bench.cli import main
from bench.cli.env import readable_values
from bench.machine import cores, environment, memory, system
from bench.machine.cores import usable_cores
from bench.machine.repository import (
    NO_CHECKOUT,
    PROJECT,
    CodeState,
    code_state,
    git_state,
    read_history,
    source_digest,
)
from bench.records import sidecars
from bench.records.machine_key import MachineKey
from bench.records.schema import Environment, Gpu, Processor
from bench.records.store import machine_name
from bench.verify.privacy import find_leaks
from mnist_cnn.errors import UsageError
from mnist_cnn.kernels import build, native
from mnist_cnn.kernels.native import library
from mnist_cnn.model import MnistCnn
from mnist_cnn.summary import training_flops
from tests.factories import ZEN_5

GIT = shutil.which("git")


@pytest.fixture(scope="module")
def this_machine() -> Environment:
    return environment.describe_environment("cpu", environment.device_name("cpu"))


# describe


def test_this_machine_is_described_and_survives_its_record(this_machine: Environment) -> None:
    assert Environment.model_validate_json(this_machine.model_dump_json()) == this_machine
    assert this_machine.device_name == this_machine.cpu != ""
    assert 1 <= this_machine.usable_cores <= this_machine.logical_cores
    assert this_machine.memory_bytes > 2**28
    assert this_machine.python.endswith(platform.python_version())
    assert this_machine.driver is None
    assert this_machine.device_memory_bytes is None
    assert this_machine.gpu is None
    assert this_machine.source_sha256 == source_digest(PROJECT)
    assert {"numpy", "torchvision", "pydantic", "safetensors"} <= this_machine.packages.keys()


def test_a_gpu_has_versions_of_its_libraries_too() -> None:
    library = re.compile(r"nvidia-(cublas|cudnn|nccl|cuda-runtime)(-cu\d+)?")
    installed = {
        one.name: one.version for one in metadata.distributions() if library.fullmatch(one.name)
    }
    versions = environment.package_versions("cuda")
    assert versions == dict(sorted((environment.package_versions("cpu") | installed).items()))


def test_the_compiled_library_is_known_by_its_sum(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "library"
    monkeypatch.setattr(library, "LIBRARY", file)
    assert environment.library_digest() is None
    file.write_bytes(b"code")
    assert environment.library_digest() == hashlib.sha256(b"code").hexdigest()


def test_nothing_says_whose_machine_it_is(this_machine: Environment) -> None:
    text = this_machine.model_dump_json()
    assert str(Path.home()) + os.sep not in text
    for secret in (platform.node(), getpass.getuser()):
        # Short names ("vm", "ci") may be parts of other words.
        assert len(secret) < 5 or secret not in text
    # As `verify` reads a record.
    assert list(find_leaks(json.dumps({"environment": this_machine.model_dump()}), ())) == []


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's files")
def test_features_are_those_of_the_kernels_list(monkeypatch: pytest.MonkeyPatch) -> None:
    cpuinfo = "processor\t: 0\nmodel name\t: A CPU\nflags\t\t: fpu avx2 amx_bf16 hypervisor\n"
    monkeypatch.setattr(environment, "read_proc", lambda name: cpuinfo)
    assert environment.cpu_name() == "A CPU"
    assert environment.cpu_features() == ["avx2", "amx_bf16"]
    assert environment.is_virtual_machine() is True


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's files")
def test_an_arm_system_does_not_say_whether_it_is_virtual(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "read_proc", lambda name: "Features\t: fp asimd bf16\n")
    monkeypatch.setattr(environment, "run_output", lambda *command: "Model name:   Neoverse-V1\n")
    monkeypatch.setattr(Path, "exists", lambda path: False)
    assert environment.cpu_name() == "Neoverse-V1"
    assert environment.cpu_features() == ["neon", "bf16"]
    assert environment.is_virtual_machine() is None


@pytest.mark.parametrize(
    "kernel_module",
    [
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024\n",
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  550.54.15  Release Build  (d)\n",
    ],
)
def test_the_driver_is_read_from_its_kernel_module(kernel_module: str) -> None:
    assert environment.nvidia_driver(kernel_module) == "550.54.15"


def test_no_kernel_module_no_driver() -> None:
    assert environment.nvidia_driver("") is None


# Cores


def cgroup(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_the_least_quota_on_the_way_up_counts(tmp_path: Path) -> None:
    mount = cgroup(
        tmp_path,
        {
            "own": "0::/a/b\n",
            "cpu.max": "max 100000\n",
            "a/cpu.max": "150000 100000\n",
            "a/b/cpu.max": "400000 100000\n",
        },
    )
    assert cores.cgroup_quota_cores(mount / "own", mount) == 1.5


def test_version_1_quotas_count_too_even_under_the_hosts_path(tmp_path: Path) -> None:
    mount = cgroup(
        tmp_path,
        {
            "own": "4:memory:/x\n3:cpu,cpuacct:/docker/0123\n",
            "cpu/cpu.cfs_quota_us": "300000\n",
            "cpu/cpu.cfs_period_us": "100000\n",
        },
    )
    assert cores.cgroup_quota_cores(mount / "own", mount) == 3


@pytest.mark.parametrize("files", [{}, {"own": "0::/\n", "cpu.max": "max 100000\n"}])
def test_no_quota_is_none(tmp_path: Path, files: dict[str, str]) -> None:
    mount = cgroup(tmp_path, files)
    assert cores.cgroup_quota_cores(mount / "own", mount) is None


@pytest.mark.skipif(sys.platform != "linux", reason="control groups are Linux's")
@pytest.mark.parametrize(("quota", "expected"), [(0.2, 1), (1.0, 1), (None, 4), (64.0, 4)])
def test_usable_cores_are_at_least_one(
    monkeypatch: pytest.MonkeyPatch, quota: float | None, expected: int
) -> None:
    monkeypatch.setattr(cores, "cgroup_quota_cores", lambda: quota)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3})
    assert usable_cores() == expected


# The commit


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    if GIT is None:
        pytest.skip("no git")
    (tmp_path / "results").mkdir()
    for name in ("code.py", "results/run.json"):
        (tmp_path / name).write_text("1\n")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--no-verify", "--message", "first")
    return tmp_path


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.invalid"]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return subprocess.run(
        ["git", "-C", folder, *identity, *arguments],
        env=inherited,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()


def test_a_clean_checkout_is_its_commit(repository: Path) -> None:
    assert git_state(repository) == (git(repository, "rev-parse", "HEAD"), False)


def test_records_and_untracked_files_are_no_dirt(repository: Path) -> None:
    (repository / "results" / "run.json").write_text("2\n")
    (repository / "results" / "new.json").write_text("2\n")
    (repository / "notes.txt").write_text("2\n")
    assert git_state(repository)[1] is False


@pytest.mark.parametrize("stage", [False, True])
def test_changed_code_is_dirt(repository: Path, stage: bool) -> None:
    (repository / "code.py").write_text("2\n")
    if stage:
        git(repository, "add", "code.py")
    assert git_state(repository)[1] is True


def test_a_hooks_variables_do_not_mislead(
    repository: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_DIR", str(tmp_path_factory.mktemp("elsewhere")))
    assert git_state(repository)[1] is False


def test_a_copy_inside_another_repository_is_none_of_its_commits(repository: Path) -> None:
    (repository / "site-packages").mkdir()
    assert git_state(repository / "site-packages") == (None, None)


def test_no_commit_yet(tmp_path: Path) -> None:
    if GIT is None:
        pytest.skip("no git")
    git(tmp_path, "init", "--quiet")
    assert git_state(tmp_path) == (None, None)


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        (None, "there is no git command"),
        ("exec sleep 60", "git did not answer within 0.2 s"),
        ("echo \"fatal: cannot read '/a b' in /home/me\" >&2; exit 128", "cannot read ... in ..."),
        ("exit 3", "git failed: exit status 3"),
        ("kill -9 $$", "git failed: exit status -9"),
        ("echo", "the checkout has no commit"),
    ],
)
def test_a_commit_that_cannot_be_known_has_a_reason(
    repository: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    program: str | None,
    reason: str,
) -> None:
    folder = tmp_path_factory.mktemp("bin")
    if program is not None:
        (folder / "git").write_text(f"#!/bin/sh\n{program}\n")
        (folder / "git").chmod(0o755)
        monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    else:
        monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(system.require_output, "__kwdefaults__", {"timeout_seconds": 0.2})
    state = code_state(repository)
    assert (state.commit, state.dirty) == (None, None)
    assert state.unknown_reason is not None
    assert reason in state.unknown_reason
    assert "/" not in state.unknown_reason, "a record holds no path"
    assert read_history(repository).unknown is not None


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="needs another user")
def test_a_checkout_of_another_user_says_what_to_do(repository: Path) -> None:
    for path in (repository, *repository.rglob("*")):
        os.chown(path, 12345, 12345, follow_symlinks=False)
    reason = code_state(repository).unknown_reason
    assert reason is not None
    assert "dubious ownership" in reason
    assert "safe.directory" in reason
    assert str(repository) not in reason
    assert "dubious ownership" in str(read_history(repository).unknown)


def test_a_copy_that_is_no_checkout_has_a_version_instead(tmp_path: Path) -> None:
    assert code_state(tmp_path) == CodeState(unknown_reason=NO_CHECKOUT)


def test_a_command_that_hangs_is_given_up_on() -> None:
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    assert system.run_output(*command, timeout_seconds=0.05) == ""


# The load


@pytest.mark.gpu
def test_a_gpu_is_described_and_its_peak_counted() -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    gpu = environment.describe_environment("cuda", environment.device_name("cuda"))
    assert gpu.device_name == torch.cuda.get_device_name()
    assert gpu.driver is not None
    assert gpu.device_memory_bytes is not None
    assert memory.reset_peak_memory("cuda")
    tensor = torch.zeros(2**24, dtype=torch.uint8, device="cuda")
    peak = memory.peak_memory("cuda", since_reset=True)
    assert peak.bytes is not None
    assert peak.bytes >= tensor.numel()


# mnist-bench env


def test_env_prints_what_a_run_would_choose(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["env"]) == 0
    lines = capsys.readouterr().out.splitlines()
    names = [line[:18].strip() for line in lines]
    assert names[:3] == ["device", "threads", "precision"]
    assert "cpu features" in names
    shown = dict(zip(names, (line[19:] for line in lines), strict=True))
    assert shown["machine"].startswith("key ")
    assert "{" not in shown["processor"]
    assert "=" not in shown["processor"]
    assert "reference fp32" in lines[2]


@pytest.mark.parametrize("is_old", [False, True])
def test_env_says_why_compiled_code_is_not_used(
    is_old: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Without a library, and with one of other source, which ends a run that would use it."""
    monkeypatch.setattr(library, "LIBRARY", tmp_path / "library")
    monkeypatch.setattr(build, "is_for_this_platform", lambda: True)
    monkeypatch.setattr("bench.measure.precision_choice.multiplies_bf16_fast", lambda device: False)
    reason = "it was not built"
    if is_old:
        reason = "the compiled code is not that of this source; "

        def refuse(kind: str) -> str:
            raise UsageError(f"{reason}{build.remedy()}")

        monkeypatch.setattr(native, "unavailable_reason", refuse)
    assert main(["env"]) == 0
    line = next(x for x in capsys.readouterr().out.splitlines() if x.startswith("compiled code"))
    assert reason in line
    assert line.endswith(build.remedy())
    assert all(kind in line for kind in library.KINDS)


def test_env_as_json_is_a_records_environment(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["env", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["device"] in ("cpu", "cuda", "mps", "xpu")
    assert printed["precision"]["reference"] == "fp32"
    found = Environment.model_validate(printed["environment"])
    assert printed["machine"] == {
        "key": MachineKey.of(found).label,
        "folder": machine_name(found),
    }


@pytest.mark.slow
def test_the_peak_is_at_least_what_a_product_reaches(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The shortest epoch follows from the peak and the network; the peak is saved."""
    assert main(["env", "--peak", "--save", "--results-dir", str(tmp_path), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    rates_and_time = printed["peak"]
    rates = [rate for name, rate in rates_and_time.items() if name.endswith("_gflops")]
    assert min(rates) > 0
    epoch_gigaflops = 60_000 * training_flops(MnistCnn()) / 1e9
    assert rates_and_time["least_epoch_seconds"] == pytest.approx(
        epoch_gigaflops / max(rates), rel=0.01
    )
    kept, broken = sidecars.read_peak_flops([tmp_path])
    assert not broken
    assert sorted(printed["saved"]) == sorted(map(str, tmp_path.rglob("*.peak")))
    assert {peak.precision for peak in kept} == set(printed["precision"].values())
    assert {peak.threads for peak in kept} == {
        printed["threads"] if printed["device"] == "cpu" else None
    }


def test_what_is_not_measured_is_not_kept(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["env", "--save"]) == 2
    assert "--save saves what --peak measures" in capsys.readouterr().err


def test_values_read_as_people_write_them() -> None:
    values: dict[str, object] = {
        "memory_bytes": 24 * 2**30,
        "virtual_machine": None,
        "dirty": True,
        "packages": {"numpy": "2.4"},
        "cpu_features": [],
        "processor": Processor.model_validate(ZEN_5 | {"max_mhz": 4100.0}),
        "gpu": Gpu(
            compute_capability="9.0",
            multiprocessors=132,
            power_limit_watts=700.0,
            max_memory_clock_mhz=2619,
            max_sm_clock_mhz=None,
        ),
    }
    assert readable_values(values) == [
        ("memory", "24.0 GiB"),
        ("virtual machine", "–"),
        ("dirty", "yes"),
        ("packages", "numpy 2.4"),
        ("cpu features", "–"),
        (
            "processor",
            "AuthenticAMD, family 26, model 2, stepping 1, zen5, L1d 48.0 KiB, L2 1.00 MiB, "
            "L3 32.0 MiB, 2 cores, up to 4100 MHz",
        ),
        (
            "gpu",
            "compute capability 9.0, 132 multiprocessors, power limit 700 W, "
            "memory clock up to 2619 MHz",
        ),
    ]
