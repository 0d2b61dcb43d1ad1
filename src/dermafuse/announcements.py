"""What must be said wherever the numbers of a run appear: each announcement has a stable code beside its text.

Texts are for people and may change; whoever looks for an announcement matches its code.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

#: Code -> text of those that say the same in every run.
_FIXED: Final = {
    "synthetic_data": "SYNTHETIC DATA: these numbers say nothing about real skin lesions.",
    "random_weights": "RANDOM WEIGHTS: the backbone was not pretrained; for tests only.",
    "no_metadata": "NO METADATA in this data set: the model sees the image alone.",
    "lesions_unknown": "LESIONS UNKNOWN: images of one lesion may be on both sides of the split.",
    "early_stopping_on_validation": (
        "Early stopping looked at the validation rows (as the reference does): slightly optimistic."
    ),
}

#: Said of a model by whoever judges it on other data: this, and what it stands before.
_OF_MODEL: Final = ("model_", "Model ")


@dataclass(frozen=True)
class Announcement:
    """One thing that must be said: ``code`` for programs, ``text`` for people."""

    code: str
    text: str

    @classmethod
    def fixed(cls, code: str) -> Announcement:
        """Return the one of this code, where its text is always the same.

        Raises:
            KeyError: it is not.
        """
        return cls(code, _FIXED[code])

    def of_model(self) -> Announcement:
        """Return the same, said of the model and not of these data."""
        return Announcement(f"{_OF_MODEL[0]}{self.code}", f"{_OF_MODEL[1]}{self.text}")


def both_lists(said: Iterable[Announcement]) -> dict[str, list[str]]:
    """Return ``announcements`` (texts) and ``announcement_codes`` (parallel): what metrics.json and bundles hold."""
    pairs = list(said)
    return {"announcements": [each.text for each in pairs], "announcement_codes": [each.code for each in pairs]}


def announced(content: Mapping[str, Any]) -> list[Announcement]:
    """Return the announcements of ``metrics.json``, or of a bundle's info.

    Files of earlier versions have texts alone: those that never vary are known by the whole text, others have the code
    ``other``.
    """
    texts = [str(text) for text in content.get("announcements") or []]
    codes = content.get("announcement_codes")
    if not isinstance(codes, list) or len(codes) != len(texts):
        known = {text: code for code, text in _FIXED.items()}
        known |= {f"{_OF_MODEL[1]}{text}": f"{_OF_MODEL[0]}{code}" for code, text in _FIXED.items()}
        codes = [known.get(text, "other") for text in texts]
    return [Announcement(str(code), text) for code, text in zip(codes, texts, strict=True)]
