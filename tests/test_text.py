"""Numbers and text as people read them."""

from __future__ import annotations

import pytest
from hypothesis import example, given, strategies as st

from bench import text
from bench.text import Rounding, memory, printable, rounded, seconds, seconds_between


@pytest.mark.slow
@given(st.text())
@example("\x1b[31mred\x1b[0m")
@example("\x1b]0;title\x07")
@example("\x9b2J\u202e\u200b")
def test_nothing_inert_is_obeyed_by_a_terminal(text: str) -> None:
    assert printable(text).isprintable()
    assert printable(printable(text)) == printable(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain text, größer, 東京", "plain text, größer, 東京"),
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x07", "link"),
        ("two\nlines\tand\r\ntabs", "two lines and  tabs"),
        ("a\x00b\x7fc\u202ed", "abcd"),
        ("[red]not markup[/red]", "[red]not markup[/red]"),
    ],
)
def test_inert(text: str, expected: str) -> None:
    assert printable(text) == expected


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0 s"),
        (0.03124, "0.0312 s"),
        (0.756, "0.756 s"),
        (7.0, "7.00 s"),
        (41.23, "41.2 s"),
        (112.6, "113 s"),
        (120.0, "2:00 min"),
        (1052.4, "17:32 min"),
        (3599.9, "60:00 min"),
        (3723.0, "1:02:03 h"),
        (1e9, "1,000,000,000 s"),
    ],
)
def test_seconds(value: float, text: str) -> None:
    assert seconds(value) == text


@pytest.mark.parametrize(
    ("low", "high", "like", "text"),
    [
        (40.97, 42.32, 41.6, "40.9–42.4"),
        (110.2, 150.7, 113.0, "110–151"),
        (110.2, 150.7, 130.0, "1:50–2:31"),
        (0.7551, 0.7569, 0.756, "0.7551–0.7569"),
        (1051.8, 1052.4, 1052.0, "17:31.8–17:32.4"),
        (-3.1, 12.0, 4.0, "-4 to 12"),
        (3500.0, 3700.0, 3650.0, "0:58:20–1:01:40"),
        (41.0, 41.0, 41.0, "41.00–41.00"),
    ],
)
def test_seconds_between(low: float, high: float, like: float, text: str) -> None:
    assert seconds_between(low, high, like) == text


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (seconds_between(41.03, None, 45.0), "from 41.0"),
        (text.percent_between(0.99411, 0.99451), "99.41–99.46"),
        (text.percent_between(0.9946, 0.9946), "99.46–99.46"),
        (text.rate_between(3290.9, 3290.1 + 40), "3,290–3,331"),
        (text.whole_percent_between(0.911, 1.032), "91–104 %"),
        (text.quantity(41.29, Rounding.DOWN), "41.2"),
        (text.quantity(41.21, Rounding.UP), "41.3"),
        (text.seconds(1052.1, Rounding.UP), "17:33 min"),
        (text.percent(0.99395, Rounding.UP), "99.40 %"),
        (text.memory(1025 * 1024**2, Rounding.UP), "1.01 GiB"),
    ],
)
def test_the_ends_of_an_interval_are_rounded_outwards(shown: str, expected: str) -> None:
    assert shown == expected


@given(st.floats(-1e15, 1e15), st.integers(0, 6))
def test_a_rounded_interval_encloses_the_exact_one(value: float, decimals: int) -> None:
    slack = 1e-14 * abs(value)  # of fifteen digits, those beyond are not a measurement's
    low, high = (rounded(value, decimals, way) for way in (Rounding.DOWN, Rounding.UP))
    assert low - slack <= value <= high + slack
    assert high - low <= 10.0**-decimals + slack
    assert rounded(low, decimals, Rounding.DOWN) == low


@given(st.integers(0, 10_000))
def test_an_accuracy_of_ten_thousand_images_is_shown_exactly(correct: int) -> None:
    assert text.percent(correct / 10_000) == f"{correct // 100}.{correct % 100:02} %"


def test_an_accuracy_is_never_rounded_up_to_the_target() -> None:
    assert text.percent(0.99395) == "99.39 %"
    assert text.percent(0.99399999) == "99.39 %"


@pytest.mark.parametrize(
    ("size", "text"),
    [(812 * 1024**2, "812 MiB"), (1020 * 1024**2, "0.996 GiB"), (139 * 1024**3, "139 GiB")],
)
def test_memory(size: int, text: str) -> None:
    assert memory(size) == text
