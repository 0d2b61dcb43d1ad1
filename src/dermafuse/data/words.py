"""When two words of a category are the same: one rule for the tables to learn from and for whatever is predicted.

`normal` writes a word the way that training keeps it: lower case, single blanks (``UPPER_EXTREMITY`` is ``upper
extremity``), numbers in their shortest form (``1``, ``1.0`` and ``01`` are one category). `Words` finds the word
of a model that a written one stands for: as it is; as the table's own ``[values.X]`` say; in another spelling
(``head_neck`` for ``head/neck``); as a synonym (``F``, ``arm``). What is none of these is unknown, and said.

Nothing is guessed where the model knows the word itself: a synonym counts only where the word as written is none of
the model's and the synonym is. Needs the standard library alone: prediction starts with it.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

#: The category that stands for every value that is missing or was not seen in training.
UNKNOWN: Final = "unknown"

#: Texts that mean "no value" (compared in lower case).
MISSING: Final[frozenset[str]] = frozenset({"", "na", "n/a", "nan", "null", "none"})

_NUMBER: Final = re.compile(r"([+-]?)0*(\d+)(?:\.(\d*))?", re.ASCII)

#: What separates words that are one: between letters only, so that "er+", "er-" and "1-2" stay what they are.
_SEPARATOR: Final = re.compile(r"(?<=[^\W\d_])(?:\s*[/,;&-]\s*|\s+(?:and|or)\s+)(?=[^\W\d_])")

#: Words that mean the same; the first of a group that a model has is taken.
_SAME: Final[tuple[tuple[str, ...], ...]] = (
    ("female", "f", "woman", "w"),
    ("male", "m", "man"),
    ("true", "yes", "y", "1"),
    ("false", "no", "n", "0", "f"),
    (UNKNOWN, "unk", "not known", "unspecified", "not specified", "?"),
)

#: Body site -> sites that it is or lies in, the nearest first; HAM10000's, ISIC's and common words. ISIC's coarse
#: sites go where `SITES` sends them. What no line says (a buttock, a finger of a model without hands) is unknown.
_WITHIN: Final[dict[str, tuple[str, ...]]] = {
    "torso": ("trunk",),
    "trunk": ("torso",),
    "back": ("posterior torso", "trunk", "torso"),
    "posterior torso": ("back", "trunk", "torso"),
    "upper back": ("back", "posterior torso", "trunk", "torso"),
    "lower back": ("back", "posterior torso", "trunk", "torso"),
    "chest": ("anterior torso", "trunk", "torso"),
    "breast": ("chest", "anterior torso", "trunk", "torso"),
    "abdomen": ("anterior torso", "trunk", "torso"),
    "belly": ("abdomen", "anterior torso", "trunk", "torso"),
    "anterior torso": ("trunk", "torso"),
    "anterior trunk": ("anterior torso", "trunk", "torso"),
    "back of trunk": ("back", "posterior torso", "trunk", "torso"),
    "posterior surface of thorax": ("upper back", "back", "posterior torso", "trunk", "torso"),
    **dict.fromkeys(("thorax", "chest wall", "nipple", "areola"), ("chest", "anterior torso", "trunk", "torso")),
    "lateral torso": ("trunk", "torso"),
    "flank": ("lateral torso", "trunk", "torso"),
    "head/neck": ("face", "head"),
    "head": ("head/neck", "face"),
    "head/neck/face": ("face", "head/neck", "head"),
    "face": ("head/neck", "head"),
    "scalp": ("head/neck", "head"),
    "ear": ("head/neck", "head"),
    "neck": ("head/neck",),
    "nuchal region": ("neck", "head/neck"),
    **dict.fromkeys(("ear lobule", "pinna"), ("ear", "head/neck", "head")),
    **dict.fromkeys(
        ("nose", "lip", "cheek", "forehead", "eyelid", "eyebrow", "temple", "temporal region", "chin", "jawline"),
        ("face", "head/neck", "head"),
    ),
    "upper extremity": ("upper limb", "arm"),
    "upper limb": ("upper extremity", "arm"),
    **dict.fromkeys(
        ("arm", "forearm", "upper arm", "lower arm", "elbow", "wrist", "shoulder"),
        ("arm", "upper extremity", "upper limb"),
    ),
    "lower extremity": ("lower limb", "leg"),
    "lower limb": ("lower extremity", "leg"),
    **dict.fromkeys(
        ("leg", "lower leg", "upper leg", "thigh", "calf", "shin", "knee", "ankle"),
        ("leg", "lower extremity", "lower limb"),
    ),
    "hand": ("upper extremity", "upper limb"),
    **dict.fromkeys(("finger", "thumb"), ("hand", "upper extremity", "upper limb")),
    "foot": ("lower extremity", "lower limb"),
    "feet": ("foot", "lower extremity", "lower limb"),
    **dict.fromkeys(("toe", "heel", "forefoot"), ("foot", "lower extremity", "lower limb")),
    "acral": ("palms/soles",),
    "palms/soles": ("acral",),
    "acral palms/soles": ("acral", "palms/soles"),
    **dict.fromkeys(("palm", "palm of hand"), ("palms/soles", "acral", "hand")),
    **dict.fromkeys(("sole", "sole of foot", "sole of forefoot"), ("palms/soles", "acral", "foot")),
    "genital": ("oral/genital",),
    "genital area": ("genital", "oral/genital"),
    "genitalia": ("genital", "oral/genital"),
    **dict.fromkeys(("penis", "scrotum", "labium", "vulva"), ("genital", "oral/genital")),
    "oral/genital": ("genital",),
    "oral": ("oral/genital",),
    **dict.fromkeys(("oral mucosa", "tongue", "gingiva", "floor of mouth"), ("oral", "oral/genital")),
}

#: How coded terms name a place on the body: "Skin of anterior surface of lower leg", "Nail unit of great toe",
#: "Structure of head and/or neck (body structure)". Source of the terms: DICOM PS3.16, CID 4029 and 4031.
_CODED: Final = re.compile(
    r"(?:entire )?(?:(?:skin|nail unit|(?:oral )?mucosa|structure|region)(?: structure| region)? of )(?:the )?(.+?)"
    r"(?: \((?:body structure|finding site)\))?"
)
#: What coded terms put before a place that is one here.
_QUALIFIER: Final = re.compile(
    r"(?:left|right|upper|lower|mid|middle|anterior|posterior|lateral|medial|superior|inferior|dorsal|plantar|palmar|"
    r"great|second|third|fourth|fifth|index|ring|little|external|the) "
)


def normal(value: object) -> str | None:
    """Return a category as training keeps it, ``None`` where it is missing.

    Stripped, lower case, ``_`` and any run of blanks as one blank, a number in its shortest form; truth values are
    ``true`` and ``false``.
    """
    text = " ".join(unicodedata.normalize("NFC", str(value).lower()).replace("_", " ").split())
    if text in MISSING:
        return None
    number = _NUMBER.fullmatch(text)
    if number is None:
        return text
    sign, whole, fraction = number[1], number[2], (number[3] or "").rstrip("0")
    short = f"{whole}.{fraction}" if fraction else whole
    return f"-{short}" if sign == "-" and short != "0" else short


def mapping(values: Mapping[str, str]) -> dict[str, str | None]:
    """Return a table's ``[values.X]`` in normal words; the key ``""`` is an empty cell.

    Raises:
        ValueError: one word is sent to two, or a word to one that is itself sent elsewhere; says which.
    """
    told: dict[str, str | None] = {}
    for old, new in values.items():
        key, word = normal(old) or "", normal(new)
        if key in told and told[key] != word:
            raise ValueError(f"sends '{old}' to '{told[key]}' and to '{word}' (case, '_' and blanks do not matter)")
        told[key] = word
    for old, found in told.items():
        if found is not None and told.get(found, found) != found:
            raise ValueError(f"sends '{old}' to '{found}', and '{found}' to '{told[found]}'; send both to one word")
    return told


def mapped(values: Iterable[object], told: Mapping[str, str | None]) -> list[str | None]:
    """Return a column of categories as training keeps them: `normal`, then as ``told`` (a `mapping`) says."""
    words = (normal(value) for value in values)
    return [told.get(word or "", word) for word in words]


def one_spelling(words: Iterable[str | None], kept: Iterable[str | None] = ()) -> dict[str, str]:
    """Return, of the `normal` words of one column, those that another word of it stands for -> that word.

    Spellings (``head neck``, ``head/neck``) become the most frequent one. ``f`` and ``female`` are one where the
    column holds nothing but sexes, ``yes`` and ``true`` where it holds nothing but truth values.

    Args:
        words: the column.
        kept: words to keep as they are, and to prefer.
    """
    tally = Counter(word for word in words if word is not None)
    fixed = set(kept)
    alike: dict[str, list[str]] = {}
    for word in sorted(tally, key=lambda word: (word not in fixed, -tally[word], word)):
        alike.setdefault(_loose(word), []).append(word)
    found = {other: first for first, *others in alike.values() for other in others}
    for groups in ((*_SAME[:2], _SAME[-1]), _SAME[2:]):  # sexes; truth values
        if all(any(word in group for group in groups) for word in tally):
            for group in groups:
                there = sorted((word for word in group if word in tally), key=lambda word: word not in fixed)
                first, *others = there or [""]
                found |= dict.fromkeys(others, first)
    return {word: first for word, first in found.items() if word not in fixed}


class Words:
    """The words of one field that a model knows.

    Args:
        known: its vocabulary.
        told: what the table it learned from says of its words, as `mapping` returns it.
    """

    def __init__(self, known: Sequence[str], told: Mapping[str, str | None]) -> None:
        self._known = frozenset(known)
        self._told = dict(told)
        self._spelled = _unambiguous((normal(word) or word, word) for word in known)
        self._loose = _unambiguous((_loose(word), word) for word in known)
        self._binary = all(normal(word) in ("0", "1") or says_nothing(word) for word in known)

    def find(self, text: str | None) -> str | None:
        """Return the known word that ``text`` stands for; ``None`` where it is missing or unknown."""
        if text in self._known:  # as older models have it, in whatever form
            return text
        word = None if text is None else normal(text)
        word = self._told.get(word or "", word)
        if word is None or word in self._known:
            return word
        return self._spelled.get(word) or self._loose.get(_loose(word)) or self._synonym(word)

    def spellings(self) -> dict[str, str]:
        """Return word as written (in `normal` form) -> known word, of all that dermafuse itself knows; for others."""
        written = [*self._told, *_WITHIN, *(word for group in _SAME for word in group)]
        found = {word: self.find(word) for word in written if word}
        return {word: known for word, known in sorted(found.items()) if known is not None and known != word}

    def _synonym(self, word: str) -> str | None:
        # "left arm" is an arm; asked last, as a model may tell left from right.
        sides = (word, word.removeprefix("left ").removeprefix("right "))
        for key in dict.fromkeys(map(_loose, (*sides, *_coded_places(word)))):
            for candidate in (key, *_SYNONYMS.get(key, ())):
                found = self._loose.get(_loose(candidate))
                # "yes" is 1 where all there is are 0 and 1; among grades from 1 to 4 it is nothing.
                if found is not None and (self._binary or not found.isdigit()):
                    return found
        return None


def _coded_places(word: str) -> Iterator[str]:
    """Yield the places that a coded term names, the nearest first: of "skin of dorsum of the nose" the nose."""
    found = _CODED.fullmatch(word.replace("and/or", "or"))
    rest = "" if found is None else found[1]
    while rest:
        bare = rest
        while bare not in _WITHIN and _QUALIFIER.match(bare):
            bare = _QUALIFIER.sub("", bare, count=1)
        if _loose(bare) in _SYNONYMS:
            yield bare
        rest = rest.partition(" of ")[2].removeprefix("the ")


def says_nothing(text: str | None) -> bool:
    """Whether a word is missing or means "unknown": nothing that a model should have known."""
    word = None if text is None else normal(text)
    return word is None or word in _SAME[-1]


def _loose(word: str) -> str:
    """Return a word without what tells spellings apart: separators, plural."""
    parts = _SEPARATOR.sub(" ", normal(word) or "").split()
    return " ".join(_singular(part) for part in parts)


def _singular(part: str) -> str:
    if len(part) < 4 or not part.isalpha() or part.endswith(("ss", "us", "is")):
        return part
    return part[:-3] + "y" if part.endswith("ies") else part.removesuffix("s")


def _unambiguous(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    found: dict[str, str] = {}
    twice = set()
    for key, word in pairs:
        if found.setdefault(key, word) != word:
            twice.add(key)
    return {key: word for key, word in found.items() if key not in twice}


def _all_synonyms() -> Iterator[tuple[str, tuple[str, ...]]]:
    for word, others in _WITHIN.items():
        yield _loose(word), others
    for group in _SAME:
        for word in group:
            yield word, tuple(other for other in group if other != word)


def _gathered() -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for word, others in _all_synonyms():
        found[word] = (*found.get(word, ()), *others)
    return found


_SYNONYMS: Final = _gathered()

#: Every body site that `Words` understands, for data that have no vocabulary of their own yet.
BODY_SITES: Final = Words(tuple(_WITHIN), {})
