"""Opening a bundle's files: each read once, its hash checked on the very bytes that are then used."""

from __future__ import annotations

import hashlib
import json
import stat
from pathlib import Path
from typing import Final, TypeVar

from pydantic import BaseModel, ValidationError

from dermafuse.errors import BundleError, examples
from dermafuse.files import nearest_path
from dermafuse.printable import plain
from dermafuse.runtime.bundle.schema import EVALUATION, FORMAT_VERSION, FileEntry, Manifest

Part = TypeVar("Part", bound=BaseModel)

MANIFEST: Final = "manifest.json"

#: Largest file of each kind that is read at all, in bytes, by suffix.
_LIMITS: Final = {".json": 4 << 20, ".md": 4 << 20, ".xml": 64 << 20, ".safetensors": 512 << 20, ".bin": 4 << 30}

#: That of ``evaluation.json``: 14 bytes for each image and lesion, for millions of them.
_EVALUATION_LIMIT: Final = 256 << 20

#: Litter of file managers; other hidden files count as litter too.
_LITTER: Final = frozenset({"Thumbs.db", "desktop.ini"})


def find_bundle(path: Path) -> Path:
    """Return the bundle folder that ``path`` is, or holds as ``model/`` (a RUN folder).

    Raises:
        BundleError: neither; says what is there instead.
    """
    for folder in (path, path / "model"):
        if (folder / MANIFEST).is_file():
            return folder
    if not path.exists():
        raise BundleError(f"{path} does not exist; name a RUN folder or a model bundle.{nearest_path(path)}")
    if not path.is_dir():
        raise BundleError(f"{path} is a file, not a folder; name a RUN folder or a model bundle.")
    raise BundleError(f"{path} holds neither {MANIFEST} nor model/{MANIFEST}; name a RUN folder or a model bundle.")


def read_manifest(folder: Path) -> tuple[Manifest, str]:
    """Return the checked manifest and its SHA-256 (64 hexadecimal digits), which identifies the bundle.

    Raises:
        BundleError: not a manifest, of a newer format, or not the list of the files that are there.
    """
    content = _read(folder, MANIFEST)
    path = folder / MANIFEST
    try:
        raw = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path} is not JSON ({_line(error)}); copy the bundle again.") from error
    version = raw.get("format_version") if isinstance(raw, dict) else None
    # Before anything else is looked at: a newer manifest may differ in everything else.
    if type(version) is int and version > FORMAT_VERSION:
        raise BundleError(
            f"{folder} has bundle format {version}, newer than the {FORMAT_VERSION} that this dermafuse reads; "
            "update dermafuse."
        )
    manifest = parse(Manifest, content, path)
    there = {entry.name for entry in folder.iterdir() if not entry.name.startswith(".")} - _LITTER - {MANIFEST}
    extra = sorted(there - manifest.files.keys())
    if extra:
        raise BundleError(f"{folder} holds files that its manifest does not list ({examples(extra)}); remove them.")
    return manifest, hashlib.sha256(content).hexdigest()


def read_verified(folder: Path, name: str, entry: FileEntry) -> bytes:
    """Return the content of a listed file after checking its size and hash.

    Raises:
        BundleError: missing, changed, unreadable, or linked to outside of the folder.
    """
    content = _read(folder, name, expected=entry.bytes)
    if len(content) != entry.bytes:
        raise BundleError(
            f"{folder / name} has {len(content):,} bytes where the manifest says {entry.bytes:,}; "
            "copy the bundle again."
        )
    if hashlib.sha256(content).hexdigest() != entry.sha256:
        raise BundleError(f"{folder / name} was changed after it was written (SHA-256 differs); copy the bundle again.")
    return content


def parse(kind: type[Part], content: bytes, path: Path) -> Part:
    """Read JSON into a model of ``bundle_schema``.

    Raises:
        BundleError: names the file, the field and what is wrong with it.
    """
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        what = first["msg"].removeprefix("Value error, ")
        detail = f"{where}: {what}" if where else what
        raise BundleError(f"{path} is not valid ({printable(detail)}); copy the bundle again.") from error


def printable(text: str, limit: int = 300) -> str:
    """Return text from a foreign file fit for one line of a terminal."""
    clean = plain(text)
    return clean if len(clean) <= limit else clean[:limit] + "..."


def _line(error: Exception) -> str:
    return printable(str(error).splitlines()[0] if str(error) else type(error).__name__, 120)


def _read(folder: Path, name: str, expected: int | None = None) -> bytes:
    path = folder / name
    limit = _EVALUATION_LIMIT if name == EVALUATION else _LIMITS.get(path.suffix, _LIMITS[".json"])
    try:
        if not path.resolve(strict=True).is_relative_to(folder.resolve(strict=True)):
            raise BundleError(f"{path} is a link that leaves the bundle; put the file itself there.")
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe or device could keep us waiting for ever
            raise BundleError(f"{path} is not a regular file; copy the bundle again.")
        if status.st_size > limit:
            raise BundleError(f"{path} has {status.st_size:,} bytes, more than the {limit:,} allowed.")
        with path.open("rb") as stream:
            # One byte more than is there, or should be: the manifest must not say how much memory is taken.
            return stream.read(min(status.st_size, limit if expected is None else expected) + 1)
    except FileNotFoundError as error:
        raise BundleError(f"{path} is missing; copy the bundle again.") from error
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links, on older Pythons
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise BundleError(f"{path} cannot be read ({reason}); check the file and its rights.") from error
