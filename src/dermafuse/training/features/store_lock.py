"""Who uses an activation store: many may read it, one at a time fills it, and nobody prunes it meanwhile."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from dermafuse.temporaries import is_at, try_lock

#: Empty files of a store that are there to be locked.
IN_USE, FILLING = "in-use.lock", "filling.lock"

#: Seconds between two looks whether the other process has finished.
_LOOK_EVERY: Final = 0.5


class StoreLock:
    """A shared lock on a store's folder (made where missing), held as long as this object lives.

    Raises:
        OSError: the folder cannot be written to.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._descriptor = -1
        while True:
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / IN_USE
            try:
                self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            except FileNotFoundError:  # pruned between the two lines
                continue
            if try_lock(self._descriptor, shared=True) is not False and is_at(self._descriptor, path):
                return
            os.close(self._descriptor)  # being pruned: a new store takes its place
            self._descriptor = -1
            time.sleep(0.01)

    def __del__(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    @contextlib.contextmanager
    def filling(self, say: Callable[[str], None], *, beside_others: bool = False) -> Iterator[None]:
        """Hold the one right to add rows; wait where another process has it (where locks exist), and say so.

        ``beside_others``: parts of one extraction share that right, as none of them adds what another does.
        """
        with (self._folder / FILLING).open("ab") as stream:
            if try_lock(stream.fileno(), shared=beside_others) is False:
                say(f"Another dermafuse is filling {self._folder.name}; waiting for what it computes.")
                while try_lock(stream.fileno(), shared=beside_others) is False:
                    time.sleep(_LOOK_EVERY)
            yield


@contextlib.contextmanager
def exclusive(folder: Path) -> Iterator[bool]:
    """Lock a store against everybody; yield ``False`` where somebody uses it."""
    try:
        descriptor = os.open(folder / IN_USE, os.O_RDWR)
    except OSError:
        yield True  # written by an earlier version, which had no locks
        return
    try:
        yield try_lock(descriptor) is not False
    finally:
        os.close(descriptor)
