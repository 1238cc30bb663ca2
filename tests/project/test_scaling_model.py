"""scripts/scaling_*.py: the arithmetic, the page it is on, real steps."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import scaling_model as model
import scaling_page as page
from hypothesis import given, strategies as st

ROOT = Path(__file__).resolve().parents[2]
times = st.floats(1e-7, 1e-1)
counts = st.integers(2, 512)


def test_the_page_says_what_the_model_says() -> None:
    computed = dict(page.tables(model.Measured(json.loads(page.MEASUREMENTS.read_text()))))
    text = page.DOCUMENT.read_text()
    places = [found[1] for found in page.BLOCK.findall(text)]
    assert sorted(places) == sorted(computed)
    assert page.with_tables(text, computed) == text, "run scripts/scaling_page.py --write"


def test_an_all_reduce_of_four_is_four_messages_and_one_and_a_half_times_the_data() -> None:
    link = model.Link(message_seconds=10e-6, bytes_per_second=1e9)
    assert model.all_reduce_seconds(4, 1e6, link) == pytest.approx(4 * 10e-6 + 1.5e6 / 1e9)
    assert model.all_reduce_seconds(1, 1e6, link) == 0


@given(fixed=times, image=times, message=times, workers=counts)
def test_no_number_of_workers_beats_the_part_that_is_not_shared(
    fixed: float, image: float, message: float, workers: int
) -> None:
    worker, link = model.Worker(fixed, image), model.Link(message, 1e9)
    alone = model.step_seconds(worker, 128, 1, link)
    together = model.step_seconds(worker, 128, workers, link)
    assert alone == pytest.approx(fixed + 128 * image)
    assert together > fixed
    assert together >= alone / workers


@given(fixed=times, image=times, message=times)
def test_the_fastest_number_is_faster_than_its_neighbours(
    fixed: float, image: float, message: float
) -> None:
    worker, link = model.Worker(fixed, image), model.Link(message, 1e9)

    def seconds(count: int) -> float:
        return float(model.step_seconds(worker, 128, count, link))

    best = model.fastest(seconds)
    assert math.log2(best).is_integer()
    assert all(seconds(best) <= seconds(2**power) for power in range(11))


@given(fixed=times, image=times)
def test_a_line_is_found_again(fixed: float, image: float) -> None:
    points = [(batch, fixed + image * batch) for batch in (16, 32, 64, 128, 256)]
    assert model.line(points) == pytest.approx((fixed, image), rel=1e-6, abs=1e-9)


def test_the_model_is_held_against_a_step_it_was_not_fitted_to() -> None:
    """Two processes: 3 ms fixed, 50 us an image, a tenth slower side by side, 0.4 ms to join."""
    alone = [
        {"round": 0, "mode": "alone", "kernels": "k", "batch": b, "seconds": [0.003 + 50e-6 * b]}
        for b in (32, 64, 128)
    ]
    others = [
        {"round": 0, "mode": "beside", "kernels": "k", "batch": 64, "seconds": [0.006, 0.00682]},
        {"round": 0, "mode": "joined", "kernels": "k", "batch": 128, "seconds": [0.008, 0.0079]},
        {"round": 0, "mode": "threads", "kernels": "k", "batch": 128, "seconds": [0.006]},
        {"round": 0, "mode": "joined", "bytes": model.GRADIENT_BYTES, "seconds": [4e-4, 3e-4]},
        {"round": 0, "mode": "joined", "bytes": 4, "seconds": [2e-4, 2e-4]},
    ]
    fit = model.fitted(model.Measured({"processes": 2, "measured": alone + others}), "k")
    assert (fit.worker.fixed_seconds, fit.worker.image_seconds) == pytest.approx((0.003, 50e-6))
    assert fit.worker.neighbours == pytest.approx(1.1)
    assert fit.predicted == pytest.approx(0.00682 + 4e-4)
    assert fit.joined == 0.008


@pytest.mark.slow
def test_real_steps_are_measured_on_their_own_and_together(tmp_path: Path) -> None:
    path = tmp_path / "steps.json"
    script = str(ROOT / "scripts" / "scaling_steps.py")
    words = [sys.executable, script, str(path), "--rounds", "1", "--images", "640"]
    subprocess.run([*words, "--kernels", "torch"], check=True, cwd=ROOT, capture_output=True)
    found = json.loads(path.read_text())
    p = found["processes"]
    ranks = {"alone": 1, "threads": 1, "beside": p, "joined": p}
    assert {step["mode"] for step in found["measured"]} == set(ranks)
    for step in found["measured"]:
        assert len(step["seconds"]) == ranks[step["mode"]]
        assert all(seconds > 0 for seconds in step["seconds"])
    measured = model.Measured(found)
    # Sixteen times the images: longer, however busy the machine is.
    alone = dict(measured.alone("torch")[0])
    assert alone[256] > alone[16]
    assert dict(page.tables(measured))["shares"].count("\n") == 3
