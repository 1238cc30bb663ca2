"""Signals end what may be ended, and wait where a record is being kept. Real signals."""

from __future__ import annotations

import os
import signal

import pytest

from bench.measure.interruption import Interruption


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_ends_what_is_going_on_and_says_what_it_was(
    number: signal.Signals,
) -> None:
    with Interruption() as interruption:
        with pytest.raises(KeyboardInterrupt, match=f"ended by {number.name}"):
            os.kill(os.getpid(), number)
        assert interruption.asked


def test_those_that_follow_do_not_disturb_the_record() -> None:
    with Interruption() as interruption:
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        assert interruption.asked


def test_a_signal_that_was_held_raises_when_the_next_run_would_begin() -> None:
    with Interruption() as interruption:
        interruption.hold()
        os.kill(os.getpid(), signal.SIGTERM)
        assert interruption.asked
        with pytest.raises(KeyboardInterrupt):
            interruption.allow()


def test_between_hold_and_allow_nothing_happens_without_a_signal() -> None:
    with Interruption() as interruption:
        interruption.hold()
        interruption.allow()
        assert not interruption.asked


def test_the_handlers_of_before_are_given_back() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with Interruption():
        assert signal.getsignal(signal.SIGINT) != before[0]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
