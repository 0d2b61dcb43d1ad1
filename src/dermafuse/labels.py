"""Which classes there are, what they are called, which are malignant, and which must not be missed: labels as data.

A `LabelSet` travels with records, predictions, bundle and report; no other module names a class. What follows from
malignant classes (the summed probability, malignant-versus-benign metrics) is there only where the set names some, what
follows from the class that must not be missed only where it names one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

from dermafuse.errors import DataError, nearest
from dermafuse.printable import plain


@dataclass(frozen=True)
class LabelSet:
    """The classes of a data set or model.

    Attributes:
        codes: in the order of a model's outputs, all different.
        names: code -> name for people; of every code.
        malignant: codes counted as malignant; empty: none is, or nobody said which.
        critical: code of the class that must not be missed; ``None``: nobody named one.

    Raises:
        DataError: a code twice or empty, fewer than two, or a name or role of a class that is not there.

    Example:
        >>> import dermafuse as df
        >>> labels = df.LabelSet.of(["benign", "malignant"], malignant=["malignant"], critical="malignant")
        >>> labels.codes, labels.critical_name
        (('benign', 'malignant'), 'malignant')
    """

    codes: tuple[str, ...]
    names: Mapping[str, str]
    malignant: frozenset[str] = frozenset()
    critical: str | None = None

    def __post_init__(self) -> None:
        # They are shown everywhere: terminal, tables, pages, figures. Nothing in them may steer those.
        object.__setattr__(self, "codes", tuple(map(plain, self.codes)))
        object.__setattr__(self, "names", {plain(code): plain(name) for code, name in self.names.items()})
        object.__setattr__(self, "malignant", frozenset(map(plain, self.malignant)))
        object.__setattr__(self, "critical", None if self.critical is None else plain(self.critical))
        if len(self.codes) < 2 or len(set(self.codes)) < len(self.codes) or not all(self.codes):
            raise DataError(f"The classes {self.codes} must be at least two different names; check the label list.")
        for code in self.codes:
            if not self.names.get(code):
                raise DataError(f"The class '{code}' has no name; name every class.")
        roles = [(code, "names") for code in self.names] + [(code, "malignant") for code in sorted(self.malignant)]
        for code, role in [*roles, *([] if self.critical is None else [(self.critical, "critical")])]:
            if code not in self.codes:
                raise DataError(
                    f"{role}: '{code}' is not one of the classes {', '.join(self.codes)}.{nearest(code, self.codes)}"
                )

    def __len__(self) -> int:
        return len(self.codes)

    @classmethod
    def of(
        cls,
        codes: Sequence[str],
        *,
        names: Mapping[str, str] | None = None,
        malignant: Collection[str] | None = None,
        critical: str | None = None,
    ) -> LabelSet:
        """Return the label set of some codes; what is not said is known of HAM10000's own codes alone.

        Args:
            codes: in the order of the outputs. Where all of them are HAM10000's, so are roles that are not given.
            names: of some or all of them; a code without one is called as HAM10000 calls it, or by its code.
            malignant: ``None``: not said.
            critical: ``None``: not said.

        Raises:
            DataError: see `LabelSet`.
        """
        known = set(codes) <= set(HAM10000.codes)
        if malignant is None:
            malignant = HAM10000.malignant & set(codes) if known else ()
        if critical is None and known and HAM10000.critical in codes:
            critical = HAM10000.critical
        called = {code: HAM10000.names.get(code, code) for code in codes} | dict(names or {})
        return cls(tuple(codes), called, frozenset(malignant), critical)

    @property
    def critical_key(self) -> str:
        """How metrics of the critical class begin: ``melanoma`` where it is that, else ``critical``."""
        known = HAM10000.critical_name
        return known if self.critical_name == known else "critical"

    @property
    def critical_name(self) -> str:
        """Name of the critical class, empty where there is none."""
        return "" if self.critical is None else self.names[self.critical]

    def completed(self, other: LabelSet) -> LabelSet:
        """Return this set, with the roles that it leaves open as ``other`` has them, as far as it has the classes."""
        malignant = self.malignant or (other.malignant if other.malignant <= set(self.codes) else frozenset())
        critical = self.critical or (other.critical if other.critical in self.codes else None)
        return replace(self, malignant=malignant, critical=critical)

    def to_json(self) -> dict[str, Any]:
        """Return ``{"classes", "names", "malignant", "critical"}`` as plain JSON; lists in the order of the classes."""
        return {
            "classes": list(self.codes),
            "names": {code: self.names[code] for code in self.codes},
            "malignant": [code for code in self.codes if code in self.malignant],
            "critical": self.critical,
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> LabelSet:
        """Return the label set that `to_json` wrote.

        Raises:
            DataError: it is none.
        """
        try:
            return cls(
                tuple(content["classes"]), dict(content["names"]), frozenset(content["malignant"]), content["critical"]
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(f"The labels are not what dermafuse writes ({error!r}); repeat the run.") from error


#: The seven diagnoses of HAM10000: ``sorted(dx.unique())`` is the order of every probability column. akiec is
#: pre-malignant to in-situ carcinoma, and counted as malignant.
HAM10000: Final = LabelSet(
    codes=("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc"),
    names={
        "akiec": "actinic keratosis / intraepithelial carcinoma",
        "bcc": "basal cell carcinoma",
        "bkl": "benign keratosis",
        "df": "dermatofibroma",
        "mel": "melanoma",
        "nv": "melanocytic nevus",
        "vasc": "vascular lesion",
    },
    malignant=frozenset({"akiec", "bcc", "mel"}),
    critical="mel",
)

#: One-hot column names of ISIC 2018 Task 3 and ISIC 2019 -> HAM10000 codes. SCC joins akiec (both are
#: keratinocyte carcinoma or its precursor); AK is the ISIC 2019 name of akiec; UNK has no counterpart.
ISIC_CODES: Final[dict[str, str | None]] = {
    **{code.upper(): code for code in HAM10000.codes},
    "AK": "akiec",
    "SCC": "akiec",
    "UNK": None,
}

#: Said wherever a class is said.
DISCLAIMER: Final = "Research use only: not a medical device, not for diagnosis."

#: What evaluation takes: a label set, or codes alone (their roles are then known where they are HAM10000's).
Classes: TypeAlias = LabelSet | Sequence[str]


def as_labels(classes: Classes) -> LabelSet:
    """Return a label set as it is, and codes as `LabelSet.of` completes them."""
    return classes if isinstance(classes, LabelSet) else LabelSet.of(tuple(classes))
