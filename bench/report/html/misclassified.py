"""The test digits that networks misclassify: as pictures, with what they were classified as."""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.records.schema import RunRecord

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MOST_DIGITS = 60
"""Greatest number of digits that the page shows."""


@dataclass(frozen=True, slots=True)
class Digit:
    """One test image that at least one run misclassified."""

    index: int
    """Index in the test set, from 0."""
    truth: int
    """The digit that the image shows, by its label."""
    taken_for: tuple[tuple[int, int], ...]
    """Each digit that it was classified as, and in how many runs, the most frequent first."""
    pixels: NDArray[np.uint8]
    """Pixels, of shape (28, 28): 0 is background, 255 ink."""

    @property
    def runs(self) -> int:
        """Number of runs that misclassified it."""
        return sum(count for _, count in self.taken_for)

    @property
    def picture(self) -> str:
        """The image as a data URI: dark ink on white."""
        from PIL import Image

        stream = io.BytesIO()
        Image.fromarray(255 - self.pixels).save(stream, format="PNG", optimize=True)
        return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"


@dataclass(frozen=True, slots=True)
class Digits:
    """What the runs misclassified, of those that recorded it."""

    shown: tuple[Digit, ...]
    """The digits that the most runs misclassified, these first."""
    wrong: int
    """Number of different images that any run misclassified."""
    runs: int
    """Number of runs that recorded what they misclassified."""
    confusions: tuple[tuple[int, int, int], ...]
    """The three most frequent confusions: true digit, its class, how often over images and runs."""


def misclassified_digits(records: Iterable[RunRecord]) -> Digits | str:
    """What these runs misclassified in the test set, or the reason why nothing is shown."""
    # Lazy: numpy is slow to import, and only this page needs it.
    import numpy as np

    from mnist_cnn.data.files import TEST_IMAGES, TEST_LABELS, data_folder, search

    guesses: dict[int, Counter[int]] = {}
    runs = 0
    for record in records:
        if (
            record.mistakes is None
            or not record.counts
            or record.recipe.get("evaluation_split", "test") != "test"
            or record.dataset.get(TEST_IMAGES.name) != TEST_IMAGES.sha256
        ):
            continue
        runs += 1
        for index, guess in zip(record.mistakes.images, record.mistakes.predicted, strict=True):
            guesses.setdefault(index, Counter())[guess] += 1
    if not runs:
        return (
            "no record says which test images its run misclassified; those of schema 5 and later do"
        )
    guesses = {index: guess for index, guess in guesses.items() if index < TEST_IMAGES.shape[0]}
    images, labels = (search(data_folder(), file).verified for file in (TEST_IMAGES, TEST_LABELS))
    if images is None or labels is None:
        return "MNIST is not in the cache of the machine that made this page (`mnist-bench data`)"
    pixels = np.frombuffer(images.content, np.uint8, offset=len(TEST_IMAGES.header))
    truths = np.frombuffer(labels.content, np.uint8, offset=len(TEST_LABELS.header))
    pixels = pixels.reshape(TEST_IMAGES.shape)
    order = sorted(guesses, key=lambda index: (-guesses[index].total(), index))
    digits = tuple(
        Digit(index, int(truths[index]), tuple(guesses[index].most_common()), pixels[index])
        for index in order[:MOST_DIGITS]
    )
    pairs: Counter[tuple[int, int]] = Counter()
    for index, taken_for in guesses.items():
        for guess, count in taken_for.items():
            pairs[int(truths[index]), guess] += count
    top = tuple((truth, guess, count) for (truth, guess), count in pairs.most_common(3))
    return Digits(digits, len(guesses), runs, top)
