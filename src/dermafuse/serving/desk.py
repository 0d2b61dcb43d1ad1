"""Who computes: the contract between the HTTP process and what holds the model, and what is said across it."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True)
class Asked:
    """What a request wants to know of an image.

    Attributes:
        views: 1, or 8 for the mean over flips and quarter turns.
        explain: also why.
        stability: also the spread over flips and quarter turns.
        operating_point: name of one, which is then applied to the answer; ``None``: none.
        prevalence: for which share of positives to say what a flag means, 0..1; ``None``: that of the judged images.
    """

    views: int = 1
    explain: bool = False
    stability: bool = False
    operating_point: str | None = None
    prevalence: float | None = None


@dataclass(frozen=True)
class Reply:
    """An answer, ready for the wire.

    Attributes:
        content: its body.
        headers: its own ones, with the media type.
        strange: of each image that was predicted, whether it is unlike the training images (``None``: no such rule).
    """

    content: bytes
    headers: Mapping[str, str] = field(default_factory=lambda: {"Content-Type": "application/json"})
    strange: tuple[bool | None, ...] = ()


@dataclass(frozen=True)
class Description:
    """What the HTTP process knows of the model without holding it.

    Attributes:
        facts: name, digest, and whether it is the released one; stands in every answer.
        version: of the Open Inference Protocol.
        told: the answer of ``/v1/model``.
        metadata: the answer of ``/v2/models/NAME``.
        sentence: which model it is, for whoever starts the server.
    """

    facts: Mapping[str, Any]
    version: str
    told: Mapping[str, Any]
    metadata: Mapping[str, Any]
    sentence: str

    @property
    def name(self) -> str:
        """The model's name in addresses."""
        return str(self.facts["name"])


#: Called with the model and further arguments, all of which can be pickled.
Job = Callable[..., Reply]


class Fault(Exception):
    """A fault of the server, as its log may say it: without the message, which may hold values or names of files.

    Args:
        error: name of the exception.
        at: file and line.
    """

    def __init__(self, error: str, at: str) -> None:
        super().__init__(error, at)
        self.error = error
        self.at = at

    @classmethod
    def of(cls, error: Exception) -> Fault:
        """Return what may be said of an error."""
        if isinstance(error, Fault):
            return error
        where = traceback.extract_tb(error.__traceback__)[-1]
        return cls(type(error).__name__, f"{where.filename}:{where.lineno}")


class Desk(Protocol):
    """What computes. Its methods are called from several threads."""

    description: Description

    def do(self, job: Job, arguments: tuple[Any, ...], deadline: float) -> Reply:
        """Return ``job(model, *arguments)``.

        Raises:
            Problem: of the job; or 503, the process that computed it has ended.
            Fault: the job failed.
        """

    def warm_up(self) -> None:
        """Return when the first prediction and explanation are done."""

    def close(self) -> None:
        """End it."""
