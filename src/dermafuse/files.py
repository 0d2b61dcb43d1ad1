"""Writing files so that nothing half-written is ever taken for whole, and hashing them."""

from __future__ import annotations

import contextlib
import ctypes
import difflib
import errno
import hashlib
import io
import json
import os
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import platformdirs

from dermafuse.errors import DataError, OutputError
from dermafuse.temporaries import held, remove, sweep, temporary_file, temporary_folder, temporary_name

#: What a disk says that takes no more: full, over the quota or a limit, read-only, or broken.
DISK_ERRORS: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO})

#: A folder that holds one of these was made by dermafuse.
_OWN: Final = ("config.toml", "metrics.json", "manifest.json", "checkpoints", "compare.json")

#: Opening never waits (for the writer of a pipe, say), never becomes our terminal, and never translates line ends.
_NEVER_WAIT: Final = sum(getattr(os, name, 0) for name in ("O_NONBLOCK", "O_NOCTTY", "O_CLOEXEC", "O_BINARY"))


def open_regular(path: str | Path) -> io.FileIO:
    """Open a regular file for reading, unbuffered: the one way to whatever a person or a table names.

    A pipe, a socket or a device could keep us waiting for ever, or never end.

    Raises:
        OSError: not there, not readable, a folder, or not a regular file (said in ``strerror``).
        ValueError: a NUL byte in the path.
    """
    descriptor = os.open(path, os.O_RDONLY | _NEVER_WAIT)
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, "it is a folder", str(path))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "it is not a regular file but a pipe or a device", str(path))
        return io.FileIO(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_regular(path: str | Path) -> bytes:
    """Return the content of a regular file; raises as `open_regular`."""
    with open_regular(path) as stream:
        return stream.readall()


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write ``content`` to ``path``: temporary sibling, fsync, rename. Readers see the old or the new file.

    Raises:
        OutputError: the folder cannot be written to.
    """
    # Names of files come from the system and may hold bytes that are no text; they are written visibly.
    data = content.encode(errors="backslashreplace") if isinstance(content, str) else content
    try:
        with temporary_file(path) as stream:
            stream.write(data)
        sync_folder(path.parent)
    except OSError as error:
        raise OutputError(f"Cannot write {path}: {_advice(error)}.") from error


def _advice(error: OSError) -> str:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return f"{error.strerror}; " + ("make room, or choose another disk" if full else "choose a folder you can write to")


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically. NaN and infinity are refused (they are not JSON)."""
    write_atomic(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to disk, so that a rename survives a power cut (a no-op on Windows)."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def check_output_folder(out: Path, *, overwrite: bool) -> None:
    """Refuse an output folder that exists (without ``overwrite``) or cannot be made, before any work starts.

    With ``overwrite`` only a folder that dermafuse made (it holds one of its files), or an empty
    one, is replaced: a slip of the keyboard must not delete someone's pictures.

    Raises:
        OutputError: with what to do.
    """
    parent = out.absolute().parent
    sweep(parent)  # also puts back what a process that was killed while it replaced it had moved away
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out} is a file; name a folder that does not exist yet.")
    if out.exists() and any(out.iterdir()):
        if not overwrite:
            raise OutputError(f"{out} exists already; add --overwrite to replace it, or choose another --out.")
        if not any((out / name).exists() for name in _OWN):
            raise OutputError(f"{out} was not made by dermafuse, so --overwrite will not replace it.")
    check_writable(parent)


def check_writable(folder: Path, advice: str = "choose another --out") -> None:
    """Refuse a folder that cannot be made or written to, before any work starts; sweep it (`temporaries.sweep`).

    Raises:
        OutputError: with ``advice``.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OutputError(f"Cannot write to {folder}: {error.strerror}; {advice}.") from error
    sweep(folder)


@contextlib.contextmanager
def folder_atomic(out: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary sibling of ``out``; it takes the place of ``out`` when the block ends without an error.

    On an error or an interrupt the temporary folder is removed and ``out`` is as it was; what a killed process left
    is removed by the next one that writes there.

    Raises:
        OutputError: ``out`` may not be replaced, or the disk takes no more.
    """
    check_output_folder(out, overwrite=overwrite)
    try:
        with temporary_folder(out) as temporary:
            yield temporary
            replace_folder(temporary, out)
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        raise OutputError(
            f"Cannot write {out}: {_advice(error)}; then run the command again (train: with --resume)."
        ) from error


def replace_folder(new: Path, out: Path) -> None:
    """Put folder ``new`` in the place of ``out`` (which may exist); there is no moment without a whole ``out``.

    Where the system cannot exchange two names at once, ``out`` is moved aside first: a process killed in between
    leaves it there, and the next one that writes to that place moves it back (`temporaries.sweep`).
    """
    parent = out.absolute().parent
    if not os.path.lexists(out):
        new.rename(out)
        sync_folder(parent)
    elif _exchange(new, out):
        sync_folder(parent)
        remove(new)  # the old one: it has the temporary name now
    else:
        aside = temporary_name(out, before=True)
        with held(out):  # ours, as long as it has no name
            out.rename(aside)
            new.rename(out)
            sync_folder(parent)
            remove(aside)


def _exchange(one: Path, other: Path) -> bool:
    """Let two paths change places in one step; ``False`` where the system or the disk cannot do that."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):  # a C library older than 2018
        return False
    at_cwd, exchange = -100, 2  # AT_FDCWD of fcntl.h, RENAME_EXCHANGE of linux/fs.h
    return bool(renameat2(at_cwd, os.fsencode(one), at_cwd, os.fsencode(other), exchange) == 0)


def cache_folder() -> Path:
    """Return the cache folder (``DERMAFUSE_CACHE``, else the user's cache folder), made if missing."""
    named = os.environ.get("DERMAFUSE_CACHE")
    folder = Path(named) if named else Path(platformdirs.user_cache_dir("dermafuse", appauthor=False))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"Cannot make the cache folder {folder}: {error.strerror}; set DERMAFUSE_CACHE to one you can write to."
        ) from error
    return folder


def existing_folder(path: Path, what: str = "folder") -> Path:
    """Return ``path`` where it is a folder, else raise a ``DataError`` that says what is there instead."""
    if path.is_dir():
        return path
    state = "is a file, not a folder" if path.exists() else "does not exist"
    raise DataError(f"The {what} {path} {state}; check the path.{nearest_path(path)}")


def nearest_path(path: Path) -> str:
    """Return ``" Did you mean 'x'?"`` for a path that is there and looks like one that is not, else ``""``."""
    path = path.expanduser()
    lost, rest = path.absolute(), Path()
    if lost.exists():
        return ""
    while not lost.parent.is_dir():  # the first folder that is not there
        lost, rest = lost.parent, lost.name / rest
    try:
        names = [name for name in os.listdir(lost.parent) if not name.startswith(".")]  # noqa: PTH208  (names alone)
    except OSError:
        return ""
    if rest != Path():
        names = [name for name in names if (lost.with_name(name) / rest).exists()]
    near = difflib.get_close_matches(lost.name, names, n=1, cutoff=0.5)
    before = path.parts[: len(path.parts) - len(rest.parts) - 1]
    return f" Did you mean '{Path(*before, near[0], rest)}'?" if near else ""
