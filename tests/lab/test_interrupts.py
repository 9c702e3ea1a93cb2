"""Ctrl-C ends a demonstration even where the exception that it raises is lost on its way."""

from __future__ import annotations

import io
import os
import signal
from collections.abc import Callable
from contextlib import suppress

import pytest
from rich.console import Console

from larrey_lab.demo.interrupts import heard_interrupts
from larrey_lab.demo.screen import Screen


def _quiet() -> Console:
    return Console(file=io.StringIO())


def test_an_interrupt_is_raised_where_it_comes() -> None:
    with heard_interrupts(), pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


def _step(screen: Screen) -> None:
    screen.step("after")


def _table(screen: Screen) -> None:
    with screen.watching({}) as progress:
        progress.show({"sites": []})


def _counter(screen: Screen) -> None:
    with screen.counting(2, "splits"):
        pass


@pytest.mark.parametrize("show", [_step, _table, _counter])
def test_a_lost_interrupt_is_raised_at_the_next_thing_shown(show: Callable[[Screen], None]) -> None:
    with heard_interrupts() as interrupts:
        screen = Screen(_quiet(), interrupts)
        show(screen)
        with suppress(KeyboardInterrupt):  # as a callback that must not raise does
            os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            show(screen)


def test_what_listened_before_listens_again() -> None:
    before = signal.getsignal(signal.SIGINT)
    with heard_interrupts():
        assert signal.getsignal(signal.SIGINT) != before
    assert signal.getsignal(signal.SIGINT) == before
