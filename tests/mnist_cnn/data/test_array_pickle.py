"""The pickle of a package is read without running what it names."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from mnist_cnn.data import array_pickle


class Malicious:
    def __init__(self, *call: object) -> None:
        self.call = call

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return self.call[0], self.call[1:]


@pytest.mark.parametrize("function", [os.mkdir, os.system, eval, np.load, np.save])
def test_the_unpickler_refuses_all_but_arrays(
    function: Callable[..., object], tmp_path: Path
) -> None:
    target = tmp_path / "made-by-a-pickle"
    for protocol in (3, 4, 5):
        bad = pickle.dumps((np.zeros(2), Malicious(function, str(target))), protocol)
        with pytest.raises(pickle.UnpicklingError, match="no array needs"):
            array_pickle.ArrayUnpickler(io.BytesIO(bad)).load()
    assert not target.exists()


@pytest.mark.parametrize("protocol", [3, 4])
def test_the_unpickler_reads_arrays(protocol: int) -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    stream = io.BytesIO(pickle.dumps((array, array > 2), protocol))
    first, second = array_pickle.ArrayUnpickler(stream).load()
    assert np.array_equal(first, array)
    assert np.array_equal(second, array > 2)


def arrays_with(bad: object) -> bytes:
    """A package's pickle, one of whose arrays is another value."""
    array = np.zeros(2, np.float32)
    return gzip.compress(pickle.dumps(((bad, array), (array, array), (array, array)), 3))


@pytest.mark.parametrize(
    "bad",
    [
        np.empty(2, object),
        np.zeros(2, "V8"),
        np.zeros(2, "M8[s]"),
        np.array(["a"]),
        np.zeros(2, ">f4"),
        np.zeros(2, [("a", "f4")]),
        np.array([0, np.nan], np.float32),
        np.array([0, np.inf], np.float64),
        np.array([0, 1], np.float32),
        np.array([0, -1e300]),
        np.array([0, 1e307]),
        np.array([0, -1], np.int64),
        5,
        [np.zeros(2)],
    ],
    ids=[
        "objects",
        "void",
        "times",
        "text",
        "big-endian",
        "records",
        "nan",
        "inf",
        "256",
        "-1e300",
        "1e307",
        "-1",
        "number",
        "list",
    ],
)
def test_only_arrays_of_bytes_are_accepted(bad: object) -> None:
    with pytest.raises(pickle.UnpicklingError):
        array_pickle.idx_contents(io.BytesIO(arrays_with(bad)))


@settings(max_examples=200, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=4))
def test_a_changed_pickle_is_refused_or_read(changes: list[tuple[int, int]]) -> None:
    content = bytearray(gzip.decompress(arrays_with(np.ones((2, 3), np.float32))))
    for place, value in changes:
        content[place % len(content)] = value
    with contextlib.suppress(pickle.UnpicklingError):
        array_pickle.idx_contents(io.BytesIO(gzip.compress(bytes(content))))
