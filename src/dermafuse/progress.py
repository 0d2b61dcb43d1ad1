"""Telling people what goes on: lines and progress bars on stderr, so that stdout holds results only."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol

from dermafuse.printable import for_terminal, raw

if TYPE_CHECKING:
    from rich.console import Console

#: Called with how many more items are done.
Advance = Callable[[int], None]

_SECONDS_BETWEEN_LINES: Final = 10.0

#: Work that must have been seen before the time left is said; what a rate is taken over; how finely it is noted.
_SECONDS_TO_JUDGE: Final = 3.0
_SECONDS_OF_RATE: Final = 30.0
_SECONDS_BETWEEN_LOOKS: Final = 0.5


class Clock:
    """Seconds of each part of a run: the parts of ``seconds`` add up to its ``total``."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, part: str) -> None:
        """Count the time since the last lap as time of ``part``."""
        now = time.perf_counter()
        self.add({part: now - self._last})
        self._last = now

    def skip(self) -> None:
        """Count the time since the last lap to nothing: whoever spent it tells it (`add`)."""
        self._last = time.perf_counter()

    def add(self, parts: Mapping[str, float]) -> None:
        """Count time of parts that was spent elsewhere: by members, folds, or an earlier session."""
        own = {name: spent for name, spent in parts.items() if name != "total"}
        self.seconds.pop("total", None)
        for name, spent in own.items():
            self.seconds[name] = round(self.seconds.get(name, 0.0) + spent, 3)
        self.seconds["total"] = round(sum(self.seconds.values()), 3)


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

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
        )
        pace = _Pace(total)
        with Progress(*columns, console=self._console) as progress:
            task = progress.add_task(description, total=total, rate="", left="")

            def advance(done: int) -> None:
                pace.add(done)
                rate = f"{pace.rate:,.0f} {unit}/s" if pace.rate else ""
                progress.update(task, completed=pace.count, rate=rate, left=_left(pace.left))

            yield advance
            progress.update(task, total=pace.count, left="")  # where it ended early, that was all of it

    @contextlib.contextmanager
    def _lines(self, description: str, total: int, unit: str) -> Iterator[Advance]:
        """Say the same in a line now and then, for a log."""
        started = said = time.monotonic()
        pace = _Pace(total)
        lock = threading.Lock()

        def advance(done: int) -> None:
            nonlocal said
            with lock:
                pace.add(done)
                now = time.monotonic()
                if now - said < _SECONDS_BETWEEN_LINES:
                    return
                said = now
                left = _left(pace.left)
                line = f"{description}: {pace.count:,}/{total:,}, {pace.rate:,.1f} {unit}/s"
            self.say(f"{line}, {left}" if left else line)

        yield advance
        done = f"{description}: {pace.count:,} {unit} in {time.monotonic() - started:.1f} s"
        self.say(f"{done} ({pace.whole_rate:,.1f} {unit}/s)" if pace.whole_rate else done)


class _Pace:
    """How fast work goes and how long it will still take.

    Counted from the first report on: what that brings may have been done before, by a run that this one continues, and
    it has paid for loading and compiling. The rate is that of the last half minute; the time left is not said before
    `_SECONDS_TO_JUDGE` of work were seen.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self.count = 0
        self._seen: deque[tuple[float, int]] = deque()
        self._first: tuple[float, int] | None = None

    def add(self, done: int) -> None:
        """Note that so many more items are done."""
        self.count += done
        now = (time.monotonic(), self.count)
        self._first = self._first or now
        if len(self._seen) < 2 or now[0] - self._seen[-2][0] > _SECONDS_BETWEEN_LOOKS:
            self._seen.append(now)
        else:
            self._seen[-1] = now
        while len(self._seen) > 2 and now[0] - self._seen[1][0] > _SECONDS_OF_RATE:
            self._seen.popleft()

    @property
    def rate(self) -> float:
        """Items a second of late; 0 where it is not known."""
        return _slope(self._seen[0], self._seen[-1]) if self._seen else 0.0

    @property
    def whole_rate(self) -> float:
        """Items a second since the first report; 0 where it is not known."""
        return _slope(self._first, self._seen[-1]) if self._first else 0.0

    @property
    def left(self) -> float | None:
        """Seconds left; ``None`` where nobody can know yet."""
        if not self.rate or self._first is None or self._seen[-1][0] - self._first[0] < _SECONDS_TO_JUDGE:
            return None
        return max(0.0, (self.total - self.count) / self.rate)


def _slope(first: tuple[float, int], last: tuple[float, int]) -> float:
    return (last[1] - first[1]) / (last[0] - first[0]) if last[0] > first[0] else 0.0


def _left(seconds: float | None) -> str:
    """Return a time left as people say it: no more digits than are known."""
    if seconds is None:
        return ""
    if seconds < 90:
        return f"{seconds:.0f} s left"
    return f"{seconds / 60:.0f} min left" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h left"
