"""From the steps of epochs to one bar."""

from __future__ import annotations

from collections.abc import Callable


def step_counter(advance: Callable[[int], None]) -> Callable[[int, int, int], None]:
    """Return an ``on_step`` for ``fit`` that tells ``advance`` how many more steps are done over all epochs."""
    done = 0

    def on_step(epoch: int, step: int, steps: int) -> None:
        nonlocal done
        now = epoch * steps + step
        advance(now - done)
        done = now

    return on_step
