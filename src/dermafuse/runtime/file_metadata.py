"""Age, sex and body site that nobody gave, as the DICOM file of an image says them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from dermafuse.data import dicom
from dermafuse.data.metadata import MetadataEncoder
from dermafuse.data.values import clean, is_missing
from dermafuse.runtime.prediction import Query


def completed(query: Query, fields: Sequence[str], encoder: MetadataEncoder) -> tuple[Query, dict[str, object]]:
    """Return a query with what its DICOM file says of the fields that it leaves open, and these values alone.

    A word of the file that the model does not know is passed over: the field stays open, and is said to be missing.

    Args:
        query: may forbid it (``Query.completed``).
        fields: that the model uses.
        encoder: that knows their words.
    """
    given = query.metadata
    wanted = [name for name in dicom.FIELDS if query.completed and name in fields and _says_nothing(given.get(name))]
    said = dicom.facts(query.image) if wanted else {}
    taken: dict[str, object] = {}
    for name in wanted:
        value = said.get(name)
        if name in encoder.words:
            value = encoder.words[name].find(value) if isinstance(value, str) else None
        elif isinstance(value, str):  # a field of numbers of that name
            value = None
        if value is not None:
            taken[name] = value
    return (dataclasses.replace(query, metadata={**given, **taken}) if taken else query), taken


def _says_nothing(value: object) -> bool:
    return is_missing(value) or (isinstance(value, str) and clean(value) is None)
