"""The rules that a run is measured by: target, repeats, warm-up, and their version."""

from __future__ import annotations

from dataclasses import dataclass

from mnist_cnn.errors import UsageError

PROTOCOL_VERSION = 2
"""Version of the rules; it rises when old and new times or accuracies become incomparable.
docs/protocol.md says what each version changed."""
KNOWN_PROTOCOLS = (1, 2)
"""Versions by which a published record may have been measured."""

QUALITY_TARGET = 0.994
"""Share of the 10,000 test images that a run must classify correctly."""

DEFAULT_RUNS = 3
MOST_RUNS = 30
"""Number of runs at which --runs auto stops, however much they scatter."""
WARMUP_IMAGES = 2_656
"""Training images of the discarded warm-up run: 20 batches of 128 for caches, allocators and
kernel choices to settle, and one of 96, the size of an epoch's last."""


@dataclass(frozen=True, slots=True)
class BenchmarkProtocol:
    """How a benchmark is run, with any recipe.

    Raises:
        UsageError: from the constructor, where a value is out of range.
    """

    runs: int = DEFAULT_RUNS
    """Number of measured runs, each from new random weights with its own seed; with `half_width`,
    the most there may be."""
    first_seed: int = 0
    """Seed of the first run; each further run has the next number."""
    target_accuracy: float = QUALITY_TARGET
    """The accuracy that a run must reach, as a fraction."""
    stop_at_target: bool = False
    """Whether a run ends at the first evaluation that reaches the target."""
    warmup_images: int = WARMUP_IMAGES
    """Number of training images of the warm-up run, which is timed and discarded."""
    half_width: float | None = None
    """Relative half-width of the training time's 95 % interval at which enough runs are made (0.05
    for 5 %); None for a fixed number of runs."""
    budget_seconds: float | None = None
    """With `half_width`, the seconds that all runs may take together; None without a limit."""

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        if self.runs < 1:
            raise UsageError(f"--runs must be at least 1, not {self.runs}")
        if self.first_seed < 0:
            raise UsageError(f"--seed must be 0 or more, not {self.first_seed}")
        if not 0 < self.target_accuracy < 1:
            raise UsageError(
                f"--target-accuracy must lie between 0 and 1 (or 0 % and 100 %), "
                f"not {self.target_accuracy}"
            )
        if self.half_width is not None and not 0 < self.half_width < 1:
            raise UsageError(
                f"--half-width must lie between 0 % and 100 %, not {self.half_width:.10g}"
            )
        if self.budget_seconds is not None and self.budget_seconds <= 0:
            raise UsageError(f"--budget must be longer than nothing, not {self.budget_seconds} s")

    @property
    def seeds(self) -> range:
        """One seed per run, in order."""
        return range(self.first_seed, self.first_seed + self.runs)
