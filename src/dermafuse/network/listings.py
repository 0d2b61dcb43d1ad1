"""What a source says about its files at run time: address, size, checksum."""

from __future__ import annotations

from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

from dermafuse.errors import NetworkError
from dermafuse.network.catalogue import RemoteFile, Source
from dermafuse.network.http import Web


def listed(web: Web, source: Source) -> list[RemoteFile]:
    """Return the files of a source with address, size and, where the source gives one, checksum.

    Raises:
        NetworkError: the source cannot be asked, lacks a file, or says something else than is known of it.
    """
    if source.kind == "plain":
        return [
            file if file.size else replace(file, size=web.size(file.address, f"the size of {file.name}"))
            for file in source.files
        ]
    document = web.json(source.listing)
    try:
        found = _dataverse(document) if source.kind == "dataverse" else _mendeley(document)
    except (KeyError, TypeError, ValueError) as error:
        raise NetworkError(f"{source.listing} answers in a form that dermafuse does not know ({error!r}).") from error
    return [_completed(file, found, source) for file in source.files]


def _completed(file: RemoteFile, found: list[RemoteFile], source: Source) -> RemoteFile:
    def stem(name: str) -> str:
        return PurePosixPath(name).stem.lower()

    # A record's new version gives a file a new id, and an ingested table another ending.
    same = [other for other in found if file.id and other.id == file.id]
    same = same or [other for other in found if stem(other.name) == stem(file.name)]
    if len(same) != 1:
        raise NetworkError(
            f"{source.listing} lists {len(same) or 'no'} files {file.name}; the record has changed: look whether a "
            "newer dermafuse knows it, or take another --source."
        )
    other = same[0]
    for own, said in ((file.size, other.size), (file.digest, other.digest)):
        if own and said and own != said:
            raise NetworkError(f"{source.listing} says {said} of {file.name}, but {own} is known: it was altered.")
    address = file.address.replace("{id}", str(other.id)) or other.address
    if source.downloads and not address.startswith(source.downloads):
        raise NetworkError(f"{source.listing} sends {file.name} to {address}, which is not under {source.downloads}.")
    size = 0 if file.original and not other.original else other.size
    return replace(file, address=address, id=other.id, size=size or file.size, digest=other.digest or file.digest)


def _dataverse(document: Any) -> list[RemoteFile]:
    """Read ``/api/datasets/:persistentId``.

    An uploaded table is kept twice: as it was (``originalFileSize``; the checksum is of this one) and as tab-separated
    text (``filesize``).
    """
    made = []
    for entry in document["data"]["latestVersion"]["files"]:
        file = entry["dataFile"]
        original = file.get("originalFileSize")
        checksum = file.get("checksum") or {"type": "MD5", "value": file.get("md5", "")}
        kind = str(checksum["type"]).lower().replace("-", "")
        known = kind in ("md5", "sha256", "sha512", "sha1") and checksum["value"]
        made.append(
            RemoteFile(
                name=str(entry.get("label") or file["filename"]),
                id=int(file["id"]),
                original=original is not None,
                size=int(file["filesize"] if original is None else original),
                digest=f"{kind}:{str(checksum['value']).lower()}" if known else "",
            )
        )
    return made


def _mendeley(document: Any) -> list[RemoteFile]:
    """Read the public API of Mendeley Data."""
    return [
        RemoteFile(
            name=str(file["filename"]),
            address=str(file["content_details"]["download_url"]),
            size=int(file["content_details"]["size"]),
            digest=f"sha256:{str(file['content_details']['sha256_hash']).lower()}",
        )
        for file in document["files"]
    ]
