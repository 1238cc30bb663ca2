"""The digest of the code."""

from __future__ import annotations

from pathlib import Path

from bench.machine.repository import source_digest

ROOT = Path(__file__).resolve().parents[2]


def test_the_codes_digest_is_of_names_and_contents(tmp_path: Path) -> None:
    (tmp_path / "bench").mkdir()
    file = tmp_path / "bench" / "a.py"
    file.write_text("1")
    first = source_digest(tmp_path)
    (tmp_path / "bench" / "notes.txt").write_text("not code")
    assert source_digest(tmp_path) == first
    file.write_text("2")
    assert source_digest(tmp_path) != first
    file.write_text("1")
    file.rename(tmp_path / "bench" / "b.py")
    assert source_digest(tmp_path) != first


def test_the_codes_digest_has_the_compiled_steps_sources(tmp_path: Path) -> None:
    native = ROOT / "mnist_cnn" / "kernels" / "native"
    endings = {path.suffix for path in native.iterdir() if path.is_file()} - {".so"}
    assert endings == {".py", ".cpp", ".hpp"}
    folder = tmp_path / "mnist_cnn"
    folder.mkdir()
    for ending in endings:
        before = source_digest(tmp_path)
        (folder / f"code{ending}").write_text("1")
        assert source_digest(tmp_path) != before, ending
