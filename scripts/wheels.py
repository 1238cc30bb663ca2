"""Builds and checks what a release publishes. Start it by `./scripts/wheels`.

Everything is built from the source distribution, so that has been shown to build. The compiled
code of all platforms comes from one Linux machine (hatch_build.py). Nothing is written to the
output folder before all checks have passed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated
from zipfile import ZipFile

import shared_library
import typer

from mnist_cnn.console import run
from mnist_cnn.errors import UsageError

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import hatch_build  # noqa: E402  # it is beside the packages, not in one

TOOLS = ROOT / ".cache" / "wheels" / "bin" / "python"
UV = shutil.which("uv") or ROOT / ".venv" / "uv" / "bin" / "uv"
LIBRARY = f"{hatch_build.NATIVE}/{hatch_build.LIBRARY}"
REASON = f"{hatch_build.NATIVE}/{hatch_build.REASON}"
INSTALLERS = {
    "x86_64-manylinux_2_28": "manylinux_2_17_x86_64",
    "aarch64-manylinux_2_28": "manylinux_2_28_aarch64",
    "aarch64-apple-darwin": "macosx_11_0_arm64",
    "x86_64-pc-windows-msvc": "any",
}
"""By uv's name of a platform, the wheel that pip and uv must choose there, where it is built."""
PYTHONS = ("3.11", "3.14")
"""The oldest and the newest version of Python that must take the wheels."""
MAIN_JOB = "run --device cpu --runs 1 --epochs 3 --threads 1 --quiet"

app = typer.Typer(add_completion=False)


class CheckError(Exception):
    """A build or a check that failed; the text names it."""


@app.command()
def main(
    output: Annotated[Path, typer.Option(help="Folder for the files.")] = Path("dist"),
    tag: Annotated[
        str | None, typer.Option(help="Refuse to build if the release's tag is another.")
    ] = None,
    only: Annotated[
        str | None,
        typer.Option(help="Of the wheels with compiled code, build this platform's: for tests."),
    ] = None,
) -> int:
    """Build and check the wheels and the source distribution."""
    if not sys.platform.startswith("linux"):
        raise UsageError("the wheels are built on Linux, for all platforms")
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    if tag is not None:
        check_tag(tag, version)
    if only is not None and only not in hatch_build.TARGETS:
        raise UsageError(f"--only must be one of {', '.join(hatch_build.TARGETS)}, not {only!r}")
    try:
        with TemporaryDirectory() as temporary:
            files = make(Path(temporary), [only] if only else list(hatch_build.TARGETS))
            output.mkdir(parents=True, exist_ok=True)
            for file in files:
                shutil.copy(file, output)
                print(f"{file.stat().st_size / 1e6:6.2f} MB  {output / file.name}")
    except CheckError as error:
        print(f"wheels: {error}", file=sys.stderr)
        return 1
    return 0


def make(folder: Path, platforms: Sequence[str]) -> list[Path]:
    """Build all files in a folder and check them.

    Args:
        folder: an empty one.
        platforms: those of the wheels with compiled code.

    Returns:
        The files of the release.

    Raises:
        CheckError: something does not build or is not as it must be.
    """
    built = folder / "dist"
    say("building the source distribution")
    build("--sdist", ROOT, built)
    (sdist,) = built.iterdir()
    check_sdist(sdist)
    execute(["tar", "-xf", sdist, "-C", folder])
    source = folder / sdist.name.removesuffix(".tar.gz")

    targets = [*platforms, "any"]
    for target in targets:
        say(f"building the wheel for {target}")
        build("--wheel", source, built, MNIST_BENCH_TARGET=target)
    wheels = {target: find_wheel(built, target) for target in targets}
    say("checking the files")
    for target, wheel in wheels.items():
        check_wheel(wheel, target)
    check_exports(wheels)
    execute([TOOLS, "-m", "twine", "check", "--strict", *built.iterdir()])
    for platform in INSTALLERS:
        check_choice(platform, set(targets), built, folder)
    here = next(name for name, t in hatch_build.TARGETS.items() if t == hatch_build.target_here())
    if here not in wheels:
        raise CheckError(f"there is no wheel for {here} to install on this machine")
    say(f"installing the wheel for {here} and training with it")
    check_installed(wheels[here], folder)
    return sorted(built.iterdir())


