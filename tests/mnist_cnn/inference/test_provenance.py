"""What a weights file says of its training: read back as written, and never trusted."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, strategies as st

from mnist_cnn.errors import UsageError
from mnist_cnn.inference.provenance import Provenance, read_provenance

TRAINING = Provenance("fast", 24, 7, 0.994, "cpu", 2, "2.15.0+cpu")


def test_half_a_provenance_is_refused() -> None:
    metadata = TRAINING.metadata()
    del metadata["seed"]
    with pytest.raises(UsageError, match="seed is missing"):
        read_provenance(metadata)


@pytest.mark.slow
@given(
    st.builds(
        Provenance,
        recipe=st.from_regex(r"[a-z][a-z0-9 ._+-]{0,20}", fullmatch=True),
        epochs=st.integers(1, 10**6),
        seed=st.integers(0, 2**64),
        target_accuracy=st.floats(0, 1, exclude_min=True, exclude_max=True),
        device=st.sampled_from(["cpu", "cuda", "mps"]),
        processes=st.integers(1, 64),
        torch_version=st.just("2.15.0+cu132"),
    )
)
def test_a_provenance_comes_back_as_it_was(provenance: Provenance) -> None:
    assert read_provenance(provenance.metadata()) == provenance


@given(st.dictionaries(st.sampled_from([*TRAINING.metadata(), "format"]), st.text()))
def test_no_metadata_bring_markup_in(metadata: dict[str, str]) -> None:
    try:
        read = read_provenance(TRAINING.metadata() | metadata)
    except UsageError:
        return
    assert read is not None
    for value in read.metadata().values():
        assert re.fullmatch(r"[A-Za-z0-9 ._+-]+", value)
