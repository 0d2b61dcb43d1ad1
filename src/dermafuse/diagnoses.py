"""The seven diagnoses of HAM10000, their names, and how other vocabularies map onto them.

The words only: `dermafuse.labels` makes the label set of them that the rest of the package asks.
"""

from __future__ import annotations

from typing import Final

#: ``sorted(dx.unique())`` of HAM10000: the order of every probability column in this package.
CODES: Final[tuple[str, ...]] = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")

NAMES: Final[dict[str, str]] = {
    "akiec": "actinic keratosis / intraepithelial carcinoma",
    "bcc": "basal cell carcinoma",
    "bkl": "benign keratosis",
    "df": "dermatofibroma",
    "mel": "melanoma",
    "nv": "melanocytic nevus",
    "vasc": "vascular lesion",
}

#: Classes counted as malignant (akiec: pre-malignant to in-situ carcinoma, treated as a positive).
MALIGNANT: Final[frozenset[str]] = frozenset({"akiec", "bcc", "mel"})

#: The class that must not be missed.
CRITICAL: Final = "mel"

#: One-hot column names of ISIC 2018 Task 3 and ISIC 2019 -> HAM10000 codes. SCC joins akiec (both are
#: keratinocyte carcinoma or its precursor); AK is the ISIC 2019 name of akiec; UNK has no counterpart.
ISIC_CODES: Final[dict[str, str | None]] = {
    "MEL": "mel",
    "NV": "nv",
    "BCC": "bcc",
    "AKIEC": "akiec",
    "AK": "akiec",
    "BKL": "bkl",
    "DF": "df",
    "VASC": "vasc",
    "SCC": "akiec",
    "UNK": None,
}

DISCLAIMER: Final = "Research use only: not a medical device, not for diagnosis."
