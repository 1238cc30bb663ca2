"""What several test modules need: real MNIST, got once, and the records that are committed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from mnist_cnn.data.dataset import MnistData, load
from mnist_cnn.data.download import fetch

# A shell that starts the tests in the background has them ignore SIGINT, and nohup SIGHUP. So would
# every program that a test starts and interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
for ending in (getattr(signal, name) for name in ("SIGHUP", "SIGTERM") if hasattr(signal, name)):
    if signal.getsignal(ending) is signal.SIG_IGN:
        signal.signal(ending, signal.SIG_DFL)
# Some commands here may write no whole files: half a file of bytecode would break the next ones.
os.environ["PYTHONDONTWRITEBYTECODE"] = "1"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--renew-golden",
        action="store_true",
        help="write the files that are compared whole as the code makes them now: read the diff",
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin each half with what takes long: two workers get a half each, and then end together.

    Of a module, the slow tests stay together and the others do, because they share fixtures.
    """
    modules = list(dict.fromkeys(item.path for item in items))
    second_half = set(modules[1::2])

    def place(item: pytest.Item) -> tuple[bool, bool]:
        return item.path in second_half, item.get_closest_marker("slow") is None

    items.sort(key=place)


@pytest.fixture(autouse=True)
def own_environment() -> Iterator[None]:
    """What a test, or the code it calls, sets in the environment ends with the test.

    Ranks name a network interface there, for one: programs of later tests would take it too.
    """
    before = dict(os.environ)
    yield
    for name in os.environ.keys() - before.keys() - {"PYTEST_CURRENT_TEST"}:
        del os.environ[name]
    os.environ.update(before)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Two workers share the cores: more of torch's threads would mostly wait for each other.

    Also where there is one worker: sums are in the same order, and the last bits then the same.
    """
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def mnist_data_dir() -> Path:
    """The default data folder, filled through the real sources where it is not yet."""
    return fetch().folder


@pytest.fixture(scope="session")
def mnist(mnist_data_dir: Path) -> MnistData:
    """The whole data set. Shared by all tests: do not write to its tensors."""
    return load(mnist_data_dir, offline=True)


@pytest.fixture
def fresh_accelerate() -> Iterator[None]:
    """Accelerate keeps one state a process, and refuses another precision than the first."""
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def check_golden(request: pytest.FixtureRequest) -> Callable[[Path, bytes], None]:
    """Compares a file, as it was once found good, with what the code makes now; or renews it."""

    def check(file: Path, content: bytes) -> None:
        if request.config.getoption("renew_golden"):
            file.write_bytes(content)
        assert file.read_bytes() == content, (
            f"{file.name} has changed; if that is meant, renew it with --renew-golden"
        )

    return check


@pytest.fixture
def committed(tmp_path: Path) -> Path:
    """A folder with the results/ that is committed: whoever follows the README has made more."""
    root = Path(__file__).resolve().parent.parent
    listed = subprocess.run(
        ["git", "ls-files", "results"], cwd=root, capture_output=True, text=True, check=False
    ).stdout.split()
    if not listed:
        pytest.skip("not a git checkout")
    for name in listed:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / name, tmp_path / name)
    return tmp_path