def say(line: str) -> None:
    """Print what is being done."""
    print(f"wheels: {line}", file=sys.stderr, flush=True)


def execute(
    command: Sequence[object], folder: Path = ROOT, /, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end.

    Raises:
        CheckError: it failed.
    """
    words = [str(word) for word in command]
    # What is tested must not find the checkout.
    inherited = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
    completed = subprocess.run(
        words, cwd=folder, env=inherited | environment, capture_output=True, text=True, check=False
    )
    if completed.returncode:
        print(completed.stdout, completed.stderr, sep="\n", file=sys.stderr)
        raise CheckError(f"exit status {completed.returncode}: {' '.join(words)}")
    return completed


def build(kind: str, source: Path, output: Path, **environment: str) -> None:
    """Build one file with the pinned tools. ziglang's C++ library is compiled once a user."""
    cache = os.environ.get("ZIG_GLOBAL_CACHE_DIR", str(Path.home() / ".cache" / "zig"))
    command = [TOOLS, "-m", "build", "--no-isolation", kind, "--outdir", output, source]
    execute(command, ROOT, ZIG_GLOBAL_CACHE_DIR=cache, **environment)


def find_wheel(folder: Path, target: str) -> Path:
    """The wheel for a target: it has no Python ABI, only a platform."""
    wheels = list(folder.glob(f"*-py3-none-{target}.whl"))
    if len(wheels) != 1:
        raise CheckError(f"{len(wheels)} wheels are tagged py3-none-{target}, not 1")
    return wheels[0]


def check_tag(tag: str, version: str) -> None:
    """A release's tag, version, changelog and citation agree.

    Raises:
        UsageError: they do not.
    """
    if tag != f"v{version}":
        raise UsageError(f"the tag is {tag!r}, but pyproject.toml has version {version}")
    heading = rf"^## {re.escape(version)} \(\d{{4}}-\d\d-\d\d\)$"
    if not re.search(heading, (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE):
        raise UsageError(f"CHANGELOG.md has no heading '## {version} (YYYY-MM-DD)'")
    if f"\nversion: {version}\n" not in (ROOT / "CITATION.cff").read_text():
        raise UsageError(f"CITATION.cff does not have version {version}")


def check_names(archive: Path, names: set[str], made: set[str]) -> None:
    """An archive holds files of the repository's packages, and no others but what the build made.

    Raises:
        CheckError: another file is in it, or a file of the packages is missing.
    """
    listed = execute(["git", "-C", ROOT, "ls-files"]).stdout.splitlines()
    packages = {name for name in listed if name.startswith(("bench/", "mnist_cnn/"))}
    if foreign := names - set(listed) - made:
        raise CheckError(f"{archive.name} holds {min(foreign)}, which is not in the repository")
    if left_out := packages - names:
        raise CheckError(f"{archive.name} lacks {min(left_out)}")
    if data := [name for name in names if name.startswith(("tests/", "results/"))]:
        raise CheckError(f"{archive.name} holds {data[0]}, which no user needs")


def check_sdist(sdist: Path) -> None:
    """The source distribution holds what builds a wheel, and no library.

    Raises:
        CheckError: it does not.
    """
    with tarfile.open(sdist) as archive:
        names = {member.name.partition("/")[2] for member in archive if member.isfile()}
    check_names(sdist, names, {"PKG-INFO"})
    if missing := {"hatch_build.py", "pyproject.toml", "README.md", "LICENSE"} - names:
        raise CheckError(f"{sdist.name} lacks {min(missing)}")


def check_wheel(wheel: Path, target: str) -> None:
    """A wheel holds the library of its platform, or the reason why it has none.

    Raises:
        CheckError: it does not.
    """
    made = REASON if target == "any" else LIBRARY
    with ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        if made not in names:
            raise CheckError(f"{wheel.name} lacks {made}")
        check_names(wheel, names, {made})
        content = archive.read(made)
    if target == "any":
        return
    library = shared_library.parse(content)
    expected = hatch_build.TARGETS[target]
    if library.architecture != expected.architecture or library.system not in expected.zig:
        raise CheckError(
            f"{wheel.name} holds a library for {library.system} on {library.architecture}"
        )
    if library.system == "linux":
        shown = execute([TOOLS, "-m", "auditwheel", "show", "--json", wheel]).stdout
        # The oldest system that the symbols it uses allow; older than the tag says is well.
        allowed = json.loads(shown)["overall_tag"]
        versions = [re.findall(r"manylinux_(\d+)_(\d+)_", name) for name in (allowed, target)]
        if not versions[0] or [*map(int, versions[0][0])] > [*map(int, versions[1][0])]:
            raise CheckError(f"auditwheel calls {wheel.name} {allowed}")


def check_exports(wheels: dict[str, Path]) -> None:
    """The libraries of all platforms export the same functions of C.

    Raises:
        CheckError: one lacks a function that another has.
    """
    exported = {}
    for target, wheel in wheels.items():
        if target != "any":
            with ZipFile(wheel) as archive:
                exported[target] = shared_library.parse(archive.read(LIBRARY)).functions
    every = frozenset().union(*exported.values())
    for target, functions in exported.items():
        if missing := every - functions:
            raise CheckError(f"the library for {target} does not export {min(missing)}")


def check_choice(platform: str, targets: set[str], built: Path, folder: Path) -> None:
    """An installer on a platform chooses the wheel made for it, in old and new versions of Python.

    Raises:
        CheckError: it chooses another.
    """
    expected = INSTALLERS[platform] if INSTALLERS[platform] in targets else "any"
    for python in PYTHONS:
        place = folder / f"{platform}-{python}"
        options = ["--no-deps", "--no-index", "--find-links", built, "--target", place]
        versions = ["--python-platform", platform, "--python-version", python]
        execute([UV, "pip", "install", *options, *versions, "mnist-bench"])
        (described,) = place.glob("*.dist-info/WHEEL")
        if f"\nTag: py3-none-{expected}\n" not in described.read_text():
            raise CheckError(f"Python {python} on {platform} does not take the {expected} wheel")


def check_installed(wheel: Path, folder: Path) -> None:
    """Installed outside the repository, the wheel's library loads and the main job runs.

    The other packages come from .venv, by a .pth file: they take up to 7 GB.

    Raises:
        CheckError: it does not work.
    """
    environment = folder / "environment"
    execute([sys.executable, "-m", "venv", "--without-pip", environment])
    python = environment / "bin" / "python"
    (site,) = environment.glob("lib/python*/site-packages")
    (others,) = (ROOT / ".venv").glob("lib/python*/site-packages")
    (site / "others.pth").write_text(f"{others}\n")
    execute([UV, "pip", "install", "--no-deps", "--python", python, wheel])
    outside = folder / "outside"
    outside.mkdir()
    code = (
        "import bench\n"
        "from mnist_cnn.kernels.native import library\n"
        "library.library()\n"
        "print(bench.__file__)"
    )
    imported = execute([python, "-c", code], outside).stdout.strip()
    if not Path(imported).is_relative_to(site):
        raise CheckError(f"the installed program imports {imported}")
    execute([environment / "bin" / "mnist-bench", *MAIN_JOB.split()], outside)
    if not list(outside.rglob("*.json")):
        raise CheckError("the installed program has saved no record")


if __name__ == "__main__":
    sys.exit(run(app, "wheels.py", sys.argv[1:]))
