"""What a published file gives away is found, and what only looks like it is let be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from bench.records.store import to_json
from bench.verify.privacy import find_leaks, own_names
from tests.factories import records


def kinds(text: str, where: str = "label", names: tuple[str, ...] = ()) -> set[str]:
    """What is found in a record's field of that name."""
    value: object = text
    for step in reversed(where.split(".")):
        value = {step: value}
    return {leak.split(": ")[1] for leak in find_leaks(json.dumps(value), names)}


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("/home/alice/x", "a home folder"),
        ("--results-dir=/Users/alice", "a home folder"),
        (r"C:\Users\Alice Smith", "a home folder"),
        ("/mnt/c/users/alice", "a home folder"),
        ("/root/bench", "a home folder"),
        ("alice@example.org", "a user at a host"),
        ("ssh alice@node7", "a user at a host"),
        ("node7.cluster.local", "a host name"),
        ("ip-10-0-3-17", "a host name"),
        ("DESKTOP-A1B2C3D", "a host name"),
        ("Alices-MacBook-Pro", "a host name"),
        ("10.0.3.17", "an IP address"),
        ("tcp://192.168.1.7:29500", "an IP address"),
        ("fe80::1ff:fe23:4567:890a", "an IP address"),
        ("00:1B:44:11:3A:B7", "a MAC address"),
        ("00-1b-44-11-3a-b7", "a MAC address"),
        ("GPU-8f6e1c2a-0d3b-4c5d-9e8f-001122334455", "a device's UUID"),
        ("Serial Number: C02XG0FDH7JY", "a serial number"),
        ("s/n 4711", "a serial number"),
        ("hf_abcdefghijklmnopqrstuvwxyz012345", "a token"),
        ("ghp_abcdefghijklmnopqrstuvwxyz0123456789", "a token"),
        ("AKIAIOSFODNN7EXAMPLE", "a token"),
        ("HF_TOKEN=abcdefgh", "a token"),
        ("--api-key abcdefgh", "a token"),
        ("https://alice:secret99@host/x", "a token"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----", "a token"),
        ("d41d8cd98f00b204e9800998ecf8427e", "an identifier or a key"),
    ],
)
def test_what_gives_somebody_away_is_found(text: str, kind: str) -> None:
    assert kind in kinds(text)
    assert kind in kinds(f"before {text} after")
    # In a list of words, which is what a command is, and in a file that is no JSON.
    assert any(
        f": {kind}: " in leak for leak in find_leaks(json.dumps({"command": ["x", text]}), ())
    )
    assert any(f": {kind}: " in leak for leak in find_leaks(f"not json: {text}", ()))


@pytest.mark.parametrize(
    ("where", "text"),
    [
        ("command", "bench/run.py"),
        ("command", ".venv/bin/mnist-bench"),
        ("command", "../measure/scratch/ab"),
        ("setup.accelerate_config", "~/.cache/huggingface/accelerate/default_config.yaml"),
        ("label", "floor-a 20261125T153113Z"),
        ("label", "accuracy only: machine shared"),
        ("label", "14:33:35"),
        ("label", "lr 0.1.2"),
        ("label", "127.0.0.1"),
        ("label", "std::vector"),
        ("label", "the home of tokens"),
        ("label", "homework/1"),
        ("environment.packages.nvidia-cublas-cu12", "12.8.4.1"),
        ("environment.driver", "31.0.101.5333"),
        ("environment.cpu", "Intel(R) Xeon(R) CPU @ 2.20GHz"),
        ("environment.os", "Debian GNU/Linux 12 (bookworm), Linux 6.18.44-fc-v669 x86_64"),
        ("environment.commit", "5a846a37885658fea1f4cb0ec3471782980a272c"),
        ("run_id", "3787f5f70d914bbfbdc13ed459dd365e"),
        ("dataset.x", "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"),
        ("environment.source_sha256", "b" * 64),
        ("environment.library_sha256", "7" * 64),
        ("plan.plan_sha256", "c" * 64),
        ("plan.previous_sha256", "d" * 64),
        ("calibration.work", "fp32 product of 512 x 512 matrices on cpu, 1 thread"),
        ("started_at", "2026-11-25T14:33:35.735556Z"),
    ],
)
def test_what_names_nobody_is_let_be(where: str, text: str) -> None:
    assert kinds(text, where) == set()


def test_names_are_looked_for_where_people_type() -> None:
    names = ("margarethe", "intel")
    assert kinds("by Margarethe's", names=names) == {"your own or your machine's name"}
    assert kinds("margarethes", names=names) == set()
    assert kinds("Intel(R) Xeon(R)", "environment.cpu", names) == set()


def test_names_that_everybody_has_are_nobody_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pathlib.Path.home", lambda: Path("/root"))
    monkeypatch.setattr("socket.gethostname", lambda: "localhost")
    monkeypatch.setattr("getpass.getuser", lambda: "root")
    assert own_names() == frozenset()

    def nameless() -> str:
        raise KeyError("getpwuid(): uid not found: 1001")

    monkeypatch.setattr("getpass.getuser", nameless)
    monkeypatch.setattr("socket.gethostname", lambda: "Box7.example.org")
    assert own_names() == {"box7", "box7.example.org"}


@pytest.mark.slow
@given(st.text() | records().map(to_json))
def test_any_text_can_be_looked_through(text: str) -> None:
    assert all(": " in leak for leak in find_leaks(text, ("alice",)))
