"""What a check of the data has to say: one finding, the same in the terminal, in JSON and in the report."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, get_args

from dermafuse.errors import DataError

Severity = Literal["error", "warning", "info"]

#: The most serious first.
SEVERITIES: Final[tuple[Severity, ...]] = get_args(Severity)


@dataclass(frozen=True)
class Finding:
    """One finding.

    Attributes:
        code: ``"DF001"``; the same kind of finding has the same code in every version.
        title: a few words.
        severity: ``error``: numbers of a model trained on this mean little until it is mended. ``warning``: look
            at it, and say so in a publication. ``info``: good to know.
        explanation: what was found and why it matters, with the counts, for a reader who is no programmer.
        action: what to do.
        data: the figures behind it, plain JSON values.
    """

    code: str
    title: str
    severity: Severity
    explanation: str
    action: str
    data: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"DF\d{3}", self.code) or self.severity not in SEVERITIES:
            raise DataError(f"'{self.code}' ({self.severity}) is not a finding: DF and three digits, {SEVERITIES}.")

    def to_dict(self) -> dict[str, Any]:
        """Return the finding as plain JSON values."""
        return {
            "code": self.code,
            "title": self.title,
            "severity": self.severity,
            "explanation": self.explanation,
            "action": self.action,
            "data": dict(self.data),
        }


def ranked(findings: Iterable[Finding]) -> list[Finding]:
    """Return findings with the most serious first, equal ones by code."""
    return sorted(findings, key=lambda finding: (SEVERITIES.index(finding.severity), finding.code))
