"""The build of the compiled code, on a small project with fake compilers, and with the real one."""

from __future__ import annotations

import ctypes
import shutil
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder

import hatch_build
from mnist_cnn.kernels.native.library import source_sum

ROOT = Path(__file__).resolve().parents[2]
SYSTEM_COMPILERS = ("c++", "g++", "clang++")

# Logs its arguments, one line a call, and makes the file that -o names.
FAKE_COMPILER = """#!/bin/sh
echo "$*" >>"{log}"
while [ $# != 0 ]; do
    if [ "$1" = -o ]; then echo "{name}" >"$2"; fi
    shift
done
"""

FAKE_ZIGLANG = """import subprocess, sys
sys.exit(subprocess.call(["{program}", *sys.argv[1:]]))
"""

pytestmark = pytest.mark.skipif(
    hatch_build.target_here() is None, reason="no compiled code for this platform"
)


class Project:
    """A project with the real build and one source file, and a folder of fake compilers."""

    def __init__(self, folder: Path, tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.native = folder / hatch_build.NATIVE
        self.native.mkdir(parents=True)
        (self.native / "answer.cpp").write_text('extern "C" int answer() { return 42; }\n')
        for package in ("bench", "mnist_cnn"):
            (folder / package).mkdir(exist_ok=True)
            (folder / package / "__init__.py").touch()
        for name in ("hatch_build.py", "pyproject.toml", "README.md", "LICENSE", ".gitignore"):
            shutil.copy(ROOT / name, folder)
        self.tools = tools
        tools.mkdir()
        self.log = tools / "log"
        self.monkeypatch = monkeypatch
        monkeypatch.delenv("CXX", raising=False)
        monkeypatch.delenv("MNIST_BENCH_TARGET", raising=False)
        # An import of None says that the module is not there.
        monkeypatch.setitem(sys.modules, "ziglang", None)

    def add_compiler(self, name: str, script: str = FAKE_COMPILER) -> None:
        path = self.tools / name
        path.write_text(script.format(log=self.log, name=name))
        path.chmod(0o755)

    def add_ziglang(self) -> None:
        """A package `ziglang` that calls a fake compiler."""
        self.add_compiler("zig")
        package = self.tools / "packages" / "ziglang"
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
        (package / "__main__.py").write_text(FAKE_ZIGLANG.format(program=self.tools / "zig"))
        self.monkeypatch.delitem(sys.modules, "ziglang")
        self.monkeypatch.syspath_prepend(str(package.parent))
        self.monkeypatch.setenv("PYTHONPATH", str(package.parent))

    def use_only_fakes(self) -> None:
        """A PATH with the fake compilers and what they need."""
        (self.tools / "sh").symlink_to("/bin/sh")
        self.monkeypatch.setenv("PATH", str(self.tools))

    def wheel(self, version: str = "standard") -> Path:
        built = WheelBuilder(str(self.folder)).build(
            directory=str(self.folder / "dist"), versions=[version]
        )
        (path,) = map(Path, built)
        return path

    def requirements(self) -> list[str]:
        """What the build asks an installer for, besides hatchling."""
        return list(WheelBuilder(str(self.folder)).config.dependencies)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    return Project(tmp_path / "project", tmp_path / "tools", monkeypatch)


def native_files(wheel: Path) -> dict[str, bytes]:
    """The files of a wheel's native folder that the build made."""
    with zipfile.ZipFile(wheel) as archive:
        return {
            name.rpartition("/")[2]: archive.read(name)
            for name in archive.namelist()
            if name.startswith(f"{hatch_build.NATIVE}/libnative.")
        }


# What is compiled


@pytest.mark.skipif(not any(map(shutil.which, SYSTEM_COMPILERS)), reason="no compiler")
def test_a_wheel_holds_a_library_that_loads_in_every_python_of_the_platform(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    wheel = project.wheel()
    assert "-py3-none-" in wheel.name
    assert not wheel.name.endswith("-any.whl")
    (library,) = native_files(wheel).items()
    assert library[0] == "libnative.so"
    loaded = project.folder / "loaded.so"
    loaded.write_bytes(library[1])
    assert ctypes.CDLL(str(loaded)).answer() == 42
    assert capsys.readouterr().err == ""


def test_a_wheel_leaves_the_library_beside_the_sources_alone(project: Project) -> None:
    (project.native / "libnative.so").write_text("this machine's")
    project.add_compiler("c++")
    project.use_only_fakes()
    assert native_files(project.wheel()) == {"libnative.so": b"c++\n"}
    assert (project.native / "libnative.so").read_text() == "this machine's"


def test_an_editable_install_puts_the_library_beside_the_sources(project: Project) -> None:
    project.use_only_fakes()
    project.wheel("editable")
    assert (project.native / "libnative.txt").exists()
    project.add_compiler("c++")
    assert native_files(project.wheel("editable")) == {}
    assert (project.native / "libnative.so").read_text() == "c++\n"
    assert not (project.native / "libnative.txt").exists()


def test_the_source_distribution_holds_no_library_and_no_records(project: Project) -> None:
    (project.native / "libnative.so").touch()
    (project.native / "libnative.txt").touch()
    for folder in ("tests", "results"):
        (project.folder / folder).mkdir()
        (project.folder / folder / "file").touch()
    (path,) = SdistBuilder(str(project.folder)).build(directory=str(project.folder / "dist"))
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"hatch_build.py", f"{hatch_build.NATIVE}/answer.cpp"} <= names
    assert not [name for name in names if "libnative" in name or "file" in name]


def test_each_file_has_its_own_flags_and_other_architectures_files_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = {
        "x86_64": {"avx2.cpp": ("-mavx2", "-mfma")},
        "aarch64": {"neon.cpp": (), "neon_bf16.cpp": ("-march=armv8.2-a+bf16",)},
    }
    monkeypatch.setattr(hatch_build, "FILE_FLAGS", flags)
    for name in ("avx2.cpp", "neon.cpp", "neon_bf16.cpp", "pool.cpp"):
        (tmp_path / name).touch()
    assert hatch_build.sources(tmp_path, "x86_64") == {
        "avx2.cpp": ("-mavx2", "-mfma"),
        "pool.cpp": (),
    }
    assert hatch_build.sources(tmp_path, "aarch64") == {
        "neon.cpp": (),
        "neon_bf16.cpp": ("-march=armv8.2-a+bf16",),
        "pool.cpp": (),
    }
    assert hatch_build.sources(tmp_path, "riscv64") == {}


def test_each_file_is_compiled_by_itself_then_all_are_linked(project: Project) -> None:
    (project.native / "wide.cpp").touch()
    project.add_compiler("c++")
    compiler = hatch_build.Compiler(command=(str(project.tools / "c++"),), name="c++")
    files = {"answer.cpp": (), "wide.cpp": ("-mavx2",)}
    assert hatch_build.compile_library(compiler, files, project.native) == b"c++\n"
    *compiled, linked = project.log.read_text().splitlines()
    assert sorted("-mavx2" in line for line in compiled) == [False, True]
    assert all(("-mavx2" in line) == ("wide.cpp" in line) for line in compiled)
    assert "-shared" in linked
    assert [Path(word).name for word in linked.split() if word.endswith(".o")] == [
        "answer.o",
        "wide.o",
    ]


def test_the_library_knows_its_sources(project: Project) -> None:
    project.add_compiler("c++")
    compiler = hatch_build.Compiler(command=(str(project.tools / "c++"),), name="c++")
    hatch_build.compile_library(compiler, {"a.cpp": ()}, ROOT / hatch_build.NATIVE)
    assert f'-DSOURCES="{source_sum()}"' in project.log.read_text()


def test_every_file_with_flags_of_its_own_exists() -> None:
    named = {name for files in hatch_build.FILE_FLAGS.values() for name in files}
    assert named <= {path.name for path in (ROOT / hatch_build.NATIVE).glob("*.cpp")}


# Which compiler


def test_cxx_names_the_compiler_with_its_arguments(project: Project) -> None:
    project.add_compiler("c++")
    project.add_compiler("mine")
    project.use_only_fakes()
    project.monkeypatch.setenv("CXX", "mine --fast")
    assert native_files(project.wheel()) == {"libnative.so": b"mine\n"}
    assert all(line.startswith("--fast ") for line in project.log.read_text().splitlines())


@pytest.mark.parametrize("name", SYSTEM_COMPILERS)
def test_any_of_the_systems_compilers_is_used(project: Project, name: str) -> None:
    project.add_compiler(name)
    project.use_only_fakes()
    assert project.requirements() == []
    assert native_files(project.wheel()) == {"libnative.so": f"{name}\n".encode()}


def test_without_a_compiler_the_build_asks_for_ziglang_and_uses_it(project: Project) -> None:
    project.use_only_fakes()
    assert project.requirements() == [hatch_build.ZIGLANG]
    project.add_ziglang()
    assert native_files(project.wheel()) == {"libnative.so": b"zig\n"}
    target = hatch_build.target_here()
    assert target
    assert all(
        line.startswith(f"c++ -target {target.zig} ")
        for line in project.log.read_text().splitlines()
    )


@pytest.mark.parametrize("error", ["unrecognized option -std=c++20", "no developer tools"])
def test_a_compiler_that_cannot_do_the_work_is_like_none(project: Project, error: str) -> None:
    project.add_compiler("c++", f"#!/bin/sh\necho 'error: {error}' >&2\nexit 1\n")
    project.use_only_fakes()
    assert project.requirements() == [hatch_build.ZIGLANG]


def test_without_any_compiler_one_line_says_so_and_the_wheel_keeps_it(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    project.use_only_fakes()
    wheel = project.wheel()
    assert wheel.name.endswith("-py3-none-any.whl")
    reason = "no C++ compiler (CXX, c++, g++, clang++) and no ziglang"
    assert native_files(wheel) == {"libnative.txt": f"{reason}\n".encode()}
    assert capsys.readouterr().err == (
        f"set-up: no compiled training step: {reason}; PyTorch's operators are used, which are "
        "slower\n"
    )


FAILING = """#!/bin/sh
echo "In file included from answer.cpp:1:" >&2
echo "answer.cpp:1:5: error: no such thing" >&2
echo "answer.cpp:2:5: error: another" >&2
exit 1
"""


def test_a_failing_compiler_gives_its_first_error_in_one_line(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    project.add_compiler("c++", FAILING)
    project.use_only_fakes()
    wheel = project.wheel()
    reason = "c++ failed: answer.cpp:1:5: error: no such thing"
    assert native_files(wheel) == {"libnative.txt": f"{reason}\n".encode()}
    assert capsys.readouterr().err == (
        f"set-up: no compiled training step: {reason}; PyTorch's operators are used, which are "
        "slower\n"
    )


def test_after_a_failing_compiler_ziglang_is_tried(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    project.add_compiler("c++", FAILING)
    project.use_only_fakes()
    project.add_ziglang()
    assert native_files(project.wheel()) == {"libnative.so": b"zig\n"}
    assert capsys.readouterr().err == (
        "set-up: c++ failed: answer.cpp:1:5: error: no such thing; ziglang compiled it instead\n"
    )


def test_a_compiler_that_does_not_start_is_named(project: Project) -> None:
    project.monkeypatch.setenv("CXX", "no-such-compiler")
    (reason,) = native_files(project.wheel()).values()
    assert reason == b"no-such-compiler does not start: No such file or directory\n"


def test_a_machine_without_compiled_code_says_so(project: Project) -> None:
    project.monkeypatch.setattr("platform.machine", lambda: "riscv64")
    assert project.requirements() == []
    (reason,) = native_files(project.wheel()).values()
    assert reason.decode().startswith("there is no compiled code for ")
    assert reason.decode().endswith(" on riscv64\n")


# Wheels for other machines


def test_a_target_is_compiled_by_ziglang_and_is_the_wheels_platform(project: Project) -> None:
    project.add_compiler("c++")
    project.use_only_fakes()
    for name, target in hatch_build.TARGETS.items():
        project.monkeypatch.setenv("MNIST_BENCH_TARGET", name)
        assert project.requirements() == [hatch_build.ZIGLANG]
        if name == next(iter(hatch_build.TARGETS)):
            project.add_ziglang()
        project.log.unlink(missing_ok=True)
        wheel = project.wheel()
        assert wheel.name.endswith(f"-py3-none-{name}.whl")
        assert native_files(wheel) == {"libnative.so": b"zig\n"}
        assert f" -target {target.zig} " in project.log.read_text()


def test_ziglang_gets_an_architectures_version_as_it_names_it(project: Project) -> None:
    project.add_ziglang()
    zig = hatch_build.zig_compiler(hatch_build.TARGETS["manylinux_2_28_aarch64"])
    hatch_build.compile_library(zig, {"answer.cpp": ("-march=armv8.2-a+bf16",)}, project.native)
    compiled, _ = project.log.read_text().splitlines()
    assert " -mcpu=generic+v8_2a+bf16 " in compiled
    assert "-march" not in compiled


def test_a_wheel_for_a_target_that_does_not_compile_is_no_wheel(project: Project) -> None:
    project.add_ziglang()
    project.add_compiler("zig", FAILING)
    project.monkeypatch.setenv("MNIST_BENCH_TARGET", "manylinux_2_17_x86_64")
    with pytest.raises(
        SystemExit, match=r"^set-up: ziglang failed: answer.cpp:1:5: error: no such"
    ):
        project.wheel()


def test_the_wheel_without_compiled_code_says_so(project: Project) -> None:
    project.add_compiler("c++")
    project.monkeypatch.setenv("MNIST_BENCH_TARGET", "any")
    assert project.requirements() == []
    wheel = project.wheel()
    assert wheel.name.endswith("-py3-none-any.whl")
    assert list(native_files(wheel)) == ["libnative.txt"]


def test_an_unknown_target_is_refused_in_one_line(project: Project) -> None:
    project.monkeypatch.setenv("MNIST_BENCH_TARGET", "win_amd64")
    with pytest.raises(SystemExit) as refused:
        project.wheel()
    assert str(refused.value) == (
        "set-up: unknown MNIST_BENCH_TARGET 'win_amd64'; there are: "
        f"{', '.join(hatch_build.TARGETS)}, any"
    )


def test_the_pinned_ziglang_is_the_one_that_the_build_asks_for() -> None:
    for name in ("requirements-zig.txt", "requirements-wheels.txt"):
        assert f"\n{hatch_build.ZIGLANG} \\\n" in (ROOT / name).read_text()
