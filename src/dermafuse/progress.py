"""Telling people what goes on: lines and progress bars on stderr, so that stdout holds results only."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final, Protocol

from dermafuse.printable import for_terminal, raw

if TYPE_CHECKING:
    from rich.console import Console

#: Called with how many more items are done.
Advance = Callable[[int], None]

_SECONDS_BETWEEN_LINES: Final = 10.0


class Reporter(Protocol):
    """What long work tells its progress to."""

    def say(self, text: str) -> None:
        """Show a line."""

    def warn(self, text: str) -> None:
        """Show a line that must not be overlooked."""

    def bar(self, description: str, total: int, unit: str) -> contextlib.AbstractContextManager[Advance]:
        """Show a progress bar with rate and remaining time while the block runs."""


class Silent:
    """Says nothing: for tests and for Python callers that want it so."""

    def say(self, text: str) -> None:
        """Drop the line."""

    def warn(self, text: str) -> None:
        """Drop the line."""

    @contextlib.contextmanager
    def bar(self, description: str, total: int, unit: str) -> Iterator[Advance]:
        """Count nothing."""
        yield lambda done: None


#: For those who are told nothing.
SILENT: Final = Silent()


def console(stream: Any, **options: Any) -> Console:
    """Return a rich console on a stream that shows text as `printable.for_terminal` does, and takes no markup in it."""
    from rich.console import Console, ConsoleRenderable, RenderHook, RenderResult
    from rich.segment import Segment

    class Shown:
        def __init__(self, inner: ConsoleRenderable) -> None:
            self.inner = inner

        def __rich_console__(self, console: Console, options: Any) -> RenderResult:
            for segment in console.render(self.inner, options):
                yield segment if segment.control else Segment(for_terminal(segment.text), segment.style)

    class Hook(RenderHook):
        def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
            return [Shown(inner) for inner in renderables]

    made = Console(file=raw(stream), highlight=False, markup=False, **options)
    made.push_render_hook(Hook())
    return made


class Terminal:
    """Writes to stderr with rich; bars turn into plain lines where stderr is not a terminal."""

    def __init__(self) -> None:
        self._console = console(sys.stderr, width=None if sys.stderr.isatty() else 140)

    def say(self, text: str) -> None:
        """Show a line."""
        self._console.print(text)

    def warn(self, text: str) -> None:
        """Show a line in yellow."""
        self._console.print(text, style="bold yellow")

    @contextlib.contextmanager
    def bar(self, description: str, total: int, unit: str) -> Iterator[Advance]:
        """Show a bar: done of total, rate, elapsed and remaining time."""
        if not self._console.is_terminal:
            with self._lines(description, total, unit) as advance:
                yield advance
            return
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
        from rich.progress import TimeRemainingColumn as Remaining

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            Remaining(),
        )
        with Progress(*columns, console=self._console) as progress:
            task = progress.add_task(description, total=total, rate="")

            def advance(done: int) -> None:
                progress.advance(task, done)
                speed = progress.tasks[0].speed
                progress.update(task, rate=f"{speed:,.0f} {unit}/s" if speed else "")

            yield advance
            progress.update(task, completed=total)

    @contextlib.contextmanager
    def _lines(self, description: str, total: int, unit: str) -> Iterator[Advance]:
        """Say the same in a line now and then, for a log.

        Rates count from the first report on, as those of rich's bars do: what it brings may have been done before,
        by a run that this one continues.
        """
        started = said = time.monotonic()
        counted: list[tuple[float, int]] = []  # (when, done until then) of the first report and of the last
        lock = threading.Lock()

        def rate() -> float:
            (first, before), (last, count) = counted
            return (count - before) / (last - first) if last > first else 0.0

        def advance(done: int) -> None:
            nonlocal said
            with lock:
                now = time.monotonic()
                count = done + (counted[1][1] if counted else 0)
                counted[:] = [counted[0] if counted else (now, count), (now, count)]
                if now - said < _SECONDS_BETWEEN_LINES:
                    return
                said = now
                speed = rate()
            left = f", {(total - count) / speed / 60:.1f} min left" if speed else ""
            self.say(f"{description}: {count:,}/{total:,}, {speed:,.1f} {unit}/s{left}")

        yield advance
        seconds = time.monotonic() - started
        done = f"{description}: {counted[1][1] if counted else 0:,} {unit} in {seconds:.1f} s"
        self.say(f"{done} ({rate():,.1f} {unit}/s)" if counted and rate() else done)
