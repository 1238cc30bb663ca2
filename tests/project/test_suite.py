"""The suite itself: a test leaves nothing to the next."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

CONFTEST = Path(__file__).resolve().parents[1] / "conftest.py"


def test_the_environment_of_one_test_does_not_reach_the_next(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEPT", "as it was")
    pytester.makeconftest(CONFTEST.read_text(encoding="utf-8"))
    pytester.makepyfile(
        """
        import os

        def test_changes_it():
            os.environ["ADDED"] = "1"
            os.environ["KEPT"] = "changed"

        def test_finds_it_unchanged():
            assert "ADDED" not in os.environ
            assert os.environ.pop("KEPT") == "as it was"

        def test_finds_what_was_removed():
            assert os.environ["KEPT"] == "as it was"
        """
    )
    pytester.runpytest_inprocess("-p", "no:cacheprovider").assert_outcomes(passed=3)
