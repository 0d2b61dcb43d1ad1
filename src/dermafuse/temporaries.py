"""Temporary files and folders that outlive nobody: each is locked by its owner, and swept once the owner is dead.

The lock is the system's (``flock``): it ends with the process that holds it, however that ends, and works across
containers that share a folder, where a process number would name somebody else. What cannot be locked (Windows, some
network disks) is never swept.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

fcntl: Any
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

#: ``.NAME.<12 hexadecimal digits>.dermafuse``: being written. ``....before``: what a replaced folder held.
_OURS: Final = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{12}\.dermafuse(?P<before>-before)?", re.DOTALL)

#: Folders that this process has swept before it wrote files there: once is enough.
_SWEPT: Final[set[Path]] = set()


def temporary_name(path: Path, *, before: bool = False) -> Path:
    """Return a free hidden name beside ``path`` that tells what it stands for."""
    return path.absolute().with_name(f".{path.name}.{secrets.token_hex(6)}.dermafuse{'-before' if before else ''}")


def try_lock(descriptor: int, *, shared: bool = False) -> bool | None:
    """Lock an open file or folder without waiting; the lock ends with the descriptor or the process.

    Returns:
        ``True``: locked. ``False``: another holds it. ``None``: nothing can be locked here.
    """
    if fcntl is None:
        return None
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def is_at(descriptor: int, path: Path) -> bool:
    """Whether ``path`` still names the file or folder that ``descriptor`` has open."""
    with contextlib.suppress(OSError):
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    return False


@contextlib.contextmanager
def temporary_folder(path: Path) -> Iterator[Path]:
    """Yield a fresh folder beside ``path``, removed at the end unless it was renamed; stale ones are swept first.

    Raises:
        OSError: nothing can be written there.
    """
    sweep(path.absolute().parent)
    while True:
        folder = temporary_name(path)
        folder.mkdir()
        with held(folder) as owned:
            if not owned:  # swept by another process before it could be locked
                continue
            try:
                yield folder
            finally:
                remove(folder)
            return


def scratch_folder() -> contextlib.AbstractContextManager[Path]:
    """Return a `temporary_folder` where the system keeps what nobody needs for long."""
    return temporary_folder(Path(tempfile.gettempdir()) / "scratch")


@contextlib.contextmanager
def temporary_file(path: Path) -> Iterator[Any]:
    """Yield a binary stream whose content takes the place of ``path`` at the end, flushed to disk; not on an error.

    Raises:
        OSError: it cannot be written.
    """
    folder = path.absolute().parent
    if folder not in _SWEPT:
        _SWEPT.add(folder)
        sweep(folder)
    while True:
        temporary = temporary_name(path)
        with temporary.open("xb") as stream:
            if try_lock(stream.fileno()) is not None and not is_at(stream.fileno(), temporary):
                continue  # swept by another process before it could be locked
            try:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
                if fcntl is None:
                    stream.close()  # Windows does not rename what is open
                temporary.replace(path)
            except BaseException:
                with contextlib.suppress(OSError):
                    stream.close()  # on a full disk it fails again, and has closed all the same
                with contextlib.suppress(OSError):
                    temporary.unlink()
                raise
            return


def sweep(folder: Path) -> None:
    """Remove what dead processes left in ``folder`` under our temporary names; of the living nothing is touched.

    A folder that was being replaced when its process died goes back to its name where nothing stands there.
    """
    try:
        ours = [(path, match) for path in folder.iterdir() if (match := _OURS.fullmatch(path.name))]
    except OSError:
        return
    for path, match in ours:
        with contextlib.suppress(OSError):
            kind = path.lstat().st_mode
            if not (stat.S_ISDIR(kind) or stat.S_ISREG(kind)):
                continue
            descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
            try:
                if try_lock(descriptor) is not True or not is_at(descriptor, path):
                    continue
                home = folder / match["name"]
                if match["before"] and not os.path.lexists(home):
                    path.rename(home)
                else:
                    remove(path)
            finally:
                os.close(descriptor)


def remove(path: Path) -> None:
    """Delete a file, a link, or a folder with all that it holds, as far as that is possible."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def held(folder: Path) -> Iterator[bool]:
    """Lock a folder while the block runs; yield ``False`` where somebody removed it before that."""
    if fcntl is None:
        yield True
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        yield False
        return
    try:
        try_lock(descriptor)
        yield is_at(descriptor, folder)
    finally:
        os.close(descriptor)
