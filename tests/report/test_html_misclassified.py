"""The misclassified digits of a page."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.report.html.misclassified import Digits, misclassified_digits
from mnist_cnn.data import files
from tests.factories import make_benchmark, make_record
from tests.report.pages import (
    Page,
    mistaken,
    page_of,
)


@pytest.mark.usefixtures("mnist_data_dir")
def test_the_digits_are_those_that_most_runs_took_for_others() -> None:
    """Image 247 of the test set is a 4, image 582 an 8."""
    runs = [
        mistaken([247, 582], [2, 2]),
        mistaken([582], [2]),
        mistaken([247, 582], [6, 3]),
        make_record(),  # says nothing
        mistaken([9_999], [0], recipe={"evaluation_split": "validation"}),
        mistaken([9_999], [0], status="interrupted", reason="x"),
    ]
    digits = misclassified_digits(runs)
    assert isinstance(digits, Digits)
    assert (digits.runs, digits.wrong) == (3, 2)
    assert [(d.index, d.truth, d.taken_for) for d in digits.shown] == [
        (582, 8, ((2, 2), (3, 1))),
        (247, 4, ((2, 1), (6, 1))),
    ]
    assert digits.confusions[0] == (8, 2, 2)
    page = Page(page_of(runs))
    pictures = [attributes for tag, attributes in page.tags if tag == "img"]
    assert [picture["alt"] for picture in pictures] == [
        "Test image 582, a 8",
        "Test image 247, a 4",
    ]


def test_the_page_says_why_there_are_no_digits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "those of schema 5 and later do" in Page(page_of(make_benchmark())).text
    monkeypatch.setenv(files.FOLDER_VARIABLE, str(tmp_path))
    assert "MNIST is not in the cache" in Page(page_of([mistaken([247], [2])])).text
