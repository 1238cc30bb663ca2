"""Launch parameters are changed one by one, and kept where the steps become faster."""

from __future__ import annotations

from collections.abc import Callable
from math import log2

import pytest
from hypothesis import given, strategies as st

from mnist_cnn.kernels.triton.shapes import SHAPES, Shape, Shapes
from mnist_cnn.kernels.triton.tuning import is_possible, neighbours, tune

PLACES = [(kernel, side) for kernel, by_side in SHAPES.items() for side in by_side]


def never() -> bool:
    return False


def after(tries: int) -> Callable[[], bool]:
    left = [tries]

    def is_over() -> bool:
        left[0] -= 1
        return left[0] < 0

    return is_over


def all_shapes(shapes: Shapes) -> list[Shape]:
    return [shapes[kernel][side] for kernel, side in PLACES]


@given(st.sampled_from(PLACES), st.sampled_from([16, 32, 64, 128, 256]))
def test_a_better_neighbour_is_found(place: tuple[str, int], fastest: int) -> None:
    """A device on which one kernel's tile is of the wrong size, by so many halvings."""
    kernel, side = place

    def seconds_of(shapes: Shapes) -> float:
        return 1 + abs(log2(shapes[kernel][side].pixels / fastest))

    found = tune(SHAPES, seconds_of, never)
    assert seconds_of(found) <= seconds_of(SHAPES)
    before = SHAPES[kernel][side].pixels
    assert (seconds_of(found) < seconds_of(SHAPES)) == (before != fastest)
    others = [p for p in PLACES if p != place]
    assert all(found[k][s] == SHAPES[k][s] for k, s in others)


@given(st.integers(0, 40), st.randoms(use_true_random=False))
def test_nothing_slower_is_kept_and_time_ends_the_search(tries: int, chance: object) -> None:
    measured: list[tuple[float, Shapes]] = []

    def seconds_of(shapes: Shapes) -> float:
        measured.append((getattr(chance, "uniform")(1, 2), shapes))  # noqa: B009
        return measured[-1][0]

    found = tune(SHAPES, seconds_of, after(tries))
    assert len(measured) <= tries + 1
    seconds = next(seconds for seconds, shapes in measured if shapes == found)
    assert seconds <= measured[0][0]


def test_what_does_not_compile_is_passed_over() -> None:
    def seconds_of(shapes: Shapes) -> float:
        if shapes["block"] != SHAPES["block"]:
            raise RuntimeError("out of resources")
        return sum(shape.warps for shape in all_shapes(shapes))

    found = tune(SHAPES, seconds_of, never)
    assert found["block"] == SHAPES["block"]
    assert seconds_of(found) < seconds_of(SHAPES)


def test_kernels_that_do_not_run_at_all_raise() -> None:
    def seconds_of(_: Shapes) -> float:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        tune(SHAPES, seconds_of, never)


def test_noise_is_no_gain() -> None:
    seconds = iter([1.0, *[0.985] * 1000])
    assert tune(SHAPES, lambda _: next(seconds), never) == SHAPES


@pytest.mark.parametrize("place", PLACES, ids=str)
def test_neighbours_are_possible_and_near(place: tuple[str, int]) -> None:
    shape = SHAPES[place[0]][place[1]]
    assert is_possible(shape)
    found = list(neighbours(shape))
    assert found
    assert shape not in found
    assert all(map(is_possible, found))
    assert all((n.per_unit == 0) == (shape.per_unit == 0) for n in found)
    assert all((n.stages is None) == (shape.stages is None) for n in found)
