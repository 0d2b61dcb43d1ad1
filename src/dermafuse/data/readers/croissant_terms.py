"""What Croissant descriptions are made of: the format's own vocabulary, and who published the known data sets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

_HAM: Final = (
    "Tschandl P, Rosendahl C, Kittler H. The HAM10000 dataset, a large collection of multi-source dermatoscopic images "
    "of common pigmented skin lesions. Scientific Data 5:180161, 2018."
)
_ISIC_2018: Final = (
    "Codella N, Rotemberg V, Tschandl P, et al. Skin lesion analysis toward melanoma detection 2018: a challenge "
    "hosted by the International Skin Imaging Collaboration (ISIC). arXiv:1902.03368, 2018."
)
_BCN: Final = (
    "Combalia M, Codella NCF, Rotemberg V, et al. BCN20000: dermoscopic lesions in the wild. arXiv:1908.02288, 2019."
)
_NON_COMMERCIAL: Final = "https://creativecommons.org/licenses/by-nc/4.0/"


@dataclass(frozen=True)
class Publication:
    """Who published a data set, where, and under which terms; what is not known is ``None``."""

    name: str
    description: str
    url: str | None = None
    license: str | None = None
    citation: str | None = None
    creator: str | None = None
    published: date | None = None


_HAM_PUBLICATION: Final = Publication(
    "HAM10000",
    "10,015 dermatoscopic images of 7,470 pigmented skin lesions with seven diagnoses, age, sex and body site.",
    "https://doi.org/10.7910/DVN/DBW86T",
    _NON_COMMERCIAL,
    _HAM,
    "ViDIR Group, Medical University of Vienna",
    date(2018, 8, 14),
)

#: Layout -> publication, for the layouts of published data sets.
KNOWN: Final[Mapping[str, Publication]] = {
    "kaggle": _HAM_PUBLICATION,
    "dataverse": _HAM_PUBLICATION,
    "isic2018": Publication(
        "ISIC 2018 Task 3",
        "Dermatoscopic images with seven diagnoses: the lesion diagnosis task of the ISIC 2018 challenge.",
        "https://challenge.isic-archive.com/data/#2018",
        _NON_COMMERCIAL,
        f"{_ISIC_2018} {_HAM}",
        "International Skin Imaging Collaboration",
    ),
    "isic2019": Publication(
        "ISIC 2019",
        "25,331 dermatoscopic images with eight diagnoses, age, sex and body site: the ISIC 2019 challenge.",
        "https://challenge.isic-archive.com/data/#2019",
        _NON_COMMERCIAL,
        f"{_HAM} {_ISIC_2018} {_BCN}",
        "International Skin Imaging Collaboration",
    ),
}

#: The JSON-LD context of Croissant 1.0, as its specification gives it.
CONTEXT: Final[Mapping[str, Any]] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "equivalentProperty": "cr:equivalentProperty",
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
