"""Unpacking an archive from elsewhere: only files, only below the folder, only as much as is known to be in it."""

from __future__ import annotations

import shutil
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import IO, Final

from dermafuse.errors import NetworkError

#: An archive of images has one entry each; the largest known one has 25,331.
_MOST_ENTRIES: Final = 200_000
_CHUNK: Final = 1 << 20


def unpack(archive: Path, folder: Path, most: int) -> None:
    """Unpack a ZIP archive into ``folder``, which is made anew.

    A first folder that has the name of ``folder`` is left out; so are hidden files and ``__MACOSX``.

    Args:
        archive: the file.
        folder: is removed first where an earlier run left it.
        most: bytes that may come out at most.

    Raises:
        NetworkError: the archive is damaged, encrypted, holds a link or a path that leads elsewhere, or more than
            ``most`` bytes; nothing of it is kept then.
    """
    name = archive.name.removesuffix(".part")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        with zipfile.ZipFile(archive) as opened:
            entries = _checked(opened.infolist(), folder, most, name)
            left = most
            for entry, target in entries:
                target.parent.mkdir(parents=True, exist_ok=True)
                with opened.open(entry) as source, target.open("xb") as out:
                    left -= _copy(source, out, left, name)
    except (zipfile.BadZipFile, NotImplementedError, EOFError, RuntimeError, zlib.error) as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise NetworkError(
            f"{name} is damaged or no ZIP archive that can be read ({error}); fetch it again."
        ) from error
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _checked(entries: list[zipfile.ZipInfo], folder: Path, most: int, name: str) -> list[tuple[zipfile.ZipInfo, Path]]:
    """Return the files of an archive and where each goes; refuse all of it where one is not as it should be."""
    if len(entries) > _MOST_ENTRIES:
        raise NetworkError(f"{name} holds {len(entries):,} files, more than {_MOST_ENTRIES:,}; it is not unpacked.")
    announced = sum(entry.file_size for entry in entries)
    if announced > most:
        raise NetworkError(f"{name} would unpack to {announced:,} bytes, more than {most:,}; it is not unpacked.")
    made: dict[str, tuple[zipfile.ZipInfo, Path]] = {}
    for entry in entries:
        # orig_filename: as it stands in the archive, before zipfile makes it harmless.
        path = PurePosixPath(entry.orig_filename)
        wrong = _wrong(entry, path)
        if wrong:
            raise NetworkError(f"{name} holds {wrong} ({entry.filename!r}); it is not unpacked.")
        parts = path.parts[1:] if path.parts and path.parts[0].lower() == folder.name.lower() else path.parts
        if entry.is_dir() or not parts or any(part.startswith((".", "__MACOSX")) for part in parts):
            continue
        key = "/".join(parts).casefold()
        if key in made:
            raise NetworkError(f"{name} holds a file twice ({entry.filename!r}); it is not unpacked.")
        made[key] = (entry, folder.joinpath(*parts))
    return list(made.values())


def _wrong(entry: zipfile.ZipInfo, path: PurePosixPath) -> str:
    mode = entry.external_attr >> 16
    if path.is_absolute() or ".." in path.parts or any(sign in entry.orig_filename for sign in ("\\", ":", "\0")):
        return "a path that leads elsewhere"
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "a link or a device"
    return "an encrypted file" if entry.flag_bits & 1 else ""


def _copy(source: IO[bytes], out: IO[bytes], left: int, name: str) -> int:
    """Copy and return the number of bytes; what an entry announces is not believed."""
    copied = 0
    while chunk := source.read(_CHUNK):
        copied += len(chunk)
        if copied > left:
            raise NetworkError(f"{name} unpacks to more than it announces; it is not unpacked.")
        out.write(chunk)
    return copied
