"""``evaluation.json``, an optional file of a bundle: how the model was judged, and what it learned from.

It holds what ``metrics.json`` of the training says of the model, under the same keys, for whoever has the bundle alone
(a page, a card, ``dermafuse evaluate``), and hashes of the images behind it::

    validation           the block of the judged rows: n, accuracy, ..., per_class, ci95 (95 % intervals), calibration,
                         operating_points, subgroups, prediction_sets, notes; of a released model the pooled rows of its
                         cross-validation; ``test`` where the training had such rows
    folds                mean and spread over the folds, of a cross-validation
    labels, data, recipe, training, network, members, leakage, announcements, model_findings, dermafuse
                         as in metrics.json, as far as it has them
    trained_on           {role: {"files": ..., "lesions": ...}}; the roles are ``train`` (learned from), ``tuning``
                         (held out to choose) and ``validation`` (judged); see `image_hashes`

It says nothing of patients: no image id, no lesion id, no path. Whoever has an image or a lesion id can ask whether
the model has met it, as an honest evaluation must.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from dermafuse.errors import BundleError
from dermafuse.files import read_regular
from dermafuse.runtime.engine import bounded_map, cpu_count

if TYPE_CHECKING:  # pandas is not loaded where a model only predicts
    from dermafuse.data.records import Records

#: What of ``metrics.json`` the file repeats: nothing that names an image, a folder or a machine.
_KEPT: Final = (
    "dermafuse",
    "announcements",
    "announcement_codes",
    "recipe",
    "labels",
    "data",
    "validation",
    "test",
    "folds",
    "leakage",
    "training",
    "network",
    "members",
    "model_findings",
)

#: Bytes of SHA-256 kept of each image and lesion: among 10,000 and 10,000 two others agree once in three million times.
_BYTES: Final = 6


@dataclass(frozen=True)
class Hashes:
    """What images were: hashes of their files and of their lesions (of the image id where no lesion is named)."""

    files: frozenset[bytes]
    lesions: frozenset[bytes]


def image_hashes(records: Records) -> tuple[list[bytes], list[bytes]]:
    """Return for each row the hash of the file's content (empty where it cannot be read) and of its lesion id."""
    paths = [Path(path) for path in records.table["path"]]
    files = [b""] * len(paths)

    def read(position: int) -> None:
        try:
            files[position] = _hash(read_regular(paths[position]))
        except (OSError, ValueError):
            return  # whoever predicts the image says so

    for _ in bounded_map(range(len(paths)), read, workers=cpu_count()):
        pass
    return files, [_hash(str(lesion).encode(errors="surrogateescape")) for lesion in records.table["lesion_id"]]


def evaluation_json(metrics: Mapping[str, Any], roles: Mapping[str, Records]) -> bytes:
    """Return the content of ``evaluation.json``: 140 KB of hashes for the 10,015 images of HAM10000.

    Args:
        metrics: content of ``metrics.json``.
        roles: ``train``, ``tuning``, ``validation`` -> the images that had this role.
    """
    content: dict[str, Any] = {name: metrics[name] for name in _KEPT if name in metrics}
    content["trained_on"] = {}
    for role, records in roles.items():
        pairs = zip(("files", "lesions"), image_hashes(records), strict=True)
        content["trained_on"][role] = {name: _packed(hashes) for name, hashes in pairs}
    return json.dumps(content, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode()


def parse_evaluation(content: bytes, path: Path) -> dict[str, Any]:
    """Return the content of ``evaluation.json``.

    Raises:
        BundleError: it is not what `evaluation_json` writes.
    """
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path} is not JSON; copy the bundle again.") from error
    blocks = [value.get(name) for name in ("test", "validation")] if isinstance(value, dict) else []
    if not any(isinstance(block, dict) and type(block.get("n")) is int for block in blocks):
        raise BundleError(f"{path} holds no block of judged rows; copy the bundle again.")
    value["trained_on"] = value.get("trained_on") or {}
    _unpack(value["trained_on"], path)
    return dict(value)


def trained_on(evaluation: Mapping[str, Any]) -> dict[str, Hashes]:
    """Return the hashes behind a parsed ``evaluation.json``, by role; empty where it names none."""
    return _unpack(evaluation["trained_on"], Path("evaluation.json"))


def _unpack(roles: Any, path: Path) -> dict[str, Hashes]:
    try:
        return {role: Hashes(_unpacked(part["files"]), _unpacked(part["lesions"])) for role, part in roles.items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise BundleError(f"{path}: 'trained_on' does not hold hashes of images; copy the bundle again.") from error


def _hash(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()[:_BYTES]


def _packed(hashes: Iterable[bytes]) -> str:
    return base64.b64encode(b"".join(sorted({each for each in hashes if each}))).decode("ascii")


def _unpacked(text: str) -> frozenset[bytes]:
    whole = base64.b64decode(text, validate=True)
    if len(whole) % _BYTES:
        raise ValueError("not a whole number of hashes")
    return frozenset(whole[start : start + _BYTES] for start in range(0, len(whole), _BYTES))
