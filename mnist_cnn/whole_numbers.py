"""Whole numbers as options have them: digits alone, within what can be meant."""

from __future__ import annotations

import re
from collections.abc import Callable

MOST_EPOCHS = 10**6
MOST_IMAGES = 60_000
"""Images of a batch: no more are in the training set."""
MOST_PROCESSES = 10**4
MOST_THREADS = 10**6
MOST_REPEATS = 10**6
LARGEST_SEED = 10**15
"""A record holds it, and other programs read that as a float."""
_NUMBER = re.compile(r"[-+]?[0-9]{1,30}")


def parse_whole(text: str, most: int, *, word_besides: str = "") -> int:
    """The number that a word stands for; ``1_0`` and ``1e3`` stand for none.

    Args:
        text: the word.
        most: largest number that is accepted; the smallest is minus that.
        word_besides: a word that the option takes as well, for the message.

    Raises:
        ValueError: it is none, or too large; the message says so after the option's name.
    """
    word = text.strip()
    if not _NUMBER.fullmatch(word):
        kinds = f"a whole number or {word_besides}" if word_besides else "a whole number"
        raise ValueError(f"must be {kinds}, not {word[:40]!r}")
    number = int(word)
    if abs(number) > most:
        raise ValueError(f"must be at most {most}, not {word[:40]}")
    return number


def whole_number(most: int) -> Callable[[str | int], int]:
    """The parser of an option; `mnist_cnn.console.run` says what it refuses."""
    import typer  # only here: others need no command line

    def integer(text: str | int) -> int:
        try:
            return parse_whole(str(text), most)
        except ValueError as error:
            raise typer.BadParameter(f"it {error}") from error

    return integer
