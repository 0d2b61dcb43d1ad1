"""Nothing leaves the machine: OpenVINO's usage reports are switched off before OpenVINO is imported."""

from __future__ import annotations

import sys

#: OpenVINO reports its import to a foreign server through this package; without it, it takes a stub of its own.
_REPORTER = "openvino_telemetry"


def forbid_usage_reports() -> None:
    """Make OpenVINO (and NNCF) take the stub that they keep for machines without their telemetry package.

    Importing OpenVINO otherwise sends an event to an analytics server from a thread that forks the process. Users
    of clinical images expect no connection that they did not ask for, and a fork in the middle of a program with
    threads can hang it. The choice holds for the whole process; where OpenVINO was imported before, it comes too
    late and changes nothing.
    """
    if _REPORTER not in sys.modules:
        # An entry of None makes ``import`` raise ModuleNotFoundError (documented in Python's import system).
        sys.modules[_REPORTER] = None  # type: ignore[assignment]
