"""`scripts/wheels`: the files of a release, and what it refuses."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tomllib
import zipfile
from concurrent.futures import ThreadPoolExecutor
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

import hatch_build

ROOT = Path(__file__).resolve().parents[2]
WHEELS = ROOT / "scripts" / "wheels"
SCRIPT = ROOT / "scripts" / "wheels.py"
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]

BUILT = "manylinux_2_17_x86_64"
"""The platform whose wheel tests build. A release has all; each takes ziglang minutes."""
FUNCTIONS = {
    "sources",
    "step_new",
    "step_free",
    "step_train",
    "step_measure",
    "step_infer",
    "sgd",
    "augment",
    "runs",
}

on_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="wheels need Linux")


@pytest.fixture(scope="module")
def shared_library() -> ModuleType:
    spec = spec_from_file_location("shared_library", ROOT / "scripts" / "shared_library.py")
    assert spec
    assert spec.loader
    module = module_from_spec(spec)
    sys.modules["shared_library"] = module  # dataclasses look for it there
    spec.loader.exec_module(module)
    return module


def wheels(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Only the Python program: the tests' environment is ready."""
    return subprocess.run(
        [sys.executable, SCRIPT, *arguments], capture_output=True, text=True, check=False
    )


@on_linux
@pytest.mark.thorough
def test_a_release_has_a_wheel_for_each_platform_one_for_all_and_the_sources(
    tmp_path: Path, shared_library: ModuleType
) -> None:
    """One run of the script, whose own checks include an installation and a training."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    done = subprocess.run(
        [WHEELS, "--only", BUILT, "--output", "my dist"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    names = {path.name for path in (tmp_path / "my dist").iterdir()}
    stem = f"mnist_bench-{VERSION}"
    assert names == {
        f"{stem}.tar.gz",
        *(f"{stem}-py3-none-{platform}.whl" for platform in (BUILT, "any")),
    }
    with zipfile.ZipFile(tmp_path / "my dist" / f"{stem}-py3-none-{BUILT}.whl") as wheel:
        library = shared_library.parse(wheel.read(f"{hatch_build.NATIVE}/libnative.so"))
    assert (library.system, library.architecture) == ("linux", "x86_64")
    assert library.functions >= FUNCTIONS
    with tarfile.open(tmp_path / "my dist" / f"{stem}.tar.gz") as archive:
        assert not [name for name in archive.getnames() if "libnative" in name]
    check_compiled_for_macos(tmp_path, shared_library)


def check_compiled_for_macos(folder: Path, shared_library: ModuleType) -> None:
    """The library for Apple's processors, but for the C++ library, which takes ziglang a minute."""
    target = hatch_build.TARGETS["macosx_11_0_arm64"]
    _, *arguments = hatch_build.zig_compiler(target).command
    tools = str(ROOT / ".cache/wheels/bin/python")
    compiler = hatch_build.Compiler(command=(tools, *arguments), name="ziglang")
    native = ROOT / hatch_build.NATIVE
    files = hatch_build.sources(native, target.architecture)
    assert {"neon.cpp", "neon_bf16.cpp", "scalar.cpp"} <= files.keys()

    def compile_file(name: str) -> str:
        compiled = str((folder / name).with_suffix(".o"))
        # Not optimised: that takes most of a compilation, and no processor here can run it.
        flags = [*hatch_build.FLAGS, *files[name], '-DSOURCES=""', "-O0"]
        compiler.run([*flags, "-c", name, "-o", compiled], folder=native, scratch=folder)
        return compiled

    with ThreadPoolExecutor(2) as threads:
        objects = list(threads.map(compile_file, files))
    linked = folder / "libnative.so"
    undefined = ("-nostdlib++", "-Wl,-undefined,dynamic_lookup")
    compiler.run(
        [*hatch_build.FLAGS, *undefined, "-shared", "-o", str(linked), *objects],
        folder=native,
        scratch=folder,
    )
    library = shared_library.parse(linked.read_bytes())
    assert (library.system, library.architecture) == ("macos", "aarch64")
    assert library.functions >= FUNCTIONS


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "neither ELF nor Mach-O"),
        (b"MZ\x90\x00", "neither ELF nor Mach-O"),
        (b"\x7fELF\x02\x01", "damaged"),
        (b"\xcf\xfa\xed\xfe" + bytes([12, 0, 0, 1]) + bytes(24), "is no library"),
    ],
)
def test_a_file_that_is_no_library_is_named(
    shared_library: ModuleType, content: bytes, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        shared_library.parse(content)


@on_linux
@pytest.mark.parametrize("tag", ["v999", VERSION, "main"])
def test_a_tag_that_is_not_the_version_is_refused_before_anything_is_built(
    tag: str, tmp_path: Path
) -> None:
    done = wheels("--tag", tag, "--output", str(tmp_path / "dist"))
    assert done.returncode == 2
    assert done.stderr == (
        f"wheels.py: error: the tag is {tag!r}, but pyproject.toml has version {VERSION}\n"
    )
    assert not (tmp_path / "dist").exists()


@on_linux
def test_a_version_without_its_changelog_entry_is_refused(tmp_path: Path) -> None:
    project = tmp_path / "project"
    (project / "scripts").mkdir(parents=True)
    for name in ("wheels.py", "shared_library.py"):
        (project / "scripts" / name).write_bytes((ROOT / "scripts" / name).read_bytes())
    for name in ("hatch_build.py", "pyproject.toml", "CITATION.cff"):
        (project / name).write_bytes((ROOT / name).read_bytes())
    (project / "CHANGELOG.md").write_text("## Unreleased\n")
    done = subprocess.run(
        [sys.executable, project / "scripts" / "wheels.py", "--tag", f"v{VERSION}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "CHANGELOG.md has no heading" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_citation_has_the_package_s_version() -> None:
    assert f"\nversion: {VERSION}\n" in (ROOT / "CITATION.cff").read_text()
