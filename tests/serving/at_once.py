"""A desk without processes: computes in the thread that asks, so that a test can reach into its model."""

from __future__ import annotations

from typing import Any

from dermafuse.serving.desk import Job, Reply
from dermafuse.serving.jobs import describe
from dermafuse.serving.model import ServedModel


class AtOnce:
    def __init__(self, model: ServedModel) -> None:
        self.model = model
        self.description = describe(model)

    def do(self, job: Job, arguments: tuple[Any, ...], deadline: float) -> Reply:
        return job(self.model, *arguments)

    def warm_up(self) -> None:
        self.model.warm_up()

    def close(self) -> None:
        pass
